/* os/addr: parse and print, both families, ports, scopes; what is refused and how. */
#include "os/addr.h"

#include <stdio.h>

#include "support/test.h"

static void prints_what_it_parsed(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"1.2.3.4", "1.2.3.4:7"},
        {"1.2.3.4:80", "1.2.3.4:80"},
        {"1.2.3.4:0", "1.2.3.4:0"},
        {"::1", "[::1]:7"},
        {"[::1]", "[::1]:7"},
        {"[2001:db8::2]:65535", "[2001:db8::2]:65535"},
        {"fe80::1%lo", "[fe80::1%lo]:7"},
        {"[fe80::1%lo]:9", "[fe80::1%lo]:9"},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        struct hf_addr a;
        char text[HF_ADDR_STR_LEN];
        assert_int_equal(hf_addr_parse(rows[i].in, 7, NULL, &a), 0);
        assert_string_equal(hf_addr_str(&a, text), rows[i].out);
        struct hf_endpoint e = hf_addr_to_endpoint(&a);
        struct hf_addr b = hf_addr_from_endpoint(&e);
        assert_int_equal(b.len, a.len);
        assert_memory_equal(&b.ss, &a.ss, a.len);
    }
}

static void refuses(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "",           "localhost",  "1.2.3",      "1.2.3.4:",       "1.2.3.4:65536",
        "1.2.3.4:-1", "1.2.3.4:8x", "[::1]:",     "[::1",           "[::1]80",
        "[1.2.3.4]",  ":80",        "1.2.3.4%lo", "fe80::1%nosuch", "fe80::1%0",
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        struct hf_addr a = {0};
        struct hf_err err = {0};
        assert_int_equal(hf_addr_parse(rows[i], 7, &err, &a), -HF_ECONFIG);
        assert_true(err.text[0]);
        assert_int_equal(a.len, 0);
    }
    char longer[500];
    memset(longer, '1', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    struct hf_addr a;
    assert_int_equal(hf_addr_parse(longer, 7, NULL, &a), -HF_ECONFIG);
}

static void no_address(void **state)
{
    (void)state;
    struct hf_endpoint none = {0};
    struct hf_addr a = hf_addr_from_endpoint(&none);
    char text[HF_ADDR_STR_LEN];
    assert_int_equal(a.len, 0);
    assert_int_equal(hf_addr_to_endpoint(&a).family, HF_AF_NONE);
    assert_string_equal(hf_addr_str(&a, text), "(none)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(prints_what_it_parsed),
        HF_TEST(refuses),
        HF_TEST(no_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
