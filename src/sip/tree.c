/* The servers of the cluster, through the directory's tree; and the group that says who leads. */
#include "sip/tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "holdfast/holdfast.h"
#include "lib/entry.h"
#include "os/load.h"
#include "sip/lead.h"
#include "sip/node.h"
#include "sip/others.h"

#define PREFIX "/sip/servers"
#define LOOK HF_S(1)
#define FIGURES HF_S(5)
#define SOON HF_MS(20)
#define START_ALONE HF_MS(500) /* there is no holdfastd */
#define START_AT_LATEST HF_S(3)
#define TREE_SETTLE HF_S(5)
#define DUMP (JSON_COMPACT)

struct hf_sip_tree {
    struct hf_sip *s; /* borrowed */
    char name[HF_SERVICE_NAME_MAX + 1];
    struct holdfast *h;
    struct hf_io *io;
    struct hf_timer *timer;
    uint32_t watch, follow;
    struct hf_entry entry;
    hf_time opened_at, synced_at;
    bool out_of_reach;
    struct hf_sip_others *others;
    uint16_t n_names;          /* servers that the leader has heard of */
    struct hf_sip_server self; /* as the workers were told */
    bool told_self;
    bool is_here; /* the group's primary */
    char primary[HF_HOST_NAME_MAX + 1];
    uint64_t epoch;
    bool leads;
};

/* ---- what others tell ---- */

static void on_other(void *arg, const struct hf_sip_peer *peer, const struct hf_sip_load *load)
{
    struct hf_sip_tree *t = arg;
    hf_sip_names_tell(t->s->names, peer);
    hf_sip_lead_peer(t->s->lead, peer->name, &peer->now, load);
}

static void on_event(void *arg, enum holdfast_event event, const char *owner, const char *name,
                     const char *value)
{
    struct hf_sip_tree *t = arg;
    if (event == HOLDFAST_SYNCED) {
        t->synced_at = t->synced_at ? t->synced_at : hf_now();
        hf_sip_server_start(t->s);
        return;
    }
    const char *server = strrchr(name, '/') + 1;
    if (strcmp(name, t->name) == 0 || strlen(name) != strlen(PREFIX) + 1 + strlen(server)) {
        return;
    }
    if (event == HOLDFAST_REMOVED) {
        hf_sip_others_gone(t->others, owner, server);
    } else {
        hf_sip_others_hear(t->others, owner, server, value);
    }
}

/* ---- what this one tells ---- */

static void sum_figures(struct hf_sip *s, struct hf_sip_node_figures *sum, uint32_t *requests_s,
                        unsigned *cpu, bool *busy)
{
    struct hf_load load;
    memset(sum, 0, sizeof(*sum));
    *requests_s = *cpu = 0;
    *busy = false;
    for (unsigned i = 0; i < hf_sip_workers_n(s->workers); i++) {
        struct hf_sip_node_figures f;
        struct hf_sip_worker_figures w;
        hf_sip_node_figures(s->node[i], &f);
        hf_sip_worker_figures(hf_sip_worker(s->workers, i), &w);
        sum->info.rows += f.info.rows;
        sum->info.pinned += f.info.pinned;
        sum->info.bindings += f.info.bindings;
        sum->info.subs += f.info.subs;
        *requests_s += w.messages_s;
        *cpu += w.cpu;
        *busy = *busy || w.shed != HF_SIP_SHED_NOTHING;
    }
    hf_load_read(&load);
    *cpu /= load.cpus ? load.cpus : 1;
}

/* The first address of a transport on the side of the other servers; a service address, which may
 * be elsewhere, only if there is no other. */
static const struct hf_sip_listen *reached_at(const struct hf_sip *s, size_t transport)
{
    const struct hf_sip_listen *found = NULL;
    for (size_t i = 0; i < s->n_listen; i++) {
        const struct hf_sip_listen *l = &s->listen[i];
        if (l->transport == transport && !l->external &&
            (!found || (found->elsewhere && !l->elsewhere))) {
            found = l;
        }
    }
    return found;
}

/* Without brackets, as DNS wants it. */
static json_t *bare(struct hf_slice host)
{
    size_t brackets = host.n > 2 && host.p[0] == '[';
    return json_stringn((const char *)host.p + brackets, host.n - 2 * brackets);
}

static void add_addresses(const struct hf_sip *s, json_t *v)
{
    char text[HF_ADDR_STR_LEN];
    for (size_t k = 0; k < HF_ARRAY_LEN(hf_sip_others_address); k++) {
        const struct hf_sip_listen *l = reached_at(s, k);
        if (!l) {
            continue;
        }
        struct hf_addr a = hf_addr_from_endpoint(&l->at);
        json_object_set_new(v, hf_sip_others_address[k], json_string(hf_addr_str(&a, text)));
        if (!json_object_get(v, "host")) {
            json_object_set_new(v, "host", json_stringn((const char *)l->host.p, l->host.n));
            json_object_set_new(v, "port", json_integer(l->at.port));
            json_object_set_new(v, "address", bare(l->host));
        }
    }
}

static const char *state_name(const struct hf_sip *s)
{
    return s->draining ? "draining" : "live";
}

/* Changes of these are told at once. */
static json_t *state_of(struct hf_sip_tree *t, bool busy)
{
    const struct hf_sip_config *c = t->s->config;
    json_t *v = json_object();
    char boot[17];
    snprintf(boot, sizeof(boot), "%016" PRIx64, t->s->boot);
    json_object_set_new(v, "boot", json_string(boot));
    add_addresses(t->s, v);
    json_object_set_new(v, "role", json_string(hf_sip_role_name((enum hf_sip_role)c->sip.role)));
    json_object_set_new(v, "weight", json_integer(c->sip.weight));
    json_object_set_new(v, "state", json_string(state_name(t->s)));
    json_object_set_new(v, "busy", json_boolean(busy));
    json_object_set_new(v, "leads", json_boolean(t->leads));
    return v;
}

static void add_figures(json_t *v, const struct hf_sip_node_figures *f, uint32_t requests_s,
                        unsigned cpu)
{
    json_object_set_new(v, "rows", json_integer((json_int_t)f->info.rows));
    json_object_set_new(v, "pinned", json_integer((json_int_t)f->info.pinned));
    json_object_set_new(v, "bindings", json_integer((json_int_t)f->info.bindings));
    json_object_set_new(v, "subscriptions", json_integer((json_int_t)f->info.subs));
    json_object_set_new(v, "requests_s", json_integer(requests_s));
    json_object_set_new(v, "cpu", json_integer(cpu));
}

json_t *hf_sip_tree_self(struct hf_sip_tree *t)
{
    struct hf_sip_node_figures f;
    uint32_t requests_s;
    unsigned cpu;
    bool busy;
    sum_figures(t->s, &f, &requests_s, &cpu, &busy);
    json_t *v = state_of(t, busy);
    add_figures(v, &f, requests_s, cpu);
    return v;
}

json_t *hf_sip_tree_servers(struct hf_sip_tree *t)
{
    json_t *all = json_array(), *self = hf_sip_tree_self(t);
    json_object_set_new(self, "name", json_string(t->s->config->sip.name));
    json_array_append_new(all, self);
    hf_sip_others_list(t->others, all);
    return all;
}

static bool same_server(const struct hf_sip_server *a, const struct hf_sip_server *b)
{
    return a->state == b->state && a->homes == b->homes && a->busy == b->busy &&
           a->weight == b->weight;
}

/* The workers and the leader hear of this server as of any other. */
static void tell_self(struct hf_sip_tree *t, bool busy, const struct hf_sip_load *load)
{
    struct hf_sip *s = t->s;
    struct hf_sip_peer peer = {
        .name = hf_slice_str(s->config->sip.name),
        .now = {.state = s->draining ? HF_SIP_SERVER_DRAINING : HF_SIP_SERVER_LIVE,
                .homes = s->config->sip.role == HF_SIP_ROLE_HOME,
                .busy = busy,
                .weight = (uint16_t)s->config->sip.weight},
        .boot = s->boot};
    for (size_t k = 0; k < HF_ARRAY_LEN(hf_sip_others_address); k++) {
        const struct hf_sip_listen *l = reached_at(s, k);
        if (l) {
            peer.at[k] = l->at;
            peer.host = peer.host.n ? peer.host : l->host;
        }
    }
    bool same = t->told_self && same_server(&peer.now, &t->self);
    if (!same) {
        t->self = peer.now;
        t->told_self = true;
        hf_sip_names_tell(s->names, &peer);
    }
    hf_sip_lead_peer(s->lead, peer.name, &peer.now, load);
}

static void say(struct hf_sip_tree *t)
{
    struct hf_sip_node_figures f;
    uint32_t requests_s;
    unsigned cpu;
    bool busy;
    sum_figures(t->s, &f, &requests_s, &cpu, &busy);
    struct hf_sip_load load = {.clients = (uint32_t)f.info.rows,
                               .pinned = (uint32_t)f.info.pinned,
                               .requests_s = requests_s,
                               .cpu = cpu};
    tell_self(t, busy, &load);
    json_t *v = state_of(t, busy);
    char *state = json_dumps(v, DUMP), *value = NULL;
    if (t->s->started && hf_entry_due(&t->entry, state, hf_now())) {
        add_figures(v, &f, requests_s, cpu);
        value = json_dumps(v, DUMP);
    }
    json_decref(v);
    (void)!hf_entry_tell(&t->entry, state, value, hf_now());
}

/* ---- who leads ---- */

static void look_who_leads(struct hf_sip_tree *t)
{
    const struct hf_sip_config *c = t->s->config;
    bool alone = !*c->sip.group && strncmp(c->sip.database, "sqlite:", 7) == 0;
    bool known = t->synced_at && hf_now() - t->synced_at >= TREE_SETTLE;
    bool leads = alone || (t->is_here && known && !t->out_of_reach);
    if (leads != t->leads) {
        t->leads = leads;
        hf_sip_tree_touch(t);
    }
    hf_sip_lead_set(t->s->lead, leads, alone ? 0 : t->epoch, t->is_here ? "" : t->primary);
}

static void on_group(void *arg, const struct holdfast_group *g)
{
    struct hf_sip_tree *t = arg;
    t->is_here = g->is_here;
    (void)snprintf(t->primary, sizeof(t->primary), "%s", g->host);
    t->epoch = g->epoch;
    look_who_leads(t);
    if (g->member && g->quorate) { /* else nothing is known: it stays as it was */
        hf_sip_others_lost(t->others, g->lost);
    }
}

/* Servers that rows name and the tree never had. */
static void tell_unknown(struct hf_sip_tree *t)
{
    char name[HF_HOST_NAME_MAX + 1];
    struct hf_sip_server unknown = {.state = HF_SIP_SERVER_UNKNOWN};
    struct hf_sip_load none = {0};
    for (uint16_t n = hf_sip_names_count(t->s->names); t->n_names < n; t->n_names++) {
        hf_sip_names_name(t->s->names, t->n_names, name, sizeof(name));
        if (t->n_names > 0 && !hf_sip_others_known(t->others, name)) {
            hf_sip_lead_peer(t->s->lead, hf_slice_str(name), &unknown, &none);
        }
    }
}

static void on_timer(void *arg)
{
    struct hf_sip_tree *t = arg;
    hf_time waited = hf_now() - t->opened_at;
    bool none = holdfast_status(t->h) < 0 && waited > START_ALONE;
    if (!t->s->started && (none || waited > START_AT_LATEST)) {
        hf_log_warn("", "the tree is not known: this server takes itself for the only one");
        hf_sip_server_start(t->s);
    }
    tell_unknown(t);
    look_who_leads(t);
    say(t);
    hf_timer_set(t->timer, hf_now() + (t->s->started ? LOOK : SOON * 5));
}

void hf_sip_tree_touch(struct hf_sip_tree *t)
{
    if (t) {
        hf_timer_set(t->timer, hf_now() + SOON);
    }
}

/* ---- life ---- */

static void on_status(void *arg, int code)
{
    struct hf_sip_tree *t = arg;
    if (code < 0 && !t->out_of_reach) {
        hf_log_warn("",
                    "no word to or from other servers: no connection to holdfastd: %s; trying "
                    "again",
                    holdfast_strerror(code));
    } else if (code == 0 && t->out_of_reach) {
        hf_log_info("", "connected to holdfastd");
    }
    t->out_of_reach = code < 0;
    hf_sip_tree_touch(t);
}

static void on_io(void *arg, unsigned events)
{
    struct hf_sip_tree *t = arg;
    (void)events;
    (void)!holdfast_dispatch(t->h, 0); /* out of memory: it is readable again */
}

int hf_sip_tree_open(struct hf_sip *s, struct hf_err *err)
{
    struct hf_sip_tree *t = hf_alloc(sizeof(*t));
    if (!t) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    t->s = s;
    t->opened_at = hf_now();
    snprintf(t->name, sizeof(t->name), PREFIX "/%s", s->config->sip.name);
    t->others = hf_sip_others_create(on_other, t);
    int rc = t->others ? holdfast_create(NULL, "holdfast-sip", &t->h) : -ENOMEM;
    rc = rc ? rc : hf_timer_create(s->loop, on_timer, t, &t->timer);
    rc = rc ? rc : hf_io_create(s->loop, holdfast_fd(t->h), HF_IO_READ, on_io, t, &t->io);
    rc = rc ? rc : holdfast_watch(t->h, PREFIX, on_event, t, &t->watch);
    if (rc == 0 && *s->config->sip.group) {
        rc = holdfast_group_follow(t->h, s->config->sip.group, on_group, t, &t->follow);
    }
    if (rc) {
        hf_sip_tree_close(t);
        return hf_err_set(err, rc, "cannot watch other servers: %s", holdfast_strerror(rc));
    }
    s->tree = t;
    holdfast_on_status(t->h, on_status, t);
    t->entry = (struct hf_entry){.h = t->h,
                                 .name = t->name,
                                 .unseen = "other servers do not see this one",
                                 .figures = FIGURES};
    say(t);
    hf_timer_set(t->timer, hf_now() + SOON);
    (void)!holdfast_dispatch(t->h, 0); /* begins to connect */
    return 0;
}

void hf_sip_tree_close(struct hf_sip_tree *t)
{
    if (!t) {
        return;
    }
    hf_io_destroy(t->io);
    hf_timer_destroy(t->timer);
    holdfast_destroy(t->h);
    hf_sip_others_destroy(t->others);
    hf_entry_fini(&t->entry);
    hf_free(t);
}
