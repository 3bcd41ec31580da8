/* auth.query: the secret of a user, from the database. */
#include "pg/secrets.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/query.h"

#define QUERY_TIME HF_S(15)

struct hf_pg_ask {
    struct hf_pg_client *client;
    struct hf_pg_query *query;
    size_t n_rows;
    bool found;
    struct hf_pg_secret secret;
};

/* Name and secret. VALID UNTIL is for the query to look at: one that gives no row, or no secret,
 * refuses (CVE-2025-2291; holdfast-pg.conf(5) shows such a one). */
static void on_row(void *arg, const struct hf_slice *v, size_t n)
{
    struct hf_pg_ask *a = arg;
    struct hf_slice user = hf_pg_login_result(a->client->login)->user;
    a->n_rows++;
    if (n >= 2 && v[0].p && v[1].p && hf_slice_eq(v[0], user)) {
        a->found = hf_pg_secret_parse(v[1], &a->secret) == 0;
    }
}

static void free_ask(struct hf_pg_ask *a)
{
    a->client->ask = NULL;
    hf_pg_secret_wipe(&a->secret);
    hf_free(a);
}

static void on_done(void *arg, const char *why)
{
    struct hf_pg_ask *a = arg;
    struct hf_pg_client *c = a->client;
    char name[HF_PG_CLIENT_NAME_LEN];
    a->query = NULL;
    if (why) {
        hf_log_warn(hf_pg_client_name(c, name, sizeof(name)), "auth.query failed: %s", why);
    }
    c->ask = NULL;
    hf_pg_client_secret(c, a->found && a->n_rows == 1 ? &a->secret : NULL,
                        why ? "auth.query failed" : NULL);
    hf_pg_secret_wipe(&a->secret);
    hf_free(a);
}

static const struct hf_pg_query_ops ops = {.row = on_row, .done = on_done};

bool hf_pg_secrets_ask(struct hf_pg_client *c)
{
    const struct hf_pg_config *conf = c->pg->config;
    const struct hf_pg_login_result *r = hf_pg_login_result(c->login);
    struct hf_slice database = *conf->auth.database ? hf_slice_str(conf->auth.database)
                               : r->database.n      ? r->database
                                                    : r->user;
    struct hf_pg_ask *a = hf_alloc(sizeof(*a));
    if (!a) {
        return false;
    }
    a->client = c;
    c->ask = a;
    int rc = hf_pg_query_start(c->pg->queries, database, hf_slice_str(conf->auth.query), r->user,
                               QUERY_TIME, &ops, a, &a->query);
    if (rc) {
        hf_log_warn("", "auth.query cannot be asked: %s", hf_strerror(rc));
        free_ask(a);
    }
    return rc == 0;
}

void hf_pg_secrets_forget(struct hf_pg_client *c)
{
    if (c->ask) {
        hf_pg_query_cancel(c->ask->query);
        free_ask(c->ask);
    }
}
