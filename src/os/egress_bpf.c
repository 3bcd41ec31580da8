/* Output commit by a tc egress filter in BPF: load, attach or take over, maps, AF_PACKET. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "egress_image.h" /* made from src/bpf/egress.c */
#include "os/bpf.h"
#include "os/egress_impl.h"

/*
 * A filter is known by this and by hf_egress_number(): a later process replaces it, atomically, by
 * its own with new maps, which have no slots and no lease. So there is nothing to pin and no layout
 * to agree upon. First in line, because filters that answer TC_ACT_OK end the walk; ours, of which
 * there is one for each service of this host, let the next one look.
 */
#define FILTER_PRIORITY 1

struct bpf_way {
    struct bpf_object *object; /* owned */
    struct ring_buffer *ring;  /* owned */
    int numbers_fd, conns_fd;  /* the object's */
    int packet_fd;             /* owned; -1: none */
    size_t addresses_size, slots_size;
};

static const char *remedy(int rc)
{
    return rc == -EPERM || rc == -EACCES ? " (needs CAP_BPF and CAP_NET_ADMIN)" : "";
}

static int load(uint32_t slots_max, struct hf_err *err, struct bpf_object **ret_object)
{
    struct bpf_object *o;
    int rc = hf_bpf_open("hf_egress", egress_image, sizeof(egress_image), &o);
    rc = rc ? rc : bpf_map__set_max_entries(bpf_object__find_map_by_name(o, "slots"), slots_max);
    rc = rc ? rc : bpf_map__set_max_entries(bpf_object__find_map_by_name(o, "conns"), slots_max);
    rc = rc ? rc : bpf_object__load(o);
    if (rc) {
        bpf_object__close(o);
        return hf_err_set(err, rc, "the kernel does not take the egress filter: %s%s",
                          hf_strerror(rc), remedy(rc));
    }
    *ret_object = o;
    return 0;
}

static int open_packet_socket(struct hf_err *err)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = -errno;
    return fd < 0 ? hf_err_set(err, rc, "cannot open a packet socket: %s%s", hf_strerror(rc),
                               rc == -EPERM ? " (needs CAP_NET_RAW)" : "")
                  : fd;
}

int egress_bpf_probe(struct hf_err *err)
{
    struct bpf_object *o = NULL;
    int fd = open_packet_socket(err), rc = fd < 0 ? fd : load(1, err, &o);
    if (fd >= 0) {
        close(fd);
    }
    bpf_object__close(o);
    return rc;
}

static void *map_memory(struct bpf_object *o, const char *name, size_t value_size, size_t n,
                        size_t *ret_size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *ret_size = (value_size * n + page - 1) / page * page;
    void *p = mmap(NULL, *ret_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                   bpf_object__find_map_fd_by_name(o, name), 0);
    return p == MAP_FAILED ? NULL : p;
}

static int on_note(void *arg, void *data, size_t size)
{
    struct hf_egress_note note;
    if (size >= sizeof(note)) {
        memcpy(&note, data, sizeof(note));
        egress_tell(arg, note.syn_ack, note.address, &note.saved);
    }
    return 0;
}

static int set_up_maps(struct hf_egress *e, struct bpf_way *w)
{
    struct bpf_object *o = w->object;
    w->numbers_fd = bpf_object__find_map_fd_by_name(o, "numbers");
    w->conns_fd = bpf_object__find_map_fd_by_name(o, "conns");
    e->addresses = map_memory(o, "addresses", sizeof(*e->addresses), HF_EGRESS_ADDRESSES_MAX,
                              &w->addresses_size);
    e->slots = map_memory(o, "slots", sizeof(*e->slots), e->slots_max, &w->slots_size);
    if (!e->addresses || !e->slots) {
        return -errno;
    }
    for (uint32_t i = 0; i < e->addresses_len; i++) {
        struct hf_egress_addr_key key;
        egress_addr_key(&e->address[i], key.addr);
        e->addresses[i].port = e->address[i].port;
        int rc = bpf_map_update_elem(w->numbers_fd, &key, &i, BPF_NOEXIST);
        if (rc) {
            return rc;
        }
    }
    w->ring = ring_buffer__new(bpf_object__find_map_fd_by_name(o, "notes"), on_note, e, NULL);
    return w->ring ? 0 : -errno;
}

/* Saved headers begin with an Ethernet header: other links have none, or another. */
static int find_interface(const char *name, struct hf_err *err)
{
    struct ifreq ifr = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    int rc = fd < 0 || ioctl(fd, SIOCGIFHWADDR, &ifr) < 0 ? -errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (rc) {
        return hf_err_set(err, rc, "cannot guard the interface %s: %s", name, hf_strerror(rc));
    }
    if (ifr.ifr_hwaddr.sa_family != ARPHRD_ETHER && ifr.ifr_hwaddr.sa_family != ARPHRD_LOOPBACK) {
        return hf_err_set(err, -HF_EVALUE, "cannot guard the interface %s: not Ethernet", name);
    }
    return (int)if_nametoindex(name);
}

static int detach_from(int ifindex, enum bpf_tc_attach_point point, uint32_t number)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = point);
    LIBBPF_OPTS(bpf_tc_opts, opts, .handle = number, .priority = FILTER_PRIORITY);
    int rc = bpf_tc_detach(&hook, &opts);
    return rc == -ENOENT || rc == -EINVAL ? 0 : rc; /* no filter, no clsact */
}

static int attach_to(struct bpf_object *o, int ifindex, enum bpf_tc_attach_point point,
                     uint32_t number)
{
    const char *name = point == BPF_TC_EGRESS ? "hf_egress" : "hf_ingress";
    int fd = bpf_program__fd(bpf_object__find_program_by_name(o, name));
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = point);
    LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = fd, .handle = number, .priority = FILTER_PRIORITY,
                .flags = BPF_TC_F_REPLACE);
    int rc = bpf_tc_hook_create(&hook);
    return rc && rc != -EEXIST ? rc : bpf_tc_attach(&hook, &opts);
}

/* Egress first: from then on it is silent. */
static int attach(struct bpf_object *o, const char *name, uint32_t number, struct hf_err *err)
{
    int ifindex = find_interface(name, err);
    if (ifindex < 0) {
        return ifindex;
    }
    int rc = attach_to(o, ifindex, BPF_TC_EGRESS, number);
    rc = rc ? rc : attach_to(o, ifindex, BPF_TC_INGRESS, number);
    return rc ? hf_err_set(err, rc, "cannot attach the egress filter to %s: %s%s", name,
                           hf_strerror(rc), remedy(rc))
              : 0;
}

static bool is_attached(const char *name, uint32_t number)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex(name),
                .attach_point = BPF_TC_EGRESS);
    LIBBPF_OPTS(bpf_tc_opts, opts, .handle = number, .priority = FILTER_PRIORITY);
    return bpf_tc_query(&hook, &opts) == 0;
}

/* What a dead process left is replaced, and stays if the rest fails. */
static int attach_all(const struct hf_egress_options *o, struct bpf_object *object,
                      struct hf_err *err)
{
    uint32_t number = hf_egress_number(&o->addresses[0]);
    for (unsigned i = 0; i < o->interfaces_len; i++) {
        int ifindex = find_interface(o->interfaces[i], err);
        if (ifindex < 0) {
            return ifindex;
        }
    }
    bool was[HF_EGRESS_INTERFACES_MAX];
    for (unsigned i = 0; i < o->interfaces_len; i++) {
        was[i] = is_attached(o->interfaces[i], number);
        int rc = attach(object, o->interfaces[i], number, err);
        for (unsigned j = 0; rc && j <= i; j++) {
            int ifindex = (int)if_nametoindex(o->interfaces[j]);
            if (!was[j] && (detach_from(ifindex, BPF_TC_EGRESS, number) ||
                            detach_from(ifindex, BPF_TC_INGRESS, number))) {
                hf_log_debug("egress: ", "cannot undo the filter of %s", o->interfaces[j]);
            }
        }
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static int add(struct hf_egress *e, const struct hf_egress_conn_key *key, uint32_t slot)
{
    const struct bpf_way *w = e->way;
    return bpf_map_update_elem(w->conns_fd, key, &slot, BPF_NOEXIST);
}

static void del(struct hf_egress *e, const struct hf_egress_conn_key *key)
{
    const struct bpf_way *w = e->way;
    int rc = bpf_map_delete_elem(w->conns_fd, key);
    if (rc) {
        hf_log_debug("egress: ", "a connection's key is gone: %s", hf_strerror(rc));
    }
}

/* It goes through the filter, too, which by now lets it pass. */
static int send_packet(struct hf_egress *e, const struct hf_egress_saved *saved,
                       const uint8_t *packet, size_t n)
{
    const struct bpf_way *w = e->way;
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)saved->ifindex};
    return sendto(w->packet_fd, packet, n, 0, (const struct sockaddr *)&to, sizeof(to)) < 0 ? -errno
                                                                                            : 0;
}

static int ring_fd(const struct hf_egress *e)
{
    const struct bpf_way *w = e->way;
    return ring_buffer__epoll_fd(w->ring);
}

static int packet_fd(const struct hf_egress *e)
{
    const struct bpf_way *w = e->way;
    return w->packet_fd;
}

static int consume(struct hf_egress *e)
{
    const struct bpf_way *w = e->way;
    int rc = ring_buffer__consume(w->ring);
    return rc < 0 ? rc : 0;
}

static void close_way(struct hf_egress *e)
{
    struct bpf_way *w = e->way;
    ring_buffer__free(w->ring);
    if (e->addresses) {
        munmap(e->addresses, w->addresses_size);
    }
    if (e->slots) {
        munmap(e->slots, w->slots_size);
    }
    if (w->packet_fd >= 0) {
        close(w->packet_fd);
    }
    bpf_object__close(w->object); /* the attached filters keep programs and maps */
    hf_free(w);
}

static const struct egress_ops ops = {
    .lease_counts = true,
    .add = add,
    .del = del,
    .send = send_packet,
    .fd = ring_fd,
    .slow_fd = packet_fd,
    .dispatch = consume,
    .close = close_way,
};

int egress_bpf_open(struct hf_egress *e, const struct hf_egress_options *options,
                    struct hf_err *err)
{
    struct bpf_way *w = hf_alloc(sizeof(*w));
    if (!w) {
        return hf_err_set(err, -ENOMEM, "no memory for the egress filter");
    }
    e->way = w;
    e->ops = &ops; /* closes what there is */
    w->packet_fd = open_packet_socket(err);
    int rc = w->packet_fd < 0 ? w->packet_fd : load(e->slots_max, err, &w->object);
    if (rc) {
        return rc;
    }
    rc = set_up_maps(e, w);
    if (rc) {
        return hf_err_set(err, rc, "cannot use the egress filter's maps: %s%s", hf_strerror(rc),
                          remedy(rc));
    }
    return attach_all(options, w->object, err);
}

int egress_bpf_remove(const struct hf_egress_options *options, struct hf_err *err)
{
    uint32_t number = hf_egress_number(&options->addresses[0]);
    for (unsigned i = 0; i < options->interfaces_len; i++) {
        int ifindex = (int)if_nametoindex(options->interfaces[i]);
        if (ifindex == 0) {
            continue; /* gone, and the filter with it */
        }
        /* the clsact qdisc stays: others may use it, and it does nothing by itself */
        int rc = detach_from(ifindex, BPF_TC_INGRESS, number);
        rc = rc ? rc : detach_from(ifindex, BPF_TC_EGRESS, number);
        if (rc) {
            return hf_err_set(err, rc, "cannot take the egress filter off %s: %s%s",
                              options->interfaces[i], hf_strerror(rc), remedy(rc));
        }
    }
    return 0;
}
