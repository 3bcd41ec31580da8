/* The SIP store's thread: its queue, ops of one AoR in order, batches, the feed. */
#include "sip/store.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/prng.h"
#include "base/utf8.h"
#include "os/loop.h"
#include "sip/store_impl.h"
#include "sip/store_sql.h"

#define BATCH_OPS_MAX 1000
#define BATCH_BYTES_MAX (1u << 20)
#define LINE_OPS_MAX 64 /* of one AoR in one batch: each is compared with the others */
#define LAZY HF_MS(100) /* for BINDs that nobody waits for */
#define RETRY_MIN HF_MS(100)
#define RETRY_MAX HF_S(5)
#define HEARTBEAT HF_S(2) /* the feed is read so often at least: also finds out who is gone */
#define FEED_ROWS 256     /* of one piece */
#define FEED_BYTES ((size_t)2 * FEED_ROWS * HF_SIP_AOR_MAX)

/*
 *   none --first op--> READY --in a batch--> BUSY --answered--> READY, or none
 *
 * READY: in ready[lane of its first op]. BUSY: its first n_busy ops are in one batch.
 */
struct hf_sip_line {
    struct hf_list node;
    struct hf_list ops;
    size_t n_busy;
    size_t n;
    uint8_t key[];
};

enum state { CONNECTING, THERE, AWAY };

struct hf_sip_store {
    struct hf_sip_store_conf conf;
    struct hf_sip_store_events events;
    void *arg;
    const struct hf_sip_backend_type *type;
    struct hf_sip_backend *backend;
    pthread_t thread;
    int wake; /* eventfd */
    atomic_size_t n_queued;

    pthread_mutex_t lock; /* of these: */
    struct hf_list incoming;
    bool reread, closing;

    /* the thread's: */
    enum state state;
    bool tried; /* since it was there: it is away, also while connecting */
    hf_time now, retry_at, retry_after, close_at;
    struct hf_prng chance;
    struct hf_map lines;
    struct hf_list ready[HF_SIP_LANE_COUNT_];
    struct hf_list batches;
    hf_time write_at;  /* no transaction before */
    hf_time write_due; /* ... and somebody wants one then */
    struct {
        bool known; /* `change` is: everything cached was read since */
        bool ours, wanted, told;
        bool reading, reading_ours;
        uint64_t change;
        hf_time at; /* read again */
        size_t n, n_gone;
        struct hf_sip_row row[FEED_ROWS];
        struct hf_slice gone[FEED_ROWS];
        struct hf_buf text;
    } feed;
};

const struct hf_sip_store_conf *hf_sip_store_conf(const struct hf_sip_store *s)
{
    return &s->conf;
}

/* Something for people to read. */
static void store_log(struct hf_sip_store *s, const char *text)
{
    if (s->events.log) {
        s->events.log(s->arg, text);
    }
}

void hf_sip_store_id(struct hf_slice key, uint8_t ret_id[HF_SIP_STORE_ID_LEN])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (!EVP_Digest(key.n ? key.p : (const uint8_t *)"", key.n, digest, &n, EVP_sha256(), NULL)) {
        abort(); /* no libcrypto is without it */
    }
    memcpy(ret_id, digest, HF_SIP_STORE_ID_LEN);
}

/* ---- ops in ---- */

static size_t bind_bytes(const struct hf_sip_bind *b)
{
    return sizeof(*b) + b->key.n +
           (b->erase ? 0 : b->b.uri.n + b->b.params.n + b->b.call_id.n + b->b.path.n);
}

static size_t op_bytes(const struct hf_sip_op *op)
{
    size_t n = op->aor.n + op->user.n + op->realm.n + op->kept.key.n + op->kept.data.n;
    for (size_t i = 0; i < op->n_binds; i++) {
        n += bind_bytes(&op->bind[i]);
    }
    return n;
}

static void keep_slice(struct hf_slice *s, uint8_t **at)
{
    if (s->n) {
        memcpy(*at, s->p, s->n);
    }
    s->p = *at;
    *at += s->n;
}

static struct hf_sip_queued *copy_op(unsigned worker, const struct hf_sip_op *op)
{
    struct hf_sip_queued *q = hf_alloc(sizeof(*q) + op_bytes(op) + _Alignof(struct hf_sip_bind));
    if (!q) {
        return NULL;
    }
    q->worker = worker;
    q->op = *op;
    hf_list_init(&q->node);
    uint8_t *at = q->text;
    if (op->n_binds) {
        uintptr_t odd = (uintptr_t)at % _Alignof(struct hf_sip_bind);
        at += odd ? _Alignof(struct hf_sip_bind) - odd : 0;
        struct hf_sip_bind *bind = (void *)at;
        memcpy(bind, op->bind, op->n_binds * sizeof(*bind));
        at += op->n_binds * sizeof(*bind);
        for (size_t i = 0; i < op->n_binds; i++) {
            keep_slice(&bind[i].key, &at);
            bind[i].b.aor = hf_slice(NULL, 0);
            if (!bind[i].erase) {
                keep_slice(&bind[i].b.uri, &at);
                keep_slice(&bind[i].b.params, &at);
                keep_slice(&bind[i].b.call_id, &at);
                keep_slice(&bind[i].b.path, &at);
            }
        }
        q->op.bind = bind;
    }
    keep_slice(&q->op.aor, &at);
    keep_slice(&q->op.user, &at);
    keep_slice(&q->op.realm, &at);
    keep_slice(&q->op.kept.key, &at);
    keep_slice(&q->op.kept.data, &at);
    q->op.row.aor = q->op.aor;
    return q;
}

static void tell(struct hf_sip_store *s, unsigned worker, const struct hf_sip_op *op,
                 struct hf_sip_result *r)
{
    if (op->cookie) {
        r->kind = op->kind;
        r->cookie = op->cookie;
        r->aor = op->kind == HF_SIP_OP_SECRET ? r->aor : op->aor;
        r->bind = op->bind;
        r->n_binds = r->done == HF_SIP_OP_AWAY ? op->n_binds : 0;
        s->events.result(s->arg, worker, r);
    }
}

static void wake(struct hf_sip_store *s)
{
    uint64_t one = 1;
    ssize_t n = write(s->wake, &one, sizeof(one));
    (void)n; /* full: it is awake */
}

void hf_sip_store_submit(struct hf_sip_store *s, unsigned worker, const struct hf_sip_op *op)
{
    assert(op->kind < HF_SIP_OP_COUNT_);
    struct hf_sip_queued *q = NULL;
    if (atomic_fetch_add(&s->n_queued, 1) < s->conf.queue_max) {
        q = copy_op(worker, op);
    }
    if (!q) {
        atomic_fetch_sub(&s->n_queued, 1);
        tell(s, worker, op, &(struct hf_sip_result){.done = HF_SIP_OP_AWAY});
        return;
    }
    pthread_mutex_lock(&s->lock);
    bool first = hf_list_empty(&s->incoming);
    hf_list_insert(&s->incoming, &q->node);
    pthread_mutex_unlock(&s->lock);
    if (first) {
        wake(s);
    }
}

void hf_sip_store_reread(struct hf_sip_store *s)
{
    pthread_mutex_lock(&s->lock);
    s->reread = true;
    pthread_mutex_unlock(&s->lock);
    wake(s);
}

/* ---- lines ---- */

static enum hf_sip_lane lane_of(const struct hf_sip_queued *q)
{
    switch ((enum hf_sip_op_kind)q->op.kind) {
    case HF_SIP_OP_READ:
    case HF_SIP_OP_SECRET:
    case HF_SIP_OP_LOAD:
        return HF_SIP_READS;
    case HF_SIP_OP_ASSIGN:
    case HF_SIP_OP_ASSERT:
    case HF_SIP_OP_LEARN:
    case HF_SIP_OP_BIND:
    case HF_SIP_OP_KEEP:
    case HF_SIP_OP_DROP:
    case HF_SIP_OP_COUNT_:
        break;
    }
    return q->raise ? HF_SIP_RAISES : HF_SIP_WRITES;
}

static struct hf_sip_queued *first_op(const struct hf_sip_line *l)
{
    return HF_CONTAINER_OF(l->ops.next, struct hf_sip_queued, node);
}

static void make_ready(struct hf_sip_store *s, struct hf_sip_line *l)
{
    const struct hf_sip_queued *q = first_op(l);
    enum hf_sip_lane lane = lane_of(q);
    hf_list_unlink(&l->node);
    hf_list_insert(&s->ready[lane], &l->node);
    if (lane == HF_SIP_WRITES) {
        s->write_due = hf_time_min(s->write_due, q->due);
    }
}

static void free_op(struct hf_sip_store *s, struct hf_sip_queued *q)
{
    hf_list_unlink(&q->node);
    atomic_fetch_sub(&s->n_queued, 1);
    hf_free(q);
}

static void end_op(struct hf_sip_store *s, struct hf_sip_queued *q, struct hf_sip_result *r)
{
    if (!q->done && !q->notice) {
        tell(s, q->worker, &q->op, r);
    }
    q->done = true;
}

static void refuse_op(struct hf_sip_store *s, struct hf_sip_queued *q, enum hf_sip_done done)
{
    end_op(s, q, &(struct hf_sip_result){.done = (uint8_t)done});
    free_op(s, q);
}

/* Text as SQL takes it: PostgreSQL's wants UTF-8 without NUL. */
static bool is_text(struct hf_slice s)
{
    for (size_t i = 0; i < s.n;) {
        size_t len = hf_utf8_len(s.p + i, s.n - i);
        if (len == 0 || s.p[i] == 0) {
            return false;
        }
        i += len;
    }
    return s.n > 0 && s.n <= HF_SIP_AOR_MAX;
}

static bool op_ok(const struct hf_sip_op *op)
{
    if (op->kind == HF_SIP_OP_SECRET) {
        return is_text(op->user) && is_text(op->realm);
    }
    return is_text(op->aor) && op->epoch <= INT64_MAX && op->row.epoch <= INT64_MAX;
}

/* Users' secrets have no AoR yet: they are in order by name. */
static struct hf_slice line_key(const struct hf_sip_op *op, uint8_t room[2 * HF_SIP_AOR_MAX + 2])
{
    if (op->kind != HF_SIP_OP_SECRET) {
        return op->aor;
    }
    room[0] = 0;
    memcpy(room + 1, op->user.p, op->user.n);
    room[1 + op->user.n] = 0;
    memcpy(room + 2 + op->user.n, op->realm.p, op->realm.n);
    return hf_slice(room, 2 + op->user.n + op->realm.n);
}

static struct hf_sip_line *line_for(struct hf_sip_store *s, const struct hf_sip_op *op)
{
    uint8_t room[2 * HF_SIP_AOR_MAX + 2];
    struct hf_slice key = line_key(op, room);
    struct hf_sip_line *l = hf_map_get(&s->lines, key);
    if (!l) {
        l = hf_alloc(sizeof(*l) + key.n);
        if (!l) {
            return NULL;
        }
        memcpy(l->key, key.p, key.n);
        l->n = key.n;
        hf_list_init(&l->node);
        hf_list_init(&l->ops);
        if (hf_map_put(&s->lines, hf_slice(l->key, l->n), l)) {
            hf_free(l);
            return NULL;
        }
    }
    return l;
}

static void take_op(struct hf_sip_store *s, struct hf_sip_queued *q)
{
    hf_list_unlink(&q->node);
    if (!op_ok(&q->op)) {
        refuse_op(s, q, HF_SIP_OP_NONE);
        return;
    }
    struct hf_sip_line *l = s->state != THERE && s->tried ? NULL : line_for(s, &q->op);
    if (!l) {
        refuse_op(s, q, HF_SIP_OP_AWAY);
        return;
    }
    bool lazy = q->op.kind == HF_SIP_OP_BIND && !q->op.wait;
    q->due = s->now + (lazy ? LAZY : 0);
    q->line = l;
    bool first = hf_list_empty(&l->ops);
    hf_list_insert(&l->ops, &q->node);
    if (first) {
        make_ready(s, l);
    } else if (!lazy && l->n_busy == 0) {
        s->write_due = hf_time_min(s->write_due, q->due); /* it waits behind a lazy one */
    }
}

static void free_line(struct hf_sip_store *s, struct hf_sip_line *l)
{
    hf_map_remove(&s->lines, hf_slice(l->key, l->n));
    hf_list_unlink(&l->node);
    hf_free(l);
}

/* ---- batches ---- */

static bool stores(const struct hf_sip_op *op)
{
    return op->kind == HF_SIP_OP_BIND || op->kind == HF_SIP_OP_KEEP || op->kind == HF_SIP_OP_DROP;
}

static bool same_place(const struct hf_sip_op *a, const struct hf_sip_op *b)
{
    if ((a->kind == HF_SIP_OP_BIND) != (b->kind == HF_SIP_OP_BIND)) {
        return false;
    }
    if (a->kind != HF_SIP_OP_BIND) {
        return a->kept.what == b->kept.what && hf_slice_eq(a->kept.key, b->kept.key);
    }
    for (size_t i = 0; i < a->n_binds; i++) {
        for (size_t j = 0; j < b->n_binds; j++) {
            if (hf_slice_eq(a->bind[i].key, b->bind[j].key)) {
                return true;
            }
        }
    }
    return false;
}

/* May q go with what was taken of its line already? Reads do not disturb each other; what is
 * written is written to different places, in any order; everything else goes alone. */
static bool goes_along(const struct hf_sip_batch *b, size_t since, const struct hf_sip_queued *q)
{
    if (since == b->n) {
        return true;
    }
    if (b->n - since >= LINE_OPS_MAX || q->alone || b->op[since]->alone || lane_of(q) != b->lane) {
        return false;
    }
    if (b->lane == HF_SIP_READS) {
        return true;
    }
    for (size_t i = since; i < b->n; i++) {
        if (!stores(&b->op[i]->op) || !stores(&q->op) || same_place(&b->op[i]->op, &q->op)) {
            return false;
        }
    }
    return true;
}

static void take_line(struct hf_sip_batch *b, struct hf_sip_line *l)
{
    size_t since = b->n;
    HF_LIST_FOREACH (node, &l->ops) {
        struct hf_sip_queued *q = HF_CONTAINER_OF(node, struct hf_sip_queued, node);
        size_t bytes = op_bytes(&q->op);
        if (!goes_along(b, since, q) || b->n == BATCH_OPS_MAX ||
            (b->n > 0 && b->bytes + bytes > BATCH_BYTES_MAX)) {
            break;
        }
        b->op[b->n++] = q;
        b->bytes += bytes;
        l->n_busy++;
    }
    if (l->n_busy) {
        hf_list_unlink(&l->node);
    }
}

static int by_aor(const void *a, const void *b)
{
    const struct hf_sip_queued *const *x = a, *const *y = b;
    return hf_slice_cmp((*x)->op.aor, (*y)->op.aor);
}

static struct hf_sip_batch *make_batch(struct hf_sip_store *s, enum hf_sip_lane lane)
{
    struct hf_sip_batch *b = hf_alloc(sizeof(*b));
    struct hf_sip_queued **op = hf_alloc_array(BATCH_OPS_MAX, sizeof(*op));
    if (!b || !op) {
        hf_free(b);
        hf_free(op);
        return NULL;
    }
    b->lane = lane;
    b->op = op;
    HF_LIST_FOREACH (node, &s->ready[lane]) {
        struct hf_sip_line *l = HF_CONTAINER_OF(node, struct hf_sip_line, node);
        bool alone = first_op(l)->alone;
        if (b->n == BATCH_OPS_MAX || b->bytes >= BATCH_BYTES_MAX || (alone && b->n > 0)) {
            break;
        }
        take_line(b, l);
        if (alone) {
            break;
        }
    }
    qsort(b->op, b->n, sizeof(struct hf_sip_queued *), by_aor);
    hf_list_insert(&s->batches, &b->node);
    return b;
}

static void free_batch(struct hf_sip_batch *b)
{
    hf_list_unlink(&b->node);
    hf_free(b->op);
    hf_free(b);
}

void hf_sip_store_answer(struct hf_sip_store *s, struct hf_sip_queued *q, struct hf_sip_result *r)
{
    bool lower = q->op.kind == HF_SIP_OP_ASSERT && r->have_row && r->row.epoch < q->op.row.epoch;
    if (lower && !q->raise) {
        q->raise = true; /* it stays the first of its line */
        return;
    }
    if (q->notice && r->have_row) {
        s->events.feed(s->arg, &(struct hf_sip_feed){.there = true, .row = &r->row, .n = 1});
    }
    end_op(s, q, r);
}

/* Its ops that are done are no more; lines with others are ready again. */
static void release(struct hf_sip_store *s, struct hf_sip_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        struct hf_sip_queued *q = b->op[i];
        struct hf_sip_line *l = q->line;
        l->n_busy--;
        if (q->done) {
            free_op(s, q);
        }
        if (l->n_busy > 0) {
            continue;
        }
        if (hf_list_empty(&l->ops)) {
            free_line(s, l);
        } else {
            make_ready(s, l);
        }
    }
    free_batch(b);
}

void hf_sip_store_batch_done(struct hf_sip_store *s, struct hf_sip_batch *b)
{
    release(s, b);
}

void hf_sip_store_refused(struct hf_sip_store *s, struct hf_sip_batch *b, const char *text)
{
    if (b->n == 1) {
        store_log(s, text);
        end_op(s, b->op[0], &(struct hf_sip_result){.done = HF_SIP_OP_AWAY});
    }
    for (size_t i = 0; i < b->n; i++) {
        b->op[i]->alone = true;
    }
    release(s, b);
}

/* Everybody hears of it; what comes hears it at once. */
static void fail_all(struct hf_sip_store *s)
{
    HF_LIST_FOREACH (node, &s->batches) {
        free_batch(HF_CONTAINER_OF(node, struct hf_sip_batch, node));
    }
    size_t pos = 0;
    for (struct hf_sip_line *l; (l = hf_map_next(&s->lines, &pos)) != NULL;) {
        HF_LIST_FOREACH (node, &l->ops) {
            refuse_op(s, HF_CONTAINER_OF(node, struct hf_sip_queued, node), HF_SIP_OP_AWAY);
        }
        free_line(s, l);
    }
    s->write_due = HF_NEVER;
}

static void dispatch_lane(struct hf_sip_store *s, enum hf_sip_lane lane)
{
    while (s->state == THERE && !hf_list_empty(&s->ready[lane]) &&
           s->type->room(s->backend, lane)) {
        struct hf_sip_batch *b = make_batch(s, lane);
        if (!b) {
            return;
        }
        if (lane == HF_SIP_WRITES) {
            s->write_due = hf_list_empty(&s->ready[lane]) ? HF_NEVER : s->now;
            s->write_at = s->now + (hf_time)s->conf.group_commit_us * 1000;
        }
        s->type->run(s->backend, b);
        if (lane == HF_SIP_WRITES) {
            return; /* at most one in group_commit */
        }
    }
}

static void dispatch(struct hf_sip_store *s)
{
    dispatch_lane(s, HF_SIP_READS);
    if (s->now >= s->write_at && (s->now >= s->write_due || s->close_at != HF_NEVER)) {
        dispatch_lane(s, HF_SIP_WRITES);
    }
    dispatch_lane(s, HF_SIP_RAISES);
}

/* ---- there and away ---- */

void hf_sip_store_up(struct hf_sip_store *s, uint64_t change)
{
    assert(s->state != THERE);
    s->state = THERE;
    s->tried = false;
    s->retry_after = RETRY_MIN;
    if (!s->feed.known) { /* nothing is cached yet that was read before */
        s->feed.known = true;
        s->feed.change = change;
    }
    s->feed.ours = s->feed.wanted = true; /* ours: what was inserted for us meanwhile, too */
    s->feed.told = false;
    s->events.feed(s->arg, &(struct hf_sip_feed){.there = true});
    store_log(s, "the database is there");
}

void hf_sip_store_down(struct hf_sip_store *s, const char *text)
{
    bool news = !s->tried;
    s->state = AWAY;
    s->tried = true;
    s->retry_at = hf_now() + s->retry_after / 2 +
                  (hf_time)hf_prng_below(&s->chance, (uint64_t)s->retry_after / 2);
    s->retry_after = s->retry_after < RETRY_MAX / 2 ? s->retry_after * 2 : RETRY_MAX;
    s->feed.ours |= s->feed.reading && s->feed.reading_ours;
    s->feed.reading = false;
    s->feed.n = s->feed.n_gone = 0;
    hf_buf_clear(&s->feed.text);
    fail_all(s);
    if (news) {
        s->events.feed(s->arg, &(struct hf_sip_feed){.there = false});
        store_log(s, text);
    }
}

/* ---- the feed ---- */

static void feed_give(struct hf_sip_store *s, uint64_t change)
{
    s->events.feed(s->arg, &(struct hf_sip_feed){.there = true,
                                                 .row = s->feed.row,
                                                 .n = s->feed.n,
                                                 .deleted = s->feed.gone,
                                                 .n_deleted = s->feed.n_gone,
                                                 .change = change});
    s->feed.n = s->feed.n_gone = 0;
    hf_buf_clear(&s->feed.text);
}

/* A copy in the piece's text, which has room for all of it. */
static struct hf_slice feed_text(struct hf_sip_store *s, struct hf_slice aor)
{
    struct hf_buf *b = &s->feed.text;
    struct hf_slice kept = hf_slice(b->p + b->n, aor.n);
    hf_buf_add(b, aor);
    return kept;
}

void hf_sip_store_feed_row(struct hf_sip_store *s, const struct hf_sip_stored_row *row)
{
    if (row->aor.n == 0 || row->aor.n > HF_SIP_AOR_MAX) {
        return; /* not ours to make sense of */
    }
    struct hf_sip_row r = hf_sip_store_row(s, row);
    r.aor = feed_text(s, row->aor);
    s->feed.row[s->feed.n++] = r;
    if (s->feed.n == FEED_ROWS) {
        feed_give(s, 0);
    }
}

void hf_sip_store_feed_gone(struct hf_sip_store *s, struct hf_slice aor)
{
    if (aor.n > 0 && aor.n <= HF_SIP_AOR_MAX) {
        s->feed.gone[s->feed.n_gone++] = feed_text(s, aor);
    }
    if (s->feed.n_gone == FEED_ROWS) {
        feed_give(s, 0);
    }
}

void hf_sip_store_feed_end(struct hf_sip_store *s, bool ours, uint64_t change)
{
    s->feed.reading = false;
    s->feed.at = s->now + HEARTBEAT;
    if (ours) { /* others' rows may have changed since `change`: that is read next */
        feed_give(s, 0);
        s->feed.wanted = true;
        return;
    }
    if (!s->feed.told || change != s->feed.change || s->feed.n || s->feed.n_gone) {
        feed_give(s, change);
    }
    s->feed.told = true;
    s->feed.change = change;
}

void hf_sip_store_notified(struct hf_sip_store *s)
{
    s->feed.wanted = true;
}

void hf_sip_store_told(struct hf_sip_store *s, struct hf_slice aor)
{
    struct hf_sip_queued *q = copy_op(0, &(struct hf_sip_op){.kind = HF_SIP_OP_READ, .aor = aor});
    if (q) {
        q->notice = true;
        atomic_fetch_add(&s->n_queued, 1);
        take_op(s, q);
    }
}

static void read_feed(struct hf_sip_store *s)
{
    if (s->state != THERE || s->feed.reading ||
        !(s->feed.ours || s->feed.wanted || s->now >= s->feed.at)) {
        return;
    }
    bool ours = s->feed.ours;
    s->feed.reading = true;
    s->feed.reading_ours = ours;
    if (ours) {
        s->feed.ours = false;
    } else {
        s->feed.wanted = false;
    }
    s->type->feed(s->backend, ours, s->feed.change);
}

struct hf_slice hf_sip_store_name(struct hf_sip_store *s, uint16_t server,
                                  char buf[HF_HOST_NAME_MAX + 1])
{
    buf[0] = 0;
    s->events.server_name(s->arg, server, buf, HF_HOST_NAME_MAX + 1);
    return hf_slice_str(buf);
}

struct hf_sip_row hf_sip_store_row(struct hf_sip_store *s, const struct hf_sip_stored_row *row)
{
    uint16_t current = s->events.server(s->arg, row->current);
    return (struct hf_sip_row){
        .aor = row->aor,
        .current = current,
        .home =
            hf_slice_eq(row->home, row->current) ? current : s->events.server(s->arg, row->home),
        .epoch = row->epoch,
        .pinned = row->pinned,
        .agent = row->agent,
        .agent_id = (uint16_t)(row->agent_id + 32768),
    };
}

/* ---- the thread ---- */

/* false: it is to end. */
static bool take_in(struct hf_sip_store *s)
{
    struct hf_list in;
    pthread_mutex_lock(&s->lock);
    hf_list_take(&in, &s->incoming); /* all at once: the lock is short */
    bool closing = s->closing;
    if (s->reread) {
        s->reread = false;
        s->feed.ours = s->feed.wanted = true;
        s->feed.told = false;
    }
    pthread_mutex_unlock(&s->lock);
    if (closing && s->close_at == HF_NEVER) {
        s->close_at = s->now + HF_MS(s->conf.timeout_ms);
    }
    HF_LIST_FOREACH (node, &in) {
        take_op(s, HF_CONTAINER_OF(node, struct hf_sip_queued, node));
    }
    return !closing || (s->state == THERE && s->lines.n > 0 && s->now < s->close_at);
}

static hf_time next_deadline(const struct hf_sip_store *s)
{
    if (s->state == AWAY) {
        return hf_time_min(s->retry_at, s->close_at);
    }
    hf_time at = hf_time_min(s->type->deadline(s->backend), s->close_at);
    if (s->state == THERE) {
        if (!s->feed.reading) {
            at = hf_time_min(at, s->feed.ours || s->feed.wanted ? s->now : s->feed.at);
        }
        if (!hf_list_empty(&s->ready[HF_SIP_WRITES]) && s->type->room(s->backend, HF_SIP_WRITES)) {
            hf_time due = s->write_due > s->write_at ? s->write_due : s->write_at;
            at = hf_time_min(at, due);
        }
    }
    return at;
}

static void sleep_until(struct hf_sip_store *s, hf_time at)
{
    struct pollfd fd[3] = {{.fd = s->wake, .events = POLLIN}};
    unsigned n = s->state == AWAY ? 0 : s->type->fds(s->backend, fd + 1);
    hf_time left = at == HF_NEVER ? HF_S(3600) : at - hf_now();
    left = left > 0 ? left : 0;
    struct timespec ts = {.tv_sec = left / HF_NS_PER_S, .tv_nsec = left % HF_NS_PER_S};
    if (ppoll(fd, n + 1, &ts, NULL) < 0) {
        assert(errno == EINTR || errno == ENOMEM);
        fd[0].revents = fd[1].revents = fd[2].revents = 0;
    }
    if (fd[0].revents) {
        uint64_t count;
        ssize_t got = read(s->wake, &count, sizeof(count));
        (void)got;
    }
    s->now = hf_now();
    if (s->state != AWAY) {
        s->type->io(s->backend, fd + 1, n, s->now);
    }
}

static void *run(void *arg)
{
    struct hf_sip_store *s = arg;
    s->now = hf_now();
    s->retry_at = s->now;
    s->type->connect(s->backend);
    while (take_in(s)) {
        if (s->state == AWAY && s->now >= s->retry_at) {
            s->retry_at = HF_NEVER;
            s->state = CONNECTING;
            s->type->connect(s->backend);
        }
        dispatch(s);
        read_feed(s);
        sleep_until(s, next_deadline(s));
    }
    fail_all(s);
    return NULL;
}

/* ---- open and close ---- */

static void free_store(struct hf_sip_store *s)
{
    if (s->backend) {
        s->type->destroy(s->backend);
    }
    hf_map_fini(&s->lines);
    hf_buf_fini(&s->feed.text);
    pthread_mutex_destroy(&s->lock);
    if (s->wake >= 0) {
        close(s->wake);
    }
    hf_free((void *)(uintptr_t)s->conf.uri);
    hf_free((void *)(uintptr_t)s->conf.self);
    hf_free((void *)(uintptr_t)s->conf.realm);
    hf_free(s);
}

static char *copy_text(const char *text)
{
    size_t n = strlen(text) + 1;
    char *p = hf_alloc(n);
    return p ? memcpy(p, text, n) : NULL;
}

static struct hf_sip_store *make_store(const struct hf_sip_store_conf *conf,
                                       const struct hf_sip_store_events *events, void *arg)
{
    struct hf_sip_store *s = hf_alloc(sizeof(*s));
    if (!s) {
        return NULL;
    }
    s->conf = *conf;
    s->conf.uri = copy_text(conf->uri);
    s->conf.self = copy_text(conf->self);
    s->conf.realm = copy_text(conf->realm ? conf->realm : "");
    s->conf.group_commit_us = conf->group_commit_us ? conf->group_commit_us : 5000;
    s->conf.queue_max = conf->queue_max ? conf->queue_max : 100000;
    s->conf.timeout_ms = conf->timeout_ms ? conf->timeout_ms : 5000;
    s->events = *events;
    s->arg = arg;
    pthread_mutex_init(&s->lock, NULL);
    hf_list_init(&s->incoming);
    hf_list_init(&s->batches);
    for (unsigned i = 0; i < HF_SIP_LANE_COUNT_; i++) {
        hf_list_init(&s->ready[i]);
    }
    hf_prng_init(&s->chance, (uint64_t)hf_now());
    hf_map_init(&s->lines, (uint64_t)hf_wall_now() ^ (uintptr_t)s);
    hf_buf_init(&s->feed.text, FEED_BYTES);
    s->close_at = s->write_due = HF_NEVER;
    s->retry_after = RETRY_MIN;
    s->type = hf_sip_store_file(conf->uri) ? &hf_sip_backend_sqlite : &hf_sip_backend_pg;
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint8_t *room = hf_buf_reserve(&s->feed.text, FEED_BYTES);
    if (!s->conf.uri || !s->conf.self || !s->conf.realm || s->wake < 0 || !room ||
        s->type->create(s, &s->backend)) {
        free_store(s);
        return NULL;
    }
    return s;
}

int hf_sip_store_open(const struct hf_sip_store_conf *conf,
                      const struct hf_sip_store_events *events, void *arg, struct hf_err *err,
                      struct hf_sip_store **ret_store)
{
    int rc = hf_sip_sql_check(conf->uri, err);
    if (rc) {
        return rc;
    }
    if (conf->group_commit_us > 10000) {
        return hf_err_set(err, -HF_EVALUE, "the group commit takes at most 10 ms");
    }
    struct hf_sip_store *s = make_store(conf, events, arg);
    if (!s) {
        return hf_err_set(err, -ENOMEM, "no memory for the SIP store");
    }
    rc = pthread_create(&s->thread, NULL, run, s);
    if (rc) {
        free_store(s);
        return hf_err_set(err, -rc, "cannot start the SIP store's thread");
    }
    *ret_store = s;
    return 0;
}

void hf_sip_store_close(struct hf_sip_store *s)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_mutex_unlock(&s->lock);
    wake(s);
    pthread_join(s->thread, NULL);
    free_store(s);
}
