/* Monitors: one persistent connection to each PostgreSQL server, by the manager's own login, on
 * which the servers core asks one statement now and then. */
#pragma once

#include "core/pg/servers.h"
#include "pg/sconn.h"

struct hf_pg_monitors;

/** Tells `servers` (borrowed) what comes, then calls fn(arg), not from within another call. */
HF_MUST int hf_pg_monitors_create(struct hf_pg *pg, struct hf_pg_servers *servers,
                                  void (*fn)(void *arg), void *arg,
                                  struct hf_pg_monitors **ret_monitors);
void hf_pg_monitors_destroy(struct hf_pg_monitors *m);

/** HF_PG_SERVERS_PROBE: ask, connecting first if there is no connection. */
void hf_pg_monitor_probe(struct hf_pg_monitors *m, uint32_t server, struct hf_pg_target *target);
/** HF_PG_SERVERS_PROMOTE: tell it to promote itself. */
void hf_pg_monitor_promote(struct hf_pg_monitors *m, uint32_t server);
/** A statement of ours on that connection, between two others, e.g. where no place is left for
 * another login; its rows are of no interest. fn: why NULL: done; not from within. -HF_ENOTREADY:
 * no connection, -EBUSY: there is one already, -ENOMEM. */
HF_MUST int hf_pg_monitor_errand(struct hf_pg_monitors *m, uint32_t server, struct hf_slice sql,
                                 void (*fn)(void *arg, const char *why), void *arg);
/** fn(arg) is not called any more. */
void hf_pg_monitor_errand_forget(struct hf_pg_monitors *m, const void *arg);
/** HF_PG_SERVERS_RESET: give up probe and connection. */
void hf_pg_monitor_reset(struct hf_pg_monitors *m, uint32_t server);
