/* Bounded reader of foreign bytes: sticky error, zero on failure, checked once at the end. */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
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
static inline void hf_rd_init(struct hf_rd *r, struct hf_slice s)
{
    static const uint8_t nothing[1];
    const uint8_t *p = s.p ? s.p : nothing;
    *r = (struct hf_rd){.p = p, .end = p + (s.p ? s.n : 0), .err = 0};
}

/** The next n bytes, or NULL on failure. In the header, as a proxy reads
 * many small numbers. */
static inline const uint8_t *hf_rd_take(struct hf_rd *r, size_t n)
{
    if (r->err) {
        return NULL;
    }
    if (n > (size_t)(r->end - r->p)) {
        r->err = -HF_ETRUNC;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    return p;
}

static inline uint8_t hf_rd_u8(struct hf_rd *r)
{
    const uint8_t *p = hf_rd_take(r, 1);
    return p ? *p : 0;
}

static inline uint16_t hf_rd_u16(struct hf_rd *r)
{
    uint16_t v = 0;
    const uint8_t *p = hf_rd_take(r, sizeof(v));
    return p ? be16toh(*(uint16_t *)memcpy(&v, p, sizeof(v))) : 0;
}

static inline uint32_t hf_rd_u32(struct hf_rd *r)
{
    uint32_t v = 0;
    const uint8_t *p = hf_rd_take(r, sizeof(v));
    return p ? be32toh(*(uint32_t *)memcpy(&v, p, sizeof(v))) : 0;
}

static inline uint64_t hf_rd_u64(struct hf_rd *r)
{
    uint64_t v = 0;
    const uint8_t *p = hf_rd_take(r, sizeof(v));
    return p ? be64toh(*(uint64_t *)memcpy(&v, p, sizeof(v))) : 0;
}

/** The next n bytes, as a slice of the input; empty on failure. */
static inline struct hf_slice hf_rd_bytes(struct hf_rd *r, size_t n)
{
    const uint8_t *p = hf_rd_take(r, n);
    return p ? hf_slice(p, n) : hf_slice(NULL, 0);
}

/** Copy the next n bytes to dst; zeroes on failure. */
void hf_rd_copy(struct hf_rd *r, void *dst, size_t n);

/** A byte string with an 8-, 16- or 32-bit length before it, of at most n_max bytes. */
struct hf_slice hf_rd_str8(struct hf_rd *r, size_t n_max);
struct hf_slice hf_rd_str16(struct hf_rd *r, size_t n_max);
struct hf_slice hf_rd_str32(struct hf_rd *r, size_t n_max);
/** hf_rd_str8() of a word, as hf_word_ok() has it; anything else is malformed. */
struct hf_slice hf_rd_word(struct hf_rd *r, size_t n_max);

/** Bytes not yet read; 0 after an error. */
static inline size_t hf_rd_left(const struct hf_rd *r)
{
    return r->err ? 0 : (size_t)(r->end - r->p);
}

/** Note a failure of the caller's own checks, unless one is noted already. */
void hf_rd_fail(struct hf_rd *r, int code);

/** A byte that is 0 or 1; anything else is malformed. */
bool hf_rd_bool(struct hf_rd *r);

/** 0 if nothing failed and nothing is left over; otherwise the first error, or -HF_ETRAIL. */
HF_MUST int hf_rd_end(const struct hf_rd *r);
