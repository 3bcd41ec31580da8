#include "core/sip/lex.h"

#include <arpa/inet.h>

#include "base/err.h"

/* --- classes --- */

#define BETWEEN(c, a, b) ((c) >= (a) && (c) <= (b))
#define DIGIT(c) BETWEEN(c, '0', '9')
#define ALNUM(c) (DIGIT(c) || BETWEEN(c, 'a', 'z') || BETWEEN(c, 'A', 'Z'))
#define HEX(c) (DIGIT(c) || BETWEEN(c, 'a', 'f') || BETWEEN(c, 'A', 'F'))
#define UNRESERVED(c)                                                                              \
    (ALNUM(c) || (c) == '-' || (c) == '_' || (c) == '.' || (c) == '!' || (c) == '~' ||             \
     (c) == '*' || (c) == '\'' || (c) == '(' || (c) == ')')
#define TOKEN(c)                                                                                   \
    (ALNUM(c) || (c) == '-' || (c) == '.' || (c) == '!' || (c) == '%' || (c) == '*' ||             \
     (c) == '_' || (c) == '+' || (c) == '`' || (c) == '\'' || (c) == '~')
#define WS(c) ((c) == ' ' || (c) == '\t' || (c) == '\r' || (c) == '\n')
#define HOST(c) (ALNUM(c) || (c) == '-' || (c) == '.' || (c) == '_')
#define USER(c)                                                                                    \
    (UNRESERVED(c) || (c) == '&' || (c) == '=' || (c) == '+' || (c) == '$' || (c) == ',' ||        \
     (c) == ';' || (c) == '?' || (c) == '/')
#define BOTH(c)                                                                                    \
    (UNRESERVED(c) || (c) == '[' || (c) == ']' || (c) == '/' || (c) == ':' || (c) == '+' ||        \
     (c) == '$')
#define PARAM(c) (BOTH(c) || (c) == '&')
#define URIHDR(c) (BOTH(c) || (c) == '?')
#define VALUE(c)                                                                                   \
    (TOKEN(c) || (c) == '[' || (c) == ']' || (c) == ':' || (c) == '/' || (c) == '=' || (c) == '@')
#define WORD(c)                                                                                    \
    (TOKEN(c) || (c) == '(' || (c) == ')' || (c) == '<' || (c) == '>' || (c) == ':' ||             \
     (c) == '\\' || (c) == '"' || (c) == '/' || (c) == '[' || (c) == ']' || (c) == '?' ||          \
     (c) == '{' || (c) == '}')
#define CONTROL(c) (((c) < 0x20 && (c) != '\t') || (c) == 0x7f)
#define URI(c) (BETWEEN(c, 0x21, 0x7e) && (c) != '<' && (c) != '>' && (c) != '"')

#define BARE(c) (URI(c) && (c) != ';' && (c) != ',' && (c) != '?')
#define IPV6(c) (HEX(c) || (c) == ':' || (c) == '.')

#define CLASS(c)                                                                                   \
    ((TOKEN(c) ? HF_SIP_C_TOKEN : 0) | (WS(c) ? HF_SIP_C_WS : 0) |                                 \
     (DIGIT(c) ? HF_SIP_C_DIGIT : 0) | (HEX(c) ? HF_SIP_C_HEX : 0) |                               \
     (CONTROL(c) ? HF_SIP_C_CONTROL : 0) | (HOST(c) ? HF_SIP_C_HOST : 0) |                         \
     (USER(c) ? HF_SIP_C_USER : 0) | (PARAM(c) ? HF_SIP_C_PARAM : 0) |                             \
     (URIHDR(c) ? HF_SIP_C_URIHDR : 0) | (VALUE(c) ? HF_SIP_C_VALUE : 0) |                         \
     (WORD(c) ? HF_SIP_C_WORD : 0) | (URI(c) ? HF_SIP_C_URI : 0) | (BARE(c) ? HF_SIP_C_BARE : 0) | \
     (IPV6(c) ? HF_SIP_C_IPV6 : 0))
#define CLASS4(c) CLASS(c), CLASS((c) + 1), CLASS((c) + 2), CLASS((c) + 3)
#define CLASS16(c) CLASS4(c), CLASS4((c) + 4), CLASS4((c) + 8), CLASS4((c) + 12)

const uint16_t hf_sip_class[256] = {CLASS16(0),  CLASS16(16), CLASS16(32), CLASS16(48),
                                    CLASS16(64), CLASS16(80), CLASS16(96), CLASS16(112)};

bool hf_sip_all(struct hf_slice s, enum hf_sip_class class)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!(hf_sip_class[s.p[i]] & class)) {
            return false;
        }
    }
    return true;
}

int hf_sip_cmp(struct hf_slice a, struct hf_slice b)
{
    size_t n = a.n < b.n ? a.n : b.n, i = 0;
    for (uint64_t x, y; n - i >= sizeof(x); i += sizeof(x)) { /* most are written alike */
        memcpy(&x, a.p + i, sizeof(x));
        memcpy(&y, b.p + i, sizeof(y));
        if (x != y) {
            break;
        }
    }
    for (; i < n; i++) {
        if (a.p[i] == b.p[i]) {
            continue;
        }
        int d = hf_sip_lower(a.p[i]) - hf_sip_lower(b.p[i]);
        if (d) {
            return d;
        }
    }
    return (a.n > b.n) - (a.n < b.n);
}

/* --- pieces --- */

/* Has any of 8 bytes a value below 0x20, or 0x7f? HTAB is found, too: the caller looks again. */
static bool may_have_control(uint64_t x)
{
    const uint64_t ones = UINT64_MAX / 255, high = ones << 7;
    uint64_t del = x ^ ones * 0x7f;
    return (((x - ones * 0x20) & ~x) | ((del - ones) & ~del)) & high;
}

void hf_sip_to_control(struct hf_sip_cur *c)
{
    for (;;) {
        uint64_t x;
        while (c->end - c->p >= (ptrdiff_t)sizeof(x) &&
               !may_have_control(*(uint64_t *)memcpy(&x, c->p, sizeof(x)))) {
            c->p += sizeof(x);
        }
        for (size_t i = 0; i < sizeof(x); i++) {
            if (c->p == c->end || hf_sip_class[*c->p] & HF_SIP_C_CONTROL) {
                return;
            }
            c->p++;
        }
    }
}

bool hf_sip_separator(struct hf_sip_cur *c, uint8_t byte)
{
    struct hf_sip_cur begin = *c;
    hf_sip_ws(c);
    if (!hf_sip_eat(c, byte)) {
        *c = begin;
        return false;
    }
    hf_sip_ws(c);
    return true;
}

int hf_sip_number(struct hf_sip_cur *c, uint64_t max, uint64_t *ret_v)
{
    struct hf_slice digits = hf_sip_span(c, HF_SIP_C_DIGIT);
    uint64_t v = 0;
    for (size_t i = 0; i < digits.n; i++) {
        uint64_t d = (uint64_t)(digits.p[i] - '0');
        if (d > max || v > (max - d) / 10) {
            return -HF_EVALUE;
        }
        v = v * 10 + d;
    }
    if (digits.n == 0) {
        return -HF_EMALF;
    }
    *ret_v = v;
    return 0;
}

int hf_sip_quoted(struct hf_sip_cur *c, struct hf_slice *ret_s)
{
    const uint8_t *begin = c->p;
    if (!hf_sip_eat(c, '"')) {
        return -HF_EMALF;
    }
    while (c->p < c->end && *c->p != '"') {
        c->p += *c->p == '\\' && c->end - c->p > 1 ? 2 : 1;
    }
    if (!hf_sip_eat(c, '"')) {
        return -HF_EMALF;
    }
    *ret_s = hf_sip_since(c, begin);
    return 0;
}

struct hf_slice hf_sip_trim(struct hf_slice s)
{
    struct hf_sip_cur c = hf_sip_cur(s);
    hf_sip_ws(&c);
    while (c.end > c.p && hf_sip_class[c.end[-1]] & HF_SIP_C_WS) {
        c.end--;
    }
    return hf_sip_left(&c);
}

int hf_sip_unquote(struct hf_slice s, char *buf, size_t room, struct hf_slice *ret_s)
{
    if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"') {
        s = hf_slice(s.p + 1, s.n - 2);
    }
    if (s.n == 0 || !memchr(s.p, '\\', s.n)) {
        *ret_s = s;
        return 0;
    }
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        i += s.p[i] == '\\' && i + 1 < s.n;
        if (n == room) {
            return -HF_EFULL;
        }
        buf[n++] = (char)s.p[i];
    }
    *ret_s = hf_slice(buf, n);
    return 0;
}

struct hf_slice hf_sip_span_escaped(struct hf_sip_cur *c, unsigned class)
{
    const uint8_t *begin = c->p;
    for (;;) {
        hf_sip_span(c, class);
        if (c->end - c->p < 3 || c->p[0] != '%' || !(hf_sip_class[c->p[1]] & HF_SIP_C_HEX) ||
            !(hf_sip_class[c->p[2]] & HF_SIP_C_HEX)) {
            return hf_sip_since(c, begin);
        }
        c->p += 3;
    }
}

/* --- parameters --- */

int hf_sip_param_next(struct hf_sip_cur *c, struct hf_sip_param *ret_param)
{
    struct hf_sip_param p = {.value = {NULL, 0}};
    if (!hf_sip_separator(c, ';')) {
        return 0;
    }
    p.name = hf_sip_span(c, HF_SIP_C_TOKEN);
    if (p.name.n == 0) {
        return -HF_EMALF;
    }
    if (hf_sip_separator(c, '=')) {
        p.quoted = hf_sip_peek(c) == '"';
        if (p.quoted && hf_sip_quoted(c, &p.value)) {
            return -HF_EMALF;
        }
        if (!p.quoted) {
            p.value = hf_sip_span(c, HF_SIP_C_VALUE);
        }
        if (p.value.n == 0) {
            return -HF_EMALF;
        }
    }
    *ret_param = p;
    return 1;
}

bool hf_sip_param_get(struct hf_slice params, const char *name, struct hf_sip_param *ret_param)
{
    struct hf_sip_cur c = hf_sip_cur(params);
    struct hf_slice want = hf_slice_str(name);
    struct hf_sip_param p;
    while (hf_sip_param_next(&c, &p) == 1) {
        if (hf_sip_eq(p.name, want)) {
            *ret_param = p;
            return true;
        }
    }
    return false;
}

int hf_sip_seconds(struct hf_slice s, uint32_t *ret_s)
{
    struct hf_sip_cur c = hf_sip_cur(s);
    uint64_t v;
    int rc = hf_sip_number(&c, UINT32_MAX, &v);
    if (rc == -HF_EMALF || !hf_sip_done(&c)) {
        return -HF_EMALF;
    }
    if (rc == 0) {
        *ret_s = (uint32_t)v;
    }
    return rc;
}

/* --- addresses --- */

bool hf_sip_ipv4(struct hf_slice s, uint8_t ret_addr[4])
{
    struct hf_sip_cur c = hf_sip_cur(s);
    uint8_t addr[4];
    for (int i = 0; i < 4; i++) {
        uint64_t v;
        if (i && !hf_sip_eat(&c, '.')) {
            return false;
        }
        const uint8_t *begin = c.p;
        if (hf_sip_number(&c, 255, &v) || hf_sip_since(&c, begin).n > 3) {
            return false;
        }
        addr[i] = (uint8_t)v;
    }
    if (!hf_sip_done(&c)) {
        return false;
    }
    memcpy(ret_addr, addr, 4);
    return true;
}

bool hf_sip_ipv6(struct hf_slice s, uint8_t ret_addr[16])
{
    char text[64];
    struct in6_addr a;
    if (s.n < 2 || s.n >= sizeof(text) || memchr(s.p, 0, s.n)) {
        return false;
    }
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    char *three = strstr(text, ":::");
    if (three && strchr(three, '.')) {
        memmove(three, three + 1, strlen(three));
    }
    if (inet_pton(AF_INET6, text, &a) != 1) {
        return false;
    }
    memcpy(ret_addr, &a, 16);
    return true;
}

size_t hf_sip_ipv6_text(const uint8_t addr[16], char ret_text[HF_SIP_IPV6_TEXT_MAX])
{
    ret_text[0] = 0;
    inet_ntop(AF_INET6, addr, ret_text, HF_SIP_IPV6_TEXT_MAX);
    return strlen(ret_text);
}

size_t hf_sip_ipv4_text(const uint8_t addr[4], char ret_text[16])
{
    char *at = ret_text; /* not by snprintf(): it is in each response */
    for (int i = 0; i < 4; i++) {
        unsigned v = addr[i];
        if (v >= 100) {
            *at++ = (char)('0' + v / 100);
        }
        if (v >= 10) {
            *at++ = (char)('0' + v / 10 % 10);
        }
        *at++ = (char)('0' + v % 10);
        *at++ = '.';
    }
    *--at = 0;
    return (size_t)(at - ret_text);
}
