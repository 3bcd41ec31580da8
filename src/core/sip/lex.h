/* Tokens of SIP's grammar: a cursor over borrowed bytes, character classes, quoted strings, lists.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

/*
 * The only place of core/sip that does pointer arithmetic on foreign bytes. Nothing here allocates
 * or fails harder than "not there". White space is SP, HTAB and folded lines (CRLF and one of
 * both): hf_sip_parse() has seen to it that CR and LF stand nowhere else.
 */

/* RFC 3261 25.1 */
enum hf_sip_class {
    HF_SIP_C_TOKEN = 1 << 0,   /* token */
    HF_SIP_C_WS = 1 << 1,      /* SP HTAB CR LF */
    HF_SIP_C_DIGIT = 1 << 2,   /* 0-9 */
    HF_SIP_C_HEX = 1 << 3,     /* 0-9 a-f A-F */
    HF_SIP_C_CONTROL = 1 << 4, /* 00-1F without HTAB, 7F: never inside a line */
    HF_SIP_C_HOST = 1 << 5,    /* letters, digits, '-', '.'; and '_', which the grammar lacks and
                                * names of hosts have */
    HF_SIP_C_USER = 1 << 6,    /* unreserved / user-unreserved; '%' is looked at apart */
    HF_SIP_C_PARAM = 1 << 7,   /* paramchar of a SIP URI, likewise */
    HF_SIP_C_URIHDR = 1 << 8,  /* hnv-unreserved / unreserved, likewise */
    HF_SIP_C_VALUE = 1 << 9,   /* what a parameter's value may have without quotes: token, and "[]:"
                                * of addresses, and "/=@", which real agents put there */
    HF_SIP_C_WORD = 1 << 10,   /* word: what a Call-ID is made of */
    HF_SIP_C_URI = 1 << 11,    /* visible ASCII without <> and ": any URI */
    HF_SIP_C_BARE = 1 << 12,   /* of these without ";,?": a URI that stands without <> */
    HF_SIP_C_IPV6 = 1 << 13,   /* hex digits, ':', '.' */
};
extern const uint16_t hf_sip_class[256];

/** Every byte of s of this class (s may be empty)? */
bool hf_sip_all(struct hf_slice s, enum hf_sip_class class);

/** Order in which the case of ASCII letters does not count: negative, 0, positive. */
int hf_sip_cmp(struct hf_slice a, struct hf_slice b);
/** Equal but for that? */
static inline bool hf_sip_eq(struct hf_slice a, struct hf_slice b)
{
    return a.n == b.n && hf_sip_cmp(a, b) == 0;
}
static inline bool hf_sip_eq_str(struct hf_slice a, const char *s)
{
    return hf_sip_eq(a, hf_slice_str(s));
}
static inline uint8_t hf_sip_lower(uint8_t c)
{
    return (uint8_t)(c - 'A') < 26 ? (uint8_t)(c | 32) : c;
}

struct hf_sip_cur {
    const uint8_t *p;   /* borrowed */
    const uint8_t *end; /* one past the last byte */
};

static inline struct hf_sip_cur hf_sip_cur(struct hf_slice s)
{
    static const uint8_t nothing[1];
    const uint8_t *p = s.p ? s.p : nothing; /* an empty one keeps its place */
    return (struct hf_sip_cur){.p = p, .end = p + (s.p ? s.n : 0)};
}
/** The next byte, or -1 at the end. */
static inline int hf_sip_peek(const struct hf_sip_cur *c)
{
    return c->p < c->end ? *c->p : -1;
}
static inline bool hf_sip_done(const struct hf_sip_cur *c)
{
    return c->p == c->end;
}
/** Step over the next byte if it is this one. */
static inline bool hf_sip_eat(struct hf_sip_cur *c, uint8_t byte)
{
    if (c->p < c->end && *c->p == byte) {
        c->p++;
        return true;
    }
    return false;
}
/** The longest run of bytes of this class, stepped over; maybe empty. */
static inline struct hf_slice hf_sip_span(struct hf_sip_cur *c, unsigned class)
{
    const uint8_t *p = c->p;
    while (c->p < c->end && hf_sip_class[*c->p] & class) {
        c->p++;
    }
    return hf_slice(p, (size_t)(c->p - p));
}
/** To the next byte that may not be inside a line (HF_SIP_C_CONTROL), or to the end. */
void hf_sip_to_control(struct hf_sip_cur *c);
static inline void hf_sip_ws(struct hf_sip_cur *c)
{
    while (c->p < c->end && hf_sip_class[*c->p] & HF_SIP_C_WS) {
        c->p++;
    }
}
/** What is left, not stepped over. */
static inline struct hf_slice hf_sip_left(const struct hf_sip_cur *c)
{
    return hf_slice(c->p, (size_t)(c->end - c->p));
}
/** From `begin` (where c stood before) to where it stands now. */
static inline struct hf_slice hf_sip_since(const struct hf_sip_cur *c, const uint8_t *begin)
{
    return hf_slice(begin, (size_t)(c->p - begin));
}
/** White space, this separator, white space: SEMI, COMMA, SLASH, EQUAL, COLON (RFC 3261 25.1). */
bool hf_sip_separator(struct hf_sip_cur *c, uint8_t byte);
/** A decimal number; leading zeros are fine. -HF_EMALF: no digit; -HF_EVALUE: above max (all digits
 * are stepped over). */
HF_MUST int hf_sip_number(struct hf_sip_cur *c, uint64_t max, uint64_t *ret_v);
/** A quoted string with its quotes. -HF_EMALF: it does not begin or does not end. */
HF_MUST int hf_sip_quoted(struct hf_sip_cur *c, struct hf_slice *ret_s);
/** s without white space around it. */
struct hf_slice hf_sip_trim(struct hf_slice s);
/** What a quoted string (with its quotes) means, into room bytes at buf: *ret_s, borrowed from s
 * when nothing is escaped and from buf otherwise. Text without quotes stays as it is. -HF_EFULL. */
HF_MUST int hf_sip_unquote(struct hf_slice s, char *buf, size_t room, struct hf_slice *ret_s);

/** One parameter: ";name", ";name=value", ';name="value"'. */
struct hf_sip_param {
    struct hf_slice name;
    struct hf_slice value; /* with its quotes; p == NULL: without value */
    bool quoted;
};
/**
 * Step over the next parameter of a header field. 1: *ret_param is one; 0: here is no ';';
 * -HF_EMALF: an empty one, or not a parameter.
 */
HF_MUST int hf_sip_param_next(struct hf_sip_cur *c, struct hf_sip_param *ret_param);
/** The first parameter of this name, in any case, among ";name=value;name...". */
bool hf_sip_param_get(struct hf_slice params, const char *name, struct hf_sip_param *ret_param);

/** A number of seconds as RFC 3261 20.19 has it: 0 to 2^32-1. -HF_EMALF: none; -HF_EVALUE: larger.
 */
HF_MUST int hf_sip_seconds(struct hf_slice s, uint32_t *ret_s);

/** The text of an IPv4 address, four decimal bytes. */
bool hf_sip_ipv4(struct hf_slice s, uint8_t ret_addr[4]);
/** The text of an IPv6 address without brackets; ":::" before an IPv4 address is taken as "::", as
 * RFC 5118 4.10 wants. */
bool hf_sip_ipv6(struct hf_slice s, uint8_t ret_addr[16]);
/** The text of 16 bytes' IPv6 address, as RFC 5952 has it; returns its length. */
#define HF_SIP_IPV6_TEXT_MAX 46 /* with its NUL */
size_t hf_sip_ipv6_text(const uint8_t addr[16], char ret_text[HF_SIP_IPV6_TEXT_MAX]);
/** Likewise of 4 bytes. */
size_t hf_sip_ipv4_text(const uint8_t addr[4], char ret_text[16]);
/** Steps over bytes of a class and %HH. */
struct hf_slice hf_sip_span_escaped(struct hf_sip_cur *c, unsigned class);
