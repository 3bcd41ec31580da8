/* core/sip against the torture messages of RFC 4475 and RFC 5118 (tests/data/sip): each is handled
 * as the RFC says. With a directory as argument its NAME.dat are read instead: the RFC's own. */
#include <stdio.h>

#include "base/err.h"
#include "core/sip/fields.h"
#include "core/sip/write.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static const char *dir; /* NULL: ours */
static char text[65536];
static struct hf_sip_msg m;

static void load(const char *rfc, const char *name)
{
    char path[1024];
    if (dir) {
        snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
    } else {
        snprintf(path, sizeof(path), "%s/sip/%s/%s.sip", HF_TEST_DATA, rfc, name);
    }
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof(text), f);
    fclose(f);
    int rc = hf_sip_parse(hf_slice(text, n), false, &m);
    assert_int_equal(rc, m.fault == HF_SIP_OK ? 0 : -HF_EMALF);
}

#define FINE HF_SIP_H_OTHER

/* All 49, in the RFC's order. */
static const struct {
    const char *name;
    enum hf_sip_fault fault;      /* what every element answers; of a response: it is dropped */
    enum hf_sip_field_id refused; /* by who needs this field; FINE: by nobody */
} rfc4475[] = {
    {"wsinv", HF_SIP_OK, FINE},                            /* 3.1.1.1: well-formed */
    {"intmeth", HF_SIP_OK, FINE},                          /* .2: well-formed; 405 or 501 */
    {"esc01", HF_SIP_OK, FINE},                            /* .3: "%" where it escapes */
    {"escnull", HF_SIP_OK, FINE},                          /* .4: %00 is a character */
    {"esc02", HF_SIP_OK, FINE},                            /* .5: ... and where it does not */
    {"lwsdisp", HF_SIP_OK, FINE},                          /* .6: no LWS before '<' */
    {"longreq", HF_SIP_OK, FINE},                          /* .7 */
    {"dblreq", HF_SIP_OK, FINE},                           /* .8: the rest is ignored */
    {"semiuri", HF_SIP_OK, FINE},                          /* .9: ';' in the user part */
    {"transports", HF_SIP_OK, FINE},                       /* .10 */
    {"mpart01", HF_SIP_OK, FINE},                          /* .11: binary body */
    {"unreason", HF_SIP_OK, FINE},                         /* .12: UTF-8 reason */
    {"noreason", HF_SIP_OK, FINE},                         /* .13: empty reason */
    {"badinv01", HF_SIP_FAULT_VIA, HF_SIP_H_CONTACT},      /* 3.1.2.1: 400 */
    {"clerr", HF_SIP_FAULT_BODY, FINE},                    /* .2: 400 */
    {"ncl", HF_SIP_FAULT_CONTENT_LENGTH, FINE},            /* .3: an error */
    {"scalar02", HF_SIP_FAULT_CSEQ, HF_SIP_H_EXPIRES},     /* .4: 400 for its CSeq */
    {"scalarlg", HF_SIP_FAULT_CSEQ, HF_SIP_H_RETRY_AFTER}, /* .5: dropped */
    {"quotbal", HF_SIP_FAULT_TO, FINE},                    /* .6: 400 */
    {"ltgtruri", HF_SIP_FAULT_REQUEST_URI, FINE},          /* .7: 400 */
    {"lwsruri", HF_SIP_FAULT_START_LINE, FINE},            /* .8: 400 */
    {"lwsstart", HF_SIP_FAULT_START_LINE, FINE},           /* .9: 400 */
    {"trws", HF_SIP_FAULT_START_LINE, FINE},               /* .10: 400 */
    {"escruri", HF_SIP_FAULT_REQUEST_URI, FINE},           /* .11: 400 */
    {"baddate", HF_SIP_OK, HF_SIP_H_DATE},                 /* .12: by who needs the date */
    {"regbadct", HF_SIP_OK, HF_SIP_H_CONTACT},             /* .13: 400, by the registrar */
    {"badaspec", HF_SIP_FAULT_TO, FINE},                   /* .14: 400 */
    {"baddn", HF_SIP_FAULT_FROM, FINE},                    /* .15: 400 */
    {"badvers", HF_SIP_FAULT_VERSION, FINE},               /* .16: 505 */
    {"mismatch01", HF_SIP_FAULT_CSEQ_METHOD, FINE},        /* .17: 400 */
    {"mismatch02", HF_SIP_FAULT_CSEQ_METHOD, FINE},        /* .18: 400 (or 501) */
    {"bigcode", HF_SIP_FAULT_STATUS, FINE},                /* .19: dropped */
    {"badbranch", HF_SIP_OK, FINE},                        /* 3.2.1: as RFC 2543's */
    {"insuf", HF_SIP_FAULT_NO_FROM, FINE},                 /* 3.3.1: 400 */
    {"unkscm", HF_SIP_FAULT_SCHEME, FINE},                 /* .2: 416 */
    {"novelsc", HF_SIP_FAULT_SCHEME, FINE},                /* .3: 416 */
    {"unksm2", HF_SIP_OK, FINE},                           /* .4: 400, by the registrar */
    {"bext01", HF_SIP_OK, FINE},                           /* .5: 420 */
    {"invut", HF_SIP_OK, FINE},                            /* .6: 415 */
    {"regaut01", HF_SIP_OK, FINE},                         /* .7: as without credentials */
    {"multi01", HF_SIP_FAULT_REPEATED, FINE},              /* .8: 400 */
    {"mcl01", HF_SIP_FAULT_REPEATED, FINE},                /* .9: 400 */
    {"bcast", HF_SIP_OK, FINE},                            /* .10: not relayed */
    {"zeromf", HF_SIP_OK, FINE},                           /* .11: 483, by a proxy */
    {"cparam01", HF_SIP_OK, FINE},                         /* .12: the field's parameter */
    {"cparam02", HF_SIP_OK, FINE},                         /* .13: the URI's parameter */
    {"regescrt", HF_SIP_OK, FINE},                         /* .14: headers in a contact */
    {"sdp01", HF_SIP_OK, FINE},                            /* .15: 406 */
    {"inv2543", HF_SIP_OK, FINE},                          /* .16: RFC 2543's INVITE */
};

static void rfc_4475(void **state)
{
    (void)state;
    assert_int_equal(HF_ARRAY_LEN(rfc4475), 49);
    for (size_t i = 0; i < HF_ARRAY_LEN(rfc4475); i++) {
        enum hf_sip_fault want = rfc4475[i].fault;
        load("rfc4475", rfc4475[i].name);
        if (dir && strcmp(rfc4475[i].name, "baddn") == 0) {
            want = HF_SIP_FAULT_NO_END; /* the RFC's archive has it without its last line */
        }
        if (m.fault != want || hf_sip_scrutinise(&m) != rfc4475[i].refused) {
            fail_msg("%s: %s, %s", rfc4475[i].name, hf_sip_fault_text(m.fault),
                     hf_sip_field_name(hf_sip_scrutinise(&m)));
        }
        if (m.fault == HF_SIP_OK || !m.request) {
            continue;
        }
        /* whatever was wrong, it can be answered, and the answer is a message */
        char buf[8192];
        struct hf_wr w;
        struct hf_slice out;
        static struct hf_sip_msg answer;
        uint16_t status = hf_sip_fault_status(m.fault);
        hf_wr_init(&w, buf, sizeof(buf));
        assert_true(hf_sip_answerable(&m));
        assert_int_equal(hf_sip_begin_response(&w, &m, status,
                                               hf_slice_str(hf_sip_fault_text(m.fault)), S("t"),
                                               NULL),
                         0);
        assert_int_equal(hf_sip_end(&w, S(""), S(""), &out), 0);
        int rc = hf_sip_parse(out, false, &answer);
        assert_true(rc == 0 || answer.fault == m.fault || want == HF_SIP_FAULT_REPEATED ||
                    want == HF_SIP_FAULT_NO_END);
        assert_int_equal(answer.status, status);
    }
}

static void in_detail(void **state)
{
    (void)state;
    struct hf_sip_walk w;
    struct hf_sip_address a;
    struct hf_sip_param p;
    struct hf_slice s;
    struct hf_wr wr;
    char buf[8192];
    load("rfc4475", "wsinv");
    assert_int_equal(m.n_vias, 3);
    assert_int_equal(m.max_forwards, 68);
    assert_int_equal(m.cseq, 9);
    hf_sip_walk_begin(&w, &m, HF_SIP_H_CONTACT);
    uint16_t q;
    assert_int_equal(hf_sip_walk_address(&w, &a), 1);
    assert_int_equal(hf_sip_address_q(&a, &q), 0);
    assert_int_equal(q, 330);
    load("rfc4475", "escnull");
    hf_wr_init(&wr, buf, sizeof(buf));
    assert_int_equal(hf_sip_aor(&m.to.uri, &wr), 0);
    assert_int_equal(hf_wr_end(&wr, &s), 0);
    hf_assert_slice_str(s, "sip:null-%00-null@example.com");
    hf_sip_walk_begin(&w, &m, HF_SIP_H_CONTACT);
    struct hf_sip_address b;
    assert_int_equal(hf_sip_walk_address(&w, &a), 1);
    assert_int_equal(hf_sip_walk_address(&w, &b), 1);
    assert_false(hf_sip_uri_equal(&a.uri, &b.uri));
    load("rfc4475", "esc02");
    assert_int_equal(m.method, HF_SIP_METHOD_OTHER); /* it is not REGISTER */
    load("rfc4475", "dblreq");
    assert_int_equal(m.method, HF_SIP_REGISTER);
    assert_int_equal(m.body.n, 0);
    assert_true(m.used_n < m.text.n);
    load("rfc4475", "semiuri");
    hf_assert_slice_str(m.uri.user, "user;par=u%40example.net");
    assert_int_equal(m.uri.params.n, 0);
    load("rfc4475", "transports");
    assert_int_equal(m.n_vias, 5);
    load("rfc4475", "noreason");
    assert_int_equal(m.status, 100);
    assert_int_equal(m.reason.n, 0);
    load("rfc4475", "badbranch");
    assert_false(hf_sip_via_is_3261(&m.via));
    load("rfc4475", "unksm2");
    hf_wr_init(&wr, buf, sizeof(buf));
    assert_int_equal(hf_sip_aor(&m.to.uri, &wr), -HF_EVALUE); /* no AoR: the registrar's 400 */
    load("rfc4475", "bext01");
    static const char *const none[] = {NULL};
    assert_int_equal(hf_sip_unknown_token(&m, HF_SIP_H_REQUIRE, none, &s), 1);
    assert_int_equal(hf_sip_unknown_token(&m, HF_SIP_H_PROXY_REQUIRE, none, &s), 1);
    load("rfc4475", "bcast");
    hf_wr_init(&wr, buf, sizeof(buf));
    assert_int_equal(hf_sip_begin_relay(&wr, &m), -HF_EVALUE);
    load("rfc4475", "zeromf");
    struct hf_sip_forward how = {.sent_by = S("h"), .branch = S("b")};
    assert_int_equal(hf_sip_begin_forward(&wr, &m, &how), -HF_EVALUE);
    load("rfc4475", "cparam01");
    hf_sip_walk_begin(&w, &m, HF_SIP_H_CONTACT);
    assert_int_equal(hf_sip_walk_address(&w, &a), 1);
    assert_true(hf_sip_address_param(&a, "unknownparam", &p));
    assert_false(hf_sip_uri_param(&a.uri, "unknownparam", &s));
    load("rfc4475", "cparam02");
    hf_sip_walk_begin(&w, &m, HF_SIP_H_CONTACT);
    assert_int_equal(hf_sip_walk_address(&w, &a), 1);
    assert_false(hf_sip_address_param(&a, "unknownparam", &p));
    assert_true(hf_sip_uri_param(&a.uri, "unknownparam", &s));
    load("rfc4475", "regescrt");
    hf_sip_walk_begin(&w, &m, HF_SIP_H_CONTACT);
    assert_int_equal(hf_sip_walk_address(&w, &a), 1);
    hf_assert_slice_str(a.uri.headers, "Route=%3Csip:sip.example.com%3E");
}

static void rfc_5118(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum hf_sip_fault fault;
    } rows[] = {
        {"ipv6-good", HF_SIP_OK},                     /* 4.1 */
        {"ipv6-bad", HF_SIP_FAULT_REQUEST_URI},       /* 4.2: 400 */
        {"port-ambiguous", HF_SIP_OK},                /* 4.3: it is no port */
        {"port-unambiguous", HF_SIP_OK},              /* 4.4 */
        {"via-received-param-with-delim", HF_SIP_OK}, /* 4.5: both are to be taken */
        {"via-received-param-no-delim", HF_SIP_OK},   /* 4.5 */
        {"ipv6-in-sdp", HF_SIP_OK},                   /* 4.6 */
        {"mult-ip-in-header", HF_SIP_OK},             /* 4.7 */
        {"mult-ip-in-sdp", HF_SIP_OK},                /* 4.8 */
        {"ipv4-mapped-ipv6", HF_SIP_OK},              /* 4.9 */
        {"ipv6-bug-abnf-3-colons", HF_SIP_OK},        /* 4.10: both are to be taken */
        {"ipv6-correct-abnf-2-colons", HF_SIP_OK},    /* 4.10 */
    };
    if (dir) {
        return;
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        load("rfc5118", rows[i].name);
        if (m.fault != rows[i].fault || hf_sip_scrutinise(&m) != FINE) {
            fail_msg("%s: %s", rows[i].name, hf_sip_fault_text(m.fault));
        }
    }
    load("rfc5118", "port-ambiguous");
    assert_int_equal(m.uri.host.port, 0);
    load("rfc5118", "port-unambiguous");
    assert_int_equal(m.uri.host.port, 5070);
    load("rfc5118", "via-received-param-with-delim");
    hf_assert_slice_str(m.via.received, "2001:db8::9:255");
    load("rfc5118", "via-received-param-no-delim");
    hf_assert_slice_str(m.via.received, "2001:db8::9:255");
    load("rfc5118", "ipv6-bug-abnf-3-colons");
    struct hf_sip_host three = m.uri.host;
    load("rfc5118", "ipv6-correct-abnf-2-colons");
    assert_true(hf_sip_host_eq(&three, &m.uri.host));
}

int main(int argc, char **argv)
{
    dir = argc > 1 ? argv[1] : NULL;
    const struct CMUnitTest tests[] = {
        HF_TEST(rfc_4475),
        HF_TEST(in_detail),
        HF_TEST(rfc_5118),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
