/* base/buf: growth, its limit, JSON strings. */
#include "base/buf.h"

#include <errno.h>

#include "base/err.h"
#include "base/mem.h"
#include "support/test.h"

static void grows_to_its_limit(void **state)
{
    (void)state;
    struct hf_buf b;
    hf_buf_init(&b, 1000);
    for (int i = 0; i < 100; i++) {
        hf_buf_printf(&b, "%010d", i);
    }
    assert_int_equal(b.err, 0);
    assert_int_equal(b.n, 1000);
    hf_buf_str(&b, "x");
    assert_int_equal(b.err, -HF_EFULL);
    assert_int_equal(b.n, 1000);
    hf_buf_clear(&b);
    hf_buf_str(&b, "abc");
    hf_buf_consume(&b, 2);
    hf_assert_slice_str(hf_buf_slice(&b), "c");
    hf_buf_fini(&b);
}

static void long_printf(void **state)
{
    (void)state;
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_buf_printf(&b, "%0500d|", 7);
    assert_int_equal(b.n, 501);
    assert_int_equal(b.p[500], '|');
    hf_buf_fini(&b);
}

static void reserve_and_commit(void **state)
{
    (void)state;
    struct hf_buf b;
    hf_buf_init(&b, 10);
    uint8_t *p = hf_buf_reserve(&b, 10);
    assert_non_null(p);
    memcpy(p, "abc", 3);
    hf_buf_commit(&b, 3);
    hf_assert_slice_str(hf_buf_slice(&b), "abc");
    assert_null(hf_buf_reserve(&b, 8));
    assert_int_equal(b.err, -HF_EFULL);
    hf_buf_fini(&b);
}

static void json_strings(void **state)
{
    (void)state;
    struct hf_buf b;
    hf_buf_init(&b, 100);
    hf_buf_json_str(&b, hf_slice("a\"\\\n\xff\xc3\xa9", 7));
    hf_assert_slice_str(hf_buf_slice(&b), "\"a\\\"\\\\\\u000a\xef\xbf\xbd\xc3\xa9\"");
    hf_buf_fini(&b);
}

static void xml_text(void **state)
{
    (void)state;
    struct hf_buf b;
    hf_buf_init(&b, 100);
    hf_buf_xml(&b, hf_slice("<a b=\"&\">\t\n\xff\xc3\xa9\xef\xbf\xbf", 17));
    hf_assert_slice_str(hf_buf_slice(&b), "&lt;a b=&quot;&amp;&quot;&gt;\t??\xc3\xa9?");
    hf_buf_fini(&b);
}

static void out_of_memory_is_sticky(void **state)
{
    (void)state;
    struct hf_buf b;
    hf_buf_init(&b, 100);
    hf_mem_fail_after(0);
    hf_buf_str(&b, "x");
    hf_mem_fail_after(-1);
    hf_buf_str(&b, "y");
    assert_int_equal(b.err, -ENOMEM);
    assert_int_equal(b.n, 0);
    hf_buf_fini(&b);
}

static void spans(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } rows[] = {{0, "0 ms"},          {999, "999 ms"},       {1000, "1 s"},
                {2500, "2.5 s"},      {59999, "59.9 s"},     {200000, "3 m 20 s"},
                {3600000, "1 h 0 m"}, {86400000, "1 d 0 h"}, {360000000, "4 d 4 h"}};
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        struct hf_buf out;
        hf_buf_init(&out, 100);
        hf_buf_span(&out, rows[i].ms);
        hf_assert_slice_str(hf_buf_slice(&out), rows[i].text);
        hf_buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(grows_to_its_limit),
        HF_TEST(long_printf),
        HF_TEST(reserve_and_commit),
        HF_TEST(json_strings),
        HF_TEST(out_of_memory_is_sticky),
        HF_TEST(xml_text),
        HF_TEST(spans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
