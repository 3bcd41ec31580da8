/* Connections between managers: TLS 1.3 by OpenSSL, on non-blocking sockets that hf_poll watches.
 */
#include "pg/peer.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "os/tls.h"

#define ACCEPTED_MAX 8
#define BACKLOG 64
#define ACCEPTS_MAX 16   /* per turn */
#define PAUSE HF_MS(100) /* when no descriptor is left */
#define HANDSHAKE_LIMIT HF_S(2)
#define FLUSH_LIMIT HF_S(1)
#define USER_TIMEOUT_MS 5000
#define RECORD 16384 /* bytes of plain text in a record (RFC 8446 5.1) */
#define READ_AT_ONCE ((size_t)4 * RECORD)
#define READS_MAX 64           /* per turn and connection */
#define RECORDS_PER_KEY 65536u /* RFC 8446 5.5 allows 24 million full ones */

/*
 *   ours:     CONNECTING --> HANDSHAKE --> OPEN --+--> BROKEN --closed()--> DEAD
 *   accepted:                HANDSHAKE --> OPEN --+--> FLUSHING ----------> DEAD
 *
 * From any state to DEAD when the user closes it or all. Who is DEAD is freed when the last
 * function that was called from the loop has returned: callbacks may close everything.
 */
enum state { CONNECTING, HANDSHAKE, OPEN, BROKEN, FLUSHING, DEAD };

struct hf_pg_peer {
    struct hf_list node; /* of all->peers, or all->dead */
    struct hf_pg_peers *all;
    struct hf_poll_io io;
    struct hf_poll_timer timer; /* until it is open; while it flushes */
    struct hf_poll_task task;   /* BROKEN: closed() is to be told */
    enum state state;
    int fd;
    SSL *ssl; /* owned */
    bool ours, opened;
    bool half_closed; /* FLUSHING: nothing is left to be sent */
    char name[HF_HOST_NAME_MAX + 1];
    char address[HF_ADDR_STR_LEN];
    char why[160];
    unsigned n_records;   /* sent with this key */
    uint8_t held[RECORD]; /* taken, and begun by OpenSSL: it wants the same bytes again */
    size_t n_held;
};

struct hf_pg_peers {
    struct hf_poll *poll;
    struct hf_tls *tls; /* owned */
    const struct hf_pg_peer_ops *ops;
    void *arg;
    struct hf_list peers, dead;
    struct hf_poll_io io;       /* the listener */
    struct hf_poll_timer timer; /* accepts no more until then */
    hf_time logged;             /* a refused connection */
    unsigned depth;             /* functions of the loop under way */
    bool closed;
    uint8_t in[READ_AT_ONCE];
};

/* ---- life ---- */

static void enter(struct hf_pg_peers *all)
{
    all->depth++;
}

static void reap(struct hf_pg_peers *all)
{
    if (all->depth > 0) {
        return;
    }
    HF_LIST_FOREACH (n, &all->dead) {
        struct hf_pg_peer *p = HF_CONTAINER_OF(n, struct hf_pg_peer, node);
        SSL_free(p->ssl);
        hf_free(p);
    }
    hf_list_init(&all->dead);
    if (all->closed) {
        hf_tls_destroy(all->tls);
        hf_free(all);
    }
}

static void leave(struct hf_pg_peers *all)
{
    all->depth--;
    reap(all);
}

/* No event comes any more. */
static void stop(struct hf_pg_peer *p)
{
    hf_poll_remove(p->all->poll, &p->io);
    hf_poll_timer_set(p->all->poll, &p->timer, HF_NEVER);
    if (p->fd >= 0) {
        close(p->fd);
        p->fd = -1;
    }
}

static void destroy(struct hf_pg_peer *p)
{
    if (p->state == DEAD) {
        return;
    }
    stop(p);
    (void)!hf_poll_reserve(p->all->poll, -1);
    p->state = DEAD;
    hf_list_unlink(&p->task.node);
    hf_list_unlink(&p->node);
    hf_list_insert(&p->all->dead, &p->node);
    reap(p->all);
}

/* Who could not prove its name is nobody's connection: one line a second is enough. */
static void log_refused(struct hf_pg_peer *p)
{
    hf_time now = hf_poll_now(p->all->poll);
    if (now - p->all->logged >= HF_S(1)) {
        p->all->logged = now;
        hf_log_warn("peer", "connection from %s refused: %s", p->address, p->why);
    }
}

/* Tell that it is lost; it goes. */
static void finish(struct hf_pg_peer *p)
{
    struct hf_pg_peers *all = p->all;
    enter(all);
    p->state = BROKEN;
    stop(p);
    if (p->ours || p->opened) {
        all->ops->closed(all->arg, p, p->why);
    } else {
        log_refused(p);
    }
    destroy(p);
    leave(all);
}

static void on_task(struct hf_poll_task *t)
{
    finish(HF_CONTAINER_OF(t, struct hf_pg_peer, task));
}

/* It is lost; closed() follows. */
static void fail(struct hf_pg_peer *p, const char *why)
{
    (void)snprintf(p->why, sizeof(p->why), "%s", why);
    p->state = BROKEN;
    stop(p);
    hf_poll_task_add(p->all->poll, &p->task);
}

/* Why a call of OpenSSL's failed; e: its errno. */
static const char *tls_why(const struct hf_pg_peer *p, int rc, int e, char buf[160])
{
    unsigned long code = ERR_peek_error();
    int what = SSL_get_error(p->ssl, rc);
    if (what == SSL_ERROR_SYSCALL && e != 0) {
        return hf_strerror(-e);
    }
    if (what == SSL_ERROR_SSL && ERR_GET_REASON(code) != SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        const char *reason = ERR_reason_error_string(code);
        (void)snprintf(buf, 160, "%s: %s",
                       p->state == HANDSHAKE ? hf_strerror(-HF_EAUTH) : "TLS failed",
                       reason != NULL ? reason : "no reason given");
        return buf;
    }
    return "closed by the other side";
}

static void fail_tls(struct hf_pg_peer *p, int rc, int e)
{
    char why[160];
    fail(p, tls_why(p, rc, e, why));
}

/* Is the call of OpenSSL's only to be made again later? */
static bool waits(const struct hf_pg_peer *p, int rc)
{
    int what = SSL_get_error(p->ssl, rc);
    return what == SSL_ERROR_WANT_READ || what == SSL_ERROR_WANT_WRITE;
}

static void want(struct hf_pg_peer *p, bool write)
{
    hf_poll_want(p->all->poll, &p->io, HF_POLL_READ | (write ? HF_POLL_WRITE : 0));
}

/* ---- sending ---- */

/* One record. How much of it is gone for good; 0: the kernel is full, the same is to come again;
 * -1: lost. */
static ssize_t write_record(struct hf_pg_peer *p, const uint8_t *bytes, size_t n)
{
    if (p->n_records++ == RECORDS_PER_KEY) { /* leaves before the record */
        p->n_records = 0;
        (void)SSL_key_update(p->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
    }
    ERR_clear_error();
    errno = 0;
    int rc = SSL_write(p->ssl, bytes, (int)n), e = errno;
    if (rc > 0) {
        return rc;
    }
    if (waits(p, rc)) {
        return 0;
    }
    fail_tls(p, rc, e);
    return -1;
}

/* What was taken: true: all of it is gone. */
static bool write_held(struct hf_pg_peer *p)
{
    while (p->n_held > 0) {
        ssize_t k = write_record(p, p->held, p->n_held);
        if (k <= 0) {
            return false;
        }
        p->n_held -= (size_t)k;
        memmove(p->held, p->held + k, p->n_held);
    }
    return true;
}

size_t hf_pg_peer_send(struct hf_pg_peer *p, struct hf_slice bytes)
{
    size_t taken = 0;
    while (p->state == OPEN && p->n_held == 0 && taken < bytes.n) {
        size_t n = bytes.n - taken < RECORD ? bytes.n - taken : RECORD;
        ssize_t k = write_record(p, bytes.p + taken, n);
        if (k == 0) {
            memcpy(p->held, bytes.p + taken, n);
            p->n_held = n;
            want(p, true);
            k = (ssize_t)n;
        }
        taken += k > 0 ? (size_t)k : 0;
    }
    return p->state == OPEN ? taken : 0;
}

/* ---- receiving ---- */

/* What OpenSSL has read of the socket, in as many records as it came: told as one, and so confirmed
 * as one. How much; *ret_rc: of the last call. */
static size_t read_records(struct hf_pg_peer *p, int *ret_rc)
{
    uint8_t *in = p->all->in;
    size_t len = 0;
    int n;
    do {
        ERR_clear_error();
        errno = 0;
        n = SSL_read(p->ssl, in + len, (int)(READ_AT_ONCE - len));
        len += n > 0 ? (size_t)n : 0;
    } while (n > 0 && len < READ_AT_ONCE && SSL_has_pending(p->ssl));
    *ret_rc = n;
    return len;
}

/* What is left in the socket is told again, what is left in OpenSSL is not: so until that is
 * nothing; when it takes too long, no more is read ahead. */
static void receive(struct hf_pg_peer *p)
{
    struct hf_pg_peers *all = p->all;
    int rc = 1;
    for (int i = 0; p->state == OPEN && rc > 0 && (i == 0 || SSL_has_pending(p->ssl)); i++) {
        char buf[160];
        const char *why = NULL;
        SSL_set_read_ahead(p->ssl, i < READS_MAX);
        size_t n = read_records(p, &rc);
        int e = errno;
        if (rc <= 0 && !waits(p, rc)) {
            why = tls_why(p, rc, e, buf);
        }
        if (n > 0) {
            all->ops->bytes(all->arg, p, hf_slice(all->in, n));
        }
        if (why != NULL && p->state == OPEN) {
            fail(p, why);
        }
    }
}

static void on_open(struct hf_pg_peer *p, unsigned ready)
{
    if (p->n_held > 0 && ready & HF_POLL_WRITE && write_held(p)) {
        want(p, false);
        p->all->ops->room(p->all->arg, p);
    }
    if (p->state == OPEN && ready & (HF_POLL_READ | HF_POLL_HUP)) {
        receive(p);
    }
}

/* ---- beginning ---- */

/* A host has one connection to us: the one before it is over, whether it knows or not. */
static void supersede(struct hf_pg_peer *p)
{
    HF_LIST_FOREACH (n, &p->all->peers) {
        struct hf_pg_peer *old = HF_CONTAINER_OF(n, struct hf_pg_peer, node);
        if (old != p && !old->ours && old->opened && old->state <= BROKEN &&
            strcmp(old->name, p->name) == 0) {
            if (old->state == OPEN) { /* else it knows why already */
                (void)snprintf(old->why, sizeof(old->why), "the host has connected anew");
            }
            finish(old);
            return;
        }
    }
}

static void handshake(struct hf_pg_peer *p)
{
    char name[HF_HOST_NAME_MAX + 1];
    ERR_clear_error();
    errno = 0;
    int rc = SSL_do_handshake(p->ssl), e = errno;
    if (rc != 1 && waits(p, rc)) {
        want(p, SSL_get_error(p->ssl, rc) == SSL_ERROR_WANT_WRITE);
        return;
    }
    if (rc != 1) {
        fail_tls(p, rc, e);
        return;
    }
    hf_tls_peer(p->ssl, name);
    if (name[0] == 0 || (p->ours && strcmp(name, p->name) != 0)) {
        fail(p, hf_strerror(-HF_EAUTH));
        return;
    }
    memcpy(p->name, name, sizeof(p->name));
    hf_poll_timer_set(p->all->poll, &p->timer, HF_NEVER);
    want(p, false);
    if (!p->ours) {
        supersede(p);
    }
    if (p->state == HANDSHAKE) {
        p->state = OPEN;
        p->opened = true;
        p->all->ops->opened(p->all->arg, p, p->name);
    }
    if (p->state == OPEN) {
        receive(p);
    }
}

static void on_connected(struct hf_pg_peer *p)
{
    int e = 0;
    socklen_t len = sizeof(e);
    if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 || e != 0) {
        fail(p, hf_strerror(-(e != 0 ? e : errno)));
        return;
    }
    p->state = HANDSHAKE;
    handshake(p);
}

/* ---- the end ---- */

/* What was sent is not to be lost by a RST, which unread bytes would cause: the other side closes
 * first, or has had its time. */
static void flush_on(struct hf_pg_peer *p)
{
    uint8_t unread[4096];
    ssize_t n = 1;
    for (int i = 0; i < READS_MAX && n > 0; i++) {
        n = recv(p->fd, unread, sizeof(unread), MSG_DONTWAIT);
    }
    bool at_end = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    if (!write_held(p) && p->state == BROKEN) { /* nobody is told */
        destroy(p);
        return;
    }
    if (p->n_held == 0 && !p->half_closed) {
        p->half_closed = true;
        ERR_clear_error();
        (void)SSL_shutdown(p->ssl);
        (void)shutdown(p->fd, SHUT_WR);
    }
    if (at_end && p->n_held == 0) {
        destroy(p);
        return;
    }
    hf_poll_want(p->all->poll, &p->io,
                 (at_end ? 0 : HF_POLL_READ) | (p->n_held > 0 ? HF_POLL_WRITE : 0));
}

void hf_pg_peer_close(struct hf_pg_peer *p, bool flush)
{
    struct hf_pg_peers *all = p->all;
    if (p->state != OPEN || !flush) {
        destroy(p);
        return;
    }
    enter(all);
    p->state = FLUSHING;
    hf_poll_timer_set(all->poll, &p->timer, hf_poll_now(all->poll) + FLUSH_LIMIT);
    hf_poll_kick(all->poll);
    flush_on(p);
    leave(all);
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    struct hf_pg_peer *p = HF_CONTAINER_OF(t, struct hf_pg_peer, timer);
    if (p->state == FLUSHING) {
        destroy(p);
    } else {
        fail(p, p->state == CONNECTING ? "no connection in 2 s" : "no TLS handshake in 2 s");
    }
}

static void on_io(struct hf_poll_io *io, unsigned ready)
{
    struct hf_pg_peer *p = HF_CONTAINER_OF(io, struct hf_pg_peer, io);
    struct hf_pg_peers *all = p->all;
    enter(all);
    switch (p->state) {
    case CONNECTING:
        on_connected(p);
        break;
    case HANDSHAKE:
        handshake(p);
        break;
    case OPEN:
        on_open(p, ready);
        break;
    case FLUSHING:
        flush_on(p);
        break;
    case BROKEN: /* not watched */
    case DEAD:
        break;
    }
    leave(all);
}

/* ---- both ways of making one ---- */

/* fd is its from now on, also if this fails. server: NULL: accepted. */
static int start(struct hf_pg_peers *all, int fd, const char *server, const struct hf_addr *address,
                 struct hf_pg_peer **ret_peer)
{
    int on = 1;
    unsigned timeout = USER_TIMEOUT_MS;
    struct hf_pg_peer *p = hf_alloc(sizeof(*p));
    int rc = p == NULL ? -ENOMEM : hf_poll_reserve(all->poll, 1);
    if (rc != 0) {
        hf_free(p);
        close(fd);
        return rc;
    }
    p->all = all;
    p->fd = fd;
    p->ours = server != NULL;
    p->state = p->ours ? CONNECTING : HANDSHAKE;
    p->io.fd = -1;
    p->timer.fn = on_timer;
    p->task.fn = on_task;
    hf_list_init(&p->task.node);
    hf_list_init(&p->node);
    hf_list_insert(&all->peers, &p->node);
    (void)snprintf(p->name, sizeof(p->name), "%s", p->ours ? server : "");
    hf_addr_str(address, p->address);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
    rc = hf_tls_new(all->tls, server, &p->ssl);
    if (rc == 0) {
        SSL_set_mode(p->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_set_read_ahead(p->ssl, 1); /* a record in one system call, not two */
        rc = SSL_set_fd(p->ssl, fd) == 1 ? 0 : -ENOMEM;
    }
    if (rc == 0 && p->ours &&
        connect(fd, (const struct sockaddr *)&address->ss, address->len) < 0 &&
        errno != EINPROGRESS) {
        rc = -errno;
    }
    rc =
        rc ? rc : hf_poll_add(all->poll, &p->io, fd, p->ours ? HF_POLL_WRITE : HF_POLL_READ, on_io);
    if (rc != 0) {
        destroy(p);
        return rc;
    }
    hf_poll_timer_set(all->poll, &p->timer, hf_poll_now(all->poll) + HANDSHAKE_LIMIT);
    hf_poll_kick(all->poll);
    *ret_peer = p;
    return 0;
}

int hf_pg_peer_connect(struct hf_pg_peers *all, const char *name, const struct hf_addr *to,
                       struct hf_pg_peer **ret_peer)
{
    int fd = socket(to->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : start(all, fd, name, to, ret_peer);
}

bool hf_pg_peer_is_ours(const struct hf_pg_peer *p)
{
    return p->ours;
}

/* Room for one more: whoever has not shown for the longest time who it is makes place. */
static bool make_room(struct hf_pg_peers *all)
{
    struct hf_pg_peer *unknown = NULL;
    unsigned n_accepted = 0;
    HF_LIST_FOREACH (n, &all->peers) {
        struct hf_pg_peer *p = HF_CONTAINER_OF(n, struct hf_pg_peer, node);
        n_accepted += !p->ours;
        if (!p->ours && p->state == HANDSHAKE && unknown == NULL) {
            unknown = p;
        }
    }
    if (n_accepted < ACCEPTED_MAX) {
        return true;
    }
    if (unknown != NULL) {
        (void)snprintf(unknown->why, sizeof(unknown->why), "too many connections");
        finish(unknown);
    }
    return unknown != NULL;
}

static void on_accept_timer(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    struct hf_pg_peers *all = HF_CONTAINER_OF(t, struct hf_pg_peers, timer);
    hf_poll_want(all->poll, &all->io, HF_POLL_READ);
}

static void on_accept(struct hf_poll_io *io, unsigned ready)
{
    (void)ready;
    struct hf_pg_peers *all = HF_CONTAINER_OF(io, struct hf_pg_peers, io);
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        struct hf_addr from = {.len = sizeof(from.ss)};
        struct hf_pg_peer *p;
        int fd =
            accept4(io->fd, (struct sockaddr *)&from.ss, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && !make_room(all)) {
            close(fd);
        } else if (fd >= 0) {
            (void)!start(all, fd, NULL, &from, &p); /* out of memory: it tries again */
        } else if (errno == EAGAIN) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            hf_log_warn("peer", "cannot accept a manager: %s; trying again in 100 ms",
                        hf_strerror(-errno));
            hf_poll_want(all->poll, io, 0);
            hf_poll_timer_set(all->poll, &all->timer, hf_poll_now(all->poll) + PAUSE);
            return;
        } /* others: it is gone */
    }
}

/* ---- all of them ---- */

static int open_listener(struct hf_pg_peers *all, const struct hf_addr *a, struct hf_err *err)
{
    int on = 1, rc = 0;
    char text[HF_ADDR_STR_LEN];
    int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if (fd >= 0 && a->ss.ss_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (fd < 0 || bind(fd, (const struct sockaddr *)&a->ss, a->len) < 0 ||
        listen(fd, BACKLOG) < 0) {
        rc = -errno;
    }
    rc = rc ? rc : hf_poll_add(all->poll, &all->io, fd, HF_POLL_READ, on_accept);
    if (rc == 0) {
        return 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    return hf_err_set(err, rc,
                      "cannot listen on %s: %s; change service.peer_listen or end who listens "
                      "there",
                      hf_addr_str(a, text), hf_strerror(rc));
}

int hf_pg_peers_open(const struct hf_pg_peers_options *o, struct hf_err *err,
                     struct hf_pg_peers **ret_peers)
{
    struct hf_pg_peers *all = hf_alloc(sizeof(*all));
    int rc = all == NULL ? -ENOMEM : hf_poll_reserve(o->poll, 1);
    if (rc != 0) {
        hf_free(all);
        return hf_err_set(err, rc, "out of memory");
    }
    all->poll = o->poll;
    all->ops = o->ops;
    all->arg = o->arg;
    all->io.fd = -1;
    all->timer.fn = on_accept_timer;
    all->logged = -HF_S(1);
    hf_list_init(&all->peers);
    hf_list_init(&all->dead);
    rc = hf_tls_create(o->key, o->host, "pair", &all->tls);
    if (rc != 0) {
        hf_err_set(err, rc, "host name '%.64s': %s", o->host, hf_strerror(rc));
    }
    if (rc == 0 && o->listen != NULL) {
        rc = open_listener(all, o->listen, err);
    }
    if (rc != 0) {
        hf_pg_peers_close(all);
        return rc;
    }
    *ret_peers = all;
    return 0;
}

uint16_t hf_pg_peers_port(const struct hf_pg_peers *all)
{
    return all->io.fd < 0 ? 0 : hf_addr_port_of(all->io.fd);
}

void hf_pg_peers_close(struct hf_pg_peers *all)
{
    if (all == NULL) {
        return;
    }
    enter(all);
    int fd = all->io.fd;
    hf_poll_remove(all->poll, &all->io);
    if (fd >= 0) {
        close(fd);
    }
    hf_poll_timer_set(all->poll, &all->timer, HF_NEVER);
    (void)!hf_poll_reserve(all->poll, -1);
    while (!hf_list_empty(&all->peers)) {
        destroy(HF_CONTAINER_OF(all->peers.next, struct hf_pg_peer, node));
    }
    all->closed = true;
    leave(all);
}
