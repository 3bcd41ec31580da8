/* The client's messages: what each does, what goes with it, and when it must wait. */
#include <assert.h>
#include <ctype.h>
#include <strings.h>

#include "core/pg/session_impl.h"

/* A text as it concerns us: EXECUTE is what its prepared statement is. */
struct meaning {
    const struct hf_pg_class *class;
    uint32_t does;
    bool repeatable, wrappable;
};

static struct meaning meaning_of(struct hf_pg_session *s, const struct hf_pg_class *k)
{
    /* what its functions may do changes with the catalog's list */
    struct meaning m = {
        .class = k, .does = hf_pg_class_does(s->classifier, k), .wrappable = k->wrappable};
    if (k->does & HF_PG_DOES_EXECUTE && k->n_statements == 1) {
        struct prepared *p = hf_map_get(&s->sql_prepared, k->name);
        if (!p) {
            m.does |= HF_PG_DOES_UTILITY;
            return m;
        }
        /* it may do more: EXECUTE p(nextval('s')), EXPLAIN ANALYZE, CREATE TABLE ... AS EXECUTE p
         */
        uint32_t more = k->does & ~(uint32_t)HF_PG_DOES_EXECUTE;
        m.does |= hf_pg_class_does(s->classifier, p->class);
        m.wrappable = p->class->wrappable &&
                      !(more & (HF_PG_DOES_READ | HF_PG_DOES_UTILITY | HF_PG_DOES_SELF));
        m.repeatable = !(more & ~(uint32_t)HF_PG_DOES_READ) &&
                       hf_pg_class_names_safe(s->classifier, k) &&
                       hf_pg_class_repeatable(s->classifier, p->class);
        return m;
    }
    uint32_t rest = k->does & ~(uint32_t)DOES_AGAIN;
    m.repeatable = k->n_statements == 0 || hf_pg_class_repeatable(s->classifier, k) ||
                   (rest == 0 && !(k->does & HF_PG_DOES_READ));
    return m;
}

bool hf_pg_front_held(const struct hf_pg_session *s)
{
    return (s->state != HF_PG_RUNNING && s->state != HF_PG_REPLAYING) || s->cancelling ||
           s->commit == COMMIT_ASKED || s->commit == COMMIT_SENT || s->settling ||
           s->n_units >= UNITS_MAX - 2 || s->n_ops - s->op_head >= OPS_MAX || s->copy_wait ||
           (s->frozen && s->state == HF_PG_RUNNING && s->tx == 'I' && s->block == BLOCK_NO &&
            !s->n_open);
}

/* What the statement means for the session, wherever it runs. */
static void note_effects(struct hf_pg_session *s, struct unit *u, const struct meaning *m)
{
    u->does |= m->does;
    u->repeatable &= m->repeatable;
    if (!m->repeatable)
        s->writes = true;
    if (m->does & HF_PG_DOES_SAVEPOINT)
        s->savepoints = true;
    if (m->does & DOES_CHANGE)
        s->block_change = true;
    if (m->does & HF_PG_DOES_SYNC_COMMIT)
        s->sync_commit = 0;
    if (m->does & HF_PG_DOES_DDL)
        hf_pg_catalog_forget(s->classifier);
    if (m->does & HF_PG_DOES_LOAD)
        s->sticky |= HF_PG_REASON_LOAD;
    if (m->does & HF_PG_DOES_SEQUENCE_STATE)
        s->sticky |= HF_PG_REASON_SEQUENCE_STATE;
    if (m->does & HF_PG_DOES_SETSEED)
        s->sticky |= HF_PG_REASON_SETSEED;
    if (m->does & HF_PG_DOES_LOCK)
        s->locks = true;
    if (m->does & (HF_PG_DOES_OUTSIDE))
        s->passing |= HF_PG_REASON_OUTSIDE;
    if (m->does & HF_PG_DOES_COPY_IN) {
        s->passing |= HF_PG_REASON_COPY_IN;
        s->copy_wait = !u->failed; /* then the server skips it */
    }
    for (uint16_t i = 0; i < m->class->n_settings; i++) {
        const char *name = m->class->settings[i];
        if (strcmp(name, "search_path") == 0 || strcmp(name, "role") == 0 ||
            strcmp(name, "session_authorization") == 0 || strcmp(name, "*") == 0)
            s->ids_off = true;
        if (strchr(name, '.') && s->custom.n < PARAMS_MAX)
            hf_buf_add(&s->custom, hf_slice(name, strlen(name) + 1));
    }
}

/* Why a statement outside a block isn't protected while it runs bare; 0: nothing to protect. */
static uint32_t bare_reason(const struct hf_pg_session *s, const struct meaning *m)
{
    if (m->repeatable)
        return 0;
    if (m->does & HF_PG_DOES_UNKNOWN)
        return HF_PG_REASON_UNSEEN;
    if (m->does & HF_PG_DOES_SELF)
        return HF_PG_REASON_SELF;
    if (m->wrappable && !s->conf->protect_writes)
        return HF_PG_REASON_DISABLED;
    return HF_PG_REASON_UTILITY;
}

/* Where the next message will come in, if this one succeeds. */
static enum block block_after(enum block now, const struct meaning *m)
{
    const struct hf_pg_class *k = m->class;
    if (m->does & HF_PG_DOES_UNKNOWN)
        return BLOCK_UNSURE;
    if (k->n_ends)
        return m->does & HF_PG_DOES_CHAIN || !k->last_is_end ? BLOCK_UNSURE : BLOCK_NO;
    if (m->does & HF_PG_DOES_BEGIN)
        return k->n_statements == 1 ? BLOCK_YES : BLOCK_UNSURE;
    return now;
}

static bool know_block(struct hf_pg_session *s, uint32_t own_units)
{
    if (s->block != BLOCK_UNSURE)
        return true;
    if (s->n_units > own_units)
        return false;
    s->block = s->tx == 'I' ? BLOCK_NO : BLOCK_YES;
    return true;
}

/* A commit point can pass: everything that was delivered before has been seen to be the same. */
static bool verified(struct hf_pg_session *s)
{
    if (s->replay_left == 0)
        return true;
    hf_pg_replay_failed(s, "the replayed transaction gave less than before");
    return false;
}

/* The transaction's token (X1, X10): true when it is known, or not needed; otherwise it has been
 * asked for, between units. */
static bool token_between(struct hf_pg_session *s, uint32_t does, bool needed, bool assign)
{
    if (s->commit == COMMIT_KNOWN)
        return true;
    bool peek = hf_pg_peek_begin(s, does);
    s->commit_kind = COMMIT_QUERY;
    s->commit_xid = s->xid;
    if (!peek && (!needed || s->xid)) {
        s->commit = COMMIT_KNOWN;
        return true;
    }
    s->commit = COMMIT_ASKED;
    if (s->sync_commit == 0)
        hf_pg_ask_sync_commit(s);
    if (peek) {
        struct hf_buf room;
        hf_buf_init(&room, 65536);
        hf_pg_ask_query(s, HID_PEEK, hf_pg_token_sql(s, assign, &room));
        hf_buf_fini(&room);
    } else {
        hf_pg_ask_xid(s, assign);
    }
    return false;
}

static void commit_sent(struct hf_pg_session *s)
{
    s->commit = COMMIT_SENT;
    s->unreplicated = false;
    if (s->sync_commit == 2)
        s->passing |= HF_PG_REASON_SYNC_COMMIT;
}

/* --- simple protocol --- */

static void forward_whole(struct hf_pg_session *s, struct hf_slice message)
{
    hf_pg_log(s, message);
    hf_pg_forward(s, message);
}

/* A Query of the open block; an INSERT that is replayed gives the values that it gave (X8). */
static void forward_query(struct hf_pg_session *s, const struct unit *u, struct hf_slice message,
                          struct hf_slice sql)
{
    struct hf_buf text, again;
    hf_buf_init(&text, 4 * HF_PG_WHOLE_MAX);
    hf_buf_init(&again, 4 * HF_PG_WHOLE_MAX);
    if (u->ticket && hf_pg_ids_again(s, u->ticket, sql, &text)) {
        hf_pg_log(s, message);
        hf_pg_put_query(&again, hf_slice(text.p, text.n - 1));
        hf_pg_inject(s, hf_buf_slice(&again));
    } else {
        forward_whole(s, message);
    }
    hf_buf_fini(&again);
    hf_buf_fini(&text);
}

static void forward_wrapped(struct hf_pg_session *s, const struct unit *u, struct hf_slice message,
                            struct hf_slice sql, bool assign)
{
    static const char begin[] = "BEGIN;";
    struct hf_buf text, room;
    hf_buf_init(&text, 4 * HF_PG_WHOLE_MAX);
    hf_buf_init(&room, 65536);
    hf_pg_peek_begin(s, u->does);
    struct hf_slice token = hf_pg_token_sql(s, assign, &room);
    if (u->ticket && hf_pg_ids_again(s, u->ticket, sql, &text))
        sql = hf_slice(text.p, text.n - 1);
    uint8_t head[HF_PG_HEAD_LEN + BEGIN_LEN];
    struct hf_wr w;
    size_t begin_n = u->split ? 0 : BEGIN_LEN;
    hf_wr_init(&w, head, sizeof(head));
    hf_wr_u8(&w, HF_PG_QUERY);
    hf_wr_u32(&w, (uint32_t)(4 + begin_n + sql.n + 2 + token.n + 1));
    hf_wr_bytes(&w, hf_slice((const uint8_t *)begin, begin_n));
    hf_pg_log(s, message);
    hf_pg_inject(s, hf_slice(head, hf_wr_len(&w)));
    hf_pg_inject(s, sql);
    hf_pg_inject(s, hf_slice_str("\n;"));
    hf_pg_inject(s, token);
    hf_pg_inject(s, hf_slice("", 1));
    hf_buf_fini(&room);
    hf_buf_fini(&text);
}

void hf_pg_end_wrapped(struct hf_pg_session *s)
{
    s->commit_deferred = s->cancelling;
    if (s->cancelling)
        return;
    if (hf_pg_unit_head(s)->failed) {
        hf_pg_ask_query(s, HID_ROLLBACK, hf_slice_str("ROLLBACK"));
    } else if (verified(s)) {
        commit_sent(s);
        hf_pg_ask_query(s, HID_COMMIT, hf_slice_str("COMMIT"));
    }
}

void hf_pg_run_bare(struct hf_pg_session *s)
{
    struct unit *u = hf_pg_unit_head(s);
    if (s->replay_left == 0) { /* what was delivered of it comes again */
        s->replay_total = s->replay_left = hf_pg_hash_get(s, s->replay_hash);
    } else {
        s->replay_left = s->replay_total;
    }
    hf_pg_hash_reset(s);
    u->wrapped = u->failed = u->bare_again = false;
    u->n_done = 0;
    u->reasons |= HF_PG_REASON_UTILITY;
    hf_pg_inject(s, hf_slice(s->log.p + s->log_block, u->log_len));
}

static struct unit *query_unit(struct hf_pg_session *s, const struct meaning *m)
{
    struct unit *u = hf_pg_unit_push(s, UNIT_QUERY);
    u->ended = true;
    note_effects(s, u, m);
    if (s->unnamed)
        hf_pg_prepared_remove(s, s->unnamed); /* a Query destroys it */
    s->unnamed_lost = false;
    hf_pg_portal_bind(s, hf_slice(NULL, 0), NULL);
    s->portal_ticket = 0;
    u->ticket = hf_pg_ids_ticket(s, m->class, hf_slice(NULL, 0));
    return u;
}

static bool query_in_block(struct hf_pg_session *s, struct hf_slice message, struct hf_slice sql,
                           const struct meaning *m)
{
    const struct hf_pg_class *k = m->class;
    bool point = k->n_ends == 1 && k->last_is_end && !(m->does & HF_PG_DOES_ROLLBACK);
    if (point && s->n_units)
        return false; /* the block may have failed meanwhile */
    if (point && s->tx == 'T') {
        bool more = k->n_statements > 1;
        if (!token_between(s, m->does, s->writes || more, more || s->xid_asked))
            return false;
        if (!verified(s))
            return false;
    }
    struct unit *u = query_unit(s, m);
    if (k->n_ends > 1 || (k->n_ends == 1 && !k->last_is_end))
        u->reasons |= HF_PG_REASON_MULTIPLE;
    if (point && s->tx == 'T') {
        commit_sent(s);
        s->commit_more = k->n_statements > 1;
        s->commit_prepare = m->does & HF_PG_DOES_PREPARE_XACT;
        s->commit_chain = m->does & HF_PG_DOES_CHAIN;
        u->held = !s->commit_more;
    }
    forward_query(s, u, message, sql);
    return true;
}

/* BEGIN; ...; COMMIT in one Query: what comes before the COMMIT, if that can be told apart. What is
 * cut off is nothing but its words; what is left is parsed, in case they were in a comment. */
static struct hf_slice before_commit(struct hf_pg_session *s, struct hf_slice sql,
                                     const struct hf_pg_class *k)
{
    static const char *const ends[] = {"commit", "end", "transaction", "work"};
    size_t n = sql.n, words = 0;
    while (n && strchr("; \t\r\n", sql.p[n - 1]))
        n--;
    size_t at = n;
    while (at && sql.p[at - 1] != ';') {
        size_t end = at;
        while (at && isalpha(sql.p[at - 1]))
            at--;
        bool known = false;
        for (size_t i = 0; i < HF_ARRAY_LEN(ends); i++)
            known |= end - at == strlen(ends[i]) &&
                     !strncasecmp((const char *)sql.p + at, ends[i], end - at);
        if (end == at && strchr(" \t\r\n", sql.p[at - 1]))
            at--;
        else if (!known || ++words > 2)
            return hf_slice(NULL, 0);
    }
    struct hf_slice cut = hf_slice(sql.p, at ? at - 1 : 0);
    const struct hf_pg_class *rest = hf_pg_text_class(s, cut);
    bool good = words && rest->n_ends == 0 && rest->n_statements + 1 == k->n_statements;
    hf_pg_class_unref(rest);
    return good ? cut : hf_slice(NULL, 0);
}

static bool splittable(const struct hf_pg_session *s, const struct meaning *m)
{
    const struct hf_pg_class *k = m->class;
    return s->conf->protect_writes && k->first_is_begin && k->last_is_end && k->n_ends == 1 &&
           k->n_statements > 2 && m->does & HF_PG_DOES_COMMIT &&
           !(m->does & (HF_PG_DOES_CHAIN | HF_PG_DOES_PREPARE_XACT | HF_PG_DOES_ROLLBACK |
                        HF_PG_DOES_COPY_IN));
}

static void query_outside(struct hf_pg_session *s, struct hf_slice message, struct hf_slice sql,
                          const struct meaning *m)
{
    struct unit *u = query_unit(s, m);
    bool wrap = !m->repeatable && m->wrappable && s->conf->protect_writes;
    struct hf_slice cut = splittable(s, m) ? before_commit(s, sql, m->class) : hf_slice(NULL, 0);
    if (wrap || cut.n) {
        u->wrapped = true;
        u->split = cut.n;
        u->n_client = m->class->n_statements + (cut.n ? -1u : 1u); /* and BEGIN's */
        s->commit = COMMIT_ASKED;
        s->commit_kind = COMMIT_WRAP;
        s->commit_xid = 0;
        forward_wrapped(s, u, message, cut.n ? cut : sql, m->does & HF_PG_DOES_NOTIFY);
        return;
    }
    if (m->class->n_ends && m->class->n_statements > 1)
        u->reasons |= HF_PG_REASON_MULTIPLE;
    else if (!(m->does & HF_PG_DOES_BEGIN && m->class->n_ends == 0))
        u->reasons |= bare_reason(s, m); /* BEGIN; ... leaves its effects in the open block */
    forward_whole(s, message);
}

static bool own_unit_open(struct hf_pg_session *s)
{
    struct unit *u = hf_pg_unit_last(s);
    return u && u->kind == UNIT_EXTENDED && !u->ended;
}

/* A Query inside an extended unit that has no Sync: it ends that unit, with its one ReadyForQuery;
 * unless the unit has failed, then it is skipped with the rest. Whether it has must be known first.
 */
static bool query_in_extended(struct hf_pg_session *s, struct hf_slice message)
{
    static const uint8_t flush[] = {HF_PG_FLUSH, 0, 0, 0, 4};
    struct unit *u = hf_pg_unit_last(s);
    if (u->failed)
        return true;
    if (u->n_done < u->n_sent || s->n_units > 1) {
        if (!u->flushed)
            hf_pg_inject(s, hf_slice(flush, sizeof(flush)));
        u->flushed = true;
        return false;
    }
    u->ended = true;
    u->repeatable = false;
    u->reasons |= HF_PG_REASON_MULTIPLE;
    u->does |= HF_PG_DOES_UNKNOWN;
    s->writes = true;
    s->block = BLOCK_UNSURE;
    forward_whole(s, message);
    return true;
}

/* Before the first statement of a session that may change settings without saying so: how are they
 * now? Then it shows before each commit whether they changed. true: go on. */
static bool baseline(struct hf_pg_session *s, const struct hf_pg_class *k)
{
    bool may = hf_pg_class_does(s->classifier, k) & DOES_LOOK & ~(uint32_t)DOES_CHANGE;
    if (!may || s->seen_known || s->replication || s->state != HF_PG_RUNNING ||
        !s->conf->protect_writes)
        return true;
    if (s->looking)
        return false;
    if (s->n_units || s->look || s->block == BLOCK_UNSURE || s->tx == 'E' || s->block_change ||
        s->commit != COMMIT_NONE || s->sticky & HF_PG_REASON_SETTINGS)
        return true;
    hf_pg_look(s);
    return false;
}

static bool on_query(struct hf_pg_session *s, struct hf_slice message, struct hf_slice body)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    struct hf_slice sql = hf_pg_rd_cstr(&r);
    if (hf_rd_end(&r)) {
        hf_pg_fatal(s, "08P01", "invalid message format", NULL);
        return true;
    }
    if (own_unit_open(s))
        return query_in_extended(s, message);
    const struct hf_pg_class *k = hf_pg_text_class(s, sql);
    struct meaning m = meaning_of(s, k);
    bool done = know_block(s, 0) && baseline(s, k);
    if (done && m.does & HF_PG_DOES_NOTIFY)
        s->xid_asked = true; /* its transaction gets an id only when it commits: ask for one */
    if (done && s->block == BLOCK_YES)
        done = query_in_block(s, message, sql, &m);
    else if (done)
        query_outside(s, message, sql, &m);
    if (done)
        s->block = block_after(s->block, &m);
    hf_pg_class_unref(k);
    return done;
}

static bool on_call(struct hf_pg_session *s, struct hf_slice message)
{
    if (!know_block(s, 0))
        return false;
    struct unit *u = hf_pg_unit_push(s, UNIT_CALL);
    u->ended = true;
    u->repeatable = false;
    s->writes = true;
    if (s->block == BLOCK_NO)
        u->reasons |= HF_PG_REASON_FUNCTION_CALL;
    forward_whole(s, message);
    return true;
}

/* --- extended protocol --- */

static struct unit *extended(struct hf_pg_session *s)
{
    struct unit *u = hf_pg_unit_last(s);
    if (u && u->kind == UNIT_EXTENDED && !u->ended)
        return u;
    return hf_pg_unit_push(s, UNIT_EXTENDED);
}

static void out_of_memory(struct hf_pg_session *s)
{
    hf_pg_fatal(s, "53200", "out of memory", "holdfast-pg");
}

static bool parse_baseline(struct hf_pg_session *s, struct hf_slice sql)
{
    if (s->seen_known)
        return true;
    const struct hf_pg_class *k = hf_pg_text_class(s, sql);
    bool done = baseline(s, k);
    hf_pg_class_unref(k);
    return done;
}

static bool on_parse(struct hf_pg_session *s, struct hf_slice message, struct hf_slice body)
{
    struct hf_pg_parse parse;
    bool good = hf_pg_parse_read(body, &parse) == 0;
    if (good && !own_unit_open(s) && !parse_baseline(s, parse.sql))
        return false;
    struct unit *u = extended(s);
    u->n_sent++;
    if (!good) {
        forward_whole(s, message); /* the server says what is wrong */
        return true;
    }
    struct prepared *before = NULL;
    bool before_lost = s->unnamed_lost;
    if (parse.name.n == 0) {
        before = s->unnamed;
        s->unnamed = NULL;
        s->unnamed_lost = false;
    }
    struct prepared *old = hf_pg_prepared_find(s, parse.name);
    if (!old && s->prepared_bytes + body.n > s->conf->prepared_max) {
        s->sticky |= HF_PG_REASON_PREPARED;
        hf_pg_prepared_destroy(before);
    } else if (!old) {
        const struct hf_pg_class *k = hf_pg_text_class(s, parse.sql);
        struct prepared *p = hf_pg_prepared_create(s, body, parse.name, k);
        hf_pg_class_unref(k);
        if (!p || hf_pg_op_push(s, OP_PARSE, p)) {
            hf_pg_prepared_destroy(p);
            hf_pg_prepared_destroy(before);
            out_of_memory(s);
            return true;
        }
        s->op[s->n_ops - 1].before = before;
        s->op[s->n_ops - 1].before_lost = before_lost;
        if (parse.name.n == 0) {
            s->unnamed = p;
        } else if (hf_map_put(&s->prepared, p->name, p)) {
            hf_pg_prepared_remove(s, p);
            s->sticky |= HF_PG_REASON_PREPARED;
        } else {
            hf_list_insert(&s->prepared_list, &p->link);
            s->prepared_bytes += p->body_len;
        }
    }
    forward_whole(s, message);
    return true;
}

/* Our own token query took the unnamed statement's place: parse the client's again (X2). */
static void reparse(struct hf_pg_session *s, struct unit *u)
{
    s->unnamed_lost = false;
    if (!s->unnamed)
        return;
    u->n_sent++;
    if (hf_pg_op_push(s, OP_REPARSE, NULL)) {
        out_of_memory(s);
        return;
    }
    struct hf_wr w;
    uint8_t head[HF_PG_HEAD_LEN];
    hf_wr_init(&w, head, sizeof(head));
    hf_wr_u8(&w, HF_PG_PARSE);
    hf_wr_u32(&w, (uint32_t)(4 + s->unnamed->body_len));
    hf_pg_inject(s, hf_slice(head, sizeof(head)));
    hf_pg_inject(s, hf_slice(s->unnamed->body, s->unnamed->body_len));
}

/* An INSERT that is replayed gives the values that it gave (X8): another statement is bound, and
 * the unnamed one has to do for that. */
static bool bind_again(struct hf_pg_session *s, struct unit *u, const struct prepared *p,
                       struct hf_slice message)
{
    struct hf_pg_parse parse;
    struct hf_slice portal, statement, body = hf_slice(p->body, p->body_len);
    struct hf_slice bind = hf_slice(message.p + HF_PG_HEAD_LEN, message.n - HF_PG_HEAD_LEN);
    struct hf_buf text, again;
    hf_buf_init(&text, 4 * HF_PG_WHOLE_MAX);
    hf_buf_init(&again, 8 * HF_PG_WHOLE_MAX);
    bool done = hf_pg_parse_read(body, &parse) == 0 &&
                hf_pg_bind_read(bind, &portal, &statement) == 0 &&
                hf_pg_ids_again(s, s->portal_ticket, parse.sql, &text);
    if (done) {
        size_t mark = hf_pg_put_begin(&again, HF_PG_PARSE);
        hf_pg_put_cstr(&again, hf_slice(NULL, 0));
        hf_buf_add(&again, hf_buf_slice(&text));
        hf_pg_put_u16(&again, (uint16_t)(parse.types.n / 4));
        hf_buf_add(&again, parse.types);
        hf_pg_put_end(&again, mark);
        size_t names = portal.n + 1 + statement.n + 1;
        mark = hf_pg_put_begin(&again, HF_PG_BIND);
        hf_pg_put_cstr(&again, portal);
        hf_pg_put_cstr(&again, hf_slice(NULL, 0));
        hf_buf_add(&again, hf_slice(bind.p + names, bind.n - names));
        hf_pg_put_end(&again, mark);
        u->n_sent++;
        if (hf_pg_op_push(s, OP_REPARSE, NULL)) {
            out_of_memory(s);
        } else {
            u->n_sent++;
            s->unnamed_lost = true;
            hf_pg_log(s, message);
            hf_pg_inject(s, hf_buf_slice(&again));
        }
    }
    hf_buf_fini(&again);
    hf_buf_fini(&text);
    return done;
}

static bool on_bind(struct hf_pg_session *s, struct hf_slice message, struct hf_slice body)
{
    struct hf_slice portal, statement;
    struct unit *u = extended(s);
    if (hf_pg_bind_read(body, &portal, &statement) == 0) {
        struct prepared *p = hf_pg_prepared_find(s, statement);
        struct prepared *sql = !p && statement.n ? hf_map_get(&s->sql_prepared, statement) : NULL;
        hf_pg_portal_bind(s, portal, p ? p->class : sql ? sql->class : NULL);
        if (portal.n == 0)
            s->portal_ticket = p ? hf_pg_ids_ticket(s, p->class, body) : 0;
        if (p && portal.n == 0 && s->portal_ticket && bind_again(s, u, p, message))
            return true;
        if (statement.n == 0 && s->unnamed_lost)
            reparse(s, u);
    }
    u->n_sent++;
    forward_whole(s, message);
    return true;
}

static bool on_describe(struct hf_pg_session *s, struct hf_slice message, struct hf_slice body)
{
    uint8_t kind;
    struct hf_slice name;
    struct unit *u = extended(s);
    struct prepared *p = NULL;
    if (hf_pg_target_read(body, &kind, &name) == 0 && kind == 'S') {
        if (name.n == 0 && s->unnamed_lost)
            reparse(s, u);
        p = hf_pg_prepared_find(s, name);
    }
    u->n_sent++;
    if (p && hf_pg_op_push(s, OP_DESCRIBE, p)) {
        out_of_memory(s);
        return true;
    }
    forward_whole(s, message);
    return true;
}

static bool on_close(struct hf_pg_session *s, struct hf_slice message, struct hf_slice body)
{
    uint8_t kind;
    struct hf_slice name;
    struct unit *u = extended(s);
    u->n_sent++;
    if (hf_pg_target_read(body, &kind, &name) == 0 && kind == 'S') {
        struct prepared *p = name.n ? hf_map_get(&s->prepared, name) : NULL;
        if (p) {
            if (hf_pg_op_push(s, OP_CLOSE, p)) {
                out_of_memory(s);
                return true;
            }
            hf_map_remove(&s->prepared, name);
            hf_list_unlink(&p->link);
            s->prepared_bytes -= p->body_len;
        } else if (name.n == 0 && s->unnamed) {
            hf_pg_prepared_remove(s, s->unnamed);
            s->unnamed_lost = false;
        }
    }
    forward_whole(s, message);
    return true;
}

/* The token of an extended unit: true when known. Asked within the unit, behind what was sent. */
static bool token_within(struct hf_pg_session *s, struct unit *u, enum commit_kind kind,
                         bool assign)
{
    if (s->commit == COMMIT_KNOWN)
        return true;
    s->commit_kind = kind;
    s->commit_xid = 0;
    if (u->failed) {
        s->commit = COMMIT_KNOWN;
        return true;
    }
    s->commit = COMMIT_ASKED;
    if (kind == COMMIT_SYNC)
        hf_pg_peek_begin(s, u->does);
    u->n_client = u->n_sent;
    u->tail = hf_pg_ask_token_tail(s, assign, kind == COMMIT_EXECUTE);
    u->n_sent += u->tail;
    s->unnamed_lost = true;
    return false;
}

/* Execute of COMMIT, PREPARE TRANSACTION and the like. */
static bool execute_commit(struct hf_pg_session *s, struct unit *u, struct hf_slice message,
                           bool prepare)
{
    static const uint8_t flush[] = {HF_PG_FLUSH, 0, 0, 0, 4};
    if (s->n_units > 1)
        return false;
    bool in_block = s->block == BLOCK_YES;
    bool plain = u->failed || (s->tx == 'E' && in_block) || (!s->writes && u->repeatable);
    if (!plain && s->commit == COMMIT_NONE && !hf_pg_peek_begin(s, u->does) && s->xid) {
        s->commit = COMMIT_KNOWN;
        s->commit_xid = s->xid;
        s->commit_kind = COMMIT_EXECUTE;
    }
    if (!plain && !token_within(s, u, COMMIT_EXECUTE, s->xid_asked))
        return false;
    if (!plain && !verified(s))
        return false;
    u->n_sent++;
    if (hf_pg_op_push(s, OP_COMMIT, NULL)) {
        out_of_memory(s);
        return true;
    }
    forward_whole(s, message);
    if (!plain) {
        commit_sent(s);
        s->commit_prepare = prepare;
        hf_pg_inject(s, hf_slice(flush, sizeof(flush)));
    }
    s->block = BLOCK_NO;
    return true;
}

static bool on_execute(struct hf_pg_session *s, struct hf_slice message, struct hf_slice body)
{
    struct hf_slice portal;
    uint32_t rows_max;
    if (!know_block(s, own_unit_open(s)))
        return false;
    struct unit *u = extended(s);
    const struct hf_pg_class *k = NULL;
    if (hf_pg_execute_read(body, &portal, &rows_max) == 0)
        k = hf_pg_portal_class(s, portal);
    if (!k) { /* a cursor made by DECLARE, or one too many */
        u->repeatable = false;
        s->writes = true;
        if (s->block == BLOCK_NO)
            u->reasons |= HF_PG_REASON_UNSEEN;
        u->n_sent++;
        forward_whole(s, message);
        return true;
    }
    struct meaning m = meaning_of(s, k);
    if (m.does & (HF_PG_DOES_COMMIT | HF_PG_DOES_PREPARE_XACT)) {
        s->commit_chain = m.does & HF_PG_DOES_CHAIN;
        if (!execute_commit(s, u, message, m.does & HF_PG_DOES_PREPARE_XACT))
            return false;
        u->does |= m.does;
        return true;
    }
    u->n_sent++;
    note_effects(s, u, &m);
    if (portal.n == 0 && s->portal_ticket) {
        if (hf_pg_op_push(s, OP_INSERT, NULL)) {
            out_of_memory(s);
            return true;
        }
        s->op[s->n_ops - 1].ticket = s->portal_ticket;
    }
    if (m.does & HF_PG_DOES_NOTIFY)
        s->xid_asked = true;
    if (s->block == BLOCK_NO && m.does & HF_PG_DOES_COPY_IN)
        u->reasons |= HF_PG_REASON_COPY_IN; /* the token can't be asked for in copy mode */
    if (s->block == BLOCK_NO && !m.repeatable &&
        (m.does & (HF_PG_DOES_UTILITY | HF_PG_DOES_UNKNOWN) || !s->conf->protect_writes))
        u->reasons |= bare_reason(s, &m);
    s->block = block_after(s->block, &m);
    forward_whole(s, message);
    return true;
}

static bool on_sync(struct hf_pg_session *s, struct hf_slice message)
{
    if (s->skipping) {
        s->skipping = false;
        hf_pg_tell_ready(s);
        return true;
    }
    if (s->copying) { /* the server ignores it */
        hf_pg_forward(s, message);
        return true;
    }
    if (!know_block(s, own_unit_open(s)))
        return false;
    struct unit *u = extended(s);
    bool point = s->block == BLOCK_NO && !u->repeatable && !u->reasons && !u->failed &&
                 s->commit != COMMIT_SENT;
    if (point) {
        if (s->n_units > 1)
            return false;
        if (!token_within(s, u, COMMIT_SYNC, s->xid_asked))
            return false;
        if (!verified(s))
            return false;
        if (!u->failed)
            commit_sent(s);
    }
    if (s->commit == COMMIT_KNOWN)
        s->commit = COMMIT_NONE;
    u->ended = true;
    forward_whole(s, message);
    if (u->failed)
        s->block = BLOCK_UNSURE;
    return true;
}

/* --- any message --- */

/* Too large to be looked at: it goes by, and what it did is not known. */
static size_t oversize(struct hf_pg_session *s, struct hf_pg_head head, size_t len,
                       struct hf_slice in)
{
    struct unit *u;
    bool extends = head.type == HF_PG_PARSE || head.type == HF_PG_BIND;
    if (!extends && head.type != HF_PG_QUERY && head.type != HF_PG_FUNCTION_CALL) {
        hf_pg_fatal(s, "08P01", "invalid message length", NULL);
        return in.n;
    }
    u = extends ? extended(s) : hf_pg_unit_push(s, UNIT_QUERY);
    u->ended = !extends;
    u->repeatable = false;
    s->writes = true;
    if (head.type == HF_PG_BIND) {
        hf_pg_portal_bind(s, hf_slice(NULL, 0), NULL);
    } else {
        u->does |= HF_PG_DOES_UNKNOWN;
        s->look = s->look_hard = true;
        if (head.type == HF_PG_PARSE)
            s->sticky |= HF_PG_REASON_PREPARED; /* under a name that is not known */
    }
    u->n_sent += extends;
    u->reasons |= HF_PG_REASON_UNSEEN;
    if (!extends)
        s->block = BLOCK_UNSURE;
    hf_pg_log_drop(s, HF_PG_REASON_LOG_FULL);
    s->client_stream = len - in.n;
    hf_pg_forward(s, in);
    return in.n;
}

static size_t stream(struct hf_pg_session *s, struct hf_slice in)
{
    size_t n = in.n < s->client_stream ? in.n : s->client_stream;
    s->client_stream -= n;
    if (!s->client_stream_drop)
        hf_pg_forward(s, hf_slice(in.p, n));
    return n;
}

static size_t copy_message(struct hf_pg_session *s, struct hf_pg_head head, size_t len,
                           struct hf_slice in)
{
    size_t n = in.n < len ? in.n : len;
    s->client_stream_drop = s->skipping || !s->copying; /* after an error they are ignored */
    s->client_stream = len - n;
    if (!s->client_stream_drop)
        hf_pg_forward(s, hf_slice(in.p, n));
    if (head.type != HF_PG_COPY_DATA)
        s->copying = false;
    return n;
}

static bool dispatch(struct hf_pg_session *s, uint8_t type, struct hf_slice message,
                     struct hf_slice body)
{
    if (s->skipping && type != HF_PG_SYNC)
        return true;
    switch (type) {
    case HF_PG_QUERY:
        return on_query(s, message, body);
    case HF_PG_PARSE:
        return on_parse(s, message, body);
    case HF_PG_BIND:
        return on_bind(s, message, body);
    case HF_PG_DESCRIBE:
        return on_describe(s, message, body);
    case HF_PG_EXECUTE:
        return on_execute(s, message, body);
    case HF_PG_CLOSE:
        return on_close(s, message, body);
    case HF_PG_FLUSH:
        extended(s);
        forward_whole(s, message);
        return true;
    case HF_PG_SYNC:
        return on_sync(s, message);
    case HF_PG_FUNCTION_CALL:
        return on_call(s, message);
    default:
        hf_pg_fatal(s, "08P01", "invalid frontend message type", NULL);
        return true;
    }
}

/* An error that is still to be told; a ROLLBACK makes it needless. true: it was told instead. */
static bool pending_verdict(struct hf_pg_session *s, uint8_t type, struct hf_slice body)
{
    struct hf_rd r;
    struct hf_pg_parse parse;
    struct hf_slice sql = hf_slice(NULL, 0);
    hf_rd_init(&r, body);
    if (type == HF_PG_QUERY)
        sql = hf_pg_rd_cstr(&r);
    else if (type == HF_PG_PARSE && hf_pg_parse_read(body, &parse) == 0)
        sql = parse.sql;
    const struct hf_pg_class *k = hf_pg_classify(s->classifier, sql);
    bool needless = k->does == HF_PG_DOES_ROLLBACK && s->tx == 'E';
    hf_pg_class_unref(k);
    if (type == HF_PG_FLUSH || type == HF_PG_SYNC)
        return false;
    s->verdict.set = false;
    if (needless)
        return false;
    hf_pg_tell_error(s, s->verdict.sqlstate, s->verdict.message, s->verdict.detail);
    if (type == HF_PG_QUERY || type == HF_PG_FUNCTION_CALL)
        hf_pg_tell_ready(s);
    else
        s->skipping = true;
    return true;
}

/* Keep the count of what the client waits for. */
static void request_count(struct hf_pg_session *s, uint8_t type, bool counts)
{
    if (type == HF_PG_QUERY || type == HF_PG_FUNCTION_CALL)
        s->n_waiting++;
    else if (type != HF_PG_SYNC)
        s->n_open = true;
    else if (counts)
        s->n_waiting++;
    if (type == HF_PG_SYNC || type == HF_PG_QUERY)
        s->n_open = false;
}

size_t hf_pg_front(struct hf_pg_session *s, struct hf_slice in)
{
    if (s->client_stream)
        return stream(s, in);
    struct hf_pg_head head;
    int r = hf_pg_head_read(in, &head);
    if (r == -HF_ETRUNC)
        return 0;
    if (r) {
        hf_pg_fatal(s, "08P01", "invalid message length", NULL);
        return in.n;
    }
    size_t len = (size_t)head.body_len + HF_PG_HEAD_LEN;
    if (head.type == HF_PG_TERMINATE) {
        if (s->n_waiting && !s->copying) {
            return 0; /* the server, too, reads it after what it was asked before */
        }
        hf_pg_leave(s, "client close request");
        return in.n;
    }
    if (hf_pg_front_held(s) && !(s->copying && s->state == HF_PG_RUNNING))
        return 0;
    if (head.type == HF_PG_COPY_DATA || head.type == HF_PG_COPY_DONE ||
        head.type == HF_PG_COPY_FAIL)
        return copy_message(s, head, len, in);
    if (len > HF_PG_WHOLE_MAX)
        return in.n < 65536 ? 0 : oversize(s, head, len, in);
    if (in.n < len)
        return 0;
    struct hf_slice message = hf_slice(in.p, len);
    struct hf_slice body = hf_slice(in.p + HF_PG_HEAD_LEN, head.body_len);
    if (s->verdict.set && pending_verdict(s, head.type, body))
        return len;
    bool skipped = (s->skipping && head.type != HF_PG_SYNC) ||
                   (head.type == HF_PG_QUERY && own_unit_open(s) && hf_pg_unit_last(s)->failed);
    bool live = s->refeed.n == 0;
    bool counts = head.type != HF_PG_SYNC || (!s->skipping && !s->copying);
    if (!dispatch(s, head.type, message, body))
        return 0;
    if (live && !skipped && s->state != HF_PG_ENDED)
        request_count(s, head.type, counts);
    return len;
}

void hf_pg_transaction_over(struct hf_pg_session *s, bool committed)
{
    s->n_transactions++;
    hf_pg_note(s, HF_PG_NOTE_TRANSACTION, s->tx_since ? (uint64_t)(s->now - s->tx_since) : 0,
               committed && s->xid, NULL);
    s->tx_since = 0;
    s->xid = 0;
    s->writes = s->xid_asked = s->savepoints = false;
    s->log_full &= s->n_units != 0;
    s->passing = s->log_full ? HF_PG_REASON_LOG_FULL : 0;
    for (uint32_t i = 0; i < s->n_units; i++) { /* what is under way already belongs to the next */
        const struct unit *u = hf_pg_unit_at(s, i);
        s->writes |= !u->repeatable;
        s->xid_asked |= (u->does & HF_PG_DOES_NOTIFY) != 0;
        s->savepoints |= (u->does & HF_PG_DOES_SAVEPOINT) != 0;
        s->passing |= (u->does & HF_PG_DOES_OUTSIDE ? HF_PG_REASON_OUTSIDE : 0) |
                      (u->does & HF_PG_DOES_COPY_IN ? HF_PG_REASON_COPY_IN : 0);
    }
    if (s->n_units == 0)
        hf_pg_portals_forget(s);
    hf_pg_ids_over(s, s->n_units ? hf_pg_unit_head(s)->tickets : s->tickets);
}
