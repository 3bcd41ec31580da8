/* Header fields that some elements need: events, expiries, authentication, dates, option tags.
 */
#pragma once

#include "core/sip/message.h"

/** Expires, Min-Expires. 1: *ret_s; 0: there is none; what is malformed or too large counts as 3600
 * (RFC 3261 10.3 step 7). -HF_EMALF: the field is repeated. */
HF_MUST int hf_sip_expires(const struct hf_sip_msg *m, enum hf_sip_field_id id, uint32_t *ret_s);

/** Of a Contact in a REGISTER: its own expires, else the message's, else `otherwise`; "0" of the
 * message for "*". -HF_EMALF. RFC 3261 10.2.1.1. */
HF_MUST int hf_sip_contact_expires(const struct hf_sip_msg *m, const struct hf_sip_address *contact,
                                   uint32_t otherwise, uint32_t *ret_s);

/** Does a list of tokens (Require, Supported, Allow, Allow-Events ...) have this one, in any case?
 */
bool hf_sip_lists(const struct hf_sip_msg *m, enum hf_sip_field_id id, const char *token);
/** The first token of a list that is none of `known` (ended by NULL): for 420 and Unsupported. 1:
 * *ret_token; 0: all are known; -HF_EMALF. */
HF_MUST int hf_sip_unknown_token(const struct hf_sip_msg *m, enum hf_sip_field_id id,
                                 const char *const *known, struct hf_slice *ret_token);

/** Event (RFC 6665 8.2.1). */
struct hf_sip_event {
    struct hf_slice package; /* "reg", "presence", with its templates "presence.winfo" */
    struct hf_slice id;      /* p == NULL: none */
    struct hf_slice params;
};
/** 1, 0: there is none, -HF_EMALF. */
HF_MUST int hf_sip_event(const struct hf_sip_msg *m, struct hf_sip_event *ret_event);

/** Subscription-State (RFC 6665 8.2.3). */
struct hf_sip_substate {
    struct hf_slice state;  /* "active", "pending", "terminated" or another */
    struct hf_slice reason; /* empty: none */
    bool has_expires, has_retry_after;
    uint32_t expires_s, retry_after_s;
};
/** 1, 0, -HF_EMALF. */
HF_MUST int hf_sip_subscription_state(const struct hf_sip_msg *m,
                                      struct hf_sip_substate *ret_state);

/** Content-Type. */
struct hf_sip_type {
    struct hf_slice type, subtype, params;
};
/** 1, 0, -HF_EMALF. */
HF_MUST int hf_sip_content_type(const struct hf_sip_msg *m, struct hf_sip_type *ret_type);

/** Retry-After, without its comment and parameters. 1, 0, -HF_EMALF. */
HF_MUST int hf_sip_retry_after(const struct hf_sip_msg *m, uint32_t *ret_s);

/** Date: seconds since 1970. 1, 0, -HF_EMALF: not "Sat, 13 Nov 2010 23:29:00 GMT" (RFC 3261 20.17:
 * GMT is the only zone). */
HF_MUST int hf_sip_date(const struct hf_sip_msg *m, int64_t *ret_s);

/** SIP-ETag, SIP-If-Match: one token (RFC 3903 11.3). 1, 0, -HF_EMALF. */
HF_MUST int hf_sip_etag(const struct hf_sip_msg *m, enum hf_sip_field_id id,
                        struct hf_slice *ret_tag);

/**
 * All fields that are known here, each as strictly as its accessor: what a test, an edge towards
 * strangers, or an agent at the end may want and a proxy does not. HF_SIP_H_OTHER: nothing is
 * wrong; otherwise the first one that is.
 */
enum hf_sip_field_id hf_sip_scrutinise(const struct hf_sip_msg *m);
