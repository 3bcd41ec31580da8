/* core/sip/reginfo: documents as RFC 3680 has them, whatever is in the strings. */
#include <string.h>

#include "core/sip/reginfo.h"
#include "support/test.h"

static void test_document(void **state)
{
    (void)state;
    const struct hf_sip_reg_contact c[] = {
        {.id = hf_slice_str("76"),
         .uri = hf_slice_str("sip:ann@192.0.2.1;ob"),
         .event = HF_SIP_REG_REGISTERED,
         .expires_s = 7322,
         .q = 800,
         .call_id = hf_slice_str("a@b"),
         .cseq = 5},
        {.id = hf_slice_str("77"),
         .uri = hf_slice_str("sip:ann@192.0.2.2"),
         .event = HF_SIP_REG_DEACTIVATED,
         .q = 1001},
    };
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_sip_reginfo_write(&b, 12, hf_slice_str("sip:ann@example.org"), c, 2);
    assert_int_equal(b.err, 0);
    hf_assert_slice_str(
        hf_buf_slice(&b),
        "<?xml version=\"1.0\"?>\n"
        "<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"12\" state=\"full\">\n"
        "  <registration aor=\"sip:ann@example.org\" id=\"a\" state=\"active\">\n"
        "    <contact id=\"76\" state=\"active\" event=\"registered\" expires=\"7322\" q=\"0.800\""
        " callid=\"a@b\" cseq=\"5\">\n"
        "      <uri>sip:ann@192.0.2.1;ob</uri>\n"
        "    </contact>\n"
        "    <contact id=\"77\" state=\"terminated\" event=\"deactivated\">\n"
        "      <uri>sip:ann@192.0.2.2</uri>\n"
        "    </contact>\n"
        "  </registration>\n"
        "</reginfo>\n");
    hf_buf_clear(&b);
    hf_sip_reginfo_write(&b, 0, hf_slice_str("x"), NULL, 0);
    hf_buf_add(&b, hf_slice("", 1));
    assert_non_null(strstr((const char *)b.p, "state=\"init\">\n  </registration>"));
    hf_buf_clear(&b);
    hf_sip_reginfo_write(&b, 0, hf_slice_str("x"), c + 1, 1);
    hf_buf_add(&b, hf_slice("", 1));
    assert_non_null(strstr((const char *)b.p, "id=\"a\" state=\"terminated\">"));
    hf_buf_fini(&b);
    hf_buf_init(&b, 100);
    hf_sip_reginfo_write(&b, 0, hf_slice_str("x"), c, 2);
    assert_int_not_equal(b.err, 0);
    hf_buf_fini(&b);
}

static void test_escapes(void **state)
{
    (void)state;
    struct hf_sip_reg_contact c = {
        .id = hf_slice_str("\"><x a='"),
        .uri = hf_slice_str("<&>\x01\xff\xc3\xa4\xef\xbf\xbf\t\x7f\xed\xa0\x80"),
        .event = HF_SIP_REG_CREATED,
        .q = 1000,
    };
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_sip_reginfo_write(&b, 1, hf_slice_str("sip:\"&@x"), &c, 1);
    hf_buf_add(&b, hf_slice("", 1));
    const char *s = (const char *)b.p;
    assert_non_null(strstr(s, "aor=\"sip:&quot;&amp;@x\""));
    assert_non_null(strstr(s, "id=\"&quot;&gt;&lt;x a='\""));
    assert_non_null(strstr(s, "q=\"1.000\""));
    assert_non_null(strstr(s, "<uri>&lt;&amp;&gt;??\xc3\xa4?\t???"
                              "?</uri>"));
    hf_buf_fini(&b);
    assert_string_equal(hf_sip_reg_event_name(HF_SIP_REG_PROBATION), "probation");
    assert_string_equal(hf_sip_reg_event_name(HF_SIP_REG_EVENT_COUNT_), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(test_document), HF_TEST(test_escapes)};
    return cmocka_run_group_tests_name("sip/reginfo", tests, NULL, NULL);
}
