/* SIP, SIPS and tel URIs: parse, compare, parameters, and the name under which a user is known. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/limits.h"
#include "base/slice.h"
#include "base/wr.h"
#include "core/sip/lex.h"

enum hf_sip_scheme {
    HF_SIP_SCHEME_SIP,
    HF_SIP_SCHEME_SIPS,
    HF_SIP_SCHEME_TEL,
    HF_SIP_SCHEME_OTHER, /* any other absolute URI (RFC 3986): only text and scheme_text are set */
};
enum hf_sip_host_kind {
    HF_SIP_HOST_NAME,
    HF_SIP_HOST_IPV4,
    HF_SIP_HOST_IPV6,
};
/** host [":" port], as in URIs and in Via. */
struct hf_sip_host {
    struct hf_slice text; /* an IPv6 address without its brackets */
    enum hf_sip_host_kind kind;
    uint8_t addr[16]; /* of IPV4 (4 bytes) and IPV6 */
    uint16_t port;    /* 0: none */
};
/** A URI; all slices are borrowed from the text it was parsed from, with their escapes. */
struct hf_sip_uri {
    struct hf_slice text;
    struct hf_slice scheme_text;
    enum hf_sip_scheme scheme;
    struct hf_slice user;     /* p == NULL: none. tel: the number, with its visual separators */
    struct hf_slice password; /* p == NULL: none */
    struct hf_sip_host host;  /* not of tel */
    struct hf_slice params;   /* "name=value;name...", without the first ';' */
    struct hf_slice headers;  /* "name=value&...", without the '?' */
};

/**
 * Parse s, all of it. RFC 3261 19.1, RFC 3966, RFC 5118, RFC 5954.
 * -HF_EMALF: not a URI; -HF_EVALUE: of a scheme that is not known here (ret_uri is filled: what to
 * do is the caller's, e.g. 416 for a Request-URI).
 */
HF_MUST int hf_sip_uri_parse(struct hf_slice s, struct hf_sip_uri *ret_uri);
/** host [":" port] at c, stepped over; `ws`: white space may stand around the ':'. -HF_EMALF. */
HF_MUST int hf_sip_host_parse(struct hf_sip_cur *c, bool ws, struct hf_sip_host *ret_host);
/** Same host (addresses by value, names in any case)? The port does not count. */
bool hf_sip_host_eq(const struct hf_sip_host *a, const struct hf_sip_host *b);

/** A URI parameter by name (in any case), of sip, sips, tel; its value with escapes, p == NULL:
 * none. */
bool hf_sip_uri_param(const struct hf_sip_uri *u, const char *name, struct hf_slice *ret_value);

/** Equal by RFC 3261 19.1.4; tel by RFC 3966 4; other schemes byte by byte. */
bool hf_sip_uri_equal(const struct hf_sip_uri *a, const struct hf_sip_uri *b);

/**
 * The address of record that u stands for, in one canonical form (RFC 3261 10.3): "sip:" (also for
 * sips), the user with every escape undone that may be, the host in lower case, no password, no
 * parameters, no headers, the port only where it is neither 5060 nor 5061; tel: "tel:+..." without
 * separators, local numbers with their phone-context. Two URIs that name one user give the same
 * bytes, and these are a URI again. Appended to w (-HF_EFULL by w). -HF_EVALUE: of another scheme.
 */
HF_MUST int hf_sip_aor(const struct hf_sip_uri *u, struct hf_wr *w);
