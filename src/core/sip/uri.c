#include "core/sip/uri.h"

#include "base/err.h"
#include "base/hex.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

/* --- hosts --- */

/* RFC 1123 names: labels are not empty and do not begin with '-'; a '.' may end them. */
static bool name_ok(struct hf_slice s)
{
    bool label = false; /* in one */
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.' ? !label : !label && s.p[i] == '-') {
            return false;
        }
        label = s.p[i] != '.';
    }
    return s.n > 0;
}

/* Only digits and dots: then it is an IPv4 address or nothing. */
static bool is_numeric(struct hf_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '.' && !(hf_sip_class[s.p[i]] & HF_SIP_C_DIGIT)) {
            return false;
        }
    }
    return true;
}

int hf_sip_host_parse(struct hf_sip_cur *c, bool ws, struct hf_sip_host *ret_host)
{
    struct hf_sip_host h = {.kind = HF_SIP_HOST_NAME};
    if (hf_sip_eat(c, '[')) {
        h.kind = HF_SIP_HOST_IPV6;
        h.text = hf_sip_span(c, HF_SIP_C_IPV6);
        if (!hf_sip_eat(c, ']') || !hf_sip_ipv6(h.text, h.addr)) {
            return -HF_EMALF;
        }
    } else {
        h.text = hf_sip_span(c, HF_SIP_C_HOST);
        if (h.text.n && is_numeric(h.text)) {
            h.kind = HF_SIP_HOST_IPV4;
            if (!hf_sip_ipv4(h.text, h.addr)) {
                return -HF_EMALF;
            }
        } else if (!name_ok(h.text)) {
            return -HF_EMALF;
        }
    }
    uint64_t port = 0;
    if (ws ? hf_sip_separator(c, ':') : hf_sip_eat(c, ':')) {
        if (hf_sip_number(c, UINT16_MAX, &port) || port == 0) {
            return -HF_EMALF;
        }
    }
    h.port = (uint16_t)port;
    *ret_host = h;
    return 0;
}

/* A name without the dot that may end it. */
static struct hf_slice bare_name(struct hf_slice s)
{
    return s.n && s.p[s.n - 1] == '.' ? hf_slice(s.p, s.n - 1) : s;
}

bool hf_sip_host_eq(const struct hf_sip_host *a, const struct hf_sip_host *b)
{
    if (a->kind != b->kind) {
        return false;
    }
    return a->kind == HF_SIP_HOST_NAME ? hf_sip_eq(bare_name(a->text), bare_name(b->text))
                                       : memcmp(a->addr, b->addr, sizeof(a->addr)) == 0;
}

/* --- parse --- */

/* ";name=value;name" at c: all of it is stepped over; *ret without the first ';'. */
static int parse_params(struct hf_sip_cur *c, struct hf_slice *ret_params)
{
    const uint8_t *begin = NULL;
    while (hf_sip_eat(c, ';')) {
        begin = begin ? begin : c->p;
        if (hf_sip_span_escaped(c, HF_SIP_C_PARAM).n == 0 ||
            (hf_sip_eat(c, '=') && hf_sip_span_escaped(c, HF_SIP_C_PARAM).n == 0)) {
            return -HF_EMALF;
        }
    }
    *ret_params = begin ? hf_sip_since(c, begin) : hf_slice(NULL, 0);
    return 0;
}

/* "?name=value&name=value" at c. */
static int parse_headers(struct hf_sip_cur *c, struct hf_slice *ret_headers)
{
    const uint8_t *begin = NULL;
    while (hf_sip_eat(c, begin ? '&' : '?')) {
        begin = begin ? begin : c->p;
        if (hf_sip_span_escaped(c, HF_SIP_C_URIHDR).n == 0 || !hf_sip_eat(c, '=')) {
            return -HF_EMALF;
        }
        hf_sip_span_escaped(c, HF_SIP_C_URIHDR);
    }
    *ret_headers = begin ? hf_sip_since(c, begin) : hf_slice(NULL, 0);
    return 0;
}

/* userinfo: user [":" password] "@" */
static int parse_user(struct hf_sip_cur *c, struct hf_sip_uri *u)
{
    struct hf_slice left = hf_sip_left(c);
    if (left.n == 0 || !memchr(left.p, '@', left.n)) {
        return 0; /* it can't stand raw behind the host */
    }
    u->user = hf_sip_span_escaped(c, HF_SIP_C_USER);
    if (hf_sip_eat(c, ':')) {
        u->password = hf_sip_span_escaped(c, HF_SIP_C_USER);
    }
    return u->user.n && hf_sip_eat(c, '@') ? 0 : -HF_EMALF;
}

static int parse_sip(struct hf_sip_cur *c, struct hf_sip_uri *u)
{
    if (parse_user(c, u) || hf_sip_host_parse(c, false, &u->host) || parse_params(c, &u->params) ||
        parse_headers(c, &u->headers) || !hf_sip_done(c)) {
        return -HF_EMALF;
    }
    return 0;
}

static bool is_separator(uint8_t c)
{
    return c == '-' || c == '.' || c == '(' || c == ')';
}

/* RFC 3966 3. A local number without phone-context is RFC 2806's and still in use. */
static int parse_tel(struct hf_sip_cur *c, struct hf_sip_uri *u)
{
    const uint8_t *begin = c->p;
    bool global = hf_sip_eat(c, '+');
    size_t digits = 0;
    for (int b; (b = hf_sip_peek(c)) >= 0 && b != ';'; hf_sip_eat(c, (uint8_t)b)) {
        bool digit = hf_sip_class[b] & (global ? HF_SIP_C_DIGIT : HF_SIP_C_HEX) ||
                     (!global && (b == '*' || b == '#'));
        if (!digit && !is_separator((uint8_t)b)) {
            return -HF_EMALF;
        }
        digits += digit;
    }
    u->user = hf_sip_since(c, begin);
    return digits && parse_params(c, &u->params) == 0 && hf_sip_done(c) ? 0 : -HF_EMALF;
}

static enum hf_sip_scheme find_scheme(struct hf_slice s)
{
    if (s.n == 3) {
        return hf_sip_eq(s, S("sip"))   ? HF_SIP_SCHEME_SIP
               : hf_sip_eq(s, S("tel")) ? HF_SIP_SCHEME_TEL
                                        : HF_SIP_SCHEME_OTHER;
    }
    return hf_sip_eq(s, S("sips")) ? HF_SIP_SCHEME_SIPS : HF_SIP_SCHEME_OTHER;
}

int hf_sip_uri_parse(struct hf_slice s, struct hf_sip_uri *ret_uri)
{
    struct hf_sip_uri u = {.text = s, .scheme = HF_SIP_SCHEME_OTHER};
    struct hf_sip_cur c = hf_sip_cur(s);
    u.scheme_text = hf_sip_span(&c, HF_SIP_C_HOST | HF_SIP_C_TOKEN);
    if (!hf_sip_eat(&c, ':')) {
        return -HF_EMALF;
    }
    u.scheme = find_scheme(u.scheme_text);
    int rc = 0;
    if (u.scheme == HF_SIP_SCHEME_TEL) {
        rc = parse_tel(&c, &u);
    } else if (u.scheme != HF_SIP_SCHEME_OTHER) {
        rc = parse_sip(&c, &u);
    } else {
        struct hf_slice left = hf_sip_left(&c);
        bool ok = u.scheme_text.n && hf_sip_lower(u.scheme_text.p[0]) >= 'a' &&
                  hf_sip_lower(u.scheme_text.p[0]) <= 'z' && left.n &&
                  hf_sip_all(left, HF_SIP_C_URI);
        for (size_t i = 0; i < u.scheme_text.n; i++) {
            uint8_t b = u.scheme_text.p[i];
            ok = ok && (hf_sip_class[b] & HF_SIP_C_HOST || b == '+') && b != '_';
        }
        rc = ok ? -HF_EVALUE : -HF_EMALF;
    }
    if (rc != -HF_EMALF) {
        *ret_uri = u;
    }
    return rc;
}

/* --- parameters and headers --- */

/* One "name[=value]" off *c; between them `sep`. */
static bool next_pair(struct hf_sip_cur *c, unsigned class, uint8_t sep, struct hf_slice *ret_name,
                      struct hf_slice *ret_value)
{
    if (hf_sip_done(c)) {
        return false;
    }
    *ret_name = hf_sip_span_escaped(c, class);
    *ret_value = hf_slice(NULL, 0);
    if (hf_sip_eat(c, '=')) {
        *ret_value = hf_sip_span_escaped(c, class);
    }
    return hf_sip_eat(c, sep) || hf_sip_done(c);
}

static bool next_param(struct hf_sip_cur *c, struct hf_slice *ret_name, struct hf_slice *ret_value)
{
    return next_pair(c, HF_SIP_C_PARAM, ';', ret_name, ret_value);
}

bool hf_sip_uri_param(const struct hf_sip_uri *u, const char *name, struct hf_slice *ret_value)
{
    struct hf_sip_cur c = hf_sip_cur(u->params);
    struct hf_slice n, v;
    while (next_param(&c, &n, &v)) {
        if (hf_sip_eq_str(n, name)) {
            *ret_value = v;
            return true;
        }
    }
    return false;
}

/* --- escapes --- */

static int escape_digit(struct hf_sip_cur *c)
{
    int b = hf_sip_peek(c), v = hf_hex_value(b);
    return v >= 0 && hf_sip_eat(c, (uint8_t)b) ? v : -1;
}

/* The next byte that the text means; *ret_escaped: it was written %HH. -1: the end; -2: a '%'
 * without its digits. */
static int next_byte(struct hf_sip_cur *c, bool *ret_escaped)
{
    int b = hf_sip_peek(c);
    *ret_escaped = b == '%';
    if (b < 0 || !hf_sip_eat(c, (uint8_t)b) || b != '%') {
        return b;
    }
    int high = escape_digit(c), low = high < 0 ? -1 : escape_digit(c);
    return low < 0 ? -2 : high << 4 | low;
}

static void put_user_byte(struct hf_wr *w, uint8_t b)
{
    static const char digit[] = "0123456789ABCDEF";
    if (hf_sip_class[b] & HF_SIP_C_USER) {
        hf_wr_u8(w, b);
    } else {
        const char text[3] = {'%', digit[b >> 4], digit[b & 15]};
        hf_wr_bytes(w, hf_slice(text, 3));
    }
}

/* --- compare --- */

static bool is_reserved(int b)
{
    return b >= 0 && b < 128 && strchr(";/?:@&=+$,", b) && b;
}

/* Equal with %HH as the character, but for reserved ones, which differ from their escape
 * (19.1.4). */
static bool eq_escaped(struct hf_slice a, struct hf_slice b, bool fold)
{
    struct hf_sip_cur ca = hf_sip_cur(a), cb = hf_sip_cur(b);
    for (;;) {
        bool ea, eb;
        int x = next_byte(&ca, &ea), y = next_byte(&cb, &eb);
        if (fold && x > 0 && y > 0) {
            x = hf_sip_lower((uint8_t)x);
            y = hf_sip_lower((uint8_t)y);
        }
        if (x != y || (ea != eb && is_reserved(x))) {
            return false;
        }
        if (x < 0) {
            return true;
        }
    }
}

/* The first parameter of this name: a name may be there once (19.1.1), and who looks it up takes
 * the first. */
static bool find_param(struct hf_slice in, struct hf_slice name, struct hf_slice *ret_value)
{
    struct hf_sip_cur c = hf_sip_cur(in);
    struct hf_slice n;
    while (next_param(&c, &n, ret_value)) {
        if (eq_escaped(n, name, true)) {
            return true;
        }
    }
    return false;
}

/* Those that make a difference when only one URI has them. */
static bool is_weighty(struct hf_slice name)
{
    return hf_sip_eq(name, S("user")) || hf_sip_eq(name, S("ttl")) ||
           hf_sip_eq(name, S("method")) || hf_sip_eq(name, S("maddr"));
}

/* Every parameter of a that b has must be equal; `all`: and b must have it. */
static bool params_agree(struct hf_slice a, struct hf_slice b, bool all)
{
    struct hf_sip_cur c = hf_sip_cur(a);
    struct hf_slice name, value, first, other;
    while (next_param(&c, &name, &value)) {
        if (find_param(b, name, &other)) {
            if (!find_param(a, name, &first) || !eq_escaped(first, other, true)) {
                return false;
            }
        } else if (all || is_weighty(name)) {
            return false;
        }
    }
    return true;
}

static bool has_header(struct hf_slice in, struct hf_slice name, struct hf_slice value)
{
    struct hf_sip_cur c = hf_sip_cur(in);
    struct hf_slice n, v;
    while (next_pair(&c, HF_SIP_C_URIHDR, '&', &n, &v)) {
        if (eq_escaped(n, name, true) && eq_escaped(v, value, false)) {
            return true;
        }
    }
    return false;
}

/* Every header of a is in b, too: some may be there more than once. */
static bool headers_agree(struct hf_slice a, struct hf_slice b)
{
    struct hf_sip_cur c = hf_sip_cur(a);
    struct hf_slice name, value;
    while (next_pair(&c, HF_SIP_C_URIHDR, '&', &name, &value)) {
        if (!has_header(b, name, value)) {
            return false;
        }
    }
    return true;
}

/* The number without its visual separators, letters small. */
static int next_digit(struct hf_sip_cur *c)
{
    int b;
    while ((b = hf_sip_peek(c)) >= 0) {
        hf_sip_eat(c, (uint8_t)b);
        if (!is_separator((uint8_t)b)) {
            return hf_sip_lower((uint8_t)b);
        }
    }
    return -1;
}

static bool tel_equal(const struct hf_sip_uri *a, const struct hf_sip_uri *b)
{
    struct hf_sip_cur ca = hf_sip_cur(a->user), cb = hf_sip_cur(b->user);
    int x, y;
    do {
        x = next_digit(&ca);
        y = next_digit(&cb);
    } while (x == y && x >= 0);
    return x == y && params_agree(a->params, b->params, true) &&
           params_agree(b->params, a->params, true);
}

bool hf_sip_uri_equal(const struct hf_sip_uri *a, const struct hf_sip_uri *b)
{
    if (a->scheme != b->scheme) {
        return false;
    }
    if (a->scheme == HF_SIP_SCHEME_OTHER) {
        return hf_slice_eq(a->text, b->text);
    }
    if (a->scheme == HF_SIP_SCHEME_TEL) {
        return tel_equal(a, b);
    }
    return (a->user.p != NULL) == (b->user.p != NULL) && eq_escaped(a->user, b->user, false) &&
           (a->password.p != NULL) == (b->password.p != NULL) &&
           eq_escaped(a->password, b->password, false) && a->host.port == b->host.port &&
           hf_sip_host_eq(&a->host, &b->host) && params_agree(a->params, b->params, false) &&
           params_agree(b->params, a->params, false) && headers_agree(a->headers, b->headers) &&
           headers_agree(b->headers, a->headers);
}

/* --- address of record --- */

static void put_lower(struct hf_wr *w, struct hf_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        hf_wr_u8(w, hf_sip_lower(s.p[i]));
    }
}

static void put_host(struct hf_wr *w, const struct hf_sip_host *h)
{
    char text[HF_SIP_IPV6_TEXT_MAX];
    switch (h->kind) {
    case HF_SIP_HOST_NAME:
        put_lower(w, bare_name(h->text));
        break;
    case HF_SIP_HOST_IPV4:
        hf_wr_bytes(w, hf_slice(text, hf_sip_ipv4_text(h->addr, text)));
        break;
    case HF_SIP_HOST_IPV6:
        hf_wr_u8(w, '[');
        hf_wr_bytes(w, hf_slice(text, hf_sip_ipv6_text(h->addr, text)));
        hf_wr_u8(w, ']');
        break;
    }
}

static void put_tel(struct hf_wr *w, const struct hf_sip_uri *u)
{
    struct hf_sip_cur c = hf_sip_cur(u->user);
    struct hf_slice context;
    bool global = hf_sip_peek(&c) == '+';
    hf_wr_bytes(w, S("tel:"));
    for (int b; (b = next_digit(&c)) >= 0;) {
        hf_wr_u8(w, (uint8_t)b);
    }
    if (!global && hf_sip_uri_param(u, "phone-context", &context) && context.n) {
        hf_wr_bytes(w, S(";phone-context="));
        put_lower(w, context);
    }
}

int hf_sip_aor(const struct hf_sip_uri *u, struct hf_wr *w)
{
    if (u->scheme == HF_SIP_SCHEME_OTHER) {
        return -HF_EVALUE;
    }
    if (u->scheme == HF_SIP_SCHEME_TEL) {
        put_tel(w, u);
        return w->err;
    }
    hf_wr_bytes(w, S("sip:"));
    if (u->user.p) {
        struct hf_sip_cur c = hf_sip_cur(u->user);
        bool escaped;
        for (int b; (b = next_byte(&c, &escaped)) >= 0;) {
            put_user_byte(w, (uint8_t)b);
        }
        hf_wr_u8(w, '@');
    }
    put_host(w, &u->host);
    if (u->host.port && u->host.port != 5060 && u->host.port != 5061) {
        char text[8];
        size_t n = 0;
        for (unsigned v = u->host.port; v; v /= 10) {
            text[sizeof(text) - ++n] = (char)('0' + v % 10);
        }
        hf_wr_u8(w, ':');
        hf_wr_bytes(w, hf_slice(text + sizeof(text) - n, n));
    }
    return w->err;
}
