/* Where a host can be reached: an address and a port, without socket types. */
#pragma once

#include <stdint.h>
#include <string.h>

#include "base/slice.h"

enum hf_family {
    HF_AF_NONE = 0,
    HF_AF_INET = 4,
    HF_AF_INET6 = 6,
};

struct hf_endpoint {
    uint8_t family;   /* enum hf_family */
    uint8_t addr[16]; /* network order; IPv4 uses the first 4 */
    uint16_t port;    /* host order */
    uint32_t scope;   /* IPv6 link-local: interface index, only meaningful on this host */
};

/** The same address, at whatever port and interface. */
static inline bool hf_endpoint_same_addr(const struct hf_endpoint *a, const struct hf_endpoint *b)
{
    return a->family == b->family && memcmp(a->addr, b->addr, sizeof(a->addr)) == 0;
}

static inline bool hf_endpoint_eq(const struct hf_endpoint *a, const struct hf_endpoint *b)
{
    return hf_endpoint_same_addr(a, b) && a->port == b->port && a->scope == b->scope;
}
