/* core/sip/uri: what is a URI, RFC 3261 19.1.4's comparisons, and the canonical address of record.
 */
#include "core/sip/uri.h"

#include <stdio.h>

#include "base/err.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_sip_uri uri(const char *s)
{
    struct hf_sip_uri u;
    int rc = hf_sip_uri_parse(hf_slice_str(s), &u);
    if (rc) {
        fail_msg("%s: %d", s, rc);
    }
    return u;
}

static void parts(void **state)
{
    (void)state;
    struct hf_sip_uri u =
        uri("sIp:us%20er;x?/:pa$s@[2001:db8::1]:5070;lr;transport=TCP;a=%3b?Subject=x%20y&b=");
    struct hf_slice v;
    assert_int_equal(u.scheme, HF_SIP_SCHEME_SIP);
    hf_assert_slice_str(u.user, "us%20er;x?/");
    hf_assert_slice_str(u.password, "pa$s");
    hf_assert_slice_str(u.host.text, "2001:db8::1");
    assert_int_equal(u.host.kind, HF_SIP_HOST_IPV6);
    assert_int_equal(u.host.port, 5070);
    hf_assert_slice_str(u.params, "lr;transport=TCP;a=%3b");
    hf_assert_slice_str(u.headers, "Subject=x%20y&b=");
    assert_true(hf_sip_uri_param(&u, "LR", &v));
    assert_null(v.p);
    assert_true(hf_sip_uri_param(&u, "transport", &v));
    hf_assert_slice_str(v, "TCP");
    assert_false(hf_sip_uri_param(&u, "maddr", &v));
    u = uri("sips:example.com");
    assert_null(u.user.p);
    assert_int_equal(u.scheme, HF_SIP_SCHEME_SIPS);
    u = uri("tel:+1-(201)-555-0123;isub=9;ext=7");
    hf_assert_slice_str(u.user, "+1-(201)-555-0123");
    assert_true(hf_sip_uri_param(&u, "isub", &v));
    hf_assert_slice_str(v, "9");
    u = uri("sip:192.0.2.1");
    assert_int_equal(u.host.kind, HF_SIP_HOST_IPV4);
}

static void refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "sip",
        "sip:",
        ":a@b",
        "sip:@b",
        "sip:a@",
        "sip:a@b@c",
        "sip:a:b:c@d",
        "sip:a b@c",
        "sip:a%2@b",
        "sip:a%zz@b",
        "sip:a#@b",
        "sip:b:",
        "sip:b:0",
        "sip:b:65536",
        "sip:b:50x",
        "sip:b;",
        "sip:b;=x",
        "sip:b;x=",
        "sip:b;x;;y",
        "sip:b?",
        "sip:b?x",
        "sip:b?=y",
        "sip:b?x=y&",
        "sip:a..b",
        "sip:.a",
        "sip:-a",
        "sip:1.2.3",
        "sip:1.2.3.256",
        "sip:2001:db8::1",
        "sip:[2001:db8::1",
        "sip:[1.2.3.4]",
        "sip:[]",
        "sip:[::1]x",
        "<sip:b>",
        " sip:b",
        "sip:b ",
        "sip:b\n",
        "tel:",
        "tel:+",
        "tel:+-",
        "tel:+1a",
        "tel:1 2",
        "1x:abc",
        "x y:abc",
        "http:",
        "http:a b",
        "a_b:c",
    };
    struct hf_sip_uri u;
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        if (hf_sip_uri_parse(hf_slice_str(bad[i]), &u) != -HF_EMALF) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
    assert_int_equal(hf_sip_uri_parse(S("http://a/b?c#d"), &u), -HF_EVALUE);
    assert_int_equal(u.scheme, HF_SIP_SCHEME_OTHER);
    hf_assert_slice_str(u.scheme_text, "http");
}

static bool equal(const char *a, const char *b)
{
    struct hf_sip_uri x, y;
    assert_int_not_equal(hf_sip_uri_parse(hf_slice_str(a), &x), -HF_EMALF);
    assert_int_not_equal(hf_sip_uri_parse(hf_slice_str(b), &y), -HF_EMALF);
    bool eq = hf_sip_uri_equal(&x, &y);
    assert_int_equal(eq, hf_sip_uri_equal(&y, &x));
    assert_true(hf_sip_uri_equal(&x, &x));
    return eq;
}

/* RFC 3261 19.1.4's own examples, then ours. */
static void comparison(void **state)
{
    (void)state;
    static const char *const same[][2] = {
        {"sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"},
        {"sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"},
        {"sip:carol@chicago.com", "sip:carol@chicago.com;security=on"},
        {"sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
         "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com"},
        {"sip:alice@atlanta.com?subject=project%20x&priority=urgent",
         "sip:alice@atlanta.com?priority=urgent&subject=project%20x"},
        {"sip:a@b.", "sip:a@B"},
        {"sip:a@[2001:DB8::0:1]", "sip:a@[2001:db8::1]"},
        {"SIP:a@b", "sip:a@b"},
        {"tel:+1-201-555-0123", "tel:+1(201)5550123"},
        {"tel:7042;phone-context=Example.com", "tel:70-42;PHONE-CONTEXT=example.com"},
        {"http://x", "http://x"},
        {"sip:a@b;x=1;x=2", "sip:a@b;x=1"}, /* the first counts */
        {"sip:a@b?Route=x&Route=y", "sip:a@b?Route=y&Route=x"},
        {"tel:+1;ext=1;ext=2", "tel:+1;ext=1;ext=3"},
    };
    static const char *const other[][2] = {
        {"SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"},
        {"sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"},
        {"sip:bob@biloxi.com", "sip:bob@biloxi.com;user=phone"},
        {"sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"},
        {"sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"},
        {"sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"},
        {"sip:a@b", "sips:a@b"},
        {"sip:a@b", "sip:b"},
        {"sip:a@b", "sip:a:@b"},
        {"sip:a;b@c", "sip:a%3bb@c"}, /* reserved ones differ from their escape */
        {"sip:a@b;transport=udp", "sip:a@b;transport=tcp"},
        {"sip:a@b;maddr=1.2.3.4", "sip:a@b"},
        {"sip:a@b;ttl=1", "sip:a@b"},
        {"sip:a@b;x=1;x=2", "sip:a@b;x=2"},
        {"sip:a@b?Route=x&Route=y", "sip:a@b?Route=x"},
        {"tel:+12015550123", "tel:+12015550123;ext=1"},
        {"tel:12015550123", "tel:+12015550123"},
        {"http://x", "http://X"},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(same); i++) {
        if (!equal(same[i][0], same[i][1])) {
            fail_msg("%s != %s", same[i][0], same[i][1]);
        }
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(other); i++) {
        if (equal(other[i][0], other[i][1])) {
            fail_msg("%s == %s", other[i][0], other[i][1]);
        }
    }
}

static void aor(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"sip:Alice@Example.COM", "sip:Alice@example.com"},
        {"sips:%41lice:secret@example.com.:5061;transport=tls?x=y", "sip:Alice@example.com"},
        {"sip:alice@example.com:5060", "sip:alice@example.com"},
        {"sip:alice@example.com:5061", "sip:alice@example.com"},
        {"sips:alice@example.com:5060", "sip:alice@example.com"},
        {"sip:alice@example.com:5062", "sip:alice@example.com:5062"},
        {"sip:a%2fb%3b%40%00%c3%a9@h", "sip:a/b;%40%00%C3%A9@h"},
        {"sip:[2001:DB8:0:0::1]:5080", "sip:[2001:db8::1]:5080"},
        {"sip:alice@192.000.002.001", "sip:alice@192.0.2.1"},
        {"sip:+1555;user=phone@h", "sip:+1555;user=phone@h"},
        {"sip:+1555@h;user=phone", "sip:+1555@h"},
        {"tel:+1-201-555;ext=2", "tel:+1201555"},
        {"tel:704;phone-context", "tel:704"},
        {"tel:70-4A;phone-context=Example.COM", "tel:704a;phone-context=example.com"},
    };
    char buf[HF_SIP_AOR_MAX];
    struct hf_wr w;
    struct hf_slice s;
    for (size_t i = 0; i < HF_ARRAY_LEN(pairs); i++) {
        struct hf_sip_uri u = uri(pairs[i][0]);
        hf_wr_init(&w, buf, sizeof(buf));
        assert_int_equal(hf_sip_aor(&u, &w), 0);
        assert_int_equal(hf_wr_end(&w, &s), 0);
        hf_assert_slice_str(s, pairs[i][1]);
        char again[HF_SIP_AOR_MAX];
        assert_int_equal(hf_sip_uri_parse(s, &u), 0); /* a URI again, and its own AoR */
        hf_wr_init(&w, again, sizeof(again));
        assert_int_equal(hf_sip_aor(&u, &w), 0);
        assert_int_equal(hf_wr_len(&w), s.n);
        assert_memory_equal(again, buf, s.n);
    }
    struct hf_sip_uri u = uri("sip:alice@example.com");
    hf_wr_init(&w, buf, 20);
    assert_int_equal(hf_sip_aor(&u, &w), -HF_EFULL);
    assert_int_equal(hf_sip_uri_parse(S("im:a@b"), &u), -HF_EVALUE);
    hf_wr_init(&w, buf, sizeof(buf));
    assert_int_equal(hf_sip_aor(&u, &w), -HF_EVALUE);
    assert_int_equal(hf_wr_len(&w), 0);
}

static void hosts(void **state)
{
    (void)state;
    struct hf_sip_host a, b;
    struct hf_sip_cur c = hf_sip_cur(S("example.com \r\n : 5070;x"));
    assert_int_equal(hf_sip_host_parse(&c, true, &a), 0);
    assert_int_equal(a.port, 5070);
    assert_int_equal(hf_sip_peek(&c), ';');
    c = hf_sip_cur(S("EXAMPLE.com. :5070"));
    assert_int_equal(hf_sip_host_parse(&c, false, &b), 0);
    assert_int_equal(b.port, 0);
    assert_true(hf_sip_host_eq(&a, &b));
    c = hf_sip_cur(S("192.0.2.1"));
    assert_int_equal(hf_sip_host_parse(&c, false, &b), 0);
    assert_false(hf_sip_host_eq(&a, &b));
}

/* From heap buffers of the exact size, so that a sanitizer sees a step beyond. */
static void truncated(void **state)
{
    (void)state;
    const char *const whole = "sips:us%20er:pw@[2001:db8::192.0.2.1]:5070;lr;x=%20?a=b&c=d";
    for (size_t n = 0; n <= strlen(whole); n++) {
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, whole, n);
        struct hf_sip_uri u;
        int rc = hf_sip_uri_parse(hf_slice(copy, n), &u);
        assert_true(rc == 0 || rc == -HF_EMALF);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(parts), HF_TEST(refused), HF_TEST(comparison),
        HF_TEST(aor),   HF_TEST(hosts),   HF_TEST(truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
