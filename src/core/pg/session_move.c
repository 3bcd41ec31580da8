/* Planned moves: look at the session, make the spare the same, change over. */
#include <stdio.h>

#include "core/pg/session_impl.h"

#define STICKY_STAYS HF_PG_REASONS_STICKY

bool hf_pg_at_rest(const struct hf_pg_session *s)
{
    return s->state == HF_PG_RUNNING && s->n_units == 0 && s->tx == 'I' && !s->copying &&
           !s->skipping && !s->cancelling && s->commit == COMMIT_NONE && !s->client_stream &&
           !s->server_stream && !s->verdict.set && !s->n_waiting && !s->n_open;
}

/* Begin a move that was asked for, if this is a safe point (R1). */
void hf_pg_move_try(struct hf_pg_session *s)
{
    bool rehearse = s->conf->rehearse_moves && s->since_move >= s->conf->rehearse_moves;
    if ((!s->move_asked && !rehearse) || s->step != STEP_NONE || s->move_looking ||
        !hf_pg_at_rest(s) || s->look || s->looking)
        return;
    s->since_move = 0;
    if (s->sticky & STICKY_STAYS) {
        if (!s->move_asked)
            return;
        if (s->now < s->move_deadline)
            return; /* it may go: a temporary table is dropped, a cursor closed */
        hf_pg_move_failed(s, "the session is not movable");
        return;
    }
    s->move_asked = true;
    if (s->move_deadline <= s->now)
        s->move_deadline = s->now + s->conf->move_timeout;
    s->move_began = s->now;
    s->deadline = s->move_deadline;
    s->move_looking = true;
    hf_pg_enter_state(s, HF_PG_MOVING);
    hf_pg_look(s);
}

void hf_pg_move_observed(struct hf_pg_session *s)
{
    s->move_looking = false;
    if (s->sticky & STICKY_STAYS) {
        hf_pg_enter_state(s, HF_PG_RUNNING);
        s->deadline = s->move_deadline;
        return; /* tried again later */
    }
    s->step_side = HF_PG_SPARE;
    s->marker_old = s->marker_new = s->n_listens == 0;
    s->needed[HF_PG_SPARE] = true;
    s->ops.need(s->arg, HF_PG_SPARE);
}

static void marker_sql(struct hf_pg_session *s, const char *verb, char *buf, size_t n)
{
    snprintf(buf, n, "%s \"holdfast move %llx\"", verb, (unsigned long long)s->seed);
}

void hf_pg_move_failed(struct hf_pg_session *s, const char *why)
{
    hf_pg_note(s, HF_PG_NOTE_MOVE_FAILED, 0, 0, why);
    s->move_asked = s->move_looking = false;
    s->move_deadline = 0;
    s->step = STEP_NONE;
    s->step_side = HF_PG_SERVER;
    s->deadline = HF_NEVER;
    if (s->needed[HF_PG_SPARE] || s->spare_attached) {
        s->needed[HF_PG_SPARE] = s->spare_attached = false;
        s->ops.drop(s->arg, HF_PG_SPARE);
    }
    hf_buf_fini(&s->early);
    hf_pg_answer_reset(s);
    if (s->state == HF_PG_MOVING)
        hf_pg_enter_state(s, HF_PG_RUNNING);
}

static void change_over(struct hf_pg_session *s)
{
    s->ops.drop(s->arg, HF_PG_SERVER);
    s->ops.swap(s->arg);
    s->spare_attached = false;
    hf_pg_answer_reset(s); /* the spare's; the next is the token query's */
    s->pid = s->backend.pid;
    s->port = s->backend.port;
    s->incarnation = s->backend.incarnation;
    s->attached_at = s->spare_at;
    s->step = STEP_NONE;
    s->step_side = HF_PG_SERVER;
    s->move_asked = false;
    s->move_deadline = 0;
    s->deadline = HF_NEVER;
    s->n_moves++;
    if (s->unnamed)
        s->unnamed_lost = true;
    hf_pg_status_compare(s, hf_buf_slice(&s->new_status));
    if (s->early.n)
        s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&s->early));
    hf_buf_fini(&s->early);
    hf_pg_enter_state(s, HF_PG_RUNNING);
    hf_pg_note(s, HF_PG_NOTE_MOVED, (uint64_t)(s->now - s->move_began), 0, NULL);
}

/*
 * X12. The order of notifications is the same for all listeners of a database, so a marker in it
 * tells where the old connection's stream ends and the new one's begins: both listen to a channel
 * of their own; what comes to the old one before it is delivered, what comes to the new one before
 * it is not.
 *
 * restored -> LISTEN marker on old -> LISTEN marker on new -> NOTIFY on new -> seen on both ->
 * UNLISTEN on new -> change over
 */
void hf_pg_move_step(struct hf_pg_session *s, char status)
{
    char sql[80];
    (void)status;
    if (s->n_listens == 0 || s->step == STEP_UNLISTEN) {
        change_over(s);
        return;
    }
    if (s->step == STEP_NONE) { /* restored */
        marker_sql(s, "LISTEN", sql, sizeof(sql));
        s->step = STEP_LISTEN;
        s->step_side = HF_PG_SERVER;
        hf_pg_ask_query(s, HID_STEP, hf_slice_str(sql));
        s->step_side = HF_PG_SPARE;
        return;
    }
    if (s->step == STEP_LISTEN) {
        char both[200];
        marker_sql(s, "LISTEN", sql, sizeof(sql));
        int n = snprintf(both, sizeof(both), "%s;", sql);
        marker_sql(s, "NOTIFY", both + n, sizeof(both) - (size_t)n);
        hf_pg_answer_reset(s);
        hf_pg_step_ask(s, STEP_MARKER, hf_slice_str(both));
        return;
    }
    if (s->step == STEP_MARKER && s->marker_old && s->marker_new) {
        marker_sql(s, "UNLISTEN", sql, sizeof(sql));
        hf_pg_step_ask(s, STEP_UNLISTEN, hf_slice_str(sql));
    }
}

bool hf_pg_is_marker(const struct hf_pg_session *s, struct hf_slice body)
{
    char name[64];
    struct hf_rd r;
    hf_rd_init(&r, body);
    hf_rd_u32(&r);
    struct hf_slice channel = hf_pg_rd_cstr(&r);
    snprintf(name, sizeof(name), "holdfast move %llx", (unsigned long long)s->seed);
    return hf_slice_eq(channel, hf_slice_str(name));
}

bool hf_pg_move_marker(struct hf_pg_session *s, enum hf_pg_side side, struct hf_slice body)
{
    if (!hf_pg_is_marker(s, body))
        return false;
    bool *seen = side == HF_PG_SERVER ? &s->marker_old : &s->marker_new;
    if (!*seen) {
        *seen = true;
        if (s->spare_idle)
            hf_pg_move_step(s, 'I');
    }
    return true;
}

/* A whole message from the spare: answers to the steps, notifications that come early. */
static void spare_take(struct hf_pg_session *s, uint8_t type, struct hf_slice message)
{
    struct hf_slice name, value,
        body = hf_slice(message.p + HF_PG_HEAD_LEN, message.n - HF_PG_HEAD_LEN);
    switch (type) {
    case HF_PG_READY:
        s->spare_idle = true;
        hf_pg_step_done(s, body.n ? (char)body.p[0] : 'E');
        break;
    case HF_PG_PARAMETER_STATUS:
        if (hf_pg_status_read(body, &name, &value) == 0)
            hf_pg_param_set(&s->new_status, name, value);
        break;
    case HF_PG_NOTIFICATION:
        if (s->marker_new && s->n_listens) { /* after the marker: the old one has not got it */
            hf_buf_add(&s->early, message);
        } else {
            hf_pg_move_marker(s, HF_PG_SPARE, body);
        }
        break;
    default:
        hf_pg_step_message(s, type, body);
        break;
    }
}

size_t hf_pg_spare_bytes(struct hf_pg_session *s, struct hf_slice in)
{
    struct hf_pg_head head;
    int r = hf_pg_head_read(in, &head);
    if (r == -HF_ETRUNC)
        return 0;
    size_t len = (size_t)head.body_len + HF_PG_HEAD_LEN;
    if (r || len > 4 * HF_PG_WHOLE_MAX) {
        hf_pg_move_failed(s, "the other server does not follow the protocol");
        return in.n;
    }
    if (in.n < len)
        return 0;
    spare_take(s, head.type, hf_slice(in.p, len));
    return len;
}
