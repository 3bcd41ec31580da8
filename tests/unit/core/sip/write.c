/* core/sip/write: whole messages as text, and that what is written is read again as it was meant.
 */
#include "core/sip/write.h"

#include <stdio.h>

#include "base/err.h"
#include "core/sip/fields.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_sip_msg m, again;
static char buf[8192];
static struct hf_wr w;
static struct hf_slice out;

static const struct hf_endpoint v4 = {.family = HF_AF_INET, .addr = {192, 0, 2, 99}, .port = 40000};
static const struct hf_endpoint v6 = {
    .family = HF_AF_INET6, .addr = {0x20, 1, 0xd, 0xb8, [15] = 1}, .port = 5060};

static void parse(const char *s)
{
    int rc = hf_sip_parse(hf_slice_str(s), false, &m);
    (void)rc; /* faulty ones are answered, too */
    hf_wr_init(&w, buf, sizeof(buf));
}

static void ends(const char *want)
{
    assert_int_equal(hf_sip_end(&w, S(""), m.request ? S("") : m.body, &out), 0);
    if (!hf_slice_eq(out, hf_slice_str(want))) {
        fail_msg("got:\n%.*s\nwant:\n%s", HF_SLICE_FMT(out), want);
    }
    assert_int_equal(hf_sip_parse(out, true, &again), 0);
}

static const char registers[] =
    "REGISTER sip:example.com SIP/2.0\r\n"
    "v: SIP/2.0/UDP a.example.com:5070 ; branch=z9hG4bK1;RPORT;x=\"1,2\" , SIP/2.0/TCP b\r\n"
    "From: \"A\" <sip:a@example.com>;tag=1\r\n"
    "t: <sip:a@example.com>\r\n"
    "Via: SIP/2.0/UDP c\r\n"
    "i: c1\r\n"
    "CSEQ: 5\r\n REGISTER\r\n"
    "Contact: <sip:a@192.0.2.1>\r\n"
    "\r\n";

static void responses(void **state)
{
    (void)state;
    parse(registers);
    assert_int_equal(hf_sip_begin_response(&w, &m, 200, S(""), S("t7"), &v4), 0);
    hf_sip_put_copies(&w, &m, HF_SIP_H_CONTACT);
    hf_sip_put_number(&w, HF_SIP_H_EXPIRES, 3600);
    ends("SIP/2.0 200 OK\r\n"
         "Via: SIP/2.0/UDP a.example.com:5070;branch=z9hG4bK1;x=\"1,2\";rport=40000"
         ";received=192.0.2.99 , SIP/2.0/TCP b\r\n"
         "Via: SIP/2.0/UDP c\r\n"
         "From: \"A\" <sip:a@example.com>;tag=1\r\n"
         "t: <sip:a@example.com>;tag=t7\r\n"
         "i: c1\r\n"
         "CSEQ: 5\r\n REGISTER\r\n"
         "Contact: <sip:a@192.0.2.1>\r\n"
         "Expires: 3600\r\n"
         "Content-Length: 0\r\n\r\n");
    assert_int_equal(again.n_vias, 3);
    assert_int_equal(again.via.rport, 40000);
    hf_assert_slice_str(again.via.received, "192.0.2.99");
    hf_assert_slice_str(hf_sip_address_tag(&again.to), "t7");
    /* a To that has a tag keeps it; a sent-by that is the source needs no received */
    parse("BYE sip:h SIP/2.0\r\nVia: SIP/2.0/TCP [2001:db8::1];received=192.0.2.7\r\n"
          "From: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 BYE\r\n\r\n");
    assert_int_equal(hf_sip_begin_response(&w, &m, 481, S(""), S("t7"), &v6), 0);
    ends("SIP/2.0 481 Call/Transaction Does Not Exist\r\nVia: SIP/2.0/TCP [2001:db8::1]\r\n"
         "From: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 BYE\r\n"
         "Content-Length: 0\r\n\r\n");
    /* without source nothing is stamped; 100 gets no tag */
    parse(registers);
    assert_int_equal(hf_sip_begin_response(&w, &m, 100, S("Wait"), S(""), NULL), 0);
    assert_int_equal(hf_sip_end(&w, S(""), S(""), &out), 0);
    assert_true(hf_slice_starts(out, S("SIP/2.0 100 Wait\r\nv: SIP/2.0/UDP a.example.com:5070 ; "
                                       "branch=z9hG4bK1;RPORT;")));
    assert_int_equal(hf_sip_parse(out, true, &again), 0);
    assert_int_equal(hf_sip_address_tag(&again.to).n, 0);
}

/* What is faulty is answered as far as it can be, and its faults do not travel. */
static void responses_to_faults(void **state)
{
    (void)state;
    parse("INVITE sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h;;\r\nTo: <x\r\nFrom: a\x01"
          "b\rc\r\n"
          "CSeq: 1 INVITE\r\nCSeq: 2 INVITE\r\nX: y\r\n\r\n");
    assert_int_equal(m.fault, HF_SIP_FAULT_CONTROL);
    assert_int_equal(
        hf_sip_begin_response(&w, &m, 400, hf_slice_str(hf_sip_fault_text(m.fault)), S("t"), &v4),
        0);
    assert_int_equal(hf_sip_end(&w, S(""), S(""), &out), 0);
    hf_assert_slice_str(out,
                        "SIP/2.0 400 Control Character in Header\r\nVia: SIP/2.0/UDP h;;\r\n"
                        "From: a b c\r\nTo: <x\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n");
    parse("ACK sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n");
    assert_int_equal(hf_sip_begin_response(&w, &m, 400, S(""), S("t"), &v4), -HF_EMALF);
    assert_int_equal(hf_wr_len(&w), 0);
}

static void forwards(void **state)
{
    (void)state;
    struct hf_sip_forward how = {
        .uri = S("sip:a@192.0.2.1;ob"),
        .transport = HF_SIP_TRANSPORT_TLS,
        .sent_by = S("[2001:db8::5]:5061"),
        .branch = S("z9hG4bKx"),
        .via_params = S(";flow=7"),
        .rport = true,
        .source = &v4,
        .record_route = S("<sip:e;lr>"),
        .path = S("<sip:f@e;lr;ob>"),
        .route = S("<sip:n;lr>"),
        .pop_routes = 1,
        .drop = 1ULL << HF_SIP_H_PROXY_AUTHORIZATION,
    };
    parse("INVITE sip:a@example.com SIP/2.0\r\n"
          "Max-Forwards: 010\r\n"
          "Route: <sip:own;lr>, <sip:next;lr>;x\r\n"
          "Via: SIP/2.0/UDP h;rport\r\n"
          "Proxy-Authorization: Digest x=y\r\n"
          "From: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n"
          "Route: <sip:last;lr>\r\n"
          "Strange:  \t a\r\n b\r\n"
          "Subject :\r\n"
          "Record-Route: <sip:below;lr>\r\n"
          "c: text/plain\r\nl: 2\r\n\r\nhi and more");
    assert_int_equal(hf_sip_begin_forward(&w, &m, &how), 0);
    assert_int_equal(hf_sip_end(&w, S(""), m.body, &out), 0);
    hf_assert_slice_str(out,
                        "INVITE sip:a@192.0.2.1;ob SIP/2.0\r\n"
                        "Via: SIP/2.0/TLS [2001:db8::5]:5061;branch=z9hG4bKx;flow=7;rport\r\n"
                        "Record-Route: <sip:e;lr>\r\n"
                        "Path: <sip:f@e;lr;ob>\r\n"
                        "Route: <sip:n;lr>\r\n"
                        "Route: <sip:next;lr>;x\r\n"
                        "Route: <sip:last;lr>\r\n"
                        "Max-Forwards: 9\r\n"
                        "Via: SIP/2.0/UDP h;rport=40000;received=192.0.2.99\r\n"
                        "From: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n"
                        "Strange:  \t a\r\n b\r\n"
                        "Subject :\r\n"
                        "Record-Route: <sip:below;lr>\r\n"
                        "c: text/plain\r\nContent-Length: 2\r\n\r\nhi");
    assert_int_equal(hf_sip_parse(out, true, &again), 0);
    assert_int_equal(again.n_vias, 2);
    /* the shortest form; what came from a strict router: its last Route was the Request-URI */
    struct hf_sip_forward plain = {
        .sent_by = S("e"), .branch = S("z9hG4bKy"), .pop_last_route = true};
    hf_wr_init(&w, buf, sizeof(buf));
    parse("OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nRoute: <sip:one;lr>,<sip:two>\r\n"
          "From: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n");
    assert_int_equal(hf_sip_begin_forward(&w, &m, &plain), 0);
    ends("OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/UDP e;branch=z9hG4bKy\r\nRoute: <sip:one;lr>\r\n"
         "Max-Forwards: 70\r\nVia: SIP/2.0/UDP h\r\n"
         "From: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n"
         "Content-Length: 0\r\n\r\n");
    /* refused */
    hf_wr_init(&w, buf, sizeof(buf));
    parse("OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nRoute: x\r\n"
          "From: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n");
    assert_int_equal(hf_sip_begin_forward(&w, &m, &plain), -HF_EMALF);
    parse("OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nMax-Forwards: 0\r\n"
          "From: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n");
    assert_int_equal(hf_sip_begin_forward(&w, &m, &plain), -HF_EVALUE);
    assert_int_equal(hf_wr_len(&w), 0);
}

static void relays(void **state)
{
    (void)state;
    parse("SIP/2.0 200 Fine\r\nl: 2\r\nVia: SIP/2.0/UDP us;branch=1 ,\r\n SIP/2.0/UDP h;x\r\n"
          "From: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\nhi");
    assert_int_equal(hf_sip_begin_relay(&w, &m), 0);
    ends("SIP/2.0 200 Fine\r\nVia: SIP/2.0/UDP h;x\r\n"
         "From: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n"
         "Content-Length: 2\r\n\r\nhi");
    parse("SIP/2.0 200 \r\nVia: SIP/2.0/UDP us\r\nv: SIP/2.0/UDP h\r\n"
          "From: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n");
    assert_int_equal(hf_sip_begin_relay(&w, &m), 0);
    ends("SIP/2.0 200 \r\nv: SIP/2.0/UDP h\r\n"
         "From: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n"
         "Content-Length: 0\r\n\r\n");
    parse("SIP/2.0 200 \r\nVia: SIP/2.0/UDP us\r\n"
          "From: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n");
    assert_int_equal(hf_sip_begin_relay(&w, &m), -HF_EMALF);
    parse("SIP/2.0 200 \r\nVia: SIP/2.0/UDP us, SIP/2.0/UDP h;received=239.1.1.1\r\n"
          "From: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n");
    assert_int_equal(hf_sip_begin_relay(&w, &m), -HF_EVALUE);
}

static void requests(void **state)
{
    (void)state;
    struct hf_sip_request r = {
        .method = S("NOTIFY"),
        .uri = S("sip:w@192.0.2.1:5070"),
        .transport = HF_SIP_TRANSPORT_UDP,
        .sent_by = S("h1.example.com"),
        .branch = S("z9hG4bKn"),
        .rport = true,
        .from = S("<sip:a@example.com>;tag=9"),
        .to = S("<sip:w@example.com>;tag=8"),
        .call_id = S("sub1"),
        .cseq = 128,
        .max_forwards = 70,
        .route = S("<sip:e;lr>, <sip:f;lr>"),
        .contact = S("<sip:h1.example.com>"),
    };
    hf_wr_init(&w, buf, sizeof(buf));
    assert_int_equal(hf_sip_begin_request(&w, &r), 0);
    hf_sip_put_field(&w, HF_SIP_H_EVENT, S("reg"));
    hf_sip_put_field(&w, HF_SIP_H_SUBSCRIPTION_STATE, S("terminated;reason=deactivated"));
    assert_int_equal(hf_sip_end(&w, S("application/reginfo+xml"), S("<x/>"), &out), 0);
    hf_assert_slice_str(out, "NOTIFY sip:w@192.0.2.1:5070 SIP/2.0\r\n"
                             "Via: SIP/2.0/UDP h1.example.com;branch=z9hG4bKn;rport\r\n"
                             "Route: <sip:e;lr>, <sip:f;lr>\r\n"
                             "Max-Forwards: 70\r\n"
                             "From: <sip:a@example.com>;tag=9\r\n"
                             "To: <sip:w@example.com>;tag=8\r\n"
                             "Call-ID: sub1\r\n"
                             "CSeq: 128 NOTIFY\r\n"
                             "Contact: <sip:h1.example.com>\r\n"
                             "Event: reg\r\n"
                             "Subscription-State: terminated;reason=deactivated\r\n"
                             "Content-Type: application/reginfo+xml\r\n"
                             "Content-Length: 4\r\n\r\n<x/>");
    struct hf_sip_substate st;
    assert_int_equal(hf_sip_parse(out, true, &again), 0);
    assert_int_equal(again.cseq, 128);
    assert_int_equal(hf_sip_subscription_state(&again, &st), 1);
    hf_assert_slice_str(st.reason, "deactivated");
    /* nobody smuggles a field in */
    r.contact = S("<sip:h>\r\nX: y");
    hf_wr_init(&w, buf, sizeof(buf));
    assert_int_equal(hf_sip_begin_request(&w, &r), -HF_EVALUE);
    /* at every size it either fits or says so, and writes nothing beyond */
    r.contact = S("<sip:h>");
    for (size_t n = 0; n < 400; n++) {
        char *small = malloc(n + 1);
        assert_non_null(small);
        hf_wr_init(&w, small, n);
        int rc = hf_sip_begin_request(&w, &r);
        rc = hf_sip_end(&w, S(""), S("x"), &out);
        assert_true(rc == 0 || rc == -HF_EFULL);
        free(small);
    }
}

static void pieces(void **state)
{
    (void)state;
    char small[128];
    hf_wr_init(&w, small, sizeof(small));
    hf_sip_put_u64(&w, UINT64_MAX);
    hf_sip_put_u64(&w, 0);
    hf_sip_put_quoted(&w, hf_slice("a\"b\\c\n\0d", 8));
    hf_sip_put_name(&w, HF_SIP_H_VIA);
    hf_sip_put_param(&w, &(struct hf_sip_param){.name = S("lr")});
    hf_sip_put_param(&w, &(struct hf_sip_param){.name = S("q"), .value = S("")});
    hf_sip_put_param(&w, &(struct hf_sip_param){.name = S("tag"), .value = S("\"a\"")});
    hf_sip_put_eol(&w);
    assert_int_equal(hf_wr_end(&w, &out), 0);
    hf_assert_slice_str(out, "184467440737095516150\"a\\\"b\\\\cd\"Via: ;lr;q=;tag=\"a\"\r\n");
    assert_string_equal(hf_sip_reason(100), "Trying");
    assert_string_equal(hf_sip_reason(423), "Interval Too Brief");
    assert_string_equal(hf_sip_reason(607), "Unwanted");
    assert_string_equal(hf_sip_reason(299), "Unknown");
    for (int f = 1; f < HF_SIP_FAULT_COUNT_; f++) { /* every status that is answered has its text */
        assert_string_not_equal(hf_sip_reason(hf_sip_fault_status((enum hf_sip_fault)f)),
                                "Unknown");
    }
}

static void transaction(const char *method, const char *branch, const char *cseq, char ret[40])
{
    static char text[512];
    snprintf(text, sizeof(text),
             "%s sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h:5;branch=%s\r\nFrom: <sip:a>;tag=1\r\n"
             "To: <sip:b>\r\nCall-ID: x\r\nCSeq: %s %s\r\n\r\n",
             method, branch, cseq, method);
    assert_int_equal(hf_sip_parse(hf_slice_str(text), false, &m), 0);
    hf_sip_stateless_branch(&m, S("epoch 3"), 7, ret);
    hf_sip_stateless_tag(&m, 7, ret + HF_SIP_BRANCH_LEN);
    ret[39] = 0;
}

static void stateless(void **state)
{
    (void)state;
    char a[40], b[40];
    transaction("INVITE", "z9hG4bKq", "1", a);
    assert_memory_equal(a, HF_SIP_COOKIE, 7);
    transaction("INVITE", "z9hG4bKq", "1", b); /* a retransmission */
    assert_string_equal(a, b);
    transaction("CANCEL", "z9hG4bKq", "1", b);
    assert_memory_equal(a, b, HF_SIP_BRANCH_LEN);
    transaction("INVITE", "z9hG4bKr", "1", b);
    assert_memory_not_equal(a, b, HF_SIP_BRANCH_LEN);
    assert_memory_not_equal(a + HF_SIP_BRANCH_LEN, b + HF_SIP_BRANCH_LEN, 16);
    transaction("INVITE", "1", "1", a); /* RFC 2543's: by the other fields */
    transaction("ACK", "1", "1", b);
    assert_memory_equal(a, b, HF_SIP_BRANCH_LEN);
    transaction("INVITE", "1", "2", b);
    assert_memory_not_equal(a, b, HF_SIP_BRANCH_LEN);
    hf_sip_stateless_branch(&m, S("epoch 4"), 7, a);
    assert_memory_not_equal(a, b, HF_SIP_BRANCH_LEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(responses), HF_TEST(responses_to_faults),
        HF_TEST(forwards),  HF_TEST(relays),
        HF_TEST(requests),  HF_TEST(pieces),
        HF_TEST(stateless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
