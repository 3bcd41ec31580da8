/* core/sip/rebalance: who has to go where, how many, when, and why. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/prng.h"
#include "core/sip/rebalance.h"
#include "support/test.h"

enum { N_MAX = 8 };

/* A cluster whose driver does at once what it is told. */
struct rig {
    struct hf_sip_fleet *fleet;
    struct hf_sip_rebalance *r;
    hf_time now;
    uint16_t n;
    uint32_t clients[N_MAX], pinned[N_MAX]; /* pinned: to it, and there */
    uint32_t astray[N_MAX][N_MAX];          /* by current and home */
    uint32_t astray_pinned[N_MAX][N_MAX];
    uint32_t requests_s[N_MAX], cpu[N_MAX];
    uint32_t moved, moved_to[N_MAX];
    char log[8192];
    size_t n_log;
};

static struct rig rig;

static void set(uint16_t i, enum hf_sip_server_state s, uint16_t weight)
{
    hf_sip_fleet_set(rig.fleet, i,
                     &(struct hf_sip_server){.state = (uint8_t)s, .homes = true, .weight = weight});
}

static void begin(const struct hf_sip_rebalance_conf *conf, uint16_t n, uint32_t each)
{
    static const char *const names[N_MAX] = {"alpha", "beta", "gamma", "delta",
                                             "eps",   "zeta", "eta",   "theta"};
    memset(&rig, 0, sizeof(rig));
    rig.n = n;
    rig.now = HF_S(1000);
    assert_int_equal(hf_sip_fleet_create(&rig.fleet), 0);
    for (uint16_t i = 0; i < n; i++) {
        uint16_t no;
        assert_int_equal(hf_sip_fleet_add(rig.fleet, hf_slice_str(names[i]), &no), 0);
        set(i, HF_SIP_SERVER_LIVE, 1);
        rig.clients[i] = each;
    }
    assert_int_equal(hf_sip_rebalance_create(conf, rig.fleet, rig.now, &rig.r), 0);
}

static void end(void)
{
    hf_sip_rebalance_destroy(rig.r);
    hf_sip_fleet_destroy(rig.fleet);
}

static void tell(void)
{
    static struct hf_sip_astray astray[N_MAX * N_MAX];
    size_t n = 0;
    for (uint16_t i = 0; i < rig.n; i++) {
        hf_sip_rebalance_load(rig.r, i,
                              &(struct hf_sip_load){.clients = rig.clients[i],
                                                    .pinned = rig.pinned[i],
                                                    .requests_s = rig.requests_s[i],
                                                    .cpu = rig.cpu[i]});
        for (uint16_t k = 0; k < rig.n; k++) {
            if (rig.astray[i][k] + rig.astray_pinned[i][k] > 0) {
                astray[n++] = (struct hf_sip_astray){.current = i,
                                                     .home = k,
                                                     .clients = rig.astray[i][k],
                                                     .pinned = rig.astray_pinned[i][k]};
            }
        }
    }
    hf_sip_rebalance_astray(rig.r, astray, n);
}

/* As SQL would, roughly: of a dead server everything goes. */
static void do_move(const struct hf_sip_move *m)
{
    assert_true(m->from < rig.n && m->to < rig.n && m->from != m->to);
    assert_int_not_equal(m->n, 0);
    uint32_t n = m->n < rig.clients[m->from] ? m->n : rig.clients[m->from];
    rig.clients[m->from] -= n;
    rig.clients[m->to] += n;
    rig.moved += n;
    rig.moved_to[m->to] += n;
    if (m->who == HF_SIP_WHO_HOMING) {
        assert_true(rig.astray[m->from][m->to] >= n);
        rig.astray[m->from][m->to] -= n;
    } else if (m->who == HF_SIP_WHO_PINNED) {
        assert_true(rig.astray_pinned[m->from][m->to] >= n);
        rig.astray_pinned[m->from][m->to] -= n;
        rig.pinned[m->to] += n;
    } else if (m->who == HF_SIP_WHO_ANY || m->who == HF_SIP_WHO_ALL) {
        rig.astray[m->to][m->from] += n; /* so that they can come home */
    }
}

static size_t step(hf_time after)
{
    const struct hf_sip_move *m;
    rig.now += after;
    tell();
    size_t n = hf_sip_rebalance_step(rig.r, rig.now, &m);
    for (size_t i = 0; i < n; i++) {
        char why[200];
        hf_sip_rebalance_why(rig.r, &m[i], why, sizeof(why));
        rig.n_log += (size_t)snprintf(
            rig.log + rig.n_log, sizeof(rig.log) - rig.n_log, "%s %s %u %s > %s: %s\n",
            hf_sip_move_reason_name(m[i].reason), hf_sip_who_name(m[i].who), m[i].n,
            hf_sip_fleet_name(rig.fleet, m[i].from), hf_sip_fleet_name(rig.fleet, m[i].to), why);
        rig.n_log = rig.n_log < sizeof(rig.log) ? rig.n_log : sizeof(rig.log) - 1;
    }
    for (size_t i = 0; i < n; i++) {
        do_move(&m[i]);
    }
    return n;
}

/* Steps until nothing was to be done for so long. */
static hf_time settle(hf_time quiet)
{
    hf_time last = rig.now;
    while (rig.now - last < quiet) {
        last = step(HF_S(1)) > 0 ? rig.now : last;
        assert_true(rig.now < HF_S(100000));
    }
    return last;
}

static void test_at_rest(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){0}, 4, 1000);
    rig.clients[0] = 1090; /* 1090 of a mean of 1022 */
    (void)settle(HF_S(300));
    assert_int_equal(rig.moved, 0);
    assert_int_equal(hf_sip_rebalance_state(rig.r), HF_SIP_BALANCE_AT_REST);
    struct hf_sip_standing st;
    hf_sip_rebalance_standing(rig.r, 0, &st);
    assert_true(st.takes);
    assert_int_equal(st.load, 1090000);
    assert_int_equal(st.share, 1022500);
    assert_int_equal(st.clients, 1090);
    end();
}

/* Patience first, then no more than what brings the highest to the edge, to the least loaded. */
static void test_balance(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){.rate = 100000, .rate_to = 100000}, 4, 1000);
    rig.clients[0] = 1500;
    rig.clients[3] = 900; /* mean 1100: upper edge 1177 */
    (void)step(HF_S(1));
    assert_int_equal(hf_sip_rebalance_state(rig.r), HF_SIP_BALANCE_WAITING);
    (void)step(HF_S(29));
    assert_int_equal(rig.moved, 0);
    (void)step(HF_S(1));
    assert_int_equal(hf_sip_rebalance_state(rig.r), HF_SIP_BALANCE_MOVING);
    assert_int_equal(rig.moved, 323);
    assert_int_equal(rig.clients[0], 1177);
    (void)settle(HF_S(300));
    assert_int_equal(rig.moved, 323);
    /* filled to one level: 1074.3 */
    assert_in_range(rig.clients[1], 1073, 1076);
    assert_in_range(rig.clients[2], 1073, 1076);
    assert_in_range(rig.clients[3], 1073, 1076);
    assert_non_null(strstr(rig.log,
                           "balance loose 175 alpha > delta: alpha has 136 % of its share; "
                           "delta has 82 % of its share"));
    assert_int_equal(hf_sip_rebalance_counters(rig.r)->moved_balance, 323);
    assert_int_equal(hf_sip_rebalance_counters(rig.r)->balances, 1);
    end();
}

/* Just outside again and again, but never for long: nothing is moved. */
static void test_hysteresis(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){0}, 2, 1000);
    for (unsigned i = 0; i < 100; i++) {
        rig.clients[0] = i % 3 ? 1300 : 1100;
        (void)step(HF_S(10));
    }
    assert_int_equal(rig.moved, 0);
    end();
}

static void test_dead_at_once(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){0}, 4, 60000);
    (void)step(HF_S(1));
    rig.clients[1] = 30000;
    set(2, HF_SIP_SERVER_DEAD, 1);
    (void)step(HF_S(1));
    assert_int_equal(rig.clients[2], 0);
    assert_int_equal(rig.moved, 60000);
    /* the least loaded first: 30000 + 60000 + 60000 of clients, one level for all is 70000 */
    assert_in_range(rig.clients[0], 69990, 70010);
    assert_in_range(rig.clients[1], 69990, 70010);
    assert_in_range(rig.clients[3], 69990, 70010);
    assert_int_equal(hf_sip_rebalance_counters(rig.r)->dead_servers, 1);
    assert_int_equal(hf_sip_rebalance_counters(rig.r)->moved_dead, 60000);
    assert_non_null(strstr(rig.log, "gamma is dead; beta has "));
    (void)settle(HF_S(300));
    assert_int_equal(rig.moved, 60000);
    end();
}

/* Buckets are all given away, each once, in proportion. */
static void test_buckets(void **state)
{
    (void)state;
    const struct hf_sip_move *m;
    begin(&(struct hf_sip_rebalance_conf){0}, 5, 10000);
    (void)step(HF_S(1));
    set(1, HF_SIP_SERVER_DEAD, 1);
    set(3, HF_SIP_SERVER_DEAD, 1);
    tell();
    size_t n = hf_sip_rebalance_step(rig.r, rig.now, &m);
    assert_int_equal(n, 6);
    uint32_t next[5] = {0}, sum[5] = {0};
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(m[i].who, HF_SIP_WHO_ALL);
        assert_int_equal(m[i].bucket_first, next[m[i].from]);
        assert_true(m[i].bucket_last >= m[i].bucket_first);
        assert_in_range(m[i].bucket_last - m[i].bucket_first, 21800, 21900);
        next[m[i].from] = m[i].bucket_last + 1u;
        sum[m[i].from] += m[i].n;
    }
    assert_int_equal(next[1], HF_SIP_BUCKETS);
    assert_int_equal(next[3], HF_SIP_BUCKETS);
    assert_int_equal(sum[1], 10000);
    assert_int_equal(sum[3], 10000);
    end();
}

/* It comes back: after a while, paced, and only as many as it lacks; its own first. */
static void test_back_again(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){.rate = 1000, .rate_to = 100}, 3, 9000);
    (void)step(HF_S(1));
    set(0, HF_SIP_SERVER_DEAD, 1);
    (void)step(HF_S(1));
    assert_int_equal(rig.moved, 9000);
    rig.moved = 0;
    set(0, HF_SIP_SERVER_LIVE, 1);
    hf_time back = rig.now;
    while (rig.moved == 0) {
        (void)step(HF_S(1));
    }
    assert_true(rig.now - back >= HF_S(90)); /* settle, then patience */
    hf_time began = rig.now;
    while (rig.clients[0] < 8370) { /* 93 % of 9000 */
        uint32_t before = rig.clients[0];
        (void)step(HF_S(1));
        assert_true(rig.clients[0] - before <= 101);
        assert_true(rig.now - began < HF_S(200));
    }
    (void)settle(HF_S(300));
    assert_in_range(rig.moved, 8370, 8372);
    assert_in_range(rig.now - began, HF_S(70), HF_S(500));
    assert_non_null(strstr(rig.log, "balance homing 100 beta > alpha"));
    assert_null(strstr(rig.log, "loose"));
    end();
}

/* An operator need not wait: neither for `patience` nor for `settle`, nor for the dead zone. */
static void test_now(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){.rate = 1000, .rate_to = 100}, 3, 9000);
    (void)step(HF_S(1));
    set(0, HF_SIP_SERVER_DEAD, 1);
    (void)step(HF_S(1));
    assert_int_equal(rig.clients[0], 0);
    set(0, HF_SIP_SERVER_LIVE, 1); /* not looked at yet */
    hf_sip_rebalance_now(rig.r);
    (void)step(HF_S(1));
    assert_in_range(rig.clients[0], 100, 1000); /* as the rates allow */
    (void)settle(HF_S(5));
    assert_in_range(rig.clients[0], 8370, 8372);
    assert_int_equal(hf_sip_rebalance_state(rig.r), HF_SIP_BALANCE_AT_REST);

    /* inside the dead zone, outside the target zone */
    rig.clients[0] = 8280;
    rig.clients[1] = 9360;
    rig.clients[2] = 9360;
    rig.moved = 0;
    (void)settle(HF_S(100));
    assert_int_equal(rig.moved, 0);
    hf_sip_rebalance_now(rig.r);
    (void)settle(HF_S(5));
    assert_in_range(rig.moved, 90, 92);
    assert_int_equal(hf_sip_rebalance_counters(rig.r)->balances, 2);

    /* nothing to be done: forgotten */
    hf_sip_rebalance_now(rig.r);
    (void)step(HF_S(1));
    rig.clients[0] = 8280;
    rig.moved = 0;
    (void)settle(HF_S(100));
    assert_int_equal(rig.moved, 0);
    end();
}

static void test_drain(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){.rate = 500, .rate_to = 200}, 4, 1000);
    rig.pinned[1] = 100;
    set(1, HF_SIP_SERVER_DRAINING, 1);
    (void)step(HF_S(1));
    assert_int_equal(rig.moved, 500);
    assert_true(rig.moved_to[0] <= 200 && rig.moved_to[2] <= 200 && rig.moved_to[3] <= 200);
    (void)step(HF_S(1));
    assert_in_range(rig.moved, 900, 999); /* who was not given 200 can't have more now */
    (void)step(HF_S(1));
    assert_int_equal(rig.moved, 1000); /* pinned ones, too */
    assert_int_equal(rig.clients[1], 0);
    assert_in_range(rig.clients[0], 1330, 1336);
    assert_int_equal(hf_sip_rebalance_counters(rig.r)->moved_drain, 1000);
    assert_non_null(strstr(rig.log, "beta is drained"));
    (void)settle(HF_S(200));
    assert_int_equal(rig.moved, 1000);
    end();
}

static void test_pinned(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){.rate = 100000, .rate_to = 100000}, 3, 1000);
    rig.clients[0] = rig.pinned[0] = 3000; /* nothing can be done about it */
    (void)settle(HF_S(300));
    assert_int_equal(rig.moved, 0);
    assert_int_not_equal(hf_sip_rebalance_state(rig.r), HF_SIP_BALANCE_MOVING);
    rig.clients[0] = 3500; /* about these there can */
    (void)settle(HF_S(300));
    assert_int_equal(rig.moved, 500);
    /* they go home as soon as they can */
    rig.astray_pinned[1][0] = 20;
    (void)step(HF_S(1));
    assert_int_equal(rig.moved, 520);
    assert_int_equal(rig.astray_pinned[1][0], 0);
    assert_int_equal(hf_sip_rebalance_counters(rig.r)->moved_pinned, 20);
    assert_non_null(strstr(rig.log, "pinned pinned 20 beta > alpha: they are pinned to alpha"));
    /* and when the one that has them dies meanwhile */
    rig.astray_pinned[2][0] = 7;
    set(2, HF_SIP_SERVER_DEAD, 1);
    (void)step(HF_S(1));
    assert_int_equal(rig.clients[2], 0);
    assert_int_equal(rig.astray_pinned[2][0], 0);
    end();
}

/* A server's clients may weigh more: by requests and CPU. */
static void test_cost(void **state)
{
    (void)state;
    begin(
        &(struct hf_sip_rebalance_conf){
            .rate = 100000, .rate_to = 100000, .part_clients = 50, .part_requests = 50},
        4, 1000);
    for (uint16_t i = 0; i < 4; i++) {
        rig.requests_s[i] = i == 0 ? 500 : 100;
    }
    (void)settle(HF_S(25)); /* before its patience is over */
    struct hf_sip_standing st;
    hf_sip_rebalance_standing(rig.r, 0, &st);
    assert_int_equal(st.load, 1750000); /* half by clients: 500, half by requests: 5/8 of 2000 */
    (void)settle(HF_S(20));
    /* (1750 - 1070) / 1.75 = 388.6; costs are whole numbers */
    assert_in_range(rig.clients[0], 1000 - 390, 1000 - 389);
    end();
}

/* Who has just given or taken can't be measured for a while: the others cost what they cost, though
 * they are now all that can be. */
static void test_cost_of_the_rest(void **state)
{
    struct hf_sip_standing st;
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){.rate = 100000, .rate_to = 100000}, 8, 1000);
    for (uint16_t i = 0; i < 8; i++) {
        bool low = i >= 1 && i <= 3;
        rig.requests_s[i] = i == 0 ? 500 : low ? 80 : 100;
        rig.clients[i] = low ? 800 : 1000;
    }
    (void)step(HF_S(1));
    hf_sip_rebalance_standing(rig.r, 7, &st);
    uint64_t before = st.load;
    while (rig.moved == 0) {
        (void)step(HF_S(1));
    }
    for (int i = 0; i < 20; i++) {
        (void)step(HF_S(1));
        hf_sip_rebalance_standing(rig.r, 7, &st);
        assert_int_equal(rig.clients[7], 1000);
        assert_in_range(st.load, before - 2000, before + 2000);
    }
    end();
}

/* Who is idle is judged by number: what is left of requests and CPU is chance. */
static void test_idle(void **state)
{
    struct hf_sip_standing st;
    struct hf_prng g;
    (void)state;
    hf_prng_init(&g, 1);
    begin(&(struct hf_sip_rebalance_conf){.rate = 100000, .rate_to = 100000}, 3, 3000);
    rig.clients[2] = 3400; /* 8 % above its share */
    for (unsigned i = 0; i < 600; i++) {
        for (uint16_t k = 0; k < 3; k++) {
            rig.requests_s[k] = (uint32_t)hf_prng_below(&g, 12);
            rig.cpu[k] = (uint32_t)hf_prng_below(&g, 8);
        }
        (void)step(HF_S(1));
        for (uint16_t k = 0; k < 3; k++) { /* within 3 % of what they are by number */
            hf_sip_rebalance_standing(rig.r, k, &st);
            assert_in_range(st.load, rig.clients[k] * 970ULL, rig.clients[k] * 1030ULL);
        }
    }
    assert_int_equal(rig.moved, 0);
    /* one that does something is heavier, the more the others do, too */
    uint64_t last = 0;
    for (uint32_t n = 5; n <= 125; n *= 5) {
        for (uint16_t k = 0; k < 3; k++) {
            rig.cpu[k] = 0;
            rig.requests_s[k] = k == 1 ? 2 * n : n;
        }
        (void)step(HF_S(1));
        hf_sip_rebalance_standing(rig.r, 1, &st);
        assert_true(st.load > last);
        last = st.load;
    }
    assert_in_range(last, 3330000, 3350000); /* 20 % by requests: 4/3 of its clients, roughly */
    /* a machine that is busy among idle ones counts at once */
    rig.requests_s[0] = rig.requests_s[1] = rig.requests_s[2] = 0;
    rig.cpu[1] = 900;
    (void)step(HF_S(1));
    hf_sip_rebalance_standing(rig.r, 1, &st);
    assert_true(st.load > 3600000);
    end();
}

static void test_overload(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){.rate = 100000, .rate_to = 100000, .part_clients = 100},
          3, 1000);
    for (uint16_t i = 0; i < 3; i++) {
        rig.cpu[i] = i == 1 ? 1000 : 400; /* a weaker machine than its weight says */
    }
    (void)step(HF_S(1));
    assert_in_range(rig.clients[1], 750, 900);
    assert_in_range(hf_sip_rebalance_counters(rig.r)->moved_overload, 100, 250);
    assert_non_null(strstr(rig.log, "beta had more than 90 % CPU; "));
    uint32_t left = rig.clients[1], moved = rig.moved;
    rig.cpu[1] = 750;
    (void)settle(HF_S(300));
    assert_int_equal(rig.clients[1], left); /* and it does not get them back for balance */
    assert_int_equal(rig.moved, moved);
    rig.cpu[1] = 300; /* the reason is gone */
    (void)settle(HF_S(600));
    assert_true(rig.clients[1] > 900);
    end();
}

static void test_nobody_to_take(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){0}, 2, 1000);
    (void)step(HF_S(1));
    set(0, HF_SIP_SERVER_DEAD, 1);
    set(1, HF_SIP_SERVER_DEAD, 1);
    (void)step(HF_S(1));
    assert_int_equal(rig.moved, 0);
    assert_int_equal(hf_sip_rebalance_counters(rig.r)->stuck, 1);
    set(1, HF_SIP_SERVER_LIVE, 1); /* back a second ago: better than nobody */
    (void)step(HF_S(1));
    assert_int_equal(rig.clients[1], 2000);
    end();
}

/* A new leader waits before it takes those for dead whom it has never seen. */
static void test_new_leader(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){0}, 3, 1000);
    set(2, HF_SIP_SERVER_UNKNOWN, 1);
    (void)step(HF_S(1));
    (void)step(HF_S(50));
    assert_int_equal(rig.moved, 0);
    (void)step(HF_S(10));
    assert_int_equal(rig.moved, 1000);
    end();
}

static void test_weights(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){.rate = 100000, .rate_to = 100000}, 3, 1000);
    set(0, HF_SIP_SERVER_LIVE, 4);
    set(2, HF_SIP_SERVER_LIVE, 0); /* keeps what it has, gets nobody */
    (void)settle(HF_S(300));
    assert_int_equal(rig.clients[2], 1000);
    assert_in_range(rig.clients[0], 1600 * 93 / 100, 1600 * 107 / 100);
    assert_in_range(rig.clients[1], 400 * 93 / 100, 400 * 107 / 100 + 1);
    end();
}

/* Few clients, each of them a large part of a share: it comes to rest, and nobody goes to and fro.
 */
static void test_few_clients(void **state)
{
    (void)state;
    struct hf_prng g;
    hf_prng_init(&g, 3);
    for (unsigned k = 0; k < 500; k++) {
        uint32_t all = 0;
        begin(&(struct hf_sip_rebalance_conf){.patience = HF_S(5), .settle = HF_S(5)},
              (uint16_t)(2 + hf_prng_below(&g, N_MAX - 1)), 0);
        for (uint16_t i = 0; i < rig.n; i++) {
            set(i, HF_SIP_SERVER_LIVE, (uint16_t)(1 + hf_prng_below(&g, 20)));
            all += rig.clients[i] = (uint32_t)hf_prng_below(&g, 30);
            rig.requests_s[i] = (uint32_t)hf_prng_below(&g, 30);
        }
        for (unsigned i = 0; i < 100; i++) {
            (void)step(HF_S(1));
        }
        assert_in_range(rig.moved, 0, all);
        rig.moved = 0;
        for (unsigned i = 0; i < 200; i++) {
            for (uint16_t j = 0; j < rig.n; j++) { /* requests go along with the clients */
                rig.requests_s[j] = rig.clients[j];
            }
            (void)step(HF_S(1));
            rig.moved = i < 100 ? 0 : rig.moved;
        }
        assert_int_equal(rig.moved, 0);
        end();
    }
}

static void test_plan_and_text(void **state)
{
    (void)state;
    const struct hf_sip_move *m;
    begin(&(struct hf_sip_rebalance_conf){.rate = 1, .rate_to = 1}, 3, 1000);
    rig.clients[0] = 2200;
    (void)step(HF_S(1));
    assert_int_equal(rig.moved, 0);
    tell();
    size_t n = hf_sip_rebalance_plan(rig.r, rig.now, &m); /* all of it, whatever the rates */
    assert_int_equal(n, 2);
    assert_int_equal(m[0].n + m[1].n, 702); /* mean 1400: 2200 - 1498 */
    assert_int_equal(hf_sip_rebalance_state(rig.r), HF_SIP_BALANCE_WAITING);
    struct hf_buf b;
    hf_buf_init(&b, 65536);
    hf_sip_rebalance_text(rig.r, rig.now, &b);
    hf_buf_add(&b, hf_slice("", 1));
    assert_int_equal(b.err, 0);
    assert_string_equal(
        (const char *)b.p,
        "balance: waiting, dead zone 10 %\n\n"
        "server           state     clients  pinned  of its share  plan\n"
        "alpha            live         2200       0         157 %  takes\n"
        "beta             live         1000       0          71 %  takes\n"
        "gamma            live         1000       0          71 %  takes\n\n"
        "balance: 351 from alpha to beta: alpha has 157 % of its share; beta has 71 % of its "
        "share\n"
        "balance: 351 from alpha to gamma: alpha has 157 % of its share; gamma has 71 % of its "
        "share\n"
        "702 clients in all\n");
    hf_buf_fini(&b);
    end();
}

static void test_no_memory_and_names(void **state)
{
    (void)state;
    begin(&(struct hf_sip_rebalance_conf){0}, 1, 0);
    for (int64_t n = 0; n < 2; n++) {
        struct hf_sip_rebalance *r;
        hf_mem_fail_after(n);
        assert_int_equal(
            hf_sip_rebalance_create(&(struct hf_sip_rebalance_conf){0}, rig.fleet, 0, &r), -ENOMEM);
        hf_mem_fail_after(-1);
    }
    assert_int_equal(step(HF_S(1)), 0);
    assert_string_equal(hf_sip_balance_name(HF_SIP_BALANCE_MOVING), "moving");
    assert_string_equal(hf_sip_balance_name(HF_SIP_BALANCE_COUNT_), "?");
    assert_string_equal(hf_sip_move_reason_name(HF_SIP_MOVE_COUNT_), "?");
    assert_string_equal(hf_sip_who_name(HF_SIP_WHO_COUNT_), "?");
    end();
    hf_sip_rebalance_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_at_rest),
        HF_TEST(test_balance),
        HF_TEST(test_hysteresis),
        HF_TEST(test_dead_at_once),
        HF_TEST(test_buckets),
        HF_TEST(test_back_again),
        HF_TEST(test_now),
        HF_TEST(test_drain),
        HF_TEST(test_pinned),
        HF_TEST(test_cost),
        HF_TEST(test_cost_of_the_rest),
        HF_TEST(test_idle),
        HF_TEST(test_overload),
        HF_TEST(test_nobody_to_take),
        HF_TEST(test_new_leader),
        HF_TEST(test_weights),
        HF_TEST(test_few_clients),
        HF_TEST(test_plan_and_text),
        HF_TEST(test_no_memory_and_names),
    };
    return cmocka_run_group_tests_name("sip/rebalance", tests, NULL, NULL);
}
