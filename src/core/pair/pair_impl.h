/* Inside of core/pair: runs of bytes that lose their front, and frames out of a stream. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"
#include "codec/pair_v1.h"

/* A queue of bytes; all zero is empty. */
struct hf_pair_bytes {
    uint8_t *p;  /* owned */
    size_t head; /* bytes before the first in use */
    size_t n;    /* in use */
    size_t room; /* allocated */
    size_t keep; /* room that stays when it is empty; 0: some */
};

static inline struct hf_slice hf_pair_bytes_slice(const struct hf_pair_bytes *b)
{
    return hf_slice(b->n ? b->p + b->head : NULL, b->n);
}
/** Room for n more bytes behind those in use, or NULL; the caller counts in b->n what it writes. */
HF_MUST uint8_t *hf_pair_bytes_reserve(struct hf_pair_bytes *b, size_t n);
/** 0 or -ENOMEM. */
HF_MUST int hf_pair_bytes_add(struct hf_pair_bytes *b, struct hf_slice s);
/** Drop n bytes from the front. */
void hf_pair_bytes_cut(struct hf_pair_bytes *b, size_t n);
/** Drop all; room beyond `keep` is given back. */
void hf_pair_bytes_clear(struct hf_pair_bytes *b);
void hf_pair_bytes_fini(struct hf_pair_bytes *b);
/** Append a frame. 0 or -ENOMEM. */
HF_MUST int hf_pair_bytes_frame(struct hf_pair_bytes *b, const struct hf_pair_v1_frame *f);

/* Frames out of bytes that come cut anywhere. All zero is empty. */
struct hf_pair_reader {
    struct hf_pair_bytes held; /* the beginning of a frame */
    struct hf_slice left;      /* borrowed: given, not looked at yet */
    size_t taken;              /* of held: the frame given last */
};
void hf_pair_reader_fini(struct hf_pair_reader *r);
/** Forget what came. */
void hf_pair_reader_clear(struct hf_pair_reader *r);
/** Bytes came: call _next() until it is not 1. */
void hf_pair_reader_feed(struct hf_pair_reader *r, struct hf_slice bytes);
/** 1 and the next frame, borrowed until the next call; 0: no more for now; -HF_EMALF and the like,
 * -ENOMEM. */
HF_MUST int hf_pair_reader_next(struct hf_pair_reader *r, struct hf_pair_v1_frame *ret_frame);
