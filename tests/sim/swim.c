#include "sim/swim.h"

#include <math.h>

/* memberlist's LAN defaults */
#define PROBE_INTERVAL_S 1.0
#define INDIRECT_CHECKS 3
#define GOSSIP_INTERVAL_S 0.2
#define GOSSIP_NODES 3
#define UDP_BYTES_MAX 1400
#define PUSH_PULL_INTERVAL_S 30.0
#define PUSH_PULL_SCALE 32
#define SUSPICION_MULT 4
#define RETRANSMIT_MULT 4

/* assumed sizes: message, encryption (version, nonce, tag), IP and UDP; TCP as in sim/world.h */
#define PACKET_BYTES (29 + 28)
#define PING_BYTES 80
#define ACK_BYTES 30
#define ALIVE_BYTES 70 /* without the services (memberlist's meta) */
#define TCP_SEGMENT 1400.0
#define TCP_HEADER 52

/* Rounds until the expected number of hosts without the news is below one. */
static double rounds(double n, double loss)
{
    double lacking = 1 - 1 / n;
    int r = 0;
    for (; lacking * n >= 1 && r < 1000; r++) {
        lacking *= exp(-GOSSIP_NODES * (1 - lacking) * (1 - loss));
    }
    return r;
}

struct swim_out swim_cost(const struct swim_in *in)
{
    double n = in->hosts, failed = 1 - (1 - in->loss) * (1 - in->loss);
    struct swim_out o = {.transmits = (uint32_t)(RETRANSMIT_MULT * ceil(log10(n + 1)))};
    double indirect = failed * INDIRECT_CHECKS; /* each: request, ping, two acknowledgements */
    o.probe_packets = (2 + 4 * indirect) / PROBE_INTERVAL_S;
    o.probe_bytes = (PING_BYTES + ACK_BYTES + 2 * PACKET_BYTES +
                     indirect * 2 * (PING_BYTES + ACK_BYTES + 2 * PACKET_BYTES)) /
                    PROBE_INTERVAL_S;

    double message = ALIVE_BYTES + in->services_bytes;
    double sends = in->changes_per_s * o.transmits, ticks = GOSSIP_NODES / GOSSIP_INTERVAL_S;
    o.gossip_packets = sends < ticks ? sends : ticks;
    o.gossip_bytes = sends * message + o.gossip_packets * PACKET_BYTES;
    double room = ticks * (UDP_BYTES_MAX + 28);
    o.gossip_bytes = o.gossip_bytes < room ? o.gossip_bytes : room;

    double scale = n > PUSH_PULL_SCALE ? ceil(log2(n) - log2(PUSH_PULL_SCALE)) + 1 : 1;
    o.sync_interval_s = PUSH_PULL_INTERVAL_S * scale;
    double state = n * message, segments = ceil(state / TCP_SEGMENT);
    o.sync_packets = 2 * segments / o.sync_interval_s; /* one begun, one accepted */
    o.sync_bytes = 2 * (state + segments * TCP_HEADER) / o.sync_interval_s;

    o.packets = o.probe_packets + o.gossip_packets + o.sync_packets;
    o.bytes = o.probe_bytes + o.gossip_bytes + o.sync_bytes;
    o.spread_s = rounds(n, in->loss) * GOSSIP_INTERVAL_S;
    double suspicion = SUSPICION_MULT * fmax(1, log10(n)) * PROBE_INTERVAL_S;
    double first_probe = PROBE_INTERVAL_S * M_E / (M_E - 1);
    o.death_s = first_probe + PROBE_INTERVAL_S + suspicion + o.spread_s;
    return o;
}
