/* Tests of sip/names: numbers in one order for all. */
#include "sip/names.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "os/addr.h"
#include "sip/pack.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
