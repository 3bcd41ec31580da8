/* core/sip/pidf: documents are checked, made, and merged without a word of them changed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "core/sip/pidf.h"
#include "support/test.h"

#define NS "urn:ietf:params:xml:ns:pidf"
#define AOR hf_slice_str("sip:ann@example.org")
#define OURS                                                                                       \
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"                                                 \
    "<presence xmlns=\"" NS "\" entity=\"sip:ann@example.org\">\n"

static void test_check(void **state)
{
    (void)state;
    const struct {
        const char *doc;
        int rc;
    } rows[] = {
        {"<presence xmlns='" NS "' entity='pres:a@b'/>", 0},
        {"<?xml version='1.0' encoding='UTF-8'?><p:presence xmlns:p='" NS "'><p:tuple id='a'>"
         "<p:status><p:basic>open</p:basic></p:status></p:tuple></p:presence>",
         0},
        {"\xef\xbb\xbf<presence xmlns='" NS "'>&#228;&amp;</presence>", 0},
        {"", -HF_EMALF},
        {"open", -HF_EMALF},
        {"<presence/>", -HF_EMALF},
        {"<presence xmlns='urn:other'/>", -HF_EMALF},
        {"<p:presence xmlns='" NS "'/>", -HF_EMALF},
        {"<tuple xmlns='" NS "'/>", -HF_EMALF},
        {"<presence xmlns='" NS "'>", -HF_EMALF},
        {"<presence xmlns='" NS "'></a>", -HF_EMALF},
        {"<presence xmlns='" NS "'/>x", -HF_EMALF},
        {"<presence xmlns='" NS "'>&open;</presence>", -HF_EMALF},
        {"<presence xmlns='" NS "'>\xe4</presence>", -HF_EMALF},
        {"<!DOCTYPE presence><presence xmlns='" NS "'/>", -HF_EVALUE},
        {"<!DOCTYPE p [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]><presence xmlns='" NS
         "'>&b;</presence>",
         -HF_EVALUE},
        {"<!DOCTYPE p SYSTEM 'file:///etc/passwd'><presence xmlns='" NS "'/>", -HF_EVALUE},
        {"<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:presence "
         "xmlns='" NS "'/>",
         -HF_EMALF},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        size_t n = strlen(rows[i].doc);
        uint8_t *exact = malloc(n ? n : 1);
        memcpy(exact, rows[i].doc, n);
        assert_int_equal(hf_sip_pidf_check(hf_slice(exact, n), i), rows[i].rc);
        for (size_t k = 0; rows[i].rc == 0 && k < n; k++) { /* cut off anywhere */
            uint8_t *part = malloc(k ? k : 1);
            memcpy(part, exact, k);
            assert_int_equal(hf_sip_pidf_check(hf_slice(part, k), 1), -HF_EMALF);
            free(part);
        }
        free(exact);
    }
}

static void test_basic(void **state)
{
    (void)state;
    struct hf_buf b;
    hf_buf_init(&b, 1000);
    hf_sip_pidf_basic(&b, hf_slice_str("sip:a\"&@x"), true);
    hf_assert_slice_str(hf_buf_slice(&b),
                        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                        "<presence xmlns=\"" NS "\" entity=\"sip:a&quot;&amp;@x\">\n"
                        "  <tuple id=\"registration\">\n"
                        "    <status><basic>open</basic></status>\n"
                        "  </tuple>\n"
                        "</presence>\n");
    assert_int_equal(hf_sip_pidf_check(hf_buf_slice(&b), 0), 0);
    hf_buf_clear(&b);
    hf_sip_pidf_basic(&b, AOR, false);
    assert_non_null(memmem(b.p, b.n, "<basic>closed<", 14));
    hf_buf_fini(&b);
}

/* In order of time; ids that are there twice; prefixes of a root stay known below. */
static void test_merge(void **state)
{
    (void)state;
    const struct hf_slice doc[] = {
        hf_slice_str("<presence xmlns='" NS "' xmlns:r='urn:rpid' entity='pres:x'>\n"
                     "<note>new &lt;1&gt;</note><tuple id='a'><status><basic>open</basic></status>"
                     "<r:mood/></tuple><r:person id='a'/></presence>"),
        hf_slice_str("<q:presence xmlns:q='" NS "' xmlns:r='urn:other\"&amp;'>"
                     "<q:tuple id='b' xmlns:r='urn:own'><r:x/></q:tuple><q:tuple id='a'>old"
                     "</q:tuple><plain/><!-- lost --><q:note/></q:presence>"),
        hf_slice_str("<presence xmlns='" NS "'><tuple id='c'/>broken"),
        hf_slice_str("<presence xmlns='" NS "'><tuple id='d'/></presence>"),
    };
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_sip_pidf_merge(&b, AOR, doc, HF_ARRAY_LEN(doc), 7);
    assert_int_equal(b.err, 0);
    hf_buf_add(&b, hf_slice("", 1));
    assert_string_equal(
        (const char *)b.p, OURS
        "<tuple xmlns=\"" NS "\" xmlns:r=\"urn:rpid\" id='a'><status><basic>open</basic></status>"
        "<r:mood/></tuple>\n"
        "<q:tuple xmlns=\"\" xmlns:q=\"" NS "\" id='b' xmlns:r='urn:own'><r:x/></q:tuple>\n"
        "<tuple xmlns=\"" NS "\" id='d'/>\n"
        "<note xmlns=\"" NS "\" xmlns:r=\"urn:rpid\">new &lt;1&gt;</note>\n"
        "<q:note xmlns=\"\" xmlns:q=\"" NS "\" xmlns:r=\"urn:other&quot;&amp;\"/>\n"
        "<r:person xmlns=\"" NS "\" xmlns:r=\"urn:rpid\" id='a'/>\n"
        "<plain xmlns=\"\" xmlns:q=\"" NS "\" xmlns:r=\"urn:other&quot;&amp;\"/>\n"
        "</presence>\n");
    assert_int_equal(hf_sip_pidf_check(hf_slice(b.p, b.n - 1), 0), 0);
    hf_buf_fini(&b);
}

/* What does not fit is left out, the rest is a document. */
static void test_bounds(void **state)
{
    (void)state;
    static char many[40000];
    size_t n = (size_t)snprintf(many, sizeof(many), "<presence xmlns='" NS "'>");
    for (unsigned i = 0; i < 1000; i++) {
        n += (size_t)snprintf(many + n, sizeof(many) - n, "<tuple id='%u'/>", i);
    }
    snprintf(many + n, sizeof(many) - n, "</presence>");
    struct hf_slice doc[] = {hf_slice_str(many), hf_slice_str(many)};
    for (size_t room = 0; room < 2000; room += 37) {
        struct hf_buf b;
        hf_buf_init(&b, room);
        hf_sip_pidf_merge(&b, AOR, doc, 2, 7);
        assert_true(b.err != 0 || hf_sip_pidf_check(hf_buf_slice(&b), 0) == 0);
        assert_true(b.err == 0 || room < 200);
        hf_buf_fini(&b);
    }
    struct hf_buf b;
    hf_buf_init(&b, 100000);
    hf_sip_pidf_merge(&b, AOR, doc, 2, 7);
    unsigned tuples = 0;
    for (size_t i = 0; i + 6 < b.n; i++) {
        tuples += memcmp(b.p + i, "<tuple", 6) == 0;
    }
    assert_int_equal(tuples, HF_SIP_PIDF_ELEMENTS_MAX);
    hf_buf_fini(&b);
}

static void test_no_memory(void **state)
{
    (void)state;
    const struct hf_slice doc[] = {
        hf_slice_str("<presence xmlns='" NS "'><tuple id='a'/></presence>"),
        hf_slice_str("<presence xmlns='" NS "'><tuple id='b'/></presence>")};
    for (int64_t k = 0;; k++) {
        hf_mem_fail_after(k);
        int rc = hf_sip_pidf_check(doc[0], 1);
        hf_mem_fail_after(-1);
        assert_true(rc == 0 || rc == -ENOMEM);
        if (rc == 0) {
            break;
        }
    }
    for (int64_t k = 0; k < 100; k++) {
        struct hf_buf b;
        hf_buf_init(&b, 1000);
        hf_mem_fail_after(k);
        hf_sip_pidf_merge(&b, AOR, doc, 2, 7);
        hf_mem_fail_after(-1);
        assert_true(b.err != 0 || hf_sip_pidf_check(hf_buf_slice(&b), 0) == 0);
        hf_buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_check),  HF_TEST(test_basic),     HF_TEST(test_merge),
        HF_TEST(test_bounds), HF_TEST(test_no_memory),
    };
    return cmocka_run_group_tests_name("sip/pidf", tests, NULL, NULL);
}
