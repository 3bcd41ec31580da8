/* Classifiers of databases and the list of what is safe to repeat there: read at first use, after
 * DDL, and every minute. */
#include "pg/names.h"

#include <errno.h>

#include "base/log.h"
#include "base/mem.h"
#include "core/pg/classify.h"
#include "pg/query.h"

#define TEXTS_MAX 4096
#define PERIOD HF_S(60)
#define LOOK HF_S(2) /* has DDL gone by? */
#define QUERY_TIME HF_S(20)

struct hf_pg_names {
    struct hf_pg *pg;
    struct hf_pg_database *database;
    struct hf_pg_query *query; /* under way */
    struct hf_poll_timer timer;
    bool failed; /* told in the log already */
    bool partial, idle;
    hf_time read_at; /* begun */
};

static void on_row(void *arg, const struct hf_slice *v, size_t n)
{
    struct hf_pg_names *c = arg;
    if (n == 2 && v[0].n == 1 && v[1].p &&
        hf_pg_catalog_row(c->database->classifier, (char)v[0].p[0], v[1])) {
        c->partial = true;
    }
}

static void on_done(void *arg, const char *why)
{
    struct hf_pg_names *c = arg;
    c->query = NULL;
    if (why || c->partial) {
        if (!c->failed) {
            hf_log_warn("",
                        "database %s: cannot read its catalog: %s; no statement outside a "
                        "transaction is repeated there until that works",
                        c->database->name, why ? why : "out of memory");
        }
        c->failed = true;
    } else {
        hf_pg_catalog_end(c->database->classifier);
        c->failed = false;
    }
    hf_poll_timer_set(c->pg->wire->poll, &c->timer, hf_pg_now(c->pg) + LOOK);
}

static const struct hf_pg_query_ops ops = {.row = on_row, .done = on_done};

static void read_list(struct hf_pg_names *c)
{
    c->read_at = hf_pg_now(c->pg);
    hf_pg_catalog_begin(c->database->classifier);
    c->partial = false;
    int rc = hf_pg_query_start(c->pg->queries, hf_slice_str(c->database->name),
                               hf_slice_str(hf_pg_catalog_query()), (struct hf_slice){0}, true,
                               QUERY_TIME, &ops, c, &c->query);
    if (rc) {
        on_done(c, rc == -HF_ENOTREADY ? "no server, or no login of its own (auth.user)"
                                       : hf_strerror(rc));
    }
}

/* The list is read while somebody uses the database: after DDL soon, otherwise now and then. */
static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg_names *c = HF_CONTAINER_OF(t, struct hf_pg_names, timer);
    const struct hf_pg_database *d = c->database;
    bool stored = d->stored_at && now - d->stored_at < PERIOD;
    if (d->n_clients == 0 && !stored) {
        c->idle = true; /* hf_pg_names_use() goes on */
    } else if (!c->query && (hf_pg_catalog_wanted(d->classifier) || now - c->read_at >= PERIOD)) {
        read_list(c);
    } else {
        hf_poll_timer_set(c->pg->wire->poll, t, now + LOOK);
    }
}

int hf_pg_names_use(struct hf_pg *pg, struct hf_pg_database *d)
{
    if (d->names) {
        if (d->names->idle) {
            d->names->idle = false;
            hf_poll_timer_set(pg->wire->poll, &d->names->timer, hf_pg_now(pg));
        }
        return 0;
    }
    struct hf_pg_names *c = hf_alloc(sizeof(*c));
    if (!c || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(c);
        return -ENOMEM;
    }
    int rc = d->classifier ? 0 : hf_pg_classifier_create(TEXTS_MAX, pg->seed, &d->classifier);
    if (rc) {
        (void)!hf_poll_reserve(pg->wire->poll, -1);
        hf_free(c);
        return rc;
    }
    *c = (struct hf_pg_names){.pg = pg, .database = d, .timer.fn = on_timer};
    d->names = c;
    if (!*pg->config->auth.user) {
        hf_log_info("",
                    "database %s: without auth.user its catalog is not read; no statement "
                    "outside a transaction is repeated there",
                    d->name);
    } else {
        hf_poll_timer_set(pg->wire->poll, &c->timer, hf_pg_now(pg));
    }
    return 0;
}

void hf_pg_names_destroy(struct hf_pg_names *c)
{
    if (c) {
        hf_pg_query_cancel(c->query);
        hf_poll_timer_set(c->pg->wire->poll, &c->timer, HF_NEVER);
        (void)!hf_poll_reserve(c->pg->wire->poll, -1);
        hf_free(c);
    }
}
