/* The simulator's engine: members with CPG semantics on one simulated clock, from one seed. */
#pragma once

#include <stdbool.h>

#include "base/prng.h"
#include "engine/engine.h"

#define SIM_NODES_MAX 16
#define SIM_GROUPS_MAX 4

/*
 * What it shows that a real engine may do:
 *  - messages arrive late, at each member at another time (delay_max), in one order per ring;
 *  - a ring change cuts the tail: messages of nodes that are gone and that no member of the new
 * ring has delivered may be lost; all that move together deliver the same set before the change
 *    (virtual synchrony); a survivor's messages, joins and leaves are never cut;
 *  - the quorum and the view callback of one change come in either order;
 *  - a partition makes a ring on each side at once; healing makes one, without a word about which
 *    side was right;
 *  - a paused member is left behind after `detect`. When it wakes it is told that the others left
 * and came back, and never that it had lost quorum (seen with Corosync: research 1.4);
 *  - a ghost is in the list of members, has no vote, and never says anything (corosync#828);
 *  - a node that is not heard, or does not hear, makes rings change again and again: alone, and (if
 *    it is heard) those of the others too; now and then it is let in for a moment;
 *  - the engine's daemon dies on a node while its process lives (`lost`), and comes back later;
 *  - a process is stopped while its engine's daemon goes on: nobody is told (sim_hold).
 * All nodes vote; quorum is a majority of n. Node i has id i + 1 and host name "n<id>", if none is
 * given.
 */
struct sim_opt {
    uint64_t seed;
    unsigned n;              /* nodes, 1 ... SIM_NODES_MAX */
    hf_time delay_max;       /* of a delivery; 0: 1 ms */
    hf_time detect;          /* from a pause to the others' ring change; 0: 100 ms */
    const char *const *host; /* names of the nodes, borrowed for the simulator's life; or NULL */
};

enum sim_way { SIM_BOTH_WAYS, SIM_MUTE, SIM_DEAF }; /* mute: is not heard; deaf: does not hear */

struct sim;

/** A cluster in which no node runs yet; NULL when memory is out. */
struct sim *sim_create(const struct sim_opt *opt);
void sim_destroy(struct sim *s);

/** Start node i (first, or again after sim_crash); it joins the ring of its side. The engine
 * belongs to the simulator and lives until the node crashes; its destroy() is sim_crash(). */
struct hf_engine *sim_start(struct sim *s, unsigned i, const struct hf_engine_callbacks *cb,
                            void *arg);
/** End node i at once: its process (the others see PROCDOWN) or its host (NODEDOWN). */
void sim_crash(struct sim *s, unsigned i, bool host);

/** Stop and go on, as with SIGSTOP and SIGCONT. */
void sim_pause(struct sim *s, unsigned i);
void sim_resume(struct sim *s, unsigned i);
bool sim_paused(const struct sim *s, unsigned i);

/** Cut: nodes hear only nodes of the same side; side has n entries. All equal: heal. */
void sim_partition(struct sim *s, const uint8_t *side);

/** One-way cut of node i. */
void sim_one_way(struct sim *s, unsigned i, enum sim_way way);

/** The engine's daemon of node i dies: the others see NODEDOWN, the node `lost`. It may join at
 * once, and comes back by sim_regain. */
void sim_lose(struct sim *s, unsigned i);
void sim_regain(struct sim *s, unsigned i);
/** Is its engine lost, or does the node not know yet that it was? */
bool sim_lost(const struct sim *s, unsigned i);

/** Stop and go on only the process: its engine stays in the ring and keeps what comes. */
void sim_hold(struct sim *s, unsigned i, bool on);

/** Put a ghost (an id above all nodes') into a group on every side. */
void sim_ghost(struct sim *s, const char *group);

/** The simulated clock; dispatch() of the engines ignores its own `now`. */
hf_time sim_now(const struct sim *s);
/** When a node has something next; HF_NEVER: nothing is under way. */
hf_time sim_next(const struct sim *s);
/** Let time pass, and dispatch every running node when it has something. */
void sim_run(struct sim *s, hf_time until);
/** Randomness of the same seed, for the schedule. */
struct hf_prng *sim_prng(struct sim *s);
