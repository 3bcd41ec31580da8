/* Many small clusters, each from its own seed, with every fault there is. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sim/check.h"
#include "sim/sim.h"

#define PUBLISHERS 3
#define OLD_PACKETS 64
#define SETTLE HF_S(150)

enum { EV_CHAOS = SIM_EVENT_USER, EV_RESUME };

struct chaos {
    struct sim_world w;
    struct check c;
    struct hf_prng g;
    struct sim_packet *old[OLD_PACKETS]; /* to be replayed */
    uint32_t twin;                       /* host with another's name; n: none */
    hf_time pace;
    bool over;
    uint32_t value;
};

static uint64_t below(struct chaos *x, uint64_t n)
{
    return hf_prng_below(&x->g, n);
}

static void random_weather(struct chaos *x)
{
    static const uint32_t loss[] = {0, 0, 100, 1000, 3000, 6000};
    x->w.net.weather = (struct sim_weather){.loss = loss[below(x, 6)],
                                            .dup = (uint32_t)below(x, 3) * 500,
                                            .late = (uint32_t)below(x, 3) * 500,
                                            .latency = HF_MS(1) / 10,
                                            .spread = HF_MS(1 + (hf_time)below(x, 20)),
                                            .late_spread = HF_MS(300)};
    x->w.faults = (struct sim_faults){.pull_fails = (uint32_t)below(x, 3) * 1000,
                                      .pull_lies = (uint32_t)below(x, 3) * 700,
                                      .pull_slow = (uint32_t)below(x, 3) * 700,
                                      .disk_fails = (uint32_t)below(x, 2) * 3000,
                                      .no_memory = below(x, 4) ? 0 : 200};
}

static void boot(struct chaos *x, uint32_t host)
{
    if (!x->w.host[host].on) {
        sim_boot(&x->w, host);
        check_booted(&x->c, host);
    }
}

static void local_change(struct chaos *x, uint32_t host)
{
    struct sim_host *h = &x->w.host[host];
    if (!sim_is_up(h) || h->paused) {
        return;
    }
    uint32_t name = (uint32_t)below(x, CHECK_NAMES), publisher = 1 + (uint32_t)below(x, PUBLISHERS);
    uint64_t how = below(x, 100);
    for (uint64_t n = below(x, 30) ? 1 : 20; n > 0; n--) { /* now and then a burst */
        uint32_t lease = below(x, 3) ? 0 : 50 + (uint32_t)below(x, 5000);
        if (how < 60) {
            check_publish(&x->c, host, name, ++x->value, publisher, lease);
        } else if (how < 95) {
            check_withdraw(&x->c, host, name, publisher);
        } else {
            check_gone(&x->c, host, publisher);
        }
        name = (name + 1) % CHECK_NAMES;
    }
}

static void replay(struct chaos *x)
{
    struct sim_packet *p = x->old[below(x, OLD_PACKETS)];
    if (p) {
        sim_replay(&x->w, p, (uint32_t)below(x, x->w.n), HF_MS((hf_time)below(x, 50)));
    }
}

static void network_fault(struct chaos *x)
{
    struct sim_net *net = &x->w.net;
    switch (below(x, 4)) {
    case 0:
        for (uint32_t i = 0; i < x->w.n; i++) {
            net->side[i] = (uint8_t)below(x, 2);
        }
        break;
    case 1:
        net->cut[below(x, (uint64_t)x->w.n * x->w.n)] = 1;
        break;
    case 2:
        random_weather(x);
        break;
    default:
        memset(net->side, 0, x->w.n);
        memset(net->cut, 0, (size_t)x->w.n * x->w.n);
        break;
    }
}

static void host_fault(struct chaos *x, uint32_t host)
{
    struct sim_host *h = &x->w.host[host];
    uint64_t how = below(x, 10);
    if (!h->on) {
        boot(x, host);
    } else if (how < 3) {
        sim_crash(&x->w, host, below(x, 4) == 0);
    } else if (how < 4) { /* power cycle */
        sim_crash(&x->w, host, below(x, 4) == 0);
        boot(x, host);
    } else if (how < 6 && sim_is_up(h) && !h->paused) {
        sim_stop(&x->w, host);
    } else if (!h->paused && sim_is_up(h)) {
        sim_pause(&x->w, host);
        sim_net_at(&x->w.net, x->w.net.now + HF_MS(10 + (hf_time)below(x, 6000)), EV_RESUME, host,
                   h->boot, NULL);
    }
}

static void on_event(void *arg, const struct sim_event *e)
{
    struct chaos *x = HF_CONTAINER_OF(arg, struct chaos, c);
    if (e->kind == EV_RESUME) {
        if (x->w.host[e->host].boot == e->boot) {
            sim_resume(&x->w, e->host);
        }
        return;
    }
    if (x->over) {
        return;
    }
    uint32_t host = (uint32_t)below(x, x->w.n);
    uint64_t what = below(x, 100);
    if (what < 70) {
        local_change(x, host);
    } else if (what < 82) {
        replay(x);
    } else if (what < 90) {
        host_fault(x, host);
    } else {
        network_fault(x);
    }
    hf_time pause = (hf_time)below(x, (uint64_t)x->pace * 2);
    sim_net_at(&x->w.net, x->w.net.now + pause, EV_CHAOS, 0, 0, NULL);
}

static void on_sent(void *arg, struct sim_host *h, struct sim_packet *p)
{
    struct chaos *x = HF_CONTAINER_OF(arg, struct chaos, c);
    (void)h;
    uint64_t at = below(x, OLD_PACKETS * 4); /* some live long in here */
    if (at < OLD_PACKETS) {
        sim_packet_unref(x->old[at]);
        x->old[at] = sim_packet_ref(p);
    }
}

static void begin(struct chaos *x, uint64_t seed, const char *again)
{
    hf_prng_init(&x->g, seed * 2 + 1);
    uint32_t n = 2 + (uint32_t)below(x, 11);
    sim_world_init(&x->w, n, false, seed);
    check_init(&x->c, &x->w, again);
    x->w.hooks.event = on_event;
    x->w.hooks.sent = on_sent;
    x->w.heartbeat_ms = 100 + (uint32_t)below(x, 900);
    x->w.sync_ms = 1000 + (uint32_t)below(x, 9000);
    x->w.echo = below(x, 2);
    x->pace = HF_MS(10 + (hf_time)below(x, 200));
    x->twin = below(x, 4) || n < 3 ? n : n - 1;
    if (x->twin < n) {
        sim_host_rename(&x->w.host[x->twin], x->w.host[below(x, n - 1)].name);
    }
    uint64_t dump = below(x, 3);
    for (uint32_t i = 0; i < n; i++) {
        x->w.host[i].dump = dump == 2 || (dump == 1 && below(x, 2));
        x->w.host[i].anonymous = below(x, 4) == 0;
        if (below(x, 3)) {
            boot(x, i);
        }
    }
    if (below(x, 3)) {
        random_weather(x);
    }
}

/* Faults stop: everybody must come to the same tree in a bounded time. */
static void settle(struct chaos *x)
{
    struct sim_net *net = &x->w.net;
    x->over = true;
    x->w.faults = (struct sim_faults){0};
    net->weather = (struct sim_weather){.latency = HF_MS(1) / 5, .spread = HF_MS(1)};
    memset(net->side, 0, x->w.n);
    memset(net->cut, 0, (size_t)x->w.n * x->w.n);
    if (x->twin < x->w.n) {
        sim_crash(&x->w, x->twin, false);
    }
    for (uint32_t i = 0; i < x->w.n; i++) {
        sim_resume(&x->w, i);
        if (i != x->twin && below(x, 2)) {
            boot(x, i);
        }
    }
    sim_run(&x->w, net->now + SETTLE);
    check_same_tree(&x->c);
}

struct sums {
    uint64_t steps, stale, repairs, bystanders, refused, unsealed, hosts;
};

static void run(uint64_t seed, const char *program, struct sums *sums)
{
    struct chaos x = {0};
    char again[200];
    snprintf(again, sizeof(again), "%s --seed %" PRIu64 " --runs 1", program, seed);
    begin(&x, seed, again);
    sim_net_at(&x.w.net, x.w.net.now, EV_CHAOS, 0, 0, NULL);
    sim_run(&x.w, x.w.net.now + HF_S(5 + (hf_time)below(&x, 30)));
    settle(&x);
    sums->steps += x.w.n_steps;
    sums->stale += x.c.n_stale;
    sums->repairs += x.c.n_repairs;
    sums->bystanders += x.c.n_bystanders;
    sums->refused += x.c.n_refused;
    sums->unsealed += x.w.n_unsealed_probes;
    sums->hosts += x.w.n;
    for (size_t i = 0; i < OLD_PACKETS; i++) {
        sim_packet_unref(x.old[i]);
    }
    sim_world_fini(&x.w);
    check_fini(&x.c);
}

int sim_chaos(const struct sim_options *o)
{
    struct sums sums = {0};
    time_t end = time(NULL) + (time_t)o->seconds;
    uint64_t n = 0;
    for (; o->seconds ? time(NULL) < end : n < o->runs; n++) {
        if (o->verbose) {
            printf("seed %" PRIu64 "\n", o->seed + n);
            fflush(stdout);
        }
        run(o->seed + n, "sim-directory", &sums);
    }
    printf("%" PRIu64 " clusters (seeds %" PRIu64 "..%" PRIu64 "), %" PRIu64 " hosts, %" PRIu64
           " steps: all invariants held, all ended with one tree\n",
           n, o->seed, o->seed + n - 1, sums.hosts, sums.steps);
    printf("replays that changed nothing: %" PRIu64 "; local changes refused: %" PRIu64
           "; repairs: %" PRIu64 ", hosts asked other than the owner: %" PRIu64
           "; probes before there was a key: %" PRIu64 "\n",
           sums.stale, sums.refused, sums.repairs, sums.bystanders, sums.unsealed);
    return 0;
}
