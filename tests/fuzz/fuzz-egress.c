/* Packets for the output commit: what is let go says nothing that is not confirmed, and what is
 * made of a packet that was held passes in its place. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/tcp/egress_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct hf_egress_address address = {.lease_until = 2, .port = 5432};

static enum hf_egress_verdict judge(const struct hf_egress_facts *f, const struct hf_egress_slot *s)
{
    enum hf_egress_counter counter;
    return hf_egress_judge(f, s, &address, 1, &counter);
}

static bool above(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0;
}

/* What was saved of the packet, as it is sent later. */
static void check_saved(const struct hf_egress_saved *saved, const struct hf_egress_slot *s)
{
    uint8_t built[HF_EGRESS_BUILT_MAX];
    struct hf_egress_facts f;
    int len = hf_egress_build_ack(saved, s->tx_conf, s->rx_conf, (uint8_t)s->wscale, built);
    assert(len < 0 || len <= HF_EGRESS_BUILT_MAX);
    if (len > 0 && saved->l3) {
        hf_egress_parse(hf_slice(built, (size_t)len), 0, &f);
        assert(f.kind == HF_EGRESS_KIND_TCP && f.ack == s->rx_conf && f.payload_len == 0);
        assert(judge(&f, s) == HF_EGRESS_PASS);
    }
    len = hf_egress_build_syn_ack(saved, built);
    assert(len < 0 || len <= HF_EGRESS_BUILT_MAX);
}

static void check_packet(uint8_t *packet, size_t n, uint16_t type, uint8_t how)
{
    struct hf_egress_facts f;
    struct hf_egress_saved saved;
    hf_egress_parse(hf_slice(packet, n), type, &f);
    if (f.kind != HF_EGRESS_KIND_TCP || f.source_port != address.port) {
        return;
    }
    assert(f.l3 < f.l4 && f.l4 + 20u <= f.header_len && f.header_len + f.payload_len <= n);
    struct hf_egress_slot s = {
        .rx_conf = f.ack - 8 + (how & 15),
        .tx_conf = f.seq + f.payload_len - 8 + (how >> 4),
        .state = HF_EGRESS_SLOT_USED | (how & 1 ? HF_EGRESS_SLOT_CLOSING : 0),
        .wscale = how & 14,
    };
    enum hf_egress_verdict verdict = judge(&f, &s);
    bool reset = f.tcp_flags & 4;
    assert(verdict != HF_EGRESS_PASS || reset ||
           (!above(f.ack, s.rx_conf) &&
            (f.payload_len == 0 || !above(f.seq + f.payload_len, s.tx_conf))));
    assert(verdict != HF_EGRESS_PASS || !(f.tcp_flags & 5) || s.state & HF_EGRESS_SLOT_CLOSING);
    if ((verdict == HF_EGRESS_LOWER || verdict == HF_EGRESS_HOLD_ACK) &&
        hf_egress_save(&saved, hf_slice(packet, n), &f)) {
        check_saved(&saved, &s);
    }
    if (verdict == HF_EGRESS_LOWER) {
        hf_egress_lower(packet, &f, s.rx_conf, (uint8_t)s.wscale);
        hf_egress_set_checksums(packet, &f);
        hf_egress_parse(hf_slice(packet, n), type, &f);
        assert(f.ack == s.rx_conf && judge(&f, &s) == HF_EGRESS_PASS);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const uint16_t types[] = {0, 0x0800, 0x86dd, 0x0806};
    if (n < 2) {
        return 0;
    }
    uint8_t *packet = malloc(n - 1); /* n - 2 bytes; not nothing */
    if (!packet) {
        abort();
    }
    memcpy(packet, data + 2, n - 2);
    check_packet(packet, n - 2, types[data[0] % HF_ARRAY_LEN(types)], data[1]);
    free(packet);
    return 0;
}
