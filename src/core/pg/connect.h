/* Logging in to a server, up to its first ReadyForQuery. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/slice.h"
#include "codec/pg_v3.h"
#include "core/pg/scram.h"

/*
 *   BEGIN --SSLRequest sent--> OFFER --S--> HANDSHAKE --TLS done--+
 *     | no TLS                   | N, and TLS is not required     |
 *     +--------------------------+--------------------------------+--StartupMessage sent--> AUTH
 *   AUTH --AuthenticationOk--> SETTLE --ReadyForQuery--> DONE;   any --error, timeout--> FAILED
 *
 * The server is not trusted: messages and their number are bounded, SCRAM proves it (without
 * channel binding: if it asks for SCRAM at all), and it gets a password in the clear only where
 * that is allowed.
 */
#define HF_PG_CONNECT_MESSAGE_MAX 30000    /* bytes of one message, as libpq */
#define HF_PG_CONNECT_BYTES_MAX (1u << 20) /* of all together */
#define HF_PG_CONNECT_PARAMS_MAX 32768     /* of ParameterStatus together */

enum hf_pg_sslmode { /* as libpq's; what is verified is the driver's */
                     HF_PG_SSLMODE_DISABLE,
                     HF_PG_SSLMODE_ALLOW,
                     HF_PG_SSLMODE_PREFER,
                     HF_PG_SSLMODE_REQUIRE,
                     HF_PG_SSLMODE_VERIFY_CA,
                     HF_PG_SSLMODE_VERIFY_FULL,
};

struct hf_pg_connect_args {
    enum hf_pg_sslmode sslmode; /* DISABLE for Unix sockets */
    bool second;      /* tried before, and out.again was set: ALLOW with TLS, PREFER without */
    uint32_t version; /* to ask for; 0: 3.0 */
    struct hf_slice user, database;    /* copied; database may be empty: as user */
    struct hf_slice params;            /* name NUL value NUL ...; copied */
    const char *replication;           /* "true", "database" or NULL */
    const struct hf_pg_secret *secret; /* copied; NULL: none */
    bool cleartext;                    /* may the password go in the clear without TLS? */
    uint8_t nonce[HF_PG_NONCE_LEN];    /* random */
    hf_time deadline;                  /* HF_NEVER: none */
};

struct hf_pg_connect;
HF_MUST int hf_pg_connect_create(const struct hf_pg_connect_args *args,
                                 struct hf_pg_connect **ret_connect);
/** Wipes its secrets. */
void hf_pg_connect_destroy(struct hf_pg_connect *c);

enum hf_pg_connect_in_kind {
    HF_PG_CONNECT_IN_OPEN = 1,   /* the connection stands: first of all (TLS before it: direct) */
    HF_PG_CONNECT_IN_BYTES,      /* all bytes that came and were not consumed */
    HF_PG_CONNECT_IN_TLS,        /* the handshake is done, and verified as sslmode says */
    HF_PG_CONNECT_IN_TLS_FAILED, /* it failed: why */
    HF_PG_CONNECT_IN_CLOSED,     /* by the server */
    HF_PG_CONNECT_IN_TIMER,
};
struct hf_pg_connect_in { /* borrowed for the call */
    enum hf_pg_connect_in_kind kind;
    struct hf_slice bytes; /* BYTES */
    struct hf_slice
        certificate_hash; /* TLS: of the server's, for tls-server-end-point; may be empty */
    const char *why;      /* TLS_FAILED, CLOSED; may be NULL */
};

enum hf_pg_connect_act {
    HF_PG_CONNECT_WAIT = 0,  /* for bytes */
    HF_PG_CONNECT_START_TLS, /* begin a handshake and answer with TLS or TLS_FAILED */
    HF_PG_CONNECT_DONE,      /* logged in and idle: hf_pg_connect_result() */
    HF_PG_CONNECT_FAILED,    /* close: hf_pg_connect_error() */
};
/** Valid until the next step. */
struct hf_pg_connect_out {
    enum hf_pg_connect_act act;
    size_t consumed;      /* of in.bytes */
    struct hf_slice send; /* to the server, before what act says */
    bool again;           /* FAILED: try once more at once, with args.second */
};
void hf_pg_connect_step(struct hf_pg_connect *c, const struct hf_pg_connect_in *in, hf_time now,
                        struct hf_pg_connect_out *out);

/** After DONE; borrowed until destroyed. */
struct hf_pg_connect_result {
    uint32_t pid;
    struct hf_slice key;    /* 4 to HF_PG_CANCEL_KEY_MAX bytes; empty: it can't be cancelled */
    struct hf_slice params; /* ParameterStatus: name NUL value NUL ...; the last of a name counts */
    uint32_t version;       /* 3.0 or 3.2 */
    bool tls;
    bool logged_in; /* it wanted a secret (false: trust, peer, cert) */
    const struct hf_pg_secret
        *secret; /* the one given, with what was derived of a password: keep it
                  * instead, and the next login saves that work (some ms) */
};
const struct hf_pg_connect_result *hf_pg_connect_result(const struct hf_pg_connect *c);

/** After FAILED; borrowed until destroyed. Texts are cut, and printable. */
struct hf_pg_connect_error {
    int code;         /* -HF_EAUTH: refused by the server (sqlstate is its), or our secret does not
                       * fit; -HF_EPROTO; -HF_ECLOSED; -HF_ETIMEOUT; -ENOMEM; -HF_EVALUE: it asks for
                       * what is not there (a method, a password) */
    bool from_server; /* its ErrorResponse: sqlstate, message and detail are the server's */
    char sqlstate[6]; /* never empty: "08006" and the like if there is none (CVE-2026-6666) */
    char message[256];
    char detail[256], hint[256];
};
const struct hf_pg_connect_error *hf_pg_connect_error(const struct hf_pg_connect *c);
