/* Segments for an address that has moved, from a packet socket back onto the link. */
#include "os/forward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/list.h"
#include "base/mem.h"
#include "base/wr.h"
#include "codec/tcp_segment.h"

#define IPV6_LEN 40u
#define PACKET_MAX (65535u + IPV6_LEN)
#define PER_DISPATCH 256

struct kept {
    struct hf_list node;
    size_t n;
    uint8_t bytes[]; /* an IP packet */
};

struct hf_forward {
    struct hf_endpoint address;
    int fd;
    struct sockaddr_ll to; /* sll_halen 0: not known yet */
    uint8_t own[ETH_ALEN];
    struct hf_list kept;
    unsigned n_kept, n_sent;
    uint8_t in[PACKET_MAX], out[PACKET_MAX];
};

/* Only ARP, ICMPv6 and TCP to the address (or nearly, in IPv6) reach us. The socket's packets begin
 * with the network header. */
static int attach_filter(int fd, const struct hf_endpoint *a)
{
    uint32_t word[4];
    memcpy(word, a->addr, sizeof(word));
    for (size_t i = 0; i < 4; i++) {
        word[i] = ntohl(word[i]);
    }
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PROTOCOL)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_ARP, 13, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 4),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 11),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, word[0], 8, 9),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 0, 8),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 6),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ICMPV6, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 24),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, word[0], 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 36),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, word[3], 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct sock_fprog prog = {.len = HF_ARRAY_LEN(code), .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0 ? -errno : 0;
}

static int interface_facts(struct hf_forward *f, const char *interface)
{
    struct ifreq ifr = {0};
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", interface);
    if (ioctl(f->fd, SIOCGIFHWADDR, &ifr) < 0) {
        return -errno;
    }
    if (ifr.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
        return -ENODEV;
    }
    memcpy(f->own, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
    return 0;
}

int hf_forward_open(const char *interface, const struct hf_endpoint *address, struct hf_err *err,
                    struct hf_forward **ret_forward)
{
    struct hf_forward *f = hf_alloc(sizeof(*f));
    if (!f) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    f->address = *address;
    hf_list_init(&f->kept);
    /* protocol 0: nothing comes before the filter is there */
    f->fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(interface)};
    int rc = f->fd < 0 ? -errno : at.sll_ifindex == 0 ? -ENODEV : 0;
    rc = rc ? rc : interface_facts(f, interface);
    rc = rc ? rc : attach_filter(f->fd, address);
    rc = rc ? rc : bind(f->fd, (const struct sockaddr *)&at, sizeof(at)) < 0 ? -errno : 0;
    if (rc) {
        hf_forward_close(f);
        return hf_err_set(err, rc, "cannot look at what comes on %s: %s", interface,
                          hf_strerror(rc));
    }
    f->to = at;
    *ret_forward = f;
    return 0;
}

static void drop_kept(struct hf_forward *f, struct kept *k)
{
    hf_list_unlink(&k->node);
    hf_free(k);
    f->n_kept--;
}

void hf_forward_close(struct hf_forward *f)
{
    if (!f) {
        return;
    }
    HF_LIST_FOREACH (node, &f->kept) {
        drop_kept(f, HF_CONTAINER_OF(node, struct kept, node));
    }
    if (f->fd >= 0) {
        close(f->fd);
    }
    hf_free(f);
}

static void send_on(struct hf_forward *f, struct hf_slice packet)
{
    f->to.sll_protocol = htons(f->address.family == HF_AF_INET ? ETH_P_IP : ETH_P_IPV6);
    ssize_t n = sendto(f->fd, packet.p, packet.n, MSG_DONTWAIT, (const struct sockaddr *)&f->to,
                       sizeof(f->to));
    f->n_sent += n >= 0; /* otherwise as if the network had lost it */
}

static void keep(struct hf_forward *f, struct hf_slice packet)
{
    struct kept *k = f->n_kept < HF_FORWARD_MAX ? hf_alloc(sizeof(*k) + packet.n) : NULL;
    if (!k) {
        return;
    }
    k->n = packet.n;
    memcpy(k->bytes, packet.p, packet.n);
    hf_list_init(&k->node);
    hf_list_insert(&f->kept, &k->node);
    f->n_kept++;
}

static void on_segment(struct hf_forward *f, struct hf_slice packet)
{
    struct hf_tcp_segment seg;
    struct hf_wr w;
    struct hf_slice again;
    if (hf_tcp_segment_parse(packet, &seg) || seg.dst.port != f->address.port ||
        memcmp(seg.dst.addr, f->address.addr, sizeof(seg.dst.addr)) != 0) {
        return;
    }
    hf_wr_init(&w, f->out, sizeof(f->out));
    hf_tcp_wrap(&w, &seg.src, &seg.dst, hf_tcp_of_packet(packet));
    if (hf_wr_end(&w, &again)) {
        return;
    }
    if (f->to.sll_halen) {
        send_on(f, again);
    } else {
        keep(f, again);
    }
}

/* Somebody says that the address is there. */
static void on_claim(struct hf_forward *f, const uint8_t *mac)
{
    if (memcmp(mac, f->own, ETH_ALEN) == 0) {
        return;
    }
    memcpy(f->to.sll_addr, mac, ETH_ALEN);
    f->to.sll_halen = ETH_ALEN;
    HF_LIST_FOREACH (node, &f->kept) {
        struct kept *k = HF_CONTAINER_OF(node, struct kept, node);
        send_on(f, hf_slice(k->bytes, k->n));
        drop_kept(f, k);
    }
}

static void on_arp(struct hf_forward *f, struct hf_slice packet)
{
    struct ether_arp arp;
    if (packet.n < sizeof(arp)) {
        return;
    }
    memcpy(&arp, packet.p, sizeof(arp));
    if (f->address.family == HF_AF_INET && arp.ea_hdr.ar_hln == ETH_ALEN &&
        arp.ea_hdr.ar_pln == 4 && memcmp(arp.arp_spa, f->address.addr, 4) == 0) {
        on_claim(f, arp.arp_sha);
    }
}

/* A neighbour advertisement whose first option is its link-layer address, as hosts send it. */
static void on_advert(struct hf_forward *f, struct hf_slice icmp)
{
    struct {
        struct nd_neighbor_advert na;
        struct nd_opt_hdr opt;
        uint8_t mac[ETH_ALEN];
    } m;
    if (icmp.n < sizeof(m)) {
        return;
    }
    memcpy(&m, icmp.p, sizeof(m));
    if (m.na.nd_na_type == ND_NEIGHBOR_ADVERT && m.opt.nd_opt_type == ND_OPT_TARGET_LINKADDR &&
        m.opt.nd_opt_len == 1 && memcmp(&m.na.nd_na_target, f->address.addr, 16) == 0) {
        on_claim(f, m.mac);
    }
}

static void on_packet(struct hf_forward *f, uint16_t protocol, struct hf_slice packet)
{
    if (protocol == ETH_P_ARP) {
        on_arp(f, packet);
    } else if (protocol == ETH_P_IPV6 && packet.n > IPV6_LEN && packet.p[6] == IPPROTO_ICMPV6) {
        on_advert(f, hf_slice(packet.p + IPV6_LEN, packet.n - IPV6_LEN));
    } else if (protocol == ETH_P_IP || protocol == ETH_P_IPV6) {
        on_segment(f, packet);
    }
}

void hf_forward_dispatch(struct hf_forward *f)
{
    for (unsigned i = 0; i < PER_DISPATCH; i++) {
        struct sockaddr_ll from = {0};
        socklen_t len = sizeof(from);
        ssize_t n =
            recvfrom(f->fd, f->in, sizeof(f->in), MSG_DONTWAIT, (struct sockaddr *)&from, &len);
        if (n < 0) {
            return;
        }
        if (from.sll_pkttype != PACKET_OUTGOING) {
            on_packet(f, ntohs(from.sll_protocol), hf_slice(f->in, (size_t)n));
        }
    }
}

int hf_forward_fd(const struct hf_forward *f)
{
    return f->fd;
}

unsigned hf_forward_count(const struct hf_forward *f)
{
    return f->n_sent;
}
