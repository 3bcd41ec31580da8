/* What servers of a cluster tell each other in messages that strangers see, too: marks of what is
 * proxied, and names of flows; sealed (SipHash-2-4-128) with a key made from the cluster key (I8).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/siphash.h"
#include "core/sip/decide.h"
#include "core/sip/digest.h"
#include "core/sip/flow.h"
#include "core/sip/write.h"

/*
 *   Holdfast-Hop: 1;epoch=7;offer;fresh;tag=HEX   a header field of what a peer proxies (D5, I7).
 * The tag covers it, Call-ID, CSeq, method, and the branch of the topmost Via, which is the
 * sender's: it is good for this one hop of this one transaction. Never sent to anybody but peers.
 *   ;hf=HEX in our own Via                  where the response goes back (S4): listening address
 * and connection, and a hash by which a loop is told from a spiral; covers the branch, too.
 *   HEX@host in Path and Record-Route       a flow (RFC 5626 5): listening address, peer,
 * connection.
 */
struct hf_sip_keys {
    uint8_t mark[HF_SIPHASH_KEY_LEN], via[HF_SIPHASH_KEY_LEN], flow[HF_SIPHASH_KEY_LEN];
    uint64_t branch, tag; /* seeds of hf_sip_stateless_*(): the same for all workers and servers */
};
/** Keys for each purpose out of one of HF_SIP_NONCE_KEY_LEN bytes. -ENOTSUP: no SHA-256 here. */
HF_MUST int hf_sip_keys_make(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_sip_keys *ret_keys);

/** Writes the field for `request`, which is forwarded with this branch of our own. */
void hf_sip_mark_put(struct hf_wr *w, const struct hf_sip_keys *keys,
                     const struct hf_sip_msg *request, struct hf_slice branch,
                     const struct hf_sip_mark *mark);
/** The mark of a request as it came. 1: *ret_mark; 0: there is none; -HF_EAUTH: not of our cluster,
 * not of this hop, or malformed: it counts as none. */
HF_MUST int hf_sip_mark_get(const struct hf_sip_keys *keys, const struct hf_sip_msg *request,
                            struct hf_sip_mark *ret_mark);

/** Where a response goes back. */
struct hf_sip_back {
    uint16_t listen; /* hf_sip_listen_id() */
    uint64_t conn;   /* 0: UDP */
    uint32_t loop;   /* hash of what a proxy routes by (RFC 3261 16.3 step 4) */
};
/** Which of our listening addresses, in 16 bits: the same at whoever has the address (S1). */
uint16_t hf_sip_listen_id(uint8_t transport, const struct hf_endpoint *at);
/** What a request has in common with itself when it comes round: what it is, and all that it is
 * routed by (RFC 3261 16.6 step 8): the Request-URI, Routes, and hop, of a peer's mark: what comes
 * back from a peer that knows better is a spiral (I7). */
uint64_t hf_sip_loop_hash(const struct hf_sip_msg *m, uint8_t hop, uint64_t seed);
#define HF_SIP_BACK_LEN 48 /* ";hf=" and hex digits */
void hf_sip_back_make(const struct hf_sip_keys *keys, const struct hf_sip_back *back,
                      struct hf_slice branch, char ret_text[HF_SIP_BACK_LEN]);
/** Out of a Via of ours. -HF_EAUTH: not ours. */
HF_MUST int hf_sip_back_get(const struct hf_sip_keys *keys, const struct hf_sip_via *via,
                            struct hf_sip_back *ret_back);

/** A flow's name, for the user part of a URI. boot: tells the program's lives apart, as numbers of
 * connections mean nothing to another one. Returns its length. */
#define HF_SIP_TOKEN_MAX 96
size_t hf_sip_token_make(const struct hf_sip_keys *keys, uint64_t boot, uint16_t listen,
                         const struct hf_sip_flow *flow, char ret_text[HF_SIP_TOKEN_MAX]);
/** The flow (without `local`) and the listening address. -HF_EMALF: not a token; -HF_EAUTH: not of
 * ours, or of a connection of a former life. */
HF_MUST int hf_sip_token_get(const struct hf_sip_keys *keys, uint64_t boot, struct hf_slice text,
                             struct hf_sip_flow *ret_flow, uint16_t *ret_listen);
