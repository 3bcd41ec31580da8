/* hostd/timeline: what happened to hosts, groups and programs, and figures of late. */
#include "hostd/timeline.h"

#include <jansson.h>
#include <stdio.h>

#include "base/buf.h"
#include "support/fake_groups.h"
#include "support/hostd_rig.h"
#include "support/test.h"

struct world {
    struct hostd_rig rig;
    struct hf_groups groups;
    struct rig_peer beta;
    unsigned told; /* calls of the listener */
};

static void count(void *arg)
{
    struct world *w = arg;
    w->told++;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct hf_err err = {0};
    rig_open(&w->rig);
    fake_groups_init(&w->groups);
    w->rig.h.groups = &w->groups;
    rig_peer_open(&w->beta, "beta", "::1");
    rig_publish(&w->rig, "/manager/vip", "{\"role\":\"backup\",\"pair\":\"following\"}");
    assert_int_equal(hf_timeline_open(&w->rig.h, &err, &w->rig.h.timeline), 0);
    hf_timeline_listen(w->rig.h.timeline, count, w);
    rig_turn(&w->rig); /* it has read the tree */
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    hf_timeline_close(w->rig.h.timeline);
    w->rig.h.timeline = NULL;
    for (size_t i = 0; i < FAKE_LISTENERS_MAX; i++) {
        assert_null(w->groups.listener[i].fn);
    }
    rig_close(&w->rig);
    rig_peer_close(&w->beta);
    free(w);
    return 0;
}

static const struct hf_note *last_note(struct world *w)
{
    uint64_t n = hf_timeline_notes(w->rig.h.timeline);
    assert_int_not_equal(n, 0);
    n--;
    return hf_timeline_note_at(w->rig.h.timeline, &n);
}

/* Until there are n notes; the text of the last one. */
static const char *until(struct world *w, uint64_t n)
{
    while (hf_timeline_notes(w->rig.h.timeline) < n) {
        rig_turn(&w->rig);
    }
    assert_int_equal(hf_timeline_notes(w->rig.h.timeline), n);
    return last_note(w)->text;
}

static void hosts_and_groups(void **state)
{
    struct world *w = *state;
    assert_int_equal(hf_timeline_notes(w->rig.h.timeline), 0); /* what was there is no news */
    rig_hear(&w->rig, &w->beta);
    assert_string_equal(until(w, 1), "alive");
    assert_string_equal(last_note(w)->name, "beta");
    fake_groups_changed(&w->groups, "copy2 is in sync");
    assert_string_equal(until(w, 2), "copy2 is in sync");
    assert_string_equal(last_note(w)->name, "orders");
    assert_int_equal(last_note(w)->epoch, 7);
    fake_groups_changed(&w->groups, NULL);
    rig_bye(&w->rig, &w->beta);
    assert_string_equal(until(w, 3), "left: its services leave the tree");
    assert_true(w->told >= 3);
    hf_timeline_note(NULL, HF_ABOUT_HOST, "x", 0, "nobody keeps it");
}

static void the_role_of_a_manager(void **state)
{
    struct world *w = *state;
    rig_publish(&w->rig, "/manager/vip",
                "{\"role\":\"primary\",\"peer\":\"beta\",\"takeover\":{\"kind\":\"failure\","
                "\"epoch\":8,\"ms\":320,\"sessions\":100,\"restored\":98}}");
    assert_string_equal(until(w, 3), "alpha took over (failure, epoch 8): 100 sessions, "
                                     "98 restored, in 320 ms");
    uint64_t i = 0;
    const struct hf_note *n = hf_timeline_note_at(w->rig.h.timeline, &i);
    assert_string_equal(n->text, "holdfast-pg on alpha: primary");
    assert_string_equal(n->name, "vip");
    i++;
    n = hf_timeline_note_at(w->rig.h.timeline, &i);
    assert_string_equal(n->text, "its sessions at alpha are protected by beta");
    rig_publish(&w->rig, "/manager/vip",
                "{\"role\":\"primary\",\"peer\":\"\",\"why\":\"no backup\",\"unprotected_since\":1,"
                "\"takeover\":{\"kind\":\"failure\",\"epoch\":8,\"ms\":320,\"sessions\":100,"
                "\"restored\":98}}");
    assert_string_equal(until(w, 4), "its sessions at alpha have no backup: no backup");
    rig_publish(&w->rig, "/manager/vip", NULL);
    assert_string_equal(until(w, 5), "holdfast-pg on alpha is gone");
}

static void sip_servers(void **state)
{
    struct world *w = *state;
    rig_publish(&w->rig, "/sip/servers/s1", "{\"state\":\"live\",\"leads\":true,\"rows\":1}");
    assert_string_equal(until(w, 1), "server on alpha: live"); /* that it leads is no news */
    rig_publish(&w->rig, "/sip/servers/s1", "{\"state\":\"live\",\"leads\":true,\"rows\":2}");
    rig_publish(&w->rig, "/sip/servers/s1/x", "{\"state\":\"live\"}");
    rig_publish(&w->rig, "/sip/servers/s1", "{\"state\":\"draining\",\"leads\":false}");
    assert_string_equal(until(w, 2), "server on alpha: draining");
    rig_publish(&w->rig, "/sip/servers/s1", "{\"state\":\"live\",\"leads\":true,\"busy\":true}");
    assert_string_equal(until(w, 4), "leads: moves users between servers");
    rig_publish(&w->rig, "/sip/servers/s1", NULL);
    assert_string_equal(until(w, 5), "server on alpha is gone");
}

static void assert_sample(struct world *w, uint64_t i, const char *expected)
{
    struct hf_buf out;
    const struct hf_sample *s = hf_timeline_sample_at(w->rig.h.timeline, &i);
    assert_non_null(s);
    hf_buf_init(&out, 1000);
    hf_sample_json(s, &out);
    hf_buf_add(&out, hf_slice("", 1));
    assert_non_null(strstr((char *)out.p, expected));
    json_t *v = json_loads((char *)out.p, JSON_REJECT_DUPLICATES, NULL);
    assert_true(json_integer_value(json_object_get(v, "at")) > 0);
    json_decref(v);
    hf_buf_fini(&out);
}

static void figures(void **state)
{
    struct world *w = *state;
    assert_int_equal(hf_timeline_samples(w->rig.h.timeline), 0); /* a backup has none */
    rig_publish(&w->rig, "/manager/vip",
                "{\"role\":\"primary\",\"lag_ms\":0.25,\"sessions\":12,\"latency_ms\":"
                "{\"p50\":0.064,\"p99\":1.5,\"slowest\":524.288}}");
    rig_publish(&w->rig, "/sip/servers/s1",
                "{\"state\":\"live\",\"requests_s\":5,\"cpu\":\"much\",\"rows\":300}");
    while (hf_timeline_samples(w->rig.h.timeline) < 2) {
        rig_turn(&w->rig);
    }
    assert_sample(w, 0,
                  "\"about\":\"manager\",\"name\":\"vip\",\"owner\":\"alpha\","
                  "\"p50_ms\":0.064,\"p99_ms\":1.5,\"slowest_ms\":524.288,\"lag_ms\":0.25,"
                  "\"sessions\":12}");
    assert_sample(w, 1,
                  "\"about\":\"sip\",\"name\":\"s1\",\"owner\":\"alpha\","
                  "\"requests_s\":5,\"rows\":300}");
    uint64_t beyond = 2;
    assert_null(hf_timeline_sample_at(w->rig.h.timeline, &beyond));
}

/* What is older than the last ones is gone; who comes late goes on with what is there. */
static void both_end(void **state)
{
    struct world *w = *state;
    struct hf_timeline *t = w->rig.h.timeline;
    struct hf_buf out;
    for (int i = 0; i < HF_NOTES_MAX + 10; i++) {
        hf_timeline_note(t, HF_ABOUT_HOST, "x", 0, "%d \"%c", i, 1);
    }
    assert_int_equal(hf_timeline_notes(t), HF_NOTES_MAX + 10);
    uint64_t i = 3;
    const struct hf_note *n = hf_timeline_note_at(t, &i);
    assert_int_equal(i, 10);
    hf_buf_init(&out, 1000);
    hf_note_json(n, &out);
    hf_buf_add(&out, hf_slice("", 1));
    assert_non_null(strstr((char *)out.p, ",\"about\":\"host\",\"name\":\"x\","
                                          "\"text\":\"10 \\\"\\u0001\"}"));
    hf_buf_fini(&out);
    i = HF_NOTES_MAX + 9;
    assert_non_null(hf_timeline_note_at(t, &i));
    assert_int_equal(i, HF_NOTES_MAX + 9);
    i++;
    assert_null(hf_timeline_note_at(t, &i));
}

#define ROW(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(hosts_and_groups), ROW(the_role_of_a_manager), ROW(sip_servers), ROW(figures),
        ROW(both_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
