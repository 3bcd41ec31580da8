/* What SWIM-style gossip with memberlist's LAN defaults would cost, from its published parameters.
 */
#pragma once

#include <stdint.h>

struct swim_in {
    uint32_t hosts;
    double loss;           /* of a datagram, 0 .. 1 */
    double changes_per_s;  /* of the whole cluster */
    double services_bytes; /* names and values of one host */
};

struct swim_out {
    double probe_packets, gossip_packets, sync_packets; /* received by a host, per second */
    double probe_bytes, gossip_bytes, sync_bytes;
    double packets, bytes; /* the sums */
    double spread_s;       /* a change: gossip rounds until fewer than one host lacks it */
    double death_s;        /* a death: first probe, its time-out, suspicion, spreading */
    double sync_interval_s;
    uint32_t transmits;
};

/** Formulae and assumptions are in doc/design/simulation.md. */
struct swim_out swim_cost(const struct swim_in *in);
