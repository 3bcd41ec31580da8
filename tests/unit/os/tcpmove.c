/* os/tcpmove: facts of live sockets, and an idle connection that moves within one host; with
 * several hosts, probes and replay: tests/system/test_tcpmove.py. */
#include "os/tcpmove.h"

#include <errno.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "os/loop.h"
#include "os/tcpmove_impl.h"
#include "support/test.h"

struct pair {
    struct hf_addr address;
    int client, server;
};

static struct pair connected(const char *host)
{
    struct pair p = {0};
    assert_int_equal(hf_addr_parse(host, 0, NULL, &p.address), 0);
    int family = p.address.ss.ss_family, listener = socket(family, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&p.address.ss, p.address.len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&p.address.ss, &p.address.len), 0);
    p.client = socket(family, SOCK_STREAM, 0);
    assert_int_equal(connect(p.client, (struct sockaddr *)&p.address.ss, p.address.len), 0);
    p.server = accept(listener, NULL, NULL);
    assert_true(p.server >= 0);
    close(listener); /* a socket that is restored could not be bound beside it on this host */
    return p;
}

static void done(struct pair p)
{
    close(p.client);
    close(p.server);
}

static void get(int fd, const char *want)
{
    char buf[16];
    size_t n = strlen(want);
    assert_int_equal(recv(fd, buf, n, MSG_WAITALL), n);
    assert_memory_equal(buf, want, n);
}

static void put(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int reuse(int fd)
{
    int v = 0;
    socklen_t n = sizeof(v);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &v, &n), 0);
    return v;
}

static void same_later(void **state)
{
    (void)state;
    struct pair p = connected("127.0.0.1");
    struct hf_tcp_facts a, b;
    struct hf_endpoint local = hf_addr_to_endpoint(&p.address);
    assert_int_equal(hf_tcpmove_read(p.server, 0, 0, hf_now(), NULL, &a), 0);
    assert_true(hf_endpoint_eq(&a.local, &local) && a.peer.port != 0 && a.mss > 1000);
    assert_int_equal(a.flags, HF_TCP_FACT_SACK | HF_TCP_FACT_TS | HF_TCP_FACT_WSCALE);
    assert_int_equal(reuse(p.server), 1);
    put(p.client, "12345");
    get(p.server, "123"); /* two are left in the kernel */
    put(p.server, "abcdefg");
    get(p.client, "abcdefg");
    assert_int_equal(hf_tcpmove_read(p.server, 3, 7, hf_now(), NULL, &b), 0);
    assert_true(a.snd_isn == b.snd_isn && a.rcv_isn == b.rcv_isn);
    assert_true(a.snd_wscale == b.snd_wscale && a.rcv_wscale == b.rcv_wscale);
    assert_true(b.snd_wnd > 0 && !hf_tcp_before(b.tsval, a.tsval));
    shutdown(p.client, SHUT_WR); /* neither FIN changes where the streams began */
    get(p.server, "45");
    char c;
    assert_int_equal(recv(p.server, &c, 1, 0), 0);
    shutdown(p.server, SHUT_WR);
    assert_int_equal(recv(p.client, &c, 1, 0), 0);
    int rc = hf_tcpmove_read(p.server, 5, 7, hf_now(), NULL, &b);
    assert_true(rc == -ENOTCONN || (a.snd_isn == b.snd_isn && a.rcv_isn == b.rcv_isn));
    done(p);
}

static void not_while_unsent(void **state)
{
    (void)state;
    static char much[1 << 16];
    struct pair p = connected("127.0.0.1");
    struct hf_tcp_facts f;
    struct hf_err err = {0};
    uint64_t n = 0;
    for (ssize_t k; (k = send(p.server, much, sizeof(much), MSG_DONTWAIT)) > 0;) {
        n += (uint64_t)k;
    }
    assert_int_equal(hf_tcpmove_read(p.server, 0, n, hf_now(), &err, &f), -EAGAIN);
    assert_non_null(strstr(err.text, "not sent yet"));
    done(p);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(hf_tcpmove_read(fd, 0, 0, hf_now(), &err, &f), -ENOTCONN);
    assert_int_equal(hf_tcpmove_refresh(fd, 0, hf_now(), &f, &n), -ENOTCONN);
    close(fd);
}

static void refreshed(void **state)
{
    (void)state;
    struct pair p = connected("127.0.0.1");
    struct hf_tcp_facts f;
    uint64_t una = 99;
    assert_int_equal(hf_tcpmove_read(p.server, 0, 0, hf_now(), NULL, &f), 0);
    assert_int_equal(hf_tcpmove_refresh(p.server, 0, hf_now(), &f, &una), 0);
    assert_int_equal(una, 0);
    put(p.server, "abc");
    get(p.client, "abc");
    put(p.client, "x"); /* acknowledges, at the latest */
    get(p.server, "x");
    assert_int_equal(hf_tcpmove_refresh(p.server, 3, HF_S(77), &f, &una), 0);
    assert_int_equal(una, 3);
    assert_int_equal(f.ts_at, HF_S(77));
    shutdown(p.server, SHUT_WR);
    char c;
    assert_int_equal(recv(p.client, &c, 1, 0), 0);
    assert_int_equal(hf_tcpmove_refresh(p.server, 3, hf_now(), &f, &una), 0);
    assert_int_equal(una, 3); /* our FIN is no byte of the stream */
    done(p);
}

struct outcome {
    unsigned n;
    struct hf_tcpmove_result res;
};

static void on_done(void *arg, void *job_arg, const struct hf_tcpmove_result *res)
{
    struct outcome *o = arg;
    assert_ptr_equal(job_arg, o);
    o->n++;
    o->res = *res;
}

static void move(const char *host)
{
    struct pair p = connected(host);
    struct hf_tcp_facts f;
    struct hf_err err = {0};
    struct hf_tcpmove *mv;
    struct outcome o = {0};
    uint64_t una;
    assert_int_equal(hf_tcpmove_read(p.server, 0, 0, hf_now(), &err, &f), 0);
    put(p.client, "12345");
    get(p.server, "123");
    put(p.server, "abc");
    get(p.client, "abc");
    assert_int_equal(hf_tcpmove_freeze(p.server, 3, 3, hf_now(), &f, &una, &err), -EBUSY);
    assert_non_null(strstr(err.text, "read on first"));
    get(p.server, "45");
    put(p.client, "6");
    get(p.server, "6"); /* and so "abc" is acknowledged */
    assert_int_equal(hf_tcpmove_freeze(p.server, 6, 3, hf_now(), &f, &una, &err), 0);
    assert_int_equal(una, 3);
    hf_tcpmove_discard(p.server);

    struct hf_tcpmove_opt opt = {.local = p.address};
    struct hf_tcpmove_job job = {.facts = f, .rx_total = 6, .tx_una = una, .arg = &o};
    assert_int_equal(hf_tcpmove_open(&opt, on_done, &o, &err, &mv), 0);
    assert_true(hf_tcpmove_fd(mv) >= 0 && hf_tcpmove_deadline(mv) == HF_NEVER);
    assert_int_equal(hf_tcpmove_add(mv, &job), 0);
    assert_int_equal(hf_tcpmove_add(mv, &job), -EEXIST);
    assert_true(hf_tcpmove_left(mv) == 1 && hf_tcpmove_deadline(mv) == 0);
    assert_false(hf_tcpmove_settled(mv, hf_now()));
    hf_tcpmove_step(mv, hf_now());
    assert_true(o.n == 1 && o.res.rc == 0 && o.res.exact && o.res.tx_written == 3);
    assert_true(hf_tcpmove_left(mv) == 0 && hf_tcpmove_settled(mv, hf_now()));
    hf_tcpmove_listening(mv);
    assert_int_equal(hf_tcpmove_counters(mv)->restored, 1);
    hf_tcpmove_close(mv);
    p.server = o.res.fd;
    assert_int_equal(reuse(p.server), 1);
    put(p.server, "def");
    get(p.client, "def");
    put(p.client, "789");
    struct hf_tcp_facts again; /* its streams began where they began */
    char buf[4];
    while (recv(p.server, buf, 3, MSG_PEEK) < 3) {
        assert_true(errno == EAGAIN || errno == 0);
    }
    assert_int_equal(recv(p.server, buf, 3, 0), 3);
    assert_int_equal(hf_tcpmove_read(p.server, 9, 6, hf_now(), &err, &again), 0);
    assert_true(again.snd_isn == f.snd_isn && again.rcv_isn == f.rcv_isn);
    assert_true(again.mss == f.mss && again.flags == f.flags);
    assert_true(again.snd_wscale == f.snd_wscale && again.rcv_wscale == f.rcv_wscale);
    assert_false(hf_tcp_before(again.tsval, f.tsval));
    done(p);
}

static void moves(void **state)
{
    (void)state;
    move("127.0.0.1");
    move("::1");
}

static void refused(void **state)
{
    (void)state;
    struct hf_tcpmove_opt opt = {0};
    struct hf_err err = {0};
    struct hf_tcpmove *mv = NULL;
    assert_int_equal(hf_tcpmove_open(&opt, on_done, NULL, &err, &mv), -HF_ECONFIG);
    assert_int_equal(hf_addr_parse("127.0.0.1:5432", 0, NULL, &opt.local), 0);
    hf_mem_fail_after(0);
    assert_int_equal(hf_tcpmove_open(&opt, on_done, NULL, &err, &mv), -ENOMEM);
    hf_mem_fail_after(-1);
    hf_tcpmove_close(NULL);
    assert_int_equal(hf_tcpmove_open(&opt, on_done, NULL, &err, &mv), 0);
    struct hf_tcpmove_job job = {.facts = {.mss = 1460}};
    job.facts.local = hf_addr_to_endpoint(&opt.local);
    assert_int_equal(hf_tcpmove_add(mv, &job), -HF_EVALUE); /* no peer */
    job.facts.peer = job.facts.local;
    job.facts.flags = HF_TCP_FACT_EMBRYO;
    assert_int_equal(hf_tcpmove_add(mv, &job), -HF_EVALUE); /* no SYN-ACK */
    job.facts.flags = 0;
    job.facts.local.port++;
    assert_int_equal(hf_tcpmove_add(mv, &job), -HF_EVALUE); /* another address */
    job.facts.local.port--;
    for (int n = 0; n < 2; n++) {
        hf_mem_fail_after(n);
        assert_int_equal(hf_tcpmove_add(mv, &job), -ENOMEM);
        hf_mem_fail_after(-1);
    }
    assert_int_equal(hf_tcpmove_add(mv, &job), 0);
    hf_tcpmove_close(mv); /* not done: not reported */
}

/* A client that says something whenever a socket in the making can hear it. */
static int meddler = -1;

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    struct sockaddr_storage ss;
    socklen_t n = sizeof(ss);
    int rc = (int)syscall(SYS_setsockopt, fd, level, name, value, len);
    if (meddler >= 0 && getpeername(fd, (struct sockaddr *)&ss, &n) == 0) {
        put(meddler, "m");
    }
    return rc;
}

/* Pitfall 24 */
static void its_timestamps_are_right_at_once(void **state)
{
    (void)state;
    struct pair p = connected("127.0.0.1");
    struct hf_tcp_facts f;
    struct hf_err err = {0};
    struct hf_tcpmove *mv;
    struct outcome o = {0};
    uint64_t una;
    int nodelay = 1, raw = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_TCP);
    assert_int_equal(setsockopt(p.client, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof(int)), 0);
    assert_int_equal(hf_tcpmove_read(p.server, 0, 0, hf_now(), &err, &f), 0);
    assert_int_equal(hf_tcpmove_freeze(p.server, 0, 0, hf_now(), &f, &una, &err), 0);
    hf_tcpmove_discard(p.server);
    struct hf_tcpmove_opt opt = {.local = p.address};
    struct hf_tcpmove_job job = {.facts = f, .arg = &o};
    assert_int_equal(hf_tcpmove_open(&opt, on_done, &o, &err, &mv), 0);
    assert_int_equal(hf_tcpmove_add(mv, &job), 0);
    meddler = p.client;
    hf_tcpmove_step(mv, hf_now());
    meddler = -1;
    assert_true(o.n == 1 && o.res.rc == 0);
    hf_tcpmove_close(mv);
    p.server = o.res.fd;
    uint8_t packet[1500];
    unsigned seen = 0;
    for (ssize_t n; (n = recv(raw, packet, sizeof(packet), 0)) > 0;) {
        struct hf_tcp_segment seg;
        assert_int_equal(hf_tcp_segment_parse(hf_slice(packet, (size_t)n), &seg), 0);
        if (hf_endpoint_eq(&seg.src, &f.local) && seg.has_ts) {
            seen++;
            assert_true(!hf_tcp_before(seg.tsval, f.tsval) && seg.tsval - f.tsval < 60000);
        }
    }
    assert_true(seen > 0);
    close(raw);
    done(p);
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
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
    return close(fd);
}

/* As much as the socket takes; what it has taken is read here, and so it goes on. */
static void *write_and_read(void *arg)
{
    const struct pair *p = arg;
    static char buf[1 << 16];
    for (int i = 0; i < 20000; i++) {
        (void)send(p->server, buf, sizeof(buf), MSG_DONTWAIT);
        (void)recv(p->client, buf, sizeof(buf), MSG_DONTWAIT);
    }
    return NULL;
}

/* While another thread writes: never less than the peer has, and never less than before. */
static void sent_while_others_write(void **st)
{
    (void)st;
    struct pair p = connected("127.0.0.1");
    pthread_t t;
    uint64_t last = 0, n = 0;
    unsigned known = 0;
    assert_int_equal(pthread_create(&t, NULL, write_and_read, &p), 0);
    while (pthread_tryjoin_np(t, NULL) == EBUSY) {
        int rc = hf_tcpmove_sent(p.server, &n);
        if (rc == -EAGAIN) {
            continue;
        }
        assert_int_equal(rc, 0);
        assert_true(n >= last);
        last = n;
        known++;
    }
    assert_true(known > 0 && last > 0);
    done(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(same_later),
        HF_TEST(not_while_unsent),
        HF_TEST(refreshed),
        HF_TEST(moves),
        HF_TEST(refused),
        HF_TEST(its_timestamps_are_right_at_once),
        HF_TEST(sent_while_others_write),
    };
    return cmocka_run_group_tests_name("os/tcpmove", tests, enter_namespace, NULL);
}
