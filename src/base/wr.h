/* Bounded writer: sticky error when the room is used up, big-endian, lengths patched afterwards. */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

struct hf_wr {
    uint8_t *base; /* borrowed: the caller's buffer */
    uint8_t *p;    /* next byte to write */
    uint8_t *end;  /* one past the room */
    int err;       /* 0, or -HF_EFULL once something did not fit */
};

/** Write into the n bytes at buf, borrowed while w is in use. */
void hf_wr_init(struct hf_wr *w, void *buf, size_t n);

void hf_wr_u8(struct hf_wr *w, uint8_t v);
void hf_wr_u16(struct hf_wr *w, uint16_t v);
void hf_wr_u32(struct hf_wr *w, uint32_t v);
void hf_wr_u64(struct hf_wr *w, uint64_t v);
void hf_wr_bytes(struct hf_wr *w, struct hf_slice s);

/** A byte string with an 8-, 16- or 32-bit length before it; too long for that length is an error.
 */
void hf_wr_str8(struct hf_wr *w, struct hf_slice s);
void hf_wr_str16(struct hf_wr *w, struct hf_slice s);
void hf_wr_str32(struct hf_wr *w, struct hf_slice s);

/** Where the writer stands, to come back to with hf_wr_back() or to patch. */
size_t hf_wr_len(const struct hf_wr *w);

/** Undo everything after mark (from hf_wr_len()), its error too. */
void hf_wr_back(struct hf_wr *w, size_t mark);

/** Overwrite what was written at mark. */
void hf_wr_patch_u16(struct hf_wr *w, size_t mark, uint16_t v);
void hf_wr_patch_u32(struct hf_wr *w, size_t mark, uint32_t v);
void hf_wr_patch_u64(struct hf_wr *w, size_t mark, uint64_t v);

/** 0 or the sticky error; on 0 *ret_s is what was written (borrowed from the buffer). */
HF_MUST int hf_wr_end(const struct hf_wr *w, struct hf_slice *ret_s);
