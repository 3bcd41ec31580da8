/* Applying ordered events: the state that all nodes of an embedded engine have in common. */
#pragma once

#include <stdbool.h>

#include "base/attr.h"
#include "base/list.h"
#include "codec/engine_v1.h"

/* Ordered but not yet applied by all nodes: at most so many messages (flow control). */
#define HF_ORDER_WINDOW 64
/* Messages, joins and leaves of one node that have not come back to it in order. */
#define HF_ORDER_SENDS_MAX 32

/* An event, or a SEND on its way, kept. Owned by the list it is on. */
struct hf_order_item {
    struct hf_list node;
    size_t n;
    struct hf_engine_v1_frame f; /* its slices point into bytes */
    uint8_t bytes[];
};

/** A copy of f (owned by the caller), or NULL. */
HF_MUST struct hf_order_item *hf_order_keep(const struct hf_engine_v1_frame *f);

/** Free all items of a list. */
void hf_order_drop(struct hf_list *items);

/** Slot of the node with this id, or -1. */
int hf_order_slot(const struct hf_engine_v1_state *st, uint32_t id);

/** Mask of slots in use. */
uint64_t hf_order_nodes(const struct hf_engine_v1_state *st);

/** The group's entry, or NULL. Borrowed until st changes. */
const struct hf_engine_v1_group *hf_order_group(const struct hf_engine_v1_state *st,
                                                struct hf_slice name);

/** Is the node in the slot a member of the group? */
bool hf_order_is_member(const struct hf_engine_v1_state *st, int slot, struct hf_slice group);

/**
 * Apply the next event. A JOIN by a member, a LEAVE or MSG by a non-member and a JOIN when there
 * are HF_ENGINE_V1_GROUPS_MAX groups change nothing but the sender's seq (the same for all).
 * Returns 0, or -HF_EPROTO with st unchanged if the event can't follow: ord not greater, unknown
 * node, no slot.
 */
HF_MUST int hf_order_apply(struct hf_engine_v1_state *st, const struct hf_engine_v1_frame *ev);
