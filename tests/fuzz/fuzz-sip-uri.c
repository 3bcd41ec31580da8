/* Two URIs, a line each: comparison is symmetric, an address of record is a URI and its own. */
#include <assert.h>

#include "base/err.h"
#include "core/sip/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool canonical(struct hf_slice s, struct hf_sip_uri *ret_uri, char *buf, struct hf_wr *w)
{
    if (hf_sip_uri_parse(s, ret_uri) == -HF_EMALF) {
        return false;
    }
    assert(hf_sip_uri_equal(ret_uri, ret_uri));
    hf_wr_init(w, buf, HF_SIP_AOR_MAX);
    return hf_sip_aor(ret_uri, w) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *nl = n ? memchr(data, '\n', n) : NULL;
    size_t first = nl ? (size_t)(nl - data) : n;
    struct hf_sip_uri a, b, c;
    char abuf[HF_SIP_AOR_MAX], bbuf[HF_SIP_AOR_MAX], again[HF_SIP_AOR_MAX];
    struct hf_wr aw, bw, w;
    bool a_ok = canonical(hf_slice(data, first), &a, abuf, &aw);
    bool b_ok = nl && canonical(hf_slice(nl + 1, n - first - 1), &b, bbuf, &bw);
    if (a_ok) {
        struct hf_slice s = hf_slice(abuf, hf_wr_len(&aw));
        bool ok = canonical(s, &c, again, &w);
        assert(ok && hf_wr_len(&w) == s.n && memcmp(abuf, again, s.n) == 0);
    }
    if (a_ok && b_ok) {
        assert(hf_sip_uri_equal(&a, &b) == hf_sip_uri_equal(&b, &a));
        /* who are equal are one user */
        assert(!hf_sip_uri_equal(&a, &b) ||
               (hf_wr_len(&aw) == hf_wr_len(&bw) && memcmp(abuf, bbuf, hf_wr_len(&aw)) == 0));
    }
    return 0;
}
