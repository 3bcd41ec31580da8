/* core/sip/frame: messages out of a stream that is cut anywhere, keep-alives, and what is refused.
 */
#include "core/sip/frame.h"

#include <stdio.h>

#include "base/err.h"
#include "support/test.h"

#define HEAD "OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/TCP a\r\n"

static struct hf_sip_frame first(const char *s)
{
    struct hf_sip_framer f = {0};
    struct hf_sip_frame r;
    hf_sip_frame(&f, hf_slice_str(s), &r);
    return r;
}

static void one(const char *s, enum hf_sip_frame_kind kind, size_t n)
{
    struct hf_sip_frame r = first(s);
    assert_int_equal(r.kind, kind);
    assert_int_equal(r.n, n);
}

static void whole(void **state)
{
    (void)state;
    one(HEAD "l: 3\r\n\r\nabcdef", HF_SIP_FRAME_MESSAGE, strlen(HEAD) + 11);
    one(HEAD "CONTENT-LENGTH\t: \r\n 003 \r\nX: y\r\n\r\nabc", HF_SIP_FRAME_MESSAGE,
        strlen(HEAD) + 37);
    one("X: y\r\n Content-Length: 9\r\nl: 0\r\n\r\n", HF_SIP_FRAME_MESSAGE, 34);
    one(HEAD "l: 3\r\n\r\nab", HF_SIP_FRAME_MORE, 0);
    one(HEAD "l: 3\r\n", HF_SIP_FRAME_MORE, 0);
    one("", HF_SIP_FRAME_MORE, 0);
}

static void keep_alives(void **state)
{
    (void)state;
    one("\r\n\r\nOPTIONS", HF_SIP_FRAME_PING, 4);
    one("\r\n\r\n", HF_SIP_FRAME_PING, 4);
    one("\r", HF_SIP_FRAME_MORE, 0);
    one("\r\n", HF_SIP_FRAME_MORE, 0); /* maybe half a ping */
    one("\r\n\r", HF_SIP_FRAME_MORE, 0);
    one("\r\nOPTIONS", HF_SIP_FRAME_SKIP, 2);
    one("\r\n\rx", HF_SIP_FRAME_SKIP, 2);
    struct hf_sip_framer f = {.pings = true};
    struct hf_sip_frame r;
    hf_sip_frame(&f, hf_slice_str("\r\n"), &r);
    assert_int_equal(r.kind, HF_SIP_FRAME_PONG);
    assert_int_equal(r.n, 2);
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum hf_sip_fault fault;
    } bad[] = {
        {HEAD "\r\n", HF_SIP_FAULT_NO_CONTENT_LENGTH},
        {HEAD "X: l: 3\r\n\r\n", HF_SIP_FAULT_NO_CONTENT_LENGTH},
        {HEAD "l: -1\r\n\r\n", HF_SIP_FAULT_CONTENT_LENGTH},
        {HEAD "l: five\r\n\r\n", HF_SIP_FAULT_CONTENT_LENGTH},
        {HEAD "l: 1 2\r\n\r\n", HF_SIP_FAULT_CONTENT_LENGTH},
        {HEAD "l: 1\r\nl: 1\r\n\r\n", HF_SIP_FAULT_REPEATED},
        {HEAD "l: 65535\r\n\r\n", HF_SIP_FAULT_TOO_LARGE},
        {HEAD "l: 18446744073709551617\r\n\r\n", HF_SIP_FAULT_TOO_LARGE},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        struct hf_sip_frame r = first(bad[i].text);
        assert_int_equal(r.kind, HF_SIP_FRAME_REFUSED);
        assert_int_equal(r.fault, bad[i].fault);
        assert_int_equal(r.n, strlen(bad[i].text)); /* the header, to be answered */
    }
    struct hf_sip_framer f = {.len_max = 40};
    struct hf_sip_frame r;
    hf_sip_frame(&f, hf_slice_str(HEAD), &r);
    assert_int_equal(r.kind, HF_SIP_FRAME_REFUSED);
    assert_int_equal(r.fault, HF_SIP_FAULT_TOO_LARGE);
    assert_int_equal(r.n, 0);
}

/* Byte by byte, and in all pieces of two cuts, the same frames come out. */
static void pieces(void **state)
{
    (void)state;
    static const char stream[] = "\r\n\r\n" HEAD "l: 3\r\n\r\nabc\r\n" HEAD
                                 "Content-Length: 0\r\n\r\n" HEAD "l: 4\r\n\r\n\r\n\r\n";
    for (size_t step = 1; step < sizeof(stream); step++) {
        struct hf_sip_framer f = {0};
        size_t taken = 0, messages = 0, pings = 0, skips = 0;
        for (size_t have = 0; have < sizeof(stream) - 1;) {
            have = have + step < sizeof(stream) - 1 ? have + step : sizeof(stream) - 1;
            for (;;) {
                char *copy = malloc(have - taken + 1);
                struct hf_sip_frame r;
                assert_non_null(copy);
                memcpy(copy, stream + taken, have - taken);
                hf_sip_frame(&f, hf_slice(copy, have - taken), &r);
                free(copy);
                if (r.kind == HF_SIP_FRAME_MORE) {
                    break;
                }
                messages += r.kind == HF_SIP_FRAME_MESSAGE;
                pings += r.kind == HF_SIP_FRAME_PING;
                skips += r.kind == HF_SIP_FRAME_SKIP;
                assert_true(r.n > 0 && r.n <= have - taken);
                taken += r.n;
            }
        }
        assert_int_equal(taken, sizeof(stream) - 1);
        assert_int_equal(messages, 3);
        assert_int_equal(pings, 1);
        assert_int_equal(skips, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(whole),
        HF_TEST(keep_alives),
        HF_TEST(refused),
        HF_TEST(pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
