/* Which worker a datagram is for, told by its text: for BPF and user space. No library, no loops
 * without a bound. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * The kernel's guess, so that most messages come to the socket of their worker; what it can't tell
 * by a short look, or tells wrongly, that worker is handed by whoever got it:
 * hf_sip_element_owner() decides.
 *
 *   REGISTER   by the user in To
 *   requests   by the user in the Request-URI
 *   responses  by the branch in the first Via: the worker whose transaction it is; a stateless one
 *              any worker may have: spread evenly
 *
 * Who includes this defines HF_STEER_PACKET, the type that a datagram is reached through, and
 * before that
 *     static int hf_steer_load(HF_STEER_PACKET *p, uint32_t off, void *to, uint32_t n);
 * which copies n bytes at off and returns 0, or something else when they are not all there.
 */
#define HF_STEER_INLINE static inline __attribute__((always_inline))
#define HF_STEER_NONE (-1)
#define HF_STEER_WINDOW 64u /* bytes that are looked at together */
#define HF_STEER_LOOK 960u  /* about so far */

/* Every place by its own constant offset, and no loop that is left as one: with CAP_BPF but without
 * CAP_PERFMON the verifier follows branches that are not taken, too, and refuses other offsets. It
 * looks at a global function once, not for each call. */
#ifdef __bpf__
#define HF_STEER_UNROLL _Pragma("clang loop unroll(full)")
#define HF_STEER_FUNCTION __attribute__((noinline))
#else
#define HF_STEER_UNROLL
#define HF_STEER_FUNCTION static inline
#endif

#define HF_STEER_HASH 2166136261u /* FNV-1a */

HF_STEER_INLINE uint32_t hf_steer_add(uint32_t hash, uint8_t c)
{
    return (hash ^ c) * 16777619u;
}

/* Of n workers. */
HF_STEER_INLINE uint32_t hf_steer_worker(uint32_t hash, uint32_t n)
{
    return ((hash * 0x9e3779b1u) >> 16) % n;
}

#ifdef HF_STEER_PACKET

HF_STEER_INLINE bool hf_steer_window(HF_STEER_PACKET *p, uint32_t len, uint32_t off, uint8_t *w)
{
    return off + HF_STEER_WINDOW <= len && hf_steer_load(p, off, w, HF_STEER_WINDOW) == 0;
}

/* Behind "To:" or "t:" at the beginning of a line that begins in the window at off; 0: none. */
HF_STEER_FUNCTION uint32_t hf_steer_to(HF_STEER_PACKET *p, uint32_t len, uint32_t off)
{
    uint8_t w[HF_STEER_WINDOW];
    if (!hf_steer_window(p, len, off, w)) {
        return 0;
    }
    HF_STEER_UNROLL
    for (uint32_t k = 0; k < HF_STEER_WINDOW - 3; k++) {
        if (w[k] != '\n' || (w[k + 1] | 0x20) != 't') {
            continue;
        }
        if (w[k + 2] == ':') {
            return off + k + 3;
        }
        if ((w[k + 2] | 0x20) == 'o' && w[k + 3] == ':') {
            return off + k + 4;
        }
    }
    return 0;
}

/* Behind "sip:" or "sips:" in this line; 0: not found. */
HF_STEER_FUNCTION uint32_t hf_steer_uri(HF_STEER_PACKET *p, uint32_t len, uint32_t off)
{
    uint8_t w[HF_STEER_WINDOW];
    if (!hf_steer_window(p, len, off, w)) {
        return 0;
    }
    HF_STEER_UNROLL
    for (uint32_t k = 0; k < HF_STEER_WINDOW - 4; k++) {
        if (w[k] == '\n') {
            return 0;
        }
        if ((w[k] | 0x20) == 's' && (w[k + 1] | 0x20) == 'i' && (w[k + 2] | 0x20) == 'p') {
            if (w[k + 3] == ':') {
                return off + k + 4;
            }
            if ((w[k + 3] | 0x20) == 's' && w[k + 4] == ':') {
                return off + k + 5;
            }
        }
    }
    return 0;
}

/* By the user that begins here, if it is written as in an AoR: without escapes. */
HF_STEER_FUNCTION int hf_steer_user(HF_STEER_PACKET *p, uint32_t len, uint32_t off, uint32_t n)
{
    uint8_t w[HF_STEER_WINDOW];
    uint32_t hash = HF_STEER_HASH;
    if (!hf_steer_window(p, len, off, w)) {
        return HF_STEER_NONE;
    }
    HF_STEER_UNROLL
    for (uint32_t k = 0; k < HF_STEER_WINDOW; k++) {
        if (w[k] == '@') {
            return (int)hf_steer_worker(hash, n);
        }
        if (w[k] <= ' ' || w[k] == '%' || w[k] == ':' || w[k] == '>') {
            return HF_STEER_NONE; /* an escape, a password, a host */
        }
        hash = hf_steer_add(hash, w[k]);
    }
    return HF_STEER_NONE;
}

/* From 16 on: none. */
HF_STEER_INLINE uint32_t hf_steer_hex(uint8_t c)
{
    uint32_t digit = (uint32_t)c - '0', letter = (uint32_t)c - 'a';
    return digit < 10 ? digit : letter < 6 ? letter + 10 : 16;
}

/* z9hG4bK, worker (2), 18 more; a stateless one has 16 in all (transaction.c, write.c). */
HF_STEER_FUNCTION int hf_steer_branch(HF_STEER_PACKET *p, uint32_t len, uint32_t off, uint32_t n)
{
    uint8_t w[HF_STEER_WINDOW];
    if (!hf_steer_window(p, len, off, w)) {
        return HF_STEER_NONE;
    }
    HF_STEER_UNROLL
    for (uint32_t k = 0; k < 16; k++) {
        if (hf_steer_hex(w[k]) > 15) {
            return HF_STEER_NONE; /* not ours */
        }
    }
    uint32_t first = hf_steer_hex(w[0]) << 4 | hf_steer_hex(w[1]);
    return hf_steer_hex(w[16]) > 15 ? (int)(first % n) : first < n ? (int)first : HF_STEER_NONE;
}

/* Behind the first cookie that begins in the window at off; 0: none. */
HF_STEER_FUNCTION uint32_t hf_steer_cookie(HF_STEER_PACKET *p, uint32_t len, uint32_t off)
{
    uint8_t w[HF_STEER_WINDOW];
    if (!hf_steer_window(p, len, off, w)) {
        return 0;
    }
    HF_STEER_UNROLL
    for (uint32_t k = 0; k < HF_STEER_WINDOW - 6; k++) {
        if (w[k] == 'z' && w[k + 1] == '9' && w[k + 2] == 'h' && w[k + 3] == 'G' &&
            w[k + 4] == '4' && w[k + 5] == 'b' && w[k + 6] == 'K') {
            return off + k + 7;
        }
    }
    return 0;
}

/* The worker, of n, that a datagram of len bytes is for; HF_STEER_NONE. */
HF_STEER_INLINE int hf_steer(HF_STEER_PACKET *p, uint32_t len, uint32_t n)
{
    uint8_t w[4];
    uint32_t at = 0;
    if (hf_steer_load(p, 0, w, sizeof(w))) {
        return HF_STEER_NONE;
    }
    if (w[0] == 'S' && w[1] == 'I' && w[2] == 'P' && w[3] == '/') {
        HF_STEER_UNROLL
        for (uint32_t i = 0; i < HF_STEER_LOOK / HF_STEER_WINDOW; i++) {
            at = at ? at : hf_steer_cookie(p, len, i * (HF_STEER_WINDOW - 6));
        }
        return at ? hf_steer_branch(p, len, at, n) : HF_STEER_NONE;
    }
    if (w[0] == 'R' && w[1] == 'E' && w[2] == 'G' && w[3] == 'I') {
        HF_STEER_UNROLL
        for (uint32_t i = 0; i < HF_STEER_LOOK / HF_STEER_WINDOW; i++) {
            at = at ? at : hf_steer_to(p, len, i * (HF_STEER_WINDOW - 3));
        }
        if (!at) {
            return HF_STEER_NONE;
        }
    }
    at = hf_steer_uri(p, len, at);
    return at ? hf_steer_user(p, len, at, n) : HF_STEER_NONE;
}

#endif
