/* core/sip/fleet: who lives, and whom an AoR is given to. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "core/sip/fleet.h"
#include "support/test.h"

enum { AORS = 40000 };

static struct hf_sip_fleet *fleet_of(const uint16_t *weight, uint16_t n)
{
    struct hf_sip_fleet *f;
    assert_int_equal(hf_sip_fleet_create(&f), 0);
    for (uint16_t i = 0; i < n; i++) {
        char name[16];
        uint16_t no;
        snprintf(name, sizeof(name), "s%u", i);
        assert_int_equal(hf_sip_fleet_add(f, hf_slice_str(name), &no), 0);
        assert_int_equal(no, i);
        hf_sip_fleet_set(f, no,
                         &(struct hf_sip_server){
                             .state = HF_SIP_SERVER_LIVE, .homes = true, .weight = weight[i]});
    }
    return f;
}

static struct hf_slice aor(unsigned i)
{
    static char s[64];
    return hf_slice(s, (size_t)snprintf(s, sizeof(s), "sip:user%u@example.org", i));
}

static void test_known_by_name(void **state)
{
    (void)state;
    struct hf_sip_fleet *f;
    uint16_t a, b, c;
    assert_int_equal(hf_sip_fleet_create(&f), 0);
    assert_int_equal(hf_sip_fleet_choose(f, aor(1)), HF_SIP_NONE);
    assert_int_equal(hf_sip_fleet_backup(f, aor(1), HF_SIP_NONE), HF_SIP_NONE);
    assert_int_equal(hf_sip_fleet_find(f, hf_slice_str("alpha")), HF_SIP_NONE);
    assert_int_equal(hf_sip_fleet_add(f, hf_slice_str("alpha"), &a), 0);
    assert_int_equal(hf_sip_fleet_add(f, hf_slice_str("beta"), &b), 0);
    assert_int_equal(hf_sip_fleet_add(f, hf_slice_str("alpha"), &c), 0);
    assert_int_equal(c, a);
    assert_int_equal(hf_sip_fleet_find(f, hf_slice_str("beta")), b);
    assert_int_equal(hf_sip_fleet_add(f, hf_slice_str("Alpha"), &c), -HF_ENAME);
    assert_int_equal(hf_sip_fleet_count(f), 2);
    assert_string_equal(hf_sip_fleet_name(f, b), "beta");
    assert_string_equal(hf_sip_fleet_name(f, 7), "?");
    assert_int_equal(hf_sip_fleet_get(f, a)->state, HF_SIP_SERVER_UNKNOWN);
    assert_int_equal(hf_sip_fleet_get(f, HF_SIP_NONE)->state, HF_SIP_SERVER_UNKNOWN);
    assert_false(hf_sip_fleet_alive(f, a));
    hf_sip_fleet_set(f, a, &(struct hf_sip_server){.state = HF_SIP_SERVER_DRAINING});
    assert_true(hf_sip_fleet_alive(f, a));
    assert_string_equal(hf_sip_server_state_name(HF_SIP_SERVER_DRAINING), "draining");
    assert_string_equal(hf_sip_server_state_name(HF_SIP_SERVER_STATE_COUNT_), "?");
    hf_sip_fleet_destroy(f);
    hf_sip_fleet_destroy(NULL);
}

static void test_full(void **state)
{
    (void)state;
    struct hf_sip_fleet *f;
    uint16_t no;
    char name[16];
    assert_int_equal(hf_sip_fleet_create(&f), 0);
    for (unsigned i = 0; i < HF_SIP_SERVERS_MAX; i++) {
        snprintf(name, sizeof(name), "s%u", i);
        assert_int_equal(hf_sip_fleet_add(f, hf_slice_str(name), &no), 0);
    }
    assert_int_equal(hf_sip_fleet_add(f, hf_slice_str("more"), &no), -HF_EFULL);
    assert_int_equal(hf_sip_fleet_add(f, hf_slice_str("s7"), &no), 0);
    assert_int_equal(no, 7);
    hf_sip_fleet_destroy(f);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (int64_t n = 0;; n++) {
        struct hf_sip_fleet *f = NULL;
        uint16_t no;
        hf_mem_fail_after(n);
        int r = hf_sip_fleet_create(&f);
        r = r < 0 ? r : hf_sip_fleet_add(f, hf_slice_str("alpha"), &no);
        hf_mem_fail_after(-1);
        assert_true(r == 0 || r == -ENOMEM);
        assert_int_equal(f != NULL ? hf_sip_fleet_count(f) : 0, r == 0);
        hf_sip_fleet_destroy(f);
        if (r == 0) {
            break;
        }
    }
}

static void test_log2(void **state)
{
    (void)state;
    assert_int_equal(hf_sip_neg_log2(1ull << 63), 1ull << 32);
    assert_int_equal(hf_sip_neg_log2(1ull << 60), 4ull << 32);
    assert_int_equal(hf_sip_neg_log2(1), 64ull << 32);
    assert_int_equal(hf_sip_neg_log2(0), 64ull << 32);
    assert_true(hf_sip_neg_log2(UINT64_MAX) <= 1);
    /* log2(3/4) = -0.41503749927884 */
    uint64_t three_quarters = hf_sip_neg_log2(3ull << 62);
    assert_in_range(three_quarters, 1782572485u, 1782572488u);
    for (uint64_t h = 1; h < 1ull << 62; h += h / 3 + 1) {
        assert_true(hf_sip_neg_log2(h) >= hf_sip_neg_log2(h + h / 3 + 1));
    }
}

/* Weights are kept, within what chance allows (four standard deviations). */
static void test_choice_is_by_weight(void **state)
{
    (void)state;
    const uint16_t weight[] = {1, 2, 3, 4, 0, 10};
    unsigned got[6] = {0};
    struct hf_sip_fleet *f = fleet_of(weight, 6);
    for (unsigned i = 0; i < AORS; i++) {
        got[hf_sip_fleet_choose(f, aor(i))]++;
    }
    assert_int_equal(got[4], 0);
    for (unsigned i = 0; i < 6; i++) {
        unsigned want = AORS / 20 * weight[i];
        assert_in_range(got[i], want - want / 8, want + want / 8);
    }
    hf_sip_fleet_destroy(f);
}

/* Who goes takes nothing but its own share along; who comes gets nothing but its own. */
static void test_choice_is_stable(void **state)
{
    (void)state;
    const uint16_t weight[] = {5, 5, 5, 5, 5};
    static uint16_t before[AORS];
    struct hf_sip_fleet *f = fleet_of(weight, 5);
    for (unsigned i = 0; i < AORS; i++) {
        before[i] = hf_sip_fleet_choose(f, aor(i));
    }
    struct hf_sip_server is = *hf_sip_fleet_get(f, 2);
    is.state = HF_SIP_SERVER_DEAD;
    hf_sip_fleet_set(f, 2, &is);
    for (unsigned i = 0; i < AORS; i++) {
        uint16_t now = hf_sip_fleet_choose(f, aor(i));
        assert_true(before[i] == 2 ? now != 2 : now == before[i]);
    }
    is.state = HF_SIP_SERVER_LIVE;
    is.weight = 10;
    hf_sip_fleet_set(f, 2, &is);
    for (unsigned i = 0; i < AORS; i++) {
        uint16_t now = hf_sip_fleet_choose(f, aor(i));
        assert_true(now == before[i] || now == 2);
    }
    is.homes = false;
    hf_sip_fleet_set(f, 2, &is);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_not_equal(hf_sip_fleet_choose(f, aor(i)), 2);
    }
    hf_sip_fleet_destroy(f);
}

/* Servers know one another in different orders, and choose the same. */
static void test_choice_is_common(void **state)
{
    (void)state;
    const char *const names[] = {"alpha", "beta", "gamma", "delta"};
    struct hf_sip_fleet *f[2];
    uint16_t no;
    for (unsigned k = 0; k < 2; k++) {
        assert_int_equal(hf_sip_fleet_create(&f[k]), 0);
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(hf_sip_fleet_add(f[k], hf_slice_str(names[k ? 3 - i : i]), &no), 0);
            hf_sip_fleet_set(
                f[k], no,
                &(struct hf_sip_server){.state = HF_SIP_SERVER_LIVE, .homes = true, .weight = 7});
        }
    }
    for (unsigned i = 0; i < 1000; i++) {
        assert_string_equal(hf_sip_fleet_name(f[0], hf_sip_fleet_choose(f[0], aor(i))),
                            hf_sip_fleet_name(f[1], hf_sip_fleet_choose(f[1], aor(i))));
    }
    hf_sip_fleet_destroy(f[0]);
    hf_sip_fleet_destroy(f[1]);
}

static void test_backup(void **state)
{
    (void)state;
    const uint16_t weight[] = {3, 0, 1, 4};
    unsigned got[4] = {0};
    struct hf_sip_fleet *f = fleet_of(weight, 4);
    for (unsigned i = 0; i < AORS; i++) {
        uint16_t b = hf_sip_fleet_backup(f, aor(i), 2);
        assert_true(b == 0 || b == 3);
        got[b]++;
        assert_int_not_equal(hf_sip_fleet_backup(f, aor(i), 3), 3);
        assert_int_not_equal(hf_sip_fleet_backup(f, aor(i), HF_SIP_NONE), 1);
    }
    assert_in_range(got[0], AORS * 38 / 100, AORS * 48 / 100); /* 3 of 7 */
    hf_sip_fleet_set(f, 0, &(struct hf_sip_server){.state = HF_SIP_SERVER_DEAD});
    hf_sip_fleet_set(f, 3, &(struct hf_sip_server){.state = HF_SIP_SERVER_DEAD});
    assert_int_equal(hf_sip_fleet_backup(f, aor(1), 2), HF_SIP_NONE);
    assert_int_equal(hf_sip_fleet_backup(f, aor(1), 0), 2);
    hf_sip_fleet_destroy(f);
}

/* Stored in SQL: never to change. */
static void test_bucket_is_for_ever(void **state)
{
    (void)state;
    assert_int_equal(hf_sip_bucket(hf_slice_str("sip:ann@example.org")),
                     hf_sip_bucket(hf_slice_str("sip:ann@example.org")));
    unsigned low = 0;
    for (unsigned i = 0; i < AORS; i++) {
        low += hf_sip_bucket(aor(i)) < HF_SIP_BUCKETS / 4;
    }
    assert_in_range(low, AORS / 4 - 400, AORS / 4 + 400);
    assert_int_equal(hf_sip_bucket(hf_slice_str("sip:ann@example.org")), 0x2776);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_known_by_name),       HF_TEST(test_full),
        HF_TEST(test_no_memory),           HF_TEST(test_log2),
        HF_TEST(test_choice_is_by_weight), HF_TEST(test_choice_is_stable),
        HF_TEST(test_choice_is_common),    HF_TEST(test_backup),
        HF_TEST(test_bucket_is_for_ever),
    };
    return cmocka_run_group_tests_name("sip/fleet", tests, NULL, NULL);
}
