#include "codec/pg_v3.h"

#include "base/err.h"
#include "base/wr.h"

#define LEN_MAX (1u << 30)
#define KEY_MIN 4
#define CODE_CANCEL 80877102u /* instead of a version: 1234.5678 and the next two */
#define CODE_TLS 80877103u
#define CODE_GSS 80877104u
#define TYPE_TEXT 25 /* OID */

int hf_pg_head_read(struct hf_slice s, struct hf_pg_head *ret_head)
{
    struct hf_rd r;
    hf_rd_init(&r, s);
    uint8_t type = hf_rd_u8(&r);
    uint32_t len = hf_rd_u32(&r);
    if (r.err) {
        return r.err;
    }
    if (len < 4 || len > LEN_MAX) {
        return -HF_EPROTO;
    }
    *ret_head = (struct hf_pg_head){.type = type, .body_len = len - 4};
    return 0;
}

int hf_pg_message_read(struct hf_slice s, uint32_t max, struct hf_pg_head *ret_head)
{
    int rc = hf_pg_head_read(s, ret_head);
    if (rc) {
        return rc;
    }
    return ret_head->body_len > max                    ? -HF_EPROTO
           : s.n - HF_PG_HEAD_LEN < ret_head->body_len ? -HF_ETRUNC
                                                       : 0;
}

struct hf_slice hf_pg_rd_cstr(struct hf_rd *r)
{
    size_t left = hf_rd_left(r);
    const uint8_t *nul = left ? memchr(r->p, 0, left) : NULL;
    if (!nul) {
        hf_rd_fail(r, -HF_ETRUNC);
        return hf_slice(NULL, 0);
    }
    struct hf_slice s = hf_rd_bytes(r, (size_t)(nul - r->p));
    hf_rd_u8(r);
    return s;
}

/* --- start-up packets --- */

/* Names with their values, and an empty name at the very end. */
static int read_params(struct hf_slice s, struct hf_slice *ret_params)
{
    struct hf_rd r;
    hf_rd_init(&r, s);
    while (hf_pg_rd_cstr(&r).n) {
        hf_pg_rd_cstr(&r);
    }
    if (hf_rd_end(&r)) {
        return -HF_EMALF;
    }
    *ret_params = hf_slice(s.p, s.n - 1);
    return 0;
}

static int read_cancel(struct hf_slice s, struct hf_pg_startup *st)
{
    struct hf_rd r;
    hf_rd_init(&r, s);
    st->kind = HF_PG_START_CANCEL;
    st->pid = hf_rd_u32(&r);
    st->key = hf_rd_bytes(&r, hf_rd_left(&r));
    return r.err || st->key.n < KEY_MIN || st->key.n > HF_PG_CANCEL_KEY_MAX ? -HF_EMALF : 0;
}

int hf_pg_startup_read(struct hf_slice s, struct hf_pg_startup *ret_startup)
{
    struct hf_rd r;
    hf_rd_init(&r, s);
    uint32_t len = hf_rd_u32(&r);
    if (r.err) {
        return 0;
    }
    if (len < 8 || len > HF_PG_STARTUP_MAX) {
        return -HF_EPROTO;
    }
    if (s.n < len) {
        return 0;
    }
    struct hf_pg_startup st = {.version = hf_rd_u32(&r)};
    struct hf_slice rest = hf_rd_bytes(&r, len - 8);
    int rc = 0;
    if (st.version == CODE_TLS || st.version == CODE_GSS) {
        st.kind = st.version == CODE_TLS ? HF_PG_START_TLS : HF_PG_START_GSS;
        rc = rest.n ? -HF_EMALF : 0;
    } else if (st.version == CODE_CANCEL) {
        rc = read_cancel(rest, &st);
    } else if (st.version >> 16 == HF_PG_VERSION_3_0 >> 16) {
        st.kind = HF_PG_START;
        rc = read_params(rest, &st.params);
    } else {
        rc = -HF_EVERSION;
    }
    if (rc) {
        return rc;
    }
    *ret_startup = st;
    return (int)len;
}

bool hf_pg_param_next(struct hf_slice *s, struct hf_slice *ret_name, struct hf_slice *ret_value)
{
    struct hf_rd r;
    hf_rd_init(&r, *s);
    struct hf_slice name = hf_pg_rd_cstr(&r);
    struct hf_slice value = hf_pg_rd_cstr(&r);
    if (r.err || name.n == 0) {
        return false;
    }
    *s = hf_rd_bytes(&r, hf_rd_left(&r));
    *ret_name = name;
    *ret_value = value;
    return true;
}

/* --- bodies --- */

int hf_pg_parse_read(struct hf_slice body, struct hf_pg_parse *ret_parse)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    struct hf_pg_parse m;
    m.name = hf_pg_rd_cstr(&r);
    m.sql = hf_pg_rd_cstr(&r);
    m.types = hf_rd_bytes(&r, (size_t)hf_rd_u16(&r) * 4);
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        *ret_parse = m;
    }
    return rc;
}

int hf_pg_bind_read(struct hf_slice body, struct hf_slice *ret_portal,
                    struct hf_slice *ret_statement)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    struct hf_slice portal = hf_pg_rd_cstr(&r);
    struct hf_slice statement = hf_pg_rd_cstr(&r);
    if (r.err) {
        return r.err;
    }
    *ret_portal = portal;
    *ret_statement = statement;
    return 0;
}

int hf_pg_target_read(struct hf_slice body, uint8_t *ret_kind, struct hf_slice *ret_name)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    uint8_t kind = hf_rd_u8(&r);
    struct hf_slice name = hf_pg_rd_cstr(&r);
    int rc = hf_rd_end(&r);
    if (rc == 0 && kind != 'S' && kind != 'P') {
        rc = -HF_EMALF;
    }
    if (rc == 0) {
        *ret_kind = kind;
        *ret_name = name;
    }
    return rc;
}

int hf_pg_execute_read(struct hf_slice body, struct hf_slice *ret_portal, uint32_t *ret_rows_max)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    struct hf_slice portal = hf_pg_rd_cstr(&r);
    uint32_t rows_max = hf_rd_u32(&r);
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        *ret_portal = portal;
        *ret_rows_max = rows_max;
    }
    return rc;
}

struct hf_slice hf_pg_error_field(struct hf_slice body, uint8_t field)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    for (uint8_t f; (f = hf_rd_u8(&r)) != 0;) {
        struct hf_slice text = hf_pg_rd_cstr(&r);
        if (!r.err && f == field) {
            return text;
        }
    }
    return hf_slice(NULL, 0);
}

/* The number of what follows: columns or values. */
static int begin_list(struct hf_slice body, struct hf_rd *ret_r, uint16_t *ret_n)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    uint16_t n = hf_rd_u16(&r);
    if (r.err) {
        return r.err;
    }
    *ret_r = r;
    *ret_n = n;
    return 0;
}

int hf_pg_columns_begin(struct hf_slice body, struct hf_rd *ret_r, uint16_t *ret_n)
{
    return begin_list(body, ret_r, ret_n);
}

int hf_pg_column_next(struct hf_rd *r, struct hf_pg_column *ret_column)
{
    struct hf_pg_column c;
    c.name = hf_pg_rd_cstr(r);
    c.table = hf_rd_u32(r);
    c.number = hf_rd_u16(r);
    c.type = hf_rd_u32(r);
    c.size = hf_rd_u16(r);
    c.modifier = hf_rd_u32(r);
    c.format = hf_rd_u16(r);
    if (r->err) {
        return r->err;
    }
    *ret_column = c;
    return 0;
}

int hf_pg_values_begin(struct hf_slice body, struct hf_rd *ret_r, uint16_t *ret_n)
{
    return begin_list(body, ret_r, ret_n);
}

int hf_pg_value_next(struct hf_rd *r, struct hf_slice *ret_value)
{
    uint32_t len = hf_rd_u32(r);
    struct hf_slice v = {0};
    if (len != UINT32_MAX) { /* -1: NULL */
        v = hf_rd_bytes(r, len);
    }
    if (r->err) {
        return r->err;
    }
    *ret_value = v;
    return 0;
}

int hf_pg_status_read(struct hf_slice body, struct hf_slice *ret_name, struct hf_slice *ret_value)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    struct hf_slice name = hf_pg_rd_cstr(&r);
    struct hf_slice value = hf_pg_rd_cstr(&r);
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        *ret_name = name;
        *ret_value = value;
    }
    return rc;
}

int hf_pg_key_read(struct hf_slice body, uint32_t *ret_pid, struct hf_slice *ret_key)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    uint32_t pid = hf_rd_u32(&r);
    struct hf_slice key = hf_rd_bytes(&r, hf_rd_left(&r));
    if (r.err) {
        return r.err;
    }
    if (key.n < KEY_MIN || key.n > HF_PG_CANCEL_KEY_MAX) {
        return -HF_EMALF;
    }
    *ret_pid = pid;
    *ret_key = key;
    return 0;
}

/* --- builders --- */

size_t hf_pg_put_begin(struct hf_buf *b, uint8_t type)
{
    if (type) {
        hf_pg_put_u8(b, type);
    }
    size_t mark = b->n;
    hf_pg_put_u32(b, 0);
    return mark;
}

void hf_pg_put_end(struct hf_buf *b, size_t mark)
{
    if (!b->err) {
        struct hf_wr w;
        hf_wr_init(&w, b->p + mark, 4);
        hf_wr_u32(&w, (uint32_t)(b->n - mark));
    }
}

void hf_pg_put_u8(struct hf_buf *b, uint8_t v)
{
    hf_buf_add(b, hf_slice(&v, 1));
}

void hf_pg_put_u16(struct hf_buf *b, uint16_t v)
{
    const uint8_t be[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    hf_buf_add(b, hf_slice(be, sizeof(be)));
}

void hf_pg_put_u32(struct hf_buf *b, uint32_t v)
{
    const uint8_t be[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    hf_buf_add(b, hf_slice(be, sizeof(be)));
}

void hf_pg_put_cstr(struct hf_buf *b, struct hf_slice s)
{
    const uint8_t *nul = s.n ? memchr(s.p, 0, s.n) : NULL;
    hf_buf_add(b, nul ? hf_slice(s.p, (size_t)(nul - s.p)) : s);
    hf_pg_put_u8(b, 0);
}

void hf_pg_put_message(struct hf_buf *b, uint8_t type, struct hf_slice body)
{
    size_t mark = hf_pg_put_begin(b, type);
    hf_buf_add(b, body);
    hf_pg_put_end(b, mark);
}

void hf_pg_put_query(struct hf_buf *b, struct hf_slice sql)
{
    size_t mark = hf_pg_put_begin(b, HF_PG_QUERY);
    hf_pg_put_cstr(b, sql);
    hf_pg_put_end(b, mark);
}

void hf_pg_put_ready(struct hf_buf *b, uint8_t status)
{
    hf_pg_put_message(b, HF_PG_READY, hf_slice(&status, 1));
}

void hf_pg_put_command_complete(struct hf_buf *b, const char *tag)
{
    size_t mark = hf_pg_put_begin(b, HF_PG_COMMAND_COMPLETE);
    hf_pg_put_cstr(b, hf_slice_str(tag));
    hf_pg_put_end(b, mark);
}

void hf_pg_put_parameter_status(struct hf_buf *b, struct hf_slice name, struct hf_slice value)
{
    size_t mark = hf_pg_put_begin(b, HF_PG_PARAMETER_STATUS);
    hf_pg_put_cstr(b, name);
    hf_pg_put_cstr(b, value);
    hf_pg_put_end(b, mark);
}

void hf_pg_put_key(struct hf_buf *b, uint32_t pid, struct hf_slice key)
{
    size_t mark = hf_pg_put_begin(b, HF_PG_BACKEND_KEY_DATA);
    hf_pg_put_u32(b, pid);
    hf_buf_add(b, key);
    hf_pg_put_end(b, mark);
}

void hf_pg_put_cancel(struct hf_buf *b, uint32_t pid, struct hf_slice key)
{
    size_t mark = hf_pg_put_begin(b, 0);
    hf_pg_put_u32(b, CODE_CANCEL);
    hf_pg_put_u32(b, pid);
    hf_buf_add(b, key);
    hf_pg_put_end(b, mark);
}

void hf_pg_put_ssl_request(struct hf_buf *b)
{
    size_t mark = hf_pg_put_begin(b, 0);
    hf_pg_put_u32(b, CODE_TLS);
    hf_pg_put_end(b, mark);
}

void hf_pg_put_text_columns(struct hf_buf *b, const char *const *names, size_t n)
{
    size_t mark = hf_pg_put_begin(b, HF_PG_ROW_DESCRIPTION);
    hf_pg_put_u16(b, (uint16_t)n);
    for (size_t i = 0; i < n; i++) {
        hf_pg_put_cstr(b, hf_slice_str(names[i]));
        hf_pg_put_u32(b, 0); /* no table, */
        hf_pg_put_u16(b, 0); /* none of its columns */
        hf_pg_put_u32(b, TYPE_TEXT);
        hf_pg_put_u16(b, UINT16_MAX); /* -1: of variable size */
        hf_pg_put_u32(b, UINT32_MAX); /* -1: no modifier */
        hf_pg_put_u16(b, 0);          /* as text */
    }
    hf_pg_put_end(b, mark);
}

void hf_pg_put_text_row(struct hf_buf *b, const struct hf_slice *values, size_t n)
{
    size_t mark = hf_pg_put_begin(b, HF_PG_DATA_ROW);
    hf_pg_put_u16(b, (uint16_t)n);
    for (size_t i = 0; i < n; i++) {
        hf_pg_put_u32(b, values[i].p ? (uint32_t)values[i].n : UINT32_MAX);
        hf_buf_add(b, values[i].p ? values[i] : hf_slice(NULL, 0));
    }
    hf_pg_put_end(b, mark);
}

static void put_field(struct hf_buf *b, uint8_t field, const char *text)
{
    if (text) {
        hf_pg_put_u8(b, field);
        hf_pg_put_cstr(b, hf_slice_str(text));
    }
}

void hf_pg_put_error(struct hf_buf *b, uint8_t type, const struct hf_pg_error *e)
{
    size_t mark = hf_pg_put_begin(b, type);
    put_field(b, 'S', e->severity);
    put_field(b, 'V', e->severity);
    put_field(b, 'C', e->sqlstate);
    put_field(b, 'M', e->message);
    put_field(b, 'D', e->detail);
    put_field(b, 'H', e->hint);
    hf_pg_put_u8(b, 0);
    hf_pg_put_end(b, mark);
}
