/* HTTP/1.1 client on libevent's bufferevents: one bounded GET per connection. */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "os/http.h"

#define READ_AHEAD 65536u /* bytes taken from the socket before they are looked at */
#define TARGET_MAX 4096u

/* What the next bytes are (RFC 9112: 4, 5, 6.3, 7.1). */
enum state { STATUS_LINE, FIELDS, BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, COMPLETE };

struct hf_http_get {
    struct hf_loop *loop;    /* borrowed */
    int fd;                  /* owned until there is bev; then -1 */
    struct hf_io *io;        /* owned: waits for the connection */
    struct bufferevent *bev; /* owned, with the socket */
    struct ssl_st *ssl;      /* owned until there is bev, then by that; NULL: plain */
    struct hf_timer *timer;  /* owned */
    char server[HF_HOST_NAME_MAX + 1];
    struct hf_buf request, body;
    enum state state;
    bool done; /* fn is being called */
    bool has_length, chunked;
    int status;
    size_t head_len; /* bytes of status line, fields and trailer so far */
    uint64_t left;   /* of the body, or of the chunk */
    hf_http_done *fn;
    void *arg;
};

static void get_free(struct hf_http_get *g)
{
    hf_io_destroy(g->io);
    if (g->bev) {
        bufferevent_free(g->bev);
    } else {
        SSL_free(g->ssl);
    }
    if (g->fd >= 0) {
        close(g->fd);
    }
    hf_timer_destroy(g->timer);
    hf_buf_fini(&g->request);
    hf_buf_fini(&g->body);
    hf_free(g);
}

static void finish(struct hf_http_get *g, int rc)
{
    g->done = true;
    g->fn(g->arg, rc, rc ? 0 : g->status, rc ? hf_slice(NULL, 0) : hf_buf_slice(&g->body));
    get_free(g);
}

void hf_http_get_cancel(struct hf_http_get *g)
{
    if (g && !g->done) {
        get_free(g);
    }
}

/* ---- answer ---- */

/* Digits only, of the given base; false if there is anything else or more than 48 bits. */
static bool parse_number(const char *s, unsigned base, uint64_t *ret_n)
{
    uint64_t n = 0;
    if (!*s) {
        return false;
    }
    for (; *s; s++) {
        unsigned d = *s >= '0' && *s <= '9'   ? (unsigned)(*s - '0')
                     : *s >= 'a' && *s <= 'f' ? (unsigned)(*s - 'a') + 10
                     : *s >= 'A' && *s <= 'F' ? (unsigned)(*s - 'A') + 10
                                              : 99;
        if (d >= base || n >> 44) {
            return false;
        }
        n = n * base + d;
    }
    *ret_n = n;
    return true;
}

static int take_status(struct hf_http_get *g, const char *line)
{
    uint64_t status;
    char digits[4] = "";
    if ((strncmp(line, "HTTP/1.1 ", 9) != 0 && strncmp(line, "HTTP/1.0 ", 9) != 0) ||
        strlen(line) < 12 || (line[12] != ' ' && line[12] != '\0')) {
        return -HF_EHTTP;
    }
    memcpy(digits, line + 9, 3);
    if (!parse_number(digits, 10, &status) || status < 200 || status > 599) {
        return -HF_EHTTP;
    }
    g->status = (int)status;
    g->state = FIELDS;
    return 0;
}

/* One field; only those that frame the body are looked at, and strictly. */
static int take_field(struct hf_http_get *g, char *line)
{
    char *colon = strchr(line, ':');
    if (!colon || colon == line || strcspn(line, " \t") < (size_t)(colon - line)) {
        return -HF_EHTTP;
    }
    char *value = colon + 1 + strspn(colon + 1, " \t");
    size_t n = strlen(value);
    while (n && (value[n - 1] == ' ' || value[n - 1] == '\t')) {
        value[--n] = '\0';
    }
    *colon = '\0';
    if (strcasecmp(line, "Content-Length") == 0) {
        if (g->has_length || !parse_number(value, 10, &g->left)) {
            return -HF_EHTTP;
        }
        g->has_length = true;
    } else if (strcasecmp(line, "Transfer-Encoding") == 0) {
        if (g->chunked || strcasecmp(value, "chunked") != 0) {
            return -HF_EHTTP;
        }
        g->chunked = true;
    }
    return 0;
}

/* The fields have ended: how long is the body? One that ends with the connection is refused. */
static int take_fields_end(struct hf_http_get *g)
{
    bool none = g->status == 204 || g->status == 304;
    if (!none && g->chunked == g->has_length) {
        return -HF_EHTTP;
    }
    if (!none && g->has_length && g->left > g->body.n_max) {
        return -HF_EFULL;
    }
    g->state = none || (g->has_length && g->left == 0) ? COMPLETE : g->chunked ? CHUNK_SIZE : BODY;
    return 0;
}

static int take_chunk_size(struct hf_http_get *g, char *line)
{
    line[strcspn(line, "; \t")] = '\0'; /* extensions mean nothing here */
    if (!parse_number(line, 16, &g->left)) {
        return -HF_EHTTP;
    }
    if (g->left > g->body.n_max - g->body.n) {
        return -HF_EFULL;
    }
    g->state = g->left ? CHUNK_DATA : TRAILER;
    return 0;
}

static int take_line(struct hf_http_get *g, char *line)
{
    switch (g->state) {
    case STATUS_LINE:
        return take_status(g, line);
    case FIELDS:
        return *line ? take_field(g, line) : take_fields_end(g);
    case CHUNK_SIZE:
        return take_chunk_size(g, line);
    case CHUNK_END:
        g->state = CHUNK_SIZE;
        return *line ? -HF_EHTTP : 0;
    case TRAILER:
        g->state = *line ? TRAILER : COMPLETE;
        return 0;
    case BODY:
    case CHUNK_DATA:
    case COMPLETE:
        break;
    }
    return -HF_EHTTP;
}

/* 1: took something; 0: more bytes are needed; negative: refused. */
static int take_line_from(struct hf_http_get *g, struct evbuffer *in)
{
    size_t n;
    char *line = evbuffer_readln(in, &n, EVBUFFER_EOL_CRLF_STRICT);
    if (!line) {
        return evbuffer_get_length(in) > HF_HTTP_HEADERS_MAX ? -HF_EHTTP : 0;
    }
    if (g->state == STATUS_LINE || g->state == FIELDS || g->state == TRAILER) {
        g->head_len += n + 2;
    }
    bool bad = strlen(line) != n || n > HF_HTTP_HEADERS_MAX || g->head_len > HF_HTTP_HEADERS_MAX;
    int rc = bad ? -HF_EHTTP : take_line(g, line);
    free(line);
    return rc ? rc : 1;
}

static int take_data(struct hf_http_get *g, struct evbuffer *in)
{
    size_t n = evbuffer_get_length(in);
    n = n < g->left ? n : (size_t)g->left;
    if (n == 0) {
        return 0;
    }
    uint8_t *p = hf_buf_reserve(&g->body, n);
    if (!p) {
        return g->body.err;
    }
    evbuffer_remove(in, p, n);
    hf_buf_commit(&g->body, n);
    g->left -= n;
    if (g->left == 0) {
        g->state = g->state == BODY ? COMPLETE : CHUNK_END;
    }
    return 1;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct hf_http_get *g = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    int rc = 1;
    while (rc > 0 && g->state != COMPLETE) {
        rc = g->state == BODY || g->state == CHUNK_DATA ? take_data(g, in) : take_line_from(g, in);
    }
    if (rc < 0) {
        finish(g, rc);
    } else if (g->state == COMPLETE) { /* more than it announced is as wrong as less */
        finish(g, evbuffer_get_length(in) ? -HF_EHTTP : 0);
    }
}

/* Why the handshake failed: somebody without the key, or a connection that was lost. */
static int handshake_error(struct bufferevent *bev)
{
    unsigned long e = bufferevent_get_openssl_error(bev);
    return e && ERR_GET_REASON(e) != SSL_R_UNEXPECTED_EOF_WHILE_READING ? -HF_EAUTH : -ECONNRESET;
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct hf_http_get *g = arg;
    char peer[HF_HOST_NAME_MAX + 1];
    bool known = !g->ssl || strcmp(hf_tls_peer(g->ssl, peer), g->server) == 0;
    if (what & BEV_EVENT_CONNECTED) {
        if (!known) {
            finish(g, -HF_EAUTH);
        }
    } else if (!known) {
        finish(g, handshake_error(bev));
    } else { /* cut off in the middle of an answer, or before it */
        finish(g, g->head_len ? -HF_EHTTP : -ECONNRESET);
    }
}

/* ---- request ---- */

static void on_deadline(void *arg)
{
    finish(arg, -HF_ETIMEOUT);
}

static int open_bev(struct hf_http_get *g)
{
    struct event_base *base = hf_loop_base(g->loop);
    if (g->ssl) {
        g->bev = bufferevent_openssl_socket_new(base, g->fd, g->ssl, BUFFEREVENT_SSL_CONNECTING,
                                                BEV_OPT_CLOSE_ON_FREE);
    } else {
        g->bev = bufferevent_socket_new(base, g->fd, BEV_OPT_CLOSE_ON_FREE);
    }
    if (!g->bev) {
        g->ssl = NULL; /* BEV_OPT_CLOSE_ON_FREE has freed it */
        return -ENOMEM;
    }
    g->fd = -1;
    bufferevent_setcb(g->bev, on_read, NULL, on_event, g);
    bufferevent_setwatermark(g->bev, EV_READ, 0, READ_AHEAD);
    bufferevent_write(g->bev, g->request.p, g->request.n);
    bufferevent_enable(g->bev, EV_READ | EV_WRITE);
    return 0;
}

static void on_connected(void *arg, unsigned events)
{
    (void)events;
    struct hf_http_get *g = arg;
    int e = 0;
    socklen_t len = sizeof(e);
    int rc = getsockopt(g->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 ? -errno : -e;
    hf_io_destroy(g->io);
    g->io = NULL;
    rc = rc ? rc : open_bev(g);
    if (rc) {
        finish(g, rc);
    }
}

static int start(struct hf_http_get *g, const struct hf_http_get_opt *opt)
{
    hf_buf_init(&g->request, TARGET_MAX + 512);
    hf_buf_init(&g->body, opt->body_max);
    hf_buf_printf(&g->request,
                  "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\nConnection: close\r\n\r\n",
                  opt->target, opt->server);
    if (strlen(opt->server) > HF_HOST_NAME_MAX || strpbrk(opt->server, " \r\n") ||
        *opt->target != '/' || strpbrk(opt->target, " \r\n")) {
        return -EINVAL;
    }
    memcpy(g->server, opt->server, strlen(opt->server) + 1);
    int rc = opt->tls ? hf_tls_new(opt->tls, opt->server, &g->ssl) : 0;
    if (rc) {
        return rc;
    }
    g->fd = socket(opt->to.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (g->fd < 0) {
        return -errno;
    }
    int on = 1;
    setsockopt(g->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(g->fd, (const struct sockaddr *)&opt->to.ss, opt->to.len) < 0 &&
        errno != EINPROGRESS) {
        return -errno;
    }
    rc = hf_io_create(g->loop, g->fd, HF_IO_WRITE, on_connected, g, &g->io);
    rc = rc ? rc : hf_timer_create(g->loop, on_deadline, g, &g->timer);
    return rc ? rc : g->request.err;
}

int hf_http_get_start(struct hf_loop *loop, const struct hf_http_get_opt *opt, hf_http_done *fn,
                      void *arg, struct hf_http_get **ret_get)
{
    struct hf_http_get *g = hf_alloc(sizeof(*g));
    if (!g) {
        return -ENOMEM;
    }
    g->loop = loop;
    g->fd = -1;
    g->fn = fn;
    g->arg = arg;
    int rc = start(g, opt);
    if (rc) {
        get_free(g);
        return rc;
    }
    hf_timer_set(g->timer, opt->deadline);
    *ret_get = g;
    return 0;
}

void hf_http_query_add(struct hf_buf *b, const char *name, struct hf_slice value)
{
    bool first = b->n == 0 || !memchr(b->p, '?', b->n);
    hf_buf_printf(b, "%c%s=", first ? '?' : '&', name);
    for (size_t i = 0; i < value.n; i++) { /* RFC 3986 2.3: unreserved as they are */
        uint8_t c = value.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '.' || c == '_' || c == '~';
        hf_buf_printf(b, plain ? "%c" : "%%%02X", c);
    }
}
