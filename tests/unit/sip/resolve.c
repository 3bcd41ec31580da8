/* Tests of sip/resolve against a name server of canned answers: NAPTR, SRV, fallbacks, caching. */
#include "sip/resolve.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/wr.h"
#include "test.h"

#define TYPE_A 1
#define TYPE_AAAA 28
#define TYPE_SRV 33
#define TYPE_NAPTR 35

/* A record; what a type does not have is 0. */
struct record {
    const char *name;
    uint16_t type;
    uint16_t a, b, port; /* order, preference; priority, weight, port */
    const char *flags, *service, *value;
};
static const struct record records[] = {
    {"example.org", TYPE_NAPTR, 20, 1, 0, "s", "SIP+D2U", "_sip._udp.example.org"},
    {"example.org", TYPE_NAPTR, 10, 1, 0, "s", "SIPS+D2T", "_sips._tcp.example.org"},
    {"example.org", TYPE_NAPTR, 30, 1, 0, "u", "SIP+D2T", "_sip._tcp.example.org"},
    {"_sip._udp.example.org", TYPE_SRV, 1, 10, 5070, "", "", "a.example.org"},
    {"_sips._tcp.example.org", TYPE_SRV, 1, 10, 5071, "", "", "b.example.org"},
    {"_sip._tcp.example.org", TYPE_SRV, 1, 10, 5072, "", "", "a.example.org"},
    {"_sip._udp.plain.org", TYPE_SRV, 2, 0, 5060, "", "", "b.example.org"},
    {"_sip._udp.plain.org", TYPE_SRV, 1, 10, 5061, "", "", "a.example.org"},
    {"_sip._udp.plain.org", TYPE_SRV, 1, 90, 5062, "", "", "c.example.org"},
    {"_sip._udp.none.org", TYPE_SRV, 0, 0, 0, "", "", ""},
    {"a.example.org", TYPE_A, 0, 0, 0, "", "", "192.0.2.1"},
    {"a.example.org", TYPE_AAAA, 0, 0, 0, "", "", "2001:db8::1"},
    {"b.example.org", TYPE_A, 0, 0, 0, "", "", "192.0.2.2"},
    {"c.example.org", TYPE_A, 0, 0, 0, "", "", "192.0.2.3"},
};

static struct {
    struct hf_loop *loop;
    struct hf_io *io;
    struct hf_timer *late;
    int fd;
    bool silent, running;
    unsigned asked, answered, expected;
    struct hf_sip_resolver *r;
    struct hf_sip_flow to[HF_SIP_RESOLVED_MAX];
    size_t n;
    uint64_t cookie;
} rig;

/* ---- the name server ---- */

static void put_name(struct hf_wr *w, const char *name)
{
    while (*name) {
        size_t n = strcspn(name, ".");
        hf_wr_u8(w, (uint8_t)n);
        hf_wr_bytes(w, hf_slice(name, n));
        name += n + (name[n] == '.');
    }
    hf_wr_u8(w, 0);
}

static void put_text(struct hf_wr *w, const char *s)
{
    hf_wr_u8(w, (uint8_t)strlen(s));
    hf_wr_bytes(w, hf_slice_str(s));
}

static void put_record(struct hf_wr *w, const struct record *r)
{
    uint8_t data[256];
    struct hf_wr d;
    hf_wr_init(&d, data, sizeof(data));
    if (r->type == TYPE_A || r->type == TYPE_AAAA) {
        uint8_t raw[16];
        assert_int_equal(inet_pton(r->type == TYPE_A ? AF_INET : AF_INET6, r->value, raw), 1);
        hf_wr_bytes(&d, hf_slice(raw, r->type == TYPE_A ? 4 : 16));
    } else {
        hf_wr_u16(&d, r->a);
        hf_wr_u16(&d, r->b);
        if (r->type == TYPE_SRV) {
            hf_wr_u16(&d, r->port);
        } else {
            put_text(&d, r->flags);
            put_text(&d, r->service);
            put_text(&d, "");
        }
        put_name(&d, r->value);
    }
    put_name(w, r->name);
    hf_wr_u16(w, r->type);
    hf_wr_u16(w, 1);
    hf_wr_u32(w, 300);
    hf_wr_u16(w, (uint16_t)hf_wr_len(&d));
    hf_wr_bytes(w, hf_slice(data, hf_wr_len(&d)));
}

static void answer(const uint8_t *q, size_t n_q, const struct sockaddr_storage *from, socklen_t len)
{
    char name[256] = "";
    uint8_t out[1500];
    size_t at = 12, n_answers = 0;
    struct hf_wr w;
    while (at < n_q && q[at]) {
        snprintf(name + strlen(name), sizeof(name) - strlen(name), "%s%.*s", *name ? "." : "",
                 (int)q[at], (const char *)q + at + 1);
        at += q[at] + 1u;
    }
    uint16_t type = (uint16_t)(q[at + 1] << 8 | q[at + 2]);
    size_t question_n = at + 5;
    for (size_t i = 0; i < HF_ARRAY_LEN(records); i++) {
        n_answers += strcmp(records[i].name, name) == 0 && records[i].type == type;
    }
    hf_wr_init(&w, out, sizeof(out));
    hf_wr_bytes(&w, hf_slice(q, 2));
    hf_wr_u16(&w, n_answers ? 0x8180 : 0x8183); /* NXDOMAIN */
    hf_wr_u16(&w, 1);
    hf_wr_u16(&w, (uint16_t)n_answers);
    hf_wr_u32(&w, 0);
    hf_wr_bytes(&w, hf_slice(q + 12, question_n - 12));
    for (size_t i = 0; i < HF_ARRAY_LEN(records); i++) {
        if (strcmp(records[i].name, name) == 0 && records[i].type == type) {
            put_record(&w, &records[i]);
        }
    }
    assert_int_equal(sendto(rig.fd, out, hf_wr_len(&w), 0, (const struct sockaddr *)from, len),
                     hf_wr_len(&w));
}

static void on_question(void *arg, unsigned events)
{
    uint8_t q[1500];
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    (void)arg;
    (void)events;
    ssize_t n = recvfrom(rig.fd, q, sizeof(q), MSG_DONTWAIT, (struct sockaddr *)&from, &len);
    if (n > 12) {
        rig.asked++;
        if (!rig.silent) {
            answer(q, (size_t)n, &from, len);
        }
    }
}

/* ---- the rig ---- */

static void on_late(void *arg)
{
    (void)arg;
    hf_loop_stop(rig.loop);
}

static void open_resolver(bool tcp, bool tls, int timeout_ms)
{
    struct hf_addr server = {.len = sizeof(server.ss)};
    struct hf_err err = {0};
    assert_int_equal(getsockname(rig.fd, (struct sockaddr *)&server.ss, &server.len), 0);
    struct hf_sip_resolver_conf conf = {.server = &server,
                                        .n_servers = 1,
                                        .timeout_ms = timeout_ms,
                                        .udp = true,
                                        .tcp = tcp,
                                        .tls = tls,
                                        .v4 = true,
                                        .seed = 7};
    assert_int_equal(hf_sip_resolver_create(rig.loop, &conf, &err, &rig.r), 0);
}

static int setup(void **state)
{
    (void)state;
    struct hf_addr at;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(hf_loop_create(&rig.loop), 0);
    rig.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(hf_addr_parse("127.0.0.1:0", 0, NULL, &at), 0);
    assert_int_equal(bind(rig.fd, (const struct sockaddr *)&at.ss, at.len), 0);
    assert_int_equal(hf_io_create(rig.loop, rig.fd, HF_IO_READ, on_question, NULL, &rig.io), 0);
    assert_int_equal(hf_timer_create(rig.loop, on_late, NULL, &rig.late), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hf_sip_resolver_destroy(rig.r);
    hf_timer_destroy(rig.late);
    hf_io_destroy(rig.io);
    close(rig.fd);
    hf_loop_destroy(rig.loop);
    return 0;
}

static void on_resolved(void *arg, uint64_t cookie, const struct hf_sip_flow *to, size_t n)
{
    assert_ptr_equal(arg, &rig);
    rig.cookie = cookie;
    rig.n = n;
    if (n) {
        memcpy(rig.to, to, n * sizeof(to[0]));
    }
    if (++rig.answered == rig.expected && rig.running) {
        hf_loop_stop(rig.loop);
    }
}

static void run(void)
{
    rig.running = true;
    hf_timer_set(rig.late, hf_now() + HF_S(30));
    assert_int_equal(hf_loop_run(rig.loop), 0);
    rig.running = false;
}

static void ask(const char *host, uint16_t port, uint8_t transport, bool sips)
{
    struct hf_sip_lookup t = {
        .host = hf_slice_str(host), .port = port, .transport = transport, .sips = sips};
    rig.n = 99;
    rig.answered = 0;
    rig.expected = 1;
    hf_sip_resolve(rig.r, &t, 42, on_resolved, &rig);
    if (rig.answered == 0) {
        run();
    }
    assert_int_equal(rig.answered, 1);
    assert_int_equal(rig.cookie, 42);
}

static void expect(size_t i, uint8_t transport, const char *at)
{
    char text[HF_ADDR_STR_LEN];
    assert_true(i < rig.n);
    struct hf_addr a = hf_addr_from_endpoint(&rig.to[i].peer);
    assert_string_equal(hf_addr_str(&a, text), at);
    assert_int_equal(rig.to[i].transport, transport);
}

#define OTHER HF_SIP_TRANSPORT_OTHER

/* ---- tests ---- */

static void test_naptr(void **state)
{
    (void)state;
    open_resolver(true, true, 0);
    ask("example.ORG", 0, OTHER, false);
    assert_int_equal(rig.n, 2);
    expect(0, HF_SIP_TRANSPORT_TLS, "192.0.2.2:5071"); /* order 10 */
    expect(1, HF_SIP_TRANSPORT_UDP, "192.0.2.1:5070");
    unsigned asked = rig.asked;
    ask("Example.org", 0, OTHER, false);
    assert_int_equal(rig.asked, asked);
    assert_int_equal(hf_sip_resolver_counters(rig.r)->cached, 1);
    ask("example.org", 0, OTHER, true);
    assert_int_equal(rig.n, 1);
    expect(0, HF_SIP_TRANSPORT_TLS, "192.0.2.2:5071");
}

static void test_naptr_without_tls(void **state)
{
    (void)state;
    open_resolver(true, false, 0);
    ask("example.org", 0, OTHER, false);
    assert_int_equal(rig.n, 1);
    expect(0, HF_SIP_TRANSPORT_UDP, "192.0.2.1:5070");
    ask("example.org", 0, OTHER, true); /* sips, and no TLS here */
    assert_int_equal(rig.n, 0);
}

static void test_srv(void **state)
{
    (void)state;
    unsigned first_c = 0;
    open_resolver(true, true, 0);
    ask("example.org", 0, HF_SIP_TRANSPORT_TCP, false); /* the transport is given */
    assert_int_equal(rig.n, 1);
    expect(0, HF_SIP_TRANSPORT_TCP, "192.0.2.1:5072");
    for (int i = 0; i < 200; i++) { /* no NAPTR; by weight 10 to 90, drawn anew from the cache */
        ask("plain.org", 0, OTHER, false);
        assert_int_equal(rig.n, 3);
        expect(2, HF_SIP_TRANSPORT_UDP, "192.0.2.2:5060");
        first_c += rig.to[0].peer.port == 5062;
    }
    assert_in_range(first_c, 140, 199);
    ask("none.org", 0, HF_SIP_TRANSPORT_UDP, false); /* "." and its own address: nothing */
    assert_int_equal(rig.n, 0);
}

static void test_address(void **state)
{
    (void)state;
    open_resolver(true, false, 0);
    ask("a.example.org", 5090, OTHER, false);
    assert_int_equal(rig.asked, 1); /* a port: no NAPTR, no SRV */
    expect(0, HF_SIP_TRANSPORT_UDP, "192.0.2.1:5090");
    ask("c.example.org", 0, OTHER, false); /* neither NAPTR nor SRV */
    expect(0, HF_SIP_TRANSPORT_UDP, "192.0.2.3:5060");
    ask("192.0.2.9", 0, HF_SIP_TRANSPORT_TCP, false);
    expect(0, HF_SIP_TRANSPORT_TCP, "192.0.2.9:5060");
    ask("2001:db8::9", 5062, OTHER, false);
    expect(0, HF_SIP_TRANSPORT_UDP, "[2001:db8::9]:5062");
    ask("192.0.2.9", 0, HF_SIP_TRANSPORT_TLS, false); /* none here */
    assert_int_equal(rig.n, 0);
    ask("nobody.example.org", 5060, OTHER, false);
    assert_int_equal(rig.n, 0);
    ask("", 0, OTHER, false);
    assert_int_equal(rig.n, 0);
}

static void test_together(void **state)
{
    (void)state;
    open_resolver(true, true, 0);
    struct hf_sip_lookup t = {
        .host = hf_slice_str("a.example.org"), .port = 5060, .transport = OTHER};
    rig.expected = 50;
    for (int i = 0; i < 50; i++) {
        hf_sip_resolve(rig.r, &t, 42, on_resolved, &rig);
    }
    run();
    assert_int_equal(rig.answered, 50);
    assert_int_equal(rig.asked, 1);
}

static void test_silent(void **state)
{
    (void)state;
    rig.silent = true;
    open_resolver(true, true, 20);
    ask("a.example.org", 5060, OTHER, false);
    assert_int_equal(rig.n, 0);
    rig.answered = 0;
    struct hf_sip_lookup t = {.host = hf_slice_str("b.example.org"), .transport = OTHER};
    hf_sip_resolve(rig.r, &t, 1, on_resolved, &rig);
    assert_int_equal(rig.answered, 0);
    hf_sip_resolver_destroy(rig.r); /* who waits is not told */
    rig.r = NULL;
    assert_int_equal(rig.answered, 0);
}

int main(void)
{
#define RIG(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {RIG(test_naptr),    RIG(test_naptr_without_tls),
                                       RIG(test_srv),      RIG(test_address),
                                       RIG(test_together), RIG(test_silent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
