#include "hostd/programs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "hostd/service.h"

#define TEXT_MAX 4096 /* of a problem */

typedef void problem_fn(void *arg, const char *severity, const char *what, const char *remedy);

/* ---- reading the tree ---- */

static const json_t *value_of(const json_t *entry)
{
    return json_object_get(entry, "value");
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* The entries one level below prefix whose value has the text `must`. */
static json_t *load(const struct hf_hostd *h, const char *prefix, const char *must, bool bare)
{
    struct hf_slice owner;
    struct hf_entry *e;
    size_t at = strlen(prefix) + 1, bytes = 0;
    struct hf_tree_walk *w = hf_tree_walk_create(h->dir, h->store, hf_slice_str(prefix));
    json_t *all = w ? json_array() : NULL;
    while (all && json_array_size(all) < HF_PROGRAMS_SHOWN_MAX && bytes < HF_PROGRAMS_BYTES_MAX &&
           hf_tree_walk_next(w, &owner, &e)) {
        struct hf_slice name = hf_entry_name(e);
        if (name.n <= at || memchr(name.p + at, '/', name.n - at)) {
            continue;
        }
        json_t *value = hf_service_load(hf_entry_value(e));
        if (*text_of(value, must)) {
            bytes += hf_entry_value(e).n;
            size_t skip = bare ? at : 0;
            json_array_append_new(all,
                                  json_pack("{s:s%, s:s%, s:O}", "name",
                                            (const char *)name.p + skip, name.n - skip, "owner",
                                            (const char *)owner.p, owner.n, "value", value));
        }
        json_decref(value);
    }
    hf_tree_walk_destroy(w);
    return all;
}

json_t *hf_programs_sip(const struct hf_hostd *h)
{
    return load(h, HF_PROGRAMS_SIP, "state", true);
}

/* ---- managers ---- */

static bool is_primary(const json_t *value)
{
    const char *role = text_of(value, "role");
    return strcmp(role, "primary") == 0 || strcmp(role, "taking over") == 0;
}

static json_int_t epoch_of(const json_t *entry)
{
    return json_integer_value(json_object_get(value_of(entry), "epoch"));
}

/* Of the entries of one name from `first` on, who serves? NULL: nobody. *ret_next: another name. */
static json_t *find_primary(const json_t *managers, size_t first, size_t *ret_next)
{
    json_t *best = NULL;
    const char *name = text_of(json_array_get(managers, first), "name");
    size_t i = first;
    for (; i < json_array_size(managers); i++) {
        json_t *e = json_array_get(managers, i);
        if (strcmp(text_of(e, "name"), name) != 0) {
            break;
        }
        if (is_primary(value_of(e)) && (!best || epoch_of(e) > epoch_of(best))) {
            best = e;
        }
    }
    *ret_next = i;
    return best;
}

json_t *hf_programs_managers(const struct hf_hostd *h)
{
    json_t *all = load(h, HF_PROGRAMS_MANAGERS, "role", false);
    json_int_t now_s = hf_wall_now() / HF_NS_PER_S;
    for (size_t i = 0; i < json_array_size(all);) {
        json_t *primary = find_primary(all, i, &i);
        const json_t *since = json_object_get(value_of(primary), "unprotected_since");
        if (primary) {
            json_object_set_new(primary, "serves", json_true());
        }
        if (json_is_integer(since)) { /* by the clock of its host */
            json_int_t s = now_s - json_integer_value(since);
            json_object_set_new(primary, "unprotected_ms", json_integer(s > 0 ? s * 1000 : 0));
        }
    }
    return all;
}

/* ---- problems ---- */

/* Tell it, with the NULs that end the texts. */
static void tell(problem_fn *fn, void *arg, const char *severity, struct hf_buf *what,
                 struct hf_buf *remedy)
{
    hf_buf_add(what, hf_slice("", 1));
    hf_buf_add(remedy, hf_slice("", 1));
    if (!what->err && !remedy->err) {
        fn(arg, severity, (const char *)what->p, (const char *)remedy->p);
    }
}

static void problem_of_manager(const json_t *entry, problem_fn *fn, void *arg)
{
    const json_t *v = value_of(entry), *ms = json_object_get(entry, "unprotected_ms");
    struct hf_buf what, remedy;
    if (!ms) {
        return;
    }
    hf_buf_init(&what, TEXT_MAX);
    hf_buf_init(&remedy, TEXT_MAX);
    hf_buf_printf(&what, "%.64s: its %lld sessions would not outlive the loss of %.64s, since ",
                  text_of(v, "group"),
                  (long long)json_integer_value(json_object_get(v, "sessions")),
                  text_of(entry, "owner"));
    hf_buf_span(&what, json_integer_value(ms));
    hf_buf_printf(&what, ": %.512s", text_of(v, "why"));
    hf_buf_printf(&remedy,
                  "see that holdfast-pg runs on another host of the group and is reached from here "
                  "(service.peer_listen): it becomes the backup by itself; \"holdfast group show "
                  "%.64s\" tells what its copy lacks",
                  text_of(v, "group"));
    tell(fn, arg, "warning", &what, &remedy);
    hf_buf_fini(&what);
    hf_buf_fini(&remedy);
}

static void problem_of_sip(const json_t *entry, problem_fn *fn, void *arg)
{
    struct hf_buf what, remedy;
    if (!json_is_true(json_object_get(value_of(entry), "busy"))) {
        return;
    }
    hf_buf_init(&what, TEXT_MAX);
    hf_buf_init(&remedy, TEXT_MAX);
    hf_buf_printf(&what, "SIP server %.64s is overloaded and sheds requests",
                  text_of(entry, "name"));
    hf_buf_str(&remedy, "\"holdfast sip servers\" tells the load of each, \"holdfast sip plan\" "
                        "what is being moved away; if all are loaded, add a server");
    tell(fn, arg, "warning", &what, &remedy);
    hf_buf_fini(&what);
    hf_buf_fini(&remedy);
}

void hf_programs_problems(const json_t *managers, const json_t *sip, problem_fn *fn, void *arg)
{
    const json_t *e;
    size_t i;
    json_array_foreach(managers, i, e)
    {
        problem_of_manager(e, fn, arg);
    }
    json_array_foreach(sip, i, e)
    {
        problem_of_sip(e, fn, arg);
    }
}

/* ---- showing ---- */

static int dump_to_buf(const char *p, size_t n, void *arg)
{
    struct hf_buf *buf = arg;
    hf_buf_add(buf, hf_slice(p, n));
    return buf->err;
}

void hf_programs_put(json_t *array, struct hf_buf *out)
{
    if (!array ||
        json_dump_callback(array, dump_to_buf, out, JSON_COMPACT | JSON_REAL_PRECISION(8))) {
        out->err = out->err ? out->err : -ENOMEM;
    }
    json_decref(array);
}
