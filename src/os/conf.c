#include "os/conf.h"

#include <confuse.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/mem.h"
#include "os/file.h"

/* What a file said of an option. */
struct given {
    int line;      /* where; 0: nothing */
    unsigned n;    /* values read */
    bool complete; /* another one would be a second assignment */
};

/* What the file said of the items of a titled section: per item, per option. */
struct titled_given {
    struct given *given;
};

struct hf_conf_load {
    const struct hf_conf_schema *schema;
    const char *file;
    struct hf_err *err;          /* may be NULL */
    char *snapshot;              /* being filled */
    struct given *given;         /* per option */
    struct titled_given *titled; /* per titled section */
    bool failed;                 /* err has the first failure */
};

/* An option's row, and where its value is: in the snapshot, or in an item of it. */
struct place {
    const struct hf_conf_opt *o;
    const char *section, *title; /* for errors; title NULL: not in an item */
    char *base;
    struct given *given;
};

/* libconfuse's options know their row here by a number. */
#define TITLED_ROW(t, i) ((long)(((t) + 1) << 16 | (i)))

/*
 * The load under way: libconfuse has no place for a caller's pointer in its callbacks, and its
 * scanner is global anyway.
 */
static struct hf_conf_load *loading;

/* ---- one value ---- */

struct unit {
    const char *name;
    int64_t factor;
};
static const struct unit durations[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
static const struct unit sizes[] = {{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};

/* The rows of units for a type; *ret_n is 0 for a plain number. */
static const struct unit *units_of(enum hf_conf_type type, size_t *ret_n)
{
    *ret_n = type == HF_CONF_DURATION ? HF_ARRAY_LEN(durations)
             : type == HF_CONF_SIZE   ? HF_ARRAY_LEN(sizes)
                                      : 0;
    return type == HF_CONF_DURATION ? durations : sizes;
}

/* Number and unit. A unit may be left out only where that is not ambiguous: sizes, and zero. */
static bool parse_number(enum hf_conf_type type, const char *s, int64_t *ret_v)
{
    int64_t sign = *s == '-' ? -1 : 1;
    int64_t v = 0;
    s += *s == '-';
    if (!isdigit((unsigned char)*s)) {
        return false;
    }
    for (; isdigit((unsigned char)*s); s++) {
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *s - '0', &v)) {
            return false;
        }
    }
    int64_t factor = (type != HF_CONF_DURATION || v == 0) && *s == '\0' ? 1 : 0;
    size_t n;
    const struct unit *u = units_of(type, &n);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(s, u[i].name) == 0) {
            factor = u[i].factor;
        }
    }
    if (factor == 0 || __builtin_mul_overflow(v, factor, &v)) {
        return false;
    }
    *ret_v = v * sign;
    return true;
}

/* As parse_number() reads it: the largest unit that divides. */
static void print_number(enum hf_conf_type type, int64_t v, struct hf_buf *out)
{
    size_t n;
    const struct unit *u = units_of(type, &n);
    while (n > 0 && (v == 0 || v % u[n - 1].factor != 0)) {
        n--;
    }
    if (n == 0) {
        hf_buf_printf(out, "%lld", (long long)v);
    } else if (u[n - 1].factor == 1 && type == HF_CONF_SIZE) {
        hf_buf_printf(out, "%lld", (long long)v);
    } else {
        hf_buf_printf(out, "%lld%s", (long long)(v / u[n - 1].factor), u[n - 1].name);
    }
}

static int index_of(const char *const *names, const char *s)
{
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], s) == 0) {
            return i;
        }
    }
    return -1;
}

static void add_names(const struct hf_conf_opt *o, struct hf_buf *out)
{
    for (int i = 0; o->names[i]; i++) {
        hf_buf_printf(out, "%s%s", i == 0 ? "" : o->names[i + 1] ? ", " : " or ", o->names[i]);
    }
}

static void add_range(const struct hf_conf_opt *o, struct hf_buf *out)
{
    print_number(o->type, o->min, out);
    hf_buf_str(out, " to ");
    print_number(o->type, o->max, out);
}

/* What may be written there, after "expected" and in the listings. */
static void add_expected(const struct hf_conf_opt *o, struct hf_buf *out)
{
    switch (o->type) {
    case HF_CONF_BOOL:
        hf_buf_str(out, "true or false");
        break;
    case HF_CONF_INT:
        hf_buf_str(out, "a number, ");
        add_range(o, out);
        break;
    case HF_CONF_DURATION:
        hf_buf_str(out, "a duration (ms, s, m, h), ");
        add_range(o, out);
        break;
    case HF_CONF_SIZE:
        hf_buf_str(out, "a size (B, KiB, MiB, GiB), ");
        add_range(o, out);
        break;
    case HF_CONF_STRING:
        hf_buf_printf(out, "text of %lld to %lld bytes", (long long)o->min, (long long)o->max);
        break;
    case HF_CONF_ENUM:
        add_names(o, out);
        break;
    case HF_CONF_SET:
        hf_buf_str(out, "a list of ");
        add_names(o, out);
        break;
    case HF_CONF_ADDR:
        hf_buf_str(out, o->port ? "an address with or without port" : "an address");
        if (o->none) {
            hf_buf_printf(out, ", or %s", o->none);
        }
        break;
    case HF_CONF_ADDR_LIST:
        hf_buf_str(out, "a list of addresses, each with or without port");
        break;
    case HF_CONF_LIST:
        hf_buf_str(out, "a list of words");
        break;
    case HF_CONF_PAIRS:
        hf_buf_str(out, "a section of NAME = VALUE");
        break;
    }
}

static bool parse_bool(const char *s, bool *ret_v)
{
    static const char *const words[] = {"false", "no", "off", "true", "yes", "on", NULL};
    int i = index_of(words, s);
    *ret_v = i >= 3;
    return i >= 0;
}

static bool parse_string(const struct hf_conf_opt *o, const char *s, char **field,
                         const char **ret_expected)
{
    int64_t n = (int64_t)strlen(s);
    *ret_expected = o->check && n > 0 ? o->check(s) : NULL;
    return n >= o->min && n <= o->max && !*ret_expected && hf_conf_set_string(field, s) == 0;
}

static bool parse_addr(const struct hf_conf_opt *o, const char *s, struct hf_addr *field,
                       struct hf_err *ret_why)
{
    if (o->none && strcmp(s, o->none) == 0) {
        *field = (struct hf_addr){0};
        return true;
    }
    return hf_addr_parse(s, o->port, ret_why, field) == 0;
}

static bool add_addr(const struct hf_conf_opt *o, const char *s, struct hf_conf_addrs *list,
                     struct hf_err *ret_why)
{
    struct hf_addr a;
    if (list->n == HF_CONF_LIST_MAX || hf_addr_parse(s, o->port, ret_why, &a)) {
        return false;
    }
    struct hf_addr *more = hf_realloc(list->addr, (list->n + 1) * sizeof(a));
    if (!more) {
        return false;
    }
    list->addr = more;
    list->addr[list->n++] = a;
    return true;
}

/* Room for one more element of size n; NULL: a limit. */
static void *add_element(void **array, size_t *n, size_t size)
{
    if (*n == HF_CONF_LIST_MAX) {
        return NULL;
    }
    char *more = hf_realloc(*array, (*n + 1) * size);
    if (!more) {
        return NULL;
    }
    *array = more;
    memset(more + *n * size, 0, size);
    return more + (*n)++ * size;
}

static bool add_word(const struct hf_conf_opt *o, const char *s, struct hf_conf_list *list,
                     const char **ret_expected)
{
    *ret_expected = o->check ? o->check(s) : NULL;
    if (*ret_expected) {
        return false;
    }
    char **word = add_element((void **)&list->item, &list->n, sizeof(*word));
    return word && hf_conf_set_string(word, s) == 0;
}

/* Read the text s into the option's field, or say what was expected. */
static bool parse_value(const struct hf_conf_opt *o, const char *s, char *snapshot,
                        struct hf_buf *ret_expected)
{
    void *field = snapshot + o->offset;
    const char *expected = NULL;
    struct hf_err why = {0};
    bool ok = false;
    int64_t v = 0;
    switch (o->type) {
    case HF_CONF_BOOL:
        ok = parse_bool(s, field);
        break;
    case HF_CONF_INT:
    case HF_CONF_DURATION:
    case HF_CONF_SIZE:
        ok = parse_number(o->type, s, &v) && v >= o->min && v <= o->max;
        *(int64_t *)field = v;
        break;
    case HF_CONF_STRING:
        ok = parse_string(o, s, field, &expected);
        break;
    case HF_CONF_ENUM:
        v = index_of(o->names, s);
        ok = v >= 0;
        *(int64_t *)field = v;
        break;
    case HF_CONF_SET:
        v = index_of(o->names, s);
        ok = v >= 0;
        *(uint32_t *)field |= ok ? 1u << v : 0;
        break;
    case HF_CONF_ADDR:
        ok = parse_addr(o, s, field, &why);
        break;
    case HF_CONF_ADDR_LIST:
        ok = add_addr(o, s, field, &why);
        break;
    case HF_CONF_LIST:
        ok = add_word(o, s, field, &expected);
        break;
    case HF_CONF_PAIRS:
        break; /* on_pairs() */
    }
    if (!ok && expected) {
        hf_buf_str(ret_expected, expected);
    } else if (!ok) {
        add_expected(o, ret_expected);
        if (why.text[0]) {
            hf_buf_printf(ret_expected, " (%s)", why.text);
        }
    }
    return ok;
}

static bool is_list(const struct hf_conf_opt *o)
{
    return o->type == HF_CONF_SET || o->type == HF_CONF_ADDR_LIST || o->type == HF_CONF_LIST;
}

int hf_conf_set_string(char **field, const char *value)
{
    size_t n = strlen(value) + 1;
    char *copy = hf_alloc(n);
    if (!copy) {
        return -ENOMEM;
    }
    memcpy(copy, value, n);
    hf_free(*field);
    *field = copy;
    return 0;
}

static int set_defaults(const struct hf_conf_opt *opt, size_t n_opts, char *base)
{
    struct hf_buf expected;
    hf_buf_init(&expected, 512);
    int rc = 0;
    for (size_t i = 0; i < n_opts && rc == 0; i++) {
        const struct hf_conf_opt *o = &opt[i];
        char *rest = NULL;
        char *text = NULL;
        if (o->type == HF_CONF_PAIRS) {
            continue;
        }
        if (o->required) {
            rc = hf_conf_set_string((char **)(void *)(base + o->offset), "");
            continue;
        }
        rc = hf_conf_set_string(&text, o->def);
        if (rc == 0 && !is_list(o)) {
            rc = parse_value(o, text, base, &expected) ? 0 : -ENOMEM;
        }
        for (char *w = is_list(o) && text ? strtok_r(text, " ", &rest) : NULL; w && rc == 0;
             w = strtok_r(NULL, " ", &rest)) {
            rc = parse_value(o, w, base, &expected) ? 0 : -ENOMEM;
        }
        hf_free(text);
    }
    hf_buf_fini(&expected);
    return rc;
}

/* ---- errors ---- */

/* Note the first failure, with its place before it. */
static void refuse_at(struct hf_conf_load *l, int line, const char *text)
{
    if (l->failed) {
        return;
    }
    l->failed = true;
    if (line > 0) {
        hf_err_set(l->err, -HF_ECONFIG, "%s:%d: %s", l->file, line, text);
    } else {
        hf_err_set(l->err, -HF_ECONFIG, "%s: %s", l->file, text);
    }
}

static void option_key(const struct hf_conf_opt *o, char *buf, size_t n)
{
    snprintf(buf, n, "%s%s%s", o->section, *o->section ? "." : "", o->name);
}

static char *item_at(const struct hf_conf_titled *t, const char *snapshot, size_t i)
{
    const struct hf_conf_items *items = (const void *)(snapshot + t->offset);
    return (char *)items->item + i * t->size;
}

static struct hf_conf_title *title_at(const struct hf_conf_titled *t, const char *snapshot,
                                      size_t i)
{
    return (void *)item_at(t, snapshot, i);
}

static const char *item_title(const struct hf_conf_titled *t, const char *snapshot, size_t i)
{
    return title_at(t, snapshot, i)->name;
}

static size_t n_items(const struct hf_conf_titled *t, const char *snapshot)
{
    return ((const struct hf_conf_items *)(const void *)(snapshot + t->offset))->n;
}

/* "fence ipmi1.hosts" */
static void place_key(const struct place *p, char *buf, size_t n)
{
    if (p->title) {
        snprintf(buf, n, "%s %.64s.%s", p->section, p->title, p->o->name);
    } else {
        option_key(p->o, buf, n);
    }
}

/* Where an item, or an option of one, was given: its line, or 0. */
static int titled_line(const struct hf_conf_load *l, const char *key)
{
    char k[192];
    for (size_t t = 0; t < l->schema->n_titled; t++) {
        const struct hf_conf_titled *titled = &l->schema->titled[t];
        for (size_t i = 0; i < n_items(titled, l->snapshot); i++) {
            struct place p = {.section = titled->name, .title = item_title(titled, l->snapshot, i)};
            snprintf(k, sizeof(k), "%s %.64s", p.section, p.title);
            size_t n = strlen(k);
            if (strncmp(k, key, n) != 0 || (key[n] && key[n] != '.')) {
                continue;
            }
            for (size_t o = 0; o < titled->n_opts; o++) {
                const struct given *g = &l->titled[t].given[i * titled->n_opts + o];
                p.o = &titled->opt[o];
                place_key(&p, k, sizeof(k));
                if (strcmp(k, key) == 0 && g->line > 0) {
                    return g->line;
                }
            }
            return title_at(titled, l->snapshot, i)->line;
        }
    }
    return 0;
}

int hf_conf_refuse(struct hf_conf_load *l, const char *key, const char *fmt, ...)
{
    char text[256];
    int n = snprintf(text, sizeof(text), "%s: ", key);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
    va_end(ap);
    int line = titled_line(l, key);
    for (size_t i = 0; i < l->schema->n_opts; i++) {
        char k[128];
        option_key(&l->schema->opt[i], k, sizeof(k));
        line = strcmp(k, key) == 0 ? l->given[i].line : line;
    }
    refuse_at(l, line, text);
    return -HF_ECONFIG;
}

/* Edits (insert, delete, replace) from a to b; both short, otherwise far apart. */
static size_t distance(const char *a, const char *b)
{
    size_t row[33];
    size_t na = strlen(a), nb = strlen(b);
    if (na > 32 || nb > 32) {
        return 33;
    }
    for (size_t j = 0; j <= nb; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= na; i++) {
        size_t diag = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = diag + (a[i - 1] != b[j - 1]);
            diag = row[j];
            best = best < row[j] + 1 ? best : row[j] + 1;
            row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
        }
    }
    return row[nb];
}

/* Who is near enough to an unknown name: in the same section, or the same name in another. */
static void add_suggestion(struct hf_conf_load *l, cfg_t *cfg, const char *name, struct hf_buf *out)
{
    const char *best = NULL;
    size_t best_d = 4;
    for (cfg_opt_t *o = cfg->opts; o->name; o++) {
        size_t d = distance(name, o->name);
        if (d < best_d && d < strlen(name)) {
            best = o->name;
            best_d = d;
        }
    }
    if (best) {
        hf_buf_printf(out, "; did you mean \"%s\"?", best);
        return;
    }
    for (size_t i = 0; i < l->schema->n_opts; i++) {
        const struct hf_conf_opt *o = &l->schema->opt[i];
        if (strcmp(o->name, name) == 0) {
            hf_buf_printf(out, "; did you mean \"%s\" in section \"%s\"?", name, o->section);
            return;
        }
    }
    hf_buf_printf(out, "; see %s for the options of this section",
                  l->schema->page ? l->schema->page : "holdfast.conf(5)");
}

/* libconfuse's errors: its own words, except for unknown names. */
static void on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
    struct hf_buf text;
    char line[256];
    hf_buf_init(&text, sizeof(line) - 1);
    vsnprintf(line, sizeof(line), fmt, ap);
    static const char unknown[] = "no such option '";
    bool is_unknown = strncmp(line, unknown, sizeof(unknown) - 1) == 0;
    if (is_unknown && (cfg->flags & CFGF_KEYSTRVAL)) {
        return; /* it says so of each free name, and then takes it */
    }
    if (is_unknown) {
        char *name = line + sizeof(unknown) - 1;
        name[strcspn(name, "'")] = '\0';
        bool top = strcmp(cfg_name(cfg), "root") == 0;
        hf_buf_printf(&text, "no option or section \"%.64s\"%s%s%s", name,
                      top ? "" : " in section \"", top ? "" : cfg_name(cfg), top ? "" : "\"");
        add_suggestion(loading, cfg, name, &text);
    } else {
        hf_buf_str(&text, line);
    }
    snprintf(line, sizeof(line), "%.*s", HF_SLICE_FMT(hf_buf_slice(&text)));
    refuse_at(loading, cfg->line, line);
    hf_buf_fini(&text);
}

/* "SECTION.NAME: got X, expected Y; remedy" */
static void refuse_value(struct hf_conf_load *l, const struct place *p, int line, const char *got,
                         struct hf_slice expected)
{
    const struct hf_conf_opt *o = p->o;
    char key[192], text[320];
    place_key(p, key, sizeof(key));
    snprintf(text, sizeof(text), "%s: got \"%.60s\", expected %.*s%s%s", key, got,
             HF_SLICE_FMT(expected), o->remedy ? "; " : "", o->remedy ? o->remedy : "");
    refuse_at(l, line, text);
}

/* ---- libconfuse ---- */

static void free_words(struct hf_conf_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        hf_free(list->item[i]);
    }
    list->n = 0;
}

static void free_pairs(struct hf_conf_pairs *pairs)
{
    for (size_t i = 0; i < pairs->n; i++) {
        hf_free(pairs->pair[i].name);
        hf_free(pairs->pair[i].value);
    }
    pairs->n = 0;
}

/* Before the first value that the file gives: a list's default goes. */
static void clear_list(const struct hf_conf_opt *o, char *base)
{
    void *field = base + o->offset;
    if (o->type == HF_CONF_SET) {
        *(uint32_t *)field = 0;
    } else if (o->type == HF_CONF_ADDR_LIST) {
        ((struct hf_conf_addrs *)field)->n = 0;
    } else if (o->type == HF_CONF_LIST) {
        free_words(field);
    }
}

static void *grow(void *p, size_t n, size_t size)
{
    char *more = hf_realloc(p, (n + 1) * size);
    if (more) {
        memset(more + n * size, 0, size);
    }
    return more;
}

/* A new item with its defaults, for which the file has a section. 0, -ENOMEM, or refused. */
static int add_item(struct hf_conf_load *l, size_t t, const char *title, int line)
{
    const struct hf_conf_titled *titled = &l->schema->titled[t];
    struct hf_conf_items *items = (void *)(l->snapshot + titled->offset);
    struct titled_given *tg = &l->titled[t];
    char text[256], most[32];
    const char *expected = titled->check ? titled->check(title) : NULL;
    if (expected || items->n == titled->n_max) {
        snprintf(most, sizeof(most), "at most %zu of them", titled->n_max);
        snprintf(text, sizeof(text), "%.32s: got \"%.60s\", expected %s", titled->name, title,
                 expected ? expected : most);
        refuse_at(l, line, text);
        return -HF_ECONFIG;
    }
    struct given *given = grow(tg->given, items->n, titled->n_opts * sizeof(*given));
    tg->given = given ? given : tg->given;
    void *more = grow(items->item, items->n, titled->size);
    items->item = more ? more : items->item;
    if (!given || !more) {
        return -ENOMEM;
    }
    struct hf_conf_title *item = title_at(titled, l->snapshot, items->n++);
    item->line = line;
    int rc = hf_conf_set_string(&item->name, title);
    return rc ? rc : set_defaults(titled->opt, titled->n_opts, (char *)item);
}

/* The item that cfg is, made when it is met for the first time. */
static int find_item(struct hf_conf_load *l, size_t t, const char *title, int line, size_t *ret_i)
{
    const struct hf_conf_titled *titled = &l->schema->titled[t];
    size_t n = n_items(titled, l->snapshot);
    for (*ret_i = 0; *ret_i < n; ++*ret_i) {
        if (strcmp(item_title(titled, l->snapshot, *ret_i), title) == 0) {
            return 0;
        }
    }
    return add_item(l, t, title, line);
}

/* Where the value of an option goes that cfg has in it. */
static int find_place(struct hf_conf_load *l, cfg_t *cfg, const cfg_opt_t *opt,
                      struct place *ret_place)
{
    size_t row = (size_t)opt->def.number, i, t;
    if (row >> 16 == 0) {
        const struct hf_conf_opt *o = &l->schema->opt[row];
        *ret_place = (struct place){
            .o = o, .section = o->section, .base = l->snapshot, .given = &l->given[row]};
        return 0;
    }
    t = (row >> 16) - 1;
    row &= 0xffff;
    const struct hf_conf_titled *titled = &l->schema->titled[t];
    int rc = find_item(l, t, cfg_title(cfg), cfg->line, &i);
    if (rc) {
        return rc;
    }
    *ret_place = (struct place){.o = &titled->opt[row],
                                .section = titled->name,
                                .title = item_title(titled, l->snapshot, i),
                                .base = item_at(titled, l->snapshot, i),
                                .given = &l->titled[t].given[i * titled->n_opts + row]};
    return 0;
}

static int refuse_twice(struct hf_conf_load *l, const struct place *p, int line)
{
    char text[256];
    snprintf(text, sizeof(text), "%s: given twice, first on line %d; keep one", p->o->name,
             p->given->line);
    refuse_at(l, line, text);
    return -1;
}

/*
 * Called after an assignment, while cfg->line is its line; for a list after each element, and once
 * more at its end.
 */
static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
    struct hf_conf_load *l = loading;
    struct place p;
    if (!l) { /* cfg_init() sets `unset` */
        return 0;
    }
    if (find_place(l, cfg, opt, &p)) {
        return -1;
    }
    struct given *g = p.given;
    if (g->complete) {
        return refuse_twice(l, &p, cfg->line);
    }
    if (g->line == 0) {
        clear_list(p.o, p.base);
        g->line = cfg->line;
    }
    g->complete = !is_list(p.o) || cfg_opt_size(opt) == g->n;
    struct hf_buf expected;
    hf_buf_init(&expected, 512);
    bool ok = true;
    for (; g->n < cfg_opt_size(opt) && ok; g->n++) {
        const char *s = cfg_opt_getnstr(opt, g->n);
        ok = parse_value(p.o, s ? s : "", p.base, &expected);
        if (!ok) {
            refuse_value(l, &p, cfg->line, s ? s : "", hf_buf_slice(&expected));
        }
    }
    hf_buf_fini(&expected);
    return ok ? 0 : -1;
}

/* A section of free names has ended. */
static int on_pairs(cfg_t *cfg, cfg_opt_t *opt)
{
    struct hf_conf_load *l = loading;
    struct place p;
    if (!l) {
        return 0;
    }
    if (find_place(l, cfg, opt, &p)) {
        return -1;
    }
    if (p.given->line) {
        return refuse_twice(l, &p, cfg->line);
    }
    p.given->line = cfg->line;
    struct hf_conf_pairs *pairs = (void *)(p.base + p.o->offset);
    for (cfg_opt_t *o = cfg_opt_getnsec(opt, 0)->opts; o->name; o++) {
        const char *expected = p.o->check ? p.o->check(o->name) : NULL;
        const char *value = cfg_opt_size(o) == 1 ? cfg_opt_getnstr(o, 0) : NULL;
        if (expected || !value) {
            refuse_value(l, &p, cfg->line, o->name,
                         hf_slice_str(expected ? expected : "NAME = VALUE"));
            return -1;
        }
        struct hf_conf_pair *pair = add_element((void **)&pairs->pair, &pairs->n, sizeof(*pair));
        if (!pair || hf_conf_set_string(&pair->name, o->name) ||
            hf_conf_set_string(&pair->value, value)) {
            return -1;
        }
    }
    return 0;
}

/* A titled section has ended; perhaps it was empty. */
static int on_item(cfg_t *cfg, cfg_opt_t *opt)
{
    struct hf_conf_load *l = loading;
    size_t i, t = ((size_t)opt->def.number >> 16) - 1;
    const char *title = cfg_title(cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1));
    if (find_item(l, t, title, cfg->line, &i)) {
        return -1;
    }
    const struct hf_conf_titled *titled = &l->schema->titled[t];
    for (size_t o = 0; o < titled->n_opts; o++) {
        if (titled->opt[o].required && l->titled[t].given[i * titled->n_opts + o].line == 0) {
            char text[256];
            snprintf(text, sizeof(text), "%s %.64s: has no %s: %s", titled->name, title,
                     titled->opt[o].name, titled->opt[o].doc);
            refuse_at(l, cfg->line, text);
            return -1;
        }
    }
    return 0;
}

/* Is `inner` a section directly inside `outer`? Then *ret_name is its last part. */
static bool directly_inside(const char *inner, const char *outer, const char **ret_name)
{
    size_t n = strlen(outer);
    if (strncmp(inner, outer, n) != 0 || inner[n] == '\0' || (n > 0 && inner[n] != '.')) {
        return false;
    }
    *ret_name = inner + n + (n > 0);
    return !strchr(*ret_name, '.');
}

static void free_options(cfg_opt_t *opts)
{
    for (cfg_opt_t *o = opts; o && o->type != CFGT_NONE; o++) {
        if (o->type == CFGT_SEC) {
            free_options(o->subopts);
        }
    }
    hf_free(opts);
}

/* libconfuse's option for a row; false: no memory. */
static bool make_option(const struct hf_conf_opt *o, long row, cfg_opt_t *c)
{
    static char unset[] = "{unset}";
    if (o->type == HF_CONF_PAIRS) {
        cfg_opt_t *none = hf_alloc(sizeof(*none));
        if (!none) {
            return false;
        }
        *none = (cfg_opt_t)CFG_END();
        *c = (cfg_opt_t)CFG_SEC(o->name, none, CFGF_KEYSTRVAL);
        c->validcb = on_pairs;
    } else {
        *c = (cfg_opt_t)CFG_STR(o->name, NULL, CFGF_NODEFAULT);
        if (is_list(o)) {
            c->flags = CFGF_LIST;
            c->def.parsed = *o->def ? unset : NULL; /* see clear_empty_lists() */
        }
        c->validcb = on_value;
    }
    c->def.number = row; /* unused by libconfuse for strings and sections */
    return true;
}

/* libconfuse's table for the sections with titles, after the others at the top level. */
static bool make_titled(const struct hf_conf_schema *schema, cfg_opt_t *c)
{
    for (size_t t = 0; t < schema->n_titled; t++, c++) {
        const struct hf_conf_titled *titled = &schema->titled[t];
        cfg_opt_t *sub = hf_alloc_array(titled->n_opts + 1, sizeof(*sub));
        if (!sub) {
            return false;
        }
        *c = (cfg_opt_t)CFG_SEC(titled->name, sub, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES);
        c->validcb = on_item;
        c->def.number = TITLED_ROW(t, 0);
        for (size_t i = 0; i < titled->n_opts; i++) {
            if (!make_option(&titled->opt[i], TITLED_ROW(t, i), &sub[i])) {
                return false;
            }
        }
    }
    return true;
}

/* libconfuse's table for one section: its options, then the sections inside it. */
static cfg_opt_t *make_options(const struct hf_conf_schema *schema, const char *section)
{
    size_t n = 0, n_titled = *section ? 0 : schema->n_titled;
    cfg_opt_t *opts = hf_alloc_array(schema->n_opts + n_titled + 1, sizeof(*opts));
    const char *name;
    bool ok = opts != NULL;
    for (size_t i = 0; ok && i < schema->n_opts; i++) {
        const struct hf_conf_opt *o = &schema->opt[i];
        bool seen = i > 0 && strcmp(o->section, schema->opt[i - 1].section) == 0;
        if (strcmp(o->section, section) == 0) {
            ok = make_option(o, (long)i, &opts[n]);
            n += ok;
        } else if (!seen && directly_inside(o->section, section, &name)) {
            cfg_opt_t *sub = make_options(schema, o->section);
            ok = sub != NULL;
            if (ok) {
                opts[n++] = (cfg_opt_t)CFG_SEC(name, sub, CFGF_NONE);
            }
        }
    }
    ok = ok && (n_titled == 0 || make_titled(schema, opts + n));
    if (!ok) {
        free_options(opts); /* zeroed after what there is: CFGT_NONE */
        return NULL;
    }
    opts[n + n_titled] = (cfg_opt_t)CFG_END();
    return opts;
}

/* The end of the quoted string that begins at s (after its quote, or the text's end). */
static char *skip_quoted(char *s)
{
    char quote = *s++;
    while (*s && *s != quote) {
        s += s[0] == '\\' && s[1] ? 2 : 1;
    }
    return *s ? s + 1 : s;
}

/* Spaces for everything up to the end, except for newlines. */
static char *blank(char *s, const char *end)
{
    for (; s < end; s++) {
        *s = *s == '\n' ? '\n' : ' ';
    }
    return s;
}

/*
 * Take comments out before libconfuse sees them: its scanner (3.3) counts a one-line comment as
 * three lines, and errors would name the wrong one. "//" and the other C form begin a comment only
 * where a word may begin, as there: http://x is a word.
 */
static void blank_comments(char *s)
{
    bool fresh = true; /* a word may begin here */
    while (*s) {
        const char *end = NULL;
        if (*s == '#' || (fresh && strncmp(s, "//", 2) == 0)) {
            end = s + strcspn(s, "\n");
        } else if (fresh && strncmp(s, "/*", 2) == 0) {
            end = strstr(s + 2, "*/");
            end = end ? end + 2 : NULL;
        }
        if (end) {
            s = blank(s, end);
        } else if (*s == '"' || *s == '\'') {
            s = skip_quoted(s);
            fresh = true;
        } else {
            fresh = strchr(" \t\r\n={}(),;+", *s) != NULL;
            s++;
        }
    }
}

/* A list with a default that the file gave as {} has lost its mark; libconfuse does not call back
 * for that. (In titled sections lists have no default.) */
static void clear_empty_lists(struct hf_conf_load *l, cfg_t *cfg)
{
    for (cfg_opt_t *c = cfg->opts; c->name; c++) {
        if (c->type == CFGT_SEC && !(c->flags & (CFGF_MULTI | CFGF_KEYSTRVAL))) {
            clear_empty_lists(l, cfg_opt_getnsec(c, 0));
        } else if (c->type == CFGT_STR && cfg_opt_size(c) == 0 && (c->flags & CFGF_LIST)) {
            clear_list(&l->schema->opt[c->def.number], l->snapshot);
        }
    }
}

static int parse_text(struct hf_conf_load *l, char *text)
{
    cfg_opt_t *opts = make_options(l->schema, "");
    cfg_t *cfg = opts ? cfg_init(opts, CFGF_NONE) : NULL;
    int rc = -ENOMEM;
    if (cfg) {
        cfg_set_error_function(cfg, on_error);
        loading = l;
        blank_comments(text);
        rc = cfg_parse_buf(cfg, text) == CFG_SUCCESS ? 0 : -HF_ECONFIG;
        loading = NULL;
        if (rc == 0) {
            clear_empty_lists(l, cfg);
        }
        cfg_free(cfg);
    }
    free_options(opts);
    if (rc == -HF_ECONFIG) {
        refuse_at(l, 0, "not readable as a configuration file");
    }
    return rc;
}

int hf_conf_load_mem(const struct hf_conf_schema *schema, const char *name, struct hf_slice text,
                     struct hf_err *err, void **ret_snapshot)
{
    if (text.n > HF_CONF_FILE_MAX) {
        return hf_err_set(err, -HF_ECONFIG, "%s: got %zu bytes, expected at most %u", name, text.n,
                          HF_CONF_FILE_MAX);
    }
    if (text.n && memchr(text.p, 0, text.n)) {
        return hf_err_set(err, -HF_ECONFIG, "%s: got a NUL byte, expected text", name);
    }
    struct hf_conf_load l = {
        .schema = schema,
        .file = name,
        .err = err,
        .snapshot = hf_alloc(schema->size),
        .given = hf_alloc_array(schema->n_opts + 1, sizeof(struct given)),
        .titled = hf_alloc_array(schema->n_titled + 1, sizeof(struct titled_given)),
    };
    char *copy = hf_alloc(text.n + 2);
    bool room = l.snapshot && l.given && l.titled && copy;
    int rc = room ? set_defaults(schema->opt, schema->n_opts, l.snapshot) : -ENOMEM;
    if (rc == 0) {
        memcpy(copy, text.n ? text.p : (const uint8_t *)"", text.n);
        copy[text.n] = '\n'; /* libconfuse reads an empty text as an error */
        rc = parse_text(&l, copy);
    }
    if (rc == 0 && schema->finish) {
        rc = schema->finish(&l, l.snapshot);
    }
    hf_free(copy);
    hf_free(l.given);
    for (size_t t = 0; l.titled && t < schema->n_titled; t++) {
        hf_free(l.titled[t].given);
    }
    hf_free(l.titled);
    if (rc) {
        hf_conf_destroy(schema, l.snapshot);
        return l.failed ? rc : hf_err_set(err, rc, "%s: %s", name, hf_strerror(rc));
    }
    *ret_snapshot = l.snapshot;
    return 0;
}

int hf_conf_load(const struct hf_conf_schema *schema, const char *path, struct hf_err *err,
                 void **ret_snapshot)
{
    struct hf_buf text;
    hf_buf_init(&text, HF_CONF_FILE_MAX);
    int rc = hf_file_read(path, &text);
    if (rc == -HF_EFULL) {
        hf_err_set(err, rc, "%s: longer than %u bytes", path, HF_CONF_FILE_MAX);
    } else if (rc) {
        hf_err_set(err, rc, "cannot read %s: %s", path, hf_strerror(rc));
    } else {
        rc = hf_conf_load_mem(schema, path, hf_buf_slice(&text), err, ret_snapshot);
    }
    hf_buf_fini(&text);
    return rc;
}

static void free_values(const struct hf_conf_opt *opt, size_t n_opts, char *base)
{
    for (size_t i = 0; i < n_opts; i++) {
        void *field = base + opt[i].offset;
        if (opt[i].type == HF_CONF_STRING) {
            hf_free(*(char **)field);
        } else if (opt[i].type == HF_CONF_ADDR_LIST) {
            hf_free(((struct hf_conf_addrs *)field)->addr);
        } else if (opt[i].type == HF_CONF_LIST) {
            free_words(field);
            hf_free(((struct hf_conf_list *)field)->item);
        } else if (opt[i].type == HF_CONF_PAIRS) {
            free_pairs(field);
            hf_free(((struct hf_conf_pairs *)field)->pair);
        }
    }
}

void hf_conf_destroy(const struct hf_conf_schema *schema, void *snapshot)
{
    if (!snapshot) {
        return;
    }
    free_values(schema->opt, schema->n_opts, snapshot);
    for (size_t t = 0; t < schema->n_titled; t++) {
        const struct hf_conf_titled *titled = &schema->titled[t];
        struct hf_conf_items *items = (void *)((char *)snapshot + titled->offset);
        for (size_t i = 0; i < items->n; i++) {
            char *item = item_at(titled, snapshot, i);
            hf_free(title_at(titled, snapshot, i)->name);
            free_values(titled->opt, titled->n_opts, item);
        }
        hf_free(items->item);
    }
    hf_free(snapshot);
}

void hf_conf_machine_name(char buf[HF_HOST_NAME_MAX + 1])
{
    char name[256] = "";
    if (gethostname(name, sizeof(name) - 1)) {
        name[0] = '\0';
    }
    size_t n = strcspn(name, ".");
    n = n > HF_HOST_NAME_MAX ? HF_HOST_NAME_MAX : n;
    for (size_t i = 0; i < n; i++) {
        buf[i] = (char)tolower((unsigned char)name[i]);
    }
    buf[n] = '\0';
}

/* ---- listings ---- */

const char *const hf_conf_levels[] = {"err", "warn", "info", "debug", NULL};

const char *const hf_conf_traces[] = {
#define TRACE_NAME(id, name, text) name,
    HF_TRACE_LIST(TRACE_NAME)
#undef TRACE_NAME
        NULL};

enum hf_log_level hf_conf_level(int64_t level)
{
    static const enum hf_log_level levels[] = {HF_LOG_ERR, HF_LOG_WARN, HF_LOG_INFO, HF_LOG_DEBUG};
    return levels[level];
}

const char *hf_conf_check_path(const char *s)
{
    return *s == '/' ? NULL : "an absolute path";
}

bool hf_conf_duration(const char *s, int64_t *ret_ms)
{
    return parse_number(HF_CONF_DURATION, s, ret_ms);
}

bool hf_conf_is_secret(const char *name)
{
    static const char *const parts[] = {"passw", "secret", "token", "key"};
    for (size_t i = 0; i < HF_ARRAY_LEN(parts); i++) {
        if (strcasestr(name, parts[i])) {
            return true;
        }
    }
    return false;
}

/* As libconfuse reads it: "$" would begin a variable. */
void hf_conf_quote(struct hf_buf *out, const char *s)
{
    hf_buf_str(out, "\"");
    for (; *s; s++) {
        if (strchr("\"\\$", *s)) {
            hf_buf_printf(out, "\\%c", *s);
        } else if ((unsigned char)*s < 0x20) {
            hf_buf_printf(out, "\\x%02x", (unsigned)*s);
        } else {
            hf_buf_printf(out, "%c", *s);
        }
    }
    hf_buf_str(out, "\"");
}

static void add_set(const struct hf_conf_opt *o, uint32_t set, struct hf_buf *out)
{
    const char *sep = " ";
    hf_buf_str(out, "{");
    for (int i = 0; o->names[i]; i++) {
        if (set >> i & 1) {
            hf_buf_printf(out, "%s\"%s\"", sep, o->names[i]);
            sep = ", ";
        }
    }
    hf_buf_str(out, " }");
}

static void add_addrs(const struct hf_conf_addrs *list, struct hf_buf *out)
{
    char str[HF_ADDR_STR_LEN];
    hf_buf_str(out, "{");
    for (size_t i = 0; i < list->n; i++) {
        hf_buf_printf(out, "%s\"%s\"", i ? ", " : " ", hf_addr_str(&list->addr[i], str));
    }
    hf_buf_str(out, " }");
}

static void add_words(const struct hf_conf_list *list, struct hf_buf *out)
{
    hf_buf_str(out, "{");
    for (size_t i = 0; i < list->n; i++) {
        hf_buf_str(out, i ? ", " : " ");
        hf_conf_quote(out, list->item[i]);
    }
    hf_buf_str(out, " }");
}

static void add_indent(struct hf_buf *out, int depth)
{
    hf_buf_printf(out, "%*s", depth * 4, "");
}

static void add_pairs(const char *name, const struct hf_conf_pairs *pairs, int depth,
                      struct hf_buf *out)
{
    hf_buf_printf(out, "%s {\n", name);
    for (size_t i = 0; i < pairs->n; i++) {
        const struct hf_conf_pair *pair = &pairs->pair[i];
        add_indent(out, depth + 1);
        hf_buf_printf(out, "%s = ", pair->name);
        hf_conf_quote(out, hf_conf_is_secret(pair->name) ? "***" : pair->value);
        hf_buf_str(out, "\n");
    }
    add_indent(out, depth);
    hf_buf_str(out, "}\n");
}

static void add_value(const struct hf_conf_opt *o, const void *field, struct hf_buf *out)
{
    char str[HF_ADDR_STR_LEN];
    switch (o->type) {
    case HF_CONF_BOOL:
        hf_buf_str(out, *(const bool *)field ? "true" : "false");
        break;
    case HF_CONF_INT:
    case HF_CONF_DURATION:
    case HF_CONF_SIZE:
        print_number(o->type, *(const int64_t *)field, out);
        break;
    case HF_CONF_STRING:
        hf_conf_quote(out, *(char *const *)field);
        break;
    case HF_CONF_ENUM:
        hf_buf_str(out, o->names[*(const int64_t *)field]);
        break;
    case HF_CONF_SET:
        add_set(o, *(const uint32_t *)field, out);
        break;
    case HF_CONF_ADDR: {
        const struct hf_addr *a = field;
        hf_conf_quote(out, a->len ? hf_addr_str(a, str) : o->none);
        break;
    }
    case HF_CONF_ADDR_LIST:
        add_addrs(field, out);
        break;
    case HF_CONF_LIST:
        add_words(field, out);
        break;
    case HF_CONF_PAIRS:
        add_pairs(o->name, field, 0, out);
        break;
    }
}

/* An option with what it is for. */
static void add_option(const struct hf_conf_opt *o, const char *base, int depth, struct hf_buf *out)
{
    const void *field = base + o->offset;
    add_indent(out, depth);
    hf_buf_printf(out, "# %s (", o->doc);
    add_expected(o, out);
    hf_buf_str(out, ")\n");
    add_indent(out, depth);
    if (o->type == HF_CONF_PAIRS) {
        add_pairs(o->name, field, depth, out);
        return;
    }
    hf_buf_printf(out, "%s = ", o->name);
    add_value(o, field, out);
    hf_buf_str(out, "\n");
}

static void add_items(const struct hf_conf_titled *t, const char *snapshot, struct hf_buf *out)
{
    hf_buf_printf(out, "# %s TITLE { }: %s\n", t->name, t->doc);
    for (size_t i = 0; i < n_items(t, snapshot); i++) {
        hf_buf_printf(out, "%s ", t->name);
        hf_conf_quote(out, item_title(t, snapshot, i));
        hf_buf_str(out, " {\n");
        for (size_t o = 0; o < t->n_opts; o++) {
            add_option(&t->opt[o], item_at(t, snapshot, i), 1, out);
        }
        hf_buf_str(out, "}\n");
    }
}

bool hf_conf_fixed_change(const struct hf_conf_schema *schema, const void *a, const void *b,
                          char *buf, size_t n)
{
    bool differs = false;
    for (size_t i = 0; i < schema->n_opts && !differs; i++) {
        const struct hf_conf_opt *o = &schema->opt[i];
        struct hf_buf va, vb;
        hf_buf_init(&va, HF_CONF_FILE_MAX);
        hf_buf_init(&vb, HF_CONF_FILE_MAX);
        add_value(o, (const char *)a + o->offset, &va);
        add_value(o, (const char *)b + o->offset, &vb);
        differs = !o->live && !hf_slice_eq(hf_buf_slice(&va), hf_buf_slice(&vb));
        if (differs) {
            option_key(o, buf, n);
        }
        hf_buf_fini(&va);
        hf_buf_fini(&vb);
    }
    for (size_t t = 0; t < schema->n_titled && !differs; t++) {
        struct hf_buf va, vb;
        hf_buf_init(&va, HF_CONF_FILE_MAX);
        hf_buf_init(&vb, HF_CONF_FILE_MAX);
        add_items(&schema->titled[t], a, &va);
        add_items(&schema->titled[t], b, &vb);
        differs = !schema->titled[t].live && !hf_slice_eq(hf_buf_slice(&va), hf_buf_slice(&vb));
        if (differs) {
            snprintf(buf, n, "%s", schema->titled[t].name);
        }
        hf_buf_fini(&va);
        hf_buf_fini(&vb);
    }
    return differs;
}

/* Number of sections open at this name: its parts. */
static int depth_of(const char *section)
{
    int depth = *section != '\0';
    for (const char *s = section; *s; s++) {
        depth += *s == '.';
    }
    return depth;
}

/* Close the sections of `from` that `to` is not in, open those of `to`. */
static void change_section(struct hf_buf *out, const char *from, const char *to)
{
    size_t same = 0; /* bytes of the common parts */
    for (size_t i = 0; from[i] == to[i] || !from[i] || !to[i]; i++) {
        bool end_from = from[i] == '\0' || from[i] == '.';
        bool end_to = to[i] == '\0' || to[i] == '.';
        if (end_from && end_to) {
            same = i;
        }
        if (!from[i] || !to[i]) {
            break;
        }
    }
    int kept = same ? 1 : 0;
    for (size_t i = 0; i < same; i++) {
        kept += from[i] == '.';
    }
    for (int d = depth_of(from); d > kept; d--) {
        add_indent(out, d - 1);
        hf_buf_str(out, "}\n");
    }
    const char *part = to + same + (to[same] == '.');
    for (int d = kept; *part; d++) {
        size_t n = strcspn(part, ".");
        add_indent(out, d);
        hf_buf_printf(out, "%.*s {\n", (int)n, part);
        part += n + (part[n] == '.');
    }
}

void hf_conf_print(const struct hf_conf_schema *schema, const void *snapshot, struct hf_buf *out)
{
    const char *section = "";
    for (size_t i = 0; i < schema->n_opts; i++) {
        const struct hf_conf_opt *o = &schema->opt[i];
        if (strcmp(section, o->section) != 0) {
            change_section(out, section, o->section);
            section = o->section;
        }
        add_option(o, snapshot, depth_of(section), out);
    }
    change_section(out, section, "");
    for (size_t t = 0; t < schema->n_titled; t++) {
        add_items(&schema->titled[t], snapshot, out);
    }
}

static void print_mdoc_option(const struct hf_conf_opt *o, struct hf_buf *out)
{
    hf_buf_printf(out, ".It Cm %s\n%s.\nValue: ", o->name, o->doc);
    add_expected(o, out);
    hf_buf_str(out, ".\n");
    if (*o->def) {
        hf_buf_printf(out, "Default:\n.Ql %s .\n", o->def);
    }
    hf_buf_str(out, o->required ? "Must be given.\n" : "");
    hf_buf_str(out, o->live ? "Reloaded.\n" : "");
}

void hf_conf_print_mdoc(const struct hf_conf_schema *schema, struct hf_buf *out)
{
    const char *section = "";
    for (size_t i = 0; i < schema->n_opts; i++) {
        const struct hf_conf_opt *o = &schema->opt[i];
        if (i == 0 || strcmp(section, o->section) != 0) {
            section = o->section;
            hf_buf_printf(out, "%s.Ss %s%s\n.Bl -tag -width Ds\n", i ? ".El\n" : "",
                          *section ? "Section " : "Top level", section);
        }
        print_mdoc_option(o, out);
    }
    hf_buf_str(out, schema->n_opts ? ".El\n" : "");
    for (size_t t = 0; t < schema->n_titled; t++) {
        const struct hf_conf_titled *titled = &schema->titled[t];
        hf_buf_printf(out, ".Ss Section %s Ar TITLE\n%s.\n%s.Bl -tag -width Ds\n", titled->name,
                      titled->doc, titled->live ? "Reloaded.\n" : "");
        for (size_t i = 0; i < titled->n_opts; i++) {
            print_mdoc_option(&titled->opt[i], out);
        }
        hf_buf_str(out, ".El\n");
    }
}
