/* Digest authentication of SIP: challenges, stateless nonces, and what a client's answer proves. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"
#include "base/wr.h"
#include "core/sip/message.h"

/*
 * RFC 3261 22, RFC 7616, RFC 8760. qop=auth only: it is always offered, so clients must use it
 * (22.4 item 8); auth-int is refused by name, as a proxy between may change the body. Not offered,
 * and so not taken: "-sess" algorithms, userhash, answers without qop (RFC 2069).
 *
 * Nonces are not stored: a nonce is the time, a number of chance, and an HMAC over both and the
 * realm by a key that all servers of a realm share (S6), so that any of them may check it. Replay
 * is bounded by its age, and closed by the caller, who keeps the highest nc by (nonce): nc comes
 * out of hf_sip_digest_check(). What a user's secret is: H(user:realm:password), one for each
 * algorithm.
 */
#define HF_SIP_HASH_MAX 32 /* bytes of the longest digest */
#define HF_SIP_NONCE_KEY_LEN 32
#define HF_SIP_NONCE_LEN 56     /* hex digits: 4 bytes time, 8 of chance, 16 of HMAC */
#define HF_SIP_USERNAME_MAX 255 /* bytes, escapes undone */

/* The order is that in which they are offered: the best first (RFC 8760 2.4). */
#define HF_SIP_ALGORITHM_LIST(X)                                                                   \
    X(SHA512_256, "SHA-512-256", 32)                                                               \
    X(SHA256, "SHA-256", 32)                                                                       \
    X(MD5, "MD5", 16)
enum hf_sip_algorithm {
#define HF_SIP_ALGORITHM_ENUM(id, name, n) HF_SIP_##id,
    HF_SIP_ALGORITHM_LIST(HF_SIP_ALGORITHM_ENUM)
#undef HF_SIP_ALGORITHM_ENUM
        HF_SIP_ALGORITHM_COUNT_
};
const char *hf_sip_algorithm_name(enum hf_sip_algorithm a);
/** Bytes of its digests. */
size_t hf_sip_algorithm_len(enum hf_sip_algorithm a);
/** In any case; -HF_EVALUE: none of ours. */
HF_MUST int hf_sip_algorithm_parse(struct hf_slice name, enum hf_sip_algorithm *ret_a);

/** What an Authorization or Proxy-Authorization says; slices are borrowed, without their quotes,
 * with their escapes. */
struct hf_sip_credentials {
    struct hf_slice username, realm, nonce, uri, response, cnonce, opaque;
    enum hf_sip_algorithm algorithm; /* MD5 if none is named (RFC 7616 3.3) */
    uint32_t nc;
};
/**
 * Parse one field's value. -HF_EPROTO: not Digest (such a field counts as none); -HF_EVALUE:
 * Digest, but not as offered (algorithm, qop, userhash); -HF_EMALF: malformed or repeated parts,
 * 400 is the answer.
 */
HF_MUST int hf_sip_credentials_parse(struct hf_slice value,
                                     struct hf_sip_credentials *ret_credentials);
/** The first credentials for this realm. 1: *ret_credentials; 0: there are none; -HF_EVALUE: only
 * such that were not offered; -HF_EMALF. */
HF_MUST int hf_sip_credentials_find(const struct hf_sip_msg *m, enum hf_sip_field_id id,
                                    struct hf_slice realm,
                                    struct hf_sip_credentials *ret_credentials);
/** username with its escapes undone, into room bytes at buf (see hf_sip_unquote()). */
HF_MUST int hf_sip_credentials_user(const struct hf_sip_credentials *c, char *buf, size_t room,
                                    struct hf_slice *ret_user);

/** HMAC-SHA256 (RFC 2104) of at most HF_SIP_HMAC_MAX bytes. -HF_EFULL: more; -ENOTSUP. */
#define HF_SIP_HMAC_MAX 1024
HF_MUST int hf_sip_hmac(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_slice s,
                        uint8_t ret_mac[HF_SIP_HASH_MAX]);

/** A new nonce. now_s: seconds since 1970; chance: of the caller's generator, another for each. */
void hf_sip_nonce_make(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_slice realm,
                       uint32_t now_s, uint64_t chance, char ret_nonce[HF_SIP_NONCE_LEN]);
/** -HF_EAUTH: not of this key and realm; -HF_EREPLAY: older than life_s, or more than 60 s ahead
 * (another server's clock): challenge again with stale=true, if the rest is right. */
HF_MUST int hf_sip_nonce_check(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_slice realm,
                               struct hf_slice nonce, uint32_t now_s, uint32_t life_s);
/** When one was made, in seconds since 1970, whoever made it; 0: it is none. */
uint32_t hf_sip_nonce_time(struct hf_slice nonce);

/** WWW_AUTHENTICATE or PROXY_AUTHENTICATE, one line for each algorithm whose bit is set in
 * `algorithms`, the best first. */
void hf_sip_put_challenge(struct hf_wr *w, enum hf_sip_field_id id, struct hf_slice realm,
                          struct hf_slice nonce, unsigned algorithms, bool stale);

/** H(user:realm:password). -ENOTSUP: this machine does not allow the algorithm (MD5 under FIPS). */
HF_MUST int hf_sip_secret(enum hf_sip_algorithm a, struct hf_slice user, struct hf_slice realm,
                          struct hf_slice password, uint8_t ret_secret[HF_SIP_HASH_MAX]);
/**
 * Is the response that of who knows the secret? Compared in constant time. The nonce is checked
 * apart; that c->uri is the Request-URI (RFC 7616 3.4.6) is for the caller to see to, who knows
 * what proxies between may have done. -HF_EAUTH: no; -ENOTSUP.
 */
HF_MUST int hf_sip_digest_check(const struct hf_sip_credentials *c, struct hf_slice method,
                                const uint8_t secret[HF_SIP_HASH_MAX]);
/** The response that a client gives: for our own requests and for tests. Hex digits, twice
 * hf_sip_algorithm_len() of them. */
HF_MUST int hf_sip_digest_response(const struct hf_sip_credentials *c, struct hf_slice method,
                                   const uint8_t secret[HF_SIP_HASH_MAX],
                                   char ret_response[2 * HF_SIP_HASH_MAX]);
