/* The manager's own questions: a connection, one extended query, its rows. */
#include "pg/query.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/route.h"
#include "pg/rules.h"

#define MESSAGE_MAX (1u << 20)
#define RETRY HF_MS(20)    /* while no server is known */
#define IDLE_MAX 8         /* connections kept */
#define IDLE_TIME HF_S(30) /* how long */

/*
 * Nothing of a client reaches these connections: their parameters are fixed, and the client's name
 * is a parameter value (CVE-2025-12819).
 */
struct conn {
    struct hf_list node; /* of idle, or on none */
    struct hf_pg_query_pool *pool;
    struct hf_pg_sconn *sconn;
    struct hf_pg_query *query; /* NULL: idle */
    char *database;
    hf_time idle_since;
    bool ready, catalog;
};

struct hf_pg_query {
    struct hf_list node; /* of pool->queries */
    struct conn *conn;   /* NULL: no server is known yet */
    struct hf_pg_query_pool *pool;
    const struct hf_pg_query_ops *ops;
    void *arg;
    struct hf_buf text; /* the messages */
    char *database;
    hf_time deadline;
    struct hf_poll_timer timer;
    char why[200];
    bool failed, catalog;
};

struct hf_pg_query_pool {
    struct hf_pg *pg;
    struct hf_list idle, busy, queries;
    size_t n_idle;
    struct hf_poll_timer timer;
};

/* ---- connections ---- */

static void conn_destroy(struct conn *c)
{
    if (!c->query && c->ready) {
        c->pool->n_idle--;
    }
    hf_list_unlink(&c->node);
    hf_pg_sconn_close(c->sconn);
    hf_free(c->database);
    hf_free(c);
}

static void on_idle_timer(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg_query_pool *p = HF_CONTAINER_OF(t, struct hf_pg_query_pool, timer);
    HF_LIST_FOREACH (node, &p->idle) {
        struct conn *c = HF_CONTAINER_OF(node, struct conn, node);
        if (c->idle_since + IDLE_TIME <= now) {
            conn_destroy(c);
        }
    }
    if (p->n_idle) {
        hf_poll_timer_set(p->pg->wire->poll, t, now + IDLE_TIME / 2);
    }
}

static void make_idle(struct conn *c)
{
    struct hf_pg_query_pool *p = c->pool;
    if (p->n_idle >= IDLE_MAX) {
        c->ready = false; /* not counted */
        conn_destroy(c);
        return;
    }
    hf_list_unlink(&c->node);
    hf_list_insert(&p->idle, &c->node);
    c->idle_since = hf_pg_now(p->pg);
    p->n_idle++;
    if (!p->timer.pos) {
        hf_poll_timer_set(p->pg->wire->poll, &p->timer, c->idle_since + IDLE_TIME);
    }
}

/* ---- queries ---- */

static void query_free(struct hf_pg_query *q)
{
    struct hf_poll *poll = q->pool->pg->wire->poll;
    hf_poll_timer_set(poll, &q->timer, HF_NEVER);
    (void)!hf_poll_reserve(poll, -1);
    hf_list_unlink(&q->node);
    hf_buf_fini(&q->text);
    hf_free(q->database);
    hf_free(q);
}

/* why NULL: as it said itself. */
static void query_over(struct hf_pg_query *q, const char *why)
{
    const struct hf_pg_query_ops *ops = q->ops;
    void *arg = q->arg;
    char text[200];
    snprintf(text, sizeof(text), "%s", why ? why : q->why);
    bool failed = why || q->failed;
    query_free(q);
    ops->done(arg, failed ? text : NULL);
}

static void fail(struct hf_pg_query *q, const char *why)
{
    struct conn *c = q->conn;
    if (c) {
        c->query = NULL;
        c->ready = false;
        conn_destroy(c);
    }
    query_over(q, why);
}

void hf_pg_query_cancel(struct hf_pg_query *q)
{
    if (q) {
        struct conn *c = q->conn;
        if (c) {
            c->query = NULL;
            c->ready = false;
            conn_destroy(c);
        }
        query_free(q);
    }
}

static void on_row(struct hf_pg_query *q, struct hf_slice body)
{
    struct hf_slice v[HF_PG_QUERY_COLUMNS_MAX];
    struct hf_rd r;
    uint16_t n;
    if (hf_pg_values_begin(body, &r, &n) || n > HF_PG_QUERY_COLUMNS_MAX) {
        return;
    }
    for (uint16_t i = 0; i < n; i++) {
        if (hf_pg_value_next(&r, &v[i])) {
            return;
        }
    }
    q->ops->row(q->arg, v, n);
}

static void on_message(struct conn *c, uint8_t type, struct hf_slice body)
{
    struct hf_pg_query *q = c->query;
    if (!q) {
        return;
    }
    if (type == HF_PG_DATA_ROW) {
        on_row(q, body);
    } else if (type == HF_PG_ERROR) {
        q->failed = true;
        snprintf(q->why, sizeof(q->why), "%.*s", HF_SLICE_FMT(hf_pg_error_field(body, 'M')));
    } else if (type == HF_PG_READY) {
        c->query = NULL;
        make_idle(c);
        query_over(q, NULL);
    }
}

static size_t conn_bytes(struct hf_pg_sconn *sconn, struct hf_slice bytes)
{
    struct conn *c = sconn->owner;
    size_t used = 0;
    struct hf_pg_head head;
    while (!sconn->closed) {
        struct hf_slice rest = hf_slice(bytes.p + used, bytes.n - used);
        int rc = hf_pg_message_read(rest, MESSAGE_MAX, &head);
        if (rc == -HF_ETRUNC) {
            return used;
        }
        if (rc) {
            hf_pg_link_break(&sconn->link, "the server does not follow the protocol");
            return bytes.n;
        }
        used += HF_PG_HEAD_LEN + head.body_len;
        on_message(c, head.type, hf_slice(rest.p + HF_PG_HEAD_LEN, head.body_len));
    }
    return bytes.n;
}

static void conn_ready(struct hf_pg_sconn *sconn)
{
    struct conn *c = sconn->owner;
    c->ready = true;
    hf_pg_link_send(&sconn->link, hf_buf_slice(&c->query->text));
    hf_pg_sconn_settle(sconn);
}

static void conn_gone(struct hf_pg_sconn *sconn, const char *why)
{
    struct conn *c = sconn->owner;
    if (c->query) {
        fail(c->query, why);
    } else {
        conn_destroy(c);
    }
}

static const struct hf_pg_sconn_ops conn_ops = {
    .ready = conn_ready,
    .failed = conn_gone,
    .bytes = conn_bytes,
    .gone = conn_gone,
};

static void build(struct hf_buf *b, struct hf_slice sql, struct hf_slice parameter)
{
    size_t m = hf_pg_put_begin(b, HF_PG_PARSE);
    hf_pg_put_cstr(b, hf_slice_str(""));
    hf_pg_put_cstr(b, sql);
    hf_pg_put_u16(b, 0);
    hf_pg_put_end(b, m);
    m = hf_pg_put_begin(b, HF_PG_BIND);
    hf_pg_put_cstr(b, hf_slice_str(""));
    hf_pg_put_cstr(b, hf_slice_str(""));
    hf_pg_put_u16(b, 0); /* formats: text */
    hf_pg_put_u16(b, parameter.p ? 1 : 0);
    if (parameter.p) {
        hf_pg_put_u32(b, (uint32_t)parameter.n);
        hf_buf_add(b, parameter);
    }
    hf_pg_put_u16(b, 0);
    hf_pg_put_end(b, m);
    m = hf_pg_put_begin(b, HF_PG_EXECUTE);
    hf_pg_put_cstr(b, hf_slice_str(""));
    hf_pg_put_u32(b, 0);
    hf_pg_put_end(b, m);
    hf_pg_put_message(b, HF_PG_SYNC, (struct hf_slice){0});
}

/* A connection to this database that has nothing to do, or a new one. */
static int take_conn(struct hf_pg_query_pool *p, struct hf_slice database, hf_time deadline,
                     struct hf_pg_query *q)
{
    static const char params[] = "application_name\0holdfast-pg\0search_path\0pg_catalog";
    size_t n_params = q->catalog ? sizeof(params) : sizeof("application_name\0holdfast-pg");
    struct hf_pg *pg = p->pg;
    HF_LIST_FOREACH (node, &p->idle) {
        struct conn *c = HF_CONTAINER_OF(node, struct conn, node);
        if (c->catalog == q->catalog && hf_slice_eq(hf_slice_str(c->database), database)) {
            hf_list_unlink(&c->node);
            hf_list_insert(&p->busy, &c->node);
            p->n_idle--;
            c->query = q;
            q->conn = c;
            hf_pg_link_send(&c->sconn->link, hf_buf_slice(&q->text));
            hf_pg_wire_flush(pg->wire);
            return 0;
        }
    }
    struct hf_pg_target *target = hf_pg_route_own(pg->route);
    if (!target || !*pg->config->auth.user) {
        return -HF_ENOTREADY;
    }
    struct conn *c = hf_alloc(sizeof(*c));
    if (!c || !(c->database = hf_alloc(database.n + 1))) {
        hf_free(c);
        return -ENOMEM;
    }
    memcpy(c->database, database.p, database.n);
    c->pool = p;
    c->query = q;
    c->catalog = q->catalog;
    q->conn = c;
    hf_list_insert(&p->busy, &c->node);
    struct hf_pg_connect_args args = {
        .user = hf_slice_str(pg->config->auth.user),
        .database = hf_slice_str(c->database),
        .params = hf_slice(params, n_params),
        .secret = pg->rules->manager.kind ? &pg->rules->manager : NULL,
        .cleartext = *target->host == '/',
        .deadline = deadline,
    };
    int rc = hf_pg_sconn_open(pg, target, &args, &conn_ops, c, &c->sconn);
    if (rc) {
        q->conn = NULL;
        conn_destroy(c);
    }
    return rc;
}

/* Begin, or come back when a server may be known. */
static int begin(struct hf_pg_query *q)
{
    struct hf_pg *pg = q->pool->pg;
    int rc = take_conn(q->pool, hf_slice_str(q->database), q->deadline, q);
    bool wait = rc == -HF_ENOTREADY && *pg->config->auth.user;
    if (rc == 0 || wait) {
        hf_poll_timer_set(pg->wire->poll, &q->timer, wait ? hf_pg_now(pg) + RETRY : q->deadline);
        return 0;
    }
    return rc;
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg_query *q = HF_CONTAINER_OF(t, struct hf_pg_query, timer);
    int rc = q->conn || now >= q->deadline ? -HF_ETIMEOUT : begin(q);
    if (rc) {
        fail(q, hf_strerror(rc));
    }
}

int hf_pg_query_start(struct hf_pg_query_pool *p, struct hf_slice database, struct hf_slice sql,
                      struct hf_slice parameter, bool catalog, hf_time timeout,
                      const struct hf_pg_query_ops *ops, void *arg, struct hf_pg_query **ret_query)
{
    struct hf_pg_query *q = hf_alloc(sizeof(*q));
    if (!q || hf_poll_reserve(p->pg->wire->poll, 1)) {
        hf_free(q);
        return -ENOMEM;
    }
    q->pool = p;
    q->catalog = catalog;
    q->ops = ops;
    q->arg = arg;
    q->timer.fn = on_timer;
    hf_list_insert(&p->queries, &q->node);
    hf_buf_init(&q->text, 1u << 16);
    build(&q->text, sql, parameter);
    q->deadline = hf_pg_now(p->pg) + timeout;
    q->database = hf_alloc(database.n + 1);
    if (q->database) {
        memcpy(q->database, database.p, database.n);
    }
    int rc = q->text.err ? q->text.err : !q->database ? -ENOMEM : begin(q);
    if (rc) {
        query_free(q);
        return rc;
    }
    *ret_query = q;
    return 0;
}

/* ---- the pool ---- */

int hf_pg_query_pool_create(struct hf_pg *pg, struct hf_pg_query_pool **ret_pool)
{
    struct hf_pg_query_pool *p = hf_alloc(sizeof(*p));
    if (!p || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(p);
        return -ENOMEM;
    }
    p->pg = pg;
    p->timer.fn = on_idle_timer;
    hf_list_init(&p->idle);
    hf_list_init(&p->busy);
    hf_list_init(&p->queries);
    *ret_pool = p;
    return 0;
}

void hf_pg_query_pool_clear(struct hf_pg_query_pool *p)
{
    HF_LIST_FOREACH (node, &p->idle) {
        conn_destroy(HF_CONTAINER_OF(node, struct conn, node));
    }
}

void hf_pg_query_pool_destroy(struct hf_pg_query_pool *p)
{
    if (!p) {
        return;
    }
    HF_LIST_FOREACH (node, &p->queries) {
        hf_pg_query_cancel(HF_CONTAINER_OF(node, struct hf_pg_query, node));
    }
    hf_pg_query_pool_clear(p);
    hf_poll_timer_set(p->pg->wire->poll, &p->timer, HF_NEVER);
    hf_free(p);
}
