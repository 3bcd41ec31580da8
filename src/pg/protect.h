/* Protected clients: what they are goes to the backup first, then what was sent to them is let out
 * (I4, X1). */
#pragma once

#include "core/pair/primary.h"
#include "core/pair/store.h"
#include "os/egress.h"
#include "pg/client.h"

/*
 * A *shield* is what a client of the service address has beside its session. Whatever happens to a
 * session touches its shield; at the end of the turn all that were touched are saved, as one batch
 * of the pair core; what they sent in that turn, to the client and to servers, waits in their links
 * until the core has confirmed the batch. So has the acknowledgement of what was read: the guard's
 * limit of the client's slot is raised then. A request that takes no effect by itself goes to the
 * server at once, and is saved with its answer (hf_pg_session_ahead(), doc/design/takeover.md).
 *
 * While it logs in its shield keeps all that it said: a backup does the login again from the first
 * byte, with the same random bytes, and what comes out is compared with what was said to the
 * client.
 *
 * Unprotected beyond this host, and let out at once: TLS clients, consoles, and who began to log in
 * while nobody waited for a backup. The backup knows of these what it takes to end them: the client
 * by a RST, and the server process.
 *
 * A client that is done with is known to the backup until it has acknowledged our FIN.
 */

/* Sections of a session in the pair, beside those of its core (HF_PG_SECTION_*). */
enum hf_pg_shield_section {
    HF_PG_SECTION_POSITION = HF_PG_SECTION_MAX, /* rx_total, tx_una */
    HF_PG_SECTION_RX,                           /* received, and not consumed by the core */
    HF_PG_SECTION_TX,                           /* to the client, from tx_una on */
    HF_PG_SECTION_FACTS,                        /* struct hf_tcp_facts */
    HF_PG_SECTION_LOGIN,                        /* who it is, and how it logs in again */
    HF_PG_SECTION_PLACE,                        /* the server start that its connection is on */
    HF_PG_SECTION_BACKEND,                      /* the process there (struct hf_pg_backend_told) */
    HF_PG_SECTION_SEED, /* of a login: with RX from the first byte on it can be done again */
    HF_PG_SECTION_BACKEND_PORT, /* beside BACKEND; a peer may know of none */
};

/* A server process that is of no use any more when its client is lost. At which server it is, PLACE
 * tells. */
struct hf_pg_backend_told {
    uint32_t pid;
    uint16_t port;    /* of our end of the connection; 0: not known */
    hf_time from, to; /* it began between these, on the clock of who told it */
};
/** in, port: of these sections. -HF_E*: bytes that no shield gave. */
HF_MUST int hf_pg_backend_told_read(struct hf_slice in, struct hf_slice port,
                                    struct hf_pg_backend_told *ret_told);

/* What a peer gets of a login, and gives back. */
struct hf_pg_shield_login {
    struct hf_slice user, database, params;
    uint32_t version;
    enum hf_pg_replication replication;
    bool read_only;
    uint32_t cancel_pid;
    struct hf_slice cancel_key;
    bool has_secret;
    struct hf_pg_secret secret;
};
/** -HF_E*: bytes that no shield gave. Slices are borrowed from the input. */
HF_MUST int hf_pg_shield_login_read(struct hf_slice in, struct hf_pg_shield_login *ret_login);
struct hf_pg_seed;
/** Of a login, likewise. */
HF_MUST int hf_pg_shield_seed_read(struct hf_slice in, struct hf_pg_seed *ret_seed,
                                   bool *ret_read_only);
/** *ret_tx_una: where the section TX begins. */
HF_MUST int hf_pg_shield_position_read(struct hf_slice in, uint64_t *ret_rx_total,
                                       uint64_t *ret_tx_una);

struct hf_pg_protect;
struct hf_pg_shield;

/** The guard is in force from now on: nothing leaves from the address. */
HF_MUST int hf_pg_protect_create(struct hf_pg *pg, const struct hf_endpoint *address,
                                 const char *interface, struct hf_err *err,
                                 struct hf_pg_protect **ret_protect);
/** Its clients are gone. The guard stays in force. */
void hf_pg_protect_destroy(struct hf_pg_protect *p);

/** A reign begins, or ends (NULL). Borrowed; pump() is called after each seal. */
void hf_pg_protect_lead(struct hf_pg_protect *p, struct hf_pair_primary *primary,
                        void (*pump)(void *arg), void *arg);

/** What the reign's sessions are, when nothing is let out any more: 0 and a store like a backup's,
 * owned by the caller; -ENOMEM, -HF_EFULL. The reign ends with it. */
HF_MUST int hf_pg_protect_copy(struct hf_pg_protect *p, struct hf_pair_store **ret_store);

/** All that was taken over is here, and a listener: who is not known may be told so (RST). */
void hf_pg_protect_serves(struct hf_pg_protect *p);

/* What the core says (core/pair/primary.h), passed on by who owns it. */
void hf_pg_protect_confirmed(struct hf_pg_protect *p, uint64_t number);
void hf_pg_protect_snapshot(struct hf_pg_protect *p, uint64_t session);
void hf_pg_protect_gate(struct hf_pg_protect *p, bool open);
/** Is too much unconfirmed to read on? */
bool hf_pg_protect_full(struct hf_pg_protect *p);
struct hf_egress *hf_pg_protect_egress(struct hf_pg_protect *p);

/** A connection to the service address was accepted; false: it can't be taken. */
HF_MUST bool hf_pg_protect_accepted(struct hf_pg_client *c);
/** Logged in, its session is there: protected from now on, if it can be. */
void hf_pg_protect_begin(struct hf_pg_client *c);
/** Of a login: so much of what the client said has been read; it is kept. Nothing for who has no
 * shield. */
void hf_pg_protect_said(struct hf_pg_client *c, struct hf_slice bytes);
/** It begins what can't be protected (TLS, the console): all that waits is let out. */
void hf_pg_protect_leave(struct hf_pg_client *c);
/** Taken over: c has its slot, its session is about to be loaded, or its login to be done again.
 * tx: bytes from tx_una on. */
HF_MUST int hf_pg_protect_resume(struct hf_pg_client *c, const struct hf_tcp_facts *facts,
                                 uint64_t rx_total, uint64_t tx_una, struct hf_slice tx);
/** Something happened to it. Cheap; nothing for who has no shield. */
void hf_pg_protect_touch(struct hf_pg_client *c);
/** Before a planned move: has the backup confirmed all that there is to tell? What would be told
 * later is told now. */
bool hf_pg_protect_settled(struct hf_pg_protect *p);
/** A server connection is being closed: true: what it still has to send waits for its batch first,
 * then it is destroyed. */
bool hf_pg_protect_defer(struct hf_pg_sconn *conn);
/** A server connection was attached. */
void hf_pg_protect_attached(struct hf_pg_client *c, const struct hf_pg_seating *seat);
/** The client is being destroyed; its socket is still open, and may be taken. */
void hf_pg_protect_end(struct hf_pg_client *c);
/** Taken over: all that is left of it is to be said. Takes the slot and fd; tx: from tx_una on. */
void hf_pg_protect_close(struct hf_pg_protect *p, struct hf_pg_slot *slot, int fd,
                         const struct hf_tcp_facts *facts, uint64_t rx_total, uint64_t tx_una,
                         uint64_t tx_written, struct hf_slice tx);

/** For consoles: why it is not protected beyond this host, or "" when it is. Static. */
const char *hf_pg_protect_why(const struct hf_pg_client *c);
/** ... and how far the backup's confirm is behind what it received and was to be sent. */
struct hf_pg_lag {
    uint64_t bytes, batches;
    hf_time age;   /* of the oldest of these */
    uint64_t held; /* of the bytes, those that wait here to be sent, to it or to its server */
};
void hf_pg_protect_lag(const struct hf_pg_client *c, struct hf_pg_lag *ret_lag);
