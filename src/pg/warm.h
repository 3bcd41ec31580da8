/* Server connections that are logged in before they are needed: a backup's, for the sessions that
 * it may have to go on with. */
#pragma once

#include "core/pair/store.h"
#include "pg/client.h"

/*
 * A login costs the server a process and some milliseconds of its CPU time: for hundreds of
 * sessions that is most of what their clients would wait for. So a backup has them done before: for
 * the most recently active sessions always (service.warm), for all of them when a take-over is
 * likely. Nothing is said on such a connection before a session has it (X6): it is one of the same
 * user, database and start-up parameters, on the server's same start, whoever it was made for.
 *
 * At most HF_PG_WARM_LOGINS log in at once; while nobody waits for them one after the other, with
 * pauses, as clients work on the same server. When the server refuses one (it has no more places)
 * nothing more is tried for a second.
 */
#define HF_PG_WARM_LOGINS 16
#define HF_PG_WARM_MAX 1000

struct hf_pg_warm;

/** fn: hf_pg_warm_settled() has become true; not from within. */
HF_MUST int hf_pg_warm_create(struct hf_pg *pg, void (*fn)(void *arg), void *arg,
                              struct hf_pg_warm **ret_warm);
/** Closes what nobody took. NULL is fine. */
void hf_pg_warm_destroy(struct hf_pg_warm *w);

/** For the first n sessions of the store, which is borrowed for the call; others are closed. Also
 * has the catalogs of all its databases read, which replays need. hurry: they are needed soon. */
void hf_pg_warm_for(struct hf_pg_warm *w, const struct hf_pair_store *store, size_t n, bool hurry);
/** The sessions are this host's now: what they don't take within some seconds is closed. */
void hf_pg_warm_keep(struct hf_pg_warm *w);
/** Has everything that was asked for come, or failed? */
bool hf_pg_warm_settled(const struct hf_pg_warm *w);

/** One for this client at that start of the server, or NULL. It is the caller's, and told to ops
 * and owner from now on. *ret_ready_at: when it was ready(); HF_NEVER: that follows. */
struct hf_pg_sconn *hf_pg_warm_take(struct hf_pg_warm *w, const struct hf_pg_client *c,
                                    const struct hf_pg_target *target, uint64_t incarnation,
                                    const struct hf_pg_sconn_ops *ops, void *owner,
                                    hf_time *ret_ready_at);
