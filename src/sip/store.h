/* The SIP store: assignments, users, bindings, subscriptions in SQL (SQLite or PostgreSQL). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "core/sip/fleet.h"
#include "core/sip/ops.h"
#include "core/sip/rebalance.h"

/*
 * One for the process, with a thread of its own: workers submit from any thread; results and the
 * feed come in the store's thread through the callbacks, which hand them on.
 *
 *   CONNECTING --tables are there, LISTEN is set up--> THERE --connection lost, no answer--> AWAY
 *       ^                                                                                     |
 *       +------------------------------- after 0.1 to 5 s ------------------------------------+
 *
 * AWAY, until it is THERE again: everything that waits and all that comes gets AWAY at once. At the
 * first CONNECTING ops wait.
 *
 * Ops of one AoR are done in the order in which they were given; those of different AoRs are taken
 * together: reads as one statement with arrays, writes as one transaction. A lone write goes at
 * once; others follow at most once in group_commit_us, and not before the one before is
 * committed. So a BIND waits for at most two commits, and one alone for its own.
 *
 * BIND and KEEP compare the epoch in the transaction that writes: nobody changes an epoch until it
 * has ended (PostgreSQL: an advisory lock, shared by these, exclusive for whoever moves rows;
 * SQLite: there is one writer). So what was stored under an epoch, was stored before the row was
 * moved, and the new home's LOAD, which comes after the feed told it, finds it.
 *
 * The feed: LISTEN is set up before `change` is read, and that before any op is done; after each
 * connecting a first read gives the rows that are ours, then all changes since. A row that another
 * server inserts for us (ASSIGN) is told at once. It is read again at each NOTIFY, and every
 * two seconds. The transactions that count `change` up are serial, so that one statement that reads
 * `change` and all rows above the last one misses none. `change` below the last one (a backup was
 * restored) is told as it is, see assign.h.
 *
 * PostgreSQL: libpq in pipeline mode, one connection for writes, one for reads and LISTEN; reached
 * by its service address. SQLite: WAL, synchronous=FULL; only for one server, or several on one
 * machine (the feed polls data_version each 50 ms; what others LEARN is not told). Values are
 * always parameters. Text that PostgreSQL would not take (not UTF-8, a NUL, longer than
 * HF_SIP_AOR_MAX) names nothing that is there: NONE.
 */
struct hf_sip_store;

struct hf_sip_store_events {
    /** In the store's thread; AWAY because the queue is full, or for want of memory: in the thread
     * that submits. */
    void (*result)(void *arg, unsigned worker, const struct hf_sip_result *r);
    void (*feed)(void *arg, const struct hf_sip_feed *f);
    /** A server of this name is in the table: its number; the same for all workers. */
    uint16_t (*server)(void *arg, struct hf_slice name);
    /** ... and back; copied into room bytes at buf (HF_HOST_NAME_MAX + 1). */
    void (*server_name)(void *arg, uint16_t server, char *buf, size_t room);
    /** Something for the log, in the store's thread (hf_log() is not for threads): there, away and
     * why, refused. NULL: none. */
    void (*log)(void *arg, const char *text);
};
struct hf_sip_store_conf {
    const char *uri;   /* "sqlite:/path" or "postgresql://..." / "host=... dbname=..." */
    const char *self;  /* this server's name */
    const char *realm; /* may be NULL */
    uint32_t
        group_commit_us; /* between the beginnings of two transactions. 0: 5000; at most 10000 */
    size_t queue_max;    /* ops that wait; more get AWAY at once. 0: 100000 */
    unsigned timeout_ms; /* without an answer for so long, it is away. 0: 5000 */
};
/** Opens nothing yet; the thread does. conf is copied. -HF_EVALUE with text, -ENOMEM. */
HF_MUST int hf_sip_store_open(const struct hf_sip_store_conf *conf,
                              const struct hf_sip_store_events *events, void *arg,
                              struct hf_err *err, struct hf_sip_store **ret_store);
/** Writes what waits (at most timeout_ms), ends the thread. Nobody may submit any more. */
void hf_sip_store_close(struct hf_sip_store *s);
/** Any thread. Copied. BINDs that nobody waits for may be 100 ms late. In the result of SECRET, aor
 * is the user's. */
void hf_sip_store_submit(struct hf_sip_store *s, unsigned worker, const struct hf_sip_op *op);
/** Read all that is ours, and the feed, again: after a pause of the process (I10). Ours come as
 * feed rows. Any thread. At a start it is done without. */
void hf_sip_store_reread(struct hf_sip_store *s);

/** Create or bring up to date the tables: `holdfast-sip --init`, and at a start with sqlite.
 * Blocking. -HF_EVERSION: a newer program's tables; -HF_EVALUE, -HF_ENOTREADY. */
HF_MUST int hf_sip_store_init(const char *uri, struct hf_err *err);

/*
 * --- the leader's and the operator's ---
 *
 * Blocking, on a connection of its own, which is made anew when it was lost. One thread at a time.
 * All of these return -HF_ENOTREADY when the database is away (what became of it is not known),
 * -HF_EHELD when others did not let it go on for seconds, and -HF_EVALUE when it refuses.
 *
 * Each change is one transaction that begins with `change` + 1, by which the feed finds it, and
 * ends with one NOTIFY. With a reign it holds only as long as no later one began: -HF_ECLOSED.
 * Without (an operator's, while there is no leader) it changes no reign. If `change` is found to
 * have gone back (a backup was restored), all epochs are raised by a thousand with it.
 */
struct hf_sip_lead;
/** -HF_EVALUE; connects at the first use. */
HF_MUST int hf_sip_lead_open(const char *uri, struct hf_err *err, struct hf_sip_lead **ret_lead);
void hf_sip_lead_close(struct hf_sip_lead *l);
/** Begin a reign (from 1): no former leader changes anything any more. -HF_ECLOSED: there is a
 * later one. */
HF_MUST int hf_sip_lead_reign(struct hf_sip_lead *l, uint64_t reign, struct hf_err *err);
/** The feed has told this `change`: a new leader then knows a restored backup, too. */
void hf_sip_lead_seen(struct hf_sip_lead *l, uint64_t change);
/** The reign and change that are stored: a new leader's reign is one above. */
HF_MUST int hf_sip_lead_read(struct hf_sip_lead *l, uint64_t *ret_reign, uint64_t *ret_change,
                             struct hf_err *err);
/** Carry out moves (rebalance.h) in this order: one transaction, one NOTIFY; several, one right
 * after the other, if more than 20,000 rows are expected, as nothing is stored meanwhile. ret_n:
 * rows changed. */
HF_MUST int hf_sip_lead_moves(struct hf_sip_lead *l, const struct hf_sip_fleet *f,
                              const struct hf_sip_move *m, size_t n, struct hf_err *err,
                              uint64_t *ret_n);
/** Rows whose current is this server, and those of them that are pinned, for the rebalancer. */
HF_MUST int hf_sip_lead_counts(struct hf_sip_lead *l, const char *server, uint64_t *ret_rows,
                               uint64_t *ret_pinned, struct hf_err *err);
/** Who is not at home, by pairs: fn for each, in any order; names borrowed for the call. */
HF_MUST int hf_sip_lead_astray(struct hf_sip_lead *l,
                               void (*fn)(void *arg, struct hf_slice current, struct hf_slice home,
                                          uint64_t loose, uint64_t pinned),
                               void *arg, struct hf_err *err);
/** Operator: assign (create or change), pin, unpin one AoR; server NULL: leave it (-HF_ENOTFOUND if
 * there is no row). Assigned is both home and current. */
HF_MUST int hf_sip_lead_assign(struct hf_sip_lead *l, struct hf_slice aor, const char *server,
                               int pin /* 1, 0, -1: as it is */, struct hf_err *err);
/** CSV (assign_csv.h): rows in one transaction; a row that says what is there already changes
 * nothing; epochs never go back. Nothing is stored meanwhile. -HF_EMALF and others with line and
 * field: nothing was imported. */
HF_MUST int hf_sip_lead_import(struct hf_sip_lead *l, struct hf_slice csv, struct hf_err *err,
                               uint64_t *ret_n);
/** ... and out, in order of AoR. -HF_EFULL: csv has no room for it. */
HF_MUST int hf_sip_lead_export(struct hf_sip_lead *l, struct hf_buf *csv, struct hf_err *err);
/** Users: `holdfast sip user add NAME` (password: secrets of all algorithms are stored, never it).
 * One that is there is replaced. */
HF_MUST int hf_sip_lead_user(struct hf_sip_lead *l, const char *user, const char *realm,
                             struct hf_slice aor, const char *password, struct hf_err *err);
/** Delete a user; of the last one of an AoR the row goes, too, with all that is stored of it:
 * servers are told. -HF_ENOTFOUND. */
HF_MUST int hf_sip_lead_user_delete(struct hf_sip_lead *l, const char *user, const char *realm,
                                    struct hf_err *err);
/** Delete what expired an hour ago and nobody deleted (its server died), and what was kept for a
 * month of users who are gone. For the leader, now and then. */
HF_MUST int hf_sip_lead_prune(struct hf_sip_lead *l, struct hf_err *err, uint64_t *ret_n);
