/* When a worker sheds load (overload control): levels by its CPU time and its queue, with
 * hysteresis. */
#pragma once

#include "base/hftime.h"
#include "core/sip/decide.h"

/*
 *              cpu >= 92 % twice, or queue >= 25 %           queue >= 60 %
 *   NOTHING ------------------------------------------> NEW --------------> ALL
 *      ^                                                |  ^                 |
 *      +---- for 2 s cpu < 80 % and queue < 10 % -------+  +-- queue < 30 % -+
 *
 * CPU alone never sheds all: a worker that is busy and keeps up serves whom it knows.
 */
struct hf_sip_overload { /* begins as zero */
    enum hf_sip_shed level;
    unsigned n_busy;    /* looks in a row with the CPU busy */
    hf_time calm_since; /* 0: not calm */
};
/** A look: cpu, queue in 1/1000. Returns the level. */
enum hf_sip_shed hf_sip_overload_step(struct hf_sip_overload *o, unsigned cpu, unsigned queue,
                                      hf_time now);
