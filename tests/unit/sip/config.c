/* Tests of sip/config: defaults, what belongs together, address ranges. */
#include "sip/config.h"

#include <string.h>

#include "test.h"

#define MINIMAL                                                                                    \
    "sip { name = alpha\n domains = { example.org } }\n"                                           \
    "listen lan { address = 192.0.2.1 }\n"

static void test_defaults(void **state)
{
    (void)state;
    struct hf_sip_config *c;
    struct hf_err err = {0};
    assert_int_equal(hf_sip_config_load_mem("f", hf_slice_str(MINIMAL), &err, &c), 0);
    assert_string_equal(c->sip.name, "alpha");
    assert_string_equal(hf_sip_config_realm(c), "example.org");
    assert_int_equal(hf_sip_config_level(c), HF_LOG_INFO);
    assert_int_equal(c->sip.role, HF_SIP_ROLE_HOME);
    assert_int_equal(c->watch.allow.n, 1);
    assert_string_equal(c->watch.allow.item[0], "domain");
    assert_int_equal(c->auth.algorithms, 1u << HF_SIP_SHA512_256 | 1u << HF_SIP_SHA256);
    const struct hf_sip_listen_config *l = hf_sip_config_listen(c, 0);
    assert_int_equal(l->transport, HF_SIP_TRANSPORT_UDP);
    assert_int_equal(hf_addr_to_endpoint(&l->address).port, 5060);
    hf_sip_config_destroy(c);
    assert_int_equal(
        hf_sip_config_load_mem(
            "f", hf_slice_str(MINIMAL "watch { allow = { sip:a@b.org, @c.org } }"), &err, &c),
        0);
    assert_int_equal(c->watch.allow.n, 2);
    hf_sip_config_destroy(c);
    assert_true(hf_sip_config_load("/nonexistent", &err, &c) < 0);
}

/* File, line, object, what is wrong, and what to do. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *what;
    } cases[] = {
        {"sip { name = alpha }\nlisten lan { address = 192.0.2.1 }", "f: sip.domains: none"},
        {"sip { name = alpha\n domains = { a.org } }", "nowhere to listen"},
        {"sip { domains = { A.org } }", "f:1: sip.domains"},
        {"sip { name = alpha\n domains = { a.org } }\nlisten lan { }", "say by which name"},
        {MINIMAL "listen t { transport = tls\n address = 192.0.2.1 }", "needs tls.cert_file"},
        {MINIMAL "listen t { external = true\n address = 192.0.2.1 }", "only an edge"},
        {MINIMAL "expires { min = 3h }", "expires.default: must be"},
        {MINIMAL "rebalance { target_zone = 10 }", "rebalance.target_zone"},
        {MINIMAL "tls { clients = true }", "tls.clients"},
        {MINIMAL "sip { database = mysql }", "sip.database: got"},
        {MINIMAL "sip { trusted_edges = { 192.0.2.0/33 } }", "an address or ADDRESS/BITS"},
        {MINIMAL "auth { algorithms = { } }", "auth.algorithms: none"},
        {MINIMAL "watch { allow = { everybody } }", "watch.allow: got"},
        {MINIMAL "watch { allow = { domain, none } }", "watch.allow: none, and"},
        {MINIMAL "watch { allow = { } }", "watch.allow: empty"},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(cases); i++) {
        struct hf_sip_config *c;
        struct hf_err err = {0};
        assert_int_equal(hf_sip_config_load_mem("f", hf_slice_str(cases[i].text), &err, &c),
                         -HF_ECONFIG);
        if (!strstr(err.text, cases[i].what)) {
            assert_string_equal(err.text, cases[i].what); /* shows both */
        }
    }
}

static void test_net(void **state)
{
    (void)state;
    struct hf_sip_net n;
    assert_true(hf_sip_config_net("192.0.2.0/24", &n));
    assert_int_equal(n.bits, 24);
    assert_true(hf_sip_config_net("192.0.2.7", &n));
    assert_int_equal(n.bits, 32);
    assert_true(hf_sip_config_net("2001:db8::/32", &n));
    assert_int_equal(n.at.family, HF_AF_INET6);
    assert_true(hf_sip_config_net("::1", &n));
    assert_int_equal(n.bits, 128);
    static const char *const bad[] = {
        "",       "/8",     "192.0.2.0/", "192.0.2.0/33", "192.0.2.0/-1", "x", "192.0.2.0:5060",
        "::/129", "[::1]:5"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        assert_false(hf_sip_config_net(bad[i], &n));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(test_defaults), HF_TEST(test_refused),
                                       HF_TEST(test_net)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
