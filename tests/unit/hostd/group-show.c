/* hostd/group_report, group_tree, group_events: what is shown, told and published of groups. */
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "codec/ctl_v1.h"
#include "hostd/group_report.h"
#include "hostd/group_tree.h"
#include "hostd/timeline.h"
#include "hostd/web.h"
#include "support/fake_groups.h"
#include "support/hostd_rig.h"
#include "support/test.h"

struct world {
    struct hostd_rig rig;
    struct hf_groups groups;
    struct hf_buf out;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct hf_err err = {0};
    rig_open(&w->rig);
    w->rig.h.started_at = hf_now(); /* no host is missed yet */
    fake_groups_init(&w->groups);
    w->rig.h.groups = &w->groups;
    assert_int_equal(hf_group_tree_open(&w->rig.h, &err, &w->rig.h.group_tree), 0);
    assert_int_equal(hf_timeline_open(&w->rig.h, &err, &w->rig.h.timeline), 0);
    assert_int_equal(hf_web_open(&w->rig.h, &err, &w->rig.h.web), 0);
    hf_buf_init(&w->out, 1u << 20);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    hf_buf_fini(&w->out);
    hf_web_close(w->rig.h.web);
    hf_timeline_close(w->rig.h.timeline);
    w->rig.h.timeline = NULL;
    hf_group_tree_close(w->rig.h.group_tree);
    for (size_t i = 0; i < FAKE_LISTENERS_MAX; i++) {
        assert_null(w->groups.listener[i].fn);
    }
    rig_close(&w->rig);
    free(w);
    return 0;
}

static const char *text(struct world *w)
{
    hf_buf_add(&w->out, hf_slice("", 1));
    assert_int_equal(w->out.err, 0);
    return (const char *)w->out.p;
}

static void assert_part(const char *in, const char *part)
{
    if (!strstr(in, part)) {
        fail_msg("no '%s' in: %s", part, in);
    }
}

/* ---- JSON ---- */

static json_t *groups_json(struct world *w, const char *name)
{
    struct hf_err err = {0};
    hf_buf_clear(&w->out);
    assert_int_equal(hf_report_groups(&w->rig.h, hf_slice_str(name), &w->out, &err), 0);
    json_t *v = json_loads(text(w), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(v);
    return v;
}

static void assert_json(json_t *v, const char *expected)
{
    json_t *e = json_loads(expected, JSON_DECODE_ANY, NULL);
    assert_non_null(e);
    if (!json_equal(v, e)) {
        fail_msg("%s is not %s", json_dumps(v, JSON_ENCODE_ANY | JSON_SORT_KEYS), expected);
    }
    json_decref(e);
}

static void a_group_as_json(void **state)
{
    struct world *w = *state;
    w->groups.info.mirror[1] =
        (struct hf_group_mirror_info){.seen = HF_SEEN_SYNCING, .percent = 47, .reason = "copying"};
    snprintf(w->groups.info.error[0], sizeof(w->groups.info.error[0]), "monitor: \"down\"");
    w->groups.core.resource_why[1] = "wait";
    json_t *list = groups_json(w, ""), *g = json_array_get(list, 0);
    json_t *copy2 = json_array_get(json_object_get(g, "resources"), 1);
    assert_int_equal(json_array_size(list), 1);
    assert_json(json_object_get(g, "name"), "\"orders\"");
    assert_json(json_object_get(g, "version"), "\"3.41\"");
    assert_json(json_object_get(g, "phase"), "\"running\"");
    assert_json(json_object_get(g, "primary"),
                "{\"resource\":\"copy1\",\"host\":\"alpha\",\"address\":\"192.0.2.1\"}");
    assert_json(json_object_get(g, "in_sync"), "[\"copy1\",\"copy2\"]");
    assert_json(json_object_get(g, "joining"), "null");
    assert_json(json_array_get(json_object_get(g, "hosts"), 2),
                "{\"host\":\"gamma\",\"address\":\"192.0.2.3\",\"here\":false,\"present\":false,"
                "\"subgroup\":\"copy2\",\"reaches\":[\"copy2\"],\"leaving\":false,\"fenced\":false,"
                "\"was_primary\":false,\"may_run\":[\"copy2\"]}");
    assert_json(copy2,
                "{\"name\":\"copy2\",\"kind\":\"copy\",\"agent\":\"ocf:holdfast:postgresql\","
                "\"promotable\":true,\"mirror_capable\":true,\"opens\":false,"
                "\"fence_none\":false,\"host\":\"beta\",\"mirror\":\"in-sync\","
                "\"in_sync\":true,\"epoch\":7,\"mode\":\"sync\",\"seen\":{\"state\":"
                "\"syncing\",\"percent\":47,\"reason\":\"copying\"},\"able\":[\"alpha\"],"
                "\"failed_on\":[],\"restarts\":0,\"roles\":[{\"host\":\"alpha\",\"role\":"
                "\"stopped\"},{\"host\":\"beta\",\"role\":\"unpromoted\"}],\"error\":\"\","
                "\"why\":\"wait\"}");
    assert_json(json_object_get(json_array_get(json_object_get(g, "resources"), 0), "error"),
                "\"monitor: \\\"down\\\"\"");
    assert_json(json_object_get(json_object_get(g, "counters"), "promotions"), "7");
    assert_json(json_object_get(json_array_get(json_object_get(g, "resources"), 2), "host"),
                "\"alpha\"");
    json_decref(list);
    json_decref(groups_json(w, "orders"));
}

static void groups_that_are_not_there_yet(void **state)
{
    struct world *w = *state;
    struct hf_err err = {0};
    hf_buf_clear(&w->out);
    assert_int_equal(hf_report_groups(&w->rig.h, hf_slice_str("x"), &w->out, &err), -HF_ENOTFOUND);
    assert_part(err.text, "in no group x");
    w->groups.core.no_state = true;
    w->groups.core.quorate = false;
    w->groups.core.why = "joining";
    w->groups.core.s.join.step = 1;
    json_t *list = groups_json(w, "");
    assert_null(json_object_get(json_array_get(list, 0), "hosts"));
    assert_json(json_object_get(json_array_get(list, 0), "why"), "\"joining\"");
    json_decref(list);
    w->groups.info.core = NULL;
    snprintf(w->groups.info.problem, sizeof(w->groups.info.problem), "no corosync");
    list = groups_json(w, "orders");
    assert_json(list, "[{\"name\":\"orders\",\"host\":\"alpha\",\"standing\":\"out\","
                      "\"quorate\":false,\"why\":\"no corosync\"}]");
    json_decref(list);
    w->groups.info.name = NULL;
    list = groups_json(w, "");
    assert_json(list, "[]");
    json_decref(list);
}

static void a_group_without_primary_that_somebody_joins(void **state)
{
    struct world *w = *state;
    struct hf_gstate *s = &w->groups.core.s;
    s->phase = HF_PHASE_NONE;
    s->paused = s->degraded_refuse = true;
    s->join.step = 2;
    snprintf(s->join.host, sizeof(s->join.host), "delta");
    json_t *list = groups_json(w, ""), *g = json_array_get(list, 0);
    assert_json(json_object_get(g, "primary"), "null");
    assert_json(json_object_get(g, "paused"), "true");
    assert_json(json_object_get(g, "degraded"), "\"refuse\"");
    assert_json(json_object_get(g, "joining"), "{\"host\":\"delta\",\"address\":\"\",\"step\":"
                                               "\"configuration\",\"brings\":false}");
    json_decref(list);
}

/* ---- status and metrics ---- */

static const char *status(struct world *w)
{
    hf_buf_clear(&w->out);
    hf_report_status(&w->rig.h, &w->out);
    const char *all = text(w);
    json_t *v = json_loads(all, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(v);
    json_decref(v);
    return all;
}

static void problems(void **state)
{
    struct world *w = *state;
    struct hf_group *g = &w->groups.core;
    assert_part(status(w), "\"problems\":[],\"groups\":[");
    g->s.paused = true;
    g->why = "the group is paused";
    assert_part(status(w),
                "{\"severity\":\"warning\",\"what\":\"group orders is paused: nothing is "
                "done by itself\",\"remedy\":\"holdfast group resume orders\"}]");
    g->s.paused = false;
    g->s.phase = HF_PHASE_CLEARING;
    g->why = "gamma must be fenced first";
    assert_part(status(w),
                "\"warning\",\"what\":\"group orders has no running primary\",\"remedy\":"
                "\"gamma must be fenced first\"");
    g->s.phase = HF_PHASE_NONE;
    assert_part(status(w), "\"error\",\"what\":\"group orders has no primary\"");
    g->quorate = false;
    assert_part(status(w), "\"error\",\"what\":\"group orders: this host does not act in it\"");
    g->s.resource[1].mirror = HF_MIRROR_DIVERGED;
    g->resource_why[1] = "force or resume it";
    g->resource_why[2] = "no such device";
    assert_part(status(w), "\"error\",\"what\":\"group orders: copy2 has diverged\",\"remedy\":"
                           "\"force or resume it\"");
    assert_part(status(w), "\"warning\",\"what\":\"group orders: address is not as it should be\"");
    w->groups.info.core = NULL;
    snprintf(w->groups.info.problem, sizeof(w->groups.info.problem), "no corosync");
    assert_part(status(w), "group orders: this host cannot take part\",\"remedy\":\"no corosync\"");
}

static void metrics(void **state)
{
    struct world *w = *state;
    hf_report_metrics(&w->rig.h, &w->out);
    const char *all = text(w);
    assert_part(all, "\nholdfast_group_phase{group=\"orders\"} 4\n");
    assert_part(all, "\nholdfast_group_epoch{group=\"orders\"} 7\n");
    assert_part(all, "\nholdfast_group_quorate{group=\"orders\"} 1\n");
    assert_part(all, "\nholdfast_group_primary_here{group=\"orders\"} 1\n");
    assert_part(all, "\nholdfast_group_present{group=\"orders\"} 2\n");
    assert_part(all, "\nholdfast_group_in_sync{group=\"orders\"} 2\n");
    assert_part(all, "\nholdfast_group_role{group=\"orders\",resource=\"copy1\"} 4\n");
    assert_part(all, "\n# TYPE holdfast_group_promotions_total counter\n"
                     "holdfast_group_promotions_total{group=\"orders\"} 7\n");
    w->groups.info.name = NULL;
    hf_buf_clear(&w->out);
    hf_report_metrics(&w->rig.h, &w->out);
    assert_null(strstr(text(w), "holdfast_group"));
}

/* ---- the tree ---- */

static const char *tree(struct world *w)
{
    static char body[65536];
    assert_int_equal(
        rig_get(&w->rig, hf_web_port(w->rig.h.web), "/v1/tree?prefix=/group", body, sizeof(body)),
        200);
    return body;
}

static void the_primary_is_in_the_tree_while_it_runs(void **state)
{
    struct world *w = *state;
    struct hf_group *g = &w->groups.core;
    static const char running[] =
        "[\n"
        "{\"name\":\"/group/orders\",\"owner\":\"alpha\",\"value\":{\"group\":\"orders\","
        "\"epoch\":7,\"phase\":\"running\",\"resource\":\"copy1\",\"host\":\"alpha\",\"address\":"
        "\"192.0.2.1\"}},\n"
        "{\"name\":\"/group/orders/address\",\"owner\":\"alpha\",\"value\":{\"group\":\"orders\","
        "\"kind\":\"attached\",\"role\":\"promoted\",\"address\":\"192.0.2.1\"}},\n"
        "{\"name\":\"/group/orders/copy1\",\"owner\":\"alpha\",\"value\":{\"group\":\"orders\","
        "\"kind\":\"copy\",\"role\":\"open\",\"mirror\":\"in-sync\",\"in_sync\":true,\"address\":"
        "\"192.0.2.1\"}},\n"
        "{\"name\":\"/group/orders/primary\",\"owner\":\"alpha\",\"value\":{\"group\":\"orders\","
        "\"epoch\":7,\"resource\":\"copy1\",\"host\":\"alpha\",\"address\":\"192.0.2.1\"}}\n"
        "]\n";
    assert_string_equal(tree(w), running);
    g->s.phase = HF_PHASE_OPENING;
    fake_groups_changed(&w->groups, NULL);
    assert_null(strstr(tree(w), "/group/orders/primary"));
    assert_part(tree(w), "\"phase\":\"opening\"");
    g->s.phase = HF_PHASE_RUNNING;
    fake_groups_changed(&w->groups, NULL);
    assert_string_equal(tree(w), running);
    g->quorate = false; /* it acts no more: who is primary is not ours to say */
    fake_groups_changed(&w->groups, NULL);
    assert_null(strstr(tree(w), "primary"));
    assert_null(strstr(tree(w), "\"/group/orders\""));
    g->quorate = true;
    g->s.primary = g->s.primary_host = 1; /* beta says it */
    fake_groups_changed(&w->groups, NULL);
    assert_null(strstr(tree(w), "/group/orders/primary"));
    assert_null(strstr(tree(w), "\"/group/orders\""));
    g->s.phase = HF_PHASE_NONE; /* beta was it, and says so */
    fake_groups_changed(&w->groups, NULL);
    assert_null(strstr(tree(w), "\"/group/orders\""));
    g->present = 1; /* beta is not there: we are the first that is */
    fake_groups_changed(&w->groups, NULL);
    assert_part(tree(w), "{\"name\":\"/group/orders\",\"owner\":\"alpha\",\"value\":{\"group\":"
                         "\"orders\",\"epoch\":7,\"phase\":\"none\"}}");
    w->groups.info.name = NULL;
    fake_groups_changed(&w->groups, NULL);
    assert_string_equal(tree(w), "[]\n");
}

static void another_program_has_the_name(void **state)
{
    struct world *w = *state;
    struct hf_group *g = &w->groups.core;
    g->s.phase = HF_PHASE_NONE;
    fake_groups_changed(&w->groups, NULL);
    rig_publish(&w->rig, "/group/orders/primary", "{\"mine\":1}");
    g->s.phase = HF_PHASE_RUNNING;
    fake_groups_changed(&w->groups, NULL);
    assert_part(tree(w), "\"mine\":1");
    rig_publish(&w->rig, "/group/orders/primary", NULL);
    fake_groups_changed(&w->groups, NULL);
    assert_part(tree(w), "\"/group/orders/primary\"");
}

/* ---- readers over HTTP ---- */

struct reader {
    int fd;
    struct hf_buf in;
};

static struct reader read_events(struct world *w, const char *target)
{
    struct hf_addr to;
    struct reader r = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    char request[128];
    assert_int_equal(hf_addr_parse("127.0.0.1", hf_web_port(w->rig.h.web), NULL, &to), 0);
    assert_int_equal(connect(r.fd, (struct sockaddr *)&to.ss, to.len), 0);
    int n = snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\n\r\n", target);
    assert_int_equal(send(r.fd, request, (size_t)n, 0), n);
    hf_buf_init(&r.in, 1u << 20);
    return r;
}

/* Until this has come; what came is forgotten. */
static void expect(struct world *w, struct reader *r, const char *part)
{
    hf_buf_clear(&r->in);
    do {
        uint8_t *p = hf_buf_reserve(&r->in, 4096);
        assert_non_null(p);
        ssize_t got = recv(r->fd, p, 4095, MSG_DONTWAIT);
        assert_int_not_equal(got, 0);
        hf_buf_commit(&r->in, got > 0 ? (size_t)got : 0);
        if (got < 0) {
            rig_turn(&w->rig);
        }
    } while (!memmem(r->in.p, r->in.n, part, strlen(part)));
}

static void events(void **state)
{
    struct world *w = *state;
    struct reader all = read_events(w, "/v1/events?prefix=/group/orders");
    struct reader other = read_events(w, "/v1/events?prefix=/pg");
    expect(w, &all,
           "event: group\ndata: {\"group\":\"orders\",\"member\":true,\"quorate\":true,\"phase\":"
           "\"running\",\"epoch\":7,\"resource\":\"copy1\",\"host\":\"alpha\",\"address\":"
           "\"192.0.2.1\",\"here\":true,\"lost\":\"\"}\n\n");
    expect(w, &other, "event: synced");
    fake_groups_changed(&w->groups, "copy2 is in sync");
    expect(w, &all, ",\"epoch\":7,\"text\":\"copy2 is in sync\"}\n\n");
    assert_null(memmem(all.in.p, all.in.n, "event: group\n", 13)); /* it is as it was */
    w->groups.core.s.epoch = 8;
    fake_groups_changed(&w->groups, NULL);
    expect(w, &all, "\"running\",\"epoch\":8");
    w->groups.info.name = NULL;
    fake_groups_changed(&w->groups, "left");
    expect(w, &all, "event: group\ndata: {\"group\":\"orders\",\"member\":false");
    rig_publish(&w->rig, "/pg/x", "{}");
    expect(w, &other, "event: added\ndata: {\"name\":\"/pg/x\"");
    assert_null(memmem(other.in.p, other.in.n, "group", 5));
    close(all.fd);
    close(other.fd);
    hf_buf_fini(&all.in);
    hf_buf_fini(&other.in);
}

static void more_notes_than_are_kept(void **state)
{
    struct world *w = *state;
    char note[64];
    struct reader r = read_events(w, "/v1/events?prefix=/group/orders");
    expect(w, &r, "\"here\":true,\"lost\":\"\"}\n\n");
    for (int i = 0; i < 1000; i++) {
        snprintf(note, sizeof(note), "note %d", i);
        fake_groups_changed(&w->groups, note);
    }
    expect(w, &r, "note 999\"");
    assert_null(memmem(r.in.p, r.in.n, "note 743\"", 9));
    assert_non_null(memmem(r.in.p, r.in.n, "note 744\"", 9));
    close(r.fd);
    hf_buf_fini(&r.in);
}

static void over_http(void **state)
{
    struct world *w = *state;
    static char body[65536];
    assert_int_equal(rig_get(&w->rig, hf_web_port(w->rig.h.web), "/v1/groups", body, sizeof(body)),
                     200);
    assert_part(body, "{\"name\":\"orders\"");
    w->rig.h.groups = NULL; /* a daemon that takes no part */
    assert_int_equal(rig_get(&w->rig, hf_web_port(w->rig.h.web), "/v1/groups", body, sizeof(body)),
                     200);
    assert_string_equal(body, "[]\n");
    w->rig.h.groups = &w->groups;
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_group_as_json),
        TEST(groups_that_are_not_there_yet),
        TEST(a_group_without_primary_that_somebody_joins),
        TEST(problems),
        TEST(metrics),
        TEST(the_primary_is_in_the_tree_while_it_runs),
        TEST(another_program_has_the_name),
        TEST(events),
        TEST(more_notes_than_are_kept),
        TEST(over_http),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
