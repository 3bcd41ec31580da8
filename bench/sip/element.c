/* What a SIP server's core costs: CPU microseconds per request, parsing included, sockets not.
 *
 * element [ROUNDS]: REGISTERs of about 400 bytes of 10,000 users in turns; one line per case:
 * median, least. redirect: to another home, without authentication; refresh: of a cached row and a
 * binding; digest: the same with SHA-256 credentials, each nonce used many times; proxied: from an
 * edge, to another home, marked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/sip/digest.h"
#include "core/sip/element.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define USERS 10000
#define BATCH 20000
#define ROUNDS_MAX 1001

static struct hf_sip_element *e;
static struct hf_sip_msg m;
static hf_time now = HF_S(1000);
static uint32_t wall_s = 1800000000;
static size_t n_sent;
static unsigned last_status;
static struct hf_sip_result pending; /* one op at a time */
static bool asked;
static char aor_text[64], nonce[HF_SIP_NONCE_LEN];
static char aors[USERS][48];
static uint8_t secret[USERS][HF_SIP_HASH_MAX];
static uint32_t seq[USERS];
static const uint8_t key[HF_SIP_NONCE_KEY_LEN] = "a key";
static struct hf_sip_flow from;
static bool anew; /* each a new call: nobody is redirected twice */

static void die(const char *what)
{
    fprintf(stderr, "element: %s\n", what);
    exit(1);
}

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice s)
{
    (void)ctx;
    (void)to;
    n_sent++;
    last_status = s.n > 12 && s.p[0] == 'S' ? (unsigned)atoi((const char *)s.p + 8) : 0;
    if (last_status == 401) {
        const char *at = memmem(s.p, s.n, "nonce=\"", 7);
        memcpy(nonce, at + 7, sizeof(nonce));
    }
}

static void on_store(void *ctx, const struct hf_sip_op *op)
{
    (void)ctx;
    if (op->kind != HF_SIP_OP_SECRET && op->kind != HF_SIP_OP_LOAD && !op->wait) {
        return; /* write-behind */
    }
    asked = true;
    memset(&pending, 0, sizeof(pending));
    pending.kind = op->kind;
    pending.cookie = op->cookie;
    pending.done = HF_SIP_OP_DONE;
    int n =
        op->kind == HF_SIP_OP_SECRET
            ? snprintf(aor_text, sizeof(aor_text), "sip:%.*s@example.com", HF_SLICE_FMT(op->user))
            : snprintf(aor_text, sizeof(aor_text), "%.*s", HF_SLICE_FMT(op->aor));
    pending.aor = hf_slice(aor_text, (size_t)n);
    if (op->kind == HF_SIP_OP_SECRET) {
        pending.algorithms = 1u << HF_SIP_SHA256;
        memcpy(pending.secret[HF_SIP_SHA256], secret[atoi((const char *)op->user.p + 4)],
               HF_SIP_HASH_MAX);
    }
}

static void store_answers(void)
{
    while (asked) {
        asked = false;
        hf_sip_element_done(e, &pending, now);
    }
}

static struct hf_endpoint at(uint8_t a, uint8_t d, uint16_t port)
{
    return (struct hf_endpoint){.family = HF_AF_INET, .addr = {a, 0, 0, d}, .port = port};
}

static void open_element(bool authenticate)
{
    static const struct hf_sip_element_ops ops = {.send = on_send, .store = on_store};
    struct hf_sip_listen listen = {.transport = HF_SIP_TRANSPORT_UDP,
                                   .at = at(10, 1, 5060),
                                   .host = S("10.0.0.1"),
                                   .policy = HF_SIP_POLICY_REDIRECT};
    struct hf_slice domain = S("example.com");
    struct hf_sip_net edge = {.at = at(172, 0, 0), .bits = 8};
    struct hf_sip_element_conf c = {.role = HF_SIP_ROLE_HOME,
                                    .name = S("alpha"),
                                    .realm = S("example.com"),
                                    .domain = &domain,
                                    .n_domains = 1,
                                    .listen = &listen,
                                    .n_listen = 1,
                                    .edge = &edge,
                                    .n_edges = 1,
                                    .must_authenticate = authenticate,
                                    .key = key,
                                    .source_rate = 4000000};
    static const char *const names[] = {"alpha", "beta", "gamma"};
    if (hf_sip_element_create(&c, &ops, NULL, now, wall_s, &e)) {
        die("create");
    }
    for (uint8_t i = 0; i < 3; i++) {
        char host[16];
        uint16_t no;
        snprintf(host, sizeof(host), "10.0.0.%u", i + 1u);
        struct hf_sip_peer p = {.name = hf_slice_str(names[i]),
                                .host = hf_slice_str(host),
                                .now = {.state = HF_SIP_SERVER_LIVE, .homes = true, .weight = 10},
                                .at = {at(10, (uint8_t)(i + 1), 5060)}};
        if (hf_sip_element_peer(e, &p, &no)) {
            die("peer");
        }
    }
    from = (struct hf_sip_flow){
        .transport = HF_SIP_TRANSPORT_UDP, .local = listen.at, .peer = at(192, 7, 5060)};
}

static void rows(uint16_t home)
{
    for (int i = 0; i < USERS; i++) {
        snprintf(aors[i], sizeof(aors[i]), "sip:user%05d@example.com", i);
        struct hf_sip_row other = {
            .aor = hf_slice_str(aors[i]), .home = home, .current = home, .epoch = 7};
        /* as an ASSERT's answer, which caches it whoever's it is */
        struct hf_sip_result r = {
            .kind = HF_SIP_OP_ASSERT, .have_row = true, .row = other, .cookie = 1};
        hf_sip_element_done(e, &r, now);
        store_answers();
    }
    hf_sip_element_feed(e, &(struct hf_sip_feed){.there = true, .change = 1}, now);
}

static void message(int i, const char *text, size_t n)
{
    (void)i;
    if (hf_sip_parse(hf_slice(text, n), false, &m)) {
        die("malformed");
    }
    hf_sip_element_message(e, &m, &from, now, wall_s);
}

static size_t make(int i, const char *more, const char *uri, char *text, size_t room)
{
    return (size_t)snprintf(
        text, room,
        "REGISTER %s SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 192.0.0.7:5060;branch=z9hG4bK%08x%u;rport\r\n"
        "%s"
        "Max-Forwards: 70\r\n"
        "From: \"User %d\" <sip:user%05d@example.com>;tag=%08x\r\n"
        "To: <sip:user%05d@example.com>\r\n"
        "Call-ID: %08x-%08x@192.0.2.%d\r\n"
        "CSeq: %u REGISTER\r\n"
        "Contact: <sip:user%05d@192.0.2.%d:5060;transport=udp>;q=0.7;expires=3600\r\n"
        "Supported: path, outbound\r\n"
        "User-Agent: bench/1\r\n%s"
        "Content-Length: 0\r\n\r\n",
        uri, (unsigned)i * 2654435761u, seq[i],
        from.peer.addr[0] == 172 ? "Via: SIP/2.0/UDP 9.9.9.9;branch=z9hG4bKc\r\n" : "", i, i,
        (unsigned)i * 40503u, i, (unsigned)i * 69069u + (anew ? seq[i] << 20 : 0),
        (unsigned)i * 1664525u, i % 250, seq[i], i, i % 250, more);
}

static char texts[USERS][1024];
static size_t lens[USERS];

static void prepare(int i, bool auth)
{
    char line[600] = "";
    seq[i]++;
    if (auth) {
        char hex[2 * HF_SIP_HASH_MAX], user[16];
        snprintf(user, sizeof(user), "user%05d", i);
        struct hf_sip_credentials c = {.username = hf_slice_str(user),
                                       .realm = S("example.com"),
                                       .nonce = hf_slice(nonce, sizeof(nonce)),
                                       .uri = S("sip:example.com"),
                                       .cnonce = S("0a4f113b7c"),
                                       .algorithm = HF_SIP_SHA256,
                                       .nc = seq[i]};
        hf_sip_nonce_make(key, S("example.com"), wall_s, (uint64_t)i, nonce);
        if (hf_sip_secret(c.algorithm, c.username, c.realm, S("secret"), secret[i]) ||
            hf_sip_digest_response(&c, S("REGISTER"), secret[i], hex)) {
            die("no SHA-256");
        }
        snprintf(line, sizeof(line),
                 "Authorization: Digest username=\"%s\", realm=\"example.com\", "
                 "nonce=\"%.56s\", uri=\"sip:example.com\", response=\"%.64s\", "
                 "algorithm=SHA-256, cnonce=\"0a4f113b7c\", qop=auth, nc=%08x\r\n",
                 user, nonce, hex, seq[i]);
    }
    lens[i] = make(i, line, "sip:example.com", texts[i], sizeof(texts[i]));
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *name, bool auth, unsigned status, int rounds)
{
    static double us[ROUNDS_MAX];
    for (int r = 0; r < rounds; r++) {
        uint64_t spent = 0;
        for (int i = 0; i < USERS; i += 1000) {
            for (int k = i; k < i + 1000; k++) {
                prepare(k, auth);
            }
            now += HF_S(1) / 100;
            uint64_t begin = cpu_ns();
            size_t before = n_sent;
            for (int k = i; k < i + 1000; k++) {
                message(k, texts[k], lens[k]);
                if (asked) { /* the first time */
                    store_answers();
                }
            }
            spent += cpu_ns() - begin;
            if (n_sent != before + 1000 || last_status != status) {
                fprintf(stderr, "%zu sent, %u\n", n_sent - before, last_status);
                die(name);
            }
        }
        us[r] = (double)spent / 1000.0 / USERS;
    }
    /* the first round has the store in it */
    qsort(us + 1, (size_t)rounds - 1, sizeof(us[0]), by_value);
    printf("%-10s %6.2f us  least %6.2f us\n", name, us[1 + (rounds - 1) / 2], us[1]);
    hf_sip_element_destroy(e);
    memset(seq, 0, sizeof(seq));
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 21;
    if (rounds < 3 || rounds > ROUNDS_MAX) {
        die("usage: element [ROUNDS], at least 3");
    }
    open_element(false);
    rows(1);
    anew = true;
    measure("redirect", false, 302, rounds);
    anew = false;
    open_element(false);
    rows(0);
    measure("refresh", false, 200, rounds);
    open_element(true);
    rows(0);
    measure("digest", true, 200, rounds);
    open_element(false);
    rows(1);
    from.peer = at(172, 7, 5060);
    measure("proxied", false, 0, rounds);
    return 0;
}
