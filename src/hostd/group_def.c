/* Definitions of groups and their resources. */
#include "hostd/group_def.h"

#include <ctype.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/name.h"

#define GROUP(member) offsetof(struct hf_group_def, member)
#define RES(member) offsetof(struct hf_group_def_resource, member)
#define ONE_DAY_MS 86400000

static const char *const degraded[] = {"allow", "refuse", NULL};
static const char *const restart[] = {"auto", "always", NULL};
static const char *const kinds[] = {"copy", "attached", NULL};
static const char *const fences[] = {"required", "none", NULL};

static const char *check_name(const char *s)
{
    struct hf_slice name = hf_slice_str(s);
    return name.n <= HF_GROUP_RESOURCE_NAME_MAX && hf_host_name_ok(name)
               ? NULL
               : "a name of 1 to 31 lower case letters, digits and hyphens (not first or last)";
}

/* hf_ocf_find() knows better, but on one host only. */
static const char *check_agent(const char *s)
{
    const char *type = strncmp(s, "ocf:", 4) == 0 ? strchr(s + 4, ':') : NULL;
    return type && type > s + 4 && type[1] && !strchr(type + 1, ':')
               ? NULL
               : "an OCF agent, ocf:PROVIDER:TYPE, as ocf:heartbeat:IPaddr2";
}

static const char *check_word(const char *s)
{
    for (const char *c = s; *c; c++) {
        if (!isalnum((unsigned char)*c) && *c != '_') {
            return "a parameter of the agent: letters, digits and _";
        }
    }
    return *s ? NULL : "a parameter of the agent";
}

static const char *check_action(const char *s)
{
    static const char *const actions[] = {
        "start",  "stop", "promote",       "demote",        "monitor",
        "access", "open", "mirror-source", "mirror-target", "mirror-state"};
    for (size_t i = 0; i < HF_ARRAY_LEN(actions); i++) {
        if (strcmp(s, actions[i]) == 0) {
            return NULL;
        }
    }
    return "start, stop, promote, demote, monitor, access, open, mirror-source, mirror-target or "
           "mirror-state";
}

static const struct hf_conf_opt group_options[] = {
    {"", "degraded", HF_CONF_ENUM, GROUP(degraded), .names = degraded, .def = "allow",
     .doc =
         "May the primary copy go on alone when no other copy is in sync? refuse: it then accepts "
         "nothing new"},
    {"", "restart", HF_CONF_ENUM, GROUP(restart), .names = restart, .def = "auto",
     .doc =
         "A primary resource that fails on a host that lives. auto: a mirror that is in sync goes "
         "on at once, unless one of both failed three times in ten minutes; without one it is "
         "restarted in place. "
         "always: it is restarted in place first"},
};

static const struct hf_conf_opt resource_options[] = {
    {"", "agent", HF_CONF_STRING, RES(agent), .max = HF_GROUP_AGENT_MAX, .check = check_agent,
     .def = "",
     .doc = "What runs it, ocf:PROVIDER:TYPE; empty: nothing, the group only says who leads"},
    {"", "kind", HF_CONF_ENUM, RES(kind), .names = kinds, .def = "copy",
     .doc = "copy: one of the copies of what the group is for, in the order of the file; attached: "
            "runs where the primary copy is, as an address does"},
    {"", "params", HF_CONF_PAIRS, RES(params), .check = check_word, .def = "",
     .doc = "Parameters of the agent, as its meta-data calls them"},
    {"", "probe", HF_CONF_LIST, RES(probe), .check = check_word, .def = "",
     .doc = "Which of them a host needs to find out whether it reaches the copy; all hosts of the "
            "group are told these, so no secrets"},
    {"", "fence", HF_CONF_ENUM, RES(fence), .names = fences, .def = "required",
     .doc =
         "required: a host that may run it and is not heard of is fenced before another one runs "
         "it; none: does no harm running twice for a moment"},
    {"", "timeouts", HF_CONF_PAIRS, RES(timeouts), .check = check_action, .def = "",
     .doc = "Longest time of an action, as start = 90s; otherwise what the agent advises"},
    {"", "monitor", HF_CONF_DURATION, RES(monitor_ms), .min = 0, .max = ONE_DAY_MS, .def = "0",
     .doc = "How often it is monitored; 0: as often as the agent advises"},
};

static const struct hf_conf_titled titled[] = {
    {"resource", GROUP(resource), sizeof(struct hf_group_def_resource), resource_options,
     HF_ARRAY_LEN(resource_options), HF_GROUP_RESOURCES_MAX, check_name,
     "A resource; copies in the order in which they are chosen", false},
};

static const char *value_of(const struct hf_conf_pairs *pairs, const char *name)
{
    for (size_t i = 0; i < pairs->n; i++) {
        if (strcmp(pairs->pair[i].name, name) == 0) {
            return pairs->pair[i].value;
        }
    }
    return NULL;
}

static int finish_resource(struct hf_conf_load *load, const struct hf_group_def_resource *r)
{
    char key[128];
    int64_t ms;
    for (size_t i = 0; i < r->timeouts.n; i++) {
        const struct hf_conf_pair *p = &r->timeouts.pair[i];
        if (!hf_conf_duration(p->value, &ms) || ms < 1 || ms > ONE_DAY_MS) {
            snprintf(key, sizeof(key), "resource %s.timeouts", r->title.name);
            return hf_conf_refuse(load, key, "%s: got \"%.40s\", expected a duration (ms, s, m, h)",
                                  p->name, p->value);
        }
    }
    snprintf(key, sizeof(key), "resource %s.probe", r->title.name);
    size_t len = 0;
    for (size_t i = 0; i < r->probe.n; i++) {
        const char *value = value_of(&r->params, r->probe.item[i]);
        if (!value) {
            return hf_conf_refuse(load, key, "%.40s is not among params", r->probe.item[i]);
        }
        if (strpbrk(value, " \t\r\n") || hf_conf_is_secret(r->probe.item[i])) {
            return hf_conf_refuse(load, key,
                                  "%.40s: expected a value without blanks that is no secret",
                                  r->probe.item[i]);
        }
        len += strlen(r->probe.item[i]) + strlen(value) + 2;
    }
    return len <= HF_GROUP_PROBE_MAX + 1
               ? 0
               : hf_conf_refuse(load, key, "got %zu bytes, expected names and values of %d at most",
                                len - 1, HF_GROUP_PROBE_MAX);
}

static int finish(struct hf_conf_load *load, void *snapshot)
{
    const struct hf_group_def *def = snapshot;
    size_t copies = 0;
    for (size_t i = 0; i < def->resource.n; i++) {
        const struct hf_group_def_resource *r = hf_group_def_at(def, i);
        int rc = finish_resource(load, r);
        if (rc) {
            return rc;
        }
        copies += r->kind == HF_GROUP_DEF_COPY;
        if (copies > HF_GROUP_COPIES_MAX) {
            char key[128];
            snprintf(key, sizeof(key), "resource %s", r->title.name);
            return hf_conf_refuse(load, key, "is one copy too many, expected at most %d",
                                  HF_GROUP_COPIES_MAX);
        }
    }
    return 0;
}

static const struct hf_conf_schema schema = {
    .opt = group_options,
    .n_opts = HF_ARRAY_LEN(group_options),
    .size = sizeof(struct hf_group_def),
    .finish = finish,
    .titled = titled,
    .n_titled = HF_ARRAY_LEN(titled),
    .page = "holdfast-group(5)",
};

int hf_group_def_load(const char *file, struct hf_slice text, struct hf_err *err,
                      struct hf_group_def **ret_def)
{
    void *snapshot;
    int rc = hf_conf_load_mem(&schema, file, text, err, &snapshot);
    if (rc == 0) {
        *ret_def = snapshot;
    }
    return rc;
}

void hf_group_def_destroy(struct hf_group_def *def)
{
    hf_conf_destroy(&schema, def);
}

const struct hf_group_def_resource *hf_group_def_at(const struct hf_group_def *def, size_t i)
{
    return (const struct hf_group_def_resource *)def->resource.item + i;
}

void hf_group_def_print_mdoc(struct hf_buf *out)
{
    hf_conf_print_mdoc(&schema, out);
}

int64_t hf_group_def_timeout(const struct hf_group_def_resource *r, const char *action)
{
    int64_t ms = 0;
    const char *text = value_of(&r->timeouts, action);
    return text && hf_conf_duration(text, &ms) ? ms : 0;
}

/* ---- canonical text ---- */

static void add_pairs(const char *name, const struct hf_conf_pairs *pairs, struct hf_buf *out)
{
    if (pairs->n == 0) {
        return;
    }
    hf_buf_printf(out, "    %s {\n", name);
    for (size_t i = 0; i < pairs->n; i++) {
        hf_buf_printf(out, "        %s = ", pairs->pair[i].name);
        hf_conf_quote(out, pairs->pair[i].value);
        hf_buf_str(out, "\n");
    }
    hf_buf_str(out, "    }\n");
}

void hf_group_def_text(const struct hf_group_def_resource *r, struct hf_buf *out)
{
    hf_buf_printf(out, "resource \"%s\" {\n    agent = ", r->title.name);
    hf_conf_quote(out, r->agent);
    hf_buf_printf(out, "\n    kind = %s\n    fence = %s\n", kinds[r->kind], fences[r->fence]);
    add_pairs("params", &r->params, out);
    hf_buf_str(out, "    probe = {");
    for (size_t i = 0; i < r->probe.n; i++) {
        hf_buf_printf(out, "%s\"%s\"", i ? ", " : " ", r->probe.item[i]);
    }
    hf_buf_str(out, " }\n");
    add_pairs("timeouts", &r->timeouts, out);
    hf_buf_printf(out, "    monitor = %lldms\n}\n", (long long)r->monitor_ms);
}

uint64_t hf_group_def_hash(struct hf_slice text)
{
    return hf_hash(text, 0);
}

/* ---- against the agent ---- */

static int refuse(const char *file, const struct hf_group_def_resource *r, struct hf_err *err,
                  const char *what, const char *name, const char *text)
{
    return hf_err_set(err, -HF_ECONFIG, "%s:%d: resource %s.%s: %.64s%s%s", file, r->title.line,
                      r->title.name, what, name, *name ? ": " : "", text);
}

static int check_params(const char *file, const struct hf_group_def_resource *r,
                        const struct hf_ocf_meta *meta, struct hf_err *err)
{
    for (size_t i = 0; i < r->params.n; i++) {
        if (!hf_ocf_meta_param(meta, r->params.pair[i].name)) {
            return refuse(file, r, err, "params", r->params.pair[i].name,
                          "the agent has no such parameter; its meta-data lists them");
        }
    }
    for (size_t i = 0; i < meta->n_params; i++) {
        const struct hf_ocf_param *p = &meta->params[i];
        if (p->required && !p->dflt && !value_of(&r->params, p->name)) {
            return refuse(file, r, err, "params", p->name, "not given, but the agent requires it");
        }
    }
    return 0;
}

int hf_group_def_resolve(const char *file, const struct hf_group_def_resource *r,
                         const struct hf_ocf_meta *meta, struct hf_err *err,
                         struct hf_gresource *ret_resource)
{
    int rc = meta ? check_params(file, r, meta, err) : 0;
    unsigned can = meta ? meta->flags : 0;
    if (rc) {
        return rc;
    }
    if ((can & HF_OCF_MIRRORS) && !(can & HF_OCF_LEASE) && r->fence == HF_GROUP_DEF_FENCE_NONE) {
        return refuse(file, r, err, "fence", "",
                      "got none, expected required: copies that mirror have data, which two hosts "
                      "must never write");
    }
    if ((can & HF_OCF_MIRRORS) && r->kind == HF_GROUP_DEF_ATTACHED) {
        return refuse(file, r, err, "kind", "",
                      "got attached, expected copy: the agent mirrors copies");
    }
    if (!meta && r->params.n) {
        return refuse(file, r, err, "params", "", "got some, expected none: it has no agent");
    }
    struct hf_gresource g = {.kind = r->kind == HF_GROUP_DEF_COPY ? HF_RESOURCE_COPY
                                                                  : HF_RESOURCE_ATTACHED,
                             .host = HF_GROUP_NONE};
    bool promotable = (can & HF_OCF_PROMOTABLE) && r->kind == HF_GROUP_DEF_COPY;
    g.flags = (uint8_t)((promotable ? HF_RESOURCE_PROMOTABLE : 0) |
                        (can & HF_OCF_MIRRORS ? HF_RESOURCE_MIRROR : 0) |
                        (can & HF_OCF_OPEN && promotable ? HF_RESOURCE_OPEN : 0) |
                        (r->fence == HF_GROUP_DEF_FENCE_NONE ? HF_RESOURCE_FENCE_NONE : 0));
    snprintf(g.name, sizeof(g.name), "%s", r->title.name);
    snprintf(g.agent, sizeof(g.agent), "%s", r->agent);
    for (size_t i = 0, n = 0; i < r->probe.n && n < sizeof(g.probe); i++) {
        n += (size_t)snprintf(g.probe + n, sizeof(g.probe) - n, "%s%s=%s", i ? " " : "",
                              r->probe.item[i], value_of(&r->params, r->probe.item[i]));
    }
    struct hf_buf text;
    hf_buf_init(&text, HF_CONF_FILE_MAX);
    hf_group_def_text(r, &text);
    rc = text.err;
    g.config_hash = meta ? hf_group_def_hash(hf_buf_slice(&text)) : 0; /* nothing to know */
    hf_buf_fini(&text);
    if (rc) {
        return hf_err_set(err, rc, "%s: resource %s: %s", file, g.name, hf_strerror(rc));
    }
    *ret_resource = g;
    return 0;
}

void hf_group_def_hide(const struct hf_group_def_resource *r, const char *text, char *ret_text,
                       size_t n)
{
    struct hf_buf b;
    hf_buf_init(&b, n + HF_GROUP_TEXT_MAX);
    while (*text && b.n < n && !b.err) {
        const char *secret = NULL;
        for (size_t i = 0; r && i < r->params.n; i++) {
            const struct hf_conf_pair *p = &r->params.pair[i];
            if (*p->value && hf_conf_is_secret(p->name) &&
                strncmp(text, p->value, strlen(p->value)) == 0) {
                secret = p->value;
            }
        }
        hf_buf_add(&b, secret ? hf_slice_str("***") : hf_slice(text, 1));
        text += secret ? strlen(secret) : 1;
    }
    snprintf(ret_text, n, "%.*s", HF_SLICE_FMT(hf_buf_slice(&b)));
    hf_buf_fini(&b);
}
