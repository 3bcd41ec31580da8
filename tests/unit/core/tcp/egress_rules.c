/* The rules of the output commit in user space; the BPF program's are compared in egress-probe. */
#include "core/tcp/egress_rules.h"

#include <string.h>

#include "base/err.h"
#include "support/egress_packets.h"
#include "support/test.h"

#define NOW 5000u

static struct hf_egress_slot slot_of(const struct egress_case *c)
{
    return (struct hf_egress_slot){
        .rx_conf = EGRESS_RX_CONF,
        .tx_conf = EGRESS_TX_CONF,
        .state = HF_EGRESS_SLOT_USED | c->slot_state,
        .wscale = EGRESS_WSCALE,
        .syn_seq = EGRESS_SYN_SEQ,
        .syn_ack = EGRESS_RX_CONF,
    };
}

/* As the filter does: not of a service address passes unjudged. */
static enum hf_egress_verdict judge(const struct egress_case *c, const struct hf_egress_facts *f,
                                    enum hf_egress_counter *ret_counter)
{
    bool v6 = c->packet.v6;
    struct hf_egress_slot slot = slot_of(c);
    struct hf_egress_address address = {
        .lease_until = c->expired ? NOW : NOW + 1,
        .flags = c->address_flags,
        .port = EGRESS_PORT,
    };
    *ret_counter = HF_EGRESS_COUNTERS;
    if (f->kind == HF_EGRESS_KIND_OTHER ||
        (memcmp(f->source, egress_service(v6), 16) != 0 &&
         (f->kind != HF_EGRESS_KIND_CLAIM || memcmp(f->claimed, egress_service(v6), 16) != 0))) {
        return HF_EGRESS_PASS;
    }
    return hf_egress_judge(f, c->no_slot ? NULL : &slot, &address, NOW, ret_counter);
}

static void test_table(void **state)
{
    (void)state;
    for (unsigned i = 0; i < egress_cases_len; i++) {
        const struct egress_case *c = &egress_cases[i];
        uint8_t bytes[EGRESS_PACKET_MAX];
        struct hf_egress_facts f;
        enum hf_egress_counter counter;
        hf_egress_parse(hf_slice(bytes, egress_build(&c->packet, bytes)), 0, &f);
        enum hf_egress_verdict verdict = judge(c, &f, &counter);
        if (verdict != c->want || counter != c->counter) {
            fail_msg("%s: %s, %u", c->packet.name, hf_egress_verdict_name(verdict), counter);
        }
    }
}

/* From the IP header on, as NFQUEUE has it, the rules say the same. */
static void test_without_link_header(void **state)
{
    (void)state;
    for (unsigned i = 0; i < egress_cases_len; i++) {
        const struct egress_case *c = &egress_cases[i];
        uint8_t bytes[EGRESS_PACKET_MAX];
        size_t n = egress_build(&c->packet, bytes);
        size_t link = 14 + 4u * c->packet.vlans;
        struct hf_egress_facts f;
        enum hf_egress_counter counter;
        if (c->packet.as == AS_ARP) {
            continue;
        }
        hf_egress_parse(hf_slice(bytes + link, n - link), c->packet.v6 ? 0x86dd : 0x0800, &f);
        assert_int_equal(f.l3, 0);
        assert_int_equal(judge(c, &f, &counter), c->want);
    }
}

/* Cut off anywhere, in a buffer of exactly that size: never an acknowledgement, never a byte
 * beyond. */
static void test_truncated(void **state)
{
    (void)state;
    for (unsigned i = 0; i < egress_cases_len; i++) {
        const struct egress_case *c = &egress_cases[i];
        uint8_t bytes[EGRESS_PACKET_MAX];
        size_t n = egress_build(&c->packet, bytes);
        for (size_t cut = 0; cut < n && cut < 200; cut++) {
            uint8_t *exact = malloc(cut ? cut : 1);
            assert_non_null(exact);
            memcpy(exact, bytes, cut);
            struct hf_egress_facts f;
            hf_egress_parse(hf_slice(exact, cut), 0, &f);
            bool padding = cut >= n - c->packet.padding;
            if (c->packet.as == AS_TCP && !padding) {
                assert_int_not_equal(f.kind, HF_EGRESS_KIND_TCP);
            }
            free(exact);
        }
    }
}

static void test_facts(void **state)
{
    (void)state;
    struct egress_packet p = {.v6 = true,
                              .flags = 0x18,
                              .seq = 0xfffffffe,
                              .ack = 7,
                              .window = 300,
                              .payload = 9,
                              .vlans = 1,
                              .extensions = 2,
                              .tcp_options = 12,
                              .padding = 3};
    uint8_t bytes[EGRESS_PACKET_MAX];
    struct hf_egress_facts f;
    hf_egress_parse(hf_slice(bytes, egress_build(&p, bytes)), 0, &f);
    assert_int_equal(f.kind, HF_EGRESS_KIND_TCP);
    assert_int_equal(f.l3, 18);
    assert_int_equal(f.l4, 18 + 40 + 16);
    assert_int_equal(f.header_len, 18 + 40 + 16 + 32);
    assert_int_equal(f.payload_len, 9);
    assert_int_equal(f.seq, 0xfffffffe);
    assert_int_equal(f.ack, 7);
    assert_int_equal(f.window, 300);
    assert_int_equal(f.tcp_flags, 0x18);
    assert_int_equal(f.source_port, EGRESS_PORT);
    assert_int_equal(f.peer_port, EGRESS_PEER_PORT);
    assert_memory_equal(f.source, egress_service(true), 16);
    assert_memory_equal(f.peer, egress_peer(true), 16);
}

/* LOWER keeps the checksum right and the window's right edge, to one unit, in place. */
static void test_lower(void **state)
{
    (void)state;
    unsigned n_lower = 0;
    for (unsigned i = 0; i < egress_cases_len; i++) {
        const struct egress_case *c = &egress_cases[i];
        uint8_t bytes[EGRESS_PACKET_MAX];
        size_t n = egress_build(&c->packet, bytes);
        struct hf_egress_facts f, lowered;
        if (c->want != HF_EGRESS_LOWER) {
            continue;
        }
        n_lower++;
        hf_egress_parse(hf_slice(bytes, n), 0, &f);
        assert_true(egress_checksums_ok(bytes, n));
        hf_egress_lower(bytes, &f, EGRESS_RX_CONF, EGRESS_WSCALE);
        assert_true(egress_checksums_ok(bytes, n));
        hf_egress_parse(hf_slice(bytes, n), 0, &lowered);
        assert_int_equal(lowered.ack, EGRESS_RX_CONF);
        uint32_t was = f.ack + ((uint32_t)f.window << EGRESS_WSCALE);
        uint32_t is = lowered.ack + ((uint32_t)lowered.window << EGRESS_WSCALE);
        assert_true((int32_t)(was - is) >= 0);
        assert_true(was - is < 1u << EGRESS_WSCALE || lowered.window == 65535);
    }
    assert_true(n_lower > 5);
}

static void test_set_checksums(void **state)
{
    (void)state;
    for (unsigned i = 0; i < egress_cases_len; i++) {
        uint8_t right[EGRESS_PACKET_MAX], bytes[EGRESS_PACKET_MAX];
        size_t n = egress_build(&egress_cases[i].packet, right);
        struct hf_egress_facts f;
        hf_egress_parse(hf_slice(right, n), 0, &f);
        if (f.kind == HF_EGRESS_KIND_TCP) {
            memcpy(bytes, right, n);
            bytes[f.l4 + 16] ^= 0x5a;
            bytes[f.l3 + 10] ^= right[f.l3] >> 4 == 4 ? 0xa5 : 0;
            hf_egress_set_checksums(bytes, &f);
            assert_memory_equal(bytes, right, n);
        }
    }
}

/* What is sent late is a right packet that says what is confirmed. */
static void test_build_ack(void **state)
{
    (void)state;
    for (unsigned i = 0; i < egress_cases_len; i++) {
        const struct egress_case *c = &egress_cases[i];
        uint8_t bytes[EGRESS_PACKET_MAX], built[HF_EGRESS_BUILT_MAX];
        size_t n = egress_build(&c->packet, bytes);
        struct hf_egress_facts f;
        struct hf_egress_saved saved;
        hf_egress_parse(hf_slice(bytes, n), 0, &f);
        if (c->want != HF_EGRESS_LOWER && c->want != HF_EGRESS_HOLD_ACK) {
            continue;
        }
        assert_true(hf_egress_save(&saved, hf_slice(bytes, n), &f));
        bytes[f.l4 + 16] ^= 1; /* as it is while the card is to do it */
        assert_int_equal(hf_egress_parse_saved(&saved, &f), 0);
        for (int tagged = 0; tagged < 2; tagged++) {
            saved.vlan = tagged ? 0x81000064 : 0;
            int len = hf_egress_build_ack(&saved, 12345, f.ack - 7, EGRESS_WSCALE, built);
            assert_int_equal(len, saved.len + 4 * tagged);
            assert_true(egress_checksums_ok(built, (size_t)len));
            struct hf_egress_facts g;
            hf_egress_parse(hf_slice(built, (size_t)len), 0, &g);
            assert_int_equal(g.tcp_flags, 0x10);
            assert_int_equal(g.seq, 12345);
            assert_int_equal(g.ack, f.ack - 7);
            assert_int_equal(g.payload_len, 0);
            assert_memory_equal(g.peer, f.peer, 16);
            assert_int_equal(g.l3, f.l3 + 4 * tagged);
        }
        assert_int_equal(hf_egress_build_syn_ack(&saved, built), -HF_EMALF);
    }
}

static void test_build_syn_ack(void **state)
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        struct egress_packet p = {
            .v6 = v6, .flags = 0x12, .seq = 9, .ack = 8, .window = 64240, .tcp_options = 20};
        uint8_t bytes[EGRESS_PACKET_MAX], built[HF_EGRESS_BUILT_MAX];
        size_t n = egress_build(&p, bytes);
        struct hf_egress_facts f;
        struct hf_egress_saved saved;
        hf_egress_parse(hf_slice(bytes, n), 0, &f);
        assert_true(hf_egress_save(&saved, hf_slice(bytes, n), &f));
        saved.header[f.l4 + 16] ^= 0x55;
        assert_int_equal(hf_egress_build_syn_ack(&saved, built), n);
        assert_memory_equal(built, bytes, n);
        saved.len = 30; /* what can't be from the filter is refused */
        assert_int_equal(hf_egress_build_syn_ack(&saved, built), -HF_EMALF);
        assert_int_equal(hf_egress_parse_saved(&saved, &f), -HF_EMALF);
        saved.len = HF_EGRESS_HEADER_MAX + 1;
        assert_int_equal(hf_egress_build_syn_ack(&saved, built), -HF_EMALF);
    }
}

static void test_headers_too_long(void **state)
{
    (void)state;
    struct egress_packet p = {
        .v6 = true, .flags = 0x10, .vlans = 2, .extensions = 4, .tcp_options = 40};
    uint8_t bytes[EGRESS_PACKET_MAX];
    size_t n = egress_build(&p, bytes);
    struct hf_egress_facts f;
    struct hf_egress_saved saved;
    hf_egress_parse(hf_slice(bytes, n), 0, &f);
    assert_int_equal(f.kind, HF_EGRESS_KIND_TCP);
    assert_int_equal(f.header_len, 22 + 40 + 32 + 60);
    assert_true(hf_egress_save(&saved, hf_slice(bytes, n), &f));
    f.header_len = HF_EGRESS_HEADER_MAX + 1;
    assert_false(hf_egress_save(&saved, hf_slice(bytes, sizeof(bytes)), &f));
}

static void test_note_passed(void **state)
{
    (void)state;
    struct hf_egress_slot s = {.snd_nxt = 0xfffffff0, .pending = 1, .saved = {.ack = 20}};
    struct hf_egress_facts f = {.seq = 0xfffffff8, .payload_len = 16, .tcp_flags = 0x10, .ack = 30};
    hf_egress_note_passed(&s, &f, 19);
    assert_int_equal(s.snd_nxt, 8);
    assert_int_equal(s.ack_sent, 19);
    assert_int_equal(s.pending, 1);
    f.seq = 0; /* a retransmission: nothing goes back */
    f.payload_len = 1;
    hf_egress_note_passed(&s, &f, 20);
    assert_int_equal(s.snd_nxt, 8);
    assert_int_equal(s.pending, 0);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(hf_egress_verdict_name(HF_EGRESS_HOLD_ACK), "hold-ack");
    assert_string_equal(hf_egress_verdict_name((enum hf_egress_verdict)99), "?");
    assert_string_equal(hf_egress_counter_name(HF_EGRESS_N_LEASE), "lease");
    assert_string_equal(hf_egress_counter_name(HF_EGRESS_N_SENT), "sent");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_table),         HF_TEST(test_without_link_header),
        HF_TEST(test_truncated),     HF_TEST(test_facts),
        HF_TEST(test_lower),         HF_TEST(test_build_ack),
        HF_TEST(test_build_syn_ack), HF_TEST(test_headers_too_long),
        HF_TEST(test_note_passed),   HF_TEST(test_names),
        HF_TEST(test_set_checksums),
    };
    return cmocka_run_group_tests_name("core/tcp/egress_rules", tests, NULL, NULL);
}
