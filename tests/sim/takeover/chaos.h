/* What `sim-takeover` can run. */
#pragma once

#include "sim/runner.h"

/** A random schedule. */
void twx_run(uint64_t seed, FILE *trace, struct sim_run *ret);
extern const char *const twx_figures[];
/** The documented moments. */
size_t twx_n_stories(void);
struct sim_story twx_story(size_t i);
void twx_tell(size_t i, FILE *out);
