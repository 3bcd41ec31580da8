/* codec/advert_v1: round trips, every truncation from exact-size buffers, each limit. */
#include "codec/advert_v1.h"

#include <errno.h>

#include "base/err.h"
#include "support/test.h"

#define ROOM (64 * 1024)

static const struct hf_endpoint v4 = {.family = HF_AF_INET, .addr = {192, 0, 2, 7}, .port = 7400};
static const struct hf_endpoint v6 = {
    .family = HF_AF_INET6, .addr = {0x20, 1, 0xd, 0xb8, [15] = 1}, .port = 1};

/* Decode one of our formats; the result is checked by encoding it again. */
typedef int decode_fn(struct hf_slice s, struct hf_wr *again);

static struct hf_owner_head owner_head(void)
{
    struct hf_owner_head h = {.owner = hf_slice_str("alpha"),
                              .incarnation = 3,
                              .salt = "0123456789abcde",
                              .counter = 77,
                              .version = 9,
                              .hash = UINT64_MAX,
                              .period_ms = 1000,
                              .endpoint = v6};
    return h;
}

static uint32_t encode_changes(struct hf_wr *w, struct hf_changes c)
{
    struct hf_change one;
    uint32_t n = 0;
    while (hf_changes_next(&c, &one)) {
        hf_change_encode(w, &one);
        n++;
    }
    return n;
}

static int decode_head(struct hf_slice s, struct hf_wr *again)
{
    struct hf_datagram_head h;
    size_t len = 0;
    int rc = hf_datagram_head_decode(s, &h, &len);
    if (rc == 0) {
        assert_int_equal(len, s.n);
        hf_datagram_head_encode(again, &h);
    }
    return rc;
}

static int decode_advert(struct hf_slice s, struct hf_wr *again)
{
    struct hf_advert a;
    int rc = hf_advert_decode(s, &a);
    if (rc == 0) {
        size_t mark;
        hf_advert_encode(again, &a, &mark);
        hf_advert_encode_end(again, mark, a.from, (uint16_t)encode_changes(again, a.changes));
    }
    return rc;
}

static int decode_pull(struct hf_slice s, struct hf_wr *again)
{
    struct hf_pull p;
    int rc = hf_pull_decode(s, &p);
    if (rc == 0) {
        hf_pull_encode(again, &p, p.changes.n);
        encode_changes(again, p.changes);
    }
    return rc;
}

static int decode_state(struct hf_slice s, struct hf_wr *again)
{
    struct hf_state st;
    int rc = hf_state_decode(s, &st);
    if (rc == 0) {
        struct hf_state_member m;
        hf_state_encode(again, &st);
        while (hf_state_next(&st, &m)) {
            hf_state_member_encode(again, &m, m.changes.n);
            encode_changes(again, m.changes);
        }
    }
    return rc;
}

static int decode_exact(decode_fn *fn, struct hf_slice s, size_t n, struct hf_wr *again)
{
    uint8_t *exact = malloc(n ? n : 1);
    assert_non_null(exact);
    memcpy(exact, s.p, n);
    int rc = fn(hf_slice(exact, n), again);
    free(exact);
    return rc;
}

/* Whole: comes back as it went. Truncated anywhere, or with a byte more: refused. */
static void round_trip(decode_fn *fn, const struct hf_wr *w)
{
    static uint8_t room[ROOM], longer[ROOM];
    struct hf_slice s = {0};
    assert_int_equal(hf_wr_end(w, &s), 0);
    struct hf_wr again;
    hf_wr_init(&again, room, sizeof(room));
    assert_int_equal(decode_exact(fn, s, s.n, &again), 0);
    struct hf_slice back = {0};
    assert_int_equal(hf_wr_end(&again, &back), 0);
    assert_true(hf_slice_eq(s, back));
    for (size_t n = 0; n < s.n; n++) {
        int rc = decode_exact(fn, s, n, &again);
        assert_true(rc == -HF_ETRUNC || rc == -HF_EMALF);
    }
    if (fn != decode_head) { /* a head is followed by the sealed body */
        memcpy(longer, s.p, s.n);
        longer[s.n] = 0;
        assert_int_equal(decode_exact(fn, hf_slice(longer, s.n + 1), s.n + 1, &again), -HF_ETRAIL);
    }
}

static uint8_t buf[ROOM];

static int decode_only(decode_fn *fn, const struct hf_wr *w)
{
    static uint8_t room[ROOM];
    struct hf_slice s = {0};
    struct hf_wr again;
    assert_int_equal(hf_wr_end(w, &s), 0);
    hf_wr_init(&again, room, sizeof(room));
    return decode_exact(fn, s, s.n, &again);
}

static void put(struct hf_wr *w, const char *name, const char *value)
{
    struct hf_change c = {.removed = value == NULL, .name = hf_slice_str(name)};
    if (value) {
        c.value = hf_slice_str(value);
    }
    hf_change_encode(w, &c);
}

/* ---- head ---- */

static struct hf_wr with_head(struct hf_datagram_head h)
{
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_datagram_head_encode(&w, &h);
    return w;
}

static struct hf_datagram_head good_head(void)
{
    return (struct hf_datagram_head){.kind = HF_DATAGRAM_ADVERT,
                                     .key_id = 0xdeadbeef,
                                     .incarnation = 1,
                                     .salt = "salt",
                                     .counter = UINT64_MAX,
                                     .host = hf_slice_str("alpha")};
}

static void head(void **state)
{
    (void)state;
    char longest[HF_HOST_NAME_MAX + 2];
    memset(longest, 'a', sizeof(longest));
    struct hf_datagram_head h = good_head();
    struct hf_wr w = with_head(h);
    round_trip(decode_head, &w);
    h.host = hf_slice(longest, HF_HOST_NAME_MAX);
    h.kind = HF_DATAGRAM_PROBE;
    w = with_head(h);
    round_trip(decode_head, &w);
    assert_int_equal(hf_wr_len(&w), HF_DATAGRAM_HEAD_LEN_MAX);
    h.host = hf_slice(longest, HF_HOST_NAME_MAX + 1);
    w = with_head(h);
    assert_int_not_equal(decode_only(decode_head, &w), 0);
    h = good_head();
    h.host = hf_slice_str("Alpha");
    w = with_head(h);
    assert_int_equal(decode_only(decode_head, &w), -HF_ENAME);
    h = good_head();
    h.host = hf_slice(NULL, 0);
    w = with_head(h);
    assert_int_equal(decode_only(decode_head, &w), -HF_ENAME);
}

static void head_limits(void **state)
{
    (void)state;
    struct hf_datagram_head h = good_head();
    h.incarnation = 0;
    struct hf_wr w = with_head(h);
    assert_int_equal(decode_only(decode_head, &w), -HF_EMALF);
    h = good_head();
    h.counter = 0;
    w = with_head(h);
    assert_int_equal(decode_only(decode_head, &w), -HF_EMALF);
    for (int kind = 0; kind < 256; kind++) {
        h = good_head();
        h.kind = (uint8_t)kind;
        w = with_head(h);
        assert_int_equal(decode_only(decode_head, &w), kind == 1 || kind == 2 ? 0 : -HF_EMALF);
    }
    for (int version = 0; version < 256; version++) {
        w = with_head(good_head());
        buf[2] = (uint8_t)version;
        assert_int_equal(decode_only(decode_head, &w), version == 1  ? 0
                                                       : version > 1 ? -HF_EVERSION
                                                                     : -HF_EMALF);
    }
    w = with_head(good_head());
    buf[0] ^= 1;
    assert_int_equal(decode_only(decode_head, &w), -HF_EMALF);
}

/* ---- advert ---- */

static struct hf_advert good_advert(void)
{
    return (struct hf_advert){
        .flags = HF_ADVERT_BYE, .period_ms = 1000, .version = 5, .hash = 42, .endpoint = v4};
}

static struct hf_wr with_advert(struct hf_advert a, uint64_t from, uint16_t n)
{
    struct hf_wr w;
    size_t mark;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_advert_encode(&w, &a, &mark);
    if (n > 0) {
        put(&w, "/pg/orders", "{\"a\":1}");
    }
    if (n > 1) {
        put(&w, "/pg/orders", NULL); /* an advert tells a history: a name may come twice */
    }
    hf_advert_encode_end(&w, mark, from, n);
    return w;
}

static void advert(void **state)
{
    (void)state;
    struct hf_wr w = with_advert(good_advert(), 3, 2);
    round_trip(decode_advert, &w);
    struct hf_advert a = good_advert();
    a.endpoint = (struct hf_endpoint){0};
    a.flags = 0;
    w = with_advert(a, 5, 0);
    round_trip(decode_advert, &w);
}

static void advert_limits(void **state)
{
    (void)state;
    static const uint32_t period[] = {HF_ADVERT_PERIOD_MS_MIN, HF_ADVERT_PERIOD_MS_MAX};
    struct hf_advert a = good_advert();
    for (size_t i = 0; i < 2; i++) {
        a.period_ms = period[i];
        struct hf_wr w = with_advert(a, 0, 1);
        assert_int_equal(decode_only(decode_advert, &w), 0);
        a.period_ms = i ? period[i] + 1 : period[i] - 1;
        w = with_advert(a, 0, 1);
        assert_int_equal(decode_only(decode_advert, &w), -HF_EMALF);
    }
    struct hf_wr w = with_advert(good_advert(), 6, 1); /* from > version */
    assert_int_equal(decode_only(decode_advert, &w), -HF_EMALF);
    a = good_advert();
    a.flags = 2;
    w = with_advert(a, 0, 0);
    assert_int_equal(decode_only(decode_advert, &w), -HF_EMALF);
    a = good_advert();
    a.endpoint.port = 0;
    w = with_advert(a, 0, 0);
    assert_int_equal(decode_only(decode_advert, &w), -HF_EMALF);
    w = with_advert(good_advert(), 0, 0);
    buf[21] = 5; /* the endpoint's family */
    assert_int_equal(decode_only(decode_advert, &w), -HF_EMALF);
}

static int one_change(const char *name, size_t name_len, const char *value, size_t value_len)
{
    struct hf_advert a = good_advert();
    struct hf_change c = {.name = hf_slice(name, name_len), .value = hf_slice(value, value_len)};
    struct hf_wr w;
    size_t mark;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_advert_encode(&w, &a, &mark);
    size_t before = hf_wr_len(&w);
    hf_change_encode(&w, &c);
    if (!w.err) {
        assert_true(hf_wr_len(&w) - before <= name_len + value_len + HF_CHANGE_OVERHEAD);
    }
    hf_advert_encode_end(&w, mark, 0, 1);
    return w.err ? w.err : decode_only(decode_advert, &w);
}

static void change_limits(void **state)
{
    (void)state;
    static char name[HF_SERVICE_NAME_MAX + 2], value[HF_VALUE_LEN_MAX + 2];
    for (size_t i = 0; i < sizeof(name); i++) {
        name[i] = i % 60 ? 'x' : '/';
    }
    memset(value, ' ', sizeof(value));
    value[0] = '{';
    value[1] = '}';
    assert_int_equal(one_change(name, HF_SERVICE_NAME_MAX, value, HF_VALUE_LEN_MAX), 0);
    assert_int_not_equal(one_change(name, HF_SERVICE_NAME_MAX + 1, value, 2), 0);
    assert_int_not_equal(one_change(name, 5, value, HF_VALUE_LEN_MAX + 1), 0);
    assert_int_equal(one_change("/a", 2, "{", 1), -HF_EVALUE);
    assert_int_equal(one_change("/a", 2, "[]", 2), -HF_EVALUE);
    assert_int_equal(one_change("/a", 2, "", 0), -HF_EVALUE);
    assert_int_equal(one_change("a", 1, "{}", 2), -HF_ENAME);
    assert_int_equal(one_change("", 0, "{}", 2), -HF_ENAME);
}

/* ---- pull ---- */

static struct hf_wr with_pull(struct hf_pull p, uint32_t n, const char *const name[])
{
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_pull_encode(&w, &p, n);
    for (uint32_t i = 0; name[i]; i++) {
        put(&w, name[i] + 1, name[i][0] == '-' ? NULL : "{}");
    }
    return w;
}

static const char *const sorted[] = {"+/a", "+/a/b", "+/b", NULL};
static const char *const unsorted[] = {"+/b", "+/a", NULL};
static const char *const twice[] = {"+/a", "+/a", NULL};
static const char *const removal[] = {"+/a", "-/b", NULL};

static void pull(void **state)
{
    (void)state;
    struct hf_pull p = {.head = owner_head(), .your_incarnation = 4, .full = true};
    struct hf_wr w = with_pull(p, 3, sorted);
    round_trip(decode_pull, &w);
    p = (struct hf_pull){.head = owner_head(), .from = 9};
    w = with_pull(p, 2, removal);
    round_trip(decode_pull, &w);
    char longest[HF_HOST_NAME_MAX];
    memset(longest, 'a', sizeof(longest));
    p.head.owner = hf_slice(longest, sizeof(longest));
    w = with_pull(p, 0, sorted + 3);
    round_trip(decode_pull, &w);
    assert_true(hf_wr_len(&w) <= HF_PULL_HEAD_MAX);
}

static void pull_limits(void **state)
{
    (void)state;
    struct hf_pull full = {.head = owner_head(), .full = true};
    struct hf_pull delta = {.head = owner_head(), .from = 2};
    struct hf_wr w = with_pull(full, 2, unsorted);
    assert_int_equal(decode_only(decode_pull, &w), -HF_EMALF);
    w = with_pull(delta, 2, twice);
    assert_int_equal(decode_only(decode_pull, &w), -HF_EMALF);
    w = with_pull(full, 2, removal);
    assert_int_equal(decode_only(decode_pull, &w), -HF_EMALF);
    w = with_pull(full, HF_ENTRIES_PER_HOST_MAX + 1, sorted);
    assert_int_equal(decode_only(decode_pull, &w), -HF_EFULL);
    w = with_pull(full, HF_ENTRIES_PER_HOST_MAX, sorted);
    assert_int_equal(decode_only(decode_pull, &w), -HF_ETRUNC);
    w = with_pull(delta, HF_ENTRIES_PER_HOST_MAX + HF_HISTORY_MAX + 1, sorted);
    assert_int_equal(decode_only(decode_pull, &w), -HF_EFULL);
    full.from = 1;
    w = with_pull(full, 0, sorted + 3);
    assert_int_equal(decode_only(decode_pull, &w), -HF_EMALF);
    delta.from = 10;
    w = with_pull(delta, 0, sorted + 3);
    assert_int_equal(decode_only(decode_pull, &w), -HF_EMALF);
    full = (struct hf_pull){.head = owner_head(), .full = true};
    full.head.incarnation = 0;
    w = with_pull(full, 0, sorted + 3);
    assert_int_equal(decode_only(decode_pull, &w), -HF_EMALF);
    full.head.incarnation = 1;
    full.head.period_ms = HF_ADVERT_PERIOD_MS_MAX + 1;
    w = with_pull(full, 0, sorted + 3);
    assert_int_equal(decode_only(decode_pull, &w), -HF_EMALF);
    full = (struct hf_pull){.head = owner_head(), .full = true};
    w = with_pull(full, 0, sorted + 3);
    buf[hf_wr_len(&w) - 13] = 2; /* `full` is 0 or 1 */
    assert_int_equal(decode_only(decode_pull, &w), -HF_EMALF);
    buf[0] ^= 1;
    assert_int_equal(decode_only(decode_pull, &w), -HF_EMALF);
}

/* ---- state ---- */

static struct hf_wr with_state(uint32_t n, const char *const name[])
{
    struct hf_state s = {.from = hf_slice_str("gamma"), .your_incarnation = 1, .n_members = n};
    struct hf_state_member hint = {.head = owner_head(), .age_ms = 5};
    struct hf_state_member part = {.head = owner_head(), .age_ms = UINT32_MAX, .has_part = true};
    part.head.owner = hf_slice_str("beta");
    part.head.endpoint = (struct hf_endpoint){0};
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_state_encode(&w, &s);
    if (n > 0) {
        hf_state_member_encode(&w, &hint, 0);
    }
    if (n > 1) {
        uint32_t entries = 0;
        while (name[entries]) {
            entries++;
        }
        hf_state_member_encode(&w, &part, entries);
        for (uint32_t i = 0; name[i]; i++) {
            put(&w, name[i] + 1, name[i][0] == '-' ? NULL : "{}");
        }
    }
    return w;
}

static void state_body(void **state)
{
    (void)state;
    struct hf_wr w = with_state(2, sorted);
    round_trip(decode_state, &w);
    w = with_state(1, sorted);
    round_trip(decode_state, &w);
    w = with_state(0, sorted);
    round_trip(decode_state, &w);
}

static void state_limits(void **state)
{
    (void)state;
    struct hf_wr w = with_state(2, unsorted);
    assert_int_equal(decode_only(decode_state, &w), -HF_EMALF);
    w = with_state(2, twice);
    assert_int_equal(decode_only(decode_state, &w), -HF_EMALF);
    w = with_state(2, removal);
    assert_int_equal(decode_only(decode_state, &w), -HF_EMALF);
    struct hf_state s = {.from = hf_slice_str("gamma"), .n_members = HF_HOSTS_MAX + 1};
    hf_wr_init(&w, buf, sizeof(buf));
    hf_state_encode(&w, &s);
    assert_int_equal(decode_only(decode_state, &w), -HF_EFULL);
    s = (struct hf_state){.from = hf_slice_str("not a host")};
    hf_wr_init(&w, buf, sizeof(buf));
    hf_state_encode(&w, &s);
    assert_int_equal(decode_only(decode_state, &w), -HF_ENAME);
    buf[0] ^= 1;
    assert_int_equal(decode_only(decode_state, &w), -HF_EMALF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(head),          HF_TEST(head_limits),   HF_TEST(advert),
        HF_TEST(advert_limits), HF_TEST(change_limits), HF_TEST(pull),
        HF_TEST(pull_limits),   HF_TEST(state_body),    HF_TEST(state_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
