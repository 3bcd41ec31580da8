/* hostd/dns and os/dns: what names mean, what is answered, what nonsense does (nothing). */
#include "hostd/dns.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/rd.h"
#include "support/hostd_rig.h"
#include "support/test.h"

#define N_PEERS 6 /* the daemon pulls from so many at once */

struct world {
    struct hostd_rig rig;
    struct rig_peer beta, gamma;
    struct hf_prng prng;
    struct hf_dns_reply reply; /* to the last ask() */
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    rig_open(&w->rig);
    hf_prng_init(&w->prng, 1);
    rig_peer_open(&w->beta, "beta", "127.0.0.2");
    rig_peer_open(&w->gamma, "gamma", "::1");
    rig_peer_publish(&w->beta, "/pg/main", "{\"port\":5432,\"weight\":7}");
    rig_peer_publish(&w->beta, "/sip", "{\"port\":5060,\"proto\":\"udp\"}");
    rig_peer_publish(&w->gamma, "/pg/main", "{\"port\":5433,\"priority\":2}");
    rig_publish(&w->rig, "/pg/main", "{\"port\":5434,\"address\":\"127.0.0.77\"}");
    rig_publish(&w->rig, "/named", "{\"port\":80,\"address\":\"www.example.org\"}");
    rig_publish(&w->rig, "/odd", "{\"port\":80,\"address\":\"not a host\"}");
    rig_publish(&w->rig, "/none", "{\"port\":0}");
    rig_hear(&w->rig, &w->beta);
    rig_hear(&w->rig, &w->gamma);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    rig_close(&w->rig);
    rig_peer_close(&w->beta);
    rig_peer_close(&w->gamma);
    free(w);
    return 0;
}

static int ask(struct world *w, const char *name, uint16_t type)
{
    hf_dns_reply_init(&w->reply, name);
    hf_dns_answer(&w->rig.h, &w->prng, name, type, &w->reply);
    return (int)w->reply.rcode;
}

/* Is there exactly one record that prints like this? Addresses as "NAME ADDRESS". */
static void assert_has(struct world *w, const char *expected)
{
    int n = 0;
    char all[4096] = "";
    for (uint32_t i = 0; i < w->reply.n; i++) {
        const struct hf_dns_record *r = &w->reply.record[i];
        char text[512], addr[HF_ADDR_STR_LEN];
        struct hf_addr a = hf_addr_from_endpoint(&r->at);
        if (r->type == HF_DNS_SRV) {
            snprintf(text, sizeof(text), "%u %u %u %s", r->priority, r->weight, r->port, r->target);
        } else if (r->type == HF_DNS_NAPTR) {
            snprintf(text, sizeof(text), "%u %u %s %s", r->priority, r->weight, r->service,
                     r->target);
        } else {
            snprintf(text, sizeof(text), "%s%s %s", r->additional ? "+" : "", r->name,
                     hf_addr_str(&a, addr));
        }
        n += strcmp(text, expected) == 0;
        strncat(all, text, sizeof(all) - strlen(all) - 2);
        strcat(all, "\n");
    }
    if (n != 1) {
        fail_msg("%d times '%s' in:\n%s", n, expected, all);
    }
}

static void names(void **state)
{
    (void)state;
    struct hf_dns_name p;
    hf_dns_name_parse("C.b.A.Hf.Test", "hf.test", false, &p);
    assert_int_equal(p.kind, HF_DNS_NAME_SERVICE);
    assert_string_equal(p.path, "/a/b/c");
    assert_string_equal(p.name, "c.b.a.hf.test");
    hf_dns_name_parse("_pg._tcp.main.pg.hf.test", "hf.test", false, &p);
    assert_string_equal(p.path, "/pg/main/_tcp/_pg");
    assert_string_equal(p.proto, "tcp");
    hf_dns_name_parse("_pg._tcp.main.pg.hf.test", "hf.test", true, &p);
    assert_string_equal(p.path, "/pg/main");
    assert_string_equal(p.name, "main.pg.hf.test");
    hf_dns_name_parse("beta._at.main.pg.hf.test", "hf.test", false, &p);
    assert_int_equal(p.kind, HF_DNS_NAME_AT);
    assert_string_equal(p.owner, "beta");
    assert_string_equal(p.path, "/pg/main");
    hf_dns_name_parse("beta.host.hf.test", "hf.test", false, &p);
    assert_int_equal(p.kind, HF_DNS_NAME_HOST);
    assert_string_equal(p.owner, "beta");
    static const struct {
        const char *name;
        enum hf_dns_name_kind kind;
    } others[] = {
        {"hf.test", HF_DNS_NAME_INNER},
        {"host.hf.test", HF_DNS_NAME_INNER},
        {"b.host.a.hf.test", HF_DNS_NAME_SERVICE},
        {"x.b.host.hf.test", HF_DNS_NAME_SERVICE},
        {"test", HF_DNS_NAME_FOREIGN},
        {"", HF_DNS_NAME_FOREIGN},
        {"xhf.test", HF_DNS_NAME_FOREIGN},
        {"hf.test.org", HF_DNS_NAME_FOREIGN},
        {".hf.test", HF_DNS_NAME_BAD},
        {"a..b.hf.test", HF_DNS_NAME_BAD},
        {"a b.hf.test", HF_DNS_NAME_BAD},
        {"-.host.hf.test", HF_DNS_NAME_BAD},
        {"_._.a.hf.test", HF_DNS_NAME_SERVICE},
        {"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.hf.test", HF_DNS_NAME_BAD},
        {"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.hf.test", HF_DNS_NAME_BAD},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(others); i++) {
        hf_dns_name_parse(others[i].name, "hf.test", false, &p);
        if (p.kind != others[i].kind) {
            fail_msg("%s: %d", others[i].name, (int)p.kind);
        }
    }
}

static void hosts(void **state)
{
    struct world *w = *state;
    assert_int_equal(ask(w, "beta.host.hf.test", HF_DNS_A), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 1);
    assert_int_equal(w->reply.ttl_s, 7);
    assert_has(w, " 127.0.0.2:0");
    assert_int_equal(ask(w, "alpha.HOST.hf.test", HF_DNS_A), HF_DNS_NOERROR);
    assert_has(w, " 127.0.0.9:0");
    assert_int_equal(ask(w, "gamma.host.hf.test", HF_DNS_AAAA), HF_DNS_NOERROR);
    assert_has(w, " [::1]:0");
    assert_int_equal(ask(w, "gamma.host.hf.test", HF_DNS_A), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 0);
    assert_int_equal(ask(w, "delta.host.hf.test", HF_DNS_A), HF_DNS_NXDOMAIN);
    assert_int_equal(ask(w, "host.hf.test", HF_DNS_A), HF_DNS_NOERROR);
    assert_int_equal(ask(w, "example.org", HF_DNS_A), HF_DNS_REFUSED);
    rig_bye(&w->rig, &w->beta);
    assert_int_equal(ask(w, "beta.host.hf.test", HF_DNS_A), HF_DNS_NXDOMAIN);
    /* without host.address: where HTTP listens */
    w->rig.h.config->host.address.len = 0;
    assert_int_equal(ask(w, "alpha.host.hf.test", HF_DNS_ANY), HF_DNS_NOERROR);
    assert_has(w, " 127.0.0.1:0");
}

static void services(void **state)
{
    struct world *w = *state;
    assert_int_equal(ask(w, "main.pg.hf.test", HF_DNS_A), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 2);
    assert_has(w, " 127.0.0.2:0");
    assert_has(w, " 127.0.0.77:0");
    assert_int_equal(ask(w, "main.pg.hf.test", HF_DNS_AAAA), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 1);
    assert_int_equal(ask(w, "_postgresql._tcp.main.pg.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 6);
    assert_has(w, "0 7 5432 beta.host.hf.test");
    assert_has(w, "2 0 5433 gamma.host.hf.test");
    assert_has(w, "0 0 5434 alpha._at.main.pg.hf.test");
    assert_has(w, "+beta.host.hf.test 127.0.0.2:0");
    assert_has(w, "+gamma.host.hf.test [::1]:0");
    assert_has(w, "+alpha._at.main.pg.hf.test 127.0.0.77:0");
    assert_int_equal(ask(w, "alpha._at.main.pg.hf.test", HF_DNS_A), HF_DNS_NOERROR);
    assert_has(w, " 127.0.0.77:0");
    assert_int_equal(ask(w, "alpha._at.other.pg.hf.test", HF_DNS_A), HF_DNS_NXDOMAIN);
    /* proto, names as addresses, addresses that are none */
    assert_int_equal(ask(w, "_sip._udp.sip.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 2);
    assert_int_equal(ask(w, "_sip._tcp.sip.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 0);
    assert_int_equal(ask(w, "named.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 1);
    assert_has(w, "0 0 80 www.example.org");
    assert_int_equal(ask(w, "named.hf.test", HF_DNS_ANY), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 0);
    assert_int_equal(ask(w, "odd.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 0);
    assert_int_equal(ask(w, "none.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 0);
    /* names that have something below them exist (RFC 8020) */
    assert_int_equal(ask(w, "pg.hf.test", HF_DNS_A), HF_DNS_NOERROR);
    assert_int_equal(ask(w, "p.hf.test", HF_DNS_A), HF_DNS_NXDOMAIN);
    assert_int_equal(ask(w, "_a._b.nothing.hf.test", HF_DNS_SRV), HF_DNS_NXDOMAIN);
}

static void an_exact_path_is_not_shortened(void **state)
{
    struct world *w = *state;
    rig_publish(&w->rig, "/pg/main/_tcp/_x", "{\"port\":1}");
    assert_int_equal(ask(w, "_x._tcp.main.pg.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
    assert_has(w, "0 0 1 alpha.host.hf.test");
    rig_publish(&w->rig, "/pg/main/_tcp/_x", NULL);
}

static void as_many_as_fit(void **state)
{
    struct world *w = *state;
    struct rig_peer peer[N_PEERS];
    const char *name = "a-service-with-a-name-of-some-length.in-a-tree.hf.test";
    for (int i = 0; i < N_PEERS; i++) {
        char host[32], value[64];
        snprintf(host, sizeof(host), "peer-%d", i);
        snprintf(value, sizeof(value), "{\"port\":80,\"address\":\"127.0.1.%d\"}", i);
        rig_peer_open(&peer[i], host, "127.0.0.3");
        rig_peer_publish(&peer[i], "/in-a-tree/a-service-with-a-name-of-some-length", value);
        rig_hear(&w->rig, &peer[i]);
    }
    assert_int_equal(ask(w, name, HF_DNS_A), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, N_PEERS);
    unsigned first = 0;
    for (int i = 0; i < 200; i++) {
        assert_int_equal(ask(w, name, HF_DNS_SRV), HF_DNS_NOERROR);
        assert_true(w->reply.n > 2 && w->reply.n < N_PEERS);
        first |= 1u << (w->reply.record[0].target[5] - '0');
    }
    assert_int_equal(first, (1u << N_PEERS) - 1); /* everybody's turn comes */
    for (int i = 0; i < N_PEERS; i++) {
        rig_bye(&w->rig, &peer[i]);
        rig_peer_close(&peer[i]);
    }
}

/* ---- SIP's servers ---- */

#define SIP_SERVER(udp, address, rest)                                                             \
    "{\"udp\":\"" udp "\",\"address\":\"" address "\",\"busy\":false," rest "}"
#define SIP_HOME "\"role\":\"home\",\"state\":\"live\",\"weight\":100,\"cpu\":250"

static void sip_servers(void **state)
{
    struct world *w = *state;
    assert_int_equal(ask(w, "sip.hf.test", HF_DNS_NAPTR), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 0); /* a service, but no server */
    rig_publish(
        &w->rig, "/sip/servers/alpha",
        SIP_SERVER("127.0.0.9:5060", "192.0.2.101", SIP_HOME ",\"tcp\":\"127.0.0.9:5070\""));
    rig_publish(&w->rig, "/sip/servers/edge",
                SIP_SERVER("127.0.0.9:5090", "192.0.2.101",
                           "\"role\":\"edge\",\"state\":\"live\",\"weight\":100"));
    rig_publish(&w->rig, "/sip/servers/odd",
                "{\"role\":\"home\",\"state\":\"live\",\"udp\":\"x\"}");
    rig_peer_publish(&w->beta, "/sip/servers/beta",
                     "{\"udp\":\"127.0.0.2:5062\",\"tls\":\"127.0.0.2:5061\",\"address\":"
                     "\"sip.example.org\",\"role\":\"distribution\",\"state\":\"live\",\"busy\":"
                     "true,\"weight\":1,\"cpu\":1000}");
    rig_peer_publish(
        &w->gamma, "/sip/servers/gamma",
        SIP_SERVER("[::1]:5060", "::1", "\"role\":\"home\",\"state\":\"draining\",\"weight\":100"));
    rig_hear(&w->rig, &w->beta);
    rig_hear(&w->rig, &w->gamma);
    static const char *const bases[] = {"sip.hf.test", "hf.test"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bases); i++) {
        char name[3][64], naptr[3][80];
        static const char *const labels[] = {"_sips._tcp", "_sip._tcp", "_sip._udp"};
        static const char *const services[] = {"SIPS+D2T", "SIP+D2T", "SIP+D2U"};
        assert_int_equal(ask(w, bases[i], HF_DNS_NAPTR), HF_DNS_NOERROR);
        assert_int_equal(w->reply.n, 3);
        for (size_t k = 0; k < 3; k++) {
            snprintf(name[k], sizeof(name[k]), "%s.%s", labels[k], bases[i]);
            snprintf(naptr[k], sizeof(naptr[k]), "10 %zu %s %s", 10 * (k + 1), services[k],
                     name[k]);
            assert_has(w, naptr[k]);
        }
        assert_int_equal(ask(w, name[0], HF_DNS_SRV), HF_DNS_NOERROR);
        assert_int_equal(w->reply.n, 1);
        assert_has(w, "20 1 5061 sip.example.org");
        assert_int_equal(ask(w, name[1], HF_DNS_SRV), HF_DNS_NOERROR);
        assert_int_equal(w->reply.n, 2);
        assert_has(w, "10 750 5070 alpha.servers.sip.hf.test");
        assert_has(w, "+alpha.servers.sip.hf.test 192.0.2.101:0");
        assert_int_equal(ask(w, name[2], HF_DNS_SRV), HF_DNS_NOERROR);
        assert_int_equal(w->reply.n, 3);
        assert_has(w, "10 750 5060 alpha.servers.sip.hf.test");
        assert_has(w, "20 1 5062 sip.example.org");
    }
    assert_int_equal(ask(w, "alpha.servers.sip.hf.test", HF_DNS_A), HF_DNS_NOERROR);
    assert_has(w, " 192.0.2.101:0");
    /* a dead one, and one that is drained, vanish */
    rig_bye(&w->rig, &w->beta);
    assert_int_equal(ask(w, "_sips._tcp.sip.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 0);
    assert_int_equal(ask(w, "sip.hf.test", HF_DNS_NAPTR), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 2);
    rig_publish(&w->rig, "/sip/servers/alpha",
                SIP_SERVER("127.0.0.9:5060", "192.0.2.101",
                           "\"role\":\"home\",\"state\":\"draining\",\"weight\":100"));
    assert_int_equal(ask(w, "_sip._udp.sip.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 0);
    assert_int_equal(ask(w, "hf.test", HF_DNS_NAPTR), HF_DNS_NOERROR);
    assert_int_equal(w->reply.n, 0);
}

/* More than an answer has room for: the heavier the likelier. */
static void many_sip_servers(void **state)
{
    struct world *w = *state;
    unsigned first = 0, heavy = 0, others = 0;
    for (int i = 0; i < 150; i++) {
        char name[64], value[256];
        snprintf(name, sizeof(name), "/sip/servers/server-number-%d", i);
        snprintf(value, sizeof(value),
                 "{\"udp\":\"127.0.0.9:5060\",\"address\":\"192.0.2.%d\",\"role\":\"home\","
                 "\"state\":\"live\",\"weight\":%d}",
                 i, i == 7 ? 1000 : 3);
        rig_publish(&w->rig, name, value);
    }
    for (int i = 0; i < 400; i++) {
        assert_int_equal(ask(w, "_sip._udp.sip.hf.test", HF_DNS_SRV), HF_DNS_NOERROR);
        assert_in_range(w->reply.n, 5, 20);
        for (uint32_t k = 0; k < w->reply.n; k++) {
            bool is = strstr(w->reply.record[k].target, "-7.") != NULL;
            first += k == 0 && is;
            heavy += is && !w->reply.record[k].additional;
            others += !is && !w->reply.record[k].additional;
        }
    }
    assert_in_range(heavy, 250, 400); /* 128 of 150 are considered */
    assert_in_range(first, 150, 350); /* 1000 of 1381 */
    assert_true(others > 400);
}

/* ---- on the wire ---- */

static void answer_naptr(void *arg, const char *name, uint16_t type, struct hf_dns_reply *reply)
{
    struct hf_dns_record r = {.type = type, .priority = 10, .weight = 20};
    (void)name;
    strcpy(r.service, "SIP+D2T");
    strcpy(r.target, "_sip._tcp.hf.test");
    *(bool *)arg = hf_dns_reply_add(reply, &r);
}

static void naptr(void **state)
{
    (void)state;
    static const uint8_t asked[] = "\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"
                                   "\x02hf\x04test\x00\x00\x23\x00\x01";
    static const uint8_t wanted[] = "\xc0\x0c\x00\x23\x00\x01\x00\x00\x00\x00\x00\x22"
                                    "\x00\x0a\x00\x14\x01s\x07SIP+D2T\x00"
                                    "\x04_sip\x04_tcp\x02hf\x04test\x00";
    uint8_t buf[HF_DNS_PACKET_MAX];
    bool fits = false;
    size_t n = hf_dns_respond(hf_slice(asked, sizeof(asked) - 1), answer_naptr, &fits, buf);
    assert_true(fits);
    assert_int_equal(n, sizeof(asked) - 1 + sizeof(wanted) - 1);
    assert_memory_equal(buf + sizeof(asked) - 1, wanted, sizeof(wanted) - 1);
    assert_int_equal(buf[7], 1); /* answers */
}

static int client(uint16_t port)
{
    struct hf_addr to;
    assert_int_equal(hf_addr_parse("127.0.0.1", port, NULL, &to), 0);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to.ss, to.len), 0);
    return fd;
}

static ssize_t answer(struct world *w, int fd, uint8_t buf[1024])
{
    ssize_t n;
    while ((n = recv(fd, buf, 1024, MSG_DONTWAIT)) < 0) {
        rig_turn(&w->rig);
    }
    return n;
}

/* id 0x4846, one question: pg's main, or what the caller makes of it */
static const uint8_t query[] = "\x48\x46\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
                               "\x04mAin\x02pg\x02hf\x04TEST\x00\x00\x21\x00\x01";

static void packets(void **state)
{
    struct world *w = *state;
    struct hf_dns *d;
    struct hf_err err;
    uint8_t buf[1024];
    assert_int_equal(hf_dns_open(&w->rig.h, &err, &d), 0);
    int fd = client(hf_dns_port(d));
    assert_int_equal(send(fd, query, sizeof(query) - 1, 0), sizeof(query) - 1);
    ssize_t n = answer(w, fd, buf);
    struct hf_rd r;
    hf_rd_init(&r, hf_slice(buf, (size_t)n));
    assert_int_equal(hf_rd_u16(&r), 0x4846);
    assert_int_equal(hf_rd_u16(&r), 0x8500); /* answer, authoritative, RD as asked */
    assert_int_equal(hf_rd_u16(&r), 1);
    assert_int_equal(hf_rd_u16(&r), 3); /* SRV of alpha, beta, gamma ... */
    assert_int_equal(hf_rd_u16(&r), 0);
    assert_int_equal(hf_rd_u16(&r), 3); /* ... and their addresses */
    struct hf_slice question = hf_rd_bytes(&r, sizeof(query) - 1 - 12);
    assert_memory_equal(question.p, query + 12, question.n);
    assert_int_equal(hf_rd_u16(&r), 0xc00c);
    assert_int_equal(hf_rd_u16(&r), HF_DNS_SRV);
    assert_int_equal(hf_rd_u16(&r), 1);
    assert_int_equal(hf_rd_u32(&r), 7);
    struct hf_slice data = hf_rd_str16(&r, 512);
    assert_true(data.n > 6 + 16 && data.p[data.n - 1] == 0);
    assert_memory_equal(data.p + data.n - 9, "\x02hf\x04test", 9);
    /* every truncation, then random bytes: whatever happens to them, the next question is answered
     */
    for (size_t len = 1; len < sizeof(query) - 1; len++) {
        assert_int_equal(send(fd, query, len, 0), len);
    }
    for (int i = 0; i < 2000; i++) {
        size_t len = 1 + hf_prng_below(&w->prng, sizeof(buf) - 1);
        for (size_t k = 0; k < len; k++) {
            buf[k] = (uint8_t)hf_prng_u64(&w->prng);
        }
        if (i % 2) { /* a good question with a few bytes changed */
            memcpy(buf, query, len = sizeof(query) - 1);
            for (int k = 0; k < 3; k++) {
                buf[2 + hf_prng_below(&w->prng, len - 2)] = (uint8_t)hf_prng_u64(&w->prng);
            }
        }
        buf[0] = 0;
        (void)!send(fd, buf, len, 0);
        if (i % 50 == 0) {
            rig_turn(&w->rig);
        }
    }
    do {
        assert_int_equal(send(fd, query, sizeof(query) - 1, 0), sizeof(query) - 1);
        rig_turn(&w->rig);
        n = answer(w, fd, buf);
        assert_true(n <= 512);
    } while (buf[0] != 0x48);
    close(fd);
    hf_dns_close(d);
    w->rig.h.config->dns.listen.len = 0;
    assert_int_equal(hf_dns_open(&w->rig.h, &err, &d), 0);
    assert_null(d);
    hf_dns_close(d);
}

static void a_port_in_use(void **state)
{
    struct world *w = *state;
    struct hf_dns_server *s, *again;
    struct hf_err err;
    struct hf_addr a;
    assert_int_equal(hf_addr_parse("127.0.0.1:0", 0, NULL, &a), 0);
    assert_int_equal(hf_dns_server_open(w->rig.h.loop, &a, NULL, NULL, &err, &s), 0);
    assert_int_equal(hf_addr_parse("127.0.0.1", hf_dns_server_port(s), NULL, &a), 0);
    assert_int_equal(hf_dns_server_open(w->rig.h.loop, &a, NULL, NULL, &err, &again), -EADDRINUSE);
    assert_non_null(strstr(err.text, "another program has this port"));
    hf_dns_server_close(s);
    hf_dns_server_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(names),
        cmocka_unit_test_setup_teardown(hosts, setup, teardown),
        cmocka_unit_test_setup_teardown(services, setup, teardown),
        cmocka_unit_test_setup_teardown(an_exact_path_is_not_shortened, setup, teardown),
        cmocka_unit_test_setup_teardown(as_many_as_fit, setup, teardown),
        cmocka_unit_test_setup_teardown(sip_servers, setup, teardown),
        cmocka_unit_test_setup_teardown(many_sip_servers, setup, teardown),
        HF_TEST(naptr),
        cmocka_unit_test_setup_teardown(packets, setup, teardown),
        cmocka_unit_test_setup_teardown(a_port_in_use, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
