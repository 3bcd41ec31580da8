/* A client logs in: start-up packets, HBA, authentication, up to AuthenticationOk. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/slice.h"
#include "codec/pg_v3.h"
#include "core/pg/hba.h"
#include "core/pg/scram.h"

/*
 *            TLS done
 *   START <----------- HANDSHAKE          START: SSLRequest, GSSENCRequest (each at most once),
 *     |  \---SSLRequest--^                CancelRequest (ends it), StartupMessage
 *     | StartupMessage, HBA line found
 *     +--------- trust, cert, peer ----------------------------------------> DONE
 *     v                                                                       ^
 *   SECRET --secret, or nobody has that name--> PASSWORD (password, md5) -----+
 *                                          \--> SASL_FIRST --> SASL_FINAL ----+
 *   any --error, timeout--> REFUSED
 *
 * A user that is not known gets the same messages as one who is, and is refused at the end.
 * What the client asks to be set (search_path, options, ...) is only handed on (params): nothing of
 * it may touch the connection by which the driver asks for secrets (CVE-2025-12819).
 */
enum hf_pg_login_tls {
    HF_PG_LOGIN_TLS_NO,       /* SSLRequest is answered N */
    HF_PG_LOGIN_TLS_OFFERED,  /* S; who does not ask goes on without */
    HF_PG_LOGIN_TLS_REQUIRED, /* TCP without TLS is refused */
};

/** Shared by logins; borrowed until the last of them is destroyed. */
struct hf_pg_login_conf {
    const struct hf_pg_hba *hba;
    enum hf_pg_login_tls tls;
    uint8_t key[HF_PG_KEY_LEN]; /* random, kept while the program runs: for who is not known */
    bool md5_for_unknown;       /* with the method md5 they are asked for MD5 (false: SCRAM, as in
                                 * PostgreSQL): true if no secret is a verifier */
    const struct hf_pg_hba_net *own;
    size_t n_own;
};

/** One connection; copied, but for conf. */
struct hf_pg_login_args {
    const struct hf_pg_login_conf *conf;
    bool local;                     /* Unix socket */
    struct hf_endpoint peer;        /* TCP */
    const char *host;               /* its text, for messages; "[local]" */
    const char *peer_user;          /* Unix socket: name of the user at its other end, or NULL */
    uint8_t nonce[HF_PG_NONCE_LEN]; /* random */
    uint8_t salt[4];                /* random, of MD5 */
    hf_time deadline;               /* 57014 then; HF_NEVER: none */
};

struct hf_pg_login;
HF_MUST int hf_pg_login_create(const struct hf_pg_login_args *args, struct hf_pg_login **ret_login);
/** Wipes its secrets. */
void hf_pg_login_destroy(struct hf_pg_login *l);

enum hf_pg_login_in_kind {
    HF_PG_LOGIN_IN_BYTES =
        1,                 /* all bytes that came and were not consumed; again after other inputs */
    HF_PG_LOGIN_IN_TLS,    /* the handshake is done: after START_TLS, or as the very first thing
                            * (direct TLS) */
    HF_PG_LOGIN_IN_SECRET, /* answers NEED_SECRET; secret == NULL: no such user, or without one,
                            * or no longer valid (VALID UNTIL, CVE-2025-2291) */
    HF_PG_LOGIN_IN_NO_ANSWER, /* NEED_SECRET can't be answered now (auth_query failed) */
    HF_PG_LOGIN_IN_TIMER,     /* args.deadline has come */
};
struct hf_pg_login_in { /* borrowed for the call */
    enum hf_pg_login_in_kind kind;
    struct hf_slice bytes;            /* BYTES */
    struct hf_slice certificate_hash; /* TLS: of our own certificate, for tls-server-end-point */
    struct hf_slice cn, dn; /* TLS: of the client's verified certificate; p == NULL: none */
    const struct hf_pg_secret *secret; /* SECRET */
    const char *why;                   /* NO_ANSWER: for the client's DETAIL, may be NULL */
};

enum hf_pg_login_act {
    HF_PG_LOGIN_WAIT = 0,    /* for bytes */
    HF_PG_LOGIN_START_TLS,   /* send, then accept a handshake and answer with TLS */
    HF_PG_LOGIN_NEED_SECRET, /* of hf_pg_login_result()->user; answer with SECRET or NO_ANSWER */
    HF_PG_LOGIN_CANCEL,      /* a CancelRequest: pid, key; close without an answer */
    HF_PG_LOGIN_DONE,        /* send; hf_pg_login_result() has all of it; bytes not consumed are the
                              * session's */
    HF_PG_LOGIN_REFUSED,     /* send, then close; sqlstate and text (may be empty: nothing to tell)
                              * are for the log */
};
/** Valid until the next step. */
struct hf_pg_login_out {
    enum hf_pg_login_act act;
    size_t consumed;      /* of in.bytes, also before other acts than WAIT */
    struct hf_slice send; /* to the client, before what act says */
    uint32_t pid;         /* CANCEL */
    struct hf_slice key;  /* CANCEL; borrowed from in.bytes */
    const char *sqlstate; /* REFUSED */
    const char *text;     /* REFUSED: for the log: more than what the client is told */
};
void hf_pg_login_step(struct hf_pg_login *l, const struct hf_pg_login_in *in, hf_time now,
                      struct hf_pg_login_out *out);

enum hf_pg_replication {
    HF_PG_REPLICATION_NO = 0,
    HF_PG_REPLICATION_PHYSICAL, /* replication = true */
    HF_PG_REPLICATION_LOGICAL,  /* replication = database */
};
/** What is known of the client; borrowed until the login is destroyed. user and database are there
 * from NEED_SECRET on, the rest when DONE. */
struct hf_pg_login_result {
    struct hf_slice user, database;
    struct hf_slice params; /* name NUL value NUL ...: for the server's StartupMessage, without
                             * user, database, replication and _pq_. options */
    enum hf_pg_replication replication;
    uint32_t version; /* of the protocol: 3.0 or 3.2 */
    bool tls;
    enum hf_pg_auth method; /* of the HBA line */
    const struct hf_pg_hba_line *line;
    struct hf_slice identity; /* who it is outside: certificate's name, system user; or empty */
    /* What the client proved to have: NONE (trust, cert, peer), PASSWORD, MD5, CLIENT_KEY. */
    const struct hf_pg_secret *secret;
};
const struct hf_pg_login_result *hf_pg_login_result(const struct hf_pg_login *l);
