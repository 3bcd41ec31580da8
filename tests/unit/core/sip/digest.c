/* core/sip/digest: the vectors of RFC 7616 and RFC 2617, nonces, and answers that lie. */
#include "core/sip/digest.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "core/sip/write.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static const uint8_t key[HF_SIP_NONCE_KEY_LEN] = "the key that all servers share.";

/* RFC 7616 3.9.1: Mufasa, "Circle of Life". */
#define RFC_7616(alg, response)                                                                    \
    "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", "       \
    "algorithm=" alg ", nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, "     \
    "cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"" response      \
    "\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""

static int check(struct hf_slice value, const char *user, const char *realm, const char *password,
                 const char *method)
{
    struct hf_sip_credentials c;
    uint8_t secret[HF_SIP_HASH_MAX];
    int rc = hf_sip_credentials_parse(value, &c);
    if (rc) {
        return rc;
    }
    assert_int_equal(hf_sip_secret(c.algorithm, hf_slice_str(user), hf_slice_str(realm),
                                   hf_slice_str(password), secret),
                     0);
    return hf_sip_digest_check(&c, hf_slice_str(method), secret);
}

static void vectors(void **state)
{
    (void)state;
    static const char *const good[] = {
        RFC_7616("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        RFC_7616("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        RFC_7616("sha-256", "753927FA0E85D155564E2E272A28D1802CA10DAF4496794697CF8DB5856CB6C1"),
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(good); i++) {
        struct hf_slice s = hf_slice_str(good[i]);
        assert_int_equal(check(s, "Mufasa", "http-auth@example.org", "Circle of Life", "GET"), 0);
        assert_int_equal(check(s, "Mufasa", "http-auth@example.org", "Circle of Life", "PUT"),
                         -HF_EAUTH);
        assert_int_equal(check(s, "Mufasa", "http-auth@example.org", "Circle of life", "GET"),
                         -HF_EAUTH);
    }
    /* RFC 2617 3.5, whose algorithm is not named: MD5 */
    assert_int_equal(
        check(S("Digest username=\"Mufasa\",realm=\"testrealm@host.com\",nonce=\"dcd98b7102dd2f0e8b"
                "11d0f600bfb0c093\",uri=\"/dir/index.html\",qop=auth,nc=00000001,cnonce=\"0a4f113b"
                "\",response=\"6629fae49393a05397450978507c4ef1\",opaque=\"5ccc069c403ebaf9f0171e95"
                "17f40e41\""),
              "Mufasa", "testrealm@host.com", "Circle Of Life", "GET"),
        0);
}

/* Against ourselves: a client's answer to our challenge, with each algorithm. */
static void round_trip(void **state)
{
    (void)state;
    char nonce[HF_SIP_NONCE_LEN], hex[2 * HF_SIP_HASH_MAX];
    hf_sip_nonce_make(key, S("example.com"), 1000, 42, nonce);
    for (int a = 0; a < HF_SIP_ALGORITHM_COUNT_; a++) {
        struct hf_sip_credentials c = {.username = S("a"),
                                       .realm = S("example.com"),
                                       .nonce = hf_slice(nonce, sizeof(nonce)),
                                       .uri = S("sip:example.com"),
                                       .cnonce = S("x"),
                                       .algorithm = (enum hf_sip_algorithm)a,
                                       .nc = 0xabcdef01};
        uint8_t secret[HF_SIP_HASH_MAX];
        assert_int_equal(hf_sip_secret(c.algorithm, c.username, c.realm, S("pw"), secret), 0);
        assert_int_equal(hf_sip_digest_response(&c, S("REGISTER"), secret, hex), 0);
        c.response = hf_slice(hex, 2 * hf_sip_algorithm_len(c.algorithm));
        assert_int_equal(hf_sip_digest_check(&c, S("REGISTER"), secret), 0);
        for (size_t i = 0; i < c.response.n; i++) {
            hex[i] ^= 1;
            assert_int_equal(hf_sip_digest_check(&c, S("REGISTER"), secret), -HF_EAUTH);
            hex[i] ^= 1;
        }
        c.response.n--;
        assert_int_equal(hf_sip_digest_check(&c, S("REGISTER"), secret), -HF_EAUTH);
        c.response.n++;
        c.nc++;
        assert_int_equal(hf_sip_digest_check(&c, S("REGISTER"), secret), -HF_EAUTH);
        assert_int_equal(hf_sip_nonce_check(key, c.realm, c.nonce, 1000, 60), 0);
        enum hf_sip_algorithm b;
        assert_int_equal(
            hf_sip_algorithm_parse(hf_slice_str(hf_sip_algorithm_name(c.algorithm)), &b), 0);
        assert_int_equal(a, b);
    }
    enum hf_sip_algorithm b;
    assert_int_equal(hf_sip_algorithm_parse(S("MD5-sess"), &b), -HF_EVALUE);
}

static void nonces(void **state)
{
    (void)state;
    char n[HF_SIP_NONCE_LEN], other[HF_SIP_NONCE_LEN];
    struct hf_slice s = hf_slice(n, sizeof(n));
    uint8_t key2[HF_SIP_NONCE_KEY_LEN] = {0};
    hf_sip_nonce_make(key, S("r"), 1000, 1, n);
    assert_int_equal(hf_sip_nonce_check(key, S("r"), s, 1000, 60), 0);
    assert_int_equal(hf_sip_nonce_check(key, S("r"), s, 1060, 60), 0);
    assert_int_equal(hf_sip_nonce_time(s), 1000);
    assert_int_equal(hf_sip_nonce_time(S("1000")), 0);
    assert_int_equal(hf_sip_nonce_check(key, S("r"), s, 1061, 60), -HF_EREPLAY);
    assert_int_equal(hf_sip_nonce_check(key, S("r"), s, 940, 60), 0); /* another server's clock */
    assert_int_equal(hf_sip_nonce_check(key, S("r"), s, 939, 60), -HF_EREPLAY);
    assert_int_equal(hf_sip_nonce_check(key, S("r2"), s, 1000, 60), -HF_EAUTH);
    assert_int_equal(hf_sip_nonce_check(key2, S("r"), s, 1000, 60), -HF_EAUTH);
    assert_int_equal(hf_sip_nonce_check(key, S("r"), S(""), 1000, 60), -HF_EAUTH);
    for (size_t i = 0; i < sizeof(n); i++) {
        char was = n[i];
        n[i] = was == '0' ? '1' : '0';
        assert_int_equal(hf_sip_nonce_check(key, S("r"), s, 1000, 60), -HF_EAUTH);
        n[i] = 'x';
        assert_int_equal(hf_sip_nonce_check(key, S("r"), s, 1000, 60), -HF_EAUTH);
        n[i] = was;
    }
    hf_sip_nonce_make(key, S("r"), 1000, 2, other);
    assert_memory_not_equal(n, other, sizeof(n));
}

static void challenges(void **state)
{
    (void)state;
    char buf[512];
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_sip_put_challenge(&w, HF_SIP_H_WWW_AUTHENTICATE, S("my \"realm\""), S("n1"),
                         1 << HF_SIP_SHA256 | 1 << HF_SIP_MD5, true);
    assert_int_equal(hf_wr_end(&w, &s), 0);
    hf_assert_slice_str(s, "WWW-Authenticate: Digest realm=\"my \\\"realm\\\"\", nonce=\"n1\", "
                           "algorithm=SHA-256, qop=\"auth\", stale=true\r\n"
                           "WWW-Authenticate: Digest realm=\"my \\\"realm\\\"\", nonce=\"n1\", "
                           "algorithm=MD5, qop=\"auth\", stale=true\r\n");
}

#define REST ", nonce=\"n\", uri=\"sip:h\", cnonce=\"c\", nc=00000001, qop=auth"
#define MD5 "0123456789abcdef0123456789abcdef"

static void parsing(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int rc;
    } rows[] = {
        {"digest username=\"u\",realm=\"r\"" REST ",response=\"" MD5 "\"", 0},
        {"Digest\r\n  username=\"u\" , realm = \"r\"" REST ", response=\"" MD5 "\", new=1", 0},
        {"Digest username=\"u\",realm=\"r\"" REST ",response=" MD5 ",userhash=false", 0},
        {"Basic dTpw", -HF_EPROTO},
        {"", -HF_EPROTO},
        {"Digest", -HF_EPROTO},
        {"Digest ", -HF_EMALF},
        {"Digest username", -HF_EMALF},
        {"Digest username=\"u", -HF_EMALF},
        {"Digest username=\"u\",", -HF_EMALF},
        {"Digest username=\"u\",realm=\"r\"" REST ",response=\"" MD5 "\";x", -HF_EMALF},
        {"Digest username=\"u\",username=\"v\",realm=\"r\"" REST ",response=\"" MD5 "\"",
         -HF_EMALF},
        {"Digest realm=\"r\"" REST ",response=\"" MD5 "\"", -HF_EMALF},
        {"Digest username=\"u\"" REST ",response=\"" MD5 "\"", -HF_EMALF},
        {"Digest username=\"u\",realm=\"r\"" REST, -HF_EMALF},
        {"Digest username=\"u\",realm=\"r\"" REST ",response=\"" MD5 "0\"", -HF_EMALF},
        {"Digest username=\"u\",realm=\"r\"" REST ",algorithm=SHA-256,response=\"" MD5 "\"",
         -HF_EMALF},
        {"Digest username=\"u\",realm=\"r\",nonce=\"n\",uri=\"sip:h\",cnonce=\"c\",nc=1,qop=auth,"
         "response=\"" MD5 "\"",
         -HF_EMALF},
        {"Digest username=\"u\",realm=\"r\",nonce=\"n\",uri=\"sip:h\",cnonce=\"c\",nc=00000001,"
         "qop=auth-int,response=\"" MD5 "\"",
         -HF_EVALUE},
        {"Digest username=\"u\",realm=\"r\",nonce=\"n\",uri=\"sip:h\",response=\"" MD5 "\"",
         -HF_EVALUE},
        {"Digest username=\"u\",realm=\"r\"" REST ",response=\"" MD5 "\",userhash=true",
         -HF_EVALUE},
        {"Digest username*=UTF-8''u,realm=\"r\"" REST ",response=\"" MD5 "\"", -HF_EVALUE},
        {"Digest username=\"u\",realm=\"r\"" REST ",response=\"" MD5 "\",algorithm=MD5-sess",
         -HF_EVALUE},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        struct hf_sip_credentials c;
        int rc = hf_sip_credentials_parse(hf_slice_str(rows[i].text), &c);
        if (rc != rows[i].rc) {
            fail_msg("%s: %d", rows[i].text, rc);
        }
        for (size_t n = 0; n < strlen(rows[i].text); n++) { /* cut, in an exact buffer */
            char *copy = malloc(n + 1);
            assert_non_null(copy);
            memcpy(copy, rows[i].text, n);
            rc = hf_sip_credentials_parse(hf_slice(copy, n), &c);
            free(copy);
        }
    }
}

#define HEAD                                                                                       \
    "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:a>\r\n"       \
    "Call-ID: c\r\nCSeq: 1 REGISTER\r\n"
#define AUTH(user, realm)                                                                          \
    "Authorization: Digest username=\"" user "\",realm=\"" realm "\"" REST ",response=\"" MD5      \
    "\"\r\n"

static void finding(void **state)
{
    (void)state;
    static struct hf_sip_msg m;
    struct hf_sip_credentials c;
    struct hf_slice user;
    char buf[HF_SIP_USERNAME_MAX];
    assert_int_equal(hf_sip_parse(S(HEAD "Authorization: Basic x\r\n" AUTH("u", "other")
                                        AUTH("a\\\"b", "mine") AUTH("v", "mine") "\r\n"),
                                  false, &m),
                     0);
    assert_int_equal(hf_sip_credentials_find(&m, HF_SIP_H_AUTHORIZATION, S("mine"), &c), 1);
    assert_int_equal(hf_sip_credentials_user(&c, buf, sizeof(buf), &user), 0);
    hf_assert_slice_str(user, "a\"b");
    assert_int_equal(hf_sip_credentials_find(&m, HF_SIP_H_AUTHORIZATION, S("third"), &c), 0);
    assert_int_equal(hf_sip_credentials_find(&m, HF_SIP_H_PROXY_AUTHORIZATION, S("mine"), &c), 0);
    assert_int_equal(hf_sip_parse(S(HEAD "Authorization: Digest algorithm=X\r\n\r\n"), false, &m),
                     0);
    assert_int_equal(hf_sip_credentials_find(&m, HF_SIP_H_AUTHORIZATION, S("mine"), &c),
                     -HF_EVALUE);
    assert_int_equal(hf_sip_parse(S(HEAD "Authorization: Digest x\r\n\r\n"), false, &m), 0);
    assert_int_equal(hf_sip_credentials_find(&m, HF_SIP_H_AUTHORIZATION, S("mine"), &c), -HF_EMALF);
}

static void hmac(void **state)
{
    (void)state;
    /* RFC 4231 4.2: the key, 20 bytes of 0x0b, is filled up with zeros (RFC 2104 2) */
    static const uint8_t want[HF_SIP_HASH_MAX] = {0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53,
                                                  0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b,
                                                  0x88, 0x1d, 0xc2, 0x00, 0xc9, 0x83, 0x3d, 0xa7,
                                                  0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7};
    static const char long_text[HF_SIP_HMAC_MAX + 1];
    uint8_t k[HF_SIP_NONCE_KEY_LEN] = {0}, mac[HF_SIP_HASH_MAX];
    memset(k, 0x0b, 20);
    assert_int_equal(hf_sip_hmac(k, hf_slice("Hi There", 8), mac), 0);
    assert_memory_equal(mac, want, sizeof(want));
    assert_int_equal(hf_sip_hmac(k, hf_slice(long_text, sizeof(long_text)), mac), -HF_EFULL);
    assert_int_equal(hf_sip_hmac(k, hf_slice(long_text, HF_SIP_HMAC_MAX), mac), 0);
    assert_int_equal(hf_sip_hmac(k, hf_slice(NULL, 0), mac), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(hmac),       HF_TEST(vectors), HF_TEST(round_trip), HF_TEST(nonces),
        HF_TEST(challenges), HF_TEST(parsing), HF_TEST(finding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
