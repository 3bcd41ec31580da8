#include "hostd/overview.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/mem.h"
#include "hostd/group_report.h"
#include "hostd/programs.h"
#include "hostd/timeline.h"

/* A host that is shown; those that matter are added first. */
struct row {
    char host[HF_HOST_NAME_MAX + 1];
    const char *state; /* as of `holdfast members`, "dead" or "absent"; static */
    char address[HF_ADDR_STR_LEN];
    uint32_t services;
    long long silent_ms; /* -1: is heard */
    char draining[128];  /* what it is being emptied of, or "" */
};

struct rows {
    const struct hf_hostd *h;
    size_t n, n_more; /* n_more: peers without a row */
    struct row row[HF_OVERVIEW_HOSTS_MAX];
};

/* ---- hosts ---- */

static bool is_lost(const struct hf_hostd_lost *l)
{
    return *l->host && hf_now() - l->at < HF_HOSTD_LOST_SHOWN;
}

static void fill(const struct hf_hostd *h, struct row *r)
{
    uint32_t id = hf_dir_store_find_owner(h->store, hf_slice_str(r->host));
    bool self = id != HF_OWNER_NONE && id == hf_dir_self(h->dir);
    struct hf_dir_peer_info i = {.state = HF_DIR_PEER_ABSENT};
    r->silent_ms = -1;
    if (id != HF_OWNER_NONE) {
        i = hf_dir_peer_info(h->dir, id, hf_now());
    }
    if (self || i.state != HF_DIR_PEER_ABSENT) {
        const struct hf_part *part = hf_dir_part(h->dir, id);
        r->state = hf_report_member_state(h, id);
        r->services = part ? part->n_entries : 0;
        r->silent_ms = i.state == HF_DIR_PEER_PROBING ? (long long)i.heard_ms : -1;
        hf_report_member_address(h, id, r->address);
        return;
    }
    r->state = "absent";
    for (size_t k = 0; k < HF_HOSTD_LOST_MAX; k++) {
        if (is_lost(&h->lost[k]) && strcmp(h->lost[k].host, r->host) == 0) {
            r->state = "dead";
            r->silent_ms = (hf_now() - h->lost[k].at) / HF_NS_PER_S * 1000; /* no need for more */
        }
    }
}

/* The row of a host, made if need be; NULL: no room. */
static struct row *row_of(struct rows *t, struct hf_slice host)
{
    for (size_t i = 0; i < t->n; i++) {
        if (hf_slice_eq(host, hf_slice_str(t->row[i].host))) {
            return &t->row[i];
        }
    }
    if (t->n == HF_ARRAY_LEN(t->row) || host.n > HF_HOST_NAME_MAX) {
        return NULL;
    }
    struct row *r = &t->row[t->n++];
    memset(r, 0, sizeof(*r));
    snprintf(r->host, sizeof(r->host), "%.*s", HF_SLICE_FMT(host));
    fill(t->h, r);
    return r;
}

static void drains(struct row *r, const char *what, const char *name)
{
    if (r) {
        size_t n = strlen(r->draining);
        snprintf(r->draining + n, sizeof(r->draining) - n, "%s%s%s", n ? ", " : "", what, name);
    }
}

static void add_group_hosts(struct rows *t)
{
    const struct hf_group_info *info;
    for (size_t i = 0; t->h->groups && (info = hf_groups_info(t->h->groups, i)); i++) {
        const struct hf_gstate *s = info->core ? hf_group_state(info->core) : NULL;
        for (uint8_t m = 0; s && m < s->n_members; m++) {
            struct row *r = row_of(t, hf_slice_str(s->member[m].host));
            if (s->member[m].leaving) {
                drains(r, "leaves group ", info->name);
            }
        }
    }
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void add_owners(struct rows *t, const json_t *programs)
{
    const json_t *e;
    size_t i;
    json_array_foreach(programs, i, e)
    {
        struct row *r = row_of(t, hf_slice_str(text_of(e, "owner")));
        if (strcmp(text_of(json_object_get(e, "value"), "state"), "draining") == 0) {
            drains(r, "SIP server ", text_of(e, "name"));
        }
    }
}

/* First those that do not run as they should, then all others. */
static void add_peers(struct rows *t, bool well)
{
    const struct hf_dir_store *store = t->h->store;
    for (uint32_t id = 0; id < store->n_owners; id++) {
        enum hf_dir_peer_state s = hf_dir_peer_info(t->h->dir, id, hf_now()).state;
        if (s != HF_DIR_PEER_ABSENT && (s == HF_DIR_PEER_ALIVE) == well) {
            t->n_more += !row_of(t, hf_dir_store_name(store, id));
        }
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->host, ((const struct row *)b)->host);
}

static void put_row(const struct row *r, struct hf_buf *out)
{
    hf_buf_str(out, "{\"host\":");
    hf_buf_json_str(out, hf_slice_str(r->host));
    hf_buf_printf(out, ",\"state\":\"%s\",\"address\":\"%s\",\"services\":%u", r->state, r->address,
                  r->services);
    if (r->silent_ms >= 0) {
        hf_buf_printf(out, ",\"silent_ms\":%lld", r->silent_ms);
    }
    hf_buf_str(out, ",\"draining\":");
    hf_buf_json_str(out, hf_slice_str(r->draining));
    hf_buf_str(out, "}");
}

static void put_hosts(const struct hf_hostd *h, const json_t *managers, const json_t *sip,
                      struct hf_buf *out)
{
    struct rows *t = hf_alloc(sizeof(*t));
    if (!t) {
        out->err = out->err ? out->err : -ENOMEM;
        return;
    }
    t->h = h;
    (void)row_of(t, hf_slice_str(h->config->host.name));
    for (size_t i = 0; i < HF_HOSTD_LOST_MAX; i++) {
        if (is_lost(&h->lost[i])) {
            (void)row_of(t, hf_slice_str(h->lost[i].host));
        }
    }
    add_group_hosts(t);
    add_owners(t, managers);
    add_owners(t, sip);
    add_peers(t, false);
    add_peers(t, true);
    qsort(t->row, t->n, sizeof(t->row[0]), by_name);
    hf_buf_str(out, ",\"hosts\":[");
    for (size_t i = 0; i < t->n; i++) {
        hf_buf_str(out, i ? "," : "");
        put_row(&t->row[i], out);
    }
    hf_buf_printf(out, "],\"hosts_more\":%zu", t->n_more);
    hf_free(t);
}

/* ---- all ---- */

/* Without the bracket that ends it. */
static void put(struct hf_hostd *h, struct hf_buf *out)
{
    json_t *managers = hf_programs_managers(h), *sip = hf_programs_sip(h);
    hf_buf_str(out, "{\"host\":");
    hf_buf_json_str(out, hf_slice_str(h->config->host.name));
    hf_buf_printf(out, ",\"state\":\"%s\",\"version\":\"%s\",\"members\":%u,\"problems\":",
                  hf_dir_state_name(hf_dir_state(h->dir)), HF_VERSION, hf_dir_members(h->dir));
    hf_report_problems(h, managers, sip, out);
    put_hosts(h, managers, sip, out);
    hf_buf_str(out, ",\"groups\":");
    (void)!hf_report_groups(h, hf_slice(NULL, 0), out, NULL); /* out has its error */
    hf_buf_str(out, ",\"managers\":");
    hf_programs_put(managers, out);
    hf_buf_str(out, ",\"sip\":");
    hf_programs_put(sip, out);
}

void hf_overview_json(struct hf_hostd *h, struct hf_buf *out)
{
    put(h, out);
    hf_buf_str(out, "}\n");
}

void hf_overview_json_all(struct hf_hostd *h, struct hf_buf *out)
{
    const struct hf_note *n;
    const struct hf_sample *s;
    const char *comma = "";
    put(h, out);
    hf_buf_str(out, ",\"events\":[");
    for (uint64_t i = 0; h->timeline && (n = hf_timeline_note_at(h->timeline, &i)); i++) {
        hf_buf_str(out, comma);
        hf_note_json(n, out);
        comma = ",\n";
    }
    hf_buf_str(out, "],\"samples\":[");
    comma = "";
    for (uint64_t i = 0; h->timeline && (s = hf_timeline_sample_at(h->timeline, &i)); i++) {
        hf_buf_str(out, comma);
        hf_sample_json(s, out);
        comma = ",\n";
    }
    hf_buf_str(out, "]}\n");
}
