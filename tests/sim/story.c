/* Documented scenarios as short readable stories, compared with their golden traces. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "sim/sim.h"
#include "sim/world.h"

#define SEED 7

enum { ALPHA, BETA, GAMMA };

struct story {
    struct sim_world w;
    FILE *out;
    hf_time began;
    struct hf_dir_counters *old; /* by host */
    struct sim_packet *last;     /* what alpha sent last */
};

/* ---- telling ---- */

static void line(struct story *s, const char *fmt, ...) HF_PRINTF(2, 3);
static void line(struct story *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(s->out, "[%6" PRId64 "] ", (int64_t)((s->w.net.now - s->began) / HF_NS_PER_MS));
    vfprintf(s->out, fmt, ap);
    fputc('\n', s->out);
    va_end(ap);
}

/* A host, for the reader: the twin has the same name. */
static const char *label(const struct sim_host *h)
{
    return h->index == GAMMA && strcmp(h->name, "alpha") == 0 ? "alpha's twin" : h->name;
}

#define OWNER(h, id) HF_SLICE_FMT(hf_dir_store_name((h)->store, (id)))

/* Counters that mean something went another way than usual. */
static void tell_counters(struct story *s, struct sim_host *h)
{
    const struct hf_dir_counters *now = hf_dir_counters(h->dir);
    struct hf_dir_counters *old = &s->old[h->index];
    static const char unusual[] = " gaps adverts_held leases_expired conflicts ";
#define ROW(id, text)                                                                              \
    if (now->id > old->id && (strncmp(#id, "refused", 7) == 0 || strstr(unusual, " " #id " "))) {  \
        line(s, "%s ! " #id ": %s", label(h), text);                                               \
    }
    HF_DIR_COUNTER_LIST(ROW)
#undef ROW
    *old = *now;
}

static void tell_act(struct story *s, struct sim_host *h, const struct hf_dir_act *a)
{
    switch (a->kind) {
    case HF_DIR_ACT_STATE:
        line(s, "%s > %s", label(h), hf_dir_state_name(a->state));
        break;
    case HF_DIR_ACT_MEMBER:
        line(s, "%s > %.*s is %s%s", label(h), OWNER(h, a->owner),
             a->up ? "alive" : "gone: ", a->up ? "" : a->reason);
        break;
    case HF_DIR_ACT_PART:
        if (a->owner != hf_dir_self(h->dir) && a->after) {
            line(s, "%s > %.*s: %u services, version %" PRIu64 " of life %" PRIu64, label(h),
                 OWNER(h, a->owner), a->after->n_entries, a->after->key.version,
                 a->after->key.incarnation);
        }
        break;
    case HF_DIR_ACT_PROBE:
        line(s, "%s > are you there, %.*s?", label(h), OWNER(h, a->owner));
        break;
    case HF_DIR_ACT_PERSIST:
        line(s, "%s > life %" PRIu64 " goes to disk", label(h), a->incarnation);
        break;
    case HF_DIR_ACT_PULL_STATE:
        line(s, "%s > who is there, %.*s?", label(h), OWNER(h, a->owner));
        break;
    case HF_DIR_ACT_PULL:
        if (a->since) {
            line(s, "%s > pull from %.*s since %" PRIu64, label(h), OWNER(h, a->owner), a->since);
        } else {
            line(s, "%s > pull all from %.*s", label(h), OWNER(h, a->owner));
        }
        break;
    case HF_DIR_ACT_MULTICAST:
    case HF_DIR_ACT_ANSWER:
    case HF_DIR_ACT_RESULT:
        break;
    }
}

static void after(void *arg, struct sim_host *h, const struct hf_dir_in *in,
                  const struct sim_packet *packet)
{
    struct story *s = arg;
    (void)packet;
    if (in->kind == HF_DIR_IN_PULL_FAILED) {
        line(s, "%s < pull from %.*s failed: %s", label(h), OWNER(h, in->owner),
             hf_strerror(in->rc));
    } else if (in->kind == HF_DIR_IN_PULLED) {
        line(s, "%s < %.*s: %s, %u changes", label(h), HF_SLICE_FMT(in->pull->head.owner),
             in->pull->full ? "all" : "delta", in->pull->changes.n);
    } else if (in->kind == HF_DIR_IN_STATE_MEMBER) {
        line(s, "%s < there is %.*s%s", label(h), HF_SLICE_FMT(in->member->head.owner),
             in->member->has_part ? ", with its services" : "");
    } else if (in->kind == HF_DIR_IN_STATE_END && in->rc) {
        line(s, "%s < no state: %s", label(h), hf_strerror(in->rc));
    }
    for (uint32_t i = 0; i < h->out->n; i++) {
        tell_act(s, h, &h->out->act[i]);
    }
    tell_counters(s, h);
}

static void sent(void *arg, struct sim_host *h, struct sim_packet *p)
{
    struct story *s = arg;
    if (h->index == ALPHA) {
        sim_packet_unref(s->last);
        s->last = sim_packet_ref(p);
    }
}

/* ---- doing ---- */

#define TELL(s, ...) line(s, "-- " __VA_ARGS__)

static void run_ms(struct story *s, int64_t ms)
{
    sim_run(&s->w, s->w.net.now + HF_MS(ms));
}

static void boot(struct story *s, uint32_t host)
{
    TELL(s, "%s boots", label(&s->w.host[host]));
    memset(&s->old[host], 0, sizeof(s->old[host]));
    sim_boot(&s->w, host);
}

static void publish(struct story *s, uint32_t host, const char *name)
{
    int rc = sim_publish(&s->w, host, name, "{\"port\":5432}", 1, 0);
    TELL(s, "%s publishes %s: %s", label(&s->w.host[host]), name, rc ? hf_strerror(rc) : "done");
}

/* The first n hosts run and know each other; the trace begins afterwards. */
static void given(struct story *s, uint32_t n)
{
    FILE *out = s->out;
    s->out = fopen("/dev/null", "w");
    for (uint32_t i = 0; i < n; i++) {
        boot(s, i);
        publish(s, i, "/first");
    }
    run_ms(s, 6000);
    fclose(s->out);
    s->out = out;
    s->began = s->w.net.now;
}

static void cut(struct story *s, uint32_t from, uint32_t to, bool on)
{
    TELL(s, "the way from %s to %s is %s", s->w.host[from].name, s->w.host[to].name,
         on ? "cut" : "open again");
    s->w.net.cut[from * s->w.n + to] = on;
}

/* ---- the stories ---- */

static void newcomer_pulls(struct story *s)
{
    given(s, 2);
    boot(s, GAMMA);
    run_ms(s, 4000);
}

static void newcomer_dump(struct story *s)
{
    given(s, 2);
    s->w.host[GAMMA].dump = true;
    boot(s, GAMMA);
    run_ms(s, 4000);
}

static void lost_advert(struct story *s)
{
    given(s, 2);
    cut(s, ALPHA, BETA, true);
    publish(s, ALPHA, "/second");
    run_ms(s, 10);
    cut(s, ALPHA, BETA, false);
    run_ms(s, 2000);
}

static void gap_delta(struct story *s)
{
    given(s, 2);
    cut(s, ALPHA, BETA, true);
    TELL(s, "alpha publishes 60 services: more than a heartbeat can repeat");
    for (int i = 0; i < 60; i++) {
        char name[40];
        snprintf(name, sizeof(name), "/a-service-of-some-length/%d", i);
        (void)sim_publish(&s->w, ALPHA, name, "{\"port\":5432}", 1, 0);
    }
    run_ms(s, 10);
    cut(s, ALPHA, BETA, false);
    run_ms(s, 2000);
}

static void history_too_short(struct story *s)
{
    given(s, 2);
    cut(s, ALPHA, BETA, true);
    TELL(s, "alpha publishes and withdraws %d services: more than it remembers",
         HF_HISTORY_MAX + 10);
    for (int i = 0; i < HF_HISTORY_MAX + 10; i++) {
        char name[16];
        snprintf(name, sizeof(name), "/s%d", i);
        (void)sim_publish(&s->w, ALPHA, name, "{}", 1, 0);
        (void)sim_withdraw(&s->w, ALPHA, name, 1);
    }
    run_ms(s, 10);
    cut(s, ALPHA, BETA, false);
    run_ms(s, 2000);
}

static void restart(struct story *s)
{
    given(s, 2);
    TELL(s, "alpha loses power");
    sim_crash(&s->w, ALPHA, false);
    run_ms(s, 100);
    boot(s, ALPHA);
    publish(s, ALPHA, "/again");
    run_ms(s, 4000);
}

static void silence(struct story *s)
{
    given(s, 2);
    TELL(s, "alpha loses power");
    sim_crash(&s->w, ALPHA, false);
    run_ms(s, 6000);
}

static void failed_pull(struct story *s)
{
    given(s, 3);
    TELL(s, "pulls fail from now on");
    s->w.faults.pull_fails = 10000;
    s->w.pull_deadline = HF_MS(300);
    TELL(s, "alpha publishes a service larger than an advert");
    char value[3000];
    snprintf(value, sizeof(value), "{\"pad\":\"%02500d\"}", 0);
    (void)sim_publish(&s->w, ALPHA, "/large", value, 1, 0);
    run_ms(s, 5000);
    TELL(s, "pulls work again");
    s->w.faults.pull_fails = 0;
    run_ms(s, 12000);
}

static void start_order(struct story *s)
{
    boot(s, ALPHA);
    publish(s, ALPHA, "/first");
    run_ms(s, 1000);
    boot(s, BETA);
    publish(s, BETA, "/first");
    run_ms(s, 5000);
}

static void bye(struct story *s)
{
    given(s, 2);
    TELL(s, "alpha stops");
    sim_stop(&s->w, ALPHA);
    run_ms(s, 2000);
}

static void large_entry(struct story *s)
{
    given(s, 2);
    char value[3000];
    snprintf(value, sizeof(value), "{\"pad\":\"%02500d\"}", 0);
    (void)sim_publish(&s->w, ALPHA, "/large", value, 1, 0);
    TELL(s, "alpha publishes a service larger than an advert");
    run_ms(s, 2000);
}

static void replay(struct story *s)
{
    given(s, 2);
    TELL(s, "somebody sends alpha's last advert once more");
    sim_replay(&s->w, s->last, BETA, 0);
    run_ms(s, 50);
    TELL(s, "alpha loses power");
    sim_crash(&s->w, ALPHA, false);
    run_ms(s, 5000);
    TELL(s, "somebody sends alpha's last advert once more");
    sim_replay(&s->w, s->last, BETA, 0);
    run_ms(s, 9000);
}

static void lost_disk(struct story *s)
{
    given(s, 2);
    TELL(s, "alpha loses power and its disk");
    sim_crash(&s->w, ALPHA, true);
    boot(s, ALPHA);
    publish(s, ALPHA, "/again");
    run_ms(s, 5000);
}

static void twin(struct story *s)
{
    given(s, 2);
    sim_host_rename(&s->w.host[GAMMA], "alpha");
    TELL(s, "gamma also calls itself alpha");
    boot(s, GAMMA);
    publish(s, GAMMA, "/false");
    run_ms(s, 6000);
}

static void partition(struct story *s)
{
    given(s, 3);
    TELL(s, "gamma is cut off");
    s->w.net.side[GAMMA] = 1;
    publish(s, ALPHA, "/second");
    run_ms(s, 6000);
    publish(s, GAMMA, "/third");
    TELL(s, "gamma is back");
    s->w.net.side[GAMMA] = 0;
    run_ms(s, 3000);
}

static void probe_and_change(struct story *s)
{
    given(s, 3);
    publish(s, ALPHA, "/second");
    TELL(s, "before that goes out, beta asks alpha for an advert");
    struct sim_host *b = &s->w.host[BETA], *a = &s->w.host[ALPHA];
    struct hf_datagram_head head = {.kind = HF_DATAGRAM_PROBE,
                                    .incarnation = b->incarnation,
                                    .counter = ++b->counter,
                                    .host = hf_slice(b->name, b->name_len)};
    memcpy(head.salt, b->salt, HF_SALT_LEN);
    struct hf_dir_in in = {.kind = HF_DIR_IN_PROBE};
    in.owner = hf_dir_store_owner(a->store, head.host);
    in.head = &head;
    in.from = (struct hf_endpoint){.family = HF_AF_INET, .addr = {10, 0, 0, BETA}, .port = 7400};
    sim_step(&s->w, a, &in, NULL);
    run_ms(s, 50);
}

static const struct {
    const char *name, *title;
    void (*tell)(struct story *s);
} stories[] = {
    {"newcomer-pulls", "A newcomer listens, then pulls from each (A4).", newcomer_pulls},
    {"newcomer-dump", "A newcomer takes one state dump (A5).", newcomer_dump},
    {"lost-advert", "A lost advert is made good by the next heartbeat (A7, A-r3).", lost_advert},
    {"gap-delta", "Too much was missed for a heartbeat: a delta is pulled (A3, A8).", gap_delta},
    {"history-too-short", "More was missed than the owner remembers: all is pulled (A8).",
     history_too_short},
    {"restart", "An owner restarts: its old services go at once (A9).", restart},
    {"silence", "Silence of three periods, probes, gone within four (A-r3, I6).", silence},
    {"failed-pull", "Failed pulls keep what there is, and are tried later and later (A10).",
     failed_pull},
    {"start-order", "Listen, sync, and only then advertise oneself (A11).", start_order},
    {"bye", "A host that stops says so.", bye},
    {"large-entry", "What is larger than an advert is announced and pulled (A-r3).", large_entry},
    {"probe-and-change", "An answer to one prober does not swallow the advert to all.",
     probe_and_change},
    {"replay", "Replays are refused; they bring nobody back (A-r2, I8).", replay},
    {"lost-disk", "A host without its disk begins above the life that others know (A-r2).",
     lost_disk},
    {"twin", "Two hosts of one name: the later one gets it, the other is refused and knows why.",
     twin},
    {"partition", "A host is cut off, both sides change, and it comes back.", partition},
};

static char *trace_of(size_t i)
{
    static const char *const name[] = {"alpha", "beta", "gamma"};
    char *text = NULL;
    size_t n = 0;
    struct story s = {.out = open_memstream(&text, &n)};
    fprintf(s.out, "%s\n\n", stories[i].title);
    sim_world_init(&s.w, 3, false, SEED);
    s.w.net.weather.spread = 0;
    s.w.hooks = (struct sim_hooks){.arg = &s, .after = after, .sent = sent};
    s.old = sim_alloc(3 * sizeof(*s.old));
    for (uint32_t k = 0; k < 3; k++) {
        sim_host_rename(&s.w.host[k], name[k]);
    }
    s.began = s.w.net.now;
    stories[i].tell(&s);
    sim_packet_unref(s.last);
    sim_world_fini(&s.w);
    free(s.old);
    fclose(s.out);
    return text;
}

static bool golden(const struct sim_options *o, size_t i, const char *trace)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s.txt", o->golden, stories[i].name);
    return sim_golden(path, trace, o->write_golden);
}

int sim_stories(const struct sim_options *o)
{
    int failed = 0;
    printf("1..%zu\n", HF_ARRAY_LEN(stories));
    for (size_t i = 0; i < HF_ARRAY_LEN(stories); i++) {
        char *trace = trace_of(i);
        bool same = golden(o, i, trace);
        printf("%sok %zu - %s\n", same ? "" : "not ", i + 1, stories[i].name);
        if (!same) {
            fprintf(stderr, "%s is now told so:\n%s", stories[i].name, trace);
            failed = 1;
        }
        free(trace);
    }
    return failed;
}
