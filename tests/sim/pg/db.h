/* A toy database: committed data, open transactions, a write-ahead log, crashes and promotions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What there is:
 *   accounts (id int primary key, n bigint), PGS_ACCOUNTS rows, ids from 1
 *   log (id bigserial primary key, v bigint)
 *   once (v bigint unique deferrable initially deferred), with one row, 0
 *
 * The log is the truth: memory is what its records say, plus what commits under way will make
 * visible. A crash keeps what was flushed and any part of the rest; a promotion keeps what the
 * standby had, which is at least what commits with synchronous_commit = on were acknowledged for.
 * Transaction ids that no kept record names are given out again, as in PostgreSQL.
 */

#define PGS_ACCOUNTS 6
#define PGS_SEQ_LOG 32 /* as PostgreSQL's SEQ_LOG_VALS */
#define PGS_FIRST_XID 730

enum pgs_change_kind { PGS_ADD, PGS_LOG, PGS_ONCE };
struct pgs_change {
    enum pgs_change_kind kind;
    int64_t key;   /* account, or id in log */
    int64_t value; /* what was added, or v */
    int64_t after; /* ADD: n then; known at commit */
};

struct pgs_xact {
    uint64_t xid;               /* 0: none assigned */
    uint64_t lsn;               /* of its commit record; 0: not committing */
    struct pgs_change *changes; /* owned */
    size_t n, room;
    bool marker; /* writes nothing but a message to the log */
};

enum pgs_record_kind { PGS_REC_WRITE, PGS_REC_COMMIT, PGS_REC_ABORT, PGS_REC_SEQ };
struct pgs_record {
    enum pgs_record_kind kind;
    uint64_t xid;
    int64_t seq;                /* SEQ: its value, already used */
    struct pgs_change *changes; /* COMMIT; owned */
    size_t n;
};

struct pgs_row {
    int64_t id, v;
};

enum pgs_status { PGS_IN_PROGRESS, PGS_COMMITTED, PGS_ABORTED, PGS_FUTURE };

struct pgs_db {
    struct pgs_record *wal; /* owned; its index + 1 is the lsn */
    size_t n_wal, wal_room;
    size_t flushed, replicated; /* lsn */
    bool standby;               /* synchronous, and promotable */
    uint64_t incarnation;       /* grows at each start and promotion */
    uint32_t timeline;
    uint64_t fence; /* first transaction id not assigned when this incarnation began */
    /* memory */
    int64_t account[PGS_ACCOUNTS + 1];
    const struct pgs_xact *locked_by[PGS_ACCOUNTS + 1];
    struct pgs_row *log; /* owned; by id */
    size_t n_log, log_room;
    int64_t *once; /* owned */
    size_t n_once, once_room;
    uint64_t next_xid;
    int64_t seq_last, seq_logged;
    struct pgs_xact **open; /* owned list of borrowed, those with an xid */
    size_t n_open, open_room;
    uint64_t n_commits;  /* ever made visible */
    uint64_t n_seq_lost; /* values of the sequence that a crash took back */
};

void pgs_db_init(struct pgs_db *db);
void pgs_db_fini(struct pgs_db *db);

/** The next transaction id, if it has none. */
uint64_t pgs_assign(struct pgs_db *db, struct pgs_xact *x);
/** A subtransaction's. */
void pgs_burn_xid(struct pgs_db *db);
/** Who holds this account's row against x; NULL: it is x's now, or free. */
const struct pgs_xact *pgs_lock(struct pgs_db *db, struct pgs_xact *x, int64_t id);
/** Note a change of an open transaction. */
void pgs_change(struct pgs_db *db, struct pgs_xact *x, enum pgs_change_kind kind, int64_t key,
                int64_t value);
/** n of an account, as x sees it. */
int64_t pgs_account(const struct pgs_db *db, const struct pgs_xact *x, int64_t id);
/** Forget the changes after the first n (ROLLBACK TO), and the locks that only they needed. */
void pgs_undo(struct pgs_db *db, struct pgs_xact *x, size_t n);
/** The next value of log's sequence, by a transaction that gets an xid when that is logged. */
int64_t pgs_nextval(struct pgs_db *db, struct pgs_xact *x);
/** Is there a row of log with this id, or may there be one? */
bool pgs_log_has(const struct pgs_db *db, int64_t id);
void pgs_setval(struct pgs_db *db, struct pgs_xact *x, int64_t value, bool called);

/** Does the deferred constraint hold? The first value that breaks it otherwise. */
bool pgs_once_ok(const struct pgs_db *db, const struct pgs_xact *x, int64_t *ret_value);
/** Write the commit record: x->lsn. Nothing is visible before pgs_commit_end(). */
void pgs_commit_begin(struct pgs_db *db, struct pgs_xact *x);
void pgs_commit_end(struct pgs_db *db, struct pgs_xact *x);
void pgs_abort(struct pgs_db *db, struct pgs_xact *x);
void pgs_xact_clear(struct pgs_db *db, struct pgs_xact *x);

enum pgs_status pgs_xact_status(const struct pgs_db *db, uint64_t xid);

/** Local flush, and the standby's: up to lsn. */
void pgs_flush(struct pgs_db *db, size_t lsn);
void pgs_replicate(struct pgs_db *db, size_t lsn);
/** Begin again from the first `keep` records. All open transactions must be cleared before. */
void pgs_restart(struct pgs_db *db, size_t keep, bool promotion);
