/* Load for SIP registrars, many requests by little CPU; see bench/README.md.
 *
 * sipload [OPTIONS] run|hold|serve ADDRESS:PORT
 *   run    Each user REGISTERs until it gets what is expected, at most 64 at a time: "ready". Then
 *          for each line "RATE SECONDS" of stdin an open loop at that rate, nothing sent twice,
 *          and a line of JSON: what was sent, lost, answered otherwise, and how long it took.
 *   hold   One connection for each user, REGISTERed over it; a line of JSON; another, how many of
 *          them the server has closed, when stdin ends.
 *   serve  A home server at that address (UDP): answers each REGISTER with 200.
 * Options: -t udp|tcp|tls  -u USERS  -n PREFIX of their names  -l LOCAL-ADDRESS  -s SOCKETS
 *   -p PASSWORD (SHA-256, one nonce used again and again)  -e EXPECTED status  -v VIAS (1 or 2)
 *   -f (each request with a Call-ID of its own)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32 /* datagrams of a call; users in a row with the same socket */
#define MESSAGE_MAX 2048u
#define INPUT_MAX 4096u  /* of a connection */
#define SLOTS (1u << 18) /* requests that may be unanswered */
#define PRIME_WINDOW 64  /* unanswered requests at first */
#define PRIME_PASSES 60
#define HANDSHAKES 64 /* at a time */
#define SILENCE 1.5   /* s without an answer: the rest is lost */
#define LATE 0.02     /* s behind that are made up for; the rest of the schedule is dropped */
#define REALM "example.org"
#define CNONCE "0a4f113b"
#define HEX 64 /* digits of a SHA-256 */

struct user {
    uint32_t cseq, nc;
    bool done; /* has got what is expected */
    char nonce[128], ha1[HEX + 1];
};

struct request {
    uint32_t seq, user;
    bool open;
    double at;
};

struct link {
    int fd, port;
    SSL *ssl;
    bool up; /* can be written to */
    size_t in_n, out_n;
    char *in, *out; /* of connections */
};

struct result {
    uint64_t sent, answered, lost, unexpected, n_times;
    uint32_t status; /* last unexpected one */
    double dropped;  /* s of the schedule */
    float *ms;
};

static const char *transport = "udp", *prefix = "u", *password, *local = "127.0.0.1";
static int transport_type = SOCK_DGRAM;
static uint32_t n_users = 1000, n_links = 8, vias = 1, expected = 200;
static bool fresh;
static struct sockaddr_in to;
static struct user *user;
static struct link *links;
static struct request *slot;
static struct result res;
static uint32_t seq, n_open;
static int ep = -1;
static SSL_CTX *tls;
static EVP_MD_CTX *md;
static EVP_MD *sha256;

static void die(const char *what)
{
    fprintf(stderr, "sipload: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- texts, without printf: it would cost more than the rest --- */

static char *put(char *at, const char *s)
{
    size_t n = strlen(s);
    memcpy(at, s, n);
    return at + n;
}

static char *put_hex(char *at, uint32_t x)
{
    for (int shift = 28; shift >= 0; shift -= 4) {
        *at++ = "0123456789abcdef"[x >> shift & 15];
    }
    return at;
}

static char *put_number(char *at, uint32_t x)
{
    char digits[10];
    int n = 0;
    do {
        digits[n++] = (char)('0' + x % 10);
        x /= 10;
    } while (x);
    while (n) {
        *at++ = digits[--n];
    }
    return at;
}

static char *put_user(char *at, uint32_t u)
{
    at = put(at, prefix);
    for (uint32_t unit = 100000; unit; unit /= 10) {
        *at++ = (char)('0' + u / unit % 10);
    }
    return at;
}

static void hash_hex(const char *text, size_t n, char *ret_hex)
{
    uint8_t sum[HEX / 2];
    if (!EVP_DigestInit_ex2(md, sha256, NULL) || !EVP_DigestUpdate(md, text, n) ||
        !EVP_DigestFinal_ex(md, sum, NULL)) {
        die("SHA-256");
    }
    for (size_t i = 0; i < sizeof(sum); i++) {
        ret_hex[2 * i] = "0123456789abcdef"[sum[i] >> 4];
        ret_hex[2 * i + 1] = "0123456789abcdef"[sum[i] & 15];
    }
    ret_hex[HEX] = '\0';
}

/* RFC 8760, qop=auth. */
static char *put_credentials(char *at, uint32_t u)
{
    static char ha2[HEX + 1];
    char text[512], response[HEX + 1], *t;
    struct user *x = &user[u];
    if (!*x->ha1) {
        t = put(put(put_user(text, u), ":" REALM ":"), password);
        hash_hex(text, (size_t)(t - text), x->ha1);
        hash_hex("REGISTER:sip:" REALM, sizeof("REGISTER:sip:" REALM) - 1, ha2);
    }
    t = put(put(put(text, x->ha1), ":"), x->nonce);
    t = put(put_hex(put(t, ":"), ++x->nc), ":" CNONCE ":auth:");
    t = put(t, ha2);
    hash_hex(text, (size_t)(t - text), response);
    at = put_user(put(at, "Authorization: Digest username=\""), u);
    at = put(put(at, "\", realm=\"" REALM "\", nonce=\""), x->nonce);
    at = put(put(at, "\", uri=\"sip:" REALM "\", response=\""), response);
    at = put(at, "\", algorithm=SHA-256, cnonce=\"" CNONCE "\", qop=auth, nc=");
    return put(put_hex(at, x->nc), "\r\n");
}

static char *put_register(char *at, uint32_t u, uint32_t s, const struct link *l)
{
    at = put(at, "REGISTER sip:" REALM " SIP/2.0\r\nVia: SIP/2.0/");
    at = put(at, transport_type == SOCK_DGRAM ? "UDP " : tls ? "TLS " : "TCP ");
    at = put_number(put(put(at, local), ":"), (uint32_t)l->port);
    at = put(put_hex(put(at, ";rport;branch=z9hG4bK"), s), "\r\n");
    if (vias > 1) {
        at = put(at, "Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK");
        at = put(put_hex(at, s), "c\r\n");
    }
    at = put_user(put(at, "Max-Forwards: 70\r\nFrom: <sip:"), u);
    at = put(put_hex(put(at, "@" REALM ">;tag="), u * 2654435761u), "\r\nTo: <sip:");
    at = put(put_user(at, u), "@" REALM ">\r\nCall-ID: ");
    at = put_hex(put_hex(at, u), fresh ? s : 0);
    at = put(put(put(at, "@"), local), "\r\nCSeq: ");
    at = put(put_number(at, ++user[u].cseq), " REGISTER\r\nContact: <sip:");
    at = put(put(put_user(at, u), "@"), vias > 1 ? "192.0.2.9" : local);
    at = put_number(put(at, ":"), vias > 1 ? 5060 : (uint32_t)l->port);
    at = put(put(put(at, ";transport="), transport), ">\r\nExpires: 3600\r\n");
    at = put(at, "User-Agent: sipload\r\n");
    if (password && *user[u].nonce) {
        at = put_credentials(at, u);
    }
    return put(at, "Content-Length: 0\r\n\r\n");
}

/* --- sockets --- */

static struct sockaddr_in parse_at(const char *text)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof(host)) {
        die("ADDRESS:PORT");
    }
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    a.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) {
        die("ADDRESS:PORT");
    }
    return a;
}

static void link_watch(struct link *l, int op)
{
    struct epoll_event e = {.events = EPOLLIN | (l->up ? 0 : EPOLLOUT), .data.ptr = l};
    if (epoll_ctl(ep, op, l->fd, &e) < 0) {
        die("epoll");
    }
}

static void link_open(struct link *l)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t n = sizeof(a);
    int one = 1, room = 4 << 20;
    inet_pton(AF_INET, local, &a.sin_addr);
    l->fd = socket(AF_INET, transport_type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0) {
        die("socket");
    }
    l->up = transport_type == SOCK_DGRAM;
    if (l->up) {
        if (setsockopt(l->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0) {
            (void)setsockopt(l->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
        }
    } else {
        (void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        (void)setsockopt(l->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
        l->in = malloc(INPUT_MAX);
        l->out = malloc(BATCH * MESSAGE_MAX);
    }
    if (bind(l->fd, (struct sockaddr *)&a, n) < 0 ||
        (connect(l->fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS) ||
        getsockname(l->fd, (struct sockaddr *)&a, &n) < 0) {
        die("connect");
    }
    l->port = ntohs(a.sin_port);
    if (tls) {
        l->ssl = SSL_new(tls);
        SSL_set_fd(l->ssl, l->fd);
        SSL_set_connect_state(l->ssl);
    }
    link_watch(l, EPOLL_CTL_ADD);
}

static ssize_t link_write(struct link *l, const char *p, size_t n)
{
    if (!l->ssl) {
        return send(l->fd, p, n, MSG_NOSIGNAL);
    }
    int k = SSL_write(l->ssl, p, (int)n), e = SSL_get_error(l->ssl, k);
    errno = k > 0 || e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
    return k > 0 ? k : -1;
}

static ssize_t link_read(struct link *l, char *p, size_t n)
{
    if (!l->ssl) {
        return recv(l->fd, p, n, 0);
    }
    int k = SSL_read(l->ssl, p, (int)n), e = SSL_get_error(l->ssl, k);
    errno = e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
    return k > 0 ? k : e == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static void link_flush(struct link *l)
{
    ssize_t n = l->out_n ? link_write(l, l->out, l->out_n) : 0;
    if (n > 0) {
        l->out_n -= (size_t)n;
        memmove(l->out, l->out + n, l->out_n);
    } else if (n < 0 && errno != EAGAIN) {
        die("the server has closed a connection");
    }
}

/* --- requests and answers --- */

/* `n` users from `first` on; they have the same socket. */
static void send_some(uint32_t first, uint32_t n)
{
    static char text[BATCH][MESSAGE_MAX];
    static struct iovec iov[BATCH];
    static struct mmsghdr m[BATCH];
    struct link *l = &links[first / BATCH % n_links];
    double at = now_s();
    for (uint32_t i = 0; i < n; i++) {
        struct request *r = &slot[++seq % SLOTS];
        res.lost += r->open;
        n_open += !r->open;
        *r = (struct request){.seq = seq, .user = first + i, .open = true, .at = at};
        char *to_text = transport_type == SOCK_DGRAM ? text[i] : l->out + l->out_n;
        if (l->out && BATCH * MESSAGE_MAX - l->out_n < MESSAGE_MAX) {
            die("a connection is too slow");
        }
        size_t len = (size_t)(put_register(to_text, first + i, seq, l) - to_text);
        l->out_n += l->out ? len : 0;
        iov[i] = (struct iovec){to_text, len};
        m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
    }
    res.sent += n;
    for (uint32_t done = 0; transport_type == SOCK_DGRAM && done < n;) {
        int k = sendmmsg(l->fd, m + done, n - done, 0);
        if (k < 0 && errno != EAGAIN && errno != ECONNREFUSED && errno != ENOBUFS) {
            die("sendmmsg");
        }
        done += k > 0 ? (uint32_t)k : 0;
    }
    if (transport_type != SOCK_DGRAM) {
        link_flush(l);
    }
}

static void challenged(struct user *x, const char *text)
{
    for (const char *at = text; (at = strstr(at, "WWW-Authenticate:")); at++) {
        const char *end = strchr(at, '\n'), *algorithm = strstr(at, "algorithm=");
        const char *nonce = strstr(at, "nonce=\""), *close;
        if (!nonce || (end && nonce > end) || (nonce = nonce + 7, !(close = strchr(nonce, '"'))) ||
            close - nonce >= (int)sizeof(x->nonce) || !algorithm || (end && algorithm > end)) {
            continue;
        }
        algorithm += 10 + (algorithm[10] == '"');
        if (strncmp(algorithm, "SHA-256", 7) == 0) {
            memcpy(x->nonce, nonce, (size_t)(close - nonce));
            x->nonce[close - nonce] = '\0';
            x->nc = 0;
        }
    }
}

/* One answer, ended by NUL. */
static void answer(const char *text, double at)
{
    const char *branch = strstr(text, "branch=z9hG4bK");
    uint32_t status = strncmp(text, "SIP/2.0 ", 8) == 0 ? (uint32_t)atoi(text + 8) : 0;
    uint32_t s = branch ? (uint32_t)strtoul(branch + 14, NULL, 16) : 0;
    struct request *r = &slot[s % SLOTS];
    if (status < 200 || !r->open || r->seq != s) {
        return;
    }
    r->open = false;
    n_open--;
    res.answered++;
    if (res.ms) {
        res.ms[res.n_times++] = (float)((at - r->at) * 1e3);
    }
    if (status == expected) {
        user[r->user].done = true;
        return;
    }
    res.unexpected++;
    res.status = status;
    if (status == 401 && password) {
        challenged(&user[r->user], text);
    }
}

static uint32_t receive_udp(struct link *l)
{
    static char text[BATCH][MESSAGE_MAX];
    static struct iovec iov[BATCH];
    static struct mmsghdr m[BATCH];
    uint32_t all = 0;
    int n;
    do {
        for (uint32_t i = 0; i < BATCH; i++) {
            iov[i] = (struct iovec){text[i], MESSAGE_MAX - 1};
            m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
        }
        n = recvmmsg(l->fd, m, BATCH, MSG_DONTWAIT, NULL);
        double at = now_s();
        for (int i = 0; i < n; i++) {
            text[i][m[i].msg_len] = '\0';
            answer(text[i], at);
        }
        all += n > 0 ? (uint32_t)n : 0;
    } while (n == BATCH);
    return all;
}

/* Answers have no body. */
static uint32_t receive_stream(struct link *l)
{
    uint32_t all = 0;
    for (;;) {
        ssize_t n = link_read(l, l->in + l->in_n, INPUT_MAX - 1 - l->in_n);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            die("the server has closed a connection");
        }
        if (n < 0) {
            return all;
        }
        l->in_n += (size_t)n;
        l->in[l->in_n] = '\0';
        double at = now_s();
        for (char *end; (end = strstr(l->in, "\r\n\r\n")); all++) {
            end[2] = '\0';
            answer(l->in, at);
            l->in_n -= (size_t)(end + 4 - l->in);
            memmove(l->in, end + 4, l->in_n + 1);
        }
        if (l->in_n == INPUT_MAX - 1) {
            errno = EMSGSIZE;
            die("an answer");
        }
    }
}

/* A connection that is being made. */
static void link_handshake(struct link *l)
{
    int k = l->ssl ? SSL_do_handshake(l->ssl) : 1;
    int e = l->ssl ? SSL_get_error(l->ssl, k) : 0;
    if (k != 1 && e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
        die("TLS");
    }
    l->up = k == 1;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = l};
    if ((l->up || e == SSL_ERROR_WANT_READ) && epoll_ctl(ep, EPOLL_CTL_MOD, l->fd, &ev) < 0) {
        die("epoll");
    }
}

/* What has come within `wait_ms`; returns how many answers. */
static uint32_t receive(int wait_ms)
{
    struct epoll_event e[64];
    int n = epoll_wait(ep, e, 64, wait_ms);
    uint32_t all = 0;
    for (int i = 0; i < n; i++) {
        struct link *l = e[i].data.ptr;
        if (!l->up) {
            link_handshake(l);
        } else if (transport_type == SOCK_DGRAM) {
            all += receive_udp(l);
        } else {
            all += receive_stream(l);
            link_flush(l);
        }
    }
    return all;
}

/* --- run --- */

/* Those that were sent are answered, or lost. */
static void drain(void)
{
    double last = now_s();
    while (n_open && now_s() - last < SILENCE) {
        last = receive(10) ? now_s() : last;
    }
    for (uint32_t i = 0; n_open && i < SLOTS; i++) {
        res.lost += slot[i].open;
        n_open -= slot[i].open;
        slot[i].open = false;
    }
}

static void prime(void)
{
    for (int pass = 0; pass < PRIME_PASSES; pass++) {
        uint32_t left = 0;
        for (uint32_t u = 0; u < n_users; u++) {
            if (user[u].done) {
                continue;
            }
            double begin = now_s();
            while (n_open >= PRIME_WINDOW && now_s() - begin < SILENCE) {
                receive(10);
            }
            if (n_open >= PRIME_WINDOW) {
                drain();
            }
            send_some(u, 1);
            left++;
        }
        if (left == 0) {
            return;
        }
        drain();
    }
    fprintf(stderr, "sipload: not all users get %u; the last got %u\n", expected, res.status);
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void tell(double rate, double took, double cpu)
{
    qsort(res.ms, res.n_times, sizeof(res.ms[0]), by_value);
    float *ms = res.ms;
    uint64_t n = res.n_times ? res.n_times : 1;
    printf(
        "{\"rate\": %.0f, \"sent\": %llu, \"seconds\": %.3f, \"answered\": %llu, \"lost\": %llu, "
        "\"unexpected\": %llu, \"status\": %u, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
        "\"max_ms\": %.3f, \"load_cpu_us\": %.2f, \"dropped_s\": %.3f}\n",
        rate, (unsigned long long)res.sent, took, (unsigned long long)res.answered,
        (unsigned long long)res.lost, (unsigned long long)res.unexpected, res.status,
        (double)ms[n / 2], (double)ms[n * 99 / 100], (double)ms[n - 1],
        cpu * 1e6 / (double)(res.sent ? res.sent : 1), res.dropped);
    fflush(stdout);
}

static void paced(double rate, double seconds)
{
    static uint32_t next;
    float *ms = calloc((size_t)(rate * seconds) + 2 * BATCH, sizeof(float));
    if (!ms) {
        die("memory");
    }
    res = (struct result){.ms = ms};
    double cpu = cpu_s(), begin = now_s(), end = begin + seconds, due_from = begin, took;
    uint64_t most = (uint64_t)(rate * seconds);
    for (double t = begin; t < end && res.sent < most; t = now_s()) {
        double due = (t - due_from) * rate - (double)res.sent;
        if (due > LATE * rate + BATCH) { /* this program was kept waiting: no burst to make up */
            double drop = due / rate - LATE;
            due_from += drop;
            res.dropped += drop;
            due -= drop * rate;
        }
        uint32_t n = due >= 1 ? (uint32_t)due : 0, room = BATCH - next % BATCH;
        n = n > room ? room : n;
        n = n > n_users - next ? n_users - next : n;
        if (n) {
            send_some(next, n);
            next = (next + n) % n_users;
        }
        /* epoll's 1 ms is too long to wait for what is due; its 0 is a busy loop */
        if (receive(0) == 0 && due < BATCH) {
            struct timespec nap = {.tv_nsec = 100000};
            nanosleep(&nap, NULL);
        }
    }
    took = now_s() - begin;
    drain();
    tell(rate, took, cpu_s() - cpu);
    free(ms);
    res.ms = NULL;
}

static void run(void)
{
    char line[128];
    double rate, seconds;
    for (uint32_t i = 0; i < n_links; i++) {
        link_open(&links[i]);
        while (!links[i].up) {
            receive(100);
        }
    }
    prime();
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "%lf %lf", &rate, &seconds) != 2 || rate < 1 || seconds <= 0) {
            errno = EINVAL;
            die("RATE SECONDS");
        }
        paced(rate, seconds);
    }
}

/* --- hold --- */

static void hold(void)
{
    uint32_t opened = 0, sent = 0, closed = 0;
    double begin = now_s(), cpu = cpu_s();
    while (res.answered < n_users) {
        while (opened < n_users && opened - (uint32_t)res.answered < HANDSHAKES) {
            link_open(&links[opened++]);
        }
        for (uint32_t i = sent; i < opened; i++) {
            if (links[i].up && user[i].cseq == 0) {
                uint32_t s = ++seq;
                slot[s % SLOTS] =
                    (struct request){.seq = s, .user = i, .open = true, .at = now_s()};
                struct link *l = &links[i];
                l->out_n = (size_t)(put_register(l->out, i, s, l) - l->out);
                n_open++;
                link_flush(l);
            }
            sent += i == sent && user[i].cseq;
        }
        receive(10);
        if (now_s() - begin > 600) {
            errno = ETIMEDOUT;
            die("not all are registered");
        }
    }
    printf(
        "{\"connections\": %u, \"registered\": %llu, \"seconds\": %.3f, \"load_cpu_us\": %.1f}\n",
        n_users, (unsigned long long)(res.answered - res.unexpected), now_s() - begin,
        (cpu_s() - cpu) * 1e6 / n_users);
    fflush(stdout);
    (void)!getchar();
    for (uint32_t i = 0; i < n_users; i++) {
        char c;
        ssize_t n = link_read(&links[i], &c, 1);
        closed += n == 0 || (n < 0 && errno != EAGAIN);
    }
    printf("{\"closed\": %u}\n", closed);
}

/* --- serve --- */

static size_t make_answer(const char *request, size_t len, char *ret_text)
{
    static const char *const copied[] = {"Via:", "From:", "Call-ID:", "CSeq:", "Contact:"};
    char *at = put(ret_text, "SIP/2.0 200 OK\r\n");
    const char *end = request + len;
    for (const char *line = memchr(request, '\n', len); line && ++line < end;
         line = memchr(line, '\n', (size_t)(end - line))) {
        const char *next = memchr(line, '\r', (size_t)(end - line));
        size_t n = next ? (size_t)(next - line) : 0;
        bool is_to = n > 3 && memcmp(line, "To:", 3) == 0, copy = is_to;
        for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]) && !copy; i++) {
            copy = n > strlen(copied[i]) && memcmp(line, copied[i], strlen(copied[i])) == 0;
        }
        if (copy && (size_t)(at - ret_text) + n + 64 < MESSAGE_MAX) {
            memcpy(at, line, n);
            at = put(at + n, is_to ? ";tag=home\r\n" : "\r\n");
        }
    }
    return (size_t)(put(at, "Content-Length: 0\r\n\r\n") - ret_text);
}

static void serve(void)
{
    static char text[BATCH][MESSAGE_MAX], reply[BATCH][MESSAGE_MAX];
    static struct iovec in[BATCH], out[BATCH];
    static struct sockaddr_in from[BATCH];
    static struct mmsghdr m[BATCH], r[BATCH];
    int room = 8 << 20, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        die("bind");
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    puts("ready");
    fflush(stdout);
    for (;;) {
        for (uint32_t i = 0; i < BATCH; i++) {
            in[i] = (struct iovec){text[i], MESSAGE_MAX};
            m[i] = (struct mmsghdr){.msg_hdr = {&from[i], sizeof(from[i]), &in[i], 1, NULL, 0, 0}};
        }
        int n = recvmmsg(fd, m, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < n; i++) {
            out[i] = (struct iovec){reply[i], make_answer(text[i], m[i].msg_len, reply[i])};
            r[i] = (struct mmsghdr){.msg_hdr = {&from[i], sizeof(from[i]), &out[i], 1, NULL, 0, 0}};
        }
        for (int done = 0, k; done<n; done += k> 0 ? k : 1) {
            k = sendmmsg(fd, r + done, (unsigned)(n - done), 0);
        }
    }
}

/* --- life --- */

static void options(int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "t:u:n:l:s:p:e:v:f")) != -1;) {
        switch (c) {
        case 't':
            transport = optarg;
            transport_type = strcmp(optarg, "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM;
            break;
        case 'u':
            n_users = (uint32_t)atoi(optarg);
            break;
        case 'n':
            prefix = optarg;
            break;
        case 'l':
            local = optarg;
            break;
        case 's':
            n_links = (uint32_t)atoi(optarg);
            break;
        case 'p':
            password = optarg;
            break;
        case 'e':
            expected = (uint32_t)atoi(optarg);
            break;
        case 'v':
            vias = (uint32_t)atoi(optarg);
            break;
        case 'f':
            fresh = true;
            break;
        default:
            exit(2);
        }
    }
    if (argc - optind != 2 || n_users == 0 || n_links == 0 || strlen(local) > 15 ||
        strlen(prefix) > 8) {
        fputs("usage: sipload [OPTIONS] run|hold|serve ADDRESS:PORT\n", stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    options(argc, argv);
    struct rlimit files;
    const char *what = argv[optind];
    to = parse_at(argv[optind + 1]);
    n_links = strcmp(what, "hold") == 0 ? n_users : n_links;
    user = calloc(n_users, sizeof(*user));
    links = calloc(n_links, sizeof(*links));
    slot = calloc(SLOTS, sizeof(*slot));
    ep = epoll_create1(EPOLL_CLOEXEC);
    md = EVP_MD_CTX_new();
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!user || !links || !slot || ep < 0 || !md || !sha256) {
        die("start");
    }
    if (strcmp(transport, "tls") == 0 && !(tls = SSL_CTX_new(TLS_client_method()))) {
        die("TLS");
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < n_links + 64) {
        files.rlim_cur = n_links + 64;
        files.rlim_max = files.rlim_max < files.rlim_cur ? files.rlim_cur : files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) < 0) {
            die("open files");
        }
    }
    seq = (uint32_t)getpid() << 16; /* branches of two runs differ */
    if (strcmp(what, "run") == 0) {
        run();
    } else if (strcmp(what, "hold") == 0) {
        hold();
    } else if (strcmp(what, "serve") == 0) {
        serve();
    }
    return 0;
}
