/* Server processes that were left on the primary by another manager, and are ended. */
#pragma once

#include "pg/pg.h"

/*
 * What a client did that can't be taken over goes, with its locks, as soon as the primary is known.
 * A session that was idle when its host was lost goes on at once; the server process that it had
 * there has nothing to do any more, but takes a place (max_connections) until the server's
 * keepalive finds out. So they are ended on the monitor's connection, a few at a time, as the end
 * of hundreds costs the server as much as their beginning. Its login needs the right for it
 * (pg_signal_backend, or the same role); without it they are left to the server.
 */
struct hf_pg_behind;
struct hf_pg_backend_told;

HF_MUST int hf_pg_behind_create(struct hf_pg *pg, struct hf_pg_behind **ret_behind);
/** Those that are left are left. NULL is fine. */
void hf_pg_behind_destroy(struct hf_pg_behind *b);
/**
 * A process, told on our clock, of the server start with this number here (hf_pg_route_known()). It
 * is ended if that is the primary's, once there is one: another start, or another server, has other
 * processes with the same numbers. So may that one have by now (X6): these stay, too.
 * soon: it may hold locks, as nothing goes on for it. b NULL: nothing is done.
 */
void hf_pg_behind_add(struct hf_pg_behind *b, const struct hf_pg_backend_told *told,
                      uint64_t incarnation, bool soon);
