/* The toy backend's protocol: messages in, messages out, as postgres.c does it. */
#include "sim/pg/backend.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "codec/pg_v3.h"
#include "support/sim_net.h"

#define OUT_MAX (64u << 20)

/* ---- out ---- */

void pgs_send(struct pgs_backend *b, uint8_t type, const void *body, size_t n)
{
    hf_pg_put_message(&b->out, type, hf_slice(body, n));
}

static void flush(struct pgs_backend *b)
{
    b->flushed = b->out.n;
}

static void put_field(struct hf_buf *out, char name, const char *text)
{
    if (text && *text) {
        hf_pg_put_u8(out, (uint8_t)name);
        hf_pg_put_cstr(out, hf_slice_str(text));
    }
}

static void send_error(struct pgs_backend *b, uint8_t type, const char *severity,
                       const char *sqlstate, const char *message, const char *detail)
{
    size_t mark = hf_pg_put_begin(&b->out, type);
    put_field(&b->out, 'S', severity);
    put_field(&b->out, 'V', severity);
    put_field(&b->out, 'C', sqlstate);
    put_field(&b->out, 'M', message);
    put_field(&b->out, 'D', detail);
    put_field(&b->out, 'F', "postgres.c");
    hf_pg_put_u8(&b->out, 0);
    hf_pg_put_end(&b->out, mark);
    flush(b); /* as send_message_to_frontend() */
}

void pgs_notice(struct pgs_backend *b, const char *severity, const char *sqlstate, const char *text)
{
    send_error(b, HF_PG_NOTICE, severity, sqlstate, text, NULL);
}

enum pgs_run pgs_fail(struct pgs_backend *b, const char *sqlstate, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(b->error, sizeof(b->error), fmt, ap);
    va_end(ap);
    snprintf(b->sqlstate, sizeof(b->sqlstate), "%s", sqlstate);
    b->detail[0] = 0;
    return PGS_ERROR;
}

static char status(const struct pgs_backend *b)
{
    return b->block == PGS_BLOCK ? 'T' : b->block == PGS_FAILED ? 'E' : 'I';
}

static void tell_notifications(struct pgs_backend *b)
{
    for (size_t i = 0; i < b->n_inbox; i++) {
        size_t mark = hf_pg_put_begin(&b->out, HF_PG_NOTIFICATION);
        hf_pg_put_u32(&b->out, b->inbox[i].pid);
        hf_pg_put_cstr(&b->out, hf_slice_str(b->inbox[i].channel));
        hf_pg_put_cstr(&b->out, hf_slice_str(b->inbox[i].payload));
        hf_pg_put_end(&b->out, mark);
    }
    b->n_inbox = 0;
}

static void send_ready(struct pgs_backend *b)
{
    if (b->block == PGS_DEFAULT) {
        tell_notifications(b);
    }
    for (size_t i = 0; i < b->settings.n; i++) {
        struct pgs_setting *s = &b->settings.s[i];
        if (s->reported && strcmp(s->told, s->value) != 0) {
            pgs_copy(s->told, sizeof(s->told), s->value);
            hf_pg_put_parameter_status(&b->out, hf_slice_str(s->name), hf_slice_str(s->value));
        }
    }
    hf_pg_put_ready(&b->out, (uint8_t)status(b));
    flush(b);
    b->message = 0;
}

static uint16_t type_size(uint32_t type)
{
    switch (type) {
    case 16:
        return 1;
    case 23:
    case 26:
    case 2278:
        return 4;
    case 20:
    case 701:
    case 1184:
    case 5069:
        return 8;
    case 19:
        return 64;
    default:
        return 0xffff;
    }
}

static uint8_t format_of(const struct pgs_portal *p, size_t column)
{
    if (!p || p->n_formats == 0) {
        return 0;
    }
    return p->format[p->n_formats == 1 ? 0 : column];
}

static void send_columns(struct pgs_backend *b, const struct pgs_result *r,
                         const struct pgs_portal *p)
{
    size_t mark = hf_pg_put_begin(&b->out, HF_PG_ROW_DESCRIPTION);
    hf_pg_put_u16(&b->out, (uint16_t)r->n_columns);
    for (size_t i = 0; i < r->n_columns; i++) {
        hf_pg_put_cstr(&b->out, hf_slice_str(r->column[i].name));
        hf_pg_put_u32(&b->out, 0);
        hf_pg_put_u16(&b->out, 0);
        hf_pg_put_u32(&b->out, r->column[i].type);
        hf_pg_put_u16(&b->out, type_size(r->column[i].type));
        hf_pg_put_u32(&b->out, UINT32_MAX);
        hf_pg_put_u16(&b->out, format_of(p, i));
    }
    hf_pg_put_end(&b->out, mark);
}

/* A value with its length; binary for integers. */
static void put_value(struct hf_buf *out, const char *v, uint32_t type, bool binary)
{
    if (!v) {
        hf_pg_put_u32(out, UINT32_MAX);
        return;
    }
    uint16_t size = type_size(type);
    if (binary && (type == 20 || type == 5069 || type == 23)) {
        uint64_t n = (uint64_t)strtoll(v, NULL, 10);
        hf_pg_put_u32(out, size);
        if (size == 8) {
            hf_pg_put_u32(out, (uint32_t)(n >> 32));
        }
        hf_pg_put_u32(out, (uint32_t)n);
        return;
    }
    if (binary && type == 16) {
        hf_pg_put_u32(out, 1);
        hf_pg_put_u8(out, v[0] == 't');
        return;
    }
    hf_pg_put_u32(out, (uint32_t)strlen(v));
    hf_buf_str(out, v);
}

static void send_row(struct pgs_backend *b, const struct pgs_result *r, size_t row,
                     const struct pgs_portal *p)
{
    size_t mark = hf_pg_put_begin(&b->out, HF_PG_DATA_ROW);
    hf_pg_put_u16(&b->out, (uint16_t)r->n_columns);
    for (size_t i = 0; i < r->n_columns; i++) {
        put_value(&b->out, r->cell[row * r->n_columns + i], r->column[i].type, format_of(p, i));
    }
    hf_pg_put_end(&b->out, mark);
}

static size_t n_rows(const struct pgs_result *r)
{
    return r->n_columns ? r->n_cells / r->n_columns : 0;
}

/* ---- portals and statements ---- */

static void stmts_free(struct pgs_backend *b)
{
    for (int i = 0; i < b->n_stmts; i++) {
        pgs_stmt_fini(&b->stmt[i]);
    }
    free(b->stmt);
    b->stmt = NULL;
    b->n_stmts = b->stmt_at = 0;
}

static void portal_free(struct pgs_portal *p)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(p->param); i++) {
        free(p->param[i]);
    }
    if (p->statement) {
        if (p->statement->stmt) {
            pgs_stmt_fini(p->statement->stmt);
            free(p->statement->stmt);
        }
        free(p->statement);
    }
    pgs_result_clear(&p->result);
    free(p);
}

static struct pgs_portal *portal_find(struct pgs_backend *b, const char *name)
{
    struct pgs_portal *p = b->portals;
    while (p && strcmp(p->name, name) != 0) {
        p = p->next;
    }
    return p;
}

static void portal_drop(struct pgs_backend *b, const char *name)
{
    for (struct pgs_portal **p = &b->portals; *p;) {
        if (!name || strcmp((*p)->name, name) == 0) {
            struct pgs_portal *gone = *p;
            *p = gone->next;
            b->portal = b->portal == gone ? NULL : b->portal;
            portal_free(gone);
        } else {
            p = &(*p)->next;
        }
    }
}

static void drop_unnamed(struct pgs_backend *b)
{
    pgs_prepared_drop(b, "");
}

/* ---- errors ---- */

/* What PostgresMain does when an error gets there. */
static void got_error(struct pgs_backend *b)
{
    bool extended = strchr("PBDECS", b->message ? b->message : '-') && b->message != 'S';
    send_error(b, HF_PG_ERROR, "ERROR", b->sqlstate, b->error, b->detail);
    pgs_abort_all(b);
    if (b->block == PGS_FAILED) {
        for (struct pgs_portal *p = b->portals; p; p = p->next) {
            p->failed = true;
        }
    } else {
        portal_drop(b, NULL);
    }
    stmts_free(b);
    pgs_result_clear(&b->result);
    b->wait = PGS_AWAKE;
    b->waits_for = NULL;
    hf_buf_clear(&b->copy);
    if (extended) {
        b->skip = true;
        b->message = 0;
    } else {
        send_ready(b);
    }
}

static bool refused(struct pgs_backend *b, const struct pgs_stmt *st)
{
    if (b->block == PGS_FAILED && (!st || !pgs_is_exit(st))) {
        (void)pgs_fail(b, "25P02",
                       "current transaction is aborted, commands ignored until end of "
                       "transaction block");
        return true;
    }
    return false;
}

static void start_command(struct pgs_backend *b)
{
    if (b->block == PGS_DEFAULT) {
        b->block = PGS_STARTED;
        b->at_begin = b->settings;
        b->began = b->server->now;
    }
}

/* finish_xact_command(), and what ends with a transaction. */
static enum pgs_run finish(struct pgs_backend *b)
{
    bool open = b->block != PGS_DEFAULT;
    bool ends = b->end_asked || b->block == PGS_STARTED;
    enum pgs_run r = pgs_finish(b);
    if (r == PGS_DONE && open && ends) {
        portal_drop(b, NULL);
    }
    return r;
}

/* ---- Query ---- */

static enum pgs_run query_statement(struct pgs_backend *b)
{
    struct pgs_stmt *st = &b->stmt[b->stmt_at];
    bool last = b->stmt_at + 1 == b->n_stmts;
    enum pgs_run r;
    switch (b->phase) {
    case PGS_RUN:
        if (b->wait == PGS_AWAKE && refused(b, st)) {
            return PGS_ERROR;
        }
        start_command(b);
        if (b->n_stmts > 1 && b->block == PGS_STARTED) {
            b->block = PGS_IMPLICIT;
        }
        b->params = NULL;
        r = pgs_execute(b, st, &b->result);
        if (r != PGS_DONE) {
            return r;
        }
        if (b->result.n_columns) {
            send_columns(b, &b->result, NULL);
            for (size_t i = 0; i < n_rows(&b->result); i++) {
                send_row(b, &b->result, i, NULL);
            }
        }
        b->phase = PGS_END;
        /* fall through */
    case PGS_END:
        if (last && b->block == PGS_IMPLICIT) {
            b->block = PGS_STARTED;
        }
        if (last || pgs_is_xact(st)) {
            r = finish(b);
            if (r != PGS_DONE) {
                return r;
            }
        }
        b->phase = PGS_TAG;
        /* fall through */
    case PGS_TAG:
        hf_pg_put_command_complete(&b->out, b->result.tag);
        pgs_result_clear(&b->result);
        b->phase = PGS_RUN;
        b->stmt_at++;
    }
    return PGS_DONE;
}

static void query_go(struct pgs_backend *b)
{
    while (b->stmt_at < b->n_stmts) {
        enum pgs_run r = query_statement(b);
        if (r == PGS_ERROR) {
            got_error(b);
            return;
        }
        if (r == PGS_WAITS) {
            return;
        }
    }
    if (b->n_stmts == 0) {
        enum pgs_run r = finish(b);
        if (r == PGS_ERROR) {
            got_error(b);
            return;
        }
        if (r == PGS_WAITS) {
            return;
        }
        pgs_send(b, HF_PG_EMPTY_QUERY, NULL, 0);
    }
    stmts_free(b);
    send_ready(b);
}

static enum pgs_run syntax_check(struct pgs_backend *b, struct pgs_stmt *st);

static void query(struct pgs_backend *b, struct hf_slice body)
{
    size_t n = body.n && body.p[body.n - 1] == 0 ? body.n - 1 : body.n;
    start_command(b);
    drop_unnamed(b);
    portal_drop(b, "");
    int k = pgs_parse((const char *)body.p, n, &b->stmt);
    if (k < 0) {
        (void)pgs_fail(b, "42601", "unterminated quoted string");
        got_error(b);
        return;
    }
    b->n_stmts = k;
    for (int i = 0; i < k; i++) {
        if (syntax_check(b, &b->stmt[i]) == PGS_ERROR) {
            got_error(b);
            return;
        }
    }
    b->stmt_at = 0;
    b->phase = PGS_RUN;
    query_go(b);
}

/* The grammar comes before everything else: what no pattern knows is a syntax error. */
static enum pgs_run syntax_check(struct pgs_backend *b, struct pgs_stmt *st)
{
    struct pgs_result r = {0};
    size_t n;
    uint32_t types[PGS_ARGS_MAX * 4];
    b->sqlstate[0] = 0;
    int k = pgs_describe(b, st, &r, types, &n);
    pgs_result_clear(&r);
    return k < 0 && strcmp(b->sqlstate, "42601") == 0 ? PGS_ERROR : PGS_DONE;
}

/* ---- extended ---- */

static void copy_name(char to[64], struct hf_slice s)
{
    snprintf(to, 64, "%.*s", HF_SLICE_FMT(s));
}

static enum pgs_run parse(struct pgs_backend *b, struct hf_slice body)
{
    struct hf_pg_parse p;
    if (hf_pg_parse_read(body, &p)) {
        return pgs_fail(b, "08P01", "invalid message format");
    }
    char name[64];
    copy_name(name, p.name);
    start_command(b);
    if (!name[0]) {
        drop_unnamed(b);
    }
    struct pgs_stmt *st = NULL;
    int n = pgs_parse((const char *)p.sql.p, p.sql.n, &st);
    enum pgs_run r = PGS_DONE;
    if (n > 1) {
        r = pgs_fail(b, "42601", "cannot insert multiple commands into a prepared statement");
    } else if (n < 0) {
        r = pgs_fail(b, "42601", "unterminated quoted string");
    } else if (n == 1) {
        r = syntax_check(b, st);
        if (r == PGS_DONE && refused(b, st)) {
            r = PGS_ERROR;
        }
    }
    struct pgs_result shape = {0};
    uint32_t types[PGS_ARGS_MAX * 4];
    size_t n_params = 0;
    if (r == PGS_DONE && n == 1 && pgs_describe(b, st, &shape, types, &n_params) < 0) {
        r = PGS_ERROR;
    }
    pgs_result_clear(&shape);
    if (r == PGS_DONE && name[0] && pgs_prepared_find(b, name)) {
        r = pgs_fail(b, "42P05", "prepared statement \"%s\" already exists", name);
    }
    if (r == PGS_ERROR) {
        for (int i = 0; i < n; i++) {
            pgs_stmt_fini(&st[i]);
        }
        free(st);
        return r;
    }
    struct pgs_prepared *q = pgs_prepared_add(b, name, st);
    q->n_params = n_params;
    memcpy(q->type, types, sizeof(q->type));
    pgs_send(b, HF_PG_PARSE_COMPLETE, NULL, 0);
    return PGS_DONE;
}

static struct pgs_stmt *stmt_copy(const struct pgs_stmt *st)
{
    struct pgs_stmt *copy = NULL;
    int n = pgs_parse(st->text, strlen(st->text), &copy);
    assert(n == 1);
    return copy;
}

/* Parameter values, in text. */
static enum pgs_run bind_params(struct pgs_backend *b, struct pgs_portal *p, struct hf_rd *r)
{
    uint16_t format[PGS_ARGS_MAX * 4] = {0}, n_formats = hf_rd_u16(r);
    for (uint16_t i = 0; i < n_formats; i++) {
        uint16_t f = hf_rd_u16(r);
        if (i < HF_ARRAY_LEN(format)) {
            format[i] = f;
        }
    }
    uint16_t n = hf_rd_u16(r);
    if (n != p->statement->n_params) {
        return pgs_fail(b, "08P01",
                        "bind message supplies %u parameters, but prepared statement \"%s\" "
                        "requires %zu",
                        n, p->statement->name, p->statement->n_params);
    }
    for (uint16_t i = 0; i < n; i++) {
        uint32_t len = hf_rd_u32(r);
        if (len == UINT32_MAX) {
            continue;
        }
        struct hf_slice v = hf_rd_bytes(r, len);
        p->param[i] = sim_alloc(v.n + 24);
        if (n_formats && format[n_formats == 1 ? 0 : i] && p->statement->type[i] != 25) {
            int64_t k = 0;
            for (size_t j = 0; j < v.n && j < 8; j++) {
                k = (int64_t)((uint64_t)k << 8 | v.p[j]);
            }
            snprintf(p->param[i], v.n + 24, "%lld", (long long)(v.n == 4 ? (int32_t)k : k));
        } else {
            snprintf(p->param[i], v.n + 24, "%.*s", HF_SLICE_FMT(v));
        }
    }
    p->n_formats = hf_rd_u16(r);
    for (size_t i = 0; i < p->n_formats; i++) {
        uint16_t f = hf_rd_u16(r);
        if (i < PGS_COLUMNS_MAX) {
            p->format[i] = (uint8_t)f;
        }
    }
    return hf_rd_end(r) ? pgs_fail(b, "08P01", "invalid message format") : PGS_DONE;
}

static enum pgs_run bind(struct pgs_backend *b, struct hf_slice body)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    char portal[64], name[64];
    copy_name(portal, hf_pg_rd_cstr(&r));
    copy_name(name, hf_pg_rd_cstr(&r));
    struct pgs_prepared *q = pgs_prepared_find(b, name);
    if (!q) {
        return name[0] ? pgs_fail(b, "26000", "prepared statement \"%s\" does not exist", name)
                       : pgs_fail(b, "26000", "unnamed prepared statement does not exist");
    }
    start_command(b);
    if (q->stmt && refused(b, q->stmt)) {
        return PGS_ERROR;
    }
    struct pgs_args a;
    if (q->stmt && pgs_match(q->stmt, 0, "select #4 / #4", &a) &&
        strcmp(q->stmt->token[a.at[1]].text, "0") == 0) {
        return pgs_fail(b, "22012", "division by zero"); /* as planned: constants are folded */
    }
    if (portal[0] && portal_find(b, portal)) {
        return pgs_fail(b, "42P03", "cursor \"%s\" already exists", portal);
    }
    struct pgs_portal *p = sim_alloc(sizeof(*p));
    memset(p, 0, sizeof(*p));
    snprintf(p->name, sizeof(p->name), "%s", portal);
    p->statement = sim_alloc(sizeof(*q));
    *p->statement = *q;
    p->statement->stmt = q->stmt ? stmt_copy(q->stmt) : NULL;
    if (bind_params(b, p, &r) == PGS_ERROR) {
        portal_free(p);
        return PGS_ERROR;
    }
    portal_drop(b, portal);
    p->next = b->portals;
    b->portals = p;
    pgs_send(b, HF_PG_BIND_COMPLETE, NULL, 0);
    return PGS_DONE;
}

static enum pgs_run describe(struct pgs_backend *b, struct hf_slice body)
{
    uint8_t kind;
    struct hf_slice s;
    char name[64];
    if (hf_pg_target_read(body, &kind, &s)) {
        return pgs_fail(b, "08P01", "invalid message format");
    }
    copy_name(name, s);
    start_command(b);
    struct pgs_portal *p = kind == 'P' ? portal_find(b, name) : NULL;
    struct pgs_prepared *q = kind == 'S' ? pgs_prepared_find(b, name) : p ? p->statement : NULL;
    if (!q) {
        return kind == 'P' ? pgs_fail(b, "34000", "portal \"%s\" does not exist", name)
               : name[0]   ? pgs_fail(b, "26000", "prepared statement \"%s\" does not exist", name)
                           : pgs_fail(b, "26000", "unnamed prepared statement does not exist");
    }
    struct pgs_result r = {0};
    uint32_t types[PGS_ARGS_MAX * 4];
    size_t n_params;
    int n = q->stmt ? pgs_describe(b, q->stmt, &r, types, &n_params) : 0;
    if (n != 0 && b->block == PGS_FAILED && refused(b, NULL)) {
        pgs_result_clear(&r);
        return PGS_ERROR;
    }
    if (kind == 'S') {
        size_t mark = hf_pg_put_begin(&b->out, HF_PG_PARAMETER_DESCRIPTION);
        hf_pg_put_u16(&b->out, (uint16_t)q->n_params);
        for (size_t i = 0; i < q->n_params; i++) {
            hf_pg_put_u32(&b->out, q->type[i]);
        }
        hf_pg_put_end(&b->out, mark);
    }
    if (n > 0) {
        send_columns(b, &r, p);
    } else {
        pgs_send(b, HF_PG_NO_DATA, NULL, 0);
    }
    pgs_result_clear(&r);
    return PGS_DONE;
}

static enum pgs_run close_message(struct pgs_backend *b, struct hf_slice body)
{
    uint8_t kind;
    struct hf_slice s;
    char name[64];
    if (hf_pg_target_read(body, &kind, &s)) {
        return pgs_fail(b, "08P01", "invalid message format");
    }
    copy_name(name, s);
    if (kind == 'S') {
        pgs_prepared_drop(b, name);
    } else {
        portal_drop(b, name);
    }
    pgs_send(b, HF_PG_CLOSE_COMPLETE, NULL, 0);
    return PGS_DONE;
}

/* Rows up to the limit. true: there are more. */
static bool execute_rows(struct pgs_backend *b, struct pgs_portal *p)
{
    size_t n = n_rows(&p->result), sent = 0;
    while (p->at < n && (b->rows_max == 0 || sent < b->rows_max)) {
        send_row(b, &p->result, p->at++, p);
        sent++;
    }
    if (strncmp(p->result.tag, "SELECT ", 7) == 0) {
        snprintf(p->result.tag, sizeof(p->result.tag), "SELECT %zu", sent);
    }
    /* as in PostgreSQL: a limit that was just reached is a suspension */
    return b->rows_max && sent == b->rows_max;
}

static enum pgs_run execute_go(struct pgs_backend *b)
{
    struct pgs_portal *p = b->portal;
    struct pgs_stmt *st = p->statement->stmt;
    enum pgs_run r;
    if (b->phase == PGS_RUN) {
        if (!p->ran) {
            b->params = p->param;
            r = pgs_execute(b, st, &p->result);
            b->params = NULL;
            if (r != PGS_DONE) {
                return r;
            }
            p->ran = true;
        }
        if (execute_rows(b, p)) {
            pgs_send(b, HF_PG_PORTAL_SUSPENDED, NULL, 0);
            return PGS_DONE;
        }
        p->done = true;
        b->phase = PGS_END;
        snprintf(b->result.tag, sizeof(b->result.tag), "%s", p->result.tag);
    }
    if (pgs_is_xact(st)) {
        b->portal = NULL; /* it goes with the transaction; the statement is looked at no more */
        r = finish(b);
        b->portal = r == PGS_WAITS ? p : NULL;
        if (r != PGS_DONE) {
            return r;
        }
    }
    hf_pg_put_command_complete(&b->out, b->result.tag);
    return PGS_DONE;
}

static enum pgs_run execute(struct pgs_backend *b, struct hf_slice body)
{
    struct hf_slice s;
    char name[64];
    if (hf_pg_execute_read(body, &s, &b->rows_max)) {
        return pgs_fail(b, "08P01", "invalid message format");
    }
    copy_name(name, s);
    struct pgs_portal *p = portal_find(b, name);
    if (!p) {
        return pgs_fail(b, "34000", "portal \"%s\" does not exist", name);
    }
    if (!p->statement->stmt) {
        pgs_send(b, HF_PG_EMPTY_QUERY, NULL, 0);
        return PGS_DONE;
    }
    start_command(b);
    if (refused(b, p->statement->stmt)) {
        return PGS_ERROR;
    }
    if (p->failed || (p->done && p->result.n_columns == 0) ||
        (p->done && strncmp(p->result.tag, "SELECT", 6) != 0)) {
        return pgs_fail(b, "55000", "portal \"%s\" cannot be run", name);
    }
    b->portal = p;
    b->phase = PGS_RUN;
    return execute_go(b);
}

/* ---- function call ---- */

static enum pgs_run call_body(struct pgs_backend *b, struct hf_slice body)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    uint32_t oid = hf_rd_u32(&r);
    uint16_t n_formats = hf_rd_u16(&r), format = 0;
    for (uint16_t i = 0; i < n_formats; i++) {
        format = hf_rd_u16(&r);
    }
    char *args[PGS_ARGS_MAX] = {0}, *value = NULL;
    uint16_t n = hf_rd_u16(&r);
    for (uint16_t i = 0; i < n && i < PGS_ARGS_MAX; i++) {
        uint32_t len = hf_rd_u32(&r);
        struct hf_slice v = len == UINT32_MAX ? hf_slice(NULL, 0) : hf_rd_bytes(&r, len);
        if (len != UINT32_MAX) {
            args[i] = sim_alloc(v.n + 24);
            snprintf(args[i], v.n + 24, "%.*s", HF_SLICE_FMT(v));
            if (format && v.n == 1) {
                snprintf(args[i], v.n + 24, "%c", v.p[0] ? 't' : 'f');
            } else if (format && (v.n == 4 || v.n == 8) && oid != 2077) {
                uint64_t k = 0;
                for (size_t j = 0; j < v.n; j++) {
                    k = k << 8 | v.p[j];
                }
                snprintf(args[i], v.n + 24, "%lld", (long long)k);
            }
        }
    }
    bool binary = hf_rd_u16(&r) != 0;
    uint32_t type = 25;
    enum pgs_run run = hf_rd_end(&r) ? pgs_fail(b, "08P01", "invalid message format")
                                     : pgs_call(b, oid, args, n, &value, &type);
    if (run == PGS_DONE) {
        size_t mark = hf_pg_put_begin(&b->out, HF_PG_FUNCTION_RESULT);
        put_value(&b->out, value, type, binary);
        hf_pg_put_end(&b->out, mark);
    }
    free(value);
    for (size_t i = 0; i < PGS_ARGS_MAX; i++) {
        free(args[i]);
    }
    return run;
}

/* ---- messages ---- */

static void sync_go(struct pgs_backend *b)
{
    enum pgs_run r = finish(b);
    if (r == PGS_ERROR) {
        got_error(b);
    } else if (r == PGS_DONE) {
        send_ready(b);
    }
}

static void after(struct pgs_backend *b, enum pgs_run r)
{
    if (r == PGS_ERROR) {
        got_error(b);
    } else if (r == PGS_DONE) {
        b->message = 0;
    }
}

static void call(struct pgs_backend *b, struct hf_slice body)
{
    start_command(b);
    if (refused(b, NULL) || call_body(b, body) == PGS_ERROR) {
        got_error(b);
        return;
    }
    sync_go(b);
}

/* Go on with the message under way. */
static void resume(struct pgs_backend *b)
{
    switch (b->message) {
    case HF_PG_QUERY:
        query_go(b);
        break;
    case HF_PG_EXECUTE:
        after(b, execute_go(b));
        break;
    default: /* Sync, FunctionCall */
        sync_go(b);
    }
}

static void end_process(struct pgs_backend *b)
{
    b->n_savepoints = 0;
    pgs_abort_all(b);
    b->block = PGS_DEFAULT;
    b->alive = false;
    b->closed = true;
}

static void message(struct pgs_backend *b, uint8_t type, struct hf_slice body)
{
    if (b->skip && type != HF_PG_SYNC && type != HF_PG_TERMINATE) {
        return;
    }
    b->message = (char)type;
    switch (type) {
    case HF_PG_QUERY:
        query(b, body);
        return;
    case HF_PG_PARSE:
        after(b, parse(b, body));
        return;
    case HF_PG_BIND:
        after(b, bind(b, body));
        return;
    case HF_PG_DESCRIBE:
        after(b, describe(b, body));
        return;
    case HF_PG_EXECUTE:
        after(b, execute(b, body));
        return;
    case HF_PG_CLOSE:
        after(b, close_message(b, body));
        return;
    case HF_PG_FUNCTION_CALL:
        call(b, body);
        return;
    case HF_PG_SYNC:
        b->skip = false;
        sync_go(b);
        return;
    case HF_PG_FLUSH:
        flush(b);
        b->message = 0;
        return;
    case HF_PG_TERMINATE:
        end_process(b);
        return;
    case HF_PG_COPY_DATA:
    case HF_PG_COPY_DONE:
    case HF_PG_COPY_FAIL:
        b->message = 0; /* left over from a COPY that failed */
        return;
    default:
        send_error(b, HF_PG_ERROR, "FATAL", "08P01", "invalid frontend message type", NULL);
        end_process(b);
    }
}

/* A message while COPY FROM STDIN is under way. */
static void copy_message(struct pgs_backend *b, uint8_t type, struct hf_slice body)
{
    switch (type) {
    case HF_PG_COPY_DATA:
        hf_buf_add(&b->copy, body);
        if (pgs_copy_lines(b) == PGS_ERROR) {
            got_error(b);
        }
        return;
    case HF_PG_COPY_DONE:
        b->copy_over = true;
        resume(b);
        return;
    case HF_PG_COPY_FAIL:
        (void)pgs_fail(b, "57014", "COPY from stdin failed: %.*s", (int)(body.n ? body.n - 1 : 0),
                       (const char *)body.p);
        got_error(b);
        return;
    case HF_PG_FLUSH:
    case HF_PG_SYNC:
        return;
    default:
        (void)pgs_fail(b, "08P01", "unexpected message type 0x%02X during COPY from stdin", type);
        got_error(b);
    }
}

static bool read_message(struct pgs_backend *b)
{
    struct hf_pg_head h;
    if (hf_pg_head_read(hf_buf_slice(&b->in), &h) ||
        b->in.n < HF_PG_HEAD_LEN + (size_t)h.body_len) {
        return false;
    }
    struct hf_buf copy;
    hf_buf_init(&copy, OUT_MAX);
    hf_buf_add(&copy, hf_slice(b->in.p + HF_PG_HEAD_LEN, h.body_len));
    hf_buf_consume(&b->in, HF_PG_HEAD_LEN + (size_t)h.body_len);
    if (b->wait == PGS_WAIT_COPY) {
        copy_message(b, h.type, hf_buf_slice(&copy));
    } else {
        message(b, h.type, hf_buf_slice(&copy));
    }
    hf_buf_fini(&copy);
    return true;
}

/* ---- waiting, cancel, terminate ---- */

static bool interrupted(struct pgs_backend *b)
{
    bool busy = b->message != 0;
    if (b->wait == PGS_WAIT_SYNC && (b->cancelled || b->terminated)) {
        return false; /* pgs_finish() ends the wait itself */
    }
    if (b->terminated) {
        send_error(b, HF_PG_ERROR, "FATAL", "57P01",
                   "terminating connection due to administrator command", NULL);
        end_process(b);
        return true;
    }
    if (b->worker_ended) { /* only what takes long is done by one */
        b->worker_ended = false;
        if (b->wait == PGS_WAIT_LOCK || b->wait == PGS_WAIT_SLEEP) {
            (void)pgs_fail(b, "57P01",
                           "terminating background worker \"parallel worker\" due to administrator "
                           "command");
            got_error(b);
            return true;
        }
    }
    if (b->cancelled) {
        b->cancelled = false;
        if (busy) {
            (void)pgs_fail(b, "57014", "canceling statement due to user request");
            got_error(b);
            return true;
        }
    }
    return false;
}

static bool still_waits(const struct pgs_backend *b)
{
    switch (b->wait) {
    case PGS_WAIT_LOCK:
        for (int64_t id = 1; id <= PGS_ACCOUNTS; id++) {
            if (b->server->db.locked_by[id] == b->waits_for) {
                return true;
            }
        }
        return false;
    case PGS_WAIT_SYNC: {
        const struct pgs_db *db = &b->server->db;
        return !b->cancelled && !b->terminated &&
               (db->flushed < b->xact.lsn || (db->standby && db->replicated < b->xact.lsn));
    }
    case PGS_WAIT_SLEEP:
        return b->server->now < b->sleep_until;
    case PGS_AWAKE:
    case PGS_WAIT_COPY:
    default:
        return false;
    }
}

bool pgs_backend_step(struct pgs_backend *b)
{
    if (!b->alive) {
        return false;
    }
    if (interrupted(b)) {
        return true;
    }
    if (b->wait == PGS_WAIT_COPY || b->message == 0) {
        if (b->message == 0 && b->n_inbox && b->block == PGS_DEFAULT) {
            tell_notifications(b);
            flush(b);
            return true;
        }
        if (read_message(b)) {
            return true;
        }
        if (b->eof) {
            end_process(b);
            return true;
        }
        return false;
    }
    if (still_waits(b)) {
        return false;
    }
    if (b->wait == PGS_WAIT_LOCK) {
        b->wait = PGS_AWAKE;
        b->waits_for = NULL;
    }
    resume(b);
    return true;
}

void pgs_cancel(struct pgs_backend *b)
{
    b->cancelled = true;
}

void pgs_terminate(struct pgs_backend *b)
{
    b->terminated = true;
}

void pgs_end_worker(struct pgs_backend *b)
{
    b->worker_ended = true;
}

/* ---- connections ---- */

void pgs_server_init(struct pgs_server *s, uint64_t seed)
{
    memset(s, 0, sizeof(*s));
    pgs_db_init(&s->db);
    hf_prng_init(&s->prng, seed);
    s->next_pid = 1000;
    s->now = 1000000;
}

void pgs_server_fini(struct pgs_server *s)
{
    while (s->n) {
        pgs_backend_kill(s->backend[0]);
        pgs_backend_free(s->backend[0]);
    }
    free(s->backend);
    pgs_db_fini(&s->db);
}

struct pgs_backend *pgs_backend_start(struct pgs_server *s, const char *user)
{
    struct pgs_backend *b = sim_alloc(sizeof(*b));
    memset(b, 0, sizeof(*b));
    b->server = s;
    b->pid = ++s->next_pid;
    b->started = (int64_t)s->now + s->set;
    b->port = (uint16_t)(20000 + b->pid % 40000);
    b->alive = true;
    hf_buf_init(&b->in, OUT_MAX);
    hf_buf_init(&b->out, OUT_MAX);
    hf_buf_init(&b->copy, OUT_MAX);
    pgs_settings_init(&b->settings, user);
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 16;
        s->backend = sim_realloc(s->backend, s->room * sizeof(struct pgs_backend *));
    }
    s->backend[s->n++] = b;
    return b;
}

bool pgs_backend_is(const struct pgs_backend *b, uint32_t port, double age)
{
    double apart = (double)((int64_t)b->server->now + b->server->set - b->started) / 1e6 - age;
    return b->port == port || (apart > -10 && apart < 10);
}

void pgs_backend_kill(struct pgs_backend *b)
{
    if (b->alive) {
        pgs_xact_clear(&b->server->db, &b->xact);
        b->alive = false;
        b->closed = true;
    }
}

void pgs_backend_free(struct pgs_backend *b)
{
    struct pgs_server *s = b->server;
    assert(!b->alive);
    for (size_t i = 0; i < s->n; i++) {
        if (s->backend[i] == b) {
            memmove(&s->backend[i], &s->backend[i + 1],
                    (s->n - i - 1) * sizeof(struct pgs_backend *));
            s->n--;
            break;
        }
    }
    portal_drop(b, NULL);
    pgs_prepared_drop(b, "");
    pgs_prepared_drop(b, NULL);
    stmts_free(b);
    pgs_result_clear(&b->result);
    free(b->xact.changes);
    hf_buf_fini(&b->in);
    hf_buf_fini(&b->out);
    hf_buf_fini(&b->copy);
    free(b);
}

struct pgs_backend *pgs_backend_find(struct pgs_server *s, uint32_t pid)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->backend[i]->pid == pid && s->backend[i]->alive) {
            return s->backend[i];
        }
    }
    return NULL;
}

void pgs_backend_params(struct pgs_backend *b, struct hf_buf *out)
{
    for (size_t i = 0; i < b->settings.n; i++) {
        struct pgs_setting *s = &b->settings.s[i];
        if (s->reported) {
            hf_pg_put_cstr(out, hf_slice_str(s->name));
            hf_pg_put_cstr(out, hf_slice_str(s->value));
        }
    }
}

void pgs_backend_input(struct pgs_backend *b, struct hf_slice bytes)
{
    if (b->alive) {
        hf_buf_add(&b->in, bytes);
        assert(!b->in.err);
    }
}

struct hf_slice pgs_backend_output(const struct pgs_backend *b)
{
    assert(!b->out.err);
    return hf_slice(b->out.p, b->closed ? b->out.n : b->flushed);
}

void pgs_backend_sent(struct pgs_backend *b, size_t n)
{
    hf_buf_consume(&b->out, n);
    b->flushed -= n < b->flushed ? n : b->flushed;
}

void pgs_server_crash(struct pgs_server *s, size_t keep, bool promotion)
{
    for (size_t i = 0; i < s->n; i++) {
        struct pgs_backend *b = s->backend[i];
        pgs_backend_kill(b);
        hf_buf_clear(&b->out); /* what the kernel had is the connection's business */
        b->flushed = 0;
    }
    pgs_restart(&s->db, keep, promotion);
}
