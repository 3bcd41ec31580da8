/* Views: each begins with a round of hellos, from which all members take the same, newest state. */
#include <stdio.h>

#include "base/hash.h"
#include "codec/group_v1.h"
#include "core/group/internal.h"

static uint64_t state_hash(struct hf_group *g)
{
    uint8_t buf[HF_GSTATE_LEN_MAX];
    struct hf_slice s;
    int rc = hf_gstate_encode(&g->s, buf, sizeof(buf), &s);
    assert(rc == 0);
    return hf_hash(s, 0);
}

/* ---- a view comes ---- */

static void note_left(struct hf_group *g, const struct hf_engine_view *v)
{
    for (size_t i = 0; i < v->n_left; i++) {
        uint8_t m = g->have_state ? hf_group_member_of(&g->s, v->left[i].host) : HF_GROUP_NONE;
        if (m == HF_GROUP_NONE) {
            continue;
        }
        if (v->left[i].left == HF_ENGINE_NODEDOWN) {
            g->procdown &= (uint16_t)~BIT(m);
        } else if (!HAS(g->procdown, m)) {
            g->procdown |= BIT(m); /* its host lives: wait for its daemon (G6) */
            g->procdown_at[m] = g->now;
        }
    }
}

/* A ghost is one only while it stays in the list: who has left and comes again is awaited. */
static void forget_ghosts(struct hf_group *g, const struct hf_engine_view *v)
{
    uint8_t n = 0;
    for (uint8_t i = 0; i < g->n_ghosts; i++) {
        for (size_t k = 0; k < v->n_members; k++) {
            if (v->member[k].node_id == g->ghost[i]) {
                g->ghost[n++] = g->ghost[i];
                break;
            }
        }
    }
    memset(&g->ghost[n], 0, (size_t)(HF_GROUP_GHOSTS_MAX - n) * sizeof(g->ghost[0]));
    g->n_ghosts = n;
}

void hf_group_view(struct hf_group *g, const struct hf_engine_view *v)
{
    g->count.views++;
    note_left(g, v);
    bool in = false;
    forget_ghosts(g, v);
    g->n_peers = 0;
    for (size_t i = 0; i < v->n_members && g->n_peers < HF_GROUP_PEERS_MAX; i++) {
        struct hf_gpeer *p = &g->peer[g->n_peers++];
        *p = (struct hf_gpeer){.node_id = v->member[i].node_id, .member = HF_GROUP_NONE};
        snprintf(p->host, sizeof(p->host), "%s", v->member[i].host);
        if (strcmp(p->host, g->host) == 0) {
            in = true;
            g->self_node = p->node_id;
        }
        uint8_t m = g->have_state ? hf_group_member_of(&g->s, p->host) : HF_GROUP_NONE;
        if (m != HF_GROUP_NONE) {
            g->procdown &= (uint16_t)~BIT(m);
        }
    }
    g->ring = v->ring;
    g->decides = g->half = g->overruled = false;
    g->present = 0;
    g->hello_sent = g->bye_sent = false; /* what was said in the last view went with it */
    g->fence_told = 0;
    g->prepare_done = false;
    for (uint8_t i = 0; i < HF_GROUP_RESOURCES_MAX; i++) {
        g->local[i].unseen = 0;
    }
    g->taken = 0;
    hf_group_enter(g, in ? HF_GROUP_HELLO : HF_GROUP_OUT);
    if (!in) {
        g->current = false;
        return;
    }
    hf_group_say_hello(g);
}

/* Once the view and the quorum of its ring are known, in whatever order they came. */
void hf_group_say_hello(struct hf_group *g)
{
    bool making = g->create_request && g->persisted == 0;
    if (g->standing != HF_GROUP_HELLO || g->hello_sent || g->quorum_ring < g->ring || making) {
        return;
    }
    g->hello_sent = true;
    struct hf_gmsg m = {.kind = HF_GMSG_HELLO};
    m.hello.incarnation = g->incarnation;
    if (g->have_state) {
        m.hello.version = g->s.version;
        m.hello.epoch = g->s.epoch;
        m.hello.hash = state_hash(g);
        m.hello.n_roles = g->s.n_resources;
    }
    m.hello.persisted = g->persisted;
    m.hello.quorate = g->quorate;
    m.hello.current = g->current && g->unsettled == 0;
    m.hello.procdown = g->procdown;
    snprintf(m.hello.host, sizeof(m.hello.host), "%s", g->host);
    snprintf(m.hello.address, sizeof(m.hello.address), "%s", g->address);
    m.hello.access = g->access;
    m.hello.config = hf_group_config_mask(g);
    m.hello.resigned = g->resigned;
    bool known = !g->mirrored_sent && (!g->have_state || g->s.primary == HF_GROUP_NONE ||
                                       g->local[g->s.primary].op != HF_OP_MIRROR_SOURCE);
    if (known && g->mirrored_epoch == g->s.epoch && g->have_state &&
        g->s.primary != HF_GROUP_NONE && hf_group_self(g) == g->s.primary_host) {
        m.hello.sync = g->sync | BIT(g->s.primary); /* its own bit: they are in force */
        m.hello.async = g->async;
    }
    for (uint8_t i = 0; i < m.hello.n_roles; i++) {
        m.hello.role[i] = hf_group_sure_role(g, i);
    }
    m.hello.n_ghosts = g->n_ghosts;
    memcpy(m.hello.ghost, g->ghost, sizeof(m.hello.ghost));
    g->hello_roles = m.hello.n_roles;
    hf_group_told_all(g);
    g->told_quorate = g->quorate;
    hf_group_send(g, &m);
}

/* ---- the round is complete ---- */

static bool is_ghost(const struct hf_group *g, uint32_t node_id)
{
    for (uint8_t i = 0; i < g->n_ghosts; i++) {
        if (g->ghost[i] == node_id) {
            return true;
        }
    }
    return false;
}

static bool complete(const struct hf_group *g)
{
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (!p->hello && !p->excluded) {
            return false;
        }
    }
    return true;
}

/* Who has the newest state: the lowest node id of those with the highest version. */
static const struct hf_gpeer *newest(const struct hf_group *g)
{
    const struct hf_gpeer *best = NULL;
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (p->hello && !p->excluded && p->version > 0 && (!best || p->version > best->version)) {
            best = p;
        }
    }
    return best;
}

/* Another group of the same name is none of ours, and we are none of its. */
static uint64_t our_group(const struct hf_group *g)
{
    if (g->have_state) {
        return g->s.id;
    }
    const struct hf_gpeer *p = newest(g);
    return p ? p->group_id : 0;
}

static void note_foreign(struct hf_group *g)
{
    uint64_t id = our_group(g);
    for (uint8_t i = 0; i < g->n_peers; i++) {
        struct hf_gpeer *p = &g->peer[i];
        if (p->hello && id && p->group_id && p->group_id != id) {
            p->foreign = true;
            p->version = 0;
            hf_group_event(g, true,
                           "%s is in another group that is called %s, too: rename one of them",
                           p->host, g->name);
        }
    }
}

/* Present members, from the list of peers: again whenever one is excluded or says bye. */
void hf_group_recount(struct hf_group *g)
{
    g->present = 0;
    for (uint8_t i = 0; i < g->n_peers; i++) {
        struct hf_gpeer *p = &g->peer[i];
        p->member = HF_GROUP_NONE;
        if (g->have_state && p->hello && !p->foreign) {
            p->member = hf_group_member_of(&g->s, p->host);
            if (p->member != HF_GROUP_NONE && !p->excluded && !p->gone) {
                g->present |= BIT(p->member);
            }
        }
    }
}

/*
 * May this view change the state? Only with the engine's quorum, and if no newer state can be on
 * the disks of those who are not here (G5): a majority of the members is, counting only those that
 * have a record; or exactly half, all of whom were in the last such view without a break, unless
 * one that is away may have a record of the members as they were before a change: then whoever is
 * not here must be fenced before anything else.
 */
static void judge(struct hf_group *g)
{
    unsigned n = 0;
    bool quorate = true, current = true;
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (p->member == HF_GROUP_NONE || !HAS(g->present, p->member)) {
            continue;
        }
        quorate = quorate && p->quorate;
        current = current && p->current;
        n += p->acked > 0 && p->resigned != HF_RESIGNED_DISK;
    }
    bool all = n * 2 > g->s.n_members;
    g->half = !all && current && n * 2 == g->s.n_members && g->unsettled == 0;
    g->decides = quorate && ((n > 0 && (all || g->half)) || g->overruled);
}

static void forget_joiner(struct hf_group *g)
{
    if (g->s.join.step == 0) {
        return;
    }
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (p->hello && !p->excluded && strcmp(p->host, g->s.join.host) == 0) {
            return;
        }
    }
    hf_group_join_undo(g, "it is gone");
}

/* Hosts of copies in S that are not known to be off. When the primary had to let go, one of them
 * goes on, which may be heard a moment later: they are waited for like a daemon that comes back
 * (G5). */
static uint16_t mirror_hosts(const struct hf_group *g)
{
    uint16_t mask = 0, in_sync = g->s.in_sync & hf_group_mirrored_copies(&g->s);
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        uint8_t h = g->s.resource[i].host;
        if (HAS(in_sync, i) && i != g->s.primary && h != HF_GROUP_NONE && !g->s.member[h].fenced) {
            mask |= BIT(h);
        }
    }
    return mask;
}

static void establish(struct hf_group *g, const struct hf_gpeer *source)
{
    hf_group_enter(g, HF_GROUP_IN);
    memset(g->seen, 0, sizeof(g->seen));
    memset(g->fence_tries, 0, sizeof(g->fence_tries));
    memset(g->fence_at, 0, sizeof(g->fence_at));
    g->sync = g->async = 0;
    g->mirrored_epoch = 0;
    g->prepared = 0;
    g->granted = 0;
    g->unsettled = 0; /* for whom it was not, the hello said so */
    g->mirrored_sent = false;
    for (uint8_t i = 0; i < HF_GROUP_RESOURCES_MAX; i++) {
        g->local[i].told_seen = HF_SEEN_NOTHING;
    }
    hf_group_recount(g);
    if (g->suspect) {
        hf_group_ping(g);
    }
    if (!g->have_state || !source) {
        return;
    }
    bool all_fresh = true, let_go = g->s.cold == HF_COLD_PRIMARY;
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (p->member == HF_GROUP_NONE || !HAS(g->present, p->member)) {
            continue;
        }
        all_fresh = all_fresh && !p->current;
        if (p->member == g->s.primary_host && g->s.primary != HF_GROUP_NONE) {
            let_go = !p->current;
            if (p->epoch == g->s.epoch && HAS(p->sync, g->s.primary)) {
                g->sync = p->sync & (uint16_t)~BIT(g->s.primary);
                g->async = p->async;
                g->mirrored_epoch = g->s.epoch;
            }
        }
    }
    uint16_t awaited = source->procdown | (all_fresh || let_go ? mirror_hosts(g) : 0);
    g->procdown = awaited & (uint16_t)~g->present;
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        if (!HAS(g->procdown, m)) {
            g->procdown_at[m] = 0;
        } else if (g->procdown_at[m] == 0 || !g->current) {
            g->procdown_at[m] = g->now;
        }
    }
    judge(g);
    g->current = g->decides && hf_group_self(g) != HF_GROUP_NONE;
    if (g->term_next << 32 >= HF_GSTATE_VERSION_MAX) {
        g->decides = g->current = false; /* somebody has made numbers up */
    }
    if (!g->decides) {
        return;
    }
    g->s.version = g->term_next << 32;
    if (all_fresh && g->s.phase != HF_PHASE_NONE) {
        g->s.cold = HF_COLD_PRIMARY;
    }
    g->term_next = 0;
    forget_joiner(g);
    hf_group_plan(g);
}

/* The state that we have is not the group's: what it says of us may be another story, too. */
static void take_state(struct hf_group *g, const struct hf_gstate *s)
{
    bool moved = !g->have_state || g->s.n_resources != s->n_resources;
    g->have_state = true;
    g->s = *s;
    g->count.states_taken++;
    for (uint8_t i = g->hello_roles; moved && i < s->n_resources; i++) {
        g->local[i].told = HF_ROLE_UNKNOWN; /* our hello did not tell of it */
    }
}

static void send_state(struct hf_group *g)
{
    uint8_t buf[HF_GSTATE_LEN_MAX];
    struct hf_slice s;
    int rc = hf_gstate_encode(&g->s, buf, sizeof(buf), &s);
    assert(rc == 0);
    for (size_t at = 0; at < s.n; at += HF_GROUP_PIECE_MAX) {
        size_t n = s.n - at < HF_GROUP_PIECE_MAX ? s.n - at : HF_GROUP_PIECE_MAX;
        struct hf_gmsg m = {.kind = HF_GMSG_STATE};
        m.state.version = g->s.version;
        m.state.offset = (uint16_t)at;
        m.state.total = (uint16_t)s.n;
        m.state.piece = hf_slice(s.p + at, n);
        hf_group_send(g, &m);
    }
}

/* We are too slow for the others: stop, and come again. */
static void left_behind(struct hf_group *g)
{
    g->current = false;
    hf_group_enter(g, HF_GROUP_OUT);
    hf_group_out_act(g, HF_GROUP_ACT_REJOIN);
}

static void close_round(struct hf_group *g)
{
    const struct hf_gpeer *self = hf_group_node(g, g->self_node);
    if (!self->hello || self->excluded) {
        left_behind(g);
        return;
    }
    note_foreign(g);
    const struct hf_gpeer *source = newest(g);
    if (!source) { /* nobody knows anything: wait for somebody who does */
        establish(g, NULL);
        return;
    }
    bool same = true;
    uint64_t term = 0;
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (p->hello && !p->excluded && !p->foreign) {
            same = same && p->version == source->version && p->hash == source->hash;
            term = term > p->version >> 32 ? term : p->version >> 32;
        }
    }
    g->term_next = term + 1;
    if (same) {
        establish(g, source);
        return;
    }
    g->source = source->node_id;
    g->source_version = source->version;
    hf_group_enter(g, HF_GROUP_SYNC);
    if (g->source == g->self_node) {
        send_state(g);
    }
}

void hf_group_on_hello(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m)
{
    if (g->standing != HF_GROUP_HELLO || p->hello) {
        return; /* too late: it was excluded, and comes again by another view */
    }
    p->hello = true;
    p->group_id = m->group_id;
    p->version = m->hello.version;
    p->epoch = m->hello.epoch;
    p->hash = m->hello.hash;
    p->acked = m->hello.persisted;
    p->quorate = m->hello.quorate;
    p->current = m->hello.current;
    p->resigned = m->hello.resigned;
    p->access = m->hello.access;
    p->config = m->hello.config;
    p->procdown = m->hello.procdown;
    p->sync = m->hello.sync;
    p->async = m->hello.async;
    snprintf(p->address, sizeof(p->address), "%s", m->hello.address);
    memset(p->role, HF_ROLE_UNKNOWN, sizeof(p->role));
    memcpy(p->role, m->hello.role, m->hello.n_roles);
    for (uint8_t i = 0; i < m->hello.n_ghosts; i++) {
        for (uint8_t k = 0; k < g->n_peers; k++) {
            struct hf_gpeer *ghost = &g->peer[k];
            if (ghost->node_id == m->hello.ghost[i] && !ghost->hello) {
                ghost->excluded = true;
            }
        }
    }
    p->excluded = false;
    if (complete(g)) {
        close_round(g);
    }
}

void hf_group_on_state(struct hf_group *g, const struct hf_gpeer *p, const struct hf_gmsg *m)
{
    if (g->standing != HF_GROUP_SYNC || p->node_id != g->source ||
        m->state.version != g->source_version || m->state.offset != g->taken ||
        m->state.total > sizeof(g->piece)) {
        g->count.refused_sender++;
        return;
    }
    memcpy(g->piece + g->taken, m->state.piece.p, m->state.piece.n);
    g->taken = (uint16_t)(g->taken + m->state.piece.n);
    if (g->taken < m->state.total) {
        return;
    }
    struct hf_gstate s;
    if (hf_gstate_decode(hf_slice(g->piece, g->taken), &s) || strcmp(s.name, g->name) != 0 ||
        s.version != g->source_version) {
        hf_group_exclude(g, g->source); /* it is not what it says */
        return;
    }
    uint64_t id = our_group(g);
    if (!id || id == s.id) {
        take_state(g, &s);
    }
    establish(g, p);
}

/* ---- members that do not answer (G3) ---- */

void hf_group_exclude(struct hf_group *g, uint32_t node_id)
{
    struct hf_gpeer *p = hf_group_node(g, node_id);
    if (!p || p->excluded) {
        return;
    }
    p->excluded = true;
    g->count.excluded++;
    hf_group_event(g, true, "%s did not answer in time and is excluded", p->host);
    if (!p->hello && !is_ghost(g, node_id) && g->n_ghosts < HF_GROUP_GHOSTS_MAX) {
        g->ghost[g->n_ghosts++] = node_id;
    }
    if (node_id == g->self_node) {
        left_behind(g);
        return;
    }
    if (g->standing == HF_GROUP_HELLO) {
        if (complete(g)) {
            close_round(g);
        }
        return;
    }
    if (g->standing == HF_GROUP_SYNC) {
        if (node_id == g->source) {
            g->taken = 0;
            p->version = 0;
            close_round(g);
        }
        return;
    }
    hf_group_recount(g);
    bool decided = g->decides;
    judge(g);
    if (g->decides && decided) {
        forget_joiner(g);
        hf_group_changed(g);
        hf_group_plan(g);
    } else {
        g->decides = false;
    }
}

/* Once all have a change of members on disk, nobody's record is of the members before it. */
void hf_group_settle(struct hf_group *g)
{
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (p->member != HF_GROUP_NONE && HAS(g->present, p->member) && p->acked < g->unsettled) {
            return;
        }
    }
    g->unsettled = 0;
}

/* Gained: this is as good as a new view. */
void hf_group_rejudge(struct hf_group *g)
{
    if (g->standing != HF_GROUP_IN || !g->have_state) {
        return;
    }
    bool decided = g->decides;
    judge(g);
    g->current = g->decides && hf_group_self(g) != HF_GROUP_NONE;
    if (g->decides && !decided) {
        g->s.version = ((g->s.version >> 32) + 1) << 32;
        hf_group_plan(g);
    }
}
