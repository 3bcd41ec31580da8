/* Random schedules of homes: many small worlds, one seed each. */
#include <string.h>

#include "sim/sip/world.h"

static struct sw_world x;
static uint64_t n_faults;

static uint64_t below(uint64_t n)
{
    return sw_below(&x, n);
}

static void begin(uint64_t seed)
{
    struct hf_prng g;
    hf_prng_init(&g, seed ^ 0x51b);
    x.by_hand = false;
    sw_init(&x, seed, (uint16_t)(2 + hf_prng_below(&g, SW_SERVERS - 1)),
            (uint16_t)(1 + hf_prng_below(&g, SW_CLIENTS)));
    x.policy = (enum hf_sip_policy)below(HF_SIP_POLICY_COUNT_);
    x.must_authenticate = below(4) != 0;
    x.feed_every = below(3) ? HF_MS(20 + (hf_time)below(200)) : HF_S(5 + (hf_time)below(60));
    x.tree_delay = HF_MS(1 + (hf_time)below(2000));
    x.bytes_max = below(3) ? 0 : 80000 + below(400000);
    x.net.weather = (struct sim_weather){.latency = HF_MS(1),
                                         .spread = HF_MS(1 + (hf_time)below(50)),
                                         .late = (uint32_t)below(300),
                                         .late_spread = HF_S(1)};
    /* the last one may be an edge, the one before may home nobody */
    bool edge = x.n_servers > 2 && below(2);
    if (edge) {
        x.server[x.n_servers - 1].role = HF_SIP_ROLE_EDGE;
    }
    if (x.n_servers > 3 && below(3) == 0) {
        x.server[x.n_servers - 2].role = HF_SIP_ROLE_DISTRIBUTION;
    }
    for (uint16_t i = 0; i < x.n_servers; i++) {
        x.server[i].weight = (uint16_t)(1 + below(20));
    }
    for (uint16_t i = 0; i < x.n_servers; i++) {
        sw_look(&x, i);
    }
    for (uint32_t i = 0; i < x.n_clients; i++) {
        struct sw_client *c = &x.client[i];
        c->habit = (enum sw_habit)below(3);
        c->place = below(3) ? SW_INTERNAL : edge && below(2) ? SW_EDGE : SW_FOREIGN;
        c->forges = below(6) == 0;
        c->registrar = c->place == SW_EDGE ? (uint16_t)(x.n_servers - 1) : 0;
        sw_set_timer(&x, i, (hf_time)below((uint64_t)HF_S(20)));
    }
}

/* One thing, by chance. */
static void fault(void)
{
    uint16_t s = (uint16_t)below(x.n_servers);
    uint32_t c = (uint32_t)below(x.n_clients);
    n_faults++;
    switch (below(12)) {
    case 0:
    case 1:
        sw_crash(&x, s);
        break;
    case 2:
    case 3:
        sw_boot(&x, s);
        break;
    case 4:
        sw_drain(&x, s, !x.server[s].draining);
        break;
    case 5:
        sw_database(&x, !x.db.there);
        break;
    case 6:
        x.server[s].cut = !x.server[s].cut;
        sw_tell(&x, "-- %s %s the database", cast_server(s),
                x.server[s].cut ? "is cut from" : "reaches");
        break;
    case 7:
    case 8: { /* an operator moves somebody */
        uint16_t to = (uint16_t)below(x.n_servers);
        if (x.db.there && x.db.row[c].used && x.server[to].role == HF_SIP_ROLE_HOME) {
            x.db.row[c].pinned = below(3) == 0;
            sw_assign(&x, c, to, to);
        }
        break;
    }
    case 9: /* ... to where nobody is homed */
        if (x.db.there && x.db.row[c].used && below(4) == 0) {
            sw_assign(&x, c, s, s);
        }
        break;
    default:
        sw_call(&x, c, (uint32_t)below(x.n_clients), s);
        break;
    }
}

/* A row that an operator put where nobody is homed stays there for the leader to move. */
static bool well(uint32_t i)
{
    const struct sw_client *c = &x.client[i];
    const struct sw_row *r = &x.db.row[i];
    const struct sw_binding *b = &x.db.binding[i];
    return c->registered > x.net.now && r->used && x.server[r->current].up &&
           x.server[r->current].role == HF_SIP_ROLE_HOME && b->used && b->until > x.net.now &&
           x.server[r->current].has[i].used;
}

/* Only those can't register whom the policy locks out; and who pretends to follow, and does not. */
static bool locked_out(uint32_t i)
{
    const struct sw_client *c = &x.client[i];
    return c->habit == SW_IGNORES && c->place == SW_INTERNAL &&
           (x.policy == HF_SIP_POLICY_REDIRECT || (x.policy == HF_SIP_POLICY_AUTO && c->forges));
}

/* No faults any more: all are registered at their homes, and stay so, and calls find them. */
static void come_to_an_end(void)
{
    sw_tell(&x, "-- all is well from now on");
    sw_database(&x, true);
    for (uint16_t i = 0; i < x.n_servers; i++) {
        x.server[i].cut = false;
        sw_boot(&x, i);
        sw_drain(&x, i, false);
    }
    x.feed_every = HF_MS(100);
    sw_pass(&x, HF_S(400));
    for (uint32_t i = 0; i < x.n_clients; i++) {
        if (!locked_out(i) && !well(i)) {
            sw_failed(&x, "%s is not well registered in the end: %s's, %s, binding %s, %s",
                      cast_client(i), cast_server(x.db.row[i].current),
                      x.client[i].registered > x.net.now ? "registered" : "not registered",
                      x.db.binding[i].until > x.net.now ? "good" : "gone",
                      x.server[x.db.row[i].current].has[i].used ? "there" : "not there");
        }
    }
    for (uint32_t i = 0; i < x.n_clients; i++) {
        /* who is locked out may lose his meanwhile */
        if (well(i) && x.db.binding[i].until > x.net.now + HF_S(3)) {
            uint64_t found = x.n_found;
            sw_call(&x, (i + 1) % x.n_clients, i, (uint16_t)below(x.n_servers));
            sw_pass(&x, HF_S(3));
            if (x.n_found != found + 1) {
                sw_failed(&x, "a call to %s does not find it", cast_client(i));
            }
        }
    }
}

const char *const swx_figures[] = {
    "faults",    "registrations begun", "served", "redirects", "proxied", "refused",
    "rows read", "clients moved",       "calls",  "found",     NULL,
};
const char *const swx_highest[] = {
    "servers for one request",
    "where URI parameters are dropped",
    NULL,
};

void swx_run(uint64_t seed, FILE *trace, struct sim_run *ret)
{
    jmp_buf fail;
    memset(&x, 0, sizeof(x));
    x.fail = &fail;
    x.trace = trace;
    n_faults = 0;
    if (setjmp(fail) == 0) {
        begin(seed);
        unsigned n = (unsigned)below(60);
        for (unsigned i = 0; i < n; i++) {
            sw_pass(&x, (hf_time)below((uint64_t)HF_S(below(2) ? 2 : 30)));
            fault();
        }
        come_to_an_end();
    }
    x.trace = NULL;
    sw_fini(&x);
    snprintf(ret->why, sizeof(ret->why), "%s", x.why);
    const uint64_t figures[] = {n_faults,    x.n_requests, x.n_served, x.n_redirects,
                                x.n_proxied, x.n_refused,  x.n_reads,  x.n_moves,
                                x.n_calls,   x.n_found,    x.hops_max, x.strip_hops_max};
    memcpy(ret->figure, figures, sizeof(figures));
}
