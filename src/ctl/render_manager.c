/* What the managers of service addresses tell in the tree (/manager/GROUP), for `holdfast status`.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "ctl/render.h"
#include "ctl/table.h"

static const json_t *value_of(const json_t *entry)
{
    return json_object_get(entry, "value");
}

/* The entry of who serves the group: holdfastd says which. NULL: nobody. */
static const json_t *primary_of(const json_t *managers, const char *name)
{
    const json_t *e;
    size_t i;
    json_array_foreach(managers, i, e)
    {
        if (strcmp(hf_json_text(e, "name"), name) == 0 &&
            json_is_true(json_object_get(e, "serves"))) {
            return e;
        }
    }
    return NULL;
}

static const char *group_of(const json_t *entry)
{
    return hf_json_text(value_of(entry), "group");
}

/* ---- at a glance ---- */

/* "2 not (1 TLS, 1 temporary objects)" */
static void add_unprotected(struct hf_buf *out, const json_t *v)
{
    const char *why;
    const json_t *n;
    const char *comma = "";
    hf_buf_printf(out, ", %lld not (",
                  (long long)(hf_json_number(v, "sessions") - hf_json_number(v, "protected")));
    json_object_foreach(json_object_get(v, "unprotected"), why, n)
    {
        hf_buf_printf(out, "%s%lld ", comma, (long long)json_integer_value(n));
        hf_render_text(out, why);
        comma = ", ";
    }
    hf_buf_str(out, ")");
}

/* pgvip: 120 sessions at alpha, 118 protected by beta, 2 not (2 TLS) */
static void add_glance(struct hf_buf *out, const json_t *e, bool colour)
{
    const json_t *v = value_of(e);
    const json_t *without = json_object_get(e, "unprotected_ms");
    int64_t sessions = hf_json_number(v, "sessions");
    hf_buf_printf(out, "%s", colour ? HF_BOLD : "");
    hf_render_text(out, group_of(e));
    hf_buf_printf(out, "%s: %lld session%s at ", colour ? HF_PLAIN : "", (long long)sessions,
                  sessions == 1 ? "" : "s");
    hf_render_text(out, hf_json_text(e, "owner"));
    hf_buf_str(out, " (");
    hf_render_text(out, hf_json_text(v, "service"));
    hf_buf_str(out, "), ");
    if (without) {
        hf_buf_printf(out, "%snone protected%s for ", colour ? HF_YELLOW : "",
                      colour ? HF_PLAIN : "");
        hf_buf_span(out, json_integer_value(without));
        hf_buf_str(out, ": ");
        hf_render_text(out, hf_json_text(v, "why"));
    } else {
        hf_buf_printf(out, "%lld protected by ", (long long)hf_json_number(v, "protected"));
        hf_render_text(out, hf_json_text(v, "peer"));
        if (hf_json_number(v, "protected") < sessions) {
            add_unprotected(out, v);
        }
    }
    hf_buf_str(out, "\n");
}

static void databases(struct hf_table *t, const json_t *v)
{
    size_t from = t->cells.n, i;
    const json_t *s;
    json_array_foreach(json_object_get(v, "servers"), i, s)
    {
        hf_buf_str(&t->cells, i ? ", " : "");
        hf_render_text(&t->cells, hf_json_text(s, "name"));
        hf_buf_str(&t->cells, " ");
        hf_render_text(&t->cells, hf_json_text(s, "state"));
        if (hf_json_number(s, "lag_bytes")) {
            hf_buf_printf(&t->cells, " %lld bytes behind",
                          (long long)hf_json_number(s, "lag_bytes"));
        }
    }
    hf_table_end(t, from);
}

static void add_row(struct hf_table *t, const json_t *e)
{
    const json_t *v = value_of(e);
    hf_table_cell(t, hf_json_text(e, "owner"));
    hf_table_cell(t, hf_json_text(v, "role"));
    hf_table_cell(t, hf_json_text(v, "pair"));
    hf_table_number(t, hf_json_number(v, "sessions"));
    hf_table_number(t, hf_json_number(v, "stored"));
    size_t from = t->cells.n;
    hf_buf_printf(&t->cells, "%.2f of %lld", json_number_value(json_object_get(v, "load")),
                  (long long)hf_json_number(v, "cpus"));
    hf_table_end(t, from);
    from = t->cells.n;
    hf_buf_printf(&t->cells, "%lld MiB", (long long)hf_json_number(v, "memory_mib"));
    hf_table_end(t, from);
    databases(t, v);
}

static const char *head_colour(const char *text, size_t row, size_t column)
{
    (void)text;
    (void)column;
    return row == 0 ? HF_BOLD : NULL;
}

static int add_table(struct hf_buf *out, const json_t *managers, const char *name, bool colour)
{
    static const char *const head[] = {"HOST",   "ROLE", "STATE", "SESSIONS",
                                       "STORED", "LOAD", "FREE",  "DATABASES, AS IT SEES THEM"};
    struct hf_table t;
    const json_t *e;
    size_t i;
    hf_table_init(&t, HF_ARRAY_LEN(head));
    t.indent = 2;
    t.wrap = true;
    for (i = 0; i < HF_ARRAY_LEN(head); i++) {
        hf_table_cell(&t, head[i]);
    }
    json_array_foreach(managers, i, e)
    {
        if (strcmp(hf_json_text(e, "name"), name) == 0) {
            add_row(&t, e);
        }
    }
    return hf_table_print(&t, out, colour ? head_colour : NULL);
}

/* Several hosts tell of one address. */
static bool was_before(const json_t *managers, size_t i)
{
    const char *name = hf_json_text(json_array_get(managers, i), "name");
    for (size_t j = 0; j < i; j++) {
        if (strcmp(hf_json_text(json_array_get(managers, j), "name"), name) == 0) {
            return true;
        }
    }
    return false;
}

int hf_render_managers(struct hf_buf *out, const json_t *managers, bool colour)
{
    const json_t *e;
    size_t i;
    int rc = 0;
    json_array_foreach(managers, i, e)
    {
        const char *name = hf_json_text(e, "name");
        const json_t *primary = primary_of(managers, name);
        if (was_before(managers, i)) {
            continue;
        }
        hf_buf_str(out, "\n");
        if (primary) {
            add_glance(out, primary, colour);
        } else {
            hf_render_text(out, group_of(e));
            hf_buf_str(out, ": nobody serves its address\n");
        }
        rc = rc ? rc : add_table(out, managers, name, colour);
    }
    return rc ? rc : out->err;
}
