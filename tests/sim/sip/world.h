/* Several SIP servers with their caches, one assignment table, clients of all kinds, one seed. */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/attr.h"
#include "base/prng.h"
#include "core/sip/assign.h"
#include "core/sip/decide.h"
#include "core/sip/fleet.h"
#include "core/sip/rebalance.h"
#include "sim/runner.h"
#include "sim/sip/cast.h"
#include "support/sim_net.h"

enum {
    SW_SERVERS = 8,
    SW_CLIENTS = 24, /* client i registers AoR i */
    SW_MEMORY = 64,  /* redirects that a server remembers */
    SW_PATH = 8,
};
#define SW_EXPIRES HF_S(120)
#define SW_EXPIRES_AWAY HF_S(60) /* S3 */
#define SW_LATELY HF_S(32)       /* S5 */

/* A row of the table in SQL. */
struct sw_row {
    bool used;
    uint16_t home, current;
    uint64_t epoch, change;
    bool pinned;
    uint8_t agent;
    uint16_t agent_id;
};

/* What a client has registered; one for each AoR. */
struct sw_binding {
    bool used;
    uint32_t call_id;
    hf_time until, life;
};

struct sw_db {
    bool there;
    uint64_t change;
    struct sw_row row[SW_CLIENTS];
    struct sw_binding binding[SW_CLIENTS];
};

struct sw_server {
    bool up, cut; /* cut: from the database */
    enum hf_sip_role role;
    bool draining;
    uint16_t weight;
    uint32_t boot;
    struct hf_sip_fleet *fleet; /* what it knows of the others; numbers are those of the world */
    struct hf_sip_assign *assign;
    struct sw_binding has[SW_CLIENTS]; /* of whom it takes for its own */
    struct {
        uint32_t client, call_id;
        hf_time at;
    } redirected[SW_MEMORY];
    uint32_t n_redirected;
};

enum sw_habit {
    SW_FOLLOWS, /* a 3xx, with the whole URI */
    SW_STRIPS,  /* follows, but drops URI parameters */
    SW_IGNORES, /* takes it for a failure */
};
enum sw_place {
    SW_INTERNAL, /* straight to a server */
    SW_EDGE,     /* behind our edge server */
    SW_FOREIGN,  /* behind somebody else's proxy */
};

struct sw_client {
    bool used;
    enum sw_habit habit;
    enum sw_place place;
    bool forges; /* claims to be a peer, and epochs from a redirect */
    uint16_t agent_id;
    uint32_t call_id;
    uint16_t registrar; /* where it goes first */
    uint64_t carried;   /* of that URI */
    hf_time stamp;
    uint32_t request; /* its number; older timers and responses are void */
    bool waits;       /* for a response */
    bool credentials;
    uint16_t backup; /* to be tried on a timeout; HF_SIP_NONE */
    uint32_t hops;   /* servers that have handled the request so far */
    uint32_t redirects;
    hf_time registered; /* until */
    hf_time since;      /* when this request began */
    uint32_t failures, registers;
};

struct sw_msg {
    uint32_t client, request;
    enum hf_sip_kind kind;
    uint32_t callee; /* its AoR */
    unsigned n_via;
    bool from_peer, from_edge;
    struct hf_sip_mark mark;
    uint64_t carried;
    hf_time stamp;
    bool credentials;
    uint16_t path[SW_PATH];
    uint8_t n_path;
    uint32_t hops;
    /* while a server is at it */
    bool read, have_row;
    struct sw_row row;
    uint8_t n_decided;
    uint64_t serve_epoch;
    /* the response */
    unsigned status, retry_after;
    uint16_t target, backup;
    uint64_t epoch;
    hf_time expires;
};

struct sw_world {
    struct sim_net net;
    struct sw_db db;
    uint16_t n_servers, n_clients;
    struct sw_server server[SW_SERVERS];
    struct sw_client client[SW_CLIENTS];
    enum hf_sip_policy policy;
    bool must_authenticate;
    bool by_hand; /* a story: no leader, feed and timers but when told */
    hf_time feed_every, leader_every, tree_delay;
    size_t bytes_max;
    struct hf_sip_rebalance *leader; /* of whom leads now */
    uint16_t leads;
    uint32_t leader_boot;
    FILE *trace;
    jmp_buf *fail;
    char why[300];
    uint64_t n_requests, n_served, n_redirects, n_proxied, n_refused, n_moves, n_reads, n_calls,
        n_found, hops_max, strip_hops_max;
};

/** n servers that are up and know each other; n clients that do nothing yet. */
void sw_init(struct sw_world *w, uint64_t seed, uint16_t n_servers, uint16_t n_clients);
void sw_fini(struct sw_world *w);
void sw_tell(struct sw_world *w, const char *fmt, ...) HF_PRINTF(2, 3);
/** An invariant does not hold: the end of this run. */
void sw_failed(struct sw_world *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));
uint64_t sw_below(struct sw_world *w, uint64_t n);

/** The next event, if there is one until then; false: the clock is there now. */
bool sw_next(struct sw_world *w, hf_time until);
/** All that happens in the next while. */
void sw_pass(struct sw_world *w, hf_time t);

/* what happens to servers and the database */
void sw_crash(struct sw_world *w, uint16_t server);
void sw_boot(struct sw_world *w, uint16_t server);
void sw_drain(struct sw_world *w, uint16_t server, bool on);
void sw_database(struct sw_world *w, bool there);
/** The server of these that sees it knows what lives now. */
void sw_look(struct sw_world *w, uint16_t server);
/** The row in SQL becomes this, as the leader would do it. */
void sw_assign(struct sw_world *w, uint32_t client, uint16_t home, uint16_t current);
/** The server reads what has changed. */
void sw_feed(struct sw_world *w, uint16_t server);
/** The server reads this row (of a request that is not told). */
void sw_read(struct sw_world *w, uint16_t server, uint32_t client);
/** Let whoever leads think, and do it. */
void sw_lead(struct sw_world *w);

/* what clients do */
void sw_register(struct sw_world *w, uint32_t client);
void sw_call(struct sw_world *w, uint32_t client, uint32_t callee, uint16_t server);
void sw_client_hears(struct sw_world *w, const struct sw_msg *m);
void sw_client_timer(struct sw_world *w, uint32_t client, uint32_t request);
/** A message leaves for a server. */
void sw_send(struct sw_world *w, uint16_t server, const struct sw_msg *m);
/** Its timer: a refresh, or patience with the request. */
void sw_set_timer(struct sw_world *w, uint32_t client, hf_time in);

/* ---- what the program runs ---- */

/** A schedule from its seed, for the runner; its figures' names. */
void swx_run(uint64_t seed, FILE *trace, struct sim_run *ret);
extern const char *const swx_figures[], *const swx_highest[];

size_t swx_n_stories(void);
struct sim_story swx_story(size_t i);
void swx_tell(size_t i, FILE *out);

/* --balance, --bench */
struct swx_options {
    uint64_t seed;
    uint32_t servers, clients;
    const char *json;
};
int swx_balance(const struct swx_options *o);
int swx_bench(const struct swx_options *o);
