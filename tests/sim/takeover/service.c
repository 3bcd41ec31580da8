/* What src/pg/service.c does between the group's actions and the pair's cores, as thinly as it can
 * be told: roles, lists, lease, mirror-state. */
#include <stdlib.h>
#include <string.h>

#include "sim/takeover/world.h"

#define GROW_TIME HF_S(5)
#define AGAIN HF_MS(1500)        /* mirror-state is answered by then, changed or not */
#define PATIENCE HF_S(5)         /* of a monitor */
#define NEVER_ANSWERED UINT8_MAX /* told[] of a daemon that knows nothing */

static const char *const seen_words[] = {
    [HF_SEEN_SYNCING] = "syncing", [HF_SEEN_CAUGHT_UP] = "caught-up",
    [HF_SEEN_IN_SYNC] = "in-sync", [HF_SEEN_SUSPENDED] = "suspended",
    [HF_SEEN_FAILED] = "failed",
};

static struct pw_host *pair_of(struct tw_world *w, const struct gs_host *h)
{
    w->p.now = w->g.net.now;
    return &w->p.host[h->i];
}

/* What the group's checks go by. */
static void enter(struct tw_world *w, uint32_t i, enum tw_role role)
{
    static const enum gs_truth truth[] = {
        [TW_STOPPED] = GS_STOPPED, [TW_BACKUP] = GS_UNPROMOTED, [TW_PROMOTED] = GS_PROMOTED,
        [TW_TAKING] = GS_PROMOTED, [TW_PRIMARY] = GS_OPEN,
    };
    w->m[i].role = role;
    w->g.host[i].res[i].truth = truth[role];
}

/* ---- the core's questions, and its lease ---- */

static struct tw_manager *manager_of(struct pw_host *h)
{
    return &tw_of_pair(h->w)->m[h->i];
}

void pw_asked(struct pw_host *h, const struct hf_pair_out *ask)
{
    hf_pair_lists_ask(&manager_of(h)->lists, ask);
}

bool pw_answered(struct pw_host *h)
{
    uint64_t id = hf_pair_lists_answer(&manager_of(h)->lists);
    if (id) {
        hf_pair_primary_answer(h->primary, id, true, pw_local(h));
    }
    return id != 0;
}

void pw_lease(struct pw_host *h)
{
    struct tw_manager *m = manager_of(h);
    struct hf_pair_primary_info info;
    hf_pair_primary_info(h->primary, pw_local(h), &info);
    hf_time until = hf_pair_lease_until(&info, tw_of_pair(h->w)->lease);
    if (until != m->lease_until) {
        m->lease_until = until;
        hf_pair_primary_lease(h->primary, until, pw_local(h));
    }
}

uint32_t pw_place(struct pw_host *h, uint32_t id)
{
    struct tw_world *w = tw_of_pair(h->w);
    const struct hf_pair_mirror *m;
    if (w->m[h->i].taken) {
        return 0; /* not before it has its sessions */
    }
    return hf_pair_lists_backup(&w->m[h->i].lists, &m) == id && m
               ? (uint32_t)(gs_host_of(&w->g, m->host) + 1)
               : 0;
}

bool pw_linked(const struct pw_world *p, uint32_t a, uint32_t b)
{
    const struct tw_world *w = tw_of_pair(p);
    return w->g.host[a].power && w->g.host[b].power && !w->cut[a][b];
}

/* What a group made up decides in sim-pair: here the real one does. */
bool pw_group_looks(struct pw_world *w, uint32_t host)
{
    (void)w;
    (void)host;
    return false;
}

bool pw_group_hears(struct pw_world *w, uint32_t host)
{
    return pw_group_looks(w, host);
}

bool pw_group_acts(struct pw_world *w)
{
    return pw_group_looks(w, 0);
}

bool pw_host_hears(struct pw_host *h)
{
    return pw_group_looks(h->w, h->i);
}

/* ---- roles ---- */

static void start(struct tw_world *w, uint32_t i)
{
    struct pw_host *h = &w->p.host[i];
    h->epoch = 0;
    h->heard = 0;
    pw_follow(h, 0);
    enter(w, i, TW_BACKUP);
}

static void disown(struct tw_manager *m)
{
    hf_pair_store_destroy(m->own);
    m->own = NULL;
}

static void demote(struct tw_world *w, uint32_t i)
{
    struct pw_host *h = &w->p.host[i];
    struct tw_manager *m = &w->m[i];
    if (!h->primary) {
        return;
    }
    uint64_t epoch = h->epoch;
    disown(m);
    m->own = m->role == TW_PRIMARY ? pw_copy(h) : m->taken;
    m->taken = NULL;
    m->opening = m->growing = 0;
    hf_pair_lists_reset(&m->lists);
    h->listens = false;
    h->heard = 0;
    h->epoch = 0;
    pw_retire(h);
    pw_follow(h, epoch); /* backup_new() */
    enter(w, i, TW_BACKUP);
}

static void stop(struct tw_world *w, uint32_t i)
{
    struct pw_host *h = &w->p.host[i];
    demote(w, i);
    disown(&w->m[i]);
    pw_unfollow(h);
    enter(w, i, TW_STOPPED);
}

/* ---- mirrors ---- */

static void list_text(const struct tw_world *w, uint16_t sync, uint16_t grow, uint16_t async,
                      const struct hf_gstate *s, char *buf, size_t n)
{
    size_t at = 0;
    buf[0] = '\0';
    for (uint8_t r = 0; r < s->n_resources; r++) {
        int d = gs_def_of(&w->g, s->resource[r].name);
        uint8_t host = s->resource[r].host;
        const char *mode = grow >> d & 1 ? "grow" : sync >> d & 1 ? "sync" : "async";
        if (!((sync | async) >> d & 1) || at >= n) {
            continue;
        }
        if (host < s->n_members) {
            at += (size_t)snprintf(buf + at, n - at, "%s%s=%s@%s=%s", at ? " " : "",
                                   s->resource[r].name, s->member[host].host,
                                   s->member[host].address, mode);
        } else if (sync >> d & 1) {
            at += (size_t)snprintf(buf + at, n - at, "%s%s==sync", at ? " " : "",
                                   s->resource[r].name);
        }
    }
}

/* ---- promote ---- */

/* Nothing is let out yet: until it opens, the group may change its mind. */
static int promote(struct tw_world *w, struct gs_host *gh, const struct gs_job *j)
{
    uint32_t i = gh->i;
    struct pw_host *h = &w->p.host[i];
    struct tw_manager *m = &w->m[i];
    if (h->primary && h->epoch == j->act.epoch) {
        return 0;
    }
    if (m->role == TW_STOPPED || h->primary || w->p.n_reigns == PW_REIGNS) {
        return 1;
    }
    char text[sizeof(m->asked)];
    const struct hf_pair_mirror *owed;
    list_text(w, j->sync, 0, 0, hf_group_state(gh->g), text, sizeof(text));
    (void)!hf_pair_lists_take(&m->lists, text); /* the same copy once more: S as it was */
    m->not_before = h->heard && !j->act.silent ? h->heard + w->lease : 0;
    m->taken = pw_reign(h, j->act.epoch, hf_pair_lists_backup(&m->lists, &owed));
    if (!m->taken) {
        m->taken = m->own;
        m->own = NULL;
    }
    disown(m);
    m->had_store = m->taken != NULL;
    m->lease_until = 0;
    enter(w, i, TW_PROMOTED);
    (void)pw_turn(h);
    return 0;
}

/* Now nobody else can be promoted any more: S is on a quorum's disks. */
static int open_service(struct tw_world *w, uint32_t i, const struct gs_job *j)
{
    struct tw_manager *m = &w->m[i];
    if (m->role == TW_PROMOTED) {
        m->opening = j->id;
        m->role = TW_TAKING;
    }
    if (m->role != TW_TAKING) {
        return m->role == TW_PRIMARY ? 0 : 1;
    }
    return m->opening == j->id ? -1 : 1;
}

/* The address is here from now on, and sessions are restored. */
static void taken(struct tw_world *w, uint32_t i)
{
    struct pw_host *h = &w->p.host[i];
    struct tw_manager *m = &w->m[i];
    tw_check_taking(w, i);
    w->p.g.epoch = h->epoch;
    w->p.g.primary = i;
    w->incarnation = h->incarnation;
    w->n_taken++;
    w->n_kept += m->had_store;
    pw_tell(&w->p, "%c takes the address in epoch %" PRIu64 "%s", pw_name(i), h->epoch,
            m->had_store ? ", with what it has" : "");
    uint64_t resets = w->p.n_resets;
    pw_restore(h, m->taken);
    w->n_lost += w->p.n_resets - resets;
    hf_pair_store_destroy(m->taken);
    m->taken = NULL;
    h->listens = true;
    enter(w, i, TW_PRIMARY);
    (void)pw_turn(h);
}

static int mirror_source(struct tw_world *w, struct gs_host *gh, const struct gs_job *j)
{
    struct pw_host *h = &w->p.host[gh->i];
    struct tw_manager *m = &w->m[gh->i];
    struct hf_pair_primary_info info;
    if (!h->primary) {
        return 1;
    }
    if (m->growing == j->id) {
        hf_pair_primary_info(h->primary, pw_local(h), &info);
        bool has_all = hf_pair_lists_has_all(&info);
        if (!has_all && w->g.net.now < m->grow_until) {
            return -1;
        }
        m->growing = 0;
        return has_all ? 0 : 1;
    }
    char text[sizeof(m->asked)];
    list_text(w, j->sync, j->grow, j->async, hf_group_state(gh->g), text, sizeof(text));
    GS_TRACE(&w->g, "%s   list: %s", gh->name, text);
    bool other = hf_pair_lists_take(&m->lists, text);
    (void)pw_answered(h); /* of the one before */
    if (other) {
        const struct hf_pair_mirror *to;
        hf_pair_primary_backup(h->primary, hf_pair_lists_backup(&m->lists, &to), pw_local(h));
    }
    m->growing = 0;
    (void)pw_turn(h);
    if (!hf_pair_lists_growing(&m->lists)) {
        return 0;
    }
    m->growing = j->id;
    m->grow_until = w->g.net.now + GROW_TIME;
    return -1;
}

static int mirror_target(struct tw_world *w, uint32_t i, uint64_t epoch)
{
    struct pw_host *h = &w->p.host[i];
    if (h->primary) {
        return 1;
    }
    if (w->m[i].role == TW_STOPPED) {
        start(w, i);
    }
    disown(&w->m[i]);
    pw_follow(h, epoch);
    (void)pw_turn(h);
    return 0;
}

/* ---- the agent ---- */

static int monitor(struct gs_world *g, struct gs_host *gh, uint32_t d)
{
    static const int code[] = {
        [TW_STOPPED] = 7, [TW_BACKUP] = 0, [TW_PROMOTED] = 8, [TW_TAKING] = 8, [TW_PRIMARY] = 8};
    struct tw_world *w = tw_of_group(g);
    struct pw_host *h = pair_of(w, gh);
    const struct tw_manager *m = &w->m[gh->i];
    if (d != gh->i || !h->up) {
        return 7;
    }
    if (h->frozen) {
        return g->net.now >= m->stopped_at + PATIENCE ? 1 : -1;
    }
    return code[m->role];
}

static int effect(struct gs_world *g, struct gs_host *gh, struct gs_job *j)
{
    struct tw_world *w = tw_of_group(g);
    struct pw_host *h = pair_of(w, gh);
    uint32_t i = gh->i;
    if (j->act.op == HF_OP_ACCESS) {
        return gh->reach >> j->resource & 1 ? 0 : 5;
    }
    if (j->resource != i || !h->up) {
        return j->act.op == HF_OP_STOP ? 0 : j->act.op == HF_OP_MONITOR ? 7 : 1;
    }
    if (h->frozen) {
        return -1;
    }
    switch (j->act.op) {
    case HF_OP_MONITOR:
        return monitor(g, gh, j->resource);
    case HF_OP_START:
        if (w->m[i].role == TW_STOPPED) {
            start(w, i);
        }
        return 0;
    case HF_OP_STOP:
        stop(w, i);
        return 0;
    case HF_OP_PROMOTE:
        return promote(w, gh, j);
    case HF_OP_OPEN:
        return open_service(w, i, j);
    case HF_OP_DEMOTE:
        demote(w, i);
        return w->m[i].role == TW_STOPPED ? 7 : 0;
    case HF_OP_MIRROR_SOURCE:
        return mirror_source(w, gh, j);
    case HF_OP_MIRROR_TARGET:
        return mirror_target(w, i, j->act.epoch);
    default:
        return 3;
    }
}

void tw_end(struct tw_world *w, uint32_t i, bool silently)
{
    struct tw_manager *m = &w->m[i];
    w->p.now = w->g.net.now;
    hf_pair_store_destroy(m->taken);
    disown(m);
    *m = (struct tw_manager){.role = TW_STOPPED};
    w->p.host[i].listens = false;
    w->p.host[i].heard = 0;
    pw_crash(&w->p.host[i], silently);
}

/* Power is gone, and with it the process. */
static void off(struct gs_world *g, struct gs_host *gh)
{
    tw_end(tw_of_group(g), gh->i, true);
}

const struct gs_agent tw_agent = {.effect = effect, .monitor = monitor, .off = off};

/* ---- mirror-state ---- */

/* The daemon asks, with the lists as they are now. */
static void ask(struct tw_world *w, uint32_t i)
{
    struct gs_host *gh = &w->g.host[i];
    struct tw_manager *m = &w->m[i];
    uint16_t sync, async;
    hf_group_mirrored(gh->g, &sync, &async);
    list_text(w, sync, 0, async, hf_group_state(gh->g), m->asked, sizeof(m->asked));
    hf_pair_lists_note(&m->lists, m->asked);
    m->asks = true;
    m->again_at = w->g.net.now + AGAIN;
    (void)pw_turn(&w->p.host[i]);
}

static uint8_t seen_of(const char *text)
{
    for (uint8_t k = 0; k < HF_ARRAY_LEN(seen_words); k++) {
        if (seen_words[k] && strncmp(text, seen_words[k], strlen(seen_words[k])) == 0) {
            return k;
        }
    }
    return HF_SEEN_NOTHING;
}

/* Is there something new? Then the answer is on its way. */
static void answer(struct tw_world *w, uint32_t i)
{
    struct tw_manager *m = &w->m[i];
    struct hf_pair_primary_info info;
    uint8_t now[GS_RES_MAX] = {0};
    char text[80];
    hf_pair_primary_info(w->p.host[i].primary, pw_local(&w->p.host[i]), &info);
    for (size_t k = 0; k < m->lists.n; k++) {
        int d = gs_def_of(&w->g, m->lists.mirror[k].copy);
        hf_pair_lists_state(&m->lists, k, &info, text, sizeof(text));
        now[d] = seen_of(text);
    }
    if (memcmp(now, m->told, sizeof(now)) == 0 && w->g.net.now < m->again_at) {
        return;
    }
    memcpy(m->told, now, sizeof(now));
    memcpy(m->answer, now, sizeof(now));
    m->asks = false;
    m->answer_at = w->g.net.now + HF_MS(1) + (hf_time)gs_below(&w->g, (uint64_t)HF_MS(20));
}

static void deliver(struct tw_world *w, uint32_t i)
{
    struct gs_host *gh = &w->g.host[i];
    struct tw_manager *m = &w->m[i];
    m->answer_at = 0;
    for (uint8_t k = 0; gh->g && k < TW_HOSTS; k++) {
        int d = gs_def_at(&w->g, gh, k);
        if (d >= 0 && d != (int)i) {
            GS_TRACE(&w->g, "%s   sees %s: %u", gh->name, w->g.def[d].name, m->answer[d]);
            gs_step(&w->g, gh,
                    &(struct hf_group_in){
                        .kind = HF_GROUP_IN_MIRROR, .resource = k, .seen = m->answer[d]});
        }
    }
}

static void mirror_state(struct tw_world *w, uint32_t i)
{
    struct gs_host *gh = &w->g.host[i];
    struct pw_host *h = &w->p.host[i];
    struct tw_manager *m = &w->m[i];
    int self = gh->g && gs_runs(gh) ? (int)hf_group_self(gh->g) : (int)HF_GROUP_NONE;
    uint8_t role = self == (int)HF_GROUP_NONE ? (uint8_t)HF_ROLE_UNKNOWN : HF_ROLE_STOPPED;
    for (uint8_t k = 0; self != (int)HF_GROUP_NONE && k < TW_HOSTS; k++) {
        role = gs_def_at(&w->g, gh, k) == (int)i ? hf_group_role(gh->g, (uint8_t)self, k) : role;
    }
    if (role != HF_ROLE_PROMOTED && role != HF_ROLE_OPEN) { /* nobody asks */
        m->asks = false;
        m->answer_at = 0;
        memset(m->told, NEVER_ANSWERED, sizeof(m->told));
        return;
    }
    if (m->answer_at) {
        if (w->g.net.now >= m->answer_at) {
            deliver(w, i);
        }
        return;
    }
    if (!h->primary || !pw_runs(h)) {
        return;
    }
    if (!m->asks) {
        ask(w, i);
    }
    answer(w, i);
}

/* ---- all that is due ---- */

/* The daemon sees that the process has ended. */
static void watch(struct tw_world *w, uint32_t i)
{
    struct gs_host *gh = &w->g.host[i];
    struct tw_manager *m = &w->m[i];
    if (!m->watch_at || w->g.net.now < m->watch_at || gh->held || gh->paused || gh->frozen) {
        return;
    }
    m->watch_at = 0;
    for (uint8_t k = 0; gh->g && gs_runs(gh) && k < TW_HOSTS; k++) {
        if (gs_def_at(&w->g, gh, k) == (int)i) {
            gs_step(&w->g, gh,
                    &(struct hf_group_in){.kind = HF_GROUP_IN_DONE,
                                          .resource = k,
                                          .op = HF_OP_MONITOR,
                                          .rc = monitor(&w->g, gh, i)});
        }
    }
}

void tw_managers(struct tw_world *w)
{
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        struct tw_manager *m = &w->m[i];
        struct pw_host *h = &w->p.host[i];
        w->p.now = w->g.net.now;
        if (m->back_at && w->g.net.now >= m->back_at && w->g.host[i].power &&
            !w->g.host[i].frozen) {
            m->back_at = 0;
            pw_boot(h);
        }
        if (m->role == TW_TAKING && pw_runs(h) && w->g.net.now >= m->not_before) {
            taken(w, i);
        }
        watch(w, i);
        mirror_state(w, i);
    }
}

hf_time tw_managers_deadline(const struct tw_world *w)
{
    hf_time t = HF_NEVER;
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        const struct tw_manager *m = &w->m[i];
        t = hf_time_min(t, m->back_at ? m->back_at : HF_NEVER);
        t = hf_time_min(t, m->answer_at ? m->answer_at : HF_NEVER);
        t = hf_time_min(t, m->watch_at ? m->watch_at : HF_NEVER);
        t = hf_time_min(t, m->role == TW_TAKING ? m->not_before : HF_NEVER);
    }
    return t;
}
