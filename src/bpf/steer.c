/* SIP's datagrams to their workers (SO_ATTACH_REUSEPORT_EBPF): by core/sip/steer_inline.h. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define HF_STEER_PACKET struct __sk_buff

static __always_inline int hf_steer_load(HF_STEER_PACKET *p, __u32 off, void *to, __u32 n)
{
    return (int)bpf_skb_load_bytes(p, off, to, n);
}

#include "core/sip/steer_inline.h"

const volatile __u32 n_workers = 1; /* set before it is loaded */

/* The number of the socket in its group, in the order in which they were bound. A number that none
 * has: the kernel takes one by its hash of the addresses. */
SEC("socket")
int hf_steer_datagram(struct __sk_buff *skb)
{
    return hf_steer(skb, skb->len, n_workers);
}

/* All helpers used are open to every license. */
char _license[] SEC("license") = "Apache-2.0";
