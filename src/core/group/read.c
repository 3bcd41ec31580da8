/* What others read of a group, and why something does not run, in words. */
#include <stdio.h>

#include "core/group/internal.h"

enum hf_group_standing hf_group_standing(const struct hf_group *g)
{
    return g->standing;
}

const struct hf_gstate *hf_group_state(const struct hf_group *g)
{
    return g->have_state ? &g->s : NULL;
}

uint8_t hf_group_self(const struct hf_group *g)
{
    return g->have_state ? hf_group_member_of(&g->s, g->host) : HF_GROUP_NONE;
}

uint16_t hf_group_present(const struct hf_group *g)
{
    return g->present;
}

bool hf_group_quorate(const struct hf_group *g)
{
    return g->standing == HF_GROUP_IN && g->decides && g->quorate && !g->suspect;
}

uint16_t hf_group_lost(const struct hf_group *g)
{
    uint16_t awaited = g->present | g->procdown, lost = 0;
    if (!hf_group_quorate(g)) {
        return 0;
    }
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (p->gone && p->member != HF_GROUP_NONE) {
            awaited |= BIT(p->member);
        }
    }
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        if (!HAS(awaited, m) && (!g->half || g->s.member[m].fenced)) {
            lost |= BIT(m);
        }
    }
    return lost;
}

uint8_t hf_group_role(const struct hf_group *g, uint8_t member, uint8_t resource)
{
    if (!g->have_state || resource >= g->s.n_resources) {
        return HF_ROLE_UNKNOWN;
    }
    if (member == hf_group_self(g) && member != HF_GROUP_NONE) {
        return g->local[resource].role;
    }
    const struct hf_gpeer *p = hf_group_peer(g, member);
    return p && HAS(g->present, member) ? p->role[resource] : HF_ROLE_UNKNOWN;
}

uint16_t hf_group_able(const struct hf_group *g, uint8_t copy)
{
    uint16_t mask = 0;
    for (uint8_t m = 0; g->have_state && copy < g->s.n_resources && m < g->s.n_members; m++) {
        if (hf_group_able_at(g, m, copy)) {
            mask |= BIT(m);
        }
    }
    return mask;
}

void hf_group_mirrored(const struct hf_group *g, uint16_t *ret_sync, uint16_t *ret_async)
{
    bool now = g->have_state && g->mirrored_epoch == g->s.epoch;
    *ret_sync = now ? g->sync : 0;
    *ret_async = now ? g->async : 0;
}

const struct hf_group_counters *hf_group_counters(const struct hf_group *g)
{
    return &g->count;
}

/* "alpha, beta" */
static void list(const struct hf_group *g, uint16_t mask, char *buf, size_t n)
{
    size_t at = 0;
    buf[0] = '\0';
    for (uint8_t m = 0; m < g->s.n_members && at < n; m++) {
        if (HAS(mask, m)) {
            int k = snprintf(buf + at, n - at, "%s%s", at ? ", " : "", g->s.member[m].host);
            at += k > 0 ? (size_t)k : 0;
        }
    }
}

static const char *why_not_deciding(struct hf_group *g)
{
    char hosts[160];
    if (!g->have_state) {
        return "no member of the group has been heard; start one, or create the group";
    }
    if (g->standing == HF_GROUP_OUT) {
        return "this host is not connected to the group: is the engine (corosync) running?";
    }
    if (g->suspect) {
        return "this process was stopped for a while and has not heard from the group since";
    }
    if (g->standing != HF_GROUP_IN) {
        list(g, hf_group_absent(g), hosts, sizeof(hosts));
        snprintf(g->why, sizeof(g->why), "members are agreeing on the state; awaited: %s", hosts);
        return g->why;
    }
    if (!g->quorate) {
        return "no quorum here: bring more hosts, or the network between them, back";
    }
    list(g, hf_group_absent(g), hosts, sizeof(hosts));
    snprintf(g->why, sizeof(g->why),
             "too few members with a record of the group are here to know its newest state; boot "
             "%s, or force a copy to be it",
             hosts[0] ? hosts : "more of them");
    return g->why;
}

static const char *why_clearing(struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    char hosts[160];
    uint16_t targets = hf_group_fence_targets(g);
    if (targets) {
        list(g, targets, hosts, sizeof(hosts));
        snprintf(g->why, sizeof(g->why), "%s must be fenced first%s%s", hosts,
                 g->fence_why[0] ? "; last failure: " : "", g->fence_why);
        return g->why;
    }
    if (g->procdown) {
        list(g, g->procdown, hosts, sizeof(hosts));
        snprintf(g->why, sizeof(g->why), "waiting for holdfastd of %s to come back", hosts);
        return g->why;
    }
    for (uint8_t m = 0; m < s->n_members; m++) {
        for (uint8_t i = 0; i < s->n_resources; i++) {
            uint8_t role = hf_group_role(g, m, i);
            if (HAS(g->present, m) && role != HF_ROLE_STOPPED && role != HF_ROLE_UNPROMOTED) {
                snprintf(g->why, sizeof(g->why), "%s on %s is %s and must stop first",
                         s->resource[i].name, s->member[m].host, hf_role_name(role));
                return g->why;
            }
        }
    }
    return "members are writing the decision to their disks";
}

static const char *why_none(struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    char hosts[160];
    uint16_t targets = hf_group_fence_targets(g);
    if (g->half && targets) {
        list(g, targets, hosts, sizeof(hosts));
        snprintf(g->why, sizeof(g->why),
                 "only half of the members are here: %s must be fenced first%s%s", hosts,
                 g->fence_why[0] ? "; last failure: " : "", g->fence_why);
        return g->why;
    }
    if (s->cold == HF_COLD_PRIMARY && s->primary_host != HF_GROUP_NONE) {
        snprintf(g->why, sizeof(g->why),
                 "after a start of the whole group, waiting a while for %s, the former primary "
                 "host; confirm that it is off to go on without it",
                 s->member[s->primary_host].host);
        return g->why;
    }
    if (s->last_primary != HF_GROUP_NONE) {
        uint16_t data = s->in_sync & hf_group_mirrored_copies(s);
        for (uint8_t i = 0; i < s->n_resources; i++) {
            if (HAS(data, i) && hf_group_able(g, i) == 0) {
                uint16_t reach = 0;
                for (uint8_t m = 0; m < s->n_members; m++) {
                    if (HAS(s->member[m].access, i)) {
                        reach |= BIT(m);
                    }
                }
                list(g, reach, hosts, sizeof(hosts));
                snprintf(g->why, sizeof(g->why),
                         "the newest data is in %s, which no host here can run: boot or repair %s, "
                         "or force another copy and lose what only %s has",
                         s->resource[i].name, hosts, s->resource[i].name);
                return g->why;
            }
        }
    }
    snprintf(g->why, sizeof(g->why),
             "no host here can run a copy that is in sync%s%s; repair it, "
             "then: holdfast group resume %s",
             g->fail_why[0] ? ": " : "", g->fail_why, s->name);
    return g->why;
}

static const char *why_opening(struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    const char *name = s->resource[s->primary].name, *host = s->member[s->primary_host].host;
    uint16_t others = s->in_sync & hf_group_mirrored_copies(s);
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (i != s->primary && HAS(others, i) && s->resource[i].mirror != HF_MIRROR_IN_SYNC) {
            snprintf(g->why, sizeof(g->why),
                     "%s is promoted on %s, and opens once %s, which is in S, follows it%s", name,
                     host, s->resource[i].name,
                     s->degraded_refuse ? "; degraded = refuse does not let it go on alone" : "");
            return g->why;
        }
    }
    snprintf(g->why, sizeof(g->why), "%s is promoted on %s and opens", name, host);
    return g->why;
}

/* "" if it is. */
static const char *why_not_running(struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    const char *name = s->resource[s->primary].name, *host = s->member[s->primary_host].host;
    char hosts[160];
    if (!HAS(g->present, s->primary_host)) {
        if (hf_group_fence_targets(g)) {
            return why_clearing(g);
        }
        snprintf(g->why, sizeof(g->why),
                 "holdfastd of the primary host %s is down; waiting for it to come back", host);
        return g->why;
    }
    uint8_t role = hf_group_role(g, s->primary_host, s->primary);
    if (role == HF_ROLE_OPEN) {
        return "";
    }
    if (g->procdown && (role == HF_ROLE_STOPPED || role == HF_ROLE_UNPROMOTED)) {
        list(g, g->procdown, hosts, sizeof(hosts));
        snprintf(g->why, sizeof(g->why),
                 "%s had to stop on %s without a quorum; waiting a while for %s, which may go on "
                 "with another copy; confirm that it is off to go on without it",
                 name, host, hosts);
    } else {
        snprintf(g->why, sizeof(g->why), "%s finds out whether %s still runs there", host, name);
    }
    return g->why;
}

const char *hf_group_why(const struct hf_group *cg)
{
    struct hf_group *g = (struct hf_group *)(uintptr_t)cg; /* only its text buffer is written */
    if (!hf_group_quorate(g)) {
        return why_not_deciding(g);
    }
    if (g->s.paused) {
        return "the group is paused; holdfast group resume lets it act again";
    }
    switch ((enum hf_phase)g->s.phase) {
    case HF_PHASE_NONE:
        return why_none(g);
    case HF_PHASE_CLEARING:
        return why_clearing(g);
    case HF_PHASE_PROMOTING:
        snprintf(g->why, sizeof(g->why), "%s is being started on %s",
                 g->s.resource[g->s.primary].name, g->s.member[g->s.primary_host].host);
        return g->why;
    case HF_PHASE_OPENING:
        return why_opening(g);
    case HF_PHASE_RUNNING:
        return why_not_running(g);
    case HF_PHASE_COUNT_:
        break;
    }
    return "";
}

const char *hf_group_resource_why(const struct hf_group *cg, uint8_t i)
{
    struct hf_group *g = (struct hf_group *)(uintptr_t)cg;
    if (!g->have_state || i >= g->s.n_resources) {
        return "";
    }
    const struct hf_gresource *r = &g->s.resource[i];
    const struct hf_glocal *l = &g->local[i];
    char hosts[160];
    if (r->kind != HF_RESOURCE_COPY || i == g->s.primary) {
        return l->role == HF_ROLE_FAILED || l->role == HF_ROLE_STUCK ? l->text : "";
    }
    if (r->mirror == HF_MIRROR_DIVERGED) {
        snprintf(g->resource_why, sizeof(g->resource_why),
                 "it has data that the primary lacks: force %s to go on with it, or resume %s to "
                 "overwrite it",
                 r->name, r->name);
        return g->resource_why;
    }
    if (r->host == HF_GROUP_NONE) {
        uint16_t sub = 0;
        for (uint8_t m = 0; m < g->s.n_members; m++) {
            if (g->s.member[m].subgroup == i) {
                sub |= BIT(m);
            }
        }
        list(g, sub, hosts, sizeof(hosts));
        snprintf(g->resource_why, sizeof(g->resource_why), "%s%s",
                 sub ? "it has no host: boot or repair "
                     : "no member reaches it; the log of each says why",
                 hosts);
        return g->resource_why;
    }
    if (r->mirror == HF_MIRROR_FAILED) {
        snprintf(g->resource_why, sizeof(g->resource_why), "mirroring failed, tried again soon: %s",
                 l->text[0] ? l->text : g->fail_why);
        return g->resource_why;
    }
    return "";
}
