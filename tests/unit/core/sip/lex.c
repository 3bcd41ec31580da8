/* core/sip/lex: tokens, quoted strings, parameters, addresses as text. */
#include "core/sip/lex.h"

#include <stdio.h>

#include "base/err.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static void classes(void **state)
{
    (void)state;
    assert_true(hf_sip_all(S("a-Z.!%*_+`'~09"), HF_SIP_C_TOKEN));
    assert_false(hf_sip_all(S("a b"), HF_SIP_C_TOKEN));
    assert_false(hf_sip_all(S("a@b"), HF_SIP_C_TOKEN));
    assert_true(hf_sip_all(S(""), HF_SIP_C_DIGIT));
    for (int c = 0; c < 256; c++) {
        bool control = (c < 32 && c != '\t') || c == 127;
        assert_int_equal(!!(hf_sip_class[c] & HF_SIP_C_CONTROL), control);
        assert_true(c < 128 || hf_sip_class[c] == 0);
    }
    assert_true(hf_sip_eq(S("CSeq"), S("csEQ")));
    assert_false(hf_sip_eq(S("CSeq"), S("CSe")));
    assert_true(hf_sip_cmp(S("a"), S("B")) < 0);
    assert_true(hf_sip_cmp(S("ab"), S("A")) > 0);
    assert_int_equal(hf_sip_cmp(S("Z@"), S("z@")), 0);
    /* beyond what is compared together: alike, but for case before and after, and not */
    assert_true(hf_sip_eq(S("proxy-AUTHORIZATION"), S("Proxy-Authorization")));
    assert_true(hf_sip_eq(S("Proxy-AuthorizatioN"), S("Proxy-Authorization")));
    assert_true(hf_sip_cmp(S("Proxy-AuthorizatioA"), S("Proxy-Authorizationb")) < 0);
    assert_true(hf_sip_cmp(S("Proxy-Auth"), S("Proxy-aUth-")) < 0);
    assert_true(hf_sip_cmp(S("12345678b"), S("12345678A")) > 0);
    assert_int_equal(hf_sip_cmp(S("12345678"), S("12345678")), 0);
    assert_false(hf_sip_eq(S("@"), S("`"))); /* they differ by the bit that letters differ by */
}

/* At every place of a long line, and none where there is none. */
static void controls(void **state)
{
    (void)state;
    char line[40];
    for (int c = 0; c < 256; c++) {
        for (size_t at = 0; at < sizeof(line); at++) {
            memset(line, at & 1 ? '\t' : 'x', sizeof(line));
            line[at] = (char)c;
            struct hf_sip_cur cur = hf_sip_cur(hf_slice(line, sizeof(line)));
            hf_sip_to_control(&cur);
            size_t stop = hf_sip_class[c] & HF_SIP_C_CONTROL ? at : sizeof(line);
            assert_int_equal(hf_sip_left(&cur).n, sizeof(line) - stop);
        }
    }
}

static void numbers(void **state)
{
    (void)state;
    uint64_t v = 7;
    uint32_t s = 7;
    struct hf_sip_cur c = hf_sip_cur(S("0009x"));
    assert_int_equal(hf_sip_number(&c, 9, &v), 0);
    assert_int_equal(v, 9);
    assert_int_equal(hf_sip_peek(&c), 'x');
    assert_int_equal(hf_sip_number(&c, 9, &v), -HF_EMALF);
    c = hf_sip_cur(S("10"));
    assert_int_equal(hf_sip_number(&c, 9, &v), -HF_EVALUE);
    assert_true(hf_sip_done(&c));
    c = hf_sip_cur(S("18446744073709551616"));
    assert_int_equal(hf_sip_number(&c, UINT64_MAX, &v), -HF_EVALUE);
    c = hf_sip_cur(S("18446744073709551615"));
    assert_int_equal(hf_sip_number(&c, UINT64_MAX, &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(hf_sip_seconds(S("4294967295"), &s), 0);
    assert_int_equal(s, UINT32_MAX);
    s = 7;
    assert_int_equal(hf_sip_seconds(S("4294967296"), &s), -HF_EVALUE);
    assert_int_equal(hf_sip_seconds(S("-1"), &s), -HF_EMALF);
    assert_int_equal(hf_sip_seconds(S("1 "), &s), -HF_EMALF);
    assert_int_equal(hf_sip_seconds(S(""), &s), -HF_EMALF);
    assert_int_equal(s, 7);
}

static void quoted(void **state)
{
    (void)state;
    struct hf_slice s;
    char buf[8];
    struct hf_sip_cur c = hf_sip_cur(S("\"a\\\"b\\\\\"x"));
    assert_int_equal(hf_sip_quoted(&c, &s), 0);
    hf_assert_slice_str(s, "\"a\\\"b\\\\\"");
    assert_int_equal(hf_sip_peek(&c), 'x');
    assert_int_equal(hf_sip_unquote(s, buf, sizeof(buf), &s), 0);
    hf_assert_slice_str(s, "a\"b\\");
    assert_int_equal(hf_sip_unquote(S("\"1\\2345678\""), buf, 8, &s), 0);
    assert_int_equal(hf_sip_unquote(S("\"1\\23456789\""), buf, 8, &s), -HF_EFULL);
    assert_int_equal(hf_sip_unquote(S("plain"), buf, 0, &s), 0);
    hf_assert_slice_str(s, "plain");
    assert_int_equal(hf_sip_unquote(S("\"\""), buf, 0, &s), 0);
    assert_int_equal(s.n, 0);
    static const char *const bad[] = {"", "x", "\"", "\"a", "\"a\\\"", "\"\\"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        c = hf_sip_cur(hf_slice_str(bad[i]));
        assert_int_equal(hf_sip_quoted(&c, &s), -HF_EMALF);
    }
    hf_assert_slice_str(hf_sip_trim(S(" \r\n\ta b\r\n ")), "a b");
    assert_int_equal(hf_sip_trim(S(" \t")).n, 0);
}

static void parameters(void **state)
{
    (void)state;
    struct hf_sip_cur c = hf_sip_cur(S(" ; a = b;c;d=\"x;y,\\\"\" ;e=[2001:db8::1]:5 , next"));
    struct hf_sip_param p;
    static const struct {
        const char *name, *value;
    } want[] = {{"a", "b"}, {"c", NULL}, {"d", "\"x;y,\\\"\""}, {"e", "[2001:db8::1]:5"}};
    for (size_t i = 0; i < HF_ARRAY_LEN(want); i++) {
        assert_int_equal(hf_sip_param_next(&c, &p), 1);
        hf_assert_slice_str(p.name, want[i].name);
        assert_int_equal(p.value.p != NULL, want[i].value != NULL);
        if (want[i].value) {
            hf_assert_slice_str(p.value, want[i].value);
        }
        assert_int_equal(p.quoted, i == 2);
    }
    assert_int_equal(hf_sip_param_next(&c, &p), 0);
    assert_true(hf_sip_separator(&c, ','));
    hf_assert_slice_str(hf_sip_left(&c), "next");
    assert_false(hf_sip_separator(&c, ','));
    static const char *const bad[] = {";", ";;a", ";=b", ";a=", ";a=;b", ";a=\"", "; ,"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        c = hf_sip_cur(hf_slice_str(bad[i]));
        assert_int_equal(hf_sip_param_next(&c, &p), -HF_EMALF);
    }
    assert_true(hf_sip_param_get(S(";x;TAG=7;tag=8"), "tag", &p));
    hf_assert_slice_str(p.value, "7");
    assert_false(hf_sip_param_get(S(";x=tag"), "tag", &p));
    assert_false(hf_sip_param_get(S(""), "tag", &p));
}

static void addresses(void **state)
{
    (void)state;
    uint8_t a[16], b[16];
    char text[HF_SIP_IPV6_TEXT_MAX], text4[16];
    assert_true(hf_sip_ipv4(S("192.0.2.255"), a));
    assert_int_equal(hf_sip_ipv4_text(a, text4), 11);
    assert_string_equal(text4, "192.0.2.255");
    static const char *const good4[] = {"0.9.10.99", "100.101.110.249", "255.0.255.1"};
    for (size_t i = 0; i < HF_ARRAY_LEN(good4); i++) {
        assert_true(hf_sip_ipv4(hf_slice_str(good4[i]), a));
        assert_int_equal(hf_sip_ipv4_text(a, text4), strlen(good4[i]));
        assert_string_equal(text4, good4[i]);
    }
    static const char *const bad4[] = {"",           "1.2.3",  "1.2.3.4.", "1.2.3.256",
                                       "1.2.3.0004", "1..2.3", "a.b.c.d",  " 1.2.3.4"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad4); i++) {
        assert_false(hf_sip_ipv4(hf_slice_str(bad4[i]), a));
    }
    assert_true(hf_sip_ipv6(S("2001:DB8:0::192.0.2.1"), a));
    assert_true(hf_sip_ipv6(S("2001:db8:::192.0.2.1"), b)); /* RFC 5118 4.10 */
    assert_memory_equal(a, b, 16);
    assert_int_equal(hf_sip_ipv6_text(a, text), strlen("2001:db8::c000:201"));
    assert_string_equal(text, "2001:db8::c000:201");
    static const char *const bad6[] = {
        "",     ":",     "1.2.3.4",  "2001:db8:::1",  "1:2:3:4:5:6:7:8:9",
        "::g1", "[::1]", "::1%eth0", "::::192.0.2.1", "fe80::1 "};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad6); i++) {
        assert_false(hf_sip_ipv6(hf_slice_str(bad6[i]), a));
    }
    assert_false(hf_sip_ipv6(hf_slice("::1\0", 4), a));
}

static void escapes(void **state)
{
    (void)state;
    struct hf_sip_cur c = hf_sip_cur(S("a%2fb%4x"));
    hf_assert_slice_str(hf_sip_span_escaped(&c, HF_SIP_C_USER), "a%2fb");
    c = hf_sip_cur(S("%4"));
    assert_int_equal(hf_sip_span_escaped(&c, HF_SIP_C_USER).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(classes),    HF_TEST(controls),  HF_TEST(numbers), HF_TEST(quoted),
        HF_TEST(parameters), HF_TEST(addresses), HF_TEST(escapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
