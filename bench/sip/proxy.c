/* What forking costs: bytes that each kind of transaction keeps, and CPU nanoseconds of a MESSAGE
 * and of a call to one target each, with N of them under way (default 100,000).
 *
 * proxy [N]: N calls ring, are taken, and are over; N MESSAGEs likewise. Over UDP. Bytes are the
 * core's own count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/sip/proxy.h"

static struct hf_sip_proxy *p;
static struct hf_sip_msg m;
static hf_time now;
static char (*branch)[HF_SIP_OWN_BRANCH_LEN]; /* of the i-th target's request */
static unsigned at;
static uint64_t sent;

static void die(const char *what)
{
    fprintf(stderr, "proxy: %s\n", what);
    exit(1);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    (void)ctx;
    sent++;
    if (to->peer.port == 5070) { /* a request's first Via is ours */
        const uint8_t *b = memmem(message.p, message.n, HF_SIP_COOKIE, 7);
        memcpy(branch[at], b, HF_SIP_OWN_BRANCH_LEN);
    }
}

static void on_failed(void *ctx, struct hf_slice aor, uint64_t cookie, uint16_t status)
{
    (void)ctx;
    (void)aor;
    (void)cookie;
    (void)status;
    die("a branch failed");
}

static void begin(const char *method, unsigned i)
{
    static const char body[400];
    char text[2048];
    const struct hf_sip_flow from = {.peer = {.family = HF_AF_INET, .port = 5060}};
    const struct hf_sip_forward how = {.sent_by = hf_slice_str("192.0.2.9:5060")};
    const struct hf_sip_target target = {
        .uri = hf_slice_str("sip:user0000001@10.0.0.1:5070;transport=udp"),
        .to = {.peer = {.family = HF_AF_INET, .port = 5070}}};
    int n = snprintf(text, sizeof(text),
                     "%s sip:user0000001@example.com SIP/2.0\r\n"
                     "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%08x;rport\r\n"
                     "Max-Forwards: 70\r\nFrom: <sip:caller@example.com>;tag=%08x\r\n"
                     "To: <sip:user0000001@example.com>\r\nCall-ID: %08x-%s@192.0.2.1\r\n"
                     "CSeq: 1 %s\r\nContact: <sip:caller@192.0.2.1:5060>\r\n"
                     "User-Agent: bench\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
                     method, i, i, i, method, method, sizeof(body));
    memset(text + n, 'x', sizeof(body));
    at = i;
    if (hf_sip_parse(hf_slice(text, (size_t)n + sizeof(body)), false, &m) ||
        hf_sip_proxy_fork(p, &m, &from, &how, &target, 1, now)) {
        die("refused");
    }
}

static void answer(const char *method, unsigned i, unsigned status)
{
    char text[2048];
    const struct hf_sip_flow from = {.peer = {.family = HF_AF_INET, .port = 5070}};
    int n = snprintf(text, sizeof(text),
                     "SIP/2.0 %u OK\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=%.*s\r\n"
                     "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%08x;rport=5060\r\n"
                     "From: <sip:caller@example.com>;tag=%08x\r\n"
                     "To: <sip:user0000001@example.com>;tag=12345678\r\n"
                     "Call-ID: %08x-%s@192.0.2.1\r\nCSeq: 1 %s\r\n"
                     "Contact: <sip:user0000001@10.0.0.1:5070>\r\nContent-Length: 0\r\n\r\n",
                     status, HF_SIP_OWN_BRANCH_LEN, branch[i], i, i, i, method, method);
    if (hf_sip_parse(hf_slice(text, (size_t)n), false, &m) ||
        !hf_sip_proxy_response(p, &m, &from, now)) {
        die("not taken");
    }
}

static void told(const char *what, unsigned n, uint64_t since)
{
    printf("%-28s %6.0f ns %7.0f bytes\n", what, (double)(cpu_ns() - since) / n,
           (double)hf_sip_proxy_bytes(p) / n);
}

static void run(const char *method, unsigned n)
{
    char what[64];
    uint64_t t = cpu_ns();
    for (unsigned i = 0; i < n; i++) {
        begin(method, i);
    }
    snprintf(what, sizeof(what), "%s begun", method);
    told(what, n, t);
    if (method[0] == 'I') {
        t = cpu_ns();
        for (unsigned i = 0; i < n; i++) {
            answer(method, i, 180);
        }
        told("... rings", n, t);
    }
    t = cpu_ns();
    for (unsigned i = 0; i < n; i++) {
        answer(method, i, 200);
    }
    told("... answered with 200", n, t);
    now += HF_S(6);
    hf_sip_proxy_tick(p, now);
    told("... 6 s later", n, cpu_ns());
    t = cpu_ns();
    now += HF_S(400);
    hf_sip_proxy_tick(p, now);
    told("... ended", n, t);
}

int main(int argc, char **argv)
{
    unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 100000;
    const struct hf_sip_proxy_ops ops = {.send = on_send, .failed = on_failed};
    const struct hf_sip_proxy_conf conf = {
        .seed = 1, .transactions_max = 2 * (size_t)n, .bytes_max = (size_t)n * 20000};
    branch = calloc(n ? n : 1, sizeof(*branch));
    if (n == 0 || !branch || hf_sip_proxy_create(&conf, &ops, NULL, &p)) {
        die("no memory");
    }
    run("INVITE", n);
    run("MESSAGE", n);
    hf_sip_proxy_destroy(p);
    free(branch);
    return 0;
}
