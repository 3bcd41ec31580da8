/* Hashes of bytes: 64 bits at once (XXH3, inlined), 128 bits of a stream however it is cut. */
#pragma once

#include <stdint.h>

#include "base/slice.h"

/** XXH3-64 of s under seed. Not for secrets. */
uint64_t hf_hash(struct hf_slice s, uint64_t seed);

/** A running 128-bit hash of a stream: the same for the same bytes, wherever they were cut. Not for
 * secrets; with an unknown seed, collisions are not to be found by trying. */
struct hf_hash_stream {
    uint64_t a, b;  /* state */
    uint64_t carry; /* the last n % 8 bytes, little-endian */
    uint64_t n;     /* bytes so far */
};
void hf_hash_stream_init(struct hf_hash_stream *h, uint64_t seed);
void hf_hash_stream_add(struct hf_hash_stream *h, struct hf_slice s);
/** The hash of what was added so far; h can go on. */
void hf_hash_stream_get(const struct hf_hash_stream *h, uint64_t ret_hash[2]);
