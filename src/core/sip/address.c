#include "core/sip/address.h"

#include "base/err.h"

/* Where a name-addr's '<' is, if this is one without quotes: only tokens and white space before. */
static bool display_tokens(struct hf_sip_cur *c, struct hf_slice *ret_display)
{
    struct hf_sip_cur look = *c;
    struct hf_slice s = hf_sip_span(&look, HF_SIP_C_TOKEN | HF_SIP_C_WS);
    if (hf_sip_peek(&look) != '<') {
        return false;
    }
    *ret_display = hf_sip_trim(s);
    *c = look;
    return true;
}

static int parse_bracketed(struct hf_sip_cur *c, struct hf_sip_address *a)
{
    const uint8_t *begin = c->p;
    struct hf_slice uri = hf_sip_span(c, HF_SIP_C_URI);
    if (begin == c->p || !hf_sip_eat(c, '>')) {
        return -HF_EMALF;
    }
    return hf_sip_uri_parse(uri, &a->uri) == -HF_EMALF ? -HF_EMALF : 0;
}

/* Without brackets it ends at ';', ',' or white space, and '?' can't be told from a header's. */
static int parse_bare(struct hf_sip_cur *c, struct hf_sip_address *a)
{
    struct hf_slice uri = hf_sip_span(c, HF_SIP_C_BARE);
    if (hf_sip_peek(c) == '?') {
        return -HF_EMALF;
    }
    return hf_sip_uri_parse(uri, &a->uri) == -HF_EMALF ? -HF_EMALF : 0;
}

static bool at_end(struct hf_sip_cur *c)
{
    hf_sip_ws(c);
    return hf_sip_done(c) || hf_sip_peek(c) == ',';
}

int hf_sip_address_parse(struct hf_sip_cur *c, bool star, struct hf_sip_address *ret_address)
{
    struct hf_sip_address a = {.star = false};
    hf_sip_ws(c);
    const uint8_t *begin = c->p;
    if (star && hf_sip_eat(c, '*')) {
        a.star = true;
        a.text = hf_sip_since(c, begin);
        if (at_end(c)) {
            *ret_address = a;
            return 0;
        }
        a.star = false; /* a display name may begin so */
        c->p = begin;
    }
    bool quoted = hf_sip_peek(c) == '"';
    if (quoted && hf_sip_quoted(c, &a.display)) {
        return -HF_EMALF;
    }
    if (quoted) {
        hf_sip_ws(c);
    }
    int rc;
    if (quoted || hf_sip_peek(c) == '<' || display_tokens(c, &a.display)) {
        rc = hf_sip_eat(c, '<') ? parse_bracketed(c, &a) : -HF_EMALF;
    } else {
        rc = parse_bare(c, &a);
    }
    const uint8_t *params = c->p;
    struct hf_sip_param p;
    while (rc == 0 && (rc = hf_sip_param_next(c, &p)) == 1) {
        rc = 0;
    }
    if (rc) {
        return -HF_EMALF;
    }
    a.params = hf_sip_since(c, params);
    a.text = hf_sip_since(c, begin);
    if (!at_end(c)) {
        return -HF_EMALF;
    }
    *ret_address = a;
    return 0;
}

struct hf_slice hf_sip_address_tag(const struct hf_sip_address *a)
{
    struct hf_sip_param p;
    return hf_sip_address_param(a, "tag", &p) && p.value.p ? p.value : hf_slice(NULL, 0);
}

/* RFC 3261 25.1: ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] ) */
int hf_sip_address_q(const struct hf_sip_address *a, uint16_t *ret_q)
{
    struct hf_sip_param p;
    if (!hf_sip_address_param(a, "q", &p)) {
        *ret_q = 1000;
        return 0;
    }
    struct hf_sip_cur c = hf_sip_cur(p.value);
    int whole = hf_sip_peek(&c);
    if (!hf_sip_eat(&c, '0') && !hf_sip_eat(&c, '1')) {
        return -HF_EMALF;
    }
    unsigned q = whole == '1' ? 1000 : 0;
    if (hf_sip_eat(&c, '.')) {
        struct hf_slice digits = hf_sip_span(&c, HF_SIP_C_DIGIT);
        unsigned weight = 100;
        for (size_t i = 0; i < digits.n && i < 3; i++, weight /= 10) {
            q += weight * (unsigned)(digits.p[i] - '0');
        }
        if (digits.n > 3) {
            return -HF_EMALF;
        }
    }
    if (!hf_sip_done(&c) || q > 1000) {
        return -HF_EMALF;
    }
    *ret_q = (uint16_t)q;
    return 0;
}

int hf_sip_address_expires(const struct hf_sip_address *a, uint32_t *ret_s)
{
    struct hf_sip_param p;
    if (!hf_sip_address_param(a, "expires", &p)) {
        return 0;
    }
    int rc = hf_sip_seconds(p.value, ret_s);
    if (rc) {
        *ret_s = rc == -HF_EVALUE ? UINT32_MAX : 3600;
    }
    return 1;
}
