/* What every engine does: the same tests on the embedded one (alone, over sockets) and the
 * simulator's. */
#include <errno.h>
#include <stdio.h>

#include "support/engine_rig.h"
#include "support/test.h"

static int join(struct rig *r, unsigned i, const char *group)
{
    return r->m[i].e->ops->join(r->m[i].e, group);
}

static int leave(struct rig *r, unsigned i, const char *group)
{
    return r->m[i].e->ops->leave(r->m[i].e, group);
}

static int say(struct rig *r, unsigned i, const char *group, const char *text)
{
    return r->m[i].e->ops->multicast(r->m[i].e, group, hf_slice_str(text));
}

static void one_alone(enum rig_kind kind)
{
    struct rig r;
    rig_init(&r, kind, 1);
    rig_start(&r, 0);
    assert_int_equal(join(&r, 0, ""), -HF_ENAME);
    assert_int_equal(say(&r, 0, "g", "x"), -HF_ELEFT);
    assert_int_equal(leave(&r, 0, "g"), -HF_ELEFT);
    assert_int_equal(join(&r, 0, "g"), 0);
    assert_int_equal(join(&r, 0, "g"), -EALREADY);
    assert_true(rig_wait(&r, 0, "g v 1", 1));
    assert_true(rig_count(&r, 0, "q 1") > 0);
    uint8_t big[HF_ENGINE_MSG_MAX + 1] = {0};
    assert_int_equal(r.m[0].e->ops->multicast(r.m[0].e, "g", hf_slice(big, sizeof(big))),
                     -EMSGSIZE);
    int rc = 0, sent = 0;
    for (; rc == 0 && sent < 1000; sent++) {
        rc = say(&r, 0, "g", "one");
    }
    assert_int_equal(rc, -HF_EFULL);
    assert_true(rig_wait(&r, 0, "g m 1 one", (unsigned)sent - 1));
    assert_int_equal(say(&r, 0, "g", "two"), 0);
    assert_true(rig_wait(&r, 0, "g m 1 two", 1));
    assert_int_equal(leave(&r, 0, "g"), 0);
    assert_int_equal(say(&r, 0, "g", "late"), -HF_ELEFT);
    assert_true(rig_wait(&r, 0, "g v  -1:left", 1));
    assert_int_equal(join(&r, 0, "g"), 0);
    assert_true(rig_wait(&r, 0, "g v 1", 2));
    rig_fini(&r);
}

static void three_agree(enum rig_kind kind)
{
    struct rig r;
    rig_init(&r, kind, 3);
    for (unsigned i = 0; i < 3; i++) {
        rig_start(&r, i);
        assert_int_equal(join(&r, i, "g"), 0);
        assert_true(rig_wait(&r, i, i == 0 ? "g v 1" : i == 1 ? "g v 1,2" : "g v 1,2,3", 1));
    }
    assert_true(rig_wait(&r, 0, "g v 1,2,3", 1));
    assert_true(rig_wait(&r, 1, "g v 1,2,3", 1));
    rig_run(&r, 5);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(r.m[i].quorate);
        assert_int_equal(r.m[i].view_ring, r.m[0].view_ring);
        assert_true(r.m[i].quorum_ring >= r.m[i].view_ring);
    }
    for (unsigned n = 0; n < 60; n++) {
        char text[16];
        snprintf(text, sizeof(text), "t%u", n);
        while (say(&r, n % 3, "g", text) == -HF_EFULL) {
            rig_run(&r, 1);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_true(rig_wait(&r, i, "g m 1 t57", 1));
        assert_true(rig_wait(&r, i, "g m 2 t58", 1));
        assert_true(rig_wait(&r, i, "g m 3 t59", 1));
    }
    int at[3];
    for (unsigned i = 0; i < 3; i++) {
        at[i] = rig_find(&r, i, "g v 1,2,3");
    }
    for (unsigned n = 0, k[3] = {0}; n < 60; n++) { /* the same messages in the same order */
        const char *line[3];
        for (unsigned i = 0; i < 3; i++) {
            do {
                line[i] = r.m[i].line[(unsigned)at[i] + ++k[i]];
            } while (line[i][0] == 'q');
        }
        assert_string_equal(line[0], line[1]);
        assert_string_equal(line[0], line[2]);
    }
    assert_int_equal(leave(&r, 1, "g"), 0);
    assert_true(rig_wait(&r, 0, "g v 1,3 -2:left", 1));
    rig_stop(&r, 2);
    assert_true(rig_wait(&r, 0, "g v 1 -3:proc", 1));
    assert_true(r.m[0].quorate);
    rig_stop(&r, 0);
    rig_run(&r, 5);
    unsigned before = rig_count(&r, 1, "q 0");
    if (!before) {
        assert_true(rig_wait(&r, 1, "q 0", 1));
    }
    assert_false(r.m[1].lost);
    rig_fini(&r);
}

/* The member with the lowest number dies first each time: over sockets that is the sequencer. */
static void successors(enum rig_kind kind)
{
    struct rig r;
    rig_init(&r, kind, 3);
    for (unsigned i = 0; i < 3; i++) {
        rig_start(&r, i);
        assert_int_equal(join(&r, i, "g"), 0);
        assert_true(rig_wait(&r, i, i == 0 ? "g v 1" : i == 1 ? "g v 1,2" : "g v 1,2,3", 1));
    }
    assert_true(rig_wait(&r, 1, "g v 1,2,3", 1));
    assert_int_equal(say(&r, 1, "g", "before"), 0);
    assert_true(rig_wait(&r, 2, "g m 2 before", 1));
    rig_stop(&r, 0);
    assert_int_equal(say(&r, 1, "g", "during"), 0);
    assert_int_equal(say(&r, 2, "g", "too"), 0);
    for (unsigned i = 1; i < 3; i++) {
        assert_true(rig_wait(&r, i, "g v 2,3 -1:proc", 1));
        assert_true(rig_wait(&r, i, "g m 2 during", 1));
        assert_true(rig_wait(&r, i, "g m 3 too", 1));
    }
    rig_start(&r, 0);
    assert_int_equal(join(&r, 0, "g"), 0);
    assert_true(rig_wait(&r, 1, "g v 1,2,3", 2));
    assert_true(rig_wait(&r, 0, "g v 1,2,3", r.kind == RIG_SIM ? 2 : 2));
    rig_stop(&r, 1);
    assert_true(rig_wait(&r, 0, "g v 1,3 -2:proc", 1));
    assert_true(rig_wait(&r, 2, "g v 1,3 -2:proc", 1));
    for (unsigned i = 0; i < 3; i++) {
        assert_true(rig_count(&r, i, "g m 2 during") <= 1);
        assert_false(r.m[i].lost);
    }
    rig_fini(&r);
}

static void alone_in_process(void **state)
{
    (void)state;
    one_alone(RIG_ALONE);
}

static void alone_over_sockets(void **state)
{
    (void)state;
    one_alone(RIG_SOCKETS);
}

static void alone_in_the_simulator(void **state)
{
    (void)state;
    one_alone(RIG_SIM);
}

static void three_over_sockets(void **state)
{
    (void)state;
    three_agree(RIG_SOCKETS);
}

static void three_in_the_simulator(void **state)
{
    (void)state;
    three_agree(RIG_SIM);
}

static void successors_over_sockets(void **state)
{
    (void)state;
    successors(RIG_SOCKETS);
}

static void successors_in_the_simulator(void **state)
{
    (void)state;
    successors(RIG_SIM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(alone_in_process),
        HF_TEST(alone_over_sockets),
        HF_TEST(alone_in_the_simulator),
        HF_TEST(three_over_sockets),
        HF_TEST(three_in_the_simulator),
        HF_TEST(successors_over_sockets),
        HF_TEST(successors_in_the_simulator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
