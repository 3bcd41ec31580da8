/* codec/tcp_segment: packets there and back, cut at each length, odd options, checksums. */
#include "codec/tcp_segment.h"

#include "base/err.h"
#include "support/test.h"

/* A SYN as Linux sends it, checksums computed by other code than ours. */
static const uint8_t syn4[] = {
    0x45, 0x00, 0x00, 0x3c, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x06, 0x09, 0x73, 0x0a, 0x4f, 0x00,
    0x02, 0x0a, 0x4f, 0x00, 0x64, 0xb2, 0x6e, 0x15, 0x38, 0x65, 0x43, 0x21, 0x01, 0x00, 0x00,
    0x00, 0x00, 0xa0, 0x02, 0xfa, 0xf0, 0xa5, 0xba, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x04,
    0x02, 0x08, 0x0a, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0x00, 0x01, 0x03, 0x03, 0x07,
};

static struct hf_endpoint v4(uint8_t last, uint16_t port)
{
    return (struct hf_endpoint){.family = HF_AF_INET, .addr = {10, 79, 0, last}, .port = port};
}

static struct hf_endpoint v6(uint8_t last, uint16_t port)
{
    struct hf_endpoint e = {.family = HF_AF_INET6, .addr = {0xfd, 0x79}, .port = port};
    e.addr[15] = last;
    return e;
}

static size_t build(uint8_t *buf, size_t n, const struct hf_tcp_segment *seg)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    hf_tcp_segment_build(&w, seg);
    return hf_wr_end(&w, &s) == 0 ? s.n : 0;
}

static int parse_exact(const uint8_t *p, size_t n)
{
    struct hf_tcp_segment seg;
    uint8_t *exact = malloc(n ? n : 1); /* exact size: the sanitizer sees any step beyond */
    memcpy(exact, p, n);
    int rc = hf_tcp_segment_parse(hf_slice(exact, n), &seg);
    free(exact);
    return rc;
}

static void real_syn(void **state)
{
    (void)state;
    struct hf_tcp_segment seg;
    uint8_t again[HF_TCP_HEADERS_MAX];
    struct hf_endpoint client = v4(2, 45678), server = v4(100, 5432);
    assert_int_equal(hf_tcp_segment_parse(hf_slice(syn4, sizeof(syn4)), &seg), 0);
    assert_true(hf_endpoint_eq(&seg.src, &client) && hf_endpoint_eq(&seg.dst, &server));
    assert_int_equal(seg.seq, 0x65432101);
    assert_int_equal(seg.flags, HF_TCP_SYN);
    assert_int_equal(seg.window, 64240);
    assert_true(seg.has_mss && seg.mss == 1460 && seg.sack_permitted);
    assert_true(seg.has_ts && seg.tsval == 0x11223344 && seg.tsecr == 0);
    assert_true(seg.has_wscale && seg.wscale == 7);
    assert_int_equal(seg.payload.n, 0);
    assert_true(hf_tcp_checksums_ok(hf_slice(syn4, sizeof(syn4))));
    /* the same options in the same order: only the identification, which is 0, differs */
    assert_int_equal(build(again, sizeof(again), &seg), sizeof(syn4));
    assert_memory_equal(again + 20, syn4 + 20, sizeof(syn4) - 20);
    assert_true(hf_tcp_checksums_ok(hf_slice(again, sizeof(syn4))));
    for (size_t n = 0; n < sizeof(syn4); n++) {
        assert_int_not_equal(parse_exact(syn4, n), 0);
    }
}

static void same(const struct hf_tcp_segment *a, const struct hf_tcp_segment *b)
{
    assert_true(hf_endpoint_eq(&a->src, &b->src) && hf_endpoint_eq(&a->dst, &b->dst));
    assert_true(a->seq == b->seq && a->ack == b->ack && a->flags == b->flags);
    assert_true(a->window == b->window && a->has_mss == b->has_mss && a->mss == b->mss);
    assert_true(a->has_wscale == b->has_wscale && a->wscale == b->wscale);
    assert_true(a->sack_permitted == b->sack_permitted && a->has_ts == b->has_ts);
    assert_true(a->tsval == b->tsval && a->tsecr == b->tsecr && a->n_sack == b->n_sack);
    for (size_t i = 0; i < a->n_sack; i++) {
        assert_true(a->sack[i].left == b->sack[i].left && a->sack[i].right == b->sack[i].right);
    }
    assert_true(hf_slice_eq(a->payload, b->payload));
}

static void there_and_back(void **state)
{
    (void)state;
    struct hf_slice data = hf_slice_str("odd bytes");
    const struct hf_tcp_segment segs[] = {
        {.src = v4(1, 1), .dst = v4(2, 2), .flags = HF_TCP_ACK, .seq = 1, .ack = 2, .window = 3},
        {.src = v6(1, 1), .dst = v6(2, 2), .flags = HF_TCP_ACK, .payload = data},
        {.src = v6(1, 1), .dst = v6(2, 2), .flags = HF_TCP_SYN, .has_mss = true, .mss = 1440},
        {.src = v4(1, 1), .dst = v4(2, 2), .flags = HF_TCP_SYN, .sack_permitted = true},
        {.src = v4(1, 1), .dst = v4(2, 2), .flags = HF_TCP_SYN, .has_wscale = true, .wscale = 14},
        {.src = v4(1, 1),
         .dst = v4(2, 2),
         .flags = HF_TCP_ACK | HF_TCP_FIN,
         .has_ts = true,
         .tsval = 5,
         .tsecr = 6,
         .n_sack = 3,
         .sack = {{1, 2}, {3, 4}, {5, 6}},
         .payload = data},
        {.src = v6(1, 1), .dst = v6(2, 2), .n_sack = 4, .sack = {{1, 2}, {3, 4}, {5, 6}, {7, 8}}},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(segs); i++) {
        uint8_t buf[HF_TCP_HEADERS_MAX + 16];
        struct hf_tcp_segment seg;
        size_t n = build(buf, sizeof(buf), &segs[i]);
        assert_true(n > 0 && hf_tcp_checksums_ok(hf_slice(buf, n)));
        assert_int_equal(hf_tcp_segment_parse(hf_slice(buf, n), &seg), 0);
        same(&seg, &segs[i]);
        for (size_t k = 0; k < n; k++) {
            assert_int_not_equal(parse_exact(buf, k), 0);
            assert_int_equal(build(buf + sizeof(buf) - k, k, &segs[i]), 0);
            (void)build(buf, sizeof(buf), &segs[i]);
        }
        buf[n - 1] ^= 1;
        assert_false(hf_tcp_checksums_ok(hf_slice(buf, n)));
    }
}

static void what_does_not_fit(void **state)
{
    (void)state;
    uint8_t buf[HF_TCP_HEADERS_MAX];
    struct hf_tcp_segment seg = {.src = v4(1, 1), .dst = v4(2, 2), .has_ts = true, .n_sack = 4};
    struct hf_tcp_segment back;
    size_t n = build(buf, sizeof(buf), &seg);
    assert_int_equal(hf_tcp_segment_parse(hf_slice(buf, n), &back), 0);
    assert_int_equal(back.n_sack, 3); /* beside timestamps there is room for three */
    seg.dst = v6(2, 2);
    assert_int_equal(build(buf, sizeof(buf), &seg), 0); /* two families */
    uint8_t *large = calloc(1, 70000);
    seg = (struct hf_tcp_segment){.src = v4(1, 1), .dst = v4(2, 2)};
    seg.payload = hf_slice(large, 65535 - 40);
    uint8_t *out = malloc(80000);
    assert_int_equal(build(out, 80000, &seg), 65535);
    seg.payload.n++;
    assert_int_equal(build(out, 80000, &seg), 0);
    free(large);
    free(out);
}

static void refused(void **state)
{
    (void)state;
    uint8_t p[sizeof(syn4)];
    static const struct {
        uint8_t at, value;
    } bad[] = {
        {0, 0x44}, {0, 0x55},  {3, 0x13}, {9, 17},   {6, 0x20},
        {7, 0x01}, {32, 0x40}, {3, 0x3d}, {0, 0x4f}, {32, 0xb0},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        memcpy(p, syn4, sizeof(p));
        p[bad[i].at] = bad[i].value;
        assert_int_not_equal(parse_exact(p, sizeof(p)), 0);
        assert_int_equal(hf_tcp_of_packet(hf_slice(p, sizeof(p))).n, 0);
    }
    assert_int_equal(hf_tcp_segment_parse(hf_slice(NULL, 0), &(struct hf_tcp_segment){0}),
                     -HF_ETRUNC);
}

static void odd_options(void **state)
{
    (void)state;
    uint8_t p[sizeof(syn4)];
    struct hf_tcp_segment seg;
    memcpy(p, syn4, sizeof(p));
    p[59] = 15; /* a larger scale than there is means 14 (RFC 7323 2.3) */
    assert_int_equal(hf_tcp_segment_parse(hf_slice(p, sizeof(p)), &seg), 0);
    assert_int_equal(seg.wscale, HF_TCP_WSCALE_MAX);
    p[41] = 0; /* length 0: the options end there */
    assert_int_equal(hf_tcp_segment_parse(hf_slice(p, sizeof(p)), &seg), 0);
    assert_false(seg.has_mss || seg.has_ts);
    memcpy(p, syn4, sizeof(p));
    p[40] = 253; /* unknown: passed over */
    assert_int_equal(hf_tcp_segment_parse(hf_slice(p, sizeof(p)), &seg), 0);
    assert_true(!seg.has_mss && seg.has_ts);
    p[40] = 0; /* end of options */
    assert_int_equal(hf_tcp_segment_parse(hf_slice(p, sizeof(p)), &seg), 0);
    assert_false(seg.has_ts);
}

static void captured(void **state)
{
    (void)state;
    uint8_t p[sizeof(syn4) + 6] = {0}, out[HF_TCP_HEADERS_MAX];
    struct hf_wr w;
    struct hf_slice s;
    struct hf_endpoint src = v4(2, 45678), dst = v4(100, 5432), other = v6(100, 5432);
    memcpy(p, syn4, sizeof(syn4));
    p[36] = p[37] = 0x55; /* unfinished, as on virtual links; padding behind */
    assert_false(hf_tcp_checksums_ok(hf_slice(p, sizeof(p))));
    struct hf_slice tcp = hf_tcp_of_packet(hf_slice(p, sizeof(p)));
    assert_int_equal(tcp.n, 40);
    hf_wr_init(&w, out, sizeof(out));
    hf_tcp_wrap(&w, &src, &dst, tcp);
    assert_int_equal(hf_wr_end(&w, &s), 0);
    assert_true(s.n == sizeof(syn4) && hf_tcp_checksums_ok(s));
    assert_memory_equal(out + 20, syn4 + 20, sizeof(syn4) - 20);
    hf_wr_init(&w, out, sizeof(out));
    hf_tcp_wrap(&w, &src, &other, tcp);
    assert_int_equal(hf_wr_end(&w, &s), -HF_EFULL);
    hf_wr_init(&w, out, sizeof(out));
    hf_tcp_wrap(&w, &src, &dst, hf_slice(tcp.p, 19));
    assert_int_equal(hf_wr_end(&w, &s), -HF_EFULL);
}

static void without_ip_header(void **state)
{
    (void)state;
    struct hf_tcp_segment seg;
    struct hf_endpoint src = v6(2, 0), dst = v6(100, 0);
    struct hf_slice tcp = hf_slice(syn4 + 20, 40);
    assert_int_equal(hf_tcp_segment_parse_tcp(&src, &dst, tcp, &seg), 0);
    assert_true(seg.src.port == 45678 && seg.dst.port == 5432 && seg.mss == 1460);
    for (size_t n = 0; n < tcp.n; n++) {
        assert_int_not_equal(hf_tcp_segment_parse_tcp(&src, &dst, hf_slice(tcp.p, n), &seg), 0);
    }
}

static void sequence(void **state)
{
    (void)state;
    assert_true(hf_tcp_before(1, 2) && !hf_tcp_before(2, 2) && !hf_tcp_before(3, 2));
    assert_true(hf_tcp_before(UINT32_MAX, 0) && hf_tcp_before(0xfffffff0, 0x7fffffef));
    assert_false(hf_tcp_before(0, UINT32_MAX));
}

/* ICMP, with checksums that other code than ours has computed. */
static const uint8_t unreachable4[] = {
    0x45, 0x00, 0x00, 0x38, 0x00, 0x00, 0x40, 0x00, 0x40, 0x01, 0x25, 0xc2, 0x0a, 0x4f,
    0x00, 0x64, 0x0a, 0x4f, 0x00, 0x02, 0x03, 0x01, 0xaf, 0x12, 0x00, 0x00, 0x00, 0x00,
    0x45, 0x00, 0x00, 0x1c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x06, 0x25, 0xd9, 0x0a, 0x4f,
    0x00, 0x02, 0x0a, 0x4f, 0x00, 0x64, 0xb2, 0x6e, 0x15, 0x38, 0x65, 0x43, 0x21, 0x02,
};
static const uint8_t unreachable6[] = {
    0x60, 0x00, 0x00, 0x00, 0x00, 0x38, 0x3a, 0x40, 0xfd, 0x79, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x64, 0xfd, 0x79, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x01, 0x00, 0x53, 0xa5, 0x00, 0x00, 0x00, 0x00,
    0x60, 0x00, 0x00, 0x00, 0x00, 0x08, 0x06, 0x40, 0xfd, 0x79, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xfd, 0x79, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x64, 0xb2, 0x6e, 0x15, 0x38, 0x65, 0x43, 0x21, 0x02,
};

static void unreachable(void **state)
{
    (void)state;
    const struct {
        struct hf_endpoint host, peer;
        struct hf_slice want;
    } cases[] = {
        {v4(100, 5432), v4(2, 45678), hf_slice(unreachable4, sizeof(unreachable4))},
        {v6(100, 5432), v6(2, 45678), hf_slice(unreachable6, sizeof(unreachable6))},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(cases); i++) {
        uint8_t buf[HF_TCP_HEADERS_MAX];
        for (size_t room = 0; room <= sizeof(buf); room++) {
            struct hf_wr w;
            struct hf_slice s;
            hf_wr_init(&w, buf, room);
            hf_tcp_build_unreachable(&w, &cases[i].host, &cases[i].peer, 0x65432102);
            if (room < cases[i].want.n) {
                assert_int_equal(hf_wr_end(&w, &s), -HF_EFULL);
                continue;
            }
            assert_int_equal(hf_wr_end(&w, &s), 0);
            assert_int_equal(s.n, cases[i].want.n);
            assert_memory_equal(s.p, cases[i].want.p, s.n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(real_syn), HF_TEST(there_and_back),    HF_TEST(what_does_not_fit),
        HF_TEST(refused),  HF_TEST(odd_options),       HF_TEST(captured),
        HF_TEST(sequence), HF_TEST(without_ip_header), HF_TEST(unreachable),
    };
    return cmocka_run_group_tests_name("codec/tcp_segment", tests, NULL, NULL);
}
