/* Values of sequences that the client was shown: a replay gives them again (X8). */
#include <stdlib.h>
#include <string.h>

#include "core/pg/insert.h"
#include "core/pg/session_impl.h"

/*
 * A sequence goes on after a crash up to 32 values further, so a repeated INSERT ... RETURNING id
 * would give another id. It is repeated with the id in its text instead. No value is given to
 * anyone else, since the sequence is first taken beyond it: by nextval(), which never goes back,
 * and in a transaction of its own, so that this outlives another crash. Only columns that are
 * unique are given values so (hf_pg_catalog_query()): if somebody was quicker, the INSERT fails.
 * What is replayed is compared as ever (X11).
 *
 * Tickets number the INSERTs of a transaction in the order they are sent, in the first run as in a
 * replay.
 */

static struct id_source *source_at(const struct ids *ids, uint32_t ticket)
{
    size_t at = (size_t)(ticket - 1) * sizeof(struct id_source);
    return ticket && at < ids->sources.n ? (struct id_source *)(void *)(ids->sources.p + at) : NULL;
}

static const struct id_seen *seen_at(const struct ids *ids, size_t i)
{
    size_t at = i * sizeof(struct id_seen);
    return at < ids->seen.n ? (const struct id_seen *)(const void *)(ids->seen.p + at) : NULL;
}

static void unref_first(struct ids *ids, size_t n)
{
    for (uint32_t i = 1; i <= n && source_at(ids, i); i++)
        hf_pg_class_unref(source_at(ids, i)->class);
}

void hf_pg_ids_forget(struct ids *ids)
{
    unref_first(ids, SIZE_MAX);
    hf_buf_fini(&ids->sources);
    hf_buf_fini(&ids->seen);
    hf_buf_init(&ids->sources, IDS_MAX);
    hf_buf_init(&ids->seen, IDS_MAX);
}

/* The format code of a column of the result, from the end of a Bind. */
static uint16_t format_of(struct hf_slice bind, uint16_t index)
{
    struct hf_rd r;
    hf_rd_init(&r, bind);
    (void)hf_pg_rd_cstr(&r);
    (void)hf_pg_rd_cstr(&r);
    for (uint32_t n = hf_rd_u16(&r); n && !r.err; n--)
        (void)hf_rd_u16(&r);
    for (uint32_t n = hf_rd_u16(&r); n && !r.err; n--) {
        uint32_t len = hf_rd_u32(&r);
        if (len != UINT32_MAX)
            (void)hf_rd_bytes(&r, len);
    }
    uint16_t n = hf_rd_u16(&r), format = 0;
    for (uint16_t i = 0; i < n && !r.err; i++) {
        uint16_t f = hf_rd_u16(&r);
        format = n == 1 || i == index ? f : format;
    }
    return format;
}

uint32_t hf_pg_ids_ticket(struct hf_pg_session *s, const struct hf_pg_class *class,
                          struct hf_slice bind)
{
    struct hf_pg_insert insert;
    if (!class->inserts)
        return 0;
    s->tickets++;
    struct id_source source = {.class = class, .index = UINT16_MAX};
    if (!s->ids_off && hf_pg_class_insert(s->classifier, class, &insert)) {
        source.index = insert.index;
        source.format = bind.n ? format_of(bind, insert.index) : 0;
    }
    hf_buf_add(&s->ids.sources, hf_slice(&source, sizeof(source)));
    if (s->ids.sources.err)
        return 0;
    hf_pg_class_ref(class);
    return s->tickets;
}

uint32_t hf_pg_ids_now(struct hf_pg_session *s, const struct unit *u)
{
    if (!u || u->kind == UNIT_QUERY)
        return u ? u->ticket : 0;
    struct op *op = u->kind == UNIT_EXTENDED ? hf_pg_op_at(s, u->n_done + 1) : NULL;
    return op && op->kind == OP_INSERT ? op->ticket : 0;
}

static bool read_value(struct hf_slice v, uint16_t format, int64_t *ret_value)
{
    uint64_t x = 0;
    if (format) {
        for (size_t i = 0; i < v.n; i++)
            x = x << 8 | v.p[i];
        *ret_value = (int64_t)x;
        return (v.n == 2 || v.n == 4 || v.n == 8) && v.p[0] < 128;
    }
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
        x = x * 10 + (uint64_t)(v.p[i] - '0');
    }
    *ret_value = (int64_t)x;
    return v.n > 0 && v.n < 19;
}

void hf_pg_ids_row(struct hf_pg_session *s, uint32_t ticket, struct hf_slice body)
{
    struct id_seen seen = {.ticket = ticket - s->tickets_before};
    const struct id_source *source = source_at(&s->ids, seen.ticket);
    struct hf_rd r;
    struct hf_slice v = hf_slice(NULL, 0);
    uint16_t n;
    if (!source || hf_pg_values_begin(body, &r, &n) || source->index >= n)
        return;
    for (uint16_t i = 0; i <= source->index; i++) {
        if (hf_pg_value_next(&r, &v))
            return;
    }
    if (v.p && read_value(v, source->format, &seen.value))
        hf_buf_add(&s->ids.seen, hf_slice(&seen, sizeof(seen)));
}

bool hf_pg_ids_again(struct hf_pg_session *s, uint32_t ticket, struct hf_slice sql,
                     struct hf_buf *out)
{
    struct hf_pg_insert insert;
    uint32_t k = ticket - s->tickets_before;
    const struct id_source *source = source_at(&s->given, k);
    if (s->state != HF_PG_REPLAYING || !source || s->given.seen.err || s->ids_off ||
        s->sticky & HF_PG_REASON_SEQUENCE_STATE ||
        !hf_pg_class_insert(s->classifier, source->class, &insert))
        return false;
    struct hf_buf values;
    hf_buf_init(&values, IDS_MAX);
    const struct id_seen *seen;
    for (size_t i = 0; (seen = seen_at(&s->given, i)); i++) {
        if (seen->ticket == k)
            hf_buf_add(&values, hf_slice(&seen->value, sizeof(seen->value)));
    }
    size_t n = values.n / sizeof(int64_t);
    bool again =
        n && !values.err &&
        hf_pg_insert_with_ids(sql, insert.column, (const int64_t *)(void *)values.p, n, out) == 0;
    hf_buf_fini(&values);
    return again;
}

void hf_pg_ids_over(struct hf_pg_session *s, uint32_t tickets_before)
{
    size_t n = tickets_before - s->tickets_before;
    size_t bytes = n * sizeof(struct id_source);
    s->tickets_before = tickets_before;
    s->ids_off = false;
    if (s->state == HF_PG_REPLAYING) /* what follows had not been answered */
        hf_pg_ids_forget(&s->given);
    if (bytes >= s->ids.sources.n) {
        if (s->ids.sources.room)
            hf_pg_ids_forget(&s->ids);
        return;
    }
    unref_first(&s->ids, n);
    hf_buf_consume(&s->ids.sources, bytes);
    hf_buf_clear(&s->ids.seen);
}

static bool has_value(const struct ids *ids, uint32_t ticket)
{
    const struct id_seen *seen;
    for (size_t i = 0; (seen = seen_at(ids, i)); i++) {
        if (seen->ticket == ticket)
            return true;
    }
    return false;
}

/* A replay is lost, too: what it had come to counts where it went on. */
static void merge(struct ids *old, struct ids *new)
{
    const struct id_seen *seen;
    size_t n = old->sources.n < new->sources.n ? old->sources.n : new->sources.n;
    size_t n_old = old->seen.n / sizeof(struct id_seen);
    for (size_t i = 0; (seen = seen_at(new, i)); i++) {
        struct ids before = *old;
        before.seen.n = n_old * sizeof(struct id_seen);
        if (!has_value(&before, seen->ticket))
            hf_buf_add(&old->seen, hf_slice(seen, sizeof(*seen)));
    }
    for (uint32_t i = (uint32_t)(n / sizeof(struct id_source)) + 1; source_at(new, i); i++) {
        hf_buf_add(&old->sources, hf_slice(source_at(new, i), sizeof(struct id_source)));
        if (!old->sources.err)
            hf_pg_class_ref(source_at(new, i)->class);
    }
}

void hf_pg_ids_lost(struct hf_pg_session *s)
{
    if (s->state == HF_PG_REPLAYING) {
        merge(&s->given, &s->ids);
        hf_pg_ids_forget(&s->ids);
    } else {
        hf_pg_ids_forget(&s->given);
        struct ids none = s->given;
        s->given_due = false;
        s->given = s->ids;
        s->ids = none;
    }
    s->tickets = s->tickets_before = s->portal_ticket = 0;
    s->ids_off = false;
}

/* --- the sequences --- */

/* Is there a larger value of the same class, or an equal one later? */
static bool is_largest(const struct ids *ids, size_t i)
{
    const struct id_seen *seen = seen_at(ids, i), *other;
    const struct id_source *source = source_at(ids, seen->ticket);
    for (size_t k = 0; (other = seen_at(ids, k)); k++) {
        const struct id_source *o = source_at(ids, other->ticket);
        bool beats = other->value > seen->value || (other->value == seen->value && k > i);
        if (k != i && beats && o && source && o->class == source->class)
            return false;
    }
    return source != NULL;
}

static void take_beyond(struct hf_buf *out, const struct hf_pg_insert *insert, int64_t value)
{
    struct hf_buf next, table;
    hf_buf_init(&next, 4096);
    hf_buf_init(&table, 1024);
    if (insert->schema.n) {
        hf_pg_put_ident(&table, insert->schema);
        hf_buf_str(&table, ".");
    }
    hf_pg_put_ident(&table, insert->table);
    hf_buf_str(&next, "pg_catalog.nextval(pg_catalog.pg_get_serial_sequence(");
    hf_pg_put_literal(&next, hf_buf_slice(&table));
    hf_buf_str(&next, ",");
    hf_pg_put_literal(&next, insert->column);
    hf_buf_str(&next, ")::pg_catalog.regclass)");
    hf_buf_str(out, "WITH RECURSIVE ids(v, n) AS (SELECT ");
    hf_buf_add(out, hf_buf_slice(&next));
    hf_buf_str(out, ", 1 UNION ALL SELECT ");
    hf_buf_add(out, hf_buf_slice(&next));
    hf_buf_printf(out,
                  ", n OPERATOR(pg_catalog.+) 1 FROM ids WHERE v OPERATOR(pg_catalog.<) %lld "
                  "AND n OPERATOR(pg_catalog.<) 100000) "
                  "SELECT 1 OPERATOR(pg_catalog./) pg_catalog.count(*) FROM ids "
                  "WHERE v OPERATOR(pg_catalog.>=) %lld;",
                  (long long)value, (long long)value);
    hf_buf_fini(&table);
    hf_buf_fini(&next);
}

bool hf_pg_ids_sql(struct hf_pg_session *s, struct hf_buf *out)
{
    const struct id_seen *seen;
    for (size_t i = 0; (seen = seen_at(&s->given, i)); i++) {
        struct hf_pg_insert insert;
        if (is_largest(&s->given, i) &&
            hf_pg_class_insert(s->classifier, source_at(&s->given, seen->ticket)->class, &insert))
            take_beyond(out, &insert, seen->value);
    }
    bool any = out->n != 0;
    hf_buf_str(out, "DISCARD SEQUENCES"); /* currval() is to be nothing, rather than wrong */
    if (out->err)
        hf_pg_ids_forget(&s->given);
    return any && !out->err;
}

/* --- for a peer --- */

#define SOURCE_MAX (2 + 2 + 2 + 2 + 2 * 256)

static void save_source(struct hf_pg_session *s, const struct id_source *source, struct hf_buf *out)
{
    struct hf_pg_insert insert = {0};
    bool known = hf_pg_class_insert(s->classifier, source->class, &insert);
    uint8_t room[SOURCE_MAX];
    struct hf_wr w;
    struct hf_slice bytes = {0};
    hf_wr_init(&w, room, sizeof(room));
    hf_wr_u16(&w, known ? source->index : UINT16_MAX);
    hf_wr_u16(&w, source->format);
    hf_wr_str8(&w, insert.schema);
    hf_wr_str8(&w, insert.table);
    hf_wr_str8(&w, insert.column);
    if (hf_wr_end(&w, &bytes)) {
        static const uint8_t unknown[] = {255, 255, 0, 0, 0, 0, 0};
        bytes = hf_slice(unknown, sizeof(unknown));
    }
    hf_buf_add(out, bytes);
}

void hf_pg_ids_save(struct hf_pg_session *s, const struct ids *ids, struct hf_buf *out)
{
    uint8_t n[4];
    struct hf_wr w;
    hf_wr_init(&w, n, sizeof(n));
    hf_wr_u32(&w, (uint32_t)(ids->sources.n / sizeof(struct id_source)));
    hf_buf_add(out, hf_slice(n, sizeof(n)));
    for (uint32_t i = 1; source_at(ids, i); i++)
        save_source(s, source_at(ids, i), out);
    const struct id_seen *seen;
    for (size_t i = 0; (seen = seen_at(ids, i)); i++) {
        uint8_t room[12];
        hf_wr_init(&w, room, sizeof(room));
        hf_wr_u32(&w, seen->ticket);
        hf_wr_u64(&w, (uint64_t)seen->value);
        hf_buf_add(out, hf_slice(room, sizeof(room)));
    }
}

/* An INSERT into the same column: a class like that of the client's own. */
static const struct hf_pg_class *class_like(struct hf_pg_session *s, struct hf_slice schema,
                                            struct hf_slice table, struct hf_slice column)
{
    struct hf_buf sql;
    hf_buf_init(&sql, 4096);
    hf_buf_str(&sql, "INSERT INTO ");
    if (schema.n) {
        hf_pg_put_ident(&sql, schema);
        hf_buf_str(&sql, ".");
    }
    hf_pg_put_ident(&sql, table);
    hf_buf_str(&sql, " (");
    hf_pg_put_ident(&sql, column);
    hf_buf_str(&sql, ") VALUES (DEFAULT) RETURNING ");
    hf_pg_put_ident(&sql, column);
    const struct hf_pg_class *k = hf_pg_classify(s->classifier, hf_buf_slice(&sql));
    hf_buf_fini(&sql);
    return k;
}

int hf_pg_ids_load(struct hf_pg_session *s, struct ids *ids, struct hf_slice in)
{
    struct hf_rd r;
    if (in.n == 0)
        return 0;
    hf_rd_init(&r, in);
    for (uint32_t n = hf_rd_u32(&r); n && !r.err && !ids->sources.err; n--) {
        struct id_source source = {0};
        source.index = hf_rd_u16(&r);
        source.format = hf_rd_u16(&r);
        struct hf_slice schema = hf_rd_str8(&r, 255), table = hf_rd_str8(&r, 255),
                        column = hf_rd_str8(&r, 255);
        if (r.err)
            break;
        source.class = class_like(s, schema, table, column);
        hf_buf_add(&ids->sources, hf_slice(&source, sizeof(source)));
        if (ids->sources.err)
            hf_pg_class_unref(source.class);
    }
    while (hf_rd_left(&r) && !ids->seen.err) {
        struct id_seen seen = {.ticket = hf_rd_u32(&r)};
        seen.value = (int64_t)hf_rd_u64(&r);
        if (!r.err)
            hf_buf_add(&ids->seen, hf_slice(&seen, sizeof(seen)));
    }
    int rc = hf_rd_end(&r);
    return rc ? rc : ids->sources.err ? ids->sources.err : ids->seen.err;
}
