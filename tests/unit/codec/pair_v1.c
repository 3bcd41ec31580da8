/* codec/pair_v1: every frame and operation there and back, cut at each length, and what is refused.
 */
#include "codec/pair_v1.h"

#include <string.h>

#include "base/err.h"
#include "support/test.h"

static size_t encode(uint8_t *buf, size_t n, const struct hf_pair_v1_frame *f)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    hf_pair_v1_encode(&w, f);
    return hf_wr_end(&w, &s) == 0 ? s.n : 0;
}

static int decode_exact(const uint8_t *p, size_t n, struct hf_pair_v1_frame *ret_frame)
{
    uint8_t *exact = malloc(n ? n : 1); /* exact size: the sanitizer sees any step beyond */
    memcpy(exact, p, n);
    int rc = hf_pair_v1_decode(hf_slice(exact, n), ret_frame);
    ret_frame->ops = hf_slice(NULL, 0);
    free(exact);
    return rc;
}

static struct hf_slice ops_of(uint8_t *buf, size_t n, const struct hf_pair_op *op, size_t n_ops)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    for (size_t i = 0; i < n_ops; i++) {
        hf_pair_op_encode_head(&w, &op[i]);
        hf_wr_bytes(&w, op[i].bytes);
    }
    assert_int_equal(hf_wr_end(&w, &s), 0);
    return s;
}

static const struct hf_pair_op every_op[] = {
    {.kind = HF_PAIR_PUT, .section = 3, .session = 7, .bytes = {(const uint8_t *)"abc", 3}},
    {.kind = HF_PAIR_APPEND, .session = UINT64_MAX, .bytes = {(const uint8_t *)"d", 1}},
    {.kind = HF_PAIR_CUT, .section = 15, .session = 7, .n = 2},
    {.kind = HF_PAIR_CLEAR, .section = 1, .session = 7},
    {.kind = HF_PAIR_SET,
     .session = 7,
     .name = {(const uint8_t *)"s1", 2},
     .bytes = {(const uint8_t *)"x", 1}},
    {.kind = HF_PAIR_EXTEND, .session = 7, .bytes = {(const uint8_t *)"yz", 2}},
    {.kind = HF_PAIR_UNSET, .session = 7, .name = {(const uint8_t *)"s1", 2}},
    {.kind = HF_PAIR_END, .session = 7},
};

static void operations(void **state)
{
    (void)state;
    uint8_t buf[256], one[64];
    struct hf_slice all = ops_of(buf, sizeof(buf), every_op, HF_ARRAY_LEN(every_op));
    struct hf_rd r;
    hf_rd_init(&r, all);
    for (size_t i = 0; i < HF_ARRAY_LEN(every_op); i++) {
        struct hf_pair_op op;
        const struct hf_pair_op *want = &every_op[i];
        hf_pair_op_decode(&r, &op);
        assert_int_equal(r.err, 0);
        assert_int_equal(op.kind, want->kind);
        assert_int_equal(op.section, want->section);
        assert_true(op.session == want->session && op.n == want->n);
        assert_true(hf_slice_eq(op.bytes, want->bytes) && hf_slice_eq(op.name, want->name));
        struct hf_slice s = ops_of(one, sizeof(one), &op, 1);
        for (size_t k = 0; k < s.n; k++) {
            struct hf_rd cut;
            hf_rd_init(&cut, hf_slice(one, k));
            hf_pair_op_decode(&cut, &op);
            assert_int_not_equal(cut.err, 0);
        }
    }
    assert_int_equal(hf_rd_end(&r), 0);
    static const struct hf_pair_op wrong[] = {
        {.kind = 0, .session = 1},
        {.kind = 9, .session = 1},
        {.kind = HF_PAIR_CLEAR, .session = 0},
        {.kind = HF_PAIR_CLEAR, .session = 1, .section = HF_PAIR_SECTIONS_MAX},
        {.kind = HF_PAIR_END, .session = 1, .section = 1},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(wrong); i++) {
        struct hf_pair_op op;
        hf_rd_init(&r, ops_of(one, sizeof(one), &wrong[i], 1));
        hf_pair_op_decode(&r, &op);
        assert_int_equal(r.err, -HF_EMALF);
    }
}

static void there_and_back(void **state)
{
    (void)state;
    uint8_t ops[256];
    struct hf_slice all = ops_of(ops, sizeof(ops), every_op, HF_ARRAY_LEN(every_op));
    const struct hf_pair_v1_frame frames[] = {
        {.type = HF_PAIR_V1_HELLO, .version_min = 1, .version = 3, .incarnation = 9},
        {.type = HF_PAIR_V1_WELCOME,
         .version = 1,
         .complete = true,
         .incarnation = 9,
         .number = 77},
        {.type = HF_PAIR_V1_SYNC, .number = 78},
        {.type = HF_PAIR_V1_BATCH, .number = 78, .more = true, .ops = all},
        {.type = HF_PAIR_V1_BATCH, .number = 79, .complete = true},
        {.type = HF_PAIR_V1_CONFIRM, .number = 79, .complete = true},
        {.type = HF_PAIR_V1_BEAT, .clock = 5, .echo = 4},
        {.type = HF_PAIR_V1_BYE, .code = -HF_EFULL},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(frames); i++) {
        uint8_t a[512], b[512];
        struct hf_pair_v1_frame f = frames[i];
        f.epoch = 0x1122334455667788;
        size_t n = encode(a, sizeof(a), &f), whole = 0;
        assert_true(n > 0);
        assert_int_equal(hf_pair_v1_frame_len(hf_slice(a, n), &whole), 0);
        assert_int_equal(whole, n);
        assert_int_equal(hf_pair_v1_frame_len(hf_slice(a, HF_PAIR_V1_HEAD_LEN - 1), &whole), 0);
        assert_int_equal(whole, 0);
        assert_int_equal(hf_pair_v1_decode(hf_slice(a, n), &f), 0);
        assert_true(f.epoch == 0x1122334455667788 && f.number == frames[i].number);
        assert_true(f.code == frames[i].code && f.complete == frames[i].complete);
        assert_int_equal(encode(b, sizeof(b), &f), n);
        assert_memory_equal(a, b, n);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(decode_exact(a, k, &f), -HF_ETRUNC);
            assert_int_equal(encode(b, k, &frames[i]), 0);
        }
        a[n] = 0;
        assert_int_equal(decode_exact(a, n + 1, &f), -HF_ETRAIL);
        assert_non_null(hf_pair_v1_type_name(frames[i].type));
    }
    assert_null(hf_pair_v1_type_name(99));
}

static void refused(void **state)
{
    (void)state;
    uint8_t a[64];
    size_t whole;
    struct hf_pair_v1_frame f, beat = {.type = HF_PAIR_V1_BEAT};
    size_t n = encode(a, sizeof(a), &beat);
    a[5] = 1; /* a flag where there is none */
    assert_int_equal(decode_exact(a, n, &f), -HF_EMALF);
    a[5] = 0;
    a[6] ^= 1; /* the magic */
    assert_int_equal(decode_exact(a, n, &f), -HF_EMALF);
    assert_int_equal(hf_pair_v1_frame_len(hf_slice(a, n), &whole), -HF_EMALF);
    a[6] ^= 1;
    a[0] = 1; /* too long */
    assert_int_equal(hf_pair_v1_frame_len(hf_slice(a, n), &whole), -HF_EMALF);
    assert_int_equal(decode_exact(a, n, &f), -HF_EMALF);
    memset(a, 0, 4); /* shorter than a head */
    assert_int_equal(hf_pair_v1_frame_len(hf_slice(a, n), &whole), -HF_EMALF);
    static const struct hf_pair_v1_frame wrong[] = {
        {.type = HF_PAIR_V1_HELLO, .version_min = 0, .version = 1, .incarnation = 1},
        {.type = HF_PAIR_V1_HELLO, .version_min = 2, .version = 1, .incarnation = 1},
        {.type = HF_PAIR_V1_HELLO, .version_min = 1, .version = 1},
        {.type = HF_PAIR_V1_SYNC},
        {.type = HF_PAIR_V1_BATCH},
        {.type = HF_PAIR_V1_BATCH, .number = 1, .more = true, .complete = true},
        {.type = 99},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(wrong); i++) {
        n = encode(a, sizeof(a), &wrong[i]);
        assert_int_equal(decode_exact(a, n, &f), -HF_EMALF);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(operations),
        HF_TEST(there_and_back),
        HF_TEST(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
