/* Puts values into an INSERT's text where it leaves a column to its default. */
#include "core/pg/insert.h"

#include <errno.h>
#include <pg_query.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

#define TEXT_MAX (1u << 20)

static const char *text(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static json_t *rows_of(const json_t *insert)
{
    const json_t *select = json_object_get(json_object_get(insert, "selectStmt"), "SelectStmt");
    return json_object_get(select, "valuesLists");
}

static json_t *items_of(const json_t *row)
{
    return json_object_get(json_object_get(row, "List"), "items");
}

static bool fits(const json_t *insert)
{
    return json_array_size(rows_of(insert)) && json_array_size(json_object_get(insert, "cols")) &&
           json_array_size(json_object_get(insert, "returningList")) &&
           !json_object_get(insert, "onConflictClause") &&
           strcmp(text(insert, "override"), "OVERRIDING_NOT_SET") == 0;
}

static void add(struct hf_buf *out, const char *name)
{
    hf_buf_add(out, hf_slice(name, strlen(name) + 1));
}

void hf_pg_insert_look(const json_t *insert, struct hf_buf *out)
{
    const json_t *relation = json_object_get(insert, "relation");
    const json_t *list = json_object_get(insert, "returningList");
    if (!fits(insert) || json_object_get(relation, "catalogname")) {
        return;
    }
    add(out, text(relation, "schemaname"));
    add(out, text(relation, "relname"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *target = json_object_get(json_array_get(list, i), "ResTarget");
        const json_t *fields =
            json_object_get(json_object_get(json_object_get(target, "val"), "ColumnRef"), "fields");
        const json_t *last = json_array_get(fields, json_array_size(fields) - 1);
        add(out,
            json_object_get(last, "A_Star") ? "*" : text(json_object_get(last, "String"), "sval"));
    }
    if (out->err) {
        hf_buf_clear(out);
    }
}

/* --- the text --- */

static const char *past_quote(const char *p, char quote, bool escapes)
{
    for (p++; *p; p++) {
        if (*p == '\\' && escapes && p[1]) {
            p++;
        } else if (*p == quote) {
            return p + 1;
        }
    }
    return p;
}

static bool in_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || (unsigned char)c >= 128;
}

static const char *past_comment(const char *p)
{
    if (*p == '-') {
        return p + strcspn(p, "\r\n");
    }
    for (int depth = 0; *p; p++) {
        if (p[0] == '/' && p[1] == '*') {
            depth++;
            p++;
        } else if (p[0] == '*' && p[1] == '/') {
            p++;
            if (--depth == 0) {
                return p + 1;
            }
        }
    }
    return p;
}

static const char *past_dollar(const char *p)
{
    const char *end = p + 1;
    while (in_word(*end) && *end != '$') {
        end++;
    }
    if (*end != '$' || (p[1] >= '0' && p[1] <= '9')) {
        return end; /* a parameter */
    }
    size_t tag = (size_t)(end + 1 - p);
    for (const char *at = end + 1; *at; at++) {
        if (strncmp(at, p, tag) == 0) {
            return at + tag;
        }
    }
    return p + strlen(p);
}

/* Past one token, comment or space. Needs not be right for every text: what is made is proved. */
static const char *past(const char *p)
{
    if (*p == '"' || *p == '\'') {
        return past_quote(p, *p, false);
    }
    if ((*p == 'e' || *p == 'E') && p[1] == '\'') {
        return past_quote(p + 1, '\'', true);
    }
    if ((p[0] == '-' && p[1] == '-') || (p[0] == '/' && p[1] == '*')) {
        return past_comment(p);
    }
    if (*p == '$') {
        return past_dollar(p);
    }
    if (in_word(*p)) {
        while (in_word(*p)) {
            p++;
        }
        return p;
    }
    return p + 1;
}

static const char *past_open(const char *p)
{
    while (*p && *p != '(') {
        p = past(p);
    }
    return *p ? p + 1 : p;
}

static const char *past_close(const char *p)
{
    for (int depth = 1; *p; p = past(p)) {
        depth += *p == '(' ? 1 : *p == ')' ? -1 : 0;
        if (depth == 0) {
            return p + 1;
        }
    }
    return p;
}

struct insertion {
    const char *sql, *at; /* up to here it has been copied */
    struct hf_buf *out;
};

static void copy_to(struct insertion *m, const char *to)
{
    if (to > m->at) {
        hf_buf_add(m->out, hf_slice(m->at, (size_t)(to - m->at)));
        m->at = to;
    }
}

static void put_name(struct hf_buf *out, struct hf_slice name)
{
    hf_buf_str(out, "\"");
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] == '"') {
            hf_buf_str(out, "\"");
        }
        hf_buf_add(out, hf_slice(&name.p[i], 1));
    }
    hf_buf_str(out, "\"");
}

/* Where the column stands in the list; the list's length: nowhere. */
static size_t place_of(const json_t *cols, struct hf_slice column)
{
    size_t i = 0, n = json_array_size(cols);
    while (i < n &&
           !hf_slice_eq(
               hf_slice_str(text(json_object_get(json_array_get(cols, i), "ResTarget"), "name")),
               column)) {
        i++;
    }
    return i;
}

static int put_ids(struct insertion *m, const json_t *insert, struct hf_slice column,
                   const int64_t *ids, size_t n)
{
    const json_t *cols = json_object_get(insert, "cols"), *rows = rows_of(insert);
    const json_t *first = json_object_get(json_array_get(cols, 0), "ResTarget");
    size_t place = place_of(cols, column), len = strlen(m->sql);
    size_t at = (size_t)json_integer_value(json_object_get(first, "location"));
    bool missing = place == json_array_size(cols);
    if (at > len) {
        return -HF_EVALUE;
    }
    copy_to(m, m->sql + at);
    if (missing) {
        put_name(m->out, column);
        hf_buf_str(m->out, ", ");
    }
    copy_to(m, past_close(m->at));
    hf_buf_str(m->out, in_word(*m->at) ? " OVERRIDING SYSTEM VALUE " : " OVERRIDING SYSTEM VALUE");
    const char *row = m->at;
    for (size_t i = 0; i < n; i++) {
        row = past_open(row);
        const json_t *item = json_array_get(items_of(json_array_get(rows, i)), missing ? 0 : place);
        const json_t *standing = json_object_get(item, "SetToDefault");
        at = (size_t)json_integer_value(json_object_get(standing, "location"));
        if (!missing && (!standing || at + 7 > len)) {
            return -HF_EVALUE;
        }
        copy_to(m, missing ? row : m->sql + at);
        hf_buf_printf(m->out, missing ? "%lld, " : "%lld", (long long)ids[i]);
        m->at += missing ? 0 : 7;
        row = past_close(row);
    }
    copy_to(m, m->sql + len);
    hf_buf_add(m->out, hf_slice("", 1));
    return m->out->err;
}

/* --- the proof --- */

/* Take out where things stand in the text. */
static void strip(json_t *v)
{
    const char *key;
    json_t *member;
    void *next;
    size_t i;
    json_array_foreach(v, i, member)
    {
        strip(member);
    }
    (void)json_object_del(v, "location");
    (void)json_object_del(v, "stmt_len");
    (void)json_object_del(v, "stmt_location");
    json_object_foreach_safe(v, next, key, member)
    {
        strip(member);
    }
}

static json_t *parse(const char *sql)
{
    PgQueryParseResult parsed = pg_query_parse(sql);
    json_t *tree = parsed.error ? NULL : json_loads(parsed.parse_tree, JSON_ALLOW_NUL, NULL);
    pg_query_free_parse_result(parsed);
    return tree;
}

static json_t *insert_of(const json_t *tree)
{
    const json_t *stmts = json_object_get(tree, "stmts");
    return json_object_get(json_object_get(json_array_get(stmts, 0), "stmt"),
                           json_array_size(stmts) == 1 ? "InsertStmt" : "");
}

/* Take the column out again: from the list and each row. Is it the one, with these values? */
static bool take_out(json_t *insert, struct hf_slice column, const int64_t *ids, size_t n)
{
    json_t *cols = json_object_get(insert, "cols"), *rows = rows_of(insert);
    size_t place = place_of(cols, column);
    if (json_array_size(rows) != n || json_array_remove(cols, place)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        json_t *items = items_of(json_array_get(rows, i));
        const json_t *v = json_object_get(json_array_get(items, place), "A_Const");
        const json_t *small = json_object_get(v, "ival"), *large = json_object_get(v, "fval");
        bool same = large ? strtoll(text(large, "fval"), NULL, 10) == ids[i]
                          : small && json_integer_value(json_object_get(small, "ival")) == ids[i];
        if (!same || json_array_remove(items, place)) {
            return false;
        }
    }
    return true;
}

/* The old text's tree, the column taken out where it is there, is the new one's without it. */
static bool is_same(json_t *old, const char *sql, struct hf_slice column, const int64_t *ids,
                    size_t n)
{
    json_t *made = parse(sql), *a = insert_of(old), *b = insert_of(made);
    json_t *cols = json_object_get(a, "cols");
    size_t place = place_of(cols, column);
    bool there = place < json_array_size(cols);
    bool same = b && strcmp(text(b, "override"), "OVERRIDING_SYSTEM_VALUE") == 0 &&
                take_out(b, column, ids, n);
    for (size_t i = 0; there && same && i < n; i++) {
        same = json_array_remove(items_of(json_array_get(rows_of(a), i)), place) == 0;
    }
    if (there) {
        (void)json_array_remove(cols, place);
    }
    if (same) {
        (void)json_object_del(a, "override");
        (void)json_object_del(b, "override");
        strip(old);
        strip(made);
        same = json_equal(old, made);
    }
    json_decref(made);
    return same;
}

int hf_pg_insert_with_ids(struct hf_slice sql, struct hf_slice column, const int64_t *ids, size_t n,
                          struct hf_buf *out)
{
    if (sql.n > TEXT_MAX || memchr(sql.p, 0, sql.n)) {
        return -HF_EVALUE;
    }
    for (size_t i = 0; i < n; i++) {
        if (ids[i] <= 0) { /* - would be an operator */
            return -HF_EVALUE;
        }
    }
    char *copy = hf_alloc(sql.n + 1);
    if (!copy) {
        return -ENOMEM;
    }
    memcpy(copy, sql.p, sql.n);
    json_t *tree = parse(copy);
    const json_t *insert = insert_of(tree);
    struct insertion m = {.sql = copy, .at = copy, .out = out};
    hf_buf_clear(out);
    int rc = -HF_EVALUE;
    if (insert && fits(insert) && json_array_size(rows_of(insert)) == n) {
        rc = put_ids(&m, insert, column, ids, n);
    }
    if (rc == 0 && !is_same(tree, (const char *)out->p, column, ids, n)) {
        rc = -HF_EVALUE;
    }
    json_decref(tree);
    hf_free(copy);
    return rc;
}
