/* core/sip/assign: epochs, the feed, assertions, memory. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/prng.h"
#include "core/sip/assign.h"
#include "support/test.h"

enum { SELF = 0, BETA = 1, GAMMA = 2 };

static struct hf_sip_assign *cache(size_t bytes_max)
{
    struct hf_sip_assign *a;
    assert_int_equal(
        hf_sip_assign_create(
            &(struct hf_sip_assign_conf){.self = SELF, .seed = 7, .bytes_max = bytes_max},
            HF_S(1000), &a),
        0);
    return a;
}

static struct hf_sip_row row(const char *aor, uint16_t current, uint64_t epoch)
{
    return (struct hf_sip_row){
        .aor = hf_slice_str(aor), .home = current, .current = current, .epoch = epoch};
}

static enum hf_sip_apply read_row(struct hf_sip_assign *a, struct hf_sip_row r)
{
    return hf_sip_assign_read(a, &r);
}

static enum hf_sip_apply changed(struct hf_sip_assign *a, struct hf_sip_row r)
{
    return hf_sip_assign_changed(a, &r);
}

static void has(struct hf_sip_assign *a, const char *aor, uint16_t current, uint64_t epoch)
{
    struct hf_sip_row r;
    assert_true(hf_sip_assign_get(a, hf_slice_str(aor), &r));
    hf_assert_slice_str(r.aor, aor);
    assert_int_equal(r.current, current);
    assert_int_equal(r.epoch, epoch);
}

static void test_epochs(void **state)
{
    (void)state;
    struct hf_sip_assign *a = cache(0);
    struct hf_sip_row r;
    assert_false(hf_sip_assign_get(a, hf_slice_str("sip:x"), &r));
    assert_int_equal(read_row(a, row("sip:x", BETA, 3)), HF_SIP_APPLY_NEW);
    assert_int_equal(read_row(a, row("sip:x", BETA, 3)), HF_SIP_APPLY_SAME);
    assert_int_equal(read_row(a, row("sip:x", SELF, 2)), HF_SIP_APPLY_OLDER);
    has(a, "sip:x", BETA, 3);
    assert_int_equal(changed(a, row("sip:x", GAMMA, 4)), HF_SIP_APPLY_NEWER);
    assert_int_equal(changed(a, row("sip:x", SELF, 5)), HF_SIP_APPLY_GAINED);
    assert_int_equal(read_row(a, row("sip:x", SELF, 6)), HF_SIP_APPLY_NEWER);
    assert_int_equal(changed(a, row("sip:x", BETA, 7)), HF_SIP_APPLY_LOST);
    has(a, "sip:x", BETA, 7);
    /* only of a database that was restored: the later word counts */
    assert_int_equal(read_row(a, row("sip:x", GAMMA, 7)), HF_SIP_APPLY_NEWER);
    has(a, "sip:x", GAMMA, 7);
    assert_int_equal(hf_sip_assign_counters(a)->conflicts, 1);
    assert_int_equal(hf_sip_assign_counters(a)->rows_older, 1);
    assert_string_equal(hf_sip_apply_name(HF_SIP_APPLY_GAINED), "gained");
    assert_string_equal(hf_sip_apply_name(HF_SIP_APPLY_COUNT_), "?");
    hf_sip_assign_destroy(a);
    hf_sip_assign_destroy(NULL);
}

static void test_bad_rows(void **state)
{
    (void)state;
    struct hf_sip_assign *a = cache(0);
    char longer[HF_SIP_AOR_MAX + 2];
    memset(longer, 'a', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    assert_int_equal(read_row(a, row("", BETA, 1)), HF_SIP_APPLY_BAD);
    assert_int_equal(read_row(a, row(longer, BETA, 1)), HF_SIP_APPLY_BAD);
    assert_int_equal(read_row(a, row("x", BETA, 0)), HF_SIP_APPLY_BAD);
    assert_int_equal(read_row(a, row("x", BETA, 1ull << 63)), HF_SIP_APPLY_BAD);
    assert_int_equal(read_row(a, row("x", HF_SIP_NONE, 1)), HF_SIP_APPLY_BAD);
    struct hf_sip_row r = row("x", BETA, 1);
    r.agent = HF_SIP_AGENT_COUNT_;
    assert_int_equal(read_row(a, r), HF_SIP_APPLY_BAD);
    longer[HF_SIP_AOR_MAX] = 0;
    assert_int_equal(read_row(a, row(longer, BETA, 1)), HF_SIP_APPLY_NEW);
    has(a, longer, BETA, 1);
    assert_int_equal(hf_sip_assign_counters(a)->rows_bad, 6);
    hf_sip_assign_destroy(a);
}

/* The feed brings what is ours, and changes of what we have; nothing else. */
static void test_feed(void **state)
{
    (void)state;
    struct hf_sip_assign *a = cache(0);
    struct hf_sip_row r;
    assert_int_equal(changed(a, row("sip:x", BETA, 3)), HF_SIP_APPLY_PASSED_OVER);
    assert_false(hf_sip_assign_get(a, hf_slice_str("sip:x"), &r));
    assert_int_equal(changed(a, row("sip:x", SELF, 4)), HF_SIP_APPLY_GAINED);
    struct hf_sip_assign_info info;
    hf_sip_assign_info(a, &info);
    assert_int_equal(info.n_rows, 1);
    assert_int_equal(info.n_ours, 1);
    assert_true(hf_sip_assign_forget(a, hf_slice_str("sip:x")));
    assert_false(hf_sip_assign_forget(a, hf_slice_str("sip:x")));
    hf_sip_assign_info(a, &info);
    assert_int_equal(info.n_rows, 0);
    assert_int_equal(info.n_ours, 0);
    hf_sip_assign_destroy(a);
}

static void test_agents(void **state)
{
    (void)state;
    struct hf_sip_assign *a = cache(0);
    struct hf_sip_row r = row("sip:x", SELF, 3);
    assert_false(hf_sip_assign_learn(a, r.aor, HF_SIP_AGENT_OFFERED, 9));
    r.pinned = true;
    assert_int_equal(read_row(a, r), HF_SIP_APPLY_GAINED);
    assert_true(hf_sip_assign_learn(a, r.aor, HF_SIP_AGENT_FOLLOWS, 9));
    assert_true(hf_sip_assign_get(a, r.aor, &r));
    assert_int_equal(r.agent, HF_SIP_AGENT_FOLLOWS);
    assert_int_equal(r.agent_id, 9);
    assert_true(r.pinned);
    /* another server's is not ours to say; what its home stored is taken over */
    assert_int_equal(read_row(a, row("sip:y", BETA, 3)), HF_SIP_APPLY_NEW);
    assert_false(hf_sip_assign_learn(a, hf_slice_str("sip:y"), HF_SIP_AGENT_FOLLOWS, 9));
    r = row("sip:y", BETA, 3);
    r.agent = HF_SIP_AGENT_IGNORES;
    assert_int_equal(read_row(a, r), HF_SIP_APPLY_SAME);
    assert_true(hf_sip_assign_get(a, r.aor, &r));
    assert_int_equal(r.agent, HF_SIP_AGENT_IGNORES);
    assert_string_equal(hf_sip_agent_name(r.agent), "ignores");
    assert_string_equal(hf_sip_agent_name(HF_SIP_AGENT_COUNT_), "?");
    hf_sip_assign_destroy(a);
}

/* How many are asserted when everything due at `now` is. */
static unsigned assert_all(struct hf_sip_assign *a, hf_time now)
{
    struct hf_sip_row r;
    unsigned n = 0;
    while (hf_sip_assign_next_assert(a, now, &r)) {
        assert_int_equal(r.current, SELF);
        n++;
    }
    return n;
}

static void test_assertions(void **state)
{
    (void)state;
    struct hf_sip_assign *a = cache(0);
    char aor[32];
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(aor, sizeof(aor), "sip:u%u", i);
        (void)read_row(a, row(aor, i % 3 == 0 ? SELF : BETA, 1));
    }
    /* nothing while the table is not fresh */
    assert_string_equal(hf_sip_table_name(hf_sip_assign_table(a)), "catching up");
    assert_int_equal(hf_sip_assign_deadline(a), HF_NEVER);
    assert_int_equal(assert_all(a, HF_S(9000)), 0);
    hf_sip_assign_destroy(a);

    a = cache(0);
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(aor, sizeof(aor), "sip:u%u", i);
        (void)read_row(a, row(aor, i % 3 == 0 ? SELF : BETA, 1));
    }
    hf_sip_assign_caught_up(a, 5, HF_S(1000));
    assert_int_equal(hf_sip_assign_table(a), HF_SIP_TABLE_FRESH);
    unsigned half = assert_all(a, HF_S(1300));
    assert_in_range(half, 400, 600);
    assert_in_range(hf_sip_assign_deadline(a), HF_S(1300), HF_S(1303));
    assert_int_equal(half + assert_all(a, HF_S(1600)), 1000);
    assert_int_equal(assert_all(a, HF_S(1600)), 0);
    assert_int_equal(assert_all(a, HF_S(9000)), 1000);
    assert_int_equal(hf_sip_assign_counters(a)->asserted, 2000);
    hf_sip_assign_destroy(a);
}

static void test_database_away_and_back(void **state)
{
    (void)state;
    struct hf_sip_assign *a = cache(0);
    (void)read_row(a, row("sip:x", SELF, 3));
    assert_int_equal(hf_sip_assign_change(a), 0);
    hf_sip_assign_caught_up(a, 41, HF_S(1000));
    assert_int_equal(hf_sip_assign_change(a), 41);
    hf_sip_assign_database(a, false);
    hf_sip_assign_database(a, false);
    assert_int_equal(hf_sip_assign_table(a), HF_SIP_TABLE_AWAY);
    assert_int_equal(hf_sip_assign_deadline(a), HF_NEVER);
    hf_sip_assign_caught_up(a, 50, HF_S(1001)); /* was under way */
    assert_int_equal(hf_sip_assign_change(a), 41);
    has(a, "sip:x", SELF, 3);
    hf_sip_assign_database(a, true);
    assert_int_equal(hf_sip_assign_table(a), HF_SIP_TABLE_CATCHING_UP);
    hf_sip_assign_caught_up(a, 50, HF_S(1001));
    assert_int_equal(hf_sip_assign_table(a), HF_SIP_TABLE_FRESH);
    assert_int_equal(assert_all(a, HF_S(1001)), 0);
    /* restored from a backup: all of ours at once */
    hf_sip_assign_caught_up(a, 20, HF_S(1002));
    assert_int_equal(assert_all(a, HF_S(1002)), 1);
    assert_int_equal(hf_sip_assign_change(a), 20);
    assert_int_equal(hf_sip_assign_counters(a)->gone_back, 1);
    assert_int_equal(hf_sip_assign_counters(a)->away, 1);
    hf_sip_assign_destroy(a);
}

/* Against a plain array, at random: what is there is right, also after many come and go. */
static void test_against_a_model(void **state)
{
    (void)state;
    enum { N = 500 };
    struct {
        uint64_t epoch;
        uint16_t current;
    } model[N] = {0};
    struct hf_sip_assign *a = cache(0);
    struct hf_prng g;
    hf_prng_init(&g, 42);
    for (unsigned i = 0; i < 200000; i++) {
        unsigned k = (unsigned)hf_prng_below(&g, N);
        char aor[64];
        snprintf(aor, sizeof(aor), "sip:%.*s%u@x", (int)(k % 40),
                 "a-rather-long-name-of-a-user-here-to-fill", k);
        struct hf_sip_row r;
        bool there = hf_sip_assign_get(a, hf_slice_str(aor), &r);
        assert_int_equal(there, model[k].epoch != 0);
        if (there) {
            assert_int_equal(r.epoch, model[k].epoch);
            assert_int_equal(r.current, model[k].current);
        }
        if (hf_prng_below(&g, 4) == 0) {
            assert_int_equal(hf_sip_assign_forget(a, hf_slice_str(aor)),
                             there && model[k].current == SELF);
            model[k].epoch = 0;
            continue;
        }
        uint64_t epoch = 1 + hf_prng_below(&g, 20);
        uint16_t current = (uint16_t)hf_prng_below(&g, 3);
        struct hf_sip_row changed = row(aor, current, epoch);
        changed.pinned = i % 3 == 0;
        (void)read_row(a, changed);
        if (epoch >= model[k].epoch) {
            model[k].epoch = epoch;
            model[k].current = current;
        }
    }
    struct hf_sip_assign_info info;
    struct hf_sip_row r;
    uint64_t n = 0, ours = 0, pinned = 0, n_model = 0;
    hf_sip_assign_info(a, &info);
    for (uint64_t pos = 0; hf_sip_assign_next(a, &pos, &r);) {
        n++;
        ours += r.current == SELF;
        pinned += r.current == SELF && r.pinned;
    }
    for (unsigned k = 0; k < N; k++) {
        n_model += model[k].epoch != 0;
    }
    assert_int_equal(info.n_rows, n);
    assert_int_equal(info.n_rows, n_model);
    assert_int_equal(info.n_ours, ours);
    assert_true(pinned > 0);
    assert_int_equal(info.n_pinned, pinned);
    hf_sip_assign_destroy(a);
}

/* Full: others' go, ours stay; what nobody asked for lately first. */
static void test_bounded(void **state)
{
    (void)state;
    enum { LIMIT = 2 << 20 };
    struct hf_sip_assign *a = cache(LIMIT);
    struct hf_sip_assign_info info;
    struct hf_sip_row r;
    char aor[64];
    for (unsigned i = 0; i < 100; i++) {
        snprintf(aor, sizeof(aor), "sip:ours%u@example.org", i);
        assert_int_equal(read_row(a, row(aor, SELF, 1)), HF_SIP_APPLY_GAINED);
    }
    for (unsigned i = 0; i < 200000; i++) {
        snprintf(aor, sizeof(aor), "sip:user%u@example.org", i);
        assert_int_equal(read_row(a, row(aor, BETA, 1)), HF_SIP_APPLY_NEW);
        has(a, aor, BETA, 1);
    }
    hf_sip_assign_info(a, &info);
    assert_true(info.bytes < LIMIT + 65536);
    assert_true(info.n_rows > 20000);
    assert_true(hf_sip_assign_counters(a)->evicted > 100000);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(aor, sizeof(aor), "sip:ours%u@example.org", i);
        assert_true(hf_sip_assign_get(a, hf_slice_str(aor), &r));
    }
    /* all ours: no more */
    enum hf_sip_apply last = HF_SIP_APPLY_GAINED;
    for (unsigned i = 0; i < 100000 && last == HF_SIP_APPLY_GAINED; i++) {
        snprintf(aor, sizeof(aor), "sip:mine%u@example.org", i);
        last = read_row(a, row(aor, SELF, 1));
    }
    assert_int_equal(last, HF_SIP_APPLY_FULL);
    assert_true(hf_sip_assign_counters(a)->full > 0);
    hf_sip_assign_destroy(a);
}

/* The aim: at most 100 bytes beside the AoR. */
static void test_bytes_each(void **state)
{
    (void)state;
    enum { N = 300000 };
    struct hf_sip_assign *a = cache(0);
    struct hf_sip_assign_info info;
    uint64_t aors = 0;
    for (unsigned i = 0; i < N; i++) {
        char aor[64];
        int n = snprintf(aor, sizeof(aor), "sip:+4930%u@voice.example.org", i * 7919);
        aors += (uint64_t)n;
        (void)read_row(a, row(aor, (uint16_t)(i % 200), 1));
    }
    hf_sip_assign_info(a, &info);
    assert_int_equal(info.n_rows, N);
    print_message("# %.1f bytes each, of which AoR %.1f\n", (double)info.bytes / N,
                  (double)aors / N);
    assert_true(info.bytes - aors < N * 60);
    hf_sip_assign_destroy(a);
}

static void test_no_memory(void **state)
{
    (void)state;
    bool all = false;
    for (int64_t n = 0; !all; n++) {
        struct hf_sip_assign *a = NULL;
        struct hf_sip_row r;
        hf_mem_fail_after(n);
        int rc = hf_sip_assign_create(&(struct hf_sip_assign_conf){.self = SELF}, 0, &a);
        if (rc < 0) {
            assert_int_equal(rc, -ENOMEM);
        } else {
            all = read_row(a, row("sip:x", BETA, 1)) == HF_SIP_APPLY_NEW;
            assert_int_equal(hf_sip_assign_get(a, hf_slice_str("sip:x"), &r), all);
            hf_sip_assign_destroy(a);
        }
        hf_mem_fail_after(-1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_epochs),
        HF_TEST(test_bad_rows),
        HF_TEST(test_feed),
        HF_TEST(test_agents),
        HF_TEST(test_assertions),
        HF_TEST(test_database_away_and_back),
        HF_TEST(test_against_a_model),
        HF_TEST(test_bounded),
        HF_TEST(test_bytes_each),
        HF_TEST(test_no_memory),
    };
    return cmocka_run_group_tests_name("sip/assign", tests, NULL, NULL);
}
