/* Agents of this host's groups: what the cores ask for, and what recurs (monitors, mirrors,
 * access).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "hostd/group_impl.h"

#define AGENTS_DIR "/run/resource-agents"
#define META_TIME HF_S(30)
#define META_AGAIN HF_S(10)    /* meta-data that could not be read is tried again */
#define ACTION_TIME HF_S(60)   /* neither definition nor agent says more */
#define MONITOR_EVERY HF_S(10) /* likewise */
#define ACCESS_EVERY HF_S(10)
#define STATE_EVERY HF_S(2)      /* mirror-state: all is in sync */
#define STATE_SYNCING HF_S(1)    /* somebody is not */
#define STATE_AGAIN HF_MS(5)     /* the agent waits itself until there is something new */
#define STATE_GROWING HF_MS(250) /* commits wait for somebody to be taken in */
#define PARAMS_MAX 256
#define ENV_MAX 16
#define MIRRORS_LEN (HF_GROUP_COPIES_MAX * 180UL)

/* ---- agents ---- */

static void on_meta(void *arg, int rc, const struct hf_err *err, struct hf_ocf_meta *m)
{
    struct hf_group_agent *a = arg;
    hf_groups_enter(a->gs);
    a->run = NULL;
    a->meta = m;
    a->rc = rc;
    if (rc) {
        a->err = *err;
        hf_log_err(a->name, "cannot read its meta-data: %s", err->text);
    }
    hf_groups_leave(a->gs);
}

/* Where agents keep state, usually made at boot by systemd-tmpfiles of resource-agents. */
static void make_agents_dir(void)
{
    if (mkdir(AGENTS_DIR, 0755) == 0 && chmod(AGENTS_DIR, 01755)) { /* whatever the umask */
        hf_log_warn("", "%s: %s", AGENTS_DIR, strerror(errno));
    }
}

static void read_meta(struct hf_group_agent *a)
{
    make_agents_dir();
    a->tried_at = hf_now();
    a->rc = hf_ocf_find(a->gs->h->config->agents.root, a->name, &a->at, &a->err);
    if (a->rc == 0) {
        a->rc = hf_ocf_meta_start(a->gs->h->loop, &a->at, META_TIME, on_meta, a, &a->run);
        if (a->rc) {
            hf_err_set(&a->err, a->rc, "%s", hf_strerror(a->rc));
        }
    }
}

struct hf_group_agent *hf_group_agent_get(struct hf_groups *gs, const char *name)
{
    HF_LIST_FOREACH (node, &gs->agents) {
        struct hf_group_agent *a = HF_CONTAINER_OF(node, struct hf_group_agent, node);
        if (strcmp(a->name, name) == 0) {
            if (a->rc && !a->run && hf_now() >= a->tried_at + META_AGAIN) {
                read_meta(a); /* it may have been installed since */
            }
            return a;
        }
    }
    struct hf_group_agent *a = hf_alloc(sizeof(*a));
    if (a) {
        a->gs = gs;
        snprintf(a->name, sizeof(a->name), "%s", name);
        hf_list_insert(&gs->agents, &a->node);
        read_meta(a);
    }
    return a;
}

void hf_group_agents_fini(struct hf_groups *gs)
{
    HF_LIST_FOREACH (node, &gs->agents) {
        struct hf_group_agent *a = HF_CONTAINER_OF(node, struct hf_group_agent, node);
        hf_list_unlink(node);
        hf_ocf_kill(a->run);
        hf_ocf_meta_destroy(a->meta);
        hf_free(a);
    }
}

/* ---- runs ---- */

void hf_hgroup_runs_init(struct hf_hgroup *g)
{
    for (uint8_t i = 0; i < HF_GROUP_RESOURCES_MAX; i++) {
        g->run[i] = (struct hf_group_run){.g = g, .i = i};
    }
}

/* Not while it does something. What it has prepared is of no effect. */
static void disarm(struct hf_group_run *r)
{
    hf_ocf_kill(r->armed);
    r->armed = NULL;
    r->armed_for = HF_OP_NONE;
}

static void run_fini(struct hf_group_run *r)
{
    if (r->proc != r->armed) {
        hf_ocf_kill(r->proc);
    }
    disarm(r);
    hf_proc_watch_destroy(r->watch);
    hf_group_run_forget_config(r);
}

void hf_hgroup_runs_fini(struct hf_hgroup *g)
{
    for (uint8_t i = 0; i < HF_GROUP_RESOURCES_MAX; i++) {
        run_fini(&g->run[i]);
    }
}

static const struct hf_gresource *resource_of(const struct hf_group_run *r)
{
    const struct hf_gstate *s = hf_group_state(r->g->core);
    return s && r->i < s->n_resources ? &s->resource[r->i] : NULL;
}

static uint8_t role_of(const struct hf_group_run *r)
{
    uint8_t self = hf_group_self(r->g->core);
    return self == HF_GROUP_NONE ? HF_ROLE_UNKNOWN : hf_group_role(r->g->core, self, r->i);
}

static bool is_primary_role(uint8_t role)
{
    return role == HF_ROLE_PROMOTED || role == HF_ROLE_OPEN;
}

/* The role's name in meta-data. */
static const char *role_word(const struct hf_gresource *res, uint8_t role)
{
    return !(res->flags & HF_RESOURCE_PROMOTABLE) ? ""
           : is_primary_role(role)                ? "Promoted"
                                                  : "Unpromoted";
}

static const char *action_name(const struct hf_group_run *r, const struct hf_group_agent *a)
{
    switch (r->what) {
    case HF_RUN_MONITOR:
        return "monitor";
    case HF_RUN_MIRROR_STATE:
        return "mirror-state";
    case HF_RUN_ACCESS:
        break;
    case HF_RUN_ACT:
        if (r->act.op == HF_OP_ACCESS) {
            break;
        }
        if (r->act.op == HF_OP_PREPARE) {
            return is_primary_role(role_of(r)) ? "prepare-demote" : "prepare-promote";
        }
        return hf_op_name(r->act.op);
    case HF_RUN_NONE:
        return "";
    }
    return a->meta->flags & HF_OCF_ACCESS         ? "access"
           : a->meta->flags & HF_OCF_VALIDATE_ALL ? "validate-all"
                                                  : "";
}

/* ---- parameters and environment ---- */

struct surroundings {
    struct hf_ocf_pair param[PARAMS_MAX], env[ENV_MAX];
    size_t n_params, n_env;
    char instance[HF_GROUP_NAME_MAX + HF_GROUP_RESOURCE_NAME_MAX + 2];
    char probe[HF_GROUP_PROBE_MAX + 1];
    char epoch[24], mirrors[MIRRORS_LEN], source[200];
};

/* Without the configuration: what all members know of it, "a=b c=d". */
static void probe_params(const struct hf_gresource *res, struct surroundings *s)
{
    char *rest = NULL;
    snprintf(s->probe, sizeof(s->probe), "%s", res->probe);
    for (char *word = strtok_r(s->probe, " ", &rest); word && s->n_params < PARAMS_MAX;
         word = strtok_r(NULL, " ", &rest)) {
        char *eq = strchr(word, '=');
        if (eq) {
            *eq = '\0';
            s->param[s->n_params++] = (struct hf_ocf_pair){word, eq + 1};
        }
    }
}

static void all_params(const struct hf_group_def_resource *def, struct surroundings *s)
{
    for (size_t i = 0; i < def->params.n && s->n_params < PARAMS_MAX; i++) {
        s->param[s->n_params++] =
            (struct hf_ocf_pair){def->params.pair[i].name, def->params.pair[i].value};
    }
}

static void add_env(struct surroundings *s, const char *name, const char *value)
{
    s->env[s->n_env++] = (struct hf_ocf_pair){name, value};
}

/* id=host@address of a copy; "" if nobody hosts it. */
static void place_of(const struct hf_gstate *s, uint8_t copy, char *buf, size_t n)
{
    uint8_t host = copy < s->n_resources ? s->resource[copy].host : HF_GROUP_NONE;
    buf[0] = '\0';
    if (host < s->n_members) {
        snprintf(buf, n, "%s=%s@%s", s->resource[copy].name, s->member[host].host,
                 s->member[host].address);
    }
}

/* Modes by copy: a grow one is in sync, too. */
static void add_mirrors(const struct hf_gstate *s, const struct hf_group_agent_act *act,
                        char out[MIRRORS_LEN])
{
    for (uint8_t i = 0; i < s->n_resources; i++) {
        char place[200];
        size_t n = strlen(out);
        const char *mode = act->grow >> i & 1    ? "grow"
                           : act->sync >> i & 1  ? "sync"
                           : act->async >> i & 1 ? "async"
                                                 : NULL;
        place_of(s, i, place, sizeof(place));
        if (mode && *place) {
            snprintf(out + n, MIRRORS_LEN - n, "%s%s=%s", n ? " " : "", place, mode);
        } else if (act->sync >> i &
                   1) { /* in S, and nobody has it now: commits wait all the same */
            snprintf(out + n, MIRRORS_LEN - n, "%s%s==sync", n ? " " : "", s->resource[i].name);
        }
    }
}

static void set_mirrors(const struct hf_group_run *r, const struct hf_gstate *state,
                        struct surroundings *s)
{
    bool act = r->what == HF_RUN_ACT;
    bool target = act ? r->act.op == HF_OP_MIRROR_TARGET
                      : r->what == HF_RUN_MIRROR_STATE && !is_primary_role(role_of(r));
    struct hf_group_agent_act now = r->act;
    if (!act) {
        hf_group_mirrored(r->g->core, &now.sync, &now.async);
    }
    if (target) {
        place_of(state, act ? r->act.source : state->primary, s->source, sizeof(s->source));
        add_env(s, "HOLDFAST_SOURCE", s->source);
    } else {
        add_mirrors(state, &now, s->mirrors);
        add_env(s, "HOLDFAST_MIRRORS", s->mirrors);
    }
}

static void surround(struct hf_group_run *r, const struct hf_gresource *res,
                     const struct hf_group_def_resource *def, struct surroundings *s)
{
    const struct hf_gstate *state = hf_group_state(r->g->core);
    bool act = r->what == HF_RUN_ACT;
    s->n_params = s->n_env = 0;
    s->mirrors[0] = s->source[0] = '\0';
    if (def) {
        all_params(def, s);
    } else {
        probe_params(res, s);
    }
    snprintf(s->instance, sizeof(s->instance), "%s.%s", r->g->name, res->name);
    snprintf(s->epoch, sizeof(s->epoch), "%llu",
             (unsigned long long)(act ? r->act.epoch : state->epoch));
    add_env(s, "HOLDFAST_GROUP", r->g->name);
    add_env(s, "HOLDFAST_HOST", r->g->gs->h->config->host.name);
    add_env(s, "HOLDFAST_RESOURCE", res->name);
    add_env(s, "HOLDFAST_EPOCH", s->epoch);
    add_env(s, "HOLDFAST_INIT", act && r->act.init ? "yes" : "no");
    add_env(s, "HOLDFAST_OVERWRITE", act && r->act.overwrite ? "yes" : "no");
    add_env(s, "HOLDFAST_SILENT", act && r->act.silent ? "yes" : "no");
    add_env(s, "HOLDFAST_DEGRADED", state->degraded_refuse ? "refuse" : "allow");
    add_env(s, "HOLDFAST_FENCE", res->flags & HF_RESOURCE_FENCE_NONE ? "none" : "required");
    set_mirrors(r, state, s);
}

/* ---- outcomes ---- */

/* Text of an agent for people: its secrets don't leave this host's disk. */
static void take_text(struct hf_group_run *r, const char *text)
{
    hf_group_def_hide(r->def ? hf_group_def_at(r->def, 0) : NULL, text, r->text, sizeof(r->text));
}

/* What is it like without it? The next monitor would be too late. */
static void on_process_end(void *arg)
{
    struct hf_group_run *r = arg;
    struct hf_groups *gs = r->g->gs;
    hf_groups_enter(gs);
    hf_proc_watch_destroy(r->watch);
    r->watch = NULL;
    r->watched = 0;
    if (r->monitor_at != 0 && r->monitor_at != HF_NEVER) {
        r->monitor_at = hf_now();
    }
    hf_groups_leave(gs);
}

/* Is it this: "holdfast-process: PID"? */
static void take_process_line(struct hf_group_run *r, struct hf_slice line)
{
    static const char head[] = "holdfast-process: ";
    char number[16];
    if (!hf_slice_starts(line, hf_slice_str(head))) {
        return;
    }
    snprintf(number, sizeof(number), "%.*s", (int)(line.n - (sizeof(head) - 1)),
             (const char *)line.p + sizeof(head) - 1);
    long pid = strtol(number, NULL, 10);
    if (pid <= 1 || pid == r->watched) {
        return;
    }
    hf_proc_watch_destroy(r->watch);
    r->watch = NULL;
    r->watched = 0;
    if (hf_proc_watch_create(r->g->gs->h->loop, pid, on_process_end, r, &r->watch) == 0) {
        r->watched = pid;
    }
}

/* Is it this: "holdfast-fence: TEXT"? */
static void take_fence_line(struct hf_group_run *r, struct hf_slice line)
{
    static const char head[] = "holdfast-fence: ";
    if (hf_slice_starts(line, hf_slice_str(head))) {
        size_t len = line.n - (sizeof(head) - 1);
        len = len > HF_GROUP_FENCE_TEXT_MAX ? HF_GROUP_FENCE_TEXT_MAX : len;
        snprintf(r->text, sizeof(r->text), "%.*s", (int)len,
                 (const char *)line.p + sizeof(head) - 1);
    }
}

/* What an action printed for us. */
static void take_output(struct hf_group_run *r, struct hf_slice out)
{
    bool promoted = r->what == HF_RUN_ACT && r->act.op == HF_OP_PROMOTE;
    while (out.n) {
        const uint8_t *end = memchr(out.p, '\n', out.n);
        size_t n = end ? (size_t)(end - out.p) : out.n;
        if (promoted) {
            take_fence_line(r, hf_slice(out.p, n));
        }
        take_process_line(r, hf_slice(out.p, n));
        n += end ? 1 : 0;
        out = hf_slice(out.p + n, out.n - n);
    }
}

static void note_error(struct hf_group_run *r, uint8_t op)
{
    char *error = r->g->info.error[r->i];
    bool probe = op == HF_OP_MONITOR || op == HF_OP_ACCESS;
    if (probe) {
        return; /* what it means is the core's to say */
    }
    if (r->rc == 0) {
        error[0] = '\0';
    } else {
        const char *words = hf_ocf_rc_text(r->rc);
        snprintf(error, HF_GROUP_TEXT_MAX + 1, "%s: %.120s", hf_op_name(op),
                 *r->text ? r->text
                 : words  ? words
                          : "failed");
        hf_log_warn(r->g->name, "%s: %s", r->name, error);
    }
}

/* Hosts without a copy are as usual as those that should have it: news, not an error. */
static void note_access(struct hf_group_run *r)
{
    if (r->rc == 0) {
        r->access_text[0] = '\0';
    } else if (strcmp(r->access_text, r->text) != 0) {
        snprintf(r->access_text, sizeof(r->access_text), "%s", r->text);
        hf_log_info(r->g->name, "%s is not reached from here: %s", r->name, r->text);
    }
}

/* For a look at the mirrors at once, but those that have just been told to follow need time: that
 * they do not follow yet would put them out of S. */
static hf_time look_since(const struct hf_group_run *r, uint8_t role, hf_time now)
{
    const struct hf_gstate *s = hf_group_state(r->g->core);
    bool aimed = role == HF_ROLE_PROMOTED; /* nobody has been told yet */
    for (uint8_t i = 0; i < s->n_resources; i++) {
        aimed = aimed || (s->resource[i].mirror == HF_MIRROR_AIMED && (s->in_sync >> i & 1));
    }
    return aimed ? now : 0;
}

/* The run is free again; the core gets what has become of it. */
static void done(struct hf_group_run *r)
{
    struct hf_group_in in = {.kind = HF_GROUP_IN_DONE, .rc = r->rc};
    char text[sizeof(r->text)];
    bool act = r->what == HF_RUN_ACT;
    in.resource = r->i;
    in.op = act ? r->act.op : r->what == HF_RUN_ACCESS ? HF_OP_ACCESS : HF_OP_MONITOR;
    in.serial = act ? r->act.serial : 0;
    if (act && r->act.op != HF_OP_MONITOR) {
        note_error(r, r->act.op);
    }
    if (in.op == HF_OP_ACCESS) {
        note_access(r);
    }
    snprintf(text, sizeof(text), "%s", r->text);
    in.text = hf_slice_str(text);
    r->what = HF_RUN_NONE;
    if (act && r->state_since != HF_NEVER) {
        r->state_since = look_since(r, role_of(r), hf_now()); /* it may have changed its mirrors */
    }
    hf_hgroup_in(r->g, &in);
}

/* It could not even be started: the core is told in the next round. */
static void end_at_once(struct hf_group_run *r, int rc, const char *text)
{
    r->rc = rc;
    take_text(r, text);
}

/* ---- mirrors ---- */

static uint8_t seen_of(char *words, struct hf_group_mirror_info *ret_info)
{
    static const char *const names[HF_SEEN_COUNT_] = {
        [HF_SEEN_SYNCING] = "syncing", [HF_SEEN_CAUGHT_UP] = "caught-up",
        [HF_SEEN_IN_SYNC] = "in-sync", [HF_SEEN_SUSPENDED] = "suspended",
        [HF_SEEN_FAILED] = "failed",
    };
    char *rest = NULL;
    const char *word = strtok_r(words, " \t", &rest);
    *ret_info = (struct hf_group_mirror_info){.percent = 255};
    for (uint8_t s = 0; word && s < HF_SEEN_COUNT_; s++) {
        if (names[s] && strcmp(word, names[s]) == 0) {
            ret_info->seen = s;
        }
    }
    if (ret_info->seen == HF_SEEN_SYNCING && rest && *rest >= '0' && *rest <= '9') {
        unsigned long percent = strtoul(rest, NULL, 10);
        ret_info->percent = percent > 100 ? 100 : (uint8_t)percent;
    } else if (rest) {
        snprintf(ret_info->reason, sizeof(ret_info->reason), "%s", rest);
    }
    return ret_info->seen;
}

static void take_mirror_line(struct hf_group_run *r, struct hf_slice line,
                             struct hf_group_mirror_info info[HF_GROUP_RESOURCES_MAX])
{
    const struct hf_gstate *s = hf_group_state(r->g->core);
    char text[256];
    snprintf(text, sizeof(text), "%.*s", HF_SLICE_FMT(line));
    char *rest = NULL;
    const char *name = strtok_r(text, " \t", &rest);
    for (uint8_t i = 0; name && rest && i < s->n_resources; i++) {
        if (strcmp(s->resource[i].name, name) == 0) {
            (void)seen_of(rest, &info[i]);
        }
    }
}

static hf_time state_every(const struct hf_gstate *s);

/* Each copy as its line says; one without a line is not seen at all. */
static void take_mirror_state(struct hf_group_run *r, struct hf_slice out)
{
    struct hf_group_mirror_info info[HF_GROUP_RESOURCES_MAX];
    const struct hf_gstate *s = hf_group_state(r->g->core);
    bool source = is_primary_role(role_of(r));
    memset(info, 0, sizeof(info)); /* padding, too: they are compared whole */
    while (out.n) {
        const uint8_t *end = memchr(out.p, '\n', out.n);
        size_t n = end ? (size_t)(end - out.p) : out.n;
        if (hf_slice_eq(hf_slice(out.p, n), hf_slice_str("holdfast-again"))) {
            r->state_since = hf_now() - state_every(s) + STATE_AGAIN;
        }
        take_mirror_line(r, hf_slice(out.p, n), info);
        n += end ? 1 : 0;
        out = hf_slice(out.p + n, out.n - n);
    }
    for (uint8_t i = 0; i < s->n_resources; i++) {
        bool copy = s->resource[i].kind == HF_RESOURCE_COPY;
        if (!copy || (source ? i == r->i : i != r->i)) {
            continue;
        }
        struct hf_group_mirror_info *had = &r->g->info.mirror[i];
        r->g->dirty = r->g->dirty || memcmp(had, &info[i], sizeof(*had)) != 0;
        *had = info[i];
        struct hf_group_in in = {.kind = HF_GROUP_IN_MIRROR};
        in.resource = i;
        in.seen = info[i].seen;
        in.text = hf_slice_str(info[i].reason);
        hf_hgroup_in(r->g, &in);
        s = r->g->core ? hf_group_state(r->g->core) : NULL;
        if (!s) {
            return; /* that was the end of our membership */
        }
    }
}

static void on_done(void *arg, const struct hf_ocf_result *res)
{
    struct hf_group_run *r = arg;
    struct hf_groups *gs = r->g->gs;
    hf_groups_enter(gs);
    r->proc = NULL;
    r->rc = res->rc;
    take_text(r, res->reason);
    hf_tracef(HF_TRACE_PROC, r->g->name, "%s: %s, %lld ms: %d %s", r->name,
              r->what == HF_RUN_ACT ? hf_op_name(r->act.op) : "recurring",
              (long long)(res->duration / HF_NS_PER_MS), res->rc, r->text);
    if (r->what == HF_RUN_MIRROR_STATE && res->rc == HF_OCF_NOT_RUNNING) {
        r->what = HF_RUN_MONITOR; /* it would say the same */
        done(r);
    } else if (r->what == HF_RUN_MIRROR_STATE) {
        r->what = HF_RUN_NONE;
        if (res->rc == 0) {
            take_mirror_state(r, res->out);
        }
    } else {
        if (r->what == HF_RUN_ACT && r->act.op == HF_OP_PROMOTE && res->rc == 0) {
            r->text[0] = '\0';
        }
        if (res->rc == HF_OCF_SUCCESS || res->rc == HF_OCF_RUNNING_PROMOTED) {
            take_output(r, res->out);
        }
        done(r);
    }
    hf_groups_leave(gs);
}

/* ---- starting ---- */

static void on_armed_line(void *arg, struct hf_slice line);
static void on_armed_end(void *arg, const struct hf_ocf_result *res);

/* A resource without agent: only the role is. */
static void run_leadership(struct hf_group_run *r)
{
    int rc = 0;
    if (r->what == HF_RUN_MONITOR || r->act.op == HF_OP_MONITOR) {
        rc = r->leads ? HF_OCF_SUCCESS : HF_OCF_NOT_RUNNING;
    } else if (r->what == HF_RUN_ACT && r->act.op == HF_OP_START) {
        r->leads = true;
    } else if (r->what == HF_RUN_ACT && r->act.op == HF_OP_STOP) {
        r->leads = false;
    }
    end_at_once(r, rc, "");
}

/* What the agent's meta-data, as far as it is known, says of an action in our role; or NULL. */
static const struct hf_ocf_action *advice(const struct hf_group_run *r,
                                          const struct hf_gresource *res,
                                          const struct hf_group_agent *a, const char *action)
{
    return a->meta ? hf_ocf_meta_action(a->meta, action, role_word(res, role_of(r))) : NULL;
}

static hf_time time_of(const struct hf_group_run *r, const struct hf_gresource *res,
                       const struct hf_group_agent *a, const struct hf_group_def_resource *def,
                       const char *action)
{
    int64_t ms = def ? hf_group_def_timeout(def, action) : 0;
    const struct hf_ocf_action *advised = advice(r, res, a, action);
    return ms ? HF_MS(ms) : advised && advised->timeout > 0 ? advised->timeout : ACTION_TIME;
}

static hf_time monitor_every(struct hf_group_run *r, const struct hf_gresource *res,
                             const struct hf_group_agent *a)
{
    const struct hf_group_def_resource *def = hf_group_run_def(r);
    const struct hf_ocf_action *advised = advice(r, res, a, "monitor");
    return def && def->monitor_ms             ? HF_MS(def->monitor_ms)
           : advised && advised->interval > 0 ? advised->interval
                                              : MONITOR_EVERY;
}

static void start_agent(struct hf_group_run *r, const struct hf_gresource *res,
                        const struct hf_group_agent *a)
{
    struct surroundings s;
    struct hf_err err = {0};
    const struct hf_group_def_resource *def = hf_group_run_def(r);
    const char *action = action_name(r, a);
    bool access = r->what == HF_RUN_ACCESS || (r->what == HF_RUN_ACT && r->act.op == HF_OP_ACCESS);
    bool prepare = r->what == HF_RUN_ACT && r->act.op == HF_OP_PREPARE;
    if (prepare && (r->armed || !(a->meta && a->meta->flags & HF_OCF_PREPARE))) {
        end_at_once(r, HF_OCF_SUCCESS, ""); /* it has been done, or is done at the switch */
        return;
    }
    if (!*action) {
        end_at_once(r, HF_OCF_SUCCESS, ""); /* no way to tell: the start will */
        return;
    }
    if (!def && !access) {
        end_at_once(r, HF_OCF_ERR_GENERIC, "its configuration is not on this host");
        return;
    }
    surround(r, res, def, &s);
    const struct hf_ocf_action *advised = advice(r, res, a, action);
    struct hf_ocf_opt opt = {.agent = &a->at,
                             .instance = s.instance,
                             .action = action,
                             .params = s.param,
                             .n_params = s.n_params,
                             .env = s.env,
                             .n_env = s.n_env,
                             .timeout = time_of(r, res, a, def, action),
                             .interval = r->what == HF_RUN_MONITOR ? monitor_every(r, res, a) : 0,
                             .on_node = r->g->gs->h->config->host.name,
                             .check_level = advised ? advised->depth : 0,
                             .promotable = (res->flags & HF_RESOURCE_PROMOTABLE) != 0,
                             .line = prepare ? on_armed_line : NULL};
    if (hf_ocf_start(r->g->gs->h->loop, &opt, prepare ? on_armed_end : on_done, r, &err,
                     &r->proc)) {
        end_at_once(r, HF_OCF_ERR_GENERIC, err.text);
    } else if (prepare) {
        r->armed = r->proc;
        r->armed_for = HF_OP_NONE;
    }
}

/* r->what is set. */
static void start(struct hf_group_run *r, const struct hf_gresource *res)
{
    struct hf_group_agent *a = NULL;
    r->proc = NULL;
    if (!*res->agent) {
        run_leadership(r);
        return;
    }
    a = hf_group_agent_get(r->g->gs, res->agent);
    if (!a || a->rc) {
        end_at_once(r, HF_OCF_ERR_INSTALLED, a ? a->err.text : "out of memory");
        return;
    }
    start_agent(r, res, a);
}

/* ---- processes that were started before ---- */

static void armed_did(struct hf_group_run *r, uint8_t next)
{
    hf_tracef(HF_TRACE_PROC, r->g->name, "%s: %s by a process that was there", r->name,
              hf_op_name(r->act.op));
    hf_ocf_limit(r->armed, 0);
    r->armed_for = next;
    r->proc = NULL;
    r->rc = 0;
    done(r);
}

static void on_armed_line(void *arg, struct hf_slice line)
{
    struct hf_group_run *r = arg;
    struct hf_groups *gs = r->g->gs;
    hf_groups_enter(gs);
    uint8_t op = r->proc == r->armed ? r->act.op : HF_OP_NONE;
    if (op == HF_OP_PROMOTE) {
        take_fence_line(r, line);
    }
    take_process_line(r, line);
    if (op == HF_OP_PREPARE && hf_slice_eq(line, hf_slice_str("holdfast-armed"))) {
        armed_did(r, is_primary_role(role_of(r)) ? HF_OP_DEMOTE : HF_OP_PROMOTE);
    } else if (op != HF_OP_NONE && op != HF_OP_PREPARE &&
               hf_slice_eq(line, hf_slice_str("holdfast-done"))) {
        armed_did(r, op == HF_OP_PROMOTE ? HF_OP_OPEN : HF_OP_NONE);
    }
    hf_groups_leave(gs);
}

/* It was not needed any more; or what it should have done is done by the action itself. */
static void on_armed_end(void *arg, const struct hf_ocf_result *res)
{
    struct hf_group_run *r = arg;
    struct hf_groups *gs = r->g->gs;
    hf_groups_enter(gs);
    const struct hf_gresource *resource = resource_of(r);
    bool busy = r->proc == r->armed;
    r->armed = NULL;
    r->armed_for = HF_OP_NONE;
    if (busy) {
        r->proc = NULL;
        r->rc = res->rc;
        take_text(r, res->reason);
        if (r->act.op != HF_OP_PREPARE && resource) {
            hf_log_warn(r->g->name, "%s: the prepared %s failed, it is done anew: %s", r->name,
                        hf_op_name(r->act.op), r->text);
            r->text[0] = '\0';
            start(r, resource);
        } else {
            done(r);
        }
    }
    hf_groups_leave(gs);
}

/* The word to the process that waits for it. */
static bool begin_armed(struct hf_group_run *r, const struct hf_gresource *res)
{
    const struct hf_group_agent *a = hf_group_agent_get(r->g->gs, res->agent);
    const char *action = hf_op_name(r->act.op);
    char word[32];
    snprintf(word, sizeof(word), "%s\n", action);
    r->text[0] = '\0';
    bool unsure = r->act.op == HF_OP_PROMOTE && !r->act.silent; /* it has been told otherwise */
    if (r->act.op != r->armed_for || !a || !a->meta || r->act.sync || unsure ||
        hf_ocf_say(r->armed, word, time_of(r, res, a, hf_group_run_def(r), action))) {
        return false;
    }
    hf_tracef(HF_TRACE_PROC, r->g->name, "%s: the word: %s", r->name, action);
    r->proc = r->armed;
    return true;
}

/* Is a switch being prepared, or under way? */
static bool armed_is_of_use(const struct hf_group_run *r)
{
    const struct hf_gstate *s = hf_group_state(r->g->core);
    return s->next != HF_GROUP_NONE || (s->phase != HF_PHASE_RUNNING && s->phase != HF_PHASE_NONE);
}

/* Is its agent known, one way or the other? */
static bool agent_known(struct hf_group_run *r, const struct hf_gresource *res)
{
    const struct hf_group_agent *a = *res->agent ? hf_group_agent_get(r->g->gs, res->agent) : NULL;
    return !a || !a->run;
}

void hf_hgroup_act(struct hf_hgroup *g, const struct hf_group_agent_act *act)
{
    struct hf_group_run *r = &g->run[act->resource];
    r->asked = true;
    r->next = *act;
}

/* ---- what recurs ---- */

static hf_time state_every(const struct hf_gstate *s)
{
    hf_time every = STATE_EVERY;
    for (uint8_t i = 0; i < s->n_resources; i++) {
        const struct hf_gresource *res = &s->resource[i];
        if (res->kind != HF_RESOURCE_COPY || i == s->primary) {
            continue;
        }
        if (res->mirror == HF_MIRROR_GROWING) {
            return STATE_GROWING;
        }
        if (res->mirror == HF_MIRROR_AIMED || res->mirror == HF_MIRROR_SYNCING) {
            every = STATE_SYNCING;
        }
    }
    return every;
}

static bool is_running(uint8_t role)
{
    return role == HF_ROLE_UNPROMOTED || is_primary_role(role);
}

/* A new role: look soon how its mirrors are, and later whether it still runs. */
static void enter_role(struct hf_group_run *r, const struct hf_gresource *res, uint8_t role,
                       hf_time now)
{
    const struct hf_group_agent *a = *res->agent ? hf_group_agent_get(r->g->gs, res->agent) : NULL;
    bool monitored = is_running(role) && a && a->meta;
    bool mirrored =
        monitored && (res->flags & HF_RESOURCE_MIRROR) && (a->meta->flags & HF_OCF_MIRROR_STATE);
    r->role = role;
    r->monitor_at = monitored ? now + monitor_every(r, res, a) : HF_NEVER;
    r->state_since = mirrored ? look_since(r, role, now) : HF_NEVER;
    r->access_at = now + ACCESS_EVERY; /* the core has looked at the start */
    if (!mirrored) {
        r->g->info.mirror[r->i] = (struct hf_group_mirror_info){.percent = 255};
    }
}

/* Mirrors are looked at the more often the more there is to wait for, from one moment to the next.
 */
static hf_time state_at(const struct hf_group_run *r, const struct hf_gstate *s)
{
    return r->state_since == HF_NEVER ? HF_NEVER : r->state_since + state_every(s);
}

/* In the moment of a planned switch nothing recurs that would take the CPU from it; but what has
 * ended is looked at. */
static bool is_quiet(const struct hf_group_run *r)
{
    return r->armed && r->watched;
}

/* What is due now, and when it is due again. */
static enum hf_group_run_what due(struct hf_group_run *r, const struct hf_gresource *res,
                                  hf_time now)
{
    const struct hf_gstate *s = hf_group_state(r->g->core);
    if (is_quiet(r)) {
        return HF_RUN_NONE;
    }
    if (now >= state_at(r, s)) {
        r->state_since = now;
        return HF_RUN_MIRROR_STATE;
    }
    if (now >= r->monitor_at) {
        r->monitor_at = now + monitor_every(r, res, hf_group_agent_get(r->g->gs, res->agent));
        return HF_RUN_MONITOR;
    }
    if (now >= r->access_at) {
        r->access_at = now + ACCESS_EVERY;
        bool known = hf_group_self(r->g->core) != HF_GROUP_NONE;
        bool idle = res->kind == HF_RESOURCE_COPY && r->role == HF_ROLE_STOPPED;
        return known && idle ? HF_RUN_ACCESS : HF_RUN_NONE; /* what runs is monitored */
    }
    return HF_RUN_NONE;
}

/*
 * The act that was asked for takes the place of what recurs, not of another act. All wait for the
 * agent's meta-data but the look at what runs, for which the others wait after a restart (G6).
 */
static bool begin_act(struct hf_group_run *r, const struct hf_gresource *res)
{
    bool look = r->next.op == HF_OP_MONITOR;
    if (r->what == HF_RUN_ACT || (!agent_known(r, res) && !look)) {
        return false;
    }
    if (r->what != HF_RUN_NONE) {
        hf_ocf_kill(r->proc);
    }
    r->what = HF_RUN_ACT;
    r->act = r->next;
    r->asked = false;
    bool other = !look && r->act.op != HF_OP_ACCESS && r->act.op != HF_OP_PREPARE;
    if (r->armed && other) {
        if (begin_armed(r, res)) {
            return true;
        }
        disarm(r);
    }
    start(r, res);
    return true;
}

static bool run_tick(struct hf_group_run *r, const struct hf_gresource *res, hf_time now)
{
    if (strcmp(r->name, res->name) != 0) { /* another resource has its number now */
        struct hf_group_run fresh = {.g = r->g, .i = r->i, .asked = r->asked, .next = r->next};
        run_fini(r);
        *r = fresh;
        snprintf(r->name, sizeof(r->name), "%s", res->name);
    }
    if (r->armed && r->armed != r->proc && !armed_is_of_use(r)) {
        disarm(r);
    }
    bool began = r->asked && begin_act(r, res);
    if (r->what == HF_RUN_NONE && agent_known(r, res)) {
        uint8_t role = role_of(r);
        if (role != r->role || r->monitor_at == 0) {
            enter_role(r, res, role, now);
        }
        r->what = due(r, res, now);
        if (r->what != HF_RUN_NONE) {
            r->act = (struct hf_group_agent_act){0};
            start(r, res);
            began = true;
        }
    }
    if (r->what != HF_RUN_NONE && !r->proc) { /* ended at once */
        if (r->what == HF_RUN_MIRROR_STATE) {
            r->what = HF_RUN_NONE;
        } else {
            done(r);
        }
        return true;
    }
    return began;
}

bool hf_hgroup_runs_tick(struct hf_hgroup *g, hf_time now)
{
    bool more = false;
    for (uint8_t i = 0; g->core && i < HF_GROUP_RESOURCES_MAX; i++) {
        const struct hf_gresource *res = resource_of(&g->run[i]);
        if (res) {
            more |= run_tick(&g->run[i], res, now);
        }
    }
    return more;
}

hf_time hf_hgroup_runs_deadline(const struct hf_hgroup *g, hf_time now)
{
    hf_time at = HF_NEVER;
    for (uint8_t i = 0; g->core && i < HF_GROUP_RESOURCES_MAX; i++) {
        const struct hf_group_run *r = &g->run[i];
        if (resource_of(r) && r->what == HF_RUN_NONE && r->monitor_at != 0 && !is_quiet(r)) {
            at = hf_time_min(at, r->monitor_at);
            at = hf_time_min(at, state_at(r, hf_group_state(g->core)));
            at = hf_time_min(at, r->access_at);
        }
    }
    return at < now ? now : at;
}
