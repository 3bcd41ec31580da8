/* /metrics: counters of all workers in Prometheus' format; /status, /servers: JSON. */
#include "sip/web.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "os/http.h"
#include "sip/lead.h"
#include "sip/node.h"
#include "sip/tree.h"

#define REPORT_MAX (4u << 20)
#define CLIENTS_MAX 32
#define IDLE_TIMEOUT_S 60

struct hf_sip_web {
    struct hf_sip *s; /* borrowed */
    struct hf_http_server *server;
};

static void line(struct hf_buf *b, const char *name, const char *suffix, const char *type,
                 const char *help, uint64_t n)
{
    hf_buf_printf(b,
                  "# HELP holdfast_sip_%s%s %s\n# TYPE holdfast_sip_%s%s %s\nholdfast_sip_%s%s "
                  "%llu\n",
                  name, suffix, help, name, suffix, type, name, suffix, (unsigned long long)n);
}

static void counter(struct hf_buf *b, const char *name, const char *help, uint64_t n)
{
    line(b, name, "_total", "counter", help, n);
}

static void gauge(struct hf_buf *b, const char *name, const char *help, uint64_t n)
{
    line(b, name, "", "gauge", help, n);
}

static void per_worker(struct hf_buf *b, struct hf_sip *s, const char *name, const char *help,
                       unsigned (*get)(const struct hf_sip_worker_figures *w))
{
    hf_buf_printf(b, "# HELP holdfast_sip_%s %s\n# TYPE holdfast_sip_%s gauge\n", name, help, name);
    for (unsigned i = 0; i < hf_sip_workers_n(s->workers); i++) {
        struct hf_sip_worker_figures w;
        hf_sip_worker_figures(hf_sip_worker(s->workers, i), &w);
        hf_buf_printf(b, "holdfast_sip_%s{worker=\"%u\"} %g\n", name, i, get(&w) / 1000.0);
    }
}

static unsigned cpu_of(const struct hf_sip_worker_figures *w)
{
    return w->cpu;
}

static unsigned queue_of(const struct hf_sip_worker_figures *w)
{
    return w->queue;
}

static unsigned shed_of(const struct hf_sip_worker_figures *w)
{
    return 1000u * (unsigned)w->shed;
}

struct sums {
    struct hf_sip_element_counters element;
    struct hf_sip_element_info info;
    struct hf_sip_worker_figures worker;
};

static void add_up(struct hf_sip *s, struct sums *t)
{
    memset(t, 0, sizeof(*t));
    for (unsigned i = 0; i < hf_sip_workers_n(s->workers); i++) {
        struct hf_sip_node_figures f;
        struct hf_sip_worker_figures w;
        hf_sip_node_figures(s->node[i], &f);
        hf_sip_worker_figures(hf_sip_worker(s->workers, i), &w);
#define ADD_ELEMENT(name, text) t->element.name += f.counters.name;
        HF_SIP_ELEMENT_COUNTER_LIST(ADD_ELEMENT)
#undef ADD_ELEMENT
#define ADD_WIRE(name, text) t->worker.wire.name += w.wire.name;
        HF_SIP_WIRE_COUNTER_LIST(ADD_WIRE)
#undef ADD_WIRE
#define ADD_WORKER(name, text) t->worker.name += w.name;
        HF_SIP_WORKER_COUNTER_LIST(ADD_WORKER)
#undef ADD_WORKER
        t->worker.wire.connections += w.wire.connections;
        t->worker.wire.kept += w.wire.kept;
        t->worker.messages_s += w.messages_s;
        t->info.rows += f.info.rows;
        t->info.bindings += f.info.bindings;
        t->info.aors += f.info.aors;
        t->info.subs += f.info.subs;
        t->info.transactions += f.info.transactions;
        t->info.waiting += f.info.waiting;
        t->info.cached += f.info.cached;
        t->info.bytes += f.info.bytes;
#define ADD_WATCH(name, text) t->info.watch.name += f.info.watch.name;
        HF_SIP_WATCH_COUNTER_LIST(ADD_WATCH)
#undef ADD_WATCH
#define ADD_PRESENCE(name, text) t->info.presence.name += f.info.presence.name;
        HF_SIP_PRESENCE_COUNTER_LIST(ADD_PRESENCE)
#undef ADD_PRESENCE
    }
}

static void add_gauges(struct hf_buf *b, const struct sums *t)
{
    gauge(b, "rows", "assignments whose server this is", t->info.rows);
    gauge(b, "bindings", "bindings", t->info.bindings);
    gauge(b, "registered", "addresses of record with bindings", t->info.aors);
    gauge(b, "subscriptions", "subscriptions", t->info.subs);
    gauge(b, "transactions", "transactions", t->info.transactions);
    gauge(b, "waiting_requests", "requests that wait for the database", t->info.waiting);
    gauge(b, "cached_rows", "assignments that are cached", t->info.cached);
    gauge(b, "memory_bytes", "what workers keep", t->info.bytes);
    gauge(b, "connections", "TCP and TLS connections", t->worker.wire.connections);
    gauge(b, "connections_registered", "connections over which somebody is registered",
          t->worker.wire.kept);
    gauge(b, "messages_per_second", "messages that came in the last second", t->worker.messages_s);
}

static void add_leader(struct hf_sip *s, struct hf_buf *b)
{
    struct hf_sip_lead_figures l;
    hf_sip_lead_figures(s->lead, &l);
    gauge(b, "leads", "this server moves clients between servers", l.leads);
    gauge(b, "draining", "this server is to be emptied", s->draining);
    counter(b, "leader_moved", "clients moved by this server", l.moved);
    counter(b, "leader_reigns", "times that this server began to move clients", l.reigns);
    counter(b, "leader_failed", "looks at the servers that the database did not let end", l.failed);
#define REBALANCE_LINE(name, text) counter(b, "rebalance_" #name, text, l.counters.name);
    HF_SIP_REBALANCE_COUNTER_LIST(REBALANCE_LINE)
#undef REBALANCE_LINE
}

static void metrics(struct hf_sip *s, struct hf_buf *b)
{
    struct sums t;
    add_up(s, &t);
#define ELEMENT_LINE(name, text) counter(b, #name, text, t.element.name);
    HF_SIP_ELEMENT_COUNTER_LIST(ELEMENT_LINE)
#undef ELEMENT_LINE
#define WATCH_LINE(name, text) counter(b, "watch_" #name, text, t.info.watch.name);
    HF_SIP_WATCH_COUNTER_LIST(WATCH_LINE)
#undef WATCH_LINE
#define PRESENCE_LINE(name, text) counter(b, "presence_" #name, text, t.info.presence.name);
    HF_SIP_PRESENCE_COUNTER_LIST(PRESENCE_LINE)
#undef PRESENCE_LINE
#define WIRE_LINE(name, text) counter(b, "net_" #name, text, t.worker.wire.name);
    HF_SIP_WIRE_COUNTER_LIST(WIRE_LINE)
#undef WIRE_LINE
#define WORKER_LINE(name, text) counter(b, "worker_" #name, text, t.worker.name);
    HF_SIP_WORKER_COUNTER_LIST(WORKER_LINE)
#undef WORKER_LINE
    add_gauges(b, &t);
    per_worker(b, s, "worker_cpu_ratio", "CPU time of a worker", cpu_of);
    per_worker(b, s, "worker_queue_ratio", "how full a worker's receive buffers are", queue_of);
    per_worker(b, s, "worker_sheds", "what a worker sheds: 1: new requests, 2: all", shed_of);
    const struct hf_sip_resolver_counters *r = hf_sip_resolver_counters(s->resolver);
    counter(b, "names_asked", "names to be resolved", r->asked);
    counter(b, "names_cached", "... that were known", r->cached);
    counter(b, "names_queries", "questions to name servers", r->queries);
    counter(b, "names_failed", "names without an address", r->failed);
    counter(b, "names_refused", "names that were not looked up: malformed, or too many",
            r->refused);
    add_leader(s, b);
}

/* Takes v. */
static void reply_json(struct hf_http_req *req, json_t *v)
{
    char *text = v ? json_dumps(v, JSON_COMPACT) : NULL;
    json_decref(v);
    if (text) {
        hf_http_reply(req, 200, "application/json", hf_slice_str(text));
    } else {
        hf_http_reply_error(req, 503, "out of memory");
    }
    free(text);
}

static void on_request(void *arg, struct hf_http_req *req)
{
    struct hf_sip *s = ((struct hf_sip_web *)arg)->s;
    const char *path = hf_http_req_path(req);
    struct hf_buf b;
    if (strcmp(path, "/status") == 0) {
        reply_json(req, hf_sip_tree_self(s->tree));
        return;
    }
    if (strcmp(path, "/servers") == 0) {
        reply_json(req, hf_sip_tree_servers(s->tree));
        return;
    }
    if (strcmp(path, "/metrics") != 0) {
        hf_http_reply_error(req, 404, "no such path; there are /metrics, /status and /servers");
        return;
    }
    hf_buf_init(&b, REPORT_MAX);
    metrics(s, &b);
    if (b.err) {
        hf_http_reply_error(req, 503, "%s", hf_strerror(b.err));
    } else {
        hf_http_reply(req, 200, "text/plain; version=0.0.4; charset=utf-8", hf_buf_slice(&b));
    }
    hf_buf_fini(&b);
}

int hf_sip_web_open(struct hf_sip *s, struct hf_err *err)
{
    if (s->config->sip.metrics_listen.len == 0) {
        return 0;
    }
    struct hf_sip_web *w = hf_alloc(sizeof(*w));
    if (!w) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    w->s = s;
    struct hf_http_server_opt opt = {.bind = s->config->sip.metrics_listen,
                                     .clients_max = CLIENTS_MAX,
                                     .idle_timeout_s = IDLE_TIMEOUT_S,
                                     .backlog_max = REPORT_MAX};
    int rc = hf_http_server_open(s->loop, &opt, on_request, w, err, &w->server);
    if (rc) {
        hf_free(w);
        return rc;
    }
    s->web = w;
    return 0;
}

void hf_sip_web_close(struct hf_sip_web *w)
{
    if (w) {
        hf_http_server_close(w->server);
        hf_free(w);
    }
}
