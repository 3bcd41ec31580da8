/* Hexadecimal digits: bytes and numbers as text, and back. Written in lower case, read in any. */
#pragma once

#include "base/slice.h"

/** What a digit means; -1: it is none. */
static inline int hf_hex_value(int c)
{
    int small = c | 32;
    return c >= '0' && c <= '9' ? c - '0' : small >= 'a' && small <= 'f' ? small - 'a' + 10 : -1;
}

/** v in n digits, the highest first; what does not fit is cut off in front. No NUL. */
static inline void hf_hex_put_u64(uint64_t v, size_t n, char *ret_text)
{
    for (; n-- > 0; v >>= 4) {
        ret_text[n] = "0123456789abcdef"[v & 15];
    }
}

/** The n bytes at p in 2 n digits. No NUL. */
static inline void hf_hex_put(const uint8_t *p, size_t n, char *ret_text)
{
    for (size_t i = 0; i < n; i++) {
        hf_hex_put_u64(p[i], 2, ret_text + 2 * i);
    }
}

/** Exactly n bytes of 2 n digits; false: it is something else, then ret_p has anything. */
static inline bool hf_hex_get(struct hf_slice s, size_t n, uint8_t *ret_p)
{
    int bad = 0;
    for (size_t i = 0; s.n == 2 * n && i < n; i++) {
        int high = hf_hex_value(s.p[2 * i]), low = hf_hex_value(s.p[2 * i + 1]);
        bad |= high | low; /* -1 anywhere leaves the sign */
        ret_p[i] = (uint8_t)((unsigned)high << 4 | (unsigned)low);
    }
    return s.n == 2 * n && bad >= 0;
}
