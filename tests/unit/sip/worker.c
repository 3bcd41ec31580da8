/* Tests of sip/worker: two threads, messages handed over, answers over another's connection. */
#include "sip/worker.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/sip/steer_inline.h"
#include "os/addr.h"
#include "os/loop.h"
#include "sip/steer.h"
#include "test.h"

#define REQUEST                                                                                    \
    "OPTIONS sip:%d@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK1\r\n"       \
    "From: <sip:b@example.org>;tag=1\r\nTo: <sip:a@example.org>\r\nCall-ID: c\r\n"                 \
    "CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
#define N 2
#define WAIT_MS 30000

/* A stand-in for an element: answers 200 with its worker's number. */
struct echo {
    struct hf_sip_worker *w;
    unsigned i;
    atomic_uint messages, mails, ticks, gone, seconds;
    atomic_bool wrong;
    hf_time tick_at;
};
static struct hf_sip_workers *ws;
static struct echo echo[N];

/* "sip:7@..." */
static unsigned worker_of(int user)
{
    return hf_steer_worker(hf_steer_add(HF_STEER_HASH, (uint8_t)('0' + user)), N);
}

static unsigned owner(void *ctx, const struct hf_sip_msg *msg)
{
    (void)ctx;
    return msg->uri_text.n > 4 ? worker_of(msg->uri_text.p[4] - '0') : 0;
}

static void message(void *ctx, const struct hf_sip_msg *msg, const struct hf_sip_flow *from,
                    hf_time now, uint32_t wall_s)
{
    struct echo *e = ctx;
    char text[128];
    e->messages++;
    if (owner(ctx, msg) != e->i || msg->fault != HF_SIP_OK || now == 0 || wall_s == 0) {
        e->wrong = true;
    }
    int n =
        snprintf(text, sizeof(text), "SIP/2.0 200 worker %u\r\nContent-Length: 0\r\n\r\n", e->i);
    hf_sip_worker_send(e->w, from, hf_slice(text, (size_t)n));
    if (from->conn && hf_sip_conn_worker(from->conn) == e->i) {
        hf_sip_worker_keep(e->w, from->conn);
    }
}

static void unreachable(void *ctx, const struct hf_sip_flow *to, hf_time now)
{
    struct echo *e = ctx;
    (void)now;
    e->gone += to->conn != 0;
}

/* Goes once round. */
static void mail(void *ctx, const struct hf_mail *m, hf_time now)
{
    struct echo *e = ctx;
    (void)now;
    if (m->kind != HF_SIP_MAIL_USER || m->data.n != 5 || memcmp(m->data.p, "hello", 5) != 0) {
        e->wrong = true;
    }
    e->mails++;
    if (e->i == 0) {
        hf_sip_worker_mail(e->w, 1, HF_SIP_MAIL_USER, &m->data, 1);
    }
}

static void tick(void *ctx, hf_time now, uint32_t wall_s)
{
    struct echo *e = ctx;
    (void)wall_s;
    e->ticks++;
    e->tick_at = now + HF_MS(20);
}

static hf_time deadline(void *ctx)
{
    return ((struct echo *)ctx)->tick_at;
}

static void second(void *ctx, hf_time now)
{
    (void)now;
    ((struct echo *)ctx)->seconds++;
}

static void start(bool steer)
{
    static const struct hf_sip_handler handler = {.owner = owner,
                                                  .message = message,
                                                  .unreachable = unreachable,
                                                  .mail = mail,
                                                  .tick = tick,
                                                  .deadline = deadline,
                                                  .second = second};
    struct hf_addr addr;
    struct hf_err err = {0};
    assert_int_equal(hf_addr_parse("127.0.0.1", 0, NULL, &addr), 0);
    struct hf_endpoint at = hf_addr_to_endpoint(&addr);
    struct hf_sip_place bind[] = {{.transport = HF_SIP_TRANSPORT_UDP, .at = at},
                                  {.transport = HF_SIP_TRANSPORT_TCP, .at = at}};
    struct hf_sip_workers_conf conf = {
        .n = N, .wire = {.bind = bind, .n_binds = 2}, .steer = steer};
    memset(echo, 0, sizeof(echo));
    assert_int_equal(hf_sip_workers_open(&conf, &err, &ws), 0);
    assert_int_equal(hf_sip_workers_n(ws), N);
    for (unsigned i = 0; i < N; i++) {
        echo[i].w = hf_sip_worker(ws, i);
        echo[i].i = i;
        echo[i].tick_at = hf_now();
        hf_sip_worker_handle(echo[i].w, &handler, &echo[i]);
    }
    assert_int_equal(hf_sip_workers_start(ws, &err), 0);
}

static int setup(void **state)
{
    (void)state;
    start(false);
    return 0;
}

static int setup_steered(void **state)
{
    (void)state;
    start(true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hf_sip_workers_stop(ws);
    hf_sip_workers_close(ws);
    for (unsigned i = 0; i < N; i++) {
        assert_false(echo[i].wrong);
    }
    return 0;
}

static int connect_to(int type, size_t i)
{
    struct hf_endpoint at = hf_sip_workers_at(ws, i);
    struct hf_addr to = hf_addr_from_endpoint(&at);
    int fd = socket(to.ss.ss_family, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to.ss, to.len), 0);
    return fd;
}

/* An answer's worker. */
static int ask(int fd, int user)
{
    char text[512], answer[512] = "";
    int n = snprintf(text, sizeof(text), REQUEST, user);
    assert_int_equal(send(fd, text, (size_t)n, 0), n);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    assert_true(recv(fd, answer, sizeof(answer) - 1, 0) > 0);
    assert_memory_equal(answer, "SIP/2.0 200 worker ", 19);
    return answer[19] - '0';
}

static void wait_for(atomic_uint *counter, unsigned n)
{
    for (int i = 0; *counter < n && i < WAIT_MS; i++) {
        poll(NULL, 0, 1);
    }
    assert_true(*counter >= n);
}

static void test_udp(void **state)
{
    (void)state;
    struct hf_sip_worker_figures f[N];
    for (int k = 0; k < 8; k++) { /* each source port is one worker's */
        int fd = connect_to(SOCK_DGRAM, 0);
        for (int user = 0; user < 4; user++) {
            assert_int_equal(ask(fd, user), worker_of(user));
        }
        close(fd);
    }
    assert_int_equal(echo[0].messages, 16);
    assert_int_equal(echo[1].messages, 16);
    wait_for(&echo[0].seconds, 1);
    wait_for(&echo[1].seconds, 1);
    for (unsigned i = 0; i < N; i++) {
        hf_sip_worker_figures(echo[i].w, &f[i]);
    }
    assert_int_equal(f[0].wire.udp_in + f[1].wire.udp_in, 32);
    assert_int_equal(f[0].handed_over, f[1].taken_over);
    assert_int_equal(f[1].handed_over, f[0].taken_over);
    assert_int_equal(f[0].handed_over + f[1].handed_over, 16);
    assert_int_equal(f[0].lost + f[1].lost, 0);
}

/* The kernel brings each message to its worker, if it lets us; without it they are handed over. */
static void test_steered(void **state)
{
    (void)state;
    struct hf_sip_worker_figures f[N];
    struct hf_err err;
    int program, rc = hf_sip_steer_load(N, &err, &program);
    for (int k = 0; k < 8; k++) {
        int fd = connect_to(SOCK_DGRAM, 0);
        for (int user = 0; user < 4; user++) {
            assert_int_equal(ask(fd, user), worker_of(user));
        }
        close(fd);
    }
    assert_int_equal(echo[0].messages + echo[1].messages, 32);
    assert_true(echo[0].messages && echo[1].messages);
    wait_for(&echo[0].seconds, 1);
    wait_for(&echo[1].seconds, 1);
    for (unsigned i = 0; i < N; i++) {
        hf_sip_worker_figures(echo[i].w, &f[i]);
    }
    if (rc == 0) {
        close(program);
        assert_int_equal(f[0].handed_over + f[1].handed_over, 0);
    } else {
        assert_non_null(strstr(err.text, "steering program"));
    }
}

/* Whoever has the connection, the owner answers over it; all hear of its end. */
static void test_tcp(void **state)
{
    (void)state;
    for (int k = 0; k < 8; k++) {
        int fd = connect_to(SOCK_STREAM, 1);
        for (int user = 0; user < 4; user++) {
            assert_int_equal(ask(fd, user), worker_of(user));
        }
        close(fd);
    }
    wait_for(&echo[0].gone, 8);
    wait_for(&echo[1].gone, 8);
}

static void test_mail(void **state)
{
    (void)state;
    struct hf_slice part[] = {hf_slice_str("hel"), hf_slice_str("lo")};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hf_sip_worker_post(echo[0].w, HF_SIP_MAIL_USER, part, 2), 0);
    }
    wait_for(&echo[0].mails, 3);
    wait_for(&echo[1].mails, 3);
}

static void test_ticks(void **state)
{
    (void)state;
    wait_for(&echo[0].ticks, 3);
    wait_for(&echo[1].ticks, 3);
}

static void test_refused(void **state)
{
    (void)state;
    struct hf_sip_place bind = {
        .transport = HF_SIP_TRANSPORT_TCP, .at.family = HF_AF_INET, .at.addr = {192, 0, 2, 1}};
    struct hf_sip_workers_conf conf = {.n = N, .wire = {.bind = &bind, .n_binds = 1}};
    struct hf_sip_workers *none;
    struct hf_err err;
    assert_int_equal(hf_sip_workers_open(&conf, &err, &none), -EADDRNOTAVAIL);
    hf_sip_workers_close(NULL);
}

int main(void)
{
#define RUNNING(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define STEERED cmocka_unit_test_setup_teardown(test_steered, setup_steered, teardown)
    const struct CMUnitTest tests[] = {
        RUNNING(test_udp),   RUNNING(test_tcp), RUNNING(test_mail),
        RUNNING(test_ticks), STEERED,           HF_TEST(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
