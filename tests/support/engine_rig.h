/* Several engines and what they told, for tests that hold for every engine. */
#pragma once

#include <stdbool.h>

#include "engine/embedded.h"
#include "support/sim_engine.h"

#define RIG_MAX 4
#define RIG_LINES_MAX 4096

/* What one member was told: lines such as "g m 2 hello", "g v 1,2 -3:proc", "q 1", "lost". */
struct rig_member {
    struct hf_engine *e; /* owned, or the simulator's; NULL: not running */
    unsigned n;
    char *line[RIG_LINES_MAX]; /* owned */
    uint64_t view_ring, quorum_ring;
    bool quorate, lost, deaf; /* deaf: not dispatched (a pause, as others see it) */
};

enum rig_kind { RIG_ALONE, RIG_SOCKETS, RIG_SIM };

struct rig {
    enum rig_kind kind;
    struct rig_member m[RIG_MAX];
    struct sim *sim; /* owned */
    char dir[64];    /* of RIG_SOCKETS; removed by rig_fini() */
    unsigned votes;
};

/** Callbacks that write to the struct rig_member given as arg. */
extern const struct hf_engine_callbacks rig_callbacks;

/** Begin with no member running; votes are the expected ones. */
void rig_init(struct rig *r, enum rig_kind kind, unsigned votes);
void rig_fini(struct rig *r);
/** Start member i (node id i + 1, host "n<id>"). */
void rig_start(struct rig *r, unsigned i);
/** Destroy member i's engine: others see its process die. */
void rig_stop(struct rig *r, unsigned i);
/** Run all until member i has been told `line` `times` times; false after 20 s (simulated or real).
 */
bool rig_wait(struct rig *r, unsigned i, const char *line, unsigned times);
/** How often was member i told this line? */
unsigned rig_count(const struct rig *r, unsigned i, const char *line);
/** Place of the first such line, or -1. */
int rig_find(const struct rig *r, unsigned i, const char *line);
/** Let everything run for ms. */
void rig_run(struct rig *r, int ms);
