/* The rebalancer with millions of clients, each an entry: failures, additions, skewed load. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim/sip/world.h"

#define ROOM (HF_SIP_SERVERS_MAX) /* servers, also those that are added */
#define TICK HF_S(1)
#define QUIET HF_S(180) /* without a move: it has settled */
#define PATIENCE HF_S(30)
#define LIMIT HF_S(4 * 3600)
#define ACTIVE 8 /* activity of an average client */

struct list {
    uint32_t *client; /* owned */
    uint32_t n, room;
};

struct sim {
    struct hf_sip_fleet *fleet;
    struct hf_sip_rebalance *r;
    struct hf_sip_rebalance_conf conf;
    struct hf_prng prng;
    hf_time now;
    uint16_t n_servers;
    uint32_t n_clients;
    uint16_t *home;    /* by client */
    uint8_t *activity; /* ... requests, in proportion */
    uint16_t *bucket;
    bool *pinned;
    struct list of[ROOM];    /* clients by `current` */
    uint64_t busy[ROOM];     /* sum of their activity */
    uint32_t n_pinned[ROOM]; /* at home */
    uint16_t weight[ROOM];
    uint32_t *astray; /* [current][home], not pinned; 2nd half: pinned */
    uint64_t moved, moved_now;
    uint32_t inflow[ROOM]; /* this tick, paced */
    double step_ms_max, step_ms;
    uint64_t n_steps;
    bool idle; /* nobody does anything: figures are chance */
    int failed;
    FILE *json;
    const char *sep;
};

static struct sim s;

static uint32_t *astray_of(uint16_t current, uint16_t home, bool pinned)
{
    return &s.astray[((size_t)pinned * ROOM + current) * ROOM + home];
}

static void put(uint32_t client, uint16_t to)
{
    struct list *l = &s.of[to];
    if (l->n == l->room) {
        l->room = l->room ? l->room * 2 : 1024;
        l->client = sim_realloc(l->client, l->room * sizeof(*l->client));
    }
    l->client[l->n++] = client;
    s.busy[to] += s.activity[client];
    if (s.home[client] != to) {
        ++*astray_of(to, s.home[client], s.pinned[client]);
    } else {
        s.n_pinned[to] += s.pinned[client];
    }
}

static uint32_t take_out(uint16_t from, uint32_t at)
{
    struct list *l = &s.of[from];
    uint32_t client = l->client[at];
    l->client[at] = l->client[--l->n];
    s.busy[from] -= s.activity[client];
    if (s.home[client] != from) {
        --*astray_of(from, s.home[client], s.pinned[client]);
    } else {
        s.n_pinned[from] -= s.pinned[client];
    }
    return client;
}

static bool suits(const struct hf_sip_move *m, uint32_t c)
{
    switch ((enum hf_sip_who)m->who) {
    case HF_SIP_WHO_ALL:
        return s.bucket[c] >= m->bucket_first && s.bucket[c] <= m->bucket_last;
    case HF_SIP_WHO_ANY:
        return true;
    case HF_SIP_WHO_LOOSE:
        return !s.pinned[c];
    case HF_SIP_WHO_HOMING:
        return !s.pinned[c] && s.home[c] == m->to;
    case HF_SIP_WHO_PINNED:
        return s.pinned[c] && s.home[c] == m->to;
    case HF_SIP_WHO_COUNT_:
        break;
    }
    return false;
}

static void move_one(const struct hf_sip_move *m, uint32_t at)
{
    uint32_t c = take_out(m->from, at);
    if (m->reason == HF_SIP_MOVE_BALANCE && m->who == HF_SIP_WHO_LOOSE) {
        s.home[c] = m->to;
    }
    put(c, m->to);
}

/* As one SQL statement does it: whom it takes has nothing to do with how busy they are. */
static void carry_out(const struct hf_sip_move *m)
{
    struct list *l = &s.of[m->from];
    bool any = m->who == HF_SIP_WHO_ANY || m->who == HF_SIP_WHO_LOOSE;
    uint32_t n = 0;
    while (any && n < m->n && l->n > s.n_pinned[m->from]) {
        uint32_t i = (uint32_t)hf_prng_below(&s.prng, l->n);
        if (suits(m, l->client[i])) {
            move_one(m, i);
            n++;
        }
    }
    for (uint32_t i = l->n; i-- > 0 && (n < m->n || m->who == HF_SIP_WHO_ALL);) {
        if (suits(m, l->client[i])) {
            move_one(m, i);
            n++;
        }
    }
    s.moved += n;
    s.moved_now += n;
    if (m->reason != HF_SIP_MOVE_DEAD) {
        s.inflow[m->to] += n;
    }
}

/* What a server's machine has to do: 40 % of it with an average share of average clients. */
static uint32_t cpu(uint16_t i)
{
    double fair = (double)s.n_clients * ACTIVE / s.n_servers;
    double v = 400.0 * (double)s.busy[i] * 2.5 / (fair * s.weight[i]);
    return v > 1000 ? 1000 : (uint32_t)v;
}

static struct hf_sip_load load_of(uint16_t i, bool up)
{
    struct hf_sip_load l = {.clients = s.of[i].n, .pinned = s.n_pinned[i]};
    if (up && s.idle) {
        uint64_t some = hf_prng_below(&s.prng, 12) * s.of[i].n * s.n_servers;
        l.requests_s = (uint32_t)(some / s.n_clients);
        l.cpu = (uint32_t)hf_prng_below(&s.prng, 8);
    } else if (up) {
        l.requests_s = (uint32_t)(s.busy[i] / 100);
        l.cpu = cpu(i);
    }
    return l;
}

static bool alive(uint16_t i)
{
    return hf_sip_fleet_alive(s.fleet, i);
}

static void tell(void)
{
    static struct hf_sip_astray list[ROOM * 64];
    size_t n = 0;
    for (uint16_t i = 0; i < s.n_servers; i++) {
        struct hf_sip_load l = load_of(i, alive(i));
        hf_sip_rebalance_load(s.r, i, &l);
        for (uint16_t k = 0; k < s.n_servers && n < sizeof(list) / sizeof(*list); k++) {
            uint32_t loose = *astray_of(i, k, false), pinned = *astray_of(i, k, true);
            if (loose + pinned > 0) {
                list[n++] = (struct hf_sip_astray){
                    .current = i, .home = k, .clients = loose, .pinned = pinned};
            }
        }
    }
    hf_sip_rebalance_astray(s.r, list, n);
}

static void set(uint16_t i, enum hf_sip_server_state state)
{
    hf_sip_fleet_set(
        s.fleet, i,
        &(struct hf_sip_server){.state = (uint8_t)state, .homes = true, .weight = s.weight[i]});
}

static void fail(const char *what, uint64_t got, uint64_t bound)
{
    printf("  FAILED: %s: %" PRIu64 ", no more than %" PRIu64 " expected\n", what, got, bound);
    s.failed = 1;
}

static size_t step(void)
{
    const struct hf_sip_move *m;
    s.now += TICK;
    tell();
    memset(s.inflow, 0, sizeof(s.inflow));
    s.moved_now = 0;
    struct timespec a, b;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    size_t n = hf_sip_rebalance_step(s.r, s.now, &m);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
    s.step_ms_max = ms > s.step_ms_max ? ms : s.step_ms_max;
    s.step_ms += ms;
    s.n_steps++;
    for (size_t i = 0; i < n; i++) {
        carry_out(&m[i]);
    }
    for (uint16_t i = 0; i < s.n_servers; i++) { /* one may be left of the second before */
        if (s.inflow[i] > s.conf.rate_to + 1) {
            fail("clients sent to one server in a second", s.inflow[i], s.conf.rate_to + 1);
        }
    }
    return n;
}

/* ---- what is measured ---- */

/* Load over share by what the rebalancer measures, of all that have a share. */
static void extremes(double *ret_low, double *ret_high)
{
    *ret_low = 1e9;
    *ret_high = 0;
    for (uint16_t i = 0; i < s.n_servers; i++) {
        struct hf_sip_standing st;
        hf_sip_rebalance_standing(s.r, i, &st);
        if (st.takes && st.share > 0) {
            double x = (double)st.load / (double)st.share;
            *ret_low = x < *ret_low ? x : *ret_low;
            *ret_high = x > *ret_high ? x : *ret_high;
        }
    }
}

/*
 * Fewer moves can't bring all into the dead zone: each takes one client from one server and gives
 * it to one. All clients of a server are taken as equal, and those that come as average ones.
 * Servers that are dead or drained have to lose all. n: clients as they were when the load was
 * measured.
 */
static uint64_t minimum(const uint32_t *n)
{
    double go = 0, over = 0, under = 0, all = 0, clients = 1;
    for (uint16_t i = 0; i < s.n_servers; i++) {
        struct hf_sip_standing st;
        hf_sip_rebalance_standing(s.r, i, &st);
        double cost = n[i] > 0 ? (double)st.load / n[i] : 1000, load = (double)st.load;
        if (hf_sip_fleet_get(s.fleet, i)->state != HF_SIP_SERVER_LIVE) {
            go += n[i];
        } else if (st.takes) {
            double high = (double)st.share * (100 + s.conf.dead_zone) / 100;
            double low = (double)st.share * (100 - s.conf.dead_zone) / 100;
            all += load;
            clients += n[i];
            over += load > high ? (load - high) / cost : 0;
            under += load < low ? low - load : 0;
        }
    }
    under /= all / clients;
    return (uint64_t)(go + over > under ? go + over : under);
}

struct result {
    const char *name;
    uint64_t moved, minimum;
    double worst, low, high, next_in_list;
    hf_time inside, rest;
    hf_time outside; /* so long in the end, without a break */
};

/* Until nothing has moved for so long. The bound is what has moved before balance begins (which had
 * to: from drained servers, pinned clients) and what is least then. */
static void settle(struct result *res)
{
    hf_time began = s.now, last = s.now, inside = s.now, was_inside = s.now;
    uint64_t before = s.moved, bound = 0;
    double low = 1, high = 1;
    bool balanced = false;
    res->worst = 0;
    for (bool first = true; s.now - last < QUIET && s.now - began < LIMIT; first = false) {
        uint32_t n[ROOM];
        uint64_t moved = s.moved - before;
        for (uint16_t i = 0; i < s.n_servers; i++) {
            n[i] = s.of[i].n;
        }
        enum hf_sip_balance was = hf_sip_rebalance_state(s.r);
        if (step() > 0) {
            last = s.now;
        }
        bool begins =
            was != HF_SIP_BALANCE_MOVING && hf_sip_rebalance_state(s.r) == HF_SIP_BALANCE_MOVING;
        if (first || (begins && !balanced)) {
            uint64_t m = moved + minimum(n);
            bound = m > bound ? m : bound;
            balanced |= begins;
        }
        extremes(&low, &high);
        if (!first) {
            res->worst = high > res->worst ? high : res->worst;
        }
        if (high > 1 + s.conf.dead_zone / 100.0 || low < 1 - s.conf.dead_zone / 100.0) {
            inside = s.now;
        } else {
            was_inside = s.now;
        }
    }
    res->moved = s.moved - before;
    res->minimum = bound;
    res->low = low;
    res->high = high;
    res->inside = inside - began;
    res->outside = s.now - was_inside;
    res->rest = last - began;
}

static void report(const struct result *r)
{
    char next[32] = "";
    if (r->next_in_list > 0) {
        snprintf(next, sizeof(next), "%.2f", r->next_in_list);
    }
    printf("%-28s %9" PRIu64 " %9" PRIu64 " %6.3f  %5.2f  %4.2f - %4.2f %7d s %6d s  %s\n", r->name,
           r->moved, r->minimum, r->minimum > 0 ? (double)r->moved / (double)r->minimum : 1.0,
           r->worst, r->low, r->high, (int)(r->inside / HF_NS_PER_S), (int)(r->rest / HF_NS_PER_S),
           next);
    if (s.json != NULL) {
        fprintf(s.json,
                "%s\n    {\"event\": \"%s\", \"moved\": %" PRIu64 ", \"minimum\": %" PRIu64
                ", \"worst\": %.3f, \"low\": %.3f, \"high\": %.3f, \"inside_s\": %d, "
                "\"rest_s\": %d}",
                s.sep, r->name, r->moved, r->minimum, r->worst, r->low, r->high,
                (int)(r->inside / HF_NS_PER_S), (int)(r->rest / HF_NS_PER_S));
        s.sep = ",";
    }
    uint64_t slack = r->minimum / 5 + s.n_servers; /* target_zone is inside dead_zone */
    if (r->moved > r->minimum + slack) {
        fail("clients moved", r->moved, r->minimum + slack);
    }
    /* figures that are chance go to and fro about the edge: who stays outside is to be moved */
    if (r->outside > PATIENCE) {
        fail("percent off its share in the end", (uint64_t)(100 * fmax(r->high - 1, 1 - r->low)),
             s.conf.dead_zone);
    }
}

static void event(const char *name)
{
    struct result r = {.name = name};
    settle(&r);
    report(&r);
}

/* ---- what happens ---- */

/* The first n servers from `from` on die at once: in the first second all their clients are placed,
 * and nobody else is moved. */
static void die(const char *name, uint16_t from, uint16_t n)
{
    struct result r = {.name = name};
    uint64_t had = 0, before = s.moved;
    for (uint16_t i = from; i < from + n; i++) {
        had += s.of[i].n;
        set(i, HF_SIP_SERVER_DEAD);
    }
    uint16_t next = (uint16_t)((from + n) % s.n_servers);
    r.next_in_list = (double)(s.of[next].n + had) / ((double)s.of[next].n + 1);
    (void)step();
    if (s.moved - before != had) {
        fail("clients moved at once", s.moved - before, had);
    }
    settle(&r);
    r.moved += had;
    r.minimum += had;
    r.rest = r.rest > 0 ? r.rest + TICK : TICK;
    report(&r);
}

static void boot(const char *name, uint16_t from, uint16_t n)
{
    for (uint16_t i = from; i < from + n; i++) {
        set(i, HF_SIP_SERVER_LIVE);
    }
    event(name);
}

static void add_servers(uint16_t n)
{
    for (uint16_t i = 0; i < n; i++) {
        char name[16];
        uint16_t no;
        snprintf(name, sizeof(name), "s%u", s.n_servers);
        if (hf_sip_fleet_add(s.fleet, hf_slice_str(name), &no) < 0) {
            exit(2);
        }
        s.weight[no] = (uint16_t)(1 + hf_prng_below(&s.prng, 4));
        s.n_servers++;
        set(no, HF_SIP_SERVER_LIVE);
    }
}

static void skew(uint16_t n, unsigned times)
{
    for (uint16_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < s.of[i].n; k++) {
            uint8_t *a = &s.activity[s.of[i].client[k]];
            unsigned v = *a * times;
            s.busy[i] -= *a;
            *a = (uint8_t)(v > 255 ? 255 : v);
            s.busy[i] += *a;
        }
    }
}

static void begin(const struct swx_options *o)
{
    memset(&s, 0, sizeof(s));
    hf_prng_init(&s.prng, o->seed);
    s.now = HF_S(1000);
    s.n_clients = o->clients;
    /* what the defaults come to for 10 million, in proportion */
    s.conf.rate = o->clients / 5000 + 100;
    s.conf.rate_to = s.conf.rate / 10;
    s.conf.dead_zone = 10;
    s.conf.patience = PATIENCE;
    s.home = sim_alloc(o->clients * sizeof(*s.home));
    s.bucket = sim_alloc(o->clients * sizeof(*s.bucket));
    s.activity = sim_alloc(o->clients);
    s.pinned = sim_alloc(o->clients * sizeof(*s.pinned));
    s.astray = sim_alloc((size_t)2 * ROOM * ROOM * sizeof(*s.astray));
    if (hf_sip_fleet_create(&s.fleet) < 0 ||
        hf_sip_rebalance_create(&s.conf, s.fleet, s.now, &s.r) < 0) {
        exit(2);
    }
    add_servers((uint16_t)o->servers);
    uint64_t upto[ROOM], all = 0;
    for (uint16_t i = 0; i < s.n_servers; i++) {
        upto[i] = all += s.weight[i];
    }
    for (uint32_t c = 0; c < o->clients; c++) {
        /* by weight and chance, which is what rendezvous comes to */
        uint64_t point = hf_prng_below(&s.prng, all);
        uint16_t lo = 0, hi = (uint16_t)(s.n_servers - 1);
        while (lo < hi) {
            uint16_t mid = (uint16_t)((lo + hi) / 2);
            if (upto[mid] > point) {
                hi = mid;
            } else {
                lo = (uint16_t)(mid + 1);
            }
        }
        uint64_t x = hf_prng_u64(&s.prng);
        s.home[c] = lo;
        s.bucket[c] = (uint16_t)x;
        s.activity[c] = (uint8_t)(1 + (x >> 16) % (2 * ACTIVE - 1));
        s.pinned[c] = (x >> 32) % 100 == 0;
        put(c, lo);
    }
}

static void end(void)
{
    for (uint16_t i = 0; i < s.n_servers; i++) {
        free(s.of[i].client);
    }
    free(s.home);
    free(s.bucket);
    free(s.activity);
    free(s.pinned);
    free(s.astray);
    hf_sip_rebalance_destroy(s.r);
    hf_sip_fleet_destroy(s.fleet);
}

int swx_balance(const struct swx_options *o)
{
    if (o->servers < 40 || o->servers > ROOM - 50 || o->clients < o->servers * 100) {
        fprintf(stderr, "sim-sip: 40 to %u servers, 100 clients for each\n", ROOM - 50);
        return 2;
    }
    begin(o);
    s.json = o->json != NULL ? fopen(o->json, "w") : NULL;
    s.sep = "";
    if (s.json != NULL) {
        fprintf(s.json, "{\"servers\": %u, \"clients\": %u, \"rate_s\": %u, \"events\": [",
                o->servers, o->clients, s.conf.rate);
    }
    uint16_t rack = (uint16_t)(o->servers / 20);
    printf("%u servers of weights 1 to 4, %u clients, 1 %% pinned; paced at %u/s, %u/s to one\n",
           o->servers, o->clients, s.conf.rate, s.conf.rate_to);
    printf("load of share: worst on the way, and least to most in the end; inside: all within 10 "
           "%%\n");
    printf("%-28s %9s %9s %6s %6s %12s %9s %8s  next in list\n", "event", "moved", "minimum",
           "ratio", "worst", "in the end", "inside", "at rest");
    event("start");
    s.idle = true;
    event("nobody does anything");
    s.idle = false;
    event("as busy as before");
    die("one server dies", 7, 1);
    boot("it comes back", 7, 1);
    die("a rack dies", 20, rack);
    boot("it comes back", 20, rack);
    add_servers((uint16_t)(o->servers / 10));
    event("a tenth more servers");
    skew((uint16_t)(o->servers / 40), 3);
    event("some clients 3 times as busy");
    set(3, HF_SIP_SERVER_DRAINING);
    set(4, HF_SIP_SERVER_DRAINING);
    event("two servers drained");
    s.weight[9] = (uint16_t)(s.weight[9] * 2);
    set(9, HF_SIP_SERVER_LIVE);
    event("one has twice the weight");
    die("a rack dies, others drained", 40, rack);
    printf("%" PRIu64 " looks of %.2f ms CPU (at most %.2f ms)\n", s.n_steps,
           s.step_ms / (double)s.n_steps, s.step_ms_max);
    if (s.json != NULL) {
        fprintf(s.json, "\n  ], \"step_ms\": %.3f, \"step_ms_max\": %.3f}\n",
                s.step_ms / (double)s.n_steps, s.step_ms_max);
        fclose(s.json);
    }
    int failed = s.failed;
    end();
    return failed;
}
