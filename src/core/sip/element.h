/* A SIP server as one worker runs it: messages in, messages and store operations out (D3-D12). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/endpoint.h"
#include "base/hftime.h"
#include "base/slice.h"
#include "core/sip/decide.h"
#include "core/sip/fleet.h"
#include "core/sip/flow.h"
#include "core/sip/ops.h"
#include "core/sip/presence.h"
#include "core/sip/watch.h"

/*
 * Pure: it sees no socket and no clock. Joins what lies beside it: message, decide, assign, digest,
 * registrar, proxy, notifier. A program has as many of these as workers, which share nothing: each
 * has the AoRs of its buckets (hf_sip_element_owner()), the transport hands messages over. The
 * fleet is one copy for each, too.
 *
 *   message --+- response: proxy's transaction, or relayed by its Via
 *             +- request: valid (8.2, 16.3)? - absorbed by a transaction? - facts - hf_sip_decide()
 *                  PASS       by Route, or to the Request-URI (in a dialog)
 *                  SERVE      REGISTER: registrar, BIND, 200 when stored; SUBSCRIBE, PUBLISH:
 *                             notifier; others: forked to the bindings; 480 without any
 *                  REDIRECT   302, Contact: the home's address with hf=EPOCH.SECONDS, another one
 *                             with lower q
 *                  PROXY      stateless to that server, marked
 *                  CHALLENGE  401 (REGISTER), 407 (others)
 *                  READ, ASSIGN   the request waits (bounded) for the store, then again
 *                  REFUSE
 *
 * A request that waits is kept with its text, at most requests_max of them; the same one again
 * (retransmitted) is dropped meanwhile.
 */
struct hf_sip_element;

struct hf_sip_element_ops {
    /** Send this there; borrowed for the call. */
    void (*send)(void *ctx, const struct hf_sip_flow *to, struct hf_slice message);
    /** For the store; copied by who takes it. Its result goes to hf_sip_element_done(). */
    void (*store)(void *ctx, const struct hf_sip_op *op);
    /** A name must be resolved (RFC 3263: uri's host, port, transport): the answer goes to
     * hf_sip_element_resolved() with this cookie. Addresses in digits never come here. */
    void (*resolve)(void *ctx, uint64_t cookie, const struct hf_sip_uri *uri);
    /** For `holdfast sip trace` and the log; NULL: nobody looks. `what`: "recv", "send", or the
     * decision's name; text: the message, or why. */
    void (*trace)(void *ctx, struct hf_slice aor, const char *what, const struct hf_sip_flow *flow,
                  struct hf_slice text);
    /** Is listening address i of the configuration, one that is `elsewhere` at times, on this host
     * at this moment? Asked before a flow that it names is taken for broken. NULL: as
     * hf_sip_element_here() has said last. */
    bool (*here)(void *ctx, size_t i);
};

/** One of our listening addresses, which others reach us at. */
struct hf_sip_listen {
    uint8_t transport;
    struct hf_endpoint at;
    struct hf_slice host; /* name or address in Via, Contact, Path */
    uint8_t policy;       /* enum hf_sip_policy, for what arrives here */
    bool external;        /* edge: the side of its clients */
    bool elsewhere;       /* a service address (S1), which may be another server's now */
};
struct hf_sip_net { /* an address range */
    struct hf_endpoint at;
    uint8_t bits;
};

/** Copied. */
struct hf_sip_element_conf {
    uint8_t role; /* enum hf_sip_role */
    uint8_t worker, n_workers;
    struct hf_slice name; /* of this host */
    struct hf_slice realm;
    const struct hf_slice *domain; /* host names (lower case) that are ours */
    size_t n_domains;
    const struct hf_sip_listen *listen;
    size_t n_listen;
    const struct hf_sip_net *edge; /* trusted-edge list */
    size_t n_edges;
    bool must_authenticate;
    /* Who may watch a user's presence, beside himself: "domain" (whoever has authenticated in his
     * domain), "@domain" (in that one), an AoR; "none" is nobody. None given: "domain". */
    const struct hf_slice *watchers;
    size_t n_watchers;
    unsigned algorithms;   /* bits of enum hf_sip_algorithm that are offered */
    uint32_t nonce_life_s; /* 0: 300 */
    const uint8_t *key;    /* HF_SIP_NONCE_KEY_LEN bytes, derived from the cluster key */
    uint64_t seed;
    uint64_t boot; /* chosen at each start of the program, one for all its workers: names of
                    * connections (in Path, Record-Route) mean nothing to its next life */
    uint32_t expires_default_s, expires_min_s, expires_max_s; /* 0: 3600, 60, 7200 */
    struct hf_slice service_route;
    size_t bindings_max, transactions_max, requests_max, cache_max, subs_max; /* 0: defaults */
    /* requests/s of one source without good credentials: an address, or behind a trusted edge a
     * flow (the Via below the edge's), or who it says to be; 0: 200 */
    uint32_t source_rate;
};

HF_MUST int hf_sip_element_create(const struct hf_sip_element_conf *conf,
                                  const struct hf_sip_element_ops *ops, void *ctx, hf_time now,
                                  uint32_t wall_s, struct hf_sip_element **ret_element);
void hf_sip_element_destroy(struct hf_sip_element *e);

/** Which worker a message belongs to: by its AoR, or the transaction in its Via. msg: as parsed;
 * also one with faults. Anything may be handled anywhere, correctly but for state; n_workers: it is
 * a response that needs none, for whoever has it. */
unsigned hf_sip_element_owner(const struct hf_sip_msg *msg, unsigned n_workers);
/** ... and an AoR (canonical): by its user part, as the host may be written in more than one way (a
 * redirect puts the server's in place of the domain's); the kernel guesses alike by
 * steer_inline.h. */
unsigned hf_sip_element_owner_aor(struct hf_slice aor, unsigned n_workers);

/** A message, parsed (faults included), from the flow it came by. wall_s: seconds since 1970. */
void hf_sip_element_message(struct hf_sip_element *e, const struct hf_sip_msg *msg,
                            const struct hf_sip_flow *from, hf_time now, uint32_t wall_s);
void hf_sip_element_tick(struct hf_sip_element *e, hf_time now, uint32_t wall_s);
hf_time hf_sip_element_deadline(const struct hf_sip_element *e);

/** What came of an op; a piece of the feed (rows of others' buckets are passed over). */
void hf_sip_element_done(struct hf_sip_element *e, const struct hf_sip_result *result, hf_time now);
void hf_sip_element_feed(struct hf_sip_element *e, const struct hf_sip_feed *feed, hf_time now);
/** What a name stands for, the best first; n 0: nothing. */
void hf_sip_element_resolved(struct hf_sip_element *e, uint64_t cookie,
                             const struct hf_sip_flow *to, size_t n, hf_time now);
/** A connection was closed, or none could be made there. To be told to all workers: bindings and
 * requests of any may have gone by it. The only one that may be called within ops->send. */
void hf_sip_element_unreachable(struct hf_sip_element *e, const struct hf_sip_flow *to,
                                hf_time now);

/** A server of the cluster as the tree has it; at: its addresses by transport
 * (HF_SIP_TRANSPORT_UDP, TCP, TLS), family NONE: it has none. Returns its number by the fleet in
 * *ret_number. */
struct hf_sip_peer {
    struct hf_slice name;
    struct hf_slice host;     /* as others write it in a Contact */
    struct hf_sip_server now; /* state, homes, busy, weight: see fleet.h */
    uint64_t boot;            /* which of its lives it is; 0: it does not say. Another one while it
                                 is alive: it died, and nobody has seen it */
    struct hf_endpoint
        at[3]; /* by HF_SIP_TRANSPORT_UDP, HF_SIP_TRANSPORT_TCP, HF_SIP_TRANSPORT_TLS */
};
HF_MUST int hf_sip_element_peer(struct hf_sip_element *e, const struct hf_sip_peer *peer,
                                uint16_t *ret_number);
/** Whether the i-th of conf->listen, one that may be elsewhere, is here now: what is sent goes from
 * such an address before any other, as it will be answered when this host is dead; while it is
 * elsewhere, Routes and Paths that name it are another server's. It is not until this says so, or
 * a message comes by it. */
void hf_sip_element_here(struct hf_sip_element *e, size_t i, bool here);
/** How much to shed (overload control). */
void hf_sip_element_shed(struct hf_sip_element *e, enum hf_sip_shed shed);
/** This AoR is traced (empty: none): ops->trace gets its messages. */
void hf_sip_element_trace(struct hf_sip_element *e, struct hf_slice aor);

#define HF_SIP_ELEMENT_COUNTER_LIST(X)                                                             \
    X(requests, "requests")                                                                        \
    X(responses, "responses")                                                                      \
    X(malformed, "messages that were refused or dropped as malformed")                             \
    X(registers, "REGISTERs served")                                                               \
    X(redirected, "requests redirected to their home")                                             \
    X(proxied, "requests proxied to their home")                                                   \
    X(challenged, "requests challenged")                                                           \
    X(auth_failed, "credentials that were wrong")                                                  \
    X(refused, "requests refused")                                                                 \
    X(limited, "requests dropped by their source's rate")                                          \
    X(waiting, "requests that waited for the store")                                               \
    X(waiting_full, "... and were refused for want of room")                                       \
    X(forked, "requests to bindings")                                                              \
    X(not_found, "requests for users without bindings")                                            \
    X(flows_lost, "bindings that ended with their flow")                                           \
    X(loaded, "AoRs loaded from the store")                                                        \
    X(left, "AoRs that went to another server")
struct hf_sip_element_counters {
#define HF_SIP_ELEMENT_COUNTER_FIELD(name, text) uint64_t name;
    HF_SIP_ELEMENT_COUNTER_LIST(HF_SIP_ELEMENT_COUNTER_FIELD)
#undef HF_SIP_ELEMENT_COUNTER_FIELD
};
const struct hf_sip_element_counters *hf_sip_element_counters(const struct hf_sip_element *e);
/** For the tree and metrics: rows that are ours, bindings, subscriptions, transactions, bytes. */
struct hf_sip_element_info {
    uint64_t rows, pinned, bindings, aors, subs, transactions, waiting, cached, bytes;
    enum hf_sip_table table;
    struct hf_sip_watch_counters watch;
    struct hf_sip_presence_counters presence;
};
void hf_sip_element_info(const struct hf_sip_element *e, struct hf_sip_element_info *ret_info);
/** `holdfast sip show AOR`: what this worker knows, as JSON. */
void hf_sip_element_show(const struct hf_sip_element *e, struct hf_slice aor, hf_time now,
                         struct hf_buf *b);
