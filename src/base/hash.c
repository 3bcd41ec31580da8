#include "base/hash.h"

#define XXH_INLINE_ALL
#define XXH_NO_STREAM
#include <xxhash.h>

uint64_t hf_hash(struct hf_slice s, uint64_t seed)
{
    return XXH3_64bits_withSeed(s.p, s.n, seed);
}
