/* The rules of the output commit in user space: for the NFQUEUE fallback and the tests. */
#include "core/tcp/egress_rules.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "base/rd.h"

#define HF_EGRESS_PACKET const struct hf_slice

static int hf_egress_load(HF_EGRESS_PACKET *p, uint32_t off, void *to, uint32_t n)
{
    struct hf_rd r;
    hf_rd_init(&r, *p);
    hf_rd_bytes(&r, off);
    hf_rd_copy(&r, to, n);
    return r.err;
}

#include "base/names.h"
#include "core/tcp/egress_inline.h"

HF_NAMES(hf_egress_verdict_name, enum hf_egress_verdict, HF_EGRESS_VERDICT_LIST)

const char *hf_egress_counter_name(enum hf_egress_counter counter)
{
    static const char *const names[] = {
#define NAME(name, key, text) key,
        HF_EGRESS_COUNTER_LIST(NAME)
#undef NAME
    };
    assert((unsigned)counter < HF_EGRESS_COUNTERS);
    return names[counter];
}

void hf_egress_parse(struct hf_slice packet, uint16_t ethertype, struct hf_egress_facts *f)
{
    hf_egress_parse_inline(&packet, (uint32_t)packet.n, ethertype, f);
}

enum hf_egress_verdict hf_egress_judge(const struct hf_egress_facts *f,
                                       const struct hf_egress_slot *slot,
                                       const struct hf_egress_address *address, uint64_t now,
                                       enum hf_egress_counter *ret_counter)
{
    return hf_egress_judge_inline(f, slot, address, now, ret_counter);
}

bool hf_egress_save(struct hf_egress_saved *saved, struct hf_slice packet,
                    const struct hf_egress_facts *f)
{
    if (f->header_len > sizeof(saved->header) || f->header_len > packet.n) {
        return false;
    }
    *saved = (struct hf_egress_saved){
        .ack = f->ack, .end = hf_egress_end_of(f), .l3 = f->l3, .len = f->header_len};
    memcpy(saved->header, packet.p, f->header_len);
    return true;
}

void hf_egress_note_passed(struct hf_egress_slot *slot, const struct hf_egress_facts *f,
                           uint32_t ack)
{
    hf_egress_note_passed_inline(slot, f, ack);
}

static void put_u16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put_u32(uint8_t *p, uint32_t v)
{
    put_u16(p, v >> 16);
    put_u16(p + 2, v);
}

/* RFC 1624: the checksum at sum after the 16 bits old became new. */
static void adjust(uint8_t *sum, uint16_t old, uint16_t new)
{
    uint32_t s = (uint16_t)~hf_egress_u16(sum) + (uint32_t)(uint16_t)~old + new;
    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    put_u16(sum, ~s);
}

void hf_egress_lower(uint8_t *packet, const struct hf_egress_facts *f, uint32_t ack, uint8_t wscale)
{
    uint8_t *tcp = packet + f->l4;
    uint16_t window = hf_egress_raise_window(f->window, f->ack - ack, wscale);
    adjust(tcp + 16, (uint16_t)(f->ack >> 16), (uint16_t)(ack >> 16));
    adjust(tcp + 16, (uint16_t)f->ack, (uint16_t)ack);
    adjust(tcp + 16, f->window, window);
    put_u32(tcp + 8, ack);
    put_u16(tcp + 14, window);
}

static uint32_t sum_of(uint32_t s, const uint8_t *p, size_t n)
{
    for (; n > 1; n -= 2, p += 2) {
        s += hf_egress_u16(p);
    }
    return n ? s + (uint32_t)(p[0] << 8) : s;
}

static uint16_t fold(uint32_t s)
{
    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    return (uint16_t)~s;
}

/* The saved headers with the link's tag put in again; what they say in f. Their length, or
 * -HF_EMALF. */
static int rebuild(const struct hf_egress_saved *saved, uint8_t *packet, struct hf_egress_facts *f)
{
    size_t len = saved->len, at = saved->vlan && saved->l3 >= 14 ? 12 : 0;
    if (len > sizeof(saved->header) || saved->l3 > len) {
        return -HF_EMALF;
    }
    memcpy(packet, saved->header, len);
    if (at) {
        memmove(packet + at + 4, packet + at, len - at);
        put_u32(packet + at, saved->vlan);
        len += 4;
    }
    /* the length of the packet that this was cut from does not hold any more */
    uint8_t *ip = packet + saved->l3 + (at ? 4 : 0);
    size_t ip_len = (size_t)(packet + len - ip);
    if (ip_len < 40) {
        return -HF_EMALF;
    }
    uint8_t version = ip[0] >> 4;
    put_u16(version == 4 ? ip + 2 : ip + 4, (uint32_t)(version == 4 ? ip_len : ip_len - 40));
    hf_egress_parse(hf_slice(packet, len),
                    saved->l3      ? 0
                    : version == 4 ? HF_ETH_IP
                                   : HF_ETH_IP6,
                    f);
    return f->kind == HF_EGRESS_KIND_TCP && f->header_len == len ? (int)len : -HF_EMALF;
}

int hf_egress_parse_saved(const struct hf_egress_saved *saved, struct hf_egress_facts *f)
{
    uint8_t packet[HF_EGRESS_BUILT_MAX];
    struct hf_egress_saved untagged = *saved;
    untagged.vlan = 0;
    int rc = rebuild(&untagged, packet, f);
    return rc < 0 ? rc : 0;
}

void hf_egress_set_checksums(uint8_t *packet, const struct hf_egress_facts *f)
{
    uint8_t *ip = packet + f->l3, *tcp = packet + f->l4;
    size_t tcp_len = (size_t)(f->header_len - f->l4) + f->payload_len;
    uint32_t s = HF_PROTO_TCP + (uint32_t)tcp_len;
    if (ip[0] >> 4 == 4) {
        put_u16(ip + 10, 0);
        put_u16(ip + 10, fold(sum_of(0, ip, (size_t)(f->l4 - f->l3))));
        s = sum_of(s, ip + 12, 8);
    } else {
        s = sum_of(s, ip + 8, 32);
    }
    put_u16(tcp + 16, 0);
    put_u16(tcp + 16, fold(sum_of(s, tcp, tcp_len)));
}

int hf_egress_build_ack(const struct hf_egress_saved *saved, uint32_t seq, uint32_t ack,
                        uint8_t wscale, uint8_t ret_packet[HF_EGRESS_BUILT_MAX])
{
    struct hf_egress_facts f;
    int len = rebuild(saved, ret_packet, &f);
    if (len < 0) {
        return len;
    }
    uint8_t *tcp = ret_packet + f.l4;
    put_u32(tcp + 4, seq);
    put_u32(tcp + 8, ack);
    tcp[13] = HF_TCP_ACK;
    put_u16(tcp + 14, hf_egress_raise_window(f.window, saved->ack - ack, wscale));
    put_u16(tcp + 18, 0); /* the urgent pointer belonged to data */
    hf_egress_set_checksums(ret_packet, &f);
    return len;
}

int hf_egress_build_syn_ack(const struct hf_egress_saved *saved,
                            uint8_t ret_packet[HF_EGRESS_BUILT_MAX])
{
    struct hf_egress_facts f;
    int len = rebuild(saved, ret_packet, &f);
    if (len < 0 || !(f.tcp_flags & HF_TCP_SYN)) {
        return -HF_EMALF;
    }
    hf_egress_set_checksums(ret_packet, &f);
    return len;
}
