/* The toy database's data, log and transactions. */
#include "sim/pg/db.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "support/sim_net.h"

#define GROW(p, n, room)                                                                           \
    do {                                                                                           \
        if ((n) == (room)) {                                                                       \
            (room) = (room) ? 2 * (room) : 16;                                                     \
            (p) = sim_realloc(p, (room) * sizeof(*(p)));                                           \
        }                                                                                          \
    } while (0)

static struct pgs_record *append(struct pgs_db *db, enum pgs_record_kind kind, uint64_t xid)
{
    GROW(db->wal, db->n_wal, db->wal_room);
    struct pgs_record *r = &db->wal[db->n_wal++];
    memset(r, 0, sizeof(*r));
    r->kind = kind;
    r->xid = xid;
    return r;
}

static void once_add(struct pgs_db *db, int64_t v)
{
    GROW(db->once, db->n_once, db->once_room);
    db->once[db->n_once++] = v;
}

static void log_add(struct pgs_db *db, int64_t id, int64_t v)
{
    GROW(db->log, db->n_log, db->log_room);
    size_t i = db->n_log++;
    for (; i > 0 && db->log[i - 1].id > id; i--) {
        db->log[i] = db->log[i - 1];
    }
    db->log[i] = (struct pgs_row){id, v};
}

static void apply(struct pgs_db *db, const struct pgs_change *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        switch (c[i].kind) {
        case PGS_ADD:
            db->account[c[i].key] += c[i].value;
            break;
        case PGS_LOG:
            log_add(db, c[i].key, c[i].value);
            break;
        case PGS_ONCE:
            once_add(db, c[i].value);
            break;
        }
    }
}

void pgs_db_init(struct pgs_db *db)
{
    memset(db, 0, sizeof(*db));
    db->next_xid = db->fence = PGS_FIRST_XID;
    db->incarnation = db->timeline = 1;
    once_add(db, 0);
}

static void truncate_wal(struct pgs_db *db, size_t keep)
{
    while (db->n_wal > keep) {
        free(db->wal[--db->n_wal].changes);
    }
}

void pgs_db_fini(struct pgs_db *db)
{
    truncate_wal(db, 0);
    free(db->wal);
    free(db->log);
    free(db->once);
    free(db->open);
    memset(db, 0, sizeof(*db));
}

uint64_t pgs_assign(struct pgs_db *db, struct pgs_xact *x)
{
    if (!x->xid) {
        x->xid = db->next_xid++;
        append(db, PGS_REC_WRITE, x->xid);
        GROW(db->open, db->n_open, db->open_room);
        db->open[db->n_open++] = x;
    }
    return x->xid;
}

void pgs_burn_xid(struct pgs_db *db)
{
    append(db, PGS_REC_WRITE, db->next_xid++);
}

const struct pgs_xact *pgs_lock(struct pgs_db *db, struct pgs_xact *x, int64_t id)
{
    const struct pgs_xact *holder = db->locked_by[id];
    if (holder && holder != x) {
        return holder;
    }
    db->locked_by[id] = x;
    return NULL;
}

void pgs_change(struct pgs_db *db, struct pgs_xact *x, enum pgs_change_kind kind, int64_t key,
                int64_t value)
{
    (void)pgs_assign(db, x);
    GROW(x->changes, x->n, x->room);
    x->changes[x->n++] = (struct pgs_change){.kind = kind, .key = key, .value = value};
}

int64_t pgs_account(const struct pgs_db *db, const struct pgs_xact *x, int64_t id)
{
    int64_t n = db->account[id];
    for (size_t i = 0; i < x->n; i++) {
        if (x->changes[i].kind == PGS_ADD && x->changes[i].key == id) {
            n += x->changes[i].value;
        }
    }
    return n;
}

static bool changed(const struct pgs_xact *x, int64_t id)
{
    for (size_t i = 0; i < x->n; i++) {
        if (x->changes[i].kind == PGS_ADD && x->changes[i].key == id) {
            return true;
        }
    }
    return false;
}

void pgs_undo(struct pgs_db *db, struct pgs_xact *x, size_t n)
{
    x->n = n < x->n ? n : x->n;
    for (int64_t id = 1; id <= PGS_ACCOUNTS; id++) {
        if (db->locked_by[id] == x && !changed(x, id)) {
            db->locked_by[id] = NULL;
        }
    }
}

static void log_seq(struct pgs_db *db, struct pgs_xact *x, int64_t value)
{
    struct pgs_record *r = append(db, PGS_REC_SEQ, pgs_assign(db, x));
    db->wal[db->n_wal - 1].seq = value;
    (void)r;
    db->seq_logged = value;
}

int64_t pgs_nextval(struct pgs_db *db, struct pgs_xact *x)
{
    if (db->seq_last + 1 > db->seq_logged) {
        log_seq(db, x, db->seq_last + 1 + PGS_SEQ_LOG);
    }
    return ++db->seq_last;
}

bool pgs_log_has(const struct pgs_db *db, int64_t id)
{
    for (size_t i = 0; i < db->n_log; i++) {
        if (db->log[i].id == id) {
            return true;
        }
    }
    for (size_t i = 0; i < db->n_open; i++) {
        for (size_t k = 0; k < db->open[i]->n; k++) {
            const struct pgs_change *c = &db->open[i]->changes[k];
            if (c->kind == PGS_LOG && c->key == id) {
                return true;
            }
        }
    }
    return false;
}

void pgs_setval(struct pgs_db *db, struct pgs_xact *x, int64_t value, bool called)
{
    db->seq_last = called ? value : value - 1;
    log_seq(db, x, db->seq_last);
}

bool pgs_once_ok(const struct pgs_db *db, const struct pgs_xact *x, int64_t *ret_value)
{
    for (size_t i = 0; i < x->n; i++) {
        if (x->changes[i].kind != PGS_ONCE) {
            continue;
        }
        int64_t v = x->changes[i].value;
        bool twice = false;
        for (size_t k = 0; k < db->n_once; k++) {
            twice = twice || db->once[k] == v;
        }
        for (size_t k = 0; k < i; k++) {
            twice = twice || (x->changes[k].kind == PGS_ONCE && x->changes[k].value == v);
        }
        if (twice) {
            *ret_value = v;
            return false;
        }
    }
    return true;
}

void pgs_commit_begin(struct pgs_db *db, struct pgs_xact *x)
{
    if (!x->xid) {
        return;
    }
    struct pgs_record *r = append(db, PGS_REC_COMMIT, x->xid);
    if (x->n) {
        r->changes = sim_alloc(x->n * sizeof(*x->changes));
        memcpy(r->changes, x->changes, x->n * sizeof(*x->changes));
        r->n = x->n;
    }
    for (size_t i = 0; i < r->n; i++) {
        if (r->changes[i].kind == PGS_ADD) {
            r->changes[i].after = db->account[r->changes[i].key];
            for (size_t k = 0; k <= i; k++) {
                if (r->changes[k].kind == PGS_ADD && r->changes[k].key == r->changes[i].key) {
                    r->changes[i].after += r->changes[k].value;
                }
            }
        }
    }
    x->lsn = db->n_wal;
}

void pgs_xact_clear(struct pgs_db *db, struct pgs_xact *x)
{
    for (size_t i = 0; i < db->n_open; i++) {
        if (db->open[i] == x) {
            db->open[i] = db->open[--db->n_open];
        }
    }
    for (int64_t id = 1; id <= PGS_ACCOUNTS; id++) {
        if (db->locked_by[id] == x) {
            db->locked_by[id] = NULL;
        }
    }
    free(x->changes);
    memset(x, 0, sizeof(*x));
}

void pgs_commit_end(struct pgs_db *db, struct pgs_xact *x)
{
    if (x->xid) {
        apply(db, x->changes, x->n);
        db->n_commits++;
    }
    pgs_xact_clear(db, x);
}

void pgs_abort(struct pgs_db *db, struct pgs_xact *x)
{
    if (x->xid) {
        append(db, PGS_REC_ABORT, x->xid);
    }
    pgs_xact_clear(db, x);
}

enum pgs_status pgs_xact_status(const struct pgs_db *db, uint64_t xid)
{
    if (xid >= db->next_xid) {
        return PGS_FUTURE;
    }
    for (size_t i = 0; i < db->n_open; i++) {
        if (db->open[i]->xid == xid) {
            return PGS_IN_PROGRESS;
        }
    }
    for (size_t i = db->n_wal; i-- > 0;) {
        if (db->wal[i].xid == xid && db->wal[i].kind == PGS_REC_COMMIT) {
            return PGS_COMMITTED;
        }
    }
    return PGS_ABORTED;
}

void pgs_flush(struct pgs_db *db, size_t lsn)
{
    lsn = lsn < db->n_wal ? lsn : db->n_wal;
    db->flushed = lsn > db->flushed ? lsn : db->flushed;
}

/* The standby receives only what is flushed here. */
void pgs_replicate(struct pgs_db *db, size_t lsn)
{
    lsn = lsn < db->flushed ? lsn : db->flushed;
    db->replicated = lsn > db->replicated ? lsn : db->replicated;
}

void pgs_restart(struct pgs_db *db, size_t keep, bool promotion)
{
    assert(db->n_open == 0 && keep <= db->n_wal);
    for (size_t i = keep; i < db->n_wal; i++) {
        db->n_seq_lost += db->wal[i].kind == PGS_REC_SEQ;
    }
    truncate_wal(db, keep);
    memset(db->account, 0, sizeof(db->account));
    db->n_log = db->n_once = 0;
    once_add(db, 0);
    db->next_xid = PGS_FIRST_XID;
    db->seq_last = db->seq_logged = 0;
    for (size_t i = 0; i < db->n_wal; i++) {
        const struct pgs_record *r = &db->wal[i];
        db->next_xid = r->xid >= db->next_xid ? r->xid + 1 : db->next_xid;
        if (r->kind == PGS_REC_COMMIT) {
            apply(db, r->changes, r->n);
        } else if (r->kind == PGS_REC_SEQ) {
            db->seq_last = db->seq_logged = r->seq;
        }
    }
    db->flushed = db->n_wal;
    db->replicated = db->replicated < db->n_wal ? db->replicated : db->n_wal;
    db->incarnation++;
    db->fence = db->next_xid;
    if (promotion) {
        db->timeline++;
        db->standby = false;
    }
}
