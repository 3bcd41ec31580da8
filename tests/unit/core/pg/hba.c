/* core/pg/hba: what PostgreSQL's files say, what is refused and how, who matches; the auth file. */
#include "core/pg/hba.h"

#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_err err;

static int read_list(void *arg, const char *path, struct hf_buf *b, struct hf_err *e)
{
    (void)arg;
    if (strcmp(path, "admins") == 0) {
        hf_buf_str(b, "root, boss # both\n\"all\"\n");
        return b->err;
    }
    if (strcmp(path, "nested") == 0) {
        hf_buf_str(b, "@admins\n");
        return b->err;
    }
    return hf_err_set(e, -HF_ECONFIG, "%s: no such file", path);
}
static const struct hf_pg_hba_files files = {read_list, NULL};

static struct hf_pg_hba *parse(const char *text)
{
    struct hf_pg_hba *h = NULL;
    err.text[0] = 0;
    int rc = hf_pg_hba_parse(hf_slice_str(text), "hba", &files, &err, &h);
    if (rc) {
        print_message("%s\n", err.text);
    }
    assert_int_equal(rc, 0);
    return h;
}

static struct hf_endpoint ip4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
    return (struct hf_endpoint){.family = HF_AF_INET, .addr = {a, b, c, d}};
}

/* The line that matches, 0 for none. */
static unsigned match(const struct hf_pg_hba *h, struct hf_pg_hba_ask ask, const char *database,
                      const char *user)
{
    ask.database = hf_slice_str(database);
    ask.user = hf_slice_str(user);
    const struct hf_pg_hba_line *l = hf_pg_hba_match(h, &ask);
    return l ? l->line : 0;
}

static void kinds_and_addresses(void **state)
{
    (void)state;
    struct hf_pg_hba *h = parse("# comment\n"
                                "local all all peer map=os # more\n"
                                "hostssl all all 10.1.0.0/16 cert clientname=DN\n"
                                "hostnossl all all 10.1.2.0 255.255.255.0 md5\n"
                                "host all all 10.1.0.0/9 scram-sha-256\n"
                                "host all all ::1/128 trust\n"
                                "host all all fe80::/10 password\r\n"
                                "host all all samehost trust\n"
                                "host all all samenet reject\n");
    struct hf_pg_hba_net own = {ip4(192, 0, 2, 7), 24};
    struct hf_pg_hba_ask local = {.local = true}, tcp = {.peer = ip4(10, 1, 2, 3)};
    tcp.own = &own;
    tcp.n_own = 1;
    assert_int_equal(match(h, local, "d", "u"), 2);
    assert_int_equal(match(h, tcp, "d", "u"), 4);
    tcp.tls = true;
    assert_int_equal(match(h, tcp, "d", "u"), 3);
    tcp.peer = ip4(10, 127, 0, 1);
    assert_int_equal(match(h, tcp, "d", "u"), 5);
    tcp.peer = ip4(10, 128, 0, 1);
    assert_int_equal(match(h, tcp, "d", "u"), 0);
    tcp.peer = (struct hf_endpoint){.family = HF_AF_INET6, .addr = {[15] = 1}};
    assert_int_equal(match(h, tcp, "d", "u"), 6);
    tcp.peer.addr[15] = 2;
    assert_int_equal(match(h, tcp, "d", "u"), 0);
    tcp.peer = (struct hf_endpoint){.family = HF_AF_INET6, .addr = {0xfe, 0xbf}};
    assert_int_equal(match(h, tcp, "d", "u"), 7);
    tcp.peer = ip4(192, 0, 2, 7);
    assert_int_equal(match(h, tcp, "d", "u"), 8);
    tcp.peer = ip4(192, 0, 2, 8);
    assert_int_equal(match(h, tcp, "d", "u"), 9);
    tcp.peer = (struct hf_endpoint){
        .family = HF_AF_INET6, .addr = {[10] = 0xff, 0xff, 10, 127, 9, 9}}; /* ::ffff:10.127.9.9 */
    assert_int_equal(match(h, tcp, "d", "u"), 5);
    tcp.peer = ip4(10, 1, 9, 9);
    tcp.database = tcp.user = S("x");
    const struct hf_pg_hba_line *l = hf_pg_hba_match(h, &tcp);
    assert_int_equal(l->method, HF_PG_AUTH_CERT);
    assert_int_equal(l->clientcert, HF_PG_CLIENTCERT_VERIFY_FULL);
    assert_true(l->clientname_dn);
    assert_string_equal(hf_pg_hba_missing_map(h)->map, "os");
    hf_pg_hba_destroy(h);
}

static void names(void **state)
{
    (void)state;
    struct hf_pg_hba *h = parse("local \"all\" x trust\n"
                                "local sameuser y trust\n"
                                "local a,b, c  z,\"w w\" trust\n"
                                "local replication r trust\n"
                                "local d @admins trust\n"
                                "local e \\\n"
                                "  q trust\n"
                                "local \"f\"\"g\" q trust");
    const struct hf_pg_hba_ask ask = {.local = true}, repl = {.local = true, .replication = true};
    assert_int_equal(match(h, ask, "all", "x"), 1);
    assert_int_equal(match(h, ask, "other", "x"), 0);
    assert_int_equal(match(h, ask, "y", "y"), 2);
    assert_int_equal(match(h, ask, "x", "y"), 0);
    assert_int_equal(match(h, ask, "b", "z"), 3);
    assert_int_equal(match(h, ask, "c", "w w"), 3); /* blanks may follow a comma */
    assert_int_equal(match(h, repl, "", "r"), 4);
    assert_int_equal(match(h, ask, "replication", "r"), 0);
    assert_int_equal(match(h, repl, "", "x"), 0); /* all is no replication */
    assert_int_equal(match(h, ask, "d", "root"), 5);
    assert_int_equal(match(h, ask, "d", "boss"), 5);
    assert_int_equal(match(h, ask, "d", "all"), 5);
    assert_int_equal(match(h, ask, "d", "anybody"), 0);
    assert_int_equal(match(h, ask, "e", "q"), 6);
    assert_int_equal(match(h, ask, "f\"g", "q"), 8);
    hf_pg_hba_destroy(h);
}

static void what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"\n\nlocla all all trust", "hba:3: connection type \"locla\": expected local, host"},
        {"hostgssenc all all all gss", "hba:1: connection type \"hostgssenc\""},
        {"local all", "hba:1: line ends too early: a user"},
        {"local all all", "line ends too early: a method"},
        {"local all all gss", "method \"gss\": expected trust, reject, scram-sha-256, md5"},
        {"local all all ldap", "method \"ldap\""},
        {"host all all trust", "address \"trust\""},
        {"host all all db.example.com md5", "names of hosts are not looked up"},
        {"host all all 10.0.0.0/33 md5", "CIDR mask \"33\""},
        {"host all all 10.0.0.0/ md5", "CIDR mask \"\""},
        {"host all all 10.0.0.0/8x md5", "CIDR mask \"8x\""},
        {"host all all 10.0.0.0 md5", "mask \"md5\""},
        {"host all all 10.0.0.0 ::1 md5", "mask \"::1\""},
        {"host all all all peer", "only in local lines"},
        {"host all all all cert", "only in hostssl lines"},
        {"local all all cert", "only in hostssl lines"},
        {"host all all all md5 clientcert=verify-ca", "only in hostssl lines"},
        {"hostssl all all all cert clientcert=verify-ca", "clientcert \"verify-ca\""},
        {"hostssl all all all md5 clientcert=1", "clientcert \"1\": expected"},
        {"hostssl all all all md5 map=x", "only with cert or peer"},
        {"local all all trust ldapserver=x", "option \"ldapserver=x\": expected map="},
        {"local all all trust nonsense", "option \"nonsense\""},
        {"local all +admins trust", "group \"+admins\": names of users"},
        {"local all /^a trust", "regular expression \"/^a\""},
        {"local /^a all trust", "regular expression \"/^a\""},
        {"local samerole all trust", "not supported: \"samerole\""},
        {"local all @nobody trust", "nobody: no such file"},
        {"local all @nested trust", "nested:1: list in a list: \"@admins\""},
        {"include other.conf", "not supported: \"include\""},
        {"local all \"open trust", "unterminated quoted string"},
        {"local,host all all trust", "a list \"local\""},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        struct hf_pg_hba *h;
        err.text[0] = 0;
        assert_int_equal(hf_pg_hba_parse(hf_slice_str(bad[i].text), "hba", &files, &err, &h),
                         -HF_ECONFIG);
        if (!strstr(err.text, bad[i].says)) {
            fail_msg("%s: %s", bad[i].text, err.text);
        }
    }
    struct hf_pg_hba *h;
    assert_int_equal(hf_pg_hba_parse(S("local all all\0 trust"), "hba", NULL, &err, &h),
                     -HF_ECONFIG);
    assert_int_equal(hf_pg_hba_parse(S("local @x all trust"), "hba", NULL, &err, &h), -HF_ECONFIG);
}

static void identity_maps(void **state)
{
    (void)state;
    struct hf_pg_hba *h = parse("local all all peer map=os\n");
    assert_int_equal(hf_pg_hba_add_ident(h, S("# m\nos ann anna\nos ann admin\nos \"op s\" all\n"),
                                         "ident", &err),
                     0);
    assert_null(hf_pg_hba_missing_map(h));
    assert_true(hf_pg_hba_may_be(h, "os", S("ann"), S("anna")));
    assert_true(hf_pg_hba_may_be(h, "os", S("ann"), S("admin")));
    assert_false(hf_pg_hba_may_be(h, "os", S("ann"), S("ann")));
    assert_true(hf_pg_hba_may_be(h, "os", S("op s"), S("whoever")));
    assert_false(hf_pg_hba_may_be(h, "other", S("ann"), S("anna")));
    assert_true(hf_pg_hba_may_be(h, NULL, S("ann"), S("ann")));
    assert_false(hf_pg_hba_may_be(h, NULL, S("ann"), S("Ann")));
    assert_int_equal(hf_pg_hba_add_ident(h, S("os a\n"), "ident", &err), -HF_ECONFIG);
    assert_string_equal(err.text, "ident:1: line ends too early: MAP SYSTEM-USER USER");
    assert_int_equal(hf_pg_hba_add_ident(h, S("os /(.*) \\1\n"), "ident", &err), -HF_ECONFIG);
    assert_int_equal(hf_pg_hba_add_ident(h, S("os a +g\n"), "ident", &err), -HF_ECONFIG);
    assert_int_equal(hf_pg_hba_add_ident(h, S("os a b c\n"), "ident", &err), -HF_ECONFIG);
    /* what was refused left nothing behind */
    assert_false(hf_pg_hba_may_be(h, "nothing", S("a"), S("a")));
    assert_int_equal(hf_pg_hba_add_ident(h, S("new a b\nnew a\n"), "ident", &err), -HF_ECONFIG);
    assert_false(hf_pg_hba_may_be(h, "new", S("a"), S("b")));
    hf_pg_hba_destroy(h);
}

static void methods(void **state)
{
    (void)state;
    for (size_t i = 0; i < HF_PG_AUTH_COUNT_; i++) {
        enum hf_pg_auth m;
        const char *name = hf_pg_auth_name((enum hf_pg_auth)i);
        assert_int_equal(hf_pg_auth_parse(hf_slice_str(name), &m), 0);
        assert_int_equal(m, i);
    }
    enum hf_pg_auth m;
    assert_int_equal(hf_pg_auth_parse(S("gss"), &m), -HF_EVALUE);
    assert_int_equal(hf_pg_auth_parse(S(""), &m), -HF_EVALUE);
    assert_string_equal(hf_pg_auth_name(HF_PG_AUTH_COUNT_), "?");
}

static void without_a_file(void **state)
{
    (void)state;
    struct hf_pg_hba *h;
    struct hf_pg_hba_ask ask = {.local = true, .database = S("d"), .user = S("u")};
    assert_int_equal(hf_pg_hba_create(HF_PG_AUTH_SCRAM, &h), 0);
    assert_int_equal(hf_pg_hba_match(h, &ask)->method, HF_PG_AUTH_SCRAM);
    ask.local = false;
    ask.replication = true;
    assert_int_equal(hf_pg_hba_match(h, &ask)->method, HF_PG_AUTH_SCRAM);
    hf_pg_hba_destroy(h);
    assert_int_equal(hf_pg_hba_create(HF_PG_AUTH_CERT, &h), 0);
    assert_null(hf_pg_hba_match(h, &ask));
    ask.tls = true;
    assert_int_equal(hf_pg_hba_match(h, &ask)->clientcert, HF_PG_CLIENTCERT_VERIFY_FULL);
    hf_pg_hba_destroy(h);
    hf_pg_hba_destroy(NULL);
}

/* Cut anywhere, it is parsed or refused, from a buffer of exactly its size. */
static void cut_at_each_length(void **state)
{
    (void)state;
    static const char text[] =
        "hostssl a,\"b \"\"c\" @admins,x 10.0.0.0/8 md5 clientcert=verify-ca "
        "# end\nlocal all all peer map=m\n";
    for (size_t n = 0; n < sizeof(text); n++) {
        char *p = malloc(n + 1);
        memcpy(p, text, n);
        p = realloc(p, n ? n : 1);
        struct hf_pg_hba *h = NULL;
        if (hf_pg_hba_parse(hf_slice(p, n), "hba", &files, &err, &h) == 0) {
            hf_pg_hba_destroy(h);
        }
        free(p);
    }
    for (int64_t n = 0;; n++) {
        struct hf_pg_hba *h = NULL;
        hf_mem_fail_after(n);
        int rc = hf_pg_hba_parse(S(text), "hba", &files, &err, &h);
        hf_mem_fail_after(-1);
        hf_pg_hba_destroy(rc ? NULL : h);
        if (rc == 0) {
            assert_true(n > 5);
            break;
        }
    }
}

static void auth_file(void **state)
{
    (void)state;
    static const uint8_t key[HF_PG_KEY_LEN] = {7};
    struct hf_pg_userlist *l;
    assert_int_equal(hf_pg_userlist_parse(S("; comment\n"
                                            "\"ann\" \"se\"\"cret\" more\n"
                                            "\n# also\n"
                                            "  \"bob\"\t\"md5b2f1d9a1d5c2d8c6c0e6c7f1e2d3a4b5\"\r\n"
                                            "\"ann\" \"second\"\n"
                                            "\"eve\" \"\""),
                                          "users", &err, &l),
                     0);
    const struct hf_pg_secret *s = hf_pg_userlist_get(l, S("ann"), key);
    assert_int_equal(s->kind, HF_PG_SECRET_PASSWORD);
    assert_string_equal(s->password, "second");
    assert_int_equal(s->verifier.iterations, HF_PG_ITERATIONS);
    assert_ptr_equal(hf_pg_userlist_get(l, S("ann"), key), s);
    assert_int_equal(hf_pg_userlist_get(l, S("bob"), key)->kind, HF_PG_SECRET_MD5);
    assert_null(hf_pg_userlist_get(l, S("an"), key));
    hf_pg_userlist_destroy(l);
    static const char *const bad[] = {"ann \"x\"",
                                      "\"ann\"",
                                      "\"ann\" x",
                                      "\"ann\" \"x",
                                      "\"\" \"x\"",
                                      "\"ann",
                                      "\"a\" \"SCRAM-SHA-256$1:\""};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        char text[128];
        snprintf(text, sizeof(text), "\"ok\" \"ok\"\n%s\n", bad[i]);
        assert_int_equal(hf_pg_userlist_parse(hf_slice_str(text), "users", &err, &l), -HF_ECONFIG);
        assert_true(strncmp(err.text, "users:2: ", 9) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(kinds_and_addresses), HF_TEST(names),          HF_TEST(what_is_refused),
        HF_TEST(identity_maps),       HF_TEST(without_a_file), HF_TEST(cut_at_each_length),
        HF_TEST(auth_file),           HF_TEST(methods),
    };
    return cmocka_run_group_tests_name("core/pg/hba", tests, NULL, NULL);
}
