/* Tests of sip/names and sip/tree's reading: numbers in one order for all, entries of other
 * servers. */
#include "sip/names.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "os/addr.h"
#include "sip/pack.h"
#include "sip/tree.h"
#include "test.h"

#define WORKERS 2
#define THREADS 2
#define NAMES 100

static struct hf_sip_workers *ws;
static struct hf_sip_names *names;
/* What each worker was told, in its order. */
static struct {
    char name[NAMES + 10][HF_HOST_NAME_MAX + 1];
    atomic_uint n;
    struct hf_sip_server last;
} told[WORKERS];

static void message(void *ctx, const struct hf_sip_msg *msg, const struct hf_sip_flow *from,
                    hf_time now, uint32_t wall_s)
{
    (void)ctx;
    (void)msg;
    (void)from;
    (void)now;
    (void)wall_s;
}

static void mail(void *ctx, const struct hf_mail *m, hf_time now)
{
    unsigned i = *(const unsigned *)ctx;
    const struct hf_sip_peer *p = hf_sip_unpack_peer(m->data);
    (void)now;
    snprintf(told[i].name[told[i].n], HF_HOST_NAME_MAX + 1, "%.*s", HF_SLICE_FMT(p->name));
    told[i].last = p->now;
    told[i].n++;
}

static void *add_names(void *arg)
{
    char name[16];
    for (int i = 0; i < NAMES; i++) {
        snprintf(name, sizeof(name), "host%d", i);
        (void)hf_sip_names_number(names, hf_slice_str(name));
    }
    return arg;
}

static void wait_for(unsigned n)
{
    for (int i = 0; i < 30000 && (told[0].n < n || told[1].n < n); i++) {
        poll(NULL, 0, 1);
    }
    assert_int_equal(told[0].n, n);
    assert_int_equal(told[1].n, n);
}

static void test_names(void **state)
{
    (void)state;
    static const struct hf_sip_handler handler = {.message = message, .mail = mail};
    static unsigned number[WORKERS] = {0, 1};
    struct hf_addr addr;
    struct hf_err err;
    pthread_t thread[THREADS];
    char buf[HF_HOST_NAME_MAX + 1];
    assert_int_equal(hf_addr_parse("127.0.0.1", 0, NULL, &addr), 0);
    struct hf_sip_place place = {.transport = HF_SIP_TRANSPORT_UDP,
                                 .at = hf_addr_to_endpoint(&addr)};
    struct hf_sip_workers_conf conf = {.n = WORKERS, .wire = {.bind = &place, .n_binds = 1}};
    assert_int_equal(hf_sip_workers_open(&conf, &err, &ws), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        hf_sip_worker_handle(hf_sip_worker(ws, i), &handler, &number[i]);
    }
    assert_int_not_equal(hf_sip_names_create(ws, hf_slice_str("No Host"), &names), 0);
    assert_int_equal(hf_sip_names_create(ws, hf_slice_str("self"), &names), 0);
    assert_int_equal(hf_sip_workers_start(ws, &err), 0);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(hf_sip_thread_start(&thread[i], "names", add_names, NULL), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    assert_int_equal(hf_sip_names_count(names), NAMES + 1);
    wait_for(NAMES);
    for (unsigned k = 0; k < NAMES; k++) { /* each once, in the order of their numbers */
        hf_sip_names_name(names, (uint16_t)(k + 1), buf, sizeof(buf));
        assert_string_equal(told[0].name[k], buf);
        assert_string_equal(told[1].name[k], buf);
        assert_int_equal(hf_sip_names_number(names, hf_slice_str(buf)), k + 1);
    }
    assert_int_equal(told[0].last.state, HF_SIP_SERVER_UNKNOWN);
    struct hf_sip_peer peer = {.name = hf_slice_str("self"), .now.state = HF_SIP_SERVER_LIVE};
    assert_int_equal(hf_sip_names_tell(names, &peer), 0);
    wait_for(NAMES + 1);
    assert_int_equal(told[1].last.state, HF_SIP_SERVER_LIVE);
    peer.name = hf_slice_str("Not a name");
    assert_int_equal(hf_sip_names_tell(names, &peer), HF_SIP_NONE);
    assert_int_equal(hf_sip_names_number(names, peer.name), HF_SIP_NONE);
    hf_sip_names_name(names, 9999, buf, sizeof(buf));
    assert_string_equal(buf, "?");
    hf_sip_workers_stop(ws);
    hf_sip_workers_close(ws);
    hf_sip_names_destroy(names);
}

static int parse(const char *name, const char *text, struct hf_sip_peer *peer,
                 struct hf_sip_load *load, json_t **value)
{
    *value = json_loads(text, 0, NULL);
    return hf_sip_tree_parse(name, *value, peer, load);
}

static void test_entries(void **state)
{
    (void)state;
    struct hf_sip_peer p;
    struct hf_sip_load l;
    json_t *v;
    assert_int_equal(parse("beta",
                           "{\"udp\":\"192.0.2.1\",\"tls\":\"[2001:db8::1]:5071\",\"tcp\":\"x\","
                           "\"host\":\"beta.example.org\",\"role\":\"home\",\"state\":\"live\","
                           "\"weight\":5000,\"busy\":true,\"rows\":7,\"cpu\":-1}",
                           &p, &l, &v),
                     0);
    hf_assert_slice_str(p.name, "beta");
    hf_assert_slice_str(p.host, "beta.example.org");
    assert_int_equal(p.now.state, HF_SIP_SERVER_LIVE);
    assert_true(p.now.homes && p.now.busy);
    assert_int_equal(p.now.weight, 1000);
    assert_int_equal(p.at[HF_SIP_TRANSPORT_UDP].port, 5060);
    assert_int_equal(p.at[HF_SIP_TRANSPORT_TCP].family, HF_AF_NONE);
    assert_int_equal(p.at[HF_SIP_TRANSPORT_TLS].port, 5071);
    assert_int_equal(l.clients, 7);
    assert_int_equal(l.cpu, 0);
    json_decref(v);
    assert_int_equal(parse("beta", "{\"state\":\"draining\",\"role\":\"edge\"}", &p, &l, &v), 0);
    assert_int_equal(p.now.state, HF_SIP_SERVER_DRAINING);
    assert_false(p.now.homes);
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

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(test_names), HF_TEST(test_entries)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
