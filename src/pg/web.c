/* /metrics: counters, protection, servers, per-database totals and latency histograms in
 * Prometheus' format. */
#include "pg/web.h"

#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "core/pg/servers.h"
#include "core/tcp/egress_rules.h"
#include "os/egress.h"
#include "os/http.h"
#include "pg/protect.h"
#include "pg/route.h"
#include "pg/service.h"

#define REPORT_MAX (16u << 20)
#define CLIENTS_MAX 32
#define IDLE_TIMEOUT_S 60

struct hf_pg_web {
    struct hf_pg *pg;
    struct hf_http_server *server;
};

static void gauge(struct hf_buf *b, const char *name, const char *help, uint64_t n)
{
    hf_buf_printf(b, "# HELP holdfast_pg_%s %s\n# TYPE holdfast_pg_%s gauge\nholdfast_pg_%s %llu\n",
                  name, help, name, name, (unsigned long long)n);
}

static void counter(struct hf_buf *b, const char *name, const char *help, uint64_t n)
{
    hf_buf_printf(b,
                  "# HELP holdfast_pg_%s_total %s\n# TYPE holdfast_pg_%s_total counter\n"
                  "holdfast_pg_%s_total %llu\n",
                  name, help, name, name, (unsigned long long)n);
}

/* A label's value: \ " and newline are escaped. */
static void label(struct hf_buf *b, const char *s)
{
    for (; *s; s++) {
        if (*s == '\n') {
            hf_buf_str(b, "\\n");
        } else {
            hf_buf_printf(b, *s == '\\' || *s == '"' ? "\\%c" : "%c", *s);
        }
    }
}

static void add_counters(struct hf_pg *pg, struct hf_buf *b)
{
#define COUNTER_LINE(name, text) counter(b, #name, text, pg->counters.name);
    HF_PG_COUNTER_LIST(COUNTER_LINE)
#undef COUNTER_LINE
    const struct hf_pg_servers_counters *c = hf_pg_servers_counters(hf_pg_route_servers(pg->route));
#define SERVERS_LINE(name, text) counter(b, "servers_" #name, text, c->name);
    HF_PG_SERVERS_COUNTER_LIST(SERVERS_LINE)
#undef SERVERS_LINE
    hf_time since;
    gauge(b, "client_connections", "client connections open", pg->n_clients);
    gauge(b, "server_connections", "server connections open", pg->n_sconns);
    gauge(b, "waiting_sessions", "sessions that wait for a server",
          hf_pg_servers_waiting(hf_pg_route_servers(pg->route), &since));
    gauge(b, "memory_bytes", "buffers, logs and prepared statements", pg->memory.used);
    counter(b, "recv_calls", "recv(2) of connections", pg->wire->n_recv);
    counter(b, "send_calls", "send(2) of connections", pg->wire->n_send);
}

static void head(struct hf_buf *b, const char *name, const char *help, const char *type)
{
    hf_buf_printf(b, "# HELP holdfast_pg_%s %s\n# TYPE holdfast_pg_%s %s\n", name, help, name,
                  type);
}

/* One line: name{key="value"} n, with a fraction. */
static void line(struct hf_buf *b, const char *name, const char *key, const char *v, double n)
{
    hf_buf_printf(b, "holdfast_pg_%s{%s=\"", name, key);
    label(b, v);
    hf_buf_printf(b, "\"} %.15g\n", n);
}

static void seconds(struct hf_buf *b, const char *name, const char *help, const char *type,
                    hf_time t)
{
    head(b, name, help, type);
    hf_buf_printf(b, "holdfast_pg_%s %.9f\n", name, (double)t / HF_NS_PER_S);
}

/* The lines of a histogram; its head was written. key: NULL: no label. */
static void histogram(struct hf_buf *b, const char *name, const char *key, const char *v,
                      const struct hf_pg_histogram *h)
{
    struct hf_buf of;
    uint64_t sum = 0;
    hf_buf_init(&of, REPORT_MAX);
    if (key) {
        hf_buf_printf(&of, "%s=\"", key);
        label(&of, v);
        hf_buf_str(&of, "\"");
    }
    hf_buf_add(&of, hf_slice("", 1));
    const char *mine = of.err ? "" : (const char *)of.p;
    for (unsigned i = 0; i < HF_PG_HISTOGRAM_LEN; i++) {
        sum += h->n[i];
        hf_buf_printf(b, "holdfast_pg_%s_bucket{%s%sle=\"", name, mine, key ? "," : "");
        if (i + 1 < HF_PG_HISTOGRAM_LEN) {
            hf_buf_printf(b, "%g\"} %llu\n", 16e-6 * (double)(1u << i), (unsigned long long)sum);
        } else {
            hf_buf_printf(b, "+Inf\"} %llu\n", (unsigned long long)sum);
        }
    }
    const char *open = key ? "{" : "", *close = key ? "}" : "";
    hf_buf_printf(b, "holdfast_pg_%s_sum%s%s%s %.9f\nholdfast_pg_%s_count%s%s%s %llu\n", name, open,
                  mine, close, (double)h->sum_ns / 1e9, name, open, mine, close,
                  (unsigned long long)h->count);
    hf_buf_fini(&of);
}

/* Without a service address "protected" means: from the loss of the server. */
static void add_protection(struct hf_pg *pg, struct hf_buf *b)
{
    struct hf_pg_protection_counts n;
    hf_pg_protection_count(pg, &n);
    gauge(b, "sessions", "sessions", n.sessions);
    gauge(b, "sessions_protected",
          "sessions that would survive the loss of this host (without a service address: of their "
          "server) now",
          n.n_protected);
    head(b, "sessions_unprotected", "sessions that would not, by the first reason", "gauge");
    for (size_t i = 0; i < n.n_reasons; i++) {
        line(b, "sessions_unprotected", "reason", n.reason[i].why, (double)n.reason[i].n);
    }
    gauge(b, "held_bytes", "bytes to clients and servers that wait for the backup's confirm",
          n.held);
}

static void add_pair(struct hf_pg *pg, struct hf_buf *b, const struct hf_pg_service_info *i)
{
    const struct hf_pair_primary_info none = {.rtt = HF_NEVER};
    const struct hf_pair_primary_info *p = i->leading ? &i->primary : &none;
    hf_time now = hf_pg_now(pg);
    gauge(b, "backup_in_sync", "1: the backup has all that clients were told",
          i->leading && p->state == HF_PAIR_STATE_IN_SYNC);
    gauge(b, "alone", "1: the group counts on nobody else", i->leading && p->solo);
    gauge(b, "confirm_lag_bytes", "bytes that the backup has not confirmed", p->lag_bytes);
    gauge(b, "confirm_lag_batches", "batches that it has not confirmed", p->lag_batches);
    seconds(b, "confirm_lag_age_seconds", "age of the oldest of these", "gauge", p->lag_age);
    seconds(b, "pair_rtt_seconds", "shortest round trip to the backup of late", "gauge",
            p->rtt == HF_NEVER ? 0 : p->rtt);
    head(b, "lease_seconds", "for how long this host may still answer; +Inf without a lease",
         "gauge");
    if (i->leading && i->lease_until == HF_NEVER) {
        hf_buf_str(b, "holdfast_pg_lease_seconds +Inf\n");
    } else {
        hf_buf_printf(
            b, "holdfast_pg_lease_seconds %.6f\n",
            i->leading && i->lease_until > now ? (double)(i->lease_until - now) / HF_NS_PER_S : 0);
    }
    gauge(b, "stored_sessions", "sessions that a backup has for its primary",
          i->leading ? 0 : i->backup.sessions);
    gauge(b, "stored_bytes", "bytes of these", i->leading ? 0 : i->backup.bytes);
}

static void add_takeovers(const struct hf_pg_takeover_stats *t, struct hf_buf *b)
{
    head(b, "takeover_seconds",
         "take-overs of the service address by this process, from promotion to the last session",
         "histogram");
    for (int i = 0; i < HF_PG_TAKEOVER_KINDS; i++) {
        histogram(b, "takeover_seconds", "kind", hf_pg_takeover_kind_name(i), &t->time[i]);
    }
    counter(b, "takeover_sessions_restored", "sessions taken over", t->restored);
    counter(b, "takeover_sessions_gone", "those whose client was gone by then", t->gone);
    head(b, "takeover_sessions_lost_total", "sessions that could not be taken over", "counter");
    for (size_t i = 0; i < HF_PG_LOST_REASONS && t->lost[i].why; i++) {
        line(b, "takeover_sessions_lost_total", "reason", t->lost[i].why, (double)t->lost[i].n);
    }
}

/* Of this process's guard; none while this host has no copy. */
static void add_guard(const struct hf_pg *pg, struct hf_buf *b)
{
    uint64_t n[HF_EGRESS_COUNTERS];
    head(b, "guard_packets_total",
         "packets that the guard of the service address did not just pass", "counter");
    if (pg->protect) {
        hf_egress_counters(hf_pg_protect_egress(pg->protect), 0, n);
        for (unsigned i = 0; i < HF_EGRESS_COUNTERS; i++) {
            line(b, "guard_packets_total", "what",
                 hf_egress_counter_name((enum hf_egress_counter)i), (double)n[i]);
        }
    }
}

/* Nothing of it where there is no service address. */
static void add_service(struct hf_pg *pg, struct hf_buf *b)
{
    struct hf_pg_service_info i;
    const struct hf_pg_reign *r = &pg->reign;
    hf_time now = hf_pg_now(pg);
    if (!pg->service) {
        return;
    }
    hf_pg_service_info(pg->service, &i);
    head(b, "role", "1 for the role of this host", "gauge");
    line(b, "role", "role", hf_pg_role_name(i.role), 1);
    head(b, "peer", "1 for the host on the other side: the backup, or the primary", "gauge");
    if (*i.peer) {
        line(b, "peer", "host", i.peer, 1);
    }
    gauge(b, "epoch", "the reign that this host knows of", i.epoch);
    add_pair(pg, b, &i);
    head(b, "confirm_seconds", "time from what happened to the backup's confirm of it",
         "histogram");
    histogram(b, "confirm_seconds", NULL, "", &pg->confirm_lag);
    seconds(b, "unprotected_seconds", "time without protection until now; 0: protected", "gauge",
            r->unprotected_since == HF_NEVER ? 0 : now - r->unprotected_since);
    seconds(b, "unprotected_reign_seconds", "time without protection in this reign", "gauge",
            hf_pg_reign_unprotected(r, now));
    seconds(b, "unprotected_seconds_total", "time without protection of this host's reigns",
            "counter", hf_pg_reign_unprotected_ever(r, now));
    add_takeovers(&pg->takeovers, b);
    add_guard(pg, b);
}

static void add_servers(struct hf_pg *pg, struct hf_buf *b)
{
    uint32_t pos = 0, n;
    struct hf_pg_server_info i;
    hf_buf_str(b, "# HELP holdfast_pg_server_state 1 for the state that a server is in\n"
                  "# TYPE holdfast_pg_server_state gauge\n");
    while (hf_pg_servers_info(hf_pg_route_servers(pg->route), &pos, &n, &i)) {
        hf_buf_str(b, "holdfast_pg_server_state{server=\"");
        label(b, i.name);
        hf_buf_printf(b, "\",state=\"%s\"} 1\n", hf_pg_server_state_name(i.state));
    }
    hf_buf_str(b, "# HELP holdfast_pg_server_sessions sessions on a server\n"
                  "# TYPE holdfast_pg_server_sessions gauge\n");
    for (pos = 0; hf_pg_servers_info(hf_pg_route_servers(pg->route), &pos, &n, &i);) {
        hf_buf_str(b, "holdfast_pg_server_sessions{server=\"");
        label(b, i.name);
        hf_buf_printf(b, "\"} %u\n", i.n_sessions);
    }
}

static void add_stat(struct hf_pg *pg, struct hf_buf *b, const char *name, const char *help,
                     size_t offset)
{
    size_t pos = 0;
    hf_buf_printf(b,
                  "# HELP holdfast_pg_database_%s_total %s\n"
                  "# TYPE holdfast_pg_database_%s_total counter\n",
                  name, help, name);
    for (struct hf_pg_database *d; (d = hf_map_next(&pg->databases, &pos));) {
        uint64_t v;
        memcpy(&v, (const char *)&d->stats + offset, sizeof(v));
        hf_buf_printf(b, "holdfast_pg_database_%s_total{database=\"", name);
        label(b, d->name);
        hf_buf_printf(b, "\"} %llu\n", (unsigned long long)v);
    }
}

static void add_histogram(struct hf_pg *pg, struct hf_buf *b, const char *name, const char *help,
                          size_t offset)
{
    size_t pos = 0;
    head(b, name, help, "histogram");
    for (struct hf_pg_database *d; (d = hf_map_next(&pg->databases, &pos));) {
        histogram(b, name, "database", d->name,
                  (const void *)((const char *)&d->stats + offset)); /* aligned: a member */
    }
}

static void on_request(void *arg, struct hf_http_req *req)
{
    struct hf_pg *pg = ((struct hf_pg_web *)arg)->pg;
    struct hf_buf b;
    if (strcmp(hf_http_req_path(req), "/metrics") != 0) {
        hf_http_reply_error(req, 404, "no such path; there is /metrics");
        return;
    }
    hf_buf_init(&b, REPORT_MAX);
    add_counters(pg, &b);
    add_protection(pg, &b);
    add_service(pg, &b);
    add_servers(pg, &b);
#define STAT_LINES(name, text) add_stat(pg, &b, #name, text, offsetof(struct hf_pg_stats, name));
    HF_PG_STAT_LIST(STAT_LINES)
#undef STAT_LINES
    add_histogram(pg, &b, "request_seconds", "time of requests",
                  offsetof(struct hf_pg_stats, query));
    add_histogram(pg, &b, "transaction_seconds", "time of transactions",
                  offsetof(struct hf_pg_stats, xact));
    if (b.err) {
        hf_http_reply_error(req, 503, "%s", hf_strerror(b.err));
    } else {
        hf_http_reply(req, 200, "text/plain; version=0.0.4; charset=utf-8", hf_buf_slice(&b));
    }
    hf_buf_fini(&b);
}

int hf_pg_web_open(struct hf_pg *pg, struct hf_err *err, struct hf_pg_web **ret_web)
{
    *ret_web = NULL;
    if (pg->config->pg.metrics_listen.len == 0) {
        return 0;
    }
    struct hf_pg_web *w = hf_alloc(sizeof(*w));
    if (!w) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    w->pg = pg;
    struct hf_http_server_opt opt = {.bind = pg->config->pg.metrics_listen,
                                     .clients_max = CLIENTS_MAX,
                                     .idle_timeout_s = IDLE_TIMEOUT_S,
                                     .backlog_max = REPORT_MAX};
    int rc = hf_http_server_open(pg->loop, &opt, on_request, w, err, &w->server);
    if (rc) {
        hf_free(w);
        return rc;
    }
    *ret_web = w;
    return 0;
}

void hf_pg_web_close(struct hf_pg_web *w)
{
    if (w) {
        hf_http_server_close(w->server);
        hf_free(w);
    }
}
