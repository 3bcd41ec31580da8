/* codec/tcp_facts: the encoding, handshakes, places in the streams, the probe and its answers. */
#include "codec/tcp_facts.h"

#include "base/err.h"
#include "support/test.h"

static struct hf_tcp_facts facts(uint8_t flags)
{
    return (struct hf_tcp_facts){
        .local = {.family = HF_AF_INET, .addr = {10, 79, 0, 100}, .port = 5432},
        .peer = {.family = HF_AF_INET, .addr = {10, 79, 0, 2}, .port = 45678},
        .snd_isn = 0xfffffffd,
        .rcv_isn = 1000,
        .mss = 1460,
        .snd_wscale = 7,
        .rcv_wscale = 10,
        .flags = (uint8_t)(flags | HF_TCP_FACT_WSCALE),
        .tsval = 5000,
        .ts_at = HF_S(100),
        .snd_wnd = 64240,
        .rcv_wnd = 65536,
    };
}

static size_t encode(uint8_t *buf, size_t n, const struct hf_tcp_facts *f)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    hf_tcp_facts_encode(&w, f);
    return hf_wr_end(&w, &s) == 0 ? s.n : 0;
}

static int decode_exact(const uint8_t *p, size_t n, struct hf_tcp_facts *ret_f)
{
    struct hf_rd r;
    uint8_t *exact = malloc(n ? n : 1); /* exact size: the sanitizer sees any step beyond */
    memcpy(exact, p, n);
    hf_rd_init(&r, hf_slice(exact, n));
    hf_tcp_facts_decode(&r, ret_f);
    int rc = hf_rd_end(&r);
    free(exact);
    return rc;
}

static void golden(void **state)
{
    (void)state;
    static const uint8_t want[] = {
        1,    4,    10, 79, 0,  100,  0x15, 0x38, 10, 79, 0,    2,    0xb2, 0x6e, 0xff, 0xff,
        0xff, 0xfd, 0,  0,  3,  0xe8, 5,    0xb4, 7,  10, 7,    0,    0,    0,    0x13, 0x88,
        0,    0,    0,  23, 72, 118,  232,  0,    0,  0,  0xfa, 0xf0, 0,    1,    0,    0,
    };
    uint8_t buf[HF_TCP_FACTS_LEN_MAX];
    struct hf_tcp_facts f = facts(HF_TCP_FACT_SACK | HF_TCP_FACT_TS);
    assert_int_equal(encode(buf, sizeof(buf), &f), sizeof(want));
    assert_memory_equal(buf, want, sizeof(want));
}

static void there_and_back(void **state)
{
    (void)state;
    for (unsigned flags = 0; flags < 256; flags++) {
        uint8_t a[HF_TCP_FACTS_LEN_MAX], b[HF_TCP_FACTS_LEN_MAX];
        struct hf_tcp_facts f = facts((uint8_t)flags), g;
        if (flags & 1) {
            f.local = (struct hf_endpoint){.family = HF_AF_INET6, .addr = {0xfd}, .port = 1};
            f.peer = (struct hf_endpoint){.family = HF_AF_INET6, .addr = {0xfe}, .port = 65535};
        }
        size_t n = encode(a, sizeof(a), &f);
        assert_int_equal(n, flags & 1 ? HF_TCP_FACTS_LEN_MAX : HF_TCP_FACTS_LEN_MAX - 24);
        assert_int_equal(decode_exact(a, n, &g), 0);
        assert_int_equal(encode(b, sizeof(b), &g), n);
        assert_memory_equal(a, b, n);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(decode_exact(a, k, &g), -HF_ETRUNC);
            assert_int_equal(encode(b, k, &f), 0);
        }
    }
}

static void refused(void **state)
{
    (void)state;
    struct hf_tcp_facts f, good = facts(0);
    static const struct {
        uint8_t at, value;
    } bad[] = {
        {0, 2},   {1, 5},   {1, 0},  {6, 0},  {12, 0},    {22, 0},
        {24, 15}, {25, 15}, {26, 0}, {27, 1}, {32, 0x80},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        uint8_t p[HF_TCP_FACTS_LEN_MAX];
        size_t n = encode(p, sizeof(p), &good);
        p[bad[i].at] = bad[i].value;
        if (bad[i].at == 6 || bad[i].at == 12) { /* ports */
            p[bad[i].at + 1] = 0;
        }
        if (bad[i].at == 22) { /* mss */
            p[23] = 47;
        }
        int rc = decode_exact(p, n, &f);
        assert_int_not_equal(rc, 0);
        assert_true((rc == -HF_EVERSION) == (bad[i].at == 0));
    }
}

static struct hf_tcp_segment syn(void)
{
    return (struct hf_tcp_segment){.src = facts(0).peer,
                                   .dst = facts(0).local,
                                   .seq = 1000,
                                   .flags = HF_TCP_SYN | HF_TCP_ECE | HF_TCP_CWR,
                                   .window = 64240,
                                   .has_mss = true,
                                   .mss = 1460,
                                   .has_wscale = true,
                                   .wscale = 7,
                                   .sack_permitted = true,
                                   .has_ts = true,
                                   .tsval = 77};
}

static struct hf_tcp_segment syn_ack(void)
{
    struct hf_tcp_segment s = syn();
    s.src = facts(0).local;
    s.dst = facts(0).peer;
    s.seq = 0xfffffffd;
    s.ack = 1001;
    s.flags = HF_TCP_SYN | HF_TCP_ACK | HF_TCP_ECE;
    s.window = 65160;
    s.wscale = 10;
    s.tsval = 5000;
    s.mss = 9000; /* what we take, no fact for who sends */
    return s;
}

static void handshake(void **state)
{
    (void)state;
    struct hf_tcp_segment a = syn(), b = syn_ack();
    struct hf_tcp_facts f;
    assert_int_equal(hf_tcp_facts_handshake(&a, &b, HF_S(100), &f), 0);
    assert_true(f.snd_isn == 0xfffffffd && f.rcv_isn == 1000 && f.mss == 1460);
    assert_true(f.snd_wscale == 7 && f.rcv_wscale == 10 && f.tsval == 5000);
    assert_true(f.ts_at == HF_S(100) && f.snd_wnd == 64240 && f.rcv_wnd == 65160);
    assert_int_equal(f.flags, HF_TCP_FACT_SACK | HF_TCP_FACT_TS | HF_TCP_FACT_WSCALE |
                                  HF_TCP_FACT_ECN | HF_TCP_FACT_EMBRYO);
    assert_true(hf_endpoint_eq(&f.local, &b.src) && hf_endpoint_eq(&f.peer, &a.src));
    b.has_wscale = b.sack_permitted = b.has_ts = a.has_mss = false; /* what one did not offer */
    b.flags &= (uint8_t)~HF_TCP_ECE;
    assert_int_equal(hf_tcp_facts_handshake(&a, &b, 0, &f), 0);
    assert_int_equal(f.flags, HF_TCP_FACT_EMBRYO);
    assert_true(f.snd_wscale == 0 && f.rcv_wscale == 0 && f.mss == HF_TCP_MSS_DEFAULT);
    struct hf_tcp_segment wrong[] = {b, b, b, a};
    wrong[0].ack++;
    wrong[1].dst.port++;
    wrong[2].src.addr[3]++;
    for (size_t i = 0; i < HF_ARRAY_LEN(wrong); i++) {
        assert_int_equal(hf_tcp_facts_handshake(&a, &wrong[i], 0, &f), -HF_EVALUE);
    }
    assert_int_equal(hf_tcp_facts_handshake(&b, &b, 0, &f), -HF_EVALUE);
}

static void places(void **state)
{
    (void)state;
    struct hf_tcp_facts f = facts(0);
    uint64_t tx = 99;
    assert_int_equal(hf_tcp_snd_seq(&f, 0), 0xfffffffe);
    assert_int_equal(hf_tcp_snd_seq(&f, 2), 0); /* around */
    assert_int_equal(hf_tcp_snd_seq(&f, (5ull << 32) + 2), 0);
    assert_int_equal(hf_tcp_rcv_nxt(&f, 10), 1011);
    assert_true(hf_tcp_acked(&f, 0, 0, 10, &tx) && tx == 2);
    assert_true(hf_tcp_acked(&f, 0, 5ull << 32, (5ull << 32) + 2, &tx) && tx == (5ull << 32) + 2);
    assert_false(hf_tcp_acked(&f, 9, 0, 10, &tx));          /* 11 of 10 */
    assert_false(hf_tcp_acked(&f, 0xfffffffd, 0, 10, &tx)); /* before the first */
    f.flags |= HF_TCP_FACT_EOF | HF_TCP_FACT_CLOSING;
    assert_int_equal(hf_tcp_rcv_nxt(&f, 10), 1012);
    assert_true(hf_tcp_acked(&f, 9, 0, 10, &tx) && tx == 11); /* our FIN */
    assert_false(hf_tcp_acked(&f, 10, 0, 10, &tx));
}

static void clocks(void **state)
{
    (void)state;
    struct hf_tcp_facts f = facts(0);
    assert_int_equal(hf_tcp_tsval(&f, HF_S(100)), 5010); /* the margin */
    assert_int_equal(hf_tcp_tsval(&f, HF_S(101)), 6010);
    assert_int_equal(hf_tcp_tsval(&f, HF_S(1)), 5010); /* never back */
    f.tsval = UINT32_MAX;
    assert_int_equal(hf_tcp_tsval(&f, HF_S(100)), 9);
    f = facts(HF_TCP_FACT_TS_USEC);
    assert_int_equal(hf_tcp_tsval(&f, HF_S(101)), 5000 + 1010000);
    assert_int_equal(hf_tcp_window_field(&f), 64);
    f.rcv_wscale = 0;
    assert_int_equal(hf_tcp_window_field(&f), 65535);
}

static struct hf_tcp_segment built(void (*fn)(struct hf_wr *, const struct hf_tcp_facts *, uint64_t,
                                              uint64_t, hf_time),
                                   const struct hf_tcp_facts *f,
                                   uint8_t buf[HF_TCP_HEADERS_MAX + 1])
{
    struct hf_wr w;
    struct hf_slice s;
    struct hf_tcp_segment seg;
    hf_wr_init(&w, buf, HF_TCP_HEADERS_MAX + 1);
    fn(&w, f, 50, 10, HF_S(100));
    assert_int_equal(hf_wr_end(&w, &s), 0);
    assert_true(hf_tcp_checksums_ok(s));
    assert_int_equal(hf_tcp_segment_parse(s, &seg), 0);
    assert_true(hf_endpoint_eq(&seg.src, &f->local) && hf_endpoint_eq(&seg.dst, &f->peer));
    return seg;
}

static void build_challenge(struct hf_wr *w, const struct hf_tcp_facts *f, uint64_t tx_una,
                            uint64_t rx_total, hf_time now)
{
    (void)tx_una;
    (void)rx_total;
    hf_tcp_build_challenge(w, f, now);
}

static void build_data(struct hf_wr *w, const struct hf_tcp_facts *f, uint64_t tx,
                       uint64_t rx_total, hf_time now)
{
    hf_tcp_build_data(w, f, tx, hf_slice("y", 1), rx_total, now);
}

static void raw_segments(void **state)
{
    (void)state;
    uint8_t buf[HF_TCP_HEADERS_MAX + 1];
    struct hf_tcp_facts f = facts(HF_TCP_FACT_TS);
    struct hf_tcp_segment seg = built(hf_tcp_build_probe, &f, buf);
    assert_int_equal(seg.seq, hf_tcp_snd_seq(&f, 49)); /* one byte that the peer has */
    assert_true(seg.ack == 1011 && seg.payload.n == 1 && seg.flags == (HF_TCP_ACK | HF_TCP_PSH));
    assert_true(seg.has_ts && seg.tsval == 5010 && seg.tsecr == 0);
    seg = built(hf_tcp_build_ack, &f, buf);
    assert_int_equal(seg.seq, hf_tcp_snd_seq(&f, 50)); /* in sequence */
    assert_true(seg.ack == 1011 && seg.payload.n == 0 && seg.flags == HF_TCP_ACK);
    assert_int_equal(seg.window, 64);
    seg = built(build_data, &f, buf);
    assert_int_equal(seg.seq, hf_tcp_snd_seq(&f, 50));
    assert_true(seg.ack == 1011 && seg.payload.n == 1 && *seg.payload.p == 'y' && seg.has_ts);
    seg = built(build_challenge, &f, buf);
    assert_int_equal(seg.seq, hf_tcp_snd_seq(&f, 0) - 1); /* the peer has had that */
    assert_true(seg.ack == hf_tcp_rcv_nxt(&f, 0) && seg.payload.n == 0 && seg.flags == HF_TCP_ACK);
    f.flags &= (uint8_t)~HF_TCP_FACT_TS;
    assert_false(built(hf_tcp_build_ack, &f, buf).has_ts);
}

static enum hf_tcp_answer answer(const struct hf_tcp_facts *f, const struct hf_tcp_segment *seg,
                                 uint64_t *ret_tx, uint32_t *ret_wnd)
{
    return hf_tcp_read_answer(f, seg, 50, 60, 10, ret_tx, ret_wnd);
}

static void answers(void **state)
{
    (void)state;
    struct hf_tcp_facts f = facts(HF_TCP_FACT_SACK);
    uint64_t tx = 0;
    uint32_t wnd = 0, probe = hf_tcp_snd_seq(&f, 49);
    struct hf_tcp_segment seg = {.src = f.peer,
                                 .dst = f.local,
                                 .flags = HF_TCP_ACK,
                                 .seq = 1011,
                                 .ack = hf_tcp_snd_seq(&f, 55),
                                 .window = 100};
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_OLDER);
    assert_true(tx == 55 && wnd == 12800);
    seg.n_sack = 1;
    seg.sack[0] = (struct hf_tcp_sack_block){probe, probe + 1};
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_EXACT);
    seg.ack = hf_tcp_snd_seq(&f, 61); /* bytes that we have not: I4 was broken */
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_BEYOND);
    seg.n_sack = 0;
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_NONE);
    seg.ack = hf_tcp_snd_seq(&f, 60); /* all there is: cannot be older */
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_EXACT);
    f.flags |= HF_TCP_FACT_CLOSING; /* our FIN is missing */
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_OLDER);
    seg.ack++;
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_EXACT);
    assert_int_equal(tx, 61);
    seg.flags = HF_TCP_RST;
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_GONE);
    seg.seq++; /* blind */
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_NONE);
    seg.flags = HF_TCP_PSH;
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_NONE);
    seg.flags = HF_TCP_ACK | HF_TCP_SYN;
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_NONE);
    seg.flags = HF_TCP_ACK;
    seg.src.port++;
    assert_int_equal(answer(&f, &seg, &tx, &wnd), HF_TCP_ANSWER_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(golden), HF_TEST(there_and_back), HF_TEST(refused), HF_TEST(handshake),
        HF_TEST(places), HF_TEST(clocks),         HF_TEST(answers), HF_TEST(raw_segments),
    };
    return cmocka_run_group_tests_name("codec/tcp_facts", tests, NULL, NULL);
}
