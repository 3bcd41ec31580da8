/* ctl/render: what operators read, from canned answers. */
#include "ctl/render.h"

#include "base/err.h"
#include "base/limits.h"
#include "support/test.h"

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(j);
    return j;
}

static void assert_text(struct hf_buf *out, const char *expected)
{
    hf_buf_add(out, hf_slice("", 1));
    assert_string_equal((const char *)out->p, expected);
    hf_buf_fini(out);
}

static void nothing_controls_the_terminal(void **state)
{
    (void)state;
    struct hf_buf out;
    hf_buf_init(&out, 100);
    hf_render_safe(&out, hf_slice_str("a\x1b[1m\tb\n\x7f\xc2\x9b\xff\xc3\xa9"));
    assert_text(&out, "a?[1m\tb\n???\xc3\xa9");
}

static const char status[] =
    "{\"host\":\"alpha\",\"state\":\"run\",\"version\":\"0.1.0\",\"incarnation\":4,"
    "\"uptime_s\":65,\"pid\":7,\"cluster_key_id\":\"00c0ffee\",\"transport\":\"multicast\","
    "\"heartbeat_ms\":1000,\"members\":3,\"services\":12,\"local_services\":2,\"pulls_active\":1,"
    "\"peers_behind\":2,\"problems\":[]}";

static void status_without_problems(void **state)
{
    (void)state;
    json_t *j = parse(status);
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    assert_int_equal(hf_render_status(&out, j, false), 0);
    assert_text(&out, "alpha: running, no problems\n\n"
                      "hosts       3 (of 2 not everything is known yet, 1 being pulled)\n"
                      "services    12 (2 of this host)\n"
                      "heartbeat   1 s, multicast\n"
                      "key         00c0ffee\n"
                      "holdfastd   0.1.0, up 1 m 5 s, pid 7, incarnation 4\n");
    json_decref(j);
}

static void status_with_problems(void **state)
{
    (void)state;
    json_t *j = parse(status);
    json_object_set_new(j, "state", json_string("sync"));
    json_object_set_new(
        j, "problems",
        parse("[{\"severity\":\"error\",\"what\":\"beta is silent\",\"remedy\":\"look\"},"
              "{\"severity\":\"warning\",\"what\":\"hm\",\"remedy\":\"wait\\u001b\"}]"));
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    assert_int_equal(hf_render_status(&out, j, false), 0);
    static const char head[] = "alpha: fetching the tree, 2 problems\n\n"
                               "ERROR  beta is silent\n    what to do: look\n"
                               "WARNING  hm\n    what to do: wait?\n\nhosts ";
    assert_true(hf_slice_starts(hf_buf_slice(&out), hf_slice_str(head)));
    hf_buf_clear(&out);
    assert_int_equal(hf_render_status(&out, j, true), 0);
    assert_non_null(memmem(out.p, out.n, "\033[31mERROR", 10));
    hf_buf_fini(&out);
    json_decref(j);
}

static void members(void **state)
{
    (void)state;
    json_t *j = parse(
        "[{\"host\":\"alpha\",\"address\":\"\",\"state\":\"self\",\"incarnation\":1,"
        "\"services\":10,\"period_ms\":1000},"
        "{\"host\":\"be\",\"address\":\"10.0.0.2:7480\",\"state\":\"probing\",\"incarnation\":12,"
        "\"services\":2,\"heard_ms\":3100,\"period_ms\":1000,\"behind\":true},"
        "{\"host\":\"c\",\"address\":\"10.0.0.3:7480\",\"state\":\"waiting\",\"incarnation\":1,"
        "\"services\":0,\"heard_ms\":1,\"period_ms\":1000,\"pull_failures\":1,"
        "\"last_error\":\"no answer in time\"}]");
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    assert_int_equal(hf_render_members(&out, j, false), 0);
    assert_text(&out, "HOST   ADDRESS        STATE    INCARNATION  SERVICES  HEARD  PERIOD  NOTE\n"
                      "alpha  -              self     1            10        -      1 s     \n"
                      "be     10.0.0.2:7480  probing  12           2         3.1 s  1 s     "
                      "has more than is known here\n"
                      "c      10.0.0.3:7480  waiting  1            0         1 ms   1 s     "
                      "1 pull failed: no answer in time\n");
    hf_buf_init(&out, 4096);
    assert_int_equal(hf_render_members(&out, j, true), 0);
    assert_non_null(memmem(out.p, out.n, "\033[32mself\033[0m     1 ", 19));
    hf_buf_fini(&out);
    json_decref(j);
}

static void tree(void **state)
{
    (void)state;
    json_t *j = parse("[{\"name\":\"/a\",\"owner\":\"alpha\",\"value\":{\"x\": [1, \"\\u00e9\"]}},"
                      "{\"name\":\"/pg/orders\",\"owner\":\"b\",\"value\":{}}]");
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    assert_int_equal(hf_render_tree(&out, j), 0);
    assert_text(&out, "NAME        HOST   VALUE\n"
                      "/a          alpha  {\"x\":[1,\"\xc3\xa9\"]}\n"
                      "/pg/orders  b      {}\n");
    json_decref(j);
}

static const char managers[] =
    "[{\"name\":\"/manager/"
    "pgvip\",\"owner\":\"alpha\",\"serves\":true,\"value\":{\"group\":\"pgvip\","
    "\"service\":\"10.0.0.9:6432\",\"role\":\"primary\",\"epoch\":7,\"peer\":\"beta\","
    "\"pair\":\"in sync\",\"why\":\"\",\"sessions\":120,\"protected\":118,"
    "\"unprotected\":{\"TLS\":2},\"load\":0.5,\"cpus\":2,\"memory_mib\":900,\"servers\":["
    "{\"name\":\"copy1\",\"state\":\"primary\",\"sessions\":120,\"lag_bytes\":0},"
    "{\"name\":\"copy2\",\"state\":\"standby\",\"sessions\":0,\"lag_bytes\":64}]}},"
    "{\"name\":\"/manager/pgvip2\",\"owner\":\"alpha\",\"value\":{\"group\":\"pgvip2\","
    "\"role\":\"backup\",\"pair\":\"waiting\",\"cpus\":2,\"servers\":[]}},"
    "{\"name\":\"/manager/pgvip\",\"owner\":\"beta\",\"value\":{\"group\":\"pgvip\","
    "\"role\":\"backup\",\"epoch\":7,\"pair\":\"following\",\"stored\":118,\"load\":1.25,"
    "\"cpus\":4,\"memory_mib\":77,\"servers\":[]}}]";

static void managers_at_a_glance(void **state)
{
    (void)state;
    json_t *j = parse(managers);
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    assert_int_equal(hf_render_managers(&out, j, false), 0);
    assert_text(&out, "\npgvip: 120 sessions at alpha (10.0.0.9:6432), 118 protected by beta, "
                      "2 not (2 TLS)\n"
                      "  HOST   ROLE     STATE      SESSIONS  STORED  LOAD       FREE     "
                      "DATABASES, AS IT SEES THEM\n"
                      "  alpha  primary  in sync    120       0       0.50 of 2  900 MiB  "
                      "copy1 primary, copy2 standby 64\n"
                      "                                                                   "
                      "bytes behind\n"
                      "  beta   backup   following  0         118     1.25 of 4  77 MiB   \n"
                      "\npgvip2: nobody serves its address\n"
                      "  HOST   ROLE    STATE    SESSIONS  STORED  LOAD       FREE   "
                      "DATABASES, AS IT SEES THEM\n"
                      "  alpha  backup  waiting  0         0       0.00 of 2  0 MiB  \n");
    json_decref(j);
}

static void managers_without_a_backup(void **state)
{
    (void)state;
    json_t *j = parse(managers), *e = json_array_get(j, 0);
    json_object_set_new(e, "unprotected_ms", json_integer(200000));
    json_object_set_new(json_object_get(e, "value"), "why", json_string("no backup"));
    struct hf_buf out;
    hf_buf_init(&out, 8192);
    assert_int_equal(hf_render_managers(&out, j, false), 0);
    static const char glance[] = "\npgvip: 120 sessions at alpha (10.0.0.9:6432), none protected "
                                 "for 3 m 20 s: no backup\n";
    assert_true(hf_slice_starts(hf_buf_slice(&out), hf_slice_str(glance)));
    hf_buf_fini(&out);
    json_decref(j);
}

static void no_managers(void **state)
{
    (void)state;
    struct hf_buf out;
    hf_buf_init(&out, 100);
    assert_int_equal(hf_render_managers(&out, NULL, true), 0);
    assert_text(&out, "");
}

static const char groups[] =
    "[{\"name\":\"orders\",\"phase\":\"running\",\"epoch\":7,\"quorate\":true,"
    "\"primary\":{\"resource\":\"copy1\",\"host\":\"alpha\",\"address\":\"10.0.0.1\"},"
    "\"in_sync\":[\"copy1\",\"copy2\"],\"why\":\"\",\"joining\":null,"
    "\"hosts\":[{\"host\":\"alpha\",\"address\":\"10.0.0.1\",\"here\":true,\"present\":true,"
    "\"subgroup\":\"copy1\"},"
    "{\"host\":\"beta\",\"address\":\"10.0.0.2\",\"present\":true,\"subgroup\":\"copy1\"},"
    "{\"host\":\"gamma\",\"address\":\"10.0.0.3\",\"present\":true,\"subgroup\":\"copy2\"},"
    "{\"host\":\"delta\",\"address\":\"10.0.0.4\",\"fenced\":true,\"subgroup\":\"copy3\","
    "\"may_run\":[\"copy3\",\"ip\"]}],"
    "\"resources\":[{\"name\":\"copy1\",\"kind\":\"copy\",\"mirror_capable\":true,"
    "\"host\":\"alpha\",\"mirror\":\"in-sync\",\"why\":\"\",\"error\":\"\","
    "\"roles\":[{\"host\":\"alpha\",\"role\":\"open\"},{\"host\":\"beta\",\"role\":\"stopped\"}]},"
    "{\"name\":\"copy2\",\"kind\":\"copy\",\"mirror_capable\":true,\"host\":\"gamma\","
    "\"mirror\":\"syncing\",\"seen\":{\"state\":\"syncing\",\"percent\":47,\"reason\":\"\"},"
    "\"roles\":[{\"host\":\"gamma\",\"role\":\"unpromoted\"}]},"
    "{\"name\":\"copy3\",\"kind\":\"copy\",\"mirror_capable\":true,\"host\":\"\","
    "\"mirror\":\"diverged\",\"failed_on\":[\"beta\",\"delta\"],\"why\":\"has data that the "
    "primary lacks: holdfast group resume "
    "orders copy3 lets it be overwritten\",\"seen\":{\"state\":\"failed\",\"reason\":\"no slot\"},"
    "\"error\":\"start: pg_ctl: could not start server, and here comes a sentence that is longer "
    "than one line of one hundred columns\"},"
    "{\"name\":\"ip\",\"kind\":\"attached\",\"host\":\"alpha\","
    "\"roles\":[{\"host\":\"alpha\",\"role\":\"promoted\"}]}]},"
    "{\"name\":\"lead\",\"quorate\":false,\"why\":\"joining: waits for a member to answer\"}]";

static void a_group(void **state)
{
    (void)state;
    json_t *j = parse(groups);
    struct hf_buf out;
    hf_buf_init(&out, 65536);
    assert_int_equal(hf_render_groups(&out, j, true), 0);
    assert_non_null(memmem(out.p, out.n, "\033[32mrunning\033[0m", 16));
    hf_buf_clear(&out);
    assert_int_equal(hf_render_groups(&out, j, false), 0);
    assert_text(
        &out,
        "group orders: running, epoch 7, quorate\n"
        "  primary   copy1 at alpha (10.0.0.1)\n"
        "  in sync   copy1 copy2\n"
        "\n"
        "  HOST   ADDRESS   SUBGROUP  STATE\n"
        "  alpha  10.0.0.1  copy1     this host, primary host\n"
        "  beta   10.0.0.2  copy1     present\n"
        "  gamma  10.0.0.3  copy2     present\n"
        "  delta  10.0.0.4  copy3     absent, fenced, may still run copy3 ip\n"
        "\n"
        "  RESOURCE  STATE                     HOST   ROLES\n"
        "  copy1     primary                   alpha  alpha:open beta:stopped\n"
        "  copy2     syncing [####......] 47%  gamma  gamma:unpromoted\n"
        "  copy3     diverged                  -      nothing is known\n"
        "  ip        attached                  alpha  alpha:started\n"
        "  copy3: has data that the primary lacks: holdfast group resume orders copy3 lets it be "
        "overwritten\n"
        "  copy3, could not be run on: beta delta\n"
        "  copy3, mirroring is failed: no slot\n"
        "  copy3, last error of its agent on this host: start: pg_ctl: could not start server, and "
        "here comes\n"
        "      a sentence that is longer than one line of one hundred columns\n"
        "\n"
        "group lead: nothing is known of it yet\n"
        "  why: joining: waits for a member to answer\n");
    json_decref(j);
}

static void a_group_that_clears(void **state)
{
    (void)state;
    json_t *j = parse("[{\"name\":\"g\",\"phase\":\"clearing\",\"epoch\":2,\"quorate\":true,"
                      "\"primary\":{\"resource\":\"c\",\"host\":\"a\",\"address\":\"::1\"},"
                      "\"hosts\":[{\"host\":\"a\",\"address\":\"::1\",\"here\":true}],"
                      "\"resources\":[]}]");
    struct hf_buf out;
    hf_buf_init(&out, 65536);
    assert_int_equal(hf_render_groups(&out, j, false), 0);
    assert_text(&out, "group g: clearing, epoch 2, quorate\n"
                      "  chosen    c at a (::1)\n"
                      "\n"
                      "  HOST  ADDRESS  SUBGROUP  STATE\n"
                      "  a     ::1      none      this host, chosen\n"
                      "\n"
                      "  RESOURCE  STATE  HOST  ROLES\n");
    json_decref(j);
}

static void a_group_without_primary(void **state)
{
    (void)state;
    json_t *j = parse(
        "[{\"name\":\"g\",\"phase\":\"none\",\"epoch\":2,\"quorate\":false,\"paused\":true,"
        "\"primary\":null,\"in_sync\":[\"c\"],\"why\":\"no quorum: 1 of 3 hosts is heard\","
        "\"joining\":{\"host\":\"new\",\"step\":\"probing\"},\"hosts\":[{\"host\":\"a\","
        "\"address\":\"::1\",\"subgroup\":\"\",\"here\":true,\"leaving\":true}],\"resources\":["
        "{\"name\":\"c\",\"kind\":\"copy\",\"mirror_capable\":false,\"host\":\"a\",\"roles\":[]},"
        "{\"name\":\"d\",\"kind\":\"copy\",\"mirror_capable\":true,\"mirror\":\"none\"}]}]");
    struct hf_buf out;
    hf_buf_init(&out, 65536);
    assert_int_equal(hf_render_groups(&out, j, false), 0);
    assert_text(&out, "group g: no primary, epoch 2, not quorate: the last that is known, paused "
                      "by the operator\n"
                      "  in sync   c\n"
                      "  joining   new: finds out which copies it reaches\n"
                      "  why: no quorum: 1 of 3 hosts is heard\n"
                      "\n"
                      "  HOST  ADDRESS  SUBGROUP  STATE\n"
                      "  a     ::1      none      this host, leaving\n"
                      "\n"
                      "  RESOURCE  STATE         HOST  ROLES\n"
                      "  c         backup        a     nothing is known\n"
                      "  d         not mirrored  -     nothing is known\n");
    json_decref(j);
}

/* The largest group: every line still ends within 100 columns. */
static void a_large_group_fits(void **state)
{
    (void)state;
    struct hf_buf text, out;
    hf_buf_init(&text, 65536);
    hf_buf_init(&out, 65536);
    hf_buf_str(&text, "[{\"name\":\"g\",\"phase\":\"running\",\"hosts\":[");
    for (int i = 0; i < HF_GROUP_MEMBERS_MAX; i++) {
        hf_buf_printf(&text, "%s{\"host\":\"host-%d\",\"address\":\"2001:db8::%d\"}", i ? "," : "",
                      i, i);
    }
    hf_buf_str(&text, "],\"resources\":[{\"name\":\"address\",\"kind\":\"attached\",\"roles\":[");
    for (int i = 0; i < HF_GROUP_MEMBERS_MAX; i++) {
        hf_buf_printf(&text, "%s{\"host\":\"host-%d\",\"role\":\"stopped\"}", i ? "," : "", i);
    }
    hf_buf_str(&text, "]}]}]");
    hf_buf_add(&text, hf_slice("", 1));
    json_t *j = parse((const char *)text.p);
    assert_int_equal(hf_render_groups(&out, j, false), 0);
    size_t at = 0;
    for (size_t i = 0; i < out.n; i++) {
        assert_true(i - at <= 100);
        at = out.p[i] == '\n' ? i + 1 : at;
    }
    hf_buf_fini(&text);
    hf_buf_fini(&out);
    json_decref(j);
}

static void history(void **state)
{
    (void)state;
    json_t *j = parse("[{\"at\":1700000000123,\"epoch\":1,\"text\":\"created\"},"
                      "{\"at\":1700000060000,\"epoch\":12,\"text\":\"alpha is primary\"}]");
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    setenv("TZ", "UTC", 1);
    assert_int_equal(hf_render_history(&out, j), 0);
    assert_text(&out, "TIME                 EPOCH  WHAT\n"
                      "2023-11-14 22:13:20  1      created\n"
                      "2023-11-14 22:14:20  12     alpha is primary\n");
    json_decref(j);
}

static void groups_of_the_status(void **state)
{
    (void)state;
    json_t *j = parse(status), *g = parse(groups);
    json_object_set_new(j, "groups", g);
    struct hf_buf out;
    hf_buf_init(&out, 65536);
    assert_int_equal(hf_render_status(&out, j, false), 0);
    assert_non_null(memmem(out.p, out.n, "incarnation 4\n\ngroup orders: running", 35));
    hf_buf_fini(&out);
    json_decref(j);
}

static void answers_of_another_shape(void **state)
{
    (void)state;
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    json_t *number = parse("5"), *object = parse("{}"), *list = parse("[5, {}, null]");
    assert_int_equal(hf_render_status(&out, number, false), -HF_EPROTO);
    assert_int_equal(hf_render_status(&out, object, false), 0);
    assert_int_equal(hf_render_members(&out, object, false), -HF_EPROTO);
    assert_int_equal(hf_render_members(&out, list, false), 0);
    assert_int_equal(hf_render_tree(&out, object), -HF_EPROTO);
    assert_int_equal(hf_render_tree(&out, list), 0);
    assert_int_equal(hf_render_groups(&out, object, false), -HF_EPROTO);
    assert_int_equal(hf_render_groups(&out, list, false), 0);
    assert_int_equal(hf_render_history(&out, object), -HF_EPROTO);
    assert_int_equal(hf_render_history(&out, list), 0);
    hf_buf_fini(&out);
    hf_buf_init(&out, 10); /* no room */
    assert_int_equal(hf_render_members(&out, list, false), -HF_EFULL);
    hf_buf_fini(&out);
    json_decref(number);
    json_decref(object);
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(nothing_controls_the_terminal),
        HF_TEST(status_without_problems),
        HF_TEST(status_with_problems),
        HF_TEST(members),
        HF_TEST(tree),
        HF_TEST(managers_at_a_glance),
        HF_TEST(managers_without_a_backup),
        HF_TEST(no_managers),
        HF_TEST(a_group),
        HF_TEST(a_group_that_clears),
        HF_TEST(a_group_without_primary),
        HF_TEST(a_large_group_fits),
        HF_TEST(groups_of_the_status),
        HF_TEST(history),
        HF_TEST(answers_of_another_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
