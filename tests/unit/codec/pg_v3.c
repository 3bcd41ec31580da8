/* codec/pg_v3: what is built is read again; start-up packets and bodies cut at each length. */
#include "codec/pg_v3.h"

#include "base/err.h"
#include "base/mem.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_buf b;

static int setup(void **state)
{
    (void)state;
    hf_buf_init(&b, 4096);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hf_buf_fini(&b);
    return 0;
}

/* The body of the one message in b, whose type is this. */
static struct hf_slice body_of(uint8_t type)
{
    struct hf_pg_head h;
    assert_int_equal(b.err, 0);
    assert_int_equal(hf_pg_head_read(hf_buf_slice(&b), &h), 0);
    assert_int_equal(h.type, type);
    assert_int_equal(h.body_len + HF_PG_HEAD_LEN, b.n);
    return hf_slice(b.p + HF_PG_HEAD_LEN, h.body_len);
}

/* Bytes in a heap buffer of exactly their size: the sanitizer sees each byte too far. */
static uint8_t *exact(struct hf_slice s, size_t n)
{
    uint8_t *p = malloc(n ? n : 1);
    assert_non_null(p);
    if (n) {
        memcpy(p, s.p, n);
    }
    return p;
}

static void heads(void **state)
{
    (void)state;
    struct hf_pg_head h = {.type = 'x'};
    assert_int_equal(hf_pg_head_read(S("Q\0\0\0"), &h), -HF_ETRUNC);
    assert_int_equal(hf_pg_head_read(hf_slice(NULL, 0), &h), -HF_ETRUNC);
    assert_int_equal(hf_pg_head_read(S("Q\0\0\0\3"), &h), -HF_EPROTO);
    assert_int_equal(hf_pg_head_read(S("Q\377\377\377\377"), &h), -HF_EPROTO);
    assert_int_equal(hf_pg_head_read(S("Q\x40\0\0\1"), &h), -HF_EPROTO);
    assert_int_equal(h.type, 'x');
    assert_int_equal(hf_pg_head_read(S("Q\x40\0\0\0"), &h), 0);
    assert_int_equal(h.body_len, (1u << 30) - 4);
    assert_int_equal(hf_pg_head_read(S("S\0\0\0\4and more"), &h), 0);
    assert_int_equal(h.type, 'S');
    assert_int_equal(h.body_len, 0);
    assert_int_equal(hf_pg_message_read(S("Q\0\0\0\7abc"), 3, &h), 0);
    assert_int_equal(h.body_len, 3);
    assert_int_equal(hf_pg_message_read(S("Q\0\0\0\7ab"), 3, &h), -HF_ETRUNC);
    assert_int_equal(hf_pg_message_read(S("Q\0\0\0"), 3, &h), -HF_ETRUNC);
    assert_int_equal(hf_pg_message_read(S("Q\0\0\0\7ab"), 2, &h), -HF_EPROTO);
    assert_int_equal(hf_pg_message_read(S("Q\0\0\0\3"), 3, &h), -HF_EPROTO);
}

static void put_startup(uint32_t version)
{
    size_t mark = hf_pg_put_begin(&b, 0);
    hf_pg_put_u32(&b, version);
    hf_pg_put_cstr(&b, S("user"));
    hf_pg_put_cstr(&b, S("alice"));
    hf_pg_put_cstr(&b, S("options"));
    hf_pg_put_cstr(&b, S(""));
    hf_pg_put_cstr(&b, S("user"));
    hf_pg_put_cstr(&b, S("bob"));
    hf_pg_put_u8(&b, 0);
    hf_pg_put_end(&b, mark);
}

static void startup_message(void **state)
{
    (void)state;
    put_startup(HF_PG_VERSION_3_2);
    size_t n = b.n;
    struct hf_pg_startup st;
    for (size_t len = 0; len < n; len++) {
        uint8_t *p = exact(hf_buf_slice(&b), len);
        assert_int_equal(hf_pg_startup_read(hf_slice(p, len), &st), 0);
        free(p);
    }
    hf_pg_put_u8(&b, 'Q'); /* of what follows */
    assert_int_equal(hf_pg_startup_read(hf_buf_slice(&b), &st), n);
    assert_int_equal(st.kind, HF_PG_START);
    assert_int_equal(st.version, HF_PG_VERSION_3_2);
    struct hf_slice left = st.params, name, value;
    assert_true(hf_pg_param_next(&left, &name, &value));
    hf_assert_slice_str(name, "user");
    hf_assert_slice_str(value, "alice");
    assert_true(hf_pg_param_next(&left, &name, &value));
    hf_assert_slice_str(name, "options");
    assert_non_null(value.p);
    hf_assert_slice_str(value, "");
    assert_true(hf_pg_param_next(&left, &name, &value));
    hf_assert_slice_str(value, "bob");
    assert_false(hf_pg_param_next(&left, &name, &value));
}

/* The same packet with a length that lies: too short for its parameters, or with bytes left. */
static void startup_lies(void **state)
{
    (void)state;
    put_startup(HF_PG_VERSION_3_0);
    struct hf_pg_startup st;
    for (size_t len = 0; len < b.n; len++) {
        uint8_t *p = exact(hf_buf_slice(&b), b.n);
        p[3] = (uint8_t)len;
        int rc = hf_pg_startup_read(hf_slice(p, len < 4 ? 4 : len), &st);
        assert_int_equal(rc, len < 8 ? -HF_EPROTO : -HF_EMALF);
        free(p);
    }
    b.p[3]++;
    hf_pg_put_u8(&b, 0);
    assert_int_equal(hf_pg_startup_read(hf_buf_slice(&b), &st), -HF_EMALF);
    /* a value and no end; an empty name with a value */
    assert_int_equal(hf_pg_startup_read(S("\0\0\0\14\0\3\0\0a\0b\0"), &st), -HF_EMALF);
    assert_int_equal(hf_pg_startup_read(S("\0\0\0\14\0\3\0\0\0a\0\0"), &st), -HF_EMALF);
    assert_int_equal(hf_pg_startup_read(S("\0\0\0\11\0\3\0\0\0"), &st), 9);
    assert_int_equal(st.params.n, 0);
}

static void startup_bounds(void **state)
{
    (void)state;
    struct hf_pg_startup st;
    assert_int_equal(hf_pg_startup_read(S("\0\0\x27\x10"), &st), 0);
    assert_int_equal(hf_pg_startup_read(S("\0\0\x27\x11"), &st), -HF_EPROTO);
    assert_int_equal(hf_pg_startup_read(S("\377\377\377\377"), &st), -HF_EPROTO);
    assert_int_equal(hf_pg_startup_read(S("\x80\0\0\x8\0\3\0\0"), &st), -HF_EPROTO);
    assert_int_equal(hf_pg_startup_read(S("\0\0\0\x9\0\2\0\0\0"), &st), -HF_EVERSION);
    assert_int_equal(hf_pg_startup_read(S("\0\0\0\x9\0\4\0\0\0"), &st), -HF_EVERSION);
    assert_int_equal(hf_pg_startup_read(S("\0\0\0\x8\4\322\26\57"), &st), 8);
    assert_int_equal(st.kind, HF_PG_START_TLS);
    assert_int_equal(hf_pg_startup_read(S("\0\0\0\x8\4\322\26\60"), &st), 8);
    assert_int_equal(st.kind, HF_PG_START_GSS);
    assert_int_equal(hf_pg_startup_read(S("\0\0\0\x9\4\322\26\57x"), &st), -HF_EMALF);
    hf_pg_put_ssl_request(&b);
    assert_int_equal(hf_pg_startup_read(hf_buf_slice(&b), &st), 8);
    assert_int_equal(st.kind, HF_PG_START_TLS);
}

static void cancel_requests(void **state)
{
    (void)state;
    static const uint8_t key[HF_PG_CANCEL_KEY_MAX + 1] = {9, 8, 7};
    for (size_t n = 0; n <= HF_PG_CANCEL_KEY_MAX + 1; n++) {
        hf_buf_clear(&b);
        hf_pg_put_cancel(&b, 0x01020304, hf_slice(key, n));
        uint8_t *p = exact(hf_buf_slice(&b), b.n);
        struct hf_pg_startup st;
        int rc = hf_pg_startup_read(hf_slice(p, b.n), &st);
        if (n < 4 || n > HF_PG_CANCEL_KEY_MAX) {
            assert_int_equal(rc, -HF_EMALF);
        } else {
            assert_int_equal(rc, b.n);
            assert_int_equal(st.kind, HF_PG_START_CANCEL);
            assert_int_equal(st.pid, 0x01020304);
            assert_true(hf_slice_eq(st.key, hf_slice(key, n)));
        }
        free(p);
    }
}

/* Each reader of a body, as one number: 0 or its error. */
static int read_parse(struct hf_slice s)
{
    struct hf_pg_parse m;
    return hf_pg_parse_read(s, &m);
}
static int read_bind(struct hf_slice s)
{
    struct hf_slice portal, statement;
    return hf_pg_bind_read(s, &portal, &statement);
}
static int read_target(struct hf_slice s)
{
    uint8_t kind;
    struct hf_slice name;
    return hf_pg_target_read(s, &kind, &name);
}
static int read_execute(struct hf_slice s)
{
    struct hf_slice portal;
    uint32_t rows;
    return hf_pg_execute_read(s, &portal, &rows);
}
static int read_columns(struct hf_slice s)
{
    struct hf_rd r;
    uint16_t n;
    int rc = hf_pg_columns_begin(s, &r, &n);
    for (uint16_t i = 0; rc == 0 && i < n; i++) {
        struct hf_pg_column c;
        rc = hf_pg_column_next(&r, &c);
    }
    return rc ? rc : hf_rd_end(&r);
}
static int read_values(struct hf_slice s)
{
    struct hf_rd r;
    uint16_t n;
    int rc = hf_pg_values_begin(s, &r, &n);
    for (uint16_t i = 0; rc == 0 && i < n; i++) {
        struct hf_slice v;
        rc = hf_pg_value_next(&r, &v);
    }
    return rc ? rc : hf_rd_end(&r);
}
static int read_status(struct hf_slice s)
{
    struct hf_slice name, value;
    return hf_pg_status_read(s, &name, &value);
}
static int read_key(struct hf_slice s)
{
    uint32_t pid;
    struct hf_slice key;
    return hf_pg_key_read(s, &pid, &key);
}

static void bodies_cut_at_each_length(void **state)
{
    (void)state;
    static const struct {
        int (*read)(struct hf_slice s);
        struct hf_slice body;
        bool open_end; /* more bytes are more of the last field */
    } every[] = {
        {read_parse, {(const uint8_t *)"st\0SELECT $1\0\0\2\0\0\0\x17\0\0\0\x19", 23}, false},
        {read_bind, {(const uint8_t *)"po\0st\0", 6}, true},
        {read_target, {(const uint8_t *)"Sst\0", 4}, false},
        {read_execute, {(const uint8_t *)"po\0\0\0\0\5", 7}, false},
        {read_columns,
         {(const uint8_t *)"\0\1id\0\0\0\4\322\0\1\0\0\0\x17\0\4\377\377\377\377\0\0", 23},
         false},
        {read_values, {(const uint8_t *)"\0\3\377\377\377\377\0\0\0\0\0\0\0\1x", 15}, false},
        {read_status, {(const uint8_t *)"TimeZone\0UTC\0", 13}, false},
        {read_key, {(const uint8_t *)"\0\0\0\1abcd", 8}, true},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(every); i++) {
        for (size_t n = 0; n < every[i].body.n; n++) {
            uint8_t *p = exact(every[i].body, n);
            assert_int_not_equal(every[i].read(hf_slice(p, n)), 0);
            free(p);
        }
        uint8_t more[64] = {0};
        memcpy(more, every[i].body.p, every[i].body.n);
        assert_int_equal(every[i].read(hf_slice(more, every[i].body.n)), 0);
        assert_int_equal(every[i].read(hf_slice(more, every[i].body.n + 1)),
                         every[i].open_end ? 0 : -HF_ETRAIL);
    }
    assert_int_equal(read_target(S("Xst\0")), -HF_EMALF);
    assert_int_equal(read_values(S("\0\1\377\377\377\376")), -HF_ETRUNC);
    assert_int_equal(read_key(hf_slice(&(uint8_t[4 + 257]){0}, 4 + 257)), -HF_EMALF);
}

static void what_bodies_say(void **state)
{
    (void)state;
    struct hf_pg_parse m;
    assert_int_equal(hf_pg_parse_read(S("st\0SELECT $1\0\0\1\0\0\0\x17"), &m), 0);
    hf_assert_slice_str(m.name, "st");
    hf_assert_slice_str(m.sql, "SELECT $1");
    assert_int_equal(m.types.n, 4);
    struct hf_slice portal, statement;
    assert_int_equal(hf_pg_bind_read(S("po\0st\0\0\0\0\0"), &portal, &statement), 0);
    hf_assert_slice_str(portal, "po");
    hf_assert_slice_str(statement, "st");
    uint32_t rows;
    assert_int_equal(hf_pg_execute_read(S("\0\0\0\0\5"), &portal, &rows), 0);
    assert_int_equal(portal.n, 0);
    assert_int_equal(rows, 5);
    uint8_t kind;
    assert_int_equal(hf_pg_target_read(S("Px\0"), &kind, &statement), 0);
    assert_int_equal(kind, 'P');
}

static void errors(void **state)
{
    (void)state;
    const struct hf_pg_error e = {
        .severity = "FATAL", .sqlstate = "57P03", .message = "no primary", .hint = "wait"};
    hf_pg_put_error(&b, HF_PG_ERROR, &e);
    struct hf_slice body = body_of('E');
    hf_assert_slice_str(hf_pg_error_field(body, 'S'), "FATAL");
    hf_assert_slice_str(hf_pg_error_field(body, 'V'), "FATAL");
    hf_assert_slice_str(hf_pg_error_field(body, 'C'), "57P03");
    hf_assert_slice_str(hf_pg_error_field(body, 'M'), "no primary");
    hf_assert_slice_str(hf_pg_error_field(body, 'H'), "wait");
    assert_null(hf_pg_error_field(body, 'D').p);
    for (size_t n = 0; n < body.n; n++) { /* what is cut off is not there */
        uint8_t *p = exact(body, n);
        struct hf_slice h = hf_pg_error_field(hf_slice(p, n), 'H');
        assert_true(h.p == NULL || hf_slice_eq(h, S("wait")));
        free(p);
    }
    assert_null(hf_pg_error_field(S("MX\0\0"), 'C').p); /* CVE-2026-6666 */
    assert_null(hf_pg_error_field(S("\0C40001\0"), 'C').p);
    assert_null(hf_pg_error_field(hf_slice(NULL, 0), 'C').p);
}

static void rows(void **state)
{
    (void)state;
    static const char *const names[] = {"name", "state"};
    hf_pg_put_text_columns(&b, names, 2);
    struct hf_rd r;
    uint16_t n;
    assert_int_equal(hf_pg_columns_begin(body_of('T'), &r, &n), 0);
    assert_int_equal(n, 2);
    for (size_t i = 0; i < 2; i++) {
        struct hf_pg_column c;
        assert_int_equal(hf_pg_column_next(&r, &c), 0);
        hf_assert_slice_str(c.name, names[i]);
        assert_int_equal(c.type, 25);
        assert_int_equal(c.format, 0);
    }
    assert_int_equal(hf_rd_end(&r), 0);
    hf_buf_clear(&b);
    const struct hf_slice values[] = {S("a"), {NULL, 0}, S("")};
    hf_pg_put_text_row(&b, values, 3);
    assert_int_equal(hf_pg_values_begin(body_of('D'), &r, &n), 0);
    assert_int_equal(n, 3);
    struct hf_slice v;
    assert_int_equal(hf_pg_value_next(&r, &v), 0);
    hf_assert_slice_str(v, "a");
    assert_int_equal(hf_pg_value_next(&r, &v), 0);
    assert_null(v.p);
    assert_int_equal(hf_pg_value_next(&r, &v), 0);
    assert_non_null(v.p);
    assert_int_equal(v.n, 0);
    assert_int_equal(hf_rd_end(&r), 0);
}

/* Small messages, byte for byte. */
static void builders(void **state)
{
    (void)state;
    hf_pg_put_query(&b, S("SELECT 1\0; DROP"));
    hf_pg_put_ready(&b, 'T');
    hf_pg_put_command_complete(&b, "BEGIN");
    hf_pg_put_parameter_status(&b, S("a"), S("b"));
    hf_pg_put_key(&b, 1, S("\1\2\3\4"));
    hf_pg_put_message(&b, HF_PG_SYNC, hf_slice(NULL, 0));
    static const char want[] = "Q\0\0\0\15SELECT 1\0"
                               "Z\0\0\0\5T"
                               "C\0\0\0\12BEGIN\0"
                               "S\0\0\0\10a\0b\0"
                               "K\0\0\0\14\0\0\0\1\1\2\3\4"
                               "S\0\0\0\4";
    assert_int_equal(b.err, 0);
    assert_int_equal(b.n, sizeof(want) - 1);
    assert_memory_equal(b.p, want, sizeof(want) - 1);
    struct hf_slice name, value;
    assert_int_equal(hf_pg_status_read(S("a\0b\0"), &name, &value), 0);
    hf_assert_slice_str(name, "a");
    hf_assert_slice_str(value, "b");
}

static void strings_and_numbers(void **state)
{
    (void)state;
    hf_pg_put_u16(&b, 0x0102);
    hf_pg_put_cstr(&b, S("a\0b"));
    hf_pg_put_cstr(&b, hf_slice(NULL, 0));
    struct hf_rd r;
    hf_rd_init(&r, hf_buf_slice(&b));
    assert_int_equal(hf_rd_u16(&r), 0x0102);
    hf_assert_slice_str(hf_pg_rd_cstr(&r), "a");
    struct hf_slice empty = hf_pg_rd_cstr(&r);
    assert_non_null(empty.p);
    assert_int_equal(empty.n, 0);
    assert_int_equal(hf_rd_end(&r), 0);
    assert_null(hf_pg_rd_cstr(&r).p);
    assert_int_equal(hf_rd_end(&r), -HF_ETRUNC);
}

static void builders_without_room(void **state)
{
    (void)state;
    for (size_t room = 0; room < 14; room++) {
        struct hf_buf small;
        hf_buf_init(&small, room);
        hf_pg_put_query(&small, S("SELECT 1"));
        assert_int_equal(small.err, -HF_EFULL);
        hf_buf_fini(&small);
    }
    hf_mem_fail_after(0);
    hf_pg_put_query(&b, S("SELECT 1"));
    hf_mem_fail_after(-1);
    assert_int_not_equal(b.err, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(heads, setup, teardown),
        cmocka_unit_test_setup_teardown(startup_message, setup, teardown),
        cmocka_unit_test_setup_teardown(startup_lies, setup, teardown),
        cmocka_unit_test_setup_teardown(startup_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(cancel_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(bodies_cut_at_each_length, setup, teardown),
        cmocka_unit_test_setup_teardown(what_bodies_say, setup, teardown),
        cmocka_unit_test_setup_teardown(errors, setup, teardown),
        cmocka_unit_test_setup_teardown(rows, setup, teardown),
        cmocka_unit_test_setup_teardown(builders, setup, teardown),
        cmocka_unit_test_setup_teardown(strings_and_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(builders_without_room, setup, teardown),
    };
    return cmocka_run_group_tests_name("codec/pg_v3", tests, NULL, NULL);
}
