/* core/pg/login: clients played byte by byte, and by core/pg/connect. */
#include "core/pg/login.h"

#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "core/pg/connect.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_pg_hba *hba;
static struct hf_pg_login_conf conf;
static struct hf_pg_login *l;
static struct hf_pg_login_out out;
static struct hf_buf b; /* what the client sends */

static void begin_as(const char *hba_text, struct hf_pg_login_args args)
{
    struct hf_err err;
    assert_int_equal(hf_pg_hba_parse(hf_slice_str(hba_text), "hba", NULL, &err, &hba), 0);
    conf.hba = hba;
    args.conf = &conf;
    args.host = args.local ? "[local]" : "192.0.2.9";
    args.peer = (struct hf_endpoint){.family = HF_AF_INET, .addr = {192, 0, 2, 9}};
    args.deadline = args.deadline ? args.deadline : HF_NEVER;
    memcpy(args.nonce, "abcdefghijklmnopqr", HF_PG_NONCE_LEN);
    memcpy(args.salt, "\1\2\3\4", 4);
    assert_int_equal(hf_pg_login_create(&args, &l), 0);
}

static void begin(const char *hba_text)
{
    begin_as(hba_text, (struct hf_pg_login_args){0});
}

static int setup(void **state)
{
    (void)state;
    conf = (struct hf_pg_login_conf){.tls = HF_PG_LOGIN_TLS_OFFERED, .key = {9}};
    hf_buf_init(&b, 65536);
    l = NULL;
    hba = NULL;
    return 0;
}

static void end(void)
{
    hf_pg_login_destroy(l);
    hf_pg_hba_destroy(hba);
    l = NULL;
    hba = NULL;
    hf_buf_clear(&b);
}

static int teardown(void **state)
{
    (void)state;
    end();
    hf_buf_fini(&b);
    return 0;
}

static void step(struct hf_pg_login_in in)
{
    hf_pg_login_step(l, &in, 1, &out);
}

/* Give b, from a heap buffer of exactly its size, and drop what was consumed. */
static void give(void)
{
    uint8_t *p = malloc(b.n ? b.n : 1);
    memcpy(p, b.p ? b.p : (const uint8_t *)"", b.n);
    step((struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_BYTES, .bytes = hf_slice(p, b.n)});
    free(p);
    hf_buf_consume(&b, out.consumed);
}

/* A StartupMessage: names and values, NULL. */
static void put_start(uint32_t version, const char *const *params)
{
    size_t mark = hf_pg_put_begin(&b, 0);
    hf_pg_put_u32(&b, version);
    for (; *params; params++) {
        hf_pg_put_cstr(&b, hf_slice_str(*params));
    }
    hf_pg_put_u8(&b, 0);
    hf_pg_put_end(&b, mark);
}
#define START(...) put_start(HF_PG_VERSION_3_0, (const char *const[]){__VA_ARGS__, NULL})

static void secret(const char *text)
{
    struct hf_pg_secret s;
    if (text) {
        assert_int_equal(hf_pg_secret_parse(hf_slice_str(text), &s), 0);
    }
    step((struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_SECRET, .secret = text ? &s : NULL});
}

static void password(const char *text)
{
    hf_pg_put_message(&b, HF_PG_PASSWORD, hf_slice(text, strlen(text) + 1));
    give();
}

/* The last message sent is this ErrorResponse, and the login is over. */
static void assert_refused(const char *sqlstate, const char *message)
{
    assert_int_equal(out.act, HF_PG_LOGIN_REFUSED);
    struct hf_slice s = out.send;
    struct hf_pg_head h;
    while (hf_pg_head_read(s, &h) == 0 && h.type != HF_PG_ERROR) {
        s = hf_slice(s.p + HF_PG_HEAD_LEN + h.body_len, s.n - HF_PG_HEAD_LEN - h.body_len);
    }
    assert_int_equal(h.type, HF_PG_ERROR);
    struct hf_slice body = hf_slice(s.p + HF_PG_HEAD_LEN, h.body_len);
    hf_assert_slice_str(hf_pg_error_field(body, 'S'), "FATAL");
    hf_assert_slice_str(hf_pg_error_field(body, 'C'), sqlstate);
    hf_assert_slice_str(hf_pg_error_field(body, 'M'), message);
    assert_string_equal(out.sqlstate, sqlstate);
    give(); /* nothing more, whatever comes */
    assert_int_equal(out.send.n, 0);
    assert_int_equal(out.act, HF_PG_LOGIN_WAIT);
}

#define OK "R\0\0\0\10\0\0\0\0"
static void assert_done(void)
{
    assert_int_equal(out.act, HF_PG_LOGIN_DONE);
    assert_true(out.send.n >= 9 && memcmp(out.send.p + out.send.n - 9, OK, 9) == 0);
}

static void trusted(void **state)
{
    (void)state;
    begin("host all all all trust");
    START("user", "ann", "search_path", "evil", "replication", "off", "options", "-c a=b");
    size_t n = b.n;
    struct hf_buf whole = b;
    for (size_t len = 0; len < n; len++) { /* cut at each length: nothing is taken */
        uint8_t *p = malloc(len ? len : 1);
        memcpy(p, whole.p, len);
        step((struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_BYTES, .bytes = hf_slice(p, len)});
        assert_int_equal(out.act, HF_PG_LOGIN_WAIT);
        assert_int_equal(out.consumed, 0);
        free(p);
    }
    hf_pg_put_query(&b, S("SELECT 1")); /* of the session */
    give();
    assert_done();
    assert_int_equal(out.consumed, n);
    assert_int_equal(b.p[0], 'Q');
    const struct hf_pg_login_result *r = hf_pg_login_result(l);
    hf_assert_slice_str(r->user, "ann");
    hf_assert_slice_str(r->database, "ann");
    assert_int_equal(r->replication, HF_PG_REPLICATION_NO);
    assert_int_equal(r->params.n, sizeof("search_path\0evil\0options\0-c a=b"));
    assert_int_equal(r->version, HF_PG_VERSION_3_0);
    assert_int_equal(r->secret->kind, HF_PG_SECRET_NONE);
    assert_int_equal(r->method, HF_PG_AUTH_TRUST);
}

static void versions(void **state)
{
    (void)state;
    begin("host all all all trust");
    put_start(HF_PG_VERSION_3_2, (const char *const[]){"user", "a", NULL});
    give();
    assert_done();
    assert_int_equal(out.send.n, 9);
    assert_int_equal(hf_pg_login_result(l)->version, HF_PG_VERSION_3_2);
    end();
    begin("host all all all trust");
    put_start(0x0003270f, (const char *const[]){"user", "a", "_pq_.x", "1", "_pq_.y", "", NULL});
    give();
    assert_done();
    static const char v[] = "v\0\0\0\32\0\3\0\2\0\0\0\2_pq_.x\0_pq_.y\0" OK;
    assert_int_equal(out.send.n, sizeof(v) - 1);
    assert_memory_equal(out.send.p, v, sizeof(v) - 1);
    assert_int_equal(hf_pg_login_result(l)->params.n, 0);
    assert_int_equal(hf_pg_login_result(l)->version, HF_PG_VERSION_3_2);
    end();
    begin("host all all all trust");
    START("user", "a", "_pq_.x", "1");
    give();
    assert_done();
    assert_memory_equal(out.send.p, "v\0\0\0\23\0\3\0\0\0\0\0\1_pq_.x\0", 20);
    end();
    begin("host all all all trust");
    put_start(0x00020000, (const char *const[]){NULL});
    give();
    assert_refused("0A000", "unsupported frontend protocol 2.0: server supports 3.0 to 3.2");
    end();
    begin("host all all all trust"); /* names without end: an answer that is bounded */
    size_t mark = hf_pg_put_begin(&b, 0);
    hf_pg_put_u32(&b, HF_PG_VERSION_3_0);
    hf_buf_str(&b, "user");
    hf_buf_add(&b, S("\0a\0"));
    while (b.n + 10 < HF_PG_STARTUP_MAX) {
        hf_buf_add(&b, S("_pq_.\0\0"));
    }
    hf_pg_put_u8(&b, 0);
    hf_pg_put_end(&b, mark);
    give();
    assert_done();
}

static void bad_starts(void **state)
{
    (void)state;
    static const struct {
        const char *p;
        size_t n;
        const char *state, *message;
    } bad[] = {
        {"\0\0\0\11\0\3\0\0\0", 9, "28000", "no PostgreSQL user name specified in startup packet"},
        {"\0\0\0\12\0\3\0\0a\0", 10, "08P01",
         "invalid startup packet layout: expected terminator as last byte"},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        begin("host all all all trust");
        hf_buf_add(&b, hf_slice(bad[i].p, bad[i].n));
        give();
        assert_refused(bad[i].state, bad[i].message);
        end();
    }
    begin("host all all all trust");
    hf_buf_str(&b, "GET / HTTP/1.1\r\n");
    give();
    assert_int_equal(out.act, HF_PG_LOGIN_REFUSED); /* without a word */
    assert_int_equal(out.send.n, 0);
    end();
    begin("host all all all trust");
    START("user", "a", "replication", "perhaps");
    give();
    assert_refused("22023", "invalid value for parameter \"replication\"");
    end();
    begin("host all all all trust");
    char big[100];
    snprintf(big, sizeof(big), "%080d", 1);
    START("user", big);
    give();
    assert_done();
    assert_int_equal(hf_pg_login_result(l)->user.n, HF_PG_NAME_MAX);
}

static void by_hba(void **state)
{
    (void)state;
    begin("host a b all trust\nhost all x all reject\nhost replication r all trust");
    START("user", "u", "database", "d");
    give();
    assert_refused("28000", "no pg_hba.conf entry for host \"192.0.2.9\", user \"u\", database "
                            "\"d\", no encryption");
    end();
    begin("host a b all trust\nhost all x all reject\nhost replication r all trust");
    START("user", "x");
    give();
    assert_refused("28000", "pg_hba.conf rejects connection for host \"192.0.2.9\", user \"x\", "
                            "database \"x\", no encryption");
    end();
    begin("host all all all trust");
    START("user", "u", "replication", "yes");
    give();
    assert_refused("28000", "no pg_hba.conf entry for replication connection from host "
                            "\"192.0.2.9\", user \"u\", no encryption");
    end();
    begin("host replication all all trust");
    START("user", "u", "database", "d", "replication", "TRUE");
    give();
    assert_done();
    assert_int_equal(hf_pg_login_result(l)->replication, HF_PG_REPLICATION_PHYSICAL);
    assert_int_equal(hf_pg_login_result(l)->database.n, 0);
    end();
    begin("host d all all trust");
    START("user", "u", "database", "d", "replication", "database");
    give();
    assert_done();
    assert_int_equal(hf_pg_login_result(l)->replication, HF_PG_REPLICATION_LOGICAL);
    end();
    conf.tls = HF_PG_LOGIN_TLS_REQUIRED;
    begin("host all all all trust");
    START("user", "u");
    give();
    assert_refused("28000", "SSL required");
}

static const struct hf_pg_login_in tls_in = {.kind = HF_PG_LOGIN_IN_TLS,
                                             .certificate_hash = {(const uint8_t *)"cert", 4}};

static void tls(void **state)
{
    (void)state;
    begin("hostssl all all all trust");
    hf_buf_add(&b, S("\0\0\0\10\4\322\26\60")); /* GSSENCRequest, and SSLRequest behind it */
    hf_pg_put_ssl_request(&b);
    give();
    assert_int_equal(out.act, HF_PG_LOGIN_START_TLS);
    hf_assert_slice_str(out.send, "NS");
    assert_int_equal(out.consumed, 16);
    step(tls_in);
    START("user", "u");
    give();
    assert_done();
    assert_true(hf_pg_login_result(l)->tls);
    end();
    begin("hostssl all all all trust"); /* somebody put bytes behind the request */
    hf_pg_put_ssl_request(&b);
    START("user", "u");
    give();
    assert_refused("08P01", "received unencrypted data after SSL request");
    end();
    begin("hostssl all all all trust"); /* TLS in TLS */
    step(tls_in);
    hf_pg_put_ssl_request(&b);
    give();
    assert_refused("0A000", "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2");
    end();
    conf.tls = HF_PG_LOGIN_TLS_NO; /* refused once, then without; not asked for ever */
    begin("host all all all trust");
    hf_pg_put_ssl_request(&b);
    give();
    hf_assert_slice_str(out.send, "N");
    hf_pg_put_ssl_request(&b);
    give();
    assert_refused("0A000", "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2");
    end();
    conf.tls = HF_PG_LOGIN_TLS_REQUIRED;
    begin_as("local all all trust", (struct hf_pg_login_args){.local = true});
    hf_pg_put_ssl_request(&b);
    START("user", "u");
    give();
    assert_done();
    assert_int_equal(out.send.p[0], 'N');
}

static void certificates(void **state)
{
    (void)state;
    static const struct {
        const char *line, *cn, *dn, *message; /* NULL: in */
    } cases[] = {
        {"cert", "u", "CN=u", NULL},
        {"cert", "v", "CN=v", "certificate authentication failed for user \"u\""},
        {"cert", NULL, NULL, "connection requires a valid client certificate"},
        {"cert", "", "O=x", "certificate authentication failed for user \"u\""},
        {"cert clientname=DN map=m", "v", "CN=v,O=x", NULL},
        {"cert clientname=DN map=m", "v", "CN=v,O=y",
         "certificate authentication failed for user \"u\""},
        {"trust clientcert=verify-ca", "v", "CN=v", NULL},
        {"trust clientcert=verify-full", "v", "CN=v",
         "certificate authentication failed for user \"u\""},
        {"trust clientcert=verify-full", "u", "CN=u", NULL},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(cases); i++) {
        char text[128];
        snprintf(text, sizeof(text), "hostssl all all all %s", cases[i].line);
        begin(text);
        struct hf_err err;
        assert_int_equal(hf_pg_hba_add_ident(hba, S("m \"CN=v,O=x\" u"), "ident", &err), 0);
        struct hf_pg_login_in in = tls_in;
        in.cn = cases[i].cn ? hf_slice_str(cases[i].cn) : hf_slice(NULL, 0);
        in.dn = cases[i].dn ? hf_slice_str(cases[i].dn) : hf_slice(NULL, 0);
        step(in);
        START("user", "u");
        give();
        if (cases[i].message) {
            assert_refused("28000", cases[i].message);
        } else {
            assert_done();
        }
        end();
    }
    begin("hostssl all all all cert"); /* a name with a zero in it is not the name before it */
    struct hf_pg_login_in in = tls_in;
    in.cn = S("u\0.example.com");
    step(in);
    START("user", "u");
    give();
    assert_refused("28000", "certificate authentication failed for user \"u\"");
    end();
    begin_as("local all all peer", (struct hf_pg_login_args){.local = true, .peer_user = "u"});
    START("user", "u");
    give();
    assert_done();
    hf_assert_slice_str(hf_pg_login_result(l)->identity, "u");
    end();
    begin_as("local all all peer", (struct hf_pg_login_args){.local = true});
    START("user", "u");
    give();
    assert_refused("28000", "Peer authentication failed for user \"u\"");
}

static void need_secret(const char *hba_text)
{
    begin(hba_text);
    START("user", "ann");
    give();
    assert_int_equal(out.act, HF_PG_LOGIN_NEED_SECRET);
    hf_assert_slice_str(hf_pg_login_result(l)->user, "ann");
}

static void passwords(void **state)
{
    (void)state;
    char hex[HF_PG_MD5_LEN + 1], md5[64],
        verifier[] = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
                     "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
                     "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="; /* pencil, RFC 7677 */
    assert_int_equal(hf_pg_md5_secret(S("pencil"), S("ann"), hex), 0);
    snprintf(md5, sizeof(md5), "md5%s", hex);
    const char *const secrets[] = {"pencil", md5, verifier, NULL};
    for (size_t i = 0; i < HF_ARRAY_LEN(secrets); i++) {
        for (int right = 0; right < 2; right++) {
            need_secret("host all all all password");
            secret(secrets[i]);
            assert_int_equal(out.send.n, 9);
            assert_memory_equal(out.send.p, "R\0\0\0\10\0\0\0\3", 9);
            password(right ? "pencil" : "pencils");
            if (right && secrets[i]) {
                assert_done();
                assert_int_equal(hf_pg_login_result(l)->secret->kind, HF_PG_SECRET_PASSWORD);
                assert_string_equal(hf_pg_login_result(l)->secret->password, "pencil");
            } else {
                assert_refused("28P01", "password authentication failed for user \"ann\"");
            }
            end();
        }
    }
    need_secret("host all all all password");
    secret("pencil");
    password("");
    assert_refused("28P01", "empty password returned by client");
    end();
    need_secret("host all all all password");
    secret("pencil");
    hf_pg_put_message(&b, HF_PG_PASSWORD, S("pencil"));
    give();
    assert_refused("08P01", "invalid password packet size");
    end();
    need_secret("host all all all password");
    secret("pencil");
    hf_pg_put_query(&b, S("SELECT 1"));
    give();
    assert_refused("08P01", "expected password response, got message type 81");
    end();
    need_secret("host all all all password");
    secret("pencil");
    hf_buf_add(&b, S("p\0\1\0\0"));
    give();
    assert_refused("08P01", "invalid message length");
    end();
    char big[HF_PG_PASSWORD_MAX + 2]; /* one byte too many is not cut off */
    memset(big, 'x', sizeof(big));
    big[HF_PG_PASSWORD_MAX] = 0;
    need_secret("host all all all password");
    secret(big);
    big[HF_PG_PASSWORD_MAX] = 'x';
    big[HF_PG_PASSWORD_MAX + 1] = 0;
    password(big);
    assert_refused("28P01", "password authentication failed for user \"ann\"");
}

static void md5_answers(void **state)
{
    (void)state;
    char hex[HF_PG_MD5_LEN + 1], stored[64], answer[64];
    assert_int_equal(hf_pg_md5_secret(S("pencil"), S("ann"), hex), 0);
    assert_int_equal(hf_pg_md5_answer(hex, (const uint8_t *)"\1\2\3\4", answer), 0);
    snprintf(stored, sizeof(stored), "md5%s", hex);
    conf.md5_for_unknown = true;
    const char *const secrets[] = {"pencil", stored, NULL};
    for (size_t i = 0; i < HF_ARRAY_LEN(secrets); i++) {
        for (int right = 0; right < 2; right++) {
            need_secret("host all all all md5");
            secret(secrets[i]);
            assert_int_equal(out.send.n, 13);
            assert_memory_equal(out.send.p, "R\0\0\0\14\0\0\0\5\1\2\3\4", 13);
            password(right ? answer : "md5");
            if (right && secrets[i]) {
                assert_done();
                assert_int_equal(hf_pg_login_result(l)->secret->kind,
                                 i ? HF_PG_SECRET_MD5 : HF_PG_SECRET_PASSWORD);
            } else {
                assert_refused("28P01", "password authentication failed for user \"ann\"");
            }
            end();
        }
    }
}

/* Login against connect: what the client side ends with; 1 done, 0 refused. */
static int pair(const char *client_secret, const char *stored, bool with_tls,
                struct hf_pg_secret *use)
{
    struct hf_pg_secret s;
    if (client_secret) {
        assert_int_equal(hf_pg_secret_parse(hf_slice_str(client_secret), &s), 0);
        use = &s;
    }
    struct hf_pg_connect *c;
    struct hf_pg_connect_args args = {
        .user = S("ann"), .secret = use, .deadline = HF_NEVER, .nonce = "ABCDEFGHIJKLMNOPQ"};
    assert_int_equal(hf_pg_connect_create(&args, &c), 0);
    struct hf_pg_connect_in in = {.kind = HF_PG_CONNECT_IN_TLS, .certificate_hash = S("cert")};
    struct hf_pg_connect_out co;
    if (with_tls) {
        hf_pg_connect_step(c, &in, 1, &co);
        step(tls_in);
    }
    in = (struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_OPEN};
    hf_pg_connect_step(c, &in, 1, &co);
    int rc = -1;
    for (int i = 0; i < 10 && rc < 0; i++) {
        hf_buf_clear(&b);
        hf_buf_add(&b, co.send);
        give();
        if (out.act == HF_PG_LOGIN_NEED_SECRET) {
            secret(stored);
        }
        rc = out.act == HF_PG_LOGIN_DONE ? 1 : out.act == HF_PG_LOGIN_REFUSED ? 0 : -1;
        in = (struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_BYTES, .bytes = out.send};
        hf_pg_connect_step(c, &in, 1, &co);
        assert_int_equal(co.act, rc == 0 ? HF_PG_CONNECT_FAILED : HF_PG_CONNECT_WAIT);
    }
    if (rc == 0) {
        assert_string_equal(hf_pg_connect_error(c)->sqlstate, "28P01");
        assert_string_equal(hf_pg_connect_error(c)->message,
                            "password authentication failed for user \"ann\"");
    }
    hf_pg_connect_destroy(c);
    return rc;
}

static void scram(void **state)
{
    (void)state;
    struct hf_pg_verifier v;
    static const char stored[] =
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    assert_int_equal(hf_pg_verifier_parse(S(stored), &v), 0);
    struct hf_pg_secret learnt;
    for (int t = 0; t < 2; t++) {
        begin("host all all all scram-sha-256");
        assert_int_equal(pair("pencil", stored, t, NULL), 1);
        learnt = *hf_pg_login_result(l)->secret;
        assert_int_equal(learnt.kind, HF_PG_SECRET_CLIENT_KEY);
        assert_int_equal(hf_pg_login_result(l)->tls, t);
        end();
        begin("host all all all md5"); /* SCRAM for who has a verifier; with the key learnt */
        assert_int_equal(pair(NULL, stored, t, &learnt), 1);
        end();
        begin("host all all all scram-sha-256");
        assert_int_equal(pair("pencil", "pencil", t, NULL), 1);
        assert_int_equal(hf_pg_login_result(l)->secret->kind, HF_PG_SECRET_PASSWORD);
        end();
        static const char *const bad[] = {NULL, "pen", "md5b2f1d9a1d5c2d8c6c0e6c7f1e2d3a4b5"};
        begin("host all all all scram-sha-256"); /* an empty password is none */
        struct hf_pg_secret empty = {.kind = HF_PG_SECRET_PASSWORD};
        assert_int_equal(pair(NULL, "", t, &empty), 0);
        end();
        for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
            begin("host all all all scram-sha-256");
            assert_int_equal(pair("pencil", bad[i], t, NULL), 0);
            end();
        }
    }
    begin("host all all all scram-sha-256");
    assert_int_equal(pair("pencil", stored, false, NULL), 1);
    end();
}

/* Who is not known sees what others see, message by message, until the end. */
static void unknown_users(void **state)
{
    (void)state;
    static const char first[] =
        "p\0\0\0\66SCRAM-SHA-256\0\0\0\0\40n,,n=,r=012345678901234567890123";
    size_t n[2];
    for (int known = 0; known < 2; known++) {
        need_secret("host all all all scram-sha-256");
        secret(known ? "pencil" : NULL);
        n[known] = out.send.n;
        assert_memory_equal(out.send.p, "R\0\0\0\27\0\0\0\12SCRAM-SHA-256\0\0", 24);
        hf_buf_add(&b, S(first));
        give();
        assert_int_equal(out.act, HF_PG_LOGIN_WAIT);
        n[known] = n[known] * 1000 + out.send.n;
        char final[256];
        struct hf_slice challenge = hf_slice(out.send.p + 9, out.send.n - 9);
        assert_memory_equal(challenge.p, "r=", 2);
        const uint8_t *comma = memchr(challenge.p, ',', challenge.n);
        snprintf(final, sizeof(final), "c=biws,%.*s,p=%043d=", (int)(comma - challenge.p),
                 (const char *)challenge.p, 0);
        hf_pg_put_message(&b, HF_PG_PASSWORD, hf_slice_str(final));
        give();
        assert_refused("28P01", "password authentication failed for user \"ann\"");
        end();
    }
    assert_int_equal(n[0], n[1]);
}

static void bad_sasl(void **state)
{
    (void)state;
    static const struct {
        const char *p;
        size_t n;
        const char *message;
    } bad[] = {
        {"SCRAM-SHA-256", 13, "malformed SASLInitialResponse message"},
        {"SCRAM-SHA-256\0\0\0\0\5abc", 21, "malformed SASLInitialResponse message"},
        {"SCRAM-SHA-256\0\377\377\377\377", 18, "malformed SASLInitialResponse message"},
        {"SCRAM-SHA-1\0\0\0\0\0", 16, "client selected an invalid SASL authentication mechanism"},
        {"SCRAM-SHA-256-PLUS\0\0\0\0\0", 23,
         "client selected an invalid SASL authentication mechanism"},
        {"SCRAM-SHA-256\0\0\0\0\4n,,n", 22,
         "malformed SCRAM message: attributes missing or out of order"},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        need_secret("host all all all scram-sha-256");
        secret("pencil");
        hf_pg_put_message(&b, HF_PG_PASSWORD, hf_slice(bad[i].p, bad[i].n));
        give();
        assert_refused("08P01", bad[i].message);
        end();
    }
}

static void other_ends(void **state)
{
    (void)state;
    begin("host all all all trust");
    hf_pg_put_cancel(&b, 77, S("key4"));
    struct hf_slice sent = hf_buf_slice(&b);
    step((struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_BYTES, .bytes = sent});
    assert_int_equal(out.act, HF_PG_LOGIN_CANCEL);
    assert_int_equal(out.pid, 77);
    hf_assert_slice_str(out.key, "key4");
    assert_int_equal(out.send.n, 0);
    end();
    need_secret("host all all all scram-sha-256");
    step((struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_NO_ANSWER, .why = "no server"});
    assert_refused("57P03", "cannot look up the user's secret now");
    end();
    begin_as("host all all all trust", (struct hf_pg_login_args){.deadline = HF_S(60)});
    const struct hf_pg_login_in timer = {.kind = HF_PG_LOGIN_IN_TIMER};
    hf_pg_login_step(l, &timer, HF_S(60) - 1, &out);
    assert_int_equal(out.act, HF_PG_LOGIN_WAIT);
    hf_pg_login_step(l, &timer, HF_S(60), &out);
    assert_refused("57014", "canceling authentication due to timeout");
}

/* A whole login with the nth allocation failing: refused, never in. */
static void no_memory(void **state)
{
    (void)state;
    for (int64_t n = 0; n < 12; n++) {
        begin("host all all all password");
        START("user", "ann", "application_name", "x");
        uint8_t bytes[256];
        size_t len = b.n;
        memcpy(bytes, b.p, len);
        hf_mem_fail_after(n);
        step((struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_BYTES, .bytes = hf_slice(bytes, len)});
        hf_mem_fail_after(-1);
        assert_true(out.act == HF_PG_LOGIN_REFUSED || out.act == HF_PG_LOGIN_NEED_SECRET);
        end();
    }
}

#define ROW(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(trusted),    ROW(versions),    ROW(bad_starts),   ROW(by_hba),        ROW(tls),
        ROW(passwords),  ROW(md5_answers), ROW(scram),        ROW(unknown_users), ROW(bad_sasl),
        ROW(other_ends), ROW(no_memory),   ROW(certificates),
    };
    return cmocka_run_group_tests_name("core/pg/login", tests, NULL, NULL);
}
