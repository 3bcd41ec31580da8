/* base/rd and base/wr: edges, sticky errors, truncation at every length. */
#include "base/err.h"
#include "base/rd.h"
#include "base/wr.h"
#include "support/test.h"

static size_t encode_all(uint8_t *buf, size_t n)
{
    struct hf_wr w;
    hf_wr_init(&w, buf, n);
    hf_wr_u8(&w, 0x01);
    hf_wr_u16(&w, 0x0203);
    hf_wr_u32(&w, 0x04050607);
    hf_wr_u64(&w, 0x08090a0b0c0d0e0fULL);
    hf_wr_str8(&w, hf_slice_str("ab"));
    hf_wr_str16(&w, hf_slice_str("cde"));
    hf_wr_str32(&w, hf_slice_str("f"));
    struct hf_slice s;
    return hf_wr_end(&w, &s) == 0 ? s.n : 0;
}

static int decode_all(struct hf_slice in)
{
    struct hf_rd r;
    hf_rd_init(&r, in);
    bool ok = hf_rd_u8(&r) == 0x01;
    ok = hf_rd_u16(&r) == 0x0203 && ok;
    ok = hf_rd_u32(&r) == 0x04050607 && ok;
    ok = hf_rd_u64(&r) == 0x08090a0b0c0d0e0fULL && ok;
    ok = hf_slice_eq(hf_rd_str8(&r, 2), hf_slice_str("ab")) && ok;
    ok = hf_slice_eq(hf_rd_str16(&r, 3), hf_slice_str("cde")) && ok;
    ok = hf_slice_eq(hf_rd_str32(&r, 1), hf_slice_str("f")) && ok;
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        assert_true(ok);
    }
    return rc;
}

static void round_trip_and_every_truncation(void **state)
{
    (void)state;
    uint8_t buf[64];
    size_t n = encode_all(buf, sizeof(buf));
    assert_int_equal(n, 1 + 2 + 4 + 8 + 3 + 5 + 5);
    assert_int_equal(decode_all(hf_slice(buf, n)), 0);
    for (size_t len = 0; len < n; len++) {
        uint8_t *exact = malloc(len ? len : 1); /* exact size: the sanitizer sees any step beyond */
        memcpy(exact, buf, len);
        assert_int_equal(decode_all(hf_slice(exact, len)), -HF_ETRUNC);
        free(exact);
    }
    buf[n] = 0;
    assert_int_equal(decode_all(hf_slice(buf, n + 1)), -HF_ETRAIL);
}

static void words(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        int rc;
    } cases[] = {{"\2ab", 3, 0},         {"\3abc", 4, -HF_EMALF}, {"\0", 1, -HF_EMALF},
                 {"\2a ", 3, -HF_EMALF}, {"\2a", 2, -HF_ETRUNC},  {"", 0, -HF_ETRUNC}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct hf_rd r;
        hf_rd_init(&r, hf_slice(cases[i].bytes, cases[i].n));
        struct hf_slice s = hf_rd_word(&r, 2);
        assert_int_equal(r.err, cases[i].rc);
        assert_true(r.err || hf_slice_eq(s, hf_slice_str("ab")));
    }
}

static void writer_fails_at_every_smaller_room(void **state)
{
    (void)state;
    uint8_t big[64];
    size_t n = encode_all(big, sizeof(big));
    for (size_t room = 0; room < n; room++) {
        uint8_t *exact = malloc(room ? room : 1);
        assert_int_equal(encode_all(exact, room), 0);
        free(exact);
    }
}

static void reads_after_an_error_are_zero(void **state)
{
    (void)state;
    const uint8_t three[] = {1, 2, 3};
    struct hf_rd r;
    hf_rd_init(&r, hf_slice(three, sizeof(three)));
    assert_int_equal(hf_rd_u32(&r), 0);
    assert_int_equal(hf_rd_u8(&r), 0);
    assert_int_equal(hf_rd_left(&r), 0);
    uint8_t dst[2] = {9, 9};
    hf_rd_copy(&r, dst, 2);
    assert_int_equal(dst[0] | dst[1], 0);
    hf_rd_fail(&r, -HF_EMALF);
    assert_int_equal(hf_rd_end(&r), -HF_ETRUNC);
}

static void a_bool_is_0_or_1(void **state)
{
    (void)state;
    const uint8_t in[] = {0, 1, 2};
    struct hf_rd r;
    hf_rd_init(&r, hf_slice(in, sizeof(in)));
    assert_false(hf_rd_bool(&r));
    assert_true(hf_rd_bool(&r));
    (void)hf_rd_bool(&r);
    assert_int_equal(hf_rd_end(&r), -HF_EMALF);
    assert_false(hf_rd_bool(&r));
}

static void huge_lengths_do_not_wrap(void **state)
{
    (void)state;
    const uint8_t in[] = {0xff, 0xff, 0xff, 0xff, 'x'};
    struct hf_rd r;
    hf_rd_init(&r, hf_slice(in, sizeof(in)));
    struct hf_slice s = hf_rd_str32(&r, SIZE_MAX);
    assert_int_equal(s.n, 0);
    assert_int_equal(hf_rd_end(&r), -HF_ETRUNC);
    hf_rd_init(&r, hf_slice(in, sizeof(in)));
    assert_int_equal(hf_rd_bytes(&r, SIZE_MAX).n, 0);
    hf_rd_init(&r, hf_slice(in, sizeof(in)));
    assert_int_equal(hf_rd_str32(&r, 4).n, 0);
    assert_int_equal(hf_rd_end(&r), -HF_EMALF);
    hf_rd_init(&r, hf_slice(NULL, 0));
    assert_int_equal(hf_rd_end(&r), 0);
}

static void patch_and_back(void **state)
{
    (void)state;
    uint8_t buf[8];
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    size_t mark = hf_wr_len(&w);
    hf_wr_u16(&w, 0);
    hf_wr_u32(&w, 7);
    hf_wr_patch_u16(&w, mark, 0xabcd);
    size_t undo = hf_wr_len(&w);
    hf_wr_u64(&w, 1);
    struct hf_slice s;
    assert_int_equal(hf_wr_end(&w, &s), -HF_EFULL);
    hf_wr_back(&w, undo);
    assert_int_equal(hf_wr_end(&w, &s), 0);
    assert_int_equal(s.n, 6);
    assert_int_equal(buf[0], 0xab);
    hf_wr_init(&w, buf, sizeof(buf));
    hf_wr_u64(&w, 0);
    hf_wr_patch_u64(&w, 0, 0x0102030405060708ULL);
    hf_wr_patch_u32(&w, 0, 0x0a0b0c0d);
    assert_memory_equal(buf, "\x0a\x0b\x0c\x0d\x05\x06\x07\x08", 8);
    char long_name[300];
    memset(long_name, 'x', sizeof(long_name));
    uint8_t room[400];
    hf_wr_init(&w, room, sizeof(room));
    hf_wr_str8(&w, hf_slice(long_name, 256));
    assert_int_equal(hf_wr_end(&w, &s), -HF_EFULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(words),
        HF_TEST(round_trip_and_every_truncation),
        HF_TEST(writer_fails_at_every_smaller_room),
        HF_TEST(a_bool_is_0_or_1),
        HF_TEST(reads_after_an_error_are_zero),
        HF_TEST(huge_lengths_do_not_wrap),
        HF_TEST(patch_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
