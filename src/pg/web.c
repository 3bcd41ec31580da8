/* /metrics: counters, servers, per-database totals and latency histograms in Prometheus' format. */
#include "pg/web.h"

#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "core/pg/servers.h"
#include "os/http.h"
#include "pg/route.h"

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

static void add_protection(struct hf_pg *pg, struct hf_buf *b)
{
    uint64_t n_protected = 0, n = 0;
    HF_LIST_FOREACH (node, &pg->clients) {
        const struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        struct hf_pg_session_info i;
        if (c->phase == HF_PG_PHASE_SESSION && c->session) {
            hf_pg_session_info(c->session, &i);
            n++;
            n_protected += i.reasons == 0;
        }
    }
    gauge(b, "sessions", "sessions", n);
    gauge(b, "sessions_protected", "sessions that would survive the loss of their server now",
          n_protected);
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
    hf_buf_printf(b, "# HELP holdfast_pg_%s_seconds %s\n# TYPE holdfast_pg_%s_seconds histogram\n",
                  name, help, name);
    for (struct hf_pg_database *d; (d = hf_map_next(&pg->databases, &pos));) {
        const struct hf_pg_histogram *h =
            (const void *)((const char *)&d->stats + offset); /* aligned: a member */
        uint64_t sum = 0;
        for (unsigned i = 0; i < HF_PG_HISTOGRAM_LEN; i++) {
            sum += h->n[i];
            hf_buf_printf(b, "holdfast_pg_%s_seconds_bucket{database=\"", name);
            label(b, d->name);
            if (i + 1 < HF_PG_HISTOGRAM_LEN) {
                hf_buf_printf(b, "\",le=\"%g\"} %llu\n", 16e-6 * (double)(1u << i),
                              (unsigned long long)sum);
            } else {
                hf_buf_printf(b, "\",le=\"+Inf\"} %llu\n", (unsigned long long)sum);
            }
        }
        hf_buf_printf(b, "holdfast_pg_%s_seconds_sum{database=\"", name);
        label(b, d->name);
        hf_buf_printf(b, "\"} %.9f\nholdfast_pg_%s_seconds_count{database=\"",
                      (double)h->sum_ns / 1e9, name);
        label(b, d->name);
        hf_buf_printf(b, "\"} %llu\n", (unsigned long long)h->count);
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
    add_servers(pg, &b);
#define STAT_LINES(name, text) add_stat(pg, &b, #name, text, offsetof(struct hf_pg_stats, name));
    HF_PG_STAT_LIST(STAT_LINES)
#undef STAT_LINES
    add_histogram(pg, &b, "request", "time of requests", offsetof(struct hf_pg_stats, query));
    add_histogram(pg, &b, "transaction", "time of transactions",
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
