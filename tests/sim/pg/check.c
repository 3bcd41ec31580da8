/* What must hold in simulations of sessions: exactly once, nothing silent, as it was shown. */
#include <inttypes.h>
#include <string.h>

#include "sim/pg/world.h"

/* How often a change is in the log of the database, and its row there. */
static size_t found(const struct pgs_db *db, const struct pgc_token *k,
                    const struct pgs_change **ret_change)
{
    size_t n = 0;
    for (size_t i = 0; i < db->n_wal; i++) {
        const struct pgs_record *r = &db->wal[i];
        for (size_t j = 0; r->kind == PGS_REC_COMMIT && j < r->n; j++) {
            const struct pgs_change *c = &r->changes[j];
            if (c->kind == k->kind && c->value == k->value &&
                (k->kind != PGS_ADD || c->key == k->key)) {
                n++;
                *ret_change = c;
            }
        }
    }
    return n;
}

static void check_seen(struct pgw_world *w, const struct pgw_session *s, const struct pgc_txn *t)
{
    const struct pgs_db *db = &w->server.db;
    for (size_t i = 0; i < t->n_seen; i++) {
        const struct pgc_seen *seen = &t->seen[i];
        bool fine = false;
        switch (seen->see) {
        case PGC_SEE_ID:
        case PGC_SEE_AFTER: {
            enum pgs_change_kind kind = seen->see == PGC_SEE_ID ? PGS_LOG : PGS_ADD;
            bool undone = false;
            for (size_t k = 0; k < t->n_tokens; k++) {
                undone = undone || (t->token[k].value == seen->key && t->token[k].undone);
            }
            for (size_t k = 0; k < db->n_wal && !fine; k++) {
                const struct pgs_record *r = &db->wal[k];
                for (size_t j = 0; r->kind == PGS_REC_COMMIT && j < r->n; j++) {
                    const struct pgs_change *c = &r->changes[j];
                    fine = fine || (c->kind == kind && c->value == seen->key &&
                                    (kind == PGS_LOG ? c->key : c->after) == seen->value);
                }
            }
            fine = fine || undone;
            break;
        }
        case PGC_SEE_N:
            fine = seen->value == 0 || w->unreplicated;
            for (size_t k = 0; k < db->n_wal && !fine; k++) {
                const struct pgs_record *r = &db->wal[k];
                for (size_t j = 0; r->kind == PGS_REC_COMMIT && j < r->n; j++) {
                    fine =
                        fine || (r->changes[j].kind == PGS_ADD && r->changes[j].key == seen->key &&
                                 r->changes[j].after == seen->value);
                }
            }
            break;
        case PGC_SEE_NOTHING:
        case PGC_SEE_COUNT:
        case PGC_SEE_TEXT:
            fine = true;
            break;
        }
        if (!fine) {
            pgw_failed(w,
                       "client %u committed (%s) having seen %" PRId64 " for %" PRId64
                       ", which never was",
                       s->i, t->why, seen->value, seen->key);
        }
    }
}

void pgw_check(struct pgw_world *w, bool end)
{
    static const char *const outcome[] = {"open", "acknowledged", "aborted", "unknown"};
    (void)end;
    for (uint32_t i = 0; i < w->n; i++) {
        const struct pgc_client *c = &w->session[i].client;
        for (uint32_t k = 0; k < c->n_txns; k++) {
            const struct pgc_txn *t = &c->txn[k];
            size_t n = 0, wanted = 0, twice = 0;
            for (size_t j = 0; j < t->n_tokens; j++) {
                const struct pgs_change *change = NULL;
                size_t times = found(&w->server.db, &t->token[j], &change);
                if (t->token[j].undone && times) {
                    pgw_failed(w, "client %u: what was rolled back to a savepoint is there", i);
                }
                n += times > 0;
                twice += times > 1;
                wanted += !t->token[j].undone;
            }
            if (twice) {
                pgw_failed(w, "client %u, transaction %u (%s, %s): applied twice", i, k, t->why,
                           outcome[t->outcome]);
            }
            if (n != 0 && n != wanted) {
                pgw_failed(w, "client %u, transaction %u (%s, %s): %zu of %zu changes", i, k,
                           t->why, outcome[t->outcome], n, wanted);
            }
            if (t->outcome == PGC_ACKED && n != wanted && !t->weak) {
                pgw_failed(w, "client %u, transaction %u (%s): acknowledged and lost", i, k,
                           t->why);
            }
            if (t->outcome == PGC_ABORTED && n != 0) {
                pgw_failed(w, "client %u, transaction %u (%s): aborted and there", i, k, t->why);
            }
            if (t->outcome == PGC_ACKED && !t->weak) {
                check_seen(w, &w->session[i], t);
            }
        }
    }
}

static bool is(const struct pgc_client *c, const char *sqlstate)
{
    return strcmp(c->sqlstate, sqlstate) == 0;
}

/* Is there a reason why a client had to see this? */
static bool justified(struct pgw_world *w, struct pgw_session *s, struct pgc_client *c,
                      const struct pgc_txn *t)
{
    bool lost = t ? s->losses != t->losses : s->losses != 0;
    bool others = t && w->server.db.n_commits != t->commits;
    if (is(c, "40P01")) {
        return w->n > 1;
    }
    if (is(c, "23505") && t) {
        /* its nextval() came between a crash that took ids back and who was given them again */
        return w->n > 1 && w->server.db.n_seq_lost;
    }
    if (is(c, "57014")) {
        return s->cancels > 0;
    }
    if (is(c, "40001") && t) {
        /* a cancel that hits what is replayed makes it differ; another one may have the ids that
         * a crash took back */
        bool taken = t->given && w->server.db.n_seq_lost != t->seq_lost;
        return lost && (taken || s->cancels || t->sequence || t->volatile_ || t->weak ||
                        s->reasons || (t->reads && (w->n > 1 || others)));
    }
    if (is(c, "08007")) {
        return lost && (!w->fenced || s->reasons || (t && t->unprotected));
    }
    if (is(c, "57P01")) {
        if (strstr(c->message, "background worker")) {
            return s->workers > 1 || s->reasons || (t && t->unprotected);
        }
        /* behind others, or while a cancel is under way, settings can't be looked at first */
        bool unseen = !c->no_state && (s->cancels || (t && t->pipelined)) &&
                      strstr(c->detail, "settings not known");
        /* ... nor when it was lost for a second time before it could look at all */
        bool early = t && s->losses - t->losses > 1;
        bool set = t && (t->unprotected || t->pipelined || s->reasons || early) &&
                   strstr(c->detail, "can't be restored");
        return s->terminated || (s->losses && (unseen || set || s->reasons & HF_PG_REASONS_STICKY));
    }
    if (is(c, "57P03")) {
        return s->losses != 0 || !s->attached_once;
    }
    return false;
}

void pgw_error(void *arg, struct pgc_client *c, struct pgc_txn *t)
{
    struct pgw_session *s = arg;
    if (!justified(s->w, s, c, t)) {
        pgw_failed(s->w, "client %u (%s) got %s %s (%s), and nothing excuses it; reasons %x", s->i,
                   t ? t->why : "idle", c->sqlstate, c->message, c->detail, s->reasons);
    }
}
