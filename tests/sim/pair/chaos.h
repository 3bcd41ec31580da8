/* What `sim-pair` can run. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct pwx_options {
    uint64_t seed, runs;
    uint32_t seconds; /* of real time; 0: as many as `runs` */
    bool trace, keep_going, write_golden;
    const char *seeds, *golden;
};

/** Random schedules. 0: all held. */
int pwx_chaos(const struct pwx_options *o);
/** The documented moments, compared with their golden traces. */
int pwx_stories(const struct pwx_options *o);
