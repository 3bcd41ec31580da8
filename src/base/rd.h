/* Bounded reader of foreign bytes: sticky error, zero on failure, checked once at the end. */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

/*
 * Together with base/wr the only code that does pointer arithmetic on bytes from outside. All
 * integers are big-endian. After the first failure every read yields zero or an empty slice, so a
 * decoder may read everything first and ask hf_rd_end() once.
 */
struct hf_rd {
    const uint8_t *p;   /* borrowed: as long as the bytes given to hf_rd_init() */
    const uint8_t *end; /* one past the last byte */
    int err;            /* 0, or the first -HF_E* */
};

/** Read from s, which stays borrowed while r and its slices are in use. */
void hf_rd_init(struct hf_rd *r, struct hf_slice s);

uint8_t hf_rd_u8(struct hf_rd *r);
uint16_t hf_rd_u16(struct hf_rd *r);
uint32_t hf_rd_u32(struct hf_rd *r);
uint64_t hf_rd_u64(struct hf_rd *r);

/** The next n bytes, as a slice of the input; empty on failure. */
struct hf_slice hf_rd_bytes(struct hf_rd *r, size_t n);

/** Copy the next n bytes to dst; zeroes on failure. */
void hf_rd_copy(struct hf_rd *r, void *dst, size_t n);

/** A byte string with an 8-, 16- or 32-bit length before it, of at most n_max bytes. */
struct hf_slice hf_rd_str8(struct hf_rd *r, size_t n_max);
struct hf_slice hf_rd_str16(struct hf_rd *r, size_t n_max);
struct hf_slice hf_rd_str32(struct hf_rd *r, size_t n_max);

/** Bytes not yet read; 0 after an error. */
size_t hf_rd_left(const struct hf_rd *r);

/** Note a failure of the caller's own checks, unless one is noted already. */
void hf_rd_fail(struct hf_rd *r, int code);

/** 0 if nothing failed and nothing is left over; otherwise the first error, or -HF_ETRAIL. */
HF_MUST int hf_rd_end(const struct hf_rd *r);
