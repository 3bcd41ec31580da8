/* The primary manager's side of a pair: streams what its sessions are, and says what may be let
 * out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/slice.h"
#include "codec/pair_v1.h"

/*
 * One reign (epoch) of the address group, as its primary lives it (I4, X1; takeover.md a-e, h).
 *
 *                  backup named              WELCOME
 *   NO_BACKUP <----------------> CONNECTING ----------> SYNCING
 *       ^        none named        ^     ^                |  |
 *       |                          |     +-- lost, solo --+  | all sent, gate closed, confirmed
 *       |                          |                         v
 *       +--- solo ----+--- solo ---+                     RECORDING (the group is asked)
 *                     |                                      | recorded
 *                     |      lost, silent, slow, overflow    v
 *                   LOST <------------------------------- IN_SYNC
 *                     |      (from SYNCING and RECORDING, too, if not solo)
 *                     +--> RECORDING, IN_SYNC   it came back and goes on where it was
 *                     +--> SYNCING              it came back with nothing
 *
 * *Owed*: the host that the group may promote, as far as this side can tell: nobody at the
 * beginning of a reign (but conf.owed: the group kept its set, as the same copy was promoted once
 * more), the backup from the moment RECORD is asked, nobody again when SOLO was granted. To go on
 * alone is a right (solo = nobody is owed), never a guess.
 *
 * *The gate* is open (nobody waits, batches count as confirmed when sealed) only while solo, and
 * then until every session was sent: so nobody waits for a snapshot. It closes before the sync is
 * complete, and "in sync" is what was confirmed after everything that had been let out before
 * (takeover.md h). Closed, a batch counts as confirmed when the backup has it in a complete store,
 * and only if no other host is owed. Nothing is let out after the lease (G2, I10).
 *
 * *Snapshot*: session by session, each in one batch, most recently active first, between live
 * batches. Until its turn comes the operations of a session are not sent; from then on all are.
 * Sessions that begin meanwhile need none.
 *
 * A broken connection: what was not confirmed is kept (up to `retained_max`) until solo is
 * granted, and the same backup goes on where it was. A backup that has lost its store is told to
 * the group at once (ASK_SOLO) and filled anew.
 *
 * How the driver uses it, each turn of its loop: operations, hf_pair_primary_seal(), which numbers
 * them; what must wait waits for that number. Then hf_pair_primary_next() until it is false, then
 * send hf_pair_primary_tosend(), saying how much was taken by hf_pair_primary_sent(). Sleep until
 * hf_pair_primary_deadline(), then hf_pair_primary_step(), and next() again.
 *
 *   CONFIRMED  batches up to number may take effect: write to sockets, acknowledge, COMMIT
 *   SNAPSHOT   put all sections and set all items of this session now, before next()
 *   CLOSE_GATE from now on nothing that comes is acknowledged, written or committed before it is
 *              confirmed; when everything that was acknowledged already (also what the kernel
 *              still holds, SIOCINQ) is in operations: hf_pair_primary_gated()
 *   OPEN_GATE  no more waiting: CONFIRMED comes with each seal
 *   CONNECT    to the backup; then hf_pair_primary_connected() or _disconnected()
 *   CLOSE      the connection, or what is becoming one; _disconnected() is not called for it
 *   ASK_SOLO   ask the group to take everybody but this host out of the set of those that may be
 *              promoted (X5: first on a quorum's disks, then answer), then _answer()
 *   ASK_RECORD ask it to take `host` in. Asks have growing ids; the group ignores an ask with a
 *              smaller id than one it has acted upon. Unanswered asks come again
 */
#define HF_PAIR_STATE_LIST(X)                                                                      \
    X(NO_BACKUP, "no backup")                                                                      \
    X(CONNECTING, "connecting")                                                                    \
    X(SYNCING, "syncing")                                                                          \
    X(RECORDING, "recording")                                                                      \
    X(IN_SYNC, "in sync")                                                                          \
    X(LOST, "lost")
enum hf_pair_state {
#define HF_PAIR_STATE_ENUM(id, name) HF_PAIR_STATE_##id,
    HF_PAIR_STATE_LIST(HF_PAIR_STATE_ENUM)
#undef HF_PAIR_STATE_ENUM
        HF_PAIR_STATE_COUNT_
};
const char *hf_pair_state_name(enum hf_pair_state s);

/* name, text */
#define HF_PAIR_PRIMARY_COUNTER_LIST(X)                                                            \
    X(batches, "batches sealed")                                                                   \
    X(batches_sent, "those put on the wire")                                                       \
    X(bytes_sent, "bytes taken by the connection")                                                 \
    X(confirms, "confirms from the backup")                                                        \
    X(other_epoch, "frames of another epoch, dropped")                                             \
    X(malformed, "connections broken off: frames that make no sense")                              \
    X(losses, "connections to a backup lost")                                                      \
    X(silences, "those broken off because nothing was heard")                                      \
    X(slow, "those broken off because a confirm took too long")                                    \
    X(overflows, "times that more was unconfirmed than is kept")                                   \
    X(resumes, "connections that went on where the last one broke")                                \
    X(syncs, "snapshots begun")                                                                    \
    X(snapshots, "sessions sent in snapshots")                                                     \
    X(recorded, "times that the group has recorded a backup as in sync")                           \
    X(solos, "times that going on alone was granted")                                              \
    X(asks, "questions to the group")                                                              \
    X(leases_expired, "times that the lease ran out")
struct hf_pair_primary_counters {
#define HF_PAIR_PRIMARY_COUNTER_FIELD(name, text) uint64_t name;
    HF_PAIR_PRIMARY_COUNTER_LIST(HF_PAIR_PRIMARY_COUNTER_FIELD)
#undef HF_PAIR_PRIMARY_COUNTER_FIELD
};

/** Options; 0 is the default in brackets. Copied. */
struct hf_pair_primary_conf {
    uint64_t epoch;          /* of this reign, not 0 */
    uint64_t incarnation;    /* of this reign on this process: random, not 0 */
    uint32_t owed;           /* whom the group may promote already, though it has nothing of this
                                reign; 0: nobody */
    hf_time heartbeat;       /* [10 ms] */
    hf_time silence;         /* [100 ms] nothing heard: the connection is broken off */
    hf_time confirm_timeout; /* [2 s] the oldest batch unconfirmed: likewise */
    hf_time solo_after;      /* [20 ms] lost for so long: the group is asked */
    hf_time ask_again;       /* [500 ms] */
    hf_time connect_again;   /* [100 ms] after one that failed, or did not last so long; 50 times
                                that where the backup speaks no common version */
    size_t unconfirmed_max;  /* [4 MiB] bytes: then hf_pair_primary_full() */
    uint32_t batches_max;    /* [4096] likewise */
    size_t retained_max; /* [256 MiB] bytes kept for a backup that does not confirm: over it, it is
                            lost */
    size_t snapshot_window; /* [256 KiB] unconfirmed bytes up to which sessions are sent */
};

struct hf_pair_primary;

/** The reign begins: the lease is for ever; nobody else may be promoted, and the gate is open, but
 * with conf.owed: LOST, that host is the backup, and the group is asked at once. 0 or -ENOMEM. */
HF_MUST int hf_pair_primary_create(const struct hf_pair_primary_conf *conf, hf_time now,
                                   struct hf_pair_primary **ret_primary);
void hf_pair_primary_destroy(struct hf_pair_primary *p);

/* --- the group --- */

/** Who is to be the backup: an id of the user's, 0: nobody. */
void hf_pair_primary_backup(struct hf_pair_primary *p, uint32_t host, hf_time now);
/** An ask was answered: done, or refused. */
void hf_pair_primary_answer(struct hf_pair_primary *p, uint64_t id, bool done, hf_time now);
/** Nothing is let out at or after `until` (HF_NEVER: the group fences instead). */
void hf_pair_primary_lease(struct hf_pair_primary *p, hf_time until, hf_time now);

/* --- the connection --- */

void hf_pair_primary_connected(struct hf_pair_primary *p, hf_time now);
/** It broke, or was not to be had. */
void hf_pair_primary_disconnected(struct hf_pair_primary *p, hf_time now);
/** Bytes came, cut anywhere; all are consumed. */
void hf_pair_primary_received(struct hf_pair_primary *p, struct hf_slice bytes, hf_time now);
/** What is to be sent; borrowed until the next call. May be part of more. */
struct hf_slice hf_pair_primary_tosend(struct hf_pair_primary *p);
void hf_pair_primary_sent(struct hf_pair_primary *p, size_t n);
/** Say BYE (0 or -HF_E*), which overtakes batches: send what is to be sent, close, destroy. */
void hf_pair_primary_bye(struct hf_pair_primary *p, int code, hf_time now);

/** A session begins: operations on it may follow. Ids are not used again. 0, or -ENOMEM, -HF_EFULL:
 * it can't be protected. Its whole state must stay below HF_PAIR_BATCH_MAX. */
HF_MUST int hf_pair_primary_begin(struct hf_pair_primary *p, uint64_t session);

/* --- operations: borrowed for the call; what can't be kept makes the backup lost, never wrong ---
 */

void hf_pair_primary_put(struct hf_pair_primary *p, uint64_t session, uint8_t section,
                         struct hf_slice bytes);
void hf_pair_primary_append(struct hf_pair_primary *p, uint64_t session, uint8_t section,
                            struct hf_slice bytes);
void hf_pair_primary_cut(struct hf_pair_primary *p, uint64_t session, uint8_t section, uint32_t n);
void hf_pair_primary_clear(struct hf_pair_primary *p, uint64_t session, uint8_t section);
/** name: at most HF_PAIR_NAME_MAX bytes. */
void hf_pair_primary_set(struct hf_pair_primary *p, uint64_t session, uint8_t section,
                         struct hf_slice name, struct hf_slice bytes);
void hf_pair_primary_unset(struct hf_pair_primary *p, uint64_t session, uint8_t section,
                           struct hf_slice name);
/** The session is over. */
void hf_pair_primary_end(struct hf_pair_primary *p, uint64_t session);

/** End of a turn: the operations since the last one are a batch. Returns the number of the newest
 * batch, for which what they cause must wait. */
uint64_t hf_pair_primary_seal(struct hf_pair_primary *p, hf_time now);
/** Answers CLOSE_GATE, unless OPEN_GATE came meanwhile. */
void hf_pair_primary_gated(struct hf_pair_primary *p, hf_time now);
/** May what waits for this batch take effect at this instant? CONFIRMED says the same as an event;
 * this is for what is done later than in the same turn, as the lease may be over by then. */
bool hf_pair_primary_may(const struct hf_pair_primary *p, uint64_t number, hf_time now);
/** Too much is unconfirmed: read nothing more from clients and servers until it is false. */
bool hf_pair_primary_full(const struct hf_pair_primary *p);

/* --- what to do --- */

#define HF_PAIR_OUT_LIST(X)                                                                        \
    X(CLOSE, "close")                                                                              \
    X(CONNECT, "connect")                                                                          \
    X(CLOSE_GATE, "close gate")                                                                    \
    X(OPEN_GATE, "open gate")                                                                      \
    X(ASK_SOLO, "ask solo")                                                                        \
    X(ASK_RECORD, "ask record")                                                                    \
    X(CONFIRMED, "confirmed")                                                                      \
    X(SNAPSHOT, "snapshot")
enum hf_pair_out_kind {
#define HF_PAIR_OUT_ENUM(id, name) HF_PAIR_OUT_##id,
    HF_PAIR_OUT_LIST(HF_PAIR_OUT_ENUM)
#undef HF_PAIR_OUT_ENUM
        HF_PAIR_OUT_COUNT_
};
const char *hf_pair_out_name(enum hf_pair_out_kind k);
struct hf_pair_out {
    enum hf_pair_out_kind kind;
    uint32_t host;    /* CONNECT, ASK_RECORD */
    uint64_t number;  /* CONFIRMED */
    uint64_t id;      /* ASK_* */
    uint64_t session; /* SNAPSHOT */
};
HF_MUST bool hf_pair_primary_next(struct hf_pair_primary *p, hf_time now,
                                  struct hf_pair_out *ret_out);
void hf_pair_primary_step(struct hf_pair_primary *p, hf_time now);
hf_time hf_pair_primary_deadline(const struct hf_pair_primary *p);

/** For consoles and tests. */
struct hf_pair_primary_info {
    enum hf_pair_state state;
    bool solo;       /* the group counts on nobody else */
    bool gate_open;  /* nobody waits */
    bool leased;     /* the lease has not run out */
    int code;        /* why the last connection ended: 0 or -HF_E* */
    uint32_t backup; /* as named */
    uint64_t sealed, confirmed;
    size_t lag_bytes, lag_batches; /* unconfirmed */
    hf_time lag_age;               /* of the oldest unconfirmed batch */
    hf_time echoed; /* when the heartbeat was sent that this backup answered last; 0: none */
    hf_time rtt;    /* of heartbeats, smallest of the last ones; HF_NEVER: none */
    size_t sessions, unsent;   /* known, and those whose snapshot is still to be sent */
    hf_time since;             /* of the state */
    hf_time unprotected_since; /* HF_NEVER: in sync */
};
void hf_pair_primary_info(const struct hf_pair_primary *p, hf_time now,
                          struct hf_pair_primary_info *ret_info);
const struct hf_pair_primary_counters *hf_pair_primary_counters(const struct hf_pair_primary *p);
