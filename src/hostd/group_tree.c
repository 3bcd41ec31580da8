#include "hostd/group_tree.h"

#include <errno.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "codec/ctl_v1.h"
#include "hostd/group_report.h"
#include "hostd/hostd.h"

#define PUBLISHER UINT32_MAX /* connections count up from 1 */
#define RETRY HF_S(1)        /* when the directory was not ready */

/* One on t->entries for each name that is published, or is to be. */
struct entry {
    struct hf_list node;
    char name[HF_SERVICE_NAME_MAX + 1];
    char *value;    /* owned; what is published; NULL: nothing yet */
    uint32_t round; /* when it was last wanted */
    bool refused;   /* has been logged */
};

struct hf_group_tree {
    struct hf_hostd *h;
    struct hf_timer *timer;
    struct hf_list entries;
    uint32_t round;
    bool again; /* something could not be done now */
};

/* ---- entries ---- */

static int publish(struct hf_group_tree *t, const char *name, const char *value)
{
    struct hf_dir_in in = {.kind = value ? HF_DIR_IN_PUBLISH : HF_DIR_IN_WITHDRAW};
    in.publisher = PUBLISHER;
    in.name = hf_slice_str(name);
    in.value = hf_slice_str(value ? value : "");
    return hf_drive_local(t->h, &in);
}

static void entry_free(struct entry *e)
{
    hf_list_unlink(&e->node);
    hf_free(e->value);
    hf_free(e);
}

static struct entry *entry_get(struct hf_group_tree *t, const char *name)
{
    HF_LIST_FOREACH (node, &t->entries) {
        struct entry *e = HF_CONTAINER_OF(node, struct entry, node);
        if (strcmp(e->name, name) == 0) {
            return e;
        }
    }
    struct entry *e = hf_alloc(sizeof(*e));
    if (e) {
        snprintf(e->name, sizeof(e->name), "%s", name);
        hf_list_insert(&t->entries, &e->node);
    }
    return e;
}

static void want(struct hf_group_tree *t, const char *name, struct hf_buf *value)
{
    hf_buf_add(value, hf_slice("", 1));
    struct entry *e = value->err ? NULL : entry_get(t, name);
    if (!e) {
        t->again = true;
        return;
    }
    e->round = t->round;
    if (e->value && strcmp(e->value, (const char *)value->p) == 0) {
        return;
    }
    char *copy = hf_alloc(value->n);
    int rc = copy ? publish(t, name, (const char *)value->p) : -ENOMEM;
    if (rc) {
        if (rc != -HF_ENOTREADY && !e->refused) {
            hf_log_warn("", "%s cannot be published: %s; tried again every second", name,
                        hf_strerror(rc));
        }
        e->refused = rc != -HF_ENOTREADY;
        t->again = true;
        hf_free(copy);
        return;
    }
    memcpy(copy, value->p, value->n);
    hf_free(e->value);
    e->value = copy;
    e->refused = false;
}

/* ---- what is to be there ---- */

static void member(struct hf_buf *out, const char *name, const char *value)
{
    hf_buf_printf(out, "%s\"%s\":", out->n > 1 ? "," : "", name);
    hf_buf_json_str(out, hf_slice_str(value));
}

static void value_of_group(struct hf_buf *out, const struct hf_group_summary *s, bool phase)
{
    hf_buf_str(out, "{");
    member(out, "group", s->group);
    hf_buf_printf(out, ",\"epoch\":%llu", (unsigned long long)s->epoch);
    if (phase) {
        member(out, "phase", hf_phase_name(s->phase));
    }
    if (*s->host) {
        member(out, "resource", s->resource);
        member(out, "host", s->host);
    }
    if (*s->address) {
        member(out, "address", s->address);
    }
    hf_buf_str(out, "}");
}

/* Is it for us to tell how the group is? For the primary host, or else the first one present. */
static bool speaks(const struct hf_group *g, const struct hf_gstate *s)
{
    uint8_t self = hf_group_self(g);
    uint16_t present = hf_group_present(g);
    if (s->primary_host < s->n_members && present & 1u << s->primary_host) {
        return s->primary_host == self;
    }
    return present != 0 && __builtin_ctz(present) == self;
}

static void want_resource(struct hf_group_tree *t, const struct hf_group_info *info,
                          const struct hf_gstate *s, uint8_t self, uint8_t i)
{
    const struct hf_gresource *r = &s->resource[i];
    uint8_t role = hf_group_role(info->core, self, i);
    bool runs = role == HF_ROLE_UNPROMOTED || role == HF_ROLE_PROMOTED || role == HF_ROLE_OPEN;
    bool ours = r->kind == HF_RESOURCE_ATTACHED || r->host == self; /* attached: of the primary */
    if (!ours || !runs || strcmp(r->name, "primary") == 0) {
        return;
    }
    char name[HF_SERVICE_NAME_MAX + 1];
    struct hf_buf value;
    bool copy = r->kind == HF_RESOURCE_COPY;
    hf_buf_init(&value, HF_VALUE_LEN_MAX);
    hf_buf_str(&value, "{");
    member(&value, "group", s->name);
    member(&value, "kind", copy ? "copy" : "attached");
    member(&value, "role", hf_role_name(role));
    if (copy) {
        member(&value, "mirror", hf_mirror_name(r->mirror));
        hf_buf_printf(&value, ",\"in_sync\":%s", s->in_sync & 1u << i ? "true" : "false");
    }
    if (*s->member[self].address) {
        member(&value, "address", s->member[self].address);
    }
    hf_buf_str(&value, "}");
    snprintf(name, sizeof(name), "/group/%s/%s", s->name, r->name);
    want(t, name, &value);
    hf_buf_fini(&value);
}

static void want_group(struct hf_group_tree *t, const struct hf_group_info *info)
{
    const struct hf_gstate *s = info->core ? hf_group_state(info->core) : NULL;
    struct hf_group_summary sum;
    hf_group_summarize(t->h->groups, info->name, &sum);
    if (!s || !(sum.flags & HF_CTL_GROUP_MEMBER)) {
        return;
    }
    char name[HF_SERVICE_NAME_MAX + 1];
    struct hf_buf value;
    hf_buf_init(&value, HF_VALUE_LEN_MAX);
    if (sum.flags & HF_CTL_GROUP_HERE) {
        snprintf(name, sizeof(name), "/group/%s/primary", s->name);
        value_of_group(&value, &sum, false);
        want(t, name, &value);
        hf_buf_clear(&value);
    }
    if (sum.flags & HF_CTL_GROUP_QUORATE && speaks(info->core, s)) {
        snprintf(name, sizeof(name), "/group/%s", s->name);
        value_of_group(&value, &sum, true);
        want(t, name, &value);
    }
    hf_buf_fini(&value);
    for (uint8_t i = 0; i < s->n_resources; i++) {
        want_resource(t, info, s, hf_group_self(info->core), i);
    }
}

/* At once, like all of this: a primary that is none any more must not be seen a moment longer. */
static void withdraw_unwanted(struct hf_group_tree *t)
{
    HF_LIST_FOREACH (node, &t->entries) {
        struct entry *e = HF_CONTAINER_OF(node, struct entry, node);
        if (e->round == t->round) {
            continue;
        }
        int rc = e->value ? publish(t, e->name, NULL) : 0;
        if (rc && rc != -HF_ENOTFOUND) {
            t->again = true; /* the limit on changes; else the tree has left, with us */
            continue;
        }
        entry_free(e);
    }
}

static void update(struct hf_group_tree *t)
{
    const struct hf_group_info *info;
    t->round++;
    t->again = false;
    for (size_t i = 0; (info = hf_groups_info(t->h->groups, i)); i++) {
        want_group(t, info);
    }
    withdraw_unwanted(t);
    hf_timer_set(t->timer, t->again ? hf_now() + RETRY : HF_NEVER);
}

static void on_timer(void *arg)
{
    update(arg);
}

static void on_changed(void *arg, const struct hf_group_info *info, const char *text)
{
    (void)info;
    (void)text;
    update(arg);
}

/* ---- life ---- */

int hf_group_tree_open(struct hf_hostd *h, struct hf_err *err, struct hf_group_tree **ret_tree)
{
    struct hf_group_tree *t = hf_alloc(sizeof(*t));
    if (!t) {
        return hf_err_set(err, -ENOMEM, "groups in the tree: %s", hf_strerror(-ENOMEM));
    }
    t->h = h;
    hf_list_init(&t->entries);
    int rc = hf_timer_create(h->loop, on_timer, t, &t->timer);
    rc = rc ? rc : hf_groups_listen(h->groups, on_changed, t);
    if (rc) {
        hf_timer_destroy(t->timer);
        hf_free(t);
        return hf_err_set(err, rc, "groups in the tree: %s", hf_strerror(rc));
    }
    update(t);
    *ret_tree = t;
    return 0;
}

void hf_group_tree_close(struct hf_group_tree *t)
{
    if (!t) {
        return;
    }
    hf_groups_unlisten(t->h->groups, t);
    hf_timer_destroy(t->timer);
    HF_LIST_FOREACH (node, &t->entries) {
        struct entry *e = HF_CONTAINER_OF(node, struct entry, node);
        if (e->value) {
            (void)!publish(t, e->name, NULL); /* the directory may have left */
        }
        entry_free(e);
    }
    hf_free(t);
}
