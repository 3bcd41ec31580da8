/* Random schedules of groups of managers: many small worlds, one seed each. */
#include "sim/takeover/chaos.h"

#include <string.h>

#include "sim/takeover/world.h"

#define SETTLE HF_S(120)
#define NUMBERS_MAX (PW_NUMBERS - 1500)
#define TXNS_MAX (PW_TXNS - 500)

/* What is broken now, and until when; 0: it is not. */
struct broken {
    hf_time off[TW_HOSTS], frozen[TW_HOSTS], stopped[TW_HOSTS], daemon[TW_HOSTS];
    hf_time cut[TW_HOSTS][TW_HOSTS], sides, way[TW_HOSTS], engine[TW_HOSTS];
};

struct chaos {
    struct tw_world w;
    struct broken b;
    uint32_t left; /* faults to come */
    hf_time pace, next_fault, operator_at;
    bool one; /* one fault at a time, and nobody's connection may break */
    bool bytewise;
    struct gs_faults agents; /* from the first fault on */
    uint64_t n_faults;
};

static struct chaos x;

static uint64_t below(uint64_t n)
{
    return pw_below(&x.w.p, n);
}

static hf_time now(void)
{
    return x.w.g.net.now;
}

static hf_time ms_between(uint64_t lo, uint64_t hi)
{
    return HF_MS((hf_time)(lo + below(hi - lo + 1)));
}

/* ---- the world of this seed ---- */

static void begin(uint64_t seed)
{
    struct tw_world *w = &x.w;
    struct hf_prng g;
    hf_prng_init(&g, seed ^ 0x7a4e);
    bool fenced = hf_prng_below(&g, 3) == 0;
    hf_time lease = HF_MS(hf_prng_below(&g, 3) ? 200 : 50 + (int)hf_prng_below(&g, 500));
    lease = fenced && hf_prng_below(&g, 2) ? 0 : lease;
    tw_init(w, seed, 1 + (uint32_t)hf_prng_below(&g, PW_CLIENTS), fenced, lease, false);
    memset(&x.b, 0, sizeof(x.b));
    x.n_faults = 0;
    w->g.conf = (struct hf_group_conf){.answer_ms = 500,
                                       .restart_ms = 1500,
                                       .boot_ms = 4000,
                                       .retry_ms = 2000,
                                       .stable_ms = 10000,
                                       .join_ms = 15000};
    x.one = below(3) == 0;
    x.agents = (struct gs_faults){0};
    if (!x.one && below(2)) {
        static const uint32_t some[] = {0, 0, 20, 100};
        x.agents.agent_fails = some[below(4)];
        x.agents.agent_hangs = some[below(4)] / 4;
        x.agents.disk_fails = some[below(4)] / 4;
        x.agents.fence_fails = some[below(4)];
        x.agents.slow = some[below(4)];
        w->g.restart_always = below(4) == 0;
    }
    x.bytewise = below(3) == 0;
    w->p.link_room = below(3) ? (1u << 20) : 200 + below(3000);
    struct hf_pair_primary_conf *c = &w->p.conf;
    c->unconfirmed_max = below(2) ? 0 : 500 + below(20000);
    c->batches_max = below(2) ? 0 : 1 + (uint32_t)below(20);
    c->snapshot_window = below(2) ? 0 : 1 + below(2000);
    for (uint32_t i = 0; i < w->p.n_clients; i++) {
        w->p.client[i].asks_max = 1;
    }
    x.left = 2 + (uint32_t)below(x.one ? 4 : 9);
    x.pace = HF_MS(50 + (hf_time)below(3000));
}

/* ---- all that can happen without faults ---- */

static size_t some(void)
{
    return x.bytewise ? 1 + below(40) : 1 + below(20000);
}

/* One thing, by chance. */
static void anything(void)
{
    struct pw_world *p = &x.w.p;
    struct pw_host *h = &p->host[below(2) ? p->g.primary : below(TW_HOSTS)];
    uint32_t c = (uint32_t)below(p->n_clients), l = (uint32_t)below(PW_LINKS);
    switch (below(16)) {
    case 0:
        (void)pw_asks(p, c, 1 + below(20));
        break;
    case 1:
        (void)(pw_accept(h, c) || pw_connects(h));
        break;
    case 2:
        (void)pw_read(h, c, 1 + below(30));
        break;
    case 3:
        (void)pw_parse(h, c);
        break;
    case 4:
        (void)pw_release(h, c);
        break;
    case 5:
        (void)pw_write(h, c, 1 + below(20));
        break;
    case 6:
        (void)pw_acked(h, c);
        break;
    case 7:
        (void)(below(4) == 0 ? pw_kernel(h, c) : pw_gated(h));
        break;
    case 8:
        (void)(below(4) == 0 && pw_leaves(h, c));
        break;
    case 9:
        (void)(below(2) ? pw_db_commit(p) : pw_db_answer(p));
        break;
    case 10:
    case 11:
        (void)pw_link_ab(p, l, some());
        break;
    case 12:
    case 13:
        (void)pw_link_ba(p, l, some());
        break;
    case 14:
        (void)pw_notice(p, l, below(2));
        break;
    default:
        (void)pw_turn(h);
    }
}

static bool at_limits(void)
{
    const struct pw_world *p = &x.w.p;
    return p->host[p->g.primary].recorded > NUMBERS_MAX || p->db.n_txns > TXNS_MAX ||
           p->n_reigns > PW_REIGNS - 8;
}

/* Clients that have their answers ask for more, now and then. */
static void clients(void)
{
    struct pw_world *p = &x.w.p;
    for (uint32_t i = 0; i < p->n_clients; i++) {
        struct pw_client *c = &p->client[i];
        if (pw_client_done(c) && below(4) == 0 && !at_limits()) {
            c->asks_max += 1 + below(3);
        } else if (!c->connected) {
            c->asks_max = 1;
        }
    }
}

/* A little time, with things half done in it or all that can be done. */
static void go_on(void)
{
    clients();
    if (below(3)) {
        tw_settle(&x.w, HF_MS(1) + (hf_time)below((uint64_t)HF_MS(20)));
        return;
    }
    for (uint64_t k = below(40); k > 0; k--) {
        anything();
    }
    tw_run(&x.w, (hf_time)below((uint64_t)HF_MS(4)));
}

/* The operator: makes the group, has the others join. */
static void operate(void)
{
    struct gs_world *g = &x.w.g;
    bool any = false;
    if (now() < x.operator_at) {
        return;
    }
    x.operator_at = now() + HF_MS(300);
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        any = any || g->host[i].has_record || (g->host[i].g && hf_group_state(g->host[i].g));
    }
    if (!any && g->group_created == 0) {
        (void)gs_create(g, 0);
        return;
    }
    for (uint32_t i = 0; i < TW_HOSTS && any; i++) {
        struct gs_host *h = &g->host[i];
        if (gs_runs(h) && !h->asked && !h->has_record) {
            gs_join(g, i, -1);
            return;
        }
    }
}

/* ---- faults ---- */

static hf_time away(void)
{
    return now() + (below(3) ? ms_between(20, 1500) : ms_between(500, 8000));
}

static hf_time shortly(void)
{
    return now() + (below(2) ? ms_between(10, 500) : ms_between(300, 4000));
}

static void partition(uint32_t i, bool pairs)
{
    struct gs_world *g = &x.w.g;
    GS_TELL(g, "-- %s is cut from the cluster%s", g->host[i].name,
            pairs ? ", and its manager from the others" : "");
    memset(g->side, 0, sizeof(g->side));
    g->side[i] = 1;
    gs_sides(g);
    x.b.sides = away();
    for (uint32_t k = 0; pairs && k < TW_HOSTS; k++) {
        if (k != i) {
            tw_cut(&x.w, i, k, true);
            x.b.cut[i][k] = x.b.sides;
        }
    }
}

static void engine_fault(uint32_t i)
{
    struct gs_world *g = &x.w.g;
    if (below(2)) {
        enum sim_way way = below(2) ? SIM_MUTE : SIM_DEAF;
        GS_TELL(g, "-- %s %s", g->host[i].name, way == SIM_MUTE ? "is not heard" : "does not hear");
        sim_one_way(g->sim, i, way);
        x.b.way[i] = away();
    } else if (g->host[i].daemon) {
        GS_TELL(g, "-- %s loses its engine", g->host[i].name);
        sim_lose(g->sim, i);
        x.b.engine[i] = shortly();
    }
}

static void switch_over(uint32_t i)
{
    struct gs_world *g = &x.w.g;
    uint32_t at = (uint32_t)below(TW_HOSTS);
    if (gs_runs(&g->host[at]) && g->host[at].g) {
        gs_request(g, at, HF_GREQUEST_SWITCH, NULL, below(2) ? g->def[i].name : NULL);
    }
}

static void fault(void)
{
    struct tw_world *w = &x.w;
    struct gs_world *g = &w->g;
    uint32_t i = below(2) ? w->p.g.primary : (uint32_t)below(TW_HOSTS);
    uint32_t k = (i + 1 + (uint32_t)below(TW_HOSTS - 1)) % TW_HOSTS;
    x.n_faults++;
    switch (below(16)) {
    case 0:
    case 1:
        gs_power_off(g, i);
        x.b.off[i] = away();
        break;
    case 2:
    case 3:
    case 4:
        tw_kill(w, i, below(3) ? ms_between(1, 300) : ms_between(200, 4000));
        break;
    case 5:
    case 6:
        tw_freeze(w, i, true);
        x.b.frozen[i] = shortly();
        break;
    case 7:
        tw_stop(w, i, true);
        x.b.stopped[i] = shortly();
        break;
    case 8:
        if (below(4)) {
            gs_daemon_kill(g, i);
        } else {
            gs_daemon_stop(g, i);
        }
        x.b.daemon[i] = shortly();
        break;
    case 9:
        partition(i, false);
        break;
    case 10:
        partition(i, true);
        break;
    case 11:
    case 12:
        tw_cut(w, i, k, true);
        x.b.cut[i][k] = away();
        break;
    case 13:
        pw_break(&w->p, (uint32_t)below(PW_LINKS), some(), some());
        break;
    case 14:
        if (below(3)) {
            switch_over(i);
        } else {
            GS_TELL(g, "-- the disk of %s is full", g->host[i].name);
            g->host[i].disk_bad_until = shortly();
        }
        break;
    default:
        engine_fault(i);
    }
}

static bool over(hf_time *t, bool all)
{
    bool is = *t && (all || now() >= *t);
    *t = is ? 0 : *t;
    return is;
}

/* What was broken is whole again, when it is time. */
static void mend(bool all)
{
    struct tw_world *w = &x.w;
    struct gs_world *g = &w->g;
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        if (over(&x.b.frozen[i], all)) {
            tw_freeze(w, i, false);
        }
        if (over(&x.b.stopped[i], all)) {
            tw_stop(w, i, false);
        }
        if (over(&x.b.off[i], all)) {
            tw_power_on(w, i);
        }
        if (over(&x.b.daemon[i], all)) {
            gs_daemon_start(g, i);
        }
        if (over(&x.b.way[i], all)) {
            sim_one_way(g->sim, i, SIM_BOTH_WAYS);
        }
        if (over(&x.b.engine[i], all)) {
            sim_regain(g->sim, i);
        }
        for (uint32_t k = 0; k < TW_HOSTS; k++) {
            if (over(&x.b.cut[i][k], all)) {
                tw_cut(w, i, k, false);
            }
        }
    }
    if (over(&x.b.sides, all)) {
        GS_TELL(g, "-- the cluster's network is whole again");
        memset(g->side, 0, sizeof(g->side));
        gs_sides(g);
    }
}

/* Somebody has it switched on, or started, again. */
static void look_after(void)
{
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        if (!x.b.off[i]) {
            tw_power_on(&x.w, i);
        }
        if (!x.b.daemon[i] && x.w.g.host[i].power && !x.w.g.host[i].frozen) {
            gs_daemon_start(&x.w.g, i);
        }
    }
}

/* ---- a run ---- */

static bool served(void)
{
    const struct pw_world *p = &x.w.p;
    for (uint32_t i = 0; i < p->n_clients; i++) {
        if (!pw_client_done(&p->client[i])) {
            return false;
        }
    }
    return true;
}

static void tell_all(void)
{
    struct tw_world *w = &x.w;
    static const char *const roles[] = {"stopped", "backup", "promoted", "taking over", "primary"};
    gs_tell_all(&w->g);
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        const struct pw_host *h = &w->p.host[i];
        struct hf_pair_primary_info info = {0};
        if (h->primary) {
            hf_pair_primary_info(h->primary, pw_local(h), &info);
        }
        pw_tell(&w->p, "* %c: %s, epoch %" PRIu64 "%s%s%s, %s, solo %d, in S %d", pw_name(i),
                roles[w->m[i].role], h->epoch, h->up ? "" : ", gone",
                h->frozen ? ", stands still" : "", h->listens ? ", listens" : "",
                h->primary ? hf_pair_state_name(info.state) : "no primary", info.solo,
                tw_in_set(w, i));
    }
    for (uint32_t i = 0; i < w->p.n_clients; i++) {
        const struct pw_client *c = &w->p.client[i];
        pw_tell(&w->p,
                "* client %u: %sconnected, asks %" PRIu64 ", sent %" PRIu64 ", acked %" PRIu64
                ", got %" PRIu64,
                i, c->connected ? "" : "not ", c->asks_max * 8, c->sent, c->acked, c->got);
    }
}

/* A member may have died between its admission and its first record. */
static bool too_few_records(void)
{
    uint32_t records = 0, members = 0;
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        const struct gs_host *h = &x.w.g.host[i];
        const struct hf_gstate *s = h->g ? hf_group_state(h->g) : NULL;
        records += h->has_record;
        members = s && s->n_members > members ? s->n_members : members;
    }
    return records * 2 <= members;
}

/* Until all is well: clients have answers, and would survive the loss of a host. */
static void settle(const char *what)
{
    struct tw_world *w = &x.w;
    struct pw_world *p = &w->p;
    for (uint32_t i = 0; i < p->n_clients; i++) {
        p->client[i].asks_max += p->client[i].connected;
    }
    for (hf_time end = now() + SETTLE; now() < end;) {
        mend(false);
        look_after();
        operate();
        for (uint32_t i = 0; i < p->n_clients; i++) {
            p->client[i].asks_max = p->client[i].connected ? p->client[i].asks_max : 1;
        }
        tw_settle(w, HF_MS(20));
        if (served() && tw_protected(w, true)) {
            return;
        }
    }
    if (too_few_records()) {
        return; /* nobody can know the newest state: the operator would make the group anew */
    }
    tell_all();
    pw_failed(p, "settle: %s: clients are %sserved%s", what, served() ? "" : "not ",
              served() ? ", but not protected" : "");
}

static void mend_all(void)
{
    struct tw_world *w = &x.w;
    GS_TELL(&w->g, "-- all is mended");
    w->g.faults = (struct gs_faults){0};
    w->p.link_room = 1u << 20;
    mend(true);
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        w->g.host[i].disk_bad_until = 0;
        sim_one_way(w->g.sim, i, SIM_BOTH_WAYS);
        sim_regain(w->g.sim, i);
    }
}

static void run_many(void)
{
    x.next_fault = now() + (hf_time)below((uint64_t)HF_S(2));
    x.w.g.faults = x.agents;
    while ((x.left || now() < x.next_fault) && !at_limits()) {
        if (now() >= x.next_fault) {
            fault();
            x.left--;
            x.next_fault = now() + (below(3) ? HF_MS(5) + (hf_time)below((uint64_t)x.pace * 2)
                                             : ms_between(0, 40));
        }
        mend(false);
        operate();
        go_on();
    }
    mend_all();
    settle("at the end");
}

static bool broken(void)
{
    static const struct broken none;
    return memcmp(&x.b, &none, sizeof(none)) != 0;
}

/* One fault, its end, and all is well again; nobody's connection breaks. */
static void run_one_by_one(void)
{
    struct tw_world *w = &x.w;
    while (x.left-- > 0 && !at_limits()) {
        uint64_t resets = w->p.n_resets;
        for (uint64_t k = below(30); k > 0; k--) {
            go_on();
        }
        settle("before a fault");
        for (uint64_t k = below(4); k > 0; k--) {
            go_on();
        }
        bool safe = tw_protected(w, true);
        fault();
        for (uint64_t k = 0; k < 400 && (k < 20 || broken()); k++) {
            mend(false);
            look_after();
            operate();
            go_on();
        }
        mend_all();
        settle("after one fault");
        if (safe && w->p.n_resets != resets) {
            pw_failed(&w->p, "I3: a protected client's connection was lost by one fault");
        }
    }
}

static void run(void)
{
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        tw_power_on(&x.w, i);
    }
    x.operator_at = now() + HF_MS(200);
    if (x.one || below(4)) {
        settle("at the beginning");
    }
    if (x.one) {
        run_one_by_one();
    } else {
        run_many();
    }
}

const char *const twx_figures[] = {"steps of groups",
                                   "faults",
                                   "take-overs",
                                   "with a store",
                                   "answers",
                                   "connections reset",
                                   "snapshots",
                                   "connections that went on",
                                   NULL};

void twx_run(uint64_t seed, FILE *trace, struct sim_run *ret)
{
    static jmp_buf fail;
    struct tw_world *w = &x.w;
    w->fail = &fail;
    w->p.trace = trace;
    if (setjmp(fail) == 0) {
        begin(seed);
        w->g.trace = trace;
        run();
    }
    *ret =
        (struct sim_run){.figure = {w->g.n_steps, x.n_faults, w->n_taken, w->n_kept, w->p.n_answers,
                                    w->p.n_resets, w->p.n_syncs, w->p.n_resumes}};
    const char *why = w->g.failed[0] ? w->g.why : w->p.why;
    size_t kind = strcspn(why, ":");
    snprintf(ret->why, sizeof(ret->why), "%s", why);
    if (w->g.failed[0]) {
        snprintf(ret->kind, sizeof(ret->kind), "%s", w->g.failed);
    } else if (why[0]) {
        snprintf(ret->kind, sizeof(ret->kind), "%.*s", kind < 8 ? (int)kind : 5,
                 kind < 8 ? why : "state");
    }
    tw_fini(w);
}
