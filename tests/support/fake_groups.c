/* See fake_groups.h. */
#include "support/fake_groups.h"

#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "support/test.h"

/* ---- a group ---- */

static void member(struct hf_gstate *s, const char *host, const char *address, uint8_t subgroup)
{
    struct hf_gmember *m = &s->member[s->n_members++];
    snprintf(m->host, sizeof(m->host), "%s", host);
    snprintf(m->address, sizeof(m->address), "%s", address);
    m->subgroup = subgroup;
    m->access = (uint16_t)(1u << subgroup);
}

static void resource(struct hf_gstate *s, const char *name, uint8_t kind, uint8_t host)
{
    struct hf_gresource *r = &s->resource[s->n_resources++];
    snprintf(r->name, sizeof(r->name), "%s", name);
    snprintf(r->agent, sizeof(r->agent), "%s",
             kind == HF_RESOURCE_COPY ? "ocf:holdfast:postgresql" : "ocf:heartbeat:IPaddr2");
    r->kind = kind;
    r->flags = kind == HF_RESOURCE_COPY ? HF_RESOURCE_PROMOTABLE | HF_RESOURCE_MIRROR : 0;
    r->host = host;
}

void fake_groups_init(struct hf_groups *gs)
{
    memset(gs, 0, sizeof(*gs));
    struct hf_group *g = &gs->core;
    struct hf_gstate *s = &g->s;
    gs->info.name = "orders";
    gs->info.core = g;
    snprintf(s->name, sizeof(s->name), "orders");
    s->id = 0xabcdef;
    s->version = 3ull << 32 | 41;
    s->epoch = 7;
    s->phase = HF_PHASE_RUNNING;
    s->in_sync = 3;
    member(s, "alpha", "192.0.2.1", 0);
    member(s, "beta", "192.0.2.2", 1);
    member(s, "gamma", "192.0.2.3", 1);
    s->member[2].dirty = 2;
    resource(s, "copy1", HF_RESOURCE_COPY, 0);
    resource(s, "copy2", HF_RESOURCE_COPY, 1);
    resource(s, "address", HF_RESOURCE_ATTACHED, HF_GROUP_NONE);
    s->resource[0].mirror = s->resource[1].mirror = HF_MIRROR_IN_SYNC;
    s->resource[0].epoch = s->resource[1].epoch = 7;
    g->standing = HF_GROUP_IN;
    g->quorate = true;
    g->present = 3;
    g->able = 1;
    g->sync = 2;
    g->role[0][0] = HF_ROLE_OPEN;
    g->role[0][1] = HF_ROLE_STOPPED;
    g->role[0][2] = HF_ROLE_PROMOTED;
    g->role[1][1] = HF_ROLE_UNPROMOTED;
    g->count.promotions = 7;
}

/* ---- what is read of a core ---- */

const char *hf_group_standing_name(enum hf_group_standing s)
{
    return s == HF_GROUP_IN ? "in" : "out";
}

enum hf_group_standing hf_group_standing(const struct hf_group *g)
{
    return g->standing;
}

const struct hf_gstate *hf_group_state(const struct hf_group *g)
{
    return g->no_state ? NULL : &g->s;
}

uint8_t hf_group_self(const struct hf_group *g)
{
    return g->no_state ? HF_GROUP_NONE : g->self;
}

uint16_t hf_group_present(const struct hf_group *g)
{
    return g->present;
}

bool hf_group_quorate(const struct hf_group *g)
{
    return g->quorate;
}

uint16_t hf_group_lost(const struct hf_group *g)
{
    return g->quorate ? g->lost : 0;
}

uint8_t hf_group_role(const struct hf_group *g, uint8_t m, uint8_t r)
{
    return g->role[m][r];
}

uint16_t hf_group_able(const struct hf_group *g, uint8_t copy)
{
    (void)copy;
    return g->able;
}

void hf_group_mirrored(const struct hf_group *g, uint16_t *ret_sync, uint16_t *ret_async)
{
    *ret_sync = g->sync;
    *ret_async = g->async;
}

const char *hf_group_why(const struct hf_group *g)
{
    return g->why ? g->why : "";
}

const char *hf_group_resource_why(const struct hf_group *g, uint8_t r)
{
    return g->resource_why[r] ? g->resource_why[r] : "";
}

const struct hf_group_counters *hf_group_counters(const struct hf_group *g)
{
    return &g->count;
}

/* ---- the driver ---- */

int hf_groups_open(struct hf_hostd *h, struct hf_err *err, struct hf_groups **ret_groups)
{
    (void)h;
    (void)err;
    *ret_groups = NULL;
    return 0;
}

void hf_groups_close(struct hf_groups *gs)
{
    (void)gs;
}

void hf_groups_stop(struct hf_groups *gs, hf_time time_max, void (*fn)(void *arg), void *arg)
{
    (void)gs;
    (void)time_max;
    fn(arg);
}

static const char *keep(char to[64], const char *s)
{
    snprintf(to, 64, "%s", s ? s : "");
    return s ? to : NULL;
}

void hf_groups_command(struct hf_groups *gs, const struct hf_group_command *cmd, hf_group_done *fn,
                       void *arg)
{
    gs->n_commands++;
    gs->cmd = *cmd;
    gs->cmd.group = keep(gs->group, cmd->group);
    gs->cmd.host = keep(gs->host, cmd->host);
    gs->cmd.resource = keep(gs->resource, cmd->resource);
    snprintf(gs->definition, sizeof(gs->definition), "%.*s", HF_SLICE_FMT(cmd->definition));
    gs->done = fn;
    gs->done_arg = arg;
    if (gs->at_once) {
        fake_groups_done(gs, 0, "at once");
    }
}

void hf_groups_forget(struct hf_groups *gs, void *arg)
{
    gs->done_arg = gs->done_arg == arg ? NULL : gs->done_arg;
}

void fake_groups_done(struct hf_groups *gs, int rc, const char *text)
{
    void *arg = gs->done_arg;
    gs->done_arg = NULL;
    gs->done(arg, rc, text);
}

const struct hf_group_info *hf_groups_info(const struct hf_groups *gs, size_t i)
{
    return i == 0 && gs->info.name ? &gs->info : NULL;
}

const struct hf_group_info *hf_groups_find(const struct hf_groups *gs, const char *name)
{
    return gs->info.name && strcmp(gs->info.name, name) == 0 ? &gs->info : NULL;
}

int hf_groups_history(const struct hf_groups *gs, const char *name, struct hf_buf *out)
{
    if (!hf_groups_find(gs, name)) {
        return -HF_ENOTFOUND;
    }
    hf_buf_str(out, "[{\"at\":1700000000000,\"epoch\":1,\"text\":\"created\"}]");
    return 0;
}

int hf_groups_config(const struct hf_groups *gs, const char *path, struct hf_buf *out)
{
    (void)gs;
    (void)path;
    (void)out;
    return -HF_ENOTFOUND;
}

int hf_groups_listen(struct hf_groups *gs, hf_group_changed *fn, void *arg)
{
    for (size_t i = 0; i < FAKE_LISTENERS_MAX; i++) {
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
    for (size_t i = 0; i < FAKE_LISTENERS_MAX; i++) {
        if (gs->listener[i].arg == arg) {
            gs->listener[i].fn = NULL;
            gs->listener[i].arg = NULL;
        }
    }
}

void fake_groups_changed(struct hf_groups *gs, const char *text)
{
    static const struct hf_group_info gone = {.name = "orders"};
    for (size_t i = 0; i < FAKE_LISTENERS_MAX; i++) {
        if (gs->listener[i].fn) {
            gs->listener[i].fn(gs->listener[i].arg, gs->info.name ? &gs->info : &gone, text);
        }
    }
}
