/* One SQL connection that waits for its answers: for the leader, operators and the schema. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/hftime.h"
#include "base/slice.h"

/*
 * SQLite's or PostgreSQL's, by the URI. Statements are written such that both take them:
 * parameters are $1, $2, ... in the order in which they first appear; booleans are read as
 * CAST(x AS integer). All values come back as text.
 */
struct hf_sip_sql;

struct hf_sip_sql_value {
    enum { HF_SIP_SQL_TEXT, HF_SIP_SQL_INT, HF_SIP_SQL_BYTES, HF_SIP_SQL_NULL } kind;
    int64_t i;
    struct hf_slice s; /* borrowed */
};
#define HF_SIP_SQL_I(n) ((struct hf_sip_sql_value){.kind = HF_SIP_SQL_INT, .i = (int64_t)(n)})
#define HF_SIP_SQL_S(slice) ((struct hf_sip_sql_value){.kind = HF_SIP_SQL_TEXT, .s = (slice)})
#define HF_SIP_SQL_Z(str) HF_SIP_SQL_S(hf_slice_str(str))
#define HF_SIP_SQL_B(slice) ((struct hf_sip_sql_value){.kind = HF_SIP_SQL_BYTES, .s = (slice)})

/** Does a URI name a store? -HF_EVALUE with text. */
HF_MUST int hf_sip_sql_check(const char *uri, struct hf_err *err);

/** Connect. -HF_ENOTREADY: the database is away (and so from the calls below, which then have
 * closed the connection); -HF_EVALUE. */
HF_MUST int hf_sip_sql_open(const char *uri, struct hf_err *err, struct hf_sip_sql **ret_sql);
void hf_sip_sql_close(struct hf_sip_sql *q);
bool hf_sip_sql_is_pg(const struct hf_sip_sql *q);
/** How long PostgreSQL may take for one statement before it counts as gone; 0: 60 s. */
void hf_sip_sql_wait(struct hf_sip_sql *q, hf_time wait);
/** The connection is gone: close it, and open another one. */
bool hf_sip_sql_broken(const struct hf_sip_sql *q);

/** A row of an answer: columns borrowed for the call. Not 0: the rest is passed over, and it is
 * returned. */
typedef int hf_sip_sql_row(void *arg, const struct hf_slice *column, size_t n);

/** One statement. row may be NULL. The number of rows that it changed or returned, or -HF_EVALUE:
 * refused by the database; -HF_EHELD: a lock was not to be had; -HF_ENOTREADY. */
HF_MUST int64_t hf_sip_sql_run(struct hf_sip_sql *q, const char *sql,
                               const struct hf_sip_sql_value *param, size_t n, hf_sip_sql_row *row,
                               void *arg, struct hf_err *err);
/** Statements without parameters, separated by semicolons. */
HF_MUST int hf_sip_sql_script(struct hf_sip_sql *q, const char *sql, struct hf_err *err);
