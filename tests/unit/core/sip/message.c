/* core/sip/message: the header table, what everybody needs of it, faults and their status, walks.
 */
#include "core/sip/message.h"

#include <stdio.h>

#include "base/err.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

/* A good request; a test changes one line of it. */
#define START "REGISTER sip:example.com SIP/2.0\r\n"
#define VIA "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport\r\n"
#define FROM "From: Anna <sip:anna@example.com>;tag=f1\r\n"
#define TO "To: <sip:anna@example.com>\r\n"
#define CALL_ID "Call-ID: c1@192.0.2.1\r\n"
#define CSEQ "CSeq: 7 REGISTER\r\n"
#define REST "Max-Forwards: 70\r\nContact: <sip:anna@192.0.2.1>\r\nContent-Length: 0\r\n\r\n"
#define ALL START VIA FROM TO CALL_ID CSEQ REST

static struct hf_sip_msg m;

static enum hf_sip_fault parse(struct hf_slice s)
{
    int rc = hf_sip_parse(s, false, &m);
    assert_int_equal(rc, m.fault == HF_SIP_OK ? 0 : -HF_EMALF);
    return m.fault;
}

static void names(void **state)
{
    (void)state;
    static const char compact[] = {
#define COMPACT(id, name, c, n, first, last) c,
        HF_SIP_FIELD_LIST(COMPACT)};
    static const char key[][3] = {
#define KEY(id, name, c, n, first, last) {n, first, last},
        HF_SIP_FIELD_LIST(KEY)};
    for (int i = 0; i < HF_SIP_H_OTHER; i++) {
        const char *name = hf_sip_field_name((enum hf_sip_field_id)i);
        char other[32];
        size_t n = strlen(name);
        assert_int_equal(key[i][0], n);
        assert_int_equal(key[i][1], hf_sip_lower((uint8_t)name[0]));
        assert_int_equal(key[i][2], hf_sip_lower((uint8_t)name[n - 1]));
        for (size_t j = 0; j <= n; j++) {
            other[j] = (char)(name[j] >= 'a' && name[j] <= 'z' ? name[j] - 32 : name[j]);
        }
        assert_int_equal(hf_sip_field_find(hf_slice_str(name)), i);
        assert_int_equal(hf_sip_field_find(hf_slice_str(other)), i);
        other[1] ^= 1; /* same length, first and last letter */
        assert_int_equal(hf_sip_field_find(hf_slice_str(other)),
                         n == 2 ? hf_sip_field_find(hf_slice_str(other)) : HF_SIP_H_OTHER);
        if (compact[i]) {
            char upper = (char)(compact[i] - 32);
            assert_int_equal(hf_sip_field_find(hf_slice(&compact[i], 1)), i);
            assert_int_equal(hf_sip_field_find(hf_slice(&upper, 1)), i);
        }
    }
    assert_int_equal(hf_sip_field_find(S("")), HF_SIP_H_OTHER);
    assert_int_equal(hf_sip_field_find(S("z")), HF_SIP_H_OTHER);
    assert_int_equal(hf_sip_field_find(S("X-Via")), HF_SIP_H_OTHER);
    assert_string_equal(hf_sip_field_name(HF_SIP_H_OTHER), "?");
    assert_string_equal(hf_sip_method_name(HF_SIP_PUBLISH), "PUBLISH");
    assert_string_equal(hf_sip_method_name(HF_SIP_METHOD_OTHER), "?");
    assert_int_equal(hf_sip_fault_status(HF_SIP_OK), 0);
    assert_int_equal(hf_sip_fault_status(HF_SIP_FAULT_VERSION), 505);
    assert_string_equal(hf_sip_fault_text(HF_SIP_FAULT_NO_CSEQ), "Missing CSeq");
    for (int f = 1; f < HF_SIP_FAULT_COUNT_; f++) {
        uint16_t status = hf_sip_fault_status((enum hf_sip_fault)f);
        assert_in_range(status, 400, 599);
    }
}

static void good(void **state)
{
    (void)state;
    assert_int_equal(parse(S(ALL "rest of the datagram")), HF_SIP_OK);
    assert_true(m.request);
    assert_int_equal(m.method, HF_SIP_REGISTER);
    hf_assert_slice_str(m.uri.host.text, "example.com");
    assert_int_equal(m.n_vias, 1);
    assert_int_equal(m.via.sent_by.port, 5060);
    hf_assert_slice_str(m.from.display, "Anna");
    hf_assert_slice_str(m.call_id, "c1@192.0.2.1");
    assert_int_equal(m.cseq, 7);
    assert_int_equal(m.max_forwards, 70);
    assert_int_equal(m.body.n, 0);
    assert_int_equal(m.used_n, strlen(ALL));
    assert_int_equal(m.header_n, strlen(ALL));
    assert_true(hf_sip_answerable(&m));
    assert_true(hf_sip_has(&m, HF_SIP_H_CONTACT));
    assert_false(hf_sip_has(&m, HF_SIP_H_OTHER));
    hf_assert_slice_str(hf_sip_field_text(&m, 0), "Via");
    hf_assert_slice_str(hf_sip_field_value(&m, 4), "7 REGISTER");
    assert_int_equal(parse(S("\r\n\r\n" ALL)), HF_SIP_OK); /* 7.5 */
    assert_int_equal(parse(S("OPTIONS sip:h sip/2.0\r\n" VIA FROM TO CALL_ID "CSeq: 1 OPTIONS\r\n"
                             "\r\nbody")),
                     HF_SIP_OK);
    hf_assert_slice_str(m.body, "body");
    assert_int_equal(m.max_forwards, -1);
    assert_int_equal(parse(S("SIP/2.0 302 Moved\r\n" VIA FROM TO CALL_ID CSEQ "\r\n")), HF_SIP_OK);
    assert_false(m.request);
    assert_int_equal(m.status, 302);
    hf_assert_slice_str(m.reason, "Moved");
    assert_int_equal(m.method, HF_SIP_REGISTER);
    assert_false(hf_sip_answerable(&m));
    assert_int_equal(parse(S("SIP/2.0 200\r\n" VIA FROM TO CALL_ID CSEQ "\r\n")), HF_SIP_OK);
    assert_int_equal(m.reason.n, 0);
}

static void faults(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum hf_sip_fault fault;
        bool answerable;
    } bad[] = {
        {"", HF_SIP_FAULT_NO_END, false},
        {"\r\n\r\n", HF_SIP_FAULT_NO_END, false},
        {"REGISTER\r\n\r\n", HF_SIP_FAULT_START_LINE, false},
        {"REGISTER sip:h\r\n" VIA "\r\n", HF_SIP_FAULT_START_LINE, true},
        {"REGISTER sip:h HTTP/1.1\r\n" VIA "\r\n", HF_SIP_FAULT_START_LINE, true},
        {"REGISTER sip:h  SIP/2.0\r\n" VIA "\r\n", HF_SIP_FAULT_START_LINE, true},
        {"REGISTER  sip:h SIP/2.0\r\n" VIA "\r\n", HF_SIP_FAULT_START_LINE, true},
        {"REGISTER sip:h SIP/2.0 \r\n" VIA "\r\n", HF_SIP_FAULT_START_LINE, true},
        {"REG@STER sip:h SIP/2.0\r\n" VIA "\r\n", HF_SIP_FAULT_START_LINE, true},
        {" REGISTER sip:h SIP/2.0\r\n" VIA "\r\n", HF_SIP_FAULT_START_LINE, true},
        {"REGISTER sip:h SIP/3.0\r\n" VIA "\r\n", HF_SIP_FAULT_VERSION, true},
        {"REGISTER sip:h SIP/2.01\r\n" VIA "\r\n", HF_SIP_FAULT_VERSION, true},
        {"REGISTER sip: SIP/2.0\r\n" VIA "\r\n", HF_SIP_FAULT_REQUEST_URI, true},
        {"REGISTER sip:h?a=b SIP/2.0\r\n" VIA "\r\n", HF_SIP_FAULT_REQUEST_URI, true},
        {"REGISTER http://h/ SIP/2.0\r\n" VIA "\r\n", HF_SIP_FAULT_SCHEME, true},
        {"SIP/2.0 99 x\r\n" VIA "\r\n", HF_SIP_FAULT_STATUS, false},
        {"SIP/2.0 700 x\r\n" VIA "\r\n", HF_SIP_FAULT_STATUS, false},
        {"SIP/2.0 2000 x\r\n" VIA "\r\n", HF_SIP_FAULT_STATUS, false},
        {"SIP/1.0 200 x\r\n" VIA "\r\n", HF_SIP_FAULT_VERSION, false},
        {START FROM TO CALL_ID CSEQ REST, HF_SIP_FAULT_NO_VIA, false},
        {START "Via:\r\n" FROM TO CALL_ID CSEQ REST, HF_SIP_FAULT_VIA, false},
        {START "Via: SIP/2.0/UDP h;;\r\n" FROM TO CALL_ID CSEQ REST, HF_SIP_FAULT_VIA, true},
        {START "Via: SIP/2.0/UDP h,\r\n" FROM TO CALL_ID CSEQ REST, HF_SIP_FAULT_VIA, true},
        {START VIA "Via: x\r\n" FROM TO CALL_ID CSEQ REST, HF_SIP_FAULT_VIA, true},
        {START VIA TO CALL_ID CSEQ REST, HF_SIP_FAULT_NO_FROM, true},
        {START VIA "From: x y\r\n" TO CALL_ID CSEQ REST, HF_SIP_FAULT_FROM, true},
        {START VIA "From: sip:a, sip:b\r\n" TO CALL_ID CSEQ REST, HF_SIP_FAULT_FROM, true},
        {START VIA FROM CALL_ID CSEQ REST, HF_SIP_FAULT_NO_TO, true},
        {START VIA FROM "To: *\r\n" CALL_ID CSEQ REST, HF_SIP_FAULT_TO, true},
        {START VIA FROM TO CSEQ REST, HF_SIP_FAULT_NO_CALL_ID, true},
        {START VIA FROM TO "Call-ID:\r\n" CSEQ REST, HF_SIP_FAULT_CALL_ID, true},
        {START VIA FROM TO "Call-ID: a b\r\n" CSEQ REST, HF_SIP_FAULT_CALL_ID, true},
        {START VIA FROM TO "Call-ID: a@\r\n" CSEQ REST, HF_SIP_FAULT_CALL_ID, true},
        {START VIA FROM TO "Call-ID: a@b@c\r\n" CSEQ REST, HF_SIP_FAULT_CALL_ID, true},
        {START VIA FROM TO CALL_ID REST, HF_SIP_FAULT_NO_CSEQ, true},
        {START VIA FROM TO CALL_ID "CSeq: REGISTER\r\n" REST, HF_SIP_FAULT_CSEQ, true},
        {START VIA FROM TO CALL_ID "CSeq: 1\r\n" REST, HF_SIP_FAULT_CSEQ, true},
        {START VIA FROM TO CALL_ID "CSeq: 1REGISTER\r\n" REST, HF_SIP_FAULT_CSEQ, true},
        {START VIA FROM TO CALL_ID "CSeq: 2147483648 REGISTER\r\n" REST, HF_SIP_FAULT_CSEQ, true},
        {START VIA FROM TO CALL_ID "CSeq: 1 register\r\n" REST, HF_SIP_FAULT_CSEQ_METHOD, true},
        {START VIA FROM TO CALL_ID CSEQ "Max-Forwards: 256\r\n\r\n", HF_SIP_FAULT_MAX_FORWARDS,
         true},
        {START VIA FROM TO CALL_ID CSEQ "Max-Forwards: -1\r\n\r\n", HF_SIP_FAULT_MAX_FORWARDS,
         true},
        {START VIA FROM TO CALL_ID CSEQ "l: 1\r\n\r\n", HF_SIP_FAULT_BODY, true},
        {START VIA FROM TO CALL_ID CSEQ "l: 99999999999999999999\r\n\r\n", HF_SIP_FAULT_BODY, true},
        {START VIA FROM TO CALL_ID CSEQ "l: +1\r\n\r\n1", HF_SIP_FAULT_CONTENT_LENGTH, true},
        {START VIA FROM TO CALL_ID CSEQ "l: 0\r\nl: 0\r\n\r\n", HF_SIP_FAULT_REPEATED, true},
        {START VIA FROM FROM TO CALL_ID CSEQ REST, HF_SIP_FAULT_REPEATED, true},
        {START VIA FROM TO CALL_ID CSEQ "X\r\n" REST, HF_SIP_FAULT_FIELD, true},
        {START VIA FROM TO CALL_ID CSEQ "X y: z\r\n" REST, HF_SIP_FAULT_FIELD, true},
        {START VIA FROM TO CALL_ID CSEQ ": z\r\n" REST, HF_SIP_FAULT_FIELD, true},
        {START " x: y\r\n" VIA FROM TO CALL_ID CSEQ REST, HF_SIP_FAULT_FIELD, true},
        {START VIA FROM TO CALL_ID CSEQ "X: a\nY: b\r\n" REST, HF_SIP_FAULT_CONTROL, true},
        {START VIA FROM TO CALL_ID CSEQ "X: a\rY: b\r\n" REST, HF_SIP_FAULT_CONTROL, true},
        {START VIA FROM TO CALL_ID CSEQ "X: \"\\\n\"\r\n" REST, HF_SIP_FAULT_CONTROL, true},
        {START VIA FROM TO CALL_ID CSEQ "X: \x01\r\n" REST, HF_SIP_FAULT_CONTROL, true},
        {START VIA FROM TO CALL_ID CSEQ "X: \\\\\x01\r\n" REST, HF_SIP_FAULT_CONTROL, true},
        {START VIA FROM TO CALL_ID CSEQ "X: y", HF_SIP_FAULT_NO_END, true},
        {START VIA FROM TO CALL_ID CSEQ "X: y\r\n", HF_SIP_FAULT_NO_END, true},
        {"ACK sip:h SIP/2.0\r\n" VIA FROM TO CALL_ID CSEQ REST, HF_SIP_FAULT_CSEQ_METHOD, false},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        enum hf_sip_fault f = parse(hf_slice_str(bad[i].text));
        if (f != bad[i].fault || hf_sip_answerable(&m) != bad[i].answerable) {
            fail_msg("%s\n-> %s, %d", bad[i].text, hf_sip_fault_text(f), hf_sip_answerable(&m));
        }
    }
    assert_int_equal(hf_sip_parse(S(START VIA FROM TO CALL_ID CSEQ "\r\n"), true, &m), -HF_EMALF);
    assert_int_equal(m.fault, HF_SIP_FAULT_NO_CONTENT_LENGTH);
    assert_int_equal(hf_sip_parse(S(ALL), true, &m), 0);
    assert_int_equal(parse(hf_slice("REGISTER sip:h SIP/2.0\r\nX: \0\r\n\r\n", 33)),
                     HF_SIP_FAULT_CONTROL);
}

/* The probes of the research: values are counted, not lines. */
static void via_counts(void **state)
{
    (void)state;
    static const struct {
        const char *vias;
        unsigned n;
    } probes[] = {
        {VIA, 1},
        {VIA VIA, 2},
        {"Via: SIP/2.0/UDP a;branch=1, SIP/2.0/UDP b\r\n", 2},
        {"v: SIP/2.0/UDP a\r\nV: SIP/2.0/UDP b\r\n", 2},
        {"Via: SIP/2.0/UDP a,\r\n SIP/2.0/UDP b\r\n", 2},
        {"Via\r\n : SIP/2.0/UDP a\r\n ,SIP/2.0/UDP b\r\nX: y\r\nvIA:SIP/2.0/TCP c\r\n", 3},
        {"Via: SIP/2.0/UDP a;x=\"1, SIP/2.0/UDP b\"\r\n", 1},
        {"Via: SIP/2.0/UDP a;x=\"\\\",\"\r\n", 1},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(probes); i++) {
        char text[1024];
        int n = snprintf(text, sizeof(text), "%s%s%s", START, probes[i].vias,
                         FROM TO CALL_ID CSEQ REST);
        assert_int_equal(parse(hf_slice(text, (size_t)n)), HF_SIP_OK);
        assert_int_equal(m.n_vias, probes[i].n);
        struct hf_sip_walk w;
        struct hf_sip_via v;
        unsigned walked = 0;
        hf_sip_walk_begin(&w, &m, HF_SIP_H_VIA);
        while (hf_sip_walk_via(&w, &v) == 1) {
            walked++;
        }
        assert_int_equal(walked, probes[i].n);
    }
}

static void folding(void **state)
{
    (void)state;
    assert_int_equal(
        parse(S("REGISTER sip:h SIP/2.0\r\n" VIA "f\t:\r\n\t\"A\r\n B\"\r\n  <sip:a@b>\r\n"
                " ;\r\n tag\r\n =\r\n 1\r\n" TO CALL_ID "CSeq:\r\n 7\r\n\tREGISTER\r\n"
                "Subject: \r\n \r\nX: a\r\n b \r\n\r\n")),
        HF_SIP_OK);
    hf_assert_slice_str(m.from.display, "\"A\r\n B\"");
    hf_assert_slice_str(hf_sip_address_tag(&m.from), "1");
    struct hf_slice s;
    assert_int_equal(hf_sip_one(&m, HF_SIP_H_SUBJECT, &s), 1);
    assert_int_equal(s.n, 0);
    assert_int_equal(hf_sip_one(&m, HF_SIP_H_DATE, &s), 0);
    hf_assert_slice_str(hf_sip_field_value(&m, (size_t)m.n_fields - 1), "a\r\n b");
}

static int count(const char *lines, enum hf_sip_field_id id, bool text, char *seen, size_t room)
{
    char all[2048];
    struct hf_sip_walk w;
    struct hf_slice v;
    struct hf_sip_address a;
    int rc, n = 0;
    size_t at = 0;
    snprintf(all, sizeof(all), "%s%s%s", START VIA FROM TO CALL_ID CSEQ, lines, "\r\n");
    static char kept[2048];
    memcpy(kept, all, sizeof(all));
    assert_int_equal(parse(hf_slice_str(kept)), HF_SIP_OK);
    hf_sip_walk_begin(&w, &m, id);
    while ((rc = text ? hf_sip_walk_text(&w, &v) : hf_sip_walk_address(&w, &a)) == 1) {
        v = text ? v : a.text;
        at += (size_t)snprintf(seen + at, room - at, "[%.*s]", HF_SLICE_FMT(v));
        n++;
    }
    return rc ? rc : n;
}

static void walks(void **state)
{
    (void)state;
    char seen[512] = "";
    assert_int_equal(count("Contact: \"a, b\" <sip:a,b@c>;q=1 , sip:d\r\nX: y\r\nm: <sip:e>\r\n",
                           HF_SIP_H_CONTACT, false, seen, sizeof(seen)),
                     3);
    assert_string_equal(seen, "[\"a, b\" <sip:a,b@c>;q=1][sip:d][<sip:e>]");
    assert_int_equal(count("Contact: *\r\n", HF_SIP_H_CONTACT, false, seen, sizeof(seen)), 1);
    assert_int_equal(count("Route: *\r\n", HF_SIP_H_ROUTE, false, seen, sizeof(seen)), -HF_EMALF);
    assert_int_equal(count("Contact:\r\n", HF_SIP_H_CONTACT, false, seen, sizeof(seen)), -HF_EMALF);
    assert_int_equal(count("", HF_SIP_H_CONTACT, false, seen, sizeof(seen)), 0);
    assert_int_equal(count("Contact: <sip:a>,\r\n", HF_SIP_H_CONTACT, false, seen, sizeof(seen)),
                     -HF_EMALF);
    seen[0] = 0;
    assert_int_equal(count("Supported: a, b\r\nk:\r\nSupported: c ,d\r\n", HF_SIP_H_SUPPORTED, true,
                           seen, sizeof(seen)),
                     4);
    assert_string_equal(seen, "[a][b][c][d]");
    assert_int_equal(count("k:\r\n", HF_SIP_H_SUPPORTED, true, seen, sizeof(seen)), 0);
    assert_int_equal(count("k: a,\r\n", HF_SIP_H_SUPPORTED, true, seen, sizeof(seen)), -HF_EMALF);
    assert_int_equal(count("k: ,a\r\n", HF_SIP_H_SUPPORTED, true, seen, sizeof(seen)), -HF_EMALF);
    assert_int_equal(count("k: a,,b\r\n", HF_SIP_H_SUPPORTED, true, seen, sizeof(seen)), -HF_EMALF);
    assert_int_equal(count("k: \"a\r\n", HF_SIP_H_SUPPORTED, true, seen, sizeof(seen)), -HF_EMALF);
    seen[0] = 0;
    assert_int_equal(count("Warning: 399 h \"x, \\\"y\", 300 i \"z\"\r\n", HF_SIP_H_WARNING, true,
                           seen, sizeof(seen)),
                     2);
    assert_string_equal(seen, "[399 h \"x, \\\"y\"][300 i \"z\"]");
}

static void limits(void **state)
{
    (void)state;
    static char text[HF_SIP_MESSAGE_MAX + 2];
    size_t n = 0;
    n += (size_t)snprintf(text, sizeof(text), "%s", START VIA FROM TO CALL_ID CSEQ);
    size_t header = n;
    for (int i = 0; i < HF_SIP_FIELDS_MAX - 5; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "X: y\r\n");
    }
    snprintf(text + n, sizeof(text) - n, "\r\n");
    assert_int_equal(parse(hf_slice(text, n + 2)), HF_SIP_OK);
    assert_int_equal(m.n_fields, HF_SIP_FIELDS_MAX);
    snprintf(text + n, sizeof(text) - n, "X: y\r\n\r\n");
    assert_int_equal(parse(hf_slice(text, n + 8)), HF_SIP_FAULT_TOO_MANY_FIELDS);
    n = header;
    n += (size_t)snprintf(text + n, sizeof(text) - n, "v: SIP/2.0/UDP a");
    for (int i = 2; i < HF_SIP_VIAS_MAX; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, ",SIP/2.0/UDP a");
    }
    snprintf(text + n, sizeof(text) - n, "\r\n\r\n");
    assert_int_equal(parse(hf_slice(text, n + 4)), HF_SIP_OK);
    assert_int_equal(m.n_vias, HF_SIP_VIAS_MAX);
    snprintf(text + n, sizeof(text) - n, ",SIP/2.0/UDP a\r\n\r\n");
    assert_int_equal(parse(hf_slice(text, n + 18)), HF_SIP_FAULT_TOO_MANY_VIAS);
    memset(text, 'x', sizeof(text));
    n = (size_t)snprintf(text, sizeof(text), "%s", START VIA FROM TO CALL_ID CSEQ);
    snprintf(text + n, sizeof(text) - n, "l: 0\r\n\r\n");
    text[n + 8] = 'x';
    assert_int_equal(parse(hf_slice(text, HF_SIP_MESSAGE_MAX)), HF_SIP_OK);
    assert_int_equal(parse(hf_slice(text, HF_SIP_MESSAGE_MAX + 1)), HF_SIP_FAULT_TOO_LARGE);
    assert_true(hf_sip_answerable(&m));
}

/* Cut at each length, from heap buffers of the exact size; and each byte changed. */
static void truncated(void **state)
{
    (void)state;
    static const char whole[] = START
        "v: SIP/2.0/UDP a;branch=z9hG4bK1;x=\"a,\\\"b\" , SIP/2.0/TCP [::1]:5;received=::1\r\n" FROM
            TO CALL_ID CSEQ "Contact: \"x\\\"\" <sip:a@b;lr?c=d>;q=0.5, <sip:e>\r\n X: y\r\n" REST;
    struct hf_sip_walk w;
    struct hf_sip_address a;
    for (size_t n = 0; n < sizeof(whole); n++) {
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, whole, n);
        parse(hf_slice(copy, n));
        for (size_t i = 0; i < n; i += 3) {
            copy[i] = (char)(copy[i] ^ (1 << n % 8));
            parse(hf_slice(copy, n));
            hf_sip_walk_begin(&w, &m, HF_SIP_H_CONTACT);
            while (hf_sip_walk_address(&w, &a) == 1) {
            }
        }
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(names),   HF_TEST(good),  HF_TEST(faults), HF_TEST(via_counts),
        HF_TEST(folding), HF_TEST(walks), HF_TEST(limits), HF_TEST(truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
