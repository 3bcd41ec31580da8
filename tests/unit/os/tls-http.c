/*
 * os/tls and os/http over loopback: who authenticates, whole exchanges, streams, and peers that
 * are slow, endless, lying about lengths, talking garbage or half closed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "os/http.h"
#include "support/test.h"

static const struct hf_key key = {.b = {1, 2, 3}}, other_key = {.b = {1, 2, 4}};
static struct hf_loop *loop;
static struct hf_http_server *server;
static struct hf_http_req *held; /* answered by the test, not by the handler */
static int rooms, closes;
static char peer_seen[HF_HOST_NAME_MAX + 1];

/* ---- a client's result ---- */

struct result {
    int calls, rc, status;
    struct hf_buf body;
};

static void on_done(void *arg, int rc, int status, struct hf_slice body)
{
    struct result *r = arg;
    r->calls++;
    r->rc = rc;
    r->status = status;
    hf_buf_init(&r->body, 1 << 20);
    hf_buf_add(&r->body, body);
    hf_loop_stop(loop);
}

static struct hf_addr loopback(uint16_t port)
{
    struct hf_addr a;
    assert_int_equal(hf_addr_parse("127.0.0.1", port, NULL, &a), 0);
    return a;
}

static struct result get(uint16_t port, struct hf_tls *tls, const char *name, const char *target,
                         hf_time patience)
{
    struct result r = {0};
    struct hf_http_get *g;
    struct hf_http_get_opt o = {.to = loopback(port),
                                .tls = tls,
                                .server = name,
                                .target = target,
                                .body_max = 100000,
                                .deadline = hf_now() + patience};
    assert_int_equal(hf_http_get_start(loop, &o, on_done, &r, &g), 0);
    assert_int_equal(r.calls, 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(r.calls, 1);
    return r;
}

/* ---- our server ---- */

static void on_room(void *arg)
{
    rooms++;
    if (*(int *)arg) {
        hf_http_stream_end(held);
        held = NULL;
    }
}

static void on_close(void *arg)
{
    (void)arg;
    closes++;
    held = NULL;
    hf_loop_stop(loop);
}

static int end_when_sent;

static void handler(void *arg, struct hf_http_req *r)
{
    (void)arg;
    const char *path = hf_http_req_path(r), *q = hf_http_req_query(r, "q");
    strcpy(peer_seen, hf_http_req_peer(r));
    if (strcmp(path, "/big") == 0) {
        static char big[90000];
        memset(big, 'b', sizeof(big));
        hf_http_reply(r, 200, "text/plain", hf_slice(big, sizeof(big)));
    } else if (strcmp(path, "/hold") == 0) {
        held = r;
        hf_loop_stop(loop);
    } else if (strcmp(path, "/stream") == 0) {
        held = r;
        hf_http_stream_begin(r, 200, "text/event-stream", on_room, on_close, &end_when_sent);
        assert_int_equal(hf_http_stream_send(r, hf_slice_str("one ")), 0);
        assert_int_equal(hf_http_stream_send(r, hf_slice_str("two")), 0);
    } else if (strcmp(path, "/flood") == 0) {
        static char piece[4096];
        int rc = 0;
        held = r;
        hf_http_stream_begin(r, 200, "text/plain", NULL, on_close, NULL);
        for (int i = 0; rc == 0; i++) {
            assert_true(i < 1000);
            rc = hf_http_stream_send(r, hf_slice(piece, sizeof(piece)));
        }
        assert_int_equal(rc, -HF_EFULL);
        assert_int_equal(closes, 0); /* follows, not now */
    } else if (q) {
        hf_http_reply(r, 200, "text/plain", hf_slice_str(q));
    } else {
        hf_http_reply_error(r, 404, "no \"%s\"", path);
    }
}

static void open_server(struct hf_tls *tls, int clients_max, int idle_timeout_s)
{
    struct hf_http_server_opt o = {.bind = loopback(0),
                                   .tls = tls,
                                   .clients_max = clients_max,
                                   .idle_timeout_s = idle_timeout_s,
                                   .backlog_max = 100000};
    assert_int_equal(hf_http_server_open(loop, &o, handler, NULL, NULL, &server), 0);
}

static int create(void **state)
{
    (void)state;
    server = NULL;
    held = NULL;
    rooms = closes = end_when_sent = 0;
    return hf_loop_create(&loop);
}

static int destroy(void **state)
{
    (void)state;
    hf_http_server_close(server);
    hf_loop_destroy(loop);
    return 0;
}

/* ---- a raw client: says something, collects what comes until the end ---- */

struct raw {
    int fd;
    struct hf_io *io;
    struct hf_buf got;
};

static void on_raw(void *arg, unsigned events)
{
    (void)events;
    struct raw *r = arg;
    char b[4096];
    ssize_t n = read(r->fd, b, sizeof(b));
    if (n > 0) {
        hf_buf_add(&r->got, hf_slice(b, (size_t)n));
    } else {
        hf_io_set(r->io, 0);
        hf_loop_stop(loop);
    }
}

static void raw_open(struct raw *r, const char *say)
{
    struct hf_addr a = loopback(hf_http_server_port(server));
    hf_buf_init(&r->got, 1 << 20);
    r->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(r->fd, (struct sockaddr *)&a.ss, a.len), 0);
    assert_int_equal(send(r->fd, say, strlen(say), MSG_NOSIGNAL), strlen(say));
    assert_int_equal(hf_io_create(loop, r->fd, HF_IO_READ, on_raw, r, &r->io), 0);
}

static void raw_close(struct raw *r)
{
    hf_io_destroy(r->io);
    close(r->fd);
    hf_buf_fini(&r->got);
}

static void raw_says(const char *say, const char *want)
{
    struct raw r;
    raw_open(&r, say);
    assert_int_equal(hf_loop_run(loop), 0);
    hf_buf_add(&r.got, hf_slice("", 1));
    if (strncmp((const char *)r.got.p, want, strlen(want)) != 0) {
        fail_msg("'%.40s': got '%.60s'", say, (const char *)r.got.p);
    }
    if (*want) {
        assert_non_null(strstr((const char *)r.got.p, "Cache-Control: no-store\r\n"));
        assert_non_null(strstr((const char *)r.got.p, "X-Content-Type-Options: nosniff\r\n"));
    } else {
        assert_int_equal(r.got.n, 1);
    }
    raw_close(&r);
}

/* ---- a raw server: one connection, canned bytes ---- */

static struct {
    int listen_fd, fd;
    struct hf_io *accept_io, *write_io, *read_io;
    const char *say;
    bool endless, close;
} canned;

static void on_canned_read(void *arg, unsigned events)
{
    (void)arg;
    (void)events;
    char b[4096];
    ssize_t n = read(canned.fd, b, sizeof(b));
    if (n <= 0) {
        hf_io_set(canned.read_io, 0);
        return;
    }
    if (canned.say) {
        assert_int_equal(send(canned.fd, canned.say, strlen(canned.say), MSG_NOSIGNAL),
                         strlen(canned.say));
        canned.say = NULL;
    }
    if (canned.close) {
        shutdown(canned.fd, SHUT_WR);
    }
    hf_io_set(canned.write_io, canned.endless ? HF_IO_WRITE : 0);
}

static void on_canned_write(void *arg, unsigned events)
{
    (void)arg;
    (void)events;
    static const char junk[] = "1000\r\n";
    if (send(canned.fd, junk, sizeof(junk) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
        errno != EAGAIN) {
        hf_io_set(canned.write_io, 0);
    }
}

static void on_canned_accept(void *arg, unsigned events)
{
    (void)arg;
    (void)events;
    canned.fd = accept(canned.listen_fd, NULL, NULL);
    assert_true(canned.fd >= 0);
    assert_int_equal(
        hf_io_create(loop, canned.fd, HF_IO_READ, on_canned_read, NULL, &canned.read_io), 0);
    assert_int_equal(hf_io_create(loop, canned.fd, 0, on_canned_write, NULL, &canned.write_io), 0);
}

static struct result get_canned(const char *say, bool close_after, bool endless, struct hf_tls *tls,
                                hf_time patience)
{
    struct hf_addr a = loopback(0);
    memset(&canned, 0, sizeof(canned));
    canned.fd = -1;
    canned.say = say;
    canned.close = close_after;
    canned.endless = endless;
    canned.listen_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(canned.listen_fd, (struct sockaddr *)&a.ss, a.len), 0);
    assert_int_equal(listen(canned.listen_fd, 5), 0);
    assert_int_equal(getsockname(canned.listen_fd, (struct sockaddr *)&a.ss, &a.len), 0);
    assert_int_equal(
        hf_io_create(loop, canned.listen_fd, HF_IO_READ, on_canned_accept, NULL, &canned.accept_io),
        0);
    struct result r = get(hf_addr_to_endpoint(&a).port, tls, "beta", "/x", patience);
    hf_io_destroy(canned.accept_io);
    hf_io_destroy(canned.read_io);
    hf_io_destroy(canned.write_io);
    close(canned.listen_fd);
    if (canned.fd >= 0) {
        close(canned.fd);
    }
    return r;
}

/* ---- tests ---- */

static void whole_exchanges(void **state)
{
    (void)state;
    open_server(NULL, 4, 10);
    uint16_t port = hf_http_server_port(server);
    struct result r = get(port, NULL, "beta", "/a?q=x%20%26%C3%A4&z=1", HF_S(10));
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.status, 200);
    hf_assert_slice_str(hf_buf_slice(&r.body), "x &\xc3\xa4");
    hf_buf_fini(&r.body);
    r = get(port, NULL, "beta", "/none", HF_S(10));
    assert_int_equal(r.status, 404);
    hf_assert_slice_str(hf_buf_slice(&r.body), "{\"error\": \"no \\\"/none\\\"\"}\n");
    hf_buf_fini(&r.body);
    r = get(port, NULL, "beta", "/big", HF_S(10));
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.body.n, 90000);
    hf_buf_fini(&r.body);
    end_when_sent = 1;
    r = get(port, NULL, "beta", "/stream", HF_S(10));
    assert_int_equal(r.rc, 0);
    hf_assert_slice_str(hf_buf_slice(&r.body), "one two");
    hf_buf_fini(&r.body);
    assert_true(rooms > 0);
    assert_int_equal(closes, 0);
    assert_int_equal(hf_http_server_counters(server)->requests, 4);
}

static void requests_refused(void **state)
{
    (void)state;
    open_server(NULL, 4, 10);
    raw_says("GET /a?q=1 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ");
    raw_says("GET /a?q=1 HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ");
    raw_says("HEAD /a?q=1 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ");
    raw_says("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405 ");
    raw_says("garbage\r\n\r\n", "HTTP/1.1 400 ");
    raw_says("GET /\r\n\r\n", "HTTP/1.1 400 ");
    raw_says("GET / HTTP/2.0\r\n\r\n", "HTTP/1.1 400 ");
    raw_says("GET x HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ");
    raw_says("GET /%00 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ");
    raw_says("GET /%0a HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ");
    raw_says("GET /\x7f HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ");
    raw_says("GET /?a HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ");
    char longer[12000];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    raw_says(longer, "HTTP/1.1 431 ");
    assert_int_equal(hf_http_server_counters(server)->bad_requests, 10);
}

static void clients_slow_half_closed_too_many(void **state)
{
    (void)state;
    open_server(NULL, 1, 1);
    raw_says("GET /a HTT", ""); /* the idle time-out ends it */
    struct raw first, second;
    raw_open(&first, "GET /hold HTTP/1.1\r\n\r\n");
    assert_int_equal(hf_loop_run(loop), 0); /* held */
    raw_open(&second, "");
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(second.got.n, 0);
    assert_int_equal(hf_http_server_counters(server)->refused_connections, 1);
    raw_close(&second);
    shutdown(first.fd, SHUT_WR); /* closes its side, still reads */
    hf_http_reply(held, 200, "text/plain", hf_slice_str("late"));
    assert_int_equal(hf_loop_run(loop), 0);
    assert_true(first.got.n > 4 && memcmp(first.got.p + first.got.n - 4, "late", 4) == 0);
    raw_close(&first);
}

static void streams_closed(void **state)
{
    (void)state;
    open_server(NULL, 4, 10);
    struct raw r;
    raw_open(&r, "GET /flood HTTP/1.1\r\n\r\n"); /* over the backlog at once */
    hf_io_set(r.io, 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(closes, 1);
    assert_int_equal(hf_http_server_counters(server)->slow_readers_closed, 1);
    raw_close(&r);
    raw_open(&r, "GET /stream HTTP/1.1\r\n\r\n");
    hf_io_set(r.io, 0);
    while (!held) { /* until it has begun */
        struct hf_timer *t;
        assert_int_equal(hf_timer_create(loop, (void (*)(void *))hf_loop_stop, loop, &t), 0);
        hf_timer_set(t, hf_now() + HF_MS(1));
        assert_int_equal(hf_loop_run(loop), 0);
        hf_timer_destroy(t);
    }
    raw_close(&r); /* the client goes */
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(closes, 2);
    raw_open(&r, "HEAD /stream HTTP/1.1\r\n\r\n");
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(closes, 3);
    raw_close(&r);
    raw_open(&r, "GET /hold HTTP/1.1\r\n\r\n");
    assert_int_equal(hf_loop_run(loop), 0); /* left to hf_http_server_close() */
    raw_close(&r);
}

#define H "HTTP/1.1 200 OK\r\n"

static void answers_refused(void **state)
{
    (void)state;
    static const struct {
        const char *say;
        bool close, endless;
        int rc;
    } rows[] = {
        {H "Content-Length: 2\r\n\r\nok", false, false, 0},
        {H "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nT: x\r\n\r\n", false, false, 0},
        {H "Content-Length: 0\r\n\r\n", false, false, 0},
        {H "Content-Length: 3\r\n\r\nok", true, false, -HF_EHTTP},
        {H "Content-Length: 2\r\n\r\nokay", false, false, -HF_EHTTP},
        {H "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", false, false, -HF_EHTTP},
        {H "Content-Length: -2\r\n\r\nok", false, false, -HF_EHTTP},
        {H "Content-Length: 99999999999999999999\r\n\r\n", false, false, -HF_EHTTP},
        {H "Content-Length: 100001\r\n\r\n", false, false, -HF_EFULL},
        {H "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", false, false, -HF_EHTTP},
        {H "Transfer-Encoding: gzip\r\n\r\n", false, false, -HF_EHTTP},
        {H "Transfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n", false, false, -HF_EHTTP},
        {H "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true, false, -HF_EHTTP},
        {H "Transfer-Encoding: chunked\r\n\r\nffffff\r\n", false, false, -HF_EFULL},
        {H "Transfer-Encoding: chunked\r\n\r\n-1\r\n", false, false, -HF_EHTTP},
        {H "\r\nno length", true, false, -HF_EHTTP},
        {H "no colon\r\n\r\n", false, false, -HF_EHTTP},
        {H " folded: x\r\n\r\n", false, false, -HF_EHTTP},
        {"garbage\r\n", false, false, -HF_EHTTP},
        {"HTTP/1.1 100 Continue\r\n\r\n", false, false, -HF_EHTTP},
        {"HTTP/1.1 2000 OK\r\n\r\n", false, false, -HF_EHTTP},
        {H "X: ", false, true, -HF_EHTTP},
        {H "Transfer-Encoding: chunked\r\n\r\n", false, true, -HF_EFULL},
        {"", true, false, -ECONNRESET},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        struct result r = get_canned(rows[i].say, rows[i].close, rows[i].endless, NULL, HF_S(10));
        if (r.rc != rows[i].rc) {
            fail_msg("row %zu '%.60s': %d", i, rows[i].say, r.rc);
        }
        hf_buf_fini(&r.body);
    }
    struct result r = get_canned(H "Content-Length: 9\r\n\r\n", false, false, NULL, HF_MS(50));
    assert_int_equal(r.rc, -HF_ETIMEOUT);
    r = get_canned(NULL, false, false, NULL, HF_MS(50));
    assert_int_equal(r.rc, -HF_ETIMEOUT);
}

static void not_reached_or_cancelled(void **state)
{
    (void)state;
    open_server(NULL, 4, 10);
    struct result r = {0};
    struct hf_http_get *g;
    struct hf_http_get_opt o = {.to = loopback(hf_http_server_port(server)),
                                .server = "beta",
                                .target = "/hold",
                                .body_max = 10,
                                .deadline = hf_now() + HF_S(10)};
    assert_int_equal(hf_http_get_start(loop, &o, on_done, &r, &g), 0);
    hf_http_get_cancel(g);
    assert_int_equal(hf_http_get_start(loop, &o, on_done, &r, &g), 0);
    assert_int_equal(hf_loop_run(loop), 0); /* held */
    hf_http_get_cancel(g);
    assert_int_equal(r.calls, 0);
    o.target = "/x y";
    assert_int_equal(hf_http_get_start(loop, &o, on_done, &r, &g), -EINVAL);
    uint16_t port = hf_http_server_port(server);
    hf_http_server_close(server);
    server = NULL;
    r = get(port, NULL, "beta", "/x", HF_S(10));
    assert_int_equal(r.rc, -ECONNREFUSED);
}

static struct hf_tls *tls_of(const struct hf_key *k, const char *host, const char *purpose)
{
    struct hf_tls *t;
    assert_int_equal(hf_tls_create(k, host, purpose, &t), 0);
    return t;
}

static void who_authenticates(void **state)
{
    (void)state;
    struct hf_tls *beta = tls_of(&key, "beta", "pull");
    open_server(beta, 4, 10);
    uint16_t port = hf_http_server_port(server);
    static const struct {
        const char *host, *purpose, *server;
        bool other;
        int rc;
    } rows[] = {
        {"alpha", "pull", "beta", false, 0},          {"alpha", "pull", "beta", true, -HF_EAUTH},
        {"alpha", "pull", "gamma", false, -HF_EAUTH}, {"beta", "pull", "alpha", false, -HF_EAUTH},
        {"alpha", "push", "beta", false, -HF_EAUTH},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        struct hf_tls *t = tls_of(rows[i].other ? &other_key : &key, rows[i].host, rows[i].purpose);
        struct result r = get(port, t, rows[i].server, "/big", HF_S(10));
        assert_int_equal(r.rc, rows[i].rc);
        assert_int_equal(r.body.n, rows[i].rc ? 0 : 90000);
        assert_string_equal(peer_seen, "alpha");
        hf_buf_fini(&r.body);
        hf_tls_destroy(t);
    }
    assert_int_equal(hf_http_server_counters(server)->requests, 1);
    assert_int_equal(hf_http_server_counters(server)->tls_failures, 4);
    raw_says("GET / HTTP/1.1\r\n\r\n", ""); /* without TLS */
    assert_int_equal(hf_http_server_counters(server)->tls_failures, 5);
    struct hf_tls *alpha = tls_of(&key, "alpha", "pull");
    struct hf_http_get *g;
    struct hf_http_get_opt self = {
        .to = loopback(port), .tls = alpha, .server = "alpha", .target = "/"};
    assert_int_equal(hf_http_get_start(loop, &self, on_done, NULL, &g), -HF_ENAME);
    struct result r = get_canned("HTTP/1.1 400 Bad\r\n\r\n", false, false, alpha, HF_S(10));
    assert_int_equal(r.rc, -HF_EAUTH);
    r = get_canned("", true, false, alpha, HF_S(10)); /* closes in the handshake */
    assert_int_equal(r.rc, -ECONNRESET);
    hf_tls_destroy(alpha);
    hf_http_server_close(server);
    server = NULL;
    hf_tls_destroy(beta);
    struct hf_tls *bad;
    assert_int_equal(hf_tls_create(&key, "Not a host", "pull", &bad), -HF_ENAME);
    assert_int_equal(hf_tls_create(&key, "alpha", "two words", &bad), -HF_ENAME);
}

/* Handshake in memory with an OpenSSL client of our making. */
static bool handshakes(SSL *client, SSL *srv)
{
    BIO *a, *b;
    assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
    SSL_set_bio(client, a, a);
    SSL_set_bio(srv, b, b);
    bool done = false;
    for (int i = 0; i < 10 && !done; i++) {
        int c = SSL_do_handshake(client), s = SSL_do_handshake(srv);
        done = c == 1 && s == 1;
    }
    return done;
}

static void other_versions_and_certificates_refused(void **state)
{
    (void)state;
    struct hf_tls *beta = tls_of(&key, "beta", "pull"), *alpha = tls_of(&key, "alpha", "pull");
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX_set_max_proto_version(ctx, version);
        SSL *c = SSL_new(ctx), *s;
        SSL_set_connect_state(c);
        assert_int_equal(hf_tls_new(beta, NULL, &s), 0);
        assert_false(handshakes(c, s)); /* 1.2; and 1.3 without a pre-shared key */
        char peer[HF_HOST_NAME_MAX + 1];
        assert_string_equal(hf_tls_peer(s, peer), "");
        SSL_free(c);
        SSL_free(s);
    }
    SSL_CTX_free(ctx);
    SSL *c, *s;
    assert_int_equal(hf_tls_new(alpha, "beta", &c), 0);
    assert_int_equal(hf_tls_new(beta, NULL, &s), 0);
    assert_true(handshakes(c, s));
    char peer[HF_HOST_NAME_MAX + 1];
    assert_string_equal(hf_tls_peer(s, peer), "alpha");
    assert_string_equal(hf_tls_peer(c, peer), "beta");
    assert_string_equal(SSL_get_cipher_name(c), "TLS_AES_256_GCM_SHA384");
    assert_int_equal(SSL_version(c), TLS1_3_VERSION);
    SSL_free(c);
    SSL_free(s);
    hf_tls_destroy(alpha);
    hf_tls_destroy(beta);
}

static void query_is_encoded(void **state)
{
    (void)state;
    struct hf_buf b;
    hf_buf_init(&b, 100);
    hf_buf_str(&b, "/v1/x");
    hf_http_query_add(&b, "a", hf_slice("x y\0/&", 6));
    hf_http_query_add(&b, "b", hf_slice_str("-._~Z9"));
    hf_assert_slice_str(hf_buf_slice(&b), "/v1/x?a=x%20y%00%2F%26&b=-._~Z9");
    hf_buf_fini(&b);
}

#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(whole_exchanges),
        LOOP_TEST(requests_refused),
        LOOP_TEST(clients_slow_half_closed_too_many),
        LOOP_TEST(streams_closed),
        LOOP_TEST(answers_refused),
        LOOP_TEST(not_reached_or_cancelled),
        LOOP_TEST(who_authenticates),
        HF_TEST(other_versions_and_certificates_refused),
        HF_TEST(query_is_encoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
