/* One UDP socket: multicast and unicast datagrams, received in batches (A1, A13). */
#include "os/udp.h"

#include <assert.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"

#define BATCH 32                   /* datagrams per wake-up; then the others in the loop */
#define RECEIVE_BUFFER (4 << 20)   /* bytes: a burst of 10,000 hosts' adverts */
#define DATA_MAX HF_ADVERT_LEN_MAX /* longer: MSG_TRUNC says so */

struct hf_udp {
    int fd;
    struct hf_io *io;     /* owned */
    struct hf_addr group; /* with its port and scope; len 0: none */
    hf_udp_recv *fn;
    void *arg;
    bool in_batch, closed; /* closed from within fn: freed after the batch */
    uint16_t port;
    struct hf_udp_counters c;
    struct mmsghdr msg[BATCH];
    struct iovec iov[BATCH];
    struct hf_addr from[BATCH];
    uint8_t data[BATCH][DATA_MAX];
};

static bool is_v6(const struct hf_addr *a)
{
    return a->ss.ss_family == AF_INET6;
}

static int fail(struct hf_err *err, const struct hf_addr *a, const char *what, const char *remedy)
{
    int e = errno;
    char text[HF_ADDR_STR_LEN];
    return hf_err_set(err, -e, "cannot %s %s: %s%s%s", what, hf_addr_str(a, text), hf_strerror(-e),
                      *remedy ? "; " : "", remedy);
}

static bool is_multicast(const struct hf_addr *a)
{
    struct hf_endpoint e = hf_addr_to_endpoint(a);
    return e.family == HF_AF_INET    ? e.addr[0] >> 4 == 14
           : e.family == HF_AF_INET6 ? e.addr[0] == 0xff
                                     : false;
}

/* What is wrong with the options themselves. */
static int check(const struct hf_udp_opt *o, struct hf_err *err, unsigned *ret_index)
{
    char text[HF_ADDR_STR_LEN];
    unsigned index = 0;
    if (o->bind.len == 0) {
        return hf_err_set(err, -HF_ECONFIG, "no local address to receive datagrams on");
    }
    if (o->group.len && !is_multicast(&o->group)) {
        return hf_err_set(err, -HF_ECONFIG,
                          "%s is not a multicast group; use 224.0.0.0/4 or ff00::/8",
                          hf_addr_str(&o->group, text));
    }
    if (o->group.len && o->group.ss.ss_family != o->bind.ss.ss_family) {
        return hf_err_set(err, -HF_ECONFIG,
                          "the group %s and the local address are not both IPv4 or both IPv6",
                          hf_addr_str(&o->group, text));
    }
    if (o->interface[0]) {
        index = if_nametoindex(o->interface);
        if (index == 0) {
            return hf_err_set(err, -HF_ECONFIG,
                              "no interface is called '%s'; 'ip link' shows those that are there",
                              o->interface);
        }
    }
    *ret_index = index;
    return 0;
}

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value));
}

/* Outgoing interface, hops, loop, membership. */
static int join(struct hf_udp *u, const struct hf_udp_opt *o, unsigned index, struct hf_err *err)
{
    int ttl = o->ttl ? o->ttl : 1;
    bool ok;
    if (is_v6(&u->group)) {
        struct hf_endpoint e = hf_addr_to_endpoint(&u->group);
        index = index ? index : e.scope;
        e.scope = index;
        u->group = hf_addr_from_endpoint(&e);
        ok = set_int(u->fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, ttl) == 0 &&
             set_int(u->fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, o->loop) == 0 &&
             set_int(u->fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0) == 0 &&
             (!index || set_int(u->fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)index) == 0);
    } else {
        struct ip_mreqn out = {.imr_ifindex = (int)index};
        ok = set_int(u->fd, IPPROTO_IP, IP_MULTICAST_TTL, ttl) == 0 &&
             set_int(u->fd, IPPROTO_IP, IP_MULTICAST_LOOP, o->loop) == 0 &&
             set_int(u->fd, IPPROTO_IP, IP_MULTICAST_ALL, 0) == 0 &&
             (!index || setsockopt(u->fd, IPPROTO_IP, IP_MULTICAST_IF, &out, sizeof(out)) == 0);
    }
    struct group_req req = {.gr_interface = index, .gr_group = u->group.ss};
    int level = is_v6(&u->group) ? IPPROTO_IPV6 : IPPROTO_IP;
    if (ok && setsockopt(u->fd, level, MCAST_JOIN_GROUP, &req, sizeof(req)) == 0) {
        return 0;
    }
    int e = errno;
    char text[HF_ADDR_STR_LEN];
    return hf_err_set(
        err, -e, "cannot join the group %s on %s: %s; %s", hf_addr_str(&u->group, text),
        *o->interface ? o->interface : "the interface that the kernel chooses", hf_strerror(-e),
        index ? "is the interface up, and has it MULTICAST?"
              : "name the interface, or add a route to the group");
}

static int open_socket(struct hf_udp *u, const struct hf_udp_opt *o, unsigned index,
                       struct hf_err *err)
{
    u->fd = socket(o->bind.ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (u->fd < 0) {
        return fail(err, &o->bind, "open a socket for", "");
    }
    if (set_int(u->fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER) < 0) {
        set_int(u->fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER); /* as far as rmem_max lets us */
    }
    if (is_v6(&o->bind)) {
        set_int(u->fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    }
    if (o->group.len) { /* several programs of one host may listen to one group */
        set_int(u->fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    const char *remedy = "";
    if (bind(u->fd, (const struct sockaddr *)&o->bind.ss, o->bind.len) < 0) {
        remedy = errno == EADDRINUSE      ? "another program has this port: stop it or use another"
                 : errno == EADDRNOTAVAIL ? "this host does not have the address"
                 : errno == EACCES        ? "ports below 1024 need root or CAP_NET_BIND_SERVICE"
                                          : "";
        return fail(err, &o->bind, "bind to", remedy);
    }
    u->port = hf_addr_port_of(u->fd);
    if (!u->port) {
        return fail(err, &o->bind, "find the port of", "");
    }
    if (o->group.len) {
        struct hf_endpoint e = hf_addr_to_endpoint(&o->group);
        e.port = e.port ? e.port : u->port;
        u->group = hf_addr_from_endpoint(&e);
        return join(u, o, index, err);
    }
    return 0;
}

static void on_readable(void *arg, unsigned events)
{
    (void)events;
    struct hf_udp *u = arg;
    for (size_t i = 0; i < BATCH; i++) {
        u->msg[i].msg_hdr.msg_namelen = sizeof(u->from[i].ss);
    }
    int n = recvmmsg(u->fd, u->msg, BATCH, 0, NULL);
    u->in_batch = true;
    for (int i = 0; i < n && !u->closed; i++) {
        struct mmsghdr *m = &u->msg[i];
        if (m->msg_hdr.msg_flags & MSG_TRUNC) {
            u->c.oversized++;
            continue;
        }
        u->c.received++;
        u->c.received_bytes += m->msg_len;
        u->from[i].len = m->msg_hdr.msg_namelen;
        u->fn(u->arg, &u->from[i], hf_slice(u->data[i], m->msg_len));
    }
    u->in_batch = false;
    if (u->closed) {
        hf_free(u);
    }
}

int hf_udp_open(struct hf_loop *loop, const struct hf_udp_opt *opt, hf_udp_recv *fn, void *arg,
                struct hf_err *err, struct hf_udp **ret_udp)
{
    unsigned index = 0;
    int rc = check(opt, err, &index);
    if (rc) {
        return rc;
    }
    struct hf_udp *u = hf_alloc(sizeof(*u));
    if (!u) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    u->fd = -1;
    u->fn = fn;
    u->arg = arg;
    for (size_t i = 0; i < BATCH; i++) {
        u->iov[i] = (struct iovec){.iov_base = u->data[i], .iov_len = DATA_MAX};
        u->msg[i].msg_hdr =
            (struct msghdr){.msg_name = &u->from[i].ss, .msg_iov = &u->iov[i], .msg_iovlen = 1};
    }
    rc = open_socket(u, opt, index, err);
    if (rc == 0) {
        rc = hf_io_create(loop, u->fd, HF_IO_READ, on_readable, u, &u->io);
    }
    if (rc) {
        hf_udp_close(u);
        return rc;
    }
    *ret_udp = u;
    return 0;
}

void hf_udp_close(struct hf_udp *u)
{
    if (!u) {
        return;
    }
    hf_io_destroy(u->io);
    if (u->fd >= 0) {
        close(u->fd);
    }
    u->closed = true;
    if (!u->in_batch) {
        hf_free(u);
    }
}

int hf_udp_send(struct hf_udp *u, const struct hf_addr *to, struct hf_slice data)
{
    to = to ? to : &u->group;
    if (to->len == 0) {
        return -EDESTADDRREQ;
    }
    ssize_t n = sendto(u->fd, data.p, data.n, 0, (const struct sockaddr *)&to->ss, to->len);
    if (n < 0) {
        u->c.send_errors++;
        return errno == ENOBUFS ? -EAGAIN : -errno;
    }
    u->c.sent++;
    u->c.sent_bytes += (uint64_t)n;
    return 0;
}

uint16_t hf_udp_port(const struct hf_udp *u)
{
    return u->port;
}

const struct hf_udp_counters *hf_udp_counters(const struct hf_udp *u)
{
    return &u->c;
}
