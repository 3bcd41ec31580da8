/* Fencing of hosts for groups, and the watchdog that fences this one. */
#include <errno.h>
#include <stdio.h>

#include "hostd/group_impl.h"

/* A host being fenced, for all groups that want it off. */
struct fence {
    struct hf_list node;
    struct hf_groups *gs;
    struct hf_fence_host_run *run; /* owned; NULL: ended, the outcome is below */
    struct hf_hgroup *group[HF_GROUPS_MAX];
    size_t n_groups;
    int rc;
    char host[HF_HOST_NAME_MAX + 1];
    char text[HF_GROUP_TEXT_MAX + 1];
};

static void tell(struct fence *f)
{
    hf_list_unlink(&f->node);
    for (size_t i = 0; i < f->n_groups; i++) {
        struct hf_group_in in = {.kind = HF_GROUP_IN_FENCED, .rc = f->rc};
        in.host = f->host;
        in.text = hf_slice_str(f->text);
        hf_hgroup_in(f->group[i], &in);
    }
    hf_free(f);
}

static void on_fenced(void *arg, const struct hf_fence_host_result *res)
{
    struct fence *f = arg;
    struct hf_groups *gs = f->gs;
    hf_groups_enter(gs);
    f->run = NULL;
    f->rc = res->rc;
    snprintf(f->text, sizeof(f->text), "%.*s", HF_GROUP_TEXT_MAX, res->text);
    hf_log(f->rc ? HF_LOG_ERR : HF_LOG_WARN, "", "fencing of %s: %s", f->host, res->text);
    tell(f);
    hf_groups_leave(gs);
}

/* ---- devices, from the configuration ---- */

struct devices {
    struct hf_fence_device *device;
    struct hf_fence_target *target;
    struct hf_fence_pair *option;
    char (*path)[PATH_MAX];
    char *text; /* of the targets */
    size_t n;
};

static void devices_fini(struct devices *d)
{
    hf_free(d->device);
    hf_free(d->target);
    hf_free(d->option);
    hf_free(d->path);
    hf_free(d->text);
}

static void add_targets(struct devices *d, const struct hf_hostd_fence *f, size_t *used_targets,
                        size_t *used_text)
{
    struct hf_fence_device *dev = &d->device[d->n];
    dev->targets = &d->target[*used_targets];
    for (size_t i = 0; i < f->hosts.n; i++) {
        size_t len = strlen(f->hosts.item[i]) + 1;
        char *host = d->text + *used_text;
        memcpy(host, f->hosts.item[i], len);
        *used_text += len;
        char *colon = strchr(host, ':');
        if (colon) {
            *colon = '\0';
        }
        d->target[(*used_targets)++] = (struct hf_fence_target){
            .host = host, .plug = colon ? colon + 1 : NULL, .level = (unsigned)f->level};
    }
    dev->n_targets = f->hosts.n;
}

static void add_options(struct devices *d, const struct hf_hostd_fence *f, size_t *used)
{
    struct hf_fence_device *dev = &d->device[d->n];
    dev->options = &d->option[*used];
    for (size_t i = 0; i < f->options.n; i++) {
        d->option[(*used)++] =
            (struct hf_fence_pair){f->options.pair[i].name, f->options.pair[i].value};
    }
    dev->n_options = f->options.n;
}

static int make_devices(const struct hf_hostd_config *c, struct devices *d, struct hf_err *err)
{
    const struct hf_hostd_fence *f = c->fence.item;
    size_t targets = 0, options = 0, text = 0;
    for (size_t i = 0; i < c->fence.n; i++) {
        targets += f[i].hosts.n;
        options += f[i].options.n;
        for (size_t k = 0; k < f[i].hosts.n; k++) {
            text += strlen(f[i].hosts.item[k]) + 1;
        }
    }
    *d = (struct devices){.device = hf_alloc_array(c->fence.n + 1, sizeof(*d->device)),
                          .target = hf_alloc_array(targets + 1, sizeof(*d->target)),
                          .option = hf_alloc_array(options + 1, sizeof(*d->option)),
                          .path = hf_alloc_array(c->fence.n + 1, sizeof(*d->path)),
                          .text = hf_alloc(text + 1)};
    if (!d->device || !d->target || !d->option || !d->path || !d->text) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    targets = options = text = 0;
    for (size_t i = 0; i < c->fence.n; i++) {
        struct hf_err why;
        if (hf_fence_find(NULL, f[i].agent, d->path[i], &why)) { /* it fails when it is tried */
            hf_log_err("", "fence device %s: %s", f[i].title.name, why.text);
            snprintf(d->path[i], sizeof(d->path[i]), "%s", f[i].agent);
        }
        d->device[i].name = f[i].title.name;
        d->device[i].path = d->path[i];
        d->device[i].timeout = HF_MS(f[i].timeout_ms);
        add_targets(d, &f[i], &targets, &text);
        add_options(d, &f[i], &options);
        d->n++;
    }
    return 0;
}

static bool can_fence(const struct devices *d, const char *host)
{
    for (size_t i = 0; i < d->n; i++) {
        for (size_t k = 0; k < d->device[i].n_targets; k++) {
            const char *target = d->device[i].targets[k].host;
            if (strcmp(target, host) == 0 || strcmp(target, "*") == 0) {
                return true;
            }
        }
    }
    return false;
}

static int begin(struct fence *f, struct hf_err *err)
{
    struct devices d;
    int rc = make_devices(f->gs->h->config, &d, err);
    if (rc == 0 && !can_fence(&d, f->host)) {
        rc = hf_err_set(err, -HF_ENOTFOUND,
                        "no fence device of this host's configuration has %s among its hosts",
                        f->host);
    }
    struct hf_fence_host_opt opt = {
        .devices = d.device, .n_devices = d.n, .host = f->host, .action = HF_FENCE_OFF};
    rc = rc ? rc : hf_fence_host(f->gs->h->loop, &opt, on_fenced, f, err, &f->run);
    devices_fini(&d);
    return rc;
}

void hf_groups_fence(struct hf_hgroup *g, const char *host)
{
    struct hf_groups *gs = g->gs;
    struct hf_err err = {0};
    HF_LIST_FOREACH (node, &gs->fences) {
        struct fence *f = HF_CONTAINER_OF(node, struct fence, node);
        if (strcmp(f->host, host) == 0) {
            f->group[f->n_groups++] = g; /* a core asks once until it is told */
            return;
        }
    }
    struct fence *f = hf_alloc(sizeof(*f));
    if (!f) {
        hf_log_err(g->name, "out of memory, cannot fence %s; joining the group again", host);
        g->rejoin = true; /* another one then fences */
        return;
    }
    f->gs = gs;
    f->group[f->n_groups++] = g;
    snprintf(f->host, sizeof(f->host), "%s", host);
    hf_list_insert(&gs->fences, &f->node);
    f->rc = begin(f, &err);
    if (f->rc) {
        snprintf(f->text, sizeof(f->text), "%.*s", HF_GROUP_TEXT_MAX, err.text); /* an event soon */
    }
}

bool hf_groups_fences_tell(struct hf_groups *gs)
{
    bool any = false;
    HF_LIST_FOREACH (node, &gs->fences) {
        struct fence *f = HF_CONTAINER_OF(node, struct fence, node);
        if (!f->run) {
            tell(f);
            any = true;
        }
    }
    return any;
}

void hf_groups_fences_forget(struct hf_hgroup *g)
{
    HF_LIST_FOREACH (node, &g->gs->fences) {
        struct fence *f = HF_CONTAINER_OF(node, struct fence, node);
        for (size_t i = 0; i < f->n_groups;) {
            if (f->group[i] == g) {
                f->group[i] = f->group[--f->n_groups];
            } else {
                i++;
            }
        }
    }
}

void hf_groups_fences_fini(struct hf_groups *gs)
{
    HF_LIST_FOREACH (node, &gs->fences) {
        struct fence *f = HF_CONTAINER_OF(node, struct fence, node);
        hf_list_unlink(node);
        hf_fence_host_kill(f->run);
        hf_free(f);
    }
}

/* ---- the watchdog ---- */

/* May something run here that nobody else may run before this host is off? */
static bool needs_fencing(const struct hf_hgroup *g)
{
    const struct hf_gstate *s = g->core ? hf_group_state(g->core) : NULL;
    uint8_t self = s ? hf_group_self(g->core) : HF_GROUP_NONE;
    for (uint8_t i = 0; self != HF_GROUP_NONE && i < s->n_resources; i++) {
        uint8_t role = hf_group_role(g->core, self, i);
        bool runs = (s->member[self].dirty >> i & 1) != 0 ||
                    (role != HF_ROLE_STOPPED && role != HF_ROLE_UNKNOWN);
        if (runs && !(s->resource[i].flags & HF_RESOURCE_FENCE_NONE)) {
            return true;
        }
    }
    return false;
}

/* Is something still there that should have been stopped since the quorum was lost? */
static bool is_overdue(struct hf_hgroup *g, hf_time limit, hf_time now)
{
    bool at_risk = needs_fencing(g) && !hf_group_quorate(g->core);
    g->quorumless_at = !at_risk ? 0 : g->quorumless_at ? g->quorumless_at : now;
    return at_risk && now - g->quorumless_at > limit;
}

static void arm(struct hf_groups *gs)
{
    const struct hf_hostd_config *c = gs->h->config;
    struct hf_err err;
    int rc =
        hf_watchdog_open(c->watchdog.device, HF_MS(c->watchdog.timeout_ms), &err, &gs->watchdog);
    if (rc) {
        gs->watchdog = NULL;
        if (!gs->watchdog_failed) {
            hf_log_err("", "watchdog: %s; this host goes on without one", err.text);
        }
    } else {
        hf_log_info("", "watchdog %s: armed, %lld s", c->watchdog.device,
                    (long long)(hf_watchdog_timeout(gs->watchdog) / HF_NS_PER_S));
    }
    gs->watchdog_failed = rc != 0;
}

void hf_groups_watchdog_close(struct hf_groups *gs)
{
    struct hf_err err;
    if (gs->watchdog && hf_watchdog_disarm(gs->watchdog, &err)) {
        hf_log_err("", "watchdog: %s", err.text);
    }
    gs->watchdog = NULL;
}

hf_time hf_groups_watchdog(struct hf_groups *gs, hf_time now)
{
    const struct hf_hostd_config *c = gs->h->config;
    bool needed = false, overdue = false;
    if (!*c->watchdog.device) {
        return HF_NEVER;
    }
    for (size_t i = 0; i < gs->n_groups; i++) {
        needed |= needs_fencing(gs->group[i]);
        overdue |= is_overdue(gs->group[i], HF_MS(c->watchdog.timeout_ms), now);
    }
    if (needed && !gs->watchdog && now >= gs->pet_at) {
        arm(gs);
        gs->pet_at = now + HF_S(1); /* if it failed, try again then */
    } else if (!needed && gs->watchdog) {
        hf_groups_watchdog_close(gs);
        hf_log_info("", "watchdog: disarmed, nothing here needs fencing");
    }
    if (!gs->watchdog) {
        return needed ? gs->pet_at : HF_NEVER;
    }
    if (now >= gs->pet_at && !overdue) {
        struct hf_err err;
        if (hf_watchdog_pet(gs->watchdog, &err)) {
            hf_log_err("", "watchdog: %s", err.text);
        }
        gs->pet_at = now + hf_watchdog_timeout(gs->watchdog) / 4;
    }
    return overdue ? now + HF_MS(250) : gs->pet_at;
}
