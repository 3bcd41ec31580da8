/* What goes out without state: answers, redirects, requests towards their home or along a dialog,
 * responses on their way back (S4, S5). */
#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "core/sip/element_impl.h"
#include "core/sip/fields.h"

#define WAYS 4u
#define UDP_MAX 1300    /* bytes of a request on UDP (RFC 3261 18.1.1) */
#define RINGS HF_S(180) /* a call at most: timer C (RFC 3261 16.6 step 11) */

/* --- answers --- */

bool hf_el_begin(struct hf_sip_element *e, const struct hf_sip_msg *m,
                 const struct hf_sip_flow *from, uint16_t status, const char *reason,
                 struct hf_wr *w)
{
    char tag[16];
    hf_sip_stateless_tag(m, e->keys.tag, tag);
    hf_wr_init(w, e->out, sizeof(e->out));
    e->status = status;
    return hf_sip_begin_response(w, m, status, reason ? hf_slice_str(reason) : hf_slice(NULL, 0),
                                 hf_slice(tag, status > 100 ? sizeof(tag) : 0), &from->peer) == 0;
}

/* Its client has a 100, and does not repeat it: what comes of it must not be lost (17.2.1). */
static bool was_tried(const struct hf_sip_element *e, const struct hf_sip_msg *m)
{
    const struct hf_el_wait *w =
        m->method == HF_SIP_INVITE && e->n_waits ? hf_el_waiting_key(e, hf_el_key(m, false)) : NULL;
    return w && w->tried;
}

void hf_el_end(struct hf_sip_element *e, const struct hf_sip_msg *m, const struct hf_sip_flow *from,
               struct hf_wr *w)
{
    struct hf_slice s;
    if (hf_sip_end(w, hf_slice(NULL, 0), hf_slice(NULL, 0), &s)) {
        return;
    }
    if (e->status < 200 || !was_tried(e, m) ||
        hf_sip_proxy_reply(e->proxy, m, from, e->status, s, e->now)) {
        struct hf_sip_flow to = hf_sip_flow_back(m, from);
        hf_el_send(e, &to, s);
    }
}

void hf_el_respond(struct hf_el_req *r, uint16_t status, const char *reason)
{
    struct hf_wr w;
    r->e->count.refused += status >= 400;
    if (hf_el_begin(r->e, r->m, r->from, status, reason, &w)) {
        if (status == 405) {
            hf_sip_put_field(&w, HF_SIP_H_ALLOW, S("OPTIONS, REGISTER, SUBSCRIBE, PUBLISH"));
        }
        hf_el_end(r->e, r->m, r->from, &w);
    }
}

void hf_el_refuse(struct hf_el_req *r, uint16_t status, unsigned retry_after)
{
    struct hf_wr w;
    r->e->count.refused++;
    if (hf_el_begin(r->e, r->m, r->from, status, NULL, &w)) {
        if (retry_after) {
            hf_sip_put_number(&w, HF_SIP_H_RETRY_AFTER, retry_after);
        }
        hf_el_end(r->e, r->m, r->from, &w);
    }
}

/* --- redirects --- */

static uint64_t redirect_hash(const struct hf_sip_element *e, const struct hf_sip_msg *m,
                              struct hf_slice aor)
{
    return hf_hash(m->call_id, hf_hash(aor, e->conf.seed));
}

static uint32_t ms(hf_time now)
{
    return (uint32_t)(now / HF_NS_PER_MS) | 1u;
}

static struct hf_el_redirected *redirect_set(const struct hf_sip_element *e, uint64_t hash)
{
    return &e->redirected[(hash >> 32) % e->redirected_sets * WAYS];
}

bool hf_el_was_redirected(const struct hf_sip_element *e, const struct hf_sip_msg *m,
                          struct hf_slice aor, hf_time now)
{
    uint64_t hash = redirect_hash(e, m, aor);
    const struct hf_el_redirected *set = redirect_set(e, hash);
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].at_ms && set[i].key == (uint32_t)hash &&
            ms(now) - set[i].at_ms <= (uint32_t)(HF_EL_LATELY / HF_NS_PER_MS)) {
            return true;
        }
    }
    return false;
}

static void remember(struct hf_el_req *r)
{
    uint64_t hash = redirect_hash(r->e, r->m, r->aor);
    struct hf_el_redirected *set = redirect_set(r->e, hash), *to = set;
    uint32_t now = ms(r->now);
    for (size_t i = 0; i < WAYS; i++) {
        if (!set[i].at_ms || set[i].key == (uint32_t)hash) {
            to = &set[i];
            break;
        }
        to = now - set[i].at_ms > now - to->at_ms ? &set[i] : to;
    }
    *to = (struct hf_el_redirected){.key = (uint32_t)hash, .at_ms = now};
}

static const char *transport_param(unsigned t)
{
    return t == HF_SIP_TRANSPORT_TLS   ? ";transport=tls"
           : t == HF_SIP_TRANSPORT_TCP ? ";transport=tcp"
                                       : "";
}

/* A server's address for who came by this transport; NONE: it has none. */
static unsigned address_of(const struct hf_sip_element *e, uint16_t server, unsigned wanted,
                           struct hf_slice *ret_host, uint16_t *ret_port)
{
    const struct hf_el_peer *p = server < HF_SIP_SERVERS_MAX ? e->peer[server] : NULL;
    if (p && p->host.n) {
        for (unsigned i = 0; i < 4; i++) {
            unsigned t = i == 0 ? wanted : i - 1;
            if (t < 3 && p->at[t].family != HF_AF_NONE) {
                *ret_host = p->host;
                *ret_port = p->at[t].port;
                return t;
            }
        }
    }
    if (server == e->self) {
        for (size_t i = 0; i < e->conf.n_listen; i++) {
            const struct hf_el_listen *l = &e->listen[i];
            if (l->c.transport == wanted || i + 1 == e->conf.n_listen) {
                *ret_host = l->c.host;
                *ret_port = l->c.at.port;
                return l->c.transport;
            }
        }
    }
    return HF_SIP_TRANSPORT_OTHER;
}

/* <sip:[user@]host:port;transport=t;hf=EPOCH.SECONDS>;q=... */
static bool put_contact(struct hf_el_req *r, struct hf_wr *w, uint16_t server, const char *q)
{
    struct hf_sip_element *e = r->e;
    struct hf_slice host;
    uint16_t port;
    unsigned t = address_of(e, server, r->from->transport, &host, &port);
    if (t == HF_SIP_TRANSPORT_OTHER) {
        return false;
    }
    hf_sip_put_name(w, HF_SIP_H_CONTACT);
    hf_wr_bytes(w, S("<sip:"));
    if (r->f.kind != HF_SIP_KIND_REGISTER && r->route.uri.user.n) {
        hf_wr_bytes(w, r->route.uri.user);
        hf_wr_bytes(w, S("@"));
    }
    hf_wr_bytes(w, host);
    if (port != hf_sip_transport_port((enum hf_sip_transport)t)) {
        hf_wr_bytes(w, S(":"));
        hf_sip_put_u64(w, port);
    }
    hf_sip_put_str(w, transport_param(t));
    hf_wr_bytes(w, S(";hf="));
    hf_sip_put_u64(w, r->v.epoch);
    hf_wr_bytes(w, S("."));
    hf_sip_put_u64(w, hf_el_wall_s(e, r->now));
    if (r->f.kind != HF_SIP_KIND_REGISTER && e->conf.n_domains > 1 &&
        hf_el_is_domain(e, &r->route.uri.host)) {
        hf_wr_bytes(w, S(";hfd="));
        hf_wr_bytes(w, r->route.uri.host.text);
    }
    hf_wr_bytes(w, S(">"));
    hf_sip_put_str(w, q);
    hf_sip_put_eol(w);
    return true;
}

void hf_el_redirect(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    struct hf_wr w;
    if (!hf_el_begin(e, r->m, r->from, 302, NULL, &w)) {
        return;
    }
    if (!put_contact(r, &w, r->v.target, ";q=0.7")) {
        hf_el_refuse(r, 503, hf_sip_retry_after(r->f.random, 1, 4));
        return;
    }
    if (r->v.backup != HF_SIP_NONE) {
        (void)put_contact(r, &w, r->v.backup, ";q=0.3");
    }
    remember(r);
    e->count.redirected++;
    hf_el_end(e, r->m, r->from, &w);
}

/* --- where things are --- */

static int to_address(const struct hf_sip_element *e, unsigned transport,
                      const struct hf_endpoint *at, struct hf_sip_flow *ret_to)
{
    const struct hf_el_listen *l = hf_el_listen_for(e, transport, at->family);
    if (!l || at->family == HF_AF_NONE) {
        return -HF_ENOTFOUND;
    }
    *ret_to = (struct hf_sip_flow){.transport = (uint8_t)transport, .local = l->c.at, .peer = *at};
    return 1;
}

static unsigned uri_transport(const struct hf_sip_uri *uri)
{
    struct hf_slice value;
    if (uri->scheme == HF_SIP_SCHEME_SIPS) {
        return HF_SIP_TRANSPORT_TLS;
    }
    return hf_sip_uri_param(uri, "transport", &value) ? hf_sip_transport_parse(value)
                                                      : HF_SIP_TRANSPORT_UDP;
}

int hf_el_where(const struct hf_sip_element *e, const struct hf_sip_uri *uri,
                struct hf_sip_flow *ret_to)
{
    unsigned t = uri_transport(uri);
    struct hf_sip_host host = uri->host;
    struct hf_slice maddr;
    if (uri->scheme > HF_SIP_SCHEME_SIPS || t > HF_SIP_TRANSPORT_TLS) {
        return -HF_ENOTFOUND;
    }
    if (hf_sip_uri_param(uri, "maddr", &maddr) && maddr.n) {
        struct hf_sip_cur c = hf_sip_cur(maddr);
        uint16_t port = host.port;
        if (hf_sip_host_parse(&c, false, &host) || !hf_sip_done(&c)) {
            return -HF_ENOTFOUND;
        }
        host.port = port;
    }
    if (host.kind == HF_SIP_HOST_NAME) {
        for (uint16_t i = 0; i < hf_sip_fleet_count(e->fleet); i++) {
            if (e->peer[i] && e->peer[i]->host.n && hf_sip_host_eq(&e->peer[i]->parsed, &host) &&
                e->peer[i]->at[t].family != HF_AF_NONE) {
                return to_address(e, t, &e->peer[i]->at[t], ret_to);
            }
        }
        return 0;
    }
    struct hf_endpoint at = {.family = host.kind == HF_SIP_HOST_IPV6 ? HF_AF_INET6 : HF_AF_INET,
                             .port = host.port ? host.port
                                               : hf_sip_transport_port((enum hf_sip_transport)t)};
    memcpy(at.addr, host.addr, at.family == HF_AF_INET6 ? 16 : 4);
    if (at.family == HF_AF_INET && (at.addr[0] >= 224 || at.addr[0] == 0)) {
        return -HF_ENOTFOUND; /* nobody makes us shout */
    }
    return to_address(e, t, &at, ret_to);
}

int hf_el_where_for(struct hf_el_req *r, const struct hf_sip_uri *uri, struct hf_sip_flow *ret_to)
{
    int rc = hf_el_where(r->e, uri, ret_to);
    if (rc != 0) {
        return rc;
    }
    uint64_t hash = hf_hash(uri->text, 0) | 1;
    struct hf_el_known *k = r->known;
    for (size_t i = 0; i < k->n_answers; i++) {
        if (k->answer[i].uri == hash && k->answer[i].there) {
            *ret_to = k->answer[i].to;
            return k->answer[i].none ? -HF_ENOTFOUND : 1;
        }
    }
    if (k->n_answers == HF_SIP_CONTACTS_MAX) {
        return -HF_ENOTFOUND;
    }
    struct hf_el_wait *w = hf_el_hold(r, HF_EL_FOR_NAME);
    if (w) {
        w->known.answer[w->known.n_answers++] = (struct hf_el_answer){.uri = hash};
        r->e->ops.resolve(r->e->ctx, w->cookie, uri);
    }
    r->held = true; /* it waits, or was refused: either way it is dealt with */
    return 0;
}

/* --- forwarding --- */

struct plan {
    const struct hf_sip_flow *to;
    struct hf_slice uri, route;
    uint8_t pop;
    bool pop_last;
    const struct hf_sip_mark *mark;
    uint64_t epoch;
    uint16_t server; /* a peer's number; 0, which is ours: it goes to nobody of us */
    bool path;       /* a REGISTER's way back */
    bool record;     /* in-dialog requests come by us, too */
    bool record_to;  /* ... and go to the flow that this goes to */
};

/* Like `at`, but at the service address that the flow came to, as it ends when that moves on (S1),
 * and others of ours may move on before. */
static const struct hf_el_listen *beside(const struct hf_sip_element *e,
                                         const struct hf_el_listen *flow,
                                         const struct hf_el_listen *at)
{
    const struct hf_el_listen *found = NULL;
    if (!flow->c.elsewhere || flow->c.external != at->c.external ||
        hf_endpoint_same_addr(&flow->c.at, &at->c.at)) {
        return at;
    }
    for (size_t i = 0; i < e->conf.n_listen; i++) {
        const struct hf_el_listen *l = &e->listen[i];
        if (l->c.transport == at->c.transport && hf_endpoint_same_addr(&l->c.at, &flow->c.at) &&
            (!found || l->c.at.port == at->c.at.port)) {
            found = l;
        }
    }
    return found ? found : at;
}

void hf_el_put_flow(const struct hf_sip_element *e, struct hf_wr *w, const struct hf_sip_flow *flow,
                    const struct hf_el_listen *at, const char *params)
{
    char token[HF_SIP_TOKEN_MAX];
    const struct hf_el_listen *l = hf_el_listen_at(e, flow);
    size_t n = hf_sip_token_make(&e->keys, e->conf.boot, l->id, flow, token);
    at = beside(e, l, at);
    hf_wr_bytes(w, S("<sip:"));
    hf_wr_bytes(w, hf_slice(token, n));
    hf_wr_bytes(w, S("@"));
    hf_wr_bytes(w, at->sent_by);
    hf_sip_put_str(w, transport_param(at->c.transport));
    hf_sip_put_str(w, params);
    hf_wr_bytes(w, S(">"));
}

/* Record-Route: one value, or one for each side (RFC 5658). */
static struct hf_slice record(const struct hf_el_req *r, const struct plan *p, uint8_t *room,
                              size_t n)
{
    const struct hf_sip_element *e = r->e;
    const struct hf_el_listen *in = hf_el_listen_at(e, r->from), *out = hf_el_listen_at(e, p->to);
    const struct hf_sip_flow *client = p->record_to ? p->to : r->from;
    struct hf_slice s = {NULL, 0};
    struct hf_wr w;
    hf_wr_init(&w, room, n);
    hf_el_put_flow(e, &w, client, out, ";lr");
    if (in != out) {
        hf_wr_bytes(&w, S(", "));
        hf_el_put_flow(e, &w, client, in, ";lr");
    }
    return hf_wr_end(&w, &s) ? hf_slice(NULL, 0) : s;
}

static struct hf_slice path(const struct hf_el_req *r, const struct plan *p, uint8_t *room,
                            size_t n)
{
    struct hf_slice s = {NULL, 0};
    struct hf_wr w;
    hf_wr_init(&w, room, n);
    hf_el_put_flow(r->e, &w, r->from, hf_el_listen_at(r->e, p->to),
                   r->from->conn && r->m->n_vias == 1 ? ";lr;ob" : ";lr");
    return hf_wr_end(&w, &s) ? hf_slice(NULL, 0) : s;
}

static void salted_branch(const struct hf_el_req *r, const struct plan *p,
                          char ret_branch[HF_SIP_BRANCH_LEN])
{
    uint8_t salt[40];
    struct hf_wr w;
    hf_wr_init(&w, salt, sizeof(salt));
    hf_wr_u8(&w, p->to->transport);
    hf_wr_u16(&w, p->to->peer.port);
    hf_wr_bytes(&w, hf_slice(p->to->peer.addr, sizeof(p->to->peer.addr)));
    hf_wr_u64(&w, p->epoch);
    hf_sip_stateless_branch(r->m, hf_slice(salt, hf_wr_len(&w)), r->e->keys.branch, ret_branch);
}

/* Over a connection: if it is broken, somebody must say so. From a connection to a peer: if that
 * dies, as who sent it does not send it again. */
static void keep_sent(struct hf_el_req *r, const struct hf_sip_flow *to, uint16_t server)
{
    struct hf_sip_element *e = r->e;
    if ((!to->conn && !(server && r->from->conn)) || r->m->used_n > sizeof(e->sent->text) ||
        r->m->method == HF_SIP_ACK) {
        return;
    }
    e->sent = e->sent ? e->sent : hf_alloc_array(HF_EL_SENT, sizeof(*e->sent));
    if (e->sent) {
        struct hf_el_sent *s = &e->sent[e->n_sent++ % HF_EL_SENT];
        s->conn = to->conn;
        s->server = server;
        s->at = r->now;
        s->from = *r->from;
        s->n = (uint16_t)r->m->used_n;
        memcpy(s->text, r->m->text.p, r->m->used_n);
    }
}

/* Nobody else will answer it, or has long done so: then the client passes over this one. */
static void answer_sent(struct hf_sip_element *e, struct hf_el_sent *s, uint16_t status,
                        hf_time now)
{
    struct hf_el_known none = {0};
    struct hf_el_req r = {.e = e, .m = &e->again, .from = &s->from, .now = now, .known = &none};
    bool late = now - s->at >= HF_EL_PATIENCE;
    s->conn = 0;
    s->server = 0;
    if (late || hf_sip_parse(hf_slice(s->text, s->n), false, &e->again)) {
        return;
    }
    if (status == 503) {
        hf_el_refuse(&r, 503, hf_sip_retry_after((uint32_t)hf_prng_u64(&e->prng), 1, 4));
    } else {
        hf_el_respond(&r, status, NULL);
    }
}

void hf_el_broken(struct hf_sip_element *e, const struct hf_sip_flow *to, hf_time now)
{
    for (size_t i = 0; e->sent && to->conn && i < HF_EL_SENT; i++) {
        if (e->sent[i].conn == to->conn) {
            answer_sent(e, &e->sent[i], 430, now); /* RFC 5626 5.3.1 */
        }
    }
}

void hf_el_unanswered(struct hf_sip_element *e, uint16_t server, hf_time now)
{
    for (size_t i = 0; e->sent && server && i < HF_EL_SENT; i++) {
        if (e->sent[i].server == server) {
            answer_sent(e, &e->sent[i], 503, now);
        }
    }
}

/* What goes on after a 100 is repeated by us (16.11: who is without state sends none). */
static void forward_with_state(struct hf_el_req *r, const struct plan *p,
                               const struct hf_sip_forward *how)
{
    struct hf_sip_element *e = r->e;
    struct hf_sip_target target = {.uri = p->uri, .route = p->route, .to = *p->to};
    char branch[HF_SIP_OWN_BRANCH_LEN];
    uint8_t fields[256];
    struct hf_wr w;
    hf_sip_proxy_branch(e->proxy, branch);
    target.branch = hf_slice(branch, sizeof(branch));
    hf_wr_init(&w, fields, sizeof(fields));
    if (p->mark) {
        hf_sip_mark_put(&w, &e->keys, r->m, target.branch, p->mark);
    }
    int rc = hf_wr_end(&w, &target.fields);
    rc = rc ? rc : hf_sip_proxy_fork(e->proxy, r->m, r->from, how, &target, 1, r->now);
    if (rc == -HF_EVALUE) {
        hf_el_respond(r, 483, NULL);
    } else if (rc) {
        hf_el_refuse(r, 503, hf_sip_retry_after(r->f.random, 5, 20));
    }
}

static void forward(struct hf_el_req *r, const struct plan *p)
{
    struct hf_sip_element *e = r->e;
    const struct hf_el_listen *l = hf_el_listen_at(e, p->to);
    char branch[HF_SIP_BRANCH_LEN], back[HF_SIP_BACK_LEN];
    uint8_t rr[2 * (HF_SIP_TOKEN_MAX + 256)];
    struct hf_slice s;
    struct hf_wr w;
    salted_branch(r, p, branch);
    hf_sip_back_make(&e->keys,
                     &(struct hf_sip_back){.listen = hf_el_listen_at(e, r->from)->id,
                                           .conn = r->from->conn,
                                           .loop = hf_el_loop(r)},
                     hf_slice(branch, sizeof(branch)), back);
    struct hf_sip_forward how = {
        .uri = p->uri,
        .transport = (enum hf_sip_transport)p->to->transport,
        .sent_by = l->sent_by,
        .branch = hf_slice(branch, sizeof(branch)),
        .via_params = hf_slice(back, sizeof(back)),
        .source = &r->from->peer,
        .route = p->route,
        .pop_routes = p->pop,
        .pop_last_route = p->pop_last,
        .drop = 1ULL << HF_SIP_H_HOLDFAST_HOP,
        .hop = r->f.mark.hop,
    };
    if (p->record) {
        how.record_route = record(r, p, rr, sizeof(rr));
    } else if (p->path) {
        how.path = path(r, p, rr, sizeof(rr));
    }
    if (was_tried(e, r->m)) {
        forward_with_state(r, p, &how);
        return;
    }
    hf_wr_init(&w, e->out, sizeof(e->out));
    int rc = hf_sip_begin_forward(&w, r->m, &how);
    if (p->mark) {
        hf_sip_mark_put(&w, &e->keys, r->m, how.branch, p->mark);
    }
    rc = rc ? rc : hf_sip_end(&w, hf_slice(NULL, 0), r->m->body, &s);
    if (rc) {
        hf_el_respond(r, rc == -HF_EVALUE ? 483 : rc == -HF_EFULL ? 513 : 400, NULL);
        return;
    }
    keep_sent(r, p->to, p->server);
    hf_el_send(e, p->to, s);
}

/* UDP if it fits, what the client used if that is better protected. */
static int peer_flow(const struct hf_el_req *r, uint16_t server, struct hf_sip_flow *ret_to)
{
    static const uint8_t order[3][3] = {
        {HF_SIP_TRANSPORT_UDP, HF_SIP_TRANSPORT_TCP, HF_SIP_TRANSPORT_TLS},
        {HF_SIP_TRANSPORT_TCP, HF_SIP_TRANSPORT_TLS, HF_SIP_TRANSPORT_UDP},
        {HF_SIP_TRANSPORT_TLS, HF_SIP_TRANSPORT_TCP, HF_SIP_TRANSPORT_UDP}};
    const struct hf_el_peer *p = server < HF_SIP_SERVERS_MAX ? r->e->peer[server] : NULL;
    unsigned by = r->from->transport == HF_SIP_TRANSPORT_TLS ? 2 : r->m->used_n > UDP_MAX ? 1 : 0;
    for (size_t i = 0; p && i < 3; i++) {
        unsigned t = order[by][i];
        if (to_address(r->e, t, &p->at[t], ret_to) == 1) {
            return 1;
        }
    }
    return -HF_ENOTFOUND;
}

/* Makes a dialog, in which requests must find their way by us. */
static bool makes_dialog(const struct hf_sip_msg *m)
{
    return m->method == HF_SIP_INVITE || m->method == HF_SIP_SUBSCRIBE ||
           m->method == HF_SIP_REFER || m->method == HF_SIP_NOTIFY;
}

void hf_el_to_peer(struct hf_el_req *r, uint16_t server, const struct hf_sip_mark *mark,
                   uint64_t epoch)
{
    struct hf_sip_element *e = r->e;
    struct hf_sip_flow to;
    const struct hf_el_listen *l = hf_el_listen_at(e, r->from);
    if (peer_flow(r, server, &to) != 1) {
        hf_el_refuse(r, 503, hf_sip_retry_after(r->f.random, 1, 4));
        return;
    }
    bool client = !r->f.from_peer && (e->conf.role == HF_SIP_ROLE_EDGE && l->c.external);
    /* who came over a connection can be called by that alone */
    bool path = r->m->method == HF_SIP_REGISTER && !r->f.from_peer &&
                (client || (r->from->conn && r->m->n_vias == 1));
    e->count.proxied += mark != NULL;
    forward(r, &(struct plan){.to = &to,
                              .pop = r->route.pop,
                              .mark = mark,
                              .epoch = epoch,
                              .server = server,
                              .path = path,
                              .record = client && makes_dialog(r->m)});
}

/* --- by their route --- */

/* RFC 3261 16.6 step 6: the next one routes strictly: it wants to be the Request-URI. */
static struct hf_slice strictly(struct hf_el_req *r, uint8_t *room, size_t n, size_t *ret_pop)
{
    struct hf_sip_walk walk;
    struct hf_sip_address a;
    struct hf_slice s = {NULL, 0};
    struct hf_wr w;
    size_t i = 0;
    hf_wr_init(&w, room, n);
    hf_sip_walk_begin(&walk, r->m, HF_SIP_H_ROUTE);
    for (; hf_sip_walk_address(&walk, &a) == 1; i++) {
        if (i > r->route.pop) {
            hf_wr_bytes(&w, a.text);
            hf_wr_bytes(&w, S(", "));
        }
    }
    hf_wr_bytes(&w, S("<"));
    hf_wr_bytes(&w, r->route.uri.text);
    hf_wr_bytes(&w, S(">"));
    *ret_pop = i;
    return hf_wr_end(&w, &s) ? hf_slice(NULL, 0) : s;
}

static void by_route(struct hf_el_req *r, const struct hf_sip_flow *flow)
{
    uint8_t room[4096];
    struct hf_slice lr;
    struct plan p = {.to = flow,
                     .uri = r->route.strict ? r->route.uri.text : hf_slice(NULL, 0),
                     .pop = r->route.pop,
                     .pop_last = r->route.strict,
                     .record = r->f.kind != HF_SIP_KIND_DIALOG && makes_dialog(r->m) &&
                               r->e->conf.role == HF_SIP_ROLE_EDGE,
                     .record_to = !r->route.from_flow};
    if (r->route.more && !r->route.strict && !hf_sip_uri_param(&r->route.next.uri, "lr", &lr)) {
        size_t pop;
        p.route = strictly(r, room, sizeof(room), &pop);
        p.uri = r->route.next.uri.text;
        p.pop = (uint8_t)pop;
    }
    forward(r, &p);
}

/* --- who has moved --- */

static struct hf_el_moved *moved_set(const struct hf_sip_element *e, uint64_t hash)
{
    return &e->moved[hash % (HF_EL_MOVED / WAYS) * WAYS];
}

void hf_el_moved(struct hf_sip_element *e, struct hf_slice aor, const struct hf_sip_row *before,
                 hf_time now)
{
    uint64_t hash = hf_hash(aor, e->conf.seed);
    e->moved = e->moved ? e->moved : hf_alloc_array(HF_EL_MOVED, sizeof(*e->moved));
    if (!e->moved) {
        return;
    }
    struct hf_el_moved *set = moved_set(e, hash), *oldest = set;
    for (size_t i = 1; i < WAYS; i++) {
        oldest = set[i].at < oldest->at ? &set[i] : oldest;
    }
    *oldest = (struct hf_el_moved){
        .aor = hash, .epoch = before->epoch, .at = now, .from = before->current};
}

/* A call may be where it was sent without state before its AoR moved: what belongs to its
 * transaction goes there, too, by the same branch, which the epoch makes; but what comes from a
 * server of ours has been sent there by that. false: there is no such place. */
static bool to_former_homes(struct hf_el_req *r)
{
    const struct hf_sip_element *e = r->e;
    struct hf_sip_back back;
    uint64_t hash = hf_hash(r->aor, e->conf.seed);
    bool any = false;
    if (!e->moved || hf_sip_back_get(&e->keys, &r->m->via, &back) == 0) {
        return false;
    }
    const struct hf_el_moved *set = moved_set(e, hash);
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].aor == hash && set[i].epoch > 0 && r->now - set[i].at <= RINGS &&
            hf_sip_fleet_alive(e->fleet, set[i].from)) {
            hf_el_to_peer(r, set[i].from, NULL, set[i].epoch);
            any = true;
        }
    }
    return any;
}

/* In a dialog with one of ours as target: its home knows. */
static void to_home(struct hf_el_req *r)
{
    const struct hf_sip_msg *m = r->m;
    struct hf_sip_row row;
    bool answers = m->method != HF_SIP_ACK;
    bool quiet = m->method == HF_SIP_ACK || m->method == HF_SIP_CANCEL;
    if (!r->aor.n) { /* a dialog of a server's own: the AoR that is watched is To's */
        bool foreign;
        r->aor = hf_el_aor(r->e, &m->to.uri, r->aor_text, &foreign);
    }
    if (!r->aor.n || !hf_sip_assign_get(r->e->assign, r->aor, &row)) {
        if (answers) {
            hf_el_respond(r, 481, NULL);
        }
        return;
    }
    bool sent = quiet && to_former_homes(r);
    if (row.current != r->e->self && hf_sip_fleet_alive(r->e->fleet, row.current) &&
        !r->f.from_peer) {
        struct hf_sip_mark mark = {.hop = 1, .epoch = row.epoch};
        hf_el_to_peer(r, row.current, quiet ? NULL : &mark, row.epoch);
        return;
    }
    if (row.current == r->e->self && !quiet && !r->at_server) {
        hf_el_call(r);
    } else if (answers && !sent) {
        hf_el_respond(r, 481, NULL);
    }
}

/* An ACK for what we answered without state: it has done its work. */
static bool is_own_ack(const struct hf_el_req *r)
{
    char tag[16];
    hf_sip_stateless_tag(r->m, r->e->keys.tag, tag);
    return r->m->method == HF_SIP_ACK &&
           hf_slice_eq(hf_sip_address_tag(&r->m->to), hf_slice(tag, sizeof(tag)));
}

/* The INVITE still waits: both are answered here. */
static bool cancels_waiting(struct hf_el_req *r)
{
    struct hf_el_wait *w =
        r->m->method == HF_SIP_CANCEL ? hf_el_waiting_key(r->e, hf_el_key(r->m, true)) : NULL;
    if (!w) {
        return false;
    }
    hf_el_respond(r, 200, NULL);
    struct hf_el_req invite = {
        .e = r->e, .m = &r->e->again, .from = &w->from, .now = r->now, .known = &w->known};
    if (hf_sip_parse(w->text, false, &r->e->again) == 0) {
        hf_el_respond(&invite, 487, NULL);
    }
    hf_el_wait_free(r->e, w);
    return true;
}

void hf_el_pass(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    struct hf_sip_flow to;
    bool external = hf_el_listen_at(e, r->from)->c.external;
    if (is_own_ack(r) || cancels_waiting(r)) {
        return;
    }
    if (r->m->max_forwards == 0) {
        hf_el_respond(r, 483, NULL);
        return;
    }
    if (r->route.has_flow && !r->route.from_flow) {
        by_route(r, &r->route.flow);
        return;
    }
    if (!r->route.more && !r->foreign) {
        to_home(r);
        return;
    }
    if (external && !r->route.has_flow) { /* nobody's relay: who is in a dialog has our token */
        hf_el_respond(r, 403, NULL);
        return;
    }
    const struct hf_sip_uri *uri = r->route.more ? &r->route.next.uri : &r->route.uri;
    int rc = hf_el_where_for(r, uri, &to);
    if (rc < 0) {
        hf_el_respond(r, uri->scheme > HF_SIP_SCHEME_SIPS ? 416 : 503, NULL);
    } else if (rc == 1) {
        by_route(r, &to);
    }
}

/* --- responses --- */

void hf_el_relay(struct hf_sip_element *e, const struct hf_sip_msg *m,
                 const struct hf_sip_flow *from)
{
    struct hf_sip_back back;
    struct hf_sip_walk walk;
    struct hf_sip_via via;
    struct hf_slice s;
    struct hf_wr w;
    (void)from;
    const struct hf_el_listen *l = NULL;
    if (hf_sip_back_get(&e->keys, &m->via, &back) == 0) {
        l = hf_el_listen_by_id(e, back.listen);
    }
    hf_sip_walk_begin(&walk, m, HF_SIP_H_VIA);
    if (!l || hf_sip_walk_via(&walk, &via) != 1 || hf_sip_walk_via(&walk, &via) != 1) {
        e->count.malformed++;
        return;
    }
    struct hf_sip_flow to = {.transport = l->c.transport, .local = l->c.at, .conn = back.conn};
    uint16_t port = via.sent_by.port ? via.sent_by.port
                                     : hf_sip_transport_port((enum hf_sip_transport)to.transport);
    to.peer.port = via.rport ? via.rport : port;
    if (via.received.n) {
        to.peer.family = hf_sip_ipv4(via.received, to.peer.addr)   ? HF_AF_INET
                         : hf_sip_ipv6(via.received, to.peer.addr) ? HF_AF_INET6
                                                                   : HF_AF_NONE;
    } else if (via.sent_by.kind != HF_SIP_HOST_NAME) {
        to.peer.family = via.sent_by.kind == HF_SIP_HOST_IPV6 ? HF_AF_INET6 : HF_AF_INET;
        memcpy(to.peer.addr, via.sent_by.addr, to.peer.family == HF_AF_INET6 ? 16 : 4);
    }
    hf_wr_init(&w, e->out, sizeof(e->out));
    if ((to.peer.family == HF_AF_NONE && !to.conn) || hf_sip_begin_relay(&w, m) ||
        hf_sip_end(&w, hf_slice(NULL, 0), m->body, &s)) {
        e->count.malformed++;
        return;
    }
    hf_el_send(e, &to, s);
}
