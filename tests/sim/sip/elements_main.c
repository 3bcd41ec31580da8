/* sim-sip-element: whole SIP servers on real messages: random worlds, and documented scenarios. */
#include <string.h>

#include "sim/runner.h"
#include "sim/sip/elements.h"

static struct ew_world x;

static uint64_t below(uint64_t n)
{
    return ew_below(&x, n);
}

static void begin(uint64_t seed)
{
    struct hf_prng g;
    hf_prng_init(&g, seed ^ 0xe1e);
    uint16_t n = (uint16_t)(2 + hf_prng_below(&g, EW_SERVERS - 1));
    uint16_t edges = n > 2 && hf_prng_below(&g, 2);
    x.policy = (enum hf_sip_policy)hf_prng_below(&g, HF_SIP_POLICY_COUNT_);
    x.must_authenticate = hf_prng_below(&g, 4) != 0;
    x.feed_every = hf_prng_below(&g, 3) ? HF_MS(20 + (hf_time)hf_prng_below(&g, 200))
                                        : HF_S(5 + (hf_time)hf_prng_below(&g, 30));
    if (n > 3 && hf_prng_below(&g, 3) == 0) {
        x.server[n - 2].role = HF_SIP_ROLE_DISTRIBUTION;
    }
    ew_init(&x, seed, n, (uint16_t)(1 + hf_prng_below(&g, EW_CLIENTS)), edges);
    x.net.weather = (struct sim_weather){.loss = (uint32_t)below(800),
                                         .dup = (uint32_t)below(300),
                                         .late = (uint32_t)below(300),
                                         .latency = HF_MS(1),
                                         .spread = HF_MS(1 + (hf_time)below(50)),
                                         .late_spread = HF_S(1)};
    for (uint32_t i = 0; i < x.n_clients; i++) {
        struct ew_client *c = &x.client[i];
        c->habit = (enum ew_habit)below(3);
        c->place = below(3) ? EW_INTERNAL : edges && below(2) ? EW_EDGE : EW_FOREIGN;
        c->tcp = c->place != EW_FOREIGN && below(3) == 0;
        c->forges = below(6) == 0;
        c->call_id = i + 1;
        c->registrar = c->place == EW_EDGE ? (uint16_t)(n - 1) : 0;
        ew_set_timer(&x, i, (hf_time)below((uint64_t)HF_S(20)), false);
        if (!x.must_authenticate && below(2)) { /* else it would want credentials of a user */
            c->watch = (struct ew_watch){.wants = true, .whom = (i + 1) % x.n_clients};
            ew_set_watch_timer(&x, i, (hf_time)below((uint64_t)HF_S(60)));
        }
    }
}

/* Whether it finds somebody now is not said, but nothing loops. */
static void call(uint32_t client, uint16_t server)
{
    if (x.must_authenticate) {
        return; /* it would want credentials of a user: see the stories */
    }
    ew_call(&x, client, (uint32_t)below(x.n_clients), server);
    ew_set_timer(&x, client, HF_S(1), false);
}

static void fault(void)
{
    uint16_t s = (uint16_t)below(x.n_servers);
    uint32_t c = (uint32_t)below(x.n_clients);
    switch (below(13)) {
    case 0:
    case 1:
        ew_crash(&x, s);
        break;
    case 2:
    case 3:
        ew_boot(&x, s);
        break;
    case 4:
        ew_database(&x, !x.db_there);
        break;
    case 5:
        x.server[s].cut = !x.server[s].cut;
        ew_tell(&x, "-- %s %s the database", cast_server(s),
                x.server[s].cut ? "is cut from" : "reaches");
        break;
    case 6:
    case 7: {
        uint16_t to = (uint16_t)below(x.n_servers);
        if (x.db_there && x.row[c].used && x.server[to].role == HF_SIP_ROLE_HOME) {
            ew_assign(&x, c, to);
        }
        break;
    }
    case 8:
    case 9:
    case 10:
    case 11:
        call(c, s);
        break;
    default:
        if (x.server[s].up) {
            hf_sip_element_shed(x.server[s].e, (enum hf_sip_shed)below(2));
        }
        break;
    }
}

static bool stored(uint32_t i)
{
    for (size_t k = 0; k < EW_BINDINGS; k++) {
        if (x.row[i].binding[k].used && x.row[i].binding[k].until > x.net.now) {
            return true;
        }
    }
    return false;
}

/* Only those can't register whom the policy locks out. */
static bool locked_out(uint32_t i)
{
    const struct ew_client *c = &x.client[i];
    return c->habit == EW_IGNORES && c->place == EW_INTERNAL && x.policy == HF_SIP_POLICY_REDIRECT;
}

/* Whoever was stored as a watcher has been told of each move: what he takes for his dialog is one.
 */
static void check_watchers(void)
{
    for (uint32_t i = 0; i < x.n_clients; i++) {
        struct ew_watch *v = &x.client[i].watch;
        if (!v->wants) {
            continue;
        }
        if (!v->active) {
            ew_failed(&x, "%s can't watch %s: %u", cast_client(i), cast_client(v->whom), v->status);
        }
        ew_watch_refresh(&x, i);
        ew_pass(&x, HF_S(1));
        if (v->status != 200 && v->was_kept) {
            ew_failed(&x, "%s was never told that %s has moved: %u", cast_client(i),
                      cast_client(v->whom), v->status);
        }
        x.n_watching += v->status == 200;
    }
}

static uint16_t another_home(uint32_t i)
{
    uint16_t to = (uint16_t)below(x.n_servers);
    for (uint16_t k = 0; k < x.n_servers; k++) {
        uint16_t s = (uint16_t)((to + k) % x.n_servers);
        if (x.server[s].role == HF_SIP_ROLE_HOME && s != x.row[i].current) {
            return s;
        }
    }
    return x.row[i].current;
}

/* A call rings, and its callee moves, perhaps more than once: its CANCEL ends it, and its end is
 * acknowledged (a home repeats what is not). */
static void check_ringing(uint32_t i, uint32_t from, uint16_t server)
{
    struct ew_client *c = &x.client[i], *caller = &x.client[from];
    uint32_t before = c->cancelled;
    unsigned moves = (unsigned)below(3);
    ew_ring(&x, from, i, server);
    ew_pass(&x, HF_MS(500));
    if (!c->invite[0] || caller->call_status != 180) {
        ew_failed(&x, "a call to %s does not ring: %u", cast_client(i), caller->call_status);
    }
    for (unsigned k = 0; k < moves; k++) {
        ew_assign(&x, i, another_home(i));
        ew_pass(&x, (hf_time)below((uint64_t)HF_MS(300)));
    }
    ew_cancel(&x, from, server);
    ew_pass(&x, HF_S(5));
    if (c->cancelled != before + 1 || caller->call_status != 487 || caller->refused != 1) {
        ew_failed(&x, "a call to %s that rings is cancelled after %u moves: %u times, %u, %u times",
                  cast_client(i), moves, c->cancelled - before, caller->call_status,
                  caller->refused);
    }
}

static void end(void)
{
    ew_tell(&x, "-- all is well from now on");
    ew_database(&x, true);
    x.net.weather = (struct sim_weather){.latency = HF_MS(1), .spread = HF_MS(5)};
    for (uint16_t i = 0; i < x.n_servers; i++) {
        x.server[i].cut = false;
        ew_boot(&x, i);
        hf_sip_element_shed(x.server[i].e, HF_SIP_SHED_NOTHING);
    }
    x.feed_every = HF_MS(100);
    ew_pass(&x, HF_S(400));
    for (uint32_t i = 0; i < x.n_clients; i++) {
        if (!locked_out(i) &&
            (x.client[i].registered < x.net.now || !x.row[i].used || !stored(i))) {
            ew_failed(&x, "%s is not well in the end: %s's, %s, binding %s", cast_client(i),
                      cast_server(x.row[i].current),
                      x.client[i].registered > x.net.now ? "registered" : "not registered",
                      stored(i) ? "stored" : "not stored");
        }
    }
    check_watchers();
    if (x.must_authenticate) {
        return; /* a call would want credentials of a user: see the stories */
    }
    for (uint32_t i = 0; i < x.n_clients; i++) {
        uint32_t from = (i + 1) % x.n_clients, heard = x.client[i].heard;
        if (locked_out(i)) {
            continue;
        }
        uint16_t s = (uint16_t)below(x.n_servers);
        if (below(2)) { /* not everybody knows it yet */
            ew_assign(&x, i, another_home(i));
            ew_pass(&x, (hf_time)below((uint64_t)HF_MS(150)));
        }
        ew_call(&x, from, i, s);
        ew_pass(&x, HF_S(3));
        if (x.client[i].heard == heard || x.client[from].call_status != 200) {
            ew_failed(&x, "a call to %s does not find it: %u", cast_client(i),
                      x.client[from].call_status);
        }
        x.n_found++;
        check_ringing(i, from, s);
        ew_set_timer(&x, from, HF_MS(1), false);
        ew_pass(&x, HF_S(1));
    }
}

static void run(uint64_t seed, FILE *trace, struct sim_run *ret)
{
    jmp_buf fail;
    memset(&x, 0, sizeof(x));
    x.fail = &fail;
    x.trace = trace;
    if (setjmp(fail) == 0) {
        begin(seed);
        unsigned n = (unsigned)below(60);
        for (unsigned i = 0; i < n; i++) {
            ew_pass(&x, (hf_time)below((uint64_t)HF_S(below(2) ? 2 : 30)));
            fault();
        }
        end();
    }
    x.trace = NULL;
    ew_fini(&x);
    snprintf(ret->why, sizeof(ret->why), "%s", x.why);
    const uint64_t figure[] = {x.n_messages,    x.n_registers,  x.n_served,  x.n_redirects,
                               x.n_refused,     x.n_challenged, x.n_found,   x.n_moves,
                               x.n_watching,    x.n_told,       x.n_repeats, x.hops_max,
                               x.strip_hops_max};
    memcpy(ret->figure, figure, sizeof(figure));
}

static const char *const figures[] = {"messages",
                                      "registrations begun",
                                      "served",
                                      "redirects",
                                      "refused",
                                      "challenges",
                                      "calls that found their user",
                                      "moves",
                                      "watchers in the end",
                                      "times told to subscribe again",
                                      "times more",
                                      NULL};
static const char *const highest[] = {"servers for one request", "where URI parameters are dropped",
                                      NULL};

int main(int argc, char **argv)
{
    const struct sim_runner r = {
        .program = "sim-sip-element",
        .what = "many worlds of servers, a store and clients, one seed each",
        .runs = 200,
        .figures = figures,
        .highest = highest,
        .run = run,
        .prefix = "sip-element",
        .n_stories = EW_STORIES,
        .story = ew_story,
        .tell = ew_story_tell,
    };
    return sim_main(argc, argv, &r);
}
