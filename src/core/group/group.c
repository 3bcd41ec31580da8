/* The step of the group core: what comes in, patience, what is kept on disk. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/name.h"
#include "base/names.h"
#include "core/group/internal.h"

#define RETRY_SHIFT_MAX 2

HF_NAMES(hf_group_standing_name, enum hf_group_standing, HF_GROUP_STATE_LIST)
#define OP_FROM_0(X) X(NONE, "none") HF_OP_LIST(X)
HF_NAMES(hf_op_name, uint8_t, OP_FROM_0)

/* ---- output ---- */

struct hf_group_act *hf_group_out_act(struct hf_group *g, enum hf_group_act_kind kind)
{
    assert(g->out->n < HF_GROUP_ACTS_MAX);
    struct hf_group_act *a = &g->out->act[g->out->n++];
    memset(a, 0, sizeof(*a));
    a->kind = kind;
    return a;
}

/* Text that lives as long as the output; cut where the room ends. */
static const char *keep_text(struct hf_group *g, const char *fmt, va_list ap)
{
    char *at = (char *)g->out->bytes + g->out->used;
    size_t room = sizeof(g->out->bytes) - g->out->used;
    room = room > 512 ? 512 : room;
    if (room == 0) {
        return "";
    }
    int n = vsnprintf(at, room, fmt, ap);
    size_t len = n < 0 ? 0 : (size_t)n >= room ? room - 1 : (size_t)n;
    at[len] = '\0';
    g->out->used += len + 1;
    return at;
}

void hf_group_event(struct hf_group *g, bool warn, const char *fmt, ...)
{
    if (g->out->n + HF_GROUP_ACTS_KEPT >= HF_GROUP_ACTS_MAX) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    const char *text = keep_text(g, fmt, ap);
    va_end(ap);
    struct hf_group_act *a = hf_group_out_act(g, HF_GROUP_ACT_EVENT);
    a->warn = warn;
    a->text = text;
}

void hf_group_result(struct hf_group *g, uint32_t request, int rc, const char *fmt, ...)
{
    if (request == 0) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    const char *text = keep_text(g, fmt, ap);
    va_end(ap);
    struct hf_group_act *a = hf_group_out_act(g, HF_GROUP_ACT_RESULT);
    a->request = request;
    a->rc = rc;
    a->text = text;
}

void hf_group_send(struct hf_group *g, struct hf_gmsg *m)
{
    m->ring = g->ring;
    m->group_id = g->have_state ? g->s.id : 0;
    struct hf_wr w;
    struct hf_slice s;
    size_t room = sizeof(g->out->bytes) - g->out->used;
    hf_wr_init(&w, g->out->bytes + g->out->used,
               room < HF_ENGINE_MSG_MAX ? room : HF_ENGINE_MSG_MAX);
    hf_gmsg_encode(&w, m);
    int rc = hf_wr_end(&w, &s);
    assert(rc == 0);
    g->out->used += s.n;
    hf_group_out_act(g, HF_GROUP_ACT_SEND)->bytes = s;
    g->count.sent++;
}

void hf_group_text(char dst[HF_GROUP_TEXT_MAX + 1], struct hf_slice src)
{
    size_t n = src.n > HF_GROUP_TEXT_MAX ? HF_GROUP_TEXT_MAX : src.n;
    for (size_t i = 0; i < n; i++) {
        dst[i] = src.p[i] >= ' ' && src.p[i] < 0x7f ? (char)src.p[i] : ' ';
    }
    dst[n] = '\0';
}

/* ---- the state ---- */

uint8_t hf_group_member_of(const struct hf_gstate *s, const char *host)
{
    for (uint8_t i = 0; i < s->n_members; i++) {
        if (strcmp(s->member[i].host, host) == 0) {
            return i;
        }
    }
    return HF_GROUP_NONE;
}

uint8_t hf_group_resource_of(const struct hf_gstate *s, const char *name)
{
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (strcmp(s->resource[i].name, name) == 0) {
            return i;
        }
    }
    return HF_GROUP_NONE;
}

void hf_group_changed(struct hf_group *g)
{
    g->s.version++;
}

void hf_group_enter(struct hf_group *g, enum hf_group_standing s)
{
    static const uint8_t next[HF_GROUP_STATE_COUNT_] = {
        [HF_GROUP_OUT] = BIT(HF_GROUP_OUT) | BIT(HF_GROUP_HELLO),
        [HF_GROUP_HELLO] =
            BIT(HF_GROUP_OUT) | BIT(HF_GROUP_HELLO) | BIT(HF_GROUP_SYNC) | BIT(HF_GROUP_IN),
        [HF_GROUP_SYNC] =
            BIT(HF_GROUP_OUT) | BIT(HF_GROUP_HELLO) | BIT(HF_GROUP_SYNC) | BIT(HF_GROUP_IN),
        [HF_GROUP_IN] = BIT(HF_GROUP_OUT) | BIT(HF_GROUP_HELLO),
    };
    assert(HAS(next[g->standing], s));
    g->standing = s;
    g->since = g->now;
    g->adrift_at = g->now; /* whoever goes out from here on was in a view */
    if (s != HF_GROUP_IN) {
        g->decides = false;
    }
}

const struct hf_gpeer *hf_group_peer(const struct hf_group *g, uint8_t member)
{
    for (uint8_t i = 0; i < g->n_peers; i++) {
        if (g->peer[i].member == member && member != HF_GROUP_NONE) {
            return &g->peer[i];
        }
    }
    return NULL;
}

struct hf_gpeer *hf_group_node(struct hf_group *g, uint32_t node_id)
{
    for (uint8_t i = 0; i < g->n_peers; i++) {
        if (g->peer[i].node_id == node_id) {
            return &g->peer[i];
        }
    }
    return NULL;
}

/* Is the newest version awaited from it? Whose disk fails can't have it, and does not count as
 * there. */
static bool ack_missing(const struct hf_group *g, const struct hf_gpeer *p, uint64_t version)
{
    return p->member != HF_GROUP_NONE && HAS(g->present, p->member) &&
           p->resigned != HF_RESIGNED_DISK && p->acked < version;
}

static bool acks_missing(const struct hf_group *g, uint64_t version)
{
    for (uint8_t i = 0; i < g->n_peers; i++) {
        if (ack_missing(g, &g->peer[i], version)) {
            return true;
        }
    }
    return false;
}

/* Everybody, and we, have this version on disk. */
static bool may_act_on(const struct hf_group *g, uint64_t version)
{
    if (g->standing != HF_GROUP_IN || !g->decides || !g->quorate || g->suspect ||
        hf_group_self(g) == HF_GROUP_NONE || g->persisted < version || acks_missing(g, version)) {
        return false;
    }
    for (uint8_t i = 0; i < g->n_peers; i++) { /* it must have on disk that it is none any more */
        const struct hf_gpeer *p = &g->peer[i];
        if (p->removed && !p->excluded && !p->gone && p->acked < p->removed) {
            return false;
        }
    }
    return true;
}

bool hf_group_may_act(const struct hf_group *g)
{
    return may_act_on(g, g->s.version);
}

bool hf_group_may_promote(const struct hf_group *g)
{
    bool granted = g->granted && g->s.phase == HF_PHASE_PROMOTING;
    return may_act_on(g, granted ? g->granted : g->s.version);
}

/* ---- the disk ---- */

/* What is written is always the newest; a version that was overtaken is not missed. A member whose
 * record was lost writes none before others have decided without counting it. */
static bool to_persist(const struct hf_group *g)
{
    return g->have_state && !g->persisting && g->persisted != g->s.version &&
           (g->persisted || g->decides || g->create_request) &&
           (hf_group_self(g) != HF_GROUP_NONE || g->was_member);
}

static void persist(struct hf_group *g)
{
    if (!to_persist(g) || g->now < g->persist_at) {
        return;
    }
    struct hf_slice s;
    int rc = hf_gstate_encode(&g->s, g->out->bytes + g->out->used,
                              sizeof(g->out->bytes) - g->out->used, &s);
    assert(rc == 0);
    g->out->used += s.n;
    struct hf_group_act *a = hf_group_out_act(g, HF_GROUP_ACT_PERSIST);
    a->bytes = s;
    a->version = g->s.version;
    g->persisting = g->s.version;
    g->count.persists++;
}

static void send_ack(struct hf_group *g)
{
    if (g->standing == HF_GROUP_IN && g->decides && g->persisted == g->s.version) {
        struct hf_gmsg m = {.kind = HF_GMSG_ACK};
        m.ack.version = g->persisted;
        hf_group_send(g, &m);
    }
}

static void on_persisted(struct hf_group *g, uint64_t version, int rc)
{
    if (version != g->persisting) {
        return;
    }
    g->persisting = 0;
    if (rc) {
        g->count.persist_errors++;
        g->persist_at = g->now + HF_S(1);
        if (!g->disk_bad) {
            hf_group_event(g, true,
                           "cannot keep the group's state on disk: %s; this host runs nothing "
                           "until it can",
                           hf_strerror(rc));
        }
        g->disk_bad = true;
        g->resigned = HF_RESIGNED_DISK;
        return;
    }
    g->persisted = version;
    hf_group_say_hello(g);
    if (g->disk_bad) {
        g->disk_bad = false;
        g->resigned = g->stopping && !g->s.paused ? HF_RESIGNED_STOPS : HF_RESIGNED_NO;
        hf_group_event(g, false, "the group's state can be kept on disk again");
    }
    send_ack(g);
}

/* ---- patience ---- */

static void send_timeout(struct hf_group *g, uint8_t what, uint8_t member)
{
    uint64_t *sent =
        what == HF_GTIMEOUT_PROCDOWN ? &g->procdown_sent[member] : &g->timeouts_sent[what];
    if (*sent == g->s.version) {
        return;
    }
    *sent = g->s.version;
    struct hf_gmsg m = {.kind = HF_GMSG_TIMEOUT};
    m.timeout.what = what;
    m.timeout.member = member;
    m.timeout.version = g->s.version;
    hf_group_send(g, &m);
}

static void send_exclude(struct hf_group *g, const struct hf_gpeer *p)
{
    struct hf_gmsg m = {.kind = HF_GMSG_EXCLUDE};
    m.exclude.node_id = p->node_id;
    m.exclude.version = g->standing == HF_GROUP_IN ? g->s.version : 0;
    hf_group_send(g, &m);
}

/* In HELLO and SYNC for a hello or a state, in IN for acknowledgements. */
static void exclude_silent(struct hf_group *g)
{
    for (uint8_t i = 0; i < g->n_peers; i++) {
        const struct hf_gpeer *p = &g->peer[i];
        if (p->node_id == g->self_node || p->excluded) {
            continue;
        }
        bool late = g->standing == HF_GROUP_HELLO  ? !p->hello
                    : g->standing == HF_GROUP_SYNC ? p->node_id == g->source
                                                   : ack_missing(g, p, g->s.version);
        if (late) {
            send_exclude(g, p);
        }
    }
}

static bool something_failed(const struct hf_group *g)
{
    if (g->s.phase == HF_PHASE_NONE) {
        return true;
    }
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        const struct hf_gresource *r = &g->s.resource[i];
        if (r->failed_on || r->mirror == HF_MIRROR_FAILED) {
            return true;
        }
    }
    return false;
}

static bool has_restarts(const struct hf_group *g)
{
    for (uint8_t i = 0; i < g->s.n_resources; i++) {
        if (g->s.resource[i].restarts) {
            return true;
        }
    }
    return false;
}

/* Since when a condition has held; 0: it does not. */
static void watch(struct hf_group *g, hf_time *since, bool holds)
{
    *since = !holds ? 0 : *since ? *since : g->now ? g->now : 1;
}

/* What keeps failing is tried less and less often. */
static hf_time retry_after(const struct hf_group *g)
{
    return g->retry << (g->retries < RETRY_SHIFT_MAX ? g->retries : RETRY_SHIFT_MAX);
}

static void watch_all(struct hf_group *g)
{
    bool in = g->standing == HF_GROUP_IN && g->decides && g->have_state;
    if (g->s.version != g->timed_version) {
        g->timed_version = g->s.version;
        g->version_at = g->now;
    }
    watch(g, &g->cold_at, in && g->s.cold);
    watch(g, &g->failed_at, in && something_failed(g) && !g->s.paused);
    if (in && g->failed_at == 0) {
        g->retries = 0;
    }
    watch(g, &g->running_at, in && g->s.phase == HF_PHASE_RUNNING && has_restarts(g));
    watch(g, &g->join_at, in && g->s.join.step != 0);
}

static hf_time after(hf_time since, hf_time span)
{
    return since ? since + span : HF_NEVER;
}

/* When somebody has to be excluded; HF_NEVER: nobody is awaited. */
static hf_time answer_deadline(const struct hf_group *g)
{
    switch (g->standing) {
    case HF_GROUP_HELLO:
        return g->hello_sent ? g->since + g->answer : HF_NEVER;
    case HF_GROUP_SYNC:
        return g->since + g->answer;
    case HF_GROUP_IN:
        return g->decides && g->persisted == g->s.version && acks_missing(g, g->s.version)
                   ? g->version_at + g->answer
                   : HF_NEVER;
    case HF_GROUP_OUT:
    case HF_GROUP_STATE_COUNT_:
        break;
    }
    return HF_NEVER;
}

static void patience(struct hf_group *g)
{
    if (g->now >= answer_deadline(g)) {
        exclude_silent(g);
        g->since = g->version_at = g->now; /* again after the same time */
    }
    if (g->suspect && g->ping_at && g->now >= g->ping_at) {
        g->ping_at = 0; /* nobody confirms that we are still a member: act as if without quorum */
        g->current = false;
    }
    if (g->standing != HF_GROUP_IN || !g->decides || g->suspect) {
        return;
    }
    for (uint8_t m = 0; m < g->s.n_members; m++) {
        if (HAS(g->procdown, m) && g->now >= g->procdown_at[m] + g->restart) {
            send_timeout(g, HF_GTIMEOUT_PROCDOWN, m);
        }
    }
    if (g->now >= after(g->cold_at, g->boot)) {
        send_timeout(g, HF_GTIMEOUT_BOOT, HF_GROUP_NONE);
    }
    if (g->now >= after(g->failed_at, retry_after(g))) {
        send_timeout(g, HF_GTIMEOUT_RETRY, HF_GROUP_NONE);
        g->failed_at = g->now;
    }
    if (g->now >= after(g->running_at, g->stable)) {
        send_timeout(g, HF_GTIMEOUT_STABLE, HF_GROUP_NONE);
        g->running_at = g->now;
    }
    if (g->now >= after(g->join_at, g->join_time)) {
        send_timeout(g, HF_GTIMEOUT_JOIN, HF_GROUP_NONE);
        g->join_at = g->now;
    }
}

hf_time hf_group_deadline(const struct hf_group *g)
{
    hf_time t = answer_deadline(g);
    if (g->standing == HF_GROUP_OUT && g->have_state && g->now < g->adrift_at) {
        t = hf_time_min(t, g->adrift_at);
    }
    if (to_persist(g)) {
        t = hf_time_min(t, g->persist_at);
    }
    if (g->suspect && g->ping_at) {
        t = hf_time_min(t, g->ping_at);
    }
    if (g->standing == HF_GROUP_IN && g->decides && !g->suspect) {
        for (uint8_t m = 0; m < g->s.n_members; m++) {
            if (HAS(g->procdown, m) && g->procdown_sent[m] != g->s.version) {
                t = hf_time_min(t, g->procdown_at[m] + g->restart);
            }
        }
        if (g->timeouts_sent[HF_GTIMEOUT_BOOT] != g->s.version) {
            t = hf_time_min(t, after(g->cold_at, g->boot));
        }
        t = hf_time_min(t, after(g->failed_at, retry_after(g)));
        t = hf_time_min(t, after(g->running_at, g->stable));
        t = hf_time_min(t, after(g->join_at, g->join_time));
    }
    return hf_time_min(t, hf_group_act_deadline(g));
}

/* ---- pauses (I10) ---- */

void hf_group_ping(struct hf_group *g)
{
    g->ping_nonce = hf_prng_u64(&g->prng) | 1;
    g->ping_at = g->now + g->answer;
    if (g->standing == HF_GROUP_IN) { /* otherwise once we are in */
        struct hf_gmsg m = {.kind = HF_GMSG_PING};
        m.ping.nonce = g->ping_nonce;
        hf_group_send(g, &m);
    }
}

static void on_gap(struct hf_group *g)
{
    g->count.gaps++;
    g->suspect = true;
    hf_group_event(g, true,
                   "this process was stopped for a while: it does nothing until it has "
                   "heard from the group");
    hf_group_ping(g);
}

/* ---- the engine, and the rest of what comes in ---- */

static void on_lost(struct hf_group *g)
{
    hf_group_enter(g, HF_GROUP_OUT);
    g->ring = 0;
    g->quorum_ring = 0;
    g->quorate = false;
    g->current = false;
    g->n_peers = 0;
    g->present = 0;
    hf_group_event(g, true, "the engine is lost: primaries are stopped here until it is back");
}

static void on_quorum(struct hf_group *g, bool quorate, uint64_t ring)
{
    if (quorate != g->quorate && g->have_state) {
        hf_group_event(g, !quorate, quorate ? "quorum" : "no quorum: primaries are stopped here");
    }
    g->quorate = quorate;
    g->quorum_ring = ring;
    if (!quorate) {
        g->current = false;
    }
    hf_group_say_hello(g);
    if (g->standing != HF_GROUP_OUT && g->hello_sent && g->told_quorate != quorate) {
        struct hf_gmsg m = {.kind = HF_GMSG_QUORUM};
        m.quorum.quorate = quorate;
        g->told_quorate = quorate;
        hf_group_send(g, &m);
    }
}

static void on_create(struct hf_group *g, const struct hf_group_in *in)
{
    if (g->have_state) {
        hf_group_result(g, in->join_request, -HF_EHELD, "%s is a group already", g->name);
        return;
    }
    if (in->n_resources > HF_GROUP_RESOURCES_MAX || in->n_resources == 0) {
        hf_group_result(g, in->join_request, -HF_EVALUE, "a group has 1 to %d resources",
                        HF_GROUP_RESOURCES_MAX);
        return;
    }
    struct hf_gstate *s = &g->s;
    memset(s, 0, sizeof(*s));
    snprintf(s->name, sizeof(s->name), "%s", g->name);
    s->id = in->group_id;
    s->version = 1ULL << 32;
    s->init = true;
    s->degraded_refuse = in->degraded_refuse;
    s->restart_always = in->restart_always;
    s->next = s->next_host = HF_GROUP_NONE;
    s->primary = s->primary_host = s->last_primary = HF_GROUP_NONE;
    s->join.subgroup = HF_GROUP_NONE;
    s->n_members = 1;
    struct hf_gmember *m = &s->member[0];
    snprintf(m->host, sizeof(m->host), "%s", g->host);
    snprintf(m->address, sizeof(m->address), "%s", g->address);
    m->subgroup = HF_GROUP_NONE;
    s->n_resources = in->n_resources;
    for (uint8_t i = 0; i < in->n_resources; i++) {
        struct hf_gresource *r = &s->resource[i];
        *r = in->resources[i];
        r->host = HF_GROUP_NONE;
        r->mirror = HF_MIRROR_NONE;
        r->restarts = 0;
        r->failed_on = 0;
        r->epoch = 0;
    }
    /* the first copy, and those whose agents keep no data, are as good as they ever get */
    bool first = true;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        struct hf_gresource *r = &s->resource[i];
        if (r->kind == HF_RESOURCE_COPY && (first || !(r->flags & HF_RESOURCE_MIRROR))) {
            s->in_sync |= BIT(i);
            r->mirror = HF_MIRROR_IN_SYNC;
            first = false;
        }
    }
    g->have_state = true;
    g->was_member = true;
    g->create_request = in->join_request;
    g->create_at = g->now;
    if (g->standing != HF_GROUP_OUT) { /* our hello did not tell of it */
        hf_group_enter(g, HF_GROUP_OUT);
        hf_group_out_act(g, HF_GROUP_ACT_REJOIN);
    }
}

static void on_join_wanted(struct hf_group *g, const struct hf_group_in *in)
{
    if (hf_group_self(g) != HF_GROUP_NONE) {
        hf_group_result(g, in->join_request, 0, "%s is a member of %s already", g->host, g->name);
        return;
    }
    if (g->join_request) {
        hf_group_result(g, in->join_request, -HF_EHELD, "%s is joining %s already", g->host,
                        g->name);
        return;
    }
    g->join_request = in->join_request;
    g->join_brings = in->brought != NULL;
    if (in->brought) {
        g->join_brought = *in->brought;
    }
    g->join_step = 0;
    g->join_again = g->now;
}

static void on_stop(struct hf_group *g)
{
    g->stopping = true;
    if (!g->s.paused) {
        g->resigned = g->resigned ? g->resigned : HF_RESIGNED_STOPS;
    }
}

/* Our own backup copy does not follow and will not: as if a monitor had found it so. */
static void backup_failed(struct hf_group *g, const struct hf_group_in *in)
{
    struct hf_glocal *l = &g->local[in->resource];
    if (l->role == HF_ROLE_UNPROMOTED && l->op == HF_OP_NONE) {
        l->role = HF_ROLE_FAILED;
        l->last_op = HF_OP_MONITOR;
        l->last_rc = 1;
        l->tell = true;
        hf_group_text(l->text, in->text);
        g->count.agent_errors++;
    }
}

static void on_mirror(struct hf_group *g, const struct hf_group_in *in)
{
    uint8_t resource = in->resource, seen = in->seen;
    if (g->have_state && resource < g->s.n_resources && resource != g->s.primary &&
        g->s.resource[resource].host == hf_group_self(g) && seen == HF_SEEN_FAILED) {
        backup_failed(g, in);
        return;
    }
    if (g->standing != HF_GROUP_IN || resource >= g->s.n_resources || seen >= HF_SEEN_COUNT_ ||
        hf_group_self(g) != g->s.primary_host || g->s.phase < HF_PHASE_OPENING ||
        g->local[resource].told_seen == seen) {
        return;
    }
    g->local[resource].told_seen = seen;
    struct hf_gmsg m = {.kind = HF_GMSG_MIRROR};
    m.mirror.epoch = g->s.epoch;
    m.mirror.resource = resource;
    m.mirror.seen = seen;
    hf_group_send(g, &m);
}

static void on_config(struct hf_group *g, const struct hf_group_in *in)
{
    if (in->resource >= HF_GROUP_RESOURCES_MAX) {
        return;
    }
    struct hf_glocal *l = &g->local[in->resource];
    l->config_asked = false;
    if (in->rc == 0) {
        if (!l->have_config && l->role == HF_ROLE_STOPPED && l->op == HF_OP_NONE) {
            l->role = HF_ROLE_UNKNOWN; /* nobody has looked yet */
        }
        l->have_config = true;
        l->config_hash = in->config_hash;
    } else {
        l->config_at = g->now + HF_S(1);
    }
    hf_group_join_done(g, HF_OP_NONE, in->resource, in->rc);
}

static void on_fenced(struct hf_group *g, const struct hf_group_in *in)
{
    uint8_t m = g->have_state ? hf_group_member_of(&g->s, in->host) : HF_GROUP_NONE;
    if (m == HF_GROUP_NONE || !HAS(g->fencing, m)) {
        return;
    }
    g->fencing &= (uint16_t)~BIT(m);
    g->fence_done |= BIT(m);
    g->fence_ok = (uint16_t)(in->rc == 0 ? g->fence_ok | BIT(m) : g->fence_ok & ~BIT(m));
    hf_group_text(g->fence_text, in->text);
}

static void take(struct hf_group *g, const struct hf_group_in *in)
{
    switch (in->kind) {
    case HF_GROUP_IN_TIMER:
        break;
    case HF_GROUP_IN_VIEW:
        hf_group_view(g, in->view);
        break;
    case HF_GROUP_IN_QUORUM:
        on_quorum(g, in->quorate, in->ring);
        break;
    case HF_GROUP_IN_MESSAGE:
        hf_group_on_message(g, in->from, in->msg);
        break;
    case HF_GROUP_IN_LOST:
        on_lost(g);
        break;
    case HF_GROUP_IN_PERSISTED:
        on_persisted(g, in->version, in->rc);
        break;
    case HF_GROUP_IN_DONE:
        hf_group_done(g, in);
        break;
    case HF_GROUP_IN_MIRROR:
        on_mirror(g, in);
        break;
    case HF_GROUP_IN_CONFIG:
        on_config(g, in);
        break;
    case HF_GROUP_IN_FENCED:
        on_fenced(g, in);
        break;
    case HF_GROUP_IN_REQUEST:
        hf_group_request(g, in);
        break;
    case HF_GROUP_IN_CREATE:
        on_create(g, in);
        break;
    case HF_GROUP_IN_JOIN:
        on_join_wanted(g, in);
        break;
    case HF_GROUP_IN_GAP:
        on_gap(g);
        break;
    case HF_GROUP_IN_STOP:
        on_stop(g);
        break;
    }
}

void hf_group_step(struct hf_group *g, const struct hf_group_in *in, hf_time now,
                   struct hf_group_out *out)
{
    out->n = 0;
    out->used = 0;
    g->now = now;
    g->out = out;
    take(g, in);
    watch_all(g);
    patience(g);
    hf_group_tell(g);
    hf_group_act(g);
    persist(g);
    g->out = NULL;
}

/* ---- life ---- */

static hf_time ms_or(uint32_t ms, uint32_t def)
{
    return HF_MS(ms ? ms : def);
}

int hf_group_create(const struct hf_group_conf *conf, struct hf_slice record, hf_time now,
                    struct hf_group **ret_group)
{
    if (!hf_host_name_ok(hf_slice_str(conf->name)) || strlen(conf->name) > HF_GROUP_NAME_MAX ||
        !hf_host_name_ok(hf_slice_str(conf->host)) ||
        strlen(conf->address) > HF_GROUP_ADDRESS_MAX) {
        return -HF_ENAME;
    }
    struct hf_group *g = hf_alloc(sizeof(*g));
    if (!g) {
        return -ENOMEM;
    }
    if (record.n) {
        int rc = hf_gstate_decode(record, &g->s);
        if (rc == 0 && strcmp(g->s.name, conf->name) != 0) {
            rc = -HF_EMALF;
        }
        if (rc) {
            hf_free(g);
            return rc;
        }
        g->have_state = true;
        g->persisted = g->s.version;
        for (uint8_t i = 0; conf->config_hash && i < g->s.n_resources; i++) {
            g->local[i].have_config = conf->config_hash[i] != 0;
            g->local[i].config_hash = conf->config_hash[i];
        }
    }
    snprintf(g->name, sizeof(g->name), "%s", conf->name);
    snprintf(g->host, sizeof(g->host), "%s", conf->host);
    snprintf(g->address, sizeof(g->address), "%s", conf->address);
    g->incarnation = conf->incarnation;
    g->answer = ms_or(conf->answer_ms, 2000);
    g->restart = ms_or(conf->restart_ms, 5000);
    g->boot = ms_or(conf->boot_ms, 20000);
    g->retry = ms_or(conf->retry_ms, 10000);
    g->stable = ms_or(conf->stable_ms, 600000);
    g->join_time = ms_or(conf->join_ms, 60000);
    hf_prng_init(&g->prng, conf->seed);
    g->now = g->since = now;
    g->adrift_at = now + g->restart;
    g->was_member = g->have_state;
    if (hf_group_self(g) != HF_GROUP_NONE) {
        g->access = g->s.member[hf_group_self(g)].access;
    }
    *ret_group = g;
    return 0;
}

void hf_group_destroy(struct hf_group *g)
{
    hf_free(g);
}
