/* Requests that wait for the store, a name or a secret; and how many a source may send. */
#include <errno.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "core/sip/element_impl.h"

/* --- waiting --- */

/* One transaction's; of a CANCEL with `invite` the INVITE's. */
uint64_t hf_el_key(const struct hf_sip_msg *m, bool invite)
{
    uint64_t h = hf_hash(m->via.branch, m->cseq);
    h = hf_hash(m->via.sent_by.text, h + m->via.sent_by.port);
    h = hf_hash(m->call_id, h);
    return hf_hash(invite ? S("INVITE") : m->method_text, h);
}

static struct hf_slice key_of(const uint64_t *k)
{
    return hf_slice(k, sizeof(*k));
}

struct hf_el_wait *hf_el_waiting(const struct hf_sip_element *e, uint64_t cookie)
{
    return hf_map_get(&e->by_cookie, key_of(&cookie));
}

struct hf_el_wait *hf_el_waiting_key(const struct hf_sip_element *e, uint64_t key)
{
    return hf_map_get(&e->by_key, key_of(&key));
}

void hf_el_wait_free(struct hf_sip_element *e, struct hf_el_wait *w)
{
    if (hf_el_waiting(e, w->cookie) == w) {
        (void)hf_map_remove(&e->by_cookie, key_of(&w->cookie));
    }
    if (w->aor.n && hf_map_get(&e->binding, w->aor) == w) {
        (void)hf_map_remove(&e->binding, w->aor);
    }
    hf_el_keeps_no_more(e, w);
    if (w->keyed) {
        (void)hf_map_remove(&e->by_key, key_of(&w->key));
    }
    hf_list_unlink(&w->age);
    hf_list_unlink(&w->node);
    hf_list_unlink(&w->trying);
    hf_free((void *)(uintptr_t)w->reply.p);
    hf_free(w);
    e->n_waits--;
}

static struct hf_el_wait *make(struct hf_sip_element *e, struct hf_slice text, struct hf_slice aor)
{
    if (e->n_waits >= e->conf.requests_max) {
        return NULL;
    }
    struct hf_el_wait *w = hf_alloc(sizeof(*w) + text.n + aor.n);
    if (!w) {
        return NULL;
    }
    memcpy(w->bytes, text.p, text.n);
    if (aor.n) {
        memcpy(w->bytes + text.n, aor.p, aor.n);
    }
    w->text = hf_slice(w->bytes, text.n);
    w->aor = hf_slice(w->bytes + text.n, aor.n);
    hf_list_init(&w->age);
    hf_list_init(&w->node);
    hf_list_init(&w->trying);
    e->n_waits++;
    return w;
}

/* Under a new cookie, the youngest. */
static bool begin(struct hf_sip_element *e, struct hf_el_wait *w, enum hf_el_for what)
{
    if (hf_el_waiting(e, w->cookie) == w) {
        (void)hf_map_remove(&e->by_cookie, key_of(&w->cookie));
    }
    hf_list_unlink(&w->age);
    hf_list_unlink(&w->node);
    w->cookie = ++e->cookie;
    w->what = (uint8_t)what;
    w->until = e->now + HF_EL_PATIENCE;
    hf_list_insert(&e->waits, &w->age);
    return hf_map_put(&e->by_cookie, key_of(&w->cookie), w) == 0;
}

struct hf_el_wait *hf_el_hold(struct hf_el_req *r, enum hf_el_for what)
{
    struct hf_sip_element *e = r->e;
    struct hf_el_wait *w = r->w;
    if (!w) {
        w = make(e, hf_slice(r->m->text.p, r->m->used_n), r->aor);
        if (!w) {
            e->count.waiting_full++;
            hf_el_refuse(r, 503, hf_sip_retry_after(r->f.random, 1, 8));
            return NULL;
        }
        e->count.waiting++;
        w->from = *r->from;
        w->known = *r->known;
        w->key = hf_el_key(r->m, false);
        w->keyed = hf_map_put(&e->by_key, key_of(&w->key), w) == 0;
        if (r->m->method == HF_SIP_INVITE && w->keyed) {
            w->came = r->now;
            hf_list_insert(&e->trying, &w->trying);
        }
    }
    if (w->known.user.n) {
        w->known.user.p = w->known.user_text;
    }
    if (!begin(e, w, what)) {
        if (!r->w) {
            hf_el_wait_free(e, w);
        }
        hf_el_refuse(r, 500, 0);
        return NULL;
    }
    r->w = w;
    r->held = true;
    return w;
}

struct hf_el_wait *hf_el_hold_own(struct hf_sip_element *e, struct hf_slice message,
                                  uint64_t cookie)
{
    struct hf_el_wait *w = make(e, message, hf_slice(NULL, 0));
    if (!w) {
        return NULL;
    }
    w->own = cookie;
    if (!begin(e, w, HF_EL_FOR_OWN)) {
        hf_el_wait_free(e, w);
        return NULL;
    }
    return w;
}

void hf_el_knows(struct hf_el_wait *w, const struct hf_sip_result *res)
{
    w->known.read = true;
    w->known.user_known = w->known.user_known || res->user_known;
    w->known.have_row = res->have_row;
    w->known.row = res->row;
    w->known.row.aor = w->aor;
}

bool hf_el_hold_reply(struct hf_el_wait *w, const struct hf_sip_flow *to, struct hf_slice reply)
{
    uint8_t *p = reply.n ? hf_alloc(reply.n) : NULL;
    hf_free((void *)(uintptr_t)w->reply.p);
    w->reply = hf_slice(p, p ? reply.n : 0);
    w->to = *to;
    if (p) {
        memcpy(p, reply.p, reply.n);
    }
    return p;
}

void hf_el_reply(struct hf_sip_element *e, struct hf_el_wait *w)
{
    if (w->reply.n) {
        hf_el_send(e, &w->to, w->reply);
    }
    hf_el_wait_free(e, w);
}

void hf_el_resume(struct hf_sip_element *e, struct hf_el_wait *w, hf_time now)
{
    struct hf_el_req r = {.e = e, .m = &e->again, .from = &w->from, .now = now, .w = w};
    r.known = &w->known;
    if (hf_sip_parse(w->text, false, &e->again) == 0) { /* as it was at first */
        hf_el_handle(&r);
    }
    if (!r.held) {
        hf_el_wait_free(e, w);
    }
}

/* --- INVITEs that wait for longer (17.2.1) --- */

/* The request that waits, read again, as it is answered; false: it can't be. */
static bool request_of(struct hf_sip_element *e, struct hf_el_wait *w, hf_time now,
                       struct hf_el_req *ret_r)
{
    *ret_r = (struct hf_el_req){
        .e = e, .m = &e->again, .from = &w->from, .now = now, .known = &w->known};
    return hf_sip_parse(w->text, false, &e->again) == 0; /* as it was at first */
}

void hf_el_again(struct hf_sip_element *e, struct hf_el_wait *w, hf_time now)
{
    struct hf_el_req r;
    if (w->tried && request_of(e, w, now, &r)) {
        hf_el_respond(&r, 100, NULL);
    }
}

static void try_them(struct hf_sip_element *e, hf_time now)
{
    while (!hf_list_empty(&e->trying)) {
        struct hf_el_wait *w = HF_CONTAINER_OF(e->trying.next, struct hf_el_wait, trying);
        if (w->came + HF_EL_TRYING > now) {
            return;
        }
        hf_list_unlink(&w->trying);
        w->tried = true;
        hf_el_again(e, w, now);
    }
}

hf_time hf_el_waits_deadline(const struct hf_sip_element *e)
{
    hf_time t = HF_NEVER;
    if (!hf_list_empty(&e->waits)) {
        t = HF_CONTAINER_OF(e->waits.next, struct hf_el_wait, age)->until;
    }
    if (!hf_list_empty(&e->trying)) {
        t = hf_time_min(t, HF_CONTAINER_OF(e->trying.next, struct hf_el_wait, trying)->came +
                               HF_EL_TRYING);
    }
    return t;
}

void hf_el_waits_tick(struct hf_sip_element *e, hf_time now)
{
    struct hf_el_req r;
    try_them(e, now);
    while (!hf_list_empty(&e->waits)) {
        struct hf_el_wait *w = HF_CONTAINER_OF(e->waits.next, struct hf_el_wait, age);
        if (w->until > now) {
            return;
        }
        if (w->what == HF_EL_FOR_OWN) {
            hf_el_say(e, w->own, 408, false);
        } else if (w->tried && request_of(e, w, now, &r)) { /* it would wait for ever */
            hf_el_refuse(&r, 503, hf_sip_retry_after((uint32_t)hf_prng_u64(&e->prng), 5, 20));
        }
        hf_el_wait_free(e, w);
    }
}

void hf_el_waits_fini(struct hf_sip_element *e)
{
    while (!hf_list_empty(&e->waits)) {
        hf_el_wait_free(e, HF_CONTAINER_OF(e->waits.next, struct hf_el_wait, age));
    }
    hf_map_fini(&e->by_cookie);
    hf_map_fini(&e->by_key);
    hf_map_fini(&e->binding);
    hf_map_fini(&e->keeping);
}

/* --- rates --- */

#define WAYS 4u

/* Who is behind a trusted edge: the flow by which it has come there, as the Via below the edge's
 * says; of an edge that shows none (a back-to-back user agent), who it says to be. */
static uint64_t behind(const struct hf_sip_element *e, const struct hf_sip_msg *m)
{
    struct hf_sip_walk walk;
    struct hf_sip_via via;
    hf_sip_walk_begin(&walk, m, HF_SIP_H_VIA);
    int rc = hf_sip_walk_via(&walk, &via); /* the edge's */
    if (rc == 1) {
        rc = hf_sip_walk_via(&walk, &via);
    }
    if (rc == 1) {
        struct hf_slice host = via.received.n ? via.received : via.sent_by.text;
        return hf_hash(host, e->conf.seed + (via.rport ? via.rport : via.sent_by.port)) | 1;
    }
    return hf_hash(m->from.uri.user, hf_hash(m->from.uri.host.text, e->conf.seed)) | 1;
}

/* 0: a peer, which is not limited. */
static uint64_t source_of(const struct hf_sip_element *e, const struct hf_sip_msg *m,
                          const struct hf_endpoint *source)
{
    size_t n = source->family == HF_AF_INET6 ? 16 : 4;
    if (hf_map_get(&e->known_peers, hf_slice(source->addr, n))) {
        return 0;
    }
    if (m->fault == HF_SIP_OK && hf_el_from_edge(e, source)) {
        return behind(e, m);
    }
    n = n == 16 ? 8 : n; /* one IPv6 network is one source */
    return hf_hash(hf_slice(source->addr, n), e->conf.seed) | 1;
}

static struct hf_el_rate *bucket(struct hf_sip_element *e, uint64_t source, hf_time now)
{
    struct hf_el_rate *set = &e->rate[(source >> 20) % e->rate_sets * WAYS], *oldest = set;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].source == source) {
            return &set[i];
        }
        if (set[i].at < oldest->at) {
            oldest = &set[i];
        }
    }
    *oldest =
        (struct hf_el_rate){.source = source, .at = now, .milli = e->conf.source_rate * 1000u};
    return oldest;
}

bool hf_el_may(struct hf_sip_element *e, const struct hf_sip_msg *m,
               const struct hf_endpoint *source, hf_time now)
{
    uint64_t most = (uint64_t)e->conf.source_rate * 1000u, who = source_of(e, m, source);
    if (!who) {
        return true;
    }
    struct hf_el_rate *b = bucket(e, who, now);
    uint64_t passed = now > b->at ? (uint64_t)(now - b->at) / 1000u : 0; /* us */
    uint64_t more = passed > 1000000u ? most : passed * e->conf.source_rate / 1000u;
    if (more) {
        b->milli = (uint32_t)(b->milli + more > most ? most : b->milli + more);
        b->at = now;
    }
    if (b->milli < 1000u) {
        return false;
    }
    b->milli -= 1000u;
    return true;
}

void hf_el_trusted(struct hf_sip_element *e, const struct hf_sip_msg *m,
                   const struct hf_endpoint *source)
{
    uint64_t most = (uint64_t)e->conf.source_rate * 1000u, who = source_of(e, m, source);
    if (who) {
        struct hf_el_rate *b = bucket(e, who, e->now);
        b->milli = (uint32_t)(b->milli + 1000u > most ? most : b->milli + 1000u);
    }
}
