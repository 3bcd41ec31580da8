#include "core/pg/login.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"

#define OUT_MAX 16384 /* bytes of an answer: NegotiateProtocolVersion echoes names */
#define CN_MAX 256
#define DN_MAX 1024
#define S(x) hf_slice((x), sizeof(x) - 1)

/* Authentication requests. */
enum { AUTH_OK = 0, AUTH_CLEARTEXT = 3, AUTH_MD5 = 5, AUTH_SASL = 10, AUTH_CONTINUE, AUTH_FINAL };

/* name, states that may follow */
#define STATE_LIST(X)                                                                              \
    X(START, BIT(HANDSHAKE) | BIT(SECRET) | BIT(ENDED))                                            \
    X(HANDSHAKE, BIT(START) | BIT(ENDED))                                                          \
    X(SECRET, BIT(PASSWORD) | BIT(SASL_FIRST) | BIT(ENDED))                                        \
    X(PASSWORD, BIT(ENDED))                                                                        \
    X(SASL_FIRST, BIT(SASL_FINAL) | BIT(ENDED))                                                    \
    X(SASL_FINAL, BIT(ENDED))                                                                      \
    X(ENDED, 0)
enum state {
#define STATE_ENUM(name, next) name,
    STATE_LIST(STATE_ENUM)
#undef STATE_ENUM
};
#define BIT(s) (1u << (s))
static const unsigned may_follow[] = {
#define STATE_NEXT(name, next) next,
    STATE_LIST(STATE_NEXT)
#undef STATE_NEXT
};

struct hf_pg_login {
    struct hf_pg_login_args args; /* its texts are not used: they are below */
    enum state state;
    bool asked_tls, asked_gss; /* at most once each */
    bool has_certificate;
    bool known; /* the secret is one that a password could fit */
    bool ask_md5;
    size_t n_hash;
    uint8_t hash[HF_PG_BINDING_MAX];
    char host[64], peer_user[HF_PG_NAME_MAX + 1];
    char user[HF_PG_NAME_MAX + 1], database[HF_PG_NAME_MAX + 1];
    char cn[CN_MAX + 1], dn[DN_MAX + 1];
    struct hf_buf params, out;
    struct hf_pg_secret secret; /* to check against, then what was proved */
    struct hf_pg_scram scram;
    struct hf_pg_login_result result;
    char message[384], text[512];
};

static void enter_state(struct hf_pg_login *l, enum state s)
{
    assert(may_follow[l->state] & BIT(s));
    l->state = s;
}

/* A copy that ends with NUL, cut to its room. */
static void copy(char *to, size_t room, struct hf_slice s)
{
    size_t n = s.n < room - 1 ? s.n : room - 1;
    if (n) {
        memcpy(to, s.p, n);
    }
    to[n] = 0;
}

int hf_pg_login_create(const struct hf_pg_login_args *args, struct hf_pg_login **ret_login)
{
    struct hf_pg_login *l = hf_alloc(sizeof(*l));
    if (!l) {
        return -ENOMEM;
    }
    l->args = *args;
    copy(l->host, sizeof(l->host), hf_slice_str(args->host ? args->host : "?"));
    copy(l->peer_user, sizeof(l->peer_user), hf_slice_str(args->peer_user ? args->peer_user : ""));
    hf_buf_init(&l->params, HF_PG_STARTUP_MAX);
    hf_buf_init(&l->out, OUT_MAX);
    hf_buf_init(&l->scram.messages, 0);
    *ret_login = l;
    return 0;
}

void hf_pg_login_destroy(struct hf_pg_login *l)
{
    if (l) {
        hf_buf_fini(&l->params);
        hf_buf_fini(&l->out);
        hf_pg_scram_fini(&l->scram);
        hf_pg_secret_wipe(&l->secret);
        hf_free(l);
    }
}

const struct hf_pg_login_result *hf_pg_login_result(const struct hf_pg_login *l)
{
    return &l->result;
}

/* --- ends --- */

/* FATAL for the client, `why` (may be NULL) for the log besides. message is l->message, or static.
 */
static void refuse(struct hf_pg_login *l, struct hf_pg_login_out *out, const char *sqlstate,
                   const char *message, const char *why)
{
    const struct hf_pg_error e = {.severity = "FATAL", .sqlstate = sqlstate, .message = message};
    hf_pg_put_error(&l->out, HF_PG_ERROR, &e);
    snprintf(l->text, sizeof(l->text), "%s%s%s", message, why ? ": " : "", why ? why : "");
    out->act = HF_PG_LOGIN_REFUSED;
    out->sqlstate = sqlstate;
    out->text = l->text;
    enter_state(l, ENDED);
}

/* Nobody is told: it does not speak PostgreSQL's protocol, or can't be spoken to. */
static void refuse_silently(struct hf_pg_login *l, struct hf_pg_login_out *out, const char *why)
{
    out->act = HF_PG_LOGIN_REFUSED;
    out->sqlstate = "08P01";
    out->text = why;
    enter_state(l, ENDED);
}

static void refuse_password(struct hf_pg_login *l, struct hf_pg_login_out *out, const char *why)
{
    snprintf(l->message, sizeof(l->message), "password authentication failed for user \"%s\"",
             l->user);
    refuse(l, out, "28P01", l->message, l->known ? why : "no such user, or no secret that fits");
}

static void put_auth(struct hf_pg_login *l, uint32_t code, struct hf_slice data)
{
    size_t mark = hf_pg_put_begin(&l->out, HF_PG_AUTHENTICATION);
    hf_pg_put_u32(&l->out, code);
    hf_buf_add(&l->out, data);
    hf_pg_put_end(&l->out, mark);
}

static void done(struct hf_pg_login *l, struct hf_pg_login_out *out)
{
    put_auth(l, AUTH_OK, hf_slice(NULL, 0));
    l->result.secret = &l->secret;
    out->act = HF_PG_LOGIN_DONE;
    enter_state(l, ENDED);
}

/* --- the start --- */

/* The value of a boolean parameter: 1, 0, or -1. */
static int boolean(struct hf_slice s)
{
    static const char *const words[] = {"false", "no",  "off", "0", "f", "n",
                                        "true",  "yes", "on",  "1", "t", "y"};
    for (size_t i = 0; i < HF_ARRAY_LEN(words); i++) {
        if (s.n == strlen(words[i]) && strncasecmp((const char *)s.p, words[i], s.n) == 0) {
            return i >= HF_ARRAY_LEN(words) / 2;
        }
    }
    return -1;
}

/* One parameter of the StartupMessage. false: it has no such value. */
static bool take_param(struct hf_pg_login *l, struct hf_slice name, struct hf_slice value)
{
    struct hf_pg_login_result *k = &l->result;
    if (hf_slice_eq(name, S("user"))) {
        copy(l->user, sizeof(l->user), value);
    } else if (hf_slice_eq(name, S("database"))) {
        copy(l->database, sizeof(l->database), value);
    } else if (hf_slice_eq(name, S("replication"))) {
        int on = boolean(value);
        k->replication = hf_slice_eq(value, S("database")) ? HF_PG_REPLICATION_LOGICAL
                         : on > 0                          ? HF_PG_REPLICATION_PHYSICAL
                                                           : HF_PG_REPLICATION_NO;
        return on >= 0 || k->replication == HF_PG_REPLICATION_LOGICAL;
    } else if (!hf_slice_starts(name, S("_pq_."))) {
        hf_pg_put_cstr(&l->params, name);
        hf_pg_put_cstr(&l->params, value);
    }
    return true;
}

/* NegotiateProtocolVersion, where the client wants more than there is. */
static void negotiate(struct hf_pg_login *l, const struct hf_pg_startup *st)
{
    struct hf_slice left = st->params, name, value;
    uint32_t n = 0;
    while (hf_pg_param_next(&left, &name, &value)) {
        n += hf_slice_starts(name, S("_pq_."));
    }
    l->result.version = st->version < HF_PG_VERSION_3_2 ? HF_PG_VERSION_3_0 : HF_PG_VERSION_3_2;
    if (n == 0 && st->version <= HF_PG_VERSION_3_2) {
        return;
    }
    size_t mark = hf_pg_put_begin(&l->out, HF_PG_NEGOTIATE_VERSION);
    hf_pg_put_u32(&l->out, st->version < HF_PG_VERSION_3_2 ? st->version : HF_PG_VERSION_3_2);
    hf_pg_put_u32(&l->out, n);
    left = st->params;
    while (hf_pg_param_next(&left, &name, &value)) {
        if (hf_slice_starts(name, S("_pq_."))) {
            hf_pg_put_cstr(&l->out, name);
        }
    }
    hf_pg_put_end(&l->out, mark);
}

static void refuse_hba(struct hf_pg_login *l, struct hf_pg_login_out *out, const char *how)
{
    bool physical = l->result.replication == HF_PG_REPLICATION_PHYSICAL;
    snprintf(l->message, sizeof(l->message), "%s %shost \"%s\", user \"%s\"%s%s%s, %s", how,
             physical ? "replication connection from " : "", l->host, l->user,
             physical ? "" : ", database \"", physical ? "" : l->database, physical ? "" : "\"",
             l->result.tls ? "SSL encryption" : "no encryption");
    refuse(l, out, "28000", l->message, NULL);
}

/* Is who it is outside (certificate, system user) allowed to be that user? */
static bool is_user(struct hf_pg_login *l, const struct hf_pg_hba_line *line, const char *identity)
{
    l->result.identity = hf_slice_str(identity);
    return identity[0] &&
           hf_pg_hba_may_be(l->args.conf->hba, line->map, l->result.identity, l->result.user);
}

/* What the line asks of the client's certificate. true: it is as it should be. */
static bool certificate_ok(struct hf_pg_login *l, const struct hf_pg_hba_line *line,
                           struct hf_pg_login_out *out)
{
    if (line->clientcert == HF_PG_CLIENTCERT_NO) {
        return true;
    }
    if (!l->has_certificate) {
        refuse(l, out, "28000", "connection requires a valid client certificate", NULL);
        return false;
    }
    if (line->clientcert == HF_PG_CLIENTCERT_VERIFY_FULL &&
        !is_user(l, line, line->clientname_dn ? l->dn : l->cn)) {
        snprintf(l->message, sizeof(l->message),
                 "certificate authentication failed for user \"%s\"", l->user);
        refuse(l, out, "28000", l->message, line->clientname_dn ? l->dn : l->cn);
        return false;
    }
    return true;
}

static void by_line(struct hf_pg_login *l, const struct hf_pg_hba_line *line,
                    struct hf_pg_login_out *out)
{
    l->result.line = line;
    l->result.method = line->method;
    if (line->method == HF_PG_AUTH_REJECT) {
        refuse_hba(l, out, "pg_hba.conf rejects connection for");
        return;
    }
    if (!certificate_ok(l, line, out)) {
        return;
    }
    if (line->method == HF_PG_AUTH_PEER && !is_user(l, line, l->peer_user)) {
        snprintf(l->message, sizeof(l->message), "Peer authentication failed for user \"%s\"",
                 l->user);
        refuse(l, out, "28000", l->message, l->peer_user);
        return;
    }
    switch (line->method) {
    case HF_PG_AUTH_TRUST:
    case HF_PG_AUTH_CERT:
    case HF_PG_AUTH_PEER:
        done(l, out);
        return;
    case HF_PG_AUTH_SCRAM:
    case HF_PG_AUTH_MD5:
    case HF_PG_AUTH_PASSWORD:
        enter_state(l, SECRET);
        out->act = HF_PG_LOGIN_NEED_SECRET;
        return;
    case HF_PG_AUTH_REJECT:
    case HF_PG_AUTH_COUNT_:
        break;
    }
    assert(0);
}

static void start_session(struct hf_pg_login *l, const struct hf_pg_startup *st,
                          struct hf_pg_login_out *out)
{
    const struct hf_pg_login_conf *conf = l->args.conf;
    struct hf_slice left = st->params, name, value;
    bool ok = true;
    while (ok && hf_pg_param_next(&left, &name, &value)) {
        ok = take_param(l, name, value);
    }
    if (!ok) {
        refuse(l, out, "22023", "invalid value for parameter \"replication\"", NULL);
        return;
    }
    if (!l->user[0]) {
        refuse(l, out, "28000", "no PostgreSQL user name specified in startup packet", NULL);
        return;
    }
    if (!l->database[0]) {
        copy(l->database, sizeof(l->database), hf_slice_str(l->user));
    }
    if (l->result.replication == HF_PG_REPLICATION_PHYSICAL) {
        l->database[0] = 0;
    }
    l->result.user = hf_slice_str(l->user);
    l->result.database = hf_slice_str(l->database);
    l->result.params = hf_buf_slice(&l->params);
    if (!l->args.local && !l->result.tls && conf->tls == HF_PG_LOGIN_TLS_REQUIRED) {
        refuse(l, out, "28000", "SSL required", NULL);
        return;
    }
    negotiate(l, st);
    const struct hf_pg_hba_ask ask = {
        .local = l->args.local,
        .tls = l->result.tls,
        .replication = l->result.replication == HF_PG_REPLICATION_PHYSICAL,
        .peer = l->args.peer,
        .database = l->result.database,
        .user = l->result.user,
        .own = conf->own,
        .n_own = conf->n_own,
    };
    const struct hf_pg_hba_line *line = hf_pg_hba_match(conf->hba, &ask);
    if (line) {
        by_line(l, line, out);
    } else {
        refuse_hba(l, out, "no pg_hba.conf entry for");
    }
}

static void start_refused(struct hf_pg_login *l, struct hf_slice bytes, int rc,
                          struct hf_pg_login_out *out)
{
    if (rc == -HF_EVERSION) {
        struct hf_rd r;
        hf_rd_init(&r, bytes);
        hf_rd_u32(&r);
        unsigned major = hf_rd_u16(&r), minor = hf_rd_u16(&r);
        snprintf(l->message, sizeof(l->message),
                 "unsupported frontend protocol %u.%u: server supports 3.0 to 3.2", major, minor);
        refuse(l, out, "0A000", l->message, NULL);
    } else if (rc == -HF_EMALF) {
        refuse(l, out, "08P01", "invalid startup packet layout: expected terminator as last byte",
               NULL);
    } else {
        refuse_silently(l, out, "invalid length of startup packet");
    }
}

/* SSLRequest, GSSENCRequest. Each is answered once: more is not PostgreSQL's protocol. */
static void start_encryption(struct hf_pg_login *l, bool tls, bool more,
                             struct hf_pg_login_out *out)
{
    bool *asked = tls ? &l->asked_tls : &l->asked_gss;
    if (*asked || l->result.tls) {
        refuse(l, out, "0A000",
               tls ? "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2"
                   : "unsupported frontend protocol 1234.5680: server supports 3.0 to 3.2",
               NULL);
        return;
    }
    *asked = true;
    if (!tls || l->args.local || l->args.conf->tls == HF_PG_LOGIN_TLS_NO) {
        hf_pg_put_u8(&l->out, 'N');
        return;
    }
    if (more) { /* somebody between put it there: it would pass for encrypted (CVE-2021-23214) */
        refuse(l, out, "08P01", "received unencrypted data after SSL request", NULL);
        return;
    }
    hf_pg_put_u8(&l->out, 'S');
    out->act = HF_PG_LOGIN_START_TLS;
    enter_state(l, HANDSHAKE);
}

/* One start-up packet. false: wait for more of it. */
static bool step_start(struct hf_pg_login *l, struct hf_slice bytes, struct hf_pg_login_out *out)
{
    struct hf_pg_startup st;
    int n = hf_pg_startup_read(bytes, &st);
    if (n == 0) {
        return false;
    }
    if (n < 0) {
        out->consumed += bytes.n;
        start_refused(l, bytes, n, out);
        return true;
    }
    out->consumed += (size_t)n;
    switch (st.kind) {
    case HF_PG_START_TLS:
    case HF_PG_START_GSS:
        start_encryption(l, st.kind == HF_PG_START_TLS, bytes.n > (size_t)n, out);
        break;
    case HF_PG_START_CANCEL:
        out->act = HF_PG_LOGIN_CANCEL;
        out->pid = st.pid;
        out->key = st.key;
        enter_state(l, ENDED);
        break;
    case HF_PG_START:
        start_session(l, &st, out);
        break;
    }
    return true;
}

/* --- the secret is there --- */

static void ask_sasl(struct hf_pg_login *l)
{
    static const char both[] = HF_PG_SCRAM_PLUS "\0" HF_PG_SCRAM "\0";
    size_t skip = l->n_hash ? 0 : sizeof(HF_PG_SCRAM_PLUS);
    put_auth(l, AUTH_SASL, hf_slice(both + skip, sizeof(both) - skip));
    hf_pg_scram_fini(&l->scram);
    hf_pg_scram_serve(&l->scram, &l->secret.verifier, hf_slice(l->hash, l->n_hash), l->args.nonce);
    enter_state(l, SASL_FIRST);
}

/* Have a verifier: the user's, one of the plain password, or one that nothing fits. */
static void have_verifier(struct hf_pg_login *l)
{
    struct hf_pg_secret *k = &l->secret;
    uint8_t salt[16];
    hf_pg_salt(l->args.conf->key, l->result.user, salt);
    if (k->kind == HF_PG_SECRET_PASSWORD && !k->verifier.iterations) {
        l->known = hf_pg_verifier_make(hf_slice_str(k->password), hf_slice(salt, sizeof(salt)),
                                       HF_PG_ITERATIONS, &k->verifier) == 0;
    }
    if (k->kind == HF_PG_SECRET_NONE || k->kind == HF_PG_SECRET_MD5) {
        l->known = false;
    }
    if (!l->known) {
        hf_pg_verifier_mock(l->args.conf->key, l->result.user, &k->verifier);
    }
}

static void step_secret(struct hf_pg_login *l, const struct hf_pg_secret *secret)
{
    struct hf_pg_secret *k = &l->secret;
    if (secret && !(secret->kind == HF_PG_SECRET_PASSWORD && !secret->password[0])) {
        *k = *secret; /* an empty password is none */
    }
    l->known = k->kind != HF_PG_SECRET_NONE;
    switch (l->result.method) {
    case HF_PG_AUTH_PASSWORD:
        put_auth(l, AUTH_CLEARTEXT, hf_slice(NULL, 0));
        enter_state(l, PASSWORD);
        return;
    case HF_PG_AUTH_MD5:
        l->ask_md5 = k->kind == HF_PG_SECRET_MD5 || k->kind == HF_PG_SECRET_PASSWORD ||
                     (!l->known && l->args.conf->md5_for_unknown);
        if (l->ask_md5) {
            put_auth(l, AUTH_MD5, hf_slice(l->args.salt, sizeof(l->args.salt)));
            enter_state(l, PASSWORD);
            return;
        }
        break;
    case HF_PG_AUTH_TRUST:
    case HF_PG_AUTH_REJECT:
    case HF_PG_AUTH_SCRAM:
    case HF_PG_AUTH_CERT:
    case HF_PG_AUTH_PEER:
    case HF_PG_AUTH_COUNT_:
        break;
    }
    have_verifier(l);
    ask_sasl(l);
}

/* --- what the client answers --- */

/* Does the answer to AuthenticationMD5Password fit? */
static bool md5_fits(struct hf_pg_login *l, struct hf_slice answer)
{
    struct hf_pg_secret *k = &l->secret;
    char hex[HF_PG_MD5_LEN + 1], want[3 + HF_PG_MD5_LEN + 1];
    /* of nobody's password, too, so that it takes the same time */
    bool ok =
        hf_pg_md5_secret(hf_slice_str(k->password), l->result.user, hex) == 0 &&
        hf_pg_md5_answer(k->kind == HF_PG_SECRET_MD5 ? k->password : hex, l->args.salt, want) == 0;
    return ok && l->known && answer.n == sizeof(want) - 1 && hf_pg_same(answer.p, want, answer.n);
}

static bool verifier_fits(const struct hf_pg_secret *k, struct hf_slice password)
{
    struct hf_pg_verifier made;
    struct hf_slice salt = hf_slice(k->verifier.salt, k->verifier.n_salt);
    return hf_pg_verifier_make(password, salt, k->verifier.iterations, &made) == 0 &&
           hf_pg_same(made.stored_key, k->verifier.stored_key, HF_PG_KEY_LEN);
}

/* Does the password that came in the clear fit? It is what was proved, then. */
static bool password_fits(struct hf_pg_login *l, struct hf_slice password)
{
    struct hf_pg_secret given = {.kind = HF_PG_SECRET_PASSWORD}, *k = &l->secret;
    char hex[HF_PG_MD5_LEN + 1];
    bool ok = false;
    if (password.n > HF_PG_PASSWORD_MAX) {
        return false;
    }
    copy(given.password, sizeof(given.password), password);
    switch (k->kind) {
    case HF_PG_SECRET_PASSWORD:
        ok = hf_pg_same(given.password, k->password, sizeof(given.password));
        break;
    case HF_PG_SECRET_MD5:
        ok = hf_pg_md5_secret(password, l->result.user, hex) == 0 &&
             hf_pg_same(hex, k->password, HF_PG_MD5_LEN);
        break;
    case HF_PG_SECRET_NONE:
        hf_pg_verifier_mock(l->args.conf->key, l->result.user, &k->verifier);
        verifier_fits(k, password); /* as much work as if there were one */
        break;
    case HF_PG_SECRET_VERIFIER:
    case HF_PG_SECRET_CLIENT_KEY:
        ok = verifier_fits(k, password);
        break;
    }
    if (ok) {
        *k = given;
    }
    hf_pg_secret_wipe(&given);
    return ok;
}

static void step_password(struct hf_pg_login *l, struct hf_slice body, struct hf_pg_login_out *out)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    struct hf_slice password = hf_pg_rd_cstr(&r);
    if (hf_rd_end(&r)) {
        refuse(l, out, "08P01", "invalid password packet size", NULL);
    } else if (password.n == 0) {
        refuse(l, out, "28P01", "empty password returned by client", NULL);
    } else if (l->ask_md5 ? md5_fits(l, password) : password_fits(l, password)) {
        done(l, out);
    } else {
        refuse_password(l, out, "wrong password");
    }
}

static void sasl_failed(struct hf_pg_login *l, int rc, const char *why, struct hf_pg_login_out *out)
{
    if (rc == -HF_EAUTH) {
        refuse_password(l, out, why);
    } else {
        refuse(l, out, rc == -HF_EPROTO ? "08P01" : "53200", why, NULL);
    }
}

static void step_sasl_first(struct hf_pg_login *l, struct hf_slice body,
                            struct hf_pg_login_out *out)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    struct hf_slice mechanism = hf_pg_rd_cstr(&r);
    struct hf_slice message = hf_rd_bytes(&r, hf_rd_u32(&r));
    if (hf_rd_end(&r)) {
        refuse(l, out, "08P01", "malformed SASLInitialResponse message", NULL);
        return;
    }
    const char *why = "";
    struct hf_buf b;
    hf_buf_init(&b, HF_PG_SCRAM_MESSAGE_MAX);
    int rc = hf_pg_scram_first(&l->scram, mechanism, message, &b, &why);
    rc = rc ? rc : b.err;
    if (rc) {
        sasl_failed(l, rc, rc == b.err ? "out of memory" : why, out);
    } else {
        put_auth(l, AUTH_CONTINUE, hf_buf_slice(&b));
        enter_state(l, SASL_FINAL);
    }
    hf_buf_fini(&b);
}

static void step_sasl_final(struct hf_pg_login *l, struct hf_slice body,
                            struct hf_pg_login_out *out)
{
    const char *why = "";
    struct hf_buf b;
    hf_buf_init(&b, HF_PG_SCRAM_MESSAGE_MAX);
    struct hf_pg_secret *k = &l->secret;
    int rc = hf_pg_scram_final(&l->scram, body, &b, k->client_key, &why);
    rc = rc ? rc : b.err ? b.err : l->known ? 0 : -HF_EAUTH;
    if (rc) {
        sasl_failed(l, rc, rc == b.err ? "out of memory" : why, out);
    } else {
        put_auth(l, AUTH_FINAL, hf_buf_slice(&b));
        if (k->kind == HF_PG_SECRET_PASSWORD) {
            k->derived = true; /* it fits servers with any salt */
        } else {
            k->kind = HF_PG_SECRET_CLIENT_KEY;
        }
        done(l, out);
    }
    hf_buf_fini(&b);
}

/* A PasswordMessage or one of SASL. false: wait for the rest of it. */
static bool step_answer(struct hf_pg_login *l, struct hf_slice bytes, struct hf_pg_login_out *out)
{
    struct hf_pg_head h;
    int rc = hf_pg_head_read(bytes, &h);
    if (rc == -HF_ETRUNC) {
        return false;
    }
    if (rc || h.type != HF_PG_PASSWORD) {
        out->consumed += bytes.n;
        if (h.type == HF_PG_TERMINATE && rc == 0) {
            refuse_silently(l, out, "client left during authentication");
            return true;
        }
        snprintf(l->message, sizeof(l->message), "expected %s response, got message type %u",
                 l->state == PASSWORD ? "password" : "SASL", rc ? 0u : (unsigned)h.type);
        refuse(l, out, "08P01", l->message, NULL);
        return true;
    }
    if (h.body_len > HF_PG_SCRAM_MESSAGE_MAX + 64) {
        out->consumed += bytes.n;
        refuse(l, out, "08P01", "invalid message length", NULL);
        return true;
    }
    if (bytes.n - HF_PG_HEAD_LEN < h.body_len) {
        return false;
    }
    struct hf_slice body = hf_slice(bytes.p + HF_PG_HEAD_LEN, h.body_len);
    out->consumed += HF_PG_HEAD_LEN + h.body_len;
    if (l->state == PASSWORD) {
        step_password(l, body, out);
    } else if (l->state == SASL_FIRST) {
        step_sasl_first(l, body, out);
    } else {
        step_sasl_final(l, body, out);
    }
    return true;
}

/* --- steps --- */

static void step_bytes(struct hf_pg_login *l, struct hf_slice bytes, struct hf_pg_login_out *out)
{
    bool more = true;
    while (more && out->act == HF_PG_LOGIN_WAIT && out->consumed < bytes.n) {
        struct hf_slice left = hf_slice(bytes.p + out->consumed, bytes.n - out->consumed);
        switch (l->state) {
        case START:
            more = step_start(l, left, out);
            break;
        case PASSWORD:
        case SASL_FIRST:
        case SASL_FINAL:
            more = step_answer(l, left, out);
            break;
        case HANDSHAKE: /* the driver's */
        case SECRET:    /* later */
        case ENDED:
            more = false;
            break;
        }
    }
}

/* A name that is cut, or has a zero in it, would be another name: then there is none. */
static void take_name(char *to, size_t room, struct hf_slice name)
{
    if (name.p && name.n < room && !memchr(name.p, 0, name.n)) {
        copy(to, room, name);
    }
}

static void step_tls(struct hf_pg_login *l, const struct hf_pg_login_in *in)
{
    if (l->state == HANDSHAKE) {
        enter_state(l, START);
    }
    l->result.tls = true;
    if (in->certificate_hash.n && in->certificate_hash.n <= sizeof(l->hash)) {
        memcpy(l->hash, in->certificate_hash.p, in->certificate_hash.n);
        l->n_hash = in->certificate_hash.n;
    }
    l->has_certificate = in->cn.p || in->dn.p;
    take_name(l->cn, sizeof(l->cn), in->cn);
    take_name(l->dn, sizeof(l->dn), in->dn);
}

static void no_answer(struct hf_pg_login *l, const char *why, struct hf_pg_login_out *out)
{
    const struct hf_pg_error e = {.severity = "FATAL",
                                  .sqlstate = "57P03",
                                  .message = "cannot look up the user's secret now",
                                  .detail = why};
    hf_pg_put_error(&l->out, HF_PG_ERROR, &e);
    snprintf(l->text, sizeof(l->text), "%s: %s", e.message, why ? why : "no answer");
    out->act = HF_PG_LOGIN_REFUSED;
    out->sqlstate = e.sqlstate;
    out->text = l->text;
    enter_state(l, ENDED);
}

void hf_pg_login_step(struct hf_pg_login *l, const struct hf_pg_login_in *in, hf_time now,
                      struct hf_pg_login_out *out)
{
    *out = (struct hf_pg_login_out){0};
    hf_buf_clear(&l->out);
    if (l->state != ENDED && now >= l->args.deadline) {
        if (l->state == HANDSHAKE) {
            refuse_silently(l, out, "timeout during TLS handshake");
        } else {
            refuse(l, out, "57014", "canceling authentication due to timeout", NULL);
        }
    }
    switch (l->state == ENDED ? 0 : (int)in->kind) {
    case HF_PG_LOGIN_IN_BYTES:
        step_bytes(l, in->bytes, out);
        break;
    case HF_PG_LOGIN_IN_TLS:
        if (l->state == HANDSHAKE || l->state == START) {
            step_tls(l, in);
        }
        break;
    case HF_PG_LOGIN_IN_SECRET:
        if (l->state == SECRET) {
            step_secret(l, in->secret);
        }
        break;
    case HF_PG_LOGIN_IN_NO_ANSWER:
        if (l->state == SECRET) {
            no_answer(l, in->why, out);
        }
        break;
    default:
        break;
    }
    if (l->out.err || l->params.err) { /* nothing that is whole can be said */
        out->act = HF_PG_LOGIN_REFUSED;
        out->sqlstate = "53200";
        out->text = "out of memory";
        l->state = ENDED;
        hf_buf_clear(&l->out);
        l->params.err = 0;
    }
    out->send = hf_buf_slice(&l->out);
}
