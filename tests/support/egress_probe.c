/* The egress filter itself: compared with the rules in user space by BPF test runs, and measured.
 * As root.
 *
 * egress-probe table                the packets of egress_packets.c
 * egress-probe random SEED COUNT    random packets and slots
 * egress-probe bench                ns per packet
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/prng.h"
#include "egress_image.h"
#include "egress_packets.h"

static struct bpf_object *object;
static int egress_fd, ingress_fd, numbers_fd, conns_fd;
static struct hf_egress_slot *slots;
static struct hf_egress_address *addresses;
static struct ring_buffer *ring;
static struct hf_egress_note last_note;
static unsigned n_notes;

static int find(const char *name)
{
    return bpf_object__find_map_fd_by_name(object, name);
}

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static int on_note(void *arg, void *data, size_t size)
{
    (void)arg;
    check(size >= sizeof(last_note), "size of a note");
    memcpy(&last_note, data, sizeof(last_note));
    n_notes++;
    return 0;
}

static void set_up(void)
{
    object = bpf_object__open_mem(egress_image, sizeof(egress_image), NULL);
    check(object, "open");
    bpf_map__set_max_entries(bpf_object__find_map_by_name(object, "slots"), 4);
    bpf_map__set_max_entries(bpf_object__find_map_by_name(object, "conns"), 4);
    check(bpf_object__load(object) == 0, "load");
    egress_fd = bpf_program__fd(bpf_object__find_program_by_name(object, "hf_egress"));
    ingress_fd = bpf_program__fd(bpf_object__find_program_by_name(object, "hf_ingress"));
    numbers_fd = find("numbers");
    conns_fd = find("conns");
    slots = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, find("slots"), 0);
    addresses = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, find("addresses"), 0);
    check(slots != MAP_FAILED && addresses != MAP_FAILED, "mmap");
    for (uint32_t v6 = 0; v6 < 2; v6++) {
        struct hf_egress_addr_key key;
        memcpy(key.addr, egress_service(v6), sizeof(key.addr));
        check(bpf_map_update_elem(numbers_fd, &key, &v6, 0) == 0, "numbers");
        struct hf_egress_conn_key conn = {.peer_port = EGRESS_PEER_PORT, .address = v6};
        memcpy(conn.peer, egress_peer(v6), sizeof(conn.peer));
        uint32_t slot = v6 + 1;
        check(bpf_map_update_elem(conns_fd, &conn, &slot, 0) == 0, "conns");
    }
    ring = ring_buffer__new(find("notes"), on_note, NULL, NULL);
    check(ring, "ring");
}

/* Run prog over the packet in place; returns its verdict. */
static int run(int prog, uint8_t *packet, size_t n)
{
    uint8_t out[EGRESS_PACKET_MAX];
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = (uint32_t)n,
                .data_out = out, .data_size_out = sizeof(out), .repeat = 1);
    check(bpf_prog_test_run_opts(prog, &opts) == 0, "test run");
    check(opts.data_size_out == n, "size");
    memcpy(packet, out, n);
    ring_buffer__consume(ring);
    return (int)opts.retval;
}

/* What the rules in user space make of the same: on copies of the slot, the address and the packet.
 */
static enum hf_egress_verdict judge(uint8_t *packet, size_t n, struct hf_egress_slot *slot,
                                    struct hf_egress_address *address, bool v6, bool found)
{
    struct hf_egress_facts f;
    enum hf_egress_counter counter = HF_EGRESS_COUNTERS;
    hf_egress_parse(hf_slice(packet, n), 0, &f);
    if (f.kind == HF_EGRESS_KIND_OTHER ||
        (memcmp(f.source, egress_service(v6), 16) != 0 &&
         (f.kind != HF_EGRESS_KIND_CLAIM || memcmp(f.claimed, egress_service(v6), 16) != 0))) {
        return HF_EGRESS_PASS;
    }
    found = found && f.kind == HF_EGRESS_KIND_TCP && f.peer_port == EGRESS_PEER_PORT &&
            (slot->state & HF_EGRESS_SLOT_USED);
    enum hf_egress_verdict verdict =
        hf_egress_judge(&f, found ? slot : NULL, address, 1000, &counter);
    if (counter < HF_EGRESS_COUNTERS) {
        address->counters[counter]++;
    }
    uint32_t ack = f.ack;
    if (verdict == HF_EGRESS_HOLD_ACK || verdict == HF_EGRESS_LOWER) {
        struct hf_egress_saved old = slot->saved;
        check(hf_egress_save(&slot->saved, hf_slice(packet, n), &f), "save");
        slot->saved.ifindex = 1; /* lo, where test runs are */
        memcpy(slot->saved.header + f.header_len, old.header + f.header_len,
               sizeof(old.header) - f.header_len); /* the filter leaves what it does not write */
        slot->version += 2;
        slot->pending = 1;
    }
    if (verdict == HF_EGRESS_LOWER) {
        ack = slot->rx_conf;
        hf_egress_lower(packet, &f, ack, (uint8_t)slot->wscale);
    }
    if (found && (verdict == HF_EGRESS_PASS || verdict == HF_EGRESS_LOWER)) {
        hf_egress_note_passed(slot, &f, ack);
    }
    return verdict;
}

/* Both over one packet. False: they differ. */
static bool compare(const struct egress_packet *p, struct hf_egress_slot *slot,
                    const struct hf_egress_address *address, bool found,
                    enum hf_egress_verdict *ret_verdict)
{
    uint8_t mine[EGRESS_PACKET_MAX], its[EGRESS_PACKET_MAX];
    size_t n = egress_build(p, mine);
    struct hf_egress_address a = *address;
    uint32_t number = p->v6 ? 1 : 0;
    memcpy(its, mine, sizeof(its));
    slots[number + 1] = *slot;
    addresses[number] = a;
    n_notes = 0;
    /* the leases of the table: 0 is over, others are not */
    int retval = run(egress_fd, its, n);
    a.lease_until = address->lease_until ? UINT64_MAX : 0;
    enum hf_egress_verdict verdict = judge(mine, n, slot, &a, p->v6, found);
    int want = verdict == HF_EGRESS_PASS || verdict == HF_EGRESS_LOWER             ? TC_ACT_UNSPEC
               : verdict == HF_EGRESS_HOLD_SYN_ACK || verdict == HF_EGRESS_SWALLOW ? TC_ACT_STOLEN
                                                                                   : TC_ACT_SHOT;
    a.lease_until = address->lease_until;
    *ret_verdict = verdict;
    const char *bad = retval != want                                    ? "verdict"
                      : memcmp(mine, its, n)                            ? "packet"
                      : memcmp(&slots[number + 1], slot, sizeof(*slot)) ? "slot"
                      : memcmp(&addresses[number], &a, sizeof(a))       ? "counters"
                      : n_notes != (verdict == HF_EGRESS_HOLD_SYN_ACK)  ? "notes"
                                                                        : NULL;
    if (bad) {
        printf("%s: %s differs (%s, %d):", p->name, bad, hf_egress_verdict_name(verdict), retval);
        for (size_t i = 0; i < n && i < 160; i++) {
            printf(" %02x", mine[i]);
        }
        printf("\n");
    }
    return !bad;
}

static int table(void)
{
    unsigned bad = 0;
    for (unsigned i = 0; i < egress_cases_len; i++) {
        const struct egress_case *c = &egress_cases[i];
        struct hf_egress_slot slot = {
            .rx_conf = EGRESS_RX_CONF,
            .tx_conf = EGRESS_TX_CONF,
            .state = c->no_slot ? 0 : HF_EGRESS_SLOT_USED | c->slot_state,
            .wscale = EGRESS_WSCALE,
            .syn_seq = EGRESS_SYN_SEQ,
            .syn_ack = EGRESS_RX_CONF,
        };
        struct hf_egress_address address = {
            .lease_until = c->expired ? 0 : UINT64_MAX,
            .flags = c->address_flags,
            .port = EGRESS_PORT,
        };
        enum hf_egress_verdict verdict;
        bad += !compare(&c->packet, &slot, &address, !c->no_slot, &verdict) || verdict != c->want;
        if (c->want == HF_EGRESS_HOLD_SYN_ACK) {
            uint8_t bytes[EGRESS_PACKET_MAX], built[HF_EGRESS_BUILT_MAX];
            size_t n = egress_build(&c->packet, bytes);
            bad += !last_note.syn_ack || last_note.address != c->packet.v6 ||
                   hf_egress_build_syn_ack(&last_note.saved, built) != (int)n ||
                   memcmp(built, bytes, n) != 0;
        }
    }
    printf("%u cases, %u bad\n", egress_cases_len, bad);
    return bad ? 1 : 0;
}

/* The owner learns of SYNs that come in, and of nothing else. */
static int ingress(void)
{
    static const struct {
        uint8_t flags;
        uint16_t port;
        bool other;
        unsigned want;
    } cases[] = {{2, EGRESS_PORT, false, 1},
                 {0x12, EGRESS_PORT, false, 0},
                 {0x10, EGRESS_PORT, false, 0},
                 {2, 22, false, 0},
                 {2, EGRESS_PORT, true, 0}};
    unsigned bad = 0;
    for (unsigned i = 0; i < HF_ARRAY_LEN(cases); i++) {
        uint8_t bytes[EGRESS_PACKET_MAX], swap[4];
        struct egress_packet p = {.flags = cases[i].flags,
                                  .source_port = EGRESS_PEER_PORT,
                                  .peer_port = cases[i].port,
                                  .other_source = cases[i].other,
                                  .tcp_options = 20};
        size_t n = egress_build(&p, bytes);
        memcpy(swap, bytes + 26, 4);
        memcpy(bytes + 26, bytes + 30, 4);
        memcpy(bytes + 30, swap, 4);
        addresses[0] = (struct hf_egress_address){.port = EGRESS_PORT};
        n_notes = 0;
        bad += run(ingress_fd, bytes, n) != TC_ACT_UNSPEC || n_notes != cases[i].want ||
               (n_notes && (last_note.syn_ack || last_note.saved.len != n));
    }
    printf("ingress: %u bad\n", bad);
    return bad ? 1 : 0;
}

static uint32_t near(struct hf_prng *g, uint32_t x)
{
    return x + (uint32_t)hf_prng_below(g, 5) - 2 +
           (hf_prng_below(g, 4) ? 0 : (uint32_t)hf_prng_below(g, 100000) - 50000);
}

static int random_runs(uint64_t seed, unsigned count)
{
    struct hf_prng g;
    unsigned bad = 0, seen[HF_EGRESS_HOLD_SYN_ACK + 1] = {0};
    hf_prng_init(&g, seed);
    for (unsigned i = 0; i < count && !bad; i++) {
        uint32_t conf = (uint32_t)hf_prng_u64(&g), tx = (uint32_t)hf_prng_u64(&g);
        bool data = hf_prng_below(&g, 2);
        struct egress_packet p = {
            .name = "random",
            .v6 = hf_prng_below(&g, 2),
            .as = hf_prng_below(&g, 16) ? AS_TCP : (unsigned)hf_prng_below(&g, AS_ESP + 1),
            .other_source = hf_prng_below(&g, 20) == 0,
            .other_claim = hf_prng_below(&g, 2),
            .source_port = hf_prng_below(&g, 20) ? 0 : 22,
            .peer_port = hf_prng_below(&g, 20) ? 0 : 1,
            .flags = hf_prng_below(&g, 8) ? 16 : (uint8_t)hf_prng_u64(&g),
            .ack = near(&g, conf),
            .window = (uint16_t)hf_prng_u64(&g),
            .payload = data ? (uint16_t)hf_prng_below(&g, 3000) : 0,
            .vlans = (uint8_t)(hf_prng_below(&g, 6) ? 0 : hf_prng_below(&g, 4)),
            .ip_options = (uint8_t)(hf_prng_below(&g, 6) ? 0 : 4 * hf_prng_below(&g, 11)),
            .extensions = (uint8_t)(hf_prng_below(&g, 6) ? 0 : hf_prng_below(&g, 6)),
            .tcp_options = (uint8_t)(4 * hf_prng_below(&g, 11)),
            .padding = (uint8_t)(hf_prng_below(&g, 6) ? 0 : hf_prng_below(&g, 20)),
            .fragment = hf_prng_below(&g, 20) == 0,
        };
        p.v6 = p.v6 && p.as != AS_ARP;
        p.seq = near(&g, tx - p.payload);
        if (hf_prng_below(&g, 20) == 0) {
            uint8_t scratch[EGRESS_PACKET_MAX];
            size_t n = egress_build(&p, scratch);
            /* test runs refuse less than an IP header */
            p.cut = (uint16_t)(n > 60 ? 60 + hf_prng_below(&g, n - 60) : 0);
        }
        struct hf_egress_slot slot = {
            .rx_conf = conf,
            .tx_conf = tx,
            .wscale = (uint32_t)hf_prng_below(&g, 15),
            .state = (uint32_t)hf_prng_below(&g, 16) | (hf_prng_below(&g, 8) != 0),
            .syn_seq = p.seq + (hf_prng_below(&g, 2) ? 0 : 1),
            .syn_ack = p.ack,
            .version = 2 * (uint32_t)hf_prng_u64(&g),
            .pending = (uint32_t)hf_prng_below(&g, 2),
            .snd_nxt = near(&g, tx),
            .ack_sent = near(&g, conf),
            .saved.ack = near(&g, conf),
        };
        slot.state &= hf_prng_below(&g, 3) ? ~HF_EGRESS_SLOT_SOLO : ~0u;
        struct hf_egress_address address = {
            .lease_until = hf_prng_below(&g, 16) ? UINT64_MAX : 0,
            .flags = hf_prng_below(&g, 4) ? 0 : (uint32_t)hf_prng_below(&g, 4),
            .port = EGRESS_PORT,
        };
        enum hf_egress_verdict verdict;
        bad += !compare(&p, &slot, &address, true, &verdict);
        seen[verdict]++;
    }
    printf("seed %llu, %u runs, %u bad:", (unsigned long long)seed, count, bad);
    for (unsigned i = 0; i < HF_ARRAY_LEN(seen); i++) {
        printf(" %s %u", hf_egress_verdict_name(i), seen[i]);
    }
    printf("\n");
    return bad ? 1 : 0;
}

static void bench_one(const struct egress_packet *p, uint32_t state, int prog)
{
    uint8_t bytes[EGRESS_PACKET_MAX], out[EGRESS_PACKET_MAX];
    size_t n = egress_build(p, bytes);
    uint32_t best = UINT32_MAX;
    for (int round = 0; round < 5; round++) {
        slots[p->v6 ? 2 : 1] = (struct hf_egress_slot){
            .rx_conf = EGRESS_RX_CONF, .tx_conf = EGRESS_TX_CONF, .state = state, .wscale = 7};
        addresses[p->v6] =
            (struct hf_egress_address){.lease_until = UINT64_MAX, .port = EGRESS_PORT};
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = bytes, .data_size_in = (uint32_t)n,
                    .data_out = out, .data_size_out = sizeof(out), .repeat = 200000);
        check(bpf_prog_test_run_opts(prog, &opts) == 0, "test run");
        best = opts.duration < best ? opts.duration : best;
    }
    printf("%-34s %4u ns\n", p->name, best);
}

static int bench(void)
{
    static const struct egress_packet packets[] = {
        {.name = "other source", .flags = 16, .other_source = true},
        {.name = "acknowledgement", .flags = 16, .seq = 9, .ack = EGRESS_RX_CONF},
        {.name = "data", .flags = 16, .seq = 9, .ack = EGRESS_RX_CONF, .payload = 900},
        {.name = "data, IPv6",
         .v6 = true,
         .flags = 16,
         .seq = 9,
         .ack = EGRESS_RX_CONF,
         .payload = 900},
        {.name = "acknowledgement held",
         .flags = 16,
         .seq = 9,
         .ack = EGRESS_RX_CONF + 1,
         .tcp_options = 12},
        {.name = "RST dropped", .flags = 4},
        {.name = "UDP of the address", .as = AS_UDP},
    };
    for (unsigned i = 0; i < HF_ARRAY_LEN(packets); i++) {
        bench_one(&packets[i], HF_EGRESS_SLOT_USED, egress_fd);
    }
    struct egress_packet in = packets[2];
    in.name = "ingress, data";
    bench_one(&in, 0, ingress_fd);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    set_up();
    int rc = strcmp(what, "table") == 0   ? table() | ingress()
             : strcmp(what, "bench") == 0 ? bench()
             : argc == 4 ? random_runs(strtoull(argv[2], NULL, 0), (unsigned)atoi(argv[3]))
                         : 2;
    ring_buffer__free(ring);
    bpf_object__close(object);
    return rc;
}
