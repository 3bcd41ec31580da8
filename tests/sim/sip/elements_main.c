/* sim-sip-element: whole SIP servers on real messages: random worlds, and documented scenarios. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

static bool run(uint64_t seed, FILE *trace)
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
    return x.why[0] == 0;
}

static const struct option options[] = {
    {"seed", required_argument, NULL, 's'},
    {"runs", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 't'},
    {"trace", no_argument, NULL, 'T'},
    {"seeds", required_argument, NULL, 'k'},
    {"golden", required_argument, NULL, 'g'},
    {"write", no_argument, NULL, 'w'},
    {"keep-going", no_argument, NULL, 'K'},
    {0},
};

static uint64_t number(void)
{
    char *after;
    errno = 0;
    unsigned long long n = strtoull(optarg, &after, 10);
    if (errno || after == optarg || *after) {
        fprintf(stderr, "sim-sip-element [--seed N] [--runs N | --seconds N] [--seeds FILE] "
                        "[--keep-going] [--trace]\n"
                        "sim-sip-element --golden DIRECTORY [--write]\n");
        exit(2);
    }
    return n;
}

static uint64_t done, failed, sums[11], maxima[2];

static bool one(uint64_t seed)
{
    bool ok = run(seed, NULL);
    done++;
    failed += !ok;
    const uint64_t now[11] = {x.n_messages, x.n_registers,  x.n_served, x.n_redirects,
                              x.n_refused,  x.n_challenged, x.n_found,  x.n_moves,
                              x.n_watching, x.n_told,       x.n_repeats};
    for (size_t i = 0; i < 11; i++) {
        sums[i] += now[i];
    }
    maxima[0] = x.hops_max > maxima[0] ? x.hops_max : maxima[0];
    maxima[1] = x.strip_hops_max > maxima[1] ? x.strip_hops_max : maxima[1];
    if (!ok) {
        fprintf(stderr,
                "seed %" PRIu64 " failed: %s\n  again: sim-sip-element --seed %" PRIu64
                " --runs 1 --trace\n",
                seed, x.why, seed);
    }
    return ok;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 200, seconds = 0;
    const char *golden = NULL, *seeds = NULL;
    bool trace = false, write = false, keep_going = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        seed = c == 's' ? number() : seed;
        runs = c == 'r' ? number() : runs;
        seconds = c == 't' ? number() : seconds;
        golden = c == 'g' ? optarg : golden;
        seeds = c == 'k' ? optarg : seeds;
        trace = trace || c == 'T';
        write = write || c == 'w';
        keep_going = keep_going || c == 'K';
    }
    if (golden) {
        return ew_stories(golden, write);
    }
    if (trace) {
        setvbuf(stdout, NULL, _IOLBF, 0);
        bool ok = run(seed, stdout);
        printf("%s\n", ok ? "all held" : x.why);
        return !ok;
    }
    FILE *f = seeds ? fopen(seeds, "r") : NULL;
    char line[200], *after;
    while (f && fgets(line, sizeof(line), f)) { /* seeds that failed once */
        uint64_t s = strtoull(line, &after, 10);
        if (after != line) {
            (void)one(s);
        }
    }
    if (f) {
        fclose(f);
    }
    time_t last = seconds ? time(NULL) + (time_t)seconds : 0;
    for (uint64_t i = 0; (last ? time(NULL) < last : i < runs) && (keep_going || !failed); i++) {
        (void)one(seed + i);
    }
    printf("%" PRIu64 " worlds (from seed %" PRIu64 "), %" PRIu64 " messages, %" PRIu64
           " registrations begun: %" PRIu64 " served, %" PRIu64 " redirects, %" PRIu64
           " refused, %" PRIu64 " challenges; %" PRIu64 " calls found their user; %" PRIu64
           " moves; %" PRIu64 " watchers in the end, told %" PRIu64
           " times to subscribe again and %" PRIu64 " times more; at most %" PRIu64
           " servers for one request, %" PRIu64 " where URI parameters are dropped; %" PRIu64
           " worlds failed\n",
           done, seed, sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6], sums[7],
           sums[8], sums[9], sums[10], maxima[0], maxima[1], failed);
    return failed != 0;
}
