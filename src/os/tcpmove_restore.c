/* One connection anew as a socket of this host: TCP_REPAIR and its pitfalls. */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/tcpmove_impl.h"

#define WINDOW_FIRST 65535u       /* advertised at first, if it was less; the kernel tunes it up */
#define SEND_BUFFER_MIN (4 << 20) /* for a queue of what was sent */
#define MSS_MIN 88                /* the kernel's TCP_MIN_MSS */
#define MSS_MAX 32767             /* its MAX_TCP_WINDOW: less than the loopback's */
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

/* A socket being made: the first failure stays. */
struct making {
    int fd, rc;
    const char *what; /* the call that failed */
};

static void note(struct making *m, int result, const char *what)
{
    if (result < 0 && m->rc == 0) {
        m->rc = -errno;
        m->what = what;
    }
}

static void set(struct making *m, int level, int name, const void *p, socklen_t n, const char *what)
{
    if (m->rc == 0) {
        note(m, setsockopt(m->fd, level, name, p, n), what);
    }
}

static void set_int(struct making *m, int level, int name, int value, const char *what)
{
    set(m, level, name, &value, sizeof(value), what);
}

static void set_seq(struct making *m, int queue, uint32_t seq)
{
    set_int(m, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE");
    set(m, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, sizeof(seq), "TCP_QUEUE_SEQ");
}

/* Pitfall 6: the low bit means "microseconds". Rounded up: never behind what the peer saw, the
 * probe included, or PAWS drops all we send. */
static void set_clock(struct making *m, const struct hf_tcpmove_plan *p)
{
    if (p->f->flags & HF_TCP_FACT_TS) {
        uint32_t ts = (p->tsval + 1) & ~1u;
        ts |= p->f->flags & HF_TCP_FACT_TS_USEC ? 1 : 0;
        set(m, IPPROTO_TCP, TCP_TIMESTAMP, &ts, sizeof(ts), "TCP_TIMESTAMP");
    }
}

static void connect_quietly(struct making *m, const struct hf_tcp_facts *f)
{
    struct hf_addr local = hf_addr_from_endpoint(&f->local), peer = hf_addr_from_endpoint(&f->peer);
    if (m->rc == 0) {
        note(m, bind(m->fd, (const struct sockaddr *)&local.ss, local.len), "bind");
    }
    if (m->rc == 0) { /* in repair mode: established at once, nothing is sent */
        note(m, connect(m->fd, (const struct sockaddr *)&peer.ss, peer.len), "connect");
    }
}

static void set_options(struct making *m, const struct hf_tcpmove_plan *p)
{
    const struct hf_tcp_facts *f = p->f;
    struct tcp_repair_opt o[4];
    unsigned n = 0;
    o[n++] = (struct tcp_repair_opt){.opt_code = 2, .opt_val = f->mss};
    /* Pitfall 5: always, 0/0 too. Otherwise the scale of our windows stays what this host would
     * have offered, and all windows are too small. */
    o[n++] = (struct tcp_repair_opt){.opt_code = 3,
                                     .opt_val = f->snd_wscale | (uint32_t)f->rcv_wscale << 16};
    if ((f->flags & HF_TCP_FACT_SACK) && !p->no_sack) {
        o[n++] = (struct tcp_repair_opt){.opt_code = 4};
    }
    if (f->flags & HF_TCP_FACT_TS) {
        o[n++] = (struct tcp_repair_opt){.opt_code = 8};
    }
    set(m, IPPROTO_TCP, TCP_REPAIR_OPTIONS, o, (socklen_t)(n * sizeof(*o)), "TCP_REPAIR_OPTIONS");
}

/* Pitfall 1: where the peer stands is not known. In the queue of what was sent, any acknowledgement
 * is right; as new data, one beyond it would be ignored for ever. What cannot have been sent stays
 * with the caller, or it would wait for retransmissions (pitfall 21). */
static uint64_t queue_sent(struct making *m, const struct hf_tcpmove_plan *p)
{
    size_t n_sent = (size_t)(p->tx_sent - p->tx_una);
    struct hf_slice left = hf_slice(p->tx.p, n_sent < p->tx.n ? n_sent : p->tx.n), all = left;
    int room = left.n > (size_t)SEND_BUFFER_MIN ? (int)left.n : SEND_BUFFER_MIN;
    set_int(m, SOL_SOCKET, SO_SNDBUFFORCE, room, "SO_SNDBUFFORCE"); /* the kernel doubles it */
    set_int(m, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE, "TCP_REPAIR_QUEUE");
    while (m->rc == 0 && left.n) {
        ssize_t n = send(m->fd, left.p, left.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        note(m, (int)(n < 0 ? -1 : 0), "send in repair mode");
        if (n <= 0) {
            break;
        }
        left = hf_slice(left.p + n, left.n - (size_t)n);
    }
    return p->tx_una + (all.n - left.n);
}

static void set_windows(struct making *m, const struct hf_tcpmove_plan *p, uint32_t rcv_nxt)
{
    const struct hf_tcp_facts *f = p->f;
    uint32_t most = (uint32_t)UINT16_MAX << f->rcv_wscale;
    uint32_t wnd = f->rcv_wnd > WINDOW_FIRST ? f->rcv_wnd : WINDOW_FIRST;
    struct tcp_repair_window w = {
        .snd_wl1 = rcv_nxt,
        .snd_wnd = p->snd_wnd,
        .max_window = p->snd_wnd > UINT16_MAX ? p->snd_wnd : UINT16_MAX,
        .rcv_wnd = wnd < most ? wnd : most,
        .rcv_wup = rcv_nxt,
    };
    set(m, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof(w), "TCP_REPAIR_WINDOW");
}

static void prepare(struct making *m, const struct hf_tcpmove_plan *p)
{
    bool v6 = p->f->local.family == HF_AF_INET6;
    m->fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    note(m, m->fd, "socket");
    set_int(m, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
    set_int(m, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, 1, "FREEBIND");
    set_int(m, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR");
    set_seq(m, TCP_SEND_QUEUE, hf_tcp_snd_seq(p->f, p->tx_una));
    /* Pitfall 10: the peer's FIN counts as received; the owner knows of it, no FIN is injected. */
    set_seq(m, TCP_RECV_QUEUE, hf_tcp_rcv_nxt(p->f, p->rx_total));
    /* Pitfall 4: before connect(), or segments stay at 524 bytes; the option alone comes too late.
     */
    int mss = p->f->mss < MSS_MIN ? MSS_MIN : p->f->mss > MSS_MAX ? MSS_MAX : p->f->mss;
    set_int(m, IPPROTO_TCP, TCP_MAXSEG, mss, "TCP_MAXSEG");
}

int hf_tcpmove_restore(const struct hf_tcpmove_plan *p, const char **ret_what, int *ret_fd,
                       uint64_t *ret_tx_written)
{
    struct making m = {.fd = -1};
    uint64_t written = p->tx_una;
    prepare(&m, p);
    /* Pitfall 24: from connect() on the socket answers what comes. One answer by a clock that is
     * not set may be ahead of all later ones, which PAWS drops then for ever. connect() forgets the
     * microseconds, so it is set again. */
    set_clock(&m, p);
    connect_quietly(&m, p->f);
    set_options(&m, p);
    set_clock(&m, p);
    if (!p->exact && p->tx.n) {
        written = queue_sent(&m, p);
    }
    set_windows(&m, p, hf_tcp_rcv_nxt(p->f, p->rx_total));
    set_int(&m, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE");
    /* With the kernel's window probe only when the peer's answer to it is wanted. */
    set_int(&m, IPPROTO_TCP, TCP_REPAIR, p->exact ? TCP_REPAIR_OFF_NO_WP : TCP_REPAIR_OFF,
            "the end of TCP_REPAIR");
    /* Pitfall 3: leaving repair mode sets it to 0, and the listener's bind would give EADDRINUSE.
     */
    set_int(&m, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
    if (m.rc) {
        if (m.fd >= 0) {
            hf_tcpmove_discard(m.fd);
        }
        *ret_what = m.what;
        return m.rc;
    }
    *ret_fd = m.fd;
    *ret_tx_written = written;
    return 0;
}
