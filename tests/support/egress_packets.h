/* Packets for the tests of the output commit: built from a few fields, and a table with verdicts.
 */
#pragma once

#include "core/tcp/egress_rules.h"

#define EGRESS_PACKET_MAX 4096
#define EGRESS_PORT 5432
#define EGRESS_PEER_PORT 40000

/* Zero means the ordinary: IPv4, TCP from the service address and port to the client's. */
struct egress_packet {
    const char *name;
    bool v6;
    enum { AS_TCP, AS_UDP, AS_ARP, AS_NA, AS_DAD, AS_ESP } as;
    bool other_source; /* not the service address */
    bool other_claim;  /* ARP, NA, DAD: for another address */
    uint16_t source_port, peer_port;
    uint8_t flags;
    uint32_t seq, ack;
    uint16_t window;
    uint16_t payload;
    uint8_t vlans;
    uint8_t ip_options;  /* bytes of IPv4 options, a multiple of 4 */
    uint8_t extensions;  /* IPv6 extension headers, 8 bytes each */
    uint8_t tcp_options; /* bytes, a multiple of 4 */
    uint8_t padding;     /* bytes after the end, as short frames have */
    bool fragment;
    uint16_t cut; /* leave only so many bytes; 0: all */
};

/* Build it with right checksums; returns its length. */
size_t egress_build(const struct egress_packet *p, uint8_t ret_bytes[EGRESS_PACKET_MAX]);
/* Are its checksums right? */
bool egress_checksums_ok(const uint8_t *packet, size_t n);

/* The service's and the client's addresses, mapped. */
const uint8_t *egress_service(bool v6);
const uint8_t *egress_peer(bool v6);

struct egress_case {
    struct egress_packet packet;
    bool no_slot;
    uint32_t slot_state; /* besides USED */
    uint32_t address_flags;
    bool expired;
    enum hf_egress_verdict want;
    enum hf_egress_counter counter; /* HF_EGRESS_COUNTERS: none */
};

/* All slots of the table: */
#define EGRESS_RX_CONF 0xfffffff0u /* shortly before the numbers wrap */
#define EGRESS_TX_CONF 1000u
#define EGRESS_WSCALE 7
#define EGRESS_SYN_SEQ 77u

extern const struct egress_case egress_cases[];
extern const unsigned egress_cases_len;
