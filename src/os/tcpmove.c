/* A batch of connections that this host takes over: record, probe, restore, replay, acknowledge. */
#include "os/tcpmove.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "os/tcpmove_impl.h"

#define PER_STEP 32
#define RECEIVE_PER_STEP 256      /* packets; then the others in the loop */
#define RECEIVE_BUFFER (16 << 20) /* bytes: until the first step */
#define NUDGES 5                  /* one that is acknowledged, three duplicates, one spare */
#define REVERTS 3                 /* doublings of a timeout: for an outage of up to 2.8 s */
#define NUDGE_INTERVAL HF_MS(8)
#define NUDGE_PATIENCE HF_MS(250)
#define TRY_PATIENCE HF_MS(100) /* for who has no D-SACK: the window may be closed */
#define TRY_MAX 64              /* bytes */
#define BEHIND_MAX 8            /* steps that only receive, before the others go on */
#define SACK_ROUNDS 3           /* probes before a peer with SACK seems to lack D-SACK */
#define PROBE_INTERVAL HF_MS(3) /* to the next probe, on a network where most answer in 1 */
#define QUICK_ROUNDS 5          /* probes with that interval */
#define SLOW_INTERVAL HF_MS(30)
#define PACKET_MAX (HF_TCP_PACKET_MAX + 1) /* received: header of IPv4 included */
#define KEY_LEN 18                         /* of a peer: address and port */
#define TCP_ACK_AT 8                       /* in its header */
#define TCP_WINDOW_AT 14
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

struct packet {
    struct hf_list node;
    struct hf_endpoint from;
    size_t n; /* TCP header and payload */
    uint8_t bytes[];
};

/* Only forward, by enter(). */
enum state {
    ADDED,    /* nothing was done for it */
    PROBING,  /* asked, not answered */
    READY,    /* answered, or waited for in vain */
    RESTORED, /* has its socket, or is given up; packets recorded until now are due */
    WATCHED,  /* the peer may have more than its socket has sent */
    DONE,     /* packets are its socket's own matter */
};

struct conn {
    struct hf_list node; /* on the list of its state */
    enum state state;
    struct hf_tcpmove_job job;
    struct hf_list packets; /* recorded, to be replayed once the socket is there */
    uint8_t key[KEY_LEN];
    bool answered, exact, gone, beyond;
    unsigned rounds;  /* probes sent */
    unsigned plain;   /* answers without data or D-SACK */
    uint64_t peer_tx; /* answered: the peer stands here */
    uint64_t try_tx;  /* without D-SACK: the peer seems to stand here ... */
    uint32_t try_n;   /* ... and was sent so many bytes more; 0: its window is closed */
    hf_time tried_at; /* the last news of that; 0: none */
    bool tried;       /* it has them, and so stands behind them: exact */
    uint32_t snd_wnd;
    int fd;         /* its socket, a second time, until DONE; -1: none */
    bool heard;     /* WATCHED: it has acknowledged something */
    bool goes_on;   /* ... and then more */
    uint64_t acked; /* heard: the most of it */
    hf_time asked_at, next_probe;
};

struct hf_tcpmove {
    struct hf_endpoint local;
    struct hf_tcpmove_opt opt;
    hf_tcpmove_done *fn;
    void *arg;
    int in, out; /* raw sockets: what comes for the address; whole IP packets to anywhere */
    struct hf_map by_peer;          /* all connections, until the end */
    struct hf_list conns[DONE + 1]; /* by state */
    struct hf_list strangers;       /* packets of no connection here */
    hf_time now;                    /* of this step */
    unsigned left;
    bool listening;  /* others than those in the batch get their packets by themselves */
    unsigned behind; /* steps in a row that did not receive all there was */
    size_t recorded_bytes;
    struct hf_tcpmove_counters c;
    uint8_t buf[PACKET_MAX], lowered[PACKET_MAX];
};

static struct conn *conn_of(struct hf_list *node)
{
    return (struct conn *)((char *)node - offsetof(struct conn, node));
}

static struct packet *packet_of(struct hf_list *node)
{
    return (struct packet *)((char *)node - offsetof(struct packet, node));
}

static void make_key(const struct hf_endpoint *e, uint8_t key[static KEY_LEN])
{
    memcpy(key, e->addr, 16);
    key[16] = (uint8_t)(e->port >> 8);
    key[17] = (uint8_t)e->port;
}

static void enter(struct hf_tcpmove *mv, struct conn *c, enum state state)
{
    assert(state > c->state || state == ADDED);
    if (state == DONE && c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
    c->state = state;
    hf_list_unlink(&c->node);
    hf_list_insert(&mv->conns[state], &c->node);
}

/* The one that has been in this state longest. */
static struct conn *first(struct hf_tcpmove *mv, enum state state)
{
    struct hf_list *head = &mv->conns[state];
    return hf_list_empty(head) ? NULL : conn_of(head->next);
}

static uint64_t tx_total(const struct conn *c)
{
    return c->job.tx_una + c->job.tx.n;
}

/* --- open, close --- */

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value));
}

static int fail(struct hf_err *err, const struct hf_addr *a, const char *what, const char *remedy)
{
    int e = errno;
    char text[HF_ADDR_STR_LEN];
    return hf_err_set(err, -e, "cannot %s for %s: %s%s%s", what, hf_addr_str(a, text),
                      hf_strerror(-e), *remedy ? "; " : "", remedy);
}

static int open_raw(struct hf_tcpmove *mv, int protocol, struct hf_err *err, int *ret_fd)
{
    *ret_fd = socket(mv->opt.local.ss.ss_family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (*ret_fd < 0) {
        return fail(err, &mv->opt.local, "open a raw socket",
                    errno == EPERM ? "start the program with CAP_NET_RAW" : "");
    }
    return 0;
}

static int open_in(struct hf_tcpmove *mv, struct hf_err *err)
{
    bool v6 = mv->local.family == HF_AF_INET6;
    struct hf_endpoint e = mv->local;
    e.port = 0;
    struct hf_addr a = hf_addr_from_endpoint(&e);
    int rc = open_raw(mv, IPPROTO_TCP, err, &mv->in);
    if (rc) {
        return rc;
    }
    /* the address comes later */
    if (set_int(mv->in, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, 1) < 0 ||
        bind(mv->in, (const struct sockaddr *)&a.ss, a.len) < 0) {
        return fail(err, &mv->opt.local, "bind a raw socket", "");
    }
    if (set_int(mv->in, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER) < 0) {
        return fail(err, &mv->opt.local, "enlarge the buffer of a raw socket",
                    errno == EPERM ? "start the program with CAP_NET_ADMIN" : "");
    }
    return 0;
}

static int open_out(struct hf_tcpmove *mv, struct hf_err *err)
{
    int rc = open_raw(mv, IPPROTO_RAW, err, &mv->out); /* this one takes whole packets */
    if (rc == 0 && mv->opt.mark &&
        setsockopt(mv->out, SOL_SOCKET, SO_MARK, &mv->opt.mark, sizeof(mv->opt.mark)) < 0) {
        rc = fail(err, &mv->opt.local, "mark the packets of a raw socket", "");
    }
    return rc;
}

/* One that needs CAP_NET_ADMIN now, rather than the first connection later. */
static int check_repair(struct hf_tcpmove *mv, struct hf_err *err)
{
    int fd = socket(mv->opt.local.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail(err, &mv->opt.local, "open a socket", "");
    }
    int rc = 0;
    if (set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON) < 0) {
        rc = fail(err, &mv->opt.local, "enter TCP_REPAIR",
                  errno == EPERM ? "start the program with CAP_NET_ADMIN"
                                 : "the kernel needs CONFIG_CHECKPOINT_RESTORE");
    }
    close(fd);
    return rc;
}

int hf_tcpmove_open(const struct hf_tcpmove_opt *opt, hf_tcpmove_done *fn, void *arg,
                    struct hf_err *err, struct hf_tcpmove **ret_mv)
{
    struct hf_endpoint local = hf_addr_to_endpoint(&opt->local);
    if (local.family == HF_AF_NONE || local.port == 0) {
        return hf_err_set(err, -HF_ECONFIG, "a take-over needs an address with its port");
    }
    struct hf_tcpmove *mv = hf_alloc(sizeof(*mv));
    if (!mv) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    mv->local = local;
    mv->opt = *opt;
    mv->opt.per_step = opt->per_step ? opt->per_step : PER_STEP;
    mv->opt.patience = opt->patience ? opt->patience : HF_TCPMOVE_PATIENCE;
    mv->fn = fn;
    mv->arg = arg;
    mv->in = mv->out = -1;
    hf_map_init(&mv->by_peer, (uint64_t)(uintptr_t)mv);
    hf_list_init(&mv->strangers);
    for (size_t i = 0; i < HF_ARRAY_LEN(mv->conns); i++) {
        hf_list_init(&mv->conns[i]);
    }
    int rc = open_in(mv, err);
    rc = rc ? rc : open_out(mv, err);
    rc = rc ? rc : check_repair(mv, err);
    if (rc) {
        hf_tcpmove_close(mv);
        return rc;
    }
    *ret_mv = mv;
    return 0;
}

static void free_packets(struct hf_tcpmove *mv, struct hf_list *packets)
{
    HF_LIST_FOREACH (it, packets) {
        struct packet *p = packet_of(it);
        mv->recorded_bytes -= p->n;
        hf_list_unlink(it);
        hf_free(p);
    }
}

void hf_tcpmove_close(struct hf_tcpmove *mv)
{
    if (!mv) {
        return;
    }
    if (mv->in >= 0) {
        close(mv->in);
    }
    if (mv->out >= 0) {
        close(mv->out);
    }
    size_t pos = 0;
    for (struct conn *c; (c = hf_map_next(&mv->by_peer, &pos));) {
        free_packets(mv, &c->packets);
        if (c->fd >= 0) {
            close(c->fd);
        }
        hf_free(c);
    }
    hf_map_fini(&mv->by_peer);
    free_packets(mv, &mv->strangers);
    hf_free(mv);
}

int hf_tcpmove_add(struct hf_tcpmove *mv, const struct hf_tcpmove_job *job)
{
    struct hf_tcp_facts f = job->facts;
    bool embryo = f.flags & HF_TCP_FACT_EMBRYO;
    f.local.scope = f.peer.scope = mv->local.scope; /* of this host */
    if (!hf_endpoint_eq(&f.local, &mv->local) || f.peer.family != mv->local.family ||
        f.peer.port == 0 || (embryo && hf_tcp_of_packet(job->syn_ack).n == 0)) {
        return -HF_EVALUE;
    }
    uint8_t key[KEY_LEN];
    make_key(&f.peer, key);
    if (hf_map_get(&mv->by_peer, hf_slice(key, KEY_LEN))) {
        return -EEXIST;
    }
    struct conn *c = hf_alloc(sizeof(*c));
    if (!c) {
        return -ENOMEM;
    }
    c->fd = -1;
    c->job = *job;
    c->job.facts = f;
    memcpy(c->key, key, KEY_LEN);
    hf_list_init(&c->packets);
    hf_list_init(&c->node);
    int rc = hf_map_put(&mv->by_peer, hf_slice(c->key, KEY_LEN), c);
    if (rc) {
        hf_free(c);
        return rc;
    }
    enter(mv, c, ADDED);
    mv->left++;
    mv->c.added++;
    return 0;
}

/* --- raw packets out --- */

static void send_packet(struct hf_tcpmove *mv, const struct hf_endpoint *to, const struct hf_wr *w)
{
    struct hf_slice s;
    struct hf_endpoint e = *to;
    e.port = 0; /* raw IPv6 sockets refuse others */
    struct hf_addr a = hf_addr_from_endpoint(&e);
    if (hf_wr_end(w, &s) || sendto(mv->out, s.p, s.n, MSG_DONTWAIT | MSG_NOSIGNAL,
                                   (const struct sockaddr *)&a.ss, a.len) < 0) {
        mv->c.send_errors++; /* as if the network had lost it */
    }
}

/* Pitfall 14: SYN and SYN-ACK were committed, but perhaps the SYN-ACK was lost. Once more it does
 * no harm: who has it answers with a plain acknowledgement. */
static void send_syn_ack(struct hf_tcpmove *mv, const struct conn *c)
{
    uint8_t buf[HF_TCP_HEADERS_MAX];
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_wrap(&w, &mv->local, &c->job.facts.peer, hf_tcp_of_packet(c->job.syn_ack));
    send_packet(mv, &c->job.facts.peer, &w);
}

static void send_try(struct hf_tcpmove *mv, const struct conn *c, hf_time now)
{
    uint8_t buf[HF_TCP_HEADERS_MAX + TRY_MAX];
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_build_data(&w, &c->job.facts, c->try_tx,
                      hf_slice(c->job.tx.p + (c->try_tx - c->job.tx_una), c->try_n),
                      c->job.rx_total, now - mv->opt.clock_offset);
    send_packet(mv, &c->job.facts.peer, &w);
}

static void send_probe(struct hf_tcpmove *mv, struct conn *c, hf_time now)
{
    uint8_t buf[HF_TCP_HEADERS_MAX + 1];
    struct hf_wr w;
    if (c->try_n && c->state == PROBING) {
        send_try(mv, c, now); /* the probe makes the peer answer at once */
    }
    mv->c.probes++;
    c->rounds++;
    c->next_probe = now + (c->rounds < QUICK_ROUNDS ? PROBE_INTERVAL : SLOW_INTERVAL);
    if (c->job.facts.flags & HF_TCP_FACT_EMBRYO) {
        send_syn_ack(mv, c);
        return;
    }
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_build_probe(&w, &c->job.facts, c->job.tx_una, c->job.rx_total,
                       now - mv->opt.clock_offset);
    send_packet(mv, &c->job.facts.peer, &w);
}

/* Pitfall 2: in sequence, so that the peer believes it and resends the rest in milliseconds. */
static void send_ack(struct hf_tcpmove *mv, const struct conn *c, hf_time now)
{
    uint8_t buf[HF_TCP_HEADERS_MAX];
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_build_ack(&w, &c->job.facts, c->peer_tx, c->job.rx_total, now - mv->opt.clock_offset);
    send_packet(mv, &c->job.facts.peer, &w);
}

/* Pitfall 23: what the peer sent in vain it sends again when its timeout, doubled each time, is
 * over; so that it does not go on counting from when there was nobody. */
static void revert_timeout(struct hf_tcpmove *mv, const struct conn *c)
{
    uint8_t buf[HF_TCP_HEADERS_MAX];
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_build_unreachable(&w, &mv->local, &c->job.facts.peer,
                             hf_tcp_rcv_nxt(&c->job.facts, c->job.rx_total));
    for (int i = 0; i < REVERTS; i++) {
        send_packet(mv, &c->job.facts.peer, &w);
    }
}

void hf_tcpmove_challenge(struct hf_tcpmove *mv, const struct hf_tcp_facts *f, hf_time now)
{
    uint8_t buf[HF_TCP_HEADERS_MAX];
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_build_challenge(&w, f, now - mv->opt.clock_offset);
    send_packet(mv, &f->peer, &w);
}

/* Pitfall 17, too: what was queued as sent would wait for the first retransmission, 3 s. Each probe
 * is answered with a duplicate acknowledgement, three of which make our TCP resend at once; but not
 * while the peer's window changes, so it is done until it helped. */
static void nudge(struct hf_tcpmove *mv, struct conn *c, hf_time now)
{
    for (int i = 0; i < NUDGES; i++) {
        send_probe(mv, c, now);
    }
    /* who says nothing for so long is waited for, not flooded */
    c->next_probe = now + (now - c->asked_at < NUDGE_PATIENCE ? NUDGE_INTERVAL : SLOW_INTERVAL);
}

/* Captured bytes to this host's own TCP, with checksums that are right again (pitfall 8). */
static void replay(struct hf_tcpmove *mv, struct hf_list *packets)
{
    HF_LIST_FOREACH (it, packets) {
        struct packet *p = packet_of(it);
        struct hf_wr w;
        hf_wr_init(&w, mv->buf, sizeof(mv->buf));
        hf_tcp_wrap(&w, &p->from, &mv->local, hf_slice(p->bytes, p->n));
        send_packet(mv, &mv->local, &w);
        mv->c.replayed++;
    }
    free_packets(mv, packets);
}

/* Up to where the former host may have sent (pitfall 21): with an answer, up to the end of the
 * window in it, as a peer takes no window back, but for what scaling cuts off. That would be the
 * 3 s of pitfall 18 for a peer whose buffer is full. An answer that is too old for that shows
 * itself by the next ones (pitfall 25). */
static uint64_t sent_end(const struct conn *c)
{
    uint64_t total = tx_total(c);
    if (!c->answered) {
        return total;
    }
    uint64_t cut_off = c->snd_wnd ? (1u << c->job.facts.snd_wscale) - 1 : 0;
    uint64_t end = c->peer_tx + c->snd_wnd + cut_off;
    return end < total ? end : total;
}

/*
 * Pitfall 25: our TCP ignores for ever who acknowledges more than it has sent, and that is what a
 * peer does that has more: bytes of the dead host that came behind some that were lost, as soon as
 * it has these; or all along, if its first answer was an old one. What it says is true of less,
 * too: so our TCP is told that, with a window that ends where it did, and sends on from there. Who
 * says more than the dead host can have sent (I4) is ignored with good reason.
 */
static void lower(struct hf_tcpmove *mv, const struct conn *c, const struct hf_tcp_segment *seg,
                  struct hf_slice tcp, uint32_t by)
{
    struct hf_wr w;
    uint8_t scale = c->job.facts.snd_wscale;
    uint64_t window = (((uint64_t)seg->window << scale) + by + (1u << scale) - 1) >> scale;
    uint8_t *copy = mv->lowered;
    memcpy(copy, tcp.p, tcp.n);
    hf_wr_init(&w, copy + TCP_ACK_AT, sizeof(uint32_t));
    hf_wr_u32(&w, seg->ack - by);
    hf_wr_init(&w, copy + TCP_WINDOW_AT, sizeof(uint16_t));
    hf_wr_u16(&w, (uint16_t)(window < UINT16_MAX ? window : UINT16_MAX));
    hf_wr_init(&w, mv->buf, sizeof(mv->buf));
    hf_tcp_wrap(&w, &c->job.facts.peer, &mv->local, hf_slice(copy, tcp.n));
    send_packet(mv, &mv->local, &w);
    mv->c.lowered++;
}

/* It is over when the socket has heard of all that the dead host may have sent. An answer that may
 * be old does not tell how much that is. */
static void on_watched(struct hf_tcpmove *mv, struct conn *c, const struct hf_tcp_segment *seg,
                       struct hf_slice tcp)
{
    uint32_t una = hf_tcp_snd_seq(&c->job.facts, c->peer_tx);
    uint64_t tx = c->peer_tx + (uint32_t)(seg->ack - una), sent = 0;
    if (!(seg->flags & HF_TCP_ACK) || hf_tcp_before(seg->ack, una)) {
        return;
    }
    c->goes_on = c->goes_on || (c->heard && tx > c->acked);
    c->acked = c->heard && c->acked > tx ? c->acked : tx;
    c->heard = true;
    if (hf_tcpmove_sent(c->fd, &sent)) {
        return; /* the next one tells */
    }
    sent += c->peer_tx;
    sent += sent == tx_total(c) && (c->job.facts.flags & HF_TCP_FACT_CLOSING); /* our FIN */
    if (tx > sent) {
        if (hf_tcp_acked(&c->job.facts, seg->ack, c->peer_tx, tx_total(c), &tx)) {
            lower(mv, c, seg, tcp, (uint32_t)(tx - sent));
        }
    } else if (tx == c->acked && tx >= sent_end(c) && (c->exact || c->goes_on)) {
        mv->left--;
        enter(mv, c, DONE);
    }
}

/* --- packets in --- */

static void record(struct hf_tcpmove *mv, struct hf_list *to, const struct hf_endpoint *from,
                   struct hf_slice tcp)
{
    struct packet *p = NULL;
    if (mv->recorded_bytes + tcp.n <= HF_TCPMOVE_RECORD_MAX) {
        p = hf_alloc(sizeof(*p) + tcp.n);
    }
    if (!p) {
        mv->c.record_full++; /* as if the network had lost it */
        return;
    }
    p->from = *from;
    p->n = tcp.n;
    memcpy(p->bytes, tcp.p, tcp.n);
    hf_list_init(&p->node);
    hf_list_insert(to, &p->node);
    mv->recorded_bytes += p->n;
    mv->c.recorded++;
}

static void answered(struct hf_tcpmove *mv, struct conn *c, uint64_t tx, bool exact)
{
    c->answered = true;
    c->exact = exact;
    c->peer_tx = tx;
    mv->c.answered++;
    mv->c.inexact += !exact;
    enter(mv, c, READY);
}

/* Pitfall 17: an answer without D-SACK may be older than the probe. A few bytes that come next
 * tell: who stands there takes them, and says so; who has more says how much. As many as no older
 * answer is likely to end at. */
static void try_answer(struct hf_tcpmove *mv, struct conn *c, uint64_t tx)
{
    const struct hf_tcpmove_job *j = &c->job;
    if (c->try_n && tx == c->try_tx + c->try_n) {
        c->tried = true;
        mv->c.tried++;
        answered(mv, c, tx, true);
        return;
    }
    if (tx == tx_total(c)) { /* only our FIN is left, which can't be tried */
        answered(mv, c, tx, false);
        return;
    }
    bool news = tx > c->try_tx || (tx == c->try_tx && c->try_n == 0 && c->snd_wnd);
    if (c->tried_at && !news) {
        return; /* they come again with the next probe */
    }
    c->tried_at = mv->now;
    uint32_t n = 1 + (hf_tcp_snd_seq(&j->facts, tx) * 2654435761u >> 16) % TRY_MAX;
    uint64_t rest = tx_total(c) - tx;
    n = n < rest ? n : (uint32_t)rest;
    c->try_tx = tx;
    c->try_n = n < c->snd_wnd ? n : c->snd_wnd;
    if (c->try_n) {
        send_probe(mv, c, mv->now);
    }
}

/* Something from the peer of a connection that was asked. */
static void on_answer(struct hf_tcpmove *mv, struct conn *c, const struct hf_tcp_segment *seg)
{
    const struct hf_tcpmove_job *j = &c->job;
    uint64_t tx = 0;
    switch (
        hf_tcp_read_answer(&j->facts, seg, j->tx_una, tx_total(c), j->rx_total, &tx, &c->snd_wnd)) {
    case HF_TCP_ANSWER_EXACT:
        answered(mv, c, tx, true);
        return;
    case HF_TCP_ANSWER_OLDER:
        c->plain += seg->payload.n == 0;
        if (!(j->facts.flags & HF_TCP_FACT_SACK) || c->plain >= SACK_ROUNDS) {
            try_answer(mv, c, tx);
        }
        return;
    case HF_TCP_ANSWER_GONE:
        c->gone = true;
        enter(mv, c, READY);
        return;
    case HF_TCP_ANSWER_BEYOND:
        c->beyond = true;
        enter(mv, c, READY);
        return;
    case HF_TCP_ANSWER_NONE:
        return;
    }
}

static void on_segment(struct hf_tcpmove *mv, const struct hf_tcp_segment *seg, struct hf_slice tcp)
{
    uint8_t key[KEY_LEN];
    make_key(&seg->src, key);
    struct conn *c = hf_map_get(&mv->by_peer, hf_slice(key, KEY_LEN));
    bool matters = seg->payload.n || (seg->flags & (HF_TCP_SYN | HF_TCP_FIN));
    if (seg->dst.port != mv->local.port || (c && c->state == DONE)) {
        return;
    }
    if (c && c->state == WATCHED) {
        on_watched(mv, c, seg, tcp);
        return;
    }
    if (!c) {
        if (matters && !mv->listening) {
            record(mv, &mv->strangers, &seg->src, tcp);
        }
        return;
    }
    if ((c->job.facts.flags & HF_TCP_FACT_EMBRYO) && (seg->flags & HF_TCP_SYN)) {
        send_syn_ack(mv, c);
        return;
    }
    if (matters) {
        record(mv, &c->packets, &seg->src, tcp);
    }
    if (c->state == PROBING) {
        on_answer(mv, c, seg);
    }
}

static void on_packet(struct hf_tcpmove *mv, struct hf_slice packet, const struct hf_addr *from)
{
    struct hf_tcp_segment seg;
    struct hf_slice tcp = packet;
    int rc;
    if (mv->local.family == HF_AF_INET6) { /* without IP header */
        struct hf_endpoint src = hf_addr_to_endpoint(from);
        rc = hf_tcp_segment_parse_tcp(&src, &mv->local, tcp, &seg);
    } else {
        rc = hf_tcp_segment_parse(packet, &seg);
        tcp = hf_tcp_of_packet(packet);
    }
    if (rc) {
        mv->c.malformed++;
    } else {
        on_segment(mv, &seg, tcp);
    }
}

/* True: all that there was. */
static bool receive(struct hf_tcpmove *mv, unsigned n_max)
{
    for (unsigned i = 0; i < n_max; i++) {
        struct hf_addr from = {.len = sizeof(from.ss)};
        ssize_t n = recvfrom(mv->in, mv->buf, sizeof(mv->buf), MSG_DONTWAIT,
                             (struct sockaddr *)&from.ss, &from.len);
        if (n < 0) {
            return true;
        }
        on_packet(mv, hf_slice(mv->buf, (size_t)n), &from);
    }
    return false;
}

/* --- step --- */

static bool needs_probe(const struct conn *c)
{
    return c->job.tx.n || (c->job.facts.flags & (HF_TCP_FACT_CLOSING | HF_TCP_FACT_EMBRYO));
}

static void start_some(struct hf_tcpmove *mv, hf_time now)
{
    struct conn *c;
    for (unsigned i = 0; i < mv->opt.per_step && (c = first(mv, ADDED)); i++) {
        c->snd_wnd = c->job.facts.snd_wnd ? c->job.facts.snd_wnd : UINT16_MAX;
        if (!needs_probe(c)) { /* it has all, so where it stands is known */
            c->answered = c->exact = true;
            c->peer_tx = c->job.tx_una;
            enter(mv, c, READY);
            continue;
        }
        c->asked_at = now;
        enter(mv, c, PROBING);
        send_probe(mv, c, now);
    }
}

static void probe_some(struct hf_tcpmove *mv, hf_time now)
{
    unsigned n = 0;
    HF_LIST_FOREACH (it, &mv->conns[PROBING]) {
        struct conn *c = conn_of(it);
        if (c->tried_at && now - c->tried_at >= TRY_PATIENCE) {
            answered(mv, c, c->try_tx, false); /* as if nothing more was known (pitfall 17) */
        } else if (now - c->asked_at >= mv->opt.patience) {
            mv->c.unanswered++;
            enter(mv, c, READY);
        } else if (now >= c->next_probe && n++ < mv->opt.per_step) {
            send_probe(mv, c, now);
        }
    }
}

/* Is it to be nudged (again)? */
static bool is_nudged(const struct conn *c, hf_time now)
{
    return !c->exact && !c->goes_on && (!c->heard || now - c->asked_at < NUDGE_PATIENCE);
}

static void watch_some(struct hf_tcpmove *mv, hf_time now)
{
    HF_LIST_FOREACH (it, &mv->conns[WATCHED]) {
        struct conn *c = conn_of(it);
        if (now - c->asked_at >= mv->opt.patience) {
            mv->left--;
            enter(mv, c, DONE);
        } else if (!is_nudged(c, now)) {
            c->next_probe = HF_NEVER;
        } else if (now >= c->next_probe) {
            nudge(mv, c, now);
        }
    }
}

static void report(struct hf_tcpmove *mv, struct conn *c, const struct hf_tcpmove_result *res)
{
    mv->c.restored += res->rc == 0;
    mv->c.gone += res->rc == -HF_ECLOSED;
    mv->c.failed += res->rc && res->rc != -HF_ECLOSED;
    mv->fn(mv->arg, c->job.arg, res);
}

/* May its peer say what its socket would ignore? */
static bool is_doubtful(const struct conn *c)
{
    return c->answered && (!c->exact || sent_end(c) > c->peer_tx);
}

static void finish_conn(struct hf_tcpmove *mv, struct conn *c, hf_time now)
{
    const struct hf_tcp_facts *f = &c->job.facts;
    struct hf_tcpmove_result res = {.fd = -1, .snd_wnd = c->snd_wnd, .exact = c->exact};
    bool embryo = f->flags & HF_TCP_FACT_EMBRYO, all_read = f->flags & HF_TCP_FACT_EOF;
    uint64_t una = c->answered ? c->peer_tx : c->job.tx_una, total = tx_total(c);
    size_t skip = una < total ? (size_t)(una - c->job.tx_una) : c->job.tx.n;
    if (c->gone || (all_read && una > total)) {
        res.rc = -HF_ECLOSED;
        res.what = "find the peer";
    } else if (c->beyond) {
        res.rc = -HF_EPROTO;
        res.what = "find what the peer acknowledges";
    } else {
        struct hf_tcpmove_plan plan = {
            .f = f,
            .rx_total = c->job.rx_total,
            .tx_una = una,
            .tx_total = total,
            .snd_wnd = c->snd_wnd,
            .tx = hf_slice(c->job.tx.n ? c->job.tx.p + skip : NULL, c->job.tx.n - skip),
            .tx_sent = sent_end(c),
            .exact = c->exact || embryo, /* nothing was sent to an embryo */
            .no_sack = c->answered && !c->exact,
            .tsval = hf_tcp_tsval(f, now - mv->opt.clock_offset),
        };
        res.rc = hf_tcpmove_restore(&plan, &res.what, &res.fd, &res.tx_written);
    }
    res.tx_una = una;
    if (res.rc == 0 && c->answered && !embryo) {
        send_ack(mv, c, now);
        revert_timeout(mv, c);
    }
    if (res.rc == 0 && is_doubtful(c)) {
        c->fd = fcntl(res.fd, F_DUPFD_CLOEXEC, 0);
        c->asked_at = now;
        c->next_probe = HF_NEVER; /* nothing waits for a retransmission */
        if (!c->exact) {
            nudge(mv, c, now);
        }
    }
    if (res.rc) {
        free_packets(mv, &c->packets); /* they would be answered with a RST */
    }
    mv->left -= res.rc != 0;
    enter(mv, c, res.rc ? DONE : RESTORED);
    report(mv, c, &res);
}

static void restore_some(struct hf_tcpmove *mv, hf_time now)
{
    struct conn *c;
    for (unsigned i = 0; i < mv->opt.per_step && (c = first(mv, READY)); i++) {
        finish_conn(mv, c, now);
    }
    if (!first(mv, RESTORED)) {
        return;
    }
    (void)receive(mv, RECEIVE_PER_STEP); /* what came until its socket was there still goes to it */
    while ((c = first(mv, RESTORED))) {
        replay(mv, &c->packets);
        mv->left -= !is_doubtful(c);
        enter(mv, c, is_doubtful(c) ? WATCHED : DONE);
    }
}

void hf_tcpmove_step(struct hf_tcpmove *mv, hf_time now)
{
    mv->now = now;
    /* All that came is seen before a socket is made: its connection's packets are kept. But
     * connections that are done and busy must not keep the others waiting. */
    mv->behind = receive(mv, RECEIVE_PER_STEP) ? 0 : mv->behind + 1;
    if (mv->behind == 0 || mv->behind >= BEHIND_MAX) {
        start_some(mv, now);
        probe_some(mv, now);
        watch_some(mv, now);
        restore_some(mv, now);
    }
}

hf_time hf_tcpmove_deadline(const struct hf_tcpmove *mv)
{
    if (!hf_list_empty(&mv->conns[ADDED]) || !hf_list_empty(&mv->conns[READY])) {
        return 0;
    }
    hf_time at = HF_NEVER;
    for (enum state state = PROBING; state <= WATCHED; state++) {
        const struct hf_list *head = &mv->conns[state];
        for (struct hf_list *it = head->next; it != head; it = it->next) {
            const struct conn *c = conn_of(it);
            at = hf_time_min(at, hf_time_min(c->next_probe, c->asked_at + mv->opt.patience));
        }
    }
    return at;
}

int hf_tcpmove_fd(const struct hf_tcpmove *mv)
{
    return mv->in;
}

unsigned hf_tcpmove_left(const struct hf_tcpmove *mv)
{
    return mv->left;
}

bool hf_tcpmove_settled(const struct hf_tcpmove *mv, hf_time now)
{
    if (!hf_list_empty(&mv->conns[ADDED]) || !hf_list_empty(&mv->conns[READY])) {
        return false;
    }
    const struct hf_list *head = &mv->conns[PROBING];
    for (struct hf_list *it = head->next; it != head; it = it->next) {
        if (now - conn_of(it)->asked_at < HF_TCPMOVE_SETTLE) {
            return false;
        }
    }
    return true;
}

void hf_tcpmove_listening(struct hf_tcpmove *mv)
{
    while (!receive(mv, RECEIVE_PER_STEP)) {
    }
    mv->listening = true;
    replay(mv, &mv->strangers);
}

const struct hf_tcpmove_counters *hf_tcpmove_counters(const struct hf_tcpmove *mv)
{
    return &mv->c;
}
