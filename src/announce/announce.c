/* holdfast-announce: tells the neighbours, again and again, that an address is here now.
 *
 * Gratuitous ARP (RFC 5227, 3: announcement; and as a reply, for hosts that learn only from those)
 * for IPv4, unsolicited neighbour advertisements (RFC 4861, 7.2.6) for IPv6. Before each one it
 * looks whether the address still is on the interface: a host that no longer has it must not call
 * it to itself. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_OK = 0,
    EXIT_SYSTEM = 1,
    EXIT_USAGE = 2,
    EXIT_GONE = 3,
};

struct announcer {
    const char *nic; /* borrowed from the command line */
    int ifindex;
    unsigned char mac[ETH_ALEN];
    int family;
    struct in_addr v4;
    struct in6_addr v6;
    int fd;
};

/* An unsolicited neighbour advertisement with its target link-layer address option */
struct advert {
    struct nd_neighbor_advert na;
    struct nd_opt_hdr opt;
    unsigned char mac[ETH_ALEN];
} __attribute__((packed));

static int fail(const char *what)
{
    fprintf(stderr, "holdfast-announce: %s: %s\n", what, strerror(errno));
    return EXIT_SYSTEM;
}

static bool has_address(const struct announcer *a)
{
    struct ifaddrs *all = NULL;
    bool found = false;

    if (getifaddrs(&all) != 0) {
        return false;
    }
    for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != a->family ||
            strcmp(i->ifa_name, a->nic) != 0) {
            continue;
        }
        if (a->family == AF_INET) {
            struct sockaddr_in sin;

            memcpy(&sin, i->ifa_addr, sizeof sin);
            found = sin.sin_addr.s_addr == a->v4.s_addr;
        } else {
            struct sockaddr_in6 sin6;

            memcpy(&sin6, i->ifa_addr, sizeof sin6);
            found = memcmp(&sin6.sin6_addr, &a->v6, sizeof a->v6) == 0;
        }
    }
    freeifaddrs(all);
    return found;
}

static int send_arp(const struct announcer *a, unsigned short op)
{
    struct sockaddr_ll to = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ARP),
        .sll_ifindex = a->ifindex,
        .sll_halen = ETH_ALEN,
    };
    struct ether_arp arp = {
        .ea_hdr = {.ar_hrd = htons(ARPHRD_ETHER),
                   .ar_pro = htons(ETH_P_IP),
                   .ar_hln = ETH_ALEN,
                   .ar_pln = sizeof a->v4,
                   .ar_op = htons(op)},
    };

    memset(to.sll_addr, 0xff, ETH_ALEN);
    memcpy(arp.arp_sha, a->mac, ETH_ALEN);
    memcpy(arp.arp_spa, &a->v4, sizeof a->v4);
    if (op == ARPOP_REPLY) {
        memset(arp.arp_tha, 0xff, ETH_ALEN);
    }
    memcpy(arp.arp_tpa, &a->v4, sizeof a->v4);
    return sendto(a->fd, &arp, sizeof arp, 0, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
}

static int send_advert(const struct announcer *a)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_scope_id = (unsigned)a->ifindex};
    struct advert msg = {.opt = {.nd_opt_type = ND_OPT_TARGET_LINKADDR, .nd_opt_len = 1}};

    inet_pton(AF_INET6, "ff02::1", &to.sin6_addr);
    msg.na.nd_na_type = ND_NEIGHBOR_ADVERT;
    msg.na.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE;
    msg.na.nd_na_target = a->v6;
    memcpy(msg.mac, a->mac, ETH_ALEN);
    return sendto(a->fd, &msg, sizeof msg, 0, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
}

static int announce(const struct announcer *a)
{
    if (a->family == AF_INET6) {
        return send_advert(a);
    }
    int err = send_arp(a, ARPOP_REQUEST);

    return err ? err : send_arp(a, ARPOP_REPLY);
}

static int open_socket(struct announcer *a)
{
    struct ifreq ifr = {0};
    const int hops = 255; /* RFC 4861, 7.1.2: anything less is ignored */
    struct sockaddr_in6 from = {.sin6_family = AF_INET6, .sin6_addr = a->v6};

    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", a->nic);
    a->fd = a->family == AF_INET ? socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
                                 : socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);
    if (a->fd < 0) {
        return fail("socket");
    }
    if (ioctl(a->fd, SIOCGIFHWADDR, &ifr) != 0) {
        return fail(a->nic);
    }
    memcpy(a->mac, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
    if (a->family == AF_INET) {
        return EXIT_OK;
    }
    if (IN6_IS_ADDR_LINKLOCAL(&a->v6)) {
        from.sin6_scope_id = (unsigned)a->ifindex;
    }
    if (setsockopt(a->fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops) != 0 ||
        setsockopt(a->fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &a->ifindex, sizeof a->ifindex) != 0) {
        return fail("setsockopt");
    }
    return bind(a->fd, (struct sockaddr *)&from, sizeof from) != 0 ? fail("bind") : EXIT_OK;
}

static int run(struct announcer *a, long count, long interval_ms)
{
    const struct timespec pause = {.tv_sec = interval_ms / 1000,
                                   .tv_nsec = interval_ms % 1000 * 1000000};
    int err = 0;

    if (!has_address(a)) {
        fprintf(stderr, "holdfast-announce: %s does not have that address\n", a->nic);
        return EXIT_GONE;
    }
    if (open_socket(a) != EXIT_OK) {
        return EXIT_SYSTEM;
    }
    for (long i = 0; i < count; i++) {
        if (i > 0) {
            nanosleep(&pause, NULL);
            if (!has_address(a)) {
                return EXIT_GONE; /* moved on: whoever has it now says so */
            }
        }
        err = announce(a); /* a link that is down may come up: the next one counts */
    }
    errno = -err;
    return err ? fail("send") : EXIT_OK;
}

static long number(const char *text, long max)
{
    char *end = NULL;
    long n = strtol(text, &end, 10);

    return end == text || *end || n < 1 || n > max ? -1 : n;
}

int main(int argc, char **argv)
{
    struct announcer a = {.fd = -1};
    long count = 5;
    long interval_ms = 200;

    for (int opt; (opt = getopt(argc, argv, "c:i:")) != -1;) {
        if (opt == 'c') {
            count = number(optarg, 1000);
        } else if (opt == 'i') {
            interval_ms = number(optarg, 60000);
        } else {
            count = -1;
        }
    }
    if (argc - optind != 2 || count < 0 || interval_ms < 0) {
        fprintf(stderr,
                "usage: holdfast-announce [-c count] [-i milliseconds] interface address\n");
        return EXIT_USAGE;
    }
    a.nic = argv[optind];
    a.ifindex = (int)if_nametoindex(a.nic);
    if (inet_pton(AF_INET, argv[optind + 1], &a.v4) == 1) {
        a.family = AF_INET;
    } else if (inet_pton(AF_INET6, argv[optind + 1], &a.v6) == 1) {
        a.family = AF_INET6;
    } else {
        fprintf(stderr, "holdfast-announce: not an address: %s\n", argv[optind + 1]);
        return EXIT_USAGE;
    }
    if (a.ifindex == 0) {
        return fail(a.nic);
    }
    int rc = run(&a, count, interval_ms);

    if (a.fd >= 0) {
        close(a.fd);
    }
    return rc;
}
