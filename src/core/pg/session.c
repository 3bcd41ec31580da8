/* The session core's surface: life, attaching, deadlines, and turning the crank. */
#include "core/pg/session.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/mem.h"
#include "core/pg/session_impl.h"

const char *hf_pg_reason_text(uint32_t bit)
{
    switch (bit) {
#define TEXT(name, n, text)                                                                        \
    case HF_PG_REASON_##name:                                                                      \
        return text;
        HF_PG_REASON_LIST(TEXT)
#undef TEXT
    default:
        return "unknown";
    }
}

const char *hf_pg_state_name(enum hf_pg_state s)
{
    static const char *const name[] = {
        [HF_PG_STARTING] = "starting",   [HF_PG_RUNNING] = "running",
        [HF_PG_MOVING] = "moving",       [HF_PG_LOST] = "lost",
        [HF_PG_CLEARING] = "clearing",   [HF_PG_RESOLVING] = "resolving",
        [HF_PG_RESTORING] = "restoring", [HF_PG_REPLAYING] = "replaying",
        [HF_PG_ENDED] = "ended"};
    return name[s];
}

/* From each state, those that may come next. */
static const uint16_t next_state[] = {
#define B(x) (1u << HF_PG_##x)
    [HF_PG_STARTING] = B(RUNNING) | B(ENDED),
    [HF_PG_RUNNING] = B(MOVING) | B(LOST) | B(ENDED),
    [HF_PG_MOVING] = B(RUNNING) | B(LOST) | B(ENDED),
    [HF_PG_LOST] = B(CLEARING) | B(RESOLVING) | B(RESTORING) | B(ENDED),
    [HF_PG_CLEARING] = B(LOST) | B(RESOLVING) | B(RESTORING) | B(ENDED),
    [HF_PG_RESOLVING] = B(LOST) | B(RESTORING) | B(ENDED),
    [HF_PG_RESTORING] = B(LOST) | B(REPLAYING) | B(RUNNING) | B(ENDED),
    [HF_PG_REPLAYING] = B(LOST) | B(RUNNING) | B(ENDED),
    [HF_PG_ENDED] = 0,
#undef B
};

void hf_pg_enter_state(struct hf_pg_session *s, enum hf_pg_state to)
{
    assert(next_state[s->state] & 1u << to);
    s->state = to;
    s->since = s->now;
}

void hf_pg_note(struct hf_pg_session *s, enum hf_pg_note note, uint64_t a, uint64_t b,
                const char *text)
{
    s->ops.note(s->arg, note, a, b, text ? text : "");
}

static uint32_t session_reasons(const struct hf_pg_session *s)
{
    bool unseen = s->look_hard || (s->looking && s->looking_hard);
    return s->sticky | s->passing | (unseen ? HF_PG_REASON_SETTINGS : 0);
}

void hf_pg_tell_reasons(struct hf_pg_session *s)
{
    uint32_t now = session_reasons(s);
    if (now == s->told)
        return;
    s->told = now;
    hf_pg_note(s, HF_PG_NOTE_UNPROTECTED, now, 0, NULL);
}

/* --- life --- */

int hf_pg_session_alloc(const struct hf_pg_session_args *args, const struct hf_pg_session_ops *ops,
                        void *arg, hf_time now, struct hf_pg_session **ret_session)
{
    struct hf_pg_session *s = hf_alloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->user = hf_alloc(args->user.n + 1);
    s->cancel_key = hf_alloc(args->cancel_key.n + 1);
    if (!s->user || !s->cancel_key) {
        hf_free(s->user);
        hf_free(s->cancel_key);
        hf_free(s);
        return -ENOMEM;
    }
    memcpy(s->user, args->user.n ? args->user.p : (const uint8_t *)"", args->user.n);
    memcpy(s->cancel_key, args->cancel_key.n ? args->cancel_key.p : (const uint8_t *)"",
           args->cancel_key.n);
    s->cancel_key_len = args->cancel_key.n;
    s->cancel_pid = args->cancel_pid;
    s->conf = args->conf;
    s->memory = args->memory;
    s->classifier = args->classifier;
    s->ops = *ops;
    s->arg = arg;
    s->seed = args->seed;
    s->now = s->since = now;
    s->replication = args->replication;
    s->sticky = (args->replication ? HF_PG_REASON_REPLICATION : 0) |
                (args->login_again ? 0 : HF_PG_REASON_LOGIN);
    s->tx = s->tx_before = 'I';
    s->deadline = s->again = HF_NEVER;
    s->step_side = HF_PG_SERVER;
    hf_map_init(&s->prepared, s->seed);
    hf_map_init(&s->sql_prepared, s->seed);
    hf_list_init(&s->prepared_list);
    hf_list_init(&s->closed_list);
    hf_list_init(&s->portals);
    hf_buf_init(&s->log, s->conf->log_max);
    hf_buf_init(&s->held, HF_PG_WHOLE_MAX);
    hf_buf_init(&s->fatal, 65536);
    hf_buf_init(&s->answer.rows, ANSWER_MAX);
    hf_buf_init(&s->answer.text, 4096);
    hf_buf_init(&s->snapshot, ANSWER_MAX);
    hf_buf_init(&s->prepares, ANSWER_MAX);
    hf_buf_init(&s->since_snapshot, 65536);
    hf_buf_init(&s->block_since, 65536);
    hf_buf_init(&s->custom, PARAMS_MAX);
    hf_buf_init(&s->listens, ANSWER_MAX);
    hf_buf_init(&s->status, PARAMS_MAX);
    hf_buf_init(&s->new_status, PARAMS_MAX);
    hf_buf_init(&s->ids.sources, IDS_MAX);
    hf_buf_init(&s->ids.seen, IDS_MAX);
    hf_buf_init(&s->given.sources, IDS_MAX);
    hf_buf_init(&s->given.seen, IDS_MAX);
    hf_buf_init(&s->early, ANSWER_MAX);
    hf_buf_init(&s->saved.gone, SIZE_MAX);
    hf_pg_hash_reset(s);
    *ret_session = s;
    return 0;
}

int hf_pg_session_create(const struct hf_pg_session_args *args, const struct hf_pg_session_ops *ops,
                         void *arg, hf_time now, struct hf_pg_session **ret_session)
{
    int rc = hf_pg_session_alloc(args, ops, arg, now, ret_session);
    if (rc)
        return rc;
    (*ret_session)->needed[HF_PG_SERVER] = true;
    ops->need(arg, HF_PG_SERVER);
    return 0;
}

void hf_pg_session_destroy(struct hf_pg_session *s)
{
    if (!s)
        return;
    s->memory->used -= s->log_counted;
    for (size_t i = s->op_head; i < s->n_ops; i++) {
        if (s->op[i].kind == OP_CLOSE)
            hf_pg_prepared_destroy(s->op[i].p);
        hf_pg_prepared_destroy(s->op[i].before);
    }
    s->op_head = s->n_ops = 0;
    hf_pg_prepared_forget_all(s);
    hf_pg_closed_forget(s);
    hf_pg_prepared_destroy(s->unnamed);
    hf_pg_portals_forget(s);
    hf_pg_class_unref(s->portal_class);
    hf_map_fini(&s->prepared);
    hf_map_fini(&s->sql_prepared);
    hf_pg_ids_forget(&s->ids);
    hf_pg_ids_forget(&s->given);
    struct hf_buf *all[] = {&s->log,         &s->held,     &s->fatal,    &s->answer.rows,
                            &s->answer.text, &s->snapshot, &s->prepares, &s->since_snapshot,
                            &s->block_since, &s->custom,   &s->listens,  &s->status,
                            &s->new_status,  &s->early,    &s->refeed,   &s->saved.gone};
    for (size_t i = 0; i < HF_ARRAY_LEN(all); i++)
        hf_buf_fini(all[i]);
    hf_free(s->op);
    hf_free(s->user);
    hf_free(s->cancel_key);
    hf_free(s);
}

/* --- the end --- */

void hf_pg_end(struct hf_pg_session *s, const char *why)
{
    if (s->state == HF_PG_ENDED)
        return;
    hf_pg_forward_flush(s);
    hf_pg_deliver_flush(s);
    if (s->needed[HF_PG_SPARE] || s->spare_attached)
        s->ops.drop(s->arg, HF_PG_SPARE);
    s->ops.drop(s->arg, HF_PG_SERVER);
    hf_pg_enter_state(s, HF_PG_ENDED);
    s->deadline = s->again = HF_NEVER;
    hf_pg_note(s, HF_PG_NOTE_ENDED, 0, 0, why);
    s->ops.end(s->arg);
}

void hf_pg_fatal(struct hf_pg_session *s, const char *sqlstate, const char *message,
                 const char *detail)
{
    if (s->state == HF_PG_ENDED)
        return;
    struct hf_buf b;
    hf_buf_init(&b, 2048);
    hf_pg_put_error(&b, HF_PG_ERROR,
                    &(struct hf_pg_error){.severity = "FATAL",
                                          .sqlstate = sqlstate,
                                          .message = message,
                                          .detail = detail && *detail ? detail : NULL});
    hf_pg_forward_flush(s);
    hf_pg_deliver_flush(s);
    if (!hf_pg_mid_message(s))
        s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&b));
    hf_buf_fini(&b);
    hf_pg_end(s, message);
}

void hf_pg_session_kill(struct hf_pg_session *s, const char *sqlstate, const char *message,
                        hf_time now)
{
    s->now = now;
    hf_pg_fatal(s, sqlstate, message, NULL);
}

void hf_pg_session_refuse(struct hf_pg_session *s, const char *sqlstate, const char *message,
                          const char *detail, hf_time now)
{
    s->now = now;
    hf_pg_fatal(s, sqlstate, message, detail);
}

void hf_pg_session_client_gone(struct hf_pg_session *s, hf_time now)
{
    s->now = now;
    hf_pg_leave(s, "client closed the connection");
}

/* --- bytes --- */

/* What was delivered of an extended unit before its Sync was flushed by the token query that came
 * behind it, or by a Flush of the client's: the server has to be asked for it again. */
static void flush_open(struct hf_pg_session *s)
{
    static const uint8_t flush[] = {HF_PG_FLUSH, 0, 0, 0, 4};
    const struct unit *u = hf_pg_unit_last(s);
    if (u && u->kind == UNIT_EXTENDED && !u->ended)
        hf_pg_inject(s, hf_slice(flush, sizeof(flush)));
}

void hf_pg_leave(struct hf_pg_session *s, const char *why)
{
    struct unit *u = hf_pg_unit_last(s);
    bool ours = (s->commit == COMMIT_ASKED || s->commit == COMMIT_KNOWN) &&
                (s->commit_kind == COMMIT_WRAP || s->commit_kind == COMMIT_SYNC);
    bool copies = s->copying || s->copy_wait; /* what is missing of it will not come */
    s->orphan = s->state == HF_PG_RUNNING && u && !u->failed && ours && !copies;
    if (!s->orphan)
        hf_pg_end(s, why);
}

/* The client is gone: its last statement ends, and the session with it. */
static void orphaned(struct hf_pg_session *s)
{
    static const uint8_t sync[] = {HF_PG_SYNC, 0, 0, 0, 4};
    if (s->state == HF_PG_RUNNING && s->commit == COMMIT_KNOWN && s->commit_kind == COMMIT_SYNC)
        (void)hf_pg_front(s, hf_slice(sync, sizeof(sync)));
    if (s->state != HF_PG_RUNNING || s->n_units == 0)
        hf_pg_end(s, "client closed the connection");
}

/* Give back what is under way, look at what has changed, begin what was put off. */
void hf_pg_pump(struct hf_pg_session *s)
{
    if (s->orphan) {
        orphaned(s);
        if (s->state == HF_PG_ENDED)
            return;
    }
    for (;;) {
        hf_pg_replay_check(s);
        if (s->state != HF_PG_REPLAYING || s->refeed_at >= s->refeed.n)
            break;
        size_t n = hf_pg_front(s, hf_slice(s->refeed.p + s->refeed_at, s->refeed.n - s->refeed_at));
        s->refeed_at += n;
        hf_pg_forward_flush(s); /* before the log's buffer may go */
        if (n == 0)
            break;
        if (s->refeed_at >= s->refeed.n && s->replay_left)
            flush_open(s);
    }
    if (s->failing)
        hf_pg_replay_check(s);
    if (s->state == HF_PG_RUNNING && s->look && s->tx == 'I' && s->n_units == 0 && !s->looking &&
        s->commit == COMMIT_NONE && !s->cancelling && !s->replication)
        hf_pg_look(s);
    if (s->state == HF_PG_RUNNING && (s->move_asked || s->conf->rehearse_moves))
        hf_pg_move_try(s);
    hf_pg_forward_flush(s);
    hf_pg_deliver_flush(s);
}

size_t hf_pg_session_from_client(struct hf_pg_session *s, struct hf_slice bytes, hf_time now)
{
    size_t done = 0;
    s->now = now;
    if (s->orphan)
        return bytes.n;
    if (s->replication && s->state == HF_PG_RUNNING) {
        s->ops.send(s->arg, HF_PG_SERVER, bytes);
        return bytes.n;
    }
    if (s->state == HF_PG_LOST && bytes.n && !s->impatient) {
        s->impatient = true;
        s->deadline = now + s->conf->hold_timeout;
    }
    while (done < bytes.n && s->state == HF_PG_RUNNING && !s->orphan) {
        size_t n = hf_pg_front(s, hf_slice(bytes.p + done, bytes.n - done));
        if (n == 0)
            break;
        done += n;
    }
    if (s->state == HF_PG_ENDED)
        return bytes.n;
    hf_pg_pump(s);
    return done;
}

bool hf_pg_session_wants_client(const struct hf_pg_session *s)
{
    if (s->state == HF_PG_LOST)
        return !s->impatient; /* it is to know that somebody waits */
    return s->state == HF_PG_RUNNING && (s->replication || s->copying || !hf_pg_front_held(s));
}

size_t hf_pg_session_from_server(struct hf_pg_session *s, enum hf_pg_side side,
                                 struct hf_slice bytes, hf_time now)
{
    size_t done = 0;
    s->now = now;
    if (s->replication) {
        s->ops.send(s->arg, HF_PG_CLIENT, bytes);
        return bytes.n;
    }
    uint64_t moves = s->n_moves;
    while (done < bytes.n && !s->failing && s->n_moves == moves && s->state != HF_PG_ENDED &&
           s->state != HF_PG_LOST) {
        struct hf_slice in = hf_slice(bytes.p + done, bytes.n - done);
        if (side == HF_PG_SPARE && !s->spare_attached)
            break;
        size_t n = side == HF_PG_SPARE ? hf_pg_spare_bytes(s, in) : hf_pg_back(s, in);
        if (n == 0)
            break;
        done += n;
    }
    if (s->state == HF_PG_ENDED)
        return bytes.n;
    bool over = s->failing;
    hf_pg_pump(s);
    return over ? bytes.n : done;
}

/* --- connections --- */

void hf_pg_session_server_gone(struct hf_pg_session *s, enum hf_pg_side side, const char *why,
                               hf_time now)
{
    s->now = now;
    if (s->state == HF_PG_ENDED)
        return;
    if (side == HF_PG_SPARE) {
        s->spare_attached = s->needed[HF_PG_SPARE] = false;
        if (s->state == HF_PG_MOVING)
            hf_pg_move_failed(s, why);
    } else if (s->replication) {
        hf_pg_fatal(s, "57P01", "terminating connection because the server was lost", why);
    } else {
        hf_pg_lost(s, why);
    }
    if (s->state != HF_PG_ENDED)
        hf_pg_pump(s);
}

/* The first server connection: the client's login is complete. */
static void started(struct hf_pg_session *s, const struct hf_pg_backend *b)
{
    struct hf_buf out;
    hf_buf_init(&out, 1024);
    hf_pg_enter_state(s, HF_PG_RUNNING);
    hf_pg_status_compare(s, b->params);
    s->told_pid = s->cancel_pid ? s->cancel_pid : b->pid;
    hf_pg_put_key(&out, s->told_pid, hf_slice(s->cancel_key, s->cancel_key_len));
    hf_pg_put_ready(&out, 'I');
    s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&out));
    hf_buf_fini(&out);
}

void hf_pg_session_attach(struct hf_pg_session *s, enum hf_pg_side side,
                          const struct hf_pg_backend *backend, hf_time now)
{
    s->now = now;
    if (s->state == HF_PG_ENDED || !s->needed[side])
        return;
    s->needed[side] = false;
    s->backend = *backend;
    hf_buf_clear(&s->new_status);
    hf_buf_add(&s->new_status, backend->params);
    if (side == HF_PG_SPARE) {
        s->spare_attached = s->spare_idle = true;
        s->spare_at = backend->since ? backend->since : now;
        hf_pg_restore(s, HF_PG_SPARE);
        hf_pg_pump(s);
        return;
    }
    if (s->state == HF_PG_STARTING)
        started(s, backend);
    else
        hf_pg_recover_attach(s);
    if (s->state == HF_PG_ENDED)
        return;
    s->incarnation = backend->incarnation;
    s->pid = backend->pid;
    s->port = backend->port;
    s->attached_at = backend->since ? backend->since : now;
    hf_pg_pump(s);
}

void hf_pg_session_no_spare(struct hf_pg_session *s, const char *why, hf_time now)
{
    s->now = now;
    s->needed[HF_PG_SPARE] = false;
    if (s->state == HF_PG_MOVING)
        hf_pg_move_failed(s, why);
}

/* --- orders --- */

void hf_pg_session_move(struct hf_pg_session *s, hf_time now)
{
    s->now = now;
    if (s->state == HF_PG_ENDED || s->move_asked)
        return;
    s->move_asked = true;
    s->move_deadline = now + s->conf->move_timeout;
    if (s->state == HF_PG_RUNNING) {
        s->deadline = s->move_deadline;
        hf_pg_pump(s);
    }
}

bool hf_pg_session_freeze(struct hf_pg_session *s, hf_time now)
{
    s->now = now;
    s->frozen = true;
    return s->state == HF_PG_ENDED || hf_pg_at_rest(s);
}

void hf_pg_session_thaw(struct hf_pg_session *s, hf_time now)
{
    s->now = now;
    s->frozen = false;
}

bool hf_pg_session_cancel(struct hf_pg_session *s, hf_time now)
{
    s->now = now;
    struct unit *u = hf_pg_unit_head(s);
    if ((s->state != HF_PG_RUNNING && s->state != HF_PG_REPLAYING) || s->cancelling || !u ||
        u->kind == UNIT_HIDDEN || s->commit == COMMIT_SENT || s->replay_left)
        return false;
    s->cancelling = true;
    return true;
}

void hf_pg_session_cancelled(struct hf_pg_session *s, hf_time now)
{
    s->now = now;
    if (!s->cancelling)
        return;
    s->cancelling = false;
    if (s->commit_deferred)
        hf_pg_end_wrapped(s);
    hf_pg_pump(s);
}

/* --- time --- */

static void timed_out(struct hf_pg_session *s)
{
    s->deadline = HF_NEVER;
    switch (s->state) {
    case HF_PG_RUNNING:
        if (s->move_asked) {
            s->move_asked = false;
            hf_pg_move_failed(s, "no safe point in time");
        }
        break;
    case HF_PG_MOVING:
        hf_pg_move_failed(s, "it took too long");
        break;
    case HF_PG_LOST:
        if (s->n_waiting || s->n_open || s->impatient)
            hf_pg_fatal(s, "57P03", "cannot connect now", "There is no server for this session.");
        break;
    case HF_PG_REPLAYING:
        hf_pg_replay_failed(s, "the replay took too long");
        break;
    case HF_PG_CLEARING:
    case HF_PG_RESOLVING:
    case HF_PG_RESTORING:
        hf_pg_fatal(s, "57P01", "terminating connection because the server was lost",
                    "It could not be made sure in time what had been done.");
        break;
    case HF_PG_STARTING:
    case HF_PG_ENDED:
        break;
    }
}

static void poll_again(struct hf_pg_session *s)
{
    s->again = HF_NEVER;
    if (s->state == HF_PG_CLEARING || s->state == HF_PG_RESOLVING)
        hf_pg_recover_again(s);
}

void hf_pg_session_step(struct hf_pg_session *s, hf_time now)
{
    s->now = now;
    if (now >= s->again)
        poll_again(s);
    if (now >= s->deadline)
        timed_out(s);
    if (s->state != HF_PG_ENDED)
        hf_pg_pump(s);
}

hf_time hf_pg_session_deadline(const struct hf_pg_session *s)
{
    return hf_time_min(s->deadline, s->again);
}

void hf_pg_session_info(const struct hf_pg_session *s, struct hf_pg_session_info *ret_info)
{
    uint32_t reasons = session_reasons(s);
    for (uint32_t i = 0; i < s->n_units; i++)
        reasons |= s->unit[(s->unit_head + i) % UNITS_MAX].reasons;
    *ret_info = (struct hf_pg_session_info){
        .state = s->state,
        .tx = s->tx,
        .active = s->n_waiting != 0 || s->n_open,
        .at_rest = hf_pg_at_rest(s),
        .reasons = reasons,
        .n_requests = s->n_requests,
        .n_transactions = s->n_transactions,
        .n_moves = s->n_moves,
        .n_recoveries = s->n_recoveries,
        .n_replays = s->n_replays,
        .log_bytes = s->log.n,
        .n_prepared = (uint32_t)s->prepared.n,
        .n_listens = s->n_listens,
        .n_settings = s->n_settings,
        .xid = s->xid,
        .since = s->since,
    };
}
