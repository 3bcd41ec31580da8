/* What the registrar's bindings cost: bytes and CPU nanoseconds of each, with N of them (default
 * 1,000,000).
 *
 * bindings [N]: registers N users of one phone each, refreshes all, fetches all, lets all end.
 * Bytes are those of the process (VmRSS), so what the allocator adds is in them, and the
 * registrar's own count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/sip/registrar.h"

static struct hf_sip_msg m;
static struct hf_sip_registered got;
static hf_time now = HF_S(1000);

static void die(const char *what)
{
    fprintf(stderr, "bindings: %s\n", what);
    exit(1);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static size_t rss_bytes(void)
{
    char line[128];
    size_t kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "VmRSS:", 6) == 0) {
            kb = strtoul(line + 6, NULL, 10);
        }
    }
    if (f) {
        fclose(f);
    }
    return kb * 1024;
}

/* One REGISTER, parsed, applied; through `seq` all do the same. */
static void reg(struct hf_sip_registrar *r, unsigned i, unsigned seq, bool contact)
{
    static char text[1024];
    char aor_text[HF_SIP_AOR_MAX], line[256] = "";
    struct hf_wr w;
    struct hf_slice aor;
    if (contact) {
        snprintf(line, sizeof(line),
                 "Contact: <sip:user%07u@10.%u.%u.%u:5060;transport=udp>;q=0.7;expires=3600\r\n", i,
                 i >> 16 & 255, i >> 8 & 255, i & 255);
    }
    int n = snprintf(text, sizeof(text),
                     "REGISTER sip:example.com SIP/2.0\r\n"
                     "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%08x;rport\r\n"
                     "Max-Forwards: 70\r\nFrom: <sip:user%07u@example.com>;tag=%08x\r\n"
                     "To: <sip:user%07u@example.com>\r\nCall-ID: %08x-%08x@192.0.2.1\r\n"
                     "CSeq: %u REGISTER\r\n%sContent-Length: 0\r\n\r\n",
                     i * 2654435761u, i, i * 40503u, i, i * 69069u, i * 1664525u, seq, line);
    hf_wr_init(&w, aor_text, sizeof(aor_text));
    if (hf_sip_parse(hf_slice(text, (size_t)n), false, &m) || hf_sip_aor(&m.to.uri, &w) ||
        hf_wr_end(&w, &aor)) {
        die("malformed");
    }
    hf_sip_registrar_register(r, &m, aor, 0, now, &got);
    if (got.status != 200) {
        die("refused");
    }
}

static void all(struct hf_sip_registrar *r, const char *what, unsigned n, unsigned seq,
                bool contact)
{
    uint64_t begin = cpu_ns();
    for (unsigned i = 0; i < n; i++) {
        reg(r, i, seq, contact);
    }
    printf("%-10s %6.0f ns each, with making and parsing the request\n", what,
           (double)(cpu_ns() - begin) / n);
}

int main(int argc, char **argv)
{
    unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000000;
    struct hf_sip_registrar_limits limits = {.bindings_max = n,
                                             .expires_default_s = 3600,
                                             .expires_min_s = 60,
                                             .expires_max_s = 7200,
                                             .seed = 1};
    struct hf_sip_registrar *r;
    if (n == 0 || hf_sip_registrar_create(&limits, now, &r)) {
        die("usage: bindings [N]");
    }
    size_t before = rss_bytes();
    all(r, "register", n, 1, true);
    printf("%-10s %6.0f bytes each (own count %.0f)\n", "memory",
           (double)(rss_bytes() - before) / n, (double)hf_sip_registrar_bytes(r) / n);
    now += HF_S(600);
    all(r, "refresh", n, 2, true);
    all(r, "fetch", n, 3, false);
    uint64_t begin = cpu_ns();
    struct hf_sip_change ended[HF_SIP_EXPIRED_AT_ONCE_MAX];
    size_t k;
    now += HF_S(3600);
    while (hf_sip_registrar_tick(r, now, ended, &k)) {
    }
    printf("%-10s %6.0f ns each\n", "end", (double)(cpu_ns() - begin) / n);
    if (hf_sip_registrar_bindings(r)) {
        die("some did not end");
    }
    hf_sip_registrar_destroy(r);
    return 0;
}
