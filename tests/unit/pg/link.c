/* Links: what was let out and met a full socket goes when there is room; what was drained is
 * offered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/loop.h"
#include "pg/link.h"

struct rig {
    struct hf_loop *loop;
    struct hf_pg_memory memory;
    struct hf_pg_wire *wire;
    struct hf_pg_link link;
    int peer;
    size_t want, came;
    struct hf_io *io;
    struct hf_timer *guard;
};

static void on_guard(void *arg)
{
    (void)arg;
    fail_msg("nothing goes on");
}

static size_t on_bytes(struct hf_pg_link *l, struct hf_slice bytes)
{
    struct rig *r = HF_CONTAINER_OF(l, struct rig, link);
    r->came += bytes.n;
    hf_loop_stop(r->loop);
    return bytes.n;
}

static void on_room(struct hf_pg_link *l)
{
    (void)l;
}

static void on_gone(struct hf_pg_link *l, const char *why)
{
    (void)l;
    fail_msg("gone: %s", why);
}

static const struct hf_pg_link_ops ops = {.bytes = on_bytes, .room = on_room, .gone = on_gone};

/* Whatever has come at the other side; at the last byte the loop ends. */
static void on_peer(void *arg, unsigned events)
{
    struct rig *r = arg;
    static char buf[65536];
    ssize_t n;
    (void)events;
    while ((n = recv(r->peer, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        assert_true((size_t)n <= r->want);
        r->want -= (size_t)n;
    }
    if (r->want == 0) {
        hf_loop_stop(r->loop);
    }
}

static void begin(struct rig *r)
{
    int fds[2];
    memset(r, 0, sizeof(*r));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    r->peer = fds[1];
    assert_int_equal(hf_loop_create(&r->loop), 0);
    assert_int_equal(hf_timer_create(r->loop, on_guard, r, &r->guard), 0);
    hf_timer_set(r->guard, hf_now() + HF_S(20));
    assert_int_equal(hf_pg_wire_create(r->loop, &r->memory, &r->wire), 0);
    assert_int_equal(hf_pg_link_init(&r->link, r->wire, fds[0], false, &ops), 0);
}

static void end(struct rig *r)
{
    hf_pg_link_fini(&r->link);
    hf_io_destroy(r->io);
    hf_timer_destroy(r->guard);
    hf_pg_wire_destroy(r->wire);
    hf_loop_destroy(r->loop);
    close(r->peer);
}

/* A client that reads slowly, just when a batch is confirmed. */
static void let_into_a_full_socket(void **state)
{
    static const char bytes[4096] = {'x'};
    struct rig r;
    (void)state;
    begin(&r);
    while (send(r.link.fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0 ||
           send(r.link.fd, bytes, 1, MSG_DONTWAIT) > 0) {
    }
    assert_int_equal(errno, EAGAIN);
    hf_pg_link_hold(&r.link);
    hf_pg_link_send(&r.link, hf_slice(bytes, sizeof(bytes)));
    hf_pg_wire_flush(r.wire);
    assert_int_equal(hf_pg_link_unsealed(&r.link).n, sizeof(bytes));
    hf_pg_link_let(&r.link, hf_pg_link_seal(&r.link));
    assert_int_equal(hf_pg_link_may_go(&r.link), sizeof(bytes));

    static char all[65536];
    while (recv(r.peer, all, sizeof(all), MSG_DONTWAIT) > 0) { /* there is room again */
    }
    r.want = sizeof(bytes);
    assert_int_equal(hf_io_create(r.loop, r.peer, HF_IO_READ, on_peer, &r, &r.io), 0);
    assert_int_equal(hf_loop_run(r.loop), 0);
    assert_int_equal(r.want, 0);
    assert_int_equal(hf_pg_link_waiting(&r.link), 0);
    end(&r);
}

/* Nobody else asks for it: a login that was under way when a backup joined would have waited in
 * vain. */
static void drained_is_offered(void **state)
{
    struct rig r;
    (void)state;
    begin(&r);
    assert_int_equal(send(r.peer, "half", 4, 0), 4);
    hf_pg_link_drain(&r.link);
    assert_int_equal(r.came, 0);
    assert_int_equal(r.link.n_received, 4);
    assert_int_equal(hf_loop_run(r.loop), 0);
    assert_int_equal(r.came, 4);
    end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(let_into_a_full_socket),
        cmocka_unit_test(drained_is_offered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
