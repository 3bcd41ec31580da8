/* Writes SIP messages into a caller's buffer: responses, forwarded requests and responses, new
 * requests. */
#pragma once

#include "base/endpoint.h"
#include "base/wr.h"
#include "core/sip/message.h"

/*
 * A message is written in steps: one hf_sip_begin_*(), any hf_sip_put_*(), one hf_sip_end(). Errors
 * are sticky in the writer (-HF_EFULL: the buffer; -HF_EVALUE: a value with a line end of its own,
 * which would be a field that nobody wrote). Content-Length is written by hf_sip_end(), always.
 * What is copied from a message is copied as it is, folded lines too.
 */

/** The usual reason phrase of a status code (RFC 3261 21 and others); "Unknown" for none. */
const char *hf_sip_reason(uint16_t status);

void hf_sip_put_str(struct hf_wr *w, const char *s);
void hf_sip_put_u64(struct hf_wr *w, uint64_t v);
/** ";name=value", or without "=" if it has no value. */
void hf_sip_put_param(struct hf_wr *w, const struct hf_sip_param *p);
/** s as a quoted string: with its quotes, '"' and '\' escaped, controls dropped. */
void hf_sip_put_quoted(struct hf_wr *w, struct hf_slice s);

/** "Name: value" and its line end. */
void hf_sip_put_field(struct hf_wr *w, enum hf_sip_field_id id, struct hf_slice value);
/** A field in pieces: name, then anything, then the line end. */
void hf_sip_put_name(struct hf_wr *w, enum hf_sip_field_id id);
void hf_sip_put_eol(struct hf_wr *w);
void hf_sip_put_number(struct hf_wr *w, enum hf_sip_field_id id, uint64_t v);
/** All lines of this field of m, as they are. */
void hf_sip_put_copies(struct hf_wr *w, const struct hf_sip_msg *m, enum hf_sip_field_id id);

/** Ends the header and writes the body. type: Content-Type; empty: none is written. Returns 0 or
 * the sticky error; *ret_message is what was written. */
HF_MUST int hf_sip_end(struct hf_wr *w, struct hf_slice type, struct hf_slice body,
                       struct hf_slice *ret_message);

/**
 * A response (RFC 3261 8.2.6.2): status line, all Vias, the topmost with received and rport
 * (18.2.1, RFC 3581 4), From, To, Call-ID, CSeq. `reason` empty: the usual one. `to_tag` is added
 * to To if it has none; empty: none is added (100). Works for malformed requests, too: what can't
 * be read is copied or left out. -HF_EMALF: the request is not answerable (nothing is written).
 */
HF_MUST int hf_sip_begin_response(struct hf_wr *w, const struct hf_sip_msg *request,
                                  uint16_t status, struct hf_slice reason, struct hf_slice to_tag,
                                  const struct hf_endpoint *source);

/** A tag for a stateless To: the same for a retransmission (RFC 3261 8.2.7), another one for
 * another request. 16 hex digits; the seed is a secret of the server. */
void hf_sip_stateless_tag(const struct hf_sip_msg *request, uint64_t seed, char ret_tag[16]);
/** A branch for stateless forwarding (RFC 3261 16.11): the same for a retransmission, for the
 * CANCEL and the ACK of a non-2xx of the same transaction, another one for every other; `salt` is
 * what it shall depend on besides (epoch, target). The cookie and 16 hex digits. */
#define HF_SIP_BRANCH_LEN 23
void hf_sip_stateless_branch(const struct hf_sip_msg *request, struct hf_slice salt, uint64_t seed,
                             char ret_branch[HF_SIP_BRANCH_LEN]);

/** How a request is forwarded; empty slices: not. All borrowed for the call. */
struct hf_sip_forward {
    struct hf_slice uri;              /* the new Request-URI; empty: as it was */
    enum hf_sip_transport transport;  /* our own Via ... */
    struct hf_slice sent_by;          /* host [":" port]; may not be empty */
    struct hf_slice branch;           /* may not be empty */
    struct hf_slice via_params;       /* more of it: ";name=value" */
    bool rport;                       /* ask the next hop for it */
    const struct hf_endpoint *source; /* received and rport of the Via below ours; NULL: not */
    struct hf_slice record_route;     /* "<sip:...;lr>", to stand before all others (16.6 step 4) */
    struct hf_slice path;             /* likewise (RFC 3327 5) */
    struct hf_slice route;            /* put before the Routes that stay; several: with commas */
    uint8_t pop_routes;  /* Route values to take off first (16.4: ours; or what a strict
                          * router's Request-URI came from) */
    bool pop_last_route; /* ... and the last one, which became the Request-URI (16.4) */
    uint64_t drop;       /* bits enum hf_sip_field_id: lines left out (credentials of our
                          * realm, fields that are written anew) */
    uint8_t hop;         /* of the mark that it came with: a loop has the same one, what a
                          * peer sends back has not (hf_sip_loop_hash()) */
};
/**
 * A request to forward (RFC 3261 16.6): our Via on top, Max-Forwards one less (70 if there was
 * none), all else in order as it was. The body is the caller's to give to hf_sip_end() (m->body).
 * -HF_EMALF: a fault in the request; -HF_EVALUE: Max-Forwards is 0 (483 is the answer).
 */
HF_MUST int hf_sip_begin_forward(struct hf_wr *w, const struct hf_sip_msg *request,
                                 const struct hf_sip_forward *how);

/** A response to relay (RFC 3261 16.7): as it was, without the topmost Via value. -HF_EMALF: it has
 * no other, or a fault; -HF_EVALUE: the next one is at a multicast or broadcast address. */
HF_MUST int hf_sip_begin_relay(struct hf_wr *w, const struct hf_sip_msg *response);

/** A request of our own. */
struct hf_sip_request {
    struct hf_slice method; /* text */
    struct hf_slice uri;
    enum hf_sip_transport transport;
    struct hf_slice sent_by, branch, via_params;
    bool rport;
    struct hf_slice from, to; /* whole values, with tags */
    struct hf_slice call_id;
    uint32_t cseq;
    uint8_t max_forwards;    /* 0 is sent as 0 */
    struct hf_slice route;   /* route set with commas; empty: none */
    struct hf_slice contact; /* empty: none */
};
HF_MUST int hf_sip_begin_request(struct hf_wr *w, const struct hf_sip_request *r);
