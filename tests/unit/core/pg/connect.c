/* core/pg/connect: servers of each kind, played; what a hostile one can send. */
#include "core/pg/connect.h"

#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define OK "R\0\0\0\10\0\0\0\0"
#define READY "Z\0\0\0\5I"

static struct hf_pg_connect *c;
static struct hf_pg_connect_out out;
static struct hf_pg_secret secret;

static int teardown(void **state)
{
    (void)state;
    hf_pg_connect_destroy(c);
    c = NULL;
    return 0;
}

static void step(struct hf_pg_connect_in in)
{
    hf_pg_connect_step(c, &in, 1, &out);
}

static void open_as(struct hf_pg_connect_args args)
{
    hf_pg_connect_destroy(c);
    args.user = S("ann");
    args.deadline = args.deadline ? args.deadline : HF_NEVER;
    memcpy(args.nonce, "abcdefghijklmnopqr", HF_PG_NONCE_LEN);
    assert_int_equal(hf_pg_connect_create(&args, &c), 0);
    step((struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_OPEN});
}

/* Bytes of the server, from a heap buffer of exactly their size. */
static void say(struct hf_slice s)
{
    uint8_t *p = malloc(s.n ? s.n : 1);
    memcpy(p, s.p, s.n);
    step((struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_BYTES, .bytes = hf_slice(p, s.n)});
    free(p);
}

static const struct hf_pg_secret *password(const char *p)
{
    assert_int_equal(hf_pg_secret_parse(hf_slice_str(p), &secret), 0);
    return &secret;
}

static void assert_failed(int code, const char *message)
{
    assert_int_equal(out.act, HF_PG_CONNECT_FAILED);
    assert_int_equal(hf_pg_connect_error(c)->code, code);
    assert_string_equal(hf_pg_connect_error(c)->message, message);
    assert_int_equal(strlen(hf_pg_connect_error(c)->sqlstate), 5);
    bool again = out.again;
    say(S(OK READY)); /* it is over */
    assert_int_equal(out.act, HF_PG_CONNECT_WAIT);
    assert_int_equal(out.send.n, 0);
    out.again = again;
}

static void trusted(void **state)
{
    (void)state;
    open_as((struct hf_pg_connect_args){.database = S("db"), .params = S("a\0b\0c\0\0")});
    static const char start[] = "\0\0\0\44\0\3\0\0user\0ann\0database\0db\0a\0b\0c\0\0";
    assert_int_equal(out.send.n, sizeof(start));
    assert_memory_equal(out.send.p + 4, start + 4, sizeof(start) - 4);
    assert_int_equal(out.send.p[3], sizeof(start));
    static const char answer[] = OK "N\0\0\0\5\0"
                                    "S\0\0\0\20server_v\0"
                                    "15\0"
                                    "K\0\0\0\14\0\0\0\7key4" READY "A";
    say(S(OK));
    assert_int_equal(out.act, HF_PG_CONNECT_WAIT);
    size_t n = sizeof(answer) - 1;
    size_t done = 9;
    for (size_t len = 9; len <= n; len++) { /* byte by byte */
        say(hf_slice(answer + done, len - done));
        done += out.consumed;
        if (out.act == HF_PG_CONNECT_DONE) {
            break;
        }
    }
    assert_int_equal(out.act, HF_PG_CONNECT_DONE);
    assert_int_equal(done, n - 1);
    const struct hf_pg_connect_result *r = hf_pg_connect_result(c);
    assert_int_equal(r->pid, 7);
    hf_assert_slice_str(r->key, "key4");
    assert_int_equal(r->version, HF_PG_VERSION_3_0);
    assert_false(r->logged_in);
    assert_int_equal(r->params.n, 12);
}

static void parameters(void **state)
{
    (void)state;
    open_as((struct hf_pg_connect_args){.replication = "database"});
    assert_non_null(memmem(out.send.p, out.send.n, "replication\0database", 21));
    say(S(OK "S\0\0\0\10a\0b\0S\0\0\0\10a\0c\0" READY));
    assert_int_equal(out.act, HF_PG_CONNECT_DONE);
    struct hf_slice params = hf_pg_connect_result(c)->params, name, value = {0};
    while (hf_pg_param_next(&params, &name, &value)) {
        hf_assert_slice_str(name, "a");
    }
    hf_assert_slice_str(value, "c"); /* the last one counts */
    assert_int_equal(hf_pg_connect_result(c)->key.n, 0);
}

static void passwords(void **state)
{
    (void)state;
    static const char clear[] = "R\0\0\0\10\0\0\0\3", md5[] = "R\0\0\0\14\0\0\0\5\1\2\3\4";
    open_as((struct hf_pg_connect_args){.secret = password("pw")});
    say(S(clear));
    assert_failed(-HF_EVALUE,
                  "the server wants the password in the clear on a connection without TLS");
    open_as((struct hf_pg_connect_args){.secret = password("pw"), .cleartext = true});
    say(S(clear));
    assert_int_equal(out.send.n, 8);
    assert_memory_equal(out.send.p, "p\0\0\0\7pw", 8);
    say(S(OK READY));
    assert_int_equal(out.act, HF_PG_CONNECT_DONE);
    assert_true(hf_pg_connect_result(c)->logged_in);
    open_as((struct hf_pg_connect_args){.cleartext = true});
    say(S(clear));
    assert_failed(-HF_EVALUE, "the server wants a password, and there is none");
    open_as((struct hf_pg_connect_args){.secret = password("secret")});
    say(S(md5));
    char hex[HF_PG_MD5_LEN + 1], answer[64];
    assert_int_equal(hf_pg_md5_secret(S("secret"), S("ann"), hex), 0);
    assert_int_equal(hf_pg_md5_answer(hex, (const uint8_t *)"\1\2\3\4", answer), 0);
    assert_int_equal(out.send.n, 5 + 36);
    assert_memory_equal(out.send.p + 5, answer, 36);
    say(S(md5)); /* once more: a server that wants to compare answers */
    assert_failed(-HF_EPROTO, "authentication requests of the server out of order");
    char stored[64];
    snprintf(stored, sizeof(stored), "md5%s", hex);
    open_as((struct hf_pg_connect_args){.secret = password(stored)});
    say(S(md5));
    assert_memory_equal(out.send.p + 5, answer, 36);
    open_as((struct hf_pg_connect_args){.secret = password("x")});
    say(S("R\0\0\0\10\0\0\0\7"));
    assert_failed(-HF_EVALUE, "authentication method 7 of the server is not supported");
}

static void scram_servers(void **state)
{
    (void)state;
    static const char sasl[] = "R\0\0\0\27\0\0\0\12SCRAM-SHA-256\0\0";
    open_as((struct hf_pg_connect_args){.secret = password("pencil")});
    say(S(sasl));
    assert_int_equal(out.send.n, 5 + 14 + 4 + 3 + 5 + 24);
    assert_memory_equal(out.send.p, "p\0\0\0\66SCRAM-SHA-256\0\0\0\0\40n,,n=,r=YWJj", 34);
    say(S(OK)); /* it never proved itself */
    assert_failed(-HF_EAUTH, "the server ended SCRAM without proving itself");
    open_as((struct hf_pg_connect_args){.secret = password("pencil")});
    say(S(sasl));
    say(S("R\0\0\0\11\0\0\0\14x"));
    assert_failed(-HF_EPROTO, "authentication requests of the server out of order");
    open_as((struct hf_pg_connect_args){.secret = password("pencil")});
    say(S("R\0\0\0\11\0\0\0\13x"));
    assert_failed(-HF_EPROTO, "authentication requests of the server out of order");
    open_as((struct hf_pg_connect_args){.secret = password("pencil")});
    say(S("R\0\0\0\21\0\0\0\12SCRAM-X\0\0"));
    assert_failed(-HF_EVALUE, "the server has no SASL mechanism that is known here");
    open_as((struct hf_pg_connect_args){.secret = password("pencil")});
    say(S("R\0\0\0\25\0\0\0\12SCRAM-SHA-256"));
    assert_failed(-HF_EPROTO, "malformed authentication request of the server");
    open_as((struct hf_pg_connect_args){0});
    say(S(sasl));
    assert_failed(-HF_EVALUE, "the server wants SCRAM, and there is neither password nor key");
    open_as((struct hf_pg_connect_args){.secret = password("pencil")});
    say(S(sasl)); /* a salt of another server than the key was learnt for */
    say(S("R\0\0\0\70\0\0\0\13r=YWJjZGVmZ2hpamtsbW5vcHFyx,s=c2FsdA==,i=9999999"));
    assert_failed(-HF_EPROTO, "SCRAM salt or iterations out of bounds");
    struct hf_pg_secret key = {.kind = HF_PG_SECRET_CLIENT_KEY};
    open_as((struct hf_pg_connect_args){.secret = &key});
    say(S(sasl));
    say(S("R\0\0\0\65\0\0\0\13r=YWJjZGVmZ2hpamtsbW5vcHFyx,s=c2FsdA==,i=4096"));
    assert_int_equal(hf_pg_connect_error(c)->code, -HF_EAUTH);
}

static void tls(void **state)
{
    (void)state;
    static const enum hf_pg_sslmode modes[] = {HF_PG_SSLMODE_ALLOW, HF_PG_SSLMODE_PREFER,
                                               HF_PG_SSLMODE_REQUIRE, HF_PG_SSLMODE_VERIFY_FULL};
    static const char request[] = "\0\0\0\10\4\322\26\57";
    for (size_t i = 0; i < HF_ARRAY_LEN(modes); i++) {
        const struct hf_pg_connect_args args = {.sslmode = modes[i], .second = i == 0};
        open_as(args);
        assert_int_equal(out.send.n, 8);
        assert_memory_equal(out.send.p, request, 8);
        say(S("N"));
        if (modes[i] == HF_PG_SSLMODE_PREFER) {
            assert_true(out.send.n > 8);
        } else {
            assert_failed(-HF_EVALUE, "server does not support SSL, but SSL was required");
        }
        open_as(args);
        say(S("SR"));
        assert_failed(-HF_EPROTO, "received unencrypted data after SSL response");
        open_as(args);
        say(S("E\0\0\0\40SERROR\0C0A000\0Mnope\0\0"));
        assert_failed(-HF_EPROTO, "server sent an error response during SSL exchange");
        assert_int_equal(out.again, modes[i] == HF_PG_SSLMODE_PREFER);
        open_as(args);
        say(S("HTTP"));
        assert_failed(-HF_EPROTO, "received invalid response to SSL negotiation");
        open_as(args);
        say(S("S"));
        assert_int_equal(out.act, HF_PG_CONNECT_START_TLS);
        step((struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_TLS_FAILED, .why = "expired"});
        assert_failed(-HF_ECLOSED, "TLS handshake with the server failed: expired");
        assert_int_equal(out.again, modes[i] == HF_PG_SSLMODE_PREFER);
        open_as(args);
        say(S("S"));
        step((struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_TLS});
        assert_int_equal(out.send.p[4], 0);
        say(S(OK READY));
        assert_int_equal(out.act, HF_PG_CONNECT_DONE);
        assert_true(hf_pg_connect_result(c)->tls);
    }
    open_as((struct hf_pg_connect_args){.sslmode = HF_PG_SSLMODE_PREFER, .second = true});
    assert_true(out.send.n > 8); /* no SSLRequest */
}

/* As libpq: pg_hba.conf of the server may want it the other way. */
static void the_other_way(void **state)
{
    (void)state;
    static const char error[] = "E\0\0\0\34C28000\0Mno pg_hba.conf\0\0";
    open_as((struct hf_pg_connect_args){.sslmode = HF_PG_SSLMODE_ALLOW});
    say(S(error));
    assert_true(out.again);
    open_as((struct hf_pg_connect_args){.sslmode = HF_PG_SSLMODE_DISABLE});
    say(S(error));
    assert_false(out.again);
    open_as((struct hf_pg_connect_args){
        .sslmode = HF_PG_SSLMODE_ALLOW, .cleartext = true, .secret = password("x")});
    say(S("R\0\0\0\10\0\0\0\3"));
    say(S(error)); /* the password was wrong: once is enough */
    assert_false(out.again);
    assert_true(hf_pg_connect_error(c)->from_server);
    assert_string_equal(hf_pg_connect_error(c)->sqlstate, "28000");
    assert_string_equal(hf_pg_connect_error(c)->message, "no pg_hba.conf");
}

static void put_message(struct hf_buf *b, uint8_t type, struct hf_slice body)
{
    hf_buf_clear(b);
    hf_pg_put_message(b, type, body);
    say(hf_buf_slice(b));
}

/* CVE-2026-6666, and other things that no PostgreSQL sends. */
static void hostile_servers(void **state)
{
    (void)state;
    struct hf_buf b;
    hf_buf_init(&b, 1 << 20);
    static const struct {
        const char *p;
        size_t n;
        const char *state, *message;
    } errors[] = {
        {"\0", 1, "08006", "the server refused the login without a message"},
        {"", 0, "08006", "the server refused the login without a message"},
        {"Mx\0\0", 4, "08006", "x"},
        {"C\0Mx\0\0", 6, "08006", "x"},
        {"Ctoolong\0Mx\0\0", 13, "08006", "x"},
        {"C57P03\0Ma\nb\033[31mc\0\0", 20, "57P03", "a b [31mc"},
        {"C57P03\0Mcut", 11, "57P03", "the server refused the login without a message"},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(errors); i++) {
        open_as((struct hf_pg_connect_args){0});
        put_message(&b, HF_PG_ERROR, hf_slice(errors[i].p, errors[i].n));
        assert_failed(-HF_EAUTH, errors[i].message);
        assert_string_equal(hf_pg_connect_error(c)->sqlstate, errors[i].state);
    }
    static char big[HF_PG_CONNECT_MESSAGE_MAX];
    memset(big, 'M', 2000);
    memset(big + 1000, 0xc3, 1); /* long texts are cut between characters */
    open_as((struct hf_pg_connect_args){0});
    put_message(&b, HF_PG_ERROR, hf_slice(big, 2000));
    assert_int_equal(out.act, HF_PG_CONNECT_FAILED);
    static const struct {
        const char *p;
        size_t n;
        const char *message;
    } bad[] = {
        {"R\0\0\0\3", 5, "not a PostgreSQL server, or a message that is too long"},
        {"R\177\377\377\377", 5, "not a PostgreSQL server, or a message that is too long"},
        {"SSH-2.0-x", 9, "not a PostgreSQL server, or a message that is too long"},
        {"R\0\0\0\4", 5, "authentication requests of the server out of order"},
        {"R\0\0\0\11\0\0\0\0x", 10, "authentication requests of the server out of order"},
        {"R\0\0\0\12\0\0\0\5ab", 11, "malformed authentication request of the server"},
        {"Z\0\0\0\5I", 6, "expected authentication request from server"},
        {"v\0\0\0\14\0\3\0\5\0\0\0\0", 13, "invalid NegotiateProtocolVersion of the server"},
        {"v\0\0\0\14\0\3\0\0\0\0\0\1", 13, "invalid NegotiateProtocolVersion of the server"},
        {"v\0\0\0\5\0", 6, "invalid NegotiateProtocolVersion of the server"},
        {OK "R\0\0\0\10\0\0\0\0", 18, "unexpected message of the server during startup"},
        {OK "Z\0\0\0\5T", 15, "unexpected message of the server during startup"},
        {OK "D\0\0\0\6\0\0", 16, "unexpected message of the server during startup"},
        {OK "S\0\0\0\6ab", 16, "malformed ParameterStatus of the server"},
        {OK "S\0\0\0\6\0\0", 16, "malformed ParameterStatus of the server"},
        {OK "K\0\0\0\12\0\0\0\1ab", 20, "malformed BackendKeyData of the server"},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        open_as((struct hf_pg_connect_args){.secret = password("x")});
        say(hf_slice(bad[i].p, bad[i].n));
        assert_failed(-HF_EPROTO, bad[i].message);
    }
    open_as((struct hf_pg_connect_args){0}); /* parameters without end */
    say(S(OK));
    memset(big, 'x', 20000);
    big[10] = big[19999] = 0;
    for (int i = 0; i < 3 && out.act == HF_PG_CONNECT_WAIT; i++) {
        put_message(&b, HF_PG_PARAMETER_STATUS, hf_slice(big, 20000));
    }
    assert_failed(-HF_EPROTO, "too many parameters of the server");
    open_as((struct hf_pg_connect_args){0}); /* notices without end */
    say(S(OK));
    for (int i = 0; i < 60 && out.act == HF_PG_CONNECT_WAIT; i++) {
        put_message(&b, HF_PG_NOTICE, hf_slice(big, 20000));
    }
    assert_failed(-HF_EPROTO, "too many messages of the server during startup");
    hf_buf_fini(&b);
}

static void other_ends(void **state)
{
    (void)state;
    open_as((struct hf_pg_connect_args){0});
    step((struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_CLOSED, .why = "reset"});
    assert_failed(-HF_ECLOSED, "server closed the connection unexpectedly: reset");
    open_as((struct hf_pg_connect_args){.deadline = HF_S(5)});
    const struct hf_pg_connect_in timer = {.kind = HF_PG_CONNECT_IN_TIMER};
    hf_pg_connect_step(c, &timer, HF_S(5), &out);
    assert_failed(-HF_ETIMEOUT, "timeout during the login to the server");
    open_as((struct hf_pg_connect_args){.version = HF_PG_VERSION_3_2});
    say(S("v\0\0\0\14\0\3\0\0\0\0\0\0" OK READY));
    assert_int_equal(out.act, HF_PG_CONNECT_DONE);
    assert_int_equal(hf_pg_connect_result(c)->version, HF_PG_VERSION_3_0);
    static char big[HF_PG_STARTUP_MAX + 2] = "a";
    memset(big + 2, 'x', sizeof(big) - 3);
    const struct hf_pg_connect_args args = {.user = S("u"), .params = hf_slice(big, sizeof(big))};
    struct hf_pg_connect *none = NULL;
    assert_int_equal(hf_pg_connect_create(&args, &none), -HF_EFULL);
    hf_pg_connect_destroy(NULL);
    for (int64_t n = 0; n < 6; n++) {
        hf_pg_connect_destroy(c);
        c = NULL;
        hf_mem_fail_after(n);
        const struct hf_pg_connect_args a = {.user = S("u"), .deadline = HF_NEVER};
        if (hf_pg_connect_create(&a, &c) == 0) {
            step((struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_OPEN});
            step((struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_BYTES,
                                           .bytes = S(OK "S\0\0\0\10a\0b\0" READY)});
        }
        hf_mem_fail_after(-1);
    }
}

#define ROW(fn) cmocka_unit_test_setup_teardown(fn, NULL, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(trusted), ROW(parameters),    ROW(passwords),       ROW(scram_servers),
        ROW(tls),     ROW(the_other_way), ROW(hostile_servers), ROW(other_ends),
    };
    return cmocka_run_group_tests_name("core/pg/connect", tests, NULL, NULL);
}
