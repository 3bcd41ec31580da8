/* PostgreSQL servers as their monitors see them: states, who is primary, incarnations, fences. */
#include "core/pg/servers_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/err.h"
#include "base/names.h"

#define FAST HF_MS(10)     /* between probes of a server that is awaited ... */
#define FAST_FOR HF_S(2)   /* ... so long, then */
#define AWAITED HF_MS(100) /* ... this */
#define STARTUP HF_MS(50)  /* between probes of one that starts */
#define SWITCHING HF_MS(2) /* between probes while clients are held for a switchover */
#define PHASE_CLEARING 1   /* enum holdfast_phase */
#define PHASE_OPENING 3
#define PHASE_RUNNING 4

HF_NAMES(hf_pg_server_state_name, enum hf_pg_server_state, HF_PG_SERVER_STATE_LIST)

/* ---- events ---- */

void hf_pg_servers_event(struct hf_pg_servers *s, uint32_t server, bool warn, const char *fmt, ...)
{
    if (s->n_events == HF_PG_EVENTS_MAX) {
        s->first_event = (s->first_event + 1) % HF_PG_EVENTS_MAX;
        s->n_events--;
    }
    uint32_t i = (s->first_event + s->n_events++) % HF_PG_EVENTS_MAX;
    s->event[i].server = server;
    s->event[i].warn = warn;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(s->event[i].text, sizeof(s->event[i].text), fmt, ap);
    va_end(ap);
}

static void enter_state(struct hf_pg_servers *s, uint32_t i, enum hf_pg_server_state to,
                        const char *why, hf_time now)
{
    struct hf_pg_server *v = &s->server[i];
    if (why != v->why) {
        (void)snprintf(v->why, sizeof(v->why), "%s", why);
    }
    if (v->state == to) {
        return;
    }
    bool good = to == HF_PG_SERVER_PRIMARY || to == HF_PG_SERVER_STANDBY;
    hf_pg_servers_event(s, i, !good && v->state != HF_PG_SERVER_UNKNOWN, "%s: %s -> %s%s%s",
                        v->name, hf_pg_server_state_name(v->state), hf_pg_server_state_name(to),
                        v->why[0] != 0 ? ": " : "", v->why);
    v->state = to;
    v->since = now;
    v->sweep = true;
    v->given_up = false;
}

/* ---- probes ---- */

void hf_pg_servers_verify(struct hf_pg_servers *s, uint32_t server, bool doubt, hf_time now)
{
    struct hf_pg_server *v = &s->server[server];
    v->wanted = ++s->last_event;
    v->doubt |= doubt;
    if (!v->probing) {
        v->next_probe = now;
    }
}

/* Is somebody waiting for this server to become the primary? */
static bool awaited(const struct hf_pg_servers *s, const struct hf_pg_server *v)
{
    if (s->primary != HF_PG_SERVER_NONE) {
        return false;
    }
    if (s->conf.group) {
        return s->phase >= PHASE_OPENING && strcmp(v->address, s->address) == 0;
    }
    return s->n_waiting > 0;
}

/* The group changes its primary, and has not opened the new one yet. */
static bool between_primaries(uint8_t phase)
{
    return phase >= PHASE_CLEARING && phase < PHASE_OPENING;
}

/* Asking the new primary would only cost it time. */
static bool too_early(const struct hf_pg_servers *s, const struct hf_pg_server *v)
{
    return s->conf.group && s->group_acts && between_primaries(s->phase) &&
           strcmp(v->address, s->address) == 0;
}

static hf_time interval(struct hf_pg_servers *s, struct hf_pg_server *v, hf_time now)
{
    hf_time t = s->conf.health_interval;
    if (awaited(s, v)) {
        v->awaited_since = v->awaited_since == HF_NEVER ? now : v->awaited_since;
        t = hf_time_min(t, now - v->awaited_since < FAST_FOR ? FAST : AWAITED);
    } else {
        v->awaited_since = HF_NEVER;
    }
    if (v->state == HF_PG_SERVER_STARTING) {
        t = hf_time_min(t, STARTUP);
    }
    bool group =
        !s->conf.group || (s->phase >= PHASE_OPENING && strcmp(v->address, s->address) == 0);
    if (group && s->switching != HF_PG_SWITCH_NONE && s->switching != HF_PG_SWITCH_FREEZING) {
        t = hf_time_min(t, SWITCHING);
    }
    return t;
}

void hf_pg_servers_schedule(struct hf_pg_servers *s, hf_time now)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (v->removed || v->probing || too_early(s, v)) {
            v->next_probe = HF_NEVER;
        } else if (v->wanted > v->verified && v->n_failed < 2) {
            v->next_probe = now;
        } else {
            v->next_probe = v->done_at + interval(s, v, now);
        }
    }
}

/* ---- who is the primary ---- */

/* A server that is not in recovery, in a group: NULL, or why it is not the primary. */
static const char *unfit_for_group(struct hf_pg_servers *s, struct hf_pg_server *v)
{
    struct hf_pg_fence f;
    if (strcmp(v->address, s->address) != 0 || s->address[0] == 0) {
        return "not the group's primary";
    }
    if (v->opened && v->epoch == s->epoch) {
        return NULL; /* whatever becomes of the group's quorum: hf_pg_gate_is_open() */
    }
    if (!s->group_acts) {
        return "this host does not act in the group now";
    }
    if (s->phase < PHASE_OPENING || (s->phase < PHASE_RUNNING && s->fence_text[0] == 0)) {
        return "the group has not opened it yet";
    }
    if (v->doubt) {
        return "not seen yet since the group has opened it";
    }
    if (s->fence_text[0] == 0) {
        return NULL;
    }
    if (hf_pg_fence_parse(s->fence_text, &f) < 0) {
        return "the group's fence can't be read";
    }
    if (f.sysid != v->facts.sysid || f.timeline != v->facts.timeline) {
        return "the group's fence is of another server";
    }
    v->fence = v->have_fence && v->opened ? v->fence : f.xmax;
    v->have_fence = true;
    return NULL;
}

/* The newest timeline of the database that anybody has shown. */
static uint32_t newest_timeline(const struct hf_pg_servers *s)
{
    uint32_t t = s->timeline;
    HF_PG_SERVERS_EACH(s, i)
    {
        const struct hf_pg_server *v = &s->server[i];
        if (v->up && v->facts.timeline > t && (s->sysid == 0 || v->facts.sysid == s->sysid)) {
            t = v->facts.timeline;
        }
    }
    return t;
}

/* The same in a static list; two of them are none. */
static const char *unfit_for_list(const struct hf_pg_servers *s, const struct hf_pg_server *v)
{
    if (s->sysid != 0 && v->facts.sysid != s->sysid) {
        return "another database: its system identifier differs";
    }
    if (v->facts.timeline < newest_timeline(s)) {
        return "an older timeline: another server was promoted";
    }
    HF_PG_SERVERS_EACH(s, j)
    {
        const struct hf_pg_server *o = &s->server[j];
        if (!v->opened && !o->removed && o->state == HF_PG_SERVER_UNKNOWN && o != v && !o->up) {
            return "not all servers were heard yet";
        }
        if (o != v && !o->removed && o->up && !o->facts.in_recovery &&
            o->facts.timeline == v->facts.timeline &&
            (s->sysid == 0 || o->facts.sysid == s->sysid)) {
            return "two servers are writable on one timeline";
        }
    }
    if (s->conf.exclusive && !v->have_fence && !v->opened) {
        return "its fence is being read";
    }
    return NULL;
}

static struct hf_pg_reign *last_reign(struct hf_pg_servers *s)
{
    return s->n_reigns > 0 ? &s->reign[(s->n_reigns - 1) % HF_PG_HISTORY_MAX] : NULL;
}

/* May somebody have used transaction ids since the last reign, of which we were not told? */
static bool missed_something(struct hf_pg_servers *s)
{
    const struct hf_pg_reign *last = last_reign(s);
    if (last == NULL) {
        return false;
    }
    if (s->conf.group) { /* one start per epoch: a second one has come before the word of it */
        struct hf_pg_fence f;
        return s->epoch != s->opened_epoch + 1 &&
               (hf_pg_fence_parse(s->fence_text, &f) < 0 || f.after != s->opened_epoch);
    }
    /* another manager wrote when that was seen last: also on a start that came and went since, or
     * on this one before we read the fence */
    return last->verified <= s->alone_from;
}

/* A start of a primary is seen for the first time. */
static void open_reign(struct hf_pg_servers *s, uint32_t i)
{
    struct hf_pg_server *v = &s->server[i];
    bool fenced = v->have_fence && !missed_something(s);
    v->opened = true;
    s->reign[s->n_reigns++ % HF_PG_HISTORY_MAX] = (struct hf_pg_reign){
        .incarnation = v->incarnation,
        .fenced = fenced,
        .fence = v->fence,
    };
    s->count.incarnations++;
    s->count.incarnations_unfenced += !fenced;
    s->sysid = v->facts.sysid;
    s->timeline = v->facts.timeline > s->timeline ? v->facts.timeline : s->timeline;
    if (fenced) {
        hf_pg_servers_event(s, i, false, "%s is the primary: timeline %u, fence %llu", v->name,
                            v->facts.timeline, (unsigned long long)v->fence);
    } else {
        hf_pg_servers_event(s, i, s->n_reigns > 1,
                            "%s is the primary: timeline %u, no fence: commits in doubt stay so",
                            v->name, v->facts.timeline);
    }
}

static void be_primary(struct hf_pg_servers *s, uint32_t i, hf_time now)
{
    struct hf_pg_server *v = &s->server[i];
    bool other = s->primary != i;
    bool fresh = !v->opened;
    if (fresh) {
        open_reign(s, i);
    }
    if (last_reign(s)->incarnation == v->incarnation) {
        last_reign(s)->facts = v->facts;
        last_reign(s)->verified = v->verified;
    }
    v->epoch = s->epoch;
    s->opened_epoch = s->epoch;
    s->primary = i;
    enter_state(s, i, HF_PG_SERVER_PRIMARY, "", now);
    if (other || fresh) {
        hf_pg_gate_opened(s, fresh, now);
    }
}

void hf_pg_servers_judge(struct hf_pg_servers *s, hf_time now)
{
    uint32_t chosen = HF_PG_SERVER_NONE;
    bool conflict = false;
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (!v->up || v->removed) {
            continue;
        }
        if (v->facts.in_recovery) {
            bool other = s->sysid != 0 && v->facts.sysid != s->sysid;
            enter_state(s, i, other ? HF_PG_SERVER_CLOSED : HF_PG_SERVER_STANDBY,
                        other ? "another database: its system identifier differs" : "", now);
            continue;
        }
        const char *why = s->conf.group ? unfit_for_group(s, v) : unfit_for_list(s, v);
        if (why == NULL) {
            chosen = i;
        } else {
            conflict |= strncmp(why, "two ", 4) == 0;
            enter_state(s, i, HF_PG_SERVER_CLOSED, why, now);
        }
    }
    s->count.conflicts += conflict && !s->conflict;
    s->conflict = conflict;
    if (chosen != HF_PG_SERVER_NONE) {
        be_primary(s, chosen, now);
    } else {
        s->primary = HF_PG_SERVER_NONE;
    }
    hf_pg_servers_schedule(s, now);
}

/* ---- what happens ---- */

/* The opened start that is most like this, more than `best`; NULL: none. Numbers of processes are
 * used again, so several may be. */
static const struct hf_pg_reign *reign_like(const struct hf_pg_servers *s,
                                            const struct hf_pg_server_facts *f, unsigned best)
{
    const struct hf_pg_reign *found = NULL;
    for (size_t i = 0; i < s->n_reigns && i < HF_PG_HISTORY_MAX; i++) {
        unsigned n = hf_pg_server_likeness(&s->reign[i].facts, f);
        if (n > best) {
            best = n;
            found = &s->reign[i];
        }
    }
    return found;
}

/* A start has one number, also if its server is in the list under another name now. */
static void new_incarnation(struct hf_pg_servers *s, struct hf_pg_server *v,
                            const struct hf_pg_server_facts *f)
{
    const struct hf_pg_reign *r = v->known ? NULL : reign_like(s, f, 0);
    v->incarnation = r != NULL ? r->incarnation : ++s->last_incarnation;
    v->opened = r != NULL;
    v->have_fence = r != NULL && r->fenced;
    v->fence = r != NULL ? r->fence : v->fence;
    v->writable_seen = false;
    v->known = true;
    v->sweep = true;
}

void hf_pg_servers_answered(struct hf_pg_servers *s, uint32_t server,
                            const struct hf_pg_server_facts *facts, hf_time now)
{
    assert(server < HF_PG_SERVERS_MAX && s->server[server].used);
    struct hf_pg_server *v = &s->server[server];
    if (!v->probing) {
        return; /* given up before */
    }
    v->probing = false;
    v->n_failed = 0;
    v->done_at = v->answered = now;
    v->rtt = now - v->begun_at;
    if (!v->known || !hf_pg_server_same_start(&v->facts, facts)) {
        new_incarnation(s, v, facts);
    } else if (s->conf.exclusive && !s->conf.group && v->writable_seen && !v->have_fence) {
        v->have_fence = true;
        v->fence = facts->xmax;
    }
    v->up = true;
    v->facts = *facts;
    v->verified = v->begun;
    v->doubt &= v->wanted > v->begun;
    if (!facts->in_recovery && !v->writable_seen) {
        v->writable_seen = true;
        if (s->conf.exclusive && !s->conf.group) {
            hf_pg_servers_verify(s, server, false, now);
        }
    }
    hf_pg_servers_judge(s, now);
}

/* What an error in the monitor's login says of the server. true: it lives. */
static bool state_of_error(const struct hf_pg_servers *s, const struct hf_pg_server *v,
                           const char *sqlstate, enum hf_pg_server_state *ret_state)
{
    *ret_state = HF_PG_SERVER_DOWN;
    if (strcmp(sqlstate, "57P03") == 0) {
        *ret_state = HF_PG_SERVER_STARTING;
    } else if (s->conf.group && strncmp(sqlstate, "28", 2) == 0) {
        *ret_state = HF_PG_SERVER_CLOSED; /* the agent's HBA */
    } else if (strcmp(sqlstate, "53300") == 0 && v->up) {
        return true; /* full, and otherwise as it was */
    }
    return false;
}

static void take_down(struct hf_pg_servers *s, uint32_t i, enum hf_pg_server_state to,
                      const char *why, hf_time now)
{
    struct hf_pg_server *v = &s->server[i];
    v->up = false;
    if (s->primary == i) {
        s->primary = HF_PG_SERVER_NONE;
    }
    enter_state(s, i, to, why, now);
    hf_pg_servers_judge(s, now);
}

void hf_pg_servers_failed(struct hf_pg_servers *s, uint32_t server, const char *sqlstate,
                          const char *text, hf_time now)
{
    assert(server < HF_PG_SERVERS_MAX && s->server[server].used);
    struct hf_pg_server *v = &s->server[server];
    enum hf_pg_server_state to;
    v->probing = false;
    v->done_at = now;
    v->n_failed++;
    s->count.probes_failed++;
    bool lives = state_of_error(s, v, sqlstate, &to);
    if (to == HF_PG_SERVER_DOWN && v->up && (v->n_failed == 1 || lives)) {
        /* perhaps only this connection: the next one tells */
        (void)snprintf(v->why, sizeof(v->why), "%s", text);
        v->doubt = true;
        v->wanted = ++s->last_event;
        hf_pg_servers_schedule(s, now);
        return;
    }
    take_down(s, server, to, text, now);
}

static void look_for_timeouts(struct hf_pg_servers *s, hf_time now)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (v->probing && now - v->begun_at >= s->conf.health_timeout) {
            v->probing = false;
            v->want_reset = true;
            v->done_at = now;
            v->n_failed++;
            s->count.probes_failed++;
            char why[64];
            (void)snprintf(why, sizeof(why), "no answer in %lld ms",
                           (long long)(s->conf.health_timeout / HF_NS_PER_MS));
            take_down(s, i, HF_PG_SERVER_DOWN, why, now);
        }
    }
}

void hf_pg_servers_group(struct hf_pg_servers *s, const struct hf_pg_group_view *view, hf_time now)
{
    bool changed = !s->group_known || view->epoch != s->epoch ||
                   strcmp(view->address, s->address) != 0 ||
                   strcmp(view->fence_text, s->fence_text) != 0;
    bool acts = view->member && view->quorate;
    s->group_known = true;
    if (acts != s->group_acts) {
        hf_pg_servers_event(s, HF_PG_SERVER_NONE, !acts, "group: this host %s",
                            acts ? "acts in it" : "does not act in it: nobody is let in");
    }
    s->group_acts = acts;
    if (acts && between_primaries(view->phase) && s->phase == PHASE_RUNNING) {
        hf_pg_gate_hold(s, now);
    }
    s->phase = view->phase;
    s->epoch = view->epoch;
    (void)snprintf(s->address, sizeof(s->address), "%s", view->address);
    (void)snprintf(s->fence_text, sizeof(s->fence_text), "%s", view->fence_text);
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (strcmp(v->address, s->address) == 0 && v->state != HF_PG_SERVER_PRIMARY) {
            v->n_failed = 0;
            hf_pg_servers_verify(s, i, changed, now);
        } else if (changed && strcmp(v->address, s->address) == 0) {
            hf_pg_servers_verify(s, i, true, now);
        }
    }
    hf_pg_servers_judge(s, now);
    if (s->phase == PHASE_RUNNING) {
        hf_pg_gate_release(s, now);
    }
}

/* ---- the list ---- */

static void remove_if_empty(struct hf_pg_servers *s)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (v->removed && hf_list_empty(&v->seats) && hf_list_empty(&v->checking) &&
            !v->want_reset) {
            v->used = false;
        }
    }
}

static struct hf_pg_server *server_of_conf(struct hf_pg_servers *s,
                                           const struct hf_pg_server_conf *c)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (!v->removed && strcmp(v->name, c->name) == 0 && strcmp(v->address, c->address) == 0) {
            return v;
        }
    }
    return NULL;
}

static void add_server(struct hf_pg_servers *s, const struct hf_pg_server_conf *c, hf_time now)
{
    uint32_t i = 0;
    while (s->server[i].used) {
        i++;
        assert(i < HF_PG_SERVERS_MAX);
    }
    struct hf_pg_server *v = &s->server[i];
    *v = (struct hf_pg_server){.used = true, .keep = true};
    (void)snprintf(v->name, sizeof(v->name), "%s", c->name);
    (void)snprintf(v->address, sizeof(v->address), "%s", c->address);
    v->weight = c->weight > 0 ? c->weight : 1;
    v->since = now;
    v->next_probe = now;
    v->done_at = now - s->conf.health_interval;
    v->awaited_since = v->next_move = HF_NEVER;
    hf_list_init(&v->seats);
    hf_list_init(&v->checking);
}

int hf_pg_servers_set(struct hf_pg_servers *s, const struct hf_pg_server_conf *list, size_t n,
                      hf_time now)
{
    size_t n_used = n;
    HF_PG_SERVERS_EACH(s, i)
    {
        s->server[i].keep = false;
        n_used++;
    }
    for (size_t i = 0; i < n; i++) {
        struct hf_pg_server *v = server_of_conf(s, &list[i]);
        if (v != NULL) {
            v->keep = true;
            v->weight = list[i].weight > 0 ? list[i].weight : 1;
            n_used--;
        }
    }
    if (n_used > HF_PG_SERVERS_MAX) {
        return -HF_EFULL;
    }
    for (size_t i = 0; i < n; i++) {
        if (server_of_conf(s, &list[i]) == NULL) {
            add_server(s, &list[i], now);
        }
    }
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (!v->keep && !v->removed) {
            v->removed = true;
            v->probing = false;
            v->want_reset = true;
            take_down(s, i, HF_PG_SERVER_DOWN, "not in the list any more", now);
        }
    }
    hf_pg_servers_judge(s, now);
    return 0;
}

uint32_t hf_pg_servers_find(const struct hf_pg_servers *s, const char *name)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        if (!s->server[i].removed && strcmp(s->server[i].name, name) == 0) {
            return i;
        }
    }
    return HF_PG_SERVER_NONE;
}

void hf_pg_servers_reconf(struct hf_pg_servers *s, const struct hf_pg_servers_conf *conf,
                          hf_time now)
{
    struct hf_pg_servers_conf *c = &s->conf;
    if (conf->exclusive && !c->exclusive) {
        s->alone_from = ++s->last_event;
    }
    *c = *conf;
#define DEFAULT(field, value) c->field = c->field > 0 ? c->field : (value)
    DEFAULT(health_interval, HF_S(1));
    DEFAULT(health_timeout, HF_S(3));
    DEFAULT(hold_timeout, HF_S(30));
    DEFAULT(window, HF_S(5));
    DEFAULT(balance_tick, HF_S(30));
    DEFAULT(balance_dead_zone, 15);
    DEFAULT(balance_rate, 50);
    DEFAULT(logins_max, 64);
    DEFAULT(moves_max, 64);
#undef DEFAULT
    hf_pg_servers_judge(s, now);
}

int hf_pg_servers_create(const struct hf_pg_servers_conf *conf, hf_time now,
                         struct hf_pg_servers **ret_servers)
{
    struct hf_pg_servers *s = hf_alloc(sizeof(*s));
    if (s == NULL) {
        return -ENOMEM;
    }
    s->primary = HF_PG_SERVER_NONE;
    hf_pg_gate_init(s, now);
    hf_pg_servers_reconf(s, conf, now);
    *ret_servers = s;
    return 0;
}

void hf_pg_servers_destroy(struct hf_pg_servers *s)
{
    hf_free(s);
}

/* ---- the step ---- */

void hf_pg_servers_step(struct hf_pg_servers *s, hf_time now)
{
    look_for_timeouts(s, now);
    hf_pg_gate_step(s, now);
    hf_pg_servers_schedule(s, now);
}

hf_time hf_pg_servers_deadline(const struct hf_pg_servers *s)
{
    hf_time t = hf_pg_gate_deadline(s);
    HF_PG_SERVERS_EACH(s, i)
    {
        const struct hf_pg_server *v = &s->server[i];
        t = hf_time_min(t, v->probing ? v->begun_at + s->conf.health_timeout : v->next_probe);
    }
    return t;
}

static bool next_of_monitor(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *out)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        struct hf_pg_server *v = &s->server[i];
        if (v->want_reset) {
            v->want_reset = false;
            *out = (struct hf_pg_servers_out){.kind = HF_PG_SERVERS_RESET, .server = i};
            return true;
        }
        if (!v->removed && !v->probing && v->next_probe <= now) {
            v->probing = true;
            v->begun = ++s->last_event;
            v->begun_at = now;
            v->next_probe = HF_NEVER;
            s->count.probes++;
            *out = (struct hf_pg_servers_out){.kind = HF_PG_SERVERS_PROBE, .server = i};
            return true;
        }
    }
    return false;
}

bool hf_pg_servers_next(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *ret_out)
{
    if (s->n_events > 0) {
        uint32_t i = s->first_event;
        s->first_event = (i + 1) % HF_PG_EVENTS_MAX;
        s->n_events--;
        memcpy(s->text, s->event[i].text, sizeof(s->text));
        *ret_out = (struct hf_pg_servers_out){.kind = HF_PG_SERVERS_EVENT,
                                              .server = s->event[i].server,
                                              .warn = s->event[i].warn,
                                              .text = s->text};
        return true;
    }
    if (next_of_monitor(s, now, ret_out) || hf_pg_gate_next(s, now, ret_out)) {
        return true;
    }
    remove_if_empty(s);
    return s->n_events > 0 && hf_pg_servers_next(s, now, ret_out);
}

/* ---- reading ---- */

uint32_t hf_pg_servers_primary(const struct hf_pg_servers *s)
{
    return s->primary;
}

const struct hf_pg_servers_counters *hf_pg_servers_counters(const struct hf_pg_servers *s)
{
    return &s->count;
}

size_t hf_pg_servers_identity(const struct hf_pg_servers *s, uint64_t incarnation, uint8_t *buf)
{
    HF_PG_SERVERS_EACH(s, i)
    {
        const struct hf_pg_server *v = &s->server[i];
        if (v->known && v->incarnation == incarnation) {
            return hf_pg_identity_encode(&v->facts, buf);
        }
    }
    for (size_t i = 0; i < s->n_reigns && i < HF_PG_HISTORY_MAX; i++) {
        if (s->reign[i].incarnation == incarnation) {
            return hf_pg_identity_encode(&s->reign[i].facts, buf);
        }
    }
    return 0;
}

uint64_t hf_pg_servers_known(const struct hf_pg_servers *s, struct hf_slice identity)
{
    struct hf_pg_server_facts f;
    unsigned best = 0;
    uint64_t found = HF_PG_INCARNATION_UNKNOWN;
    if (hf_pg_identity_decode(identity, &f) != 0) {
        return found;
    }
    HF_PG_SERVERS_EACH(s, i)
    {
        const struct hf_pg_server *v = &s->server[i];
        unsigned n = v->known && !v->removed ? hf_pg_server_likeness(&v->facts, &f) : 0;
        if (n > best) {
            best = n;
            found = v->incarnation;
        }
    }
    const struct hf_pg_reign *r = reign_like(s, &f, best);
    return r != NULL ? r->incarnation : found;
}

static void info_of(const struct hf_pg_servers *s, const struct hf_pg_server *v,
                    struct hf_pg_server_info *ret)
{
    *ret = (struct hf_pg_server_info){
        .name = v->name,
        .address = v->address,
        .state = v->state,
        .draining = v->draining,
        .why = v->why,
        .weight = v->weight,
        .incarnation = v->incarnation,
        .fenced = v->have_fence,
        .fence = v->fence,
        .sysid = v->facts.sysid,
        .timeline = v->facts.timeline,
        .lsn = v->facts.lsn,
        .since = v->since,
        .answered = v->answered,
        .rtt = v->rtt,
        .n_sessions = v->n_sessions,
        .n_logins = v->n_logins,
        .lag = hf_pg_server_lag(s, v),
    };
    HF_LIST_FOREACH (n, &v->seats) {
        const struct hf_pg_seat *seat = HF_CONTAINER_OF(n, struct hf_pg_seat, node);
        if (v->draining && seat->state == HF_PG_SEAT_TAKEN && seat->reasons != 0) {
            ret->n_stuck++;
            ret->stuck |= seat->reasons;
        }
    }
}

bool hf_pg_servers_info(const struct hf_pg_servers *s, uint32_t *pos, uint32_t *ret_server,
                        struct hf_pg_server_info *ret_info)
{
    for (; *pos < HF_PG_SERVERS_MAX; (*pos)++) {
        const struct hf_pg_server *v = &s->server[*pos];
        if (v->used && !v->removed) {
            *ret_server = (*pos)++;
            info_of(s, v, ret_info);
            return true;
        }
    }
    return false;
}

/* Bytes that a standby has not replayed of what the primary had written when last asked. */
uint64_t hf_pg_server_lag(const struct hf_pg_servers *s, const struct hf_pg_server *v)
{
    if (s->primary == HF_PG_SERVER_NONE || !v->up || v->state != HF_PG_SERVER_STANDBY) {
        return 0;
    }
    uint64_t written = s->server[s->primary].facts.lsn;
    return written > v->facts.lsn ? written - v->facts.lsn : 0;
}

const char *hf_pg_servers_why(const struct hf_pg_servers *s)
{
    if (hf_pg_gate_is_open(s)) {
        return s->window ? "sessions that lost the former primary go first" : "";
    }
    if (s->conf.group && !s->group_known) {
        return "the group is not known here";
    }
    if (s->conf.group && !s->group_acts) {
        return "this host does not act in the group: no quorum, or no holdfastd";
    }
    if (s->primary != HF_PG_SERVER_NONE) {
        return "the primary is looked at anew";
    }
    if (s->conflict) {
        return "two servers are writable on one timeline";
    }
    HF_PG_SERVERS_EACH(s, i)
    {
        const struct hf_pg_server *v = &s->server[i];
        if (v->state == HF_PG_SERVER_CLOSED || v->state == HF_PG_SERVER_STARTING) {
            return v->why;
        }
    }
    return "no server is the primary";
}
