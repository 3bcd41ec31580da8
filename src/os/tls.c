/* TLS 1.3 between hosts with a pre-shared key derived per (client, server, purpose) (A-r1). */
#include "os/tls.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/name.h"
#include "base/wr.h"

/* One suite on both sides; its hash is SHA-384, so the PSK is as long (RFC 8446 4.2.11). */
#define SUITE "TLS_AES_256_GCM_SHA384"
static const unsigned char suite_id[2] = {0x13, 0x02};
#define PSK_LEN 48
#define PURPOSE_MAX 32
#define IDENTITY_MAX (4 + 2 * (HF_HOST_NAME_MAX + 1) + PURPOSE_MAX + 1)

struct hf_tls {
    SSL_CTX *ctx; /* owned */
    struct hf_key key;
    char host[HF_HOST_NAME_MAX + 1];
    char purpose[PURPOSE_MAX + 1];
};

/* What belongs to one connection; freed with its SSL. */
struct conn {
    struct hf_tls *tls; /* borrowed */
    char peer[HF_HOST_NAME_MAX + 1];
    char identity[IDENTITY_MAX];
};

static int conn_index = -1;

static void free_conn(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
    (void)parent, (void)ad, (void)idx, (void)argl, (void)argp;
    hf_free(ptr);
}

/* The pre-shared key of a pair, as the session that OpenSSL wants; NULL when memory is out. */
static SSL_SESSION *psk_session(SSL *ssl, const struct hf_tls *t, const char *client,
                                const char *server)
{
    uint8_t buf[256], psk[PSK_LEN];
    struct hf_wr w;
    struct hf_slice info;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_wr_str8(&w, hf_slice_str("tls-psk"));
    hf_wr_str8(&w, hf_slice_str(client));
    hf_wr_str8(&w, hf_slice_str(server));
    hf_wr_str8(&w, hf_slice_str(t->purpose));
    if (hf_wr_end(&w, &info) != 0 || hf_key_derive(&t->key, info, psk, sizeof(psk)) != 0) {
        return NULL;
    }
    SSL_SESSION *s = SSL_SESSION_new();
    const SSL_CIPHER *suite = SSL_CIPHER_find(ssl, suite_id);
    if (s && (!suite || SSL_SESSION_set1_master_key(s, psk, sizeof(psk)) != 1 ||
              SSL_SESSION_set_cipher(s, suite) != 1 ||
              SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION) != 1)) {
        SSL_SESSION_free(s);
        s = NULL;
    }
    explicit_bzero(psk, sizeof(psk));
    return s;
}

/* Client: offer the key for the server that we want. */
static int on_use_session(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *id_len,
                          SSL_SESSION **ret_session)
{
    struct conn *c = SSL_get_ex_data(ssl, conn_index);
    SSL_SESSION *s = psk_session(ssl, c->tls, c->tls->host, c->peer);
    const SSL_CIPHER *suite = s ? SSL_SESSION_get0_cipher(s) : NULL;
    if (!s || (md && SSL_CIPHER_get_handshake_digest(suite) != md)) {
        SSL_SESSION_free(s);
        return 0;
    }
    *id = (const unsigned char *)c->identity;
    *id_len = strlen(c->identity);
    *ret_session = s;
    return 1;
}

/* Server: "hf1 CLIENT SERVER PURPOSE" with SERVER and PURPOSE ours and CLIENT another's. */
static int on_find_session(SSL *ssl, const unsigned char *identity, size_t identity_len,
                           SSL_SESSION **ret_session)
{
    struct conn *c = SSL_get_ex_data(ssl, conn_index);
    char ours[IDENTITY_MAX], client[HF_HOST_NAME_MAX + 1];
    struct hf_slice id = hf_slice(identity, identity_len);
    if (!hf_slice_starts(id, hf_slice_str("hf1 "))) {
        return 0;
    }
    const uint8_t *name = id.p + 4, *space = memchr(name, ' ', id.n - 4);
    struct hf_slice who = hf_slice(name, space ? (size_t)(space - name) : 0);
    if (!hf_host_name_ok(who) || hf_slice_eq(who, hf_slice_str(c->tls->host))) {
        return 0;
    }
    snprintf(client, sizeof(client), "%.*s", HF_SLICE_FMT(who));
    snprintf(ours, sizeof(ours), "hf1 %s %s %s", client, c->tls->host, c->tls->purpose);
    if (!hf_slice_eq(id, hf_slice_str(ours))) {
        return 0;
    }
    *ret_session = psk_session(ssl, c->tls, client, c->tls->host);
    if (!*ret_session) {
        return 0;
    }
    memcpy(c->peer, client, sizeof(client)); /* told by hf_tls_peer() once the key is proved */
    return 1;
}

int hf_tls_create(const struct hf_key *key, const char *host, const char *purpose,
                  struct hf_tls **ret_tls)
{
    if (!hf_host_name_ok(hf_slice_str(host)) || !*purpose || strlen(purpose) > PURPOSE_MAX ||
        strchr(purpose, ' ')) {
        return -HF_ENAME;
    }
    if (conn_index < 0) {
        conn_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_conn);
    }
    struct hf_tls *t = hf_alloc(sizeof(*t));
    if (!t || conn_index < 0) {
        hf_free(t);
        return -ENOMEM;
    }
    t->key = *key;
    snprintf(t->host, sizeof(t->host), "%s", host);
    snprintf(t->purpose, sizeof(t->purpose), "%s", purpose);
    t->ctx = SSL_CTX_new(TLS_method());
    if (!t->ctx || SSL_CTX_set_min_proto_version(t->ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(t->ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(t->ctx, SUITE) != 1 || SSL_CTX_set_num_tickets(t->ctx, 0) != 1) {
        hf_tls_destroy(t);
        return -ENOMEM;
    }
    /* psk_dhe_ke alone is the default; SSL_OP_ALLOW_NO_DHE_KEX would add psk_ke */
    SSL_CTX_set_options(t->ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_psk_use_session_callback(t->ctx, on_use_session);
    SSL_CTX_set_psk_find_session_callback(t->ctx, on_find_session);
    *ret_tls = t;
    return 0;
}

void hf_tls_destroy(struct hf_tls *t)
{
    if (!t) {
        return;
    }
    SSL_CTX_free(t->ctx);
    hf_key_wipe(&t->key);
    hf_free(t);
}

int hf_tls_new(struct hf_tls *t, const char *server, struct ssl_st **ret_ssl)
{
    if (server && (!hf_host_name_ok(hf_slice_str(server)) || strcmp(server, t->host) == 0)) {
        return -HF_ENAME; /* also our own name: nobody else may answer to it */
    }
    SSL *ssl = SSL_new(t->ctx);
    struct conn *c = hf_alloc(sizeof(*c));
    if (!ssl || !c || SSL_set_ex_data(ssl, conn_index, c) != 1) {
        SSL_free(ssl);
        hf_free(c);
        return -ENOMEM;
    }
    c->tls = t;
    if (server) {
        snprintf(c->peer, sizeof(c->peer), "%s", server);
        snprintf(c->identity, sizeof(c->identity), "hf1 %s %s %s", t->host, server, t->purpose);
        SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL); /* no authority is known: refuses them all */
        SSL_set_connect_state(ssl);
    } else {
        SSL_set_accept_state(ssl);
    }
    *ret_ssl = ssl;
    return 0;
}

const char *hf_tls_peer(const struct ssl_st *ssl, char buf[HF_HOST_NAME_MAX + 1])
{
    const struct conn *c = SSL_get_ex_data(ssl, conn_index);
    bool proved = SSL_is_init_finished(ssl) && SSL_session_reused(ssl);
    snprintf(buf, HF_HOST_NAME_MAX + 1, "%s", proved ? c->peer : "");
    return buf;
}
