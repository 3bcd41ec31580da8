/* os/netaddr: addresses come and go, and what the neighbours hear, on a veth pair in a network
 * namespace of its own. With agents and several hosts: tests/system/test_agent_address.py. */
#include "os/netaddr.h"

#include <errno.h>
#include <linux/capability.h>
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
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/addr.h"
#include "support/test.h"

#define NIC "here"   /* has the addresses */
#define PEER "there" /* hears them */
#define AWAIT_MS 30000

static const char *const both[] = {"10.99.0.50", "fd99::50"};
static struct hf_err err;

static struct hf_endpoint endpoint(const char *text)
{
    struct hf_addr a;
    assert_int_equal(hf_addr_parse(text, 5432, NULL, &a), 0);
    return hf_addr_to_endpoint(&a);
}

/* Usable, at once: an address that is still being looked for elsewhere can't be bound. */
static bool can_bind(const struct hf_endpoint *e)
{
    struct hf_addr a = hf_addr_from_endpoint(e);
    int fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool can = bind(fd, (struct sockaddr *)&a.ss, a.len) == 0;
    close(fd);
    return can;
}

static void await_ready(const struct hf_endpoint *a)
{
    for (int i = 0; i < AWAIT_MS && !hf_netaddr_is_ready(a); i++) {
        poll(NULL, 0, 1);
    }
    assert_true(hf_netaddr_is_ready(a));
}

static void put_and_removed(void **state)
{
    (void)state;
    for (size_t i = 0; i < HF_ARRAY_LEN(both); i++) {
        struct hf_endpoint a = endpoint(both[i]), other = endpoint(i ? "fd99::51" : "10.99.0.51");
        assert_false(hf_netaddr_has(&a));
        assert_false(hf_netaddr_is_ready(&a));
        assert_int_equal(hf_netaddr_remove(NIC, &a, &err), 0);
        assert_int_equal(hf_netaddr_add(NIC, &a, i ? 128 : 32, &err), 0);
        assert_true(can_bind(&a));
        await_ready(&a);
        assert_true(hf_netaddr_has(&a));
        assert_true(hf_netaddr_is_on(NIC, &a));
        assert_false(hf_netaddr_is_on(PEER, &a));
        assert_false(hf_netaddr_is_on("nowhere", &a));
        assert_false(hf_netaddr_has(&other));
        assert_int_equal(hf_netaddr_add(NIC, &a, i ? 128 : 32, &err), 0);
        assert_int_equal(hf_netaddr_remove(PEER, &a, &err), 0);
        assert_true(hf_netaddr_has(&a));
        assert_int_equal(hf_netaddr_remove(NIC, &a, &err), 0);
        assert_false(hf_netaddr_has(&a));
        assert_false(can_bind(&a));
    }
}

/* Also with another prefix length than it is put there with, and several. */
static void removed_whatever_its_prefix(void **state)
{
    (void)state;
    for (size_t i = 0; i < HF_ARRAY_LEN(both); i++) {
        struct hf_endpoint a = endpoint(both[i]);
        assert_int_equal(hf_netaddr_add(NIC, &a, i ? 64 : 24, &err), 0);
        assert_int_equal(hf_netaddr_add(NIC, &a, i ? 128 : 32, &err), 0);
        assert_int_equal(hf_netaddr_remove(NIC, &a, &err), 0);
        assert_false(hf_netaddr_has(&a));
    }
}

/* getifaddrs(3) has it on an interface of the label's name. */
static void found_by_another_name(void **state)
{
    (void)state;
    struct hf_endpoint a = endpoint(both[0]);
    assert_int_equal(system("ip addr add 10.99.0.50/32 dev " NIC " label " NIC ":x"), 0);
    assert_true(hf_netaddr_is_on(NIC, &a));
    assert_int_equal(hf_netaddr_remove(NIC, &a, &err), 0);
    assert_int_equal(system("ip addr add 10.99.0.50 peer 10.99.0.60 dev " NIC), 0);
    assert_true(hf_netaddr_is_on(NIC, &a));
    a = endpoint("10.99.0.60"); /* the other end's */
    assert_false(hf_netaddr_has(&a));
    a = endpoint(both[0]);
    assert_int_equal(hf_netaddr_remove(NIC, &a, &err), 0);
    assert_false(hf_netaddr_has(&a));
}

/* More than the kernel tells at once. */
static void found_among_many(void **state)
{
    (void)state;
    struct hf_endpoint a = endpoint("10.98.0.0");
    for (unsigned i = 0; i < 2000; i++) {
        a.addr[2] = (uint8_t)(i >> 8);
        a.addr[3] = (uint8_t)i;
        assert_int_equal(hf_netaddr_add(PEER, &a, 32, &err), 0);
    }
    assert_true(hf_netaddr_has(&a));
    a.addr[3]++;
    assert_false(hf_netaddr_has(&a));
    assert_int_equal(system("ip addr flush dev " PEER " to 10.98.0.0/16"), 0);
}

static void no_such_interface(void **state)
{
    (void)state;
    struct hf_endpoint a = endpoint(both[0]);
    assert_int_equal(hf_netaddr_add("nowhere", &a, 32, &err), -ENODEV);
    assert_string_equal(err.text, "cannot put 10.99.0.50 on nowhere: No such device");
    assert_int_equal(hf_netaddr_announce("nowhere", &a, &err), -ENODEV);
    assert_int_equal(hf_netaddr_remove("nowhere", &a, &err), 0);
    assert_int_equal(hf_netaddr_add(NIC, &a, 33, &err), -EINVAL);
    assert_false(hf_netaddr_has(&a));
}

static void set_effective(const uint32_t effective[2])
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2];
    assert_int_equal(syscall(SYS_capget, &head, caps), 0);
    for (int i = 0; i < 2; i++) {
        caps[i].effective = caps[i].permitted & effective[i];
    }
    assert_int_equal(syscall(SYS_capset, &head, caps), 0);
}

static void not_without_capabilities(void **state)
{
    (void)state;
    static const uint32_t none[2], all[2] = {UINT32_MAX, UINT32_MAX};
    for (size_t i = 0; i < HF_ARRAY_LEN(both); i++) {
        struct hf_endpoint a = endpoint(both[i]);
        struct hf_err added, removed, announced;
        assert_int_equal(hf_netaddr_add(NIC, &a, 32, &err), 0);
        set_effective(none);
        int add = hf_netaddr_add(NIC, &a, 32, &added);
        int remove = hf_netaddr_remove(NIC, &a, &removed);
        int announce = hf_netaddr_announce(NIC, &a, &announced);
        set_effective(all);
        assert_int_equal(add, -EPERM);
        assert_int_equal(remove, -EPERM);
        assert_int_equal(announce, -EPERM);
        assert_non_null(strstr(added.text, "; start the program with CAP_NET_ADMIN"));
        assert_non_null(strstr(removed.text, "; start the program with CAP_NET_ADMIN"));
        assert_non_null(strstr(announced.text, "; start the program with CAP_NET_RAW"));
        assert_int_equal(hf_netaddr_remove(NIC, &a, &err), 0);
    }
}

/* ---- announcements ---- */

struct frame {
    struct ether_header eth;
    union {
        struct ether_arp arp;
        struct {
            struct ip6_hdr ip;
            struct nd_neighbor_advert na;
            struct nd_opt_hdr opt;
            uint8_t mac[ETH_ALEN];
        } __attribute__((packed)) v6;
        uint8_t bytes[2048];
    };
} __attribute__((packed));

static int listen_on(const char *interface)
{
    struct sockaddr_ll ll = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(interface)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    assert_int_equal(bind(fd, (struct sockaddr *)&ll, sizeof(ll)), 0);
    return fd;
}

/* The next that is ARP or a neighbour advertisement; 0: nothing came for that long. */
static size_t hear(int fd, struct frame *f, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, wait_ms) > 0) {
        struct sockaddr_ll from;
        socklen_t len = sizeof(from);
        ssize_t n = recvfrom(fd, f, sizeof(*f), 0, (struct sockaddr *)&from, &len);
        assert_true(n > 0);
        if (from.sll_pkttype == PACKET_OUTGOING) {
            continue;
        }
        if (f->eth.ether_type == htons(ETHERTYPE_ARP) ||
            (f->eth.ether_type == htons(ETHERTYPE_IPV6) && f->v6.ip.ip6_nxt == IPPROTO_ICMPV6 &&
             f->v6.na.nd_na_type == ND_NEIGHBOR_ADVERT)) {
            return (size_t)n;
        }
    }
    return 0;
}

static const uint8_t *mac_of(const char *interface)
{
    static struct ifreq ifr;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", interface);
    assert_int_equal(ioctl(fd, SIOCGIFHWADDR, &ifr), 0);
    close(fd);
    return (const uint8_t *)ifr.ifr_hwaddr.sa_data;
}

static void check_arp(const struct frame *f, size_t n, const struct hf_endpoint *a, uint16_t op)
{
    static const uint8_t all[ETH_ALEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, none[ETH_ALEN];
    const uint8_t *mac = mac_of(NIC);
    assert_true(n >= sizeof(f->eth) + sizeof(f->arp));
    assert_int_equal(ntohs(f->eth.ether_type), ETHERTYPE_ARP);
    assert_memory_equal(f->eth.ether_dhost, all, ETH_ALEN);
    assert_memory_equal(f->eth.ether_shost, mac, ETH_ALEN);
    assert_int_equal(ntohs(f->arp.ea_hdr.ar_hrd), ARPHRD_ETHER);
    assert_int_equal(ntohs(f->arp.ea_hdr.ar_pro), ETHERTYPE_IP);
    assert_int_equal(f->arp.ea_hdr.ar_hln, ETH_ALEN);
    assert_int_equal(f->arp.ea_hdr.ar_pln, 4);
    assert_int_equal(ntohs(f->arp.ea_hdr.ar_op), op);
    assert_memory_equal(f->arp.arp_sha, mac, ETH_ALEN);
    assert_memory_equal(f->arp.arp_spa, a->addr, 4);
    assert_memory_equal(f->arp.arp_tpa, a->addr, 4);
    assert_memory_equal(f->arp.arp_tha, op == ARPOP_REPLY ? all : none, ETH_ALEN);
}

/* RFC 5227 3, and the same as a reply. */
static void neighbours_hear_arp(void **state)
{
    (void)state;
    struct hf_endpoint a = endpoint(both[0]);
    struct frame f;
    int fd = listen_on(PEER);
    assert_int_equal(hf_netaddr_add(NIC, &a, 32, &err), 0);
    assert_int_equal(hf_netaddr_announce(NIC, &a, &err), 0);
    size_t n = hear(fd, &f, AWAIT_MS);
    check_arp(&f, n, &a, ARPOP_REQUEST);
    n = hear(fd, &f, AWAIT_MS);
    check_arp(&f, n, &a, ARPOP_REPLY);
    assert_int_equal(hear(fd, &f, 20), 0);
    assert_int_equal(hf_netaddr_remove(NIC, &a, &err), 0);
    close(fd);
}

/* RFC 4861 7.2.6, 7.1.2, 4.4 */
static void neighbours_hear_advertisement(void **state)
{
    (void)state;
    static const uint8_t all_nodes[16] = {0xff, 2, [15] = 1};
    static const uint8_t all_nodes_mac[ETH_ALEN] = {0x33, 0x33, 0, 0, 0, 1};
    struct hf_endpoint a = endpoint(both[1]);
    struct frame f;
    int fd = listen_on(PEER);
    assert_int_equal(hf_netaddr_announce(NIC, &a, &err), -EADDRNOTAVAIL);
    assert_int_equal(hf_netaddr_add(NIC, &a, 128, &err), 0);
    assert_int_equal(hf_netaddr_announce(NIC, &a, &err), 0);
    size_t n = hear(fd, &f, AWAIT_MS);
    assert_int_equal(n, sizeof(f.eth) + sizeof(f.v6));
    assert_int_equal(ntohs(f.eth.ether_type), ETHERTYPE_IPV6);
    assert_memory_equal(f.eth.ether_dhost, all_nodes_mac, ETH_ALEN);
    assert_memory_equal(f.eth.ether_shost, mac_of(NIC), ETH_ALEN);
    assert_memory_equal(&f.v6.ip.ip6_src, a.addr, 16);
    assert_memory_equal(&f.v6.ip.ip6_dst, all_nodes, 16);
    assert_int_equal(f.v6.ip.ip6_hlim, 255);
    assert_int_equal(f.v6.na.nd_na_code, 0);
    assert_int_equal(f.v6.na.nd_na_flags_reserved, ND_NA_FLAG_OVERRIDE);
    assert_memory_equal(&f.v6.na.nd_na_target, a.addr, 16);
    assert_int_equal(f.v6.opt.nd_opt_type, ND_OPT_TARGET_LINKADDR);
    assert_int_equal(f.v6.opt.nd_opt_len, 1);
    assert_memory_equal(f.v6.mac, mac_of(NIC), ETH_ALEN);
    assert_int_equal(hear(fd, &f, 20), 0);
    assert_int_equal(hf_netaddr_remove(NIC, &a, &err), 0);
    close(fd);
}

static void nobody_to_tell(void **state)
{
    (void)state;
    struct hf_endpoint a = endpoint("127.0.0.1");
    assert_int_equal(hf_netaddr_announce("lo", &a, &err), 0);
}

/* A network namespace of our own, in which we are root. */
static int enter_namespace(void **state)
{
    (void)state;
    unsigned uid = geteuid();
    assert_int_equal(unshare(CLONE_NEWNET | (uid ? CLONE_NEWUSER : 0)), 0);
    if (uid) {
        FILE *f = fopen("/proc/self/uid_map", "w");
        assert_non_null(f);
        assert_true(fprintf(f, "0 %u 1", uid) > 0);
        assert_int_equal(fclose(f), 0);
    }
    assert_int_equal(system("ip link set lo up && ip link add " NIC " type veth peer name " PEER
                            " && ip link set " NIC " up && ip link set " PEER " up"),
                     0);
    struct ifreq ifr = {.ifr_name = NIC};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    while (!(ifr.ifr_flags & IFF_RUNNING)) {
        usleep(1000);
        assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &ifr), 0);
    }
    return close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(not_without_capabilities), /* before the socket of announcements is there */
        HF_TEST(put_and_removed),
        HF_TEST(removed_whatever_its_prefix),
        HF_TEST(found_by_another_name),
        HF_TEST(found_among_many),
        HF_TEST(no_such_interface),
        HF_TEST(neighbours_hear_arp),
        HF_TEST(neighbours_hear_advertisement),
        HF_TEST(nobody_to_tell),
    };
    return cmocka_run_group_tests_name("os/netaddr", tests, enter_namespace, NULL);
}
