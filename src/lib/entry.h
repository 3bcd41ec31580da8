/* An entry of the tree that a program keeps: what it is is told at once when it changes, its
 * figures from time to time. */
#pragma once

#include <stdbool.h>

#include "base/attr.h"
#include "base/hftime.h"

struct holdfast;

struct hf_entry {
    struct holdfast *h; /* borrowed */
    const char *name;   /* borrowed: the service's */
    const char *unseen; /* borrowed: who does not see what if it is refused, for the log */
    hf_time figures;    /* so long after it was told last figures alone are told */
    char *state, *told; /* owned, of malloc(3); NULL: nothing yet */
    hf_time told_at;
    bool refused; /* logged */
};

/** Are the figures wanted? state: the entry without them; NULL: there was no memory for it. */
HF_MUST bool hf_entry_due(const struct hf_entry *e, const char *state, hf_time now);

/** Publish value, the entry with its figures, if anything has changed. Takes both, of malloc(3), on
 * every path; value NULL: nothing is due. True: it was published. */
HF_MUST bool hf_entry_tell(struct hf_entry *e, char *state, char *value, hf_time now);

/** What was told does not count any more: the next time it is told whatever it is. */
void hf_entry_forget(struct hf_entry *e);

/** Free what it has; the entry itself goes with the connection. */
void hf_entry_fini(struct hf_entry *e);
