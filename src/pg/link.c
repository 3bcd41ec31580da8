/* Connections: one receive buffer for all, one send per connection and step. */
#include "pg/link.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

#define KEEP_IDLE_S 60
#define KEEP_INTERVAL_S 10
#define KEEP_COUNT 6
#define SMALL 2048

static void on_io(struct hf_poll_io *io, unsigned ready);
static void hold(struct hf_pg_link *l, struct hf_slice rest);

/* ---- what all share ---- */

static void flush_all(void *arg)
{
    hf_pg_wire_flush(arg);
}

int hf_pg_wire_create(struct hf_loop *loop, struct hf_pg_memory *memory,
                      struct hf_pg_wire **ret_wire)
{
    struct hf_pg_wire *w = hf_alloc(sizeof(*w));
    if (!w) {
        return -ENOMEM;
    }
    w->memory = memory;
    int rc = hf_poll_create(loop, flush_all, w, &w->poll);
    if (rc) {
        hf_free(w);
        return rc;
    }
    *ret_wire = w;
    return 0;
}

void hf_pg_wire_destroy(struct hf_pg_wire *w)
{
    if (w) {
        hf_poll_destroy(w->poll);
        hf_free(w);
    }
}

/* ---- sending ---- */

static void want(struct hf_pg_link *l)
{
    unsigned bits = l->connecting || l->n_out > l->n_held ? HF_POLL_WRITE : 0;
    if (!l->connecting && !l->paused && !l->full && !l->broken) {
        bits |= HF_POLL_READ;
    }
    hf_poll_want(l->wire->poll, &l->io, bits);
}

/* It was drained, or broke. */
static void on_task(struct hf_poll_task *t)
{
    struct hf_pg_link *l = HF_CONTAINER_OF(t, struct hf_pg_link, task);
    if (!l->broken) {
        hf_pg_link_again(l);
    } else if (!l->told) {
        l->told = true;
        l->ops->gone(l, l->why);
    }
}

void hf_pg_link_break(struct hf_pg_link *l, const char *why)
{
    if (!l->broken) {
        l->broken = true;
        l->why = why;
        hf_poll_remove(l->wire->poll, &l->io);
        hf_poll_task_add(l->wire->poll, &l->task);
    }
}

/* Keep what the kernel did not take. */
static void keep(struct hf_pg_link *l, struct hf_slice s)
{
    if (s.n == 0 || l->broken) {
        return;
    }
    if (l->out_off && l->out_off + l->n_out + s.n > l->out_room) {
        memmove(l->out, l->out + l->out_off, l->n_out);
        l->out_off = 0;
    }
    if (l->n_out + s.n > l->out_room) {
        size_t room = l->out_room ? l->out_room : 4096;
        while (room < l->n_out + s.n) {
            room *= 2;
        }
        uint8_t *more = hf_realloc(l->out, room);
        if (!more) {
            hf_pg_link_break(l, "out of memory");
            return;
        }
        l->wire->memory->used += room - l->out_room;
        l->out = more;
        l->out_room = room;
    }
    memcpy(l->out + l->out_off + l->n_out, s.p, s.n);
    l->n_out += s.n;
}

static void drop_out(struct hf_pg_link *l)
{
    l->wire->memory->used -= l->out_room;
    hf_free(l->out);
    l->out = NULL;
    l->out_off = l->n_out = l->out_room = l->n_held = l->n_sealed = 0;
}

static const char *errno_text(int e)
{
    switch (e) {
    case ECONNRESET:
    case EPIPE:
        return "connection reset by the other side";
    case ETIMEDOUT:
        return "connection timed out";
    case EHOSTUNREACH:
    case ENETUNREACH:
        return "host unreachable";
    default:
        return "connection failed";
    }
}

/* A few bytes in several pieces are cheaper copied into one. */
static unsigned join(struct iovec *piece, unsigned n, uint8_t small[SMALL])
{
    size_t len = 0;
    for (unsigned i = 0; i < n; i++) {
        len += piece[i].iov_len;
    }
    if (n == 1 || len > SMALL) {
        return n;
    }
    len = 0;
    for (unsigned i = 0; i < n; i++) {
        memcpy(small + len, piece[i].iov_base, piece[i].iov_len);
        len += piece[i].iov_len;
    }
    piece[0] = (struct iovec){.iov_base = small, .iov_len = len};
    return 1;
}

/* Pieces to the socket, or behind what waits already. */
static void send_pieces(struct hf_pg_link *l, struct iovec *piece, unsigned n)
{
    size_t sent = 0;
    uint8_t small[SMALL];
    if (l->hold) {
        size_t before = l->n_out;
        for (unsigned i = 0; i < n; i++) {
            keep(l, hf_slice(piece[i].iov_base, piece[i].iov_len));
        }
        l->n_held += l->n_out - before;
        return;
    }
    if (l->n_out == 0 && !l->connecting && !l->broken) {
        ssize_t k;
        n = join(piece, n, small);
        if (n == 1) {
            k = send(l->fd, piece[0].iov_base, piece[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        } else {
            struct msghdr m = {.msg_iov = piece, .msg_iovlen = n};
            k = sendmsg(l->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        l->wire->n_send++;
        if (k < 0 && errno != EAGAIN && errno != EINTR) {
            hf_pg_link_break(l, errno_text(errno));
            return;
        }
        sent = k > 0 ? (size_t)k : 0;
        l->wire->n_send_bytes += sent;
        l->n_sent += sent;
    }
    for (unsigned i = 0; i < n; i++) {
        struct hf_slice s = hf_slice(piece[i].iov_base, piece[i].iov_len);
        size_t gone = sent < s.n ? sent : s.n;
        sent -= gone;
        keep(l, hf_slice(s.p + gone, s.n - gone));
    }
    if (l->n_out) {
        want(l);
    }
}

/* hf_tls_stream's: records to be sent. */
static void on_cipher(void *arg, struct hf_slice bytes)
{
    struct hf_pg_link *l = arg;
    struct hf_pg_wire *w = l->wire;
    while (bytes.n) {
        size_t n = sizeof(w->cipher) - w->n_cipher;
        n = n < bytes.n ? n : bytes.n;
        memcpy(w->cipher + w->n_cipher, bytes.p, n);
        w->n_cipher += n;
        bytes = hf_slice(bytes.p + n, bytes.n - n);
        if (bytes.n) {
            struct iovec v = {.iov_base = w->cipher, .iov_len = w->n_cipher};
            w->n_cipher = 0;
            send_pieces(l, &v, 1);
        }
    }
}

static void send_cipher(struct hf_pg_link *l)
{
    struct hf_pg_wire *w = l->wire;
    if (w->n_cipher) {
        struct iovec v = {.iov_base = w->cipher, .iov_len = w->n_cipher};
        w->n_cipher = 0;
        send_pieces(l, &v, 1);
    }
}

/* Small pieces share a record. */
static void encipher(struct hf_pg_link *l, const struct iovec *piece, unsigned n)
{
    uint8_t small[16384];
    size_t n_small = 0;
    int rc = 0;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        struct hf_slice s = hf_slice(piece[i].iov_base, piece[i].iov_len);
        if (n == 1 || s.n > sizeof(small)) {
            rc = hf_tls_stream_write(l->tls, hf_slice(small, n_small));
            n_small = 0;
            rc = rc ? rc : hf_tls_stream_write(l->tls, s);
            continue;
        }
        if (n_small + s.n > sizeof(small)) {
            rc = hf_tls_stream_write(l->tls, hf_slice(small, n_small));
            n_small = 0;
        }
        memcpy(small + n_small, s.p, s.n);
        n_small += s.n;
    }
    rc = rc ? rc : hf_tls_stream_write(l->tls, hf_slice(small, n_small));
    send_cipher(l);
    if (rc) {
        hf_pg_link_break(l, "TLS failed");
    }
}

static void gather_flush(struct hf_pg_gather *g)
{
    struct hf_pg_link *l = g->link;
    if (!l) {
        return;
    }
    unsigned n = g->n;
    l->gather = NULL;
    g->link = NULL;
    g->n = 0;
    g->n_copies = 0;
    if (l->broken || n == 0) {
        return;
    }
    if (l->tls) {
        encipher(l, g->piece, n);
    } else {
        send_pieces(l, g->piece, n);
    }
}

void hf_pg_wire_flush(struct hf_pg_wire *w)
{
    for (unsigned i = 0; i < HF_PG_GATHERS; i++) {
        gather_flush(&w->gather[i]);
    }
}

static struct hf_pg_gather *gather_of(struct hf_pg_link *l)
{
    struct hf_pg_wire *w = l->wire;
    if (l->gather) {
        return l->gather;
    }
    struct hf_pg_gather *g = &w->gather[0];
    for (unsigned i = 0; i < HF_PG_GATHERS && g->link; i++) {
        g = &w->gather[i];
    }
    gather_flush(g); /* all are in use: the first one's goes now */
    g->link = l;
    l->gather = g;
    return g;
}

static void gather_piece(struct hf_pg_gather *g, const uint8_t *p, size_t n)
{
    struct iovec *last = g->n ? &g->piece[g->n - 1] : NULL;
    if (last && (const uint8_t *)last->iov_base + last->iov_len == p) {
        last->iov_len += n;
        return;
    }
    g->piece[g->n++] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = n};
}

void hf_pg_link_send(struct hf_pg_link *l, struct hf_slice s)
{
    if (l->broken) {
        return;
    }
    const struct hf_slice stable = l->wire->stable;
    bool stays = stable.n && s.p >= stable.p && s.p < stable.p + stable.n;
    while (s.n && !l->broken) {
        struct hf_pg_gather *g = gather_of(l);
        size_t n = stays ? s.n : HF_PG_GATHER_COPIES - g->n_copies;
        n = n < s.n ? n : s.n;
        if (g->n == HF_PG_GATHER_PIECES || n == 0) {
            gather_flush(g);
            continue;
        }
        if (stays) {
            gather_piece(g, s.p, n);
        } else {
            memcpy(g->copies + g->n_copies, s.p, n);
            gather_piece(g, g->copies + g->n_copies, n);
            g->n_copies += n;
        }
        s = hf_slice(s.p + n, s.n - n);
    }
}

static void on_writable(struct hf_pg_link *l)
{
    if (l->n_out == l->n_held) {
        want(l);
        return;
    }
    ssize_t k = send(l->fd, l->out + l->out_off, l->n_out - l->n_held, MSG_NOSIGNAL | MSG_DONTWAIT);
    l->wire->n_send++;
    if (k < 0) {
        if (errno == EAGAIN || errno == EINTR) {
            want(l); /* what was let out just now was not waited for yet */
        } else {
            hf_pg_link_break(l, errno_text(errno));
        }
        return;
    }
    l->wire->n_send_bytes += (size_t)k;
    l->n_sent += (size_t)k;
    bool pressed = l->n_out > HF_PG_PRESSURE;
    l->out_off += (size_t)k;
    l->n_out -= (size_t)k;
    if (l->n_out == 0) {
        drop_out(l);
    }
    want(l);
    if (l->n_out == 0 || (pressed && l->n_out <= HF_PG_PRESSURE)) {
        l->ops->room(l);
    }
}

/* ---- output commit ---- */

void hf_pg_link_hold(struct hf_pg_link *l)
{
    l->hold = true; /* for what is gathered already, too */
}

struct hf_slice hf_pg_link_unsealed(const struct hf_pg_link *l)
{
    size_t n = l->n_held - l->n_sealed;
    return n ? hf_slice(l->out + l->out_off + l->n_out - n, n) : hf_slice(NULL, 0);
}

size_t hf_pg_link_seal(struct hf_pg_link *l)
{
    size_t n = l->n_held - l->n_sealed;
    l->n_sealed = l->n_held;
    return n;
}

void hf_pg_link_let(struct hf_pg_link *l, size_t n)
{
    if (n == 0 || l->broken) {
        return;
    }
    assert(n <= l->n_sealed);
    l->n_sealed -= n;
    l->n_held -= n;
    if (!l->connecting) {
        on_writable(l);
    }
}

void hf_pg_link_release(struct hf_pg_link *l)
{
    l->hold = false;
    l->n_sealed = l->n_held;
    hf_pg_link_let(l, l->n_held);
}

void hf_pg_link_drain(struct hf_pg_link *l)
{
    struct hf_pg_wire *w = l->wire;
    ssize_t n;
    l->in.n_max = SIZE_MAX / 2; /* as much as the kernel had room for */
    while (!l->broken && (n = recv(l->fd, w->recv, sizeof(w->recv), MSG_DONTWAIT)) > 0) {
        l->n_received += (size_t)n;
        w->n_recv_bytes += (size_t)n;
        hold(l, hf_slice(w->recv, (size_t)n));
    }
    hf_poll_task_add(w->poll, &l->task); /* it is offered */
    hf_poll_again(w->poll, &l->io);      /* the end, or an error, is told */
}

void hf_pg_link_preload(struct hf_pg_link *l, struct hf_slice in, struct hf_slice out)
{
    hold(l, in);
    keep(l, out);
    want(l);
}

/* ---- receiving ---- */

static void hold(struct hf_pg_link *l, struct hf_slice rest)
{
    size_t before = l->in.room;
    hf_buf_add(&l->in, rest);
    l->wire->memory->used += l->in.room - before;
    if (l->in.err) {
        hf_pg_link_break(l, l->in.err == -ENOMEM ? "out of memory" : "sent too much");
    }
}

static void held_consumed(struct hf_pg_link *l, size_t n)
{
    if (n < l->in.n) {
        hf_buf_consume(&l->in, n);
    } else {
        l->wire->memory->used -= l->in.room;
        hf_buf_fini(&l->in);
    }
    bool full = l->in.n >= HF_PG_LINK_IN_MAX;
    if (full != l->full) {
        l->full = full;
        want(l);
    }
}

/* Bytes that came, in a shared buffer. */
static void deliver(struct hf_pg_link *l, struct hf_slice s)
{
    if (s.n == 0 || l->broken) {
        return;
    }
    if (l->in.n) {
        hold(l, s);
        hf_pg_link_again(l);
        return;
    }
    l->wire->stable = s;
    size_t n = l->ops->bytes(l, s);
    hf_pg_wire_flush(l->wire);
    l->wire->stable = (struct hf_slice){0};
    if (n < s.n && !l->broken) {
        hold(l, hf_slice(s.p + n, s.n - n));
        l->full = l->in.n >= HF_PG_LINK_IN_MAX;
        if (l->full) {
            want(l);
        }
    }
    if (l->ops->after) {
        l->ops->after(l);
    }
}

void hf_pg_link_again(struct hf_pg_link *l)
{
    if (l->in.n == 0 || l->broken) {
        return;
    }
    struct hf_slice outer = l->wire->stable;
    hf_pg_wire_flush(l->wire); /* pieces of the outer one's */
    l->wire->stable = hf_buf_slice(&l->in);
    size_t n = l->ops->bytes(l, hf_buf_slice(&l->in));
    hf_pg_wire_flush(l->wire);
    l->wire->stable = outer;
    held_consumed(l, n);
    if (l->ops->after) {
        l->ops->after(l);
    }
}

/* Enciphered bytes that came. */
static void decipher(struct hf_pg_link *l, struct hf_slice s)
{
    hf_tls_stream_feed(l->tls, s);
    if (l->handshake) {
        const char *why = NULL;
        int rc = hf_tls_stream_handshake(l->tls, &why);
        send_cipher(l);
        if (rc == -EAGAIN) {
            return;
        }
        l->handshake = false;
        l->ops->tls(l, rc, why);
        if (rc || l->broken || !l->tls) {
            return;
        }
    }
    for (;;) {
        ssize_t n = hf_tls_stream_read(l->tls, l->wire->plain, sizeof(l->wire->plain));
        send_cipher(l);
        if (n == 0 || n == -EAGAIN) {
            break;
        }
        if (n < 0) {
            hf_pg_link_break(l, n == -HF_ECLOSED ? "closed by the other side" : "TLS failed");
            return;
        }
        deliver(l, hf_slice(l->wire->plain, (size_t)n));
        if (l->broken || !l->tls) {
            return;
        }
    }
}

static void on_readable(struct hf_pg_link *l)
{
    struct hf_pg_wire *w = l->wire;
    ssize_t n = recv(l->fd, w->recv, sizeof(w->recv), MSG_DONTWAIT);
    w->n_recv++;
    if (n == sizeof(w->recv)) { /* there may be more */
        hf_poll_again(w->poll, &l->io);
    }
    if (n > 0) {
        w->n_recv_bytes += (size_t)n;
        l->n_received += (size_t)n;
        l->tls ? decipher(l, hf_slice(w->recv, (size_t)n))
               : deliver(l, hf_slice(w->recv, (size_t)n));
    } else if (n == 0) {
        hf_pg_link_break(l, "closed by the other side");
    } else if (errno != EAGAIN && errno != EINTR) {
        hf_pg_link_break(l, errno_text(errno));
    }
}

static void on_connected(struct hf_pg_link *l)
{
    int e = 0;
    socklen_t len = sizeof(e);
    getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &e, &len);
    l->connecting = false;
    want(l);
    l->ops->opened(l, -e);
}

static void on_io(struct hf_poll_io *io, unsigned ready)
{
    struct hf_pg_link *l = HF_CONTAINER_OF(io, struct hf_pg_link, io);
    if (l->connecting) {
        on_connected(l);
        return;
    }
    if (ready & HF_POLL_WRITE) { /* may not destroy l: that is a task's */
        on_writable(l);
    }
    if (l->broken) {
        return;
    }
    if (ready & HF_POLL_READ) {
        on_readable(l);
    } else if (ready & HF_POLL_HUP && io->want == 0) {
        if (l->patient) {
            return; /* it is read to its end when it is read again */
        }
        hf_pg_link_break(l, "closed by the other side");
    } else if (ready & HF_POLL_HUP && !(io->want & HF_POLL_READ)) {
        hf_pg_link_break(l, "connection reset by the other side");
    } else if (ready & HF_POLL_HUP) {
        on_readable(l); /* tells which error */
    }
}

/* ---- life ---- */

int hf_pg_link_init(struct hf_pg_link *l, struct hf_pg_wire *w, int fd, bool connecting,
                    const struct hf_pg_link_ops *ops)
{
    *l = (struct hf_pg_link){.wire = w, .ops = ops, .fd = fd, .connecting = connecting};
    l->task.fn = on_task;
    hf_list_init(&l->task.node);
    hf_buf_init(&l->in, HF_PG_LINK_IN_MAX + HF_PG_WIRE_RECV);
    return hf_poll_add(w->poll, &l->io, fd,
                       (connecting ? HF_POLL_WRITE : HF_POLL_READ) | HF_POLL_EDGE, on_io);
}

void hf_pg_link_fini(struct hf_pg_link *l)
{
    if (!l->wire) {
        return;
    }
    if (l->gather) {
        l->gather->link = NULL;
        l->gather->n = 0;
        l->gather->n_copies = 0;
    }
    hf_poll_remove(l->wire->poll, &l->io);
    hf_list_unlink(&l->task.node);
    hf_tls_stream_destroy(l->tls);
    drop_out(l);
    l->wire->memory->used -= l->in.room;
    hf_buf_fini(&l->in);
    if (l->fd >= 0) {
        if (l->twice) {
            (void)shutdown(l->fd, SHUT_RDWR);
        }
        close(l->fd);
    }
    l->wire = NULL;
}

int hf_pg_link_start_tls(struct hf_pg_link *l, struct hf_tls_context *context,
                         const char *server_name, struct hf_slice input)
{
    hf_pg_wire_flush(l->wire); /* the S before it goes in the clear */
    int rc = hf_tls_stream_create(context, server_name, on_cipher, l, &l->tls);
    if (rc) {
        return rc;
    }
    l->handshake = true;
    decipher(l, input); /* a client begins with its hello */
    return 0;
}

void hf_pg_link_pause(struct hf_pg_link *l, bool paused)
{
    if (l->paused != paused) {
        l->paused = paused;
        want(l);
    }
}

void hf_pg_socket_options(int fd, int64_t user_timeout_ms)
{
    int on = 1, idle = KEEP_IDLE_S, interval = KEEP_INTERVAL_S, count = KEEP_COUNT;
    unsigned timeout = (unsigned)user_timeout_ms;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    if (timeout) {
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
    }
}
