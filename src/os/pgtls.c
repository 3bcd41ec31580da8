/* TLS with certificates, by OpenSSL over a BIO of our own: no copy of records waits anywhere. */
#include "os/pgtls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

struct hf_tls_context {
    SSL_CTX *ctx;
    bool server;
    enum hf_tls_verify verify;
    const char *alpn; /* static; NULL: none */
};

struct hf_tls_stream {
    SSL *ssl;
    struct hf_slice in; /* not yet taken by OpenSSL */
    void (*out)(void *arg, struct hf_slice records);
    void *arg;
    bool server;
    const char *alpn;
    char why[160];
};

/* ---- BIO ---- */

static int bio_read(BIO *b, char *buf, int n)
{
    struct hf_tls_stream *s = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (n <= 0 || s->in.n == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    size_t k = (size_t)n < s->in.n ? (size_t)n : s->in.n;
    memcpy(buf, s->in.p, k);
    s->in = hf_slice(s->in.p + k, s->in.n - k);
    return (int)k;
}

static int bio_write(BIO *b, const char *buf, int n)
{
    struct hf_tls_stream *s = BIO_get_data(b);
    if (n > 0 && s->out) {
        s->out(s->arg, hf_slice(buf, (size_t)n));
    }
    return n;
}

static long bio_ctrl(BIO *b, int cmd, long n, void *p)
{
    (void)b;
    (void)n;
    (void)p;
    return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

/* One for the program, never freed: BIOs that live refer to it. */
static BIO_METHOD *method(void)
{
    static BIO_METHOD *m;
    if (!m && (m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "holdfast"))) {
        BIO_meth_set_read(m, bio_read);
        BIO_meth_set_write(m, bio_write);
        BIO_meth_set_ctrl(m, bio_ctrl);
    }
    return m;
}

/* ---- contexts ---- */

static bool given(const char *s)
{
    return s && *s;
}

static int refuse(struct hf_err *err, const char *what, const char *file)
{
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    int rc = hf_err_set(err, -HF_ECONFIG, "%s %s: %s", what, file, why ? why : "cannot be used");
    ERR_clear_error();
    return rc;
}

/* As PostgreSQL: nobody else may read the key; root's may be its group's. */
static int check_key(const char *file, struct hf_err *err)
{
    struct stat st;
    if (stat(file, &st) < 0) {
        return hf_err_set(err, -HF_ECONFIG, "key_file %s: %s", file, hf_strerror(-errno));
    }
    if (st.st_mode & (st.st_uid == 0 ? 0027 : 0077)) {
        return hf_err_set(err, -HF_ECONFIG,
                          "key_file %s: others can read it; chmod 0600 (0640 if it is root's)",
                          file);
    }
    return 0;
}

static int load_own(SSL_CTX *ctx, const struct hf_tls_context_opt *o, struct hf_err *err)
{
    if (!given(o->cert_file)) {
        return 0;
    }
    if (SSL_CTX_use_certificate_chain_file(ctx, o->cert_file) != 1) {
        return refuse(err, "cert_file", o->cert_file);
    }
    int rc = check_key(o->key_file, err);
    if (rc == 0 && (SSL_CTX_use_PrivateKey_file(ctx, o->key_file, SSL_FILETYPE_PEM) != 1 ||
                    SSL_CTX_check_private_key(ctx) != 1)) {
        rc = refuse(err, "key_file", o->key_file);
    }
    return rc;
}

static int load_trust(SSL_CTX *ctx, const struct hf_tls_context_opt *o, struct hf_err *err)
{
    if (!given(o->ca_file)) {
        return 0;
    }
    if (SSL_CTX_load_verify_locations(ctx, o->ca_file, NULL) != 1) {
        return refuse(err, "ca_file", o->ca_file);
    }
    if (o->server) {
        SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(o->ca_file));
    }
    if (given(o->crl_file)) {
        X509_STORE *store = SSL_CTX_get_cert_store(ctx);
        if (X509_STORE_load_locations(store, o->crl_file, NULL) != 1) {
            return refuse(err, "crl_file", o->crl_file);
        }
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
    return 0;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *n_out,
                   const unsigned char *in, unsigned n_in, void *arg)
{
    (void)ssl;
    const unsigned char *alpn = arg;
    unsigned char *picked;
    int rc = SSL_select_next_proto(&picked, n_out, alpn, alpn[0] + 1u, in, n_in);
    *out = picked;
    return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void set_alpn(struct hf_tls_context *c, const struct hf_tls_context_opt *o)
{
    const unsigned char *alpn = (const unsigned char *)o->alpn;
    c->alpn = o->alpn;
    if (alpn && o->server) {
        SSL_CTX_set_alpn_select_cb(c->ctx, on_alpn, (void *)(uintptr_t)alpn);
    } else if (alpn) {
        SSL_CTX_set_alpn_protos(c->ctx, alpn, alpn[0] + 1u);
    }
}

/* Tickets only: no state here, and no lock between threads. */
static void set_resumption(SSL_CTX *ctx, const struct hf_tls_context_opt *o)
{
    static const unsigned char id[] = "holdfast";
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    if (o->server && o->resume) {
        SSL_CTX_set_session_id_context(ctx, id, sizeof(id) - 1);
        SSL_CTX_set_num_tickets(ctx, 1);
    } else {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(ctx, 0);
    }
}

static void set_options(SSL_CTX *ctx, const struct hf_tls_context_opt *o)
{
    SSL_CTX_set_min_proto_version(ctx, o->tls13 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
    set_resumption(ctx, o);
    /* an idle connection keeps no record buffers */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_max_cert_list(ctx, 65536);
    int mode = SSL_VERIFY_NONE;
    if (o->verify != HF_TLS_VERIFY_NOT) {
        mode = SSL_VERIFY_PEER;
        mode |= o->server && o->verify >= HF_TLS_VERIFY_CA ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
    }
    SSL_CTX_set_verify(ctx, mode, NULL);
}

int hf_tls_context_create(const struct hf_tls_context_opt *o, struct hf_err *err,
                          struct hf_tls_context **ret_context)
{
    struct hf_tls_context *c = hf_alloc(sizeof(*c));
    if (!c || !(c->ctx = SSL_CTX_new(o->server ? TLS_server_method() : TLS_client_method()))) {
        hf_free(c);
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    c->server = o->server;
    c->verify = o->verify;
    ERR_clear_error();
    set_options(c->ctx, o);
    set_alpn(c, o);
    int rc =
        method() ? 0 : hf_err_set(err, -ENOMEM, "out of memory"); /* before there are threads */
    if (rc == 0 && given(o->ciphers) && SSL_CTX_set_cipher_list(c->ctx, o->ciphers) != 1) {
        rc = refuse(err, "ciphers", o->ciphers);
    }
    rc = rc ? rc : load_own(c->ctx, o, err);
    rc = rc ? rc : load_trust(c->ctx, o, err);
    if (rc) {
        hf_tls_context_destroy(c);
        return rc;
    }
    *ret_context = c;
    return 0;
}

void hf_tls_context_destroy(struct hf_tls_context *c)
{
    if (c) {
        SSL_CTX_free(c->ctx);
        hf_free(c);
    }
}

/* ---- streams ---- */

static int set_name(struct hf_tls_context *c, SSL *ssl, const char *name)
{
    unsigned char raw[16];
    bool address = inet_pton(AF_INET, name, raw) == 1 || inet_pton(AF_INET6, name, raw) == 1;
    if (!address && SSL_set_tlsext_host_name(ssl, name) != 1) { /* no SNI for addresses */
        return -ENOMEM;
    }
    if (c->verify != HF_TLS_VERIFY_FULL) {
        return 0;
    }
    int ok = address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name)
                     : SSL_set1_host(ssl, name);
    return ok == 1 ? 0 : -ENOMEM;
}

int hf_tls_stream_create(struct hf_tls_context *c, const char *name,
                         void (*out)(void *arg, struct hf_slice records), void *arg,
                         struct hf_tls_stream **ret_stream)
{
    struct hf_tls_stream *s = hf_alloc(sizeof(*s));
    BIO *bio = method() ? BIO_new(method()) : NULL;
    if (!s || !bio || !(s->ssl = SSL_new(c->ctx))) {
        BIO_free(bio);
        hf_free(s);
        return -ENOMEM;
    }
    s->out = out;
    s->arg = arg;
    s->server = c->server;
    s->alpn = c->alpn;
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    SSL_set_bio(s->ssl, bio, bio); /* owns it */
    if (c->server) {
        SSL_set_accept_state(s->ssl);
    } else {
        SSL_set_connect_state(s->ssl);
        if ((name && set_name(c, s->ssl, name)) || (!name && c->verify == HF_TLS_VERIFY_FULL)) {
            hf_tls_stream_destroy(s);
            return -ENOMEM;
        }
    }
    *ret_stream = s;
    return 0;
}

void hf_tls_stream_destroy(struct hf_tls_stream *s)
{
    if (s) {
        s->out = NULL;
        SSL_free(s->ssl);
        hf_free(s);
    }
}

void hf_tls_stream_close(struct hf_tls_stream *s)
{
    SSL_shutdown(s->ssl);
    ERR_clear_error();
}

void hf_tls_stream_feed(struct hf_tls_stream *s, struct hf_slice records)
{
    s->in = records;
}

/* What went wrong, in words. */
static int failed(struct hf_tls_stream *s, const char **ret_why)
{
    long v = SSL_get_verify_result(s->ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    if (v != X509_V_OK) {
        snprintf(s->why, sizeof(s->why), "certificate verify failed: %s",
                 X509_verify_cert_error_string(v));
    } else {
        snprintf(s->why, sizeof(s->why), "%s", reason ? reason : "TLS handshake failed");
    }
    ERR_clear_error();
    *ret_why = s->why;
    return v != X509_V_OK ? -HF_EAUTH : -HF_EPROTO;
}

int hf_tls_stream_handshake(struct hf_tls_stream *s, const char **ret_why)
{
    ERR_clear_error();
    int n = SSL_do_handshake(s->ssl);
    if (n == 1) {
        return 0;
    }
    int e = SSL_get_error(s->ssl, n);
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? -EAGAIN : failed(s, ret_why);
}

ssize_t hf_tls_stream_read(struct hf_tls_stream *s, void *buf, size_t n)
{
    ERR_clear_error();
    size_t got = 0;
    while (got < n) { /* several records at once */
        int k = SSL_read(s->ssl, (char *)buf + got, (int)(n - got));
        if (k <= 0) {
            int e = SSL_get_error(s->ssl, k);
            if (got) {
                ERR_clear_error();
                return (ssize_t)got; /* the next call tells */
            }
            ERR_clear_error();
            return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? -EAGAIN
                   : e == SSL_ERROR_ZERO_RETURN                          ? -HF_ECLOSED
                                                                         : -HF_EPROTO;
        }
        got += (size_t)k;
    }
    return (ssize_t)got;
}

int hf_tls_stream_write(struct hf_tls_stream *s, struct hf_slice bytes)
{
    ERR_clear_error();
    while (bytes.n) {
        size_t n = bytes.n < 1u << 30 ? bytes.n : 1u << 30;
        int k = SSL_write(s->ssl, bytes.p, (int)n);
        if (k <= 0) {
            ERR_clear_error();
            return -HF_EPROTO;
        }
        bytes = hf_slice(bytes.p + k, bytes.n - (size_t)k);
    }
    return 0;
}

/* ---- who it is ---- */

size_t hf_tls_stream_binding(struct hf_tls_stream *s, uint8_t ret_hash[64])
{
    X509 *own = s->server ? SSL_get_certificate(s->ssl) : NULL;
    X509 *peer = s->server ? NULL : SSL_get1_peer_certificate(s->ssl);
    X509 *cert = s->server ? own : peer;
    unsigned n = 0;
    int hash_id = NID_undef;
    if (cert && X509_get_signature_info(cert, &hash_id, NULL, NULL, NULL) == 1) {
        /* RFC 5929 4.1: MD5 and SHA-1 are taken as SHA-256 */
        const EVP_MD *md =
            hash_id == NID_md5 || hash_id == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(hash_id);
        if (!md || EVP_MD_get_size(md) > 64 || X509_digest(cert, md, ret_hash, &n) != 1) {
            n = 0;
        }
    }
    X509_free(peer);
    ERR_clear_error();
    return n;
}

bool hf_tls_stream_peer(struct hf_tls_stream *s, char *ret_cn, size_t n_cn, char *ret_dn,
                        size_t n_dn)
{
    X509 *cert = SSL_get1_peer_certificate(s->ssl);
    *ret_cn = *ret_dn = '\0';
    if (!cert || SSL_get_verify_result(s->ssl) != X509_V_OK) {
        X509_free(cert);
        return false;
    }
    X509_NAME *name = X509_get_subject_name(cert);
    int n = X509_NAME_get_text_by_NID(name, NID_commonName, NULL, 0);
    if (n > 0 && (size_t)n < n_cn) {
        X509_NAME_get_text_by_NID(name, NID_commonName, ret_cn, (int)n_cn);
        if (strlen(ret_cn) != (size_t)n) { /* CVE-2009-4034 */
            *ret_cn = '\0';
        }
    }
    BIO *b = BIO_new(BIO_s_mem());
    char *text;
    if (b && X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253) >= 0) {
        long len = BIO_get_mem_data(b, &text);
        if (len > 0 && (size_t)len < n_dn && !memchr(text, '\0', (size_t)len)) {
            memcpy(ret_dn, text, (size_t)len);
            ret_dn[len] = '\0';
        }
    }
    BIO_free(b);
    X509_free(cert);
    ERR_clear_error();
    return true;
}

bool hf_tls_stream_alpn(const struct hf_tls_stream *s)
{
    const unsigned char *p;
    unsigned n;
    SSL_get0_alpn_selected(s->ssl, &p, &n);
    return n > 0 && s->alpn && n == (unsigned char)s->alpn[0] && memcmp(p, s->alpn + 1, n) == 0;
}

const char *hf_tls_stream_text(const struct hf_tls_stream *s, char *buf, size_t n)
{
    snprintf(buf, n, "%s/%s", SSL_get_version(s->ssl), SSL_get_cipher_name(s->ssl));
    return buf;
}
