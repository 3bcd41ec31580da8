#include "hostd/timeline.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/mem.h"
#include "hostd/group.h"
#include "hostd/programs.h"
#include "hostd/service.h"

#define TELL_AT_ONCE 256 /* entries between two turns of the loop */
#define PROGRAMS_MAX (2 * HF_PROGRAMS_SHOWN_MAX)
#define ASPECT_MAX 160

/* What a program is told to be, in sentences: one that changes is a note. */
enum aspect { ROLE, PROTECTION, TAKEOVER, ASPECTS };

struct program {
    struct hf_list node;
    enum hf_about about;
    char name[HF_HOST_NAME_MAX + 1], owner[HF_HOST_NAME_MAX + 1];
    char is[ASPECTS][ASPECT_MAX]; /* "": nothing to say */
};

/* The entries of one prefix. */
struct source {
    struct hf_timeline *t;
    enum hf_about about;
    const char *prefix;
    struct hf_follow *follow; /* owned */
    bool synced;              /* what is told from now on is news */
};

struct hf_timeline {
    struct hf_hostd *h;
    void (*fn)(void *arg);
    void *arg;
    bool listening;        /* to groups */
    struct hf_timer *tell; /* owned: to hear of the tree, outside of steps */
    struct source source[2];
    struct hf_list programs;
    unsigned n_programs;
    uint64_t n_notes, n_samples; /* ever; the last ones are there, at their number modulo length */
    struct hf_note note[HF_NOTES_MAX];
    struct hf_sample sample[HF_SAMPLES_MAX];
};

/* ---- notes ---- */

static const char *about_name(enum hf_about about)
{
    static const char *const name[] = {
#define NAME(id, text) [HF_ABOUT_##id] = text,
        HF_ABOUT_LIST(NAME)
#undef NAME
    };
    return name[about];
}

static void news(struct hf_timeline *t)
{
    if (t->fn) {
        t->fn(t->arg);
    }
}

void hf_timeline_listen(struct hf_timeline *t, void (*fn)(void *arg), void *arg)
{
    t->fn = fn;
    t->arg = arg;
}

void hf_timeline_note(struct hf_timeline *t, enum hf_about about, const char *name, uint64_t epoch,
                      const char *fmt, ...)
{
    va_list ap;
    if (!t) {
        return;
    }
    struct hf_note *n = &t->note[t->n_notes++ % HF_NOTES_MAX];
    n->about = about;
    n->at_ms = hf_wall_now() / HF_NS_PER_MS;
    n->epoch = epoch;
    snprintf(n->name, sizeof(n->name), "%s", name);
    va_start(ap, fmt);
    vsnprintf(n->text, sizeof(n->text), fmt, ap);
    va_end(ap);
    news(t);
}

static uint64_t first_there(uint64_t number, uint64_t n, uint64_t room)
{
    return n > room && number < n - room ? n - room : number;
}

uint64_t hf_timeline_notes(const struct hf_timeline *t)
{
    return t->n_notes;
}

const struct hf_note *hf_timeline_note_at(const struct hf_timeline *t, uint64_t *number)
{
    *number = first_there(*number, t->n_notes, HF_NOTES_MAX);
    return *number < t->n_notes ? &t->note[*number % HF_NOTES_MAX] : NULL;
}

static void put_head(struct hf_buf *out, int64_t at_ms, enum hf_about about, const char *name)
{
    hf_buf_printf(out, "{\"at\":%lld,\"about\":\"%s\",\"name\":", (long long)at_ms,
                  about_name(about));
    hf_buf_json_str(out, hf_slice_str(name));
}

void hf_note_json(const struct hf_note *n, struct hf_buf *out)
{
    put_head(out, n->at_ms, n->about, n->name);
    if (n->about == HF_ABOUT_GROUP) {
        hf_buf_printf(out, ",\"epoch\":%llu", (unsigned long long)n->epoch);
    }
    hf_buf_str(out, ",\"text\":");
    hf_buf_json_str(out, hf_slice_str(n->text));
    hf_buf_str(out, "}");
}

/* ---- samples ---- */

static const char *const figures[HF_ABOUT_COUNT_][HF_SAMPLE_FIGURES] = {
    [HF_ABOUT_MANAGER] = {"p50_ms", "p99_ms", "slowest_ms", "lag_ms", "sessions"},
    [HF_ABOUT_SIP] = {"requests_s", "cpu", "rows"},
};

uint64_t hf_timeline_samples(const struct hf_timeline *t)
{
    return t->n_samples;
}

const struct hf_sample *hf_timeline_sample_at(const struct hf_timeline *t, uint64_t *number)
{
    *number = first_there(*number, t->n_samples, HF_SAMPLES_MAX);
    return *number < t->n_samples ? &t->sample[*number % HF_SAMPLES_MAX] : NULL;
}

void hf_sample_json(const struct hf_sample *s, struct hf_buf *out)
{
    put_head(out, s->at_ms, s->about, s->name);
    hf_buf_str(out, ",\"owner\":");
    hf_buf_json_str(out, hf_slice_str(s->owner));
    for (size_t i = 0; i < HF_SAMPLE_FIGURES; i++) {
        if (figures[s->about][i] && s->figure[i] >= 0) {
            hf_buf_printf(out, ",\"%s\":%.8g", figures[s->about][i], s->figure[i]);
        }
    }
    hf_buf_str(out, "}");
}

static double number_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    double d = json_is_number(v) ? json_number_value(v) : -1;
    return isfinite(d) ? d : -1;
}

static void take_sample(struct hf_timeline *t, const struct program *p, const json_t *value)
{
    const json_t *latency = json_object_get(value, "latency_ms");
    struct hf_sample *s = &t->sample[t->n_samples++ % HF_SAMPLES_MAX];
    *s = (struct hf_sample){.about = p->about, .at_ms = hf_wall_now() / HF_NS_PER_MS};
    snprintf(s->name, sizeof(s->name), "%s", p->name);
    snprintf(s->owner, sizeof(s->owner), "%s", p->owner);
    if (p->about == HF_ABOUT_MANAGER) {
        s->figure[0] = number_of(latency, "p50");
        s->figure[1] = number_of(latency, "p99");
        s->figure[2] = number_of(latency, "slowest");
    }
    for (size_t i = p->about == HF_ABOUT_MANAGER ? 3 : 0; i < HF_SAMPLE_FIGURES; i++) {
        const char *key = figures[p->about][i];
        s->figure[i] = key ? number_of(value, key) : -1;
    }
    news(t);
}

/* ---- what programs tell ---- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static long long integer_of(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static bool serves(const json_t *value)
{
    return strcmp(text_of(value, "role"), "primary") == 0;
}

static void describe_manager(const struct program *p, const json_t *v, char is[][ASPECT_MAX])
{
    const json_t *took = json_object_get(v, "takeover");
    snprintf(is[ROLE], ASPECT_MAX, "holdfast-pg on %s: %.32s", p->owner, text_of(v, "role"));
    if (serves(v) && json_object_get(v, "unprotected_since")) {
        snprintf(is[PROTECTION], ASPECT_MAX, "its sessions at %s have no backup: %.64s", p->owner,
                 text_of(v, "why"));
    } else if (serves(v)) {
        snprintf(is[PROTECTION], ASPECT_MAX, "its sessions at %s are protected by %.63s", p->owner,
                 text_of(v, "peer"));
    }
    if (took) {
        snprintf(is[TAKEOVER], ASPECT_MAX,
                 "%s took over (%.16s, epoch %lld): %lld sessions, %lld restored, in %lld ms",
                 p->owner, text_of(took, "kind"), integer_of(took, "epoch"),
                 integer_of(took, "sessions"), integer_of(took, "restored"),
                 integer_of(took, "ms"));
    }
}

static void describe_sip(const struct program *p, const json_t *v, char is[][ASPECT_MAX])
{
    bool busy = json_is_true(json_object_get(v, "busy"));
    snprintf(is[ROLE], ASPECT_MAX, "server on %s: %.32s%s", p->owner, text_of(v, "state"),
             busy ? ", overloaded" : "");
    if (json_is_true(json_object_get(v, "leads"))) {
        snprintf(is[PROTECTION], ASPECT_MAX, "leads: moves users between servers");
    }
}

static struct program *find(struct hf_timeline *t, enum hf_about about, const char *name,
                            struct hf_slice owner)
{
    HF_LIST_FOREACH (node, &t->programs) {
        struct program *p = HF_CONTAINER_OF(node, struct program, node);
        if (p->about == about && strcmp(p->name, name) == 0 &&
            hf_slice_eq(owner, hf_slice_str(p->owner))) {
            return p;
        }
    }
    return NULL;
}

static struct program *add(struct hf_timeline *t, enum hf_about about, const char *name,
                           struct hf_slice owner)
{
    struct program *p = t->n_programs < PROGRAMS_MAX ? hf_alloc(sizeof(*p)) : NULL;
    if (p) {
        p->about = about;
        snprintf(p->name, sizeof(p->name), "%s", name);
        snprintf(p->owner, sizeof(p->owner), "%.*s", HF_SLICE_FMT(owner));
        hf_list_insert(&t->programs, &p->node);
        t->n_programs++;
    }
    return p;
}

static void forget(struct hf_timeline *t, struct program *p)
{
    hf_list_unlink(&p->node);
    t->n_programs--;
    hf_free(p);
}

static void gone(struct hf_timeline *t, struct program *p)
{
    hf_timeline_note(t, p->about, p->name, 0, "%s on %s is gone",
                     p->about == HF_ABOUT_SIP ? "server" : "holdfast-pg", p->owner);
    forget(t, p);
}

/* Of a new program only what it is is news, not how it came to be. */
static void compare(struct source *src, struct program *p, bool is_new, const json_t *value)
{
    char is[ASPECTS][ASPECT_MAX] = {"", "", ""};
    (p->about == HF_ABOUT_SIP ? describe_sip : describe_manager)(p, value, is);
    for (int i = 0; i < ASPECTS; i++) {
        bool changed = strcmp(is[i], p->is[i]) != 0;
        if (changed && *is[i] && src->synced && (!is_new || i == ROLE)) {
            hf_timeline_note(src->t, p->about, p->name, 0, "%s", is[i]);
        }
    }
    memcpy(p->is, is, sizeof(is));
    if (p->about == HF_ABOUT_SIP || serves(value)) {
        take_sample(src->t, p, value);
    }
}

static void on_event(void *arg, enum hf_follow_event event, struct hf_slice owner,
                     struct hf_entry *entry)
{
    struct source *src = arg;
    struct hf_timeline *t = src->t;
    size_t at = strlen(src->prefix) + 1;
    char name[HF_HOST_NAME_MAX + 1];
    if (event == HF_FOLLOW_SYNCED) {
        src->synced = true;
        return;
    }
    struct hf_slice path = hf_entry_name(entry);
    if (path.n <= at || path.n - at >= sizeof(name) || memchr(path.p + at, '/', path.n - at)) {
        return;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(path.n - at), (const char *)path.p + at);
    struct program *p = find(t, src->about, name, owner);
    if (event == HF_FOLLOW_REMOVED) {
        if (p) {
            gone(t, p);
        }
        return;
    }
    json_t *value = hf_service_load(hf_entry_value(entry));
    bool is_new = !p;
    p = p || !value ? p : add(t, src->about, name, owner);
    if (p && value) {
        compare(src, p, is_new, value);
    }
    json_decref(value);
}

static void on_tell(void *arg)
{
    struct hf_timeline *t = arg;
    bool more = false;
    for (size_t i = 0; i < HF_ARRAY_LEN(t->source); i++) {
        more |= hf_follow_tell(t->source[i].follow, TELL_AT_ONCE, on_event, &t->source[i]);
    }
    if (more) {
        hf_timer_set(t->tell, 0);
    }
}

static void wake(void *arg)
{
    struct hf_timeline *t = arg;
    hf_timer_set(t->tell, 0); /* we may be inside a step */
}

/* ---- groups ---- */

static void on_group(void *arg, const struct hf_group_info *info, const char *text)
{
    const struct hf_gstate *s = info->core ? hf_group_state(info->core) : NULL;
    if (text) {
        hf_timeline_note(arg, HF_ABOUT_GROUP, info->name, s ? s->epoch : 0, "%s", text);
    }
}

/* ---- life ---- */

static int follow(struct hf_timeline *t, size_t i, enum hf_about about, const char *prefix)
{
    struct source *s = &t->source[i];
    *s = (struct source){.t = t, .about = about, .prefix = prefix};
    s->follow = hf_follow_create(t->h->follows, hf_slice_str(prefix), wake, t);
    return s->follow ? 0 : -ENOMEM;
}

int hf_timeline_open(struct hf_hostd *h, struct hf_err *err, struct hf_timeline **ret_timeline)
{
    struct hf_timeline *t = hf_alloc(sizeof(*t));
    if (!t) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    t->h = h;
    hf_list_init(&t->programs);
    int rc = hf_timer_create(h->loop, on_tell, t, &t->tell);
    rc = rc ? rc : follow(t, 0, HF_ABOUT_MANAGER, HF_PROGRAMS_MANAGERS);
    rc = rc ? rc : follow(t, 1, HF_ABOUT_SIP, HF_PROGRAMS_SIP);
    if (rc == 0 && h->groups) {
        rc = hf_groups_listen(h->groups, on_group, t);
        t->listening = rc == 0;
    }
    if (rc) {
        hf_timeline_close(t);
        return hf_err_set(err, rc, "the timeline: %s", hf_strerror(rc));
    }
    wake(t);
    *ret_timeline = t;
    return 0;
}

void hf_timeline_close(struct hf_timeline *t)
{
    if (!t) {
        return;
    }
    if (t->listening) {
        hf_groups_unlisten(t->h->groups, t);
    }
    HF_LIST_FOREACH (node, &t->programs) {
        forget(t, HF_CONTAINER_OF(node, struct program, node));
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(t->source); i++) {
        hf_follow_destroy(t->source[i].follow);
    }
    hf_timer_destroy(t->tell);
    hf_free(t);
}
