/* Packets for the tests of the output commit: built from a few fields, and a table with verdicts.
 */
#include "egress_packets.h"

#include <string.h>

static const uint8_t service4[16] = {[10] = 0xff, 0xff, 10, 99, 0, 50};
static const uint8_t peer4[16] = {[10] = 0xff, 0xff, 10, 99, 0, 1};
static const uint8_t other4[16] = {[10] = 0xff, 0xff, 10, 99, 0, 10};
static const uint8_t service6[16] = {0xfd, 0x99, [15] = 0x50};
static const uint8_t peer6[16] = {0xfd, 0x99, [15] = 1};
static const uint8_t other6[16] = {0xfd, 0x99, [15] = 0x10};

const uint8_t *egress_service(bool v6)
{
    return v6 ? service6 : service4;
}

const uint8_t *egress_peer(bool v6)
{
    return v6 ? peer6 : peer4;
}

static uint8_t *u8(uint8_t *p, unsigned v)
{
    *p = (uint8_t)v;
    return p + 1;
}

static uint8_t *u16(uint8_t *p, unsigned v)
{
    return u8(u8(p, v >> 8), v);
}

static uint8_t *u32(uint8_t *p, uint32_t v)
{
    return u16(u16(p, v >> 16), v & 0xffff);
}

static uint8_t *bytes(uint8_t *p, const uint8_t *from, size_t n)
{
    memcpy(p, from, n);
    return p + n;
}

static uint32_t sum(uint32_t s, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        s += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    }
    return s;
}

static uint16_t fold(uint32_t s)
{
    while (s >> 16) {
        s = (s & 0xffff) + (s >> 16);
    }
    return (uint16_t)~s;
}

/* The sum over pseudo-header and segment. */
static uint32_t tcp_sum(const uint8_t *ip, const uint8_t *tcp, size_t n)
{
    bool v4 = ip[0] >> 4 == 4;
    return sum(sum(6 + (uint32_t)n, ip + (v4 ? 12 : 8), v4 ? 8 : 32), tcp, n);
}

static uint8_t *build_tcp(const struct egress_packet *q, uint8_t *p, const uint8_t *ip)
{
    uint8_t *tcp = p;
    p = u16(p, q->source_port ? q->source_port : EGRESS_PORT);
    p = u16(p, q->peer_port ? q->peer_port : EGRESS_PEER_PORT);
    p = u32(u32(p, q->seq), q->ack);
    p = u8(u8(p, (20u + q->tcp_options) / 4 << 4), q->flags);
    p = u32(u16(p, q->window), 0);
    memset(p, 1, q->tcp_options);
    p += q->tcp_options;
    for (unsigned i = 0; i < q->payload; i++) {
        p = u8(p, i * 7);
    }
    u16(tcp + 16, fold(tcp_sum(ip, tcp, (size_t)(p - tcp))));
    return p;
}

static uint8_t *build_icmp6(const struct egress_packet *q, uint8_t *p)
{
    p = u32(u32(p, q->as == AS_NA ? 0x88000000 : 0x87000000), 0);
    return bytes(p, q->other_claim ? other6 : service6, 16);
}

/* The next header by what it carries. */
static unsigned protocol(const struct egress_packet *q)
{
    return q->as == AS_UDP ? 17 : q->as == AS_ESP ? 50 : q->as == AS_TCP ? 6 : 58;
}

static uint8_t *build_payload(const struct egress_packet *q, uint8_t *p, const uint8_t *ip)
{
    if (q->as == AS_TCP) {
        return build_tcp(q, p, ip);
    }
    if (q->as == AS_NA || q->as == AS_DAD) {
        return build_icmp6(q, p);
    }
    memset(p, 0, 16u);
    return p + 16;
}

static uint8_t *build_ip4(const struct egress_packet *q, uint8_t *p)
{
    uint8_t *ip = p;
    unsigned header_len = 20u + q->ip_options;
    p = u16(u8(u8(p, 0x40 | header_len / 4), 0), 0);
    p = u16(u16(p, 7), q->fragment ? 0x2000 : 0x4000);
    p = u16(u8(u8(p, 64), protocol(q)), 0);
    p = bytes(p, (q->other_source ? other4 : service4) + 12, 4);
    p = bytes(p, peer4 + 12, 4);
    memset(p, 1, q->ip_options);
    p = build_payload(q, p + q->ip_options, ip);
    u16(ip + 2, (unsigned)(p - ip));
    u16(ip + 10, fold(sum(0, ip, header_len)));
    return p;
}

static uint8_t *build_ip6(const struct egress_packet *q, uint8_t *p)
{
    static const uint8_t none[16];
    uint8_t *ip = p;
    unsigned first = q->extensions ? 60 : q->fragment ? 44 : protocol(q);
    p = u32(p, 0x60000000);
    p = u8(u8(u16(p, 0), first), 64);
    p = bytes(p, q->as == AS_DAD ? none : q->other_source ? other6 : service6, 16);
    p = bytes(p, peer6, 16);
    for (unsigned i = 0; i < q->extensions; i++) {
        bool last = i + 1 == q->extensions;
        p = u32(u32(p, (last ? q->fragment ? 44 : protocol(q) : 60) << 24 | 0x0104), 0);
    }
    if (q->fragment) {
        p = u32(u32(p, protocol(q) << 24 | 1), 9);
    }
    p = build_payload(q, p, ip);
    u16(ip + 4, (unsigned)(p - ip - 40));
    return p;
}

static uint8_t *build_arp(const struct egress_packet *q, uint8_t *p)
{
    p = u16(u16(u8(u8(u16(u16(p, 1), 0x0800), 6), 4), 1), 0x0200);
    p = u32(p, 10);
    p = bytes(p, (q->other_claim ? other4 : service4) + 12, 4);
    memset(p, 0, 10);
    return p + 10;
}

size_t egress_build(const struct egress_packet *q, uint8_t ret_bytes[EGRESS_PACKET_MAX])
{
    uint8_t *p = ret_bytes;
    memset(p, 0, EGRESS_PACKET_MAX);
    p = u32(u32(u32(p, 0x02000000), 0x00010200), 0x00000002);
    for (unsigned i = 0; i < q->vlans; i++) {
        p = u16(u16(p, i == 0 && q->vlans > 1 ? 0x88a8 : 0x8100), 100 + i);
    }
    p = u16(p, q->as == AS_ARP ? 0x0806 : q->v6 ? 0x86dd : 0x0800);
    p = q->as == AS_ARP ? build_arp(q, p) : q->v6 ? build_ip6(q, p) : build_ip4(q, p);
    p += q->padding;
    return q->cut ? q->cut : (size_t)(p - ret_bytes);
}

bool egress_checksums_ok(const uint8_t *packet, size_t n)
{
    struct hf_egress_facts f;
    hf_egress_parse(hf_slice(packet, n), 0, &f);
    const uint8_t *ip = packet + f.l3;
    bool header = ip[0] >> 4 == 6 || fold(sum(0, ip, (size_t)(f.l4 - f.l3))) == 0;
    size_t tcp_len = f.header_len - f.l4 + f.payload_len;
    return f.kind == HF_EGRESS_KIND_TCP && header && fold(tcp_sum(ip, packet + f.l4, tcp_len)) == 0;
}

#define FIN 1
#define SYN 2
#define RST 4
#define PSH 8
#define ACK 16
#define RX EGRESS_RX_CONF
#define TX EGRESS_TX_CONF
#define OWN .seq = 900, .ack = RX, .window = 500
#define EARLY .seq = 900, .ack = RX + 0x20, .window = 500 /* its acknowledgement wraps */
#define PASS .want = HF_EGRESS_PASS, .counter = HF_EGRESS_COUNTERS
#define DROP(n) .want = HF_EGRESS_DROP, .counter = HF_EGRESS_N_##n
#define HOLD .want = HF_EGRESS_HOLD_ACK, .counter = HF_EGRESS_N_ACK_HELD
#define LOWER .want = HF_EGRESS_LOWER, .counter = HF_EGRESS_N_ACK_LOWERED
#define HOLD_SYN .want = HF_EGRESS_HOLD_SYN_ACK, .counter = HF_EGRESS_N_SYN_ACK_HELD
#define GREET .flags = SYN | ACK, .seq = EGRESS_SYN_SEQ, .ack = RX
#define P(...) .packet = {__VA_ARGS__}

const struct egress_case egress_cases[] = {
    {P("ack", OWN, .flags = ACK), PASS},
    {P("ack with timestamps", OWN, .flags = ACK, .tcp_options = 12), PASS},
    {P("ack, older", .flags = ACK, .seq = 900, .ack = RX - 5), PASS},
    {P("ack, padded", OWN, .flags = ACK, .padding = 6), PASS},
    {P("data up to tx_conf", OWN, .flags = ACK | PSH, .payload = 100), PASS},
    {P("data beyond tx_conf", OWN, .flags = ACK, .payload = 101), DROP(BEYOND)},
    {P("GSO data beyond tx_conf", OWN, .flags = ACK, .payload = 2900), DROP(BEYOND)},
    {P("data without ACK", OWN, .flags = 0, .payload = 1), DROP(BAD)},
    {P("early ack", EARLY, .flags = ACK), HOLD},
    {P("early ack with SACK", EARLY, .flags = ACK, .tcp_options = 24), HOLD},
    {P("early ack in data", EARLY, .flags = ACK, .payload = 100), LOWER},
    {P("early ack in odd data", EARLY, .flags = ACK | PSH, .payload = 33, .tcp_options = 12),
     LOWER},
    {P("early ack, window at its end", .flags = ACK, .seq = 0, .ack = RX + 0x10000, .window = 65530,
       .payload = 8),
     LOWER},
    {P("early ack in GSO data", .flags = ACK, .seq = TX - 3000u, .ack = RX + 0x20, .payload = 3000),
     LOWER},
    {P("early ack beyond tx_conf", EARLY, .flags = ACK, .payload = 300), DROP(BEYOND)},
    {P("early ack in FIN", EARLY, .flags = ACK | FIN), .slot_state = HF_EGRESS_SLOT_CLOSING, LOWER},
    {P("FIN", OWN, .flags = ACK | FIN), DROP(RESET)},
    {P("FIN of ours", OWN, .flags = ACK | FIN), .slot_state = HF_EGRESS_SLOT_CLOSING, PASS},
    {P("FIN of ours beyond tx_conf", OWN, .flags = ACK | FIN, .payload = 200),
     .slot_state = HF_EGRESS_SLOT_CLOSING, DROP(BEYOND)},
    {P("RST", OWN, .flags = RST), DROP(RESET)},
    {P("RST, ACK", EARLY, .flags = RST | ACK), DROP(RESET)},
    {P("RST of ours", EARLY, .flags = RST | ACK), .slot_state = HF_EGRESS_SLOT_CLOSING, PASS},
    {P("FIN at the end", OWN, .flags = ACK | FIN), .slot_state = HF_EGRESS_SLOT_FIN, PASS},
    {P("RST at the end", OWN, .flags = RST), .slot_state = HF_EGRESS_SLOT_FIN, DROP(RESET)},
    {P("RST, FIN at the end", OWN, .flags = RST | FIN), .slot_state = HF_EGRESS_SLOT_FIN,
     DROP(RESET)},
    {P("RST, solo", OWN, .flags = RST), .address_flags = HF_EGRESS_SOLO, DROP(RESET)},
    {P("RST with a slot, RESETS", OWN, .flags = RST), .address_flags = HF_EGRESS_RESETS,
     DROP(RESET)},
    {P("RST without a slot", OWN, .flags = RST), .no_slot = true, DROP(RESET)},
    {P("RST without a slot, RESETS", OWN, .flags = RST), .no_slot = true,
     .address_flags = HF_EGRESS_RESETS, PASS},
    {P("RST without a slot, solo", OWN, .flags = RST), .no_slot = true,
     .address_flags = HF_EGRESS_SOLO, DROP(RESET)},
    {P("FIN without a slot, RESETS", OWN, .flags = FIN | ACK), .no_slot = true,
     .address_flags = HF_EGRESS_RESETS, DROP(RESET)},
    {P("ack without a slot", OWN, .flags = ACK), .no_slot = true, DROP(UNKNOWN)},
    {P("data without a slot", OWN, .flags = ACK, .payload = 9), .no_slot = true, DROP(UNKNOWN)},
    {P("data without a slot, solo", OWN, .flags = ACK, .payload = 9), .no_slot = true,
     .address_flags = HF_EGRESS_SOLO, PASS},
    {P("early ack, solo", EARLY, .flags = ACK), .address_flags = HF_EGRESS_SOLO, PASS},
    {P("early ack, solo slot", EARLY, .flags = ACK), .slot_state = HF_EGRESS_SLOT_SOLO, PASS},
    {P("far data, solo slot", EARLY, .flags = ACK, .payload = 2000),
     .slot_state = HF_EGRESS_SLOT_SOLO, PASS},
    {P("FIN, solo slot", OWN, .flags = ACK | FIN), .slot_state = HF_EGRESS_SLOT_SOLO, DROP(RESET)},
    {P("SYN-ACK", GREET), .no_slot = true, HOLD_SYN},
    {P("SYN-ACK, solo", GREET), .no_slot = true, .address_flags = HF_EGRESS_SOLO, PASS},
    {P("SYN-ACK, confirmed", GREET), .slot_state = HF_EGRESS_SLOT_SYN_ACK, PASS},
    {P("SYN-ACK, slot without it", GREET), HOLD_SYN},
    {P("SYN-ACK, slot without it, solo", GREET), .address_flags = HF_EGRESS_SOLO, HOLD_SYN},
    {P("SYN-ACK of another", .flags = SYN | ACK, .seq = EGRESS_SYN_SEQ, .ack = RX + 1),
     .slot_state = HF_EGRESS_SLOT_SYN_ACK, HOLD_SYN},
    {P("SYN-ACK of yet another", .flags = SYN | ACK, .seq = EGRESS_SYN_SEQ + 1, .ack = RX),
     .slot_state = HF_EGRESS_SLOT_SYN_ACK, HOLD_SYN},
    {P("SYN from the service", .flags = SYN), DROP(UNKNOWN)},
    {P("SYN and FIN", .flags = SYN | FIN | ACK), DROP(RESET)},
    {P("other port", OWN, .flags = RST, .source_port = 22), .no_slot = true, PASS},
    {P("other peer port", OWN, .flags = ACK, .peer_port = 40001), .no_slot = true, DROP(UNKNOWN)},
    {P("other source", OWN, .flags = RST, .other_source = true), .no_slot = true, PASS},
    {P("UDP", .as = AS_UDP), PASS},
    {P("UDP fragment", .as = AS_UDP, .fragment = true), PASS},
    {P("ESP", .as = AS_ESP), DROP(BAD)},
    {P("TCP fragment", OWN, .flags = ACK, .fragment = true), DROP(BAD)},
    {P("IP options", OWN, .flags = ACK, .ip_options = 40, .tcp_options = 40), PASS},
    {P("IP options, early ack", EARLY, .flags = ACK, .ip_options = 40, .tcp_options = 40), HOLD},
    {P("IP options, early ack in data", EARLY, .flags = ACK, .ip_options = 8, .payload = 99),
     LOWER},
    {P("VLAN, early ack in data", EARLY, .flags = ACK, .vlans = 1, .payload = 50), LOWER},
    {P("two VLANs, early ack", EARLY, .flags = ACK, .vlans = 2), HOLD},
    {P("two VLANs, RST", OWN, .flags = RST, .vlans = 2), DROP(RESET)},
    {P("cut off", OWN, .flags = ACK, .payload = 50, .cut = 80), DROP(BAD)},
    {P("cut off in TCP", OWN, .flags = ACK, .cut = 40), DROP(BAD)},
    {P("ARP", .as = AS_ARP), PASS},
    {P("lease: ack", OWN, .flags = ACK), .expired = true, DROP(LEASE)},
    {P("lease: ack, solo", OWN, .flags = ACK), .expired = true, .address_flags = HF_EGRESS_SOLO,
     DROP(LEASE)},
    {P("lease: other port", OWN, .flags = ACK, .source_port = 22), .expired = true, DROP(LEASE)},
    {P("lease: SYN-ACK", GREET), .expired = true, .no_slot = true, .want = HF_EGRESS_SWALLOW,
     .counter = HF_EGRESS_N_LEASE},
    {P("lease: UDP", .as = AS_UDP), .expired = true, DROP(LEASE)},
    {P("lease: ARP", .as = AS_ARP), .expired = true, DROP(LEASE)},
    {P("lease: ARP, VLAN", .as = AS_ARP, .vlans = 1), .expired = true, DROP(LEASE)},
    {P("lease: ARP of another", .as = AS_ARP, .other_claim = true), .expired = true, PASS},
    {P("lease: other source", OWN, .flags = ACK, .other_source = true), .expired = true, PASS},
    {P("v6: ack", .v6 = true, OWN, .flags = ACK), PASS},
    {P("v6: early ack", .v6 = true, EARLY, .flags = ACK), HOLD},
    {P("v6: early ack in data", .v6 = true, EARLY, .flags = ACK, .payload = 51), LOWER},
    {P("v6: early ack in data, VLAN, options", .v6 = true, EARLY, .flags = ACK, .payload = 51,
       .vlans = 1, .tcp_options = 12, .extensions = 2),
     LOWER},
    {P("v6: RST", .v6 = true, OWN, .flags = RST), DROP(RESET)},
    {P("v6: data beyond tx_conf", .v6 = true, OWN, .flags = ACK, .payload = 101), DROP(BEYOND)},
    {P("v6: SYN-ACK", .v6 = true, GREET), .no_slot = true, HOLD_SYN},
    {P("v6: three extensions", .v6 = true, OWN, .flags = RST, .extensions = 3), DROP(RESET)},
    {P("v6: too many extensions", .v6 = true, OWN, .flags = ACK, .extensions = 5), DROP(BAD)},
    {P("v6: TCP fragment", .v6 = true, OWN, .flags = ACK, .fragment = true), DROP(BAD)},
    {P("v6: TCP fragment after extensions", .v6 = true, OWN, .flags = ACK, .fragment = true,
       .extensions = 1),
     DROP(BAD)},
    {P("v6: UDP fragment", .v6 = true, .as = AS_UDP, .fragment = true), PASS},
    {P("v6: ESP", .v6 = true, .as = AS_ESP), DROP(BAD)},
    {P("v6: cut off", .v6 = true, OWN, .flags = ACK, .payload = 50, .cut = 100), DROP(BAD)},
    {P("v6: NA", .v6 = true, .as = AS_NA, .other_source = true), PASS},
    {P("v6: lease: NA", .v6 = true, .as = AS_NA, .other_source = true), .expired = true,
     DROP(LEASE)},
    {P("v6: lease: NA from the address for another", .v6 = true, .as = AS_NA, .other_claim = true),
     .expired = true, DROP(LEASE)},
    {P("v6: lease: NA of another", .v6 = true, .as = AS_NA, .other_source = true,
       .other_claim = true),
     .expired = true, PASS},
    {P("v6: lease: DAD", .v6 = true, .as = AS_DAD), .expired = true, DROP(LEASE)},
    {P("v6: lease: ack", .v6 = true, OWN, .flags = ACK), .expired = true, DROP(LEASE)},
};

const unsigned egress_cases_len = HF_ARRAY_LEN(egress_cases);
