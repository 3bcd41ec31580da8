/* A borrowed run of bytes: pointer and length, no ownership, not NUL-terminated. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct hf_slice {
    const uint8_t *p; /* borrowed; may be NULL when n is 0 */
    size_t n;         /* bytes */
};

/** The slice of the n bytes at p. */
static inline struct hf_slice hf_slice(const void *p, size_t n)
{
    return (struct hf_slice){.p = p, .n = n};
}

/** The slice of a NUL-terminated string, without its NUL. */
static inline struct hf_slice hf_slice_str(const char *s)
{
    return hf_slice(s, strlen(s));
}

/** Same bytes? */
static inline bool hf_slice_eq(struct hf_slice a, struct hf_slice b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/** Order by bytes, the shorter first when one begins the other: negative, 0, positive. */
static inline int hf_slice_cmp(struct hf_slice a, struct hf_slice b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/** Does s begin with prefix? */
static inline bool hf_slice_starts(struct hf_slice s, struct hf_slice prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

/** For printf("%.*s", HF_SLICE_FMT(s)). */
#define HF_SLICE_FMT(s) (int)(s).n, (const char *)((s).n ? (s).p : (const uint8_t *)"")
