#include "base/hash.h"

#define XXH_INLINE_ALL
#define XXH_NO_STREAM
#include <xxhash.h>

uint64_t hf_hash(struct hf_slice s, uint64_t seed)
{
    return XXH3_64bits_withSeed(s.p, s.n, seed);
}

#define K1 0x9e3779b97f4a7c15u
#define K2 0xe7037ed1a0b428dbu

static uint64_t mix(uint64_t x, uint64_t y)
{
    __uint128_t m = (__uint128_t)x * y;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static void absorb(struct hf_hash_stream *h, uint64_t w)
{
    h->a = mix(h->a ^ w, K1 ^ h->b);
    h->b = (h->b << 23 | h->b >> 41) + w * K2;
}

void hf_hash_stream_init(struct hf_hash_stream *h, uint64_t seed)
{
    *h = (struct hf_hash_stream){.a = seed ^ K2, .b = mix(seed ^ K1, K2) | 1};
}

void hf_hash_stream_add(struct hf_hash_stream *h, struct hf_slice s)
{
    const uint8_t *p = s.p;
    size_t n = s.n, at = h->n & 7;
    h->n += n;
    for (; n && at; n--, p++) {
        h->carry |= (uint64_t)*p << (8 * at);
        at = (at + 1) & 7;
        if (at == 0) {
            absorb(h, h->carry);
            h->carry = 0;
        }
    }
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8); /* little-endian machines only, as the rest of the hash */
        absorb(h, w);
    }
    for (; n; n--, p++, at++)
        h->carry |= (uint64_t)*p << (8 * at);
}

void hf_hash_stream_get(const struct hf_hash_stream *h, uint64_t ret_hash[2])
{
    struct hf_hash_stream end = *h;
    absorb(&end, end.carry);
    absorb(&end, end.n);
    ret_hash[0] = mix(end.a, end.b ^ K2);
    ret_hash[1] = mix(end.b ^ K1, end.a | 1);
}
