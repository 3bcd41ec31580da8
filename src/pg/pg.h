/* holdfast-pg's parts and how they hang together: clients, server connections, databases, users. */
#pragma once

#include <stdbool.h>

#include "base/list.h"
#include "base/map.h"
#include "core/pg/connect.h"
#include "core/pg/login.h"
#include "core/pg/session.h"
#include "os/loop.h"
#include "pg/config.h"
#include "pg/link.h"
#include "pg/protection.h"
#include "pg/stats.h"

struct hf_pg_client;
struct hf_pg_sconn;
struct hf_pg_rules;
struct hf_pg_route;
struct hf_pg_listeners;
struct hf_pg_cancels;
struct hf_pg_names;
struct hf_pg_query_pool;
struct hf_pg_web;
struct hf_pg_linger;
struct hf_pg_service;
struct hf_pg_protect;
struct hf_pg_warm;
struct hf_pg_watch;
struct hf_pg_behind;

/** A database name that clients asked for; lives as long as the program. */
struct hf_pg_database {
    char *name;
    uint64_t n_clients;
    struct hf_pg_classifier *classifier; /* owned; NULL until its first session */
    struct hf_pg_names *names;           /* owned; what keeps the classifier's list up to date */
    hf_time stored_at;                   /* a backup had sessions of it last */
    struct hf_pg_stats stats;
};

/** A user name that logged in; lives as long as the program. */
struct hf_pg_user {
    char *name;
    uint64_t n_clients;
    struct hf_pg_stats stats;
};

/** The program. */
struct hf_pg {
    struct hf_loop *loop;
    struct hf_pg_wire *wire;
    const char *config_path;
    struct hf_pg_config *config;            /* owned, replaced whole */
    struct hf_pg_session_conf session_conf; /* of config; a copy per snapshot is not needed:
                                             * sessions read it at each use */
    struct hf_pg_memory memory;
    struct hf_pg_rules *rules; /* shared (ref): HBA, secrets, TLS */
    struct hf_pg_route *route;
    struct hf_pg_listeners *listeners;
    struct hf_pg_query_pool *queries;
    struct hf_pg_web *web;
    struct hf_pg_service *service;  /* NULL: no service address */
    struct hf_pg_linger *linger;    /* likewise */
    struct hf_pg_protect *protect;  /* the service's; NULL while it is stopped */
    struct hf_pg_warm *warm;        /* likewise */
    struct hf_pg_watch *watch;      /* NULL: no service address */
    struct hf_pg_behind *behind;    /* likewise */
    struct hf_map databases, users; /* by name */
    struct hf_map cancels;          /* pid and key -> client */
    struct hf_list clients, sconns;
    size_t n_clients, n_sconns;
    struct hf_list cancelling; /* cancel connections */
    uint64_t last_id;
    uint64_t seed;
    hf_time started_at;
    bool stopping, draining, paused;
    bool leaving; /* clients of the service address are about to go on elsewhere */
    hf_time stop_at;
    struct hf_poll_timer stop_timer;
    struct hf_pg_counters counters;
    struct hf_pg_reign reign;           /* of the service address */
    struct hf_pg_histogram confirm_lag; /* from a batch's seal to what it lets out */
    struct hf_pg_takeover_stats takeovers;
    struct hf_pg_stats stats; /* of all databases */
};

/** The database or user of this name, made if need be; NULL: out of memory. */
struct hf_pg_database *hf_pg_database(struct hf_pg *pg, struct hf_slice name);
struct hf_pg_user *hf_pg_user(struct hf_pg *pg, struct hf_slice name);

/** Fill session_conf and memory.max from config. */
void hf_pg_use_config(struct hf_pg *pg);
/** Reload config_path; a bad file changes nothing. */
int hf_pg_reload(struct hf_pg *pg, struct hf_err *err);
/** End: clients get 57P01; drain: those in a transaction may finish first. */
void hf_pg_stop(struct hf_pg *pg, bool drain);

static inline hf_time hf_pg_now(const struct hf_pg *pg)
{
    return hf_poll_now(pg->wire->poll);
}
