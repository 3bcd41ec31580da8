/* Where a SIP URI is to be sent (RFC 3263): NAPTR, SRV, addresses; asynchronous, cached. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "core/sip/flow.h"
#include "core/sip/uri.h"
#include "os/addr.h"
#include "os/loop.h"

/*
 *   transport or port given, or no NAPTR there          NAPTR names (transport, SRV) in its order
 *           |                                                     |
 *           v                                                     v
 *   SRV of the transport, or of each that we have  ---->  targets with priority and weight
 *           | none, or a port is given                            |
 *           v                                                     v
 *   the host itself, default port  ------------------------>  A, AAAA of each
 *
 * Answers are kept for the shortest of their TTLs, at most RESOLVE_TTL_MAX; that there is nothing,
 * for 30 s; that nobody answered, for 2 s. Who asks for the same meanwhile waits for the same. Of
 * SRV targets of one priority one is drawn anew by weight (RFC 2782) each time.
 */
struct hf_sip_resolver;

#define HF_SIP_RESOLVED_MAX 8 /* addresses of one answer */

/** Options; copied. */
struct hf_sip_resolver_conf {
    const struct hf_addr *server; /* name servers; none: the system's */
    size_t n_servers;
    int timeout_ms;             /* of one; 0: 2000 */
    bool udp, tcp, tls;         /* transports that we have */
    bool v4, v6;                /* ... and families */
    size_t names_max, jobs_max; /* cached; under way. 0: 4096, 1024 */
    uint64_t seed;
};

/** 0, -ENOMEM, -HF_ECONFIG with text. The system's resolv.conf and hosts are read. */
HF_MUST int hf_sip_resolver_create(struct hf_loop *loop, const struct hf_sip_resolver_conf *conf,
                                   struct hf_err *err, struct hf_sip_resolver **ret_resolver);
/** Those who wait are not told. NULL is fine. */
void hf_sip_resolver_destroy(struct hf_sip_resolver *r);

/** What is asked: of a URI, or of Via's sent-by. */
struct hf_sip_lookup {
    struct hf_slice host;
    uint16_t port;     /* 0: none given */
    uint8_t transport; /* enum hf_sip_transport; OTHER: none given */
    bool sips;
};
/** to: in the order in which they are to be tried, with peer and transport only; n = 0: none.
 * Borrowed for the call. */
typedef void hf_sip_resolved_fn(void *arg, uint64_t cookie, const struct hf_sip_flow *to, size_t n);
/** fn is called once, maybe from within. */
void hf_sip_resolve(struct hf_sip_resolver *r, const struct hf_sip_lookup *what, uint64_t cookie,
                    hf_sip_resolved_fn *fn, void *arg);

struct hf_sip_resolver_counters {
    uint64_t asked, cached, queries, failed, refused;
};
const struct hf_sip_resolver_counters *hf_sip_resolver_counters(const struct hf_sip_resolver *r);
