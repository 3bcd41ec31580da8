/* Secrets of PostgreSQL logins: SCRAM-SHA-256 and MD5, as server and as client, without chance of
 * their own. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/slice.h"

/*
 * RFC 5802, RFC 7677; channel binding tls-server-end-point (RFC 5929 4) as PostgreSQL has it.
 * Messages are parsed where they are, into fields of fixed bounds. Nonces and salts come from the
 * caller. SASLprep (RFC 4013): exact for ASCII; other UTF-8 is taken as raw bytes, which is what
 * PostgreSQL does where SASLprep fails, and right for all names and passwords that are NFKC
 * already.
 */
#define HF_PG_KEY_LEN 32             /* of SHA-256 */
#define HF_PG_NAME_MAX 63            /* bytes of a name: longer ones are cut, as PostgreSQL does */
#define HF_PG_PASSWORD_MAX 1023      /* bytes */
#define HF_PG_SALT_MAX 128           /* bytes of a SCRAM salt; PostgreSQL's have 16 */
#define HF_PG_ITERATIONS_MAX 1000000 /* of a server's: 0.5 s of work */
#define HF_PG_ITERATIONS 4096        /* of verifiers made here */
#define HF_PG_NONCE_LEN 18           /* random bytes, 24 as base64 */
#define HF_PG_NONCE_MAX 256          /* bytes of a peer's nonce, as text (CVE-2026-6665) */
#define HF_PG_SCRAM_MESSAGE_MAX 2048 /* bytes of a SCRAM message (CVE-2026-6664) */
#define HF_PG_BINDING_MAX 64         /* bytes of a certificate's hash */
#define HF_PG_MD5_LEN 32             /* hex digits */

/** What is stored instead of a password: SCRAM-SHA-256$ITERATIONS:SALT$StoredKey:ServerKey. */
struct hf_pg_verifier {
    uint32_t iterations; /* 0: none */
    uint8_t n_salt;
    uint8_t salt[HF_PG_SALT_MAX];
    uint8_t stored_key[HF_PG_KEY_LEN];
    uint8_t server_key[HF_PG_KEY_LEN];
};

enum hf_pg_secret_kind {
    HF_PG_SECRET_NONE = 0,   /* unknown user, or none is needed */
    HF_PG_SECRET_PASSWORD,   /* password */
    HF_PG_SECRET_MD5,        /* password has the 32 hex digits */
    HF_PG_SECRET_VERIFIER,   /* enough to check a client, not to log in */
    HF_PG_SECRET_CLIENT_KEY, /* verifier, and the ClientKey learnt from a client: enough to log in
                              * to every server that has the same verifier */
};
/** A user's secret; keep it no longer than needed and wipe it. */
struct hf_pg_secret {
    enum hf_pg_secret_kind kind;
    bool derived; /* PASSWORD: verifier and client_key are what it gives for verifier's salt: they
                   * save the work where the same salt comes again */
    char password[HF_PG_PASSWORD_MAX + 1];
    struct hf_pg_verifier verifier;
    uint8_t client_key[HF_PG_KEY_LEN];
};
/** From the text in an auth file or in pg_shadow.passwd: plain, md5..., SCRAM-SHA-256$....
 * -HF_EVALUE: too long, or a verifier that can't be read. */
HF_MUST int hf_pg_secret_parse(struct hf_slice text, struct hf_pg_secret *ret_secret);
void hf_pg_secret_wipe(struct hf_pg_secret *s);

/** -HF_EVALUE: not a verifier. */
HF_MUST int hf_pg_verifier_parse(struct hf_slice text, struct hf_pg_verifier *ret_verifier);
/** Derive it from a password: as slow as its iterations. -HF_EVALUE: a salt out of bounds. */
HF_MUST int hf_pg_verifier_make(struct hf_slice password, struct hf_slice salt, uint32_t iterations,
                                struct hf_pg_verifier *ret_verifier);
/** Of a user that does not exist: the same one each time for the same key and user, and matched by
 * no password (as PostgreSQL's mock authentication). */
void hf_pg_verifier_mock(const uint8_t key[HF_PG_KEY_LEN], struct hf_slice user,
                         struct hf_pg_verifier *ret_verifier);
/** A salt for verifiers made here: it does not change while the key and the user do not. */
void hf_pg_salt(const uint8_t key[HF_PG_KEY_LEN], struct hf_slice user, uint8_t ret_salt[16]);

/** Same bytes, in a time that does not depend on them. */
bool hf_pg_same(const void *a, const void *b, size_t n);

/* --- MD5 --- */
/** Hex digits of md5(password user). -ENOTSUP: this machine does not allow MD5 (FIPS). */
HF_MUST int hf_pg_md5_secret(struct hf_slice password, struct hf_slice user,
                             char ret_hex[HF_PG_MD5_LEN + 1]);
/** The answer to AuthenticationMD5Password: "md5" and the hex digits of md5(secret salt). */
HF_MUST int hf_pg_md5_answer(const char secret_hex[HF_PG_MD5_LEN + 1], const uint8_t salt[4],
                             char ret_answer[3 + HF_PG_MD5_LEN + 1]);

/* --- SCRAM, one exchange --- */
/** Mechanism names. */
#define HF_PG_SCRAM "SCRAM-SHA-256"
#define HF_PG_SCRAM_PLUS "SCRAM-SHA-256-PLUS"

/** One exchange, of either role; its content is its own. */
struct hf_pg_scram {
    struct hf_pg_verifier verifier; /* server: to check against */
    struct hf_pg_secret *secret;    /* client; borrowed */
    bool plus;                      /* SCRAM-SHA-256-PLUS was chosen */
    char gs2;                       /* 'n', 'y' or 'p', as the client says */
    uint8_t n_hash;
    uint8_t hash[HF_PG_BINDING_MAX]; /* of the server's certificate; n_hash == 0: without TLS */
    uint16_t n_nonce;                /* of nonce: both halves */
    char nonce[HF_PG_NONCE_MAX + 40];
    uint8_t n_own;
    char own[40];                        /* our half */
    struct hf_buf messages;              /* AuthMessage as it grows */
    uint8_t server_proof[HF_PG_KEY_LEN]; /* client: the ServerSignature that is expected */
};

/** Begin as server. hash.n == 0: without TLS. */
void hf_pg_scram_serve(struct hf_pg_scram *s, const struct hf_pg_verifier *verifier,
                       struct hf_slice hash, const uint8_t nonce[HF_PG_NONCE_LEN]);
/** Begin as client; the secret (PASSWORD or CLIENT_KEY) is borrowed until the exchange is over;
 * what is derived from a password is kept in it. plus: the server offered SCRAM-SHA-256-PLUS; it is
 * used if hash.n != 0 (s->plus tells). */
void hf_pg_scram_begin(struct hf_pg_scram *s, struct hf_pg_secret *secret, bool plus,
                       struct hf_slice hash, const uint8_t nonce[HF_PG_NONCE_LEN]);
/** Wipe and free. */
void hf_pg_scram_fini(struct hf_pg_scram *s);

/** Server: the mechanism and client-first-message in, server-first-message out (appended).
 * -HF_EPROTO: it can't be understood or used, *ret_why (static) tells, for 08P01. */
HF_MUST int hf_pg_scram_first(struct hf_pg_scram *s, struct hf_slice mechanism,
                              struct hf_slice message, struct hf_buf *b, const char **ret_why);
/** Server: client-final-message in, server-final-message out. -HF_EAUTH: wrong password (or channel
 * binding); otherwise ret_client_key is what the client proved to have. */
HF_MUST int hf_pg_scram_final(struct hf_pg_scram *s, struct hf_slice message, struct hf_buf *b,
                              uint8_t ret_client_key[HF_PG_KEY_LEN], const char **ret_why);

/** Client: client-first-message out. */
void hf_pg_scram_hello(struct hf_pg_scram *s, struct hf_buf *b);
/** Client: server-first-message in, client-final-message out. -HF_EPROTO; -HF_EAUTH: the server has
 * another verifier than the secret's (its password was changed). */
HF_MUST int hf_pg_scram_prove(struct hf_pg_scram *s, struct hf_slice message, struct hf_buf *b,
                              const char **ret_why);
/** Client: server-final-message in. -HF_EPROTO, -HF_EAUTH: not a server that knows the secret. */
HF_MUST int hf_pg_scram_check(struct hf_pg_scram *s, struct hf_slice message, const char **ret_why);
