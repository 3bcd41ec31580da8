/* What `sim-pg` can run. */
#pragma once

#include "sim/runner.h"

/** A random schedule. */
void pgx_run(uint64_t seed, FILE *trace, struct sim_run *ret);
extern const char *const pgx_figures[];
/** The documented moments. */
size_t pgx_n_stories(void);
struct sim_story pgx_story(size_t i);
void pgx_tell(size_t i, FILE *out);
