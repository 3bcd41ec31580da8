/* What the group's lists of mirrors mean to a primary: who is its backup, and what the group has
 * answered. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "core/pair/primary.h"

#define HF_PAIR_MIRRORS_MAX 16
#define HF_PAIR_COPY_LEN 64

/*
 * The agent's action mirror-source brings a list (doc/design/agents.md): which copies the group
 * may promote or is about to (sync, grow), and which may follow (async). One of them is the backup
 * (`chosen`): who may be promoted, else who was it before, else the first that has a host.
 *
 * The lists are the group's answers, too: solo is granted when the chosen one may not be promoted,
 * it is recorded when it is sync. For S is a subset of the list in force, always (X5): what joins S
 * is listed first, what leaves S is recorded first.
 */
struct hf_pair_mirror {
    char copy[HF_PAIR_COPY_LEN], host[HF_HOST_NAME_MAX + 1], address[64];
    bool in_set; /* sync or grow */
    bool sync;
};

struct hf_pair_lists {
    struct hf_pair_mirror mirror[HF_PAIR_MIRRORS_MAX];
    size_t n;
    size_t chosen; /* in mirror[]; n: nobody */
    char chosen_copy[HF_PAIR_COPY_LEN];
    uint32_t chosen_id;                /* for the core: another number for each choice */
    uint64_t asked_solo, asked_record; /* ids; 0: not asked */
};

/** A reign begins, or ends: no list. Ids of choices go on. */
void hf_pair_lists_reset(struct hf_pair_lists *l);
/** A list comes into force. true: another copy is the backup; hf_pair_lists_backup() says which,
 * after all answers have been given. */
HF_MUST bool hf_pair_lists_take(struct hf_pair_lists *l, const char *mirrors);
/** The list that comes with a question: who was to grow may be sync by now; nothing else of it
 * counts. */
void hf_pair_lists_note(struct hf_pair_lists *l, const char *mirrors);
/** The backup's id for hf_pair_primary_backup(), and its mirror (borrowed until the next list); 0
 * and NULL: nobody. */
uint32_t hf_pair_lists_backup(const struct hf_pair_lists *l,
                              const struct hf_pair_mirror **ret_mirror);
/** Is the backup to have everything, and not in S yet? Then mirror-source waits. */
bool hf_pair_lists_growing(const struct hf_pair_lists *l);

/** ASK_SOLO or ASK_RECORD of the core. */
void hf_pair_lists_ask(struct hf_pair_lists *l, const struct hf_pair_out *ask);
/** The id of an ask that the list in force answers (with yes), once; 0: none. */
uint64_t hf_pair_lists_answer(struct hf_pair_lists *l);

/** mirror-state's words for a mirror: "in-sync", "syncing 40", ... */
void hf_pair_lists_state(const struct hf_pair_lists *l, size_t i,
                         const struct hf_pair_primary_info *info, char *buf, size_t n);
/** Has the backup everything that was let out up to now? */
bool hf_pair_lists_has_all(const struct hf_pair_primary_info *info);

/** Until when anything may be let out (G2): `lease` (0: fenced instead) after the heartbeat that
 * the backup answered last was sent; HF_NEVER while the group counts on nobody else. */
hf_time hf_pair_lease_until(const struct hf_pair_primary_info *info, hf_time lease);
