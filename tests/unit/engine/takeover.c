/* The protocol cores at a sequencer's death: what one survivor has, all get, once, before the
 * change. */
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/member.h"
#include "engine/sequencer.h"
#include "support/engine_rig.h"
#include "support/test.h"

#define N 3

/* Three members with direct calls to whichever sequencer there is. */
static struct hf_sequencer seq;
static struct hf_member member[N];
static struct rig_member told[N]; /* lines by way of rig_callbacks */
static unsigned link_of[N];
static bool linked[N], deaf[N], dead; /* deaf: the sequencer's frames are lost; dead: it is gone */

static int to_sequencer(void *arg, struct hf_slice s)
{
    unsigned i = (unsigned)((struct hf_member *)arg - member);
    if (dead || !linked[i]) {
        return -EPIPE;
    }
    hf_sequencer_input(&seq, link_of[i], s, 1);
    return 0;
}

static int to_member(void *arg, unsigned link, struct hf_slice s)
{
    (void)arg;
    for (unsigned i = 0; i < N; i++) {
        if (linked[i] && link_of[i] == link) {
            return deaf[i] ? 0 : hf_member_input(&member[i], s, 1);
        }
    }
    return -1;
}

static void closed(void *arg, unsigned link)
{
    (void)arg;
    for (unsigned i = 0; i < N; i++) {
        linked[i] = linked[i] && link_of[i] != link;
    }
}

static void new_sequencer(uint64_t generation, unsigned node)
{
    struct hf_sequencer_opt o = {.generation = generation,
                                 .node_id = node + 1,
                                 .silence = HF_S(1),
                                 .collect = generation > 1,
                                 .send = to_member,
                                 .close = closed};
    hf_sequencer_init(&seq, &o, 1);
    dead = false;
    memset(deaf, 0, sizeof(deaf));
}

static void attach(unsigned i)
{
    assert_int_equal(hf_sequencer_open(&seq, 1, &link_of[i]), 0);
    linked[i] = true;
    assert_int_equal(hf_member_attach(&member[i], 1), 0);
}

static void pump_all(void)
{
    for (unsigned n = 0; n < 3 * N; n++) {
        (void)!hf_member_pump(&member[n % N]);
    }
}

static void begin(void)
{
    memset(told, 0, sizeof(told));
    new_sequencer(1, 0);
    for (unsigned i = 0; i < N; i++) {
        struct hf_member_opt o = {.node_id = i + 1,
                                  .expected_votes = N,
                                  .silence = HF_S(1),
                                  .cb = rig_callbacks,
                                  .cb_arg = &told[i],
                                  .send = to_sequencer,
                                  .io_arg = &member[i]};
        snprintf(o.host, sizeof(o.host), "n%u", i + 1);
        hf_member_init(&member[i], &o);
        attach(i);
        assert_int_equal(hf_member_join(&member[i], "g"), 0);
        pump_all();
    }
}

static void finish(void)
{
    hf_sequencer_fini(&seq);
    for (unsigned i = 0; i < N; i++) {
        hf_member_fini(&member[i]);
        for (unsigned k = 0; k < told[i].n; k++) {
            free(told[i].line[k]);
        }
    }
}

static void say(unsigned i, const char *text)
{
    assert_int_equal(hf_member_multicast(&member[i], "g", hf_slice_str(text)), 0);
}

static void sequencer_dies(void)
{
    dead = true;
    hf_sequencer_fini(&seq);
    for (unsigned i = 0; i < N; i++) {
        linked[i] = false;
        if (i > 0) {
            (void)!hf_member_pump(&member[i]);
            hf_member_detach(&member[i]);
        }
    }
}

/* Told i these lines, in this order, after its view of three? Quorum lines are passed over. */
static void expect(unsigned i, const char *const *line, unsigned n)
{
    unsigned k = 0, got = 0;
    while (strcmp(told[i].line[k], "g v 1,2,3") != 0) {
        k++;
    }
    for (k++; k < told[i].n; k++) {
        if (told[i].line[k][0] != 'q') {
            assert_true(got < n);
            assert_string_equal(told[i].line[k], line[got++]);
        }
    }
    assert_int_equal(got, n);
}

/* The sequencer (member 0) dies while it fans out "x": member 1 has it, member 2 not; the member in
 * `first` succeeds it. */
static void in_the_middle(unsigned first)
{
    static const char *const want[] = {"g m 2 w", "g m 2 x", "g v 2,3 -1:proc", "g m 2 y",
                                       "g m 3 z"};
    begin();
    say(1, "w");
    pump_all();
    deaf[2] = true;
    say(1, "x");
    sequencer_dies();
    say(1, "y");
    say(2, "z");
    new_sequencer(2, first);
    attach(first);
    assert_string_equal(told[1].line[told[1].n - 1], "g m 2 x");
    assert_string_equal(told[2].line[told[2].n - 1], "g m 2 w");
    assert_false(seq.formed);
    attach(3 - first);
    assert_true(seq.formed);
    (void)!hf_member_pump(&member[1]);
    (void)!hf_member_pump(&member[2]);
    pump_all();
    expect(1, want, HF_ARRAY_LEN(want));
    expect(2, want, HF_ARRAY_LEN(want));
    finish();
}

static void the_one_ahead_succeeds(void **state)
{
    (void)state;
    in_the_middle(1);
}

static void the_one_behind_succeeds(void **state)
{
    (void)state;
    in_the_middle(2);
}

static void ordered_request_is_not_sent_twice(void **state)
{
    (void)state;
    static const char *const want[] = {"g m 3 mine", "g v 2,3 -1:proc"};
    begin();
    deaf[2] = true;
    say(2, "mine"); /* member 1 has it, its sender does not know */
    sequencer_dies();
    new_sequencer(2, 1);
    attach(2);
    attach(1);
    pump_all();
    expect(1, want, HF_ARRAY_LEN(want));
    expect(2, want, HF_ARRAY_LEN(want));
    finish();
}

static void who_does_not_come_is_lost(void **state)
{
    (void)state;
    begin();
    sequencer_dies();
    new_sequencer(2, 1);
    attach(1);
    hf_sequencer_tick(&seq, HF_S(1)); /* silence / 2 has passed: formed without member 2 */
    assert_true(seq.formed);
    pump_all();
    assert_int_equal(strcmp(told[1].line[told[1].n - 1], "g v 2 -1:proc -3:node"), 0);
    assert_false(told[1].quorate);
    assert_int_equal(hf_sequencer_open(&seq, 1, &link_of[2]), 0);
    linked[2] = true;
    (void)!hf_member_attach(&member[2], 1);
    assert_false(linked[2]);
    assert_int_equal(hf_member_pump(&member[2]), -HF_ELEFT);
    assert_true(told[2].lost);
    attach(2); /* as a newcomer */
    assert_int_equal(hf_member_join(&member[2], "g"), 0);
    pump_all();
    assert_string_equal(told[2].line[told[2].n - 1], "g v 2,3");
    finish();
}

static void create_without_memory(void **state)
{
    (void)state;
    struct hf_engine_embedded_opt opt = {.node_id = 1, .host = "a"};
    struct hf_engine *e = NULL;
    hf_mem_fail_after(0);
    int rc = hf_engine_embedded_create(&opt, NULL, &e);
    hf_mem_fail_after(-1);
    assert_int_equal(rc, -ENOMEM);
    assert_null(e);
    assert_int_equal(hf_engine_embedded_create(&opt, NULL, &e), 0);
    hf_time next;
    hf_mem_fail_after(0); /* no sequencer, and no request is kept; later there is */
    assert_int_equal(e->ops->dispatch(e, 1, &next), 0);
    assert_int_equal(e->ops->join(e, "g"), -ENOMEM);
    hf_mem_fail_after(-1);
    assert_int_equal(e->ops->dispatch(e, next, &next), 0);
    assert_int_equal(e->ops->join(e, "g"), 0);
    e->ops->destroy(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(the_one_ahead_succeeds),
        HF_TEST(the_one_behind_succeeds),
        HF_TEST(ordered_request_is_not_sent_twice),
        HF_TEST(who_does_not_come_is_lost),
        HF_TEST(create_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
