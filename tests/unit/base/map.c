/* base/map: against a plain array, with deletions; with the nth allocation failing. */
#include "base/map.h"

#include <errno.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/prng.h"
#include "support/test.h"

#define KEYS 500

static char key[KEYS][8];

static void same_as_an_array(void **state)
{
    (void)state;
    struct hf_map m;
    hf_map_init(&m, 42);
    bool in[KEYS] = {false};
    struct hf_prng g;
    hf_prng_init(&g, 1);
    size_t n = 0;
    for (int step = 0; step < 20000; step++) {
        size_t k = hf_prng_below(&g, KEYS);
        struct hf_slice s = hf_slice_str(key[k]);
        if (hf_prng_below(&g, 2)) {
            assert_int_equal(hf_map_put(&m, s, key[k]), 0);
            n += !in[k];
            in[k] = true;
        } else {
            assert_ptr_equal(hf_map_remove(&m, s), in[k] ? key[k] : NULL);
            n -= in[k];
            in[k] = false;
        }
        assert_int_equal(m.n, n);
    }
    size_t pos = 0, walked = 0;
    for (char *v; (v = hf_map_next(&m, &pos)); walked++) {
        assert_true(in[(size_t)(v - key[0]) / sizeof(key[0])]);
    }
    assert_int_equal(walked, n);
    for (size_t k = 0; k < KEYS; k++) {
        assert_ptr_equal(hf_map_get(&m, hf_slice_str(key[k])), in[k] ? key[k] : NULL);
    }
    hf_map_fini(&m);
}

static void out_of_memory_changes_nothing(void **state)
{
    (void)state;
    struct hf_map m;
    hf_map_init(&m, 0);
    hf_mem_fail_after(0);
    assert_int_equal(hf_map_put(&m, hf_slice_str("a"), key[0]), -ENOMEM);
    hf_mem_fail_after(-1);
    assert_null(hf_map_get(&m, hf_slice_str("a")));
    assert_null(hf_map_remove(&m, hf_slice_str("a")));
    hf_map_fini(&m);
}

int main(void)
{
    for (size_t k = 0; k < KEYS; k++) {
        snprintf(key[k], sizeof(key[k]), "k%zu", k);
    }
    const struct CMUnitTest tests[] = {
        HF_TEST(same_as_an_array),
        HF_TEST(out_of_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
