/* The simulator's clients. */
#include "sim/pg/client.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "codec/pg_v3.h"
#include "support/sim_net.h"

#define ROOM (4u << 20)
#define CHANNEL "news"
/* COMMIT AND CHAIN: not while its outcome, found out after a loss, ends the block */
#define CHAINS false

void pgc_init(struct pgc_client *c, uint32_t id, uint64_t seed, uint32_t txns_max)
{
    memset(c, 0, sizeof(*c));
    c->id = id;
    c->txns_max = txns_max;
    hf_prng_init(&c->prng, seed);
    hf_buf_init(&c->in, ROOM);
    hf_buf_init(&c->out, ROOM);
}

static void rounds_clear(struct pgc_client *c)
{
    for (uint32_t i = 0; i < c->n_rounds; i++) {
        hf_buf_fini(&c->round[i].bytes);
    }
    c->n_rounds = c->round_at = 0;
}

void pgc_fini(struct pgc_client *c)
{
    rounds_clear(c);
    hf_buf_fini(&c->in);
    hf_buf_fini(&c->out);
    free(c->txn);
}

static uint64_t below(struct pgc_client *c, uint64_t n)
{
    return hf_prng_below(&c->prng, n);
}

static bool wrong(struct pgc_client *c, const char *fmt, ...) HF_PRINTF(2, 3);
static bool wrong(struct pgc_client *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!c->wrong[0]) {
        int n = snprintf(c->wrong, sizeof(c->wrong), "client %u: ", c->id);
        vsnprintf(c->wrong + n, sizeof(c->wrong) - (size_t)n, fmt, ap);
    }
    va_end(ap);
    return false;
}

/* ---- building ---- */

uint32_t pgc_begin(struct pgc_client *c, const char *why)
{
    if (c->n_txns == c->txns_room) {
        c->txns_room = c->txns_room ? 2 * c->txns_room : 32;
        c->txn = sim_realloc(c->txn, c->txns_room * sizeof(*c->txn));
    }
    struct pgc_txn *t = &c->txn[c->n_txns];
    memset(t, 0, sizeof(*t));
    snprintf(t->why, sizeof(t->why), "%s", why);
    return c->n_txns++;
}

static struct pgc_txn *last(struct pgc_client *c)
{
    return &c->txn[c->n_txns - 1];
}

static struct pgc_round *round_new(struct pgc_client *c, bool waits)
{
    struct pgc_round *r = &c->round[c->n_rounds++];
    memset(r, 0, sizeof(*r));
    hf_buf_init(&r->bytes, ROOM);
    r->txn = c->n_txns - 1;
    r->waits = waits;
    return r;
}

static struct pgc_round *last_round(struct pgc_client *c)
{
    return &c->round[c->n_rounds - 1];
}

static struct pgc_expect *expect(struct pgc_client *c, char type, char status)
{
    struct pgc_expect *e = &c->expect[(c->head + c->n_expects++) % PGC_EXPECT_MAX];
    memset(e, 0, sizeof(*e));
    e->type = type;
    e->txn = c->n_txns - 1;
    e->status = status;
    last_round(c)->n_expects++;
    return e;
}

void pgc_want(struct pgc_expect *e, const char *columns, const char *tag)
{
    e->want[e->n].columns = columns;
    e->want[e->n++].tag = tag;
}

static struct pgc_token *token(struct pgc_client *c, enum pgs_change_kind kind, int64_t key)
{
    struct pgc_txn *t = last(c);
    struct pgc_token *k = &t->token[t->n_tokens++];
    k->kind = kind;
    k->key = key;
    k->value = (int64_t)c->id * 1000000 + (int64_t)++c->next_token;
    k->undone = false;
    return k;
}

/* A statement of a transaction, made up: its text, and what must be answered. */
struct made {
    char sql[160];
    struct pgc_want want;
};

static void made(struct made *m, const char *columns, const char *tag)
{
    memset(&m->want, 0, sizeof(m->want));
    m->want.columns = columns;
    m->want.tag = tag;
}

static void make_update(struct pgc_client *c, struct made *m, int64_t account)
{
    struct pgc_token *k = token(c, PGS_ADD, account);
    bool back = below(c, 3) == 0;
    snprintf(m->sql, sizeof(m->sql),
             "UPDATE accounts SET n = n + %" PRId64 " WHERE id = %" PRId64 "%s", k->value, account,
             back ? " RETURNING n" : "");
    made(m, back ? "n" : NULL, "UPDATE 1");
    if (back) {
        m->want.see = PGC_SEE_AFTER;
        m->want.key = k->value;
        last(c)->reads = true;
    }
}

static void make_insert(struct pgc_client *c, struct made *m)
{
    struct pgc_token *k = token(c, PGS_LOG, 0);
    bool back = !c->no_sequence && below(c, 2) == 0;
    snprintf(m->sql, sizeof(m->sql), "INSERT INTO log (v) VALUES (%" PRId64 ")%s", k->value,
             back ? " RETURNING id" : "");
    made(m, back ? "id" : NULL, "INSERT 0 1");
    if (back) {
        m->want.see = PGC_SEE_ID;
        m->want.key = k->value;
        last(c)->given = true;
    }
}

static bool touched(const struct pgc_txn *t, int64_t account)
{
    for (size_t i = 0; i < t->n_tokens; i++) {
        if (t->token[i].kind == PGS_ADD && t->token[i].key == account) {
            return true;
        }
    }
    return false;
}

static void make_read(struct pgc_client *c, struct made *m)
{
    int64_t account = 1 + (int64_t)below(c, PGS_ACCOUNTS);
    struct pgc_txn *t = last(c);
    t->reads = true;
    for (size_t i = 0; i < t->n_tokens; i++) { /* ids among what it will see */
        t->sequence = t->sequence || t->token[i].kind == PGS_LOG;
    }
    switch (below(c, 4)) {
    case 0:
        snprintf(m->sql, sizeof(m->sql), "SELECT id, n FROM accounts ORDER BY id");
        made(m, "id n", "SELECT 6");
        break;
    case 1:
        snprintf(m->sql, sizeof(m->sql), "SELECT count(*) FROM log WHERE v = %d", -1);
        snprintf(m->sql, sizeof(m->sql), "SELECT count(*) FROM log");
        made(m, "count", "SELECT 1");
        break;
    case 2:
        snprintf(m->sql, sizeof(m->sql), "SELECT id, v FROM log ORDER BY id");
        made(m, "id v", "SELECT ");
        break;
    default:
        snprintf(m->sql, sizeof(m->sql), "SELECT n FROM accounts WHERE id = %" PRId64, account);
        made(m, "n", "SELECT 1");
        if (!touched(t, account)) {
            m->want.see = PGC_SEE_N;
            m->want.key = account;
        }
    }
}

/* Something that reads or writes, and fails or not. account: the lowest that may be locked next. */
static void make_any(struct pgc_client *c, struct made *m, int64_t *account)
{
    uint64_t what = below(c, 10);
    bool room = last(c)->n_tokens + 2 < PGC_TOKENS_MAX;
    if (what < 4 && room && *account <= PGS_ACCOUNTS) {
        *account += (int64_t)below(c, (uint64_t)(PGS_ACCOUNTS + 1 - *account));
        make_update(c, m, (*account)++);
    } else if (what < 6 && room) {
        make_insert(c, m);
    } else if (what < 9) {
        make_read(c, m);
    } else if (room) {
        struct pgc_token *k = token(c, PGS_ONCE, 0);
        snprintf(m->sql, sizeof(m->sql), "INSERT INTO once (v) VALUES (%" PRId64 ")", k->value);
        made(m, NULL, "INSERT 0 1");
    } else {
        make_read(c, m);
    }
}

struct pgc_expect *pgc_query(struct pgc_client *c, char status, const char *sql)
{
    struct pgc_round *r = round_new(c, true);
    hf_pg_put_query(&r->bytes, hf_slice_str(sql));
    return expect(c, 'Q', status);
}

static struct pgc_expect *query_made(struct pgc_client *c, char status, const struct made *m)
{
    struct pgc_expect *e = pgc_query(c, status, m->sql);
    e->want[e->n++] = m->want;
    return e;
}

/* Parse, Bind and Execute in the last round; with Describe sometimes. */
static void put_execute(struct pgc_client *c, const char *name, bool parse, const char *sql,
                        const struct pgc_want *w, bool commits)
{
    struct hf_buf *b = &last_round(c)->bytes;
    size_t mark;
    if (parse) {
        mark = hf_pg_put_begin(b, 'P');
        hf_pg_put_cstr(b, hf_slice_str(name));
        hf_pg_put_cstr(b, hf_slice_str(sql));
        hf_pg_put_u16(b, 0);
        hf_pg_put_end(b, mark);
        (void)expect(c, 'P', 0);
    }
    mark = hf_pg_put_begin(b, 'B');
    hf_pg_put_cstr(b, hf_slice_str(""));
    hf_pg_put_cstr(b, hf_slice_str(name));
    hf_pg_put_u16(b, 0);
    hf_pg_put_u16(b, 0);
    hf_pg_put_u16(b, 0);
    hf_pg_put_end(b, mark);
    (void)expect(c, 'B', 0);
    if (below(c, 2)) {
        mark = hf_pg_put_begin(b, 'D');
        hf_pg_put_u8(b, 'P');
        hf_pg_put_cstr(b, hf_slice_str(""));
        hf_pg_put_end(b, mark);
        expect(c, 'D', 0)->want[0] = *w;
    }
    mark = hf_pg_put_begin(b, 'E');
    hf_pg_put_cstr(b, hf_slice_str(""));
    hf_pg_put_u32(b, 0);
    hf_pg_put_end(b, mark);
    struct pgc_expect *e = expect(c, 'E', 0);
    e->want[e->n++] = *w;
    e->commits = commits;
}

static struct pgc_expect *put_sync(struct pgc_client *c, char status, bool commits)
{
    hf_pg_put_message(&last_round(c)->bytes, 'S', hf_slice(NULL, 0));
    struct pgc_expect *e = expect(c, 'S', status);
    e->commits = commits;
    return e;
}

/* ---- kinds of transactions ---- */

static void txn_autocommit(struct pgc_client *c)
{
    struct made m;
    int64_t account = 1;
    (void)pgc_begin(c, "autocommit");
    make_any(c, &m, &account);
    if (c->simple_only || below(c, 2)) {
        query_made(c, 'I', &m)->commits = true;
    } else {
        (void)round_new(c, true);
        put_execute(c, "", true, m.sql, &m.want, false);
        (void)put_sync(c, 'I', true);
    }
}

/* BEGIN, some, COMMIT: each a Query, or an extended one; in turns, or in one go. */
static void txn_block(struct pgc_client *c)
{
    struct made m;
    struct pgc_want begin = {.tag = "BEGIN"}, end = {.tag = "COMMIT"};
    int64_t account = 1;
    bool extended = !c->simple_only && below(c, 2), pipelined = below(c, 4) == 0;
    bool fails = below(c, 8) == 0, rolls_back = below(c, 8) == 0,
         chains = below(c, 12) == 0 && CHAINS;
    uint64_t n = below(c, 5);
    (void)pgc_begin(c, extended ? "extended block" : "block");
    pgc_query(c, 'T', "BEGIN")->want[0] = begin;
    c->expect[(c->head + c->n_expects - 1) % PGC_EXPECT_MAX].n = 1;
    for (uint64_t i = 0; i < n; i++) {
        make_any(c, &m, &account);
        if (extended) {
            round_new(c, !pipelined);
            put_execute(c, "", true, m.sql, &m.want, false);
            (void)put_sync(c, 'T', false);
        } else {
            (void)query_made(c, 'T', &m);
            last_round(c)->waits = !pipelined;
        }
    }
    if (fails) {
        struct pgc_expect *e = pgc_query(c, 'E', "SELECT 1/0");
        pgc_want(e, NULL, NULL);
        e->want[0].fails = "22012";
        return;
    }
    if (rolls_back) {
        pgc_want(pgc_query(c, 'I', "ROLLBACK"), NULL, "ROLLBACK");
        return;
    }
    struct pgc_expect *e = pgc_query(c, chains ? 'T' : 'I', chains ? "COMMIT AND CHAIN" : "COMMIT");
    e->want[e->n++] = end;
    e->commits = true;
    last_round(c)->waits = !pipelined;
    if (chains) {
        (void)pgc_begin(c, "chained");
        last(c)->chained = true;
        int64_t from = 1;
        make_update(c, &m, from);
        (void)query_made(c, 'T', &m);
        e = pgc_query(c, 'I', "COMMIT");
        e->want[e->n++] = end;
        e->commits = true;
    }
}

static void txn_savepoint(struct pgc_client *c)
{
    struct made m;
    int64_t account = 1;
    (void)pgc_begin(c, "savepoint");
    pgc_want(pgc_query(c, 'T', "BEGIN"), NULL, "BEGIN");
    make_any(c, &m, &account);
    (void)query_made(c, 'T', &m);
    pgc_want(pgc_query(c, 'T', "SAVEPOINT a"), NULL, "SAVEPOINT");
    size_t from = last(c)->n_tokens;
    make_any(c, &m, &account);
    (void)query_made(c, 'T', &m);
    if (below(c, 2)) {
        pgc_want(pgc_query(c, 'T', "ROLLBACK TO a"), NULL, "ROLLBACK");
        for (size_t i = from; i < last(c)->n_tokens; i++) {
            last(c)->token[i].undone = true;
        }
    } else {
        pgc_want(pgc_query(c, 'T', "RELEASE a"), NULL, "RELEASE");
    }
    struct pgc_expect *e = pgc_query(c, 'I', "COMMIT");
    pgc_want(e, NULL, "COMMIT");
    e->commits = true;
}

/* Several statements up to one Sync: one implicit transaction; or with BEGIN and COMMIT in it. */
static void txn_pipeline(struct pgc_client *c)
{
    struct made m;
    struct pgc_want begin = {.tag = "BEGIN"}, end = {.tag = "COMMIT"};
    int64_t account = 1;
    bool block = below(c, 3) == 0;
    (void)pgc_begin(c, block ? "pipeline with a block" : "pipeline");
    (void)round_new(c, true);
    if (block) {
        put_execute(c, "", true, "BEGIN", &begin, false);
    }
    for (uint64_t n = 1 + below(c, 4); n > 0; n--) {
        make_any(c, &m, &account);
        put_execute(c, "", true, m.sql, &m.want, false);
    }
    if (block) {
        put_execute(c, "", true, "COMMIT", &end, true);
    }
    (void)put_sync(c, 'I', !block);
    if (below(c, 3) == 0) { /* another right behind it */
        (void)pgc_begin(c, "pipeline, second");
        account = 1;
        make_any(c, &m, &account);
        put_execute(c, "", true, m.sql, &m.want, false);
        (void)put_sync(c, 'I', true);
    }
}

/* A named statement that stays. */
static void txn_prepared(struct pgc_client *c)
{
    uint32_t k = (uint32_t)below(c, PGC_NAMES_MAX);
    char name[32], sql[96];
    (void)pgc_begin(c, "prepared");
    last(c)->reads = true;
    (void)round_new(c, true);
    snprintf(name, sizeof(name), "s%u_%u", k, c->names);
    snprintf(sql, sizeof(sql), "SELECT n FROM accounts WHERE id = %u", k + 1);
    struct pgc_want w = {.columns = "n", .tag = "SELECT 1", .see = PGC_SEE_N, .key = k + 1};
    put_execute(c, name, !c->prepared[k], sql, &w, false);
    c->prepared[k] = 1;
    (void)put_sync(c, 'I', true);
}

/* Several statements in one Query. */
static void txn_multi(struct pgc_client *c)
{
    struct made m, k;
    char sql[400];
    int64_t account = 1;
    bool block = below(c, 2);
    (void)pgc_begin(c, block ? "Query with a block" : "Query with several");
    last(c)->sequence = true; /* of several statements the ids can't be given again: 40001 */
    make_any(c, &m, &account);
    make_any(c, &k, &account);
    snprintf(sql, sizeof(sql), "%s%s; %s%s", block ? "BEGIN; " : "", m.sql, k.sql,
             block ? "; COMMIT" : "");
    struct pgc_expect *e = pgc_query(c, 'I', sql);
    if (block) {
        pgc_want(e, NULL, "BEGIN");
    }
    e->want[e->n++] = m.want;
    e->want[e->n++] = k.want;
    if (block) {
        pgc_want(e, NULL, "COMMIT");
    }
    e->commits = true;
}

/* It fails at the end: the deferred constraint. */
static void txn_deferred(struct pgc_client *c)
{
    struct made m;
    int64_t account = 1;
    bool block = below(c, 2);
    (void)pgc_begin(c, "deferred constraint");
    if (block) {
        pgc_want(pgc_query(c, 'T', "BEGIN"), NULL, "BEGIN");
        make_any(c, &m, &account);
        (void)query_made(c, 'T', &m);
        pgc_want(pgc_query(c, 'T', "INSERT INTO once (v) VALUES (0)"), NULL, "INSERT 0 1");
    }
    struct pgc_expect *e = pgc_query(c, 'I', block ? "COMMIT" : "INSERT INTO once (v) VALUES (0)");
    pgc_want(e, NULL, NULL);
    e->want[0].fails = "23505";
}

static void txn_copy_in(struct pgc_client *c)
{
    (void)pgc_begin(c, "COPY FROM STDIN");
    last(c)->unprotected = true;
    struct pgc_expect *e = pgc_query(c, 'I', "COPY log (v) FROM STDIN");
    pgc_want(e, NULL, "COPY ");
    e->commits = e->copy = true;
    uint64_t n = 1 + below(c, 4);
    struct pgc_round *r = round_new(c, false);
    r->copies = true;
    for (uint64_t i = 0; i < n; i++) {
        char line[32];
        int len = snprintf(line, sizeof(line), "%" PRId64 "\n", token(c, PGS_LOG, 0)->value);
        hf_pg_put_message(&r->bytes, 'd', hf_slice(line, (size_t)len));
    }
    hf_pg_put_message(&r->bytes, 'c', hf_slice(NULL, 0));
}

static void txn_copy_out(struct pgc_client *c)
{
    (void)pgc_begin(c, "COPY TO STDOUT");
    last(c)->reads = true;
    struct pgc_expect *e = pgc_query(c, 'I', "COPY accounts TO STDOUT");
    pgc_want(e, NULL, "COPY 6");
    e->commits = e->copy = true;
}

static void txn_volatile(struct pgc_client *c)
{
    bool block = below(c, 2);
    (void)pgc_begin(c, "random()");
    last(c)->volatile_ = last(c)->reads = true;
    if (block) {
        pgc_want(pgc_query(c, 'T', "BEGIN"), NULL, "BEGIN");
    }
    pgc_want(pgc_query(c, block ? 'T' : 'I', "SELECT random(), now()"), "random now", "SELECT 1");
    if (block) {
        pgc_want(pgc_query(c, 'I', "COMMIT"), NULL, "COMMIT");
    }
    c->expect[(c->head + c->n_expects - 1) % PGC_EXPECT_MAX].commits = true;
}

static void show_application(struct pgc_client *c, char status)
{
    struct pgc_expect *e = pgc_query(c, status, "SHOW application_name");
    pgc_want(e, "application_name", "SHOW");
    e->want[0].see = PGC_SEE_TEXT;
    snprintf(e->want[0].text, sizeof(e->want[0].text), "%s", c->application);
}

/* Settings that must go along: looked at later. */
static void txn_setting(struct pgc_client *c)
{
    char sql[96], old[48];
    (void)pgc_begin(c, "settings");
    switch (below(c, 5)) {
    case 0:
        snprintf(c->application, sizeof(c->application), "app%" PRIu64, below(c, 1000));
        snprintf(sql, sizeof(sql), "SET application_name = '%s'", c->application);
        pgc_want(pgc_query(c, 'I', sql), NULL, "SET");
        break;
    case 1: /* undone */
        memcpy(old, c->application, sizeof(old));
        pgc_want(pgc_query(c, 'T', "BEGIN"), NULL, "BEGIN");
        pgc_want(pgc_query(c, 'T', "SET application_name = 'never'"), NULL, "SET");
        pgc_want(pgc_query(c, 'I', "ROLLBACK"), NULL, "ROLLBACK");
        break;
    case 2: /* of the transaction */
        pgc_want(pgc_query(c, 'T', "BEGIN"), NULL, "BEGIN");
        pgc_want(pgc_query(c, 'T', "SET LOCAL application_name = 'local'"), NULL, "SET");
        memcpy(old, c->application, sizeof(old));
        snprintf(c->application, sizeof(c->application), "local");
        show_application(c, 'T');
        memcpy(c->application, old, sizeof(old));
        pgc_want(pgc_query(c, 'I', "COMMIT"), NULL, "COMMIT");
        break;
    default:
        break;
    }
    show_application(c, 'I');
    c->expect[(c->head + c->n_expects - 1) % PGC_EXPECT_MAX].commits = true;
}

/* A function of which nothing is known but that it is volatile. */
static void txn_function(struct pgc_client *c)
{
    char sql[96] = "SELECT tune('')";
    bool block = below(c, 2), sets = below(c, 3) == 0;
    (void)pgc_begin(c, sets ? "a function that sets" : "a function");
    last(c)->unprotected = sets || !c->tuned; /* the first is not looked before, in a pipeline */
    c->tuned = true;
    if (sets) {
        last(c)->sets = true;
        memcpy(last(c)->application, c->application, sizeof(c->application));
        snprintf(c->application, sizeof(c->application), "app%" PRIu64, below(c, 1000));
        snprintf(sql, sizeof(sql), "SELECT tune('%s')", c->application);
    }
    if (c->simple_only || below(c, 2)) {
        if (block) {
            pgc_want(pgc_query(c, 'T', "BEGIN"), NULL, "BEGIN");
        }
        pgc_want(pgc_query(c, block ? 'T' : 'I', sql), "tune", "SELECT 1");
        if (block) {
            pgc_want(pgc_query(c, 'I', "COMMIT"), NULL, "COMMIT");
        }
    } else {
        struct pgc_want begin = {.tag = "BEGIN"}, end = {.tag = "COMMIT"};
        struct pgc_want tune = {.columns = "tune", .tag = "SELECT 1"};
        (void)round_new(c, true);
        if (block) {
            put_execute(c, "", true, "BEGIN", &begin, false);
        }
        put_execute(c, "", true, sql, &tune, false);
        if (block) {
            put_execute(c, "", true, "COMMIT", &end, true);
        }
        (void)put_sync(c, 'I', !block);
    }
    c->expect[(c->head + c->n_expects - 1) % PGC_EXPECT_MAX].commits = true;
    (void)pgc_begin(c, "after the function");
    show_application(c, 'I');
    c->expect[(c->head + c->n_expects - 1) % PGC_EXPECT_MAX].commits = true;
}

static void txn_listen(struct pgc_client *c)
{
    (void)pgc_begin(c, "LISTEN");
    struct pgc_expect *e = pgc_query(c, 'I', below(c, 4) ? "LISTEN " CHANNEL : "UNLISTEN *");
    pgc_want(e, NULL, "");
    c->listening = true; /* what was on its way may still come */
    e->commits = true;
    (void)pgc_begin(c, "NOTIFY");
    e = pgc_query(c, 'I', "NOTIFY " CHANNEL ", 'hello'");
    pgc_want(e, NULL, "NOTIFY");
    e->commits = true;
}

/* synchronous_commit below on: its commits may be lost. */
static void txn_weak(struct pgc_client *c)
{
    struct made m;
    (void)pgc_begin(c, "synchronous_commit = off");
    last(c)->weak = true;
    pgc_want(pgc_query(c, 'T', "BEGIN"), NULL, "BEGIN");
    pgc_want(pgc_query(c, 'T', "SET LOCAL synchronous_commit = off"), NULL, "SET");
    make_update(c, &m, 1 + (int64_t)below(c, PGS_ACCOUNTS));
    (void)query_made(c, 'T', &m);
    struct pgc_expect *e = pgc_query(c, 'I', "COMMIT");
    pgc_want(e, NULL, "COMMIT");
    e->commits = true;
}

static void make_transaction(struct pgc_client *c)
{
    uint64_t what = below(c, 100);
    if (what < 30) {
        txn_autocommit(c);
    } else if (what < 55) {
        txn_block(c);
    } else if (what < 62) {
        txn_savepoint(c);
    } else if (what < 72 && !c->simple_only) {
        txn_pipeline(c);
    } else if (what < 77 && !c->simple_only) {
        txn_prepared(c);
    } else if (what < 82) {
        txn_multi(c);
    } else if (what < 85) {
        txn_deferred(c);
    } else if (what < 87 && !c->no_copy) {
        txn_copy_in(c);
    } else if (what < 89) {
        txn_copy_out(c);
    } else if (what < 91 && !c->no_volatile) {
        txn_volatile(c);
    } else if (what < 94 && !c->no_state) {
        txn_setting(c);
    } else if (what < 96 && !c->no_state) {
        txn_function(c);
    } else if (what < 98 && !c->no_state) {
        txn_listen(c);
    } else if (!c->no_weak) {
        txn_weak(c);
    } else {
        txn_autocommit(c);
    }
}

/* ---- what comes ---- */

static struct pgc_expect *head(struct pgc_client *c)
{
    return c->outstanding ? &c->expect[c->head % PGC_EXPECT_MAX] : NULL;
}

static void pop(struct pgc_client *c)
{
    c->head = (c->head + 1) % PGC_EXPECT_MAX;
    c->n_expects--;
    c->outstanding--;
}

static void settle(struct pgc_client *c, uint32_t txn, enum pgc_outcome outcome)
{
    struct pgc_txn *t = &c->txn[txn];
    if (t->outcome == PGC_OPEN) {
        t->outcome = outcome;
        c->n_acked += outcome == PGC_ACKED;
    }
}

static bool columns_are(struct pgc_client *c, const struct pgc_want *w, struct hf_slice body)
{
    struct hf_rd r;
    uint16_t n;
    char names[200] = "";
    if (hf_pg_columns_begin(body, &r, &n)) {
        return wrong(c, "a RowDescription can't be read");
    }
    for (uint16_t i = 0; i < n; i++) {
        struct hf_pg_column col;
        if (hf_pg_column_next(&r, &col)) {
            return wrong(c, "a RowDescription can't be read");
        }
        size_t k = strlen(names);
        snprintf(names + k, sizeof(names) - k, "%s%.*s", k ? " " : "", HF_SLICE_FMT(col.name));
    }
    if (!w->columns || strcmp(names, w->columns) != 0) {
        return wrong(c, "columns \"%s\" instead of \"%s\"", names,
                     w->columns ? w->columns : "none");
    }
    return true;
}

static bool row(struct pgc_client *c, struct pgc_expect *e, const struct pgc_want *w,
                struct hf_slice body)
{
    struct pgc_txn *t = &c->txn[e->txn];
    struct hf_rd r;
    struct hf_slice v = {0};
    uint16_t n, wanted = 0;
    for (const char *p = w->columns; p && *p; p++) {
        wanted = (uint16_t)(wanted + (*p == ' '));
    }
    if (!w->columns || hf_pg_values_begin(body, &r, &n) || n != wanted + 1 ||
        hf_pg_value_next(&r, &v)) {
        return wrong(c, "a row that was not asked for");
    }
    char text[64];
    snprintf(text, sizeof(text), "%.*s", HF_SLICE_FMT(v));
    if (w->see == PGC_SEE_TEXT && strcmp(text, w->text) != 0) {
        return wrong(c, "\"%s\" instead of \"%s\"", text, w->text);
    }
    if (w->see != PGC_SEE_NOTHING && w->see != PGC_SEE_TEXT && t->n_seen < PGC_SEEN_MAX) {
        t->seen[t->n_seen++] = (struct pgc_seen){w->see, w->key, strtoll(text, NULL, 10)};
    }
    return true;
}

static bool complete(struct pgc_client *c, struct pgc_expect *e, struct pgc_want *w,
                     struct hf_slice body)
{
    char tag[64];
    snprintf(tag, sizeof(tag), "%.*s", (int)(body.n ? body.n - 1 : 0), (const char *)body.p);
    if (w->fails) {
        return wrong(c, "\"%s\" where error %s was due", tag, w->fails);
    }
    if (c->txn[e->txn].failed && strcmp(tag, "ROLLBACK") == 0) {
        e->at++; /* COMMIT of what failed before */
        return true;
    }
    if (!w->tag || strncmp(tag, w->tag, strlen(w->tag)) != 0) {
        return wrong(c, "\"%s\" instead of \"%s\"", tag, w->tag ? w->tag : "nothing");
    }
    e->at++;
    e->told_columns = false;
    return true;
}

static void field(char *to, size_t n, struct hf_slice body, uint8_t which)
{
    struct hf_slice v = hf_pg_error_field(body, which);
    snprintf(to, n, "%.*s", HF_SLICE_FMT(v));
}

static bool error(struct pgc_client *c, struct hf_slice body)
{
    char severity[16];
    struct pgc_expect *e = head(c);
    field(severity, sizeof(severity), body, 'V');
    field(c->sqlstate, sizeof(c->sqlstate), body, 'C');
    field(c->message, sizeof(c->message), body, 'M');
    field(c->detail, sizeof(c->detail), body, 'D');
    c->n_errors++;
    c->n_40001 += strcmp(c->sqlstate, "40001") == 0;
    c->n_08007 += strcmp(c->sqlstate, "08007") == 0;
    c->n_57p01 += strcmp(c->sqlstate, "57P01") == 0;
    if (strcmp(severity, "FATAL") == 0) {
        c->fatal = true;
        c->on_error(c->arg, c, e ? &c->txn[e->txn] : NULL);
        return true;
    }
    if (!e || c->skip) {
        return wrong(c, "an error that nobody waits for: %s %s", c->sqlstate, c->message);
    }
    bool meant = false;
    for (uint8_t i = e->at; i < e->n; i++) {
        meant = meant || (e->want[i].fails && strcmp(e->want[i].fails, c->sqlstate) == 0);
    }
    struct pgc_txn *t = &c->txn[e->txn];
    meant = meant || ((t->failed || c->status == 'E') && strcmp(c->sqlstate, "25P02") == 0);
    memset(c->prepared, 0, sizeof(c->prepared)); /* it may not have got so far: other names */
    c->names++;
    bool ours = strcmp(c->sqlstate, "08007") == 0 || strcmp(c->sqlstate, "40001") == 0;
    if (!meant) {
        c->on_error(c->arg, c, t);
    }
    t->failed = true;
    if (t->sets && ours) {
        memcpy(c->application, t->application, sizeof(c->application));
    }
    bool unknown = strcmp(c->sqlstate, "08007") == 0 || (ours && t->pipelined);
    settle(c, e->txn, unknown ? PGC_UNKNOWN : PGC_ABORTED);
    c->skip = c->failed = true;
    return c->wrong[0] == 0;
}

static bool ready(struct pgc_client *c, struct hf_slice body)
{
    char status = body.n == 1 ? (char)body.p[0] : '?';
    while (c->skip && head(c) && head(c)->type != 'Q' && head(c)->type != 'S') {
        settle(c, head(c)->txn, PGC_ABORTED); /* skipped */
        pop(c);
    }
    struct pgc_expect *e = head(c);
    if (!c->greeted) {
        c->greeted = true;
        c->status = status;
        return status == 'I' || wrong(c, "greeted with status %c", status);
    }
    if (!e || (e->type != 'Q' && e->type != 'S')) {
        return wrong(c, "ReadyForQuery that nobody waits for");
    }
    if (e->type == 'Q' && !c->skip && e->at != e->n) {
        return wrong(c, "ReadyForQuery after %u of %u statements", e->at, e->n);
    }
    if (c->skip) {
        settle(c, e->txn, PGC_ABORTED);
        if (status == 'T') {
            return wrong(c, "status T after an error");
        }
    } else {
        if (status != e->status && !c->txn[e->txn].failed) {
            return wrong(c, "status %c instead of %c", status, e->status);
        }
        if (e->commits && !c->txn[e->txn].failed) {
            settle(c, e->txn, PGC_ACKED);
        }
    }
    c->status = status;
    c->skip = c->copying = false;
    pop(c);
    return true;
}

static bool async(struct pgc_client *c, uint8_t type, struct hf_slice body)
{
    struct hf_rd r;
    struct hf_slice a, b;
    hf_rd_init(&r, body);
    switch (type) {
    case HF_PG_NOTICE:
        return hf_pg_error_field(body, 'C').p || wrong(c, "a notice without SQLSTATE");
    case HF_PG_PARAMETER_STATUS:
        return hf_pg_status_read(body, &a, &b) == 0 || wrong(c, "a bad ParameterStatus");
    default:
        (void)hf_rd_u32(&r);
        a = hf_pg_rd_cstr(&r);
        return (c->listening && hf_slice_eq(a, hf_slice_str(CHANNEL))) ||
               wrong(c, "a notification of \"%.*s\"", HF_SLICE_FMT(a));
    }
}

/* An answer to the message at the head. */
static bool answer(struct pgc_client *c, uint8_t type, struct hf_slice body)
{
    struct pgc_expect *e = head(c);
    if (!e || c->skip) {
        return wrong(c, "message %c that nobody waits for", type);
    }
    struct pgc_want *w = &e->want[e->at];
    bool running = (e->type == 'Q' || e->type == 'E') && e->at < e->n;
    switch (type) {
    case HF_PG_PARSE_COMPLETE:
    case HF_PG_BIND_COMPLETE:
        if (e->type != (type == HF_PG_PARSE_COMPLETE ? 'P' : 'B')) {
            return wrong(c, "message %c where %c was to be answered", type, e->type);
        }
        pop(c);
        return true;
    case HF_PG_NO_DATA:
        if (e->type != 'D' || w->columns) {
            return wrong(c, "NoData");
        }
        pop(c);
        return true;
    case HF_PG_ROW_DESCRIPTION:
        if (e->type == 'D') {
            bool fine = columns_are(c, w, body);
            pop(c);
            return fine;
        }
        if (e->type != 'Q' || !running || e->told_columns) {
            return wrong(c, "RowDescription where %c was to be answered", e->type);
        }
        e->told_columns = true;
        return columns_are(c, w, body);
    case HF_PG_DATA_ROW:
        if (!running || (e->type == 'Q' && !e->told_columns)) {
            return wrong(c, "DataRow where %c was to be answered", e->type);
        }
        return row(c, e, w, body);
    case HF_PG_COMMAND_COMPLETE:
        if (!running || !complete(c, e, w, body)) {
            return wrong(c, "CommandComplete where %c was to be answered", e->type);
        }
        if (e->type == 'E') {
            if (e->commits) {
                settle(c, e->txn, PGC_ACKED);
            }
            pop(c);
        }
        return true;
    case HF_PG_COPY_IN:
        c->copying = true;
        return (running && e->copy) || wrong(c, "CopyInResponse");
    case HF_PG_COPY_OUT:
    case HF_PG_COPY_DATA:
    case HF_PG_COPY_DONE:
        return (running && e->copy) || wrong(c, "COPY TO");
    default:
        return wrong(c, "message %c (%u)", type, type);
    }
}

static bool message(struct pgc_client *c, uint8_t type, struct hf_slice body)
{
    switch (type) {
    case HF_PG_NOTICE:
    case HF_PG_PARAMETER_STATUS:
    case HF_PG_NOTIFICATION:
        return async(c, type, body);
    case HF_PG_ERROR:
        return error(c, body);
    case HF_PG_READY:
        return ready(c, body);
    case HF_PG_BACKEND_KEY_DATA:
        return !c->greeted || wrong(c, "BackendKeyData");
    default:
        return answer(c, type, body);
    }
}

bool pgc_input(struct pgc_client *c, struct hf_slice bytes)
{
    struct hf_pg_head h;
    hf_buf_add(&c->in, bytes);
    for (;;) {
        int r = hf_pg_head_read(hf_buf_slice(&c->in), &h);
        if (r == -HF_EPROTO || (r == 0 && h.body_len > ROOM)) {
            return wrong(c, "a message that is none");
        }
        if (r || c->in.n < HF_PG_HEAD_LEN + (size_t)h.body_len) {
            return true;
        }
        if (c->fatal) {
            return wrong(c, "message %c after FATAL", h.type);
        }
        if (!message(c, h.type, hf_slice(c->in.p + HF_PG_HEAD_LEN, h.body_len))) {
            return false;
        }
        hf_buf_consume(&c->in, HF_PG_HEAD_LEN + (size_t)h.body_len);
    }
}

/* ---- what it does ---- */

void pgc_connect(struct pgc_client *c)
{
    c->connected = true;
    c->greeted = c->fatal = c->skip = c->failed = c->copying = c->listening = false;
    c->application[0] = 0;
    c->tuned = false;
    memset(c->prepared, 0, sizeof(c->prepared));
    hf_buf_clear(&c->in);
    hf_buf_clear(&c->out);
    rounds_clear(c);
    c->head = c->n_expects = c->outstanding = 0;
    c->status = 'I';
}

void pgc_disconnect(struct pgc_client *c)
{
    c->connected = false;
    for (uint32_t i = 0; i < c->n_txns; i++) {
        struct pgc_txn *t = &c->txn[i];
        if (t->outcome == PGC_OPEN) {
            t->outcome = t->ends_sent ? PGC_UNKNOWN : PGC_ABORTED;
        }
    }
    rounds_clear(c);
    c->n_expects = c->outstanding = 0;
}

bool pgc_idle(const struct pgc_client *c)
{
    return c->greeted && c->outstanding == 0 && c->round_at >= c->n_rounds;
}

bool pgc_done(const struct pgc_client *c)
{
    return pgc_idle(c) && c->status == 'I' && c->n_txns >= c->txns_max;
}

/* ROLLBACK, after an error in a block. */
static void roll_back(struct pgc_client *c)
{
    (void)pgc_begin(c, "ROLLBACK after an error");
    pgc_want(pgc_query(c, 'I', "ROLLBACK"), NULL, "ROLLBACK");
}

/* All that was sent is answered: what now? */
static bool next(struct pgc_client *c)
{
    if (c->by_hand) {
        rounds_clear(c);
        c->failed = false;
        return false;
    }
    for (uint32_t i = c->n_txns; i-- > 0 && i + 4 >= c->n_txns;) {
        settle(c, i, PGC_ABORTED);
    }
    rounds_clear(c);
    c->n_expects = 0;
    c->failed = false;
    if (c->status != 'I') {
        roll_back(c);
    } else if (c->n_txns < c->txns_max) {
        make_transaction(c);
    } else {
        return false;
    }
    return true;
}

bool pgc_step(struct pgc_client *c)
{
    if (!c->connected || !c->greeted || c->fatal) {
        return false;
    }
    if (c->failed && c->outstanding) {
        return false;
    }
    if ((c->failed || c->round_at == c->n_rounds) && (c->outstanding || !next(c))) {
        return false;
    }
    struct pgc_round *r = &c->round[c->round_at];
    if (r->copies ? !c->copying : r->waits && c->outstanding) {
        return false;
    }
    hf_buf_add(&c->out, hf_buf_slice(&r->bytes));
    c->round_at++;
    c->outstanding += r->n_expects;
    for (uint32_t i = 0; i < r->n_expects; i++) {
        const struct pgc_expect *e =
            &c->expect[(c->head + c->outstanding - r->n_expects + i) % PGC_EXPECT_MAX];
        struct pgc_txn *t = &c->txn[e->txn];
        if (!t->begun) {
            t->begun = true;
            t->alone = c->outstanding == r->n_expects;
            c->on_begin(c->arg, t);
        }
        t->ends_sent = t->ends_sent || e->commits;
        t->pipelined = t->pipelined || !r->waits;
    }
    return true;
}
