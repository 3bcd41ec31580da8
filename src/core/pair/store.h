/* What a backup manager has of its primary: sessions, their numbered sections, and items by name.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"
#include "codec/pair_v1.h"

/*
 * A section is a run of bytes (received, to be sent, a log, an encoded state) and beside it items
 * by name (prepared statements), in the order in which they came. What the numbers of sections
 * mean is the user's. A session is there from its first operation to END.
 */
struct hf_pair_store;
struct hf_pair_session;

/** An empty store of at most bytes_max bytes (what items cost beside theirs included), seeded
 * against chosen ids. 0 or -ENOMEM.
 */
HF_MUST int hf_pair_store_create(size_t bytes_max, uint64_t seed, struct hf_pair_store **ret_store);
void hf_pair_store_destroy(struct hf_pair_store *st);

/**
 * Apply the operations of one batch, decoded once already (malformed ones are an assert). 0, or
 * -ENOMEM, -HF_EFULL, -HF_EPROTO (cut of more than there is, an item extended that is not there):
 * then the batch is applied in part, and the store is good for nothing.
 */
HF_MUST int hf_pair_store_apply(struct hf_pair_store *st, struct hf_slice ops);

/** Sessions, the most recently active first: after NULL the first; NULL at the end. Borrowed, as
 * all below, until the store changes. */
const struct hf_pair_session *hf_pair_store_next(const struct hf_pair_store *st,
                                                 const struct hf_pair_session *after);
/** The session with this id, or NULL. */
const struct hf_pair_session *hf_pair_store_find(const struct hf_pair_store *st, uint64_t id);
size_t hf_pair_store_sessions(const struct hf_pair_store *st);
size_t hf_pair_store_bytes(const struct hf_pair_store *st);

uint64_t hf_pair_session_id(const struct hf_pair_session *s);
/** The bytes of a section; empty if there are none. */
struct hf_slice hf_pair_session_section(const struct hf_pair_session *s, uint8_t section);
/** Items of a section in the order in which they were set: start with *pos = NULL. false at the
 * end. */
struct hf_pair_item {
    struct hf_slice name, bytes;
};
HF_MUST bool hf_pair_session_item(const struct hf_pair_session *s, uint8_t section,
                                  const void **pos, struct hf_pair_item *ret_item);
