/* os/seal: every byte tampered, every length, other keys, the bounded memory of senders. */
#include "os/seal.h"

#include "base/err.h"
#include "support/test.h"

static const struct hf_key key = {.b = {1, 2, 3}}, other_key = {.b = {1, 2, 4}};
static struct hf_opener *opener;
static struct hf_sealer *sealer;

static int create(void **state)
{
    (void)state;
    return hf_opener_create(&key, 2, &opener) || hf_sealer_create(&key, "alpha", 7, &sealer);
}

static int destroy(void **state)
{
    (void)state;
    hf_opener_destroy(opener);
    hf_sealer_destroy(sealer);
    return 0;
}

static int open_copy(struct hf_slice d, struct hf_datagram_head *h, struct hf_slice *body)
{
    static uint8_t buf[HF_ADVERT_LEN_MAX];
    return hf_open(opener, d, buf, h, body);
}

static void opens_what_was_sealed(void **state)
{
    (void)state;
    uint8_t buf[HF_ADVERT_LEN_MAX], big[HF_ADVERT_LEN_MAX] = {5};
    struct hf_slice d, body;
    struct hf_datagram_head h;
    assert_int_equal(hf_sealer_counter(sealer), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        assert_int_equal(hf_seal(sealer, HF_DATAGRAM_ADVERT, hf_slice_str("hello"), buf, &d), 0);
        assert_int_equal(hf_sealer_counter(sealer), i);
        assert_int_equal(open_copy(d, &h, &body), 0);
        hf_assert_slice_str(body, "hello");
        hf_assert_slice_str(h.host, "alpha");
        assert_int_equal(h.kind, HF_DATAGRAM_ADVERT);
        assert_int_equal(h.incarnation, 7);
        assert_int_equal(h.counter, i);
        assert_memory_equal(h.salt, hf_sealer_salt(sealer), HF_SALT_LEN);
    }
    assert_int_equal(hf_seal(sealer, HF_DATAGRAM_PROBE, hf_slice(NULL, 0), buf, &d), 0);
    assert_int_equal(open_copy(d, &h, &body), 0);
    assert_int_equal(body.n, 0);
    struct hf_slice most = hf_slice(big, HF_ADVERT_BODY_MAX);
    assert_int_equal(hf_seal(sealer, HF_DATAGRAM_ADVERT, most, buf, &d), 0);
    assert_int_equal(open_copy(d, &h, &body), 0);
    assert_true(hf_slice_eq(body, most));
    most.n = sizeof(big);
    assert_int_equal(hf_seal(sealer, HF_DATAGRAM_ADVERT, most, buf, &d), -HF_EFULL);
}

static void tampered_or_cut(void **state)
{
    (void)state;
    uint8_t buf[HF_ADVERT_LEN_MAX];
    struct hf_slice d, body = {0};
    struct hf_datagram_head h;
    assert_int_equal(hf_seal(sealer, HF_DATAGRAM_ADVERT, hf_slice_str("hello"), buf, &d), 0);
    for (int known = 0; known < 2; known++) { /* the second time the sender is remembered */
        for (size_t i = 0; i < d.n; i++) {
            for (unsigned bit = 1; bit < 256; bit <<= 1) {
                buf[i] ^= (uint8_t)bit;
                assert_true(open_copy(d, &h, &body) < 0);
                buf[i] ^= (uint8_t)bit;
            }
        }
        for (size_t n = 0; n < d.n; n++) { /* exact size, for the address sanitizer */
            uint8_t *cut = malloc(n ? n : 1);
            memcpy(cut, d.p, n);
            assert_true(open_copy(hf_slice(cut, n), &h, &body) < 0);
            free(cut);
        }
        assert_null(body.p);
        assert_int_equal(open_copy(d, &h, &body), 0);
        body = (struct hf_slice){0};
    }
    uint8_t longer[2000] = {0};
    memcpy(longer, d.p, d.n);
    assert_int_equal(open_copy(hf_slice(longer, d.n + 1), &h, &body), -HF_EAUTH);
    assert_int_equal(open_copy(hf_slice(longer, sizeof(longer)), &h, &body), -HF_EMALF);
}

static void another_key(void **state)
{
    (void)state;
    uint8_t buf[HF_ADVERT_LEN_MAX];
    struct hf_slice d, body;
    struct hf_datagram_head h;
    struct hf_sealer *s;
    assert_int_equal(hf_sealer_create(&other_key, "alpha", 7, &s), 0);
    assert_int_equal(hf_seal(s, HF_DATAGRAM_ADVERT, hf_slice_str("x"), buf, &d), 0);
    assert_int_equal(open_copy(d, &h, &body), -HF_EKEY);
    uint32_t id = hf_key_id(&key); /* with the key id of our cluster */
    for (size_t i = 0; i < 4; i++) {
        buf[4 + i] = (uint8_t)(id >> (24 - 8 * i));
    }
    assert_int_equal(open_copy(d, &h, &body), -HF_EAUTH);
    hf_sealer_destroy(s);
    assert_int_equal(hf_sealer_create(&key, "", 7, &s), -HF_ENAME);
}

static void more_senders_than_remembered(void **state)
{
    (void)state;
    static const char *const host[] = {"a", "b", "c", "d"};
    struct hf_sealer *s[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(hf_sealer_create(&key, host[i], i + 1, &s[i]), 0);
    }
    for (size_t i = 0; i < 40; i++) {
        uint8_t buf[HF_ADVERT_LEN_MAX];
        struct hf_slice d, body;
        struct hf_datagram_head h;
        assert_int_equal(hf_seal(s[i * 7 % 4], HF_DATAGRAM_ADVERT, hf_slice_str("x"), buf, &d), 0);
        assert_int_equal(open_copy(d, &h, &body), 0);
        hf_assert_slice_str(h.host, host[i * 7 % 4]);
    }
    for (size_t i = 0; i < 4; i++) {
        hf_sealer_destroy(s[i]);
    }
}

#define SEAL_TEST(fn) cmocka_unit_test_setup_teardown(fn, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SEAL_TEST(opens_what_was_sealed),
        SEAL_TEST(tampered_or_cut),
        SEAL_TEST(another_key),
        SEAL_TEST(more_senders_than_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
