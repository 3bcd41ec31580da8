/* Tests of sip/others: entries of the tree; who is there by the tree, and by a group. */
#include "sip/others.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "test.h"

static int parse(const char *name, const char *text, struct hf_sip_peer *peer,
                 struct hf_sip_load *load, json_t **value)
{
    *value = json_loads(text, 0, NULL);
    return hf_sip_others_parse(name, *value, peer, load);
}

static void test_entries(void **state)
{
    (void)state;
    struct hf_sip_peer p;
    struct hf_sip_load l;
    json_t *v;
    assert_int_equal(
        parse("beta",
              "{\"udp\":\"192.0.2.1\",\"tls\":\"[2001:db8::1]:5071\",\"tcp\":\"x\","
              "\"host\":\"beta.example.org\",\"role\":\"home\",\"state\":\"live\","
              "\"weight\":5000,\"boot\":\"00ff00000000000a\",\"busy\":true,\"rows\":7,\"cpu\":-1}",
              &p, &l, &v),
        0);
    hf_assert_slice_str(p.name, "beta");
    hf_assert_slice_str(p.host, "beta.example.org");
    assert_int_equal(p.now.state, HF_SIP_SERVER_LIVE);
    assert_true(p.now.homes && p.now.busy);
    assert_int_equal(p.now.weight, 1000);
    assert_int_equal(p.boot, 0xff00000000000aULL);
    assert_int_equal(p.at[HF_SIP_TRANSPORT_UDP].port, 5060);
    assert_int_equal(p.at[HF_SIP_TRANSPORT_TCP].family, HF_AF_NONE);
    assert_int_equal(p.at[HF_SIP_TRANSPORT_TLS].port, 5071);
    assert_int_equal(l.clients, 7);
    assert_int_equal(l.cpu, 0);
    json_decref(v);
    assert_int_equal(parse("beta", "{\"state\":\"draining\",\"role\":\"edge\"}", &p, &l, &v), 0);
    assert_int_equal(p.now.state, HF_SIP_SERVER_DRAINING);
    assert_false(p.now.homes);
    assert_int_equal(p.boot, 0);
    json_decref(v);
    static const struct {
        const char *name, *text;
    } bad[] = {{"Beta!", "{\"state\":\"live\"}"},
               {"beta", "{}"},
               {"beta", "[]"},
               {"beta", "x"},
               {"beta", "{\"state\":\"asleep\"}"}};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        assert_int_equal(parse(bad[i].name, bad[i].text, &p, &l, &v), -HF_EVALUE);
        json_decref(v);
    }
}

/* ---- who is there ---- */

struct world {
    struct hf_sip_others *o;
    struct hf_buf story; /* NAME:STATE:ROWS for each that was told */
};

static void on_other(void *arg, const struct hf_sip_peer *p, const struct hf_sip_load *l)
{
    struct world *w = arg;
    hf_buf_printf(&w->story, "%.*s:%s:%u ", HF_SLICE_FMT(p->name),
                  hf_sip_server_state_name(p->now.state), l->clients);
}

static void expect(struct world *w, const char *story)
{
    hf_assert_slice_str(hf_buf_slice(&w->story), story);
    hf_buf_clear(&w->story);
}

static void hear(struct world *w, const char *owner, const char *name, unsigned rows)
{
    char text[64];
    snprintf(text, sizeof(text), "{\"state\":\"live\",\"role\":\"home\",\"rows\":%u}", rows);
    hf_sip_others_hear(w->o, owner, name, text);
}

static int setup(void **state)
{
    static struct world w;
    hf_buf_init(&w.story, 4096);
    w.o = hf_sip_others_create(on_other, &w);
    *state = &w;
    return w.o ? 0 : -1;
}

static int teardown(void **state)
{
    struct world *w = *state;
    hf_sip_others_destroy(w->o);
    hf_buf_fini(&w->story);
    return 0;
}

static void by_the_tree(void **state)
{
    struct world *w = *state;
    hear(w, "alpha", "a", 7);
    hear(w, "alpha", "a", 8);
    expect(w, "a:live:7 a:live:8 ");
    hf_sip_others_hear(w->o, "alpha", "a", "{}");
    hf_sip_others_hear(w->o, "alpha", "b", "no entry");
    assert_false(hf_sip_others_known(w->o, "b"));
    hf_sip_others_gone(w->o, "alpha", "b");
    expect(w, "");
    hf_sip_others_gone(w->o, "alpha", "a");
    hf_sip_others_gone(w->o, "alpha", "a");
    expect(w, "a:dead:0 ");
    assert_true(hf_sip_others_known(w->o, "a"));
    hear(w, "alpha", "a", 0);
    expect(w, "a:live:0 ");
    /* it was started on another host before the tree has let go of the first one */
    hear(w, "beta", "a", 1);
    hf_sip_others_gone(w->o, "alpha", "a");
    expect(w, "a:live:1 ");
}

static void by_the_group(void **state)
{
    struct world *w = *state;
    hear(w, "host", "a", 7);
    hear(w, "host", "edge", 0);
    hear(w, "host-2", "b", 5);
    expect(w, "a:live:7 edge:live:0 b:live:5 ");
    hf_sip_others_lost(w->o, "");
    hf_sip_others_lost(w->o, "hos ost ho-st 2");
    expect(w, "");
    hf_sip_others_lost(w->o, "other host");
    expect(w, "a:dead:0 edge:dead:0 ");
    json_t *all = json_array();
    hf_sip_others_list(w->o, all);
    const char *seen[3];
    for (size_t i = 0; i < 3; i++) {
        seen[i] = json_string_value(json_object_get(json_array_get(all, i), "state"));
    }
    assert_string_equal(seen[0], "dead");
    assert_string_equal(seen[1], "dead");
    assert_string_equal(seen[2], "live");
    json_decref(all);
    hf_sip_others_lost(w->o, "host other host-2"); /* each once */
    expect(w, "b:dead:0 ");
    hf_sip_others_gone(w->o, "host", "edge"); /* nothing new */
    hf_sip_others_lost(w->o, "host-2");
    expect(w, "a:live:7 ");
    hf_sip_others_lost(w->o, "");
    expect(w, "b:live:5 ");
    hear(w, "host", "edge", 0);
    expect(w, "edge:live:0 ");
}

/* Only its group has lost it, as when its engine was stopped: it is heard of, so it lives. */
static void heard_of_afterwards(void **state)
{
    struct world *w = *state;
    hear(w, "host", "a", 7);
    hf_sip_others_lost(w->o, "host");
    hear(w, "host", "a", 0);
    hf_sip_others_lost(w->o, "host");
    hf_sip_others_lost(w->o, "host other");
    expect(w, "a:live:7 a:dead:0 a:live:0 ");
    hf_sip_others_lost(w->o, "");
    expect(w, "");
    hf_sip_others_lost(w->o, "host"); /* again */
    hf_sip_others_gone(w->o, "host", "a");
    hf_sip_others_lost(w->o, "");
    expect(w, "a:dead:0 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_entries),
        cmocka_unit_test_setup_teardown(by_the_tree, setup, teardown),
        cmocka_unit_test_setup_teardown(by_the_group, setup, teardown),
        cmocka_unit_test_setup_teardown(heard_of_afterwards, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
