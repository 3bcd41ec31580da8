/* os/loop and os/udp: order of timers, signals, what stops the loop; datagrams of both families. */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/limits.h"
#include "os/loop.h"
#include "os/udp.h"
#include "support/test.h"

static struct hf_loop *loop;
static char story[64];
static char a_text[] = "a", b_text[] = "b", never_text[] = "never";

static int create(void **state)
{
    (void)state;
    story[0] = '\0';
    return hf_loop_create(&loop);
}

static int destroy(void **state)
{
    (void)state;
    hf_loop_destroy(loop);
    return 0;
}

static void tell(void *arg)
{
    strcat(story, arg);
}

static void stop(void *arg)
{
    (void)arg;
    hf_loop_stop(loop);
}

static void timers_in_order(void **state)
{
    (void)state;
    struct hf_timer *a, *b, *never, *end;
    hf_time now = hf_now();
    assert_int_equal(hf_timer_create(loop, tell, a_text, &a), 0);
    assert_int_equal(hf_timer_create(loop, tell, b_text, &b), 0);
    assert_int_equal(hf_timer_create(loop, tell, never_text, &never), 0);
    assert_int_equal(hf_timer_create(loop, stop, NULL, &end), 0);
    hf_timer_set(a, now + HF_MS(20));
    hf_timer_set(b, now + HF_MS(10));
    hf_timer_set(never, now + HF_MS(5));
    hf_timer_set(never, HF_NEVER);
    hf_timer_set(end, now + HF_MS(30));
    assert_int_equal(hf_loop_run(loop), 0);
    assert_true(hf_now() >= now + HF_MS(30)); /* never early */
    hf_timer_set(a, now);                     /* in the past, and again */
    hf_timer_set(end, hf_now() + HF_MS(5));
    hf_timer_set(never, HF_NEVER - 1);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_string_equal(story, "baa");
    hf_timer_destroy(a);
    hf_timer_destroy(b);
    hf_timer_destroy(never);
    hf_timer_destroy(end);
    hf_timer_destroy(NULL);
}

static void stop_before_run(void **state)
{
    (void)state;
    hf_loop_stop(loop);
    assert_int_equal(hf_loop_run(loop), 0);
}

static void on_signal(void *arg, int signo)
{
    *(int *)arg = signo;
    hf_loop_stop(loop);
}

static void signals(void **state)
{
    (void)state;
    struct hf_signal *s;
    int got = 0;
    assert_int_equal(hf_signal_create(loop, SIGUSR1, on_signal, &got, &s), 0);
    raise(SIGUSR1);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(got, SIGUSR1);
    hf_signal_destroy(s);
}

static void on_io(void *arg, unsigned events)
{
    *(unsigned *)arg |= events;
    hf_loop_stop(loop);
}

static void io(void **state)
{
    (void)state;
    int p[2];
    unsigned r_got = 0, w_got = 0;
    struct hf_io *r, *w;
    assert_int_equal(pipe(p), 0);
    assert_int_equal(hf_io_create(loop, p[0], HF_IO_READ, on_io, &r_got, &r), 0);
    assert_int_equal(hf_io_create(loop, p[1], 0, on_io, &w_got, &w), 0);
    hf_io_set(w, HF_IO_WRITE);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(r_got, 0);
    assert_int_equal(w_got, HF_IO_WRITE);
    hf_io_set(w, 0);
    w_got = 0;
    assert_int_equal(write(p[1], "x", 1), 1);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(r_got, HF_IO_READ);
    assert_int_equal(w_got, 0);
    hf_io_destroy(r);
    hf_io_destroy(w);
    close(p[0]);
    close(p[1]);
}

/* ---- datagrams ---- */

struct seen {
    struct hf_udp *close_me;
    int n, stop_at;
    size_t len;
    struct hf_addr from;
};

static void on_datagram(void *arg, const struct hf_addr *from, struct hf_slice data)
{
    struct seen *s = arg;
    s->n++;
    s->len = data.n;
    s->from = *from;
    if (s->close_me) {
        hf_udp_close(s->close_me);
        s->close_me = NULL;
    }
    if (s->n >= s->stop_at) {
        hf_loop_stop(loop);
    }
}

static struct hf_udp_opt options(const char *bind, const char *group)
{
    struct hf_udp_opt o = {.loop = true};
    assert_int_equal(hf_addr_parse(bind, 0, NULL, &o.bind), 0);
    if (group) {
        strcpy(o.interface, "lo");
        assert_int_equal(hf_addr_parse(group, 0, NULL, &o.group), 0);
    }
    return o;
}

static void unicast(void **state)
{
    (void)state;
    struct seen seen = {.stop_at = 101};
    struct hf_udp *a, *b;
    struct hf_udp_opt o = options("127.0.0.1", NULL);
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, &seen, NULL, &a), 0);
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, &seen, NULL, &b), 0);
    struct hf_addr to;
    assert_int_equal(hf_addr_parse("127.0.0.1", hf_udp_port(b), NULL, &to), 0);
    static uint8_t big[HF_ADVERT_LEN_MAX + 1];
    assert_int_equal(hf_udp_send(a, NULL, hf_slice(big, 1)), -EDESTADDRREQ);
    assert_int_equal(hf_udp_send(a, &to, hf_slice(big, sizeof(big))), 0);
    for (int i = 0; i < 100; i++) { /* more than a batch */
        assert_int_equal(hf_udp_send(a, &to, hf_slice(big, 10)), 0);
    }
    assert_int_equal(hf_udp_send(a, &to, hf_slice(big, sizeof(big) - 1)), 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(seen.len, sizeof(big) - 1);
    assert_int_equal(hf_addr_to_endpoint(&seen.from).port, hf_udp_port(a));
    const struct hf_udp_counters *c = hf_udp_counters(b);
    assert_int_equal(c->received, 101);
    assert_int_equal(c->oversized, 1);
    assert_int_equal(hf_udp_counters(a)->sent, 102);
    hf_udp_close(a);
    hf_udp_close(b);
    hf_udp_close(NULL);
}

static void closed_in_callback(void **state)
{
    (void)state;
    struct seen seen = {.stop_at = 1};
    struct hf_udp *a, *b;
    struct hf_udp_opt o = options("127.0.0.1", NULL);
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, &seen, NULL, &a), 0);
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, &seen, NULL, &b), 0);
    seen.close_me = b;
    struct hf_addr to;
    assert_int_equal(hf_addr_parse("127.0.0.1", hf_udp_port(b), NULL, &to), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hf_udp_send(a, &to, hf_slice("x", 1)), 0);
    }
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(seen.n, 1);
    hf_udp_close(a);
}

static void group_of(const char *bind, const char *group)
{
    struct seen seen = {.stop_at = 2}; /* both members get it, the sender too */
    struct hf_udp *a, *b;
    struct hf_udp_opt o = options(bind, group);
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, &seen, NULL, &a), 0);
    struct hf_endpoint e = hf_addr_to_endpoint(&o.bind);
    e.port = hf_udp_port(a);
    o.bind = hf_addr_from_endpoint(&e);
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, &seen, NULL, &b), 0);
    assert_int_equal(hf_udp_send(a, NULL, hf_slice("hello", 5)), 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(hf_udp_counters(b)->received, 1);
    hf_udp_close(a);
    hf_udp_close(b);
}

static void multicast(void **state)
{
    (void)state;
    group_of("0.0.0.0", "239.255.77.77");

    /* the kernel has no IPv6 multicast route on lo: membership is what can be seen everywhere */
    struct hf_udp *u;
    struct hf_udp_opt o = options("::", "ff02::4846");
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, NULL, NULL, &u), 0);
    FILE *f = fopen("/proc/net/igmp6", "r");
    char line[200];
    int joined = 0;
    while (f && fgets(line, sizeof(line), f)) {
        joined += strstr(line, "lo ") && strstr(line, "ff020000000000000000000000004846");
    }
    assert_int_equal(joined, 1);
    fclose(f);
    hf_udp_close(u);
}

static void refused_with_a_reason(void **state)
{
    (void)state;
    struct hf_udp *u;
    struct hf_err err;
    struct hf_udp_opt o = options("127.0.0.1", NULL);
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, NULL, &err, &u), 0);
    struct hf_endpoint e = hf_addr_to_endpoint(&o.bind);
    e.port = hf_udp_port(u);
    struct hf_udp *second;
    o.bind = hf_addr_from_endpoint(&e);
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, NULL, &err, &second), -EADDRINUSE);
    assert_non_null(strstr(err.text, "127.0.0.1"));
    hf_udp_close(u);
    o = options("192.0.2.1", NULL);
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, NULL, &err, &u), -EADDRNOTAVAIL);
    o = options("0.0.0.0", "10.0.0.1");
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, NULL, &err, &u), -HF_ECONFIG);
    o = options("0.0.0.0", "ff02::1");
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, NULL, &err, &u), -HF_ECONFIG);
    o = options("0.0.0.0", "239.1.1.1");
    strcpy(o.interface, "nosuch");
    assert_int_equal(hf_udp_open(loop, &o, on_datagram, NULL, &err, &u), -HF_ECONFIG);
    assert_non_null(strstr(err.text, "nosuch"));
}

#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(timers_in_order),
        LOOP_TEST(stop_before_run),
        LOOP_TEST(signals),
        LOOP_TEST(io),
        LOOP_TEST(unicast),
        LOOP_TEST(multicast),
        LOOP_TEST(closed_in_callback),
        LOOP_TEST(refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
