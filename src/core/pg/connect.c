#include "core/pg/connect.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"

#define OUT_MAX (HF_PG_STARTUP_MAX + 4096)
#define S(x) hf_slice((x), sizeof(x) - 1)

/* Authentication requests. */
enum { AUTH_OK = 0, AUTH_CLEARTEXT = 3, AUTH_MD5 = 5, AUTH_SASL = 10, AUTH_CONTINUE, AUTH_FINAL };

/* name, states that may follow */
#define STATE_LIST(X)                                                                              \
    X(BEGIN, BIT(OFFER) | BIT(AUTH) | BIT(ENDED))                                                  \
    X(OFFER, BIT(HANDSHAKE) | BIT(AUTH) | BIT(ENDED))                                              \
    X(HANDSHAKE, BIT(AUTH) | BIT(ENDED))                                                           \
    X(AUTH, BIT(SETTLE) | BIT(ENDED))                                                              \
    X(SETTLE, BIT(ENDED))                                                                          \
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

/* How far SCRAM is. */
enum sasl { SASL_NO, SASL_HELLO, SASL_PROVED, SASL_CHECKED };

struct hf_pg_connect {
    struct hf_pg_connect_args args; /* its slices are not used: they are in startup and user */
    enum state state;
    enum sasl sasl;
    bool answered; /* a request for a password: there is one at most */
    uint32_t version;
    size_t n_bytes, n_hash;
    uint8_t hash[HF_PG_BINDING_MAX];
    char user[HF_PG_NAME_MAX + 1];
    struct hf_buf startup, out, params;
    struct hf_pg_secret secret;
    struct hf_pg_scram scram;
    uint8_t key[HF_PG_CANCEL_KEY_MAX];
    struct hf_pg_connect_result result;
    struct hf_pg_connect_error error;
};

static void enter_state(struct hf_pg_connect *c, enum state s)
{
    assert(may_follow[c->state] & BIT(s));
    c->state = s;
}

/* The StartupMessage, made beforehand. */
static void make_startup(struct hf_pg_connect *c, const struct hf_pg_connect_args *args)
{
    struct hf_buf *b = &c->startup;
    size_t mark = hf_pg_put_begin(b, 0);
    hf_pg_put_u32(b, c->version);
    hf_pg_put_cstr(b, S("user"));
    hf_pg_put_cstr(b, hf_slice_str(c->user));
    if (args->database.n) {
        hf_pg_put_cstr(b, S("database"));
        hf_pg_put_cstr(b, args->database);
    }
    if (args->replication) {
        hf_pg_put_cstr(b, S("replication"));
        hf_pg_put_cstr(b, hf_slice_str(args->replication));
    }
    struct hf_slice left = args->params, name, value;
    while (hf_pg_param_next(&left, &name, &value)) {
        hf_pg_put_cstr(b, name);
        hf_pg_put_cstr(b, value);
    }
    hf_pg_put_u8(b, 0);
    hf_pg_put_end(b, mark);
}

int hf_pg_connect_create(const struct hf_pg_connect_args *args, struct hf_pg_connect **ret_connect)
{
    struct hf_pg_connect *c = hf_alloc(sizeof(*c));
    if (!c) {
        return -ENOMEM;
    }
    c->args = *args;
    c->version = args->version ? args->version : HF_PG_VERSION_3_0;
    hf_buf_init(&c->startup, HF_PG_STARTUP_MAX);
    hf_buf_init(&c->out, OUT_MAX);
    hf_buf_init(&c->params, HF_PG_CONNECT_PARAMS_MAX);
    hf_buf_init(&c->scram.messages, 0);
    if (args->secret) {
        c->secret = *args->secret;
    }
    size_t n = args->user.n < HF_PG_NAME_MAX ? args->user.n : HF_PG_NAME_MAX;
    if (n) {
        memcpy(c->user, args->user.p, n);
    }
    make_startup(c, args);
    if (c->startup.err) {
        int rc = c->startup.err;
        hf_pg_connect_destroy(c);
        return rc;
    }
    *ret_connect = c;
    return 0;
}

void hf_pg_connect_destroy(struct hf_pg_connect *c)
{
    if (c) {
        hf_buf_fini(&c->startup);
        hf_buf_fini(&c->out);
        hf_buf_fini(&c->params);
        hf_pg_scram_fini(&c->scram);
        hf_pg_secret_wipe(&c->secret);
        hf_free(c);
    }
}

const struct hf_pg_connect_result *hf_pg_connect_result(const struct hf_pg_connect *c)
{
    return &c->result;
}

const struct hf_pg_connect_error *hf_pg_connect_error(const struct hf_pg_connect *c)
{
    return &c->error;
}

/* --- ends --- */

/* A text of the server's: cut between characters, without control characters. */
static void take_text(char *to, size_t room, struct hf_slice s)
{
    size_t n = s.n < room - 1 ? s.n : room - 1;
    while (n < s.n && n > 0 && (s.p[n] & 0xc0) == 0x80) {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        to[i] = s.p[i] < 0x20 || s.p[i] == 0x7f ? ' ' : (char)s.p[i];
    }
    to[n] = 0;
}

static void fail(struct hf_pg_connect *c, struct hf_pg_connect_out *out, int code,
                 const char *message)
{
    const char *state = code == -HF_EPROTO                        ? "08P01"
                        : code == -HF_EAUTH || code == -HF_EVALUE ? "28000"
                        : code == -ENOMEM                         ? "53200"
                                                                  : "08006";
    c->error.code = code;
    take_text(c->error.sqlstate, sizeof(c->error.sqlstate), hf_slice_str(state));
    take_text(c->error.message, sizeof(c->error.message), hf_slice_str(message));
    out->act = HF_PG_CONNECT_FAILED;
    enter_state(c, ENDED);
}

static bool is_sqlstate(struct hf_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'A' && s.p[i] <= 'Z'))) {
            return false;
        }
    }
    return s.n == 5;
}

/* An ErrorResponse: it need not have any field (CVE-2026-6666). */
static void refused(struct hf_pg_connect *c, struct hf_slice body, struct hf_pg_connect_out *out)
{
    struct hf_pg_connect_error *e = &c->error;
    struct hf_slice state = hf_pg_error_field(body, 'C');
    struct hf_slice message = hf_pg_error_field(body, 'M');
    bool first = c->state == AUTH && !c->answered && !c->args.second;
    bool tls = c->result.tls;
    fail(c, out, -HF_EAUTH, "the server refused the login without a message");
    e->from_server = true;
    take_text(e->sqlstate, sizeof(e->sqlstate), is_sqlstate(state) ? state : S("08006"));
    if (message.n) {
        take_text(e->message, sizeof(e->message), message);
    }
    take_text(e->detail, sizeof(e->detail), hf_pg_error_field(body, 'D'));
    take_text(e->hint, sizeof(e->hint), hf_pg_error_field(body, 'H'));
    /* as libpq: pg_hba.conf may want it the other way */
    out->again = first && ((c->args.sslmode == HF_PG_SSLMODE_ALLOW && !tls) ||
                           (c->args.sslmode == HF_PG_SSLMODE_PREFER && tls));
}

/* --- before the StartupMessage --- */

static bool wants_tls(const struct hf_pg_connect *c)
{
    switch (c->args.sslmode) {
    case HF_PG_SSLMODE_DISABLE:
        return false;
    case HF_PG_SSLMODE_ALLOW:
        return c->args.second;
    case HF_PG_SSLMODE_PREFER:
        return !c->args.second;
    case HF_PG_SSLMODE_REQUIRE:
    case HF_PG_SSLMODE_VERIFY_CA:
    case HF_PG_SSLMODE_VERIFY_FULL:
        break;
    }
    return true;
}

static void start(struct hf_pg_connect *c)
{
    hf_buf_add(&c->out, hf_buf_slice(&c->startup));
    enter_state(c, AUTH);
}

static void step_open(struct hf_pg_connect *c)
{
    if (c->result.tls || !wants_tls(c)) {
        start(c);
        return;
    }
    hf_pg_put_ssl_request(&c->out);
    enter_state(c, OFFER);
}

/* The one byte that answers SSLRequest. */
static void step_offer(struct hf_pg_connect *c, struct hf_slice bytes,
                       struct hf_pg_connect_out *out)
{
    uint8_t answer = bytes.p[0];
    out->consumed = 1;
    if (answer == 'S' && bytes.n > 1) { /* CVE-2021-23222 */
        fail(c, out, -HF_EPROTO, "received unencrypted data after SSL response");
    } else if (answer == 'S') {
        out->act = HF_PG_CONNECT_START_TLS;
        enter_state(c, HANDSHAKE);
    } else if (answer == 'N' && (c->args.sslmode == HF_PG_SSLMODE_PREFER)) {
        start(c);
    } else if (answer == 'N') {
        fail(c, out, -HF_EVALUE, "server does not support SSL, but SSL was required");
    } else if (answer ==
               'E') { /* its text is anybody's who is between: not shown (CVE-2024-10977) */
        fail(c, out, -HF_EPROTO, "server sent an error response during SSL exchange");
        out->again = c->args.sslmode == HF_PG_SSLMODE_PREFER;
    } else {
        fail(c, out, -HF_EPROTO, "received invalid response to SSL negotiation");
    }
}

static void step_tls(struct hf_pg_connect *c, const struct hf_pg_connect_in *in)
{
    c->result.tls = true;
    if (in->certificate_hash.n && in->certificate_hash.n <= sizeof(c->hash)) {
        memcpy(c->hash, in->certificate_hash.p, in->certificate_hash.n);
        c->n_hash = in->certificate_hash.n;
    }
    if (c->state == HANDSHAKE) {
        start(c);
    }
}

static void step_tls_failed(struct hf_pg_connect *c, const char *why, struct hf_pg_connect_out *out)
{
    char text[256];
    snprintf(text, sizeof(text), "TLS handshake with the server failed%s%s", why ? ": " : "",
             why ? why : "");
    fail(c, out, -HF_ECLOSED, text);
    out->again = c->args.sslmode == HF_PG_SSLMODE_PREFER && !c->args.second;
}

/* --- authentication --- */

/* A PasswordMessage: text and NUL. */
static void put_password(struct hf_pg_connect *c, const char *text)
{
    hf_pg_put_message(&c->out, HF_PG_PASSWORD, hf_slice(text, strlen(text) + 1));
    c->answered = true;
    c->result.logged_in = true;
}

static void answer_cleartext(struct hf_pg_connect *c, struct hf_pg_connect_out *out)
{
    if (c->secret.kind != HF_PG_SECRET_PASSWORD) {
        fail(c, out, -HF_EVALUE, "the server wants a password, and there is none");
    } else if (!c->result.tls && !c->args.cleartext) {
        fail(c, out, -HF_EVALUE,
             "the server wants the password in the clear on a connection without TLS");
    } else {
        put_password(c, c->secret.password);
    }
}

static void answer_md5(struct hf_pg_connect *c, struct hf_rd *r, struct hf_pg_connect_out *out)
{
    uint8_t salt[4];
    char hex[HF_PG_MD5_LEN + 1], answer[3 + HF_PG_MD5_LEN + 1];
    hf_rd_copy(r, salt, sizeof(salt));
    if (hf_rd_end(r)) {
        fail(c, out, -HF_EPROTO, "malformed authentication request of the server");
        return;
    }
    int rc = -HF_EVALUE;
    if (c->secret.kind == HF_PG_SECRET_MD5) {
        rc = hf_pg_md5_answer(c->secret.password, salt, answer);
    } else if (c->secret.kind == HF_PG_SECRET_PASSWORD) {
        rc = hf_pg_md5_secret(hf_slice_str(c->secret.password), hf_slice_str(c->user), hex);
        rc = rc ? rc : hf_pg_md5_answer(hex, salt, answer);
    }
    if (rc) {
        fail(c, out, -HF_EVALUE, "the server wants an MD5 password, and there is none");
        return;
    }
    put_password(c, answer);
}

static void answer_sasl(struct hf_pg_connect *c, struct hf_rd *r, struct hf_pg_connect_out *out)
{
    bool plain = false, plus = false;
    for (struct hf_slice name; (name = hf_pg_rd_cstr(r)).n;) {
        plain |= hf_slice_eq(name, S(HF_PG_SCRAM));
        plus |= hf_slice_eq(name, S(HF_PG_SCRAM_PLUS));
    }
    if (hf_rd_end(r)) {
        fail(c, out, -HF_EPROTO, "malformed authentication request of the server");
        return;
    }
    if (!plain && !(plus && c->n_hash)) {
        fail(c, out, -HF_EVALUE, "the server has no SASL mechanism that is known here");
        return;
    }
    if (c->secret.kind != HF_PG_SECRET_PASSWORD && c->secret.kind != HF_PG_SECRET_CLIENT_KEY) {
        fail(c, out, -HF_EVALUE, "the server wants SCRAM, and there is neither password nor key");
        return;
    }
    hf_pg_scram_fini(&c->scram);
    hf_pg_scram_begin(&c->scram, &c->secret, plus, hf_slice(c->hash, c->n_hash), c->args.nonce);
    size_t mark = hf_pg_put_begin(&c->out, HF_PG_PASSWORD);
    hf_pg_put_cstr(&c->out, c->scram.plus ? S(HF_PG_SCRAM_PLUS) : S(HF_PG_SCRAM));
    size_t len_at = c->out.n;
    hf_pg_put_u32(&c->out, 0);
    hf_pg_scram_hello(&c->scram, &c->out);
    hf_pg_put_end(&c->out, mark);
    if (!c->out.err) { /* the length of the hello, not counting itself */
        uint32_t n = (uint32_t)(c->out.n - len_at - 4);
        const uint8_t be[4] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8),
                               (uint8_t)n};
        memcpy(c->out.p + len_at, be, sizeof(be));
    }
    c->answered = true;
    c->result.logged_in = true;
    c->sasl = SASL_HELLO;
}

static void sasl_failed(struct hf_pg_connect *c, int rc, const char *why,
                        struct hf_pg_connect_out *out)
{
    fail(c, out, rc == -HF_EAUTH || rc == -HF_EPROTO ? rc : -ENOMEM, why);
}

static void answer_continue(struct hf_pg_connect *c, struct hf_slice data,
                            struct hf_pg_connect_out *out)
{
    const char *why = "";
    size_t at = c->out.n;
    size_t mark = hf_pg_put_begin(&c->out, HF_PG_PASSWORD);
    int rc = hf_pg_scram_prove(&c->scram, data, &c->out, &why);
    if (rc) {
        c->out.n = at; /* what was begun */
        sasl_failed(c, rc, why, out);
        return;
    }
    hf_pg_put_end(&c->out, mark);
    c->sasl = SASL_PROVED;
}

static void check_final(struct hf_pg_connect *c, struct hf_slice data,
                        struct hf_pg_connect_out *out)
{
    const char *why = "";
    int rc = hf_pg_scram_check(&c->scram, data, &why);
    if (rc) {
        sasl_failed(c, rc, why, out);
        return;
    }
    c->sasl = SASL_CHECKED;
}

static void step_request(struct hf_pg_connect *c, struct hf_slice body,
                         struct hf_pg_connect_out *out)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    uint32_t code = hf_rd_u32(&r);
    bool in_sasl = code == AUTH_CONTINUE || code == AUTH_FINAL;
    if (r.err || (c->answered && !in_sasl && code != AUTH_OK) ||
        (code == AUTH_CONTINUE && c->sasl != SASL_HELLO) ||
        (code == AUTH_FINAL && c->sasl != SASL_PROVED) || (code == AUTH_OK && hf_rd_left(&r))) {
        fail(c, out, -HF_EPROTO, "authentication requests of the server out of order");
        return;
    }
    switch (code) {
    case AUTH_OK:
        if (c->sasl == SASL_HELLO || c->sasl == SASL_PROVED) {
            /* it would log in without knowing the password: that is not our server */
            fail(c, out, -HF_EAUTH, "the server ended SCRAM without proving itself");
            return;
        }
        enter_state(c, SETTLE);
        return;
    case AUTH_CLEARTEXT:
        answer_cleartext(c, out);
        return;
    case AUTH_MD5:
        answer_md5(c, &r, out);
        return;
    case AUTH_SASL:
        answer_sasl(c, &r, out);
        return;
    case AUTH_CONTINUE:
        answer_continue(c, hf_rd_bytes(&r, hf_rd_left(&r)), out);
        return;
    case AUTH_FINAL:
        check_final(c, hf_rd_bytes(&r, hf_rd_left(&r)), out);
        return;
    default: {
        char text[96];
        snprintf(text, sizeof(text), "authentication method %u of the server is not supported",
                 (unsigned)code);
        fail(c, out, -HF_EVALUE, text);
    }
    }
}

/* NegotiateProtocolVersion: an older minor. Options were not asked for. */
static void step_version(struct hf_pg_connect *c, struct hf_slice body,
                         struct hf_pg_connect_out *out)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    uint32_t version = hf_rd_u32(&r);
    uint32_t n_options = hf_rd_u32(&r);
    if (version >> 16 == 0) { /* some servers send only the minor */
        version |= HF_PG_VERSION_3_0;
    }
    if (r.err || n_options || c->answered || version < HF_PG_VERSION_3_0 || version > c->version) {
        fail(c, out, -HF_EPROTO, "invalid NegotiateProtocolVersion of the server");
        return;
    }
    c->version = version;
}

static void step_auth(struct hf_pg_connect *c, uint8_t type, struct hf_slice body,
                      struct hf_pg_connect_out *out)
{
    if (type == HF_PG_AUTHENTICATION) {
        step_request(c, body, out);
    } else if (type == HF_PG_NEGOTIATE_VERSION) {
        step_version(c, body, out);
    } else {
        fail(c, out, -HF_EPROTO, "expected authentication request from server");
    }
}

/* --- after AuthenticationOk --- */

static void step_status(struct hf_pg_connect *c, struct hf_slice body,
                        struct hf_pg_connect_out *out)
{
    struct hf_slice name, value;
    if (hf_pg_status_read(body, &name, &value) || name.n == 0) {
        fail(c, out, -HF_EPROTO, "malformed ParameterStatus of the server");
        return;
    }
    hf_pg_put_cstr(&c->params, name);
    hf_pg_put_cstr(&c->params, value);
    if (c->params.err == -HF_EFULL) {
        fail(c, out, -HF_EPROTO, "too many parameters of the server");
    }
}

static void step_key(struct hf_pg_connect *c, struct hf_slice body, struct hf_pg_connect_out *out)
{
    struct hf_slice key;
    if (hf_pg_key_read(body, &c->result.pid, &key)) {
        fail(c, out, -HF_EPROTO, "malformed BackendKeyData of the server");
        return;
    }
    memcpy(c->key, key.p, key.n);
    c->result.key = hf_slice(c->key, key.n);
}

static void step_settle(struct hf_pg_connect *c, uint8_t type, struct hf_slice body,
                        struct hf_pg_connect_out *out)
{
    if (type == HF_PG_PARAMETER_STATUS) {
        step_status(c, body, out);
    } else if (type == HF_PG_BACKEND_KEY_DATA) {
        step_key(c, body, out);
    } else if (type == HF_PG_READY && hf_slice_eq(body, S("I"))) {
        c->result.params = hf_buf_slice(&c->params);
        c->result.version = c->version < HF_PG_VERSION_3_2 ? HF_PG_VERSION_3_0 : HF_PG_VERSION_3_2;
        c->result.secret = &c->secret;
        out->act = HF_PG_CONNECT_DONE;
        enter_state(c, ENDED);
    } else {
        fail(c, out, -HF_EPROTO, "unexpected message of the server during startup");
    }
}

/* One message. false: wait for the rest of it. */
static bool step_message(struct hf_pg_connect *c, struct hf_slice bytes,
                         struct hf_pg_connect_out *out)
{
    struct hf_pg_head h = {0};
    int rc = hf_pg_head_read(bytes, &h);
    if (rc == -HF_ETRUNC) {
        return false;
    }
    if (rc || h.body_len > HF_PG_CONNECT_MESSAGE_MAX) {
        fail(c, out, -HF_EPROTO, "not a PostgreSQL server, or a message that is too long");
        return true;
    }
    if (bytes.n - HF_PG_HEAD_LEN < h.body_len) {
        return false;
    }
    size_t n = HF_PG_HEAD_LEN + h.body_len;
    out->consumed += n;
    c->n_bytes += n;
    struct hf_slice body = hf_slice(bytes.p + HF_PG_HEAD_LEN, h.body_len);
    if (c->n_bytes > HF_PG_CONNECT_BYTES_MAX) {
        fail(c, out, -HF_EPROTO, "too many messages of the server during startup");
    } else if (h.type == HF_PG_ERROR) {
        refused(c, body, out);
    } else if (h.type == HF_PG_NOTICE) {
        /* left out: nobody has a session yet to which it could be told */
    } else if (c->state == AUTH) {
        step_auth(c, h.type, body, out);
    } else {
        step_settle(c, h.type, body, out);
    }
    return true;
}

/* --- steps --- */

static void step_bytes(struct hf_pg_connect *c, struct hf_slice bytes,
                       struct hf_pg_connect_out *out)
{
    bool more = true;
    while (more && out->act == HF_PG_CONNECT_WAIT && out->consumed < bytes.n) {
        struct hf_slice left = hf_slice(bytes.p + out->consumed, bytes.n - out->consumed);
        switch (c->state) {
        case OFFER:
            step_offer(c, left, out);
            break;
        case AUTH:
        case SETTLE:
            more = step_message(c, left, out);
            break;
        case BEGIN:
            fail(c, out, -HF_EPROTO, "the server speaks first: not a PostgreSQL server");
            break;
        case HANDSHAKE: /* the driver's */
        case ENDED:
            more = false;
            break;
        }
    }
}

static void step_closed(struct hf_pg_connect *c, const char *why, struct hf_pg_connect_out *out)
{
    char text[256];
    snprintf(text, sizeof(text), "server closed the connection unexpectedly%s%s", why ? ": " : "",
             why ? why : "");
    fail(c, out, -HF_ECLOSED, text);
}

void hf_pg_connect_step(struct hf_pg_connect *c, const struct hf_pg_connect_in *in, hf_time now,
                        struct hf_pg_connect_out *out)
{
    *out = (struct hf_pg_connect_out){0};
    hf_buf_clear(&c->out);
    if (c->state != ENDED && now >= c->args.deadline) {
        fail(c, out, -HF_ETIMEOUT, "timeout during the login to the server");
    }
    switch (c->state == ENDED ? 0 : (int)in->kind) {
    case HF_PG_CONNECT_IN_OPEN:
        if (c->state == BEGIN) {
            step_open(c);
        }
        break;
    case HF_PG_CONNECT_IN_BYTES:
        step_bytes(c, in->bytes, out);
        break;
    case HF_PG_CONNECT_IN_TLS:
        if (c->state == BEGIN || c->state == HANDSHAKE) {
            step_tls(c, in);
        }
        break;
    case HF_PG_CONNECT_IN_TLS_FAILED:
        step_tls_failed(c, in->why, out);
        break;
    case HF_PG_CONNECT_IN_CLOSED:
        step_closed(c, in->why, out);
        break;
    default:
        break;
    }
    if ((c->out.err || c->params.err) && c->error.code == 0) {
        c->state = SETTLE;
        fail(c, out, -ENOMEM, "out of memory");
    }
    if (c->out.err) {
        hf_buf_clear(&c->out);
    }
    out->send = hf_buf_slice(&c->out);
}
