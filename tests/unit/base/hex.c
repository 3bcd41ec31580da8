/* Tests of base/hex: there and back, and each byte that is no digit. */
#include "base/hex.h"

#include <ctype.h>
#include <string.h>

#include "support/test.h"

static void digits(void **state)
{
    (void)state;
    for (int c = -1; c < 256; c++) {
        const char *at = c > 0 ? strchr("0123456789abcdef", tolower(c)) : NULL;
        assert_int_equal(hf_hex_value(c), at ? (int)(at - "0123456789abcdef") : -1);
    }
}

static void bytes(void **state)
{
    (void)state;
    uint8_t all[256], got[256];
    char text[512];
    for (int i = 0; i < 256; i++) {
        all[i] = (uint8_t)i;
    }
    hf_hex_put(all, sizeof(all), text);
    assert_memory_equal(text, "000102", 6);
    assert_memory_equal(text + 508, "feff", 4);
    assert_true(hf_hex_get(hf_slice(text, sizeof(text)), sizeof(got), got));
    assert_memory_equal(got, all, sizeof(all));
    assert_true(hf_hex_get(hf_slice_str("aBCd"), 2, got));
    assert_int_equal(got[0] << 8 | got[1], 0xabcd);
    assert_true(hf_hex_get(hf_slice(NULL, 0), 0, got));
    assert_false(hf_hex_get(hf_slice_str("abc"), 2, got));
    assert_false(hf_hex_get(hf_slice_str("abcd"), 1, got));
    assert_false(hf_hex_get(hf_slice_str("abcg"), 2, got));
    assert_false(hf_hex_get(hf_slice_str("/bcd"), 2, got));
}

static void numbers(void **state)
{
    (void)state;
    char text[16];
    hf_hex_put_u64(UINT64_C(0x123456789abcdef0), sizeof(text), text);
    assert_memory_equal(text, "123456789abcdef0", sizeof(text));
    hf_hex_put_u64(0x1fe, 2, text);
    assert_memory_equal(text, "fe3456", 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(digits), HF_TEST(bytes), HF_TEST(numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
