/* Numbered views out of one CPG group's events. */
#include "engine/cpg_view.h"

#include <errno.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"

#define HELD_BYTES_MAX (16u << 20)
/* A token that lay in corosync's socket while the host was frozen lets one message of ours pass in
 * a ring that the others have left. The next one needs a token that went round. */
#define PROBE_ROUNDS 2u

struct held {
    struct hf_list node;
    struct hf_cpg_event e; /* points into data */
    uint32_t data[];
};

static void enter_state(struct hf_cpg_view *v, enum hf_cpg_state s)
{
    static const char *const name[] = {"OUT", "FRESH", "APART", "IN", "GONE"};
    hf_tracef(HF_TRACE_ENGINE, v->opt.host, "cpg %s -> %s, ring %x.%llx", name[v->state], name[s],
              v->rep, (unsigned long long)v->ring);
    v->state = s;
}

static void fail(struct hf_cpg_view *v, int rc)
{
    if (v->state != HF_CPG_GONE) {
        v->failed = rc;
        enter_state(v, HF_CPG_GONE);
    }
}

static struct hf_cpg_peer *find(struct hf_cpg_view *v, uint32_t node, uint32_t pid)
{
    for (unsigned i = 0; i < v->n_peers; i++) {
        if (v->peer[i].node == node && v->peer[i].pid == pid) {
            return &v->peer[i];
        }
    }
    return NULL;
}

static struct hf_cpg_peer *self(struct hf_cpg_view *v)
{
    return find(v, v->opt.node, v->opt.pid);
}

static bool in_ring(const struct hf_cpg_view *v, uint32_t node)
{
    for (unsigned i = 0; i < v->n_nodes; i++) {
        if (v->nodes[i] == node) {
            return true;
        }
    }
    return !v->has_ring;
}

static void add_peer(struct hf_cpg_view *v, uint32_t node, uint32_t pid)
{
    unsigned at = v->n_peers;
    if (at == HF_CPG_PEERS_MAX || node == 0) {
        return;
    }
    while (at > 0 && (v->peer[at - 1].node > node ||
                      (v->peer[at - 1].node == node && v->peer[at - 1].pid > pid))) {
        v->peer[at] = v->peer[at - 1];
        at--;
    }
    v->n_peers++;
    v->peer[at] = (struct hf_cpg_peer){
        .node = node, .pid = pid, .here = in_ring(v, node), .elder = v->state == HF_CPG_OUT};
}

/* p is no member of our view any more. */
static void drop_from_view(struct hf_cpg_view *v, struct hf_cpg_peer *p, enum hf_engine_left why)
{
    if (!p->view) {
        return;
    }
    p->view = false;
    v->changed = true;
    unsigned at = v->n_left++; /* a node that left was a member, and is so at most once per view */
    while (at > 0 && v->left[at - 1].node_id > p->node) {
        v->left[at] = v->left[at - 1];
        at--;
    }
    v->left[at] = (struct hf_engine_member){.node_id = p->node, .left = (uint8_t)why};
    memcpy(v->left[at].host, p->host, sizeof(p->host));
}

static void remove_peer(struct hf_cpg_view *v, struct hf_cpg_peer *p, enum hf_engine_left why)
{
    drop_from_view(v, p, why);
    memmove(p, p + 1, (size_t)(v->peer + v->n_peers - (p + 1)) * sizeof(*p));
    v->n_peers--;
}

/* Tell the view that our flags make, under this number. */
static void tell(struct hf_cpg_view *v, uint64_t number)
{
    struct hf_engine_member member[HF_ENGINE_MEMBERS_MAX];
    struct hf_engine_view view = {
        .ring = number, .member = member, .left = v->left, .n_left = v->n_left};
    if (number <= v->number || v->count >= HF_CPG_NUMBER_APART) {
        fail(v, -HF_EPROTO); /* Corosync's rings only grow */
        return;
    }
    for (unsigned i = 0; i < v->n_peers; i++) {
        const struct hf_cpg_peer *p = &v->peer[i];
        if (p->view && view.n_members < HF_ENGINE_MEMBERS_MAX) {
            struct hf_engine_member *m = &member[view.n_members++];
            *m = (struct hf_engine_member){.node_id = p->node};
            memcpy(m->host, p->host, sizeof(m->host));
        }
    }
    v->number = number;
    v->changed = false;
    v->n_left = 0;
    v->opt.view(v->opt.arg, &view, v->ring);
}

static uint64_t union_number(const struct hf_cpg_view *v)
{
    return v->ring << HF_CPG_COUNT_SHIFT | v->count;
}

static uint64_t apart_number(struct hf_cpg_view *v)
{
    return (v->base << HF_CPG_COUNT_SHIFT | HF_CPG_NUMBER_APART) + v->apart++;
}

/* The union changed. It is our view if we are in it. */
static void settle(struct hf_cpg_view *v, hf_time now)
{
    const struct hf_cpg_peer *me = self(v);
    if (!me || !me->joint || v->state == HF_CPG_GONE) {
        return;
    }
    if (v->state != HF_CPG_IN) {
        enter_state(v, HF_CPG_IN);
        v->since = now;
        v->base = v->ring;
        v->apart = 0;
    }
    for (unsigned i = 0; i < v->n_peers; i++) {
        struct hf_cpg_peer *p = &v->peer[i];
        if (p->view && !p->joint) {
            drop_from_view(v, p, HF_ENGINE_PROCDOWN);
        } else if (p->joint && !p->view) {
            p->view = v->changed = true;
        }
    }
    if (v->changed || v->number == 0) {
        tell(v, union_number(v));
    }
}

/* Nobody can tell us more than we know: we are the first member. */
static void begin_alone(struct hf_cpg_view *v, hf_time now)
{
    self(v)->joint = true;
    v->count++;
    settle(v, now);
}

/* FRESH, and all who may have known the union are gone. */
static void check_alone(struct hf_cpg_view *v, hf_time now)
{
    if (v->state != HF_CPG_FRESH || !v->has_ring || v->turning) {
        return;
    }
    for (unsigned i = 0; i < v->n_peers; i++) {
        if (v->peer[i].elder && v->peer[i].here) {
            return;
        }
    }
    begin_alone(v, now);
}

/* We see our own join. */
static void begin_fresh(struct hf_cpg_view *v, const struct hf_cpg_event *e, hf_time now)
{
    struct hf_cpg_peer *me = self(v);
    for (size_t i = 0; i < e->n_members; i++) {
        if (e->member[i].node == v->opt.node && e->member[i].pid != v->opt.pid) {
            fail(v, -HF_EHELD);
            return;
        }
    }
    if (e->n_members > HF_ENGINE_MEMBERS_MAX) {
        fail(v, -HF_EFULL);
        return;
    }
    memcpy(me->host, v->opt.host, sizeof(me->host));
    me->elder = false;
    v->since = now;
    enter_state(v, HF_CPG_FRESH);
}

/* We left: our last view lists us as a leaver. */
static void end(struct hf_cpg_view *v)
{
    if (v->number) {
        tell(v, v->state == HF_CPG_IN ? union_number(v) : apart_number(v));
    }
    if (v->state != HF_CPG_GONE) {
        enter_state(v, HF_CPG_GONE);
    }
}

static void apply_left(struct hf_cpg_view *v, const struct hf_cpg_addr *a, bool *ret_joint)
{
    struct hf_cpg_peer *p = find(v, a->node, a->pid);
    if (a->reason == HF_CPG_NODEDOWN) {
        v->turning = true;
    }
    if (p) {
        *ret_joint |= p->joint;
        remove_peer(v, p,
                    a->reason == HF_CPG_NODEDOWN ? HF_ENGINE_NODEDOWN
                    : a->reason == HF_CPG_LEAVE  ? HF_ENGINE_LEFT
                                                 : HF_ENGINE_PROCDOWN);
    }
}

static bool is_listed(const struct hf_cpg_event *e, uint32_t node, uint32_t pid)
{
    for (size_t i = 0; i < e->n_members; i++) {
        if (e->member[i].node == node && e->member[i].pid == pid) {
            return true;
        }
    }
    return false;
}

/* Make the peers what CPG lists. Did the union lose somebody? */
static bool relist(struct hf_cpg_view *v, const struct hf_cpg_event *e)
{
    bool joint = false;
    for (size_t i = 0; i < e->n_left; i++) {
        apply_left(v, &e->left[i], &joint);
    }
    for (unsigned i = v->n_peers; i-- > 0;) {
        if (!is_listed(e, v->peer[i].node, v->peer[i].pid)) {
            joint |= v->peer[i].joint;
            remove_peer(v, &v->peer[i], HF_ENGINE_PROCDOWN);
        }
    }
    bool left = v->state != HF_CPG_OUT && !self(v); /* also if we are listed again */
    for (size_t i = 0; i < e->n_members && !left; i++) {
        if (!find(v, e->member[i].node, e->member[i].pid)) {
            add_peer(v, e->member[i].node, e->member[i].pid);
        }
    }
    return joint;
}

static void step_confchg(struct hf_cpg_view *v, const struct hf_cpg_event *e, hf_time now)
{
    v->events += e->n_left > 0;
    v->count += relist(v, e);
    if (!self(v)) {
        if (v->state != HF_CPG_OUT) {
            end(v);
        }
    } else if (v->state == HF_CPG_OUT) {
        begin_fresh(v, e, now);
        check_alone(v, now);
    } else if (!v->turning) { /* else one view for the whole change: at its TOTEM */
        if (v->state == HF_CPG_IN) {
            settle(v, now);
        } else if (v->state == HF_CPG_APART && v->changed && v->number) {
            tell(v, apart_number(v));
        }
        check_alone(v, now);
    }
}

/* A new ring: who came with us stays our view; its union is empty. */
static void begin_ring(struct hf_cpg_view *v, hf_time now)
{
    struct hf_cpg_peer *me = self(v);
    for (unsigned i = 0; i < v->n_peers; i++) {
        struct hf_cpg_peer *p = &v->peer[i];
        p->joint = p->asked = p->elder = false;
        p->awaited = p->here;
        if (!p->here) {
            drop_from_view(v, p, HF_ENGINE_NODEDOWN);
        }
    }
    v->count = v->events = 0;
    v->announced = v->taking = v->answering = v->turning = false;
    v->since = now;
    if (!me || v->state == HF_CPG_OUT || v->state == HF_CPG_GONE) {
        return;
    }
    if (v->number == 0) {
        me->view = v->changed = true;
    } else if (v->changed) {
        tell(v, apart_number(v));
    }
    if (v->state != HF_CPG_GONE) {
        enter_state(v, HF_CPG_APART);
    }
}

static void step_totem(struct hf_cpg_view *v, const struct hf_cpg_event *e, hf_time now)
{
    bool same = v->has_ring && v->rep == e->rep && v->ring == e->ring;
    bool first = !v->has_ring; /* not a change: CPG tells who joins where it is */
    if (e->n_nodes > HF_CPG_NODES_MAX || e->ring >> (64 - HF_CPG_COUNT_SHIFT)) {
        fail(v, -HF_EPROTO);
        return;
    }
    v->has_ring = true;
    v->rep = e->rep;
    v->ring = e->ring;
    v->n_nodes = (unsigned)e->n_nodes;
    memcpy(v->nodes, e->nodes, e->n_nodes * sizeof(*e->nodes));
    for (unsigned i = 0; i < v->n_peers; i++) {
        v->peer[i].here = in_ring(v, v->peer[i].node);
    }
    if (!in_ring(v, v->opt.node)) {
        fail(v, -HF_EPROTO);
        return;
    }
    if (!same && !first) {
        begin_ring(v, now);
    }
    check_alone(v, now);
}

static void set_host(struct hf_cpg_peer *p, struct hf_slice host)
{
    memset(p->host, 0, sizeof(p->host));
    memcpy(p->host, host.p, host.n);
}

/* May p come into the union? One process of a node may. */
static bool may_unite(const struct hf_cpg_view *v, const struct hf_cpg_peer *p)
{
    unsigned n = 0;
    for (unsigned i = 0; i < v->n_peers; i++) {
        if (v->peer[i].joint && v->peer[i].node == p->node) {
            return false;
        }
        n += v->peer[i].joint;
    }
    return p->here && n < HF_ENGINE_MEMBERS_MAX;
}

/* Put those that are listed, and here, into the union. Did it change? */
static bool unite(struct hf_cpg_view *v, const struct hf_cpg_v1_frame *f)
{
    bool changed = false;
    for (unsigned i = 0; i < f->n; i++) {
        struct hf_cpg_peer *p = find(v, f->member[i].node, f->member[i].pid);
        if (p && may_unite(v, p)) {
            set_host(p, f->member[i].host);
            p->joint = changed = true;
            p->asked = p->awaited = false;
        }
    }
    return changed;
}

static void step_hello(struct hf_cpg_view *v, struct hf_cpg_peer *from,
                       const struct hf_cpg_v1_frame *f, hf_time now)
{
    if (!from->joint) {
        set_host(from, f->host);
        from->asked = true;
        from->hello = f->nonce;
        from->at = v->events;
        from->since = now;
    }
}

static void step_state(struct hf_cpg_view *v, const struct hf_cpg_v1_frame *f, hf_time now)
{
    if (v->state != HF_CPG_FRESH && unite(v, f)) {
        v->count++;
        settle(v, now);
    }
}

static void step_welcome(struct hf_cpg_view *v, struct hf_cpg_peer *from,
                         const struct hf_cpg_v1_frame *f, hf_time now)
{
    struct hf_cpg_peer *p = find(v, f->node, f->pid), *me = self(v);
    if (from == me) {
        v->answering = false;
    }
    if (!p) {
        return;
    }
    if (v->state == HF_CPG_FRESH && p != me) {
        p->elder = true;
        v->announced = false;
        return;
    }
    if (!p->asked || p->hello != f->nonce || v->events - 1 - p->at != f->delta) {
        p->since = now;
        return;
    }
    if (p == me) {
        v->count = f->count;
        (void)unite(v, f);
    }
    for (unsigned i = 0; i < v->n_peers; i++) {
        v->peer[i].asked = false; /* p does not know of them: they will say HELLO again */
    }
    p->joint = p->joint || may_unite(v, p);
    v->count++;
    settle(v, now);
}

static void step_take(struct hf_cpg_view *v, struct hf_cpg_peer *from, hf_time now)
{
    if (from->joint) {
        return; /* it was welcomed before that */
    }
    if (v->state != HF_CPG_FRESH) {
        fail(v, -HF_ELEFT);
    } else if (from == self(v)) {
        begin_alone(v, now);
    } else {
        from->elder = true;
        v->announced = false;
    }
}

static void step_control(struct hf_cpg_view *v, struct hf_cpg_peer *from,
                         const struct hf_cpg_v1_frame *f, hf_time now)
{
    if (!v->has_ring || f->rep != v->rep || f->ring != v->ring) {
        return; /* sent before the ring changed */
    }
    v->events += f->kind == HF_CPG_V1_STATE || f->kind == HF_CPG_V1_WELCOME;
    if (f->kind == HF_CPG_V1_HELLO) {
        step_hello(v, from, f, now);
    } else if (f->kind == HF_CPG_V1_STATE) {
        step_state(v, f, now);
    } else if (f->kind == HF_CPG_V1_WELCOME) {
        step_welcome(v, from, f, now);
    } else if (f->kind == HF_CPG_V1_TAKE) {
        step_take(v, from, now);
    }
}

static bool decode(struct hf_cpg_view *v, struct hf_slice in, struct hf_cpg_v1_frame *ret_frame)
{
    int rc = hf_cpg_v1_decode(in, ret_frame);
    if (rc) {
        v->malformed++;
        hf_tracef(HF_TRACE_ENGINE, v->opt.host, "cpg message of %zu bytes dropped: %s", in.n,
                  hf_strerror(rc));
    }
    return rc == 0;
}

static void step_message(struct hf_cpg_view *v, const struct hf_cpg_event *e, hf_time now)
{
    struct hf_cpg_v1_frame f;
    struct hf_cpg_peer *from = find(v, e->node, e->pid);
    if (v->state == HF_CPG_OUT || !from || !decode(v, e->msg, &f)) {
        return;
    }
    if (f.kind == HF_CPG_V1_MSG) {
        if (from->view && v->number) {
            v->opt.message(v->opt.arg, from->node, f.data);
        }
    } else if (f.kind != HF_CPG_V1_PROBE) {
        step_control(v, from, &f, now);
    }
}

static void step(struct hf_cpg_view *v, const struct hf_cpg_event *e, hf_time now)
{
    if (v->state == HF_CPG_GONE) {
        return;
    }
    switch (e->what) {
    case HF_CPG_CONFCHG:
        step_confchg(v, e, now);
        break;
    case HF_CPG_TOTEM:
        step_totem(v, e, now);
        break;
    case HF_CPG_MESSAGE:
        step_message(v, e, now);
        break;
    }
}

static void drop_held(struct hf_cpg_view *v)
{
    HF_LIST_FOREACH (l, &v->held) {
        hf_list_unlink(l);
        hf_free(HF_CONTAINER_OF(l, struct held, node));
    }
    v->held_bytes = 0;
}

static void *append(uint32_t **to, const void *p, size_t n)
{
    void *at = *to;
    if (n) {
        memcpy(at, p, n);
    }
    *to += (n + sizeof(**to) - 1) / sizeof(**to);
    return at;
}

static void hold(struct hf_cpg_view *v, const struct hf_cpg_event *e)
{
    size_t members = e->n_members * sizeof(*e->member), left = e->n_left * sizeof(*e->left);
    size_t nodes = e->n_nodes * sizeof(*e->nodes);
    size_t n = sizeof(struct held) + members + left + nodes + e->msg.n + sizeof(uint32_t);
    struct held *h = v->held_bytes + n <= HELD_BYTES_MAX ? hf_alloc(n) : NULL;
    if (!h) {
        fail(v, v->held_bytes + n <= HELD_BYTES_MAX ? -ENOMEM : -HF_EFULL);
        return;
    }
    uint32_t *to = h->data;
    h->e = *e;
    h->e.member = append(&to, e->member, members);
    h->e.left = append(&to, e->left, left);
    h->e.nodes = append(&to, e->nodes, nodes);
    h->e.msg.p = append(&to, e->msg.p, e->msg.n);
    v->held_bytes += n;
    hf_list_insert(&v->held, &h->node);
}

/* Did this event end our doubts? Our own leave does, since no PROBE comes back after it. */
static void check_probe(struct hf_cpg_view *v, const struct hf_cpg_event *e)
{
    struct hf_cpg_v1_frame f;
    if (e->what == HF_CPG_CONFCHG && !is_listed(e, v->opt.node, v->opt.pid)) {
        v->doubt = false;
        return;
    }
    if (e->what != HF_CPG_MESSAGE || e->node != v->opt.node || e->pid != v->opt.pid ||
        hf_cpg_v1_decode(e->msg, &f) != 0 || f.kind != HF_CPG_V1_PROBE || f.nonce != v->nonce) {
        return;
    }
    v->nonce++;
    v->probing = false;
    v->rounds--;
    v->doubt = v->rounds > 0;
}

void hf_cpg_view_step(struct hf_cpg_view *v, const struct hf_cpg_event *e, hf_time now)
{
    if (!v->doubt) {
        step(v, e, now);
        return;
    }
    hold(v, e);
    check_probe(v, e);
    while (!v->doubt && !hf_list_empty(&v->held)) {
        struct held *h = HF_CONTAINER_OF(v->held.next, struct held, node);
        hf_list_unlink(&h->node);
        step(v, &h->e, now);
        hf_free(h);
    }
    if (!v->doubt) {
        v->held_bytes = 0;
    }
}

void hf_cpg_view_doubt(struct hf_cpg_view *v)
{
    if (v->state != HF_CPG_OUT && v->state != HF_CPG_GONE) {
        v->doubt = true;
        v->probing = false;
        v->rounds = PROBE_ROUNDS;
        v->nonce++;
    }
}

static int send_frame(struct hf_cpg_view *v, const struct hf_cpg_v1_frame *f)
{
    uint8_t buf[HF_CPG_V1_FRAME_MAX];
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_cpg_v1_encode(&w, f);
    int rc = hf_wr_end(&w, &s);
    return rc ? rc : v->opt.send(v->opt.arg, s);
}

/* Send a control message; is it on its way? */
static bool send_control(struct hf_cpg_view *v, struct hf_cpg_v1_frame *f)
{
    f->rep = v->rep;
    f->ring = v->ring;
    int rc = send_frame(v, f);
    if (rc && rc != -HF_EFULL) {
        fail(v, rc);
    }
    return rc == 0;
}

/* The members of our view, which are the union if we are IN. */
static void list_members(const struct hf_cpg_view *v, struct hf_cpg_v1_frame *f)
{
    for (unsigned i = 0; i < v->n_peers; i++) {
        const struct hf_cpg_peer *p = &v->peer[i];
        if (p->view && f->n < HF_CPG_V1_MEMBERS_MAX) {
            f->member[f->n++] = (struct hf_cpg_v1_member){p->node, p->pid, hf_slice_str(p->host)};
        }
    }
}

/* How many members of our view come before us: who speaks for it if those before do not. */
static unsigned rank(const struct hf_cpg_view *v)
{
    unsigned n = 0;
    for (unsigned i = 0; i < v->n_peers && v->peer[i].node != v->opt.node; i++) {
        n += v->peer[i].view;
    }
    return n;
}

/* Who waits for a WELCOME: the first of the peers that are here, or NULL. */
static const struct hf_cpg_peer *next_asking(const struct hf_cpg_view *v)
{
    unsigned n = 0;
    const struct hf_cpg_peer *first = NULL;
    for (unsigned i = 0; i < v->n_peers; i++) {
        n += v->peer[i].view;
        if (v->peer[i].asked && v->peer[i].here && !first) {
            first = &v->peer[i];
        }
    }
    return n < HF_ENGINE_MEMBERS_MAX ? first : NULL;
}

/* When nobody will answer us any more: all who could have had their turn. */
static hf_time take_at(const struct hf_cpg_view *v)
{
    return v->since + (v->n_peers + 2) * v->opt.patience;
}

bool hf_cpg_view_is_merging(const struct hf_cpg_view *v, hf_time now)
{
    bool awaited = false;
    for (unsigned i = 0; i < v->n_peers; i++) {
        awaited |= v->peer[i].awaited && v->peer[i].here;
    }
    return v->state == HF_CPG_APART || (v->state == HF_CPG_IN && awaited && now < take_at(v));
}

hf_time hf_cpg_view_deadline(const struct hf_cpg_view *v)
{
    const struct hf_cpg_peer *p;
    if (v->doubt) {
        return v->probing || v->state == HF_CPG_GONE ? HF_NEVER : 0;
    }
    switch (v->state) {
    case HF_CPG_OUT:
    case HF_CPG_GONE:
        break;
    case HF_CPG_FRESH:
        return !v->has_ring ? HF_NEVER : !v->announced ? 0 : v->taking ? HF_NEVER : take_at(v);
    case HF_CPG_APART:
        return v->announced ? HF_NEVER : v->since + rank(v) * v->opt.patience;
    case HF_CPG_IN:
        p = v->answering ? NULL : next_asking(v);
        return p ? p->since + rank(v) * v->opt.patience : HF_NEVER;
    }
    return HF_NEVER;
}

static void flush_in(struct hf_cpg_view *v)
{
    const struct hf_cpg_peer *p = next_asking(v);
    struct hf_cpg_v1_frame f = {.kind = HF_CPG_V1_WELCOME,
                                .node = p->node,
                                .pid = p->pid,
                                .nonce = p->hello,
                                .delta = (uint32_t)(v->events - p->at),
                                .count = v->count};
    list_members(v, &f);
    v->answering = send_control(v, &f);
}

void hf_cpg_view_flush(struct hf_cpg_view *v, hf_time now)
{
    struct hf_cpg_v1_frame f = {0};
    if (hf_cpg_view_deadline(v) > now) {
        return;
    }
    if (v->doubt) {
        f.kind = HF_CPG_V1_PROBE;
        f.nonce = v->nonce;
        v->probing = send_control(v, &f);
    } else if (v->state == HF_CPG_FRESH && !v->announced) {
        f.kind = HF_CPG_V1_HELLO;
        f.nonce = ++v->nonce;
        f.host = hf_slice_str(v->opt.host);
        v->announced = send_control(v, &f);
    } else if (v->state == HF_CPG_FRESH) {
        f.kind = HF_CPG_V1_TAKE;
        v->taking = send_control(v, &f);
    } else if (v->state == HF_CPG_APART) {
        f.kind = HF_CPG_V1_STATE;
        list_members(v, &f);
        v->announced = send_control(v, &f);
    } else if (v->state == HF_CPG_IN) {
        flush_in(v);
    }
}

int hf_cpg_view_multicast(struct hf_cpg_view *v, struct hf_slice msg)
{
    if (msg.n > HF_ENGINE_MSG_MAX) {
        return -EMSGSIZE;
    }
    if (v->state == HF_CPG_GONE) {
        return -HF_ELEFT;
    }
    if (v->number == 0 || v->doubt) {
        return -HF_EFULL;
    }
    return send_frame(v, &(struct hf_cpg_v1_frame){.kind = HF_CPG_V1_MSG, .data = msg});
}

void hf_cpg_view_init(struct hf_cpg_view *v, const struct hf_cpg_view_opt *opt)
{
    memset(v, 0, sizeof(*v));
    v->opt = *opt;
    hf_list_init(&v->held);
}

void hf_cpg_view_fini(struct hf_cpg_view *v)
{
    drop_held(v);
    v->state = HF_CPG_GONE;
}
