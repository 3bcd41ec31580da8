/* What `sim-group` can run. */
#pragma once

#include "sim/runner.h"

/** A random schedule. */
void gs_random(uint64_t seed, FILE *trace, struct sim_run *ret);
extern const char *const gs_figures[];
/** The documented scenarios. */
size_t gs_n_stories(void);
struct sim_story gs_story(size_t i);
void gs_tell(size_t i, FILE *out);
