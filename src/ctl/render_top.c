/* `holdfast top`: an overview as lines that fit a terminal. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "ctl/render.h"
#include "ctl/table.h"

#define TEXT_MAX (1u << 20) /* of a section */
#define SPARK 24            /* figures in a row */
#define BAR 10

/* A heading and what stands below it, line by line; colours are not counted in. */
struct section {
    const struct hf_top_view *view;
    struct hf_buf text;
    size_t n; /* lines */
};

enum { PROBLEMS, GROUPS, SESSIONS, HOSTS, SIP, EVENTS, SECTIONS };

/* ---- lines ---- */

/* How many bytes of s are shown in so many columns. */
static size_t fitting(struct hf_slice s, size_t columns)
{
    size_t i = 0;
    for (size_t n = 0; i < s.n && n < columns; n++) {
        size_t len = hf_utf8_len(s.p + i, s.n - i);
        i += len ? len : 1;
    }
    return i;
}

/* One line, without what would control the terminal, cut where that ends. */
static void put_line(struct section *s, const char *colour, struct hf_slice text)
{
    struct hf_buf safe;
    hf_buf_init(&safe, TEXT_MAX);
    hf_render_safe(&safe, text);
    for (size_t i = 0; i < safe.n; i++) {
        safe.p[i] = safe.p[i] == '\n' || safe.p[i] == '\t' ? ' ' : safe.p[i];
    }
    bool paint = colour && s->view->colour;
    struct hf_slice all = hf_buf_slice(&safe);
    hf_buf_str(&s->text, paint ? colour : "");
    hf_buf_add(&s->text, hf_slice(all.p, fitting(all, s->view->columns)));
    hf_buf_str(&s->text, paint ? HF_PLAIN "\n" : "\n");
    s->n++;
    hf_buf_fini(&safe);
}

static void HF_PRINTF(3, 4) line(struct section *s, const char *colour, const char *fmt, ...)
{
    char text[1024]; /* wider than any terminal */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    put_line(s, colour, hf_slice_str(text));
}

/* text word by word behind head; further lines begin at indent. */
static void wrap(struct section *s, const char *colour, const char *head, size_t indent,
                 const char *text)
{
    struct hf_buf row;
    bool begun = false;
    hf_buf_init(&row, TEXT_MAX);
    hf_buf_str(&row, head);
    size_t at = hf_render_width(head);
    while (*text) {
        size_t n = strcspn(text, " ");
        struct hf_slice word = hf_slice(text, n);
        size_t w = 0;
        for (size_t i = 0; i < n; i++) {
            w += (text[i] & 0xc0) != 0x80;
        }
        if (begun && at + 1 + w > s->view->columns) {
            put_line(s, colour, hf_buf_slice(&row));
            hf_buf_clear(&row);
            hf_buf_printf(&row, "%*s", (int)indent, "");
            at = indent;
        } else if (begun) {
            hf_buf_str(&row, " ");
            at++;
        }
        hf_buf_add(&row, word);
        at += w;
        begun = true;
        text += n + strspn(text + n, " ");
    }
    put_line(s, colour, hf_buf_slice(&row));
    hf_buf_fini(&row);
}

static const json_t *value_of(const json_t *entry)
{
    return json_object_get(entry, "value");
}

static bool is_true(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

static bool is(const json_t *o, const char *key, const char *text)
{
    return strcmp(hf_json_text(o, key), text) == 0;
}

/* ---- problems ---- */

static void add_problems(struct section *s, const json_t *o)
{
    const json_t *p;
    size_t i;
    json_array_foreach(json_object_get(o, "problems"), i, p)
    {
        bool error = is(p, "severity", "error");
        wrap(s, error ? HF_RED : HF_YELLOW, error ? "ERROR    " : "WARNING  ", 9,
             hf_json_text(p, "what"));
        wrap(s, NULL, "  what to do: ", 14, hf_json_text(p, "remedy"));
    }
}

/* ---- groups ---- */

static void describe_copy(struct hf_buf *out, const json_t *g, const json_t *r)
{
    const json_t *percent = json_object_get(json_object_get(r, "seen"), "percent");
    const char *host = hf_json_text(r, "host");
    const json_t *primary = json_object_get(g, "primary");
    int64_t full = json_integer_value(percent) * BAR / 100;
    hf_buf_printf(out, "%s@%s ", hf_json_text(r, "name"), *host ? host : "-");
    if (is(primary, "resource", hf_json_text(r, "name"))) {
        hf_buf_str(out, "primary");
    } else if (!is_true(r, "mirror_capable")) {
        hf_buf_str(out, "backup");
    } else {
        hf_buf_str(out, is(r, "mirror", "none") ? "not mirrored" : hf_json_text(r, "mirror"));
    }
    if (is(r, "mirror", "syncing") && json_is_integer(percent) && full >= 0 && full <= BAR) {
        hf_buf_printf(out, " [%.*s%.*s] %lld%%", (int)full, "##########", (int)(BAR - full),
                      "..........", (long long)json_integer_value(percent));
    }
}

/* Copies as the primary's mirrors, and what is attached to it. */
static void add_resources(struct section *s, const json_t *g)
{
    struct hf_buf copies, attached;
    const json_t *r;
    size_t i;
    hf_buf_init(&copies, TEXT_MAX);
    hf_buf_init(&attached, TEXT_MAX);
    json_array_foreach(json_object_get(g, "resources"), i, r)
    {
        if (is(r, "kind", "copy")) {
            hf_buf_str(&copies, copies.n ? ", " : "");
            describe_copy(&copies, g, r);
        } else {
            hf_buf_printf(&attached, "%s%s", attached.n ? " " : "", hf_json_text(r, "name"));
        }
    }
    if (attached.n) {
        hf_buf_printf(&copies, "%swith %.*s", copies.n ? "; " : "",
                      HF_SLICE_FMT(hf_buf_slice(&attached)));
    }
    hf_buf_add(&copies, hf_slice("", 1));
    if (!copies.err && copies.n > 1) {
        wrap(s, NULL, "    ", 4, (const char *)copies.p);
    }
    hf_buf_fini(&copies);
    hf_buf_fini(&attached);
}

static void add_groups(struct section *s, const json_t *o)
{
    const json_t *g;
    size_t i;
    json_array_foreach(json_object_get(o, "groups"), i, g)
    {
        const json_t *primary = json_object_get(g, "primary");
        bool well = is(g, "phase", "running") && is_true(g, "quorate");
        const char *phase = hf_json_text(g, "phase");
        line(s, well ? HF_GREEN : HF_YELLOW, "  %s: %s, epoch %lld%s%s%s%s%s",
             hf_json_text(g, "name"),
             strcmp(phase, "none") == 0 ? "no primary"
             : *phase                   ? phase
                                        : "nothing is known yet",
             (long long)hf_json_number(g, "epoch"), is_true(g, "quorate") ? "" : ", not quorate",
             is_true(g, "paused") ? ", paused" : "", json_is_object(primary) ? ", " : "",
             hf_json_text(primary, "host"), json_is_object(primary) ? " is primary host" : "");
        add_resources(s, g);
    }
}

/* ---- figures ---- */

/* The last figures of a name, the latest at the right, in eighths of their highest. */
static void spark(struct hf_buf *out, const struct hf_top_view *view, const json_t *o,
                  const char *about, const char *name, const char *key)
{
    static const char *const blocks[] = {"\u2581", "\u2582", "\u2583", "\u2584",
                                         "\u2585", "\u2586", "\u2587", "\u2588"};
    static const char *const plain[] = {"_", ".", ":", "-", "=", "+", "*", "#"};
    const json_t *samples = json_object_get(o, "samples");
    double v[SPARK], most = 0;
    size_t n = 0;
    for (size_t i = json_array_size(samples); i-- > 0 && n < SPARK;) {
        const json_t *m = json_array_get(samples, i), *f = json_object_get(m, key);
        if (is(m, "about", about) && is(m, "name", name) && json_is_number(f)) {
            v[n] = json_number_value(f) > 0 ? json_number_value(f) : 0;
            most = v[n] > most ? v[n] : most;
            n++;
        }
    }
    for (size_t i = n; i-- > 0;) {
        size_t level = most > 0 ? (size_t)(v[i] / most * 7.999) : 0;
        hf_buf_str(out, view->utf8 ? blocks[level] : plain[level]);
    }
    if (n) {
        hf_buf_printf(out, " %.3g, at most %.3g", v[0], most);
    }
}

static void spark_line(struct section *s, const json_t *o, const char *about, const char *name,
                       const char *key, const char *label, const char *unit)
{
    struct hf_buf row;
    hf_buf_init(&row, TEXT_MAX);
    hf_buf_printf(&row, "    %-18s", label);
    size_t n = row.n;
    spark(&row, s->view, o, about, name, key);
    if (row.n > n) {
        hf_buf_printf(&row, " %s", unit);
        put_line(s, NULL, hf_buf_slice(&row));
    }
    hf_buf_fini(&row);
}

/* ---- sessions ---- */

static void describe_unprotected(struct hf_buf *out, const json_t *v)
{
    const char *why;
    const json_t *n;
    const char *comma = "";
    json_object_foreach(json_object_get(v, "unprotected"), why, n)
    {
        hf_buf_printf(out, "%s%lld %s", comma, (long long)json_integer_value(n), why);
        comma = ", ";
    }
    hf_buf_add(out, hf_slice("", 1));
}

static void add_serving(struct section *s, const json_t *o, const json_t *m)
{
    const json_t *v = value_of(m), *without = json_object_get(m, "unprotected_ms");
    const char *name = hf_json_text(v, "group");
    int64_t all = hf_json_number(v, "sessions"), kept = hf_json_number(v, "protected");
    struct hf_buf why;
    hf_buf_init(&why, TEXT_MAX);
    if (without) {
        hf_buf_span(&why, json_integer_value(without));
        hf_buf_add(&why, hf_slice("", 1));
        line(s, HF_YELLOW, "  %s: %lld sessions at %s, none protected for %s: %s", name,
             (long long)all, hf_json_text(m, "owner"), why.err ? "" : (const char *)why.p,
             hf_json_text(v, "why"));
    } else if (kept < all) {
        describe_unprotected(&why, v);
        line(s, HF_YELLOW, "  %s: %lld sessions at %s, %lld protected by %s, %lld not: %s", name,
             (long long)all, hf_json_text(m, "owner"), (long long)kept, hf_json_text(v, "peer"),
             (long long)(all - kept), why.err ? "" : (const char *)why.p);
    } else {
        line(s, HF_GREEN, "  %s: %lld sessions at %s, all protected by %s", name, (long long)all,
             hf_json_text(m, "owner"), hf_json_text(v, "peer"));
    }
    hf_buf_fini(&why);
    const char *of = strrchr(hf_json_text(m, "name"), '/'); /* as samples are named */
    of = of ? of + 1 : name;
    spark_line(s, o, "manager", of, "p99_ms", "99 % within", "ms");
    spark_line(s, o, "manager", of, "slowest_ms", "slowest (stalls)", "ms");
    spark_line(s, o, "manager", of, "lag_ms", "backup is behind", "ms");
}

static void add_sessions(struct section *s, const json_t *o)
{
    const json_t *m;
    size_t i;
    json_array_foreach(json_object_get(o, "managers"), i, m)
    {
        if (is_true(m, "serves")) {
            add_serving(s, o, m);
        }
    }
}

/* ---- hosts, SIP ---- */

/* What the programs of a host add up to. */
static int64_t sum_of(const json_t *programs, const char *owner, const char *key, bool serving)
{
    const json_t *e;
    size_t i;
    int64_t sum = 0;
    json_array_foreach(programs, i, e)
    {
        if (is(e, "owner", owner) && (!serving || is_true(e, "serves"))) {
            sum += hf_json_number(value_of(e), key);
        }
    }
    return sum;
}

static void add_hosts(struct section *s, const json_t *o)
{
    const json_t *h;
    size_t i;
    int64_t more = hf_json_number(o, "hosts_more");
    json_array_foreach(json_object_get(o, "hosts"), i, h)
    {
        const char *host = hf_json_text(h, "host"), *draining = hf_json_text(h, "draining");
        bool alive = is(h, "state", "alive") || is(h, "state", "self");
        bool dead = is(h, "state", "dead") || is(h, "state", "absent");
        line(s,
             dead                  ? HF_RED
             : alive && !*draining ? HF_GREEN
                                   : HF_YELLOW,
             "  %-12s %-8s %5lld sessions %5lld SIP users%s%s", host,
             is(h, "state", "self") ? "alive" : hf_json_text(h, "state"),
             (long long)sum_of(json_object_get(o, "managers"), host, "sessions", true),
             (long long)sum_of(json_object_get(o, "sip"), host, "rows", false),
             *draining ? "  draining: " : "", draining);
    }
    if (more > 0) {
        line(s, NULL, "  and %lld more", (long long)more);
    }
}

static void add_sip(struct section *s, const json_t *o)
{
    const json_t *e;
    size_t i;
    json_array_foreach(json_object_get(o, "sip"), i, e)
    {
        const json_t *v = value_of(e);
        const char *name = hf_json_text(e, "name");
        bool well = is(v, "state", "live") && !is_true(v, "busy");
        line(s, well ? HF_GREEN : HF_YELLOW,
             "  %-12s %-8s %5lld users %6lld requests/s, CPU %lld%%%s%s", name,
             hf_json_text(v, "state"), (long long)hf_json_number(v, "rows"),
             (long long)hf_json_number(v, "requests_s"), (long long)hf_json_number(v, "cpu") / 10,
             is_true(v, "busy") ? ", overloaded" : "", is_true(v, "leads") ? ", leads" : "");
    }
}

/* ---- events: the latest first ---- */

static void add_events(struct section *s, const json_t *o)
{
    const json_t *events = json_object_get(o, "events");
    for (size_t i = json_array_size(events); i-- > 0;) {
        const json_t *e = json_array_get(events, i);
        char when[16] = "?";
        time_t at = (time_t)(hf_json_number(e, "at") / 1000);
        struct tm tm;
        if (localtime_r(&at, &tm)) {
            (void)strftime(when, sizeof(when), "%H:%M:%S", &tm);
        }
        line(s, NULL, "  %s %s%s: %s", when, is(e, "about", "sip") ? "SIP " : "",
             hf_json_text(e, "name"), hf_json_text(e, "text"));
    }
}

/* ---- all of it ---- */

static void head(struct section *s, const json_t *o)
{
    size_t n = json_array_size(json_object_get(o, "problems"));
    bool running = is(o, "state", "run");
    char state[128];
    if (!json_is_object(o)) {
        line(s, HF_BOLD, "holdfast top");
    } else {
        snprintf(state, sizeof(state), n ? "%zu problem%s" : "no problems", n, n == 1 ? "" : "s");
        line(s, HF_BOLD, "holdfast top - %s: %s, %s, %lld host%s", hf_json_text(o, "host"),
             running ? "running" : hf_json_text(o, "state"), state,
             (long long)hf_json_number(o, "members"), hf_json_number(o, "members") == 1 ? "" : "s");
    }
    if (s->view->lost) {
        wrap(s, HF_RED, "OLD: ", 5, s->view->lost);
    }
}

/* One line after the other to each section that wants more; 0 rows: all there are. */
static void share_out(const struct section *s, size_t room, size_t give[SECTIONS])
{
    for (bool more = true; more && room > 0;) {
        more = false;
        for (size_t i = 0; i < SECTIONS && room > 0; i++) {
            size_t all = s[i].n ? s[i].n + 1 : 0; /* with its heading */
            if (give[i] < all) {
                give[i]++;
                room--;
                more = true;
            }
        }
    }
}

/* The heading and the first lines of a section; the last one says what is left out. */
static void put_section(struct hf_buf *out, const struct section *s, const char *title, size_t give)
{
    const struct hf_top_view *view = s->view;
    const uint8_t *p = s->text.p;
    if (give == 0) {
        return;
    }
    size_t rows = give - 1, kept = s->n > rows && rows > 1 ? rows - 1 : rows;
    hf_buf_printf(out, "%s%.*s%s\n", view->colour ? HF_BOLD : "", (int)view->columns, title,
                  view->colour ? HF_PLAIN : "");
    for (size_t i = 0; i < kept && i < s->n; i++) {
        size_t left = s->text.n - (size_t)(p - s->text.p);
        const uint8_t *end = memchr(p, '\n', left);
        size_t n = end ? (size_t)(end - p) + 1 : left;
        hf_buf_add(out, hf_slice(p, n));
        p += n;
    }
    if (kept < rows) {
        char more[48];
        snprintf(more, sizeof(more), "  ... %zu more lines", s->n - kept);
        hf_buf_printf(out, "%.*s\n", (int)view->columns, more);
    }
}

int hf_render_top(struct hf_buf *out, const json_t *o, const struct hf_top_view *view)
{
    static const char *const title[SECTIONS] = {"PROBLEMS", "GROUPS", "SESSIONS",
                                                "HOSTS",    "SIP",    "EVENTS"};
    static void (*const add[SECTIONS])(struct section *, const json_t *) = {
        add_problems, add_groups, add_sessions, add_hosts, add_sip, add_events};
    struct section first = {.view = view}, s[SECTIONS];
    size_t give[SECTIONS] = {0};
    int rc = 0;
    hf_buf_init(&first.text, TEXT_MAX);
    head(&first, o);
    size_t room = view->rows == 0 ? SIZE_MAX : view->rows > first.n ? view->rows - first.n : 0;
    for (size_t i = 0; i < SECTIONS; i++) {
        s[i] = (struct section){.view = view};
        hf_buf_init(&s[i].text, TEXT_MAX);
        add[i](&s[i], o);
        rc = rc ? rc : s[i].text.err;
    }
    share_out(s, room, give);
    hf_buf_add(out, hf_buf_slice(&first.text));
    for (size_t i = 0; i < SECTIONS; i++) {
        put_section(out, &s[i], title[i], give[i]);
        hf_buf_fini(&s[i].text);
    }
    rc = rc ? rc : first.text.err;
    hf_buf_fini(&first.text);
    return rc ? rc : out->err;
}
