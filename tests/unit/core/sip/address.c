/* core/sip/address and core/sip/via: one value each, in every shape. */
#include "core/sip/address.h"

#include "base/err.h"
#include "core/sip/via.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_sip_address address(const char *s)
{
    struct hf_sip_address a;
    struct hf_sip_cur c = hf_sip_cur(hf_slice_str(s));
    if (hf_sip_address_parse(&c, true, &a)) {
        fail_msg("refused: %s", s);
    }
    return a;
}

static void shapes(void **state)
{
    (void)state;
    struct hf_sip_param p;
    struct hf_sip_address a =
        address("  \"A. \\\"B\\\" <c>, d\" <sip:a@b;x=y?h=i> ; tag = t1;q=0.5 ");
    hf_assert_slice_str(a.display, "\"A. \\\"B\\\" <c>, d\"");
    hf_assert_slice_str(a.uri.text, "sip:a@b;x=y?h=i");
    hf_assert_slice_str(a.uri.params, "x=y");
    hf_assert_slice_str(hf_sip_address_tag(&a), "t1");
    a = address("Anna Bell<sip:a@b>");
    hf_assert_slice_str(a.display, "Anna Bell");
    assert_int_equal(hf_sip_address_tag(&a).n, 0);
    a = address("sip:a@b;x=y");
    assert_int_equal(a.uri.params.n, 0); /* it is the field's, not the URI's */
    assert_true(hf_sip_address_param(&a, "x", &p));
    a = address("<sip:a@b;x=y>");
    assert_false(hf_sip_address_param(&a, "x", &p));
    hf_assert_slice_str(a.uri.params, "x=y");
    a = address("*");
    assert_true(a.star);
    a = address("* <sip:a@b>"); /* "*" is a token, too */
    assert_false(a.star);
    hf_assert_slice_str(a.display, "*");
    a = address("tel:+1555");
    assert_int_equal(a.uri.scheme, HF_SIP_SCHEME_TEL);
    a = address("<http://x/?y;z>;p");
    assert_int_equal(a.uri.scheme, HF_SIP_SCHEME_OTHER);
    a = address("<urn:service:sos>");
    assert_int_equal(a.uri.scheme, HF_SIP_SCHEME_OTHER);
    struct hf_sip_cur c = hf_sip_cur(S("sip:a@b , sip:c@d"));
    assert_int_equal(hf_sip_address_parse(&c, false, &a), 0);
    assert_int_equal(hf_sip_peek(&c), ',');
    hf_assert_slice_str(a.text, "sip:a@b");
}

static void refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "sip:",
        "<sip:a@b",
        "<>",
        "< sip:a@b>",
        "<sip:a@b >",
        "\"x <sip:a@b>",
        "\"x\" sip:a@b",
        "\"x\"",
        "a, b <sip:a@b>",
        "a@b <sip:a@b>",
        "sip:a@b?x=y",
        "<sip:a@b>;",
        "<sip:a@b>;;x",
        "<sip:a@b> x",
        "<sip:a@b>>",
        "sip:a@b x",
        "**",
    };
    struct hf_sip_address a;
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        struct hf_sip_cur c = hf_sip_cur(hf_slice_str(bad[i]));
        if (hf_sip_address_parse(&c, true, &a) == 0 && hf_sip_done(&c)) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
    struct hf_sip_cur c = hf_sip_cur(S("*"));
    assert_int_equal(hf_sip_address_parse(&c, false, &a), -HF_EMALF);
}

static void contact_params(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int q; /* -1: malformed */
    } qs[] = {{"<sip:a>", 1000},         {"<sip:a>;q=0", 0},        {"<sip:a>;q=1", 1000},
              {"<sip:a>;q=1.000", 1000}, {"<sip:a>;q=0.7", 700},    {"<sip:a>;q=0.123", 123},
              {"<sip:a>;q=.5", -1},      {"<sip:a>;q=1.1", -1},     {"<sip:a>;q=2", -1},
              {"<sip:a>;q=0.1234", -1},  {"<sip:a>;q", -1},         {"<sip:a>;q=0.5x", -1},
              {"<sip:a>;Q=0.25", 250},   {"<sip:a>;q=\"0.5\"", -1}, {"<sip:a>;q=0.", 0}};
    for (size_t i = 0; i < HF_ARRAY_LEN(qs); i++) {
        struct hf_sip_address a = address(qs[i].text);
        uint16_t q = 7;
        assert_int_equal(hf_sip_address_q(&a, &q), qs[i].q < 0 ? -HF_EMALF : 0);
        assert_int_equal(q, qs[i].q < 0 ? 7 : qs[i].q);
    }
    uint32_t s = 7;
    struct hf_sip_address a = address("<sip:a>");
    assert_int_equal(hf_sip_address_expires(&a, &s), 0);
    a = address("<sip:a>;expires=60");
    assert_int_equal(hf_sip_address_expires(&a, &s), 1);
    assert_int_equal(s, 60);
    a = address("<sip:a>;expires=soon");
    assert_int_equal(hf_sip_address_expires(&a, &s), 1);
    assert_int_equal(s, 3600);
    a = address("<sip:a>;expires=99999999999");
    assert_int_equal(hf_sip_address_expires(&a, &s), 1);
    assert_int_equal(s, UINT32_MAX);
}

static void via(void **state)
{
    (void)state;
    struct hf_sip_via v;
    struct hf_sip_cur c =
        hf_sip_cur(S(" SIP / 2.0\r\n / tls  Host.example.com : 5071 ;branch = z9hG4bKx;RPORT;"
                     "maddr=192.0.2.9;x=\"a,b\" , SIP/2.0/UDP h"));
    assert_int_equal(hf_sip_via_parse(&c, &v), 0);
    assert_int_equal(v.transport, HF_SIP_TRANSPORT_TLS);
    hf_assert_slice_str(v.sent_by.text, "Host.example.com");
    assert_int_equal(v.sent_by.port, 5071);
    hf_assert_slice_str(v.branch, "z9hG4bKx");
    assert_true(v.has_rport);
    assert_int_equal(v.rport, 0);
    hf_assert_slice_str(v.maddr, "192.0.2.9");
    assert_true(hf_sip_via_is_3261(&v));
    assert_true(hf_sip_separator(&c, ','));
    assert_int_equal(hf_sip_via_parse(&c, &v), 0);
    assert_false(hf_sip_via_is_3261(&v));
    c = hf_sip_cur(S("SIP/2.0/UDP [::1]:1;received=[2001:db8::1];rport=99;branch=z9hG4bK"));
    assert_int_equal(hf_sip_via_parse(&c, &v), 0);
    hf_assert_slice_str(v.received, "2001:db8::1");
    assert_int_equal(v.rport, 99);
    assert_false(hf_sip_via_is_3261(&v)); /* nothing behind the cookie */
    static const char *const bad[] = {
        "",
        "SIP/2.0",
        "SIP/2.0/UDP",
        "SIP/2.0/UDPhost",
        "SIP/2.0/UDP ;branch=x",
        "SIP/2.0/UDP h;",
        "SIP/2.0/UDP h;;x",
        "SIP/2.0/UDP h;branch",
        "SIP/2.0/UDP h;received=name",
        "SIP/2.0/UDP h;rport=x",
        "SIP/2.0/UDP h;rport=65536",
        "SIP/2.0/UDP h:0",
        "SIP/2.0/UDP h x",
        "SIP/2.0 UDP h",
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        c = hf_sip_cur(hf_slice_str(bad[i]));
        if (hf_sip_via_parse(&c, &v) == 0) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_int_equal(v.text.n, 0);
    }
    assert_int_equal(hf_sip_transport_parse(S("Wss")), HF_SIP_TRANSPORT_WSS);
    assert_int_equal(hf_sip_transport_parse(S("DCCP")), HF_SIP_TRANSPORT_OTHER);
    assert_string_equal(hf_sip_transport_name(HF_SIP_TRANSPORT_SCTP), "SCTP");
    assert_int_equal(hf_sip_transport_port(HF_SIP_TRANSPORT_TLS), 5061);
    assert_int_equal(hf_sip_transport_port(HF_SIP_TRANSPORT_OTHER), 5060);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(shapes),
        HF_TEST(refused),
        HF_TEST(contact_params),
        HF_TEST(via),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
