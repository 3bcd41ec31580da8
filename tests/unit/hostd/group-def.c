/* hostd/group_def: what definitions say, their errors, canonical text, and what agents can do. */
#include "hostd/group_def.h"

#include <stdio.h>

#include "support/test.h"

#define META_HEAD                                                                                  \
    "<?xml version=\"1.0\"?><resource-agent name=\"x\" version=\"1\"><version>1.1</version>"       \
    "<parameters><parameter name=\"pgdata\" required=\"1\"><content type=\"string\"/></parameter>" \
    "<parameter name=\"port\"><content type=\"string\" default=\"5432\"/></parameter>"             \
    "<parameter name=\"password\"><content type=\"string\"/></parameter></parameters><actions>"    \
    "<action name=\"start\" timeout=\"60s\"/><action name=\"stop\" timeout=\"60s\"/>"              \
    "<action name=\"monitor\" timeout=\"20s\" interval=\"10s\"/>"
#define META_TAIL "</actions></resource-agent>"
#define META_PLAIN META_HEAD META_TAIL
#define META_MIRROR                                                                                \
    META_HEAD                                                                                      \
    "<action name=\"promote\" timeout=\"60s\"/><action name=\"demote\" timeout=\"60s\"/>"          \
    "<action name=\"open\" timeout=\"9s\"/><action name=\"mirror-source\" "                        \
    "timeout=\"9s\"/><action name=\"mirror-target\" timeout=\"9s\"/>" META_TAIL

#define META_LEASE                                                                                 \
    META_HEAD                                                                                      \
    "<action name=\"mirror-source\" timeout=\"9s\"/><action name=\"mirror-target\" "               \
    "timeout=\"9s\"/></actions><special tag=\"holdfast-lease\"/></resource-agent>"

static const char full[] = "degraded = refuse\n"
                           "restart = always\n"
                           "resource copy1 {\n"
                           "    agent = \"ocf:holdfast:postgresql\" # it\n"
                           "    params {\n"
                           "        pgdata = /srv/pg\n"
                           "        password = 'a \"$b\\c'\n"
                           "    }\n"
                           "    probe = { pgdata }\n"
                           "    timeouts { start = 90s }\n"
                           "    monitor = 5s\n"
                           "}\n"
                           "resource address {\n"
                           "    agent = ocf:heartbeat:IPaddr2\n"
                           "    kind = attached\n"
                           "    fence = none\n"
                           "}\n"
                           "resource leader { }\n";

static struct hf_group_def *load_ok(struct hf_slice text)
{
    struct hf_err err = {0};
    struct hf_group_def *def;
    int rc = hf_group_def_load("def", text, &err, &def);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return def;
}

static void assert_refused(const char *text, const char *expected)
{
    struct hf_err err = {0};
    struct hf_group_def *def;
    assert_int_equal(hf_group_def_load("def", hf_slice_str(text), &err, &def), -HF_ECONFIG);
    assert_string_equal(err.text, expected);
}

static struct hf_ocf_meta *meta_of(const char *xml)
{
    struct hf_err err = {0};
    struct hf_ocf_meta *m;
    int rc = hf_ocf_meta_parse(hf_slice_str(xml), &err, &m);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return m;
}

static void values(void **state)
{
    (void)state;
    struct hf_group_def *def = load_ok(hf_slice_str(full));
    assert_int_equal(def->degraded, 1);
    assert_int_equal(def->restart, 1);
    assert_int_equal(def->resource.n, 3);
    const struct hf_group_def_resource *r = hf_group_def_at(def, 0);
    assert_string_equal(r->title.name, "copy1");
    assert_string_equal(r->agent, "ocf:holdfast:postgresql");
    assert_int_equal(r->params.n, 2);
    assert_string_equal(r->params.pair[1].value, "a \"$b\\c");
    assert_int_equal(hf_group_def_timeout(r, "start"), 90000);
    assert_int_equal(hf_group_def_timeout(r, "stop"), 0);
    assert_int_equal(r->monitor_ms, 5000);
    assert_int_equal(hf_group_def_at(def, 1)->kind, HF_GROUP_DEF_ATTACHED);
    assert_string_equal(hf_group_def_at(def, 2)->agent, "");
    hf_group_def_destroy(def);
}

static void errors(void **state)
{
    (void)state;
    assert_refused("resource A { }", "def:1: resource: got \"A\", expected a name of 1 to 31 lower "
                                     "case letters, digits and hyphens (not first or last)");
    assert_refused("resource a {\n agent = IPaddr2 }",
                   "def:2: resource a.agent: got \"IPaddr2\", expected an OCF agent, "
                   "ocf:PROVIDER:TYPE, as ocf:heartbeat:IPaddr2");
    assert_refused("resource a {\n probe = { x }\n}",
                   "def:2: resource a.probe: x is not among params");
    assert_refused("resource a { params { x = 'y z' }\n probe = { x }\n}",
                   "def:2: resource a.probe: x: expected a value without blanks that is no secret");
    assert_refused("resource a { params { password = y }\n probe = { password }\n}",
                   "def:2: resource a.probe: password: expected a value without blanks that is no "
                   "secret");
    assert_refused("resource a { timeouts { start = 5 } }",
                   "def:1: resource a.timeouts: start: got \"5\", expected a duration (ms, s, m, "
                   "h)");
    assert_refused("resource a { timeouts { begin = 5s } }",
                   "def:1: resource a.timeouts: got \"begin\", expected start, stop, promote, "
                   "demote, monitor, access, open, mirror-source, mirror-target or mirror-state");
    assert_refused("resource a { parms { x = 5s } }",
                   "def:1: no option or section \"parms\" in section \"resource\"; did you mean "
                   "\"params\"?");
    char many[2048] = "";
    for (size_t i = 0, n = 0; i <= HF_GROUP_COPIES_MAX; i++) {
        n += (size_t)snprintf(many + n, sizeof(many) - n, "resource c%zu { }\n", i);
    }
    assert_refused(many, "def:9: resource c8: is one copy too many, expected at most 8");
}

static void the_text_of_a_resource_is_always_the_same(void **state)
{
    (void)state;
    struct hf_group_def *def = load_ok(hf_slice_str(full));
    for (size_t i = 0; i < def->resource.n; i++) {
        struct hf_buf a, b;
        hf_buf_init(&a, 4096);
        hf_buf_init(&b, 4096);
        hf_group_def_text(hf_group_def_at(def, i), &a);
        struct hf_group_def *again = load_ok(hf_buf_slice(&a));
        assert_int_equal(again->resource.n, 1);
        hf_group_def_text(hf_group_def_at(again, 0), &b);
        assert_true(hf_slice_eq(hf_buf_slice(&a), hf_buf_slice(&b)));
        assert_int_equal(hf_group_def_hash(hf_buf_slice(&a)), hf_group_def_hash(hf_buf_slice(&b)));
        hf_group_def_destroy(again);
        hf_buf_fini(&a);
        hf_buf_fini(&b);
    }
    const char *value = hf_group_def_at(def, 0)->params.pair[1].value;
    assert_string_equal(value, "a \"$b\\c");
    hf_group_def_destroy(def);
}

static void what_the_group_is_told(void **state)
{
    (void)state;
    struct hf_group_def *def = load_ok(hf_slice_str(full));
    struct hf_ocf_meta *mirror = meta_of(META_MIRROR);
    struct hf_gresource g;
    struct hf_err err = {0};
    assert_int_equal(hf_group_def_resolve("def", hf_group_def_at(def, 0), mirror, &err, &g), 0);
    assert_string_equal(g.name, "copy1");
    assert_string_equal(g.agent, "ocf:holdfast:postgresql");
    assert_string_equal(g.probe, "pgdata=/srv/pg");
    assert_int_equal(g.kind, HF_RESOURCE_COPY);
    assert_int_equal(g.flags, HF_RESOURCE_PROMOTABLE | HF_RESOURCE_MIRROR | HF_RESOURCE_OPEN);
    assert_int_equal(g.host, HF_GROUP_NONE);
    assert_int_not_equal(g.config_hash, 0);
    assert_int_equal(hf_group_def_resolve("def", hf_group_def_at(def, 2), NULL, &err, &g), 0);
    assert_int_equal(g.flags, 0);
    assert_string_equal(g.agent, "");
    hf_ocf_meta_destroy(mirror);
    hf_group_def_destroy(def);
}

static void assert_unfit(const char *text, const char *xml, const char *expected)
{
    struct hf_group_def *def = load_ok(hf_slice_str(text));
    struct hf_ocf_meta *meta = xml ? meta_of(xml) : NULL;
    struct hf_gresource g;
    struct hf_err err = {0};
    assert_int_equal(hf_group_def_resolve("def", hf_group_def_at(def, 0), meta, &err, &g),
                     -HF_ECONFIG);
    assert_string_equal(err.text, expected);
    hf_ocf_meta_destroy(meta);
    hf_group_def_destroy(def);
}

static void copies_with_a_lease_need_no_fencing(void **state)
{
    (void)state;
    struct hf_group_def *def =
        load_ok(hf_slice_str("resource a { agent = ocf:x:y params { pgdata = x } fence = none }"));
    struct hf_ocf_meta *meta = meta_of(META_LEASE);
    struct hf_gresource g;
    struct hf_err err = {0};
    assert_int_equal(hf_group_def_resolve("def", hf_group_def_at(def, 0), meta, &err, &g), 0);
    assert_int_equal(g.flags, HF_RESOURCE_MIRROR | HF_RESOURCE_FENCE_NONE);
    hf_ocf_meta_destroy(meta);
    hf_group_def_destroy(def);
}

static void what_does_not_fit_the_agent(void **state)
{
    (void)state;
    assert_unfit("\nresource a { agent = ocf:x:y params { prot = 1 pgdata = x } }", META_PLAIN,
                 "def:2: resource a.params: prot: the agent has no such parameter; its meta-data "
                 "lists them");
    assert_unfit("resource a { agent = ocf:x:y }", META_PLAIN,
                 "def:1: resource a.params: pgdata: not given, but the agent requires it");
    assert_unfit("resource a { agent = ocf:x:y params { pgdata = x } fence = none }", META_MIRROR,
                 "def:1: resource a.fence: got none, expected required: copies that mirror have "
                 "data, which two hosts must never write");
    assert_unfit("resource a { agent = ocf:x:y params { pgdata = x } kind = attached }",
                 META_MIRROR,
                 "def:1: resource a.kind: got attached, expected copy: the agent mirrors copies");
    assert_unfit("resource a { params { x = y } }", NULL,
                 "def:1: resource a.params: got some, expected none: it has no agent");
}

static void secrets_are_hidden_from_people(void **state)
{
    (void)state;
    char text[64];
    struct hf_group_def *def = load_ok(hf_slice_str(full));
    const struct hf_group_def_resource *r = hf_group_def_at(def, 0);
    hf_group_def_hide(r, "no a \"$b\\c in /srv/pg, a \"$b\\c", text, sizeof(text));
    assert_string_equal(text, "no *** in /srv/pg, ***");
    hf_group_def_hide(r, "a \"$b\\c", text, 3);
    assert_string_equal(text, "**");
    hf_group_def_hide(NULL, "as it is", text, sizeof(text));
    assert_string_equal(text, "as it is");
    hf_group_def_hide(r, "", text, sizeof(text));
    assert_string_equal(text, "");
    hf_group_def_destroy(def);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(values),
        HF_TEST(errors),
        HF_TEST(the_text_of_a_resource_is_always_the_same),
        HF_TEST(what_the_group_is_told),
        HF_TEST(copies_with_a_lease_need_no_fencing),
        HF_TEST(what_does_not_fit_the_agent),
        HF_TEST(secrets_are_hidden_from_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
