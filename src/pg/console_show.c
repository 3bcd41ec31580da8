/* What the console shows: each SHOW makes columns and rows. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/pg/servers.h"
#include "pg/console.h"
#include "pg/protect.h"
#include "pg/route.h"
#include "pg/service.h"
#include "pg/watch.h"

#define COLUMNS_MAX 24

struct show {
    struct hf_pg *pg;
    struct hf_buf *out;
    /* the row being made */
    struct hf_buf text;
    size_t end[COLUMNS_MAX];
    size_t n_values;
};

/* ---- rows ---- */

static void columns(struct show *k, const char *const *names)
{
    size_t n = 0;
    while (names[n]) {
        n++;
    }
    hf_pg_put_text_columns(k->out, names, n);
}

static void value(struct show *k, const char *fmt, ...) HF_PRINTF(2, 3);
static void value(struct show *k, const char *fmt, ...)
{
    char buf[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    hf_buf_str(&k->text, buf);
    if (k->n_values < COLUMNS_MAX) {
        k->end[k->n_values++] = k->text.n;
    }
}

static void number(struct show *k, uint64_t n)
{
    value(k, "%llu", (unsigned long long)n);
}

/* So many empty values. */
static void nothing(struct show *k, size_t n)
{
    while (n-- > 0) {
        value(k, "%s", "");
    }
}

static void row(struct show *k)
{
    struct hf_slice v[COLUMNS_MAX];
    size_t from = 0;
    for (size_t i = 0; i < k->n_values; i++) {
        v[i] = hf_slice(k->text.p + from, k->end[i] - from);
        from = k->end[i];
    }
    hf_pg_put_text_row(k->out, v, k->n_values);
    hf_buf_clear(&k->text);
    k->n_values = 0;
}

static double ago(const struct show *k, hf_time since)
{
    return (double)(hf_pg_now(k->pg) - since) / 1e9;
}

/* ---- what there is ---- */

static void show_version(struct show *k)
{
    columns(k, (const char *const[]){"version", NULL});
    value(k, "holdfast-pg %s", HF_VERSION);
    row(k);
}

static const char *server_of(const struct hf_pg_client *c)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(c->seat); i++) {
        if (c->seat[i].side == HF_PG_SERVER && c->seat[i].conn) {
            return c->seat[i].conn->target->name;
        }
    }
    return "";
}

static bool info_of(const struct hf_pg_client *c, struct hf_pg_session_info *info)
{
    *info = (struct hf_pg_session_info){.state = HF_PG_ENDED};
    if (c->phase == HF_PG_PHASE_SESSION && c->session) {
        hf_pg_session_info(c->session, info);
        return true;
    }
    return false;
}

static double ms(hf_time t)
{
    return (double)t / HF_NS_PER_MS;
}

/* The service address: who protects its clients, how far behind that one is, and for how long
 * nobody did. */
static void show_service(struct show *k)
{
    struct hf_pg_service_info i = {.peer = ""};
    struct hf_pg_protection_counts n;
    const struct hf_pg_reign *reign = &k->pg->reign;
    hf_time now = hf_pg_now(k->pg);
    columns(k, (const char *const[]){"role", "epoch", "peer", "state", "alone", "sessions",
                                     "unsent", "lag_batches", "lag_bytes", "lag_ms", "rtt_ms",
                                     "lease_ms", "unprotected_s", "unprotected_total_s",
                                     "protected", "unprotected", "held_bytes", NULL});
    if (!k->pg->service) {
        return;
    }
    hf_pg_service_info(k->pg->service, &i);
    hf_pg_protection_count(k->pg, &n);
    value(k, "%s", hf_pg_role_name(i.role));
    number(k, i.epoch);
    value(k, "%s", i.peer);
    if (i.leading) {
        const struct hf_pair_primary_info *p = &i.primary;
        value(k, "%s", hf_pair_state_name(p->state));
        value(k, "%s", p->solo ? "yes" : "no");
        number(k, p->sessions);
        number(k, p->unsent);
        number(k, p->lag_batches);
        number(k, p->lag_bytes);
        value(k, "%.3f", ms(p->lag_age));
        value(k, "%.3f", p->rtt == HF_NEVER ? 0 : ms(p->rtt));
        value(k, "%.1f", i.lease_until == HF_NEVER ? 0 : ms(i.lease_until - now));
        value(k, "%.3f",
              reign->unprotected_since == HF_NEVER ? 0 : ago(k, reign->unprotected_since));
        value(k, "%.3f", (double)hf_pg_reign_unprotected(reign, now) / 1e9);
    } else {
        const struct hf_pair_backup_info *b = &i.backup;
        bool backup = i.role == HF_PG_ROLE_BACKUP;
        value(k, "%s", backup ? hf_pair_backup_state_name(b->state) : "");
        value(k, "no");
        number(k, b->sessions);
        number(k, 0);
        number(k, 0);
        number(k, b->bytes);
        value(k, "%.3f", b->heard == HF_NEVER || !backup ? 0 : ms(now - b->heard));
        value(k, "0");
        value(k, "0");
        value(k, "0");
        value(k, "0");
    }
    number(k, n.n_protected);
    number(k, n.sessions - n.n_protected);
    number(k, n.held);
    row(k);
}

static const char *text_of(const json_t *v, const char *key)
{
    const char *s = json_string_value(json_object_get(v, key));
    return s ? s : "";
}

/* "copy1 primary, copy2 standby 120 behind" */
static void databases_text(const json_t *v, char *out, size_t size)
{
    const json_t *servers = json_object_get(v, "servers"), *s;
    size_t i, n = 0;
    *out = '\0';
    json_array_foreach(servers, i, s)
    {
        json_int_t lag = json_integer_value(json_object_get(s, "lag_bytes"));
        char behind[40] = "";
        if (lag) {
            snprintf(behind, sizeof(behind), " %lld behind", (long long)lag);
        }
        n += (size_t)snprintf(out + n, size - n, "%s%s %s%s", n ? ", " : "", text_of(s, "name"),
                              text_of(s, "state"), behind);
        if (n >= size) {
            return;
        }
    }
}

static void manager_row(struct show *k, const char *host, const json_t *v, hf_time heard)
{
    static const char *const numbers[] = {"epoch", "sessions", "protected", "stored",
                                          "load",  "cpus",     "memory_mib"};
    char databases[500];
    value(k, "%s", host);
    value(k, "%s", text_of(v, "role"));
    value(k, "%s", text_of(v, "pair"));
    for (size_t i = 0; i < HF_ARRAY_LEN(numbers); i++) {
        value(k, "%.15g", json_number_value(json_object_get(v, numbers[i])));
    }
    databases_text(v, databases, sizeof(databases));
    value(k, "%s", databases);
    value(k, "%.1f", heard ? ago(k, heard) : 0);
    row(k);
}

/* The managers of this address, as each of them tells: this one first. */
static void show_managers(struct show *k)
{
    struct hf_pg_manager m;
    size_t pos = 0;
    columns(k, (const char *const[]){"host", "role", "state", "epoch", "sessions", "protected",
                                     "stored", "load", "cpus", "memory_mib", "databases", "age_s",
                                     NULL});
    if (!k->pg->watch) {
        return;
    }
    json_t *self = hf_pg_watch_self(k->pg->watch);
    manager_row(k, hf_pg_service_host(k->pg->service), self, 0);
    json_decref(self);
    while (hf_pg_watch_next(k->pg->watch, &pos, &m)) {
        manager_row(k, m.host, m.value, m.heard);
    }
}

/* Reigns that began here, and what became of the sessions of others. */
static void show_takeovers(struct show *k)
{
    const struct hf_pg_takeover_stats *t = &k->pg->takeovers;
    columns(k, (const char *const[]){"what", "count", "avg_ms", NULL});
    for (int i = 0; i < HF_PG_TAKEOVER_KINDS; i++) {
        const struct hf_pg_histogram *h = &t->time[i];
        value(k, "take-overs: %s", hf_pg_takeover_kind_name(i));
        number(k, h->count);
        value(k, "%.3f", h->count ? (double)h->sum_ns / 1e6 / (double)h->count : 0);
        row(k);
    }
#define SESSIONS_ROW(n, ...)                                                                       \
    value(k, "sessions: " __VA_ARGS__);                                                            \
    number(k, n);                                                                                  \
    value(k, "%s", "");                                                                            \
    row(k);
    SESSIONS_ROW(t->restored, "restored")
    SESSIONS_ROW(t->gone, "client gone")
    for (size_t i = 0; i < HF_PG_LOST_REASONS && t->lost[i].why; i++) {
        SESSIONS_ROW(t->lost[i].n, "lost: %s", t->lost[i].why)
    }
#undef SESSIONS_ROW
}

/* All reasons of a session that does not outlive its server now. */
static void reasons_text(uint32_t reasons, char *out, size_t size)
{
    size_t n = 0;
    *out = '\0';
    for (uint32_t left = reasons; left && n < size; left &= left - 1) {
        n += (size_t)snprintf(out + n, size - n, "%s%s", n ? "; " : "",
                              hf_pg_reason_text(left & -left));
    }
}

/* Columns "backup", "lag_bytes", "lag_batches", "lag_ms". */
static void protected_by(struct show *k, const struct hf_pg_client *c,
                         const struct hf_pg_session_info *i)
{
    struct hf_pg_service_info service = {.peer = ""};
    struct hf_pg_lag lag;
    if (k->pg->service) {
        hf_pg_service_info(k->pg->service, &service);
    }
    hf_pg_protect_lag(c, &lag);
    value(k, "%s", *hf_pg_protection_why(c, i) ? "" : service.peer);
    number(k, lag.bytes);
    number(k, lag.batches);
    value(k, "%.3f", ms(lag.age));
}

static void show_clients(struct show *k)
{
    static const char *const phases[] = {"login", "session", "console", "closing"};
    columns(k, (const char *const[]){"id",        "user",          "database", "state",
                                     "addr",      "server",        "tls",      "transaction",
                                     "active",    "protected",     "requests", "transactions",
                                     "moves",     "recoveries",    "replays",  "connect_age_s",
                                     "idle_s",    "waiting_bytes", "why_not",  "backup",
                                     "lag_bytes", "lag_batches",   "lag_ms",   NULL});
    HF_LIST_FOREACH (node, &k->pg->clients) {
        const struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        struct hf_pg_session_info i;
        char tls[80];
        bool session = info_of(c, &i);
        number(k, c->id);
        value(k, "%s", c->user ? c->user->name : "");
        value(k, "%s", c->database ? c->database->name : "");
        value(k, "%s", session ? hf_pg_state_name(i.state) : phases[c->phase]);
        value(k, "%s", c->from);
        value(k, "%s", server_of(c));
        value(k, "%s", c->link.tls ? hf_tls_stream_text(c->link.tls, tls, sizeof(tls)) : "");
        value(k, "%c", session ? i.tx : '-');
        value(k, "%s", session && i.active ? "yes" : "no");
        value(k, "%s", !session ? "-" : i.reasons ? "no" : "yes");
        number(k, i.n_requests);
        number(k, i.n_transactions);
        number(k, i.n_moves);
        number(k, i.n_recoveries);
        number(k, i.n_replays);
        value(k, "%.0f", ago(k, c->connected_at));
        value(k, "%.3f", ago(k, c->active_at));
        number(k, c->link.n_out);
        value(k, "%s", session ? hf_pg_protection_why(c, &i) : "");
        if (session) {
            protected_by(k, c, &i);
        } else {
            nothing(k, 4);
        }
        row(k);
    }
}

static void show_protection(struct show *k)
{
    columns(k, (const char *const[]){"id", "user", "database", "protected", "movable", "reasons",
                                     "backup", "lag_bytes", "lag_batches", "lag_ms",
                                     "backup_reason", "transaction", "log_bytes", "prepared",
                                     "listens", "settings", NULL});
    HF_LIST_FOREACH (node, &k->pg->clients) {
        const struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        struct hf_pg_session_info i;
        char why[500];
        if (!info_of(c, &i)) {
            continue;
        }
        reasons_text(i.reasons, why, sizeof(why));
        number(k, c->id);
        value(k, "%s", c->user->name);
        value(k, "%s", c->database->name);
        value(k, "%s", i.reasons ? "no" : "yes");
        value(k, "%s", i.at_rest && !(i.reasons & HF_PG_REASONS_STICKY) ? "yes" : "no");
        value(k, "%s", why);
        protected_by(k, c, &i);
        value(k, "%s", k->pg->service ? hf_pg_protection_why(c, &i) : "no service address");
        value(k, "%c", i.tx);
        number(k, i.log_bytes);
        number(k, i.n_prepared);
        number(k, i.n_listens);
        number(k, i.n_settings);
        row(k);
    }
}

static void show_servers(struct show *k)
{
    const struct hf_pg_servers *servers = hf_pg_route_servers(k->pg->route);
    uint32_t pos = 0, n;
    struct hf_pg_server_info i;
    columns(k, (const char *const[]){"name", "host", "port", "state", "draining", "sessions",
                                     "logins", "stuck", "weight", "timeline", "lag_bytes", "fence",
                                     "age_s", "why", NULL});
    while (servers && hf_pg_servers_info(servers, &pos, &n, &i)) {
        const struct hf_pg_target *t = hf_pg_route_target(k->pg->route, n);
        value(k, "%s", i.name);
        value(k, "%s", t ? t->host : i.address);
        number(k, t ? t->port : 0);
        value(k, "%s", hf_pg_server_state_name(i.state));
        value(k, "%s", i.draining ? "yes" : "no");
        number(k, i.n_sessions);
        number(k, i.n_logins);
        number(k, i.n_stuck);
        number(k, i.weight);
        number(k, i.timeline);
        number(k, i.lag);
        value(k, "%s", i.fenced ? "yes" : "no");
        value(k, "%.0f", ago(k, i.since));
        value(k, "%s", i.why);
        row(k);
    }
}

static void show_connections(struct show *k)
{
    columns(k, (const char *const[]){"id", "server", "pid", "state", "tls", "connect_age_s",
                                     "waiting_bytes", NULL});
    HF_LIST_FOREACH (node, &k->pg->sconns) {
        const struct hf_pg_sconn *c = HF_CONTAINER_OF(node, struct hf_pg_sconn, node);
        number(k, c->id);
        value(k, "%s", c->target->name);
        number(k, c->pid);
        value(k, "%s", c->closed ? "closing" : c->settled ? "active" : "login");
        value(k, "%s", c->tls ? "yes" : "no");
        value(k, "%.0f", ago(k, c->opened_at));
        number(k, c->link.n_out);
        row(k);
    }
}

static void show_databases(struct show *k)
{
    size_t pos = 0;
    columns(k, (const char *const[]){"name", "current_connections", "max_connections", NULL});
    for (struct hf_pg_database *d; (d = hf_map_next(&k->pg->databases, &pos));) {
        value(k, "%s", d->name);
        number(k, d->n_clients);
        number(k, (uint64_t)k->pg->config->pg.max_clients_per_database);
        row(k);
    }
}

static void show_users(struct show *k)
{
    size_t pos = 0;
    columns(k, (const char *const[]){"name", "current_connections", "max_connections", NULL});
    for (struct hf_pg_user *u; (u = hf_map_next(&k->pg->users, &pos));) {
        value(k, "%s", u->name);
        number(k, u->n_clients);
        number(k, (uint64_t)k->pg->config->pg.max_clients_per_user);
        row(k);
    }
}

/* Times in microseconds, as PgBouncer's. */
static void show_stats(struct show *k)
{
    size_t pos = 0;
    columns(k, (const char *const[]){"database", "total_xact_count", "total_query_count",
                                     "total_received", "total_sent", "total_xact_time",
                                     "total_query_time", "total_wait_time", NULL});
    for (struct hf_pg_database *d; (d = hf_map_next(&k->pg->databases, &pos));) {
        const struct hf_pg_stats *s = &d->stats;
        value(k, "%s", d->name);
        number(k, s->xact_count);
        number(k, s->query_count);
        number(k, s->received);
        number(k, s->sent);
        number(k, s->xact_time / 1000);
        number(k, s->query_time / 1000);
        number(k, s->wait_time / 1000);
        row(k);
    }
}

static void show_counters(struct show *k)
{
    columns(k, (const char *const[]){"name", "value", "description", NULL});
#define COUNTER_ROW(name, text)                                                                    \
    value(k, "%s", #name);                                                                         \
    number(k, k->pg->counters.name);                                                               \
    value(k, "%s", text);                                                                          \
    row(k);
    HF_PG_COUNTER_LIST(COUNTER_ROW)
#undef COUNTER_ROW
    const struct hf_pg_servers_counters *c =
        hf_pg_servers_counters(hf_pg_route_servers(k->pg->route));
#define SERVERS_ROW(name, text)                                                                    \
    value(k, "servers_%s", #name);                                                                 \
    number(k, c->name);                                                                            \
    value(k, "%s", text);                                                                          \
    row(k);
    HF_PG_SERVERS_COUNTER_LIST(SERVERS_ROW)
#undef SERVERS_ROW
}

static void show_moves(struct show *k)
{
    const struct hf_pg_counters *c = &k->pg->counters;
    columns(k, (const char *const[]){"moves", "moves_failed", "recoveries", "replays",
                                     "replays_failed", "in_doubt", "in_doubt_committed",
                                     "in_doubt_aborted", "in_doubt_unresolved", "lost_unprotected",
                                     NULL});
    number(k, c->moves);
    number(k, c->moves_failed);
    number(k, c->recoveries);
    number(k, c->replays);
    number(k, c->replays_failed);
    number(k, c->in_doubt);
    number(k, c->in_doubt_committed);
    number(k, c->in_doubt_aborted);
    number(k, c->in_doubt_unresolved);
    number(k, c->lost_unprotected);
    row(k);
}

static void show_mem(struct show *k)
{
    columns(k, (const char *const[]){"name", "size", "used", "free", "memtotal", NULL});
#define MEM_ROW(name, size, n)                                                                     \
    value(k, "%s", name);                                                                          \
    number(k, size);                                                                               \
    number(k, n);                                                                                  \
    number(k, 0);                                                                                  \
    number(k, (size) * (n));                                                                       \
    row(k);
    MEM_ROW("client", sizeof(struct hf_pg_client), k->pg->n_clients)
    MEM_ROW("server_connection", sizeof(struct hf_pg_sconn), k->pg->n_sconns)
    MEM_ROW("buffers_and_logs", 1, k->pg->memory.used)
#undef MEM_ROW
}

static void show_lists(struct show *k)
{
    hf_time since;
    columns(k, (const char *const[]){"list", "items", NULL});
#define LIST_ROW(name, n)                                                                          \
    value(k, "%s", name);                                                                          \
    number(k, n);                                                                                  \
    row(k);
    LIST_ROW("databases", k->pg->databases.n)
    LIST_ROW("users", k->pg->users.n)
    LIST_ROW("clients", k->pg->n_clients)
    LIST_ROW("server_connections", k->pg->n_sconns)
    LIST_ROW("waiting_clients", hf_pg_servers_waiting(hf_pg_route_servers(k->pg->route), &since))
#undef LIST_ROW
}

/* "section.name" and value, line by line from what --check would print. */
static void show_config(struct show *k)
{
    struct hf_buf b;
    columns(k, (const char *const[]){"key", "value", NULL});
    hf_buf_init(&b, 1u << 20);
    hf_conf_print(&hf_pg_config_schema, k->pg->config, &b);
    hf_buf_add(&b, hf_slice("", 1));
    char *rest = NULL, section[80] = "";
    for (char *line = b.err ? NULL : strtok_r((char *)b.p, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
        line += strspn(line, " ");
        char *eq = strstr(line, " = "), *brace = strrchr(line, '{');
        if (*line == '#' || *line == '}') {
            continue;
        }
        if (eq) {
            *eq = '\0';
            value(k, "%s%s%s", section, *section ? "." : "", line);
            value(k, "%s", hf_conf_is_secret(line) ? "***" : eq + 3);
            row(k);
        } else if (brace && brace > line) {
            snprintf(section, sizeof(section), "%.*s", (int)(brace - line - 1), line);
        }
    }
    hf_buf_fini(&b);
}

static void show_help(struct show *k);

static const struct {
    const char *name, *text;
    void (*fn)(struct show *k);
} shows[] = {
    {"HELP", "this list", show_help},
    {"VERSION", "of holdfast-pg", show_version},
    {"CLIENTS", "client connections", show_clients},
    {"SERVICE", "the service address: role, backup, how far behind it is, time without",
     show_service},
    {"MANAGERS", "the managers of the service address: load, sessions, databases as each sees them",
     show_managers},
    {"TAKEOVERS", "reigns that began here, and what became of the sessions", show_takeovers},
    {"PROTECTION",
     "which sessions would survive the loss of their server, and of this host, now; why not",
     show_protection},
    {"SERVERS", "PostgreSQL servers and their states", show_servers},
    {"CONNECTIONS", "server connections", show_connections},
    {"DATABASES", "databases with clients", show_databases},
    {"USERS", "users with clients", show_users},
    {"STATS", "totals per database, times in microseconds", show_stats},
    {"COUNTERS", "everything that is counted", show_counters},
    {"MOVES", "moves, recoveries, and commits in doubt", show_moves},
    {"CONFIG", "options in force", show_config},
    {"MEM", "memory", show_mem},
    {"LISTS", "numbers of things", show_lists},
};

static void show_help(struct show *k)
{
    char name[64];
    const char *command, *arg, *text;
    columns(k, (const char *const[]){"command", "description", NULL});
    for (size_t i = 0; i < HF_ARRAY_LEN(shows); i++) {
        value(k, "SHOW %s", shows[i].name);
        value(k, "%s", shows[i].text);
        row(k);
    }
    for (size_t i = 0; hf_pg_console_command(i, &command, &arg, &text); i++) {
        snprintf(name, sizeof(name), "%s%s%s", command, *arg ? " " : "", arg);
        value(k, "%s", name);
        value(k, "%s", text);
        row(k);
    }
}

bool hf_pg_console_show(struct hf_pg *pg, const char *what, struct hf_buf *out)
{
    struct show k = {.pg = pg, .out = out};
    for (size_t i = 0; i < HF_ARRAY_LEN(shows); i++) {
        if (strcasecmp(shows[i].name, what) == 0) {
            hf_buf_init(&k.text, 1u << 16);
            shows[i].fn(&k);
            hf_buf_fini(&k.text);
            return true;
        }
    }
    return false;
}
