/* Three hosts with a daemon and a manager each: time, power, cables. */
#include "sim/takeover/world.h"

#include <stddef.h>
#include <string.h>

#include "base/list.h"

struct tw_world *tw_of_group(struct gs_world *g)
{
    return HF_CONTAINER_OF(g, struct tw_world, g);
}

struct tw_world *tw_of_pair(const struct pw_world *p)
{
    return (struct tw_world *)((uintptr_t)p - offsetof(struct tw_world, p)); // NOLINT
}

/* ---- time ---- */

void tw_run(struct tw_world *w, hf_time span)
{
    hf_time end = w->g.net.now + span;
    while (w->g.net.now < end) {
        hf_time now = w->g.net.now;
        hf_time t = hf_time_min(pw_deadline(&w->p), tw_managers_deadline(w));
        t = t > now + HF_MS(1) / 10 ? t : now + HF_MS(1) / 10;
        gs_run(&w->g, hf_time_min(t, end));
        pw_tick(&w->p, w->g.net.now);
        tw_managers(w);
        for (uint32_t i = 0; i < TW_HOSTS; i++) {
            (void)pw_turn(&w->p.host[i]);
        }
        tw_check(w);
    }
}

void tw_settle(struct tw_world *w, hf_time span)
{
    pw_settle(&w->p);
    tw_managers(w);
    for (hf_time end = w->g.net.now + span; w->g.net.now < end;) {
        hf_time left = end - w->g.net.now;
        tw_run(w, hf_time_min(left, HF_MS(2)));
        pw_settle(&w->p);
        tw_managers(w);
    }
}

/* ---- faults ---- */

void tw_cut(struct tw_world *w, uint32_t a, uint32_t b, bool cut)
{
    if (w->cut[a][b] == cut) {
        return;
    }
    pw_tell(&w->p, "-- managers of %c and %c %s each other", pw_name(a), pw_name(b),
            cut ? "do not reach" : "reach");
    w->cut[a][b] = w->cut[b][a] = cut;
    for (uint32_t i = 0; cut && i < PW_LINKS; i++) {
        struct pw_link *l = &w->p.link[i];
        bool both = (l->a == a && l->b == b) || (l->a == b && l->b == a);
        l->dead = l->dead || (l->used && both);
    }
}

void tw_power_on(struct tw_world *w, uint32_t i)
{
    if (!w->g.host[i].power) {
        gs_power_on(&w->g, i);
        w->m[i].back_at = w->g.net.now + 1;
    }
}

void tw_kill(struct tw_world *w, uint32_t i, hf_time away)
{
    struct gs_host *gh = &w->g.host[i];
    struct tw_manager *m = &w->m[i];
    if (!w->p.host[i].up || gh->frozen) {
        return;
    }
    GS_TELL(&w->g, "-- the manager of %s dies", gh->name);
    FILE *trace = w->p.trace;
    w->p.trace = NULL; /* it would say power */
    tw_end(w, i, false);
    w->p.trace = trace;
    gh->res[i].truth = GS_STOPPED;
    m->back_at = w->g.net.now + away;
    m->watch_at = w->g.net.now + HF_MS(1) + (hf_time)gs_below(&w->g, (uint64_t)HF_MS(10));
}

static void still(struct tw_world *w, uint32_t i)
{
    struct pw_host *h = &w->p.host[i];
    bool frozen = h->up && (w->m[i].stopped || w->g.host[i].frozen);
    if (frozen && !h->frozen) {
        w->m[i].stopped_at = w->g.net.now;
    }
    h->frozen = frozen;
}

void tw_stop(struct tw_world *w, uint32_t i, bool stopped)
{
    if (w->p.host[i].up && w->m[i].stopped != stopped) {
        GS_TELL(&w->g, "-- the manager of %s %s", w->g.host[i].name,
                stopped ? "stands still" : "goes on");
        w->m[i].stopped = stopped;
        still(w, i);
    }
}

void tw_freeze(struct tw_world *w, uint32_t i, bool frozen)
{
    if (frozen) {
        gs_pause(&w->g, i, GS_FREEZE);
    } else if (w->g.host[i].frozen) {
        w->g.host[i].frozen = false; /* both go on in the same moment */
        still(w, i);
        w->g.host[i].frozen = true;
        gs_resume(&w->g, i);
    }
    still(w, i);
}

/* ---- how it is ---- */

int tw_primary(const struct tw_world *w)
{
    uint32_t i = w->p.g.primary;
    const struct pw_host *h = &w->p.host[i];
    const struct gs_host *gh = &w->g.host[i];
    bool there = h->up && h->primary && h->epoch == w->p.g.epoch && h->listens &&
                 w->m[i].role == TW_PRIMARY && gs_runs(gh) && gh->g && pw_runs(h);
    const struct hf_gstate *s = there ? hf_group_state(gh->g) : NULL;
    return s && hf_group_standing(gh->g) == HF_GROUP_IN && hf_group_quorate(gh->g) &&
                   s->phase == HF_PHASE_RUNNING && s->epoch == h->epoch
               ? (int)i
               : -1;
}

bool tw_protected(const struct tw_world *w, bool all)
{
    int i = tw_primary(w);
    struct hf_pair_primary_info info;
    if (i < 0) {
        return false;
    }
    const struct pw_host *h = &w->p.host[i];
    hf_pair_primary_info(h->primary, pw_local(h), &info);
    const struct hf_pair_mirror *m;
    (void)hf_pair_lists_backup(&w->m[i].lists, &m);
    int b = m ? gs_host_of(&w->g, m->host) : -1;
    if (info.state != HF_PAIR_STATE_IN_SYNC || b < 0 || !pw_runs(&w->p.host[b])) {
        return false;
    }
    uint64_t version = hf_group_state(w->g.host[i].g)->version;
    for (uint32_t k = 0; all && k < TW_HOSTS; k++) {
        const struct gs_host *gh = &w->g.host[k];
        const struct hf_gstate *s = gh->g && gs_runs(gh) ? hf_group_state(gh->g) : NULL;
        bool in = s && hf_group_standing(gh->g) == HF_GROUP_IN && s->version == version &&
                  gh->record_version == version && !gh->writing;
        if (!in || !pw_runs(&w->p.host[k]) || w->g.side[k] != w->g.side[0]) {
            return false;
        }
        for (uint32_t j = 0; j < GS_JOBS_MAX; j++) { /* who was thought gone may be off at once */
            if (gh->job[j].used && gh->job[j].kind == GS_FENCE) {
                return false;
            }
        }
    }
    return (w->seen_set >> b & 1) && w->seen_version == version;
}

/* ---- beginning and end ---- */

void tw_init(struct tw_world *w, uint64_t seed, uint32_t n_clients, bool fenced, hf_time lease,
             bool steady)
{
    static const char *const names[] = {"copy1", "copy2", "copy3"};
    jmp_buf *fail = w->fail;
    FILE *trace = w->p.trace;
    uint8_t flags = HF_RESOURCE_PROMOTABLE | HF_RESOURCE_MIRROR | HF_RESOURCE_OPEN;
    memset(&w->m, 0, sizeof(*w) - offsetof(struct tw_world, m));
    w->fail = fail;
    w->p.fail = fail;
    w->p.trace = trace;
    gs_world_init(&w->g, TW_HOSTS, false, seed, steady);
    w->g.fail = fail;
    w->g.agent = &tw_agent;
    pw_init(&w->p, seed, n_clients, fenced);
    w->p.now = w->g.net.now;
    w->p.g.primary = 0;
    w->lease = lease;
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        (void)gs_define(&w->g, names[i], HF_RESOURCE_COPY,
                        flags | (fenced ? 0 : HF_RESOURCE_FENCE_NONE));
        w->g.host[i].reach = (uint16_t)(1u << i);
        w->p.host[i].up = false;
        w->p.host[i].lease = HF_NEVER;
    }
    w->g.n_created = w->g.n_defs;
    w->p.conf.silence = HF_S(1); /* service.c's */
}

void tw_fini(struct tw_world *w)
{
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        hf_pair_store_destroy(w->m[i].taken);
        hf_pair_store_destroy(w->m[i].own);
        w->m[i].taken = w->m[i].own = NULL;
    }
    gs_world_fini(&w->g);
    pw_fini(&w->p);
}
