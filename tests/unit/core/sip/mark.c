/* core/sip/mark: what peers say, and names of flows, can't be forged, moved or replayed. */
#include "core/sip/mark.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static const uint8_t key[HF_SIP_NONCE_KEY_LEN] = "k";
static struct hf_sip_keys keys;
static struct hf_sip_msg m;
static char text[2048];

static void request(const char *branch, const char *call_id, unsigned cseq, const char *more)
{
    int n = snprintf(text, sizeof(text),
                     "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=%s\r\n"
                     "From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: %s\r\nCSeq: %u INVITE\r\n"
                     "%s\r\n",
                     branch, call_id, cseq, more);
    assert_int_equal(hf_sip_parse(hf_slice(text, (size_t)n), false, &m), 0);
}

static const char *marked(const char *branch, const struct hf_sip_mark *mark)
{
    static char out[256];
    struct hf_slice s;
    struct hf_wr w;
    request("z9hG4bKold", "c", 1, "");
    hf_wr_init(&w, out, sizeof(out) - 1);
    hf_sip_mark_put(&w, &keys, &m, hf_slice_str(branch), mark);
    assert_int_equal(hf_wr_end(&w, &s), 0);
    out[s.n] = 0;
    return out;
}

static void marks(void **state)
{
    (void)state;
    struct hf_sip_mark mark = {.hop = 1, .epoch = 77, .offer = true}, got;
    char line[256];
    assert_int_equal(hf_sip_keys_make(key, &keys), 0);
    snprintf(line, sizeof(line), "%s", marked("z9hG4bKnew", &mark));
    assert_non_null(strstr(line, "Holdfast-Hop: 1;epoch=77;offer;tag="));
    request("z9hG4bKnew", "c", 1, line);
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), 1);
    assert_int_equal(got.hop, 1);
    assert_int_equal(got.epoch, 77);
    assert_true(got.offer);
    /* another hop, call, request */
    request("z9hG4bKnow", "c", 1, line);
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), -HF_EAUTH);
    request("z9hG4bKnew", "d", 1, line);
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), -HF_EAUTH);
    request("z9hG4bKnew", "c", 2, line);
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), -HF_EAUTH);
    /* changed, cut, twice, none */
    memcpy(strstr(line, "epoch=77"), "epoch=78", 8);
    request("z9hG4bKnew", "c", 1, line);
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), -HF_EAUTH);
    request("z9hG4bKnew", "c", 1, "Holdfast-Hop: 1;epoch=77;offer\r\n");
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), -HF_EAUTH);
    request("z9hG4bKnew", "c", 1, "Holdfast-Hop: x\r\n");
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), -HF_EAUTH);
    request("z9hG4bKnew", "c", 1, "");
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), 0);
    mark = (struct hf_sip_mark){.hop = 2, .epoch = 77, .fresh = true};
    request("z9hG4bKnew", "c", 1, marked("z9hG4bKnew", &mark));
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), 1);
    assert_true(got.fresh && !got.offer && got.hop == 2);
    mark.fresh = false;
    snprintf(line, sizeof(line), "%s", marked("z9hG4bKnew", &mark));
    assert_null(strstr(line, "offer"));
    char twice[512];
    snprintf(twice, sizeof(twice), "%s%s", line, line);
    request("z9hG4bKnew", "c", 1, twice);
    assert_int_equal(hf_sip_mark_get(&keys, &m, &got), -HF_EAUTH);
    /* another cluster */
    struct hf_sip_keys others;
    assert_int_equal(
        hf_sip_keys_make((const uint8_t *)"another key of 32 bytes, or more.", &others), 0);
    request("z9hG4bKnew", "c", 1, line);
    assert_int_equal(hf_sip_mark_get(&others, &m, &got), -HF_EAUTH);
}

static void back(void **state)
{
    (void)state;
    struct hf_sip_back b = {.listen = 9, .conn = UINT64_MAX - 5, .loop = 12345}, got;
    char params[HF_SIP_BACK_LEN], via[200];
    assert_int_equal(hf_sip_keys_make(key, &keys), 0);
    hf_sip_back_make(&keys, &b, S("z9hG4bKx"), params);
    snprintf(via, sizeof(via), "z9hG4bKx%.*s", HF_SIP_BACK_LEN, params);
    request(via, "c", 1, "");
    assert_int_equal(hf_sip_back_get(&keys, &m.via, &got), 0);
    assert_int_equal(got.listen, 9);
    assert_true(got.conn == b.conn);
    assert_int_equal(got.loop, 12345);
    snprintf(via, sizeof(via), "z9hG4bKy%.*s", HF_SIP_BACK_LEN, params);
    request(via, "c", 1, "");
    assert_int_equal(hf_sip_back_get(&keys, &m.via, &got), -HF_EAUTH);
    request("z9hG4bKx;hf=00", "c", 1, "");
    assert_int_equal(hf_sip_back_get(&keys, &m.via, &got), -HF_EAUTH);
    request("z9hG4bKx", "c", 1, "");
    assert_int_equal(hf_sip_back_get(&keys, &m.via, &got), -HF_EAUTH);
    struct hf_endpoint at = {.family = HF_AF_INET, .addr = {10, 0, 0, 1}, .port = 5060};
    uint16_t id = hf_sip_listen_id(HF_SIP_TRANSPORT_UDP, &at);
    assert_int_equal(hf_sip_listen_id(HF_SIP_TRANSPORT_UDP, &at), id);
    assert_int_not_equal(hf_sip_listen_id(HF_SIP_TRANSPORT_TCP, &at), id);
}

static void token(struct hf_sip_flow f)
{
    char t[HF_SIP_TOKEN_MAX];
    struct hf_sip_flow got;
    uint16_t listen;
    size_t n = hf_sip_token_make(&keys, 5, 3, &f, t);
    assert_int_equal(hf_sip_token_get(&keys, 5, hf_slice(t, n), &got, &listen), 0);
    assert_int_equal(listen, 3);
    assert_true(got.conn == f.conn && got.transport == f.transport &&
                hf_endpoint_eq(&got.peer, &f.peer));
    /* another life of the program: addresses are still good, connections not */
    assert_int_equal(hf_sip_token_get(&keys, 6, hf_slice(t, n), &got, &listen),
                     f.conn ? -HF_EAUTH : 0);
    for (size_t i = 0; i < n; i++) { /* nothing of it may be changed, or cut off */
        char was = t[i];
        t[i] = was == '0' ? '1' : '0';
        assert_int_not_equal(hf_sip_token_get(&keys, 5, hf_slice(t, n), &got, &listen), 0);
        t[i] = was;
        assert_int_not_equal(hf_sip_token_get(&keys, 5, hf_slice(t, i), &got, &listen), 0);
    }
}

static void tokens(void **state)
{
    (void)state;
    struct hf_sip_flow f = {.transport = HF_SIP_TRANSPORT_UDP,
                            .peer = {.family = HF_AF_INET, .addr = {192, 0, 2, 1}, .port = 40000}};
    assert_int_equal(hf_sip_keys_make(key, &keys), 0);
    token(f);
    f.transport = HF_SIP_TRANSPORT_TLS;
    f.conn = 1ULL << 56 | 4;
    token(f);
    f.peer.family = HF_AF_INET6;
    f.peer.addr[15] = 9;
    token(f);
    f.conn = 0;
    token(f);
    struct hf_sip_flow got;
    uint16_t listen;
    assert_int_equal(hf_sip_token_get(&keys, 5, S("alice"), &got, &listen), -HF_EMALF);
    assert_int_equal(hf_sip_token_get(&keys, 5, S(""), &got, &listen), -HF_EMALF);
}

/* What a loop has in common with the request that it was; the branch of its Via is another. */
static void loops(void **state)
{
    (void)state;
    request("z9hG4bK1", "c", 1, "");
    uint64_t h = hf_sip_loop_hash(&m, 0, 7);
    assert_true(h != hf_sip_loop_hash(&m, 2, 7));
    assert_true(h != hf_sip_loop_hash(&m, 0, 8));
    request("z9hG4bK2", "c", 1, "");
    assert_true(h == hf_sip_loop_hash(&m, 0, 7));
    request("z9hG4bK1", "d", 1, "");
    assert_true(h != hf_sip_loop_hash(&m, 0, 7));
    request("z9hG4bK1", "c", 2, "");
    assert_true(h != hf_sip_loop_hash(&m, 0, 7));
    request("z9hG4bK1", "c", 1, "Route: <sip:h;lr>\r\n");
    assert_true(h != hf_sip_loop_hash(&m, 0, 7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks),
        cmocka_unit_test(loops),
        cmocka_unit_test(back),
        cmocka_unit_test(tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
