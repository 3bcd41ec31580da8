/* The SIP store in PostgreSQL: two connections in pipeline mode, statements with arrays. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "base/mem.h"
#include "os/loop.h"
#include "sip/store_impl.h"

#define READS_MAX 4 /* batches of reads in flight */
#define PARAMS_MAX 11
#define PARAM_BYTES_MAX (256u << 20)

/* Oids of the elements of arrays, as they go over the wire. */
enum { OID_BOOL = 16, OID_BYTEA = 17, OID_INT8 = 20, OID_INT2 = 21, OID_TEXT = 25 };

#define NOW "extract(epoch FROM now())::int8"
#define A_ROW "a.home, a.current, a.epoch, a.pinned, a.agent, a.agent_id"
#define SETTLED " JOIN assignment a ON a.aor = k.aor AND a.epoch = k.epoch"
#define INSERT_ROWS(epoch)                                                                         \
    "INSERT INTO assignment (aor, bucket, home, current, epoch, pinned, agent, agent_id, change)"  \
    " SELECT k.aor, k.bucket, k.home, k.current, " epoch ", k.pinned, k.agent, k.agent_id, 0"      \
    " FROM unnest($1::text[], $2::int2[], $3::text[], $4::text[], $5::int8[], $6::bool[],"         \
    " $7::int2[], $8::int2[]) k(aor, bucket, home, current, epoch, pinned, agent, agent_id)"       \
    " LEFT JOIN gone g ON g.aor = k.aor"

#define STATEMENTS(X)                                                                              \
    X(SHARE, "SELECT pg_advisory_xact_lock_shared(" HF_SIP_STORE_LOCK ")")                         \
    X(LOCK, "SELECT pg_advisory_xact_lock(" HF_SIP_STORE_LOCK ")")                                 \
    X(ROWS, "SELECT k.n, " A_ROW ", EXISTS (SELECT 1 FROM users u WHERE u.aor = k.aor)"            \
            " FROM unnest($1::text[]) WITH ORDINALITY k(aor, n)"                                   \
            " LEFT JOIN assignment a ON a.aor = k.aor")                                            \
    X(CHECK, "SELECT k.n, " A_ROW ", false"                                                        \
             " FROM unnest($1::text[], $2::int8[]) WITH ORDINALITY k(aor, epoch, n)"               \
             " LEFT JOIN assignment a ON a.aor = k.aor WHERE a.epoch IS DISTINCT FROM k.epoch")    \
    X(BIND, "INSERT INTO binding (aor, id, uri, params, call_id, path, cseq, life, expires,"       \
            " outbound) SELECT k.aor, k.id, k.uri, k.params, k.call_id, k.path, k.cseq, k.life,"   \
            " " NOW " + k.rest, k.outbound"                                                        \
            " FROM unnest($1::text[], $2::int8[], $3::bytea[], $4::bytea[], $5::bytea[],"          \
            " $6::bytea[], $7::bytea[], $8::int8[], $9::int8[], $10::int8[], $11::bool[])"         \
            " k(aor, epoch, id, uri, params, call_id, path, cseq, life, rest, outbound)" SETTLED   \
            " ON CONFLICT (aor, id) DO UPDATE SET uri = excluded.uri, params = excluded.params,"   \
            " call_id = excluded.call_id, path = excluded.path, cseq = excluded.cseq,"             \
            " life = excluded.life, expires = excluded.expires, outbound = excluded.outbound")     \
    X(UNBIND, "DELETE FROM binding b USING unnest($1::text[], $2::int8[], $3::bytea[])"            \
              " k(aor, epoch, id)" SETTLED " WHERE b.aor = k.aor AND b.id = k.id")                 \
    X(KEEP, "INSERT INTO kept (aor, what, id, key, data, expires)"                                 \
            " SELECT k.aor, k.what, k.id, k.key, k.data, " NOW " + k.rest"                         \
            " FROM unnest($1::text[], $2::int8[], $3::int2[], $4::bytea[], $5::bytea[],"           \
            " $6::bytea[], $7::int8[]) k(aor, epoch, what, id, key, data, rest)" SETTLED           \
            " ON CONFLICT (aor, what, id) DO UPDATE SET data = excluded.data,"                     \
            " expires = excluded.expires")                                                         \
    X(DROP, "DELETE FROM kept b USING unnest($1::text[], $2::int2[], $3::bytea[])"                 \
            " k(aor, what, id) WHERE b.aor = k.aor AND b.what = k.what AND b.id = k.id")           \
    X(LEARN, "WITH u AS (UPDATE assignment a SET agent = k.agent, agent_id = k.agent_id"           \
             " FROM unnest($1::text[], $2::int2[], $3::int2[]) k(aor, agent, agent_id)"            \
             " WHERE a.aor = k.aor AND a.current = $4"                                             \
             " AND (a.agent, a.agent_id) IS DISTINCT FROM (k.agent, k.agent_id) RETURNING a.aor)"  \
             " SELECT pg_notify('" HF_SIP_STORE_CHANNEL "', 'a' || aor) FROM u")                   \
    X(ASSIGN,                                                                                      \
      "WITH i AS (" INSERT_ROWS(                                                                   \
          "coalesce(g.epoch, 0) + 1") " ON CONFLICT (aor) DO NOTHING"                              \
                                      " RETURNING aor, current) SELECT "                           \
                                      "pg_notify('" HF_SIP_STORE_CHANNEL "',"                      \
                                      " 'n' || current || ' ' || aor) FROM i WHERE current <> $9") \
    X(ASSERT, INSERT_ROWS("k.epoch") " WHERE k.epoch > coalesce(g.epoch, 0)"                       \
                                     " ON CONFLICT (aor) DO NOTHING")                              \
    X(RAISE,                                                                                       \
      INSERT_ROWS(                                                                                 \
          "k.epoch") " WHERE k.epoch > coalesce(g.epoch, 0)"                                       \
                     " ON CONFLICT (aor) DO UPDATE SET home = excluded.home, current = "           \
                     "excluded.current,"                                                           \
                     " epoch = excluded.epoch, pinned = excluded.pinned, agent = excluded.agent,"  \
                     " agent_id = excluded.agent_id WHERE excluded.epoch > assignment.epoch")      \
    X(SECRET, "SELECT k.n, u.aor, u.sha512_256, u.sha256, u.md5"                                   \
              " FROM unnest($1::text[], $2::text[]) WITH ORDINALITY k(username, realm, n)"         \
              " JOIN users u ON u.username = k.username AND u.realm = k.realm")                    \
    X(BINDINGS, "SELECT k.n, uri, params, call_id, path, cseq, life, expires - " NOW ", outbound"  \
                " FROM unnest($1::text[]) WITH ORDINALITY k(aor, n)"                               \
                " JOIN binding b ON b.aor = k.aor WHERE expires > " NOW " ORDER BY k.n")           \
    X(KEPT, "SELECT k.n, what, key, data, expires - " NOW                                          \
            " FROM unnest($1::text[]) WITH ORDINALITY k(aor, n)"                                   \
            " JOIN kept b ON b.aor = k.aor WHERE expires > " NOW " ORDER BY k.n")                  \
    X(OURS, "SELECT 1, aor, home, current, epoch, pinned, agent, agent_id FROM assignment"         \
            " WHERE current = $1 UNION ALL"                                                        \
            " SELECT 0, '', '', '', change, false, 0::int2, 0::int2 FROM leader")                  \
    X(FEED, "SELECT 1, aor, home, current, epoch, pinned, agent, agent_id FROM assignment"         \
            " WHERE change > $1 AND change > 0 UNION ALL"                                          \
            " SELECT 2, aor, '', '', 0, false, 0::int2, 0::int2 FROM gone WHERE change > $1"       \
            " UNION ALL SELECT 0, '', '', '', change, false, 0::int2, 0::int2 FROM leader")
enum statement {
#define STATEMENT_ENUM(id, sql) S_##id,
    STATEMENTS(STATEMENT_ENUM)
#undef STATEMENT_ENUM
        S_COUNT
};
static const struct {
    const char *name, *sql;
} statements[] = {
#define STATEMENT_TEXT(id, sql) {#id, sql},
    STATEMENTS(STATEMENT_TEXT)
#undef STATEMENT_TEXT
};
_Static_assert(HF_SIP_SHA512_256 == 0 && HF_SIP_SHA256 == 1 && HF_SIP_MD5 == 2, "as in SECRET");

/* Plans do not depend on what the tables were like when they were made: always by index. */
#define SETTINGS                                                                                   \
    "SELECT set_config(name, value, false) FROM (VALUES ('enable_seqscan', 'off'),"                \
    " ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('jit', 'off'),"                    \
    " ('plan_cache_mode', 'force_generic_plan'), ('max_parallel_workers_per_gather', '0'),"        \
    " ('default_transaction_isolation', 'read committed'), ('statement_timeout', '0'),"            \
    " ('lock_timeout', '0'), ('synchronous_commit', CASE current_setting('synchronous_commit')"    \
    " WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END)) s(name, value)"

/* What goes to the server between two Syncs, and what comes back. */
struct unit {
    struct hf_list node;
    enum { UNIT_LISTEN, UNIT_INIT, UNIT_BATCH, UNIT_FEED } kind;
    struct hf_sip_batch *batch;
    bool ours;       /* FEED */
    uint64_t change; /* FEED: as it was read */
    unsigned n;      /* results so far */
    PGresult *result[S_COUNT + 4];
    PGresult *error;                  /* the first */
    enum statement sent[S_COUNT + 4]; /* BATCH: in order */
    unsigned n_sent;
};

struct conn {
    struct hf_sip_backend *backend;
    PGconn *pg;
    enum { CLOSED, CONNECTING, STARTING, READY } state;
    bool reads;
    bool want_write; /* connecting: wait to write; otherwise there is unsent output */
    struct hf_list units;
    unsigned n_batches;
    hf_time heard; /* last byte, or when something was first sent */
};

struct param {
    struct hf_buf b;
    uint32_t n;
};

struct hf_sip_backend {
    struct hf_sip_store *store;
    struct conn reads, writes;
    uint64_t change;
    struct param param[PARAMS_MAX];
    unsigned n_params;
    char why[300];
    bool failed;
};

/* ---- connections ---- */

static void free_unit(struct conn *c, struct unit *u)
{
    for (unsigned i = 0; i < u->n; i++) {
        PQclear(u->result[i]);
    }
    PQclear(u->error);
    c->n_batches -= u->kind == UNIT_BATCH;
    hf_list_unlink(&u->node);
    hf_free(u);
}

static void close_conn(struct conn *c)
{
    HF_LIST_FOREACH (node, &c->units) {
        free_unit(c, HF_CONTAINER_OF(node, struct unit, node));
    }
    PQfinish(c->pg);
    c->pg = NULL;
    c->state = CLOSED;
    c->n_batches = 0;
}

static int create(struct hf_sip_store *s, struct hf_sip_backend **ret_backend)
{
    struct hf_sip_backend *b = hf_alloc(sizeof(*b));
    if (!b) {
        return -ENOMEM;
    }
    b->store = s;
    b->reads.backend = b->writes.backend = b;
    b->reads.reads = true;
    hf_list_init(&b->reads.units);
    hf_list_init(&b->writes.units);
    for (unsigned i = 0; i < PARAMS_MAX; i++) {
        hf_buf_init(&b->param[i].b, PARAM_BYTES_MAX);
    }
    *ret_backend = b;
    return 0;
}

static void destroy(struct hf_sip_backend *b)
{
    close_conn(&b->reads);
    close_conn(&b->writes);
    for (unsigned i = 0; i < PARAMS_MAX; i++) {
        hf_buf_fini(&b->param[i].b);
    }
    hf_free(b);
}

/* Noted only: the store is told when nobody uses what would be freed. */
static void fail(struct hf_sip_backend *b, const char *text)
{
    if (!b->failed) {
        b->failed = true;
        snprintf(b->why, sizeof(b->why), "PostgreSQL: %.*s", (int)strcspn(text, "\n"), text);
    }
}

static void settle(struct hf_sip_backend *b)
{
    if (b->failed) {
        b->failed = false;
        close_conn(&b->reads);
        close_conn(&b->writes);
        hf_sip_store_down(b->store, b->why);
    }
}

static void ignore(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

static void start_conn(struct conn *c)
{
    const struct hf_sip_store_conf *conf = hf_sip_store_conf(c->backend->store);
    char silence[16];
    snprintf(silence, sizeof(silence), "%u", conf->timeout_ms);
    /* what the URI says overrides what stands before it */
    const char *key[] = {"target_session_attrs",
                         "tcp_user_timeout",
                         "keepalives_idle",
                         "keepalives_interval",
                         "keepalives_count",
                         "fallback_application_name",
                         "dbname",
                         "client_encoding",
                         NULL};
    const char *value[] = {"read-write",   silence,   "5",    "1", "5",
                           "holdfast-sip", conf->uri, "UTF8", NULL};
    c->pg = PQconnectStartParams(key, value, 1);
    if (!c->pg || PQstatus(c->pg) == CONNECTION_BAD) {
        fail(c->backend, c->pg ? PQerrorMessage(c->pg) : "no memory");
        return;
    }
    PQsetNoticeProcessor(c->pg, ignore, NULL);
    c->state = CONNECTING;
    c->want_write = true;
    c->heard = hf_now();
}

static void connect_both(struct hf_sip_backend *b)
{
    start_conn(&b->reads);
    if (!b->failed) {
        start_conn(&b->writes);
    }
    settle(b);
}

/* ---- sending ---- */

static void flush(struct conn *c)
{
    int rc = PQflush(c->pg);
    if (rc < 0) {
        fail(c->backend, PQerrorMessage(c->pg));
    }
    c->want_write = rc > 0;
}

static struct unit *new_unit(struct conn *c, int kind)
{
    struct unit *u = hf_alloc(sizeof(*u));
    if (!u) {
        fail(c->backend, "no memory");
        return NULL;
    }
    u->kind = kind;
    if (hf_list_empty(&c->units)) {
        c->heard = hf_now();
    }
    hf_list_insert(&c->units, &u->node);
    return u;
}

static void sync_unit(struct conn *c)
{
    if (!PQpipelineSync(c->pg)) {
        fail(c->backend, PQerrorMessage(c->pg));
        return;
    }
    flush(c);
}

static void sent(struct conn *c, int ok)
{
    if (!ok) {
        fail(c->backend, PQerrorMessage(c->pg));
    }
}

static void query(struct conn *c, const char *sql)
{
    sent(c, PQsendQueryParams(c->pg, sql, 0, NULL, NULL, NULL, NULL, 1));
}

static struct param *param(struct hf_sip_backend *b)
{
    struct param *p = &b->param[b->n_params++];
    hf_buf_clear(&p->b);
    p->n = 0;
    return p;
}

static void put_be(struct hf_buf *b, uint64_t v, size_t n)
{
    uint64_t be = htobe64(v);
    hf_buf_add(b, hf_slice((const uint8_t *)&be + (8 - n), n));
}

/* An array in binary: dimensions, has nulls, element type, and the one dimension's length and first
 * index; then each element with its length. */
static struct param *array(struct hf_sip_backend *b, uint32_t oid)
{
    struct param *p = param(b);
    put_be(&p->b, 1, 4);
    put_be(&p->b, 0, 4);
    put_be(&p->b, oid, 4);
    put_be(&p->b, 0, 4);
    put_be(&p->b, 1, 4);
    return p;
}

static void add_slice(struct param *p, struct hf_slice s)
{
    put_be(&p->b, s.n, 4);
    hf_buf_add(&p->b, s);
    p->n++;
}

static void add_int(struct param *p, int64_t v, size_t n)
{
    put_be(&p->b, n, 4);
    put_be(&p->b, (uint64_t)v, n);
    p->n++;
}

static void end_array(struct hf_sip_backend *b, struct param *p)
{
    assert(p); /* one of the n_params that were made for this statement */
    if (p->b.err) {
        fail(b, "no memory for a statement");
        return;
    }
    uint32_t n = htobe32(p->n);
    memcpy(p->b.p + 12, &n, sizeof(n));
}

/* A statement with all params that were made since the last one. */
static void execute(struct conn *c, struct unit *u, enum statement id)
{
    struct hf_sip_backend *b = c->backend;
    const char *value[PARAMS_MAX];
    int len[PARAMS_MAX], format[PARAMS_MAX];
    for (unsigned i = 0; i < b->n_params; i++) {
        value[i] = (const char *)b->param[i].b.p;
        len[i] = (int)b->param[i].b.n;
        format[i] = 1;
        if (b->param[i].b.err) {
            fail(b, "no memory for a statement");
        }
    }
    if (!b->failed) {
        sent(c, PQsendQueryPrepared(c->pg, statements[id].name, (int)b->n_params, value, len,
                                    format, 1));
    }
    u->sent[u->n_sent++] = id;
    b->n_params = 0;
}

/* ---- what a batch says ---- */

/* The ops of a batch that a statement is for. */
static bool is_for(enum statement id, const struct hf_sip_queued *q)
{
    enum hf_sip_op_kind kind = (enum hf_sip_op_kind)q->op.kind;
    switch (id) {
    case S_ROWS:
        return kind == HF_SIP_OP_READ || kind == HF_SIP_OP_ASSIGN || kind == HF_SIP_OP_ASSERT;
    case S_CHECK:
        return kind == HF_SIP_OP_BIND || kind == HF_SIP_OP_KEEP;
    case S_BIND:
    case S_UNBIND:
        return kind == HF_SIP_OP_BIND;
    case S_KEEP:
        return kind == HF_SIP_OP_KEEP;
    case S_DROP:
        return kind == HF_SIP_OP_DROP;
    case S_LEARN:
        return kind == HF_SIP_OP_LEARN;
    case S_ASSIGN:
        return kind == HF_SIP_OP_ASSIGN;
    case S_ASSERT:
        return kind == HF_SIP_OP_ASSERT && !q->raise;
    case S_RAISE:
        return kind == HF_SIP_OP_ASSERT && q->raise;
    case S_SECRET:
        return kind == HF_SIP_OP_SECRET;
    case S_BINDINGS:
    case S_KEPT:
        return kind == HF_SIP_OP_LOAD;
    case S_SHARE:
    case S_LOCK:
    case S_OURS:
    case S_FEED:
    case S_COUNT:
        break;
    }
    return false;
}

static unsigned count_for(const struct hf_sip_batch *batch, enum statement id)
{
    unsigned n = 0;
    for (size_t i = 0; i < batch->n; i++) {
        n += is_for(id, batch->op[i]);
    }
    return n;
}

/* A later one of the same op has the same place: that one counts. */
static bool superseded(const struct hf_sip_op *op, size_t i)
{
    for (size_t j = i + 1; j < op->n_binds; j++) {
        if (hf_slice_eq(op->bind[i].key, op->bind[j].key)) {
            return true;
        }
    }
    return false;
}

static void add_id(struct param *p, struct hf_slice key)
{
    uint8_t id[HF_SIP_STORE_ID_LEN];
    hf_sip_store_id(key, id);
    add_slice(p, hf_slice(id, sizeof(id)));
}

static void add_binding(struct param *const p[PARAMS_MAX], const struct hf_sip_bind *x)
{
    add_slice(p[3], x->b.uri);
    add_slice(p[4], x->b.params);
    add_slice(p[5], x->b.call_id);
    add_slice(p[6], x->b.path);
    add_int(p[7], x->b.cseq, 8);
    add_int(p[8], x->b.life_s, 8);
    add_int(p[9], x->b.left_s, 8);
    add_int(p[10], x->b.outbound, 1);
}

static void send_binds(struct conn *c, struct unit *u, bool erase)
{
    static const uint32_t oid[] = {OID_TEXT,  OID_INT8, OID_BYTEA, OID_BYTEA, OID_BYTEA, OID_BYTEA,
                                   OID_BYTEA, OID_INT8, OID_INT8,  OID_INT8,  OID_BOOL};
    struct hf_sip_backend *b = c->backend;
    struct param *p[PARAMS_MAX];
    unsigned n = erase ? 3 : PARAMS_MAX;
    for (unsigned i = 0; i < n; i++) {
        p[i] = array(b, oid[i]);
    }
    for (size_t i = 0; i < u->batch->n; i++) {
        const struct hf_sip_op *op = &u->batch->op[i]->op;
        for (size_t j = 0; op->kind == HF_SIP_OP_BIND && j < op->n_binds; j++) {
            if (op->bind[j].erase != erase || superseded(op, j)) {
                continue;
            }
            add_slice(p[0], op->aor);
            add_int(p[1], (int64_t)op->epoch, 8);
            add_id(p[2], op->bind[j].key);
            if (!erase) {
                add_binding(p, &op->bind[j]);
            }
        }
    }
    if (p[0]->n == 0) {
        b->n_params = 0;
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        end_array(b, p[i]);
    }
    execute(c, u, erase ? S_UNBIND : S_BIND);
}

static void add_row(struct hf_sip_backend *b, struct param *const p[PARAMS_MAX],
                    const struct hf_sip_row *row)
{
    char name[HF_HOST_NAME_MAX + 1];
    add_int(p[1], hf_sip_store_i16(hf_sip_bucket(row->aor)), 2);
    add_slice(p[2], hf_sip_store_name(b->store, row->home, name));
    add_slice(p[3], hf_sip_store_name(b->store, row->current, name));
    add_int(p[4], (int64_t)row->epoch, 8);
    add_int(p[5], row->pinned, 1);
    add_int(p[6], row->agent, 2);
    add_int(p[7], hf_sip_store_i16(row->agent_id), 2);
}

/* What a statement's arrays hold of an op, after its AoR. */
static void add_op(struct hf_sip_backend *b, struct param *const p[PARAMS_MAX], enum statement id,
                   const struct hf_sip_op *op)
{
    if (id == S_CHECK) {
        add_int(p[1], (int64_t)op->epoch, 8);
    } else if (id == S_KEEP) {
        add_int(p[1], (int64_t)op->epoch, 8);
        add_int(p[2], op->kept.what, 2);
        add_id(p[3], op->kept.key);
        add_slice(p[4], op->kept.key);
        add_slice(p[5], op->kept.data);
        add_int(p[6], op->kept.left_s, 8);
    } else if (id == S_DROP) {
        add_int(p[1], op->kept.what, 2);
        add_id(p[2], op->kept.key);
    } else if (id == S_LEARN) {
        add_int(p[1], op->row.agent, 2);
        add_int(p[2], hf_sip_store_i16(op->row.agent_id), 2);
    } else if (id == S_SECRET) {
        add_slice(p[1], op->realm);
    } else if (id == S_ASSIGN || id == S_ASSERT || id == S_RAISE) {
        add_row(b, p, &op->row);
    }
}

static void send_ops(struct conn *c, struct unit *u, enum statement id)
{
    static const uint32_t oids[S_COUNT][8] = {
        [S_ROWS] = {OID_TEXT},
        [S_CHECK] = {OID_TEXT, OID_INT8},
        [S_KEEP] = {OID_TEXT, OID_INT8, OID_INT2, OID_BYTEA, OID_BYTEA, OID_BYTEA, OID_INT8},
        [S_DROP] = {OID_TEXT, OID_INT2, OID_BYTEA},
        [S_LEARN] = {OID_TEXT, OID_INT2, OID_INT2},
        [S_ASSIGN] = {OID_TEXT, OID_INT2, OID_TEXT, OID_TEXT, OID_INT8, OID_BOOL, OID_INT2,
                      OID_INT2},
        [S_ASSERT] = {OID_TEXT, OID_INT2, OID_TEXT, OID_TEXT, OID_INT8, OID_BOOL, OID_INT2,
                      OID_INT2},
        [S_RAISE] = {OID_TEXT, OID_INT2, OID_TEXT, OID_TEXT, OID_INT8, OID_BOOL, OID_INT2,
                     OID_INT2},
        [S_SECRET] = {OID_TEXT, OID_TEXT},
        [S_BINDINGS] = {OID_TEXT},
        [S_KEPT] = {OID_TEXT},
    };
    if (!count_for(u->batch, id)) {
        return;
    }
    struct hf_sip_backend *b = c->backend;
    struct param *p[PARAMS_MAX] = {0};
    for (unsigned i = 0; i < 8 && oids[id][i]; i++) {
        p[i] = array(b, oids[id][i]);
    }
    for (size_t i = 0; i < u->batch->n; i++) {
        if (is_for(id, u->batch->op[i])) {
            const struct hf_sip_op *op = &u->batch->op[i]->op;
            add_slice(p[0], id == S_SECRET ? op->user : op->aor);
            add_op(b, p, id, op);
        }
    }
    for (unsigned i = 0; i < b->n_params; i++) {
        end_array(b, p[i]);
    }
    if (id == S_LEARN || id == S_ASSIGN) {
        hf_buf_str(&param(b)->b, hf_sip_store_conf(b->store)->self);
    }
    execute(c, u, id);
}

static void run(struct hf_sip_backend *b, struct hf_sip_batch *batch)
{
    struct conn *c = batch->lane == HF_SIP_READS ? &b->reads : &b->writes;
    struct unit *u = new_unit(c, UNIT_BATCH);
    if (u) {
        u->batch = batch;
        c->n_batches++;
        if (!c->reads) {
            execute(c, u, batch->lane == HF_SIP_RAISES ? S_LOCK : S_SHARE);
        }
        send_ops(c, u, S_CHECK);
        send_binds(c, u, false);
        send_binds(c, u, true);
        /* in one order always, and sorted by AoR: two servers never wait for each other */
        static const enum statement rest[] = {S_KEEP,  S_DROP, S_LEARN,  S_ASSIGN,   S_ASSERT,
                                              S_RAISE, S_ROWS, S_SECRET, S_BINDINGS, S_KEPT};
        for (unsigned i = 0; i < HF_ARRAY_LEN(rest); i++) {
            send_ops(c, u, rest[i]);
        }
        sync_unit(c);
    }
    settle(b);
}

static bool room(const struct hf_sip_backend *b, enum hf_sip_lane lane)
{
    return lane == HF_SIP_READS ? b->reads.n_batches < READS_MAX : b->writes.n_batches == 0;
}

/* ---- what comes back ---- */

static struct hf_slice get_bytes(const PGresult *r, int row, int column)
{
    return hf_slice(PQgetvalue(r, row, column), (size_t)PQgetlength(r, row, column));
}

/* Any integer, by its length; 0 for NULL. */
static int64_t get_int(const PGresult *r, int row, int column)
{
    struct hf_slice s = get_bytes(r, row, column);
    uint64_t v = s.n && s.p[0] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = 0; i < s.n && i < 8; i++) {
        v = v << 8 | s.p[i];
    }
    return (int64_t)v;
}

/* home, current, epoch, pinned, agent, agent_id from this column on */
static struct hf_sip_stored_row get_row(const PGresult *r, int row, int column)
{
    return (struct hf_sip_stored_row){
        .home = get_bytes(r, row, column),
        .current = get_bytes(r, row, column + 1),
        .epoch = (uint64_t)get_int(r, row, column + 2),
        .pinned = get_int(r, row, column + 3) != 0,
        .agent = (uint8_t)get_int(r, row, column + 4),
        .agent_id = (int16_t)get_int(r, row, column + 5),
    };
}

/* Results of a batch while they are put together. */
struct answers {
    struct hf_sip_backend *b;
    struct hf_sip_batch *batch;
    struct hf_sip_result *r;               /* [batch->n] */
    size_t *op;                            /* of a statement: the op of each ordinal number */
    struct hf_sip_stored_binding *binding; /* owned */
    struct hf_sip_kept *kept;              /* owned */
};

static void take_rows(struct answers *a, const PGresult *res, bool check)
{
    for (int i = 0; i < PQntuples(res); i++) {
        size_t at = a->op[get_int(res, i, 0) - 1];
        struct hf_sip_result *r = &a->r[at];
        r->have_row = !PQgetisnull(res, i, 1);
        r->user_known = !check && get_int(res, i, 7) != 0;
        if (r->have_row) {
            struct hf_sip_stored_row row = get_row(res, i, 1);
            row.aor = a->batch->op[at]->op.aor;
            r->row = hf_sip_store_row(a->b->store, &row);
        }
        r->done = !r->have_row ? HF_SIP_OP_NONE : check ? HF_SIP_OP_STALE : HF_SIP_OP_DONE;
    }
}

static void take_secrets(struct answers *a, const PGresult *res)
{
    for (int i = 0; i < PQntuples(res); i++) {
        struct hf_sip_result *r = &a->r[a->op[get_int(res, i, 0) - 1]];
        r->done = HF_SIP_OP_DONE;
        r->aor = get_bytes(res, i, 1);
        for (int j = 0; j < HF_SIP_ALGORITHM_COUNT_; j++) {
            struct hf_slice s = get_bytes(res, i, 2 + j);
            if (s.n == hf_sip_algorithm_len((enum hf_sip_algorithm)j)) {
                memcpy(r->secret[j], s.p, s.n);
                r->algorithms |= 1u << j;
            }
        }
    }
}

static void take_bindings(struct answers *a, const PGresult *res)
{
    int n = PQntuples(res);
    a->binding = hf_alloc_array((size_t)n + 1, sizeof(a->binding[0]));
    for (int i = 0; a->binding && i < n; i++) {
        size_t at = a->op[get_int(res, i, 0) - 1];
        struct hf_sip_result *r = &a->r[at];
        r->binding = r->n_bindings ? r->binding : &a->binding[i];
        r->n_bindings++;
        a->binding[i] = (struct hf_sip_stored_binding){
            .aor = a->batch->op[at]->op.aor,
            .uri = get_bytes(res, i, 1),
            .params = get_bytes(res, i, 2),
            .call_id = get_bytes(res, i, 3),
            .path = get_bytes(res, i, 4),
            .cseq = (uint32_t)get_int(res, i, 5),
            .life_s = (uint32_t)get_int(res, i, 6),
            .left_s = (uint32_t)get_int(res, i, 7),
            .outbound = get_int(res, i, 8) != 0,
        };
    }
}

static void take_kept(struct answers *a, const PGresult *res)
{
    int n = PQntuples(res);
    a->kept = hf_alloc_array((size_t)n + 1, sizeof(a->kept[0]));
    for (int i = 0; a->kept && i < n; i++) {
        struct hf_sip_result *r = &a->r[a->op[get_int(res, i, 0) - 1]];
        r->kept = r->n_kept ? r->kept : &a->kept[i];
        r->n_kept++;
        a->kept[i] = (struct hf_sip_kept){
            .what = (uint8_t)get_int(res, i, 1),
            .key = get_bytes(res, i, 2),
            .data = get_bytes(res, i, 3),
            .left_s = (uint32_t)get_int(res, i, 4),
        };
    }
}

static void take(struct answers *a, enum statement id, const PGresult *res)
{
    size_t n = 0;
    for (size_t i = 0; i < a->batch->n; i++) {
        if (is_for(id, a->batch->op[i])) {
            a->op[n++] = i;
        }
    }
    if (id == S_ROWS || id == S_CHECK) {
        take_rows(a, res, id == S_CHECK);
    } else if (id == S_SECRET) {
        take_secrets(a, res);
    } else if (id == S_BINDINGS) {
        take_bindings(a, res);
    } else if (id == S_KEPT) {
        take_kept(a, res);
    }
}

/* Committed. */
static void answer(struct conn *c, struct unit *u)
{
    struct hf_sip_batch *batch = u->batch;
    struct answers a = {.b = c->backend,
                        .batch = batch,
                        .r = hf_alloc_array(batch->n, sizeof(*a.r)),
                        .op = hf_alloc_array(batch->n, sizeof(*a.op))};
    bool ok = a.r && a.op && u->n == u->n_sent;
    for (size_t i = 0; ok && i < batch->n; i++) {
        a.r[i].done = is_for(S_SECRET, batch->op[i]) ? HF_SIP_OP_NONE : HF_SIP_OP_DONE;
    }
    for (unsigned i = 0; ok && i < u->n; i++) {
        take(&a, u->sent[i], u->result[i]);
    }
    ok =
        ok && (a.binding || !count_for(batch, S_BINDINGS)) && (a.kept || !count_for(batch, S_KEPT));
    for (size_t i = 0; ok && i < batch->n; i++) {
        hf_sip_store_answer(c->backend->store, batch->op[i], &a.r[i]);
    }
    if (ok) {
        hf_sip_store_batch_done(c->backend->store, batch);
    } else {
        fail(c->backend, "answers that can't be taken in");
    }
    hf_free(a.r);
    hf_free(a.op);
    hf_free(a.binding);
    hf_free(a.kept);
}

/* Is it the statement's own fault, not the database's? */
static bool refuses(const PGresult *error)
{
    static const char *const classes[] = {"21", "22", "23", "40", "42", "54", "55"};
    const char *state = PQresultErrorField(error, PG_DIAG_SQLSTATE);
    for (unsigned i = 0; state && i < HF_ARRAY_LEN(classes); i++) {
        if (strncmp(state, classes[i], 2) == 0) {
            return true;
        }
    }
    return false;
}

static void check_init(struct conn *c, const struct unit *u)
{
    struct hf_sip_backend *b = c->backend;
    const char *encoding = PQparameterStatus(c->pg, "server_encoding");
    const PGresult *leader = u->result[0];
    char text[160];
    if (PQntuples(leader) != 1) {
        fail(b, "no row in the table leader");
    } else if (get_int(leader, 0, 0) != HF_SIP_STORE_SCHEMA) {
        snprintf(text, sizeof(text), "its tables have version %" PRId64 ", not %d: see --init",
                 get_int(leader, 0, 0), HF_SIP_STORE_SCHEMA);
        fail(b, text);
    } else if (encoding && strcmp(encoding, "UTF8") != 0 && strcmp(encoding, "SQL_ASCII") != 0) {
        snprintf(text, sizeof(text), "the database's encoding is %s, not UTF8", encoding);
        fail(b, text);
    } else {
        c->state = READY;
        b->change = c->reads ? (uint64_t)get_int(leader, 0, 1) : b->change;
        if (b->reads.state == READY && b->writes.state == READY) {
            hf_sip_store_up(b->store, b->change);
        }
    }
}

/* All of a unit has come. */
static void finish(struct conn *c, struct unit *u)
{
    struct hf_sip_backend *b = c->backend;
    const char *text = u->error ? PQresultErrorField(u->error, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    text = text ? text : u->error ? PQresultErrorMessage(u->error) : "";
    if (u->error && u->kind == UNIT_BATCH && refuses(u->error)) {
        struct hf_sip_batch *batch = u->batch;
        snprintf(b->why, sizeof(b->why), "PostgreSQL: %s", text);
        free_unit(c, u);
        hf_sip_store_refused(b->store, batch, b->why);
        return;
    }
    if (u->error) {
        fail(b, text);
    } else if (u->kind == UNIT_BATCH) {
        answer(c, u);
    } else if (u->kind == UNIT_INIT) {
        check_init(c, u);
    } else if (u->kind == UNIT_FEED) {
        hf_sip_store_feed_end(b->store, u->ours, u->change);
    }
    free_unit(c, u);
}

static void feed_row(struct conn *c, struct unit *u, const PGresult *res)
{
    int64_t kind = get_int(res, 0, 0);
    if (kind == 0) {
        u->change = (uint64_t)get_int(res, 0, 4);
    } else if (kind == 1) {
        struct hf_sip_stored_row row = get_row(res, 0, 2);
        row.aor = get_bytes(res, 0, 1);
        hf_sip_store_feed_row(c->backend->store, &row);
    } else {
        hf_sip_store_feed_gone(c->backend->store, get_bytes(res, 0, 1));
    }
}

static struct unit *first_unit(struct conn *c)
{
    return hf_list_empty(&c->units) ? NULL : HF_CONTAINER_OF(c->units.next, struct unit, node);
}

/* A feed comes row by row: libpq must be told when it is its turn. */
static void turn(struct conn *c)
{
    const struct unit *u = first_unit(c);
    if (u && u->kind == UNIT_FEED && !PQsetSingleRowMode(c->pg)) {
        fail(c->backend, "no single-row mode");
    }
}

static void take_result(struct conn *c, struct unit *u, PGresult *res)
{
    switch (PQresultStatus(res)) {
    case PGRES_PIPELINE_SYNC:
        PQclear(res);
        finish(c, u);
        turn(c);
        return;
    case PGRES_SINGLE_TUPLE:
        feed_row(c, u, res);
        break;
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
        if (u->n < HF_ARRAY_LEN(u->result) && u->kind != UNIT_FEED) {
            u->result[u->n++] = res;
            return;
        }
        break;
    case PGRES_EMPTY_QUERY:
    case PGRES_COPY_OUT:
    case PGRES_COPY_IN:
    case PGRES_COPY_BOTH:
    case PGRES_BAD_RESPONSE:
    case PGRES_NONFATAL_ERROR:
    case PGRES_FATAL_ERROR:
    case PGRES_PIPELINE_ABORTED:
        if (!u->error) {
            u->error = res;
            return;
        }
        break;
    }
    PQclear(res);
}

static void take_results(struct conn *c)
{
    for (struct unit *u; !c->backend->failed && (u = first_unit(c)) != NULL;) {
        if (PQisBusy(c->pg)) {
            return;
        }
        PGresult *res = PQgetResult(c->pg);
        if (res) { /* NULL: the end of one statement's */
            take_result(c, u, res);
        } else if (PQstatus(c->pg) == CONNECTION_BAD) {
            fail(c->backend, u->error ? PQresultErrorMessage(u->error) : PQerrorMessage(c->pg));
        }
    }
}

/* "SERVER AOR": the AoR, if that server is this one; empty: another one. */
static struct hf_slice given_to_us(const struct hf_sip_backend *b, struct hf_slice text)
{
    struct hf_slice self = hf_slice_str(hf_sip_store_conf(b->store)->self);
    return hf_slice_starts(text, self) && text.n > self.n + 1 && text.p[self.n] == ' '
               ? hf_slice(text.p + self.n + 1, text.n - self.n - 1)
               : hf_slice(NULL, 0);
}

static void take_notices(struct conn *c)
{
    for (PGnotify *n; !c->backend->failed && (n = PQnotifies(c->pg)) != NULL;) {
        if (n->extra[0] == 'c') {
            hf_sip_store_notified(c->backend->store);
        } else if (n->extra[0] == 'a' && n->be_pid != PQbackendPID(c->backend->writes.pg)) {
            hf_sip_store_told(c->backend->store, hf_slice_str(n->extra + 1));
        } else if (n->extra[0] == 'n') {
            struct hf_slice aor = given_to_us(c->backend, hf_slice_str(n->extra + 1));
            if (aor.n) {
                hf_sip_store_told(c->backend->store, aor);
            }
        }
        PQfreemem(n);
    }
}

/* ---- the feed ---- */

static void feed(struct hf_sip_backend *b, bool ours, uint64_t change)
{
    struct conn *c = &b->reads;
    struct unit *u = new_unit(c, UNIT_FEED);
    if (u) {
        struct param *p = param(b);
        u->ours = ours;
        if (ours) {
            hf_buf_str(&p->b, hf_sip_store_conf(b->store)->self);
        } else {
            put_be(&p->b, change, 8);
        }
        execute(c, u, ours ? S_OURS : S_FEED);
        if (first_unit(c) == u) {
            turn(c);
        }
        sync_unit(c);
    }
    settle(b);
}

/* ---- input and output ---- */

/* Connected: LISTEN must have begun before `change` is read. */
static void initialise(struct conn *c)
{
    c->state = STARTING;
    if (PQsetnonblocking(c->pg, 1) || !PQenterPipelineMode(c->pg)) {
        fail(c->backend, PQerrorMessage(c->pg));
        return;
    }
    if (!new_unit(c, UNIT_LISTEN)) {
        return;
    }
    query(c, SETTINGS);
    if (c->reads) {
        query(c, "LISTEN " HF_SIP_STORE_CHANNEL);
    }
    sync_unit(c);
    if (!new_unit(c, UNIT_INIT)) {
        return;
    }
    query(c, "SELECT version, change FROM leader");
    for (unsigned i = 0; i < S_COUNT; i++) {
        sent(c, PQsendPrepare(c->pg, statements[i].name, statements[i].sql, 0, NULL));
    }
    sync_unit(c);
}

static void go_on_connecting(struct conn *c)
{
    switch (PQconnectPoll(c->pg)) {
    case PGRES_POLLING_OK:
        initialise(c);
        break;
    case PGRES_POLLING_READING:
        c->want_write = false;
        break;
    case PGRES_POLLING_WRITING:
        c->want_write = true;
        break;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
        fail(c->backend, PQerrorMessage(c->pg));
        break;
    }
}

static void io_conn(struct conn *c, short events, hf_time now)
{
    struct hf_sip_backend *b = c->backend;
    if (events) {
        c->heard = now;
    }
    if (c->state == CONNECTING && events) {
        go_on_connecting(c);
    } else if (c->state >= STARTING && events) {
        if (events & ~POLLOUT && !PQconsumeInput(c->pg)) {
            /* what came before it broke may say why, and may be answers */
            take_results(c);
            fail(b, PQerrorMessage(c->pg));
        }
        if (!b->failed && c->want_write) {
            flush(c);
        }
        take_results(c);
        take_notices(c);
    }
}

static bool waits(const struct conn *c)
{
    return c->state == CONNECTING || !hf_list_empty(&c->units);
}

static unsigned fds(const struct hf_sip_backend *b, struct pollfd fd[2])
{
    const struct conn *const conns[] = {&b->reads, &b->writes};
    for (unsigned i = 0; i < 2; i++) {
        const struct conn *c = conns[i];
        int events = c->state == CONNECTING ? (c->want_write ? POLLOUT : POLLIN)
                                            : POLLIN | (c->want_write ? POLLOUT : 0);
        fd[i] = (struct pollfd){.fd = c->pg ? PQsocket(c->pg) : -1, .events = (short)events};
    }
    return 2;
}

static void io(struct hf_sip_backend *b, const struct pollfd *fd, unsigned n, hf_time now)
{
    struct conn *conns[] = {&b->reads, &b->writes};
    hf_time limit = HF_MS(hf_sip_store_conf(b->store)->timeout_ms);
    for (unsigned i = 0; i < n && !b->failed; i++) {
        io_conn(conns[i], fd[i].revents, now);
        if (!b->failed && waits(conns[i]) && now - conns[i]->heard > limit) {
            fail(b, "no answer in time");
        }
    }
    settle(b);
}

static hf_time deadline(const struct hf_sip_backend *b)
{
    const struct conn *const conns[] = {&b->reads, &b->writes};
    hf_time limit = HF_MS(hf_sip_store_conf(b->store)->timeout_ms) + HF_MS(1);
    hf_time at = HF_NEVER;
    for (unsigned i = 0; i < 2; i++) {
        at = waits(conns[i]) ? hf_time_min(at, conns[i]->heard + limit) : at;
    }
    return at;
}

const struct hf_sip_backend_type hf_sip_backend_pg = {
    .create = create,
    .destroy = destroy,
    .connect = connect_both,
    .room = room,
    .run = run,
    .feed = feed,
    .fds = fds,
    .io = io,
    .deadline = deadline,
};
