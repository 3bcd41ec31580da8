#include "core/sip/transaction.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/mem.h"
#include "base/names.h"
#include "base/prng.h"
#include "base/siphash.h"

#define TRANSACTIONS_DEFAULT 65536
#define BYTES_DEFAULT ((size_t)256 << 20)
#define COOKIE_N (sizeof(HF_SIP_COOKIE) - 1)

struct hf_sip_txns {
    struct hf_sip_txn_ops ops; /* ctx and count are borrowed */
    void *ctx;
    struct hf_sip_proxy_counters *count;
    hf_time t1, t2, t4, timer_c;
    hf_time trying; /* a non-INVITE has 100 then (RFC 4320 4.1) */
    size_t max, bytes_max, n, bytes;
    struct hf_sip_txn **bucket; /* owned; mask + 1 */
    size_t mask;
    struct hf_sip_txn **heap; /* owned; by wake() */
    struct hf_list waiting;
    uint8_t secret[HF_SIPHASH_KEY_LEN];
    uint64_t seed, n_branches;
    uint8_t worker;
    struct hf_sip_msg msg; /* a request that was sent, read again */
    uint8_t text[HF_SIP_MESSAGE_MAX];
};

/* --- names --- */

HF_NAMES(hf_sip_txn_kind_name, enum hf_sip_txn_kind, HF_SIP_TXN_KIND_LIST)
HF_NAMES(hf_sip_txn_state_name, enum hf_sip_txn_state, HF_SIP_TXN_STATE_LIST)

/* --- timers --- */

static hf_time wake(const struct hf_sip_txn *x)
{
    return hf_time_min(x->again, x->end);
}

static void put_at(struct hf_sip_txns *t, struct hf_sip_txn *x, size_t i)
{
    t->heap[i] = x;
    x->heap = (uint32_t)i + 1;
}

/* x, whose timers have changed, or which is new at place i, to where it belongs. */
static void sift(struct hf_sip_txns *t, struct hf_sip_txn *x, size_t i)
{
    for (; i > 0 && wake(t->heap[(i - 1) / 2]) > wake(x); i = (i - 1) / 2) {
        put_at(t, t->heap[(i - 1) / 2], i);
    }
    for (size_t c; (c = 2 * i + 1) < t->n; i = c) {
        c += c + 1 < t->n && wake(t->heap[c + 1]) < wake(t->heap[c]);
        if (wake(t->heap[c]) >= wake(x)) {
            break;
        }
        put_at(t, t->heap[c], i);
    }
    put_at(t, x, i);
}

static void set_timers(struct hf_sip_txns *t, struct hf_sip_txn *x, hf_time again, hf_time end)
{
    x->again = again;
    x->end = end;
    sift(t, x, x->heap - 1);
}

/* --- states --- */

#define B(id) (1u << HF_SIP_TXN_##id)
/* Where each may go. */
static const uint16_t allowed[HF_SIP_TXN_KIND_COUNT_][HF_SIP_TXN_STATE_COUNT_] = {
    [HF_SIP_TXN_SERVER_INVITE] =
        {
            [HF_SIP_TXN_NEW] = B(PROCEEDING),
            [HF_SIP_TXN_PROCEEDING] = B(ACCEPTED) | B(COMPLETED) | B(TERMINATED),
            [HF_SIP_TXN_COMPLETED] = B(CONFIRMED) | B(TERMINATED),
            [HF_SIP_TXN_CONFIRMED] = B(TERMINATED),
            [HF_SIP_TXN_ACCEPTED] = B(TERMINATED),
        },
    [HF_SIP_TXN_SERVER] =
        {
            [HF_SIP_TXN_NEW] = B(TRYING),
            [HF_SIP_TXN_TRYING] = B(PROCEEDING) | B(COMPLETED) | B(TERMINATED),
            [HF_SIP_TXN_PROCEEDING] = B(COMPLETED) | B(TERMINATED),
            [HF_SIP_TXN_COMPLETED] = B(TERMINATED),
        },
    [HF_SIP_TXN_CLIENT_INVITE] =
        {
            [HF_SIP_TXN_NEW] = B(CALLING),
            [HF_SIP_TXN_CALLING] = B(PROCEEDING) | B(ACCEPTED) | B(COMPLETED) | B(TERMINATED),
            [HF_SIP_TXN_PROCEEDING] = B(ACCEPTED) | B(COMPLETED) | B(TERMINATED),
            [HF_SIP_TXN_COMPLETED] = B(TERMINATED),
            [HF_SIP_TXN_ACCEPTED] = B(TERMINATED),
        },
    [HF_SIP_TXN_CLIENT] =
        {
            [HF_SIP_TXN_NEW] = B(TRYING),
            [HF_SIP_TXN_TRYING] = B(PROCEEDING) | B(COMPLETED) | B(TERMINATED),
            [HF_SIP_TXN_PROCEEDING] = B(COMPLETED) | B(TERMINATED),
            [HF_SIP_TXN_COMPLETED] = B(TERMINATED),
        },
};
#undef B

static void enter(struct hf_sip_txns *t, struct hf_sip_txn *x, enum hf_sip_txn_state state,
                  hf_time again, hf_time end)
{
    enum hf_sip_txn_state old = x->state;
    assert(allowed[x->kind][old] >> state & 1);
    x->state = state;
    set_timers(t, x, again, end);
    if (t->ops.entered) {
        t->ops.entered(t->ctx, x, old);
    }
}

static bool is_server(const struct hf_sip_txn *x)
{
    return x->kind == HF_SIP_TXN_SERVER_INVITE || x->kind == HF_SIP_TXN_SERVER;
}

/* --- what is kept --- */

int hf_sip_txns_take(struct hf_sip_txns *t, size_t n)
{
    if (n > t->bytes_max || t->bytes > t->bytes_max - n) {
        return -HF_EFULL;
    }
    t->bytes += n;
    return 0;
}

void hf_sip_txns_give(struct hf_sip_txns *t, size_t n)
{
    assert(n <= t->bytes);
    t->bytes -= n;
}

static void forget(struct hf_sip_txns *t, struct hf_sip_txn *x)
{
    hf_sip_txns_give(t, x->n_text);
    hf_free(x->text);
    x->text = NULL;
    x->n_text = 0;
}

static struct hf_slice kept(const struct hf_sip_txn *x)
{
    return hf_slice(x->text, x->n_text);
}

/* This text instead of what was kept; without room that stays: false. */
static bool keep(struct hf_sip_txns *t, struct hf_sip_txn *x, struct hf_slice s)
{
    uint8_t *p;
    if (s.n == 0 || hf_sip_txns_take(t, s.n)) {
        return false;
    }
    p = hf_alloc(s.n);
    if (!p) {
        hf_sip_txns_give(t, s.n);
        return false;
    }
    memcpy(p, s.p, s.n);
    forget(t, x);
    x->text = p;
    x->n_text = (uint32_t)s.n;
    return true;
}

static void send_kept(struct hf_sip_txns *t, const struct hf_sip_txn *x)
{
    if (x->n_text) {
        t->ops.send(t->ctx, &x->flow, kept(x));
    }
}

/* --- life and death --- */

int hf_sip_txns_create(const struct hf_sip_proxy_conf *conf, const struct hf_sip_txn_ops *ops,
                       void *ctx, struct hf_sip_proxy_counters *count,
                       struct hf_sip_txns **ret_txns)
{
    struct hf_prng g;
    struct hf_sip_txns *t = hf_alloc(sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    t->ops = *ops;
    t->ctx = ctx;
    t->count = count;
    t->t1 = conf->t1 ? conf->t1 : HF_MS(500);
    t->t2 = conf->t2 ? conf->t2 : HF_S(4);
    t->t4 = conf->t4 ? conf->t4 : HF_S(5);
    t->timer_c = conf->timer_c ? conf->timer_c : HF_S(180);
    for (hf_time e = t->t1; e < t->t2; e *= 2) {
        t->trying += e;
    }
    t->max = conf->transactions_max ? conf->transactions_max : TRANSACTIONS_DEFAULT;
    t->bytes_max = conf->bytes_max ? conf->bytes_max : BYTES_DEFAULT;
    t->worker = conf->worker;
    hf_prng_init(&g, conf->seed);
    t->seed = hf_prng_u64(&g);
    for (size_t i = 0; i < sizeof(t->secret); i += sizeof(uint64_t)) {
        uint64_t v = hf_prng_u64(&g);
        memcpy(t->secret + i, &v, sizeof(v));
    }
    hf_list_init(&t->waiting);
    for (t->mask = 15; t->mask < t->max; t->mask = t->mask * 2 + 1) {
    }
    t->bucket = hf_alloc_array(t->mask + 1, sizeof(*t->bucket));
    t->heap = hf_alloc_array(t->max, sizeof(struct hf_sip_txn *));
    if (!t->bucket || !t->heap || t->max > UINT32_MAX - 1) {
        hf_sip_txns_destroy(t);
        return -ENOMEM;
    }
    *ret_txns = t;
    return 0;
}

void hf_sip_txns_destroy(struct hf_sip_txns *t)
{
    if (!t) {
        return;
    }
    for (size_t i = 0; t->heap && i < t->n; i++) {
        hf_free(t->heap[i]->text);
        hf_free(t->heap[i]);
    }
    hf_free(t->bucket);
    hf_free(t->heap);
    hf_free(t);
}

static struct hf_sip_txn *find(const struct hf_sip_txns *t, const uint64_t key[2])
{
    struct hf_sip_txn *x = t->bucket[key[0] & t->mask];
    while (x && (x->key[0] != key[0] || x->key[1] != key[1])) {
        x = x->next;
    }
    return x;
}

static int make(struct hf_sip_txns *t, enum hf_sip_txn_kind kind, const uint64_t key[2],
                const struct hf_sip_flow *flow, struct hf_sip_txn **ret_txn)
{
    struct hf_sip_txn *x;
    if (t->n >= t->max || hf_sip_txns_take(t, sizeof(*x))) {
        return -HF_EFULL;
    }
    x = hf_alloc(sizeof(*x));
    if (!x) {
        hf_sip_txns_give(t, sizeof(*x));
        return -ENOMEM;
    }
    x->kind = (uint8_t)kind;
    x->state = HF_SIP_TXN_NEW;
    x->flow = *flow;
    x->reliable = flow->transport != HF_SIP_TRANSPORT_UDP;
    x->key[0] = key[0];
    x->key[1] = key[1];
    x->next = t->bucket[key[0] & t->mask];
    t->bucket[key[0] & t->mask] = x;
    x->again = x->end = HF_NEVER;
    hf_list_init(&x->waiting);
    put_at(t, x, t->n);
    sift(t, x, t->n++);
    *ret_txn = x;
    return 0;
}

static void destroy(struct hf_sip_txns *t, struct hf_sip_txn *x)
{
    struct hf_sip_txn **at = &t->bucket[x->key[0] & t->mask];
    while (*at != x) {
        at = &(*at)->next;
    }
    *at = x->next;
    struct hf_sip_txn *last = t->heap[--t->n];
    if (last != x) {
        size_t i = x->heap - 1;
        put_at(t, last, i);
        sift(t, last, i);
    }
    hf_list_unlink(&x->waiting);
    forget(t, x);
    hf_sip_txns_give(t, sizeof(*x));
    hf_free(x);
}

void hf_sip_txn_drop(struct hf_sip_txns *t, struct hf_sip_txn *x, hf_time now)
{
    if (x->state != HF_SIP_TXN_TERMINATED) {
        enter(t, x, HF_SIP_TXN_TERMINATED, HF_NEVER, now);
    }
}

/* --- server --- */

/* The host of sent-by in one case; what is longer than any name counts as it is. */
static void add_lower(struct hf_hash_stream *h, struct hf_slice s)
{
    uint8_t lower[256];
    for (size_t i = 0; i < s.n && s.n <= sizeof(lower); i++) {
        lower[i] = hf_sip_lower(s.p[i]);
    }
    hf_hash_stream_add(h, s.n <= sizeof(lower) ? hf_slice(lower, s.n) : s);
    hf_hash_stream_add(h, hf_slice("", 1));
}

/* 17.2.3. Of RFC 2543's all that INVITE, ACK and CANCEL have in common. */
static void server_key(const struct hf_sip_txns *t, const struct hf_sip_msg *m, uint64_t ret_key[2])
{
    struct hf_hash_stream h;
    bool invite = m->method == HF_SIP_INVITE || m->method == HF_SIP_ACK;
    hf_hash_stream_init(&h, t->seed);
    hf_hash_stream_add(&h, invite || m->method == HF_SIP_CANCEL ? hf_slice_str("INVITE")
                                                                : m->method_text);
    hf_hash_stream_add(&h, hf_slice("", 1));
    if (hf_sip_via_is_3261(&m->via)) {
        hf_hash_stream_add(&h, hf_slice(&m->via.sent_by.port, sizeof(m->via.sent_by.port)));
        add_lower(&h, m->via.sent_by.text);
        hf_hash_stream_add(&h, m->via.branch);
    } else {
        const struct hf_slice part[] = {m->via.text, m->uri_text, hf_sip_address_tag(&m->from),
                                        m->call_id};
        for (size_t i = 0; i < HF_ARRAY_LEN(part); i++) {
            hf_hash_stream_add(&h, part[i]);
            hf_hash_stream_add(&h, hf_slice("", 1));
        }
        hf_hash_stream_add(&h, hf_slice(&m->cseq, sizeof(m->cseq)));
    }
    hf_hash_stream_get(&h, ret_key);
}

struct hf_sip_txn *hf_sip_txns_server(const struct hf_sip_txns *t, const struct hf_sip_msg *request)
{
    uint64_t key[2];
    struct hf_sip_txn *x;
    server_key(t, request, key);
    x = find(t, key);
    return x && is_server(x) ? x : NULL;
}

struct hf_sip_flow hf_sip_flow_back(const struct hf_sip_msg *m, const struct hf_sip_flow *from)
{
    struct hf_sip_flow to = *from;
    if (from->transport == HF_SIP_TRANSPORT_UDP && !m->via.has_rport) {
        to.peer.port =
            m->via.sent_by.port ? m->via.sent_by.port : hf_sip_transport_port(from->transport);
    }
    return to;
}

int hf_sip_txn_serve(struct hf_sip_txns *t, const struct hf_sip_msg *request,
                     const struct hf_sip_flow *from, hf_time now, struct hf_sip_txn **ret_txn)
{
    uint64_t key[2];
    struct hf_sip_txn *x;
    struct hf_sip_flow to = hf_sip_flow_back(request, from);
    bool invite = request->method == HF_SIP_INVITE;
    server_key(t, request, key);
    int rc = make(t, invite ? HF_SIP_TXN_SERVER_INVITE : HF_SIP_TXN_SERVER, key, &to, &x);
    if (rc) {
        return rc;
    }
    x->method = (uint8_t)request->method;
    if (invite) {
        enter(t, x, HF_SIP_TXN_PROCEEDING, HF_NEVER, HF_NEVER);
    } else {
        enter(t, x, HF_SIP_TXN_TRYING, now + t->trying, now + 64 * t->t1);
    }
    *ret_txn = x;
    return 0;
}

bool hf_sip_txn_again(struct hf_sip_txns *t, struct hf_sip_txn *x, const struct hf_sip_msg *request,
                      hf_time now)
{
    if (request->method == HF_SIP_ACK) {
        if (x->state == HF_SIP_TXN_ACCEPTED) {
            return false; /* of an old client, or of a proxy's: it is the dialog's */
        }
        if (x->state == HF_SIP_TXN_COMPLETED) {
            forget(t, x);
            enter(t, x, HF_SIP_TXN_CONFIRMED, HF_NEVER, x->reliable ? now : now + t->t4);
        }
        return true;
    }
    t->count->absorbed++;
    if (x->state != HF_SIP_TXN_TERMINATED) {
        send_kept(t, x); /* the last 1xx or the final one; none in ACCEPTED (RFC 6026 7.1) */
    }
    return true;
}

static bool respond_invite(struct hf_sip_txns *t, struct hf_sip_txn *x, uint16_t status,
                           struct hf_slice message, hf_time now)
{
    if (x->state == HF_SIP_TXN_ACCEPTED && status / 100 == 2) {
        /* Of another branch: as long again, so that it comes through whenever it is repeated. */
        set_timers(t, x, HF_NEVER, now + 64 * t->t1);
        return true;
    }
    if (x->state != HF_SIP_TXN_PROCEEDING) {
        return false;
    }
    if (status < 200) {
        (void)keep(t, x, message);
    } else if (status < 300) {
        forget(t, x);
        enter(t, x, HF_SIP_TXN_ACCEPTED, HF_NEVER, now + 64 * t->t1);
    } else {
        bool again = keep(t, x, message) && !x->reliable;
        x->interval = t->t1;
        enter(t, x, HF_SIP_TXN_COMPLETED, again ? now + t->t1 : HF_NEVER, now + 64 * t->t1);
    }
    return true;
}

static bool respond_other(struct hf_sip_txns *t, struct hf_sip_txn *x, uint16_t status,
                          struct hf_slice message, hf_time now)
{
    if (x->state != HF_SIP_TXN_TRYING && x->state != HF_SIP_TXN_PROCEEDING) {
        return false;
    }
    if (status < 200) {
        (void)keep(t, x, message);
        if (x->state == HF_SIP_TXN_TRYING) {
            enter(t, x, HF_SIP_TXN_PROCEEDING, HF_NEVER, x->end);
        }
    } else if (x->reliable) {
        forget(t, x);
        enter(t, x, HF_SIP_TXN_COMPLETED, HF_NEVER, now);
    } else {
        if (!keep(t, x, message)) {
            forget(t, x); /* no 100 behind a final one */
        }
        enter(t, x, HF_SIP_TXN_COMPLETED, HF_NEVER, now + 64 * t->t1);
    }
    return true;
}

bool hf_sip_txn_respond(struct hf_sip_txns *t, struct hf_sip_txn *x, uint16_t status,
                        struct hf_slice message, hf_time now)
{
    assert(is_server(x) && status >= 100 && status < 700);
    bool send = x->kind == HF_SIP_TXN_SERVER_INVITE ? respond_invite(t, x, status, message, now)
                                                    : respond_other(t, x, status, message, now);
    if (send) {
        t->ops.send(t->ctx, &x->flow, message);
    }
    return send;
}

/* --- client --- */

/* Lower case, as we write it. */
static bool take_hex(const uint8_t *p, size_t n, uint64_t *ret_v)
{
    *ret_v = 0;
    for (size_t i = 0; i < n; i++) {
        int digit = hf_hex_value(p[i]);
        if (digit < 0 || (p[i] >= 'A' && p[i] <= 'F')) {
            return false;
        }
        *ret_v = *ret_v << 4 | (uint64_t)digit;
    }
    return true;
}

/* The cookie, worker (2), SipHash of a count (16), its last byte (2). */
static bool take_branch(struct hf_slice s, uint64_t *ret_worker, uint64_t ret_key[2])
{
    return s.n == HF_SIP_OWN_BRANCH_LEN && memcmp(s.p, HF_SIP_COOKIE, COOKIE_N) == 0 &&
           take_hex(s.p + COOKIE_N, 2, ret_worker) && take_hex(s.p + COOKIE_N + 2, 16, ret_key) &&
           take_hex(s.p + COOKIE_N + 18, 2, ret_key + 1);
}

int hf_sip_branch_worker(struct hf_slice branch)
{
    uint64_t worker, key[2];
    return take_branch(branch, &worker, key) ? (int)worker : -1;
}

void hf_sip_txns_branch(struct hf_sip_txns *t, char ret_branch[HF_SIP_OWN_BRANCH_LEN])
{
    uint64_t n = t->n_branches++, unknown;
    uint8_t tag[HF_SIPHASH_LEN]; /* of a count: nobody can guess it */
    hf_siphash(t->secret, hf_slice(&n, sizeof(n)), tag);
    memcpy(&unknown, tag, sizeof(unknown));
    memcpy(ret_branch, HF_SIP_COOKIE, COOKIE_N);
    hf_hex_put_u64(t->worker, 2, ret_branch + COOKIE_N);
    hf_hex_put_u64(unknown, 16, ret_branch + COOKIE_N + 2);
    hf_hex_put_u64(n, 2, ret_branch + COOKIE_N + 18);
}

struct hf_sip_txn *hf_sip_txns_client(const struct hf_sip_txns *t,
                                      const struct hf_sip_msg *response)
{
    uint64_t worker, key[2];
    struct hf_sip_txn *x;
    if (!take_branch(response->via.branch, &worker, key) || worker != t->worker) {
        return NULL;
    }
    x = find(t, key);
    if (!x || is_server(x) ||
        (x->method != response->method &&
         !(x->kind == HF_SIP_TXN_CLIENT_INVITE && response->method == HF_SIP_CANCEL))) {
        return NULL;
    }
    return x;
}

/* ACK (17.1.1.3; To is the response's) or CANCEL (9.1) of the INVITE, or CANCEL, that is kept. In
 * t->text; empty: it can't be made. */
static struct hf_slice make_like(struct hf_sip_txns *t, struct hf_slice invite, const char *method,
                                 const struct hf_sip_msg *response)
{
    struct hf_wr w;
    struct hf_slice message;
    const struct hf_sip_msg *m = &t->msg;
    if (invite.n == 0 ||
        (hf_sip_parse(invite, false, &t->msg) && m->fault != HF_SIP_FAULT_SCHEME)) {
        return hf_slice(NULL, 0);
    }
    hf_wr_init(&w, t->text, sizeof(t->text));
    hf_sip_put_str(&w, method);
    hf_sip_put_str(&w, " ");
    hf_wr_bytes(&w, m->uri_text);
    hf_sip_put_str(&w, " SIP/2.0\r\n");
    hf_sip_put_field(&w, HF_SIP_H_VIA, m->via.text);
    hf_sip_put_copies(&w, m, HF_SIP_H_ROUTE);
    hf_sip_put_number(&w, HF_SIP_H_MAX_FORWARDS, 70);
    hf_sip_put_copies(&w, m, HF_SIP_H_FROM);
    hf_sip_put_copies(&w, response ? response : m, HF_SIP_H_TO);
    hf_sip_put_copies(&w, m, HF_SIP_H_CALL_ID);
    hf_sip_put_name(&w, HF_SIP_H_CSEQ);
    hf_sip_put_u64(&w, m->cseq);
    hf_sip_put_str(&w, " ");
    hf_sip_put_str(&w, method);
    hf_sip_put_eol(&w);
    return hf_sip_end(&w, hf_slice(NULL, 0), hf_slice(NULL, 0), &message) ? hf_slice(NULL, 0)
                                                                          : message;
}

/* Of the INVITE only what cancels it is wanted from now on. */
static void shorten(struct hf_sip_txns *t, struct hf_sip_txn *x, struct hf_slice invite)
{
    x->cancel_text = x->cancel_text || keep(t, x, make_like(t, invite, "CANCEL", NULL));
}

int hf_sip_txn_call(struct hf_sip_txns *t, struct hf_slice branch, enum hf_sip_method method,
                    struct hf_slice message, const struct hf_sip_flow *to, hf_time now,
                    struct hf_sip_txn **ret_txn)
{
    uint64_t worker, key[2];
    struct hf_sip_txn *x;
    bool invite = method == HF_SIP_INVITE;
    if (!take_branch(branch, &worker, key) || worker != t->worker || find(t, key)) {
        return -HF_EMALF;
    }
    int rc = make(t, invite ? HF_SIP_TXN_CLIENT_INVITE : HF_SIP_TXN_CLIENT, key, to, &x);
    if (rc) {
        return rc;
    }
    x->method = (uint8_t)method;
    if (x->reliable && invite) {
        shorten(t, x, message);
    }
    if (!x->n_text && (invite || !x->reliable) && !keep(t, x, message)) {
        destroy(t, x);
        return -ENOMEM;
    }
    x->interval = t->t1;
    hf_list_insert(&t->waiting, &x->waiting);
    enter(t, x, invite ? HF_SIP_TXN_CALLING : HF_SIP_TXN_TRYING,
          x->reliable ? HF_NEVER : now + t->t1, now + 64 * t->t1);
    t->ops.send(t->ctx, &x->flow, message);
    *ret_txn = x;
    return 0;
}

static void send_cancel(struct hf_sip_txns *t, struct hf_sip_txn *x, hf_time now)
{
    shorten(t, x, kept(x));
    x->cancelling = true;
    if (x->cancel_text) {
        send_kept(t, x);
    } else { /* no room for it: once, at least */
        struct hf_slice s = make_like(t, kept(x), "CANCEL", NULL);
        if (s.n) {
            t->ops.send(t->ctx, &x->flow, s);
        }
    }
    x->interval = t->t1;
    hf_list_insert(&t->waiting, &x->waiting); /* in PROCEEDING it was on no list */
    set_timers(t, x, x->reliable || !x->cancel_text ? HF_NEVER : now + t->t1, now + 64 * t->t1);
}

void hf_sip_txn_cancel(struct hf_sip_txns *t, struct hf_sip_txn *x, hf_time now)
{
    if (x->kind != HF_SIP_TXN_CLIENT_INVITE || x->cancel) {
        return;
    }
    x->cancel = true;
    if (x->state == HF_SIP_TXN_PROCEEDING) {
        send_cancel(t, x, now);
    }
}

/* 17.1.1.3. For want of room it is sent once only. */
static void acknowledge(struct hf_sip_txns *t, struct hf_sip_txn *x, const struct hf_sip_msg *m)
{
    struct hf_slice ack = make_like(t, kept(x), "ACK", m);
    forget(t, x);
    if (ack.n) {
        (void)(x->reliable || keep(t, x, ack));
        t->ops.send(t->ctx, &x->flow, ack);
    }
}

static void fail_invite(struct hf_sip_txns *t, struct hf_sip_txn *x, const struct hf_sip_msg *m,
                        hf_time now)
{
    if (x->state == HF_SIP_TXN_COMPLETED) {
        send_kept(t, x);
    } else if (x->state != HF_SIP_TXN_ACCEPTED) {
        enter(t, x, HF_SIP_TXN_COMPLETED, HF_NEVER, x->reliable ? now : now + 64 * t->t1);
        acknowledge(t, x, m);
        t->ops.response(t->ctx, x, m, now);
    }
}

static void accept_invite(struct hf_sip_txns *t, struct hf_sip_txn *x, const struct hf_sip_msg *m,
                          hf_time now)
{
    if (x->state == HF_SIP_TXN_COMPLETED) {
        return;
    }
    if (x->state != HF_SIP_TXN_ACCEPTED) {
        forget(t, x);
        enter(t, x, HF_SIP_TXN_ACCEPTED, HF_NEVER, now + 64 * t->t1);
    }
    t->ops.response(t->ctx, x, m, now);
}

static void proceed_invite(struct hf_sip_txns *t, struct hf_sip_txn *x, const struct hf_sip_msg *m,
                           hf_time now)
{
    if (x->state == HF_SIP_TXN_CALLING) {
        /* C counts from the beginning, or from the last 1xx that is not 100 (16.7 step 2) */
        shorten(t, x, kept(x));
        enter(t, x, HF_SIP_TXN_PROCEEDING, HF_NEVER, x->end - 64 * t->t1 + t->timer_c);
    } else if (x->state != HF_SIP_TXN_PROCEEDING) {
        return;
    }
    if (m->status > 100 && !x->cancelling) {
        set_timers(t, x, HF_NEVER, now + t->timer_c);
    }
    t->ops.response(t->ctx, x, m, now);
    if (x->cancel && !x->cancelling) {
        send_cancel(t, x, now);
    }
}

static void answer_other(struct hf_sip_txns *t, struct hf_sip_txn *x, const struct hf_sip_msg *m,
                         hf_time now)
{
    if (x->state != HF_SIP_TXN_TRYING && x->state != HF_SIP_TXN_PROCEEDING) {
        return;
    }
    if (m->status >= 200) {
        forget(t, x);
        enter(t, x, HF_SIP_TXN_COMPLETED, HF_NEVER, x->reliable ? now : now + t->t4);
    } else if (x->state == HF_SIP_TXN_TRYING) {
        x->interval = t->t2;
        enter(t, x, HF_SIP_TXN_PROCEEDING, x->again, x->end);
    }
    t->ops.response(t->ctx, x, m, now);
}

void hf_sip_txn_answer(struct hf_sip_txns *t, struct hf_sip_txn *x,
                       const struct hf_sip_msg *response, hf_time now)
{
    assert(!is_server(x));
    if (x->state == HF_SIP_TXN_TERMINATED) {
        return;
    }
    if (x->kind == HF_SIP_TXN_CLIENT_INVITE && response->method == HF_SIP_CANCEL) {
        if (x->state == HF_SIP_TXN_PROCEEDING && x->cancelling) {
            x->interval = t->t2;
            set_timers(t, x, response->status < 200 ? x->again : HF_NEVER, x->end);
        }
        return;
    }
    if (response->status >= 200 || !x->cancelling) {
        hf_list_unlink(&x->waiting);
    }
    if (x->kind == HF_SIP_TXN_CLIENT) {
        answer_other(t, x, response, now);
    } else if (response->status < 200) {
        proceed_invite(t, x, response, now);
    } else if (response->status < 300) {
        accept_invite(t, x, response, now);
    } else {
        fail_invite(t, x, response, now);
    }
}

static void fail(struct hf_sip_txns *t, struct hf_sip_txn *x, uint16_t status, hf_time now)
{
    hf_sip_txn_drop(t, x, now);
    t->ops.failed(t->ctx, x, status, now);
}

/* Is it sent from the address from which nothing can be sent? With none named, from any. */
static bool from_there(const struct hf_sip_flow *flow, const struct hf_sip_flow *to)
{
    return to->local.family == HF_AF_NONE || flow->local.family == HF_AF_NONE ||
           hf_endpoint_eq(&flow->local, &to->local);
}

void hf_sip_txns_unreachable(struct hf_sip_txns *t, const struct hf_sip_flow *to, hf_time now)
{
    const struct hf_list *last = t->waiting.prev; /* what is begun meanwhile tries it anew */
    bool more = !hf_list_empty(&t->waiting);
    for (struct hf_list *it = t->waiting.next; more; it = it->next) {
        struct hf_sip_txn *x = HF_CONTAINER_OF(it, struct hf_sip_txn, waiting);
        more = it != last;
        bool same = x->flow.conn
                        ? x->flow.conn == to->conn
                        : x->flow.transport == to->transport &&
                              hf_endpoint_eq(&x->flow.peer, &to->peer) && from_there(&x->flow, to);
        if (same && x->state != HF_SIP_TXN_TERMINATED) {
            fail(t, x, 503, now);
        }
    }
}

/* --- time --- */

/* A, E, G, or RFC 4320's 100. */
static void repeat(struct hf_sip_txns *t, struct hf_sip_txn *x, hf_time now)
{
    if (x->kind == HF_SIP_TXN_SERVER && x->state == HF_SIP_TXN_TRYING) {
        set_timers(t, x, HF_NEVER, x->end);
        t->ops.trying(t->ctx, x, now);
        return;
    }
    x->interval *= 2;
    if (x->state != HF_SIP_TXN_CALLING && x->interval > t->t2) {
        x->interval = t->t2;
    }
    set_timers(t, x, now + x->interval, x->end);
    if (!is_server(x)) {
        t->count->retransmitted++;
    }
    send_kept(t, x);
}

static void run_out(struct hf_sip_txns *t, struct hf_sip_txn *x, hf_time now)
{
    switch (x->state) {
    case HF_SIP_TXN_CALLING:
    case HF_SIP_TXN_TRYING:
    case HF_SIP_TXN_PROCEEDING:
        if (x->kind == HF_SIP_TXN_CLIENT_INVITE && x->state == HF_SIP_TXN_PROCEEDING &&
            !x->cancelling) {
            x->cancel = true; /* C (16.8) */
            send_cancel(t, x, now);
        } else if (!is_server(x)) {
            t->count->timeouts++;
            fail(t, x, 408, now); /* B, F; or it ignores our CANCEL */
        } else {
            hf_sip_txn_drop(t, x, now); /* RFC 4320 4.2 */
        }
        break;
    case HF_SIP_TXN_TERMINATED:
        t->ops.gone(t->ctx, x, now);
        destroy(t, x);
        break;
    default: /* D, H to M */
        hf_sip_txn_drop(t, x, now);
        break;
    }
}

void hf_sip_txns_tick(struct hf_sip_txns *t, hf_time now)
{
    while (t->n && wake(t->heap[0]) <= now) {
        struct hf_sip_txn *x = t->heap[0];
        if (x->end <= now) {
            run_out(t, x, now);
        } else {
            repeat(t, x, now);
        }
    }
}

hf_time hf_sip_txns_deadline(const struct hf_sip_txns *t)
{
    return t->n ? wake(t->heap[0]) : HF_NEVER;
}

size_t hf_sip_txns_count(const struct hf_sip_txns *t)
{
    return t->n;
}

bool hf_sip_txns_room(const struct hf_sip_txns *t, size_t n)
{
    return n <= t->max && t->n <= t->max - n;
}

size_t hf_sip_txns_bytes(const struct hf_sip_txns *t)
{
    return t->bytes;
}
