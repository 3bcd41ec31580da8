/* core/pair: the store, and a primary and a backup at both ends of a connection, step by step. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "core/pair/backup.h"
#include "core/pair/copy.h"
#include "core/pair/primary.h"
#include "support/test.h"

#define HOST 5u

/* ---- the store ---- */

static int apply(struct hf_pair_store *st, struct hf_pair_op op)
{
    uint8_t buf[512];
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_pair_op_encode_head(&w, &op);
    hf_wr_bytes(&w, op.bytes);
    assert_int_equal(hf_wr_end(&w, &s), 0);
    return hf_pair_store_apply(st, s);
}

static struct hf_slice str(const char *s)
{
    return hf_slice_str(s);
}

static void store(void **state)
{
    (void)state;
    struct hf_pair_store *st;
    assert_int_equal(hf_pair_store_create(1000, 1, &st), 0);
    assert_null(hf_pair_store_next(st, NULL));
    assert_int_equal(
        apply(st, (struct hf_pair_op){.kind = HF_PAIR_PUT, .session = 1, .bytes = str("abc")}), 0);
    assert_int_equal(
        apply(st, (struct hf_pair_op){.kind = HF_PAIR_APPEND, .session = 1, .bytes = str("def")}),
        0);
    assert_int_equal(apply(st,
                           (struct hf_pair_op){
                               .kind = HF_PAIR_SET, .session = 1, .section = 2, .name = str("n")}),
                     0);
    assert_int_equal(apply(st, (struct hf_pair_op){.kind = HF_PAIR_EXTEND,
                                                   .session = 1,
                                                   .section = 2,
                                                   .name = str("n"),
                                                   .bytes = str("xy")}),
                     0);
    assert_int_equal(apply(st, (struct hf_pair_op){.kind = HF_PAIR_SET,
                                                   .session = 1,
                                                   .section = 3,
                                                   .name = str("n"),
                                                   .bytes = str("other")}),
                     0);
    assert_int_equal(apply(st, (struct hf_pair_op){.kind = HF_PAIR_CUT, .session = 1, .n = 2}), 0);
    assert_int_equal(
        apply(st, (struct hf_pair_op){.kind = HF_PAIR_PUT, .session = 2, .bytes = str("2")}), 0);
    const struct hf_pair_session *s = hf_pair_store_find(st, 1);
    hf_assert_slice_str(hf_pair_session_section(s, 0), "cdef");
    assert_int_equal(hf_pair_session_section(s, 1).n, 0);
    assert_int_equal(hf_pair_session_section(s, HF_PAIR_SECTIONS_MAX).n, 0);
    const void *pos = NULL;
    struct hf_pair_item it;
    assert_true(hf_pair_session_item(s, 2, &pos, &it));
    hf_assert_slice_str(it.name, "n");
    hf_assert_slice_str(it.bytes, "xy");
    assert_false(hf_pair_session_item(s, 2, &pos, &it));
    /* the most recently active first */
    s = hf_pair_store_next(st, NULL);
    assert_int_equal(hf_pair_session_id(s), 2);
    s = hf_pair_store_next(st, s);
    assert_int_equal(hf_pair_session_id(s), 1);
    assert_null(hf_pair_store_next(st, s));
    assert_int_equal(apply(st, (struct hf_pair_op){.kind = HF_PAIR_UNSET,
                                                   .session = 1,
                                                   .section = 3,
                                                   .name = str("n")}),
                     0);
    assert_int_equal(hf_pair_session_id(hf_pair_store_next(st, NULL)), 1);
    assert_int_equal(
        apply(st, (struct hf_pair_op){.kind = HF_PAIR_CLEAR, .session = 1, .section = 2}), 0);
    pos = NULL;
    assert_false(hf_pair_session_item(hf_pair_store_find(st, 1), 2, &pos, &it));
    assert_int_equal(hf_pair_store_sessions(st), 2);
    assert_int_equal(hf_pair_store_bytes(st), 5);
    assert_int_equal(apply(st, (struct hf_pair_op){.kind = HF_PAIR_END, .session = 1}), 0);
    assert_int_equal(apply(st, (struct hf_pair_op){.kind = HF_PAIR_END, .session = 1}), 0);
    assert_null(hf_pair_store_find(st, 1));
    assert_int_equal(hf_pair_store_bytes(st), 1);
    hf_pair_store_destroy(st);
    hf_pair_store_destroy(NULL);
}

static void store_refuses(void **state)
{
    (void)state;
    struct hf_pair_store *st;
    struct hf_pair_op put = {.kind = HF_PAIR_PUT, .session = 1, .bytes = str("0123456789")};
    struct hf_pair_op set = {
        .kind = HF_PAIR_SET, .session = 1, .name = str("n"), .bytes = str("0123456789")};
    assert_int_equal(hf_pair_store_create(10, 1, &st), 0);
    assert_int_equal(apply(st, put), 0);
    put.kind = HF_PAIR_APPEND;
    assert_int_equal(apply(st, put), -HF_EFULL);
    assert_int_equal(apply(st, set), -HF_EFULL);
    assert_int_equal(apply(st, (struct hf_pair_op){.kind = HF_PAIR_CUT, .session = 1, .n = 11}),
                     -HF_EPROTO);
    assert_int_equal(apply(st, (struct hf_pair_op){.kind = HF_PAIR_EXTEND, .session = 1}),
                     -HF_EPROTO);
    hf_pair_store_destroy(st);
    for (int64_t i = 0;; i++) { /* each allocation in turn fails */
        hf_mem_fail_after(i);
        int rc = hf_pair_store_create(1000, 1, &st);
        if (rc == 0) {
            rc = apply(st, put);
            rc = rc ? rc : apply(st, set);
            hf_pair_store_destroy(st);
        }
        hf_mem_fail_after(-1);
        if (rc == 0) {
            break;
        }
        assert_int_equal(rc, -ENOMEM);
    }
}

/* ---- both ends ---- */

struct rig {
    struct hf_pair_primary *p;
    struct hf_pair_backup *b;
    hf_time now;
    bool up;                           /* they are connected */
    bool held;                         /* what the backup says does not get to the primary */
    bool open;                         /* the gate, as told */
    unsigned said[HF_PAIR_OUT_COUNT_]; /* how often */
    uint64_t confirmed, ask_id;
    struct hf_pair_primary_conf conf;
    uint8_t back[4096]; /* held */
    size_t n_back;
};

static struct rig r;

static struct hf_pair_primary_info info(void)
{
    struct hf_pair_primary_info i;
    hf_pair_primary_info(r.p, r.now, &i);
    return i;
}

static struct hf_pair_backup_info binfo(void)
{
    struct hf_pair_backup_info i;
    hf_pair_backup_info(r.b, &i);
    return i;
}

static void state_is(enum hf_pair_state s)
{
    assert_string_equal(hf_pair_state_name(info().state), hf_pair_state_name(s));
}

static void begin_backup(uint64_t epoch)
{
    struct hf_pair_backup_conf conf = {.epoch = epoch};
    assert_int_equal(hf_pair_backup_create(&conf, r.now, &r.b), 0);
}

static int setup(void **state)
{
    (void)state;
    memset(&r, 0, sizeof(r));
    r.now = HF_S(50);
    r.open = true;
    r.conf = (struct hf_pair_primary_conf){.epoch = 3, .incarnation = 77};
    assert_int_equal(hf_pair_primary_create(&r.conf, r.now, &r.p), 0);
    begin_backup(3);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hf_pair_primary_destroy(r.p);
    hf_pair_primary_destroy(NULL);
    hf_pair_backup_destroy(r.b);
    hf_pair_backup_destroy(NULL);
    return 0;
}

static void snapshot(uint64_t id)
{
    uint8_t bytes[8];
    struct hf_wr w;
    hf_wr_init(&w, bytes, sizeof(bytes));
    hf_wr_u64(&w, id);
    hf_pair_primary_put(r.p, id, 0, hf_slice(bytes, sizeof(bytes)));
}

static void disconnect(void)
{
    if (r.up) {
        r.up = false;
        r.n_back = 0;
        hf_pair_primary_disconnected(r.p, r.now);
        hf_pair_backup_disconnected(r.b, r.now);
    }
}

static void outs(void)
{
    struct hf_pair_out o;
    while (hf_pair_primary_next(r.p, r.now, &o)) {
        r.said[o.kind]++;
        assert_non_null(hf_pair_out_name(o.kind));
        if (o.kind == HF_PAIR_OUT_CONFIRMED) {
            assert_true(o.number > r.confirmed);
            r.confirmed = o.number;
        } else if (o.kind == HF_PAIR_OUT_SNAPSHOT) {
            snapshot(o.session);
        } else if (o.kind == HF_PAIR_OUT_CLOSE_GATE || o.kind == HF_PAIR_OUT_OPEN_GATE) {
            r.open = o.kind == HF_PAIR_OUT_OPEN_GATE;
        } else if (o.kind == HF_PAIR_OUT_ASK_SOLO || o.kind == HF_PAIR_OUT_ASK_RECORD) {
            r.ask_id = o.id;
        } else if (o.kind == HF_PAIR_OUT_CLOSE && r.up) {
            r.up = false;
            hf_pair_backup_disconnected(r.b, r.now);
        }
    }
}

/* Bytes to the backup, in pieces; what it answers, unless that is held. */
static void talk(void)
{
    for (bool more = true; more;) {
        outs();
        struct hf_slice s = hf_pair_primary_tosend(r.p);
        more = r.up && s.n;
        if (more) {
            size_t n = s.n > 100 ? 100 : s.n;
            hf_pair_backup_received(r.b, hf_slice(s.p, n), r.now);
            hf_pair_primary_sent(r.p, n);
        }
        s = hf_pair_backup_tosend(r.b);
        if (r.up && s.n && !r.held) {
            more = true;
            size_t n = s.n > 7 ? 7 : s.n;
            uint8_t copy[7];
            memcpy(copy, s.p, n);
            hf_pair_backup_sent(r.b, n);
            hf_pair_primary_received(r.p, hf_slice(copy, n), r.now);
        }
        if (hf_pair_backup_closes(r.b)) {
            disconnect();
            more = true;
        }
    }
}

static void connect_up(void)
{
    outs();
    assert_true(r.said[HF_PAIR_OUT_CONNECT] > 0);
    r.up = true;
    hf_pair_primary_connected(r.p, r.now);
    hf_pair_backup_connected(r.b, r.now);
}

static uint64_t append(uint64_t session, const char *text)
{
    hf_pair_primary_append(r.p, session, 1, str(text));
    return hf_pair_primary_seal(r.p, r.now);
}

static void begins(uint64_t session)
{
    assert_int_equal(hf_pair_primary_begin(r.p, session), 0);
    snapshot(session);
    (void)hf_pair_primary_seal(r.p, r.now);
}

/* Until the group is asked to record the backup. */
static void up_to_recording(void)
{
    hf_pair_primary_backup(r.p, HOST, r.now);
    connect_up();
    talk();
    assert_false(r.open);
    hf_pair_primary_gated(r.p, r.now);
    talk();
    state_is(HF_PAIR_STATE_RECORDING);
    assert_int_equal(r.said[HF_PAIR_OUT_ASK_RECORD], 1);
}

static void up_to_in_sync(void)
{
    up_to_recording();
    hf_pair_primary_answer(r.p, r.ask_id, true, r.now);
    state_is(HF_PAIR_STATE_IN_SYNC);
    talk();
}

static void pass(hf_time t)
{
    r.now += t;
    hf_pair_primary_step(r.p, r.now);
    hf_pair_backup_step(r.b, r.now);
}

static void alone(void **state)
{
    (void)state;
    state_is(HF_PAIR_STATE_NO_BACKUP);
    assert_int_equal(hf_pair_primary_seal(r.p, r.now), 0);
    begins(1);
    assert_int_equal(hf_pair_primary_seal(r.p, r.now), 1);
    outs();
    assert_int_equal(r.confirmed, 1);
    assert_true(hf_pair_primary_may(r.p, 1, r.now));
    assert_false(hf_pair_primary_may(r.p, 2, r.now));
    assert_false(hf_pair_primary_full(r.p));
    assert_true(info().solo && info().gate_open && info().leased);
    assert_true(info().unprotected_since == HF_S(50));
    hf_pair_primary_end(r.p, 1);
    assert_int_equal(hf_pair_primary_seal(r.p, r.now), 2);
    assert_int_equal(info().sessions, 0);
    assert_true(hf_pair_primary_deadline(r.p) == HF_NEVER);
}

static void in_sync(void **state)
{
    (void)state;
    begins(1);
    begins(2);
    assert_int_equal(hf_pair_primary_seal(r.p, r.now), 2);
    up_to_in_sync();
    assert_int_equal(r.said[HF_PAIR_OUT_SNAPSHOT], 2);
    assert_true(info().unprotected_since == HF_NEVER);
    uint64_t n = append(1, "hello");
    assert_false(hf_pair_primary_may(r.p, n, r.now));
    assert_true(info().lag_batches == 1 && info().lag_bytes > 5);
    talk();
    assert_true(hf_pair_primary_may(r.p, n, r.now));
    assert_int_equal(r.confirmed, n);
    assert_int_equal(info().lag_bytes, 0);
    const struct hf_pair_store *st = hf_pair_backup_store(r.b);
    hf_assert_slice_str(hf_pair_session_section(hf_pair_store_find(st, 1), 1), "hello");
    assert_int_equal(hf_pair_store_sessions(st), 2);
    assert_string_equal(hf_pair_backup_state_name(binfo().state), "following");
    assert_true(binfo().complete && binfo().number == n && binfo().incarnation == 77);
    assert_true(hf_pair_backup_usable(r.b, 3));
    assert_false(hf_pair_backup_usable(r.b, 4));
    assert_int_equal(hf_pair_primary_counters(r.p)->recorded, 1);
    assert_int_equal(hf_pair_backup_counters(r.b)->synced, 1);
}

static void items_and_long_bytes(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    static uint8_t many[300000];
    for (size_t i = 0; i < sizeof(many); i++) {
        many[i] = (uint8_t)(i * 7 + i / 1000);
    }
    hf_pair_primary_set(r.p, 1, 4, str("long"), hf_slice(many, sizeof(many)));
    hf_pair_primary_set(r.p, 1, 4, str("gone"), str("x"));
    hf_pair_primary_unset(r.p, 1, 4, str("gone"));
    hf_pair_primary_put(r.p, 1, 5, hf_slice(many, sizeof(many)));
    hf_pair_primary_cut(r.p, 1, 5, 1000);
    hf_pair_primary_put(r.p, 1, 6, str("x"));
    hf_pair_primary_clear(r.p, 1, 6);
    uint64_t n = hf_pair_primary_seal(r.p, r.now);
    talk();
    assert_int_equal(r.confirmed, n);
    const struct hf_pair_session *s = hf_pair_store_find(hf_pair_backup_store(r.b), 1);
    struct hf_pair_item it;
    const void *pos = NULL;
    assert_true(hf_pair_session_item(s, 4, &pos, &it));
    assert_true(hf_slice_eq(it.bytes, hf_slice(many, sizeof(many))));
    assert_false(hf_pair_session_item(s, 4, &pos, &it));
    assert_true(
        hf_slice_eq(hf_pair_session_section(s, 5), hf_slice(many + 1000, sizeof(many) - 1000)));
    assert_int_equal(hf_pair_session_section(s, 6).n, 0);
}

/* A batch in several frames of which the last one is missing is not there. */
static void whole_or_not_at_all(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    static uint8_t many[200000];
    hf_pair_primary_append(r.p, 1, 1, hf_slice(many, sizeof(many)));
    uint64_t n = hf_pair_primary_seal(r.p, r.now);
    struct hf_slice s = hf_pair_primary_tosend(r.p);
    hf_pair_backup_received(r.b, hf_slice(s.p, s.n - 1), r.now);
    hf_pair_primary_sent(r.p, s.n - 1);
    const struct hf_pair_session *in = hf_pair_store_find(hf_pair_backup_store(r.b), 1);
    assert_int_equal(hf_pair_session_section(in, 1).n, 0);
    assert_int_equal(binfo().number, n - 1);
    disconnect();
    in = hf_pair_store_find(hf_pair_backup_store(r.b), 1);
    assert_int_equal(hf_pair_session_section(in, 1).n, 0);
    /* what was kept goes again */
    state_is(HF_PAIR_STATE_LOST);
    pass(HF_MS(100));
    connect_up();
    talk();
    in = hf_pair_store_find(hf_pair_backup_store(r.b), 1);
    assert_int_equal(hf_pair_session_section(in, 1).n, sizeof(many));
    assert_int_equal(hf_pair_primary_counters(r.p)->resumes, 1);
    assert_int_equal(hf_pair_primary_counters(r.p)->syncs, 1);
}

static void lost_and_alone(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    disconnect();
    uint64_t n = append(1, "x");
    outs();
    assert_false(hf_pair_primary_may(r.p, n, r.now));
    assert_int_equal(r.said[HF_PAIR_OUT_ASK_SOLO], 0);
    pass(HF_MS(20));
    outs();
    assert_int_equal(r.said[HF_PAIR_OUT_ASK_SOLO], 1);
    hf_pair_primary_answer(r.p, r.ask_id - 1, true, r.now); /* of something else */
    hf_pair_primary_answer(r.p, r.ask_id, false, r.now);    /* refused: asked again */
    assert_false(hf_pair_primary_may(r.p, n, r.now));
    pass(HF_MS(500));
    outs();
    assert_int_equal(r.said[HF_PAIR_OUT_ASK_SOLO], 2);
    hf_pair_primary_answer(r.p, r.ask_id, true, r.now);
    state_is(HF_PAIR_STATE_CONNECTING);
    assert_true(hf_pair_primary_may(r.p, n, r.now));
    outs();
    assert_true(r.open);
    assert_int_equal(r.confirmed, n);
    assert_int_equal(hf_pair_primary_counters(r.p)->solos, 1);
}

/* Nothing has happened while it was alone: no snapshot is needed, but the group must be asked; and
 * what is sealed before the gate closes is confirmed before that (takeover.md h). */
static void back_in_time(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    disconnect();
    pass(HF_MS(100));
    outs();
    hf_pair_primary_answer(r.p, r.ask_id, true, r.now);
    connect_up();
    r.held = true;
    talk(); /* HELLO got there */
    r.held = false;
    struct hf_slice s = hf_pair_backup_tosend(r.b);
    uint8_t welcome[100];
    size_t n_welcome = s.n;
    memcpy(welcome, s.p, s.n);
    hf_pair_backup_sent(r.b, s.n);
    hf_pair_primary_received(r.p, hf_slice(welcome, n_welcome), r.now);
    state_is(HF_PAIR_STATE_SYNCING);
    outs();
    assert_false(r.open);
    uint64_t before = append(1, "let out at once");
    assert_true(hf_pair_primary_may(r.p, before, r.now));
    r.held = true;
    talk(); /* its confirm is on the way when the gate closes */
    hf_pair_primary_gated(r.p, r.now);
    s = hf_pair_backup_tosend(r.b);
    n_welcome = s.n;
    memcpy(welcome, s.p, s.n);
    hf_pair_backup_sent(r.b, s.n);
    hf_pair_primary_received(r.p, hf_slice(welcome, n_welcome), r.now);
    state_is(HF_PAIR_STATE_SYNCING); /* not yet: the last batch is not confirmed */
    r.held = false;
    talk();
    state_is(HF_PAIR_STATE_RECORDING);
    assert_int_equal(hf_pair_primary_counters(r.p)->syncs, 1);
}

/* It lost its store while it was counted on: its confirms count for nothing until it is filled. */
static void came_back_empty(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    disconnect();
    uint64_t n = append(1, "x");
    hf_pair_backup_destroy(r.b);
    begin_backup(3);
    pass(HF_MS(100));
    r.said[HF_PAIR_OUT_ASK_SOLO] = 0;
    connect_up();
    r.conf.snapshot_window = 1;
    talk();
    assert_int_equal(r.said[HF_PAIR_OUT_ASK_SOLO], 1);
    state_is(HF_PAIR_STATE_RECORDING); /* filled while nobody was let out */
    assert_true(hf_pair_primary_may(r.p, n, r.now));
    assert_false(r.open);
    hf_pair_primary_answer(r.p, r.ask_id, true, r.now);
    state_is(HF_PAIR_STATE_IN_SYNC);
}

static void filling_does_not_count(void **state)
{
    (void)state;
    r.conf.snapshot_window = 1;
    hf_pair_primary_destroy(r.p);
    assert_int_equal(hf_pair_primary_create(&r.conf, r.now, &r.p), 0);
    begins(1);
    begins(2);
    up_to_in_sync();
    disconnect();
    uint64_t n = append(1, "x");
    hf_pair_backup_destroy(r.b);
    begin_backup(3);
    pass(HF_MS(100));
    connect_up();
    for (int i = 0; i < 100 && info().unsent != 1; i++) { /* one of two sessions is sent */
        outs();
        struct hf_slice s = hf_pair_primary_tosend(r.p);
        hf_pair_backup_received(r.b, s, r.now);
        hf_pair_primary_sent(r.p, s.n);
        s = hf_pair_backup_tosend(r.b);
        uint8_t copy[4096];
        memcpy(copy, s.p, s.n);
        hf_pair_backup_sent(r.b, s.n);
        hf_pair_primary_received(r.p, hf_slice(copy, s.n), r.now);
    }
    assert_int_equal(info().unsent, 1);
    n = append(1, "y");
    struct hf_slice s = hf_pair_primary_tosend(r.p);
    hf_pair_backup_received(r.b, s, r.now);
    hf_pair_primary_sent(r.p, s.n);
    s = hf_pair_backup_tosend(r.b);
    hf_pair_primary_received(r.p, s, r.now);
    assert_false(info().solo);
    assert_false(hf_pair_primary_may(r.p, n, r.now));
}

static void silent_and_slow(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    /* heartbeats keep it up, and tell times */
    for (int i = 0; i < 100; i++) {
        pass(HF_MS(10));
        talk();
    }
    state_is(HF_PAIR_STATE_IN_SYNC);
    assert_int_equal(info().rtt, 0);
    assert_true(binfo().clocked && binfo().clock_offset == 0);
    assert_true(hf_pair_backup_deadline(r.b) == r.now + HF_MS(100));
    /* nothing comes back */
    r.held = true;
    append(1, "x");
    talk();
    for (int i = 0; i < 11 && r.up; i++) {
        pass(HF_MS(10));
        talk();
    }
    state_is(HF_PAIR_STATE_LOST);
    assert_int_equal(hf_pair_primary_counters(r.p)->silences, 1);
    assert_int_equal(info().code, -HF_ETIMEOUT);
    assert_int_equal(r.said[HF_PAIR_OUT_CLOSE], 1);
    /* the backup hears nothing */
    r.held = false;
    pass(HF_MS(100));
    connect_up();
    talk();
    r.now += HF_MS(100);
    hf_pair_backup_step(r.b, r.now);
    assert_true(hf_pair_backup_closes(r.b));
    assert_string_equal(hf_pair_backup_state_name(binfo().state), "waiting");
    assert_int_equal(hf_pair_backup_counters(r.b)->silences, 1);
    assert_true(binfo().complete);
}

/* Of two clocks the difference with the shortest way counts. */
static void clocks(void **state)
{
    (void)state;
    static const int delay_ms[] = {9, 7, 3, 8};
    begins(1);
    up_to_in_sync();
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < HF_ARRAY_LEN(delay_ms); i++) {
            pass(HF_MS(10));
            outs();
            struct hf_slice s = hf_pair_primary_tosend(r.p);
            r.now += HF_MS(delay_ms[i]);
            hf_pair_backup_received(r.b, s, r.now);
            hf_pair_primary_sent(r.p, s.n);
            talk();
        }
    }
    assert_true(binfo().clock_offset == HF_MS(3));
    assert_true(info().rtt == HF_MS(3));
}

static void a_slow_one_is_given_up(void **state)
{
    (void)state;
    r.conf.confirm_timeout = HF_MS(50);
    hf_pair_primary_destroy(r.p);
    assert_int_equal(hf_pair_primary_create(&r.conf, r.now, &r.p), 0);
    begins(1);
    up_to_in_sync();
    append(1, "x"); /* not sent */
    pass(HF_MS(50));
    outs();
    state_is(HF_PAIR_STATE_LOST);
    assert_int_equal(hf_pair_primary_counters(r.p)->slow, 1);
}

static void full(void **state)
{
    (void)state;
    r.conf.unconfirmed_max = 1000;
    r.conf.batches_max = 4;
    r.conf.retained_max = 5000;
    hf_pair_primary_destroy(r.p);
    assert_int_equal(hf_pair_primary_create(&r.conf, r.now, &r.p), 0);
    begins(1);
    up_to_in_sync();
    for (int i = 0; i < 4; i++) {
        assert_false(hf_pair_primary_full(r.p));
        append(1, "x");
    }
    assert_true(hf_pair_primary_full(r.p));
    uint64_t n = append(1, "one more"); /* together with the one before */
    talk();
    assert_false(hf_pair_primary_full(r.p));
    assert_int_equal(r.confirmed, n);
    static uint8_t many[6000];
    hf_pair_primary_append(r.p, 1, 1, hf_slice(many, 1000));
    assert_true(hf_pair_primary_full(r.p));
    hf_pair_primary_append(r.p, 1, 1, hf_slice(many, sizeof(many)));
    n = hf_pair_primary_seal(r.p, r.now);
    talk(); /* too much: lost, never wrong */
    state_is(HF_PAIR_STATE_LOST);
    assert_false(hf_pair_primary_may(r.p, n, r.now));
    assert_int_equal(hf_pair_primary_counters(r.p)->overflows, 1);
    assert_true(hf_pair_primary_full(r.p));
}

static void lease(void **state)
{
    (void)state;
    hf_pair_primary_lease(r.p, r.now + HF_MS(10), r.now);
    begins(1);
    uint64_t n = hf_pair_primary_seal(r.p, r.now);
    assert_true(hf_pair_primary_may(r.p, n, r.now));
    assert_true(hf_pair_primary_deadline(r.p) == r.now + HF_MS(10));
    pass(HF_MS(10));
    assert_false(hf_pair_primary_may(r.p, n, r.now));
    outs();
    assert_int_equal(r.confirmed, 0);
    assert_int_equal(hf_pair_primary_counters(r.p)->leases_expired, 1);
    hf_pair_primary_lease(r.p, HF_NEVER, r.now);
    outs();
    assert_int_equal(r.confirmed, n);
}

static void another_host(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    uint64_t n = append(1, "x");
    hf_pair_primary_backup(r.p, HOST + 1, r.now);
    outs();
    state_is(HF_PAIR_STATE_LOST);
    assert_int_equal(r.said[HF_PAIR_OUT_ASK_SOLO], 1);
    uint64_t solo = r.ask_id;
    hf_pair_backup_destroy(r.b);
    begin_backup(3);
    connect_up();
    talk(); /* it has everything, but the group would promote the other one */
    state_is(HF_PAIR_STATE_SYNCING);
    assert_true(binfo().complete);
    assert_false(hf_pair_primary_may(r.p, n, r.now));
    hf_pair_primary_answer(r.p, solo, true, r.now);
    state_is(HF_PAIR_STATE_RECORDING);
    assert_true(hf_pair_primary_may(r.p, n, r.now));
    hf_pair_primary_backup(r.p, 0, r.now);
    outs();
    state_is(HF_PAIR_STATE_LOST);
    pass(HF_MS(20));
    outs();
    hf_pair_primary_answer(r.p, r.ask_id, true, r.now);
    state_is(HF_PAIR_STATE_NO_BACKUP);
}

/* What another epoch says is dropped and counted, whoever says it. */
static void other_epochs(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    uint64_t n = append(1, "x");
    uint8_t buf[100];
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_pair_v1_encode(&w,
                      &(struct hf_pair_v1_frame){
                          .type = HF_PAIR_V1_CONFIRM, .epoch = 2, .number = n, .complete = true});
    assert_int_equal(hf_wr_end(&w, &s), 0);
    hf_pair_primary_received(r.p, s, r.now);
    assert_false(hf_pair_primary_may(r.p, n, r.now));
    assert_int_equal(hf_pair_primary_counters(r.p)->other_epoch, 1);
    hf_wr_init(&w, buf, sizeof(buf));
    hf_pair_v1_encode(
        &w, &(struct hf_pair_v1_frame){.type = HF_PAIR_V1_BATCH, .epoch = 2, .number = n});
    assert_int_equal(hf_wr_end(&w, &s), 0);
    hf_pair_backup_received(r.b, s, r.now);
    assert_int_equal(binfo().number, n - 1);
    assert_int_equal(hf_pair_backup_counters(r.b)->other_epoch, 1);
    talk();
    assert_int_equal(r.confirmed, n);
    /* a new reign: the connection ends, and an old primary is not greeted any more */
    hf_pair_backup_epoch(r.b, 4, r.now);
    assert_false(hf_pair_backup_usable(r.b, 3));
    talk();
    assert_false(r.up);
    pass(HF_MS(100));
    connect_up();
    talk();
    assert_false(r.up);
    assert_int_equal(hf_pair_backup_counters(r.b)->other_epoch, 2);
    assert_int_equal(info().state, HF_PAIR_STATE_LOST);
}

/* The same epoch, but another process: what the backup has is not its. */
static void another_incarnation(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    disconnect();
    hf_pair_primary_destroy(r.p);
    r.conf.incarnation++;
    assert_int_equal(hf_pair_primary_create(&r.conf, r.now, &r.p), 0);
    r.open = true;
    r.confirmed = 0;
    r.said[HF_PAIR_OUT_SNAPSHOT] = r.said[HF_PAIR_OUT_ASK_RECORD] = 0;
    for (int i = 0; i < 3; i++) {
        begins(10 + (uint64_t)i);
        hf_pair_primary_seal(r.p, r.now);
    }
    up_to_recording();
    assert_int_equal(r.said[HF_PAIR_OUT_SNAPSHOT], 3);
    assert_int_equal(hf_pair_store_sessions(hf_pair_backup_store(r.b)), 3);
}

static void taken(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    uint64_t n = append(1, "last");
    struct hf_slice s = hf_pair_primary_tosend(r.p);
    hf_pair_backup_received(r.b, s, r.now);
    hf_pair_primary_sent(r.p, s.n);
    struct hf_pair_store *st = hf_pair_backup_take(r.b); /* the confirm does not get out */
    assert_non_null(st);
    hf_assert_slice_str(hf_pair_session_section(hf_pair_store_find(st, 1), 1), "last");
    assert_int_equal(hf_pair_backup_tosend(r.b).n, 0);
    assert_true(hf_pair_backup_closes(r.b));
    assert_null(hf_pair_backup_take(r.b));
    assert_null(hf_pair_backup_store(r.b));
    hf_pair_backup_connected(r.b, r.now);
    hf_pair_backup_received(r.b, s, r.now);
    assert_true(hf_pair_backup_counters(r.b)->other_epoch > 0);
    assert_false(hf_pair_primary_may(r.p, n, r.now));
    hf_pair_store_destroy(st);
}

static void bye(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    hf_pair_primary_bye(r.p, -HF_ECLOSED, r.now);
    talk();
    assert_false(r.up);
    assert_int_equal(binfo().code, -HF_ECLOSED);
    assert_true(binfo().complete);
}

/* Frames that make no sense end the connection, and nothing else. */
static void nonsense(void **state)
{
    (void)state;
    begins(1);
    up_to_in_sync();
    const struct hf_pair_v1_frame to_backup[] = {
        {.type = HF_PAIR_V1_CONFIRM, .epoch = 3, .number = 1},
        {.type = HF_PAIR_V1_BATCH, .epoch = 3, .number = 99},
        {.type = HF_PAIR_V1_SYNC, .epoch = 3, .number = 99},
        {.type = HF_PAIR_V1_HELLO, .epoch = 3, .version_min = 1, .version = 1, .incarnation = 1},
    };
    uint8_t buf[100];
    struct hf_wr w;
    struct hf_slice s;
    for (size_t i = 0; i < HF_ARRAY_LEN(to_backup); i++) {
        hf_wr_init(&w, buf, sizeof(buf));
        hf_pair_v1_encode(&w, &to_backup[i]);
        assert_int_equal(hf_wr_end(&w, &s), 0);
        hf_pair_backup_received(r.b, s, r.now);
        assert_int_equal(hf_pair_backup_counters(r.b)->malformed, i + 1);
        assert_true(binfo().complete);
        talk();
        assert_false(r.up);
        pass(HF_MS(100));
        connect_up();
        talk();
        pass(HF_MS(10));
        talk();
    }
    const struct hf_pair_v1_frame to_primary[] = {
        {.type = HF_PAIR_V1_CONFIRM, .epoch = 3, .number = 99, .complete = true},
        {.type = HF_PAIR_V1_CONFIRM, .epoch = 3, .number = 1},
        {.type = HF_PAIR_V1_WELCOME, .epoch = 3, .version = 1},
        {.type = HF_PAIR_V1_SYNC, .epoch = 3, .number = 99},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(to_primary); i++) {
        hf_wr_init(&w, buf, sizeof(buf));
        hf_pair_v1_encode(&w, &to_primary[i]);
        assert_int_equal(hf_wr_end(&w, &s), 0);
        hf_pair_primary_received(r.p, s, r.now);
        assert_int_equal(hf_pair_primary_counters(r.p)->malformed, i + 1);
        state_is(HF_PAIR_STATE_LOST);
        outs();
        pass(HF_MS(100));
        connect_up();
        talk();
        assert_true(r.up);
    }
    /* a confirm of what was never sent */
    uint64_t n = append(1, "x");
    hf_wr_init(&w, buf, sizeof(buf));
    hf_pair_v1_encode(&w,
                      &(struct hf_pair_v1_frame){
                          .type = HF_PAIR_V1_CONFIRM, .epoch = 3, .number = n, .complete = true});
    assert_int_equal(hf_wr_end(&w, &s), 0);
    hf_pair_primary_received(r.p, s, r.now);
    assert_int_equal(hf_pair_primary_counters(r.p)->malformed, 5);
    assert_false(hf_pair_primary_may(r.p, n, r.now));
    outs();
    /* a WELCOME with batches that there never were, or of a later protocol */
    for (uint64_t i = 0; i < 2; i++) {
        pass(HF_MS(100));
        outs();
        hf_pair_primary_connected(r.p, r.now);
        hf_wr_init(&w, buf, sizeof(buf));
        hf_pair_v1_encode(&w, &(struct hf_pair_v1_frame){.type = HF_PAIR_V1_WELCOME,
                                                         .epoch = 3,
                                                         .version = i ? 2 : 1,
                                                         .complete = true,
                                                         .incarnation = 77,
                                                         .number = n + 100});
        assert_int_equal(hf_wr_end(&w, &s), 0);
        hf_pair_primary_received(r.p, s, r.now);
        assert_false(hf_pair_primary_may(r.p, n, r.now));
        assert_string_equal(hf_pair_state_name(info().state), i ? "lost" : "syncing");
        assert_int_equal(info().code == -HF_EVERSION, i == 1);
        hf_pair_primary_disconnected(r.p, r.now);
        outs();
    }
    /* that one is tried again, but not ten times a second */
    unsigned connects = r.said[HF_PAIR_OUT_CONNECT];
    pass(HF_S(1));
    outs();
    assert_int_equal(r.said[HF_PAIR_OUT_CONNECT], connects);
    pass(HF_S(5));
    outs();
    assert_int_equal(r.said[HF_PAIR_OUT_CONNECT], connects + 1);
}

/* Whatever can't be had: no wrong store is ever taken for a right one. */
static void no_memory(void **state)
{
    (void)state;
    for (int64_t i = 0; i < 120; i++) {
        teardown(NULL);
        setup(NULL);
        begins(1);
        up_to_in_sync();
        static uint8_t many[70000];
        hf_mem_fail_after(i);
        int rc = hf_pair_primary_begin(r.p, 2);
        if (rc == 0) {
            snapshot(2);
            hf_pair_primary_set(r.p, 2, 3, str("name"), hf_slice(many, sizeof(many)));
        }
        uint64_t n = append(1, "x");
        talk();
        hf_mem_fail_after(-1);
        const struct hf_pair_store *st = hf_pair_backup_store(r.b);
        if (hf_pair_primary_may(r.p, n, r.now)) {
            assert_int_equal(binfo().number, n);
            hf_assert_slice_str(hf_pair_session_section(hf_pair_store_find(st, 1), 1), "x");
            assert_true(rc != 0 || hf_pair_store_find(st, 2));
        } else {
            state_is(HF_PAIR_STATE_LOST);
        }
    }
    hf_mem_fail_after(0);
    struct hf_pair_primary *p;
    struct hf_pair_backup *b;
    struct hf_pair_backup_conf conf = {.epoch = 1};
    assert_int_equal(hf_pair_primary_create(&r.conf, r.now, &p), -ENOMEM);
    assert_int_equal(hf_pair_backup_create(&conf, r.now, &b), -ENOMEM);
    hf_mem_fail_after(1);
    assert_int_equal(hf_pair_primary_create(&r.conf, r.now, &p), -ENOMEM);
    hf_mem_fail_after(-1);
}

static void begin_owed(void)
{
    hf_pair_primary_destroy(r.p);
    r.conf.owed = HOST;
    assert_int_equal(hf_pair_primary_create(&r.conf, r.now, &r.p), 0);
    state_is(HF_PAIR_STATE_LOST);
    assert_false(info().solo || info().gate_open);
    assert_int_equal(info().backup, HOST);
    begins(1);
    outs();
    assert_false(r.open); /* told at once */
    assert_int_equal(r.said[HF_PAIR_OUT_CLOSE_GATE], 1);
    assert_true(hf_pair_primary_full(r.p));
}

/* The same copy is promoted once more, and the group has kept its set: nothing gets out before it
 * has let go of the other one. */
static void owed_from_the_beginning(void **state)
{
    (void)state;
    begin_owed();
    pass(0);
    outs();
    assert_int_equal(r.said[HF_PAIR_OUT_ASK_SOLO], 1);
    assert_false(hf_pair_primary_may(r.p, 1, r.now));
    hf_pair_primary_answer(r.p, r.ask_id, true, r.now);
    outs();
    assert_true(r.open && info().solo);
    assert_int_equal(r.confirmed, 1);
    state_is(HF_PAIR_STATE_CONNECTING);
}

/* ... or before that one has everything. */
static void owed_and_there(void **state)
{
    (void)state;
    begin_owed();
    connect_up();
    talk();
    state_is(HF_PAIR_STATE_RECORDING);
    assert_int_equal(r.confirmed, info().sealed);
    hf_pair_primary_answer(r.p, r.ask_id, true, r.now);
    state_is(HF_PAIR_STATE_IN_SYNC);
    assert_false(r.open || info().solo);
    assert_true(hf_pair_backup_usable(r.b, 3));
}

/* ---- a copy ---- */

struct told {
    uint64_t n; /* sessions */
    size_t long_n;
    const uint8_t *bytes;
};

static bool tell_next(void *arg, struct hf_pair_primary *to)
{
    struct told *t = arg;
    if (t->n == 0) {
        return false;
    }
    assert_int_equal(hf_pair_primary_begin(to, t->n), 0);
    hf_pair_primary_put(to, t->n, 1, hf_slice(t->bytes, t->long_n));
    hf_pair_primary_append(to, t->n, 1, str("and more"));
    hf_pair_primary_set(to, t->n, 2, str("name"), str("value"));
    t->n--;
    return true;
}

/* Who is demoted has what its sessions were, without anybody else. */
static void a_copy(void **state)
{
    (void)state;
    static uint8_t bytes[3 << 20];
    struct hf_pair_store *st;
    struct told t = {.bytes = bytes};
    memset(bytes, 'x', sizeof(bytes));
    assert_int_equal(hf_pair_copy(tell_next, &t, 7, HF_S(5), &st), 0);
    assert_int_equal(hf_pair_store_sessions(st), 0);
    hf_pair_store_destroy(st);
    t.n = 100;
    t.long_n = sizeof(bytes) / 10;
    assert_int_equal(hf_pair_copy(tell_next, &t, 7, HF_S(5), &st), 0);
    assert_int_equal(hf_pair_store_sessions(st), 100);
    for (uint64_t id = 1; id <= 100; id++) {
        const struct hf_pair_session *s = hf_pair_store_find(st, id);
        const void *pos = NULL;
        struct hf_pair_item it;
        struct hf_slice long_one = hf_pair_session_section(s, 1);
        assert_int_equal(long_one.n, t.long_n + 8);
        hf_assert_slice_str(hf_slice(long_one.p + t.long_n, 8), "and more");
        assert_true(hf_pair_session_item(s, 2, &pos, &it));
        hf_assert_slice_str(it.bytes, "value");
    }
    hf_pair_store_destroy(st);
    t.n = 1;
    t.long_n = HF_PAIR_BATCH_MAX; /* no backup would take it */
    uint8_t *huge = hf_alloc(t.long_n);
    t.bytes = huge;
    assert_non_null(huge);
    assert_int_equal(hf_pair_copy(tell_next, &t, 7, HF_S(5), &st), -HF_EFULL);
    assert_null(st);
    hf_free(huge);
}

int main(void)
{
#define WITH_RIG(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        HF_TEST(store),
        HF_TEST(store_refuses),
        WITH_RIG(alone),
        WITH_RIG(in_sync),
        WITH_RIG(items_and_long_bytes),
        WITH_RIG(whole_or_not_at_all),
        WITH_RIG(lost_and_alone),
        WITH_RIG(back_in_time),
        WITH_RIG(came_back_empty),
        WITH_RIG(filling_does_not_count),
        WITH_RIG(silent_and_slow),
        WITH_RIG(clocks),
        WITH_RIG(a_slow_one_is_given_up),
        WITH_RIG(full),
        WITH_RIG(lease),
        WITH_RIG(another_host),
        WITH_RIG(other_epochs),
        WITH_RIG(another_incarnation),
        WITH_RIG(taken),
        WITH_RIG(bye),
        WITH_RIG(nonsense),
        WITH_RIG(no_memory),
        WITH_RIG(owed_from_the_beginning),
        WITH_RIG(owed_and_there),
        HF_TEST(a_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
