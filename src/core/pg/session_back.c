/* The server's messages: to the client, or hidden; what they tell of the session. */
#include <assert.h>

#include "core/pg/session_impl.h"

static void pass(struct hf_pg_session *s, struct hf_slice message)
{
    hf_pg_deliver(s, message);
}

static struct hf_slice body_of(struct hf_slice message)
{
    return hf_slice(message.p + HF_PG_HEAD_LEN, message.n - HF_PG_HEAD_LEN);
}

/* Is what comes now an answer to something of ours? */
static bool hidden_now(const struct unit *u)
{
    if (!u)
        return false;
    if (u->kind == UNIT_HIDDEN)
        return true;
    if (u->wrapped)
        return (u->n_done == 0 && !u->split) || u->n_done >= u->n_client;
    return u->tail && u->n_done >= u->n_client;
}

static void settle_effects(struct hf_pg_session *s, const struct unit *u, bool over);

/* --- completion of messages --- */

/* The unit's hidden token query was answered. */
static void tail_done(struct hf_pg_session *s, struct unit *u)
{
    s->commit_xid = hf_pg_token_answer(s);
    s->commit = COMMIT_KNOWN;
    u->tail = 0;
}

/* The n-th message of an extended unit is answered; false: the answer is ours. */
static bool extended_done(struct hf_pg_session *s, struct unit *u, uint8_t type)
{
    u->n_done++;
    if (u->tail && u->n_done > u->n_client) {
        if (u->n_done == u->n_client + u->tail)
            tail_done(s, u);
        return false;
    }
    struct op *op = hf_pg_op_at(s, u->n_done);
    if (!op)
        return true;
    bool ours = op->kind == OP_REPARSE;
    if (op->kind == OP_CLOSE && op->p)
        hf_pg_prepared_close(s, op->p);
    hf_pg_prepared_destroy(op->before);
    op->before = NULL;
    if (op->kind == OP_DESCRIBE && op->p) {
        op->p->described = s->saved.prepared_changed = true;
        hf_hash_stream_get(&s->step_shape, op->p->shape);
    }
    bool commit = op->kind == OP_COMMIT;
    hf_pg_op_pop(s);
    if (commit) {
        /* Sync will find the session idle; what came before can't be needed any more */
        bool chained = u->does & HF_PG_DOES_CHAIN;
        s->commit = COMMIT_NONE;
        u->repeatable = u->committed = true;
        settle_effects(s, u, false);
        hf_pg_settle_block(s, s->tx != 'E');
        u->does &=
            ~(uint32_t)(HF_PG_DOES_OUTSIDE | HF_PG_DOES_COPY_IN | HF_PG_DOES_NOTIFY | DOES_LOOK);
        hf_pg_transaction_over(s, true);
        hf_pg_ids_over(s, s->tickets);
        if (chained)
            s->passing |= HF_PG_REASON_MULTIPLE;
        (void)type;
    }
    return !ours;
}

/* --- errors --- */

/* Positions are counted in BEGIN;... and not in the client's text. */
static void pass_shifted(struct hf_pg_session *s, struct hf_slice message, uint8_t type)
{
    struct hf_slice body = body_of(message), at = hf_pg_error_field(body, 'P');
    uint64_t pos = 0;
    for (size_t i = 0; i < at.n && pos < 1u << 30; i++)
        pos = pos * 10 + (uint64_t)(at.p[i] - '0');
    if (!at.p || pos <= BEGIN_LEN) {
        type == HF_PG_ERROR ? hf_pg_deliver_error(s, message) : hf_pg_deliver_aside(s, message);
        return;
    }
    struct hf_buf b;
    hf_buf_init(&b, message.n + 16);
    size_t mark = hf_pg_put_begin(&b, type);
    hf_buf_add(&b, hf_slice(body.p, (size_t)(at.p - body.p)));
    hf_buf_printf(&b, "%llu", (unsigned long long)(pos - BEGIN_LEN));
    size_t rest = (size_t)(at.p - body.p) + at.n;
    hf_buf_add(&b, hf_slice(body.p + rest, body.n - rest));
    hf_pg_put_end(&b, mark);
    hf_pg_deliver_flush(s);
    type == HF_PG_ERROR ? hf_pg_deliver_error(s, hf_buf_slice(&b))
                        : hf_pg_deliver_aside(s, hf_buf_slice(&b));
    hf_pg_deliver_flush(s);
    hf_buf_fini(&b);
}

/* A request has ended, or failed: its COPY is over. One that is waited for may be another's, behind
 * it. */
static void copy_over(struct hf_pg_session *s, const struct unit *u)
{
    s->copying = false;
    if (!u || u == hf_pg_unit_last(s))
        s->copy_wait = false;
}

/* Does a leader say that its parallel worker has ended? At a fast shutdown workers are told to end,
 * too, each at its instant, and the FATAL of one is its leader's ERROR. What a function raises has
 * another source file, so has what another server said (postgres_fdw, dblink). */
static bool of_worker(struct hf_slice body)
{
    struct hf_slice code = hf_pg_error_field(body, 'C'), file = hf_pg_error_field(body, 'F');
    if (hf_slice_eq(code, hf_slice_str("57P01")))
        return hf_slice_eq(file, hf_slice_str("postgres.c")) ||
               hf_slice_eq(file, hf_slice_str("bgworker.c"));
    return hf_slice_eq(code, hf_slice_str("55000")) &&
           hf_slice_eq(file, hf_slice_str("parallel.c"));
}

static void on_error(struct hf_pg_session *s, struct unit *u, struct hf_slice message)
{
    struct hf_slice body = body_of(message);
    struct hf_slice severity = hf_pg_error_field(body, 'V'), code = hf_pg_error_field(body, 'C');
    if (!severity.p)
        severity = hf_pg_error_field(body, 'S');
    if (hf_slice_eq(severity, hf_slice_str("FATAL")) ||
        hf_slice_eq(severity, hf_slice_str("PANIC"))) {
        hf_buf_clear(&s->fatal); /* the connection ends now; see hf_pg_lost() */
        hf_buf_add(&s->fatal, message);
        memset(s->fatal_state, 0, sizeof(s->fatal_state));
        memcpy(s->fatal_state, code.n == 5 ? code.p : (const uint8_t *)"XX000", 5);
        return;
    }
    if (u && u->kind != UNIT_HIDDEN && of_worker(body) && hf_pg_worker_lost(s))
        return;
    copy_over(s, u);
    if (!u) {
        hf_pg_deliver_error(s, message);
        return;
    }
    if (u->kind == UNIT_HIDDEN && u->hidden != HID_COMMIT) {
        hf_pg_step_message(s, HF_PG_ERROR, body);
        return;
    }
    u->failed = true;
    hf_buf_clear(&s->held);
    if (u->kind == UNIT_EXTENDED && s->commit == COMMIT_ASKED &&
        (s->commit_kind == COMMIT_SYNC || s->commit_kind == COMMIT_EXECUTE)) {
        s->commit = COMMIT_KNOWN; /* nothing will be committed */
        s->commit_xid = 0;
    }
    if (u->kind == UNIT_EXTENDED && s->commit == COMMIT_SENT && s->commit_kind == COMMIT_EXECUTE)
        s->commit = COMMIT_NONE;
    u->tail = 0;
    /* cannot run inside a transaction block: the block is ours, take it away */
    bool begun = u->wrapped && !u->split;
    if (begun && hf_slice_eq(code, hf_slice_str("25001")) && u->n_done == 1 && u->log_len) {
        u->bare_again = true;
        return;
    }
    if (begun)
        pass_shifted(s, message, HF_PG_ERROR);
    else
        hf_pg_deliver_error(s, message);
}

/* A commit that was not confirmed by the mirrors (X4). */
static bool is_unreplicated(struct hf_slice body)
{
    static const char words[] = "canceling wait for synchronous replication";
    struct hf_slice m = hf_pg_error_field(body, 'M');
    return hf_slice_starts(m, hf_slice_str(words));
}

/* Said by each server process when another one has crashed, or at an immediate shutdown: it is the
 * connection's end, of which a client that goes on hears nothing; see hf_pg_lost(). */
static bool is_farewell(struct hf_slice body)
{
    struct hf_slice code = hf_pg_error_field(body, 'C');
    return hf_slice_eq(code, hf_slice_str("57P01")) || hf_slice_eq(code, hf_slice_str("57P02"));
}

static void on_notice(struct hf_pg_session *s, struct unit *u, struct hf_slice message)
{
    if (is_farewell(body_of(message)))
        return;
    if (s->commit == COMMIT_SENT && is_unreplicated(body_of(message)))
        s->unreplicated = true;
    if (u && u->kind == UNIT_HIDDEN && u->hidden != HID_COMMIT)
        return;
    if (u && u->wrapped && !u->split)
        pass_shifted(s, message, HF_PG_NOTICE);
    else
        hf_pg_deliver_aside(s, message);
}

/* --- ReadyForQuery --- */

/* The text of a unit's Query, from the log. */
static struct hf_slice logged_query(const struct hf_pg_session *s, const struct unit *u)
{
    struct hf_slice log = hf_buf_slice(&s->log);
    if (u->kind != UNIT_QUERY || u->log_len <= HF_PG_HEAD_LEN || s->log_block + u->log_len > log.n)
        return hf_slice(NULL, 0);
    return hf_slice(log.p + s->log_block + HF_PG_HEAD_LEN, u->log_len - HF_PG_HEAD_LEN);
}

/* Can't what a unit did to the session be done by running its text again? */
static bool effects_hard(const struct hf_pg_session *s, const struct unit *u)
{
    uint32_t look = u->does & DOES_LOOK, again = DOES_AGAIN;
    if (u->failed)
        return look & ~again;
    again |= HF_PG_DOES_DISCARD;
    return look && (u->does & ~again || !logged_query(s, u).p);
}

/* What a client's unit that succeeded did to the session: remembered as text, to be run again if
 * the server is lost before the settings were looked at; otherwise that has to come first. */
static void settle_effects(struct hf_pg_session *s, const struct unit *u, bool over)
{
    struct hf_buf *texts = over ? &s->since_snapshot : &s->block_since;
    struct hf_slice text = logged_query(s, u);
    if (!(u->does & DOES_LOOK))
        return;
    bool hard = effects_hard(s, u);
    s->block_look = true;
    if (!hard)
        hf_buf_add(texts, text); /* with its NUL */
    s->block_hard |= hard || texts->err;
}

void hf_pg_settle_block(struct hf_pg_session *s, bool committed)
{
    if (committed && s->peeked && !s->block_change) {
        s->block_look = false; /* all is as it was */
    } else if (s->block_look && committed) {
        hf_buf_add(&s->since_snapshot, hf_buf_slice(&s->block_since));
        s->look_hard |= s->block_hard || (s->block_since.n && s->savepoints) ||
                        s->since_snapshot.err || s->block_since.err;
    } else if (s->block_look) {
        s->look_hard |= s->block_hard; /* what functions did may stand */
    }
    s->look |= s->block_look;
    hf_buf_fini(&s->block_since);
    s->block_look = s->block_hard = s->block_change = s->peeked = false;
    for (uint32_t i = 1; i < s->n_units; i++) /* of the next one */
        s->block_change |= (hf_pg_unit_at(s, i)->does & DOES_CHANGE) != 0;
}

/* DISCARD ALL, as against PLANS, SEQUENCES, TEMP. text ends with its NUL. */
static bool discards_all(struct hf_slice text)
{
    size_t n = text.n - 1;
    while (n && strchr(" \t\r\n;", text.p[n - 1]))
        n--;
    return n >= 3 && (text.p[n - 3] | 32) == 'a' && (text.p[n - 2] | 32) == 'l' &&
           (text.p[n - 1] | 32) == 'l';
}

void hf_pg_settle_sql_prepared(struct hf_pg_session *s, struct hf_slice text)
{
    const struct hf_pg_class *k = hf_pg_classify(s->classifier, hf_slice(text.p, text.n - 1));
    if (k->does & HF_PG_DOES_PREPARE && k->inner) {
        hf_pg_sql_prepared_set(s, k->name, k->inner);
    } else if (k->does & HF_PG_DOES_PREPARE && k->name.n) {
        hf_pg_sql_prepared_set(s, k->name, NULL);
        struct prepared *p = hf_map_get(&s->prepared, k->name);
        if (p)
            hf_pg_prepared_close(s, p);
    } else if (k->does & HF_PG_DOES_PREPARE || discards_all(text)) {
        hf_pg_prepared_forget_all(s);
    }
    hf_pg_class_unref(k);
}

/* LISTEN of a Query: known at once, should the server be lost before the look. */
static void settle_listen(struct hf_pg_session *s, const struct unit *u)
{
    struct hf_slice text = logged_query(s, u);
    if (!(u->does & HF_PG_DOES_LISTEN) || !text.n)
        return;
    const struct hf_pg_class *k = hf_pg_text_class(s, hf_slice(text.p, text.n - 1));
    if (k->n_statements == 1 && k->name.n && (text.p[0] | 32) == 'l') {
        s->n_listens++;
        hf_buf_add(&s->listens, k->name);
        hf_buf_add(&s->listens, hf_slice("", 1));
    }
    hf_pg_class_unref(k);
}

static bool commits(const struct hf_pg_session *s, const struct unit *u)
{
    return !u->failed && s->tx != 'E' && !(u->does & HF_PG_DOES_ROLLBACK);
}

/* The client gets its ReadyForQuery only when what the request did to the session is known, as far
 * as its text does not tell: the server may be lost any time. Behind others that are under way it
 * can't be asked for. */
static bool settle_first(const struct hf_pg_session *s, const struct unit *u)
{
    bool known =
        !s->look_hard && commits(s, u) && s->peeked && !s->block_change && !(u->does & DOES_CHANGE);
    bool hard = s->block_hard || s->look_hard || effects_hard(s, u) ||
                (commits(s, u) && s->block_since.n && s->savepoints);
    return hard && !known && !s->settling && s->state == HF_PG_RUNNING && s->n_units == 1 &&
           !s->cancelling && !s->replication;
}

static void settle(struct hf_pg_session *s, const struct unit *u, bool over)
{
    if (!u->failed) {
        settle_effects(s, u, over);
        struct hf_slice text = logged_query(s, u);
        if (u->does & (HF_PG_DOES_PREPARE | HF_PG_DOES_DISCARD) && text.n)
            hf_pg_settle_sql_prepared(s, text);
        if (!s->settling)
            settle_listen(s, u);
    } else if (effects_hard(s, u)) {
        s->block_look = s->block_hard = true;
    }
    if (u->does & HF_PG_DOES_DDL)
        hf_pg_catalog_forget(s->classifier);
    if (over)
        hf_pg_settle_block(s, commits(s, u));
    if (s->settling) { /* the look has seen it all */
        hf_buf_clear(&s->since_snapshot);
        s->look = s->look_hard = s->settling = false;
    }
}

/* The client's request is answered: pop it, with the transaction if that is over. */
static void request_done(struct hf_pg_session *s, char status)
{
    struct unit *u = hf_pg_unit_head(s);
    bool over = status == 'I';
    bool ended = u->does & (HF_PG_DOES_COMMIT | HF_PG_DOES_ROLLBACK | HF_PG_DOES_PREPARE_XACT);
    if (over && settle_first(s, u)) {
        s->settling = true;
        s->held_status = status;
        hf_pg_look(s);
        return;
    }
    settle(s, u, over);
    s->n_requests++;
    s->since_move++;
    hf_pg_note(s, HF_PG_NOTE_REQUEST, (uint64_t)(s->now - u->since), 0, NULL);
    size_t log_len = u->log_len;
    bool chained = !over && ended && u->does & HF_PG_DOES_CHAIN && !u->failed;
    bool committed = !u->failed && s->tx != 'E';
    hf_pg_deliver_ready(s, status);
    s->tx = status;
    hf_pg_unit_pop(s);
    if (s->state == HF_PG_REPLAYING)
        s->replay_units++;
    else
        s->worker_lost = false;
    if (over) {
        hf_pg_transaction_over(s, committed);
        hf_pg_log_trim(s, s->log_block + log_len);
        s->log_block = 0;
        s->log_unit = s->unit_no;
        hf_pg_closed_forget(s);
    } else if (chained) {
        hf_pg_transaction_over(s, committed);
        hf_pg_log_drop(s, HF_PG_REASON_MULTIPLE);
        hf_pg_hash_reset(s);
    } else {
        s->log_block += log_len;
        if (s->tx_since == 0)
            s->tx_since = s->now;
        if (status == 'T' && s->writes && !s->xid && s->n_units == 0 && !s->cancelling &&
            s->state == HF_PG_RUNNING)
            hf_pg_ask_xid(s, false);
    }
    if (s->n_units == 0)
        s->block = s->tx == 'I' ? BLOCK_NO : BLOCK_YES;
    hf_pg_tell_reasons(s);
}

static void commit_answered(struct hf_pg_session *s, char status)
{
    struct unit *u = hf_pg_unit_head(s);
    s->commit = COMMIT_NONE;
    u->committed |= s->commit_xid != 0;
    u->repeatable |= s->commit_xid == 0;
    if (s->unreplicated) {
        s->held_status = status;
        hf_pg_ask_query(
            s, HID_MARKER,
            hf_slice_str("SELECT pg_catalog.pg_logical_emit_message(true, 'holdfast', '')"));
        return;
    }
    hf_pg_deliver(s, hf_buf_slice(&s->held));
    hf_pg_deliver_flush(s);
    hf_buf_clear(&s->held);
    request_done(s, status);
}

/* A wrapped Query has run, or failed: now COMMIT or ROLLBACK. Its unit stays until then. */
static void wrapped_ran(struct hf_pg_session *s, struct unit *u, char status)
{
    if (status == 'I' ||
        (u->failed && u->split)) { /* not even BEGIN was parsed; or its own is left */
        s->commit = COMMIT_NONE;
        request_done(s, status);
        return;
    }
    if (!u->failed) {
        s->xid = s->commit_xid = hf_pg_token_answer(s);
        s->commit = COMMIT_KNOWN;
        if (u->split)
            hf_pg_put_command_complete(&s->held, "COMMIT");
    }
    hf_pg_end_wrapped(s);
}

/* A hidden request failed, and the client's block with it (a time limit, or somebody cancelled it):
 * its next request gets the error, so that no COMMIT is answered ROLLBACK unnoticed. */
static void hidden_failed(struct hf_pg_session *s)
{
    static const char why[] = "A request of holdfast-pg's own failed in the transaction.";
    const struct unit *u = hf_pg_unit_last(s);
    if (s->state != HF_PG_RUNNING) {
        hf_pg_replay_failed(s, why);
        return;
    }
    if (u && u->kind == UNIT_EXTENDED && !u->ended) {
        hf_pg_fatal(s, s->answer.sqlstate, s->answer.message, why);
        return;
    }
    s->tx = 'E';
    s->commit = COMMIT_NONE;
    s->peeked = false;
    hf_pg_log_drop(s, HF_PG_REASON_FAILED);
    if (!u)
        hf_pg_verdict_set(s, s->answer.sqlstate, s->answer.message, why);
}

static void hidden_done(struct hf_pg_session *s, struct unit *u, char status)
{
    enum hidden what = u->hidden;
    bool failed = u->failed;
    hf_pg_unit_pop(s);
    if (status == 'E' && s->tx == 'T' && s->answer.sqlstate[0] && what != HID_STEP) {
        hidden_failed(s);
        s->looking = s->looking && what != HID_OBSERVE;
        hf_pg_answer_reset(s);
        return;
    }
    switch (what) {
    case HID_XID:
        s->xid = s->answer.value;
        if (s->commit == COMMIT_ASKED && s->commit_kind == COMMIT_QUERY) {
            s->commit_xid = s->xid;
            s->commit = COMMIT_KNOWN;
        }
        break;
    case HID_PEEK:
        s->xid = s->commit_xid = hf_pg_token_answer(s);
        s->commit = COMMIT_KNOWN;
        break;
    case HID_SYNC_COMMIT: {
        struct hf_slice v = hf_buf_slice(&s->answer.text);
        s->sync_commit =
            hf_slice_eq(v, hf_slice_str("on")) || hf_slice_eq(v, hf_slice_str("remote_apply")) ? 1
                                                                                               : 2;
        break;
    }
    case HID_COMMIT: /* the wrapped unit is the head now */
        if (failed)
            hf_pg_unit_head(s)->failed = true;
        commit_answered(s, status);
        break;
    case HID_ROLLBACK:
        s->commit = COMMIT_NONE;
        if (hf_pg_unit_head(s)->bare_again)
            hf_pg_run_bare(s);
        else
            request_done(s, status);
        break;
    case HID_OBSERVE:
        s->looking = false;
        hf_pg_observed(s);
        if (s->settling)
            request_done(s, s->held_status);
        break;
    case HID_MARKER:
        s->unreplicated = false;
        commit_answered(s, s->held_status);
        break;
    case HID_STEP:
        hf_pg_step_done(s, status);
        break;
    case HID_NONE:
        break;
    }
    hf_pg_answer_reset(s);
}

static void on_ready(struct hf_pg_session *s, struct unit *u, struct hf_slice body)
{
    char status = body.n == 1 ? (char)body.p[0] : 'E';
    if (!u)
        return; /* after a login; not asked for */
    if (u->kind != UNIT_HIDDEN)
        copy_over(s, u);
    if (u->kind == UNIT_HIDDEN)
        hidden_done(s, u, status);
    else if (u->wrapped)
        wrapped_ran(s, u, status);
    else if (s->commit == COMMIT_SENT || s->unreplicated)
        commit_answered(s, status);
    else
        request_done(s, status);
}

/* --- any message --- */

static void on_complete(struct hf_pg_session *s, struct unit *u, struct hf_slice message)
{
    if (!u) {
        pass(s, message);
        return;
    }
    if (u->kind == UNIT_EXTENDED) {
        bool token = u->tail && u->n_done >= u->n_client;
        bool commit = s->commit == COMMIT_SENT && s->commit_kind == COMMIT_EXECUTE && !token;
        if (extended_done(s, u, HF_PG_COMMAND_COMPLETE))
            pass(s, message);
        if (commit && s->commit == COMMIT_NONE) {
            hf_pg_deliver_flush(s);
            u->log_len = s->log_block = 0;
            hf_pg_log_trim(s, s->log.n);
            s->log_unit = s->unit_no + 1;
            hf_pg_closed_forget(s);
            hf_pg_tell_reasons(s);
        }
        return;
    }
    bool hide = hidden_now(u);
    u->n_done++;
    bool hold = u->held || (u->wrapped && !u->split && u->n_done == u->n_client);
    if (u->kind == UNIT_HIDDEN || hide)
        return;
    if (hold)
        hf_buf_add(&s->held, message);
    else
        pass(s, message);
}

static void on_status(struct hf_pg_session *s, struct hf_slice message)
{
    struct hf_slice name, value;
    if (hf_pg_status_read(body_of(message), &name, &value))
        return;
    if (s->state == HF_PG_RESTORING || s->state == HF_PG_REPLAYING) {
        hf_pg_param_set(&s->new_status, name, value); /* compared when it is recovered */
        return;
    }
    hf_pg_status_set(s, name, value);
    hf_pg_deliver_aside(s, message);
}

/* A session knows its own notifications by the pid that it was told at its start. */
static void pass_notification(struct hf_pg_session *s, struct hf_slice message)
{
    struct hf_rd r;
    uint8_t pid[4];
    struct hf_wr w;
    hf_rd_init(&r, body_of(message));
    if (hf_rd_u32(&r) != s->pid || s->pid == s->told_pid || message.n < HF_PG_HEAD_LEN + 4) {
        hf_pg_deliver_aside(s, message);
        return;
    }
    hf_wr_init(&w, pid, sizeof(pid));
    hf_wr_u32(&w, s->told_pid);
    hf_pg_deliver_aside(s, hf_slice(message.p, HF_PG_HEAD_LEN));
    hf_pg_deliver_aside(s, hf_slice(pid, sizeof(pid)));
    hf_pg_deliver_flush(s);
    hf_pg_deliver_aside(s,
                        hf_slice(message.p + HF_PG_HEAD_LEN + 4, message.n - HF_PG_HEAD_LEN - 4));
}

static void on_notification(struct hf_pg_session *s, struct hf_slice message)
{
    bool moves = s->state == HF_PG_MOVING && s->step != STEP_NONE;
    if (hf_pg_is_marker(s, body_of(message))) {
        if (moves)
            hf_pg_move_marker(s, HF_PG_SERVER, body_of(message));
        return; /* also that of a move that was given up */
    }
    if (moves && s->n_listens && s->marker_old)
        return; /* what comes after the marker, the new connection gets, too */
    if (s->state != HF_PG_RUNNING && s->state != HF_PG_MOVING)
        return; /* one of those that may be missing: it is told so (X12) */
    pass_notification(s, message);
}

static void take(struct hf_pg_session *s, uint8_t type, struct hf_slice message)
{
    struct unit *u = hf_pg_unit_head(s);
    struct hf_slice body = body_of(message);
    switch (type) {
    case HF_PG_ERROR:
        on_error(s, u, message);
        return;
    case HF_PG_NOTICE:
        on_notice(s, u, message);
        return;
    case HF_PG_PARAMETER_STATUS:
        on_status(s, message);
        return;
    case HF_PG_NOTIFICATION:
        on_notification(s, message);
        return;
    case HF_PG_READY:
        s->ready = message;
        on_ready(s, u, body);
        s->ready = hf_slice(NULL, 0);
        return;
    case HF_PG_COMMAND_COMPLETE:
        on_complete(s, u, message);
        return;
    default:
        break;
    }
    bool ext = u && u->kind == UNIT_EXTENDED;
    bool hide = hidden_now(u);
    if (hide)
        hf_pg_step_message(s, type, body);
    if (ext && (type == HF_PG_PARAMETER_DESCRIPTION || type == HF_PG_ROW_DESCRIPTION ||
                type == HF_PG_NO_DATA)) {
        struct op *op = hf_pg_op_at(s, u->n_done + 1);
        if (op && op->kind == OP_DESCRIBE)
            hf_pg_describe_part(s, type, body);
    }
    if (ext && strchr("12nTIs3", type) && !extended_done(s, u, type))
        hide = true;
    if (type == HF_PG_COPY_IN && !hide) {
        s->copying = true;
        s->copy_wait = false;
        if (ext && u->ended) { /* the server ignores a Sync in copy mode */
            u->ended = false;
            s->n_waiting -= s->n_waiting != 0;
            s->n_open = true;
        }
    }
    if (!hide)
        pass(s, message);
}

/* Which messages may go through without being seen whole. */
static bool streams(uint8_t type)
{
    return type == HF_PG_DATA_ROW || type == HF_PG_COPY_DATA;
}

static size_t stream(struct hf_pg_session *s, struct hf_slice in)
{
    size_t n = in.n < s->server_stream ? in.n : s->server_stream;
    s->server_stream -= n;
    if (!s->server_stream_hide)
        hf_pg_deliver(s, hf_slice(in.p, n));
    return n;
}

size_t hf_pg_back(struct hf_pg_session *s, struct hf_slice in)
{
    if (s->server_stream)
        return stream(s, in);
    struct hf_pg_head head;
    int r = hf_pg_head_read(in, &head);
    if (r == -HF_ETRUNC)
        return 0;
    size_t len = (size_t)head.body_len + HF_PG_HEAD_LEN;
    if (r || (!streams(head.type) && len > 4 * HF_PG_WHOLE_MAX)) {
        hf_pg_lost(s, "the server does not follow the protocol");
        return in.n;
    }
    struct unit *u = hf_pg_unit_head(s);
    if (streams(head.type) && !hidden_now(u)) {
        size_t n = in.n < len ? in.n : len;
        uint32_t ticket = head.type == HF_PG_DATA_ROW ? hf_pg_ids_now(s, u) : 0;
        if (ticket && n < len && len <= HF_PG_WHOLE_MAX)
            return 0;
        if (ticket && n == len)
            hf_pg_ids_row(s, ticket, hf_slice(in.p + HF_PG_HEAD_LEN, head.body_len));
        s->server_stream = len - n;
        s->server_stream_hide = false;
        hf_pg_deliver(s, hf_slice(in.p, n));
        return n;
    }
    if (in.n < len)
        return 0;
    take(s, head.type, hf_slice(in.p, len));
    return s->state == HF_PG_LOST ? in.n : len;
}
