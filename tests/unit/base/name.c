/* base/name: what hosts and services may be called. */
#include "base/name.h"

#include "base/limits.h"
#include "support/test.h"

static void host_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "alpha", "db-1", "0", "a--b"};
    static const char *const bad[] = {"", "-a", "a-", "A", "a.b", "a_b", "a b", "\xc3\xa9"};
    for (size_t i = 0; i < HF_ARRAY_LEN(good); i++) {
        assert_true(hf_host_name_ok(hf_slice_str(good[i])));
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        assert_false(hf_host_name_ok(hf_slice_str(bad[i])));
    }
    char name[HF_HOST_NAME_MAX + 1];
    memset(name, 'x', sizeof(name));
    assert_true(hf_host_name_ok(hf_slice(name, HF_HOST_NAME_MAX)));
    assert_false(hf_host_name_ok(hf_slice(name, HF_HOST_NAME_MAX + 1)));
}

static void service_names(void **state)
{
    (void)state;
    static const char *const good[] = {"/a", "/pg/orders/primary", "/A_b-c.d/0"};
    static const char *const bad[] = {"",      "/",    "a",         "//a", "/a/",
                                      "/a//b", "/a b", "/\xc3\xa9", "/a\n"};
    for (size_t i = 0; i < HF_ARRAY_LEN(good); i++) {
        assert_true(hf_service_name_ok(hf_slice_str(good[i])));
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        assert_false(hf_service_name_ok(hf_slice_str(bad[i])));
    }
    char deep[2 * (HF_SERVICE_DEPTH_MAX + 1)], label[65];
    for (size_t i = 0; i < sizeof(deep); i++) {
        deep[i] = i % 2 ? 'x' : '/';
    }
    assert_true(hf_service_name_ok(hf_slice(deep, sizeof(deep) - 2)));
    assert_false(hf_service_name_ok(hf_slice(deep, sizeof(deep))));
    memset(label, 'x', sizeof(label));
    label[0] = '/';
    assert_true(hf_service_name_ok(hf_slice(label, 64)));
    assert_false(hf_service_name_ok(hf_slice(label, 65)));
}

static void words(void **state)
{
    (void)state;
    assert_true(hf_word_ok(hf_slice_str("!~"), 2));
    assert_false(hf_word_ok(hf_slice_str("abc"), 2));
    assert_false(hf_word_ok(hf_slice(NULL, 0), 2));
    assert_false(hf_word_ok(hf_slice_str("a b"), 9));
    assert_false(hf_word_ok(hf_slice_str("a\x7f"), 9));
    assert_false(hf_word_ok(hf_slice_str("\xc3\xa4"), 9));
}

static bool under(const char *name, const char *prefix)
{
    return hf_service_under(hf_slice_str(name), hf_slice_str(prefix));
}

static void prefixes(void **state)
{
    (void)state;
    assert_true(under("/pg/x", ""));
    assert_true(under("/pg/x", "/"));
    assert_true(under("/pg/x", "/pg"));
    assert_true(under("/pg/x", "/pg/"));
    assert_true(under("/pg", "/pg"));
    assert_false(under("/pgx", "/pg"));
    assert_false(under("/p", "/pg"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(host_names),
        HF_TEST(service_names),
        HF_TEST(words),
        HF_TEST(prefixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
