/* core/sip/steer_inline: what the kernel guesses is what hf_sip_element_owner() says, or nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sip/element.h"
#include "support/sip_element_rig.h"
#include "support/test.h"

struct datagram {
    const uint8_t *p;
    size_t n;
};
#define HF_STEER_PACKET const struct datagram

static int hf_steer_load(const struct datagram *d, uint32_t off, void *to, uint32_t n)
{
    if (off > d->n || n > d->n - off) {
        return -1;
    }
    memcpy(to, d->p + off, n);
    return 0;
}

#include "core/sip/steer_inline.h"

#define N_MAX 9u
#define OWN "z9hG4bK01" /* of worker 1 */

/* From a buffer of exactly its size. */
static int guess(const char *text, size_t len, uint32_t n)
{
    uint8_t *p = malloc(len ? len : 1);
    assert_non_null(p);
    memcpy(p, text, len);
    int worker = hf_steer(&(struct datagram){p, len}, (uint32_t)len, n);
    free(p);
    return worker;
}

static unsigned owner(const char *text, unsigned n)
{
    static struct hf_sip_msg m;
    assert_int_equal(hf_sip_parse(hf_slice_str(text), false, &m), 0);
    return hf_sip_element_owner(&m, n);
}

static void same(const char *text)
{
    for (unsigned n = 2; n <= N_MAX; n++) {
        assert_int_equal(guess(text, strlen(text), n), owner(text, n));
    }
}

static void none(const char *text)
{
    assert_int_equal(guess(text, strlen(text), 3), HF_STEER_NONE);
}

static const char *registering(const char *to, const char *before)
{
    static char text[4096];
    snprintf(text, sizeof(text),
             "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK7;rport"
             "\r\n%sFrom: <sip:ann@example.com>;tag=to\r\nMax-Forwards: 70\r\n%s\r\n"
             "Call-ID: c1@192.0.2.1\r\nCSeq: 1 REGISTER\r\nContact: <sip:ann@192.0.2.1>\r\n"
             "Content-Length: 0\r\n\r\n",
             before, to);
    return text;
}

static void registers(void **state)
{
    (void)state;
    static const char *const to[] = {
        "To: <sip:bob@example.com>",     "To: sip:bob@example.com;tag=1",
        "To:<sips:bob@example.com>",     "t: Bob B. <sip:bob@example.com>",
        "TO: \"Bob\" <SIP:bob@[::1]>",   "To: <sip:+1(2)-3;x=y&z=$,?/@example.com:5070>",
        "To: <sip:b!o~b*'@example.com>",
    };
    static const char *const unclear[] = {
        "To: <sip:example.com>",
        "To: <sip:example.com:5070;x=y@z>",
        "To: <sip:b%6fb@example.com>",
        "To: <sip:bob:secret@example.com>",
        "To: <tel:+12>",
        "To : <sip:bob@example.com>",
        "To:\r\n <sip:bob@example.com>",
    };
    char more[1200];
    for (size_t i = 0; i < HF_ARRAY_LEN(to); i++) {
        same(registering(to[i], ""));
        for (int n = 0; n < 130; n++) { /* wherever it is in the windows */
            snprintf(more, sizeof(more), "X: %0*d\r\n", n + 1, 0);
            same(registering(to[i], more));
        }
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(unclear); i++) {
        none(registering(unclear[i], ""));
    }
    snprintf(more, sizeof(more), "X: %0*d\r\n", (int)HF_STEER_LOOK, 0);
    none(registering(to[0], more)); /* too far away */
    snprintf(more, sizeof(more), "To: <sip:%0*d@example.com>", (int)HF_STEER_WINDOW, 0);
    none(registering(more, "")); /* too long */
}

static void requests(void **state)
{
    (void)state;
    static const char *const uri[] = {"sip:bob@example.com", "sips:b.ob@10.0.0.2:5070;hf=4.5",
                                      "sip:bob;p=1@example.com"};
    static const char *const unclear[] = {"sip:10.0.0.1:5060", "sip:%62ob@example.com",
                                          "sip:bob:secret@example.com"};
    static const char *const method[] = {"INVITE", "ACK", "SUBSCRIBE"};
    char text[2048];
    for (size_t i = 0; i < HF_ARRAY_LEN(method); i++) {
        for (size_t k = 0; k < HF_ARRAY_LEN(uri); k++) {
            rig_request(text, sizeof(text), method[i], uri[k], "sip:x@example.com", "", 1);
            same(text);
            rig_request(text, sizeof(text), method[i], unclear[k], "sip:x@example.com", "", 1);
            none(text);
        }
    }
}

static const char *response(const char *branch, const char *before)
{
    static char text[2048];
    snprintf(text, sizeof(text),
             "SIP/2.0 200 OK\r\n%sVia: SIP/2.0/UDP 10.0.0.1;branch=%s;rport\r\nVia: SIP/2.0/UDP h;"
             "branch=z9hG4bK02345678901234567890\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>\r\n"
             "Call-ID: c\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
             before, branch);
    return text;
}

static void responses(void **state)
{
    (void)state;
    char more[256], branch[64];
    unsigned got = 0;
    for (int n = 0; n < 130; n++) {
        snprintf(more, sizeof(more), "X: %0*d\r\n", n + 1, 0);
        same(response(OWN "0123456789abcdef99", more));
    }
    for (int i = 0; i < 256; i++) { /* stateless ones: all have their share */
        snprintf(branch, sizeof(branch), "z9hG4bK%02x3456789abcdef0", i);
        int worker = guess(response(branch, ""), strlen(response(branch, "")), 3);
        assert_true(worker >= 0 && worker < 3);
        got |= 1u << worker;
    }
    assert_int_equal(got, 7);
    none(response("z9hG4bKff0123456789abcdef99", "")); /* no such worker */
    none(response("z9hG4bKnashds8", ""));
}

/* Cut off anywhere it is the same, or nothing. */
static void cut(void **state)
{
    (void)state;
    char text[2][4096];
    snprintf(text[0], sizeof(text[0]), "%s", registering("To: \"Bob\" <sip:bob@h>", ""));
    snprintf(text[1], sizeof(text[1]), "%s", response(OWN "0123456789abcdef99", ""));
    for (size_t i = 0; i < HF_ARRAY_LEN(text); i++) {
        for (size_t n = 0; n < strlen(text[i]); n++) {
            int worker = guess(text[i], n, 5);
            assert_true(worker == HF_STEER_NONE || (unsigned)worker == owner(text[i], 5));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(registers), HF_TEST(requests), HF_TEST(responses),
                                       HF_TEST(cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
