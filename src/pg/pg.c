/* What all parts share: databases, users, configuration in force, the end. */
#include "pg/pg.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "os/program.h"
#include "pg/client.h"
#include "pg/listener.h"
#include "pg/query.h"
#include "pg/route.h"
#include "pg/rules.h"

#define PREPARED_MAX (4u << 20) /* bytes of a session's prepared statements */
#define STOP_TIME HF_S(2)       /* for what is told to clients at the end to leave */
#define DRAIN_LOOK HF_MS(100)

static char *copy_name(struct hf_slice name)
{
    char *s = hf_alloc(name.n + 1);
    if (s && name.n) {
        memcpy(s, name.p, name.n);
    }
    return s;
}

struct hf_pg_database *hf_pg_database(struct hf_pg *pg, struct hf_slice name)
{
    struct hf_pg_database *d = hf_map_get(&pg->databases, name);
    if (d) {
        return d;
    }
    d = hf_alloc(sizeof(*d));
    if (d &&
        (!(d->name = copy_name(name)) || hf_map_put(&pg->databases, hf_slice_str(d->name), d))) {
        hf_free(d->name);
        hf_free(d);
        return NULL;
    }
    return d;
}

struct hf_pg_user *hf_pg_user(struct hf_pg *pg, struct hf_slice name)
{
    struct hf_pg_user *u = hf_map_get(&pg->users, name);
    if (u) {
        return u;
    }
    u = hf_alloc(sizeof(*u));
    if (u && (!(u->name = copy_name(name)) || hf_map_put(&pg->users, hf_slice_str(u->name), u))) {
        hf_free(u->name);
        hf_free(u);
        return NULL;
    }
    return u;
}

void hf_pg_use_config(struct hf_pg *pg)
{
    const struct hf_pg_config *c = pg->config;
    pg->session_conf = (struct hf_pg_session_conf){
        .protect_writes = c->session.protect_writes,
        .listen_close = c->session.listen_gap == 1,
        .rehearse_moves = (uint32_t)c->session.rehearse_moves,
        .log_max = (size_t)c->session.transaction_log_max,
        .prepared_max = PREPARED_MAX,
        .hold_timeout = HF_MS(c->session.hold_timeout_ms),
        .replay_timeout = HF_MS(c->session.replay_timeout_ms),
        .move_timeout = HF_MS(c->session.move_timeout_ms),
    };
    pg->memory.max = (size_t)c->pg.max_memory;
}

int hf_pg_reload(struct hf_pg *pg, struct hf_err *err)
{
    struct hf_pg_config *next;
    struct hf_pg_rules *rules;
    char key[64];
    hf_program_notify("RELOADING=1");
    int rc = hf_pg_config_load(pg->config_path, err, &next);
    if (rc == 0) {
        if (hf_conf_fixed_change(&hf_pg_config_schema, pg->config, next, key, sizeof(key))) {
            rc = hf_err_set(err, -HF_ECONFIG,
                            "%s: %s cannot change while holdfast-pg runs: restart it; nothing was "
                            "changed",
                            pg->config_path, key);
        }
        rc = rc ? rc : hf_pg_rules_load(next, pg->rules->login.key, err, &rules);
        if (rc) {
            hf_pg_config_destroy(next);
        }
    }
    if (rc) {
        hf_log_err("", "reload refused: %s", err->text);
    } else {
        hf_pg_config_destroy(pg->config);
        hf_pg_rules_unref(pg->rules);
        pg->config = next;
        pg->rules = rules;
        hf_pg_use_config(pg);
        hf_pg_route_reconf(pg->route);
        hf_pg_query_pool_clear(pg->queries);
        hf_program_log_open("holdfast-pg", hf_pg_config_level(next));
        hf_trace_set_mask(next->log.trace);
        pg->counters.reloads++;
        hf_log_info("", "configuration reloaded from %s", pg->config_path);
    }
    hf_program_notify("READY=1");
    return rc;
}

/* ---- the end ---- */

static bool busy(const struct hf_pg_client *c)
{
    struct hf_pg_session_info info;
    if (c->phase != HF_PG_PHASE_SESSION || !c->session || c->ended) {
        return false;
    }
    hf_pg_session_info(c->session, &info);
    return info.active || info.tx != 'I';
}

static void end_client(struct hf_pg_client *c)
{
    static const char why[] = "terminating connection due to administrator command";
    if (c->phase == HF_PG_PHASE_SESSION && c->session && !c->ended) {
        hf_pg_session_kill(c->session, "57P01", why, hf_pg_now(c->pg));
    } else if (c->phase != HF_PG_PHASE_CLOSING) {
        hf_pg_client_fatal(c, "57P01", why);
    }
}

static size_t end_all(struct hf_pg *pg, bool also_busy)
{
    size_t n = 0;
    HF_LIST_FOREACH (node, &pg->clients) {
        struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        if (also_busy || !busy(c)) {
            end_client(c);
        }
        n++;
    }
    return n;
}

static void on_stop_timer(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg *pg = HF_CONTAINER_OF(t, struct hf_pg, stop_timer);
    size_t n = end_all(pg, !pg->draining);
    if (n == 0 || (!pg->draining && now >= pg->stop_at)) {
        hf_loop_stop(pg->loop);
    } else {
        hf_poll_timer_set(pg->wire->poll, t, now + DRAIN_LOOK);
    }
}

void hf_pg_stop(struct hf_pg *pg, bool drain)
{
    if (pg->stopping && !pg->draining) {
        hf_loop_stop(pg->loop);
        return;
    }
    hf_program_notify("STOPPING=1");
    pg->draining = drain && !pg->stopping;
    pg->stopping = true;
    pg->stop_at = hf_now() + STOP_TIME;
    hf_pg_listeners_close(pg->listeners);
    pg->listeners = NULL;
    pg->stop_timer.fn = on_stop_timer;
    hf_poll_timer_set(pg->wire->poll, &pg->stop_timer, hf_now());
    hf_poll_kick(pg->wire->poll);
}
