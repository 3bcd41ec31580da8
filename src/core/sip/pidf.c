/* PIDF: the root of a document is read, what is below it is moved as it is. */
#include "core/sip/pidf.h"

#include <errno.h>
#include <expat.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"

#define NAMESPACE "urn:ietf:params:xml:ns:pidf"
#define DECLARATIONS_MAX 8192 /* bytes of a root's namespaces */
#define CLOSING "</presence>\n"

enum kind { TUPLE, NOTE, OTHER, N_KINDS }; /* in the order of the schema */

/* One below the root, where it lies. */
struct element {
    struct hf_slice name, rest;  /* "<p:tuple", and all behind the name */
    size_t declared, n_declared; /* its namespaces, in declared */
    enum kind kind;
    uint64_t key; /* of its name and id; 0: it has none */
};

struct parse {
    XML_Parser x;
    struct hf_slice doc;
    int rc;
    unsigned depth;
    bool merging;
    size_t begin, name_n; /* of the present one */
    struct hf_buf root;   /* the root's declarations: name, NUL, value, NUL */
    struct hf_buf declared;
    struct element *element; /* owned */
    size_t n;
    uint64_t salt;
};

static void stop(struct parse *p, int rc)
{
    if (p->rc == 0) {
        p->rc = rc;
        (void)XML_StopParser(p->x, XML_FALSE);
    }
}

static const char *attribute(const char **attrs, const char *name)
{
    while (attrs[0] != NULL && strcmp(attrs[0], name) != 0) {
        attrs += 2;
    }
    return attrs[1] != NULL && attrs[0] != NULL ? attrs[1] : NULL;
}

static const char *local(const char *name)
{
    const char *colon = strchr(name, ':');
    return colon != NULL ? colon + 1 : name;
}

static bool is_declaration(const char *name)
{
    return strcmp(name, "xmlns") == 0 || strncmp(name, "xmlns:", 6) == 0;
}

/* <presence xmlns="...pidf">, or with a prefix. */
static void on_root(struct parse *p, const char *name, const char **attrs)
{
    const char *colon = strchr(name, ':');
    char want[80] = "xmlns";
    size_t n = colon != NULL ? (size_t)(colon - name) : 0;
    if (n > 64) {
        stop(p, -HF_EMALF);
        return;
    }
    if (colon != NULL) {
        want[5] = ':';
        memcpy(want + 6, name, n);
        want[6 + n] = 0;
    }
    const char *ns = attribute(attrs, want);
    if (ns == NULL || strcmp(ns, NAMESPACE) != 0 || strcmp(local(name), "presence") != 0) {
        stop(p, -HF_EMALF);
        return;
    }
    if (p->merging && attribute(attrs, "xmlns") == NULL) {
        hf_buf_add(&p->root, hf_slice("xmlns\0", 7)); /* none is not ours */
    }
    for (; p->merging && attrs[0] != NULL; attrs += 2) {
        if (is_declaration(attrs[0])) {
            hf_buf_add(&p->root, hf_slice(attrs[0], strlen(attrs[0]) + 1));
            hf_buf_add(&p->root, hf_slice(attrs[1], strlen(attrs[1]) + 1));
        }
    }
    if (p->root.err != 0) {
        stop(p, -HF_EMALF);
    }
}

/* The root's namespaces, but for those that it declares itself. */
static void declare(struct parse *p, const char **attrs)
{
    const char *d = (const char *)p->root.p, *end = d + p->root.n;
    while (d < end) {
        const char *value = d + strlen(d) + 1;
        if (attribute(attrs, d) == NULL) {
            hf_buf_str(&p->declared, " ");
            hf_buf_str(&p->declared, d);
            hf_buf_str(&p->declared, "=\"");
            hf_buf_xml(&p->declared, hf_slice_str(value));
            hf_buf_str(&p->declared, "\"");
        }
        d = value + strlen(value) + 1;
    }
    if (p->declared.err != 0) {
        stop(p, p->declared.err);
    }
}

static uint64_t key_of(const struct parse *p, const char *name, const char *id)
{
    uint64_t h = id != NULL ? hf_hash(hf_slice_str(local(name)), p->salt) : 0;
    return id != NULL ? hf_hash(hf_slice_str(id), h) | 1 : 0;
}

static void on_element(struct parse *p, const char *name, const char **attrs)
{
    if (p->n == HF_SIP_PIDF_ELEMENTS_MAX) {
        return;
    }
    const char *what = local(name);
    struct element *e = &p->element[p->n];
    *e = (struct element){
        .kind = strcmp(what, "tuple") == 0  ? TUPLE
                : strcmp(what, "note") == 0 ? NOTE
                                            : OTHER,
        .key = key_of(p, name, attribute(attrs, "id")),
        .declared = p->declared.n,
    };
    declare(p, attrs);
    e->n_declared = p->declared.n - e->declared;
    p->begin = (size_t)XML_GetCurrentByteIndex(p->x);
    p->name_n = strlen(name) + 1;
}

static void on_start(void *arg, const char *name, const char **attrs)
{
    struct parse *p = arg;
    unsigned depth = p->depth++;
    if (p->rc != 0) { /* expat may call on after a stop */
        return;
    }
    if (depth == 0) {
        on_root(p, name, attrs);
    } else if (depth == 1 && p->merging) {
        on_element(p, name, attrs);
    }
}

static void on_end(void *arg, const char *name)
{
    struct parse *p = arg;
    (void)name;
    if (--p->depth != 1 || p->rc != 0 || !p->merging || p->n == HF_SIP_PIDF_ELEMENTS_MAX) {
        return;
    }
    size_t end = (size_t)XML_GetCurrentByteIndex(p->x) + (size_t)XML_GetCurrentByteCount(p->x);
    size_t behind = p->begin + p->name_n;
    if (end > p->doc.n || behind > end) {
        stop(p, -HF_EMALF);
        return;
    }
    struct element *e = &p->element[p->n];
    e->name = hf_slice(p->doc.p + p->begin, p->name_n);
    e->rest = hf_slice(p->doc.p + behind, end - behind);
    for (size_t i = 0; e->key != 0 && i < p->n; i++) {
        if (p->element[i].key == e->key) {
            return; /* a later one has it */
        }
    }
    p->n++;
}

static void on_doctype(void *arg, const char *name, const char *system, const char *public,
                       int has_internal)
{
    (void)name, (void)system, (void)public, (void)has_internal;
    stop(arg, -HF_EVALUE);
}

static int parse(struct parse *p, struct hf_slice doc)
{
    static const XML_Memory_Handling_Suite memory = {hf_alloc, hf_realloc, hf_free};
    p->x = XML_ParserCreate_MM("UTF-8", &memory, NULL);
    if (p->x == NULL) {
        return -ENOMEM;
    }
    p->doc = doc;
    p->rc = 0;
    p->depth = 0;
    hf_buf_clear(&p->root);
    XML_SetUserData(p->x, p);
    (void)XML_SetHashSalt(p->x, (unsigned long)(p->salt | 1)); /* 0: expat would ask the system */
    XML_SetElementHandler(p->x, on_start, on_end);
    XML_SetStartDoctypeDeclHandler(p->x, on_doctype);
    enum XML_Status ok = doc.n <= INT32_MAX
                             ? XML_Parse(p->x, (const char *)doc.p, (int)doc.n, XML_TRUE)
                             : XML_STATUS_ERROR;
    if (ok != XML_STATUS_OK && p->rc == 0) {
        p->rc = XML_GetErrorCode(p->x) == XML_ERROR_NO_MEMORY ? -ENOMEM : -HF_EMALF;
    }
    XML_ParserFree(p->x);
    return p->rc;
}

int hf_sip_pidf_check(struct hf_slice doc, uint64_t salt)
{
    struct parse p = {.salt = salt};
    return parse(&p, doc);
}

static void begin(struct hf_buf *b, struct hf_slice entity)
{
    hf_buf_str(b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence xmlns=\"" NAMESPACE
                  "\" entity=\"");
    hf_buf_xml(b, entity);
    hf_buf_str(b, "\">\n");
}

void hf_sip_pidf_basic(struct hf_buf *b, struct hf_slice entity, bool open)
{
    begin(b, entity);
    hf_buf_printf(b,
                  "  <tuple id=\"registration\">\n    <status><basic>%s</basic></status>\n"
                  "  </tuple>\n" CLOSING,
                  open ? "open" : "closed");
}

/* If it fits, with what has to follow. */
static void add(struct hf_buf *b, const struct parse *p, const struct element *e)
{
    if (e->name.n + e->n_declared + e->rest.n + sizeof(CLOSING) > b->n_max - b->n) {
        return;
    }
    hf_buf_add(b, e->name);
    hf_buf_add(b, hf_slice(p->declared.p + e->declared, e->n_declared));
    hf_buf_add(b, e->rest);
    hf_buf_str(b, "\n");
}

void hf_sip_pidf_merge(struct hf_buf *b, struct hf_slice entity, const struct hf_slice *doc,
                       size_t n, uint64_t salt)
{
    struct parse p = {.merging = true, .salt = salt};
    p.element = hf_alloc_array(HF_SIP_PIDF_ELEMENTS_MAX, sizeof(*p.element));
    if (p.element == NULL) {
        b->err = b->err != 0 ? b->err : -ENOMEM;
        return;
    }
    hf_buf_init(&p.root, DECLARATIONS_MAX);
    hf_buf_init(&p.declared, b->n_max);
    for (size_t i = 0; i < n; i++) {
        size_t before = p.n;
        if (parse(&p, doc[i]) != 0) {
            p.n = before; /* all of it or nothing */
            hf_buf_clear(&p.root);
            p.declared.err = 0;
        }
    }
    begin(b, entity);
    for (int kind = TUPLE; kind < N_KINDS; kind++) {
        for (size_t i = 0; i < p.n; i++) {
            if (p.element[i].kind == (enum kind)kind) {
                add(b, &p, &p.element[i]);
            }
        }
    }
    hf_buf_str(b, CLOSING);
    hf_buf_fini(&p.root);
    hf_buf_fini(&p.declared);
    hf_free(p.element);
}
