/* Stand-in for the servers core: the first server of the list, at once. */
#include "pg/route.h"

#include <errno.h>

#include "base/log.h"
#include "base/mem.h"

#define RETRY HF_MS(200)

struct hf_pg_route {
    struct hf_pg *pg;
    struct hf_pg_target *target[HF_PG_SERVERS_MAX];
    size_t n;
    struct hf_list asks;
    struct hf_poll_timer timer;
};

struct ask {
    struct hf_list node;
    struct hf_pg_seating *seat;
    hf_time at, until;
    bool attach, done;
};

static void free_targets(struct hf_pg_route *r)
{
    while (r->n) {
        hf_pg_target_unref(r->target[--r->n]);
    }
}

void hf_pg_route_reconf(struct hf_pg_route *r)
{
    const struct hf_pg_config *c = r->pg->config;
    free_targets(r);
    for (size_t i = 0; i < c->server.n && r->n < HF_PG_SERVERS_MAX; i++) {
        const struct hf_pg_server_config *s = hf_pg_config_server(c, i);
        if (hf_pg_target_create(s->title.name, s->host, (uint16_t)s->port, (uint16_t)s->weight,
                                &r->target[r->n]) == 0) {
            r->n++;
        }
    }
}

static void free_ask(struct ask *a)
{
    a->seat->route = NULL;
    hf_list_unlink(&a->node);
    hf_free(a);
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg_route *r = HF_CONTAINER_OF(t, struct hf_pg_route, timer);
    hf_time next = HF_NEVER;
    HF_LIST_FOREACH (node, &r->asks) {
        struct ask *a = HF_CONTAINER_OF(node, struct ask, node);
        if (a->done) {
            continue;
        }
        if (a->at > now) {
            next = hf_time_min(next, a->at);
            continue;
        }
        a->done = true;
        if (a->attach) {
            struct hf_pg_backend b = {.incarnation = 1, .same = true};
            hf_pg_client_attach(a->seat, &b);
        } else if (now > a->until) {
            struct hf_pg_seating *s = a->seat;
            free_ask(a);
            hf_pg_client_refuse(s, "57P03", "the database system is not available");
        } else {
            hf_pg_client_login_at(a->seat, r->target[0]);
        }
    }
    if (next != HF_NEVER && (!r->timer.pos || next < r->timer.at)) {
        hf_poll_timer_set(r->pg->wire->poll, &r->timer, next);
    }
}

static void plan(struct hf_pg_route *r, struct ask *a, hf_time at, bool attach)
{
    a->at = at;
    a->attach = attach;
    a->done = false;
    if (!r->timer.pos || at < r->timer.at) {
        hf_poll_timer_set(r->pg->wire->poll, &r->timer, at);
    }
}

int hf_pg_route_create(struct hf_pg *pg, struct hf_err *err, struct hf_pg_route **ret_route)
{
    struct hf_pg_route *r = hf_alloc(sizeof(*r));
    if (!r || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(r);
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    r->pg = pg;
    r->timer.fn = on_timer;
    hf_list_init(&r->asks);
    hf_pg_route_reconf(r);
    *ret_route = r;
    return 0;
}

void hf_pg_route_destroy(struct hf_pg_route *r)
{
    if (r) {
        hf_poll_timer_set(r->pg->wire->poll, &r->timer, HF_NEVER);
        free_targets(r);
        hf_free(r);
    }
}

int hf_pg_route_need(struct hf_pg_route *r, struct hf_pg_seating *s, uint64_t lost)
{
    (void)lost;
    struct ask *a = hf_alloc(sizeof(*a));
    if (!a) {
        return -ENOMEM;
    }
    a->seat = s;
    s->route = a;
    hf_list_insert(&r->asks, &a->node);
    hf_time now = hf_pg_now(r->pg);
    a->until = now + HF_MS(r->pg->config->session.hold_timeout_ms);
    plan(r, a, now, false);
    return 0;
}

void hf_pg_route_seated(struct hf_pg_route *r, struct hf_pg_seating *s)
{
    plan(r, s->route, hf_pg_now(r->pg), true);
}

void hf_pg_route_login_failed(struct hf_pg_route *r, struct hf_pg_seating *s)
{
    plan(r, s->route, hf_pg_now(r->pg) + RETRY, false);
}

uint64_t hf_pg_route_leave(struct hf_pg_route *r, struct hf_pg_seating *s)
{
    (void)r;
    if (s->route) {
        free_ask(s->route);
    }
    return 1;
}

void hf_pg_route_recovered(struct hf_pg_route *r, struct hf_pg_seating *s)
{
    (void)r;
    (void)s;
}

void hf_pg_route_moved(struct hf_pg_route *r, struct hf_pg_seating *s, bool moved)
{
    (void)r;
    (void)s;
    (void)moved;
}

struct hf_pg_target *hf_pg_route_own(struct hf_pg_route *r)
{
    return r->n ? r->target[0] : NULL;
}
