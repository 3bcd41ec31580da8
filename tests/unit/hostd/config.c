/* hostd/config: defaults, what is filled in, and the checks across options. */
#include "hostd/config.h"

#include <errno.h>

#include "support/test.h"

/* A name, so that the tests do not depend on the machine's. */
#define HOST "host { name = alpha }\n"

static int load(const char *text, struct hf_err *err, struct hf_hostd_config **ret_c)
{
    void *s = NULL;
    *err = (struct hf_err){0};
    int rc = hf_conf_load_mem(&hf_hostd_config_schema, "f", hf_slice_str(text), err, &s);
    *ret_c = s;
    return rc;
}

static struct hf_hostd_config *load_ok(const char *text)
{
    struct hf_err err;
    struct hf_hostd_config *c;
    int rc = load(text, &err, &c);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return c;
}

static void assert_refused(const char *text, const char *part)
{
    struct hf_err err;
    struct hf_hostd_config *c;
    assert_int_equal(load(text, &err, &c), -HF_ECONFIG);
    if (!strstr(err.text, part)) {
        fail_msg("got: %s", err.text);
    }
}

static void assert_addr(const struct hf_addr *a, const char *expected)
{
    char str[HF_ADDR_STR_LEN];
    assert_string_equal(hf_addr_str(a, str), expected);
}

static void defaults(void **state)
{
    (void)state;
    struct hf_hostd_config *c = load_ok(HOST);
    assert_string_equal(c->host.name, "alpha");
    assert_string_equal(c->cluster.key_file, "/etc/holdfast/cluster.key");
    assert_int_equal(c->host.address.len, 0);
    assert_int_equal(c->directory.transport, HF_HOSTD_MULTICAST);
    assert_addr(&c->directory.group, "239.192.74.80:7480");
    assert_addr(&c->directory.listen, "0.0.0.0:7480");
    assert_int_equal(c->directory.heartbeat_ms, 1000);
    assert_int_equal(c->directory.listen_wait_ms, 2000);
    assert_addr(&c->http.listen, "127.0.0.1:7481");
    assert_int_equal(c->dns.listen.len, 0);
    assert_int_equal(c->dns.ttl_ms, 5000);
    assert_int_equal(hf_hostd_config_level(c), HF_LOG_INFO);
    hf_hostd_config_destroy(c);
    hf_hostd_config_destroy(NULL);
}

static void values_that_depend_on_others(void **state)
{
    (void)state;
    struct hf_hostd_config *c =
        load_ok("host { name = beta address = 192.0.2.7 }\n"
                "directory { group = \"ff15::4a50\" port = 99 heartbeat = 3s }\n"
                "log { trace = { dir, dns } level = debug } http { listen = none }");
    assert_addr(&c->host.address, "192.0.2.7:99");
    assert_addr(&c->directory.group, "[ff15::4a50]:99");
    assert_addr(&c->directory.listen, "[::]:99");
    assert_int_equal(c->directory.listen_wait_ms, 6000);
    assert_int_equal(c->log.trace, 1u << HF_TRACE_DIR | 1u << HF_TRACE_DNS);
    assert_int_equal(hf_hostd_config_level(c), HF_LOG_DEBUG);
    assert_int_equal(c->http.listen.len, 0);
    hf_hostd_config_destroy(c);
    c = load_ok(HOST "directory { transport = unicast peers = { 192.0.2.1, 192.0.2.2:5 } }");
    assert_addr(&c->directory.peers.addr[0], "192.0.2.1:7480");
    assert_addr(&c->directory.peers.addr[1], "192.0.2.2:5");
    hf_hostd_config_destroy(c);
}

static void checks_across_options(void **state)
{
    (void)state;
    assert_refused(HOST "directory { transport = unicast }", "directory.peers: got none");
    assert_refused(HOST "directory { group = 192.0.2.1 }",
                   "f:2: directory.group: expected a multi");
    assert_refused(HOST "directory { group = 239.1.1.1:5 }", "f:2: directory.group: got port 5");
    assert_refused(HOST "directory { group = \"ff02::5\" }", "directory.interface: got none");
    assert_refused(HOST "directory { listen = \"::\" }", "directory.listen: is not of the family");
    assert_refused(HOST "http { listen = 0.0.0.0:7480 }", "f:2: http.listen: has the address");
    assert_refused(HOST "dns { listen = 127.0.0.1:7481 }", "f:2: dns.listen: has the address");
    assert_refused("host { name = Alpha }", "f:1: host.name: got \"Alpha\", expected a DNS label");
    assert_refused("host { name = \"-a\" }", "host.name");
    assert_refused(HOST "dns { domain = \"a..b\" }", "dns.domain");
    assert_refused(HOST "dns { domain = \"a.b.\" }", "dns.domain");
    assert_refused(HOST "state { dir = var }", "state.dir: got \"var\", expected an absolute path");
    assert_refused(HOST "directory { heartbeat = 50ms }", "100ms to 1m");
}

static void fence_devices(void **state)
{
    (void)state;
    struct hf_hostd_config *c = load_ok(HOST "fence ipmi { agent = fence_ipmilan timeout = 20s\n"
                                             " hosts = { alpha, beta:2, \"*\" }\n"
                                             " options { ip = 10.0.0.1 password = x } }\n"
                                             "watchdog { device = /dev/watchdog timeout = 5s }");
    const struct hf_hostd_fence *f = c->fence.item;
    assert_int_equal(c->fence.n, 1);
    assert_string_equal(f->title.name, "ipmi");
    assert_string_equal(f->agent, "fence_ipmilan");
    assert_string_equal(f->hosts.item[1], "beta:2");
    assert_string_equal(f->options.pair[1].value, "x");
    assert_int_equal(f->level, 1);
    assert_int_equal(f->timeout_ms, 20000);
    assert_string_equal(c->watchdog.device, "/dev/watchdog");
    assert_int_equal(c->watchdog.timeout_ms, 5000);
    hf_hostd_config_destroy(c);
    assert_refused(HOST "fence a { agent = x }", "f:2: fence a: has no hosts");
    assert_refused(HOST "fence a { hosts = { alpha } }", "f:2: fence a: has no agent");
    assert_refused(HOST "fence a { agent = x hosts = { 'al pha' } }", "HOST, HOST:PLUG");
    assert_refused(HOST "fence a { agent = x hosts = { 'alpha:' } }", "HOST, HOST:PLUG");
    assert_refused(HOST "fence a { agent = x hosts = { alpha } options { plug = 1 } }",
                   "fence a.options: got \"plug\"");
}

static void a_listing_loads_to_the_same(void **state)
{
    (void)state;
    struct hf_hostd_config *c =
        load_ok(HOST "directory { transport = unicast peers = { 10.0.0.1 } }");
    struct hf_buf first, second;
    hf_buf_init(&first, 65536);
    hf_buf_init(&second, 65536);
    hf_hostd_config_print(c, &first);
    hf_buf_add(&first, hf_slice("", 1));
    struct hf_hostd_config *again = load_ok((const char *)first.p);
    hf_hostd_config_print(again, &second);
    hf_buf_add(&second, hf_slice("", 1));
    assert_string_equal((char *)first.p, (char *)second.p);
    hf_buf_fini(&first);
    hf_buf_fini(&second);
    hf_hostd_config_destroy(c);
    hf_hostd_config_destroy(again);
    assert_int_equal(hf_hostd_config_load("/nonexistent", NULL, &c), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(defaults),
        HF_TEST(values_that_depend_on_others),
        HF_TEST(checks_across_options),
        HF_TEST(fence_devices),
        HF_TEST(a_listing_loads_to_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
