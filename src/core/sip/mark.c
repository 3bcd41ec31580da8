#include "core/sip/mark.h"

#include <openssl/crypto.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/rd.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define MARK_TAG 16 /* bytes of tags: no more than one guess each can be tried */
#define BACK_TAG 8
#define TOKEN_TAG 10
#define SEALED_MAX 1024
#define BACK_BYTES ((HF_SIP_BACK_LEN - 4) / 2)

/* --- keys --- */

static int make_key(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_slice purpose,
                    uint8_t ret_key[HF_SIPHASH_KEY_LEN])
{
    uint8_t made[HF_SIP_HASH_MAX];
    int rc = hf_sip_hmac(key, purpose, made);
    if (rc == 0) {
        memcpy(ret_key, made, HF_SIPHASH_KEY_LEN);
    }
    return rc;
}

int hf_sip_keys_make(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_sip_keys *ret_keys)
{
    struct hf_sip_keys k;
    uint8_t seeds[HF_SIP_HASH_MAX];
    int rc = make_key(key, S("sip-mark-v1"), k.mark);
    rc = rc ? rc : make_key(key, S("sip-via-v1"), k.via);
    rc = rc ? rc : make_key(key, S("sip-flow-v1"), k.flow);
    rc = rc ? rc : hf_sip_hmac(key, S("sip-seed-v1"), seeds);
    if (rc == 0) {
        memcpy(&k.branch, seeds, sizeof(k.branch));
        memcpy(&k.tag, seeds + sizeof(k.branch), sizeof(k.tag));
        *ret_keys = k;
    }
    return rc;
}

/* What the tag of a text is; false: it can't be made, so it fits nothing. */
static bool seal(const uint8_t key[HF_SIPHASH_KEY_LEN], const struct hf_wr *text, size_t n,
                 uint8_t *ret_tag)
{
    uint8_t tag[HF_SIPHASH_LEN];
    struct hf_slice s;
    if (hf_wr_end(text, &s)) {
        return false;
    }
    hf_siphash(key, s, tag);
    memcpy(ret_tag, tag, n);
    return true;
}

/* --- marks --- */

static bool mark_tag(const struct hf_sip_keys *keys, const struct hf_sip_msg *m,
                     struct hf_slice branch, const struct hf_sip_mark *mark,
                     uint8_t ret_tag[MARK_TAG])
{
    uint8_t text[SEALED_MAX];
    struct hf_wr w;
    hf_wr_init(&w, text, sizeof(text));
    hf_wr_u8(&w, mark->hop);
    hf_wr_u64(&w, mark->epoch);
    hf_wr_u8(&w, (uint8_t)(mark->offer | mark->fresh << 1));
    hf_wr_u32(&w, m->cseq);
    hf_wr_str16(&w, m->method_text);
    hf_wr_str16(&w, branch);
    if (m->call_id.n <= SEALED_MAX / 2) {
        hf_wr_str16(&w, m->call_id);
    } else { /* longer than anybody's */
        hf_wr_u64(&w, hf_hash(m->call_id, keys->branch));
        hf_wr_u64(&w, hf_hash(m->call_id, keys->tag));
    }
    return seal(keys->mark, &w, MARK_TAG, ret_tag);
}

void hf_sip_mark_put(struct hf_wr *w, const struct hf_sip_keys *keys,
                     const struct hf_sip_msg *request, struct hf_slice branch,
                     const struct hf_sip_mark *mark)
{
    uint8_t tag[MARK_TAG];
    char hex[2 * MARK_TAG];
    if (!mark_tag(keys, request, branch, mark, tag)) {
        return;
    }
    hf_hex_put(tag, sizeof(tag), hex);
    hf_sip_put_name(w, HF_SIP_H_HOLDFAST_HOP);
    hf_sip_put_u64(w, mark->hop);
    hf_wr_bytes(w, S(";epoch="));
    hf_sip_put_u64(w, mark->epoch);
    hf_wr_bytes(w, mark->offer ? S(";offer") : S(""));
    hf_wr_bytes(w, mark->fresh ? S(";fresh") : S(""));
    hf_wr_bytes(w, S(";tag="));
    hf_wr_bytes(w, hf_slice(hex, sizeof(hex)));
    hf_sip_put_eol(w);
}

static int read_mark(struct hf_slice value, struct hf_sip_mark *ret_mark, struct hf_slice *ret_tag)
{
    struct hf_sip_cur c = hf_sip_cur(value);
    struct hf_sip_param p;
    uint64_t v;
    int rc = hf_sip_number(&c, UINT8_MAX, &v);
    if (rc) {
        return rc;
    }
    *ret_mark = (struct hf_sip_mark){.hop = (uint8_t)v};
    while ((rc = hf_sip_param_next(&c, &p)) == 1) {
        struct hf_sip_cur in = hf_sip_cur(p.value);
        if (hf_sip_eq(p.name, S("epoch")) &&
            (hf_sip_number(&in, UINT64_MAX, &ret_mark->epoch) || !hf_sip_done(&in))) {
            return -HF_EMALF;
        }
        ret_mark->offer = ret_mark->offer || hf_sip_eq(p.name, S("offer"));
        ret_mark->fresh = ret_mark->fresh || hf_sip_eq(p.name, S("fresh"));
        *ret_tag = hf_sip_eq(p.name, S("tag")) ? p.value : *ret_tag;
    }
    return rc == 0 && hf_sip_done(&c) ? 0 : -HF_EMALF;
}

int hf_sip_mark_get(const struct hf_sip_keys *keys, const struct hf_sip_msg *request,
                    struct hf_sip_mark *ret_mark)
{
    struct hf_sip_mark mark;
    struct hf_slice value, tag = {NULL, 0};
    uint8_t good[MARK_TAG], got[MARK_TAG];
    int rc = hf_sip_one(request, HF_SIP_H_HOLDFAST_HOP, &value);
    if (rc == 0) {
        return 0;
    }
    if (rc < 0 || read_mark(value, &mark, &tag) || !hf_hex_get(tag, sizeof(got), got) ||
        !mark_tag(keys, request, request->via.branch, &mark, good) ||
        CRYPTO_memcmp(good, got, sizeof(good)) != 0) {
        return -HF_EAUTH;
    }
    *ret_mark = mark;
    return 1;
}

/* --- the way back --- */

uint64_t hf_sip_loop_hash(const struct hf_sip_msg *m, uint8_t hop, uint64_t seed)
{
    uint64_t h = hf_hash(m->uri_text, hf_hash(hf_slice(&hop, 1), seed + m->cseq));
    h = hf_hash(m->call_id, h);
    h = hf_hash(hf_sip_address_tag(&m->from), h);
    h = hf_hash(hf_sip_address_tag(&m->to), h);
    for (uint8_t i = hf_sip_has(m, HF_SIP_H_ROUTE) ? m->first[HF_SIP_H_ROUTE] : HF_SIP_NO_FIELD;
         i != HF_SIP_NO_FIELD; i = m->field[i].next) {
        h = hf_hash(hf_sip_field_value(m, i), h);
    }
    return h;
}

uint16_t hf_sip_listen_id(uint8_t transport, const struct hf_endpoint *at)
{
    uint8_t text[20] = {transport, at->family, (uint8_t)(at->port >> 8), (uint8_t)at->port};
    memcpy(text + 4, at->addr, at->family == HF_AF_INET6 ? 16 : 4);
    return (uint16_t)hf_hash(hf_slice(text, sizeof(text)), 1);
}

static bool back_tag(const struct hf_sip_keys *keys, const uint8_t *bytes, struct hf_slice branch,
                     uint8_t ret_tag[BACK_TAG])
{
    uint8_t text[SEALED_MAX];
    struct hf_wr w;
    hf_wr_init(&w, text, sizeof(text));
    hf_wr_bytes(&w, hf_slice(bytes, BACK_BYTES - BACK_TAG));
    hf_wr_bytes(&w, branch);
    return seal(keys->via, &w, BACK_TAG, ret_tag);
}

void hf_sip_back_make(const struct hf_sip_keys *keys, const struct hf_sip_back *back,
                      struct hf_slice branch, char ret_text[HF_SIP_BACK_LEN])
{
    uint8_t bytes[BACK_BYTES] = {0};
    struct hf_wr w;
    hf_wr_init(&w, bytes, sizeof(bytes));
    hf_wr_u16(&w, back->listen);
    hf_wr_u64(&w, back->conn);
    hf_wr_u32(&w, back->loop);
    (void)back_tag(keys, bytes, branch, bytes + BACK_BYTES - BACK_TAG);
    memcpy(ret_text, (const char[]){';', 'h', 'f', '='}, 4);
    hf_hex_put(bytes, sizeof(bytes), ret_text + 4);
}

int hf_sip_back_get(const struct hf_sip_keys *keys, const struct hf_sip_via *via,
                    struct hf_sip_back *ret_back)
{
    struct hf_sip_param p;
    uint8_t bytes[BACK_BYTES], good[BACK_TAG];
    struct hf_rd r;
    if (!hf_sip_param_get(via->params, "hf", &p) || !hf_hex_get(p.value, sizeof(bytes), bytes) ||
        !back_tag(keys, bytes, via->branch, good) ||
        CRYPTO_memcmp(good, bytes + BACK_BYTES - BACK_TAG, BACK_TAG) != 0) {
        return -HF_EAUTH;
    }
    hf_rd_init(&r, hf_slice(bytes, sizeof(bytes)));
    ret_back->listen = hf_rd_u16(&r);
    ret_back->conn = hf_rd_u64(&r);
    ret_back->loop = hf_rd_u32(&r);
    return 0;
}

/* --- flows --- */

static bool token_tag(const struct hf_sip_keys *keys, uint64_t boot, struct hf_slice bytes,
                      bool stream, uint8_t ret_tag[TOKEN_TAG])
{
    uint8_t text[HF_SIP_TOKEN_MAX];
    struct hf_wr w;
    hf_wr_init(&w, text, sizeof(text));
    hf_wr_u64(&w, stream ? boot : 0);
    hf_wr_bytes(&w, bytes);
    return seal(keys->flow, &w, TOKEN_TAG, ret_tag);
}

size_t hf_sip_token_make(const struct hf_sip_keys *keys, uint64_t boot, uint16_t listen,
                         const struct hf_sip_flow *flow, char ret_text[HF_SIP_TOKEN_MAX])
{
    uint8_t bytes[HF_SIP_TOKEN_MAX / 2], tag[TOKEN_TAG] = {0};
    struct hf_slice s = {NULL, 0};
    struct hf_wr w;
    hf_wr_init(&w, bytes, sizeof(bytes));
    hf_wr_u8(&w, flow->transport);
    hf_wr_u16(&w, listen);
    hf_wr_bytes(&w, hf_slice(flow->peer.addr, flow->peer.family == HF_AF_INET6 ? 16 : 4));
    hf_wr_u16(&w, flow->peer.port);
    if (flow->conn) {
        hf_wr_u64(&w, flow->conn);
    }
    (void)token_tag(keys, boot, hf_slice(bytes, hf_wr_len(&w)), flow->conn != 0, tag);
    hf_wr_bytes(&w, hf_slice(tag, sizeof(tag)));
    if (hf_wr_end(&w, &s)) {
        return 0;
    }
    hf_hex_put(s.p, s.n, ret_text);
    return 2 * s.n;
}

int hf_sip_token_get(const struct hf_sip_keys *keys, uint64_t boot, struct hf_slice text,
                     struct hf_sip_flow *ret_flow, uint16_t *ret_listen)
{
    enum { FIXED = 1 + 2 + 2 + TOKEN_TAG };
    uint8_t bytes[HF_SIP_TOKEN_MAX / 2], good[TOKEN_TAG];
    struct hf_sip_flow f = {0};
    struct hf_rd r;
    size_t n = text.n / 2;
    if (n < FIXED || n > sizeof(bytes) || !hf_hex_get(text, n, bytes)) {
        return -HF_EMALF;
    }
    size_t rest = n - FIXED;
    if (rest != 4 && rest != 16 && rest != 4 + 8 && rest != 16 + 8) {
        return -HF_EMALF;
    }
    bool stream = rest == 4 + 8 || rest == 16 + 8, v6 = rest >= 16;
    if (!token_tag(keys, boot, hf_slice(bytes, n - TOKEN_TAG), stream, good) ||
        CRYPTO_memcmp(good, bytes + n - TOKEN_TAG, TOKEN_TAG) != 0) {
        return -HF_EAUTH;
    }
    hf_rd_init(&r, hf_slice(bytes, n - TOKEN_TAG));
    f.transport = hf_rd_u8(&r);
    *ret_listen = hf_rd_u16(&r);
    struct hf_slice addr = hf_rd_bytes(&r, v6 ? 16 : 4);
    f.peer.family = v6 ? HF_AF_INET6 : HF_AF_INET;
    memcpy(f.peer.addr, addr.p, addr.n);
    f.peer.port = hf_rd_u16(&r);
    f.conn = stream ? hf_rd_u64(&r) : 0;
    *ret_flow = f;
    return 0;
}
