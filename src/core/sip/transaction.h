/* SIP transactions: what is sent again until it is answered, and what is answered again (RFC 3261
 * 17). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/list.h"
#include "core/sip/proxy.h"

/*
 * RFC 3261 17 as changed by RFC 6026 (ACCEPTED: 2xx of INVITE) and RFC 4320 (100 to a non-INVITE,
 * and its end). The user is the proxy core (proxy.c). Timers in [], those of unreliable transports
 * with *; what they do on time-out behind the arrow.
 *
 *   server INVITE (figure 7)                     server non-INVITE (figure 8)
 *
 *     INVITE                                       request
 *       |                                            |
 *   PROCEEDING -- 2xx --> ACCEPTED [L] --> end      TRYING [64 T1 --> end][3.5 s --> 100]
 *       |                                            |   `- 1xx -> PROCEEDING [64 T1 --> end]
 *     300-699                                      200-699           |
 *       v                                            v       200-699 |
 *   COMPLETED [G* --> again][H --> end]            COMPLETED [J] <---'
 *       | ACK                                        `--> end
 *   CONFIRMED [I] --> end
 *
 *   client INVITE (figure 5)                     client non-INVITE (figure 6)
 *
 *   CALLING [A* --> again][B --> 408]            TRYING [E* --> again][F --> 408]
 *       | 1xx                                        | 1xx
 *   PROCEEDING [C --> CANCEL]                    PROCEEDING [E* --> again][F --> 408]
 *       |      `- 2xx --> ACCEPTED [M] --> end       | 200-699
 *     300-699: ACK                                 COMPLETED [K] --> end
 *   COMPLETED [D] --> end
 *
 * C is the proxy's (16.6 step 11). A CANCEL is part of its INVITE here: it waits for PROCEEDING
 * (9.1), is sent again by timer E, and ends the INVITE 64 T1 later if nothing does. So cancelling
 * needs no memory and can't fail.
 *
 * What is kept: the request until there is a 1xx; then, of an INVITE, its CANCEL, and after
 * that its ACK. Nothing of a request over a reliable transport but that. Of a server transaction
 * the last response, but no 2xx of an INVITE. All in one table, all timers in one heap; both are
 * reserved at create.
 */
#define HF_SIP_TXN_KIND_LIST(X)                                                                    \
    X(SERVER_INVITE, "server INVITE")                                                              \
    X(SERVER, "server")                                                                            \
    X(CLIENT_INVITE, "client INVITE")                                                              \
    X(CLIENT, "client")
enum hf_sip_txn_kind {
#define HF_SIP_TXN_KIND_ENUM(id, name) HF_SIP_TXN_##id,
    HF_SIP_TXN_KIND_LIST(HF_SIP_TXN_KIND_ENUM)
#undef HF_SIP_TXN_KIND_ENUM
        HF_SIP_TXN_KIND_COUNT_
};
/** "server INVITE", ... */
const char *hf_sip_txn_kind_name(enum hf_sip_txn_kind k);

#define HF_SIP_TXN_STATE_LIST(X)                                                                   \
    X(NEW, "new")                                                                                  \
    X(CALLING, "CALLING")                                                                          \
    X(TRYING, "TRYING")                                                                            \
    X(PROCEEDING, "PROCEEDING")                                                                    \
    X(COMPLETED, "COMPLETED")                                                                      \
    X(CONFIRMED, "CONFIRMED")                                                                      \
    X(ACCEPTED, "ACCEPTED")                                                                        \
    X(TERMINATED, "TERMINATED")
enum hf_sip_txn_state {
#define HF_SIP_TXN_STATE_ENUM(id, name) HF_SIP_TXN_##id,
    HF_SIP_TXN_STATE_LIST(HF_SIP_TXN_STATE_ENUM)
#undef HF_SIP_TXN_STATE_ENUM
        HF_SIP_TXN_STATE_COUNT_
};
/** "PROCEEDING", ... */
const char *hf_sip_txn_state_name(enum hf_sip_txn_state s);

struct hf_sip_txn {
    /* the user's own; not looked at here */
    void *owner;
    uint64_t cookie;
    uint8_t index;

    /* to be read */
    uint8_t kind, state;     /* enum hf_sip_txn_kind, enum hf_sip_txn_state */
    uint8_t method;          /* enum hf_sip_method */
    bool reliable;           /* its transport */
    bool cancel, cancelling; /* a CANCEL is wanted, was sent */

    /* not to be touched */
    bool cancel_text; /* text is the CANCEL, not the INVITE */
    uint32_t heap;    /* its place, + 1 */
    uint32_t n_text;
    uint8_t *text;           /* owned */
    struct hf_sip_txn *next; /* in its bucket */
    struct hf_list waiting;  /* clients without any answer */
    uint64_t key[2];         /* by which it is found */
    hf_time again, end;      /* the next A, E, G; B, C, D, F, H to M */
    hf_time interval;        /* between the last two A, E, G */
    struct hf_sip_flow flow; /* where requests, or responses, go */
};

struct hf_sip_txns;

/** What the user hears; none of these may free, but they may begin, respond, cancel and drop. */
struct hf_sip_txn_ops {
    void (*send)(void *ctx, const struct hf_sip_flow *to, struct hf_slice message);
    /** Of a client: every 1xx, the first final one, every 2xx of an INVITE. In the new state. */
    void (*response)(void *ctx, struct hf_sip_txn *x, const struct hf_sip_msg *response,
                     hf_time now);
    /** A client has no final answer: 408 by time, 503 by the transport. Its end follows. */
    void (*failed)(void *ctx, struct hf_sip_txn *x, uint16_t status, hf_time now);
    /** A server non-INVITE should answer 100 now, if there is nothing else (RFC 4320 4.1). */
    void (*trying)(void *ctx, struct hf_sip_txn *x, hf_time now);
    /** It ends, and is freed behind this. */
    void (*gone)(void *ctx, struct hf_sip_txn *x, hf_time now);
    /** Another state than before; NULL: nobody looks. */
    void (*entered)(void *ctx, const struct hf_sip_txn *x, enum hf_sip_txn_state old);
};

/** conf, ops and count are borrowed (conf for the call). 0, -ENOMEM. */
HF_MUST int hf_sip_txns_create(const struct hf_sip_proxy_conf *conf,
                               const struct hf_sip_txn_ops *ops, void *ctx,
                               struct hf_sip_proxy_counters *count, struct hf_sip_txns **ret_txns);
/** Frees all; gone() is not called. */
void hf_sip_txns_destroy(struct hf_sip_txns *t);

/** The server transaction of a request (17.2.3): of an ACK and a CANCEL that of its INVITE. NULL.
 */
struct hf_sip_txn *hf_sip_txns_server(const struct hf_sip_txns *t,
                                      const struct hf_sip_msg *request);
/** A request of that transaction, again, or its ACK. true: dealt with; false: an ACK of a 2xx. */
bool hf_sip_txn_again(struct hf_sip_txns *t, struct hf_sip_txn *x, const struct hf_sip_msg *request,
                      hf_time now);
/** A request begins one. -HF_EFULL, -ENOMEM. */
HF_MUST int hf_sip_txn_serve(struct hf_sip_txns *t, const struct hf_sip_msg *request,
                             const struct hf_sip_flow *from, hf_time now,
                             struct hf_sip_txn **ret_txn);
/** The user's response. What does not fit the state is not sent: false. */
bool hf_sip_txn_respond(struct hf_sip_txns *t, struct hf_sip_txn *x, uint16_t status,
                        struct hf_slice message, hf_time now);

/** A branch that is used for nothing else. */
void hf_sip_txns_branch(struct hf_sip_txns *t, char ret_branch[HF_SIP_OWN_BRANCH_LEN]);
/** Send a request, written with such a branch, and more if need be. -HF_EFULL, -ENOMEM; -HF_EMALF:
 * not such a branch, or one that is in use. */
HF_MUST int hf_sip_txn_call(struct hf_sip_txns *t, struct hf_slice branch,
                            enum hf_sip_method method, struct hf_slice message,
                            const struct hf_sip_flow *to, hf_time now, struct hf_sip_txn **ret_txn);
/** The client transaction of a response (17.1.3); of one to a CANCEL, that of its INVITE. NULL. */
struct hf_sip_txn *hf_sip_txns_client(const struct hf_sip_txns *t,
                                      const struct hf_sip_msg *response);
/** A response of that transaction. */
void hf_sip_txn_answer(struct hf_sip_txns *t, struct hf_sip_txn *x,
                       const struct hf_sip_msg *response, hf_time now);
/** Cancel a client INVITE (9.1), as soon as that may be. Others, and what has its final answer: no
 * effect. */
void hf_sip_txn_cancel(struct hf_sip_txns *t, struct hf_sip_txn *x, hf_time now);
/** End it with the next tick, silently. */
void hf_sip_txn_drop(struct hf_sip_txns *t, struct hf_sip_txn *x, hf_time now);
/** Fail the clients on this flow that have no answer, and those that were cancelled. */
void hf_sip_txns_unreachable(struct hf_sip_txns *t, const struct hf_sip_flow *to, hf_time now);

void hf_sip_txns_tick(struct hf_sip_txns *t, hf_time now);
hf_time hf_sip_txns_deadline(const struct hf_sip_txns *t);
size_t hf_sip_txns_count(const struct hf_sip_txns *t);
/** Would so many more find room? */
bool hf_sip_txns_room(const struct hf_sip_txns *t, size_t n);
/** Bytes of all there are, and of what the user took. */
size_t hf_sip_txns_bytes(const struct hf_sip_txns *t);
/** The user's share of bytes_max: -HF_EFULL. */
HF_MUST int hf_sip_txns_take(struct hf_sip_txns *t, size_t n);
void hf_sip_txns_give(struct hf_sip_txns *t, size_t n);
