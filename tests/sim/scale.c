/* One large cluster on a shared store: churn, a partition that heals, and what it all costs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "sim/sim.h"
#include "sim/swim.h"
#include "sim/world.h"

enum { EV_BOOT = SIM_EVENT_USER, EV_CHANGE, EV_CRASH };

/* Times that something took, in microseconds. */
struct samples {
    uint32_t *us;
    size_t n, room;
};

/* What one host's others are waited for: a version to come, or the host to go or to come. */
struct watch {
    hf_time since;
    uint64_t version; /* 0: none */
    bool death;
};

struct scale {
    struct sim_world w;
    const struct sim_options *o;
    struct hf_prng g;
    struct watch *watch; /* by owner */
    struct samples change, change_all, death, heal;
    uint64_t n_changes, n_crashes, n_watched;
    hf_time period, healed_at;
    bool healing, changing;
    uint8_t *is_healed;
    uint32_t *value; /* by host: counts up */
    hf_time *last;   /* by owner: when the last host had the watched version */
    FILE *json;
    clock_t began;
};

static void sample(struct samples *s, hf_time t)
{
    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 1024;
        s->us = sim_realloc(s->us, s->room * sizeof(*s->us));
    }
    s->us[s->n++] = (uint32_t)(t / 1000);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile(const struct samples *s, double q)
{
    return s->n ? s->us[(size_t)((double)(s->n - 1) * q)] / 1000.0 : 0;
}

/* ---- results ---- */

static void put(struct scale *x, const char *key, double value)
{
    if (x->json) {
        fprintf(x->json, ",\n  \"%s\": %.10g", key, value);
    }
}

static void put2(struct scale *x, const char *a, const char *b, double value)
{
    char key[80];
    snprintf(key, sizeof(key), "%s_%s", a, b);
    put(x, key, value);
}

static void report_samples(struct scale *x, const char *key, const char *what, struct samples *s)
{
    qsort(s->us, s->n, sizeof(*s->us), by_size);
    printf("  %-44s %9.1f %9.1f %9.1f %9.1f   (%zu)\n", what, quantile(s, 0.5), quantile(s, 0.9),
           quantile(s, 0.99), quantile(s, 1), s->n);
    put2(x, key, "p50_ms", quantile(s, 0.5));
    put2(x, key, "p90_ms", quantile(s, 0.9));
    put2(x, key, "p99_ms", quantile(s, 0.99));
    put2(x, key, "max_ms", quantile(s, 1));
}

struct mark {
    struct sim_traffic t[SIM_CHANNEL_COUNT_];
    hf_time at;
    uint64_t pulls;
};

static struct mark mark(const struct scale *x)
{
    struct mark m = {.at = x->w.net.now, .pulls = x->w.n_pulls};
    memcpy(m.t, x->w.traffic, sizeof(m.t));
    return m;
}

/* Traffic since `m`, per host and second; pulls count at both their ends. */
static void report_traffic(struct scale *x, const char *key, const struct mark *m)
{
    struct mark now = mark(x);
    double each = (double)(now.at - m->at) / 1e9 * x->o->hosts;
    double packets[SIM_CHANNEL_COUNT_], bytes[SIM_CHANNEL_COUNT_];
    for (size_t i = 0; i < SIM_CHANNEL_COUNT_; i++) {
        packets[i] = (double)(now.t[i].packets - m->t[i].packets) / each;
        bytes[i] = (double)(now.t[i].bytes - m->t[i].bytes) / each;
    }
    double pull_packets = packets[SIM_PULLS] + packets[SIM_STATES];
    double pull_bytes = bytes[SIM_PULLS] + bytes[SIM_STATES];
    printf("  %-10s %7.1f s %8.2f %9.0f %9.1f %10.0f %9.1f %10.0f %10.3f\n", key,
           (double)(now.at - m->at) / 1e9, packets[SIM_SENT], bytes[SIM_SENT],
           packets[SIM_RECEIVED], bytes[SIM_RECEIVED], pull_packets, pull_bytes,
           (double)(now.pulls - m->pulls) / each);
    put2(x, key, "seconds", (double)(now.at - m->at) / 1e9);
    put2(x, key, "sent_packets_per_host_s", packets[SIM_SENT]);
    put2(x, key, "sent_bytes_per_host_s", bytes[SIM_SENT]);
    put2(x, key, "received_packets_per_host_s", packets[SIM_RECEIVED]);
    put2(x, key, "received_bytes_per_host_s", bytes[SIM_RECEIVED]);
    put2(x, key, "pull_packets_per_host_s", pull_packets);
    put2(x, key, "pull_bytes_per_host_s", pull_bytes);
    put2(x, key, "pulls_per_host_s", (double)(now.pulls - m->pulls) / each);
    fflush(stdout);
}

static void progress(const struct scale *x, const char *what)
{
    if (x->o->verbose) {
        fprintf(stderr, "[%7.1f s simulated, %6.1f s of processor] %s\n",
                (double)x->w.net.now / 1e9 - 1000, (double)(clock() - x->began) / CLOCKS_PER_SEC,
                what);
    }
}

/* ---- what the cores say ---- */

static void on_part(struct scale *x, const struct hf_dir_act *a)
{
    struct watch *watch = &x->watch[a->owner];
    if (watch->version && !watch->death && a->before && a->after &&
        a->before->key.version < watch->version && a->after->key.version >= watch->version) {
        sample(&x->change, x->w.net.now - watch->since);
        x->last[a->owner] = x->w.net.now;
    }
}

static void after(void *arg, struct sim_host *h, const struct hf_dir_in *in,
                  const struct sim_packet *packet)
{
    struct scale *x = arg;
    (void)in;
    (void)packet;
    for (uint32_t i = 0; i < h->out->n; i++) {
        const struct hf_dir_act *a = &h->out->act[i];
        if (a->kind == HF_DIR_ACT_PART && a->owner != h->index) {
            on_part(x, a);
        } else if (a->kind == HF_DIR_ACT_MEMBER && !a->up && x->watch[a->owner].death) {
            sample(&x->death, x->w.net.now - x->watch[a->owner].since);
        } else if (a->kind == HF_DIR_ACT_MEMBER && a->up && x->healing && !x->is_healed[h->index] &&
                   hf_dir_members(h->dir) == x->o->hosts) {
            x->is_healed[h->index] = 1;
            sample(&x->heal, x->w.net.now - x->healed_at);
        }
    }
}

static void publish(struct scale *x, uint32_t host, uint32_t service)
{
    char name[32], value[64];
    snprintf(name, sizeof(name), "/app/svc%u/h%u", service, host);
    snprintf(value, sizeof(value), "{\"port\":%u,\"load\":%u}", 5000 + service, ++x->value[host]);
    int rc = sim_publish(&x->w, host, name, value, 1, 0);
    if (rc) {
        fprintf(stderr, "FAILED: publish: %d\n", rc);
        exit(1);
    }
}

static void boot(struct scale *x, uint32_t host)
{
    sim_boot(&x->w, host);
    x->watch[host].version = 0;
    x->watch[host].death = false;
    for (uint32_t s = 0; s < x->o->services; s++) {
        publish(x, host, s);
    }
}

static void change(struct scale *x)
{
    uint32_t host = (uint32_t)hf_prng_below(&x->g, x->o->hosts);
    struct sim_host *h = &x->w.host[host];
    if (!h->on || hf_dir_state(h->dir) != HF_DIR_RUN) {
        return;
    }
    struct watch *watch = &x->watch[host];
    publish(x, host, (uint32_t)hf_prng_below(&x->g, x->o->services));
    x->n_changes++;
    if (x->changing && watch->version == 0 && x->n_watched < 300) {
        x->n_watched++;
        *watch = (struct watch){.since = x->w.net.now,
                                .version = hf_dir_part(h->dir, host)->key.version};
    }
}

static void on_event(void *arg, const struct sim_event *e)
{
    struct scale *x = arg;
    struct sim_host *h = &x->w.host[e->host];
    if (e->kind == EV_BOOT && !h->on) {
        boot(x, e->host);
    } else if (e->kind == EV_CRASH && h->on) {
        bool for_long = e->data != NULL;
        x->n_crashes++;
        x->last[e->host] = 0;
        sim_crash(&x->w, e->host, false);
        x->watch[e->host] = (struct watch){.since = x->w.net.now, .version = 1, .death = for_long};
        hf_time down = for_long ? 5 * x->period : HF_S(3);
        sim_net_at(&x->w.net, x->w.net.now + down, EV_BOOT, e->host, 0, NULL);
    } else if (e->kind == EV_CHANGE && x->changing) {
        change(x);
        hf_time pause = 2 * x->period * 10 / x->o->hosts; /* a tenth changes per two periods */
        sim_net_at(&x->w.net, x->w.net.now + pause, EV_CHANGE, 0, 0, NULL);
    }
}

/* ---- the story ---- */

/* Do all hosts run, and know each other, but for `lacking` pairs of them? */
static bool all_know_all(const struct scale *x, uint64_t lacking)
{
    uint64_t pairs = 0;
    for (uint32_t i = 0; i < x->o->hosts; i++) {
        const struct sim_host *h = &x->w.host[i];
        if (!h->on) {
            return false;
        }
        pairs += hf_dir_members(h->dir);
    }
    return pairs + lacking >= (uint64_t)x->o->hosts * x->o->hosts;
}

/*
 * Run until every host knows every other; exits if that takes too long. Of 100 million pairs a few
 * lose six heartbeats in a row: unless `all`, one pair in 10,000 need not be waited for.
 */
static void run_until_one(struct scale *x, bool all, const char *what)
{
    hf_time limit = 12 * x->period + HF_S(30), end = x->w.net.now + limit;
    uint64_t lacking = all ? 0 : (uint64_t)x->o->hosts * x->o->hosts / 10000;
    while (!all_know_all(x, lacking)) {
        if (x->w.net.now >= end) {
            fprintf(stderr, "FAILED: %s: not one cluster after %.0f s (seed %" PRIu64 ")\n", what,
                    (double)limit / 1e9, x->o->seed);
            exit(1);
        }
        sim_run(&x->w, x->w.net.now + x->period / 10);
        progress(x, what);
    }
}

static void run_for(struct scale *x, hf_time t, const char *what)
{
    for (hf_time end = x->w.net.now + t; x->w.net.now < end;) {
        sim_run(&x->w, hf_time_min(end, x->w.net.now + x->period / 2));
        progress(x, what);
    }
}

static void start(struct scale *x)
{
    struct mark m = mark(x);
    for (uint32_t i = 0; i < x->o->hosts; i++) {
        sim_net_at(&x->w.net, x->w.net.now + 2 * x->period * i / x->o->hosts, EV_BOOT, i, 0, NULL);
    }
    run_for(x, 2 * x->period, "start");
    run_until_one(x, false, "start");
    report_traffic(x, "start", &m);
    put(x, "start_s", (double)(x->w.net.now - m.at) / 1e9);
    /* heartbeats repeat a change eight times: only then they are short */
    run_for(x, x->o->hosts <= 1000 ? 9 * x->period : x->period / 2, "quiet");
    m = mark(x);
    run_for(x, x->period, "steady");
    report_traffic(x, "steady", &m);
}

static void churn(struct scale *x)
{
    struct mark m = mark(x);
    uint32_t dead = x->o->hosts / 100 < 20 ? x->o->hosts / 100 + 1 : 20;
    for (uint32_t i = 0; i < 2 * dead; i++) { /* half of them are back soon */
        uint32_t host = (uint32_t)hf_prng_below(&x->g, x->o->hosts);
        hf_time at = x->w.net.now + (hf_time)hf_prng_below(&x->g, (uint64_t)x->period);
        sim_net_at(&x->w.net, at, EV_CRASH, host, 0, i % 2 ? x : NULL);
    }
    x->changing = true;
    sim_net_at(&x->w.net, x->w.net.now, EV_CHANGE, 0, 0, NULL);
    run_for(x, 4 * x->period, "churn");
    x->changing = false;
    run_for(x, x->period, "churn");
    report_traffic(x, "churn", &m);
    run_until_one(x, false, "return");
}

static void partition(struct scale *x)
{
    struct mark m = mark(x);
    for (uint32_t i = 0; i < x->o->hosts; i++) {
        x->w.net.side[i] = i % 2;
    }
    run_for(x, 4 * x->period, "partition");           /* the other half is gone */
    for (uint32_t i = 0; i < x->o->hosts / 20; i++) { /* while they can't tell each other */
        change(x);
    }
    run_for(x, x->period / 8, "partition");
    report_traffic(x, "partition", &m);
    for (uint32_t i = 0; i < x->o->hosts; i++) {
        uint32_t members = hf_dir_members(x->w.host[i].dir);
        if (members > x->o->hosts / 2 + 1) {
            fprintf(stderr, "FAILED: a host sees %u members in half a cluster\n", members);
            exit(1);
        }
    }
    m = mark(x);
    memset(x->w.net.side, 0, x->o->hosts);
    x->healing = true;
    x->healed_at = x->w.net.now;
    run_until_one(x, true, "heal");
    report_traffic(x, "heal", &m);
}

static void same_tree(struct scale *x)
{
    for (uint32_t i = 0; i < x->o->hosts; i++) {
        for (uint32_t k = 0; k < x->o->hosts; k++) {
            struct hf_part *has = hf_dir_part(x->w.host[i].dir, k);
            struct hf_part *is = hf_dir_part(x->w.host[k].dir, k);
            if (!has || memcmp(&has->key, &is->key, sizeof(is->key)) != 0 ||
                is->n_entries != x->o->services) {
                fprintf(stderr, "FAILED: host %u has another part of host %u\n", i, k);
                exit(1);
            }
        }
    }
    printf("all %u hosts ended with the same tree: %u hosts, %" PRIu64 " services\n", x->o->hosts,
           x->o->hosts, (uint64_t)x->o->hosts * x->o->services);
    put(x, "same_tree", 1);
}

/* ---- beside it: gossip ---- */

static void report_swim(struct scale *x)
{
    double bytes = 0;
    for (uint32_t i = 0; i < x->o->hosts; i++) {
        bytes += hf_dir_part(x->w.host[i].dir, i)->bytes;
    }
    double per_s = (double)x->o->hosts / 20.0 / ((double)x->period / 1e9);
    struct swim_in in = {.hosts = x->o->hosts,
                         .loss = x->o->loss_percent / 100.0,
                         .services_bytes = bytes / x->o->hosts};
    struct swim_out idle = swim_cost(&in);
    in.changes_per_s = per_s;
    struct swim_out busy = swim_cost(&in);
    printf(
        "\nSWIM-style gossip with memberlist's LAN defaults, computed (received, per host and "
        "second)\n"
        "  steady: %.1f packets, %.0f bytes (probes %.0f, push/pull every %.0f s %.0f)\n"
        "  churn:  %.1f packets, %.0f bytes (%.1f changes/s in all, each sent %u times by each "
        "host)\n"
        "  a change reaches all in %.1f s, a death in %.1f s\n"
        "  assumes %.0f bytes of services per host as node meta (memberlist allows 512), AES-GCM, "
        "29 bytes per\n  packet, 28 of IP and UDP; formulae in doc/design/simulation.md\n",
        idle.packets, idle.bytes, idle.probe_bytes, idle.sync_interval_s, idle.sync_bytes,
        busy.packets, busy.bytes, per_s, busy.transmits, busy.spread_s, busy.death_s,
        in.services_bytes);
    put(x, "swim_steady_packets_per_host_s", idle.packets);
    put(x, "swim_steady_bytes_per_host_s", idle.bytes);
    put(x, "swim_churn_packets_per_host_s", busy.packets);
    put(x, "swim_churn_bytes_per_host_s", busy.bytes);
    put(x, "swim_change_s", busy.spread_s);
    put(x, "swim_death_s", busy.death_s);
}

static void report(struct scale *x, const struct mark *m)
{
    report_traffic(x, "overall", m);
    for (uint32_t i = 0; i < x->o->hosts; i++) {
        if (x->last[i]) {
            sample(&x->change_all, x->last[i] - x->watch[i].since);
        }
    }
    printf("\nTime to converge, ms %38s %9s %9s %9s\n", "p50", "p90", "p99", "max");
    report_samples(x, "change", "a change, until one other host has it", &x->change);
    report_samples(x, "change_all", "a change, until all others have it", &x->change_all);
    report_samples(x, "death", "a death, until one other host drops it", &x->death);
    report_samples(x, "heal", "the heal, until one host has all again", &x->heal);
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    double cpu = (double)(clock() - x->began) / CLOCKS_PER_SEC;
    printf("\n%zu bytes of state per (host, owner); %.2f GiB in all; %.0f s of processor for "
           "%.0f s simulated; %" PRIu64 " steps; %" PRIu64 " changes, %" PRIu64 " deaths\n",
           hf_dir_peer_size(), (double)use.ru_maxrss / (1 << 20), cpu,
           (double)(x->w.net.now - m->at) / 1e9, x->w.n_steps, x->n_changes, x->n_crashes);
    double idle = HF_DATAGRAM_HEAD_LEN_MAX - HF_HOST_NAME_MAX + x->w.host[0].name_len + 38 +
                  SIM_UDP_COST; /* a heartbeat whose changes have been repeated often enough */
    double per_s = (x->o->hosts - 1) / ((double)x->period / 1e9) * (100 - x->o->loss_percent) / 100;
    printf("a heartbeat that repeats nothing is %.0f bytes: %.0f packets, %.0f bytes per host and "
           "second when nothing changes\n",
           idle, per_s, per_s * idle);
    put(x, "idle_packets_per_host_s", per_s);
    put(x, "idle_bytes_per_host_s", per_s * idle);
    put(x, "peer_bytes", (double)hf_dir_peer_size());
    put(x, "rss_gib", (double)use.ru_maxrss / (1 << 20));
    put(x, "cpu_s", cpu);
    put(x, "simulated_s", (double)(x->w.net.now - m->at) / 1e9);
    put(x, "pulls_per_host", (double)(x->w.n_pulls - m->pulls) / x->o->hosts);
}

static void scale_init(struct scale *x, const struct sim_options *o)
{
    *x = (struct scale){.o = o, .began = clock()};
    hf_prng_init(&x->g, o->seed + 99);
    sim_world_init(&x->w, o->hosts, true, o->seed);
    x->w.net.weather.loss = o->loss_percent * 100;
    x->w.hooks = (struct sim_hooks){.arg = x, .after = after, .event = on_event};
    x->watch = sim_alloc(o->hosts * sizeof(*x->watch));
    x->value = sim_alloc(o->hosts * sizeof(*x->value));
    x->last = sim_alloc(o->hosts * sizeof(*x->last));
    x->is_healed = sim_alloc(o->hosts);
    uint32_t period = o->hosts * 1000 / HF_HEARTBEATS_PER_S_MAX;
    x->period = HF_MS(period > x->w.heartbeat_ms ? period : x->w.heartbeat_ms);
    for (uint32_t i = 0; i < o->hosts; i++) { /* ids in the store are host indices */
        x->w.host[i].dump = o->dump;
        uint32_t id =
            hf_dir_store_owner(x->w.shared, hf_slice(x->w.host[i].name, x->w.host[i].name_len));
        if (id != i) {
            abort();
        }
    }
    x->json = o->json ? fopen(o->json, "w") : NULL;
    if (x->json) {
        fprintf(x->json, "{\n  \"hosts\": %u,\n  \"services\": %u,\n  \"loss_percent\": %u",
                o->hosts, o->services, o->loss_percent);
    }
}

static void scale_fini(struct scale *x)
{
    if (x->json) {
        fprintf(x->json, "\n}\n");
        fclose(x->json);
    }
    sim_world_fini(&x->w);
    free(x->watch);
    free(x->value);
    free(x->last);
    free(x->is_healed);
    free(x->change.us);
    free(x->change_all.us);
    free(x->death.us);
    free(x->heal.us);
}

int sim_scale(const struct sim_options *o)
{
    struct scale x;
    scale_init(&x, o);
    printf("%u hosts, %u services each, %u %% loss, seed %" PRIu64 "; heartbeat period %.1f s\n\n"
           "Per host and second %13s %9s %9s %10s %9s %10s %10s\n"
           "  %-10s %9s %8s %9s %9s %10s %9s %10s %10s\n",
           o->hosts, o->services, o->loss_percent, o->seed, (double)x.period / 1e9, "sent", "",
           "received", "", "pulled", "", "", "phase", "", "packets", "bytes", "packets", "bytes",
           "packets", "bytes", "pulls");
    struct mark m = mark(&x);
    start(&x);
    churn(&x);
    partition(&x);
    run_for(&x, x.period, "settle");
    report(&x, &m);
    same_tree(&x);
    report_swim(&x);
    scale_fini(&x);
    return 0;
}
