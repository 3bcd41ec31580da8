/* core/group: a few hosts, an engine that only orders, agents that do what they are told. */
#include "core/group/group.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "support/test.h"

#define HOSTS 4
#define QUEUE 1024

static const char *const names[HOSTS] = {"alpha", "beta", "gamma", "delta"};
static const char *const addresses[HOSTS] = {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"};

struct host {
    bool up;
    struct hf_group *g;
    struct hf_group_out *out;
    uint8_t record[HF_GSTATE_LEN_MAX];
    size_t record_len;
    uint8_t role[HF_GROUP_RESOURCES_MAX]; /* what really runs: OCF's monitor codes */
    uint16_t access;
    bool wants_in; /* is in the engine's group */
    bool newer;    /* what it says is of the next version */
    int result;
    char result_text[300], event[200];
    bool silent; /* of its last promote */
    unsigned fences;
};

struct event {
    enum { MESSAGE, DONE, PERSISTED, CONFIG, FENCED } what;
    unsigned to; /* not MESSAGE */
    unsigned from;
    size_t n;
    uint8_t bytes[HF_ENGINE_MSG_MAX];
    struct hf_group_agent_act agent;
    uint64_t version;
    uint8_t resource, target;
};

struct world {
    struct host host[HOSTS];
    struct event q[QUEUE];
    size_t head, tail;
    uint64_t ring;
    hf_time now;
    uint64_t incarnation;
    int fail_op;      /* enum hf_op that fails ... */
    unsigned fail_at; /* ... at this host */
    int fence_rc;
    bool verbose;
};

static void run_acts(struct world *w, unsigned i);

static void step(struct world *w, unsigned i, const struct hf_group_in *in)
{
    struct host *h = &w->host[i];
    if (h->up && h->g) {
        hf_group_step(h->g, in, w->now, h->out);
        run_acts(w, i);
    }
}

static struct event *push(struct world *w)
{
    assert_true(w->tail - w->head < QUEUE);
    struct event *e = &w->q[w->tail++ % QUEUE];
    memset(e, 0, sizeof(*e));
    return e;
}

static void run_acts(struct world *w, unsigned i)
{
    struct host *h = &w->host[i];
    for (uint32_t k = 0; k < h->out->n; k++) {
        const struct hf_group_act *a = &h->out->act[k];
        struct event *e;
        switch (a->kind) {
        case HF_GROUP_ACT_SEND:
            e = push(w);
            e->what = MESSAGE;
            e->from = i;
            e->n = a->bytes.n;
            memcpy(e->bytes, a->bytes.p, a->bytes.n);
            e->bytes[2] += h->newer;
            break;
        case HF_GROUP_ACT_PERSIST:
            memcpy(h->record, a->bytes.p, a->bytes.n);
            h->record_len = a->bytes.n;
            e = push(w);
            e->what = PERSISTED;
            e->to = i;
            e->version = a->version;
            break;
        case HF_GROUP_ACT_AGENT:
            e = push(w);
            e->what = DONE;
            e->to = i;
            e->agent = a->agent;
            h->silent = a->agent.op == HF_OP_PROMOTE ? a->agent.silent : h->silent;
            if (w->verbose) {
                printf("# %s: %s %u\n", names[i], hf_op_name(a->agent.op), a->agent.resource);
            }
            break;
        case HF_GROUP_ACT_CONFIG:
            e = push(w);
            e->what = CONFIG;
            e->to = i;
            e->resource = a->resource;
            break;
        case HF_GROUP_ACT_FENCE:
            e = push(w);
            e->what = FENCED;
            e->to = i;
            for (unsigned m = 0; m < HOSTS; m++) {
                e->target = strcmp(names[m], a->host) == 0 ? (uint8_t)m : e->target;
            }
            break;
        case HF_GROUP_ACT_REJOIN:
            break;
        case HF_GROUP_ACT_RESULT:
            h->result = a->rc;
            snprintf(h->result_text, sizeof(h->result_text), "%s", a->text);
            if (w->verbose) {
                printf("# %s: result %d %s\n", names[i], a->rc, a->text);
            }
            break;
        case HF_GROUP_ACT_EVENT:
            snprintf(h->event, sizeof(h->event), "%s", a->text);
            if (w->verbose) {
                printf("# %s: %s\n", names[i], a->text);
            }
            break;
        case HF_GROUP_ACT_LEFT:
        case HF_GROUP_ACT_STOPPED:
            h->wants_in = false;
            break;
        }
    }
}

static int run_agent(struct world *w, unsigned i, const struct hf_group_agent_act *a)
{
    struct host *h = &w->host[i];
    uint8_t *role = &h->role[a->resource];
    if (w->fail_op == a->op && w->fail_at == i) {
        return 1;
    }
    switch ((enum hf_op)a->op) {
    case HF_OP_MONITOR:
        return *role;
    case HF_OP_ACCESS:
        return h->access >> a->resource & 1 ? 0 : 5;
    case HF_OP_START:
    case HF_OP_DEMOTE:
    case HF_OP_MIRROR_TARGET:
        *role = 0;
        return 0;
    case HF_OP_PROMOTE:
        *role = 8;
        return 0;
    case HF_OP_STOP:
        *role = 7;
        return 0;
    case HF_OP_OPEN:
    case HF_OP_MIRROR_SOURCE:
    case HF_OP_PREPARE:
    case HF_OP_NONE:
    case HF_OP_COUNT_:
        break;
    }
    return 0;
}

static void power_off(struct world *w, unsigned i)
{
    struct host *h = &w->host[i];
    h->up = false;
    hf_group_destroy(h->g);
    h->g = NULL;
    memset(h->role, 7, sizeof(h->role));
}

static void deliver(struct world *w, const struct event *e)
{
    if (e->what == MESSAGE) {
        for (unsigned i = 0; i < HOSTS; i++) {
            if (w->host[i].wants_in) {
                step(w, i,
                     &(struct hf_group_in){.kind = HF_GROUP_IN_MESSAGE,
                                           .from = e->from + 1,
                                           .msg = hf_slice(e->bytes, e->n)});
            }
        }
        return;
    }
    struct hf_group_in in = {.kind = HF_GROUP_IN_PERSISTED, .version = e->version};
    if (!w->host[e->to].up) {
        return;
    }
    if (e->what == DONE) {
        in = (struct hf_group_in){.kind = HF_GROUP_IN_DONE, .rc = run_agent(w, e->to, &e->agent)};
        in.resource = e->agent.resource;
        in.op = e->agent.op;
        in.serial = e->agent.serial;
        in.text = hf_slice_str(in.op == HF_OP_PROMOTE && in.rc == 0 ? "xmax=7" : "");
    } else if (e->what == CONFIG) {
        in = (struct hf_group_in){.kind = HF_GROUP_IN_CONFIG};
        in.resource = e->resource;
        in.config_hash = hf_group_state(w->host[e->to].g)->resource[e->resource].config_hash;
    } else if (e->what == FENCED) {
        w->host[e->to].fences++;
        if (w->fence_rc == 0 && w->host[e->target].up) {
            power_off(w, e->target);
        }
        in = (struct hf_group_in){.kind = HF_GROUP_IN_FENCED, .rc = w->fence_rc};
        in.host = names[e->target];
    }
    step(w, e->to, &in);
}

/* Until nothing happens any more, or (timers) until time is up. */
static void settle(struct world *w)
{
    for (unsigned n = 0; w->head < w->tail; n++) {
        assert_true(n < 20000);
        struct event e = w->q[w->head++ % QUEUE];
        deliver(w, &e);
    }
}

static void pass(struct world *w, hf_time span)
{
    hf_time until = w->now + span;
    for (unsigned n = 0;; n++) {
        assert_true(n < 5000);
        settle(w);
        hf_time next = HF_NEVER;
        unsigned who = 0;
        for (unsigned i = 0; i < HOSTS; i++) {
            hf_time t = w->host[i].g ? hf_group_deadline(w->host[i].g) : HF_NEVER;
            if (t < next) {
                next = t;
                who = i;
            }
        }
        if (next > until) {
            w->now = until;
            return;
        }
        w->now = next > w->now ? next : w->now;
        step(w, who, &(struct hf_group_in){.kind = HF_GROUP_IN_TIMER});
    }
}

/* Everybody who is up and wants to be in gets one view. */
static void view(struct world *w, int reason)
{
    struct hf_engine_member m[HOSTS], left[HOSTS];
    size_t n = 0, n_left = 0;
    for (unsigned i = 0; i < HOSTS; i++) {
        struct hf_engine_member *x =
            w->host[i].up && w->host[i].wants_in ? &m[n++] : &left[n_left++];
        *x = (struct hf_engine_member){.node_id = i + 1, .left = (uint8_t)reason};
        snprintf(x->host, sizeof(x->host), "%s", names[i]);
    }
    struct hf_engine_view v = {
        .ring = ++w->ring, .member = m, .n_members = n, .left = left, .n_left = n_left};
    bool quorate = n * 2 > HOSTS || n >= 2;
    for (unsigned i = 0; i < HOSTS; i++) {
        struct hf_group_in in = {.kind = HF_GROUP_IN_QUORUM, .quorate = quorate, .ring = w->ring};
        if (!w->host[i].up || !w->host[i].wants_in) {
            continue;
        }
        if (w->ring % 2) {
            step(w, i, &in);
        }
        step(w, i, &(struct hf_group_in){.kind = HF_GROUP_IN_VIEW, .view = &v});
        if (w->ring % 2 == 0) {
            step(w, i, &in);
        }
    }
    settle(w);
}

static void boot(struct world *w, unsigned i)
{
    struct host *h = &w->host[i];
    uint64_t config[HF_GROUP_RESOURCES_MAX];
    for (uint8_t r = 0; r < HF_GROUP_RESOURCES_MAX; r++) {
        config[r] = 99;
    }
    struct hf_group_conf conf = {.name = "orders",
                                 .host = names[i],
                                 .address = addresses[i],
                                 .incarnation = ++w->incarnation,
                                 .seed = i + 1,
                                 .config_hash = config};
    assert_int_equal(hf_group_create(&conf, hf_slice(h->record, h->record_len), w->now, &h->g), 0);
    h->up = true;
    h->wants_in = true;
}

static struct hf_gresource resource(const char *name, uint8_t kind, uint8_t flags)
{
    struct hf_gresource r = {.kind = kind, .flags = flags, .config_hash = 99};
    snprintf(r.name, sizeof(r.name), "%s", name);
    snprintf(r.agent, sizeof(r.agent), "ocf:test:agent");
    return r;
}

static void found(struct world *w, unsigned i, const struct hf_gresource *r, uint8_t n)
{
    boot(w, i);
    struct hf_group_in in = {.kind = HF_GROUP_IN_CREATE};
    in.resources = r;
    in.n_resources = n;
    in.group_id = 77;
    in.join_request = 1;
    w->host[i].result = 1;
    step(w, i, &in);
    for (uint8_t k = 0; k < n; k++) {
        struct hf_group_in c = {.kind = HF_GROUP_IN_CONFIG};
        c.resource = k;
        c.config_hash = 99;
        step(w, i, &c);
    }
    settle(w);
    view(w, HF_ENGINE_LEFT);
    pass(w, HF_S(3)); /* one host alone has no quorum */
    assert_int_equal(w->host[i].result, 0);
}

static void join(struct world *w, unsigned i)
{
    boot(w, i);
    view(w, HF_ENGINE_LEFT);
    struct hf_group_in in = {.kind = HF_GROUP_IN_JOIN, .join_request = 2};
    w->host[i].result = 1;
    step(w, i, &in);
    pass(w, HF_S(2));
}

static const struct hf_gstate *state(const struct world *w, unsigned i)
{
    return hf_group_state(w->host[i].g);
}

static void expect_primary(const struct world *w, unsigned host, uint8_t r)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        if (!w->host[i].up || hf_group_self(w->host[i].g) == HF_GROUP_NONE) {
            continue;
        }
        const struct hf_gstate *s = state(w, i);
        if (s->phase != HF_PHASE_RUNNING) {
            printf("# %s: %s: %s\n", names[i], hf_phase_name(s->phase), hf_group_why(w->host[i].g));
        }
        assert_int_equal(s->phase, HF_PHASE_RUNNING);
        assert_string_equal(s->member[s->primary_host].host, names[host]);
        assert_int_equal(s->primary, r);
    }
}

static int setup(void **st)
{
    struct world *w = calloc(1, sizeof(*w));
    w->now = HF_S(1000);
    w->verbose = getenv("VERBOSE") != NULL;
    for (unsigned i = 0; i < HOSTS; i++) {
        w->host[i].out = calloc(1, sizeof(struct hf_group_out));
        memset(w->host[i].role, 7, sizeof(w->host[i].role));
    }
    *st = w;
    return 0;
}

static int teardown(void **st)
{
    struct world *w = *st;
    for (unsigned i = 0; i < HOSTS; i++) {
        hf_group_destroy(w->host[i].g);
        free(w->host[i].out);
    }
    free(w);
    return 0;
}

/* One resource that all reach, and an address beside it. */
static void dummy_group(struct world *w)
{
    struct hf_gresource r[2] = {resource("web", HF_RESOURCE_COPY, 0),
                                resource("address", HF_RESOURCE_ATTACHED, 0)};
    for (unsigned i = 0; i < HOSTS; i++) {
        w->host[i].access = 1;
    }
    found(w, 0, r, 2);
    join(w, 1);
    join(w, 2);
    expect_primary(w, 0, 0);
}

static void test_peer_takes_over(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    uint64_t epoch = state(w, 1)->epoch;
    power_off(w, 0);
    view(w, HF_ENGINE_NODEDOWN);
    expect_primary(w, 1, 0);
    assert_int_equal(state(w, 1)->epoch, epoch + 1);
    assert_int_equal(w->host[1].role[1], 0);
    assert_true(state(w, 1)->member[0].fenced);
    boot(w, 0);
    view(w, 0);
    expect_primary(w, 1, 0);
    assert_int_equal(w->host[0].role[0], 7);
}

/* Who says what the others do not know is not heard, and counted; they go on without it, and with
 * it again when it speaks as they do. */
static void test_a_member_of_a_newer_version(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    uint64_t epoch = state(w, 0)->epoch;
    power_off(w, 2);
    view(w, HF_ENGINE_LEFT);
    w->host[2].newer = true;
    boot(w, 2);
    view(w, 0);
    pass(w, HF_S(10));
    assert_true(hf_group_counters(w->host[0].g)->refused_version > 0);
    assert_int_equal(hf_group_counters(w->host[0].g)->refused_malformed, 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(hf_group_quorate(w->host[i].g));
        assert_int_equal(state(w, i)->phase, HF_PHASE_RUNNING);
        assert_int_equal(state(w, i)->primary_host, 0);
    }
    assert_int_equal(state(w, 0)->epoch, epoch);
    assert_int_equal(hf_group_present(w->host[0].g), 3); /* gamma is as one that is not there */
    power_off(w, 2);
    view(w, HF_ENGINE_LEFT);
    w->host[2].newer = false;
    boot(w, 2);
    view(w, 0);
    pass(w, HF_S(10));
    assert_int_equal(hf_group_present(w->host[0].g), 7);
    expect_primary(w, 0, 0);
}

static void test_failed_fence_holds(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    w->fence_rc = -HF_ETIMEOUT;
    power_off(w, 0);
    view(w, HF_ENGINE_NODEDOWN);
    assert_int_equal(state(w, 1)->phase, HF_PHASE_CLEARING);
    assert_int_equal(w->host[1].role[0], 7);
    assert_non_null(strstr(hf_group_why(w->host[1].g), "alpha must be fenced"));
    pass(w, HF_S(60)); /* less and less often */
    unsigned tries = w->host[1].fences + w->host[2].fences;
    assert_in_range(tries, 10, 20);
    w->fence_rc = 0;
    pass(w, HF_S(10));
    expect_primary(w, 1, 0);
}

/* A device that was busy: clients do not wait for long. */
static void test_failed_fence_is_soon_tried_again(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    w->fence_rc = -HF_ETIMEOUT;
    power_off(w, 0);
    view(w, HF_ENGINE_NODEDOWN);
    w->fence_rc = 0; /* after both have tried */
    pass(w, HF_S(2));
    expect_primary(w, 1, 0);
}

static void test_daemon_restarts_in_place(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    uint64_t epoch = state(w, 1)->epoch;
    hf_group_destroy(w->host[0].g);
    w->host[0].g = NULL;
    w->host[0].up = false;
    view(w, HF_ENGINE_PROCDOWN);
    pass(w, HF_S(1));
    boot(w, 0);
    view(w, 0);
    pass(w, HF_S(1));
    expect_primary(w, 0, 0);
    assert_int_equal(state(w, 1)->epoch, epoch);
}

/* The first step already: whatever may be running is looked at, not taken for stopped. */
static void test_restart_looks_at_everything(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    struct host *h = &w->host[0];
    hf_group_destroy(h->g);
    boot(w, 0);
    hf_group_step(h->g, &(struct hf_group_in){.kind = HF_GROUP_IN_TIMER}, w->now, h->out);
    unsigned seen = 0;
    for (uint32_t k = 0; k < h->out->n; k++) {
        const struct hf_group_act *a = &h->out->act[k];
        seen |= a->kind == HF_GROUP_ACT_AGENT ? 1u << a->agent.resource : 0;
    }
    assert_int_equal(seen, 3);
    assert_int_equal(hf_group_role(h->g, 0, 0), HF_ROLE_UNKNOWN);
    assert_int_equal(hf_group_role(h->g, 0, 1), HF_ROLE_UNKNOWN);
}

/* A new process that is in no view yet leaves alone what runs, as long as the others wait for it.
 */
static void test_restart_without_view(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    hf_group_destroy(w->host[0].g);
    w->host[0].up = false;
    view(w, HF_ENGINE_PROCDOWN);
    for (unsigned i = 1; i < 3; i++) { /* what they decide is not looked at */
        power_off(w, i);
    }
    boot(w, 0);
    step(w, 0, &(struct hf_group_in){.kind = HF_GROUP_IN_TIMER});
    pass(w, HF_S(4));
    assert_int_equal(hf_group_role(w->host[0].g, 0, 0), HF_ROLE_OPEN);
    assert_int_equal(hf_group_role(w->host[0].g, 0, 1), HF_ROLE_OPEN);
    pass(w, HF_S(4));
    assert_int_equal(w->host[0].role[0], 7);
    assert_int_equal(w->host[0].role[1], 7);
}

static void test_switch(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    struct hf_group_in in = {.kind = HF_GROUP_IN_REQUEST, .what = HF_GREQUEST_SWITCH};
    in.to_host = "gamma";
    in.request = 5;
    w->host[1].result = 1;
    step(w, 1, &in);
    settle(w);
    assert_int_equal(w->host[1].result, 0);
    expect_primary(w, 2, 0);
    assert_int_equal(w->host[0].role[0], 7);
    assert_int_equal(w->host[0].role[1], 7);
}

static void test_failing_resource_moves(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    for (unsigned n = 0; n < 2; n++) { /* once it is restarted in place */
        expect_primary(w, 0, 0);
        w->host[0].role[0] = 7;
        struct hf_group_in in = {.kind = HF_GROUP_IN_DONE, .rc = 7};
        in.op = HF_OP_MONITOR;
        step(w, 0, &in);
        settle(w);
    }
    expect_primary(w, 1, 0);
}

/* Alpha and beta reach copy 0, gamma and delta copy 1, which mirrors it. */
static void mirror_group(struct world *w)
{
    uint8_t flags = HF_RESOURCE_PROMOTABLE | HF_RESOURCE_MIRROR | HF_RESOURCE_OPEN;
    struct hf_gresource r[2] = {resource("copy1", HF_RESOURCE_COPY, flags),
                                resource("copy2", HF_RESOURCE_COPY, flags)};
    for (unsigned i = 0; i < HOSTS; i++) {
        w->host[i].access = i < 2 ? 1 : 2;
    }
    found(w, 0, r, 2);
    join(w, 1);
    join(w, 2);
    join(w, 3);
    expect_primary(w, 0, 0);
}

static void see(struct world *w, unsigned i, uint8_t r, uint8_t seen)
{
    struct hf_group_in in = {.kind = HF_GROUP_IN_MIRROR};
    in.resource = r;
    in.seen = seen;
    step(w, i, &in);
    settle(w);
}

static void mirror_in_sync(struct world *w)
{
    mirror_group(w);
    see(w, 0, 1, HF_SEEN_CAUGHT_UP);
}

static void test_stop_is_as_good_as_off(void **st)
{
    struct world *w = *st;
    dummy_group(w);
    step(w, 0, &(struct hf_group_in){.kind = HF_GROUP_IN_STOP});
    pass(w, HF_S(1));
    assert_false(w->host[0].wants_in); /* it has stopped */
    power_off(w, 0);
    expect_primary(w, 1, 0);
    assert_true(state(w, 1)->member[0].fenced);
    view(w, HF_ENGINE_LEFT);
    assert_true(state(w, 1)->member[0].fenced);
    expect_primary(w, 1, 0);
}

static void test_mirror(void **st)
{
    struct world *w = *st;
    mirror_group(w);
    assert_int_equal(state(w, 3)->resource[1].mirror, HF_MIRROR_SYNCING);
    assert_int_equal(state(w, 3)->in_sync, 1);
    see(w, 0, 1, HF_SEEN_CAUGHT_UP);
    assert_int_equal(state(w, 3)->resource[1].mirror, HF_MIRROR_IN_SYNC);
    assert_int_equal(state(w, 3)->in_sync, 3);
    power_off(w, 0);
    view(w, HF_ENGINE_NODEDOWN);
    expect_primary(w, 1, 0); /* the same copy: no resync */
    assert_int_equal(state(w, 3)->in_sync, 3);
    assert_int_equal(state(w, 3)->resource[1].mirror, HF_MIRROR_IN_SYNC);
    power_off(w, 1);
    view(w, HF_ENGINE_NODEDOWN);
    expect_primary(w, 2, 1);
    assert_int_equal(state(w, 3)->in_sync, 2);
    boot(w, 0);
    boot(w, 1);
    view(w, 0);
    pass(w, HF_S(1));
    see(w, 2, 0, HF_SEEN_CAUGHT_UP);
    expect_primary(w, 2, 1);
    assert_int_equal(state(w, 3)->in_sync, 3);
    assert_int_equal(state(w, 0)->resource[0].mirror, HF_MIRROR_IN_SYNC);
}

/* G2: is whoever was primary known to be silent? */
static void test_promote_knows_whether_the_former_is_silent(void **st)
{
    struct world *w = *st;
    mirror_in_sync(w);
    struct hf_group_in in = {.kind = HF_GROUP_IN_REQUEST, .what = HF_GREQUEST_SWITCH};
    in.to_host = "gamma";
    in.request = 5;
    step(w, 1, &in);
    settle(w);
    expect_primary(w, 2, 1);
    assert_true(w->host[2].silent); /* it let go */
    see(w, 2, 0, HF_SEEN_CAUGHT_UP);
    power_off(w, 2);
    view(w, HF_ENGINE_NODEDOWN);
    expect_primary(w, 3, 1);
    assert_true(w->host[3].silent); /* it was fenced */
}

/* A promotion that fails has used no transaction id: the next fence says which reign it follows. */
static void test_fence_text_names_the_reign_before(void **st)
{
    struct world *w = *st;
    mirror_in_sync(w);
    power_off(w, 3);
    view(w, HF_ENGINE_LEFT);
    uint64_t epoch = state(w, 0)->epoch;
    char want[64];
    assert_string_equal(state(w, 0)->fence_text, "xmax=7");
    w->fail_op = HF_OP_PROMOTE;
    w->fail_at = 2;
    struct hf_group_in in = {.kind = HF_GROUP_IN_REQUEST, .what = HF_GREQUEST_SWITCH};
    in.to_host = "gamma";
    in.request = 5;
    step(w, 0, &in);
    settle(w);
    expect_primary(w, 0, 0);
    assert_int_equal(state(w, 0)->epoch, epoch + 2);
    snprintf(want, sizeof(want), "xmax=7 after=%llu", (unsigned long long)epoch);
    assert_string_equal(state(w, 2)->fence_text, want);
}

/* Each host is alone. */
static void fall_apart(struct world *w)
{
    w->ring++;
    for (unsigned i = 0; i < HOSTS; i++) {
        struct hf_group_in in = {.kind = HF_GROUP_IN_QUORUM, .ring = w->ring};
        step(w, i, &in);
    }
    settle(w);
}

/* The cluster falls apart and is there again before anybody could act: the primary has had to let
 * go, and what only its process knew (sessions) its mirror has. */
static void test_mirror_goes_on_after_a_loss_of_quorum(void **st)
{
    struct world *w = *st;
    mirror_in_sync(w);
    expect_primary(w, 0, 0);
    fall_apart(w);
    assert_int_equal(w->host[0].role[0], 0); /* not promoted */
    view(w, 0);
    expect_primary(w, 2, 1);
    /* the mirror that is left is not in sync yet: again where it was */
    fall_apart(w);
    view(w, 0);
    expect_primary(w, 2, 1);
}

/* Two at once: the primary's host is cut off, and the mirror's daemon starts anew. Those that are
 * left take it for a start of the whole group and wait for alpha (G5), which comes back without
 * what its process had. */
static void mirrors_daemon_starts_anew(struct world *w)
{
    mirror_in_sync(w);
    fall_apart(w);
    w->host[0].wants_in = false;
    for (unsigned i = 1; i < HOSTS; i++) { /* daemons that start anew; what they run goes on */
        hf_group_destroy(w->host[i].g);
        w->host[i].g = NULL;
        w->host[i].up = false;
        boot(w, i);
    }
    view(w, HF_ENGINE_NODEDOWN);
    assert_int_equal(state(w, 2)->phase, HF_PHASE_NONE);
    assert_non_null(strstr(hf_group_why(w->host[2].g), "waiting a while for alpha"));
    w->host[0].wants_in = true;
}

static void test_mirror_goes_on_after_a_cold_start(void **st)
{
    struct world *w = *st;
    mirrors_daemon_starts_anew(w);
    view(w, 0);
    expect_primary(w, 2, 1);
}

/* While the network comes together the mirror is out of one view, in which alpha is back. */
static void test_mirror_misses_a_view_after_a_cold_start(void **st)
{
    struct world *w = *st;
    mirrors_daemon_starts_anew(w);
    w->host[2].wants_in = false;
    view(w, HF_ENGINE_NODEDOWN);
    pass(w, HF_S(1));
    assert_int_not_equal(w->host[0].role[0], 8);
    w->host[2].wants_in = true;
    view(w, 0);
    expect_primary(w, 2, 1);
}

/* The cluster falls apart, and the mirror's host is heard later than the others. */
static void test_mirror_is_waited_for_after_a_loss_of_quorum(void **st)
{
    struct world *w = *st;
    mirror_in_sync(w);
    fall_apart(w);
    w->host[1].wants_in = w->host[2].wants_in = w->host[3].wants_in = false;
    view(w, HF_ENGINE_NODEDOWN);
    view(w, HF_ENGINE_NODEDOWN);
    pass(w, HF_S(30)); /* patience begins when the group decides again */
    w->host[1].wants_in = w->host[3].wants_in = true;
    view(w, HF_ENGINE_NODEDOWN);
    pass(w, HF_S(4));
    assert_int_not_equal(w->host[0].role[0], 8);
    assert_string_equal(
        hf_group_why(w->host[0].g),
        "copy1 had to stop on alpha without a quorum; waiting a while for gamma, which may go on "
        "with another copy; confirm that it is off to go on without it");
    w->host[2].wants_in = true;
    view(w, 0);
    expect_primary(w, 2, 1);
}

/* Not for ever: without it, the copy that let go is primary again. */
static void test_mirror_that_does_not_come_back(void **st)
{
    struct world *w = *st;
    mirror_in_sync(w);
    fall_apart(w);
    power_off(w, 2);
    view(w, HF_ENGINE_NODEDOWN);
    assert_int_not_equal(w->host[0].role[0], 8);
    pass(w, HF_S(6));
    expect_primary(w, 0, 0);
    assert_false(w->host[2].up);
}

static void refused(struct world *w, const char *host, const char *copy, const char *why)
{
    struct hf_group_in in = {.kind = HF_GROUP_IN_REQUEST, .what = HF_GREQUEST_SWITCH};
    in.to_host = host;
    in.of = copy;
    in.request = 5;
    step(w, 3, &in);
    settle(w);
    assert_int_equal(w->host[3].result, -HF_EVALUE);
    assert_string_equal(w->host[3].result_text, why);
    expect_primary(w, 0, 0);
}

/* Each host but delta has a copy of its own; beta's is in sync, gamma's waits. */
static void test_refused_switch_says_why(void **st)
{
    struct world *w = *st;
    uint8_t flags = HF_RESOURCE_PROMOTABLE | HF_RESOURCE_MIRROR | HF_RESOURCE_OPEN;
    struct hf_gresource r[3] = {resource("copy1", HF_RESOURCE_COPY, flags),
                                resource("copy2", HF_RESOURCE_COPY, flags),
                                resource("copy3", HF_RESOURCE_COPY, flags)};
    for (unsigned i = 0; i < HOSTS; i++) {
        w->host[i].access = (uint16_t)(i < 3 ? 1u << i : 0);
    }
    found(w, 0, r, 3);
    for (unsigned i = 1; i < HOSTS; i++) {
        join(w, i);
    }
    refused(w, NULL, NULL, "refused: no other host that is there can run a copy that is in sync");
    refused(w, "beta", NULL,
            "refused: copy2 on beta is not in sync (syncing); in sync: no other copy. holdfast "
            "group show orders on alpha says what it waits for");
    see(w, 0, 1, HF_SEEN_CAUGHT_UP);
    see(w, 0, 2, HF_SEEN_SUSPENDED);
    static const char waits[] =
        "refused: copy3 on gamma is not in sync (suspended); in sync: copy2 on beta. holdfast "
        "group show orders on alpha says what it waits for";
    refused(w, "gamma", NULL, waits);
    refused(w, NULL, "copy3", waits);
    refused(w, "delta", NULL, "refused: delta reaches no copy: it only votes");
    refused(w, "gamma", "copy2", "refused: gamma does not reach copy2");
    power_off(w, 2);
    view(w, HF_ENGINE_LEFT);
    refused(w, "gamma", NULL, "refused: gamma is not there");
}

static void test_unfenced_host_is_not_silent(void **st)
{
    struct world *w = *st;
    struct hf_gresource r[2] = {
        resource("copy1", HF_RESOURCE_COPY,
                 HF_RESOURCE_MIRROR | HF_RESOURCE_PROMOTABLE | HF_RESOURCE_FENCE_NONE),
        resource("copy2", HF_RESOURCE_COPY,
                 HF_RESOURCE_MIRROR | HF_RESOURCE_PROMOTABLE | HF_RESOURCE_FENCE_NONE)};
    for (unsigned i = 0; i < HOSTS; i++) {
        w->host[i].access = (uint16_t)(1u << (i >= 2));
    }
    found(w, 0, r, 2);
    for (unsigned i = 1; i < HOSTS; i++) {
        join(w, i);
    }
    see(w, 0, 1, HF_SEEN_CAUGHT_UP);
    assert_int_equal(state(w, 3)->in_sync, 3);
    power_off(w, 0);
    view(w, HF_ENGINE_NODEDOWN);
    expect_primary(w, 1, 0);
    assert_false(state(w, 1)->member[0].fenced);
    assert_false(w->host[1].silent);
}

static void test_syncing_copy_is_not_promoted(void **st)
{
    struct world *w = *st;
    mirror_group(w);
    power_off(w, 0);
    power_off(w, 1);
    view(w, HF_ENGINE_NODEDOWN);
    pass(w, HF_S(60));
    assert_int_equal(state(w, 2)->phase, HF_PHASE_NONE);
    struct hf_group_in in = {.kind = HF_GROUP_IN_REQUEST, .what = HF_GREQUEST_FORCE};
    in.of = "copy2";
    in.request = 6;
    w->host[2].result = 1;
    step(w, 2, &in);
    settle(w);
    assert_int_equal(w->host[2].result, 0);
    expect_primary(w, 2, 1);
    boot(w, 0);
    view(w, 0);
    pass(w, HF_S(60));
    assert_int_equal(state(w, 2)->resource[0].mirror, HF_MIRROR_DIVERGED);
}

static void test_cold_start(void **st)
{
    struct world *w = *st;
    mirror_in_sync(w);
    for (unsigned i = 0; i < HOSTS; i++) {
        power_off(w, i);
    }
    boot(w, 2);
    boot(w, 3);
    view(w, HF_ENGINE_NODEDOWN);
    pass(w, HF_S(60)); /* half of the members, and none was there without a break */
    assert_int_equal(w->host[2].role[1], 7);
    boot(w, 1);
    view(w, 0);
    pass(w, HF_S(5));
    assert_int_equal(w->host[1].role[0], 7); /* alpha may be booting, too */
    boot(w, 0);
    view(w, 0);
    pass(w, HF_S(1));
    expect_primary(w, 0, 0);
    assert_int_equal(state(w, 0)->in_sync, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_peer_takes_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_member_of_a_newer_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_fence_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_fence_is_soon_tried_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_daemon_restarts_in_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_looks_at_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_without_view, setup, teardown),
        cmocka_unit_test_setup_teardown(test_switch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failing_resource_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_is_as_good_as_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mirror, setup, teardown),
        cmocka_unit_test_setup_teardown(test_promote_knows_whether_the_former_is_silent, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_refused_switch_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unfenced_host_is_not_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mirror_goes_on_after_a_loss_of_quorum, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_mirror_goes_on_after_a_cold_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mirror_misses_a_view_after_a_cold_start, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_mirror_is_waited_for_after_a_loss_of_quorum, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_mirror_that_does_not_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fence_text_names_the_reign_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_syncing_copy_is_not_promoted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cold_start, setup, teardown),
    };
    return cmocka_run_group_tests_name("core/group", tests, NULL, NULL);
}
