/* The backup manager's side of a pair: keeps what the primary streams, confirms it, takes over. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/slice.h"
#include "core/pair/store.h"

/*
 *               HELLO                 SYNC
 *   WAITING -------------> GREETED ---------> FILLING   a second store; the complete one, if there
 *     ^                       |                  |      is one, stays what would be taken over
 *     |                       | batch or beat    |
 *     |                       v                  | its last batch: now this is the store
 *     |                   FOLLOWING <------------+
 *     |                       |
 *     +-----------------------+   from any of them: connection lost, silent, BYE, or wrong
 *
 *   any ----> TAKEN               nothing is confirmed any more; all that comes is dropped, counted
 *
 * A batch is applied whole or not at all, and confirmed once per hf_pair_backup_received(). What
 * does not fit into memory or limits spoils the store: the primary is told (BYE) and must fill a
 * new one. Frames of another epoch are dropped and counted; a HELLO of another one is answered by
 * BYE. After the group has named another primary: hf_pair_backup_epoch().
 *
 * Take-over: when the group has made this host the primary of a new epoch, and
 * hf_pair_backup_usable() with the epoch before it was reported to the group beforehand:
 * hf_pair_backup_take() gives the store; a primary core of the new epoch begins beside it.
 */
#define HF_PAIR_BACKUP_STATE_LIST(X)                                                               \
    X(WAITING, "waiting")                                                                          \
    X(GREETED, "greeted")                                                                          \
    X(FILLING, "filling")                                                                          \
    X(FOLLOWING, "following")                                                                      \
    X(TAKEN, "taken")
enum hf_pair_backup_state {
#define HF_PAIR_BACKUP_STATE_ENUM(id, name) HF_PAIR_BACKUP_##id,
    HF_PAIR_BACKUP_STATE_LIST(HF_PAIR_BACKUP_STATE_ENUM)
#undef HF_PAIR_BACKUP_STATE_ENUM
        HF_PAIR_BACKUP_STATE_COUNT_
};
const char *hf_pair_backup_state_name(enum hf_pair_backup_state s);

/* name, text */
#define HF_PAIR_BACKUP_COUNTER_LIST(X)                                                             \
    X(batches, "batches applied")                                                                  \
    X(bytes, "bytes received")                                                                     \
    X(confirms, "confirms sent")                                                                   \
    X(other_epoch, "frames of another epoch, dropped")                                             \
    X(malformed, "connections broken off: frames that make no sense")                              \
    X(losses, "connections of the primary lost")                                                   \
    X(silences, "those broken off because nothing was heard")                                      \
    X(spoiled, "stores given up: no memory, or over a limit")                                      \
    X(resumes, "connections that went on where the last one broke")                                \
    X(syncs, "snapshots begun")                                                                    \
    X(synced, "snapshots complete")
struct hf_pair_backup_counters {
#define HF_PAIR_BACKUP_COUNTER_FIELD(name, text) uint64_t name;
    HF_PAIR_BACKUP_COUNTER_LIST(HF_PAIR_BACKUP_COUNTER_FIELD)
#undef HF_PAIR_BACKUP_COUNTER_FIELD
};

/** Options; 0 is the default in brackets. Copied. */
struct hf_pair_backup_conf {
    uint64_t epoch;   /* of the primary's reign, 0: none known yet */
    uint64_t seed;    /* of the store's tables */
    size_t bytes_max; /* [1 GiB] of a store */
    hf_time silence;  /* [100 ms] nothing heard: the primary is taken for lost */
};

struct hf_pair_backup;

/** 0 or -ENOMEM. */
HF_MUST int hf_pair_backup_create(const struct hf_pair_backup_conf *conf, hf_time now,
                                  struct hf_pair_backup **ret_backup);
void hf_pair_backup_destroy(struct hf_pair_backup *b);

/** The group has another epoch (greater): connections end, the store is of the past. */
void hf_pair_backup_epoch(struct hf_pair_backup *b, uint64_t epoch, hf_time now);

/** A primary has connected: a connection before it is over, and is to be closed by the user. */
void hf_pair_backup_connected(struct hf_pair_backup *b, hf_time now);
void hf_pair_backup_disconnected(struct hf_pair_backup *b, hf_time now);
/** Bytes came, cut anywhere; all are consumed. */
void hf_pair_backup_received(struct hf_pair_backup *b, struct hf_slice bytes, hf_time now);
/** What is to be sent; borrowed until the next call. */
struct hf_slice hf_pair_backup_tosend(struct hf_pair_backup *b);
void hf_pair_backup_sent(struct hf_pair_backup *b, size_t n);
/** true: send what is to be sent, then close the connection; asked once, after each call. */
HF_MUST bool hf_pair_backup_closes(struct hf_pair_backup *b);

void hf_pair_backup_step(struct hf_pair_backup *b, hf_time now);
hf_time hf_pair_backup_deadline(const struct hf_pair_backup *b);

/** Is the store complete, and of the reign `epoch`? Only then may this host be promoted after it.
 */
bool hf_pair_backup_usable(const struct hf_pair_backup *b, uint64_t epoch);
/** Take over: the store, owned by the caller now; NULL if it is not complete. Nothing is confirmed
 * from now on. */
struct hf_pair_store *hf_pair_backup_take(struct hf_pair_backup *b);

/** For consoles, the take-over and tests. */
struct hf_pair_backup_info {
    enum hf_pair_backup_state state;
    bool complete;
    uint64_t epoch, incarnation; /* of the complete store */
    uint64_t number;             /* of the last batch in it */
    size_t sessions, bytes;
    hf_time heard; /* from the primary; HF_NEVER: not on this connection */
    /* An instant of the primary's clock + offset is not before the same instant of ours: the
     * smallest of the last heartbeats' differences. Valid if clocked. */
    bool clocked;
    hf_time clock_offset;
    int code; /* why the last connection ended: 0 or -HF_E* */
};
void hf_pair_backup_info(const struct hf_pair_backup *b, struct hf_pair_backup_info *ret_info);
/** The complete store, or NULL; borrowed until the next call. */
const struct hf_pair_store *hf_pair_backup_store(const struct hf_pair_backup *b);
const struct hf_pair_backup_counters *hf_pair_backup_counters(const struct hf_pair_backup *b);
