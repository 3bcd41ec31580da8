/* What protect.c and its neighbours share of shields. */
#pragma once

#include "base/map.h"
#include "codec/tcp_facts.h"
#include "pg/protect.h"

#define WAITS_MAX 8
#define HF_PG_PEER_KEY_LEN (16 + 2)

/* A client's slot of the guard. */
struct hf_pg_slot {
    uint8_t key[HF_PG_PEER_KEY_LEN];
    uint32_t slot, syn_seq;
    bool embryo; /* accept(2) has not given it yet */
    hf_time until;
    struct hf_list node; /* of expiring, while it is nobody's */
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
    uint64_t id;
    struct hf_pg_slot *entry;
    struct hf_tcp_facts facts;

    /* received: counted from the connection's first byte */
    uint64_t rx_before; /* on a former host */
    uint64_t rx_total, rx_told, rx_conf;
    uint64_t rx_at; /* the section RX begins there, and is so long */
    size_t rx_n;

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
    bool facts_told, login_told, key_told, position_told;
};

struct hf_pg_protect {
    struct hf_pg *pg;
    struct hf_egress *egress;
    struct hf_poll_io io;
    struct hf_poll_task task;
    struct hf_pair_primary *primary; /* borrowed; NULL: no reign of ours */
    void (*pump)(void *arg);
    void *pump_arg;
    struct hf_map shields; /* by id */
    struct hf_map peers;   /* struct hf_pg_slot, by peer */
    struct hf_list all, touched, waiting, later;
    struct hf_poll_timer later_timer;
    struct hf_list dropped;  /* server connections that end when confirmed */
    struct hf_list expiring; /* slots, in order of time */
    bool closing_gate;
    bool was_full; /* somebody may be paused for it */
    bool open;     /* the gate: nobody waits */
    bool serves;   /* who is not known is told so, by a RST */
};

/** A slot for a connection that is taken over; NULL: none. */
struct hf_pg_slot *hf_pg_slot_of_facts(struct hf_pg_protect *p, const struct hf_tcp_facts *f,
                                       uint64_t rx_total, uint64_t tx_total);
/** Nobody's any more: it goes after a while. */
void hf_pg_slot_leave(struct hf_pg_protect *p, struct hf_pg_slot *e, hf_time now);

/** protect_login.c: the section LOGIN. */
void hf_pg_shield_login_save(struct hf_pg_shield *s,
                             void (*put)(void *arg, uint8_t section, struct hf_slice bytes));
