/* Glue between a session core and its connections: what it sends, needs, drops and tells. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/behind.h"
#include "pg/cancel.h"
#include "pg/client.h"
#include "pg/console.h"
#include "pg/names.h"
#include "pg/protect.h"
#include "pg/route.h"
#include "pg/rules.h"
#include "pg/warm.h"

#define CANCEL_KEY_3_0 4

static struct hf_pg_seating *seat_of(struct hf_pg_client *c, enum hf_pg_side side)
{
    return c->seat[0].side == side ? &c->seat[0] : &c->seat[1];
}

static void later(struct hf_pg_client *c)
{
    hf_poll_task_add(c->pg->wire->poll, &c->task);
}

/* ---- what the session asks for: never answered from within ---- */

static void op_send(void *arg, enum hf_pg_side to, struct hf_slice bytes)
{
    struct hf_pg_client *c = arg;
    hf_pg_protect_touch(c);
    if (to == HF_PG_CLIENT) {
        c->database->stats.sent += bytes.n;
        hf_pg_link_send(&c->link, bytes);
        return;
    }
    struct hf_pg_seating *s = seat_of(c, to);
    if (s->conn) {
        hf_pg_link_send(&s->conn->link, bytes);
    }
}

static void op_need(void *arg, enum hf_pg_side side)
{
    struct hf_pg_client *c = arg;
    c->need[side] = true;
    later(c);
}

/* The seat is free again. */
static void give_up(struct hf_pg_seating *s)
{
    struct hf_pg_client *c = s->client;
    if (s->wanted || s->conn) {
        uint64_t lost = hf_pg_route_leave(c->pg->route, s);
        c->lost = s->side == HF_PG_SERVER ? lost : c->lost;
    }
    hf_pg_sconn_close(s->conn);
    s->conn = NULL;
    s->wanted = s->attached = false;
}

static void op_drop(void *arg, enum hf_pg_side side)
{
    struct hf_pg_client *c = arg;
    c->need[side] = false;
    give_up(seat_of(c, side));
    later(c); /* who called is not told any more: the session may want bytes again */
}

static void op_swap(void *arg)
{
    struct hf_pg_client *c = arg;
    for (size_t i = 0; i < HF_ARRAY_LEN(c->seat); i++) {
        c->seat[i].side = c->seat[i].side == HF_PG_SERVER ? HF_PG_SPARE : HF_PG_SERVER;
    }
}

static void op_end(void *arg)
{
    struct hf_pg_client *c = arg;
    c->ended = true;
    later(c);
}

/* ---- what it tells ---- */

static void count(struct hf_pg_client *c, enum hf_pg_note note, uint64_t a, uint64_t b)
{
    struct hf_pg_counters *n = &c->pg->counters;
    struct hf_pg_stats *s = &c->database->stats;
    switch (note) {
    case HF_PG_NOTE_REQUEST:
        s->query_count++;
        s->query_time += a;
        hf_pg_histogram_add(&s->query, a);
        break;
    case HF_PG_NOTE_TRANSACTION:
        s->xact_count++;
        s->xact_time += a;
        hf_pg_histogram_add(&s->xact, a);
        break;
    case HF_PG_NOTE_MOVED:
        n->moves++;
        break;
    case HF_PG_NOTE_MOVE_FAILED:
        n->moves_failed++;
        break;
    case HF_PG_NOTE_RECOVERED:
        n->recoveries++;
        break;
    case HF_PG_NOTE_REPLAYED:
        n->replays++;
        break;
    case HF_PG_NOTE_REPLAY_FAILED:
        n->replays_failed++;
        break;
    case HF_PG_NOTE_IN_DOUBT:
        n->in_doubt++;
        break;
    case HF_PG_NOTE_COMMITTED:
        n->in_doubt_committed++;
        break;
    case HF_PG_NOTE_ABORTED:
        n->in_doubt_aborted++;
        break;
    case HF_PG_NOTE_UNRESOLVED:
        n->in_doubt_unresolved++;
        break;
    case HF_PG_NOTE_LOST_UNPROTECTED:
        n->lost_unprotected++;
        break;
    case HF_PG_NOTE_GAP:
        n->notification_gaps++;
        break;
    case HF_PG_NOTE_UNPROTECTED:
    case HF_PG_NOTE_ENDED:
        break;
    }
    (void)b;
}

/* One line of the log: what happened to the session. */
static void describe(enum hf_pg_note note, uint64_t a, uint64_t b, const char *text, char *buf,
                     size_t n)
{
    unsigned long long x = a, y = b;
    switch (note) {
    case HF_PG_NOTE_MOVED:
        snprintf(buf, n, "moved to another server connection in %llu us", x / 1000);
        break;
    case HF_PG_NOTE_MOVE_FAILED:
        snprintf(buf, n, "not moved, stays where it is: %s", text);
        break;
    case HF_PG_NOTE_RECOVERED:
        snprintf(buf, n, "goes on on another server connection, %llu ms after the loss",
                 x / 1000000);
        break;
    case HF_PG_NOTE_REPLAYED:
        snprintf(buf, n,
                 "replayed %llu requests of its transaction; %llu bytes of results are the same", x,
                 y);
        break;
    case HF_PG_NOTE_REPLAY_FAILED:
        snprintf(buf, n, "its transaction can't be replayed (40001): %s", text);
        break;
    case HF_PG_NOTE_IN_DOUBT:
        snprintf(buf, n, "the commit of transaction %llu was interrupted", x);
        break;
    case HF_PG_NOTE_COMMITTED:
        snprintf(buf, n, "transaction %llu had been committed", x);
        break;
    case HF_PG_NOTE_ABORTED:
        snprintf(buf, n, "transaction %llu had not been committed: it is replayed", x);
        break;
    case HF_PG_NOTE_UNRESOLVED:
        snprintf(buf, n, "the outcome of transaction %llu can't be known (08007): %s", x, text);
        break;
    case HF_PG_NOTE_LOST_UNPROTECTED:
        snprintf(buf, n, "lost with its server: %s", text);
        break;
    case HF_PG_NOTE_GAP:
        snprintf(buf, n, "may have missed notifications on %llu channels", x);
        break;
    case HF_PG_NOTE_REQUEST:
    case HF_PG_NOTE_TRANSACTION:
    case HF_PG_NOTE_UNPROTECTED:
    case HF_PG_NOTE_ENDED:
        snprintf(buf, n, "%s", text);
        break;
    }
}

static void op_note(void *arg, enum hf_pg_note note, uint64_t a, uint64_t b, const char *text)
{
    struct hf_pg_client *c = arg;
    char name[HF_PG_CLIENT_NAME_LEN];
    count(c, note, a, b);
    switch (note) {
    case HF_PG_NOTE_REQUEST:
    case HF_PG_NOTE_TRANSACTION:
    case HF_PG_NOTE_UNPROTECTED:
        return;
    case HF_PG_NOTE_ENDED:
        snprintf(c->why, sizeof(c->why), "%s", text ? text : "");
        return;
    case HF_PG_NOTE_RECOVERED:
        hf_pg_route_recovered(c->pg->route, seat_of(c, HF_PG_SERVER));
        break;
    case HF_PG_NOTE_MOVED:
        hf_pg_route_moved(c->pg->route, seat_of(c, HF_PG_SERVER), true);
        break;
    case HF_PG_NOTE_MOVE_FAILED:
        hf_pg_route_moved(c->pg->route, seat_of(c, HF_PG_SERVER), false);
        break;
    case HF_PG_NOTE_REPLAYED:
    case HF_PG_NOTE_REPLAY_FAILED:
    case HF_PG_NOTE_IN_DOUBT:
    case HF_PG_NOTE_COMMITTED:
    case HF_PG_NOTE_ABORTED:
    case HF_PG_NOTE_UNRESOLVED:
    case HF_PG_NOTE_LOST_UNPROTECTED:
    case HF_PG_NOTE_GAP:
        break;
    }
    char line[320];
    describe(note, a, b, text ? text : "", line, sizeof(line));
    hf_log_info(hf_pg_client_name(c, name, sizeof(name)), "%s", line);
}

static const struct hf_pg_session_ops session_ops = {
    .send = op_send,
    .need = op_need,
    .drop = op_drop,
    .swap = op_swap,
    .end = op_end,
    .note = op_note,
};

/* ---- the client's side ---- */

/* A side is not read while much waits for the other one. */
static void pressure(struct hf_pg_client *c)
{
    bool slow_client = hf_pg_link_waiting(&c->link) > HF_PG_PRESSURE;
    bool slow_server = false;
    bool full = c->shield && hf_pg_protect_full(c->pg->protect);
    for (size_t i = 0; i < HF_ARRAY_LEN(c->seat); i++) {
        struct hf_pg_sconn *conn = c->seat[i].conn;
        if (conn && c->seat[i].attached) {
            slow_server = slow_server || hf_pg_link_waiting(&conn->link) > HF_PG_PRESSURE;
            hf_pg_link_pause(&conn->link, slow_client || full);
        }
    }
    hf_pg_link_pause(
        &c->link, slow_server || full ||
                      (c->link.in.n > HF_PG_PRESSURE && !hf_pg_session_wants_client(c->session)));
}

static hf_time idle_deadline(const struct hf_pg_client *c)
{
    const struct hf_pg_config *conf = c->pg->config;
    int64_t a = conf->pg.idle_timeout_ms, b = conf->pg.idle_in_transaction_timeout_ms;
    int64_t least = !a ? b : !b || a < b ? a : b;
    return least ? c->active_at + HF_MS(least) : HF_NEVER;
}

/* The timer may be early, never late: most messages change nothing. */
static void rearm(struct hf_pg_client *c)
{
    hf_time at = hf_time_min(hf_pg_session_deadline(c->session), idle_deadline(c));
    if (at < (c->timer.pos ? c->timer.at : HF_NEVER)) {
        hf_poll_timer_set(c->pg->wire->poll, &c->timer, at);
    }
}

size_t hf_pg_client_session_bytes(struct hf_pg_client *c, struct hf_slice bytes)
{
    if (c->ended || !c->session) {
        return c->ended ? bytes.n : 0;
    }
    hf_time now = hf_pg_now(c->pg);
    c->active_at = now;
    hf_pg_protect_touch(c);
    size_t n = hf_pg_session_from_client(c->session, bytes, now);
    c->database->stats.received += n;
    return n;
}

void hf_pg_client_touched(struct hf_pg_client *c, bool by_client)
{
    hf_pg_protect_touch(c);
    if (!c->session || c->ended) {
        return;
    }
    if (!by_client && c->link.in.n && hf_pg_session_wants_client(c->session)) {
        hf_pg_link_again(&c->link); /* comes back here */
        return;
    }
    pressure(c);
    rearm(c);
}

/* idle_timeout and idle_in_transaction_timeout. */
static void check_idle(struct hf_pg_client *c, hf_time now)
{
    const struct hf_pg_config *conf = c->pg->config;
    struct hf_pg_session_info info;
    hf_pg_session_info(c->session, &info);
    if (info.active || info.state != HF_PG_RUNNING) {
        c->active_at = now;
        return;
    }
    int64_t limit =
        info.tx == 'I' ? conf->pg.idle_timeout_ms : conf->pg.idle_in_transaction_timeout_ms;
    if (!limit || now - c->active_at < HF_MS(limit)) {
        return;
    }
    if (info.tx == 'I') {
        hf_pg_session_kill(c->session, "57P05",
                           "terminating connection due to idle-session timeout", now);
    } else {
        hf_pg_session_kill(c->session, "25P03",
                           "terminating connection due to idle-in-transaction timeout", now);
    }
}

void hf_pg_client_due(struct hf_pg_client *c, hf_time now)
{
    if (!c->session || c->ended) {
        return;
    }
    if (hf_pg_session_deadline(c->session) <= now) {
        hf_pg_session_step(c->session, now);
    }
    if (!c->ended && idle_deadline(c) <= now) {
        check_idle(c, now);
        if (!c->ended && idle_deadline(c) <= now) { /* the other one's limit: look again then */
            int64_t a = c->pg->config->pg.idle_timeout_ms;
            int64_t b = c->pg->config->pg.idle_in_transaction_timeout_ms;
            hf_poll_timer_set(c->pg->wire->poll, &c->timer, now + HF_MS(a > b ? a : b) / 2);
            return;
        }
    }
    hf_pg_client_touched(c, false);
}

/* ---- begin and end ---- */

static bool over(int64_t limit, uint64_t n)
{
    return limit > 0 && n >= (uint64_t)limit;
}

/* A limit that is reached, in PostgreSQL's or PgBouncer's words; NULL: none. */
static const char *limit_reached(struct hf_pg_client *c)
{
    const struct hf_pg *pg = c->pg;
    if (pg->stopping) {
        return "the database system is shutting down";
    }
    if (over(pg->config->pg.max_clients, pg->n_clients - 1)) {
        return "sorry, too many clients already";
    }
    if (over(pg->config->pg.max_clients_per_user, c->user->n_clients)) {
        return "too many connections for role";
    }
    if (over(pg->config->pg.max_clients_per_database, c->database->n_clients)) {
        return "too many connections for database";
    }
    if (pg->memory.used >= pg->memory.max) {
        return "sorry, too many clients already: max_memory is used up";
    }
    return NULL;
}

static bool refuse_limit(struct hf_pg_client *c)
{
    const char *why = limit_reached(c);
    if (!why) {
        return false;
    }
    c->pg->counters.clients_refused++;
    c->user = NULL;
    c->database = NULL; /* it is not counted there */
    hf_pg_client_fatal(c, c->pg->stopping ? "57P03" : "53300", why);
    return true;
}

/* What of the login the session needs for as long as it lives. */
static int keep_login(struct hf_pg_client *c)
{
    const struct hf_pg_login_result *r = hf_pg_login_result(c->login);
    c->params = hf_alloc(r->params.n + 1);
    if (!c->params) {
        return -1;
    }
    if (r->params.n) {
        memcpy(c->params, r->params.p, r->params.n);
    }
    c->n_params = r->params.n;
    c->replication = r->replication;
    c->version = r->version;
    const struct hf_pg_secret *s =
        r->secret && r->secret->kind != HF_PG_SECRET_NONE ? r->secret : NULL;
    if (!s && c->rules->users) { /* trust, cert, peer: what the file has (X13) */
        s = hf_pg_userlist_get(c->rules->users, r->user, c->rules->login.key);
    }
    if (s) {
        c->secret = hf_alloc(sizeof(*c->secret));
        if (!c->secret) {
            return -1;
        }
        *c->secret = *s;
    }
    return 0;
}

/* PAUSE holds everybody, a switchover who writes; whichever ends first, the other one goes on. */
static void hold(struct hf_pg_client *c)
{
    if (c->pg->paused || (c->pg->leaving && c->slot) ||
        (hf_pg_route_holds(c->pg->route) && !c->read_only)) {
        (void)hf_pg_session_freeze(c->session, hf_pg_now(c->pg));
    } else {
        hf_pg_session_thaw(c->session, hf_pg_now(c->pg));
    }
}

void hf_pg_clients_hold(struct hf_pg *pg)
{
    HF_LIST_FOREACH (node, &pg->clients) {
        struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        if (c->session && !c->ended) {
            hold(c);
            hf_pg_client_touched(c, false);
        }
    }
}

static struct hf_pg_session_args session_args(const struct hf_pg_client *c)
{
    struct hf_pg *pg = c->pg;
    return (struct hf_pg_session_args){
        .conf = &pg->session_conf,
        .memory = &pg->memory,
        .classifier = c->database->classifier,
        .user = hf_slice_str(c->user->name),
        .replication = c->replication != HF_PG_REPLICATION_NO,
        .login_again = true,
        .leave_idle = pg->behind != NULL,
        .cancel_key = hf_slice(c->cancel_key, c->n_cancel_key),
        .seed = pg->seed ^ c->id * 0x9e3779b97f4a7c15u,
    };
}

/* Its old server process */
static void end_former(struct hf_pg_client *c, uint64_t lost)
{
    struct hf_pg_backend former;
    if (hf_pg_session_former(c->session, &former)) {
        const struct hf_pg_backend_told told = {
            .pid = former.pid, .port = former.port, .from = former.since, .to = former.since};
        hf_pg_behind_add(c->pg->behind, &told, lost, false);
    }
}

int hf_pg_client_load(struct hf_pg_client *c, const struct hf_pg_saved *saved, uint64_t lost)
{
    int rc = hf_pg_names_use(c->pg, c->database);
    if (rc) {
        return rc;
    }
    struct hf_pg_session_args args = session_args(c);
    c->lost = lost;
    rc = hf_pg_session_load(&args, &session_ops, c, saved, hf_pg_now(c->pg), &c->session);
    if (rc == 0) {
        end_former(c, lost);
    }
    if (rc == 0 && !c->ended) {
        hold(c);
        rearm(c);
    }
    later(c);
    return rc;
}

static int create_session(struct hf_pg_client *c)
{
    struct hf_pg *pg = c->pg;
    c->n_cancel_key = c->version >= HF_PG_VERSION_3_2 ? sizeof(c->cancel_key) : CANCEL_KEY_3_0;
    if (getrandom(c->cancel_key, sizeof(c->cancel_key), 0) < 0 ||
        hf_pg_names_use(pg, c->database)) {
        return -1;
    }
    struct hf_pg_session_args args = session_args(c);
    int rc = hf_pg_session_create(&args, &session_ops, c, hf_pg_now(pg), &c->session);
    if (rc == 0) {
        hold(c);
    }
    return rc;
}

void hf_pg_client_begin(struct hf_pg_client *c)
{
    const struct hf_pg_login_result *r = hf_pg_login_result(c->login);
    c->pg->counters.logins++;
    if (hf_pg_console_is(r->database)) {
        hf_pg_console_begin(c);
        return;
    }
    c->user = hf_pg_user(c->pg, r->user);
    c->database = hf_pg_database(c->pg, r->database.n ? r->database : r->user);
    if (!c->user || !c->database || refuse_limit(c)) {
        if (c->phase != HF_PG_PHASE_CLOSING) {
            hf_pg_client_fatal(c, "53200", "out of memory");
        }
        return;
    }
    c->user->n_clients++;
    c->database->n_clients++;
    c->phase = HF_PG_PHASE_SESSION;
    hf_poll_timer_set(c->pg->wire->poll, &c->timer, HF_NEVER);
    if (keep_login(c) || create_session(c)) {
        hf_pg_client_fatal(c, "53200", "out of memory");
        return;
    }
    hf_pg_protect_begin(c);
    rearm(c);
    later(c); /* frees the login, which is on the stack */
}

void hf_pg_client_part(struct hf_pg_client *c, hf_time at)
{
    struct hf_pg_session_info info;
    struct hf_pg_seating *s = seat_of(c, HF_PG_SERVER);
    if (!c->session || !s->attached || !s->conn) {
        return;
    }
    hf_pg_session_info(c->session, &info);
    if (info.active || info.tx != 'I') {
        return;
    }
    struct hf_pg_sconn *conn = s->conn;
    (void)hf_pg_route_leave(c->pg->route, s);
    s->conn = NULL;
    s->attached = false;
    hf_pg_sconn_part(conn, at);
}

void hf_pg_client_release(struct hf_pg_client *c)
{
    c->need[HF_PG_SERVER] = c->need[HF_PG_SPARE] = false;
    give_up(&c->seat[0]);
    give_up(&c->seat[1]);
    hf_pg_cancel_forget(c);
    hf_pg_session_destroy(c->session);
    c->session = NULL;
    if (c->user && c->database) {
        c->user->n_clients--;
        c->database->n_clients--;
    }
    c->user = NULL;
    c->database = NULL;
}

/* ---- servers ---- */

/* Who has not begun has lost nothing: it would never say that it has recovered, and a switchover
 * that waits for that would hold everybody. */
static uint64_t lost(const struct hf_pg_client *c)
{
    struct hf_pg_session_info info;
    hf_pg_session_info(c->session, &info);
    return info.state == HF_PG_STARTING ? 0 : c->lost;
}

void hf_pg_client_serve(struct hf_pg_client *c)
{
    if (c->phase == HF_PG_PHASE_SESSION && c->login) {
        hf_pg_login_destroy(c->login);
        c->login = NULL;
        hf_pg_rules_unref(c->rules);
        c->rules = NULL;
    }
    for (int side = HF_PG_SERVER; side <= HF_PG_SPARE; side++) {
        struct hf_pg_seating *s = seat_of(c, (enum hf_pg_side)side);
        if (!c->need[side] || c->ended) {
            continue;
        }
        c->need[side] = false;
        s->wanted = true;
        s->since = hf_pg_now(c->pg);
        if (hf_pg_route_need(c->pg->route, s, side == HF_PG_SERVER ? lost(c) : 0)) {
            hf_pg_client_refuse(s, "53200", "out of memory");
        }
    }
    if (c->ended && c->phase == HF_PG_PHASE_SESSION) {
        hf_pg_client_close(c, *c->why ? c->why : "client close request");
    } else if (c->phase == HF_PG_PHASE_SESSION) {
        hf_pg_client_touched(c, false);
    }
}

static size_t sconn_bytes(struct hf_pg_sconn *conn, struct hf_slice bytes)
{
    struct hf_pg_seating *s = conn->owner;
    struct hf_pg_client *c = s->client;
    if (!s->attached || c->ended) {
        return c->ended ? bytes.n : 0;
    }
    hf_time now = hf_pg_now(c->pg);
    size_t done = 0, n;
    c->active_at = now;
    do { /* again: with a move's last answer the spare became the server, and stopped there */
        struct hf_slice rest = hf_slice(bytes.p + done, bytes.n - done);
        n = hf_pg_session_from_server(c->session, s->side, rest, now);
        done += n;
    } while (n && done < bytes.n && s->attached && !c->ended);
    return done;
}

static void sconn_after(struct hf_pg_sconn *conn)
{
    hf_pg_client_touched(((struct hf_pg_seating *)conn->owner)->client, false);
}

static void sconn_ready(struct hf_pg_sconn *conn)
{
    struct hf_pg_seating *s = conn->owner;
    hf_pg_route_seated(s->client->pg->route, s);
}

/* Is it the server's state that is wrong, and not what the client asked for? goes_on: that it has
 * no more places is, too: some are those of its lost connections still. */
static bool server_at_fault(const struct hf_pg_connect_error *e, bool goes_on)
{
    if (!e) {
        return true;
    }
    if (e->from_server) {
        return (goes_on && strcmp(e->sqlstate, "53300") == 0) ||
               strncmp(e->sqlstate, "57P", 3) == 0 || strncmp(e->sqlstate, "08", 2) == 0 ||
               strncmp(e->sqlstate, "XX", 2) == 0;
    }
    return e->code != -HF_EAUTH && e->code != -HF_EVALUE;
}

static void sconn_failed(struct hf_pg_sconn *conn, const char *why)
{
    struct hf_pg_seating *s = conn->owner;
    struct hf_pg_client *c = s->client;
    const struct hf_pg_connect_error *e = conn->connect ? hf_pg_connect_error(conn->connect) : NULL;
    char name[HF_PG_CLIENT_NAME_LEN];
    hf_log_warn(hf_pg_client_name(c, name, sizeof(name)), "login to server %s failed: %s",
                conn->target->name, why);
    s->conn = NULL;
    if (server_at_fault(e, s->side == HF_PG_SERVER && c->lost != 0)) {
        hf_pg_route_login_failed(c->pg->route, s);
        return;
    }
    hf_pg_route_leave(c->pg->route, s);
    s->wanted = false;
    if (s->side == HF_PG_SPARE) {
        hf_pg_session_no_spare(c->session, why, hf_pg_now(c->pg));
    } else {
        hf_pg_session_refuse(c->session, e->sqlstate, e->message, *e->detail ? e->detail : NULL,
                             hf_pg_now(c->pg));
    }
    hf_pg_client_touched(c, false);
}

static void sconn_gone(struct hf_pg_sconn *conn, const char *why)
{
    hf_pg_client_server_gone(conn->owner, why);
}

static const struct hf_pg_sconn_ops sconn_ops = {
    .ready = sconn_ready,
    .failed = sconn_failed,
    .bytes = sconn_bytes,
    .after = sconn_after,
    .room = sconn_after,
    .gone = sconn_gone,
};

/* A connection that is logged in already, or about to be. */
static bool take_warm(struct hf_pg_seating *s, const struct hf_pg_target *target,
                      uint64_t incarnation)
{
    struct hf_pg *pg = s->client->pg;
    hf_time ready_at;
    if (!pg->warm || s->side != HF_PG_SERVER) {
        return false;
    }
    s->conn = hf_pg_warm_take(pg->warm, s->client, target, incarnation, &sconn_ops, s, &ready_at);
    if (s->conn && ready_at < s->since) {
        hf_pg_route_seated_before(pg->route, s);
    } else if (s->conn && ready_at != HF_NEVER) {
        sconn_ready(s->conn);
    }
    return s->conn != NULL;
}

void hf_pg_client_login_at(struct hf_pg_seating *s, struct hf_pg_target *target,
                           uint64_t incarnation)
{
    struct hf_pg_client *c = s->client;
    if (take_warm(s, target, incarnation)) {
        return;
    }
    struct hf_pg_connect_args args = {
        .version = c->replication ? 0 : c->version,
        .user = hf_slice_str(c->user->name),
        .database = hf_slice_str(c->database->name),
        .params = hf_slice(c->params, c->n_params),
        .replication = c->replication == HF_PG_REPLICATION_PHYSICAL  ? "true"
                       : c->replication == HF_PG_REPLICATION_LOGICAL ? "database"
                                                                     : NULL,
        .secret = c->secret,
        .cleartext = *target->host == '/' || c->pg->rules->server_sslmode == HF_PG_SSLMODE_DISABLE,
        .deadline = hf_pg_now(c->pg) + HF_MS(c->pg->config->pg.login_timeout_ms),
    };
    int rc = hf_pg_sconn_open(c->pg, target, &args, &sconn_ops, s, &s->conn);
    if (rc) {
        char name[HF_PG_CLIENT_NAME_LEN];
        hf_log_warn(hf_pg_client_name(c, name, sizeof(name)), "cannot connect to server %s: %s",
                    target->name, hf_strerror(rc));
        hf_pg_route_login_failed(c->pg->route, s);
    }
}

void hf_pg_client_attach(struct hf_pg_seating *s, struct hf_pg_backend *backend)
{
    struct hf_pg_client *c = s->client;
    const struct hf_pg_connect_result *r = hf_pg_connect_result(s->conn->connect);
    hf_time now = hf_pg_now(c->pg);
    s->attached = true;
    s->wanted = false;
    backend->pid = r->pid;
    backend->port = s->conn->port;
    backend->since = s->conn->ready_at;
    backend->params = r->params;
    hf_pg_protect_attached(c, s);
    if (!c->n_cancel_id && s->side == HF_PG_SERVER) {
        hf_pg_cancel_remember(c, r->pid);
    }
    c->database->stats.wait_time += (uint64_t)(now - s->since);
    if (c->shield) { /* X1: what takes effect there is known to the backup first */
        hf_pg_link_hold(&s->conn->link);
    }
    hf_pg_session_attach(c->session, s->side, backend, now);
    hf_pg_wire_flush(c->pg->wire);
    if (s->conn) {
        hf_pg_sconn_settle(s->conn);
    }
    hf_pg_client_touched(c, false);
}

void hf_pg_client_refuse(struct hf_pg_seating *s, const char *sqlstate, const char *why)
{
    struct hf_pg_client *c = s->client;
    s->wanted = false;
    if (!c->session || c->ended) {
        return;
    }
    if (s->side == HF_PG_SPARE) {
        hf_pg_session_no_spare(c->session, why, hf_pg_now(c->pg));
    } else {
        hf_pg_session_refuse(c->session, sqlstate, why, NULL, hf_pg_now(c->pg));
    }
    hf_pg_client_touched(c, false);
}

void hf_pg_client_server_gone(struct hf_pg_seating *s, const char *why)
{
    struct hf_pg_client *c = s->client;
    bool attached = s->attached;
    char name[HF_PG_CLIENT_NAME_LEN];
    hf_log_info(hf_pg_client_name(c, name, sizeof(name)), "server connection to %s lost: %s",
                s->conn ? s->conn->target->name : "?", why);
    if (!attached) { /* logged in, but not yet the session's: from the beginning */
        hf_pg_sconn_close(s->conn);
        s->conn = NULL;
        hf_pg_route_login_failed(c->pg->route, s);
        return;
    }
    enum hf_pg_side side = s->side;
    give_up(s);
    if (c->session && !c->ended) {
        hf_pg_session_server_gone(c->session, side, why, hf_pg_now(c->pg));
        hf_pg_client_touched(c, false);
    }
}
