/* Reading the tree: a snapshot in order of names, and a follower that tells every change once. */
#pragma once

#include <stdbool.h>

#include "core/directory/directory.h"

struct hf_buf;

/* ---- snapshot ---- */

struct hf_tree_walk;

/**
 * A walk over all entries at or below prefix ("" or "/": all), ordered by name, then owner, as the
 * tree stands now; later changes are not seen. NULL: out of memory. Destroy it; it keeps parts
 * alive.
 */
HF_MUST struct hf_tree_walk *hf_tree_walk_create(const struct hf_dir *dir,
                                                 struct hf_dir_store *store,
                                                 struct hf_slice prefix);
void hf_tree_walk_destroy(struct hf_tree_walk *w);

/** The next entry (borrowed while w lives) and its owner's name; false at the end. */
bool hf_tree_walk_next(struct hf_tree_walk *w, struct hf_slice *ret_owner,
                       struct hf_entry **ret_entry);

/**
 * Append entries as elements of a JSON array, {"name","owner","value"} each, until buf holds more
 * than `enough` bytes or the walk ends (then with the closing bracket). Returns false when it has
 * ended.
 */
bool hf_tree_walk_json(struct hf_tree_walk *w, struct hf_buf *buf, size_t enough);

/* ---- follower ---- */

/*
 * Knows of each owner the part that its reader was told, and tells the difference to the present
 * one whenever the reader has room. What changed twice meanwhile is told once, so that a slow
 * reader costs no queue.
 */
struct hf_follow;

enum hf_follow_event {
    HF_FOLLOW_ADDED = 1,
    HF_FOLLOW_CHANGED,
    HF_FOLLOW_REMOVED, /* the entry is the one that was there */
    HF_FOLLOW_SYNCED,  /* once, when we run: all that was there at the beginning has been told */
};

typedef void hf_follow_fn(void *arg, enum hf_follow_event event, struct hf_slice owner,
                          struct hf_entry *entry);

/** Follow prefix. wake(arg) is called (from within steps) when there is something to tell. */
struct hf_follows;
HF_MUST struct hf_follow *hf_follow_create(struct hf_follows *all, struct hf_slice prefix,
                                           void (*wake)(void *arg), void *arg);
void hf_follow_destroy(struct hf_follow *f);

/** Tell up to `most` events through fn(arg); true: there are more to tell now. */
bool hf_follow_tell(struct hf_follow *f, uint32_t most, hf_follow_fn *fn, void *arg);

/* All followers of one core. */
HF_MUST int hf_follows_create(const struct hf_dir *dir, struct hf_dir_store *store,
                              struct hf_follows **ret_follows);
void hf_follows_destroy(struct hf_follows *all);
/** A part changed (HF_DIR_ACT_PART): note it for all. */
void hf_follows_changed(struct hf_follows *all, uint32_t owner);
