#include "ctl/render.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/utf8.h"
#include "ctl/table.h"

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
        const char *severity = hf_json_text(p, "severity");
        bool error = strcmp(severity, "error") == 0;
        hf_buf_str(out, colour ? error ? HF_RED : HF_YELLOW : "");
        hf_render_text(out, error ? "ERROR  " : "WARNING  ");
        hf_buf_str(out, colour ? HF_PLAIN : "");
        hf_render_text(out, hf_json_text(p, "what"));
        hf_buf_str(out, "\n    what to do: ");
        hf_render_text(out, hf_json_text(p, "remedy"));
        hf_buf_str(out, "\n");
    }
}

int hf_render_status(struct hf_buf *out, const json_t *s, bool colour)
{
    if (!json_is_object(s)) {
        return -HF_EPROTO;
    }
    const json_t *problems = json_object_get(s, "problems");
    bool running = strcmp(hf_json_text(s, "state"), "run") == 0;
    hf_buf_str(out, colour ? HF_BOLD : "");
    hf_render_text(out, hf_json_text(s, "host"));
    hf_buf_printf(out, "%s: %s", colour ? HF_PLAIN : "",
                  colour ? running ? HF_GREEN : HF_YELLOW : "");
    hf_render_text(out, state_words(hf_json_text(s, "state")));
    hf_buf_str(out, colour ? HF_PLAIN : "");
    if (json_array_size(problems) == 0) {
        hf_buf_str(out, running ? ", no problems\n" : "\n");
    } else {
        hf_buf_printf(out, ", %zu problem%s\n\n", json_array_size(problems),
                      json_array_size(problems) == 1 ? "" : "s");
        add_problems(out, problems, colour);
    }
    hf_buf_printf(out, "\nhosts       %lld", (long long)hf_json_number(s, "members"));
    if (hf_json_number(s, "peers_behind")) {
        hf_buf_printf(out, " (of %lld not everything is known yet, %lld being pulled)",
                      (long long)hf_json_number(s, "peers_behind"),
                      (long long)hf_json_number(s, "pulls_active"));
    }
    hf_buf_printf(out, "\nservices    %lld (%lld of this host)\nheartbeat   ",
                  (long long)hf_json_number(s, "services"),
                  (long long)hf_json_number(s, "local_services"));
    hf_buf_span(out, hf_json_number(s, "heartbeat_ms"));
    hf_buf_str(out, ", ");
    hf_render_text(out, hf_json_text(s, "transport"));
    hf_buf_str(out, "\nkey         ");
    hf_render_text(out, hf_json_text(s, "cluster_key_id"));
    hf_buf_str(out, "\nholdfastd   ");
    hf_render_text(out, hf_json_text(s, "version"));
    hf_buf_str(out, ", up ");
    hf_buf_span(out, hf_json_number(s, "uptime_s") * 1000);
    hf_buf_printf(out, ", pid %lld, incarnation %lld\n", (long long)hf_json_number(s, "pid"),
                  (long long)hf_json_number(s, "incarnation"));
    const json_t *groups = json_object_get(s, "groups");
    if (json_array_size(groups) == 0) {
        return out->err;
    }
    hf_buf_str(out, "\n");
    return hf_render_groups(out, groups, colour);
}

/* ---- members and tree ---- */

static const char *member_colour(const char *text, size_t row, size_t column)
{
    if (row == 0) {
        return HF_BOLD;
    }
    if (column != 2) {
        return NULL;
    }
    bool good = strcmp(text, "self") == 0 || strcmp(text, "alive") == 0;
    return good ? HF_GREEN : HF_YELLOW;
}

static void member_note(struct hf_table *t, const json_t *m)
{
    size_t from = t->cells.n;
    int64_t failures = hf_json_number(m, "pull_failures");
    if (failures) {
        hf_buf_printf(&t->cells, "%lld pull%s failed: ", (long long)failures,
                      failures == 1 ? "" : "s");
        hf_render_text(&t->cells, hf_json_text(m, "last_error"));
    } else if (json_is_true(json_object_get(m, "pulling"))) {
        hf_buf_str(&t->cells, "being pulled");
    } else if (json_is_true(json_object_get(m, "behind"))) {
        hf_buf_str(&t->cells, "has more than is known here");
    }
    hf_table_end(t, from);
}

int hf_render_members(struct hf_buf *out, const json_t *members, bool colour)
{
    static const char *const head[] = {"HOST",     "ADDRESS", "STATE",  "INCARNATION",
                                       "SERVICES", "HEARD",   "PERIOD", "NOTE"};
    if (!json_is_array(members)) {
        return -HF_EPROTO;
    }
    struct hf_table t;
    hf_table_init(&t, HF_ARRAY_LEN(head));
    for (size_t i = 0; i < HF_ARRAY_LEN(head); i++) {
        hf_table_cell(&t, head[i]);
    }
    size_t i;
    json_t *m;
    json_array_foreach(members, i, m)
    {
        bool self = strcmp(hf_json_text(m, "state"), "self") == 0;
        const char *address = hf_json_text(m, "address");
        hf_table_cell(&t, hf_json_text(m, "host"));
        hf_table_cell(&t, *address ? address : "-");
        hf_table_cell(&t, hf_json_text(m, "state"));
        hf_table_number(&t, hf_json_number(m, "incarnation"));
        hf_table_number(&t, hf_json_number(m, "services"));
        if (self) {
            hf_table_cell(&t, "-");
        } else {
            hf_table_span(&t, hf_json_number(m, "heard_ms"));
        }
        hf_table_span(&t, hf_json_number(m, "period_ms"));
        member_note(&t, m);
    }
    return hf_table_print(&t, out, colour ? member_colour : NULL);
}

int hf_render_tree(struct hf_buf *out, const json_t *tree)
{
    if (!json_is_array(tree)) {
        return -HF_EPROTO;
    }
    struct hf_table t;
    hf_table_init(&t, 3);
    hf_table_cell(&t, "NAME");
    hf_table_cell(&t, "HOST");
    hf_table_cell(&t, "VALUE");
    size_t i;
    json_t *e;
    json_array_foreach(tree, i, e)
    {
        char *value = json_dumps(json_object_get(e, "value"),
                                 JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
        hf_table_cell(&t, hf_json_text(e, "name"));
        hf_table_cell(&t, hf_json_text(e, "owner"));
        hf_table_cell(&t, value ? value : "");
        free(value);
    }
    return hf_table_print(&t, out, NULL);
}
