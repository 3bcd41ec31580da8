/* Messages: who may say what, and what it does to the state. */
#include <stdio.h>
#include <string.h>

#include "core/group/internal.h"

static void on_ack(struct hf_group *g, struct hf_gpeer *p, uint64_t version)
{
    if (version > g->s.version) {
        g->count.refused_sender++;
        return;
    }
    p->acked = version > p->acked ? version : p->acked;
    hf_group_settle(g);
}

/* An exclusion counts only if what was awaited has not come before it. */
static void on_exclude(struct hf_group *g, uint32_t node_id, uint64_t version)
{
    struct hf_gpeer *p = hf_group_node(g, node_id);
    bool late =
        p && (g->standing == HF_GROUP_HELLO ? version == 0 && !p->hello
              : g->standing == HF_GROUP_SYNC
                  ? version == 0 && node_id == g->source
                  : version == g->s.version && g->have_state && p->member != HF_GROUP_NONE &&
                        p->acked < version && p->resigned != HF_RESIGNED_DISK);
    if (late) {
        hf_group_exclude(g, node_id);
    }
}

/* ---- roles ---- */

/* What the agent says of its promotion, and after which epoch it is. */
static void set_fence_text(struct hf_gstate *s, struct hf_slice said)
{
    char text[HF_GROUP_TEXT_MAX + 1], after[HF_GROUP_FENCE_TEXT_MAX + 1];
    memcpy(after, s->fence_text, sizeof(after));
    hf_group_text(
        text,
        hf_slice(said.p, said.n < HF_GROUP_FENCE_TEXT_MAX ? said.n : HF_GROUP_FENCE_TEXT_MAX));
    memset(s->fence_text, 0, sizeof(s->fence_text));
    memcpy(s->fence_text, text, strlen(text));
    size_t n = strlen(text);
    if (n && *after && n + 1 + strlen(after) <= HF_GROUP_FENCE_TEXT_MAX) {
        s->fence_text[n] = ' ';
        memcpy(s->fence_text + n + 1, after, strlen(after));
    }
}

static void primary_role(struct hf_group *g, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    const struct hf_gresource *r = &s->resource[s->primary];
    uint8_t role = m->role.role;
    if (role == HF_ROLE_FAILED || role == HF_ROLE_STUCK) {
        if (s->phase != HF_PHASE_NONE && s->phase != HF_PHASE_CLEARING) {
            bool restart = s->phase == HF_PHASE_RUNNING || m->role.op == HF_OP_NONE;
            hf_group_primary_failed(g, s->primary, m->role.rc, restart);
        }
        return;
    }
    if (m->role.epoch != s->epoch || m->role.rc != 0 || !hf_group_is_primary_role(role)) {
        return;
    }
    if (s->phase == HF_PHASE_PROMOTING &&
        (m->role.op == HF_OP_PROMOTE || !(r->flags & HF_RESOURCE_PROMOTABLE))) {
        set_fence_text(s, m->role.text);
        hf_group_promoted(g);
    }
}

static void mirror_role(struct hf_group *g, struct hf_gresource *r, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    if (m->role.op != HF_OP_MIRROR_TARGET || m->role.epoch != s->epoch ||
        r->mirror != HF_MIRROR_AIMED) {
        return;
    }
    uint8_t i = m->role.resource;
    if (m->role.rc == 0) {
        r->mirror = HAS(s->in_sync, i) ? HF_MIRROR_IN_SYNC : HF_MIRROR_SYNCING;
        hf_group_forget_seen(g, i);
        hf_group_changed(g);
        return;
    }
    /* A copy in S that can't follow without being overwritten leaves S first; also with degraded =
     * refuse, when the agent of the primary copy keeps commits waiting until there is another. */
    r->mirror = HAS(s->in_sync, i) ? HF_MIRROR_NONE : HF_MIRROR_FAILED;
    s->in_sync &= (uint16_t)~BIT(i);
    hf_group_unmirrored(g);
    hf_group_changed(g);
}

static void on_role(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    uint8_t i = m->role.resource;
    if (p->node_id == g->self_node && i < HF_GROUP_RESOURCES_MAX && g->local[i].unseen) {
        g->local[i].unseen--;
    }
    if (i >= s->n_resources || p->member == HF_GROUP_NONE) {
        g->count.refused_sender++;
        return;
    }
    p->role[i] = m->role.role;
    if (m->role.op == HF_OP_PREPARE) { /* what could not be done before is done then */
        g->prepared |= BIT(p->member);
        return;
    }
    if (!g->decides || s->paused) {
        return;
    }
    struct hf_gresource *r = &s->resource[i];
    if (m->role.op == HF_OP_MIRROR_SOURCE && p->member == s->primary_host && m->role.rc) {
        for (uint8_t k = 0; k < s->n_resources; k++) {
            if (s->resource[k].mirror == HF_MIRROR_GROWING) {
                s->resource[k].mirror = HF_MIRROR_SYNCING;
                hf_group_forget_seen(g, k);
                hf_group_unmirrored(g);
                hf_group_changed(g);
            }
        }
        return;
    }
    if (m->role.rc || m->role.role == HF_ROLE_FAILED) {
        snprintf(g->fail_why, sizeof(g->fail_why), "%s of %s on %s: %.*s", hf_op_name(m->role.op),
                 r->name, p->host, m->role.text.n > 90 ? 90 : (int)m->role.text.n,
                 m->role.text.n ? (const char *)m->role.text.p : "");
    }
    if (i == s->primary && p->member == s->primary_host) {
        primary_role(g, m);
    } else if (r->kind == HF_RESOURCE_ATTACHED) {
        if (p->member == s->primary_host &&
            (m->role.role == HF_ROLE_FAILED || m->role.role == HF_ROLE_STUCK) &&
            (s->phase == HF_PHASE_OPENING || s->phase == HF_PHASE_RUNNING)) {
            hf_group_primary_failed(g, i, m->role.rc, true);
        }
    } else if (p->member == r->host) {
        mirror_role(g, r, m);
    }
}

static void on_able(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m)
{
    p->access = m->able.access;
    p->config = m->able.config;
    bool counts = (p->resigned == HF_RESIGNED_DISK) != (m->able.resigned == HF_RESIGNED_DISK);
    p->resigned = m->able.resigned;
    if (counts) {
        hf_group_rejudge(g);
    }
}

/* ---- mirrors ---- */

static void on_mirrored(struct hf_group *g, const struct hf_gpeer *p, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    if (p->node_id == g->self_node) {
        g->mirrored_sent = false;
    }
    if (p->member == HF_GROUP_NONE || p->member != s->primary_host ||
        m->mirrored.epoch != s->epoch) {
        g->count.refused_sender++;
        return;
    }
    hf_group_unmirrored(g);
    uint16_t sync = s->in_sync, async = 0;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        uint8_t is = s->resource[i].mirror;
        if (is == HF_MIRROR_GROWING) {
            sync |= BIT(i);
        } else if (is == HF_MIRROR_AIMED || is == HF_MIRROR_SYNCING) {
            async |= BIT(i);
        }
    }
    if ((m->mirrored.sync & ~sync) == 0 && (m->mirrored.async & ~async) == 0) {
        g->mirrored_epoch = s->epoch; /* else it was begun before something changed: again */
        g->sync = m->mirrored.sync;
        g->async = m->mirrored.async;
    }
}

static void on_mirror(struct hf_group *g, const struct hf_gpeer *p, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    if (p->member == HF_GROUP_NONE || p->member != s->primary_host || m->mirror.epoch != s->epoch ||
        m->mirror.resource >= s->n_resources || m->mirror.resource == s->primary) {
        g->count.refused_sender++;
        return;
    }
    g->seen[m->mirror.resource] = m->mirror.seen;
}

/* ---- fencing, patience, farewell ---- */

static void on_fenced(struct hf_group *g, const struct hf_gpeer *p, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    if (p->node_id == g->self_node && m->fenced.member < HF_GROUP_MEMBERS_MAX) {
        g->fence_told &= (uint16_t)~BIT(m->fenced.member);
    }
    if (m->fenced.member >= s->n_members || p->member == HF_GROUP_NONE) {
        g->count.refused_sender++;
        return;
    }
    uint8_t t = m->fenced.member;
    struct hf_gmember *member = &s->member[t];
    if (!m->fenced.ok) {
        g->count.fence_errors++;
        g->fence_tries[t]++; /* soon again at first, a device may be busy; then less often */
        g->fence_at[t] = g->now + hf_time_min(g->retry, g->fence_tries[t] * HF_S(1));
        hf_group_text(g->fence_why, m->fenced.text);
        hf_group_event(g, true, "%s could not fence %s: %.*s", p->host, member->host,
                       HF_SLICE_FMT(m->fenced.text));
        return;
    }
    if (!g->decides || HAS(g->present, t)) {
        return; /* a view tells what became of it */
    }
    g->count.fenced++;
    member->fenced = true;
    member->dirty = 0;
    member->was_primary = false;
    g->procdown &= (uint16_t)~BIT(t);
    hf_group_changed(g);
    hf_group_event(g, false, "%s has fenced %s", p->host, member->host);
}

static void on_timeout(struct hf_group *g, const struct hf_gpeer *p, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    if (!g->decides || m->timeout.version != s->version || p->member == HF_GROUP_NONE) {
        return;
    }
    switch ((enum hf_gtimeout)m->timeout.what) {
    case HF_GTIMEOUT_PROCDOWN:
        if (m->timeout.member < s->n_members && HAS(g->procdown, m->timeout.member)) {
            g->procdown &= (uint16_t)~BIT(m->timeout.member);
            hf_group_changed(g);
        }
        break;
    case HF_GTIMEOUT_BOOT:
        s->cold = HF_COLD_NO;
        hf_group_changed(g);
        break;
    case HF_GTIMEOUT_RETRY:
        g->retries = (uint8_t)(g->retries < UINT8_MAX ? g->retries + 1 : UINT8_MAX);
        for (uint8_t i = 0; i < s->n_resources; i++) {
            struct hf_gresource *r = &s->resource[i];
            bool change = r->failed_on || r->mirror == HF_MIRROR_FAILED;
            r->failed_on = 0;
            if (r->mirror == HF_MIRROR_FAILED) {
                r->mirror = HAS(s->in_sync, i) ? HF_MIRROR_IN_SYNC : HF_MIRROR_NONE;
            }
            if (change) {
                hf_group_changed(g);
            }
        }
        break;
    case HF_GTIMEOUT_STABLE:
        for (uint8_t i = 0; i < s->n_resources; i++) {
            if (s->resource[i].restarts) {
                s->resource[i].restarts = 0;
                hf_group_changed(g);
            }
        }
        break;
    case HF_GTIMEOUT_JOIN:
        if (s->join.step) {
            hf_group_join_undo(g, "it takes too long");
        }
        break;
    case HF_GTIMEOUT_COUNT_:
        break;
    }
}

static void on_bye(struct hf_group *g, struct hf_gpeer *p)
{
    if (p->node_id == g->self_node) {
        g->stopped = true;
    }
    p->gone = true;
    if (p->member == HF_GROUP_NONE) {
        return;
    }
    if (g->decides) {
        struct hf_gmember *m = &g->s.member[p->member];
        m->fenced = true; /* it has stopped everything: as good as off */
        m->dirty = 0;
        m->was_primary = false;
        hf_group_changed(g);
    }
    hf_group_recount(g);
}

static void on_ping(struct hf_group *g, const struct hf_gpeer *p, uint64_t nonce)
{
    if (p->node_id == g->self_node && nonce == g->ping_nonce && g->standing == HF_GROUP_IN) {
        g->suspect = false;
        g->ping_at = 0;
    }
}

/* Which messages count before the round is over, and from whom. */
static void apply(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m)
{
    if (m->kind == HF_GMSG_HELLO) {
        hf_group_on_hello(g, p, m);
        return;
    }
    if (m->kind == HF_GMSG_EXCLUDE) {
        on_exclude(g, m->exclude.node_id, m->exclude.version);
        return;
    }
    if (p->excluded || p->foreign || p->gone) {
        return;
    }
    if (m->kind == HF_GMSG_STATE) {
        hf_group_on_state(g, p, m);
        return;
    }
    if (m->kind == HF_GMSG_QUORUM) {
        p->quorate = m->quorum.quorate;
        hf_group_rejudge(g);
        return;
    }
    if (m->kind == HF_GMSG_PING) {
        on_ping(g, p, m->ping.nonce);
        return;
    }
    if (g->standing != HF_GROUP_IN || !g->have_state) {
        return;
    }
    switch ((enum hf_gmsg_kind)m->kind) {
    case HF_GMSG_ACK:
        on_ack(g, p, m->ack.version);
        return;
    case HF_GMSG_ROLE:
        on_role(g, p, m);
        break;
    case HF_GMSG_ABLE:
        on_able(g, p, m);
        break;
    case HF_GMSG_MIRRORED:
        on_mirrored(g, p, m);
        break;
    case HF_GMSG_MIRROR:
        on_mirror(g, p, m);
        break;
    case HF_GMSG_FENCED:
        on_fenced(g, p, m);
        break;
    case HF_GMSG_TIMEOUT:
        on_timeout(g, p, m);
        break;
    case HF_GMSG_REQUEST:
        hf_group_on_request(g, p, m);
        break;
    case HF_GMSG_JOIN:
        hf_group_on_join(g, p, m);
        break;
    case HF_GMSG_JOIN_PROBED:
    case HF_GMSG_JOIN_READY:
    case HF_GMSG_JOIN_FAILED:
        hf_group_on_joining(g, p, m);
        break;
    case HF_GMSG_BYE:
        on_bye(g, p);
        break;
    case HF_GMSG_NONE_:
    case HF_GMSG_HELLO:
    case HF_GMSG_STATE:
    case HF_GMSG_EXCLUDE:
    case HF_GMSG_QUORUM:
    case HF_GMSG_PING:
    case HF_GMSG_COUNT_:
        return;
    }
    hf_group_plan(g);
}

void hf_group_on_message(struct hf_group *g, uint32_t from, struct hf_slice msg)
{
    struct hf_gmsg m;
    int rc = hf_gmsg_decode(msg, &m);
    g->count.messages++;
    if (rc) {
        g->count.refused_malformed += rc != -HF_EVERSION;
        g->count.refused_version += rc == -HF_EVERSION;
        return;
    }
    struct hf_gpeer *p = hf_group_node(g, from);
    if (!p || m.ring != g->ring || g->standing == HF_GROUP_OUT) {
        g->count.stale++;
        return;
    }
    if (m.kind != HF_GMSG_HELLO && g->have_state && m.group_id && m.group_id != g->s.id) {
        g->count.refused_group++;
        return;
    }
    apply(g, p, &m);
}
