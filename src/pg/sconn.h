/* A server connection: connecting, TLS, login; then bytes for its owner. */
#pragma once

#include "core/pg/connect.h"
#include "pg/pg.h"

struct hf_pg_sconn;

/** Where to; shared (ref) by connections, as the list of servers may change under them. */
struct hf_pg_target {
    unsigned n_refs;
    char *name;
    char *host; /* address, or directory */
    uint16_t port;
    uint16_t weight;
};
HF_MUST int hf_pg_target_create(const char *name, const char *host, uint16_t port, uint16_t weight,
                                struct hf_pg_target **ret_target);
struct hf_pg_target *hf_pg_target_ref(struct hf_pg_target *t);
void hf_pg_target_unref(struct hf_pg_target *t);
/** Open a socket to it, connecting: the fd, or -errno. */
HF_MUST int hf_pg_target_connect(const struct hf_pg_target *t, int64_t user_timeout_ms);

/** What its owner is told. None of these may destroy it but by hf_pg_sconn_close(). */
struct hf_pg_sconn_ops {
    /* Logged in; hf_pg_connect_result(c->connect) until hf_pg_sconn_settle(). */
    void (*ready)(struct hf_pg_sconn *c);
    /* Not logged in; hf_pg_connect_error(c->connect) if that is not NULL. It is closed. */
    void (*failed)(struct hf_pg_sconn *c, const char *why);
    size_t (*bytes)(struct hf_pg_sconn *c, struct hf_slice bytes);
    void (*after)(struct hf_pg_sconn *c); /* may be NULL */
    void (*room)(struct hf_pg_sconn *c);  /* may be NULL */
    /* Lost after the login. It is closed. */
    void (*gone)(struct hf_pg_sconn *c, const char *why);
};

struct hf_pg_sconn {
    struct hf_list node; /* of pg->sconns */
    struct hf_pg *pg;
    const struct hf_pg_sconn_ops *ops;
    void *owner;
    uint64_t id;
    struct hf_pg_link link;
    struct hf_pg_target *target;
    struct hf_pg_rules *rules;     /* during the login */
    struct hf_pg_connect *connect; /* during the login */
    struct hf_pg_connect_args args;
    struct hf_poll_timer timer;
    struct hf_poll_task task; /* destroys */
    bool logged_in, closed, settled, parted;
    bool retry; /* with args.second, at the timer */
    bool tls;
    hf_time opened_at, ready_at;
    uint32_t pid;
    uint16_t port; /* ours; 0: a Unix socket */
    uint8_t n_key;
    uint8_t *key;             /* owned */
    struct hf_list held_node; /* protect.c's: closed, and what it sent last waits for this batch */
    uint64_t held_until;
};

/**
 * Connect and log in. args: version, user, database, params, replication, secret, cleartext,
 * deadline are taken, slices borrowed until ready() or failed(). Neither is called from within.
 */
HF_MUST int hf_pg_sconn_open(struct hf_pg *pg, struct hf_pg_target *target,
                             const struct hf_pg_connect_args *args,
                             const struct hf_pg_sconn_ops *ops, void *owner,
                             struct hf_pg_sconn **ret_sconn);
/** The login's results have been taken: they go, and what has come already is given to bytes(). */
void hf_pg_sconn_settle(struct hf_pg_sconn *c);
/** Say Terminate after what was sent, and close; the owner hears no more. NULL is fine. */
void hf_pg_sconn_close(struct hf_pg_sconn *c);
/** The owner has no more to do with it; it is closed then. */
void hf_pg_sconn_part(struct hf_pg_sconn *c, hf_time at);
/** Free those that are left at the end of the program. */
void hf_pg_sconn_close_all(struct hf_pg *pg);
