/* Seats on PostgreSQL servers: the gate, the window, moves, balance, planned switchover. */
#include "core/pg/servers_impl.h"

#include <errno.h>

#include "base/err.h"
#include "base/names.h"

#define RETRY_LOGIN HF_MS(100) /* after a login that failed though the server answers probes */
#define RETRY_MOVE HF_S(5)     /* after a move that failed */

enum { RECOVERING, OTHERS }; /* the two queues of an endpoint */

HF_NAMES(hf_pg_switch_state_name, enum hf_pg_switch_state, HF_PG_SWITCH_STATE_LIST)

enum hf_pg_switch_state hf_pg_servers_switch_state(const struct hf_pg_servers *s)
{
    return s->switching;
}

static struct hf_pg_seat *seat_of(struct hf_list *n)
{
    return HF_CONTAINER_OF(n, struct hf_pg_seat, node);
}

void hf_pg_gate_init(struct hf_pg_servers *s, hf_time now)
{
    for (int e = 0; e < 2; e++) {
        hf_list_init(&s->queue[e][RECOVERING]);
        hf_list_init(&s->queue[e][OTHERS]);
    }
    s->next_gate = HF_NEVER;
    s->next_balance = now;
}

bool hf_pg_gate_is_open(const struct hf_pg_servers *s)
{
    return s->primary != HF_PG_SERVER_NONE && !s->server[s->primary].doubt &&
           (!s->conf.group || s->group_acts);
}

/* ---- seats ---- */

static void enqueue(struct hf_pg_servers *s, struct hf_pg_seat *seat)
{
    struct hf_list *q = &s->queue[seat->endpoint][seat->recovering ? RECOVERING : OTHERS];
    struct hf_list *at = q;
    /* who comes back finds its place near the front, a new one at the end */
    while (at->prev != q && seat_of(at->prev)->order > seat->order) {
        at = at->prev;
    }
    hf_list_insert(at, &seat->node);
    seat->state = HF_PG_SEAT_WAITING;
    s->n_waiting++;
}

/* Take the seat from wherever it is; it belongs to nothing then. */
static void detach(struct hf_pg_servers *s, struct hf_pg_seat *seat)
{
    struct hf_pg_server *v = &s->server[seat->server < HF_PG_SERVERS_MAX ? seat->server : 0];
    switch (seat->state) {
    case HF_PG_SEAT_NONE:
        return;
    case HF_PG_SEAT_WAITING:
        s->n_waiting--;
        break;
    case HF_PG_SEAT_LOGIN:
    case HF_PG_SEAT_CHECK:
        v->n_logins--;
        s->n_logins--;
        break;
    case HF_PG_SEAT_TAKEN:
        v->n_sessions--;
        s->n_moving -= seat->moving;
        seat->moving = false;
        break;
    }
    hf_list_unlink(&seat->node);
    seat->state = HF_PG_SEAT_NONE;
}

/* May a backend of this one's old connection live on somewhere? Nobody is let in before that is
 * known again (X6). */
static void look_after_loss(struct hf_pg_servers *s, uint64_t lost, hf_time now)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        if (s->server[i].incarnation == lost || i == s->primary) {
            hf_pg_servers_verify(s, i, true, now);
        }
    }
}

void hf_pg_servers_need(struct hf_pg_servers *s, struct hf_pg_seat *seat,
                        enum hf_pg_endpoint endpoint, bool spare, uint64_t lost, hf_time now)
{
    assert(seat->state == HF_PG_SEAT_NONE);
    *seat = (struct hf_pg_seat){
        .endpoint = endpoint,
        .spare = spare,
        .lost = lost,
        .recovering = lost != 0 && !spare && endpoint == HF_PG_READ_WRITE,
        .server = HF_PG_SERVER_NONE,
        .order = ++s->last_event,
        .since = now,
        .not_before = now,
        .asked = -HF_S(60),
    };
    hf_list_init(&seat->node);
    s->n_recovering += seat->recovering;
    enqueue(s, seat);
    if (lost != 0) {
        look_after_loss(s, lost, now);
    }
    if (!hf_pg_gate_is_open(s)) {
        s->count.held++;
        hf_pg_servers_schedule(s, now);
    }
}

/* at: an event after the login. */
static void seated(struct hf_pg_servers *s, struct hf_pg_seat *seat, uint64_t at, hf_time now)
{
    assert(seat->state == HF_PG_SEAT_LOGIN);
    struct hf_pg_server *v = &s->server[seat->server];
    seat->state = HF_PG_SEAT_CHECK;
    seat->since = now;
    seat->at = at;
    hf_list_unlink(&seat->node);
    hf_list_insert(&v->checking, &seat->node);
    if (v->verified < at) {
        hf_pg_servers_verify(s, seat->server, false, now);
        hf_pg_servers_schedule(s, now);
    }
}

void hf_pg_servers_seated(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now)
{
    seated(s, seat, ++s->last_event, now);
}

void hf_pg_servers_seated_before(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now)
{
    seated(s, seat, seat->order, now);
}

void hf_pg_servers_login_failed(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now)
{
    assert(seat->state == HF_PG_SEAT_LOGIN || seat->state == HF_PG_SEAT_CHECK);
    hf_pg_servers_verify(s, seat->server, true, now);
    detach(s, seat);
    seat->gone = false;
    seat->not_before = now + RETRY_LOGIN;
    seat->server = HF_PG_SERVER_NONE;
    s->count.logins_failed++;
    s->next_gate = hf_time_min(s->next_gate, seat->not_before);
    enqueue(s, seat);
}

static void end_recovery(struct hf_pg_servers *s, struct hf_pg_seat *seat)
{
    s->n_recovering -= seat->recovering;
    seat->recovering = false;
}

void hf_pg_servers_recovered(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now)
{
    (void)now;
    if (seat->state == HF_PG_SEAT_TAKEN) {
        end_recovery(s, seat);
    }
}

uint64_t hf_pg_servers_leave(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now)
{
    (void)now;
    if (seat->state == HF_PG_SEAT_NONE) {
        return seat->lost;
    }
    uint64_t lost = seat->state == HF_PG_SEAT_TAKEN ? seat->incarnation : seat->lost;
    end_recovery(s, seat);
    detach(s, seat);
    seat->lost = lost;
    return lost;
}

/* ---- what the session is told of its server ---- */

static bool find_fence(const struct hf_pg_servers *s, uint64_t after, uint64_t until,
                       uint64_t *ret_fence)
{
    uint64_t n = s->n_reigns < HF_PG_HISTORY_MAX ? s->n_reigns : HF_PG_HISTORY_MAX;
    uint64_t fence = UINT64_MAX;
    bool known = false; /* only from a reign of ours on none is missing */
    for (uint64_t i = 0; i < n; i++) {
        const struct hf_pg_reign *r = &s->reign[i];
        known |= r->incarnation == after;
        if (r->incarnation > after && r->incarnation <= until) {
            if (!r->fenced) {
                return false;
            }
            fence = r->fence < fence ? r->fence : fence;
        }
    }
    *ret_fence = fence;
    return known && fence != UINT64_MAX;
}

void hf_pg_servers_backend(const struct hf_pg_servers *s, const struct hf_pg_seat *seat,
                           struct hf_pg_backend *ret_backend)
{
    *ret_backend = (struct hf_pg_backend){
        .incarnation = seat->incarnation,
        .same = seat->lost == seat->incarnation,
        .exclusive = s->window && s->conf.exclusive,
    };
    if (seat->lost != 0 && seat->lost < seat->incarnation) {
        ret_backend->fenced = find_fence(s, seat->lost, seat->incarnation, &ret_backend->fence);
    }
}

/* ---- a new primary; the window ---- */

static void enter_switch(struct hf_pg_servers *s, enum hf_pg_switch_state to)
{
    static const uint8_t next[] = {
        [HF_PG_SWITCH_NONE] = 1u << HF_PG_SWITCH_FREEZING,
        [HF_PG_SWITCH_FREEZING] =
            1u << HF_PG_SWITCH_NONE | 1u << HF_PG_SWITCH_FROZEN | 1u << HF_PG_SWITCH_ATTACHING,
        [HF_PG_SWITCH_FROZEN] = 1u << HF_PG_SWITCH_NONE | 1u << HF_PG_SWITCH_ATTACHING,
        [HF_PG_SWITCH_ATTACHING] = 1u << HF_PG_SWITCH_NONE,
    };
    assert((next[s->switching] >> to & 1) != 0);
    hf_pg_servers_event(s, HF_PG_SERVER_NONE, false, "switchover: %s -> %s",
                        hf_pg_switch_state_name(s->switching), hf_pg_switch_state_name(to));
    s->switching = to;
}

void hf_pg_gate_opened(struct hf_pg_servers *s, bool fresh, hf_time now)
{
    uint32_t n_lost = s->n_recovering;
    HF_PG_SERVERS_EACH(s, i)
    {
        s->server[i].sweep = true;
        n_lost += s->server[i].n_sessions;
    }
    if (fresh && n_lost > 0) {
        s->window = true;
        s->window_end = now + s->conf.window;
    }
    bool held = s->switching == HF_PG_SWITCH_FREEZING || s->switching == HF_PG_SWITCH_FROZEN;
    if (held && s->server[s->primary].incarnation != s->switch_from) {
        enter_switch(s, HF_PG_SWITCH_ATTACHING);
    }
}

/* Why a seat that is taken can't stay, or NULL. */
static const char *gone(const struct hf_pg_servers *s, const struct hf_pg_server *v,
                        const struct hf_pg_seat *seat, hf_time now)
{
    if (v->removed) {
        return "the server is not in the list any more";
    }
    if (seat->incarnation != v->incarnation) {
        return "the server was started anew, or promoted";
    }
    if (seat->endpoint == HF_PG_READ_WRITE && s->primary != HF_PG_SERVER_NONE &&
        v != &s->server[s->primary]) {
        return "another server is the primary now";
    }
    if (seat->endpoint == HF_PG_READ_WRITE && s->promoting && v == &s->server[s->switch_old]) {
        return "another server is being promoted";
    }
    if (v->state != HF_PG_SERVER_DOWN) {
        return NULL;
    }
    if (seat->state != HF_PG_SEAT_TAKEN || seat->endpoint == HF_PG_READ_ONLY ||
        now - v->since >= s->conf.hold_timeout) {
        return "the server is down";
    }
    return NULL;
}

static bool sweep_list(struct hf_pg_servers *s, struct hf_pg_server *v, struct hf_list *list,
                       hf_time now, struct hf_pg_servers_out *out)
{
    HF_LIST_FOREACH (n, list) {
        struct hf_pg_seat *seat = seat_of(n);
        const char *why = seat->gone ? NULL : gone(s, v, seat, now);
        if (why != NULL) {
            seat->gone = true;
            *out = (struct hf_pg_servers_out){
                .kind = HF_PG_SERVERS_GONE, .seat = seat, .server = seat->server, .text = why};
            return true;
        }
    }
    return false;
}

static bool next_gone(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *out)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (v->sweep) {
            if (sweep_list(s, v, &v->checking, now, out) || sweep_list(s, v, &v->seats, now, out)) {
                return true;
            }
            v->sweep = false;
        }
    }
    return false;
}

/* ---- the gate ---- */

static bool takes_readers(const struct hf_pg_servers *s, const struct hf_pg_server *v)
{
    return v->used && !v->removed && !v->draining && !v->doubt && v->up &&
           v->state == HF_PG_SERVER_STANDBY &&
           (s->conf.lag_max == 0 || hf_pg_server_lag(s, v) <= s->conf.lag_max);
}

static uint32_t load(const struct hf_pg_server *v)
{
    return v->n_sessions + v->n_logins;
}

/* The least loaded standby for its weight; without any, the primary. */
static uint32_t server_for_reader(const struct hf_pg_servers *s)
{
    uint32_t best = HF_PG_SERVER_NONE;
    HF_PG_SERVERS_EACH(s, i)
    {
        const struct hf_pg_server *v = &s->server[i];
        if (!takes_readers(s, v)) {
            continue;
        }
        const struct hf_pg_server *b = &s->server[best == HF_PG_SERVER_NONE ? i : best];
        if (best == HF_PG_SERVER_NONE ||
            (uint64_t)(load(v) + 1) * b->weight < (uint64_t)(load(b) + 1) * v->weight) {
            best = i;
        }
    }
    if (best == HF_PG_SERVER_NONE && !s->conf.no_primary_reads && hf_pg_gate_is_open(s) &&
        !s->window) {
        best = s->primary;
    }
    return best;
}

/* The first of the queue that may log in now. */
static struct hf_pg_seat *first_ready(struct hf_pg_servers *s, struct hf_list *q, hf_time now)
{
    HF_LIST_FOREACH (n, q) {
        struct hf_pg_seat *seat = seat_of(n);
        if (seat->not_before <= now) {
            return seat;
        }
        s->next_gate = hf_time_min(s->next_gate, seat->not_before);
    }
    return NULL;
}

static bool grant(struct hf_pg_servers *s, struct hf_pg_seat *seat, uint32_t server,
                  struct hf_pg_servers_out *out)
{
    struct hf_pg_server *v = &s->server[server];
    detach(s, seat);
    seat->state = HF_PG_SEAT_LOGIN;
    seat->server = server;
    seat->incarnation = v->incarnation;
    v->n_logins++;
    s->n_logins++;
    hf_list_insert(&v->seats, &seat->node);
    *out = (struct hf_pg_servers_out){.kind = HF_PG_SERVERS_LOGIN, .seat = seat, .server = server};
    return true;
}

static bool next_login(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *out)
{
    if (s->n_waiting == 0 || s->n_logins >= s->conf.logins_max) {
        return false;
    }
    s->next_gate = HF_NEVER;
    for (int kind = RECOVERING; kind <= OTHERS; kind++) {
        struct hf_pg_seat *seat = NULL;
        if (hf_pg_gate_is_open(s) && (kind == RECOVERING || !s->window)) {
            seat = first_ready(s, &s->queue[HF_PG_READ_WRITE][kind], now);
            if (seat != NULL) {
                return grant(s, seat, s->primary, out);
            }
        }
        uint32_t reader = server_for_reader(s);
        if (reader != HF_PG_SERVER_NONE) {
            seat = first_ready(s, &s->queue[HF_PG_READ_ONLY][kind], now);
            if (seat != NULL) {
                return grant(s, seat, reader, out);
            }
        }
    }
    return false;
}

static bool next_attach(struct hf_pg_servers *s, struct hf_pg_servers_out *out)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        HF_LIST_FOREACH (n, &v->checking) {
            struct hf_pg_seat *seat = seat_of(n);
            if (v->verified < seat->at || seat->incarnation != v->incarnation) {
                continue;
            }
            detach(s, seat);
            seat->state = HF_PG_SEAT_TAKEN;
            v->n_sessions++;
            v->next_move = v->draining ? 0 : v->next_move;
            hf_list_insert(&v->seats, &seat->node);
            *out =
                (struct hf_pg_servers_out){.kind = HF_PG_SERVERS_ATTACH, .seat = seat, .server = i};
            return true;
        }
    }
    return false;
}

/* Who has waited too long; they are in order. */
static bool next_refuse(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *out)
{
    for (int k = 0; k < 4; k++) {
        struct hf_list *q = &s->queue[k / 2][k % 2];
        if (hf_list_empty(q)) {
            continue;
        }
        struct hf_pg_seat *seat = seat_of(q->next);
        if (now - seat->since >= s->conf.hold_timeout) {
            end_recovery(s, seat);
            detach(s, seat);
            s->count.hold_timeouts++;
            *out = (struct hf_pg_servers_out){.kind = HF_PG_SERVERS_REFUSE,
                                              .seat = seat,
                                              .server = HF_PG_SERVER_NONE,
                                              .text = hf_pg_servers_why(s)};
            return true;
        }
    }
    return false;
}

size_t hf_pg_servers_waiting(const struct hf_pg_servers *s, hf_time *ret_since)
{
    *ret_since = HF_NEVER;
    for (int k = 0; k < 4; k++) {
        const struct hf_list *q = &s->queue[k / 2][k % 2];
        if (!hf_list_empty(q)) {
            *ret_since = hf_time_min(*ret_since, seat_of(q->next)->since);
        }
    }
    return s->n_waiting;
}

/* ---- moves ---- */

static bool ask_to_move(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now)
{
    if (seat->state != HF_PG_SEAT_TAKEN || seat->moving || seat->gone || seat->recovering) {
        return false;
    }
    seat->moving = true;
    seat->asked = now;
    s->n_moving++;
    s->count.moves_asked++;
    return true;
}

void hf_pg_servers_move_done(struct hf_pg_servers *s, struct hf_pg_seat *seat, bool moved,
                             hf_time now)
{
    (void)now;
    s->count.moves_failed += !moved;
    if (seat->moving) {
        seat->moving = false;
        s->n_moving--;
    }
}

void hf_pg_servers_drain(struct hf_pg_servers *s, uint32_t server, bool on, hf_time now)
{
    assert(server < HF_PG_SERVERS_MAX && s->server[server].used);
    struct hf_pg_server *v = &s->server[server];
    if (v->draining != on) {
        v->draining = on;
        v->next_move = on ? now : HF_NEVER;
        v->to_move = 0;
        hf_pg_servers_event(s, server, false, "%s: %s", v->name,
                            on ? "drained: its sessions are to be moved" : "takes sessions again");
    }
}

/* Is there a place for the reader of this server elsewhere? */
static bool may_leave(const struct hf_pg_servers *s, const struct hf_pg_server *v)
{
    uint32_t to = server_for_reader(s);
    return to != HF_PG_SERVER_NONE && v != &s->server[to];
}

static bool move_from(struct hf_pg_servers *s, uint32_t i, hf_time now,
                      struct hf_pg_servers_out *out)
{
    struct hf_pg_server *v = &s->server[i];
    v->next_move = HF_NEVER;
    if (!may_leave(s, v)) {
        v->to_move = 0;
        v->next_move = v->draining && v->n_sessions > 0 ? now + RETRY_MOVE : HF_NEVER;
        return false;
    }
    HF_LIST_FOREACH (n, &v->seats) {
        struct hf_pg_seat *seat = seat_of(n);
        if (seat->endpoint != HF_PG_READ_ONLY || seat->reasons != 0 ||
            now - seat->asked < RETRY_MOVE || !ask_to_move(s, seat, now)) {
            continue;
        }
        v->to_move -= v->to_move > 0;
        v->next_move = now;
        /* to the end: who was asked last is looked at last */
        hf_list_unlink(&seat->node);
        hf_list_insert(&v->seats, &seat->node);
        *out = (struct hf_pg_servers_out){.kind = HF_PG_SERVERS_MOVE,
                                          .seat = seat,
                                          .server = i,
                                          .text = v->draining ? "drain" : "balance"};
        return true;
    }
    v->to_move = 0;
    v->next_move = v->draining && v->n_sessions > 0 ? now + RETRY_MOVE : HF_NEVER;
    return false;
}

static bool next_move(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *out)
{
    if (s->n_moving >= s->conf.moves_max || s->switching != HF_PG_SWITCH_NONE) {
        return false;
    }
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if ((v->draining || v->to_move > 0) && v->next_move <= now && move_from(s, i, now, out)) {
            return true;
        }
    }
    return false;
}

/* How many of the readers on the primary; it has others, too. */
static uint32_t readers_on_primary(const struct hf_pg_server *v)
{
    uint32_t n = 0;
    HF_LIST_FOREACH (it, &v->seats) {
        n += seat_of(it)->endpoint == HF_PG_READ_ONLY;
    }
    return n;
}

/*
 * Once a tick: who has more than its share and the dead zone gives a part of the excess away; where
 * to, the gate decides. Smaller differences stay, so nothing swings.
 */
static void balance(struct hf_pg_servers *s, hf_time now)
{
    uint64_t n_all = 0, weights = 0;
    uint32_t on_primary = 0;
    s->next_balance = now + s->conf.balance_tick;
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (takes_readers(s, v)) {
            n_all += v->n_sessions;
            weights += v->weight;
        } else if (i == s->primary) {
            on_primary = readers_on_primary(v);
        }
    }
    if (weights == 0 || s->n_moving > 0) {
        return;
    }
    if (on_primary > 0) { /* they were there for want of a standby */
        struct hf_pg_server *p = &s->server[s->primary];
        p->to_move = (uint32_t)(((uint64_t)on_primary * s->conf.balance_rate + 99) / 100);
        p->next_move = now;
    }
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        uint64_t share = ((n_all + on_primary) * v->weight + weights - 1) / weights;
        if (takes_readers(s, v) &&
            (uint64_t)v->n_sessions * 100 > share * (100 + s->conf.balance_dead_zone) &&
            v->n_sessions > share + 1) {
            v->to_move = (uint32_t)(((v->n_sessions - share) * s->conf.balance_rate + 99) / 100);
            v->next_move = now;
        }
    }
}

/* ---- planned switchover ---- */

static void begin_switch(struct hf_pg_servers *s, uint32_t target, hf_time end)
{
    s->switch_target = target;
    s->switch_old = s->primary;
    s->promoting = s->switch_by_group = false;
    enter_switch(s, HF_PG_SWITCH_FREEZING);
    s->want_freeze = true;
    s->want_thaw = false;
    s->switch_end = end;
    s->switch_from =
        s->primary != HF_PG_SERVER_NONE ? s->server[s->primary].incarnation : s->last_incarnation;
    s->count.switchovers++;
}

int hf_pg_servers_switchover(struct hf_pg_servers *s, uint32_t target, hf_time limit, hf_time now)
{
    if (s->switching != HF_PG_SWITCH_NONE) {
        return -EBUSY;
    }
    if (target != HF_PG_SERVER_NONE) {
        if (s->conf.group || !s->conf.exclusive) {
            return -EPERM;
        }
        if (s->primary == HF_PG_SERVER_NONE || target >= HF_PG_SERVERS_MAX ||
            s->server[target].state != HF_PG_SERVER_STANDBY) {
            return -HF_ENOTREADY;
        }
    }
    begin_switch(s, target, now + limit);
    return 0;
}

void hf_pg_gate_hold(struct hf_pg_servers *s, hf_time now)
{
    if (s->switching == HF_PG_SWITCH_NONE && s->primary != HF_PG_SERVER_NONE) {
        begin_switch(s, HF_PG_SERVER_NONE, now + s->conf.hold_timeout);
        s->switch_by_group = true;
    }
}

void hf_pg_gate_release(struct hf_pg_servers *s, hf_time now)
{
    if (s->switching != HF_PG_SWITCH_NONE && s->switch_by_group &&
        s->primary != HF_PG_SERVER_NONE && s->server[s->primary].incarnation == s->switch_from) {
        hf_pg_servers_switchover_cancel(s, now);
    }
}

void hf_pg_servers_at_rest(struct hf_pg_servers *s, size_t n_busy, hf_time now)
{
    if (s->switching == HF_PG_SWITCH_FREEZING && !s->want_freeze && n_busy == 0) {
        enter_switch(s, HF_PG_SWITCH_FROZEN);
        s->rested = ++s->last_event;
        if (s->switch_target != HF_PG_SERVER_NONE && s->primary == s->switch_old) {
            hf_pg_servers_verify(s, s->primary, false, now);
        }
        hf_pg_servers_schedule(s, now);
    }
}

/* Has the target replayed what the primary had written when all were at rest? */
static bool next_promote(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *out)
{
    if (s->switching != HF_PG_SWITCH_FROZEN || s->switch_target == HF_PG_SERVER_NONE ||
        s->promoting || s->primary != s->switch_old) {
        return false;
    }
    struct hf_pg_server *from = &s->server[s->primary], *to = &s->server[s->switch_target];
    if (from->verified < s->rested || to->verified < s->rested ||
        to->state != HF_PG_SERVER_STANDBY || to->facts.lsn < from->facts.lsn) {
        return false;
    }
    s->promoting = true;
    s->timeline = from->facts.timeline + 1; /* whatever comes: nobody writes to the old one */
    from->sweep = true;
    hf_pg_servers_judge(s, now);
    *out = (struct hf_pg_servers_out){.kind = HF_PG_SERVERS_PROMOTE, .server = s->switch_target};
    return true;
}

static void end_switch(struct hf_pg_servers *s, hf_time now)
{
    enter_switch(s, HF_PG_SWITCH_NONE);
    s->want_thaw = true;
    s->want_freeze = false;
    s->promoting = false;
    hf_pg_servers_schedule(s, now);
}

void hf_pg_servers_promote_failed(struct hf_pg_servers *s, uint32_t server, const char *why,
                                  hf_time now)
{
    if (s->promoting && server == s->switch_target && s->switching == HF_PG_SWITCH_FROZEN) {
        hf_pg_servers_event(s, server, true, "%s can't be promoted: %s", s->server[server].name,
                            why);
        s->timeline = s->server[s->switch_old].facts.timeline;
        hf_pg_servers_switchover_cancel(s, now);
        hf_pg_servers_judge(s, now);
    }
}

void hf_pg_servers_switchover_cancel(struct hf_pg_servers *s, hf_time now)
{
    if (s->switching != HF_PG_SWITCH_NONE) {
        s->count.switchovers_failed++;
        hf_pg_servers_event(s, HF_PG_SERVER_NONE, true, "switchover: given up");
        end_switch(s, now);
    }
}

/* ---- the step ---- */

void hf_pg_gate_step(struct hf_pg_servers *s, hf_time now)
{
    if (s->window && now >= s->window_end) {
        s->window = false;
    }
    if (s->switching != HF_PG_SWITCH_NONE && now >= s->switch_end) {
        hf_pg_servers_switchover_cancel(s, now);
    }
    if (now >= s->next_balance && s->conf.balance) {
        balance(s, now);
    }
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (v->state == HF_PG_SERVER_DOWN && !v->given_up &&
            now - v->since >= s->conf.hold_timeout) {
            v->given_up = v->sweep = true;
        }
    }
}

hf_time hf_pg_gate_deadline(const struct hf_pg_servers *s)
{
    hf_time t = s->window ? s->window_end : HF_NEVER, since;
    if (hf_pg_servers_waiting(s, &since) > 0) {
        t = hf_time_min(t, since + s->conf.hold_timeout);
        if (s->n_logins < s->conf.logins_max) {
            t = hf_time_min(t, s->next_gate);
        }
    }
    if (s->switching != HF_PG_SWITCH_NONE) {
        t = hf_time_min(t, s->switch_end);
    }
    if (s->conf.balance) {
        t = hf_time_min(t, s->next_balance);
    }
    HF_PG_SERVERS_EACH(s, i)
    {
        const struct hf_pg_server *v = &s->server[i];
        if ((v->draining || v->to_move > 0) && s->n_moving < s->conf.moves_max &&
            s->switching == HF_PG_SWITCH_NONE) {
            t = hf_time_min(t, v->next_move);
        }
        if (v->state == HF_PG_SERVER_DOWN && v->n_sessions > 0 && !v->given_up) {
            t = hf_time_min(t, v->since + s->conf.hold_timeout);
        }
    }
    return t;
}

bool hf_pg_gate_next(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *ret_out)
{
    if (s->want_freeze || s->want_thaw) {
        *ret_out = (struct hf_pg_servers_out){.kind = s->want_freeze ? HF_PG_SERVERS_FREEZE
                                                                     : HF_PG_SERVERS_THAW,
                                              .server = HF_PG_SERVER_NONE};
        s->want_freeze = s->want_thaw = false;
        return true;
    }
    if (next_promote(s, now, ret_out) || next_gone(s, now, ret_out) || next_attach(s, ret_out)) {
        return true;
    }
    if (s->window && s->n_recovering == 0) {
        s->window = false;
    }
    if (next_login(s, now, ret_out) || next_refuse(s, now, ret_out) || next_move(s, now, ret_out)) {
        return true;
    }
    if (s->switching == HF_PG_SWITCH_ATTACHING && s->n_recovering == 0) {
        end_switch(s, now);
        return hf_pg_gate_next(s, now, ret_out);
    }
    return false;
}
