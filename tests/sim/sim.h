/* The directory's simulations: what `sim-directory` can run. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sim_options {
    uint64_t seed;
    uint64_t runs;
    uint32_t seconds; /* of real time; 0: as many as `runs` */
    uint32_t hosts, services, loss_percent;
    bool shared, dump, verbose, write_golden;
    const char *json;   /* file for the results, or NULL */
    const char *golden; /* directory of the golden traces, or NULL */
};

/** Many small clusters with all faults (0: all held). */
int sim_chaos(const struct sim_options *o);
/** One large cluster on a shared store. */
int sim_scale(const struct sim_options *o);
/** The documented scenarios, compared with their golden traces. */
int sim_stories(const struct sim_options *o);
