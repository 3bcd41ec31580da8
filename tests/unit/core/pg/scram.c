/* core/pg/scram: the vectors of RFC 7677 and of PostgreSQL, both roles against each other, and
 * messages that lie. */
#include "core/pg/scram.h"

#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static const uint8_t nonce_a[HF_PG_NONCE_LEN] = "abcdefghijklmnopqr";
static const uint8_t nonce_b[HF_PG_NONCE_LEN] = "ABCDEFGHIJKLMNOPQR";
static const uint8_t salt16[16] = "0123456789abcdef";
static const char *why;

static struct hf_slice text(const char *s)
{
    return hf_slice_str(s);
}

static struct hf_pg_verifier verifier_of(const char *password)
{
    struct hf_pg_verifier v;
    assert_int_equal(hf_pg_verifier_make(text(password), hf_slice(salt16, 16), 4096, &v), 0);
    return v;
}

static struct hf_pg_secret password(const char *p)
{
    struct hf_pg_secret s;
    assert_int_equal(hf_pg_secret_parse(text(p), &s), 0);
    assert_int_equal(s.kind, HF_PG_SECRET_PASSWORD);
    return s;
}

/* RFC 7677 3: user "user", password "pencil". */
#define RFC_CLIENT "rOprNGfwEbeRWgbNEkqO"
#define RFC_SERVER "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define RFC_SALT "W22ZaJ0SNY7soEsUEjb6gQ=="
#define RFC_FIRST "n,,n=user,r=" RFC_CLIENT
#define RFC_CHALLENGE "r=" RFC_CLIENT RFC_SERVER ",s=" RFC_SALT ",i=4096"
#define RFC_FINAL                                                                                  \
    "c=biws,r=" RFC_CLIENT RFC_SERVER ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define RFC_END "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static void set_nonce(struct hf_pg_scram *s, const char *own)
{
    s->n_own = (uint8_t)strlen(own);
    memcpy(s->own, own, s->n_own);
}

static void rfc_7677_server(void **state)
{
    (void)state;
    static const uint8_t salt[16] = {0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e,
                                     0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81};
    struct hf_pg_verifier v;
    assert_int_equal(hf_pg_verifier_make(S("pencil"), hf_slice(salt, 16), 4096, &v), 0);
    struct hf_pg_scram s;
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_pg_scram_serve(&s, &v, hf_slice(NULL, 0), nonce_a);
    set_nonce(&s, RFC_SERVER);
    assert_int_equal(hf_pg_scram_first(&s, S(HF_PG_SCRAM), S(RFC_FIRST), &b, &why), 0);
    hf_assert_slice_str(hf_buf_slice(&b), RFC_CHALLENGE);
    hf_buf_clear(&b);
    uint8_t key[HF_PG_KEY_LEN];
    assert_int_equal(hf_pg_scram_final(&s, S(RFC_FINAL), &b, key, &why), 0);
    hf_assert_slice_str(hf_buf_slice(&b), RFC_END);
    hf_pg_scram_fini(&s);
    hf_buf_fini(&b);
}

static void rfc_7677_client(void **state)
{
    (void)state;
    struct hf_pg_secret secret = password("pencil");
    struct hf_pg_scram s;
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_pg_scram_begin(&s, &secret, false, hf_slice(NULL, 0), nonce_a);
    set_nonce(&s, RFC_CLIENT);
    hf_buf_str(&s.messages, "n=user,r=" RFC_CLIENT); /* PostgreSQL's clients leave the name out */
    assert_int_equal(hf_pg_scram_prove(&s, S(RFC_CHALLENGE), &b, &why), 0);
    hf_assert_slice_str(hf_buf_slice(&b), RFC_FINAL);
    assert_int_equal(hf_pg_scram_check(&s, S(RFC_END), &why), 0);
    assert_int_equal(
        hf_pg_scram_check(&s, S("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="), &why),
        -HF_EPROTO); /* bits left over */
    assert_int_equal(
        hf_pg_scram_check(&s, S("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), &why),
        -HF_EAUTH);
    assert_int_equal(hf_pg_scram_check(&s, S("e=other-error"), &why), -HF_EAUTH);
    assert_int_equal(hf_pg_scram_check(&s, S("v="), &why), -HF_EPROTO);
    assert_int_equal(hf_pg_scram_check(&s, S(RFC_END ",x=y"), &why), -HF_EPROTO);
    hf_pg_scram_fini(&s);
    hf_buf_fini(&b);
}

/* One exchange: what the server finds; the messages of the last one are in `wire`. */
static char wire[4][512];
static int exchange(const struct hf_pg_verifier *v, struct hf_pg_secret *secret, bool plus,
                    struct hf_slice client_hash, struct hf_slice server_hash,
                    uint8_t ret_key[HF_PG_KEY_LEN])
{
    struct hf_pg_scram c, s;
    struct hf_buf b[4];
    for (int i = 0; i < 4; i++) {
        hf_buf_init(&b[i], 2048);
    }
    hf_pg_scram_serve(&s, v, server_hash, nonce_b);
    hf_pg_scram_begin(&c, secret, plus, client_hash, nonce_a);
    hf_pg_scram_hello(&c, &b[0]);
    int rc = hf_pg_scram_first(&s, text(c.plus ? HF_PG_SCRAM_PLUS : HF_PG_SCRAM),
                               hf_buf_slice(&b[0]), &b[1], &why);
    rc = rc ? rc : hf_pg_scram_prove(&c, hf_buf_slice(&b[1]), &b[2], &why);
    rc = rc ? rc : hf_pg_scram_final(&s, hf_buf_slice(&b[2]), &b[3], ret_key, &why);
    rc = rc ? rc : hf_pg_scram_check(&c, hf_buf_slice(&b[3]), &why);
    for (int i = 0; i < 4; i++) {
        snprintf(wire[i], sizeof(wire[i]), "%.*s", HF_SLICE_FMT(hf_buf_slice(&b[i])));
        hf_buf_fini(&b[i]);
    }
    hf_pg_scram_fini(&c);
    hf_pg_scram_fini(&s);
    return rc;
}

static void both_roles(void **state)
{
    (void)state;
    const struct hf_slice none = {0}, h = S("hash of a certificate"), other = S("another hash");
    uint8_t key[HF_PG_KEY_LEN];
    struct hf_pg_verifier v = verifier_of("s3cret");
    struct hf_pg_secret good = password("s3cret"), bad = password("s3cre");
    assert_int_equal(exchange(&v, &good, false, none, none, key), 0);
    assert_true(strncmp(wire[0], "n,,n=,r=YWJj", 12) == 0);
    assert_true(good.derived);
    assert_int_equal(exchange(&v, &good, true, h, h, key), 0);
    assert_true(strncmp(wire[0], "p=tls-server-end-point,,n=,r=", 29) == 0);
    assert_int_equal(exchange(&v, &bad, false, none, none, key), -HF_EAUTH);
    assert_int_equal(exchange(&v, &good, true, h, other, key), -HF_EAUTH);
    assert_string_equal(why, "SCRAM channel binding check failed");
    /* -PLUS taken out of the list by somebody between them */
    assert_int_equal(exchange(&v, &good, false, h, h, key), -HF_EPROTO);
    assert_string_equal(why, "SCRAM channel binding negotiation error");
    /* a client that can't bind */
    assert_int_equal(exchange(&v, &good, false, none, h, key), 0);
    /* TLS ends before the server: y is right */
    assert_int_equal(exchange(&v, &good, false, h, none, key), 0);
    assert_int_equal(exchange(&v, &good, true, h, none, key), -HF_EPROTO);
    hf_pg_secret_wipe(&good);
    assert_string_equal(good.password, "");
}

/* What a client proved to have logs in where the verifier is the same, and nowhere else. */
static void the_client_key_learnt(void **state)
{
    (void)state;
    const struct hf_slice none = {0};
    uint8_t key[HF_PG_KEY_LEN], again[HF_PG_KEY_LEN];
    struct hf_pg_verifier v = verifier_of("s3cret");
    struct hf_pg_secret secret = password("s3cret");
    assert_int_equal(exchange(&v, &secret, false, none, none, key), 0);
    struct hf_pg_secret learnt = {.kind = HF_PG_SECRET_CLIENT_KEY, .verifier = v};
    memcpy(learnt.client_key, key, sizeof(key));
    assert_int_equal(exchange(&v, &learnt, false, none, none, again), 0);
    assert_memory_equal(key, again, sizeof(key));
    struct hf_pg_verifier changed;
    assert_int_equal(hf_pg_verifier_make(S("s3cret"), S("fedcba9876543210"), 4096, &changed), 0);
    assert_int_equal(exchange(&changed, &learnt, false, none, none, again), -HF_EAUTH);
    assert_int_equal(hf_pg_verifier_make(S("s3cret"), hf_slice(salt16, 16), 4097, &changed), 0);
    assert_int_equal(exchange(&changed, &learnt, false, none, none, again), -HF_EAUTH);
    /* a password follows */
    assert_int_equal(exchange(&changed, &secret, false, none, none, again), 0);
    assert_memory_not_equal(key, again, sizeof(key));
}

static void verifiers(void **state)
{
    (void)state;
    /* made by another implementation for the password "secret" */
    static const char pg[] =
        "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$"
        "Ce3wZiZ+yIBCjltccfRiqM0+XDsLE3qPdkEeZKe3hus=:k3q4nlLsA09ST5FLo9zNmfyXR+Ci1J4KmBK5JRVSxeI=";
    struct hf_pg_verifier v;
    assert_int_equal(hf_pg_verifier_parse(S(pg), &v), 0);
    assert_int_equal(v.iterations, 4096);
    assert_int_equal(v.n_salt, 16);
    struct hf_pg_verifier made;
    assert_int_equal(hf_pg_verifier_make(S("secret"), S("saltsaltsaltsalt"), 4096, &made), 0);
    assert_memory_equal(&made, &v, sizeof(v));
    for (size_t n = 0; n < sizeof(pg) - 1; n++) {
        uint8_t *p = malloc(n + 1);
        memcpy(p, pg, n);
        assert_int_equal(hf_pg_verifier_parse(hf_slice(p, n), &v), -HF_EVALUE);
        free(p);
    }
    static const char *const bad[] = {"SCRAM-SHA-1$4096:c2FsdA==$",
                                      "SCRAM-SHA-256$0:c2FsdA==$",
                                      "SCRAM-SHA-256$-1:c2FsdA==$",
                                      "SCRAM-SHA-256$4294967297:c2FsdA==$",
                                      "SCRAM-SHA-256$99999999999999999999999:c2FsdA==$",
                                      "SCRAM-SHA-256$4096:$",
                                      "SCRAM-SHA-256$4096:c2FsdA=$",
                                      "SCRAM-SHA-256$4096:c2F*dA==$"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        char full[256];
        snprintf(full, sizeof(full), "%s%s", bad[i], strrchr(pg, '$') + 1);
        assert_int_equal(hf_pg_verifier_parse(text(full), &v), -HF_EVALUE);
    }
    /* a salt that would overflow what holds it */
    static char big[1024] = "SCRAM-SHA-256$4096:";
    size_t at = strlen(big);
    memset(big + at, 'A', 400);
    snprintf(big + at + 400, sizeof(big) - at - 400, "%s", strrchr(pg, '$'));
    assert_int_equal(hf_pg_verifier_parse(text(big), &v), -HF_EVALUE);
    struct hf_pg_verifier m1, m2, m3;
    static const uint8_t key[HF_PG_KEY_LEN] = {1};
    hf_pg_verifier_mock(key, S("nobody"), &m1);
    hf_pg_verifier_mock(key, S("nobody"), &m2);
    hf_pg_verifier_mock(key, S("nobodz"), &m3);
    assert_memory_equal(&m1, &m2, sizeof(m1));
    assert_memory_not_equal(m1.salt, m3.salt, 16);
    assert_int_equal(m1.iterations, HF_PG_ITERATIONS);
    uint8_t salt[16]; /* of who has a plain password: as of who does not exist */
    hf_pg_salt(key, S("nobody"), salt);
    assert_true(hf_pg_same(salt, m1.salt, 16));
    assert_false(hf_pg_same(salt, m3.salt, 16));
    assert_true(hf_pg_same(salt, m3.salt, 0));
}

static void secrets(void **state)
{
    (void)state;
    struct hf_pg_secret s;
    assert_int_equal(hf_pg_secret_parse(S("md5b2f1d9a1d5c2d8c6c0e6c7f1e2d3a4b5"), &s), 0);
    assert_int_equal(s.kind, HF_PG_SECRET_MD5);
    assert_string_equal(s.password, "b2f1d9a1d5c2d8c6c0e6c7f1e2d3a4b5");
    assert_int_equal(hf_pg_secret_parse(S("md5 is not safe"), &s), 0);
    assert_int_equal(s.kind, HF_PG_SECRET_PASSWORD);
    assert_int_equal(hf_pg_secret_parse(S("SCRAM-SHA-256$what"), &s), -HF_EVALUE);
    assert_int_equal(hf_pg_secret_parse(S("a\0b"), &s), -HF_EVALUE);
    static char big[HF_PG_PASSWORD_MAX + 1];
    memset(big, 'x', sizeof(big));
    assert_int_equal(hf_pg_secret_parse(hf_slice(big, HF_PG_PASSWORD_MAX), &s), 0);
    assert_int_equal(hf_pg_secret_parse(hf_slice(big, HF_PG_PASSWORD_MAX + 1), &s), -HF_EVALUE);
    /* md5 of "secret" for user "alice", and an answer, as PostgreSQL makes them */
    char hex[HF_PG_MD5_LEN + 1], answer[3 + HF_PG_MD5_LEN + 1];
    assert_int_equal(hf_pg_md5_secret(S("secret"), S("alice"), hex), 0);
    assert_string_equal(hex, "4a0a68b43b6cd5cf266fa02f196e2371");
    assert_int_equal(hf_pg_md5_answer(hex, (const uint8_t *)"\1\2\3\4", answer), 0);
    assert_string_equal(answer, "md598a0412b9c31436fc53776e863350083");
}

/* A server's view of one bad client-first-message. */
static int first(const char *mechanism, struct hf_slice hash, struct hf_slice m)
{
    struct hf_pg_verifier v = {.iterations = 4096, .n_salt = 16};
    struct hf_pg_scram s;
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_pg_scram_serve(&s, &v, hash, nonce_b);
    uint8_t *exact = malloc(m.n ? m.n : 1);
    if (m.n) {
        memcpy(exact, m.p, m.n);
    }
    int rc = hf_pg_scram_first(&s, text(mechanism), hf_slice(exact, m.n), &b, &why);
    free(exact);
    hf_pg_scram_fini(&s);
    hf_buf_fini(&b);
    return rc;
}

static void bad_first_messages(void **state)
{
    (void)state;
    const struct hf_slice none = {0}, h = S("hash");
    assert_int_equal(first(HF_PG_SCRAM, none, S("n,,n=,r=abc")), 0);
    assert_int_equal(first(HF_PG_SCRAM, none, S("n,,n=,r=abc,x=ignored")), 0);
    static const char *const bad[] = {"",
                                      "n",
                                      "n,",
                                      "n,,",
                                      "n,,n=",
                                      "n,,n=,",
                                      "n,,n=,r",
                                      "n,,n=,r=",
                                      "x,,n=,r=abc",
                                      "n,a=admin,n=,r=abc",
                                      "n,,m=must,n=,r=abc",
                                      "n,,r=abc,n=",
                                      "n,,n=,r=ab c",
                                      "n,,n=,r=a\177",
                                      "nn,,n=,r=abc",
                                      "n,,n=,r=abc,",
                                      "n,,n=,r=abc,zz",
                                      "n,,n=,r=abc,1=x",
                                      "p=tls-server-end-point,,n=,r=abc"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        if (strcmp(bad[i], "n,,n=,r=abc,") !=
            0) { /* nothing after a comma: as if it were not there */
            assert_int_equal(first(HF_PG_SCRAM, none, text(bad[i])), -HF_EPROTO);
        }
    }
    assert_int_equal(first(HF_PG_SCRAM, none, S("n,,n=,r=abc\0")), -HF_EPROTO);
    assert_int_equal(first("SCRAM-SHA-1", none, S("n,,n=,r=abc")), -HF_EPROTO);
    assert_int_equal(first("", none, S("n,,n=,r=abc")), -HF_EPROTO);
    assert_int_equal(first(HF_PG_SCRAM_PLUS, none, S("p=tls-server-end-point,,n=,r=abc")),
                     -HF_EPROTO);
    assert_int_equal(first(HF_PG_SCRAM_PLUS, h, S("p=tls-server-end-point,,n=,r=abc")), 0);
    assert_int_equal(first(HF_PG_SCRAM_PLUS, h, S("p=tls-unique,,n=,r=abc")), -HF_EPROTO);
    assert_int_equal(first(HF_PG_SCRAM_PLUS, h, S("n,,n=,r=abc")), -HF_EPROTO);
    assert_int_equal(first(HF_PG_SCRAM_PLUS, h, S("y,,n=,r=abc")), -HF_EPROTO);
    assert_int_equal(first(HF_PG_SCRAM, h, S("p=tls-server-end-point,,n=,r=abc")), -HF_EPROTO);
}

/* CVE-2026-6664, CVE-2026-6665: lengths and nonces that overflow what holds them. */
static void messages_too_long(void **state)
{
    (void)state;
    static char big[HF_PG_SCRAM_MESSAGE_MAX + 64];
    for (size_t n = HF_PG_NONCE_MAX - 1; n <= HF_PG_SCRAM_MESSAGE_MAX + 1; n++) {
        memset(big, 'a', sizeof(big));
        memcpy(big, "n,,n=,r=", 8);
        assert_int_equal(first(HF_PG_SCRAM, hf_slice(NULL, 0), hf_slice(big, 8 + n)),
                         n <= HF_PG_NONCE_MAX ? 0 : -HF_EPROTO);
    }
    /* the longest nonce is echoed whole, and goes on to the end */
    struct hf_pg_verifier v = verifier_of("x");
    struct hf_pg_scram s;
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_pg_scram_serve(&s, &v, hf_slice(NULL, 0), nonce_b);
    assert_int_equal(
        hf_pg_scram_first(&s, S(HF_PG_SCRAM), hf_slice(big, 8 + HF_PG_NONCE_MAX), &b, &why), 0);
    assert_int_equal(s.n_nonce, HF_PG_NONCE_MAX + 24);
    uint8_t key[HF_PG_KEY_LEN];
    static char final[HF_PG_SCRAM_MESSAGE_MAX + 1];
    memset(final, 'c', sizeof(final));
    assert_int_equal(hf_pg_scram_final(&s, hf_slice(final, sizeof(final)), &b, key, &why),
                     -HF_EPROTO);
    hf_pg_scram_fini(&s);
    hf_buf_fini(&b);
}

/* The right final message, changed. */
static void bad_final_messages(void **state)
{
    (void)state;
    const struct hf_slice none = {0};
    uint8_t key[HF_PG_KEY_LEN];
    struct hf_pg_verifier v = verifier_of("s3cret");
    struct hf_pg_secret secret = password("s3cret");
    assert_int_equal(exchange(&v, &secret, false, none, none, key), 0);
    char good[512];
    snprintf(good, sizeof(good), "%s", wire[2]);
    size_t n_good = strlen(good);
    char hello[512];
    snprintf(hello, sizeof(hello), "%s", wire[0]);
    for (size_t i = 0; i <= 2 * n_good + 2; i++) { /* cut at each length, each byte changed */
        struct hf_pg_scram s;
        struct hf_buf b;
        hf_buf_init(&b, 2048);
        hf_pg_scram_serve(&s, &v, none, nonce_b);
        assert_int_equal(hf_pg_scram_first(&s, S(HF_PG_SCRAM), text(hello), &b, &why), 0);
        size_t n = i <= n_good ? i : n_good;
        uint8_t *m = malloc(n_good + 2);
        memcpy(m, good, n_good);
        if (i > n_good && i - n_good - 1 < n_good) {
            m[i - n_good - 1] ^= 1;
        } else if (i == 2 * n_good + 1) {
            memcpy(m + n_good, ",", 1); /* as above */
        } else if (i > n_good) {
            memcpy(m + n_good, ",x", 2);
            n = n_good + 2;
        }
        m = realloc(m, n ? n : 1);
        int rc = hf_pg_scram_final(&s, hf_slice(m, n), &b, key, &why);
        if (i == n_good || i == 2 * n_good + 1) {
            assert_int_equal(rc, 0);
        } else {
            assert_true(rc == -HF_EPROTO || rc == -HF_EAUTH);
        }
        free(m);
        hf_pg_scram_fini(&s);
        hf_buf_fini(&b);
    }
}

static int prove(const char *m)
{
    struct hf_pg_secret secret = password("x");
    struct hf_pg_scram c;
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_pg_scram_begin(&c, &secret, false, hf_slice(NULL, 0), nonce_a);
    hf_pg_scram_hello(&c, &b);
    int rc = hf_pg_scram_prove(&c, text(m), &b, &why);
    hf_pg_scram_fini(&c);
    hf_buf_fini(&b);
    return rc;
}

/* A server that wants a password guessed cheaply, a client kept busy, or an overflow. */
static void hostile_servers(void **state)
{
    (void)state;
#define OWN "YWJjZGVmZ2hpamtsbW5vcHFy" /* nonce_a */
    assert_int_equal(prove("r=" OWN "x,s=c2FsdA==,i=1"), 0);
    static const char *const bad[] = {"",
                                      "r=" OWN ",s=c2FsdA==,i=4096",
                                      "r=x" OWN ",s=c2FsdA==,i=4096",
                                      "r=" OWN "x,s=,i=4096",
                                      "r=" OWN "x,s=c2FsdA=,i=4096",
                                      "r=" OWN "x,s=c2FsdA==,i=0",
                                      "r=" OWN "x,s=c2FsdA==,i=-1",
                                      "r=" OWN "x,s=c2FsdA==,i=1000001",
                                      "r=" OWN "x,s=c2FsdA==,i=18446744073709551617",
                                      "r=" OWN "x,s=c2FsdA==,i=4096 ",
                                      "r=" OWN "x,s=c2FsdA==,i=",
                                      "r=" OWN "x,s=c2FsdA==",
                                      "r=" OWN "x",
                                      "s=c2FsdA==,r=" OWN "x,i=4096",
                                      "m=x,r=" OWN "x,s=c2FsdA==,i=4096",
                                      "r=" OWN "x,s=c2FsdA==,i=1,x=y"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        assert_int_equal(prove(bad[i]), -HF_EPROTO);
    }
    char big[1024];
    snprintf(big, sizeof(big), "r=" OWN "%0300d,s=c2FsdA==,i=1", 1);
    assert_int_equal(prove(big), -HF_EPROTO);
    snprintf(big, sizeof(big), "r=" OWN "x,s=%0176d,i=1", 1);
    assert_int_equal(prove(big), -HF_EPROTO);
}

/* Out of memory is a failure, not a guessable nonce or half a signature. */
static void no_memory(void **state)
{
    (void)state;
    struct hf_pg_verifier v = verifier_of("x");
    uint8_t key[HF_PG_KEY_LEN];
    for (int64_t n = 0;; n++) {
        struct hf_pg_secret secret = password("x");
        hf_mem_fail_after(n);
        int rc = exchange(&v, &secret, false, hf_slice(NULL, 0), hf_slice(NULL, 0), key);
        hf_mem_fail_after(-1);
        if (rc == 0) {
            assert_true(n > 3);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(rfc_7677_server),       HF_TEST(rfc_7677_client),   HF_TEST(both_roles),
        HF_TEST(the_client_key_learnt), HF_TEST(verifiers),         HF_TEST(secrets),
        HF_TEST(bad_first_messages),    HF_TEST(messages_too_long), HF_TEST(bad_final_messages),
        HF_TEST(hostile_servers),       HF_TEST(no_memory),
    };
    return cmocka_run_group_tests_name("core/pg/scram", tests, NULL, NULL);
}
