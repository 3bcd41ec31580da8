/* SIP messages from the network, as datagram and as stream: whatever comes, slices stay inside;
 * what is understood is written again, answered, forwarded, relayed, and reads as it was meant. */
#include <assert.h>

#include "base/err.h"
#include "core/sip/digest.h"
#include "core/sip/fields.h"
#include "core/sip/frame.h"
#include "core/sip/write.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_sip_msg m, again;
static char buf[3 * HF_SIP_MESSAGE_MAX];

static void inside(struct hf_slice s, const struct hf_sip_msg *of)
{
    assert(s.n == 0 || (s.p >= of->text.p && s.p + s.n <= of->text.p + of->text.n));
}

static void walk_all(void)
{
    for (int id = 0; id < HF_SIP_H_OTHER; id++) {
        struct hf_sip_walk w;
        struct hf_sip_address a;
        struct hf_sip_via v;
        struct hf_slice s;
        size_t values = 0;
        hf_sip_walk_begin(&w, &m, (enum hf_sip_field_id)id);
        while (hf_sip_walk_text(&w, &s) == 1) {
            assert(s.n && ++values <= m.text.n);
            inside(s, &m);
        }
        hf_sip_walk_begin(&w, &m, (enum hf_sip_field_id)id);
        while (hf_sip_walk_address(&w, &a) == 1) {
            uint16_t q;
            uint32_t expires_s;
            int rc = hf_sip_address_q(&a, &q);
            assert(rc || q <= 1000);
            rc = hf_sip_contact_expires(&m, &a, 3600, &expires_s);
            inside(a.text, &m);
            inside(a.uri.params, &m);
        }
        hf_sip_walk_begin(&w, &m, (enum hf_sip_field_id)id);
        while (hf_sip_walk_via(&w, &v) == 1) {
            inside(v.branch, &m);
        }
    }
    struct hf_sip_credentials c;
    int rc = hf_sip_credentials_find(&m, HF_SIP_H_AUTHORIZATION, S("r"), &c);
    assert(rc != 1 || hf_slice_eq(c.realm, S("r")));
    hf_sip_scrutinise(&m);
}

static void same(const struct hf_sip_msg *a, const struct hf_sip_msg *b)
{
    assert(hf_slice_eq(a->from.text, b->from.text) && hf_slice_eq(a->call_id, b->call_id));
    assert(a->cseq == b->cseq && hf_slice_eq(a->method_text, b->method_text));
    assert(hf_slice_eq(a->to.uri.text, b->to.uri.text));
}

static void finish(struct hf_wr *w, struct hf_slice body)
{
    struct hf_slice out;
    int rc = hf_sip_end(w, S(""), body, &out);
    assert(rc == 0);
    rc = hf_sip_parse(out, true, &again);
    assert(rc == 0 || again.fault == HF_SIP_FAULT_TOO_LARGE ||
           again.fault == HF_SIP_FAULT_TOO_MANY_FIELDS ||
           again.fault == HF_SIP_FAULT_TOO_MANY_VIAS);
    if (rc == 0) {
        same(&m, &again);
        assert(again.used_n == out.n);
    } else {
        again.n_vias = 0;
    }
}

static void write_it(const struct hf_endpoint *source)
{
    struct hf_wr w;
    struct hf_slice out;
    hf_wr_init(&w, buf, sizeof(buf));
    int rc = hf_sip_begin_response(&w, &m, 400, S(""), S("t"), source);
    if (m.fault != HF_SIP_OK) {
        rc = rc ? rc : hf_sip_end(&w, S(""), S(""), &out);
        assert(rc == 0 || !hf_sip_answerable(&m));
        return;
    }
    if (rc == 0) {
        finish(&w, S(""));
        assert(again.n_vias == m.n_vias || again.n_vias == 0);
        assert(again.n_vias == 0 || hf_sip_address_tag(&again.to).n);
    }
    char branch[HF_SIP_BRANCH_LEN];
    hf_sip_stateless_branch(&m, S(""), 1, branch);
    struct hf_sip_forward how = {.sent_by = S("h"),
                                 .branch = hf_slice(branch, sizeof(branch)),
                                 .source = source,
                                 .pop_routes = 1,
                                 .pop_last_route = true,
                                 .path = S("<sip:p;lr>")};
    hf_wr_init(&w, buf, sizeof(buf));
    if (hf_sip_begin_forward(&w, &m, &how) == 0) {
        finish(&w, m.body);
        assert(again.n_vias == m.n_vias + 1 || again.n_vias == 0);
        assert(hf_slice_eq(again.body, m.body) || again.n_vias == 0);
    }
    hf_wr_init(&w, buf, sizeof(buf));
    if (hf_sip_begin_relay(&w, &m) == 0) {
        finish(&w, m.body);
        assert(again.n_vias == m.n_vias - 1);
        assert(hf_slice_eq(again.reason, m.reason));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct hf_endpoint v6 = {.family = HF_AF_INET6, .addr = {0xfd}, .port = 9};
    struct hf_slice s = hf_slice(data, n);
    struct hf_sip_framer f = {.len_max = 4096};
    struct hf_sip_frame frame;
    hf_sip_frame(&f, s, &frame);
    assert(frame.n <= n);
    if (frame.kind == HF_SIP_FRAME_MESSAGE) {
        int rc = hf_sip_parse(hf_slice(data, frame.n), true, &m);
        assert(rc || m.used_n == frame.n);
    }
    int rc = hf_sip_parse(s, false, &m);
    assert((rc == 0) == (m.fault == HF_SIP_OK) && m.used_n <= m.text.n);
    inside(m.body, &m);
    inside(m.via.branch, &m);
    inside(m.from.text, &m);
    inside(m.uri.host.text, &m);
    walk_all();
    write_it(n & 1 ? &v6 : NULL);
    return 0;
}
