/* Output commit by NFQUEUE, where BPF is not allowed: each packet is judged in this process. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "os/addr.h"
#include "os/egress_impl.h"
#include "os/loop.h"

/*
 * The rules of netfilter stay when this process dies: a queue that nobody reads drops all. They
 * name chains of our own, made anew in one commit when a process takes over.
 */
#define QUEUE_LEN 65536          /* packets */
#define RECEIVE_BUFFER (8 << 20) /* bytes */
#define MESSAGE_MAX (0x10000 + 4096)
#define BATCH 256 /* packets per dispatch; then the others in the loop */
#define SCRIPT_MAX 32768

struct nfq_way {
    struct nfq_handle *nfq;     /* owned */
    struct nfq_q_handle *queue; /* owned */
    int raw4, raw6;             /* owned; -1: none */
    struct hf_map conns;        /* struct egress_known by key */
    int error;                  /* of a verdict, in a dispatch */
    uint8_t message[MESSAGE_MAX];
};

/* ---- rules of netfilter ---- */

/* Run an iptables program with input and collect the last line that it says; 0 or -errno. */
static int run_tool(const char *const *argv, const char *input, char *said, size_t said_max)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, status = 0;
    pid_t pid = 0;
    posix_spawn_file_actions_t actions;
    extern char **environ;
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0) {
        int rc = -errno;
        if (in[0] >= 0) {
            close(in[0]);
            close(in[1]);
        }
        return rc;
    }
    /* SCRIPT_MAX is less than what a pipe holds */
    int rc = write(in[1], input, strlen(input)) < 0 ? -errno : 0;
    close(in[1]);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, out[1], 2);
    rc = rc ? rc
            : -posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    size_t n = 0;
    for (ssize_t got; rc == 0 && (got = read(out[0], said + n, said_max - 1 - n)) > 0;) {
        n += (size_t)got;
        if (n == said_max - 1) {
            n /= 2;
        }
    }
    said[n] = '\0';
    said[strcspn(said, "\n")] = '\0';
    close(out[0]);
    while (rc == 0 && waitpid(pid, &status, 0) < 0) {
        rc = errno == EINTR ? 0 : -errno;
    }
    return rc ? rc : status ? -EPERM : 0;
}

static bool has_family(const struct hf_egress_options *o, bool v6)
{
    for (unsigned i = 0; i < o->addresses_len; i++) {
        if ((o->addresses[i].family == HF_AF_INET6) == v6) {
            return true;
        }
    }
    return false;
}

/* Are our chains in use? */
/* Of 16 bits; chains have its name. */
static uint16_t queue_of(const struct hf_egress_options *o)
{
    uint32_t number = hf_egress_number(&o->addresses[0]);
    return (uint16_t)(number ^ number >> 16);
}

static bool has_rules(const struct hf_egress_options *o, bool v6)
{
    char chain[32], said[256];
    snprintf(chain, sizeof(chain), "HF-EGRESS-%u", queue_of(o));
    const char *argv[] = {v6 ? "ip6tables" : "iptables", "-w", "-C", "OUTPUT", "-j", chain, NULL};
    return run_tool(argv, "", said, sizeof(said)) == 0;
}

static int restore(const char *script, bool v6, struct hf_err *err)
{
    const char *argv[] = {v6 ? "ip6tables-restore" : "iptables-restore", "-w", "--noflush", NULL};
    char said[256];
    int rc = run_tool(argv, script, said, sizeof(said));
    return rc ? hf_err_set(err, rc, "%s: %s%s%.120s", argv[0],
                           rc == -ENOENT ? "not installed" : "refused", *said ? ": " : "", said)
              : 0;
}

static int install_rules(const struct hf_egress_options *o, bool v6, struct hf_err *err)
{
    static char s[SCRIPT_MAX]; /* start-up only */
    unsigned q = queue_of(o);
    int n = snprintf(s, sizeof(s), "*filter\n:HF-EGRESS-%u -\n:HF-INGRESS-%u -\n", q, q);
    for (unsigned i = 0; i < o->addresses_len; i++) {
        char text[INET6_ADDRSTRLEN];
        struct hf_endpoint ep = o->addresses[i];
        if ((ep.family == HF_AF_INET6) != v6) {
            continue;
        }
        inet_ntop(v6 ? AF_INET6 : AF_INET, ep.addr, text, sizeof(text));
        for (unsigned j = 0; j < o->interfaces_len && n < SCRIPT_MAX; j++) {
            n += snprintf(s + n, (size_t)(SCRIPT_MAX - n),
                          "-A HF-EGRESS-%u -s %s -o %s -j NFQUEUE --queue-num %u\n"
                          "-A HF-INGRESS-%u -d %s -i %s -p tcp --dport %u --syn -j NFQUEUE "
                          "--queue-num %u\n",
                          q, text, o->interfaces[j], q, q, text, o->interfaces[j], ep.port, q);
        }
    }
    if (n < SCRIPT_MAX && !has_rules(o, v6)) {
        n += snprintf(s + n, (size_t)(SCRIPT_MAX - n),
                      "-I OUTPUT -j HF-EGRESS-%u\n-I INPUT -j HF-INGRESS-%u\n", q, q);
    }
    if (n < SCRIPT_MAX) {
        n += snprintf(s + n, (size_t)(SCRIPT_MAX - n), "COMMIT\n");
    }
    return n < SCRIPT_MAX ? restore(s, v6, err) : hf_err_set(err, -HF_EFULL, "too many rules");
}

static int remove_rules(const struct hf_egress_options *o, bool v6, struct hf_err *err)
{
    char s[512];
    unsigned q = queue_of(o);
    snprintf(s, sizeof(s),
             "*filter\n-D OUTPUT -j HF-EGRESS-%u\n-D INPUT -j HF-INGRESS-%u\n-F HF-EGRESS-%u\n"
             "-F HF-INGRESS-%u\n-X HF-EGRESS-%u\n-X HF-INGRESS-%u\nCOMMIT\n",
             q, q, q, q, q, q);
    return has_rules(o, v6) ? restore(s, v6, err) : 0;
}

int egress_nfq_remove(const struct hf_egress_options *options, struct hf_err *err)
{
    for (int v6 = 0; v6 < 2; v6++) {
        int rc = has_family(options, v6) ? remove_rules(options, v6, err) : 0;
        if (rc) {
            return rc;
        }
    }
    return 0;
}

/* ---- packets ---- */

static int number_of(const struct hf_egress *e, const uint8_t addr[16])
{
    for (unsigned i = 0; i < e->addresses_len; i++) {
        uint8_t key[16];
        egress_addr_key(&e->address[i], key);
        if (memcmp(key, addr, sizeof(key)) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static struct hf_egress_slot *slot_of(struct hf_egress *e, const struct hf_egress_facts *f,
                                      unsigned address)
{
    const struct nfq_way *w = e->way;
    struct hf_egress_conn_key key = {.peer_port = f->peer_port, .address = address};
    memcpy(key.peer, f->peer, sizeof(key.peer));
    const struct egress_known *k = hf_map_get(&w->conns, hf_slice(&key, sizeof(key)));
    return k ? &e->slots[k - e->known] : NULL;
}

static void count(struct hf_egress_address *a, enum hf_egress_counter counter)
{
    if (counter < HF_EGRESS_COUNTERS) {
        a->counters[counter]++;
    }
}

static void tell(struct hf_egress *e, bool syn_ack, unsigned address, struct hf_slice packet,
                 const struct hf_egress_facts *f)
{
    struct hf_egress_saved saved;
    if (hf_egress_save(&saved, packet, f)) {
        egress_tell(e, syn_ack, address, &saved);
    } else {
        count(&e->addresses[address], HF_EGRESS_N_BAD);
    }
}

/* As hf_egress() in src/bpf/egress.c. True: let it go, *ret_changed: with data as it is now. */
static bool judge_output(struct hf_egress *e, uint8_t *data, size_t n,
                         const struct hf_egress_facts *f, bool *ret_changed)
{
    int number = number_of(e, f->source);
    if (number < 0) {
        return true;
    }
    struct hf_egress_address *a = &e->addresses[number];
    struct hf_egress_slot *slot =
        f->kind == HF_EGRESS_KIND_TCP ? slot_of(e, f, (unsigned)number) : NULL;
    enum hf_egress_counter counter = HF_EGRESS_COUNTERS;
    enum hf_egress_verdict verdict =
        hf_egress_judge(f, slot, a, (uint64_t)hf_egress_now(), &counter);
    uint32_t ack = f->ack;
    count(a, counter);
    if (verdict == HF_EGRESS_HOLD_SYN_ACK) {
        tell(e, true, (unsigned)number, hf_slice(data, n), f);
        return false;
    }
    if (slot && (verdict == HF_EGRESS_HOLD_ACK || verdict == HF_EGRESS_LOWER)) {
        if (hf_egress_save(&slot->saved, hf_slice(data, n), f)) {
            slot->pending = 1;
        }
    }
    if (slot && verdict == HF_EGRESS_LOWER) {
        ack = slot->rx_conf;
        hf_egress_lower(data, f, ack, (uint8_t)slot->wscale);
        hf_egress_set_checksums(data, f); /* the card's work until now */
        *ret_changed = true;
    }
    bool pass = verdict == HF_EGRESS_PASS || verdict == HF_EGRESS_LOWER;
    if (pass && slot) {
        hf_egress_note_passed(slot, f, ack);
    }
    return pass;
}

static void look_at_input(struct hf_egress *e, struct hf_slice packet,
                          const struct hf_egress_facts *f)
{
    int number = f->kind == HF_EGRESS_KIND_TCP ? number_of(e, f->peer) : -1;
    if (number >= 0 && f->peer_port == e->addresses[number].port &&
        (f->tcp_flags & 0x12) == 0x02) { /* SYN without ACK */
        tell(e, false, (unsigned)number, packet, f);
    }
}

static int on_packet(struct nfq_q_handle *q, struct nfgenmsg *msg, struct nfq_data *d, void *arg)
{
    (void)msg;
    struct hf_egress *e = arg;
    struct nfq_way *w = e->way;
    struct nfqnl_msg_packet_hdr *h = nfq_get_msg_packet_hdr(d);
    uint8_t *data;
    int n = nfq_get_payload(d, &data);
    if (!h) {
        return 0;
    }
    struct hf_egress_facts f = {.kind = HF_EGRESS_KIND_OTHER};
    bool pass = n > 0, changed = false;
    if (pass) {
        hf_egress_parse(hf_slice(data, (size_t)n), ntohs(h->hw_protocol), &f);
        if (h->hook == NF_INET_LOCAL_OUT) {
            pass = judge_output(e, data, (size_t)n, &f, &changed);
        } else {
            look_at_input(e, hf_slice(data, (size_t)n), &f);
        }
    }
    int rc = nfq_set_verdict(q, ntohl(h->packet_id), pass ? NF_ACCEPT : NF_DROP,
                             changed ? (uint32_t)n : 0, changed ? data : NULL);
    w->error = rc < 0 ? -errno : w->error; /* TCP would wait for this one for ever */
    return 0;
}

static int dispatch(struct hf_egress *e)
{
    struct nfq_way *w = e->way;
    w->error = 0;
    for (int i = 0; i < BATCH; i++) {
        ssize_t n = recv(nfq_fd(w->nfq), w->message, sizeof(w->message), MSG_DONTWAIT);
        if (n < 0) {
            return errno == EAGAIN || errno == EINTR || errno == ENOBUFS ? w->error : -errno;
        }
        nfq_handle_packet(w->nfq, (char *)w->message, (int)n);
    }
    return w->error;
}

/* ---- the rest ---- */

static int add(struct hf_egress *e, const struct hf_egress_conn_key *key, uint32_t slot)
{
    struct nfq_way *w = e->way;
    struct hf_slice k = hf_slice(key, sizeof(*key));
    return hf_map_get(&w->conns, k) ? -EEXIST : hf_map_put(&w->conns, k, &e->known[slot]);
}

static void del(struct hf_egress *e, const struct hf_egress_conn_key *key)
{
    struct nfq_way *w = e->way;
    hf_map_remove(&w->conns, hf_slice(key, sizeof(*key)));
}

/* The kernel makes the link header anew. It comes by our queue, too, which by now lets it pass. */
static int send_packet(struct hf_egress *e, const struct hf_egress_saved *saved,
                       const uint8_t *packet, size_t n)
{
    const struct nfq_way *w = e->way;
    struct hf_egress_facts f;
    int rc = hf_egress_parse_saved(saved, &f);
    if (rc) {
        return rc;
    }
    bool v6 = packet[0] >> 4 == 6;
    struct hf_endpoint to = {.family = v6 ? HF_AF_INET6 : HF_AF_INET};
    memcpy(to.addr, v6 ? f.peer : f.peer + 12, v6 ? 16 : 4);
    struct hf_addr a = hf_addr_from_endpoint(&to);
    return sendto(v6 ? w->raw6 : w->raw4, packet, n, 0, (const struct sockaddr *)&a.ss, a.len) < 0
               ? -errno
               : 0;
}

static int queue_fd(const struct hf_egress *e)
{
    const struct nfq_way *w = e->way;
    return nfq_fd(w->nfq);
}

static void close_way(struct hf_egress *e)
{
    struct nfq_way *w = e->way;
    if (w->queue) {
        nfq_destroy_queue(w->queue);
    }
    if (w->nfq) {
        nfq_close(w->nfq);
    }
    if (w->raw4 >= 0) {
        close(w->raw4);
    }
    if (w->raw6 >= 0) {
        close(w->raw6);
    }
    hf_map_fini(&w->conns);
    hf_free(e->addresses);
    hf_free(e->slots);
    hf_free(w);
}

static const struct egress_ops ops = {
    .add = add,
    .del = del,
    .send = send_packet,
    .fd = queue_fd,
    .dispatch = dispatch,
    .close = close_way,
};

static int open_raw(bool v6, struct hf_err *err)
{
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
    int rc = -errno;
    return fd < 0 ? hf_err_set(err, rc, "cannot open a raw socket: %s%s", hf_strerror(rc),
                               rc == -EPERM ? " (needs CAP_NET_RAW)" : "")
                  : fd;
}

/* Bind the queue; number 0 .. 65535. */
static int open_queue(struct nfq_way *w, struct hf_egress *e, uint16_t number, struct hf_err *err)
{
    int one = 1;
    w->nfq = nfq_open();
    w->queue = w->nfq ? nfq_create_queue(w->nfq, number, on_packet, e) : NULL;
    if (!w->queue || nfq_set_mode(w->queue, NFQNL_COPY_PACKET, 0xffff) < 0 ||
        nfq_set_queue_flags(w->queue, NFQA_CFG_F_GSO, NFQA_CFG_F_GSO) < 0 ||
        nfq_set_queue_maxlen(w->queue, QUEUE_LEN) < 0) {
        int rc = errno ? -errno : -EIO;
        return hf_err_set(err, rc, "cannot bind NFQUEUE %u: %s%s", number, hf_strerror(rc),
                          rc == -EPERM ? " (needs CAP_NET_ADMIN, and to be its only user)" : "");
    }
    nfnl_rcvbufsiz(nfq_nfnlh(w->nfq), RECEIVE_BUFFER);
    setsockopt(nfq_fd(w->nfq), SOL_NETLINK, NETLINK_NO_ENOBUFS, &one, sizeof(one));
    return 0;
}

int egress_nfq_open(struct hf_egress *e, const struct hf_egress_options *options,
                    struct hf_err *err)
{
    struct nfq_way *w = hf_alloc(sizeof(*w));
    if (!w) {
        return hf_err_set(err, -ENOMEM, "no memory for NFQUEUE");
    }
    e->way = w;
    e->ops = &ops; /* closes what there is */
    w->raw4 = w->raw6 = -1;
    hf_map_init(&w->conns, (uint64_t)hf_now());
    e->addresses = hf_alloc_array(HF_EGRESS_ADDRESSES_MAX, sizeof(*e->addresses));
    e->slots = hf_alloc_array(e->slots_max, sizeof(*e->slots));
    if (!e->addresses || !e->slots) {
        return hf_err_set(err, -ENOMEM, "no memory for NFQUEUE");
    }
    for (unsigned i = 0; i < e->addresses_len; i++) {
        e->addresses[i].port = e->address[i].port;
    }
    for (unsigned i = 0; i < options->interfaces_len; i++) {
        if (if_nametoindex(options->interfaces[i]) == 0) {
            return hf_err_set(err, -ENODEV, "cannot guard the interface %s: %s",
                              options->interfaces[i], hf_strerror(-ENODEV));
        }
    }
    int rc = w->raw4 = open_raw(false, err);
    if (rc >= 0 && has_family(options, true)) {
        rc = w->raw6 = open_raw(true, err);
    }
    rc = rc < 0 ? rc : open_queue(w, e, queue_of(options), err);
    for (int v6 = 0; v6 < 2 && rc == 0; v6++) {
        rc = has_family(options, v6) ? install_rules(options, v6, err) : 0;
    }
    return rc;
}

/* A queue that is bound and a rule that is only checked: the kernel and iptables know NFQUEUE? */
int egress_nfq_probe(struct hf_err *err)
{
    static const char *const argv[] = {"iptables-restore", "-w", "--noflush", "--test", NULL};
    char said[256];
    int rc = open_raw(false, err);
    if (rc < 0) {
        return rc;
    }
    close(rc);
    struct nfq_handle *nfq = nfq_open();
    rc = nfq ? 0 : hf_err_set(err, -errno, "the kernel has no NFQUEUE: %s", hf_strerror(-errno));
    if (nfq) {
        nfq_close(nfq);
        rc = run_tool(argv, "*filter\n-A OUTPUT -j NFQUEUE --queue-num 0\nCOMMIT\n", said,
                      sizeof(said));
        rc = rc == -ENOENT ? hf_err_set(err, rc, "iptables is not installed")
             : rc          ? hf_err_set(err, rc, "iptables refuses NFQUEUE: %.150s", said)
                           : 0;
    }
    return rc;
}
