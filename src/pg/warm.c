/* Server connections of a backup: for whom, and the logins. */
#include "pg/warm.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/names.h"
#include "pg/protect.h"
#include "pg/route.h"
#include "pg/rules.h"

#define PAUSE HF_S(1)
#define KEEP HF_S(5)
#define PACE HF_MS(20) /* from a login to the next one, while nobody waits for them */

/* One connection, wanted or had. */
struct warm {
    struct hf_list node; /* of queued, pending or ready */
    struct hf_pg_warm *all;
    struct hf_pg_sconn *conn; /* owned; NULL: queued */
    uint64_t incarnation;     /* of the server, when the login began */
    uint8_t *key;             /* owned: user, database, parameters */
    size_t n_key, n_user, n_database;
    uint32_t version;
    bool claimed; /* while it is looked who is too many */
    bool has_secret;
    struct hf_pg_secret secret;
};

struct hf_pg_warm {
    struct hf_pg *pg;
    void (*fn)(void *arg);
    void *arg;
    struct hf_poll_task task;
    struct hf_poll_timer timer; /* closes what was kept */
    struct hf_poll_timer pace;
    bool hurry;
    struct hf_list queued, pending, ready;
    size_t n_pending;
    hf_time not_before;
};

static hf_time now_of(const struct hf_pg_warm *w)
{
    return hf_pg_now(w->pg);
}

static struct warm *warm_of(struct hf_list *node)
{
    return HF_CONTAINER_OF(node, struct warm, node);
}

/* Its connection, if there is one, has gone or is somebody's. */
static void forget(struct warm *x)
{
    struct hf_pg_warm *w = x->all;
    hf_list_unlink(&x->node);
    hf_pg_secret_wipe(&x->secret);
    hf_free(x->key);
    hf_free(x);
    if (hf_pg_warm_settled(w)) {
        hf_poll_task_add(w->pg->wire->poll, &w->task);
    }
}

static bool is_pending(const struct warm *x)
{
    return x->conn && !x->conn->logged_in;
}

static void drop(struct warm *x)
{
    x->all->n_pending -= is_pending(x);
    hf_pg_sconn_close(x->conn);
    forget(x);
}

static void drop_all(struct hf_list *list)
{
    HF_LIST_FOREACH (node, list) {
        drop(warm_of(node));
    }
}

bool hf_pg_warm_settled(const struct hf_pg_warm *w)
{
    return hf_list_empty(&w->queued) && w->n_pending == 0;
}

/* ---- logins ---- */

static void pump(struct hf_pg_warm *w);

static void conn_ready(struct hf_pg_sconn *conn)
{
    struct warm *x = conn->owner;
    struct hf_pg_warm *w = x->all;
    w->n_pending--;
    hf_list_unlink(&x->node);
    hf_list_insert(&w->ready, &x->node);
    if (w->hurry || hf_pg_warm_settled(w)) {
        hf_poll_task_add(w->pg->wire->poll, &w->task);
    } else {
        hf_poll_timer_set(w->pg->wire->poll, &w->pace, now_of(w) + PACE);
    }
}

/* Whatever it is, a session's own login will tell it. */
static void conn_failed(struct hf_pg_sconn *conn, const char *why)
{
    struct warm *x = conn->owner;
    struct hf_pg_warm *w = x->all;
    hf_log_debug("warm", "login to server %s failed: %s", conn->target->name, why);
    w->n_pending--;
    w->not_before = now_of(w) + PAUSE;
    forget(x);
    drop_all(&w->queued);
}

static void conn_gone(struct hf_pg_sconn *conn, const char *why)
{
    (void)why;
    forget(conn->owner);
}

static size_t conn_bytes(struct hf_pg_sconn *conn, struct hf_slice bytes)
{
    (void)conn;
    (void)bytes;
    return 0; /* it is never settled */
}

static const struct hf_pg_sconn_ops ops = {
    .ready = conn_ready,
    .failed = conn_failed,
    .bytes = conn_bytes,
    .gone = conn_gone,
};

static int open_one(struct warm *x, struct hf_pg_target *target)
{
    struct hf_pg *pg = x->all->pg;
    const struct hf_pg_connect_args args = {
        .version = x->version,
        .user = hf_slice(x->key, x->n_user),
        .database = hf_slice(x->key + x->n_user, x->n_database),
        .params =
            hf_slice(x->key + x->n_user + x->n_database, x->n_key - x->n_user - x->n_database),
        .secret = x->has_secret ? &x->secret : NULL,
        .cleartext = *target->host == '/' || pg->rules->server_sslmode == HF_PG_SSLMODE_DISABLE,
        .deadline = hf_pg_now(pg) + HF_MS(pg->config->pg.login_timeout_ms),
    };
    return hf_pg_sconn_open(pg, target, &args, &ops, x, &x->conn);
}

static void pump(struct hf_pg_warm *w)
{
    uint64_t incarnation;
    struct hf_pg_target *target = hf_pg_route_primary(w->pg->route, &incarnation);
    while (!hf_list_empty(&w->queued) && w->n_pending < (w->hurry ? HF_PG_WARM_LOGINS : 1)) {
        struct warm *x = warm_of(w->queued.next);
        if (!target || open_one(x, target)) {
            drop_all(&w->queued);
            break;
        }
        x->incarnation = incarnation;
        w->n_pending++;
        hf_list_unlink(&x->node);
        hf_list_insert(&w->pending, &x->node);
    }
}

static void on_task(struct hf_poll_task *t)
{
    struct hf_pg_warm *w = HF_CONTAINER_OF(t, struct hf_pg_warm, task);
    pump(w);
    if (hf_pg_warm_settled(w)) {
        w->fn(w->arg);
    }
}

static void on_pace(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    struct hf_pg_warm *w = HF_CONTAINER_OF(t, struct hf_pg_warm, pace);
    hf_poll_task_add(w->pg->wire->poll, &w->task);
}

/* ---- for whom ---- */

static bool fits(const struct warm *x, const struct hf_pg_shield_login *l)
{
    return x->version == l->version && x->n_user == l->user.n && x->n_database == l->database.n &&
           x->n_key == l->user.n + l->database.n + l->params.n &&
           hf_slice_eq(hf_slice(x->key, x->n_user), l->user) &&
           hf_slice_eq(hf_slice(x->key + x->n_user, x->n_database), l->database) &&
           hf_slice_eq(hf_slice(x->key + x->n_user + x->n_database, l->params.n), l->params);
}

static bool claim(struct hf_list *list, const struct hf_pg_shield_login *l)
{
    HF_LIST_FOREACH (node, list) {
        struct warm *x = warm_of(node);
        if (!x->claimed && fits(x, l)) {
            x->claimed = true;
            hf_list_unlink(node); /* the next one finds another first */
            hf_list_insert(list, node);
            return true;
        }
    }
    return false;
}

static void queue(struct hf_pg_warm *w, const struct hf_pg_shield_login *l)
{
    struct warm *x = hf_alloc(sizeof(*x));
    size_t n = l->user.n + l->database.n + l->params.n;
    uint8_t *key = x ? hf_alloc(n + 1) : NULL;
    if (!key) {
        hf_free(x);
        return;
    }
    *x = (struct warm){.all = w,
                       .key = key,
                       .n_key = n,
                       .n_user = l->user.n,
                       .n_database = l->database.n,
                       .version = l->version,
                       .claimed = true,
                       .has_secret = l->has_secret,
                       .secret = l->secret};
    const struct hf_slice part[] = {l->user, l->database, l->params};
    for (size_t i = 0; i < HF_ARRAY_LEN(part); i++) {
        if (part[i].n) {
            memcpy(key, part[i].p, part[i].n);
            key += part[i].n;
        }
    }
    hf_list_insert(&w->queued, &x->node);
}

static void for_session(struct hf_pg_warm *w, const struct hf_pair_session *s, bool wanted)
{
    struct hf_pg_shield_login l;
    if (hf_pg_shield_login_read(hf_pair_session_section(s, HF_PG_SECTION_LOGIN), &l) == 0) {
        struct hf_pg_database *d = hf_pg_database(w->pg, l.database);
        if (d) {
            d->stored_at = now_of(w);
            (void)!hf_pg_names_use(w->pg, d);
        }
        if (wanted && !l.read_only && !claim(&w->ready, &l) && !claim(&w->pending, &l) &&
            !claim(&w->queued, &l) && w->not_before <= now_of(w)) {
            queue(w, &l);
        }
    }
    hf_pg_secret_wipe(&l.secret);
}

/* Those of another start of the server, or that were not claimed. */
static void sweep(struct hf_pg_warm *w, bool unclaimed)
{
    struct hf_list *const lists[] = {&w->queued, &w->pending, &w->ready};
    uint64_t incarnation;
    const struct hf_pg_target *target = hf_pg_route_primary(w->pg->route, &incarnation);
    for (size_t i = 0; i < HF_ARRAY_LEN(lists); i++) {
        HF_LIST_FOREACH (node, lists[i]) {
            struct warm *x = warm_of(node);
            bool past = !target ||
                        (x->conn && (x->incarnation != incarnation || x->conn->target != target));
            if (past || (unclaimed && !x->claimed)) {
                drop(x);
            } else {
                x->claimed = false;
            }
        }
    }
}

void hf_pg_warm_for(struct hf_pg_warm *w, const struct hf_pair_store *store, size_t n, bool hurry)
{
    size_t i = 0;
    w->hurry = hurry;
    hf_poll_timer_set(w->pg->wire->poll, &w->timer, HF_NEVER);
    sweep(w, false);
    n = n < HF_PG_WARM_MAX ? n : HF_PG_WARM_MAX;
    for (const struct hf_pair_session *s = NULL;
         store && (s = hf_pair_store_next(store, s)) && i < HF_PG_WARM_MAX; i++) {
        for_session(w, s, i < n);
    }
    sweep(w, true);
    pump(w);
    hf_pg_wire_flush(w->pg->wire);
}

void hf_pg_warm_keep(struct hf_pg_warm *w)
{
    drop_all(&w->queued); /* the sessions log in themselves */
    hf_poll_timer_set(w->pg->wire->poll, &w->timer, now_of(w) + KEEP);
}

static void drop_rest(struct hf_pg_warm *w)
{
    drop_all(&w->queued);
    drop_all(&w->pending);
    drop_all(&w->ready);
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    drop_rest(HF_CONTAINER_OF(t, struct hf_pg_warm, timer));
}

/* ---- whose ---- */

static struct warm *find(struct hf_list *list, const struct hf_pg_shield_login *l,
                         const struct hf_pg_target *target, uint64_t incarnation)
{
    HF_LIST_FOREACH (node, list) {
        struct warm *x = warm_of(node);
        if (x->incarnation == incarnation && x->conn->target == target && fits(x, l)) {
            return x;
        }
    }
    return NULL;
}

struct hf_pg_sconn *hf_pg_warm_take(struct hf_pg_warm *w, const struct hf_pg_client *c,
                                    const struct hf_pg_target *target, uint64_t incarnation,
                                    const struct hf_pg_sconn_ops *client_ops, void *owner,
                                    hf_time *ret_ready_at)
{
    const struct hf_pg_shield_login l = {.user = hf_slice_str(c->user->name),
                                         .database = hf_slice_str(c->database->name),
                                         .params = hf_slice(c->params, c->n_params),
                                         .version = c->version};
    struct warm *x = find(&w->ready, &l, target, incarnation);
    x = x ? x : find(&w->pending, &l, target, incarnation);
    if (!x || c->replication != HF_PG_REPLICATION_NO) {
        return NULL;
    }
    struct hf_pg_sconn *conn = x->conn;
    *ret_ready_at = conn->logged_in ? conn->ready_at : HF_NEVER;
    w->n_pending -= !conn->logged_in;
    conn->ops = client_ops;
    conn->owner = owner;
    conn->args.user = l.user; /* a second attempt needs them */
    conn->args.database = l.database;
    conn->args.params = l.params;
    conn->args.secret = c->secret;
    forget(x);
    return conn;
}

/* ---- life ---- */

int hf_pg_warm_create(struct hf_pg *pg, void (*fn)(void *arg), void *arg,
                      struct hf_pg_warm **ret_warm)
{
    struct hf_pg_warm *w = hf_alloc(sizeof(*w));
    if (!w || hf_poll_reserve(pg->wire->poll, 2)) {
        hf_free(w);
        return -ENOMEM;
    }
    w->pg = pg;
    w->fn = fn;
    w->arg = arg;
    w->task.fn = on_task;
    w->timer.fn = on_timer;
    w->pace.fn = on_pace;
    hf_list_init(&w->task.node);
    hf_list_init(&w->queued);
    hf_list_init(&w->pending);
    hf_list_init(&w->ready);
    *ret_warm = w;
    return 0;
}

void hf_pg_warm_destroy(struct hf_pg_warm *w)
{
    if (!w) {
        return;
    }
    drop_rest(w);
    hf_poll_timer_set(w->pg->wire->poll, &w->timer, HF_NEVER);
    hf_poll_timer_set(w->pg->wire->poll, &w->pace, HF_NEVER);
    (void)!hf_poll_reserve(w->pg->wire->poll, -2);
    hf_list_unlink(&w->task.node);
    hf_free(w);
}
