/* Drives the servers core: seats of clients, monitors, the group, planned switchovers. */
#include "pg/route.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "holdfast/holdfast.h"
#include "pg/group.h"
#include "pg/monitor.h"

#define FREEZE_POLL HF_MS(2) /* how often sessions are looked at until all are at rest */

struct hf_pg_route {
    struct hf_pg *pg;
    struct hf_pg_servers *servers;
    struct hf_pg_monitors *monitors;
    struct hf_pg_group *group; /* NULL: a static list */
    char *group_name;          /* owned; of `group` */
    char primary_host[64];     /* the group's, and where it is */
    char primary_address[HF_GROUP_ADDRESS_MAX + 1];
    char former_host[64]; /* while another one is on its way: sessions are there still */
    char former_address[HF_GROUP_ADDRESS_MAX + 1];
    bool others_write;
    struct hf_pg_target *target[HF_PG_SERVERS_MAX]; /* by the core's numbers */
    struct hf_poll_task task;
    struct hf_poll_timer timer;
};

/* What the core knows of one wanted or had connection. */
struct seat {
    struct hf_pg_seat core;
    struct hf_pg_seating *of;
};

static void later(struct hf_pg_route *r)
{
    hf_poll_task_add(r->pg->wire->poll, &r->task);
}

/* ---- freezing (X15) ---- */

bool hf_pg_route_holds(const struct hf_pg_route *r)
{
    return hf_pg_servers_switch_state(r->servers) != HF_PG_SWITCH_NONE;
}

static bool writes(const struct hf_pg_client *c)
{
    return c->session != NULL && !c->ended && !c->read_only;
}

/* Sessions that have something under way on their server still. */
static size_t busy(const struct hf_pg_route *r)
{
    size_t n_busy = 0;
    HF_LIST_FOREACH (n, &r->pg->clients) {
        const struct hf_pg_client *c = HF_CONTAINER_OF(n, struct hf_pg_client, node);
        if (writes(c)) {
            struct hf_pg_session_info info;
            hf_pg_session_info(c->session, &info);
            n_busy += info.active || (info.tx != 'I' && info.tx != 0);
        }
    }
    return n_busy;
}

/* ---- doing what the core says ---- */

static void log_event(const struct hf_pg_servers_out *o)
{
    if (o->warn) {
        hf_log_warn("servers", "%s", o->text);
    } else {
        hf_log_info("servers", "%s", o->text);
    }
}

static void attach(struct hf_pg_route *r, struct seat *s)
{
    struct hf_pg_backend backend;
    hf_pg_servers_backend(r->servers, &s->core, &backend);
    hf_pg_client_attach(s->of, &backend);
}

static void refuse(struct seat *s, const char *why)
{
    struct hf_pg_seating *of = s->of;
    of->route = NULL;
    hf_free(s);
    hf_pg_client_refuse(of, "57P03", why);
}

/* What concerns one connection of a session. */
static void do_seat(struct hf_pg_route *r, const struct hf_pg_servers_out *o)
{
    struct seat *s = HF_CONTAINER_OF(o->seat, struct seat, core);
    char why[256];
    switch (o->kind) {
    case HF_PG_SERVERS_LOGIN:
        hf_pg_client_login_at(s->of, r->target[o->server], s->core.incarnation);
        break;
    case HF_PG_SERVERS_ATTACH:
        attach(r, s);
        break;
    case HF_PG_SERVERS_REFUSE:
        (void)snprintf(why, sizeof(why), "the database system is not available: %s", o->text);
        refuse(s, why);
        break;
    case HF_PG_SERVERS_GONE:
        (void)snprintf(why, sizeof(why), "%s", o->text);
        hf_pg_client_server_gone(s->of, why);
        break;
    case HF_PG_SERVERS_MOVE:
        hf_pg_session_move(s->of->client->session, hf_pg_now(r->pg));
        hf_pg_client_touched(s->of->client, false);
        break;
    case HF_PG_SERVERS_FREEZE:
    case HF_PG_SERVERS_THAW:
    case HF_PG_SERVERS_PROBE:
    case HF_PG_SERVERS_PROMOTE:
    case HF_PG_SERVERS_RESET:
    case HF_PG_SERVERS_EVENT:
        break;
    }
}

static void do_one(struct hf_pg_route *r, const struct hf_pg_servers_out *o)
{
    switch (o->kind) {
    case HF_PG_SERVERS_LOGIN:
    case HF_PG_SERVERS_ATTACH:
    case HF_PG_SERVERS_REFUSE:
    case HF_PG_SERVERS_GONE:
    case HF_PG_SERVERS_MOVE:
        do_seat(r, o);
        break;
    case HF_PG_SERVERS_FREEZE:
    case HF_PG_SERVERS_THAW:
        hf_pg_clients_hold(r->pg);
        break;
    case HF_PG_SERVERS_PROBE:
        hf_pg_monitor_probe(r->monitors, o->server, r->target[o->server]);
        break;
    case HF_PG_SERVERS_PROMOTE:
        hf_pg_monitor_promote(r->monitors, o->server);
        break;
    case HF_PG_SERVERS_RESET:
        hf_pg_monitor_reset(r->monitors, o->server);
        break;
    case HF_PG_SERVERS_EVENT:
        log_event(o);
        break;
    }
}

/* Why a session can't be moved may have changed: it is asked when that is of interest. */
static void note_reasons(struct hf_pg_route *r)
{
    HF_LIST_FOREACH (n, &r->pg->clients) {
        const struct hf_pg_client *c = HF_CONTAINER_OF(n, struct hf_pg_client, node);
        for (int i = 0; i < 2 && c->session != NULL; i++) {
            struct seat *s = c->seat[i].route;
            if (s != NULL) {
                struct hf_pg_session_info info;
                hf_pg_session_info(c->session, &info);
                s->core.reasons = info.reasons & HF_PG_REASONS_STICKY;
            }
        }
    }
}

static void run(struct hf_pg_route *r)
{
    struct hf_pg_servers_out o;
    hf_time now = hf_pg_now(r->pg), next;
    hf_pg_servers_step(r->servers, now);
    if (hf_pg_servers_switch_state(r->servers) == HF_PG_SWITCH_FREEZING) {
        hf_pg_servers_at_rest(r->servers, busy(r), now);
    }
    while (hf_pg_servers_next(r->servers, now, &o)) {
        do_one(r, &o);
    }
    next = hf_pg_servers_deadline(r->servers);
    if (hf_pg_servers_switch_state(r->servers) == HF_PG_SWITCH_FREEZING) {
        next = hf_time_min(next, now + FREEZE_POLL);
    }
    hf_poll_timer_set(r->pg->wire->poll, &r->timer, next);
}

static void on_task(struct hf_poll_task *t)
{
    run(HF_CONTAINER_OF(t, struct hf_pg_route, task));
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    later(HF_CONTAINER_OF(t, struct hf_pg_route, timer));
}

static void on_monitor(void *arg)
{
    run(arg);
}

/* ---- the list ---- */

static void set_targets(struct hf_pg_route *r, const struct hf_pg_server_conf *list,
                        struct hf_pg_target *const *target, size_t n)
{
    if (hf_pg_servers_set(r->servers, list, n, hf_pg_now(r->pg)) != 0) {
        hf_log_warn("servers",
                    "more servers than %d, counting those that are being left: the list "
                    "stays as it was",
                    HF_PG_SERVERS_MAX);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t at = hf_pg_servers_find(r->servers, list[i].name);
        struct hf_pg_target *old = r->target[at];
        if (old != NULL &&
            (strcmp(old->host, target[i]->host) != 0 || old->port != target[i]->port)) {
            hf_pg_monitor_reset(r->monitors, at);
            hf_pg_servers_failed(r->servers, at, "", "its address was changed", hf_pg_now(r->pg));
        }
        r->target[at] = hf_pg_target_ref(target[i]);
        hf_pg_target_unref(old);
    }
}

/* A host of the group, unless it is in the list. */
static void add_member(const struct hf_pg_route *r, struct hf_pg_server_conf *list,
                       struct hf_pg_target **target, size_t *n, const char *host,
                       const char *address)
{
    bool known = *address == 0 || *n == HF_PG_SERVERS_MAX;
    for (size_t i = 0; i < *n; i++) {
        known |= strcmp(target[i]->host, address) == 0;
    }
    if (!known && hf_pg_target_create(host, address, (uint16_t)r->pg->config->servers.port, 1,
                                      &target[*n]) == 0) {
        list[*n] =
            (struct hf_pg_server_conf){.name = target[*n]->name, .address = target[*n]->host};
        (*n)++;
    }
}

/* The servers of the configuration, and the group's primary if it is none of them. */
static void set_list(struct hf_pg_route *r)
{
    const struct hf_pg_config *c = r->pg->config;
    struct hf_pg_server_conf list[HF_PG_SERVERS_MAX];
    struct hf_pg_target *target[HF_PG_SERVERS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < c->server.n && n < HF_PG_SERVERS_MAX; i++) {
        const struct hf_pg_server_config *s = hf_pg_config_server(c, i);
        if (hf_pg_target_create(s->title.name, s->host, (uint16_t)s->port, (uint16_t)s->weight,
                                &target[n]) == 0) {
            list[n] =
                (struct hf_pg_server_conf){.name = target[n]->name,
                                           .address = *c->servers.group ? target[n]->host : "",
                                           .weight = (uint16_t)s->weight};
            n++;
        }
    }
    add_member(r, list, target, &n, r->primary_host, r->primary_address);
    add_member(r, list, target, &n, r->former_host, r->former_address);
    set_targets(r, list, target, n);
    while (n > 0) {
        hf_pg_target_unref(target[--n]);
    }
}

static void on_group(void *arg, const struct hf_pg_group_view *view, const char *host)
{
    struct hf_pg_route *r = arg;
    bool moved = view->address[0] != 0 && strcmp(view->address, r->primary_address) != 0;
    bool settled = view->phase == HOLDFAST_RUNNING && r->former_address[0] != 0;
    if (moved) {
        (void)snprintf(r->former_address, sizeof(r->former_address), "%s", r->primary_address);
        (void)snprintf(r->former_host, sizeof(r->former_host), "%s", r->primary_host);
        (void)snprintf(r->primary_address, sizeof(r->primary_address), "%s", view->address);
        (void)snprintf(r->primary_host, sizeof(r->primary_host), "%s", host);
    }
    if (settled) {
        r->former_address[0] = 0;
    }
    if (moved || settled) {
        set_list(r);
    }
    hf_pg_servers_group(r->servers, view, hf_pg_now(r->pg));
    later(r);
}

static void servers_conf(const struct hf_pg_route *r, struct hf_pg_servers_conf *ret)
{
    const struct hf_pg_config *c = r->pg->config;
    *ret = (struct hf_pg_servers_conf){
        .group = *c->servers.group != 0,
        .exclusive = c->servers.exclusive && !r->others_write,
        .balance = c->servers.balance,
        .health_interval = HF_MS(c->servers.health_interval_ms),
        .health_timeout = HF_MS(c->servers.health_timeout_ms),
        .hold_timeout = HF_MS(c->session.hold_timeout_ms),
        .balance_tick = HF_MS(c->servers.balance_tick_ms),
        .balance_dead_zone = (unsigned)c->servers.balance_dead_zone,
        .balance_rate = (unsigned)c->servers.balance_rate,
    };
}

/* Follow another group, or none. */
static int follow(struct hf_pg_route *r, struct hf_err *err)
{
    const char *name = r->pg->config->servers.group;
    if (r->group_name != NULL && strcmp(r->group_name, name) == 0) {
        return 0;
    }
    hf_pg_group_destroy(r->group);
    r->group = NULL;
    r->primary_address[0] = 0;
    int rc = hf_conf_set_string(&r->group_name, name);
    if (rc == 0 && *name != 0) {
        rc = hf_pg_group_create(r->pg->loop, name, NULL, on_group, r, err, &r->group);
    }
    return rc;
}

void hf_pg_route_reconf(struct hf_pg_route *r)
{
    struct hf_pg_servers_conf conf;
    struct hf_err err = {0};
    servers_conf(r, &conf);
    hf_pg_servers_reconf(r->servers, &conf, hf_pg_now(r->pg));
    if (follow(r, &err) != 0) {
        hf_log_err("servers", "%s", err.text);
    }
    set_list(r);
    later(r);
}

/* ---- life ---- */

int hf_pg_route_create(struct hf_pg *pg, struct hf_err *err, struct hf_pg_route **ret_route)
{
    struct hf_pg_route *r = hf_alloc(sizeof(*r));
    struct hf_pg_servers_conf conf;
    if (r == NULL) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    r->pg = pg;
    r->task.fn = on_task;
    r->timer.fn = on_timer;
    hf_list_init(&r->task.node);
    servers_conf(r, &conf);
    int rc = hf_poll_reserve(pg->wire->poll, 1);
    if (rc != 0) {
        hf_free(r);
        return hf_err_set(err, rc, "out of memory");
    }
    rc = hf_pg_servers_create(&conf, hf_pg_now(pg), &r->servers);
    rc = rc != 0 ? rc : hf_pg_monitors_create(pg, r->servers, on_monitor, r, &r->monitors);
    if (rc != 0) {
        hf_err_set(err, rc, "cannot watch servers: %s", hf_strerror(rc));
    }
    rc = rc != 0 ? rc : follow(r, err);
    if (rc != 0) {
        hf_pg_route_destroy(r);
        return rc;
    }
    set_list(r);
    later(r);
    *ret_route = r;
    return 0;
}

void hf_pg_route_destroy(struct hf_pg_route *r)
{
    if (r == NULL) {
        return;
    }
    hf_pg_group_destroy(r->group);
    hf_pg_monitors_destroy(r->monitors);
    hf_pg_servers_destroy(r->servers);
    hf_poll_timer_set(r->pg->wire->poll, &r->timer, HF_NEVER);
    (void)!hf_poll_reserve(r->pg->wire->poll, -1);
    hf_list_unlink(&r->task.node);
    for (size_t i = 0; i < HF_PG_SERVERS_MAX; i++) {
        hf_pg_target_unref(r->target[i]);
    }
    hf_free(r->group_name);
    hf_free(r);
}

/* ---- seats ---- */

int hf_pg_route_need(struct hf_pg_route *r, struct hf_pg_seating *of, uint64_t lost)
{
    struct seat *s = hf_alloc(sizeof(*s));
    if (s == NULL) {
        return -ENOMEM;
    }
    s->of = of;
    of->route = s;
    hf_pg_servers_need(r->servers, &s->core,
                       of->client->read_only ? HF_PG_READ_ONLY : HF_PG_READ_WRITE,
                       of->side == HF_PG_SPARE, lost, hf_pg_now(r->pg));
    later(r);
    return 0;
}

static struct seat *seat_of(struct hf_pg_seating *of)
{
    return of->route;
}

void hf_pg_route_seated(struct hf_pg_route *r, struct hf_pg_seating *of)
{
    hf_pg_servers_seated(r->servers, &seat_of(of)->core, hf_pg_now(r->pg));
    later(r);
}

void hf_pg_route_seated_before(struct hf_pg_route *r, struct hf_pg_seating *of)
{
    hf_pg_servers_seated_before(r->servers, &seat_of(of)->core, hf_pg_now(r->pg));
    later(r);
}

void hf_pg_route_login_failed(struct hf_pg_route *r, struct hf_pg_seating *of)
{
    hf_pg_servers_login_failed(r->servers, &seat_of(of)->core, hf_pg_now(r->pg));
    later(r);
}

uint64_t hf_pg_route_leave(struct hf_pg_route *r, struct hf_pg_seating *of)
{
    struct seat *s = seat_of(of);
    if (s == NULL) {
        return HF_PG_INCARNATION_UNKNOWN;
    }
    uint64_t lost = hf_pg_servers_leave(r->servers, &s->core, hf_pg_now(r->pg));
    of->route = NULL;
    hf_free(s);
    later(r);
    return lost;
}

void hf_pg_route_recovered(struct hf_pg_route *r, struct hf_pg_seating *of)
{
    if (seat_of(of) != NULL) {
        hf_pg_servers_recovered(r->servers, &seat_of(of)->core, hf_pg_now(r->pg));
        later(r);
    }
}

void hf_pg_route_moved(struct hf_pg_route *r, struct hf_pg_seating *of, bool moved)
{
    if (seat_of(of) != NULL) {
        hf_pg_servers_move_done(r->servers, &seat_of(of)->core, moved, hf_pg_now(r->pg));
        later(r);
    }
}

size_t hf_pg_route_identity(const struct hf_pg_seating *of, uint8_t *buf)
{
    const struct seat *s = of->route;
    return s != NULL && s->core.state == HF_PG_SEAT_TAKEN
               ? hf_pg_servers_identity(of->client->pg->route->servers, s->core.incarnation, buf)
               : 0;
}

uint64_t hf_pg_route_known(struct hf_pg_route *r, struct hf_slice identity)
{
    return hf_pg_servers_known(r->servers, identity);
}

void hf_pg_route_others_write(struct hf_pg_route *r, bool others_write)
{
    struct hf_pg_servers_conf conf;
    r->others_write = others_write;
    servers_conf(r, &conf);
    hf_pg_servers_reconf(r->servers, &conf, hf_pg_now(r->pg));
    later(r);
}

/* ---- others ---- */

struct hf_pg_target *hf_pg_route_own(struct hf_pg_route *r)
{
    uint32_t best = hf_pg_servers_primary(r->servers), pos = 0, server;
    struct hf_pg_server_info info;
    while (best == HF_PG_SERVER_NONE && hf_pg_servers_info(r->servers, &pos, &server, &info)) {
        best = info.state == HF_PG_SERVER_STANDBY ? server : best;
    }
    return best != HF_PG_SERVER_NONE ? r->target[best] : NULL;
}

struct hf_pg_target *hf_pg_route_primary(struct hf_pg_route *r, uint64_t *ret_incarnation)
{
    uint32_t primary = hf_pg_servers_primary(r->servers), pos = 0, server;
    struct hf_pg_server_info info;
    *ret_incarnation = 0;
    while (primary != HF_PG_SERVER_NONE && hf_pg_servers_info(r->servers, &pos, &server, &info)) {
        if (server == primary) {
            *ret_incarnation = info.incarnation;
            return r->target[server];
        }
    }
    return NULL;
}

int hf_pg_route_errand(struct hf_pg_route *r, struct hf_slice sql,
                       void (*fn)(void *arg, const char *why), void *arg)
{
    uint32_t primary = hf_pg_servers_primary(r->servers);
    return primary == HF_PG_SERVER_NONE ? -HF_ENOTREADY
                                        : hf_pg_monitor_errand(r->monitors, primary, sql, fn, arg);
}

void hf_pg_route_errand_forget(struct hf_pg_route *r, const void *arg)
{
    hf_pg_monitor_errand_forget(r->monitors, arg);
}

const struct hf_pg_servers *hf_pg_route_servers(const struct hf_pg_route *r)
{
    return r->servers;
}

const struct hf_pg_target *hf_pg_route_target(const struct hf_pg_route *r, uint32_t server)
{
    return server < HF_PG_SERVERS_MAX ? r->target[server] : NULL;
}

int hf_pg_route_drain(struct hf_pg_route *r, const char *name, bool on)
{
    uint32_t server = hf_pg_servers_find(r->servers, name);
    if (server == HF_PG_SERVER_NONE) {
        return -HF_ENOTFOUND;
    }
    note_reasons(r);
    hf_pg_servers_drain(r->servers, server, on, hf_pg_now(r->pg));
    later(r);
    return 0;
}

int hf_pg_route_switchover(struct hf_pg_route *r, const char *name, hf_time limit)
{
    uint32_t to = name != NULL ? hf_pg_servers_find(r->servers, name) : HF_PG_SERVER_NONE;
    if (name != NULL && to == HF_PG_SERVER_NONE) {
        return -HF_ENOTFOUND;
    }
    later(r);
    return hf_pg_servers_switchover(r->servers, to, limit, hf_pg_now(r->pg));
}
