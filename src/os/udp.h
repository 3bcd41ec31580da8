/* One UDP socket: multicast and unicast datagrams, received in batches (A1, A13). */
#pragma once

#include <stdbool.h>

#include "base/slice.h"
#include "os/addr.h"
#include "os/loop.h"

struct hf_udp;

struct hf_udp_opt {
    struct hf_addr bind;  /* local address and port; the wildcard with a port is usual */
    struct hf_addr group; /* multicast group to join and to send to; len 0: unicast only;
                              port 0: that of bind */
    char interface[16];   /* of the group; "": the kernel's choice */
    int ttl;              /* multicast hops; 0: 1 */
    bool loop;            /* own multicast also to other sockets on this host */
};

/** from and data are borrowed for the call. */
typedef void hf_udp_recv(void *arg, const struct hf_addr *from, struct hf_slice data);

/**
 * Open, bind, join. Errors (-errno, -HF_ECONFIG) have a text that names address, interface and what
 * to do. Datagrams longer than HF_ADVERT_LEN_MAX are dropped and counted.
 */
HF_MUST int hf_udp_open(struct hf_loop *loop, const struct hf_udp_opt *opt, hf_udp_recv *fn,
                        void *arg, struct hf_err *err, struct hf_udp **ret_udp);
void hf_udp_close(struct hf_udp *u);

/** Send one datagram to `to`, or to the group if NULL. 0 or -errno (-EAGAIN: dropped, counted). */
HF_MUST int hf_udp_send(struct hf_udp *u, const struct hf_addr *to, struct hf_slice data);

/** The port bound to (opt.bind may have said 0). */
uint16_t hf_udp_port(const struct hf_udp *u);

struct hf_udp_counters {
    uint64_t sent, sent_bytes, send_errors;
    uint64_t received, received_bytes, oversized;
};
const struct hf_udp_counters *hf_udp_counters(const struct hf_udp *u);
