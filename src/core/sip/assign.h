/* The cache of the assignment table (D2): which server is the home of an AoR, and since which
 * epoch. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "base/slice.h"
#include "core/sip/fleet.h"

/*
 * The table is SQL; this is what one server has read of it. A row's life, and who may change what:
 *
 *   (none) --first sight: any server inserts, epoch 1--> ASSIGNED --leader only, epoch + 1--+
 *                                                            ^                             |
 *                                                            +-----------------------------+
 *
 * Of two rows of one AoR the one with the higher epoch is right, an older one is ignored (I7). One
 * of the same epoch that differs can only be of a database that was restored from a backup: the
 * later word counts. Only the leader (the primary of a group without resources) changes home,
 * current, pinned or epoch; only the server that is `current` writes what it learnt of the user
 * agent, and re-asserts the row.
 *
 * What is remembered of a user agent (S6), by a hash of its User-Agent: another one is UNKNOWN.
 *
 *   UNKNOWN --offered a redirect at a refresh--> OFFERED --came to the new address--> FOLLOWS
 *                                                   +------came the old way---------> IGNORES
 *   FOLLOWS, and its binding expired: UNKNOWN
 *
 * The database, as this server sees it:
 *
 *   CATCHING_UP --all changes since `change` read--> FRESH
 *      ^    (start; LISTEN is set up first)            |
 *      +-------- there again ------ AWAY <--- gone ----+ (or from CATCHING_UP)
 *
 * In every state what is cached is served: a row that has become wrong meanwhile costs a hop (I7),
 * no more. What is not cached is read, or with the database AWAY refused (503).
 *
 * Changes come as (change, row): `change` counts the leader's transactions, which are serial, so
 * reading "change > n" misses none. A `change` below what was read already means that the database
 * was restored from a backup: everything of ours is asserted anew at once (what has the higher
 * epoch wins there, too).
 *
 * Memory: rows of 20 bytes and their AoR in slabs of 64 KiB, and 5 to 11 bytes of index each. When
 * bytes_max is reached those go that nobody asked for lately; our own rows stay.
 *
 * Not thread-safe, but get() may be called by many threads while nobody calls anything else.
 */
#define HF_SIP_AGENT_LIST(X)                                                                       \
    X(UNKNOWN, "unknown")                                                                          \
    X(OFFERED, "offered")                                                                          \
    X(FOLLOWS, "follows")                                                                          \
    X(IGNORES, "ignores")
enum hf_sip_agent {
#define HF_SIP_AGENT_ENUM(id, name) HF_SIP_AGENT_##id,
    HF_SIP_AGENT_LIST(HF_SIP_AGENT_ENUM)
#undef HF_SIP_AGENT_ENUM
        HF_SIP_AGENT_COUNT_
};
const char *hf_sip_agent_name(enum hf_sip_agent a);

/** A row of the table. */
struct hf_sip_row {
    struct hf_slice aor; /* canonical, 1 to HF_SIP_AOR_MAX bytes; borrowed */
    uint16_t home;       /* where it belongs: failing over does not change it */
    uint16_t current;    /* who serves it now: all decisions go by this one */
    uint64_t epoch;      /* from 1; grows with each change */
    bool pinned;         /* by an operator: moved only when its home dies, and back */
    uint8_t agent;       /* enum hf_sip_agent */
    uint16_t agent_id;   /* hash of the User-Agent that `agent` is about */
};

#define HF_SIP_TABLE_LIST(X)                                                                       \
    X(CATCHING_UP, "catching up")                                                                  \
    X(FRESH, "fresh")                                                                              \
    X(AWAY, "away")
enum hf_sip_table {
#define HF_SIP_TABLE_ENUM(id, name) HF_SIP_TABLE_##id,
    HF_SIP_TABLE_LIST(HF_SIP_TABLE_ENUM)
#undef HF_SIP_TABLE_ENUM
        HF_SIP_TABLE_COUNT_
};
const char *hf_sip_table_name(enum hf_sip_table s);

#define HF_SIP_ASSIGN_COUNTER_LIST(X)                                                              \
    X(rows_new, "rows cached")                                                                     \
    X(rows_newer, "rows replaced by a higher epoch")                                               \
    X(rows_older, "rows ignored: older than what is known (I7)")                                   \
    X(conflicts, "rows replaced by one of the same epoch")                                         \
    X(rows_bad, "rows refused: no AoR, no epoch, or no server")                                    \
    X(passed_over, "changes of rows that are not cached")                                          \
    X(evicted, "rows dropped for others")                                                          \
    X(full, "rows not cached for want of memory")                                                  \
    X(asserted, "rows of ours asserted anew")                                                      \
    X(gone_back, "times that the table was older than what was read before")                       \
    X(away, "times that the database was away")
struct hf_sip_assign_counters {
#define HF_SIP_ASSIGN_COUNTER_FIELD(name, text) uint64_t name;
    HF_SIP_ASSIGN_COUNTER_LIST(HF_SIP_ASSIGN_COUNTER_FIELD)
#undef HF_SIP_ASSIGN_COUNTER_FIELD
};

/** Options; 0 is the default in brackets. Copied. */
struct hf_sip_assign_conf {
    uint16_t self;           /* our number in the fleet; HF_SIP_NONE: homes nobody */
    uint64_t seed;           /* keeps outsiders from choosing AoRs that collide */
    size_t bytes_max;        /* [1 GiB] of rows and index */
    hf_time assert_interval; /* [10 min] in which each of our rows is asserted once */
};

struct hf_sip_assign;

/** An empty cache, CATCHING_UP. 0 or -ENOMEM. */
HF_MUST int hf_sip_assign_create(const struct hf_sip_assign_conf *conf, hf_time now,
                                 struct hf_sip_assign **ret_assign);
void hf_sip_assign_destroy(struct hf_sip_assign *a);

/** The cached row; its aor is borrowed until the next change. false: not cached. */
bool hf_sip_assign_get(const struct hf_sip_assign *a, struct hf_slice aor,
                       struct hf_sip_row *ret_row);

/* What came of a row. */
#define HF_SIP_APPLY_LIST(X)                                                                       \
    X(BAD, "bad")           /* not a row; nothing changed, as with the next four */                \
    X(OLDER, "older")       /* than what is cached */                                              \
    X(CONFLICT, "conflict") /* another one of the same epoch: read it again */                     \
    X(SAME, "same")                                                                                \
    X(PASSED_OVER, "passed over") /* a change of what is not cached */                             \
    X(FULL, "full")               /* right, but not to be cached */                                \
    X(NEW, "new")                                                                                  \
    X(NEWER, "newer")                                                                              \
    X(GAINED, "gained") /* new or newer, and now it is ours: load its bindings (D11) */            \
    X(LOST, "lost")     /* newer, and it was ours: tell its watchers and clients (D9, D10) */
enum hf_sip_apply {
#define HF_SIP_APPLY_ENUM(id, name) HF_SIP_APPLY_##id,
    HF_SIP_APPLY_LIST(HF_SIP_APPLY_ENUM)
#undef HF_SIP_APPLY_ENUM
        HF_SIP_APPLY_COUNT_
};
const char *hf_sip_apply_name(enum hf_sip_apply a);

/** A row that was asked for, or inserted by ourselves: it is cached. What was learnt of the agent
 * is taken over with an equal epoch, too. */
enum hf_sip_apply hf_sip_assign_read(struct hf_sip_assign *a, const struct hf_sip_row *row);
/** A row of the change feed: it is cached if it is already, or is ours. */
enum hf_sip_apply hf_sip_assign_changed(struct hf_sip_assign *a, const struct hf_sip_row *row);
/** The row is no more (the user was deleted). true: it was ours. */
bool hf_sip_assign_forget(struct hf_sip_assign *a, struct hf_slice aor);
/** What our own eyes saw of the AoR's user agent; false: it is not cached, or not ours. */
bool hf_sip_assign_learn(struct hf_sip_assign *a, struct hf_slice aor, enum hf_sip_agent agent,
                         uint16_t agent_id);

/** The database is there (again), or away. */
void hf_sip_assign_database(struct hf_sip_assign *a, bool there);
/** All changes up to and with this one were given to changed(): FRESH. */
void hf_sip_assign_caught_up(struct hf_sip_assign *a, uint64_t change, hf_time now);
/** Read "change > this" next; 0: nothing was read yet. */
uint64_t hf_sip_assign_change(const struct hf_sip_assign *a);
enum hf_sip_table hf_sip_assign_table(const struct hf_sip_assign *a);

/**
 * The next of our rows to be asserted: INSERT it, or raise the stored one's epoch to it:
 *   ... ON CONFLICT (aor) DO UPDATE SET ... WHERE excluded.epoch > assignment.epoch
 * and give what is stored then to read(). Spread over assert_interval; false: none is due.
 */
bool hf_sip_assign_next_assert(struct hf_sip_assign *a, hf_time now, struct hf_sip_row *ret_row);
/** When next_assert() may have one; HF_NEVER with the database away. */
hf_time hf_sip_assign_deadline(const struct hf_sip_assign *a);

/** Walk all cached rows: start with *pos = 0; false at the end. Not while rows come or go. */
bool hf_sip_assign_next(const struct hf_sip_assign *a, uint64_t *pos, struct hf_sip_row *ret_row);
/** Rows cached, those of them that are ours, pinned ones among these, and bytes of memory in all.
 */
struct hf_sip_assign_info {
    uint64_t n_rows, n_ours, n_pinned, bytes;
};
void hf_sip_assign_info(const struct hf_sip_assign *a, struct hf_sip_assign_info *ret_info);
const struct hf_sip_assign_counters *hf_sip_assign_counters(const struct hf_sip_assign *a);
