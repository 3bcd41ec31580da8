/* TCP segments as raw sockets see and send them: parse, build, wrap into IP, checksums (RFC 9293).
 */
#include "codec/tcp_segment.h"

#include <string.h>

#include "base/err.h"
#include "base/rd.h"

#define IPV4_LEN 20u
#define IPV6_LEN 40u
#define TCP_LEN 20u
#define PROTOCOL_ICMP 1u
#define PROTOCOL_TCP 6u
#define PROTOCOL_ICMP6 58u
#define HOP_LIMIT 64u
#define OPTIONS_MAX 40u

/* kinds of options */
enum { OPT_END = 0, OPT_NOP = 1, OPT_MSS = 2, OPT_WSCALE = 3, OPT_SACK_OK = 4, OPT_SACK = 5 };
enum { OPT_TS = 8 };

/* --- checksums (RFC 1071) --- */

static uint64_t sum(struct hf_slice s)
{
    uint64_t n = 0;
    struct hf_rd r;
    hf_rd_init(&r, s);
    while (hf_rd_left(&r) >= 2) {
        n += hf_rd_u16(&r);
    }
    if (hf_rd_left(&r)) {
        n += (uint64_t)hf_rd_u8(&r) << 8;
    }
    return n;
}

static uint16_t fold(uint64_t n)
{
    while (n >> 16) {
        n = (n & 0xffff) + (n >> 16);
    }
    return (uint16_t)~n;
}

static struct hf_slice addr_bytes(const struct hf_endpoint *e)
{
    return hf_slice(e->addr, e->family == HF_AF_INET ? 4 : 16);
}

/* Sum of the pseudo-header; the same number for both families (RFC 9293 3.1, RFC 8200 8.1). */
static uint64_t pseudo(const struct hf_endpoint *src, const struct hf_endpoint *dst,
                       uint8_t protocol, size_t n)
{
    return sum(addr_bytes(src)) + sum(addr_bytes(dst)) + protocol + n;
}

/* --- parse --- */

static void rd_sack(struct hf_rd *o, struct hf_tcp_segment *seg)
{
    seg->n_sack = 0;
    while (hf_rd_left(o) >= 8 && seg->n_sack < HF_TCP_SACK_MAX) {
        struct hf_tcp_sack_block *b = &seg->sack[seg->n_sack++];
        b->left = hf_rd_u32(o);
        b->right = hf_rd_u32(o);
    }
}

static void rd_option(uint8_t kind, struct hf_slice body, struct hf_tcp_segment *seg)
{
    struct hf_rd o;
    hf_rd_init(&o, body);
    if (kind == OPT_MSS && body.n == 2) {
        seg->mss = hf_rd_u16(&o);
        seg->has_mss = true;
    } else if (kind == OPT_WSCALE && body.n == 1) {
        uint8_t n = hf_rd_u8(&o);
        seg->wscale = n > HF_TCP_WSCALE_MAX ? HF_TCP_WSCALE_MAX : n;
        seg->has_wscale = true;
    } else if (kind == OPT_SACK_OK && body.n == 0) {
        seg->sack_permitted = true;
    } else if (kind == OPT_SACK && body.n % 8 == 0) {
        rd_sack(&o, seg);
    } else if (kind == OPT_TS && body.n == 8) {
        seg->tsval = hf_rd_u32(&o);
        seg->tsecr = hf_rd_u32(&o);
        seg->has_ts = true;
    }
}

static void rd_options(struct hf_slice options, struct hf_tcp_segment *seg)
{
    struct hf_rd r;
    hf_rd_init(&r, options);
    while (hf_rd_left(&r)) {
        uint8_t kind = hf_rd_u8(&r);
        if (kind == OPT_END) {
            return;
        }
        if (kind == OPT_NOP) {
            continue;
        }
        uint8_t len = hf_rd_u8(&r);
        struct hf_slice body = hf_rd_bytes(&r, len >= 2 ? len - 2u : SIZE_MAX);
        if (r.err) {
            return;
        }
        rd_option(kind, body, seg);
    }
}

int hf_tcp_segment_parse_tcp(const struct hf_endpoint *src, const struct hf_endpoint *dst,
                             struct hf_slice tcp, struct hf_tcp_segment *ret_seg)
{
    struct hf_tcp_segment seg = {.src = *src, .dst = *dst};
    struct hf_rd r;
    hf_rd_init(&r, tcp);
    seg.src.port = hf_rd_u16(&r);
    seg.dst.port = hf_rd_u16(&r);
    seg.seq = hf_rd_u32(&r);
    seg.ack = hf_rd_u32(&r);
    unsigned words = hf_rd_u8(&r) >> 4;
    seg.flags = hf_rd_u8(&r);
    seg.window = hf_rd_u16(&r);
    (void)hf_rd_u32(&r); /* checksum, urgent pointer */
    if (r.err) {
        return r.err;
    }
    if (words < TCP_LEN / 4) {
        return -HF_EMALF;
    }
    struct hf_slice options = hf_rd_bytes(&r, words * 4 - TCP_LEN);
    seg.payload = hf_rd_bytes(&r, hf_rd_left(&r));
    if (r.err) {
        return r.err;
    }
    rd_options(options, &seg);
    *ret_seg = seg;
    return 0;
}

/* Past the IPv4 header: addresses and the segment's bytes. */
static int rd_ipv4(struct hf_rd *r, struct hf_endpoint *src, struct hf_endpoint *dst,
                   struct hf_slice *ret_tcp)
{
    size_t head = (size_t)(hf_rd_u8(r) & 15u) * 4;
    (void)hf_rd_u8(r);
    size_t total = hf_rd_u16(r);
    (void)hf_rd_u16(r);
    uint16_t fragment = hf_rd_u16(r);
    (void)hf_rd_u8(r);
    uint8_t protocol = hf_rd_u8(r);
    (void)hf_rd_u16(r);
    src->family = dst->family = HF_AF_INET;
    hf_rd_copy(r, src->addr, 4);
    hf_rd_copy(r, dst->addr, 4);
    if (!r->err && (head < IPV4_LEN || total < head || protocol != PROTOCOL_TCP ||
                    (fragment & 0x3fffu) != 0)) { /* more fragments, or an offset */
        return -HF_EMALF;
    }
    (void)hf_rd_bytes(r, head - IPV4_LEN);
    *ret_tcp = hf_rd_bytes(r, total - head);
    return r->err;
}

static int rd_ipv6(struct hf_rd *r, struct hf_endpoint *src, struct hf_endpoint *dst,
                   struct hf_slice *ret_tcp)
{
    (void)hf_rd_u32(r);
    size_t len = hf_rd_u16(r);
    uint8_t next = hf_rd_u8(r);
    (void)hf_rd_u8(r);
    src->family = dst->family = HF_AF_INET6;
    hf_rd_copy(r, src->addr, 16);
    hf_rd_copy(r, dst->addr, 16);
    if (!r->err && next != PROTOCOL_TCP) {
        return -HF_EMALF;
    }
    *ret_tcp = hf_rd_bytes(r, len);
    return r->err;
}

static int rd_ip(struct hf_slice packet, struct hf_endpoint *src, struct hf_endpoint *dst,
                 struct hf_slice *ret_tcp)
{
    struct hf_rd r;
    hf_rd_init(&r, packet);
    struct hf_rd peek = r;
    unsigned version = hf_rd_u8(&peek) >> 4;
    memset(src, 0, sizeof(*src));
    memset(dst, 0, sizeof(*dst));
    if (peek.err) {
        return peek.err;
    }
    return version == 4   ? rd_ipv4(&r, src, dst, ret_tcp)
           : version == 6 ? rd_ipv6(&r, src, dst, ret_tcp)
                          : -HF_EMALF;
}

int hf_tcp_segment_parse(struct hf_slice packet, struct hf_tcp_segment *ret_seg)
{
    struct hf_endpoint src, dst;
    struct hf_slice tcp;
    int rc = rd_ip(packet, &src, &dst, &tcp);
    return rc ? rc : hf_tcp_segment_parse_tcp(&src, &dst, tcp, ret_seg);
}

struct hf_slice hf_tcp_of_packet(struct hf_slice packet)
{
    struct hf_tcp_segment seg;
    struct hf_endpoint src, dst;
    struct hf_slice tcp;
    bool ok = rd_ip(packet, &src, &dst, &tcp) == 0 &&
              hf_tcp_segment_parse_tcp(&src, &dst, tcp, &seg) == 0;
    return ok ? tcp : hf_slice(NULL, 0);
}

bool hf_tcp_checksums_ok(struct hf_slice packet)
{
    struct hf_endpoint src, dst;
    struct hf_slice tcp;
    if (rd_ip(packet, &src, &dst, &tcp)) {
        return false;
    }
    size_t head = (size_t)(tcp.p - packet.p);
    return (src.family == HF_AF_INET6 || fold(sum(hf_slice(packet.p, head))) == 0) &&
           fold(pseudo(&src, &dst, PROTOCOL_TCP, tcp.n) + sum(tcp)) == 0;
}

/* --- build --- */

/* Returns where the IP header begins. */
static size_t wr_ip(struct hf_wr *w, const struct hf_endpoint *src, const struct hf_endpoint *dst,
                    uint8_t protocol)
{
    size_t start = hf_wr_len(w);
    if (src->family == HF_AF_INET) {
        hf_wr_u16(w, 0x4500);
        hf_wr_u16(w, 0); /* length */
        hf_wr_u16(w, 0);
        hf_wr_u16(w, 0x4000); /* do not fragment */
        hf_wr_u8(w, HOP_LIMIT);
        hf_wr_u8(w, protocol);
        hf_wr_u16(w, 0); /* checksum */
    } else {
        hf_wr_u32(w, 0x60000000);
        hf_wr_u16(w, 0); /* length behind this header */
        hf_wr_u8(w, protocol);
        hf_wr_u8(w, HOP_LIMIT);
    }
    hf_wr_bytes(w, addr_bytes(src));
    hf_wr_bytes(w, addr_bytes(dst));
    return start;
}

/* The packet from start on has all its bytes: the IP header's length and checksum. The bytes behind
 * that header; none: it is too long. */
static struct hf_slice finish_ip(struct hf_wr *w, size_t start, bool v4)
{
    size_t n = hf_wr_len(w) - start, head = v4 ? IPV4_LEN : IPV6_LEN;
    if (!w->err && (v4 ? n : n - head) > UINT16_MAX) {
        w->err = -HF_EFULL;
    }
    if (w->err) {
        return hf_slice(NULL, 0);
    }
    if (v4) {
        hf_wr_patch_u16(w, start + 2, (uint16_t)n);
        hf_wr_patch_u16(w, start + 10, fold(sum(hf_slice(w->base + start, head))));
    } else {
        hf_wr_patch_u16(w, start + 4, (uint16_t)(n - head));
    }
    return hf_slice(w->base + start + head, n - head);
}

static void finish(struct hf_wr *w, size_t start, const struct hf_endpoint *src,
                   const struct hf_endpoint *dst)
{
    struct hf_slice tcp = finish_ip(w, start, src->family == HF_AF_INET);
    if (!w->err && (src->family != dst->family || tcp.n < TCP_LEN)) {
        w->err = -HF_EFULL;
    }
    if (w->err) {
        return;
    }
    size_t at = (size_t)(tcp.p - w->base) + 16;
    hf_wr_patch_u16(w, at, 0);
    hf_wr_patch_u16(w, at, fold(pseudo(src, dst, PROTOCOL_TCP, tcp.n) + sum(tcp)));
}

/* The order and padding of tcp_options_write(). */
static void wr_options(struct hf_wr *w, const struct hf_tcp_segment *seg)
{
    size_t start = hf_wr_len(w);
    if (seg->has_mss) {
        hf_wr_u16(w, OPT_MSS << 8 | 4);
        hf_wr_u16(w, seg->mss);
    }
    if (seg->has_ts) {
        hf_wr_u16(w, seg->sack_permitted ? OPT_SACK_OK << 8 | 2 : OPT_NOP << 8 | OPT_NOP);
        hf_wr_u16(w, OPT_TS << 8 | 10);
        hf_wr_u32(w, seg->tsval);
        hf_wr_u32(w, seg->tsecr);
    } else if (seg->sack_permitted) {
        hf_wr_u32(w, (uint32_t)OPT_NOP << 24 | OPT_NOP << 16 | OPT_SACK_OK << 8 | 2);
    }
    if (seg->has_wscale) {
        hf_wr_u32(w, (uint32_t)OPT_NOP << 24 | OPT_WSCALE << 16 | 3 << 8 | seg->wscale);
    }
    size_t room = OPTIONS_MAX - (w->err ? OPTIONS_MAX : hf_wr_len(w) - start);
    size_t n = room < 12 ? 0 : (room - 4) / 8;
    n = n < seg->n_sack ? n : seg->n_sack;
    if (n) {
        hf_wr_u32(w, (uint32_t)(OPT_NOP << 24 | OPT_NOP << 16 | OPT_SACK << 8 | (2 + 8 * n)));
    }
    for (size_t i = 0; i < n; i++) {
        hf_wr_u32(w, seg->sack[i].left);
        hf_wr_u32(w, seg->sack[i].right);
    }
}

void hf_tcp_segment_build(struct hf_wr *w, const struct hf_tcp_segment *seg)
{
    size_t start = wr_ip(w, &seg->src, &seg->dst, PROTOCOL_TCP), tcp = hf_wr_len(w);
    hf_wr_u16(w, seg->src.port);
    hf_wr_u16(w, seg->dst.port);
    hf_wr_u32(w, seg->seq);
    hf_wr_u32(w, seg->ack);
    hf_wr_u16(w, 0); /* data offset and flags */
    hf_wr_u16(w, seg->window);
    hf_wr_u32(w, 0); /* checksum, urgent pointer */
    wr_options(w, seg);
    hf_wr_patch_u16(w, tcp + 12, (uint16_t)((hf_wr_len(w) - tcp) / 4 << 12 | seg->flags));
    hf_wr_bytes(w, seg->payload);
    finish(w, start, &seg->src, &seg->dst);
}

void hf_tcp_wrap(struct hf_wr *w, const struct hf_endpoint *src, const struct hf_endpoint *dst,
                 struct hf_slice tcp)
{
    size_t start = wr_ip(w, src, dst, PROTOCOL_TCP);
    hf_wr_bytes(w, tcp);
    finish(w, start, src, dst);
}

void hf_tcp_build_unreachable(struct hf_wr *w, const struct hf_endpoint *host,
                              const struct hf_endpoint *peer, uint32_t seq)
{
    bool v4 = host->family == HF_AF_INET;
    uint8_t protocol = v4 ? PROTOCOL_ICMP : PROTOCOL_ICMP6;
    size_t start = wr_ip(w, host, peer, protocol), icmp = hf_wr_len(w);
    hf_wr_u16(w, v4 ? 0x0301 : 0x0100); /* host unreachable; no route to destination */
    hf_wr_u16(w, 0);                    /* checksum */
    hf_wr_u32(w, 0);
    size_t quoted = wr_ip(w, peer, host, PROTOCOL_TCP);
    hf_wr_u16(w, peer->port);
    hf_wr_u16(w, host->port);
    hf_wr_u32(w, seq);
    (void)finish_ip(w, quoted, v4);
    struct hf_slice all = finish_ip(w, start, v4);
    if (!w->err) {
        uint64_t head = v4 ? 0 : pseudo(host, peer, PROTOCOL_ICMP6, all.n);
        hf_wr_patch_u16(w, icmp + 2, fold(head + sum(all)));
    }
}
