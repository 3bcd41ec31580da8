/* hostd/tree: walks in order and under a prefix, followers that tell every change once. */
#include "hostd/tree.h"

#include <stdio.h>

#include "base/buf.h"
#include "support/hostd_rig.h"
#include "support/test.h"

struct world {
    struct hostd_rig rig;
    struct rig_peer beta;
    unsigned wakes;
    char told[4096]; /* "+NAME@OWNER VALUE\n" and the like, since clear() */
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    rig_open(&w->rig);
    rig_peer_open(&w->beta, "beta", "127.0.0.2");
    rig_peer_publish(&w->beta, "/pg/x", "{\"n\":2}");
    rig_peer_publish(&w->beta, "/b", "{}");
    rig_publish(&w->rig, "/pg/x", "{\"n\":1}");
    rig_publish(&w->rig, "/pg", "{}");
    rig_publish(&w->rig, "/pg-x", "{}");
    rig_publish(&w->rig, "/pgx", "{}");
    rig_hear(&w->rig, &w->beta);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    rig_close(&w->rig);
    rig_peer_close(&w->beta);
    free(w);
    return 0;
}

static void assert_walk(struct world *w, const char *prefix, const char *expected)
{
    char got[1024] = "";
    struct hf_slice owner;
    struct hf_entry *e;
    struct hf_tree_walk *walk =
        hf_tree_walk_create(w->rig.h.dir, w->rig.h.store, hf_slice_str(prefix));
    assert_non_null(walk);
    while (hf_tree_walk_next(walk, &owner, &e)) {
        size_t n = strlen(got);
        snprintf(got + n, sizeof(got) - n, "%.*s@%.*s ", HF_SLICE_FMT(hf_entry_name(e)),
                 HF_SLICE_FMT(owner));
    }
    assert_false(hf_tree_walk_next(walk, &owner, &e));
    hf_tree_walk_destroy(walk);
    assert_string_equal(got, expected);
}

static void walks(void **state)
{
    struct world *w = *state;
    assert_walk(w, "", "/b@beta /pg@alpha /pg-x@alpha /pg/x@alpha /pg/x@beta /pgx@alpha ");
    assert_walk(w, "/", "/b@beta /pg@alpha /pg-x@alpha /pg/x@alpha /pg/x@beta /pgx@alpha ");
    assert_walk(w, "/pg", "/pg@alpha /pg/x@alpha /pg/x@beta ");
    assert_walk(w, "/pg/", "/pg@alpha /pg/x@alpha /pg/x@beta ");
    assert_walk(w, "/pg/x", "/pg/x@alpha /pg/x@beta ");
    assert_walk(w, "/nothing", "");
    hf_tree_walk_destroy(NULL);
}

static void a_walk_sees_one_moment(void **state)
{
    struct world *w = *state;
    struct hf_slice owner;
    struct hf_entry *e;
    struct hf_tree_walk *walk = hf_tree_walk_create(w->rig.h.dir, w->rig.h.store, hf_slice_str(""));
    rig_publish(&w->rig, "/a", "{}");
    rig_publish(&w->rig, "/pg", NULL);
    rig_bye(&w->rig, &w->beta);
    size_t n = 0;
    while (hf_tree_walk_next(walk, &owner, &e)) {
        n++;
    }
    assert_int_equal(n, 6);
    hf_tree_walk_destroy(walk);
    assert_walk(w, "", "/a@alpha /pg-x@alpha /pg/x@alpha /pgx@alpha ");
}

static void json(void **state)
{
    struct world *w = *state;
    struct hf_buf buf;
    hf_buf_init(&buf, 4096);
    struct hf_tree_walk *walk =
        hf_tree_walk_create(w->rig.h.dir, w->rig.h.store, hf_slice_str("/pg/x"));
    assert_true(hf_tree_walk_json(walk, &buf, 0)); /* in pieces of one entry */
    assert_true(hf_tree_walk_json(walk, &buf, buf.n));
    assert_false(hf_tree_walk_json(walk, &buf, buf.n));
    hf_assert_slice_str(hf_buf_slice(&buf),
                        "[\n{\"name\":\"/pg/x\",\"owner\":\"alpha\",\"value\":{\"n\":1}},\n"
                        "{\"name\":\"/pg/x\",\"owner\":\"beta\",\"value\":{\"n\":2}}\n]\n");
    hf_tree_walk_destroy(walk);
    hf_buf_clear(&buf);
    walk = hf_tree_walk_create(w->rig.h.dir, w->rig.h.store, hf_slice_str("/no"));
    assert_false(hf_tree_walk_json(walk, &buf, 4096));
    hf_assert_slice_str(hf_buf_slice(&buf), "[]\n");
    hf_tree_walk_destroy(walk);
    hf_buf_fini(&buf);
}

static void on_wake(void *arg)
{
    struct world *w = arg;
    w->wakes++;
}

static void on_event(void *arg, enum hf_follow_event event, struct hf_slice owner,
                     struct hf_entry *e)
{
    struct world *w = arg;
    size_t n = strlen(w->told), room = sizeof(w->told) - n;
    if (event == HF_FOLLOW_SYNCED) {
        snprintf(w->told + n, room, "synced ");
        return;
    }
    snprintf(w->told + n, room, "%c%.*s@%.*s%.*s ", " +*-"[event], HF_SLICE_FMT(hf_entry_name(e)),
             HF_SLICE_FMT(owner), HF_SLICE_FMT(hf_entry_value(e)));
}

static void assert_told(struct world *w, struct hf_follow *f, uint32_t most, const char *expected)
{
    w->told[0] = '\0';
    bool more = hf_follow_tell(f, most, on_event, w);
    assert_string_equal(w->told, expected);
    assert_int_equal(more, most == 1);
}

static void follows(void **state)
{
    struct world *w = *state;
    struct hf_follow *f = hf_follow_create(w->rig.h.follows, hf_slice_str("/pg"), on_wake, w);
    assert_told(w, f, 1, "+/pg@alpha{} ");
    assert_told(w, f, 100, "+/pg/x@alpha{\"n\":1} +/pg/x@beta{\"n\":2} synced ");
    assert_told(w, f, 100, "");
    assert_int_equal(w->wakes, 0);
    /* what changes twice is told once, what comes and goes is not told */
    rig_publish(&w->rig, "/pg/x", "{\"n\":3}");
    rig_publish(&w->rig, "/pg/x", "{\"n\":4}");
    rig_publish(&w->rig, "/pg/y", "{}");
    rig_publish(&w->rig, "/pg/y", NULL);
    assert_int_equal(w->wakes, 4);
    assert_told(w, f, 100, "*/pg/x@alpha{\"n\":4} ");
    /* a change while its part is being told */
    rig_publish(&w->rig, "/pg/1", "{}");
    rig_publish(&w->rig, "/pg/2", "{}");
    assert_told(w, f, 1, "+/pg/1@alpha{} ");
    rig_publish(&w->rig, "/pg/1", NULL);
    assert_told(w, f, 100, "+/pg/2@alpha{} -/pg/1@alpha{} ");
    rig_bye(&w->rig, &w->beta);
    assert_told(w, f, 100, "-/pg/x@beta{\"n\":2} ");
    rig_publish(&w->rig, "/elsewhere", "{}");
    assert_told(w, f, 100, "");
    hf_follow_destroy(f);
    hf_follow_destroy(NULL);
}

static void a_host_heard_later(void **state)
{
    struct world *w = *state;
    struct rig_peer gamma;
    struct hf_follow *f = hf_follow_create(w->rig.h.follows, hf_slice_str("/g"), on_wake, w);
    assert_told(w, f, 100, "synced ");
    rig_peer_open(&gamma, "gamma", "127.0.0.3");
    rig_peer_publish(&gamma, "/g/a", "{}");
    rig_hear(&w->rig, &gamma);
    assert_told(w, f, 100, "+/g/a@gamma{} ");
    rig_peer_publish(&gamma, "/g/a", "{\"b\":1}");
    rig_hear(&w->rig, &gamma);
    assert_told(w, f, 100, "*/g/a@gamma{\"b\":1} ");
    hf_follow_destroy(f);
    rig_peer_close(&gamma);
}

#define ROW(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(walks), ROW(a_walk_sees_one_moment), ROW(json), ROW(follows), ROW(a_host_heard_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
