/* A client connection: login, then its session or the console. */
#pragma once

#include "codec/tcp_facts.h"
#include "pg/pg.h"
#include "pg/sconn.h"

#define HF_PG_CANCEL_ID_LEN (4 + 32)

enum hf_pg_phase {
    HF_PG_PHASE_LOGIN,
    HF_PG_PHASE_SESSION,
    HF_PG_PHASE_CONSOLE,
    HF_PG_PHASE_CLOSING, /* until what was sent has left */
};

struct hf_pg_ask;
struct hf_pg_console;
struct hf_pg_shield;
struct hf_pg_shield_login;
struct hf_pg_slot;

/* One of a session's server connections, wanted or had. */
struct hf_pg_seating {
    struct hf_pg_client *client;
    enum hf_pg_side side;
    bool wanted; /* need() was called, attach() not yet */
    bool attached;
    struct hf_pg_sconn *conn; /* owned; NULL: none yet */
    void *route;              /* route.c's */
    hf_time since;            /* wanted */
};

/* What is random in a login: with the same bytes from the client the same is said to it. */
struct hf_pg_seed {
    uint8_t nonce[HF_PG_NONCE_LEN];
    uint8_t salt[4]; /* of MD5 */
};

struct hf_pg_client {
    struct hf_list node; /* of pg->clients */
    struct hf_pg *pg;
    struct hf_pg_link link;
    struct hf_poll_timer timer; /* the earliest of all deadlines, or before it */
    struct hf_poll_task task;
    uint64_t id;
    enum hf_pg_phase phase;
    bool read_only, local, direct_tls, ended;
    bool need[3]; /* asked for since the last task */
    char from[HF_ADDR_STR_LEN];
    struct hf_pg_rules *rules; /* of its login */
    struct hf_pg_login *login; /* owned, until logged in */
    struct hf_pg_seed seed;    /* of it */
    struct hf_buf
        repeat; /* of one that is done again: what was said to it, and is not said again */
    struct hf_pg_ask *ask; /* owned; auth.query is under way */
    struct hf_pg_database *database;
    struct hf_pg_user *user;
    uint8_t *params; /* owned; name NUL value NUL ... */
    size_t n_params;
    struct hf_pg_secret *secret; /* owned; for logins to servers */
    enum hf_pg_replication replication;
    uint32_t version;
    struct hf_pg_session *session; /* owned */
    struct hf_pg_seating seat[2];  /* [i] is of the side seat[i].side, which swap() changes */
    uint64_t lost;                 /* the server connection that went last: route's */
    uint8_t cancel_id[HF_PG_CANCEL_ID_LEN];
    uint8_t n_cancel_id; /* 0: not in pg->cancels yet */
    uint8_t n_cancel_key;
    uint8_t cancel_key[32];
    struct hf_pg_console *console; /* owned */
    /* a client of the service address (protect.h) */
    struct hf_pg_slot *slot;     /* of the guard; NULL: not one of these */
    struct hf_pg_shield *shield; /* owned there; NULL: it is not protected */
    struct hf_tcp_facts facts;   /* of its connection when it was accepted */
    hf_time connected_at, active_at;
    char why[96]; /* it ended */
};

/** Take over an accepted socket. service: of the service address. */
void hf_pg_client_accept(struct hf_pg *pg, int fd, bool read_only, bool service,
                         const struct hf_addr *from);
/** A client whose connection was taken over from another host, logged in there. Its session is to
 * be loaded. NULL: it can't be; fd is closed. */
struct hf_pg_client *hf_pg_client_restore(struct hf_pg *pg, int fd, const struct hf_addr *from,
                                          const struct hf_pg_shield_login *login);
/** Likewise, one that was logging in there: what it said then is to be preloaded, then
 * hf_pg_client_relogin() called. said: to it. */
struct hf_pg_client *hf_pg_client_restore_login(struct hf_pg *pg, int fd, bool read_only,
                                                const struct hf_addr *from,
                                                const struct hf_pg_seed *seed,
                                                struct hf_slice said);
void hf_pg_client_relogin(struct hf_pg_client *c);
/** Name for logs: "C-12 db/user@address". */
const char *hf_pg_client_name(const struct hf_pg_client *c, char *buf, size_t n);
#define HF_PG_CLIENT_NAME_LEN 240
/** Tell it FATAL and close. */
void hf_pg_client_fatal(struct hf_pg_client *c, const char *sqlstate, const char *message);
/** Close after what was sent, at the end of this turn. */
void hf_pg_client_close(struct hf_pg_client *c, const char *why);
/** Forget it without a packet: its connection lives elsewhere. */
void hf_pg_client_abandon(struct hf_pg_client *c);
/** Free at once: for the end of the program. */
void hf_pg_client_destroy(struct hf_pg_client *c);
/** The answer of auth_query. */
void hf_pg_client_secret(struct hf_pg_client *c, const struct hf_pg_secret *secret,
                         const char *why);

/* session.c */
/** Logged in: limits, a session, its first need. */
void hf_pg_client_begin(struct hf_pg_client *c);
/** A restored one: make its session from what was saved. lost: of the server connection it had, for
 * hf_pg_route_need(). 0 or -HF_E*. */
HF_MUST int hf_pg_client_load(struct hf_pg_client *c, const struct hf_pg_saved *saved,
                              uint64_t lost);
size_t hf_pg_client_session_bytes(struct hf_pg_client *c, struct hf_slice bytes);
/** After any call of the session: what was not consumed is offered again, pressure, deadlines. */
void hf_pg_client_touched(struct hf_pg_client *c, bool by_client);
/** PAUSE, or a switchover, began or ended: freeze or thaw each session accordingly. */
void hf_pg_clients_hold(struct hf_pg *pg);
/** What the session asked for meanwhile: in a task. */
void hf_pg_client_serve(struct hf_pg_client *c);
/** Deadlines of session and idleness. */
void hf_pg_client_due(struct hf_pg_client *c, hf_time now);
/** It goes on elsewhere: a server connection that has nothing to do is closed only then, as the end
 * of hundreds at once takes the CPU from those that begin. */
void hf_pg_client_part(struct hf_pg_client *c, hf_time at);
/** Give up seats and session. */
void hf_pg_client_release(struct hf_pg_client *c);
/* From route.c. */
/** incarnation: of the server, as far as known now. */
void hf_pg_client_login_at(struct hf_pg_seating *s, struct hf_pg_target *target,
                           uint64_t incarnation);
void hf_pg_client_attach(struct hf_pg_seating *s, struct hf_pg_backend *backend);
void hf_pg_client_refuse(struct hf_pg_seating *s, const char *sqlstate, const char *why);
void hf_pg_client_server_gone(struct hf_pg_seating *s, const char *why);
