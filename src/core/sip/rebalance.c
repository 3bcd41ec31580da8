/* The rebalancer: loads, shares, hysteresis, rates, and the words for it all. */
#include "core/sip/rebalance_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/names.h"

#define COST_MIN 100u
#define COST_MAX 20000u
#define STRENGTH_MIN 100u
#define STRENGTH_STEP 50u  /* given back at a time ... */
#define STRENGTH_SLACK 80u /* ... while CPU is below so many percent of cpu_target */
#define RATE_BITS 24       /* of what one client does, after the point */
#define CATCH_UP HF_S(10)  /* no more than the rates of so long at once, after a pause of ours */
/* Below so much on the average what servers do is chance, and of no matter. */
#define REQUESTS_FLOOR 100u /* per second */
#define CPU_FLOOR 100u      /* 1/1000 */
#define CPU_ALL 1000u

HF_NAMES(hf_sip_balance_name, enum hf_sip_balance, HF_SIP_BALANCE_LIST)
HF_NAMES(hf_sip_move_reason_name, enum hf_sip_move_reason, HF_SIP_MOVE_LIST)
HF_NAMES(hf_sip_who_name, enum hf_sip_who, HF_SIP_WHO_LIST)

/* ---- its life ---- */

static unsigned or_else(unsigned v, unsigned dflt)
{
    return v != 0 ? v : dflt;
}

static hf_time time_or(hf_time t, hf_time dflt)
{
    return t != 0 ? t : dflt;
}

int hf_sip_rebalance_create(const struct hf_sip_rebalance_conf *conf,
                            const struct hf_sip_fleet *fleet, hf_time now,
                            struct hf_sip_rebalance **ret_rebalance)
{
    struct hf_sip_rebalance *r = hf_alloc(sizeof(*r));
    if (r == NULL) {
        return -ENOMEM;
    }
    r->move = hf_alloc_array(HF_SIP_MOVES_MAX, sizeof(*r->move));
    if (r->move == NULL) {
        hf_free(r);
        return -ENOMEM;
    }
    struct hf_sip_rebalance_conf *c = &r->conf;
    *c = *conf;
    c->dead_zone = or_else(c->dead_zone, 10);
    c->target_zone = or_else(c->target_zone, 7);
    c->target_zone = c->target_zone < c->dead_zone ? c->target_zone : c->dead_zone;
    if (c->part_clients + c->part_requests + c->part_cpu == 0) {
        c->part_clients = 60;
        c->part_requests = c->part_cpu = 20;
    }
    c->cpu_max = or_else(c->cpu_max, 90);
    c->cpu_target = or_else(c->cpu_target, 75);
    c->rate = or_else(c->rate, 2000);
    c->rate_to = or_else(c->rate_to, 200);
    c->patience = time_or(c->patience, HF_S(30));
    c->settle = time_or(c->settle, HF_S(60));
    c->load_lag = time_or(c->load_lag, HF_S(30));
    r->fleet = fleet;
    r->begun = r->stepped = now;
    r->outside_since = HF_NEVER;
    for (uint16_t i = 0; i < HF_SIP_SERVERS_MAX; i++) {
        struct hf_sip_seen *s = &r->server[i];
        s->cost = HF_SIP_COST_ONE;
        s->strength = HF_SIP_FULL_STRENGTH;
        s->moved = s->since = s->strength_at = INT64_MIN;
    }
    *ret_rebalance = r;
    return 0;
}

void hf_sip_rebalance_destroy(struct hf_sip_rebalance *r)
{
    if (r != NULL) {
        hf_free(r->move);
        hf_free(r);
    }
}

void hf_sip_rebalance_load(struct hf_sip_rebalance *r, uint16_t server,
                           const struct hf_sip_load *load)
{
    assert(server < hf_sip_fleet_count(r->fleet));
    struct hf_sip_load *l = &r->server[server].load;
    *l = *load;
    l->pinned = l->pinned < l->clients ? l->pinned : l->clients;
    l->cpu = l->cpu < CPU_ALL ? l->cpu : CPU_ALL;
}

void hf_sip_rebalance_astray(struct hf_sip_rebalance *r, const struct hf_sip_astray *astray,
                             size_t n)
{
    r->astray = astray;
    r->n_astray = n;
}

/* ---- what there is ---- */

static bool over(hf_time since, hf_time now, hf_time span)
{
    return since == INT64_MIN || now - since >= span;
}

static enum hf_sip_part part_of(const struct hf_sip_rebalance *r, uint16_t i, hf_time now)
{
    const struct hf_sip_seen *s = &r->server[i];
    const struct hf_sip_server *is = hf_sip_fleet_get(r->fleet, i);
    switch ((enum hf_sip_server_state)is->state) {
    case HF_SIP_SERVER_LIVE:
        if (!is->homes) {
            return s->load.clients > 0 ? HF_SIP_PART_GOES : HF_SIP_PART_NONE;
        }
        return is->weight > 0 && over(s->since, now, r->conf.settle) ? HF_SIP_PART_TAKES
                                                                     : HF_SIP_PART_KEEPS;
    case HF_SIP_SERVER_DRAINING:
        return s->load.clients > 0 ? HF_SIP_PART_GOES : HF_SIP_PART_NONE;
    case HF_SIP_SERVER_UNKNOWN: /* a new leader may not have seen all of the tree yet */
        if (!over(r->begun, now, r->conf.settle)) {
            return HF_SIP_PART_KEEPS;
        }
        break;
    case HF_SIP_SERVER_DEAD:
    case HF_SIP_SERVER_STATE_COUNT_:
        break;
    }
    return s->load.clients > 0 ? HF_SIP_PART_DEAD : HF_SIP_PART_NONE;
}

static void look_who_lives(struct hf_sip_rebalance *r, hf_time now)
{
    r->n = hf_sip_fleet_count(r->fleet);
    for (uint16_t i = 0; i < r->n; i++) {
        struct hf_sip_seen *s = &r->server[i];
        bool alive = hf_sip_fleet_alive(r->fleet, i);
        if (alive && !s->alive && r->looked) { /* who is there at the first look was so before */
            s->since = r->wanted ? INT64_MIN : now;
            s->strength = HF_SIP_FULL_STRENGTH;
        }
        s->buried &= !alive;
        s->alive = alive;
    }
    r->looked = true;
}

static bool measured(const struct hf_sip_rebalance *r, const struct hf_sip_seen *s, hf_time now)
{
    return s->alive && s->load.clients > 0 && over(s->moved, now, r->conf.load_lag);
}

/* What one client does, in 1/1000 of what all n do on the average. What their sum lacks of the
 * floor is put in, the same for each: so the less is done, the less it says who does it. */
static uint64_t relative(uint64_t one, __uint128_t sum, uint64_t n, uint64_t floor)
{
    __uint128_t least = (__uint128_t)floor << RATE_BITS, more = sum < least ? least - sum : 0;
    if (sum + more == 0) {
        return HF_SIP_COST_ONE;
    }
    return (uint64_t)(((__uint128_t)one * n + more) * HF_SIP_COST_ONE / (sum + more));
}

/* What a client does at each server, as far as it can be measured now. */
static void measure(struct hf_sip_rebalance *r, hf_time now)
{
    for (uint16_t i = 0; i < r->n; i++) {
        struct hf_sip_seen *s = &r->server[i];
        if (measured(r, s, now)) {
            uint64_t work = (uint64_t)s->load.cpu * hf_sip_fleet_get(r->fleet, i)->weight;
            s->known = true;
            s->requests = ((uint64_t)s->load.requests_s << RATE_BITS) / s->load.clients;
            s->work = (work << RATE_BITS) / s->load.clients;
        }
    }
}

/* What a client costs at each: against all others, also those that can't be measured now. Against
 * the rest alone everybody's cost would change whenever somebody gives or takes. */
static void price(struct hf_sip_rebalance *r)
{
    const struct hf_sip_rebalance_conf *c = &r->conf;
    uint64_t n = 0, least_requests = 0, least_cpu = 0;
    __uint128_t requests = 0, work = 0;
    for (uint16_t i = 0; i < r->n; i++) {
        const struct hf_sip_seen *s = &r->server[i];
        if (s->known && s->load.clients > 0) {
            n += s->load.clients;
            requests += (__uint128_t)s->requests * s->load.clients;
            work += (__uint128_t)s->work * s->load.clients;
            least_requests += REQUESTS_FLOOR;
            least_cpu += (uint64_t)CPU_FLOOR * hf_sip_fleet_get(r->fleet, i)->weight;
        }
    }
    uint64_t parts = c->part_clients + c->part_requests + c->part_cpu;
    for (uint16_t i = 0; i < r->n; i++) {
        struct hf_sip_seen *s = &r->server[i];
        if (!s->known || s->load.clients == 0) {
            continue;
        }
        uint64_t cost = ((uint64_t)c->part_clients * HF_SIP_COST_ONE +
                         c->part_requests * relative(s->requests, requests, n, least_requests) +
                         c->part_cpu * relative(s->work, work, n, least_cpu)) /
                        parts;
        s->cost = cost < COST_MIN ? COST_MIN : cost > COST_MAX ? COST_MAX : (uint32_t)cost;
    }
}

/* Shares of those that take, by weight; false: nobody does. */
static bool share_out(struct hf_sip_rebalance *r)
{
    uint64_t units = 0, weight = 0;
    for (uint16_t i = 0; i < r->n; i++) {
        const struct hf_sip_seen *s = &r->server[i];
        if (s->part == HF_SIP_PART_TAKES) {
            weight += s->weight;
        }
        if (s->part != HF_SIP_PART_KEEPS) {
            units += s->units;
        }
    }
    for (uint16_t i = 0; i < r->n; i++) {
        struct hf_sip_seen *s = &r->server[i];
        s->share =
            s->part == HF_SIP_PART_TAKES ? (uint64_t)((__uint128_t)units * s->weight / weight) : 0;
    }
    return weight > 0;
}

/* Who has too much to do though it has no more than its share counts for less. */
static void weaken(struct hf_sip_rebalance *r, hf_time now)
{
    const struct hf_sip_rebalance_conf *c = &r->conf;
    for (uint16_t i = 0; i < r->n; i++) {
        struct hf_sip_seen *s = &r->server[i];
        if (s->part != HF_SIP_PART_TAKES || s->share == 0 || !measured(r, s, now)) {
            continue;
        }
        if (s->load.cpu > c->cpu_max * 10) {
            uint64_t bearable = s->units * c->cpu_target * 10 / s->load.cpu;
            uint64_t strength = bearable * s->strength / s->share;
            if (strength < s->strength) {
                s->strength = strength < STRENGTH_MIN ? STRENGTH_MIN : (uint32_t)strength;
                s->strength_at = now;
            }
        } else if (s->strength < HF_SIP_FULL_STRENGTH &&
                   s->load.cpu * 10 < c->cpu_target * STRENGTH_SLACK &&
                   over(s->strength_at, now, c->patience)) {
            s->strength += STRENGTH_STEP;
            s->strength = s->strength < HF_SIP_FULL_STRENGTH ? s->strength : HF_SIP_FULL_STRENGTH;
            s->strength_at = now;
        }
    }
}

static void weigh(struct hf_sip_rebalance *r)
{
    for (uint16_t i = 0; i < r->n; i++) {
        struct hf_sip_seen *s = &r->server[i];
        s->weight = (uint64_t)hf_sip_fleet_get(r->fleet, i)->weight * s->strength;
    }
}

/* The working copy. false: nobody takes anything. */
static bool look(struct hf_sip_rebalance *r, hf_time now)
{
    bool somebody = false;
    r->cost_max = HF_SIP_COST_ONE;
    for (uint16_t i = 0; i < r->n; i++) {
        struct hf_sip_seen *s = &r->server[i];
        if (s->load.clients > 0 && s->cost > r->cost_max) {
            r->cost_max = s->cost;
        }
        s->part = part_of(r, i, now);
        somebody |= s->part == HF_SIP_PART_TAKES;
        s->n = s->load.clients;
        s->pinned = s->load.pinned;
        s->units = s->before = (uint64_t)s->n * s->cost;
        s->give = s->get = 0;
    }
    for (uint16_t i = 0; i < r->n && !somebody; i++) { /* better somebody new than nobody */
        struct hf_sip_seen *s = &r->server[i];
        const struct hf_sip_server *is = hf_sip_fleet_get(r->fleet, i);
        if (s->part == HF_SIP_PART_KEEPS && is->state == HF_SIP_SERVER_LIVE && is->weight > 0) {
            s->part = HF_SIP_PART_TAKES;
        }
    }
    weigh(r);
    return share_out(r);
}

static bool anybody_outside(const struct hf_sip_rebalance *r, unsigned zone)
{
    for (uint16_t i = 0; i < r->n; i++) {
        if (hf_sip_plan_outside(r, &r->server[i], zone)) {
            return true;
        }
    }
    return false;
}

/* ---- the step ---- */

static void enter_state(struct hf_sip_rebalance *r, enum hf_sip_balance to)
{
    r->count.balances += to == HF_SIP_BALANCE_MOVING;
    r->wanted &= to != HF_SIP_BALANCE_AT_REST;
    r->state = to;
}

static void judge(struct hf_sip_rebalance *r, hf_time now)
{
    if (r->state == HF_SIP_BALANCE_MOVING || r->wanted) {
        if (!anybody_outside(r, r->conf.target_zone)) {
            enter_state(r, HF_SIP_BALANCE_AT_REST);
        } else if (r->state != HF_SIP_BALANCE_MOVING) {
            enter_state(r, HF_SIP_BALANCE_MOVING);
        }
    } else if (!anybody_outside(r, r->conf.dead_zone)) {
        enter_state(r, HF_SIP_BALANCE_AT_REST);
    } else if (r->state == HF_SIP_BALANCE_AT_REST) {
        r->outside_since = now;
        enter_state(r, HF_SIP_BALANCE_WAITING);
    } else if (now - r->outside_since >= r->conf.patience) {
        enter_state(r, HF_SIP_BALANCE_MOVING);
    }
}

/* Since the last step. What was not used then is not saved up but for one client: who comes back
 * would be given all of it at once. */
static uint64_t allowed(uint64_t left, uint64_t ms, uint32_t rate)
{
    return (left < HF_SIP_ALLOWANCE ? left : HF_SIP_ALLOWANCE) + ms * rate;
}

static void allow(struct hf_sip_rebalance *r, hf_time now)
{
    uint64_t ms = (uint64_t)(hf_time_min(now - r->stepped, CATCH_UP) / HF_NS_PER_MS);
    r->allowance = allowed(r->allowance, ms, r->conf.rate);
    for (uint16_t i = 0; i < r->n; i++) {
        r->server[i].allowance = allowed(r->server[i].allowance, ms, r->conf.rate_to);
    }
    r->stepped = now;
}

static void count_moves(struct hf_sip_rebalance *r)
{
    uint64_t *const of[] = {
        [HF_SIP_MOVE_DEAD] = &r->count.moved_dead,
        [HF_SIP_MOVE_DRAIN] = &r->count.moved_drain,
        [HF_SIP_MOVE_OVERLOAD] = &r->count.moved_overload,
        [HF_SIP_MOVE_PINNED] = &r->count.moved_pinned,
        [HF_SIP_MOVE_BALANCE] = &r->count.moved_balance,
    };
    for (size_t i = 0; i < r->n_moves; i++) {
        *of[r->move[i].reason] += r->move[i].n;
        struct hf_sip_seen *from = &r->server[r->move[i].from];
        if (r->move[i].reason == HF_SIP_MOVE_DEAD && !from->buried) {
            from->buried = true;
            r->count.dead_servers++;
        }
    }
}

/* Of n clients and m that came. */
static uint64_t mixed(uint64_t one, uint64_t n, uint64_t came, uint64_t m)
{
    return (uint64_t)(((__uint128_t)one * n + (__uint128_t)came * m) / (n + m));
}

/* The clients that came do what they did where they were. */
static void reckon(struct hf_sip_rebalance *r, hf_time now)
{
    for (size_t i = 0; i < r->n_moves; i++) {
        const struct hf_sip_move *m = &r->move[i];
        struct hf_sip_seen *from = &r->server[m->from], *to = &r->server[m->to];
        if (from->known && m->n > 0 && (to->known || to->load.clients == 0)) {
            to->requests = mixed(to->requests, to->load.clients, from->requests, m->n);
            to->work = mixed(to->work, to->load.clients, from->work, m->n);
            to->known = true;
        }
        /* as if it were done; the next load tells whether it was */
        to->load.clients += m->n;
        from->load.clients -= m->n < from->load.clients ? m->n : from->load.clients;
        from->moved = to->moved = now;
    }
}

void hf_sip_rebalance_now(struct hf_sip_rebalance *r)
{
    r->wanted = true;
    for (uint16_t i = 0; i < r->n; i++) {
        if (r->server[i].alive) {
            r->server[i].since = INT64_MIN;
        }
    }
}

size_t hf_sip_rebalance_step(struct hf_sip_rebalance *r, hf_time now,
                             const struct hf_sip_move **ret_moves)
{
    r->count.steps++;
    r->n_moves = 0;
    *ret_moves = r->move;
    look_who_lives(r, now);
    allow(r, now);
    measure(r, now);
    price(r);
    bool somebody = look(r, now);
    if (somebody) {
        weaken(r, now);
        weigh(r);
        (void)share_out(r);
        judge(r, now);
    }
    r->limited = true;
    r->moving = r->state == HF_SIP_BALANCE_MOVING;
    r->held = false;
    hf_sip_plan_make(r);
    if (r->moving && r->n_moves == 0 && !r->held) {
        enter_state(r, HF_SIP_BALANCE_AT_REST); /* all that could be done: pinned ones are left */
    }
    count_moves(r);
    reckon(r, now);
    return r->n_moves;
}

size_t hf_sip_rebalance_plan(struct hf_sip_rebalance *r, hf_time now,
                             const struct hf_sip_move **ret_moves)
{
    r->n_moves = 0;
    *ret_moves = r->move;
    r->n = hf_sip_fleet_count(r->fleet);
    price(r);
    if (look(r, now)) {
        r->limited = false;
        r->moving = r->state == HF_SIP_BALANCE_MOVING || anybody_outside(r, r->conf.dead_zone);
        uint64_t stuck = r->count.stuck;
        hf_sip_plan_make(r);
        r->count.stuck = stuck;
    }
    return r->n_moves;
}

/* ---- words ---- */

static unsigned percent(uint64_t units, uint64_t share)
{
    return share == 0 ? 0 : (unsigned)((units * 100 + share / 2) / share);
}

void hf_sip_rebalance_why(const struct hf_sip_rebalance *r, const struct hf_sip_move *m, char *buf,
                          size_t n)
{
    assert(m->from < r->n && m->to < r->n && n > 0);
    const struct hf_sip_seen *from = &r->server[m->from], *to = &r->server[m->to];
    const char *a = hf_sip_fleet_name(r->fleet, m->from), *b = hf_sip_fleet_name(r->fleet, m->to);
    char then[160];
    (void)snprintf(then, sizeof(then), "%s has %u %% of its share%s", b,
                   percent(to->before, to->share),
                   m->who == HF_SIP_WHO_HOMING ? ", and is their home" : "");
    switch ((enum hf_sip_move_reason)m->reason) {
    case HF_SIP_MOVE_DEAD:
        (void)snprintf(buf, n, "%s is dead; %s", a,
                       m->who == HF_SIP_WHO_PINNED ? "they are pinned there" : then);
        return;
    case HF_SIP_MOVE_DRAIN:
        (void)snprintf(buf, n, "%s is %s; %s", a,
                       hf_sip_fleet_get(r->fleet, m->from)->homes ? "drained"
                                                                  : "no home server any more",
                       then);
        return;
    case HF_SIP_MOVE_OVERLOAD:
        (void)snprintf(buf, n, "%s had more than %u %% CPU; %s", a, r->conf.cpu_max, then);
        return;
    case HF_SIP_MOVE_PINNED:
        (void)snprintf(buf, n, "they are pinned to %s", b);
        return;
    case HF_SIP_MOVE_BALANCE:
        (void)snprintf(buf, n, "%s has %u %% of its share; %s", a,
                       percent(from->before, from->share), then);
        return;
    case HF_SIP_MOVE_COUNT_:
        break;
    }
    buf[0] = 0;
}

static const char *part_name(const struct hf_sip_rebalance *r, uint16_t i)
{
    switch (r->server[i].part) {
    case HF_SIP_PART_TAKES:
        return r->server[i].strength < HF_SIP_FULL_STRENGTH ? "weak" : "takes";
    case HF_SIP_PART_KEEPS:
        return "keeps";
    case HF_SIP_PART_GOES:
        return "goes";
    case HF_SIP_PART_DEAD:
        return "dead";
    case HF_SIP_PART_NONE:
        break;
    }
    return "-";
}

void hf_sip_rebalance_text(struct hf_sip_rebalance *r, hf_time now, struct hf_buf *b)
{
    const struct hf_sip_move *m;
    size_t n = hf_sip_rebalance_plan(r, now, &m);
    uint64_t all = 0;
    hf_buf_printf(b, "balance: %s, dead zone %u %%\n\n", hf_sip_balance_name(r->state),
                  r->conf.dead_zone);
    hf_buf_str(b, "server           state     clients  pinned  of its share  plan\n");
    for (uint16_t i = 0; i < r->n; i++) {
        const struct hf_sip_seen *s = &r->server[i];
        char of[16] = "-";
        if (s->share > 0) {
            (void)snprintf(of, sizeof(of), "%u %%", percent(s->before, s->share));
        }
        hf_buf_printf(b, "%-16s %-8s %8" PRIu32 " %7" PRIu32 "  %12s  %s\n",
                      hf_sip_fleet_name(r->fleet, i),
                      hf_sip_server_state_name(hf_sip_fleet_get(r->fleet, i)->state),
                      s->load.clients, s->load.pinned, of, part_name(r, i));
    }
    hf_buf_str(b, n > 0 ? "\n" : "\nnothing to do\n");
    for (size_t i = 0; i < n; i++) {
        char why[256];
        hf_sip_rebalance_why(r, &m[i], why, sizeof(why));
        hf_buf_printf(
            b, "%s: %" PRIu32 " from %s to %s: %s\n", hf_sip_move_reason_name(m[i].reason), m[i].n,
            hf_sip_fleet_name(r->fleet, m[i].from), hf_sip_fleet_name(r->fleet, m[i].to), why);
        all += m[i].n;
    }
    if (n > 0) {
        hf_buf_printf(b, "%" PRIu64 " clients in all\n", all);
    }
}

void hf_sip_rebalance_standing(const struct hf_sip_rebalance *r, uint16_t server,
                               struct hf_sip_standing *ret_standing)
{
    assert(server < HF_SIP_SERVERS_MAX);
    const struct hf_sip_seen *s = &r->server[server];
    *ret_standing = (struct hf_sip_standing){
        .takes = s->part == HF_SIP_PART_TAKES,
        .load = s->before,
        .share = s->share,
        .clients = s->load.clients,
    };
}

enum hf_sip_balance hf_sip_rebalance_state(const struct hf_sip_rebalance *r)
{
    return r->state;
}

const struct hf_sip_rebalance_counters *hf_sip_rebalance_counters(const struct hf_sip_rebalance *r)
{
    return &r->count;
}
