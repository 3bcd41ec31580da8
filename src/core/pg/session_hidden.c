/* Requests of our own on the client's server connection, and what is learnt from them. */
#include <string.h>

#include "core/pg/session_impl.h"

static struct hf_slice status_get(const struct hf_pg_session *s, struct hf_slice name);

#define OID_CURRENT_XACT_ID 5059 /* pg_proc, the same in all versions since 13 */
#define OID_CURRENT_XACT_ID_IF_ASSIGNED 5060
#define OID_CURRENT_SETTING 2077

const struct hf_pg_class *hf_pg_text_class(struct hf_pg_session *s, struct hf_slice sql)
{
    if (s->unreadable)
        sql = hf_slice_str("'"); /* what it says can't be told: unknown */
    return hf_pg_classify(s->classifier, sql);
}

/* --- asking --- */

/* Fast-path call between units: no parsing, no planning, the unnamed statement stays. */
void hf_pg_ask_xid(struct hf_pg_session *s, bool assign)
{
    uint8_t message[19];
    struct hf_wr w;
    hf_wr_init(&w, message, sizeof(message));
    hf_wr_u8(&w, HF_PG_FUNCTION_CALL);
    hf_wr_u32(&w, 14);
    hf_wr_u32(&w, assign ? OID_CURRENT_XACT_ID : OID_CURRENT_XACT_ID_IF_ASSIGNED);
    hf_wr_u16(&w, 0); /* argument formats */
    hf_wr_u16(&w, 0); /* arguments */
    hf_wr_u16(&w, 1); /* binary result */
    struct unit *u = hf_pg_unit_push(s, UNIT_HIDDEN);
    u->hidden = HID_XID;
    u->ended = true;
    hf_pg_inject(s, hf_slice(message, hf_wr_len(&w)));
}

void hf_pg_ask_sync_commit(struct hf_pg_session *s)
{
    static const char name[] = "synchronous_commit";
    uint8_t message[64];
    struct hf_wr w;
    hf_wr_init(&w, message, sizeof(message));
    hf_wr_u8(&w, HF_PG_FUNCTION_CALL);
    hf_wr_u32(&w, (uint32_t)(4 + 4 + 2 + 2 + 4 + sizeof(name) - 1 + 2));
    hf_wr_u32(&w, OID_CURRENT_SETTING);
    hf_wr_u16(&w, 0);
    hf_wr_u16(&w, 1);
    hf_wr_str32(&w, hf_slice_str(name));
    hf_wr_u16(&w, 0);
    struct unit *u = hf_pg_unit_push(s, UNIT_HIDDEN);
    u->hidden = HID_SYNC_COMMIT;
    u->ended = true;
    hf_pg_inject(s, hf_slice(message, hf_wr_len(&w)));
}

void hf_pg_ask_query(struct hf_pg_session *s, enum hidden purpose, struct hf_slice sql)
{
    bool first =
        purpose == HID_COMMIT || purpose == HID_ROLLBACK || purpose == HID_MARKER || s->settling;
    struct unit *u = first ? hf_pg_unit_push_front(s) : hf_pg_unit_push(s, UNIT_HIDDEN);
    u->hidden = purpose;
    u->ended = true;
    s->unnamed_lost = true; /* a simple Query destroys it */
    for (size_t i = s->op_head; i < s->n_ops; i++)
        s->op[i].before_lost = true; /* also if a Parse that took its place fails */
    uint8_t head[HF_PG_HEAD_LEN];
    struct hf_wr w;
    hf_wr_init(&w, head, sizeof(head));
    hf_wr_u8(&w, HF_PG_QUERY);
    hf_wr_u32(&w, (uint32_t)(4 + sql.n + 1));
    hf_pg_inject(s, hf_slice(head, sizeof(head)));
    hf_pg_inject(s, sql);
    hf_pg_inject(s, hf_slice("", 1));
}

/* In an extended unit, through the unnamed statement (X2). An error before it skips it without a
 * word. Before Sync the unnamed portal will do; before the Execute of COMMIT the client has bound
 * that already. */
uint8_t hf_pg_ask_token_tail(struct hf_pg_session *s, bool assign, bool apart)
{
    static const char own[] = "holdfast token";
    struct hf_slice portal = apart ? hf_slice(own, sizeof(own)) : hf_slice("", 1);
    struct hf_buf room;
    hf_buf_init(&room, 65536);
    struct hf_slice text = hf_pg_token_sql(s, assign, &room);
    uint8_t message[128];
    struct hf_wr w;
    hf_wr_init(&w, message, sizeof(message));
    if (apart) { /* one that was left over */
        hf_wr_u8(&w, HF_PG_CLOSE);
        hf_wr_u32(&w, (uint32_t)(4 + 1 + portal.n));
        hf_wr_u8(&w, 'P');
        hf_wr_bytes(&w, portal);
    }
    hf_wr_u8(&w, HF_PG_PARSE);
    hf_wr_u32(&w, (uint32_t)(4 + 1 + text.n + 1 + 2));
    hf_wr_u8(&w, 0);
    hf_pg_inject(s, hf_slice(message, hf_wr_len(&w)));
    hf_pg_inject(s, text);
    hf_buf_fini(&room);
    hf_wr_init(&w, message, sizeof(message));
    hf_wr_u8(&w, 0);
    hf_wr_u16(&w, 0);
    hf_wr_u8(&w, HF_PG_BIND);
    hf_wr_u32(&w, (uint32_t)(4 + portal.n + 1 + 2 + 2 + 2));
    hf_wr_bytes(&w, portal);
    hf_wr_u8(&w, 0); /* statement */
    hf_wr_u16(&w, 0);
    hf_wr_u16(&w, 0);
    hf_wr_u16(&w, 0);
    hf_wr_u8(&w, HF_PG_EXECUTE);
    hf_wr_u32(&w, (uint32_t)(4 + portal.n + 4));
    hf_wr_bytes(&w, portal);
    hf_wr_u32(&w, 0);
    hf_wr_u8(&w, HF_PG_FLUSH);
    hf_wr_u32(&w, 4);
    hf_pg_inject(s, hf_slice(message, hf_wr_len(&w)));
    return apart ? 4 : 3;
}

/* --- answers --- */

void hf_pg_answer_reset(struct hf_pg_session *s)
{
    hf_buf_fini(&s->answer.rows);
    hf_buf_fini(&s->answer.text);
    s->answer.sqlstate[0] = s->answer.message[0] = '\0';
    s->answer.value = 0;
}

static void take_error(struct answer *a, struct hf_slice body)
{
    struct hf_slice code = hf_pg_error_field(body, 'C'), text = hf_pg_error_field(body, 'M');
    if (a->sqlstate[0])
        return;
    memset(a->sqlstate, 0, sizeof(a->sqlstate));
    memcpy(a->sqlstate, code.n == 5 ? code.p : (const uint8_t *)"XX000", 5);
    size_t n = text.n < sizeof(a->message) - 1 ? text.n : sizeof(a->message) - 1;
    memcpy(a->message, text.n ? (const char *)text.p : "", n);
    a->message[n] = '\0';
}

/* A message of a hidden unit's answer, other than ReadyForQuery. */
static void answer_take(struct hf_pg_session *s, uint8_t type, struct hf_slice body)
{
    struct answer *a = &s->answer;
    if (type == HF_PG_ERROR) {
        take_error(a, body);
    } else if (type == HF_PG_DATA_ROW) {
        uint8_t len[4];
        struct hf_wr w;
        hf_wr_init(&w, len, sizeof(len));
        hf_wr_u32(&w, (uint32_t)body.n);
        hf_buf_add(&a->rows, hf_slice(len, sizeof(len)));
        hf_buf_add(&a->rows, body);
    } else if (type == HF_PG_FUNCTION_RESULT) {
        struct hf_rd r;
        hf_rd_init(&r, body);
        uint32_t n = hf_rd_u32(&r);
        if (n == 8) {
            a->value = hf_rd_u64(&r);
        }
        if (n != UINT32_MAX && body.n > 4) {
            hf_buf_clear(&a->text);
            hf_buf_add(&a->text, hf_slice(body.p + 4, body.n - 4));
        }
    }
}

void hf_pg_describe_part(struct hf_pg_session *s, uint8_t type, struct hf_slice body)
{
    if (type == HF_PG_PARAMETER_DESCRIPTION)
        hf_hash_stream_init(&s->step_shape, s->seed);
    hf_hash_stream_add(&s->step_shape, body);
    hf_hash_stream_add(&s->step_shape, hf_slice(&type, 1));
}

void hf_pg_step_message(struct hf_pg_session *s, uint8_t type, struct hf_slice body)
{
    bool shape = type == HF_PG_PARAMETER_DESCRIPTION || type == HF_PG_ROW_DESCRIPTION ||
                 type == HF_PG_NO_DATA;
    if (s->step == STEP_PREPARE && shape)
        hf_pg_describe_part(s, type, body);
    else
        answer_take(s, type, body);
}

struct hf_slice hf_pg_answer_value(const struct hf_pg_session *s)
{
    struct hf_rd r, v;
    uint16_t n;
    struct hf_slice value;
    hf_rd_init(&r, hf_buf_slice(&s->answer.rows));
    struct hf_slice row = hf_rd_str32(&r, ANSWER_MAX);
    if (!row.n || hf_pg_values_begin(row, &v, &n) || n < 1 || hf_pg_value_next(&v, &value))
        return hf_slice(NULL, 0);
    return value;
}

/* --- the session's settings --- */

void hf_pg_put_literal(struct hf_buf *b, struct hf_slice s)
{
    hf_buf_str(b, " E'");
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\'' || s.p[i] == '\\')
            hf_buf_add(b, hf_slice(&s.p[i], 1));
        hf_buf_add(b, hf_slice(&s.p[i], 1));
    }
    hf_buf_str(b, "'");
}

void hf_pg_put_ident(struct hf_buf *b, struct hf_slice s)
{
    hf_buf_str(b, "\"");
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"')
            hf_buf_str(b, "\"");
        hf_buf_add(b, hf_slice(&s.p[i], 1));
    }
    hf_buf_str(b, "\"");
}

/* One row (kind, name, value) for each thing that a new connection would not have by itself. */
static void observe_sql(struct hf_pg_session *s, const char *token, struct hf_buf *out)
{
    hf_buf_str(
        out,
        "SELECT 's', name, setting FROM pg_catalog.pg_settings WHERE source = 'session' AND name "
        "NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')"
        " UNION ALL SELECT 'r', '', pg_catalog.current_setting('role')"
        " UNION ALL SELECT 'a', '', session_user::pg_catalog.text"
        " UNION ALL SELECT 'c', '', pg_catalog.current_setting('synchronous_commit')"
        " UNION ALL SELECT 'l', c, '' FROM pg_catalog.pg_listening_channels() c"
        " UNION ALL SELECT 'h', name, '' FROM pg_catalog.pg_cursors WHERE is_holdable"
        " UNION ALL SELECT 'p', name, statement FROM pg_catalog.pg_prepared_statements"
        " WHERE from_sql"
        " UNION ALL SELECT 't', '', '' WHERE pg_catalog.pg_my_temp_schema() <> 0 AND"
        " (EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace ="
        " pg_catalog.pg_my_temp_schema()) OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE"
        " pronamespace = pg_catalog.pg_my_temp_schema()) OR EXISTS (SELECT FROM"
        " pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()))");
    if (s->locks)
        hf_buf_str(out, " UNION ALL SELECT 'k', '', '' WHERE EXISTS (SELECT FROM"
                        " pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid ="
                        " pg_catalog.pg_backend_pid())");
    for (size_t i = 0; i < s->custom.n;) {
        struct hf_slice name = hf_slice_str((const char *)s->custom.p + i);
        hf_buf_str(out, " UNION ALL SELECT 's',");
        hf_pg_put_literal(out, name);
        hf_buf_str(out, ", pg_catalog.current_setting(");
        hf_pg_put_literal(out, name);
        hf_buf_str(out, ", true)");
        i += name.n + 1;
    }
    if (token)
        hf_buf_printf(out, " UNION ALL SELECT 'x', '', %s::pg_catalog.text", token);
}

bool hf_pg_peek_begin(struct hf_pg_session *s, uint32_t does)
{
    bool may = s->block_hard || does & DOES_LOOK & ~(uint32_t)DOES_CHANGE;
    s->peeked = false;
    s->peeking = may && s->seen_known && !s->block_change && !(does & DOES_CHANGE);
    return s->peeking;
}

struct hf_slice hf_pg_token_sql(struct hf_pg_session *s, bool assign, struct hf_buf *room)
{
    static const char plain[] = "SELECT pg_catalog.pg_current_xact_id_if_assigned()";
    static const char plain_now[] = "SELECT pg_catalog.pg_current_xact_id()";
    const char *sql = assign ? plain_now : plain;
    if (s->peeking) {
        observe_sql(s, sql + strlen("SELECT "), room);
        if (!room->err)
            return hf_buf_slice(room);
        s->peeking = false;
    }
    return hf_slice_str(sql);
}

/* A hash of what a look saw; the token's row, the last one, is not counted. */
static void seen_hash(struct hf_pg_session *s, uint64_t hash[2], struct hf_slice *ret_token)
{
    struct hf_hash_stream h;
    struct hf_rd rows, v;
    hf_hash_stream_init(&h, s->seed);
    hf_rd_init(&rows, hf_buf_slice(&s->answer.rows));
    while (hf_rd_left(&rows)) {
        uint16_t n;
        struct hf_slice kind, row = hf_rd_str32(&rows, ANSWER_MAX);
        if (hf_pg_values_begin(row, &v, &n) || n != 3 || hf_pg_value_next(&v, &kind))
            break;
        if (!hf_slice_eq(kind, hf_slice_str("x")))
            hf_hash_stream_add(&h, row);
        else if (ret_token && (hf_pg_value_next(&v, &kind) || hf_pg_value_next(&v, ret_token)))
            break;
    }
    hf_hash_stream_get(&h, hash);
}

uint64_t hf_pg_token_answer(struct hf_pg_session *s)
{
    struct hf_slice v = hf_slice(NULL, 0);
    if (s->peeking) {
        uint64_t seen[2];
        seen_hash(s, seen, &v);
        s->peeked = !s->answer.rows.err && seen[0] == s->seen[0] && seen[1] == s->seen[1];
        s->peeking = false;
    } else {
        v = hf_pg_answer_value(s);
    }
    uint64_t xid = 0;
    for (size_t i = 0; i < v.n; i++)
        xid = xid * 10 + (uint64_t)(v.p[i] - '0');
    hf_pg_answer_reset(s);
    return xid;
}

void hf_pg_look(struct hf_pg_session *s)
{
    struct hf_buf sql;
    hf_buf_init(&sql, 65536);
    observe_sql(s, NULL, &sql);
    s->look = false;
    s->looking = true;
    s->looking_hard = s->look_hard;
    s->since_mark = s->since_snapshot.n;
    s->look_hard = false;
    if (sql.err)
        s->sticky |= HF_PG_REASON_SETTINGS;
    hf_pg_ask_query(s, HID_OBSERVE, hf_buf_slice(&sql));
    hf_buf_fini(&sql);
}

/* What the rows are put together from. */
struct observed {
    struct hf_buf set, listen;
    struct hf_slice role, authorization;
    uint32_t sticky;
};

static void observed_row(struct hf_pg_session *s, struct observed *o, char kind,
                         struct hf_slice name, struct hf_slice value)
{
    switch (kind) {
    case 's':
        if (!value.p)
            break;
        hf_buf_str(&o->set,
                   s->n_settings++ ? ", pg_catalog.set_config(" : "SELECT pg_catalog.set_config(");
        hf_pg_put_literal(&o->set, name);
        hf_buf_str(&o->set, ",");
        hf_pg_put_literal(&o->set, value);
        hf_buf_str(&o->set, ", false)");
        break;
    case 'r':
        o->role = value;
        break;
    case 'a':
        o->authorization = value;
        break;
    case 'c':
        s->sync_commit = hf_slice_eq(value, hf_slice_str("on")) ||
                                 hf_slice_eq(value, hf_slice_str("remote_apply"))
                             ? 1
                             : 2;
        break;
    case 'l':
        if (hf_slice_starts(name, hf_slice_str("holdfast move ")))
            break; /* left over from a move that was given up */
        s->n_listens++;
        hf_buf_str(&o->listen, "LISTEN ");
        hf_pg_put_ident(&o->listen, name);
        hf_buf_str(&o->listen, ";");
        hf_buf_add(&s->listens, name);
        hf_buf_add(&s->listens, hf_slice("", 1));
        break;
    case 'h':
        o->sticky |= HF_PG_REASON_HOLD_CURSOR;
        break;
    case 't':
        o->sticky |= HF_PG_REASON_TEMP;
        break;
    case 'k':
        o->sticky |= HF_PG_REASON_LOCK;
        break;
    case 'p': {
        const struct hf_pg_class *k = hf_pg_classify(s->classifier, value);
        hf_buf_add(&s->prepares, value);
        hf_buf_add(&s->prepares, hf_slice("", 1));
        if (k->n_statements != 1) /* the text of a whole Query: not to be run again */
            o->sticky |= HF_PG_REASON_SETTINGS;
        hf_pg_sql_prepared_set(s, name, k->inner);
        hf_pg_class_unref(k);
        break;
    }
    default:
        break;
    }
}

static void rows_read(struct hf_pg_session *s, struct observed *o)
{
    struct hf_rd rows, v;
    hf_rd_init(&rows, hf_buf_slice(&s->answer.rows));
    while (hf_rd_left(&rows)) {
        uint16_t n;
        struct hf_slice kind, name, value, row = hf_rd_str32(&rows, ANSWER_MAX);
        if (hf_pg_values_begin(row, &v, &n) || n != 3 || hf_pg_value_next(&v, &kind) ||
            hf_pg_value_next(&v, &name) || hf_pg_value_next(&v, &value) || kind.n != 1)
            break;
        observed_row(s, o, (char)kind.p[0], name, value);
    }
}

/* Put the SQL together that makes a new connection the same: settings first, as who may set them;
 * then who it is; then what is parsed under these settings (#173334 of CockroachDB). */
static void snapshot_make(struct hf_pg_session *s, struct observed *o)
{
    struct hf_buf *b = &s->snapshot;
    hf_buf_clear(b);
    hf_buf_add(b, hf_buf_slice(&o->set));
    if (s->n_settings)
        hf_buf_str(b, ";");
    if (o->authorization.p && !hf_slice_eq(o->authorization, hf_slice_str(s->user))) {
        hf_buf_str(b, "SET SESSION AUTHORIZATION ");
        hf_pg_put_ident(b, o->authorization);
        hf_buf_str(b, ";");
    }
    if (o->role.p && !hf_slice_eq(o->role, hf_slice_str("none"))) {
        hf_buf_str(b, "SET ROLE ");
        hf_pg_put_ident(b, o->role);
        hf_buf_str(b, ";");
    }
    hf_buf_add(b, hf_buf_slice(&o->listen));
}

/* The observe query was answered. */
void hf_pg_observed(struct hf_pg_session *s)
{
    struct observed o = {0};
    if (s->answer.sqlstate[0] || s->answer.rows.err) {
        s->sticky |= HF_PG_REASON_SETTINGS;
        s->seen_known = false;
        hf_pg_tell_reasons(s);
        if (s->move_looking)
            hf_pg_move_failed(s, "the settings could not be read");
        return;
    }
    hf_buf_init(&o.set, ANSWER_MAX);
    hf_buf_init(&o.listen, ANSWER_MAX);
    hf_buf_clear(&s->prepares);
    s->n_settings = s->n_listens = 0;
    hf_buf_clear(&s->listens);
    rows_read(s, &o);
    snapshot_make(s, &o);
    seen_hash(s, s->seen, NULL);
    s->seen_known = true;
    bool bad = o.set.err || o.listen.err || s->prepares.err || s->snapshot.err;
    hf_buf_fini(&o.set);
    hf_buf_fini(&o.listen);
    s->sticky &= ~(uint32_t)(HF_PG_REASON_TEMP | HF_PG_REASON_HOLD_CURSOR | HF_PG_REASON_LOCK |
                             HF_PG_REASON_SETTINGS);
    s->sticky |= o.sticky | (bad ? HF_PG_REASON_SETTINGS : 0);
    hf_buf_consume(&s->since_snapshot, s->since_mark);
    s->since_mark = 0;
    hf_pg_tell_reasons(s);
    if (s->move_looking)
        hf_pg_move_observed(s);
}

/* --- ParameterStatus --- */

void hf_pg_param_set(struct hf_buf *params, struct hf_slice name, struct hf_slice value)
{
    struct hf_slice all = hf_buf_slice(params), n, v;
    struct hf_buf out;
    hf_buf_init(&out, PARAMS_MAX);
    while (hf_pg_param_next(&all, &n, &v)) {
        if (hf_slice_eq(n, name))
            continue;
        hf_pg_put_cstr(&out, n);
        hf_pg_put_cstr(&out, v);
    }
    hf_pg_put_cstr(&out, name);
    hf_pg_put_cstr(&out, value);
    if (out.err) {
        hf_buf_fini(&out);
        return;
    }
    hf_buf_fini(params);
    *params = out;
}

void hf_pg_status_compare(struct hf_pg_session *s, struct hf_slice params)
{
    struct hf_slice name, value;
    while (hf_pg_param_next(&params, &name, &value)) {
        struct hf_slice known = status_get(s, name);
        if (known.p && hf_slice_eq(known, value))
            continue;
        struct hf_buf message;
        hf_buf_init(&message, PARAMS_MAX);
        hf_pg_put_parameter_status(&message, name, value);
        hf_pg_deliver_flush(s);
        if (!message.err)
            s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&message));
        hf_buf_fini(&message);
        hf_pg_status_set(s, name, value);
    }
}

void hf_pg_status_set(struct hf_pg_session *s, struct hf_slice name, struct hf_slice value)
{
    hf_pg_param_set(&s->status, name, value);
    if (hf_slice_eq(name, hf_slice_str("client_encoding")))
        s->unreadable = !hf_pg_encoding_is_readable(value);
}

static struct hf_slice status_get(const struct hf_pg_session *s, struct hf_slice name)
{
    struct hf_slice all = hf_buf_slice(&s->status), n, v;
    while (hf_pg_param_next(&all, &n, &v)) {
        if (hf_slice_eq(n, name))
            return v;
    }
    return hf_slice(NULL, 0);
}
