/* What protect.c and its neighbours share of shields. */
#pragma once

#include "base/map.h"
#include "codec/tcp_facts.h"
#include "pg/protect.h"

#define WAITS_MAX 8
#define HF_PG_PEER_KEY_LEN (16 + 2)

/*
 * A connection of the service address: its slot of the guard, and its session of the pair, which
 * has nothing but the connection's facts before the login, and for those that are not protected:
 * enough for a backup to end it.
 *
 *                SYN-ACK         confirmed        accept(2)      both ends know of its end, or 60 s
 *   (handshakes, not registered) ------> EMBRYO ------> client's ----> CLOSING ----> leaving
 *
 * While the gate is open nothing waits, and accept(2) is the first that is heard of it.
 */
struct hf_pg_slot {
    uint8_t key[HF_PG_PEER_KEY_LEN];
    uint32_t slot; /* of the guard, if registered */
    bool registered;
    uint32_t syn_seq;
    bool embryo;    /* accept(2) has not given it yet */
    bool abandoned; /* its client is to be reset */
    uint64_t id;    /* of the pair's session; 0: none */
    struct hf_tcp_facts facts;
    struct hf_pg_client *client; /* NULL: nobody's yet, or any more */
    hf_time until;
    struct hf_list node; /* of expiring, or closing */

    /* a SYN-ACK that waits for its batch */
    struct hf_list waiting;          /* of handshakes */
    struct hf_egress_saved *syn_ack; /* owned */
    uint64_t number;                 /* 0: the next */

    /* closing: our FIN is not known to have arrived */
    int fd; /* owned */
    bool shielded, shut;
    uint64_t rx_total, tx_una, tx_written;
    struct hf_buf tx; /* from tx_una on */
};

/* Bytes that wait for a batch since `at`; rx: received by then. */
struct wait {
    uint64_t number, rx;
    hf_time at;
    size_t n;
};
struct waits {
    struct wait at[WAITS_MAX];
    unsigned first, n;
};

struct hf_pg_shield {
    struct hf_list node, touched, waiting;
    struct hf_list later; /* something happened that need not be told at once */
    hf_time later_until;
    struct hf_pg_protect *protect;
    struct hf_pg_client *client;
    uint64_t id; /* of entry */
    struct hf_pg_slot *entry;
    struct hf_tcp_facts facts;

    /* received: counted from the connection's first byte */
    uint64_t rx_before; /* on a former host */
    uint64_t rx_total, rx_told, rx_conf;
    uint64_t rx_at; /* the section RX begins there, and is so long */
    size_t rx_n;
    struct hf_buf said; /* of a login: what was read of it */
    bool logging_in;    /* RX has all of that */
    bool rx_whole; /* RX is not a window of the stream yet: set while logging_in, and until told */

    /* to the client, likewise */
    uint64_t tx_una, una_told;
    uint64_t tx_let;   /* confirmed */
    uint64_t tx_given; /* ... and given to the link's socket side */
    struct hf_buf tx;  /* from tx_una on: a later backup needs it */
    size_t tx_look;
    size_t tx_saved; /* of what the link has unsealed: a snapshot may have been before */

    struct waits wait, seat_wait[2];
    uint64_t seat_conn[2]; /* id of whose bytes seat_wait counts */
    uint64_t place_told;   /* id of the connection */
    uint64_t place_sealed; /* ... that is in a batch: this one */
    uint64_t place_number;
    bool starting; /* not told of yet */
    bool due;      /* it is to be told now */
    bool facts_told, login_told, key_told, position_told, seed_told;
};

struct hf_pg_protect {
    struct hf_pg *pg;
    struct hf_egress *egress;
    struct hf_poll_io io;
    struct hf_poll_task task;
    struct hf_pair_primary *primary; /* borrowed; NULL: no reign of ours */
    void (*pump)(void *arg);
    void *pump_arg;
    struct hf_map records; /* struct hf_pg_slot, by id */
    struct hf_map peers;   /* the same, by peer */
    struct hf_list all, touched, waiting, later;
    struct hf_poll_timer later_timer;
    struct hf_list dropped;    /* server connections that end when confirmed */
    struct hf_list handshakes; /* slots whose SYN-ACK waits */
    struct hf_list expiring;   /* slots, in order of time */
    struct hf_list closing;    /* slots */
    struct hf_poll_timer closing_timer;
    struct hf_pg_left_record *left_record; /* mapped; NULL: no file */
    size_t left_len;
    struct hf_endpoint *left; /* owned: of a process that is gone */
    size_t n_left;
    bool closing_gate;
    bool was_full; /* somebody may be paused for it */
    bool open;     /* the gate: nobody waits */
    bool serves;   /* who is not known is told so, by a RST */
};

/* --- protect_slot.c --- */

/** A slot for a connection that has a socket, or will; the pair is told of it. NULL: none. */
struct hf_pg_slot *hf_pg_slot_of_facts(struct hf_pg_protect *p, const struct hf_tcp_facts *f,
                                       uint64_t rx_total, uint64_t tx_total);
/** Nobody's any more, and of no interest to a backup: it goes after a while. */
void hf_pg_slot_leave(struct hf_pg_protect *p, struct hf_pg_slot *e, hf_time now);
/** Its client is to be reset: the connection is not known here. It goes after a while. */
void hf_pg_slot_abandon(struct hf_pg_protect *p, struct hf_pg_slot *e, hf_time now);
/** So it was, as far as can be known: the pair forgets it. */
void hf_pg_slot_told(struct hf_pg_protect *p, const struct hf_endpoint *peer);
struct hf_pg_slot *hf_pg_slot_find(struct hf_pg_protect *p, const struct hf_endpoint *peer);
/** Free all that are nobody's: of a former reign they would let out what the kernel says of
 * connections that come back before their sockets are there. */
void hf_pg_slots_forget(struct hf_pg_protect *p);
/** A handshake that the guard holds: the connection is told to the pair, then let go on. */
void hf_pg_slot_handshake(void *arg, const struct hf_egress_event *event);
/** Those that were sealed with batch `number`; those that were confirmed up to it. */
void hf_pg_slots_sealed(struct hf_pg_protect *p, uint64_t number);
void hf_pg_slots_confirmed(struct hf_pg_protect *p, uint64_t number);
/** Tell the pair of one without a shield: facts, and the server connection it has. */
void hf_pg_slot_save(struct hf_pg_protect *p, struct hf_pg_slot *e);
void hf_pg_slot_save_facts(struct hf_pg_protect *p, struct hf_pg_slot *e);
/** Where its server connection is: the server's start, and the process there. seat: attached. */
void hf_pg_slot_save_place(struct hf_pg_protect *p, const struct hf_pg_slot *e,
                           const struct hf_pg_seating *seat);
/** The sections POSITION. */
void hf_pg_slot_save_position(struct hf_pg_protect *p, const struct hf_pg_slot *e,
                              uint64_t rx_total, uint64_t tx_una);

/* --- protect_close.c --- */

/** Its client is done with: the socket is kept until the peer has all, and our FIN. */
void hf_pg_slot_close(struct hf_pg_protect *p, struct hf_pg_slot *e, int fd);
void hf_pg_slot_save_closing(struct hf_pg_protect *p, struct hf_pg_slot *e);
/** Forget all of them, without a packet. */
void hf_pg_slots_discard(struct hf_pg_protect *p);

/* --- protect_left.c --- */

/** Read <control>.clients, and begin it anew, for so many slots. Without it all goes on. */
void hf_pg_left_open(struct hf_pg_protect *p, const char *control, size_t n_slots);
void hf_pg_left_close(struct hf_pg_protect *p);
/** What was read has been acted upon. */
void hf_pg_left_forget(struct hf_pg_protect *p);
/** A registered slot has a client, or has it no more. */
void hf_pg_left_note(struct hf_pg_protect *p, const struct hf_pg_slot *e, bool connected);

/** protect_login.c: the sections LOGIN and SEED. */
void hf_pg_shield_login_save(struct hf_pg_shield *s,
                             void (*put)(void *arg, uint8_t section, struct hf_slice bytes));
void hf_pg_shield_seed_save(struct hf_pg_shield *s,
                            void (*put)(void *arg, uint8_t section, struct hf_slice bytes));
