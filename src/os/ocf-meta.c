/* What an OCF agent says of itself: `meta-data`, an XML document, parsed with expat. */
#include <errno.h>
#include <expat.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "os/ocf.h"

/* <resource-agent><parameters><parameter><content/>, <resource-agent><actions><action/>: an element
 * counts only at its own depth below the right parent. */
enum section { OTHER, PARAMETERS, ACTIONS };

struct parse {
    XML_Parser xml;
    struct hf_ocf_meta *m;
    unsigned depth;
    enum section section;
    bool in_param; /* within <parameter>, m's last */
    int rc;
    const char *why; /* static; what is wrong */
};

static void stop(struct parse *p, int rc, const char *why)
{
    if (p->rc == 0) {
        p->rc = rc;
        p->why = why;
        XML_StopParser(p->xml, XML_FALSE);
    }
}

static char *copy(struct parse *p, const char *s)
{
    s = s ? s : "";
    size_t n = strlen(s) + 1;
    char *t = hf_alloc(n);
    if (!t) {
        stop(p, -ENOMEM, "no memory");
    } else {
        memcpy(t, s, n);
    }
    return t;
}

static const char *attribute(const char **attrs, const char *name)
{
    for (; attrs[0]; attrs += 2) {
        if (strcmp(attrs[0], name) == 0) {
            return attrs[1];
        }
    }
    return NULL;
}

/* "20s", "20", "500ms", "2min", ... as Pacemaker reads them; 0: none, or not a time. */
static hf_time parse_time(const char *s)
{
    static const struct {
        const char *unit;
        hf_time t;
    } units[] = {
        {"", HF_S(1)},      {"s", HF_S(1)},    {"sec", HF_S(1)},   {"ms", HF_MS(1)},
        {"msec", HF_MS(1)}, {"us", 1000},      {"usec", 1000},     {"m", HF_S(60)},
        {"min", HF_S(60)},  {"h", HF_S(3600)}, {"hr", HF_S(3600)},
    };
    hf_time n = 0;
    for (; s && *s == ' '; s++) {
    }
    if (!s || *s < '0' || *s > '9') {
        return 0;
    }
    for (; *s >= '0' && *s <= '9'; s++) {
        n = n < HF_S(1) ? n * 10 + (*s - '0') : n; /* far over any time, far under an overflow */
    }
    s += strspn(s, " ");
    size_t len = strcspn(s, " ");
    for (size_t i = 0; i < HF_ARRAY_LEN(units); i++) {
        if (strlen(units[i].unit) == len && memcmp(units[i].unit, s, len) == 0) {
            return n > HF_NEVER / units[i].t ? HF_NEVER : n * units[i].t;
        }
    }
    return 0;
}

static const char *role(const char *s)
{
    return !s                         ? ""
           : strcmp(s, "Master") == 0 ? "Promoted"
           : strcmp(s, "Slave") == 0  ? "Unpromoted"
                                      : s;
}

/* One more element, zeroed, in an array that grows by doubling; NULL: refused, told. */
static void *grow(struct parse *p, void *array, size_t n, size_t size)
{
    if (n >= HF_OCF_META_ITEMS_MAX) {
        stop(p, -HF_EFULL, "too many parameters or actions");
        return NULL;
    }
    if (n & (n - 1)) { /* room is a power of two, at least 1 */
        return array;
    }
    void *a = hf_realloc(array, (n ? 2 * n : 1) * size);
    if (!a) {
        stop(p, -ENOMEM, "no memory");
    }
    return a;
}

static void add_action(struct parse *p, const char **attrs)
{
    struct hf_ocf_meta *m = p->m;
    const char *name = attribute(attrs, "name"), *depth = attribute(attrs, "depth");
    if (!name || !*name) {
        stop(p, -HF_EMALF, "an action without a name");
        return;
    }
    struct hf_ocf_action *a = grow(p, m->actions, m->n_actions, sizeof(*a));
    if (!a) {
        return;
    }
    m->actions = a;
    a += m->n_actions++;
    *a = (struct hf_ocf_action){
        .name = copy(p, name),
        .role = copy(p, role(attribute(attrs, "role"))),
        .timeout = parse_time(attribute(attrs, "timeout")),
        .interval = parse_time(attribute(attrs, "interval")),
        .depth = depth ? (unsigned)strtoul(depth, NULL, 10) : 0,
    };
}

static void add_param(struct parse *p, const char **attrs)
{
    struct hf_ocf_meta *m = p->m;
    const char *name = attribute(attrs, "name"), *required = attribute(attrs, "required");
    if (!name || !*name) {
        stop(p, -HF_EMALF, "a parameter without a name");
        return;
    }
    struct hf_ocf_param *a = grow(p, m->params, m->n_params, sizeof(*a));
    if (!a) {
        return;
    }
    m->params = a;
    a += m->n_params++;
    *a = (struct hf_ocf_param){
        .name = copy(p, name),
        .required = required && (strcmp(required, "1") == 0 || strcmp(required, "true") == 0 ||
                                 strcmp(required, "yes") == 0),
    };
    p->in_param = true;
}

static void on_start(void *arg, const char *name, const char **attrs)
{
    struct parse *p = arg;
    unsigned depth = p->depth++;
    if (p->rc) { /* expat may call on after a stop */
        return;
    }
    if (depth == 0) {
        if (strcmp(name, "resource-agent") != 0) {
            stop(p, -HF_EMALF, "not a <resource-agent>");
            return;
        }
        p->m->name = copy(p, attribute(attrs, "name"));
        p->m->version = copy(p, attribute(attrs, "version"));
    } else if (depth == 1) {
        p->section = strcmp(name, "parameters") == 0 ? PARAMETERS
                     : strcmp(name, "actions") == 0  ? ACTIONS
                                                     : OTHER;
        const char *tag = strcmp(name, "special") == 0 ? attribute(attrs, "tag") : NULL;
        if (tag && strcmp(tag, "holdfast-lease") == 0) {
            p->m->flags |= HF_OCF_LEASE;
        }
    } else if (depth == 2 && p->section == ACTIONS && strcmp(name, "action") == 0) {
        add_action(p, attrs);
    } else if (depth == 2 && p->section == PARAMETERS && strcmp(name, "parameter") == 0) {
        add_param(p, attrs);
    } else if (depth == 3 && p->in_param && strcmp(name, "content") == 0) {
        struct hf_ocf_param *a = &p->m->params[p->m->n_params - 1];
        const char *dflt = attribute(attrs, "default");
        if (dflt && !a->dflt) {
            a->dflt = copy(p, dflt);
        }
    }
}

static void on_end(void *arg, const char *name)
{
    (void)name;
    struct parse *p = arg;
    p->depth--;
    p->in_param = p->in_param && p->depth > 2;
}

static void on_entity(void *arg, const char *name, int is_param, const char *value, int n,
                      const char *base, const char *system, const char *public,
                      const char *notation)
{
    (void)name, (void)is_param, (void)value, (void)n;
    (void)base, (void)system, (void)public, (void)notation;
    stop(arg, -HF_EMALF, "it declares an entity");
}

static void set_flags(struct hf_ocf_meta *m)
{
    static const struct {
        unsigned flag;
        const char *a, *b; /* both are needed */
    } rows[] = {
        {HF_OCF_PROMOTABLE, "promote", "demote"},
        {HF_OCF_MIRRORS, "mirror-source", "mirror-target"},
        {HF_OCF_MIRROR_STATE, "mirror-state", "mirror-state"},
        {HF_OCF_ACCESS, "access", "access"},
        {HF_OCF_OPEN, "open", "open"},
        {HF_OCF_NOTIFY, "notify", "notify"},
        {HF_OCF_VALIDATE_ALL, "validate-all", "validate-all"},
        {HF_OCF_PREPARE, "prepare-promote", "prepare-demote"},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        if (hf_ocf_meta_action(m, rows[i].a, NULL) && hf_ocf_meta_action(m, rows[i].b, NULL)) {
            m->flags |= rows[i].flag;
        }
    }
}

static int parse(struct parse *p, struct hf_slice xml, struct hf_err *err)
{
    XML_SetUserData(p->xml, p);
    XML_SetElementHandler(p->xml, on_start, on_end);
    XML_SetEntityDeclHandler(p->xml, on_entity);
    if (XML_Parse(p->xml, (const char *)xml.p, (int)xml.n, XML_TRUE) == XML_STATUS_OK &&
        p->rc == 0) {
        set_flags(p->m);
        return 0;
    }
    enum XML_Error e = XML_GetErrorCode(p->xml);
    if (p->rc == 0) {
        p->rc = e == XML_ERROR_NO_MEMORY ? -ENOMEM : -HF_EMALF;
        p->why = XML_ErrorString(e);
    }
    return hf_err_set(err, p->rc, "the meta-data is not valid: line %lu: %s",
                      (unsigned long)XML_GetCurrentLineNumber(p->xml), p->why);
}

int hf_ocf_meta_parse(struct hf_slice xml, struct hf_err *err, struct hf_ocf_meta **ret_meta)
{
    static const XML_Memory_Handling_Suite mem = {hf_alloc, hf_realloc, hf_free};
    if (xml.n > HF_OCF_META_MAX) {
        return hf_err_set(err, -HF_EFULL, "the meta-data is longer than %u bytes", HF_OCF_META_MAX);
    }
    struct parse p = {.m = hf_alloc(sizeof(*p.m)), .xml = XML_ParserCreate_MM(NULL, &mem, NULL)};
    int rc = p.m && p.xml ? parse(&p, xml.n ? xml : hf_slice("", 0), err)
                          : hf_err_set(err, -ENOMEM, "no memory for the meta-data");
    if (p.xml) {
        XML_ParserFree(p.xml);
    }
    if (rc) {
        hf_ocf_meta_destroy(p.m);
        return rc;
    }
    *ret_meta = p.m;
    return 0;
}

void hf_ocf_meta_destroy(struct hf_ocf_meta *m)
{
    if (!m) {
        return;
    }
    for (size_t i = 0; i < m->n_actions; i++) {
        hf_free(m->actions[i].name);
        hf_free(m->actions[i].role);
    }
    for (size_t i = 0; i < m->n_params; i++) {
        hf_free(m->params[i].name);
        hf_free(m->params[i].dflt);
    }
    hf_free(m->actions);
    hf_free(m->params);
    hf_free(m->name);
    hf_free(m->version);
    hf_free(m);
}

const struct hf_ocf_action *hf_ocf_meta_action(const struct hf_ocf_meta *m, const char *name,
                                               const char *for_role)
{
    const struct hf_ocf_action *any = NULL;
    for (size_t i = 0; i < m->n_actions; i++) {
        const struct hf_ocf_action *a = &m->actions[i];
        if (strcmp(a->name, name) != 0) {
            continue;
        }
        if (!for_role || !*for_role || strcmp(a->role, for_role) == 0) {
            return a;
        }
        any = (any || *a->role) ? any : a;
    }
    return any;
}

const struct hf_ocf_param *hf_ocf_meta_param(const struct hf_ocf_meta *m, const char *name)
{
    for (size_t i = 0; i < m->n_params; i++) {
        if (strcmp(m->params[i].name, name) == 0) {
            return &m->params[i];
        }
    }
    return NULL;
}
