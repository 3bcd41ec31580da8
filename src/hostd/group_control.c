#include "hostd/group_control.h"

#include <errno.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/name.h"
#include "hostd/group_report.h"
#include "hostd/hostd.h"

#define TEXT_MAX 1024 /* of a RESULT */
#define WAIT_MS_MAX 86400000u

/* On gc->commands until it is answered; the argument of hf_groups_command(). */
struct command {
    struct hf_list node;
    struct hf_group_control *gc;
    void *client;
    uint32_t seq;
    uint32_t wait_ms;
    hf_time due;
    char group[HF_GROUP_NAME_MAX + 1];
};

struct follow {
    struct hf_list node;
    void *client;
    uint32_t seq;
    bool dirty, told;
    struct hf_group_summary last; /* told, or only named */
};

struct hf_group_control {
    struct hf_hostd *h;
    struct hf_group_control_ops ops;
    struct hf_timer *timer; /* the earliest time limit */
    struct hf_list commands, follows;
    unsigned n_commands;
    bool listening;
};

/* ---- commands ---- */

static void set_timer(struct hf_group_control *gc)
{
    hf_time due = HF_NEVER;
    HF_LIST_FOREACH (node, &gc->commands) {
        struct command *c = HF_CONTAINER_OF(node, struct command, node);
        due = hf_time_min(due, c->due);
    }
    hf_timer_set(gc->timer, due);
}

static void send_result(struct hf_group_control *gc, void *client, uint32_t seq, int rc,
                        const char *text)
{
    struct hf_slice s = hf_slice_str(text && *text ? text : hf_strerror(rc));
    s.n = s.n < TEXT_MAX ? s.n : TEXT_MAX;
    gc->ops.send(client,
                 &(struct hf_ctl_msg){.type = HF_CTL_RESULT, .seq = seq, .code = rc, .text = s});
}

static void command_free(struct command *c)
{
    struct hf_group_control *gc = c->gc;
    hf_list_unlink(&c->node);
    gc->n_commands--;
    hf_free(c);
    set_timer(gc);
}

static void on_done(void *arg, int rc, const char *text)
{
    struct command *c = arg;
    send_result(c->gc, c->client, c->seq, rc, text);
    command_free(c);
}

static const char *why(const struct hf_group_control *gc, const char *group)
{
    const struct hf_group_info *info = gc->h->groups ? hf_groups_find(gc->h->groups, group) : NULL;
    if (!info) {
        return "";
    }
    return *info->problem || !info->core ? info->problem : hf_group_why(info->core);
}

static void on_timer(void *arg)
{
    struct hf_group_control *gc = arg;
    hf_time now = hf_now();
    HF_LIST_FOREACH (node, &gc->commands) {
        struct command *c = HF_CONTAINER_OF(node, struct command, node);
        if (c->due > now) {
            continue;
        }
        char text[512];
        const char *reason = why(gc, c->group);
        int n = snprintf(text, sizeof(text),
                         "not done within %g s, but it may still be: ", c->wait_ms / 1000.0);
        snprintf(text + n, sizeof(text) - (size_t)n, "%s%s",
                 *reason ? reason : "see holdfast group show ", *reason ? "" : c->group);
        hf_groups_forget(gc->h->groups, c);
        on_done(c, -HF_ETIMEOUT, text);
    }
    set_timer(gc);
}

/* A copy of s with NUL, or NULL for an empty one. */
static const char *copy(char *to, size_t room, struct hf_slice s)
{
    snprintf(to, room, "%.*s", HF_SLICE_FMT(s));
    return s.n ? to : NULL;
}

static bool has_host(const struct hf_gstate *s, const char *host)
{
    for (uint8_t i = 0; i < s->n_members; i++) {
        if (strcmp(s->member[i].host, host) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_resource(const struct hf_gstate *s, const char *resource)
{
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (strcmp(s->resource[i].name, resource) == 0) {
            return true;
        }
    }
    return false;
}

/* The names of hosts or resources, for a person who gave another one. */
static const char *names_of(const struct hf_gstate *s, bool hosts, char *text, size_t room)
{
    size_t n = 0;
    text[0] = '\0';
    for (uint8_t i = 0; i < (hosts ? s->n_members : s->n_resources) && n < room; i++) {
        int add = snprintf(text + n, room - n, "%s%s", i ? " " : "",
                           hosts ? s->member[i].host : s->resource[i].name);
        n += add > 0 ? (size_t)add : 0;
    }
    return text;
}

/* Do the names in cmd exist? What --to names is a host or a resource. */
static int check_names(const struct hf_group_control *gc, struct hf_group_command *cmd, bool either,
                       struct hf_err *err)
{
    char names[160];
    const struct hf_group_info *info =
        gc->h->groups ? hf_groups_find(gc->h->groups, cmd->group) : NULL;
    if (!info) {
        return hf_err_set(err, -HF_ENOTFOUND,
                          "this host is in no group %s; ask on one of its hosts", cmd->group);
    }
    const struct hf_gstate *s = info->core ? hf_group_state(info->core) : NULL;
    if (!s) {
        return hf_err_set(err, -HF_ENOTREADY, "nothing is known of group %s yet: %s", cmd->group,
                          why(gc, cmd->group));
    }
    if (either && cmd->host && !has_host(s, cmd->host) && has_resource(s, cmd->host)) {
        cmd->resource = cmd->host;
        cmd->host = NULL;
    }
    if (cmd->host && !has_host(s, cmd->host)) {
        return hf_err_set(err, -HF_ENOTFOUND, "%s has no host %s%s; it has: %s", cmd->group,
                          either ? "or resource " : "", cmd->host,
                          names_of(s, true, names, sizeof(names)));
    }
    if (cmd->resource && !has_resource(s, cmd->resource)) {
        return hf_err_set(err, -HF_ENOTFOUND, "%s has no resource %s; it has: %s", cmd->group,
                          cmd->resource, names_of(s, false, names, sizeof(names)));
    }
    return 0;
}

/* What cmd becomes of an action; names are checked. */
static int translate(const struct hf_group_control *gc, uint8_t action,
                     struct hf_group_command *cmd, struct hf_err *err)
{
    static const uint8_t request[HF_CTL_GROUP_END_] = {
        [HF_CTL_GROUP_LEAVE] = HF_GREQUEST_LEAVE,   [HF_CTL_GROUP_SWITCH] = HF_GREQUEST_SWITCH,
        [HF_CTL_GROUP_FORCE] = HF_GREQUEST_FORCE,   [HF_CTL_GROUP_PAUSE] = HF_GREQUEST_PAUSE,
        [HF_CTL_GROUP_RESUME] = HF_GREQUEST_RESUME, [HF_CTL_GROUP_CONFIRM] = HF_GREQUEST_CONFIRM};
    if (!gc->h->groups) {
        return hf_err_set(err, -HF_ENOTREADY, "this holdfastd takes no part in groups");
    }
    if (!hf_host_name_ok(hf_slice_str(cmd->group))) { /* both are DNS labels */
        return hf_err_set(err, -HF_ENAME,
                          "\"%s\" is not the name of a group: expected small letters, digits and "
                          "inner hyphens, at most %d",
                          cmd->group, HF_GROUP_NAME_MAX);
    }
    if (action == HF_CTL_GROUP_CREATE || action == HF_CTL_GROUP_JOIN) {
        cmd->kind = action == HF_CTL_GROUP_CREATE ? HF_GROUP_CREATE : HF_GROUP_JOIN;
        return 0;
    }
    cmd->kind = HF_GROUP_REQUEST;
    cmd->request = request[action];
    if (action == HF_CTL_GROUP_LEAVE && !cmd->host) {
        cmd->host = gc->h->config->host.name;
    }
    return check_names(gc, cmd, action == HF_CTL_GROUP_SWITCH, err);
}

void hf_group_control_command(struct hf_group_control *gc, void *client, const struct hf_ctl_msg *m)
{
    char group[HF_GROUP_NAME_MAX + 1], host[HF_HOST_NAME_MAX + 1];
    char resource[HF_GROUP_RESOURCE_NAME_MAX + 1];
    struct hf_err err = {0};
    (void)copy(group, sizeof(group), m->name);
    struct hf_group_command cmd = {.group = group,
                                   .host = copy(host, sizeof(host), m->owner),
                                   .resource = copy(resource, sizeof(resource), m->resource),
                                   .definition = m->value};
    int rc = translate(gc, m->action, &cmd, &err);
    if (rc == 0 && gc->n_commands >= HF_GROUP_COMMANDS_MAX) {
        rc = hf_err_set(&err, -HF_EFULL, "%d commands to groups are under way here: try later",
                        HF_GROUP_COMMANDS_MAX);
    }
    struct command *c = rc ? NULL : hf_alloc(sizeof(*c));
    if (!c) {
        send_result(gc, client, m->seq, rc ? rc : -ENOMEM, err.text);
        return;
    }
    c->gc = gc;
    c->client = client;
    c->seq = m->seq;
    c->wait_ms = m->wait_ms < WAIT_MS_MAX ? m->wait_ms : WAIT_MS_MAX;
    c->due = hf_now() + HF_MS(c->wait_ms);
    memcpy(c->group, group, sizeof(group));
    hf_list_insert(&gc->commands, &c->node);
    gc->n_commands++;
    set_timer(gc);
    hf_log_info(group, "an operator wants: %s%s%s%s%s", hf_ctl_group_name(m->action),
                cmd.host ? " host " : "", cmd.host ? cmd.host : "",
                cmd.resource ? " resource " : "", cmd.resource ? cmd.resource : "");
    hf_groups_command(gc->h->groups, &cmd, on_done, c); /* may be done with c already */
}

/* ---- followers ---- */

static void on_changed(void *arg, const struct hf_group_info *info, const char *text)
{
    struct hf_group_control *gc = arg;
    bool any = false;
    (void)text;
    HF_LIST_FOREACH (node, &gc->follows) {
        struct follow *f = HF_CONTAINER_OF(node, struct follow, node);
        f->dirty = f->dirty || strcmp(f->last.group, info->name) == 0;
        any = any || f->dirty;
    }
    if (any) {
        gc->ops.wake(gc->ops.arg);
    }
}

int hf_group_control_follow(struct hf_group_control *gc, void *client, uint32_t seq,
                            struct hf_slice group)
{
    if (!gc->listening && gc->h->groups) { /* groups are opened after the control socket */
        int rc = hf_groups_listen(gc->h->groups, on_changed, gc);
        if (rc) {
            return rc;
        }
        gc->listening = true;
    }
    struct follow *f = hf_alloc(sizeof(*f));
    if (!f) {
        return -ENOMEM;
    }
    f->client = client;
    f->seq = seq;
    f->dirty = true;
    (void)copy(f->last.group, sizeof(f->last.group), group);
    hf_list_insert(&gc->follows, &f->node);
    gc->ops.wake(gc->ops.arg);
    return 0;
}

static void follow_free(struct follow *f)
{
    hf_list_unlink(&f->node);
    hf_free(f);
}

bool hf_group_control_unfollow(struct hf_group_control *gc, void *client, uint32_t seq)
{
    HF_LIST_FOREACH (node, &gc->follows) {
        struct follow *f = HF_CONTAINER_OF(node, struct follow, node);
        if (f->client == client && f->seq == seq) {
            follow_free(f);
            return true;
        }
    }
    return false;
}

void hf_group_control_tell(struct hf_group_control *gc, void *client)
{
    HF_LIST_FOREACH (node, &gc->follows) {
        struct follow *f = HF_CONTAINER_OF(node, struct follow, node);
        struct hf_group_summary now;
        if (f->client != client || !f->dirty) {
            continue;
        }
        f->dirty = false;
        hf_group_summarize(gc->h->groups, f->last.group, &now);
        if (f->told && hf_group_summary_eq(&now, &f->last)) {
            continue;
        }
        f->told = true;
        f->last = now;
        gc->ops.send(client, &(struct hf_ctl_msg){.type = HF_CTL_GROUP_STATE,
                                                  .seq = f->seq,
                                                  .flags = now.flags,
                                                  .phase = now.phase,
                                                  .epoch = now.epoch,
                                                  .resource = hf_slice_str(now.resource),
                                                  .owner = hf_slice_str(now.host),
                                                  .address = hf_slice_str(now.address),
                                                  .fence_text = hf_slice_str(now.fence_text),
                                                  .lost = hf_slice_str(now.lost)});
    }
}

/* ---- queries ---- */

int hf_group_control_query(struct hf_hostd *h, struct hf_slice what, struct hf_slice argument,
                           struct hf_buf *out, struct hf_err *err)
{
    char name[HF_GROUP_NAME_MAX + 1];
    if (hf_slice_eq(what, hf_slice_str("groups"))) {
        return hf_report_groups(h, argument, out, err);
    }
    (void)copy(name, sizeof(name), argument.n <= HF_GROUP_NAME_MAX ? argument : hf_slice(NULL, 0));
    int rc = h->groups ? hf_groups_history(h->groups, name, out) : -HF_ENOTFOUND;
    return rc == -HF_ENOTFOUND
               ? hf_err_set(err, rc, "this host is in no group %.*s", HF_SLICE_FMT(argument))
               : rc;
}

/* ---- life ---- */

int hf_group_control_create(struct hf_hostd *h, const struct hf_group_control_ops *ops,
                            struct hf_group_control **ret_control)
{
    struct hf_group_control *gc = hf_alloc(sizeof(*gc));
    if (!gc) {
        return -ENOMEM;
    }
    gc->h = h;
    gc->ops = *ops;
    hf_list_init(&gc->commands);
    hf_list_init(&gc->follows);
    int rc = hf_timer_create(h->loop, on_timer, gc, &gc->timer);
    if (rc) {
        hf_free(gc);
        return rc;
    }
    *ret_control = gc;
    return 0;
}

void hf_group_control_gone(struct hf_group_control *gc, void *client)
{
    HF_LIST_FOREACH (node, &gc->commands) {
        struct command *c = HF_CONTAINER_OF(node, struct command, node);
        if (c->client == client) {
            if (gc->h->groups) {
                hf_groups_forget(gc->h->groups, c);
            }
            command_free(c);
        }
    }
    HF_LIST_FOREACH (node, &gc->follows) {
        struct follow *f = HF_CONTAINER_OF(node, struct follow, node);
        if (f->client == client) {
            follow_free(f);
        }
    }
}

void hf_group_control_destroy(struct hf_group_control *gc)
{
    if (!gc) {
        return;
    }
    if (gc->listening && gc->h->groups) {
        hf_groups_unlisten(gc->h->groups, gc);
    }
    hf_timer_destroy(gc->timer);
    hf_free(gc);
}
