#include "core/pg/scram.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>

#include "base/err.h"
#include "base/hex.h"

#define MESSAGES_MAX ((size_t)4 * HF_PG_SCRAM_MESSAGE_MAX)
#define KEY_TEXT_LEN 44 /* 32 bytes as base64 */
#define NONCE_TEXT_LEN (HF_PG_NONCE_LEN * 4 / 3)
#define BINDING_TYPE "tls-server-end-point"
#define S(x) hf_slice((x), sizeof(x) - 1)

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* --- digests: none of these can fail for want of anything but memory --- */

static void hmac(const uint8_t key[HF_PG_KEY_LEN], struct hf_slice s, uint8_t ret[HF_PG_KEY_LEN])
{
    if (!HMAC(EVP_sha256(), key, HF_PG_KEY_LEN, s.p ? s.p : (const uint8_t *)"", s.n, ret, NULL)) {
        memset(ret, 0, HF_PG_KEY_LEN);
    }
}

static void sha256(const uint8_t key[HF_PG_KEY_LEN], uint8_t ret[HF_PG_KEY_LEN])
{
    if (!EVP_Digest(key, HF_PG_KEY_LEN, ret, NULL, EVP_sha256(), NULL)) {
        memset(ret, 0, HF_PG_KEY_LEN);
    }
}

bool hf_pg_same(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

/* --- base64, strict: no white space, whole groups, nothing in the bits that are left over --- */

static void put_base64(struct hf_buf *b, struct hf_slice s)
{
    for (size_t i = 0; i < s.n; i += 3) {
        size_t n = s.n - i < 3 ? s.n - i : 3;
        uint32_t v = 0;
        for (size_t j = 0; j < 3; j++) {
            v = v << 8 | (j < n ? s.p[i + j] : 0u);
        }
        const char text[4] = {alphabet[v >> 18 & 63], alphabet[v >> 12 & 63],
                              n > 1 ? alphabet[v >> 6 & 63] : '=', n > 2 ? alphabet[v & 63] : '='};
        hf_buf_add(b, hf_slice(text, 4));
    }
}

static int get_base64(struct hf_slice s, uint8_t *out, size_t room, size_t *ret_n)
{
    size_t pad = s.n && s.p[s.n - 1] == '=' ? 1 + (s.n > 1 && s.p[s.n - 2] == '=') : 0;
    if (s.n % 4 || s.n / 4 * 3 - pad > room) {
        return -HF_EVALUE;
    }
    size_t n = 0;
    uint32_t v = 0;
    for (size_t i = 0; i < s.n - pad; i++) {
        const char *at = s.p[i] ? strchr(alphabet, s.p[i]) : NULL;
        if (!at) {
            return -HF_EVALUE;
        }
        v = v << 6 | (uint32_t)(at - alphabet);
        if (i % 4) { /* the second of four digits completes the first byte, ... */
            out[n++] = (uint8_t)(v >> (6 - 2 * (i % 4)));
        }
    }
    if (pad && (v & (pad == 2 ? 15u : 3u))) {
        return -HF_EVALUE;
    }
    *ret_n = n;
    return 0;
}

/* A key of exactly 32 bytes. */
static int get_key(struct hf_slice s, uint8_t ret_key[HF_PG_KEY_LEN])
{
    size_t n;
    return s.n == KEY_TEXT_LEN && get_base64(s, ret_key, HF_PG_KEY_LEN, &n) == 0 &&
                   n == HF_PG_KEY_LEN
               ? 0
               : -HF_EVALUE;
}

/* --- attributes: "x=value," --- */

/* What is before the next `end` (or all of it), taken off *s together with that end. */
static struct hf_slice until(struct hf_slice *s, char end)
{
    if (!s->p || s->n == 0) {
        return hf_slice(NULL, 0);
    }
    const uint8_t *at = memchr(s->p, end, s->n);
    struct hf_slice head = hf_slice(s->p, at ? (size_t)(at - s->p) : s->n);
    size_t used = head.n + (at ? 1 : 0);
    *s = hf_slice(s->n > used ? s->p + used : NULL, s->n - used);
    return head;
}

/* The next attribute, which must be this one; its value. p == NULL: it is not. */
static struct hf_slice attribute(struct hf_slice *s, char name)
{
    struct hf_slice a = until(s, ',');
    if (a.n < 2 || a.p[0] != (uint8_t)name || a.p[1] != '=') {
        return hf_slice(NULL, 0);
    }
    return hf_slice(a.p + 2, a.n - 2);
}

/* Any attributes to the end: extensions, which are ignored. */
static bool extensions_ok(struct hf_slice s)
{
    while (s.n) {
        struct hf_slice a = until(&s, ',');
        if (a.n < 2 || a.p[1] != '=' || (a.p[0] | 32) < 'a' || (a.p[0] | 32) > 'z') {
            return false;
        }
    }
    return true;
}

static bool nonce_ok(struct hf_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x21 || s.p[i] > 0x7e) { /* a comma can't be in it any more */
            return false;
        }
    }
    return s.n > 0;
}

/* A number from 1 to max, in decimal digits only; 0: it is none. */
static uint32_t number(struct hf_slice s, uint32_t max)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9' || v > max) {
            return 0;
        }
        v = v * 10 + (s.p[i] - '0');
    }
    return v <= max ? (uint32_t)v : 0;
}

/* --- what is stored --- */

int hf_pg_verifier_parse(struct hf_slice text, struct hf_pg_verifier *ret_verifier)
{
    struct hf_pg_verifier v = {0};
    size_t n_salt;
    if (!hf_slice_eq(until(&text, '$'), S(HF_PG_SCRAM))) {
        return -HF_EVALUE;
    }
    v.iterations = number(until(&text, ':'), INT32_MAX);
    struct hf_slice salt = until(&text, '$');
    struct hf_slice stored = until(&text, ':');
    if (!v.iterations || get_base64(salt, v.salt, sizeof(v.salt), &n_salt) || !n_salt ||
        get_key(stored, v.stored_key) || get_key(text, v.server_key)) {
        return -HF_EVALUE;
    }
    v.n_salt = (uint8_t)n_salt;
    *ret_verifier = v;
    return 0;
}

/* RFC 5802 3. */
static int derive(struct hf_slice password, struct hf_slice salt, uint32_t iterations,
                  struct hf_pg_verifier *ret_verifier, uint8_t ret_client_key[HF_PG_KEY_LEN])
{
    struct hf_pg_verifier v = {.iterations = iterations, .n_salt = (uint8_t)salt.n};
    uint8_t salted[HF_PG_KEY_LEN];
    if (salt.n == 0 || salt.n > HF_PG_SALT_MAX || password.n > HF_PG_PASSWORD_MAX ||
        iterations == 0 || iterations > HF_PG_ITERATIONS_MAX) {
        return -HF_EVALUE;
    }
    if (!PKCS5_PBKDF2_HMAC(password.n ? (const char *)password.p : "", (int)password.n, salt.p,
                           (int)salt.n, (int)iterations, EVP_sha256(), sizeof(salted), salted)) {
        return -ENOMEM;
    }
    memcpy(v.salt, salt.p, salt.n);
    hmac(salted, S("Client Key"), ret_client_key);
    sha256(ret_client_key, v.stored_key);
    hmac(salted, S("Server Key"), v.server_key);
    OPENSSL_cleanse(salted, sizeof(salted));
    *ret_verifier = v;
    return 0;
}

int hf_pg_verifier_make(struct hf_slice password, struct hf_slice salt, uint32_t iterations,
                        struct hf_pg_verifier *ret_verifier)
{
    uint8_t client_key[HF_PG_KEY_LEN];
    int rc = derive(password, salt, iterations, ret_verifier, client_key);
    OPENSSL_cleanse(client_key, sizeof(client_key));
    return rc;
}

/* HMAC(key, purpose user). */
static void keyed(const uint8_t key[HF_PG_KEY_LEN], uint8_t purpose, struct hf_slice user,
                  uint8_t ret[HF_PG_KEY_LEN])
{
    uint8_t text[1 + HF_PG_NAME_MAX] = {purpose};
    size_t n = user.n < HF_PG_NAME_MAX ? user.n : HF_PG_NAME_MAX;
    if (n) {
        memcpy(text + 1, user.p, n);
    }
    hmac(key, hf_slice(text, 1 + n), ret);
}

void hf_pg_salt(const uint8_t key[HF_PG_KEY_LEN], struct hf_slice user, uint8_t ret_salt[16])
{
    uint8_t made[HF_PG_KEY_LEN];
    keyed(key, 's', user, made);
    memcpy(ret_salt, made, 16);
}

void hf_pg_verifier_mock(const uint8_t key[HF_PG_KEY_LEN], struct hf_slice user,
                         struct hf_pg_verifier *ret_verifier)
{
    *ret_verifier = (struct hf_pg_verifier){.iterations = HF_PG_ITERATIONS, .n_salt = 16};
    hf_pg_salt(key, user, ret_verifier->salt);
    keyed(key, 'c', user, ret_verifier->stored_key);
    keyed(key, 'k', user, ret_verifier->server_key);
}

static bool is_hex(struct hf_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (hf_hex_value(s.p[i]) < 0 || (s.p[i] >= 'A' && s.p[i] <= 'F')) {
            return false;
        }
    }
    return true;
}

int hf_pg_secret_parse(struct hf_slice text, struct hf_pg_secret *ret_secret)
{
    struct hf_pg_secret s = {.kind = HF_PG_SECRET_PASSWORD};
    if (hf_slice_starts(text, S(HF_PG_SCRAM "$"))) {
        s.kind = HF_PG_SECRET_VERIFIER;
        int rc = hf_pg_verifier_parse(text, &s.verifier);
        if (rc) {
            return rc;
        }
        *ret_secret = s;
        return 0;
    }
    if (text.n == 3 + HF_PG_MD5_LEN && hf_slice_starts(text, S("md5")) &&
        is_hex(hf_slice(text.p + 3, HF_PG_MD5_LEN))) {
        s.kind = HF_PG_SECRET_MD5;
        text = hf_slice(text.p + 3, HF_PG_MD5_LEN);
    }
    if (text.n > HF_PG_PASSWORD_MAX || (text.n && memchr(text.p, 0, text.n))) {
        return -HF_EVALUE;
    }
    if (text.n) {
        memcpy(s.password, text.p, text.n);
    }
    *ret_secret = s;
    OPENSSL_cleanse(&s, sizeof(s));
    return 0;
}

void hf_pg_secret_wipe(struct hf_pg_secret *s)
{
    OPENSSL_cleanse(s, sizeof(*s));
}

/* --- MD5 --- */

static int md5_hex(struct hf_slice a, struct hf_slice b, char ret_hex[HF_PG_MD5_LEN + 1])
{
    uint8_t text[HF_PG_PASSWORD_MAX + HF_PG_NAME_MAX], sum[16];
    if (a.n > HF_PG_PASSWORD_MAX || b.n > HF_PG_NAME_MAX) {
        return -HF_EVALUE;
    }
    if (a.n) {
        memcpy(text, a.p, a.n);
    }
    if (b.n) {
        memcpy(text + a.n, b.p, b.n);
    }
    int ok = EVP_Digest(text, a.n + b.n, sum, NULL, EVP_md5(), NULL);
    OPENSSL_cleanse(text, sizeof(text));
    if (!ok) {
        return -ENOTSUP;
    }
    hf_hex_put(sum, sizeof(sum), ret_hex);
    ret_hex[2 * sizeof(sum)] = 0;
    return 0;
}

int hf_pg_md5_secret(struct hf_slice password, struct hf_slice user,
                     char ret_hex[HF_PG_MD5_LEN + 1])
{
    return md5_hex(password, user, ret_hex);
}

int hf_pg_md5_answer(const char secret_hex[HF_PG_MD5_LEN + 1], const uint8_t salt[4],
                     char ret_answer[3 + HF_PG_MD5_LEN + 1])
{
    snprintf(ret_answer, 4, "md5");
    return md5_hex(hf_slice(secret_hex, HF_PG_MD5_LEN), hf_slice(salt, 4), ret_answer + 3);
}

/* --- the exchange, both roles --- */

static void begin(struct hf_pg_scram *s, struct hf_slice hash, const uint8_t nonce[HF_PG_NONCE_LEN])
{
    memset(s, 0, sizeof(*s));
    hf_buf_init(&s->messages, MESSAGES_MAX);
    if (hash.n && hash.n <= sizeof(s->hash)) {
        memcpy(s->hash, hash.p, hash.n);
        s->n_hash = (uint8_t)hash.n;
    }
    struct hf_buf text;
    hf_buf_init(&text, NONCE_TEXT_LEN);
    put_base64(&text, hf_slice(nonce, HF_PG_NONCE_LEN));
    if (text.n == NONCE_TEXT_LEN) { /* else out of memory, and a nonce that the peer could guess */
        memcpy(s->own, text.p, text.n);
        s->n_own = NONCE_TEXT_LEN;
    } else {
        s->messages.err = -ENOMEM;
    }
    hf_buf_fini(&text);
}

void hf_pg_scram_fini(struct hf_pg_scram *s)
{
    hf_buf_fini(&s->messages);
    OPENSSL_cleanse(s, sizeof(*s));
}

/* GS2 header, and, where it is bound, the hash: what c= has as base64. */
static void put_binding(const struct hf_pg_scram *s, struct hf_buf *b)
{
    uint8_t text[sizeof("p=" BINDING_TYPE ",,") + HF_PG_BINDING_MAX];
    struct hf_slice head = s->gs2 == 'p'   ? S("p=" BINDING_TYPE ",,")
                           : s->gs2 == 'y' ? S("y,,")
                                           : S("n,,");
    memcpy(text, head.p, head.n);
    if (s->gs2 == 'p') {
        memcpy(text + head.n, s->hash, s->n_hash);
    }
    put_base64(b, hf_slice(text, head.n + (s->gs2 == 'p' ? s->n_hash : 0u)));
}

/* HMAC(key, AuthMessage). */
static void sign(const struct hf_pg_scram *s, const uint8_t key[HF_PG_KEY_LEN],
                 uint8_t ret[HF_PG_KEY_LEN])
{
    hmac(key, hf_buf_slice(&s->messages), ret);
}

static void xor_key(uint8_t *a, const uint8_t *b)
{
    for (size_t i = 0; i < HF_PG_KEY_LEN; i++) {
        a[i] ^= b[i];
    }
}

static int why(const char **ret_why, const char *text, int rc)
{
    *ret_why = text;
    return rc;
}

/* --- server --- */

void hf_pg_scram_serve(struct hf_pg_scram *s, const struct hf_pg_verifier *verifier,
                       struct hf_slice hash, const uint8_t nonce[HF_PG_NONCE_LEN])
{
    begin(s, hash, nonce);
    s->verifier = *verifier;
}

/* RFC 5802 7: gs2-header. What is said of channel binding must fit the mechanism. */
static int read_gs2(struct hf_pg_scram *s, struct hf_slice *m, const char **ret_why)
{
    struct hf_slice flag = until(m, ',');
    s->gs2 = flag.n ? (char)flag.p[0] : 0;
    if (s->gs2 == 'p') {
        if (!s->plus) {
            return why(ret_why, "channel binding data with SCRAM-SHA-256", -HF_EPROTO);
        }
        if (!hf_slice_eq(flag, S("p=" BINDING_TYPE))) {
            return why(ret_why, "unsupported SCRAM channel-binding type", -HF_EPROTO);
        }
    } else if (flag.n != 1 || (s->gs2 != 'n' && s->gs2 != 'y')) {
        return why(ret_why, "unexpected channel-binding flag", -HF_EPROTO);
    } else if (s->plus) {
        return why(ret_why, "SCRAM-SHA-256-PLUS without channel binding data", -HF_EPROTO);
    } else if (s->gs2 == 'y' && s->n_hash) { /* somebody took -PLUS out of our list */
        return why(ret_why, "SCRAM channel binding negotiation error", -HF_EPROTO);
    }
    if (until(m, ',').n) {
        return why(ret_why, "client uses authorization identity, but it is not supported",
                   -HF_EPROTO);
    }
    return 0;
}

static bool has_nul(struct hf_slice m)
{
    return m.n && memchr(m.p, 0, m.n);
}

int hf_pg_scram_first(struct hf_pg_scram *s, struct hf_slice mechanism, struct hf_slice message,
                      struct hf_buf *b, const char **ret_why)
{
    s->plus = hf_slice_eq(mechanism, S(HF_PG_SCRAM_PLUS));
    if ((!s->plus && !hf_slice_eq(mechanism, S(HF_PG_SCRAM))) || (s->plus && !s->n_hash)) {
        return why(ret_why, "client selected an invalid SASL authentication mechanism", -HF_EPROTO);
    }
    if (message.n > HF_PG_SCRAM_MESSAGE_MAX || has_nul(message)) {
        return why(ret_why, "malformed SCRAM message: too long, or a zero in it", -HF_EPROTO);
    }
    struct hf_slice m = message;
    int rc = read_gs2(s, &m, ret_why);
    if (rc) {
        return rc;
    }
    struct hf_slice bare = m;
    if (m.n && m.p[0] == 'm') {
        return why(ret_why, "client requires an unsupported SCRAM extension", -HF_EPROTO);
    }
    struct hf_slice user = attribute(&m, 'n'); /* not looked at: the start-up packet has it */
    struct hf_slice nonce = attribute(&m, 'r');
    if (!user.p || !nonce.p || !extensions_ok(m)) {
        return why(ret_why, "malformed SCRAM message: attributes missing or out of order",
                   -HF_EPROTO);
    }
    if (!nonce_ok(nonce) || nonce.n > HF_PG_NONCE_MAX) {
        return why(ret_why, "malformed SCRAM message: nonce not printable, or too long",
                   -HF_EPROTO);
    }
    memcpy(s->nonce, nonce.p, nonce.n);
    memcpy(s->nonce + nonce.n, s->own, s->n_own);
    s->n_nonce = (uint16_t)(nonce.n + s->n_own);
    hf_buf_add(&s->messages, bare);
    hf_buf_str(&s->messages, ",");
    size_t at = s->messages.n;
    hf_buf_str(&s->messages, "r=");
    hf_buf_add(&s->messages, hf_slice(s->nonce, s->n_nonce));
    hf_buf_str(&s->messages, ",s=");
    put_base64(&s->messages, hf_slice(s->verifier.salt, s->verifier.n_salt));
    hf_buf_printf(&s->messages, ",i=%u", (unsigned)s->verifier.iterations);
    if (s->messages.err) {
        return why(ret_why, "out of memory", s->messages.err);
    }
    hf_buf_add(b, hf_slice(s->messages.p + at, s->messages.n - at));
    return 0;
}

/* client-final-message: what it proves, and how much of it is signed. */
static int read_final(const struct hf_pg_scram *s, struct hf_slice m, size_t *ret_signed,
                      uint8_t ret_proof[HF_PG_KEY_LEN], const char **ret_why)
{
    struct hf_slice left = m;
    struct hf_slice binding = attribute(&left, 'c');
    struct hf_slice nonce = attribute(&left, 'r');
    if (!binding.p || !nonce.p) {
        return why(ret_why, "malformed SCRAM message: attributes missing or out of order",
                   -HF_EPROTO);
    }
    size_t at = m.n - left.n;
    while (left.n && left.p[0] != 'p') { /* extensions */
        struct hf_slice ext = until(&left, ',');
        if (!extensions_ok(ext)) {
            return why(ret_why, "malformed SCRAM message: bad attribute", -HF_EPROTO);
        }
        at = m.n - left.n;
    }
    struct hf_slice proof = attribute(&left, 'p');
    if (left.n || !proof.p || get_key(proof, ret_proof)) {
        return why(ret_why, "malformed SCRAM message: malformed proof", -HF_EPROTO);
    }
    struct hf_buf want;
    hf_buf_init(&want, HF_PG_SCRAM_MESSAGE_MAX);
    put_binding(s, &want);
    bool bound = want.err == 0 && hf_slice_eq(binding, hf_buf_slice(&want));
    hf_buf_fini(&want);
    if (!bound) {
        return why(ret_why, "SCRAM channel binding check failed", -HF_EAUTH);
    }
    if (!hf_slice_eq(nonce, hf_slice(s->nonce, s->n_nonce))) {
        return why(ret_why, "invalid SCRAM response: nonce does not match", -HF_EPROTO);
    }
    *ret_signed = at - 1; /* without the comma before p= */
    return 0;
}

int hf_pg_scram_final(struct hf_pg_scram *s, struct hf_slice message, struct hf_buf *b,
                      uint8_t ret_client_key[HF_PG_KEY_LEN], const char **ret_why)
{
    uint8_t key[HF_PG_KEY_LEN], sum[HF_PG_KEY_LEN];
    size_t n_signed = 0;
    if (message.n > HF_PG_SCRAM_MESSAGE_MAX || has_nul(message)) {
        return why(ret_why, "malformed SCRAM message: too long, or a zero in it", -HF_EPROTO);
    }
    int rc = read_final(s, message, &n_signed, key, ret_why);
    if (rc) {
        return rc;
    }
    hf_buf_str(&s->messages, ",");
    hf_buf_add(&s->messages, hf_slice(message.p, n_signed));
    if (s->messages.err) {
        return why(ret_why, "out of memory", s->messages.err);
    }
    sign(s, s->verifier.stored_key, sum);
    xor_key(key, sum);
    sha256(key, sum);
    if (!hf_pg_same(sum, s->verifier.stored_key, sizeof(sum))) {
        return why(ret_why, "wrong password", -HF_EAUTH);
    }
    memcpy(ret_client_key, key, sizeof(key));
    sign(s, s->verifier.server_key, sum);
    hf_buf_str(b, "v=");
    put_base64(b, hf_slice(sum, sizeof(sum)));
    OPENSSL_cleanse(key, sizeof(key));
    return 0;
}

/* --- client --- */

void hf_pg_scram_begin(struct hf_pg_scram *s, struct hf_pg_secret *secret, bool plus,
                       struct hf_slice hash, const uint8_t nonce[HF_PG_NONCE_LEN])
{
    begin(s, hash, nonce);
    s->secret = secret;
    s->plus = plus && s->n_hash;
    s->gs2 = s->plus ? 'p' : s->n_hash ? 'y' : 'n';
}

void hf_pg_scram_hello(struct hf_pg_scram *s, struct hf_buf *b)
{
    size_t at = s->messages.n;
    hf_buf_str(&s->messages, "n=,r=");
    hf_buf_add(&s->messages, hf_slice(s->own, s->n_own));
    hf_buf_str(b, s->gs2 == 'p' ? "p=" BINDING_TYPE ",," : s->gs2 == 'y' ? "y,," : "n,,");
    if (s->messages.err) {
        b->err = b->err ? b->err : s->messages.err;
        return;
    }
    hf_buf_add(b, hf_slice(s->messages.p + at, s->messages.n - at));
}

/* Have verifier and client_key for this salt, by work if need be. */
static int have_keys(struct hf_pg_secret *k, struct hf_slice salt, uint32_t iterations,
                     const char **ret_why)
{
    bool same = k->verifier.iterations == iterations &&
                hf_slice_eq(salt, hf_slice(k->verifier.salt, k->verifier.n_salt));
    if (k->kind == HF_PG_SECRET_CLIENT_KEY) {
        return same ? 0
                    : why(ret_why,
                          "the server has another SCRAM secret than the one this login was "
                          "checked against",
                          -HF_EAUTH);
    }
    if (k->derived && same) {
        return 0;
    }
    int rc = derive(hf_slice_str(k->password), salt, iterations, &k->verifier, k->client_key);
    if (rc) {
        return why(ret_why, "SCRAM salt or iterations out of bounds", -HF_EPROTO);
    }
    k->derived = true;
    return 0;
}

/* server-first-message. */
static int read_first(struct hf_pg_scram *s, struct hf_slice m, const char **ret_why)
{
    uint8_t salt[HF_PG_SALT_MAX];
    size_t n_salt;
    struct hf_slice nonce = attribute(&m, 'r');
    struct hf_slice salt_text = attribute(&m, 's');
    uint32_t iterations = number(attribute(&m, 'i'), HF_PG_ITERATIONS_MAX);
    if (m.n || !nonce.p || !salt_text.p) {
        return why(ret_why, "malformed SCRAM message of the server", -HF_EPROTO);
    }
    if (!nonce_ok(nonce) || nonce.n > sizeof(s->nonce) || nonce.n <= s->n_own ||
        !hf_slice_starts(nonce, hf_slice(s->own, s->n_own))) {
        return why(ret_why, "invalid SCRAM nonce of the server", -HF_EPROTO);
    }
    if (get_base64(salt_text, salt, sizeof(salt), &n_salt) || !n_salt || !iterations) {
        return why(ret_why, "SCRAM salt or iterations out of bounds", -HF_EPROTO);
    }
    memcpy(s->nonce, nonce.p, nonce.n);
    s->n_nonce = (uint16_t)nonce.n;
    return have_keys(s->secret, hf_slice(salt, n_salt), iterations, ret_why);
}

int hf_pg_scram_prove(struct hf_pg_scram *s, struct hf_slice message, struct hf_buf *b,
                      const char **ret_why)
{
    if (message.n > HF_PG_SCRAM_MESSAGE_MAX || has_nul(message)) {
        return why(ret_why, "malformed SCRAM message: too long, or a zero in it", -HF_EPROTO);
    }
    int rc = read_first(s, message, ret_why);
    if (rc) {
        return rc;
    }
    hf_buf_str(&s->messages, ",");
    hf_buf_add(&s->messages, message);
    hf_buf_str(&s->messages, ",");
    size_t at = s->messages.n;
    hf_buf_str(&s->messages, "c=");
    put_binding(s, &s->messages);
    hf_buf_str(&s->messages, ",r=");
    hf_buf_add(&s->messages, hf_slice(s->nonce, s->n_nonce));
    if (s->messages.err) {
        return why(ret_why, "out of memory", s->messages.err);
    }
    uint8_t proof[HF_PG_KEY_LEN];
    sign(s, s->secret->verifier.stored_key, proof);
    xor_key(proof, s->secret->client_key);
    sign(s, s->secret->verifier.server_key, s->server_proof);
    hf_buf_add(b, hf_slice(s->messages.p + at, s->messages.n - at));
    hf_buf_str(b, ",p=");
    put_base64(b, hf_slice(proof, sizeof(proof)));
    return 0;
}

int hf_pg_scram_check(struct hf_pg_scram *s, struct hf_slice message, const char **ret_why)
{
    uint8_t sum[HF_PG_KEY_LEN];
    struct hf_slice m = message;
    if (message.n >= 2 && message.p[0] == 'e' && message.p[1] == '=') {
        return why(ret_why, "the server ended the SCRAM exchange with an error", -HF_EAUTH);
    }
    struct hf_slice v = attribute(&m, 'v');
    if (m.n || !v.p || get_key(v, sum)) {
        return why(ret_why, "malformed SCRAM message of the server", -HF_EPROTO);
    }
    if (!hf_pg_same(sum, s->server_proof, sizeof(sum))) {
        return why(ret_why, "the server does not know the password (SCRAM signature)", -HF_EAUTH);
    }
    return 0;
}
