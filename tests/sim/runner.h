/* What simulators have in common: options, seeds that were kept, many runs in processes of their
 * own, golden traces. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/attr.h"

#define SIM_FIGURES_MAX 16

/* What has become of one run. */
struct sim_run {
    char kind[16]; /* what did not hold, in a word: failures are counted by it; may be "" */
    char why[400]; /* ""; all held */
    uint64_t figure[SIM_FIGURES_MAX];
};

/* A documented moment. */
struct sim_story {
    const char *name, *title;
};

struct sim_runner {
    const char *program;        /* as it is called: "sim-pair" */
    const char *what;           /* one line of usage: what a run is */
    const char *const *figures; /* names of figure[], NULL at the end: sums of all runs */
    const char *const
        *highest;  /* likewise of those behind them: the highest of all runs; or NULL */
    uint64_t runs; /* by default */
    /** One run from its seed; trace: every line of it, or NULL. */
    void (*run)(uint64_t seed, FILE *trace, struct sim_run *ret);

    const char *prefix; /* of golden traces: "pair" */
    size_t n_stories;
    struct sim_story (*story)(size_t i);
    /** Tell it, but for its title. What does not hold is told as "FAILED: ...". */
    void (*tell)(size_t i, FILE *out);

    int (*bench)(void);  /* --bench, or NULL */
    const char *measure; /* one line of usage: what it measures */
    const char *more;    /* whole lines of usage, of what the program itself takes; or NULL */
};

/** The program: takes options, runs, reports. 0: all held. */
HF_MUST int sim_main(int argc, char **argv, const struct sim_runner *r);
