/* Tests of sip/wire over loopback: batches, framing, keep-alives, reuse, limits, TLS, IPv6. */
#include "sip/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "os/addr.h"
#include "os/loop.h"
#include "test.h"

#define REQUEST                                                                                    \
    "OPTIONS sip:a@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK1\r\n"        \
    "From: <sip:b@example.org>;tag=1\r\nTo: <sip:a@example.org>\r\nCall-ID: c\r\n"                 \
    "CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
#define ANSWER "SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"
#define LIMIT HF_S(30)

/* One side: sockets, and what came over them. `answers`: says ANSWER to each request. */
struct side {
    struct hf_sip_wire *wire;
    struct hf_poll *poll;
    bool answers, refuses;
    size_t n_messages, n_closed;
    enum hf_sip_fault fault;
    struct hf_sip_flow from, closed;
    char last[512];
    const char *name;
};
static struct hf_loop *loop;
static struct side a, b;
static struct hf_timer *tick;
static char tls_dir[64];

static bool on_message(void *arg, struct hf_slice text, enum hf_sip_fault fault,
                       const struct hf_sip_flow *from)
{
    struct side *s = arg;
    s->n_messages++;
    s->fault = fault;
    s->from = *from;
    snprintf(s->last, sizeof(s->last), "%.*s", HF_SLICE_FMT(text));
    if (s->answers) {
        hf_sip_wire_send(s->wire, from, hf_slice_str(ANSWER));
    }
    return !s->refuses;
}

static void on_closed(void *arg, const struct hf_sip_flow *flow)
{
    struct side *s = arg;
    s->n_closed++;
    s->closed = *flow;
}

static const char *server_name(void *arg, const struct hf_endpoint *peer)
{
    (void)peer;
    return ((struct side *)arg)->name;
}

static void after(void *arg)
{
    struct side *s = arg;
    if (s->wire) {
        hf_sip_wire_flush(s->wire);
    }
}

static void on_tick(void *arg)
{
    (void)arg;
    hf_loop_stop(loop);
}

static void open_side(struct side *s, const struct hf_sip_wire_conf *conf)
{
    static const struct hf_sip_wire_events events = {
        .message = on_message, .closed = on_closed, .server_name = server_name};
    struct hf_err err = {0};
    assert_int_equal(hf_poll_create(loop, after, s, &s->poll), 0);
    int rc = hf_sip_wire_open(s->poll, conf, &events, s, &err, &s->wire);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
}

static void close_side(struct side *s)
{
    if (s->poll) {
        hf_sip_wire_close(s->wire);
        hf_poll_destroy(s->poll);
    }
    memset(s, 0, sizeof(*s));
}

static int setup(void **state)
{
    (void)state;
    a = b = (struct side){.name = ""};
    assert_int_equal(hf_loop_create(&loop), 0);
    assert_int_equal(hf_timer_create(loop, on_tick, NULL, &tick), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close_side(&a);
    close_side(&b);
    hf_timer_destroy(tick);
    hf_loop_destroy(loop);
    return 0;
}

/* One turn of the loop, or a few. */
static void turn(void)
{
    hf_timer_set(tick, hf_now() + HF_MS(2));
    assert_int_equal(hf_loop_run(loop), 0);
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        for (hf_time end_ = hf_now() + LIMIT; !(condition) && hf_now() < end_;) {                  \
            turn();                                                                                \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (0)

static struct hf_endpoint loopback(bool v6)
{
    struct hf_addr addr;
    assert_int_equal(hf_addr_parse(v6 ? "::1" : "127.0.0.1", 0, NULL, &addr), 0);
    return hf_addr_to_endpoint(&addr);
}

static struct hf_sip_place bind_at(uint8_t transport, bool v6)
{
    return (struct hf_sip_place){.transport = transport, .at = loopback(v6)};
}

static int connect_to(int type, const struct hf_endpoint *at)
{
    struct hf_addr to = hf_addr_from_endpoint(at);
    int fd = socket(to.ss.ss_family, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to.ss, to.len), 0);
    return fd;
}

/* Bytes that came, up to n; what there is when nothing more comes for a moment and there is some.
 */
static size_t receive(int fd, char *buf, size_t n)
{
    size_t got = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (hf_time end = hf_now() + LIMIT; got < n && hf_now() < end;) {
        turn();
        if (poll(&p, 1, 0) == 1) {
            ssize_t k = recv(fd, buf + got, n - got, 0);
            if (k <= 0) {
                break;
            }
            got += (size_t)k;
        }
    }
    return got;
}

static void send_all(int fd, const char *s)
{
    assert_int_equal(send(fd, s, strlen(s), MSG_NOSIGNAL), strlen(s));
}

static bool at_end(int fd)
{
    char c;
    turn();
    ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* ---- UDP ---- */

static void udp_batch(bool v6, bool any)
{
    struct hf_sip_place bind = bind_at(HF_SIP_TRANSPORT_UDP, v6);
    struct hf_sip_wire_conf conf = {.bind = &bind, .n_binds = 1};
    struct hf_endpoint at = bind.at;
    if (any) {
        memset(bind.at.addr, 0, sizeof(bind.at.addr));
    }
    a.answers = true;
    open_side(&a, &conf);
    at.port = hf_sip_wire_at(a.wire, 0).port;
    assert_int_not_equal(at.port, 0);
    int fd = connect_to(SOCK_DGRAM, &at);
    for (int i = 0; i < 100; i++) {
        send_all(fd, REQUEST);
    }
    send_all(fd, "\r\n\r\n"); /* keep-alives are no messages */
    send_all(fd, "jaK");
    WAIT_FOR(hf_sip_wire_counters(a.wire)->udp_out == 100);
    const struct hf_sip_wire_counters *c = hf_sip_wire_counters(a.wire);
    assert_int_equal(a.n_messages, 100);
    assert_string_equal(a.last, REQUEST);
    assert_memory_equal(a.from.local.addr, at.addr, 16); /* also of one that is bound to all */
    assert_int_equal(a.from.local.port, at.port);
    WAIT_FOR(c->udp_in == 102);
    assert_int_equal(c->udp_keepalives, 2);
    assert_true(c->udp_batches < 50); /* it was asked while there were many */
    char buf[100];
    for (int i = 0; i < 100; i++) {
        assert_int_equal(recv(fd, buf, sizeof(buf), 0), strlen(ANSWER));
    }
    assert_true(hf_sip_wire_queue(a.wire) < 1000);
    close(fd);
}

static void test_udp(void **state)
{
    (void)state;
    udp_batch(false, false);
}

static void test_udp_any(void **state)
{
    (void)state;
    udp_batch(false, true);
}

static void test_udp_v6(void **state)
{
    (void)state;
    udp_batch(true, true);
}

static void test_udp_unreachable(void **state)
{
    (void)state;
    struct hf_sip_place bind = bind_at(HF_SIP_TRANSPORT_UDP, false);
    struct hf_sip_wire_conf conf = {.bind = &bind, .n_binds = 1};
    open_side(&a, &conf);
    struct hf_sip_flow to = {.transport = HF_SIP_TRANSPORT_UDP, .peer = loopback(true)};
    to.peer.port = 9;
    hf_sip_wire_send(a.wire, &to, hf_slice_str(ANSWER)); /* no socket of IPv6 */
    assert_int_equal(a.n_closed, 0);                     /* not from within */
    hf_sip_wire_flush(a.wire);
    assert_int_equal(a.n_closed, 1);
    assert_true(hf_endpoint_eq(&a.closed.peer, &to.peer));
    assert_int_equal(hf_sip_wire_counters(a.wire)->udp_unreachable, 1);
}

/* ---- TCP ---- */

static struct hf_endpoint open_tcp(struct hf_sip_wire_conf conf)
{
    struct hf_sip_place bind = bind_at(HF_SIP_TRANSPORT_TCP, false);
    conf.bind = &bind;
    conf.n_binds = 1;
    conf.hello = conf.hello ? conf.hello : HF_S(100);
    open_side(&a, &conf);
    return hf_sip_wire_at(a.wire, 0);
}

static void test_tcp_frames(void **state)
{
    (void)state;
    static const char two[] = REQUEST REQUEST;
    char buf[sizeof(ANSWER) * 2];
    a.answers = true;
    struct hf_endpoint at = open_tcp((struct hf_sip_wire_conf){0});
    int fd = connect_to(SOCK_STREAM, &at);
    for (size_t i = 0; i < sizeof(two) - 1; i++) { /* byte by byte */
        assert_int_equal(send(fd, two + i, 1, MSG_NOSIGNAL), 1);
        if (i % 50 == 0) {
            turn();
        }
    }
    size_t n = 2 * strlen(ANSWER);
    assert_int_equal(receive(fd, buf, n), n);
    assert_int_equal(a.n_messages, 2);
    assert_string_equal(a.last, REQUEST);
    for (int i = 0; i < 3; i++) { /* many at once */
        send_all(fd, two);
        assert_int_equal(receive(fd, buf, n), n);
    }
    assert_int_equal(a.n_messages, 8);
    send_all(fd, "\r\n\r\n"); /* RFC 5626 4.4.1 */
    assert_int_equal(receive(fd, buf, 2), 2);
    assert_memory_equal(buf, "\r\n", 2);
    assert_int_equal(hf_sip_wire_counters(a.wire)->pings, 1);
    assert_int_equal(hf_sip_conn_worker(a.from.conn), 0);
    close(fd);
    WAIT_FOR(a.n_closed == 1);
    assert_int_equal(a.closed.conn, a.from.conn);
    hf_sip_wire_send(a.wire, &a.from, hf_slice_str(ANSWER)); /* the number is not used again */
    hf_sip_wire_flush(a.wire);
    assert_int_equal(a.n_closed, 2);
}

static void test_tcp_fault(void **state)
{
    (void)state;
    char buf[sizeof(ANSWER)];
    a.answers = true;
    struct hf_endpoint at = open_tcp((struct hf_sip_wire_conf){0});
    int fd = connect_to(SOCK_STREAM, &at);
    send_all(fd, "OPTIONS sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n" REQUEST);
    assert_int_equal(receive(fd, buf, strlen(ANSWER)), strlen(ANSWER));
    assert_int_equal(a.fault, HF_SIP_FAULT_CONTENT_LENGTH);
    WAIT_FOR(a.n_closed == 1);
    assert_true(at_end(fd));
    assert_int_equal(a.n_messages, 1); /* what was behind it is not looked at */
    assert_int_equal(hf_sip_wire_counters(a.wire)->closed_fault, 1);
    close(fd);

    a.refuses = true; /* the reader's own doubts */
    fd = connect_to(SOCK_STREAM, &at);
    send_all(fd, REQUEST);
    assert_int_equal(receive(fd, buf, strlen(ANSWER)), strlen(ANSWER));
    WAIT_FOR(a.n_closed == 2);
    close(fd);
}

/* Opened when there is none, then used again, both ways. */
static void test_tcp_reuse(void **state)
{
    (void)state;
    struct hf_sip_place bind = bind_at(HF_SIP_TRANSPORT_TCP, false);
    struct hf_sip_wire_conf conf = {.bind = &bind, .n_binds = 1, .worker = 3};
    a.answers = true;
    open_side(&a, &conf);
    conf.worker = 5;
    open_side(&b, &conf);
    struct hf_sip_flow to = {.transport = HF_SIP_TRANSPORT_TCP,
                             .local = hf_sip_wire_at(b.wire, 0),
                             .peer = hf_sip_wire_at(a.wire, 0)};
    hf_sip_wire_send(b.wire, &to, hf_slice_str(REQUEST));
    hf_sip_wire_send(b.wire, &to, hf_slice_str(REQUEST));
    WAIT_FOR(b.n_messages == 2);
    assert_int_equal(a.n_messages, 2);
    assert_int_equal(hf_sip_wire_counters(b.wire)->opened, 1);
    assert_int_equal(hf_sip_conn_worker(a.from.conn), 3);
    assert_int_equal(hf_sip_conn_worker(b.from.conn), 5);
    assert_true(hf_endpoint_eq(&b.from.peer, &to.peer));
    assert_true(hf_endpoint_eq(&b.from.local, &to.local)); /* ours in Via, not the socket's port */
    to.conn = b.from.conn;
    hf_sip_wire_send(b.wire, &to, hf_slice_str(REQUEST));
    WAIT_FOR(b.n_messages == 3);
    assert_int_equal(hf_sip_wire_counters(a.wire)->accepted, 1);

    to.conn = 0; /* nobody listens there */
    to.peer.port = 1;
    hf_sip_wire_send(b.wire, &to, hf_slice_str(REQUEST));
    WAIT_FOR(b.n_closed == 1);
    assert_true(hf_endpoint_eq(&b.closed.peer, &to.peer));
    assert_int_equal(hf_sip_wire_counters(b.wire)->connect_failed, 1);
}

static void test_tcp_idle(void **state)
{
    (void)state;
    char buf[sizeof(ANSWER)];
    a.answers = true;
    struct hf_endpoint at =
        open_tcp((struct hf_sip_wire_conf){.hello = HF_MS(1), .idle = HF_S(100)});
    int silent = connect_to(SOCK_STREAM, &at);
    int used = connect_to(SOCK_STREAM, &at);
    send_all(used, REQUEST);
    assert_int_equal(receive(used, buf, strlen(ANSWER)), strlen(ANSWER));
    WAIT_FOR(a.n_closed == 1); /* a sweep comes each second */
    assert_true(at_end(silent));
    assert_false(at_end(used));
    assert_int_equal(hf_sip_wire_counters(a.wire)->closed_idle, 1);
    close(silent);
    close(used);
}

/* A flood of connections: new ones, who say nothing, make room for each other; used ones go next;
 * those of bindings stay. */
static void test_tcp_room(void **state)
{
    (void)state;
    char buf[sizeof(ANSWER)];
    int fd[8];
    a.answers = true;
    struct hf_endpoint at = open_tcp((struct hf_sip_wire_conf){.conns_max = 3});
    const struct hf_sip_wire_counters *c = hf_sip_wire_counters(a.wire);
    fd[0] = connect_to(SOCK_STREAM, &at); /* has a binding */
    send_all(fd[0], REQUEST);
    assert_int_equal(receive(fd[0], buf, strlen(ANSWER)), strlen(ANSWER));
    hf_sip_wire_keep(a.wire, a.from.conn);
    hf_sip_wire_keep(a.wire, 77); /* none */
    assert_int_equal(c->kept, 1);
    fd[1] = connect_to(SOCK_STREAM, &at); /* is used */
    send_all(fd[1], REQUEST);
    assert_int_equal(receive(fd[1], buf, strlen(ANSWER)), strlen(ANSWER));
    for (int i = 2; i < 8; i++) {
        fd[i] = connect_to(SOCK_STREAM, &at);
        WAIT_FOR(c->accepted == (uint64_t)i + 1);
    }
    WAIT_FOR(c->closed_room == 5); /* five of the six that said nothing */
    assert_int_equal(c->connections, 3);
    assert_false(at_end(fd[0]));
    assert_false(at_end(fd[1]));
    assert_true(at_end(fd[2]));
    assert_false(at_end(fd[7]));
    for (int i = 0; i < 8; i++) {
        close(fd[i]);
    }
    WAIT_FOR(c->connections == 0);
    assert_int_equal(c->kept, 0);
}

static void test_tcp_room_kept(void **state)
{
    (void)state;
    char buf[sizeof(ANSWER)];
    a.answers = true;
    struct hf_endpoint at = open_tcp((struct hf_sip_wire_conf){.conns_max = 1});
    int kept = connect_to(SOCK_STREAM, &at);
    send_all(kept, REQUEST);
    assert_int_equal(receive(kept, buf, strlen(ANSWER)), strlen(ANSWER));
    hf_sip_wire_keep(a.wire, a.from.conn);
    int late = connect_to(SOCK_STREAM, &at);
    WAIT_FOR(hf_sip_wire_counters(a.wire)->refused_room == 1);
    assert_true(at_end(late));
    assert_false(at_end(kept));
    close(kept);
    close(late);
}

/* Who does not read is closed, and no more than out_max is kept for it. */
static void test_tcp_slow(void **state)
{
    (void)state;
    struct hf_endpoint at = open_tcp((struct hf_sip_wire_conf){.out_max = 10000});
    static char big[9000];
    int fd = connect_to(SOCK_STREAM, &at);
    send_all(fd, REQUEST);
    WAIT_FOR(a.n_messages == 1);
    memset(big, 'x', sizeof(big));
    for (int i = 0; i < 100000 && a.n_closed == 0; i++) {
        hf_sip_wire_send(a.wire, &a.from, hf_slice(big, sizeof(big)));
        hf_sip_wire_flush(a.wire);
    }
    assert_int_equal(a.n_closed, 1);
    assert_int_equal(hf_sip_wire_counters(a.wire)->closed_slow, 1);
    close(fd);
}

/* Much that comes at once is answered at once: that is not who leaves it unread. */
static void test_tcp_burst(void **state)
{
    (void)state;
    enum { N = 600 };
    static char requests[N * sizeof(REQUEST)], answers[N * sizeof(ANSWER)];
    size_t n = 0;
    a.answers = true;
    struct hf_endpoint at = open_tcp((struct hf_sip_wire_conf){.out_max = 4096});
    for (int i = 0; i < N; i++) {
        n += (size_t)snprintf(requests + n, sizeof(requests) - n, "%s", REQUEST);
    }
    int fd = connect_to(SOCK_STREAM, &at);
    send_all(fd, requests);
    assert_int_equal(receive(fd, answers, N * strlen(ANSWER)), N * strlen(ANSWER));
    assert_int_equal(hf_sip_wire_counters(a.wire)->closed, 0);
    close(fd);
}

static void test_tcp_stall(void **state)
{
    (void)state;
    struct hf_endpoint at = open_tcp((struct hf_sip_wire_conf){.out_max = 64u << 20, .stall = 1});
    static char big[1 << 20];
    int fd = connect_to(SOCK_STREAM, &at);
    send_all(fd, REQUEST);
    WAIT_FOR(a.n_messages == 1);
    memset(big, 'x', sizeof(big));
    for (int i = 0; i < 32; i++) { /* more than the socket takes */
        hf_sip_wire_send(a.wire, &a.from, hf_slice(big, sizeof(big)));
    }
    hf_sip_wire_flush(a.wire);
    assert_int_equal(a.n_closed, 0);
    WAIT_FOR(a.n_closed == 1);
    assert_int_equal(hf_sip_wire_counters(a.wire)->closed_slow, 1);
    close(fd);
}

/* ---- TLS ---- */

static void run_tool(const char *text)
{
    char command[1024];
    snprintf(command, sizeof(command), "cd %s && { %s; } >/dev/null 2>&1", tls_dir, text);
    assert_int_equal(system(command), 0); /* NOLINT: a test's own text */
}

/* A CA, a server's certificate for "alpha" and 127.0.0.1, a client's, and another CA's. */
static int make_certificates(void **state)
{
    (void)state;
    static const char *const dirs[] = {"/tmp/hf-sip-wire-XXXXXX"};
    snprintf(tls_dir, sizeof(tls_dir), "%s", dirs[0]);
    assert_non_null(mkdtemp(tls_dir));
    run_tool("umask 077;"
             "for ca in ca other; do openssl req -x509 -newkey ec -pkeyopt "
             "ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=$ca -keyout $ca.key -out "
             "$ca.pem || exit 1; done;"
             "make() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "
             "/CN=$1 -keyout $1.key -out $1.csr && echo \"subjectAltName=$3\" >$1.ext && openssl "
             "x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 2 -extfile "
             "$1.ext -out $1.pem; };"
             "make alpha ca DNS:alpha,IP:127.0.0.1 && make beta ca DNS:beta && make mallory other "
             "DNS:mallory");
    return 0;
}

static int drop_certificates(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", tls_dir);
    return system(command); /* NOLINT */
}

static struct hf_tls_context *context(bool server, enum hf_tls_verify verify, const char *who)
{
    char cert[128], key[128], ca[128];
    struct hf_tls_context *c;
    struct hf_err err = {0};
    snprintf(cert, sizeof(cert), "%s/%s.pem", tls_dir, who);
    snprintf(key, sizeof(key), "%s/%s.key", tls_dir, who);
    snprintf(ca, sizeof(ca), "%s/ca.pem", tls_dir);
    struct hf_tls_context_opt o = {.server = server,
                                   .verify = verify,
                                   .cert_file = cert,
                                   .key_file = key,
                                   .ca_file = ca,
                                   .resume = server};
    int rc = hf_tls_context_create(&o, &err, &c);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return c;
}

struct tls_case {
    const char *client, *name;
    bool works, reused; /* reused: the server may send over the client's connection */
};

static void tls_case(const struct tls_case *k)
{
    struct hf_sip_place bind = bind_at(HF_SIP_TRANSPORT_TLS, false);
    struct hf_sip_wire_conf conf = {.bind = &bind, .n_binds = 1};
    struct hf_tls_context *server = context(true, HF_TLS_VERIFY_IF_GIVEN, "alpha");
    struct hf_tls_context *client = context(false, HF_TLS_VERIFY_FULL, k->client);
    conf.hello = conf.connect = HF_S(100); /* slow machines are tested on, too */
    conf.tls_server = server;
    conf.tls_client = client;
    a.answers = true;
    open_side(&a, &conf);
    open_side(&b, &conf);
    b.name = k->name;
    struct hf_sip_flow to = {.transport = HF_SIP_TRANSPORT_TLS, .peer = hf_sip_wire_at(a.wire, 0)};
    hf_sip_wire_send(b.wire, &to, hf_slice_str(REQUEST)); /* waits for the handshake */
    if (!k->works) {
        WAIT_FOR(b.n_closed == 1);
        assert_int_equal(a.n_messages, 0);
        assert_int_equal(
            hf_sip_wire_counters(a.wire)->tls_failed + hf_sip_wire_counters(b.wire)->tls_failed > 0,
            1);
    } else {
        WAIT_FOR(b.n_messages == 1);
        assert_string_equal(b.last, ANSWER);
        struct hf_sip_flow back = {.transport = HF_SIP_TRANSPORT_TLS, .peer = a.from.peer};
        hf_sip_wire_send(a.wire, &back, hf_slice_str(ANSWER));
        if (k->reused) {
            WAIT_FOR(b.n_messages == 2);
        } else { /* to that port a new one is opened, where nobody listens */
            WAIT_FOR(a.n_closed == 1);
            assert_int_equal(b.n_messages, 1);
        }
    }
    close_side(&a);
    close_side(&b);
    hf_tls_context_destroy(server);
    hf_tls_context_destroy(client);
}

static void test_tls_mutual(void **state)
{
    (void)state;
    tls_case(&(struct tls_case){.client = "beta", .name = "alpha", .works = true, .reused = true});
}

static void test_tls_address(void **state)
{
    (void)state;
    tls_case(&(struct tls_case){.client = "beta", .name = "", .works = true, .reused = true});
}

static void test_tls_wrong_name(void **state)
{
    (void)state;
    tls_case(&(struct tls_case){.client = "beta", .name = "gamma"});
}

static void test_tls_wrong_ca(void **state)
{
    (void)state;
    tls_case(&(struct tls_case){.client = "mallory", .name = "alpha"});
}

/* ---- life ---- */

static void test_refused(void **state)
{
    (void)state;
    struct hf_sip_place bind[2] = {bind_at(HF_SIP_TRANSPORT_TCP, false),
                                   bind_at(HF_SIP_TRANSPORT_UDP, false)};
    struct hf_sip_wire_conf conf = {.bind = bind, .n_binds = 2};
    static const struct hf_sip_wire_events events = {.message = on_message, .closed = on_closed};
    struct hf_err err = {0};
    bind[1].at.addr[0] = 192; /* 192.0.0.1: not ours */
    assert_int_equal(hf_poll_create(loop, after, &a, &a.poll), 0);
    assert_int_equal(hf_sip_wire_open(a.poll, &conf, &events, &a, &err, &a.wire), -EADDRNOTAVAIL);
    assert_non_null(strstr(err.text, "cannot listen at UDP 192.0.0.1:0"));
    bind[1].elsewhere = true; /* a service address */
    assert_int_equal(hf_sip_wire_open(a.poll, &conf, &events, &a, &err, &a.wire), 0);
    hf_sip_wire_close(a.wire);
    a.wire = NULL;
    for (int64_t n = 0; n < 12; n++) {
        hf_mem_fail_after(n);
        int rc = hf_sip_wire_open(a.poll, &conf, &events, &a, &err, &a.wire);
        hf_mem_fail_after(-1);
        if (rc == 0) {
            return;
        }
        assert_int_equal(rc, -ENOMEM);
    }
    assert_true(false);
}

int main(void)
{
#define SIDES(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        SIDES(test_udp),          SIDES(test_udp_any),
        SIDES(test_udp_v6),       SIDES(test_udp_unreachable),
        SIDES(test_tcp_frames),   SIDES(test_tcp_fault),
        SIDES(test_tcp_reuse),    SIDES(test_tcp_idle),
        SIDES(test_tcp_room),     SIDES(test_tcp_room_kept),
        SIDES(test_tcp_slow),     SIDES(test_tcp_burst),
        SIDES(test_tcp_stall),    SIDES(test_tls_mutual),
        SIDES(test_tls_address),  SIDES(test_tls_wrong_name),
        SIDES(test_tls_wrong_ca), SIDES(test_refused),
    };
    return cmocka_run_group_tests(tests, make_certificates, drop_certificates);
}
