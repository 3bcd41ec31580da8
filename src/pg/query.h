/* Questions of holdfast-pg itself to a server, by the manager's own login: secrets, catalogs. */
#pragma once

#include "pg/sconn.h"

struct hf_pg_query;
struct hf_pg_query_pool;

struct hf_pg_query_ops {
    /* A row; values[i].p == NULL is NULL. Borrowed for the call. */
    void (*row)(void *arg, const struct hf_slice *values, size_t n);
    /* It is over: why NULL, or why it failed. The query is not valid any more. */
    void (*done)(void *arg, const char *why);
};
#define HF_PG_QUERY_COLUMNS_MAX 8

/** Idle connections, for auth.query: kept for a while, so that a storm of logins needs few. */
HF_MUST int hf_pg_query_pool_create(struct hf_pg *pg, struct hf_pg_query_pool **ret_pool);
void hf_pg_query_pool_destroy(struct hf_pg_query_pool *p);
/** The configuration changed: no connection is used again. */
void hf_pg_query_pool_clear(struct hf_pg_query_pool *p);

/**
 * Ask; $1 is `parameter` unless its p is NULL. done() follows, not from within, after at most
 * `timeout`. 0, -ENOMEM, -HF_ENOTREADY: no server, or no login of our own.
 */
HF_MUST int hf_pg_query_start(struct hf_pg_query_pool *p, struct hf_slice database,
                              struct hf_slice sql, struct hf_slice parameter, hf_time timeout,
                              const struct hf_pg_query_ops *ops, void *arg,
                              struct hf_pg_query **ret_query);
/** done() is not called any more. NULL is fine. */
void hf_pg_query_cancel(struct hf_pg_query *q);
