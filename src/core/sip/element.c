/* One worker of a SIP server: which part of it a message, a result or an instant belongs to. */
#include "core/sip/element.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "core/sip/element_impl.h"
#include "core/sip/fields.h"
#include "core/sip/steer_inline.h"

static void el_trace(struct hf_sip_element *e, struct hf_slice aor, const char *what,
                     const struct hf_sip_flow *flow, struct hf_slice text);

#define WAYS 4u

/* --- who has what --- */

unsigned hf_sip_element_owner_aor(struct hf_slice aor, unsigned n_workers)
{
    const uint8_t *from = aor.n ? memchr(aor.p, ':', aor.n) : NULL;
    const uint8_t *to = aor.n ? memchr(aor.p, '@', aor.n) : NULL;
    if (from && to > from) {
        aor = hf_slice(from + 1, (size_t)(to - from - 1));
    }
    uint32_t hash = HF_STEER_HASH;
    for (size_t i = 0; i < aor.n; i++) {
        hash = hf_steer_add(hash, aor.p[i]);
    }
    return n_workers > 1 ? hf_steer_worker(hash, n_workers) : 0;
}

unsigned hf_sip_element_owner(const struct hf_sip_msg *msg, unsigned n_workers)
{
    uint8_t room[HF_SIP_AOR_MAX];
    struct hf_slice s, value;
    struct hf_wr w;
    if (n_workers <= 1) {
        return 0;
    }
    int by = msg->request ? -1 : hf_sip_branch_worker(msg->via.branch);
    if (by >= 0 && (unsigned)by < n_workers) {
        return (unsigned)by;
    }
    if (!msg->request) { /* what all know how to relay: no reason to hand it over */
        return by < 0 ? n_workers : hf_sip_bucket(msg->call_id) % n_workers;
    }
    const struct hf_sip_uri *u = msg->method == HF_SIP_REGISTER ? &msg->to.uri : &msg->uri;
    if (u->params.n && hf_sip_uri_param(u, "hfw", &value)) { /* a dialog of this worker's own */
        struct hf_sip_cur c = hf_sip_cur(value);
        uint64_t n;
        if (hf_sip_number(&c, UINT8_MAX, &n) == 0 && n < n_workers) {
            return (unsigned)n;
        }
    }
    hf_wr_init(&w, room, sizeof(room));
    if (u->scheme == HF_SIP_SCHEME_OTHER || (!u->host.text.n && !u->user.n) || hf_sip_aor(u, &w) ||
        hf_wr_end(&w, &s)) {
        return hf_sip_bucket(msg->call_id) % n_workers;
    }
    return hf_sip_element_owner_aor(s, n_workers);
}

/* --- time, sending, tracing --- */

uint32_t hf_el_wall_s(const struct hf_sip_element *e, hf_time now)
{
    return now > e->wall_at ? e->wall_s + (uint32_t)((now - e->wall_at) / HF_NS_PER_S) : e->wall_s;
}

static void is_now(struct hf_sip_element *e, hf_time now, uint32_t wall_s)
{
    e->now = e->wall_at = now;
    e->wall_s = wall_s;
}

void hf_el_send(struct hf_sip_element *e, const struct hf_sip_flow *to, struct hf_slice message)
{
    if (e->n_traced) {
        el_trace(e, hf_slice(NULL, 0), "send", to, message);
    }
    e->sending = true;
    e->ops.send(e->ctx, to, message);
    e->sending = false;
}

/* aor empty: by the message, if it names who is traced. */
static void el_trace(struct hf_sip_element *e, struct hf_slice aor, const char *what,
                     const struct hf_sip_flow *flow, struct hf_slice text)
{
    struct hf_slice traced = hf_slice(e->traced, e->n_traced);
    if (!e->n_traced || !e->ops.trace) {
        return;
    }
    struct hf_slice bare =
        hf_slice_starts(traced, S("sip:")) ? hf_slice(traced.p + 4, traced.n - 4) : traced;
    for (size_t i = 0; !aor.n && i + bare.n <= text.n && i < 4096; i++) {
        if (hf_slice_eq(hf_slice(text.p + i, bare.n), bare)) {
            aor = traced;
        }
    }
    if (hf_slice_eq(aor, traced)) {
        e->ops.trace(e->ctx, traced, what, flow, text);
    }
}

static void unreachable(struct hf_sip_element *e, const struct hf_sip_flow *to)
{
    if (to->conn) {
        hf_el_conn_closed(e, to->conn, e->now);
        hf_el_broken(e, to, e->now);
    }
    hf_sip_proxy_unreachable(e->proxy, to, e->now);
}

/* What the proxy and the notifier said, and what is broken as sending has shown, is told when
 * nobody is inside them any more. */
static void drain(struct hf_sip_element *e)
{
    while (e->n_broken) {
        struct hf_sip_flow to = e->broken[--e->n_broken];
        unreachable(e, &to);
    }
    hf_el_end_lost(e, e->now);
    for (size_t i = 0; i < e->n_said; i++) { /* more may be said meanwhile */
        struct hf_el_said s = e->said[i];
        hf_sip_notifier_answered(e->notifier, s.cookie, s.status, s.has_msg ? e->response : NULL,
                                 e->now);
    }
    e->n_said = 0;
}

static void proxy_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    hf_el_send(ctx, to, message);
}

static void proxy_answered(void *ctx, uint64_t cookie, uint16_t status,
                           const struct hf_sip_msg *msg)
{
    struct hf_sip_element *e = ctx;
    hf_el_say(e, cookie, status, msg && msg == e->response);
}

/* Silence and 503 say nothing of the next call: such a binding stays until it ends by itself. */
static void proxy_failed(void *ctx, struct hf_slice aor, uint64_t cookie, uint16_t status)
{
    if (status == 430 && aor.n) {
        hf_el_lost(ctx, aor, cookie);
    }
}

static const struct hf_sip_binding *notifier_bindings(void *ctx, struct hf_slice aor)
{
    const struct hf_sip_element *e = ctx;
    return hf_sip_registrar_find(e->registrar, aor);
}

static uint64_t notifier_epoch(void *ctx, struct hf_slice aor)
{
    const struct hf_sip_element *e = ctx;
    struct hf_sip_row row;
    return hf_sip_assign_get(e->assign, aor, &row) ? row.epoch : 0;
}

static int may_watch(void *ctx, struct hf_slice watcher, enum hf_sip_package p, struct hf_slice aor)
{
    return hf_el_may_watch(ctx, watcher, p, aor);
}

/* --- life and death --- */

static struct hf_slice keep(uint8_t **at, struct hf_slice s)
{
    struct hf_slice kept = hf_slice(*at, s.n);
    if (s.n) {
        memcpy(*at, s.p, s.n);
    }
    *at += s.n;
    return kept;
}

static int copy_conf(struct hf_sip_element *e, const struct hf_sip_element_conf *c)
{
    size_t n = c->name.n + c->realm.n + c->service_route.n + HF_SIP_NONCE_KEY_LEN;
    for (size_t i = 0; i < c->n_domains; i++) {
        n += c->domain[i].n;
    }
    for (size_t i = 0; i < c->n_watchers; i++) {
        n += c->watchers[i].n;
    }
    for (size_t i = 0; i < c->n_listen; i++) {
        n += 2 * c->listen[i].host.n + 8;
    }
    e->texts = hf_alloc(n);
    e->domain = hf_alloc_array(c->n_domains + 1, sizeof(*e->domain));
    e->watchers = hf_alloc_array(c->n_watchers + 1, sizeof(*e->watchers));
    e->listen = hf_alloc_array(c->n_listen, sizeof(*e->listen));
    e->edge = hf_alloc_array(c->n_edges + 1, sizeof(*e->edge));
    if (!e->texts || !e->domain || !e->watchers || !e->listen || !e->edge) {
        return -ENOMEM;
    }
    uint8_t *at = e->texts;
    e->conf = *c;
    e->conf.name = keep(&at, c->name);
    e->conf.realm = keep(&at, c->realm);
    e->conf.service_route = keep(&at, c->service_route);
    e->conf.key = keep(&at, hf_slice(c->key, HF_SIP_NONCE_KEY_LEN)).p;
    for (size_t i = 0; i < c->n_domains; i++) {
        e->domain[i] = keep(&at, c->domain[i]);
    }
    for (size_t i = 0; i < c->n_watchers; i++) {
        e->watchers[i] = keep(&at, c->watchers[i]);
    }
    for (size_t i = 0; i < c->n_listen; i++) {
        struct hf_el_listen *l = &e->listen[i];
        struct hf_sip_cur cur;
        struct hf_wr w;
        l->c = c->listen[i];
        l->c.host = keep(&at, c->listen[i].host);
        l->id = hf_sip_listen_id(l->c.transport, &l->c.at);
        l->away = l->c.elsewhere;
        e->n_away += l->away;
        cur = hf_sip_cur(l->c.host);
        if (l->c.transport > HF_SIP_TRANSPORT_TLS || hf_sip_host_parse(&cur, false, &l->host) ||
            !hf_sip_done(&cur) || l->host.port) {
            return -HF_EVALUE;
        }
        hf_wr_init(&w, at, l->c.host.n + 8);
        hf_wr_bytes(&w, l->c.host);
        if (l->c.at.port != hf_sip_transport_port((enum hf_sip_transport)l->c.transport)) {
            hf_wr_bytes(&w, S(":"));
            hf_sip_put_u64(&w, l->c.at.port);
        }
        l->sent_by = hf_slice(at, hf_wr_len(&w));
        at += l->sent_by.n;
    }
    if (c->n_edges) {
        memcpy(e->edge, c->edge, c->n_edges * sizeof(*e->edge));
    }
    return 0;
}

#define DEFAULT(field, value) c->field = c->field ? c->field : (value)
static void defaults(struct hf_sip_element_conf *c)
{
    DEFAULT(n_workers, 1);
    DEFAULT(nonce_life_s, 300);
    DEFAULT(expires_default_s, 3600);
    DEFAULT(expires_min_s, 60);
    DEFAULT(expires_max_s, 7200);
    DEFAULT(bindings_max, 1000000);
    DEFAULT(transactions_max, 100000);
    DEFAULT(requests_max, 20000);
    DEFAULT(source_rate, 200);
    DEFAULT(algorithms, 1u << HF_SIP_SHA512_256 | 1u << HF_SIP_SHA256);
    c->source_rate = c->source_rate > 4000000 ? 4000000 : c->source_rate;
}

/* As many sets as a quarter of the bindings, a power of two, up to `most`. */
static uint32_t sets(size_t bindings, uint32_t most)
{
    uint32_t n = 64;
    while (n < bindings / WAYS && n < most) {
        n *= 2;
    }
    return n;
}

static int make_parts(struct hf_sip_element *e, hf_time now)
{
    const struct hf_sip_element_conf *c = &e->conf;
    int rc = hf_sip_fleet_create(&e->fleet);
    rc = rc ? rc : hf_sip_fleet_add(e->fleet, c->name, &e->self);
    rc = rc ? rc
            : hf_sip_assign_create(&(struct hf_sip_assign_conf){.self = e->self,
                                                                .seed = c->seed,
                                                                .bytes_max = c->cache_max},
                                   now, &e->assign);
    rc = rc ? rc
            : hf_sip_registrar_create(
                  &(struct hf_sip_registrar_limits){.bindings_max = c->bindings_max,
                                                    .expires_default_s = c->expires_default_s,
                                                    .expires_min_s = c->expires_min_s,
                                                    .expires_max_s = c->expires_max_s,
                                                    .service_route = c->service_route,
                                                    .seed = c->seed + 1},
                  now, &e->registrar);
    rc = rc ? rc
            : hf_sip_proxy_create(
                  &(struct hf_sip_proxy_conf){.worker = c->worker,
                                              .seed = c->seed + 2,
                                              .transactions_max = c->transactions_max},
                  &(struct hf_sip_proxy_ops){
                      .send = proxy_send, .answered = proxy_answered, .failed = proxy_failed},
                  e, &e->proxy);
    snprintf(e->contact, sizeof(e->contact), "<sip:%.*s%s;hfw=%u>",
             HF_SLICE_FMT(e->listen[0].sent_by),
             e->listen[0].c.transport == HF_SIP_TRANSPORT_UDP   ? ""
             : e->listen[0].c.transport == HF_SIP_TRANSPORT_TCP ? ";transport=tcp"
                                                                : ";transport=tls",
             c->worker);
    rc = rc ? rc
            : hf_sip_notifier_create(
                  &(struct hf_sip_notifier_conf){
                      .watch = {.seed = c->seed + 3, .subs_max = (uint32_t)c->subs_max},
                      .contact = hf_slice_str(e->contact),
                      .seed = c->seed + 4},
                  &(struct hf_sip_notifier_ops){.reply = proxy_send,
                                                .hold = hf_el_hold_kept,
                                                .notify = hf_el_notify,
                                                .store = hf_el_store_kept,
                                                .bindings = notifier_bindings,
                                                .epoch = notifier_epoch,
                                                .may_watch = may_watch},
                  e, now, &e->notifier);
    return rc;
}

int hf_sip_element_create(const struct hf_sip_element_conf *conf,
                          const struct hf_sip_element_ops *ops, void *ctx, hf_time now,
                          uint32_t wall_s, struct hf_sip_element **ret_element)
{
    if (conf->n_listen == 0 || conf->worker >= (conf->n_workers ? conf->n_workers : 1) ||
        conf->role >= HF_SIP_ROLE_COUNT_) {
        return -HF_EVALUE;
    }
    struct hf_sip_element *e = hf_alloc(sizeof(*e));
    if (!e) {
        return -ENOMEM;
    }
    e->ops = *ops;
    e->ctx = ctx;
    is_now(e, now, wall_s);
    hf_prng_init(&e->prng, conf->seed ^ conf->worker);
    struct hf_map *maps[] = {&e->by_cookie, &e->by_key,      &e->binding,      &e->keeping,
                             &e->loads,     &e->secrets,     &e->flows,        &e->conns,
                             &e->dirty,     &e->known_peers, &e->untold_by_aor};
    for (size_t i = 0; i < HF_ARRAY_LEN(maps); i++) {
        hf_map_init(maps[i], conf->seed + i);
    }
    hf_list_init(&e->waits);
    hf_list_init(&e->trying);
    hf_list_init(&e->to_load);
    hf_list_init(&e->secrets_age);
    hf_list_init(&e->dirties);
    hf_list_init(&e->lost);
    hf_list_init(&e->untold);
    hf_list_init(&e->to_tell);
    e->cookie = HF_EL_NOBODY;
    int rc = copy_conf(e, conf);
    if (rc == 0) {
        defaults(&e->conf);
        e->nonce_sets = sets(e->conf.bindings_max, 1u << 18);
        e->rate_sets = sets(e->conf.bindings_max, 1u << 12);
        e->redirected_sets = sets(e->conf.bindings_max, 1u << 14);
        e->nonce = hf_alloc_array((size_t)e->nonce_sets * WAYS, sizeof(*e->nonce));
        e->rate = hf_alloc_array((size_t)e->rate_sets * WAYS, sizeof(*e->rate));
        e->redirected = hf_alloc_array((size_t)e->redirected_sets * WAYS, sizeof(*e->redirected));
        rc = e->nonce && e->rate && e->redirected ? 0 : -ENOMEM;
    }
    rc = rc ? rc : hf_sip_keys_make(e->conf.key, &e->keys);
    rc = rc ? rc : make_parts(e, now);
    if (rc) {
        hf_sip_element_destroy(e);
        return rc;
    }
    *ret_element = e;
    return 0;
}

void hf_sip_element_destroy(struct hf_sip_element *e)
{
    if (!e) {
        return;
    }
    hf_sip_notifier_destroy(e->notifier);
    hf_sip_proxy_destroy(e->proxy);
    hf_sip_registrar_destroy(e->registrar);
    hf_sip_assign_destroy(e->assign);
    hf_sip_fleet_destroy(e->fleet);
    hf_el_waits_fini(e);
    hf_el_registers_fini(e);
    hf_el_untold_fini(e);
    hf_el_secrets_fini(e);
    size_t pos = 0;
    for (void *p; (p = hf_map_next(&e->known_peers, &pos));) {
        hf_free(p);
    }
    hf_map_fini(&e->known_peers);
    for (size_t i = 0; i < HF_SIP_SERVERS_MAX; i++) {
        if (e->peer[i]) {
            hf_free((void *)(uintptr_t)e->peer[i]->host.p);
            hf_free(e->peer[i]);
        }
    }
    hf_free(e->nonce);
    hf_free(e->rate);
    hf_free(e->redirected);
    hf_free(e->moved);
    hf_free(e->sent);
    hf_free(e->said);
    hf_free(e->texts);
    hf_free(e->domain);
    hf_free(e->watchers);
    hf_free(e->listen);
    hf_free(e->edge);
    hf_free(e);
}

/* --- peers --- */

/* Who comes from there is not limited. */
static int know_address(struct hf_sip_element *e, const struct hf_endpoint *at)
{
    size_t n = at->family == HF_AF_INET6 ? 16 : 4;
    if (at->family == HF_AF_NONE || hf_map_get(&e->known_peers, hf_slice(at->addr, n))) {
        return 0;
    }
    uint8_t *p = hf_alloc(16);
    if (!p) {
        return -ENOMEM;
    }
    memcpy(p, at->addr, n);
    int rc = hf_map_put(&e->known_peers, hf_slice(p, n), p);
    if (rc) {
        hf_free(p);
    }
    return rc;
}

/* Its service address: it sends from there, too. */
static int know_host(struct hf_sip_element *e, const struct hf_sip_host *host)
{
    bool v6 = host->kind == HF_SIP_HOST_IPV6;
    struct hf_endpoint at = {.family = v6 ? HF_AF_INET6 : HF_AF_INET};
    if (host->kind == HF_SIP_HOST_NAME) {
        return 0;
    }
    memcpy(at.addr, host->addr, v6 ? 16 : 4);
    return know_address(e, &at);
}

int hf_sip_element_peer(struct hf_sip_element *e, const struct hf_sip_peer *peer,
                        uint16_t *ret_number)
{
    uint16_t number;
    struct hf_sip_host host = {0};
    struct hf_sip_cur c = hf_sip_cur(peer->host);
    if (peer->host.n && (hf_sip_host_parse(&c, false, &host) || !hf_sip_done(&c) || host.port)) {
        return -HF_EVALUE;
    }
    int rc = hf_sip_fleet_add(e->fleet, peer->name, &number);
    if (rc) {
        return rc;
    }
    struct hf_el_peer *p = e->peer[number] ? e->peer[number] : hf_alloc(sizeof(*p));
    uint8_t *text = p && peer->host.n ? hf_alloc(peer->host.n) : NULL;
    if (!p || (peer->host.n && !text)) {
        if (p != e->peer[number]) {
            hf_free(p);
        }
        return -ENOMEM;
    }
    e->peer[number] = p;
    if (peer->host.n) {
        hf_free((void *)(uintptr_t)p->host.p);
        memcpy(text, peer->host.p, peer->host.n);
        p->host = hf_slice(text, peer->host.n);
        c = hf_sip_cur(p->host);
        (void)!hf_sip_host_parse(&c, false, &p->parsed); /* as before */
        rc = know_host(e, &p->parsed);
    }
    for (size_t i = 0; i < 3; i++) {
        p->at[i] = peer->at[i];
        rc = rc ? rc : know_address(e, &p->at[i]);
    }
    bool was_alive = hf_sip_fleet_alive(e->fleet, number);
    hf_sip_fleet_set(e->fleet, number, &peer->now);
    bool same_life = hf_sip_fleet_alive(e->fleet, number) && p->boot == peer->boot;
    p->boot = peer->boot;
    if (was_alive && !same_life) {
        hf_el_died(e, number);
        hf_el_unanswered(e, number, e->now);
    }
    *ret_number = number;
    return rc;
}

static void set_away(struct hf_sip_element *e, struct hf_el_listen *l, bool away)
{
    if (l->c.elsewhere && l->away != away) {
        l->away = away;
        e->n_away = away ? e->n_away + 1 : e->n_away - 1;
    }
}

void hf_sip_element_here(struct hf_sip_element *e, size_t i, bool here)
{
    assert(i < e->conf.n_listen);
    set_away(e, &e->listen[i], !here);
}

/* What comes by an address is the first to say that it is here. */
static void arrived(struct hf_sip_element *e, const struct hf_endpoint *at)
{
    for (size_t i = 0; i < e->conf.n_listen; i++) {
        if (hf_endpoint_same_addr(&e->listen[i].c.at, at)) {
            set_away(e, &e->listen[i], false);
        }
    }
}

void hf_sip_element_shed(struct hf_sip_element *e, enum hf_sip_shed shed)
{
    e->shed = shed;
}

void hf_sip_element_trace(struct hf_sip_element *e, struct hf_slice aor)
{
    e->n_traced = aor.n <= sizeof(e->traced) ? aor.n : 0;
    if (e->n_traced) {
        memcpy(e->traced, aor.p, aor.n);
    }
}

/* --- requests --- */

static void store_row(struct hf_el_req *r, enum hf_sip_op_kind kind, const struct hf_sip_row *row)
{
    struct hf_el_wait *w = hf_el_hold(r, HF_EL_FOR_ROW);
    if (w) {
        struct hf_sip_op op = {.kind = (uint8_t)kind, .cookie = w->cookie, .aor = w->aor};
        if (row) {
            op.row = *row;
            op.row.aor = w->aor;
            w->known.assigned = w->known.have_row ? 0 : row->epoch;
        }
        r->e->ops.store(r->e->ctx, &op);
    }
}

static void serve(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    struct hf_el_load *l = hf_el_loading(e, r->aor);
    if (r->v.learn) {
        hf_el_learn(e, r->aor, r->v.agent, r->f.agent_id);
    }
    if (l && !r->known->unloaded) {
        struct hf_el_wait *w = hf_el_hold(r, HF_EL_FOR_LOAD);
        if (w) {
            hf_list_insert(&l->waits, &w->node);
        }
        return;
    }
    switch (r->f.kind) {
    case HF_SIP_KIND_REGISTER:
        hf_el_register(r);
        break;
    case HF_SIP_KIND_STATE:
        hf_el_state(r);
        break;
    case HF_SIP_KIND_CALL:
    case HF_SIP_KIND_DIALOG:
        hf_el_call(r);
        break;
    }
}

static void assign(struct hf_el_req *r)
{
    struct hf_sip_row row = {
        .aor = r->aor, .home = r->v.target, .current = r->v.target, .epoch = r->v.epoch};
    store_row(r, HF_SIP_OP_ASSIGN, &row);
}

static void act(struct hf_el_req *r)
{
    switch (r->v.action) {
    case HF_SIP_PASS:
        hf_el_pass(r);
        break;
    case HF_SIP_SERVE:
        serve(r);
        break;
    case HF_SIP_REDIRECT:
        if (r->v.learn) {
            hf_el_learn(r->e, r->aor, r->v.agent, r->f.agent_id);
        }
        hf_el_redirect(r);
        break;
    case HF_SIP_PROXY:
        hf_el_to_peer(r, r->v.target, &r->v.mark, r->v.epoch);
        break;
    case HF_SIP_CHALLENGE:
        hf_el_challenge(r);
        break;
    case HF_SIP_READ:
        store_row(r, HF_SIP_OP_READ, NULL);
        break;
    case HF_SIP_ASSIGN:
        assign(r);
        break;
    case HF_SIP_REFUSE:
    case HF_SIP_ACTION_COUNT_:
        hf_el_refuse(r, (uint16_t)r->v.status, r->v.retry_after);
        break;
    }
}

/* Are they who they say? false: it is dealt with, or waits for the secret. */
static bool authenticate(struct hf_el_req *r)
{
    enum hf_el_auth a = r->f.credentials ? hf_el_authenticate(r) : HF_EL_AUTH_WRONG;
    switch (a) {
    case HF_EL_AUTH_GOOD:
        return true;
    case HF_EL_AUTH_HELD:
        return false;
    case HF_EL_AUTH_AWAY:
        hf_el_refuse(r, 503, hf_sip_retry_after(r->f.random, 5, 20));
        return false;
    case HF_EL_AUTH_MALFORMED:
        hf_el_respond(r, 400, "Malformed Credentials");
        return false;
    case HF_EL_AUTH_STALE:
        r->known->auth = (uint8_t)a;
        break;
    case HF_EL_AUTH_UNCHECKED:
    case HF_EL_AUTH_WRONG:
        break;
    }
    hf_el_challenge(r);
    return false;
}

static void ask_table(struct hf_el_req *r)
{
    hf_sip_decide(&r->f, &r->v);
    if (r->e->n_traced) {
        el_trace(r->e, r->aor, hf_sip_action_name(r->v.action), r->from,
                 hf_slice_str(hf_sip_rule_text(r->v.rule)));
    }
}

static void decide(struct hf_el_req *r)
{
    ask_table(r);
    if (r->v.action == HF_SIP_CHALLENGE) {
        if (!authenticate(r)) {
            return;
        }
        ask_table(r);
    }
    if (++r->known->n_decided > 4) { /* decide.h promises three */
        hf_el_refuse(r, 500, 0);
        return;
    }
    if (hf_el_forbidden(r)) {
        hf_el_respond(r, 403, NULL);
        return;
    }
    act(r);
}

/* To somebody who is not ours, or by a Route that is not: for our users only. */
static void outbound(struct hf_el_req *r)
{
    if (r->f.kind == HF_SIP_KIND_REGISTER) {
        hf_el_respond(r, 404, NULL);
    } else if (hf_el_listen_at(r->e, r->from)->c.external) {
        hf_el_respond(r, 403, NULL);
    } else if (!r->f.must_authenticate || r->f.authenticated || authenticate(r)) {
        hf_el_pass(r);
    }
}

/* A SUBSCRIBE in a dialog of ours. */
static bool watchers(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    bool foreign;
    if (r->m->method != HF_SIP_SUBSCRIBE || !hf_sip_notifier_has_dialog(e->notifier, r->m)) {
        return false;
    }
    r->aor = hf_el_aor(e, &r->m->to.uri, r->aor_text, &foreign);
    hf_el_state(r);
    return true;
}

void hf_el_handle(struct hf_el_req *r)
{
    static const char *const known[] = {NULL};
    struct hf_slice option;
    uint16_t status = hf_el_routes(r);
    status = status ? status : hf_el_facts(r);
    bool dialog = r->f.kind == HF_SIP_KIND_DIALOG;
    if (status) {
        hf_el_respond(r, status, NULL);
        return;
    }
    if (r->f.kind != HF_SIP_KIND_REGISTER && hf_el_loops(r)) {
        hf_el_respond(r, r->m->method == HF_SIP_CANCEL ? 481 : 482, NULL);
        return;
    }
    if (r->m->method != HF_SIP_ACK && r->m->method != HF_SIP_CANCEL &&
        hf_sip_has(r->m, HF_SIP_H_PROXY_REQUIRE) &&
        hf_sip_unknown_token(r->m, HF_SIP_H_PROXY_REQUIRE, known, &option) == 1) {
        struct hf_wr w;
        r->e->count.refused++;
        if (hf_el_begin(r->e, r->m, r->from, 420, NULL, &w)) {
            hf_sip_put_field(&w, HF_SIP_H_UNSUPPORTED, option);
            hf_el_end(r->e, r->m, r->from, &w);
        }
        return;
    }
    if (r->route.broken) {
        hf_el_respond(r, 430, NULL); /* RFC 5626 5.3.1: its home hears it at once */
    } else if (r->route.has_flow && !r->route.from_flow) {
        hf_el_pass(r);
    } else if (dialog && watchers(r)) {
        return;
    } else if (!dialog && (r->foreign || (r->route.more && r->f.kind != HF_SIP_KIND_REGISTER))) {
        outbound(r);
    } else if (!dialog && r->at_server && r->f.kind != HF_SIP_KIND_REGISTER) {
        hf_el_here(r);
    } else if (!dialog && !r->aor.n) {
        hf_el_respond(r, 404, NULL);
    } else {
        decide(r);
    }
}

static void request(struct hf_sip_element *e, const struct hf_sip_msg *msg,
                    const struct hf_sip_flow *from, hf_time now)
{
    struct hf_el_known known;
    struct hf_el_req r = {.e = e, .m = msg, .from = from, .now = now, .known = &known};
    /* not the whole of it: its answers are counted */
    memset(&known, 0, offsetof(struct hf_el_known, user_text));
    known.n_answers = 0;
    if (!hf_el_may(e, msg, &from->peer, now)) {
        e->count.limited++;
        return;
    }
    if (msg->fault != HF_SIP_OK) {
        e->count.malformed++;
        hf_el_respond(&r, hf_sip_fault_status(msg->fault), hf_sip_fault_text(msg->fault));
        return;
    }
    if (hf_sip_proxy_absorb(e->proxy, msg, from, now)) {
        return;
    }
    struct hf_el_wait *w = e->n_waits ? hf_el_waiting_key(e, hf_el_key(msg, false)) : NULL;
    if (w) {
        hf_el_again(e, w, now);
    } else {
        hf_el_handle(&r);
    }
}

static void response(struct hf_sip_element *e, const struct hf_sip_msg *msg,
                     const struct hf_sip_flow *from, hf_time now)
{
    if (msg->fault != HF_SIP_OK) {
        e->count.malformed++;
        return;
    }
    if (hf_sip_branch_worker(msg->via.branch) >= 0) {
        e->response = msg;
        (void)hf_sip_proxy_response(e->proxy, msg, from, now);
        drain(e);
        e->response = NULL;
        return;
    }
    hf_el_relay(e, msg, from);
}

void hf_sip_element_message(struct hf_sip_element *e, const struct hf_sip_msg *msg,
                            const struct hf_sip_flow *from, hf_time now, uint32_t wall_s)
{
    is_now(e, now, wall_s);
    if (e->n_away) {
        arrived(e, &from->local);
    }
    if (e->n_traced) {
        el_trace(e, hf_slice(NULL, 0), "recv", from, msg->text);
    }
    if (msg->request) {
        e->count.requests++;
        request(e, msg, from, now);
    } else {
        e->count.responses++;
        response(e, msg, from, now);
    }
    drain(e);
}

/* --- rows --- */

/* Who lives tells its watchers itself (D10); our own from before we started go on. A row that we
 * did not know as it was (before: HF_SIP_NONE) may have been anybody's: if nobody is dead, that of
 * one who lives, and whom he has not told in the end we tell. Who was dead just now may have lost
 * the row then: we may hear of that late, or too early that he is back. */
static enum hf_sip_former former_of(const struct hf_sip_element *e, uint16_t before)
{
    bool lives = before != HF_SIP_NONE && hf_el_tells(e, before);
    if (before == HF_SIP_NONE) {
        lives = true;
        for (uint16_t i = 0; i < hf_sip_fleet_count(e->fleet); i++) {
            lives = lives && (i == e->self || hf_el_tells(e, i));
        }
    }
    return !e->was_fresh ? HF_SIP_FORMER_SELF : lives ? HF_SIP_FORMER_ALIVE : HF_SIP_FORMER_DEAD;
}

void hf_el_row(struct hf_sip_element *e, const struct hf_sip_row *row, bool feed, bool inserted,
               hf_time now)
{
    struct hf_sip_row old;
    bool had = hf_sip_assign_get(e->assign, row->aor, &old);
    enum hf_sip_apply what =
        feed ? hf_sip_assign_changed(e->assign, row) : hf_sip_assign_read(e->assign, row);
    if (what == HF_SIP_APPLY_LOST) {
        hf_el_left(e, row->aor, false, now);
        return;
    }
    if (had && old.current != e->self &&
        (what == HF_SIP_APPLY_GAINED || what == HF_SIP_APPLY_NEWER)) {
        hf_el_moved(e, row->aor, &old, now);
    }
    bool unknown = what == HF_SIP_APPLY_FULL && row->current == e->self &&
                   !hf_sip_registrar_find(e->registrar, row->aor);
    /* each change is one: it was another one's, and we have not heard of it */
    bool was_away = what == HF_SIP_APPLY_NEWER && had && old.current == e->self &&
                    row->current == e->self && row->epoch > old.epoch + 1;
    if ((what != HF_SIP_APPLY_GAINED && !unknown && !was_away) || inserted) {
        return;
    }
    if (was_away) {
        hf_el_was_away(e, row->aor, former_of(e, HF_SIP_NONE), now);
        return;
    }
    uint16_t before = had && row->epoch == old.epoch + 1 ? old.current : HF_SIP_NONE;
    hf_el_load(e, row->aor, former_of(e, before), before);
}

void hf_sip_element_feed(struct hf_sip_element *e, const struct hf_sip_feed *feed, hf_time now)
{
    e->now = now > e->now ? now : e->now;
    hf_sip_assign_database(e->assign, feed->there);
    if (!feed->there) {
        return;
    }
    for (size_t i = 0; i < feed->n; i++) {
        if (hf_sip_element_owner_aor(feed->row[i].aor, e->conf.n_workers) == e->conf.worker) {
            hf_el_row(e, &feed->row[i], true, false, now);
        }
    }
    for (size_t i = 0; i < feed->n_deleted; i++) {
        struct hf_slice aor = feed->deleted[i];
        hf_el_secret_forget(e, aor);
        if (hf_sip_assign_forget(e->assign, aor)) {
            hf_el_left(e, aor, true, now);
        }
    }
    if (feed->change) {
        hf_sip_assign_caught_up(e->assign, feed->change, now);
        e->was_fresh = true;
    }
    e->load_again = e->tell_again = 0;
    hf_el_load_next(e);
    hf_el_untold_next(e);
    hf_el_store_dirty(e, now);
    drain(e);
}

/* --- results --- */

static void row_done(struct hf_sip_element *e, struct hf_el_wait *w,
                     const struct hf_sip_result *res, hf_time now)
{
    if (res->done == HF_SIP_OP_AWAY) {
        w->known.away = true;
        hf_el_resume(e, w, now);
        return;
    }
    hf_el_knows(w, res);
    if (res->have_row) {
        bool inserted = res->kind == HF_SIP_OP_ASSIGN && w->known.assigned &&
                        res->row.epoch == w->known.assigned && res->row.current == e->self;
        hf_el_row(e, &w->known.row, false, inserted, now);
    }
    hf_el_resume(e, w, now);
}

static void secret_done(struct hf_sip_element *e, struct hf_el_wait *w,
                        const struct hf_sip_result *res, hf_time now)
{
    char room[HF_SIP_USERNAME_MAX + 1];
    if (res->done == HF_SIP_OP_AWAY) {
        w->known.away = true;
    } else if (hf_sip_parse(w->text, false, &e->again) == 0) {
        hf_el_secret(e, hf_el_user(e, &e->again, room), res, now);
    }
    hf_el_resume(e, w, now);
}

void hf_sip_element_done(struct hf_sip_element *e, const struct hf_sip_result *result, hf_time now)
{
    e->now = now > e->now ? now : e->now;
    struct hf_el_wait *w = hf_el_waiting(e, result->cookie);
    switch ((enum hf_sip_op_kind)result->kind) {
    case HF_SIP_OP_READ:
    case HF_SIP_OP_ASSIGN:
        if (w && w->what == HF_EL_FOR_ROW) {
            row_done(e, w, result, now);
        }
        break;
    case HF_SIP_OP_ASSERT:
        if (result->done == HF_SIP_OP_DONE && result->have_row) {
            hf_el_row(e, &result->row, false, false, now);
        }
        break;
    case HF_SIP_OP_SECRET:
        if (w && w->what == HF_EL_FOR_SECRET) {
            secret_done(e, w, result, now);
        }
        break;
    case HF_SIP_OP_BIND:
        hf_el_bound(e, w && w->what == HF_EL_FOR_BIND ? w : NULL, result, now);
        break;
    case HF_SIP_OP_LOAD:
        if (result->cookie == HF_EL_NOBODY) {
            hf_el_untold_found(e, result, now);
        } else {
            hf_el_loaded(e, result, now);
        }
        break;
    case HF_SIP_OP_KEEP:
    case HF_SIP_OP_DROP:
        hf_el_kept(e, result, now);
        break;
    case HF_SIP_OP_LEARN:
    case HF_SIP_OP_COUNT_:
        break;
    }
    drain(e);
}

void hf_sip_element_resolved(struct hf_sip_element *e, uint64_t cookie,
                             const struct hf_sip_flow *to, size_t n, hf_time now)
{
    e->now = now > e->now ? now : e->now;
    struct hf_el_wait *w = hf_el_waiting(e, cookie);
    if (w && w->what == HF_EL_FOR_OWN) {
        if (n == 0 || hf_sip_proxy_own(e->proxy, w->text, &to[0], w->own, now)) {
            hf_el_say(e, w->own, 503, false);
        }
        hf_el_wait_free(e, w);
    } else if (w && w->what == HF_EL_FOR_NAME && w->known.n_answers) {
        struct hf_el_answer *a = &w->known.answer[w->known.n_answers - 1];
        a->there = true;
        a->none = n == 0;
        if (n) {
            a->to = to[0];
        }
        hf_el_resume(e, w, now);
    }
    drain(e);
}

void hf_sip_element_unreachable(struct hf_sip_element *e, const struct hf_sip_flow *to, hf_time now)
{
    e->now = now > e->now ? now : e->now;
    if (e->sending) { /* within ops->send */
        if (e->n_broken < HF_ARRAY_LEN(e->broken)) {
            e->broken[e->n_broken++] = *to;
        } /* else: time-outs tell */
        return;
    }
    unreachable(e, to);
    drain(e);
}

/* --- time --- */

static void assert_rows(struct hf_sip_element *e, hf_time now)
{
    struct hf_sip_row row;
    for (size_t i = 0; i < HF_EL_ASSERTS_AT_ONCE && hf_sip_assign_next_assert(e->assign, now, &row);
         i++) {
        struct hf_sip_op op = {.kind = HF_SIP_OP_ASSERT,
                               .cookie = HF_EL_NOBODY,
                               .aor = row.aor,
                               .epoch = row.epoch,
                               .row = row};
        e->ops.store(e->ctx, &op);
    }
}

void hf_sip_element_tick(struct hf_sip_element *e, hf_time now, uint32_t wall_s)
{
    is_now(e, now, wall_s);
    hf_sip_proxy_tick(e->proxy, now);
    hf_el_expire(e, now);
    hf_sip_notifier_tick(e->notifier, now);
    assert_rows(e, now);
    hf_el_waits_tick(e, now);
    hf_el_load_next(e);
    hf_el_untold_tick(e, now);
    drain(e);
}

hf_time hf_sip_element_deadline(const struct hf_sip_element *e)
{
    hf_time t = hf_sip_registrar_deadline(e->registrar);
    t = hf_time_min(t, hf_sip_proxy_deadline(e->proxy));
    t = hf_time_min(t, hf_sip_notifier_deadline(e->notifier));
    t = hf_time_min(t, hf_sip_assign_deadline(e->assign));
    t = hf_time_min(t, hf_el_waits_deadline(e));
    t = hf_time_min(t, hf_el_untold_deadline(e));
    if (!hf_list_empty(&e->to_load) && e->load_again > e->now &&
        hf_sip_assign_table(e->assign) != HF_SIP_TABLE_AWAY) {
        t = hf_time_min(t, e->load_again);
    }
    return t;
}

/* --- seen from outside --- */

const struct hf_sip_element_counters *hf_sip_element_counters(const struct hf_sip_element *e)
{
    return &e->count;
}

void hf_sip_element_info(const struct hf_sip_element *e, struct hf_sip_element_info *ret_info)
{
    struct hf_sip_assign_info rows;
    hf_sip_assign_info(e->assign, &rows);
    *ret_info = (struct hf_sip_element_info){
        .rows = rows.n_ours,
        .pinned = rows.n_pinned,
        .cached = rows.n_rows,
        .bindings = hf_sip_registrar_bindings(e->registrar),
        .aors = hf_sip_registrar_aors(e->registrar),
        .subs = hf_sip_notifier_count(e->notifier),
        .transactions = hf_sip_proxy_count(e->proxy),
        .waiting = e->n_waits,
        .bytes = rows.bytes + hf_sip_registrar_bytes(e->registrar),
        .table = hf_sip_assign_table(e->assign),
        .watch = *hf_sip_notifier_counters(e->notifier),
        .presence = *hf_sip_notifier_presence_counters(e->notifier),
    };
}

static void show_binding(const struct hf_sip_binding *b, hf_time now, struct hf_buf *buf)
{
    hf_buf_str(buf, "{\"contact\":");
    hf_buf_json_str(buf, hf_sip_binding_uri(b));
    hf_buf_str(buf, ",\"params\":");
    hf_buf_json_str(buf, hf_sip_binding_params(b));
    hf_buf_str(buf, ",\"path\":");
    hf_buf_json_str(buf, hf_sip_binding_path(b));
    hf_buf_str(buf, ",\"call_id\":");
    hf_buf_json_str(buf, hf_sip_binding_call_id(b));
    hf_buf_printf(buf, ",\"cseq\":%u,\"q\":%u.%03u,\"left_s\":%u,\"life_s\":%u}", b->cseq,
                  b->q / 1000u, b->q % 1000u, hf_sip_binding_left_s(b, now), b->life_s);
}

void hf_sip_element_show(const struct hf_sip_element *e, struct hf_slice aor, hf_time now,
                         struct hf_buf *b)
{
    struct hf_sip_row row;
    hf_buf_str(b, "{\"aor\":");
    hf_buf_json_str(b, aor);
    if (hf_sip_assign_get(e->assign, aor, &row)) {
        hf_buf_str(b, ",\"home\":");
        hf_buf_json_str(b, hf_slice_str(hf_sip_fleet_name(e->fleet, row.home)));
        hf_buf_str(b, ",\"current\":");
        hf_buf_json_str(b, hf_slice_str(hf_sip_fleet_name(e->fleet, row.current)));
        hf_buf_printf(b, ",\"epoch\":%llu,\"pinned\":%s,\"agent\":\"%s\"",
                      (unsigned long long)row.epoch, row.pinned ? "true" : "false",
                      hf_sip_agent_name((enum hf_sip_agent)row.agent));
    }
    hf_buf_printf(b, ",\"table\":\"%s\",\"loading\":%s,\"bindings\":[",
                  hf_sip_table_name(hf_sip_assign_table(e->assign)),
                  hf_el_loading(e, aor) ? "true" : "false");
    const struct hf_sip_binding *first = hf_sip_registrar_find(e->registrar, aor);
    for (const struct hf_sip_binding *x = first; x; x = x->next) {
        if (x != first) {
            hf_buf_str(b, ",");
        }
        show_binding(x, now, b);
    }
    hf_buf_str(b, "]}");
}
