/* sim-sip-proxy: the real proxy core between clients and targets, which are transactions, too, over
 * a network that loses, repeats and overtakes. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "core/sip/transaction.h"
#include "sim/runner.h"
#include "support/sim_net.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define N_REQUESTS 16
#define N_TARGETS 4
#define SEND_TIME HF_S(32) /* 64 T1 */

enum event { EV_BEGIN, EV_CANCEL, EV_PACKET, EV_RING, EV_ANSWER, EV_AGAIN, EV_BREAK };
enum side { PROXY, CLIENT, TARGET };

/* A request at a target. */
struct leg {
    struct request *r;
    unsigned i;
    /* the target's */
    struct hf_sip_txn *txn; /* NULL: none, or gone */
    char text[1024];        /* as it arrived first */
    bool has, acked, said_final;
    hf_time interval, until; /* of its 2xx */
    /* what the proxy did, and what reached it */
    bool begun, rang, cancelled, dead, passed;
    uint16_t final;
    hf_time ring_time;
};

struct request {
    unsigned id;
    bool invite, tcp;
    struct hf_sip_txn *txn; /* the client's; NULL: over */
    bool forked, over, heard;
    uint16_t final; /* that went back */
    hf_time begun, last_final;
    unsigned n;
    struct leg leg[N_TARGETS];
};

struct packet {
    enum side to;
    struct hf_sip_flow flow; /* where it is going */
    size_t n;
    uint8_t text[];
};

struct world {
    struct sim_net net;
    FILE *trace;
    struct sim_run *ret;
    struct hf_sip_proxy *proxy;
    struct hf_sip_txns *clients, *targets;
    struct hf_sip_proxy_counters ignored;
    struct request request[N_REQUESTS];
    bool target_tcp[N_TARGETS], deaf[N_TARGETS];
    hf_time last_tcp;
    struct hf_sip_msg msg, sent;
};

enum figure { REQUESTS, BRANCHES, SUCCESSES, FAILURES, CANCELS, PACKETS, LOST };
static const char *const figures[] = {"requests", "branches", "successes", "failures",
                                      "cancels",  "packets",  "lost",      NULL};

static void fail(struct world *w, const char *kind, const char *fmt, ...) HF_PRINTF(3, 4);
static void fail(struct world *w, const char *kind, const char *fmt, ...)
{
    va_list ap;
    if (w->ret->why[0]) {
        return;
    }
    snprintf(w->ret->kind, sizeof(w->ret->kind), "%s", kind);
    va_start(ap, fmt);
    vsnprintf(w->ret->why, sizeof(w->ret->why), fmt, ap);
    va_end(ap);
}

static void tell(struct world *w, const char *fmt, ...) HF_PRINTF(2, 3);
static void tell(struct world *w, const char *fmt, ...)
{
    va_list ap;
    if (!w->trace) {
        return;
    }
    fprintf(w->trace, "%10.3f ", (double)w->net.now / 1e9);
    va_start(ap, fmt);
    vfprintf(w->trace, fmt, ap);
    va_end(ap);
    fputc('\n', w->trace);
}

static uint64_t below(struct world *w, uint64_t n)
{
    return hf_prng_below(&w->net.prng, n);
}

/* --- packets --- */

static struct hf_sip_flow flow_to(enum side side, unsigned i, bool tcp)
{
    return (struct hf_sip_flow){
        .transport = tcp ? HF_SIP_TRANSPORT_TCP : HF_SIP_TRANSPORT_UDP,
        .peer = {.family = HF_AF_INET, .addr = {10, 0, (uint8_t)side, (uint8_t)i}, .port = 5060},
        .conn = tcp ? side * 100 + i : 0};
}

static void transmit(struct world *w, enum side to, const struct hf_sip_flow *flow,
                     struct hf_slice message)
{
    bool tcp = flow->transport == HF_SIP_TRANSPORT_TCP;
    unsigned copies = !tcp && sim_net_chance(&w->net, w->net.weather.dup) ? 2 : 1;
    if (!tcp && sim_net_chance(&w->net, w->net.weather.loss)) {
        w->ret->figure[LOST]++;
        return;
    }
    for (; copies > 0; copies--) {
        struct packet *k = sim_alloc(sizeof(*k) + message.n);
        hf_time at = w->net.now + sim_net_latency(&w->net);
        if (tcp) { /* in order */
            at = at > w->last_tcp ? at : w->last_tcp;
            w->last_tcp = at;
        }
        k->to = to;
        k->flow = *flow;
        k->n = message.n;
        memcpy(k->text, message.p, message.n);
        w->ret->figure[PACKETS]++;
        sim_net_at(&w->net, at, EV_PACKET, 0, 0, k);
    }
}

static struct request *of(struct world *w, const struct hf_sip_msg *m)
{
    unsigned id = 0;
    for (size_t i = 0; i < m->call_id.n; i++) {
        id = id * 10 + m->call_id.p[i] - '0';
    }
    return &w->request[id % N_REQUESTS];
}

static void tell_message(struct world *w, const char *what, const struct hf_sip_msg *m,
                         const char *who, unsigned i)
{
    char first[32];
    if (m->request) {
        snprintf(first, sizeof(first), "%.*s", HF_SLICE_FMT(m->method_text));
    } else {
        snprintf(first, sizeof(first), "%u %.*s", m->status, HF_SLICE_FMT(m->method_text));
    }
    tell(w, "request %u: %s %s %s %u", of(w, m)->id, what, first, who, i);
}

/* --- what the proxy sends is what it must --- */

static void check_to_client(struct world *w, const struct hf_sip_msg *m)
{
    struct request *r = of(w, m);
    struct hf_slice tag = hf_sip_address_tag(&m->to);
    if (m->method == HF_SIP_CANCEL) {
        return;
    }
    if (m->status < 200) {
        if (r->final || (!r->invite && m->status != 100)) {
            fail(w, "late", "request %u: %u behind %u", r->id, m->status, r->final);
        }
        return;
    }
    bool success = m->status < 300;
    if (r->final && r->final != m->status && !(success && r->final < 300 && r->invite)) {
        fail(w, "finals", "request %u: %u behind %u", r->id, m->status, r->final);
    }
    if (!r->invite && m->status == 408) {
        fail(w, "408", "request %u: 408 to a non-INVITE", r->id);
    }
    if (!r->final) {
        w->ret->figure[success ? SUCCESSES : FAILURES]++;
    }
    r->final = r->final ? r->final : m->status;
    if (success && tag.n == 2) {
        r->leg[tag.p[1] - '0'].passed = true;
    }
}

static void check_cancel(struct world *w, struct request *r, struct leg *l)
{
    if (!l->rang || l->final || l->dead) {
        fail(w, "cancel", "request %u: CANCEL of nothing to %u", r->id, l->i);
    }
    if (!l->cancelled && !r->over && w->net.now < l->ring_time + HF_S(180)) {
        fail(w, "cancel", "request %u: CANCEL without reason to %u", r->id, l->i);
    }
    l->cancelled = true;
}

static void check_to_target(struct world *w, const struct hf_sip_msg *m, unsigned i)
{
    struct request *r = of(w, m);
    struct leg *l = &r->leg[i];
    if (m->method == HF_SIP_ACK) {
        if (l->final < 300) {
            fail(w, "ack", "request %u: ACK of nothing to %u", r->id, i);
        }
        return;
    }
    if (m->method == HF_SIP_CANCEL) {
        check_cancel(w, r, l);
        return;
    }
    if (!l->begun) {
        w->ret->figure[BRANCHES]++;
        l->ring_time = w->net.now;
    }
    if ((!l->begun && r->over) || l->final || l->dead || (r->invite && l->rang)) {
        fail(w, "again", "request %u: sent to %u for nothing", r->id, i);
    }
    l->begun = true;
}

static void proxy_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    struct world *w = ctx;
    unsigned i = to->peer.addr[3];
    bool to_client = to->peer.addr[2] == CLIENT;
    if (hf_sip_parse(message, true, &w->sent)) {
        fail(w, "message", "the proxy sends what can't be read: %s",
             hf_sip_fault_text(w->sent.fault));
        return;
    }
    tell_message(w, "proxy sends", &w->sent, to_client ? "to client" : "to target", i);
    if (to_client) {
        check_to_client(w, &w->sent);
    } else {
        check_to_target(w, &w->sent, i);
    }
    transmit(w, to_client ? CLIENT : TARGET, to, message);
}

static void proxy_answered(void *ctx, uint64_t cookie, uint16_t status, const struct hf_sip_msg *m)
{
    (void)m;
    fail(ctx, "own", "nobody asked: %" PRIu64 " %u", cookie, status);
}

static void proxy_failed(void *ctx, struct hf_slice aor, uint64_t cookie, uint16_t status)
{
    struct world *w = ctx;
    struct leg *l = &w->request[cookie / 10].leg[cookie % 10];
    (void)aor;
    tell(w, "request %u: branch to target %u failed: %u", l->r->id, l->i, status);
    l->dead = true;
}

/* Of all that is decided, what still rings is cancelled. */
static void check_cancelled(struct world *w)
{
    for (size_t k = 0; k < N_REQUESTS; k++) {
        struct request *r = &w->request[k];
        for (size_t i = 0; r->invite && r->over && i < N_TARGETS; i++) {
            const struct leg *l = &r->leg[i];
            if (l->begun && l->rang && !l->final && !l->dead && !l->cancelled) {
                fail(w, "rings", "request %u: target %zu rings on", r->id, i);
            }
        }
    }
}

/* --- what reaches the proxy --- */

static void fork_it(struct world *w, struct request *r, const struct hf_sip_msg *m,
                    const struct hf_sip_flow *from)
{
    char uri[N_TARGETS][32];
    struct hf_sip_target target[N_TARGETS];
    struct hf_sip_forward how = {.sent_by = S("10.0.0.0")};
    r->n = 1 + (unsigned)below(w, N_TARGETS);
    for (unsigned i = 0; i < r->n; i++) {
        snprintf(uri[i], sizeof(uri[i]), "sip:t@10.0.2.%u", i);
        target[i] = (struct hf_sip_target){.uri = hf_slice_str(uri[i]),
                                           .q = (uint16_t)(below(w, 3) * 100),
                                           .to = flow_to(TARGET, i, w->target_tcp[i]),
                                           .cookie = r->id * 10 + i,
                                           .agent = (uint32_t)below(w, 4)};
    }
    r->forked = true;
    r->begun = w->net.now;
    if (hf_sip_proxy_fork(w->proxy, m, from, &how, target, r->n, w->net.now)) {
        fail(w, "fork", "request %u: refused", r->id);
    }
}

static void request_at_proxy(struct world *w, const struct hf_sip_msg *m,
                             const struct hf_sip_flow *from)
{
    struct request *r = of(w, m);
    bool before = r->final == 0;
    if (m->method == HF_SIP_CANCEL && before && r->forked) {
        r->over = true;
        w->ret->figure[CANCELS]++;
    }
    if (hf_sip_proxy_absorb(w->proxy, m, from, w->net.now)) {
        if (m->method != HF_SIP_CANCEL && m->method != HF_SIP_ACK && !r->forked) {
            fail(w, "absorb", "request %u: absorbed, and never begun", r->id);
        }
    } else if (m->method == HF_SIP_CANCEL && before && r->forked) {
        fail(w, "absorb", "request %u: its CANCEL was not", r->id);
    } else if (m->method != HF_SIP_ACK && m->method != HF_SIP_CANCEL && !r->forked) {
        fork_it(w, r, m, from);
    }
}

static void final_at_proxy(struct world *w, struct request *r, struct leg *l,
                           const struct hf_sip_msg *m, const struct hf_sip_flow *from)
{
    bool live = l->begun && !l->dead && !l->final;
    bool waited_for = r->invite || (r->final == 0 && w->net.now < r->begun + SEND_TIME);
    bool success = m->status < 300;
    if (live) {
        l->final = m->status;
        r->last_final = w->net.now;
        r->over = r->over || success || m->status >= 600;
    }
    bool mine = hf_sip_proxy_response(w->proxy, m, from, w->net.now);
    if (live && waited_for && (!mine || (success && !l->passed))) {
        fail(w, "lost", "request %u: %u of target %u is lost", r->id, m->status, l->i);
    }
}

static void response_at_proxy(struct world *w, const struct hf_sip_msg *m,
                              const struct hf_sip_flow *from)
{
    struct request *r = of(w, m);
    struct leg *l = &r->leg[from->peer.addr[3]];
    if (m->method == HF_SIP_CANCEL) {
        (void)hf_sip_proxy_response(w->proxy, m, from, w->net.now);
    } else if (m->status < 200) {
        if (l->begun && !l->dead && !l->final && (m->status > 100 || !l->rang)) {
            l->ring_time = m->status > 100 ? w->net.now : l->ring_time;
            l->rang = true;
        }
        (void)hf_sip_proxy_response(w->proxy, m, from, w->net.now);
    } else {
        final_at_proxy(w, r, l, m, from);
    }
}

/* --- clients --- */

static void client_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    transmit(ctx, PROXY, to, message);
}

static void client_begin(struct world *w, struct request *r)
{
    char branch[HF_SIP_OWN_BRANCH_LEN], text[1024];
    const char *method = r->invite ? "INVITE" : "MESSAGE";
    struct hf_sip_flow to = flow_to(CLIENT, r->id, r->tcp); /* the proxy sees it come from there */
    hf_sip_txns_branch(w->clients, branch);
    int n =
        snprintf(text, sizeof(text),
                 "%s sip:bob@h SIP/2.0\r\nVia: SIP/2.0/%s 10.0.1.%u;branch=%.*s\r\n"
                 "Max-Forwards: 70\r\nFrom: <sip:a@h>;tag=a\r\nTo: <sip:bob@h>\r\n"
                 "Call-ID: %u\r\nCSeq: 1 %s\r\nContent-Length: 0\r\n\r\n",
                 method, r->tcp ? "TCP" : "UDP", r->id, (int)sizeof(branch), branch, r->id, method);
    tell(w, "request %u: client begins %s over %s", r->id, method, r->tcp ? "TCP" : "UDP");
    w->ret->figure[REQUESTS]++;
    if (hf_sip_txn_call(w->clients, hf_slice(branch, sizeof(branch)),
                        r->invite ? HF_SIP_INVITE : HF_SIP_MESSAGE, hf_slice(text, (size_t)n), &to,
                        w->net.now, &r->txn)) {
        fail(w, "client", "request %u: could not begin", r->id);
        return;
    }
    r->txn->owner = r;
}

/* ACK of a 2xx goes to the target itself. */
static void client_response(void *ctx, struct hf_sip_txn *x, const struct hf_sip_msg *m,
                            hf_time now)
{
    struct world *w = ctx;
    struct request *r = x->owner;
    struct hf_slice tag = hf_sip_address_tag(&m->to);
    (void)now;
    r->heard = r->heard || m->status >= 200;
    if (r->invite && m->status >= 200 && m->status < 300 && tag.n == 2) {
        unsigned i = tag.p[1] - '0';
        char text[512];
        struct hf_sip_flow to = flow_to(TARGET, i, false);
        int n = snprintf(text, sizeof(text),
                         "ACK sip:bob@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKack\r\n"
                         "From: <sip:a@h>;tag=a\r\nTo: <sip:bob@h>;tag=t%u\r\n"
                         "Call-ID: %u\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
                         i, r->id);
        transmit(w, TARGET, &to, hf_slice(text, (size_t)n));
    }
}

static void client_failed(void *ctx, struct hf_sip_txn *x, uint16_t status, hf_time now)
{
    struct request *r = x->owner;
    (void)now;
    tell(ctx, "request %u: client gives up: %u", r->id, status);
    r->heard = true;
}

static void no_trying(void *ctx, struct hf_sip_txn *x, hf_time now)
{
    (void)ctx;
    (void)x;
    (void)now;
}

static void client_gone(void *ctx, struct hf_sip_txn *x, hf_time now)
{
    struct request *r = x->owner;
    (void)ctx;
    (void)now;
    r->txn = NULL;
}

static const struct hf_sip_txn_ops client_ops = {.send = client_send,
                                                 .response = client_response,
                                                 .failed = client_failed,
                                                 .trying = no_trying,
                                                 .gone = client_gone};

/* --- targets --- */

static void target_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    transmit(ctx, PROXY, to, message);
}

static void target_gone(void *ctx, struct hf_sip_txn *x, hf_time now)
{
    struct leg *l = x->owner;
    (void)ctx;
    (void)now;
    l->txn = NULL;
}

static const struct hf_sip_txn_ops target_ops = {
    .send = target_send, .trying = no_trying, .gone = target_gone};

/* A response to the request of this text; through its transaction, or, of a CANCEL, without. */
static void target_says(struct world *w, struct leg *l, struct hf_slice request, uint16_t status)
{
    char text[2048], tag[8];
    struct hf_wr out;
    struct hf_slice message;
    struct hf_sip_flow from = flow_to(TARGET, l->i, w->target_tcp[l->i]);
    snprintf(tag, sizeof(tag), "t%u", l->i);
    hf_wr_init(&out, text, sizeof(text));
    if (hf_sip_parse(request, false, &w->sent) ||
        hf_sip_begin_response(&out, &w->sent, status, S(""),
                              status > 100 ? hf_slice_str(tag) : S(""), NULL) ||
        hf_sip_end(&out, S(""), S(""), &message)) {
        fail(w, "target", "request %u: can't answer", l->r->id);
        return;
    }
    tell_message(w, status < 200 ? "is told" : "is answered", &w->sent, "by target", l->i);
    if (w->sent.method == HF_SIP_CANCEL) {
        transmit(w, PROXY, &from, message);
    } else if (l->txn) {
        hf_sip_txn_respond(w->targets, l->txn, status, message, w->net.now);
    }
}

static void target_answers(struct world *w, struct leg *l, uint16_t status)
{
    if (l->said_final || !l->txn) {
        return;
    }
    tell(w, "request %u: target %u: %u", l->r->id, l->i, status);
    l->said_final = status >= 200;
    target_says(w, l, hf_slice_str(l->text), status);
    if (l->r->invite && status >= 200 && status < 300) { /* its 2xx is its own to repeat */
        l->interval = HF_MS(500);
        l->until = w->net.now + SEND_TIME;
        sim_net_at(&w->net, w->net.now + l->interval, EV_AGAIN, 0, 0, l);
    }
}

static void target_repeats(struct world *w, struct leg *l)
{
    if (!l->acked && w->net.now < l->until && l->txn) {
        target_says(w, l, hf_slice_str(l->text), 200);
        l->interval = l->interval < HF_S(4) ? l->interval * 2 : HF_S(4);
        sim_net_at(&w->net, w->net.now + l->interval, EV_AGAIN, 0, 0, l);
    }
}

static void target_plans(struct world *w, struct leg *l)
{
    static const hf_time longest[] = {HF_MS(10), HF_S(3), HF_S(20), HF_S(60), HF_S(300)};
    hf_time most = longest[below(w, l->r->invite ? 5 : 3)];
    if (w->deaf[l->i] || below(w, 8) == 0) {
        return; /* never a word */
    }
    for (uint64_t n = below(w, 4); n > 0; n--) {
        sim_net_at(&w->net, w->net.now + (hf_time)below(w, (uint64_t)most), EV_RING, 0, 0, l);
    }
    if (below(w, 8)) {
        sim_net_at(&w->net, w->net.now + (hf_time)below(w, (uint64_t)most), EV_ANSWER, 0, 0, l);
    }
}

static void request_at_target(struct world *w, const struct hf_sip_msg *m, unsigned i,
                              struct hf_slice text)
{
    struct leg *l = &of(w, m)->leg[i];
    struct hf_sip_txn *x = hf_sip_txns_server(w->targets, m);
    struct hf_sip_flow from = flow_to(TARGET, i, w->target_tcp[i]);
    if (m->method == HF_SIP_ACK && !x) {
        l->acked = true;
    } else if (m->method == HF_SIP_CANCEL) {
        if (x && !w->deaf[i]) {
            target_says(w, l, text, 200);
            target_answers(w, l, 487);
        }
    } else if (x) {
        hf_sip_txn_again(w->targets, x, m, w->net.now);
    } else if (!l->has && text.n < sizeof(l->text) &&
               hf_sip_txn_serve(w->targets, m, &from, w->net.now, &l->txn) == 0) {
        l->has = true;
        l->txn->owner = l;
        memcpy(l->text, text.p, text.n);
        target_plans(w, l);
    }
}

static void target_decides(struct world *w, struct leg *l)
{
    static const uint16_t finals[] = {200, 200, 200, 202, 486, 486, 404, 401,
                                      407, 302, 500, 503, 603, 408, 480, 430};
    target_answers(w, l, finals[below(w, HF_ARRAY_LEN(finals))]);
}

/* --- time --- */

static void packet(struct world *w, struct packet *k)
{
    struct hf_sip_msg *m = &w->msg;
    unsigned i = k->flow.peer.addr[3];
    struct hf_slice text = hf_slice(k->text, k->n);
    if (hf_sip_parse(text, true, m)) {
        fail(w, "message", "can't be read: %s", hf_sip_fault_text(m->fault));
    } else if (k->to == TARGET) {
        request_at_target(w, m, i, text);
    } else if (k->to == CLIENT) {
        struct hf_sip_txn *x = hf_sip_txns_client(w->clients, m);
        if (x) {
            hf_sip_txn_answer(w->clients, x, m, w->net.now);
        }
    } else {
        tell_message(w, "proxy gets", m, m->request ? "from client" : "from target", i);
        if (m->request) {
            request_at_proxy(w, m, &k->flow);
        } else {
            response_at_proxy(w, m, &k->flow);
        }
    }
    free(k);
}

static void happen(struct world *w, const struct sim_event *e)
{
    struct request *r = e->data;
    switch ((enum event)e->kind) {
    case EV_BEGIN:
        client_begin(w, r);
        break;
    case EV_CANCEL:
        if (r->txn) {
            tell(w, "request %u: client cancels", r->id);
            hf_sip_txn_cancel(w->clients, r->txn, w->net.now);
        }
        break;
    case EV_PACKET:
        packet(w, e->data);
        break;
    case EV_RING:
        target_answers(w, e->data, below(w, 3) ? 180 : 100);
        break;
    case EV_ANSWER:
        target_decides(w, e->data);
        break;
    case EV_AGAIN:
        target_repeats(w, e->data);
        break;
    case EV_BREAK: {
        struct hf_sip_flow to = flow_to(TARGET, e->host, w->target_tcp[e->host]);
        tell(w, "target %u can't be reached", e->host);
        hf_sip_proxy_unreachable(w->proxy, &to, w->net.now);
        break;
    }
    }
}

/* The next timer of all three, if nothing else comes before. */
static bool tick(struct world *w, hf_time until)
{
    hf_time event = w->net.n_events ? w->net.heap[0].at : HF_NEVER;
    hf_time at =
        hf_time_min(hf_sip_proxy_deadline(w->proxy), hf_time_min(hf_sip_txns_deadline(w->clients),
                                                                 hf_sip_txns_deadline(w->targets)));
    if (at > event || at > until) {
        return false;
    }
    w->net.now = at > w->net.now ? at : w->net.now;
    hf_sip_txns_tick(w->clients, w->net.now);
    hf_sip_txns_tick(w->targets, w->net.now);
    hf_sip_proxy_tick(w->proxy, w->net.now);
    return true;
}

static void check_end(struct world *w)
{
    if (hf_sip_proxy_count(w->proxy) || hf_sip_proxy_bytes(w->proxy) ||
        hf_sip_proxy_deadline(w->proxy) != HF_NEVER) {
        fail(w, "memory", "%zu transactions are left, %zu bytes", hf_sip_proxy_count(w->proxy),
             hf_sip_proxy_bytes(w->proxy));
    }
    for (size_t k = 0; k < N_REQUESTS; k++) {
        const struct request *r = &w->request[k];
        bool all = true, said = false;
        for (size_t i = 0; i < r->n; i++) {
            all = all && r->leg[i].final;
            said = said || (r->leg[i].final && r->leg[i].final != 408);
        }
        if (r->forked && !r->final &&
            (r->invite || (all && said && r->last_final < r->begun + SEND_TIME))) {
            fail(w, "unanswered", "request %u has no answer", r->id);
        }
        if (!r->heard) {
            fail(w, "client", "request %u: its client heard nothing", r->id);
        }
    }
}

static void begin(struct world *w, uint64_t seed)
{
    const struct hf_sip_proxy_conf conf = {.seed = seed, .transactions_max = 4096};
    static const struct hf_sip_proxy_ops ops = {
        .send = proxy_send, .answered = proxy_answered, .failed = proxy_failed};
    sim_net_init(&w->net, N_TARGETS, false, seed);
    w->net.weather = (struct sim_weather){.loss = (uint32_t)below(w, 4) * 1000,
                                          .dup = (uint32_t)below(w, 3) * 1000,
                                          .late = (uint32_t)below(w, 3) * 1000,
                                          .latency = HF_MS(1),
                                          .spread = HF_MS(1 + (hf_time)below(w, 200)),
                                          .late_spread = HF_S(3)};
    if (hf_sip_proxy_create(&conf, &ops, w, &w->proxy) ||
        hf_sip_txns_create(&conf, &client_ops, w, &w->ignored, &w->clients) ||
        hf_sip_txns_create(&conf, &target_ops, w, &w->ignored, &w->targets)) {
        abort();
    }
    for (unsigned i = 0; i < N_TARGETS; i++) {
        w->target_tcp[i] = below(w, 3) == 0;
        w->deaf[i] = below(w, 10) == 0;
        if (below(w, 4) == 0) {
            sim_net_at(&w->net, w->net.now + (hf_time)below(w, (uint64_t)HF_S(60)), EV_BREAK, i, 0,
                       NULL);
        }
    }
    for (unsigned k = 0; k < N_REQUESTS; k++) {
        struct request *r = &w->request[k];
        hf_time at = w->net.now + (hf_time)below(w, (uint64_t)HF_S(60));
        r->id = k;
        r->invite = below(w, 3) != 0;
        r->tcp = below(w, 3) == 0;
        for (unsigned i = 0; i < N_TARGETS; i++) {
            r->leg[i].r = r;
            r->leg[i].i = i;
        }
        sim_net_at(&w->net, at, EV_BEGIN, 0, 0, r);
        if (r->invite && below(w, 3) == 0) {
            sim_net_at(&w->net, at + (hf_time)below(w, (uint64_t)HF_S(10)), EV_CANCEL, 0, 0, r);
        }
    }
}

static void run(uint64_t seed, FILE *trace, struct sim_run *ret)
{
    struct world *w = sim_alloc(sizeof(*w));
    struct sim_event e;
    hf_time until = HF_S(5000);
    w->trace = trace;
    w->ret = ret;
    begin(w, seed);
    while (!ret->why[0]) {
        if (!tick(w, until)) {
            if (!sim_net_next(&w->net, until, &e)) {
                break;
            }
            happen(w, &e);
        }
        check_cancelled(w);
    }
    if (!ret->why[0]) {
        check_end(w);
    }
    while (sim_net_next(&w->net, HF_NEVER, &e)) {
        if (e.kind == EV_PACKET) {
            free(e.data);
        }
    }
    hf_sip_proxy_destroy(w->proxy);
    hf_sip_txns_destroy(w->clients);
    hf_sip_txns_destroy(w->targets);
    sim_net_fini(&w->net);
    free(w);
}

static struct sim_story no_story(size_t i)
{
    (void)i;
    return (struct sim_story){.name = "", .title = ""};
}

static void tell_none(size_t i, FILE *out)
{
    (void)i;
    (void)out;
}

int main(int argc, char **argv)
{
    const struct sim_runner r = {
        .program = "sim-sip-proxy",
        .what = "many small worlds of calls and messages, one seed each",
        .runs = 1000,
        .figures = figures,
        .run = run,
        .prefix = "sip-proxy",
        .story = no_story,
        .tell = tell_none,
    };
    return sim_main(argc, argv, &r);
}
