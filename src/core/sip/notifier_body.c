/* What watchers see: contacts as they are, as they ended, and as they were when the AoR left. */
#include <string.h>

#include "base/hash.h"
#include "base/hex.h"
#include "base/list.h"
#include "base/mem.h"
#include "core/sip/notifier_impl.h"
#include "core/sip/pidf.h"
#include "core/sip/reginfo.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define ENDED_SHOWN_S 60 /* so long contacts are shown after their end */
#define ID_N 16

/* A contact that is no more. */
struct ended {
    struct hf_list list;
    hf_time at;
    enum hf_sip_reg_event event;
    uint32_t cseq;
    uint16_t q;
    char id[ID_N];
    uint16_t n_uri, n_call_id;
    uint8_t text[]; /* URI, Call-ID */
};

/* What is to be told of an AoR that the registrar no longer knows; only while it is watched. */
struct past {
    struct hf_list ended; /* the latest first */
    uint32_t n_ended;
    bool left;              /* it is another server's; this is how it was at last */
    struct hf_buf presence; /* left: the document */
    uint16_t n;
    uint8_t aor[];
};

/* ---- what the registrar no longer knows ---- */

/* The same for a binding as long as it lives, at each of its homes. */
static void contact_id(const struct hf_sip_binding *b, char ret_id[ID_N])
{
    uint64_t h = b->outbound ? hf_hash(hf_sip_binding_instance(b), b->reg_id)
                             : hf_hash(hf_sip_binding_uri(b), 0);
    hf_hex_put_u64(h, ID_N, ret_id);
}

static struct past *past_of(const struct hf_sip_notifier *n, struct hf_slice aor)
{
    return hf_map_get(&n->past, aor);
}

static struct past *past_for(struct hf_sip_notifier *n, struct hf_slice aor)
{
    struct past *p = past_of(n, aor);
    if (p != NULL) {
        return p;
    }
    p = hf_alloc(sizeof(*p) + aor.n);
    if (p == NULL) {
        return NULL;
    }
    hf_list_init(&p->ended);
    hf_buf_init(&p->presence, HF_SIP_NOTIFY_BODY_MAX);
    p->n = (uint16_t)aor.n;
    memcpy(p->aor, aor.p, aor.n);
    if (hf_map_put(&n->past, hf_slice(p->aor, p->n), p) < 0) {
        hf_free(p);
        return NULL;
    }
    return p;
}

static void ended_drop(struct past *p, struct ended *e)
{
    hf_list_unlink(&e->list);
    p->n_ended--;
    hf_free(e);
}

static void past_free(struct past *p)
{
    HF_LIST_FOREACH (l, &p->ended) {
        ended_drop(p, HF_CONTAINER_OF(l, struct ended, list));
    }
    hf_buf_fini(&p->presence);
    hf_free(p);
}

void hf_sip_notifier_past_drop(struct hf_sip_notifier *n, struct hf_slice aor)
{
    struct past *p = hf_map_remove(&n->past, aor);
    if (p != NULL) {
        past_free(p);
    }
}

void hf_sip_notifier_is_ours(struct hf_sip_notifier *n, struct hf_slice aor)
{
    const struct past *p = past_of(n, aor);
    if (p != NULL && p->left) {
        hf_sip_notifier_past_drop(n, aor);
    }
}

/* Without memory for it, it is missing in the documents, which says the same. */
static void add_ended(struct past *p, const struct hf_sip_binding *b, enum hf_sip_reg_event event,
                      hf_time now)
{
    struct hf_slice uri = hf_sip_binding_uri(b), call_id = hf_sip_binding_call_id(b);
    struct ended *e = hf_alloc(sizeof(*e) + uri.n + call_id.n);
    if (e == NULL) {
        return;
    }
    e->at = now;
    e->event = event;
    e->cseq = b->cseq;
    e->q = b->q;
    e->n_uri = (uint16_t)uri.n;
    e->n_call_id = (uint16_t)call_id.n;
    contact_id(b, e->id);
    memcpy(e->text, uri.p, uri.n);
    if (call_id.n > 0) {
        memcpy(e->text + uri.n, call_id.p, call_id.n);
    }
    hf_list_init(&e->list);
    hf_list_insert(p->ended.next, &e->list);
    if (++p->n_ended > HF_SIP_ENDED_MAX) {
        ended_drop(p, HF_CONTAINER_OF(p->ended.prev, struct ended, list));
    }
}

static uint16_t q_shown(uint16_t q)
{
    return q < 1000 ? q : 1001; /* 1 is what none says, too */
}

static struct hf_sip_reg_contact from_binding(const struct hf_sip_binding *b, char id[ID_N],
                                              bool deactivated, hf_time now)
{
    uint32_t left_s = hf_sip_binding_left_s(b, now);
    contact_id(b, id);
    return (struct hf_sip_reg_contact){
        .id = hf_slice(id, ID_N),
        .uri = hf_sip_binding_uri(b),
        .event = deactivated   ? HF_SIP_REG_DEACTIVATED
                 : left_s == 0 ? HF_SIP_REG_EXPIRED
                               : HF_SIP_REG_REGISTERED,
        .expires_s = left_s,
        .q = q_shown(b->q),
        .call_id = hf_sip_binding_call_id(b),
        .cseq = b->cseq,
    };
}

static struct hf_sip_reg_contact from_ended(const struct ended *e)
{
    return (struct hf_sip_reg_contact){
        .id = hf_slice(e->id, ID_N),
        .uri = hf_slice(e->text, e->n_uri),
        .event = e->event,
        .q = q_shown(e->q),
        .call_id = hf_slice(e->text + e->n_uri, e->n_call_id),
        .cseq = e->cseq,
    };
}

/* RFC 3680 5: all contacts as they are, and those that ended lately. */
static void write_reg(struct hf_sip_notifier *n, const struct hf_sip_watch_out *o, hf_time now)
{
    enum { MAX = HF_SIP_CONTACTS_MAX + HF_SIP_ENDED_MAX };
    struct hf_sip_reg_contact c[MAX];
    char id[HF_SIP_CONTACTS_MAX][ID_N];
    size_t k = 0;
    bool deactivated = o->reason == HF_SIP_SUB_REASON_DEACTIVATED;
    struct past *p = past_of(n, o->aor);
    const struct hf_sip_binding *b = p != NULL && p->left ? NULL : n->ops.bindings(n->ctx, o->aor);
    for (; b != NULL && k < HF_SIP_CONTACTS_MAX; b = b->next, k++) {
        c[k] = from_binding(b, id[k], deactivated, now);
    }
    size_t n_bound = k;
    for (struct hf_list *l = p != NULL ? p->ended.next : NULL;
         l != NULL && l != &p->ended && k < MAX; l = l->next) {
        const struct ended *e = HF_CONTAINER_OF(l, struct ended, list);
        bool there = !p->left && e->at + HF_S(ENDED_SHOWN_S) < now; /* long enough */
        for (size_t i = 0; i < n_bound && !there; i++) {
            there = hf_slice_eq(c[i].id, hf_slice(e->id, ID_N));
        }
        if (!there) {
            c[k++] = from_ended(e);
        }
    }
    hf_sip_reginfo_write(&n->body, o->version, o->aor, c, k);
}

static bool reachable(const struct hf_sip_notifier *n, struct hf_slice aor, hf_time now)
{
    const struct hf_sip_binding *b = n->ops.bindings(n->ctx, aor);
    while (b != NULL && hf_sip_binding_left_s(b, now) == 0) {
        b = b->next;
    }
    return b != NULL;
}

static void write_presence(struct hf_sip_notifier *n, const struct hf_sip_watch_out *o, hf_time now)
{
    const struct past *p = past_of(n, o->aor);
    if (p != NULL && p->left) {
        hf_buf_add(&n->body, hf_buf_slice(&p->presence));
    } else {
        hf_sip_presence_write(n->presence, o->aor, reachable(n, o->aor, now), &n->body);
    }
}

void hf_sip_notifier_past_fini(struct hf_sip_notifier *n)
{
    size_t pos = 0;
    for (struct past *p; (p = hf_map_next(&n->past, &pos)) != NULL;) {
        past_free(p);
    }
    hf_map_fini(&n->past);
}

void hf_sip_notifier_note_ended(struct hf_sip_notifier *n, struct hf_slice aor,
                                const struct hf_sip_change *c, hf_time now)
{
    const struct hf_sip_binding *b = NULL;
    enum hf_sip_reg_event event = HF_SIP_REG_UNREGISTERED;
    if (hf_sip_change_ends(c->kind)) {
        b = c->binding;
        event = c->kind == HF_SIP_CHANGE_EXPIRED  ? HF_SIP_REG_EXPIRED
                : c->kind == HF_SIP_CHANGE_FAILED ? HF_SIP_REG_DEACTIVATED
                                                  : event;
    } else if (c->replaced != NULL && c->replaced != c->binding) {
        char was[ID_N], is[ID_N];
        contact_id(c->replaced, was);
        contact_id(c->binding, is);
        b = memcmp(was, is, ID_N) != 0 ? c->replaced : NULL; /* written differently */
    }
    struct past *p = b != NULL ? past_for(n, aor) : NULL;
    if (p != NULL) {
        add_ended(p, b, event, now);
    }
}

void hf_sip_notifier_remember(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now)
{
    struct past *p = past_for(n, aor);
    if (p == NULL || p->left) {
        return;
    }
    HF_LIST_FOREACH (l, &p->ended) {
        ended_drop(p, HF_CONTAINER_OF(l, struct ended, list));
    }
    const struct hf_sip_binding *b = n->ops.bindings(n->ctx, aor);
    for (; b != NULL; b = b->next) {
        add_ended(p, b, HF_SIP_REG_DEACTIVATED, now);
    }
    hf_sip_presence_write(n->presence, aor, reachable(n, aor, now), &p->presence);
    p->left = true;
}

/* ---- bodies ---- */

static bool has_body(const struct hf_sip_watch_out *o)
{
    return o->shown && o->reason != HF_SIP_SUB_REASON_REJECTED &&
           o->reason != HF_SIP_SUB_REASON_NORESOURCE;
}

struct hf_slice hf_sip_notifier_body(struct hf_sip_notifier *n, const struct hf_sip_watch_out *o,
                                     hf_time now)
{
    struct hf_slice type = {NULL, 0};
    hf_buf_clear(&n->body);
    if (has_body(o) && o->package == HF_SIP_PACKAGE_REG) {
        write_reg(n, o, now);
        type = S("application/reginfo+xml");
    } else if (has_body(o)) {
        write_presence(n, o, now);
        type = S(HF_SIP_PIDF_TYPE);
    }
    if (n->body.err != 0 || n->body.n == 0) { /* what is too large, or gone, is not told */
        hf_buf_clear(&n->body);
        type = hf_slice(NULL, 0);
    }
    return type;
}
