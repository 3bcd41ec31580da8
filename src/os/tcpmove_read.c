/* Facts of a live TCP socket, with as little repair mode as can be; the end of one that moved. */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "os/tcpmove_impl.h"

/* States as in TCP_INFO: those of an established connection. */
enum {
    STATE_ESTABLISHED = 1,
    STATE_FIN_WAIT1 = 4,
    STATE_FIN_WAIT2 = 5,
    STATE_CLOSE_WAIT = 8,
    STATE_LAST_ACK = 9,
    STATE_CLOSING = 11,
};

#define SENT_TRIES 8

/* What the kernel's struct has had since 6.2 behind that of older headers. */
struct info {
    struct tcp_info base;
    uint32_t rcv_wnd;
};

static int get(int fd, int name, void *p, socklen_t n)
{
    return getsockopt(fd, IPPROTO_TCP, name, p, &n) < 0 ? -errno : 0;
}

static int set(int fd, int name, int value)
{
    return setsockopt(fd, IPPROTO_TCP, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int count(int fd, unsigned long request, uint32_t *ret_n)
{
    int n = 0;
    if (ioctl(fd, request, &n) < 0) {
        return -errno;
    }
    *ret_n = (uint32_t)n;
    return 0;
}

static bool fin_received(const struct info *i)
{
    return i->base.tcpi_state == STATE_CLOSE_WAIT || i->base.tcpi_state == STATE_LAST_ACK ||
           i->base.tcpi_state == STATE_CLOSING;
}

static bool fin_sent(const struct info *i)
{
    return i->base.tcpi_state == STATE_FIN_WAIT1 || i->base.tcpi_state == STATE_FIN_WAIT2 ||
           i->base.tcpi_state == STATE_LAST_ACK || i->base.tcpi_state == STATE_CLOSING;
}

static int read_info(int fd, struct info *ret_i)
{
    memset(ret_i, 0, sizeof(*ret_i));
    int rc = get(fd, TCP_INFO, ret_i, sizeof(*ret_i));
    bool live =
        ret_i->base.tcpi_state == STATE_ESTABLISHED || fin_received(ret_i) || fin_sent(ret_i);
    return rc ? rc : live ? 0 : -ENOTCONN;
}

/* Timestamp clock and windows, none of which need repair mode. */
static int read_moving(int fd, const struct info *i, hf_time now, struct hf_tcp_facts *f)
{
    uint32_t ts = 0;
    if (f->flags & HF_TCP_FACT_TS) {
        int rc = get(fd, TCP_TIMESTAMP, &ts, sizeof(ts));
        if (rc) {
            return rc;
        }
        /* pitfall 6: since Linux 6.7 the low bit is no part of the value but says "microseconds" */
        f->flags =
            (uint8_t)((f->flags & ~HF_TCP_FACT_TS_USEC) | (ts & 1 ? HF_TCP_FACT_TS_USEC : 0));
        f->tsval = ts | 1u; /* rounded up: never behind what was sent */
        f->ts_at = now;
    }
    f->snd_wnd = i->base.tcpi_snd_wnd ? i->base.tcpi_snd_wnd : f->snd_wnd;
    f->rcv_wnd = i->rcv_wnd ? i->rcv_wnd : f->rcv_wnd;
    return 0;
}

static int read_names(int fd, struct hf_tcp_facts *f)
{
    struct hf_addr local = {.len = sizeof(local.ss)}, peer = {.len = sizeof(peer.ss)};
    if (getsockname(fd, (struct sockaddr *)&local.ss, &local.len) < 0 ||
        getpeername(fd, (struct sockaddr *)&peer.ss, &peer.len) < 0) {
        return -errno;
    }
    f->local = hf_addr_to_endpoint(&local);
    f->peer = hf_addr_to_endpoint(&peer);
    return 0;
}

/* What only repair mode gives: both sequence numbers and the peer's MSS. */
static int read_repaired(int fd, uint32_t *ret_snd, uint32_t *ret_rcv, uint32_t *ret_unread,
                         int *ret_mss)
{
    uint32_t snd = 0, rcv = 0, again = 0, unread = 0;
    /* While this queue is chosen, the kernel marks as sent, without sending, what an arriving
     * acknowledgement lets go: the caller made sure that there is nothing. */
    int rc = set(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
    rc = rc ? rc : get(fd, TCP_QUEUE_SEQ, &snd, sizeof(snd));
    int left = set(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
    rc = rc ? rc : left;
    do { /* data may come meanwhile */
        rc = rc ? rc : get(fd, TCP_QUEUE_SEQ, &rcv, sizeof(rcv));
        rc = rc ? rc : count(fd, SIOCINQ, &unread);
        rc = rc ? rc : get(fd, TCP_QUEUE_SEQ, &again, sizeof(again));
    } while (rc == 0 && rcv != again);
    rc = rc ? rc : get(fd, TCP_MAXSEG, ret_mss, sizeof(*ret_mss));
    *ret_snd = snd;
    *ret_rcv = rcv;
    *ret_unread = unread;
    return rc;
}

/* Out of repair mode again without a window probe; pitfall 3: this takes SO_REUSEADDR away. */
static void end_repair(int fd)
{
    int one = 1;
    (void)set(fd, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
}

static int fail(struct hf_err *err, int rc, const char *what)
{
    const char *remedy = rc == -EPERM
                             ? "; TCP_REPAIR needs CAP_NET_ADMIN: start the program with it"
                         : rc == -ENOTCONN ? "; the connection is over"
                                           : "";
    return hf_err_set(err, rc, "cannot %s: %s%s", what, hf_strerror(rc), remedy);
}

int hf_tcpmove_read(int fd, uint64_t rx_total, uint64_t tx_total, hf_time now, struct hf_err *err,
                    struct hf_tcp_facts *ret_f)
{
    struct hf_tcp_facts f = {.snd_wnd = UINT16_MAX, .rcv_wnd = UINT16_MAX};
    struct info i;
    uint32_t unsent = 0, snd, rcv, unread;
    int mss = 0, rc = read_info(fd, &i);
    rc = rc ? rc : read_names(fd, &f);
    rc = rc ? rc : count(fd, SIOCOUTQNSD, &unsent);
    if (rc == 0 && unsent) {
        return hf_err_set(err, -EAGAIN,
                          "cannot read the connection: %u bytes are not sent yet; try again later",
                          unsent);
    }
    if (rc) {
        return fail(err, rc, "read the state of the connection");
    }
    rc = set(fd, TCP_REPAIR, TCP_REPAIR_ON);
    if (rc) {
        return fail(err, rc, "enter repair mode");
    }
    rc = read_repaired(fd, &snd, &rcv, &unread, &mss);
    rc = rc ? rc : read_info(fd, &i);
    end_repair(fd);
    if (rc) {
        return fail(err, rc, "read the sequence numbers of the connection");
    }
    uint8_t o = i.base.tcpi_options;
    f.snd_isn = snd - (fin_sent(&i) ? 1 : 0) - (uint32_t)tx_total - 1;
    f.rcv_isn = rcv - (fin_received(&i) ? 1 : 0) - unread - (uint32_t)rx_total - 1;
    f.mss = (uint16_t)mss;
    f.flags |= o & TCPI_OPT_SACK ? HF_TCP_FACT_SACK : 0;
    f.flags |= o & TCPI_OPT_TIMESTAMPS ? HF_TCP_FACT_TS : 0;
    f.flags |= o & TCPI_OPT_WSCALE ? HF_TCP_FACT_WSCALE : 0;
    f.flags |= o & TCPI_OPT_ECN ? HF_TCP_FACT_ECN : 0;
    f.snd_wscale = o & TCPI_OPT_WSCALE ? i.base.tcpi_snd_wscale : 0;
    f.rcv_wscale = o & TCPI_OPT_WSCALE ? i.base.tcpi_rcv_wscale : 0;
    f.ts_at = now;
    rc = read_moving(fd, &i, now, &f);
    if (rc) {
        return fail(err, rc, "read the timestamp clock of the connection");
    }
    *ret_f = f;
    return 0;
}

int hf_tcpmove_refresh(int fd, uint64_t tx_total, hf_time now, struct hf_tcp_facts *f,
                       uint64_t *ret_tx_una)
{
    struct info i;
    uint32_t unacked = 0;
    int rc = read_info(fd, &i);
    rc = rc ? rc : count(fd, SIOCOUTQ, &unacked); /* our FIN counts as a byte */
    rc = rc ? rc : read_moving(fd, &i, now, f);
    if (rc) {
        return rc;
    }
    uint64_t end = tx_total + (fin_sent(&i) ? 1 : 0), una = end > unacked ? end - unacked : 0;
    *ret_tx_una = una < tx_total ? una : tx_total;
    return 0;
}

int hf_tcpmove_freeze(int fd, uint64_t rx_total, uint64_t tx_total, hf_time now,
                      struct hf_tcp_facts *f, uint64_t *ret_tx_una, struct hf_err *err)
{
    uint32_t rcv = 0;
    int rc = set(fd, TCP_REPAIR, TCP_REPAIR_ON);
    if (rc) {
        return fail(err, rc, "enter repair mode");
    }
    rc = set(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
    rc = rc ? rc : get(fd, TCP_QUEUE_SEQ, &rcv, sizeof(rcv));
    if (rc == 0 && rcv != hf_tcp_rcv_nxt(f, rx_total)) {
        rc = -EBUSY;
    }
    rc = rc ? rc : hf_tcpmove_refresh(fd, tx_total, now, f, ret_tx_una);
    if (rc) {
        end_repair(fd);
        return rc == -EBUSY ? hf_err_set(err, rc,
                                         "cannot freeze the connection: it has received "
                                         "more than was read; read on first")
                            : fail(err, rc, "freeze the connection");
    }
    return 0;
}

void hf_tcpmove_discard(int fd)
{
    (void)set(fd, TCP_REPAIR, TCP_REPAIR_ON); /* then close() sends nothing; if refused: as usual */
    close(fd);
}

int hf_tcpmove_sent(int fd, uint64_t *ret_n)
{
    struct info before, after;
    uint32_t queued = 0;
    int rc = read_info(fd, &after);
    for (int i = 0; rc == 0 && i < SENT_TRIES; i++) {
        before = after;
        rc = count(fd, SIOCOUTQ, &queued);
        rc = rc ? rc : read_info(fd, &after);
        /* Each call is a moment of its own, and the queue is from between these two. */
        if (rc == 0 && before.base.tcpi_bytes_acked == after.base.tcpi_bytes_acked &&
            before.base.tcpi_notsent_bytes == after.base.tcpi_notsent_bytes) {
            *ret_n = after.base.tcpi_bytes_acked + queued - after.base.tcpi_notsent_bytes;
            return 0;
        }
    }
    return rc ? rc : -EAGAIN;
}
