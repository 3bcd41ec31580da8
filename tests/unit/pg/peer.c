/*
 * pg/peer over loopback with a real loop: who is let in, bytes both ways, all the ways in which a
 * connection ends, and who closes what in which callback.
 */
#include "pg/peer.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "os/loop.h"
#include "support/test.h"

#define PERIOD 251 /* of the bytes that are sent */
#define SLICE_MAX (1u << 20)

static const struct hf_key key = {.b = {1, 2, 3}}, other_key = {.b = {1, 2, 4}};
static struct hf_loop *loop;
static struct hf_poll *poll;
static struct hf_timer *guard;
static uint8_t pattern[SLICE_MAX + PERIOD];

enum { BY_HAND, CLOSE, FLUSH, CLOSE_ALL };

/* A manager; what it does in its callbacks. */
struct host {
    struct hf_pg_peers *all;
    struct hf_pg_peer *p; /* opened last, or being connected */
    char peer[64], why[160], story[32];
    unsigned n_opened, n_closed, n_room;
    uint64_t sent, to_send, received;
    size_t slice; /* given at once */
    unsigned pings;
    bool wrong;
    int in_opened, in_bytes, in_room, in_closed;
};
static struct host alpha, beta;

static void tell(struct host *h, char c)
{
    size_t n = strlen(h->story);
    if (n + 1 < sizeof(h->story)) {
        h->story[n] = c;
    }
}

static void act(struct host *h, struct hf_pg_peer *p, int what)
{
    if (what == CLOSE || what == FLUSH) {
        h->p = NULL;
        hf_pg_peer_close(p, what == FLUSH);
    } else if (what == CLOSE_ALL) {
        h->p = NULL;
        hf_pg_peers_close(h->all);
        h->all = NULL;
    }
}

/* Send until there is no room. */
static void pump(struct host *h)
{
    while (h->p && h->sent < h->to_send) {
        uint64_t left = h->to_send - h->sent;
        size_t n = left < h->slice ? (size_t)left : h->slice;
        size_t k = hf_pg_peer_send(h->p, hf_slice(pattern + h->sent % PERIOD, n));
        assert_true(k <= n);
        h->sent += k;
        if (k < n) {
            return;
        }
    }
}

static void on_opened(void *arg, struct hf_pg_peer *p, const char *name)
{
    struct host *h = arg;
    tell(h, 'o');
    h->n_opened++;
    h->p = p;
    snprintf(h->peer, sizeof(h->peer), "%s", name);
    pump(h);
    act(h, p, h->in_opened);
}

static void on_bytes(void *arg, struct hf_pg_peer *p, struct hf_slice bytes)
{
    struct host *h = arg;
    h->wrong |= memcmp(bytes.p, pattern + h->received % PERIOD, bytes.n) != 0;
    h->received += bytes.n;
    if (h->pings > 0) {
        h->pings--;
        h->to_send += 100;
        pump(h);
    }
    act(h, p, h->in_bytes);
}

static void on_room(void *arg, struct hf_pg_peer *p)
{
    struct host *h = arg;
    h->n_room++;
    pump(h);
    act(h, p, h->in_room);
}

static void on_closed(void *arg, struct hf_pg_peer *p, const char *why)
{
    struct host *h = arg;
    tell(h, 'c');
    h->n_closed++;
    snprintf(h->why, sizeof(h->why), "%s", why);
    if (h->p == p) {
        h->p = NULL;
    }
    if (h->in_closed == CLOSE_ALL) {
        act(h, p, CLOSE_ALL);
    }
}

static const struct hf_pg_peer_ops ops = {
    .opened = on_opened, .bytes = on_bytes, .room = on_room, .closed = on_closed};

/* ---- the loop ---- */

static void after_turn(void *arg)
{
    (void)arg;
    hf_loop_stop(loop);
}

static void on_guard(void *arg)
{
    (void)arg;
    fail_msg("nothing happens any more");
}

#define until(condition)                                                                           \
    do {                                                                                           \
        hf_timer_set(guard, hf_now() + HF_S(30));                                                  \
        while (!(condition)) {                                                                     \
            assert_int_equal(hf_loop_run(loop), 0);                                                \
        }                                                                                          \
    } while (0)

static struct hf_addr loopback(uint16_t port)
{
    struct hf_addr a;
    assert_int_equal(hf_addr_parse("127.0.0.1", port, NULL, &a), 0);
    return a;
}

static void open_host(struct host *h, const char *name, const struct hf_key *k, bool listens)
{
    struct hf_addr any = loopback(0);
    struct hf_pg_peers_options o = {.poll = poll,
                                    .key = k,
                                    .host = name,
                                    .listen = listens ? &any : NULL,
                                    .ops = &ops,
                                    .arg = h};
    *h = (struct host){.slice = SLICE_MAX};
    assert_int_equal(hf_pg_peers_open(&o, NULL, &h->all), 0);
}

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pattern); i++) {
        pattern[i] = (uint8_t)(i % PERIOD);
    }
    assert_int_equal(hf_loop_create(&loop), 0);
    assert_int_equal(hf_poll_create(loop, after_turn, NULL, &poll), 0);
    assert_int_equal(hf_timer_create(loop, on_guard, NULL, &guard), 0);
    open_host(&alpha, "alpha", &key, false);
    open_host(&beta, "beta", &key, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hf_pg_peers_close(alpha.all);
    hf_pg_peers_close(beta.all);
    hf_timer_destroy(guard);
    hf_poll_destroy(poll);
    hf_loop_destroy(loop);
    return 0;
}

static void call(struct host *h, const char *name, uint16_t port)
{
    struct hf_addr to = loopback(port);
    assert_int_equal(hf_pg_peer_connect(h->all, name, &to, &h->p), 0);
}

static void connect_both(void)
{
    call(&alpha, "beta", hf_pg_peers_port(beta.all));
    until(alpha.n_opened > 0 && beta.n_opened > 0);
}

/* ---- sockets of the test: a client that says nothing, a wire that can be cut ---- */

static int listen_raw(uint16_t *ret_port)
{
    struct hf_addr a = loopback(0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a.ss, a.len), 0);
    assert_int_equal(listen(fd, 8), 0);
    a.len = sizeof(a.ss);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a.ss, &a.len), 0);
    *ret_port = hf_addr_to_endpoint(&a).port;
    return fd;
}

static int connect_raw(uint16_t port)
{
    struct hf_addr a = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a.ss, a.len), 0);
    return fd;
}

static bool ended(int fd)
{
    char c[256];
    ssize_t n = recv(fd, c, sizeof(c), MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

/* Passes on what comes from alpha [0] to beta [1] and back; forwards: bytes from alpha, at most. */
static struct {
    struct hf_poll_io listener, io[2];
    uint16_t port;
    size_t forwards;
} wire;

static void on_wire(struct hf_poll_io *io, unsigned ready)
{
    static char buf[65536];
    (void)ready;
    int i = io == &wire.io[1];
    ssize_t n = recv(io->fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n <= 0) {
        hf_poll_want(poll, io, 0);
        return;
    }
    if (i == 0) {
        n = (size_t)n < wire.forwards ? n : (ssize_t)wire.forwards;
        wire.forwards -= (size_t)n;
    }
    assert_int_equal(send(wire.io[!i].fd, buf, (size_t)n, MSG_NOSIGNAL), n);
}

static void on_wire_accept(struct hf_poll_io *io, unsigned ready)
{
    (void)ready;
    int a = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC);
    int b = connect_raw(hf_pg_peers_port(beta.all));
    assert_true(a >= 0);
    assert_int_equal(hf_poll_add(poll, &wire.io[0], a, HF_POLL_READ, on_wire), 0);
    assert_int_equal(hf_poll_add(poll, &wire.io[1], b, HF_POLL_READ, on_wire), 0);
}

static void wire_open(size_t forwards)
{
    int fd = listen_raw(&wire.port);
    wire.forwards = forwards;
    wire.io[0].fd = wire.io[1].fd = -1;
    assert_int_equal(hf_poll_add(poll, &wire.listener, fd, HF_POLL_READ, on_wire_accept), 0);
    call(&alpha, "beta", wire.port);
}

static void drop(struct hf_poll_io *io, bool reset)
{
    struct linger linger = {.l_onoff = reset, .l_linger = 0};
    int fd = io->fd;
    if (fd >= 0) {
        hf_poll_remove(poll, io);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        close(fd);
    }
}

static void wire_cut(bool reset)
{
    drop(&wire.io[0], reset);
    drop(&wire.io[1], reset);
    drop(&wire.listener, false);
}

/* ---- tests ---- */

static void names_are_authenticated(void **state)
{
    (void)state;
    connect_both();
    assert_string_equal(alpha.peer, "beta");
    assert_string_equal(beta.peer, "alpha");
    assert_true(hf_pg_peer_is_ours(alpha.p));
    assert_false(hf_pg_peer_is_ours(beta.p));
    alpha.to_send = 5;
    pump(&alpha);
    until(beta.received == 5);
    assert_int_equal(hf_pg_peers_port(alpha.all), 0);
}

static void who_is_not_let_in(void **state)
{
    (void)state;
    struct hf_addr to = loopback(hf_pg_peers_port(beta.all));
    assert_int_equal(hf_pg_peer_connect(alpha.all, "alpha", &to, &alpha.p), -HF_ENAME);
    call(&alpha, "gamma", hf_pg_peers_port(beta.all)); /* somebody else is there */
    until(alpha.n_closed == 1);
    assert_non_null(strstr(alpha.why, "not authenticated"));
    struct host stranger;
    open_host(&stranger, "alpha", &other_key, false);
    call(&stranger, "beta", hf_pg_peers_port(beta.all));
    until(stranger.n_closed == 1);
    assert_non_null(strstr(stranger.why, "not authenticated"));
    hf_pg_peers_close(stranger.all);
    int fd = connect_raw(hf_pg_peers_port(beta.all));
    assert_int_equal(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    until(ended(fd));
    close(fd);
    assert_int_equal(alpha.n_opened + beta.n_opened + beta.n_closed, 0); /* nobody's business */
    connect_both();
}

static void what_can_not_be_opened(void **state)
{
    (void)state;
    struct hf_addr taken = loopback(hf_pg_peers_port(beta.all)), nowhere;
    struct hf_pg_peers_options o = {
        .poll = poll, .key = &key, .host = "Not a host", .ops = &ops, .arg = NULL};
    struct hf_err err = {0};
    struct hf_pg_peers *all;
    assert_int_equal(hf_pg_peers_open(&o, &err, &all), -HF_ENAME);
    assert_non_null(strstr(err.text, "Not a host"));
    o.host = "gamma";
    o.listen = &taken;
    assert_int_equal(hf_pg_peers_open(&o, &err, &all), -EADDRINUSE);
    assert_non_null(strstr(err.text, "127.0.0.1:"));
    uint16_t port;
    close(listen_raw(&port));
    nowhere = loopback(port);
    int rc = hf_pg_peer_connect(alpha.all, "beta", &nowhere, &alpha.p);
    if (rc == 0) {
        until(alpha.n_closed == 1);
        assert_string_equal(alpha.why, hf_strerror(-ECONNREFUSED));
    } else {
        assert_int_equal(rc, -ECONNREFUSED);
    }
    hf_pg_peers_close(NULL);
}

static void without_memory(void **state)
{
    (void)state;
    struct hf_addr any = loopback(0), to = loopback(hf_pg_peers_port(beta.all));
    struct hf_pg_peers_options o = {
        .poll = poll, .key = &key, .host = "gamma", .listen = &any, .ops = &ops, .arg = &alpha};
    struct hf_pg_peers *all = NULL;
    struct hf_pg_peer *p = NULL;
    for (int n = 0; !all; n++) {
        hf_mem_fail_after(n);
        int rc = hf_pg_peers_open(&o, NULL, &all);
        hf_mem_fail_after(-1);
        assert_true(rc == 0 || (rc == -ENOMEM && n < 10));
    }
    for (int n = 0; !p; n++) {
        hf_mem_fail_after(n);
        int rc = hf_pg_peer_connect(all, "beta", &to, &p);
        hf_mem_fail_after(-1);
        assert_true(rc == 0 || (rc == -ENOMEM && n < 10));
    }
    until(beta.n_opened == 1);
    hf_pg_peers_close(all);
}

static void megabytes_both_ways(void **state)
{
    (void)state;
    alpha.to_send = beta.to_send = 24u << 20;
    connect_both();
    until(alpha.received == beta.to_send && beta.received == alpha.to_send);
    assert_false(alpha.wrong || beta.wrong);
    assert_true(alpha.n_room > 0 && beta.n_room > 0);
}

static void small_messages_there_and_back(void **state)
{
    (void)state;
    connect_both();
    alpha.pings = beta.pings = 1000;
    alpha.to_send = 100;
    pump(&alpha);
    until(beta.received == 100100 && alpha.received == 100000);
    assert_false(alpha.wrong || beta.wrong);
    assert_int_equal(alpha.n_room + beta.n_room, 0);
}

/* More records than one key is for. */
static void keys_are_changed(void **state)
{
    (void)state;
    alpha.slice = 1;
    alpha.to_send = 140000;
    connect_both();
    until(beta.received == alpha.to_send);
    beta.to_send = 10;
    pump(&beta);
    until(alpha.received == 10);
    assert_false(alpha.wrong || beta.wrong);
}

/* More of them than are read at once, and the end right behind: OpenSSL has read ahead what the
 * socket does not tell again. */
static void many_records_and_the_end(void **state)
{
    (void)state;
    connect_both();
    alpha.slice = 10;
    alpha.to_send = 10 * 400;
    pump(&alpha);
    assert_int_equal(alpha.sent, alpha.to_send);
    hf_pg_peer_close(alpha.p, true);
    alpha.p = NULL;
    until(beta.n_closed == 1);
    assert_int_equal(beta.received, alpha.sent);
    assert_false(beta.wrong);
    assert_string_equal(beta.why, "closed by the other side");
}

static void nothing_is_taken_before_it_is_open(void **state)
{
    (void)state;
    call(&alpha, "beta", hf_pg_peers_port(beta.all));
    assert_int_equal(hf_pg_peer_send(alpha.p, hf_slice_str("early")), 0);
    until(alpha.n_opened == 1 && beta.n_opened == 1);
    assert_int_equal(beta.received, 0);
}

static void a_cut_wire(void **state)
{
    (void)state;
    for (int reset = 0; reset < 2; reset++) {
        alpha.n_opened = beta.n_opened = alpha.n_closed = beta.n_closed = 0;
        wire_open(SIZE_MAX);
        until(alpha.n_opened == 1 && beta.n_opened == 1);
        wire_cut(reset == 1);
        until(alpha.n_closed == 1 && beta.n_closed == 1);
        const char *why = reset ? hf_strerror(-ECONNRESET) : "closed by the other side";
        assert_string_equal(alpha.why, why);
        assert_string_equal(beta.why, why);
        assert_null(alpha.p);
    }
}

/* Lost while it is being used: what send says, and that it is told once, later. */
static void lost_in_send(void **state)
{
    (void)state;
    wire_open(SIZE_MAX);
    until(alpha.n_opened == 1 && beta.n_opened == 1);
    wire_cut(true);
    struct hf_pg_peer *p = alpha.p;
    size_t n = 1;
    for (int i = 0; i < 100 && n > 0; i++) {
        n = hf_pg_peer_send(p, hf_slice_str("x"));
    }
    assert_int_equal(n, 0);
    assert_int_equal(hf_pg_peer_send(p, hf_slice_str("x")), 0);
    assert_int_equal(alpha.n_closed, 0);
    until(alpha.n_closed == 1 && beta.n_closed == 1);
}

static void who_says_nothing_is_given_up(void **state)
{
    (void)state;
    uint16_t port;
    int server = listen_raw(&port), client = connect_raw(hf_pg_peers_port(beta.all));
    call(&alpha, "beta", port); /* connected by the kernel, and nothing more */
    until(alpha.n_closed == 1 && ended(client));
    assert_string_equal(alpha.why, "no TLS handshake in 2 s");
    close(server);
    close(client);
    wire_open(100); /* half of a hello */
    until(alpha.n_closed == 2);
    assert_int_equal(alpha.n_opened + beta.n_opened + beta.n_closed, 0);
    wire_cut(false);
}

static void a_newer_connection_ends_the_older(void **state)
{
    (void)state;
    connect_both();
    struct host again;
    open_host(&again, "alpha", &key, false);
    call(&again, "beta", hf_pg_peers_port(beta.all));
    until(beta.n_opened == 2 && alpha.n_closed == 1 && again.n_opened == 1);
    assert_string_equal(beta.story, "oco");
    assert_string_equal(beta.why, "the host has connected anew");
    again.to_send = 10;
    pump(&again);
    until(beta.received == 10);
    /* its own connections count apart */
    assert_int_equal(again.n_closed, 0);
    hf_pg_peers_close(again.all);
}

static void strangers_do_not_keep_others_out(void **state)
{
    (void)state;
    int fd[20];
    for (size_t i = 0; i < HF_ARRAY_LEN(fd); i++) {
        fd[i] = connect_raw(hf_pg_peers_port(beta.all));
    }
    connect_both();
    size_t n_ended = 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(fd); i++) {
        n_ended += ended(fd[i]);
        close(fd[i]);
    }
    assert_true(n_ended >= 13);
    assert_int_equal(beta.n_closed, 0);
}

static void no_more_than_eight(void **state)
{
    (void)state;
    struct host h[9];
    for (int i = 0; i < 9; i++) {
        char name[8];
        snprintf(name, sizeof(name), "host%d", i);
        open_host(&h[i], name, &key, false);
        call(&h[i], "beta", hf_pg_peers_port(beta.all));
        until(i < 8 ? h[i].n_opened == 1 && beta.n_opened == (unsigned)i + 1 : h[i].n_closed == 1);
    }
    assert_int_equal(beta.n_opened, 8);
    for (int i = 0; i < 9; i++) {
        hf_pg_peers_close(h[i].all);
    }
    until(beta.n_closed == 8);
}

/* What was taken arrives though there is more to read on this side, which nobody does. */
static void closed_when_all_is_sent(void **state)
{
    (void)state;
    connect_both();
    alpha.to_send = beta.to_send = 64u << 20;
    pump(&beta);
    pump(&alpha);
    assert_true(alpha.sent < alpha.to_send);
    beta.to_send = 0;
    hf_pg_peer_close(alpha.p, true);
    alpha.p = NULL;
    until(beta.n_closed == 1);
    assert_int_equal(beta.received, alpha.sent);
    assert_false(beta.wrong);
    assert_int_equal(alpha.n_closed, 0);
}

static unsigned n_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

/* ... and not for ever if the other side takes nothing. */
static void a_flush_has_an_end(void **state)
{
    (void)state;
    wire_open(SIZE_MAX);
    until(alpha.n_opened == 1 && beta.n_opened == 1);
    hf_poll_want(poll, &wire.io[0], 0);
    alpha.to_send = 64u << 20;
    pump(&alpha);
    assert_true(alpha.sent < alpha.to_send);
    unsigned before = n_fds();
    hf_pg_peer_close(alpha.p, true);
    alpha.p = NULL;
    assert_int_equal(n_fds(), before);
    until(n_fds() == before - 1);
    wire_cut(false);
}

static void anything_may_be_closed_in_any_callback(void **state)
{
    (void)state;
    for (int what = CLOSE; what <= CLOSE_ALL; what++) {
        for (int where = 0; where < 4; where++) {
            struct host h;
            open_host(&h, "gamma", &key, false);
            beta = (struct host){.all = beta.all, .slice = SLICE_MAX};
            h.in_opened = where == 0 ? what : BY_HAND;
            h.in_bytes = where == 1 ? what : BY_HAND;
            h.in_room = where == 2 ? what : BY_HAND;
            h.in_closed = where == 3 ? what : BY_HAND;
            beta.to_send = where == 1 ? 1u << 20 : 0;
            h.to_send = where == 2 ? 24u << 20 : 0;
            call(&h, "beta", hf_pg_peers_port(beta.all));
            until(beta.n_opened == 1 && (where == 0 || h.n_opened == 1));
            if (where == 3) {
                hf_pg_peer_close(beta.p, false);
                until(h.n_closed == 1);
            } else {
                until(beta.n_closed == 1);
                assert_int_equal(h.n_closed, 0);
            }
            assert_true((h.all == NULL) == (what == CLOSE_ALL));
            hf_pg_peers_close(h.all);
        }
    }
}

static void closed_before_it_is_open(void **state)
{
    (void)state;
    call(&alpha, "beta", hf_pg_peers_port(beta.all));
    hf_pg_peer_close(alpha.p, true);
    call(&alpha, "beta", hf_pg_peers_port(beta.all));
    hf_pg_peers_close(alpha.all);
    open_host(&alpha, "alpha", &key, false);
    connect_both();
    assert_int_equal(alpha.n_closed, 0);
}

#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(names_are_authenticated),
        LOOP_TEST(who_is_not_let_in),
        LOOP_TEST(what_can_not_be_opened),
        LOOP_TEST(without_memory),
        LOOP_TEST(megabytes_both_ways),
        LOOP_TEST(small_messages_there_and_back),
        LOOP_TEST(keys_are_changed),
        LOOP_TEST(many_records_and_the_end),
        LOOP_TEST(nothing_is_taken_before_it_is_open),
        LOOP_TEST(a_cut_wire),
        LOOP_TEST(lost_in_send),
        LOOP_TEST(who_says_nothing_is_given_up),
        LOOP_TEST(a_newer_connection_ends_the_older),
        LOOP_TEST(strangers_do_not_keep_others_out),
        LOOP_TEST(no_more_than_eight),
        LOOP_TEST(closed_when_all_is_sent),
        LOOP_TEST(a_flush_has_an_end),
        LOOP_TEST(anything_may_be_closed_in_any_callback),
        LOOP_TEST(closed_before_it_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
