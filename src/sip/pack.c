/* What is told to workers, as mails: structs with distances instead of pointers. */
#include "sip/pack.h"

#include <assert.h>

/* Room for n bytes, at a multiple of 8; where it begins. */
static size_t room(struct hf_buf *b, size_t n)
{
    static const uint8_t zero[8];
    hf_buf_add(b, hf_slice(zero, -b->n % 8));
    size_t at = b->n;
    if (hf_buf_reserve(b, n)) {
        hf_buf_commit(b, n);
    }
    return at;
}

static void set(struct hf_buf *b, size_t at, const void *p, size_t n)
{
    if (!b->err && n) {
        memcpy(b->p + at, p, n);
    }
}

static void put(struct hf_buf *b, struct hf_slice *s)
{
    size_t at = b->n;
    hf_buf_add(b, *s);
    s->p = (const uint8_t *)(uintptr_t)at;
}

static uint8_t *base(struct hf_slice mail)
{
    return (uint8_t *)(uintptr_t)mail.p; /* the mail is ours */
}

static void get(struct hf_slice mail, struct hf_slice *s)
{
    size_t at = (size_t)(uintptr_t)s->p;
    assert(at <= mail.n && s->n <= mail.n - at);
    s->p = mail.p + at;
}

static void *get_array(struct hf_slice mail, const void *p, size_t n)
{
    size_t at = (size_t)(uintptr_t)p;
    assert(at <= mail.n && n <= mail.n - at);
    return base(mail) + at;
}

/* ---- results ---- */

static void pack_binding(struct hf_buf *b, size_t at, struct hf_sip_stored_binding v)
{
    put(b, &v.aor);
    put(b, &v.uri);
    put(b, &v.params);
    put(b, &v.call_id);
    put(b, &v.path);
    set(b, at, &v, sizeof(v));
}

static void pack_kept(struct hf_buf *b, size_t at, struct hf_sip_kept v)
{
    put(b, &v.key);
    put(b, &v.data);
    set(b, at, &v, sizeof(v));
}

void hf_sip_pack_result(struct hf_buf *b, const struct hf_sip_result *r)
{
    struct hf_sip_result v = *r;
    size_t at = room(b, sizeof(v));
    size_t bindings = room(b, r->n_bindings * sizeof(*r->binding));
    size_t kept = room(b, r->n_kept * sizeof(*r->kept));
    size_t binds = room(b, r->n_binds * sizeof(*r->bind));
    v.bind = (const struct hf_sip_bind *)(uintptr_t)binds;
    v.n_binds = 0;
    v.binding = (const struct hf_sip_stored_binding *)(uintptr_t)bindings;
    v.kept = (const struct hf_sip_kept *)(uintptr_t)kept;
    put(b, &v.aor);
    put(b, &v.row.aor);
    for (size_t i = 0; i < r->n_bindings; i++) {
        pack_binding(b, bindings + i * sizeof(*r->binding), r->binding[i]);
    }
    for (size_t i = 0; i < r->n_kept; i++) {
        pack_kept(b, kept + i * sizeof(*r->kept), r->kept[i]);
    }
    for (size_t i = 0; i < r->n_binds; i++) {
        if (r->bind[i].erase) {
            struct hf_sip_bind e = {.erase = true, .key = r->bind[i].key};
            put(b, &e.key);
            set(b, binds + v.n_binds++ * sizeof(e), &e, sizeof(e));
        }
    }
    set(b, at, &v, sizeof(v));
}

const struct hf_sip_result *hf_sip_unpack_result(struct hf_slice mail)
{
    struct hf_sip_result *r = get_array(mail, NULL, sizeof(*r));
    struct hf_sip_stored_binding *b = get_array(mail, r->binding, r->n_bindings * sizeof(*b));
    struct hf_sip_kept *k = get_array(mail, r->kept, r->n_kept * sizeof(*k));
    struct hf_sip_bind *e = get_array(mail, r->bind, r->n_binds * sizeof(*e));
    get(mail, &r->aor);
    get(mail, &r->row.aor);
    for (size_t i = 0; i < r->n_binds; i++) {
        get(mail, &e[i].key);
    }
    for (size_t i = 0; i < r->n_bindings; i++) {
        get(mail, &b[i].aor);
        get(mail, &b[i].uri);
        get(mail, &b[i].params);
        get(mail, &b[i].call_id);
        get(mail, &b[i].path);
    }
    for (size_t i = 0; i < r->n_kept; i++) {
        get(mail, &k[i].key);
        get(mail, &k[i].data);
    }
    r->bind = e;
    r->binding = b;
    r->kept = k;
    return r;
}

/* ---- the feed ---- */

void hf_sip_pack_feed(struct hf_buf *b, const struct hf_sip_feed *f)
{
    struct hf_sip_feed v = *f;
    size_t at = room(b, sizeof(v));
    size_t rows = room(b, f->n * sizeof(*f->row));
    size_t deleted = room(b, f->n_deleted * sizeof(*f->deleted));
    v.row = (const struct hf_sip_row *)(uintptr_t)rows;
    v.deleted = (const struct hf_slice *)(uintptr_t)deleted;
    for (size_t i = 0; i < f->n; i++) {
        struct hf_sip_row row = f->row[i];
        put(b, &row.aor);
        set(b, rows + i * sizeof(row), &row, sizeof(row));
    }
    for (size_t i = 0; i < f->n_deleted; i++) {
        struct hf_slice aor = f->deleted[i];
        put(b, &aor);
        set(b, deleted + i * sizeof(aor), &aor, sizeof(aor));
    }
    set(b, at, &v, sizeof(v));
}

const struct hf_sip_feed *hf_sip_unpack_feed(struct hf_slice mail)
{
    struct hf_sip_feed *f = get_array(mail, NULL, sizeof(*f));
    struct hf_sip_row *row = get_array(mail, f->row, f->n * sizeof(*row));
    struct hf_slice *deleted = get_array(mail, f->deleted, f->n_deleted * sizeof(*deleted));
    for (size_t i = 0; i < f->n; i++) {
        get(mail, &row[i].aor);
    }
    for (size_t i = 0; i < f->n_deleted; i++) {
        get(mail, &deleted[i]);
    }
    f->row = row;
    f->deleted = deleted;
    return f;
}

/* ---- servers ---- */

void hf_sip_pack_peer(struct hf_buf *b, const struct hf_sip_peer *p)
{
    struct hf_sip_peer v = *p;
    size_t at = room(b, sizeof(v));
    put(b, &v.name);
    put(b, &v.host);
    set(b, at, &v, sizeof(v));
}

const struct hf_sip_peer *hf_sip_unpack_peer(struct hf_slice mail)
{
    struct hf_sip_peer *p = get_array(mail, NULL, sizeof(*p));
    get(mail, &p->name);
    get(mail, &p->host);
    return p;
}
