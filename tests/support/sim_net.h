/* Simulated clock, event queue and network, all from one seed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/prng.h"

/* Something that happens to a host at an instant; what kinds there are is the driver's business. */
struct sim_event {
    hf_time at;
    uint64_t seq; /* events of one instant happen in the order in which they were made */
    uint32_t kind, host;
    uint32_t boot; /* of the host: events of an earlier life are the driver's to drop */
    void *data;    /* the driver's */
};

/* What the network does to a packet. Chances are out of 10,000. */
struct sim_weather {
    uint32_t loss, dup, late;
    hf_time latency, spread; /* every packet: latency + [0, spread) */
    hf_time late_spread;     /* late ones: + [0, late_spread) more, so that others overtake */
};

struct sim_net {
    hf_time now;
    struct hf_prng prng;
    struct sim_weather weather;
    struct sim_event *heap; /* owned */
    size_t n_events, room;
    uint64_t seq;
    uint32_t n_hosts;
    uint8_t *side; /* owned; by host: partitions keep different sides apart */
    uint8_t *cut;  /* owned; from * n_hosts + to: one way; NULL in large networks */
};

/** An empty network of n hosts; `cuts`: with one-way cuts (n * n bytes). Dies without memory. */
void sim_net_init(struct sim_net *net, uint32_t n_hosts, bool cuts, uint64_t seed);
void sim_net_fini(struct sim_net *net);

/** Put an event in the queue; an instant that is over counts as now. */
void sim_net_at(struct sim_net *net, hf_time at, uint32_t kind, uint32_t host, uint32_t boot,
                void *data);
/** Take the next event out and set the clock to it, unless it is later than `until`. */
bool sim_net_next(struct sim_net *net, hf_time until, struct sim_event *ret_event);

/** May anything go from one host to another now? */
bool sim_net_open(const struct sim_net *net, uint32_t from, uint32_t to);
/** Once out of 10,000 times `chance`. */
bool sim_net_chance(struct sim_net *net, uint32_t chance);
/** How long the next packet takes. */
hf_time sim_net_latency(struct sim_net *net);

/** Memory, or the end of the program: a simulator has no use for less. */
HF_MUST void *sim_alloc(size_t n);
HF_MUST void *sim_realloc(void *p, size_t n);
/** Is the file's text this trace? write: it is from now on. Errors are told. */
HF_MUST bool sim_golden(const char *path, const char *trace, bool write);
