/* TCP segments as raw sockets see and send them: parse, build, wrap into IP, checksums (RFC 9293).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/endpoint.h"
#include "base/slice.h"
#include "base/wr.h"

/* RFC 9293 3.1, as in the header's 14th byte */
#define HF_TCP_FIN 0x01u
#define HF_TCP_SYN 0x02u
#define HF_TCP_RST 0x04u
#define HF_TCP_PSH 0x08u
#define HF_TCP_ACK 0x10u
#define HF_TCP_ECE 0x40u
#define HF_TCP_CWR 0x80u

#define HF_TCP_SACK_MAX 4      /* blocks that 40 bytes of options can have */
#define HF_TCP_WSCALE_MAX 14   /* RFC 7323 2.3: larger ones mean this */
#define HF_TCP_MSS_DEFAULT 536 /* RFC 9293 3.7.1: when the SYN says nothing; IPv6: 1220 */
#define HF_TCP_MSS_DEFAULT6 1220
#define HF_TCP_PACKET_MAX 65575 /* the longest that is parsed: IPv6 header and 65535 bytes */
/** Room for a segment without payload: IPv6 header, TCP header, 40 bytes of options. */
#define HF_TCP_HEADERS_MAX 100

struct hf_tcp_sack_block {
    uint32_t left, right; /* first byte, one past the last */
};

struct hf_tcp_segment {
    struct hf_endpoint src, dst; /* one family; scope is 0 */
    uint32_t seq, ack;
    uint16_t window; /* as on the wire: not yet scaled */
    uint8_t flags;   /* HF_TCP_* */
    bool has_mss, has_wscale, sack_permitted, has_ts;
    uint8_t wscale; /* <= HF_TCP_WSCALE_MAX */
    uint16_t mss;
    uint32_t tsval, tsecr;
    uint8_t n_sack;
    struct hf_tcp_sack_block sack[HF_TCP_SACK_MAX];
    struct hf_slice payload; /* borrowed from what was parsed, or for the build */
};

/** a before b, in the 2^31 sequence numbers around them (RFC 9293 3.4). */
static inline bool hf_tcp_before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

/**
 * Parse one whole IP packet, as an IPv4 raw socket or a packet socket gives it. Unknown options are
 * passed over; a malformed one ends them, as in the kernel. Checksums are not looked at: the kernel
 * did, or, on a virtual link, leaves them unfinished. What follows the length in the IP header is
 * cut off (padding). 0, -HF_ETRUNC, -HF_EMALF (not TCP, a fragment, an IPv6 extension header too).
 */
HF_MUST int hf_tcp_segment_parse(struct hf_slice packet, struct hf_tcp_segment *ret_seg);

/**
 * The same for TCP header and payload alone, as an IPv6 raw socket gives them; src and dst need
 * their addresses only, ports come from the header.
 */
HF_MUST int hf_tcp_segment_parse_tcp(const struct hf_endpoint *src, const struct hf_endpoint *dst,
                                     struct hf_slice tcp, struct hf_tcp_segment *ret_seg);

/**
 * Write seg as an IP packet with right lengths and checksums: hop limit 64, IPv4 with DF. Options
 * are written in the kernel's order; blocks that do not fit are left out. What does not fit into w,
 * or not into an IP packet, is w's sticky error.
 */
void hf_tcp_segment_build(struct hf_wr *w, const struct hf_tcp_segment *seg);

/**
 * Write a captured segment, TCP header and payload as they are, as an IP packet from src to dst
 * (of one family) with right lengths and checksums. tcp shorter than a TCP header, or longer than
 * an IP packet: w's sticky error.
 */
void hf_tcp_wrap(struct hf_wr *w, const struct hf_endpoint *src, const struct hf_endpoint *dst,
                 struct hf_slice tcp);

/**
 * Write an ICMP message as an IP packet: `host` was unreachable for the segment that its peer sent
 * with sequence number seq (RFC 792, RFC 4443 3.1). To a TCP that had to retransmit it means that
 * the network, not congestion, was the cause: it takes back a doubling of its timeout (RFC 6069).
 */
void hf_tcp_build_unreachable(struct hf_wr *w, const struct hf_endpoint *host,
                              const struct hf_endpoint *peer, uint32_t seq);

/** The TCP part of an IP packet that hf_tcp_segment_parse() takes; empty if it does not. */
struct hf_slice hf_tcp_of_packet(struct hf_slice packet);

/** Are IP header's and TCP's checksums those that the bytes need? For tests and captures. */
bool hf_tcp_checksums_ok(struct hf_slice packet);
