/* Seeded pseudo-random numbers (splitmix64): for jitter and simulation, never for secrets. */
#pragma once

#include <stdint.h>

struct hf_prng {
    uint64_t s;
};

/** Start from seed; every value is fine. */
static inline void hf_prng_init(struct hf_prng *g, uint64_t seed)
{
    g->s = seed;
}

/** The next 64 bits. */
static inline uint64_t hf_prng_u64(struct hf_prng *g)
{
    uint64_t z = (g->s += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/** A number in [0, n), nearly even; 0 if n is 0. */
static inline uint64_t hf_prng_below(struct hf_prng *g, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)hf_prng_u64(g) * n) >> 64);
}
