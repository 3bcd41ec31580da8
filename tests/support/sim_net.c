#include "support/sim_net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIM_TRACE_MAX (256u << 10) /* bytes of a golden trace */

void *sim_realloc(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p) {
        fprintf(stderr, "sim: out of memory\n");
        exit(2);
    }
    return p;
}

void *sim_alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p) {
        fprintf(stderr, "sim: out of memory\n");
        exit(2);
    }
    return p;
}

bool sim_golden(const char *path, const char *trace, bool write)
{
    FILE *f = fopen(path, write ? "w" : "r");
    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    bool same = true;
    if (write) {
        fputs(trace, f);
    } else {
        char *want = sim_alloc(SIM_TRACE_MAX);
        want[fread(want, 1, SIM_TRACE_MAX - 1, f)] = 0;
        same = strcmp(want, trace) == 0;
        free(want);
    }
    fclose(f);
    return same;
}

void sim_net_init(struct sim_net *net, uint32_t n_hosts, bool cuts, uint64_t seed)
{
    *net = (struct sim_net){.n_hosts = n_hosts};
    hf_prng_init(&net->prng, seed);
    net->side = sim_alloc(n_hosts);
    net->cut = cuts ? sim_alloc((size_t)n_hosts * n_hosts) : NULL;
    net->now = HF_S(1000); /* a machine's clock does not begin at 0 either */
}

void sim_net_fini(struct sim_net *net)
{
    free(net->heap);
    free(net->side);
    free(net->cut);
    *net = (struct sim_net){0};
}

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void sim_net_at(struct sim_net *net, hf_time at, uint32_t kind, uint32_t host, uint32_t boot,
                void *data)
{
    if (net->n_events == net->room) {
        net->room = net->room ? net->room * 2 : 256;
        net->heap = sim_realloc(net->heap, net->room * sizeof(*net->heap));
    }
    struct sim_event e = {.at = at > net->now ? at : net->now,
                          .seq = net->seq++,
                          .kind = kind,
                          .host = host,
                          .boot = boot,
                          .data = data};
    size_t i = net->n_events++;
    while (i > 0 && before(&e, &net->heap[(i - 1) / 2])) {
        net->heap[i] = net->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    net->heap[i] = e;
}

bool sim_net_next(struct sim_net *net, hf_time until, struct sim_event *ret_event)
{
    if (net->n_events == 0 || net->heap[0].at > until) {
        net->now = until > net->now ? until : net->now;
        return false;
    }
    *ret_event = net->heap[0];
    struct sim_event last = net->heap[--net->n_events];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= net->n_events) {
            break;
        }
        if (child + 1 < net->n_events && before(&net->heap[child + 1], &net->heap[child])) {
            child++;
        }
        if (!before(&net->heap[child], &last)) {
            break;
        }
        net->heap[i] = net->heap[child];
        i = child;
    }
    if (net->n_events > 0) {
        net->heap[i] = last;
    }
    net->now = ret_event->at;
    return true;
}

bool sim_net_open(const struct sim_net *net, uint32_t from, uint32_t to)
{
    return net->side[from] == net->side[to] &&
           !(net->cut && net->cut[(size_t)from * net->n_hosts + to]);
}

bool sim_net_chance(struct sim_net *net, uint32_t chance)
{
    return chance > 0 && hf_prng_below(&net->prng, 10000) < chance;
}

hf_time sim_net_latency(struct sim_net *net)
{
    const struct sim_weather *w = &net->weather;
    hf_time t = w->latency + (hf_time)hf_prng_below(&net->prng, (uint64_t)w->spread);
    if (sim_net_chance(net, w->late)) {
        t += (hf_time)hf_prng_below(&net->prng, (uint64_t)w->late_spread);
    }
    return t;
}
