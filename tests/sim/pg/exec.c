/* The toy backend's statements: settings, transactions, data. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/pg_v3.h"
#include "sim/pg/backend.h"
#include "support/sim_net.h"

enum { T_BOOL = 16, T_INT8 = 20, T_INT4 = 23, T_TEXT = 25, T_VOID = 2278 };

/* ---- settings ---- */

static const struct {
    const char *name, *value;
    bool reported;
} known[] = {
    {"application_name", "", true},
    {"client_encoding", "UTF8", true},
    {"DateStyle", "ISO, MDY", true},
    {"default_transaction_read_only", "off", true},
    {"in_hot_standby", "off", true},
    {"integer_datetimes", "on", true},
    {"IntervalStyle", "postgres", true},
    {"is_superuser", "off", true},
    {"server_encoding", "UTF8", true},
    {"server_version", "15.0", true},
    {"session_authorization", "", true},
    {"standard_conforming_strings", "on", true},
    {"TimeZone", "Etc/UTC", true},
    {"extra_float_digits", "1", false},
    {"role", "none", false},
    {"search_path", "\"$user\", public", false},
    {"statement_timeout", "0", false},
    {"synchronous_commit", "on", false},
    {"transaction_read_only", "off", false},
    {"work_mem", "4MB", false},
};

#define COPY_TEXT(to, from) pgs_copy(to, sizeof(to), from)

void pgs_settings_init(struct pgs_settings *s, const char *user)
{
    memset(s, 0, sizeof(*s));
    for (size_t i = 0; i < HF_ARRAY_LEN(known); i++) {
        struct pgs_setting *g = &s->s[s->n++];
        COPY_TEXT(g->name, known[i].name);
        COPY_TEXT(g->value,
                  strcmp(known[i].name, "session_authorization") == 0 ? user : known[i].value);
        COPY_TEXT(g->reset, g->value);
        COPY_TEXT(g->told, g->value);
        g->reported = known[i].reported;
    }
}

static bool same_name(const char *a, const char *b)
{
    for (; *a && tolower((unsigned char)*a) == tolower((unsigned char)*b); a++, b++) {
    }
    return !*a && !*b;
}

static struct pgs_setting *setting(struct pgs_backend *b, const char *name)
{
    for (size_t i = 0; i < b->settings.n; i++) {
        if (same_name(b->settings.s[i].name, name)) {
            return &b->settings.s[i];
        }
    }
    return NULL;
}

/* Set it, for the session or the transaction; NULL: to its default. */
static enum pgs_run set(struct pgs_backend *b, const char *name, const char *value, bool local)
{
    struct pgs_setting *g = setting(b, name);
    if (!g && strchr(name, '.') && b->settings.n < PGS_SETTINGS_MAX) {
        g = &b->settings.s[b->settings.n++];
        memset(g, 0, sizeof(*g));
        COPY_TEXT(g->name, name);
    }
    if (!g) {
        return pgs_fail(b, "42704", "unrecognized configuration parameter \"%s\"", name);
    }
    if (local && !g->local) {
        COPY_TEXT(g->outer, g->value);
    }
    if (!local) {
        g->set = value != NULL;
    }
    COPY_TEXT(g->value, value ? value : g->reset);
    if (!local && g->local) {
        COPY_TEXT(g->outer, g->value);
    }
    g->local = local || (g->local && local);
    return PGS_DONE;
}

static void settings_commit(struct pgs_backend *b)
{
    for (size_t i = 0; i < b->settings.n; i++) {
        struct pgs_setting *g = &b->settings.s[i];
        if (g->local) {
            COPY_TEXT(g->value, g->outer);
            g->local = false;
        }
    }
}

/* Back to what they were; a custom one that was made since stays, empty. */
static void settings_restore(struct pgs_backend *b, const struct pgs_settings *old)
{
    for (size_t i = 0; i < b->settings.n; i++) {
        struct pgs_setting *g = &b->settings.s[i];
        char told[PGS_VALUE_MAX];
        COPY_TEXT(told, g->told);
        if (i < old->n) {
            *g = old->s[i];
        } else {
            g->value[0] = 0;
            g->local = g->set = false;
        }
        COPY_TEXT(g->told, told);
    }
}

/* ---- results ---- */

void pgs_result_clear(struct pgs_result *r)
{
    for (size_t i = 0; i < r->n_cells; i++) {
        free(r->cell[i]);
    }
    free(r->cell);
    memset(r, 0, sizeof(*r));
}

static void column(struct pgs_result *r, const char *name, uint32_t type)
{
    if (r->n_columns < PGS_COLUMNS_MAX) {
        COPY_TEXT(r->column[r->n_columns].name, name);
        r->column[r->n_columns++].type = type;
    }
}

static void cell(struct pgs_result *r, const char *text)
{
    if (r->n_cells == r->room) {
        r->room = r->room ? 2 * r->room : 8;
        r->cell = sim_realloc(r->cell, r->room * sizeof(char *));
    }
    char *copy = NULL;
    if (text) {
        copy = sim_alloc(strlen(text) + 1);
        memcpy(copy, text, strlen(text) + 1);
    }
    r->cell[r->n_cells++] = copy;
}

static void cell_int(struct pgs_result *r, int64_t v)
{
    char t[24];
    snprintf(t, sizeof(t), "%lld", (long long)v);
    cell(r, t);
}

static void tag_rows(struct pgs_result *r)
{
    snprintf(r->tag, sizeof(r->tag), "SELECT %zu", r->n_columns ? r->n_cells / r->n_columns : 0);
}

/* ---- prepared statements ---- */

struct pgs_prepared *pgs_prepared_find(struct pgs_backend *b, const char *name)
{
    struct pgs_prepared *p = b->prepared;
    while (p && strcmp(p->name, name) != 0) {
        p = p->next;
    }
    return p;
}

void pgs_prepared_drop(struct pgs_backend *b, const char *name)
{
    for (struct pgs_prepared **p = &b->prepared; *p;) {
        if (name ? strcmp((*p)->name, name) == 0 : (*p)->name[0] != 0) {
            struct pgs_prepared *gone = *p;
            *p = gone->next;
            if (gone->stmt) {
                pgs_stmt_fini(gone->stmt);
                free(gone->stmt);
            }
            free(gone);
        } else {
            p = &(*p)->next;
        }
    }
}

struct pgs_prepared *pgs_prepared_add(struct pgs_backend *b, const char *name, struct pgs_stmt *st)
{
    struct pgs_prepared *p = sim_alloc(sizeof(*p));
    memset(p, 0, sizeof(*p));
    COPY_TEXT(p->name, name);
    p->stmt = st;
    p->next = b->prepared;
    b->prepared = p;
    return p;
}

/* ---- transactions ---- */

static void deliver_notify(struct pgs_backend *b)
{
    for (size_t i = 0; i < b->n_notify; i++) {
        for (size_t k = 0; k < b->server->n; k++) {
            struct pgs_backend *to = b->server->backend[k];
            bool listens = false;
            for (size_t j = 0; j < to->n_listens; j++) {
                listens = listens || strcmp(to->listens[j], b->notify[i].channel) == 0;
            }
            if (listens && to->alive && to->n_inbox < HF_ARRAY_LEN(to->inbox)) {
                to->inbox[to->n_inbox++] = b->notify[i];
            }
        }
    }
}

static void relisten(struct pgs_backend *b)
{
    for (size_t i = 0; i < b->n_relistens; i++) {
        size_t k = 0;
        while (k < b->n_listens && strcmp(b->listens[k], b->relisten[i].channel) != 0) {
            k++;
        }
        if (b->relisten[i].all) {
            b->n_listens = 0;
        } else if (b->relisten[i].on && k == b->n_listens && k < PGS_CHANNELS_MAX) {
            COPY_TEXT(b->listens[b->n_listens++], b->relisten[i].channel);
        } else if (!b->relisten[i].on && k < b->n_listens) {
            memmove(b->listens[k], b->listens[b->n_listens - 1], sizeof(b->listens[k]));
            b->n_listens--;
        }
    }
}

static void xact_over(struct pgs_backend *b)
{
    b->block = b->end_asked && b->end_chain ? PGS_BLOCK : PGS_DEFAULT;
    b->end_asked = b->end_commit = b->end_chain = false;
    b->n_savepoints = b->n_notify = b->n_relistens = 0;
    b->at_begin = b->settings;
    b->wait = PGS_AWAKE;
    b->began = b->server->now;
}

void pgs_abort_all(struct pgs_backend *b)
{
    bool block = b->block == PGS_BLOCK || b->block == PGS_FAILED;
    b->end_asked = b->end_commit = b->end_chain = false;
    b->wait = PGS_AWAKE;
    b->wait_end = 0;
    if (block && b->n_savepoints) {
        struct pgs_savepoint *sp = &b->savepoint[b->n_savepoints - 1];
        pgs_undo(&b->server->db, &b->xact, sp->n_changes);
        settings_restore(b, &sp->settings);
        b->block = PGS_FAILED;
        return;
    }
    pgs_abort(&b->server->db, &b->xact);
    if (b->block != PGS_DEFAULT) {
        settings_restore(b, &b->at_begin);
    }
    if (block) {
        b->block = PGS_FAILED;
        b->n_notify = b->n_relistens = 0;
    } else {
        xact_over(b);
    }
}

/* Does the commit record still have to be somewhere? */
static bool commit_waits(const struct pgs_backend *b)
{
    const struct pgs_db *db = &b->server->db;
    const char *level = "on";
    for (size_t i = 0; i < b->settings.n; i++) {
        if (strcmp(b->settings.s[i].name, "synchronous_commit") == 0) {
            level = b->settings.s[i].value;
        }
    }
    if (!b->xact.lsn || strcmp(level, "off") == 0) {
        return false;
    }
    return db->flushed < b->xact.lsn ||
           (strcmp(level, "local") != 0 && db->standby && db->replicated < b->xact.lsn);
}

/* The wait for the standby is given up: committed here, and nobody knows about there. */
static bool give_up_waiting(struct pgs_backend *b)
{
    if (b->server->db.flushed < b->xact.lsn) {
        return false;
    }
    if (b->terminated) {
        pgs_commit_end(&b->server->db, &b->xact);
        b->alive = false;
        b->closed = true;
        hf_buf_clear(&b->out);
        b->flushed = 0;
        return false;
    }
    if (b->cancelled) {
        b->cancelled = false;
        pgs_notice(b, "WARNING", "01000",
                   "canceling wait for synchronous replication due to user request");
        return true;
    }
    return false;
}

static enum pgs_run finish_commit(struct pgs_backend *b)
{
    int64_t v;
    if (!b->xact.lsn) {
        if (!pgs_once_ok(&b->server->db, &b->xact, &v)) {
            b->block = PGS_STARTED; /* nothing of it remains */
            b->n_savepoints = 0;
            (void)pgs_fail(b, "23505",
                           "duplicate key value violates unique constraint \"once_v_key\"");
            snprintf(b->detail, sizeof(b->detail), "Key (v)=(%lld) already exists.", (long long)v);
            return PGS_ERROR;
        }
        pgs_commit_begin(&b->server->db, &b->xact);
    }
    if (commit_waits(b) && !give_up_waiting(b)) {
        b->wait = PGS_WAIT_SYNC;
        return PGS_WAITS;
    }
    pgs_commit_end(&b->server->db, &b->xact);
    relisten(b); /* first: one's own of the same transaction are heard */
    deliver_notify(b);
    settings_commit(b);
    xact_over(b);
    return PGS_DONE;
}

enum pgs_run pgs_finish(struct pgs_backend *b)
{
    if (b->block == PGS_DEFAULT || (!b->end_asked && b->block != PGS_STARTED)) {
        b->end_asked = false;
        return PGS_DONE;
    }
    bool commit = b->end_asked ? b->end_commit : true;
    if (commit && b->block != PGS_FAILED) {
        return finish_commit(b);
    }
    if (b->block != PGS_FAILED || b->n_savepoints) {
        pgs_abort(&b->server->db, &b->xact);
        settings_restore(b, &b->at_begin);
    }
    xact_over(b);
    return PGS_DONE;
}

/* ---- arguments ---- */

static const char *arg_text(struct pgs_backend *b, const struct pgs_stmt *st,
                            const struct pgs_args *a, size_t i)
{
    const struct pgs_token *t = &st->token[a->at[i]];
    if (t->kind == PGS_T_PARAM) {
        unsigned long k = strtoul(t->text + 1, NULL, 10);
        return b->params && k > 0 && k <= PGS_ARGS_MAX * 4 ? b->params[k - 1] : NULL;
    }
    return t->text;
}

static int64_t arg_int(struct pgs_backend *b, const struct pgs_stmt *st, const struct pgs_args *a,
                       size_t i)
{
    const char *t = arg_text(b, st, a, i);
    return t ? strtoll(t, NULL, 10) : 0;
}

/* ---- data ---- */

static struct pgs_backend *backend_of(struct pgs_server *s, const struct pgs_xact *x)
{
    for (size_t i = 0; i < s->n; i++) {
        if (&s->backend[i]->xact == x) {
            return s->backend[i];
        }
    }
    return NULL;
}

static enum pgs_run lock(struct pgs_backend *b, int64_t id)
{
    const struct pgs_xact *holder = pgs_lock(&b->server->db, &b->xact, id);
    if (!holder) {
        return PGS_DONE;
    }
    const struct pgs_xact *x = holder;
    for (size_t i = 0; i < b->server->n; i++) { /* a circle of waiting ends here */
        const struct pgs_backend *h = x ? backend_of(b->server, x) : NULL;
        x = h && h->wait == PGS_WAIT_LOCK ? h->waits_for : NULL;
        if (x == &b->xact) {
            return pgs_fail(b, "40P01", "deadlock detected");
        }
    }
    b->wait = PGS_WAIT_LOCK;
    b->waits_for = holder;
    return PGS_WAITS;
}

/* A write in a subtransaction takes an xid for it, too. */
static void write_begins(struct pgs_backend *b)
{
    (void)pgs_assign(&b->server->db, &b->xact);
    for (size_t i = 0; i < b->n_savepoints; i++) {
        if (!b->savepoint[i].xid) {
            b->savepoint[i].xid = true;
            pgs_burn_xid(&b->server->db);
        }
    }
}

static bool read_only(struct pgs_backend *b, const char *what)
{
    const struct pgs_setting *g = setting(b, "transaction_read_only");
    if (strcmp(g->value, "on") == 0) {
        (void)pgs_fail(b, "25006", "cannot execute %s in a read-only transaction", what);
        return true;
    }
    return false;
}

static enum pgs_run do_update(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                              struct pgs_result *r)
{
    int64_t id = arg_int(b, st, a, 1);
    if (read_only(b, "UPDATE")) {
        return PGS_ERROR;
    }
    bool there = id >= 1 && id <= PGS_ACCOUNTS;
    if (there) {
        enum pgs_run run = lock(b, id);
        if (run != PGS_DONE) {
            return run;
        }
        write_begins(b);
        pgs_change(&b->server->db, &b->xact, PGS_ADD, id, arg_int(b, st, a, 0));
    }
    if (strcmp(st->token[st->n - 2].text, "returning") == 0) {
        column(r, "n", T_INT8);
        if (there) {
            cell_int(r, pgs_account(&b->server->db, &b->xact, id));
        }
    }
    snprintf(r->tag, sizeof(r->tag), "UPDATE %d", there);
    return PGS_DONE;
}

/* The primary key of log. */
static enum pgs_run insert_log(struct pgs_backend *b, const struct pgs_stmt *st, int64_t id,
                               int64_t v, struct pgs_result *r)
{
    if (pgs_log_has(&b->server->db, id)) {
        return pgs_fail(b, "23505", "duplicate key value violates unique constraint \"log_pkey\"");
    }
    pgs_change(&b->server->db, &b->xact, PGS_LOG, id, v);
    if (strcmp(st->token[st->n - 2].text, "returning") == 0) {
        column(r, "id", T_INT8);
        cell_int(r, id);
    }
    COPY_TEXT(r->tag, "INSERT 0 1");
    return PGS_DONE;
}

static enum pgs_run do_insert_id(struct pgs_backend *b, struct pgs_stmt *st,
                                 const struct pgs_args *a, struct pgs_result *r)
{
    if (read_only(b, "INSERT")) {
        return PGS_ERROR;
    }
    write_begins(b);
    return insert_log(b, st, arg_int(b, st, a, 1), arg_int(b, st, a, 2), r);
}

/* X8: nextval() until it is at least the last number in the text. */
static enum pgs_run do_beyond(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                              struct pgs_result *r)
{
    int64_t value = 0;
    (void)a;
    for (size_t i = 0; i < st->n; i++) {
        value = st->token[i].kind == PGS_T_NUMBER ? strtoll(st->token[i].text, NULL, 10) : value;
    }
    while (pgs_nextval(&b->server->db, &b->xact) < value) {
    }
    column(r, "?column?", T_INT8);
    cell_int(r, 1);
    tag_rows(r);
    return PGS_DONE;
}

static enum pgs_run do_discard_sequences(struct pgs_backend *b, struct pgs_stmt *st,
                                         const struct pgs_args *a, struct pgs_result *r)
{
    (void)b;
    (void)st;
    (void)a;
    COPY_TEXT(r->tag, "DISCARD SEQUENCES");
    return PGS_DONE;
}

static enum pgs_run do_insert(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                              struct pgs_result *r)
{
    if (read_only(b, "INSERT")) {
        return PGS_ERROR;
    }
    write_begins(b);
    int64_t id = pgs_nextval(&b->server->db, &b->xact);
    return insert_log(b, st, id, arg_int(b, st, a, 0), r);
}

static enum pgs_run do_once(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                            struct pgs_result *r)
{
    if (read_only(b, "INSERT")) {
        return PGS_ERROR;
    }
    write_begins(b);
    pgs_change(&b->server->db, &b->xact, PGS_ONCE, 0, arg_int(b, st, a, 0));
    COPY_TEXT(r->tag, "INSERT 0 1");
    return PGS_DONE;
}

static enum pgs_run do_account(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                               struct pgs_result *r)
{
    int64_t id = arg_int(b, st, a, 0);
    bool there = id >= 1 && id <= PGS_ACCOUNTS;
    if (there && strcmp(st->token[st->n - 1].text, "update") == 0) {
        enum pgs_run run = lock(b, id);
        if (run != PGS_DONE) {
            return run;
        }
        (void)pgs_assign(&b->server->db, &b->xact);
    }
    column(r, "n", T_INT8);
    if (there) {
        cell_int(r, pgs_account(&b->server->db, &b->xact, id));
    }
    tag_rows(r);
    return PGS_DONE;
}

static void accounts(struct pgs_backend *b, struct pgs_result *r)
{
    for (int64_t id = 1; id <= PGS_ACCOUNTS; id++) {
        cell_int(r, id);
        cell_int(r, pgs_account(&b->server->db, &b->xact, id));
    }
}

/* log's rows, its own transaction's among them. v: only this one, if not NULL. */
static size_t log_rows(struct pgs_backend *b, struct pgs_result *r, const int64_t *v)
{
    const struct pgs_db *db = &b->server->db;
    const struct pgs_xact *x = &b->xact;
    size_t n = 0, i = 0;
    for (size_t k = 0;; n++) { /* both are in order of id */
        while (k < x->n && x->changes[k].kind != PGS_LOG) {
            k++;
        }
        bool own = k < x->n && (i >= db->n_log || x->changes[k].key < db->log[i].id);
        if (!own && i >= db->n_log) {
            return n;
        }
        int64_t id = own ? x->changes[k].key : db->log[i].id;
        int64_t value = own ? x->changes[k].value : db->log[i].v;
        i += !own;
        k += own;
        if (v && value != *v) {
            n--;
        } else if (r) {
            cell_int(r, id);
            cell_int(r, value);
        }
    }
}

static enum pgs_run do_accounts(struct pgs_backend *b, struct pgs_stmt *st,
                                const struct pgs_args *a, struct pgs_result *r)
{
    (void)st;
    (void)a;
    column(r, "id", T_INT4);
    column(r, "n", T_INT8);
    accounts(b, r);
    tag_rows(r);
    return PGS_DONE;
}

static enum pgs_run do_log(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                           struct pgs_result *r)
{
    (void)st;
    (void)a;
    column(r, "id", T_INT8);
    column(r, "v", T_INT8);
    (void)log_rows(b, r, NULL);
    tag_rows(r);
    return PGS_DONE;
}

static enum pgs_run do_count(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                             struct pgs_result *r)
{
    int64_t v = a->n ? arg_int(b, st, a, 0) : 0;
    column(r, "count", T_INT8);
    cell_int(r, (int64_t)log_rows(b, NULL, a->n ? &v : NULL));
    tag_rows(r);
    return PGS_DONE;
}

/* ---- COPY ---- */

static enum pgs_run do_copy_out(struct pgs_backend *b, struct pgs_stmt *st,
                                const struct pgs_args *a, struct pgs_result *r)
{
    struct pgs_result rows = {0};
    (void)a;
    rows.n_columns = 2;
    if (strcmp(st->token[1].text, "log") == 0) {
        (void)log_rows(b, &rows, NULL);
    } else {
        accounts(b, &rows);
    }
    static const uint8_t head[] = {0, 0, 2, 0, 0, 0, 0};
    pgs_send(b, HF_PG_COPY_OUT, head, sizeof(head));
    for (size_t i = 0; i < rows.n_cells; i += 2) {
        char line[64];
        int n = snprintf(line, sizeof(line), "%s\t%s\n", rows.cell[i], rows.cell[i + 1]);
        pgs_send(b, HF_PG_COPY_DATA, line, (size_t)n);
    }
    pgs_send(b, HF_PG_COPY_DONE, NULL, 0);
    snprintf(r->tag, sizeof(r->tag), "COPY %zu", rows.n_cells / 2);
    pgs_result_clear(&rows);
    return PGS_DONE;
}

/* The whole lines that came. */
enum pgs_run pgs_copy_lines(struct pgs_backend *b)
{
    char line[64];
    for (const uint8_t *nl; (nl = b->copy.n ? memchr(b->copy.p, '\n', b->copy.n) : NULL);) {
        size_t len = (size_t)(nl - b->copy.p);
        char *end;
        snprintf(line, sizeof(line), "%.*s", (int)len, (const char *)b->copy.p);
        hf_buf_consume(&b->copy, len + 1);
        long long v = strtoll(line, &end, 10);
        if (strcmp(line, "\\.") == 0) {
            continue;
        }
        if (!*line || *end) {
            return pgs_fail(b, "22P02", "invalid input syntax for type bigint: \"%s\"", line);
        }
        write_begins(b);
        pgs_change(&b->server->db, &b->xact, PGS_LOG, pgs_nextval(&b->server->db, &b->xact), v);
        b->n_copied++;
    }
    return PGS_DONE;
}

static enum pgs_run do_copy_in(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                               struct pgs_result *r)
{
    (void)st;
    (void)a;
    if (b->wait != PGS_WAIT_COPY) {
        if (read_only(b, "COPY FROM")) {
            return PGS_ERROR;
        }
        static const uint8_t head[] = {0, 0, 1, 0, 0};
        pgs_send(b, HF_PG_COPY_IN, head, sizeof(head));
        b->flushed = b->out.n;
        b->wait = PGS_WAIT_COPY;
        b->copy_over = false;
        b->n_copied = 0;
        hf_buf_clear(&b->copy);
        return PGS_WAITS;
    }
    if (!b->copy_over) {
        return PGS_WAITS;
    }
    b->wait = PGS_AWAKE;
    if (b->copy.n) { /* a last line without its end */
        hf_buf_str(&b->copy, "\n");
    }
    if (pgs_copy_lines(b) == PGS_ERROR) {
        return PGS_ERROR;
    }
    snprintf(r->tag, sizeof(r->tag), "COPY %llu", (unsigned long long)b->n_copied);
    return PGS_DONE;
}

/* ---- transaction control ---- */

static bool in_block(struct pgs_backend *b, const char *what)
{
    if (b->block != PGS_BLOCK && b->block != PGS_FAILED) {
        (void)pgs_fail(b, "25P01", "%s can only be used in transaction blocks", what);
        return false;
    }
    return true;
}

static enum pgs_run do_begin(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                             struct pgs_result *r)
{
    (void)a;
    if (b->block == PGS_BLOCK) {
        pgs_notice(b, "WARNING", "25001", "there is already a transaction in progress");
    }
    b->block = PGS_BLOCK;
    if (strcmp(st->token[st->n - 1].text, "only") == 0) {
        (void)set(b, "transaction_read_only", "on", true);
    }
    COPY_TEXT(r->tag, strcmp(st->token[0].text, "start") == 0 ? "START TRANSACTION" : "BEGIN");
    return PGS_DONE;
}

static enum pgs_run do_end(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                           struct pgs_result *r)
{
    (void)a;
    bool commit = strcmp(st->token[0].text, "commit") == 0 || strcmp(st->token[0].text, "end") == 0;
    bool chain = strcmp(st->token[st->n - 1].text, "chain") == 0;
    bool block = b->block == PGS_BLOCK || b->block == PGS_FAILED;
    if (chain && !in_block(b, commit ? "COMMIT AND CHAIN" : "ROLLBACK AND CHAIN")) {
        return PGS_ERROR;
    }
    if (!block) {
        pgs_notice(b, "WARNING", "25P01", "there is no transaction in progress");
    }
    b->end_asked = true;
    b->end_commit = commit && b->block != PGS_FAILED;
    b->end_chain = chain;
    COPY_TEXT(r->tag, b->end_commit ? "COMMIT" : "ROLLBACK");
    return PGS_DONE;
}

static int savepoint_find(struct pgs_backend *b, const char *name)
{
    for (size_t i = b->n_savepoints; i-- > 0;) {
        if (strcmp(b->savepoint[i].name, name) == 0) {
            return (int)i;
        }
    }
    (void)pgs_fail(b, "3B001", "savepoint \"%s\" does not exist", name);
    return -1;
}

static enum pgs_run do_savepoint(struct pgs_backend *b, struct pgs_stmt *st,
                                 const struct pgs_args *a, struct pgs_result *r)
{
    if (!in_block(b, "SAVEPOINT")) {
        return PGS_ERROR;
    }
    if (b->n_savepoints == PGS_SAVEPOINTS_MAX) {
        return pgs_fail(b, "54000", "too many savepoints");
    }
    struct pgs_savepoint *sp = &b->savepoint[b->n_savepoints++];
    COPY_TEXT(sp->name, arg_text(b, st, a, 0));
    sp->n_changes = b->xact.n;
    sp->xid = false;
    sp->settings = b->settings;
    COPY_TEXT(r->tag, "SAVEPOINT");
    return PGS_DONE;
}

static enum pgs_run do_release(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                               struct pgs_result *r)
{
    if (!in_block(b, "RELEASE SAVEPOINT")) {
        return PGS_ERROR;
    }
    int i = savepoint_find(b, arg_text(b, st, a, 0));
    if (i < 0) {
        return PGS_ERROR;
    }
    b->n_savepoints = (size_t)i;
    COPY_TEXT(r->tag, "RELEASE");
    return PGS_DONE;
}

static enum pgs_run do_rollback_to(struct pgs_backend *b, struct pgs_stmt *st,
                                   const struct pgs_args *a, struct pgs_result *r)
{
    if (!in_block(b, "ROLLBACK TO SAVEPOINT")) {
        return PGS_ERROR;
    }
    int i = savepoint_find(b, arg_text(b, st, a, 0));
    if (i < 0) {
        return PGS_ERROR;
    }
    struct pgs_savepoint *sp = &b->savepoint[i];
    pgs_undo(&b->server->db, &b->xact, sp->n_changes);
    settings_restore(b, &sp->settings);
    sp->xid = false;
    b->n_savepoints = (size_t)i + 1;
    b->block = PGS_BLOCK;
    COPY_TEXT(r->tag, "ROLLBACK");
    return PGS_DONE;
}

/* ---- utility ---- */

/* The value of SET: what follows, as PostgreSQL shows it. */
static void set_value(const struct pgs_stmt *st, size_t from, char out[PGS_VALUE_MAX])
{
    out[0] = 0;
    for (size_t i = from; i < st->n; i++) {
        size_t n = strlen(out);
        snprintf(out + n, PGS_VALUE_MAX - n, "%s%s", st->token[i].text,
                 st->token[i].text[0] == ',' ? " " : "");
    }
}

static enum pgs_run do_set(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                           struct pgs_result *r)
{
    char value[PGS_VALUE_MAX];
    bool local = strcmp(st->token[1].text, "local") == 0;
    set_value(st, a->at[0] + 2, value);
    if (local && b->block != PGS_BLOCK) {
        pgs_notice(b, "WARNING", "25P01", "SET LOCAL can only be used in transaction blocks");
    }
    COPY_TEXT(r->tag, "SET");
    bool reset = strcmp(value, "default") == 0;
    return set(b, st->token[a->at[0]].text, reset ? NULL : value, local);
}

static enum pgs_run do_reset(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                             struct pgs_result *r)
{
    const char *name = st->token[a->at[0]].text;
    COPY_TEXT(r->tag, "RESET");
    if (strcmp(name, "all") != 0) {
        return set(b, name, NULL, false);
    }
    for (size_t i = 0; i < b->settings.n; i++) {
        if (strcmp(b->settings.s[i].name, "role") != 0) {
            (void)set(b, b->settings.s[i].name, NULL, false);
        }
    }
    return PGS_DONE;
}

static enum pgs_run do_show(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                            struct pgs_result *r)
{
    const char *name = st->token[a->at[0]].text;
    const struct pgs_setting *g = setting(b, name);
    if (!g) {
        return pgs_fail(b, "42704", "unrecognized configuration parameter \"%s\"", name);
    }
    column(r, g->name, T_TEXT);
    cell(r, g->value);
    COPY_TEXT(r->tag, "SHOW");
    return PGS_DONE;
}

static enum pgs_run do_listen(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                              struct pgs_result *r)
{
    bool on = strcmp(st->token[0].text, "listen") == 0;
    if (b->n_relistens < PGS_CHANNELS_MAX) {
        COPY_TEXT(b->relisten[b->n_relistens].channel, a->n ? st->token[a->at[0]].text : "");
        b->relisten[b->n_relistens].on = on;
        b->relisten[b->n_relistens++].all = a->n == 0;
    }
    COPY_TEXT(r->tag, on ? "LISTEN" : "UNLISTEN");
    return PGS_DONE;
}

static void notify(struct pgs_backend *b, const char *channel, const char *payload)
{
    for (size_t i = 0; i < b->n_notify; i++) { /* the same twice is told once */
        if (strcmp(b->notify[i].channel, channel) == 0 &&
            strcmp(b->notify[i].payload, payload) == 0) {
            return;
        }
    }
    (void)pgs_assign(&b->server->db, &b->xact);
    if (b->n_notify < PGS_CHANNELS_MAX) {
        struct pgs_notice *n = &b->notify[b->n_notify++];
        COPY_TEXT(n->channel, channel);
        COPY_TEXT(n->payload, payload);
        n->pid = b->pid;
    }
}

static enum pgs_run do_notify(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                              struct pgs_result *r)
{
    notify(b, st->token[a->at[0]].text, a->n > 1 ? arg_text(b, st, a, 1) : "");
    COPY_TEXT(r->tag, "NOTIFY");
    return PGS_DONE;
}

static struct pgs_stmt *inner(const struct pgs_stmt *st, size_t from)
{
    struct pgs_stmt *s = NULL;
    const char *text = st->text + st->token[from].at;
    return pgs_parse(text, strlen(text), &s) == 1 ? s : NULL;
}

static enum pgs_run do_prepare(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                               struct pgs_result *r)
{
    const char *name = st->token[a->at[0]].text;
    if (pgs_prepared_find(b, name)) {
        return pgs_fail(b, "42P05", "prepared statement \"%s\" already exists", name);
    }
    size_t from = a->at[0] + 1;
    while (from < st->n && strcmp(st->token[from].text, "as") != 0) {
        from++;
    }
    struct pgs_prepared *p = pgs_prepared_add(b, name, inner(st, from + 1));
    COPY_TEXT(p->text, st->text);
    struct pgs_result shape = {0};
    p->sql = true;
    if (p->stmt) {
        (void)pgs_describe(b, p->stmt, &shape, p->type, &p->n_params);
    }
    pgs_result_clear(&shape);
    COPY_TEXT(r->tag, "PREPARE");
    return PGS_DONE;
}

static struct pgs_prepared *prepared(struct pgs_backend *b, const char *name)
{
    struct pgs_prepared *p = pgs_prepared_find(b, name);
    if (!p || !p->stmt) {
        (void)pgs_fail(b, "26000", "prepared statement \"%s\" does not exist", name);
        return NULL;
    }
    return p;
}

static enum pgs_run do_execute(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                               struct pgs_result *r)
{
    struct pgs_prepared *p = prepared(b, st->token[a->at[0]].text);
    if (!p) {
        return PGS_ERROR;
    }
    char *params[PGS_ARGS_MAX * 4] = {0};
    size_t n = 0;
    for (size_t i = a->at[0] + 2; i + 1 < st->n && n < HF_ARRAY_LEN(params); i += 2) {
        params[n++] = st->token[i].text;
    }
    char *const *outer = b->params;
    b->params = params;
    enum pgs_run run = pgs_execute(b, p->stmt, r);
    b->params = outer;
    return run;
}

static enum pgs_run do_deallocate(struct pgs_backend *b, struct pgs_stmt *st,
                                  const struct pgs_args *a, struct pgs_result *r)
{
    const char *name = st->token[a->at[0]].text;
    if (strcmp(name, "all") == 0) {
        pgs_prepared_drop(b, NULL);
        COPY_TEXT(r->tag, "DEALLOCATE ALL");
        return PGS_DONE;
    }
    if (!prepared(b, name)) {
        return PGS_ERROR;
    }
    pgs_prepared_drop(b, name);
    COPY_TEXT(r->tag, "DEALLOCATE");
    return PGS_DONE;
}

static enum pgs_run do_discard(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                               struct pgs_result *r)
{
    (void)st;
    (void)a;
    if (b->block != PGS_STARTED) {
        return pgs_fail(b, "25001", "DISCARD ALL cannot run inside a transaction block");
    }
    for (size_t i = 0; i < b->settings.n; i++) {
        (void)set(b, b->settings.s[i].name, NULL, false);
    }
    pgs_prepared_drop(b, NULL);
    b->n_listens = 0;
    b->has_temp = false;
    COPY_TEXT(r->tag, "DISCARD ALL");
    return PGS_DONE;
}

static enum pgs_run do_drop(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                            struct pgs_result *r)
{
    char text[128];
    snprintf(text, sizeof(text), "table \"%.80s\" does not exist, skipping",
             st->token[a->at[0]].text);
    pgs_notice(b, "NOTICE", "00000", text);
    COPY_TEXT(r->tag, "DROP TABLE");
    return PGS_DONE;
}

static enum pgs_run do_temp(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                            struct pgs_result *r)
{
    (void)st;
    (void)a;
    b->has_temp = true;
    write_begins(b);
    COPY_TEXT(r->tag, "CREATE TABLE");
    return PGS_DONE;
}

static enum pgs_run do_vacuum(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                              struct pgs_result *r)
{
    (void)st;
    (void)a;
    if (b->block != PGS_STARTED) {
        return pgs_fail(b, "25001", "VACUUM cannot run inside a transaction block");
    }
    COPY_TEXT(r->tag, "VACUUM");
    return PGS_DONE;
}

/* ---- functions ---- */

struct value {
    bool null;
    char text[PGS_VALUE_MAX];
    uint32_t type;
    char name[64]; /* of the column */
};

static bool yes(const char *s)
{
    return s[0] == 't' || s[0] == 'T' || s[0] == '1' || strcmp(s, "on") == 0;
}

#define SET_TEXT(v, ...) snprintf((v)->text, sizeof((v)->text), __VA_ARGS__)

typedef enum pgs_run function(struct pgs_backend *b, const struct value *a, size_t n,
                              struct value *v);

static enum pgs_run f_pid(struct pgs_backend *b, const struct value *a, size_t n, struct value *v)
{
    (void)a;
    (void)n;
    SET_TEXT(v, "%u", b->pid);
    return PGS_DONE;
}

static enum pgs_run f_now(struct pgs_backend *b, const struct value *a, size_t n, struct value *v)
{
    (void)a;
    (void)n;
    SET_TEXT(v, "2026-11-21 %02u:%02u:%02u.%06u+00", (unsigned)(b->began / 3600000000u % 24),
             (unsigned)(b->began / 60000000u % 60), (unsigned)(b->began / 1000000u % 60),
             (unsigned)(b->began % 1000000u));
    return PGS_DONE;
}

static enum pgs_run f_random(struct pgs_backend *b, const struct value *a, size_t n,
                             struct value *v)
{
    (void)a;
    (void)n;
    SET_TEXT(v, "0.%09llu", (unsigned long long)hf_prng_below(&b->server->prng, 1000000000));
    return PGS_DONE;
}

static enum pgs_run f_nextval(struct pgs_backend *b, const struct value *a, size_t n,
                              struct value *v)
{
    (void)a;
    (void)n;
    SET_TEXT(v, "%lld", (long long)pgs_nextval(&b->server->db, &b->xact));
    return PGS_DONE;
}

static enum pgs_run f_setval(struct pgs_backend *b, const struct value *a, size_t n,
                             struct value *v)
{
    pgs_setval(&b->server->db, &b->xact, strtoll(a[1].text, NULL, 10), n < 3 || yes(a[2].text));
    COPY_TEXT(v->text, a[1].text);
    return PGS_DONE;
}

static enum pgs_run f_sleep(struct pgs_backend *b, const struct value *a, size_t n, struct value *v)
{
    (void)n;
    if (b->wait != PGS_WAIT_SLEEP) {
        b->wait = PGS_WAIT_SLEEP;
        b->sleep_until = b->server->now + (uint64_t)(strtod(a[0].text, NULL) * 1e6);
        return PGS_WAITS;
    }
    b->wait = PGS_AWAKE;
    v->text[0] = 0;
    return PGS_DONE;
}

static enum pgs_run f_set_config(struct pgs_backend *b, const struct value *a, size_t n,
                                 struct value *v)
{
    (void)n;
    enum pgs_run r = set(b, a[0].text, a[1].null ? NULL : a[1].text, yes(a[2].text));
    if (r == PGS_DONE) {
        COPY_TEXT(v->text, setting(b, a[0].text)->value);
    }
    return r;
}

/* A user's function: writes, and sets application_name if it is given one. */
static enum pgs_run f_tune(struct pgs_backend *b, const struct value *a, size_t n, struct value *v)
{
    (void)n;
    (void)pgs_assign(&b->server->db, &b->xact);
    COPY_TEXT(v->text, a[0].text);
    return a[0].text[0] ? set(b, "application_name", a[0].text, false) : PGS_DONE;
}

static enum pgs_run f_current_setting(struct pgs_backend *b, const struct value *a, size_t n,
                                      struct value *v)
{
    const struct pgs_setting *g = setting(b, a[0].text);
    if (!g && n > 1 && yes(a[1].text)) {
        v->null = true;
        return PGS_DONE;
    }
    if (!g) {
        return pgs_fail(b, "42704", "unrecognized configuration parameter \"%s\"", a[0].text);
    }
    COPY_TEXT(v->text, g->value);
    return PGS_DONE;
}

static enum pgs_run f_xid(struct pgs_backend *b, const struct value *a, size_t n, struct value *v)
{
    (void)a;
    (void)n;
    SET_TEXT(v, "%llu", (unsigned long long)pgs_assign(&b->server->db, &b->xact));
    return PGS_DONE;
}

static enum pgs_run f_xid_if(struct pgs_backend *b, const struct value *a, size_t n,
                             struct value *v)
{
    (void)a;
    (void)n;
    v->null = b->xact.xid == 0;
    SET_TEXT(v, "%llu", (unsigned long long)b->xact.xid);
    return PGS_DONE;
}

static enum pgs_run f_xmax(struct pgs_backend *b, const struct value *a, size_t n, struct value *v)
{
    (void)a;
    (void)n;
    SET_TEXT(v, "%llu", (unsigned long long)b->server->db.next_xid);
    return PGS_DONE;
}

static enum pgs_run f_status(struct pgs_backend *b, const struct value *a, size_t n,
                             struct value *v)
{
    static const char *const text[] = {"in progress", "committed", "aborted"};
    (void)n;
    uint64_t xid = strtoull(a[0].text, NULL, 10);
    enum pgs_status s = pgs_xact_status(&b->server->db, xid);
    if (s == PGS_FUTURE) {
        return pgs_fail(b, "22023", "transaction ID %llu is in the future",
                        (unsigned long long)xid);
    }
    COPY_TEXT(v->text, text[s]);
    return PGS_DONE;
}

static enum pgs_run f_terminate(struct pgs_backend *b, const struct value *a, size_t n,
                                struct value *v)
{
    uint32_t pid = (uint32_t)strtoul(a[0].text, NULL, 10);
    uint64_t timeout = n > 1 ? strtoull(a[1].text, NULL, 10) * 1000 : 0;
    struct pgs_backend *other = pgs_backend_find(b->server, pid);
    bool again = b->wait == PGS_WAIT_SLEEP;
    b->wait = PGS_AWAKE;
    if (other == b) {
        b->terminated = true;
        return PGS_WAITS;
    }
    if (!other && !again) {
        char text[96];
        snprintf(text, sizeof(text), "PID %u is not a PostgreSQL backend process", pid);
        pgs_notice(b, "WARNING", "01000", text);
    }
    if (other && !again) {
        pgs_terminate(other);
        b->wait_end = b->server->now + timeout;
    }
    if (other && timeout && b->server->now < b->wait_end) {
        b->wait = PGS_WAIT_SLEEP;
        b->sleep_until = b->server->now + 100;
        return PGS_WAITS;
    }
    if (other && timeout) {
        pgs_notice(b, "WARNING", "01000", "backend with PID did not terminate in time");
    }
    COPY_TEXT(v->text, (other && timeout) || (!other && !again) ? "f" : "t");
    return PGS_DONE;
}

static enum pgs_run f_emit(struct pgs_backend *b, const struct value *a, size_t n, struct value *v)
{
    (void)n;
    if (yes(a[0].text)) {
        (void)pgs_assign(&b->server->db, &b->xact);
    }
    SET_TEXT(v, "0/%zX", b->server->db.n_wal);
    return PGS_DONE;
}

static enum pgs_run f_notify(struct pgs_backend *b, const struct value *a, size_t n,
                             struct value *v)
{
    (void)n;
    notify(b, a[0].text, a[1].text);
    v->text[0] = 0;
    return PGS_DONE;
}

static enum pgs_run f_user(struct pgs_backend *b, const struct value *a, size_t n, struct value *v)
{
    (void)a;
    (void)n;
    COPY_TEXT(v->text, setting(b, "session_authorization")->value);
    return PGS_DONE;
}

static const struct {
    const char *name;
    uint32_t oid, type;
    size_t n_min, n_max;
    function *f;
} functions[] = {
    {"pg_backend_pid", 2026, T_INT4, 0, 0, f_pid},
    {"now", 1299, 1184, 0, 0, f_now},
    {"random", 1598, 701, 0, 0, f_random},
    {"nextval", 1574, T_INT8, 1, 1, f_nextval},
    {"setval", 1576, T_INT8, 2, 2, f_setval},
    {"setval", 1765, T_INT8, 3, 3, f_setval},
    {"pg_sleep", 2626, T_VOID, 1, 1, f_sleep},
    {"set_config", 2078, T_TEXT, 3, 3, f_set_config},
    {"tune", 16400, T_TEXT, 1, 1, f_tune},
    {"current_setting", 2077, T_TEXT, 1, 1, f_current_setting},
    {"current_setting", 3294, T_TEXT, 2, 2, f_current_setting},
    {"pg_current_xact_id", 5059, 5069, 0, 0, f_xid},
    {"pg_current_xact_id_if_assigned", 5060, 5069, 0, 0, f_xid_if},
    {"pg_current_snapshot", 5061, 5038, 0, 0, f_xmax},
    {"pg_snapshot_xmax", 5063, 5069, 1, 1, f_xmax},
    {"pg_xact_status", 5066, T_TEXT, 1, 1, f_status},
    {"pg_terminate_backend", 2096, T_BOOL, 1, 2, f_terminate},
    {"pg_logical_emit_message", 3577, 3220, 3, 3, f_emit},
    {"pg_notify", 3036, T_VOID, 2, 2, f_notify},
    {"session_user", 746, 19, 0, 0, f_user},
};

enum pgs_run pgs_call(struct pgs_backend *b, uint32_t oid, char *const *args, size_t n,
                      char **ret_value, uint32_t *ret_type)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(functions); i++) {
        if (functions[i].oid != oid || n < functions[i].n_min || n > functions[i].n_max) {
            continue;
        }
        struct value a[PGS_ARGS_MAX] = {0}, v = {0};
        for (size_t k = 0; k < n && k < PGS_ARGS_MAX; k++) {
            a[k].null = args[k] == NULL;
            COPY_TEXT(a[k].text, args[k] ? args[k] : "");
        }
        enum pgs_run r = functions[i].f(b, a, n, &v);
        if (r == PGS_DONE && !v.null) {
            *ret_value = sim_alloc(strlen(v.text) + 1);
            memcpy(*ret_value, v.text, strlen(v.text) + 1);
        }
        *ret_type = functions[i].type;
        return r;
    }
    return pgs_fail(b, "42883", "function with OID %u does not exist", oid);
}

/* ---- SELECT without FROM ---- */

struct parser {
    struct pgs_backend *b;
    const struct pgs_stmt *st;
    size_t at;
    bool dry; /* only types */
    uint32_t *types;
    size_t n_params;
};

static enum pgs_run syntax(struct parser *p)
{
    if (p->at >= p->st->n) {
        return pgs_fail(p->b, "42601", "syntax error at end of input");
    }
    const struct pgs_token *t = &p->st->token[p->at];
    return pgs_fail(p->b, "42601", "syntax error at or near \"%.*s\"", (int)(t->end - t->at),
                    p->st->text + t->at);
}

static bool take(struct parser *p, const char *text)
{
    if (p->at < p->st->n && strcmp(p->st->token[p->at].text, text) == 0 &&
        p->st->token[p->at].kind != PGS_T_STRING) {
        p->at++;
        return true;
    }
    return false;
}

static enum pgs_run expr(struct parser *p, struct value *v);

static enum pgs_run function_call(struct parser *p, const char *name, struct value *v)
{
    struct value *a = sim_alloc(PGS_ARGS_MAX * sizeof(*a));
    size_t n = 0;
    memset(a, 0, PGS_ARGS_MAX * sizeof(*a));
    enum pgs_run r = PGS_DONE;
    if (!take(p, ")")) {
        do {
            r = n < PGS_ARGS_MAX ? expr(p, &a[n++]) : syntax(p);
        } while (r == PGS_DONE && take(p, ","));
        if (r == PGS_DONE && !take(p, ")")) {
            r = syntax(p);
        }
    }
    const char *dot = strrchr(name, '.');
    name = dot ? dot + 1 : name;
    size_t i = 0;
    while (i < HF_ARRAY_LEN(functions) && (strcmp(functions[i].name, name) != 0 ||
                                           n < functions[i].n_min || n > functions[i].n_max)) {
        i++;
    }
    if (r == PGS_DONE && i == HF_ARRAY_LEN(functions)) {
        r = pgs_fail(p->b, "42883", "function %s does not exist", name);
    }
    if (r == PGS_DONE) {
        v->type = functions[i].type;
        COPY_TEXT(v->name, name);
        r = p->dry ? PGS_DONE : functions[i].f(p->b, a, n, v);
    }
    free(a);
    return r;
}

static void param(struct parser *p, const char *text, struct value *v)
{
    size_t k = strtoul(text + 1, NULL, 10);
    bool int4 = p->at < p->st->n && strcmp(p->st->token[p->at].text, "::") == 0;
    v->type = T_TEXT;
    if (int4 && p->at + 1 < p->st->n) {
        const char *type = p->st->token[p->at + 1].text;
        v->type = strcmp(type, "int") == 0 || strcmp(type, "int4") == 0      ? T_INT4
                  : strcmp(type, "bigint") == 0 || strcmp(type, "int8") == 0 ? T_INT8
                                                                             : T_TEXT;
    }
    if (k > 0 && k <= PGS_ARGS_MAX * 4) {
        if (p->types) {
            p->types[k - 1] = v->type;
        }
        p->n_params = k > p->n_params ? k : p->n_params;
        const char *given = p->b->params ? p->b->params[k - 1] : NULL;
        v->null = given == NULL;
        COPY_TEXT(v->text, given ? given : "");
    }
}

static enum pgs_run primary(struct parser *p, struct value *v)
{
    if (p->at >= p->st->n) {
        return syntax(p);
    }
    memset(v, 0, sizeof(*v));
    COPY_TEXT(v->name, "?column?");
    const struct pgs_token *t = &p->st->token[p->at];
    switch (t->kind) {
    case PGS_T_NUMBER:
        p->at++;
        v->type = strchr(t->text, '.') ? 1700 : T_INT4;
        COPY_TEXT(v->text, t->text);
        return PGS_DONE;
    case PGS_T_STRING:
        p->at++;
        v->type = T_TEXT;
        COPY_TEXT(v->text, t->text);
        return PGS_DONE;
    case PGS_T_PARAM:
        p->at++;
        param(p, t->text, v);
        return PGS_DONE;
    case PGS_T_WORD:
        p->at++;
        if (strcmp(t->text, "e") == 0 && p->at < p->st->n &&
            p->st->token[p->at].kind == PGS_T_STRING) {
            return primary(p, v); /* E'...' without escapes */
        }
        if (strcmp(t->text, "null") == 0) {
            v->null = true;
            v->type = T_TEXT;
            return PGS_DONE;
        }
        if (strcmp(t->text, "true") == 0 || strcmp(t->text, "false") == 0) {
            SET_TEXT(v, "%c", t->text[0]);
            COPY_TEXT(v->name, "bool");
            v->type = T_BOOL;
            return PGS_DONE;
        }
        if (strcmp(t->text, "session_user") == 0) {
            v->type = 19;
            COPY_TEXT(v->name, "session_user");
            return f_user(p->b, NULL, 0, v);
        }
        return take(p, "(") ? function_call(p, t->text, v)
                            : pgs_fail(p->b, "42703", "column \"%s\" does not exist", t->text);
    case PGS_T_QUOTED:
    case PGS_T_OP:
    default:
        if (take(p, "-")) {
            enum pgs_run r = primary(p, v);
            char text[PGS_VALUE_MAX];
            COPY_TEXT(text, v->text);
            SET_TEXT(v, "-%.100s", text);
            return r;
        }
        return syntax(p);
    }
}

static enum pgs_run cast(struct parser *p, struct value *v)
{
    enum pgs_run r = primary(p, v);
    while (r == PGS_DONE && take(p, "::")) {
        static const struct {
            const char *name, *column;
            uint32_t type;
        } types[] = {{"int", "int4", T_INT4},  {"int4", "int4", T_INT4},
                     {"int8", "int8", T_INT8}, {"bigint", "int8", T_INT8},
                     {"text", "text", T_TEXT}, {"xid8", "xid8", 5069},
                     {"xid", "xid", 28},       {"regclass", "regclass", 2205},
                     {"bool", "bool", T_BOOL}, {"boolean", "bool", T_BOOL}};
        const char *name = p->at < p->st->n ? p->st->token[p->at].text : "";
        bool found = false;
        for (size_t i = 0; i < HF_ARRAY_LEN(types); i++) {
            if (strcmp(types[i].name, name) == 0) {
                v->type = types[i].type;
                if (strcmp(v->name, "?column?") == 0) {
                    COPY_TEXT(v->name, types[i].column);
                }
                found = true;
            }
        }
        if (!found) {
            return syntax(p);
        }
        p->at++;
    }
    return r;
}

static enum pgs_run expr(struct parser *p, struct value *v)
{
    enum pgs_run r = cast(p, v);
    while (r == PGS_DONE && p->at < p->st->n && strchr("+-*/", p->st->token[p->at].text[0]) &&
           p->st->token[p->at].kind == PGS_T_OP) {
        char op = p->st->token[p->at++].text[0];
        struct value *w = sim_alloc(sizeof(*w));
        r = cast(p, w);
        int64_t x = strtoll(v->text, NULL, 10), y = r ? 1 : strtoll(w->text, NULL, 10);
        if (r == PGS_DONE && !p->dry && op == '/' && y == 0) {
            r = pgs_fail(p->b, "22012", "division by zero");
        }
        v->type = v->type == T_INT8 || w->type == T_INT8 ? T_INT8 : T_INT4;
        if (r == PGS_DONE && !(op == '/' && y == 0)) {
            SET_TEXT(v, "%lld",
                     (long long)(op == '+'   ? x + y
                                 : op == '-' ? x - y
                                 : op == '*' ? x * y
                                             : x / y));
        }
        COPY_TEXT(v->name, "?column?");
        free(w);
    }
    return r;
}

static enum pgs_run select_list(struct parser *p, struct pgs_result *r)
{
    p->at = 1;
    struct value *v = sim_alloc(sizeof(*v));
    enum pgs_run run;
    do {
        run = expr(p, v);
        if (run == PGS_DONE && take(p, "as")) {
            if (p->at >= p->st->n) {
                run = syntax(p);
                break;
            }
            COPY_TEXT(v->name, p->st->token[p->at++].text);
        }
        if (run == PGS_DONE) {
            column(r, v->name, v->type);
            if (!p->dry) {
                cell(r, v->null ? NULL : v->text);
            }
        }
    } while (run == PGS_DONE && take(p, ","));
    if (run == PGS_DONE && p->at < p->st->n) {
        run = syntax(p);
    }
    free(v);
    if (run == PGS_DONE) {
        tag_rows(r);
    } else {
        pgs_result_clear(r);
    }
    return run;
}

static enum pgs_run do_select(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                              struct pgs_result *r)
{
    struct parser p = {.b = b, .st = st};
    (void)a;
    return select_list(&p, r);
}

/* What the session core reads its settings with: rows (kind, name, value). */
static void observed(struct pgs_result *r, const char *kind, const char *name, const char *value)
{
    cell(r, kind);
    cell(r, name);
    cell(r, value);
}

static enum pgs_run do_observe(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                               struct pgs_result *r)
{
    (void)a;
    column(r, "?column?", T_TEXT);
    column(r, "name", T_TEXT);
    column(r, "setting", T_TEXT);
    for (size_t i = 0; i < b->settings.n; i++) {
        const struct pgs_setting *g = &b->settings.s[i];
        if (g->set && !strchr(g->name, '.') && strcmp(g->name, "role") != 0 &&
            strcmp(g->name, "session_authorization") != 0 &&
            strcmp(g->name, "transaction_read_only") != 0) {
            observed(r, "s", g->name, g->value);
        }
    }
    observed(r, "r", "", setting(b, "role")->value);
    observed(r, "a", "", setting(b, "session_authorization")->value);
    observed(r, "c", "", setting(b, "synchronous_commit")->value);
    for (size_t i = 0; i < b->n_listens; i++) {
        observed(r, "l", b->listens[i], "");
    }
    for (const struct pgs_prepared *p = b->prepared; p; p = p->next) {
        if (p->name[0] && p->sql) {
            observed(r, "p", p->name, p->text);
        }
    }
    if (b->has_temp) {
        observed(r, "t", "", "");
    }
    for (size_t i = 0; i + 5 < st->n; i++) { /* current_setting(E'name', true) */
        if (strcmp(st->token[i].text, "pg_catalog.current_setting") == 0 &&
            strcmp(st->token[i + 2].text, "e") == 0) {
            const struct pgs_setting *g = setting(b, st->token[i + 3].text);
            observed(r, "s", st->token[i + 3].text, g ? g->value : NULL);
        }
    }
    for (size_t i = 0; i < st->n; i++) { /* the token with it */
        bool now = strcmp(st->token[i].text, "pg_catalog.pg_current_xact_id") == 0;
        if (now || strcmp(st->token[i].text, "pg_catalog.pg_current_xact_id_if_assigned") == 0) {
            struct value v = {0};
            enum pgs_run run = now ? f_xid(b, NULL, 0, &v) : f_xid_if(b, NULL, 0, &v);
            if (run != PGS_DONE) {
                return run;
            }
            observed(r, "x", "", v.null ? NULL : v.text);
        }
    }
    tag_rows(r);
    return PGS_DONE;
}

/* The backend of this pid, if it is that one. */
static enum pgs_run do_clear(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                             struct pgs_result *r)
{
    struct pgs_backend *other = pgs_backend_find(b->server, (uint32_t)arg_int(b, st, a, 0));
    double age = -1;
    uint32_t port = 0;
    for (size_t i = 0; i + 2 < st->n; i++) {
        if (strcmp(st->token[i].text, "client_port") == 0) {
            port = (uint32_t)strtoul(st->token[i + 2].text, NULL, 10);
        }
        if (st->token[i].kind == PGS_T_NUMBER && strcmp(st->token[i + 1].text, ")") == 0 &&
            strcmp(st->token[i + 2].text, "<") == 0) {
            age = strtod(st->token[i].text, NULL);
        }
    }
    column(r, "pg_terminate_backend", T_BOOL);
    if (other && other != b && pgs_backend_is(other, port, age)) {
        pgs_terminate(other);
        cell(r, "t");
    }
    tag_rows(r);
    return PGS_DONE;
}

/* SET ROLE, SET SESSION AUTHORIZATION */
static enum pgs_run do_set_role(struct pgs_backend *b, struct pgs_stmt *st,
                                const struct pgs_args *a, struct pgs_result *r)
{
    COPY_TEXT(r->tag, "SET");
    const char *name = st->n == 3 ? "role" : "session_authorization";
    return set(b, name, st->token[a->at[0]].text, false);
}

/* ---- which is which ---- */

typedef enum pgs_run statement(struct pgs_backend *b, struct pgs_stmt *st, const struct pgs_args *a,
                               struct pgs_result *r);

static const struct form {
    const char *pattern;
    statement *run;
    const char *columns; /* "name type name type"; NULL: none; "?": ask */
} forms[] = {
    {"update accounts set n = n + #8 where id = #4", do_update, NULL},
    {"update accounts set n = n + #8 where id = #4 returning n", do_update, "n 20"},
    {"insert into log ( v ) values ( #8 )", do_insert, NULL},
    {"insert into log ( v ) values ( #8 ) returning id", do_insert, "id 20"},
    {"insert into log ( @ , v ) overriding system value values ( #8 , #8 ) returning id",
     do_insert_id, "id 20"},
    {"with recursive ids ...", do_beyond, "?column? 20"},
    {"discard sequences", do_discard_sequences, NULL},
    {"insert into once ( v ) values ( #8 )", do_once, NULL},
    {"select n from accounts where id = #4 [ for update ]", do_account, "n 20"},
    {"select id , n from accounts order by id", do_accounts, "id 23 n 20"},
    {"select id , v from log order by id", do_log, "id 20 v 20"},
    {"select count ( * ) from log [ where v = #8 ]", do_count, "count 20"},
    {"copy log|accounts to stdout", do_copy_out, NULL},
    {"copy log ( v ) from stdin", do_copy_in, NULL},
    {"begin [ transaction|work ] [ read only ]", do_begin, NULL},
    {"begin [ transaction|work ] isolation level ...", do_begin, NULL},
    {"start transaction [ read only ]", do_begin, NULL},
    {"commit|end|rollback|abort [ transaction|work ] [ and chain ]", do_end, NULL},
    {"savepoint @", do_savepoint, NULL},
    {"release [ savepoint ] @", do_release, NULL},
    {"rollback|abort [ transaction|work ] to [ savepoint ] @", do_rollback_to, NULL},
    {"set [ local|session ] @ =|to ...", do_set, NULL},
    {"set role @", do_set_role, NULL},
    {"set session authorization @", do_set_role, NULL},
    {"reset @", do_reset, NULL},
    {"show @", do_show, "?"},
    {"listen @", do_listen, NULL},
    {"unlisten *", do_listen, NULL},
    {"unlisten @", do_listen, NULL},
    {"notify @ [ , ' ]", do_notify, NULL},
    {"prepare @ as ...", do_prepare, NULL},
    {"prepare @ ( ...", do_prepare, NULL},
    {"execute @ [ ( ... ]", do_execute, "?"},
    {"deallocate [ prepare ] @", do_deallocate, NULL},
    {"discard all", do_discard, NULL},
    {"drop table if exists @", do_drop, NULL},
    {"create temp|temporary table @ ...", do_temp, NULL},
    {"vacuum [ @ ]", do_vacuum, NULL},
    {"select ' , name , setting from pg_catalog.pg_settings ...", do_observe,
     "?column? 25 name 25 setting 25"},
    {"select pg_catalog.pg_terminate_backend ( pid ) from pg_catalog.pg_stat_get_activity ( #4 ) "
     "where ...",
     do_clear, "pg_terminate_backend 16"},
    {"select ...", do_select, "?"},
};

static const struct form *form_of(const struct pgs_stmt *st, struct pgs_args *a)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(forms); i++) {
        if (pgs_match(st, 0, forms[i].pattern, a)) {
            return &forms[i];
        }
    }
    return NULL;
}

bool pgs_is_xact(const struct pgs_stmt *st)
{
    struct pgs_args a;
    const struct form *f = form_of(st, &a);
    return f && (f->run == do_begin || f->run == do_end || f->run == do_savepoint ||
                 f->run == do_release || f->run == do_rollback_to);
}

bool pgs_is_exit(const struct pgs_stmt *st)
{
    struct pgs_args a;
    const struct form *f = form_of(st, &a);
    return f && (f->run == do_end || f->run == do_rollback_to);
}

enum pgs_run pgs_execute(struct pgs_backend *b, struct pgs_stmt *st, struct pgs_result *r)
{
    struct pgs_args a;
    const struct form *f = form_of(st, &a);
    if (!f) {
        return pgs_fail(b, "42601", "syntax error at or near \"%s\"", st->token[0].text);
    }
    bool plain = b->params == NULL;
    for (size_t i = 0; plain && i < st->n && f->run != do_prepare; i++) {
        if (st->token[i].kind == PGS_T_PARAM) {
            return pgs_fail(b, "42P02", "there is no parameter %s", st->token[i].text);
        }
    }
    return f->run(b, st, &a, r);
}

static void form_columns(const struct form *f, struct pgs_result *r)
{
    char name[64];
    unsigned type;
    int n = 0;
    for (const char *c = f->columns; c && sscanf(c, "%63s %u%n", name, &type, &n) == 2; c += n) {
        column(r, name, type);
    }
}

int pgs_describe(struct pgs_backend *b, struct pgs_stmt *st, struct pgs_result *r, uint32_t *types,
                 size_t *ret_n_params)
{
    struct pgs_args a;
    const struct form *f = form_of(st, &a);
    size_t n_params = 0;
    if (!f) {
        (void)pgs_fail(b, "42601", "syntax error at or near \"%s\"", st->token[0].text);
        return -1;
    }
    if (f->run == do_select) {
        struct parser p = {.b = b, .st = st, .dry = true, .types = types};
        if (select_list(&p, r) == PGS_ERROR) {
            return -1;
        }
        n_params = p.n_params;
    } else if (f->run == do_show) {
        const struct pgs_setting *g = setting(b, st->token[a.at[0]].text);
        column(r, g ? g->name : "?", T_TEXT);
    } else if (f->run == do_execute) {
        struct pgs_prepared *p = prepared(b, st->token[a.at[0]].text);
        size_t n;
        uint32_t unused[PGS_ARGS_MAX * 4];
        if (!p || pgs_describe(b, p->stmt, r, unused, &n) < 0) {
            return -1;
        }
    } else {
        form_columns(f, r);
        for (size_t i = 0; i < a.n; i++) {
            const struct pgs_token *t = &st->token[a.at[i]];
            unsigned long k = t->kind == PGS_T_PARAM ? strtoul(t->text + 1, NULL, 10) : 0;
            if (k > 0 && k <= PGS_ARGS_MAX * 4) {
                types[k - 1] = a.bits[i] == 8 ? T_INT8 : a.bits[i] == 4 ? T_INT4 : T_TEXT;
                n_params = k > n_params ? k : n_params;
            }
        }
    }
    *ret_n_params = n_params;
    return (int)r->n_columns;
}
