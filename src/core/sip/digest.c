#include "core/sip/digest.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/hex.h"
#include "core/sip/write.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define URI_MAX 1024 /* bytes of digest-uri ... */
#define TEXT_MAX 256 /* ... and of cnonce, nonce: longer ones are malformed */
#define NONCE_BYTES (HF_SIP_NONCE_LEN / 2)
#define STAMP_BYTES 12 /* time and chance */
#define CLOCK_SKEW_S 60

static const struct {
    const char *name;
    uint8_t n;
    const char *fetch; /* libcrypto's name */
} algorithms[] = {
    {"SHA-512-256", 32, "SHA2-512/256"},
    {"SHA-256", 32, "SHA2-256"},
    {"MD5", 16, "MD5"},
};
#define ROW(id, name, n) +1
_Static_assert(HF_ARRAY_LEN(algorithms) == 0 HF_SIP_ALGORITHM_LIST(ROW), "one row each");
#undef ROW

const char *hf_sip_algorithm_name(enum hf_sip_algorithm a)
{
    return algorithms[a].name;
}

size_t hf_sip_algorithm_len(enum hf_sip_algorithm a)
{
    return algorithms[a].n;
}

int hf_sip_algorithm_parse(struct hf_slice name, enum hf_sip_algorithm *ret_a)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(algorithms); i++) {
        if (hf_sip_eq_str(name, algorithms[i].name)) {
            *ret_a = (enum hf_sip_algorithm)i;
            return 0;
        }
    }
    return -HF_EVALUE;
}

/* --- what a client says --- */

enum part {
    USERNAME,
    REALM,
    NONCE,
    URI,
    RESPONSE,
    CNONCE,
    OPAQUE,
    ALGORITHM,
    QOP,
    NC,
    USERHASH,
    USERNAME_EXT,
    PART_COUNT_
};
static const char *const part_names[PART_COUNT_] = {"username", "realm",  "nonce",    "uri",
                                                    "response", "cnonce", "opaque",   "algorithm",
                                                    "qop",      "nc",     "userhash", "username*"};

/* "name=value" at c, with white space around; the value without quotes. */
static int next_part(struct hf_sip_cur *c, struct hf_slice *ret_name, struct hf_slice *ret_value)
{
    hf_sip_ws(c);
    *ret_name = hf_sip_span(c, HF_SIP_C_TOKEN);
    if (ret_name->n == 0 || !hf_sip_separator(c, '=')) {
        return -HF_EMALF;
    }
    if (hf_sip_peek(c) == '"') {
        if (hf_sip_quoted(c, ret_value)) {
            return -HF_EMALF;
        }
        *ret_value = hf_slice(ret_value->p + 1, ret_value->n - 2);
        return 0;
    }
    *ret_value = hf_sip_span(c, HF_SIP_C_TOKEN);
    return ret_value->n ? 0 : -HF_EMALF;
}

static int collect(struct hf_sip_cur *c, struct hf_slice part[PART_COUNT_])
{
    do {
        struct hf_slice name, value;
        if (next_part(c, &name, &value)) {
            return -HF_EMALF;
        }
        for (size_t i = 0; i < PART_COUNT_; i++) {
            if (!hf_sip_eq_str(name, part_names[i])) {
                continue;
            }
            if (part[i].p) {
                return -HF_EMALF;
            }
            part[i] = value;
        }
    } while (hf_sip_separator(c, ','));
    hf_sip_ws(c);
    return hf_sip_done(c) ? 0 : -HF_EMALF;
}

int hf_sip_credentials_parse(struct hf_slice value, struct hf_sip_credentials *ret_credentials)
{
    struct hf_slice part[PART_COUNT_] = {{NULL, 0}};
    struct hf_sip_cur c = hf_sip_cur(value);
    uint8_t nc[4];
    enum hf_sip_algorithm algorithm = HF_SIP_MD5;
    if (!hf_sip_eq(hf_sip_span(&c, HF_SIP_C_TOKEN), S("Digest")) || hf_sip_done(&c)) {
        return -HF_EPROTO;
    }
    if (collect(&c, part)) {
        return -HF_EMALF;
    }
    if ((part[ALGORITHM].p && hf_sip_algorithm_parse(part[ALGORITHM], &algorithm)) ||
        part[USERNAME_EXT].p || !hf_sip_eq(part[QOP], S("auth")) ||
        (part[USERHASH].p && !hf_sip_eq(part[USERHASH], S("false")))) {
        return -HF_EVALUE;
    }
    if (!part[USERNAME].p || part[USERNAME].n > HF_SIP_USERNAME_MAX || !part[REALM].p ||
        !part[NONCE].n || part[NONCE].n > TEXT_MAX || !part[URI].n || part[URI].n > URI_MAX ||
        !part[CNONCE].n || part[CNONCE].n > TEXT_MAX || !hf_hex_get(part[NC], sizeof(nc), nc) ||
        part[RESPONSE].n != 2 * hf_sip_algorithm_len(algorithm) ||
        !hf_sip_all(part[RESPONSE], HF_SIP_C_HEX)) {
        return -HF_EMALF;
    }
    *ret_credentials = (struct hf_sip_credentials){
        .username = part[USERNAME],
        .realm = part[REALM],
        .nonce = part[NONCE],
        .uri = part[URI],
        .response = part[RESPONSE],
        .cnonce = part[CNONCE],
        .opaque = part[OPAQUE],
        .algorithm = algorithm,
        .nc = (uint32_t)nc[0] << 24 | (uint32_t)nc[1] << 16 | (uint32_t)nc[2] << 8 | nc[3],
    };
    return 0;
}

int hf_sip_credentials_find(const struct hf_sip_msg *m, enum hf_sip_field_id id,
                            struct hf_slice realm, struct hf_sip_credentials *ret_credentials)
{
    int found = 0;
    for (uint8_t i = hf_sip_has(m, id) ? m->first[id] : HF_SIP_NO_FIELD; i != HF_SIP_NO_FIELD;
         i = m->field[i].next) {
        struct hf_sip_credentials c;
        int rc = hf_sip_credentials_parse(hf_sip_field_value(m, i), &c);
        if (rc == 0 && hf_slice_eq(c.realm, realm)) {
            *ret_credentials = c;
            return 1;
        }
        if (rc == -HF_EMALF) {
            return rc;
        }
        found = rc == -HF_EVALUE ? rc : found;
    }
    return found;
}

int hf_sip_credentials_user(const struct hf_sip_credentials *c, char *buf, size_t room,
                            struct hf_slice *ret_user)
{
    return hf_sip_unquote(c->username, buf, room, ret_user);
}

/* --- hashes --- */

/* Looking an algorithm up costs more than using it: each is looked up once, and kept. NULL: this
 * machine does not allow it. */
static const EVP_MD *fetched(enum hf_sip_algorithm a)
{
    static _Atomic(EVP_MD *) kept[HF_SIP_ALGORITHM_COUNT_];
    EVP_MD *md = atomic_load_explicit(&kept[a], memory_order_acquire), *first = NULL;
    if (md) {
        return md;
    }
    md = EVP_MD_fetch(NULL, algorithms[a].fetch, NULL);
    if (md && !atomic_compare_exchange_strong(&kept[a], &first, md)) {
        EVP_MD_free(md); /* another thread was quicker */
        md = first;
    }
    return md;
}

/* H(s), all of it; -ENOTSUP. */
static int hash(enum hf_sip_algorithm a, struct hf_slice s, uint8_t ret[EVP_MAX_MD_SIZE])
{
    const EVP_MD *md = fetched(a);
    return md && EVP_Digest(s.p, s.n, ret, NULL, md, NULL) ? 0 : -ENOTSUP;
}

int hf_sip_hmac(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_slice s,
                uint8_t ret_mac[HF_SIP_HASH_MAX])
{
    enum { BLOCK = 64 };
    uint8_t text[BLOCK + HF_SIP_HMAC_MAX], made[EVP_MAX_MD_SIZE];
    if (s.n > HF_SIP_HMAC_MAX) {
        return -HF_EFULL;
    }
    memset(text, 0x36, BLOCK);
    for (size_t i = 0; i < HF_SIP_NONCE_KEY_LEN; i++) {
        text[i] ^= key[i];
    }
    if (s.n) {
        memcpy(text + BLOCK, s.p, s.n);
    }
    int rc = hash(HF_SIP_SHA256, hf_slice(text, BLOCK + s.n), made);
    if (rc) {
        return rc;
    }
    for (size_t i = 0; i < BLOCK; i++) {
        text[i] = 0x5c ^ (i < HF_SIP_NONCE_KEY_LEN ? key[i] : 0);
    }
    memcpy(text + BLOCK, made, HF_SIP_HASH_MAX);
    rc = hash(HF_SIP_SHA256, hf_slice(text, BLOCK + HF_SIP_HASH_MAX), made);
    if (rc == 0) {
        memcpy(ret_mac, made, HF_SIP_HASH_MAX);
    }
    return rc;
}

/* --- nonces --- */

/* HMAC over time, chance and realm, cut to what a nonce has room for. */
static bool seal(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_slice realm,
                 uint8_t bytes[NONCE_BYTES])
{
    uint8_t text[STAMP_BYTES + TEXT_MAX], mac[HF_SIP_HASH_MAX];
    size_t n = realm.n < TEXT_MAX ? realm.n : TEXT_MAX;
    memcpy(text, bytes, STAMP_BYTES);
    if (n) {
        memcpy(text + STAMP_BYTES, realm.p, n);
    }
    if (hf_sip_hmac(key, hf_slice(text, STAMP_BYTES + n), mac)) {
        return false;
    }
    memcpy(bytes + STAMP_BYTES, mac, NONCE_BYTES - STAMP_BYTES);
    return true;
}

void hf_sip_nonce_make(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_slice realm,
                       uint32_t now_s, uint64_t chance, char ret_nonce[HF_SIP_NONCE_LEN])
{
    uint8_t bytes[NONCE_BYTES] = {0};
    struct hf_wr w;
    hf_wr_init(&w, bytes, sizeof(bytes));
    hf_wr_u32(&w, now_s);
    hf_wr_u64(&w, chance);
    seal(key, realm, bytes); /* failing, it gives one that nobody's check accepts */
    hf_hex_put(bytes, sizeof(bytes), ret_nonce);
}

static uint32_t time_of(const uint8_t bytes[NONCE_BYTES])
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

uint32_t hf_sip_nonce_time(struct hf_slice nonce)
{
    uint8_t bytes[NONCE_BYTES];
    return hf_hex_get(nonce, sizeof(bytes), bytes) ? time_of(bytes) : 0;
}

int hf_sip_nonce_check(const uint8_t key[HF_SIP_NONCE_KEY_LEN], struct hf_slice realm,
                       struct hf_slice nonce, uint32_t now_s, uint32_t life_s)
{
    uint8_t bytes[NONCE_BYTES], good[NONCE_BYTES];
    if (!hf_hex_get(nonce, sizeof(bytes), bytes)) {
        return -HF_EAUTH;
    }
    memcpy(good, bytes, STAMP_BYTES);
    if (!seal(key, realm, good) || CRYPTO_memcmp(bytes, good, sizeof(bytes)) != 0) {
        return -HF_EAUTH;
    }
    int64_t age = (int64_t)now_s - time_of(bytes);
    return age > (int64_t)life_s || age < -CLOCK_SKEW_S ? -HF_EREPLAY : 0;
}

void hf_sip_put_challenge(struct hf_wr *w, enum hf_sip_field_id id, struct hf_slice realm,
                          struct hf_slice nonce, unsigned offered, bool stale)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(algorithms); i++) {
        if (!(offered >> i & 1)) {
            continue;
        }
        hf_sip_put_name(w, id);
        hf_wr_bytes(w, S("Digest realm="));
        hf_sip_put_quoted(w, realm);
        hf_wr_bytes(w, S(", nonce="));
        hf_sip_put_quoted(w, nonce);
        hf_wr_bytes(w, S(", algorithm="));
        hf_sip_put_str(w, algorithms[i].name);
        hf_wr_bytes(w, S(", qop=\"auth\""));
        if (stale) {
            hf_wr_bytes(w, S(", stale=true"));
        }
        hf_sip_put_eol(w);
    }
}

/* --- digests --- */

static int digest(enum hf_sip_algorithm a, const struct hf_wr *text, uint8_t ret[HF_SIP_HASH_MAX])
{
    struct hf_slice s;
    uint8_t made[EVP_MAX_MD_SIZE];
    int rc = hf_wr_end(text, &s);
    if (rc) {
        return rc;
    }
    rc = hash(a, s, made);
    if (rc == 0) {
        memcpy(ret, made, algorithms[a].n);
    }
    return rc;
}

static void put_colon(struct hf_wr *w, struct hf_slice s)
{
    hf_wr_u8(w, ':');
    hf_wr_bytes(w, s);
}

int hf_sip_secret(enum hf_sip_algorithm a, struct hf_slice user, struct hf_slice realm,
                  struct hf_slice password, uint8_t ret_secret[HF_SIP_HASH_MAX])
{
    uint8_t text[2048];
    struct hf_wr w;
    hf_wr_init(&w, text, sizeof(text));
    hf_wr_bytes(&w, user);
    put_colon(&w, realm);
    put_colon(&w, password);
    int rc = digest(a, &w, ret_secret);
    OPENSSL_cleanse(text, sizeof(text));
    return rc;
}

/* RFC 7616 3.4.1: KD(H(A1), nonce ":" nc ":" cnonce ":" qop ":" H(A2)), A2 = method ":" uri */
static int respond(const struct hf_sip_credentials *c, struct hf_slice method,
                   const uint8_t secret[HF_SIP_HASH_MAX], uint8_t ret[HF_SIP_HASH_MAX])
{
    uint8_t text[2048], a2[HF_SIP_HASH_MAX];
    char hex[2 * HF_SIP_HASH_MAX];
    size_t n = hf_sip_algorithm_len(c->algorithm);
    const uint8_t nc[4] = {(uint8_t)(c->nc >> 24), (uint8_t)(c->nc >> 16), (uint8_t)(c->nc >> 8),
                           (uint8_t)c->nc};
    struct hf_wr w;
    hf_wr_init(&w, text, sizeof(text));
    hf_wr_bytes(&w, method);
    put_colon(&w, c->uri);
    int rc = digest(c->algorithm, &w, a2);
    if (rc) {
        return rc;
    }
    hf_wr_init(&w, text, sizeof(text));
    hf_hex_put(secret, n, hex);
    hf_wr_bytes(&w, hf_slice(hex, 2 * n));
    put_colon(&w, c->nonce);
    hf_hex_put(nc, sizeof(nc), hex);
    put_colon(&w, hf_slice(hex, 8));
    put_colon(&w, c->cnonce);
    put_colon(&w, S("auth"));
    hf_hex_put(a2, n, hex);
    put_colon(&w, hf_slice(hex, 2 * n));
    return digest(c->algorithm, &w, ret);
}

int hf_sip_digest_check(const struct hf_sip_credentials *c, struct hf_slice method,
                        const uint8_t secret[HF_SIP_HASH_MAX])
{
    uint8_t good[HF_SIP_HASH_MAX], got[HF_SIP_HASH_MAX];
    size_t n = hf_sip_algorithm_len(c->algorithm);
    int rc = respond(c, method, secret, good);
    if (rc == -ENOTSUP) {
        return rc;
    }
    return rc == 0 && hf_hex_get(c->response, n, got) && CRYPTO_memcmp(good, got, n) == 0
               ? 0
               : -HF_EAUTH;
}

int hf_sip_digest_response(const struct hf_sip_credentials *c, struct hf_slice method,
                           const uint8_t secret[HF_SIP_HASH_MAX],
                           char ret_response[2 * HF_SIP_HASH_MAX])
{
    uint8_t made[HF_SIP_HASH_MAX];
    int rc = respond(c, method, secret, made);
    if (rc == 0) {
        hf_hex_put(made, hf_sip_algorithm_len(c->algorithm), ret_response);
    }
    return rc;
}
