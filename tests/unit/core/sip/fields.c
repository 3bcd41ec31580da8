/* core/sip/fields: expiries, option tags, events, types, dates, and the scrutiny of all fields. */
#include "core/sip/fields.h"

#include <stdio.h>

#include "base/err.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_sip_msg m;
static char text[4096];

/* A good NOTIFY with these lines in it. */
static void with(const char *lines)
{
    int n = snprintf(text, sizeof(text),
                     "NOTIFY sip:h SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a>;tag=1\r\n"
                     "To: <sip:b>\r\nCall-ID: c\r\nCSeq: 1 NOTIFY\r\n%s\r\n",
                     lines);
    assert_int_equal(hf_sip_parse(hf_slice(text, (size_t)n), false, &m), 0);
}

static void expires(void **state)
{
    (void)state;
    uint32_t s = 7;
    with("");
    assert_int_equal(hf_sip_expires(&m, HF_SIP_H_EXPIRES, &s), 0);
    with("Expires: 60\r\nMin-Expires: 4294967295\r\n");
    assert_int_equal(hf_sip_expires(&m, HF_SIP_H_EXPIRES, &s), 1);
    assert_int_equal(s, 60);
    assert_int_equal(hf_sip_expires(&m, HF_SIP_H_MIN_EXPIRES, &s), 1);
    assert_int_equal(s, UINT32_MAX);
    with("Expires: 4294967296\r\n");
    assert_int_equal(hf_sip_expires(&m, HF_SIP_H_EXPIRES, &s), 1);
    assert_int_equal(s, 3600);
    with("Expires: 1\r\nExpires: 2\r\n");
    assert_int_equal(hf_sip_expires(&m, HF_SIP_H_EXPIRES, &s), -HF_EMALF);
    struct hf_sip_address c = {.params = S(";expires=30")}, none = {0}, star = {.star = true};
    with("Expires: 60\r\n");
    assert_int_equal(hf_sip_contact_expires(&m, &c, 3600, &s), 0);
    assert_int_equal(s, 30);
    assert_int_equal(hf_sip_contact_expires(&m, &none, 3600, &s), 0);
    assert_int_equal(s, 60);
    assert_int_equal(hf_sip_contact_expires(&m, &star, 3600, &s), -HF_EMALF);
    with("Expires: 0\r\n");
    assert_int_equal(hf_sip_contact_expires(&m, &star, 3600, &s), 0);
    assert_int_equal(s, 0);
    with("");
    assert_int_equal(hf_sip_contact_expires(&m, &none, 3600, &s), 0);
    assert_int_equal(s, 3600);
    assert_int_equal(hf_sip_contact_expires(&m, &star, 0, &s), -HF_EMALF);
    with("Retry-After: 18 (in a meeting);duration=9\r\n");
    assert_int_equal(hf_sip_retry_after(&m, &s), 1);
    assert_int_equal(s, 18);
    with("Retry-After: soon\r\n");
    assert_int_equal(hf_sip_retry_after(&m, &s), -HF_EMALF);
    with("Retry-After: 1x\r\n");
    assert_int_equal(hf_sip_retry_after(&m, &s), -HF_EMALF);
}

static void tags(void **state)
{
    (void)state;
    static const char *const known[] = {"path", "outbound", NULL};
    struct hf_slice s;
    with("Supported: Path, gruu\r\nRequire: path , OUTBOUND\r\nk: timer\r\nAccept: a/b;q=0.1\r\n");
    assert_true(hf_sip_lists(&m, HF_SIP_H_SUPPORTED, "path"));
    assert_true(hf_sip_lists(&m, HF_SIP_H_SUPPORTED, "timer"));
    assert_false(hf_sip_lists(&m, HF_SIP_H_SUPPORTED, "pat"));
    assert_false(hf_sip_lists(&m, HF_SIP_H_PROXY_REQUIRE, "path"));
    assert_int_equal(hf_sip_unknown_token(&m, HF_SIP_H_REQUIRE, known, &s), 0);
    assert_int_equal(hf_sip_unknown_token(&m, HF_SIP_H_SUPPORTED, known, &s), 1);
    hf_assert_slice_str(s, "gruu");
    assert_int_equal(hf_sip_unknown_token(&m, HF_SIP_H_ACCEPT, known, &s), -HF_EMALF);
}

static void events(void **state)
{
    (void)state;
    struct hf_sip_event e;
    struct hf_sip_substate st;
    struct hf_sip_type t;
    struct hf_slice s;
    with("");
    assert_int_equal(hf_sip_event(&m, &e), 0);
    assert_int_equal(hf_sip_subscription_state(&m, &st), 0);
    assert_int_equal(hf_sip_content_type(&m, &t), 0);
    assert_int_equal(hf_sip_etag(&m, HF_SIP_H_SIP_ETAG, &s), 0);
    with("o: presence.winfo ; id=7\r\nSubscription-State: terminated;reason=deactivated;"
         "retry-after=5\r\nc: application / pidf+xml;charset=\"x\"\r\nSIP-If-Match: e1\r\n");
    assert_int_equal(hf_sip_event(&m, &e), 1);
    hf_assert_slice_str(e.package, "presence.winfo");
    hf_assert_slice_str(e.id, "7");
    assert_int_equal(hf_sip_subscription_state(&m, &st), 1);
    hf_assert_slice_str(st.state, "terminated");
    hf_assert_slice_str(st.reason, "deactivated");
    assert_false(st.has_expires);
    assert_int_equal(st.retry_after_s, 5);
    assert_int_equal(hf_sip_content_type(&m, &t), 1);
    hf_assert_slice_str(t.subtype, "pidf+xml");
    assert_int_equal(hf_sip_etag(&m, HF_SIP_H_SIP_IF_MATCH, &s), 1);
    hf_assert_slice_str(s, "e1");
    with("Event: ;id=1\r\nSubscription-State: active;expires=x\r\nContent-Type: text\r\n"
         "SIP-ETag: a b\r\n");
    assert_int_equal(hf_sip_event(&m, &e), -HF_EMALF);
    assert_int_equal(hf_sip_subscription_state(&m, &st), -HF_EMALF);
    assert_int_equal(hf_sip_content_type(&m, &t), -HF_EMALF);
    assert_int_equal(hf_sip_etag(&m, HF_SIP_H_SIP_ETAG, &s), -HF_EMALF);
}

static void dates(void **state)
{
    (void)state;
    static const struct {
        const char *date;
        int64_t s;
    } good[] = {
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Sat, 13 Nov 2010 23:29:00 GMT", 1289690940},
        {"Tue, 29 Feb 2000 12:00:00 GMT", 951825600},
        {"Fri, 01 Mar 2024 00:00:00 GMT", 1709251200},
        {"Thu, 31 Dec 2099 23:59:59 gmt", 4102444799},
    };
    static const char *const bad[] = {
        "",
        "Sat, 13 Nov 2010 23:29:00 EST",
        "Sat, 13 Nov 2010 23:29:00 UTC",
        "Sat, 13 Nov 2010 23:29:00",
        "Sat, 13 Nov 2010 24:29:00 GMT",
        "Sat, 3 Nov 2010 23:29:00 GMT",
        "Sat, 00 Nov 2010 23:29:00 GMT",
        "Sat 13 Nov 2010 23:29:00 GMT",
        "Sam, 13 Nov 2010 23:29:00 GMT",
        "Sat, 13 Nop 2010 23:29:00 GMT",
        "Sat, 13 Nov 10 23:29:00 GMT",
    };
    char line[64];
    int64_t s;
    for (size_t i = 0; i < HF_ARRAY_LEN(good); i++) {
        snprintf(line, sizeof(line), "Date: %s\r\n", good[i].date);
        with(line);
        assert_int_equal(hf_sip_date(&m, &s), 1);
        assert_true(s == good[i].s);
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        snprintf(line, sizeof(line), "Date: %s\r\n", bad[i]);
        with(line);
        assert_int_equal(hf_sip_date(&m, &s), -HF_EMALF);
    }
}

static void scrutiny(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        enum hf_sip_field_id id;
    } bad[] = {
        {"Contact: <sip:a>;q=2\r\n", HF_SIP_H_CONTACT},
        {"Contact: *, <sip:a>\r\n", HF_SIP_H_CONTACT},
        {"Record-Route: sip:a?b=c\r\n", HF_SIP_H_RECORD_ROUTE},
        {"Supported: a b\r\n", HF_SIP_H_SUPPORTED},
        {"Expires: x\r\n", HF_SIP_H_EXPIRES},
        {"Authorization: Digest\r\n", HF_SIP_H_AUTHORIZATION},
        {"Date: now\r\n", HF_SIP_H_DATE},
        {"Event:\r\n", HF_SIP_H_EVENT},
        {"Retry-After: x\r\n", HF_SIP_H_RETRY_AFTER},
        {"SIP-ETag:\r\n", HF_SIP_H_SIP_ETAG},
        {"Content-Type: x\r\n", HF_SIP_H_CONTENT_TYPE},
        {"Subscription-State: \r\n", HF_SIP_H_SUBSCRIPTION_STATE},
    };
    with("Contact: <sip:a>;q=1\r\nSupported:\r\nRoute: <sip:b;lr>\r\nExpires: 1\r\n"
         "Authorization: Digest x=y\r\nX: y\r\n");
    assert_int_equal(hf_sip_scrutinise(&m), HF_SIP_H_OTHER);
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        with(bad[i].line);
        assert_int_equal(hf_sip_scrutinise(&m), bad[i].id);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(expires), HF_TEST(tags), HF_TEST(events), HF_TEST(dates), HF_TEST(scrutiny),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
