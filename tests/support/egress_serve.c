/* A TCP server behind the output commit, for system tests. What it reads it confirms when it is
 * told to.
 *
 * egress-serve HOW INTERFACE ADDRESS:PORT...     HOW: bpf, nfqueue; several interfaces: a,b
 * egress-serve probe                             what this host and these capabilities allow
 * egress-serve remove HOW INTERFACE ADDRESS:PORT...
 *
 * Standard input, a command a line; its end, or a signal, ends the program and leaves the guard:
 *   lease MS     of all addresses: from now on; -1: no end; 0: over      flags N     of all
 * addresses syn hold|go  what becomes of SYN-ACKs (go: registered and sent)      confirm N   of
 * each connection's bytes auto         confirm each read when the next has come, or after 2 ms, and
 * answer each with a byte write TEXT   confirm and send       early TEXT   send unconfirmed commit
 * confirm what was sent close        all connections        solo N       slots' SOLO flag counters
 * print them
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "os/addr.h"
#include "os/egress.h"

#define CONNS_MAX 32

struct conn {
    int fd; /* -1: not accepted yet */
    bool used, released;
    struct hf_endpoint peer;
    unsigned address;
    uint32_t slot, rx_base, tx_base, rx, rx_conf, tx;
    uint32_t blast, blasted;
    struct hf_egress_saved syn_ack;
};

static struct hf_egress *egress;
static struct hf_endpoint addresses[HF_EGRESS_ADDRESSES_MAX];
static int listeners[HF_EGRESS_ADDRESSES_MAX];
static unsigned addresses_len;
static struct conn conns[CONNS_MAX];
static bool automatic, syn_hold;

static void die(const char *what, int rc)
{
    fprintf(stderr, "egress-serve: %s: %s\n", what, hf_strerror(rc));
    exit(1);
}

static void must(int rc, const char *what)
{
    if (rc < 0) {
        die(what, rc);
    }
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Confirm, telling before it is in force up to where acknowledgements may go. */
static void confirm(struct conn *c, uint32_t rx, uint32_t tx)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    printf("conf %u %u %lld\n", c->peer.port, c->rx_base + rx,
           (long long)(ts.tv_sec * HF_NS_PER_S + ts.tv_nsec));
    c->rx_conf = rx;
    if (hf_egress_confirm(egress, c->slot, c->rx_base + rx, c->tx_base + tx)) {
        must(hf_egress_flush(egress, c->slot), "flush");
    }
}

static void write_all(struct conn *c, const char *text, size_t n)
{
    if (send(c->fd, text, n, MSG_NOSIGNAL) != (ssize_t)n) {
        die("send", -errno);
    }
    c->tx += (uint32_t)n;
}

/* As much of a blast as the socket takes. */
static void on_writable(struct conn *c)
{
    char part[30000];
    uint32_t n = c->blast - c->blasted;
    n = n < sizeof(part) ? n : (uint32_t)sizeof(part);
    for (uint32_t i = 0; i < n; i++) {
        part[i] = (char)(97 + (c->blasted + i) % 23);
    }
    if (hf_egress_confirm(egress, c->slot, c->rx_base + c->rx_conf, c->tx_base + c->tx + n)) {
        must(hf_egress_flush(egress, c->slot), "flush");
    }
    ssize_t put = send(c->fd, part, n, MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) {
        die("send", -errno);
    }
    c->tx += put > 0 ? (uint32_t)put : 0;
    c->blasted += put > 0 ? (uint32_t)put : 0;
}

static void release(struct conn *c)
{
    if (!c->released) {
        must(hf_egress_send_syn_ack(egress, &c->syn_ack), "send SYN-ACK");
        c->released = true;
    }
}

static struct conn *find_conn(const struct hf_endpoint *peer, bool make)
{
    for (int i = 0; i < CONNS_MAX; i++) {
        if (conns[i].used && hf_endpoint_eq(&conns[i].peer, peer)) {
            return &conns[i];
        }
    }
    for (int i = 0; make && i < CONNS_MAX; i++) {
        if (!conns[i].used) {
            conns[i] = (struct conn){.used = true, .fd = -1, .peer = *peer};
            return &conns[i];
        }
    }
    return NULL;
}

static void on_event(void *arg, const struct hf_egress_event *ev)
{
    (void)arg;
    size_t ip = ev->packet.p[0] >> 4 == 4 ? 4u * (ev->packet.p[0] & 15) : 40;
    uint32_t seq = u32(ev->packet.p + ip + 4), ack = u32(ev->packet.p + ip + 8);
    printf("%s %u %u %u\n", ev->syn_ack ? "syn-ack" : "syn", ev->peer.port, seq, ack);
    if (!ev->syn_ack || find_conn(&ev->peer, false)) {
        return;
    }
    struct conn *c = find_conn(&ev->peer, true);
    if (!c) {
        return;
    }
    c->address = ev->address;
    c->syn_ack = *ev->saved;
    c->rx_base = ack;
    c->tx_base = seq + 1;
    struct hf_egress_conn conn = {
        .address = c->address,
        .peer = c->peer,
        .rx_conf = c->rx_base,
        .tx_conf = c->tx_base,
        .wscale = 7,
        .state = HF_EGRESS_SLOT_SYN_ACK,
        .syn_seq = seq,
        .syn_ack = ack,
    };
    if (!syn_hold) {
        must(hf_egress_register(egress, &conn, &c->slot), "register");
        release(c);
    }
}

static void release_held(void)
{
    for (int i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &conns[i];
        if (c->used && !c->released) {
            struct hf_egress_conn conn = {
                .address = c->address,
                .peer = c->peer,
                .rx_conf = c->rx_base,
                .tx_conf = c->tx_base,
                .wscale = 7,
                .state = HF_EGRESS_SLOT_SYN_ACK,
                .syn_seq = c->tx_base - 1,
                .syn_ack = c->rx_base,
            };
            must(hf_egress_register(egress, &conn, &c->slot), "register");
            release(c);
        }
    }
}

static void on_accept(int listener)
{
    struct hf_addr a = {.len = sizeof(a.ss)};
    int one = 1, fd = accept4(listener, (struct sockaddr *)&a.ss, &a.len, SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct hf_endpoint peer = hf_addr_to_endpoint(&a);
    struct conn *c = find_conn(&peer, true); /* a solo address: not known before */
    if (!c) {
        die("accept", -HF_EFULL);
    }
    c->fd = fd;
    printf("accepted %u\n", peer.port);
}

static void forget(struct conn *c)
{
    close(c->fd);
    c->used = false; /* the slot stays: the kernel may still have to repeat the FIN */
}

static void on_read(struct conn *c)
{
    static char buf[65536];
    ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            printf("end %u %zd %d\n", c->peer.port, n, errno);
            hf_egress_set_state(egress, c->slot, HF_EGRESS_SLOT_CLOSING, 0);
            confirm(c, c->rx + 1, c->tx);
            forget(c);
        }
        return;
    }
    uint32_t before = c->rx;
    c->rx += (uint32_t)n;
    printf("read %u %u\n", c->peer.port, c->rx);
    if (automatic && c->released) {
        confirm(c, before, c->tx + 1);
        if (send(c->fd, "x", 1, MSG_NOSIGNAL) == 1) { /* otherwise its buffer is full */
            c->tx++;
        }
    }
}

static void counters(void)
{
    for (unsigned i = 0; i < addresses_len; i++) {
        uint64_t n[HF_EGRESS_COUNTERS];
        hf_egress_counters(egress, i, n);
        printf("counters %u", i);
        for (int k = 0; k < HF_EGRESS_COUNTERS; k++) {
            printf(" %s=%llu", hf_egress_counter_name(k), (unsigned long long)n[k]);
        }
        printf("\n");
    }
}

static void fill_slots(void)
{
    uint32_t slot[128];
    for (int round = 0; round < 2; round++) {
        struct hf_egress_conn conn = {.peer = {.family = HF_AF_INET, .addr = {10, 99, 9, 9}}};
        uint32_t n = 0;
        int rc, again = 0;
        do {
            conn.peer.port = (uint16_t)(n + 1);
            rc = hf_egress_register(egress, &conn, &slot[n]);
            again = rc == 0 && n == 0 ? hf_egress_register(egress, &conn, &slot[1]) : again;
            n += rc == 0;
        } while (rc == 0 && n < HF_ARRAY_LEN(slot));
        printf("slots %u, again: %s, then: %s\n", n, hf_strerror(again), hf_strerror(rc));
        for (uint32_t i = 0; i < n; i++) {
            hf_egress_unregister(egress, slot[i]);
        }
    }
}

static void command(char *line)
{
    char *arg = strchr(line, ' ');
    long n = arg ? strtol(arg + 1, NULL, 0) : 0;
    if (arg) {
        *arg++ = '\0';
    }
    for (unsigned i = 0; i < addresses_len; i++) {
        if (strcmp(line, "lease") == 0) {
            hf_egress_set_lease(egress, i, n < 0 ? HF_NEVER : n ? hf_egress_now() + HF_MS(n) : 0);
        } else if (strcmp(line, "flags") == 0) {
            hf_egress_set_flags(egress, i, (uint32_t)n);
        }
    }
    if (strcmp(line, "syn") == 0) {
        syn_hold = strcmp(arg, "hold") == 0;
        if (!syn_hold) {
            release_held();
        }
    } else if (strcmp(line, "auto") == 0) {
        automatic = true;
    } else if (strcmp(line, "counters") == 0) {
        counters();
    } else if (strcmp(line, "slots") == 0) {
        fill_slots();
    }
    for (int i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &conns[i];
        if (!c->used || c->fd < 0) {
            continue;
        }
        if (strcmp(line, "confirm") == 0) {
            confirm(c, (uint32_t)n, c->tx);
        } else if (strcmp(line, "write") == 0) {
            confirm(c, c->rx_conf, c->tx + (uint32_t)strlen(arg));
            write_all(c, arg, strlen(arg));
        } else if (strcmp(line, "blast") == 0) {
            c->blast = (uint32_t)n;
        } else if (strcmp(line, "early") == 0) {
            write_all(c, arg, strlen(arg));
        } else if (strcmp(line, "commit") == 0) {
            confirm(c, c->rx_conf, c->tx);
        } else if (strcmp(line, "solo") == 0) {
            hf_egress_set_state(egress, c->slot, n ? HF_EGRESS_SLOT_SOLO : 0, HF_EGRESS_SLOT_SOLO);
        } else if (strcmp(line, "close") == 0) {
            hf_egress_set_state(egress, c->slot, HF_EGRESS_SLOT_CLOSING, 0);
            forget(c);
        }
    }
    printf("done %s\n", line);
}

static bool read_commands(void)
{
    static char buf[4096];
    static size_t len;
    ssize_t n = read(0, buf + len, sizeof(buf) - 1 - len);
    if (n <= 0) {
        return false;
    }
    len += (size_t)n;
    buf[len] = '\0';
    char *p = buf, *end;
    while ((end = strchr(p, '\n'))) {
        *end = '\0';
        command(p);
        p = end + 1;
    }
    len -= (size_t)(p - buf);
    memmove(buf, p, len);
    return true;
}

static int listen_on(const struct hf_endpoint *ep)
{
    struct hf_addr a = hf_addr_from_endpoint(ep);
    int one = 1, fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&a.ss, a.len) < 0 || listen(fd, 64) < 0) {
        die("listen", -errno);
    }
    return fd;
}

static void loop(void)
{
    struct pollfd p[2 + HF_EGRESS_ADDRESSES_MAX + CONNS_MAX];
    for (bool go = true; go;) {
        nfds_t n = 0;
        bool lag = false;
        p[n++] = (struct pollfd){.fd = 0, .events = POLLIN};
        p[n++] = (struct pollfd){.fd = hf_egress_fd(egress), .events = POLLIN};
        for (unsigned i = 0; i < addresses_len; i++) {
            p[n++] = (struct pollfd){.fd = listeners[i], .events = POLLIN};
        }
        nfds_t first = n;
        for (int i = 0; i < CONNS_MAX; i++) {
            struct conn *c = &conns[i];
            short events = c->blasted < c->blast ? POLLIN | POLLOUT : POLLIN;
            p[n++] = (struct pollfd){.fd = c->used ? c->fd : -1, .events = events};
            lag = lag || (automatic && conns[i].used && conns[i].rx != conns[i].rx_conf);
        }
        fflush(stdout);
        int rc = poll(p, n, lag ? 2 : -1);
        if (rc < 0 && errno != EINTR) {
            die("poll", -errno);
        }
        if (p[1].revents) {
            must(hf_egress_dispatch(egress, on_event, NULL), "dispatch");
        }
        for (unsigned i = 0; i < addresses_len; i++) {
            if (p[2 + i].revents) {
                on_accept(listeners[i]);
            }
        }
        for (int i = 0; i < CONNS_MAX; i++) {
            struct conn *c = &conns[i];
            if (rc == 0 && automatic && c->used && c->fd >= 0 && c->rx != c->rx_conf) {
                confirm(c, c->rx, c->tx);
            } else if (p[first + (nfds_t)i].revents & (POLLIN | POLLERR | POLLHUP) && c->used) {
                on_read(c);
            }
            if (p[first + (nfds_t)i].revents & POLLOUT && c->used) {
                on_writable(c);
            }
        }
        if (p[0].revents) {
            go = read_commands();
        }
    }
}

static int probe(void)
{
    struct hf_err why = {0};
    enum hf_egress_how how = hf_egress_probe(&why);
    printf("%s: %s\n", hf_egress_how_name(how), why.text);
    return 0;
}

int main(int argc, char **argv)
{
    bool remove = argc > 1 && strcmp(argv[1], "remove") == 0;
    if (argc > 1 && strcmp(argv[1], "probe") == 0) {
        return probe();
    }
    argv += remove;
    argc -= remove;
    if (argc < 4) {
        return 2;
    }
    const char *interfaces[HF_EGRESS_INTERFACES_MAX];
    struct hf_egress_options o = {
        .interfaces = interfaces, .addresses = addresses, .slots_max = 64};
    o.how = strcmp(argv[1], "bpf") == 0 ? HF_EGRESS_BPF : HF_EGRESS_NFQUEUE;
    for (char *s = strtok(argv[2], ","); s; s = strtok(NULL, ",")) {
        interfaces[o.interfaces_len++] = s;
    }
    for (int i = 3; i < argc; i++) {
        struct hf_addr a;
        must(hf_addr_parse(argv[i], 0, NULL, &a), argv[i]);
        addresses[addresses_len++] = hf_addr_to_endpoint(&a);
    }
    o.addresses_len = addresses_len;
    struct hf_err err = {0};
    int rc = remove ? hf_egress_remove(&o, &err) : hf_egress_open(&o, &err, &egress);
    if (rc || remove) {
        fprintf(stderr, "%s\n", err.text);
        return rc ? 1 : 0;
    }
    for (unsigned i = 0; i < addresses_len; i++) {
        listeners[i] = listen_on(&addresses[i]);
    }
    printf("lease counts %d\nready\n", hf_egress_lease_counts(egress));
    loop();
    hf_egress_close(egress);
    return 0;
}
