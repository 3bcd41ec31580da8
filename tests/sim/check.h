/* What must hold after every step of small simulations: I6, I8, I9, A10. */
#pragma once

#include "sim/world.h"

#define CHECK_NAMES 24 /* service names that a host may publish: "/s/0" ... */

/* What a host's local programs have asked for and not taken back. */
struct check_local {
    uint32_t value; /* 0: not published */
    uint32_t publisher;
    hf_time expires;
};

/* One life of one name, as others know it: what it had, by version. */
struct check_process {
    uint32_t name;
    uint64_t incarnation;
    uint64_t *digest; /* owned; by version; 0: never published */
    size_t n;
};

struct check_pair {
    const struct hf_part *part; /* as the acts told */
    hf_time heard;
};

struct check {
    struct sim_world *w;
    const char *again; /* command line that repeats this run */
    struct check_local (*local)[CHECK_NAMES];
    struct check_process *process;
    uint32_t n_processes;
    struct check_pair *pair;     /* host * n + name */
    uint64_t *counter;           /* process * n + host: highest that was taken in */
    uint32_t *period_ms;         /* by name: largest announced */
    struct hf_dir_counters *old; /* by host */
    hf_time looked_at;
    /* of the step under way */
    bool stale;
    uint32_t owner;
    struct hf_dir_peer_info info;
    uint64_t n_stale, n_repairs, n_bystanders, n_refused;
};

void check_init(struct check *c, struct sim_world *w, const char *again);
void check_fini(struct check *c);

/** Publish, withdraw, or take a publisher away, and see that the result is right. */
void check_publish(struct check *c, uint32_t host, uint32_t name, uint32_t value,
                   uint32_t publisher, uint32_t lease_ms);
void check_withdraw(struct check *c, uint32_t host, uint32_t name, uint32_t publisher);
void check_gone(struct check *c, uint32_t host, uint32_t publisher);

/** A host's programs died with it. */
void check_booted(struct check *c, uint32_t host);

/** All that run have the same tree, and their counters add up. */
void check_same_tree(struct check *c);
