/* Addresses by rtnetlink(7); word of them by packet and raw ICMPv6 sockets. */
#include "os/netaddr.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DUMPS_MAX 10 /* of a list that changes while it is read */
#define PREFIX_LEN_MAX 128
#define HOP_LIMIT 255 /* RFC 4861 7.1.2: anything less is ignored */

/* RTM_NEWADDR, RTM_DELADDR. IFA_LOCAL alone is enough: without IFA_ADDRESS it is no peer's. */
struct change {
    struct nlmsghdr head;
    struct ifaddrmsg body;
    struct rtattr attr;
    uint8_t addr[16];
};

/* An unsolicited neighbour advertisement with its target link-layer address option */
struct advert {
    struct nd_neighbor_advert na;
    struct nd_opt_hdr opt;
    uint8_t mac[ETH_ALEN];
} __attribute__((packed));

static int family_of(const struct hf_endpoint *a)
{
    assert(a->family == HF_AF_INET || a->family == HF_AF_INET6);
    return a->family == HF_AF_INET6 ? AF_INET6 : AF_INET;
}

static size_t len_of(const struct hf_endpoint *a)
{
    return a->family == HF_AF_INET6 ? 16 : 4;
}

static int fail(struct hf_err *err, int rc, const char *what, const struct hf_endpoint *a,
                const char *interface, const char *capability)
{
    char text[INET6_ADDRSTRLEN] = "";
    bool denied = rc == -EPERM;
    inet_ntop(family_of(a), a->addr, text, sizeof(text));
    return hf_err_set(err, rc, "cannot %s %s on %s: %s%s%s", what, text, interface, hf_strerror(rc),
                      denied ? "; start the program with " : "", denied ? capability : "");
}

/* ---- rtnetlink ---- */

static int open_netlink(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    return fd < 0 ? -errno : fd;
}

/* The kernel has done it when send(2) returns, so its answer is there: nothing here waits. */
static int ask(int fd, struct nlmsghdr *request)
{
    return send(fd, request, request->nlmsg_len, 0) < 0 ? -errno : 0;
}

static int error_of(struct nlmsghdr *h)
{
    struct nlmsgerr e;
    if (h->nlmsg_len < NLMSG_LENGTH(sizeof(e))) {
        return -EPROTO;
    }
    memcpy(&e, NLMSG_DATA(h), sizeof(e));
    return e.error;
}

static int change(int fd, unsigned short type, unsigned ifindex, const struct hf_endpoint *a,
                  unsigned prefix_len)
{
    struct change c = {
        .head = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .body = {.ifa_family = (uint8_t)family_of(a),
                 .ifa_prefixlen = (uint8_t)prefix_len,
                 .ifa_scope = RT_SCOPE_UNIVERSE,
                 .ifa_index = ifindex},
        .attr = {.rta_type = IFA_LOCAL, .rta_len = (unsigned short)RTA_LENGTH(len_of(a))},
    };
    union {
        struct nlmsghdr head;
        char bytes[sizeof(struct nlmsghdr) + sizeof(struct nlmsgerr) + sizeof(struct change) + 256];
    } answer;
    memcpy(c.addr, a->addr, len_of(a));
    c.head.nlmsg_len = (uint32_t)(offsetof(struct change, addr) + len_of(a));
    if (type == RTM_NEWADDR) {
        c.head.nlmsg_flags |= NLM_F_CREATE | NLM_F_REPLACE;
        c.body.ifa_flags = a->family == HF_AF_INET6 ? IFA_F_NODAD : 0;
    }
    int rc = ask(fd, &c.head);
    if (rc) {
        return rc;
    }
    int64_t n = recv(fd, &answer, sizeof(answer), MSG_DONTWAIT);
    if (n < 0) {
        return -errno;
    }
    return NLMSG_OK(&answer.head, n) && answer.head.nlmsg_type == NLMSG_ERROR
               ? error_of(&answer.head)
               : -EPROTO;
}

/* Is this RTM_NEWADDR of a list the address? */
static bool is_address(struct nlmsghdr *h, const struct hf_endpoint *a, struct ifaddrmsg *ret_body)
{
    if (h->nlmsg_type != RTM_NEWADDR || h->nlmsg_len < NLMSG_LENGTH(sizeof(*ret_body))) {
        return false;
    }
    struct ifaddrmsg body;
    struct rtattr *found = NULL, *attr = IFA_RTA(NLMSG_DATA(h));
    memcpy(&body, NLMSG_DATA(h), sizeof(body));
    for (int64_t n = IFA_PAYLOAD(h); RTA_OK(attr, n); attr = RTA_NEXT(attr, n)) {
        /* on a link with a peer IFA_ADDRESS is the peer's, and IFA_LOCAL ours */
        if (attr->rta_type == IFA_LOCAL || (attr->rta_type == IFA_ADDRESS && !found)) {
            found = attr;
        }
    }
    if (!found || body.ifa_family != family_of(a) || RTA_PAYLOAD(found) != len_of(a) ||
        memcmp(RTA_DATA(found), a->addr, len_of(a)) != 0) {
        return false;
    }
    *ret_body = body;
    return true;
}

/* One list of all addresses: 1: found, 0: not, -EINTR: it changed meanwhile, or -errno. */
static int dump(int fd, unsigned ifindex, const struct hf_endpoint *a, struct ifaddrmsg *ret_where)
{
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg body;
    } request = {
        .head = {.nlmsg_len = sizeof(request),
                 .nlmsg_type = RTM_GETADDR,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.ifa_family = (uint8_t)family_of(a)},
    };
    union {
        struct nlmsghdr head;
        char bytes[32768]; /* what the kernel puts into one message at most */
    } answer;
    struct ifaddrmsg body;
    bool found = false, changed = false;
    int rc = ask(fd, &request.head);
    while (rc == 0) {
        int64_t n = recv(fd, &answer, sizeof(answer), MSG_DONTWAIT);
        if (n < 0) {
            return -errno;
        }
        for (struct nlmsghdr *h = &answer.head; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            changed |= (h->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
            if (h->nlmsg_type == NLMSG_DONE) {
                return found ? 1 : changed ? -EINTR : 0;
            }
            if (h->nlmsg_type == NLMSG_ERROR) {
                return error_of(h);
            }
            if (!found && is_address(h, a, &body) && (!ifindex || body.ifa_index == ifindex)) {
                found = true;
                *ret_where = body;
            }
        }
    }
    return rc;
}

/* Where the address is; ifindex 0: on any interface. Not by getifaddrs(3), which gives an address
 * with a label another interface's name. 1: found, 0: not, or -errno. */
static int find(int fd, unsigned ifindex, const struct hf_endpoint *a, struct ifaddrmsg *ret_where)
{
    int rc = -EINTR;
    for (int i = 0; rc == -EINTR && i < DUMPS_MAX; i++) {
        rc = dump(fd, ifindex, a, ret_where);
    }
    return rc;
}

int hf_netaddr_add(const char *interface, const struct hf_endpoint *address, unsigned prefix_len,
                   struct hf_err *err)
{
    unsigned ifindex = if_nametoindex(interface);
    int fd = ifindex ? open_netlink() : -errno;
    int rc = fd < 0 ? fd : change(fd, RTM_NEWADDR, ifindex, address, prefix_len);
    if (fd >= 0) {
        close(fd);
    }
    return rc ? fail(err, rc, "put", address, interface, "CAP_NET_ADMIN") : 0;
}

int hf_netaddr_remove(const char *interface, const struct hf_endpoint *address, struct hf_err *err)
{
    struct ifaddrmsg where;
    unsigned ifindex = if_nametoindex(interface);
    int fd = ifindex ? open_netlink() : -errno;
    int rc = fd < 0 ? fd : find(fd, ifindex, address, &where);
    /* IPv4 may have it several times, with other prefix lengths */
    for (int i = 0; rc > 0 && i <= PREFIX_LEN_MAX; i++) {
        rc = change(fd, RTM_DELADDR, ifindex, address, where.ifa_prefixlen);
        rc = rc == 0 || rc == -EADDRNOTAVAIL ? find(fd, ifindex, address, &where) : rc;
    }
    if (fd >= 0) {
        close(fd);
    }
    rc = rc == -ENODEV ? 0 : rc > 0 ? -EBUSY : rc; /* EBUSY: somebody puts it back */
    return rc ? fail(err, rc, "remove", address, interface, "CAP_NET_ADMIN") : 0;
}

bool hf_netaddr_is_on(const char *interface, const struct hf_endpoint *address)
{
    struct ifaddrmsg where;
    unsigned ifindex = interface ? if_nametoindex(interface) : 0;
    int fd = interface && !ifindex ? -1 : open_netlink();
    if (fd < 0) {
        return false;
    }
    int rc = find(fd, ifindex, address, &where);
    close(fd);
    return rc > 0;
}

bool hf_netaddr_has(const struct hf_endpoint *address)
{
    return hf_netaddr_is_on(NULL, address);
}

/* RTM_GETROUTE */
struct route_question {
    struct nlmsghdr head;
    struct rtmsg body;
    struct rtattr attr;
    uint8_t addr[16];
};

bool hf_netaddr_is_ready(const struct hf_endpoint *address)
{
    struct route_question q = {
        .head = {.nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST},
        .body = {.rtm_family = (uint8_t)family_of(address),
                 .rtm_dst_len = (uint8_t)(8 * len_of(address))},
        .attr = {.rta_type = RTA_DST, .rta_len = (unsigned short)RTA_LENGTH(len_of(address))},
    };
    union {
        struct nlmsghdr head;
        char bytes[4096];
    } answer;
    struct rtmsg body;
    int fd = open_netlink();
    if (fd < 0) {
        return false;
    }
    memcpy(q.addr, address->addr, len_of(address));
    q.head.nlmsg_len = (uint32_t)(offsetof(struct route_question, addr) + len_of(address));
    int64_t n = ask(fd, &q.head) ? -1 : recv(fd, &answer, sizeof(answer), MSG_DONTWAIT);
    close(fd);
    if (n < 0 || !NLMSG_OK(&answer.head, n) || answer.head.nlmsg_type != RTM_NEWROUTE ||
        answer.head.nlmsg_len < NLMSG_LENGTH(sizeof(body))) {
        return false;
    }
    memcpy(&body, NLMSG_DATA(&answer.head), sizeof(body));
    return body.rtm_type == RTN_LOCAL;
}

/* ---- announcements ---- */

static int send_arp(int fd, unsigned ifindex, const uint8_t *mac, const struct hf_endpoint *a,
                    uint16_t op)
{
    struct sockaddr_ll to = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ARP),
        .sll_ifindex = (int)ifindex,
        .sll_halen = ETH_ALEN,
    };
    struct ether_arp arp = {
        .ea_hdr = {.ar_hrd = htons(ARPHRD_ETHER),
                   .ar_pro = htons(ETH_P_IP),
                   .ar_hln = ETH_ALEN,
                   .ar_pln = 4,
                   .ar_op = htons(op)},
    };
    memset(to.sll_addr, 0xff, ETH_ALEN);
    memcpy(arp.arp_sha, mac, ETH_ALEN);
    memcpy(arp.arp_spa, a->addr, 4);
    if (op == ARPOP_REPLY) {
        memset(arp.arp_tha, 0xff, ETH_ALEN);
    }
    memcpy(arp.arp_tpa, a->addr, 4);
    return sendto(fd, &arp, sizeof(arp), MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to)) < 0
               ? -errno
               : 0;
}

static int send_advert(int fd, unsigned ifindex, const uint8_t *mac, const struct hf_endpoint *a)
{
    const int hops = HOP_LIMIT, index = (int)ifindex;
    struct sockaddr_in6 from = {.sin6_family = AF_INET6};
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_scope_id = ifindex};
    struct advert msg = {
        .na.nd_na_type = ND_NEIGHBOR_ADVERT,
        .na.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE,
        .opt = {.nd_opt_type = ND_OPT_TARGET_LINKADDR, .nd_opt_len = 1},
    };
    inet_pton(AF_INET6, "ff02::1", &to.sin6_addr);
    memcpy(&from.sin6_addr, a->addr, sizeof(from.sin6_addr));
    from.sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&from.sin6_addr) ? ifindex : 0;
    memcpy(&msg.na.nd_na_target, a->addr, sizeof(msg.na.nd_na_target));
    memcpy(msg.mac, mac, ETH_ALEN);
    if (setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof(hops)) < 0 ||
        setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof(index)) < 0 ||
        bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
        sendto(fd, &msg, sizeof(msg), MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to)) < 0) {
        return -errno;
    }
    return 0;
}

static int announce(int fd, const char *interface, const struct hf_endpoint *a)
{
    struct ifreq ifr = {0};
    unsigned ifindex = if_nametoindex(interface);
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", interface);
    if (!ifindex || ioctl(fd, SIOCGIFHWADDR, &ifr) < 0) {
        return -errno;
    }
    if (ifr.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
        return 0; /* nobody asks for link-layer addresses there */
    }
    const uint8_t *mac = (const uint8_t *)ifr.ifr_hwaddr.sa_data;
    if (a->family == HF_AF_INET6) {
        return send_advert(fd, ifindex, mac, a);
    }
    /* the reply for hosts that learn only from those */
    int rc = send_arp(fd, ifindex, mac, a, ARPOP_REQUEST);
    return rc ? rc : send_arp(fd, ifindex, mac, a, ARPOP_REPLY);
}

int hf_netaddr_slow_fd(void)
{
    static int fd = -1;
    fd = fd < 0 ? socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : fd;
    return fd;
}

int hf_netaddr_announce(const char *interface, const struct hf_endpoint *address,
                        struct hf_err *err)
{
    bool v6 = family_of(address) == AF_INET6;
    int fd = v6 ? socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6) : hf_netaddr_slow_fd();
    int rc = fd < 0 ? -errno : announce(fd, interface, address);
    if (v6 && fd >= 0) {
        close(fd);
    }
    return rc ? fail(err, rc, "announce", address, interface, "CAP_NET_RAW") : 0;
}
