/* One worker's element: its messages, its store's results, its names, its trace. */
#include "sip/node.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "core/sip/element.h"
#include "os/netaddr.h"
#include "sip/lead.h"
#include "sip/pack.h"

#define PAUSE HF_S(2)       /* a worker that was away for longer knows that it may be left behind */
#define BLIND_MAX HF_S(2)   /* how long it waits for the feed before it speaks again */
#define TLS_NAMES_MAX 4096u /* names of TLS servers that are remembered */
#define PACK_MAX (64u << 20)
#define TRACE_MAX (256u << 10)
#define SHOW_MAX (1u << 20)

enum {
    MAIL_RESULT = HF_SIP_MAIL_PEER + 1,
    MAIL_FEED,
    MAIL_RESOLVED,
    MAIL_TRACE,
    MAIL_SHOW,
    MAIL_TLS,
};

struct resolved_head {
    uint64_t cookie;
    uint32_t n, host_n;
};

/* Who is to be at an address, for certificates. */
struct tls_name {
    struct hf_endpoint at;
    char name[256];
};

struct hf_sip_node {
    struct hf_sip *s; /* borrowed */
    struct hf_sip_worker *w;
    unsigned i;
    struct hf_sip_element *element;
    struct hf_sip_tls *tls; /* what the worker's new connections get (ref) */
    hf_time seen;           /* when it last ran */
    hf_time blind_until; /* nothing is answered before the feed was read again (I10); 0: it was */
    struct tls_name *tls_name;
    unsigned n_tls_names;
    pthread_mutex_t lock;
    struct hf_sip_node_figures shown; /* under the lock */
};

/* ---- what the element wants ---- */

/* A REGISTER that was accepted: the connection is a binding's flow. */
static bool is_registered(struct hf_slice m)
{
    static const char ok[] = "SIP/2.0 200", cseq[] = " REGISTER\r\n";
    return hf_slice_starts(m, hf_slice(ok, sizeof(ok) - 1)) &&
           memmem(m.p, m.n, cseq, sizeof(cseq) - 1);
}

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    struct hf_sip_node *n = ctx;
    hf_sip_worker_send(n->w, to, message);
    if (to->conn && is_registered(message)) {
        hf_sip_worker_keep(n->w, to->conn);
    }
}

static void on_store(void *ctx, const struct hf_sip_op *op)
{
    struct hf_sip_node *n = ctx;
    hf_sip_store_submit(n->s->store, n->i, op);
}

static void ask_main(struct hf_sip_node *n, uint32_t kind, const struct hf_slice *part,
                     size_t n_parts)
{
    if (hf_mailbox_send(n->s->mailbox, kind, part, n_parts)) {
        hf_log_warn("", "out of memory: the main thread is not told");
    }
}

static void on_resolve(void *ctx, uint64_t cookie, const struct hf_sip_uri *uri)
{
    struct hf_sip_node *n = ctx;
    struct hf_slice value, host = uri->host.text;
    struct hf_sip_ask_resolve ask = {.cookie = cookie,
                                     .worker = n->i,
                                     .port = uri->host.port,
                                     .transport = HF_SIP_TRANSPORT_OTHER,
                                     .sips = uri->scheme == HF_SIP_SCHEME_SIPS};
    if (hf_sip_uri_param(uri, "transport", &value) && value.n) {
        ask.transport = (uint8_t)hf_sip_transport_parse(value);
        if (ask.sips && ask.transport == HF_SIP_TRANSPORT_TCP) { /* RFC 3261 26.2.2 */
            ask.transport = HF_SIP_TRANSPORT_TLS;
        }
    }
    if (hf_sip_uri_param(uri, "maddr", &value) && value.n) { /* RFC 3263 4: the target */
        host = value;
    }
    struct hf_slice part[] = {hf_slice(&ask, sizeof(ask)), host};
    ask_main(n, HF_SIP_ASK_RESOLVE, part, 2);
}

static void put_endpoint(struct hf_buf *b, const char *key, const struct hf_endpoint *e)
{
    char text[HF_ADDR_STR_LEN];
    struct hf_addr a = hf_addr_from_endpoint(e);
    hf_buf_printf(b, ",\"%s\":\"%s\"", key, a.len ? hf_addr_str(&a, text) : "");
}

/* One line of JSON. */
static void on_trace(void *ctx, struct hf_slice aor, const char *what,
                     const struct hf_sip_flow *flow, struct hf_slice text)
{
    struct hf_sip_node *n = ctx;
    struct hf_buf b;
    hf_buf_init(&b, TRACE_MAX);
    hf_buf_printf(&b, "{\"time\":%.6f,\"worker\":%u,\"what\":\"%s\",\"aor\":",
                  (double)hf_wall_now() / 1e9, n->i, what);
    hf_buf_json_str(&b, aor);
    if (flow) {
        hf_buf_printf(&b, ",\"transport\":\"%s\"",
                      hf_sip_transport_name((enum hf_sip_transport)flow->transport));
        put_endpoint(&b, "local", &flow->local);
        put_endpoint(&b, "peer", &flow->peer);
    }
    hf_buf_str(&b, ",\"text\":");
    hf_buf_json_str(&b, text);
    hf_buf_str(&b, "}\n");
    struct hf_slice part = hf_buf_slice(&b);
    if (!b.err) {
        ask_main(n, HF_SIP_TOLD_TRACE, &part, 1);
    }
    hf_buf_fini(&b);
}

/* ---- names of TLS servers ---- */

static void remember(struct hf_sip_node *n, const struct hf_endpoint *at, struct hf_slice host)
{
    struct tls_name *t = NULL;
    if (at->family == HF_AF_NONE || host.n == 0 || host.n >= sizeof(t->name)) {
        return;
    }
    for (unsigned i = 0; i < n->n_tls_names && i < TLS_NAMES_MAX && !t; i++) {
        t = hf_endpoint_eq(&n->tls_name[i].at, at) ? &n->tls_name[i] : NULL;
    }
    t = t ? t : &n->tls_name[n->n_tls_names++ % TLS_NAMES_MAX];
    t->at = *at;
    snprintf(t->name, sizeof(t->name), "%.*s", HF_SLICE_FMT(host));
}

static const char *on_server_name(void *ctx, const struct hf_endpoint *peer)
{
    const struct hf_sip_node *n = ctx;
    for (unsigned i = 0; i < n->n_tls_names && i < TLS_NAMES_MAX; i++) {
        if (hf_endpoint_eq(&n->tls_name[i].at, peer)) {
            return n->tls_name[i].name;
        }
    }
    return "";
}

/* ---- what the worker brings ---- */

static unsigned on_owner(void *ctx, const struct hf_sip_msg *msg)
{
    const struct hf_sip_node *n = ctx;
    return hf_sip_element_owner(msg, hf_sip_workers_n(n->s->workers));
}

/* After a pause of the process others may have taken over what was ours (I10). */
static void look_at_clock(struct hf_sip_node *n, hf_time now)
{
    if (n->seen && now - n->seen > PAUSE) {
        struct hf_sip_feed away = {.there = false};
        hf_log_warn("", "worker %u was away for %lld ms: reads what has changed before it answers",
                    n->i, (long long)((now - n->seen) / HF_NS_PER_MS));
        hf_sip_element_feed(n->element, &away, now);
        n->blind_until = now + BLIND_MAX;
        ask_main(n, HF_SIP_ASK_REREAD, NULL, 0);
    }
    n->seen = now;
}

static void on_message(void *ctx, const struct hf_sip_msg *msg, const struct hf_sip_flow *from,
                       hf_time now, uint32_t wall_s)
{
    struct hf_sip_node *n = ctx;
    look_at_clock(n, now);
    if (now < n->blind_until && from->transport == HF_SIP_TRANSPORT_UDP) {
        return; /* it comes again */
    }
    hf_sip_element_message(n->element, msg, from, now, wall_s);
}

static void on_unreachable(void *ctx, const struct hf_sip_flow *to, hf_time now)
{
    struct hf_sip_node *n = ctx;
    hf_sip_element_unreachable(n->element, to, now);
}

static void on_tick(void *ctx, hf_time now, uint32_t wall_s)
{
    struct hf_sip_node *n = ctx;
    look_at_clock(n, now);
    hf_sip_element_tick(n->element, now, wall_s);
}

static hf_time on_deadline(void *ctx)
{
    return hf_sip_element_deadline(((struct hf_sip_node *)ctx)->element);
}

static void on_shed(void *ctx, enum hf_sip_shed level)
{
    struct hf_sip_node *n = ctx;
    hf_log_info("", "worker %u sheds %s", n->i,
                level == HF_SIP_SHED_ALL   ? "all"
                : level == HF_SIP_SHED_NEW ? "what comes without credentials"
                                           : "nothing any more");
    hf_sip_element_shed(n->element, level);
}

/* Service addresses come and go with their groups. */
static bool is_here(void *ctx, size_t i)
{
    const struct hf_sip_node *n = ctx;
    return hf_netaddr_has(&n->s->listen[i].at);
}

static void look_at_addresses(struct hf_sip_node *n)
{
    const struct hf_sip *s = n->s;
    for (size_t i = 0; i < s->n_listen; i++) {
        if (s->listen[i].elsewhere) {
            hf_sip_element_here(n->element, i, is_here(n, i));
        }
    }
}

static void on_second(void *ctx, hf_time now)
{
    struct hf_sip_node *n = ctx;
    struct hf_sip_node_figures f = {.counters = *hf_sip_element_counters(n->element)};
    hf_sip_element_info(n->element, &f.info);
    look_at_clock(n, now);
    look_at_addresses(n);
    pthread_mutex_lock(&n->lock);
    n->shown = f;
    pthread_mutex_unlock(&n->lock);
}

/* ---- mails ---- */

static void take_peer(struct hf_sip_node *n, const struct hf_sip_peer *p)
{
    uint16_t number;
    int rc = hf_sip_element_peer(n->element, p, &number);
    if (rc == -HF_EVALUE) { /* its host can't be used; its number must be taken all the same */
        struct hf_sip_peer bare = *p;
        bare.host = hf_slice(NULL, 0);
        rc = hf_sip_element_peer(n->element, &bare, &number);
    }
    if (rc) {
        hf_log_err("", "worker %u: cannot take up server %.*s: %s; ends", n->i,
                   HF_SLICE_FMT(p->name), hf_strerror(rc));
        abort(); /* numbers would differ from then on */
    }
    remember(n, &p->at[HF_SIP_TRANSPORT_TLS], p->host);
}

static void take_resolved(struct hf_sip_node *n, struct hf_slice data, hf_time now)
{
    struct resolved_head h;
    struct hf_sip_flow to[HF_SIP_RESOLVED_MAX];
    memcpy(&h, data.p, sizeof(h));
    struct hf_slice rest = hf_slice(data.p + sizeof(h), data.n - sizeof(h));
    if (h.n) {
        memcpy(to, rest.p, h.n * sizeof(to[0]));
    }
    struct hf_slice host = hf_slice(rest.p + h.n * sizeof(to[0]), h.host_n);
    for (uint32_t i = 0; i < h.n; i++) {
        if (to[i].transport == HF_SIP_TRANSPORT_TLS) {
            remember(n, &to[i].peer, host);
        }
    }
    hf_sip_element_resolved(n->element, h.cookie, to, h.n, now);
}

static void take_show(struct hf_sip_node *n, struct hf_slice data, hf_time now)
{
    struct hf_buf b;
    uint64_t id;
    memcpy(&id, data.p, sizeof(id));
    hf_buf_init(&b, SHOW_MAX);
    hf_sip_element_show(n->element, hf_slice(data.p + sizeof(id), data.n - sizeof(id)), now, &b);
    if (b.err) {
        hf_buf_clear(&b);
    }
    struct hf_slice part[] = {hf_slice(&id, sizeof(id)), hf_buf_slice(&b)};
    ask_main(n, HF_SIP_TOLD_SHOW, part, 2);
    hf_buf_fini(&b);
}

static struct hf_sip_tls *current_tls(struct hf_sip *s)
{
    pthread_mutex_lock(&s->tls_lock);
    struct hf_sip_tls *t = hf_sip_tls_ref(s->tls);
    pthread_mutex_unlock(&s->tls_lock);
    return t;
}

static void take_tls(struct hf_sip_node *n)
{
    struct hf_sip_tls *former = n->tls;
    n->tls = current_tls(n->s);
    hf_sip_worker_tls(n->w, n->tls ? n->tls->server : NULL, n->tls ? n->tls->client : NULL);
    hf_sip_tls_unref(former);
}

static void on_mail(void *ctx, const struct hf_mail *mail, hf_time now)
{
    struct hf_sip_node *n = ctx;
    switch (mail->kind) {
    case HF_SIP_MAIL_PEER:
        take_peer(n, hf_sip_unpack_peer(mail->data));
        break;
    case MAIL_RESULT:
        hf_sip_element_done(n->element, hf_sip_unpack_result(mail->data), now);
        break;
    case MAIL_FEED: {
        const struct hf_sip_feed *f = hf_sip_unpack_feed(mail->data);
        hf_sip_element_feed(n->element, f, now);
        if (!f->there || f->change) {
            n->blind_until = 0;
        }
        break;
    }
    case MAIL_RESOLVED:
        take_resolved(n, mail->data, now);
        break;
    case MAIL_TRACE:
        hf_sip_element_trace(n->element, mail->data);
        break;
    case MAIL_SHOW:
        take_show(n, mail->data, now);
        break;
    case MAIL_TLS:
        take_tls(n);
        break;
    default:
        break;
    }
}

/* ---- what the store calls, in its thread ---- */

static void post(struct hf_sip *s, unsigned worker, uint32_t kind, struct hf_buf *b)
{
    struct hf_slice part = hf_buf_slice(b);
    if (b->err || hf_sip_worker_post(hf_sip_worker(s->workers, worker), kind, &part, 1)) {
        hf_log_err("", "out of memory: a worker is not told what the database says");
    }
}

static void on_result(void *arg, unsigned worker, const struct hf_sip_result *r)
{
    struct hf_sip *s = arg;
    struct hf_buf b;
    hf_buf_init(&b, PACK_MAX);
    hf_sip_pack_result(&b, r);
    post(s, worker, MAIL_RESULT, &b);
    hf_buf_fini(&b);
}

static void on_feed(void *arg, const struct hf_sip_feed *f)
{
    struct hf_sip *s = arg;
    struct hf_buf b;
    hf_buf_init(&b, PACK_MAX);
    hf_sip_pack_feed(&b, f);
    for (unsigned i = 0; i < hf_sip_workers_n(s->workers); i++) {
        post(s, i, MAIL_FEED, &b);
    }
    hf_buf_fini(&b);
    if (f->there && f->change) {
        hf_sip_lead_change(s->lead, f->change); /* a new leader knows an older table by it */
    }
}

static uint16_t on_server(void *arg, struct hf_slice name)
{
    return hf_sip_names_number(((struct hf_sip *)arg)->names, name);
}

static void on_name(void *arg, uint16_t server, char *buf, size_t room)
{
    hf_sip_names_name(((struct hf_sip *)arg)->names, server, buf, room);
}

const struct hf_sip_store_events hf_sip_node_events = {
    .result = on_result, .feed = on_feed, .server = on_server, .server_name = on_name};

/* ---- from the main thread ---- */

static bool post_to(struct hf_sip *s, unsigned worker, uint32_t kind, const struct hf_slice *part,
                    size_t n_parts)
{
    return hf_sip_worker_post(hf_sip_worker(s->workers, worker), kind, part, n_parts) == 0;
}

void hf_sip_nodes_trace(struct hf_sip *s, struct hf_slice aor)
{
    for (unsigned i = 0; i < hf_sip_workers_n(s->workers); i++) {
        (void)post_to(s, i, MAIL_TRACE, &aor, 1);
    }
}

void hf_sip_nodes_tls(struct hf_sip *s)
{
    for (unsigned i = 0; i < hf_sip_workers_n(s->workers); i++) {
        (void)post_to(s, i, MAIL_TLS, NULL, 0);
    }
}

bool hf_sip_nodes_show(struct hf_sip *s, struct hf_slice aor, uint64_t id)
{
    struct hf_slice part[] = {hf_slice(&id, sizeof(id)), aor};
    unsigned owner = hf_sip_element_owner_aor(aor, hf_sip_workers_n(s->workers));
    return post_to(s, owner, MAIL_SHOW, part, 2);
}

void hf_sip_nodes_resolved(struct hf_sip *s, unsigned worker, uint64_t cookie, struct hf_slice host,
                           const struct hf_sip_flow *to, size_t n)
{
    struct resolved_head h = {.cookie = cookie, .n = (uint32_t)n, .host_n = (uint32_t)host.n};
    struct hf_slice part[] = {hf_slice(&h, sizeof(h)), hf_slice(to, n * sizeof(to[0])), host};
    (void)post_to(s, worker, MAIL_RESOLVED, part, 3);
}

/* ---- life ---- */

static int make_element(struct hf_sip_node *n)
{
    static const struct hf_sip_element_ops ops = {.send = on_send,
                                                  .store = on_store,
                                                  .resolve = on_resolve,
                                                  .trace = on_trace,
                                                  .here = is_here};
    const struct hf_sip *s = n->s;
    const struct hf_sip_config *c = s->config;
    struct hf_slice domain[HF_CONF_LIST_MAX];
    struct hf_slice watchers[HF_CONF_LIST_MAX];
    struct hf_sip_net edge[HF_SIP_EDGES_MAX];
    for (size_t i = 0; i < c->watch.allow.n; i++) {
        watchers[i] = hf_slice_str(c->watch.allow.item[i]);
    }
    for (size_t i = 0; i < c->sip.domains.n; i++) {
        domain[i] = hf_slice_str(c->sip.domains.item[i]);
    }
    for (size_t i = 0; i < c->sip.trusted_edges.n; i++) {
        (void)!hf_sip_config_net(c->sip.trusted_edges.item[i], &edge[i]); /* checked there */
    }
    struct hf_sip_element_conf conf = {
        .role = (uint8_t)c->sip.role,
        .worker = (uint8_t)n->i,
        .n_workers = (uint8_t)hf_sip_workers_n(s->workers),
        .name = hf_slice_str(c->sip.name),
        .realm = hf_slice_str(hf_sip_config_realm(c)),
        .domain = domain,
        .n_domains = c->sip.domains.n,
        .listen = s->listen,
        .n_listen = s->n_listen,
        .edge = edge,
        .n_edges = c->sip.trusted_edges.n,
        .must_authenticate = c->auth.required,
        .watchers = watchers,
        .n_watchers = c->watch.allow.n,
        .algorithms = c->auth.algorithms,
        .nonce_life_s = (uint32_t)(c->auth.nonce_life_ms / 1000),
        .key = s->nonce_key,
        .seed = s->seed,
        .boot = s->boot,
        .expires_default_s = (uint32_t)(c->expires.default_ms / 1000),
        .expires_min_s = (uint32_t)(c->expires.min_ms / 1000),
        .expires_max_s = (uint32_t)(c->expires.max_ms / 1000),
        .service_route = hf_slice_str(c->sip.service_route),
        .bindings_max = (size_t)c->limits.bindings,
        .transactions_max = (size_t)c->limits.transactions,
        .requests_max = (size_t)c->limits.requests,
        .cache_max = (size_t)c->limits.cache,
        .subs_max = (size_t)c->limits.subscriptions,
        .source_rate = (uint32_t)c->limits.source_rate,
    };
    return hf_sip_element_create(&conf, &ops, n, hf_now(), (uint32_t)(hf_wall_now() / HF_NS_PER_S),
                                 &n->element);
}

int hf_sip_node_create(struct hf_sip *s, unsigned worker, struct hf_err *err,
                       struct hf_sip_node **ret_node)
{
    static const struct hf_sip_handler handler = {.owner = on_owner,
                                                  .message = on_message,
                                                  .unreachable = on_unreachable,
                                                  .mail = on_mail,
                                                  .tick = on_tick,
                                                  .deadline = on_deadline,
                                                  .shed = on_shed,
                                                  .second = on_second,
                                                  .server_name = on_server_name};
    struct hf_sip_node *n = hf_alloc(sizeof(*n));
    if (!n) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    n->s = s;
    n->i = worker;
    n->w = hf_sip_worker(s->workers, worker);
    n->tls = current_tls(s);
    pthread_mutex_init(&n->lock, NULL);
    n->tls_name = hf_alloc_array(TLS_NAMES_MAX, sizeof(n->tls_name[0]));
    int rc = n->tls_name ? make_element(n) : -ENOMEM;
    if (rc) {
        hf_sip_node_destroy(n);
        return hf_err_set(err, rc, "cannot make a worker: %s", hf_strerror(rc));
    }
    hf_sip_worker_handle(n->w, &handler, n);
    *ret_node = n;
    return 0;
}

void hf_sip_node_destroy(struct hf_sip_node *n)
{
    if (n) {
        hf_sip_element_destroy(n->element);
        hf_sip_tls_unref(n->tls);
        pthread_mutex_destroy(&n->lock);
        hf_free(n->tls_name);
        hf_free(n);
    }
}

void hf_sip_node_figures(struct hf_sip_node *n, struct hf_sip_node_figures *ret_figures)
{
    pthread_mutex_lock(&n->lock);
    *ret_figures = n->shown;
    pthread_mutex_unlock(&n->lock);
}
