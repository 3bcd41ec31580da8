/* codec/ctl_v1: every type whole, byte by byte, truncated, with bytes left over, and bad values. */
#include "codec/ctl_v1.h"

#include "base/err.h"
#include "support/test.h"

static const struct hf_ctl_msg every[] = {
#define S(x)                                                                                       \
    {                                                                                              \
        (const uint8_t *)(x), sizeof(x) - 1                                                        \
    }
    {.type = HF_CTL_HELLO, .version = HF_CTL_VERSION, .text = S("alpha")},
    {.type = HF_CTL_PUBLISH, .seq = 1, .lease_ms = 7, .name = S("/a/b"), .value = S("{\"x\":1}")},
    {.type = HF_CTL_WITHDRAW, .seq = 2, .name = S("/a/b")},
    {.type = HF_CTL_WATCH, .seq = 3, .name = S("/a")},
    {.type = HF_CTL_UNWATCH, .seq = 4, .watch = 3},
    {.type = HF_CTL_QUERY, .seq = 5, .name = S("tree"), .value = S("/a")},
    {.type = HF_CTL_TRACE, .seq = 6, .mask = 5},
    {.type = HF_CTL_RELOAD, .seq = 7},
    {.type = HF_CTL_RESULT, .seq = 8, .code = -HF_EFULL, .text = S("a limit is reached")},
    {.type = HF_CTL_TEXT, .seq = 9, .value = S("[1,2]")},
    {.type = HF_CTL_EVENT,
     .seq = 10,
     .event = HF_CTL_CHANGED,
     .owner = S("beta"),
     .name = S("/a"),
     .value = S("{}")},
    {.type = HF_CTL_LINE, .seq = 11, .text = S("a line")},
    {.type = HF_CTL_GROUP,
     .seq = 12,
     .action = HF_CTL_GROUP_FORCE,
     .wait_ms = 90000,
     .name = S("orders"),
     .owner = S("beta"),
     .resource = S("copy2"),
     .value = S("group orders {}")},
    {.type = HF_CTL_FOLLOW, .seq = 13, .name = S("orders")},
    {.type = HF_CTL_GROUP_STATE,
     .seq = 14,
     .flags = HF_CTL_GROUP_MEMBER | HF_CTL_GROUP_HERE,
     .phase = 4,
     .epoch = 1ull << 40,
     .resource = S("copy1"),
     .owner = S("alpha"),
     .address = S("192.0.2.1"),
     .fence_text = S("sysid=1 timeline=2 xmax=3"),
     .lost = S("beta gamma")},
#undef S
};

static size_t encode(const struct hf_ctl_msg *m, uint8_t *buf, size_t n)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    hf_ctl_encode(&w, m);
    return hf_wr_end(&w, &s) == 0 ? s.n : 0;
}

static void assert_same(const struct hf_ctl_msg *a, const struct hf_ctl_msg *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->version, b->version);
    assert_int_equal(a->event, b->event);
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->watch, b->watch);
    assert_int_equal(a->mask, b->mask);
    assert_int_equal(a->lease_ms, b->lease_ms);
    assert_int_equal(a->code, b->code);
    assert_int_equal(a->action, b->action);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->phase, b->phase);
    assert_int_equal(a->wait_ms, b->wait_ms);
    assert_int_equal(a->epoch, b->epoch);
    assert_true(hf_slice_eq(a->resource, b->resource));
    assert_true(hf_slice_eq(a->address, b->address));
    assert_true(hf_slice_eq(a->fence_text, b->fence_text));
    assert_true(hf_slice_eq(a->lost, b->lost));
    assert_true(hf_slice_eq(a->owner, b->owner));
    assert_true(hf_slice_eq(a->name, b->name));
    assert_true(hf_slice_eq(a->value, b->value));
    assert_true(hf_slice_eq(a->text, b->text));
}

static void whole_and_byte_by_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < HF_ARRAY_LEN(every); i++) {
        uint8_t buf[128];
        size_t n = encode(&every[i], buf, sizeof(buf));
        assert_true(n > 4 && n <= hf_ctl_room(&every[i]));
        struct hf_ctl_msg m;
        for (size_t len = 0; len < n; len++) {
            uint8_t *exact = malloc(len ? len : 1);
            memcpy(exact, buf, len);
            assert_int_equal(hf_ctl_decode(hf_slice(exact, len), &m), 0);
            free(exact);
        }
        assert_int_equal(hf_ctl_decode(hf_slice(buf, n), &m), n);
        assert_same(&m, &every[i]);
        buf[n] = 0x55; /* of the next frame */
        assert_int_equal(hf_ctl_decode(hf_slice(buf, n + 1), &m), n);
    }
}

static void frames_that_lie_about_their_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < HF_ARRAY_LEN(every); i++) {
        uint8_t buf[128];
        size_t n = encode(&every[i], buf, sizeof(buf) - 1);
        struct hf_ctl_msg m;
        buf[n] = 0;
        buf[3]++;
        assert_int_equal(hf_ctl_decode(hf_slice(buf, n + 1), &m), -HF_ETRAIL);
        for (uint8_t len = 1; len < n - 4; len++) {
            buf[3] = len;
            int rc = hf_ctl_decode(hf_slice(buf, 4 + (size_t)len), &m);
            assert_true(rc == -HF_ETRUNC || rc == -HF_EMALF);
        }
    }
}

static int decode_bytes(const char *p, size_t n)
{
    struct hf_ctl_msg m;
    return hf_ctl_decode(hf_slice(p, n), &m);
}

static void bad_frames(void **state)
{
    (void)state;
    assert_int_equal(decode_bytes("\0\0\0\0", 4), -HF_EMALF);
    assert_int_equal(decode_bytes("\0\4\0\1", 4), -HF_EMALF); /* over HF_CTL_FRAME_MAX */
    assert_int_equal(decode_bytes("\377\377\377\377", 4), -HF_EMALF);
    assert_int_equal(decode_bytes("\0\0\0\5\143\0\0\0\1", 9), -HF_EMALF); /* type 99 */
    assert_int_equal(decode_bytes("\0\0\0\4\1\2\0\0", 8), -HF_EVERSION);  /* HELLO 2 */
    assert_int_equal(decode_bytes("\0\0\0\14\22\0\0\0\1\0\0\0\0\0\0\0", 16), -HF_EMALF);
    assert_int_equal(decode_bytes("\0\0\0\14\22\0\0\0\1\5\0\0\0\0\0\0", 16), -HF_EMALF);
    struct hf_ctl_msg m = every[8];
    static uint8_t buf[HF_CTL_FRAME_MAX + 64];
    static const uint8_t text[HF_VALUE_LEN_MAX + 1];
    m.text = hf_slice(text, 1024);
    size_t n = encode(&m, buf, sizeof(buf));
    assert_int_equal(hf_ctl_decode(hf_slice(buf, n), &m), n);
    m.text = hf_slice(text, 1025);
    n = encode(&m, buf, sizeof(buf));
    assert_int_equal(hf_ctl_decode(hf_slice(buf, n), &m), -HF_EMALF);
    m = every[1];
    m.value = hf_slice(text, HF_VALUE_LEN_MAX + 1);
    n = encode(&m, buf, sizeof(buf));
    assert_int_equal(hf_ctl_decode(hf_slice(buf, n), &m), -HF_EMALF);
}

static void bad_groups(void **state)
{
    (void)state;
    static uint8_t buf[HF_CTL_FRAME_MAX];
    static const uint8_t text[HF_GROUP_DEFINITION_MAX + 1];
    struct hf_ctl_msg out, group = every[12], group_state = every[14], m;
    assert_int_equal(group.type, HF_CTL_GROUP);
    assert_int_equal(group_state.type, HF_CTL_GROUP_STATE);
#define REFUSED(from, field, bad)                                                                  \
    m = (from);                                                                                    \
    m.field = (bad);                                                                               \
    assert_int_equal(hf_ctl_decode(hf_slice(buf, encode(&m, buf, sizeof(buf))), &out), -HF_EMALF)
    REFUSED(group, action, 0);
    REFUSED(group, action, HF_CTL_GROUP_END_);
    REFUSED(group, name, hf_slice(text, HF_GROUP_NAME_MAX + 1));
    REFUSED(group, owner, hf_slice(text, HF_HOST_NAME_MAX + 1));
    REFUSED(group, resource, hf_slice(text, HF_GROUP_RESOURCE_NAME_MAX + 1));
    REFUSED(group, value, hf_slice(text, HF_GROUP_DEFINITION_MAX + 1));
    REFUSED(group_state, flags, 8);
    REFUSED(group_state, phase, 5);
    REFUSED(group_state, address, hf_slice(text, HF_GROUP_ADDRESS_MAX + 1));
    REFUSED(group_state, fence_text, hf_slice(text, HF_GROUP_FENCE_TEXT_MAX + 1));
    REFUSED(group_state, lost, hf_slice(text, HF_GROUP_LOST_MAX + 1));
#undef REFUSED
}

static void the_writer_has_no_room(void **state)
{
    (void)state;
    uint8_t buf[128];
    for (size_t i = 0; i < HF_ARRAY_LEN(every); i++) {
        size_t n = encode(&every[i], buf, sizeof(buf));
        for (size_t room = 0; room < n; room++) {
            uint8_t *exact = malloc(room ? room : 1);
            assert_int_equal(encode(&every[i], exact, room), 0);
            free(exact);
        }
    }
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(hf_ctl_type_name(HF_CTL_PUBLISH), "PUBLISH");
    assert_null(hf_ctl_type_name(0));
    assert_string_equal(hf_ctl_group_name(HF_CTL_GROUP_CONFIRM), "confirm");
    assert_null(hf_ctl_group_name(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(whole_and_byte_by_byte),
        HF_TEST(frames_that_lie_about_their_length),
        HF_TEST(bad_frames),
        HF_TEST(bad_groups),
        HF_TEST(the_writer_has_no_room),
        HF_TEST(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
