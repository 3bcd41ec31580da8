/* What the group decides, the same at every member: from the state, and from what all have heard.
 */
#include <stdio.h>

#include "core/group/internal.h"

#define RESTARTS_MAX 1 /* in place, before a resource counts as failed */
#define MOVES_MAX 3    /* to a mirror, before a copy that failed so often is tried in place first */
#define ROUNDS_MAX 12  /* one decision leads to the next; more than so many would be a loop */

/* ---- what is known ---- */

uint16_t hf_group_absent(const struct hf_group *g)
{
    return (uint16_t)(((1u << g->s.n_members) - 1) & ~(unsigned)g->present);
}

uint16_t hf_group_copies(const struct hf_gstate *s)
{
    uint16_t mask = 0;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (s->resource[i].kind == HF_RESOURCE_COPY) {
            mask |= BIT(i);
        }
    }
    return mask;
}

uint16_t hf_group_mirrored_copies(const struct hf_gstate *s)
{
    uint16_t mask = 0;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (s->resource[i].kind == HF_RESOURCE_COPY && s->resource[i].flags & HF_RESOURCE_MIRROR) {
            mask |= BIT(i);
        }
    }
    return mask;
}

static uint16_t attached(const struct hf_gstate *s)
{
    return (uint16_t)(((1u << s->n_resources) - 1) & ~(unsigned)hf_group_copies(s));
}

static uint16_t declared_safe(const struct hf_gstate *s)
{
    uint16_t mask = 0;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (s->resource[i].flags & HF_RESOURCE_FENCE_NONE) {
            mask |= BIT(i);
        }
    }
    return mask;
}

static uint8_t role_at(const struct hf_group *g, uint8_t m, uint8_t r)
{
    const struct hf_gpeer *p = HAS(g->present, m) ? hf_group_peer(g, m) : NULL;
    return p ? p->role[r] : HF_ROLE_UNKNOWN;
}

bool hf_group_promotable(const struct hf_gstate *s, uint8_t r)
{
    return s->resource[r].kind == HF_RESOURCE_COPY && HAS(s->in_sync, r) &&
           s->resource[r].mirror != HF_MIRROR_DIVERGED;
}

static bool resigned(const struct hf_group *g, uint8_t m)
{
    const struct hf_gpeer *p = hf_group_peer(g, m);
    return g->s.member[m].leaving || (p && p->resigned);
}

/* Has it the configuration of this resource, if there is one? */
static bool configured(const struct hf_group *g, const struct hf_gpeer *p, uint8_t r)
{
    return g->s.resource[r].config_hash == 0 || HAS(p->config, r);
}

bool hf_group_able_at(const struct hf_group *g, uint8_t m, uint8_t r)
{
    const struct hf_gpeer *p = HAS(g->present, m) ? hf_group_peer(g, m) : NULL;
    if (!p || resigned(g, m) || !HAS(p->access, r) || !configured(g, p, r)) {
        return false;
    }
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        if (g->s.resource[i].kind == HF_RESOURCE_ATTACHED && !configured(g, p, i)) {
            return false;
        }
    }
    return true;
}

/* May the resource run at m, as far as m itself is concerned? */
static bool may_host(const struct hf_group *g, uint8_t m, uint8_t r)
{
    return hf_group_able_at(g, m, r) && !HAS(g->s.resource[r].failed_on, m) &&
           role_at(g, m, r) != HF_ROLE_STUCK;
}

bool hf_group_promotable_at(const struct hf_group *g, uint8_t m, uint8_t r)
{
    return hf_group_promotable(&g->s, r) && !HAS(g->s.resource[r].failed_on, m) &&
           hf_group_able_at(g, m, r);
}

/* Member m may still be starting this: what it told of it counts no more until it tells again. */
static void doubt(struct hf_group *g, uint8_t m, uint8_t r)
{
    for (uint8_t i = 0; i < g->n_peers; i++) {
        struct hf_gpeer *p = &g->peer[i];
        if (p->member == m && HAS(g->present, m) &&
            (p->role[r] == HF_ROLE_STOPPED || p->role[r] == HF_ROLE_UNPROMOTED)) {
            p->role[r] = HF_ROLE_UNKNOWN;
            if (p->node_id == g->self_node) {
                g->local[r].told = HF_ROLE_UNKNOWN;
            }
        }
    }
}

void hf_group_set_host(struct hf_group *g, uint8_t r, uint8_t m)
{
    struct hf_gresource *x = &g->s.resource[r];
    if (x->host != HF_GROUP_NONE && x->host != m) {
        doubt(g, x->host, r);
    }
    x->host = m;
}

void hf_group_doubt_primary(struct hf_group *g)
{
    struct hf_gstate *s = &g->s;
    if (s->phase == HF_PHASE_CLEARING && s->primary != HF_GROUP_NONE) {
        s->resource[s->primary].host = HF_GROUP_NONE; /* it was to wait until the copy is free */
    }
    for (uint8_t i = 0; i < s->n_resources && s->phase >= HF_PHASE_PROMOTING; i++) {
        if (i == s->primary || s->resource[i].kind == HF_RESOURCE_ATTACHED) {
            doubt(g, s->primary_host, i);
        }
    }
}

void hf_group_unmirrored(struct hf_group *g)
{
    g->mirrored_epoch = 0;
    g->sync = g->async = 0;
}

void hf_group_forget_seen(struct hf_group *g, uint8_t r)
{
    g->seen[r] = HF_SEEN_NOTHING;
    g->local[r].told_seen = HF_SEEN_NOTHING;
}

/* ---- members ---- */

static void set_subgroup(struct hf_group *g, struct hf_gmember *m)
{
    uint8_t want = m->subgroup;
    if (want == HF_GROUP_NONE || !HAS(m->access, want)) {
        want = HF_GROUP_NONE; /* ineligible (B8) ... */
        for (uint8_t i = 0; i < g->s.n_resources; i++) {
            if (g->s.resource[i].kind == HF_RESOURCE_COPY && HAS(m->access, i)) {
                want = i; /* ... or the first in priority order that it reaches */
                break;
            }
        }
    }
    if (want != m->subgroup && (want != HF_GROUP_NONE || m->subgroup == HF_GROUP_NONE)) {
        m->subgroup = want;
        hf_group_changed(g);
    }
}

static void members(struct hf_group *g)
{
    for (uint8_t i = 0; i < g->s.n_members; i++) {
        const struct hf_gpeer *p = HAS(g->present, i) ? hf_group_peer(g, i) : NULL;
        struct hf_gmember *m = &g->s.member[i];
        if (!p) {
            continue;
        }
        uint16_t access = p->access & hf_group_copies(&g->s);
        if (m->fenced || m->access != access || strcmp(m->address, p->address) != 0) {
            m->fenced = false;
            m->access = access;
            memset(m->address, 0, sizeof(m->address));
            memcpy(m->address, p->address, strlen(p->address));
            hf_group_changed(g);
        }
        set_subgroup(g, m);
    }
}

/* Who may be running what: kept with the state, so that it is fenced when it is absent. */
static void dirty(struct hf_group *g)
{
    struct hf_gstate *s = &g->s;
    bool reign = s->phase >= HF_PHASE_PROMOTING;
    for (uint8_t i = 0; i < s->n_members; i++) {
        if (!HAS(g->present, i)) {
            continue;
        }
        uint16_t mask = 0;
        bool primary = (reign || g->granted) && s->primary_host == i, unsure = false;
        for (uint8_t k = 0; k < s->n_resources; k++) {
            uint8_t role = role_at(g, i, k);
            bool reigns = reign && s->primary_host == i;
            bool host = s->resource[k].kind == HF_RESOURCE_COPY
                            ? s->resource[k].host == i || (reigns && k == s->primary)
                            : reigns;
            if (host || (role != HF_ROLE_STOPPED &&
                         (role != HF_ROLE_UNKNOWN || HAS(s->member[i].dirty, k)))) {
                mask |= BIT(k);
            }
            primary = primary || hf_group_is_primary_role(role);
            unsure = unsure || role == HF_ROLE_UNKNOWN || role == HF_ROLE_FAILED ||
                     role == HF_ROLE_STUCK;
        }
        primary = primary || (s->member[i].was_primary && unsure);
        if (mask != s->member[i].dirty || primary != s->member[i].was_primary) {
            s->member[i].dirty = mask;
            s->member[i].was_primary = primary;
            hf_group_changed(g);
        }
    }
}

/* ---- fencing ---- */

/* What an absent member may run that must not run twice. */
static bool dangerous(const struct hf_group *g, uint8_t m, uint16_t resources)
{
    const struct hf_gmember *x = &g->s.member[m];
    uint16_t all = x->was_primary ? hf_group_copies(&g->s) : 0;
    return !x->fenced && (x->dirty & (resources | all) & ~declared_safe(&g->s)) != 0;
}

static bool backup_wanted_elsewhere(const struct hf_group *g, uint8_t r);

uint16_t hf_group_fence_targets(const struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    uint16_t mask = 0;
    if (g->standing != HF_GROUP_IN || !g->have_state || !g->decides || s->paused) {
        return 0;
    }
    for (uint8_t m = 0; m < s->n_members; m++) {
        if (HAS(g->present, m)) {
            for (uint8_t i = 0; i < s->n_resources; i++) { /* it can't be stopped */
                if (role_at(g, m, i) == HF_ROLE_STUCK &&
                    !(s->resource[i].flags & HF_RESOURCE_FENCE_NONE)) {
                    mask |= BIT(m);
                }
            }
            continue;
        }
        if (HAS(g->procdown, m)) {
            continue;
        }
        bool fence = g->half && !s->member[m].fenced;
        if (s->phase == HF_PHASE_CLEARING) {
            fence = fence || dangerous(g, m, BIT(s->primary) | attached(s));
        }
        for (uint8_t i = 0; i < s->n_resources; i++) {
            fence = fence || (dangerous(g, m, BIT(i)) && HAS(s->member[m].dirty, i) &&
                              backup_wanted_elsewhere(g, i));
        }
        if (fence) {
            mask |= BIT(m);
        }
    }
    return mask;
}

/* ---- hosts of backup copies (B3, B7, B14) ---- */

static uint8_t backup_candidate(const struct hf_group *g, uint8_t r)
{
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        bool primary = m == g->s.primary_host && g->s.phase != HF_PHASE_NONE;
        if (g->s.member[m].subgroup == r && !primary && may_host(g, m, r)) {
            return m;
        }
    }
    return HF_GROUP_NONE;
}

static bool backup_wanted_elsewhere(const struct hf_group *g, uint8_t r)
{
    const struct hf_gresource *x = &g->s.resource[r];
    return x->kind == HF_RESOURCE_COPY && r != g->s.primary && x->host == HF_GROUP_NONE &&
           g->s.cold == HF_COLD_NO && /* its former host may be booting */
           backup_candidate(g, r) != HF_GROUP_NONE;
}

/* Nobody else has it, or may have it. */
static bool copy_is_free(const struct hf_group *g, uint8_t r, uint8_t but)
{
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        if (m == but) {
            continue;
        }
        uint8_t role = role_at(g, m, r);
        bool may = HAS(g->s.member[m].access | g->s.member[m].dirty, r) || role != HF_ROLE_UNKNOWN;
        if (HAS(g->present, m) ? role != HF_ROLE_STOPPED && may
                               : HAS(g->s.member[m].dirty, r) && dangerous(g, m, BIT(r))) {
            return false;
        }
    }
    return true;
}

static void backup_host(struct hf_group *g, uint8_t r)
{
    struct hf_gresource *x = &g->s.resource[r];
    uint8_t h = x->host;
    bool primary = h == g->s.primary_host && g->s.phase != HF_PHASE_NONE; /* it has one already */
    if (h != HF_GROUP_NONE && !primary && g->s.member[h].subgroup == r &&
        (HAS(g->present, h) ? may_host(g, h, r) : HAS(g->procdown, h))) {
        return;
    }
    if (h != HF_GROUP_NONE) {
        doubt(g, h, r);
        x->host = HF_GROUP_NONE;
        hf_group_changed(g);
    }
    uint8_t m = backup_candidate(g, r);
    if (m != HF_GROUP_NONE && copy_is_free(g, r, m)) {
        x->host = m;
        if (x->mirror == HF_MIRROR_IN_SYNC && x->flags & HF_RESOURCE_MIRROR) {
            x->mirror = HF_MIRROR_AIMED;
            hf_group_forget_seen(g, r);
            hf_group_unmirrored(g);
        }
        hf_group_changed(g);
        if (x->flags & (HF_RESOURCE_MIRROR | HF_RESOURCE_PROMOTABLE)) {
            hf_group_event(g, false, "%s is the backup host of %s", g->s.member[m].host, x->name);
        }
    }
}

static void hosts(struct hf_group *g)
{
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        if (g->s.resource[i].kind == HF_RESOURCE_COPY && i != g->s.primary) {
            backup_host(g, i);
        }
    }
}

/* ---- the primary ---- */

/* Members in the order in which they are tried for a copy: its host, its subgroup, others. */
static uint8_t nth_candidate(const struct hf_group *g, uint8_t r, uint8_t n)
{
    const struct hf_gstate *s = &g->s;
    uint8_t host = r == s->primary ? s->primary_host : s->resource[r].host;
    uint8_t k = 0;
    for (uint8_t pass = 0; pass < 3; pass++) {
        for (uint8_t m = 0; m < s->n_members; m++) {
            uint8_t rank = m == host ? 0 : s->member[m].subgroup == r ? 1 : 2;
            if (rank == pass && k++ == n) {
                return m;
            }
        }
    }
    return HF_GROUP_NONE;
}

static bool choose_member(const struct hf_group *g, uint8_t r, uint8_t *ret_member, bool *ret_wait)
{
    for (uint8_t n = 0; n < g->s.n_members; n++) {
        uint8_t m = nth_candidate(g, r, n);
        bool reaches = HAS(g->s.member[m].access, r);
        if (HAS(g->s.resource[r].failed_on, m) || resigned(g, m)) {
            continue;
        }
        if (HAS(g->present, m) && reaches && role_at(g, m, r) == HF_ROLE_UNKNOWN) {
            *ret_wait = true; /* it is looking what it runs */
            return false;
        }
        if (!HAS(g->present, m) && HAS(g->procdown, m) && n == 0 && reaches) {
            *ret_wait = true; /* its daemon comes back (G6) */
            return false;
        }
        if (may_host(g, m, r)) {
            *ret_member = m;
            return true;
        }
    }
    return false;
}

/* The next primary. False: none can be; *ret_wait: one may soon be. */
static bool choose(const struct hf_group *g, uint8_t *ret_resource, uint8_t *ret_member,
                   bool *ret_wait)
{
    const struct hf_gstate *s = &g->s;
    *ret_wait = false;
    if (s->cold == HF_COLD_PRIMARY && s->primary_host != HF_GROUP_NONE &&
        !HAS(g->present, s->primary_host) && !s->member[s->primary_host].fenced) {
        *ret_wait = true; /* the former primary host may be booting, too (G5) */
        return false;
    }
    for (uint8_t n = 0; n <= s->n_resources; n++) {
        uint8_t r = n == 0 ? s->primary : (uint8_t)(n - 1);
        if (r == HF_GROUP_NONE || (n > 0 && r == s->primary) || !hf_group_promotable(s, r)) {
            continue;
        }
        if (choose_member(g, r, ret_member, ret_wait)) {
            *ret_resource = r;
            return true;
        }
        if (*ret_wait) {
            return false;
        }
    }
    return false;
}

static void begin(struct hf_group *g, uint8_t r, uint8_t m)
{
    struct hf_gstate *s = &g->s;
    hf_group_forget_switch(g);
    hf_group_revoke(g);
    if (s->phase == HF_PHASE_CLEARING && s->primary == r && s->primary_host == m) {
        return;
    }
    if (s->primary != r || s->primary_host != m) {
        s->resource[r].restarts = 0;
    }
    hf_group_doubt_primary(g);
    s->primary = r;
    s->primary_host = m;
    hf_group_set_host(g, r, m);
    s->phase = HF_PHASE_CLEARING;
    hf_group_changed(g);
    hf_group_event(g, false, "%s is to run %s as primary; first all others must have stopped",
                   s->member[m].host, s->resource[r].name);
}

/* The one that was chosen can't: another one, or none. */
static void next(struct hf_group *g)
{
    uint8_t r, m;
    bool wait;
    if (choose(g, &r, &m, &wait)) {
        begin(g, r, m);
    } else if (g->s.phase != HF_PHASE_NONE) {
        hf_group_forget_switch(g);
        hf_group_revoke(g);
        hf_group_doubt_primary(g);
        g->s.phase = HF_PHASE_NONE;
        hf_group_changed(g);
        hf_group_event(g, true,
                       wait ? "no primary now; waiting for the former primary host"
                            : "no primary: no host can run a copy that is in sync");
    }
}

/* Is there another copy that could be promoted now? */
static bool other_copy(const struct hf_group *g)
{
    for (uint8_t r = 0; r < g->s.n_resources; r++) {
        uint8_t m;
        bool wait = false;
        if (r != g->s.primary && hf_group_promotable(&g->s, r) && choose_member(g, r, &m, &wait)) {
            return true;
        }
    }
    return false;
}

/* A copy in S that follows: it can go on at once. None of one that failed often itself not long
 * ago, so that what ends every server does not move the primary back and forth for ever.
 * *ret_wait: there is none, but one whose host comes back, or still looks at what it runs. */
static uint8_t living_mirror(const struct hf_group *g, bool *ret_wait)
{
    const struct hf_gstate *s = &g->s;
    *ret_wait = false;
    for (uint8_t r = 0; r < s->n_resources; r++) {
        const struct hf_gresource *x = &s->resource[r];
        uint8_t h = x->host;
        if (r == s->primary || !(x->flags & HF_RESOURCE_MIRROR) || x->mirror != HF_MIRROR_IN_SYNC ||
            x->restarts >= MOVES_MAX || h == HF_GROUP_NONE || h == s->primary_host) {
            continue;
        }
        if (!HAS(g->present, h)) {
            *ret_wait = *ret_wait || HAS(g->procdown, h);
        } else if (hf_group_promotable_at(g, h, r)) {
            if (role_at(g, h, r) == HF_ROLE_UNPROMOTED) {
                return r;
            }
            *ret_wait = *ret_wait || role_at(g, h, r) == HF_ROLE_UNKNOWN;
        }
    }
    return HF_GROUP_NONE;
}

/* The primary had to let go for a while, as there was no quorum. What only its process had is lost
 * there (sessions), but a mirror has it: that one goes on; without one it is the same again, at m.
 */
static void go_on(struct hf_group *g, uint8_t m)
{
    struct hf_gstate *s = &g->s;
    bool wait = false;
    uint8_t mirror = s->restart_always ? HF_GROUP_NONE : living_mirror(g, &wait);
    if (mirror != HF_GROUP_NONE) {
        begin(g, mirror, s->resource[mirror].host);
    } else if (!wait) {
        begin(g, s->primary, m);
    }
}

/*
 * The primary resource, or one that is attached to it, failed at a healthy host (B13). A mirror
 * goes on at once, unless the operator wants otherwise; without one it is once restarted in place.
 * Then a fault of the host (OCF exit codes 2 to 5) makes a peer of the subgroup
 * try; any other is one of the copy, and the next copy is tried.
 */
void hf_group_primary_failed(struct hf_group *g, uint8_t resource, uint8_t rc, bool restart)
{
    struct hf_gstate *s = &g->s;
    struct hf_gresource *r = &s->resource[s->primary];
    bool host_fault = rc >= 2 && rc <= 5;
    hf_group_event(g, true, "%s failed on %s: %s", s->resource[resource].name,
                   s->member[s->primary_host].host,
                   g->fail_why[0] ? g->fail_why : "it does not run as it should");
    hf_group_forget_switch(g);
    hf_group_revoke(g);
    bool move = restart && !host_fault && resource == s->primary && !s->restart_always &&
                r->restarts < MOVES_MAX;
    bool wait;
    uint8_t mirror = move ? living_mirror(g, &wait) : HF_GROUP_NONE;
    if (mirror != HF_GROUP_NONE) {
        uint8_t restarts = s->resource[mirror].restarts;
        r->restarts++;
        begin(g, mirror, s->resource[mirror].host);
        s->resource[mirror].restarts = restarts;
        return;
    }
    if (restart && !host_fault && r->restarts < RESTARTS_MAX &&
        role_at(g, s->primary_host, s->primary) != HF_ROLE_STUCK) {
        r->restarts++;
        g->count.restarts++;
        s->phase = HF_PHASE_CLEARING;
        hf_group_changed(g);
        return;
    }
    if (!host_fault && resource == s->primary && other_copy(g)) {
        r->failed_on = (uint16_t)((1u << s->n_members) - 1);
    } else {
        r->failed_on |= BIT(s->primary_host);
    }
    hf_group_changed(g);
    next(g);
}

/* Has everybody else let go, or been fenced? */
static bool clear(const struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    uint16_t safe = declared_safe(s);
    if (hf_group_fence_targets(g) & ~BIT(s->primary_host)) {
        return false;
    }
    for (uint8_t m = 0; m < s->n_members; m++) {
        if (!HAS(g->present, m)) {
            if (dangerous(g, m, BIT(s->primary) | attached(s))) {
                return false; /* its daemon is down, and it may be running */
            }
            continue;
        }
        for (uint8_t i = 0; i < s->n_resources; i++) {
            uint8_t role = role_at(g, m, i);
            bool copy = s->resource[i].kind == HF_RESOURCE_COPY;
            bool here = m == s->primary_host;
            if (role == HF_ROLE_STOPPED || (role == HF_ROLE_STUCK && HAS(safe, i))) {
                continue;
            }
            if (role == HF_ROLE_UNPROMOTED && copy && (here || i != s->primary)) {
                continue;
            }
            return false;
        }
    }
    return true;
}

/* A host that could be cut off, or frozen, is neither. */
bool hf_group_silent(const struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    for (uint8_t m = 0; m < s->n_members; m++) {
        if (!HAS(g->present, m)) {
            if (s->member[m].was_primary && !s->member[m].fenced) {
                return false;
            }
            continue;
        }
        for (uint8_t i = 0; i < s->n_resources; i++) {
            uint8_t role = role_at(g, m, i);
            if (role != HF_ROLE_STOPPED && role != HF_ROLE_UNPROMOTED && m != s->primary_host) {
                return false;
            }
        }
    }
    return true;
}

/* A reign begins. Of the last one that got as far as a fence text its epoch stays there, so that
 * who follows knows that none of those since was ever opened. */
static void next_epoch(struct hf_gstate *s)
{
    if (*s->fence_text && strncmp(s->fence_text, HF_GROUP_AFTER, strlen(HF_GROUP_AFTER)) != 0) {
        memset(s->fence_text, 0, sizeof(s->fence_text));
        (void)snprintf(s->fence_text, sizeof(s->fence_text), HF_GROUP_AFTER "%llu",
                       (unsigned long long)s->epoch);
    }
    s->epoch++;
}

static void promote(struct hf_group *g)
{
    struct hf_gstate *s = &g->s;
    s->phase = HF_PHASE_PROMOTING;
    if (!s->granted) {
        next_epoch(s);
    }
    s->granted = false;
    s->cold = s->cold ? HF_COLD_BACKUPS : HF_COLD_NO;
    hf_group_changed(g);
    g->count.promotions++;
    hf_group_event(g, false, "epoch %llu: %s promotes %s", (unsigned long long)s->epoch,
                   s->member[s->primary_host].host, s->resource[s->primary].name);
}

/* The primary host has promoted its copy: whatever was in sync with another one is not any more. */
void hf_group_promoted(struct hf_group *g)
{
    struct hf_gstate *s = &g->s;
    uint16_t mirrored = hf_group_mirrored_copies(s);
    bool same = s->last_primary == s->primary;
    g->granted = 0;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        struct hf_gresource *r = &s->resource[i];
        if (!HAS(mirrored, i) || i == s->primary || r->mirror == HF_MIRROR_DIVERGED) {
            continue;
        }
        if (!same) {
            s->in_sync &= (uint16_t)~BIT(i);
        }
        r->mirror = HAS(s->in_sync, i) ? HF_MIRROR_AIMED : HF_MIRROR_NONE;
    }
    s->in_sync |= BIT(s->primary);
    s->resource[s->primary].mirror = HF_MIRROR_IN_SYNC;
    s->resource[s->primary].epoch = s->epoch;
    s->last_primary = s->primary;
    s->init = false;
    s->phase = HF_PHASE_OPENING;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        hf_group_forget_seen(g, i);
    }
    hf_group_unmirrored(g);
    hf_group_changed(g);
}

static bool all_open(const struct hf_group *g)
{
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        if ((i == g->s.primary || g->s.resource[i].kind == HF_RESOURCE_ATTACHED) &&
            role_at(g, g->s.primary_host, i) != HF_ROLE_OPEN) {
            return false;
        }
    }
    return true;
}

static bool attached_failed(const struct hf_group *g, uint8_t *ret_resource)
{
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        uint8_t role = role_at(g, g->s.primary_host, i);
        if (g->s.resource[i].kind == HF_RESOURCE_ATTACHED &&
            (role == HF_ROLE_FAILED || role == HF_ROLE_STUCK)) {
            *ret_resource = i;
            return true;
        }
    }
    return false;
}

static void reign(struct hf_group *g)
{
    struct hf_gstate *s = &g->s;
    uint8_t h = s->primary_host, role = role_at(g, h, s->primary), failed;
    if (!HAS(g->present, h)) {
        if (!HAS(g->procdown, h)) {
            next(g);
        }
        return;
    }
    bool idle = role == HF_ROLE_STOPPED || role == HF_ROLE_UNPROMOTED;
    if (resigned(g, h) || (s->phase == HF_PHASE_PROMOTING && idle &&
                           !hf_group_able_at(g, h, s->primary))) { /* a new disk, perhaps */
        next(g);
    } else if (role == HF_ROLE_FAILED || role == HF_ROLE_STUCK) {
        hf_group_primary_failed(g, s->primary, 1, s->phase == HF_PHASE_RUNNING);
    } else if (s->phase > HF_PHASE_PROMOTING && idle) {
        go_on(g, h);
    } else if (s->phase > HF_PHASE_PROMOTING && attached_failed(g, &failed)) {
        hf_group_primary_failed(g, failed, 1, true);
    } else if (s->phase == HF_PHASE_OPENING && all_open(g)) {
        s->phase = HF_PHASE_RUNNING;
        hf_group_changed(g);
        hf_group_event(g, false, "epoch %llu: %s is primary on %s", (unsigned long long)s->epoch,
                       s->resource[s->primary].name, s->member[h].host);
    }
}

/* ---- planned switches ---- */

void hf_group_revoke(struct hf_group *g)
{
    g->granted = 0;
    if (g->s.granted) {
        g->s.granted = false;
        hf_group_changed(g);
    }
}

void hf_group_forget_switch(struct hf_group *g)
{
    if (g->s.next != HF_GROUP_NONE) {
        g->s.next = g->s.next_host = HF_GROUP_NONE;
        hf_group_changed(g);
    }
}

/* The primary lets go, and the other copy takes its place. */
static void switch_over(struct hf_group *g, uint8_t r, uint8_t m)
{
    struct hf_gstate *s = &g->s;
    hf_group_forget_switch(g);
    hf_group_revoke(g);
    hf_group_doubt_primary(g);
    s->primary = r;
    s->primary_host = m;
    hf_group_set_host(g, r, m);
    s->resource[r].restarts = 0;
    s->phase = HF_PHASE_CLEARING;
    hf_group_changed(g);
}

/* Does the copy follow there, so that its promotion can be prepared? */
static bool follows_at(const struct hf_group *g, uint8_t r, uint8_t m)
{
    const struct hf_gresource *x = &g->s.resource[r];
    return r != g->s.primary && x->flags & HF_RESOURCE_MIRROR && x->flags & HF_RESOURCE_OPEN &&
           x->mirror == HF_MIRROR_IN_SYNC && x->host == m &&
           role_at(g, m, r) == HF_ROLE_UNPROMOTED && hf_group_promotable_at(g, m, r);
}

void hf_group_switch(struct hf_group *g, uint8_t r, uint8_t m)
{
    if (!follows_at(g, r, m)) {
        switch_over(g, r, m);
        return;
    }
    g->s.next = r;
    g->s.next_host = m;
    g->prepared = 0;
    g->prepare_done = false;
    hf_group_changed(g);
}

/* While the old primary lets go, all get on their disks what they must have there before the new
 * one is promoted: its reign, and that it may be running. */
static void grant(struct hf_group *g)
{
    next_epoch(&g->s);
    g->s.granted = true;
    g->granted = g->s.version;
    dirty(g);
    g->granted = g->s.version;
}

/* Both hosts have prepared what they could: now. */
static void prepared(struct hf_group *g)
{
    struct hf_gstate *s = &g->s;
    if (s->phase != HF_PHASE_RUNNING || s->next == HF_GROUP_NONE) {
        return;
    }
    if (!follows_at(g, s->next, s->next_host)) {
        hf_group_event(g, true, "the switch to %s is given up: it does not follow any more",
                       s->resource[s->next].name);
        hf_group_forget_switch(g);
    } else if (HAS(g->prepared, s->next_host) && HAS(g->prepared, s->primary_host)) {
        switch_over(g, s->next, s->next_host);
        grant(g);
    }
}

/* All have let go for a prepared switch. Whoever was to follow may have failed meanwhile, and have
 * lost what only its process had: then another one goes on that has not, mostly the former one. */
static void cleared(struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    bool wait, fell = s->granted && role_at(g, s->primary_host, s->primary) == HF_ROLE_STOPPED;
    uint8_t mirror = fell ? living_mirror(g, &wait) : HF_GROUP_NONE;
    if (mirror == HF_GROUP_NONE) {
        promote(g);
        return;
    }
    hf_group_event(g, true, "the switch to %s is given up: it does not follow any more",
                   s->resource[s->primary].name);
    hf_group_revoke(g);
    begin(g, mirror, s->resource[mirror].host);
}

static void primary(struct hf_group *g)
{
    struct hf_gstate *s = &g->s;
    switch ((enum hf_phase)s->phase) {
    case HF_PHASE_NONE: {
        uint8_t r, m;
        bool wait;
        if (!choose(g, &r, &m, &wait)) {
            break;
        }
        if (r == s->primary) {
            go_on(g, m);
        } else {
            begin(g, r, m);
        }
        break;
    }
    case HF_PHASE_CLEARING:
        if (!may_host(g, s->primary_host, s->primary)) {
            next(g);
        } else if (clear(g)) {
            cleared(g);
        }
        break;
    case HF_PHASE_PROMOTING:
    case HF_PHASE_OPENING:
    case HF_PHASE_RUNNING:
        reign(g);
        prepared(g);
        break;
    case HF_PHASE_COUNT_:
        break;
    }
}

/* ---- mirrors (B5, X5) ---- */

static void aim(struct hf_group *g, uint8_t i)
{
    g->s.resource[i].mirror = HF_MIRROR_AIMED;
    hf_group_forget_seen(g, i);
    hf_group_unmirrored(g);
    hf_group_changed(g);
}

/* Out of S. False: it would leave the primary alone, and the operator does not want that. */
static bool shrink(struct hf_group *g, uint8_t i)
{
    struct hf_gstate *s = &g->s;
    uint16_t rest = s->in_sync & hf_group_mirrored_copies(s) & (uint16_t)~BIT(i);
    bool reached = false; /* or is it gone with the last member that had it? */
    for (uint8_t m = 0; m < s->n_members; m++) {
        reached = reached || HAS(s->member[m].access, i);
    }
    if (s->degraded_refuse && rest == BIT(s->primary) && reached) {
        return false;
    }
    s->in_sync &= (uint16_t)~BIT(i);
    s->resource[i].mirror = HF_MIRROR_NONE;
    hf_group_unmirrored(g);
    hf_group_changed(g);
    hf_group_event(g, true, "%s is out of sync; commits do not wait for it any more%s",
                   s->resource[i].name,
                   rest == BIT(s->primary) ? ", and there is no other copy" : "");
    return true;
}

static void grown(struct hf_group *g, uint8_t i)
{
    struct hf_gstate *s = &g->s;
    s->in_sync |= BIT(i);
    s->resource[i].mirror = HF_MIRROR_IN_SYNC;
    s->resource[i].epoch = s->epoch;
    hf_group_changed(g);
    hf_group_event(g, false, "%s is in sync", s->resource[i].name);
}

static void mirror(struct hf_group *g, uint8_t i)
{
    struct hf_gstate *s = &g->s;
    struct hf_gresource *r = &s->resource[i];
    uint8_t h = r->host, role = h == HF_GROUP_NONE ? HF_ROLE_UNKNOWN : role_at(g, h, i);
    bool down = role == HF_ROLE_STOPPED || role == HF_ROLE_FAILED;
    bool broken = g->seen[i] == HF_SEEN_SUSPENDED || g->seen[i] == HF_SEEN_FAILED;
    if (r->mirror == HF_MIRROR_DIVERGED) {
        return;
    }
    if (h == HF_GROUP_NONE) {
        if (HAS(s->in_sync, i)) {
            (void)shrink(g, i);
        } else if (r->mirror != HF_MIRROR_NONE && r->mirror != HF_MIRROR_FAILED) {
            r->mirror = HF_MIRROR_NONE;
            hf_group_changed(g);
        }
        return;
    }
    if (!HAS(g->present, h)) {
        return; /* its daemon comes back */
    }
    switch ((enum hf_mirror)r->mirror) {
    case HF_MIRROR_NONE:
        aim(g, i);
        break;
    case HF_MIRROR_SYNCING:
        if (down) {
            aim(g, i);
        } else if (g->seen[i] == HF_SEEN_CAUGHT_UP || g->seen[i] == HF_SEEN_IN_SYNC) {
            r->mirror = HF_MIRROR_GROWING;
            hf_group_changed(g);
        } else if (g->seen[i] == HF_SEEN_FAILED) {
            r->mirror = HF_MIRROR_FAILED; /* tried again later */
            hf_group_unmirrored(g);
            hf_group_changed(g);
        }
        break;
    case HF_MIRROR_GROWING:
        if (down) {
            aim(g, i);
        } else if (broken) {
            r->mirror = HF_MIRROR_SYNCING;
            hf_group_unmirrored(g);
            hf_group_changed(g);
        } else if (HAS(g->sync, i) && g->mirrored_epoch == s->epoch) {
            grown(g, i);
        }
        break;
    case HF_MIRROR_IN_SYNC:
        if (down) {
            aim(g, i);
        } else if (broken && !shrink(g, i)) {
            aim(g, i);
        }
        break;
    case HF_MIRROR_AIMED:
    case HF_MIRROR_FAILED:
        if (broken && HAS(s->in_sync, i)) {
            (void)shrink(g, i);
        }
        break;
    case HF_MIRROR_DIVERGED:
    case HF_MIRROR_COUNT_:
        break;
    }
}

static void mirrors(struct hf_group *g)
{
    if (g->s.phase < HF_PHASE_OPENING) {
        return;
    }
    uint16_t mirrored = hf_group_mirrored_copies(&g->s);
    if (g->s.phase == HF_PHASE_OPENING) {
        mirrored &= g->s.in_sync; /* they must follow, or leave S, before it opens; others wait */
    }
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        if (HAS(mirrored, i) && i != g->s.primary) {
            mirror(g, i);
        }
    }
}

/* ---- members that go ---- */

static bool holds_nothing(const struct hf_group *g, uint8_t m)
{
    if (!HAS(g->present, m)) {
        return g->s.member[m].fenced || (g->s.member[m].dirty == 0 && !g->s.member[m].was_primary);
    }
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        bool host =
            g->s.resource[i].host == m && (i != g->s.primary || g->s.phase != HF_PHASE_NONE);
        if (host || role_at(g, m, i) != HF_ROLE_STOPPED) {
            return false;
        }
    }
    return g->s.primary_host != m || g->s.phase == HF_PHASE_NONE;
}

static void leavers(struct hf_group *g)
{
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        if (g->s.member[m].leaving && holds_nothing(g, m)) {
            hf_group_event(g, false, "%s is not a member any more", g->s.member[m].host);
            hf_group_remove_member(g, m);
            hf_group_changed(g);
            g->unsettled = g->s.version;
            return;
        }
    }
}

void hf_group_plan(struct hf_group *g)
{
    struct hf_gstate *s = &g->s;
    if (g->standing != HF_GROUP_IN || !g->have_state || !g->decides || s->paused) {
        return;
    }
    for (unsigned n = 0; n < ROUNDS_MAX; n++) {
        uint64_t version = s->version;
        members(g);
        bool alone = true; /* with half of the members, all others must be off */
        for (uint8_t m = 0; m < s->n_members && g->half; m++) {
            alone = alone && (HAS(g->present, m) || s->member[m].fenced);
        }
        if (alone) {
            hosts(g);
            primary(g);
            mirrors(g);
            leavers(g);
        }
        dirty(g);
        if (s->version == version) {
            return;
        }
    }
}
