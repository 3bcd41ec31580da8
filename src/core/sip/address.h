/* Addresses in header fields: name-addr and addr-spec with parameters, of From, To, Contact,
 * routes.
 */
#pragma once

#include "core/sip/lex.h"
#include "core/sip/uri.h"

/** One value of From, To, Contact, Route, Record-Route, Path, Service-Route, P-Asserted-Identity,
 * Refer-To, Reply-To ...; slices are borrowed. */
struct hf_sip_address {
    struct hf_slice text;    /* all of it, without white space around */
    struct hf_slice display; /* as written, with its quotes; empty: none */
    struct hf_sip_uri uri;   /* scheme OTHER: only its text */
    struct hf_slice params;  /* of the header field: ";tag=..." or empty */
    bool star;               /* Contact: * ; nothing else is set */
};

/**
 * Parse one address at c, up to a ',' or the end. RFC 3261 20.10, 25.1: a URI without brackets ends
 * at the first ';', and must not have '?' or ','. `star` tells whether "*" is one. -HF_EMALF.
 */
HF_MUST int hf_sip_address_parse(struct hf_sip_cur *c, bool star,
                                 struct hf_sip_address *ret_address);

/** A parameter of the header field (not of the URI). */
static inline bool hf_sip_address_param(const struct hf_sip_address *a, const char *name,
                                        struct hf_sip_param *ret_param)
{
    return hf_sip_param_get(a->params, name, ret_param);
}
/** The tag of a From or To; empty: none. */
struct hf_slice hf_sip_address_tag(const struct hf_sip_address *a);
/** q of a Contact, in thousandths: 0 to 1000; 1000 if there is none. -HF_EMALF. */
HF_MUST int hf_sip_address_q(const struct hf_sip_address *a, uint16_t *ret_q);
/** expires of a Contact. 1: given; 0: none; what is malformed counts as 3600 (RFC 3261 20.10), what
 * is too large as 2^32-1. */
int hf_sip_address_expires(const struct hf_sip_address *a, uint32_t *ret_s);
