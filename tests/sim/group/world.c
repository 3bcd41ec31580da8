/* Hosts of the simulated group: power, daemon, disk, and the driver that daemon has. */
#include "sim/group/world.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define POLL HF_MS(500)
#define GAP HF_MS(100) /* a driver that was away for so long says so */
#define OP_TIMEOUT HF_S(3)
#define AGENT_TIMEOUT HF_S(10) /* of gs_agent's */

static void tell_configs(struct gs_world *w, struct gs_host *h);

/* ---- telling ---- */

void gs_line(struct gs_world *w, bool story, const char *fmt, ...)
{
    FILE *to[2] = {story ? w->story : NULL, w->trace};
    for (int i = 0; i < 2; i++) {
        if (to[i]) {
            va_list ap;
            va_start(ap, fmt);
            fprintf(to[i], "[%6" PRId64 "] ", (int64_t)((w->net.now - w->began) / HF_NS_PER_MS));
            vfprintf(to[i], fmt, ap);
            fputc('\n', to[i]);
            va_end(ap);
        }
    }
}

void gs_fail(struct gs_world *w, const char *invariant, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    snprintf(w->failed, sizeof(w->failed), "%s", invariant);
    vsnprintf(w->why, sizeof(w->why), fmt, ap);
    va_end(ap);
    GS_TELL(w, "!! %s: %s", w->failed, w->why);
    if (!w->fail) {
        fprintf(stderr, "%s: %s\n", w->failed, w->why);
        abort();
    }
    longjmp(*w->fail, 1);
}

static void tell_event(struct gs_world *w, const struct gs_host *h, const struct hf_group_act *a)
{
    for (uint32_t i = 0; i < HF_ARRAY_LEN(w->told_event); i++) {
        if (strncmp(w->told_event[i], a->text, sizeof(w->told_event[i]) - 1) == 0 &&
            w->net.now < w->told_event_at[i] + HF_S(1)) {
            GS_TRACE(w, "%s   event: %s", h->name, a->text);
            return; /* another member has told it */
        }
    }
    uint32_t i = w->n_told_event++ % HF_ARRAY_LEN(w->told_event);
    snprintf(w->told_event[i], sizeof(w->told_event[i]), "%s", a->text);
    w->told_event_at[i] = w->net.now;
    GS_TELL(w, "%s %c %s", h->name, a->warn ? '!' : ':', a->text);
}

/* ---- small things ---- */

uint64_t gs_below(struct gs_world *w, uint64_t n)
{
    return w->steady ? n / 2 : hf_prng_below(&w->net.prng, n);
}

bool gs_chance(struct gs_world *w, uint32_t per_mille)
{
    return per_mille && (w->steady ? per_mille >= 1000 : gs_below(w, 1000) < per_mille);
}

/* Mostly short, now and then long. */
static hf_time random_span(struct gs_world *w, uint64_t usual_ms)
{
    uint64_t ms = 1 + gs_below(w, usual_ms);
    if (gs_chance(w, w->faults.slow)) {
        ms *= 1 + gs_below(w, 10);
    }
    return HF_MS((hf_time)ms);
}

bool gs_linked(const struct gs_world *w, uint32_t a, uint32_t b)
{
    return w->host[a].power && w->host[b].power && w->side[a] == w->side[b];
}

int gs_host_of(const struct gs_world *w, const char *name)
{
    for (uint32_t i = 0; i < w->n; i++) {
        if (strcmp(w->host[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

int gs_def_of(const struct gs_world *w, const char *name)
{
    for (uint32_t i = 0; i < w->n_defs; i++) {
        if (strcmp(w->def[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

int gs_def_at(const struct gs_world *w, const struct gs_host *h, uint8_t index)
{
    const struct hf_gstate *s = h->g ? hf_group_state(h->g) : NULL;
    if (!s || index >= s->n_resources) {
        return -1;
    }
    const char *name = s->resource[index].name;
    bool same = index < w->n_defs && strcmp(w->def[index].name, name) == 0; /* nearly always */
    return same ? index : gs_def_of(w, name);
}

bool gs_runs(const struct gs_host *h)
{
    return h->daemon && !h->held && !h->paused && !h->frozen;
}

static void at(struct gs_world *w, hf_time t, uint32_t kind, struct gs_host *h, uint32_t data)
{
    sim_net_at(&w->net, t, kind, h->i, h->boot, (void *)(uintptr_t)data); // NOLINT
}

/* A new job of this host, or the end: no host has so much to do. */
static struct gs_job *job(struct gs_world *w, struct gs_host *h, enum gs_job_kind kind)
{
    for (uint32_t i = 0; i < GS_JOBS_MAX; i++) {
        if (!h->job[i].used) {
            h->job[i] = (struct gs_job){.used = true, .kind = kind, .began = w->net.now};
            h->job[i].id = ++w->job_id & 0xffffff;
            return &h->job[i];
        }
    }
    gs_fail(w, "I9", "%s has %d things under way at once", h->name, GS_JOBS_MAX);
}

static uint32_t job_data(const struct gs_host *h, const struct gs_job *j)
{
    return (uint32_t)(j - h->job) << 24 | j->id;
}

static struct gs_job *job_of(struct gs_host *h, uint32_t data)
{
    struct gs_job *j = &h->job[data >> 24];
    return j->used && j->id == (data & 0xffffff) ? j : NULL;
}

/* ---- what the core wants done ---- */

static void flush_sends(struct gs_world *w, struct gs_host *h)
{
    while (h->n_sends) {
        uint32_t k = h->first_send % GS_SENDS_MAX;
        int rc = h->engine->ops->multicast(h->engine, GS_GROUP,
                                           hf_slice(h->send[k].bytes, h->send[k].n));
        if (rc == -HF_EFULL) {
            at(w, w->net.now + HF_MS(5), GS_EV_SEND, h, 0);
            return;
        }
        h->first_send++;
        h->n_sends--;
    }
}

static void act_send(struct gs_world *w, struct gs_host *h, const struct hf_group_act *a)
{
    if (!h->in_engine) {
        GS_TRACE(w, "%s   sends without being in the engine's group", h->name);
        return;
    }
    if (h->n_sends == GS_SENDS_MAX) {
        gs_fail(w, "I9", "%s wants to send more than %d messages at once", h->name, GS_SENDS_MAX);
    }
    if (a->bytes.n > HF_ENGINE_MSG_MAX) {
        gs_fail(w, "I9", "%s wants to send a message of %zu bytes", h->name, a->bytes.n);
    }
    uint32_t k = (h->first_send + h->n_sends) % GS_SENDS_MAX;
    h->send[k].n = (uint16_t)a->bytes.n;
    memcpy(h->send[k].bytes, a->bytes.p, a->bytes.n);
    if (h->n_sends++ == 0) {
        flush_sends(w, h);
    }
}

static void start_write(struct gs_world *w, struct gs_host *h)
{
    h->writing = true;
    at(w, w->net.now + random_span(w, 8), GS_EV_WRITTEN, h, 0);
}

static void act_persist(struct gs_world *w, struct gs_host *h, const struct hf_group_act *a)
{
    GS_TRACE(w, "%s   writes %" PRIu64 ".%u", h->name, a->version >> 32, (uint32_t)a->version);
    static struct hf_gstate back;
    int rc = hf_gstate_decode(a->bytes, &back);
    if (rc || back.version != a->version) {
        gs_fail(w, "disk", "%s writes a state that it could not read: %s", h->name,
                hf_strerror(rc));
    }
    if (h->writing) {
        h->waiting = true;
        h->wait_version = a->version;
        h->wait_n = a->bytes.n;
        memcpy(h->wait, a->bytes.p, a->bytes.n);
        return;
    }
    h->write_version = a->version;
    h->write_n = a->bytes.n;
    memcpy(h->write, a->bytes.p, a->bytes.n);
    start_write(w, h);
}

static uint16_t defs_of(const struct gs_world *w, const struct gs_host *h, uint16_t mask)
{
    uint16_t defs = 0;
    for (uint8_t i = 0; mask >> i; i++) {
        int d = mask >> i & 1 ? gs_def_at(w, h, i) : -1;
        defs |= (uint16_t)(d >= 0 ? 1u << d : 0);
    }
    return defs;
}

static const char *mask_text(const struct gs_world *w, uint16_t defs, char *buf, size_t n)
{
    size_t at_ = 0;
    buf[0] = 0;
    for (uint32_t i = 0; i < w->n_defs; i++) {
        if (defs >> i & 1 && at_ < n) {
            at_ += (size_t)snprintf(buf + at_, n - at_, "%s%s", at_ ? "+" : "", w->def[i].name);
        }
    }
    return buf;
}

/* How the agent will fare. */
static void cast_agent(struct gs_world *w, struct gs_host *h, struct gs_job *j)
{
    static const uint8_t codes[] = {1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct gs_res *r = &h->res[j->resource];
    bool probe = j->act.op == HF_OP_MONITOR || j->act.op == HF_OP_ACCESS;
    uint64_t usual = probe ? 20 : j->act.op == HF_OP_MIRROR_SOURCE ? 60 : 200;
    usual = w->agent_ms && w->agent_ms < usual ? w->agent_ms : usual;
    hf_time effect = w->net.now + random_span(w, usual);
    uint32_t d = j->resource;
    j->deadline = w->net.now + (w->agent ? AGENT_TIMEOUT : OP_TIMEOUT);
    bool sick = w->net.now < r->sick_until;
    if (gs_chance(w, w->faults.agent_hangs)) {
        j->hang = true;
        j->rc = 1;
        j->apply_anyway = gs_chance(w, 500);
    } else if ((sick && !probe && j->act.op != HF_OP_STOP && j->act.op != HF_OP_DEMOTE) ||
               gs_chance(w, probe ? w->faults.agent_fails / 4 : w->faults.agent_fails)) {
        j->rc = sick    ? r->sick_rc
                : probe ? 1 /* 2, 5 or 6 would say that nothing can be running */
                        : codes[gs_below(w, sizeof(codes))];
        j->apply_anyway = gs_chance(w, 300);
    } else if (gs_chance(w, w->faults.agent_lies)) {
        /* what a monitor can find out; and an empty copy stays what it is */
        j->lie = j->act.op == HF_OP_START || j->act.op == HF_OP_MIRROR_TARGET ||
                 (j->act.op == HF_OP_PROMOTE && !w->copy[d].empty);
    }
    at(w, effect < j->deadline ? effect : j->deadline, GS_EV_EFFECT, h, job_data(h, j));
}

static void act_agent(struct gs_world *w, struct gs_host *h, const struct hf_group_act *a)
{
    int d = gs_def_at(w, h, a->agent.resource);
    char sync[80], async[80];
    if (d < 0) {
        gs_fail(w, "I9", "%s: %s of resource %u, which there is not", h->name,
                hf_op_name(a->agent.op), a->agent.resource);
    }
    struct gs_job *j = job(w, h, GS_AGENT);
    j->act = a->agent;
    j->resource = (uint8_t)d;
    j->index = a->agent.resource;
    j->sync = defs_of(w, h, a->agent.sync);
    j->grow = defs_of(w, h, a->agent.grow);
    j->async = defs_of(w, h, a->agent.async);
    j->source = a->agent.op == HF_OP_MIRROR_TARGET ? (int8_t)gs_def_at(w, h, a->agent.source) : -1;
    cast_agent(w, h, j);
    bool probe = a->agent.op == HF_OP_MONITOR || a->agent.op == HF_OP_ACCESS;
    if (w->trace || (w->story && !probe)) {
        gs_line(w, !probe, "%s > %s %s%s%s%s%s%s%s%s%s", h->name, hf_op_name(a->agent.op),
                w->def[d].name, a->agent.init ? " (init)" : "", j->source >= 0 ? " from " : "",
                j->source >= 0 ? w->def[j->source].name : "",
                a->agent.op == HF_OP_MIRROR_TARGET && a->agent.overwrite ? ", overwrite" : "",
                j->sync ? ", sync to " : "", mask_text(w, j->sync, sync, sizeof(sync)),
                j->async ? ", async to " : "", mask_text(w, j->async, async, sizeof(async)));
    }
    gs_check_act(w, h, j);
    gs_check_instant(w);
}

static void act_fence(struct gs_world *w, struct gs_host *h, const struct hf_group_act *a)
{
    int target = gs_host_of(w, a->host);
    GS_TELL(w, "%s > fence %s", h->name, a->host);
    if (target < 0 || (uint32_t)target == h->i) {
        gs_fail(w, "I9", "%s wants to fence %s", h->name, a->host);
    }
    struct gs_job *j = job(w, h, GS_FENCE);
    j->host = (uint8_t)target;
    at(w, w->net.now + random_span(w, 1000), GS_EV_EFFECT, h, job_data(h, j));
}

static void act_config(struct gs_world *w, struct gs_host *h, const struct hf_group_act *a)
{
    struct gs_job *j = job(w, h, GS_CONFIG);
    int d = gs_def_at(w, h, a->resource);
    j->index = a->resource;
    j->host = 0xff;
    for (uint32_t i = 0; i < w->n; i++) {
        if (strcmp(w->host[i].address, a->address) == 0) {
            j->host = (uint8_t)i;
        }
    }
    if (d < 0 || j->host == 0xff) {
        gs_fail(w, "I9", "%s asks '%s' for the configuration of resource %u", h->name, a->address,
                a->resource);
    }
    j->resource = (uint8_t)d;
    GS_TELL(w, "%s > get the configuration of %s from %s", h->name, w->def[d].name,
            w->host[j->host].name);
    at(w, w->net.now + random_span(w, 60), GS_EV_EFFECT, h, job_data(h, j));
}

static void act_result(struct gs_world *w, struct gs_host *h, const struct hf_group_act *a)
{
    if (a->request != h->asked) {
        GS_TRACE(w, "%s   result of request %u, which nobody waits for: %s", h->name, a->request,
                 a->text);
        return;
    }
    GS_TELL(w, "%s < %s: %s", h->name, a->rc ? hf_strerror(a->rc) : "done", a->text);
    h->asked = 0;
    h->last_rc = a->rc;
    h->tell_configs = h->asked_join && !a->rc;
    h->leave_engine = h->asked_join && a->rc && !h->has_record && !h->writing;
}

static void engine_join(struct gs_world *w, struct gs_host *h)
{
    int rc = h->engine->ops->join(h->engine, GS_GROUP);
    h->in_engine = rc == 0 || rc == -EALREADY;
    h->n_sends = 0;
    if (!h->in_engine) {
        at(w, w->net.now + HF_MS(20), GS_EV_SEND, h, 1);
    }
}

static void engine_leave(struct gs_host *h)
{
    (void)h->engine->ops->leave(h->engine, GS_GROUP);
    h->in_engine = false;
    h->n_sends = 0;
}

static void end_member(struct gs_world *w, struct gs_host *h)
{
    GS_TELL(w, "%s   is not a member any more", h->name);
    engine_leave(h);
    hf_group_destroy(h->g);
    h->g = NULL;
    h->has_record = h->damaged = h->writing = h->waiting = false;
    h->record_version = 0;
    h->timer_at = HF_NEVER;
    h->asked = 0;
    h->boot++; /* nothing that is under way matters */
    memset(h->job, 0, sizeof(h->job));
    at(w, w->net.now + POLL, GS_EV_POLL, h, 0);
}

static void end_daemon(struct gs_world *w, struct gs_host *h);

static void do_acts(struct gs_world *w, struct gs_host *h)
{
    bool left = false, stopped = false;
    for (uint32_t i = 0; i < w->out.n; i++) {
        const struct hf_group_act *a = &w->out.act[i];
        switch (a->kind) {
        case HF_GROUP_ACT_SEND:
            act_send(w, h, a);
            break;
        case HF_GROUP_ACT_PERSIST:
            act_persist(w, h, a);
            break;
        case HF_GROUP_ACT_AGENT:
            act_agent(w, h, a);
            break;
        case HF_GROUP_ACT_FENCE:
            act_fence(w, h, a);
            break;
        case HF_GROUP_ACT_CONFIG:
            act_config(w, h, a);
            break;
        case HF_GROUP_ACT_REJOIN:
            GS_TELL(w, "%s > joins the engine's group again", h->name);
            engine_leave(h);
            engine_join(w, h);
            break;
        case HF_GROUP_ACT_RESULT:
            act_result(w, h, a);
            break;
        case HF_GROUP_ACT_EVENT:
            tell_event(w, h, a);
            break;
        case HF_GROUP_ACT_LEFT:
            left = true;
            break;
        case HF_GROUP_ACT_STOPPED:
            stopped = true;
            break;
        }
    }
    if (left || h->leave_engine) {
        h->leave_engine = false;
        h->left = left; /* else its join failed: the operator may try again */
        end_member(w, h);
    } else if (stopped) {
        GS_TELL(w, "%s   has stopped", h->name);
        end_daemon(w, h);
    }
}

static void set_timer(struct gs_world *w, struct gs_host *h)
{
    hf_time t = h->g ? hf_group_deadline(h->g) : HF_NEVER;
    if (t < h->timer_at && t != HF_NEVER) {
        h->timer_at = t;
        at(w, t > w->net.now ? t : w->net.now, GS_EV_TIMER, h, 0);
    }
}

void gs_step(struct gs_world *w, struct gs_host *h, const struct hf_group_in *in)
{
    if (!h->g) {
        return;
    }
    w->n_steps++;
    hf_group_step(h->g, in, w->net.now, &w->out);
    gs_check_state(w, h);
    gs_check_lost(w, h);
    do_acts(w, h);
    const struct hf_gstate *s = h->g ? hf_group_state(h->g) : NULL;
    bool news = s && s->n_resources > h->told_resources && hf_group_self(h->g) != HF_GROUP_NONE;
    if (h->g && (h->tell_configs || news)) { /* a member now, or of something that was brought */
        h->tell_configs = false;
        h->told_resources = s ? s->n_resources : 0;
        tell_configs(w, h);
    }
    set_timer(w, h);
}

/* ---- what the engine tells ---- */

static void trace_message(struct gs_world *w, const struct gs_host *h, uint32_t from,
                          struct hf_slice msg)
{
    struct hf_gmsg m;
    if (hf_gmsg_decode(msg, &m)) {
        gs_line(w, false, "%s   hears nonsense from %u", h->name, from);
        return;
    }
    const char *by = from <= SIM_NODES_MAX && w->name[from - 1] ? w->name[from - 1] : "?";
    char what[100] = "";
    switch (m.kind) {
    case HF_GMSG_HELLO:
        snprintf(what, sizeof(what), " version %" PRIu64 ".%u quorate %d current %d",
                 m.hello.version >> 32, (uint32_t)m.hello.version, m.hello.quorate,
                 m.hello.current);
        break;
    case HF_GMSG_ACK:
        snprintf(what, sizeof(what), " %" PRIu64 ".%u", m.ack.version >> 32,
                 (uint32_t)m.ack.version);
        break;
    case HF_GMSG_ROLE:
        snprintf(what, sizeof(what), " resource %u %s after %s rc %u epoch %" PRIu64,
                 m.role.resource, hf_role_name(m.role.role), hf_op_name(m.role.op), m.role.rc,
                 m.role.epoch);
        break;
    case HF_GMSG_MIRROR:
        snprintf(what, sizeof(what), " resource %u seen %u", m.mirror.resource, m.mirror.seen);
        break;
    case HF_GMSG_MIRRORED:
        snprintf(what, sizeof(what), " sync %x async %x epoch %" PRIu64, m.mirrored.sync,
                 m.mirrored.async, m.mirrored.epoch);
        break;
    case HF_GMSG_ABLE:
        snprintf(what, sizeof(what), " access %x config %x", m.able.access, m.able.config);
        break;
    case HF_GMSG_EXCLUDE:
        snprintf(what, sizeof(what), " node %u", m.exclude.node_id);
        break;
    case HF_GMSG_TIMEOUT:
        snprintf(what, sizeof(what), " what %u member %u", m.timeout.what, m.timeout.member);
        break;
    case HF_GMSG_FENCED:
        snprintf(what, sizeof(what), " member %u ok %d", m.fenced.member, m.fenced.ok);
        break;
    default:
        break;
    }
    gs_line(w, false, "%s   < %s: %s%s", h->name, by, hf_gmsg_name(m.kind), what);
}

static void on_message(void *arg, const char *group, uint32_t from, struct hf_slice msg)
{
    struct gs_world **at_ = arg;
    struct gs_world *w = *at_;
    struct gs_host *h = &w->host[at_ - &w->self[0]];
    (void)group;
    w->net.now = sim_now(w->sim);
    if (w->trace) {
        trace_message(w, h, from, msg);
    }
    gs_step(w, h, &(struct hf_group_in){.kind = HF_GROUP_IN_MESSAGE, .from = from, .msg = msg});
}

static void on_view(void *arg, const char *group, const struct hf_engine_view *v)
{
    struct gs_world **at_ = arg;
    struct gs_world *w = *at_;
    struct gs_host *h = &w->host[at_ - &w->self[0]];
    (void)group;
    w->net.now = sim_now(w->sim);
    h->ring = v->ring;
    if (w->trace) {
        char text[200] = "";
        for (size_t i = 0; i < v->n_members; i++) {
            size_t n = strlen(text);
            snprintf(text + n, sizeof(text) - n, " %s", v->member[i].host);
        }
        for (size_t i = 0; i < v->n_left; i++) {
            size_t n = strlen(text);
            snprintf(text + n, sizeof(text) - n, ", %s left (%u)", v->left[i].host,
                     v->left[i].left);
        }
        gs_line(w, false, "%s   view %" PRIx64 ":%s", h->name, v->ring, text);
    }
    gs_step(w, h, &(struct hf_group_in){.kind = HF_GROUP_IN_VIEW, .view = v});
}

static void on_quorum(void *arg, bool quorate, uint64_t ring)
{
    struct gs_world **at_ = arg;
    struct gs_world *w = *at_;
    struct gs_host *h = &w->host[at_ - &w->self[0]];
    w->net.now = sim_now(w->sim);
    GS_TRACE(w, "%s   %s in ring %" PRIx64, h->name, quorate ? "quorum" : "no quorum", ring);
    h->quorate = quorate;
    h->quorum_ring = ring;
    gs_step(w, h,
            &(struct hf_group_in){.kind = HF_GROUP_IN_QUORUM, .quorate = quorate, .ring = ring});
}

static void on_lost(void *arg, int rc)
{
    struct gs_world **at_ = arg;
    struct gs_world *w = *at_;
    struct gs_host *h = &w->host[at_ - &w->self[0]];
    w->net.now = sim_now(w->sim);
    GS_TRACE(w, "%s   the engine is lost", h->name);
    bool was = h->in_engine || h->g;
    h->in_engine = false;
    h->n_sends = 0;
    h->quorate = false;
    gs_step(w, h, &(struct hf_group_in){.kind = HF_GROUP_IN_LOST, .rc = rc});
    if (was && h->g && h->daemon) {
        engine_join(w, h);
    }
}

static const struct hf_engine_callbacks callbacks = {
    .message = on_message, .view = on_view, .quorum = on_quorum, .lost = on_lost};

/* ---- lives ---- */

/* A core for this host, from its disk; NULL when the record can't be read. */
static int make_core(struct gs_world *w, struct gs_host *h, bool empty)
{
    struct hf_group_conf conf = w->conf;
    conf.name = GS_GROUP;
    conf.host = h->name;
    conf.address = h->address;
    conf.incarnation = hf_prng_u64(&w->net.prng) | 1;
    conf.seed = hf_prng_u64(&w->net.prng);
    h->timer_at = HF_NEVER;
    h->checked = 0;
    h->told_resources = 0;
    h->told_reach = (uint16_t)~h->reach;
    uint64_t hash[HF_GROUP_RESOURCES_MAX] = {0};
    static struct hf_gstate s;
    if (!empty && hf_gstate_decode(hf_slice(h->record, h->record_n), &s) == 0) {
        for (uint8_t i = 0; i < s.n_resources; i++) {
            int d = gs_def_of(w, s.resource[i].name);
            hash[i] = d >= 0 && h->config >> d & 1 ? w->def[d].config_hash : 0;
        }
        conf.config_hash = hash;
    }
    struct hf_slice record = empty ? hf_slice(NULL, 0) : hf_slice(h->record, h->record_n);
    return hf_group_create(&conf, record, w->net.now, &h->g);
}

/* The driver has told the core what the operator's files say. */
static void tell_configs(struct gs_world *w, struct gs_host *h)
{
    const struct hf_gstate *s = h->g ? hf_group_state(h->g) : NULL;
    for (uint8_t i = 0; s && i < s->n_resources; i++) {
        int d = gs_def_of(w, s->resource[i].name);
        bool there = d >= 0 && h->config >> d & 1;
        gs_step(w, h,
                &(struct hf_group_in){.kind = HF_GROUP_IN_CONFIG,
                                      .rc = there ? 0 : -ENOENT,
                                      .resource = i,
                                      .config_hash = there ? w->def[d].config_hash : 0});
        s = h->g ? hf_group_state(h->g) : NULL;
    }
}

void gs_daemon_start(struct gs_world *w, uint32_t i)
{
    struct gs_host *h = &w->host[i];
    if (!h->power || h->daemon) {
        return;
    }
    GS_TELL(w, "-- %s's daemon starts", h->name);
    h->daemon = true;
    h->stopping = h->in_engine = h->writing = h->waiting = false;
    h->quorate = false;
    h->asked = 0;
    h->n_sends = h->n_deferred = 0;
    h->boot++;
    memset(h->job, 0, sizeof(h->job));
    h->engine = sim_start(w->sim, i, &callbacks, &w->self[i]);
    at(w, w->net.now + HF_MS((hf_time)gs_below(w, 500)), GS_EV_POLL, h, 0);
    if (!h->has_record) {
        return;
    }
    int rc = make_core(w, h, false);
    if (rc && !h->damaged) {
        gs_fail(w, "disk", "%s's record can't be read: %s", h->name, hf_strerror(rc));
    }
    if (rc) { /* the operator has it joined again */
        GS_TELL(w, "%s   its record is damaged", h->name);
        h->has_record = h->damaged = false;
        h->record_version = 0;
        return;
    }
    engine_join(w, h);
    set_timer(w, h);
}

bool gs_may_lose(const struct gs_world *w, const struct gs_host *h)
{
    uint32_t there = 0, wanted = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        const struct gs_host *o = &w->host[i];
        wanted += o->wanted && !o->left;
        there += o != h && o->has_record && !o->damaged;
    }
    return h->has_record && there * 2 > wanted;
}

/* What is under way when a process dies: done or not. */
static void end_jobs(struct gs_world *w, struct gs_host *h, bool power)
{
    for (uint32_t k = 0; k < GS_JOBS_MAX; k++) {
        struct gs_job *j = &h->job[k];
        if (j->used && !j->effect_done && gs_chance(w, 500)) {
            if (j->kind == GS_FENCE && !w->fence_broken[j->host]) {
                j->used = false;
                gs_power_off(w, j->host);
            } else if (j->kind == GS_AGENT && !power) {
                gs_effect(w, h, j);
            }
        }
        j->used = false;
    }
    if (h->writing && gs_chance(w, 500)) {
        memcpy(h->record, h->write, h->write_n);
        h->record_n = h->write_n;
        h->record_version = h->write_version;
        h->has_record = true;
    } else if (h->writing && power && w->persist_torn && gs_may_lose(w, h) && gs_chance(w, 200)) {
        h->record_n = gs_below(w, h->record_n);
        h->record[h->record_n / 2] ^= 0x55;
        h->damaged = true;
    }
    h->writing = h->waiting = false;
}

/* The process is gone; what it started goes on. */
static void end_process(struct gs_world *w, struct gs_host *h, bool power)
{
    if (!h->daemon) {
        return;
    }
    end_jobs(w, h, power);
    h->daemon = h->held = h->paused = h->in_engine = h->quorate = false;
    h->boot++;
    h->n_deferred = 0;
    hf_group_destroy(h->g);
    h->g = NULL;
    h->timer_at = HF_NEVER;
    sim_crash(w->sim, h->i, power);
    h->engine = NULL;
}

static void end_daemon(struct gs_world *w, struct gs_host *h)
{
    end_process(w, h, false);
}

void gs_daemon_kill(struct gs_world *w, uint32_t i)
{
    if (w->host[i].daemon && !w->host[i].frozen) {
        GS_TELL(w, "-- %s's daemon dies", w->host[i].name);
        end_process(w, &w->host[i], false);
    }
}

void gs_daemon_stop(struct gs_world *w, uint32_t i)
{
    struct gs_host *h = &w->host[i];
    if (!gs_runs(h) || h->stopping) {
        return;
    }
    GS_TELL(w, "-- %s's daemon is stopped in order", h->name);
    h->stopping = true;
    if (!h->g) {
        end_daemon(w, h);
        return;
    }
    gs_step(w, h, &(struct hf_group_in){.kind = HF_GROUP_IN_STOP});
}

void gs_power_on(struct gs_world *w, uint32_t i)
{
    if (!w->host[i].power) {
        GS_TELL(w, "-- %s boots", w->host[i].name);
        w->host[i].power = true;
        gs_daemon_start(w, i);
    }
}

void gs_power_off(struct gs_world *w, uint32_t i)
{
    struct gs_host *h = &w->host[i];
    if (!h->power) {
        return;
    }
    GS_TELL(w, "-- %s loses power", h->name);
    h->power = false;
    end_process(w, h, true);
    h->frozen = false;
    if (w->agent) {
        w->agent->off(w, h);
    }
    for (uint32_t d = 0; d < w->n_defs; d++) {
        struct gs_res *r = &h->res[d];
        if (r->truth != GS_STOPPED) {
            gs_data_interrupt(w, d);
        }
        r->truth = GS_STOPPED;
        r->broken = false;
        r->sync = r->async = 0;
    }
}

void gs_disk_lose(struct gs_world *w, uint32_t i, bool copies)
{
    struct gs_host *h = &w->host[i];
    uint64_t best = 0;
    assert(!h->power);
    GS_TELL(w, "-- %s loses its disk%s", h->name, copies ? ", and its copies" : "");
    for (uint32_t k = 0; k < w->n; k++) {
        const struct gs_host *o = &w->host[k];
        best = k != i && o->has_record && o->record_version > best ? o->record_version : best;
    }
    w->knowledge_lost = w->knowledge_lost || (h->has_record && h->record_version > best);
    h->has_record = h->damaged = false;
    h->record_version = 0;
    h->config = 0;
    for (uint32_t d = 0; d < w->n_defs && copies; d++) {
        if (w->def[d].kind == HF_RESOURCE_COPY && h->reach >> d & 1 && !(w->shared >> d & 1)) {
            w->copy[d] = (struct gs_copy){.empty = true, .follows = -1, .copy_from = -1};
        }
    }
}

void gs_pause(struct gs_world *w, uint32_t i, enum gs_pause how)
{
    static const char *const names[] = {"daemon is stopped", "daemon and engine are stopped",
                                        "host is frozen"};
    struct gs_host *h = &w->host[i];
    if (!gs_runs(h)) {
        return;
    }
    GS_TELL(w, "-- %s's %s", h->name, names[how]);
    h->paused_at = w->net.now;
    h->held = how == GS_HOLD;
    h->paused = how == GS_PAUSE;
    h->frozen = how == GS_FREEZE;
    if (h->held) {
        sim_hold(w->sim, i, true);
    } else {
        sim_pause(w->sim, i);
    }
}

static void handle(struct gs_world *w, struct gs_host *h, uint32_t kind, uint32_t data);

void gs_resume(struct gs_world *w, uint32_t i)
{
    struct gs_host *h = &w->host[i];
    if (!h->daemon || gs_runs(h)) {
        return;
    }
    GS_TELL(w, "-- %s goes on", h->name);
    if (h->held) {
        sim_hold(w->sim, i, false);
    } else {
        sim_resume(w->sim, i);
    }
    h->held = h->paused = h->frozen = false;
    if (w->net.now >= h->paused_at + GAP) {
        gs_step(w, h, &(struct hf_group_in){.kind = HF_GROUP_IN_GAP});
    }
    uint32_t n = h->n_deferred, boot = h->boot;
    for (uint32_t k = 0; k < n && h->boot == boot; k++) {
        handle(w, h, h->deferred[k].kind, h->deferred[k].data);
    }
    h->n_deferred = 0;
}

void gs_sides(struct gs_world *w)
{
    sim_partition(w->sim, w->side);
}

void gs_break_resource(struct gs_world *w, uint32_t i, uint32_t d)
{
    struct gs_res *r = &w->host[i].res[d];
    if (r->truth == GS_STOPPED || r->broken) {
        return;
    }
    GS_TELL(w, "-- %s fails on %s", w->def[d].name, w->host[i].name);
    if (gs_chance(w, 500)) {
        r->broken = true;
        return;
    }
    gs_data_interrupt(w, d);
    r->truth = GS_STOPPED;
}

/* ---- operators ---- */

int gs_create(struct gs_world *w, uint32_t i)
{
    struct gs_host *h = &w->host[i];
    if (!gs_runs(h) || h->g) {
        return -1;
    }
    GS_TELL(w, "-- the operator creates the group on %s", h->name);
    int rc = make_core(w, h, true);
    assert(rc == 0);
    w->group_created++;
    h->wanted = true;
    h->left = false;
    h->config = (uint16_t)((1u << w->n_created) - 1);
    h->asked = ++w->request;
    h->asked_join = true;
    engine_join(w, h);
    gs_step(w, h,
            &(struct hf_group_in){.kind = HF_GROUP_IN_CREATE,
                                  .resources = w->def,
                                  .n_resources = (uint8_t)w->n_created,
                                  .degraded_refuse = w->degraded_refuse,
                                  .restart_always = w->restart_always,
                                  .group_id = hf_prng_u64(&w->net.prng) | 1,
                                  .join_request = h->asked});
    tell_configs(w, h);
    return 0;
}

void gs_join(struct gs_world *w, uint32_t i, int brings)
{
    struct gs_host *h = &w->host[i];
    if (!gs_runs(h) || h->asked || (h->g && hf_group_self(h->g) != HF_GROUP_NONE)) {
        return;
    }
    GS_TELL(w, "-- the operator has %s join%s%s", h->name, brings >= 0 ? " with " : "",
            brings >= 0 ? w->def[brings].name : "");
    if (!h->g) {
        int rc = make_core(w, h, true);
        assert(rc == 0);
        engine_join(w, h);
    }
    h->wanted = true;
    h->left = false;
    h->asked = ++w->request;
    h->asked_join = true;
    if (brings >= 0) {
        h->config |= (uint16_t)(1u << brings);
    }
    gs_step(w, h,
            &(struct hf_group_in){.kind = HF_GROUP_IN_JOIN,
                                  .brought = brings >= 0 ? &w->def[brings] : NULL,
                                  .join_request = h->asked});
}

void gs_give_config(struct gs_world *w, uint32_t i, uint32_t d)
{
    struct gs_host *h = &w->host[i];
    GS_TELL(w, "-- the operator gives %s the configuration of %s", h->name, w->def[d].name);
    h->config |= (uint16_t)(1u << d);
    tell_configs(w, h);
}

void gs_request(struct gs_world *w, uint32_t i, uint8_t what, const char *host, const char *of)
{
    static const char *const names[] = {"?",     "switch", "force",  "leave",
                                        "pause", "resume", "confirm"};
    struct gs_host *h = &w->host[i];
    if (!gs_runs(h) || !h->g || h->asked) {
        return;
    }
    GS_TELL(w, "-- the operator asks %s: %s%s%s%s%s", h->name, names[what], host ? " " : "",
            host ? host : "", of ? " " : "", of ? of : "");
    if (what == HF_GREQUEST_FORCE && of) {
        w->forced++;
        w->forced_res |= (uint16_t)(1u << gs_def_of(w, of));
    }
    h->asked = ++w->request;
    h->asked_join = false;
    gs_step(w, h,
            &(struct hf_group_in){.kind = HF_GROUP_IN_REQUEST,
                                  .what = what,
                                  .to_host = host,
                                  .of = of,
                                  .request = h->asked});
}

/* ---- agents ---- */

/* The action takes effect: OCF code. */
static int apply(struct gs_world *w, struct gs_host *h, struct gs_job *j)
{
    if (w->agent) {
        int rc = w->agent->effect(w, h, j);
        return rc == -1 ? 1 : rc; /* nobody waits for it */
    }
    struct gs_res *r = &h->res[j->resource];
    const struct hf_gresource *def = &w->def[j->resource];
    bool promotable = def->flags & HF_RESOURCE_PROMOTABLE;
    switch (j->act.op) {
    case HF_OP_MONITOR:
        return gs_monitor(w, h, j->resource);
    case HF_OP_ACCESS:
        return h->reach >> j->resource & 1 ? 0 : 5;
    case HF_OP_START:
        if (def->kind == HF_RESOURCE_COPY && !(h->reach >> j->resource & 1)) {
            return 5;
        }
        if (r->truth == GS_STOPPED || r->broken) {
            r->truth = r->truth > GS_UNPROMOTED ? r->truth
                       : promotable             ? GS_UNPROMOTED
                                                : GS_PROMOTED;
            r->broken = false;
        }
        return 0;
    case HF_OP_PROMOTE:
        return gs_data_promote(w, h, j->resource, j);
    case HF_OP_OPEN:
        if (r->truth < GS_PROMOTED || r->broken) {
            return 1;
        }
        r->truth = GS_OPEN;
        return 0;
    case HF_OP_DEMOTE:
        if (r->truth > GS_UNPROMOTED) {
            r->truth = GS_UNPROMOTED;
        }
        return r->truth == GS_STOPPED ? 7 : 0;
    case HF_OP_STOP:
        gs_data_interrupt(w, j->resource);
        r->truth = GS_STOPPED;
        r->broken = false;
        return 0;
    case HF_OP_MIRROR_SOURCE:
        return gs_data_source(w, h, j);
    case HF_OP_MIRROR_TARGET:
        return gs_data_target(w, h, j);
    case HF_OP_PREPARE: /* nothing that others see */
        return 0;
    default:
        return 3;
    }
}

/* What a monitor would say; -1: nothing yet. */
static int monitor(struct gs_world *w, struct gs_host *h, uint32_t d)
{
    return w->agent ? w->agent->monitor(w, h, d) : gs_monitor(w, h, d);
}

int gs_monitor(const struct gs_world *w, const struct gs_host *h, uint32_t d)
{
    const struct gs_res *r = &h->res[d];
    if (r->truth == GS_STOPPED) {
        return 7;
    }
    bool promotable = w->def[d].flags & HF_RESOURCE_PROMOTABLE;
    if (promotable && r->truth >= GS_PROMOTED) {
        return r->broken ? 9 : 8;
    }
    return r->broken ? 1 : 0;
}

void gs_effect(struct gs_world *w, struct gs_host *h, struct gs_job *j)
{
    j->effect_done = true;
    if (j->rc) { /* fails; it may have done it nevertheless, or half of it */
        if (j->apply_anyway && j->act.op != HF_OP_MIRROR_SOURCE) {
            (void)apply(w, h, j);
        }
    } else if (!j->lie) {
        j->rc = apply(w, h, j);
    }
    if (w->trace && (j->lie || (j->rc && j->apply_anyway))) {
        gs_line(w, false, "%s   %s of %s %s", h->name, hf_op_name(j->act.op),
                w->def[j->resource].name, j->lie ? "lies" : "fails, but is done");
    }
    gs_check_instant(w);
}

static void fence_effect(struct gs_world *w, struct gs_host *h, struct gs_job *j)
{
    bool fails = w->fence_broken[j->host] || gs_chance(w, w->faults.fence_fails);
    j->effect_done = true;
    j->rc = fails ? -EIO : 0;
    if (!fails || (!w->fence_broken[j->host] && gs_chance(w, 100))) {
        gs_power_off(w, j->host);
    }
    at(w, w->net.now + random_span(w, 100), GS_EV_DONE, h, job_data(h, j));
}

static void config_effect(struct gs_world *w, struct gs_host *h, struct gs_job *j)
{
    const struct gs_host *o = &w->host[j->host];
    bool there = o->i == h->i || (gs_linked(w, h->i, o->i) && gs_runs(o));
    there = there && o->config >> j->resource & 1 && !gs_chance(w, w->faults.config_fails);
    j->effect_done = true;
    j->rc = there ? 0 : -EHOSTUNREACH;
    if (there) {
        h->config |= (uint16_t)(1u << j->resource);
    }
    at(w, w->net.now + (there ? 0 : HF_S(1)), GS_EV_DONE, h, job_data(h, j));
}

static void on_effect(struct gs_world *w, struct gs_host *h, struct gs_job *j)
{
    if (j->kind == GS_FENCE) {
        fence_effect(w, h, j);
        return;
    }
    if (j->kind == GS_CONFIG) {
        config_effect(w, h, j);
        return;
    }
    if (j->hang && w->net.now < j->deadline) {
        at(w, j->deadline, GS_EV_EFFECT, h, job_data(h, j));
        return;
    }
    bool waits = w->agent ? !j->lie : j->act.op == HF_OP_MIRROR_SOURCE;
    if (waits && j->rc == 0 && w->net.now < j->deadline) {
        int rc = w->agent ? w->agent->effect(w, h, j) : gs_data_source(w, h, j);
        if (rc == -1) { /* for the mirrors, or itself */
            at(w, w->net.now + HF_MS(w->agent ? 5 : 100), GS_EV_EFFECT, h, job_data(h, j));
            return;
        }
        j->rc = rc;
        j->effect_done = true;
    } else {
        gs_effect(w, h, j);
    }
    hf_time late = gs_chance(w, 100) ? random_span(w, 200) : 1;
    at(w, w->net.now + late, GS_EV_DONE, h, job_data(h, j));
}

static void on_done(struct gs_world *w, struct gs_host *h, struct gs_job *done)
{
    struct gs_job j = *done;
    done->used = false;
    struct hf_group_in in = {.rc = j.rc, .resource = j.index};
    char text[60];
    switch (j.kind) {
    case GS_AGENT:
        in.kind = HF_GROUP_IN_DONE;
        in.op = j.act.op;
        in.serial = j.act.serial;
        snprintf(text, sizeof(text), j.act.op == HF_OP_PROMOTE && !j.rc ? "fence-%u" : "simulated",
                 w->n_lines);
        in.text = hf_slice_str(j.rc || j.act.op == HF_OP_PROMOTE ? text : "");
        bool probe = j.act.op == HF_OP_MONITOR || j.act.op == HF_OP_ACCESS;
        if (w->trace || (w->story && !probe)) {
            gs_line(w, !probe, "%s < %s %s: rc %d", h->name, hf_op_name(j.act.op),
                    w->def[j.resource].name, j.rc);
        }
        break;
    case GS_FENCE:
        in.kind = HF_GROUP_IN_FENCED;
        in.host = w->host[j.host].name;
        in.text = hf_slice_str(j.rc ? "the fence device does not answer" : "off");
        GS_TELL(w, "%s < fence %s: %s", h->name, in.host, j.rc ? "failed" : "done");
        break;
    case GS_CONFIG:
        in.kind = HF_GROUP_IN_CONFIG;
        in.config_hash = w->def[j.resource].config_hash;
        GS_TELL(w, "%s < configuration of %s: %s", h->name, w->def[j.resource].name,
                j.rc ? "not to be had" : "here");
        break;
    }
    gs_step(w, h, &in);
}

/* ---- what the driver looks at now and then ---- */

static void poll_mirrors(struct gs_world *w, struct gs_host *h, uint8_t index, uint32_t d)
{
    struct gs_res *r = &h->res[d];
    (void)index;
    for (uint8_t k = 0; h->g && k < GS_RES_MAX; k++) {
        int m = gs_def_at(w, h, k);
        if (m < 0 || (uint32_t)m == d || !((r->sync | r->async) >> m & 1)) {
            continue;
        }
        uint8_t seen = gs_data_seen(w, h, d, (uint32_t)m);
        if (seen == r->told_seen[m] && gs_below(w, 8)) {
            continue;
        }
        r->told_seen[m] = seen;
        GS_TRACE(w, "%s   sees %s: %u", h->name, w->def[m].name, seen);
        gs_step(w, h,
                &(struct hf_group_in){.kind = HF_GROUP_IN_MIRROR, .resource = k, .seen = seen});
    }
}

static bool busy_with(const struct gs_host *h, uint32_t d)
{
    for (uint32_t k = 0; k < GS_JOBS_MAX; k++) {
        if (h->job[k].used && h->job[k].kind == GS_AGENT && h->job[k].resource == d) {
            return true;
        }
    }
    return false;
}

static void poll(struct gs_world *w, struct gs_host *h)
{
    at(w, w->net.now + POLL, GS_EV_POLL, h, 0);
    for (uint8_t i = 0; h->g && i < GS_RES_MAX; i++) {
        int d = gs_def_at(w, h, i);
        uint8_t self = hf_group_self(h->g);
        if (d < 0 || self == HF_GROUP_NONE) {
            continue;
        }
        if (w->def[d].kind == HF_RESOURCE_COPY && !busy_with(h, (uint32_t)d) &&
            ((h->reach ^ h->told_reach) >> d & 1 || gs_below(w, 16) == 0)) {
            uint16_t bit = (uint16_t)(1u << d);
            h->told_reach = (uint16_t)((h->told_reach & ~bit) | (h->reach & bit));
            gs_step(w, h,
                    &(struct hf_group_in){.kind = HF_GROUP_IN_DONE,
                                          .resource = i,
                                          .op = HF_OP_ACCESS,
                                          .rc = h->reach & bit ? 0 : 5});
            if (!h->g) {
                return;
            }
        }
        uint8_t role = hf_group_role(h->g, self, i);
        if (role != HF_ROLE_UNPROMOTED && role != HF_ROLE_PROMOTED && role != HF_ROLE_OPEN) {
            continue;
        }
        const struct gs_copy *copy = &w->copy[d];
        if (role == HF_ROLE_UNPROMOTED && gs_mirrors(w, (uint32_t)d) && copy->invalid &&
            !copy->copy_until && !busy_with(h, (uint32_t)d)) {
            gs_step(w, h,
                    &(struct hf_group_in){
                        .kind = HF_GROUP_IN_MIRROR, .resource = i, .seen = HF_SEEN_FAILED});
            if (!h->g) {
                return;
            }
            continue;
        }
        int rc = monitor(w, h, (uint32_t)d);
        if (rc == -1) {
            continue;
        }
        bool plain = !(w->def[d].flags & HF_RESOURCE_PROMOTABLE);
        bool usual = rc == (role == HF_ROLE_UNPROMOTED || plain ? 0 : 8);
        if (!busy_with(h, (uint32_t)d) && (!usual || gs_below(w, 8) == 0)) {
            if (!usual) {
                GS_TELL(w, "%s < monitor %s: rc %d", h->name, w->def[d].name, rc);
            }
            gs_step(w, h,
                    &(struct hf_group_in){
                        .kind = HF_GROUP_IN_DONE, .resource = i, .op = HF_OP_MONITOR, .rc = rc});
        }
        if (h->g && !w->agent && h->res[d].truth >= GS_PROMOTED && !h->res[d].broken) {
            poll_mirrors(w, h, i, (uint32_t)d);
        }
    }
}

static void on_written(struct gs_world *w, struct gs_host *h)
{
    if (!h->writing) {
        return;
    }
    int rc = w->net.now < h->disk_bad_until || gs_chance(w, w->faults.disk_fails) ? -ENOSPC : 0;
    uint64_t version = h->write_version;
    h->writing = false;
    if (rc == 0) {
        memcpy(h->record, h->write, h->write_n);
        h->record_n = h->write_n;
        h->record_version = version;
        h->has_record = true;
        h->damaged = false;
    }
    if (h->waiting) {
        h->waiting = false;
        h->write_version = h->wait_version;
        h->write_n = h->wait_n;
        memcpy(h->write, h->wait, h->wait_n);
        start_write(w, h);
    }
    GS_TRACE(w, "%s   has%s written %" PRIu64 ".%u", h->name, rc ? " not" : "", version >> 32,
             (uint32_t)version);
    gs_step(w, h,
            &(struct hf_group_in){.kind = HF_GROUP_IN_PERSISTED, .rc = rc, .version = version});
}

/* ---- the clock ---- */

static void handle(struct gs_world *w, struct gs_host *h, uint32_t kind, uint32_t data)
{
    struct gs_job *j = NULL;
    switch (kind) {
    case GS_EV_TIMER:
        if (h->timer_at <= w->net.now) {
            h->timer_at = HF_NEVER;
            gs_step(w, h, &(struct hf_group_in){.kind = HF_GROUP_IN_TIMER});
        }
        break;
    case GS_EV_WRITTEN:
        on_written(w, h);
        break;
    case GS_EV_EFFECT:
        j = job_of(h, data);
        if (j && !j->effect_done) {
            on_effect(w, h, j);
        }
        break;
    case GS_EV_DONE:
        j = job_of(h, data);
        if (j) {
            on_done(w, h, j);
        }
        break;
    case GS_EV_POLL:
        poll(w, h);
        break;
    case GS_EV_SEND:
        if (data == 1 && h->g && !h->in_engine) {
            engine_join(w, h);
        } else if (h->in_engine) {
            flush_sends(w, h);
        }
        break;
    default:
        break;
    }
}

static void on_event(struct gs_world *w, const struct sim_event *e)
{
    struct gs_host *h = &w->host[e->host];
    uint32_t data = (uint32_t)(uintptr_t)e->data;
    if (e->kind >= GS_EV_USER) {
        w->user(w, e);
        return;
    }
    if (e->kind == GS_EV_DATA) {
        if (!w->agent) {
            gs_data_tick(w);
        }
        sim_net_at(&w->net, w->net.now + GS_TICK, GS_EV_DATA, 0, 0, NULL);
        return;
    }
    if (e->boot != h->boot || !h->daemon) {
        return;
    }
    bool outside = e->kind == GS_EV_EFFECT || e->kind == GS_EV_WRITTEN;
    bool waits = outside && e->kind == GS_EV_EFFECT ? h->frozen : !gs_runs(h);
    if (!waits) {
        handle(w, h, e->kind, data);
    } else if (h->n_deferred < GS_DEFER_MAX) {
        h->deferred[h->n_deferred++] = (struct gs_event){.kind = e->kind, .data = data};
    }
}

void gs_run(struct gs_world *w, hf_time until)
{
    for (;;) {
        hf_time engine = sim_next(w->sim);
        hf_time queue = w->net.n_events ? w->net.heap[0].at : HF_NEVER;
        hf_time next = hf_time_min(engine, queue);
        if (next > until) {
            w->net.now = until;
            sim_run(w->sim, until);
            return;
        }
        w->n_events++;
        if (engine <= queue) {
            sim_run(w->sim, engine > w->net.now ? engine : w->net.now);
            w->net.now = sim_now(w->sim);
        } else {
            struct sim_event e;
            if (sim_net_next(&w->net, until, &e)) {
                sim_run(w->sim, w->net.now);
                on_event(w, &e);
            }
        }
    }
}

/* ---- beginning and end ---- */

static void witness_view(void *arg, const char *group, const struct hf_engine_view *v)
{
    (void)arg;
    (void)group;
    (void)v;
}

static void witness_quorum(void *arg, bool quorate, uint64_t ring)
{
    (void)arg;
    (void)quorate;
    (void)ring;
}

static void witness_lost(void *arg, int rc)
{
    (void)arg;
    (void)rc;
}

void gs_world_init(struct gs_world *w, uint32_t n, bool witness, uint64_t seed, bool steady)
{
    static const char *const names[] = {"alpha", "beta", "gamma", "delta", "epsilon"};
    static const struct hf_engine_callbacks none = {
        .view = witness_view, .quorum = witness_quorum, .lost = witness_lost};
    assert(n <= GS_HOSTS_MAX);
    memset(w, 0, offsetof(struct gs_world, host));
    memset(&w->name, 0, offsetof(struct gs_world, out) - offsetof(struct gs_world, name));
    w->n = n;
    w->witness = witness;
    w->seed = seed;
    w->steady = steady;
    sim_net_init(&w->net, n, false, seed);
    w->net.now = HF_S(100);
    w->began = w->net.now;
    for (uint32_t i = 0; i < n; i++) {
        struct gs_host *h = &w->host[i];
        memset(h, 0, sizeof(*h));
        h->i = i;
        snprintf(h->name, sizeof(h->name), "%s", names[i]);
        snprintf(h->address, sizeof(h->address), "10.0.0.%u", i + 1);
        h->timer_at = HF_NEVER;
        w->name[i] = h->name;
        w->self[i] = w;
    }
    w->name[n] = "witness";
    w->sim = sim_create(&(struct sim_opt){.seed = seed ^ 0x5555,
                                          .n = n + witness,
                                          .delay_max = steady ? 1 : HF_MS(2),
                                          .detect = HF_MS(150),
                                          .host = w->name});
    assert(w->sim);
    sim_run(w->sim, w->net.now);
    if (witness) {
        (void)sim_start(w->sim, n, &none, NULL);
    }
    w->n_lines = 1;
    for (uint32_t d = 0; d < GS_RES_MAX; d++) {
        w->copy[d] = (struct gs_copy){.empty = true, .follows = -1, .copy_from = -1};
    }
    sim_net_at(&w->net, w->net.now + GS_TICK, GS_EV_DATA, 0, 0, NULL);
}

void gs_world_fini(struct gs_world *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        hf_group_destroy(w->host[i].g);
        w->host[i].g = NULL;
    }
    sim_destroy(w->sim);
    sim_net_fini(&w->net);
}

uint32_t gs_define(struct gs_world *w, const char *name, uint8_t kind, uint8_t flags)
{
    assert(w->n_defs < GS_RES_MAX);
    struct hf_gresource *r = &w->def[w->n_defs];
    *r = (struct hf_gresource){.kind = kind, .flags = flags, .host = HF_GROUP_NONE};
    snprintf(r->name, sizeof(r->name), "%s", name);
    snprintf(r->agent, sizeof(r->agent), "ocf:sim:%s", kind == HF_RESOURCE_COPY ? "data" : "ip");
    r->config_hash = 1000 + w->n_defs;
    return w->n_defs++;
}
