/* From a message to what the decision goes by: who is meant, how it came here, what it carries. */
#include "base/err.h"
#include "base/hash.h"
#include "core/sip/element_impl.h"
#include "core/sip/fields.h"

/* --- addresses of ours --- */

static bool same_listen(const struct hf_el_listen *l, const struct hf_sip_flow *flow)
{
    return l->c.transport == flow->transport && l->c.at.port == flow->local.port &&
           hf_endpoint_same_addr(&l->c.at, &flow->local);
}

const struct hf_el_listen *hf_el_listen_at(const struct hf_sip_element *e,
                                           const struct hf_sip_flow *flow)
{
    const struct hf_el_listen *found = &e->listen[0];
    for (size_t i = 0; i < e->conf.n_listen; i++) {
        if (same_listen(&e->listen[i], flow)) {
            return &e->listen[i];
        }
        if (e->listen[i].c.transport == flow->transport && found->c.transport != flow->transport) {
            found = &e->listen[i];
        }
    }
    return found;
}

const struct hf_el_listen *hf_el_listen_by_id(const struct hf_sip_element *e, uint16_t id)
{
    for (size_t i = 0; i < e->conf.n_listen; i++) {
        if (e->listen[i].id == id) {
            return &e->listen[i];
        }
    }
    return NULL;
}

/* From where it is best to send. From an address that is elsewhere nothing can be sent. */
static int rank(const struct hf_el_listen *l)
{
    return l->away ? 0 : l->c.external ? 1 : l->c.elsewhere ? 3 : 2;
}

const struct hf_el_listen *hf_el_listen_for(const struct hf_sip_element *e, unsigned transport,
                                            unsigned family)
{
    const struct hf_el_listen *found = NULL;
    for (size_t i = 0; i < e->conf.n_listen; i++) {
        const struct hf_el_listen *l = &e->listen[i];
        if (l->c.transport == transport && l->c.at.family == family &&
            (!found || rank(l) > rank(found))) {
            found = l;
        }
    }
    return found;
}

bool hf_el_is_domain(const struct hf_sip_element *e, const struct hf_sip_host *host)
{
    for (size_t i = 0; i < e->conf.n_domains; i++) {
        if (hf_sip_eq(host->text, e->domain[i])) {
            return true;
        }
    }
    return false;
}

static bool is_called(const struct hf_el_listen *l, const struct hf_sip_host *host)
{
    return hf_sip_host_eq(&l->host, host) && (!host->port || host->port == l->c.at.port);
}

bool hf_el_is_here(const struct hf_sip_element *e, const struct hf_sip_host *host)
{
    bool found = false;
    for (size_t i = 0; i < e->conf.n_listen; i++) {
        if (is_called(&e->listen[i], host)) {
            if (e->listen[i].away) {
                return false; /* also if an address that stays is called so */
            }
            found = true;
        }
    }
    return found;
}

bool hf_el_is_still_here(struct hf_sip_element *e, const struct hf_sip_host *host)
{
    for (size_t i = 0; e->ops.here && i < e->conf.n_listen; i++) {
        if (e->listen[i].c.elsewhere && is_called(&e->listen[i], host)) {
            hf_sip_element_here(e, i, e->ops.here(e->ctx, i));
        }
    }
    return hf_el_is_here(e, host);
}

/* One of our servers: this one, at any of its addresses, or a peer. */
static bool is_server(const struct hf_sip_element *e, const struct hf_sip_host *host)
{
    for (size_t i = 0; i < e->conf.n_listen; i++) {
        if (is_called(&e->listen[i], host)) {
            return true;
        }
    }
    for (uint16_t i = 0; i < hf_sip_fleet_count(e->fleet); i++) {
        if (e->peer[i] && e->peer[i]->host.n && hf_sip_host_eq(&e->peer[i]->parsed, host)) {
            return true;
        }
    }
    return false;
}

/* --- whom it is about --- */

/* A redirect has put the server's address in the domain's place: the domain is the one that it
 * says, or the first. */
static struct hf_slice restored(const struct hf_sip_element *e, const struct hf_sip_uri *uri,
                                uint8_t room[HF_SIP_AOR_MAX])
{
    struct hf_slice domain, s;
    struct hf_wr w;
    struct hf_sip_host host;
    struct hf_sip_cur c;
    if (!hf_sip_uri_param(uri, "hfd", &domain) || !domain.p) {
        domain = e->conf.n_domains ? e->domain[0] : hf_slice(NULL, 0);
    }
    c = hf_sip_cur(domain);
    if (hf_sip_host_parse(&c, false, &host) || !hf_sip_done(&c) || !hf_el_is_domain(e, &host)) {
        return hf_slice(NULL, 0);
    }
    struct hf_sip_uri u = *uri;
    u.host = host;
    hf_wr_init(&w, room, HF_SIP_AOR_MAX);
    return hf_sip_aor(&u, &w) == 0 && hf_wr_end(&w, &s) == 0 ? s : hf_slice(NULL, 0);
}

struct hf_slice hf_el_aor(const struct hf_sip_element *e, const struct hf_sip_uri *uri,
                          uint8_t room[HF_SIP_AOR_MAX], bool *ret_foreign)
{
    struct hf_slice s = {NULL, 0};
    struct hf_wr w;
    *ret_foreign = false;
    if (uri->scheme == HF_SIP_SCHEME_OTHER) {
        *ret_foreign = true;
        return s;
    }
    if (uri->scheme != HF_SIP_SCHEME_TEL && !hf_el_is_domain(e, &uri->host)) {
        if (is_server(e, &uri->host)) {
            return uri->user.p ? restored(e, uri, room) : s;
        }
        *ret_foreign = true;
    }
    hf_wr_init(&w, room, HF_SIP_AOR_MAX);
    return hf_sip_aor(uri, &w) == 0 && hf_wr_end(&w, &s) == 0 ? s : hf_slice(NULL, 0);
}

/* --- routes --- */

#define OWN_ROUTES_MAX 8

/* The flow that a Route of ours names. */
static bool named_flow(struct hf_el_req *r, const struct hf_sip_uri *uri,
                       struct hf_sip_flow *ret_flow)
{
    struct hf_sip_element *e = r->e;
    uint16_t id;
    int rc = uri->user.n ? hf_sip_token_get(&e->keys, e->conf.boot, uri->user, ret_flow, &id)
                         : -HF_EMALF;
    const struct hf_el_listen *l = rc == 0 ? hf_el_listen_by_id(e, id) : NULL;
    r->route.broken = r->route.broken || rc == -HF_EAUTH || (rc == 0 && !l);
    if (l) {
        ret_flow->local = l->c.at;
    }
    return l;
}

static bool same_flow(const struct hf_sip_flow *a, const struct hf_sip_flow *b)
{
    return a->transport == b->transport &&
           (a->conn ? a->conn == b->conn : hf_endpoint_eq(&a->peer, &b->peer));
}

/* A Route of ours: the flow by which this came, which means outwards, or the one where it goes;
 * each may be there twice, once for each side (RFC 5658). false: it is for a second visit. */
static bool take_own(struct hf_el_req *r, const struct hf_sip_uri *uri)
{
    struct hf_el_route *route = &r->route;
    struct hf_sip_flow flow;
    if (!named_flow(r, uri, &flow)) {
        return true;
    }
    bool from = same_flow(&flow, r->from);
    if (route->has_flow && !route->from_flow) {
        return !from && same_flow(&flow, &route->flow);
    }
    route->flow = flow;
    route->has_flow = true;
    route->from_flow = from;
    return true;
}

/* A strict router has put what we recorded into the Request-URI: what was there is the last Route.
 */
static int strict(struct hf_el_req *r)
{
    struct hf_sip_walk walk;
    struct hf_sip_address a, last;
    struct hf_slice lr;
    int rc;
    bool any = false;
    if (!hf_sip_has(r->m, HF_SIP_H_ROUTE) || !hf_el_is_here(r->e, &r->m->uri.host) ||
        !hf_sip_uri_param(&r->m->uri, "lr", &lr)) {
        return 0;
    }
    hf_sip_walk_begin(&walk, r->m, HF_SIP_H_ROUTE);
    while ((rc = hf_sip_walk_address(&walk, &a)) == 1) {
        last = a;
        any = true;
    }
    if (rc || !any) {
        return rc;
    }
    if (last.uri.scheme == HF_SIP_SCHEME_OTHER) {
        return -HF_EVALUE;
    }
    (void)take_own(r, &r->m->uri);
    r->route.strict = r->route.pop_last = true;
    r->route.uri = last.uri;
    return 0;
}

uint16_t hf_el_routes(struct hf_el_req *r)
{
    struct hf_sip_walk walk;
    struct hf_sip_address a;
    r->route.uri = r->m->uri;
    if (!hf_sip_has(r->m, HF_SIP_H_ROUTE)) {
        return 0;
    }
    int rc = strict(r);
    if (rc) {
        return rc == -HF_EVALUE ? 416 : 400;
    }
    size_t n = 0, n_all = 0;
    hf_sip_walk_begin(&walk, r->m, HF_SIP_H_ROUTE);
    while ((rc = hf_sip_walk_address(&walk, &a)) == 1) {
        n_all++;
        if (n == n_all - 1 && n < OWN_ROUTES_MAX && a.uri.scheme <= HF_SIP_SCHEME_SIPS &&
            hf_el_is_here(r->e, &a.uri.host) && take_own(r, &a.uri)) {
            n++;
        } else if (!r->route.more) {
            r->route.more = true;
            r->route.next = a;
        }
    }
    r->route.pop = (uint8_t)n;
    if (r->route.strict && n_all - n <= 1) {
        r->route.more = false; /* the last one is the Request-URI now */
    }
    return rc ? 400 : 0;
}

/* --- loops --- */

uint32_t hf_el_loop(const struct hf_el_req *r)
{
    return (uint32_t)hf_sip_loop_hash(r->m, r->f.mark.hop, 0);
}

bool hf_el_loops(const struct hf_el_req *r)
{
    struct hf_sip_walk walk;
    struct hf_sip_via via;
    struct hf_sip_back back;
    if (r->m->n_vias < 2) {
        return false;
    }
    uint32_t loop = hf_el_loop(r);
    hf_sip_walk_begin(&walk, r->m, HF_SIP_H_VIA);
    while (hf_sip_walk_via(&walk, &via) == 1) {
        if (hf_el_is_here(r->e, &via.sent_by) && hf_sip_back_get(&r->e->keys, &via, &back) == 0 &&
            back.loop == loop) {
            return true;
        }
    }
    return false;
}

/* --- facts --- */

bool hf_el_from_edge(const struct hf_sip_element *e, const struct hf_endpoint *peer)
{
    for (size_t i = 0; i < e->conf.n_edges; i++) {
        const struct hf_sip_net *n = &e->edge[i];
        unsigned bytes = n->bits / 8, rest = n->bits % 8;
        if (n->at.family != peer->family || memcmp(n->at.addr, peer->addr, bytes) != 0) {
            continue;
        }
        if (rest == 0 || ((n->at.addr[bytes] ^ peer->addr[bytes]) >> (8 - rest)) == 0) {
            return true;
        }
    }
    return false;
}

static enum hf_sip_kind kind_of(const struct hf_sip_msg *m)
{
    if (m->method == HF_SIP_REGISTER) {
        return HF_SIP_KIND_REGISTER;
    }
    if (m->method == HF_SIP_ACK || m->method == HF_SIP_CANCEL || hf_sip_address_tag(&m->to).n) {
        return HF_SIP_KIND_DIALOG;
    }
    return m->method == HF_SIP_SUBSCRIBE || m->method == HF_SIP_PUBLISH ? HF_SIP_KIND_STATE
                                                                        : HF_SIP_KIND_CALL;
}

/* "hf=EPOCH.SECONDS" of a Request-URI that a redirect made. */
static void carried(struct hf_el_req *r)
{
    struct hf_slice value;
    struct hf_sip_cur c;
    uint64_t epoch, seconds;
    if (!r->m->uri.params.n || !hf_sip_uri_param(&r->m->uri, "hf", &value)) {
        return;
    }
    c = hf_sip_cur(value);
    if (hf_sip_number(&c, INT64_MAX, &epoch) || !hf_sip_eat(&c, '.') ||
        hf_sip_number(&c, UINT32_MAX, &seconds) || !hf_sip_done(&c)) {
        return;
    }
    int64_t age = (int64_t)hf_el_wall_s(r->e, r->now) - (int64_t)seconds;
    r->f.carried = epoch;
    r->f.redirected = age <= 32 && age >= -32;
}

static uint16_t agent_id(const struct hf_sip_msg *m)
{
    struct hf_slice value;
    /* the same at all servers */
    return hf_sip_one(m, HF_SIP_H_USER_AGENT, &value) == 1 ? (uint16_t)hf_hash(value, 0) : 0;
}

/* One that asks what there is, or takes its leave, refreshes nothing: who is sent elsewhere with
 * that and does not follow leaves a binding behind. */
static bool refreshes(const struct hf_sip_msg *m)
{
    struct hf_sip_walk walk;
    struct hf_sip_address a;
    uint32_t s;
    hf_sip_walk_begin(&walk, m, HF_SIP_H_CONTACT);
    while (hf_sip_walk_address(&walk, &a) == 1) {
        if (!a.star && hf_sip_contact_expires(m, &a, 1, &s) == 0 && s > 0) {
            return true;
        }
    }
    return false;
}

/* How long the binding has left that this REGISTER refreshes: only an offer needs to know. */
static void binding(struct hf_el_req *r)
{
    if (!r->f.mark.offer || r->f.kind != HF_SIP_KIND_REGISTER || !refreshes(r->m)) {
        return;
    }
    for (const struct hf_sip_binding *b = hf_sip_registrar_find(r->e->registrar, r->aor); b;
         b = b->next) {
        if (b->expires > r->now && b->expires - r->now > r->f.binding_left &&
            hf_slice_eq(hf_sip_binding_call_id(b), r->m->call_id)) {
            r->f.binding_left = b->expires - r->now;
            r->f.binding_life = HF_S((hf_time)b->life_s);
        }
    }
}

static uint16_t who(struct hf_el_req *r)
{
    const struct hf_sip_msg *m = r->m;
    const struct hf_sip_uri *u = &r->route.uri;
    bool reg = r->f.kind == HF_SIP_KIND_REGISTER, to_foreign;
    r->at_server = !u->user.p && u->scheme <= HF_SIP_SCHEME_SIPS &&
                   (hf_el_is_domain(r->e, &u->host) || is_server(r->e, &u->host));
    if (reg) {
        r->aor = hf_el_aor(r->e, &m->to.uri, r->aor_text, &to_foreign);
        r->foreign = to_foreign || (u->scheme <= HF_SIP_SCHEME_SIPS && !r->at_server &&
                                    !hf_el_is_domain(r->e, &u->host) && !is_server(r->e, &u->host));
        return m->to.uri.user.p || m->to.uri.scheme == HF_SIP_SCHEME_TEL || r->foreign ? 0 : 404;
    }
    r->aor = hf_el_aor(r->e, u, r->aor_text, &r->foreign);
    return 0;
}

uint16_t hf_el_facts(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    const struct hf_sip_msg *m = r->m;
    const struct hf_el_listen *l = hf_el_listen_at(e, r->from);
    struct hf_sip_facts *f = &r->f;
    *f = (struct hf_sip_facts){
        .role = e->conf.role,
        .self = e->self,
        .fleet = e->fleet,
        .shed = e->shed,
        .kind = kind_of(m),
        .n_via = m->n_vias,
        .max_forwards = m->max_forwards < 0 ? 70 : (unsigned)m->max_forwards,
        .from_edge = hf_el_from_edge(e, &r->from->peer) || (e->conf.role == HF_SIP_ROLE_EDGE),
        .must_authenticate = e->conf.must_authenticate && e->conf.role != HF_SIP_ROLE_EDGE,
        .policy = l->c.policy,
        .agent_id = agent_id(m),
        .read = r->known->read,
        .user_known = r->known->user_known,
        .away = r->known->away || hf_sip_assign_table(e->assign) == HF_SIP_TABLE_AWAY,
        .random = (uint32_t)hf_prng_u64(&e->prng),
    };
    f->credentials = hf_sip_has(m, f->kind == HF_SIP_KIND_REGISTER ? HF_SIP_H_AUTHORIZATION
                                                                   : HF_SIP_H_PROXY_AUTHORIZATION);
    f->authenticated = r->known->auth == HF_EL_AUTH_GOOD;
    if (hf_sip_has(m, HF_SIP_H_HOLDFAST_HOP)) {
        f->from_peer = hf_sip_mark_get(&e->keys, m, &f->mark) == 1;
    }
    uint16_t status = who(r);
    if (status || !r->aor.n) {
        return status;
    }
    f->aor = r->aor;
    carried(r);
    f->redirected = f->redirected || hf_el_was_redirected(e, m, r->aor, r->now);
    binding(r);
    f->have_row = hf_sip_assign_get(e->assign, r->aor, &f->row);
    if (!f->have_row && r->known->have_row) { /* it did not fit in the cache */
        f->have_row = true;
        f->row = r->known->row;
        f->row.aor = r->aor;
    }
    return 0;
}
