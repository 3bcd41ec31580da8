/* One SQL connection that waits for its answers, SQLite's or PostgreSQL's. */
#include "sip/store_sql.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>
#include <sqlite3.h>

#include "base/mem.h"
#include "os/loop.h"
#include "sip/store_impl.h"

#define WAIT HF_S(60)     /* for one statement */
#define CONNECT_WAIT "5"  /* s */
#define SILENCE_MS "5000" /* of a peer that should have acknowledged */
#define BUSY_WAIT_MS 5000 /* for others' transactions in SQLite */
#define PARAMS_MAX 12
#define COLUMNS_MAX 12

struct hf_sip_sql {
    sqlite3 *lite;
    PGconn *pg;
    bool broken;
    hf_time wait;
};

const char *hf_sip_store_file(const char *uri)
{
    return strncmp(uri, "sqlite:", 7) == 0 ? uri + 7 : NULL;
}

int hf_sip_sql_check(const char *uri, struct hf_err *err)
{
    const char *file = hf_sip_store_file(uri);
    if (file) {
        return file[0] == '/'
                   ? 0
                   : hf_err_set(err, -HF_EVALUE,
                                "\"%s\": a path that begins with / is to follow sqlite:", uri);
    }
    PQconninfoOption *o = PQconninfoParse(uri, NULL);
    if (!o) { /* its text might have the password */
        return hf_err_set(err, -HF_EVALUE,
                          "neither sqlite:/PATH nor a PostgreSQL connection string or URI");
    }
    PQconninfoFree(o);
    return 0;
}

bool hf_sip_sql_is_pg(const struct hf_sip_sql *q)
{
    return q->pg != NULL;
}

void hf_sip_sql_wait(struct hf_sip_sql *q, hf_time wait)
{
    q->wait = wait;
}

bool hf_sip_sql_broken(const struct hf_sip_sql *q)
{
    return q->broken;
}

void hf_sip_sql_close(struct hf_sip_sql *q)
{
    if (q) {
        PQfinish(q->pg);
        sqlite3_close(q->lite);
        hf_free(q);
    }
}

static int lite_failed(struct hf_sip_sql *q, struct hf_err *err)
{
    int code = sqlite3_errcode(q->lite) & 0xff;
    int rc = -HF_ENOTREADY;
    if (code == SQLITE_BUSY) {
        rc = -HF_EHELD;
    } else if (code == SQLITE_ERROR || code == SQLITE_CONSTRAINT || code == SQLITE_MISMATCH) {
        rc = -HF_EVALUE;
    } else {
        q->broken = true;
    }
    return hf_err_set(err, rc, "SQLite: %s", sqlite3_errmsg(q->lite));
}

static int pg_failed(struct hf_sip_sql *q, const PGresult *res, struct hf_err *err)
{
    const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    const char *text = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    int rc = -HF_ENOTREADY;
    if (!state || !text) {
        q->broken = true;
        text = PQerrorMessage(q->pg);
    } else if (strcmp(state, "55P03") == 0) {
        rc = -HF_EHELD;
    } else if (strncmp(state, "57P", 3) == 0 || strcmp(state, "25006") == 0) {
        q->broken = true; /* it is shutting down, or no longer the primary */
    } else {
        rc = -HF_EVALUE;
    }
    return hf_err_set(err, rc, "PostgreSQL: %.*s", (int)strcspn(text, "\n"), text);
}

static void ignore(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

static int open_pg(struct hf_sip_sql *q, const char *uri, struct hf_err *err)
{
    /* what the URI says overrides what stands before it */
    const char *key[] = {"target_session_attrs",
                         "connect_timeout",
                         "tcp_user_timeout",
                         "keepalives_idle",
                         "keepalives_interval",
                         "fallback_application_name",
                         "dbname",
                         "client_encoding",
                         NULL};
    const char *value[] = {"read-write",   CONNECT_WAIT, SILENCE_MS, "5", "2",
                           "holdfast-sip", uri,          "UTF8",     NULL};
    q->pg = PQconnectdbParams(key, value, 1);
    if (!q->pg) {
        return hf_err_set(err, -ENOMEM, "no memory for a connection");
    }
    if (PQstatus(q->pg) != CONNECTION_OK) {
        return pg_failed(q, NULL, err);
    }
    PQsetNoticeProcessor(q->pg, ignore, NULL);
    return 0;
}

static int open_lite(struct hf_sip_sql *q, const char *file, struct hf_err *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(file, &q->lite, flags, NULL) != SQLITE_OK) {
        return hf_err_set(err, -HF_ENOTREADY, "SQLite: cannot open %s: %s", file,
                          q->lite ? sqlite3_errmsg(q->lite) : "no memory");
    }
    sqlite3_busy_timeout(q->lite, BUSY_WAIT_MS);
    return hf_sip_sql_script(q, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", err);
}

int hf_sip_sql_open(const char *uri, struct hf_err *err, struct hf_sip_sql **ret_sql)
{
    int rc = hf_sip_sql_check(uri, err);
    if (rc) {
        return rc;
    }
    struct hf_sip_sql *q = hf_alloc(sizeof(*q));
    if (!q) {
        return hf_err_set(err, -ENOMEM, "no memory for a connection");
    }
    const char *file = hf_sip_store_file(uri);
    rc = file ? open_lite(q, file, err) : open_pg(q, uri, err);
    if (rc) {
        hf_sip_sql_close(q);
        return rc;
    }
    *ret_sql = q;
    return 0;
}

/* ---- SQLite ---- */

static void bind_lite(sqlite3_stmt *st, const struct hf_sip_sql_value *param, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[24];
        snprintf(name, sizeof(name), "$%zu", i + 1);
        int at = sqlite3_bind_parameter_index(st, name);
        const struct hf_sip_sql_value *v = &param[i];
        const char *p = v->s.n ? (const char *)v->s.p : "";
        switch (v->kind) {
        case HF_SIP_SQL_TEXT:
            sqlite3_bind_text(st, at, p, (int)v->s.n, SQLITE_STATIC);
            break;
        case HF_SIP_SQL_INT:
            sqlite3_bind_int64(st, at, v->i);
            break;
        case HF_SIP_SQL_BYTES:
            sqlite3_bind_blob(st, at, p, (int)v->s.n, SQLITE_STATIC);
            break;
        case HF_SIP_SQL_NULL:
            sqlite3_bind_null(st, at);
            break;
        }
    }
}

static int64_t run_lite(struct hf_sip_sql *q, const char *sql, const struct hf_sip_sql_value *param,
                        size_t n, hf_sip_sql_row *row, void *arg, struct hf_err *err)
{
    sqlite3_stmt *st;
    if (sqlite3_prepare_v2(q->lite, sql, -1, &st, NULL) != SQLITE_OK) {
        return lite_failed(q, err);
    }
    bind_lite(st, param, n);
    int64_t rows = 0;
    int rc = 0;
    int step;
    while ((step = sqlite3_step(st)) == SQLITE_ROW && rc == 0) {
        struct hf_slice column[COLUMNS_MAX] = {0};
        int columns = sqlite3_column_count(st);
        for (int i = 0; i < columns && i < COLUMNS_MAX; i++) {
            const void *p = sqlite3_column_text(st, i);
            column[i] = hf_slice(p, (size_t)sqlite3_column_bytes(st, i));
        }
        rows++;
        rc = row ? row(arg, column, (size_t)columns) : 0;
    }
    if (rc == 0 && step != SQLITE_DONE) {
        rc = lite_failed(q, err);
    }
    if (rows == 0 && !sqlite3_stmt_readonly(st)) {
        rows = sqlite3_changes64(q->lite);
    }
    sqlite3_finalize(st);
    return rc ? rc : rows;
}

/* ---- PostgreSQL ---- */

/* The next result, in single rows; -HF_ENOTREADY: it did not come. */
static int next_pg(struct hf_sip_sql *q, hf_time until, PGresult **ret_res, struct hf_err *err)
{
    while (PQisBusy(q->pg)) {
        hf_time left = until - hf_now();
        struct pollfd fd = {.fd = PQsocket(q->pg), .events = POLLIN};
        int rc = left > 0 ? poll(&fd, 1, (int)(left / HF_NS_PER_MS) + 1) : 0;
        if (rc == 0) {
            q->broken = true;
            return hf_err_set(err, -HF_ENOTREADY, "PostgreSQL: no answer");
        }
        if (rc > 0 && !PQconsumeInput(q->pg)) {
            return pg_failed(q, NULL, err);
        }
    }
    *ret_res = PQgetResult(q->pg);
    return 0;
}

/* What comes of a statement. Rows that are not wanted are passed over. */
static int64_t answers_pg(struct hf_sip_sql *q, hf_sip_sql_row *row, void *arg, struct hf_err *err)
{
    int64_t rows = 0;
    int rc = 0;
    hf_time until = hf_now() + (q->wait ? q->wait : WAIT);
    for (PGresult *res = NULL;;) {
        int got = next_pg(q, until, &res, err);
        if (got || !res) {
            return got ? got : rc ? rc : rows;
        }
        switch (PQresultStatus(res)) {
        case PGRES_SINGLE_TUPLE: {
            struct hf_slice column[COLUMNS_MAX] = {0};
            int columns = PQnfields(res);
            for (int i = 0; i < columns && i < COLUMNS_MAX; i++) {
                column[i] = hf_slice(PQgetvalue(res, 0, i), (size_t)PQgetlength(res, 0, i));
            }
            rows++;
            rc = row && rc == 0 ? row(arg, column, (size_t)columns) : rc;
            break;
        }
        case PGRES_COMMAND_OK:
        case PGRES_TUPLES_OK:
            rows = rows ? rows : strtoll(PQcmdTuples(res), NULL, 10);
            break;
        case PGRES_EMPTY_QUERY:
        case PGRES_COPY_OUT:
        case PGRES_COPY_IN:
        case PGRES_COPY_BOTH:
        case PGRES_BAD_RESPONSE:
        case PGRES_NONFATAL_ERROR:
        case PGRES_FATAL_ERROR:
        case PGRES_PIPELINE_SYNC:
        case PGRES_PIPELINE_ABORTED:
            rc = pg_failed(q, res, err);
            break;
        }
        PQclear(res);
    }
}

static int64_t run_pg(struct hf_sip_sql *q, const char *sql, const struct hf_sip_sql_value *param,
                      size_t n, hf_sip_sql_row *row, void *arg, struct hf_err *err)
{
    char *text[PARAMS_MAX] = {0};
    const char *value[PARAMS_MAX];
    int len[PARAMS_MAX], format[PARAMS_MAX];
    bool ok = n <= PARAMS_MAX;
    for (size_t i = 0; i < n && ok; i++) {
        const struct hf_sip_sql_value *v = &param[i];
        size_t bytes = v->kind == HF_SIP_SQL_INT ? 24 : v->s.n + 1;
        text[i] = hf_alloc(bytes);
        ok = text[i] != NULL;
        if (ok && v->kind == HF_SIP_SQL_INT) {
            snprintf(text[i], bytes, "%" PRId64, v->i);
        } else if (ok && v->s.n) {
            memcpy(text[i], v->s.p, v->s.n);
        }
        value[i] = v->kind == HF_SIP_SQL_NULL ? NULL : text[i];
        len[i] = (int)v->s.n;
        format[i] = v->kind == HF_SIP_SQL_BYTES;
    }
    int64_t rc = ok ? 0 : hf_err_set(err, -ENOMEM, "no memory for a statement");
    if (ok && (!PQsendQueryParams(q->pg, sql, (int)n, NULL, value, len, format, 0) ||
               !PQsetSingleRowMode(q->pg))) {
        rc = pg_failed(q, NULL, err);
    }
    for (size_t i = 0; i < n && i < PARAMS_MAX; i++) {
        hf_free(text[i]);
    }
    return rc ? rc : answers_pg(q, row, arg, err);
}

int64_t hf_sip_sql_run(struct hf_sip_sql *q, const char *sql, const struct hf_sip_sql_value *param,
                       size_t n, hf_sip_sql_row *row, void *arg, struct hf_err *err)
{
    return q->pg ? run_pg(q, sql, param, n, row, arg, err)
                 : run_lite(q, sql, param, n, row, arg, err);
}

int hf_sip_sql_script(struct hf_sip_sql *q, const char *sql, struct hf_err *err)
{
    if (!q->pg) {
        return sqlite3_exec(q->lite, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : lite_failed(q, err);
    }
    if (!PQsendQuery(q->pg, sql)) {
        return pg_failed(q, NULL, err);
    }
    int64_t rc = answers_pg(q, NULL, NULL, err);
    return rc < 0 ? (int)rc : 0;
}
