/* Operators' requests (B15, B16): refused at once with a reason, or done, or told why not. */
#include <stdio.h>

#include "base/err.h"
#include "core/group/internal.h"

#define FORCE_TERMS 1024

/* ---- at all members ---- */

/* Where a switch may go: the wanted member and resource, each perhaps NONE. */
static bool switch_target(const struct hf_group *g, uint8_t want_m, uint8_t want_r,
                          uint8_t *ret_member, uint8_t *ret_resource)
{
    const struct hf_gstate *s = &g->s;
    for (uint8_t pass = 0; pass < 2; pass++) { /* the same copy first: nothing to synchronise */
        for (uint8_t r = 0; r < s->n_resources; r++) {
            for (uint8_t m = 0; m < s->n_members; m++) {
                bool here = m == s->primary_host && r == s->primary;
                if ((want_m != HF_GROUP_NONE && m != want_m) ||
                    (want_r != HF_GROUP_NONE && r != want_r) || here ||
                    (pass == 0) != (r == s->primary) || !hf_group_promotable_at(g, m, r) ||
                    (want_m == HF_GROUP_NONE && m == s->primary_host)) {
                    continue;
                }
                *ret_member = m;
                *ret_resource = r;
                return true;
            }
        }
    }
    return false;
}

/* "beta on delta, gamma on gamma": copies elsewhere that a switch may go to */
static void list_targets(const struct hf_group *g, char *buf, size_t n)
{
    const struct hf_gstate *s = &g->s;
    size_t at = 0;
    snprintf(buf, n, "no other copy");
    for (uint8_t r = 0; r < s->n_resources && at < n; r++) {
        uint8_t h = s->resource[r].host;
        if (r != s->primary && h != HF_GROUP_NONE && hf_group_promotable_at(g, h, r)) {
            int k = snprintf(buf + at, n - at, "%s%s on %s", at ? ", " : "", s->resource[r].name,
                             s->member[h].host);
            at += k > 0 ? (size_t)k : 0;
        }
    }
}

/* The copy that is meant: the one that is wanted, else the best that m reaches. */
static uint8_t meant(const struct hf_gstate *s, uint8_t m, uint8_t want_r)
{
    uint8_t r = want_r;
    for (uint8_t i = s->n_resources; i-- > 0 && want_r == HF_GROUP_NONE;) {
        bool better = r == HF_GROUP_NONE || HAS(s->in_sync, i) || !HAS(s->in_sync, r);
        r = HAS(s->member[m].access, i) && better ? i : r;
    }
    return r;
}

/* Why a switch can't go where it is wanted, and what may help. */
static const char *why_not_there(struct hf_group *g, uint8_t m, uint8_t want_r)
{
    const struct hf_gstate *s = &g->s;
    char others[160];
    uint8_t r = want_r;
    list_targets(g, others, sizeof(others));
    if (m == HF_GROUP_NONE && r != HF_GROUP_NONE) {
        m = s->resource[r].host;
    }
    if (m == HF_GROUP_NONE) {
        return "no other host that is there can run a copy that is in sync";
    }
    const char *host = s->member[m].host;
    r = meant(s, m, r);
    const char *name = r == HF_GROUP_NONE ? "" : s->resource[r].name;
    if (want_r != HF_GROUP_NONE && s->resource[want_r].kind != HF_RESOURCE_COPY) {
        snprintf(g->why, sizeof(g->why), "%s is not a copy of this group", name);
    } else if (!HAS(g->present, m)) {
        snprintf(g->why, sizeof(g->why), "%s is not there", host);
    } else if (r == HF_GROUP_NONE) {
        snprintf(g->why, sizeof(g->why), "%s reaches no copy: it only votes", host);
    } else if (!HAS(s->member[m].access, r)) {
        snprintf(g->why, sizeof(g->why), "%s does not reach %s", host, name);
    } else if (!hf_group_promotable(s, r)) {
        snprintf(g->why, sizeof(g->why),
                 "%s on %s is not in sync (%s); in sync: %s. holdfast group show %s on %s says "
                 "what it waits for",
                 name, host,
                 g->seen[r] == HF_SEEN_SUSPENDED ? "suspended"
                                                 : hf_mirror_name(s->resource[r].mirror),
                 others, s->name, s->member[s->primary_host].host);
    } else if (HAS(s->resource[r].failed_on, m)) {
        snprintf(g->why, sizeof(g->why),
                 "%s could not be run on %s: repair it, then holdfast group resume %s", name, host,
                 s->name);
    } else {
        snprintf(g->why, sizeof(g->why), "%s cannot run %s now; its log says why", host, name);
    }
    return g->why;
}

static const char *do_switch(struct hf_group *g, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    uint8_t to, r;
    if (s->phase != HF_PHASE_RUNNING) {
        return "there is no running primary to switch from";
    }
    if (s->next != HF_GROUP_NONE) {
        return "a switch is being prepared already";
    }
    if (m->request.member == s->primary_host && m->request.resource == HF_GROUP_NONE) {
        return "it is the primary host already";
    }
    if (!switch_target(g, m->request.member, m->request.resource, &to, &r)) {
        return why_not_there(g, m->request.member, m->request.resource);
    }
    hf_group_event(g, false, "switching to %s on %s, as the operator wants", s->resource[r].name,
                   s->member[to].host);
    hf_group_switch(g, r, to);
    return NULL;
}

/* The host that is to run a copy by force; NONE, and why not. */
static uint8_t force_host(const struct hf_group *g, uint8_t r, const char **ret_why)
{
    const struct hf_gstate *s = &g->s;
    if (r >= s->n_resources || s->resource[r].kind != HF_RESOURCE_COPY) {
        *ret_why = "it is not a copy of this group";
        return HF_GROUP_NONE;
    }
    for (uint8_t i = 0; i < s->n_members; i++) {
        if (hf_group_able_at(g, i, r)) {
            return i;
        }
    }
    *ret_why = "no host that is there reaches it";
    return HF_GROUP_NONE;
}

static const char *do_force(struct hf_group *g, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    const char *why = NULL;
    uint8_t r = m->request.resource, host = force_host(g, r, &why);
    if (host == HF_GROUP_NONE) {
        return why;
    }
    bool lacks = !HAS(s->in_sync, r); /* data that the others have (B18) */
    for (uint8_t i = 0; i < s->n_resources && HAS(hf_group_mirrored_copies(s), r); i++) {
        if (i != r && HAS(s->in_sync & hf_group_mirrored_copies(s), i)) {
            s->resource[i].mirror = lacks ? HF_MIRROR_DIVERGED : HF_MIRROR_NONE;
            s->in_sync &= (uint16_t)~BIT(i); /* it is not to wait for any of them */
        }
    }
    s->in_sync |= BIT(r);
    s->resource[r].mirror = HF_MIRROR_IN_SYNC;
    s->resource[r].failed_on = 0;
    s->resource[r].restarts = 0;
    hf_group_forget_switch(g);
    hf_group_revoke(g);
    hf_group_doubt_primary(g); /* before the copy gets its new host: it may be the same one */
    hf_group_set_host(g, r, host);
    s->primary = r;
    s->primary_host = host;
    s->cold = HF_COLD_NO;
    s->phase = HF_PHASE_CLEARING;
    hf_group_changed(g);
    hf_group_event(g, true, "%s on %s becomes primary by force, as the operator wants",
                   s->resource[r].name, s->member[host].host);
    return NULL;
}

/* Is there nobody else who reaches a copy that is in sync? */
static bool has_the_data(const struct hf_gstate *s, uint8_t x)
{
    for (uint8_t m = 0; m < s->n_members; m++) {
        if (m != x && !s->member[m].leaving && s->member[m].access & s->in_sync) {
            return false;
        }
    }
    return true;
}

static const char *do_leave(struct hf_group *g, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    uint8_t x = m->request.member, to, r;
    if (x >= s->n_members) {
        return "it is not a member";
    }
    if (!HAS(g->present, x) && !s->member[x].fenced &&
        (s->member[x].dirty || s->member[x].was_primary)) {
        return "it is not there, and may be running something; confirm first that it is off";
    }
    bool last = s->n_members == 1; /* that ends the group */
    if (!last && x == s->primary_host && s->phase != HF_PHASE_NONE &&
        !switch_target(g, HF_GROUP_NONE, HF_GROUP_NONE, &to, &r)) {
        return "it is the primary host, and no other host can run a copy that is in sync";
    }
    if (!last && has_the_data(s, x)) {
        return "no other host reaches a copy that is in sync; wait until another copy is, or force "
               "one";
    }
    s->member[x].leaving = true;
    hf_group_changed(g);
    return NULL;
}

static const char *do_resume(struct hf_group *g, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        struct hf_gresource *x = &s->resource[i];
        if (m->request.resource != HF_GROUP_NONE && m->request.resource != i) {
            continue;
        }
        x->failed_on = 0;
        x->restarts = 0;
        if (x->mirror == HF_MIRROR_FAILED ||
            (x->mirror == HF_MIRROR_DIVERGED && m->request.resource == i)) {
            x->mirror = HAS(s->in_sync, i) ? HF_MIRROR_IN_SYNC : HF_MIRROR_NONE;
        }
    }
    s->paused = false;
    hf_group_changed(g);
    hf_group_event(g, false, "resumed by the operator");
    return NULL;
}

static const char *do_confirm(struct hf_group *g, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    if (m->request.member >= s->n_members) {
        return "it is not a member";
    }
    if (HAS(g->present, m->request.member)) {
        return "it is there";
    }
    struct hf_gmember *x = &s->member[m->request.member];
    x->fenced = true;
    x->dirty = 0;
    x->was_primary = false;
    g->procdown &= (uint16_t)~BIT(m->request.member);
    hf_group_changed(g);
    hf_group_event(g, true, "the operator confirms that %s is off", x->host);
    return NULL;
}

/* The operator knows better than the members' disks: what is here counts as the newest state. */
static bool overrule(struct hf_group *g)
{
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (p->member != HF_GROUP_NONE && HAS(g->present, p->member) && !p->quorate) {
            return false;
        }
    }
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        if (!HAS(g->present, m)) { /* of them our state may know nothing any more (G1) */
            g->s.member[m].fenced = false;
            g->s.member[m].was_primary = true;
            g->s.member[m].dirty = (uint16_t)((1u << g->s.n_resources) - 1);
        }
    }
    /* others may have decided, too: what the operator has chosen is newer than all of it */
    g->s.version = ((g->s.version >> 32) + FORCE_TERMS) << 32;
    g->decides = g->overruled = true;
    g->half = false;
    g->current = hf_group_self(g) != HF_GROUP_NONE;
    return true;
}

static const char *decide(struct hf_group *g, const struct hf_gmsg *m)
{
    const char *why;
    bool force = m->request.what == HF_GREQUEST_FORCE && !g->s.paused &&
                 force_host(g, m->request.resource, &why) != HF_GROUP_NONE;
    if (!g->decides && !(force && overrule(g))) {
        return "there is no quorum, or too few of the group's members are there";
    }
    if (g->s.paused && m->request.what != HF_GREQUEST_RESUME &&
        m->request.what != HF_GREQUEST_PAUSE && m->request.what != HF_GREQUEST_CONFIRM) {
        return "the group is paused; resume it first";
    }
    switch ((enum hf_grequest)m->request.what) {
    case HF_GREQUEST_SWITCH:
        return do_switch(g, m);
    case HF_GREQUEST_FORCE:
        return do_force(g, m);
    case HF_GREQUEST_LEAVE:
        return do_leave(g, m);
    case HF_GREQUEST_PAUSE:
        hf_group_forget_switch(g);
        g->s.paused = true;
        hf_group_changed(g);
        hf_group_event(g, true, "paused by the operator: nothing is started, stopped or moved");
        return NULL;
    case HF_GREQUEST_RESUME:
        return do_resume(g, m);
    case HF_GREQUEST_CONFIRM:
        return do_confirm(g, m);
    case HF_GREQUEST_COUNT_:
        break;
    }
    return "it is not a request that this version knows";
}

void hf_group_on_request(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m)
{
    if (p->member == HF_GROUP_NONE) {
        g->count.refused_sender++;
        return;
    }
    const char *refused = decide(g, m);
    struct hf_gpending *q = &g->pending;
    if (p->node_id != g->self_node || q->request != m->request.request || q->request == 0) {
        return;
    }
    if (refused) {
        hf_group_result(g, q->request, -HF_EVALUE, "refused: %s", refused);
        q->request = 0;
        return;
    }
    q->applied = true;
    q->until = HF_NEVER;
    if (q->what == HF_GREQUEST_SWITCH && q->resource == HF_GROUP_NONE) { /* where it was to go */
        q->resource = g->s.next == HF_GROUP_NONE ? g->s.primary : g->s.next;
    }
}

/* A mask of members without this one: those above it move down. */
static uint16_t without(uint16_t mask, uint8_t m)
{
    uint16_t low = (uint16_t)(BIT(m) - 1);
    return (uint16_t)((mask & low) | (mask >> 1 & ~low));
}

/* After a member: all numbers above it move. */
void hf_group_remove_member(struct hf_group *g, uint8_t m)
{
    struct hf_gstate *s = &g->s;
    hf_group_forget_switch(g);
    for (uint8_t i = 0; i < g->n_peers; i++) {
        if (g->peer[i].member == m) {
            g->peer[i].removed = s->version + 1; /* of the change that follows */
        }
    }
    for (uint8_t i = m; i + 1 < s->n_members; i++) {
        s->member[i] = s->member[i + 1];
        g->procdown_at[i] = g->procdown_at[i + 1];
        g->fence_tries[i] = g->fence_tries[i + 1];
        g->fence_at[i] = g->fence_at[i + 1];
    }
    s->n_members--;
    memset(&s->member[s->n_members], 0, sizeof(s->member[0]));
    for (uint8_t i = 0; i < s->n_resources; i++) {
        struct hf_gresource *r = &s->resource[i];
        r->failed_on = without(r->failed_on, m);
        r->host = r->host == HF_GROUP_NONE || r->host < m ? r->host
                  : r->host == m                          ? HF_GROUP_NONE
                                                          : (uint8_t)(r->host - 1);
    }
    if (s->primary_host != HF_GROUP_NONE && s->primary_host >= m) {
        s->primary_host = s->primary_host == m ? HF_GROUP_NONE : (uint8_t)(s->primary_host - 1);
    }
    g->procdown = without(g->procdown, m);
    g->fencing = without(g->fencing, m);
    g->fence_done = without(g->fence_done, m);
    g->fence_told = without(g->fence_told, m);
    g->fence_ok = without(g->fence_ok, m);
    hf_group_recount(g);
}

/* ---- at the member whose operator asks ---- */

void hf_group_request(struct hf_group *g, const struct hf_group_in *in)
{
    struct hf_gpending *q = &g->pending;
    if (!g->have_state || hf_group_self(g) == HF_GROUP_NONE) {
        hf_group_result(g, in->request, -HF_ELEFT, "this host is not a member of %s", g->name);
        return;
    }
    if (q->request) {
        hf_group_result(g, in->request, -HF_EFULL, "another request is not finished yet");
        return;
    }
    uint8_t m = HF_GROUP_NONE, r = HF_GROUP_NONE;
    if (in->to_host) {
        m = hf_group_member_of(&g->s, in->to_host);
    }
    if (in->of) {
        r = hf_group_resource_of(&g->s, in->of);
    }
    if ((in->to_host && m == HF_GROUP_NONE) || (in->of && r == HF_GROUP_NONE)) {
        hf_group_result(g, in->request, -HF_ENOTFOUND, "%s has no %s %s", g->name,
                        in->to_host && m == HF_GROUP_NONE ? "member" : "resource",
                        in->to_host && m == HF_GROUP_NONE ? in->to_host : in->of);
        return;
    }
    memset(q, 0, sizeof(*q));
    q->request = in->request;
    q->what = in->what;
    q->member = m;
    q->resource = r;
    q->until = g->now + g->answer;
    if (in->to_host) {
        snprintf(q->host, sizeof(q->host), "%s", in->to_host);
    }
}

static void give_result(struct hf_group *g)
{
    struct hf_gpending *q = &g->pending;
    const struct hf_gstate *s = &g->s;
    bool moves = q->what == HF_GREQUEST_SWITCH || q->what == HF_GREQUEST_FORCE;
    if (q->what == HF_GREQUEST_LEAVE && hf_group_member_of(s, q->host) != HF_GROUP_NONE) {
        return;
    }
    if (moves && s->phase == HF_PHASE_NONE) {
        hf_group_result(g, q->request, -HF_ENOTREADY, "there is no primary now: %s",
                        hf_group_why(g));
        q->request = 0;
        return;
    }
    if (moves && (s->phase != HF_PHASE_RUNNING || s->next != HF_GROUP_NONE)) {
        return;
    }
    bool there = (q->member == HF_GROUP_NONE || q->member == s->primary_host) &&
                 (q->resource == HF_GROUP_NONE || q->resource == s->primary);
    if (moves && !there) {
        hf_group_result(g, q->request, -HF_ENOTREADY, "it did not work there; primary is %s on %s",
                        s->resource[s->primary].name, s->member[s->primary_host].host);
    } else if (moves) {
        hf_group_result(g, q->request, 0, "primary is %s on %s", s->resource[s->primary].name,
                        s->member[s->primary_host].host);
    } else {
        hf_group_result(g, q->request, 0, "done");
    }
    q->request = 0;
}

static void give_created(struct hf_group *g)
{
    if (g->create_request == 0 || g->persisted == 0) {
        return;
    }
    if (g->decides) {
        hf_group_result(g, g->create_request, 0, "created");
        g->create_request = 0;
    } else if (g->now >= g->create_at + g->answer) {
        hf_group_result(g, g->create_request, 0, "created; nothing runs yet: %s", hf_group_why(g));
        g->create_request = 0;
    }
}

void hf_group_request_act(struct hf_group *g)
{
    struct hf_gpending *q = &g->pending;
    give_created(g);
    if (q->request == 0) {
        return;
    }
    if (q->applied) {
        give_result(g);
        return;
    }
    if (g->now >= q->until) {
        hf_group_result(g, q->request, -HF_EQUORUM, "nobody decides: %s; nothing was changed",
                        hf_group_why(g));
        q->request = 0;
        return;
    }
    if (g->standing == HF_GROUP_IN && (!q->sent || q->ring != g->ring)) {
        struct hf_gmsg m = {.kind = HF_GMSG_REQUEST};
        m.request.what = q->what;
        m.request.member = q->member;
        m.request.resource = q->resource;
        m.request.request = q->request;
        q->sent = true;
        q->ring = g->ring;
        hf_group_send(g, &m);
    }
}
