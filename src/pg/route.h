/* Which server a session's connection goes to, and when: the servers core with its monitors and the
 * group that it follows. */
#pragma once

#include "core/pg/servers.h"
#include "pg/client.h"

struct hf_pg_backend_told;
struct hf_pg_route;

HF_MUST int hf_pg_route_create(struct hf_pg *pg, struct hf_err *err,
                               struct hf_pg_route **ret_route);
void hf_pg_route_destroy(struct hf_pg_route *r);
/** The configuration changed. */
void hf_pg_route_reconf(struct hf_pg_route *r);

/** A connection is wanted: hf_pg_client_login_at() or hf_pg_client_refuse() follow, not from
 * within. lost: what hf_pg_route_leave() returned of the one it replaces, or 0. */
HF_MUST int hf_pg_route_need(struct hf_pg_route *r, struct hf_pg_seating *s, uint64_t lost);
/** Logged in: hf_pg_client_attach() follows. */
void hf_pg_route_seated(struct hf_pg_route *r, struct hf_pg_seating *s);
/** ... had been before hf_pg_route_need(), at the start that hf_pg_client_login_at() told. */
void hf_pg_route_seated_before(struct hf_pg_route *r, struct hf_pg_seating *s);
/** Not logged in, for the server's reasons: hf_pg_client_login_at() follows once more. */
void hf_pg_route_login_failed(struct hf_pg_route *r, struct hf_pg_seating *s);
/** Given up or lost. */
uint64_t hf_pg_route_leave(struct hf_pg_route *r, struct hf_pg_seating *s);
/** Identity of the server start that this attached connection is on, for a manager that takes the
 * session over: bytes in buf (HF_PG_IDENTITY_MAX), 0: not attached. */
size_t hf_pg_route_identity(const struct hf_pg_seating *s, uint8_t *buf);
/** What to call it in hf_pg_route_need() as `lost`, here. */
uint64_t hf_pg_route_known(struct hf_pg_route *r, struct hf_slice identity);
/** Whether another manager may write: true from the start of a backup, false once it has taken
 * over. Meanwhile no fences are taken in a list that is servers.exclusive. */
void hf_pg_route_others_write(struct hf_pg_route *r, bool others_write);
/** The session has recovered. */
void hf_pg_route_recovered(struct hf_pg_route *r, struct hf_pg_seating *s);
/** A planned move has ended; the session's connection is in this seat now. */
void hf_pg_route_moved(struct hf_pg_route *r, struct hf_pg_seating *s, bool moved);
/** A server for the manager's own login: the primary, else any that answers; NULL: none. */
struct hf_pg_target *hf_pg_route_own(struct hf_pg_route *r);

/** Where who writes would log in now, and the number of that server's start; NULL: nowhere. */
struct hf_pg_target *hf_pg_route_primary(struct hf_pg_route *r, uint64_t *ret_incarnation);

/** hf_pg_monitor_errand() at the primary. */
HF_MUST int hf_pg_route_errand(struct hf_pg_route *r, struct hf_slice sql,
                               void (*fn)(void *arg, const char *why), void *arg);
void hf_pg_route_errand_forget(struct hf_pg_route *r, const void *arg);

/** For console and metrics; borrowed. Use only the functions that read. */
const struct hf_pg_servers *hf_pg_route_servers(const struct hf_pg_route *r);
/** host and port of a server; NULL: none of this number. */
const struct hf_pg_target *hf_pg_route_target(const struct hf_pg_route *r, uint32_t server);
/** Operators': -HF_ENOTFOUND: no such server; -EBUSY: a switchover is under way. */
HF_MUST int hf_pg_route_drain(struct hf_pg_route *r, const char *name, bool on);
/** name: of the server to be promoted, or NULL: whom others promote. As hf_pg_servers_switchover().
 */
HF_MUST int hf_pg_route_switchover(struct hf_pg_route *r, const char *name, hf_time limit);
/** Whether a switchover holds who writes. */
bool hf_pg_route_holds(const struct hf_pg_route *r);
