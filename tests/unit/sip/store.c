/* The SIP store against a real database: SQLite, or PostgreSQL if HF_STORE_URI names one. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/prng.h"
#include "os/loop.h"
#include "sip/store.h"
#include "sip/store_impl.h"
#include "sip/store_sql.h"
#include "support/test.h"

#define DEADLINE_S 120
#define WIRE "host" /* of bindings' URIs */

static char uri[512], dir[64];
static bool is_pg;

/* ---- a server with its store: what came of ops, what the feed told ---- */

struct seen {
    struct hf_sip_result r; /* aor is in name; not: bindings, kept */
    char name[HF_SIP_AOR_MAX + 1];
    char text[1024]; /* bindings and kept, as text */
    bool there;
};

struct cached {
    char aor[HF_SIP_AOR_MAX + 1];
    struct hf_sip_row row;
};

struct server {
    unsigned number;
    char name[16];
    struct hf_sip_store *store;
    pthread_mutex_t lock;
    pthread_cond_t news;
    struct seen *seen; /* by cookie */
    size_t n_seen;
    uint64_t n_results;
    bool there, caught_up;
    uint64_t change, n_rows, n_ups, n_aways;
    struct hf_map cache; /* struct cached: the feed's rows, the highest epoch */
    char gone[1024];
    char log[4096];
};

static void deadline(struct timespec *ts)
{
    clock_gettime(CLOCK_REALTIME, ts);
    ts->tv_sec += DEADLINE_S;
}

/* Until it is true; s->lock is held. */
#define WAIT_FOR(s, condition)                                                                     \
    do {                                                                                           \
        struct timespec ts_;                                                                       \
        deadline(&ts_);                                                                            \
        while (!(condition)) {                                                                     \
            if (pthread_cond_timedwait(&(s)->news, &(s)->lock, &ts_)) {                            \
                fail_msg("not in time: %s (%s)", #condition, (s)->log);                            \
            }                                                                                      \
        }                                                                                          \
    } while (0)

static size_t add_text(char *to, size_t room, size_t at, const char *fmt, ...) HF_PRINTF(4, 5);
static size_t add_text(char *to, size_t room, size_t at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(to + at, room - at, fmt, ap);
    va_end(ap);
    return at + (size_t)n < room ? at + (size_t)n : room - 1;
}

static void told_result(void *arg, unsigned worker, const struct hf_sip_result *r)
{
    struct server *s = arg;
    assert_int_equal(worker, 7);
    pthread_mutex_lock(&s->lock);
    s->n_results++;
    if (r->cookie < s->n_seen) {
        struct seen *x = &s->seen[r->cookie];
        size_t at = 0;
        assert_false(x->there);
        x->there = true;
        x->r = *r;
        snprintf(x->name, sizeof(x->name), "%.*s", HF_SLICE_FMT(r->aor));
        for (size_t i = 0; i < r->n_bindings; i++) {
            const struct hf_sip_stored_binding *b = &r->binding[i];
            at = add_text(x->text, sizeof(x->text), at, "%.*s %.*s %.*s %.*s %u %u %u %d\n",
                          HF_SLICE_FMT(b->uri), HF_SLICE_FMT(b->params), HF_SLICE_FMT(b->call_id),
                          HF_SLICE_FMT(b->path), b->cseq, b->life_s, (b->left_s + 5) / 10 * 10,
                          b->outbound);
        }
        for (size_t i = 0; i < r->n_kept; i++) {
            const struct hf_sip_kept *k = &r->kept[i];
            at = add_text(x->text, sizeof(x->text), at, "%c %.*s=%.*s %u\n", k->what,
                          HF_SLICE_FMT(k->key), HF_SLICE_FMT(k->data), (k->left_s + 5) / 10 * 10);
        }
        for (size_t i = 0; i < r->n_binds; i++) {
            at = add_text(x->text, sizeof(x->text), at, "not %s %.*s\n",
                          r->bind[i].erase ? "deleted" : "written", HF_SLICE_FMT(r->bind[i].key));
        }
    }
    pthread_cond_broadcast(&s->news);
    pthread_mutex_unlock(&s->lock);
}

static void cache_row(struct server *s, const struct hf_sip_row *row)
{
    struct cached *c = hf_map_get(&s->cache, row->aor);
    if (!c) {
        c = hf_alloc(sizeof(*c));
        memcpy(c->aor, row->aor.p, row->aor.n);
        assert_int_equal(hf_map_put(&s->cache, hf_slice(c->aor, row->aor.n), c), 0);
    }
    if (row->epoch >= c->row.epoch) {
        c->row = *row;
    }
}

static void told_feed(void *arg, const struct hf_sip_feed *f)
{
    struct server *s = arg;
    pthread_mutex_lock(&s->lock);
    s->n_ups += f->there && !s->there;
    s->n_aways += !f->there;
    s->there = f->there;
    s->caught_up = f->there && (s->caught_up || f->change);
    s->change = f->change ? f->change : s->change;
    s->n_rows += f->n;
    for (size_t i = 0; i < f->n; i++) {
        cache_row(s, &f->row[i]);
    }
    for (size_t i = 0; i < f->n_deleted; i++) {
        (void)add_text(s->gone, sizeof(s->gone), strlen(s->gone), "%.*s ",
                       HF_SLICE_FMT(f->deleted[i]));
    }
    pthread_cond_broadcast(&s->news);
    pthread_mutex_unlock(&s->lock);
}

static uint16_t number_of(void *arg, struct hf_slice name)
{
    char text[16];
    (void)arg;
    snprintf(text, sizeof(text), "%.*s", HF_SLICE_FMT(name));
    assert_int_equal(text[0], 's');
    return (uint16_t)atoi(text + 1);
}

static void name_of(void *arg, uint16_t server, char *buf, size_t room)
{
    (void)arg;
    snprintf(buf, room, "s%u", server);
}

static void told_log(void *arg, const char *text)
{
    struct server *s = arg;
    pthread_mutex_lock(&s->lock);
    (void)add_text(s->log, sizeof(s->log), strlen(s->log), "%s; ", text);
    pthread_mutex_unlock(&s->lock);
}

static struct server *open_server(unsigned number, size_t n_seen,
                                  const struct hf_sip_store_conf *more)
{
    static const struct hf_sip_store_events events = {.result = told_result,
                                                      .feed = told_feed,
                                                      .server = number_of,
                                                      .server_name = name_of,
                                                      .log = told_log};
    struct server *s = hf_alloc(sizeof(*s));
    s->number = number;
    s->n_seen = n_seen;
    s->seen = hf_alloc_array(n_seen, sizeof(*s->seen));
    pthread_mutexattr_t attr; /* AWAY for want of room is told within submit() */
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&s->lock, &attr);
    pthread_cond_init(&s->news, NULL);
    hf_map_init(&s->cache, 1);
    snprintf(s->name, sizeof(s->name), "s%u", number);
    struct hf_sip_store_conf conf = more ? *more : (struct hf_sip_store_conf){0};
    conf.uri = uri;
    conf.self = s->name;
    struct hf_err err;
    assert_int_equal(hf_sip_store_open(&conf, &events, s, &err, &s->store), 0);
    return s;
}

static void close_server(struct server *s)
{
    hf_sip_store_close(s->store);
    size_t pos = 0;
    for (void *c; (c = hf_map_next(&s->cache, &pos)) != NULL;) {
        hf_free(c);
    }
    hf_map_fini(&s->cache);
    hf_free(s->seen);
    hf_free(s);
}

/* The op's result, which is s->seen[op->cookie]. */
static struct seen *wait_for(struct server *s, uint64_t cookie)
{
    pthread_mutex_lock(&s->lock);
    WAIT_FOR(s, s->seen[cookie].there);
    pthread_mutex_unlock(&s->lock);
    return &s->seen[cookie];
}

static struct seen *do_op(struct server *s, struct hf_sip_op op)
{
    op.cookie = 1;
    s->seen[1].there = false;
    memset(s->seen[1].text, 0, sizeof(s->seen[1].text));
    hf_sip_store_submit(s->store, 7, &op);
    return wait_for(s, 1);
}

static void wait_change(struct server *s, uint64_t change)
{
    pthread_mutex_lock(&s->lock);
    WAIT_FOR(s, s->there && s->caught_up && s->change >= change);
    pthread_mutex_unlock(&s->lock);
}

static struct hf_slice z(const char *text)
{
    return hf_slice_str(text);
}

static struct seen *assign(struct server *s, const char *aor, uint16_t to)
{
    return do_op(s, (struct hf_sip_op){.kind = HF_SIP_OP_ASSIGN,
                                       .aor = z(aor),
                                       .row = {.home = to, .current = to, .epoch = 1}});
}

static struct seen *read_aor(struct server *s, const char *aor)
{
    return do_op(s, (struct hf_sip_op){.kind = HF_SIP_OP_READ, .aor = z(aor)});
}

static struct hf_sip_bind binding(const char *key, const char *contact, uint32_t cseq)
{
    return (struct hf_sip_bind){.key = z(key),
                                .b = {.uri = z(contact),
                                      .params = z(";q=0.5"),
                                      .call_id = z("id@" WIRE),
                                      .path = z("<sip:edge;lr>"),
                                      .cseq = cseq,
                                      .life_s = 3600,
                                      .left_s = 3000}};
}

static struct seen *bind_one(struct server *s, const char *aor, uint64_t epoch,
                             const struct hf_sip_bind *b, size_t n)
{
    return do_op(s, (struct hf_sip_op){.kind = HF_SIP_OP_BIND,
                                       .wait = true,
                                       .aor = z(aor),
                                       .epoch = epoch,
                                       .bind = b,
                                       .n_binds = n});
}

static struct seen *load(struct server *s, const char *aor)
{
    return do_op(s, (struct hf_sip_op){.kind = HF_SIP_OP_LOAD, .aor = z(aor)});
}

static void is_row(const struct seen *x, uint16_t home, uint16_t current, uint64_t epoch)
{
    assert_true(x->r.have_row);
    assert_int_equal(x->r.row.home, home);
    assert_int_equal(x->r.row.current, current);
    assert_int_equal(x->r.row.epoch, epoch);
}

/* ---- the leader ---- */

static struct hf_err err;

static struct hf_sip_lead *open_lead(void)
{
    struct hf_sip_lead *l;
    assert_int_equal(hf_sip_lead_open(uri, &err, &l), 0);
    return l;
}

#define OK(call)                                                                                   \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        if (rc_) {                                                                                 \
            fail_msg("%s: %d %s", #call, rc_, err.text);                                           \
        }                                                                                          \
    } while (0)

static struct hf_sip_fleet *make_fleet(void)
{
    struct hf_sip_fleet *f;
    assert_int_equal(hf_sip_fleet_create(&f), 0);
    for (unsigned i = 0; i < 8; i++) {
        char name[8];
        uint16_t n;
        snprintf(name, sizeof(name), "s%u", i);
        assert_int_equal(hf_sip_fleet_add(f, z(name), &n), 0);
        assert_int_equal(n, i);
    }
    return f;
}

static void sql(const char *text)
{
    struct hf_sip_sql *q;
    OK(hf_sip_sql_open(uri, &err, &q));
    assert_int_equal(hf_sip_sql_is_pg(q), is_pg);
    hf_sip_sql_wait(q, HF_S(DEADLINE_S));
    OK(hf_sip_sql_script(q, text, &err));
    hf_sip_sql_close(q);
}

static int take_number(void *arg, const struct hf_slice *column, size_t n)
{
    char text[32];
    assert_int_equal(n, 1);
    snprintf(text, sizeof(text), "%.*s", HF_SLICE_FMT(column[0]));
    *(int64_t *)arg = strtoll(text, NULL, 10);
    return 0;
}

static int64_t sql_number(const char *text)
{
    struct hf_sip_sql *q;
    int64_t n = -1;
    OK(hf_sip_sql_open(uri, &err, &q));
    assert_true(hf_sip_sql_run(q, text, NULL, 0, take_number, &n, &err) >= 0);
    assert_false(hf_sip_sql_broken(q));
    hf_sip_sql_close(q);
    return n;
}

/* ---- set up ---- */

static int empty(void **state)
{
    (void)state;
    if (is_pg) {
        sql("DROP TABLE IF EXISTS leader, assignment, gone, users, binding, kept");
    } else {
        static unsigned count;
        snprintf(uri, sizeof(uri), "sqlite:%s/%u.db", dir, count++);
    }
    OK(hf_sip_store_init(uri, &err));
    return 0;
}

/* ---- tests ---- */

static void test_schema(void **state)
{
    (void)state;
    OK(hf_sip_store_init(uri, &err)); /* again: nothing happens */
    assert_int_equal(sql_number("SELECT count(*) FROM leader"), 1);
    assert_int_equal(sql_number("SELECT version FROM leader"), HF_SIP_STORE_SCHEMA);
    sql("UPDATE leader SET version = 99");
    assert_int_equal(hf_sip_store_init(uri, &err), -HF_EVERSION);
    sql("UPDATE leader SET version = 1");
    assert_int_equal(hf_sip_sql_check("sqlite:relative", &err), -HF_EVALUE);
    assert_int_equal(hf_sip_sql_check("mysql://x:secret@y", &err), -HF_EVALUE);
    assert_null(strstr(err.text, "secret"));
    assert_int_equal(hf_sip_sql_check("postgresql://host/db", &err), 0);
    assert_int_equal(hf_sip_sql_check("host=a dbname=b", &err), 0);
    assert_int_equal(hf_sip_sql_check("nonsense=a", &err), -HF_EVALUE);
    struct hf_sip_store *s;
    struct hf_sip_store_conf conf = {.uri = uri, .self = "s0", .group_commit_us = 10001};
    assert_int_equal(hf_sip_store_open(&conf, &(struct hf_sip_store_events){0}, NULL, &err, &s),
                     -HF_EVALUE);
    hf_sip_store_close(NULL);
    hf_sip_lead_close(NULL);
    hf_sip_sql_close(NULL);
}

static void test_rows(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    struct seen *x = read_aor(s, "sip:ann@x");
    assert_int_equal(x->r.done, HF_SIP_OP_NONE);
    assert_false(x->r.have_row);
    assert_false(x->r.user_known);
    is_row(assign(s, "sip:ann@x", 3), 3, 3, 1);
    is_row(assign(s, "sip:ann@x", 4), 3, 3, 1); /* who comes second gets what is there */
    assert_int_equal(s->seen[1].r.done, HF_SIP_OP_DONE);
    is_row(read_aor(s, "sip:ann@x"), 3, 3, 1);
    hf_assert_slice_str(z(s->seen[1].name), "sip:ann@x");

    /* assert: inserts, raises, never lowers */
    struct hf_sip_op op = {
        .kind = HF_SIP_OP_ASSERT,
        .aor = z("sip:bob@x"),
        .row = {
            .home = 1, .current = 0, .epoch = 7, .pinned = true, .agent = 2, .agent_id = 65535}};
    is_row(do_op(s, op), 1, 0, 7);
    assert_true(s->seen[1].r.row.pinned);
    assert_int_equal(s->seen[1].r.row.agent, 2);
    assert_int_equal(s->seen[1].r.row.agent_id, 65535);
    op.row.epoch = 9;
    op.row.current = 2;
    is_row(do_op(s, op), 1, 2, 9);
    op.row.epoch = 8;
    op.row.current = 3;
    is_row(do_op(s, op), 1, 2, 9);
    assert_int_equal(s->seen[1].r.done, HF_SIP_OP_DONE);

    /* learn: only of ours */
    (void)assign(s, "sip:cat@x", 0);
    op = (struct hf_sip_op){
        .kind = HF_SIP_OP_LEARN, .aor = z("sip:cat@x"), .row = {.agent = 3, .agent_id = 0x1234}};
    assert_int_equal(do_op(s, op)->r.done, HF_SIP_OP_DONE);
    assert_int_equal(read_aor(s, "sip:cat@x")->r.row.agent, 3);
    assert_int_equal(s->seen[1].r.row.agent_id, 0x1234);
    op.aor = z("sip:ann@x");
    (void)do_op(s, op);
    assert_int_equal(read_aor(s, "sip:ann@x")->r.row.agent, 0);

    /* what PostgreSQL would not take, and what nobody could have stored */
    assert_int_equal(read_aor(s, "sip:\xff@x")->r.done, HF_SIP_OP_NONE);
    op = (struct hf_sip_op){.kind = HF_SIP_OP_READ, .aor = hf_slice("a\0b", 3)};
    assert_int_equal(do_op(s, op)->r.done, HF_SIP_OP_NONE);
    op = (struct hf_sip_op){.kind = HF_SIP_OP_SECRET, .user = z(""), .realm = z("r")};
    assert_int_equal(do_op(s, op)->r.done, HF_SIP_OP_NONE);
    close_server(s);
}

static void test_bindings(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    struct hf_sip_bind b[3] = {binding("k1", "sip:ann@h1", 1), binding("k2", "sip:ann@h2", 2)};
    b[1].b.outbound = true;
    b[1].b.path = z("");
    struct seen *x = bind_one(s, "sip:ann@x", 1, b, 2);
    assert_int_equal(x->r.done, HF_SIP_OP_NONE); /* no row */
    (void)assign(s, "sip:ann@x", 0);
    assert_int_equal(bind_one(s, "sip:ann@x", 1, b, 2)->r.done, HF_SIP_OP_DONE);
    x = load(s, "sip:ann@x");
    assert_int_equal(x->r.n_bindings, 2);
    assert_non_null(strstr(x->text, "sip:ann@h1 ;q=0.5 id@host <sip:edge;lr> 1 3600 3000 0\n"));
    assert_non_null(strstr(x->text, "sip:ann@h2 ;q=0.5 id@host  2 3600 3000 1\n"));

    /* another epoch: nothing is written, the row is told */
    struct hf_sip_bind late = binding("k1", "sip:late", 9);
    x = bind_one(s, "sip:ann@x", 2, &late, 1);
    assert_int_equal(x->r.done, HF_SIP_OP_STALE);
    is_row(x, 0, 0, 1);
    assert_null(strstr(load(s, "sip:ann@x")->text, "late"));

    /* replaced and erased, in one op; the later word of one key counts */
    b[0] = binding("k1", "sip:first", 3);
    b[1] = (struct hf_sip_bind){.erase = true, .key = z("k2")};
    b[2] = binding("k1", "sip:second", 4);
    assert_int_equal(bind_one(s, "sip:ann@x", 1, b, 3)->r.done, HF_SIP_OP_DONE);
    x = load(s, "sip:ann@x");
    assert_string_equal(x->text, "sip:second ;q=0.5 id@host <sip:edge;lr> 4 3600 3000 0\n");
    b[0] = (struct hf_sip_bind){.erase = true, .key = z("k1")};
    b[1] = binding("k1", "sip:third", 5);
    (void)bind_one(s, "sip:ann@x", 1, b, 2);
    assert_non_null(strstr(load(s, "sip:ann@x")->text, "sip:third"));
    b[0] = binding("k1", "sip:fourth", 6);
    b[1] = (struct hf_sip_bind){.erase = true, .key = z("k1")};
    (void)bind_one(s, "sip:ann@x", 1, b, 2);
    assert_int_equal(load(s, "sip:ann@x")->r.n_bindings, 0);

    /* any bytes, any length; what has expired is not loaded */
    char key[3000];
    memset(key, 0xfe, sizeof(key));
    b[0] = binding("", "sip:bytes", 1);
    b[0].key = hf_slice(key, sizeof(key));
    b[0].b.params = z("\xff\xfe';--");
    b[1] = binding("over", "sip:over", 1);
    b[1].b.left_s = 0;
    assert_int_equal(bind_one(s, "sip:ann@x", 1, b, 2)->r.done, HF_SIP_OP_DONE);
    x = load(s, "sip:ann@x");
    assert_int_equal(x->r.n_bindings, 1);
    assert_non_null(strstr(x->text, "sip:bytes \xff\xfe';-- id"));
    close_server(s);
}

static struct hf_sip_op keep(const char *aor, uint64_t epoch, const char *key, const char *data)
{
    return (struct hf_sip_op){.kind = HF_SIP_OP_KEEP,
                              .aor = z(aor),
                              .epoch = epoch,
                              .kept = {.what = 's', .key = z(key), .data = z(data), .left_s = 600}};
}

static void test_kept(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    assert_int_equal(do_op(s, keep("sip:ann@x", 1, "k", "d"))->r.done, HF_SIP_OP_NONE);
    (void)assign(s, "sip:ann@x", 0);
    assert_int_equal(do_op(s, keep("sip:ann@x", 2, "k", "d"))->r.done, HF_SIP_OP_STALE);
    assert_int_equal(do_op(s, keep("sip:ann@x", 1, "k", "d1"))->r.done, HF_SIP_OP_DONE);
    assert_int_equal(do_op(s, keep("sip:ann@x", 1, "k", "d2"))->r.done, HF_SIP_OP_DONE);
    struct hf_sip_op op = keep("sip:ann@x", 1, "k", "publication");
    op.kept.what = 'p';
    (void)do_op(s, op);
    struct seen *x = load(s, "sip:ann@x");
    assert_int_equal(x->r.n_kept, 2);
    assert_non_null(strstr(x->text, "s k=d2 600\n"));
    assert_non_null(strstr(x->text, "p k=publication 600\n"));
    op.kind = HF_SIP_OP_DROP;
    assert_int_equal(do_op(s, op)->r.done, HF_SIP_OP_DONE);
    assert_string_equal(load(s, "sip:ann@x")->text, "s k=d2 600\n");
    close_server(s);
}

/* What is given at once is done in order: each LOAD sees what was before it, and only that. */
static void test_order(void **state)
{
    (void)state;
    enum { ROUNDS = 40, AORS = 8 };
    struct server *s = open_server(0, 3 * ROUNDS * AORS + 2, NULL);
    char aor[AORS][16], data[ROUNDS][16];
    for (unsigned i = 0; i < AORS; i++) {
        snprintf(aor[i], sizeof(aor[i]), "sip:%u@x", i);
        (void)assign(s, aor[i], 0);
    }
    uint64_t cookie = 2;
    for (unsigned r = 0; r < ROUNDS; r++) {
        snprintf(data[r], sizeof(data[r]), "d%u", r);
        for (unsigned i = 0; i < AORS; i++) {
            struct hf_sip_bind b = binding("k", data[r], r);
            struct hf_sip_op op = {.kind = HF_SIP_OP_BIND,
                                   .wait = r % 3 != 0,
                                   .cookie = cookie++,
                                   .aor = z(aor[i]),
                                   .epoch = 1,
                                   .bind = &b,
                                   .n_binds = 1};
            hf_sip_store_submit(s->store, 7, &op);
            op = keep(aor[i], 1, "k", data[r]);
            op.cookie = cookie++;
            hf_sip_store_submit(s->store, 7, &op);
            op = (struct hf_sip_op){.kind = HF_SIP_OP_LOAD, .aor = z(aor[i]), .cookie = cookie++};
            hf_sip_store_submit(s->store, 7, &op);
        }
    }
    for (uint64_t c = 2; c < cookie; c++) {
        struct seen *x = wait_for(s, c);
        assert_int_equal(x->r.done, HF_SIP_OP_DONE);
        if (x->r.kind == HF_SIP_OP_LOAD) {
            char want[200];
            const char *d = data[(c - 2) / (3 * AORS)];
            snprintf(want, sizeof(want),
                     "%s ;q=0.5 id@host <sip:edge;lr> %s 3600 3000 0\ns k=%s 600\n", d, d + 1, d);
            assert_string_equal(x->text, want);
        }
    }
    close_server(s);
}

/* Nobody waits: it is written all the same, also by closing. */
static void test_lazy_and_close(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    (void)assign(s, "sip:ann@x", 0);
    struct hf_sip_bind b = binding("k", "sip:lazy", 1);
    struct hf_sip_op op = {
        .kind = HF_SIP_OP_BIND, .aor = z("sip:ann@x"), .epoch = 1, .bind = &b, .n_binds = 1};
    hf_sip_store_submit(s->store, 7, &op);
    close_server(s);
    s = open_server(0, 2, NULL);
    assert_non_null(strstr(load(s, "sip:ann@x")->text, "sip:lazy"));
    assert_int_equal(s->n_results, 1);
    close_server(s);
}

/* While the first one's result can't be told it waits, and there is room for no other. */
static void test_queue_full(void **state)
{
    (void)state;
    struct server *s = open_server(0, 3, &(struct hf_sip_store_conf){.queue_max = 1});
    struct hf_sip_op op = {.kind = HF_SIP_OP_READ, .aor = z("sip:x"), .cookie = 1};
    pthread_mutex_lock(&s->lock);
    hf_sip_store_submit(s->store, 7, &op);
    struct hf_sip_bind gone = {.erase = true, .key = z("k")};
    op = (struct hf_sip_op){
        .kind = HF_SIP_OP_BIND, .aor = z("sip:x"), .cookie = 2, .bind = &gone, .n_binds = 1};
    hf_sip_store_submit(s->store, 7, &op);
    assert_true(s->seen[2].there);
    assert_int_equal(s->seen[2].r.done, HF_SIP_OP_AWAY);
    assert_string_equal(s->seen[2].text, "not deleted k\n"); /* nobody else knows of it */
    assert_false(s->seen[1].there);
    pthread_mutex_unlock(&s->lock);
    assert_int_equal(wait_for(s, 1)->r.done, HF_SIP_OP_NONE);
    close_server(s);
}

static void test_users(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    struct hf_sip_lead *l = open_lead();
    OK(hf_sip_lead_user(l, "ann", "r", z("sip:ann@x"), "old", &err));
    OK(hf_sip_lead_user(l, "ann", "r", z("sip:ann@x"), "secret", &err));
    assert_int_equal(hf_sip_lead_user(l, "", "r", z("sip:ann@x"), "p", &err), -HF_EVALUE);
    struct hf_sip_op op = {.kind = HF_SIP_OP_SECRET, .user = z("ann"), .realm = z("r")};
    struct seen *x = do_op(s, op);
    assert_int_equal(x->r.done, HF_SIP_OP_DONE);
    assert_string_equal(x->name, "sip:ann@x");
    assert_int_equal(x->r.algorithms, 7);
    uint8_t want[HF_SIP_HASH_MAX];
    for (int a = 0; a < HF_SIP_ALGORITHM_COUNT_; a++) {
        enum hf_sip_algorithm algorithm = (enum hf_sip_algorithm)a;
        assert_int_equal(hf_sip_secret(algorithm, z("ann"), z("r"), z("secret"), want), 0);
        assert_memory_equal(x->r.secret[a], want, hf_sip_algorithm_len(algorithm));
    }
    op.user = z("nobody");
    assert_int_equal(do_op(s, op)->r.done, HF_SIP_OP_NONE);
    assert_int_equal(sql_number("SELECT count(*) FROM users WHERE CAST(users.sha256 AS text) LIKE"
                                " '%secret%'"),
                     0);
    assert_true(read_aor(s, "sip:ann@x")->r.user_known);

    /* deleted: told to all, and not to be asserted again; a new one begins above */
    is_row(assign(s, "sip:ann@x", 0), 0, 0, 1);
    struct hf_sip_bind b = binding("k", "sip:ann@h", 1);
    assert_int_equal(bind_one(s, "sip:ann@x", 1, &b, 1)->r.done, HF_SIP_OP_DONE);
    OK(hf_sip_lead_user(l, "ann2", "r", z("sip:ann@x"), "secret", &err));
    OK(hf_sip_lead_user_delete(l, "ann2", "r", &err));
    is_row(read_aor(s, "sip:ann@x"), 0, 0, 1); /* ann has it still */
    OK(hf_sip_lead_user_delete(l, "ann", "r", &err));
    assert_int_equal(hf_sip_lead_user_delete(l, "ann", "r", &err), -HF_ENOTFOUND);
    pthread_mutex_lock(&s->lock);
    WAIT_FOR(s, strcmp(s->gone, "sip:ann@x ") == 0);
    pthread_mutex_unlock(&s->lock);
    assert_false(read_aor(s, "sip:ann@x")->r.user_known);
    assert_int_equal(load(s, "sip:ann@x")->r.n_bindings, 0);
    op = (struct hf_sip_op){.kind = HF_SIP_OP_ASSERT, .aor = z("sip:ann@x"), .row = {.epoch = 1}};
    assert_int_equal(do_op(s, op)->r.done, HF_SIP_OP_NONE);
    is_row(assign(s, "sip:ann@x", 0), 0, 0, 2);
    hf_sip_lead_close(l);
    close_server(s);
}

static void test_moves(void **state)
{
    (void)state;
    enum { N = 300 };
    struct server *s = open_server(0, 2, NULL);
    struct hf_sip_lead *l = open_lead();
    struct hf_sip_fleet *f = make_fleet();
    char aor[16];
    for (unsigned i = 0; i < N; i++) {
        snprintf(aor, sizeof(aor), "sip:%u@x", i);
        (void)assign(s, aor, 1);
    }
    uint64_t n, pinned, reign, change;
    OK(hf_sip_lead_reign(l, 5, &err));
    for (unsigned i = 0; i < 10; i++) { /* pinned ones */
        snprintf(aor, sizeof(aor), "sip:%u@x", i);
        OK(hf_sip_lead_assign(l, z(aor), NULL, 1, &err));
    }
    OK(hf_sip_lead_counts(l, "s1", &n, &pinned, &err));
    assert_int_equal(n, N);
    assert_int_equal(pinned, 10);

    /* all of a dead one's, by buckets, in one transaction */
    OK(hf_sip_lead_read(l, &reign, &change, &err));
    struct hf_sip_move dead[] = {
        {.from = 1, .to = 2, .who = HF_SIP_WHO_ALL, .bucket_first = 0, .bucket_last = 32767},
        {.from = 1, .to = 3, .who = HF_SIP_WHO_ALL, .bucket_first = 32768, .bucket_last = 65535}};
    OK(hf_sip_lead_moves(l, f, dead, 2, &err, &n));
    assert_int_equal(n, N);
    uint64_t after;
    OK(hf_sip_lead_read(l, &reign, &after, &err));
    assert_int_equal(reign, 5);
    assert_int_equal(after, change + 1);
    wait_change(s, after);
    for (unsigned i = 0; i < N; i++) {
        snprintf(aor, sizeof(aor), "sip:%u@x", i);
        const struct cached *c = hf_map_get(&s->cache, z(aor));
        assert_int_equal(c->row.home, 1);
        assert_int_equal(c->row.current, hf_sip_bucket(z(aor)) < 32768 ? 2 : 3);
        assert_int_equal(c->row.epoch, i < 10 ? 3 : 2);
    }

    /* some: back home, pinned ones back home, loose ones for good */
    struct hf_sip_move m = {
        .from = 2, .to = 1, .who = HF_SIP_WHO_HOMING, .reason = HF_SIP_MOVE_BALANCE, .n = 20};
    OK(hf_sip_lead_moves(l, f, &m, 1, &err, &n));
    assert_int_equal(n, 20);
    m = (struct hf_sip_move){
        .from = 3, .to = 1, .who = HF_SIP_WHO_PINNED, .reason = HF_SIP_MOVE_PINNED, .n = 20};
    OK(hf_sip_lead_moves(l, f, &m, 1, &err, &n));
    OK(hf_sip_lead_counts(l, "s1", &reign, &pinned, &err));
    assert_int_equal(pinned, n);
    assert_int_equal(reign, 20 + n);
    m = (struct hf_sip_move){
        .from = 3, .to = 4, .who = HF_SIP_WHO_LOOSE, .reason = HF_SIP_MOVE_BALANCE, .n = 15};
    OK(hf_sip_lead_moves(l, f, &m, 1, &err, &n));
    assert_int_equal(sql_number("SELECT count(*) FROM assignment WHERE home = 's4'"
                                " AND current = 's4' AND NOT pinned"),
                     15);
    m.reason = HF_SIP_MOVE_OVERLOAD;
    m.to = 5;
    OK(hf_sip_lead_moves(l, f, &m, 1, &err, &n));
    assert_int_equal(
        sql_number("SELECT count(*) FROM assignment WHERE home = 's1' AND current = 's5'"), 15);
    m = (struct hf_sip_move){
        .from = 2, .to = 6, .who = HF_SIP_WHO_ANY, .reason = HF_SIP_MOVE_DRAIN, .n = 1000};
    OK(hf_sip_lead_moves(l, f, &m, 1, &err, &n));
    OK(hf_sip_lead_counts(l, "s2", &n, &pinned, &err));
    assert_int_equal(n, 0);
    hf_sip_fleet_destroy(f);
    hf_sip_lead_close(l);
    close_server(s);
}

static void count_astray(void *arg, struct hf_slice current, struct hf_slice home, uint64_t loose,
                         uint64_t pinned)
{
    hf_assert_slice_str(current, "s2");
    hf_assert_slice_str(home, "s1");
    *(uint64_t *)arg = 100 * loose + pinned;
}

static void test_operator(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    struct hf_sip_lead *l = open_lead();
    OK(hf_sip_lead_assign(l, z("sip:ann@x"), "s3", -1, &err));
    is_row(read_aor(s, "sip:ann@x"), 3, 3, 1);
    assert_false(s->seen[1].r.row.pinned);
    OK(hf_sip_lead_assign(l, z("sip:ann@x"), "s4", 1, &err));
    is_row(read_aor(s, "sip:ann@x"), 4, 4, 2);
    assert_true(s->seen[1].r.row.pinned);
    OK(hf_sip_lead_assign(l, z("sip:ann@x"), "s5", -1, &err));
    is_row(read_aor(s, "sip:ann@x"), 5, 5, 3);
    assert_true(s->seen[1].r.row.pinned);
    OK(hf_sip_lead_assign(l, z("sip:ann@x"), NULL, 0, &err));
    is_row(read_aor(s, "sip:ann@x"), 5, 5, 4);
    assert_false(s->seen[1].r.row.pinned);
    assert_int_equal(hf_sip_lead_assign(l, z("sip:bob@x"), NULL, 1, &err), -HF_ENOTFOUND);
    assert_int_equal(hf_sip_lead_assign(l, z("sip:bob@x"), "not a name", 1, &err), -HF_ENAME);
    assert_int_equal(hf_sip_lead_assign(l, z(""), "s1", 1, &err), -HF_EVALUE);

    sql("UPDATE assignment SET home = 's1', current = 's2'");
    uint64_t astray = 0;
    OK(hf_sip_lead_astray(l, count_astray, &astray, &err));
    assert_int_equal(astray, 100);

    /* what nobody deleted */
    struct hf_sip_bind b = binding("k", "sip:ann@h", 1);
    (void)bind_one(s, "sip:ann@x", 4, &b, 1);
    uint64_t n;
    OK(hf_sip_lead_prune(l, &err, &n));
    assert_int_equal(n, 0);
    sql("UPDATE binding SET expires = expires - 10000");
    OK(hf_sip_lead_prune(l, &err, &n));
    assert_int_equal(n, 1);
    hf_sip_lead_close(l);
    close_server(s);
}

static void test_former_leader(void **state)
{
    (void)state;
    struct hf_sip_lead *old = open_lead(), *new = open_lead();
    struct hf_sip_fleet *f = make_fleet();
    struct hf_sip_move m = {.from = 0, .to = 1, .who = HF_SIP_WHO_ALL, .bucket_last = 65535};
    uint64_t n = 42;
    OK(hf_sip_lead_assign(old, z("sip:ann@x"), "s0", -1, &err));
    assert_int_equal(hf_sip_lead_reign(old, 0, &err), -HF_EVALUE);
    OK(hf_sip_lead_reign(old, 1, &err));
    OK(hf_sip_lead_reign(new, 2, &err));
    assert_int_equal(hf_sip_lead_moves(old, f, &m, 1, &err, &n), -HF_ECLOSED);
    assert_int_equal(n, 42);
    assert_int_equal(hf_sip_lead_assign(old, z("sip:ann@x"), "s7", 1, &err), -HF_ECLOSED);
    assert_int_equal(hf_sip_lead_import(old, z("aor,home\nsip:b,s1\n"), &err, &n), -HF_ECLOSED);
    assert_int_equal(hf_sip_lead_reign(old, 1, &err), -HF_ECLOSED);
    assert_int_equal(sql_number("SELECT count(*) FROM assignment WHERE current = 's0'"), 1);
    OK(hf_sip_lead_moves(new, f, &m, 1, &err, &n));
    assert_int_equal(n, 1);
    OK(hf_sip_lead_reign(old, 3, &err)); /* it was elected again */
    assert_int_equal(hf_sip_lead_moves(new, f, &m, 1, &err, &n), -HF_ECLOSED);
    hf_sip_fleet_destroy(f);
    hf_sip_lead_close(old);
    hf_sip_lead_close(new);
}

static void test_csv(void **state)
{
    (void)state;
    struct hf_sip_lead *l = open_lead();
    struct hf_buf a, b;
    uint64_t n;
    hf_buf_init(&a, 1u << 20);
    hf_buf_init(&b, 1u << 20);
    hf_buf_str(&a, "aor,home,current,epoch,pinned\n");
    for (unsigned i = 0; i < 2500; i++) { /* in order of AoR */
        hf_buf_printf(&a, "sip:u%04u\\%%22@x,s%u,s%u,%u,%s\n", i, i % 3, i % 4, i % 7 + 1,
                      i % 5 ? "no" : "yes");
    }
    hf_buf_str(&a, "\"sip:z,\"\"quoted\"\"@x\",s1,s1,9000000000000000000,no\n");
    OK(hf_sip_lead_import(l, hf_buf_slice(&a), &err, &n));
    assert_int_equal(n, 2501);
    OK(hf_sip_lead_export(l, &b, &err));
    assert_true(hf_slice_eq(hf_buf_slice(&a), hf_buf_slice(&b)));
    assert_int_equal(sql_number("SELECT count(*) FROM assignment WHERE change > 1"), 2501);

    /* the same again changes nothing; without epochs, and with another home, it is one more */
    OK(hf_sip_lead_import(l, hf_buf_slice(&a), &err, &n));
    assert_int_equal(n, 0);
    OK(hf_sip_lead_import(l, z("home,aor\r\ns6,sip:u0006\\%22@x\r\n\r\ns6,sip:new@x"), &err, &n));
    assert_int_equal(n, 2);
    assert_int_equal(sql_number("SELECT epoch FROM assignment WHERE aor LIKE 'sip:u0006%'"), 8);
    assert_int_equal(sql_number("SELECT epoch FROM assignment WHERE aor = 'sip:new@x'"), 1);

    /* all or nothing, and the line is told */
    assert_int_equal(
        hf_sip_lead_import(l, z("aor,home\nsip:p@x,s1\nsip:q@x,s1\nsip:p@x,s2\n"), &err, &n),
        -HF_EVALUE);
    assert_non_null(strstr(err.text, "line 4"));
    assert_int_equal(hf_sip_lead_import(l, z("aor,home\nsip:p@x,s1\nsip:q@x,-\n"), &err, &n),
                     -HF_ENAME);
    assert_non_null(strstr(err.text, "line 3"));
    assert_int_equal(sql_number("SELECT count(*) FROM assignment WHERE aor = 'sip:p@x'"), 0);
    hf_buf_fini(&b);
    hf_buf_init(&b, 100);
    assert_int_equal(hf_sip_lead_export(l, &b, &err), -HF_EFULL);
    hf_buf_fini(&a);
    hf_buf_fini(&b);
    hf_sip_lead_close(l);
}

/* ---- together ---- */

#define RACE_AORS 12

/* Binds under the epochs that the mover told, or that it is about to make; the life of a binding is
 * its number, its CSeq the epoch. Odd epochs are of one server, even ones of the other. */
struct race {
    struct server *s[2];
    struct hf_sip_sql *look;
    uint64_t epoch[RACE_AORS]; /* atomic: as last told */
    unsigned moves;            /* atomic: to be made still */
};

static void race_aor(unsigned i, char aor[16])
{
    snprintf(aor, 16, "sip:%u@x", i % 1000000);
}

/* epoch * 1000000 + number of what is stored */
static int64_t race_look(struct race *r, unsigned i)
{
    char aor[16];
    race_aor(i, aor);
    int64_t n = 0;
    struct hf_sip_sql_value v = HF_SIP_SQL_Z(aor);
    assert_true(hf_sip_sql_run(r->look, "SELECT cseq * 1000000 + life FROM binding WHERE aor = $1",
                               &v, 1, take_number, &n, NULL) >= 0);
    return n;
}

static void *race_move(void *arg)
{
    struct race *r = arg;
    struct hf_sip_lead *l = open_lead();
    struct hf_prng g;
    hf_prng_init(&g, 11);
    for (; __atomic_load_n(&r->moves, __ATOMIC_SEQ_CST); __atomic_fetch_sub(&r->moves, 1, 5)) {
        unsigned i = (unsigned)hf_prng_below(&g, RACE_AORS);
        char aor[16];
        race_aor(i, aor);
        uint64_t next = r->epoch[i] + 1;
        OK(hf_sip_lead_assign(l, z(aor), next % 2 ? "s0" : "s1", -1, &err));
        int64_t was = race_look(r, i);
        if (hf_prng_below(&g, 3)) {
            __atomic_store_n(&r->epoch[i], next, __ATOMIC_SEQ_CST);
        }
        usleep((useconds_t)hf_prng_below(&g, 3000));
        int64_t is = race_look(r, i);
        if (is != was && is / 1000000 != (int64_t)next) {
            fail_msg("moved to epoch %llu, and then %lld was stored in place of %lld",
                     (unsigned long long)next, (long long)is, (long long)was);
        }
        __atomic_store_n(&r->epoch[i], next, __ATOMIC_SEQ_CST);
    }
    hf_sip_lead_close(l);
    return NULL;
}

static void test_epoch_race(void **state)
{
    (void)state;
    enum { OPS_MAX = 60000, AHEAD = 40 };
    unsigned moves = is_pg ? 500 : 300;
    struct race r = {.moves = moves};
    uint64_t *epoch = hf_alloc_array(OPS_MAX, sizeof(*epoch));
    uint8_t *which = hf_alloc_array(OPS_MAX, 1);
    struct hf_prng g;
    hf_prng_init(&g, 3);
    OK(hf_sip_sql_open(uri, &err, &r.look));
    for (unsigned i = 0; i < 2; i++) {
        r.s[i] = open_server(i, OPS_MAX, &(struct hf_sip_store_conf){.group_commit_us = 1000});
    }
    for (unsigned i = 0; i < RACE_AORS; i++) {
        char aor[16];
        race_aor(i, aor);
        (void)assign(r.s[0], aor, 0);
        r.epoch[i] = 1;
    }
    pthread_t mover;
    assert_int_equal(pthread_create(&mover, NULL, race_move, &r), 0);
    uint64_t n = 2;
    for (; n < OPS_MAX && __atomic_load_n(&r.moves, __ATOMIC_SEQ_CST); n++) {
        which[n] = (uint8_t)hf_prng_below(&g, RACE_AORS);
        epoch[n] =
            __atomic_load_n(&r.epoch[which[n]], __ATOMIC_SEQ_CST) + (hf_prng_below(&g, 4) == 0);
        char aor[16];
        race_aor(which[n], aor);
        struct hf_sip_bind b = binding("k", "sip:race", (uint32_t)epoch[n]);
        b.b.life_s = (uint32_t)n;
        struct server *s = r.s[epoch[n] % 2 ? 0 : 1];
        struct hf_sip_op op = {.kind = HF_SIP_OP_BIND,
                               .wait = true,
                               .cookie = n,
                               .aor = z(aor),
                               .epoch = epoch[n],
                               .bind = &b,
                               .n_binds = 1};
        hf_sip_store_submit(s->store, 7, &op);
        uint64_t back = n - AHEAD;
        if (n > AHEAD + 2) {
            (void)wait_for(r.s[epoch[back] % 2 ? 0 : 1], back);
        }
    }
    pthread_join(mover, NULL);
    unsigned done = 0, stale = 0;
    int64_t last[RACE_AORS] = {0};
    for (uint64_t c = 2; c < n; c++) {
        const struct seen *x = wait_for(r.s[epoch[c] % 2 ? 0 : 1], c);
        assert_int_not_equal(x->r.done, HF_SIP_OP_AWAY);
        if (x->r.done == HF_SIP_OP_STALE) {
            stale++;
            assert_true(x->r.have_row);
            assert_int_not_equal(x->r.row.epoch, epoch[c]);
        } else {
            done++;
            assert_int_equal(x->r.done, HF_SIP_OP_DONE);
            int64_t is = (int64_t)(epoch[c] * 1000000 + c);
            last[which[c]] = is > last[which[c]] ? is : last[which[c]];
        }
    }
    assert_true(n < OPS_MAX && done > 100 && stale > 100);
    for (unsigned i = 0; i < RACE_AORS; i++) {
        assert_int_equal(race_look(&r, i), last[i]);
    }
    print_message("# %u moves, %u BINDs done, %u stale\n", moves, done, stale);
    hf_sip_sql_close(r.look);
    hf_free(epoch);
    hf_free(which);
    close_server(r.s[0]);
    close_server(r.s[1]);
}

struct feed_mover {
    unsigned seed;
};

static void *move_many(void *arg)
{
    const struct feed_mover *m = arg;
    struct hf_sip_lead *l = open_lead();
    struct hf_sip_fleet *f = make_fleet();
    struct hf_prng g;
    struct hf_err why;
    hf_prng_init(&g, m->seed);
    for (unsigned i = 0; i < 150; i++) {
        char aor[16];
        uint64_t n;
        uint16_t first = (uint16_t)hf_prng_below(&g, 60000);
        struct hf_sip_move move = {.from = (uint16_t)hf_prng_below(&g, 3),
                                   .to = (uint16_t)hf_prng_below(&g, 3),
                                   .who = HF_SIP_WHO_ALL,
                                   .bucket_first = first,
                                   .bucket_last = (uint16_t)(first + 2000)};
        race_aor((unsigned)hf_prng_below(&g, 200), aor);
        int rc = i % 3 ? hf_sip_lead_moves(l, f, &move, 1, &why, &n)
                       : hf_sip_lead_assign(l, z(aor), "s2", -1, &why);
        if (rc && rc != -HF_ENOTREADY) { /* somebody cuts connections */
            fail_msg("%d %s", rc, why.text);
        }
    }
    hf_sip_fleet_destroy(f);
    hf_sip_lead_close(l);
    return NULL;
}

static int compare_row(void *arg, const struct hf_slice *column, size_t n)
{
    struct server *s = arg;
    (void)n;
    const struct cached *c = hf_map_get(&s->cache, column[0]);
    char text[24];
    if (!c) {
        fail_msg("%s does not have %.*s", s->name, HF_SLICE_FMT(column[0]));
        return 0;
    }
    snprintf(text, sizeof(text), "%.*s", HF_SLICE_FMT(column[2]));
    assert_int_equal(c->row.epoch, strtoull(text, NULL, 10));
    assert_int_equal(c->row.current, number_of(NULL, column[1]));
    return 0;
}

static void has_all_changed(struct server *s)
{
    struct hf_sip_sql *q;
    OK(hf_sip_sql_open(uri, &err, &q));
    pthread_mutex_lock(&s->lock);
    assert_true(hf_sip_sql_run(q, "SELECT aor, current, epoch FROM assignment WHERE change > 1",
                               NULL, 0, compare_row, s, &err) > 100);
    pthread_mutex_unlock(&s->lock);
    hf_sip_sql_close(q);
}

static void cut_connections(void)
{
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND application_name = 'holdfast-sip'");
}

static void test_feed_complete(void **state)
{
    (void)state;
    struct server *s[2] = {open_server(0, 2, NULL), open_server(1, 2, NULL)};
    for (unsigned i = 0; i < 200; i++) {
        char aor[16];
        race_aor(i, aor);
        (void)assign(s[0], aor, (uint16_t)(i % 3));
    }
    wait_change(s[1], 1);
    pthread_t thread[3];
    struct feed_mover m[3] = {{1}, {2}, {3}};
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, move_many, &m[i]), 0);
    }
    for (unsigned i = 0; i < 5; i++) {
        usleep(100000);
        hf_sip_store_reread(s[1]->store);
        if (is_pg) {
            cut_connections();
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(thread[i], NULL);
    }
    uint64_t change = (uint64_t)sql_number("SELECT change FROM leader");
    for (unsigned i = 0; i < 2; i++) {
        wait_change(s[i], change);
        has_all_changed(s[i]);
        assert_int_equal(s[i]->n_aways > 0, is_pg);
        close_server(s[i]);
    }
}

/* ---- the database goes and comes back ---- */

static int ask = -1, told = -1; /* for the server's death, see tests/system/test_sip_store.py */

static void outage(struct server *s)
{
    struct hf_sip_sql *q = NULL;
    pthread_mutex_lock(&s->lock);
    uint64_t aways = s->n_aways, ups = s->n_ups;
    pthread_mutex_unlock(&s->lock);
    if (!is_pg) { /* somebody does not let go of the file */
        OK(hf_sip_sql_open(uri, &err, &q));
        OK(hf_sip_sql_script(q, "BEGIN EXCLUSIVE", &err));
    } else if (ask >= 0) {
        char c = 'x';
        assert_int_equal(write(ask, &c, 1), 1);
        assert_int_equal(read(told, &c, 1), 1);
    } else {
        cut_connections();
    }
    pthread_mutex_lock(&s->lock);
    WAIT_FOR(s, s->n_aways > aways);
    pthread_mutex_unlock(&s->lock);
    hf_sip_sql_close(q); /* and so it is there again */
    pthread_mutex_lock(&s->lock);
    WAIT_FOR(s, s->n_ups > ups);
    pthread_mutex_unlock(&s->lock);
}

struct traffic {
    struct server *s;
    unsigned n_aors, stop; /* stop: atomic */
    uint64_t n;            /* ops submitted */
};

static void *bind_on(void *arg)
{
    struct traffic *t = arg;
    for (t->n = 2; t->n < t->s->n_seen && !__atomic_load_n(&t->stop, __ATOMIC_SEQ_CST); t->n++) {
        char aor[16];
        race_aor((unsigned)(t->n % t->n_aors), aor);
        struct hf_sip_bind b = binding("k", "sip:traffic", 1);
        b.b.life_s = (uint32_t)t->n;
        struct hf_sip_op op = {.kind = HF_SIP_OP_BIND,
                               .wait = true,
                               .cookie = t->n,
                               .aor = z(aor),
                               .epoch = 1,
                               .bind = &b,
                               .n_binds = 1};
        hf_sip_store_submit(t->s->store, 7, &op);
        usleep(500);
    }
    return NULL;
}

static void test_outage(void **state)
{
    (void)state;
    enum { AORS = 50, OUTAGES = 4 };
    struct server *s =
        open_server(0, 100000, &(struct hf_sip_store_conf){.timeout_ms = is_pg ? 5000 : 200});
    struct traffic t = {.s = s, .n_aors = AORS};
    for (unsigned i = 0; i < AORS; i++) {
        char aor[16];
        race_aor(i, aor);
        (void)assign(s, aor, 0);
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, bind_on, &t), 0);
    for (unsigned i = 0; i < OUTAGES; i++) {
        usleep(200000);
        outage(s);
    }
    usleep(200000);
    __atomic_store_n(&t.stop, 1, __ATOMIC_SEQ_CST);
    pthread_join(thread, NULL);
    uint64_t acked[AORS] = {0};
    unsigned away = 0, done = 0;
    for (uint64_t c = 2; c < t.n; c++) {
        const struct seen *x = wait_for(s, c);
        away += x->r.done == HF_SIP_OP_AWAY;
        done += x->r.done == HF_SIP_OP_DONE;
        if (x->r.done == HF_SIP_OP_DONE) {
            acked[c % AORS] = c;
        } else {
            assert_int_equal(x->r.done, HF_SIP_OP_AWAY);
        }
    }
    assert_true(away > 0 && done > 0);
    struct race r;
    OK(hf_sip_sql_open(uri, &err, &r.look));
    for (unsigned i = 0; i < AORS; i++) {
        uint64_t stored = (uint64_t)race_look(&r, i) - 1000000;
        assert_true(stored >= acked[i]); /* later ones may have been stored unanswered */
        assert_int_equal(stored % AORS, i);
    }
    hf_sip_sql_close(r.look);
    assert_true(s->n_aways >= OUTAGES);
    print_message("# %u outages: %u BINDs done, %u away\n", OUTAGES, done, away);
    close_server(s);
}

/* ---- many at once ---- */

static void test_gained_in_bulk(void **state)
{
    (void)state;
    enum { N = 10000 };
    struct server *old = open_server(0, N + 2, NULL), *new = open_server(1, N + 2, NULL);
    struct hf_sip_lead *l = open_lead();
    struct hf_sip_fleet *f = make_fleet();
    struct hf_buf csv;
    char aor[N][16];
    uint64_t n;
    hf_buf_init(&csv, 1u << 20);
    hf_buf_str(&csv, "aor,home\n");
    for (unsigned i = 0; i < N; i++) {
        race_aor(i, aor[i]);
        hf_buf_printf(&csv, "%s,s0\n", aor[i]);
    }
    OK(hf_sip_lead_import(l, hf_buf_slice(&csv), &err, &n));
    hf_buf_fini(&csv);
    wait_change(new, 2);
    for (unsigned i = 0; i < N; i++) {
        struct hf_sip_bind b = binding("k", aor[i], i);
        struct hf_sip_op op = {.kind = HF_SIP_OP_BIND,
                               .wait = true,
                               .cookie = i + 1,
                               .aor = z(aor[i]),
                               .epoch = 1,
                               .bind = &b,
                               .n_binds = 1};
        hf_sip_store_submit(old->store, 7, &op);
    }
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(wait_for(old, i + 1)->r.done, HF_SIP_OP_DONE);
    }
    hf_time t0 = hf_now();
    struct hf_sip_move m = {
        .from = 0, .to = 1, .who = HF_SIP_WHO_ALL, .bucket_last = 65535, .n = 50000};
    OK(hf_sip_lead_moves(l, f, &m, 1, &err, &n));
    assert_int_equal(n, N);
    hf_time t1 = hf_now();
    wait_change(new, 5); /* as many as expected are not moved in one transaction */
    assert_int_equal(new->cache.n, N);
    hf_time t2 = hf_now();
    for (unsigned i = 0; i < N; i++) {
        struct hf_sip_op op = {.kind = HF_SIP_OP_LOAD, .cookie = i + 1, .aor = z(aor[i])};
        hf_sip_store_submit(new->store, 7, &op);
    }
    for (unsigned i = 0; i < N; i++) {
        const struct seen *x = wait_for(new, i + 1);
        assert_int_equal(x->r.n_bindings, 1);
        assert_int_equal(strncmp(x->text, aor[i], strlen(aor[i])), 0);
        assert_string_equal(x->name, aor[i]);
    }
    hf_time t3 = hf_now();
    print_message("# %d AoRs: moved %.0f ms, told %.0f ms, loaded %.0f ms\n", N,
                  (double)(t1 - t0) / 1e6, (double)(t2 - t1) / 1e6, (double)(t3 - t2) / 1e6);
    hf_sip_fleet_destroy(f);
    hf_sip_lead_close(l);
    close_server(old);
    close_server(new);
}

/* ---- what is told ---- */

static void test_feed_at_start(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    wait_change(s, 1); /* nothing was ever changed: that is told, too */
    (void)assign(s, "sip:ours@x", 1);
    (void)assign(s, "sip:theirs@x", 0);
    close_server(s);
    s = open_server(1, 2, NULL);
    wait_change(s, 1);
    assert_int_equal(s->n_rows, 1);
    assert_non_null(hf_map_get(&s->cache, z("sip:ours@x")));
    hf_sip_store_reread(s->store);
    pthread_mutex_lock(&s->lock);
    WAIT_FOR(s, s->n_rows == 2);
    pthread_mutex_unlock(&s->lock);
    close_server(s);
}

static void test_learnt(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL), *other = open_server(1, 2, NULL);
    wait_change(s, 1);
    wait_change(other, 1);
    (void)assign(s, "sip:ann@x", 0);
    struct hf_sip_op op = {
        .kind = HF_SIP_OP_LEARN, .aor = z("sip:ann@x"), .row = {.agent = 2, .agent_id = 77}};
    (void)do_op(s, op);
    if (is_pg) { /* SQLite does not tell */
        pthread_mutex_lock(&other->lock);
        WAIT_FOR(other, other->n_rows == 1);
        pthread_mutex_unlock(&other->lock);
        const struct cached *c = hf_map_get(&other->cache, z("sip:ann@x"));
        assert_int_equal(c->row.agent, 2);
        assert_int_equal(c->row.agent_id, 77);
        (void)do_op(s, op); /* the same again: nothing to tell */
        op.row.agent = 3;
        (void)do_op(s, op);
        pthread_mutex_lock(&other->lock);
        WAIT_FOR(other, other->n_rows == 2);
        pthread_mutex_unlock(&other->lock);
        assert_int_equal(c->row.agent, 3);
    }
    assert_int_equal(read_aor(other, "sip:ann@x")->r.row.agent_id, 77);
    assert_int_equal(s->n_rows, 0); /* not to who learnt it */
    close_server(s);
    close_server(other);
}

static uint64_t rows_told(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t n = s->n_rows;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* A row that one server inserts for another one: that hears of it before any request comes. */
static void test_given(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    struct server *other = open_server(1, 2, NULL);
    wait_change(s, 1);
    wait_change(other, 1);
    (void)assign(s, "sip:own@x", 0);
    (void)assign(s, "sip:third@x", 12); /* "s12" begins like "s1" */
    (void)assign(s, "sip:given to him@x", 1);
    pthread_mutex_lock(&other->lock);
    WAIT_FOR(other, hf_map_get(&other->cache, z("sip:given to him@x")));
    assert_null(hf_map_get(&other->cache, z("sip:own@x")));
    const struct cached *c = hf_map_get(&other->cache, z("sip:given to him@x"));
    assert_int_equal(c->row.current, 1);
    assert_int_equal(c->row.epoch, 1);
    pthread_mutex_unlock(&other->lock);
    uint64_t before = rows_told(other);
    (void)assign(s, "sip:given to him@x", 1); /* it is there: nothing is told */
    assert_int_equal(rows_told(other), before);
    if (is_pg) { /* who was cut off, and may have missed it, reads what is its own */
        outage(other);
        pthread_mutex_lock(&other->lock);
        WAIT_FOR(other, other->n_rows > before);
        pthread_mutex_unlock(&other->lock);
    }
    close_server(s);
    close_server(other);
}

static void test_restored_backup(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    struct hf_sip_lead *l = open_lead();
    OK(hf_sip_lead_reign(l, 1, &err));
    for (unsigned i = 0; i < 10; i++) {
        OK(hf_sip_lead_assign(l, z("sip:ann@x"), "s0", -1, &err));
        OK(hf_sip_lead_assign(l, z("sip:bob@x"), "s1", -1, &err));
    }
    wait_change(s, 22);
    sql("UPDATE leader SET change = 5; UPDATE assignment SET epoch = 2, change = 4, current = "
        "'s3'");
    pthread_mutex_lock(&s->lock);
    WAIT_FOR(s, s->change == 5);
    pthread_mutex_unlock(&s->lock);
    /* what a server knows is right */
    struct hf_sip_op op = {.kind = HF_SIP_OP_ASSERT, .aor = z("sip:ann@x"), .row = {.epoch = 10}};
    is_row(do_op(s, op), 0, 0, 10);
    /* the leader raises those that nobody asserts; so does one who has the feed's word */
    struct hf_sip_lead *next = open_lead();
    hf_sip_lead_seen(next, 22);
    OK(hf_sip_lead_reign(next, 2, &err));
    is_row(read_aor(s, "sip:bob@x"), 1, 3, 1002);
    is_row(read_aor(s, "sip:ann@x"), 0, 0, 1010);
    wait_change(s, 6);
    assert_int_equal(((struct cached *)hf_map_get(&s->cache, z("sip:bob@x")))->row.epoch, 1002);
    OK(hf_sip_lead_assign(next, z("sip:bob@x"), "s1", -1, &err));
    is_row(read_aor(s, "sip:bob@x"), 1, 1, 1003); /* once */
    hf_sip_lead_close(l);
    hf_sip_lead_close(next);
    close_server(s);
}

/* ... in SQLite by another file in its place. */
static void test_other_file(void **state)
{
    (void)state;
    struct server *s = open_server(0, 2, NULL);
    struct hf_sip_lead *l = open_lead();
    OK(hf_sip_lead_assign(l, z("sip:ann@x"), "s0", -1, &err));
    if (!is_pg) {
        char text[700], from[600];
        const char *file = hf_sip_store_file(uri);
        snprintf(from, sizeof(from), "%s-backup", file);
        snprintf(text, sizeof(text), "VACUUM INTO '%s'", from);
        sql(text);
        OK(hf_sip_lead_assign(l, z("sip:ann@x"), "s1", -1, &err));
        wait_change(s, 3);
        snprintf(text, sizeof(text), "%s-wal", file);
        (void)unlink(text);
        snprintf(text, sizeof(text), "%s-shm", file);
        (void)unlink(text);
        assert_int_equal(rename(from, file), 0);
        pthread_mutex_lock(&s->lock);
        WAIT_FOR(s, s->there && s->n_aways == 1 && s->change == 2);
        pthread_mutex_unlock(&s->lock);
        is_row(read_aor(s, "sip:ann@x"), 0, 0, 1);
    }
    hf_sip_lead_close(l);
    close_server(s);
}

/* ---- PostgreSQL's own ---- */

/* It is away, also while it is tried again. */
static void test_nobody_there(void **state)
{
    (void)state;
    char real[sizeof(uri)];
    memcpy(real, uri, sizeof(uri));
    snprintf(uri, sizeof(uri), "host=/nonexistent dbname=x");
    struct server *s = open_server(0, 2, NULL);
    assert_int_equal(read_aor(s, "sip:ann@x")->r.done, HF_SIP_OP_AWAY);
    assert_int_equal(s->n_aways, 1);
    usleep(300000);
    assert_int_equal(read_aor(s, "sip:ann@x")->r.done, HF_SIP_OP_AWAY);
    assert_int_equal(s->n_aways, 1); /* told once */
    close_server(s);
    assert_int_equal(hf_sip_store_init(uri, &err), -HF_ENOTREADY);
    struct hf_sip_lead *l = open_lead();
    assert_int_equal(hf_sip_lead_reign(l, 1, &err), -HF_ENOTREADY);
    hf_sip_lead_close(l);
    memcpy(uri, real, sizeof(uri));
}

/* What the database will not take takes nobody else with it. */
static void test_refused_alone(void **state)
{
    (void)state;
    enum { N = 20 };
    struct server *s = open_server(0, N + 2, NULL);
    char aor[N][16];
    for (unsigned i = 0; i < N; i++) {
        race_aor(i, aor[i]);
        (void)assign(s, aor[i], 0);
    }
    sql(is_pg ? "ALTER TABLE binding ADD CHECK (life <> 13)" : "SELECT 1");
    s->seen[1].there = false;
    for (unsigned i = 0; i < N; i++) {
        struct hf_sip_bind b = binding("k", aor[i], 1);
        b.b.life_s = is_pg ? i : 1;
        struct hf_sip_op op = {.kind = HF_SIP_OP_BIND,
                               .wait = true,
                               .cookie = i + 1,
                               .aor = z(aor[i]),
                               .epoch = 1,
                               .bind = &b,
                               .n_binds = 1};
        hf_sip_store_submit(s->store, 7, &op);
    }
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(wait_for(s, i + 1)->r.done,
                         is_pg && i == 13 ? HF_SIP_OP_AWAY : HF_SIP_OP_DONE);
    }
    assert_int_equal(s->n_aways, 0);
    assert_int_equal(strstr(s->log, "violates check constraint") != NULL, is_pg);
    close_server(s);
}

/* A server that was cut off within a transaction does not keep others' clients from being moved. */
static void test_cut_off(void **state)
{
    (void)state;
    struct hf_sip_lead *l = open_lead();
    OK(hf_sip_lead_assign(l, z("sip:ann@x"), "s0", -1, &err));
    if (is_pg) {
        struct hf_sip_sql *q;
        OK(hf_sip_sql_open(uri, &err, &q));
        OK(hf_sip_sql_script(q, "BEGIN; SELECT pg_advisory_xact_lock_shared(" HF_SIP_STORE_LOCK ")",
                             &err));
        OK(hf_sip_lead_assign(l, z("sip:ann@x"), "s1", -1, &err));
        assert_int_equal(hf_sip_sql_script(q, "SELECT 1", &err), -HF_ENOTREADY);
        assert_true(hf_sip_sql_broken(q));
        hf_sip_sql_close(q);
        cut_connections(); /* the leader's: it comes back by itself */
        int rc = hf_sip_lead_assign(l, z("sip:ann@x"), "s2", -1, &err);
        assert_true(rc == 0 || rc == -HF_ENOTREADY);
        OK(hf_sip_lead_assign(l, z("sip:ann@x"), "s2", -1, &err));
    }
    hf_sip_lead_close(l);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_schema, empty),
        cmocka_unit_test_setup(test_rows, empty),
        cmocka_unit_test_setup(test_bindings, empty),
        cmocka_unit_test_setup(test_kept, empty),
        cmocka_unit_test_setup(test_order, empty),
        cmocka_unit_test_setup(test_lazy_and_close, empty),
        cmocka_unit_test_setup(test_queue_full, empty),
        cmocka_unit_test_setup(test_users, empty),
        cmocka_unit_test_setup(test_moves, empty),
        cmocka_unit_test_setup(test_operator, empty),
        cmocka_unit_test_setup(test_former_leader, empty),
        cmocka_unit_test_setup(test_csv, empty),
        cmocka_unit_test_setup(test_epoch_race, empty),
        cmocka_unit_test_setup(test_feed_complete, empty),
        cmocka_unit_test_setup(test_outage, empty),
        cmocka_unit_test_setup(test_gained_in_bulk, empty),
        cmocka_unit_test_setup(test_feed_at_start, empty),
        cmocka_unit_test_setup(test_learnt, empty),
        cmocka_unit_test_setup(test_given, empty),
        cmocka_unit_test_setup(test_restored_backup, empty),
        cmocka_unit_test_setup(test_other_file, empty),
        cmocka_unit_test_setup(test_nobody_there, empty),
        cmocka_unit_test_setup(test_refused_alone, empty),
        cmocka_unit_test_setup(test_cut_off, empty),
    };
    const char *given = getenv("HF_STORE_URI");
    is_pg = given != NULL;
    snprintf(dir, sizeof(dir), "/tmp/holdfast-store-XXXXXX");
    if (given) {
        snprintf(uri, sizeof(uri), "%s", given);
    } else if (!mkdtemp(dir)) {
        return 1;
    }
    const char *outages = getenv("HF_STORE_OUTAGE");
    if (outages && sscanf(outages, "%d %d", &ask, &told) != 2) {
        return 1;
    }
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    if (!given) {
        char command[100];
        snprintf(command, sizeof(command), "rm -rf '%s'", dir);
        rc |= system(command);
    }
    return rc;
}
