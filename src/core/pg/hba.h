/* Who may log in and how: pg_hba.conf, pg_ident.conf in PostgreSQL's format, and the auth file in
 * PgBouncer's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/endpoint.h"
#include "base/err.h"
#include "base/slice.h"
#include "core/pg/scram.h"

/*
 * https://www.postgresql.org/docs/current/auth-pg-hba-conf.html. Refused, with what to write
 * instead: methods and options that holdfast-pg does not have, +group and samerole (memberships are
 * in the database), host names (they would need DNS in a login), regular expressions, include
 * directives.
 */
#define HF_PG_AUTH_LIST(X)                                                                         \
    X(TRUST, "trust")                                                                              \
    X(REJECT, "reject")                                                                            \
    X(SCRAM, "scram-sha-256")                                                                      \
    X(MD5, "md5") /* SCRAM if the user's secret is a verifier, as in PostgreSQL */                 \
    X(PASSWORD, "password")                                                                        \
    X(CERT, "cert")                                                                                \
    X(PEER, "peer")
enum hf_pg_auth {
#define HF_PG_AUTH_ENUM(id, name) HF_PG_AUTH_##id,
    HF_PG_AUTH_LIST(HF_PG_AUTH_ENUM)
#undef HF_PG_AUTH_ENUM
        HF_PG_AUTH_COUNT_
};
/** Name of a method, as in the file. */
const char *hf_pg_auth_name(enum hf_pg_auth method);
/** -HF_EVALUE: no such method here. */
HF_MUST int hf_pg_auth_parse(struct hf_slice name, enum hf_pg_auth *ret_method);

enum hf_pg_clientcert {
    HF_PG_CLIENTCERT_NO = 0,
    HF_PG_CLIENTCERT_VERIFY_CA,   /* a certificate that the CA signed */
    HF_PG_CLIENTCERT_VERIFY_FULL, /* ... and its name is the user's, or maps to it */
};

/** What a matching line says; owned by the hf_pg_hba. */
struct hf_pg_hba_line {
    enum hf_pg_auth method;
    enum hf_pg_clientcert clientcert;
    bool clientname_dn; /* the certificate's whole DN (RFC 2253) is its name, not its CN */
    const char *map;    /* NULL: names must be equal */
    unsigned line;
};

struct hf_pg_hba;

/** Reads the file of a list "@FILE": appends its text. FILE is as written, to be taken relative to
 * the directory of the pg_hba.conf; lists in lists are refused. Returns 0, or sets err. */
struct hf_pg_hba_files {
    int (*read)(void *arg, const char *path, struct hf_buf *b, struct hf_err *err);
    void *arg;
};

/**
 * Parse a pg_hba.conf. `file` names it in errors ("FILE:LINE: what is wrong: what was expected").
 * files may be NULL: then "@FILE" is refused. -HF_ECONFIG, -ENOMEM.
 */
HF_MUST int hf_pg_hba_parse(struct hf_slice text, const char *file,
                            const struct hf_pg_hba_files *files, struct hf_err *err,
                            struct hf_pg_hba **ret_hba);
/** Without a file: everybody, from everywhere, by this method. */
HF_MUST int hf_pg_hba_create(enum hf_pg_auth method, struct hf_pg_hba **ret_hba);
/** Add the maps of a pg_ident.conf: all or, on failure, none. Regular expressions and groups are
 * refused. */
HF_MUST int hf_pg_hba_add_ident(struct hf_pg_hba *hba, struct hf_slice text, const char *file,
                                struct hf_err *err);
/** Is any line's map missing? Its name, and the line, or NULL. */
const struct hf_pg_hba_line *hf_pg_hba_missing_map(const struct hf_pg_hba *hba);
void hf_pg_hba_destroy(struct hf_pg_hba *hba);

/** An address of our own, with its network, for samehost and samenet. */
struct hf_pg_hba_net {
    struct hf_endpoint address;
    uint8_t prefix;
};
struct hf_pg_hba_ask {
    bool local; /* Unix socket; otherwise peer is the client's address */
    bool tls;
    bool replication; /* physical replication: matched by the name "replication" only */
    struct hf_endpoint peer;
    struct hf_slice database, user;
    const struct hf_pg_hba_net *own; /* borrowed for the call */
    size_t n_own;
};
/** The first line that matches, or NULL. */
const struct hf_pg_hba_line *hf_pg_hba_match(const struct hf_pg_hba *hba,
                                             const struct hf_pg_hba_ask *ask);
/** May who is `system` outside (certificate, operating system) be `user` here? map == NULL: if
 * equal. */
bool hf_pg_hba_may_be(const struct hf_pg_hba *hba, const char *map, struct hf_slice system,
                      struct hf_slice user);

/* --- the auth file: "user" "secret" --- */
struct hf_pg_userlist;

/** Parse PgBouncer's userlist.txt: one user per line, both in double quotes, "" inside is one; the
 * rest of the line is ignored; ';' and '#' begin comment lines. The last of equal users counts. */
HF_MUST int hf_pg_userlist_parse(struct hf_slice text, const char *file, struct hf_err *err,
                                 struct hf_pg_userlist **ret_list);
void hf_pg_userlist_destroy(struct hf_pg_userlist *l);
/**
 * The secret of a user, to be given to hf_pg_login_step(); NULL: no such user. Borrowed until the
 * list is destroyed. A plain password gets its verifier at the first call, once (some ms), with a
 * salt made of `key`.
 */
const struct hf_pg_secret *hf_pg_userlist_get(struct hf_pg_userlist *l, struct hf_slice user,
                                              const uint8_t key[HF_PG_KEY_LEN]);
