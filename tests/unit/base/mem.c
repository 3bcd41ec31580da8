/* base/mem, base/hash: zeroed memory, overflow, the nth failure; a hash that depends on all it
 * gets. */
#include "base/mem.h"

#include "base/hash.h"
#include "support/test.h"

static void zeroed_and_checked(void **state)
{
    (void)state;
    uint8_t *p = hf_alloc(100);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(p[i], 0);
    }
    p = hf_realloc(p, 200);
    assert_non_null(p);
    hf_free(p);
    hf_free(NULL);
    assert_null(hf_alloc_array(SIZE_MAX / 2, 4));
    p = hf_alloc_array(0, 8);
    assert_non_null(p);
    hf_free(p);
}

static void the_nth_fails(void **state)
{
    (void)state;
    hf_mem_fail_after(2);
    void *a = hf_alloc(1), *b = hf_alloc(1), *c = hf_alloc(1), *d = hf_realloc(NULL, 1);
    hf_mem_fail_after(-1);
    assert_non_null(a);
    assert_non_null(b);
    assert_null(c);
    assert_null(d);
    hf_free(a);
    hf_free(b);
}

static void hashes_differ(void **state)
{
    (void)state;
    assert_true(hf_hash(hf_slice_str("a"), 0) != hf_hash(hf_slice_str("b"), 0));
    assert_true(hf_hash(hf_slice_str("a"), 0) != hf_hash(hf_slice_str("a"), 1));
    assert_true(hf_hash(hf_slice_str("a"), 7) == hf_hash(hf_slice_str("a"), 7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(zeroed_and_checked),
        HF_TEST(the_nth_fails),
        HF_TEST(hashes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
