/* What the message layer costs: CPU nanoseconds per message, median of rounds.
 *
 * parse [ROUNDS]: a REGISTER of about 400 bytes as a registrar needs it, and the steps around it.
 * One line per case: name, median, least, bytes of the message. `floor` is a pass over the bytes
 * that only looks for line ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/sip/digest.h"
#include "core/sip/fields.h"
#include "core/sip/write.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define MESSAGES 64 /* of different users, in turns */
#define BATCH 20000 /* messages of one round */
#define ROUNDS_MAX 1001

static char text[MESSAGES][1024];
static struct hf_slice message[MESSAGES];
static struct hf_sip_msg m;
static volatile uint64_t sink; /* so that nothing is left out */
static uint8_t secret[MESSAGES][HF_SIP_HASH_MAX];
static const uint8_t key[HF_SIP_NONCE_KEY_LEN] = "a key";
static char aor[HF_SIP_AOR_MAX];
static char out[2048];

static void die(const char *what)
{
    fprintf(stderr, "parse: %s\n", what);
    exit(1);
}

/* A REGISTER as phones send them; `auth`: with credentials. */
static void make(bool auth)
{
    for (int i = 0; i < MESSAGES; i++) {
        char line[600] = "";
        if (auth) {
            char nonce[HF_SIP_NONCE_LEN], hex[2 * HF_SIP_HASH_MAX], user[16];
            snprintf(user, sizeof(user), "user%05d", i * 997);
            hf_sip_nonce_make(key, S("example.com"), 1000, (uint64_t)i, nonce);
            struct hf_sip_credentials c = {.username = hf_slice_str(user),
                                           .realm = S("example.com"),
                                           .nonce = hf_slice(nonce, sizeof(nonce)),
                                           .uri = S("sip:example.com"),
                                           .cnonce = S("0a4f113b7c"),
                                           .algorithm = HF_SIP_SHA256,
                                           .nc = 1};
            if (hf_sip_secret(c.algorithm, c.username, c.realm, S("secret"), secret[i]) ||
                hf_sip_digest_response(&c, S("REGISTER"), secret[i], hex)) {
                die("no SHA-256");
            }
            snprintf(line, sizeof(line),
                     "Authorization: Digest username=\"%s\", realm=\"example.com\", "
                     "nonce=\"%.56s\", uri=\"sip:example.com\", response=\"%.64s\", "
                     "algorithm=SHA-256, cnonce=\"0a4f113b7c\", qop=auth, nc=00000001\r\n",
                     user, nonce, hex);
        }
        int n =
            snprintf(text[i], sizeof(text[i]),
                     "REGISTER sip:example.com SIP/2.0\r\n"
                     "Via: SIP/2.0/UDP 192.0.2.%d:5060;branch=z9hG4bK%08x;rport\r\n"
                     "Max-Forwards: 70\r\n"
                     "From: \"User %d\" <sip:user%05d@example.com>;tag=%08x\r\n"
                     "To: <sip:user%05d@example.com>\r\n"
                     "Call-ID: %08x-%08x@192.0.2.%d\r\n"
                     "CSeq: %d REGISTER\r\n"
                     "Contact: <sip:user%05d@192.0.2.%d:5060;transport=udp>;q=0.7;expires=3600\r\n"
                     "Supported: path, outbound\r\n"
                     "User-Agent: bench/1\r\n%s"
                     "Content-Length: 0\r\n\r\n",
                     i, (unsigned)i * 2654435761u, i, i * 997, (unsigned)i * 40503u, i * 997,
                     (unsigned)i * 69069u, (unsigned)i * 1664525u, i, i + 1, i * 997, i, line);
        message[i] = hf_slice(text[i], (size_t)n);
    }
}

/* --- the cases; i: which message --- */

static void run_floor(int i)
{
    const uint8_t *p = message[i].p, *end = p + message[i].n;
    uint64_t lines = 0;
    for (; p < end; p++) {
        lines += *p == '\n';
    }
    sink += lines;
}

static void run_parse(int i)
{
    if (hf_sip_parse(message[i], false, &m)) {
        die("malformed");
    }
    sink += m.n_vias;
}

/* All that a registrar needs of it: user, contacts with q and expiry, route, option tags. */
static void run_registrar(int i)
{
    struct hf_wr w;
    struct hf_sip_walk walk;
    struct hf_sip_address contact;
    struct hf_sip_param p;
    uint32_t expires_s;
    uint16_t q;
    run_parse(i);
    hf_wr_init(&w, aor, sizeof(aor));
    if (hf_sip_aor(&m.to.uri, &w)) {
        die("no AoR");
    }
    hf_sip_walk_begin(&walk, &m, HF_SIP_H_CONTACT);
    while (hf_sip_walk_address(&walk, &contact) == 1) {
        if (hf_sip_address_q(&contact, &q) ||
            hf_sip_contact_expires(&m, &contact, 3600, &expires_s)) {
            die("contact");
        }
        sink += q + expires_s + hf_sip_address_param(&contact, "+sip.instance", &p);
    }
    sink += hf_sip_has(&m, HF_SIP_H_PATH) + hf_sip_has(&m, HF_SIP_H_REQUIRE) +
            hf_sip_lists(&m, HF_SIP_H_SUPPORTED, "path") + hf_sip_address_tag(&m.from).n;
}

static void run_scrutinise(int i)
{
    run_parse(i);
    sink += hf_sip_scrutinise(&m);
}

static const struct hf_endpoint source = {
    .family = HF_AF_INET, .addr = {192, 0, 2, 200}, .port = 40000};

static void run_redirect(int i)
{
    struct hf_wr w;
    struct hf_slice s;
    char tag[16];
    run_parse(i);
    hf_sip_stateless_tag(&m, 7, tag);
    hf_wr_init(&w, out, sizeof(out));
    if (hf_sip_begin_response(&w, &m, 302, S(""), hf_slice(tag, 16), &source)) {
        die("answer");
    }
    hf_sip_put_field(&w, HF_SIP_H_CONTACT, S("<sip:h2.example.com:5060;transport=udp;ep=7>"));
    if (hf_sip_end(&w, S(""), S(""), &s)) {
        die("answer");
    }
    sink += s.n;
}

static void run_forward(int i)
{
    struct hf_wr w;
    struct hf_slice s;
    char branch[HF_SIP_BRANCH_LEN];
    run_parse(i);
    hf_sip_stateless_branch(&m, S("7"), 7, branch);
    struct hf_sip_forward how = {.sent_by = S("lds.example.com:5060"),
                                 .branch = hf_slice(branch, sizeof(branch)),
                                 .source = &source,
                                 .path = S("<sip:lds.example.com;lr>")};
    hf_wr_init(&w, out, sizeof(out));
    if (hf_sip_begin_forward(&w, &m, &how) || hf_sip_end(&w, S(""), m.body, &s)) {
        die("forward");
    }
    sink += s.n;
}

static void run_digest(int i)
{
    struct hf_sip_credentials c;
    run_registrar(i);
    if (hf_sip_credentials_find(&m, HF_SIP_H_AUTHORIZATION, S("example.com"), &c) != 1 ||
        hf_sip_nonce_check(key, c.realm, c.nonce, 1000, 60) ||
        hf_sip_digest_check(&c, m.method_text, secret[i])) {
        die("digest");
    }
}

/* --- measuring --- */

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

static void measure(const char *name, void (*run)(int), int rounds)
{
    static double ns[ROUNDS_MAX];
    size_t bytes = 0;
    for (int i = 0; i < MESSAGES; i++) {
        bytes += message[i].n;
    }
    for (int r = 0; r < rounds; r++) {
        uint64_t begin = cpu_ns();
        for (int i = 0; i < BATCH; i++) {
            run(i % MESSAGES);
        }
        ns[r] = (double)(cpu_ns() - begin) / BATCH;
    }
    qsort(ns, (size_t)rounds, sizeof(ns[0]), by_value);
    printf("%-12s %8.0f ns  least %8.0f ns  %4zu bytes\n", name, ns[rounds / 2], ns[0],
           bytes / MESSAGES);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 21;
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        die("usage: parse [ROUNDS]");
    }
    make(false);
    measure("floor", run_floor, rounds);
    measure("parse", run_parse, rounds);
    measure("registrar", run_registrar, rounds);
    measure("scrutinise", run_scrutinise, rounds);
    measure("redirect", run_redirect, rounds);
    measure("forward", run_forward, rounds);
    make(true);
    measure("parse+auth", run_parse, rounds);
    measure("digest", run_digest, rounds);
    return 0;
}
