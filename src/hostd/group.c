/* Groups of this host: the cores, connected to the engine, the disk and those who look on. */
#include "hostd/group.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/hash.h"
#include "engine/corosync.h"
#include "engine/embedded.h"
#include "hostd/group_impl.h"

#define BEAT HF_MS(250)       /* so often the loop shows that it runs */
#define SEND_AGAIN HF_MS(5)   /* the engine was full */
#define JOIN_AGAIN HF_MS(250) /* the engine is not ready */
#define JOIN_SOON HF_MS(10)   /* our former process is still in the group */
#define SETTLE_ROUNDS_MAX 200 /* then others have their turn */

struct hf_hgroup *hf_groups_get(const struct hf_groups *gs, const char *name)
{
    for (size_t i = 0; i < gs->n_groups; i++) {
        if (strcmp(gs->group[i]->name, name) == 0) {
            return gs->group[i];
        }
    }
    return NULL;
}

/* ---- telling people ---- */

static void call_listeners(struct hf_hgroup *g, const char *text)
{
    for (size_t i = 0; i < HF_GROUP_LISTENERS_MAX; i++) {
        if (g->gs->listener[i].fn) {
            g->gs->listener[i].fn(g->gs->listener[i].arg, &g->info, text);
        }
    }
}

static void tell(struct hf_hgroup *g, bool warn, const char *text)
{
    const struct hf_gstate *s = g->core ? hf_group_state(g->core) : NULL;
    hf_log(warn ? HF_LOG_WARN : HF_LOG_INFO, g->name, "%s", text);
    int rc = hf_group_store_note(&g->store, hf_wall_now() / HF_NS_PER_MS, s ? s->epoch : 0, text);
    if (rc && rc != -ENOENT) {
        hf_log_warn(g->name, "cannot add that to its history: %s", hf_strerror(rc));
    }
    call_listeners(g, text);
}

int hf_groups_listen(struct hf_groups *gs, hf_group_changed *fn, void *arg)
{
    for (size_t i = 0; i < HF_GROUP_LISTENERS_MAX; i++) {
        if (!gs->listener[i].fn) {
            gs->listener[i].fn = fn;
            gs->listener[i].arg = arg;
            return 0;
        }
    }
    return -HF_EFULL;
}

void hf_groups_unlisten(struct hf_groups *gs, void *arg)
{
    for (size_t i = 0; i < HF_GROUP_LISTENERS_MAX; i++) {
        if (gs->listener[i].arg == arg) {
            gs->listener[i].fn = NULL;
            gs->listener[i].arg = NULL;
        }
    }
}

const struct hf_group_info *hf_groups_info(const struct hf_groups *gs, size_t i)
{
    return i < gs->n_groups ? &gs->group[i]->info : NULL;
}

const struct hf_group_info *hf_groups_find(const struct hf_groups *gs, const char *name)
{
    const struct hf_hgroup *g = hf_groups_get(gs, name);
    return g ? &g->info : NULL;
}

int hf_groups_history(const struct hf_groups *gs, const char *name, struct hf_buf *out)
{
    const struct hf_hgroup *g = hf_groups_get(gs, name);
    return g ? hf_group_store_history(&g->store, out) : -HF_ENOTFOUND;
}

/* ---- sending ---- */

static void forget_unsent(struct hf_hgroup *g)
{
    HF_LIST_FOREACH (node, &g->unsent) {
        hf_list_unlink(node);
        hf_free(HF_CONTAINER_OF(node, struct hf_group_unsent, node));
    }
}

static void send_message(struct hf_hgroup *g, struct hf_slice bytes)
{
    struct hf_engine *e = g->gs->engine;
    int rc = -HF_EFULL;
    if (!g->joined) {
        return; /* the next view asks for everything anew */
    }
    if (hf_list_empty(&g->unsent)) {
        rc = e->ops->multicast(e, g->name, bytes);
    }
    if (rc != -HF_EFULL) {
        return; /* what failed otherwise is lost with the view */
    }
    struct hf_group_unsent *u = hf_alloc(sizeof(*u) + bytes.n);
    if (!u) {
        hf_log_err(g->name, "out of memory for a message; joining the group again");
        g->rejoin = true;
        return;
    }
    memcpy(u->bytes, bytes.p, bytes.n);
    u->n = bytes.n;
    hf_list_insert(&g->unsent, &u->node);
}

static void send_unsent(struct hf_hgroup *g)
{
    struct hf_engine *e = g->gs->engine;
    HF_LIST_FOREACH (node, &g->unsent) {
        struct hf_group_unsent *u = HF_CONTAINER_OF(node, struct hf_group_unsent, node);
        if (!g->joined || e->ops->multicast(e, g->name, hf_slice(u->bytes, u->n)) == -HF_EFULL) {
            return;
        }
        hf_list_unlink(node);
        hf_free(u);
    }
}

/* ---- one step ---- */

static void keep_record(struct hf_hgroup *g, const struct hf_group_act *a)
{
    hf_buf_clear(&g->record);
    hf_buf_add(&g->record, a->bytes);
    g->record_version = a->version;
    g->record_due = true;
}

static void do_act(struct hf_hgroup *g, const struct hf_group_act *a)
{
    switch (a->kind) {
    case HF_GROUP_ACT_SEND:
        send_message(g, a->bytes);
        break;
    case HF_GROUP_ACT_PERSIST:
        keep_record(g, a);
        break;
    case HF_GROUP_ACT_AGENT:
        hf_hgroup_act(g, &a->agent);
        break;
    case HF_GROUP_ACT_FENCE:
        hf_groups_fence(g, a->host);
        break;
    case HF_GROUP_ACT_CONFIG:
        hf_hgroup_config_get(g, a->resource, a->host, a->address);
        break;
    case HF_GROUP_ACT_REJOIN:
        g->rejoin = true;
        break;
    case HF_GROUP_ACT_RESULT:
        hf_groups_commands_result(g->gs, g, a->request, a->rc, a->text);
        break;
    case HF_GROUP_ACT_EVENT:
        tell(g, a->warn, a->text);
        break;
    case HF_GROUP_ACT_LEFT:
        g->left = true;
        break;
    case HF_GROUP_ACT_STOPPED:
        g->stopped = true;
        break;
    }
}

void hf_hgroup_in(struct hf_hgroup *g, const struct hf_group_in *in)
{
    struct hf_group_out *out = &g->gs->out;
    if (!g->core) {
        return;
    }
    bool common = in->kind == HF_GROUP_IN_VIEW || in->kind == HF_GROUP_IN_MESSAGE ||
                  in->kind == HF_GROUP_IN_QUORUM || in->kind == HF_GROUP_IN_LOST;
    hf_group_step(g->core, in, hf_now(), out);
    g->dirty = g->dirty || common || out->n > 0;
    for (uint32_t i = 0; i < out->n; i++) {
        do_act(g, &out->act[i]);
    }
}

static void in_all(struct hf_groups *gs, const struct hf_group_in *in)
{
    for (size_t i = 0; i < gs->n_groups; i++) {
        hf_hgroup_in(gs->group[i], in);
    }
}

/* ---- the engine ---- */

static void on_message(void *arg, const char *group, uint32_t from, struct hf_slice msg)
{
    struct hf_hgroup *g = hf_groups_get(arg, group);
    if (g && g->joined) {
        hf_hgroup_in(g,
                     &(struct hf_group_in){.kind = HF_GROUP_IN_MESSAGE, .from = from, .msg = msg});
    }
}

static void on_view(void *arg, const char *group, const struct hf_engine_view *v)
{
    struct hf_hgroup *g = hf_groups_get(arg, group);
    if (g && g->joined) {
        hf_tracef(HF_TRACE_ENGINE, g->name, "view %llu: %zu members", (unsigned long long)v->ring,
                  v->n_members);
        forget_unsent(g); /* of the view before: they would be ignored */
        hf_hgroup_in(g, &(struct hf_group_in){.kind = HF_GROUP_IN_VIEW, .view = v});
    }
}

static struct hf_group_in quorum_in(const struct hf_groups *gs)
{
    struct hf_group_in in = {.kind = HF_GROUP_IN_QUORUM};
    in.quorate = gs->quorate;
    in.ring = gs->ring;
    return in;
}

static void on_quorum(void *arg, bool quorate, uint64_t ring)
{
    struct hf_groups *gs = arg;
    if (!gs->quorum_known || gs->quorate != quorate) {
        hf_log_info("", "engine: %s", quorate ? "quorate" : "no quorum");
    }
    gs->quorum_known = true;
    gs->quorate = quorate;
    gs->ring = ring;
    struct hf_group_in in = quorum_in(gs);
    in_all(gs, &in);
}

static void lose(struct hf_hgroup *g, hf_time join_at)
{
    g->joined = false;
    g->join_at = join_at;
    forget_unsent(g);
    hf_hgroup_in(g, &(struct hf_group_in){.kind = HF_GROUP_IN_LOST});
}

static void on_lost(void *arg, int rc)
{
    struct hf_groups *gs = arg;
    hf_log_warn("", "engine: all groups are left: %s; joining again", hf_strerror(rc));
    gs->quorum_known = gs->quorate = false;
    for (size_t i = 0; i < gs->n_groups; i++) {
        lose(gs->group[i], hf_now());
    }
}

static void on_engine(void *arg, unsigned events)
{
    (void)events;
    struct hf_groups *gs = arg;
    gs->engine_at = 0; /* hf_groups_leave() dispatches */
    hf_groups_enter(gs);
    hf_groups_leave(gs);
}

static int create_engine(struct hf_groups *gs, struct hf_err *err)
{
    const struct hf_hostd_config *c = gs->h->config;
    struct hf_engine_callbacks callbacks = {
        .message = on_message, .view = on_view, .quorum = on_quorum, .lost = on_lost};
    if (c->engine.type == HF_HOSTD_ENGINE_COROSYNC) {
        struct hf_engine_corosync_opt opt = {.host = c->host.name,
                                             .silence = HF_MS(c->engine.silence_ms),
                                             .callbacks = callbacks,
                                             .arg = gs};
        return hf_engine_corosync_create(&opt, err, &gs->engine);
    }
    uint32_t id = (uint32_t)hf_hash(hf_slice_str(c->host.name), 0);
    struct hf_engine_embedded_opt opt = {.node_id = id ? id : 1,
                                         .host = c->host.name,
                                         .run_dir = *c->engine.run_dir ? c->engine.run_dir : NULL,
                                         .expected_votes = (unsigned)c->engine.expected_votes,
                                         .silence = HF_MS(c->engine.silence_ms),
                                         .callbacks = callbacks,
                                         .arg = gs};
    return hf_engine_embedded_create(&opt, err, &gs->engine);
}

static int open_engine(struct hf_groups *gs, struct hf_err *err)
{
    if (gs->engine) {
        return 0;
    }
    int rc = create_engine(gs, err);
    if (rc) {
        return rc;
    }
    rc = hf_io_create(gs->h->loop, gs->engine->ops->fd(gs->engine), HF_IO_READ, on_engine, gs,
                      &gs->io);
    if (rc) {
        gs->engine->ops->destroy(gs->engine);
        gs->engine = NULL;
        return hf_err_set(err, rc, "cannot watch the engine: %s", hf_strerror(rc));
    }
    gs->engine_at = 0;
    return 0;
}

static const char *join_remedy(const struct hf_groups *gs, int rc)
{
    if (gs->h->config->engine.type != HF_HOSTD_ENGINE_COROSYNC) {
        return "trying again";
    }
    return rc == -HF_ENOTREADY ? "is corosync running? See corosync-cfgtool -s; trying again"
           : rc == -HF_EHELD   ? "another process of this host is in it: is a second holdfastd "
                                 "running? Trying again"
           : rc == -EACCES     ? "corosync does not let us in: see uidgid in corosync.conf(5)"
           : rc == -HF_ECONFIG ? "corosync.conf has no quorum provider: see votequorum(5)"
                               : "trying again";
}

int hf_hgroup_join(struct hf_hgroup *g, struct hf_err *err)
{
    struct hf_groups *gs = g->gs;
    if (g->joined || !g->core) {
        return 0;
    }
    int rc = open_engine(gs, err);
    if (rc == 0) {
        rc = gs->engine->ops->join(gs->engine, g->name);
        gs->engine_at = 0;
        if (rc) {
            hf_err_set(err, rc, "cannot join the engine's group %s: %s; %s", g->name,
                       hf_strerror(rc), join_remedy(gs, rc));
        }
    }
    if (rc) {
        g->join_at = hf_now() + (rc == -HF_EHELD ? JOIN_SOON : JOIN_AGAIN);
        snprintf(g->info.problem, sizeof(g->info.problem), "%s", err->text);
        return rc;
    }
    g->joined = true;
    g->join_at = HF_NEVER;
    g->info.problem[0] = '\0';
    if (gs->quorum_known) {
        struct hf_group_in in = quorum_in(gs);
        hf_hgroup_in(g, &in);
    }
    return 0;
}

static void join_again(struct hf_hgroup *g, hf_time now)
{
    struct hf_err err = {0};
    if (g->joined || !g->core || now < g->join_at) {
        return;
    }
    int rc = hf_hgroup_join(g, &err);
    if (rc != g->join_rc) {
        g->join_rc = rc;
        g->dirty = true;
        if (rc && rc != -HF_EHELD) {
            hf_log_warn(g->name, "%s", err.text);
        }
    }
}

static void leave_engine(struct hf_hgroup *g)
{
    struct hf_engine *e = g->gs->engine;
    if (g->joined) {
        g->joined = false;
        forget_unsent(g);
        int rc = e->ops->leave(e, g->name);
        g->gs->engine_at = 0;
        if (rc) {
            hf_log_warn(g->name, "cannot leave the engine's group: %s", hf_strerror(rc));
        }
    }
    g->join_at = HF_NEVER;
}

/* ---- settling: what steps left to do ---- */

static bool write_record(struct hf_hgroup *g)
{
    struct hf_err err = {0};
    if (!g->record_due) {
        return false;
    }
    g->record_due = false;
    int rc = g->record.err ? g->record.err
                           : hf_group_store_write_record(&g->store, hf_buf_slice(&g->record), &err);
    if (rc != g->record_rc) {
        g->record_rc = rc;
        if (rc) {
            hf_log_err(g->name, "%s; this host runs nothing of the group until it can",
                       *err.text ? err.text : hf_strerror(rc));
        } else {
            hf_log_info(g->name, "its record can be written again");
        }
    }
    struct hf_group_in in = {.kind = HF_GROUP_IN_PERSISTED, .rc = rc};
    in.version = g->record_version;
    hf_hgroup_in(g, &in);
    return true;
}

static void hgroup_destroy(struct hf_hgroup *g)
{
    hf_hgroup_runs_fini(g);
    hf_groups_fences_forget(g);
    forget_unsent(g);
    hf_buf_fini(&g->record);
    hf_group_destroy(g->core);
    hf_free(g);
}

static void remove_group(struct hf_groups *gs, size_t i)
{
    struct hf_hgroup *g = gs->group[i];
    struct hf_err err;
    leave_engine(g);
    if (hf_group_store_remove(&g->store, &err)) {
        hf_log_err(g->name, "%s: remove it, otherwise this host takes itself for a member again",
                   err.text);
    }
    gs->group[i] = gs->group[--gs->n_groups];
    g->info.core = NULL;
    snprintf(g->info.problem, sizeof(g->info.problem), "this host has left the group");
    call_listeners(g, NULL);
    hf_groups_commands_gone(gs, g->name);
    hgroup_destroy(g);
}

/* Leaving and coming back, after the step that asked for it. */
static void settle_membership(struct hf_hgroup *g, hf_time now)
{
    if (g->rejoin) {
        g->rejoin = false;
        leave_engine(g);
        g->join_at = now;
    }
    if (!g->stopped && !g->left) {
        join_again(g, now);
    }
    if (g->stopped) {
        leave_engine(g);
    }
    send_unsent(g);
}

static void dispatch(struct hf_groups *gs, hf_time now)
{
    if (gs->engine && gs->engine_at <= now) {
        int rc = gs->engine->ops->dispatch(gs->engine, now, &gs->engine_at);
        if (rc) {
            hf_log_err("", "engine: %s; trying again", hf_strerror(rc));
            gs->engine_at = now + JOIN_AGAIN;
        }
    }
}

static void tell_changes(struct hf_groups *gs)
{
    for (size_t i = 0; i < gs->n_groups; i++) {
        if (gs->group[i]->dirty) {
            gs->group[i]->dirty = false;
            call_listeners(gs->group[i], NULL);
        }
    }
}

/* Everything that is ready now; what it leads to, too. */
static void settle(struct hf_groups *gs)
{
    bool more = true;
    for (int round = 0; more && round < SETTLE_ROUNDS_MAX; round++) {
        hf_time now = hf_now();
        dispatch(gs, now);
        more = hf_groups_fences_tell(gs);
        hf_groups_commands_tick(gs);
        for (size_t i = 0; i < gs->n_groups; i++) {
            struct hf_hgroup *g = gs->group[i];
            if (g->core && hf_group_deadline(g->core) <= now) {
                hf_hgroup_in(g, &(struct hf_group_in){.kind = HF_GROUP_IN_TIMER});
            }
            more |= hf_hgroup_configs_tell(g);
            more |= hf_hgroup_runs_tick(g, now);
            if (g->record_due) { /* who follows does not wait for the disk: nothing is done before
                                    all have it there */
                tell_changes(gs);
            }
            more |= write_record(g);
            settle_membership(g, now);
        }
        more |= gs->engine && gs->engine_at == 0;
    }
    for (size_t i = 0; i < gs->n_groups;) {
        if (gs->group[i]->left) {
            remove_group(gs, i);
        } else {
            i++;
        }
    }
    hf_groups_commands_tell(gs);
}

static bool all_stopped(const struct hf_groups *gs)
{
    for (size_t i = 0; i < gs->n_groups; i++) {
        if (gs->group[i]->core && !gs->group[i]->stopped) {
            return false;
        }
    }
    return true;
}

static void end_stop(struct hf_groups *gs, hf_time now)
{
    if (gs->stopping && gs->stop_fn && (all_stopped(gs) || now >= gs->stop_at)) {
        void (*fn)(void *arg) = gs->stop_fn;
        gs->stop_fn = NULL;
        if (!all_stopped(gs)) {
            hf_log_warn("", "not all groups have stopped in time; leaving them as they are");
        }
        fn(gs->stop_arg);
    }
}

static void set_timer(struct hf_groups *gs, hf_time now)
{
    hf_time at = gs->n_groups || gs->watchdog ? now + BEAT : HF_NEVER;
    at = gs->engine ? hf_time_min(at, gs->engine_at) : at;
    at = hf_time_min(at, hf_groups_watchdog(gs, now));
    at = gs->stop_fn ? hf_time_min(at, gs->stop_at) : at;
    for (size_t i = 0; i < gs->n_groups; i++) {
        const struct hf_hgroup *g = gs->group[i];
        at = g->core ? hf_time_min(at, hf_group_deadline(g->core)) : at;
        at = g->core && !g->joined ? hf_time_min(at, g->join_at) : at;
        at = hf_list_empty(&g->unsent) ? at : hf_time_min(at, now + SEND_AGAIN);
        at = hf_time_min(at, hf_hgroup_runs_deadline(g, now));
    }
    hf_timer_set(gs->timer, at);
}

void hf_groups_enter(struct hf_groups *gs)
{
    if (gs->depth++ > 0) {
        return;
    }
    hf_time now = hf_now(), gap = HF_MS(gs->h->config->engine.silence_ms);
    hf_time away = gs->seen_at ? now - gs->seen_at : 0;
    gs->seen_at = now;
    if (gs->n_groups > 0 && away > (gap ? gap : HF_S(1))) {
        hf_log_warn("", "this process did not run for %lld ms: finding out whether others went on",
                    (long long)(away / HF_NS_PER_MS));
        in_all(gs, &(struct hf_group_in){.kind = HF_GROUP_IN_GAP});
    }
}

void hf_groups_leave(struct hf_groups *gs)
{
    if (gs->depth == 1) {
        do {
            gs->again = false;
            settle(gs);
            tell_changes(gs);
        } while (gs->again);
        hf_time now = hf_now();
        if (gs->n_groups == 0) {
            gs->seen_at = 0; /* no beat, no pauses */
        }
        set_timer(gs, now);
        end_stop(gs, now);
    }
    gs->depth--;
}

static void on_timer(void *arg)
{
    hf_groups_enter(arg);
    hf_groups_leave(arg);
}

/* ---- life of a group ---- */

int hf_groups_allowed(const struct hf_groups *gs, struct hf_err *err)
{
    if (*gs->h->config->user) {
        return hf_err_set(err, -EPERM,
                          "groups run agents and fence hosts, for which holdfastd must stay root: "
                          "remove \"user\" from %s",
                          gs->h->config_path ? gs->h->config_path : "its configuration");
    }
    if (!*gs->address) {
        return hf_err_set(err, -HF_ECONFIG,
                          "set host.address in %s: the others of a group must know where to reach "
                          "this host",
                          gs->h->config_path ? gs->h->config_path : "the configuration");
    }
    return 0;
}

static int random_number(uint64_t *ret_n, struct hf_err *err)
{
    do {
        if (getrandom(ret_n, sizeof(*ret_n), 0) != sizeof(*ret_n)) {
            return hf_err_set(err, -EIO, "no random numbers from the kernel");
        }
    } while (*ret_n == 0);
    return 0;
}

static bool may_run_here(const struct hf_gstate *s, const char *host, uint8_t resource)
{
    for (uint8_t m = 0; m < s->n_members; m++) {
        if (strcmp(s->member[m].host, host) == 0) {
            return (s->member[m].dirty >> resource & 1) != 0;
        }
    }
    return false;
}

/* Which configurations of what the record names are here; the core must know before its first
 * step, and takes what has none for what was never here: so that must not be in doubt. */
static int find_configs(struct hf_hgroup *g, struct hf_slice record,
                        uint64_t ret_hash[static HF_GROUP_RESOURCES_MAX], struct hf_err *err)
{
    struct hf_gstate *s = hf_alloc(sizeof(*s));
    struct hf_buf text;
    if (!s) {
        return -ENOMEM;
    }
    hf_buf_init(&text, HF_CONF_FILE_MAX);
    int rc = hf_gstate_decode(record, s);
    for (uint8_t i = 0; rc == 0 && i < s->n_resources; i++) {
        const struct hf_gresource *r = &s->resource[i];
        hf_buf_clear(&text);
        if (hf_group_store_read_config(&g->store, r->name, &text) == 0) {
            ret_hash[i] = hf_group_def_hash(hf_buf_slice(&text));
        }
        if (ret_hash[i] != r->config_hash && r->config_hash &&
            may_run_here(s, g->gs->h->config->host.name, i)) {
            rc = hf_err_set(err, -HF_ECONFIG,
                            "%.80s/config/%s is not there or was changed, but the resource may be "
                            "running; stop it, remove %.80s and join anew",
                            g->store.dir, r->name, g->store.dir);
        }
    }
    hf_buf_fini(&text);
    hf_free(s);
    return rc;
}

/* The core on its record. What can't be read is never guessed: this host then takes no part. */
static int create_core(struct hf_hgroup *g, struct hf_err *err)
{
    struct hf_groups *gs = g->gs;
    uint64_t hash[HF_GROUP_RESOURCES_MAX] = {0};
    struct hf_group_conf conf = {.name = g->name,
                                 .host = gs->h->config->host.name,
                                 .address = gs->address,
                                 .incarnation = gs->incarnation,
                                 .boot_ms = (uint32_t)gs->h->config->group.boot_wait_ms,
                                 .config_hash = hash};
    struct hf_buf record;
    int rc = random_number(&conf.seed, err);
    if (rc) {
        return rc;
    }
    hf_buf_init(&record, HF_GSTATE_LEN_MAX);
    rc = hf_group_store_read_record(&g->store, &record);
    bool none = rc == -ENOENT;
    rc = none ? 0 : rc;
    if (rc == 0 && !none) { /* an empty file is no record either */
        rc = record.n ? find_configs(g, hf_buf_slice(&record), hash, err) : -HF_ETRUNC;
    }
    if (rc == 0) {
        rc = hf_group_create(&conf, hf_buf_slice(&record), hf_now(), &g->core);
    }
    hf_buf_fini(&record);
    if (rc == 0) {
        g->info.core = g->core;
    } else if (!*err->text) {
        hf_err_set(err, rc,
                   "its record in %.80s can't be read: %s; this host takes no part in the group. "
                   "Mend it, or remove that directory and join anew",
                   g->store.dir, hf_strerror(rc));
    }
    return rc;
}

int hf_hgroup_create(struct hf_groups *gs, const char *name, struct hf_err *err,
                     struct hf_hgroup **ret_g)
{
    if (gs->n_groups == HF_GROUPS_MAX) {
        return hf_err_set(err, -HF_EFULL,
                          "this host has %d groups already, and more are not "
                          "possible",
                          HF_GROUPS_MAX);
    }
    struct hf_hgroup *g = hf_alloc(sizeof(*g));
    if (!g) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    g->gs = gs;
    snprintf(g->name, sizeof(g->name), "%s", name);
    g->info.name = g->name;
    hf_list_init(&g->unsent);
    hf_buf_init(&g->record, HF_GSTATE_LEN_MAX);
    hf_hgroup_runs_init(g);
    int rc = hf_group_store_init(&g->store, gs->h->config->state.dir, name, err);
    rc = rc ? rc : create_core(g, err);
    if (rc) {
        snprintf(g->info.problem, sizeof(g->info.problem), "%s", err->text);
    }
    if (rc == -ENOMEM || rc == -EIO || rc == -ENAMETOOLONG) {
        hgroup_destroy(g);
        return rc;
    }
    gs->group[gs->n_groups++] = g;
    *ret_g = g;
    return rc;
}

/* What runs goes on running, but not by us. */
static void take_no_part(struct hf_hgroup *g, const char *why)
{
    snprintf(g->info.problem, sizeof(g->info.problem), "%s", why);
    hf_group_destroy(g->core);
    g->core = NULL;
    g->info.core = NULL;
}

static int load_all(struct hf_groups *gs, struct hf_err *err)
{
    hf_group_name name[HF_GROUPS_MAX];
    size_t n;
    int rc = hf_group_store_list(gs->h->config->state.dir, err, name, &n);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct hf_hgroup *g = NULL;
        struct hf_err why = {0};
        int bad = hf_hgroup_create(gs, name[i], &why, &g);
        if (!bad && g) {
            bad = hf_groups_allowed(gs, &why);
            if (bad) {
                take_no_part(g, why.text);
            }
        }
        if (bad) {
            hf_log_err(name[i], "%s", why.text);
        }
        rc = bad && !g ? hf_err_set(err, bad, "group %s: %s", name[i], why.text) : 0;
    }
    return rc;
}

static void set_address(struct hf_groups *gs)
{
    const struct hf_addr *a = &gs->h->config->host.address;
    const struct sockaddr_in *v4 = (const void *)&a->ss;
    const struct sockaddr_in6 *v6 = (const void *)&a->ss;
    bool is_v6 = a->ss.ss_family == AF_INET6;
    if (a->len > 0) {
        inet_ntop(a->ss.ss_family, is_v6 ? (const void *)&v6->sin6_addr : &v4->sin_addr,
                  gs->address, sizeof(gs->address));
    }
}

int hf_groups_open(struct hf_hostd *h, struct hf_err *err, struct hf_groups **ret_groups)
{
    struct hf_groups *gs = hf_alloc(sizeof(*gs));
    if (!gs) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    gs->h = h;
    hf_list_init(&gs->agents);
    hf_list_init(&gs->commands);
    hf_list_init(&gs->fences);
    set_address(gs);
    int rc = random_number(&gs->incarnation, err);
    if (rc == 0 && hf_timer_create(h->loop, on_timer, gs, &gs->timer)) {
        rc = hf_err_set(err, -ENOMEM, "out of memory");
    }
    rc = rc ? rc : load_all(gs, err);
    if (rc) {
        hf_groups_close(gs);
        return rc;
    }
    hf_groups_enter(gs);
    hf_groups_leave(gs);
    *ret_groups = gs;
    return 0;
}

void hf_groups_close(struct hf_groups *gs)
{
    if (!gs) {
        return;
    }
    gs->depth++; /* nothing begins any more */
    hf_groups_commands_fini(gs);
    hf_groups_watchdog_close(gs);
    for (size_t i = 0; i < gs->n_groups; i++) {
        hgroup_destroy(gs->group[i]);
    }
    hf_groups_fences_fini(gs);
    hf_group_agents_fini(gs);
    hf_io_destroy(gs->io);
    if (gs->engine) {
        gs->engine->ops->destroy(gs->engine);
    }
    hf_timer_destroy(gs->timer);
    hf_free(gs);
}

void hf_groups_stop(struct hf_groups *gs, hf_time time_max, void (*fn)(void *arg), void *arg)
{
    gs->stopping = true;
    gs->stop_at = hf_now() + time_max;
    gs->stop_fn = fn;
    gs->stop_arg = arg;
    hf_groups_enter(gs);
    in_all(gs, &(struct hf_group_in){.kind = HF_GROUP_IN_STOP});
    hf_groups_leave(gs);
}
