/* os/forward: what comes for an address that has moved goes on, on a veth pair in a network
 * namespace of its own. */
#include "os/forward.h"

#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/in.h>
#include <netinet/ip6.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/wr.h"
#include "codec/tcp_segment.h"
#include "os/addr.h"
#include "support/test.h"

#define NIC "here"   /* had the address */
#define PEER "there" /* clients, and who has it now */
#define AWAIT_MS 30000

static const uint8_t new_mac[ETH_ALEN] = {2, 0, 0, 0, 0, 0x42};
static struct hf_err err;
static int wire;

static struct hf_endpoint endpoint(const char *text, uint16_t port)
{
    struct hf_addr a;
    assert_int_equal(hf_addr_parse(text, port, NULL, &a), 0);
    return hf_addr_to_endpoint(&a);
}

/* A frame to the host that had it. */
static void put(uint16_t type, const void *p, size_t n)
{
    uint8_t frame[256] = {0};
    assert_true(n + ETH_HLEN <= sizeof(frame));
    memset(frame, 0xff, ETH_ALEN);
    memcpy(frame + ETH_ALEN, new_mac, ETH_ALEN);
    frame[12] = (uint8_t)(type >> 8);
    frame[13] = (uint8_t)type;
    memcpy(frame + ETH_HLEN, p, n);
    assert_int_equal(send(wire, frame, n + ETH_HLEN, 0), n + ETH_HLEN);
}

static uint16_t type_of(const struct hf_endpoint *e)
{
    return e->family == HF_AF_INET ? ETH_P_IP : ETH_P_IPV6;
}

static void put_segment(const struct hf_endpoint *client, const struct hf_endpoint *to,
                        const char *payload)
{
    uint8_t buf[HF_TCP_HEADERS_MAX + 16];
    struct hf_wr w;
    struct hf_slice s;
    const struct hf_tcp_segment seg = {.src = *client,
                                       .dst = *to,
                                       .seq = 7,
                                       .ack = 9,
                                       .flags = HF_TCP_ACK,
                                       .payload = hf_slice_str(payload)};
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_segment_build(&w, &seg);
    assert_int_equal(hf_wr_end(&w, &s), 0);
    size_t head = to->family == HF_AF_INET ? 20 : 40;
    buf[head + 16] ^= 0x55; /* the checksum, as a virtual link may leave it */
    put(type_of(to), s.p, s.n);
}

static void put_claim(const struct hf_endpoint *a)
{
    if (a->family == HF_AF_INET) {
        struct ether_arp arp = {.ea_hdr = {.ar_hrd = htons(ARPHRD_ETHER),
                                           .ar_pro = htons(ETH_P_IP),
                                           .ar_hln = ETH_ALEN,
                                           .ar_pln = 4,
                                           .ar_op = htons(ARPOP_REQUEST)}};
        memcpy(arp.arp_sha, new_mac, ETH_ALEN);
        memcpy(arp.arp_spa, a->addr, 4);
        memcpy(arp.arp_tpa, a->addr, 4);
        put(ETH_P_ARP, &arp, sizeof(arp));
        return;
    }
    struct {
        struct ip6_hdr ip;
        struct nd_neighbor_advert na;
        struct nd_opt_hdr opt;
        uint8_t mac[ETH_ALEN];
    } m = {
        .ip.ip6_nxt = IPPROTO_ICMPV6,
        .na.nd_na_type = ND_NEIGHBOR_ADVERT,
        .opt = {.nd_opt_type = ND_OPT_TARGET_LINKADDR, .nd_opt_len = 1},
    };
    m.ip.ip6_vfc = 0x60;
    m.ip.ip6_plen = htons(sizeof(m) - sizeof(m.ip));
    memcpy(&m.na.nd_na_target, a->addr, 16);
    memcpy(m.mac, new_mac, ETH_ALEN);
    put(ETH_P_IPV6, &m, sizeof(m));
}

/* All that has come until now, and this at least. */
static void dispatch(struct hf_forward *f)
{
    struct pollfd p = {.fd = hf_forward_fd(f), .events = POLLIN};
    assert_int_equal(poll(&p, 1, AWAIT_MS), 1);
    hf_forward_dispatch(f);
}

/* The next one that came back for the new host has this payload. */
static void comes_back(const struct hf_endpoint *client, const struct hf_endpoint *to,
                       const char *payload)
{
    struct pollfd p = {.fd = wire, .events = POLLIN};
    while (poll(&p, 1, AWAIT_MS) > 0) {
        uint8_t frame[2048];
        struct sockaddr_ll from;
        struct hf_tcp_segment seg;
        socklen_t len = sizeof(from);
        ssize_t n = recvfrom(wire, frame, sizeof(frame), 0, (struct sockaddr *)&from, &len);
        assert_true(n > ETH_HLEN);
        if (from.sll_pkttype == PACKET_OUTGOING || memcmp(frame, new_mac, ETH_ALEN) != 0 ||
            (frame[12] << 8 | frame[13]) != type_of(to)) {
            continue;
        }
        struct hf_slice packet = hf_slice(frame + ETH_HLEN, (size_t)n - ETH_HLEN);
        assert_int_equal(hf_tcp_segment_parse(packet, &seg), 0);
        assert_true(hf_tcp_checksums_ok(packet));
        assert_true(hf_endpoint_eq(&seg.src, client) && hf_endpoint_eq(&seg.dst, to));
        assert_int_equal(seg.seq, 7);
        hf_assert_slice_str(seg.payload, payload);
        return;
    }
    fail_msg("%s does not come", payload);
}

static void kept_and_sent_on(void **state)
{
    (void)state;
    static const char *const at[][3] = {{"10.99.0.50", "10.99.0.7", "10.99.0.51"},
                                        {"fd99::50", "fd99::7", "fd99::51"}};
    for (size_t i = 0; i < HF_ARRAY_LEN(at); i++) {
        struct hf_endpoint a = endpoint(at[i][0], 5432), client = endpoint(at[i][1], 40000);
        struct hf_endpoint other = endpoint(at[i][2], 5432), port = endpoint(at[i][0], 5433);
        struct hf_forward *f;
        assert_int_equal(hf_forward_open(NIC, &a, &err, &f), 0);
        put_segment(&client, &a, "one");
        dispatch(f);
        put_segment(&client, &other, "not mine");
        put_segment(&client, &port, "not mine");
        put_claim(&other);
        put_segment(&client, &a, "two");
        while (hf_forward_count(f) == 0) {
            put_claim(&a);
            dispatch(f);
        }
        comes_back(&client, &a, "one");
        comes_back(&client, &a, "two");
        put_segment(&client, &a, "three");
        while (hf_forward_count(f) < 3) {
            dispatch(f);
        }
        comes_back(&client, &a, "three");
        assert_int_equal(hf_forward_count(f), 3);
        hf_forward_close(f);
    }
}

/* What is kept is bounded. */
static void not_without_end(void **state)
{
    (void)state;
    struct hf_endpoint a = endpoint("10.99.0.50", 5432), client = endpoint("10.99.0.7", 40000);
    struct hf_forward *f;
    assert_int_equal(hf_forward_open(NIC, &a, &err, &f), 0);
    for (int i = 0; i < HF_FORWARD_MAX + 100; i++) {
        put_segment(&client, &a, "x");
        if (i % 50 == 0) {
            dispatch(f);
        }
    }
    while (hf_forward_count(f) == 0) {
        put_claim(&a);
        dispatch(f);
    }
    assert_int_equal(hf_forward_count(f), HF_FORWARD_MAX);
    hf_forward_close(f);
}

static void no_such_interface(void **state)
{
    (void)state;
    struct hf_endpoint a = endpoint("10.99.0.50", 5432);
    struct hf_forward *f = NULL;
    assert_int_equal(hf_forward_open("nowhere", &a, &err, &f), -ENODEV);
    assert_non_null(strstr(err.text, "nowhere"));
    assert_int_equal(hf_forward_open("lo", &a, &err, &f), -ENODEV); /* not Ethernet */
    hf_forward_close(NULL);
}

static int enter_namespace(void **state)
{
    (void)state;
    unsigned uid = geteuid();
    assert_int_equal(unshare(CLONE_NEWNET | (uid ? CLONE_NEWUSER : 0)), 0);
    if (uid) {
        FILE *m = fopen("/proc/self/uid_map", "w");
        assert_non_null(m);
        assert_true(fprintf(m, "0 %u 1", uid) > 0);
        assert_int_equal(fclose(m), 0);
    }
    assert_int_equal(system("ip link set lo up && ip link add " NIC " type veth peer name " PEER
                            " && ip link set " NIC " up && ip link set " PEER " up"),
                     0);
    struct sockaddr_ll ll = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(PEER)};
    wire = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    int much = 8 << 20;
    assert_int_equal(setsockopt(wire, SOL_SOCKET, SO_RCVBUFFORCE, &much, sizeof(much)), 0);
    return bind(wire, (struct sockaddr *)&ll, sizeof(ll));
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(kept_and_sent_on), HF_TEST(not_without_end),
                                       HF_TEST(no_such_interface)};
    return cmocka_run_group_tests_name("os/forward", tests, enter_namespace, NULL);
}
