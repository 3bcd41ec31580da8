/* Inside the SIP store: ops in its queue, batches of them, and what a backend must do. */
#pragma once

#include <poll.h>
#include <stdatomic.h>

#include "base/hftime.h"
#include "base/list.h"
#include "sip/store.h"

/*
 * Everything here is the store's thread's. A backend is either synchronous (SQLite: results come
 * within run()) or not (PostgreSQL).
 */
#define HF_SIP_STORE_SCHEMA 1 /* the version of the tables that this program knows */
/* NOTIFY: 'c': rows have changed; 'a' and an AoR: agent; 'n', a server, a space and an AoR: a row
 * that was inserted for another server than who did it */
#define HF_SIP_STORE_CHANNEL "holdfast_sip"
/* The advisory lock of PostgreSQL: shared while something is stored under an epoch, exclusive while
 * epochs change. So no binding is stored under an old one, and nobody writes to rows to lock them.
 */
#define HF_SIP_STORE_LOCK "5207941623560360005"
#define HF_SIP_STORE_LOCK_HIGH "1212568400" /* as pg_locks has it: classid, objid */
#define HF_SIP_STORE_LOCK_LOW "1397313605"

#define HF_SIP_STORE_ID_LEN                                                                        \
    16 /* bytes of SHA-256 of a key: keys may be longer than an index takes */

/* RAISE: those ASSERTs that found a lower epoch; alone, as they exclude all BINDs meanwhile. */
enum hf_sip_lane { HF_SIP_READS, HF_SIP_WRITES, HF_SIP_RAISES, HF_SIP_LANE_COUNT_ };

struct hf_sip_line; /* the ops of one AoR, in order */

/** An op in the queue: owned by the store. */
struct hf_sip_queued {
    struct hf_list node; /* incoming; then its line's */
    struct hf_sip_line *line;
    struct hf_sip_op op; /* its slices point into text */
    unsigned worker;
    hf_time due;
    bool notice; /* READ of our own, as another server said so: the row goes to the feed */
    bool raise;  /* ASSERT: what is stored is lower */
    bool alone;  /* a batch with it was refused by the database */
    bool done;
    uint8_t text[];
};

/** Ops that are done in one transaction; sorted by AoR, so that two never wait for each other. */
struct hf_sip_batch {
    struct hf_list node; /* those in flight */
    enum hf_sip_lane lane;
    struct hf_sip_queued **op; /* owned array; [n] */
    size_t n, bytes;
};

struct hf_sip_backend;
struct hf_sip_backend_type {
    /** 0 or -ENOMEM. */
    int (*create)(struct hf_sip_store *s, struct hf_sip_backend **ret_backend);
    void (*destroy)(struct hf_sip_backend *b);
    /** Connect; ends in hf_sip_store_up() or _down(). */
    void (*connect)(struct hf_sip_backend *b);
    /** May one more batch be begun there? */
    bool (*room)(const struct hf_sip_backend *b, enum hf_sip_lane lane);
    /** hf_sip_store_answer() for each op once it is committed, then hf_sip_store_batch_done(); or
     * _refused(); or _down(). */
    void (*run)(struct hf_sip_backend *b, struct hf_sip_batch *batch);
    /** Read our rows (ours), or changes after `change`: hf_sip_store_feed_row() for each, then
     * _feed_end(). One at a time. */
    void (*feed)(struct hf_sip_backend *b, bool ours, uint64_t change);
    /** Descriptors to wait for, at most 2; and what came of it, also when nothing did. */
    unsigned (*fds)(const struct hf_sip_backend *b, struct pollfd fd[2]);
    void (*io)(struct hf_sip_backend *b, const struct pollfd *fd, unsigned n, hf_time now);
    hf_time (*deadline)(const struct hf_sip_backend *b);
};
extern const struct hf_sip_backend_type hf_sip_backend_sqlite, hf_sip_backend_pg;

const struct hf_sip_store_conf *hf_sip_store_conf(const struct hf_sip_store *s);
/** The file of a "sqlite:" URI, or NULL: PostgreSQL's. */
const char *hf_sip_store_file(const char *uri);

/** The database is there; change: as it is now. */
void hf_sip_store_up(struct hf_sip_store *s, uint64_t change);
/** It is away: the backend has closed all, and forgotten all batches. */
void hf_sip_store_down(struct hf_sip_store *s, const char *text);

/** A row as SQL has it, with servers' names. */
struct hf_sip_stored_row {
    struct hf_slice aor, home, current;
    uint64_t epoch;
    bool pinned;
    uint8_t agent;
    int16_t agent_id; /* - 32768 */
};
/** With numbers instead of names. */
struct hf_sip_row hf_sip_store_row(struct hf_sip_store *s, const struct hf_sip_stored_row *row);
/** A server's name; NUL-terminated in buf. */
struct hf_slice hf_sip_store_name(struct hf_sip_store *s, uint16_t server,
                                  char buf[HF_HOST_NAME_MAX + 1]);
static inline int16_t hf_sip_store_i16(uint16_t v)
{
    return (int16_t)(v - 32768);
}

/** What came of an op. r: all but kind, cookie and aor is the backend's. For an ASSERT the row may
 * be lower than what is asserted: then it is done again, in RAISES. */
void hf_sip_store_answer(struct hf_sip_store *s, struct hf_sip_queued *q, struct hf_sip_result *r);
/** All ops of it are answered. */
void hf_sip_store_batch_done(struct hf_sip_store *s, struct hf_sip_batch *batch);
/** The database is there, but will not do this: each op is tried alone, who is alone gets AWAY. */
void hf_sip_store_refused(struct hf_sip_store *s, struct hf_sip_batch *batch, const char *text);

void hf_sip_store_feed_row(struct hf_sip_store *s, const struct hf_sip_stored_row *row);
void hf_sip_store_feed_gone(struct hf_sip_store *s, struct hf_slice aor);
void hf_sip_store_feed_end(struct hf_sip_store *s, bool ours, uint64_t change);
/** There may be changes; this AoR's row is to be read and told, though no `change` tells of it. */
void hf_sip_store_notified(struct hf_sip_store *s);
void hf_sip_store_told(struct hf_sip_store *s, struct hf_slice aor);

/** The id under which a key is stored. */
void hf_sip_store_id(struct hf_slice key, uint8_t ret_id[HF_SIP_STORE_ID_LEN]);
