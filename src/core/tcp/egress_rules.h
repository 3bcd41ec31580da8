/* The rules of the output commit (doc/design/egress.md), and what the filter shares with its owner.
 */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"
#include "core/tcp/egress_types.h"

/*
 * The rules themselves are in egress_inline.h, which the BPF program (src/bpf/egress.c) is compiled
 * from, too. These are the same for user space: the NFQUEUE fallback and the tests.
 */

/** One line of HF_EGRESS_VERDICT_LIST, or of HF_EGRESS_COUNTER_LIST; static. */
const char *hf_egress_verdict_name(enum hf_egress_verdict verdict);
const char *hf_egress_counter_name(enum hf_egress_counter counter);

/**
 * Read an outgoing packet's headers. ethertype 0: it begins with an Ethernet header (VLAN tags are
 * skipped); otherwise with what that type says (0x0800, 0x86dd). Never fails: see f->kind.
 */
void hf_egress_parse(struct hf_slice packet, uint16_t ethertype, struct hf_egress_facts *f);

/**
 * What is to become of the packet. slot (NULL: none): the connection's; address: that of f's source
 * or claimed address. *ret_counter: what to count when the verdict is not PASS.
 */
HF_MUST enum hf_egress_verdict hf_egress_judge(const struct hf_egress_facts *f,
                                               const struct hf_egress_slot *slot,
                                               const struct hf_egress_address *address,
                                               uint64_t now, enum hf_egress_counter *ret_counter);

/** Save the packet's headers in *saved. False: they are longer than HF_EGRESS_HEADER_MAX. */
HF_MUST bool hf_egress_save(struct hf_egress_saved *saved, struct hf_slice packet,
                            const struct hf_egress_facts *f);

/** The facts of headers that were saved; the payload counts as none. -HF_EMALF. */
HF_MUST int hf_egress_parse_saved(const struct hf_egress_saved *saved, struct hf_egress_facts *f);

/** Note in the slot that the packet has been let go with this acknowledgement. */
void hf_egress_note_passed(struct hf_egress_slot *slot, const struct hf_egress_facts *f,
                           uint32_t ack);

/**
 * LOWER: set the packet's acknowledgement to ack and raise the window field by the same distance,
 * so that its right edge stays (to one unit of the scale); the checksum is changed by the
 * difference.
 */
void hf_egress_lower(uint8_t *packet, const struct hf_egress_facts *f, uint32_t ack,
                     uint8_t wscale);

/** Make the checksums of IP and TCP from the packet, payload included. */
void hf_egress_set_checksums(uint8_t *packet, const struct hf_egress_facts *f);

/** Room that hf_egress_build_ack() and _syn_ack() need: saved headers and a VLAN tag. */
#define HF_EGRESS_BUILT_MAX (HF_EGRESS_HEADER_MAX + 4)

/**
 * Make a pure acknowledgement from the saved headers of a segment that was held: sequence number
 * seq, acknowledgement ack (not above saved->ack), window as in hf_egress_lower(), checksums.
 * Returns its length, or -HF_EMALF.
 */
HF_MUST int hf_egress_build_ack(const struct hf_egress_saved *saved, uint32_t seq, uint32_t ack,
                                uint8_t wscale, uint8_t ret_packet[HF_EGRESS_BUILT_MAX]);
/** The SYN-ACK that was held, with its checksums made whole. Its length, or -HF_EMALF. */
HF_MUST int hf_egress_build_syn_ack(const struct hf_egress_saved *saved,
                                    uint8_t ret_packet[HF_EGRESS_BUILT_MAX]);
