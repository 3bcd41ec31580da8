/* Time as the cores see it: monotonic nanoseconds, handed in; only src/os reads a clock. */
#pragma once

#include <stdint.h>

/** Monotonic time or a span of it, in nanoseconds. */
typedef int64_t hf_time;

#define HF_NEVER INT64_MAX
#define HF_NS_PER_MS 1000000LL
#define HF_NS_PER_S 1000000000LL
/** Milliseconds as an hf_time. */
#define HF_MS(n) ((hf_time)(n)*HF_NS_PER_MS)
/** Seconds as an hf_time. */
#define HF_S(n) ((hf_time)(n)*HF_NS_PER_S)

/** The earlier of two instants; HF_NEVER loses. */
static inline hf_time hf_time_min(hf_time a, hf_time b)
{
    return a < b ? a : b;
}
