/* Fuzz: up to three group cores on a small engine of their own. The input says what happens next:
 * views, quorum, time, results, requests, restarts, and messages of a member that lies. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/rd.h"
#include "base/wr.h"
#include "core/group/group.h"

#define NODES 3
#define LIAR NODES /* a node of views that is no core */
#define PENDING_MAX 64
#define QUEUE_MAX 256
#define COMMANDS_MAX 120
#define DELIVERIES_MAX 2000 /* of one command: more is a conversation without end */
#define GSTATE_MAGIC 0x48464731u
#define GMSG_HEAD_LEN 20

static_assert(HF_OP_COUNT_ == HF_GROUP_OPS, "the codec knows how many there are");

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct node {
    struct hf_group *g;
    uint64_t ring; /* its view; 0: none */
    uint64_t told; /* the last view that it was told of; quorum may be told first */
    uint64_t incarnation;
    uint32_t n_ops;
    struct hf_group_agent_act ops[PENDING_MAX];
    uint16_t configs; /* resources whose configuration it gets */
    char fence[HF_HOST_NAME_MAX + 1];
    uint32_t request;   /* the last number that was given to it */
    uint8_t open[1024]; /* those without a result */
    uint64_t writing;   /* version; 0: none */
    size_t writing_n, record_n;
    uint8_t written[HF_GSTATE_LEN_MAX], record[HF_GSTATE_LEN_MAX];
};

struct queued {
    uint64_t ring;
    uint32_t from;
    size_t n;
    uint8_t bytes[HF_GMSG_LEN_MAX];
};

static const char *const hosts[] = {"alpha", "beta", "gamma", "delta", "nobody"};
static const char *const addresses[] = {"10.0.0.1", "10.0.0.2", "fe80::3%eth0"};

static struct world {
    struct node node[NODES];
    unsigned n;
    hf_time now;
    uint64_t ring, groups;
    uint8_t mask[2]; /* nodes of the views at ring - 1 and ring */
    bool lies;       /* something happened that no correct member and engine does */
    unsigned head, tail;
    struct queued queue[QUEUE_MAX];
    struct hf_gmsg hello; /* the last one that a core said */
} world;

/* ---- what comes out ---- */

static bool printable(const char *s)
{
    for (; *s; s++) {
        if ((uint8_t)*s < ' ' || *s == 0x7f) {
            return false;
        }
    }
    return true;
}

static void enqueue(uint64_t ring, uint32_t from, struct hf_slice msg)
{
    struct world *w = &world;
    if (ring == 0 || w->tail - w->head == QUEUE_MAX || msg.n > HF_GMSG_LEN_MAX) {
        return;
    }
    struct queued *q = &w->queue[w->tail++ % QUEUE_MAX];
    q->ring = ring;
    q->from = from;
    q->n = msg.n;
    memcpy(q->bytes, msg.p, msg.n);
}

static void on_send(struct node *n, struct hf_slice msg)
{
    struct hf_gmsg m;
    int rc = hf_gmsg_decode(msg, &m);
    assert(rc == 0);
    assert(n->ring == 0 || m.ring == n->told);
    if (m.kind == HF_GMSG_HELLO) {
        world.hello = m;
    }
    enqueue(n->ring, (uint32_t)(n - world.node) + 1, msg);
}

static void on_persist(struct node *n, const struct hf_group_act *a)
{
    static struct hf_gstate s;
    assert(a->bytes.n <= sizeof(n->written));
    int rc = hf_gstate_decode(a->bytes, &s);
    assert(rc == 0 && s.version == a->version);
    memcpy(n->written, a->bytes.p, a->bytes.n);
    n->writing_n = a->bytes.n;
    n->writing = a->version;
}

static void on_agent(struct node *n, const struct hf_group_agent_act *a)
{
    const struct hf_gstate *s = hf_group_state(n->g);
    assert(s && a->resource < s->n_resources);
    assert(a->op > HF_OP_NONE && a->op < HF_OP_COUNT_ && a->serial != 0);
    uint16_t copies = 0;
    for (unsigned i = 0; i < s->n_resources; i++) {
        copies |= (uint16_t)((s->resource[i].kind == HF_RESOURCE_COPY) << i);
    }
    assert((a->sync & ~copies) == 0 && (a->async & ~copies) == 0 && (a->sync & a->async) == 0);
    assert(a->op != HF_OP_MIRROR_TARGET || (a->source < 16 && (copies >> a->source & 1)));
    for (unsigned i = 0; i < n->n_ops; i++) {
        assert(n->ops[i].serial != a->serial);
    }
    assert(n->n_ops < PENDING_MAX);
    n->ops[n->n_ops++] = *a;
}

static void on_result(struct node *n, const struct hf_group_act *a)
{
    assert(a->request > 0 && a->request <= n->request && a->request < sizeof(n->open));
    assert(n->open[a->request]); /* asked, and answered once */
    assert(a->text && printable(a->text));
    n->open[a->request] = 0;
}

static void on_act(struct node *n, const struct hf_group_act *a)
{
    const struct hf_gstate *s = hf_group_state(n->g);
    switch (a->kind) {
    case HF_GROUP_ACT_SEND:
        on_send(n, a->bytes);
        break;
    case HF_GROUP_ACT_PERSIST:
        on_persist(n, a);
        break;
    case HF_GROUP_ACT_AGENT:
        on_agent(n, &a->agent);
        break;
    case HF_GROUP_ACT_FENCE:
        assert(a->host && a->host[0] && strcmp(a->host, hosts[n - world.node]) != 0);
        snprintf(n->fence, sizeof(n->fence), "%s", a->host);
        break;
    case HF_GROUP_ACT_CONFIG:
        assert(s && a->resource < s->n_resources && a->address);
        n->configs |= (uint16_t)(1u << a->resource);
        break;
    case HF_GROUP_ACT_REJOIN:
        n->ring = 0;
        break;
    case HF_GROUP_ACT_RESULT:
        on_result(n, a);
        break;
    case HF_GROUP_ACT_EVENT:
        assert(a->text && printable(a->text));
        break;
    case HF_GROUP_ACT_LEFT:
        n->record_n = 0;
        n->writing = 0;
        break;
    case HF_GROUP_ACT_STOPPED:
        break;
    default:
        assert(!"an act of no kind");
    }
}

/* What is always true of a core, whatever it was told. */
static void check(const struct node *n)
{
    static uint8_t buf[HF_GSTATE_LEN_MAX];
    static struct hf_gstate again;
    const struct hf_gstate *s = hf_group_state(n->g);
    const char *why = hf_group_why(n->g);
    uint8_t self = hf_group_self(n->g);
    struct hf_slice out;
    assert(hf_group_standing(n->g) < HF_GROUP_STATE_COUNT_ && why && printable(why));
    if (!s) {
        assert(self == HF_GROUP_NONE);
        return;
    }
    int rc = hf_gstate_encode(s, buf, sizeof(buf), &out);
    assert(rc == 0);
    rc = hf_gstate_decode(out, &again);
    assert(rc == 0);
    assert(self == HF_GROUP_NONE ||
           (self < s->n_members && strcmp(s->member[self].host, hosts[n - world.node]) == 0));
    assert(hf_group_present(n->g) >> s->n_members == 0);
    for (uint8_t r = 0; r < s->n_resources; r++) {
        why = hf_group_resource_why(n->g, r);
        assert(why && printable(why));
        assert(hf_group_able(n->g, r) >> s->n_members == 0);
        for (uint8_t m = 0; m < s->n_members; m++) {
            assert(hf_group_role(n->g, m, r) < HF_ROLE_COUNT_);
        }
    }
}

static void step(struct node *n, const struct hf_group_in *in)
{
    static struct hf_group_out out;
    if (!n->g) {
        return;
    }
    hf_group_step(n->g, in, world.now, &out);
    assert(out.n <= HF_GROUP_ACTS_MAX && out.used <= sizeof(out.bytes));
    for (uint32_t i = 0; i < out.n; i++) {
        on_act(n, &out.act[i]);
    }
}

/* ---- the engine ---- */

/* Who is in the same view and has heard the same knows the same. */
static void check_equal(uint64_t ring)
{
    static uint8_t buf[2][HF_GSTATE_LEN_MAX];
    struct hf_slice first = {0}, out;
    uint64_t id = 0;
    for (unsigned i = 0; i < world.n && !world.lies; i++) {
        const struct node *n = &world.node[i];
        const struct hf_gstate *s = n->g ? hf_group_state(n->g) : NULL;
        if (!s || n->ring != ring || hf_group_standing(n->g) != HF_GROUP_IN) {
            continue;
        }
        int rc = hf_gstate_encode(s, buf[first.n != 0], sizeof(buf[0]), &out);
        assert(rc == 0);
        if (first.n == 0) {
            first = out;
            id = s->id;
        } else if (s->id == id) {
            assert(hf_slice_eq(first, out));
        }
    }
}

static void deliver(unsigned n)
{
    struct world *w = &world;
    for (; n > 0 && w->head != w->tail; n--) {
        struct queued q = w->queue[w->head++ % QUEUE_MAX];
        struct hf_group_in in = {
            .kind = HF_GROUP_IN_MESSAGE, .from = q.from, .msg = hf_slice(q.bytes, q.n)};
        for (unsigned i = 0; i < w->n; i++) {
            if (w->node[i].ring == q.ring) {
                step(&w->node[i], &in);
            }
        }
        check_equal(q.ring);
    }
}

static void quorum(struct node *n, bool quorate)
{
    struct hf_group_in in = {.kind = HF_GROUP_IN_QUORUM, .quorate = quorate, .ring = n->ring};
    step(n, &in);
}

/* One view of the nodes in mask. Those who had a view before learn who has left it. */
static void view(uint8_t mask, uint8_t how)
{
    struct world *w = &world;
    uint64_t ring = ++w->ring;
    unsigned cores = 0;
    struct hf_engine_member in[NODES + 1], left[NODES + 1];
    struct hf_engine_view v = {.ring = ring, .member = in, .left = left};
    uint8_t before = w->mask[0] | w->mask[1];
    for (unsigned i = 0; i <= LIAR; i++) {
        struct hf_engine_member m = {.node_id = i + 1};
        snprintf(m.host, sizeof(m.host), "%s", hosts[i]);
        if (mask >> i & 1) {
            in[v.n_members++] = m;
            cores += i != LIAR;
        } else if (before >> i & 1) {
            m.left = how & 1 ? HF_ENGINE_PROCDOWN : how & 2 ? HF_ENGINE_LEFT : HF_ENGINE_NODEDOWN;
            left[v.n_left++] = m;
        }
    }
    bool quorate = 2 * cores > w->n;
    for (unsigned i = 0; i < w->n; i++) {
        struct node *n = &w->node[i];
        if (!(mask >> i & 1) || !n->g) {
            continue;
        }
        struct hf_group_in vi = {.kind = HF_GROUP_IN_VIEW, .view = &v};
        n->ring = ring;
        if (how & 4) {
            quorum(n, quorate);
        }
        n->told = ring;
        step(n, &vi);
        if (!(how & 4)) {
            quorum(n, quorate);
        }
    }
}

/* how: bits 0-2 as view(), 3 what is under way gets lost, 4 the others have a view, too, 5 or have
 * lost the engine, 6 the liar is there. */
static void views(uint8_t mask, uint8_t how)
{
    struct world *w = &world;
    uint8_t all = (uint8_t)((1u << w->n) - 1);
    mask = (uint8_t)((mask & all) | (how & 64 ? 1u << LIAR : 0u));
    if (!(how & 8)) {
        deliver(DELIVERIES_MAX);
    }
    w->head = w->tail = 0;
    view(mask, how);
    uint8_t rest = (uint8_t)(all & ~mask);
    struct hf_group_in lost = {.kind = HF_GROUP_IN_LOST, .rc = -HF_ECLOSED};
    for (unsigned i = 0; i < w->n; i++) {
        struct node *n = &w->node[i];
        if (rest >> i & 1) {
            bool had = n->ring != 0;
            n->ring = 0;
            if (had && (how & 32)) {
                step(n, &lost);
            }
        }
    }
    if (rest && (how & 16)) {
        view(rest, how);
    }
    w->mask[0] = mask;
    w->mask[1] = how & 16 ? rest : 0;
}

/* ---- what members, agents and operators do ---- */

static void timer(struct node *n)
{
    if (!n->g) {
        return;
    }
    struct hf_group_in in = {.kind = HF_GROUP_IN_TIMER};
    hf_time t = hf_group_deadline(n->g);
    if (t != HF_NEVER && t > world.now) {
        assert(t - world.now <= HF_S(3600));
        world.now = t;
    }
    step(n, &in);
    step(n, &in);
    assert(hf_group_deadline(n->g) > world.now); /* no busy loop */
}

static struct hf_slice rest_of(struct hf_rd *r, size_t n_max)
{
    size_t n = hf_rd_u8(r) % (n_max + 1), left = hf_rd_left(r);
    return hf_rd_bytes(r, n < left ? n : left);
}

/* Of three hosts and two copies each copy is reached by another one, and the first by two. */
static bool reaches(const struct node *n, const struct hf_gstate *s, uint8_t resource)
{
    unsigned copies = 0;
    for (unsigned i = 0; i < s->n_resources; i++) {
        copies += s->resource[i].kind == HF_RESOURCE_COPY;
    }
    return resource < copies && (unsigned)(n - world.node) % copies == resource;
}

/* A recurring access probe. */
static void access_probe(struct node *n, uint8_t resource, bool wrong)
{
    const struct hf_gstate *s = n->g ? hf_group_state(n->g) : NULL;
    struct hf_group_in in = {.kind = HF_GROUP_IN_DONE, .op = HF_OP_ACCESS, .resource = resource};
    if (s && resource < s->n_resources && s->resource[resource].kind == HF_RESOURCE_COPY) {
        in.rc = reaches(n, s, resource) != wrong ? 0 : 5;
        step(n, &in);
    }
}

static void done(struct node *n, struct hf_rd *r)
{
    static const uint8_t rcs[] = {0, 0, 0, 0, 0, 1, 2, 5, 6, 7, 8, 9, 99, 255};
    uint8_t which = hf_rd_u8(r), rc = rcs[hf_rd_u8(r) % sizeof(rcs)];
    const struct hf_gstate *s = n->g ? hf_group_state(n->g) : NULL;
    struct hf_group_in in = {.kind = HF_GROUP_IN_DONE, .rc = rc, .text = rest_of(r, 200)};
    if (which < 128 && n->n_ops) {
        unsigned i = which % n->n_ops;
        in.resource = n->ops[i].resource;
        in.op = n->ops[i].op;
        in.serial = n->ops[i].serial;
        if (in.op == HF_OP_MONITOR && rc == 0) {
            in.rc = 7;
        }
        if (in.op == HF_OP_ACCESS && rc == 0 && s && !reaches(n, s, in.resource)) {
            in.rc = 5;
        }
        n->n_ops--;
        memmove(&n->ops[i], &n->ops[i + 1], (n->n_ops - i) * sizeof(n->ops[0]));
    } else if (s && s->n_resources) { /* a recurring monitor, or one that nobody asked for */
        in.resource = which % s->n_resources;
        in.op = HF_OP_MONITOR;
        in.serial = which & 64 ? 0xffffff : 0;
    } else {
        return;
    }
    step(n, &in);
}

static void persisted(struct node *n, uint8_t how)
{
    struct hf_group_in in = {.kind = HF_GROUP_IN_PERSISTED, .version = n->writing};
    if (!n->writing) {
        return;
    }
    if (how & 1) {
        in.rc = -EIO;
    } else {
        memcpy(n->record, n->written, n->writing_n);
        n->record_n = n->writing_n;
    }
    n->writing = 0;
    step(n, &in);
}

static void fenced(struct node *n, struct hf_rd *r)
{
    char host[sizeof(n->fence)];
    uint8_t how = hf_rd_u8(r);
    snprintf(host, sizeof(host), "%s", how & 2 ? hosts[how >> 2 & 3] : n->fence);
    n->fence[0] = 0;
    struct hf_group_in in = {.kind = HF_GROUP_IN_FENCED,
                             .rc = how & 1 ? -HF_ETIMEOUT : 0,
                             .host = host,
                             .text = rest_of(r, 200)};
    if (host[0]) {
        step(n, &in);
    }
}

static void config(struct node *n, uint8_t how)
{
    const struct hf_gstate *s = n->g ? hf_group_state(n->g) : NULL;
    for (uint8_t i = 0; s && i < s->n_resources; i++) {
        if ((n->configs >> i & 1) || (how & 8)) {
            struct hf_group_in in = {.kind = HF_GROUP_IN_CONFIG, .resource = i};
            in.rc = how & 1 ? -HF_ENOTFOUND : 0;
            in.config_hash = s->resource[i].config_hash + (how & 2 ? 1 : 0);
            n->configs &= (uint16_t) ~(1u << i);
            step(n, &in);
            s = hf_group_state(n->g);
        }
    }
}

static void mirror(struct node *n, struct hf_rd *r)
{
    const struct hf_gstate *s = n->g ? hf_group_state(n->g) : NULL;
    struct hf_group_in in = {.kind = HF_GROUP_IN_MIRROR};
    in.resource = hf_rd_u8(r);
    in.seen = hf_rd_u8(r) % HF_SEEN_COUNT_;
    if (s && s->n_resources) {
        in.resource %= s->n_resources;
        step(n, &in);
    }
}

static uint32_t number(struct node *n)
{
    if (n->request + 1 < sizeof(n->open)) {
        n->open[++n->request] = 1;
    }
    return n->request;
}

static void request(struct node *n, struct hf_rd *r)
{
    uint8_t a = hf_rd_u8(r), b = hf_rd_u8(r);
    const struct hf_gstate *s = n->g ? hf_group_state(n->g) : NULL;
    struct hf_group_in in = {.kind = HF_GROUP_IN_REQUEST};
    in.what = (uint8_t)(1 + a % (HF_GREQUEST_COUNT_ - 1));
    in.to_host = b & 8 ? NULL : hosts[b % 5];
    in.of = b & 128               ? NULL
            : s && s->n_resources ? s->resource[(b >> 4) % s->n_resources].name
                                  : "x";
    char of[HF_GROUP_RESOURCE_NAME_MAX + 1] = "";
    if (in.of) { /* borrowed for the call only */
        snprintf(of, sizeof(of), "%s", in.of);
        in.of = of;
    }
    in.request = number(n);
    step(n, &in);
}

/* A resource by the bits of what. */
static struct hf_gresource resource(unsigned i, uint8_t what)
{
    struct hf_gresource res = {.config_hash = what};
    snprintf(res.name, sizeof(res.name), "%s%u", what & 1 ? "address" : "copy", i);
    snprintf(res.agent, sizeof(res.agent), "%s", what & 2 ? "" : "ocf:holdfast:test");
    res.kind = what & 1 ? HF_RESOURCE_ATTACHED : HF_RESOURCE_COPY;
    res.flags = what & 1 ? what & HF_RESOURCE_FENCE_NONE : what >> 2 & 7;
    return res;
}

static void create_group(struct node *n, struct hf_rd *r)
{
    struct hf_gresource res[6];
    uint8_t how = hf_rd_u8(r);
    struct hf_group_in in = {.kind = HF_GROUP_IN_CREATE, .resources = res};
    in.n_resources = (uint8_t)(1 + (how & 7) % 6);
    for (unsigned i = 0; i < in.n_resources; i++) {
        uint8_t what = hf_rd_u8(r); /* copies first, and one at least */
        bool attached = i > 0 && ((what & 1) || res[i - 1].kind == HF_RESOURCE_ATTACHED);
        res[i] = resource(i, (uint8_t)((what & ~1u) | attached));
    }
    in.degraded_refuse = how & 8;
    in.restart_always = how & 16;
    in.group_id = ++world.groups;
    in.join_request = number(n);
    step(n, &in);
    config(n, 8);
}

static void join(struct node *n, uint8_t how)
{
    struct hf_gresource brought = resource(9, how & 0xfeu);
    struct hf_group_in in = {.kind = HF_GROUP_IN_JOIN};
    in.brought = how & 1 ? &brought : NULL;
    in.join_request = number(n);
    step(n, &in);
}

/* Kill it and start it again from what its disk says, or something like it. */
static void restart(struct node *n, uint8_t how)
{
    unsigned i = (unsigned)(n - world.node);
    struct hf_group_conf conf = {.name = "orders", .host = hosts[i], .address = addresses[i]};
    conf.incarnation = ++n->incarnation;
    conf.seed = i;
    hf_group_destroy(n->g);
    n->g = NULL;
    n->ring = 0;
    n->n_ops = 0;
    n->configs = 0;
    n->fence[0] = 0;
    n->writing = 0;
    memset(n->open, 0, sizeof(n->open));
    if (how & 1) {
        n->record_n = 0;
    }
    struct hf_slice record = hf_slice(n->record, n->record_n);
    if ((how & 2) && record.n) {
        record.n--;
    }
    int rc = hf_group_create(&conf, record, world.now, &n->g);
    assert(rc == 0 || ((how & 2) && rc != -ENOMEM));
    if (rc) {
        n->record_n = 0;
        rc = hf_group_create(&conf, hf_slice(NULL, 0), world.now, &n->g);
        assert(rc == 0);
    }
}

/* ---- lies ---- */

static void lie(struct hf_slice msg, uint8_t how)
{
    world.lies = true;
    uint64_t ring = how & 16 ? world.node[0].ring : world.ring;
    enqueue(ring, how & 8 ? (how & 3u) + 1 : LIAR + 1, msg);
}

static void lie_struct(const struct hf_gmsg *m, uint8_t how)
{
    uint8_t buf[HF_GMSG_LEN_MAX];
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_gmsg_encode(&w, m);
    int rc = hf_wr_end(&w, &s);
    assert(rc == 0);
    lie(s, how);
}

static uint64_t group_id(void)
{
    const struct hf_gstate *s = hf_group_state(world.node[0].g);
    return s ? s->id : 0;
}

/* A message with a good head and any body. */
static void lie_body(struct hf_rd *r)
{
    uint8_t buf[GMSG_HEAD_LEN + 255], how = hf_rd_u8(r), kind = hf_rd_u8(r);
    struct hf_slice body = rest_of(r, 255), s;
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_wr_u16(&w, 0x4847);
    hf_wr_u8(&w, HF_GROUP_VERSION);
    hf_wr_u8(&w, kind);
    hf_wr_u64(&w, how & 16 ? world.node[0].ring : world.ring);
    hf_wr_u64(&w, how & 32 ? how : group_id());
    hf_wr_bytes(&w, body);
    int rc = hf_wr_end(&w, &s);
    assert(rc == 0);
    lie(s, how);
}

/* The message that comes next, changed at one place, instead or in addition. */
static void lie_changed(struct hf_rd *r)
{
    struct world *w = &world;
    uint8_t how = hf_rd_u8(r), at = hf_rd_u8(r), value = hf_rd_u8(r);
    if (w->head == w->tail) {
        return;
    }
    struct queued *q = &w->queue[w->head % QUEUE_MAX];
    struct queued copy = *q;
    copy.bytes[at % copy.n] = value;
    w->lies = true;
    if (how & 1) {
        *q = copy;
    } else {
        enqueue(copy.ring, how & 2 ? copy.from : LIAR + 1, hf_slice(copy.bytes, copy.n));
    }
}

static void lie_hello(struct hf_rd *r, uint64_t version, uint64_t hash)
{
    uint8_t how = hf_rd_u8(r);
    struct hf_gmsg m = world.hello;
    if (m.kind != HF_GMSG_HELLO) {
        return;
    }
    m.ring = world.ring;
    m.group_id = how & 1 ? 99 : group_id();
    m.hello.incarnation = 1 + (how & 2u);
    m.hello.version = version;
    m.hello.hash = hash;
    m.hello.persisted = how & 4 ? UINT64_MAX : version;
    snprintf(m.hello.host, sizeof(m.hello.host), "%s", hosts[how & 8 ? how & 3u : LIAR]);
    lie_struct(&m, 0);
}

static uint64_t strange_version(uint8_t how)
{
    const struct hf_gstate *s = hf_group_state(world.node[0].g);
    uint64_t v = s ? s->version : 0;
    switch (how & 7) {
    case 0:
        return v;
    case 1:
        return v + 1;
    case 2:
        return v + (1ULL << 32);
    case 3:
        return UINT64_MAX;
    case 4:
        return UINT64_MAX - 5;
    case 5:
        return 0;
    default:
        return v - 1;
    }
}

/* Hello, and a state that can be decoded but is not true. */
static void lie_state(struct hf_rd *r)
{
    static uint8_t buf[HF_GSTATE_LEN_MAX];
    const struct hf_gstate *have = hf_group_state(world.node[0].g);
    uint8_t how = hf_rd_u8(r);
    if (!have) {
        return;
    }
    static struct hf_gstate s;
    s = *have;
    s.version = strange_version(how);
    struct hf_slice out;
    int rc = hf_gstate_encode(&s, buf, sizeof(buf), &out);
    assert(rc == 0);
    for (unsigned n = hf_rd_u8(r) % 8; n > 0; n--) {
        uint16_t at = hf_rd_u16(r);
        buf[5 + at % (out.n - 13)] = hf_rd_u8(r);
    }
    struct hf_wr w;
    hf_wr_init(&w, buf + out.n - 8, 8);
    hf_wr_u64(&w, hf_hash(hf_slice(buf, out.n - 8), GSTATE_MAGIC));
    if (!(how & 8)) {
        lie_hello(r, s.version, hf_hash(out, 0));
    }
    for (size_t at = 0; at < out.n; at += HF_GROUP_PIECE_MAX) {
        struct hf_gmsg m = {.kind = HF_GMSG_STATE, .ring = world.ring, .group_id = s.id};
        m.state.version = s.version;
        m.state.offset = (uint16_t)at;
        m.state.total = (uint16_t)out.n;
        m.state.piece =
            hf_slice(buf + at, out.n - at < HF_GROUP_PIECE_MAX ? out.n - at : HF_GROUP_PIECE_MAX);
        lie_struct(&m, 0);
    }
}

/* ---- input ---- */

static void simple(struct node *n, enum hf_group_in_kind kind)
{
    struct hf_group_in in = {.kind = kind};
    step(n, &in);
}

/* All goes well for a while: messages arrive, disks write, agents and fencing succeed. */
static void settle(unsigned rounds)
{
    static const uint8_t first_ok[] = {0, 0, 0};
    struct hf_rd r;
    for (unsigned k = 0; k < rounds; k++) {
        deliver(DELIVERIES_MAX);
        for (unsigned i = 0; i < world.n; i++) {
            struct node *n = &world.node[i];
            persisted(n, 0);
            config(n, 0);
            for (uint8_t c = 0; c < HF_GROUP_COPIES_MAX; c++) {
                access_probe(n, c, false);
            }
            unsigned ops = n->n_ops;
            for (unsigned j = 0; j < ops; j++) {
                hf_rd_init(&r, hf_slice(first_ok, sizeof(first_ok)));
                done(n, &r);
            }
            hf_rd_init(&r, hf_slice(first_ok, sizeof(first_ok)));
            fenced(n, &r);
        }
        assert(world.head == world.tail || world.tail - world.head < QUEUE_MAX);
    }
}

/* u8 what (bits 0-4) and who (bits 5-6), then what the command needs. */
static void command(struct hf_rd *r)
{
    uint8_t what = hf_rd_u8(r);
    struct node *n = &world.node[(what >> 5 & 3u) % world.n];
    uint8_t arg = (what & 31) < 16 ? hf_rd_u8(r) : 0;
    switch (what & 31) {
    case 0:
        deliver(arg + 1u);
        break;
    case 1:
        world.now += HF_MS(10) * arg;
        timer(n);
        break;
    case 2:
        views(hf_rd_u8(r), arg);
        break;
    case 3:
        world.lies = true; /* not what a majority has */
        quorum(n, arg & 1);
        break;
    case 4:
        persisted(n, arg);
        break;
    case 5:
        config(n, arg);
        break;
    case 6:
        join(n, arg);
        break;
    case 7:
        restart(n, arg);
        break;
    case 8:
        settle(arg % 8u + 1);
        break;
    case 9:
        lie_hello(r, strange_version(arg), arg);
        break;
    case 10:
        access_probe(n, arg & 15, (arg & 16) != 0);
        break;
    case 16:
        done(n, r);
        break;
    case 17:
        fenced(n, r);
        break;
    case 18:
        mirror(n, r);
        break;
    case 19:
        request(n, r);
        break;
    case 20:
        create_group(n, r);
        break;
    case 21:
        simple(n, HF_GROUP_IN_GAP);
        break;
    case 22:
        simple(n, HF_GROUP_IN_STOP);
        break;
    case 23:
        n->ring = 0;
        simple(n, HF_GROUP_IN_LOST);
        break;
    case 24:
        simple(n, HF_GROUP_IN_TIMER);
        break;
    case 25:
        lie_body(r);
        break;
    case 26:
        lie_changed(r);
        break;
    case 27:
        lie_state(r);
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_rd r;
    hf_rd_init(&r, hf_slice(data, size));
    memset(&world, 0, sizeof(world));
    world.now = HF_S(1);
    world.n = 1 + hf_rd_u8(&r) % NODES;
    for (unsigned i = 0; i < world.n; i++) {
        restart(&world.node[i], 0);
    }
    for (unsigned k = 0; k < COMMANDS_MAX && hf_rd_left(&r); k++) {
        world.now += HF_MS(1);
        command(&r);
        for (unsigned i = 0; i < world.n; i++) {
            check(&world.node[i]);
        }
    }
    for (unsigned i = 0; i < world.n; i++) {
        hf_group_destroy(world.node[i].g);
    }
    return 0;
}
