#include "ctl/render.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#define COLUMNS_MAX 8
#define RED "\033[31m"
#define YELLOW "\033[33m"
#define GREEN "\033[32m"
#define BOLD "\033[1m"
#define PLAIN "\033[0m"

void hf_render_safe(struct hf_buf *out, struct hf_slice s)
{
    for (size_t i = 0; i < s.n;) {
        size_t n = hf_utf8_len(s.p + i, s.n - i);
        uint8_t c = s.p[i];
        bool c1 = n == 2 && c == 0xc2 && s.p[i + 1] < 0xa0; /* U+0080 to U+009F */
        bool bad = n == 0 || c1 || c == 0x7f || (c < 0x20 && c != '\n' && c != '\t');
        hf_buf_add(out, bad ? hf_slice_str("?") : hf_slice(s.p + i, n));
        i += n ? n : 1;
    }
}

void hf_render_span(struct hf_buf *out, int64_t ms)
{
    int64_t s = ms / 1000;
    if (ms < 1000) {
        hf_buf_printf(out, "%lld ms", (long long)ms);
    } else if (s < 60) {
        hf_buf_printf(out, ms % 1000 / 100 ? "%lld.%lld s" : "%lld s", (long long)s,
                      (long long)(ms % 1000 / 100));
    } else if (s < 3600) {
        hf_buf_printf(out, "%lld m %lld s", (long long)(s / 60), (long long)(s % 60));
    } else if (s < 86400) {
        hf_buf_printf(out, "%lld h %lld m", (long long)(s / 3600), (long long)(s % 3600 / 60));
    } else {
        hf_buf_printf(out, "%lld d %lld h", (long long)(s / 86400), (long long)(s % 86400 / 3600));
    }
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static int64_t number_of(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void add_text(struct hf_buf *out, const char *s)
{
    hf_render_safe(out, hf_slice_str(s));
}

/* ---- tables ---- */

/* All cells in one run of text, each ended by NUL; widths are known once all are there. */
struct table {
    struct hf_buf cells;
    size_t n_columns, n;
    size_t width[COLUMNS_MAX];
};

static void table_init(struct table *t, size_t n_columns)
{
    *t = (struct table){.n_columns = n_columns};
    hf_buf_init(&t->cells, 512u << 20);
}

/* What a terminal shows of s: one column for each character. */
static size_t width_of(const char *s)
{
    size_t n = 0;
    for (; *s; s++) {
        n += (*s & 0xc0) != 0x80;
    }
    return n;
}

static void cell_end(struct table *t, size_t from)
{
    hf_buf_add(&t->cells, hf_slice("", 1));
    if (!t->cells.err) {
        size_t w = width_of((const char *)t->cells.p + from);
        size_t *max = &t->width[t->n++ % t->n_columns];
        *max = w > *max ? w : *max;
    }
}

static void cell(struct table *t, const char *s)
{
    size_t from = t->cells.n;
    add_text(&t->cells, s);
    cell_end(t, from);
}

static void cell_number(struct table *t, int64_t v)
{
    size_t from = t->cells.n;
    hf_buf_printf(&t->cells, "%lld", (long long)v);
    cell_end(t, from);
}

static void cell_span(struct table *t, int64_t ms)
{
    size_t from = t->cells.n;
    hf_render_span(&t->cells, ms);
    cell_end(t, from);
}

/* Print and free; colour(arg, row, column) is an escape sequence before the cell, or NULL. */
static int table_print(struct table *t, struct hf_buf *out,
                       const char *(*colour)(const char *cell, size_t row, size_t column))
{
    const char *s = (const char *)t->cells.p;
    for (size_t i = 0; i < t->n && !t->cells.err; i++) {
        size_t column = i % t->n_columns;
        bool last = column + 1 == t->n_columns;
        const char *c = colour ? colour(s, i / t->n_columns, column) : NULL;
        hf_buf_printf(out, "%s%s%s", c ? c : "", s, c ? PLAIN : "");
        if (!last && s + strlen(s) + 1 < (const char *)t->cells.p + t->cells.n) {
            hf_buf_printf(out, "%*s", (int)(t->width[column] - width_of(s) + 2), "");
        }
        hf_buf_str(out, last ? "\n" : "");
        s += strlen(s) + 1;
    }
    int rc = t->cells.err ? t->cells.err : out->err;
    hf_buf_fini(&t->cells);
    return rc;
}

/* ---- status ---- */

static const char *state_words(const char *state)
{
    static const char *const words[][2] = {{"listen", "listening for other hosts"},
                                           {"sync", "fetching the tree"},
                                           {"persist", "recording its new life"},
                                           {"run", "running"}};
    for (size_t i = 0; i < HF_ARRAY_LEN(words); i++) {
        if (strcmp(state, words[i][0]) == 0) {
            return words[i][1];
        }
    }
    return state;
}

static void add_problems(struct hf_buf *out, const json_t *problems, bool colour)
{
    size_t i;
    json_t *p;
    json_array_foreach(problems, i, p)
    {
        const char *severity = text_of(p, "severity");
        bool error = strcmp(severity, "error") == 0;
        hf_buf_str(out, colour ? error ? RED : YELLOW : "");
        add_text(out, error ? "ERROR  " : "WARNING  ");
        hf_buf_str(out, colour ? PLAIN : "");
        add_text(out, text_of(p, "what"));
        hf_buf_str(out, "\n    what to do: ");
        add_text(out, text_of(p, "remedy"));
        hf_buf_str(out, "\n");
    }
}

int hf_render_status(struct hf_buf *out, const json_t *s, bool colour)
{
    if (!json_is_object(s)) {
        return -HF_EPROTO;
    }
    const json_t *problems = json_object_get(s, "problems");
    bool running = strcmp(text_of(s, "state"), "run") == 0;
    hf_buf_str(out, colour ? BOLD : "");
    add_text(out, text_of(s, "host"));
    hf_buf_printf(out, "%s: %s", colour ? PLAIN : "", colour ? running ? GREEN : YELLOW : "");
    add_text(out, state_words(text_of(s, "state")));
    hf_buf_str(out, colour ? PLAIN : "");
    if (json_array_size(problems) == 0) {
        hf_buf_str(out, running ? ", no problems\n" : "\n");
    } else {
        hf_buf_printf(out, ", %zu problem%s\n\n", json_array_size(problems),
                      json_array_size(problems) == 1 ? "" : "s");
        add_problems(out, problems, colour);
    }
    hf_buf_printf(out, "\nhosts       %lld", (long long)number_of(s, "members"));
    if (number_of(s, "peers_behind")) {
        hf_buf_printf(out, " (of %lld not everything is known yet, %lld being pulled)",
                      (long long)number_of(s, "peers_behind"),
                      (long long)number_of(s, "pulls_active"));
    }
    hf_buf_printf(out, "\nservices    %lld (%lld of this host)\nheartbeat   ",
                  (long long)number_of(s, "services"), (long long)number_of(s, "local_services"));
    hf_render_span(out, number_of(s, "heartbeat_ms"));
    hf_buf_str(out, ", ");
    add_text(out, text_of(s, "transport"));
    hf_buf_str(out, "\nkey         ");
    add_text(out, text_of(s, "cluster_key_id"));
    hf_buf_str(out, "\nholdfastd   ");
    add_text(out, text_of(s, "version"));
    hf_buf_str(out, ", up ");
    hf_render_span(out, number_of(s, "uptime_s") * 1000);
    hf_buf_printf(out, ", pid %lld, incarnation %lld\n", (long long)number_of(s, "pid"),
                  (long long)number_of(s, "incarnation"));
    return out->err;
}

/* ---- members and tree ---- */

static const char *member_colour(const char *text, size_t row, size_t column)
{
    if (row == 0) {
        return BOLD;
    }
    if (column != 2) {
        return NULL;
    }
    bool good = strcmp(text, "self") == 0 || strcmp(text, "alive") == 0;
    return good ? GREEN : YELLOW;
}

static void member_note(struct table *t, const json_t *m)
{
    size_t from = t->cells.n;
    int64_t failures = number_of(m, "pull_failures");
    if (failures) {
        hf_buf_printf(&t->cells, "%lld pull%s failed: ", (long long)failures,
                      failures == 1 ? "" : "s");
        add_text(&t->cells, text_of(m, "last_error"));
    } else if (json_is_true(json_object_get(m, "pulling"))) {
        hf_buf_str(&t->cells, "being pulled");
    } else if (json_is_true(json_object_get(m, "behind"))) {
        hf_buf_str(&t->cells, "has more than is known here");
    }
    cell_end(t, from);
}

int hf_render_members(struct hf_buf *out, const json_t *members, bool colour)
{
    static const char *const head[] = {"HOST",     "ADDRESS", "STATE",  "INCARNATION",
                                       "SERVICES", "HEARD",   "PERIOD", "NOTE"};
    if (!json_is_array(members)) {
        return -HF_EPROTO;
    }
    struct table t;
    table_init(&t, HF_ARRAY_LEN(head));
    for (size_t i = 0; i < HF_ARRAY_LEN(head); i++) {
        cell(&t, head[i]);
    }
    size_t i;
    json_t *m;
    json_array_foreach(members, i, m)
    {
        bool self = strcmp(text_of(m, "state"), "self") == 0;
        const char *address = text_of(m, "address");
        cell(&t, text_of(m, "host"));
        cell(&t, *address ? address : "-");
        cell(&t, text_of(m, "state"));
        cell_number(&t, number_of(m, "incarnation"));
        cell_number(&t, number_of(m, "services"));
        if (self) {
            cell(&t, "-");
        } else {
            cell_span(&t, number_of(m, "heard_ms"));
        }
        cell_span(&t, number_of(m, "period_ms"));
        member_note(&t, m);
    }
    return table_print(&t, out, colour ? member_colour : NULL);
}

int hf_render_tree(struct hf_buf *out, const json_t *tree)
{
    if (!json_is_array(tree)) {
        return -HF_EPROTO;
    }
    struct table t;
    table_init(&t, 3);
    cell(&t, "NAME");
    cell(&t, "HOST");
    cell(&t, "VALUE");
    size_t i;
    json_t *e;
    json_array_foreach(tree, i, e)
    {
        char *value = json_dumps(json_object_get(e, "value"), JSON_ENCODE_ANY | JSON_COMPACT);
        cell(&t, text_of(e, "name"));
        cell(&t, text_of(e, "owner"));
        cell(&t, value ? value : "");
        free(value);
    }
    return table_print(&t, out, NULL);
}
