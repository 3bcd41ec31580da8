/* TLS with certificates: a record layer between bytes and bytes, which sees no socket. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"

#define HF_TLS_ALPN_PG "\x0apostgresql" /* with its length before it */

struct hf_tls_context;
struct hf_tls_stream;

enum hf_tls_verify {
    HF_TLS_VERIFY_NOT,
    HF_TLS_VERIFY_IF_GIVEN, /* server: ask for a certificate, refuse a wrong one */
    HF_TLS_VERIFY_CA,
    HF_TLS_VERIFY_FULL, /* client: and the name or address must be in it */
};

/** Files are PEM; "" or NULL: none. */
struct hf_tls_context_opt {
    bool server;
    enum hf_tls_verify verify;
    const char *cert_file, *key_file, *ca_file, *crl_file, *ciphers;
    bool tls13;       /* not 1.2 */
    const char *alpn; /* static, its length before it; NULL: none is asked for or looked at */
    bool resume;      /* server: sessions are resumed, by tickets */
};

/**
 * TLS 1.2 or later, no renegotiation, no compression. A key file that others can read is refused.
 * -HF_ECONFIG with a text in err. Several threads may use one context.
 */
HF_MUST int hf_tls_context_create(const struct hf_tls_context_opt *opt, struct hf_err *err,
                                  struct hf_tls_context **ret_context);
/** Streams that are open keep what they need. */
void hf_tls_context_destroy(struct hf_tls_context *c);

/**
 * A stream; `out(arg, records)` is called with what is to be sent. name: client only, for SNI and
 * HF_TLS_VERIFY_FULL; an address or a name; may be NULL.
 */
HF_MUST int hf_tls_stream_create(struct hf_tls_context *c, const char *name,
                                 void (*out)(void *arg, struct hf_slice records), void *arg,
                                 struct hf_tls_stream **ret_stream);
/** Tells the other side (out() is not called any more): close_notify is hf_tls_stream_close()'s. */
void hf_tls_stream_destroy(struct hf_tls_stream *s);
/** Say close_notify. */
void hf_tls_stream_close(struct hf_tls_stream *s);

/** Records that came: borrowed until read() or handshake() has answered -EAGAIN, by when all of
 * them are consumed. */
void hf_tls_stream_feed(struct hf_tls_stream *s, struct hf_slice records);
/** 0: done; -EAGAIN: more records are needed; -HF_EAUTH, -HF_EPROTO: *ret_why tells (valid until
 * the next call of any of these). */
HF_MUST int hf_tls_stream_handshake(struct hf_tls_stream *s, const char **ret_why);
/** Bytes read (> 0); -EAGAIN; -HF_ECLOSED; -HF_EPROTO. */
HF_MUST ssize_t hf_tls_stream_read(struct hf_tls_stream *s, void *buf, size_t n);
/** 0, or -HF_EPROTO. */
HF_MUST int hf_tls_stream_write(struct hf_tls_stream *s, struct hf_slice bytes);

/* After the handshake. */
/** Hash of the server's certificate, for tls-server-end-point (RFC 5929 4); its length, 0: none. */
size_t hf_tls_stream_binding(struct hf_tls_stream *s, uint8_t ret_hash[64]);
/** Common name and DN (RFC 2253) of the other side's verified certificate; false: it gave none.
 * Empty where there is none or it has a NUL in it. */
bool hf_tls_stream_peer(struct hf_tls_stream *s, char *ret_cn, size_t n_cn, char *ret_dn,
                        size_t n_dn);
/** Was the context's protocol agreed on by ALPN? Direct TLS of PostgreSQL needs it. */
bool hf_tls_stream_alpn(const struct hf_tls_stream *s);
/** "TLSv1.3/TLS_AES_256_GCM_SHA384" for logs and consoles. */
const char *hf_tls_stream_text(const struct hf_tls_stream *s, char *buf, size_t n);
