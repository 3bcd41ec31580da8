/* The simulator's engine: rings, queues with due times, and ring changes. */
#include "support/sim_engine.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/list.h"

#define GHOST SIM_NODES_MAX
#define PENDING_MAX 64u

static const uint8_t silent[SIM_NODES_MAX] = {[0 ... SIM_NODES_MAX - 1] = HF_ENGINE_NODEDOWN};

/* Something to be delivered to one node. */
struct item {
    struct hf_list node;
    hf_time due;
    uint64_t ring, at; /* the ring's number and the place in its order */
    enum { MESSAGE, VIEW, QUORUM, LOST } kind;
    unsigned group, from;
    bool quorate;
    uint32_t members, left; /* masks of nodes */
    uint8_t reason;
    size_t n;
    uint8_t data[HF_ENGINE_MSG_MAX];
};

struct node {
    struct hf_engine engine;
    struct sim *s;
    unsigned i;
    struct hf_engine_callbacks cb;
    void *arg;
    bool up, paused, behind; /* behind: paused, and the others went on */
    bool dead, held;         /* its engine's daemon is; its process is stopped */
    bool untold;             /* of the daemon's death */
    bool let_in;             /* though one-way: for a moment */
    enum sim_way way;
    hf_time flap_at; /* next ring change of a one-way cut */
    hf_time paused_at;
    uint8_t side;
    uint64_t ring, ring_at; /* nodes with equal ring are together; its order's end */
    uint64_t done;          /* place of the last item delivered in that ring */
    hf_time last_due;
    uint32_t groups;                  /* joined, as the application sees it */
    uint32_t members[SIM_GROUPS_MAX]; /* at the end of the ring's order, as this node will see it */
    struct hf_list queue;
    unsigned n_queue;
};

struct sim {
    struct sim_opt opt;
    struct hf_prng prng;
    hf_time now;
    uint64_t ring; /* the last number given */
    char group[SIM_GROUPS_MAX][HF_ENGINE_GROUP_NAME_MAX + 1];
    struct node node[SIM_NODES_MAX];
};

static struct item *item_of(struct hf_list *l)
{
    return HF_CONTAINER_OF(l, struct item, node);
}

static bool together(const struct node *a, const struct node *b)
{
    return a->up && b->up && a->ring == b->ring;
}

static void push(struct node *d, const struct item *what)
{
    size_t n = offsetof(struct item, data) + what->n;
    struct item *it = malloc(n);
    assert(it);
    memcpy(it, what, n);
    hf_time due =
        d->s->now + 1 + (hf_time)hf_prng_below(&d->s->prng, (uint64_t)d->s->opt.delay_max);
    it->due = d->last_due = due > d->last_due ? due : d->last_due;
    hf_list_insert(&d->queue, &it->node);
    d->n_queue++;
}

static void pop(struct node *d, struct item *it)
{
    hf_list_unlink(&it->node);
    d->n_queue--;
    free(it);
}

/* Order an item in the ring of node d: every node of the ring gets it. */
static void order(struct node *d, struct item *it)
{
    it->ring = d->ring;
    it->at = ++d->ring_at;
    uint64_t at = d->ring_at;
    for (unsigned i = 0; i < d->s->opt.n; i++) {
        struct node *o = &d->s->node[i];
        if (together(d, o)) {
            o->ring_at = at;
            if (it->kind != MESSAGE || o->members[it->group] >> o->i & 1) {
                push(o, it);
            }
        }
    }
}

static bool quorate(const struct sim *s, uint32_t mask)
{
    return (unsigned)__builtin_popcount(mask) >= s->opt.n / 2 + 1;
}

static uint32_t ring_of(const struct node *d)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < d->s->opt.n; i++) {
        mask |= (uint32_t)together(d, &d->s->node[i]) << i;
    }
    return mask;
}

/* Give a node the quorum and one view of the same change, in either order. */
static void push_change(struct node *d, const struct item *view)
{
    struct item q = {.kind = QUORUM, .ring = view->ring, .at = view->at};
    q.quorate = quorate(d->s, ring_of(d));
    bool first = hf_prng_below(&d->s->prng, 2) == 0;
    if (first) {
        push(d, &q);
    }
    push(d, view);
    if (!first) {
        push(d, &q);
    }
}

/* A join (or leave) has its place in the order: a view for all who are or were in the group. */
static void order_view(struct node *d, unsigned group, uint32_t in, uint32_t out)
{
    struct item it = {.kind = VIEW, .group = group, .left = out, .reason = HF_ENGINE_LEFT};
    it.members = (d->members[group] | in) & ~out;
    it.ring = d->ring;
    it.at = d->ring_at + 1;
    for (unsigned i = 0; i < d->s->opt.n; i++) {
        struct node *o = &d->s->node[i];
        if (together(d, o)) {
            o->ring_at = it.at;
            if ((o->members[group] | in) >> o->i & 1) {
                push_change(o, &it);
            }
            o->members[group] = (o->members[group] | in) & ~out;
        }
    }
}

/* Cut the tail of an old ring for those of mask that were in it: messages of nodes outside of mask
 * that none of them has delivered, and that nothing of their own follows. */
static void cut(struct sim *s, uint64_t ring, uint32_t mask)
{
    uint64_t low = 0, high = 0;
    for (unsigned i = 0; i < s->opt.n; i++) {
        struct node *d = &s->node[i];
        if (!(mask >> i & 1) || d->ring != ring) {
            continue;
        }
        low = d->done > low ? d->done : low;
        high = d->ring_at > high ? d->ring_at : high;
        HF_LIST_FOREACH (l, &d->queue) {
            const struct item *it = item_of(l);
            bool must = it->kind != MESSAGE || mask >> it->from & 1;
            low = it->ring == ring && must && it->at > low ? it->at : low;
        }
    }
    uint64_t end = low + (high > low ? hf_prng_below(&s->prng, high - low + 1) : 0);
    for (unsigned i = 0; i < s->opt.n; i++) {
        HF_LIST_FOREACH (l, &s->node[i].queue) {
            if (mask >> i & 1 && item_of(l)->ring == ring && item_of(l)->at > end) {
                pop(&s->node[i], item_of(l));
            }
        }
    }
}

/* Tell node d of its new ring: views of its groups and the quorum, in either order. */
static void tell(struct node *d, uint32_t mask, const uint32_t *members, const uint8_t *reason)
{
    struct item q = {.kind = QUORUM, .ring = d->ring, .quorate = quorate(d->s, mask)};
    bool first = hf_prng_below(&d->s->prng, 2) == 0;
    if (first) {
        push(d, &q);
    }
    for (unsigned g = 0; g < SIM_GROUPS_MAX; g++) {
        uint32_t left = d->members[g] & ~members[g];
        if ((members[g] >> d->i & 1) && members[g] != d->members[g]) {
            struct item v = {.kind = VIEW, .group = g, .ring = d->ring, .members = members[g]};
            v.left = left;
            v.reason = HF_ENGINE_NODEDOWN;
            for (unsigned i = 0; i < d->s->opt.n; i++) {
                if (left >> i & 1) {
                    v.reason = reason[i];
                }
            }
            push(d, &v);
        }
        d->members[g] = members[g];
    }
    if (!first) {
        push(d, &q);
    }
}

/* The nodes of mask form a ring of their own. */
static void form(struct sim *s, uint32_t mask, const uint8_t *reason)
{
    uint32_t members[SIM_GROUPS_MAX] = {0};
    for (unsigned i = 0; i < s->opt.n; i++) {
        if (mask >> i & 1) {
            bool seen = false;
            for (unsigned k = 0; k < i; k++) {
                seen = seen || (mask >> k & 1 && s->node[k].ring == s->node[i].ring);
            }
            if (!seen) {
                cut(s, s->node[i].ring, mask);
            }
            for (unsigned g = 0; g < SIM_GROUPS_MAX; g++) {
                members[g] |= s->node[i].members[g] & (mask | 1u << GHOST);
            }
        }
    }
    s->ring += 1ULL << 20;
    for (unsigned i = 0; i < s->opt.n; i++) {
        if (mask >> i & 1) {
            s->node[i].ring = s->node[i].ring_at = s->node[i].done = s->ring;
        }
    }
    for (unsigned i = 0; i < s->opt.n; i++) {
        if (mask >> i & 1) {
            tell(&s->node[i], mask, members, reason);
        }
    }
}

static bool apart(const struct node *d)
{
    return d->way != SIM_BOTH_WAYS && !d->let_in;
}

static uint32_t reachable(const struct sim *s, uint8_t side)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < s->opt.n; i++) {
        const struct node *d = &s->node[i];
        mask |= (uint32_t)(d->up && !d->behind && !d->dead && !apart(d) && d->side == side) << i;
    }
    return mask;
}

/* Who is to be in the ring of node d. */
static uint32_t wanted(const struct node *d)
{
    bool runs = d->up && !d->behind && !d->dead;
    return runs && apart(d) ? 1u << d->i : reachable(d->s, d->side);
}

/* Form the rings that the sides ask for, where they differ from those that are. */
static void reform(struct sim *s)
{
    uint32_t done = 0, form_of[SIM_NODES_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < s->opt.n; i++) { /* compare all before any ring changes */
        uint32_t want = wanted(&s->node[i]);
        if ((want >> i & 1) && !(done >> i & 1)) {
            done |= want;
            if (ring_of(&s->node[i]) != want) {
                form_of[n++] = want;
            }
        }
    }
    for (unsigned i = 0; i < n; i++) {
        form(s, form_of[i], silent);
    }
}

static void deliver(struct node *d, const struct item *it)
{
    const char *group = d->s->group[it->group];
    if (it->kind == MESSAGE) {
        d->cb.message(d->arg, group, it->from + 1, hf_slice(it->data, it->n));
        return;
    }
    if (it->kind == LOST) {
        d->untold = false;
        d->cb.lost(d->arg, -HF_ELEFT);
        return;
    }
    if (it->kind == QUORUM) {
        d->cb.quorum(d->arg, it->quorate, it->ring + it->at % (1u << 20));
        return;
    }
    struct hf_engine_member m[2][SIM_NODES_MAX + 1] = {0};
    struct hf_engine_view v = {.ring = it->ring + it->at % (1u << 20)};
    size_t n[2] = {0};
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned i = 0; i <= SIM_NODES_MAX; i++) {
            if ((k ? it->left : it->members) >> i & 1) {
                struct hf_engine_member *to = &m[k][n[k]++];
                to->node_id = i + 1;
                to->left = k ? it->reason : 0;
                if (d->s->opt.host && i < d->s->opt.n) {
                    snprintf(to->host, sizeof(to->host), "%s", d->s->opt.host[i]);
                } else {
                    snprintf(to->host, sizeof(to->host), "n%u", i + 1);
                }
            }
        }
    }
    v.member = m[0];
    v.n_members = n[0];
    v.left = m[1];
    v.n_left = n[1];
    d->cb.view(d->arg, group, &v);
}

static struct node *of(struct hf_engine *e)
{
    return HF_CONTAINER_OF(e, struct node, engine);
}

static int find(struct sim *s, const char *group, bool make)
{
    for (int i = 0; i < SIM_GROUPS_MAX; i++) {
        if (make && s->group[i][0] == '\0') {
            snprintf(s->group[i], sizeof(s->group[i]), "%s", group);
        }
        if (strcmp(s->group[i], group) == 0) {
            return i;
        }
    }
    return -1;
}

static int se_join(struct hf_engine *e, const char *group)
{
    struct node *d = of(e);
    if (group[0] == '\0' || strlen(group) > HF_ENGINE_GROUP_NAME_MAX) {
        return -HF_ENAME;
    }
    int g = find(d->s, group, true);
    if (g < 0 || d->untold) {
        return -HF_EFULL;
    }
    if (d->groups >> g & 1) {
        return -EALREADY;
    }
    d->groups |= 1u << g;
    if (!d->dead) { /* else when it is regained */
        order_view(d, (unsigned)g, 1u << d->i, 0);
    }
    return 0;
}

static int se_leave(struct hf_engine *e, const char *group)
{
    struct node *d = of(e);
    int g = find(d->s, group, false);
    if (g < 0 || !(d->groups >> g & 1)) {
        return -HF_ELEFT;
    }
    d->groups &= ~(1u << g);
    if (!d->dead) {
        order_view(d, (unsigned)g, 0, 1u << d->i);
    }
    return 0;
}

static int se_multicast(struct hf_engine *e, const char *group, struct hf_slice msg)
{
    struct node *d = of(e);
    int g = find(d->s, group, false);
    if (g < 0 || !(d->groups >> g & 1)) {
        return -HF_ELEFT;
    }
    if (msg.n > HF_ENGINE_MSG_MAX) {
        return -EMSGSIZE;
    }
    if (d->n_queue >= PENDING_MAX || d->dead) {
        return -HF_EFULL;
    }
    struct item it = {.kind = MESSAGE, .group = (unsigned)g, .from = d->i, .n = msg.n};
    if (msg.n) {
        memcpy(it.data, msg.p, msg.n);
    }
    order(d, &it);
    return 0;
}

static int se_fd(struct hf_engine *e)
{
    (void)e;
    return -1; /* simulated time has no descriptors: sim_run() calls dispatch */
}

static int se_dispatch(struct hf_engine *e, hf_time now, hf_time *ret_next)
{
    struct node *d = of(e);
    (void)now;
    while (d->up && !hf_list_empty(&d->queue) && item_of(d->queue.next)->due <= d->s->now) {
        struct item *it = item_of(d->queue.next);
        hf_list_unlink(&it->node);
        d->n_queue--;
        if (it->ring == d->ring && it->at) {
            d->done = it->at;
        }
        deliver(d, it);
        free(it);
    }
    *ret_next = hf_list_empty(&d->queue) ? HF_NEVER : item_of(d->queue.next)->due;
    return 0;
}

static void se_destroy(struct hf_engine *e)
{
    if (e) {
        sim_crash(of(e)->s, of(e)->i, false);
    }
}

struct sim *sim_create(const struct sim_opt *opt)
{
    struct sim *s = calloc(1, sizeof(*s));
    if (!s) {
        return NULL;
    }
    assert(opt->n > 0 && opt->n <= SIM_NODES_MAX);
    s->opt = *opt;
    s->opt.delay_max = opt->delay_max ? opt->delay_max : HF_MS(1);
    s->opt.detect = opt->detect ? opt->detect : HF_MS(100);
    hf_prng_init(&s->prng, opt->seed);
    for (unsigned i = 0; i < SIM_NODES_MAX; i++) {
        s->node[i].s = s;
        s->node[i].i = i;
        hf_list_init(&s->node[i].queue);
    }
    return s;
}

static void clear(struct node *d)
{
    HF_LIST_FOREACH (l, &d->queue) {
        pop(d, item_of(l));
    }
    d->up = d->paused = d->behind = d->dead = d->untold = d->held = false;
    d->groups = 0;
    memset(d->members, 0, sizeof(d->members));
}

void sim_destroy(struct sim *s)
{
    for (unsigned i = 0; s && i < SIM_NODES_MAX; i++) {
        clear(&s->node[i]);
    }
    free(s);
}

struct hf_engine *sim_start(struct sim *s, unsigned i, const struct hf_engine_callbacks *cb,
                            void *arg)
{
    static const struct hf_engine_ops ops = {.join = se_join,
                                             .leave = se_leave,
                                             .multicast = se_multicast,
                                             .fd = se_fd,
                                             .dispatch = se_dispatch,
                                             .destroy = se_destroy};
    struct node *d = &s->node[i];
    assert(!d->up);
    d->engine.ops = &ops;
    d->cb = *cb;
    d->arg = arg;
    d->up = true;
    s->ring += 1ULL << 20;
    d->ring = d->ring_at = d->done = s->ring;
    d->last_due = s->now;
    reform(s);
    if (d->n_queue == 0) { /* alone on its side: its ring did not change */
        tell(d, 1u << i, d->members, NULL);
    }
    return &d->engine;
}

void sim_crash(struct sim *s, unsigned i, bool host)
{
    uint8_t reason[SIM_NODES_MAX] = {0};
    for (unsigned k = 0; k < SIM_NODES_MAX; k++) {
        reason[k] = k == i && !host ? HF_ENGINE_PROCDOWN : HF_ENGINE_NODEDOWN;
    }
    struct node *d = &s->node[i];
    if (!d->up) {
        return;
    }
    uint32_t rest = ring_of(d) & ~(1u << i);
    clear(d);
    if (rest) {
        form(s, rest, reason);
    }
}

void sim_pause(struct sim *s, unsigned i)
{
    if (s->node[i].up && !s->node[i].paused) {
        s->node[i].paused = true;
        s->node[i].paused_at = s->now;
    }
}

/* The others went on without d: it wakes to "they left" and "they are back", nothing of quorum. */
static void wake_behind(struct sim *s, struct node *d)
{
    bool alone = (reachable(s, d->side) & ~(1u << d->i)) == 0 || apart(d);
    d->behind = false;
    if (d->dead) {
        return;
    }
    d->last_due = s->now;
    s->ring += 1ULL << 20;
    d->ring = d->ring_at = d->done = s->ring;
    for (unsigned g = 0; g < SIM_GROUPS_MAX; g++) {
        uint32_t me = (d->groups >> g & 1u) << d->i;
        uint32_t left = d->members[g] & ~me;
        if (me && left) {
            push(d, &(struct item){.kind = VIEW,
                                   .group = g,
                                   .ring = d->ring,
                                   .members = me,
                                   .left = left,
                                   .reason = HF_ENGINE_NODEDOWN});
        }
        d->members[g] = me;
    }
    if (alone) { /* nobody came back: then it is told */
        tell(d, 1u << d->i, d->members, NULL);
    }
}

void sim_resume(struct sim *s, unsigned i)
{
    struct node *d = &s->node[i];
    if (!d->paused) {
        return;
    }
    d->paused = false;
    if (d->behind) {
        wake_behind(s, d);
        reform(s);
    }
}

bool sim_paused(const struct sim *s, unsigned i)
{
    return s->node[i].paused;
}

void sim_partition(struct sim *s, const uint8_t *side)
{
    for (unsigned i = 0; i < s->opt.n; i++) {
        s->node[i].side = side[i];
    }
    reform(s);
}

void sim_one_way(struct sim *s, unsigned i, enum sim_way way)
{
    s->node[i].way = way;
    s->node[i].let_in = false;
    s->node[i].flap_at = s->now + s->opt.detect;
    reform(s);
}

/* A one-way cut: its ring changes again; the others' too, if they hear it. */
static void flap(struct sim *s, struct node *d)
{
    d->flap_at = s->now + 1 + (hf_time)hf_prng_below(&s->prng, (uint64_t)s->opt.detect * 8);
    bool let_in = hf_prng_below(&s->prng, 4) == 0;
    if (!d->up || d->dead || d->behind) {
        return;
    }
    if (let_in != d->let_in) {
        d->let_in = let_in;
        reform(s);
        return;
    }
    if (!let_in) {
        form(s, 1u << d->i, silent);
        uint32_t rest = reachable(s, d->side);
        if (d->way == SIM_DEAF && rest) {
            form(s, rest, silent);
        }
    }
}

void sim_lose(struct sim *s, unsigned i)
{
    struct node *d = &s->node[i];
    if (!d->up || d->dead || d->untold) {
        return;
    }
    uint32_t rest = ring_of(d) & ~(1u << i);
    d->dead = d->untold = true;
    HF_LIST_FOREACH (l, &d->queue) {
        pop(d, item_of(l));
    }
    d->groups = 0;
    memset(d->members, 0, sizeof(d->members));
    s->ring += 1ULL << 20;
    d->ring = d->ring_at = d->done = s->ring;
    d->last_due = s->now;
    push(d, &(struct item){.kind = LOST});
    if (rest) {
        form(s, rest, silent);
    }
}

void sim_regain(struct sim *s, unsigned i)
{
    struct node *d = &s->node[i];
    if (!d->up || !d->dead) {
        return;
    }
    d->dead = false;
    s->ring += 1ULL << 20;
    d->ring = d->ring_at = d->done = s->ring;
    reform(s);
    uint32_t ring = ring_of(d);
    if (__builtin_popcount(ring) == 1) { /* alone on its side: its ring did not change */
        tell(d, ring, d->members, NULL);
    }
    for (unsigned g = 0; g < SIM_GROUPS_MAX; g++) {
        if (d->groups >> g & 1) {
            order_view(d, g, 1u << i, 0);
        }
    }
}

bool sim_lost(const struct sim *s, unsigned i)
{
    return s->node[i].dead || s->node[i].untold;
}

void sim_hold(struct sim *s, unsigned i, bool on)
{
    s->node[i].held = on;
}

void sim_ghost(struct sim *s, const char *group)
{
    int g = find(s, group, true);
    uint32_t done = 0;
    for (unsigned i = 0; i < s->opt.n && g >= 0; i++) {
        if (s->node[i].up && !(done >> i & 1)) {
            done |= ring_of(&s->node[i]);
            order_view(&s->node[i], (unsigned)g, 1u << GHOST, 0);
        }
    }
}

hf_time sim_now(const struct sim *s)
{
    return s->now;
}

struct hf_prng *sim_prng(struct sim *s)
{
    return &s->prng;
}

hf_time sim_next(const struct sim *s)
{
    hf_time next = HF_NEVER;
    for (unsigned i = 0; i < s->opt.n; i++) {
        const struct node *d = &s->node[i];
        if (d->paused && !d->behind) {
            next = hf_time_min(next, d->paused_at + s->opt.detect);
        }
        if (d->way != SIM_BOTH_WAYS) {
            next = hf_time_min(next, d->flap_at);
        }
        if (d->up && !d->paused && !d->held && !hf_list_empty(&d->queue)) {
            next = hf_time_min(next, item_of(d->queue.next)->due);
        }
    }
    return next;
}

void sim_run(struct sim *s, hf_time until)
{
    for (;;) {
        hf_time next = until, unused;
        bool left = false;
        for (unsigned i = 0; i < s->opt.n; i++) {
            struct node *d = &s->node[i];
            if (d->paused && !d->behind && s->now >= d->paused_at + s->opt.detect) {
                d->behind = left = true;
            } else if (d->paused && !d->behind) {
                next = hf_time_min(next, d->paused_at + s->opt.detect);
            }
        }
        if (left) {
            reform(s);
        }
        for (unsigned i = 0; i < s->opt.n; i++) {
            struct node *d = &s->node[i];
            if (d->way != SIM_BOTH_WAYS && s->now >= d->flap_at) {
                flap(s, d);
            }
            if (d->way != SIM_BOTH_WAYS) {
                next = hf_time_min(next, d->flap_at);
            }
        }
        for (unsigned i = 0; i < s->opt.n; i++) {
            struct node *d = &s->node[i];
            if (d->up && !d->paused && !d->held) {
                se_dispatch(&d->engine, s->now, &unused);
                next = hf_time_min(next, unused);
            }
        }
        if (s->now >= until) {
            return;
        }
        s->now = next > s->now ? next : s->now;
    }
}
