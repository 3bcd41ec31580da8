/* What `sim-pair` can run. */
#pragma once

#include "sim/runner.h"

/** A random schedule. */
void pwx_run(uint64_t seed, FILE *trace, struct sim_run *ret);
extern const char *const pwx_figures[];
/** The documented moments. */
size_t pwx_n_stories(void);
struct sim_story pwx_story(size_t i);
void pwx_tell(size_t i, FILE *out);
/** What a batch costs. */
int pwx_bench(void);
