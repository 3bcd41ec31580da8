/* Monitors: one persistent connection to each PostgreSQL server, by the manager's own login, on
 * which the servers core asks one statement now and then. */
#pragma once

#include "core/pg/servers.h"
#include "pg/protect.h"
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
/** End the server processes of a manager that is no more, on whichever servers have them: at once
 * where there is a connection, else when there is one. *told: on this host's clock, copied. */
void hf_pg_monitors_end(struct hf_pg_monitors *m, const struct hf_pg_backend_told *told);
/** HF_PG_SERVERS_RESET: give up probe and connection. */
void hf_pg_monitor_reset(struct hf_pg_monitors *m, uint32_t server);
