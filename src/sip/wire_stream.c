/* SIP's sockets of one worker: TCP and TLS connections. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "sip/wire_impl.h"

#define RAW_LEN 65536u
#define ROUNDS 4       /* reads of one connection in a turn; then the others */
#define ACCEPTS 32     /* in a turn */
#define OUT_KEEP 2048u /* bytes of an empty buffer that a connection keeps */
#define SWEEP HF_S(1)
#define KEEPALIVE_S 120

#define CONNS_MAX 20000
#define OUT_MAX (256u << 10)

static void touch(struct hf_sip_conn *c, enum hf_sip_idle kind)
{
    c->t->c.kept += (kind == HF_SIP_IDLE_KEPT) - (c->kind == HF_SIP_IDLE_KEPT);
    c->kind = kind;
    c->active = hf_poll_now(c->t->poll);
    hf_list_unlink(&c->idle);
    hf_list_insert(&c->t->idle[kind], &c->idle);
}

static void mark_dirty(struct hf_sip_conn *c)
{
    if (hf_list_empty(&c->dirty)) {
        hf_list_insert(&c->t->dirty, &c->dirty);
    }
}

/* ---- finding ---- */

static struct hf_sip_peer_key key_of(uint8_t transport, const struct hf_endpoint *peer)
{
    struct hf_sip_peer_key k = {
        .transport = transport, .family = peer->family, .port = peer->port, .scope = peer->scope};
    memcpy(k.addr, peer->addr, sizeof(k.addr));
    return k;
}

static struct hf_sip_conn *find_conn(const struct hf_sip_wire *t, uint64_t conn)
{
    return hf_map_get(&t->by_conn, hf_slice(&conn, sizeof(conn)));
}

/* From now on who sends to that address sends over it. */
static void index_peer(struct hf_sip_conn *c)
{
    c->key = key_of(c->flow.transport, &c->flow.peer);
    struct hf_slice key = hf_slice(&c->key, sizeof(c->key));
    c->by_peer = !hf_map_get(&c->t->by_peer, key) && hf_map_put(&c->t->by_peer, key, c) == 0;
}

/* ---- the end ---- */

static void destroy(struct hf_sip_conn *c)
{
    hf_tls_stream_destroy(c->tls);
    hf_buf_fini(&c->in);
    hf_buf_fini(&c->wait);
    hf_buf_fini(&c->out);
    hf_free(c);
}

static void unlink_all(struct hf_sip_conn *c)
{
    struct hf_sip_wire *t = c->t;
    int fd = c->io.fd;
    hf_poll_remove(t->poll, &c->io);
    close(fd);
    hf_list_unlink(&c->idle);
    hf_list_unlink(&c->stalled);
    hf_map_remove(&t->by_conn, hf_slice(&c->flow.conn, sizeof(c->flow.conn)));
    if (c->by_peer) {
        hf_map_remove(&t->by_peer, hf_slice(&c->key, sizeof(c->key)));
    }
    t->c.kept -= c->kind == HF_SIP_IDLE_KEPT;
    t->n_conns--;
}

/* At once; told and freed by the flush at the end of the turn. */
static void end(struct hf_sip_conn *c)
{
    if (c->state != HF_SIP_CONN_ENDED) {
        unlink_all(c);
        c->state = HF_SIP_CONN_ENDED;
        c->t->c.closed++;
        mark_dirty(c);
    }
}

/* When all is written. */
static void end_softly(struct hf_sip_conn *c)
{
    if (c->state != HF_SIP_CONN_ENDED && c->state != HF_SIP_CONN_CLOSING) {
        if (c->tls && c->state == HF_SIP_CONN_OPEN) {
            hf_tls_stream_close(c->tls);
        }
        c->state = HF_SIP_CONN_CLOSING;
        mark_dirty(c);
    }
}

/* ---- bytes that go ---- */

static size_t out_max(const struct hf_sip_wire *t)
{
    return t->conf.out_max ? t->conf.out_max : OUT_MAX;
}

static void on_records(void *arg, struct hf_slice records)
{
    struct hf_sip_conn *c = arg;
    hf_buf_add(&c->out, records);
    mark_dirty(c);
}

static void stall(struct hf_sip_conn *c, bool stalled)
{
    hf_list_unlink(&c->stalled);
    if (stalled) {
        c->stalled_at = hf_poll_now(c->t->poll);
        hf_list_insert(&c->t->stalled, &c->stalled);
    }
    bool reads = c->state != HF_SIP_CONN_CLOSING;
    hf_poll_want(c->t->poll, &c->io, (reads ? HF_POLL_READ : 0) | (stalled ? HF_POLL_WRITE : 0));
}

static void write_out(struct hf_sip_conn *c)
{
    if (c->state == HF_SIP_CONN_CONNECTING) {
        return;
    }
    bool moved = false;
    while (c->out.n) {
        ssize_t n = send(c->io.fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            if (moved || hf_list_empty(&c->stalled)) {
                stall(c, true);
            }
            return;
        }
        if (n < 0) {
            end(c);
            return;
        }
        hf_buf_consume(&c->out, (size_t)n);
        moved = true;
    }
    if (c->out.room > OUT_KEEP) {
        hf_buf_fini(&c->out);
    }
    if (c->state == HF_SIP_CONN_CLOSING) {
        end(c);
    } else {
        stall(c, false);
    }
}

static void put(struct hf_sip_conn *c, struct hf_slice bytes)
{
    struct hf_sip_wire *t = c->t;
    struct hf_buf *b = &c->out;
    if (!c->tls) {
        hf_buf_add(b, bytes);
    } else if (c->state == HF_SIP_CONN_OPEN) {
        if (hf_tls_stream_write(c->tls, bytes)) {
            end(c);
            return;
        }
    } else {
        b = &c->wait;
        hf_buf_add(b, bytes);
    }
    if (b == &c->out && b->n > out_max(t)) { /* all of one turn may be more: is it left unread? */
        write_out(c);
    }
    if (c->state != HF_SIP_CONN_ENDED && (b->err || b->n > out_max(t))) {
        t->c.closed_slow++;
        end(c);
    }
    mark_dirty(c);
}

/* ---- bytes that come ---- */

static void fault(struct hf_sip_conn *c)
{
    c->t->c.closed_fault++;
    end_softly(c);
}

static void whole(struct hf_sip_conn *c, struct hf_slice text, enum hf_sip_fault f)
{
    struct hf_sip_wire *t = c->t;
    struct hf_sip_flow from = c->flow; /* it may end meanwhile */
    t->c.stream_in++;
    touch(c, c->kind == HF_SIP_IDLE_KEPT ? HF_SIP_IDLE_KEPT : HF_SIP_IDLE_USED);
    if (!t->events.message(t->arg, text, f, &from) || f != HF_SIP_OK) {
        fault(c);
    }
}

/* Take messages off; returns how many bytes. */
static size_t take_frames(struct hf_sip_conn *c, struct hf_slice s)
{
    size_t used = 0;
    while (used < s.n && c->state == HF_SIP_CONN_OPEN) {
        struct hf_slice rest = hf_slice(s.p + used, s.n - used);
        struct hf_sip_frame f;
        hf_sip_frame(&c->framer, rest, &f);
        switch (f.kind) {
        case HF_SIP_FRAME_MORE:
            return used;
        case HF_SIP_FRAME_MESSAGE:
            whole(c, hf_slice(rest.p, f.n), HF_SIP_OK);
            break;
        case HF_SIP_FRAME_PING:
            c->t->c.pings++;
            touch(c, (enum hf_sip_idle)c->kind);
            put(c, hf_slice_str("\r\n"));
            break;
        case HF_SIP_FRAME_PONG:
        case HF_SIP_FRAME_SKIP:
            break;
        case HF_SIP_FRAME_REFUSED:
            if (f.n) {
                whole(c, hf_slice(rest.p, f.n), f.fault);
            } else {
                fault(c);
            }
            return s.n;
        }
        used += f.n;
    }
    return c->state == HF_SIP_CONN_OPEN ? used : s.n;
}

static void take_bytes(struct hf_sip_conn *c, struct hf_slice s)
{
    if (c->in.n == 0) {
        size_t used = take_frames(c, s);
        if (used == s.n) {
            return;
        }
        hf_buf_add(&c->in, hf_slice(s.p + used, s.n - used));
    } else {
        hf_buf_add(&c->in, s);
        hf_buf_consume(&c->in, take_frames(c, hf_buf_slice(&c->in)));
        if (c->in.n == 0) {
            hf_buf_fini(&c->in);
        }
    }
    if (c->in.err) {
        end(c);
    }
}

/* A ping of who has said nothing yet does not count for it. */

static void tls_failed(struct hf_sip_conn *c, const char *why)
{
    char text[HF_ADDR_STR_LEN];
    struct hf_addr a = hf_addr_from_endpoint(&c->flow.peer);
    c->t->c.tls_failed++;
    hf_tracef(HF_TRACE_NET, hf_addr_str(&a, text), "TLS %s: %s", c->opened ? "to it" : "from it",
              why);
    end_softly(c); /* with the alert */
}

/* The name of the certificate was checked; a client's is that of one whom we trust. */
static void tls_done(struct hf_sip_conn *c)
{
    char cn[256], dn[256];
    c->state = HF_SIP_CONN_OPEN;
    if (c->opened) {
        touch(c, HF_SIP_IDLE_USED);
    } else if (hf_tls_stream_peer(c->tls, cn, sizeof(cn), dn, sizeof(dn))) {
        index_peer(c);
    }
    if (c->wait.n && hf_tls_stream_write(c->tls, hf_buf_slice(&c->wait))) {
        end(c);
        return;
    }
    hf_buf_fini(&c->wait);
}

static void take_records(struct hf_sip_conn *c, struct hf_slice records)
{
    struct hf_sip_wire *t = c->t;
    hf_tls_stream_feed(c->tls, records);
    if (c->state == HF_SIP_CONN_HANDSHAKE) {
        const char *why = "";
        int rc = hf_tls_stream_handshake(c->tls, &why);
        if (rc == 0) {
            tls_done(c);
        } else if (rc != -EAGAIN) {
            tls_failed(c, why);
        }
    }
    while (c->state == HF_SIP_CONN_OPEN) {
        ssize_t n = hf_tls_stream_read(c->tls, t->plain, RAW_LEN);
        if (n > 0) {
            take_bytes(c, hf_slice(t->plain, (size_t)n));
        } else if (n == -EAGAIN) {
            return;
        } else {
            end_softly(c);
        }
    }
}

static void read_in(struct hf_sip_conn *c)
{
    struct hf_sip_wire *t = c->t;
    for (int i = 0; i < ROUNDS; i++) {
        if (c->state != HF_SIP_CONN_OPEN && c->state != HF_SIP_CONN_HANDSHAKE) {
            return;
        }
        ssize_t n = recv(c->io.fd, t->raw, RAW_LEN, MSG_DONTWAIT);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                end(c);
            }
            return;
        }
        if (n == 0) {
            end_softly(c);
            return;
        }
        if (c->tls) {
            take_records(c, hf_slice(t->raw, (size_t)n));
        } else {
            take_bytes(c, hf_slice(t->raw, (size_t)n));
        }
        if ((size_t)n < RAW_LEN) {
            return;
        }
    }
}

/* ---- the beginning ---- */

static void begin(struct hf_sip_conn *c)
{
    struct hf_addr me = {.len = sizeof(me.ss)};
    if (getsockname(c->io.fd, (struct sockaddr *)&me.ss, &me.len) == 0) {
        struct hf_endpoint at = hf_addr_to_endpoint(&me);
        at.port = c->opened && c->flow.local.port ? c->flow.local.port : at.port;
        c->flow.local = at;
    }
    mark_dirty(c);
    if (!c->tls) {
        c->state = HF_SIP_CONN_OPEN;
        if (c->opened) {
            touch(c, HF_SIP_IDLE_USED);
        }
        return;
    }
    c->state = HF_SIP_CONN_HANDSHAKE;
    if (c->opened) {
        take_records(c, hf_slice(NULL, 0)); /* speaks first */
    }
}

static void on_connected(struct hf_sip_conn *c)
{
    int e = 0;
    socklen_t n = sizeof(e);
    if (getsockopt(c->io.fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0 || e) {
        c->t->c.connect_failed++;
        end(c);
        return;
    }
    hf_poll_want(c->t->poll, &c->io, HF_POLL_READ);
    begin(c);
}

static void on_conn(struct hf_poll_io *io, unsigned ready)
{
    struct hf_sip_conn *c = HF_CONTAINER_OF(io, struct hf_sip_conn, io);
    if (c->state == HF_SIP_CONN_CONNECTING) {
        on_connected(c);
        return;
    }
    if (ready & (HF_POLL_READ | HF_POLL_HUP)) {
        read_in(c);
    }
    if (ready & HF_POLL_WRITE) {
        mark_dirty(c);
    }
    if (c->state == HF_SIP_CONN_CLOSING && ready & HF_POLL_HUP) {
        end(c); /* nobody reads any more */
    }
}

/* Somebody goes who matters least; false: all matter. */
static bool make_room(struct hf_sip_wire *t)
{
    static const enum hf_sip_idle order[] = {HF_SIP_IDLE_NEW, HF_SIP_IDLE_USED};
    for (size_t i = 0; i < HF_ARRAY_LEN(order); i++) {
        struct hf_list *list = &t->idle[order[i]];
        if (!hf_list_empty(list)) {
            t->c.closed_room++;
            end(HF_CONTAINER_OF(list->next, struct hf_sip_conn, idle));
            return true;
        }
    }
    return false;
}

static int start_tls(struct hf_sip_conn *c)
{
    struct hf_sip_wire *t = c->t;
    char text[HF_ADDR_STR_LEN];
    if (!c->opened) {
        return t->conf.tls_server
                   ? hf_tls_stream_create(t->conf.tls_server, NULL, on_records, c, &c->tls)
                   : -ENOTSUP;
    }
    const char *name = t->events.server_name ? t->events.server_name(t->arg, &c->flow.peer) : "";
    if (!*name) {
        struct hf_endpoint e = c->flow.peer;
        e.port = 0;
        struct hf_addr a = hf_addr_from_endpoint(&e);
        name = hf_addr_str(&a, text);
        if (*name == '[') { /* "[2001:db8::1]:0" */
            text[strcspn(text, "]")] = '\0';
            name++;
        } else {
            text[strcspn(text, ":")] = '\0';
        }
    }
    return t->conf.tls_client
               ? hf_tls_stream_create(t->conf.tls_client, name, on_records, c, &c->tls)
               : -ENOTSUP;
}

static hf_time stall_limit(const struct hf_sip_wire *t)
{
    return t->conf.stall ? t->conf.stall : HF_S(30);
}

static void set_socket(const struct hf_sip_wire *t, int fd)
{
    int one = 1, idle = KEEPALIVE_S, limit = (int)(stall_limit(t) / HF_MS(1));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    /* what the other host does not acknowledge is as bad as what it does not read */
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof(limit));
}

/* fd becomes the connection's; closed if there is none. */
static struct hf_sip_conn *create(struct hf_sip_wire *t, int fd, const struct hf_sip_flow *flow,
                                  bool opened)
{
    size_t max = t->conf.conns_max ? t->conf.conns_max : CONNS_MAX;
    struct hf_sip_conn *c = t->n_conns < max || make_room(t) ? hf_alloc(sizeof(*c)) : NULL;
    if (!c) {
        t->c.refused_room++;
        close(fd);
        return NULL;
    }
    c->t = t;
    c->flow = *flow;
    c->flow.conn = (uint64_t)t->conf.worker << 56 | ++t->last_conn;
    c->opened = opened;
    c->state = HF_SIP_CONN_CONNECTING;
    hf_list_init(&c->idle);
    hf_list_init(&c->dirty);
    hf_list_init(&c->stalled);
    hf_buf_init(&c->in, HF_SIP_MESSAGE_MAX + RAW_LEN + 1);
    hf_buf_init(&c->wait, out_max(t) + RAW_LEN);
    hf_buf_init(&c->out, 2 * (out_max(t) + RAW_LEN));
    set_socket(t, fd);
    if ((flow->transport == HF_SIP_TRANSPORT_TLS && start_tls(c)) ||
        hf_poll_add(t->poll, &c->io, fd, opened ? HF_POLL_WRITE : HF_POLL_READ, on_conn)) {
        close(fd);
        destroy(c);
        return NULL;
    }
    if (hf_map_put(&t->by_conn, hf_slice(&c->flow.conn, sizeof(c->flow.conn)), c)) {
        hf_poll_remove(t->poll, &c->io);
        close(fd);
        destroy(c);
        return NULL;
    }
    t->n_conns++;
    touch(c, opened ? HF_SIP_IDLE_MAKING : HF_SIP_IDLE_NEW);
    return c;
}

static void pause_accepts(struct hf_sip_wire *t, bool paused)
{
    t->paused = paused;
    for (size_t i = 0; i < t->n_socks; i++) {
        if (t->sock[i].transport != HF_SIP_TRANSPORT_UDP) {
            hf_poll_want(t->poll, &t->sock[i].io, paused ? 0 : HF_POLL_READ);
        }
    }
}

void hf_sip_stream_accept(struct hf_poll_io *io, unsigned ready)
{
    struct hf_sip_sock *s = HF_CONTAINER_OF(io, struct hf_sip_sock, io);
    struct hf_sip_wire *t = s->t;
    (void)ready;
    for (int i = 0; i < ACCEPTS; i++) {
        struct hf_addr a = {.len = sizeof(a.ss)};
        int fd = accept4(io->fd, (struct sockaddr *)&a.ss, &a.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            struct hf_sip_flow flow = {
                .transport = s->transport, .local = s->at, .peer = hf_addr_to_endpoint(&a)};
            struct hf_sip_conn *c = create(t, fd, &flow, false);
            if (c) {
                t->c.accepted++;
                begin(c);
            }
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            hf_log_warn("", "cannot accept a connection: %s; trying again in a second",
                        hf_strerror(-errno));
            pause_accepts(t, true);
            return;
        } else if (errno == EAGAIN) {
            return;
        } /* others: that one is gone */
    }
}

/* From our address, if it is one of this host's. */
static void bind_source(int fd, const struct hf_endpoint *local)
{
    static const uint8_t none[16];
    int one = 1;
    struct hf_endpoint e = *local;
    e.port = 0;
    if (e.family != HF_AF_NONE && memcmp(e.addr, none, sizeof(none)) != 0) {
        struct hf_addr a = hf_addr_from_endpoint(&e);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
        (void)!bind(fd, (const struct sockaddr *)&a.ss, a.len); /* else as the kernel chooses */
    }
}

static struct hf_sip_conn *open_to(struct hf_sip_wire *t, const struct hf_sip_flow *to)
{
    struct hf_addr a = hf_addr_from_endpoint(&to->peer);
    int fd = a.len ? socket(a.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0) {
        return NULL;
    }
    if (to->local.family == to->peer.family) {
        bind_source(fd, &to->local);
    }
    if (connect(fd, (const struct sockaddr *)&a.ss, a.len) < 0 && errno != EINPROGRESS) {
        t->c.connect_failed++;
        close(fd);
        return NULL;
    }
    struct hf_sip_conn *c = create(t, fd, to, true);
    if (c) {
        t->c.opened++;
        index_peer(c);
    }
    return c;
}

void hf_sip_stream_send(struct hf_sip_wire *t, const struct hf_sip_flow *to,
                        struct hf_slice message)
{
    struct hf_sip_peer_key key = key_of(to->transport, &to->peer);
    struct hf_sip_conn *c =
        to->conn ? find_conn(t, to->conn) : hf_map_get(&t->by_peer, hf_slice(&key, sizeof(key)));
    if (!c && to->conn == 0) {
        c = open_to(t, to);
    }
    if (!c || c->state >= HF_SIP_CONN_CLOSING) {
        hf_sip_tell_failed(t, to);
        return;
    }
    t->c.stream_out++;
    put(c, message);
}

void hf_sip_wire_tls(struct hf_sip_wire *t, struct hf_tls_context *server,
                     struct hf_tls_context *client)
{
    t->conf.tls_server = server;
    t->conf.tls_client = client;
}

void hf_sip_wire_keep(struct hf_sip_wire *t, uint64_t conn)
{
    struct hf_sip_conn *c = find_conn(t, conn);
    if (c && c->kind != HF_SIP_IDLE_KEPT && c->state == HF_SIP_CONN_OPEN) {
        touch(c, HF_SIP_IDLE_KEPT);
    }
}

/* ---- turns ---- */

bool hf_sip_streams_flush(struct hf_sip_wire *t)
{
    struct hf_list now;
    t->c.connections = t->n_conns;
    if (hf_list_empty(&t->dirty)) {
        return false;
    }
    hf_list_take(&now, &t->dirty); /* what comes of it is for the next round */
    while (!hf_list_empty(&now)) {
        struct hf_sip_conn *c = HF_CONTAINER_OF(now.next, struct hf_sip_conn, dirty);
        hf_list_unlink(&c->dirty);
        if (c->state != HF_SIP_CONN_ENDED) {
            write_out(c);
            continue;
        }
        struct hf_sip_flow flow = c->flow;
        destroy(c);
        t->events.closed(t->arg, &flow);
    }
    return true;
}

static void sweep_idle(struct hf_sip_wire *t, hf_time now)
{
    const hf_time limit[HF_SIP_IDLE_N] = {
        [HF_SIP_IDLE_MAKING] = t->conf.connect ? t->conf.connect : HF_S(10),
        [HF_SIP_IDLE_NEW] = t->conf.hello ? t->conf.hello : HF_S(10),
        [HF_SIP_IDLE_USED] = t->conf.idle ? t->conf.idle : HF_S(15 * 60),
        [HF_SIP_IDLE_KEPT] = t->conf.idle_kept ? t->conf.idle_kept : HF_S(125 * 60),
    };
    for (size_t i = 0; i < HF_SIP_IDLE_N; i++) {
        while (!hf_list_empty(&t->idle[i])) {
            struct hf_sip_conn *c = HF_CONTAINER_OF(t->idle[i].next, struct hf_sip_conn, idle);
            if (now - c->active < limit[i]) {
                break;
            }
            t->c.closed_idle += i != HF_SIP_IDLE_MAKING;
            t->c.connect_failed += i == HF_SIP_IDLE_MAKING;
            end(c);
        }
    }
}

static void on_sweep(struct hf_poll_timer *timer, hf_time now)
{
    struct hf_sip_wire *t = HF_CONTAINER_OF(timer, struct hf_sip_wire, sweep);
    hf_time limit = stall_limit(t);
    sweep_idle(t, now);
    while (!hf_list_empty(&t->stalled)) {
        struct hf_sip_conn *c = HF_CONTAINER_OF(t->stalled.next, struct hf_sip_conn, stalled);
        if (now - c->stalled_at < limit) {
            break;
        }
        t->c.closed_slow++;
        end(c);
    }
    if (t->paused) {
        pause_accepts(t, false);
    }
    hf_poll_timer_set(t->poll, timer, now + SWEEP);
}

/* ---- life ---- */

int hf_sip_streams_init(struct hf_sip_wire *t)
{
    for (size_t i = 0; i < HF_SIP_IDLE_N; i++) {
        hf_list_init(&t->idle[i]);
    }
    hf_list_init(&t->dirty);
    hf_list_init(&t->stalled);
    hf_map_init(&t->by_conn, 0); /* our own numbers */
    hf_map_init(&t->by_peer, (uint64_t)hf_now());
    t->raw = hf_alloc(RAW_LEN);
    t->plain = hf_alloc(RAW_LEN);
    if (!t->raw || !t->plain || hf_poll_reserve(t->poll, 1)) {
        return -ENOMEM;
    }
    t->sweep.fn = on_sweep;
    hf_poll_timer_set(t->poll, &t->sweep, hf_poll_now(t->poll) + SWEEP);
    return 0;
}

void hf_sip_streams_fini(struct hf_sip_wire *t)
{
    size_t pos = 0;
    for (struct hf_sip_conn *c; (c = hf_map_next(&t->by_conn, &pos));) {
        if (c->tls && c->state == HF_SIP_CONN_OPEN) {
            hf_tls_stream_close(c->tls);
            write_out(c);
        }
        end(c);
    }
    while (!hf_list_empty(&t->dirty)) {
        struct hf_sip_conn *c = HF_CONTAINER_OF(t->dirty.next, struct hf_sip_conn, dirty);
        hf_list_unlink(&c->dirty);
        destroy(c);
    }
    if (t->sweep.fn) {
        hf_poll_timer_set(t->poll, &t->sweep, HF_NEVER);
        (void)!hf_poll_reserve(t->poll, -1);
    }
    hf_map_fini(&t->by_conn);
    hf_map_fini(&t->by_peer);
    hf_free(t->raw);
    hf_free(t->plain);
}
