/* Random schedules of pairs: many small worlds, one seed each. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sim/pair/chaos.h"
#include "sim/pair/world.h"

#define STEPS_MAX 30000

/* What a schedule does; chances are out of 100,000 per step. */
struct chaos {
    struct pw_world w;
    uint32_t crash, boot, freeze, thaw, cut, heal, broken, pair_cut, switchover;
    uint32_t time; /* chance of time to go on though there is something to do */
    uint32_t steps;
    bool bytewise;
};

static struct chaos x;

static uint64_t below(uint64_t n)
{
    return pw_below(&x.w, n);
}

static bool chance(uint32_t c)
{
    return below(100000) < c;
}

static void begin(uint64_t seed)
{
    struct pw_world *w = &x.w;
    struct hf_prng g;
    hf_prng_init(&g, seed ^ 0x9a17);
    pw_init(w, seed, 1 + (uint32_t)hf_prng_below(&g, PW_CLIENTS), hf_prng_below(&g, 2));
    bool calm = below(6) == 0;
    uint32_t wild = calm ? 0 : 1 + (uint32_t)below(4);
    x.crash = (uint32_t)below(20) * wild;
    x.boot = 400;
    x.freeze = (uint32_t)below(40) * wild;
    x.thaw = 200 + (uint32_t)below(2000);
    x.cut = (uint32_t)below(20) * wild;
    x.heal = 400;
    x.broken = (uint32_t)below(100) * wild;
    x.pair_cut = (uint32_t)below(10) * wild;
    x.switchover = below(2) ? (uint32_t)below(60) : 0;
    x.time = below(4) ? 200 + (uint32_t)below(3000) : 20000;
    w->lease = below(2) ? HF_MS(60) : HF_S(1);
    w->conf.silence = below(2) ? 0 : HF_S(1);
    x.bytewise = below(3) == 0;
    x.steps = 2000 + (uint32_t)below(STEPS_MAX - 2000);
    w->link_room = below(3) ? (1u << 20) : 200 + below(3000);
    w->conf.unconfirmed_max = below(2) ? 0 : 500 + below(20000);
    w->conf.batches_max = below(2) ? 0 : 1 + (uint32_t)below(20);
    w->conf.retained_max = below(3) ? 0 : 2000 + below(50000);
    w->conf.connect_again = below(2) ? 0 : 1 + (hf_time)below((uint64_t)HF_MS(20));
    w->conf.snapshot_window = below(2) ? 0 : 1 + below(2000);
    w->conf.confirm_timeout = below(3) ? 0 : HF_MS(30 + (hf_time)below(100));
    w->conf.solo_after = below(2) ? 0 : 1 + (hf_time)below((uint64_t)HF_MS(60));
    for (uint32_t i = 0; i < w->n_clients; i++) {
        w->client[i].asks_max = 1 + below(30);
    }
}

static size_t some(void)
{
    return x.bytewise ? 1 + below(40) : 1 + below(20000);
}

/* One thing, by chance. */
static bool anything(void)
{
    struct pw_world *w = &x.w;
    struct pw_host *h = &w->host[below(2) ? w->g.primary : below(PW_HOSTS)];
    uint32_t c = (uint32_t)below(w->n_clients), l = (uint32_t)below(PW_LINKS);
    switch (below(18)) {
    case 0:
        return pw_asks(w, c, 1 + below(20));
    case 1:
        return pw_accept(h, c) || pw_connects(h);
    case 2:
        return pw_read(h, c, 1 + below(30));
    case 3:
        return pw_parse(h, c);
    case 4:
        return pw_release(h, c);
    case 5:
        return pw_write(h, c, 1 + below(20));
    case 6:
        return pw_acked(h, c);
    case 7:
        return below(4) == 0 ? pw_kernel(h, c) : pw_gated(h);
    case 8:
        return below(4) == 0 && pw_leaves(h, c);
    case 9:
        return below(2) ? pw_db_commit(w) : pw_db_answer(w);
    case 10:
    case 11:
        return pw_link_ab(w, l, some());
    case 12:
    case 13:
        return pw_link_ba(w, l, some());
    case 14:
        return pw_notice(w, l, below(2));
    case 15:
        return below(2) ? pw_group_hears(w, h->i) : pw_host_hears(h);
    case 16:
        return below(3) == 0 ? pw_group_looks(w, h->i) : pw_group_acts(w);
    default:
        return pw_turn(h);
    }
}

static void change(struct pw_host *h, bool *flag, bool to, const char *what)
{
    if (h->up && *flag != to) {
        *flag = to;
        pw_tell(h->w, "-- %c is %s", pw_name(h->i), what);
    }
}

static void fault(void)
{
    struct pw_world *w = &x.w;
    struct pw_host *h = &w->host[below(PW_HOSTS)];
    if (chance(x.crash)) {
        pw_crash(h, below(2));
    }
    if (chance(x.boot)) {
        pw_boot(h);
    }
    if (chance(x.freeze)) {
        change(h, &h->frozen, true, "frozen");
    }
    if (chance(x.thaw)) {
        change(h, &h->frozen, false, "thawed");
    }
    if (chance(x.cut)) {
        change(h, &h->cut, true, "cut from the group");
    }
    if (chance(x.heal)) {
        change(h, &h->cut, false, "back in the group");
    }
    if (chance(x.broken)) {
        pw_break(w, (uint32_t)below(PW_LINKS), some(), some());
    }
    if (chance(x.pair_cut)) {
        w->pair_cut = true;
        pw_tell(w, "-- managers can't reach each other");
        for (uint32_t i = 0; i < PW_LINKS; i++) {
            w->link[i].dead = w->link[i].used;
        }
    }
    if (w->pair_cut && chance(x.heal)) {
        w->pair_cut = false;
    }
    if (chance(x.switchover)) {
        (void)pw_group_switches(w);
    }
}

static bool all_done(bool at_the_end)
{
    struct pw_world *w = &x.w;
    for (uint32_t i = 0; i < w->n_clients; i++) {
        if (!pw_client_done(&w->client[i])) {
            return false;
        }
    }
    struct hf_pair_primary *p = w->host[w->g.primary].primary;
    struct hf_pair_primary_info info;
    if (!at_the_end || !p) {
        return !at_the_end;
    }
    hf_pair_primary_info(p, pw_local(&w->host[w->g.primary]), &info);
    return info.state == HF_PAIR_STATE_IN_SYNC;
}

/* No faults any more: everybody gets an answer, and there is a backup again. */
static void come_to_an_end(void)
{
    struct pw_world *w = &x.w;
    pw_tell(w, "-- all is well from now on");
    w->pair_cut = false;
    w->link_room = 1u << 20;
    for (uint32_t i = 0; i < PW_HOSTS; i++) {
        pw_boot(&w->host[i]);
        w->host[i].frozen = w->host[i].cut = false;
    }
    for (uint32_t i = 0; i < 3000 && !all_done(true); i++) {
        pw_settle(w);
        pw_time(w, HF_MS(20));
    }
    if (!all_done(true)) {
        struct pw_host *h = &w->host[w->g.primary];
        struct hf_pair_primary_info info = {0};
        if (h->primary) {
            hf_pair_primary_info(h->primary, pw_local(h), &info);
        }
        for (uint32_t i = 0; i < w->n_clients; i++) {
            const struct pw_client *c = &w->client[i];
            const struct pw_session *s = &h->session[i];
            pw_tell(w,
                    "client %u: %sconnected, asks %" PRIu64 ", sent %" PRIu64
                    ", acknowledged %" PRIu64 ", got %" PRIu64 "; session %s, token %" PRIu64
                    ", waits for %u batches",
                    i, c->connected ? "" : "not ", c->asks_max * 8, c->sent, c->acked, c->got,
                    s->used ? "there" : "gone", s->token, s->n_marks);
        }
        pw_failed(w, "it does not come to an end: %c is %s", pw_name(h->i),
                  h->primary ? hf_pair_state_name(info.state) : "no primary");
    }
}

static void run(void)
{
    struct pw_world *w = &x.w;
    uint32_t misses = 0;
    for (; w->n_steps < x.steps && w->n_reigns < PW_REIGNS - 8 && w->db.n_txns < PW_TXNS - 1000;
         w->n_steps++) {
        misses = anything() ? 0 : misses + 1;
        fault();
        if (misses > 100 || chance(x.time)) {
            pw_time(w, 1 + (hf_time)below((uint64_t)HF_MS(10)));
            misses = 0;
        }
        uint32_t c = (uint32_t)below(w->n_clients);
        if (!w->client[c].connected) {
            w->client[c].asks_max = w->client[c].id ? w->client[c].asks_max : 1 + below(30);
        }
        const struct pw_host *h = &w->host[w->g.primary];
        if (h->recorded > PW_NUMBERS - 1500) {
            break;
        }
    }
    come_to_an_end();
}

const char *const pwx_figures[] = {"steps",
                                   "crashes",
                                   "take-overs",
                                   "with a store",
                                   "answers",
                                   "connections reset (nobody had them)",
                                   "times alone",
                                   "snapshots",
                                   "connections that went on",
                                   NULL};

void pwx_run(uint64_t seed, FILE *trace, struct sim_run *ret)
{
    jmp_buf fail;
    x.w.fail = &fail;
    x.w.trace = trace;
    if (setjmp(fail) == 0) {
        begin(seed);
        run();
    }
    const struct pw_world *w = &x.w;
    pw_fini(&x.w);
    *ret = (struct sim_run){.figure = {w->n_steps, w->n_crashes - PW_HOSTS, w->n_takeovers,
                                       w->n_kept, w->n_answers, w->n_resets, w->n_solos, w->n_syncs,
                                       w->n_resumes}};
    snprintf(ret->why, sizeof(ret->why), "%s", w->why);
}
