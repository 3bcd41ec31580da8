/* SIP transactions, and the proxy on top of them: a request is forked to targets, the best answer
 * goes back. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "base/slice.h"
#include "core/sip/flow.h"
#include "core/sip/message.h"
#include "core/sip/write.h"

/*
 * RFC 3261 16 and 17 with RFC 6026 (INVITE 2xx) and RFC 4320 (non-INVITE): used where S4 wants
 * state: from the home to the bindings, and for requests of our own (NOTIFY). What goes towards a
 * home is stateless and does not come here. The transactions themselves are in transaction.h.
 *
 * One server transaction has one response context: its targets in groups of falling q; a group is
 * tried together, the next one when all of a group have answered without success (16.6, 16.7). 6xx
 * and the client's CANCEL begin no more and cancel what is pending; 2xx of an INVITE passes at once
 * and cancels the rest. When all have answered the best response goes back (16.7 step 6): 6xx, then
 * the lowest class; of one class 401 and 407 (with the challenges of all of them), 415, 420, 484,
 * the first of the others, 487 and 408; 430 and 503 are behind all 5xx. 503 goes back as 500
 * (16.7), 430 as 480 (RFC 5626), 408 of a request that was cancelled as 487. 408 is never sent to a
 * non-INVITE, nor is a provisional response but 100, after 3.5 s (RFC 4320). 3xx of a branch is not
 * recursed.
 *
 * Targets that are tried together share the request's Max-Breadth (RFC 5393); more than it
 * allows are tried after the others. A request that comes round to be forked again (the same by
 * hf_sip_loop_hash(), which our Vias carry) is answered with 482.
 *
 * Branches that we make begin with the cookie, then two hex digits of `worker`, then what finds the
 * transaction and can't be guessed: hf_sip_branch_worker() tells whose a response is.
 *
 * Memory is bounded (limits); full: 503 by the caller's hand. Nothing but the callbacks below goes
 * out, and these must not call back in. Everything that ends is freed in hf_sip_proxy_tick(),
 * nothing elsewhere.
 */
struct hf_sip_proxy;

/** What the driver does; all messages are borrowed for the call. */
struct hf_sip_proxy_ops {
    /** Send this there. */
    void (*send)(void *ctx, const struct hf_sip_flow *to, struct hf_slice message);
    /** A request of our own has its final answer (408: none came; 503: could not be sent). msg:
     * the response or NULL. cookie: as given. The next one may be begun in it. */
    void (*answered)(void *ctx, uint64_t cookie, uint16_t status, const struct hf_sip_msg *msg);
    /** A target answered 408, 430 or 503, or nothing (408), or could not be reached (503). 430: its
     * flow is no more (RFC 5626 5.3.1), as an edge says, or as its connection is closed: nothing
     * finds it by that any more. The others may be of a moment. aor and cookie: the target's; aor
     * is empty when the request has been answered already. */
    void (*failed)(void *ctx, struct hf_slice aor, uint64_t cookie, uint16_t status);
};

/** One place a request goes to. All borrowed for the call. */
struct hf_sip_target {
    struct hf_slice uri;     /* the new Request-URI */
    struct hf_slice route;   /* Route values to put on top (Path of the binding); empty: none */
    uint16_t q;              /* thousandths */
    struct hf_sip_flow to;   /* next hop, resolved */
    uint64_t cookie;         /* for failed(), with */
    struct hf_slice aor;     /* whose it is: all of a request have the same one, or none */
    uint32_t agent;          /* not 0: targets of one number are flows to one agent (RFC 5626): the
                              * next one is tried only when one is broken, as failed() tells */
    struct hf_slice sent_by; /* of our Via towards it; empty: as in `how` */
    struct hf_slice branch;  /* of hf_sip_proxy_branch(), for `fields`; empty: a new one is made */
    struct hf_slice fields;  /* more lines of its request, which may depend on the branch */
};

struct hf_sip_proxy_conf {
    uint8_t worker;
    uint64_t seed;           /* secret, another one at each start, and used for nothing else */
    size_t transactions_max; /* server and client ones together; 0: 65536 */
    size_t bytes_max;        /* of all that is kept; 0: 256 MB */
    hf_time t1, t2, t4;      /* 0: 500 ms, 4 s, 5 s */
    hf_time timer_c;         /* 0: 180 s */
};

#define HF_SIP_PROXY_COUNTER_LIST(X)                                                               \
    X(proxied, "requests forked statefully")                                                       \
    X(branches, "... as so many branches")                                                         \
    X(own, "requests of our own")                                                                  \
    X(retransmitted, "requests sent again")                                                        \
    X(absorbed, "retransmissions absorbed")                                                        \
    X(stray, "responses that belong to nothing")                                                   \
    X(timeouts, "branches without an answer")                                                      \
    X(cancelled, "requests cancelled by the client")                                               \
    X(looped, "requests that came round")                                                          \
    X(full, "requests refused for want of room")
struct hf_sip_proxy_counters {
#define HF_SIP_PROXY_COUNTER_FIELD(name, text) uint64_t name;
    HF_SIP_PROXY_COUNTER_LIST(HF_SIP_PROXY_COUNTER_FIELD)
#undef HF_SIP_PROXY_COUNTER_FIELD
};

HF_MUST int hf_sip_proxy_create(const struct hf_sip_proxy_conf *conf,
                                const struct hf_sip_proxy_ops *ops, void *ctx,
                                struct hf_sip_proxy **ret_proxy);
void hf_sip_proxy_destroy(struct hf_sip_proxy *p);

/**
 * Does a request (without fault) belong to a server transaction that is there: a retransmission
 * (answered again), an ACK of a non-2xx, a CANCEL (answered, and branches are cancelled)? true: it
 * is dealt with. An ACK of a 2xx, a CANCEL that matches nothing: false.
 */
bool hf_sip_proxy_absorb(struct hf_sip_proxy *p, const struct hf_sip_msg *request,
                         const struct hf_sip_flow *from, hf_time now);
/** A response whose topmost Via is ours with this worker's branch: true: it was of one of our
 * transactions; false: relay it statelessly, if its branch is a stateless one, or drop it. */
bool hf_sip_proxy_response(struct hf_sip_proxy *p, const struct hf_sip_msg *response,
                           const struct hf_sip_flow *from, hf_time now);
/**
 * Begin: a server transaction for this request, forked to n targets (at least 1; more than
 * HF_SIP_CONTACTS_MAX are cut off). how: sent_by etc. of our Via and Record-Route; its uri, route,
 * branch, transport and source are filled here for each branch. 100 goes back at once for INVITE.
 * from: where it came from; responses go there, to the port of sent-by if it has no rport
 * (18.2.2). A request that is here already is absorbed. 0; or nothing was begun: -HF_EFULL,
 * -ENOMEM, -HF_EVALUE: ACK, CANCEL, faulty, or Max-Forwards is 0 (483 is the caller's).
 */
HF_MUST int hf_sip_proxy_fork(struct hf_sip_proxy *p, const struct hf_sip_msg *request,
                              const struct hf_sip_flow *from, const struct hf_sip_forward *how,
                              const struct hf_sip_target *target, size_t n, hf_time now);
/** A final response of our own to an INVITE that is to be retransmitted until its ACK (server
 * transaction without branches). message: as written. 0; -HF_EFULL, -ENOMEM, -HF_EVALUE: ACK,
 * CANCEL, faulty. */
HF_MUST int hf_sip_proxy_reply(struct hf_sip_proxy *p, const struct hf_sip_msg *request,
                               const struct hf_sip_flow *from, uint16_t status,
                               struct hf_slice message, hf_time now);
/** A branch for a request of our own, to be written into its Via before hf_sip_proxy_own(); or for
 * one target. */
#define HF_SIP_OWN_BRANCH_LEN 27
void hf_sip_proxy_branch(struct hf_sip_proxy *p, char ret_branch[HF_SIP_OWN_BRANCH_LEN]);
/** Send a (non-INVITE) request of our own, as written with that branch, until it is answered:
 * ops->answered(cookie). 0; -HF_EFULL, -ENOMEM, -HF_EMALF: not such a message. */
HF_MUST int hf_sip_proxy_own(struct hf_sip_proxy *p, struct hf_slice message,
                             const struct hf_sip_flow *to, uint64_t cookie, hf_time now);
/** The transport could not deliver to this flow (connection refused, closed): branches on it that
 * have no answer yet, or were cancelled, fail as with 503. What rings goes on: its answer may come
 * by another connection (18.2.2). to: with conn, or with transport and peer. */
void hf_sip_proxy_unreachable(struct hf_sip_proxy *p, const struct hf_sip_flow *to, hf_time now);

void hf_sip_proxy_tick(struct hf_sip_proxy *p, hf_time now);
hf_time hf_sip_proxy_deadline(const struct hf_sip_proxy *p);
/** Transactions that are there, and bytes of all that is kept. */
size_t hf_sip_proxy_count(const struct hf_sip_proxy *p);
size_t hf_sip_proxy_bytes(const struct hf_sip_proxy *p);
const struct hf_sip_proxy_counters *hf_sip_proxy_counters(const struct hf_sip_proxy *p);

/** The worker whose transaction made this branch; -1: not one of ours with state. */
int hf_sip_branch_worker(struct hf_slice branch);

/** Where the response to a request goes that came by `from` (RFC 3261 18.2.2, RFC 3581 4; never to
 * maddr). */
struct hf_sip_flow hf_sip_flow_back(const struct hf_sip_msg *request,
                                    const struct hf_sip_flow *from);
