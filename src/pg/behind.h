/* Server processes of sessions that go on elsewhere: idle, and ended when there is time. */
#pragma once

#include "pg/pg.h"

/*
 * A session that was idle when its host was lost goes on at once; the server process that it had
 * there has nothing to do any more, but takes a place (max_connections) until the server's
 * keepalive finds out. So they are ended by the manager's own login, a few at a time, as the end of
 * hundreds costs the server as much as their beginning. That login needs the right for it
 * (pg_signal_backend, or the same role); without it they are left to the server.
 */
struct hf_pg_behind;

HF_MUST int hf_pg_behind_create(struct hf_pg *pg, struct hf_pg_behind **ret_behind);
/** Those that are left are left. NULL is fine. */
void hf_pg_behind_destroy(struct hf_pg_behind *b);
/** The process with this pid, which began so long ago, on the primary. NULL: nothing is done. */
void hf_pg_behind_add(struct hf_pg_behind *b, uint32_t pid, hf_time age);
