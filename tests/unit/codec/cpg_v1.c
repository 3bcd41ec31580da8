/* codec/cpg_v1: every message there and back, cut at each length, each byte wrong, and refused
 * ones.
 */
#include "codec/cpg_v1.h"

#include "base/err.h"
#include "support/test.h"

static size_t encode(uint8_t *buf, size_t n, const struct hf_cpg_v1_frame *f)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    hf_cpg_v1_encode(&w, f);
    return hf_wr_end(&w, &s) == 0 ? s.n : 0;
}

static int decode_exact(const uint8_t *p, size_t n, struct hf_cpg_v1_frame *ret_frame)
{
    uint8_t *exact = malloc(n ? n : 1); /* exact size: the sanitizer sees any step beyond */
    memcpy(exact, p, n);
    int rc = hf_cpg_v1_decode(hf_slice(exact, n), ret_frame);
    free(exact);
    return rc;
}

static void check(const struct hf_cpg_v1_frame *want)
{
    static uint8_t a[HF_CPG_V1_FRAME_MAX + 1], b[HF_CPG_V1_FRAME_MAX];
    struct hf_cpg_v1_frame f;
    size_t n = encode(a, HF_CPG_V1_FRAME_MAX, want);
    assert_true(n > 0);
    assert_int_equal(hf_cpg_v1_decode(hf_slice(a, n), &f), 0);
    assert_int_equal(f.kind, want->kind);
    assert_int_equal(f.ring, want->ring);
    assert_int_equal(f.nonce, want->nonce);
    assert_int_equal(f.n, want->n);
    assert_true(hf_slice_eq(f.data, want->data) && hf_slice_eq(f.host, want->host));
    assert_int_equal(encode(b, sizeof(b), &f), n);
    assert_memory_equal(a, b, n);
    for (size_t k = 0; k < n; k++) {
        assert_int_not_equal(decode_exact(a, k, &f), 0);
        assert_int_equal(encode(b, k, want), 0);
        a[k] ^= 0x10;
        assert_int_not_equal(decode_exact(a, n, &f), 0);
        a[k] ^= 0x10;
    }
    a[n] = 0;
    assert_int_not_equal(decode_exact(a, n + 1, &f), 0);
    assert_non_null(hf_cpg_v1_kind_name(want->kind));
}

static void there_and_back(void **state)
{
    (void)state;
    static const uint8_t data[HF_CPG_V1_DATA_MAX];
    struct hf_slice a = hf_slice_str("alpha"), b = hf_slice_str("beta");
    const struct hf_cpg_v1_frame frames[] = {
        {.kind = HF_CPG_V1_MSG, .data = b},
        {.kind = HF_CPG_V1_MSG, .data = hf_slice(data, sizeof(data))},
        {.kind = HF_CPG_V1_HELLO, .rep = 1, .ring = 4, .nonce = 3, .host = a},
        {.kind = HF_CPG_V1_STATE, .rep = 1, .ring = 4, .n = 2, .member = {{1, 9, a}, {2, 7, b}}},
        {.kind = HF_CPG_V1_WELCOME,
         .rep = 1,
         .ring = 4,
         .node = 2,
         .pid = 7,
         .nonce = 8,
         .delta = 3,
         .count = 5,
         .n = 1,
         .member = {{1, 9, a}}},
        {.kind = HF_CPG_V1_TAKE, .rep = 1, .ring = 4},
        {.kind = HF_CPG_V1_PROBE, .nonce = 99},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(frames); i++) {
        check(&frames[i]);
    }
    assert_null(hf_cpg_v1_kind_name(99));
}

static void the_largest_fits(void **state)
{
    (void)state;
    static char host[HF_HOST_NAME_MAX + 1];
    static struct hf_cpg_v1_frame f = {.kind = HF_CPG_V1_WELCOME, .n = HF_CPG_V1_MEMBERS_MAX};
    memset(host, 'h', HF_HOST_NAME_MAX);
    for (unsigned i = 0; i < f.n; i++) {
        f.member[i] = (struct hf_cpg_v1_member){i + 1, 5, hf_slice_str(host)};
    }
    check(&f);
}

static void refused(void **state)
{
    (void)state;
    static uint8_t a[HF_CPG_V1_FRAME_MAX];
    struct hf_cpg_v1_frame f,
        s = {.kind = HF_CPG_V1_STATE,
             .n = 2,
             .member = {{2, 9, hf_slice_str("alpha")}, {1, 7, hf_slice_str("beta")}}};
    assert_int_equal(decode_exact(a, encode(a, sizeof(a), &s), &f), -HF_EMALF); /* not ascending */
    s.member[1].node = 2;
    assert_int_equal(decode_exact(a, encode(a, sizeof(a), &s), &f), -HF_EMALF); /* twice */
    s.n = 0;
    assert_int_equal(decode_exact(a, encode(a, sizeof(a), &s), &f), -HF_EMALF);
    s = (struct hf_cpg_v1_frame){.kind = HF_CPG_V1_HELLO, .host = hf_slice_str("al\npha")};
    assert_int_equal(decode_exact(a, encode(a, sizeof(a), &s), &f), -HF_EMALF);
    size_t n = encode(a, sizeof(a), &(struct hf_cpg_v1_frame){.kind = HF_CPG_V1_TAKE});
    a[2] = 2;
    assert_int_equal(decode_exact(a, n, &f), -HF_EVERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(there_and_back),
        HF_TEST(the_largest_fits),
        HF_TEST(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
