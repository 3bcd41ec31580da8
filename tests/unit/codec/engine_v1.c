/* codec/engine_v1: every frame there and back, cut at each length, and what no state can be. */
#include "codec/engine_v1.h"

#include <stdio.h>

#include "base/err.h"
#include "support/test.h"

static size_t encode(uint8_t *buf, size_t n, const struct hf_engine_v1_frame *f)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    hf_engine_v1_encode(&w, f);
    return hf_wr_end(&w, &s) == 0 ? s.n : 0;
}

static int decode_exact(const uint8_t *p, size_t n, struct hf_engine_v1_frame *ret_frame)
{
    uint8_t *exact = malloc(n ? n : 1); /* exact size: the sanitizer sees any step beyond */
    memcpy(exact, p, n);
    int rc = hf_engine_v1_decode(hf_slice(exact, n), ret_frame);
    free(exact);
    return rc;
}

static void there_and_back(void **state)
{
    (void)state;
    struct hf_slice g = hf_slice_str("group"), h = hf_slice_str("alpha"), d = hf_slice_str("data");
    const struct hf_engine_v1_frame frames[] = {
        {.type = HF_ENGINE_V1_HELLO, .version = 1, .node = 7, .since = 3, .ord = 9, .host = h},
        {.type = HF_ENGINE_V1_EVENT,
         .ord = 5,
         .stable = 4,
         .node = 1,
         .kind = HF_ENGINE_V1_MSG,
         .seq = 2,
         .group = g,
         .data = d},
        {.type = HF_ENGINE_V1_EVENT, .ord = 5, .node = 1, .kind = HF_ENGINE_V1_JOIN, .group = g},
        {.type = HF_ENGINE_V1_EVENT, .ord = 5, .node = 1, .kind = HF_ENGINE_V1_LEAVE, .group = g},
        {.type = HF_ENGINE_V1_EVENT, .ord = 5, .node = 1, .kind = HF_ENGINE_V1_UP, .host = h},
        {.type = HF_ENGINE_V1_EVENT,
         .ord = 5,
         .node = 1,
         .kind = HF_ENGINE_V1_RING,
         .gone = 6,
         .silent = 2},
        {.type = HF_ENGINE_V1_READY, .ord = 12},
        {.type = HF_ENGINE_V1_SEND,
         .ord = 1,
         .seq = 2,
         .kind = HF_ENGINE_V1_MSG,
         .group = g,
         .data = d},
        {.type = HF_ENGINE_V1_BEAT, .ord = 1, .seq = 2},
        {.type = HF_ENGINE_V1_REFUSE, .code = -HF_ELEFT},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(frames); i++) {
        uint8_t a[256], b[256];
        struct hf_engine_v1_frame f;
        size_t n = encode(a, sizeof(a), &frames[i]);
        assert_true(n > 0);
        assert_int_equal(hf_engine_v1_decode(hf_slice(a, n), &f), 0);
        assert_int_equal(f.type, frames[i].type);
        assert_int_equal(f.ord, frames[i].ord);
        assert_int_equal(f.code, frames[i].code);
        assert_true(hf_slice_eq(f.data, frames[i].data) && hf_slice_eq(f.group, frames[i].group));
        assert_true(hf_slice_eq(f.host, frames[i].host));
        assert_int_equal(encode(b, sizeof(b), &f), n);
        assert_memory_equal(a, b, n);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(decode_exact(a, k, &f), -HF_ETRUNC);
            assert_int_equal(encode(b, k, &frames[i]), 0);
        }
        a[n] = 0;
        assert_int_equal(decode_exact(a, n + 1, &f), -HF_ETRAIL);
        assert_non_null(hf_engine_v1_type_name(frames[i].type));
    }
    assert_null(hf_engine_v1_type_name(99));
}

static void refused(void **state)
{
    (void)state;
    uint8_t a[256];
    struct hf_engine_v1_frame f,
        hello = {
            .type = HF_ENGINE_V1_HELLO, .version = 2, .node = 7, .host = hf_slice_str("alpha")};
    size_t n = encode(a, sizeof(a), &hello);
    assert_int_equal(decode_exact(a, n, &f), -HF_EVERSION);
    hello.version = 1;
    hello.since = 1; /* later than what it has applied */
    n = encode(a, sizeof(a), &hello);
    assert_int_equal(decode_exact(a, n, &f), -HF_EMALF);
    hello.since = 0;
    hello.host = hf_slice_str("al\npha");
    n = encode(a, sizeof(a), &hello);
    assert_int_equal(decode_exact(a, n, &f), -HF_EMALF);
    struct hf_engine_v1_frame send = {.type = HF_ENGINE_V1_SEND, .kind = HF_ENGINE_V1_RING};
    n = encode(a, sizeof(a), &send);
    assert_int_equal(decode_exact(a, n, &f), -HF_EMALF);
    struct hf_engine_v1_frame ring = {
        .type = HF_ENGINE_V1_EVENT, .ord = 1, .node = 1, .kind = HF_ENGINE_V1_RING, .silent = 1};
    n = encode(a, sizeof(a), &ring);
    assert_int_equal(decode_exact(a, n, &f), -HF_EMALF);
    a[0] = 77;
    assert_int_equal(decode_exact(a, 1, &f), -HF_EMALF);
}

static size_t encode_state(uint8_t *buf, size_t n, const struct hf_engine_v1_state *st)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    hf_engine_v1_state_encode(&w, st);
    return hf_wr_end(&w, &s) == 0 ? s.n : 0;
}

static void states(void **state)
{
    (void)state;
    static struct hf_engine_v1_state st, got;
    static uint8_t a[HF_ENGINE_V1_FRAME_MAX - 1], b[HF_ENGINE_V1_FRAME_MAX];
    st.ord = 100;
    st.node = 1;
    for (unsigned i = 0; i < HF_ENGINE_V1_NODES_MAX; i++) {
        st.slot[i].id = i + 1;
        st.slot[i].since = i + 1;
        memset(st.slot[i].host, 'h', HF_HOST_NAME_MAX);
    }
    st.n_groups = HF_ENGINE_V1_GROUPS_MAX;
    for (unsigned i = 0; i < HF_ENGINE_V1_GROUPS_MAX; i++) {
        memset(st.group[i].name, (char)('A' + i), HF_ENGINE_V1_GROUP_NAME_MAX);
        st.group[i].members = 1ULL << i;
    }
    size_t n = encode_state(a, sizeof(a), &st); /* the largest one fits a frame */
    assert_true(n > 0);
    assert_int_equal(hf_engine_v1_state_decode(hf_slice(a, n), &got), 0);
    assert_memory_equal(&got, &st, sizeof(st));
    for (size_t k = 0; k < n; k += 7) {
        memcpy(b, a, k);
        assert_int_equal(hf_engine_v1_state_decode(hf_slice(b, k), &got), -HF_ETRUNC);
    }
    st.slot[5].id = 1; /* twice */
    n = encode_state(a, sizeof(a), &st);
    assert_int_equal(hf_engine_v1_state_decode(hf_slice(a, n), &got), -HF_EMALF);
    st.slot[5].id = 0; /* free, but a member */
    n = encode_state(a, sizeof(a), &st);
    assert_int_equal(hf_engine_v1_state_decode(hf_slice(a, n), &got), -HF_EMALF);
    st.slot[5].id = 6;
    st.slot[5].since = 101; /* later than the state */
    n = encode_state(a, sizeof(a), &st);
    assert_int_equal(hf_engine_v1_state_decode(hf_slice(a, n), &got), -HF_EMALF);
    st.slot[5].since = 6;
    memcpy(st.group[1].name, st.group[0].name, sizeof(st.group[0].name));
    n = encode_state(a, sizeof(a), &st);
    assert_int_equal(hf_engine_v1_state_decode(hf_slice(a, n), &got), -HF_EMALF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(there_and_back),
        HF_TEST(refused),
        HF_TEST(states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
