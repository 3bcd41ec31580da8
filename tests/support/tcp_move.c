/* A server whose connections move between hosts: echoes all it gets, each byte with one bit turned.
 *
 * tcp-move ADDRESS STATE [--take [--handshake FILE]]
 *
 * It serves at ADDRESS. SIGUSR1: read all that was received, write STATE, then do nothing any more,
 * as if dead (the pair protocol would have had the same on another host). SIGUSR2: the same for a
 * planned move, and end. With --take it records what comes from the start, says "ready", and at a
 * line on stdin goes on with the connections of STATE; --handshake adds one of which only SYN and
 * SYN-ACK are known (two lines of hex).
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rd.h"
#include "os/loop.h"
#include "os/tcpmove.h"

#define CONNS_MAX 4096
#define REFRESH (256u << 10)
#define BACKLOG_MAX (4u << 20)
#define STATE_MAX (64u << 20)
#define TURN 0x20

struct conn {
    int fd; /* -1: free, or not yet restored */
    bool used, ended;
    struct hf_tcp_facts f;
    uint64_t rx_total, tx_una, tx_written;
    uint8_t *tx; /* from tx_una to rx_total: it is an echo */
    size_t room;
    uint64_t refreshed; /* rx_total at that time */
    uint8_t syn_ack[128];
    size_t syn_ack_n;
};

static struct conn conns[CONNS_MAX];
static volatile sig_atomic_t asked;
static struct hf_addr address;
static const char *state_path;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "tcp-move: %s: %s\n", what, why);
    exit(1);
}

static struct conn *new_conn(void)
{
    for (struct conn *c = conns; c < conns + CONNS_MAX; c++) {
        if (!c->used) {
            *c = (struct conn){.fd = -1, .used = true};
            return c;
        }
    }
    die("new connection", "too many");
    return NULL;
}

static void forget(struct conn *c)
{
    if (c->fd >= 0) {
        hf_tcpmove_discard(c->fd);
    }
    free(c->tx);
    c->used = false;
}

/* --- echo --- */

static void add(struct conn *c, const uint8_t *p, size_t n)
{
    size_t have = (size_t)(c->rx_total - c->tx_una);
    if (have + n > c->room) {
        c->room = (have + n) * 2;
        c->tx = realloc(c->tx, c->room);
        if (!c->tx) {
            die("add", "out of memory");
        }
    }
    for (size_t i = 0; i < n; i++) {
        c->tx[have + i] = p[i] ^ TURN;
    }
    c->rx_total += n;
}

static void drop(struct conn *c, uint64_t una)
{
    memmove(c->tx, c->tx + (una - c->tx_una), (size_t)(c->rx_total - una));
    c->tx_una = una;
}

/* Lazily, as a program would that has better to do. */
static void refresh(struct conn *c)
{
    uint64_t una;
    if ((c->rx_total - c->refreshed > REFRESH || c->rx_total - c->tx_una > BACKLOG_MAX) &&
        hf_tcpmove_refresh(c->fd, c->tx_written, hf_now(), &c->f, &una) == 0) {
        c->refreshed = c->rx_total;
        if (una > c->tx_una && una <= c->tx_written) {
            drop(c, una);
        }
    }
}

static void on_readable(struct conn *c)
{
    static uint8_t buf[1 << 18];
    ssize_t n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n > 0) {
        add(c, buf, (size_t)n);
    } else if (n == 0) {
        c->f.flags |= HF_TCP_FACT_EOF;
    } else if (errno != EAGAIN) {
        printf("lost %s\n", strerror(errno));
        c->ended = true;
    }
}

static void flush(struct conn *c)
{
    while (c->tx_written < c->rx_total) {
        ssize_t n = send(c->fd, c->tx + (c->tx_written - c->tx_una),
                         (size_t)(c->rx_total - c->tx_written), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            return;
        }
        c->tx_written += (uint64_t)n;
    }
    if ((c->f.flags & HF_TCP_FACT_EOF) && !(c->f.flags & HF_TCP_FACT_CLOSING)) {
        c->f.flags |= HF_TCP_FACT_CLOSING;
        shutdown(c->fd, SHUT_WR);
    }
}

/* Pitfall 9: over is what the peer has acknowledged, not what we have said. */
static bool is_over(struct conn *c)
{
    struct tcp_info i = {0};
    socklen_t n = sizeof(i);
    return c->ended || ((c->f.flags & HF_TCP_FACT_CLOSING) &&
                        (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &i, &n) < 0 ||
                         i.tcpi_state == TCP_CLOSE || i.tcpi_state == TCP_FIN_WAIT2));
}

static void on_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    struct hf_err err = {0};
    if (fd < 0) {
        return;
    }
    struct conn *c = new_conn();
    c->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (hf_tcpmove_read(fd, 0, 0, hf_now(), &err, &c->f)) {
        die("accept", err.text);
    }
}

static int listen_at(void)
{
    int one = 1, fd = socket(address.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&address.ss, address.len) < 0 || listen(fd, 1024) < 0) {
        die("listen", strerror(errno));
    }
    return fd;
}

/* --- state, as the pair protocol would bring it --- */

static void encode(struct hf_wr *w, const struct conn *c)
{
    size_t at = hf_wr_len(w);
    hf_wr_u16(w, 0);
    hf_tcp_facts_encode(w, &c->f);
    hf_wr_patch_u16(w, at, (uint16_t)(hf_wr_len(w) - at - 2));
    hf_wr_u64(w, c->rx_total);
    hf_wr_u64(w, c->tx_una);
    hf_wr_str32(w, hf_slice(c->tx, (size_t)(c->rx_total - c->tx_una)));
}

static void decode(struct hf_rd *r)
{
    struct conn *c = new_conn();
    struct hf_rd facts;
    hf_rd_init(&facts, hf_rd_str16(r, HF_TCP_FACTS_LEN_MAX));
    hf_tcp_facts_decode(&facts, &c->f);
    c->rx_total = hf_rd_u64(r);
    c->tx_una = c->tx_written = hf_rd_u64(r);
    struct hf_slice tx = hf_rd_str32(r, STATE_MAX);
    if (hf_rd_end(&facts) || r->err) {
        die("state", "malformed");
    }
    c->tx = malloc(c->room = tx.n + 1);
    if (!c->tx) {
        die("state", "out of memory");
    }
    memcpy(c->tx, tx.n ? tx.p : c->tx, tx.n);
}

/* Everything that the kernel has acknowledged is read: nothing more comes, the cable is cut. */
static void drain(struct conn *c)
{
    uint64_t before;
    do {
        before = c->rx_total;
        if (!c->ended && !(c->f.flags & HF_TCP_FACT_EOF)) {
            on_readable(c);
        }
    } while (c->rx_total != before);
}

static void save(bool planned)
{
    uint8_t *buf = malloc(STATE_MAX);
    struct hf_wr w;
    struct hf_slice s;
    char path[4096];
    hf_wr_init(&w, buf, STATE_MAX);
    for (struct conn *c = conns; c < conns + CONNS_MAX; c++) {
        struct hf_err err = {0};
        uint64_t una;
        if (!c->used) {
            continue;
        }
        drain(c);
        if (planned && !c->ended) {
            if (hf_tcpmove_freeze(c->fd, c->rx_total, c->tx_written, hf_now(), &c->f, &una, &err)) {
                die("freeze", err.text);
            }
            drop(c, una);
        }
        if (!c->ended) {
            encode(&w, c);
        }
        if (planned) {
            forget(c);
        }
    }
    if (!buf || hf_wr_end(&w, &s)) {
        die("state", "too large");
    }
    snprintf(path, sizeof(path), "%s.new", state_path);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(s.p, 1, s.n, f) != s.n || fclose(f) || rename(path, state_path)) {
        die(path, strerror(errno));
    }
    free(buf);
    puts("saved");
}

static void load(void)
{
    uint8_t *buf = malloc(STATE_MAX);
    FILE *f = fopen(state_path, "rb");
    if (!f || !buf) {
        die(state_path, strerror(errno));
    }
    struct hf_rd r;
    hf_rd_init(&r, hf_slice(buf, fread(buf, 1, STATE_MAX, f)));
    fclose(f);
    while (hf_rd_left(&r)) {
        decode(&r);
    }
    free(buf);
}

static size_t read_hex(FILE *f, uint8_t *p, size_t n_max)
{
    char line[4096];
    size_t n = 0;
    unsigned byte;
    for (char *s = fgets(line, sizeof(line), f); s && n < n_max && sscanf(s, "%2x", &byte) == 1;
         s += 2) {
        p[n++] = (uint8_t)byte;
    }
    return n;
}

static void load_handshake(const char *path)
{
    uint8_t syn[128];
    struct hf_tcp_segment a, b;
    struct conn *c = new_conn();
    FILE *f = fopen(path, "r");
    if (!f) {
        die(path, strerror(errno));
    }
    size_t n = read_hex(f, syn, sizeof(syn));
    c->syn_ack_n = read_hex(f, c->syn_ack, sizeof(c->syn_ack));
    fclose(f);
    if (hf_tcp_segment_parse(hf_slice(syn, n), &a) ||
        hf_tcp_segment_parse(hf_slice(c->syn_ack, c->syn_ack_n), &b) ||
        hf_tcp_facts_handshake(&a, &b, hf_now(), &c->f)) {
        die(path, "not a handshake");
    }
}

/* --- take-over --- */

static void on_restored(void *arg, void *job_arg, const struct hf_tcpmove_result *res)
{
    struct conn *c = job_arg;
    int one = 1;
    (void)arg;
    if (res->rc) {
        printf("not restored: %s: %s\n", res->what, hf_strerror(res->rc));
        forget(c);
        return;
    }
    c->fd = res->fd;
    c->f.flags &= (uint8_t) ~(HF_TCP_FACT_EMBRYO | HF_TCP_FACT_CLOSING);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (res->tx_una <= c->rx_total) {
        drop(c, res->tx_una);
    }
    c->tx_written = res->tx_written;
    flush(c);
}

static void add_all(struct hf_tcpmove *mv)
{
    for (struct conn *c = conns; c < conns + CONNS_MAX; c++) {
        struct hf_tcpmove_job job = {
            .facts = c->f,
            .rx_total = c->rx_total,
            .tx_una = c->tx_una,
            .tx = hf_slice(c->tx, (size_t)(c->rx_total - c->tx_una)),
            .syn_ack = hf_slice(c->syn_ack, c->syn_ack_n),
            .arg = c,
        };
        int rc = c->used ? hf_tcpmove_add(mv, &job) : 0;
        if (rc) {
            die("add", hf_strerror(rc));
        }
    }
}

static struct hf_tcpmove *taking; /* NULL: done, or never */
static hf_time begun;

static void step(void)
{
    if (!taking) {
        return;
    }
    hf_tcpmove_step(taking, hf_now());
    if (hf_tcpmove_left(taking)) {
        return;
    }
    printf("taken us=%lld", (long long)(hf_now() - begun) / 1000);
    const struct hf_tcpmove_counters *n = hf_tcpmove_counters(taking);
#define PRINT(name, text) printf(" " #name "=%llu", (unsigned long long)n->name);
    HF_TCPMOVE_COUNTER_LIST(PRINT)
#undef PRINT
    puts("");
    hf_tcpmove_close(taking);
    taking = NULL;
}

static int take(const char *handshake)
{
    struct hf_err err = {0};
    struct hf_tcpmove_opt opt = {.local = address, .mark = 7};
    char line[80];
    if (hf_tcpmove_open(&opt, on_restored, NULL, &err, &taking)) {
        die("take", err.text);
    }
    puts("ready");
    if (!fgets(line, sizeof(line), stdin)) {
        exit(1);
    }
    load();
    if (handshake) {
        load_handshake(handshake);
    }
    begun = hf_now();
    add_all(taking);
    while (!hf_tcpmove_settled(taking, hf_now())) {
        struct pollfd p = {.fd = hf_tcpmove_fd(taking), .events = POLLIN};
        hf_time wait = hf_tcpmove_deadline(taking) - hf_now();
        struct timespec t = {.tv_nsec = wait < 0 ? 0 : wait > HF_MS(3) ? HF_MS(3) : wait};
        ppoll(&p, 1, &t, NULL);
        hf_tcpmove_step(taking, hf_now());
    }
    int listener = listen_at();
    hf_tcpmove_listening(taking);
    printf("settled us=%lld\n", (long long)(hf_now() - begun) / 1000);
    return listener;
}

static void on_signal(int signo)
{
    asked = signo;
}

static void serve_conn(struct conn *c, short events)
{
    if ((events & (POLLIN | POLLERR | POLLHUP)) && !(c->f.flags & HF_TCP_FACT_EOF)) {
        on_readable(c);
    }
    if (!c->ended) {
        flush(c);
        refresh(c);
    }
    if (is_over(c)) {
        forget(c);
    }
}

static void serve(int listener)
{
    step();
    static struct pollfd p[CONNS_MAX + 2];
    static struct conn *of[CONNS_MAX + 2];
    nfds_t n = 0;
    p[n++] = (struct pollfd){.fd = listener, .events = POLLIN};
    p[n++] = (struct pollfd){.fd = taking ? hf_tcpmove_fd(taking) : -1, .events = POLLIN};
    for (struct conn *c = conns; c < conns + CONNS_MAX; c++) {
        if (c->used && c->fd >= 0) {
            bool full = c->rx_total - c->tx_una > BACKLOG_MAX || c->f.flags & HF_TCP_FACT_EOF;
            of[n] = c;
            p[n++] = (struct pollfd){
                .fd = c->f.flags & HF_TCP_FACT_CLOSING ? -1 : c->fd, /* it would be busy with HUP */
                .events =
                    (short)((full ? 0 : POLLIN) | (c->tx_written < c->rx_total ? POLLOUT : 0)),
            };
        }
    }
    sigset_t none;
    struct timespec t = {.tv_nsec = 10 * 1000 * 1000};
    sigemptyset(&none);
    if (ppoll(p, n, &t, &none) < 0) {
        return;
    }
    for (nfds_t i = 2; i < n; i++) {
        serve_conn(of[i], p[i].revents);
    }
    if (p[0].revents) {
        on_accept(listener);
    }
}

int main(int argc, char **argv)
{
    struct hf_err err = {0};
    struct sigaction sa = {.sa_handler = on_signal};
    sigset_t both;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3 || hf_addr_parse(argv[1], 0, &err, &address)) {
        die("usage", err.text);
    }
    state_path = argv[2];
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGUSR2);
    sigprocmask(SIG_BLOCK, &both, NULL);
    sigaction(SIGUSR1, &sa, NULL);
    sigaction(SIGUSR2, &sa, NULL);
    bool take_over = argc > 3 && strcmp(argv[3], "--take") == 0;
    int listener = take_over ? take(argc > 5 ? argv[5] : NULL) : listen_at();
    puts("serving");
    while (!asked) {
        serve(listener);
    }
    save(asked == SIGUSR2);
    while (asked == SIGUSR1) {
        pause(); /* dead, for all that the others can tell; the test kills it */
    }
    return 0;
}
