/* Datagrams between hosts, sealed with AES-256-GCM under keys of one process's life (A-r1, I8). */
#include "os/seal.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/random.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"

#define NONCE_LEN 12
/* u64 incarnation, salt, host: what a derived key belongs to */
#define SENDER_ID_MAX (8 + HF_SALT_LEN + HF_HOST_NAME_MAX)

struct hf_sealer {
    EVP_CIPHER_CTX *ctx;          /* owned; holds the derived key */
    struct hf_datagram_head head; /* its counter is that of the last datagram */
    char host[HF_HOST_NAME_MAX + 1];
};

/* A sender that has authenticated. */
struct sender {
    struct hf_list lru; /* of the opener, most recently used last */
    EVP_CIPHER_CTX *ctx;
    size_t id_len;
    uint8_t id[SENDER_ID_MAX]; /* key in the map */
};

struct hf_opener {
    struct hf_key key;
    uint32_t key_id;
    EVP_CIPHER *cipher;
    struct hf_map senders; /* id -> struct sender */
    struct hf_list lru;
    size_t senders_max;
};

/* A context with the key of one process's life; NULL when memory is out. */
static EVP_CIPHER_CTX *derive_ctx(const struct hf_key *key, const EVP_CIPHER *cipher,
                                  struct hf_slice host, uint64_t incarnation,
                                  const uint8_t salt[HF_SALT_LEN], int encrypt)
{
    uint8_t buf[128], derived[HF_KEY_LEN];
    struct hf_wr w;
    struct hf_slice info;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_wr_str8(&w, hf_slice_str("advert-v1"));
    hf_wr_str8(&w, host);
    hf_wr_u64(&w, incarnation);
    hf_wr_str8(&w, hf_slice(salt, HF_SALT_LEN));
    if (hf_wr_end(&w, &info) != 0 || hf_key_derive(key, info, derived, sizeof(derived)) != 0) {
        return NULL;
    }
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    if (ctx && EVP_CipherInit_ex2(ctx, cipher, derived, NULL, encrypt, NULL) != 1) {
        EVP_CIPHER_CTX_free(ctx);
        ctx = NULL;
    }
    explicit_bzero(derived, sizeof(derived));
    return ctx;
}

/* 96 bits: the counter, big-endian, in the low 64. */
static void nonce_of(uint64_t counter, uint8_t nonce[NONCE_LEN])
{
    struct hf_wr w;
    hf_wr_init(&w, nonce, NONCE_LEN);
    hf_wr_u32(&w, 0);
    hf_wr_u64(&w, counter);
}

/* ---- sending ---- */

int hf_sealer_create(const struct hf_key *key, const char *host, uint64_t incarnation,
                     struct hf_sealer **ret_sealer)
{
    struct hf_sealer *s = hf_alloc(sizeof(*s));
    if (!s) {
        return -ENOMEM;
    }
    size_t n = strlen(host);
    if (n == 0 || n > HF_HOST_NAME_MAX) {
        hf_sealer_destroy(s);
        return -HF_ENAME;
    }
    memcpy(s->host, host, n + 1);
    s->head.host = hf_slice(s->host, n);
    s->head.key_id = hf_key_id(key);
    s->head.incarnation = incarnation;
    if (getrandom(s->head.salt, HF_SALT_LEN, 0) != HF_SALT_LEN) {
        hf_sealer_destroy(s);
        return -EIO;
    }
    s->ctx = derive_ctx(key, EVP_aes_256_gcm(), s->head.host, incarnation, s->head.salt, 1);
    if (!s->ctx) {
        hf_sealer_destroy(s);
        return -ENOMEM;
    }
    *ret_sealer = s;
    return 0;
}

void hf_sealer_destroy(struct hf_sealer *s)
{
    if (!s) {
        return;
    }
    EVP_CIPHER_CTX_free(s->ctx);
    hf_free(s);
}

const uint8_t *hf_sealer_salt(const struct hf_sealer *s)
{
    return s->head.salt;
}

uint64_t hf_sealer_counter(const struct hf_sealer *s)
{
    return s->head.counter;
}

int hf_seal(struct hf_sealer *s, enum hf_datagram_kind kind, struct hf_slice body,
            uint8_t buf[HF_ADVERT_LEN_MAX], struct hf_slice *ret_datagram)
{
    uint8_t nonce[NONCE_LEN];
    struct hf_wr w;
    hf_wr_init(&w, buf, HF_ADVERT_LEN_MAX);
    s->head.kind = (uint8_t)kind;
    s->head.counter++; /* also if sealing fails: a nonce is never used twice */
    hf_datagram_head_encode(&w, &s->head);
    size_t head_len = hf_wr_len(&w);
    if (w.err || body.n > HF_ADVERT_LEN_MAX - head_len - HF_SEAL_TAG_LEN) {
        return -HF_EFULL;
    }
    nonce_of(s->head.counter, nonce);
    int n;
    uint8_t *sealed = buf + head_len;
    if (EVP_EncryptInit_ex2(s->ctx, NULL, NULL, nonce, NULL) != 1 ||
        EVP_EncryptUpdate(s->ctx, NULL, &n, buf, (int)head_len) != 1 ||
        (body.n && EVP_EncryptUpdate(s->ctx, sealed, &n, body.p, (int)body.n) != 1) ||
        EVP_EncryptFinal_ex(s->ctx, sealed + body.n, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(s->ctx, EVP_CTRL_AEAD_GET_TAG, HF_SEAL_TAG_LEN, sealed + body.n) != 1) {
        return -EIO;
    }
    *ret_datagram = hf_slice(buf, head_len + body.n + HF_SEAL_TAG_LEN);
    return 0;
}

/* ---- receiving ---- */

int hf_opener_create(const struct hf_key *key, size_t senders_max, struct hf_opener **ret_opener)
{
    struct hf_opener *o = hf_alloc(sizeof(*o));
    uint64_t seed;
    if (!o) {
        return -ENOMEM;
    }
    hf_list_init(&o->lru);
    o->key = *key;
    o->key_id = hf_key_id(key);
    o->senders_max = senders_max;
    o->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    bool seeded = getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed);
    hf_map_init(&o->senders, seed);
    if (!o->cipher || !seeded) {
        hf_opener_destroy(o);
        return -ENOMEM;
    }
    *ret_opener = o;
    return 0;
}

static void forget(struct hf_opener *o, struct sender *s)
{
    hf_map_remove(&o->senders, hf_slice(s->id, s->id_len));
    hf_list_unlink(&s->lru);
    EVP_CIPHER_CTX_free(s->ctx);
    hf_free(s);
}

void hf_opener_destroy(struct hf_opener *o)
{
    if (!o) {
        return;
    }
    HF_LIST_FOREACH (it, &o->lru) {
        forget(o, HF_CONTAINER_OF(it, struct sender, lru));
    }
    hf_map_fini(&o->senders);
    EVP_CIPHER_free(o->cipher);
    hf_key_wipe(&o->key);
    hf_free(o);
}

/* Remember the key of a sender that has just authenticated; takes ctx over, always. */
static void remember(struct hf_opener *o, struct hf_slice id, EVP_CIPHER_CTX *ctx)
{
    if (o->senders.n >= o->senders_max && !hf_list_empty(&o->lru)) {
        forget(o, HF_CONTAINER_OF(o->lru.next, struct sender, lru));
    }
    struct sender *s = o->senders_max ? hf_alloc(sizeof(*s)) : NULL;
    if (!s) { /* it works without, only slower */
        EVP_CIPHER_CTX_free(ctx);
        return;
    }
    s->ctx = ctx;
    s->id_len = id.n;
    memcpy(s->id, id.p, id.n);
    hf_list_init(&s->lru);
    hf_list_insert(&o->lru, &s->lru);
    if (hf_map_put(&o->senders, hf_slice(s->id, s->id_len), s) != 0) {
        forget(o, s);
    }
}

static int decrypt(EVP_CIPHER_CTX *ctx, struct hf_slice head, uint64_t counter,
                   struct hf_slice sealed, uint8_t *buf)
{
    uint8_t nonce[NONCE_LEN], tag[HF_SEAL_TAG_LEN];
    size_t body_n = sealed.n - HF_SEAL_TAG_LEN;
    int n;
    nonce_of(counter, nonce);
    memcpy(tag, sealed.p + body_n, sizeof(tag));
    bool ok = EVP_DecryptInit_ex2(ctx, NULL, NULL, nonce, NULL) == 1 &&
              EVP_DecryptUpdate(ctx, NULL, &n, head.p, (int)head.n) == 1 &&
              (!body_n || EVP_DecryptUpdate(ctx, buf, &n, sealed.p, (int)body_n) == 1) &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, sizeof(tag), tag) == 1 &&
              EVP_DecryptFinal_ex(ctx, buf + body_n, &n) == 1;
    return ok ? 0 : -HF_EAUTH;
}

int hf_open(struct hf_opener *o, struct hf_slice datagram, uint8_t buf[HF_ADVERT_LEN_MAX],
            struct hf_datagram_head *ret_head, struct hf_slice *ret_body)
{
    struct hf_datagram_head h;
    size_t head_len;
    int rc = hf_datagram_head_decode(datagram, &h, &head_len);
    if (rc) {
        return rc;
    }
    if (h.key_id != o->key_id) {
        return -HF_EKEY;
    }
    struct hf_slice sealed = hf_slice(datagram.p + head_len, datagram.n - head_len);
    if (sealed.n < HF_SEAL_TAG_LEN) {
        return -HF_ETRUNC;
    }
    if (datagram.n > HF_ADVERT_LEN_MAX) {
        return -HF_EMALF;
    }
    uint8_t id_buf[SENDER_ID_MAX];
    struct hf_slice id, head = hf_slice(datagram.p, head_len);
    struct hf_wr w;
    hf_wr_init(&w, id_buf, sizeof(id_buf));
    hf_wr_u64(&w, h.incarnation);
    hf_wr_bytes(&w, hf_slice(h.salt, HF_SALT_LEN));
    hf_wr_bytes(&w, h.host);
    rc = hf_wr_end(&w, &id);
    if (rc) {
        return rc;
    }
    struct sender *s = hf_map_get(&o->senders, id);
    if (s) {
        rc = decrypt(s->ctx, head, h.counter, sealed, buf);
        if (rc == 0) {
            hf_list_unlink(&s->lru);
            hf_list_insert(&o->lru, &s->lru);
        }
    } else {
        EVP_CIPHER_CTX *ctx = derive_ctx(&o->key, o->cipher, h.host, h.incarnation, h.salt, 0);
        rc = ctx ? decrypt(ctx, head, h.counter, sealed, buf) : -ENOMEM;
        if (rc == 0) {
            remember(o, id, ctx);
        } else {
            EVP_CIPHER_CTX_free(ctx);
        }
    }
    if (rc == 0) {
        *ret_head = h;
        *ret_body = hf_slice(buf, sealed.n - HF_SEAL_TAG_LEN);
    }
    return rc;
}
