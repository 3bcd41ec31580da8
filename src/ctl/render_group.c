/* Groups as a person reads them: who runs what, what is wrong, and what to do. */
#include <stdio.h>
#include <time.h>

#include "base/err.h"
#include "ctl/render.h"
#include "ctl/table.h"

#define BAR 10 /* characters of a progress bar */

static bool is_true(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

/* The strings of an array, each behind a space. */
static void add_list(struct hf_buf *out, const json_t *list)
{
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v)
    {
        const char *s = json_string_value(v);
        hf_buf_str(out, i ? " " : "");
        hf_render_text(out, s ? s : "?");
    }
}

/* A line with a label, its text wrapped; nothing without text. */
static void add_note(struct hf_buf *out, const char *label, const char *text)
{
    if (*text) {
        hf_buf_str(out, "  ");
        hf_render_text(out, label);
        hf_buf_str(out, ": ");
        hf_render_wrap(out, text, 4 + hf_render_width(label), 6);
        hf_buf_str(out, "\n");
    }
}

/* ---- head ---- */

static void add_phase(struct hf_buf *out, const json_t *g, bool colour)
{
    const char *phase = hf_json_text(g, "phase");
    bool running = strcmp(phase, "running") == 0;
    bool none = strcmp(phase, "none") == 0;
    hf_buf_str(out, !colour ? "" : running ? HF_GREEN : none ? HF_RED : HF_YELLOW);
    hf_render_text(out, none ? "no primary" : phase);
    hf_buf_str(out, colour ? HF_PLAIN : "");
}

/* Is the primary only chosen: does it wait until others have stopped? */
static bool is_chosen(const json_t *g)
{
    return strcmp(hf_json_text(g, "phase"), "clearing") == 0;
}

static void add_primary(struct hf_buf *out, const json_t *g)
{
    const json_t *p = json_object_get(g, "primary");
    if (json_is_object(p)) {
        hf_buf_str(out, is_chosen(g) ? "  chosen    " : "  primary   ");
        hf_render_text(out, hf_json_text(p, "resource"));
        hf_buf_str(out, " at ");
        hf_render_text(out, hf_json_text(p, "host"));
        hf_buf_str(out, " (");
        hf_render_text(out, hf_json_text(p, "address"));
        hf_buf_str(out, ")\n");
    }
}

static void add_joining(struct hf_buf *out, const json_t *g)
{
    const json_t *j = json_object_get(g, "joining");
    if (json_is_object(j)) {
        bool config = strcmp(hf_json_text(j, "step"), "configuration") == 0;
        hf_buf_str(out, "  joining   ");
        hf_render_text(out, hf_json_text(j, "host"));
        hf_buf_str(out, config ? ": gets the configuration of its resources\n"
                               : ": finds out which copies it reaches\n");
    }
}

static void add_head(struct hf_buf *out, const json_t *g, bool colour)
{
    const json_t *in_sync = json_object_get(g, "in_sync");
    hf_buf_str(out, colour ? HF_BOLD : "");
    hf_buf_str(out, "group ");
    hf_render_text(out, hf_json_text(g, "name"));
    hf_buf_str(out, colour ? HF_PLAIN ": " : ": ");
    if (!json_is_array(json_object_get(g, "hosts"))) {
        hf_buf_str(out, "nothing is known of it yet\n");
    } else {
        add_phase(out, g, colour);
        hf_buf_printf(out, ", epoch %lld, ", (long long)hf_json_number(g, "epoch"));
        hf_buf_str(out, is_true(g, "quorate") ? "quorate" : "not quorate: the last that is known");
        hf_buf_str(out, is_true(g, "paused") ? ", paused by the operator\n" : "\n");
    }
    add_primary(out, g);
    if (json_array_size(in_sync)) {
        hf_buf_str(out, "  in sync   ");
        add_list(out, in_sync);
        hf_buf_str(out, "\n");
    }
    add_joining(out, g);
    add_note(out, "why", hf_json_text(g, "why"));
}

/* ---- hosts ---- */

static void host_state(struct hf_table *t, const json_t *g, const json_t *m)
{
    size_t from = t->cells.n;
    const char *primary = hf_json_text(json_object_get(g, "primary"), "host");
    hf_buf_str(&t->cells, is_true(m, "here")      ? "this host"
                          : is_true(m, "present") ? "present"
                                                  : "absent");
    if (*primary && strcmp(primary, hf_json_text(m, "host")) == 0) {
        hf_buf_str(&t->cells, is_chosen(g) ? ", chosen" : ", primary host");
    }
    hf_buf_str(&t->cells, is_true(m, "fenced") ? ", fenced" : "");
    hf_buf_str(&t->cells, is_true(m, "leaving") ? ", leaving" : "");
    if (json_array_size(json_object_get(m, "may_run"))) {
        hf_buf_str(&t->cells, ", may still run ");
        add_list(&t->cells, json_object_get(m, "may_run"));
    }
    hf_table_end(t, from);
}

static const char *head_colour(const char *text, size_t row, size_t column)
{
    (void)text;
    (void)column;
    return row == 0 ? HF_BOLD : NULL;
}

static int add_hosts(struct hf_buf *out, const json_t *g, bool colour)
{
    struct hf_table t;
    hf_table_init(&t, 4);
    t.indent = 2;
    t.wrap = true;
    hf_table_cell(&t, "HOST");
    hf_table_cell(&t, "ADDRESS");
    hf_table_cell(&t, "SUBGROUP");
    hf_table_cell(&t, "STATE");
    size_t i;
    json_t *m;
    json_array_foreach(json_object_get(g, "hosts"), i, m)
    {
        const char *subgroup = hf_json_text(m, "subgroup");
        hf_table_cell(&t, hf_json_text(m, "host"));
        hf_table_cell(&t, hf_json_text(m, "address"));
        hf_table_cell(&t, *subgroup ? subgroup : "none");
        host_state(&t, g, m);
    }
    hf_buf_str(out, "\n");
    return hf_table_print(&t, out, colour ? head_colour : NULL);
}

/* ---- resources ---- */

static void add_bar(struct hf_buf *out, int64_t percent)
{
    int full = (int)(percent * BAR / 100);
    hf_buf_str(out, " [");
    for (int i = 0; i < BAR; i++) {
        hf_buf_str(out, i < full ? "#" : ".");
    }
    hf_buf_printf(out, "] %lld%%", (long long)percent);
}

static void resource_state(struct hf_table *t, const json_t *g, const json_t *r)
{
    size_t from = t->cells.n;
    const char *primary = hf_json_text(json_object_get(g, "primary"), "resource");
    const json_t *percent = json_object_get(json_object_get(r, "seen"), "percent");
    const char *mirror = hf_json_text(r, "mirror");
    if (strcmp(hf_json_text(r, "kind"), "attached") == 0) {
        hf_buf_str(&t->cells, "attached");
    } else if (*primary && strcmp(primary, hf_json_text(r, "name")) == 0) {
        hf_buf_str(&t->cells, "primary");
    } else if (!is_true(r, "mirror_capable")) {
        hf_buf_str(&t->cells, "backup");
    } else {
        hf_render_text(&t->cells, strcmp(mirror, "none") == 0 ? "not mirrored" : mirror);
        if (strcmp(mirror, "syncing") == 0 && json_is_integer(percent) &&
            json_integer_value(percent) >= 0 && json_integer_value(percent) <= 100) {
            add_bar(&t->cells, json_integer_value(percent));
        }
    }
    hf_table_end(t, from);
}

static void resource_roles(struct hf_table *t, const json_t *r)
{
    bool attached = strcmp(hf_json_text(r, "kind"), "attached") == 0;
    size_t from = t->cells.n, i;
    json_t *role;
    json_array_foreach(json_object_get(r, "roles"), i, role)
    {
        hf_buf_str(&t->cells, i ? " " : "");
        hf_render_text(&t->cells, hf_json_text(role, "host"));
        hf_buf_str(&t->cells, ":");
        const char *name = hf_json_text(role, "role");
        hf_render_text(&t->cells,
                       attached && (strcmp(name, "promoted") == 0 || strcmp(name, "open") == 0)
                           ? "started"
                           : name);
    }
    if (t->cells.n == from) {
        hf_buf_str(&t->cells, "nothing is known");
    }
    hf_table_end(t, from);
}

static void resource_notes(struct hf_buf *out, const json_t *r)
{
    char label[128];
    struct hf_buf failed;
    const json_t *seen = json_object_get(r, "seen");
    const char *name = hf_json_text(r, "name");
    add_note(out, name, hf_json_text(r, "why"));
    hf_buf_init(&failed, 4096);
    add_list(&failed, json_object_get(r, "failed_on"));
    hf_buf_add(&failed, hf_slice("", 1));
    snprintf(label, sizeof(label), "%.60s, could not be run on", name);
    add_note(out, label, failed.err ? "" : (const char *)failed.p);
    hf_buf_fini(&failed);
    snprintf(label, sizeof(label), "%.60s, mirroring is %.20s", name, hf_json_text(seen, "state"));
    add_note(out, label, hf_json_text(seen, "reason"));
    snprintf(label, sizeof(label), "%.60s, last error of its agent on this host", name);
    add_note(out, label, hf_json_text(r, "error"));
}

static int add_resources(struct hf_buf *out, const json_t *g, bool colour)
{
    const json_t *list = json_object_get(g, "resources");
    struct hf_table t;
    hf_table_init(&t, 4);
    t.indent = 2;
    t.wrap = true;
    hf_table_cell(&t, "RESOURCE");
    hf_table_cell(&t, "STATE");
    hf_table_cell(&t, "HOST");
    hf_table_cell(&t, "ROLES");
    size_t i;
    json_t *r;
    json_array_foreach(list, i, r)
    {
        const char *host = hf_json_text(r, "host");
        hf_table_cell(&t, hf_json_text(r, "name"));
        resource_state(&t, g, r);
        hf_table_cell(&t, *host ? host : "-");
        resource_roles(&t, r);
    }
    hf_buf_str(out, "\n");
    int rc = hf_table_print(&t, out, colour ? head_colour : NULL);
    json_array_foreach(list, i, r)
    {
        resource_notes(out, r);
    }
    return rc;
}

int hf_render_groups(struct hf_buf *out, const json_t *groups, bool colour)
{
    if (!json_is_array(groups)) {
        return -HF_EPROTO;
    }
    size_t i;
    json_t *g;
    int rc = 0;
    json_array_foreach(groups, i, g)
    {
        hf_buf_str(out, i ? "\n" : "");
        add_head(out, g, colour);
        if (json_array_size(json_object_get(g, "hosts"))) {
            int hosts = add_hosts(out, g, colour);
            int resources = add_resources(out, g, colour);
            rc = rc ? rc : hosts ? hosts : resources;
        }
    }
    if (json_array_size(groups) == 0) {
        hf_buf_str(out, "this host is not in any group; make one: holdfast group create, or join: "
                        "holdfast group join\n");
    }
    return rc ? rc : out->err;
}

/* ---- history ---- */

int hf_render_history(struct hf_buf *out, const json_t *history)
{
    if (!json_is_array(history)) {
        return -HF_EPROTO;
    }
    struct hf_table t;
    hf_table_init(&t, 3);
    t.wrap = true;
    hf_table_cell(&t, "TIME");
    hf_table_cell(&t, "EPOCH");
    hf_table_cell(&t, "WHAT");
    size_t i;
    json_t *e;
    json_array_foreach(history, i, e)
    {
        char when[40] = "?";
        time_t at = (time_t)(hf_json_number(e, "at") / 1000);
        struct tm tm;
        if (localtime_r(&at, &tm)) {
            (void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
        }
        hf_table_cell(&t, when);
        hf_table_number(&t, hf_json_number(e, "epoch"));
        hf_table_cell(&t, hf_json_text(e, "text"));
    }
    return hf_table_print(&t, out, NULL);
}
