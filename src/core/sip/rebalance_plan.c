/* Who gives how many clients to whom: levels, then pairs. The reasoning is in rebalance.h. */
#include <assert.h>
#include <stdlib.h>

#include "core/sip/rebalance_impl.h"

#define LEVEL_BITS 24 /* of a level (units per weight), after the point */

struct ranked {
    uint64_t key;
    uint16_t server;
};

static int by_key(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return (x->server > y->server) - (x->server < y->server);
}

static bool takes(const struct hf_sip_seen *s)
{
    return s->part == HF_SIP_PART_TAKES;
}

static bool weak(const struct hf_sip_seen *s)
{
    return s->strength < HF_SIP_FULL_STRENGTH;
}

/* How far from its share nobody minds: so many percent, but two clients in any case, as moves are
 * whole clients. */
static uint64_t leeway(const struct hf_sip_rebalance *r, const struct hf_sip_seen *s, unsigned zone)
{
    uint64_t part = s->share * zone / 100, least = (uint64_t)r->cost_max * 2;
    return part > least ? part : least;
}

bool hf_sip_plan_outside(const struct hf_sip_rebalance *r, const struct hf_sip_seen *s,
                         unsigned zone)
{
    uint64_t off = s->units > s->share ? s->units - s->share : s->share - s->units;
    return takes(s) && off > leeway(r, s, zone);
}

static uint64_t upper_edge(const struct hf_sip_rebalance *r, const struct hf_sip_seen *s)
{
    return s->share + leeway(r, s, r->conf.target_zone);
}

static uint64_t lower_edge(const struct hf_sip_rebalance *r, const struct hf_sip_seen *s)
{
    uint64_t l = leeway(r, s, r->conf.target_zone);
    return s->share > l ? s->share - l : 0;
}

static uint64_t at_level(const struct hf_sip_seen *s, uint64_t level)
{
    return (uint64_t)(((__uint128_t)level * s->weight) >> LEVEL_BITS);
}

static uint32_t clients_for(uint64_t units, uint32_t cost)
{
    return (uint32_t)((units + cost - 1) / cost);
}

/* ---- one move ---- */

/* As many of n as the rates and the room for moves allow; the working copy follows. */
static uint32_t emit(struct hf_sip_rebalance *r, uint16_t from, uint16_t to, uint8_t reason,
                     uint8_t who, uint32_t n)
{
    struct hf_sip_seen *a = &r->server[from], *b = &r->server[to];
    n = n < a->n ? n : a->n;
    if (r->limited && reason != HF_SIP_MOVE_DEAD) {
        uint32_t wanted = n;
        n = n < r->allowance / HF_SIP_ALLOWANCE ? n : (uint32_t)(r->allowance / HF_SIP_ALLOWANCE);
        n = n < b->allowance / HF_SIP_ALLOWANCE ? n : (uint32_t)(b->allowance / HF_SIP_ALLOWANCE);
        r->held |= n < wanted;
    }
    if (n == 0 || from == to || r->n_moves == HF_SIP_MOVES_MAX) {
        return 0;
    }
    if (r->limited && reason != HF_SIP_MOVE_DEAD) {
        r->allowance -= (uint64_t)n * HF_SIP_ALLOWANCE;
        b->allowance -= (uint64_t)n * HF_SIP_ALLOWANCE;
    }
    r->move[r->n_moves++] = (struct hf_sip_move){
        .from = from,
        .to = to,
        .reason = reason,
        .who = who,
        .n = n,
        .bucket_last = HF_SIP_BUCKETS - 1,
    };
    uint64_t units = (uint64_t)n * a->cost;
    a->n -= n;
    a->units -= units < a->units ? units : a->units;
    b->n += n;
    b->units += units;
    if (who == HF_SIP_WHO_PINNED) {
        a->pinned -= n < a->pinned ? n : a->pinned;
        b->pinned += n;
    }
    return n;
}

/* ---- levels ---- */

/* Fill the lowest of those who take (and give nothing) up to one level, so that they get `units` in
 * all. false: there is nobody. */
static bool fill(struct hf_sip_rebalance *r, uint64_t units)
{
    uint64_t lo = 0, hi = 0;
    for (uint16_t i = 0; i < r->n; i++) {
        const struct hf_sip_seen *s = &r->server[i];
        if (takes(s) && s->give == 0) {
            uint64_t top =
                (uint64_t)(((__uint128_t)(s->units + units + 1) << LEVEL_BITS) / s->weight);
            hi = top > hi ? top : hi;
        }
    }
    if (hi == 0) {
        return false;
    }
    while (lo < hi) { /* the lowest level that has room for it */
        uint64_t mid = lo + (hi - lo) / 2, room = 0;
        for (uint16_t i = 0; i < r->n; i++) {
            const struct hf_sip_seen *s = &r->server[i];
            uint64_t to = takes(s) && s->give == 0 ? at_level(s, mid) : 0;
            room += to > s->units ? to - s->units : 0;
        }
        if (room >= units) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    for (uint16_t i = 0; i < r->n; i++) {
        struct hf_sip_seen *s = &r->server[i];
        uint64_t to = takes(s) && s->give == 0 ? at_level(s, lo) : 0;
        s->get = to > s->units ? to - s->units : 0;
    }
    return true;
}

/* What a server that takes may give: nobody pinned, and only for balance or because it is weak. */
static uint64_t movable(const struct hf_sip_rebalance *r, const struct hf_sip_seen *s)
{
    return takes(s) && (r->moving || weak(s)) ? (uint64_t)(s->n - s->pinned) * s->cost : 0;
}

static uint64_t above(const struct hf_sip_rebalance *r, const struct hf_sip_seen *s, uint64_t level)
{
    uint64_t to = at_level(s, level), may = movable(r, s);
    uint64_t off = s->units > to ? s->units - to : 0;
    return off < may ? off : may;
}

/* Cut the highest of those who take down to one level, so that they give `units` in all, but to no
 * less than the mean. */
static void cut(struct hf_sip_rebalance *r, uint64_t units)
{
    uint64_t lo = 0, hi = 0;
    for (uint16_t i = 0; i < r->n; i++) {
        const struct hf_sip_seen *s = &r->server[i];
        if (takes(s)) {
            uint64_t top = (uint64_t)(((__uint128_t)(s->units + 1) << LEVEL_BITS) / s->weight);
            uint64_t mean = (uint64_t)(((__uint128_t)s->share << LEVEL_BITS) / s->weight);
            hi = top > hi ? top : hi;
            lo = mean > lo ? mean : lo; /* the same for all but for rounding */
        }
    }
    hi = hi > lo ? hi : lo;
    while (lo < hi) { /* the highest level above which there is so much */
        uint64_t mid = lo + (hi - lo + 1) / 2, sum = 0;
        for (uint16_t i = 0; i < r->n; i++) {
            sum += above(r, &r->server[i], mid);
        }
        if (sum >= units) {
            lo = mid;
        } else {
            hi = mid - 1;
        }
    }
    for (uint16_t i = 0; i < r->n; i++) {
        r->server[i].give = above(r, &r->server[i], lo);
    }
}

/* ---- at once: the dead ---- */

/* Who is pinned to somebody that lives goes there. */
static void send_pinned(struct hf_sip_rebalance *r, bool of_dead)
{
    for (size_t k = 0; k < r->n_astray; k++) {
        const struct hf_sip_astray *a = &r->astray[k];
        if (a->pinned == 0 || a->current >= r->n || a->home >= r->n ||
            !takes(&r->server[a->home])) {
            continue;
        }
        enum hf_sip_part part = r->server[a->current].part;
        if ((part == HF_SIP_PART_DEAD) == of_dead && part != HF_SIP_PART_NONE) {
            (void)emit(r, a->current, a->home, of_dead ? HF_SIP_MOVE_DEAD : HF_SIP_MOVE_PINNED,
                       HF_SIP_WHO_PINNED, a->pinned);
        }
    }
}

/* Each receiver gets the buckets that are its part of all. */
static void split(struct hf_sip_rebalance *r, uint16_t dead, uint64_t all)
{
    uint64_t upto = 0;
    uint32_t bucket = 0, n = r->server[dead].n, given = 0;
    for (uint16_t i = 0; i < r->n; i++) {
        upto += r->server[i].get;
        uint32_t end = (uint32_t)((__uint128_t)upto * HF_SIP_BUCKETS / all);
        uint32_t to = (uint32_t)(((uint64_t)n * end + HF_SIP_BUCKETS / 2) / HF_SIP_BUCKETS);
        if (end == bucket || r->n_moves == HF_SIP_MOVES_MAX) {
            continue;
        }
        uint32_t part = to - given;
        r->move[r->n_moves++] = (struct hf_sip_move){
            .from = dead,
            .to = i,
            .reason = HF_SIP_MOVE_DEAD,
            .who = HF_SIP_WHO_ALL,
            .n = part,
            .bucket_first = (uint16_t)bucket,
            .bucket_last = (uint16_t)(end - 1),
        };
        r->server[i].n += part;
        r->server[i].units += (uint64_t)part * r->server[dead].cost;
        given = to;
        bucket = end;
    }
    r->server[dead].n = 0;
    r->server[dead].units = 0;
}

static void replace_dead(struct hf_sip_rebalance *r)
{
    send_pinned(r, true);
    uint64_t units = 0, all = 0;
    for (uint16_t i = 0; i < r->n; i++) {
        const struct hf_sip_seen *s = &r->server[i];
        units += s->part == HF_SIP_PART_DEAD ? (uint64_t)s->n * s->cost : 0;
    }
    if (units == 0) {
        return;
    }
    if (!fill(r, units)) {
        r->count.stuck++;
        return;
    }
    for (uint16_t i = 0; i < r->n; i++) {
        all += r->server[i].get;
    }
    assert(all > 0); /* fill() found room for all of it */
    for (uint16_t i = 0; i < r->n; i++) {
        if (r->server[i].part == HF_SIP_PART_DEAD && r->server[i].n > 0) {
            split(r, i, all);
        }
    }
    for (uint16_t i = 0; i < r->n; i++) {
        r->server[i].get = 0;
    }
}

/* ---- paced: the rest ---- */

static uint8_t reason_of(const struct hf_sip_seen *giver)
{
    return giver->part == HF_SIP_PART_GOES ? HF_SIP_MOVE_DRAIN
           : weak(giver)                   ? HF_SIP_MOVE_OVERLOAD
                                           : HF_SIP_MOVE_BALANCE;
}

/* Clients that a giver still has to give, of `loose` that are not pinned. */
static uint32_t left_to_give(const struct hf_sip_seen *s)
{
    if (s->part == HF_SIP_PART_GOES) {
        return s->n;
    }
    uint32_t n = clients_for(s->give, s->cost), loose = s->n - s->pinned;
    return n < loose ? n : loose;
}

/*
 * So many clients can be moved before it is better to leave it. With a giver x above its share and
 * a receiver y above its own (or below: negative), moving n clients of cost c makes the sum of
 * squares smaller if n c < x - y; as it only ever gets smaller, nobody goes to and fro.
 */
static uint32_t useful(const struct hf_sip_seen *a, const struct hf_sip_seen *b)
{
    if (a->part == HF_SIP_PART_GOES) {
        return UINT32_MAX;
    }
    int64_t x = (int64_t)a->units - (int64_t)a->share, y = (int64_t)b->units - (int64_t)b->share;
    int64_t n = x > y ? (x - y - 1) / a->cost : 0;
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static void pair(struct hf_sip_rebalance *r, uint16_t from, uint16_t to, uint8_t who, uint32_t max)
{
    struct hf_sip_seen *a = &r->server[from], *b = &r->server[to];
    uint32_t n = left_to_give(a), room = clients_for(b->get, a->cost);
    n = n < room ? n : room;
    n = n < max ? n : max;
    max = useful(a, b);
    n = emit(r, from, to, reason_of(a), who, n < max ? n : max);
    uint64_t units = (uint64_t)n * a->cost;
    a->give -= units < a->give ? units : a->give;
    b->get -= units < b->get ? units : b->get;
}

static void pair_homing(struct hf_sip_rebalance *r)
{
    for (size_t k = 0; k < r->n_astray; k++) {
        const struct hf_sip_astray *x = &r->astray[k];
        if (x->current < r->n && x->home < r->n && x->clients > 0 &&
            r->server[x->current].give > 0 && r->server[x->home].get > 0) {
            pair(r, x->current, x->home, HF_SIP_WHO_HOMING, x->clients);
        }
    }
}

/* The neediest gives to the least loaded. */
static void pair_all(struct hf_sip_rebalance *r)
{
    struct ranked giver[HF_SIP_SERVERS_MAX] = {{.key = 0}};
    struct ranked taker[HF_SIP_SERVERS_MAX] = {{.key = 0}};
    size_t n_givers = 0, n_takers = 0;
    for (uint16_t i = 0; i < r->n; i++) {
        const struct hf_sip_seen *s = &r->server[i];
        if (s->give > 0) {
            uint64_t ratio = takes(s) ? (s->units << 16) / s->weight : UINT64_MAX;
            giver[n_givers++] = (struct ranked){.key = UINT64_MAX - ratio, .server = i};
        } else if (s->get > 0) {
            taker[n_takers++] = (struct ranked){.key = (s->units << 16) / s->weight, .server = i};
        }
    }
    qsort(giver, n_givers, sizeof(*giver), by_key);
    qsort(taker, n_takers, sizeof(*taker), by_key);
    for (size_t g = 0; g < n_givers; g++) {
        const struct hf_sip_seen *s = &r->server[giver[g].server];
        for (size_t t = 0; t < n_takers && left_to_give(s) > 0; t++) {
            if (r->server[taker[t].server].get > 0) {
                pair(r, giver[g].server, taker[t].server,
                     s->part == HF_SIP_PART_GOES ? HF_SIP_WHO_ANY : HF_SIP_WHO_LOOSE, UINT32_MAX);
            }
        }
    }
}

void hf_sip_plan_make(struct hf_sip_rebalance *r)
{
    uint64_t goes = 0, over = 0, under = 0, all = 0;
    replace_dead(r);
    send_pinned(r, false);
    for (uint16_t i = 0; i < r->n; i++) {
        const struct hf_sip_seen *s = &r->server[i];
        if (takes(s)) {
            uint64_t may = movable(r, s), up = upper_edge(r, s), low = lower_edge(r, s);
            uint64_t off = s->units > up ? s->units - up : 0;
            over += off < may ? off : may;
            under += r->moving && s->units < low ? low - s->units : 0;
        }
        goes += s->part == HF_SIP_PART_GOES ? s->units : 0;
    }
    uint64_t units = goes + over > under ? goes + over : under;
    if (units > goes) {
        cut(r, units - goes);
    }
    for (uint16_t i = 0; i < r->n; i++) {
        struct hf_sip_seen *s = &r->server[i];
        s->give = s->part == HF_SIP_PART_GOES ? s->units : s->give;
        all += s->give;
    }
    if (all == 0) {
        return;
    }
    if (!fill(r, all)) {
        r->count.stuck++;
        return;
    }
    pair_homing(r);
    pair_all(r);
}
