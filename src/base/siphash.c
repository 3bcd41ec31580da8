#include "base/siphash.h"

#include <string.h>

/* Little-endian machines only, as the other hashes. */
static uint64_t load(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t rotate(uint64_t v, unsigned n)
{
    return v << n | v >> (64 - n);
}

static void rounds(uint64_t v[4], unsigned n)
{
    for (; n; n--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

static void absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
}

void hf_siphash(const uint8_t key[HF_SIPHASH_KEY_LEN], struct hf_slice s,
                uint8_t ret_tag[HF_SIPHASH_LEN])
{
    uint64_t k0 = load(key), k1 = load(key + 8);
    uint64_t v[4] = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d ^ 0xee,
                     k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573};
    uint8_t last[8] = {0};
    size_t i = 0;
    for (; s.n - i >= sizeof(last); i += sizeof(last)) {
        absorb(v, load(s.p + i));
    }
    if (s.n > i) {
        memcpy(last, s.p + i, s.n - i);
    }
    last[7] = (uint8_t)s.n;
    absorb(v, load(last));
    v[2] ^= 0xee;
    rounds(v, 4);
    uint64_t a = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    rounds(v, 4);
    uint64_t b = v[0] ^ v[1] ^ v[2] ^ v[3];
    memcpy(ret_tag, &a, sizeof(a));
    memcpy(ret_tag + sizeof(a), &b, sizeof(b));
}
