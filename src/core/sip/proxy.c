#include "core/sip/proxy.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/list.h"
#include "base/mem.h"
#include "core/sip/mark.h"
#include "core/sip/transaction.h"

#define NOTHING hf_slice(NULL, 0)
#define CHALLENGES_MAX 16384u /* bytes of the challenges of others than the first */
#define BREADTH 60u           /* Max-Breadth of who has none (RFC 5393) */
#define LOOP_PARAM "hfl"      /* of our Vias: which request this was */
#define LOOP_N 16             /* its hex digits */

/* What is needed to begin more branches and to answer ourselves: until an answer went back. */
struct plan {
    size_t size;
    struct hf_sip_forward how;
    struct hf_endpoint source;
    struct hf_slice request, aor;
    uint32_t breadth;              /* Max-Breadth: so many at once */
    struct hf_sip_target target[]; /* by falling q; behind them all texts */
};

/* Response context (16.2). It lives as long as one of its transactions. */
struct context {
    struct hf_list node;
    struct hf_sip_txn *server; /* NULL: gone */
    struct plan *plan;         /* owned; NULL: an answer went back */
    uint8_t n, next;           /* targets; the first that was not tried */
    uint8_t live;              /* branches that are there */
    uint32_t share;            /* of Max-Breadth, for each of the group */
    uint16_t open;             /* bits: those without a final answer */
    bool invite;
    bool over;      /* no more branches: 2xx, 6xx, cancelled, or nobody waits */
    bool cancelled; /* by the client */
    uint16_t best;  /* status; 0: none yet */
    struct hf_slice response, challenges; /* owned: the best one, and more challenges for it */
    struct hf_sip_txn *branch[];          /* of target i; NULL: none, or gone */
};
static_assert(HF_SIP_CONTACTS_MAX <= 16, "a bit each");

struct hf_sip_proxy {
    struct hf_sip_proxy_ops ops;
    void *ctx;
    struct hf_sip_txns *txns;
    uint64_t seed;
    struct hf_list contexts;
    struct hf_sip_proxy_counters count;
    struct hf_sip_msg msg; /* what was kept, read again */
    uint8_t text[HF_SIP_MESSAGE_MAX];
};

/* --- what is kept --- */

/* A copy; without room: empty. */
static struct hf_slice keep(struct hf_sip_proxy *p, struct hf_slice s)
{
    uint8_t *copy;
    if (s.n == 0 || hf_sip_txns_take(p->txns, s.n)) {
        return NOTHING;
    }
    copy = hf_alloc(s.n);
    if (!copy) {
        hf_sip_txns_give(p->txns, s.n);
        return NOTHING;
    }
    memcpy(copy, s.p, s.n);
    return hf_slice(copy, s.n);
}

static void forget(struct hf_sip_proxy *p, struct hf_slice *s)
{
    hf_sip_txns_give(p->txns, s->n);
    hf_free((void *)(uintptr_t)s->p);
    *s = NOTHING;
}

static struct hf_slice add_text(uint8_t **at, struct hf_slice s)
{
    struct hf_slice copy = hf_slice(*at, s.n);
    if (s.n) {
        memcpy(*at, s.p, s.n);
    }
    *at += s.n;
    return copy;
}

/* Max-Breadth as received (RFC 5393). */
static uint32_t breadth_of(const struct hf_sip_msg *m)
{
    struct hf_slice s;
    uint64_t v;
    int rc = hf_sip_one(m, HF_SIP_H_MAX_BREADTH, &s);
    if (rc == 0) {
        return BREADTH;
    }
    if (rc == 1) {
        struct hf_sip_cur c = hf_sip_cur(s);
        rc = hf_sip_number(&c, UINT32_MAX, &v);
    }
    return rc == 0 ? (uint32_t)v : 1; /* what can't be read breeds nothing */
}

static void loop_mark(const struct hf_sip_proxy *p, const struct hf_sip_msg *m, uint8_t hop,
                      char ret_mark[LOOP_N])
{
    hf_hex_put_u64(hf_sip_loop_hash(m, hop, ~p->seed), LOOP_N, ret_mark);
}

/* Has it been forked here before, by this Request-URI? (With another one it is a spiral: fine.) */
static bool is_loop(const struct hf_sip_proxy *p, const struct hf_sip_msg *m, uint8_t hop)
{
    char mark[LOOP_N];
    struct hf_sip_walk walk;
    struct hf_sip_via v;
    struct hf_sip_param param;
    loop_mark(p, m, hop, mark);
    hf_sip_walk_begin(&walk, m, HF_SIP_H_VIA);
    while (hf_sip_walk_via(&walk, &v) == 1) {
        if (hf_sip_branch_worker(v.branch) >= 0 && hf_sip_param_get(v.params, LOOP_PARAM, &param) &&
            hf_slice_eq(param.value, hf_slice(mark, LOOP_N))) {
            return true;
        }
    }
    return false;
}

static size_t size_of_plan(const struct hf_sip_msg *m, const struct hf_sip_forward *how,
                           const struct hf_sip_target *target, size_t n)
{
    size_t size = sizeof(struct plan) + n * sizeof(*target) + m->used_n + how->sent_by.n +
                  how->via_params.n + sizeof(";" LOOP_PARAM "=") - 1 + LOOP_N +
                  how->record_route.n + how->path.n + target[0].aor.n;
    for (size_t i = 0; i < n; i++) {
        size += target[i].uri.n + target[i].route.n + target[i].sent_by.n + target[i].branch.n +
                target[i].fields.n;
    }
    return size;
}

static void take_targets(struct plan *plan, uint8_t **at, const struct hf_sip_target *target,
                         size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t to = i;
        for (; to > 0 && plan->target[to - 1].q < target[i].q; to--) {
            plan->target[to] = plan->target[to - 1];
        }
        plan->target[to] = target[i];
        plan->target[to].uri = add_text(at, target[i].uri);
        plan->target[to].route = add_text(at, target[i].route);
        plan->target[to].sent_by = add_text(at, target[i].sent_by);
        plan->target[to].branch = add_text(at, target[i].branch);
        plan->target[to].fields = add_text(at, target[i].fields);
    }
}

static int make_plan(struct hf_sip_proxy *p, const struct hf_sip_msg *m,
                     const struct hf_sip_flow *from, const struct hf_sip_forward *how,
                     const struct hf_sip_target *target, size_t n, struct plan **ret_plan)
{
    size_t size = size_of_plan(m, how, target, n);
    if (hf_sip_txns_take(p->txns, size)) {
        return -HF_EFULL;
    }
    struct plan *plan = hf_alloc(size);
    if (!plan) {
        hf_sip_txns_give(p->txns, size);
        return -ENOMEM;
    }
    char mark[LOOP_N];
    uint8_t *at = (uint8_t *)(plan->target + n);
    loop_mark(p, m, how->hop, mark);
    plan->size = size;
    plan->source = from->peer;
    plan->how = *how;
    plan->how.source = &plan->source;
    plan->how.sent_by = add_text(&at, how->sent_by);
    plan->how.via_params = add_text(&at, how->via_params);
    plan->how.via_params.n += add_text(&at, hf_slice_str(";" LOOP_PARAM "=")).n;
    plan->how.via_params.n += add_text(&at, hf_slice(mark, LOOP_N)).n;
    plan->how.record_route = add_text(&at, how->record_route);
    plan->how.path = add_text(&at, how->path);
    plan->how.drop |= 1ULL << HF_SIP_H_MAX_BREADTH;
    plan->request = add_text(&at, hf_slice(m->text.p, m->used_n));
    plan->aor = add_text(&at, target[0].aor);
    plan->breadth = breadth_of(m);
    take_targets(plan, &at, target, n);
    *ret_plan = plan;
    return 0;
}

static void free_plan(struct hf_sip_proxy *p, struct plan *plan)
{
    if (plan) {
        hf_sip_txns_give(p->txns, plan->size);
        hf_free(plan);
    }
}

/* An answer went back: what made it is not needed any more. */
static void close_context(struct hf_sip_proxy *p, struct context *c)
{
    free_plan(p, c->plan);
    c->plan = NULL;
    c->over = true;
    forget(p, &c->response);
    forget(p, &c->challenges);
}

static size_t context_size(size_t n)
{
    return sizeof(struct context) + n * sizeof(struct hf_sip_txn *);
}

static void free_if_unused(struct hf_sip_proxy *p, struct context *c)
{
    if (!c->server && !c->live) {
        close_context(p, c);
        hf_sip_txns_give(p->txns, context_size(c->n));
        hf_list_unlink(&c->node);
        hf_free(c);
    }
}

/* --- messages --- */

/* A response of our own; in p->text. Empty: it does not fit. */
static struct hf_slice response_to(struct hf_sip_proxy *p, const struct hf_sip_msg *request,
                                   const struct hf_endpoint *source, uint16_t status)
{
    struct hf_wr w;
    struct hf_slice message;
    char tag[16];
    hf_sip_stateless_tag(request, p->seed, tag);
    hf_wr_init(&w, p->text, sizeof(p->text));
    if (hf_sip_begin_response(&w, request, status, NOTHING,
                              status > 100 ? hf_slice(tag, sizeof(tag)) : NOTHING, source) ||
        hf_sip_end(&w, NOTHING, NOTHING, &message)) {
        return NOTHING;
    }
    return message;
}

/* Likewise to what was forked. */
static struct hf_slice own_response(struct hf_sip_proxy *p, const struct context *c,
                                    uint16_t status)
{
    if (hf_sip_parse(c->plan->request, false, &p->msg)) {
        return NOTHING; /* it was read before */
    }
    return response_to(p, &p->msg, &c->plan->source, status);
}

/* A branch's response as it goes back, with more challenges; in p->text. */
static struct hf_slice relayed(struct hf_sip_proxy *p, const struct hf_sip_msg *m,
                               struct hf_slice challenges)
{
    struct hf_wr w;
    struct hf_slice message;
    hf_wr_init(&w, p->text, sizeof(p->text));
    if (hf_sip_begin_relay(&w, m)) {
        return NOTHING;
    }
    hf_wr_bytes(&w, challenges);
    return hf_sip_end(&w, NOTHING, m->body, &message) ? NOTHING : message;
}

static bool send_back(struct hf_sip_proxy *p, struct context *c, uint16_t status,
                      struct hf_slice message, hf_time now)
{
    return c->server && message.n && hf_sip_txn_respond(p->txns, c->server, status, message, now);
}

/* --- the best response (16.7 steps 6 and 7) --- */

static bool is_challenge(uint16_t status)
{
    return status == 401 || status == 407;
}

/* Lower is better. */
static unsigned rank(const struct context *c, uint16_t status)
{
    switch (status) {
    case 401:
    case 407:
        return 40;
    case 415:
    case 420:
    case 484:
        return 41;
    case 487:
        return 43;
    case 408:
        return c->invite ? 44 : 99; /* can't be sent at all */
    case 430:
        return 58; /* no agent's answer */
    case 503:
        return 59;
    default:
        return status >= 600 ? 0 : status / 100 * 10 + 2;
    }
}

static void add_challenges(struct hf_sip_proxy *p, struct context *c, const struct hf_sip_msg *m)
{
    struct hf_wr w;
    struct hf_slice all;
    hf_wr_init(&w, p->text, CHALLENGES_MAX);
    hf_wr_bytes(&w, c->challenges);
    hf_sip_put_copies(&w, m, HF_SIP_H_WWW_AUTHENTICATE);
    hf_sip_put_copies(&w, m, HF_SIP_H_PROXY_AUTHENTICATE);
    if (hf_wr_end(&w, &all) == 0) {
        all = keep(p, all);
        if (all.n) {
            forget(p, &c->challenges);
            c->challenges = all;
        }
    }
}

/* A final answer; m: NULL: it is ours. */
static void note(struct hf_sip_proxy *p, struct context *c, uint16_t status,
                 const struct hf_sip_msg *m)
{
    if (!c->plan) {
        return;
    }
    if (c->best && rank(c, c->best) <= rank(c, status)) {
        if (m && is_challenge(status) && is_challenge(c->best)) {
            add_challenges(p, c, m);
        }
        return;
    }
    forget(p, &c->response);
    forget(p, &c->challenges);
    c->best = status;
    if (m) {
        c->response = keep(p, hf_slice(m->text.p, m->used_n));
        c->best = c->response.n ? status : 500; /* no room */
    }
}

/* All have answered: what goes back. */
static void finish(struct hf_sip_proxy *p, struct context *c, hf_time now)
{
    struct hf_slice message = NOTHING;
    uint16_t status = c->best;
    if (status == 408 && !c->invite) {
        if (c->server) {
            hf_sip_txn_drop(p->txns, c->server, now); /* RFC 4320 4.2 */
        }
        close_context(p, c);
        return;
    }
    if (status == 503) {
        status = 500;
    } else if (status == 430) {
        status = 480;
    } else if (status == 408 && c->cancelled) {
        status = 487;
    } else if (c->response.n && hf_sip_parse(c->response, false, &p->msg) == 0) {
        message = relayed(p, &p->msg, c->challenges);
    }
    if (!message.n) {
        status = c->response.n && status == c->best ? 500 : status; /* it does not fit */
        message = own_response(p, c, status);
    }
    send_back(p, c, status, message, now);
    close_context(p, c);
}

/* --- branches --- */

static void cancel_open(struct hf_sip_proxy *p, struct context *c, hf_time now)
{
    c->over = true;
    for (size_t i = 0; i < c->n; i++) {
        if (c->open >> i & 1) {
            hf_sip_txn_cancel(p->txns, c->branch[i], now);
        }
    }
}

static void begin_branch(struct hf_sip_proxy *p, struct context *c, const struct hf_sip_msg *m,
                         size_t i, hf_time now)
{
    const struct hf_sip_target *target = &c->plan->target[i];
    struct hf_sip_forward how = c->plan->how;
    char branch[HF_SIP_OWN_BRANCH_LEN];
    struct hf_slice message;
    struct hf_sip_txn *x;
    struct hf_wr w;
    hf_sip_txns_branch(p->txns, branch);
    how.branch = target->branch.n ? target->branch : hf_slice(branch, sizeof(branch));
    how.uri = target->uri;
    how.route = target->route;
    how.transport = target->to.transport;
    how.sent_by = target->sent_by.n ? target->sent_by : how.sent_by;
    hf_wr_init(&w, p->text, sizeof(p->text));
    if (hf_sip_begin_forward(&w, m, &how)) {
        note(p, c, 500, NULL);
        return;
    }
    hf_sip_put_number(&w, HF_SIP_H_MAX_BREADTH, c->share);
    hf_wr_bytes(&w, target->fields);
    if (hf_sip_end(&w, NOTHING, m->body, &message) ||
        hf_sip_txn_call(p->txns, how.branch, m->method, message, &target->to, now, &x)) {
        note(p, c, 500, NULL);
        return;
    }
    x->owner = c;
    x->cookie = target->cookie;
    x->index = (uint8_t)i;
    c->branch[i] = x;
    c->open |= (uint16_t)(1u << i);
    c->live++;
    p->count.branches++;
}

/* Another flow to an agent that is tried before? */
static bool is_spare(const struct context *c, size_t i)
{
    const struct hf_sip_target *target = c->plan->target;
    size_t before = 0;
    while (before < i && target[before].agent != target[i].agent) {
        before++;
    }
    return target[i].agent && before < i;
}

/* The next targets of one q, as many as Max-Breadth allows at once; c->next behind them. */
static uint16_t next_group(struct context *c, uint32_t *ret_n)
{
    const struct hf_sip_target *target = c->plan->target;
    size_t first = c->next;
    uint16_t group = 0;
    *ret_n = 0;
    for (; c->next < c->n && target[c->next].q == target[first].q; c->next++) {
        if (is_spare(c, c->next)) {
            continue;
        }
        if (*ret_n == c->plan->breadth) {
            break;
        }
        group |= (uint16_t)(1u << c->next);
        ++*ret_n;
    }
    return group;
}

/* The request, read again. */
static const struct hf_sip_msg *request_of(struct hf_sip_proxy *p, const struct context *c)
{
    int rc = hf_sip_parse(c->plan->request, false, &p->msg);
    assert(rc == 0); /* it was read before */
    return &p->msg;
}

/* May more be begun? */
static bool goes_on(const struct context *c, hf_time now)
{
    /* at its end a non-INVITE's client has just given up (64 T1) */
    return c->plan && !c->over && c->server && c->server->end > now;
}

/* What comes next when nothing is open. m: the request, NULL: is read again. */
static void advance(struct hf_sip_proxy *p, struct context *c, const struct hf_sip_msg *m,
                    hf_time now)
{
    if (goes_on(c, now) && c->plan->breadth == 0) {
        note(p, c, 440, NULL);
        c->next = c->n;
    }
    while (goes_on(c, now) && !c->open && c->next < c->n) {
        uint32_t n;
        uint16_t group = next_group(c, &n);
        m = m || !n ? m : request_of(p, c);
        c->share = n ? c->plan->breadth / n : 0;
        for (size_t i = 0; i < c->n; i++) {
            if (group >> i & 1) {
                begin_branch(p, c, m, i, now);
            }
        }
    }
    if (c->plan && !c->open) {
        finish(p, c, now);
    }
}

/* --- what the transactions tell --- */

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    struct hf_sip_proxy *p = ctx;
    p->ops.send(p->ctx, to, message);
}

static void on_success(struct hf_sip_proxy *p, struct context *c, const struct hf_sip_msg *m,
                       hf_time now)
{
    if (!c->invite && !c->plan) {
        return; /* one is enough */
    }
    send_back(p, c, m->status, relayed(p, m, NOTHING), now);
    cancel_open(p, c, now);
    close_context(p, c);
}

/* RFC 5626: an agent's next flow when one is broken. */
static void try_spare(struct hf_sip_proxy *p, struct context *c, size_t i, hf_time now)
{
    const struct hf_sip_target *target = goes_on(c, now) ? c->plan->target : NULL;
    for (size_t k = i + 1; target && target[i].agent && k < c->n; k++) {
        if (target[k].agent == target[i].agent) {
            begin_branch(p, c, request_of(p, c), k, now);
            return;
        }
    }
}

/* x: the branch; m: NULL: there is none. */
static void on_final(struct hf_sip_proxy *p, struct hf_sip_txn *x, uint16_t status,
                     const struct hf_sip_msg *m, hf_time now)
{
    struct context *c = x->owner;
    bool broken = status == 408 || status == 430 || status == 503;
    if (broken) {
        bool closed = status == 503 && !m && x->flow.conn;
        p->ops.failed(p->ctx, c->plan ? c->plan->aor : NOTHING, x->cookie, closed ? 430 : status);
    }
    if (status >= 600) {
        cancel_open(p, c, now);
    }
    note(p, c, status, m);
    if (broken) {
        try_spare(p, c, x->index, now);
    }
    advance(p, c, NULL, now);
}

static void on_response(void *ctx, struct hf_sip_txn *x, const struct hf_sip_msg *m, hf_time now)
{
    struct hf_sip_proxy *p = ctx;
    struct context *c = x->owner;
    if (!c) {
        if (m->status >= 200) {
            p->ops.answered(p->ctx, x->cookie, m->status, m);
        }
        return;
    }
    if (m->status < 200) {
        if (m->status > 100 && c->invite && c->plan) {
            send_back(p, c, m->status, relayed(p, m, NOTHING), now);
        }
        return;
    }
    c->open &= (uint16_t) ~(1u << x->index);
    if (m->status < 300) {
        on_success(p, c, m, now);
        return;
    }
    on_final(p, x, m->status, m, now);
}

static void on_failed(void *ctx, struct hf_sip_txn *x, uint16_t status, hf_time now)
{
    struct hf_sip_proxy *p = ctx;
    struct context *c = x->owner;
    if (!c) {
        p->ops.answered(p->ctx, x->cookie, status, NULL);
        return;
    }
    c->open &= (uint16_t) ~(1u << x->index);
    on_final(p, x, status, NULL, now);
}

static void on_trying(void *ctx, struct hf_sip_txn *x, hf_time now)
{
    struct hf_sip_proxy *p = ctx;
    struct context *c = x->owner;
    if (c && c->plan) {
        send_back(p, c, 100, own_response(p, c, 100), now);
    }
}

static void on_gone(void *ctx, struct hf_sip_txn *x, hf_time now)
{
    struct hf_sip_proxy *p = ctx;
    struct context *c = x->owner;
    if (!c) {
        return;
    }
    if (c->server == x) {
        c->server = NULL;
        if (c->plan) { /* a non-INVITE's time is over: nobody waits for it any more */
            for (size_t i = 0; i < c->n; i++) {
                /* who has been silent all the time says so himself: 408, a flow that is broken */
                if (c->open >> i & 1 && c->branch[i]->end > now) {
                    c->open &= (uint16_t) ~(1u << i);
                    hf_sip_txn_drop(p->txns, c->branch[i], now);
                }
            }
            close_context(p, c);
        }
    } else {
        c->branch[x->index] = NULL;
        c->live--;
    }
    free_if_unused(p, c);
}

/* --- the caller --- */

int hf_sip_proxy_create(const struct hf_sip_proxy_conf *conf, const struct hf_sip_proxy_ops *ops,
                        void *ctx, struct hf_sip_proxy **ret_proxy)
{
    static const struct hf_sip_txn_ops txn_ops = {.send = on_send,
                                                  .response = on_response,
                                                  .failed = on_failed,
                                                  .trying = on_trying,
                                                  .gone = on_gone};
    char unguessable[HF_SIP_OWN_BRANCH_LEN];
    struct hf_sip_proxy *p = hf_alloc(sizeof(*p));
    if (!p) {
        return -ENOMEM;
    }
    p->ops = *ops;
    p->ctx = ctx;
    hf_list_init(&p->contexts);
    int rc = hf_sip_txns_create(conf, &txn_ops, p, &p->count, &p->txns);
    if (rc) {
        hf_free(p);
        return rc;
    }
    /* Who finds the tags' seed out must not know the branches by it. */
    hf_sip_txns_branch(p->txns, unguessable);
    p->seed = hf_hash(hf_slice(unguessable, sizeof(unguessable)), 0);
    *ret_proxy = p;
    return 0;
}

void hf_sip_proxy_destroy(struct hf_sip_proxy *p)
{
    if (!p) {
        return;
    }
    HF_LIST_FOREACH (it, &p->contexts) {
        struct context *c = HF_CONTAINER_OF(it, struct context, node);
        c->server = NULL;
        c->live = 0;
        free_if_unused(p, c);
    }
    hf_sip_txns_destroy(p->txns);
    hf_free(p);
}

/* 9.2, 16.10. The 200 needs no transaction: it is the same each time. */
static void take_cancel(struct hf_sip_proxy *p, struct hf_sip_txn *x, const struct hf_sip_msg *m,
                        const struct hf_sip_flow *from, hf_time now)
{
    struct context *c = x->owner;
    struct hf_sip_flow to = hf_sip_flow_back(m, from);
    struct hf_slice message = response_to(p, m, &from->peer, 200);
    if (message.n) {
        p->ops.send(p->ctx, &to, message);
    }
    if (c && c->plan && !c->cancelled) {
        c->cancelled = true;
        p->count.cancelled++;
        cancel_open(p, c, now);
    }
}

bool hf_sip_proxy_absorb(struct hf_sip_proxy *p, const struct hf_sip_msg *request,
                         const struct hf_sip_flow *from, hf_time now)
{
    struct hf_sip_txn *x;
    if (!request->request || request->fault != HF_SIP_OK) {
        return false;
    }
    x = hf_sip_txns_server(p->txns, request);
    if (!x) {
        return false;
    }
    if (request->method == HF_SIP_CANCEL) {
        take_cancel(p, x, request, from, now);
        return true;
    }
    return hf_sip_txn_again(p->txns, x, request, now);
}

bool hf_sip_proxy_response(struct hf_sip_proxy *p, const struct hf_sip_msg *response,
                           const struct hf_sip_flow *from, hf_time now)
{
    (void)from; /* who knows the branch has seen the request */
    struct hf_sip_txn *x = response->request || response->fault != HF_SIP_OK
                               ? NULL
                               : hf_sip_txns_client(p->txns, response);
    /* of a forked request there must be something to relay */
    if (!x || (x->owner && response->method == x->method && response->n_vias < 2)) {
        p->count.stray++;
        return false;
    }
    hf_sip_txn_answer(p->txns, x, response, now);
    return true;
}

/* A request that may begin a server transaction? */
static bool may_begin(const struct hf_sip_msg *m)
{
    return m->request && m->fault == HF_SIP_OK && m->method != HF_SIP_ACK &&
           m->method != HF_SIP_CANCEL;
}

static int begin_context(struct hf_sip_proxy *p, const struct hf_sip_msg *m,
                         const struct hf_sip_flow *from, const struct hf_sip_forward *how,
                         const struct hf_sip_target *target, size_t n, hf_time now,
                         struct context **ret_context)
{
    struct plan *plan;
    struct hf_sip_txn *x;
    struct context *c;
    if (!hf_sip_txns_room(p->txns, 1 + n) || hf_sip_txns_take(p->txns, context_size(n))) {
        return -HF_EFULL;
    }
    c = hf_alloc(context_size(n));
    int rc = c ? make_plan(p, m, from, how, target, n, &plan) : -ENOMEM;
    if (rc == 0) {
        rc = hf_sip_txn_serve(p->txns, m, from, now, &x);
        if (rc) {
            free_plan(p, plan);
        }
    }
    if (rc) {
        hf_sip_txns_give(p->txns, context_size(n));
        hf_free(c);
        return rc;
    }
    hf_list_insert(&p->contexts, &c->node);
    c->plan = plan;
    c->server = x;
    x->owner = c;
    c->n = (uint8_t)n;
    c->invite = m->method == HF_SIP_INVITE;
    *ret_context = c;
    return 0;
}

static int reply(struct hf_sip_proxy *p, const struct hf_sip_msg *request,
                 const struct hf_sip_flow *from, uint16_t status, struct hf_slice message,
                 hf_time now)
{
    struct hf_sip_txn *x;
    int rc = hf_sip_txn_serve(p->txns, request, from, now, &x);
    if (rc) {
        p->count.full++;
        return rc;
    }
    hf_sip_txn_respond(p->txns, x, status, message, now);
    return 0;
}

int hf_sip_proxy_fork(struct hf_sip_proxy *p, const struct hf_sip_msg *request,
                      const struct hf_sip_flow *from, const struct hf_sip_forward *how,
                      const struct hf_sip_target *target, size_t n, hf_time now)
{
    struct context *c;
    assert(n > 0);
    if (!may_begin(request) || request->max_forwards == 0) {
        return -HF_EVALUE;
    }
    if (hf_sip_proxy_absorb(p, request, from, now)) {
        return 0;
    }
    if (is_loop(p, request, how->hop)) {
        p->count.looped++;
        return reply(p, request, from, 482, response_to(p, request, &from->peer, 482), now);
    }
    n = n < HF_SIP_CONTACTS_MAX ? n : HF_SIP_CONTACTS_MAX;
    int rc = begin_context(p, request, from, how, target, n, now, &c);
    if (rc) {
        p->count.full++;
        return rc;
    }
    p->count.proxied++;
    if (c->invite) {
        send_back(p, c, 100, own_response(p, c, 100), now);
    }
    advance(p, c, request, now);
    return 0;
}

int hf_sip_proxy_reply(struct hf_sip_proxy *p, const struct hf_sip_msg *request,
                       const struct hf_sip_flow *from, uint16_t status, struct hf_slice message,
                       hf_time now)
{
    assert(status >= 200);
    if (!may_begin(request)) {
        return -HF_EVALUE;
    }
    return hf_sip_proxy_absorb(p, request, from, now)
               ? 0
               : reply(p, request, from, status, message, now);
}

void hf_sip_proxy_branch(struct hf_sip_proxy *p, char ret_branch[HF_SIP_OWN_BRANCH_LEN])
{
    hf_sip_txns_branch(p->txns, ret_branch);
}

int hf_sip_proxy_own(struct hf_sip_proxy *p, struct hf_slice message, const struct hf_sip_flow *to,
                     uint64_t cookie, hf_time now)
{
    struct hf_sip_txn *x;
    const struct hf_sip_msg *m = &p->msg;
    if (hf_sip_parse(message, false, &p->msg) || !may_begin(m) || m->method == HF_SIP_INVITE) {
        return -HF_EMALF;
    }
    int rc = hf_sip_txn_call(p->txns, m->via.branch, m->method, message, to, now, &x);
    if (rc) {
        p->count.full += rc == -HF_EFULL;
        return rc;
    }
    x->cookie = cookie;
    p->count.own++;
    return 0;
}

void hf_sip_proxy_unreachable(struct hf_sip_proxy *p, const struct hf_sip_flow *to, hf_time now)
{
    hf_sip_txns_unreachable(p->txns, to, now);
}

void hf_sip_proxy_tick(struct hf_sip_proxy *p, hf_time now)
{
    hf_sip_txns_tick(p->txns, now);
}

hf_time hf_sip_proxy_deadline(const struct hf_sip_proxy *p)
{
    return hf_sip_txns_deadline(p->txns);
}

size_t hf_sip_proxy_count(const struct hf_sip_proxy *p)
{
    return hf_sip_txns_count(p->txns);
}

size_t hf_sip_proxy_bytes(const struct hf_sip_proxy *p)
{
    return hf_sip_txns_bytes(p->txns);
}

const struct hf_sip_proxy_counters *hf_sip_proxy_counters(const struct hf_sip_proxy *p)
{
    return &p->count;
}
