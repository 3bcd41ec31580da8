/* After the loss of the server connection: clear, resolve, restore, replay, or say what is lost. */
#include <assert.h>

#include "core/pg/session_impl.h"

static void session_restored(struct hf_pg_session *s, bool ok, const char *why);
static void restore_prepared(struct hf_pg_session *s);
static void answer_verdict(struct hf_pg_session *s);

/* between looks at the old server process, or its transaction: most are over at once */
#define POLL_FIRST HF_MS(2)
#define POLL_MAX HF_MS(20)

static struct hf_slice rest_of(const struct hf_buf *b, size_t from)
{
    return hf_slice(b->p + from, b->n - from);
}

/* --- the loss --- */

/* The lost transaction's SETs are gone with it; a replay makes them again. */
static void forget_block(struct hf_pg_session *s)
{
    hf_buf_fini(&s->block_since);
    s->block_look = s->block_hard = s->block_change = s->peeked = false;
}

/* Everything under way goes back into the log, to be fed again. */
static void collect(struct hf_pg_session *s)
{
    hf_pg_saved_log_cut(s, s->log.n);
    s->saved.refeeds++;
    if (s->refeed.n > s->refeed_at)
        hf_buf_add(&s->log, rest_of(&s->refeed, s->refeed_at));
    if (s->log.err)
        s->passing |= HF_PG_REASON_LOG_FULL;
    hf_buf_fini(&s->refeed);
    s->refeed = s->log;
    s->refeed_at = 0;
    hf_buf_init(&s->log, s->conf->log_max);
    if (s->replay_left == 0)
        s->replay_total = hf_pg_hash_get(s, s->replay_hash);
    for (uint32_t i = s->n_units; i > 0; i--)
        hf_pg_ops_revert(s, s->unit_no + i - 1);
    while (s->n_units)
        hf_pg_unit_pop(s);
    hf_pg_ids_lost(s);
    hf_pg_portals_forget(s);
    hf_pg_portal_bind(s, hf_slice(NULL, 0), NULL);
    hf_pg_hash_reset(s);
    s->log_block = 0;
    s->replay_left = 0;
    s->replay_units = 0;
}

static void start_over(struct hf_pg_session *s);

void hf_pg_verdict_set(struct hf_pg_session *s, const char *sqlstate, const char *message,
                       const char *why)
{
    if (s->verdict.set)
        return;
    s->verdict.set = true;
    snprintf(s->verdict.sqlstate, sizeof(s->verdict.sqlstate), "%s", sqlstate);
    snprintf(s->verdict.message, sizeof(s->verdict.message), "%s", message);
    snprintf(s->verdict.detail, sizeof(s->verdict.detail), "%s", why);
}

static const char *reasons_text(uint32_t reasons)
{
    for (uint32_t bit = 1; bit; bit <<= 1) {
        if (reasons & bit)
            return hf_pg_reason_text(bit);
    }
    return "";
}

#define STICKY_FATAL (HF_PG_REASONS_STICKY & ~(uint32_t)HF_PG_REASON_SEQUENCE_STATE)

/* What can't go on is said now; true: the session has ended. */
static bool lost_for_good(struct hf_pg_session *s)
{
    static const char *const pass[] = {"57P01", "57P02", "57P03"};
    bool maybe = s->fatal.n == 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(pass); i++)
        maybe |= strcmp(s->fatal_state, pass[i]) == 0;
    if (!maybe) { /* it was meant for this session */
        hf_pg_deliver_flush(s);
        if (!hf_pg_mid_message(s))
            s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&s->fatal));
        hf_pg_end(s, "the server ended the session");
        return true;
    }
    if (s->look_hard || (s->looking && s->looking_hard))
        s->sticky |= HF_PG_REASON_SETTINGS;
    if (s->sticky & STICKY_FATAL) {
        char detail[160];
        snprintf(detail, sizeof(detail), "The session can't be restored on another server: %s.",
                 reasons_text(s->sticky & STICKY_FATAL));
        hf_pg_note(s, HF_PG_NOTE_LOST_UNPROTECTED, 0, 0, detail);
        if (s->fatal.n && !hf_pg_mid_message(s)) { /* the server's own words */
            s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&s->fatal));
            hf_pg_end(s, detail);
            return true;
        }
        hf_pg_fatal(s, "57P01", "terminating connection because the server was lost", detail);
        return true;
    }
    return false;
}

/* What is under way and can't be repeated gets an error, once the session is restored. */
static void judge(struct hf_pg_session *s, uint32_t unit_reasons)
{
    if (s->doubt || s->rolled_back)
        return; /* first its outcome; or there is none any more */
    if (unit_reasons && s->tx == 'I' && s->n_waiting) {
        hf_pg_verdict_set(s, "08007", "the server was lost while the statement was running",
                          reasons_text(unit_reasons));
        hf_pg_note(s, HF_PG_NOTE_LOST_UNPROTECTED, 0, 0, s->verdict.detail);
    } else if (s->passing & ~(uint32_t)HF_PG_REASON_SYNC_COMMIT &&
               (s->tx == 'T' || s->n_waiting || s->n_open)) {
        hf_pg_verdict_set(s, "40001",
                          "the transaction could not be replayed after the loss of the server",
                          reasons_text(s->passing));
    }
}

/* Has the request that is under way been answered with an error, but for its ReadyForQuery? */
static bool error_told(struct hf_pg_session *s)
{
    for (uint32_t i = 0; i < s->n_units; i++) {
        const struct unit *u = hf_pg_unit_at(s, i);
        if (u->kind != UNIT_HIDDEN || u->hidden == HID_COMMIT)
            return u->failed;
    }
    return false;
}

/* The request was done, what it did to the session was being looked at. true: it can't be done once
 * more, so that the session has ended. */
static bool settling_lost(struct hf_pg_session *s)
{
    if (!s->settling)
        return false;
    const struct unit *u = hf_pg_unit_last(s);
    bool undone = u->failed && (u->wrapped || u->kind == UNIT_EXTENDED);
    s->settling = s->looking = false;
    s->look_hard |= s->looking_hard; /* of those before it */
    if (!u->committed && (u->repeatable || undone))
        return false;
    hf_pg_note(s, HF_PG_NOTE_LOST_UNPROTECTED, 0, 0, hf_pg_reason_text(HF_PG_REASON_SETTINGS));
    hf_pg_fatal(s, "57P01", "terminating connection because the server was lost",
                u->committed ? "The transaction was committed; what it set can't be restored."
                             : "What the statement set can't be restored.");
    return true;
}

/* It may be there still, and be ended (X6). */
static void process_lost(struct hf_pg_session *s)
{
    s->lost_pid = s->pid;
    s->lost_port = s->port;
    s->lost_attached_at = s->attached_at;
}

void hf_pg_lost(struct hf_pg_session *s, const char *why)
{
    if (s->state == HF_PG_ENDED || s->state == HF_PG_STARTING || s->state == HF_PG_LOST)
        return;
    (void)why;
    s->forward = hf_slice(NULL, 0);
    hf_pg_deliver_flush(s);
    if (s->state == HF_PG_MOVING)
        hf_pg_move_failed(s, "the server was lost meanwhile");
    if (settling_lost(s))
        return;
    uint32_t unit_reasons = 0, unit_does = 0;
    for (uint32_t i = 0; i < s->n_units; i++)
        unit_reasons |= hf_pg_unit_at(s, i)->reasons;
    if (s->n_units)
        unit_does = hf_pg_unit_last(s)->does; /* at a commit point it is the one */
    bool fed = s->state == HF_PG_RUNNING || s->state == HF_PG_REPLAYING;
    if (s->lost_at == 0)
        s->lost_at = s->now;
    if (fed) {
        if (s->state != HF_PG_REPLAYING || s->replay_left == 0)
            s->error_told = error_told(s);
        if (s->state == HF_PG_REPLAYING && s->replay_left)
            s->tx = s->tx_before;
        s->doubt = s->commit == COMMIT_SENT;
        s->commit = COMMIT_NONE;
        s->commit_deferred = s->unreplicated = false;
        if (!s->doubt) {
            hf_buf_clear(&s->held);
            forget_block(s);
        } else if (unit_does & DOES_LOOK) {
            s->block_look = s->block_hard = true;
        }
        s->mid_message = hf_pg_mid_message(s);
        process_lost(s);
        struct unit *last = hf_pg_unit_last(s);
        s->rolled_told = last && last->n_done;
        s->commit_waiting = s->n_waiting == 1 && !s->n_open && unit_does & HF_PG_DOES_COMMIT &&
                            !(unit_does & HF_PG_DOES_CHAIN);
        s->rolled_back = last && last->kind == UNIT_QUERY && s->n_waiting == 1 &&
                         last->does == HF_PG_DOES_ROLLBACK;
        collect(s);
    } else {
        while (s->n_units)
            hf_pg_unit_pop(s);
    }
    s->cancelling = false;
    s->step = STEP_NONE;
    hf_pg_answer_reset(s);
    if (lost_for_good(s))
        return;
    s->server_stream = 0;
    if (fed) {
        s->looking = s->copying = s->copy_wait = false;
        if (s->doubt)
            hf_pg_note(s, HF_PG_NOTE_IN_DOUBT, s->commit_xid, 0, NULL);
        judge(s, unit_reasons);
    }
    hf_pg_enter_state(s, HF_PG_LOST);
    s->deadline = s->now + s->conf->hold_timeout;
    s->needed[HF_PG_SERVER] = true;
    s->ops.need(s->arg, HF_PG_SERVER);
}

bool hf_pg_worker_lost(struct hf_pg_session *s)
{
    uint32_t reasons = s->sticky & STICKY_FATAL;
    reasons |= s->passing & ~(uint32_t)HF_PG_REASON_SYNC_COMMIT;
    for (uint32_t i = 0; i < s->n_units; i++)
        reasons |= hf_pg_unit_at(s, i)->reasons;
    if (reasons || s->look_hard || s->looking || s->settling || s->cancelling || s->worker_lost ||
        (s->state != HF_PG_RUNNING && s->state != HF_PG_REPLAYING))
        return false;
    s->worker_lost = true;
    hf_pg_deliver_flush(s); /* it is the connection's */
    s->ops.drop(s->arg, HF_PG_SERVER);
    hf_pg_lost(s, "a parallel worker has ended");
    return true;
}

/* --- clearing and resolving --- */

static void look_again(struct hf_pg_session *s)
{
    hf_time so_far = s->now - s->since;
    s->again = s->now + (so_far > POLL_FIRST ? hf_time_min(so_far, POLL_MAX) : POLL_FIRST);
}

static void ask_clear(struct hf_pg_session *s)
{
    /* Its number may be used again. So it must have been at the other end of our connection; or, if
     * the server does not see that end as we do, have begun when our login did, which may have
     * taken a while, and its clock may have been set since. What the view pg_stat_activity would
     * add is a look at all other processes. */
    char sql[400];
    snprintf(sql, sizeof(sql),
             "SELECT pg_catalog.pg_terminate_backend(pid) FROM "
             "pg_catalog.pg_stat_get_activity(%u) WHERE client_port = %u OR "
             "pg_catalog.abs(pg_catalog.date_part('epoch', "
             "pg_catalog.clock_timestamp() - backend_start) - %lld.%03lld) < 10",
             s->lost_pid, s->lost_port, (long long)((s->now - s->lost_attached_at) / HF_NS_PER_S),
             (long long)((s->now - s->lost_attached_at) / HF_NS_PER_MS % 1000));
    hf_pg_step_ask(s, STEP_CLEAR, hf_slice_str(sql));
}

static void unresolved(struct hf_pg_session *s, const char *why)
{
    hf_pg_note(s, HF_PG_NOTE_UNRESOLVED, s->commit_xid, 0, why);
    s->doubt = false;
    if (s->block_look) { /* nor is it known what it set */
        hf_pg_fatal(s, "08007", "the outcome of the transaction is unknown", why);
        return;
    }
    forget_block(s);
    hf_pg_verdict_set(s, "08007", "the outcome of the transaction is unknown", why);
    s->tx = 'I';
    hf_buf_clear(&s->held);
    hf_buf_fini(&s->refeed);
    s->refeed_at = 0;
    hf_pg_restore(s, HF_PG_SERVER);
}

static void not_committed(struct hf_pg_session *s)
{
    s->doubt = false;
    forget_block(s);
    hf_buf_clear(&s->held);
    hf_pg_note(s, HF_PG_NOTE_ABORTED, s->commit_xid, 0, NULL);
    judge(s, 0);
    hf_pg_restore(s, HF_PG_SERVER);
}

static void ask_resolve(struct hf_pg_session *s)
{
    const struct hf_pg_backend *b = &s->backend;
    if (s->commit_xid == 0) { /* it had written nothing */
        not_committed(s);
    } else if (!b->same && !b->fenced) {
        unresolved(s, "The server's start was not fenced, so that transaction ids may have been "
                      "used again.");
    } else if (!b->same && s->commit_xid >= b->fence) {
        not_committed(s);
    } else {
        char sql[96];
        snprintf(sql, sizeof(sql), "SELECT pg_catalog.pg_xact_status('%llu')",
                 (unsigned long long)s->commit_xid);
        hf_pg_step_ask(s, STEP_RESOLVE, hf_slice_str(sql));
    }
}

static void after_clear(struct hf_pg_session *s)
{
    if (s->doubt) {
        hf_pg_enter_state(s, HF_PG_RESOLVING);
        ask_resolve(s);
    } else {
        hf_pg_restore(s, HF_PG_SERVER);
    }
}

void hf_pg_recover_again(struct hf_pg_session *s)
{
    if (s->state == HF_PG_CLEARING)
        ask_clear(s);
    else
        ask_resolve(s);
}

/* Then there is nothing to be resolved or replayed that the old process could still change (X6): a
 * manager sends to it only what is saved. */
static bool nothing_under_way(const struct hf_pg_session *s)
{
    return s->tx == 'I' && !s->doubt && !s->refeed.n && !s->n_waiting && !s->n_open &&
           !s->verdict.set;
}

void hf_pg_recover_attach(struct hf_pg_session *s)
{
    if (s->fatal.n && s->backend.same && strcmp(s->fatal_state, "57P01") == 0) {
        /* an administrator ended this one session (R11) */
        if (!s->mid_message)
            s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&s->fatal));
        hf_pg_end(s, "terminated by an administrator");
        return;
    }
    hf_buf_fini(&s->fatal);
    s->fatal_state[0] = '\0';
    s->worker_lost &= s->backend.same;
    s->deadline = s->now + s->conf->replay_timeout;
    s->given_due |= !s->backend.same;
    bool idle = s->leave_idle && nothing_under_way(s);
    s->leave_idle = false;
    if (s->backend.same && s->lost_pid && !idle) {
        hf_pg_enter_state(s, HF_PG_CLEARING);
        ask_clear(s);
    } else {
        after_clear(s);
    }
}

static void resolve_answered(struct hf_pg_session *s)
{
    struct hf_slice v = hf_pg_answer_value(s);
    if (s->answer.sqlstate[0]) {
        unresolved(s, s->answer.message);
    } else if (hf_slice_eq(v, hf_slice_str("committed"))) {
        hf_pg_step_ask(
            s, STEP_MARK,
            hf_slice_str("SELECT pg_catalog.set_config('synchronous_commit', 'on', true);"
                         "SELECT pg_catalog.pg_logical_emit_message(true, 'holdfast', '')"));
    } else if (hf_slice_eq(v, hf_slice_str("aborted"))) {
        not_committed(s);
    } else if (hf_slice_eq(v, hf_slice_str("in progress"))) {
        look_again(s);
    } else {
        unresolved(s, "The server has forgotten the transaction's status.");
    }
}

static void committed(struct hf_pg_session *s)
{
    hf_pg_note(s, HF_PG_NOTE_COMMITTED, s->commit_xid, 0, NULL);
    hf_pg_settle_block(s, true);
    if (s->look_hard) { /* the new connection has not got what it set */
        hf_pg_fatal(s, "57P01", "terminating connection because the server was lost",
                    "The transaction was committed; what it set can't be restored.");
        return;
    }
    s->committed = true;
    s->doubt = false;
    s->passing = 0;
    s->tx = 'I';
    hf_buf_fini(&s->refeed);
    s->refeed_at = 0;
    hf_pg_restore(s, HF_PG_SERVER);
}

/* --- restoring --- */

void hf_pg_step_ask(struct hf_pg_session *s, enum step step, struct hf_slice sql)
{
    s->step = step;
    s->again = HF_NEVER;
    if (s->step_side == HF_PG_SERVER) {
        hf_pg_ask_query(s, HID_STEP, sql);
        return;
    }
    struct hf_buf b;
    hf_buf_init(&b, sql.n + 16);
    hf_pg_put_query(&b, sql);
    s->spare_idle = false;
    s->ops.send(s->arg, HF_PG_SPARE, hf_buf_slice(&b));
    hf_buf_fini(&b);
}

static void restore_since(struct hf_pg_session *s)
{
    bool first = s->since_at < s->prepares.n;
    size_t at = first ? s->since_at : s->since_at - s->prepares.n;
    struct hf_buf *texts = first ? &s->prepares : &s->since_snapshot;
    if (at < texts->n) {
        struct hf_slice sql = hf_slice_str((const char *)texts->p + at);
        s->since_at += sql.n + 1;
        hf_pg_step_ask(s, STEP_SINCE, sql);
        return;
    }
    s->step_prepared = NULL;
    s->step = STEP_PREPARE;
    restore_prepared(s);
}

/* A block that has failed, and nobody waits: that it has failed is all there is to restore. */
static bool only_failed(const struct hf_pg_session *s)
{
    return s->tx == 'E' && !s->verdict.set && !s->n_waiting && !s->n_open &&
           (!s->savepoints || s->log_full);
}

static bool will_replay(const struct hf_pg_session *s)
{
    return s->refeed.n && !s->committed && !s->rolled_back && !s->verdict.set && !only_failed(s);
}

void hf_pg_restore(struct hf_pg_session *s, enum hf_pg_side side)
{
    if (side == HF_PG_SERVER) {
        hf_pg_enter_state(s, HF_PG_RESTORING);
        if (will_replay(s))
            hf_pg_prepared_rewind(s); /* the log parses and closes them again */
        else
            hf_pg_closed_forget(s);
    }
    s->step_side = side;
    s->since_at = 0;
    if (s->snapshot.n)
        hf_pg_step_ask(s, STEP_SETTINGS, hf_buf_slice(&s->snapshot));
    else
        restore_since(s);
}

/* The next protocol-level statement: Parse, Describe, Sync. */
static void restore_prepared(struct hf_pg_session *s)
{
    static const uint8_t sync[] = {HF_PG_SYNC, 0, 0, 0, 4};
    struct hf_list *at = s->step_prepared ? &s->step_prepared->link : &s->prepared_list;
    if (at->next == &s->prepared_list) {
        session_restored(s, true, NULL);
        return;
    }
    struct prepared *p = s->step_prepared = HF_CONTAINER_OF(at->next, struct prepared, link);
    struct hf_buf b;
    hf_buf_init(&b, p->body_len + p->name.n + 64);
    hf_pg_put_message(&b, HF_PG_PARSE, hf_slice(p->body, p->body_len));
    size_t mark = hf_pg_put_begin(&b, HF_PG_DESCRIBE);
    hf_pg_put_u8(&b, 'S');
    hf_pg_put_cstr(&b, p->name);
    hf_pg_put_end(&b, mark);
    hf_buf_add(&b, hf_slice(sync, sizeof(sync)));
    if (s->step_side == HF_PG_SERVER) {
        struct unit *u = hf_pg_unit_push(s, UNIT_HIDDEN);
        u->hidden = HID_STEP;
        u->ended = true;
        hf_pg_inject(s, hf_buf_slice(&b));
    } else {
        s->spare_idle = false;
        s->ops.send(s->arg, HF_PG_SPARE, hf_buf_slice(&b));
    }
    hf_buf_fini(&b);
}

static void prepared_answered(struct hf_pg_session *s)
{
    struct prepared *p = s->step_prepared;
    uint64_t shape[2];
    hf_hash_stream_get(&s->step_shape, shape);
    bool same = !p->described || (shape[0] == p->shape[0] && shape[1] == p->shape[1]);
    if ((s->answer.sqlstate[0] || !same) && s->step_side == HF_PG_SPARE) {
        session_restored(s, false, "a prepared statement means something else there");
        return;
    }
    if (!s->answer.sqlstate[0] && !same) {
        session_restored(s, false, "a prepared statement changed its columns");
        return;
    }
    hf_pg_answer_reset(s); /* an error: using it will get the server's own error */
    restore_prepared(s);
}

/* --- after restoring --- */

static void recovered(struct hf_pg_session *s)
{
    hf_pg_enter_state(s, HF_PG_RUNNING);
    s->deadline = HF_NEVER;
    s->impatient = false;
    s->n_recoveries++;
    s->aside_due = true;
    if (!s->mid_message) /* nothing may be told within a message */
        hf_pg_tell_due(s);
    hf_pg_note(s, HF_PG_NOTE_RECOVERED, (uint64_t)(s->now - s->lost_at), 0, NULL);
    s->lost_at = 0;
    if (s->n_units == 0)
        s->block = s->tx == 'I' ? BLOCK_NO : BLOCK_YES;
    s->look |= s->since_snapshot.n != 0;
}

static void gap(struct hf_pg_session *s)
{
    if (s->n_listens == 0)
        return;
    hf_pg_note(s, HF_PG_NOTE_GAP, s->n_listens, 0, NULL);
    for (size_t i = 0; i < s->listens.n;) {
        struct hf_slice channel = hf_slice_str((const char *)s->listens.p + i);
        i += channel.n + 1;
        struct hf_buf b;
        hf_buf_init(&b, channel.n + 32);
        size_t mark = hf_pg_put_begin(&b, HF_PG_NOTIFICATION);
        hf_pg_put_u32(&b, 0); /* nobody's */
        hf_pg_put_cstr(&b, channel);
        hf_pg_put_cstr(&b, hf_slice(NULL, 0));
        hf_pg_put_end(&b, mark);
        s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&b));
        hf_buf_fini(&b);
    }
}

void hf_pg_tell_due(struct hf_pg_session *s)
{
    if (!s->gap_due && !s->aside_due)
        return;
    s->mid_message = false;
    hf_pg_deliver_flush(s);
    if (s->aside_due)
        hf_pg_status_compare(s, hf_buf_slice(&s->new_status));
    if (s->gap_due)
        gap(s);
    s->gap_due = s->aside_due = false;
}

static void tell_complete(struct hf_pg_session *s, const char *tag)
{
    struct hf_buf b;
    hf_buf_init(&b, 64);
    hf_pg_put_command_complete(&b, tag);
    s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&b));
    hf_buf_fini(&b);
}

/* The interrupted commit had been done: give the client the rest of its answer. */
static void finish_committed(struct hf_pg_session *s)
{
    s->committed = false;
    if (s->commit_kind == COMMIT_QUERY && s->commit_more) {
        hf_pg_verdict_set(s, "08007", "the answer was lost with the server",
                          "The transaction was committed.");
    } else if (s->held.n) {
        s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&s->held));
    } else if (s->commit_kind == COMMIT_QUERY || s->commit_kind == COMMIT_EXECUTE) {
        tell_complete(s, s->commit_prepare ? "PREPARE TRANSACTION" : "COMMIT");
    }
    hf_buf_clear(&s->held);
    hf_pg_transaction_over(s, true);
    hf_pg_hash_reset(s);
    recovered(s);
    if (s->verdict.set) {
        answer_verdict(s);
    } else if (s->commit_kind == COMMIT_EXECUTE) {
        hf_pg_unit_push(s, UNIT_EXTENDED); /* its Sync is still to come */
    } else {
        hf_pg_tell_ready(s);
        s->n_waiting--;
        s->n_requests++;
    }
}

/* ... AND CHAIN: committed, and the transaction that follows can't be had as it was. */
static void finish_chained(struct hf_pg_session *s)
{
    s->committed = s->chain_block = false;
    tell_complete(s, "COMMIT");
    hf_buf_clear(&s->held);
    hf_pg_transaction_over(s, true);
    hf_pg_log_trim(s, s->log.n);
    recovered(s);
    s->tx = 'T';
    if (s->commit_kind == COMMIT_EXECUTE) {
        hf_pg_unit_push(s, UNIT_EXTENDED);
    } else {
        hf_pg_tell_ready(s);
        s->n_waiting--;
        s->n_requests++;
    }
    s->tx = 'E';
    s->block = BLOCK_YES;
    hf_pg_log_drop(s, HF_PG_REASON_FAILED);
    hf_pg_verdict_set(s, "40001",
                      "the transaction could not be replayed after the loss of the server",
                      "It was begun by COMMIT AND CHAIN.");
}

static void begin_failed_block(struct hf_pg_session *s)
{
    hf_buf_fini(&s->refeed);
    s->refeed_at = 0;
    hf_pg_step_ask(s, STEP_BLOCK, hf_slice_str("BEGIN"));
}

/* Restored, a failed block too where there is one: say what is to be said, go on. */
static void settled(struct hf_pg_session *s)
{
    if (s->chain_block) {
        finish_chained(s);
        return;
    }
    hf_pg_log_trim(s, s->log.n);
    recovered(s);
    if (s->tx != 'I') {
        s->tx = 'E';
        s->block = BLOCK_YES;
        hf_pg_log_drop(s, HF_PG_REASON_FAILED); /* nothing to be replayed but that it failed */
    } else {
        hf_pg_transaction_over(s, false);
    }
    if (s->verdict.set)
        answer_verdict(s);
}

static void begin_replay(struct hf_pg_session *s)
{
    hf_pg_enter_state(s, HF_PG_REPLAYING);
    s->tx_before = s->tx;
    s->tx = 'I';
    s->block = BLOCK_NO;
    s->replay_left = s->replay_total;
    s->writes = s->xid_asked = s->savepoints = false;
    s->xid = 0;
    s->log_unit = s->unit_no;
}

/* First the sequences: a new start may have forgotten what they had given. */
static void prepare_replay(struct hf_pg_session *s)
{
    struct hf_buf sql;
    hf_buf_init(&sql, ANSWER_MAX);
    if (s->given_due && hf_pg_ids_sql(s, &sql))
        hf_pg_step_ask(s, STEP_IDS, hf_buf_slice(&sql));
    else
        begin_replay(s);
    hf_buf_fini(&sql);
}

static void go_on(struct hf_pg_session *s)
{
    s->gap_due = true; /* until it is RUNNING */
    if (s->committed && s->commit_chain) {
        s->chain_block = true;
        begin_failed_block(s);
    } else if (s->committed) {
        finish_committed(s);
    } else if (s->rolled_back) {
        s->rolled_back = false;
        hf_buf_fini(&s->refeed);
        s->refeed_at = 0;
        if (!s->rolled_told)
            tell_complete(s, "ROLLBACK");
        s->tx = 'I';
        s->n_waiting = 0;
        s->n_requests++;
        settled(s);
        hf_pg_tell_ready(s);
    } else if (only_failed(s)) {
        begin_failed_block(s);
    } else if (s->verdict.set && s->tx != 'I' && !s->commit_waiting) {
        begin_failed_block(s);
    } else if (s->verdict.set) {
        hf_buf_fini(&s->refeed);
        s->refeed_at = 0;
        s->tx = 'I'; /* a COMMIT that fails ends the block */
        settled(s);
    } else if (s->refeed.n) {
        prepare_replay(s);
    } else {
        recovered(s);
    }
}

static void session_restored(struct hf_pg_session *s, bool ok, const char *why)
{
    s->step = STEP_NONE;
    if (s->step_side == HF_PG_SPARE) {
        ok ? hf_pg_move_step(s, 'I') : hf_pg_move_failed(s, why);
        return;
    }
    if (!ok) {
        hf_pg_note(s, HF_PG_NOTE_LOST_UNPROTECTED, 0, 0, why);
        hf_pg_fatal(s, "57P01", "terminating connection because the server was lost", why);
        return;
    }
    if (s->unnamed)
        s->unnamed_lost = true;
    if (s->conf->listen_close && s->n_listens) {
        hf_pg_fatal(s, "57P01", "terminating connection because notifications may have been lost",
                    NULL);
        return;
    }
    go_on(s);
}

static void settings_answered(struct hf_pg_session *s)
{
    if (s->answer.sqlstate[0])
        session_restored(s, false, s->answer.message);
    else
        restore_since(s);
}

void hf_pg_step_done(struct hf_pg_session *s, char status)
{
    if (s->step_side == HF_PG_SPARE && s->step >= STEP_LISTEN && s->step <= STEP_UNLISTEN) {
        hf_pg_move_step(s, status);
        return;
    }
    switch (s->step) {
    case STEP_CLEAR:
        if (s->answer.sqlstate[0] || hf_pg_answer_value(s).p)
            look_again(s); /* still there */
        else
            after_clear(s);
        break;
    case STEP_RESOLVE:
        resolve_answered(s);
        break;
    case STEP_MARK:
        if (s->answer.sqlstate[0])
            unresolved(s, s->answer.message);
        else
            committed(s);
        break;
    case STEP_SETTINGS:
    case STEP_SINCE:
        settings_answered(s);
        break;
    case STEP_PREPARE:
        prepared_answered(s);
        break;
    case STEP_IDS: /* an error: as if none had been shown */
        s->step = STEP_NONE;
        s->given_due = false;
        if (s->answer.sqlstate[0])
            hf_pg_ids_forget(&s->given);
        begin_replay(s);
        break;
    case STEP_BLOCK:
        hf_pg_step_ask(s, STEP_FAIL,
                       hf_slice_str("SELECT 1/0 /* holdfast: the transaction has failed */"));
        break;
    case STEP_FAIL:
        s->step = STEP_NONE;
        settled(s);
        break;
    case STEP_NONE:
    case STEP_LISTEN:
    case STEP_MARKER:
    case STEP_UNLISTEN:
        break;
    }
}

/* --- replaying --- */

void hf_pg_replay_failed(struct hf_pg_session *s, const char *why)
{
    if (s->failing)
        return;
    hf_pg_deliver_flush(s);
    s->mid_message = hf_pg_mid_message(s);
    s->failing = true;
    hf_pg_verdict_set(s, "40001",
                      "the transaction could not be replayed after the loss of the server", why);
    hf_pg_note(s, HF_PG_NOTE_REPLAY_FAILED, 0, 0, why);
}

/* Another connection, without what was replayed; the verdict is told there. */
static void start_over(struct hf_pg_session *s)
{
    s->failing = false;
    s->tx = s->tx_before;
    s->ops.drop(s->arg, HF_PG_SERVER);
    while (s->n_units)
        hf_pg_unit_pop(s);
    hf_pg_saved_log_cut(s, s->log.n);
    hf_buf_fini(&s->log);
    hf_buf_init(&s->log, s->conf->log_max);
    hf_buf_fini(&s->refeed);
    hf_pg_ids_forget(&s->given);
    hf_pg_ids_over(s, s->tickets);
    hf_buf_clear(&s->held);
    s->refeed_at = s->log_block = 0;
    s->replay_left = 0;
    s->commit = COMMIT_NONE;
    s->server_stream = 0;
    s->deliver = s->forward = hf_slice(NULL, 0);
    hf_pg_portals_forget(s);
    hf_pg_hash_reset(s);
    process_lost(s);
    hf_pg_enter_state(s, HF_PG_LOST);
    s->deadline = s->now + s->conf->hold_timeout;
    s->needed[HF_PG_SERVER] = true;
    s->ops.need(s->arg, HF_PG_SERVER);
}

/* Is the replay done, or has it come to a stop too early? */
void hf_pg_replay_check(struct hf_pg_session *s)
{
    if (s->failing) {
        start_over(s);
        return;
    }
    if (s->state != HF_PG_REPLAYING || s->refeed_at < s->refeed.n)
        return;
    struct unit *u = hf_pg_unit_last(s);
    bool quiet =
        !u || (s->n_units == 1 && u->kind == UNIT_EXTENDED && !u->ended && u->n_done == u->n_sent);
    if (s->replay_left && quiet) {
        hf_pg_replay_failed(s, "the replayed transaction gave less than before");
        start_over(s);
    } else if (s->replay_left == 0) {
        hf_pg_ids_forget(&s->given);
        hf_buf_fini(&s->refeed);
        s->refeed_at = 0;
        s->n_replays++;
        hf_pg_note(s, HF_PG_NOTE_REPLAYED, s->replay_units, s->replay_total, NULL);
        s->mid_message = hf_pg_mid_message(s); /* what was cut may be whole by now */
        recovered(s);
    }
}

/* The made-up error to everything that waits for an answer; otherwise the next request gets it. */
static void answer_verdict(struct hf_pg_session *s)
{
    struct verdict *v = &s->verdict;
    if (s->mid_message) {
        hf_pg_end(s, "a result was cut in the middle of a row");
        return;
    }
    if (s->n_waiting == 0 && !s->n_open)
        return; /* pending */
    for (; s->n_waiting; s->n_waiting--) {
        if (!s->error_told)
            hf_pg_tell_error(s, v->sqlstate, v->message, v->detail);
        s->error_told = false;
        hf_pg_tell_ready(s);
    }
    if (s->n_open) {
        if (!s->error_told)
            hf_pg_tell_error(s, v->sqlstate, v->message, v->detail);
        s->error_told = false;
        s->skipping = true;
    }
    v->set = false;
}
