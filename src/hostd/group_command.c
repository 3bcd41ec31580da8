/* What operators want of groups: create, join, and requests to the members. */
#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/name.h"
#include "hostd/group_impl.h"

#define DEFINITION "definition" /* stands before errors; who typed the command knows the file */

/*
 *   WAITS --agents' meta-data is there--> ASKED --the core's result--> DONE --told--> gone
 *     |                                     ^                          ^
 *     +-- refused --------------------------|--------------------------+
 *   a REQUEST begins here ------------------+
 */
enum step { WAITS, ASKED, DONE };

struct command {
    struct hf_list node;
    enum step step;
    enum hf_group_command_kind kind;
    hf_group_done *fn; /* NULL: nobody waits any more */
    void *arg;
    uint32_t request;
    char group[HF_GROUP_NAME_MAX + 1];
    struct hf_group_def *def; /* owned; CREATE, JOIN: or NULL */
    int rc;
    char text[512];
};

static void refuse(struct command *c, int rc, const char *text)
{
    c->step = DONE;
    c->rc = rc;
    snprintf(c->text, sizeof(c->text), "%s", text);
}

static struct command *command_create(struct hf_groups *gs, const struct hf_group_command *cmd,
                                      hf_group_done *fn, void *arg)
{
    struct command *c = hf_alloc(sizeof(*c));
    if (c) {
        c->kind = cmd->kind;
        c->fn = fn;
        c->arg = arg;
        c->request = ++gs->last_request ? gs->last_request : ++gs->last_request;
        snprintf(c->group, sizeof(c->group), "%s", cmd->group);
        hf_list_insert(&gs->commands, &c->node);
    }
    return c;
}

static void command_destroy(struct command *c)
{
    hf_list_unlink(&c->node);
    hf_group_def_destroy(c->def);
    hf_free(c);
}

/* ---- definitions ---- */

static int check_def(const struct hf_group_command *cmd, const struct hf_group_def *def,
                     struct hf_err *err)
{
    size_t copies = 0;
    for (size_t i = 0; i < def->resource.n; i++) {
        copies += hf_group_def_at(def, i)->kind == HF_GROUP_DEF_COPY;
    }
    if (cmd->kind == HF_GROUP_CREATE && copies == 0) {
        return hf_err_set(err, -HF_ECONFIG,
                          DEFINITION ": got no resource of kind copy, expected at least one: what "
                                     "the group is for");
    }
    if (cmd->kind == HF_GROUP_JOIN && (copies != 1 || def->resource.n != 1)) {
        return hf_err_set(err, -HF_ECONFIG,
                          DEFINITION ": got %zu resources, expected one of kind copy: the one that "
                                     "this host brings",
                          def->resource.n);
    }
    return 0;
}

static int load_def(struct command *c, const struct hf_group_command *cmd, struct hf_err *err)
{
    if (cmd->kind == HF_GROUP_JOIN && cmd->definition.n == 0) {
        return 0;
    }
    int rc = hf_group_def_load(DEFINITION, cmd->definition, err, &c->def);
    return rc ? rc : check_def(cmd, c->def, err);
}

/* All agents' meta-data: 0 there, 1 not yet, negative: one can't be had. */
static int agents_of(struct hf_groups *gs, const struct hf_group_def *def, struct hf_err *err)
{
    int waits = 0;
    for (size_t i = 0; def && i < def->resource.n; i++) {
        const struct hf_group_def_resource *r = hf_group_def_at(def, i);
        const struct hf_group_agent *a = *r->agent ? hf_group_agent_get(gs, r->agent) : NULL;
        if (*r->agent && !a) {
            return hf_err_set(err, -ENOMEM, "out of memory");
        }
        if (a && !a->run && a->rc) {
            return hf_err_set(err, a->rc, DEFINITION ":%d: resource %s.agent: %s", r->title.line,
                              r->title.name, a->err.text);
        }
        waits |= a && a->run;
    }
    return waits;
}

static int resolve(struct hf_groups *gs, const struct hf_group_def *def, struct hf_err *err,
                   struct hf_gresource *ret_resources)
{
    int rc = 0;
    for (size_t i = 0; def && i < def->resource.n && rc == 0; i++) {
        const struct hf_group_def_resource *r = hf_group_def_at(def, i);
        const struct hf_group_agent *a = *r->agent ? hf_group_agent_get(gs, r->agent) : NULL;
        rc = hf_group_def_resolve(DEFINITION, r, a ? a->meta : NULL, err, &ret_resources[i]);
    }
    return rc;
}

/* ---- create and join ---- */

static int write_configs(const struct hf_hgroup *g, const struct hf_group_def *def,
                         struct hf_err *err)
{
    struct hf_buf text;
    hf_buf_init(&text, HF_CONF_FILE_MAX);
    int rc = hf_group_store_make(&g->store, err);
    for (size_t i = 0; def && i < def->resource.n && rc == 0; i++) {
        const struct hf_group_def_resource *r = hf_group_def_at(def, i);
        hf_buf_clear(&text);
        hf_group_def_text(r, &text);
        if (*r->agent) {
            rc = hf_group_store_write_config(&g->store, r->title.name, hf_buf_slice(&text), err);
        }
    }
    hf_buf_fini(&text);
    return rc;
}

static int step_create(struct hf_hgroup *g, const struct command *c,
                       const struct hf_gresource *resources, struct hf_err *err)
{
    struct hf_group_in in = {.kind = HF_GROUP_IN_CREATE};
    if (getrandom(&in.group_id, sizeof(in.group_id), 0) != sizeof(in.group_id)) {
        return hf_err_set(err, -EIO, "no random numbers from the kernel");
    }
    in.group_id |= in.group_id == 0;
    in.resources = resources;
    in.n_resources = (uint8_t)c->def->resource.n;
    in.degraded_refuse = c->def->degraded != 0;
    in.restart_always = c->def->restart != 0;
    in.join_request = c->request;
    for (uint8_t i = 0; i < in.n_resources; i++) { /* it must not take them for missing */
        struct hf_group_in config = {.kind = HF_GROUP_IN_CONFIG};
        config.resource = i;
        config.config_hash = resources[i].config_hash;
        hf_hgroup_in(g, &config);
    }
    hf_hgroup_in(g, &in);
    return 0;
}

static void step_join(struct hf_hgroup *g, const struct command *c,
                      const struct hf_gresource *resources)
{
    struct hf_group_in in = {.kind = HF_GROUP_IN_JOIN};
    in.brought = c->def ? &resources[0] : NULL;
    in.join_request = c->request;
    hf_hgroup_in(g, &in);
}

/* From here on the core's result decides whether the group stays. */
static int begin(struct hf_groups *gs, struct command *c, const struct hf_gresource *resources,
                 struct hf_err *err)
{
    struct hf_hgroup *g = hf_groups_get(gs, c->group);
    if (g) { /* whose join has not been done, or who has lost its membership */
        return hf_err_set(err, -HF_EHELD, "%s is a group of this host already", c->group);
    }
    int rc = hf_hgroup_create(gs, c->group, err, &g);
    if (rc == 0) {
        rc = write_configs(g, c->def, err);
        rc = rc ? rc : hf_hgroup_join(g, err);
        rc = rc == -HF_EHELD ? 0 : rc; /* our last process is leaving it */
        if (rc == 0 && c->kind == HF_GROUP_CREATE) {
            rc = step_create(g, c, resources, err);
        } else if (rc == 0) {
            step_join(g, c, resources);
        }
        g->left = g->left || rc != 0;
    }
    return rc;
}

static void tick(struct hf_groups *gs, struct command *c)
{
    struct hf_gresource resources[HF_GROUP_RESOURCES_MAX] = {0};
    struct hf_err err = {0};
    int rc = agents_of(gs, c->def, &err);
    if (rc > 0) {
        return;
    }
    c->step = ASKED;
    rc = rc ? rc : resolve(gs, c->def, &err, resources);
    rc = rc ? rc : begin(gs, c, resources, &err);
    if (rc) {
        refuse(c, rc, err.text);
    }
}

void hf_groups_commands_tick(struct hf_groups *gs)
{
    HF_LIST_FOREACH (node, &gs->commands) {
        struct command *c = HF_CONTAINER_OF(node, struct command, node);
        if (c->step == WAITS) {
            tick(gs, c);
        }
    }
}

/* ---- outcomes ---- */

void hf_groups_commands_result(struct hf_groups *gs, struct hf_hgroup *g, uint32_t request, int rc,
                               const char *text)
{
    HF_LIST_FOREACH (node, &gs->commands) {
        struct command *c = HF_CONTAINER_OF(node, struct command, node);
        if (c->step == ASKED && c->request == request) {
            refuse(c, rc, text);
            if (rc && c->kind != HF_GROUP_REQUEST) {
                g->left = true; /* as if it had never been begun (B10) */
            }
        }
    }
}

void hf_groups_commands_tell(struct hf_groups *gs)
{
    HF_LIST_FOREACH (node, &gs->commands) {
        struct command *c = HF_CONTAINER_OF(node, struct command, node);
        if (c->step == DONE) {
            hf_list_unlink(&c->node); /* fn may ask for more */
            if (c->fn) {
                c->fn(c->arg, c->rc, c->text);
            }
            command_destroy(c);
        }
    }
}

void hf_groups_commands_gone(struct hf_groups *gs, const char *name)
{
    HF_LIST_FOREACH (node, &gs->commands) {
        struct command *c = HF_CONTAINER_OF(node, struct command, node);
        if (c->step == ASKED && strcmp(c->group, name) == 0) {
            refuse(c, -HF_ELEFT, "this host is no member of the group any more");
        }
    }
}

void hf_groups_commands_fini(struct hf_groups *gs)
{
    HF_LIST_FOREACH (node, &gs->commands) {
        command_destroy(HF_CONTAINER_OF(node, struct command, node));
    }
}

/* ---- operators ---- */

static int request(struct hf_groups *gs, struct command *c, const struct hf_group_command *cmd,
                   struct hf_err *err)
{
    struct hf_hgroup *g = hf_groups_get(gs, cmd->group);
    if (!g) {
        return hf_err_set(err, -HF_ENOTFOUND, "this host has no group %s", cmd->group);
    }
    if (!g->core) {
        return hf_err_set(err, -HF_ENOTREADY, "%.200s", g->info.problem);
    }
    struct hf_group_in in = {.kind = HF_GROUP_IN_REQUEST};
    in.what = cmd->request;
    in.to_host = cmd->host;
    in.of = cmd->resource;
    in.request = c->request;
    c->step = ASKED;
    hf_hgroup_in(g, &in);
    return 0;
}

static int start(struct hf_groups *gs, struct command *c, const struct hf_group_command *cmd,
                 struct hf_err *err)
{
    struct hf_slice name = hf_slice_str(cmd->group);
    if (gs->stopping) {
        return hf_err_set(err, -HF_ENOTREADY, "holdfastd is stopping");
    }
    if (name.n > HF_GROUP_NAME_MAX || !hf_host_name_ok(name)) {
        return hf_err_set(err, -HF_ENAME,
                          "the name of a group has 1 to %d lower case letters, digits and hyphens "
                          "(not first or last)",
                          HF_GROUP_NAME_MAX);
    }
    if (cmd->kind == HF_GROUP_REQUEST) {
        return request(gs, c, cmd, err);
    }
    int rc = hf_groups_allowed(gs, err);
    if (rc == 0 && hf_groups_get(gs, cmd->group)) {
        rc = hf_err_set(err, -HF_EHELD, "%s is a group of this host already", cmd->group);
    }
    return rc ? rc : load_def(c, cmd, err);
}

void hf_groups_command(struct hf_groups *gs, const struct hf_group_command *cmd, hf_group_done *fn,
                       void *arg)
{
    struct hf_err err = {0};
    hf_groups_enter(gs);
    struct command *c = command_create(gs, cmd, fn, arg);
    if (c) {
        int rc = start(gs, c, cmd, &err);
        if (rc) {
            refuse(c, rc, err.text);
        }
    } else {
        fn(arg, -ENOMEM, "out of memory");
    }
    gs->again = true;
    hf_groups_leave(gs);
}

void hf_groups_forget(struct hf_groups *gs, void *arg)
{
    HF_LIST_FOREACH (node, &gs->commands) {
        struct command *c = HF_CONTAINER_OF(node, struct command, node);
        if (c->arg == arg) {
            c->fn = NULL;
        }
    }
}
