/* What is served here but REGISTER: requests for the server itself, watchers, and calls to
 * bindings. */
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "core/sip/element_impl.h"
#include "core/sip/fields.h"

/* --- for the server itself --- */

void hf_el_here(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    struct hf_wr w;
    if (r->m->method != HF_SIP_OPTIONS) {
        hf_el_respond(r, 405, NULL);
        return;
    }
    if (!hf_el_begin(e, r->m, r->from, 200, NULL, &w)) {
        return;
    }
    hf_sip_put_field(&w, HF_SIP_H_ALLOW, S("OPTIONS, REGISTER, SUBSCRIBE, PUBLISH"));
    hf_sip_put_field(&w, HF_SIP_H_SUPPORTED, S("path, outbound"));
    hf_sip_put_field(&w, HF_SIP_H_ALLOW_EVENTS, S("reg, presence"));
    hf_el_end(e, r->m, r->from, &w);
}

/* --- watchers --- */

static struct hf_slice domain_of(struct hf_slice aor)
{
    const uint8_t *at = aor.n ? memchr(aor.p, '@', aor.n) : NULL;
    return at ? hf_slice(at, (size_t)(aor.p + aor.n - at)) : hf_slice(NULL, 0);
}

/* The user himself is not asked for. Registrations are nobody else's business; presence is there to
 * be seen, by whom the operator lets. */
int hf_el_may_watch(const struct hf_sip_element *e, struct hf_slice watcher, enum hf_sip_package p,
                    struct hf_slice aor)
{
    bool anybody = !e->conf.must_authenticate; /* is who he says he is */
    if (p == HF_SIP_PACKAGE_REG) {
        return anybody;
    }
    struct hf_slice domain = domain_of(watcher);
    bool may = e->conf.n_watchers == 0 && (anybody || hf_slice_eq(domain, domain_of(aor)));
    for (size_t i = 0; i < e->conf.n_watchers; i++) {
        struct hf_slice who = e->watchers[i];
        may = may || (hf_slice_eq(who, S("domain"))
                          ? anybody || hf_slice_eq(domain, domain_of(aor))
                          : hf_slice_eq(who, who.p[0] == '@' ? domain : watcher));
    }
    return may && (anybody || watcher.n);
}

/* Who asks: as authenticated, else as he says. */
static struct hf_slice who_asks(const struct hf_el_req *r, uint8_t room[HF_SIP_AOR_MAX])
{
    struct hf_slice s = r->known->user;
    struct hf_wr w;
    hf_wr_init(&w, room, HF_SIP_AOR_MAX);
    if (r->known->auth != HF_EL_AUTH_GOOD &&
        (hf_sip_aor(&r->m->from.uri, &w) || hf_wr_end(&w, &s))) {
        s = hf_slice(NULL, 0);
    }
    return s;
}

bool hf_el_forbidden(const struct hf_el_req *r)
{
    uint8_t room[HF_SIP_AOR_MAX];
    struct hf_sip_event event;
    bool known = r->known->auth == HF_EL_AUTH_GOOD;
    if (r->e->conf.role == HF_SIP_ROLE_EDGE || (r->e->conf.must_authenticate && !known)) {
        return false; /* another server asks him who he is */
    }
    if (r->f.kind == HF_SIP_KIND_REGISTER) {
        return known && !hf_slice_eq(r->known->user, r->aor);
    }
    struct hf_slice who = r->f.kind == HF_SIP_KIND_STATE ? who_asks(r, room) : r->aor;
    if (hf_slice_eq(who, r->aor)) {
        return false;
    }
    /* a package that there is not is refused like one that he may not watch */
    enum hf_sip_package p = r->m->method == HF_SIP_SUBSCRIBE && hf_sip_event(r->m, &event) == 1
                                ? hf_sip_package_of(event.package)
                                : HF_SIP_PACKAGE_PRESENCE;
    return r->m->method == HF_SIP_PUBLISH || hf_el_may_watch(r->e, who, p, r->aor) == 0;
}

/* --- calls --- */

static bool is_dead(const struct hf_sip_element *e, const struct hf_sip_host *host)
{
    for (uint16_t i = 0; i < hf_sip_fleet_count(e->fleet); i++) {
        if (e->peer[i] && e->peer[i]->host.n && hf_sip_host_eq(&e->peer[i]->parsed, host)) {
            return !hf_sip_fleet_alive(e->fleet, i);
        }
    }
    return false;
}

/* By the first of its Path; t->route: what is left of it. -HF_ENOTFOUND: it leads nowhere;
 * -HF_ECLOSED: nor does it, but the Contact may. */
static int way_by_path(struct hf_el_req *r, struct hf_slice path, struct hf_sip_target *t)
{
    struct hf_sip_element *e = r->e;
    struct hf_sip_cur c = hf_sip_cur(path);
    struct hf_sip_address first;
    struct hf_sip_flow named = {0};
    struct hf_slice mark;
    uint16_t id;
    if (hf_sip_address_parse(&c, false, &first)) {
        return -HF_EMALF;
    }
    int nowhere = hf_sip_uri_param(&first.uri, HF_EL_STAND_IN, &mark) ? -HF_ECLOSED : -HF_ENOTFOUND;
    bool here = hf_el_is_here(e, &first.uri.host);
    int rc = here ? hf_sip_token_get(&e->keys, e->conf.boot, first.uri.user, &named, &id) : 0;
    if (here && rc == -HF_EAUTH) { /* of a former life of ours, or of who has the address now */
        here = hf_el_is_still_here(e, &first.uri.host);
    }
    if (here) { /* we keep the flow, or did */
        const struct hf_el_listen *l = rc ? NULL : hf_el_listen_by_id(e, id);
        if (rc == -HF_EAUTH) {
            hf_el_lost(e, r->aor, t->cookie);
        }
        t->route = hf_sip_separator(&c, ',') ? hf_sip_left(&c) : hf_slice(NULL, 0);
        t->to = named;
        t->to.local = l ? l->c.at : named.local;
        return l ? 1 : nowhere;
    }
    if (nowhere == -HF_ECLOSED && is_dead(e, &first.uri.host)) {
        return nowhere;
    }
    t->route = path;
    return hf_el_where_for(r, &first.uri, &t->to);
}

/* The binding's way: its connection, the first of its Path, or where its Contact says. */
static int way(struct hf_el_req *r, const struct hf_sip_binding *b, struct hf_sip_target *t)
{
    struct hf_sip_element *e = r->e;
    struct hf_slice path = hf_sip_binding_path(b);
    const struct hf_sip_flow *flow = hf_el_flow_of(e, b);
    struct hf_sip_uri uri;
    int rc = path.n ? way_by_path(r, path, t) : -HF_ECLOSED;
    if (rc != -HF_ECLOSED) {
        return rc;
    }
    t->route = hf_slice(NULL, 0);
    if (flow) {
        t->to = *flow;
        return 1;
    }
    if (b->outbound && r->e->was_fresh && hf_sip_uri_parse(hf_sip_binding_uri(b), &uri) == 0 &&
        uri.scheme == HF_SIP_SCHEME_SIPS) {
        return -HF_ENOTFOUND; /* its flow is gone, and there is no other way (RFC 5626 5.3) */
    }
    return hf_sip_uri_parse(hf_sip_binding_uri(b), &uri) ? -HF_ENOTFOUND
                                                         : hf_el_where_for(r, &uri, &t->to);
}

/* -1: it waits for a name. */
static int targets(struct hf_el_req *r, struct hf_sip_target target[HF_SIP_CONTACTS_MAX])
{
    int n = 0;
    const struct hf_sip_binding *b = hf_sip_registrar_find(r->e->registrar, r->aor);
    for (; b && n < HF_SIP_CONTACTS_MAX; b = b->next) {
        struct hf_sip_target t = {.uri = hf_sip_binding_uri(b),
                                  .q = b->q,
                                  .cookie = hf_el_binding_hash(b),
                                  .aor = r->aor};
        if (hf_sip_binding_left_s(b, r->now) == 0) {
            continue;
        }
        int rc = way(r, b, &t);
        if (rc == 0) {
            return -1;
        }
        if (rc == 1) {
            t.sent_by = hf_el_listen_at(r->e, &t.to)->sent_by;
            t.agent = b->outbound ? (uint32_t)hf_hash(hf_sip_binding_instance(b), 0) | 1u : 0;
            target[n++] = t;
        }
    }
    return n;
}

void hf_el_call(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    struct hf_sip_target target[HF_SIP_CONTACTS_MAX];
    int n = targets(r, target);
    if (n < 0) {
        return;
    }
    if (n == 0) {
        e->count.not_found++;
        hf_el_refuse(r, r->known->unloaded ? 503 : 480,
                     r->known->unloaded ? hf_sip_retry_after(r->f.random, 1, 4) : 0);
        return;
    }
    struct hf_sip_forward how = {.sent_by = e->listen[0].sent_by,
                                 .source = &r->from->peer,
                                 .pop_routes = r->route.pop,
                                 .drop = 1ULL << HF_SIP_H_HOLDFAST_HOP,
                                 .hop = r->f.mark.hop};
    if (r->known->auth == HF_EL_AUTH_GOOD) { /* for us: nobody else's business */
        how.drop |= 1ULL << HF_SIP_H_PROXY_AUTHORIZATION;
    }
    int rc = hf_sip_proxy_fork(e->proxy, r->m, r->from, &how, target, (size_t)n, r->now);
    e->count.forked += rc == 0;
    if (rc == -HF_EVALUE) {
        hf_el_respond(r, 483, NULL);
    } else if (rc) {
        hf_el_refuse(r, 503, hf_sip_retry_after(r->f.random, 5, 20));
    }
}

/* --- requests of our own --- */

void hf_el_say(struct hf_sip_element *e, uint64_t cookie, uint16_t status, bool has_msg)
{
    if (e->n_said == e->said_room) {
        size_t room = e->said_room ? 2 * e->said_room : 64;
        struct hf_el_said *more = hf_realloc(e->said, room * sizeof(*more));
        if (!more) {
            return; /* the notifier's own patience ends it */
        }
        e->said = more;
        e->said_room = room;
    }
    e->said[e->n_said++] =
        (struct hf_el_said){.cookie = cookie, .status = status, .has_msg = has_msg};
}

/* By the connection of the watcher, if it is registered here. */
static bool watcher_flow(struct hf_sip_element *e, const struct hf_sip_request *request,
                         struct hf_sip_flow *ret_to)
{
    struct hf_sip_address to;
    struct hf_sip_cur c = hf_sip_cur(request->to);
    uint8_t room[HF_SIP_AOR_MAX];
    bool foreign;
    if (request->route.n || hf_sip_address_parse(&c, false, &to)) {
        return false;
    }
    const struct hf_sip_flow *flow = NULL;
    const struct hf_sip_binding *b =
        hf_sip_registrar_find(e->registrar, hf_el_aor(e, &to.uri, room, &foreign));
    for (; b && !flow; b = b->next) {
        flow = hf_slice_eq(hf_sip_binding_uri(b), request->uri) ? hf_el_flow_of(e, b) : NULL;
    }
    if (flow) {
        *ret_to = *flow;
    }
    return flow;
}

void hf_el_notify(void *ctx, uint64_t cookie, struct hf_slice next_hop_uri,
                  const struct hf_sip_request *request, struct hf_slice more_fields,
                  struct hf_slice content_type, struct hf_slice body)
{
    struct hf_sip_element *e = ctx;
    struct hf_sip_request own = *request;
    struct hf_sip_uri uri;
    struct hf_sip_flow to = {0};
    char branch[HF_SIP_OWN_BRANCH_LEN];
    struct hf_slice s;
    struct hf_wr w;
    int rc = hf_sip_uri_parse(next_hop_uri, &uri) ? -HF_ENOTFOUND : 1;
    if (rc == 1 && !watcher_flow(e, request, &to)) {
        rc = hf_el_where(e, &uri, &to);
    }
    if (rc < 0) {
        hf_el_say(e, cookie, 503, false);
        return;
    }
    const struct hf_el_listen *l = rc == 1 ? hf_el_listen_at(e, &to) : &e->listen[0];
    hf_sip_proxy_branch(e->proxy, branch);
    own.transport = (enum hf_sip_transport)l->c.transport;
    own.sent_by = l->sent_by;
    own.branch = hf_slice(branch, sizeof(branch));
    own.rport = true;
    hf_wr_init(&w, e->out, sizeof(e->out));
    rc = hf_sip_begin_request(&w, &own) ? -HF_EFULL : rc;
    hf_wr_bytes(&w, more_fields);
    if (rc < 0 || hf_sip_end(&w, content_type, body, &s)) {
        hf_el_say(e, cookie, 503, false);
    } else if (rc == 0) {
        struct hf_el_wait *wait = hf_el_hold_own(e, s, cookie);
        if (wait) {
            e->ops.resolve(e->ctx, wait->cookie, &uri);
        } else {
            hf_el_say(e, cookie, 503, false);
        }
    } else if (hf_sip_proxy_own(e->proxy, s, &to, cookie, e->now)) {
        hf_el_say(e, cookie, 503, false);
    }
}
