#include "hostd/group_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "codec/ctl_v1.h"

static const struct hf_group_info *info_at(const struct hf_hostd *h, size_t i)
{
    return h->groups ? hf_groups_info(h->groups, i) : NULL;
}

/* ---- JSON, member by member: each begins with a comma but a first one ---- */

static void key(struct hf_buf *out, const char *name)
{
    uint8_t last = out->n ? out->p[out->n - 1] : '{';
    hf_buf_printf(out, "%s\"%s\":", last == '{' ? "" : ",", name);
}

static void put_str(struct hf_buf *out, const char *name, const char *value)
{
    key(out, name);
    hf_buf_json_str(out, hf_slice_str(value));
}

static void put_bool(struct hf_buf *out, const char *name, bool value)
{
    key(out, name);
    hf_buf_str(out, value ? "true" : "false");
}

static void put_number(struct hf_buf *out, const char *name, uint64_t value)
{
    key(out, name);
    hf_buf_printf(out, "%" PRIu64, value);
}

/* Those whose bits are set; first: the name of the first of n, the next one's `stride` bytes on. */
static void put_names(struct hf_buf *out, const char *name, const char *first, size_t stride,
                      size_t n, uint16_t mask)
{
    const char *comma = "";
    key(out, name);
    hf_buf_str(out, "[");
    for (size_t i = 0; i < n; i++) {
        if (mask & 1u << i) {
            hf_buf_str(out, comma);
            hf_buf_json_str(out, hf_slice_str(first + i * stride));
            comma = ",";
        }
    }
    hf_buf_str(out, "]");
}

static void put_resources(struct hf_buf *out, const char *name, const struct hf_gstate *s,
                          uint16_t mask)
{
    put_names(out, name, s->resource[0].name, sizeof(s->resource[0]), s->n_resources, mask);
}

static void put_members(struct hf_buf *out, const char *name, const struct hf_gstate *s,
                        uint16_t mask)
{
    put_names(out, name, s->member[0].host, sizeof(s->member[0]), s->n_members, mask);
}

/* In the phase `none` the state still says who was it last. */
static bool has_primary(const struct hf_gstate *s)
{
    return s->phase != HF_PHASE_NONE && s->primary < s->n_resources &&
           s->primary_host < s->n_members;
}

static const char *member_name(const struct hf_gstate *s, uint8_t m)
{
    return m < s->n_members ? s->member[m].host : "";
}

static const char *resource_name(const struct hf_gstate *s, uint8_t r)
{
    return r < s->n_resources ? s->resource[r].name : "";
}

/* The state says `running` from reign to reign; after a start it may not be known yet that it is
 * so. */
static uint8_t phase_of(const struct hf_group *g, const struct hf_gstate *s)
{
    bool there = s->phase == HF_PHASE_RUNNING && hf_group_present(g) >> s->primary_host & 1;
    return there && hf_group_role(g, s->primary_host, s->primary) != HF_ROLE_OPEN ? HF_PHASE_OPENING
                                                                                  : s->phase;
}

/* ---- summary ---- */

static uint8_t flags_of(const struct hf_group *g, const struct hf_gstate *s)
{
    uint8_t self = hf_group_self(g);
    bool in = hf_group_standing(g) == HF_GROUP_IN && hf_group_quorate(g);
    bool here = in && self != HF_GROUP_NONE && phase_of(g, s) == HF_PHASE_RUNNING &&
                s->primary_host == self;
    return (uint8_t)((self != HF_GROUP_NONE ? HF_CTL_GROUP_MEMBER : 0) |
                     (in ? HF_CTL_GROUP_QUORATE : 0) | (here ? HF_CTL_GROUP_HERE : 0));
}

void hf_group_summarize(const struct hf_groups *gs, const char *name,
                        struct hf_group_summary *ret_summary)
{
    struct hf_group_summary *sum = ret_summary;
    *sum = (struct hf_group_summary){0};
    snprintf(sum->group, sizeof(sum->group), "%s", name);
    const struct hf_group_info *info = gs ? hf_groups_find(gs, name) : NULL;
    const struct hf_gstate *s = info && info->core ? hf_group_state(info->core) : NULL;
    if (!s) {
        return;
    }
    sum->flags = flags_of(info->core, s);
    sum->phase = phase_of(info->core, s);
    sum->epoch = s->epoch;
    if (has_primary(s)) {
        const struct hf_gmember *m = &s->member[s->primary_host];
        snprintf(sum->resource, sizeof(sum->resource), "%s", resource_name(s, s->primary));
        snprintf(sum->host, sizeof(sum->host), "%s", m->host);
        snprintf(sum->address, sizeof(sum->address), "%s", m->address);
        snprintf(sum->fence_text, sizeof(sum->fence_text), "%s", s->fence_text);
    }
    uint16_t lost = hf_group_lost(info->core);
    for (uint8_t i = 0, n = 0; i < s->n_members; i++) {
        if (lost & 1u << i) {
            size_t at = strlen(sum->lost);
            snprintf(sum->lost + at, sizeof(sum->lost) - at, "%s%s", n++ ? " " : "",
                     s->member[i].host);
        }
    }
}

bool hf_group_summary_eq(const struct hf_group_summary *a, const struct hf_group_summary *b)
{
    return strcmp(a->group, b->group) == 0 && a->flags == b->flags && a->phase == b->phase &&
           a->epoch == b->epoch && strcmp(a->resource, b->resource) == 0 &&
           strcmp(a->host, b->host) == 0 && strcmp(a->address, b->address) == 0 &&
           strcmp(a->fence_text, b->fence_text) == 0 && strcmp(a->lost, b->lost) == 0;
}

void hf_group_summary_json(const struct hf_group_summary *s, struct hf_buf *out)
{
    hf_buf_str(out, "{");
    put_str(out, "group", s->group);
    put_bool(out, "member", s->flags & HF_CTL_GROUP_MEMBER);
    put_bool(out, "quorate", s->flags & HF_CTL_GROUP_QUORATE);
    put_str(out, "phase", hf_phase_name(s->phase));
    put_number(out, "epoch", s->epoch);
    put_str(out, "resource", s->resource);
    put_str(out, "host", s->host);
    put_str(out, "address", s->address);
    put_bool(out, "here", s->flags & HF_CTL_GROUP_HERE);
    put_str(out, "lost", s->lost);
    hf_buf_str(out, "}");
}

/* ---- a group ---- */

static void put_primary(struct hf_buf *out, const struct hf_gstate *s)
{
    key(out, "primary");
    if (!has_primary(s)) {
        hf_buf_str(out, "null");
        return;
    }
    hf_buf_str(out, "{");
    put_str(out, "resource", resource_name(s, s->primary));
    put_str(out, "host", member_name(s, s->primary_host));
    put_str(out, "address", s->member[s->primary_host].address);
    hf_buf_str(out, "}");
}

static void put_joining(struct hf_buf *out, const struct hf_gstate *s)
{
    key(out, "joining");
    if (s->join.step == 0) {
        hf_buf_str(out, "null");
        return;
    }
    hf_buf_str(out, "{");
    put_str(out, "host", s->join.host);
    put_str(out, "address", s->join.address);
    put_str(out, "step", s->join.step == 1 ? "probing" : "configuration");
    put_bool(out, "brings", s->join.brings);
    hf_buf_str(out, "}");
}

static void put_state(struct hf_buf *out, const struct hf_group *g, const struct hf_gstate *s)
{
    key(out, "id");
    hf_buf_printf(out, "\"%016" PRIx64 "\"", s->id);
    key(out, "version");
    hf_buf_printf(out, "\"%" PRIu64 ".%" PRIu64 "\"", s->version >> 32, s->version & 0xffffffff);
    put_str(out, "phase", hf_phase_name(phase_of(g, s)));
    put_number(out, "epoch", s->epoch);
    put_primary(out, s);
    put_str(out, "last_primary", resource_name(s, s->last_primary));
    put_resources(out, "in_sync", s, s->in_sync);
    put_bool(out, "init", s->init);
    put_bool(out, "paused", s->paused);
    put_str(out, "degraded", s->degraded_refuse ? "refuse" : "allow");
    put_str(out, "restart", s->restart_always ? "always" : "auto");
    put_str(out, "switching_to", resource_name(s, s->next));
    put_str(out, "fence_text", s->fence_text);
    put_joining(out, s);
}

static void put_host(struct hf_buf *out, const struct hf_group *g, const struct hf_gstate *s,
                     uint8_t i)
{
    const struct hf_gmember *m = &s->member[i];
    bool present = hf_group_present(g) & 1u << i;
    hf_buf_str(out, i ? ",\n   {" : "\n   {");
    put_str(out, "host", m->host);
    put_str(out, "address", m->address);
    put_bool(out, "here", i == hf_group_self(g));
    put_bool(out, "present", present);
    put_str(out, "subgroup", resource_name(s, m->subgroup));
    put_resources(out, "reaches", s, m->access);
    put_bool(out, "leaving", m->leaving);
    put_bool(out, "fenced", m->fenced);
    put_bool(out, "was_primary", m->was_primary);
    put_resources(out, "may_run", s, present || m->fenced ? 0 : m->dirty);
    hf_buf_str(out, "}");
}

static const char *seen_name(uint8_t seen)
{
    static const char *const names[HF_SEEN_COUNT_] = {[HF_SEEN_NOTHING] = "",
                                                      [HF_SEEN_SYNCING] = "syncing",
                                                      [HF_SEEN_CAUGHT_UP] = "caught-up",
                                                      [HF_SEEN_IN_SYNC] = "in-sync",
                                                      [HF_SEEN_SUSPENDED] = "suspended",
                                                      [HF_SEEN_FAILED] = "failed"};
    return seen < HF_SEEN_COUNT_ ? names[seen] : "";
}

static void put_seen(struct hf_buf *out, const struct hf_group_mirror_info *seen)
{
    key(out, "seen");
    hf_buf_str(out, "{");
    put_str(out, "state", seen_name(seen->seen));
    key(out, "percent");
    if (seen->seen == HF_SEEN_SYNCING && seen->percent <= 100) {
        hf_buf_printf(out, "%u", seen->percent);
    } else {
        hf_buf_str(out, "null");
    }
    put_str(out, "reason", seen->reason);
    hf_buf_str(out, "}");
}

static void put_roles(struct hf_buf *out, const struct hf_group *g, const struct hf_gstate *s,
                      uint8_t r)
{
    const char *comma = "";
    key(out, "roles");
    hf_buf_str(out, "[");
    for (uint8_t m = 0; m < s->n_members; m++) {
        uint8_t role = hf_group_role(g, m, r);
        if (role != HF_ROLE_UNKNOWN) {
            hf_buf_printf(out, "%s{", comma);
            put_str(out, "host", s->member[m].host);
            put_str(out, "role", hf_role_name(role));
            hf_buf_str(out, "}");
            comma = ",";
        }
    }
    hf_buf_str(out, "]");
}

/* What only copies have. */
static void put_copy(struct hf_buf *out, const struct hf_group_info *info,
                     const struct hf_gstate *s, uint8_t i)
{
    uint16_t sync, async;
    hf_group_mirrored(info->core, &sync, &async);
    put_str(out, "mirror", hf_mirror_name(s->resource[i].mirror));
    put_bool(out, "in_sync", s->in_sync & 1u << i);
    put_number(out, "epoch", s->resource[i].epoch);
    put_str(out, "mode", sync & 1u << i ? "sync" : async & 1u << i ? "async" : "");
    put_seen(out, &info->mirror[i]);
    put_members(out, "able", s, hf_group_able(info->core, i));
}

/* Who controls it: a copy's own host; what is attached follows the primary. */
static uint8_t controller(const struct hf_gstate *s, const struct hf_gresource *r)
{
    bool follows = r->kind == HF_RESOURCE_ATTACHED && r->host == HF_GROUP_NONE && has_primary(s);
    return follows ? s->primary_host : r->host;
}

static void put_resource(struct hf_buf *out, const struct hf_group_info *info,
                         const struct hf_gstate *s, uint8_t i)
{
    const struct hf_gresource *r = &s->resource[i];
    bool copy = r->kind == HF_RESOURCE_COPY;
    hf_buf_str(out, i ? ",\n   {" : "\n   {");
    put_str(out, "name", r->name);
    put_str(out, "kind", copy ? "copy" : "attached");
    put_str(out, "agent", r->agent);
    put_bool(out, "promotable", r->flags & HF_RESOURCE_PROMOTABLE);
    put_bool(out, "mirror_capable", r->flags & HF_RESOURCE_MIRROR);
    put_bool(out, "opens", r->flags & HF_RESOURCE_OPEN);
    put_bool(out, "fence_none", r->flags & HF_RESOURCE_FENCE_NONE);
    put_str(out, "host", member_name(s, controller(s, r)));
    if (copy) {
        put_copy(out, info, s, i);
    }
    put_members(out, "failed_on", s, r->failed_on);
    put_number(out, "restarts", r->restarts);
    put_roles(out, info->core, s, i);
    put_str(out, "error", info->error[i]);
    put_str(out, "why", hf_group_resource_why(info->core, i));
    hf_buf_str(out, "}");
}

static void put_counters(struct hf_buf *out, const struct hf_group *g)
{
    const struct hf_group_counters *c = hf_group_counters(g);
    key(out, "counters");
    hf_buf_str(out, "{");
#define ROW(name, text) put_number(out, #name, c->name);
    HF_GROUP_COUNTER_LIST(ROW)
#undef ROW
    hf_buf_str(out, "}");
}

static void put_group(struct hf_buf *out, const struct hf_hostd *h,
                      const struct hf_group_info *info)
{
    const struct hf_group *g = info->core;
    const struct hf_gstate *s = g ? hf_group_state(g) : NULL;
    hf_buf_str(out, "\n {");
    put_str(out, "name", info->name);
    put_str(out, "host", h->config->host.name);
    put_str(out, "standing", hf_group_standing_name(g ? hf_group_standing(g) : HF_GROUP_OUT));
    put_bool(out, "quorate", g && hf_group_quorate(g));
    put_str(out, "why", *info->problem ? info->problem : g ? hf_group_why(g) : "");
    if (s) {
        put_state(out, info->core, s);
        key(out, "hosts");
        hf_buf_str(out, "[");
        for (uint8_t i = 0; i < s->n_members; i++) {
            put_host(out, g, s, i);
        }
        hf_buf_str(out, "]");
        key(out, "resources");
        hf_buf_str(out, "[");
        for (uint8_t i = 0; i < s->n_resources; i++) {
            put_resource(out, info, s, i);
        }
        hf_buf_str(out, "]");
    }
    if (g) {
        put_counters(out, g);
    }
    hf_buf_str(out, "}");
}

int hf_report_groups(struct hf_hostd *h, struct hf_slice name, struct hf_buf *out,
                     struct hf_err *err)
{
    const struct hf_group_info *info;
    size_t found = 0;
    hf_buf_str(out, "[");
    for (size_t i = 0; (info = info_at(h, i)); i++) {
        if (name.n == 0 || hf_slice_eq(name, hf_slice_str(info->name))) {
            hf_buf_str(out, found++ ? "," : "");
            put_group(out, h, info);
        }
    }
    hf_buf_str(out, "]\n");
    if (name.n > 0 && found == 0) {
        return hf_err_set(err, -HF_ENOTFOUND,
                          "this host is in no group %.*s; holdfast group show lists its groups",
                          HF_SLICE_FMT(name));
    }
    return out->err;
}

/* ---- problems ---- */

typedef void problem_fn(void *arg, const char *severity, const char *what, const char *remedy);

static void problems_of_resources(const struct hf_group_info *info, const struct hf_gstate *s,
                                  problem_fn *fn, void *arg)
{
    char what[256];
    for (uint8_t i = 0; i < s->n_resources; i++) {
        const char *why = hf_group_resource_why(info->core, i);
        uint8_t mirror = s->resource[i].mirror;
        bool bad_mirror = mirror == HF_MIRROR_FAILED || mirror == HF_MIRROR_DIVERGED;
        if (*why) {
            snprintf(what, sizeof(what), "group %s: %s %s%s", info->name, s->resource[i].name,
                     bad_mirror ? "has " : "is not as it should be",
                     bad_mirror ? hf_mirror_name(mirror) : "");
            fn(arg, bad_mirror ? "error" : "warning", what, why);
        }
    }
}

static void problems_of_group(const struct hf_group_info *info, problem_fn *fn, void *arg)
{
    char what[256], remedy[256];
    const struct hf_gstate *s = info->core ? hf_group_state(info->core) : NULL;
    const char *why = info->core ? hf_group_why(info->core) : info->problem;
    if (*info->problem) {
        snprintf(what, sizeof(what), "group %s: this host cannot take part", info->name);
        fn(arg, "error", what, info->problem);
    } else if (!s || !hf_group_quorate(info->core)) {
        snprintf(what, sizeof(what), "group %s: this host does not act in it", info->name);
        fn(arg, "error", what, *why ? why : "it is joining: wait a moment");
    } else if (s->paused) {
        snprintf(what, sizeof(what), "group %s is paused: nothing is done by itself", info->name);
        snprintf(remedy, sizeof(remedy), "holdfast group resume %s", info->name);
        fn(arg, "warning", what, remedy);
    } else if (*why) {
        snprintf(what, sizeof(what), "group %s has no %sprimary", info->name,
                 s->phase == HF_PHASE_NONE ? "" : "running ");
        fn(arg, s->phase == HF_PHASE_NONE ? "error" : "warning", what, why);
    }
    if (info->core && hf_group_counters(info->core)->refused_version > 0) {
        snprintf(what, sizeof(what),
                 "group %s: members of a newer version say what is not known here", info->name);
        fn(arg, "error", what, "update this host: it is not heard of in the group until then");
    }
    if (s) {
        problems_of_resources(info, s, fn, arg);
    }
}

void hf_report_group_problems(const struct hf_hostd *h, problem_fn *fn, void *arg)
{
    const struct hf_group_info *info;
    for (size_t i = 0; (info = info_at(h, i)); i++) {
        problems_of_group(info, fn, arg);
    }
}

/* ---- metrics ---- */

#define GAUGE_LIST(X)                                                                              \
    X(phase, "0 no primary, 1 clearing, 2 promoting, 3 opening, 4 running")                        \
    X(epoch, "number of the primary's reign")                                                      \
    X(quorate, "1 while this host acts in the group")                                              \
    X(primary_here, "1 while the primary runs on this host")                                       \
    X(members, "hosts of the group")                                                               \
    X(present, "hosts of the group that are heard")                                                \
    X(in_sync, "copies that may be promoted")                                                      \
    X(paused, "1 while the operator has paused the group")

struct gauges {
#define GAUGE_FIELD(name, text) uint64_t name;
    GAUGE_LIST(GAUGE_FIELD)
#undef GAUGE_FIELD
};

static unsigned count_bits(uint16_t mask)
{
    return (unsigned)__builtin_popcount(mask);
}

static struct gauges gauges_of(const struct hf_group_info *info)
{
    const struct hf_group *g = info->core;
    const struct hf_gstate *s = g ? hf_group_state(g) : NULL;
    if (!s) {
        return (struct gauges){0};
    }
    uint8_t flags = flags_of(g, s);
    return (struct gauges){.phase = phase_of(g, s),
                           .epoch = s->epoch,
                           .quorate = (flags & HF_CTL_GROUP_QUORATE) != 0,
                           .primary_here = (flags & HF_CTL_GROUP_HERE) != 0,
                           .members = s->n_members,
                           .present = count_bits(hf_group_present(g)),
                           .in_sync = count_bits(s->in_sync),
                           .paused = s->paused};
}

static void metric_head(struct hf_buf *out, const char *name, const char *type, const char *help)
{
    hf_buf_printf(out, "# HELP holdfast_group_%s %s\n# TYPE holdfast_group_%s %s\n", name, help,
                  name, type);
}

static void metric(struct hf_buf *out, const char *name, const char *group, uint64_t value)
{
    hf_buf_printf(out, "holdfast_group_%s{group=\"%s\"} %" PRIu64 "\n", name, group, value);
}

static void metric_roles(const struct hf_hostd *h, struct hf_buf *out)
{
    const struct hf_group_info *info;
    metric_head(out, "role", "gauge",
                "what this host runs: 0 unknown, 1 stopped, 2 unpromoted, 3 promoted or started, "
                "4 open, 5 failed, 6 stuck");
    for (size_t i = 0; (info = info_at(h, i)); i++) {
        const struct hf_gstate *s = info->core ? hf_group_state(info->core) : NULL;
        uint8_t self = s ? hf_group_self(info->core) : HF_GROUP_NONE;
        for (uint8_t r = 0; self != HF_GROUP_NONE && r < s->n_resources; r++) {
            hf_buf_printf(out, "holdfast_group_role{group=\"%s\",resource=\"%s\"} %u\n", info->name,
                          s->resource[r].name, hf_group_role(info->core, self, r));
        }
    }
}

void hf_report_group_metrics(const struct hf_hostd *h, struct hf_buf *out)
{
    const struct hf_group_info *info;
    if (!info_at(h, 0)) {
        return;
    }
#define ROW(row, text)                                                                             \
    metric_head(out, #row, "gauge", text);                                                         \
    for (size_t i = 0; (info = info_at(h, i)); i++) {                                              \
        metric(out, #row, info->name, gauges_of(info).row);                                        \
    }
    GAUGE_LIST(ROW)
#undef ROW
    metric_roles(h, out);
#define ROW(row, text)                                                                             \
    metric_head(out, #row "_total", "counter", text);                                              \
    for (size_t i = 0; (info = info_at(h, i)); i++) {                                              \
        if (info->core) {                                                                          \
            metric(out, #row "_total", info->name, hf_group_counters(info->core)->row);            \
        }                                                                                          \
    }
    HF_GROUP_COUNTER_LIST(ROW)
#undef ROW
}
