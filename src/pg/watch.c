#include "pg/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "core/pg/servers.h"
#include "holdfast/holdfast.h"
#include "lib/entry.h"
#include "os/load.h"
#include "os/loop.h"
#include "pg/route.h"
#include "pg/service.h"

#define WATCH_LOOK HF_S(1)    /* does the entry say what is? */
#define WATCH_FIGURES HF_S(5) /* between entries in which only figures differ */
#define WATCH_SOON HF_MS(20)  /* after a touch: several come together */
#define DUMP (JSON_COMPACT | JSON_REAL_PRECISION(8))
#define OTHERS_MAX HF_GROUP_MEMBERS_MAX

struct other {
    struct hf_list node;
    char host[HF_HOST_NAME_MAX + 1];
    json_t *value; /* owned */
    hf_time heard;
};

struct hf_pg_watch {
    struct hf_pg *pg;
    char group[HF_GROUP_NAME_MAX + 1], name[HF_SERVICE_NAME_MAX + 1];
    struct holdfast *h;     /* owned */
    struct hf_io *io;       /* owned */
    struct hf_timer *timer; /* owned */
    uint32_t watch;
    struct hf_entry entry;
    hf_time since, since_wall;       /* of pg->reign.unprotected_since */
    struct hf_pg_histogram requests; /* until it was told */
    bool out_of_reach;               /* logged */
    struct hf_list others;
    size_t n_others;
};

/* ---- what there is to tell ---- */

/* Two digits are enough of what changes all the time. */
static json_t *rounded(double v)
{
    return json_real((double)(int64_t)(v * 100 + 0.5) / 100);
}

/* Since when nobody is protected, as the world counts seconds: others have other clocks. */
static void note_since(struct hf_pg_watch *w)
{
    hf_time since = w->pg->reign.unprotected_since;
    if (since != w->since) {
        w->since = since;
        w->since_wall = hf_wall_now() - (hf_now() - since);
    }
}

/* How this reign began, if it took over. */
static void add_takeover(const struct hf_pg_watch *w, json_t *v)
{
    const struct hf_pg_takeover_stats *t = &w->pg->takeovers;
    if (t->last.kind == HF_PG_TAKEOVER_FIRST || t->last.epoch != w->pg->reign.epoch) {
        return;
    }
    json_t *took = json_object();
    json_object_set_new(took, "kind", json_string(hf_pg_takeover_kind_name(t->last.kind)));
    json_object_set_new(took, "epoch", json_integer((json_int_t)t->last.epoch));
    json_object_set_new(took, "ms", json_integer((json_int_t)(t->last.took / HF_NS_PER_MS)));
    json_object_set_new(took, "sessions", json_integer((json_int_t)t->last.sessions));
    json_object_set_new(took, "restored", json_integer((json_int_t)t->last.restored));
    json_object_set_new(v, "takeover", took);
}

/* Changes of these are told at once. */
static json_t *state_of(const struct hf_pg_watch *w, const struct hf_pg_service_info *i)
{
    const struct hf_pg_reign *r = &w->pg->reign;
    char address[HF_ADDR_STR_LEN];
    json_t *v = json_object();
    json_object_set_new(v, "group", json_string(w->group));
    json_object_set_new(v, "service",
                        json_string(hf_addr_str(&w->pg->config->service.address, address)));
    json_object_set_new(v, "role", json_string(hf_pg_role_name(i->role)));
    json_object_set_new(v, "epoch", json_integer((json_int_t)i->epoch));
    json_object_set_new(v, "peer", json_string(i->peer));
    if (i->leading) {
        const char *why = hf_pg_protection_state_why(i->primary.state, i->primary.code);
        json_object_set_new(v, "pair", json_string(hf_pair_state_name(i->primary.state)));
        json_object_set_new(v, "why", json_string(why));
        if (r->unprotected_since != HF_NEVER) {
            json_object_set_new(v, "unprotected_since", json_integer(w->since_wall / HF_NS_PER_S));
        }
        add_takeover(w, v);
    } else if (i->role == HF_PG_ROLE_BACKUP) {
        json_object_set_new(v, "pair", json_string(hf_pair_backup_state_name(i->backup.state)));
        json_object_set_new(v, "complete", json_boolean(i->backup.complete));
    }
    return v;
}

static json_t *servers_of(const struct hf_pg_watch *w)
{
    const struct hf_pg_servers *servers = hf_pg_route_servers(w->pg->route);
    struct hf_pg_server_info i;
    uint32_t pos = 0, n;
    json_t *all = json_array();
    while (hf_pg_servers_info(servers, &pos, &n, &i)) {
        json_t *v = json_object();
        json_object_set_new(v, "name", json_string(i.name));
        json_object_set_new(v, "state", json_string(hf_pg_server_state_name(i.state)));
        json_object_set_new(v, "sessions", json_integer(i.n_sessions));
        json_object_set_new(v, "lag_bytes", json_integer((json_int_t)i.lag));
        if (*i.why) {
            json_object_set_new(v, "why", json_string(i.why));
        }
        json_array_append_new(all, v);
    }
    return all;
}

static void add_sessions(const struct hf_pg_watch *w, json_t *v)
{
    struct hf_pg_protection_counts n;
    hf_pg_protection_count(w->pg, &n);
    json_t *reasons = json_object();
    for (size_t i = 0; i < n.n_reasons; i++) {
        json_object_set_new(reasons, n.reason[i].why, json_integer((json_int_t)n.reason[i].n));
    }
    json_object_set_new(v, "sessions", json_integer((json_int_t)n.sessions));
    json_object_set_new(v, "protected", json_integer((json_int_t)n.n_protected));
    json_object_set_new(v, "unprotected", reasons);
}

static void join_requests(const struct hf_pg *pg, struct hf_pg_histogram *all)
{
    size_t pos = 0;
    memset(all, 0, sizeof(*all));
    for (const struct hf_pg_database *d; (d = hf_map_next(&pg->databases, &pos));) {
        hf_pg_histogram_join(all, &d->stats.query);
    }
}

/* What requests took since we told last; a client that had to wait shows as the slowest. */
static void add_latency(const struct hf_pg_watch *w, json_t *v)
{
    struct hf_pg_histogram all;
    join_requests(w->pg, &all);
    if (all.count > w->requests.count) {
        static const struct {
            const char *name;
            double q;
        } of[] = {{"p50", 0.5}, {"p99", 0.99}, {"slowest", 1}};
        json_t *ms = json_object();
        for (size_t i = 0; i < HF_ARRAY_LEN(of); i++) {
            double took = hf_pg_histogram_quantile_ms(&all, &w->requests, of[i].q);
            json_object_set_new(ms, of[i].name, json_real(took));
        }
        json_object_set_new(v, "latency_ms", ms);
    }
}

static void add_figures(const struct hf_pg_watch *w, const struct hf_pg_service_info *i, json_t *v)
{
    struct hf_load load;
    add_sessions(w, v);
    if (i->leading) {
        hf_time total = hf_pg_reign_unprotected(&w->pg->reign, hf_now());
        json_object_set_new(v, "lag_bytes", json_integer((json_int_t)i->primary.lag_bytes));
        json_object_set_new(v, "lag_ms", rounded((double)i->primary.lag_age / HF_NS_PER_MS));
        json_object_set_new(v, "unprotected_s", rounded((double)total / HF_NS_PER_S));
        add_latency(w, v);
    } else {
        json_object_set_new(v, "stored", json_integer((json_int_t)i->backup.sessions));
        json_object_set_new(v, "stored_bytes", json_integer((json_int_t)i->backup.bytes));
    }
    hf_load_read(&load);
    json_object_set_new(v, "load", rounded(load.running));
    json_object_set_new(v, "cpus", json_integer(load.cpus));
    json_object_set_new(v, "memory_mib", json_integer((json_int_t)(load.memory_available >> 20)));
    json_object_set_new(v, "servers", servers_of(w));
}

json_t *hf_pg_watch_self(struct hf_pg_watch *w)
{
    struct hf_pg_service_info i;
    note_since(w);
    hf_pg_service_info(w->pg->service, &i);
    json_t *v = state_of(w, &i);
    add_figures(w, &i, v);
    return v;
}

/* ---- telling ---- */

/* Say what is, if that is due. */
static void look(struct hf_pg_watch *w)
{
    struct hf_pg_service_info i;
    note_since(w);
    hf_pg_service_info(w->pg->service, &i);
    json_t *v = state_of(w, &i);
    char *state = json_dumps(v, DUMP), *value = NULL;
    if (hf_entry_due(&w->entry, state, hf_now())) {
        add_figures(w, &i, v);
        value = json_dumps(v, DUMP);
    }
    json_decref(v);
    if (hf_entry_tell(&w->entry, state, value, hf_now())) {
        join_requests(w->pg, &w->requests);
    }
}

static void on_timer(void *arg)
{
    struct hf_pg_watch *w = arg;
    look(w);
    hf_timer_set(w->timer, hf_now() + WATCH_LOOK);
}

void hf_pg_watch_touch(struct hf_pg_watch *w)
{
    if (w && *w->group) {
        hf_timer_set(w->timer, hf_now() + WATCH_SOON);
    }
}

/* ---- hearing ---- */

static struct other *find(struct hf_pg_watch *w, const char *host)
{
    HF_LIST_FOREACH (node, &w->others) {
        struct other *o = HF_CONTAINER_OF(node, struct other, node);
        if (strcmp(o->host, host) == 0) {
            return o;
        }
    }
    return NULL;
}

static void forget(struct hf_pg_watch *w, struct other *o)
{
    hf_list_unlink(&o->node);
    w->n_others--;
    json_decref(o->value);
    hf_free(o);
}

static void hear(struct hf_pg_watch *w, const char *host, const char *text)
{
    json_t *value = json_loads(text, 0, NULL);
    struct other *o = find(w, host);
    if (!json_is_object(value) ||
        (!o && (w->n_others == OTHERS_MAX || !(o = hf_alloc(sizeof(*o)))))) {
        json_decref(value);
        return;
    }
    if (!*o->host) {
        snprintf(o->host, sizeof(o->host), "%s", host);
        hf_list_insert(&w->others, &o->node);
        w->n_others++;
        hf_log_info("", "the manager of %s is there", host);
    }
    json_decref(o->value);
    o->value = value;
    o->heard = hf_now();
}

static void on_event(void *arg, enum holdfast_event event, const char *owner, const char *name,
                     const char *value)
{
    struct hf_pg_watch *w = arg;
    if (event == HOLDFAST_SYNCED || strcmp(name, w->name) != 0 ||
        strcmp(owner, hf_pg_service_host(w->pg->service)) == 0) {
        return;
    }
    if (event != HOLDFAST_REMOVED) {
        hear(w, owner, value);
        return;
    }
    struct other *o = find(w, owner);
    if (o) {
        hf_log_info("", "the manager of %s is gone", owner);
        forget(w, o);
    }
}

bool hf_pg_watch_next(const struct hf_pg_watch *w, size_t *pos, struct hf_pg_manager *ret)
{
    size_t i = 0;
    HF_LIST_FOREACH (node, &w->others) {
        if (i++ == *pos) {
            const struct other *o = HF_CONTAINER_OF(node, struct other, node);
            *ret = (struct hf_pg_manager){.host = o->host, .value = o->value, .heard = o->heard};
            ++*pos;
            return true;
        }
    }
    return false;
}

/* ---- life ---- */

static void on_status(void *arg, int code)
{
    struct hf_pg_watch *w = arg;
    if (code < 0 && !w->out_of_reach) {
        hf_log_warn("",
                    "no word to or from the other managers: no connection to holdfastd: %s; "
                    "trying again",
                    holdfast_strerror(code));
    } else if (code == 0 && w->out_of_reach) {
        hf_log_info("", "connected to holdfastd");
    }
    w->out_of_reach = code < 0;
}

static void on_io(void *arg, unsigned events)
{
    struct hf_pg_watch *w = arg;
    (void)events;
    (void)!holdfast_dispatch(w->h, 0); /* out of memory: it is readable again */
}

void hf_pg_watch_named(struct hf_pg_watch *w, const char *group)
{
    if (!w || !*group || strcmp(group, w->group) == 0) {
        return;
    }
    if (*w->group) { /* the address has become another group's */
        (void)!holdfast_withdraw(w->h, w->name, NULL, NULL);
        (void)!holdfast_unwatch(w->h, w->watch);
        HF_LIST_FOREACH (node, &w->others) {
            forget(w, HF_CONTAINER_OF(node, struct other, node));
        }
    }
    snprintf(w->group, sizeof(w->group), "%s", group);
    snprintf(w->name, sizeof(w->name), "/manager/%s", w->group);
    hf_entry_forget(&w->entry);
    int rc = holdfast_watch(w->h, w->name, on_event, w, &w->watch);
    if (rc) {
        hf_log_warn("", "cannot watch %s: %s", w->name, holdfast_strerror(rc));
    }
    hf_pg_watch_touch(w);
    (void)!holdfast_dispatch(w->h, 0); /* begins to connect */
}

int hf_pg_watch_open(struct hf_pg *pg, struct hf_err *err, struct hf_pg_watch **ret_watch)
{
    *ret_watch = NULL;
    if (!pg->service) {
        return 0;
    }
    struct hf_pg_watch *w = hf_alloc(sizeof(*w));
    if (!w) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    w->pg = pg;
    hf_list_init(&w->others);
    int rc = holdfast_create(NULL, "holdfast-pg", &w->h);
    rc = rc ? rc : hf_timer_create(pg->loop, on_timer, w, &w->timer);
    rc = rc ? rc : hf_io_create(pg->loop, holdfast_fd(w->h), HF_IO_READ, on_io, w, &w->io);
    if (rc) {
        hf_pg_watch_close(w);
        return hf_err_set(err, rc, "cannot watch other managers: %s", holdfast_strerror(rc));
    }
    holdfast_on_status(w->h, on_status, w);
    w->entry = (struct hf_entry){.h = w->h,
                                 .name = w->name,
                                 .unseen = "other hosts do not see this manager",
                                 .figures = WATCH_FIGURES};
    *ret_watch = w;
    return 0;
}

void hf_pg_watch_close(struct hf_pg_watch *w)
{
    if (!w) {
        return;
    }
    HF_LIST_FOREACH (node, &w->others) {
        forget(w, HF_CONTAINER_OF(node, struct other, node));
    }
    hf_io_destroy(w->io);
    hf_timer_destroy(w->timer);
    holdfast_destroy(w->h);
    hf_entry_fini(&w->entry);
    hf_free(w);
}
