/* Joining (B6-B10): a host becomes a member once all that it needs is there, or not at all. */
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "core/group/internal.h"

/*
 * At the joiner:   ASK --JOIN--> PROBING --which copies it reaches--> CONFIGURING --READY--> member
 *                   ^               |                                      |
 *                   +-- undone: any failure, time, the joiner goes away ---+
 */
enum join_step { ASK, ASKED, PROBING, PROBED, CONFIGURING, READY };

/* ---- what the messages do, at all members ---- */

void hf_group_join_undo(struct hf_group *g, const char *why)
{
    g->count.joins_undone++;
    hf_group_event(g, true, "%s does not join: %s; the group is as it was", g->s.join.host, why);
    if (g->join_request && strcmp(g->s.join.host, g->host) == 0) {
        hf_group_result(g, g->join_request, -HF_ELEFT, "cannot join %s: %s", g->name, why);
        g->join_request = 0;
    }
    memset(&g->s.join, 0, sizeof(g->s.join));
    g->s.join.subgroup = HF_GROUP_NONE;
    hf_group_changed(g);
}

/* Why this one can't even try; NULL: it can. */
static const char *unfit(const struct hf_group *g, const struct hf_gmsg *m)
{
    const struct hf_gstate *s = &g->s;
    uint8_t copies = 0;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (s->resource[i].kind == HF_RESOURCE_COPY) {
            copies++;
        }
    }
    if (s->n_members >= HF_GROUP_MEMBERS_MAX) {
        return "the group has as many members as it can have";
    }
    if (s->paused) {
        return "the group is paused; resume it first";
    }
    if (m->join.brings &&
        (s->n_resources >= HF_GROUP_RESOURCES_MAX || copies >= HF_GROUP_COPIES_MAX)) {
        return "the group has as many copies as it can have";
    }
    if (m->join.brings && (m->join.brought.kind != HF_RESOURCE_COPY ||
                           hf_group_resource_of(s, m->join.brought.name) != HF_GROUP_NONE)) {
        return "the group has a resource of that name, or it is not a copy";
    }
    return NULL;
}

void hf_group_on_join(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    bool ours = p->node_id == g->self_node;
    if (strcmp(m->join.host, p->host) != 0 || p->member != HF_GROUP_NONE) {
        g->count.refused_sender++;
        return;
    }
    if (!g->decides || s->join.step != 0) {
        if (ours && g->join_step == ASKED) { /* another one joins now, or nobody decides: later */
            g->join_step = ASK;
            g->join_again = g->now + HF_S(1);
        }
        return;
    }
    const char *why = unfit(g, m);
    if (why) {
        if (ours) {
            hf_group_result(g, g->join_request, -HF_EFULL, "cannot join %s: %s", g->name, why);
            g->join_request = 0;
        }
        return;
    }
    struct hf_gjoin *j = &s->join;
    memset(j, 0, sizeof(*j));
    j->step = 1;
    j->subgroup = HF_GROUP_NONE;
    snprintf(j->host, sizeof(j->host), "%s", m->join.host);
    snprintf(j->address, sizeof(j->address), "%s", m->join.address);
    j->request = m->join.request;
    j->brings = m->join.brings;
    if (j->brings) {
        j->brought = m->join.brought;
        j->brought.host = HF_GROUP_NONE;
        j->brought.mirror =
            j->brought.flags & HF_RESOURCE_MIRROR ? HF_MIRROR_NONE : HF_MIRROR_IN_SYNC;
        j->brought.restarts = 0;
        j->brought.failed_on = 0;
        j->brought.epoch = 0;
    }
    hf_group_changed(g);
    hf_group_event(g, false, "%s wants to join", j->host);
}

static void admit(struct hf_group *g, struct hf_gpeer *p)
{
    struct hf_gstate *s = &g->s;
    struct hf_gjoin *j = &s->join;
    struct hf_gmember *m = &s->member[s->n_members];
    memset(m, 0, sizeof(*m));
    snprintf(m->host, sizeof(m->host), "%s", j->host);
    snprintf(m->address, sizeof(m->address), "%s", j->address);
    m->access = j->access;
    m->subgroup = j->subgroup;
    if (j->brings) {
        uint8_t i = s->n_resources++;
        s->resource[i] = j->brought;
        m->access |= BIT(i);
        m->subgroup = m->subgroup == HF_GROUP_NONE ? i : m->subgroup;
        if (!(j->brought.flags & HF_RESOURCE_MIRROR)) {
            s->in_sync |= BIT(i);
        }
        for (uint8_t k = 0; k < g->n_peers; k++) {
            g->peer[k].role[i] = HF_ROLE_UNKNOWN;
        }
    }
    p->access = m->access;
    s->n_members++;
    g->count.joins++;
    hf_group_event(g, false, "%s is a member now: %s%s", m->host,
                   m->subgroup == HF_GROUP_NONE ? "ineligible, it reaches no copy"
                                                : "in the subgroup of ",
                   m->subgroup == HF_GROUP_NONE ? "" : s->resource[m->subgroup].name);
    memset(j, 0, sizeof(*j));
    j->subgroup = HF_GROUP_NONE;
    hf_group_recount(g);
    hf_group_changed(g);
    g->unsettled = g->s.version;
    if (p->node_id == g->self_node) {
        g->access = m->access;
        g->told_access = m->access;
        g->current = true;
    }
}

void hf_group_on_joining(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m)
{
    struct hf_gstate *s = &g->s;
    struct hf_gjoin *j = &s->join;
    if (!g->decides || j->step == 0 || strcmp(j->host, p->host) != 0 ||
        j->request != m->joining.request) {
        g->count.stale++;
        return;
    }
    if (m->kind == HF_GMSG_JOIN_FAILED) {
        char why[HF_GROUP_TEXT_MAX + 1];
        hf_group_text(why, m->joining.text);
        hf_group_join_undo(g, why);
    } else if (m->kind == HF_GMSG_JOIN_PROBED && j->step == 1) {
        j->access = m->joining.access & hf_group_copies(s);
        j->step = 2;
        for (uint8_t i = 0; i < s->n_resources && j->subgroup == HF_GROUP_NONE; i++) {
            j->subgroup = HAS(j->access, i) ? i : HF_GROUP_NONE; /* first in priority order (B8) */
        }
        hf_group_changed(g);
    } else if (m->kind == HF_GMSG_JOIN_READY && j->step == 2) {
        admit(g, p);
    }
}

/* ---- what the joiner does ---- */

static void say(struct hf_group *g, uint8_t kind, const char *text)
{
    struct hf_gmsg m = {.kind = kind};
    m.joining.request = g->join_number;
    m.joining.access = g->join_access;
    m.joining.text = hf_slice_str(text);
    hf_group_send(g, &m);
}

static void ask(struct hf_group *g)
{
    if (g->now < g->join_again) {
        return;
    }
    struct hf_gmsg m = {.kind = HF_GMSG_JOIN};
    g->join_number = (uint32_t)hf_prng_u64(&g->prng) | 1;
    m.join.request = g->join_number;
    snprintf(m.join.host, sizeof(m.join.host), "%s", g->host);
    snprintf(m.join.address, sizeof(m.join.address), "%s", g->address);
    m.join.brings = g->join_brings;
    if (g->join_brings) {
        m.join.brought = g->join_brought;
    }
    g->join_step = ASKED;
    hf_group_send(g, &m);
}

static void probe(struct hf_group *g)
{
    g->join_probed = g->join_access = 0;
    g->join_step = PROBING;
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        if (g->s.resource[i].kind != HF_RESOURCE_COPY) {
            continue;
        }
        struct hf_glocal *l = &g->local[i];
        l->op = HF_OP_ACCESS;
        l->serial = ++g->serial;
        struct hf_group_act *a = hf_group_out_act(g, HF_GROUP_ACT_AGENT);
        a->agent.resource = i;
        a->agent.op = HF_OP_ACCESS;
        a->agent.serial = l->serial;
        a->agent.epoch = g->s.epoch;
    }
}

/* The configuration of its own subgroup, and of what is attached to a primary (B4). */
static void configure(struct hf_group *g)
{
    const struct hf_gstate *s = &g->s;
    bool all = true;
    for (uint8_t i = 0; i < s->n_resources && s->join.subgroup != HF_GROUP_NONE; i++) {
        if ((s->resource[i].kind == HF_RESOURCE_COPY && i != s->join.subgroup) ||
            s->resource[i].config_hash == 0 || HAS(hf_group_config_mask(g), i)) {
            continue;
        }
        all = false;
        if (!hf_group_ask_config(g, i)) {
            char text[HF_GROUP_TEXT_MAX];
            snprintf(text, sizeof(text), "no member that has the configuration of %s is there",
                     s->resource[i].name);
            g->join_step = READY;
            say(g, HF_GMSG_JOIN_FAILED, text);
            return;
        }
    }
    if (all) {
        g->join_step = READY;
        say(g, HF_GMSG_JOIN_READY, "");
    }
}

/* An answer that the joiner waits for: an access probe's, or a configuration's. */
void hf_group_join_done(struct hf_group *g, uint8_t op, uint8_t resource, int rc)
{
    if (op == HF_OP_ACCESS && g->join_step == PROBING) {
        g->join_probed |= BIT(resource);
        g->join_access =
            (uint16_t)(rc == 0 ? g->join_access | BIT(resource) : g->join_access & ~BIT(resource));
    } else if (op == HF_OP_NONE && g->join_step == CONFIGURING && rc) {
        char text[HF_GROUP_TEXT_MAX];
        snprintf(text, sizeof(text), "cannot get the configuration of %s: %s",
                 resource < g->s.n_resources ? g->s.resource[resource].name : "?", hf_strerror(rc));
        g->join_step = READY;
        if (g->standing == HF_GROUP_IN) {
            say(g, HF_GMSG_JOIN_FAILED, text);
        }
    }
}

void hf_group_join_act(struct hf_group *g)
{
    if (g->join_request && hf_group_self(g) != HF_GROUP_NONE) {
        if (g->unsettled == 0) { /* all have it on disk: only now it is done */
            hf_group_result(g, g->join_request, 0, "%s is a member of %s", g->host, g->name);
            g->join_request = 0;
        }
        return;
    }
    if (!g->join_request || g->standing != HF_GROUP_IN || !g->have_state ||
        hf_group_self(g) != HF_GROUP_NONE) {
        return;
    }
    const struct hf_gjoin *j = &g->s.join;
    bool ours = j->step && strcmp(j->host, g->host) == 0;
    if (ours && j->request != g->join_number) {
        return; /* of our last life: it is undone when its time is up */
    }
    if (!ours) {
        if (g->join_step != ASKED || g->ring != g->join_ring) {
            g->join_step = ASK;
            g->join_ring = g->ring;
            ask(g);
        }
        return;
    }
    if (j->step == 1 && (g->join_step <= ASKED || g->join_step == READY)) {
        probe(g);
    } else if (j->step == 1 && g->join_step == PROBING &&
               (hf_group_copies(&g->s) & ~g->join_probed) == 0) {
        g->join_step = PROBED;
        g->join_ring = g->ring;
        say(g, HF_GMSG_JOIN_PROBED, "");
    } else if (j->step == 1 && g->join_step == PROBED && g->join_ring != g->ring) {
        g->join_ring = g->ring; /* it got lost with the last view */
        say(g, HF_GMSG_JOIN_PROBED, "");
    } else if (j->step == 2 && g->join_step != READY) {
        g->join_step = CONFIGURING;
        g->join_ring = g->ring;
        configure(g);
    } else if (j->step == 2 && g->join_ring != g->ring) {
        g->join_ring = g->ring;
        g->join_step = CONFIGURING;
        configure(g);
    }
}
