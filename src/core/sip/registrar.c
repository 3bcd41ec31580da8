#include "core/sip/registrar.h"

#include <assert.h>
#include <errno.h>

#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/names.h"
#include "core/sip/fields.h"
#include "core/sip/write.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define SLOTS 4096 /* seconds of the wheel; what ends later is looked at once a turn */

/* An address of record. It lives as long as a binding has it, also one that is only to be freed. */
struct user {
    struct hf_sip_binding *first;
    uint16_t n;      /* bindings */
    uint16_t n_dead; /* bindings that wait to be freed */
    uint16_t n_aor;
    uint8_t aor[];
};

struct binding {
    struct hf_sip_binding b;
    struct hf_list node; /* on a slot of the wheel, or among the dead */
    struct user *user;
    uint16_t n_uri, n_params, n_call_id, n_path;
    uint16_t instance_at, n_instance; /* in params */
    uint8_t text[];                   /* uri params call-id path */
};

struct hf_sip_registrar {
    struct hf_sip_registrar_limits limits;
    struct hf_map users;
    struct hf_list slot[SLOTS];
    struct hf_list dead; /* bindings that the last call's changes name */
    int64_t tick_s;      /* the wheel stands here */
    size_t n, bytes;
};

/* What a binding is made of. */
struct parts {
    struct hf_slice uri, params, call_id, path;
    struct hf_slice instance; /* within params */
    uint32_t cseq, reg_id;
    uint16_t q;
    bool outbound;
};

/* One contact of a request. */
struct want {
    struct hf_sip_uri uri;
    struct parts parts; /* params: only while it is looked at */
    uint32_t expires_s;
    struct binding *old; /* it is the same as this one */
    struct binding *new; /* made for it; NULL: old stays, or it is a removal */
    bool skip;           /* a retransmission; or the request has it again */
};

struct job {
    struct hf_sip_registrar *r;
    const struct hf_sip_msg *m;
    struct hf_slice aor;
    uint32_t cap_s;
    hf_time now;
    struct user *user; /* NULL: unknown so far */
    struct hf_slice path;
    bool outbound, knows_outbound;
    size_t n_flows;
    struct want want[HF_SIP_CONTACTS_MAX];
    size_t n;
    struct binding *gone[HF_SIP_CONTACTS_MAX]; /* make room */
    size_t n_gone;
    struct hf_sip_registered *ret;
    char path_text[HF_SIP_BINDING_TEXT_MAX];
    char params_text[HF_SIP_BINDING_TEXT_MAX];
};

static struct binding *of(const struct hf_sip_binding *b)
{
    return HF_CONTAINER_OF((struct hf_sip_binding *)(uintptr_t)b, struct binding, b);
}

/* --- what a binding has --- */

struct hf_slice hf_sip_binding_uri(const struct hf_sip_binding *b)
{
    return hf_slice(of(b)->text, of(b)->n_uri);
}

struct hf_slice hf_sip_binding_params(const struct hf_sip_binding *b)
{
    return hf_slice(of(b)->text + of(b)->n_uri, of(b)->n_params);
}

struct hf_slice hf_sip_binding_call_id(const struct hf_sip_binding *b)
{
    return hf_slice(of(b)->text + of(b)->n_uri + of(b)->n_params, of(b)->n_call_id);
}

struct hf_slice hf_sip_binding_path(const struct hf_sip_binding *b)
{
    const struct binding *x = of(b);
    return hf_slice(x->text + x->n_uri + x->n_params + x->n_call_id, x->n_path);
}

struct hf_slice hf_sip_binding_instance(const struct hf_sip_binding *b)
{
    return hf_slice(of(b)->text + of(b)->n_uri + of(b)->instance_at, of(b)->n_instance);
}

struct hf_slice hf_sip_binding_aor(const struct hf_sip_binding *b)
{
    return hf_slice(of(b)->user->aor, of(b)->user->n_aor);
}

uint32_t hf_sip_binding_left_s(const struct hf_sip_binding *b, hf_time now)
{
    return b->expires <= now ? 0 : (uint32_t)((b->expires - now + HF_NS_PER_S - 1) / HF_NS_PER_S);
}

HF_NAMES(hf_sip_change_event, enum hf_sip_change_kind, HF_SIP_CHANGE_LIST)

/* --- life and death --- */

bool hf_sip_change_ends(enum hf_sip_change_kind kind)
{
    return kind == HF_SIP_CHANGE_UNREGISTERED || kind == HF_SIP_CHANGE_EXPIRED ||
           kind == HF_SIP_CHANGE_FAILED;
}

int hf_sip_registrar_create(const struct hf_sip_registrar_limits *limits, hf_time now,
                            struct hf_sip_registrar **ret_registrar)
{
    struct hf_sip_registrar *r = hf_alloc(sizeof(*r));
    if (!r) {
        return -ENOMEM;
    }
    r->limits = *limits;
    r->tick_s = now / HF_NS_PER_S;
    r->bytes = sizeof(*r);
    hf_map_init(&r->users, limits->seed);
    hf_list_init(&r->dead);
    for (size_t i = 0; i < SLOTS; i++) {
        hf_list_init(&r->slot[i]);
    }
    *ret_registrar = r;
    return 0;
}

static size_t binding_size(const struct binding *x)
{
    return sizeof(*x) + x->n_uri + x->n_params + x->n_call_id + x->n_path;
}

static void free_user(struct hf_sip_registrar *r, struct user *u)
{
    if (u->n == 0 && u->n_dead == 0) {
        r->bytes -= sizeof(*u) + u->n_aor;
        hf_free(u);
    }
}

static void free_binding(struct hf_sip_registrar *r, struct binding *x)
{
    hf_list_unlink(&x->node);
    r->bytes -= binding_size(x);
    hf_free(x);
}

/* What the last call told of is over. */
static void bury(struct hf_sip_registrar *r)
{
    HF_LIST_FOREACH (it, &r->dead) {
        struct binding *x = HF_CONTAINER_OF(it, struct binding, node);
        struct user *u = x->user;
        free_binding(r, x);
        u->n_dead--;
        free_user(r, u);
    }
}

/* The user goes from the map with its last binding. */
static void leave_if_empty(struct hf_sip_registrar *r, struct user *u)
{
    if (u->n == 0) {
        void *was = hf_map_remove(&r->users, hf_slice(u->aor, u->n_aor));
        assert(was == u);
        free_user(r, u);
    }
}

/* Off its user's list, among the dead. */
static void kill(struct hf_sip_registrar *r, struct binding *x)
{
    struct hf_sip_binding **at = &x->user->first;
    while (*at != &x->b) {
        at = &(*at)->next;
    }
    *at = x->b.next;
    x->b.next = NULL;
    x->user->n--;
    x->user->n_dead++;
    r->n--;
    hf_list_unlink(&x->node);
    hf_list_insert(&r->dead, &x->node);
}

static void set_end(struct hf_sip_registrar *r, struct binding *x, hf_time expires)
{
    int64_t s = (expires + HF_NS_PER_S - 1) / HF_NS_PER_S;
    s = s > r->tick_s ? s : r->tick_s + 1; /* over already: with the next tick */
    x->b.expires = expires;
    hf_list_unlink(&x->node);
    hf_list_insert(&r->slot[s % SLOTS], &x->node);
}

static void add(struct hf_sip_registrar *r, struct user *u, struct binding *x)
{
    struct hf_sip_binding **at = &u->first;
    while (*at && (*at)->q > x->b.q) {
        at = &(*at)->next;
    }
    x->b.next = *at;
    *at = &x->b;
    x->user = u;
    u->n++;
    r->n++;
}

static struct binding *make_binding(struct hf_sip_registrar *r, const struct parts *p)
{
    const struct hf_slice text[] = {p->uri, p->params, p->call_id, p->path};
    size_t n = 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(text); i++) {
        n += text[i].n;
    }
    struct binding *x = hf_alloc(sizeof(*x) + n);
    if (!x) {
        return NULL;
    }
    n = 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(text); i++) {
        if (text[i].n) {
            memcpy(x->text + n, text[i].p, text[i].n);
        }
        n += text[i].n;
    }
    x->b = (struct hf_sip_binding){
        .cseq = p->cseq, .reg_id = p->reg_id, .q = p->q, .outbound = p->outbound};
    x->n_uri = (uint16_t)p->uri.n;
    x->n_params = (uint16_t)p->params.n;
    x->n_call_id = (uint16_t)p->call_id.n;
    x->n_path = (uint16_t)p->path.n;
    x->instance_at = p->instance.n ? (uint16_t)(p->instance.p - p->params.p) : 0;
    x->n_instance = (uint16_t)p->instance.n;
    hf_list_init(&x->node);
    r->bytes += binding_size(x);
    return x;
}

static struct user *make_user(struct hf_sip_registrar *r, struct hf_slice aor)
{
    struct user *u = hf_alloc(sizeof(*u) + aor.n);
    if (!u) {
        return NULL;
    }
    u->n_aor = (uint16_t)aor.n;
    memcpy(u->aor, aor.p, aor.n);
    if (hf_map_put(&r->users, hf_slice(u->aor, u->n_aor), u)) {
        hf_free(u);
        return NULL;
    }
    r->bytes += sizeof(*u) + aor.n;
    return u;
}

void hf_sip_registrar_destroy(struct hf_sip_registrar *r)
{
    if (!r) {
        return;
    }
    size_t pos = 0;
    bury(r);
    for (struct user *u; (u = hf_map_next(&r->users, &pos));) {
        while (u->first) {
            struct binding *x = of(u->first);
            u->first = x->b.next;
            free_binding(r, x);
        }
        hf_free(u);
    }
    hf_map_fini(&r->users);
    hf_free(r);
}

/* --- finding --- */

static bool same_key(const struct binding *x, const struct parts *p, const struct hf_sip_uri *uri)
{
    if (x->b.outbound || p->outbound) {
        return x->b.outbound && p->outbound && x->b.reg_id == p->reg_id &&
               hf_slice_eq(hf_sip_binding_instance(&x->b), p->instance);
    }
    struct hf_sip_uri other;
    struct hf_slice text = hf_sip_binding_uri(&x->b);
    if (hf_slice_eq(text, p->uri)) {
        return true;
    }
    return hf_sip_uri_parse(text, &other) != -HF_EMALF && hf_sip_uri_equal(&other, uri);
}

/* Equality of URIs is not transitive: several may be, then the one with the same text is meant. */
static struct binding *find_same(const struct user *u, const struct parts *p,
                                 const struct hf_sip_uri *uri)
{
    struct binding *found = NULL;
    for (struct hf_sip_binding *b = u ? u->first : NULL; b; b = b->next) {
        if (same_key(of(b), p, uri) && (!found || hf_slice_eq(hf_sip_binding_uri(b), p->uri))) {
            found = of(b);
        }
    }
    return found;
}

const struct hf_sip_binding *hf_sip_registrar_find(const struct hf_sip_registrar *r,
                                                   struct hf_slice aor)
{
    const struct user *u = hf_map_get(&r->users, aor);
    return u ? u->first : NULL;
}

/* --- reading a request --- */

static int refuse(struct job *j, uint16_t status, const char *reason)
{
    j->ret->status = status;
    j->ret->reason = reason;
    return -HF_EVALUE;
}

static bool has_controls(struct hf_slice s)
{
    struct hf_sip_cur c = hf_sip_cur(s);
    hf_sip_to_control(&c);
    return !hf_sip_done(&c);
}

/* A Contact's parameters in one form: without white space, without expires. */
static int normalise(struct hf_slice params, struct hf_wr *w)
{
    struct hf_sip_cur c = hf_sip_cur(params);
    struct hf_sip_param p;
    int rc;
    while ((rc = hf_sip_param_next(&c, &p)) == 1) {
        if (!hf_sip_eq(p.name, S("expires"))) {
            hf_sip_put_param(w, &p);
        }
    }
    hf_sip_ws(&c);
    return rc == 0 && hf_sip_done(&c) ? w->err : -HF_EMALF;
}

/* q, instance and reg-id out of normalised parameters. */
static int take_params(struct hf_slice params, struct parts *p)
{
    const struct hf_sip_address a = {.params = params};
    struct hf_sip_param v;
    p->params = params;
    p->instance = hf_slice(NULL, 0);
    if (hf_sip_address_q(&a, &p->q) || has_controls(params)) {
        return -HF_EVALUE;
    }
    if (hf_sip_param_get(params, "+sip.instance", &v) && v.quoted) {
        p->instance = v.value;
    }
    p->reg_id = 0;
    if (hf_sip_param_get(params, "reg-id", &v)) {
        struct hf_sip_cur c = hf_sip_cur(v.value);
        uint64_t id;
        if (hf_sip_number(&c, INT32_MAX, &id) || !hf_sip_done(&c) || id == 0) {
            return -HF_EVALUE;
        }
        p->reg_id = (uint32_t)id;
    }
    return 0;
}

/* All Path values in one; and whether a flow is kept: RFC 5626 6: by us, or by who wrote "ob". */
static int take_path(struct job *j)
{
    struct hf_sip_walk walk;
    struct hf_sip_address a;
    struct hf_slice value;
    struct hf_wr w;
    int rc;
    j->outbound = j->m->n_vias == 1;
    hf_wr_init(&w, j->path_text, sizeof(j->path_text));
    hf_sip_walk_begin(&walk, j->m, HF_SIP_H_PATH);
    while ((rc = hf_sip_walk_address(&walk, &a)) == 1) {
        hf_wr_bytes(&w, hf_wr_len(&w) ? S(", ") : S(""));
        hf_wr_bytes(&w, a.text);
        j->outbound = j->outbound || hf_sip_uri_param(&a.uri, "ob", &value);
        if (has_controls(a.text)) { /* folded in its middle, too */
            rc = -HF_EMALF;
            break;
        }
    }
    if (rc || hf_wr_end(&w, &j->path)) {
        return refuse(j, 400, "Malformed Path");
    }
    return 0;
}

static uint32_t grant(const struct job *j, uint32_t asked_s)
{
    uint32_t s = asked_s < j->r->limits.expires_max_s ? asked_s : j->r->limits.expires_max_s;
    return j->cap_s && s > j->cap_s ? j->cap_s : s;
}

/* 10.3 step 7, and RFC 5626 6, of one Contact. */
static int take_contact(struct job *j, const struct hf_sip_address *a)
{
    struct hf_wr text;
    struct hf_slice params;
    if (j->n == HF_SIP_CONTACTS_MAX) {
        return refuse(j, 403, "Too Many Contacts");
    }
    struct want *w = &j->want[j->n];
    *w = (struct want){
        .uri = a->uri,
        .parts = {
            .uri = a->uri.text, .call_id = j->m->call_id, .path = j->path, .cseq = j->m->cseq}};
    hf_wr_init(&text, j->params_text, sizeof(j->params_text));
    if (hf_sip_contact_expires(j->m, a, j->r->limits.expires_default_s, &w->expires_s) ||
        normalise(a->params, &text) || hf_wr_end(&text, &params) ||
        take_params(params, &w->parts)) {
        return refuse(j, 400, "Malformed Contact");
    }
    if (a->uri.text.n + params.n + j->path.n + j->m->call_id.n > HF_SIP_BINDING_TEXT_MAX) {
        return refuse(j, 400, "Contact Too Long");
    }
    if (w->expires_s && w->expires_s < 3600 && w->expires_s < j->r->limits.expires_min_s) {
        return refuse(j, 423, NULL);
    }
    if (w->parts.reg_id && w->parts.instance.n && j->knows_outbound) {
        if (!j->outbound) {
            return refuse(j, 439, NULL);
        }
        if (++j->n_flows > 1) {
            return refuse(j, 400, "More Than One Flow");
        }
        w->parts.outbound = true;
    }
    j->n++;
    return 0;
}

/* What it does to the binding that is there; a new one is made where one is needed. */
static int match(struct job *j, struct want *w)
{
    struct parts *p = &w->parts;
    w->old = find_same(j->user, p, &w->uri);
    for (struct want *o = j->want; o < w; o++) {
        bool flows = p->outbound || o->parts.outbound;
        if ((w->old && o->old == w->old) || (!flows && hf_sip_uri_equal(&o->uri, &w->uri))) {
            o->skip = true; /* the last one counts */
        }
    }
    if (w->old && hf_slice_eq(hf_sip_binding_call_id(&w->old->b), p->call_id)) {
        /* what was granted when the database was still there is cut to the cap */
        bool cut = j->cap_s && w->old->b.expires - j->now > HF_S((hf_time)j->cap_s);
        w->skip = p->cseq == w->old->b.cseq && !cut;
        if (p->cseq < w->old->b.cseq) {
            return refuse(j, 500, "CSeq Out of Order");
        }
    }
    if (w->skip || w->expires_s == 0) {
        return 0;
    }
    const struct hf_sip_binding *b = w->old ? &w->old->b : NULL;
    if (!b || !hf_slice_eq(hf_sip_binding_uri(b), p->uri) ||
        !hf_slice_eq(hf_sip_binding_params(b), p->params) ||
        !hf_slice_eq(hf_sip_binding_path(b), p->path) ||
        !hf_slice_eq(hf_sip_binding_call_id(b), p->call_id)) {
        w->new = make_binding(j->r, p);
        if (!w->new) {
            return refuse(j, 500, NULL);
        }
    }
    return 0;
}

/* "*": every binding (10.3 step 6). */
static int take_star(struct job *j)
{
    for (struct hf_sip_binding *b = j->user ? j->user->first : NULL; b; b = b->next) {
        bool same = hf_slice_eq(hf_sip_binding_call_id(b), j->m->call_id);
        if (same && j->m->cseq < b->cseq) {
            return refuse(j, 500, "CSeq Out of Order");
        }
        j->want[j->n++] = (struct want){.old = of(b), .skip = same && j->m->cseq == b->cseq};
    }
    return 0;
}

static int take_contacts(struct job *j)
{
    struct hf_sip_walk walk;
    struct hf_sip_address a;
    uint32_t s;
    bool star = false;
    size_t n = 0;
    int rc;
    hf_sip_walk_begin(&walk, j->m, HF_SIP_H_CONTACT);
    while ((rc = hf_sip_walk_address(&walk, &a)) == 1) {
        star = star || a.star;
        if (++n > 1 && star) {
            return refuse(j, 400, "Contact * With Others");
        }
        if (a.star) {
            continue;
        }
        rc = take_contact(j, &a);
        rc = rc ? rc : match(j, &j->want[j->n - 1]);
        if (rc) {
            return rc;
        }
    }
    if (rc) {
        return refuse(j, 400, "Malformed Contact");
    }
    if (!star) {
        return 0;
    }
    a = (struct hf_sip_address){.star = true};
    if (hf_sip_contact_expires(j->m, &a, 1, &s)) {
        return refuse(j, 400, "Contact * Without Expires: 0");
    }
    return take_star(j);
}

/* Does the request have it, or is it to go already? */
static bool is_spoken_for(const struct job *j, const struct binding *x)
{
    for (size_t i = 0; i < j->n; i++) {
        if (j->want[i].old == x) {
            return true;
        }
    }
    for (size_t i = 0; i < j->n_gone; i++) {
        if (j->gone[i] == x) {
            return true;
        }
    }
    return false;
}

/* Of the same user agent (10.2: one Call-ID) what it has not refreshed for longest: who names
 * another Contact with each new connection could not register any more after a few of them. */
static struct binding *superseded(const struct job *j)
{
    struct hf_sip_binding *found = NULL;
    for (struct hf_sip_binding *b = j->user ? j->user->first : NULL; b; b = b->next) {
        if (hf_slice_eq(hf_sip_binding_call_id(b), j->m->call_id) && b->cseq < j->m->cseq &&
            (!found || b->cseq < found->cseq) && !is_spoken_for(j, of(b))) {
            found = b;
        }
    }
    return found ? of(found) : NULL;
}

static int check_room(struct job *j)
{
    size_t more = 0, n = j->user ? j->user->n : 0;
    for (size_t i = 0; i < j->n; i++) {
        more += !j->want[i].skip && j->want[i].new && !j->want[i].old;
    }
    while (more && n + more > HF_SIP_CONTACTS_MAX + j->n_gone) {
        struct binding *x = superseded(j);
        if (!x) {
            return refuse(j, 403, "Too Many Contacts");
        }
        j->gone[j->n_gone++] = x;
    }
    if (more && j->r->n + more > j->r->limits.bindings_max + j->n_gone) {
        return refuse(j, 503, NULL);
    }
    if (more && !j->user) {
        j->user = make_user(j->r, j->aor);
        return j->user ? 0 : refuse(j, 500, NULL);
    }
    return 0;
}

/* --- applying it --- */

static void tell(struct job *j, enum hf_sip_change_kind kind, bool store,
                 const struct hf_sip_binding *b, const struct hf_sip_binding *replaced)
{
    assert(j->ret->n_changes < HF_ARRAY_LEN(j->ret->change));
    j->ret->change[j->ret->n_changes++] =
        (struct hf_sip_change){.kind = kind, .store = store, .binding = b, .replaced = replaced};
    j->ret->wait = j->ret->wait || (store && kind != HF_SIP_CHANGE_REFRESHED);
}

/* Has what is stored fallen behind by a quarter of the life (S3)? Or does it promise that much too
 * long? */
static bool is_stale(const struct hf_sip_binding *b)
{
    hf_time off = b->expires - b->stored_until;
    return (off < 0 ? -off : off) >= HF_S((hf_time)b->life_s) / 4;
}

static void refresh(struct job *j, struct want *w)
{
    struct hf_sip_binding *b = &w->old->b;
    b->cseq = w->parts.cseq;
    b->life_s = grant(j, w->expires_s);
    set_end(j->r, w->old, j->now + HF_S((hf_time)b->life_s));
    bool store = is_stale(b);
    if (store) {
        b->stored_until = b->expires;
    }
    tell(j, HF_SIP_CHANGE_REFRESHED, store, b, NULL);
}

static void replace(struct job *j, struct want *w)
{
    struct hf_sip_binding *b = &w->new->b;
    struct hf_sip_binding *old = w->old ? &w->old->b : NULL;
    enum hf_sip_change_kind kind = HF_SIP_CHANGE_REGISTERED;
    if (old) {
        bool same = hf_slice_eq(hf_sip_binding_uri(b), hf_sip_binding_uri(old)) &&
                    hf_slice_eq(hf_sip_binding_params(b), hf_sip_binding_params(old)) &&
                    hf_slice_eq(hf_sip_binding_path(b), hf_sip_binding_path(old));
        kind = same ? HF_SIP_CHANGE_REFRESHED : HF_SIP_CHANGE_CHANGED;
        kill(j->r, w->old);
    }
    add(j->r, j->user, w->new);
    b->life_s = grant(j, w->expires_s);
    set_end(j->r, w->new, j->now + HF_S((hf_time)b->life_s));
    b->stored_until = b->expires;
    tell(j, kind, true, b, old);
    w->new = NULL; /* it is the user's now */
}

static void apply(struct job *j)
{
    for (size_t i = 0; i < j->n_gone; i++) {
        kill(j->r, j->gone[i]);
        tell(j, HF_SIP_CHANGE_UNREGISTERED, true, &j->gone[i]->b, NULL);
    }
    for (size_t i = 0; i < j->n; i++) {
        struct want *w = &j->want[i];
        if (w->skip) {
            continue;
        }
        j->ret->outbound = j->ret->outbound || (w->parts.outbound && w->expires_s);
        if (w->new) {
            replace(j, w);
        } else if (w->old && w->expires_s) {
            refresh(j, w);
        } else if (w->old) {
            kill(j->r, w->old);
            tell(j, HF_SIP_CHANGE_UNREGISTERED, true, &w->old->b, NULL);
        }
    }
    if (j->user) {
        j->ret->first = j->user->first;
        leave_if_empty(j->r, j->user);
    }
}

static int check_require(struct job *j)
{
    static const char *const known[] = {"path", "outbound", NULL};
    int rc = hf_sip_unknown_token(j->m, HF_SIP_H_REQUIRE, known, &j->ret->unsupported);
    if (rc == 1) {
        return refuse(j, 420, NULL);
    }
    return rc ? refuse(j, 400, "Malformed Require") : 0;
}

void hf_sip_registrar_register(struct hf_sip_registrar *r, const struct hf_sip_msg *m,
                               struct hf_slice aor, uint32_t cap_s, hf_time now,
                               struct hf_sip_registered *ret_registered)
{
    assert(m->fault == HF_SIP_OK && aor.n > 0 && aor.n <= HF_SIP_AOR_MAX);
    struct job j; /* its texts are not to be cleared each time */
    j.r = r;
    j.m = m;
    j.aor = aor;
    j.cap_s = cap_s;
    j.now = now;
    j.n = j.n_flows = j.n_gone = 0;
    j.ret = ret_registered;
    j.knows_outbound = hf_sip_lists(m, HF_SIP_H_SUPPORTED, "outbound");
    j.ret->status = 200;
    j.ret->reason = NULL;
    j.ret->wait = j.ret->outbound = false;
    j.ret->first = NULL;
    j.ret->n_changes = 0;
    bury(r);
    j.user = hf_map_get(&r->users, aor);
    if (check_require(&j) == 0 && take_path(&j) == 0 && take_contacts(&j) == 0 &&
        check_room(&j) == 0) {
        apply(&j);
    }
    for (size_t i = 0; i < j.n; i++) { /* made, and not used */
        if (j.want[i].new) {
            free_binding(r, j.want[i].new);
        }
    }
}

/* --- the response --- */

static void put_contact(struct hf_wr *w, const struct hf_sip_binding *b, uint32_t left_s)
{
    hf_sip_put_name(w, HF_SIP_H_CONTACT);
    hf_wr_u8(w, '<');
    hf_wr_bytes(w, hf_sip_binding_uri(b));
    hf_wr_u8(w, '>');
    hf_wr_bytes(w, hf_sip_binding_params(b));
    hf_wr_bytes(w, S(";expires="));
    hf_sip_put_u64(w, left_s);
    hf_sip_put_eol(w);
}

void hf_sip_registrar_put(const struct hf_sip_registrar *r,
                          const struct hf_sip_registered *registered, const struct hf_sip_msg *m,
                          hf_time now, struct hf_wr *w)
{
    switch (registered->status) {
    case 200:
        for (const struct hf_sip_binding *b = registered->first; b; b = b->next) {
            uint32_t left_s = hf_sip_binding_left_s(b, now);
            if (left_s) {
                put_contact(w, b, left_s);
            }
        }
        hf_sip_put_copies(w, m, HF_SIP_H_PATH);
        if (r->limits.service_route.n) {
            hf_sip_put_field(w, HF_SIP_H_SERVICE_ROUTE, r->limits.service_route);
        }
        if (registered->outbound) {
            hf_sip_put_field(w, HF_SIP_H_REQUIRE, S("outbound"));
        }
        hf_sip_put_field(w, HF_SIP_H_SUPPORTED, S("path, outbound"));
        break;
    case 420:
        hf_sip_put_field(w, HF_SIP_H_UNSUPPORTED, registered->unsupported);
        break;
    case 423:
        hf_sip_put_number(w, HF_SIP_H_MIN_EXPIRES, r->limits.expires_min_s);
        break;
    default:
        break;
    }
}

/* --- time --- */

static struct hf_sip_change ended(struct hf_sip_registrar *r, struct binding *x,
                                  enum hf_sip_change_kind kind)
{
    kill(r, x);
    leave_if_empty(r, x->user);
    return (struct hf_sip_change){.kind = kind, .store = true, .binding = &x->b};
}

bool hf_sip_registrar_tick(struct hf_sip_registrar *r, hf_time now,
                           struct hf_sip_change ret_change[HF_SIP_EXPIRED_AT_ONCE_MAX],
                           size_t *ret_n)
{
    int64_t now_s = now / HF_NS_PER_S;
    size_t n = 0;
    bury(r);
    if (now_s - r->tick_s > SLOTS) { /* once round is all there is */
        r->tick_s = now_s - SLOTS;
    }
    for (; r->tick_s < now_s && n < HF_SIP_EXPIRED_AT_ONCE_MAX; r->tick_s++) {
        HF_LIST_FOREACH (it, &r->slot[(r->tick_s + 1) % SLOTS]) {
            struct binding *x = HF_CONTAINER_OF(it, struct binding, node);
            if (x->b.expires > now) {
                continue; /* in another turn */
            }
            if (n == HF_SIP_EXPIRED_AT_ONCE_MAX) {
                *ret_n = n;
                return true; /* this slot again */
            }
            ret_change[n++] = ended(r, x, HF_SIP_CHANGE_EXPIRED);
        }
    }
    *ret_n = n;
    return r->tick_s < now_s;
}

void hf_sip_registrar_fail(struct hf_sip_registrar *r, const struct hf_sip_binding *b,
                           struct hf_sip_change *ret_change)
{
    bury(r);
    *ret_change = ended(r, of(b), HF_SIP_CHANGE_FAILED);
}

hf_time hf_sip_registrar_deadline(const struct hf_sip_registrar *r)
{
    return r->n ? HF_S(r->tick_s + 1) : HF_NEVER;
}

/* --- stored ones --- */

void hf_sip_binding_dump(const struct hf_sip_binding *b, hf_time now,
                         struct hf_sip_stored_binding *ret_stored)
{
    *ret_stored = (struct hf_sip_stored_binding){
        .aor = hf_sip_binding_aor(b),
        .uri = hf_sip_binding_uri(b),
        .params = hf_sip_binding_params(b),
        .call_id = hf_sip_binding_call_id(b),
        .path = hf_sip_binding_path(b),
        .cseq = b->cseq,
        .life_s = b->life_s,
        .left_s = hf_sip_binding_left_s(b, now),
        .outbound = b->outbound,
    };
}

static int check_stored(const struct hf_sip_stored_binding *s, struct hf_sip_uri *ret_uri,
                        struct parts *ret_parts)
{
    char text[HF_SIP_BINDING_TEXT_MAX];
    struct hf_wr w;
    struct parts p = {.uri = s->uri,
                      .call_id = s->call_id,
                      .path = s->path,
                      .cseq = s->cseq,
                      .outbound = s->outbound};
    hf_wr_init(&w, text, sizeof(text));
    if (s->aor.n == 0 || s->aor.n > HF_SIP_AOR_MAX || s->call_id.n == 0 ||
        s->uri.n + s->params.n + s->path.n + s->call_id.n > HF_SIP_BINDING_TEXT_MAX ||
        hf_sip_uri_parse(s->uri, ret_uri) == -HF_EMALF || normalise(s->params, &w) ||
        !hf_slice_eq(s->params, hf_slice(text, hf_wr_len(&w))) || take_params(s->params, &p) ||
        has_controls(s->path) || !hf_sip_all(s->call_id, HF_SIP_C_WORD | HF_SIP_C_VALUE) ||
        (s->outbound && (!p.reg_id || !p.instance.n))) {
        return -HF_EVALUE;
    }
    *ret_parts = p;
    return 0;
}

int hf_sip_registrar_load(struct hf_sip_registrar *r, const struct hf_sip_stored_binding *s,
                          hf_time now)
{
    struct parts p;
    struct hf_sip_uri uri;
    int rc = check_stored(s, &uri, &p);
    if (rc || s->left_s == 0) {
        return rc;
    }
    bury(r);
    struct user *u = hf_map_get(&r->users, s->aor);
    struct binding *old = find_same(u, &p, &uri);
    if (old &&
        !(hf_slice_eq(hf_sip_binding_call_id(&old->b), s->call_id) && s->cseq > old->b.cseq)) {
        return 0;
    }
    if (!old && (r->n >= r->limits.bindings_max || (u && u->n >= HF_SIP_CONTACTS_MAX))) {
        return -HF_EFULL;
    }
    struct binding *x = make_binding(r, &p);
    if (!x) {
        return -ENOMEM;
    }
    u = u ? u : make_user(r, s->aor);
    if (!u) {
        free_binding(r, x);
        return -ENOMEM;
    }
    if (old) {
        kill(r, old);
    }
    add(r, u, x);
    x->b.life_s = s->life_s;
    set_end(r, x, now + HF_S((hf_time)s->left_s));
    x->b.stored_until = x->b.expires;
    return 0;
}

size_t hf_sip_registrar_forget(struct hf_sip_registrar *r, struct hf_slice aor)
{
    bury(r);
    struct user *u = hf_map_get(&r->users, aor);
    size_t n = 0;
    while (u && u->first) {
        kill(r, of(u->first));
        n++;
    }
    if (u) {
        leave_if_empty(r, u);
    }
    bury(r);
    return n;
}

const struct hf_sip_binding *hf_sip_registrar_next(const struct hf_sip_registrar *r, size_t *pos)
{
    const struct user *u = hf_map_next(&r->users, pos);
    return u ? u->first : NULL;
}

size_t hf_sip_registrar_bindings(const struct hf_sip_registrar *r)
{
    return r->n;
}

size_t hf_sip_registrar_aors(const struct hf_sip_registrar *r)
{
    return r->users.n;
}

size_t hf_sip_registrar_bytes(const struct hf_sip_registrar *r)
{
    return r->bytes + r->users.n_slots * sizeof(struct hf_map_slot);
}
