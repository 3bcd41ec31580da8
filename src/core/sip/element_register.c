/* REGISTERs of our own, and the bindings' way to the store and back (S3, D11). */
#include <errno.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rd.h"
#include "core/sip/element_impl.h"

static void mark_dirty(struct hf_sip_element *e, const struct hf_sip_result *res);

/* --- flows --- */

#define FLOW_KEY_MAX (HF_SIP_AOR_MAX + 1 + HF_SIP_BINDING_TEXT_MAX + 24UL)

/* What tells a binding from the others of its AoR: instance and reg-id (RFC 5626: an agent's flows
 * may all have one Contact), or the contact. */
static void put_key(struct hf_wr *w, const struct hf_sip_binding *b)
{
    if (b->outbound) {
        hf_wr_bytes(w, hf_sip_binding_instance(b));
        hf_wr_bytes(w, S(";reg-id="));
        hf_sip_put_u64(w, b->reg_id);
    } else {
        hf_wr_bytes(w, hf_sip_binding_uri(b));
    }
}

static struct hf_slice flow_key(const struct hf_sip_binding *b, uint8_t room[FLOW_KEY_MAX])
{
    struct hf_slice s = {NULL, 0};
    struct hf_wr w;
    hf_wr_init(&w, room, FLOW_KEY_MAX);
    hf_wr_bytes(&w, hf_sip_binding_aor(b));
    hf_wr_u8(&w, 0);
    put_key(&w, b);
    return hf_wr_end(&w, &s) ? hf_slice(NULL, 0) : s;
}

const struct hf_sip_flow *hf_el_flow_of(const struct hf_sip_element *e,
                                        const struct hf_sip_binding *b)
{
    uint8_t room[FLOW_KEY_MAX];
    if (e->flows.n == 0) {
        return NULL;
    }
    const struct hf_el_flow *f = hf_map_get(&e->flows, flow_key(b, room));
    return f ? &f->flow : NULL;
}

static void free_flow(struct hf_sip_element *e, struct hf_el_flow *f)
{
    struct hf_slice conn = hf_slice(&f->flow.conn, sizeof(f->flow.conn));
    struct hf_el_conn *c = hf_map_get(&e->conns, conn);
    (void)hf_map_remove(&e->flows, f->key);
    hf_list_unlink(&f->node);
    if (c && hf_list_empty(&c->flows)) {
        (void)hf_map_remove(&e->conns, conn);
        hf_free(c);
    }
    hf_free(f);
}

static struct hf_el_conn *conn_of(struct hf_sip_element *e, uint64_t conn)
{
    struct hf_el_conn *c = hf_map_get(&e->conns, hf_slice(&conn, sizeof(conn)));
    if (c) {
        return c;
    }
    c = hf_alloc(sizeof(*c));
    if (!c) {
        return NULL;
    }
    c->conn = conn;
    hf_list_init(&c->flows);
    if (hf_map_put(&e->conns, hf_slice(&c->conn, sizeof(c->conn)), c)) {
        hf_free(c);
        return NULL;
    }
    return c;
}

/* The binding was registered by this flow; one of UDP is told by its Contact. Without memory the
 * Contact is what there is. true: by another one than before. */
static bool set_flow(struct hf_sip_element *e, const struct hf_sip_binding *b,
                     const struct hf_sip_flow *flow)
{
    uint8_t room[FLOW_KEY_MAX];
    if (e->flows.n == 0 && (!flow || !flow->conn)) {
        return false;
    }
    struct hf_slice key = flow_key(b, room);
    struct hf_el_flow *f = hf_map_get(&e->flows, key);
    if (f && flow && f->flow.conn == flow->conn) {
        return false;
    }
    bool changed = f;
    if (f) {
        free_flow(e, f);
    }
    struct hf_el_conn *c = flow && flow->conn ? conn_of(e, flow->conn) : NULL;
    f = c ? hf_alloc(sizeof(*f) + key.n) : NULL;
    if (f) {
        memcpy(f->bytes, key.p, key.n);
        f->key = hf_slice(f->bytes, key.n);
        f->flow = *flow;
        hf_list_init(&f->node);
        if (hf_map_put(&e->flows, f->key, f)) {
            hf_free(f);
            f = NULL;
        } else {
            hf_list_insert(&c->flows, &f->node);
            changed = true;
        }
    }
    if (c && hf_list_empty(&c->flows)) {
        (void)hf_map_remove(&e->conns, hf_slice(&c->conn, sizeof(c->conn)));
        hf_free(c);
    }
    return changed;
}

/* --- what is written of bindings --- */

#define WAY_MAX (HF_SIP_TOKEN_MAX + 320u)

struct binds {
    const struct hf_sip_element *e;
    struct hf_sip_bind bind[HF_SIP_BINDS_MAX];
    size_t n;
    struct hf_wr texts; /* keys of flows: instance and reg-id; ways by connections of ours */
    uint8_t room[HF_SIP_BINDS_MAX * (HF_SIP_BINDING_TEXT_MAX + 24UL + WAY_MAX)];
};

static void binds_init(struct binds *b, const struct hf_sip_element *e)
{
    b->e = e;
    b->n = 0;
    hf_wr_init(&b->texts, b->room, sizeof(b->room));
}

static struct hf_slice bind_key(struct binds *b, const struct hf_sip_binding *x)
{
    if (!x->outbound) {
        return hf_sip_binding_uri(x);
    }
    size_t from = hf_wr_len(&b->texts);
    put_key(&b->texts, x);
    return hf_slice(b->room + from, hf_wr_len(&b->texts) - from);
}

/* Who has come to us by a connection is found by it when he is another server's, too: what is
 * stored has us as its Path, marked, as his Contact is a way when that is broken. */
static void add_way(struct binds *b, const struct hf_sip_binding *of,
                    struct hf_sip_stored_binding *x)
{
    const struct hf_sip_flow *flow = hf_el_flow_of(b->e, of);
    size_t from = hf_wr_len(&b->texts);
    if (!flow || x->path.n) {
        return;
    }
    hf_el_put_flow(b->e, &b->texts, flow, &b->e->listen[0], ";lr;" HF_EL_STAND_IN);
    struct hf_slice way = hf_slice(b->room + from, hf_wr_len(&b->texts) - from);
    if (!b->texts.err && x->uri.n + x->params.n + x->call_id.n + way.n <= HF_SIP_BINDING_TEXT_MAX) {
        x->path = way;
    }
}

static void add_bind(struct binds *b, bool erase, struct hf_slice key,
                     const struct hf_sip_binding *x, hf_time now)
{
    if (b->n == HF_SIP_BINDS_MAX) {
        return;
    }
    b->bind[b->n] = (struct hf_sip_bind){.erase = erase, .key = key};
    if (!erase) {
        hf_sip_binding_dump(x, now, &b->bind[b->n].b);
        add_way(b, x, &b->bind[b->n].b);
    }
    b->n++;
}

static void add_change(struct binds *b, const struct hf_sip_change *c, hf_time now)
{
    if (!c->store) {
        return;
    }
    bool gone = hf_sip_change_ends(c->kind);
    struct hf_slice key = bind_key(b, c->binding);
    if (c->replaced) {
        struct hf_slice old = bind_key(b, c->replaced);
        if (!hf_slice_eq(old, key)) {
            add_bind(b, true, old, NULL, now);
        }
    }
    add_bind(b, gone, key, c->binding, now);
}

static void store_binds(struct hf_sip_element *e, struct hf_slice aor, uint64_t epoch,
                        const struct binds *b, uint64_t cookie)
{
    struct hf_sip_op op = {.kind = HF_SIP_OP_BIND,
                           .wait = cookie != HF_EL_NOBODY,
                           .cookie = cookie,
                           .aor = aor,
                           .epoch = epoch,
                           .bind = b->bind,
                           .n_binds = b->n};
    e->ops.store(e->ctx, &op);
}

/* --- REGISTER --- */

static void put_answer(struct hf_el_req *r, const struct hf_sip_registered *reg, struct hf_wr *w)
{
    struct hf_sip_element *e = r->e;
    if (!hf_el_begin(e, r->m, r->from, reg->status, reg->reason, w)) {
        w->err = -HF_EMALF;
        return;
    }
    hf_sip_registrar_put(e->registrar, reg, r->m, r->now, w);
    if (reg->status == 503) {
        hf_sip_put_number(w, HF_SIP_H_RETRY_AFTER, hf_sip_retry_after(r->f.random, 5, 30));
    }
}

/* The 200 is written now, and goes when the store has it (S3). */
static void hold_answer(struct hf_el_req *r, const struct hf_sip_registered *reg,
                        const struct binds *b)
{
    struct hf_sip_element *e = r->e;
    struct hf_el_wait *w = hf_el_hold(r, HF_EL_FOR_BIND);
    struct hf_slice s;
    struct hf_wr wr;
    if (!w) { /* without memory it is not answered, but stored: the next one is a refresh */
        store_binds(e, r->aor, r->v.epoch, b, HF_EL_NOBODY);
        return;
    }
    put_answer(r, reg, &wr);
    if (hf_sip_end(&wr, hf_slice(NULL, 0), hf_slice(NULL, 0), &s)) {
        s = hf_slice(NULL, 0);
    }
    struct hf_sip_flow to = hf_sip_flow_back(r->m, r->from);
    (void)hf_el_hold_reply(w, &to, s);
    if (hf_map_get(&e->binding, w->aor)) { /* under this one's bytes from now on */
        (void)hf_map_remove(&e->binding, w->aor);
    }
    (void)!hf_map_put(&e->binding, w->aor, w); /* without memory it is answered a little early */
    store_binds(e, w->aor, r->v.epoch, b, w->cookie);
}

void hf_el_register(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    struct hf_sip_registered reg;
    struct binds b;
    struct hf_wr w;
    if (r->known->auth == HF_EL_AUTH_GOOD && !hf_slice_eq(r->known->user, r->aor)) {
        hf_el_respond(r, 403, NULL); /* somebody else's, whether he exists or not */
        return;
    }
    hf_sip_registrar_register(e->registrar, r->m, r->aor, r->f.away ? HF_EL_AWAY_EXPIRES_S : 0,
                              r->now, &reg);
    e->count.registers += reg.status == 200;
    binds_init(&b, e);
    for (size_t i = 0; i < reg.n_changes; i++) {
        struct hf_sip_change *c = &reg.change[i];
        bool gone = c->kind == HF_SIP_CHANGE_UNREGISTERED;
        bool direct = !gone && r->m->n_vias == 1 && !hf_sip_has(r->m, HF_SIP_H_PATH);
        if (c->replaced) {
            (void)set_flow(e, c->replaced, NULL);
        }
        if (set_flow(e, c->binding, direct ? r->from : NULL)) {
            c->store = true;
        }
        add_change(&b, c, r->now);
    }
    if (reg.n_changes) {
        hf_sip_notifier_changed(e->notifier, r->aor, reg.change, reg.n_changes, r->now);
    }
    bool waits = reg.wait || hf_map_get(&e->binding, r->aor);
    if (reg.status == 200 && waits && !r->f.away) {
        hold_answer(r, &reg, &b);
        return;
    }
    if (b.n) {
        store_binds(e, r->aor, r->v.epoch, &b, HF_EL_NOBODY);
    }
    put_answer(r, &reg, &w);
    if (w.err != -HF_EMALF) {
        hf_el_end(e, r->m, r->from, &w);
    }
}

void hf_el_row_now(struct hf_sip_element *e, struct hf_slice aor, const struct hf_sip_result *res,
                   hf_time now)
{
    if (res->have_row) {
        hf_el_row(e, &res->row, false, false, now);
    } else if (hf_sip_assign_forget(e->assign, aor)) {
        hf_el_left(e, aor, false, now);
    }
}

/* The row has changed under a request that was served by it. */
static void stale(struct hf_sip_element *e, struct hf_slice aor, const struct hf_sip_result *res,
                  hf_time now)
{
    struct hf_sip_row row;
    hf_el_row_now(e, aor, res, now);
    if (hf_sip_assign_get(e->assign, aor, &row) && row.current == e->self &&
        !hf_el_loading(e, aor)) {
        (void)hf_sip_registrar_forget(e->registrar, aor); /* what is stored counts */
        hf_el_load(e, aor, HF_SIP_FORMER_ALIVE, HF_SIP_NONE);
    }
}

void hf_el_bound(struct hf_sip_element *e, struct hf_el_wait *w, const struct hf_sip_result *res,
                 hf_time now)
{
    if (res->done == HF_SIP_OP_AWAY) {
        mark_dirty(e, res);
    }
    if (!w) { /* HF_EL_NOBODY, or who waited for it has gone */
        if (res->done == HF_SIP_OP_STALE) {
            stale(e, res->aor, res, now);
        }
        return;
    }
    if (res->done == HF_SIP_OP_DONE) {
        hf_el_reply(e, w);
        return;
    }
    if (hf_map_get(&e->binding, w->aor) == w) {
        (void)hf_map_remove(&e->binding, w->aor);
    }
    w->known.n_decided = 0; /* what was decided holds no more */
    if (res->done == HF_SIP_OP_AWAY) {
        w->known.away = true;
    } else {
        hf_el_knows(w, res);
        stale(e, w->aor, res, now);
    }
    hf_el_resume(e, w, now);
}

void hf_el_learn(struct hf_sip_element *e, struct hf_slice aor, uint8_t agent, uint16_t agent_id)
{
    struct hf_sip_op op = {.kind = HF_SIP_OP_LEARN, .aor = aor};
    if (hf_sip_assign_learn(e->assign, aor, (enum hf_sip_agent)agent, agent_id) &&
        hf_sip_assign_get(e->assign, aor, &op.row)) {
        op.epoch = op.row.epoch;
        e->ops.store(e->ctx, &op);
    }
}

/* --- endings --- */

static void ended(struct hf_sip_element *e, const struct hf_sip_change *c, hf_time now)
{
    struct hf_slice aor = hf_sip_binding_aor(c->binding);
    struct hf_sip_row row;
    struct binds b;
    (void)set_flow(e, c->binding, NULL);
    hf_sip_notifier_changed(e->notifier, aor, c, 1, now);
    if (!hf_sip_assign_get(e->assign, aor, &row) || row.current != e->self) {
        return;
    }
    binds_init(&b, e);
    add_change(&b, c, now);
    store_binds(e, aor, row.epoch, &b, HF_EL_NOBODY);
    if (c->kind == HF_SIP_CHANGE_EXPIRED &&
        row.agent == HF_SIP_AGENT_FOLLOWS) { /* who did not come back may do otherwise now */
        hf_el_learn(e, aor, HF_SIP_AGENT_UNKNOWN, 0);
    }
}

void hf_el_expire(struct hf_sip_element *e, hf_time now)
{
    struct hf_sip_change change[HF_SIP_EXPIRED_AT_ONCE_MAX];
    size_t n;
    bool more;
    do {
        more = hf_sip_registrar_tick(e->registrar, now, change, &n);
        for (size_t i = 0; i < n; i++) {
            ended(e, &change[i], now);
        }
    } while (more);
}

/* --- flows that are broken (RFC 5626) --- */

uint64_t hf_el_binding_hash(const struct hf_sip_binding *b)
{
    uint64_t h = hf_hash(hf_sip_binding_uri(b), b->cseq);
    return hf_hash(hf_sip_binding_path(b), hf_hash(hf_sip_binding_call_id(b), h));
}

void hf_el_lost(struct hf_sip_element *e, struct hf_slice aor, uint64_t binding)
{
    struct hf_el_lost *l = hf_alloc(sizeof(*l) + aor.n);
    if (l) { /* else the next call finds out */
        memcpy(l->bytes, aor.p, aor.n);
        l->aor = hf_slice(l->bytes, aor.n);
        l->binding = binding;
        hf_list_insert(&e->lost, &l->node);
    }
}

static void fail(struct hf_sip_element *e, const struct hf_sip_binding *b, hf_time now)
{
    struct hf_sip_change c;
    e->count.flows_lost++;
    hf_sip_registrar_fail(e->registrar, b, &c);
    ended(e, &c, now);
}

/* A flow of RFC 5626, or behind somebody's Path: but not one that we have written for who came by a
 * connection, whose Contact may be a way. */
static bool by_flow_alone(const struct hf_sip_binding *b)
{
    struct hf_sip_cur c = hf_sip_cur(hf_sip_binding_path(b));
    struct hf_sip_address first;
    struct hf_slice mark;
    return b->outbound || (hf_sip_binding_path(b).n && !hf_sip_address_parse(&c, false, &first) &&
                           !hf_sip_uri_param(&first.uri, HF_EL_STAND_IN, &mark));
}

void hf_el_end_lost(struct hf_sip_element *e, hf_time now)
{
    while (!hf_list_empty(&e->lost)) {
        struct hf_el_lost *l = HF_CONTAINER_OF(e->lost.next, struct hf_el_lost, node);
        const struct hf_sip_binding *b = hf_sip_registrar_find(e->registrar, l->aor);
        while (b && hf_el_binding_hash(b) != l->binding) {
            b = b->next; /* registered anew meanwhile: another flow */
        }
        if (b && by_flow_alone(b)) {
            fail(e, b, now);
        }
        hf_list_unlink(&l->node);
        hf_free(l);
    }
}

/* The binding that has this flow. */
static const struct hf_sip_binding *binding_of(const struct hf_sip_element *e,
                                               const struct hf_el_flow *f)
{
    uint8_t room[FLOW_KEY_MAX];
    const uint8_t *end = memchr(f->key.p, 0, f->key.n);
    struct hf_slice aor = hf_slice(f->key.p, end ? (size_t)(end - f->key.p) : 0);
    const struct hf_sip_binding *b = hf_sip_registrar_find(e->registrar, aor);
    while (b && !hf_slice_eq(flow_key(b, room), f->key)) {
        b = b->next;
    }
    return b;
}

void hf_el_conn_closed(struct hf_sip_element *e, uint64_t conn, hf_time now)
{
    struct hf_el_conn *c;
    while ((c = hf_map_get(&e->conns, hf_slice(&conn, sizeof(conn))))) {
        struct hf_el_flow *f = HF_CONTAINER_OF(c->flows.next, struct hf_el_flow, node);
        const struct hf_sip_binding *b = binding_of(e, f);
        free_flow(e, f);
        if (b && b->outbound) {
            fail(e, b, now);
        }
    }
}

/* --- loading --- */

struct hf_el_load *hf_el_loading(const struct hf_sip_element *e, struct hf_slice aor)
{
    return e->loads.n ? hf_map_get(&e->loads, aor) : NULL;
}

void hf_el_load(struct hf_sip_element *e, struct hf_slice aor, enum hf_sip_former former,
                uint16_t from)
{
    struct hf_el_load *l = hf_el_loading(e, aor);
    if (l) {
        l->former = (uint8_t)former;
        l->from = from;
        if (l->cookie) { /* what it finds may be older than this */
            l->cookie = 0;
            hf_list_insert(&e->to_load, &l->node);
            hf_el_load_next(e);
        }
        return;
    }
    l = hf_alloc(sizeof(*l) + aor.n);
    if (!l) {
        return; /* calls don't find the user before it registers again */
    }
    memcpy(l->bytes, aor.p, aor.n);
    l->aor = hf_slice(l->bytes, aor.n);
    l->former = (uint8_t)former;
    l->from = from;
    hf_list_init(&l->node);
    hf_list_init(&l->waits);
    if (hf_map_put(&e->loads, l->aor, l)) {
        hf_free(l);
        return;
    }
    hf_list_insert(&e->to_load, &l->node);
    hf_el_load_next(e);
}

void hf_el_load_next(struct hf_sip_element *e)
{
    while (e->n_loading < HF_EL_LOADS_MAX && !hf_list_empty(&e->to_load) &&
           e->now >= e->load_again && hf_sip_assign_table(e->assign) != HF_SIP_TABLE_AWAY) {
        struct hf_el_load *l = HF_CONTAINER_OF(e->to_load.next, struct hf_el_load, node);
        struct hf_sip_op op = {.kind = HF_SIP_OP_LOAD, .aor = l->aor, .cookie = ++e->cookie};
        hf_list_unlink(&l->node);
        l->cookie = op.cookie;
        e->n_loading++;
        e->ops.store(e->ctx, &op);
    }
}

/* Who has waited for it goes on. */
static void release(struct hf_sip_element *e, struct hf_list *waits, bool unloaded, hf_time now)
{
    while (!hf_list_empty(waits)) {
        struct hf_el_wait *w = HF_CONTAINER_OF(waits->next, struct hf_el_wait, node);
        hf_list_unlink(&w->node);
        w->known.unloaded = unloaded;
        w->known.away = w->known.away || unloaded;
        w->known.n_decided = 0;
        hf_el_resume(e, w, now);
    }
}

/* Off the map, so that who has waited does not wait again. */
static void end_load(struct hf_sip_element *e, struct hf_el_load *l, hf_time now)
{
    struct hf_list waits;
    hf_list_take(&waits, &l->waits);
    (void)hf_map_remove(&e->loads, l->aor);
    hf_list_unlink(&l->node);
    hf_free(l);
    release(e, &waits, false, now);
}

static void take_kept(struct hf_sip_element *e, const struct hf_el_load *l,
                      const struct hf_sip_result *res, hf_time now)
{
    enum hf_sip_former former = (enum hf_sip_former)l->former;
    bool watched = false;
    for (size_t i = 0; i < res->n_kept; i++) {
        watched = watched || res->kept[i].what == 's';
    }
    if (former == HF_SIP_FORMER_ALIVE && watched && hf_el_untold_add(e, l->aor, l->from, now)) {
        former = HF_SIP_FORMER_DEAD; /* twice is better than never */
    }
    hf_sip_notifier_load(e->notifier, l->aor, res->kept, res->n_kept, former, now);
}

void hf_el_loaded(struct hf_sip_element *e, const struct hf_sip_result *res, hf_time now)
{
    struct hf_el_load *l = hf_el_loading(e, res->aor);
    e->n_loading -= e->n_loading > 0;
    if (!l || l->cookie != res->cookie) {
        hf_el_load_next(e);
        return; /* it is not ours any more */
    }
    l->cookie = 0;
    if (res->done == HF_SIP_OP_AWAY) {
        struct hf_list waits;
        hf_list_take(&waits, &l->waits);
        e->load_again = now + HF_S(1);
        hf_list_insert(&e->to_load, &l->node);
        release(e, &waits, true, now);
        return;
    }
    for (size_t i = 0; i < res->n_bindings; i++) {
        (void)!hf_sip_registrar_load(e->registrar, &res->binding[i],
                                     now); /* one is better than none */
    }
    if (res->n_kept) {
        take_kept(e, l, res, now);
    }
    e->count.loaded++;
    end_load(e, l, now);
    hf_el_load_next(e);
}

/* What we know of it is over; who waits for its LOAD goes on waiting. */
static void leave(struct hf_sip_element *e, struct hf_slice aor, bool gone, hf_time now)
{
    e->count.left++;
    if (gone) {
        hf_sip_notifier_gone(e->notifier, aor, now);
    } else {
        hf_sip_notifier_left(e->notifier, aor, now);
    }
    for (const struct hf_sip_binding *b = hf_sip_registrar_find(e->registrar, aor); b;
         b = b->next) {
        (void)set_flow(e, b, NULL);
    }
    (void)hf_sip_registrar_forget(e->registrar, aor);
    hf_el_untold_drop(e, aor);
}

void hf_el_left(struct hf_sip_element *e, struct hf_slice aor, bool gone, hf_time now)
{
    uint8_t room[HF_SIP_AOR_MAX];
    if (aor.n > sizeof(room)) {
        return;
    }
    memcpy(room, aor.p, aor.n); /* the caller's may be of what is forgotten here */
    aor = hf_slice(room, aor.n);
    leave(e, aor, gone, now);
    struct hf_el_load *l = hf_el_loading(e, aor);
    if (l) {
        end_load(e, l, now);
    }
}

void hf_el_was_away(struct hf_sip_element *e, struct hf_slice aor, enum hf_sip_former former,
                    hf_time now)
{
    leave(e, aor, false, now);
    hf_el_load(e, aor, former, HF_SIP_NONE);
}

/* --- what could not be stored --- */

#define DIRTY_MAX 65536u
#define ERASED_MAX 16384u /* bytes of an AoR's keys */

static struct hf_el_dirty *dirty_for(struct hf_sip_element *e, struct hf_slice aor)
{
    struct hf_el_dirty *d = hf_map_get(&e->dirty, aor);
    if (d || e->dirty.n >= DIRTY_MAX || !(d = hf_alloc(sizeof(*d) + aor.n))) {
        return d;
    }
    memcpy(d->bytes, aor.p, aor.n);
    d->aor = hf_slice(d->bytes, aor.n);
    hf_list_init(&d->node);
    if (hf_map_put(&e->dirty, d->aor, d)) {
        hf_free(d);
        return NULL;
    }
    hf_list_insert(&e->dirties, &d->node);
    return d;
}

/* The next key; false: no more. */
static bool next_erased(struct hf_rd *rd, struct hf_slice *ret_key)
{
    if (hf_rd_left(rd) == 0) {
        return false;
    }
    *ret_key = hf_rd_str16(rd, (size_t)2 * HF_SIP_BINDING_TEXT_MAX);
    return ret_key->n > 0;
}

static void add_erased(struct hf_el_dirty *d, struct hf_slice key)
{
    struct hf_slice had;
    struct hf_rd rd;
    struct hf_wr w;
    hf_rd_init(&rd, d->erased);
    while (next_erased(&rd, &had)) {
        if (hf_slice_eq(had, key)) {
            return;
        }
    }
    size_t n = d->erased.n + 2 + key.n;
    uint8_t *p = n <= ERASED_MAX ? hf_realloc((void *)(uintptr_t)d->erased.p, n) : NULL;
    if (p) {
        hf_wr_init(&w, p + d->erased.n, 2 + key.n);
        hf_wr_str16(&w, key);
        d->erased = hf_slice(p, n);
    }
}

/* What a BIND was to delete nobody else knows. */
static void mark_dirty(struct hf_sip_element *e, const struct hf_sip_result *res)
{
    struct hf_el_dirty *d = dirty_for(e, res->aor);
    for (size_t i = 0; d && i < res->n_binds; i++) {
        if (res->bind[i].erase) {
            add_erased(d, res->bind[i].key);
        }
    }
}

static void free_dirty(struct hf_sip_element *e, struct hf_el_dirty *d)
{
    (void)hf_map_remove(&e->dirty, d->aor);
    hf_list_unlink(&d->node);
    hf_free((void *)(uintptr_t)d->erased.p);
    hf_free(d);
}

/* All that the AoR has now, and what it has no more. */
static void store_all(struct hf_sip_element *e, const struct hf_el_dirty *d, hf_time now)
{
    struct hf_sip_row row;
    struct hf_slice key;
    struct hf_rd rd;
    struct binds b;
    if (!hf_sip_assign_get(e->assign, d->aor, &row) || row.current != e->self) {
        return;
    }
    binds_init(&b, e);
    hf_rd_init(&rd, d->erased);
    while (next_erased(&rd, &key)) {
        add_bind(&b, true, key, NULL, now);
        if (b.n == HF_SIP_CONTACTS_MAX) { /* of them all at once there is room for */
            store_binds(e, d->aor, row.epoch, &b, HF_EL_NOBODY);
            binds_init(&b, e);
        }
    }
    for (const struct hf_sip_binding *x = hf_sip_registrar_find(e->registrar, d->aor); x;
         x = x->next) {
        add_bind(&b, false, bind_key(&b, x), x, now);
    }
    if (b.n) {
        store_binds(e, d->aor, row.epoch, &b, HF_EL_NOBODY);
    }
}

void hf_el_store_dirty(struct hf_sip_element *e, hf_time now)
{
    while (!hf_list_empty(&e->dirties)) {
        struct hf_el_dirty *d = HF_CONTAINER_OF(e->dirties.next, struct hf_el_dirty, node);
        store_all(e, d, now);
        free_dirty(e, d);
    }
}

void hf_el_registers_fini(struct hf_sip_element *e)
{
    size_t pos = 0;
    for (struct hf_el_load *l; (l = hf_map_next(&e->loads, &pos));) {
        hf_free(l);
    }
    hf_map_fini(&e->loads);
    while (!hf_list_empty(&e->dirties)) {
        free_dirty(e, HF_CONTAINER_OF(e->dirties.next, struct hf_el_dirty, node));
    }
    hf_map_fini(&e->dirty);
    pos = 0;
    for (struct hf_el_flow *f; (f = hf_map_next(&e->flows, &pos));) {
        free_flow(e, f);
    }
    hf_map_fini(&e->flows);
    hf_map_fini(&e->conns);
    while (!hf_list_empty(&e->lost)) {
        struct hf_el_lost *l = HF_CONTAINER_OF(e->lost.next, struct hf_el_lost, node);
        hf_list_unlink(&l->node);
        hf_free(l);
    }
}
