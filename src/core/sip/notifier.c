/* Subscriptions and publications in messages: what is answered, what is sent, what is kept. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "core/sip/fields.h"
#include "core/sip/notifier_impl.h"
#include "core/sip/pidf.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define PUBLICATION (1ull << 63) /* in cookies of KEEP */
#define TAG_N 16

/* A request that is being answered. */
struct request {
    struct hf_sip_notifier *n;
    const struct hf_sip_msg *m;
    const struct hf_sip_flow *from;
    struct hf_slice aor, watcher;
    hf_time now;
    char tag[TAG_N]; /* of this transaction */
    struct hf_slice to_tag;
    uint64_t key; /* of the KEEP for which the answer waits; 0: for none */
    bool fresh;   /* ... which is the first */
};

/* ---- NOTIFY ---- */

static void put(struct hf_wr *w, const char *s)
{
    hf_wr_bytes(w, hf_slice_str(s));
}

/* What was written since the mark. */
static struct hf_slice since(const struct hf_wr *w, size_t mark)
{
    return hf_slice(w->base + mark, hf_wr_len(w) - mark);
}

static struct hf_slice put_party(struct hf_wr *w, struct hf_slice uri, struct hf_slice tag)
{
    size_t mark = hf_wr_len(w);
    hf_wr_bytes(w, uri);
    if (tag.n > 0) {
        put(w, ";tag=");
        hf_wr_bytes(w, tag);
    }
    return since(w, mark);
}

/* Event and Subscription-State (RFC 6665 4.1.3). */
static struct hf_slice put_state(struct hf_wr *w, const struct hf_sip_watch_out *o)
{
    size_t mark = hf_wr_len(w);
    hf_sip_put_name(w, HF_SIP_H_EVENT);
    put(w, hf_sip_package_name(o->package));
    if (o->dialog.event_id.n > 0) {
        put(w, ";id=");
        hf_wr_bytes(w, o->dialog.event_id);
    }
    hf_sip_put_eol(w);
    hf_sip_put_name(w, HF_SIP_H_SUBSCRIPTION_STATE);
    put(w, hf_sip_sub_state_name(o->state));
    if (o->state == HF_SIP_SUB_ENDING) {
        put(w, ";reason=");
        put(w, hf_sip_sub_reason_name(o->reason));
    } else {
        put(w, ";expires=");
        hf_sip_put_u64(w, o->expires_s);
    }
    hf_sip_put_eol(w);
    return since(w, mark);
}

/* RFC 3261 12.2.1.1: the route set is followed; if its first is a strict router (without lr), that
 * is the Request-URI and the target goes last. */
static struct hf_slice route(struct hf_wr *w, const struct hf_sip_dialog *d,
                             struct hf_sip_request *request)
{
    struct hf_sip_cur c = hf_sip_cur(d->route);
    struct hf_sip_address first;
    struct hf_slice lr;
    request->uri = d->target;
    request->route = d->route;
    if (d->route.n == 0 || hf_sip_address_parse(&c, false, &first) < 0) {
        request->route = hf_slice(NULL, 0);
        return d->target;
    }
    if (hf_sip_uri_param(&first.uri, "lr", &lr)) {
        return first.uri.text;
    }
    size_t mark = hf_wr_len(w);
    if (hf_sip_separator(&c, ',')) {
        hf_wr_bytes(w, hf_sip_left(&c));
        put(w, ", ");
    }
    put(w, "<");
    hf_wr_bytes(w, d->target);
    put(w, ">");
    request->route = since(w, mark);
    request->uri = first.uri.text;
    return first.uri.text;
}

/* Nothing in it that would end a line: what is stored is not believed to be ours. */
static bool is_clean(const struct hf_sip_dialog *d)
{
    const struct hf_slice s[] = {d->call_id,    d->local_tag, d->remote_tag, d->local_uri,
                                 d->remote_uri, d->target,    d->route,      d->event_id};
    for (size_t i = 0; i < HF_ARRAY_LEN(s); i++) {
        for (size_t k = 0; k < s[i].n; k++) {
            if (hf_sip_class[s[i].p[k]] & HF_SIP_C_CONTROL) {
                return false;
            }
        }
    }
    return true;
}

static void notify(struct hf_sip_notifier *n, const struct hf_sip_watch_out *o, hf_time now)
{
    struct hf_wr w;
    struct hf_slice type = hf_sip_notifier_body(n, o, now);
    const struct hf_sip_dialog *d = &o->dialog;
    uint64_t cookie = (uint64_t)o->sub << 32 | o->cseq;
    hf_wr_init(&w, n->text, sizeof(n->text));
    struct hf_sip_request request = {
        .method = S("NOTIFY"),
        .from = put_party(&w, d->local_uri, d->local_tag),
        .to = put_party(&w, d->remote_uri, d->remote_tag),
        .call_id = d->call_id,
        .cseq = o->cseq,
        .max_forwards = 70,
        .contact = n->conf.contact,
    };
    struct hf_slice more = put_state(&w, o), next_hop = route(&w, d, &request);
    if (w.err != 0 || !is_clean(d)) { /* a dialog that no message can be written of */
        hf_sip_watch_answered(n->watch, o->sub, o->cseq, 513, 0, now);
        return;
    }
    n->ops.notify(n->ctx, cookie, next_hop, &request, more, type, hf_buf_slice(&n->body));
}

/* ---- what is kept ---- */

static uint64_t keep_cookie(struct hf_sip_notifier *n, uint64_t key)
{
    return key | (uint64_t)(++n->n_keeps & INT32_MAX) << 32;
}

static struct hf_slice key_of(const struct hf_sip_dialog *d, char ret_key[HF_SIP_AOR_MAX])
{
    int n = snprintf(ret_key, HF_SIP_AOR_MAX, "%.*s",
                     (int)(d->local_tag.n < 128 ? d->local_tag.n : 128),
                     d->local_tag.n > 0 ? (const char *)d->local_tag.p : "");
    if (d->event_id.n > 0) {
        n += snprintf(ret_key + n, HF_SIP_AOR_MAX - (size_t)n, "-%016llx",
                      (unsigned long long)hf_hash(d->event_id, 0));
    }
    return hf_slice(ret_key, (size_t)n);
}

static void keep(struct hf_sip_notifier *n, const struct hf_sip_watch_out *o, hf_time now)
{
    char key[HF_SIP_AOR_MAX];
    struct hf_wr w;
    struct hf_sip_op op = {
        .kind = o->kind == HF_SIP_WATCH_STORE ? HF_SIP_OP_KEEP : HF_SIP_OP_DROP,
        .aor = o->aor,
        .kept = {.what = 's', .key = key_of(&o->dialog, key)},
    };
    if (op.kind == HF_SIP_OP_KEEP) {
        hf_wr_init(&w, n->dump, sizeof(n->dump));
        if (!hf_sip_watch_dump(n->watch, o->sub, &w) || hf_wr_end(&w, &op.kept.data) < 0) {
            hf_sip_watch_stored(n->watch, o->sub, false, now);
            return;
        }
        op.cookie = keep_cookie(n, o->sub);
        op.epoch = n->ops.epoch(n->ctx, o->aor);
        op.kept.left_s = o->expires_s;
    }
    n->ops.store(n->ctx, &op);
}

static void keep_publication(struct hf_sip_notifier *n, const struct hf_sip_presence_out *o)
{
    struct hf_sip_op op = {
        .kind = o->kind == HF_SIP_PRESENCE_KEEP ? HF_SIP_OP_KEEP : HF_SIP_OP_DROP,
        .aor = o->aor,
        .kept = {.what = 'p', .key = o->key, .data = o->data, .left_s = o->left_s},
    };
    if (op.kind == HF_SIP_OP_KEEP) {
        op.cookie = keep_cookie(n, PUBLICATION | o->number);
        op.epoch = n->ops.epoch(n->ctx, o->aor);
    }
    n->ops.store(n->ctx, &op);
}

/* All that is due now. Called again from within, it leaves that to the one that runs. */
static void run(struct hf_sip_notifier *n, hf_time now)
{
    struct hf_sip_presence_out p;
    struct hf_sip_watch_out o;
    if (n->running) {
        return;
    }
    n->running = true;
    for (bool more = true; more;) {
        more = false;
        while (hf_sip_presence_next(n->presence, now, &p)) {
            if (p.kind == HF_SIP_PRESENCE_CHANGED) {
                hf_sip_watch_changed(n->watch, HF_SIP_PACKAGE_PRESENCE, p.aor, now);
            } else {
                keep_publication(n, &p);
            }
        }
        while (hf_sip_watch_next(n->watch, now, &o)) {
            more = true; /* the element may have called in */
            if (o.kind == HF_SIP_WATCH_NOTIFY) {
                notify(n, &o, now);
            } else {
                keep(n, &o, now);
            }
        }
    }
    n->running = false;
}

/* ---- answers ---- */

static struct hf_wr begin(struct request *r, uint16_t status, const char *reason)
{
    struct hf_wr w;
    hf_wr_init(&w, r->n->out, sizeof(r->n->out));
    if (hf_sip_begin_response(&w, r->m, status, hf_slice_str(reason), r->to_tag, &r->from->peer)) {
        w.err = w.err != 0 ? w.err : -HF_EMALF;
    }
    return w;
}

static void finish(struct request *r, struct hf_wr *w)
{
    struct hf_slice message;
    if (w->err != 0 || hf_sip_end(w, hf_slice(NULL, 0), hf_slice(NULL, 0), &message) != 0) {
        return;
    }
    if (r->key != 0) {
        r->n->ops.hold(r->n->ctx, r->key, r->fresh, r->from, message);
    } else {
        r->n->ops.reply(r->n->ctx, r->from, message);
    }
}

static void refuse(struct request *r, uint16_t status, const char *reason)
{
    struct hf_wr w = begin(r, status, reason);
    finish(r, &w);
}

static void refuse_with(struct request *r, uint16_t status, enum hf_sip_field_id id,
                        struct hf_slice value)
{
    struct hf_wr w = begin(r, status, "");
    hf_sip_put_field(&w, id, value);
    finish(r, &w);
}

static void refuse_number(struct request *r, uint16_t status, enum hf_sip_field_id id, uint32_t v)
{
    struct hf_wr w = begin(r, status, "");
    hf_sip_put_number(&w, id, v);
    finish(r, &w);
}

/* No room: come again, not all at once. */
static void refuse_for_now(struct request *r)
{
    refuse_number(r, 503, HF_SIP_H_RETRY_AFTER, 5 + (uint32_t)hf_prng_below(&r->n->prng, 16));
}

/* Extensions that must be understood: we have none here (RFC 3261 8.2.2.3). true: answered. */
static bool wants_too_much(struct request *r)
{
    static const char *const known[] = {NULL};
    struct hf_slice token;
    int rc = hf_sip_unknown_token(r->m, HF_SIP_H_REQUIRE, known, &token);
    if (rc == 1) {
        refuse_with(r, 420, HF_SIP_H_UNSUPPORTED, token);
    } else if (rc < 0) {
        refuse(r, 400, "Malformed Require");
    }
    return rc != 0;
}

/* ---- SUBSCRIBE ---- */

/* Does Accept have the package's type? Without Accept it does (RFC 6665 4.1.2.1). */
static bool accepts(const struct hf_sip_msg *m, enum hf_sip_package p)
{
    const char *subtype = p == HF_SIP_PACKAGE_REG ? "reginfo+xml" : "pidf+xml";
    struct hf_sip_walk w;
    struct hf_slice v;
    hf_sip_walk_begin(&w, m, HF_SIP_H_ACCEPT);
    while (hf_sip_walk_text(&w, &v) == 1) {
        struct hf_sip_cur c = hf_sip_cur(v);
        struct hf_slice type = hf_sip_span(&c, HF_SIP_C_TOKEN);
        struct hf_slice sub = hf_sip_separator(&c, '/') ? hf_sip_span(&c, HF_SIP_C_TOKEN) : S("");
        bool any = hf_slice_eq(sub, S("*"));
        if ((hf_sip_eq_str(type, "application") && (any || hf_sip_eq_str(sub, subtype))) ||
            (any && hf_slice_eq(type, S("*")))) {
            return true;
        }
    }
    return !hf_sip_has(m, HF_SIP_H_ACCEPT);
}

/* A body that we have to understand: we know none of SUBSCRIBE (RFC 3261 8.2.3). */
static bool has_foreign_body(const struct hf_sip_msg *m)
{
    struct hf_slice v;
    struct hf_sip_param handling;
    if (m->body.n == 0 || hf_sip_one(m, HF_SIP_H_CONTENT_DISPOSITION, &v) != 1) {
        return m->body.n > 0;
    }
    struct hf_sip_cur c = hf_sip_cur(v);
    (void)hf_sip_span(&c, HF_SIP_C_TOKEN);
    return !hf_sip_param_get(hf_sip_left(&c), "handling", &handling) ||
           !hf_sip_eq_str(handling.value, "optional");
}

/* All Record-Route values, with commas, on one line; false: one of them is nothing to route by. */
static bool record_route(const struct hf_sip_msg *m, struct hf_wr *w, struct hf_slice *ret_route)
{
    struct hf_sip_walk walk;
    struct hf_sip_address a;
    size_t mark = hf_wr_len(w);
    int rc;
    hf_sip_walk_begin(&walk, m, HF_SIP_H_RECORD_ROUTE);
    while ((rc = hf_sip_walk_address(&walk, &a)) == 1 && a.uri.scheme <= HF_SIP_SCHEME_SIPS) {
        if (hf_wr_len(w) > mark) {
            put(w, ", ");
        }
        for (size_t i = 0; i < a.text.n; i++) {
            if (a.text.p[i] != '\r' && a.text.p[i] != '\n') { /* a fold has white space behind it */
                hf_wr_u8(w, a.text.p[i]);
            }
        }
    }
    *ret_route = since(w, mark);
    return rc == 0;
}

/* The URI alone of a From or To, in brackets. */
static struct hf_slice bracketed(struct hf_slice uri, struct hf_wr *w)
{
    size_t mark = hf_wr_len(w);
    put(w, "<");
    hf_wr_bytes(w, uri);
    put(w, ">");
    return since(w, mark);
}

/* The one Contact: 1; 0: there is none; -HF_EMALF: several, or nothing that a request can go to. */
static int contact(const struct hf_sip_msg *m, struct hf_slice *ret_uri)
{
    struct hf_sip_walk w;
    struct hf_sip_address a, another;
    hf_sip_walk_begin(&w, m, HF_SIP_H_CONTACT);
    int rc = hf_sip_walk_address(&w, &a);
    if (rc != 1) {
        return rc;
    }
    if (a.star || a.uri.scheme > HF_SIP_SCHEME_SIPS || hf_sip_walk_address(&w, &another) != 0) {
        return -HF_EMALF;
    }
    *ret_uri = a.uri.text;
    return 1;
}

/* What finds a dialog; false: its names are none (RFC 3261 25.1, RFC 6665 8.4: tokens). */
static bool names(const struct hf_sip_msg *m, struct hf_slice local_tag,
                  struct hf_sip_dialog *ret_dialog)
{
    struct hf_sip_event e = {.id = {NULL, 0}};
    *ret_dialog = (struct hf_sip_dialog){
        .call_id = m->call_id,
        .local_tag = local_tag,
        .remote_tag = hf_sip_address_tag(&m->from),
    };
    int rc = hf_sip_event(m, &e);
    ret_dialog->event_id = e.id;
    return rc >= 0 && hf_sip_all(e.id, HF_SIP_C_VALUE) &&
           hf_sip_all(ret_dialog->remote_tag, HF_SIP_C_VALUE);
}

static void answer(struct request *r, const struct hf_sip_subscribed *a, bool in_dialog)
{
    switch (a->status) {
    case 200: {
        struct hf_wr w = begin(r, 200, "");
        if (!in_dialog) {
            hf_sip_put_copies(&w, r->m, HF_SIP_H_RECORD_ROUTE);
        }
        hf_sip_put_field(&w, HF_SIP_H_CONTACT, r->n->conf.contact);
        hf_sip_put_number(&w, HF_SIP_H_EXPIRES, a->expires_s);
        finish(r, &w);
        break;
    }
    case 423:
        refuse_number(r, 423, HF_SIP_H_MIN_EXPIRES, a->expires_s);
        break;
    case 503:
        refuse_for_now(r);
        break;
    default:
        refuse(r, (uint16_t)a->status, "");
        break;
    }
}

/* The rest of the dialog, and whether it may be. true: go on; false: answered. */
static bool admit(struct request *r, struct hf_sip_subscribe *in, struct hf_wr *w)
{
    struct hf_sip_notifier *n = r->n;
    const struct hf_sip_msg *m = r->m;
    struct hf_sip_watch_out there;
    uint32_t sub = hf_sip_watch_find(n->watch, &in->dialog);
    int rc = contact(m, &in->dialog.target);
    bool known = hf_sip_watch_get(n->watch, sub, r->now, &there);
    if (rc < 0 || (rc == 0 && !in->in_dialog)) {
        refuse(r, 400, rc < 0 ? "Malformed Contact" : "Missing Contact");
        return false;
    }
    if (known) { /* also a retransmission of the one that began it */
        in->in_dialog = true;
        in->aor = there.aor;
        in->dialog.target = rc == 1 ? in->dialog.target : there.dialog.target;
        if (!hf_slice_eq(there.dialog.watcher, r->watcher)) {
            refuse(r, 403, "");
            return false;
        }
        return true;
    }
    hf_sip_notifier_is_ours(n, r->aor);
    int may = in->in_dialog || hf_slice_eq(r->watcher, r->aor)
                  ? 1
                  : n->ops.may_watch(n->ctx, r->watcher, in->package, r->aor);
    if (may == 0) {
        refuse(r, 403, "");
        return false;
    }
    in->authorised = may > 0;
    in->dialog.local_uri = bracketed(m->to.uri.text, w);
    in->dialog.remote_uri = bracketed(m->from.uri.text, w);
    in->dialog.watcher = r->watcher;
    if (!record_route(m, w, &in->dialog.route)) {
        refuse(r, 400, "Malformed Record-Route");
    } else if (w->err != 0) {
        refuse(r, 513, "");
    } else {
        return true;
    }
    return false;
}

static void subscribe(struct request *r)
{
    const struct hf_sip_msg *m = r->m;
    struct hf_sip_event e = {.id = {NULL, 0}};
    int rc = hf_sip_event(m, &e);
    struct hf_sip_subscribe in = {.aor = r->aor, .cseq = m->cseq};
    in.package = rc == 1 ? hf_sip_package_of(e.package) : HF_SIP_PACKAGE_COUNT_;
    if (rc < 0) {
        refuse(r, 400, "Malformed Event");
        return;
    }
    if (in.package == HF_SIP_PACKAGE_COUNT_) {
        refuse_with(r, 489, HF_SIP_H_ALLOW_EVENTS, S("reg, presence"));
        return;
    }
    if (wants_too_much(r)) {
        return;
    }
    if (has_foreign_body(m)) {
        refuse_with(r, 415, HF_SIP_H_ACCEPT, S(""));
        return;
    }
    if (!accepts(m, in.package)) {
        refuse(r, 406, "");
        return;
    }
    rc = hf_sip_expires(m, HF_SIP_H_EXPIRES, &in.expires_s);
    if (rc < 0) {
        refuse(r, 400, "Header Field Repeated");
        return;
    }
    in.has_expires = rc == 1;
    struct hf_slice to_tag = hf_sip_address_tag(&m->to);
    bool had_tag = in.in_dialog = to_tag.n > 0;
    struct hf_wr w;
    hf_wr_init(&w, r->n->text, sizeof(r->n->text));
    struct hf_sip_subscribed a;
    if (!names(m, had_tag ? to_tag : r->to_tag, &in.dialog)) {
        refuse(r, 400, "Malformed Dialog");
    } else if (admit(r, &in, &w)) {
        r->fresh = !in.in_dialog;
        hf_sip_watch_subscribe(r->n->watch, &in, r->now, &a);
        r->key = a.stores ? a.sub : 0;
        answer(r, &a, had_tag);
    }
}

bool hf_sip_notifier_has_dialog(const struct hf_sip_notifier *n, const struct hf_sip_msg *m)
{
    struct hf_sip_dialog d;
    struct hf_slice tag = hf_sip_address_tag(&m->to);
    return tag.n > 0 && names(m, tag, &d) && hf_sip_watch_find(n->watch, &d) != 0;
}

/* ---- PUBLISH ---- */

static bool is_pidf(const struct hf_sip_msg *m)
{
    struct hf_sip_type t;
    return hf_sip_content_type(m, &t) == 1 && hf_sip_eq_str(t.type, "application") &&
           hf_sip_eq_str(t.subtype, "pidf+xml");
}

/* May it be taken at all (RFC 3903 6, steps 1 to 3, 5)? true: go on; false: answered. */
static bool admit_publish(struct request *r)
{
    const struct hf_sip_msg *m = r->m;
    struct hf_sip_event e;
    int rc = hf_sip_event(m, &e);
    if (rc < 0) {
        refuse(r, 400, "Malformed Event");
    } else if (rc == 0 || hf_sip_package_of(e.package) != HF_SIP_PACKAGE_PRESENCE) {
        refuse_with(r, 489, HF_SIP_H_ALLOW_EVENTS, S("presence"));
    } else if (wants_too_much(r)) {
        return false;
    } else if (!hf_slice_eq(r->watcher, r->aor)) {
        refuse(r, 403, "");
    } else if (hf_sip_has(m, HF_SIP_H_CONTENT_ENCODING)) {
        refuse_with(r, 415, HF_SIP_H_ACCEPT_ENCODING, S("identity"));
    } else if (m->body.n > r->n->conf.body_max) {
        refuse(r, 413, "");
    } else if (m->body.n > 0 && !is_pidf(m)) {
        refuse_with(r, 415, HF_SIP_H_ACCEPT, S(HF_SIP_PIDF_TYPE));
    } else {
        return true;
    }
    return false;
}

static void publish(struct request *r)
{
    const struct hf_sip_msg *m = r->m;
    struct hf_sip_publish in = {
        .aor = r->aor, .transaction = hf_slice(r->tag, TAG_N), .body = m->body};
    if (!admit_publish(r)) {
        return;
    }
    int rc = hf_sip_expires(m, HF_SIP_H_EXPIRES, &in.expires_s);
    if (rc < 0 || hf_sip_etag(m, HF_SIP_H_SIP_IF_MATCH, &in.etag) < 0) {
        refuse(r, 400, rc < 0 ? "Header Field Repeated" : "Malformed SIP-If-Match");
        return;
    }
    in.has_expires = rc == 1;
    struct hf_sip_published p;
    hf_sip_presence_publish(r->n->presence, &in, r->now, &p);
    r->key = p.stores != 0 ? PUBLICATION | p.stores : 0;
    r->fresh = true;
    switch (p.status) {
    case 200: {
        struct hf_wr w = begin(r, 200, "");
        hf_sip_put_field(&w, HF_SIP_H_SIP_ETAG, hf_slice_str(p.etag));
        hf_sip_put_number(&w, HF_SIP_H_EXPIRES, p.expires_s);
        finish(r, &w);
        break;
    }
    case 400:
        refuse(r, 400, m->body.n > 0 ? "Malformed Presence Document" : "Missing Body");
        break;
    case 423:
        refuse_number(r, 423, HF_SIP_H_MIN_EXPIRES, p.expires_s);
        break;
    case 503:
        refuse_for_now(r);
        break;
    default:
        refuse(r, (uint16_t)p.status, "");
        break;
    }
}

/* ---- what happens ---- */

/* Who asks: as authenticated, else as he says. */
static struct hf_slice who(const struct hf_sip_msg *m, struct hf_slice user,
                           char text[HF_SIP_AOR_MAX])
{
    struct hf_wr w;
    struct hf_slice aor;
    hf_wr_init(&w, text, HF_SIP_AOR_MAX);
    if (user.n > 0 || hf_sip_aor(&m->from.uri, &w) < 0 || hf_wr_end(&w, &aor) < 0) {
        return user;
    }
    return aor;
}

void hf_sip_notifier_request(struct hf_sip_notifier *n, const struct hf_sip_msg *m,
                             const struct hf_sip_flow *from, struct hf_slice aor,
                             struct hf_slice user, hf_time now)
{
    char text[HF_SIP_AOR_MAX];
    struct request r = {
        .n = n, .m = m, .from = from, .aor = aor, .watcher = who(m, user, text), .now = now};
    hf_sip_stateless_tag(m, n->conf.seed, r.tag);
    r.to_tag = hf_slice(r.tag, TAG_N);
    if (m->method == HF_SIP_SUBSCRIBE) {
        subscribe(&r);
    } else if (m->method == HF_SIP_PUBLISH) {
        publish(&r);
    }
    run(n, now);
}

/* What it was like counts as long as somebody watches it. */
static void past_settle(struct hf_sip_notifier *n, struct hf_slice aor)
{
    if (aor.n > 0 && hf_sip_watch_subs(n->watch, aor, NULL, 0) == 0) {
        hf_sip_notifier_past_drop(n, aor);
    }
}

void hf_sip_notifier_answered(struct hf_sip_notifier *n, uint64_t cookie, uint16_t status,
                              const struct hf_sip_msg *response, hf_time now)
{
    struct hf_sip_watch_out o;
    uint32_t sub = (uint32_t)(cookie >> 32), retry_after = 0;
    uint8_t aor[HF_SIP_AOR_MAX];
    size_t n_aor = 0;
    if (hf_sip_watch_get(n->watch, sub, now, &o)) {
        n_aor = o.aor.n;
        memcpy(aor, o.aor.p, n_aor);
    }
    if (response != NULL && hf_sip_retry_after_s(response, &retry_after) != 1) {
        retry_after = 0;
    }
    if (response == NULL && status == 503) { /* RFC 3261 8.1.3.1: the transport's */
        hf_sip_watch_unsent(n->watch, sub, (uint32_t)cookie, now);
    } else {
        hf_sip_watch_answered(n->watch, sub, (uint32_t)cookie, status, retry_after, now);
    }
    past_settle(n, hf_slice(aor, n_aor));
    run(n, now);
}

void hf_sip_notifier_changed(struct hf_sip_notifier *n, struct hf_slice aor,
                             const struct hf_sip_change *change, size_t n_changes, hf_time now)
{
    bool came_or_went = false;
    hf_sip_notifier_is_ours(n, aor);
    if (n_changes == 0 || hf_sip_watch_subs(n->watch, aor, NULL, 0) == 0) {
        return;
    }
    for (size_t i = 0; i < n_changes; i++) {
        hf_sip_notifier_note_ended(n, aor, &change[i], now);
        came_or_went |= change[i].kind != HF_SIP_CHANGE_REFRESHED;
    }
    hf_sip_watch_changed(n->watch, HF_SIP_PACKAGE_REG, aor, now);
    if (came_or_went && hf_sip_presence_of(n->presence, aor) == 0) {
        hf_sip_watch_changed(n->watch, HF_SIP_PACKAGE_PRESENCE, aor, now);
    }
    run(n, now);
}

static void decide(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now)
{
    uint32_t sub[256];
    size_t k = hf_sip_watch_subs(n->watch, aor, sub, HF_ARRAY_LEN(sub));
    k = k < HF_ARRAY_LEN(sub) ? k : HF_ARRAY_LEN(sub);
    for (size_t i = 0; i < k; i++) {
        struct hf_sip_watch_out o;
        if (!hf_sip_watch_get(n->watch, sub[i], now, &o) || o.state != HF_SIP_SUB_PENDING) {
            continue;
        }
        int may = n->ops.may_watch(n->ctx, o.dialog.watcher, o.package, aor);
        if (may >= 0) {
            hf_sip_watch_authorise(n->watch, sub[i], may > 0, now);
        }
    }
}

void hf_sip_notifier_decided(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now)
{
    decide(n, aor, now);
    run(n, now);
}

void hf_sip_notifier_left(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now)
{
    if (hf_sip_watch_subs(n->watch, aor, NULL, 0) > 0) {
        hf_sip_notifier_remember(n, aor, now);
        hf_sip_watch_left(n->watch, aor, now);
    }
    hf_sip_presence_forget(n->presence, aor);
    run(n, now);
}

void hf_sip_notifier_gone(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now)
{
    hf_sip_watch_gone(n->watch, aor, now);
    hf_sip_presence_gone(n->presence, aor);
    run(n, now);
}

void hf_sip_notifier_load(struct hf_sip_notifier *n, struct hf_slice aor,
                          const struct hf_sip_kept *kept, size_t n_kept, enum hf_sip_former former,
                          hf_time now)
{
    hf_sip_notifier_is_ours(n, aor);
    for (size_t i = 0; i < n_kept; i++) { /* what can't be read is counted there */
        const struct hf_sip_kept *k = &kept[i];
        if (k->what == 'p') {
            (void)!hf_sip_presence_load(n->presence, aor, k->key, k->data, k->left_s, now);
        } else if (k->what == 's' && former != HF_SIP_FORMER_ALIVE) {
            (void)!hf_sip_watch_load(n->watch, k->data, HF_S(k->left_s),
                                     former == HF_SIP_FORMER_DEAD, now);
        }
    }
    decide(n, aor, now);
    run(n, now);
}

/* Is the row by which it was not stored the one that we go by now? */
static bool is_known(struct hf_sip_notifier *n, const struct hf_sip_result *r)
{
    return r->done == HF_SIP_OP_STALE && r->have_row &&
           n->ops.epoch(n->ctx, r->aor) == r->row.epoch;
}

bool hf_sip_notifier_stored(struct hf_sip_notifier *n, const struct hf_sip_result *r, hf_time now)
{
    bool ok = r->done == HF_SIP_OP_DONE, again = false;
    uint32_t number = (uint32_t)r->cookie;
    if (r->kind != HF_SIP_OP_KEEP || r->cookie == 0) {
        return false;
    }
    if (r->cookie & PUBLICATION) {
        again = is_known(n, r) && hf_sip_presence_store(n->presence, r->aor, number);
        if (!again) {
            hf_sip_presence_stored(n->presence, r->aor, number, ok, now);
        }
    } else {
        again = is_known(n, r) && hf_sip_watch_store(n->watch, number);
        if (!again) {
            hf_sip_watch_stored(n->watch, number, ok, now);
        }
    }
    run(n, now);
    return again;
}

void hf_sip_notifier_unask(struct hf_sip_notifier *n, uint64_t key)
{
    struct hf_sip_watch_out o;
    uint8_t aor[HF_SIP_AOR_MAX];
    if ((key & PUBLICATION) || !hf_sip_watch_get(n->watch, (uint32_t)key, 0, &o)) {
        return;
    }
    size_t n_aor = o.aor.n;
    memcpy(aor, o.aor.p, n_aor);
    hf_sip_watch_forget(n->watch, (uint32_t)key);
    past_settle(n, hf_slice(aor, n_aor));
}

void hf_sip_notifier_tick(struct hf_sip_notifier *n, hf_time now)
{
    run(n, now);
}

hf_time hf_sip_notifier_deadline(const struct hf_sip_notifier *n)
{
    return hf_time_min(hf_sip_watch_deadline(n->watch), hf_sip_presence_deadline(n->presence));
}

size_t hf_sip_notifier_count(const struct hf_sip_notifier *n)
{
    return hf_sip_watch_count(n->watch);
}

size_t hf_sip_notifier_publications(const struct hf_sip_notifier *n)
{
    return hf_sip_presence_count(n->presence);
}

const struct hf_sip_watch_counters *hf_sip_notifier_counters(const struct hf_sip_notifier *n)
{
    return hf_sip_watch_counters(n->watch);
}

const struct hf_sip_presence_counters *hf_sip_notifier_presence_counters(
    const struct hf_sip_notifier *n)
{
    return hf_sip_presence_counters(n->presence);
}

/* ---- its life ---- */

static int init(struct hf_sip_notifier *n, hf_time now)
{
    struct hf_sip_notifier_conf *c = &n->conf;
    const struct hf_sip_presence_conf presence = {
        .publications_max = c->publications_max,
        .expires_min_s = c->publish_min_s,
        .expires_max_s = c->publish_max_s,
        .seed = c->seed,
    };
    n->contact = hf_alloc(c->contact.n + 1);
    if (n->contact == NULL) {
        return -ENOMEM;
    }
    memcpy(n->contact, c->contact.p, c->contact.n);
    c->contact.p = (const uint8_t *)n->contact;
    int rc = hf_sip_watch_create(&c->watch, now, &n->watch);
    return rc < 0 ? rc : hf_sip_presence_create(&presence, now, &n->presence);
}

int hf_sip_notifier_create(const struct hf_sip_notifier_conf *conf,
                           const struct hf_sip_notifier_ops *ops, void *ctx, hf_time now,
                           struct hf_sip_notifier **ret_notifier)
{
    assert(ops->reply && ops->hold && ops->notify && ops->store && ops->bindings && ops->epoch &&
           ops->may_watch && conf->contact.n > 0);
    struct hf_sip_notifier *n = hf_alloc(sizeof(*n));
    if (n == NULL) {
        return -ENOMEM;
    }
    n->conf = *conf;
    n->conf.body_max = n->conf.body_max != 0 ? n->conf.body_max : 16384;
    n->conf.watch.seed = n->conf.watch.seed != 0 ? n->conf.watch.seed : conf->seed + 2;
    n->ops = *ops;
    n->ctx = ctx;
    hf_map_init(&n->past, conf->seed + 3);
    hf_prng_init(&n->prng, conf->seed + 4);
    hf_buf_init(&n->body, HF_SIP_NOTIFY_BODY_MAX);
    int rc = init(n, now);
    if (rc < 0) {
        hf_sip_notifier_destroy(n);
        return rc;
    }
    *ret_notifier = n;
    return 0;
}

void hf_sip_notifier_destroy(struct hf_sip_notifier *n)
{
    if (n == NULL) {
        return;
    }
    hf_sip_notifier_past_fini(n);
    hf_sip_watch_destroy(n->watch);
    hf_sip_presence_destroy(n->presence);
    hf_buf_fini(&n->body);
    hf_free(n->contact);
    hf_free(n);
}
