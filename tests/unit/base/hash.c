/* Tests of base/hash: a stream hashes the same wherever it is cut. */
#include "base/hash.h"
#include "support/test.h"

static void stream_is_cut_anywhere(void **state)
{
    (void)state;
    uint8_t bytes[100];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 37 + 1);
    struct hf_hash_stream whole;
    uint64_t want[2], got[2];
    hf_hash_stream_init(&whole, 42);
    hf_hash_stream_add(&whole, hf_slice(bytes, sizeof(bytes)));
    hf_hash_stream_get(&whole, want);
    for (size_t i = 0; i <= sizeof(bytes); i++) {
        for (size_t j = i; j <= sizeof(bytes); j++) {
            struct hf_hash_stream h;
            hf_hash_stream_init(&h, 42);
            hf_hash_stream_add(&h, hf_slice(bytes, i));
            hf_hash_stream_add(&h, hf_slice(bytes + i, j - i));
            hf_hash_stream_add(&h, hf_slice(bytes + j, sizeof(bytes) - j));
            hf_hash_stream_get(&h, got);
            assert_memory_equal(want, got, sizeof(want));
        }
    }
}

static void stream_differs(void **state)
{
    (void)state;
    uint8_t bytes[40] = {0};
    uint64_t base[2], got[2];
    struct hf_hash_stream h;
    hf_hash_stream_init(&h, 1);
    hf_hash_stream_add(&h, hf_slice(bytes, sizeof(bytes)));
    hf_hash_stream_get(&h, base);
    for (size_t i = 0; i < sizeof(bytes) * 8; i++) {
        bytes[i / 8] ^= (uint8_t)(1u << (i % 8));
        hf_hash_stream_init(&h, 1);
        hf_hash_stream_add(&h, hf_slice(bytes, sizeof(bytes)));
        hf_hash_stream_get(&h, got);
        bytes[i / 8] ^= (uint8_t)(1u << (i % 8));
        assert_true(got[0] != base[0] && got[1] != base[1]);
    }
    /* zeroes of another length */
    hf_hash_stream_init(&h, 1);
    hf_hash_stream_add(&h, hf_slice(bytes, sizeof(bytes) - 1));
    hf_hash_stream_get(&h, got);
    assert_true(got[0] != base[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_is_cut_anywhere),
        cmocka_unit_test(stream_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
