/* SIP's sockets of one worker: listening, and datagrams in batches. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "sip/wire_impl.h"

#define ARENA_LEN (1u << 20) /* bytes of datagrams that wait for the end of a turn */
#define BACKLOG 1024
#define RECEIVE_ROUNDS 8 /* of HF_SIP_BATCH: the next turn may be a while off */
#define FLUSH_ROUNDS 8   /* what comes of what was sent; more waits for the next turn */
#define RECEIVE_BUFFER (4u << 20)

/* ---- failures ---- */

static int socket_fail(struct hf_err *err, const struct hf_sip_place *b, const char *what)
{
    int e = errno;
    char text[HF_ADDR_STR_LEN];
    struct hf_addr a = hf_addr_from_endpoint(&b->at);
    return hf_err_set(err, -e, "cannot %s %s %s: %s%s", what,
                      hf_sip_transport_name((enum hf_sip_transport)b->transport),
                      hf_addr_str(&a, text), hf_strerror(-e),
                      e == EADDRINUSE ? "; another program has this port: stop it or use another"
                      : e == EADDRNOTAVAIL
                          ? "; this host does not have the address: mend it, or say 'elsewhere "
                            "= true' if a group brings it here"
                      : e == EACCES ? "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
                                    : "");
}

void hf_sip_tell_failed(struct hf_sip_wire *t, const struct hf_sip_flow *flow)
{
    if (t->n_failed < HF_SIP_FAILED_MAX) {
        t->failed[t->n_failed++] = *flow;
    }
}

/* ---- datagrams that come ---- */

/* At which of our addresses it came. */
static struct hf_endpoint local_of(const struct hf_sip_sock *s, struct msghdr *m)
{
    struct hf_endpoint at = s->at;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo i;
            memcpy(&i, CMSG_DATA(c), sizeof(i));
            memcpy(at.addr, &i.ipi_addr, 4);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo i;
            memcpy(&i, CMSG_DATA(c), sizeof(i));
            memcpy(at.addr, &i.ipi6_addr, 16);
            at.scope = IN6_IS_ADDR_LINKLOCAL(&i.ipi6_addr) ? i.ipi6_ifindex : 0;
        }
    }
    return at;
}

/* Keep-alives (CRLF, NUL, "jaK", STUN: RFC 5389 6 begins with two zero bits) are no messages. */
static bool is_message(const uint8_t *p, size_t n)
{
    return n > 4 && p[0] >= 'A' && p[0] <= 'z';
}

/* As it is to be before it is received into. */
static void ready_for(struct hf_sip_udp_in *in, int i)
{
    in->msg[i].msg_hdr.msg_namelen = sizeof(in->from[i].ss);
    in->msg[i].msg_hdr.msg_controllen = sizeof(in->info[i]);
}

static int receive(struct hf_sip_sock *s)
{
    struct hf_sip_wire *t = s->t;
    struct hf_sip_udp_in *in = t->in;
    int n = recvmmsg(s->io.fd, in->msg, HF_SIP_BATCH, MSG_DONTWAIT, NULL);
    t->c.udp_batches += n > 0;
    for (int i = 0; i < n; i++) {
        struct msghdr *m = &in->msg[i].msg_hdr;
        in->from[i].len = m->msg_namelen;
        struct hf_sip_flow from = {.transport = HF_SIP_TRANSPORT_UDP,
                                   .local = s->any ? local_of(s, m) : s->at,
                                   .peer = hf_addr_to_endpoint(&in->from[i])};
        ready_for(in, i);
        t->c.udp_in++;
        if (!is_message(in->data[i], in->msg[i].msg_len)) {
            t->c.udp_keepalives++;
            continue;
        }
        t->events.message(t->arg, hf_slice(in->data[i], in->msg[i].msg_len), HF_SIP_OK, &from);
    }
    return n;
}

static void on_udp(struct hf_poll_io *io, unsigned ready)
{
    struct hf_sip_sock *s = HF_CONTAINER_OF(io, struct hf_sip_sock, io);
    (void)ready;
    for (int i = 0; i < RECEIVE_ROUNDS && receive(s) == HF_SIP_BATCH; i++) {
    }
}

/* ---- datagrams that go ---- */

static void flush_udp(struct hf_sip_sock *s)
{
    struct hf_sip_wire *t = s->t;
    unsigned done = 0;
    while (done < s->n_out) {
        int n = sendmmsg(s->io.fd, s->out + done, s->n_out - done, MSG_DONTWAIT);
        if (n > 0) {
            done += (unsigned)n;
            t->c.udp_out += (unsigned)n;
        } else if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            t->c.udp_dropped += s->n_out - done; /* as the net may: it will be asked again */
            break;
        } else if (n < 0 && errno != EINTR) {
            struct hf_sip_flow to = {.transport = HF_SIP_TRANSPORT_UDP,
                                     .peer = hf_addr_to_endpoint(&s->to[done])};
            if (!s->any) {
                to.local = s->at;
            }
            t->c.udp_unreachable++;
            hf_sip_tell_failed(t, &to);
            done++;
        }
    }
    s->n_out = 0;
}

static void flush_all_udp(struct hf_sip_wire *t)
{
    for (size_t i = 0; i < t->n_socks; i++) {
        if (t->sock[i].n_out) {
            flush_udp(&t->sock[i]);
        }
    }
    t->arena_n = 0;
}

/* The socket of our address; without one, any that can reach the peer. */
static struct hf_sip_sock *socket_for(struct hf_sip_wire *t, const struct hf_sip_flow *to)
{
    struct hf_sip_sock *any = NULL, *family = NULL;
    for (size_t i = 0; i < t->n_socks; i++) {
        struct hf_sip_sock *s = &t->sock[i];
        if (s->transport != HF_SIP_TRANSPORT_UDP || s->at.family != to->peer.family) {
            continue;
        }
        family = family ? family : s;
        if (s->at.port == to->local.port && hf_endpoint_same_addr(&s->at, &to->local)) {
            return s;
        }
        any = !any && s->any && s->at.port == to->local.port ? s : any;
    }
    return any ? any : family;
}

/* From which of our addresses it is to go. */
static void set_source(struct msghdr *m, union hf_sip_pktinfo *info, const struct hf_endpoint *from)
{
    static const uint8_t none[16];
    m->msg_control = NULL;
    m->msg_controllen = 0;
    if (from->family == HF_AF_NONE || memcmp(from->addr, none, sizeof(none)) == 0) {
        return;
    }
    memset(info, 0, sizeof(*info));
    m->msg_control = info;
    m->msg_controllen = sizeof(*info);
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    if (from->family == HF_AF_INET) {
        struct in_pktinfo i = {0};
        memcpy(&i.ipi_spec_dst, from->addr, 4);
        *c = (struct cmsghdr){CMSG_LEN(sizeof(i)), IPPROTO_IP, IP_PKTINFO};
        memcpy(CMSG_DATA(c), &i, sizeof(i));
        m->msg_controllen = CMSG_SPACE(sizeof(i));
    } else {
        struct in6_pktinfo i = {.ipi6_ifindex = from->scope};
        memcpy(&i.ipi6_addr, from->addr, 16);
        *c = (struct cmsghdr){CMSG_LEN(sizeof(i)), IPPROTO_IPV6, IPV6_PKTINFO};
        memcpy(CMSG_DATA(c), &i, sizeof(i));
        m->msg_controllen = CMSG_SPACE(sizeof(i));
    }
}

static void send_udp(struct hf_sip_wire *t, const struct hf_sip_flow *to, struct hf_slice message)
{
    struct hf_sip_sock *s = socket_for(t, to);
    if (!s || message.n > HF_SIP_MESSAGE_MAX) {
        t->c.udp_unreachable++;
        hf_sip_tell_failed(t, to);
        return;
    }
    if (s->n_out == HF_SIP_BATCH) {
        flush_udp(s);
    }
    if (message.n > ARENA_LEN - t->arena_n) {
        flush_all_udp(t);
    }
    unsigned i = s->n_out++;
    struct msghdr *m = &s->out[i].msg_hdr;
    s->to[i] = hf_addr_from_endpoint(&to->peer);
    m->msg_name = &s->to[i].ss;
    m->msg_namelen = s->to[i].len;
    if (s->any) {
        set_source(m, &s->info[i], &to->local);
    }
    memcpy(t->arena + t->arena_n, message.p, message.n);
    s->iov[i] = (struct iovec){t->arena + t->arena_n, message.n};
    t->arena_n += message.n;
}

void hf_sip_wire_send(struct hf_sip_wire *t, const struct hf_sip_flow *to, struct hf_slice message)
{
    if (to->transport == HF_SIP_TRANSPORT_UDP) {
        send_udp(t, to, message);
    } else {
        hf_sip_stream_send(t, to, message);
    }
}

void hf_sip_wire_flush(struct hf_sip_wire *t)
{
    for (int i = 0; i < FLUSH_ROUNDS; i++) {
        flush_all_udp(t);
        bool more = hf_sip_streams_flush(t);
        if (t->n_failed == 0 && !more) {
            return;
        }
        struct hf_sip_flow failed[HF_SIP_FAILED_MAX];
        size_t n = t->n_failed;
        memcpy(failed, t->failed, n * sizeof(failed[0]));
        t->n_failed = 0;
        for (size_t k = 0; k < n; k++) {
            t->events.closed(t->arg, &failed[k]);
        }
    }
    flush_all_udp(t);
    hf_poll_timer_set(t->poll, &t->sweep, 0); /* the rest in the next turn */
}

unsigned hf_sip_wire_queue(struct hf_sip_wire *t)
{
    unsigned most = 0;
    for (size_t i = 0; i < t->n_socks; i++) {
        uint32_t info[9] = {0}; /* of linux/sock_diag.h: SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_RCVBUF */
        socklen_t n = sizeof(info);
        if (t->sock[i].transport == HF_SIP_TRANSPORT_UDP &&
            getsockopt(t->sock[i].io.fd, SOL_SOCKET, SO_MEMINFO, info, &n) == 0 && info[1]) {
            unsigned full = (unsigned)((uint64_t)info[0] * 1000 / info[1]);
            most = full > most ? full : most;
        }
    }
    return most;
}

int hf_sip_wire_steer(struct hf_sip_wire *t, int program, struct hf_err *err)
{
    for (size_t i = 0; i < t->n_socks; i++) {
        struct hf_sip_place at = {.transport = t->sock[i].transport, .at = t->sock[i].at};
        if (at.transport == HF_SIP_TRANSPORT_UDP &&
            setsockopt(t->sock[i].io.fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program,
                       sizeof(program)) < 0) {
            return socket_fail(err, &at, "steer datagrams at");
        }
    }
    return 0;
}

/* ---- opening ---- */

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value));
}

static void set_options(const struct hf_sip_wire *t, const struct hf_sip_sock *s, int fd,
                        bool elsewhere)
{
    bool v6 = s->at.family == HF_AF_INET6;
    set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (v6) {
        set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    }
    if (elsewhere) {
        set_int(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, 1);
    }
    if (s->transport != HF_SIP_TRANSPORT_UDP) {
        set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        return;
    }
    int room = (int)(t->conf.receive_buffer ? t->conf.receive_buffer : RECEIVE_BUFFER);
    if (set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, room) < 0) {
        set_int(fd, SOL_SOCKET, SO_RCVBUF, room); /* as far as rmem_max lets us */
    }
    if (set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, room) < 0) {
        set_int(fd, SOL_SOCKET, SO_SNDBUF, room);
    }
    if (s->any) {
        set_int(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVPKTINFO : IP_PKTINFO, 1);
    }
}

static int alloc_out(struct hf_sip_sock *s)
{
    s->out = hf_alloc_array(HF_SIP_BATCH, sizeof(s->out[0]));
    s->iov = hf_alloc_array(HF_SIP_BATCH, sizeof(s->iov[0]));
    s->to = hf_alloc_array(HF_SIP_BATCH, sizeof(s->to[0]));
    s->info = hf_alloc_array(HF_SIP_BATCH, sizeof(s->info[0]));
    if (!s->out || !s->iov || !s->to || !s->info) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < HF_SIP_BATCH; i++) {
        s->out[i].msg_hdr.msg_iov = &s->iov[i];
        s->out[i].msg_hdr.msg_iovlen = 1;
    }
    return 0;
}

static int open_socket(struct hf_sip_wire *t, struct hf_sip_sock *s, const struct hf_sip_place *b,
                       struct hf_err *err)
{
    static const uint8_t none[16];
    bool udp = b->transport == HF_SIP_TRANSPORT_UDP;
    struct hf_addr a = hf_addr_from_endpoint(&b->at);
    s->t = t;
    s->transport = b->transport;
    s->at = b->at;
    s->any = memcmp(b->at.addr, none, sizeof(none)) == 0;
    s->io.fd = -1;
    int fd =
        socket(a.ss.ss_family, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return socket_fail(err, b, "open a socket for");
    }
    set_options(t, s, fd, b->elsewhere);
    if (bind(fd, (const struct sockaddr *)&a.ss, a.len) < 0 || (!udp && listen(fd, BACKLOG) < 0) ||
        (s->at.port = hf_addr_port_of(fd)) == 0) {
        int rc = socket_fail(err, b, "listen at");
        close(fd);
        return rc;
    }
    int rc = udp ? alloc_out(s) : 0;
    rc = rc ? rc
            : hf_poll_add(t->poll, &s->io, fd, HF_POLL_READ, udp ? on_udp : hf_sip_stream_accept);
    if (rc) {
        close(fd);
        return hf_err_set(err, rc, "cannot listen: %s", hf_strerror(rc));
    }
    return 0;
}

static int alloc_in(struct hf_sip_wire *t)
{
    t->in = hf_alloc(sizeof(*t->in)); /* touched as far as it is used */
    t->arena = hf_alloc(ARENA_LEN);
    if (!t->in || !t->arena) {
        return -ENOMEM;
    }
    for (int i = 0; i < HF_SIP_BATCH; i++) {
        t->in->iov[i] = (struct iovec){t->in->data[i], HF_SIP_MESSAGE_MAX};
        t->in->msg[i].msg_hdr.msg_iov = &t->in->iov[i];
        t->in->msg[i].msg_hdr.msg_iovlen = 1;
        t->in->msg[i].msg_hdr.msg_name = &t->in->from[i].ss;
        t->in->msg[i].msg_hdr.msg_control = &t->in->info[i];
        ready_for(t->in, i);
    }
    return 0;
}

int hf_sip_wire_open(struct hf_poll *poll, const struct hf_sip_wire_conf *conf,
                     const struct hf_sip_wire_events *events, void *arg, struct hf_err *err,
                     struct hf_sip_wire **ret_wire)
{
    struct hf_sip_wire *t = hf_alloc(sizeof(*t));
    if (!t) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    t->poll = poll;
    t->conf = *conf;
    t->events = *events;
    t->arg = arg;
    int rc = alloc_in(t);
    rc = hf_sip_streams_init(t) ? -ENOMEM : rc;
    t->sock = hf_alloc_array(conf->n_binds, sizeof(t->sock[0]));
    if (rc || !t->sock) {
        hf_sip_wire_close(t);
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; rc == 0 && i < conf->n_binds; i++) {
        t->n_socks++;
        rc = open_socket(t, &t->sock[i], &conf->bind[i], err);
    }
    if (rc) {
        hf_sip_wire_close(t);
        return rc;
    }
    *ret_wire = t;
    return 0;
}

void hf_sip_wire_close(struct hf_sip_wire *t)
{
    if (!t) {
        return;
    }
    hf_sip_streams_fini(t);
    for (size_t i = 0; i < t->n_socks; i++) {
        struct hf_sip_sock *s = &t->sock[i];
        int fd = s->io.fd;
        if (fd >= 0) {
            hf_poll_remove(t->poll, &s->io);
            close(fd);
        }
        hf_free(s->out);
        hf_free(s->iov);
        hf_free(s->to);
        hf_free(s->info);
    }
    hf_free(t->sock);
    hf_free(t->in);
    hf_free(t->arena);
    hf_free(t);
}

struct hf_endpoint hf_sip_wire_at(const struct hf_sip_wire *t, size_t i)
{
    return i < t->n_socks ? t->sock[i].at : (struct hf_endpoint){0};
}

const struct hf_sip_wire_counters *hf_sip_wire_counters(const struct hf_sip_wire *t)
{
    return &t->c;
}
