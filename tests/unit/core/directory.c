/* core/directory, one host alone: start, publishers, leases, limits, and what it tells of itself.
 */
#include "core/directory/directory.h"

#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "support/test.h"

#define VALUE "{\"port\":5432}"

struct rig {
    struct hf_dir_store *store;
    struct hf_dir *dir;
    struct hf_dir_out out;
    hf_time now;
};

static void step(struct rig *r, struct hf_dir_in *in)
{
    hf_dir_step(r->dir, in, r->now, &r->out);
}

static const struct hf_dir_act *act_of(const struct rig *r, enum hf_dir_act_kind kind)
{
    for (uint32_t i = 0; i < r->out.n; i++) {
        if (r->out.act[i].kind == kind) {
            return &r->out.act[i];
        }
    }
    return NULL;
}

static void timer(struct rig *r)
{
    r->now = hf_dir_deadline(r->dir);
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_TIMER});
}

static int setup(void **state)
{
    static struct rig rig;
    struct hf_dir_conf conf = {.host = hf_slice_str("alpha"),
                               .heartbeat_ms = 1000,
                               .sync_ms = 10000,
                               .incarnation = 7,
                               .seed = 1};
    rig = (struct rig){.now = HF_S(1000)};
    assert_int_equal(hf_dir_store_create(100, 1, &rig.store), 0);
    assert_int_equal(hf_dir_create(&conf, rig.store, rig.now, &rig.dir), 0);
    hf_dir_out_init(&rig.out);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    hf_dir_out_fini(&r->out);
    hf_dir_destroy(r->dir);
    hf_dir_store_destroy(r->store);
    return 0;
}

static void run(struct rig *r)
{
    timer(r);
    assert_int_equal(hf_dir_state(r->dir), HF_DIR_PERSIST);
    assert_int_equal(act_of(r, HF_DIR_ACT_PERSIST)->incarnation, 7);
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_PERSISTED, .salt = {1}});
    assert_int_equal(hf_dir_state(r->dir), HF_DIR_RUN);
}

static int publish(struct rig *r, uint32_t publisher, const char *name, const char *value,
                   uint32_t lease_ms)
{
    struct hf_dir_in in = {.kind = HF_DIR_IN_PUBLISH};
    in.publisher = publisher;
    in.lease_ms = lease_ms;
    in.name = hf_slice_str(name);
    in.value = hf_slice_str(value);
    step(r, &in);
    return act_of(r, HF_DIR_ACT_RESULT)->rc;
}

static int withdraw(struct rig *r, uint32_t publisher, const char *name)
{
    struct hf_dir_in in = {.kind = HF_DIR_IN_WITHDRAW};
    in.publisher = publisher;
    in.name = hf_slice_str(name);
    step(r, &in);
    return act_of(r, HF_DIR_ACT_RESULT)->rc;
}

static bool there(const struct rig *r, const char *name)
{
    return hf_part_find(hf_dir_part(r->dir, hf_dir_self(r->dir)), hf_slice_str(name)) != NULL;
}

static void unseen_until_persisted(void **state)
{
    struct rig *r = *state;
    assert_int_equal(publish(r, 1, "/early", VALUE, 0), 0); /* kept, not yet told */
    assert_null(act_of(r, HF_DIR_ACT_MULTICAST));
    assert_null(hf_dir_part(r->dir, hf_dir_self(r->dir)));
    timer(r);
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_PERSISTED, .rc = -5});
    assert_int_equal(hf_dir_state(r->dir), HF_DIR_PERSIST);
    assert_int_equal(hf_dir_deadline(r->dir), r->now + HF_S(1));
    timer(r);
    assert_non_null(act_of(r, HF_DIR_ACT_PERSIST));
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_PERSISTED, .salt = {1}});
    assert_non_null(act_of(r, HF_DIR_ACT_MULTICAST));
    assert_true(there(r, "/early"));
    assert_int_equal(hf_dir_members(r->dir), 1);
    assert_int_equal(hf_dir_period_ms(r->dir), 1000);
    assert_int_equal(hf_dir_incarnation(r->dir), 7);
    struct hf_buf buf;
    hf_buf_init(&buf, 4096);
    assert_int_equal(hf_dir_encode_state(r->dir, hf_slice_str("beta"), true, r->now, &buf), 0);
    hf_buf_fini(&buf);
}

static void publishers_hold_their_names(void **state)
{
    struct rig *r = *state;
    struct hf_dir_local_info info;
    run(r);
    assert_int_equal(publish(r, 1, "/a", VALUE, 0), 0);
    assert_int_equal(publish(r, 2, "/a", "{}", 0), -HF_EHELD);
    assert_int_equal(withdraw(r, 2, "/a"), -HF_EHELD);
    assert_int_equal(publish(r, 1, "a", VALUE, 0), -HF_ENAME);
    assert_int_equal(publish(r, 1, "/a", "[]", 0), -HF_EVALUE);
    assert_int_equal(withdraw(r, 1, "/b"), -HF_ENOTFOUND);
    assert_true(hf_dir_local_info(r->dir, hf_slice_str("/a"), &info));
    assert_int_equal(info.publisher, 1);
    assert_int_equal(info.expires, HF_NEVER);
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_PUBLISHER_GONE, .publisher = 1});
    assert_false(there(r, "/a"));
    assert_false(hf_dir_local_info(r->dir, hf_slice_str("/a"), &info));
    assert_int_equal(publish(r, 2, "/a", "{}", 0), 0);
    assert_int_equal(hf_dir_counters(r->dir)->refused_publish, 4);
}

static void a_publisher_of_many_goes(void **state)
{
    struct rig *r = *state;
    char name[32];
    run(r);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "/n/%d", i);
        assert_int_equal(publish(r, 1 + (uint32_t)i % 2, name, VALUE, 0), 0);
    }
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_PUBLISHER_GONE, .publisher = 1});
    for (int i = 0; i < 50; i++) { /* more than one step may do: the timer goes on */
        timer(r);
    }
    assert_int_equal(hf_dir_part(r->dir, hf_dir_self(r->dir))->n_entries, 250);
    assert_true(there(r, "/n/1"));
    assert_false(there(r, "/n/0"));
}

/* More than are remembered for deltas: found by a daemon that went round for ever. */
static void more_withdrawn_than_remembered(void **state)
{
    struct rig *r = *state;
    char name[32];
    run(r);
    for (int i = 0; i < 2 * HF_HISTORY_MAX; i++) {
        snprintf(name, sizeof(name), "/n/%d", i);
        assert_int_equal(publish(r, 1, name, VALUE, 0), 0);
    }
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_PUBLISHER_GONE, .publisher = 1});
    for (int i = 0; i < 1000 && hf_dir_part(r->dir, hf_dir_self(r->dir))->n_entries > 0; i++) {
        timer(r);
    }
    assert_int_equal(hf_dir_part(r->dir, hf_dir_self(r->dir))->n_entries, 0);
    assert_int_equal(publish(r, 2, "/n/0", VALUE, 0), 0);
    assert_true(there(r, "/n/0"));
}

/* Who gets all adverts of a burst needs no pull: each leads on from the one before. */
static void a_burst_is_told_as_it_goes(void **state)
{
    struct rig *r = *state;
    char name[32];
    uint64_t told = 0;
    uint32_t adverts = 0;
    run(r);
    for (int i = 0; i <= 300; i++) {
        if (i < 300) {
            snprintf(name, sizeof(name), "/burst/%d", i);
            assert_int_equal(publish(r, 1, name, VALUE, 0), 0);
        } else {
            timer(r); /* the rest */
        }
        if (act_of(r, HF_DIR_ACT_MULTICAST)) {
            struct hf_advert a;
            assert_int_equal(hf_advert_decode(hf_slice(r->out.body, r->out.body_len), &a), 0);
            assert_true(a.from <= told);
            told = a.version;
            adverts++;
        }
    }
    assert_int_equal(told, 300);
    assert_in_range(adverts, 2, 30);
}

static void leases_run_out(void **state)
{
    struct rig *r = *state;
    run(r);
    assert_int_equal(publish(r, 1, "/lease", VALUE, 5000), 0);
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_PUBLISHER_GONE, .publisher = 1});
    assert_true(there(r, "/lease"));
    hf_time end = r->now + HF_S(5);
    assert_int_equal(publish(r, 2, "/lease", VALUE, 6000), 0); /* anybody may renew it */
    while (r->now <= end) {
        timer(r);
    }
    assert_true(there(r, "/lease"));
    while (r->now < end + HF_S(1)) {
        timer(r);
    }
    assert_false(there(r, "/lease"));
    assert_int_equal(hf_dir_counters(r->dir)->leases_expired, 1);
}

static void a_flood_is_refused(void **state)
{
    struct rig *r = *state;
    run(r);
    char value[32];
    int rc = 0;
    for (int i = 0; i < HF_PUBLISH_BURST; i++) {
        snprintf(value, sizeof(value), "{\"n\":%d}", i);
        rc = rc ? rc : publish(r, 1, "/flood", value, 0);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(publish(r, 1, "/flood", VALUE, 0), -HF_ERATE);
    assert_int_equal(publish(r, 2, "/other", VALUE, 0), 0); /* others are not held up */
    r->now += HF_S(1);
    assert_int_equal(publish(r, 1, "/flood", VALUE, 0), 0);
    assert_int_equal(hf_dir_counters(r->dir)->refused_rate, 1);
}

static void a_full_tree_is_refused(void **state)
{
    struct rig *r = *state;
    run(r);
    static char value[HF_VALUE_LEN_MAX];
    char name[32];
    memset(value, ' ', sizeof(value));
    value[0] = '{';
    value[sizeof(value) - 2] = '}';
    value[sizeof(value) - 1] = '\0';
    int rc = 0, n = 0;
    while (rc == 0 && n < 2000) {
        snprintf(name, sizeof(name), "/big/%d", n++);
        rc = publish(r, 1, name, value, 0);
    }
    assert_int_equal(rc, -HF_EFULL);
    assert_true(there(r, "/big/0"));
    assert_int_equal(withdraw(r, 1, "/big/0"), 0);
    assert_int_equal(publish(r, 1, name, value, 0), 0);
    assert_int_equal(hf_dir_counters(r->dir)->refused_full, 1);
}

static void bye_ends_it(void **state)
{
    struct rig *r = *state;
    run(r);
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_STOP});
    assert_non_null(act_of(r, HF_DIR_ACT_MULTICAST));
    struct hf_advert a;
    assert_int_equal(hf_advert_decode(hf_slice(r->out.body, r->out.body_len), &a), 0);
    assert_int_equal(a.flags, HF_ADVERT_BYE);
    assert_int_equal(hf_dir_deadline(r->dir), HF_NEVER);
    step(r, &(struct hf_dir_in){.kind = HF_DIR_IN_TIMER});
    assert_int_equal(r->out.n, 0);
}

/* An authentic advert of beta: version 3, nothing in it that we could apply. */
static void hear_beta(struct rig *r, uint64_t counter, uint64_t hash)
{
    struct hf_datagram_head head = {.kind = HF_DATAGRAM_ADVERT,
                                    .incarnation = 4,
                                    .salt = {9},
                                    .counter = counter,
                                    .host = hf_slice_str("beta")};
    struct hf_advert advert = {.period_ms = 1000, .version = 3, .from = 3, .hash = hash};
    hf_rd_init(&advert.changes.r, hf_slice(NULL, 0));
    struct hf_dir_in in = {.kind = HF_DIR_IN_ADVERT};
    in.owner = hf_dir_store_owner(r->store, head.host);
    in.head = &head;
    in.advert = &advert;
    step(r, &in);
}

/* What beta answers: all of its part (one entry), or that nothing has changed since. */
static void beta_answers(struct rig *r, const struct hf_entry *e, bool full, uint64_t counter)
{
    static uint8_t body[HF_VALUE_LEN_MAX * 2];
    struct hf_pull pull = {.head = {.owner = hf_slice_str("beta"),
                                    .incarnation = 4,
                                    .salt = {9},
                                    .counter = counter,
                                    .version = 3,
                                    .hash = e->hash,
                                    .period_ms = 1000},
                           .full = full,
                           .from = full ? 0 : 3};
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, body, sizeof(body));
    hf_pull_encode(&w, &pull, full ? 1 : 0);
    if (full) {
        hf_change_encode(&w,
                         &(struct hf_change){.name = hf_entry_name(e), .value = hf_entry_value(e)});
    }
    assert_int_equal(hf_wr_end(&w, &s), 0);
    assert_int_equal(hf_pull_decode(s, &pull), 0);
    struct hf_dir_in in = {.kind = HF_DIR_IN_PULLED};
    in.owner = hf_dir_store_owner(r->store, hf_slice_str("beta"));
    in.pull = &pull;
    step(r, &in);
}

static void a_large_part_returns_by_delta(void **state)
{
    struct rig *r = *state;
    static char value[HF_VALUE_LEN_MAX];
    run(r);
    memset(value, ' ', sizeof(value));
    value[0] = '{';
    value[sizeof(value) - 1] = '}';
    struct hf_entry *e = hf_entry_create(hf_slice_str("/big"), hf_slice(value, sizeof(value)));
    hear_beta(r, 1, e->hash);
    assert_int_equal(act_of(r, HF_DIR_ACT_PULL)->since, 0);
    beta_answers(r, e, true, 1);
    assert_true(act_of(r, HF_DIR_ACT_MEMBER)->up);
    hf_time silent = r->now;
    while (hf_dir_members(r->dir) == 2) {
        timer(r);
    }
    assert_true(r->now - silent <= HF_S(4));
    hear_beta(r, 2, e->hash);
    assert_int_equal(hf_dir_members(r->dir), 1); /* alive only by a pull (A-r2) */
    assert_int_equal(act_of(r, HF_DIR_ACT_PULL)->incarnation, 4);
    assert_int_equal(act_of(r, HF_DIR_ACT_PULL)->since, 3);
    beta_answers(r, e, false, 2);
    assert_int_equal(hf_dir_members(r->dir), 2);
    assert_int_equal(act_of(r, HF_DIR_ACT_PART)->after->n_entries, 1);
    hf_entry_unref(e);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(hf_dir_state_name(HF_DIR_RUN), "run");
    assert_string_equal(hf_dir_peer_state_name(HF_DIR_PEER_WANTED), "syncing");
    assert_true(hf_dir_peer_size() <= 32);
}

static void parts_share_entries(void **state)
{
    (void)state;
    static const uint8_t salt[HF_SALT_LEN];
    struct hf_part *p = hf_part_create(0, 1, salt);
    struct hf_entry *e = hf_entry_create(hf_slice_str("/b"), hf_slice_str(VALUE));
    assert_int_equal(hf_part_put(p, e), 0);
    struct hf_part *q = hf_part_ref(hf_part_fork(p));
    assert_ptr_equal(hf_part_find(q, hf_slice_str("/b")), e);
    struct hf_part_pos pos = hf_part_seek(q, hf_slice_str("/a"));
    assert_ptr_equal(hf_part_next(q, &pos), e);
    assert_null(hf_part_next(q, &pos));
    hf_entry_unref(hf_entry_ref(e));
    hf_entry_unref(e);
    hf_part_unref(p);
    hf_part_unref(q);
    assert_non_null(hf_part_find(q, hf_slice_str("/b")));
    hf_part_unref(q);
}

static void changes_lead_to_a_hash(void **state)
{
    (void)state;
    static const uint8_t salt[HF_SALT_LEN];
    struct hf_dir_store *store;
    struct hf_part *p = NULL, *again = NULL;
    uint8_t buf[64];
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_change_encode(&w,
                     &(struct hf_change){.name = hf_slice_str("/a"), .value = hf_slice_str("{}")});
    struct hf_changes changes = {.n = 1};
    hf_rd_init(&changes.r, hf_slice(buf, hf_wr_len(&w)));
    struct hf_entry *e = hf_entry_create(hf_slice_str("/a"), hf_slice_str("{}"));
    struct hf_part_key key = {.owner = 0, .incarnation = 1, .version = 1, .hash = e->hash};
    hf_entry_unref(e);
    assert_int_equal(hf_dir_store_create(4, 1, &store), 0);
    assert_int_equal(hf_part_lead(store, &key, salt, NULL, changes, &p), 0);
    assert_int_equal(hf_part_lead(store, &key, salt, NULL, changes, &again), 0);
    assert_ptr_equal(p, again); /* found, not made twice */
    key.hash++;
    assert_int_equal(hf_part_lead(store, &key, salt, NULL, changes, &again), -HF_EMALF);
    hf_part_unref(p);
    hf_part_unref(p);
    hf_dir_store_destroy(store);
}

#define DIR_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DIR_TEST(unseen_until_persisted),
        DIR_TEST(publishers_hold_their_names),
        DIR_TEST(a_publisher_of_many_goes),
        DIR_TEST(more_withdrawn_than_remembered),
        DIR_TEST(a_burst_is_told_as_it_goes),
        DIR_TEST(leases_run_out),
        DIR_TEST(a_flood_is_refused),
        DIR_TEST(a_full_tree_is_refused),
        DIR_TEST(bye_ends_it),
        DIR_TEST(a_large_part_returns_by_delta),
        HF_TEST(names),
        HF_TEST(parts_share_entries),
        HF_TEST(changes_lead_to_a_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
