/* Which server a session's connection goes to, and when. */
#pragma once

#include "pg/client.h"

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
/** Not logged in, for the server's reasons: hf_pg_client_login_at() follows once more. */
void hf_pg_route_login_failed(struct hf_pg_route *r, struct hf_pg_seating *s);
/** Given up or lost. */
uint64_t hf_pg_route_leave(struct hf_pg_route *r, struct hf_pg_seating *s);
/** The session has recovered. */
void hf_pg_route_recovered(struct hf_pg_route *r, struct hf_pg_seating *s);
/** A planned move has ended; the session's connection is in this seat now. */
void hf_pg_route_moved(struct hf_pg_route *r, struct hf_pg_seating *s, bool moved);
/** A server for the manager's own login: the primary, else any that answers; NULL: none. */
struct hf_pg_target *hf_pg_route_own(struct hf_pg_route *r);
