/* What still comes for a service address that this host has given up goes on to the host that has
 * it now. */
#pragma once

#include "base/attr.h"
#include "base/endpoint.h"
#include "base/err.h"
#include "base/hftime.h"

/*
 * For a planned move. Neighbours send to this host until the new one has announced itself; without
 * this, what they sent in between they would send again only after their retransmission timeout, at
 * least 200 ms. TCP segments for the address are kept from open() on, and sent, with checksums that
 * are right (virtual links leave them unfinished), to the link-layer address that a neighbour
 * announces as the address's (ARP, neighbour advertisement). The owner closes it after a while.
 *
 * Segments that this host's own sockets have received too are forwarded as well: to the new host
 * they are duplicates. What is longer than the link's MTU (joined by the card) is left to the
 * client's retransmission, and so is what exceeds HF_FORWARD_MAX.
 */
struct hf_forward;
#define HF_FORWARD_MAX 1024     /* segments kept */
#define HF_FORWARD_TIME HF_S(1) /* for its owner: neighbours know the new host long before */

/** 0; -ENODEV: no such interface, or not Ethernet; -EPERM without CAP_NET_RAW; other -errno. */
HF_MUST int hf_forward_open(const char *interface, const struct hf_endpoint *address,
                            struct hf_err *err, struct hf_forward **ret_forward);
/** NULL is fine. */
void hf_forward_close(struct hf_forward *f);
/** To be watched for reading; then dispatch(). */
int hf_forward_fd(const struct hf_forward *f);
void hf_forward_dispatch(struct hf_forward *f);
/** Segments sent on. */
unsigned hf_forward_count(const struct hf_forward *f);
