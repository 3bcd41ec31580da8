/* 64-bit hash of bytes (XXH3, inlined: no symbol of it is exported or needed). */
#pragma once

#include <stdint.h>

#include "base/slice.h"

/** XXH3-64 of s under seed. Not for secrets. */
uint64_t hf_hash(struct hf_slice s, uint64_t seed);
