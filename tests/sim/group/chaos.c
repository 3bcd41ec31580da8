/* Many small groups, each from its own seed, with every fault there is. */
#include "sim/group/chaos.h"

#include <stdlib.h>
#include <string.h>

#include "sim/group/world.h"

#define SETTLE HF_S(300)

enum {
    EV_FAULT = GS_EV_USER,
    EV_BOOT,
    EV_DAEMON,
    EV_RESUME,
    EV_HEAL,
    EV_ONE_WAY_END,
    EV_REGAIN,
    EV_FENCE_WORKS,
    EV_OPERATOR,
    EV_REACH,
};

struct chaos {
    struct gs_world w;
    uint32_t left; /* faults to come */
    bool over, left_one;
    hf_time pace;
    uint16_t reach[GS_HOSTS_MAX]; /* as it should be */
    int brings[GS_HOSTS_MAX];
    hf_time resume_at;
};

static struct chaos x; /* one at a time in each process */

static uint64_t below(uint64_t n)
{
    return gs_below(&x.w, n);
}

static hf_time ms_between(uint64_t lo, uint64_t hi)
{
    return HF_MS((hf_time)(lo + below(hi - lo + 1)));
}

static void later(hf_time span, uint32_t kind, uint32_t host)
{
    sim_net_at(&x.w.net, x.w.net.now + span, kind, host, 0, NULL);
}

/* ---- the cluster of this seed ---- */

static void define_copies(uint32_t n_copies, uint8_t flags)
{
    static const char *const names[] = {"copy1", "copy2", "copy3"};
    struct gs_world *w = &x.w;
    for (uint32_t c = 0; c < n_copies; c++) {
        (void)gs_define(w, names[c], HF_RESOURCE_COPY, flags);
    }
    for (uint32_t i = 0; i < w->n; i++) {
        uint16_t reach = (uint16_t)(1u << (i % n_copies));
        reach |= (uint16_t)(below(6) == 0 ? 1u << below(n_copies) : 0);
        reach = i && below(12) == 0 ? 0 : reach;
        w->host[i].reach = reach;
    }
}

static void define(void)
{
    struct gs_world *w = &x.w;
    uint64_t kind = below(10);
    if (kind < 6) { /* a database, mirrored */
        uint32_t n_copies = 1 + (uint32_t)below(w->n < 3 ? w->n : 3);
        n_copies += n_copies == 1 && w->n > 1 && below(4);
        define_copies(n_copies, HF_RESOURCE_PROMOTABLE | HF_RESOURCE_MIRROR |
                                    (below(3) ? HF_RESOURCE_OPEN : 0));
    } else if (kind < 8) { /* a shared disk */
        define_copies(1, 0);
    } else if (kind < 9) { /* something without data */
        define_copies(1 + (uint32_t)below(w->n < 3 ? w->n : 3), HF_RESOURCE_PROMOTABLE);
    } else {
        define_copies(1, HF_RESOURCE_PROMOTABLE | (below(2) ? HF_RESOURCE_OPEN : 0));
    }
    for (uint64_t k = below(3); k > 0; k--) {
        (void)gs_define(w, k == 1 ? "address" : "web", HF_RESOURCE_ATTACHED,
                        below(5) ? 0 : HF_RESOURCE_FENCE_NONE);
    }
    w->n_created = w->n_defs;
    for (uint32_t i = 0; i < w->n; i++) {
        x.brings[i] = -1;
    }
    if (kind < 6 && w->n > 1 && below(5) == 0) {
        uint32_t i = w->n - 1, d = gs_define(w, "brought", HF_RESOURCE_COPY, w->def[0].flags);
        w->host[i].reach = (uint16_t)(1u << d);
        x.brings[i] = (int)d;
    }
    for (uint32_t d = 0; d < w->n_defs; d++) {
        uint32_t hosts = 0;
        for (uint32_t i = 0; i < w->n; i++) {
            hosts += w->host[i].reach >> d & 1;
        }
        w->shared |= (uint16_t)((w->def[d].kind == HF_RESOURCE_COPY && hosts > 1) << d);
    }
    for (uint32_t i = 0; i < w->n; i++) {
        x.reach[i] = w->host[i].reach;
    }
}

static void begin(uint64_t seed)
{
    struct gs_world *w = &x.w;
    uint32_t n = 2 + (uint32_t)(seed % 4);
    gs_world_init(w, n, seed % 2 == 0, seed, false);
    define();
    w->conf = (struct hf_group_conf){.answer_ms = 500,
                                     .restart_ms = 1500,
                                     .boot_ms = 4000,
                                     .retry_ms = 2000,
                                     .stable_ms = 10000,
                                     .join_ms = 15000};
    w->degraded_refuse = below(4) == 0;
    w->restart_always = below(2) == 0;
    w->persist_torn = below(4) == 0;
    if (below(3)) {
        static const uint32_t some[] = {0, 0, 20, 100}, few[] = {0, 0, 10, 30};
        w->faults.agent_fails = some[below(4)];
        w->faults.agent_hangs = few[below(4)];
        w->faults.agent_lies = few[below(4)];
        w->faults.fence_fails = some[below(4)] * 2;
        w->faults.config_fails = some[below(4)];
        w->faults.disk_fails = few[below(4)];
        w->faults.slow = some[below(4)];
    }
    x.left = 5 + (uint32_t)below(11);
    x.pace = HF_MS(200 + (hf_time)below(4000));
}

/* ---- operators ---- */

static struct gs_host *any_member(void)
{
    uint32_t from = (uint32_t)below(x.w.n);
    for (uint32_t i = 0; i < x.w.n; i++) {
        struct gs_host *h = &x.w.host[(from + i) % x.w.n];
        if (gs_runs(h) && h->g && hf_group_standing(h->g) == HF_GROUP_IN &&
            hf_group_self(h->g) != HF_GROUP_NONE) {
            return h;
        }
    }
    return NULL;
}

/* Is it a resource of the group already? Then nobody brings it again. */
static bool known(int d)
{
    for (uint32_t i = 0; i < x.w.n && d >= 0; i++) {
        const struct gs_host *h = &x.w.host[i];
        const struct hf_gstate *s = h->g ? hf_group_state(h->g) : NULL;
        for (uint8_t k = 0; s && k < s->n_resources; k++) {
            if (strcmp(s->resource[k].name, x.w.def[d].name) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* Who should be a member, and is not, is told to join; without any record the group is made. */
static void see_to_members(void)
{
    struct gs_world *w = &x.w;
    bool any = false;
    for (uint32_t i = 0; i < w->n; i++) {
        any = any || w->host[i].has_record || (w->host[i].g && hf_group_state(w->host[i].g));
    }
    if (!any && w->n_lines == 1 && w->line[0].acked == 0) {
        (void)gs_create(w, 0);
        return;
    }
    for (uint32_t i = 0; i < w->n && any; i++) {
        struct gs_host *h = &w->host[i];
        if (gs_runs(h) && !h->left && !h->asked && !h->has_record && below(2)) {
            gs_join(w, i, known(x.brings[i]) ? -1 : x.brings[i]);
        }
    }
}

static void operate(void)
{
    struct gs_world *w = &x.w;
    struct gs_host *h = any_member();
    if (!h) {
        return;
    }
    const char *to = w->host[below(w->n)].name, *of = w->def[below(w->n_defs)].name;
    switch (below(12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        gs_request(w, h->i, HF_GREQUEST_SWITCH, below(2) ? to : NULL, below(3) ? NULL : of);
        break;
    case 4:
        gs_request(w, h->i, HF_GREQUEST_FORCE, NULL, w->def[below(w->n_created)].name);
        break;
    case 5:
        if (w->n > 2 && !x.left_one) {
            x.left_one = true;
            gs_request(w, h->i, HF_GREQUEST_LEAVE, to, NULL);
        }
        break;
    case 6:
        gs_request(w, h->i, HF_GREQUEST_PAUSE, NULL, NULL);
        break;
    case 7:
    case 8:
    case 9:
        gs_request(w, h->i, HF_GREQUEST_RESUME, NULL, below(4) ? NULL : of);
        break;
    default: /* the operator has looked: it is off */
        for (uint32_t i = 0; i < w->n; i++) {
            if (!w->host[i].power) {
                gs_request(w, h->i, HF_GREQUEST_CONFIRM, w->host[i].name, NULL);
                break;
            }
        }
        break;
    }
}

/* ---- faults ---- */

static hf_time away(void)
{
    return below(3) ? ms_between(20, 2000) : ms_between(500, 12000);
}

static void power_fault(uint32_t i)
{
    struct gs_host *h = &x.w.host[i];
    if (h->power) {
        gs_power_off(&x.w, i);
        if (below(5) == 0 && gs_may_lose(&x.w, h)) {
            gs_disk_lose(&x.w, i, below(2));
        }
    }
    later(away(), EV_BOOT, i);
}

static void blackout(void)
{
    GS_TELL(&x.w, "-- all lose power");
    for (uint32_t i = 0; i < x.w.n; i++) {
        if (x.w.host[i].power && below(8)) {
            gs_power_off(&x.w, i);
        }
        later(ms_between(0, 6000), EV_BOOT, i);
    }
}

static void network_fault(uint32_t i)
{
    struct gs_world *w = &x.w;
    switch (below(4)) {
    case 0: {
        enum sim_way way = below(2) ? SIM_MUTE : SIM_DEAF;
        GS_TELL(w, "-- %s %s", w->host[i].name, way == SIM_MUTE ? "is not heard" : "does not hear");
        sim_one_way(w->sim, i, way);
        later(away(), EV_ONE_WAY_END, i);
        break;
    }
    case 1:
        if (w->host[i].daemon) {
            GS_TELL(w, "-- %s loses its engine", w->host[i].name);
            sim_lose(w->sim, i);
            later(away(), EV_REGAIN, i);
        }
        break;
    default:
        GS_TELL(w, "-- the network falls apart");
        for (uint32_t k = 0; k < w->n + w->witness; k++) {
            w->side[k] = (uint8_t)below(below(4) ? 2 : 3);
            GS_TELL(w, "   %s is on side %u", w->name[k], w->side[k]);
        }
        gs_sides(w);
        later(away(), EV_HEAL, 0);
        break;
    }
}

static void agent_fault(uint32_t i)
{
    struct gs_world *w = &x.w;
    uint32_t d = (uint32_t)below(w->n_defs);
    if (below(3) == 0) {
        static const uint8_t codes[] = {1, 2, 5, 6, 9};
        w->host[i].res[d].sick_rc = codes[below(sizeof(codes))];
        w->host[i].res[d].sick_until = w->net.now + ms_between(1000, 15000);
        GS_TELL(w, "-- the agent of %s fails on %s with %u", w->def[d].name, w->host[i].name,
                w->host[i].res[d].sick_rc);
        return;
    }
    for (uint32_t k = 0; k < w->n * GS_RES_MAX; k++) { /* what runs somewhere, primaries first */
        uint32_t h = (i + k / GS_RES_MAX) % w->n;
        uint32_t r = (d + k) % GS_RES_MAX;
        if (r < w->n_defs && w->host[h].res[r].truth >= (below(3) ? GS_PROMOTED : GS_UNPROMOTED)) {
            gs_break_resource(w, h, r);
            return;
        }
    }
}

static void other_fault(uint32_t i)
{
    struct gs_world *w = &x.w;
    switch (below(8)) {
    case 0:
        GS_TELL(w, "-- a ghost");
        sim_ghost(w->sim, GS_GROUP);
        break;
    case 1:
    case 2:
        GS_TELL(w, "-- the fence device of %s does not work", w->host[i].name);
        w->fence_broken[i] = true;
        later(ms_between(500, 15000), EV_FENCE_WORKS, i);
        break;
    case 3:
    case 4:
        GS_TELL(w, "-- the disk of %s is full", w->host[i].name);
        w->host[i].disk_bad_until = w->net.now + ms_between(100, 8000);
        break;
    case 5:
        GS_TELL(w, "-- %s does not reach its copies", w->host[i].name);
        w->host[i].reach = 0;
        later(ms_between(500, 10000), EV_REACH, i);
        break;
    default:
        gs_daemon_stop(w, i);
        later(away(), EV_DAEMON, i);
        break;
    }
}

static void fault(void)
{
    struct gs_world *w = &x.w;
    uint32_t i = (uint32_t)below(w->n);
    uint64_t what = below(100);
    if (what < 24) {
        power_fault(i);
    } else if (what < 36) {
        gs_daemon_kill(w, i);
        later(below(4) ? ms_between(50, 1400) : ms_between(500, 8000), EV_DAEMON, i);
    } else if (what < 50) {
        gs_pause(w, i, (enum gs_pause)below(3));
        later(below(2) ? ms_between(20, 600) : ms_between(300, 6000), EV_RESUME, i);
    } else if (what < 66) {
        network_fault(i);
    } else if (what < 76) {
        agent_fault(i);
    } else if (what < 84) {
        other_fault(i);
    } else if (what < 87) {
        blackout();
    } else {
        operate();
    }
}

static void on_event(struct gs_world *w, const struct sim_event *e)
{
    struct gs_host *h = &w->host[e->host];
    if (x.over) {
        return;
    }
    switch (e->kind) {
    case EV_FAULT:
        if (x.left == 0) {
            x.over = true;
            return;
        }
        x.left--;
        fault();
        later(below(3) ? HF_MS(50) + (hf_time)below((uint64_t)x.pace * 2) : ms_between(0, 40),
              EV_FAULT, 0);
        break;
    case EV_BOOT:
        gs_power_on(w, e->host);
        break;
    case EV_DAEMON:
        gs_daemon_start(w, e->host);
        break;
    case EV_RESUME:
        gs_resume(w, e->host);
        break;
    case EV_HEAL:
        GS_TELL(w, "-- the network is whole again");
        memset(w->side, 0, sizeof(w->side));
        gs_sides(w);
        break;
    case EV_ONE_WAY_END:
        GS_TELL(w, "-- %s is heard and hears again", h->name);
        sim_one_way(w->sim, e->host, SIM_BOTH_WAYS);
        break;
    case EV_REGAIN:
        GS_TELL(w, "-- %s's engine is back", h->name);
        sim_regain(w->sim, e->host);
        break;
    case EV_FENCE_WORKS:
        w->fence_broken[e->host] = false;
        break;
    case EV_REACH:
        h->reach = x.reach[e->host];
        break;
    case EV_OPERATOR:
        see_to_members();
        later(HF_MS(700), EV_OPERATOR, 0);
        break;
    default:
        break;
    }
}

/* ---- the end: all is mended ---- */

static void mend(void)
{
    struct gs_world *w = &x.w;
    GS_TELL(w, "-- all is mended");
    w->faults = (struct gs_faults){0};
    memset(w->fence_broken, 0, sizeof(w->fence_broken));
    memset(w->side, 0, sizeof(w->side));
    gs_sides(w);
    for (uint32_t i = 0; i < w->n; i++) {
        struct gs_host *h = &w->host[i];
        sim_one_way(w->sim, i, SIM_BOTH_WAYS);
        gs_resume(w, i);
        sim_regain(w->sim, i);
        h->reach = x.reach[i];
        h->disk_bad_until = 0;
        for (uint32_t d = 0; d < w->n_defs; d++) {
            h->res[d].sick_until = 0;
        }
    }
}

static bool needs_operator(struct gs_host *h)
{
    struct gs_world *w = &x.w;
    const struct hf_gstate *s = hf_group_state(h->g);
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (s->resource[i].mirror == HF_MIRROR_DIVERGED && s->phase == HF_PHASE_RUNNING) {
            gs_request(w, h->i, HF_GREQUEST_RESUME, NULL, s->resource[i].name);
            return true;
        }
    }
    if (s->phase != HF_PHASE_NONE && hf_group_quorate(h->g)) {
        return false;
    }
    for (uint8_t i = 0; i < s->n_resources; i++) {
        int d = gs_def_of(w, s->resource[i].name);
        bool reached = false;
        for (uint8_t m = 0; m < s->n_members; m++) {
            reached = reached || s->member[m].subgroup == i;
        }
        if (d >= 0 && reached && s->resource[i].kind == HF_RESOURCE_COPY &&
            (s->init || (!w->copy[d].empty && !w->copy[d].invalid))) {
            gs_request(w, h->i, HF_GREQUEST_FORCE, NULL, s->resource[i].name);
            return true;
        }
    }
    return false;
}

/* A configuration that went with the disks of all who had it is written anew. */
static void see_to_configs(void)
{
    struct gs_world *w = &x.w;
    for (uint32_t d = 0; d < w->n_defs; d++) {
        bool there = false;
        struct gs_host *h = NULL;
        for (uint32_t i = 0; i < w->n; i++) {
            struct gs_host *o = &w->host[i];
            bool fit = w->def[d].kind != HF_RESOURCE_COPY || x.reach[i] >> d & 1 || !h;
            bool member = o->g && hf_group_self(o->g) != HF_GROUP_NONE;
            there = there || (o->config >> d & 1 && member);
            h = fit && o->g && hf_group_self(o->g) != HF_GROUP_NONE ? o : h;
        }
        if (!there && h) {
            gs_give_config(w, h->i, d);
        }
    }
}

/* What a patient operator does about once a second. */
static void look_after(void)
{
    struct gs_world *w = &x.w;
    for (uint32_t i = 0; i < w->n; i++) {
        gs_power_on(w, i);
        gs_daemon_start(w, i);
    }
    see_to_members();
    see_to_configs();
    struct gs_host *h = any_member();
    if (h && hf_group_state(h->g)->paused && w->net.now >= x.resume_at) {
        x.resume_at = w->net.now + HF_S(3);
        gs_request(w, h->i, HF_GREQUEST_RESUME, NULL, NULL);
    }
}

static void settle(void)
{
    struct gs_world *w = &x.w;
    static char buf[600];
    hf_time end = w->net.now + SETTLE;
    const char *why = "";
    uint32_t asked = 0, stuck = 0;
    mend();
    for (uint32_t quiet = 0; w->net.now < end;) {
        look_after();
        gs_run(w, w->net.now + HF_S(1));
        why = gs_check_settled(w, buf, sizeof(buf));
        quiet = why ? 0 : quiet + 1;
        struct gs_host *h = any_member();
        stuck = h && !hf_group_quorate(h->g) ? stuck + 1 : 0; /* records were lost: who decides? */
        if (stuck >= 30 && asked < 6) {
            if (!needs_operator(h)) {
                return; /* there is no data left to go on with: the group has to be made anew */
            }
            asked++;
            stuck = 0;
        }
        if (quiet < 3) {
            continue;
        }
        if (!h || asked == 6 || !needs_operator(h)) {
            return;
        }
        asked++;
        quiet = 0;
        gs_run(w, w->net.now + HF_S(3));
    }
    gs_tell_all(w);
    gs_fail(w, "settle", "%.300s", why ? why : "never for long");
}

/* ---- one run ---- */

const char *const gs_figures[] = {"steps", "events", NULL};

void gs_random(uint64_t seed, FILE *trace, struct sim_run *ret)
{
    jmp_buf fail;
    *ret = (struct sim_run){0};
    x.left_one = x.over = false;
    x.resume_at = 0;
    begin(seed);
    x.w.trace = trace;
    x.w.user = on_event;
    x.w.fail = &fail;
    if (setjmp(fail) == 0) {
        for (uint32_t i = 0; i < x.w.n; i++) {
            if (i == 0 || below(8)) {
                gs_power_on(&x.w, i);
            } else {
                later(ms_between(0, 8000), EV_BOOT, i);
            }
        }
        (void)gs_create(&x.w, 0);
        later(below(4) ? HF_MS(300) : HF_MS(5), EV_OPERATOR, 0);
        later(below(3) ? ms_between(2000, 6000) : ms_between(0, 2000), EV_FAULT, 0);
        while (!x.over) {
            gs_run(&x.w, x.w.net.now + HF_MS(200));
        }
        settle();
    } else {
        memcpy(ret->kind, x.w.failed, sizeof(ret->kind));
        memcpy(ret->why, x.w.why, sizeof(ret->why));
    }
    ret->figure[0] = x.w.n_steps;
    ret->figure[1] = x.w.n_events;
    gs_world_fini(&x.w);
}
