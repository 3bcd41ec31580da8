/* What a TCP connection is, enough for another host to go on with it (doc/wire/tcp-facts.md). */
#include "codec/tcp_facts.h"

#include <string.h>

#include "base/err.h"

#define MSS_MIN 48u /* the kernel's TCP_MIN_SND_MSS */

/* --- wire --- */

static size_t addr_len(const struct hf_endpoint *e)
{
    return e->family == HF_AF_INET ? 4 : 16;
}

static void wr_endpoint(struct hf_wr *w, const struct hf_endpoint *e)
{
    hf_wr_bytes(w, hf_slice(e->addr, addr_len(e)));
    hf_wr_u16(w, e->port);
}

static void rd_endpoint(struct hf_rd *r, uint8_t family, struct hf_endpoint *ret_e)
{
    ret_e->family = family;
    hf_rd_copy(r, ret_e->addr, addr_len(ret_e));
    ret_e->port = hf_rd_u16(r);
    if (ret_e->port == 0) {
        hf_rd_fail(r, -HF_EMALF);
    }
}

void hf_tcp_facts_encode(struct hf_wr *w, const struct hf_tcp_facts *f)
{
    hf_wr_u8(w, HF_TCP_FACTS_VERSION);
    hf_wr_u8(w, f->local.family);
    wr_endpoint(w, &f->local);
    wr_endpoint(w, &f->peer);
    hf_wr_u32(w, f->snd_isn);
    hf_wr_u32(w, f->rcv_isn);
    hf_wr_u16(w, f->mss);
    hf_wr_u8(w, f->snd_wscale);
    hf_wr_u8(w, f->rcv_wscale);
    hf_wr_u8(w, f->flags);
    hf_wr_u8(w, 0);
    hf_wr_u32(w, f->tsval);
    hf_wr_u64(w, (uint64_t)f->ts_at);
    hf_wr_u32(w, f->snd_wnd);
    hf_wr_u32(w, f->rcv_wnd);
}

static bool valid(const struct hf_tcp_facts *f)
{
    bool scaled = f->flags & HF_TCP_FACT_WSCALE;
    uint8_t scale_max = scaled ? HF_TCP_WSCALE_MAX : 0;
    return f->mss >= MSS_MIN && f->snd_wscale <= scale_max && f->rcv_wscale <= scale_max &&
           f->ts_at >= 0;
}

void hf_tcp_facts_decode(struct hf_rd *r, struct hf_tcp_facts *ret_f)
{
    struct hf_tcp_facts f;
    memset(&f, 0, sizeof(f));
    if (hf_rd_u8(r) != HF_TCP_FACTS_VERSION) {
        hf_rd_fail(r, -HF_EVERSION);
    }
    uint8_t family = hf_rd_u8(r);
    if (family != HF_AF_INET && family != HF_AF_INET6) {
        hf_rd_fail(r, -HF_EMALF);
    }
    rd_endpoint(r, family, &f.local);
    rd_endpoint(r, family, &f.peer);
    f.snd_isn = hf_rd_u32(r);
    f.rcv_isn = hf_rd_u32(r);
    f.mss = hf_rd_u16(r);
    f.snd_wscale = hf_rd_u8(r);
    f.rcv_wscale = hf_rd_u8(r);
    f.flags = hf_rd_u8(r);
    uint8_t reserved = hf_rd_u8(r);
    f.tsval = hf_rd_u32(r);
    f.ts_at = (hf_time)hf_rd_u64(r);
    f.snd_wnd = hf_rd_u32(r);
    f.rcv_wnd = hf_rd_u32(r);
    if (reserved || !valid(&f)) {
        hf_rd_fail(r, -HF_EMALF);
    }
    if (!r->err) {
        *ret_f = f;
    }
}

/* --- handshake --- */

static bool same_place(const struct hf_endpoint *a, const struct hf_endpoint *b)
{
    return a->family == b->family && a->port == b->port &&
           memcmp(a->addr, b->addr, addr_len(a)) == 0;
}

int hf_tcp_facts_handshake(const struct hf_tcp_segment *syn, const struct hf_tcp_segment *syn_ack,
                           hf_time now, struct hf_tcp_facts *ret_f)
{
    const uint8_t mask = HF_TCP_SYN | HF_TCP_ACK | HF_TCP_RST | HF_TCP_FIN;
    if ((syn->flags & mask) != HF_TCP_SYN || (syn_ack->flags & mask) != (HF_TCP_SYN | HF_TCP_ACK) ||
        syn_ack->ack != syn->seq + 1 || !same_place(&syn->src, &syn_ack->dst) ||
        !same_place(&syn->dst, &syn_ack->src)) {
        return -HF_EVALUE;
    }
    bool v4 = syn->src.family == HF_AF_INET, scaled = syn->has_wscale && syn_ack->has_wscale;
    uint16_t mss = syn->has_mss ? syn->mss : v4 ? HF_TCP_MSS_DEFAULT : HF_TCP_MSS_DEFAULT6;
    struct hf_tcp_facts f = {
        .local = syn_ack->src,
        .peer = syn_ack->dst,
        .snd_isn = syn_ack->seq,
        .rcv_isn = syn->seq,
        .mss = mss < MSS_MIN ? MSS_MIN : mss,
        .snd_wscale = scaled ? syn->wscale : 0,
        .rcv_wscale = scaled ? syn_ack->wscale : 0,
        .flags = HF_TCP_FACT_EMBRYO,
        .tsval = syn_ack->has_ts ? syn_ack->tsval : 0,
        .ts_at = now,
        .snd_wnd = syn->window, /* the windows of both SYNs are not scaled (RFC 7323 2.2) */
        .rcv_wnd = syn_ack->window,
    };
    /* in a SYN-ACK an option is what both agreed on */
    f.flags |= syn_ack->sack_permitted ? HF_TCP_FACT_SACK : 0;
    f.flags |= syn_ack->has_ts ? HF_TCP_FACT_TS : 0;
    f.flags |= scaled ? HF_TCP_FACT_WSCALE : 0;
    f.flags |= (syn_ack->flags & (HF_TCP_ECE | HF_TCP_CWR)) == HF_TCP_ECE ? HF_TCP_FACT_ECN : 0;
    *ret_f = f;
    return 0;
}

/* --- places in the streams --- */

uint32_t hf_tcp_snd_seq(const struct hf_tcp_facts *f, uint64_t tx)
{
    return f->snd_isn + 1 + (uint32_t)tx;
}

uint32_t hf_tcp_rcv_nxt(const struct hf_tcp_facts *f, uint64_t rx_total)
{
    return f->rcv_isn + 1 + (uint32_t)rx_total + (f->flags & HF_TCP_FACT_EOF ? 1 : 0);
}

bool hf_tcp_acked(const struct hf_tcp_facts *f, uint32_t ack, uint64_t una, uint64_t total,
                  uint64_t *ret_tx)
{
    uint64_t end = total + (f->flags & HF_TCP_FACT_CLOSING ? 1 : 0);
    uint64_t more = ack - hf_tcp_snd_seq(f, una);
    if (end < una || more > end - una) {
        return false;
    }
    *ret_tx = una + more;
    return true;
}

uint32_t hf_tcp_tsval(const struct hf_tcp_facts *f, hf_time now)
{
    uint64_t ns = (uint64_t)now - (uint64_t)f->ts_at + HF_TCP_TS_MARGIN;
    if (now < f->ts_at) {
        ns = HF_TCP_TS_MARGIN; /* never behind what was sent */
    }
    uint64_t unit = f->flags & HF_TCP_FACT_TS_USEC ? HF_NS_PER_MS / 1000 : HF_NS_PER_MS;
    return f->tsval + (uint32_t)(ns / unit);
}

uint16_t hf_tcp_window_field(const struct hf_tcp_facts *f)
{
    uint32_t n = f->rcv_wnd >> f->rcv_wscale;
    return n > UINT16_MAX ? UINT16_MAX : (uint16_t)n;
}

/* --- raw segments --- */

static struct hf_tcp_segment to_peer(const struct hf_tcp_facts *f, uint32_t seq, uint64_t rx_total,
                                     hf_time now)
{
    return (struct hf_tcp_segment){
        .src = f->local,
        .dst = f->peer,
        .seq = seq,
        .ack = hf_tcp_rcv_nxt(f, rx_total),
        .flags = HF_TCP_ACK,
        .window = hf_tcp_window_field(f),
        .has_ts = f->flags & HF_TCP_FACT_TS,
        .tsval = hf_tcp_tsval(f, now),
        .tsecr = 0, /* taken for "none" (RFC 7323 3.2 has no such, but all stacks do) */
    };
}

void hf_tcp_build_data(struct hf_wr *w, const struct hf_tcp_facts *f, uint64_t tx,
                       struct hf_slice data, uint64_t rx_total, hf_time now)
{
    struct hf_tcp_segment seg = to_peer(f, hf_tcp_snd_seq(f, tx), rx_total, now);
    seg.flags |= HF_TCP_PSH;
    seg.payload = data;
    hf_tcp_segment_build(w, &seg);
}

void hf_tcp_build_probe(struct hf_wr *w, const struct hf_tcp_facts *f, uint64_t tx_una,
                        uint64_t rx_total, hf_time now)
{
    hf_tcp_build_data(w, f, tx_una - 1, hf_slice("x", 1), rx_total, now);
}

void hf_tcp_build_ack(struct hf_wr *w, const struct hf_tcp_facts *f, uint64_t tx_una,
                      uint64_t rx_total, hf_time now)
{
    struct hf_tcp_segment seg = to_peer(f, hf_tcp_snd_seq(f, tx_una), rx_total, now);
    hf_tcp_segment_build(w, &seg);
}

void hf_tcp_build_challenge(struct hf_wr *w, const struct hf_tcp_facts *f, hf_time now)
{
    struct hf_tcp_segment seg = to_peer(f, f->snd_isn, 0, now);
    hf_tcp_segment_build(w, &seg);
}

enum hf_tcp_answer hf_tcp_read_answer(const struct hf_tcp_facts *f,
                                      const struct hf_tcp_segment *seg, uint64_t tx_una,
                                      uint64_t tx_total, uint64_t rx_total, uint64_t *ret_tx,
                                      uint32_t *ret_wnd)
{
    uint64_t tx;
    if (!same_place(&seg->src, &f->peer) || !same_place(&seg->dst, &f->local) ||
        (seg->flags & HF_TCP_SYN)) {
        return HF_TCP_ANSWER_NONE;
    }
    if (seg->flags & HF_TCP_RST) { /* RFC 5961 3.2: only exactly there it counts */
        return seg->seq == hf_tcp_rcv_nxt(f, rx_total) ? HF_TCP_ANSWER_GONE : HF_TCP_ANSWER_NONE;
    }
    if (!(seg->flags & HF_TCP_ACK)) {
        return HF_TCP_ANSWER_NONE;
    }
    uint32_t probe = hf_tcp_snd_seq(f, tx_una) - 1;
    bool named = seg->n_sack && seg->sack[0].left == probe && seg->sack[0].right == probe + 1;
    if (!hf_tcp_acked(f, seg->ack, tx_una, tx_total, &tx)) {
        return named ? HF_TCP_ANSWER_BEYOND : HF_TCP_ANSWER_NONE;
    }
    *ret_tx = tx;
    *ret_wnd = (uint32_t)seg->window << f->snd_wscale;
    /* who has all that there is cannot have more; TIME_WAIT answers so, without D-SACK */
    bool all = tx == tx_total + (f->flags & HF_TCP_FACT_CLOSING ? 1 : 0);
    return named || all ? HF_TCP_ANSWER_EXACT : HF_TCP_ANSWER_OLDER;
}
