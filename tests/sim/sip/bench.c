/* What the cores of homes cost: CPU of one look-up, decision, choice; memory of millions of rows.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "sim/sip/world.h"

#define ROUNDS 2000000u

static struct hf_slice aor(uint32_t i)
{
    static char s[64];
    int n = snprintf(s, sizeof(s), "sip:+4930%08" PRIu32 "@voice.example.org",
                     i * 2654435761u % 100000000);
    return hf_slice(s, (size_t)n);
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double text_ns; /* of making an AoR's text, to be taken off */

static void say(const char *what, double began, uint32_t n)
{
    printf("%-44s %8.0f ns\n", what, (cpu_ns() - began) / n - text_ns);
}

static struct hf_sip_fleet *make_fleet(uint32_t n)
{
    struct hf_sip_fleet *f;
    if (hf_sip_fleet_create(&f) < 0) {
        exit(2);
    }
    for (uint32_t i = 0; i < n; i++) {
        char name[16];
        uint16_t no;
        snprintf(name, sizeof(name), "s%" PRIu32, i);
        if (hf_sip_fleet_add(f, hf_slice_str(name), &no) < 0) {
            exit(2);
        }
        hf_sip_fleet_set(
            f, no,
            &(struct hf_sip_server){.state = HF_SIP_SERVER_LIVE, .homes = true, .weight = 4});
    }
    return f;
}

static uint64_t decisions(const struct hf_sip_fleet *fleet, const struct hf_sip_assign *a,
                          uint32_t n, bool internal, const char *what)
{
    uint64_t sum = 0;
    double began = cpu_ns();
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct hf_sip_facts f = {
            .role = HF_SIP_ROLE_HOME,
            .fleet = fleet,
            .aor = aor(i % n),
            .n_via = internal ? 1 : 2,
            .max_forwards = 70,
            .authenticated = true,
            .policy = HF_SIP_POLICY_REDIRECT,
        };
        struct hf_sip_verdict v;
        f.have_row = hf_sip_assign_get(a, f.aor, &f.row);
        hf_sip_decide(&f, &v);
        sum += v.rule;
    }
    say(what, began, ROUNDS);
    return sum;
}

int swx_bench(const struct swx_options *o)
{
    uint64_t sum = 0, aors = 0;
    double began = cpu_ns();
    for (uint32_t i = 0; i < ROUNDS; i++) {
        sum += aor(i).n;
    }
    text_ns = (cpu_ns() - began) / ROUNDS;
    struct hf_sip_fleet *fleet = make_fleet(o->servers);
    struct hf_sip_assign *a;
    if (hf_sip_assign_create(
            &(struct hf_sip_assign_conf){.self = 0, .seed = o->seed, .bytes_max = (size_t)8 << 30},
            0, &a) < 0) {
        return 2;
    }
    printf("%u servers, %u rows; CPU time\n", o->servers, o->clients);
    began = cpu_ns();
    for (uint32_t i = 0; i < o->clients; i++) {
        uint16_t home = (uint16_t)(i % o->servers);
        struct hf_sip_row row = {.aor = aor(i), .home = home, .current = home, .epoch = 1};
        aors += row.aor.n;
        sum += hf_sip_assign_read(a, &row);
    }
    say("a row is cached", began, o->clients);
    struct hf_sip_assign_info info;
    hf_sip_assign_info(a, &info);
    printf("%-44s %8.1f bytes, of which its AoR %.1f\n", "a row",
           (double)info.bytes / (double)info.n_rows, (double)aors / o->clients);
    began = cpu_ns();
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct hf_sip_row row;
        sum += hf_sip_assign_get(a, aor(i % o->clients), &row);
    }
    say("a row is looked up", began, ROUNDS);
    sum += decisions(fleet, a, o->clients, true, "looked up and decided, mostly to redirect");
    sum += decisions(fleet, a, o->clients, false, "looked up and decided, mostly to proxy");
    began = cpu_ns();
    for (uint32_t i = 0; i < ROUNDS / 100; i++) {
        sum += hf_sip_fleet_choose(fleet, aor(i));
    }
    say("a server is chosen for a new client", began, ROUNDS / 100);
    hf_sip_assign_destroy(a);
    hf_sip_fleet_destroy(fleet);
    return sum == 0; /* so that nothing is optimised away */
}
