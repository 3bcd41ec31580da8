/* engine/cpg_view: a model of CPG (rings, transitional sets, agreed order) under random schedules,
 * and the cases that have a name. */
#include "engine/cpg_view.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/prng.h"
#include "support/test.h"

#define NODES 5u
#define LOG_MAX 8192u
#define VIEWS_MAX 1024u
#define PATIENCE HF_MS(100)

enum kind { ENTRY_MSG, ENTRY_JOIN, ENTRY_LEAVE, ENTRY_DEATH };

struct entry {
    enum kind kind;
    uint32_t node, pid;
    size_t n;
    uint8_t bytes[];
};

struct ring {
    uint32_t rep;
    uint64_t seq;
    struct entry *log[LOG_MAX]; /* owned */
    unsigned n;
};

/* One view that a process was told, and what it was told in it. */
struct seen {
    uint64_t number;
    unsigned members;        /* mask */
    uint32_t pid[NODES + 1]; /* of members, by node */
    uint64_t messages;
};

struct process {
    bool lives, member; /* member: its own join was delivered */
    uint32_t pid;
    struct hf_cpg_view v;
    struct node *on;
    struct seen seen[VIEWS_MAX];
    unsigned n_seen, sent, got;
    char last[256]; /* the last view, readable */
};

struct node {
    uint32_t id;
    bool up, deaf; /* deaf: its process is told nothing */
    unsigned side;
    struct ring *ring;
    unsigned pos;
    struct hf_cpg_addr list[HF_CPG_PEERS_MAX];
    unsigned n_list;
    struct process *p;
};

static struct model {
    struct node node[NODES];
    struct ring *ring[LOG_MAX]; /* owned */
    unsigned n_rings;
    struct process *process[LOG_MAX]; /* owned; the dead, too */
    unsigned n_processes;
    struct hf_prng prng;
    hf_time now;
    uint64_t seed;
} w;

static unsigned some(unsigned n)
{
    return (unsigned)hf_prng_below(&w.prng, n);
}

static struct entry *append(struct ring *r, enum kind kind, uint32_t node, uint32_t pid,
                            struct hf_slice s)
{
    struct entry *e = calloc(1, sizeof(*e) + s.n);
    assert_true(e && r->n < LOG_MAX);
    e->kind = kind;
    e->node = node;
    e->pid = pid;
    e->n = s.n;
    if (s.n) {
        memcpy(e->bytes, s.p, s.n);
    }
    return r->log[r->n++] = e;
}

static int on_send(void *arg, struct hf_slice frame)
{
    struct process *p = arg;
    if (some(10) == 0) {
        return -HF_EFULL;
    }
    append(p->on->ring, ENTRY_MSG, p->on->id, p->pid, frame);
    return 0;
}

static void on_message(void *arg, uint32_t from, struct hf_slice msg)
{
    struct process *p = arg;
    assert_true(p->n_seen > 0);
    struct seen *s = &p->seen[p->n_seen - 1];
    assert_true(s->members >> from & 1);
    p->got += from == p->on->id;
    s->messages = s->messages * 1099511628211u ^ msg.p[0] ^ from << 8;
}

static void on_view(void *arg, const struct hf_engine_view *view, uint64_t ring)
{
    static const char *const why[] = {"?", "left", "proc", "node"};
    struct process *p = arg;
    struct seen *s = &p->seen[p->n_seen++];
    size_t n = 0;
    assert_true(p->n_seen < VIEWS_MAX);
    assert_int_equal(ring, p->v.ring);
    *s = (struct seen){.number = view->ring};
    p->last[0] = 0;
    for (size_t i = 0; i < view->n_members; i++) {
        s->members |= 1u << view->member[i].node_id;
        assert_true(view->member[i].host[0] == 'n');
        n += (size_t)snprintf(p->last + n, sizeof(p->last) - n, "%s%u", i ? "," : "",
                              view->member[i].node_id);
        assert_true(i == 0 || view->member[i].node_id > view->member[i - 1].node_id);
    }
    for (size_t i = 0; i < view->n_left; i++) {
        assert_false(s->members >> view->left[i].node_id & 1);
        n += (size_t)snprintf(p->last + n, sizeof(p->last) - n, " -%u:%s", view->left[i].node_id,
                              why[view->left[i].left % 4]);
    }
    assert_true(p->n_seen == 1 || s->number > s[-1].number);
    for (unsigned i = 0; i < p->v.n_peers; i++) {
        if (p->v.peer[i].view) {
            s->pid[p->v.peer[i].node] = p->v.peer[i].pid;
        }
    }
}

static bool has(const struct seen *s, const struct process *p)
{
    return s->pid[p->on->id] == p->pid;
}

static struct ring *new_ring(uint32_t rep, uint64_t seq)
{
    struct ring *r = calloc(1, sizeof(*r));
    assert_true(r && w.n_rings < LOG_MAX);
    r->rep = rep;
    r->seq = seq;
    return w.ring[w.n_rings++] = r;
}

static void boot(struct node *n)
{
    n->up = true;
    n->n_list = n->pos = 0;
    n->ring = new_ring(n->id, (n->ring ? n->ring->seq : 0) + 4);
}

static void start_process(struct node *n)
{
    struct process *p = calloc(1, sizeof(*p));
    struct hf_cpg_view_opt opt = {.node = n->id,
                                  .pid = 100 + w.n_processes,
                                  .patience = PATIENCE,
                                  .send = on_send,
                                  .view = on_view,
                                  .message = on_message,
                                  .arg = p};
    assert_true(p && w.n_processes < LOG_MAX);
    w.process[w.n_processes++] = p;
    snprintf(opt.host, sizeof(opt.host), "n%u", n->id);
    p->lives = true;
    p->pid = opt.pid;
    p->on = n;
    hf_cpg_view_init(&p->v, &opt);
    n->p = p;
    append(n->ring, ENTRY_JOIN, n->id, p->pid, hf_slice(NULL, 0));
}

static void end_process(struct node *n, enum kind how)
{
    if (how != ENTRY_LEAVE) {
        n->p->lives = false;
    }
    if (n->up) {
        append(n->ring, how, n->id, n->p->pid, hf_slice(NULL, 0));
    }
    if (how != ENTRY_LEAVE) {
        hf_cpg_view_fini(&n->p->v);
        n->p = NULL;
    }
}

/* Corosync of a node tells its process. */
static void tell(struct node *n, const struct hf_cpg_event *e)
{
    if (n->p && n->p->member && !n->deaf) {
        hf_cpg_view_step(&n->p->v, e, w.now);
    }
}

static void tell_totem(struct node *n)
{
    uint32_t nodes[NODES];
    struct hf_cpg_event e = {.what = HF_CPG_TOTEM, .rep = n->ring->rep, .ring = n->ring->seq};
    for (unsigned i = 0; i < NODES; i++) {
        if (w.node[i].up && w.node[i].ring == n->ring) {
            nodes[e.n_nodes++] = w.node[i].id;
        }
    }
    e.nodes = nodes;
    tell(n, &e);
}

static void tell_confchg(struct node *n, const struct hf_cpg_addr *left, size_t n_left)
{
    struct hf_cpg_event e = {.what = HF_CPG_CONFCHG,
                             .member = n->list,
                             .n_members = n->n_list,
                             .left = left,
                             .n_left = n_left};
    tell(n, &e);
}

static void unlist(struct node *n, uint32_t node, uint32_t pid)
{
    unsigned to = 0;
    for (unsigned i = 0; i < n->n_list; i++) {
        if (n->list[i].node != node || n->list[i].pid != pid) {
            n->list[to++] = n->list[i];
        }
    }
    n->n_list = to;
}

static void deliver(struct node *n)
{
    const struct entry *e = n->ring->log[n->pos++];
    bool mine = n->p && e->node == n->id && e->pid == n->p->pid;
    struct hf_cpg_addr a = {e->node, e->pid,
                            e->kind == ENTRY_LEAVE ? HF_CPG_LEAVE : HF_CPG_PROCDOWN};
    if (e->kind == ENTRY_JOIN) {
        n->list[n->n_list++] = a;
        if (mine) {
            n->p->member = true;
        }
        tell_confchg(n, NULL, 0);
        if (mine) {
            tell_totem(n);
        }
    } else if (e->kind == ENTRY_MSG) {
        tell(n, &(struct hf_cpg_event){.what = HF_CPG_MESSAGE,
                                       .node = e->node,
                                       .pid = e->pid,
                                       .msg = hf_slice(e->bytes, e->n)});
    } else {
        unlist(n, e->node, e->pid);
        tell_confchg(n, &a, 1);
        if (mine) { /* it left */
            assert_int_equal(n->p->v.state, HF_CPG_GONE);
            n->p->lives = n->p->member = false;
            hf_cpg_view_fini(&n->p->v);
            n->p = NULL;
        }
    }
}

/* Do two nodes come together from one ring to the same next one? */
static bool together(const struct node *a, const struct node *b, const struct ring *old)
{
    return a->up && b->up && a->side == b->side && a->ring == old && b->ring == old;
}

/* Bring those that go on together to one point; what only others have of it may be lost. */
static void recover(struct node *n, struct ring *to)
{
    struct ring *old = n->ring;
    unsigned cut = 0;
    for (unsigned i = 0; i < NODES; i++) {
        if (together(n, &w.node[i], old) && w.node[i].pos > cut) {
            cut = w.node[i].pos;
        }
    }
    cut += some(old->n - cut + 1);
    for (unsigned i = 0; i < NODES; i++) {
        while (together(n, &w.node[i], old) && w.node[i].pos < cut) {
            deliver(&w.node[i]);
        }
    }
    for (unsigned k = cut; k < old->n; k++) {
        const struct entry *e = old->log[k];
        if (together(n, &w.node[e->node - 1], old)) {
            append(to, e->kind, e->node, e->pid, hf_slice(e->bytes, e->n));
        }
    }
}

/* The processes of the others that came with n, and of all that are in the new ring. */
static void tell_change(struct node *n, struct ring *const *from)
{
    struct hf_cpg_addr left[HF_CPG_PEERS_MAX];
    unsigned n_left = 0, me = n->id - 1;
    for (unsigned i = n->n_list; i-- > 0;) {
        unsigned k = n->list[i].node - 1;
        if (from[k] != from[me] || w.node[k].ring != n->ring || !w.node[k].up) {
            left[n_left] = n->list[i];
            left[n_left++].reason = HF_CPG_NODEDOWN;
        }
    }
    for (unsigned i = 0; i < n_left; i++) {
        unlist(n, left[i].node, left[i].pid);
    }
    if (n_left) {
        tell_confchg(n, left, n_left);
    }
}

static void tell_newcomers(struct node *n, struct ring *const *from)
{
    for (unsigned i = 0; i < NODES; i++) {
        const struct node *o = &w.node[i];
        for (unsigned k = 0;
             o->up && o->ring == n->ring && from[i] != from[n->id - 1] && k < o->n_list; k++) {
            if (o->list[k].node == o->id) { /* its own are first-hand */
                n->list[n->n_list++] = (struct hf_cpg_addr){o->id, o->list[k].pid, HF_CPG_NODEUP};
                tell_confchg(n, NULL, 0);
            }
        }
    }
    tell_totem(n);
}

/* Form rings by side. */
static void change_rings(void)
{
    struct ring *from[NODES], *to[NODES] = {0};
    for (unsigned i = 0; i < NODES; i++) {
        struct node *n = &w.node[i];
        from[i] = n->ring;
        for (unsigned k = 0; k < i && n->up; k++) {
            if (w.node[k].up && w.node[k].side == n->side) {
                to[i] = to[k];
            }
        }
        if (n->up && !to[i]) {
            to[i] = new_ring(n->id, 0);
        }
        if (n->up && n->ring->seq + 4 > to[i]->seq) {
            to[i]->seq = n->ring->seq + 4;
        }
    }
    for (unsigned i = 0; i < NODES; i++) {
        bool first = w.node[i].up;
        for (unsigned k = 0; k < i; k++) {
            first = first && !together(&w.node[i], &w.node[k], from[i]);
        }
        if (first) {
            recover(&w.node[i], to[i]);
        }
    }
    for (unsigned i = 0; i < NODES; i++) {
        if (w.node[i].up) {
            w.node[i].ring = to[i];
            w.node[i].pos = 0;
        }
    }
    for (unsigned i = 0; i < NODES; i++) {
        if (w.node[i].up) {
            tell_change(&w.node[i], from);
        }
    }
    for (unsigned i = 0; i < NODES; i++) {
        if (w.node[i].up) {
            tell_newcomers(&w.node[i], from);
        }
    }
}

static void init(uint64_t seed)
{
    memset(&w, 0, sizeof(w));
    hf_prng_init(&w.prng, seed);
    w.seed = seed;
    w.now = HF_S(1);
    for (unsigned i = 0; i < NODES; i++) {
        w.node[i].id = i + 1;
    }
}

static void fini(void)
{
    for (unsigned i = 0; i < w.n_processes; i++) {
        hf_cpg_view_fini(&w.process[i]->v);
        free(w.process[i]);
    }
    for (unsigned i = 0; i < w.n_rings; i++) {
        for (unsigned k = 0; k < w.ring[i]->n; k++) {
            free(w.ring[i]->log[k]);
        }
        free(w.ring[i]);
    }
}

static void flush(struct node *n)
{
    if (n->p && n->p->member && !n->deaf) {
        hf_cpg_view_flush(&n->p->v, w.now);
        if (n->p->v.failed) { /* its driver gives up, and comes again */
            end_process(n, ENTRY_DEATH);
        }
    }
}

static void run(unsigned steps)
{
    for (unsigned k = 0; k < steps; k++) {
        struct node *n = &w.node[some(NODES)];
        w.now += HF_MS(1) / 10;
        if (n->up && n->pos < n->ring->n) {
            deliver(n);
        }
        flush(n);
    }
}

/* Until nothing is under way any more. */
static void settle(void)
{
    for (unsigned k = 0; k < 400; k++) {
        run(100);
    }
    for (unsigned i = 0; i < NODES; i++) {
        assert_true(!w.node[i].up || w.node[i].pos == w.node[i].ring->n);
    }
}

static void say(struct node *n)
{
    uint8_t byte = (uint8_t)some(256);
    if (n->p && n->p->member && hf_cpg_view_multicast(&n->p->v, hf_slice(&byte, 1)) == 0) {
        n->p->sent++;
    }
}

static void something_happens(void)
{
    struct node *n = &w.node[some(NODES)];
    unsigned what = some(20);
    if (what < 2) {
        for (unsigned i = 0; i < NODES; i++) {
            w.node[i].side = some(2);
        }
        change_rings();
    } else if (what < 4) {
        for (unsigned i = 0; i < NODES; i++) {
            w.node[i].side = 0;
        }
        change_rings();
    } else if (what == 4 && n->up) {
        n->up = false;
        if (n->p) {
            end_process(n, ENTRY_DEATH);
        }
        change_rings();
    } else if (!n->up) {
        boot(n);
    } else if (!n->p) {
        start_process(n);
    } else if (what < 7) {
        end_process(n, ENTRY_DEATH);
    } else if (what == 7 && n->p->member) {
        end_process(n, ENTRY_LEAVE);
        n->p->sent = UINT32_MAX; /* says no more */
    } else if (what == 8) {
        hf_cpg_view_doubt(&n->p->v);
    } else if (n->p->sent != UINT32_MAX) {
        say(n);
    }
}

/* Who was in one view was told the same view, and, if they went on to the same, the same in it. */
static void check_pair(const struct process *a, const struct process *b)
{
    for (unsigned i = 0; i < a->n_seen; i++) {
        const struct seen *x = &a->seen[i];
        for (unsigned k = 0; k < b->n_seen && has(x, a) && has(x, b); k++) {
            const struct seen *y = &b->seen[k];
            if (x->number != y->number || !has(y, a)) {
                continue;
            }
            assert_int_equal(x->members, y->members);
            if (i + 1 < a->n_seen && k + 1 < b->n_seen && x[1].number == y[1].number &&
                has(&x[1], b) && has(&y[1], a)) {
                assert_int_equal(x->messages, y->messages);
            }
        }
    }
}

static void check(void)
{
    uint64_t number = 0;
    unsigned alive = 0;
    for (unsigned i = 0; i < NODES; i++) {
        alive |= w.node[i].p ? 1u << w.node[i].id : 0;
    }
    for (unsigned i = 0; i < NODES; i++) {
        const struct process *p = w.node[i].p;
        if (!p) {
            continue;
        }
        assert_true(p->n_seen > 0);
        const struct seen *s = &p->seen[p->n_seen - 1];
        assert_int_equal(s->members, alive);
        assert_true(number == 0 || s->number == number);
        number = s->number;
        assert_int_equal(p->v.state, HF_CPG_IN);
        assert_false(p->v.doubt || hf_cpg_view_is_merging(&p->v, w.now));
        assert_int_equal(hf_cpg_view_deadline(&p->v), HF_NEVER);
        assert_int_equal(p->got, p->sent);
        assert_int_equal(p->v.malformed, 0);
    }
    for (unsigned i = 0; i < w.n_processes; i++) {
        for (unsigned k = 0; k < w.n_processes; k++) {
            if (w.process[i]->on != w.process[k]->on) {
                check_pair(w.process[i], w.process[k]);
            }
        }
    }
}

static void one_schedule(uint64_t seed)
{
    print_message("# seed %llu\n", (unsigned long long)seed);
    init(seed);
    for (unsigned i = 0; i < NODES; i++) {
        boot(&w.node[i]);
    }
    for (unsigned k = 0; k < 150; k++) {
        something_happens();
        run(some(60));
    }
    for (unsigned i = 0; i < NODES; i++) {
        w.node[i].side = 0;
    }
    settle();
    change_rings();
    settle();
    check();
    fini();
}

static void random_schedules(void **state)
{
    (void)state;
    static const uint64_t failed_once[] = {2108};
    const char *only = getenv("SEED");
    if (only) {
        one_schedule(strtoull(only, NULL, 10));
        return;
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(failed_once); i++) {
        one_schedule(failed_once[i]);
    }
    for (uint64_t seed = 1; seed <= 300; seed++) {
        one_schedule(seed);
    }
}

/* Three nodes in one ring, each with a process in one view. */
static void three_in_a_view(uint64_t seed)
{
    init(seed);
    for (unsigned i = 0; i < 3; i++) {
        boot(&w.node[i]);
    }
    change_rings();
    for (unsigned i = 0; i < 3; i++) {
        start_process(&w.node[i]);
    }
    settle();
    for (unsigned i = 0; i < 3; i++) {
        assert_string_equal(w.node[i].p->last, "1,2,3");
    }
}

static void told_at_once(void **state)
{
    (void)state;
    three_in_a_view(1);
    uint64_t before = w.node[0].p->v.number;
    end_process(&w.node[2], ENTRY_DEATH);
    deliver(&w.node[0]);
    assert_string_equal(w.node[0].p->last, "1,2 -3:proc");
    assert_int_equal(w.node[0].p->v.number, before + 1);
    w.node[1].up = false;
    end_process(&w.node[1], ENTRY_DEATH);
    change_rings();
    assert_string_equal(w.node[0].p->last, "1 -2:node");
    /* above what any quorum of the old ring was told for, below the new ring's */
    assert_true(w.node[0].p->v.number > before + 2);
    assert_true(w.node[0].p->v.number < w.node[0].p->v.ring << HF_CPG_COUNT_SHIFT);
    assert_true(hf_cpg_view_is_merging(&w.node[0].p->v, w.now));
    settle();
    assert_false(hf_cpg_view_is_merging(&w.node[0].p->v, w.now));
    fini();
}

/* Frozen: all leave and come back in one change, which is two views. */
static void everybody_left_and_came_back(void **state)
{
    (void)state;
    three_in_a_view(1);
    unsigned n = w.node[2].p->n_seen;
    w.node[2].side = 1;
    change_rings();
    assert_string_equal(w.node[2].p->last, "3 -1:node -2:node");
    w.node[2].side = 0;
    change_rings();
    settle();
    assert_string_equal(w.node[2].p->last, "1,2,3");
    assert_int_equal(w.node[2].p->n_seen, n + 2);
    fini();
}

/* A view's spokesman hangs: the next one speaks. */
static void spokesman_hangs(void **state)
{
    (void)state;
    three_in_a_view(1);
    w.node[0].deaf = true;
    w.node[2].side = 1;
    change_rings();
    w.node[2].side = 0;
    change_rings();
    settle();
    assert_string_equal(w.node[1].p->last, "1,2,3");
    assert_string_equal(w.node[2].p->last, "1,2,3");
    fini();
}

/* Nobody answers a newcomer: it begins anew, and who wakes up then is lost. */
static void ghosts_are_passed_over(void **state)
{
    (void)state;
    three_in_a_view(1);
    end_process(&w.node[1], ENTRY_DEATH);
    settle();
    w.node[0].deaf = w.node[2].deaf = true;
    unsigned from = w.node[0].ring->n;
    start_process(&w.node[1]);
    settle();
    assert_string_equal(w.node[1].p->last, "2");
    w.node[0].deaf = false;
    w.node[0].n_list = 3; /* it did not look until now */
    w.node[0].pos = from;
    w.node[0].list[2] = (struct hf_cpg_addr){3, w.node[2].p->pid, 0};
    struct process *p = w.node[0].p;
    while (w.node[0].pos < w.node[0].ring->n && !p->v.failed) {
        deliver(&w.node[0]);
    }
    assert_int_equal(p->v.failed, -HF_ELEFT);
    fini();
}

static void second_process_is_refused(void **state)
{
    (void)state;
    three_in_a_view(1);
    struct process *first = w.node[0].p;
    start_process(&w.node[0]);
    while (w.node[0].pos < w.node[0].ring->n) {
        deliver(&w.node[0]);
    }
    assert_int_equal(w.node[0].p->v.failed, -HF_EHELD);
    assert_int_equal(hf_cpg_view_multicast(&w.node[0].p->v, hf_slice_str("x")), -HF_ELEFT);
    assert_int_equal(first->v.failed, 0);
    fini();
}

static void pause_holds_back(void **state)
{
    (void)state;
    three_in_a_view(1);
    struct process *p = w.node[0].p;
    uint64_t before = p->seen[p->n_seen - 1].messages;
    unsigned views = p->n_seen;
    while (p->sent == 0 && w.node[1].p->sent == 0) {
        say(&w.node[1]);
    }
    end_process(&w.node[2], ENTRY_DEATH);
    hf_cpg_view_doubt(&p->v);
    assert_int_equal(hf_cpg_view_multicast(&p->v, hf_slice_str("x")), -HF_EFULL);
    while (w.node[0].pos < w.node[0].ring->n) {
        deliver(&w.node[0]);
    }
    assert_int_equal(p->seen[views - 1].messages, before);
    assert_int_equal(p->n_seen, views);
    settle();
    assert_int_not_equal(p->seen[views - 1].messages, before);
    assert_string_equal(p->last, "1,2 -3:proc");
    assert_false(p->v.doubt);

    hf_cpg_view_doubt(&p->v); /* no memory to hold anything: lost, not skipped */
    hf_mem_fail_after(0);
    append(w.node[0].ring, ENTRY_MSG, 2, w.node[1].p->pid, hf_slice_str("x"));
    deliver(&w.node[0]);
    hf_mem_fail_after(-1);
    assert_int_equal(p->v.failed, -ENOMEM);
    fini();
}

static void wrong_messages_are_dropped(void **state)
{
    (void)state;
    static const uint8_t big[HF_ENGINE_MSG_MAX + 1];
    three_in_a_view(1);
    struct process *p = w.node[0].p;
    unsigned views = p->n_seen;
    assert_int_equal(hf_cpg_view_multicast(&p->v, hf_slice(big, sizeof(big))), -EMSGSIZE);
    append(w.node[0].ring, ENTRY_MSG, 2, w.node[1].p->pid, hf_slice(big, 100));
    append(w.node[0].ring, ENTRY_MSG, 2, w.node[1].p->pid, hf_slice(NULL, 0));
    append(w.node[0].ring, ENTRY_MSG, 9, 9, hf_slice(NULL, 0));
    settle();
    assert_int_equal(p->v.malformed, 2);
    assert_int_equal(p->n_seen, views);
    fini();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(random_schedules),
        HF_TEST(told_at_once),
        HF_TEST(everybody_left_and_came_back),
        HF_TEST(spokesman_hangs),
        HF_TEST(ghosts_are_passed_over),
        HF_TEST(second_process_is_refused),
        HF_TEST(pause_holds_back),
        HF_TEST(wrong_messages_are_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
