/* What the leader and operators do with the SIP store: reigns, moves, assignments, users. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/name.h"
#include "base/utf8.h"
#include "core/sip/assign_csv.h"
#include "core/sip/digest.h"
#include "os/loop.h"
#include "sip/store_impl.h"
#include "sip/store_sql.h"

#define LOCK_TRIES 5
#define RAISE_BY "1000" /* epochs after a backup was restored: more than any server has seen */
#define IMPORT_ROWS 1000
#define MOVE_ROWS 20000 /* of one transaction: nobody stores anything meanwhile */
#define I HF_SIP_SQL_I
#define S HF_SIP_SQL_S
#define Z HF_SIP_SQL_Z

struct hf_sip_lead {
    struct hf_sip_sql *sql; /* NULL: not connected */
    uint64_t reign;         /* 0: none */
    uint64_t change;        /* the highest that was seen */
    char uri[];
};

int hf_sip_lead_open(const char *uri, struct hf_err *err, struct hf_sip_lead **ret_lead)
{
    int rc = hf_sip_sql_check(uri, err);
    if (rc) {
        return rc;
    }
    size_t n = strlen(uri) + 1;
    struct hf_sip_lead *l = hf_alloc(sizeof(*l) + n);
    if (!l) {
        return hf_err_set(err, -ENOMEM, "no memory for the store's leader");
    }
    memcpy(l->uri, uri, n);
    *ret_lead = l;
    return 0;
}

void hf_sip_lead_close(struct hf_sip_lead *l)
{
    if (l) {
        hf_sip_sql_close(l->sql);
        hf_free(l);
    }
}

/* ---- transactions ---- */

static int connect_to(struct hf_sip_lead *l, struct hf_err *err)
{
    if (l->sql && hf_sip_sql_broken(l->sql)) {
        hf_sip_sql_close(l->sql);
        l->sql = NULL;
    }
    return l->sql ? 0 : hf_sip_sql_open(l->uri, err, &l->sql);
}

static uint64_t number(struct hf_slice s)
{
    char text[24];
    snprintf(text, sizeof(text), "%.*s", HF_SLICE_FMT(s));
    return strtoull(text, NULL, 10);
}

static int row_numbers(void *arg, const struct hf_slice *column, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((uint64_t *)arg)[i] = number(column[i]);
    }
    return 0;
}

/* A statement with parameters; the numbers of its last row into ret (NULL: not wanted). */
static int64_t run(struct hf_sip_lead *l, const char *sql, const struct hf_sip_sql_value *param,
                   size_t n, uint64_t *ret, struct hf_err *err)
{
    return hf_sip_sql_run(l->sql, sql, param, n, ret ? row_numbers : NULL, ret, err);
}

static void roll_back(struct hf_sip_lead *l)
{
    if (l->sql && !hf_sip_sql_broken(l->sql) && hf_sip_sql_script(l->sql, "ROLLBACK", NULL)) {
        hf_sip_sql_close(l->sql);
        l->sql = NULL;
    }
}

/*
 * Nobody stores anything under an epoch until we have ended. A server that was cut off in the
 * middle of a transaction holds its lock until its connection is found dead: that would keep its
 * own clients from being moved. So who has held it for a second loses its connection.
 */
static int lock_pg(struct hf_sip_lead *l, struct hf_err *err)
{
    int rc = 0;
    for (unsigned i = 0; i < LOCK_TRIES; i++) {
        rc = hf_sip_sql_script(l->sql,
                               "BEGIN; SET LOCAL lock_timeout = '1s';"
                               "SELECT pg_advisory_xact_lock(" HF_SIP_STORE_LOCK ");"
                               "SET LOCAL lock_timeout = 0",
                               err);
        if (rc != -HF_EHELD) {
            break;
        }
        roll_back(l);
        int cut = connect_to(l, err);
        if (cut) {
            return cut;
        }
        cut = hf_sip_sql_script(
            l->sql,
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND classid = " HF_SIP_STORE_LOCK_HIGH
            " AND objid = " HF_SIP_STORE_LOCK_LOW " AND objsubid = 1 AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND pid <> pg_backend_pid() AND (mode = 'ShareLock' AND xact_start <"
            " clock_timestamp() - interval '1 s' OR xact_start < clock_timestamp() - interval '1"
            " min')",
            err);
        if (cut) {
            return cut;
        }
    }
    return rc;
}

/* The database is older than it was: what servers know has higher epochs, and theirs are right; but
 * rows of servers that are gone nobody asserts. */
static int raise_all(struct hf_sip_lead *l, uint64_t change, struct hf_err *err)
{
    hf_sip_sql_wait(l->sql, HF_S(3600)); /* of all there are */
    int64_t rc = run(l, "UPDATE assignment SET epoch = epoch + " RAISE_BY ", change = $1",
                     (struct hf_sip_sql_value[]){I(change)}, 1, NULL, err);
    hf_sip_sql_wait(l->sql, 0);
    return rc < 0 ? (int)rc : 0;
}

static int begin_change(struct hf_sip_lead *l, uint64_t *ret_change, struct hf_err *err)
{
    uint64_t change = 0;
    int64_t n = l->reign ? run(l,
                               "UPDATE leader SET reign = $1, change = change + 1 WHERE reign <= $1"
                               " RETURNING change",
                               (struct hf_sip_sql_value[]){I(l->reign)}, 1, &change, err)
                         : run(l, "UPDATE leader SET change = change + 1 RETURNING change", NULL, 0,
                               &change, err);
    if (n == 0) {
        return hf_err_set(err, -HF_ECLOSED, "a later leader is there");
    }
    if (n < 0) {
        return (int)n;
    }
    *ret_change = change;
    return change <= l->change ? raise_all(l, change, err) : 0;
}

/* A transaction in which rows are changed, with `change` = *ret_change. */
static int begin(struct hf_sip_lead *l, uint64_t *ret_change, struct hf_err *err)
{
    int rc = connect_to(l, err);
    if (rc) {
        return rc;
    }
    rc = hf_sip_sql_is_pg(l->sql) ? lock_pg(l, err)
                                  : hf_sip_sql_script(l->sql, "BEGIN IMMEDIATE", err);
    if (!rc) {
        rc = begin_change(l, ret_change, err);
    }
    if (rc) {
        roll_back(l);
    }
    return rc;
}

/* Its end: rc is what came of it so far. */
static int end(struct hf_sip_lead *l, int64_t rc, uint64_t change, struct hf_err *err)
{
    int result = rc < 0 ? (int)rc : 0;
    if (!result && hf_sip_sql_is_pg(l->sql)) {
        result =
            hf_sip_sql_script(l->sql, "SELECT pg_notify('" HF_SIP_STORE_CHANNEL "', 'c')", err);
    }
    if (!result) {
        result = hf_sip_sql_script(l->sql, "COMMIT", err);
    }
    if (result) {
        roll_back(l);
        return result;
    }
    l->change = change;
    return 0;
}

int hf_sip_lead_reign(struct hf_sip_lead *l, uint64_t reign, struct hf_err *err)
{
    if (reign == 0 || reign > INT64_MAX) {
        return hf_err_set(err, -HF_EVALUE, "reigns are from 1 on");
    }
    uint64_t change = 0, was = l->reign;
    l->reign = reign;
    int rc = begin(l, &change, err);
    rc = rc ? rc : end(l, 0, change, err);
    if (rc) {
        l->reign = was;
    }
    return rc;
}

void hf_sip_lead_seen(struct hf_sip_lead *l, uint64_t change)
{
    l->change = change > l->change ? change : l->change;
}

int hf_sip_lead_read(struct hf_sip_lead *l, uint64_t *ret_reign, uint64_t *ret_change,
                     struct hf_err *err)
{
    uint64_t got[2] = {0};
    int64_t rc = connect_to(l, err);
    rc = rc ? rc : run(l, "SELECT reign, change FROM leader", NULL, 0, got, err);
    if (rc < 0) {
        return (int)rc;
    }
    *ret_reign = got[0];
    *ret_change = got[1];
    return 0;
}

/* ---- moves ---- */

#define MOVE "UPDATE assignment SET current = $1, epoch = epoch + 1, change = $2"
#define SETTLE MOVE ", home = $1"
#define SOME " WHERE aor IN (SELECT aor FROM assignment WHERE current = $3"
#define IN_ORDER " ORDER BY bucket LIMIT $4)"

static int64_t do_move(struct hf_sip_lead *l, const struct hf_sip_fleet *f,
                       const struct hf_sip_move *m, uint64_t change, struct hf_err *err)
{
    struct hf_sip_sql_value v[5] = {Z(hf_sip_fleet_name(f, m->to)), I(change),
                                    Z(hf_sip_fleet_name(f, m->from)), I(m->n)};
    switch ((enum hf_sip_who)m->who) {
    case HF_SIP_WHO_ALL:
        v[3] = I(hf_sip_store_i16(m->bucket_first));
        v[4] = I(hf_sip_store_i16(m->bucket_last));
        return run(l, MOVE " WHERE current = $3 AND bucket BETWEEN $4 AND $5", v, 5, NULL, err);
    case HF_SIP_WHO_ANY:
        return run(l, MOVE SOME IN_ORDER, v, 4, NULL, err);
    case HF_SIP_WHO_LOOSE:
        return m->reason == HF_SIP_MOVE_BALANCE
                   ? run(l, SETTLE SOME " AND NOT pinned" IN_ORDER, v, 4, NULL, err)
                   : run(l, MOVE SOME " AND NOT pinned" IN_ORDER, v, 4, NULL, err);
    case HF_SIP_WHO_HOMING:
        return run(l, MOVE SOME " AND current <> home AND home = $1 AND NOT pinned" IN_ORDER, v, 4,
                   NULL, err);
    case HF_SIP_WHO_PINNED:
        return run(l, MOVE SOME " AND current <> home AND home = $1 AND pinned" IN_ORDER, v, 4,
                   NULL, err);
    case HF_SIP_WHO_COUNT_:
        break;
    }
    return hf_err_set(err, -HF_EVALUE, "no such move");
}

/* Part k of so many, by buckets. */
static struct hf_sip_move part_of(const struct hf_sip_move *m, uint32_t k, uint32_t parts)
{
    struct hf_sip_move part = *m;
    uint32_t span = m->bucket_last + 1u - m->bucket_first;
    part.bucket_first = (uint16_t)(m->bucket_first + (uint64_t)span * k / parts);
    part.bucket_last = (uint16_t)(m->bucket_first + (uint64_t)span * (k + 1) / parts - 1);
    return part;
}

/* A transaction that is open as long as it has few rows. */
struct moving {
    struct hf_sip_lead *l;
    bool open;
    uint64_t change, rows;
    uint64_t expected; /* rows since it began */
};

static int end_moving(struct moving *w, int64_t rc, struct hf_err *err)
{
    if (w->open) {
        w->open = false;
        rc = end(w->l, rc, w->change, err);
    }
    return (int)rc;
}

static int move_part(struct moving *w, const struct hf_sip_fleet *f, const struct hf_sip_move *m,
                     uint32_t expected, struct hf_err *err)
{
    int rc = w->expected + expected > MOVE_ROWS ? end_moving(w, 0, err) : 0;
    if (!rc && !w->open) {
        rc = begin(w->l, &w->change, err);
        w->expected = 0;
        w->open = rc == 0;
    }
    if (rc) {
        return rc;
    }
    int64_t n = do_move(w->l, f, m, w->change, err);
    w->rows += n > 0 ? (uint64_t)n : 0;
    w->expected += expected;
    return n < 0 ? end_moving(w, n, err) : 0;
}

int hf_sip_lead_moves(struct hf_sip_lead *l, const struct hf_sip_fleet *f,
                      const struct hf_sip_move *m, size_t n, struct hf_err *err, uint64_t *ret_n)
{
    struct moving w = {.l = l};
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        bool all = m[i].who == HF_SIP_WHO_ALL && m[i].bucket_first <= m[i].bucket_last;
        uint32_t span = m[i].bucket_last + 1u - m[i].bucket_first;
        uint32_t parts = all ? m[i].n / MOVE_ROWS + 1 : 1;
        parts = all && parts > span ? span : parts;
        for (uint32_t k = 0; k < parts && !rc; k++) {
            struct hf_sip_move part = parts > 1 ? part_of(&m[i], k, parts) : m[i];
            rc = move_part(&w, f, &part, m[i].n / parts, err);
        }
    }
    rc = end_moving(&w, rc, err);
    if (!rc) {
        *ret_n = w.rows;
    }
    return rc;
}

int hf_sip_lead_counts(struct hf_sip_lead *l, const char *server, uint64_t *ret_rows,
                       uint64_t *ret_pinned, struct hf_err *err)
{
    uint64_t got[2] = {0};
    int64_t rc = connect_to(l, err);
    rc = rc ? rc
            : run(l,
                  "SELECT count(*), (SELECT count(*) FROM assignment WHERE current = $1 AND pinned)"
                  " FROM assignment WHERE current = $1",
                  (struct hf_sip_sql_value[]){Z(server)}, 1, got, err);
    if (rc < 0) {
        return (int)rc;
    }
    *ret_rows = got[0];
    *ret_pinned = got[1];
    return 0;
}

struct astray {
    void (*fn)(void *arg, struct hf_slice current, struct hf_slice home, uint64_t loose,
               uint64_t pinned);
    void *arg;
};

static int row_astray(void *arg, const struct hf_slice *column, size_t n)
{
    const struct astray *a = arg;
    (void)n;
    uint64_t all = number(column[2]), pinned = number(column[3]);
    a->fn(a->arg, column[0], column[1], all - pinned, pinned);
    return 0;
}

int hf_sip_lead_astray(struct hf_sip_lead *l,
                       void (*fn)(void *arg, struct hf_slice current, struct hf_slice home,
                                  uint64_t loose, uint64_t pinned),
                       void *arg, struct hf_err *err)
{
    struct astray a = {.fn = fn, .arg = arg};
    int64_t rc = connect_to(l, err);
    rc = rc ? rc
            : hf_sip_sql_run(l->sql,
                             "SELECT current, home, count(*), sum(CAST(pinned AS integer))"
                             " FROM assignment WHERE current <> home GROUP BY current, home",
                             NULL, 0, row_astray, &a, err);
    return rc < 0 ? (int)rc : 0;
}

/* ---- operators ---- */

static bool text_ok(struct hf_slice s)
{
    for (size_t i = 0; i < s.n;) {
        size_t len = hf_utf8_len(s.p + i, s.n - i);
        if (len == 0 || s.p[i] < ' ') {
            return false;
        }
        i += len;
    }
    return s.n > 0 && s.n <= HF_SIP_AOR_MAX;
}

static int64_t assign(struct hf_sip_lead *l, struct hf_slice aor, const char *server, int pin,
                      uint64_t change, struct hf_err *err)
{
    struct hf_sip_sql_value v[] = {S(aor), I(change), I(pin), Z(server ? server : ""),
                                   I(hf_sip_store_i16(hf_sip_bucket(aor)))};
    const char *pinned = pin < 0 ? "UPDATE assignment SET epoch = epoch + 1, change = $2"
                                   " WHERE aor = $1 AND $3 < 0"
                                 : "UPDATE assignment SET epoch = epoch + 1, change = $2,"
                                   " pinned = ($3 = 1) WHERE aor = $1";
    int64_t rc = run(l, pinned, v, 3, NULL, err);
    if (rc > 0 && server) {
        struct hf_sip_sql_value to[] = {S(aor), Z(server)};
        rc = run(l, "UPDATE assignment SET home = $2, current = $2 WHERE aor = $1", to, 2, NULL,
                 err);
    } else if (rc == 0 && server) {
        rc = run(l,
                 "INSERT INTO assignment (aor, change, pinned, home, current, bucket, epoch, agent,"
                 " agent_id) VALUES ($1, $2, ($3 = 1), $4, $4, $5,"
                 " coalesce((SELECT epoch FROM gone WHERE aor = $1), 0) + 1, 0, -32768)",
                 v, 5, NULL, err);
    }
    return rc ? rc : hf_err_set(err, -HF_ENOTFOUND, "no such AoR: %.*s", HF_SLICE_FMT(aor));
}

int hf_sip_lead_assign(struct hf_sip_lead *l, struct hf_slice aor, const char *server, int pin,
                       struct hf_err *err)
{
    if (!text_ok(aor)) {
        return hf_err_set(err, -HF_EVALUE, "not an address of record");
    }
    if (server && !hf_host_name_ok(hf_slice_str(server))) {
        return hf_err_set(err, -HF_ENAME, "\"%.80s\" is not a server's name", server);
    }
    uint64_t change = 0;
    int rc = begin(l, &change, err);
    return rc ? rc : end(l, assign(l, aor, server, pin, change, err), change, err);
}

/* ---- CSV ---- */

/* Rows go to the database as JSON arrays, many in one parameter: both read that. */
#define IMPORT(source)                                                                             \
    "INSERT INTO assignment (aor, bucket, home, current, epoch, pinned, agent, agent_id, change)"  \
    " SELECT j.value ->> 0, CAST(j.value ->> 1 AS integer), j.value ->> 2, j.value ->> 3,"         \
    " CASE WHEN CAST(j.value ->> 4 AS bigint) > coalesce(gone.epoch, 0)"                           \
    " THEN CAST(j.value ->> 4 AS bigint) ELSE coalesce(gone.epoch, 0) + 1 END,"                    \
    " CAST(j.value ->> 5 AS integer) = 1, 0, -32768, CAST($2 AS bigint) FROM " source              \
    " LEFT JOIN gone ON gone.aor = j.value ->> 0 WHERE true"                                       \
    " ON CONFLICT (aor) DO UPDATE SET home = excluded.home, current = excluded.current,"           \
    " pinned = excluded.pinned, change = excluded.change,"                                         \
    " epoch = CASE WHEN excluded.epoch > assignment.epoch THEN excluded.epoch"                     \
    " ELSE assignment.epoch + 1 END"                                                               \
    " WHERE excluded.epoch > assignment.epoch OR excluded.home <> assignment.home"                 \
    " OR excluded.current <> assignment.current OR excluded.pinned <> assignment.pinned"
static const char import_pg[] = IMPORT("json_array_elements(CAST($1 AS json)) AS j(value)");
static const char import_lite[] = IMPORT("json_each($1) AS j");

struct import {
    struct hf_sip_lead *l;
    uint64_t change, n;
    size_t n_rows; /* in json */
    struct hf_buf json;
    struct hf_map seen; /* AoRs; each value is what the key is in */
};

static int flush_import(struct import *m, struct hf_err *err)
{
    if (m->n_rows == 0) {
        return 0;
    }
    hf_buf_str(&m->json, "]");
    if (m->json.err) {
        return hf_err_set(err, m->json.err, "no memory for the import");
    }
    struct hf_sip_sql_value v[] = {S(hf_buf_slice(&m->json)), I(m->change)};
    int64_t rc = run(m->l, hf_sip_sql_is_pg(m->l->sql) ? import_pg : import_lite, v, 2, NULL, err);
    hf_buf_clear(&m->json);
    m->n_rows = 0;
    m->n += rc > 0 ? (uint64_t)rc : 0;
    return rc < 0 ? (int)rc : 0;
}

static int see(struct import *m, struct hf_slice aor, uint64_t line, struct hf_err *err)
{
    if (hf_map_get(&m->seen, aor)) {
        return hf_err_set(err, -HF_EVALUE, "line %" PRIu64 ", field aor: is there twice", line);
    }
    uint8_t *key = hf_alloc(aor.n);
    if (!key || hf_map_put(&m->seen, hf_slice(memcpy(key, aor.p, aor.n), aor.n), key)) {
        hf_free(key);
        return hf_err_set(err, -ENOMEM, "no memory for the import");
    }
    return 0;
}

static int import_row(struct import *m, const struct hf_sip_csv_row *row, uint64_t line,
                      struct hf_err *err)
{
    struct hf_slice aor = hf_slice_str(row->aor);
    if (!text_ok(aor)) {
        return hf_err_set(err, -HF_EVALUE, "line %" PRIu64 ", field aor: not UTF-8", line);
    }
    int rc = see(m, aor, line, err);
    if (rc) {
        return rc;
    }
    hf_buf_str(&m->json, m->n_rows ? ",[" : "[[");
    hf_buf_json_str(&m->json, aor);
    hf_buf_printf(&m->json, ",%d,\"%s\",\"%s\",%" PRIu64 ",%d]",
                  hf_sip_store_i16(hf_sip_bucket(aor)), row->home, row->current, row->epoch,
                  row->pinned);
    return ++m->n_rows == IMPORT_ROWS ? flush_import(m, err) : 0;
}

static int import_lines(struct import *m, struct hf_slice csv, struct hf_err *err)
{
    struct hf_sip_csv reader = {0};
    int rc = 0;
    while (csv.n > 0 && rc >= 0) {
        const uint8_t *lf = memchr(csv.p, '\n', csv.n);
        size_t len = lf ? (size_t)(lf - csv.p) : csv.n;
        struct hf_sip_csv_row row;
        rc = hf_sip_csv_read(&reader, hf_slice(csv.p, len), &row, err);
        if (rc == 1) {
            rc = import_row(m, &row, reader.n_lines, err);
        }
        csv = hf_slice(csv.p + len + (lf != NULL), csv.n - len - (lf != NULL));
    }
    return rc < 0 ? rc : flush_import(m, err);
}

int hf_sip_lead_import(struct hf_sip_lead *l, struct hf_slice csv, struct hf_err *err,
                       uint64_t *ret_n)
{
    struct import m = {.l = l};
    int rc = begin(l, &m.change, err);
    if (rc) {
        return rc;
    }
    hf_buf_init(&m.json, (size_t)IMPORT_ROWS * (6 * HF_SIP_AOR_MAX + 2 * HF_HOST_NAME_MAX + 64));
    hf_map_init(&m.seen, (uint64_t)hf_wall_now());
    rc = end(l, import_lines(&m, csv, err), m.change, err);
    size_t pos = 0;
    for (void *key; (key = hf_map_next(&m.seen, &pos)) != NULL;) {
        hf_free(key);
    }
    hf_map_fini(&m.seen);
    hf_buf_fini(&m.json);
    if (!rc) {
        *ret_n = m.n;
    }
    return rc;
}

static void take(char *to, size_t room, struct hf_slice s)
{
    snprintf(to, room, "%.*s", HF_SLICE_FMT(s));
}

static int row_csv(void *arg, const struct hf_slice *column, size_t n)
{
    struct hf_buf *csv = arg;
    struct hf_sip_csv_row row = {.epoch = number(column[3]), .pinned = number(column[4]) != 0};
    (void)n;
    take(row.aor, sizeof(row.aor), column[0]);
    take(row.home, sizeof(row.home), column[1]);
    take(row.current, sizeof(row.current), column[2]);
    hf_sip_csv_write(csv, &row);
    return csv->err;
}

int hf_sip_lead_export(struct hf_sip_lead *l, struct hf_buf *csv, struct hf_err *err)
{
    int64_t rc = connect_to(l, err);
    if (rc) {
        return (int)rc;
    }
    hf_sip_csv_write_head(csv);
    rc = hf_sip_sql_run(l->sql,
                        "SELECT aor, home, current, epoch, CAST(pinned AS integer) FROM assignment"
                        " ORDER BY aor",
                        NULL, 0, row_csv, csv, err);
    if (csv->err) {
        return hf_err_set(err, csv->err, "no room for the export");
    }
    return rc < 0 ? (int)rc : 0;
}

/* ---- users ---- */

int hf_sip_lead_user(struct hf_sip_lead *l, const char *user, const char *realm,
                     struct hf_slice aor, const char *password, struct hf_err *err)
{
    struct hf_slice name = hf_slice_str(user), where = hf_slice_str(realm);
    if (!text_ok(name) || !text_ok(where) || !text_ok(aor)) {
        return hf_err_set(err, -HF_EVALUE, "not a user name, realm or address of record");
    }
    struct hf_sip_sql_value v[3 + HF_SIP_ALGORITHM_COUNT_] = {S(name), S(where), S(aor)};
    uint8_t secret[HF_SIP_ALGORITHM_COUNT_][HF_SIP_HASH_MAX];
    for (int i = 0; i < HF_SIP_ALGORITHM_COUNT_; i++) {
        enum hf_sip_algorithm a = (enum hf_sip_algorithm)i;
        v[3 + i].kind = HF_SIP_SQL_NULL;
        if (hf_sip_secret(a, name, where, hf_slice_str(password), secret[i]) == 0) {
            v[3 + i] = HF_SIP_SQL_B(hf_slice(secret[i], hf_sip_algorithm_len(a)));
        }
    }
    int64_t rc = connect_to(l, err);
    rc = rc ? rc
            : run(l,
                  "INSERT INTO users (username, realm, aor, sha512_256, sha256, md5)"
                  " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (username, realm) DO UPDATE SET"
                  " aor = excluded.aor, sha512_256 = excluded.sha512_256,"
                  " sha256 = excluded.sha256, md5 = excluded.md5",
                  v, HF_ARRAY_LEN(v), NULL, err);
    return rc < 0 ? (int)rc : 0;
}

struct found {
    bool there;
    char aor[HF_SIP_AOR_MAX + 1];
};

static int row_aor(void *arg, const struct hf_slice *column, size_t n)
{
    struct found *f = arg;
    (void)n;
    f->there = true;
    take(f->aor, sizeof(f->aor), column[0]);
    return 0;
}

/* Nobody's any more: a stone stays, so that no server asserts the row again. */
static int64_t bury(struct hf_sip_lead *l, const char *aor, uint64_t change, struct hf_err *err)
{
    static const char *const statements[] = {
        "DELETE FROM binding WHERE aor = $1",
        "DELETE FROM kept WHERE aor = $1",
        "DELETE FROM assignment WHERE aor = $1",
    };
    struct hf_sip_sql_value v[] = {Z(aor), I(change), I(hf_wall_now() / HF_NS_PER_S)};
    int64_t rc = run(l,
                     "INSERT INTO gone (aor, change, at, epoch) SELECT aor, CAST($2 AS bigint), "
                     "CAST($3 AS bigint), epoch"
                     " FROM assignment WHERE aor = $1 ON CONFLICT (aor) DO UPDATE SET"
                     " change = excluded.change, at = excluded.at, epoch = excluded.epoch",
                     v, 3, NULL, err);
    for (size_t i = 0; i < HF_ARRAY_LEN(statements) && rc >= 0; i++) {
        rc = run(l, statements[i], v, 1, NULL, err);
    }
    return rc;
}

static int64_t delete_user(struct hf_sip_lead *l, const char *user, const char *realm,
                           uint64_t change, struct hf_err *err)
{
    struct hf_sip_sql_value v[] = {Z(user), Z(realm)};
    struct found f = {0};
    int64_t rc = hf_sip_sql_run(l->sql,
                                "DELETE FROM users WHERE username = $1 AND realm = $2"
                                " RETURNING aor",
                                v, 2, row_aor, &f, err);
    if (rc < 0) {
        return rc;
    }
    if (!f.there) {
        return hf_err_set(err, -HF_ENOTFOUND, "no user %.80s in %.80s", user, realm);
    }
    uint64_t others = 0;
    rc = run(l, "SELECT count(*) FROM users WHERE aor = $1", (struct hf_sip_sql_value[]){Z(f.aor)},
             1, &others, err);
    return rc < 0 || others ? rc : bury(l, f.aor, change, err);
}

int hf_sip_lead_user_delete(struct hf_sip_lead *l, const char *user, const char *realm,
                            struct hf_err *err)
{
    uint64_t change = 0;
    int rc = begin(l, &change, err);
    return rc ? rc : end(l, delete_user(l, user, realm, change, err), change, err);
}

int hf_sip_lead_prune(struct hf_sip_lead *l, struct hf_err *err, uint64_t *ret_n)
{
    static const char *const statements[] = {
        "DELETE FROM binding WHERE expires < $1 - 3600",
        "DELETE FROM kept WHERE expires < $1 - 3600",
        "DELETE FROM gone WHERE at < $1 - 2592000",
    };
    struct hf_sip_sql_value now[] = {I(hf_wall_now() / HF_NS_PER_S)};
    int64_t rc = connect_to(l, err);
    uint64_t n = 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(statements) && rc >= 0; i++) {
        rc = run(l, statements[i], now, 1, NULL, err);
        n += rc > 0 ? (uint64_t)rc : 0;
    }
    if (rc < 0) {
        return (int)rc;
    }
    *ret_n = n;
    return 0;
}
