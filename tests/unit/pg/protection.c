/* pg/protection, pg/stats: time without protection, its events, and what became of sessions. */
#include "pg/protection.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "pg/pg.h"
#include "pg/protect_impl.h"
#include "support/test.h"

static struct hf_pg pg;
static char said[1024];

static void sink(void *arg, enum hf_log_level level, const char *prefix, const char *text)
{
    size_t n = strlen(said);
    (void)arg;
    (void)prefix;
    snprintf(said + n, sizeof(said) - n, "%s%s\n", level == HF_LOG_WARN ? "W " : "", text);
}

static hf_time no_clock(void)
{
    return 0;
}

static int setup(void **state)
{
    (void)state;
    memset(&pg, 0, sizeof(pg));
    hf_list_init(&pg.clients);
    hf_pg_reign_init(&pg.reign);
    said[0] = '\0';
    hf_log_setup(sink, NULL, no_clock, HF_LOG_INFO);
    return 0;
}

static void note(uint64_t epoch, enum hf_pair_state state, hf_time now)
{
    const struct hf_pair_primary_info info = {.state = state};
    hf_pg_reign_note(&pg, epoch, &info, "beta", now);
}

static void a_reign(void **state)
{
    (void)state;
    struct hf_pg_reign *r = &pg.reign;
    assert_int_equal(hf_pg_reign_unprotected(r, HF_S(5)), 0);
    note(3, HF_PAIR_STATE_NO_BACKUP, HF_S(10)); /* unprotected from its first instant on */
    note(3, HF_PAIR_STATE_SYNCING, HF_S(11));
    assert_int_equal(r->unprotected_since, HF_S(10));
    assert_int_equal(hf_pg_reign_unprotected(r, HF_S(12)), HF_S(2));
    note(3, HF_PAIR_STATE_IN_SYNC, HF_MS(12500));
    assert_int_equal(r->unprotected_since, HF_NEVER);
    assert_int_equal(hf_pg_reign_unprotected(r, HF_S(20)), HF_MS(2500));
    assert_int_equal(pg.counters.protection_losses, 0);
    note(3, HF_PAIR_STATE_LOST, HF_S(30));
    note(3, HF_PAIR_STATE_NO_BACKUP, HF_S(31));
    assert_int_equal(pg.counters.protection_losses, 1);
    assert_int_equal(hf_pg_reign_unprotected(r, HF_S(32)), HF_MS(4500));
    note(3, HF_PAIR_STATE_IN_SYNC, HF_S(33));
    note(3, HF_PAIR_STATE_IN_SYNC, HF_S(34));
    assert_int_equal(hf_pg_reign_unprotected(r, HF_S(40)), HF_MS(5500));
    assert_string_equal(said, "sessions are protected by beta, after 2.500 s without protection\n"
                              "W sessions are not protected any more: the backup was lost; they go "
                              "on, and are protected again when there is a backup in sync\n"
                              "sessions are protected by beta, after 3.000 s without protection\n");
}

static void its_end_and_the_next(void **state)
{
    (void)state;
    struct hf_pg_reign *r = &pg.reign;
    hf_pg_reign_note(&pg, 3, NULL, "", HF_S(1)); /* a backup: no reign, no time */
    assert_int_equal(hf_pg_reign_unprotected_ever(r, HF_S(2)), 0);
    note(4, HF_PAIR_STATE_CONNECTING, HF_S(10));
    hf_pg_reign_note(&pg, 4, NULL, "", HF_S(13));
    assert_int_equal(r->epoch, 0);
    assert_int_equal(hf_pg_reign_unprotected_ever(r, HF_S(50)), HF_S(3));
    assert_int_equal(hf_pg_reign_unprotected(r, HF_S(50)), HF_S(3)); /* of the last one */
    note(6, HF_PAIR_STATE_NO_BACKUP, HF_S(60));
    note(7, HF_PAIR_STATE_NO_BACKUP, HF_S(62)); /* another one, at once */
    assert_int_equal(hf_pg_reign_unprotected(r, HF_S(63)), HF_S(1));
    assert_int_equal(hf_pg_reign_unprotected_ever(r, HF_S(63)), HF_S(6));
    assert_string_equal(said, "");
    assert_int_equal(pg.counters.protection_losses, 0);
}

static void reasons(void **state)
{
    (void)state;
    struct hf_pg_protection_counts n;
    for (int s = 0; s < HF_PAIR_STATE_COUNT_; s++) {
        bool in_sync = s == HF_PAIR_STATE_IN_SYNC;
        assert_int_equal(strlen(hf_pg_protection_state_why((enum hf_pair_state)s, 0)) == 0,
                         in_sync);
    }
    hf_pg_protection_count(&pg, &n);
    assert_int_equal(n.sessions + n.n_protected + n.n_reasons + n.held, 0);
}

static void put_wait(struct waits *w, uint64_t number, size_t n, hf_time at)
{
    w->at[(w->first + w->n++) % WAITS_MAX] = (struct wait){.number = number, .n = n, .at = at};
}

static void how_far_the_confirm_lags(void **state)
{
    (void)state;
    const struct hf_pair_primary_conf conf = {.epoch = 1, .incarnation = 1};
    struct hf_pg_protect protect = {.pg = &pg};
    struct hf_pg_client c = {.pg = &pg};
    struct hf_pg_shield s = {.protect = &protect, .client = &c, .rx_total = 100, .rx_conf = 60};
    struct hf_pair_primary_info info;
    struct hf_pg_lag lag;
    pg.protect = &protect;
    assert_int_equal(hf_loop_create(&pg.loop), 0);
    assert_int_equal(hf_pg_wire_create(pg.loop, &pg.memory, &pg.wire), 0);
    hf_time now = hf_pg_now(&pg);
    assert_int_equal(hf_pair_primary_create(&conf, now, &protect.primary), 0);
    hf_pair_primary_info(protect.primary, now, &info);

    hf_pg_protect_lag(&c, &lag); /* not protected, or not waiting */
    assert_int_equal(lag.bytes + lag.batches + lag.held + (uint64_t)lag.age, 0);
    c.shield = &s;
    hf_pg_protect_lag(&c, &lag);
    assert_int_equal(lag.bytes + lag.batches + lag.held + (uint64_t)lag.age, 0);

    s.wait.first = WAITS_MAX - 1;
    put_wait(&s.wait, info.confirmed + 1, 10, now - HF_MS(5));
    put_wait(&s.wait, info.confirmed + 3, 20, now - HF_MS(2));
    put_wait(&s.seat_wait[1], info.confirmed + 2, 7, now - HF_MS(9));
    hf_pg_protect_lag(&c, &lag);
    assert_int_equal(lag.held, 37);  /* to be sent */
    assert_int_equal(lag.bytes, 77); /* ... and what came */
    assert_int_equal(lag.batches, 3);
    assert_true(lag.age >= HF_MS(9));

    hf_pair_primary_destroy(protect.primary);
    hf_pg_wire_destroy(pg.wire);
    hf_loop_destroy(pg.loop);
}

static void sessions_that_are_lost(void **state)
{
    (void)state;
    static char why[HF_PG_LOST_REASONS + 4][16];
    struct hf_pg_takeover_stats s = {0};
    for (int i = 0; i < HF_PG_LOST_REASONS + 4; i++) {
        snprintf(why[i], sizeof(why[i]), "w%d", i);
        hf_pg_takeover_lost(&s, why[i]);
    }
    hf_pg_takeover_lost(&s, "w0"); /* equal texts are one reason, whoever has them */
    assert_string_equal(s.lost[0].why, "w0");
    assert_int_equal(s.lost[0].n, 2);
    assert_string_equal(s.lost[HF_PG_LOST_REASONS - 1].why, "other");
    assert_int_equal(s.lost[HF_PG_LOST_REASONS - 1].n, 5);
    assert_string_equal(hf_pg_takeover_kind_name(HF_PG_TAKEOVER_PLANNED), "planned");
}

static uint64_t quantile_us(const struct hf_pg_histogram *h, const struct hf_pg_histogram *then,
                            double q)
{
    return (uint64_t)(hf_pg_histogram_quantile_ms(h, then, q) * 1000 + 0.5);
}

static void quantiles(void **state)
{
    (void)state;
    struct hf_pg_histogram h = {0}, then = {0}, both = {0};
    assert_true(hf_pg_histogram_quantile_ms(&h, &then, 0.5) < 0);
    for (int i = 0; i < 98; i++) {
        hf_pg_histogram_add(&h, 20000); /* less than 32 us */
    }
    hf_pg_histogram_add(&h, 100000);    /* less than 128 us */
    hf_pg_histogram_add(&h, 300000000); /* a stall */
    assert_int_equal(quantile_us(&h, &then, 0), 32);
    assert_int_equal(quantile_us(&h, &then, 0.5), 32);
    assert_int_equal(quantile_us(&h, &then, 0.99), 128);
    assert_int_equal(quantile_us(&h, &then, 1), 524288);
    hf_pg_histogram_join(&both, &h);
    hf_pg_histogram_join(&both, &h);
    assert_int_equal(both.count, 200);
    assert_int_equal(both.sum_ns, 2 * h.sum_ns);
    then = h; /* from now on only what is new counts */
    assert_true(hf_pg_histogram_quantile_ms(&h, &then, 1) < 0);
    hf_pg_histogram_add(&h, (uint64_t)HF_S(1000)); /* beyond the buckets: at least */
    assert_int_equal(quantile_us(&h, &then, 1), 16 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_reign, setup),
        cmocka_unit_test_setup(its_end_and_the_next, setup),
        cmocka_unit_test_setup(reasons, setup),
        cmocka_unit_test_setup(how_far_the_confirm_lags, setup),
        cmocka_unit_test_setup(sessions_that_are_lost, setup),
        cmocka_unit_test_setup(quantiles, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
