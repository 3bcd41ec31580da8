/* What the egress filter and its owner share in maps: plain C, also compiled for BPF. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"

/* Of an address. */
#define HF_EGRESS_SOLO 1u /* there is no backup to wait for: only RST and FIN are guarded */
#define HF_EGRESS_RESETS                                                                           \
    2u /* all that is to live has a slot: others may be told that they do not */

/* Of a slot. */
#define HF_EGRESS_SLOT_USED 1u /* set while registered */
#define HF_EGRESS_SLOT_SOLO                                                                        \
    2u /* this connection is not protected: only RST and FIN are guarded                           \
        */
#define HF_EGRESS_SLOT_CLOSING 4u /* we close: RST and FIN may go */
#define HF_EGRESS_SLOT_SYN_ACK 8u /* the SYN-ACK with exactly syn_seq and syn_ack may go */
#define HF_EGRESS_SLOT_FIN 16u    /* we have ended: FIN may go, RST may not */

/* Counted per address. */
#define HF_EGRESS_COUNTER_LIST(X)                                                                  \
    X(HF_EGRESS_N_UNKNOWN, "unknown", "segments without a slot, dropped")                          \
    X(HF_EGRESS_N_RESET, "reset", "RST and FIN that were not ours, dropped")                       \
    X(HF_EGRESS_N_BEYOND, "beyond", "data above tx_conf, dropped: a bug of the owner")             \
    X(HF_EGRESS_N_ACK_HELD, "ack_held", "acknowledgements held")                                   \
    X(HF_EGRESS_N_ACK_LOWERED, "ack_lowered", "data segments with the acknowledgement lowered")    \
    X(HF_EGRESS_N_SYN_ACK_HELD, "syn_ack_held", "SYN-ACKs held")                                   \
    X(HF_EGRESS_N_LEASE, "lease", "packets after the lease, dropped")                              \
    X(HF_EGRESS_N_BAD, "bad", "packets that cannot be judged, dropped")                            \
    X(HF_EGRESS_N_LOST, "lost", "SYNs and SYN-ACKs that could not be told for lack of room")       \
    X(HF_EGRESS_N_SENT, "sent", "acknowledgements and SYN-ACKs sent after they were held")

enum hf_egress_counter {
#define HF_EGRESS_COUNTER_ENUM(name, key, text) name,
    HF_EGRESS_COUNTER_LIST(HF_EGRESS_COUNTER_ENUM)
#undef HF_EGRESS_COUNTER_ENUM
        HF_EGRESS_COUNTERS
};

/* What becomes of a packet. */
#define HF_EGRESS_VERDICT_LIST(X)                                                                  \
    X(HF_EGRESS_PASS, "pass")                                                                      \
    X(HF_EGRESS_DROP, "drop")                                                                      \
    X(HF_EGRESS_SWALLOW, "swallow")   /* drop; the kernel thinks that it went */                   \
    X(HF_EGRESS_HOLD_ACK, "hold-ack") /* a pure ACK too early: save and drop */                    \
    X(HF_EGRESS_LOWER, "lower")       /* data with an ACK too early: save, lower, let go */        \
    X(HF_EGRESS_HOLD_SYN_ACK, "hold-syn-ack") /* tell the owner and swallow */

enum hf_egress_verdict {
#define HF_EGRESS_VERDICT_ENUM(name, text) name,
    HF_EGRESS_VERDICT_LIST(HF_EGRESS_VERDICT_ENUM)
#undef HF_EGRESS_VERDICT_ENUM
};

/* A packet's headers, as they are to be sent again. */
struct hf_egress_saved {
    uint32_t ack;     /* its acknowledgement, as the kernel made it */
    uint32_t end;     /* the sequence number after it */
    uint32_t ifindex; /* where it left */
    uint32_t vlan;    /* tag beside the packet: EtherType << 16 | TCI; 0: none */
    uint16_t l3;      /* where the IP header begins; 0: no link header */
    uint16_t len;
    uint8_t header[HF_EGRESS_HEADER_MAX];
};

/* One per connection, in a map that both sides have mapped. */
struct hf_egress_slot {
    /* the owner's */
    uint32_t rx_conf, tx_conf;
    uint32_t state; /* HF_EGRESS_SLOT_* */
    uint32_t wscale;
    uint32_t syn_seq, syn_ack;
    /* the filter's */
    uint32_t version; /* odd while saved is being written */
    uint32_t
        pending; /* saved holds an acknowledgement that has not gone; the owner clears it, too */
    uint32_t snd_nxt;  /* the highest end of what has gone */
    uint32_t ack_sent; /* the acknowledgement of the last that has gone */
    struct hf_egress_saved saved;
};

/* mapped arrays round the distance of their values up to 8 */
_Static_assert(sizeof(struct hf_egress_slot) % 8 == 0, "size of a slot");

/* One per service address, in a map that both sides have mapped. */
struct hf_egress_address {
    uint64_t lease_until; /* CLOCK_BOOTTIME, ns */
    uint32_t flags;       /* HF_EGRESS_SOLO, _RESETS */
    uint32_t port;        /* host order */
    uint64_t counters[HF_EGRESS_COUNTERS];
};

/* Keys of maps; IPv4 addresses are mapped (::ffff:a.b.c.d). */
struct hf_egress_addr_key {
    _Alignas(8) uint8_t addr[16];
};

struct hf_egress_conn_key {
    _Alignas(8) uint8_t peer[16];
    uint32_t peer_port; /* host order */
    uint32_t address;   /* number of the service address */
};

/* Told through the ring. */
struct hf_egress_note {
    uint32_t syn_ack; /* 0: a SYN that has come in */
    uint32_t address;
    struct hf_egress_saved saved;
};

enum hf_egress_kind {
    HF_EGRESS_KIND_OTHER, /* neither IP nor ARP */
    HF_EGRESS_KIND_IP,    /* from source, not TCP */
    HF_EGRESS_KIND_CLAIM, /* ARP or neighbour discovery that says that `claimed` is here */
    HF_EGRESS_KIND_TCP,
    HF_EGRESS_KIND_BAD, /* from source, but not to be understood (fragment of TCP, IPsec, cut off)
                         */
};

/* A packet, as far as the rules need it. */
struct hf_egress_facts {
    uint8_t kind;                    /* enum hf_egress_kind */
    uint8_t tcp_flags;               /* as on the wire */
    uint16_t l3, l4;                 /* where IP and TCP headers begin */
    uint16_t header_len;             /* to the end of the TCP header */
    uint16_t source_port, peer_port; /* host order */
    uint16_t window;                 /* unscaled */
    uint32_t payload_len;
    uint32_t seq, ack;
    _Alignas(8) uint8_t source[16]; /* IPv4 addresses are mapped */
    _Alignas(8) uint8_t peer[16];
    _Alignas(8) uint8_t claimed[16];
};
