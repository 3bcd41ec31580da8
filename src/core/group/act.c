/* What this member does itself: agents, mirrors, fencing, as the common state wants it. */
#include <stdio.h>

#include "core/group/internal.h"

#define OCF_SUCCESS 0
#define OCF_ERR_ARGS 2
#define OCF_ERR_INSTALLED 5
#define OCF_ERR_CONFIGURED 6
#define OCF_NOT_RUNNING 7
#define OCF_RUNNING_PROMOTED 8
#define OCF_DEGRADED 190
#define OCF_DEGRADED_PROMOTED 191

uint16_t hf_group_config_mask(const struct hf_group *g)
{
    uint16_t mask = 0;
    for (uint8_t i = 0; g->have_state && i < g->s.n_resources; i++) {
        const struct hf_glocal *l = &g->local[i];
        if (l->have_config && l->config_hash == g->s.resource[i].config_hash) {
            mask |= BIT(i);
        }
    }
    return mask;
}

static bool has_config(const struct hf_group *g, uint8_t i)
{
    return g->s.resource[i].config_hash == 0 || HAS(hf_group_config_mask(g), i);
}

static bool all_stopped(const struct hf_group *g)
{
    for (uint8_t i = 0; g->have_state && i < g->s.n_resources; i++) {
        const struct hf_glocal *l = &g->local[i];
        if (l->role != HF_ROLE_STOPPED || (l->op != HF_OP_NONE && l->op != HF_OP_ACCESS)) {
            return false;
        }
    }
    return true;
}

static bool promotable(const struct hf_group *g, uint8_t i)
{
    return g->s.resource[i].kind == HF_RESOURCE_COPY &&
           g->s.resource[i].flags & HF_RESOURCE_PROMOTABLE;
}

/* ---- telling the others ---- */

/* While an action is under way that may make it run, nobody knows whether it does. */
uint8_t hf_group_sure_role(const struct hf_group *g, uint8_t i)
{
    const struct hf_glocal *l = &g->local[i];
    bool starts = l->op == HF_OP_START || l->op == HF_OP_PROMOTE || l->op == HF_OP_MIRROR_TARGET;
    bool quiet = l->role == HF_ROLE_STOPPED || l->role == HF_ROLE_UNPROMOTED;
    return starts && quiet ? HF_ROLE_UNKNOWN : l->role;
}

void hf_group_told_all(struct hf_group *g)
{
    for (uint8_t i = 0; i < HF_GROUP_RESOURCES_MAX; i++) {
        g->local[i].told = hf_group_sure_role(g, i);
    }
    g->told_access = g->access;
    g->told_config = hf_group_config_mask(g);
    g->told_resigned = g->resigned;
}

static void tell_role(struct hf_group *g, uint8_t i)
{
    struct hf_glocal *l = &g->local[i];
    if (!l->tell && (l->told == l->role || (l->op != HF_OP_NONE && l->op != HF_OP_ACCESS))) {
        return;
    }
    struct hf_gmsg m = {.kind = HF_GMSG_ROLE};
    m.role.resource = i;
    m.role.role = l->role;
    m.role.op = l->tell ? l->last_op : HF_OP_NONE;
    m.role.rc = l->tell || l->role == HF_ROLE_FAILED ? l->last_rc : 0;
    m.role.epoch = l->last_epoch;
    m.role.text = hf_slice_str(l->text);
    l->tell = false;
    l->told = l->role;
    l->unseen++;
    hf_group_send(g, &m);
}

/* A promotion of which the others have not heard: the message went with an earlier view. */
static void promoted_again(struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    if (s->phase != HF_PHASE_PROMOTING || hf_group_self(g) != s->primary_host) {
        return;
    }
    struct hf_glocal *l = &g->local[s->primary];
    if (hf_group_is_primary_role(l->role) && l->role_epoch == s->epoch && l->op == HF_OP_NONE &&
        !l->unseen) {
        l->tell = true;
        l->last_op = promotable(g, s->primary) ? HF_OP_PROMOTE : HF_OP_START;
        l->last_rc = 0;
        l->last_epoch = s->epoch;
    }
}

void hf_group_tell(struct hf_group *g)
{
    if (g->standing != HF_GROUP_IN || !g->have_state || hf_group_self(g) == HF_GROUP_NONE) {
        return;
    }
    uint16_t config = hf_group_config_mask(g);
    if (g->told_access != g->access || g->told_config != config ||
        g->told_resigned != g->resigned) {
        struct hf_gmsg m = {.kind = HF_GMSG_ABLE};
        m.able.access = g->told_access = g->access;
        m.able.config = g->told_config = config;
        m.able.resigned = g->told_resigned = g->resigned;
        hf_group_send(g, &m);
    }
    promoted_again(g);
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        tell_role(g, i);
    }
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        if (HAS(g->fence_done, m)) {
            g->fence_done &= (uint16_t)~BIT(m);
            g->fence_told |= BIT(m);
            struct hf_gmsg f = {.kind = HF_GMSG_FENCED};
            f.fenced.member = m;
            f.fenced.ok = HAS(g->fence_ok, m);
            f.fenced.text = hf_slice_str(g->fence_text);
            hf_group_send(g, &f);
        }
    }
}

/* ---- one action ---- */

/* S without the primary copy: those that commits wait for. */
static uint16_t others_in_sync(const struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    return s->in_sync & hf_group_mirrored_copies(s) & (uint16_t)~BIT(s->primary);
}

static void start_op(struct hf_group *g, uint8_t i, uint8_t op)
{
    struct hf_glocal *l = &g->local[i];
    struct hf_gstate *s = &g->s;
    l->op = op;
    l->serial = ++g->serial;
    l->op_epoch = s->epoch;
    struct hf_group_act *a = hf_group_out_act(g, HF_GROUP_ACT_AGENT);
    a->agent.resource = i;
    a->agent.op = op;
    a->agent.serial = l->serial;
    a->agent.epoch = s->epoch;
    a->agent.init = s->init && i == s->primary && ((BIT(i) - 1) & hf_group_copies(s)) == 0;
    a->agent.overwrite = !HAS(s->in_sync, i);
    a->agent.source = s->primary;
    /* Another copy begins with S of itself alone, which is on all disks before it opens. */
    bool alone = s->last_primary != s->primary && s->resource[s->primary].flags & HF_RESOURCE_OPEN;
    if (op == HF_OP_PREPARE && i != s->primary) {
        a->agent.epoch++; /* it opens with S of itself alone */
    } else if (op == HF_OP_PROMOTE || op == HF_OP_START) {
        a->agent.sync = alone ? 0 : others_in_sync(g);
        a->agent.silent = hf_group_silent(g);
        l->op_sync = a->agent.sync;
    } else if (op == HF_OP_MIRROR_SOURCE) {
        a->agent.sync = l->op_sync;
        a->agent.async = l->op_async;
        a->agent.grow = l->op_sync & (uint16_t)~s->in_sync;
    }
}

static bool plain_open(const struct hf_group *g, uint8_t i)
{
    return g->s.resource[i].kind == HF_RESOURCE_ATTACHED ||
           !(g->s.resource[i].flags & HF_RESOURCE_OPEN);
}

/* ---- outcome of actions ---- */

/* Did the group let it be started here, and has not seen it stopped since? */
static bool may_run_here(const struct hf_group *g, uint8_t i)
{
    uint8_t self = hf_group_self(g);
    return self != HF_GROUP_NONE && HAS(g->s.member[self].dirty, i);
}

static void monitored(struct hf_group *g, uint8_t i, int rc)
{
    struct hf_glocal *l = &g->local[i];
    bool was_primary = hf_group_is_primary_role(l->role);
    bool first = l->role == HF_ROLE_UNKNOWN;
    switch (rc) {
    case OCF_SUCCESS:
    case OCF_DEGRADED:
        if (!promotable(g, i)) {
            l->role = first || l->role == HF_ROLE_STOPPED ? HF_ROLE_OPEN : l->role;
        } else if (was_primary) {
            l->role = HF_ROLE_FAILED;
            snprintf(l->text, sizeof(l->text), "it is not promoted any more");
        } else if (l->role != HF_ROLE_FAILED) {
            l->role = HF_ROLE_UNPROMOTED;
        }
        break;
    case OCF_RUNNING_PROMOTED:
    case OCF_DEGRADED_PROMOTED:
        if (!was_primary && l->role != HF_ROLE_FAILED) {
            l->role = plain_open(g, i) ? HF_ROLE_OPEN : HF_ROLE_PROMOTED;
            l->role_epoch = 0;
        }
        break;
    case OCF_NOT_RUNNING:
        if (first || l->role == HF_ROLE_STOPPED) {
            l->role = HF_ROLE_STOPPED;
        } else if (l->role != HF_ROLE_FAILED && l->role != HF_ROLE_STUCK) {
            l->role = HF_ROLE_FAILED;
            if (l->text[0] == '\0') {
                snprintf(l->text, sizeof(l->text), "it is not running any more");
            }
        }
        break;
    default: /* where the agent can't run nothing of it does, unless it was started here before */
        if (first && !may_run_here(g, i) &&
            (rc == OCF_ERR_ARGS || rc == OCF_ERR_INSTALLED || rc == OCF_ERR_CONFIGURED)) {
            l->role = HF_ROLE_STOPPED;
        } else if (l->role != HF_ROLE_STOPPED && l->role != HF_ROLE_STUCK) {
            l->role = HF_ROLE_FAILED;
        }
    }
}

static void succeeded(struct hf_group *g, uint8_t i, uint8_t op)
{
    struct hf_glocal *l = &g->local[i];
    switch ((enum hf_op)op) {
    case HF_OP_START:
        l->role = promotable(g, i) ? HF_ROLE_UNPROMOTED : HF_ROLE_OPEN;
        l->role_epoch = l->op_epoch;
        break;
    case HF_OP_PROMOTE:
        l->role = plain_open(g, i) ? HF_ROLE_OPEN : HF_ROLE_PROMOTED;
        l->role_epoch = l->op_epoch;
        l->alone = l->op_sync == 0;
        break;
    case HF_OP_OPEN:
        l->role = HF_ROLE_OPEN;
        break;
    case HF_OP_DEMOTE:
    case HF_OP_MIRROR_TARGET:
        l->role = HF_ROLE_UNPROMOTED;
        break;
    case HF_OP_STOP:
        l->role = HF_ROLE_STOPPED;
        break;
    case HF_OP_MIRROR_SOURCE: {
        struct hf_gmsg m = {.kind = HF_GMSG_MIRRORED};
        m.mirrored.epoch = l->op_epoch;
        m.mirrored.sync = l->op_sync;
        m.mirrored.async = l->op_async;
        if (g->standing == HF_GROUP_IN) {
            hf_group_send(g, &m);
            g->mirrored_sent = true; /* until it comes back */
        }
        break;
    }
    case HF_OP_NONE:
    case HF_OP_MONITOR:
    case HF_OP_ACCESS:
    case HF_OP_PREPARE:
    case HF_OP_COUNT_:
        break;
    }
}

static void failed(struct hf_group *g, uint8_t i, uint8_t op)
{
    struct hf_glocal *l = &g->local[i];
    g->count.agent_errors++;
    if (op == HF_OP_STOP) {
        if (l->role != HF_ROLE_STUCK) {
            hf_group_event(g, true, "%s can't be stopped here: %s", g->s.resource[i].name, l->text);
        }
        l->role = HF_ROLE_STUCK;
        l->again_at = g->now + g->retry;
    } else if (op == HF_OP_MIRROR_SOURCE) {
        l->again_at = g->now + HF_S(1);
    } else if (op == HF_OP_MIRROR_TARGET) {
        l->again_at = g->now + HF_S(1);
        l->role = HF_ROLE_FAILED; /* whatever it follows, or whether it runs: stop it */
    } else {
        l->role = HF_ROLE_FAILED;
    }
}

static void access_probed(struct hf_group *g, uint8_t i, int rc)
{
    g->access = (uint16_t)(rc == 0 ? g->access | BIT(i) : g->access & ~BIT(i));
    hf_group_join_done(g, HF_OP_ACCESS, i, rc);
}

void hf_group_done(struct hf_group *g, const struct hf_group_in *in)
{
    if (!g->have_state || in->resource >= HF_GROUP_RESOURCES_MAX) {
        return;
    }
    uint8_t i = in->resource;
    struct hf_glocal *l = &g->local[i];
    if (in->serial == 0) { /* a recurring one, not asked for here */
        if (in->op == HF_OP_ACCESS) {
            access_probed(g, i, in->rc);
        } else if (in->op == HF_OP_MONITOR && l->op == HF_OP_NONE && i < g->s.n_resources) {
            uint8_t before = l->role;
            if (in->rc) {
                hf_group_text(l->text, in->text);
            }
            monitored(g, i, in->rc);
            if (l->role == HF_ROLE_FAILED && before != HF_ROLE_FAILED) {
                l->last_op = HF_OP_MONITOR;
                l->last_rc = (uint8_t)in->rc;
                l->tell = true;
                g->count.agent_errors++;
            }
        }
        return;
    }
    if (l->op == HF_OP_NONE || l->serial != in->serial) {
        return;
    }
    uint8_t op = l->op;
    l->op = HF_OP_NONE;
    l->again_at = 0;
    hf_group_text(l->text, in->text);
    if (op == HF_OP_ACCESS) {
        access_probed(g, i, in->rc);
        return;
    }
    l->last_op = op;
    l->last_rc = (uint8_t)in->rc;
    l->last_epoch = l->op_epoch;
    if (op == HF_OP_MONITOR) {
        monitored(g, i, in->rc);
        return;
    }
    l->tell = true;
    if (op == HF_OP_PREPARE) {
        g->count.agent_errors += in->rc != 0;
    } else if (in->rc == 0) {
        succeeded(g, i, op);
    } else {
        failed(g, i, op);
    }
}

/* ---- what is wanted here ---- */

/* Is this member cut off from those who decide? Then nothing of it may be primary. */
static bool cut_off(const struct hf_group *g)
{
    bool unsure = g->suspect && g->ping_at == 0;
    bool quorum_known = g->quorum_ring >= g->ring;
    if (g->standing == HF_GROUP_OUT) { /* the others wait as long for a daemon to come back */
        return g->now >= g->adrift_at;
    }
    return unsure || (quorum_known && !g->quorate);
}

static uint8_t wanted_attached(const struct hf_group *g, uint8_t i)
{
    const struct hf_gstate *s = &g->s;
    bool ours = hf_group_self(g) == s->primary_host && s->phase >= HF_PHASE_OPENING &&
                !cut_off(g) && !g->resigned;
    uint8_t copy = ours ? g->local[s->primary].role : HF_ROLE_STOPPED;
    if (copy == HF_ROLE_UNKNOWN || (copy == HF_ROLE_PROMOTED && g->local[i].role == HF_ROLE_OPEN)) {
        return g->local[i].role; /* our last process may have left both running */
    }
    if (!ours || g->local[s->primary].role != HF_ROLE_OPEN) {
        return HF_ROLE_STOPPED;
    }
    for (uint8_t k = 0; k < i; k++) { /* in order */
        if (s->resource[k].kind == HF_RESOURCE_ATTACHED && g->local[k].role != HF_ROLE_OPEN) {
            return g->local[i].role == HF_ROLE_OPEN ? HF_ROLE_OPEN : HF_ROLE_STOPPED;
        }
    }
    return HF_ROLE_OPEN;
}

static uint8_t wanted_copy(const struct hf_group *g, uint8_t i)
{
    const struct hf_gstate *s = &g->s;
    const struct hf_gresource *r = &s->resource[i];
    const struct hf_glocal *l = &g->local[i];
    uint8_t self = hf_group_self(g);
    bool primary_role = hf_group_is_primary_role(l->role);
    if (self == HF_GROUP_NONE || g->resigned || s->member[self].leaving) {
        return HF_ROLE_STOPPED;
    }
    if (cut_off(g)) {
        return primary_role || l->op == HF_OP_PROMOTE || l->role == HF_ROLE_FAILED ? HF_ROLE_STOPPED
                                                                                   : l->role;
    }
    if (i == s->primary && self == s->primary_host) {
        switch ((enum hf_phase)s->phase) {
        case HF_PHASE_PROMOTING:
            return l->role == HF_ROLE_OPEN && l->role_epoch == s->epoch ? HF_ROLE_OPEN
                                                                        : HF_ROLE_PROMOTED;
        case HF_PHASE_OPENING:
        case HF_PHASE_RUNNING: /* had it to stop, then only a new reign promotes it again (X3) */
            return l->role == HF_ROLE_STOPPED || l->role == HF_ROLE_UNPROMOTED ? l->role
                                                                               : HF_ROLE_OPEN;
        case HF_PHASE_NONE:
        case HF_PHASE_CLEARING:
        case HF_PHASE_COUNT_:
            return l->role == HF_ROLE_UNPROMOTED ? l->role : HF_ROLE_STOPPED;
        }
    }
    if (r->host != self) {
        return HF_ROLE_STOPPED;
    }
    if (!promotable(g, i)) {
        return HF_ROLE_STOPPED;
    }
    if (r->flags & HF_RESOURCE_MIRROR) { /* started by mirror-target only */
        return l->role == HF_ROLE_FAILED || l->role == HF_ROLE_STUCK || l->role == HF_ROLE_STOPPED
                   ? HF_ROLE_STOPPED
                   : HF_ROLE_UNPROMOTED;
    }
    return HF_ROLE_UNPROMOTED;
}

/* The next action on the way from what is to what is wanted; NONE: there, or not possible now. */
static uint8_t step_towards(const struct hf_group *g, uint8_t i, uint8_t want)
{
    const struct hf_glocal *l = &g->local[i];
    bool again = g->s.phase == HF_PHASE_PROMOTING && i == g->s.primary &&
                 l->role_epoch != g->s.epoch && want >= HF_ROLE_PROMOTED;
    switch ((enum hf_role)l->role) {
    case HF_ROLE_UNKNOWN:
        return HF_OP_MONITOR;
    case HF_ROLE_STOPPED:
        return want == HF_ROLE_STOPPED ? HF_OP_NONE : HF_OP_START;
    case HF_ROLE_UNPROMOTED:
        return want == HF_ROLE_STOPPED      ? HF_OP_STOP
               : want == HF_ROLE_UNPROMOTED ? HF_OP_NONE
                                            : HF_OP_PROMOTE;
    case HF_ROLE_PROMOTED:
    case HF_ROLE_OPEN:
        if (want == HF_ROLE_STOPPED || want == HF_ROLE_UNPROMOTED) {
            return promotable(g, i) ? HF_OP_DEMOTE : HF_OP_STOP;
        }
        if (again) {
            return promotable(g, i) ? HF_OP_PROMOTE : HF_OP_START;
        }
        return want == HF_ROLE_OPEN && l->role == HF_ROLE_PROMOTED ? HF_OP_OPEN : HF_OP_NONE;
    case HF_ROLE_FAILED:
    case HF_ROLE_STUCK:
        return HF_OP_STOP;
    case HF_ROLE_COUNT_:
        break;
    }
    return HF_OP_NONE;
}

static bool attached_stopped(const struct hf_group *g, uint8_t from)
{
    for (uint8_t k = from; k < g->s.n_resources; k++) {
        if (g->s.resource[k].kind == HF_RESOURCE_ATTACHED &&
            (g->local[k].role != HF_ROLE_STOPPED || g->local[k].op != HF_OP_NONE)) {
            return false;
        }
    }
    return true;
}

/* A copy is let go after what is attached to it; attached ones in reverse order. */
static bool in_order(const struct hf_group *g, uint8_t i, uint8_t op)
{
    if (op != HF_OP_STOP && op != HF_OP_DEMOTE) {
        return true;
    }
    if (g->s.resource[i].kind == HF_RESOURCE_ATTACHED) {
        return attached_stopped(g, (uint8_t)(i + 1));
    }
    uint8_t role = g->local[i].role;
    bool backup = role != HF_ROLE_PROMOTED && role != HF_ROLE_OPEN && i != g->s.primary;
    return backup || attached_stopped(g, 0);
}

static void wanted_mirrors(const struct hf_group *g, uint16_t *ret_sync, uint16_t *ret_async)
{
    const struct hf_gstate *s = &g->s;
    uint16_t mirrored = hf_group_mirrored_copies(s);
    *ret_sync = *ret_async = 0;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        uint8_t m = s->resource[i].mirror;
        if (!HAS(mirrored, i) || i == s->primary) {
            continue;
        }
        if (HAS(s->in_sync, i) || m == HF_MIRROR_GROWING) {
            *ret_sync |= BIT(i);
        } else if (m == HF_MIRROR_AIMED || m == HF_MIRROR_SYNCING) {
            *ret_async |= BIT(i);
        }
    }
}

static bool mirrors_in_force(const struct hf_group *g)
{
    uint16_t sync, async;
    wanted_mirrors(g, &sync, &async);
    return g->mirrored_epoch == g->s.epoch && g->sync == sync && g->async == async;
}

/* To open, the agent has all of S confirm what the primary has (X4): first they must follow it. */
static bool set_follows(const struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    uint16_t others = others_in_sync(g);
    if (s->phase != HF_PHASE_OPENING || !(s->resource[s->primary].flags & HF_RESOURCE_MIRROR)) {
        return true;
    }
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (HAS(others, i) && s->resource[i].mirror != HF_MIRROR_IN_SYNC) {
            return false;
        }
    }
    return (others == 0 && g->local[s->primary].alone && g->mirrored_epoch != s->epoch) ||
           (g->mirrored_epoch == s->epoch && g->sync == others);
}

static bool may_begin(const struct hf_group *g, uint8_t op)
{
    return op == HF_OP_PROMOTE ? hf_group_may_promote(g) : hf_group_may_act(g);
}

static void reconcile(struct hf_group *g, uint8_t i)
{
    struct hf_glocal *l = &g->local[i];
    bool attached = g->s.resource[i].kind == HF_RESOURCE_ATTACHED;
    if (l->op != HF_OP_NONE || g->now < l->again_at) {
        return;
    }
    if (l->role == HF_ROLE_UNKNOWN && !l->have_config && g->s.resource[i].config_hash) {
        l->role = HF_ROLE_STOPPED; /* it has never been here */
        return;
    }
    if (g->s.paused && l->role != HF_ROLE_UNKNOWN) {
        return;
    }
    uint8_t op = step_towards(g, i, attached ? wanted_attached(g, i) : wanted_copy(g, i));
    bool harmless = op == HF_OP_MONITOR || op == HF_OP_STOP || op == HF_OP_DEMOTE;
    if (op == HF_OP_NONE ||
        (!harmless && (!may_begin(g, op) || l->tell || l->unseen || !has_config(g, i))) ||
        !in_order(g, i, op) || (op == HF_OP_OPEN && !set_follows(g))) {
        return;
    }
    start_op(g, i, op);
}

/*
 * A first look at everything that we have the configuration of, before we say what we reach. What
 * runs here is found out first: after a restart the others wait for that (G6), and what we reached
 * before is in the state.
 */
static void probe_access(struct hf_group *g, uint8_t i)
{
    struct hf_glocal *l = &g->local[i];
    if (g->s.resource[i].kind == HF_RESOURCE_COPY && !l->probed && l->op == HF_OP_NONE &&
        l->role != HF_ROLE_UNKNOWN && has_config(g, i) && hf_group_self(g) != HF_GROUP_NONE) {
        l->probed = true;
        start_op(g, i, HF_OP_ACCESS);
    }
}

/* ---- mirrors ---- */

static void mirror_source(struct hf_group *g)
{
    struct hf_glocal *l = &g->local[g->s.primary];
    bool promoted = (g->s.phase == HF_PHASE_RUNNING && l->role == HF_ROLE_OPEN) ||
                    (g->s.phase == HF_PHASE_OPENING && l->role == HF_ROLE_PROMOTED);
    if (!promoted || hf_group_self(g) != g->s.primary_host || l->op != HF_OP_NONE ||
        g->now < l->again_at || !(g->s.resource[g->s.primary].flags & HF_RESOURCE_MIRROR)) {
        return;
    }
    if (mirrors_in_force(g) || g->mirrored_sent || l->tell || l->unseen || !hf_group_may_act(g)) {
        return;
    }
    wanted_mirrors(g, &l->op_sync, &l->op_async);
    start_op(g, g->s.primary, HF_OP_MIRROR_SOURCE);
}

static void mirror_target(struct hf_group *g, uint8_t i)
{
    const struct hf_gstate *s = &g->s;
    struct hf_glocal *l = &g->local[i];
    bool reign =
        s->phase == HF_PHASE_RUNNING || (s->phase == HF_PHASE_OPENING && HAS(s->in_sync, i));
    if (!reign || s->resource[i].host != hf_group_self(g) || i == s->primary ||
        s->resource[i].mirror != HF_MIRROR_AIMED || !(s->resource[i].flags & HF_RESOURCE_MIRROR) ||
        l->op != HF_OP_NONE || g->now < l->again_at || !HAS(g->sync | g->async, i) ||
        g->mirrored_epoch != s->epoch ||
        (l->role != HF_ROLE_STOPPED && l->role != HF_ROLE_UNPROMOTED) || !has_config(g, i) ||
        l->tell || l->unseen || !hf_group_may_act(g)) {
        return;
    }
    start_op(g, i, HF_OP_MIRROR_TARGET);
}

/* ---- planned switches ---- */

/* What was done before a view is done at once when asked again. */
static void prepare(struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    uint8_t self = hf_group_self(g);
    uint8_t i = self == s->next_host      ? s->next
                : self == s->primary_host ? s->primary
                                          : HF_GROUP_NONE;
    if (s->next == HF_GROUP_NONE || i == HF_GROUP_NONE || g->prepare_done || !g->decides ||
        g->local[i].op != HF_OP_NONE || g->local[i].tell || !has_config(g, i)) {
        return;
    }
    g->prepare_done = true;
    start_op(g, i, HF_OP_PREPARE);
}

/* ---- configuration (B4) ---- */

/* Who has it: the resource's host, or the primary host, or anybody. */
static uint8_t config_from(const struct hf_group *g, uint8_t i)
{
    const struct hf_gstate *s = &g->s;
    uint8_t first = s->resource[i].kind == HF_RESOURCE_COPY ? s->resource[i].host : s->primary_host;
    uint8_t found = HF_GROUP_NONE;
    for (uint8_t m = 0; m < s->n_members; m++) {
        const struct hf_gpeer *p = HAS(g->present, m) ? hf_group_peer(g, m) : NULL;
        if (p && HAS(p->config, i) && p->node_id != g->self_node &&
            (m == first || found == HF_GROUP_NONE)) {
            found = m;
        }
    }
    return found;
}

bool hf_group_ask_config(struct hf_group *g, uint8_t i)
{
    struct hf_glocal *l = &g->local[i];
    if (has_config(g, i) || l->config_asked) {
        return true;
    }
    uint8_t m = config_from(g, i);
    if (m == HF_GROUP_NONE) {
        return false;
    }
    if (g->now >= l->config_at) {
        l->config_asked = true;
        struct hf_group_act *a = hf_group_out_act(g, HF_GROUP_ACT_CONFIG);
        a->resource = i;
        a->host = g->s.member[m].host;
        a->address = g->s.member[m].address;
    }
    return true;
}

static void get_config(struct hf_group *g)
{
    uint8_t self = hf_group_self(g);
    if (self == HF_GROUP_NONE) {
        return;
    }
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        const struct hf_gmember *m = &g->s.member[self];
        bool last = g->s.phase == HF_PHASE_NONE && HAS(g->s.in_sync & m->access, i);
        bool mine = g->s.resource[i].kind == HF_RESOURCE_COPY ? m->subgroup == i || last
                                                              : m->subgroup != HF_GROUP_NONE;
        if (mine) {
            (void)hf_group_ask_config(g, i);
        }
    }
}

/* ---- fencing ---- */

/* Who fences: the one that is to take over first, then the others in turn. */
static uint8_t executor(const struct hf_group *g, uint8_t target)
{
    uint8_t list[HF_GROUP_MEMBERS_MAX], n = 0;
    uint8_t first = g->s.phase == HF_PHASE_CLEARING ? g->s.primary_host : HF_GROUP_NONE;
    if (first != HF_GROUP_NONE && HAS(g->present, first) && first != target) {
        list[n++] = first;
    }
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        if (HAS(g->present, m) && m != target && m != first) {
            list[n++] = m;
        }
    }
    return n ? list[g->fence_tries[target] % n] : HF_GROUP_NONE;
}

/* Each present member has tried: wait before the next round. */
static bool fence_later(const struct hf_group *g, uint8_t target)
{
    uint8_t n = 0;
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        n = (uint8_t)(n + (HAS(g->present, m) && m != target));
    }
    return n && g->fence_tries[target] && g->fence_tries[target] % n == 0 &&
           g->now < g->fence_at[target];
}

static void fence(struct hf_group *g)
{
    uint16_t targets = hf_group_fence_targets(g);
    if (!targets || !hf_group_may_act(g)) {
        return;
    }
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        if (!HAS(targets, m) || HAS(g->fencing | g->fence_done | g->fence_told, m) ||
            fence_later(g, m) || executor(g, m) != hf_group_self(g)) {
            continue;
        }
        g->fencing |= BIT(m);
        struct hf_group_act *a = hf_group_out_act(g, HF_GROUP_ACT_FENCE);
        a->host = g->s.member[m].host;
        hf_group_event(g, false, "fencing %s", g->s.member[m].host);
    }
}

/* ---- the end ---- */

static void farewell(struct hf_group *g)
{
    if (!g->stopping || g->left_told) {
        return;
    }
    bool over = g->stopped || !g->have_state || g->s.paused || hf_group_self(g) == HF_GROUP_NONE;
    if (!over && all_stopped(g)) {
        if (g->standing != HF_GROUP_IN) {
            over = g->standing == HF_GROUP_OUT;
        } else if (g->told_resigned && !g->bye_sent) {
            struct hf_gmsg m = {.kind = HF_GMSG_BYE};
            g->bye_sent = true;
            hf_group_send(g, &m);
        }
    }
    if (over) {
        g->left_told = true;
        hf_group_out_act(g, HF_GROUP_ACT_STOPPED);
    }
}

/* Removed from the group: once nothing runs here, forget it. */
static void removed(struct hf_group *g)
{
    bool member = hf_group_self(g) != HF_GROUP_NONE;
    if (!member && g->was_member && g->standing == HF_GROUP_IN && g->have_state && all_stopped(g) &&
        !g->left_told && g->persisted == g->s.version) {
        g->was_member = false;
        g->left_told = true;
        hf_group_event(g, true, "this host is not a member of %s any more", g->name);
        hf_group_out_act(g, HF_GROUP_ACT_LEFT);
    }
    g->was_member = g->was_member || member;
}

void hf_group_act(struct hf_group *g)
{
    if (g->have_state && (hf_group_self(g) != HF_GROUP_NONE || g->was_member)) {
        for (uint8_t i = 0; i < g->s.n_resources; i++) {
            probe_access(g, i);
            reconcile(g, i);
            mirror_target(g, i);
        }
        if (g->standing == HF_GROUP_IN && !g->s.paused) {
            if (g->s.primary != HF_GROUP_NONE) {
                mirror_source(g);
                prepare(g);
            }
            get_config(g);
            fence(g);
        }
    }
    hf_group_tell(g); /* roles that needed no action */
    hf_group_join_act(g);
    hf_group_request_act(g);
    farewell(g);
    removed(g);
}

hf_time hf_group_act_deadline(const struct hf_group *g)
{
    hf_time t = HF_NEVER;
    for (uint8_t i = 0; g->have_state && i < g->s.n_resources; i++) {
        const struct hf_glocal *l = &g->local[i];
        if (l->op == HF_OP_NONE && l->again_at > g->now) {
            t = hf_time_min(t, l->again_at);
        }
        if (l->config_at > g->now && !l->config_asked) {
            t = hf_time_min(t, l->config_at);
        }
    }
    uint16_t targets = hf_group_fence_targets(g);
    for (uint8_t m = 0; m < HF_GROUP_MEMBERS_MAX; m++) {
        if (HAS(targets, m) && g->fence_at[m] > g->now) {
            t = hf_time_min(t, g->fence_at[m]);
        }
    }
    if (g->join_request && g->join_again > g->now) {
        t = hf_time_min(t, g->join_again);
    }
    if (g->create_request && g->persisted) {
        t = hf_time_min(t, g->create_at + g->answer);
    }
    if (g->pending.request) {
        t = hf_time_min(t, g->pending.until);
    }
    return t;
}
