/*
 * HTTP/1.1 server on libevent's bufferevents: one GET or HEAD per connection. (Not evhttp: 2.1.12
 * can bound neither the number of connections nor the whole time of a request, and does not tell a
 * failed handshake from a closed connection.)
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "codec/http_request.h"
#include "os/http.h"

#define LINGER HF_S(1)          /* for the client to take the last bytes and close */
#define LINGER_BYTES 65536u     /* what it may still send meanwhile */
#define ACCEPT_PAUSE HF_MS(200) /* when descriptors have run out */
#define BYTES_PER_S_MIN 10000   /* a slower reader of a whole answer is closed */

/*
 *   READING --request--> ANSWERING --reply--> SENDING --sent--> LINGERING --> gone
 *                            |                   ^
 *                            +---> STREAMING ----+ (end)
 *                                      +--> REFUSED (too slow; on_close follows) --> gone
 */
enum state { READING, ANSWERING, STREAMING, REFUSED, SENDING, LINGERING };

struct hf_http_req {      /* also the connection: there is one request on each */
    struct hf_list conns; /* of the server */
    struct hf_http_server *s;
    struct bufferevent *bev; /* owned; NULL: the client went away before the answer */
    struct ssl_st *ssl;      /* borrowed from bev; NULL: plain */
    struct hf_timer *timer;  /* owned */
    enum state state;
    struct hf_http_request request;
    size_t lingered;
    char *line; /* owned (malloc); the request lies in it */
    void (*on_room)(void *arg);
    void (*on_close)(void *arg);
    void *arg;
    char peer[HF_HOST_NAME_MAX + 1];
    char from[HF_ADDR_STR_LEN];
};

struct hf_http_server {
    struct hf_loop *loop; /* borrowed */
    struct hf_http_server_opt opt;
    struct evconnlistener *listener;
    struct hf_timer *accept_again; /* owned */
    struct hf_list conns;
    hf_http_handler *fn;
    void *arg;
    uint16_t port;
    struct hf_http_server_counters c;
};

static void conn_free(struct hf_http_req *r)
{
    void (*on_close)(void *) = r->state == STREAMING || r->state == REFUSED ? r->on_close : NULL;
    void *arg = r->arg;
    hf_list_unlink(&r->conns);
    r->s->c.connections--;
    if (r->bev) {
        bufferevent_free(r->bev);
    }
    hf_timer_destroy(r->timer);
    free(r->line);
    hf_free(r);
    if (on_close) {
        on_close(arg);
    }
}

/* ---- answers ---- */

static const char *reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    default:
        return status < 400 ? "OK" : status < 500 ? "Refused" : "Error";
    }
}

static void put(struct hf_http_req *r, struct hf_slice s)
{
    bufferevent_write(r->bev, s.p, s.n);
    r->s->c.bytes_sent += s.n;
}

/* Status line and fields; length < 0: not known. */
static void put_head(struct hf_http_req *r, int status, const char *type, int64_t length)
{
    char buf[1536], date[40], len[64] = "";
    time_t now = (time_t)(hf_wall_now() / HF_NS_PER_S);
    struct tm tm;
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    if (length >= 0) {
        snprintf(len, sizeof(len), "Content-Length: %lld\r\n", (long long)length);
    } else if (r->request.chunked) {
        snprintf(len, sizeof(len), "Transfer-Encoding: chunked\r\n");
    }
    int n = snprintf(buf, sizeof(buf),
                     "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %.100s\r\n%s%s"
                     "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                     "%.1000sConnection: close\r\n\r\n",
                     status, reason(status), date, type, len,
                     status == 405   ? "Allow: GET, HEAD\r\n"
                     : status == 503 ? "Retry-After: 2\r\n"
                                     : "",
                     r->s->opt.fields ? r->s->opt.fields : "");
    put(r, hf_slice(buf, (size_t)n));
}

/* All is handed over: what is left is to see it off, in a time that fits its size. */
static void start_sending(struct hf_http_req *r)
{
    r->state = SENDING;
    size_t left = evbuffer_get_length(bufferevent_get_output(r->bev));
    hf_timer_set(r->timer,
                 hf_now() + HF_S(r->s->opt.idle_timeout_s) + HF_S((int64_t)left / BYTES_PER_S_MIN));
}

void hf_http_reply(struct hf_http_req *r, int status, const char *type, struct hf_slice body)
{
    if (!r->bev) {
        conn_free(r);
        return;
    }
    hf_tracef(HF_TRACE_HTTP, r->from, "%s: %d, %zu bytes", r->request.path ? r->request.path : "?",
              status, body.n);
    put_head(r, status, type, (int64_t)body.n);
    if (!r->request.head) {
        put(r, body);
    }
    start_sending(r);
}

void hf_http_reply_error(struct hf_http_req *r, int status, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    struct hf_buf b;
    hf_buf_init(&b, 8192);
    hf_buf_str(&b, "{\"error\": ");
    hf_buf_json_str(&b, hf_slice_str(text));
    hf_buf_str(&b, "}\n");
    hf_http_reply(r, status, "application/json", hf_buf_slice(&b));
    hf_buf_fini(&b);
}

void hf_http_stream_begin(struct hf_http_req *r, int status, const char *type,
                          void (*on_room)(void *arg), void (*on_close)(void *arg), void *arg)
{
    r->on_room = on_room;
    r->on_close = on_close;
    r->arg = arg;
    if (!r->bev) { /* gone already: say so from the loop */
        r->state = REFUSED;
        hf_timer_set(r->timer, hf_now());
        return;
    }
    r->state = STREAMING;
    put_head(r, status, type, -1);
}

int hf_http_stream_send(struct hf_http_req *r, struct hf_slice piece)
{
    if (r->state != STREAMING) {
        return -HF_EFULL;
    }
    if (r->request.head || piece.n == 0) {
        return 0;
    }
    size_t left = evbuffer_get_length(bufferevent_get_output(r->bev));
    if (left + piece.n > r->s->opt.backlog_max) {
        r->s->c.slow_readers_closed++;
        r->state = REFUSED;
        hf_timer_set(r->timer, hf_now());
        return -HF_EFULL;
    }
    char size[32];
    if (r->request.chunked) {
        snprintf(size, sizeof(size), "%zx\r\n", piece.n);
        put(r, hf_slice_str(size));
    }
    put(r, piece);
    if (r->request.chunked) {
        put(r, hf_slice_str("\r\n"));
    }
    return 0;
}

void hf_http_stream_end(struct hf_http_req *r)
{
    r->on_close = NULL;
    if (r->state != STREAMING) { /* being closed as too slow; the timer frees it */
        return;
    }
    if (r->request.chunked && !r->request.head) {
        put(r, hf_slice_str("0\r\n\r\n"));
    }
    start_sending(r);
}

/* ---- requests ---- */

const char *hf_http_req_path(const struct hf_http_req *r)
{
    return r->request.path;
}

const char *hf_http_req_query(const struct hf_http_req *r, const char *name)
{
    return hf_http_request_query(&r->request, name);
}

const char *hf_http_req_peer(const struct hf_http_req *r)
{
    return r->peer;
}

const char *hf_http_req_from(const struct hf_http_req *r)
{
    return r->from;
}

static void refuse(struct hf_http_req *r, int status, const char *why)
{
    r->s->c.bad_requests++;
    hf_http_reply_error(r, status, "%s", why);
}

static void take_request(struct hf_http_req *r, size_t n)
{
    int rc = hf_http_request_parse(r->line, n, &r->request);
    if (rc == -HF_EPROTO) {
        refuse(r, 400, "this is not an HTTP/1.1 request");
    } else if (rc == -ENOTSUP) {
        refuse(r, 405, "only GET and HEAD are answered here");
    } else if (rc) {
        refuse(r, 400, "the target of the request is not valid");
    } else {
        r->s->c.requests++;
        r->s->fn(r->s->arg, r); /* may free r */
    }
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct hf_http_req *r = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    size_t n = evbuffer_get_length(in);
    if (r->state != READING) { /* a body, or another request: not wanted */
        evbuffer_drain(in, n);
        r->lingered += n;
        if (r->lingered > LINGER_BYTES) {
            bufferevent_disable(bev, EV_READ);
        }
        return;
    }
    struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
    if (end.pos < 0 && n <= HF_HTTP_HEADERS_MAX) {
        return;
    }
    r->state = ANSWERING;
    hf_timer_set(r->timer, HF_NEVER);
    if (end.pos < 0 || end.pos > HF_HTTP_HEADERS_MAX) {
        refuse(r, 431, "the header of the request is too long");
        return;
    }
    if (r->ssl && !*hf_tls_peer(r->ssl, r->peer)) { /* no way to get here; never serve it */
        conn_free(r);
        return;
    }
    size_t n_line;
    r->line = evbuffer_readln(in, &n_line, EVBUFFER_EOL_CRLF_STRICT);
    evbuffer_drain(in, evbuffer_get_length(in));
    if (!r->line) {
        conn_free(r);
        return;
    }
    take_request(r, n_line);
}

/* The output is empty. */
static void on_write(struct bufferevent *bev, void *arg)
{
    struct hf_http_req *r = arg;
    if (r->state == STREAMING && r->request.head) {
        conn_free(r);
    } else if (r->state == STREAMING && r->on_room) {
        r->on_room(r->arg); /* may end r */
    } else if (r->state == SENDING) {
        /* closing with unread input would reset the connection and lose what we sent */
        r->state = LINGERING;
        hf_timer_set(r->timer, hf_now() + LINGER);
        shutdown(bufferevent_getfd(bev), SHUT_WR);
    }
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct hf_http_req *r = arg;
    if (what & BEV_EVENT_CONNECTED) {
        return;
    }
    if (what & BEV_EVENT_ERROR && r->ssl && r->state == READING && !*hf_tls_peer(r->ssl, r->peer)) {
        r->s->c.tls_failures++;
    }
    bool eof = what & BEV_EVENT_EOF;
    if (eof && r->state == SENDING) {
        return; /* it may have closed only its side */
    }
    if (r->state == ANSWERING) {
        if (!eof) { /* whoever answers later still has r */
            bufferevent_free(bev);
            r->bev = NULL;
            r->ssl = NULL;
        }
        return;
    }
    conn_free(r);
}

static void on_conn_time(void *arg)
{
    struct hf_http_req *r = arg;
    if (r->state == SENDING) {
        r->s->c.slow_readers_closed++;
    }
    conn_free(r);
}

/* ---- connections ---- */

static struct bufferevent *new_bev(struct hf_http_server *s, int fd, struct ssl_st **ret_ssl)
{
    struct event_base *base = hf_loop_base(s->loop);
    if (!s->opt.tls) {
        *ret_ssl = NULL;
        return bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    }
    if (hf_tls_new(s->opt.tls, NULL, ret_ssl) != 0) {
        return NULL;
    }
    return bufferevent_openssl_socket_new(base, fd, *ret_ssl, BUFFEREVENT_SSL_ACCEPTING,
                                          BEV_OPT_CLOSE_ON_FREE);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len,
                      void *arg)
{
    (void)l;
    struct hf_http_server *s = arg;
    struct hf_http_req *r = NULL;
    if (s->c.connections < (uint64_t)s->opt.clients_max) {
        r = hf_alloc(sizeof(*r));
    }
    if (r && hf_timer_create(s->loop, on_conn_time, r, &r->timer) != 0) {
        hf_free(r);
        r = NULL;
    }
    if (r) {
        r->bev = new_bev(s, fd, &r->ssl);
    }
    if (!r || !r->bev) {
        s->c.refused_connections++;
        close(fd);
        if (r) {
            hf_timer_destroy(r->timer);
            hf_free(r);
        }
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    struct hf_addr from = {.len = (socklen_t)len};
    memcpy(&from.ss, sa, (size_t)len);
    hf_addr_str(&from, r->from);
    r->s = s;
    hf_list_init(&r->conns);
    hf_list_insert(&s->conns, &r->conns);
    s->c.connections++;
    bufferevent_setcb(r->bev, on_read, on_write, on_event, r);
    bufferevent_setwatermark(r->bev, EV_READ, 0, HF_HTTP_HEADERS_MAX + 1024);
    bufferevent_enable(r->bev, EV_READ | EV_WRITE);
    hf_timer_set(r->timer, hf_now() + HF_S(s->opt.idle_timeout_s));
}

static void on_accept_error(struct evconnlistener *l, void *arg)
{
    struct hf_http_server *s = arg;
    s->c.refused_connections++;
    evconnlistener_disable(l);
    hf_timer_set(s->accept_again, hf_now() + ACCEPT_PAUSE);
}

static void on_accept_again(void *arg)
{
    struct hf_http_server *s = arg;
    evconnlistener_enable(s->listener);
}

int hf_http_server_open(struct hf_loop *loop, const struct hf_http_server_opt *opt,
                        hf_http_handler *fn, void *arg, struct hf_err *err,
                        struct hf_http_server **ret_server)
{
    struct hf_http_server *s = hf_alloc(sizeof(*s));
    if (!s) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    s->loop = loop;
    s->opt = *opt;
    s->fn = fn;
    s->arg = arg;
    hf_list_init(&s->conns);
    int rc = hf_timer_create(loop, on_accept_again, s, &s->accept_again);
    errno = 0;
    if (rc == 0) {
        s->listener = evconnlistener_new_bind(
            hf_loop_base(loop), on_accept, s,
            LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE |
                (opt->bind.ss.ss_family == AF_INET6 ? LEV_OPT_BIND_IPV6ONLY : 0),
            128, (const struct sockaddr *)&opt->bind.ss, (int)opt->bind.len);
        rc = s->listener ? 0 : errno ? -errno : -ENOMEM;
    }
    if (rc) {
        char text[HF_ADDR_STR_LEN];
        hf_http_server_close(s);
        return hf_err_set(err, rc, "cannot listen for HTTP on %s: %s%s",
                          hf_addr_str(&opt->bind, text), hf_strerror(rc),
                          rc == -EADDRINUSE ? "; another program has this port" : "");
    }
    evconnlistener_set_error_cb(s->listener, on_accept_error);
    s->port = hf_addr_port_of(evconnlistener_get_fd(s->listener));
    *ret_server = s;
    return 0;
}

void hf_http_server_close(struct hf_http_server *s)
{
    if (!s) {
        return;
    }
    while (!hf_list_empty(&s->conns)) {
        conn_free(HF_CONTAINER_OF(s->conns.next, struct hf_http_req, conns));
    }
    if (s->listener) {
        evconnlistener_free(s->listener);
    }
    hf_timer_destroy(s->accept_again);
    hf_free(s);
}

uint16_t hf_http_server_port(const struct hf_http_server *s)
{
    return s->port;
}

const struct hf_http_server_counters *hf_http_server_counters(const struct hf_http_server *s)
{
    return &s->c;
}
