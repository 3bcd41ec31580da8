#include "core/sip/via.h"

#include "base/err.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static const struct {
    const char *name;
    uint8_t n;
    uint16_t port;
} transports[] = {
#define ROW(id, name, port) {name, sizeof(name) - 1, port},
    HF_SIP_TRANSPORT_LIST(ROW)
#undef ROW
};

const char *hf_sip_transport_name(enum hf_sip_transport t)
{
    return t < HF_SIP_TRANSPORT_OTHER ? transports[t].name : "?";
}

uint16_t hf_sip_transport_port(enum hf_sip_transport t)
{
    return t < HF_SIP_TRANSPORT_OTHER ? transports[t].port : 5060;
}

enum hf_sip_transport hf_sip_transport_parse(struct hf_slice name)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(transports); i++) {
        if (hf_sip_eq(name, hf_slice(transports[i].name, transports[i].n))) {
            return (enum hf_sip_transport)i;
        }
    }
    return HF_SIP_TRANSPORT_OTHER;
}

/* "SIP" SLASH "2.0" SLASH transport LWS. Name and version may be any tokens: of what version a
 * message is, its start line tells. */
static int parse_protocol(struct hf_sip_cur *c, struct hf_sip_via *v)
{
    if (hf_sip_span(c, HF_SIP_C_TOKEN).n == 0 || !hf_sip_separator(c, '/') ||
        hf_sip_span(c, HF_SIP_C_TOKEN).n == 0 || !hf_sip_separator(c, '/')) {
        return -HF_EMALF;
    }
    v->transport_text = hf_sip_span(c, HF_SIP_C_TOKEN);
    v->transport = hf_sip_transport_parse(v->transport_text);
    const uint8_t *gap = c->p;
    hf_sip_ws(c);
    return v->transport_text.n && c->p != gap ? 0 : -HF_EMALF;
}

/* What responses follow. Of a name given twice the first counts, as for all who look it up. */
static int note_param(struct hf_sip_via *v, const struct hf_sip_param *p)
{
    if (p->name.n == 6 && hf_sip_eq(p->name, S("branch"))) {
        v->branch = v->branch.n ? v->branch : p->value;
        return p->value.n ? 0 : -HF_EMALF;
    }
    if (p->name.n == 5 && hf_sip_eq(p->name, S("rport"))) {
        if (v->has_rport) {
            return 0;
        }
        v->has_rport = true;
        if (p->value.p) {
            struct hf_sip_cur c = hf_sip_cur(p->value);
            uint64_t port;
            if (hf_sip_number(&c, UINT16_MAX, &port) || !hf_sip_done(&c)) {
                return -HF_EMALF;
            }
            v->rport = (uint16_t)port;
        }
        return 0;
    }
    if (p->name.n == 8 && hf_sip_eq(p->name, S("received"))) {
        struct hf_slice s = p->value;
        uint8_t addr[16];
        if (s.n > 2 && s.p[0] == '[' && s.p[s.n - 1] == ']') { /* RFC 5118 4.5: both are seen */
            s = hf_slice(s.p + 1, s.n - 2);
        }
        v->received = v->received.n ? v->received : s;
        return hf_sip_ipv4(s, addr) || hf_sip_ipv6(s, addr) ? 0 : -HF_EMALF;
    }
    if (p->name.n == 5 && hf_sip_eq(p->name, S("maddr"))) {
        v->maddr = v->maddr.n ? v->maddr : p->value;
        return p->value.n ? 0 : -HF_EMALF;
    }
    return 0;
}

/* The value but its text, up to a ',' or the end. */
static int parse(struct hf_sip_cur *c, struct hf_sip_via *v)
{
    if (parse_protocol(c, v) || hf_sip_host_parse(c, true, &v->sent_by)) {
        return -HF_EMALF;
    }
    const uint8_t *params = c->p;
    struct hf_sip_param p;
    int rc;
    while ((rc = hf_sip_param_next(c, &p)) == 1) {
        if (note_param(v, &p)) {
            return -HF_EMALF;
        }
    }
    v->params = hf_sip_since(c, params);
    return rc;
}

int hf_sip_via_parse(struct hf_sip_cur *c, struct hf_sip_via *ret_via)
{
    *ret_via = (struct hf_sip_via){.has_rport = false};
    hf_sip_ws(c);
    const uint8_t *begin = c->p;
    if (parse(c, ret_via)) {
        return -HF_EMALF;
    }
    struct hf_slice text = hf_sip_since(c, begin);
    hf_sip_ws(c);
    if (!hf_sip_done(c) && hf_sip_peek(c) != ',') {
        return -HF_EMALF;
    }
    ret_via->text = text;
    return 0;
}

bool hf_sip_via_is_3261(const struct hf_sip_via *v)
{
    return v->branch.n > sizeof(HF_SIP_COOKIE) - 1 &&
           hf_sip_eq(hf_slice(v->branch.p, sizeof(HF_SIP_COOKIE) - 1), S(HF_SIP_COOKIE));
}
