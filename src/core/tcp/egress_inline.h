/* The egress rules, for BPF and user space: parse a packet's headers, judge it. No library, no
 * loops without a bound. */
#pragma once

#include "core/tcp/egress_types.h"

/*
 * Who includes this defines HF_EGRESS_PACKET, the type that a packet is reached through, and before
 * that
 *     static int hf_egress_load(HF_EGRESS_PACKET *p, uint32_t off, void *to, uint32_t n);
 * which copies n bytes at off and returns 0, or something else when they are not all there.
 */
#define HF_EGRESS_INLINE static inline __attribute__((always_inline))

#define HF_ETH_IP 0x0800
#define HF_ETH_IP6 0x86dd
#define HF_ETH_ARP 0x0806
#define HF_ETH_VLAN 0x8100
#define HF_ETH_VLAN_S 0x88a8

#define HF_PROTO_TCP 6
#define HF_PROTO_ICMP6 58

#define HF_TCP_FIN 0x01
#define HF_TCP_SYN 0x02
#define HF_TCP_RST 0x04
#define HF_TCP_ACK 0x10

/* Network order to host order and back. */
HF_EGRESS_INLINE uint16_t hf_egress_swap16(uint16_t v)
{
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap16(v) : v;
}

HF_EGRESS_INLINE uint32_t hf_egress_swap32(uint32_t v)
{
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap32(v) : v;
}

HF_EGRESS_INLINE uint16_t hf_egress_u16(const uint8_t *p)
{
    uint16_t v;
    __builtin_memcpy(&v, p, sizeof(v));
    return hf_egress_swap16(v);
}

HF_EGRESS_INLINE uint32_t hf_egress_u32(const uint8_t *p)
{
    uint32_t v;
    __builtin_memcpy(&v, p, sizeof(v));
    return hf_egress_swap32(v);
}

/* Is sequence number a after b? */
HF_EGRESS_INLINE bool hf_egress_after(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0;
}

HF_EGRESS_INLINE void hf_egress_map_v4(uint8_t to[16], const uint8_t *v4)
{
    __builtin_memset(to, 0, 10);
    to[10] = to[11] = 0xff;
    __builtin_memcpy(to + 12, v4, 4);
}

/* IPsec may hide TCP from this place, so it counts as what can't be judged. */
HF_EGRESS_INLINE bool hf_egress_hidden(uint8_t proto)
{
    return proto == 50 || proto == 51; /* ESP, AH */
}

/* The TCP header at f->l4, in a packet whose IP part ends at `end`. */
HF_EGRESS_INLINE void hf_egress_parse_tcp(HF_EGRESS_PACKET *p, uint32_t end,
                                          struct hf_egress_facts *f)
{
    _Alignas(8) uint8_t h[20];
    f->kind = HF_EGRESS_KIND_BAD;
    if (hf_egress_load(p, f->l4, h, sizeof(h))) {
        return;
    }
    uint32_t header_len = f->l4 + (uint32_t)(h[12] >> 4) * 4;
    if (header_len < f->l4 + sizeof(h) || header_len > end) {
        return;
    }
    f->source_port = hf_egress_u16(h);
    f->peer_port = hf_egress_u16(h + 2);
    f->seq = hf_egress_u32(h + 4);
    f->ack = hf_egress_u32(h + 8);
    f->tcp_flags = h[13];
    f->window = hf_egress_u16(h + 14);
    f->header_len = (uint16_t)header_len;
    f->payload_len = end - header_len;
    f->kind = HF_EGRESS_KIND_TCP;
}

/* Where the IP part ends by its own length field; that is 0 in packets above 64 KiB (big TCP). 0:
 * it is not all there. */
HF_EGRESS_INLINE uint32_t hf_egress_end(uint32_t l3, uint32_t said, uint32_t len)
{
    return said == 0 ? len : l3 + said <= len ? l3 + said : 0;
}

HF_EGRESS_INLINE void hf_egress_parse_ip4(HF_EGRESS_PACKET *p, uint32_t len,
                                          struct hf_egress_facts *f)
{
    _Alignas(8) uint8_t h[20];
    if (hf_egress_load(p, f->l3, h, sizeof(h))) {
        return; /* no host sends this */
    }
    uint32_t header_len = (uint32_t)(h[0] & 15) * 4;
    uint32_t end = hf_egress_end(f->l3, hf_egress_u16(h + 2), len);
    bool fragment = hf_egress_u16(h + 6) & 0x3fff;
    hf_egress_map_v4(f->source, h + 12);
    hf_egress_map_v4(f->peer, h + 16);
    f->kind = HF_EGRESS_KIND_IP;
    if (h[0] >> 4 != 4 || header_len < sizeof(h) || end == 0 || hf_egress_hidden(h[9]) ||
        (h[9] == HF_PROTO_TCP && fragment)) {
        f->kind = HF_EGRESS_KIND_BAD;
    } else if (h[9] == HF_PROTO_TCP) {
        f->l4 = (uint16_t)(f->l3 + header_len);
        hf_egress_parse_tcp(p, end, f);
    }
}

/* Neighbour advertisements, and solicitations from nowhere (duplicate address detection), speak for
 * their target. */
HF_EGRESS_INLINE void hf_egress_parse_icmp6(HF_EGRESS_PACKET *p, struct hf_egress_facts *f)
{
    _Alignas(8) uint8_t h[24], from = 0;
    if (hf_egress_load(p, f->l4, h, sizeof(h))) {
        return;
    }
    for (int i = 0; i < 16; i++) {
        from |= f->source[i];
    }
    if (h[0] == 136 || (h[0] == 135 && from == 0)) {
        __builtin_memcpy(f->claimed, h + 8, 16);
        f->kind = HF_EGRESS_KIND_CLAIM;
    }
}

HF_EGRESS_INLINE void hf_egress_parse_ip6(HF_EGRESS_PACKET *p, uint32_t len,
                                          struct hf_egress_facts *f)
{
    _Alignas(8) uint8_t h[40], e[2];
    if (hf_egress_load(p, f->l3, h, sizeof(h))) {
        return;
    }
    uint32_t said = hf_egress_u16(h + 4), off = f->l3 + (uint32_t)sizeof(h);
    uint32_t end = hf_egress_end(f->l3, said ? said + (uint32_t)sizeof(h) : 0, len);
    uint8_t next = h[6];
    __builtin_memcpy(f->source, h + 8, 16);
    __builtin_memcpy(f->peer, h + 24, 16);
    f->kind = HF_EGRESS_KIND_BAD;
    for (int i = 0; i < HF_EGRESS_EXTENSIONS_MAX; i++) {
        if (next != 0 && next != 43 && next != 60) { /* hop-by-hop, routing, destination */
            break;
        }
        if (hf_egress_load(p, off, e, sizeof(e))) {
            return;
        }
        next = e[0];
        off += ((uint32_t)e[1] + 1) * 8;
    }
    if (next == 44) { /* a fragment: of what? */
        if (hf_egress_load(p, off, e, sizeof(e)) == 0 && (e[0] == 17 || e[0] == HF_PROTO_ICMP6)) {
            f->kind = HF_EGRESS_KIND_IP;
        }
        return;
    }
    if (end == 0 || off > end || next == 0 || next == 43 || next == 60 || hf_egress_hidden(next)) {
        return;
    }
    f->l4 = (uint16_t)off;
    f->kind = HF_EGRESS_KIND_IP;
    if (next == HF_PROTO_TCP) {
        hf_egress_parse_tcp(p, end, f);
    } else if (next == HF_PROTO_ICMP6) {
        hf_egress_parse_icmp6(p, f);
    }
}

/* Requests and replies of Ethernet and IPv4: both make the sender known. */
HF_EGRESS_INLINE void hf_egress_parse_arp(HF_EGRESS_PACKET *p, struct hf_egress_facts *f)
{
    _Alignas(8) uint8_t h[18];
    if (hf_egress_load(p, f->l3, h, sizeof(h)) == 0 && hf_egress_u16(h + 2) == HF_ETH_IP &&
        h[4] == 6 && h[5] == 4) {
        hf_egress_map_v4(f->claimed, h + 14);
        f->kind = HF_EGRESS_KIND_CLAIM;
    }
}

/* See hf_egress_parse(); len: of the whole packet. f is zeroed here. */
HF_EGRESS_INLINE void hf_egress_parse_inline(HF_EGRESS_PACKET *p, uint32_t len, uint16_t ethertype,
                                             struct hf_egress_facts *f)
{
    uint8_t t[2];
    uint32_t off = 0;
    __builtin_memset(f, 0, sizeof(*f));
    if (ethertype == 0) {
        off = 12;
        for (int i = 0; i < HF_EGRESS_VLANS_MAX + 1; i++) {
            if (hf_egress_load(p, off, t, sizeof(t))) {
                return;
            }
            ethertype = hf_egress_u16(t);
            if (ethertype != HF_ETH_VLAN && ethertype != HF_ETH_VLAN_S) {
                break;
            }
            off += 4;
        }
        off += 2;
    }
    f->l3 = (uint16_t)off;
    if (ethertype == HF_ETH_IP) {
        hf_egress_parse_ip4(p, len, f);
    } else if (ethertype == HF_ETH_IP6) {
        hf_egress_parse_ip6(p, len, f);
    } else if (ethertype == HF_ETH_ARP) {
        hf_egress_parse_arp(p, f);
    }
}

/* Rules b and c of doc/design/egress.md, for a segment that is no SYN. */
HF_EGRESS_INLINE enum hf_egress_verdict hf_egress_judge_segment(const struct hf_egress_facts *f,
                                                                const struct hf_egress_slot *slot,
                                                                uint32_t address_flags,
                                                                enum hf_egress_counter *ret_counter)
{
    bool fin = f->tcp_flags & HF_TCP_FIN;
    if ((address_flags & HF_EGRESS_SOLO) || (slot->state & HF_EGRESS_SLOT_SOLO) ||
        (f->tcp_flags & HF_TCP_RST)) { /* a RST that got here is ours */
        return HF_EGRESS_PASS;
    }
    if (f->payload_len && hf_egress_after(f->seq + f->payload_len, slot->tx_conf)) {
        *ret_counter = HF_EGRESS_N_BEYOND;
        return HF_EGRESS_DROP;
    }
    if (!(f->tcp_flags & HF_TCP_ACK)) {
        *ret_counter = HF_EGRESS_N_BAD; /* RFC 9293: each segment of a connection has one */
        return HF_EGRESS_DROP;
    }
    if (!hf_egress_after(f->ack, slot->rx_conf)) {
        return HF_EGRESS_PASS;
    }
    *ret_counter = f->payload_len || fin ? HF_EGRESS_N_ACK_LOWERED : HF_EGRESS_N_ACK_HELD;
    return f->payload_len || fin ? HF_EGRESS_LOWER : HF_EGRESS_HOLD_ACK;
}

HF_EGRESS_INLINE enum hf_egress_verdict hf_egress_judge_syn(const struct hf_egress_facts *f,
                                                            const struct hf_egress_slot *slot,
                                                            uint32_t address_flags,
                                                            enum hf_egress_counter *ret_counter)
{
    if (!(f->tcp_flags & HF_TCP_ACK)) {
        *ret_counter = HF_EGRESS_N_UNKNOWN; /* a server does not connect from its port */
        return HF_EGRESS_DROP;
    }
    if (slot ? (slot->state & HF_EGRESS_SLOT_SYN_ACK) && f->seq == slot->syn_seq &&
                   f->ack == slot->syn_ack
             : (address_flags & HF_EGRESS_SOLO) != 0) {
        return HF_EGRESS_PASS;
    }
    *ret_counter = HF_EGRESS_N_SYN_ACK_HELD;
    return HF_EGRESS_HOLD_SYN_ACK;
}

/* See hf_egress_judge(). */
HF_EGRESS_INLINE enum hf_egress_verdict hf_egress_judge_inline(
    const struct hf_egress_facts *f, const struct hf_egress_slot *slot,
    const struct hf_egress_address *address, uint64_t now, enum hf_egress_counter *ret_counter)
{
    uint32_t flags = address->flags;
    if (now >= address->lease_until) {
        /* the kernel forgets a handshake whose SYN-ACK it can't repeat: the one that the owner
         * knows of, and lets go on when the lease is back, would be another one by then */
        bool syn_ack = f->kind == HF_EGRESS_KIND_TCP && f->tcp_flags & HF_TCP_SYN;
        *ret_counter = HF_EGRESS_N_LEASE;
        return syn_ack ? HF_EGRESS_SWALLOW : HF_EGRESS_DROP;
    }
    if (f->kind == HF_EGRESS_KIND_BAD) {
        *ret_counter = HF_EGRESS_N_BAD;
        return HF_EGRESS_DROP;
    }
    if (f->kind != HF_EGRESS_KIND_TCP || f->source_port != address->port) {
        return HF_EGRESS_PASS;
    }
    if (f->tcp_flags & (HF_TCP_RST | HF_TCP_FIN)) {
        bool rst = f->tcp_flags & HF_TCP_RST;
        uint32_t needs = HF_EGRESS_SLOT_CLOSING | (rst ? 0 : HF_EGRESS_SLOT_FIN);
        bool allowed = slot ? (slot->state & needs) != 0 : rst && (flags & HF_EGRESS_RESETS);
        if (!allowed) {
            *ret_counter = HF_EGRESS_N_RESET;
            return HF_EGRESS_DROP;
        }
    } else if (f->tcp_flags & HF_TCP_SYN) {
        return hf_egress_judge_syn(f, slot, flags, ret_counter);
    } else if (!slot && !(flags & HF_EGRESS_SOLO)) {
        *ret_counter = HF_EGRESS_N_UNKNOWN;
        return HF_EGRESS_DROP;
    }
    return slot ? hf_egress_judge_segment(f, slot, flags, ret_counter) : HF_EGRESS_PASS;
}

/* The sequence number after a segment. */
HF_EGRESS_INLINE uint32_t hf_egress_end_of(const struct hf_egress_facts *f)
{
    return f->seq + f->payload_len + (f->tcp_flags & (HF_TCP_FIN | HF_TCP_SYN) ? 1 : 0);
}

/* See hf_egress_note_passed(). */
HF_EGRESS_INLINE void hf_egress_note_passed_inline(struct hf_egress_slot *slot,
                                                   const struct hf_egress_facts *f, uint32_t ack)
{
    uint32_t end = hf_egress_end_of(f);
    if (hf_egress_after(end, slot->snd_nxt)) {
        slot->snd_nxt = end;
    }
    if (f->tcp_flags & HF_TCP_ACK) {
        slot->ack_sent = ack;
        if (slot->pending && !hf_egress_after(slot->saved.ack, ack)) {
            slot->pending = 0;
        }
    }
}

/* The window field that keeps the right edge where it was when the acknowledgement goes down by
 * `distance`. */
HF_EGRESS_INLINE uint16_t hf_egress_raise_window(uint16_t window, uint32_t distance,
                                                 uint32_t wscale)
{
    uint32_t w = window + (distance >> (wscale & 15));
    return (uint16_t)(w > 65535 ? 65535 : w);
}
