/* Random schedules of homes: many small worlds, one seed each. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim/sip/world.h"

struct outcome {
    char why[300];
    uint64_t requests, served, redirects, proxied, refused, reads, moves, faults, calls, found;
    uint64_t hops_max, strip_hops_max;
};

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
        sw_tell(&x, "-- %s %s the database", sw_server_name(s),
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
                      sw_client_name(i), sw_server_name(x.db.row[i].current),
                      x.client[i].registered > x.net.now ? "registered" : "not registered",
                      x.db.binding[i].until > x.net.now ? "good" : "gone",
                      x.server[x.db.row[i].current].has[i].used ? "there" : "not there");
        }
    }
    for (uint32_t i = 0; i < x.n_clients; i++) {
        if (well(i)) {
            uint64_t found = x.n_found;
            sw_call(&x, (i + 1) % x.n_clients, i, (uint16_t)below(x.n_servers));
            sw_pass(&x, HF_S(3));
            if (x.n_found != found + 1) {
                sw_failed(&x, "a call to %s does not find it", sw_client_name(i));
            }
        }
    }
}

static void run_seed(uint64_t seed, FILE *trace, struct outcome *o)
{
    jmp_buf fail;
    memset(o, 0, sizeof(*o));
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
    snprintf(o->why, sizeof(o->why), "%s", x.why);
    o->requests = x.n_requests;
    o->served = x.n_served;
    o->redirects = x.n_redirects;
    o->proxied = x.n_proxied;
    o->refused = x.n_refused;
    o->reads = x.n_reads;
    o->moves = x.n_moves;
    o->faults = n_faults;
    o->calls = x.n_calls;
    o->found = x.n_found;
    o->hops_max = x.hops_max;
    o->strip_hops_max = x.strip_hops_max;
}

/* ---- many ---- */

struct shared {
    uint64_t seed; /* under way */
    uint64_t n_failed, done;
    struct outcome sum;
};

static void add(struct outcome *sum, const struct outcome *o)
{
    sum->requests += o->requests;
    sum->served += o->served;
    sum->redirects += o->redirects;
    sum->proxied += o->proxied;
    sum->refused += o->refused;
    sum->reads += o->reads;
    sum->moves += o->moves;
    sum->faults += o->faults;
    sum->calls += o->calls;
    sum->found += o->found;
    sum->hops_max = o->hops_max > sum->hops_max ? o->hops_max : sum->hops_max;
    sum->strip_hops_max =
        o->strip_hops_max > sum->strip_hops_max ? o->strip_hops_max : sum->strip_hops_max;
}

static void work(const struct swx_options *o, struct shared *sh, uint64_t from, uint64_t to,
                 time_t end)
{
    struct outcome out;
    for (uint64_t seed = from; seed < to && (!end || time(NULL) < end); seed++) {
        sh->seed = seed;
        run_seed(seed, NULL, &out);
        sh->done++;
        add(&sh->sum, &out);
        if (out.why[0]) {
            fprintf(stderr,
                    "seed %" PRIu64 " failed: %s\n  again: sim-sip --seed %" PRIu64
                    " --runs 1 --trace\n",
                    seed, out.why, seed);
            sh->n_failed++;
            if (!o->keep_going) {
                return;
            }
        }
    }
}

/* In a process of its own, so that an assert of a core ends only that. */
static bool range(const struct swx_options *o, struct shared *sh, uint64_t from, uint64_t to)
{
    time_t end = o->seconds ? time(NULL) + (time_t)o->seconds : 0;
    while (from < to) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            work(o, sh, from, to, end);
            fflush(NULL);
            _exit(0);
        }
        int status = 0;
        (void)waitpid(pid, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            return sh->n_failed == 0;
        }
        fprintf(stderr,
                "seed %" PRIu64 " failed: the process died (%d)\n  again: sim-sip --seed %" PRIu64
                " --runs 1 --trace\n",
                sh->seed, status, sh->seed);
        sh->n_failed++;
        if (!o->keep_going) {
            return false;
        }
        from = sh->seed + 1;
    }
    return sh->n_failed == 0;
}

int swx_chaos(const struct swx_options *o)
{
    struct outcome out;
    if (o->trace) {
        setvbuf(stdout, NULL, _IOLBF, 0);
        run_seed(o->seed, stdout, &out);
        printf("%s\n", out.why[0] ? out.why : "all held");
        return out.why[0] != 0;
    }
    struct shared *sh =
        mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sh == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    FILE *f = o->seeds ? fopen(o->seeds, "r") : NULL;
    char line[200], *after;
    while (f && fgets(line, sizeof(line), f)) { /* seeds that failed once */
        uint64_t seed = strtoull(line, &after, 10);
        if (after != line && !range(o, sh, seed, seed + 1) && !o->keep_going) {
            return 1;
        }
    }
    if (f) {
        fclose(f);
    }
    (void)range(o, sh, o->seed, o->seconds ? UINT64_MAX : o->seed + o->runs);
    const struct outcome *s = &sh->sum;
    printf(
        "%" PRIu64 " schedules (from seed %" PRIu64 "), %" PRIu64 " faults, %" PRIu64
        " registrations begun: %" PRIu64 " served, %" PRIu64 " redirects, %" PRIu64
        " proxied, %" PRIu64 " refused, %" PRIu64 " rows read; %" PRIu64 " clients moved; %" PRIu64
        " calls, %" PRIu64 " found; at most %" PRIu64 " servers for one request, %" PRIu64
        " where URI parameters are dropped; %" PRIu64 " schedules failed\n",
        sh->done, o->seed, s->faults, s->requests, s->served, s->redirects, s->proxied, s->refused,
        s->reads, s->moves, s->calls, s->found, s->hops_max, s->strip_hops_max, sh->n_failed);
    return sh->n_failed != 0;
}
