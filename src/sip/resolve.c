/* Where a SIP URI is to be sent (RFC 3263), by c-ares in our loop. */
#include "sip/resolve.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/prng.h"

#define NAMES_MAX 4096
#define JOBS_MAX 1024
#define WAITERS_MAX 10000
#define TIMEOUT_MS 2000
#define TRIES 3
#define TTL_MAX 3600u
#define TTL_NONE 30u  /* there is no such name */
#define TTL_ERROR 2u  /* nobody answered */
#define STEPS_MAX 12u /* SRV names, and hosts, of one job */
#define SOCKETS_MAX 64

/* A name to be looked up, with what is known of it by then. */
struct step {
    char name[256];
    uint8_t transport;
    uint16_t port;             /* hosts */
    uint16_t rank;             /* lower ones first: NAPTR's order */
    uint16_t priority, weight; /* SRV */
};
struct candidate {
    struct hf_sip_flow to;
    uint16_t rank, priority, weight;
    uint8_t target; /* addresses of one host have the same */
};
struct waiter {
    struct hf_list node;
    uint64_t cookie;
    hf_sip_resolved_fn *fn;
    void *arg;
};

/* A question, under way or answered. */
struct entry {
    struct hf_list node; /* in r->running, or r->done in the order of their last use */
    struct hf_sip_resolver *r;
    char key[300];
    size_t key_n;
    char host[256];
    uint16_t port;
    uint8_t transport;
    bool sips, running, sync;
    struct hf_list waiters;
    struct step srv[STEPS_MAX], a[STEPS_MAX];
    unsigned n_srv, i_srv, n_a, i_a;
    uint32_t ttl;
    hf_time until;
    struct candidate c[HF_SIP_RESOLVED_MAX];
    unsigned n;
};

struct watched {
    struct hf_sip_resolver *r;
    ares_socket_t fd;
    struct hf_io *io; /* NULL: free */
};

struct hf_sip_resolver {
    struct hf_loop *loop;
    struct hf_sip_resolver_conf conf;
    ares_channel channel;
    bool open, ending;
    struct watched watched[SOCKETS_MAX];
    struct hf_timer *timer;
    struct hf_map entries;
    struct hf_list running, done;
    size_t n_running, n_entries, n_waiters;
    struct hf_prng prng;
    struct hf_sip_resolver_counters c;
};

static void next_step(struct entry *e);

/* ---- c-ares in our loop ---- */

static void arm(struct hf_sip_resolver *r)
{
    struct timeval most = {3600, 0}, tv;
    const struct timeval *at = ares_timeout(r->channel, &most, &tv);
    hf_timer_set(r->timer, r->n_running
                               ? hf_now() + at->tv_sec * HF_NS_PER_S + at->tv_usec * 1000 + 1000
                               : HF_NEVER);
}

static void on_timer(void *arg)
{
    struct hf_sip_resolver *r = arg;
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm(r);
}

static void on_socket(void *arg, unsigned events)
{
    struct watched *w = arg;
    struct hf_sip_resolver *r = w->r;
    ares_socket_t fd = w->fd;
    ares_process_fd(r->channel, events & HF_IO_READ ? fd : ARES_SOCKET_BAD,
                    events & HF_IO_WRITE ? fd : ARES_SOCKET_BAD);
    arm(r);
}

static void on_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct hf_sip_resolver *r = arg;
    struct watched *w = NULL;
    unsigned events = (readable ? HF_IO_READ : 0) | (writable ? HF_IO_WRITE : 0);
    for (size_t i = 0; i < SOCKETS_MAX; i++) {
        if (r->watched[i].io && r->watched[i].fd == fd) {
            w = &r->watched[i];
            break;
        }
        w = !w && !r->watched[i].io ? &r->watched[i] : w;
    }
    if (!w) {
        return; /* too many: it times out */
    }
    if (events == 0) {
        hf_io_destroy(w->io);
        w->io = NULL;
    } else if (w->io) {
        hf_io_set(w->io, events);
    } else {
        *w = (struct watched){.r = r, .fd = fd};
        (void)!hf_io_create(r->loop, fd, events, on_socket, w, &w->io); /* else it times out */
    }
}

/* ---- answers ---- */

/* By rank, then priority, then by weight and chance (RFC 2782). */
static size_t draw(struct hf_sip_resolver *r, const struct entry *e, struct hf_sip_flow *to)
{
    bool taken[HF_SIP_RESOLVED_MAX] = {false};
    size_t n = 0;
    while (n < e->n) {
        uint32_t best = UINT32_MAX, sum = 0;
        for (unsigned i = 0; i < e->n; i++) {
            uint32_t order = (uint32_t)e->c[i].rank << 16 | e->c[i].priority;
            best = !taken[i] && order < best ? order : best;
        }
        for (unsigned i = 0; i < e->n; i++) {
            if (!taken[i] && ((uint32_t)e->c[i].rank << 16 | e->c[i].priority) == best) {
                sum += e->c[i].weight + 1u;
            }
        }
        uint32_t pick = (uint32_t)hf_prng_below(&r->prng, sum);
        unsigned target = 0;
        for (unsigned i = 0; i < e->n; i++) {
            if (!taken[i] && ((uint32_t)e->c[i].rank << 16 | e->c[i].priority) == best) {
                target = e->c[i].target;
                if (pick < e->c[i].weight + 1u) {
                    break;
                }
                pick -= e->c[i].weight + 1u;
            }
        }
        for (unsigned i = 0; i < e->n; i++) {
            if (!taken[i] && e->c[i].target == target) {
                taken[i] = true;
                to[n++] = e->c[i].to;
            }
        }
    }
    return n;
}

static void tell(struct entry *e)
{
    struct hf_sip_resolver *r = e->r;
    while (!hf_list_empty(&e->waiters)) {
        struct waiter *w = HF_CONTAINER_OF(e->waiters.next, struct waiter, node);
        struct hf_sip_flow to[HF_SIP_RESOLVED_MAX];
        size_t n = draw(r, e, to);
        hf_list_unlink(&w->node);
        r->n_waiters--;
        w->fn(w->arg, w->cookie, to, n);
        hf_free(w);
    }
}

static void destroy(struct entry *e)
{
    struct hf_sip_resolver *r = e->r;
    HF_LIST_FOREACH (node, &e->waiters) {
        hf_list_unlink(node);
        r->n_waiters--;
        hf_free(HF_CONTAINER_OF(node, struct waiter, node));
    }
    hf_map_remove(&r->entries, hf_slice(e->key, e->key_n));
    hf_list_unlink(&e->node);
    r->n_entries--;
    hf_free(e);
}

static void finish(struct entry *e)
{
    struct hf_sip_resolver *r = e->r;
    uint32_t ttl = e->ttl > TTL_MAX ? TTL_MAX : e->ttl;
    if (e->n == 0 && ttl > TTL_NONE) {
        ttl = TTL_NONE;
    }
    e->running = false;
    e->until = hf_now() + HF_S(ttl);
    r->n_running--;
    r->c.failed += e->n == 0;
    hf_list_unlink(&e->node);
    hf_list_insert(&r->done, &e->node);
    tell(e);
}

/* How long all of its answers may be kept. */
static void note_ttl(struct entry *e, const unsigned char *p, int n)
{
    ns_msg m;
    ns_rr rr;
    if (ns_initparse(p, n, &m) < 0) {
        return;
    }
    for (int i = 0; i < ns_msg_count(m, ns_s_an); i++) {
        if (ns_parserr(&m, ns_s_an, i, &rr) == 0 && ns_rr_ttl(rr) < e->ttl) {
            e->ttl = ns_rr_ttl(rr);
        }
    }
}

static void note_status(struct entry *e, int status)
{
    if (status != ARES_SUCCESS && status != ARES_ENODATA && status != ARES_ENOTFOUND) {
        e->ttl = e->ttl > TTL_ERROR ? TTL_ERROR : e->ttl;
    }
}

static bool have(const struct hf_sip_resolver *r, uint8_t transport)
{
    return transport == HF_SIP_TRANSPORT_UDP   ? r->conf.udp
           : transport == HF_SIP_TRANSPORT_TCP ? r->conf.tcp
           : transport == HF_SIP_TRANSPORT_TLS ? r->conf.tls
                                               : false;
}

/* ---- addresses ---- */

static void add_host(struct entry *e, const char *name, uint16_t port, const struct step *from)
{
    if (e->n_a < STEPS_MAX) {
        struct step *s = &e->a[e->n_a++];
        *s = *from;
        snprintf(s->name, sizeof(s->name), "%s", name);
        s->port = port ? port : hf_sip_transport_port((enum hf_sip_transport)s->transport);
    }
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
    struct entry *e = arg;
    struct hf_sip_resolver *r = e->r;
    (void)timeouts;
    if (r->ending) {
        ares_freeaddrinfo(found);
        return;
    }
    const struct step *s = &e->a[e->i_a++];
    note_status(e, status);
    for (struct ares_addrinfo_node *n = found ? found->nodes : NULL;
         n && e->n < HF_SIP_RESOLVED_MAX; n = n->ai_next) {
        struct hf_addr a = {.len = n->ai_addrlen};
        if (n->ai_addrlen > sizeof(a.ss)) {
            continue;
        }
        memcpy(&a.ss, n->ai_addr, n->ai_addrlen);
        struct candidate *c = &e->c[e->n];
        *c = (struct candidate){.to = {.transport = s->transport, .peer = hf_addr_to_endpoint(&a)},
                                .rank = s->rank,
                                .priority = s->priority,
                                .weight = s->weight,
                                .target = (uint8_t)e->i_a};
        c->to.peer.port = s->port;
        bool wanted = c->to.peer.family == HF_AF_INET ? r->conf.v4 : r->conf.v6;
        e->n += wanted;
        uint32_t ttl = n->ai_ttl > 0 ? (uint32_t)n->ai_ttl : TTL_NONE; /* hosts has none */
        e->ttl = ttl < e->ttl ? ttl : e->ttl;
    }
    ares_freeaddrinfo(found);
    next_step(e);
}

/* ---- SRV ---- */

static void add_srv(struct entry *e, const char *name, uint8_t transport, uint16_t rank)
{
    if (e->n_srv < STEPS_MAX) {
        struct step *s = &e->srv[e->n_srv++];
        *s = (struct step){.transport = transport, .rank = rank};
        snprintf(s->name, sizeof(s->name), "%s", name);
    }
}

static void add_srv_of(struct entry *e, uint8_t transport)
{
    char name[300];
    snprintf(name, sizeof(name), "_%s._%s.%s",
             transport == HF_SIP_TRANSPORT_TLS || e->sips ? "sips" : "sip",
             transport == HF_SIP_TRANSPORT_UDP ? "udp" : "tcp", e->host);
    if (strlen(name) < sizeof(e->srv[0].name)) {
        add_srv(e, name, transport, (uint16_t)e->n_srv);
    }
}

/* The host itself, as there is no SRV of it. */
static void fall_back(struct entry *e)
{
    struct step s = {.transport = e->transport};
    if (s.transport == HF_SIP_TRANSPORT_OTHER) { /* RFC 3263 4.1 */
        s.transport = e->sips ? HF_SIP_TRANSPORT_TLS : HF_SIP_TRANSPORT_UDP;
    }
    if (have(e->r, s.transport)) {
        add_host(e, e->host, e->port, &s);
    }
}

static void on_srv(void *arg, int status, int timeouts, unsigned char *p, int n)
{
    struct entry *e = arg;
    struct ares_srv_reply *all = NULL;
    (void)timeouts;
    if (e->r->ending) {
        return;
    }
    struct step from = e->srv[e->i_srv++];
    note_status(e, status);
    if (status == ARES_SUCCESS && ares_parse_srv_reply(p, n, &all) == ARES_SUCCESS) {
        note_ttl(e, p, n);
        for (const struct ares_srv_reply *s = all; s; s = s->next) {
            from.priority = s->priority;
            from.weight = s->weight;
            if (*s->host && strcmp(s->host, ".") != 0 && s->port) {
                add_host(e, s->host, s->port, &from);
            }
        }
        ares_free_data(all);
    }
    if (e->i_srv == e->n_srv && e->n_a == 0) {
        fall_back(e);
    }
    next_step(e);
}

/* ---- NAPTR ---- */

static uint8_t naptr_transport(const struct entry *e, const char *service)
{
    uint8_t t = strcasecmp(service, "SIPS+D2T") == 0              ? HF_SIP_TRANSPORT_TLS
                : !e->sips && strcasecmp(service, "SIP+D2T") == 0 ? HF_SIP_TRANSPORT_TCP
                : !e->sips && strcasecmp(service, "SIP+D2U") == 0 ? HF_SIP_TRANSPORT_UDP
                                                                  : HF_SIP_TRANSPORT_OTHER;
    return have(e->r, t) ? t : HF_SIP_TRANSPORT_OTHER;
}

/* No NAPTR that we can use: SRV of each transport that we have. */
static void add_all_srv(struct entry *e)
{
    static const uint8_t order[] = {HF_SIP_TRANSPORT_UDP, HF_SIP_TRANSPORT_TCP,
                                    HF_SIP_TRANSPORT_TLS};
    for (size_t i = 0; i < HF_ARRAY_LEN(order); i++) {
        if (have(e->r, order[i]) && (!e->sips || order[i] == HF_SIP_TRANSPORT_TLS)) {
            add_srv_of(e, order[i]);
        }
    }
}

static void on_naptr(void *arg, int status, int timeouts, unsigned char *p, int n)
{
    struct entry *e = arg;
    struct ares_naptr_reply *all = NULL;
    (void)timeouts;
    if (e->r->ending) {
        return;
    }
    note_status(e, status);
    if (status == ARES_SUCCESS && ares_parse_naptr_reply(p, n, &all) == ARES_SUCCESS) {
        note_ttl(e, p, n);
        uint32_t done = 0; /* (order, preference) up to which all are taken, + 1 */
        for (;;) {
            const struct ares_naptr_reply *best = NULL;
            uint32_t best_at = UINT32_MAX;
            for (const struct ares_naptr_reply *s = all; s; s = s->next) {
                uint32_t at = (uint32_t)s->order << 16 | s->preference;
                if (at >= done && at < best_at) {
                    best_at = at;
                    best = s;
                }
            }
            if (!best) {
                break;
            }
            for (const struct ares_naptr_reply *s = all; s; s = s->next) {
                uint8_t t = naptr_transport(e, (const char *)s->service);
                if (((uint32_t)s->order << 16 | s->preference) == best_at &&
                    strcasecmp((const char *)s->flags, "s") == 0 && t != HF_SIP_TRANSPORT_OTHER &&
                    *s->replacement) {
                    add_srv(e, s->replacement, t, (uint16_t)e->n_srv);
                }
            }
            if (best_at == UINT32_MAX) {
                break;
            }
            done = best_at + 1;
        }
        ares_free_data(all);
    }
    if (e->n_srv == 0) {
        add_all_srv(e);
    }
    if (e->n_srv == 0) {
        fall_back(e);
    }
    next_step(e);
}

/* ---- questions ---- */

static void next_step(struct entry *e)
{
    struct hf_sip_resolver *r = e->r;
    if (e->i_srv < e->n_srv) {
        r->c.queries++;
        ares_query(r->channel, e->srv[e->i_srv].name, ns_c_in, ns_t_srv, on_srv, e);
    } else if (e->i_a < e->n_a && e->n < HF_SIP_RESOLVED_MAX) {
        struct ares_addrinfo_hints hints = {
            .ai_family = r->conf.v4 && r->conf.v6 ? AF_UNSPEC
                         : r->conf.v6             ? AF_INET6
                                                  : AF_INET,
            .ai_flags = ARES_AI_NOSORT,
        };
        r->c.queries++;
        ares_getaddrinfo(r->channel, e->a[e->i_a].name, NULL, &hints, on_addresses, e);
    } else {
        finish(e);
    }
}

static bool numeric(struct entry *e)
{
    char text[HF_ADDR_STR_LEN];
    struct hf_addr a;
    struct step s = {.transport = e->transport};
    int n = strchr(e->host, ':') && *e->host != '['
                ? snprintf(text, sizeof(text), "[%.60s]", e->host)
                : snprintf(text, sizeof(text), "%.70s", e->host);
    if (n >= (int)sizeof(text) || hf_addr_parse(text, 0, NULL, &a)) {
        return false;
    }
    if (s.transport == HF_SIP_TRANSPORT_OTHER) {
        s.transport = e->sips ? HF_SIP_TRANSPORT_TLS : HF_SIP_TRANSPORT_UDP;
    }
    if (have(e->r, s.transport)) {
        e->c[0].to =
            (struct hf_sip_flow){.transport = s.transport, .peer = hf_addr_to_endpoint(&a)};
        e->c[0].to.peer.port =
            e->port ? e->port : hf_sip_transport_port((enum hf_sip_transport)s.transport);
        e->n = 1;
    }
    return true;
}

static void start(struct entry *e)
{
    if (numeric(e)) {
        finish(e);
    } else if (e->port) { /* 4.1, 4.2: a port is given */
        fall_back(e);
        next_step(e);
    } else if (e->transport != HF_SIP_TRANSPORT_OTHER) {
        if (have(e->r, e->transport)) {
            add_srv_of(e, e->transport);
        }
        next_step(e);
    } else {
        e->r->c.queries++;
        ares_query(e->r->channel, e->host, ns_c_in, ns_t_naptr, on_naptr, e);
    }
}

/* Room for one more: the one that was not asked for the longest goes. */
static bool make_room(struct hf_sip_resolver *r)
{
    size_t most = r->conf.names_max ? r->conf.names_max : NAMES_MAX;
    size_t jobs = r->conf.jobs_max ? r->conf.jobs_max : JOBS_MAX;
    if (r->n_running >= jobs) {
        return false;
    }
    while (r->n_entries >= most && !hf_list_empty(&r->done)) {
        destroy(HF_CONTAINER_OF(r->done.next, struct entry, node));
    }
    return r->n_entries < most;
}

static struct entry *new_entry(struct hf_sip_resolver *r, const struct hf_sip_lookup *what,
                               struct hf_slice key)
{
    struct entry *e = make_room(r) ? hf_alloc(sizeof(*e)) : NULL;
    if (!e) {
        return NULL;
    }
    e->r = r;
    memcpy(e->key, key.p, key.n);
    e->key_n = key.n;
    hf_list_init(&e->waiters);
    hf_list_init(&e->node);
    for (size_t i = 0; i < what->host.n; i++) {
        e->host[i] = (char)tolower(what->host.p[i]);
    }
    e->port = what->port;
    e->transport = what->transport;
    e->sips = what->sips;
    e->ttl = TTL_MAX;
    if (hf_map_put(&r->entries, hf_slice(e->key, e->key_n), e)) {
        hf_free(e);
        return NULL;
    }
    r->n_entries++;
    return e;
}

static struct waiter *add_waiter(struct entry *e, uint64_t cookie, hf_sip_resolved_fn *fn,
                                 void *arg)
{
    struct waiter *w = e->r->n_waiters < WAITERS_MAX ? hf_alloc(sizeof(*w)) : NULL;
    if (w) {
        *w = (struct waiter){.cookie = cookie, .fn = fn, .arg = arg};
        hf_list_insert(&e->waiters, &w->node);
        e->r->n_waiters++;
    }
    return w;
}

static bool good_host(struct hf_slice h)
{
    return h.n > 0 && h.n < 254 && !memchr(h.p, '\0', h.n) && !memchr(h.p, '%', h.n);
}

void hf_sip_resolve(struct hf_sip_resolver *r, const struct hf_sip_lookup *what, uint64_t cookie,
                    hf_sip_resolved_fn *fn, void *arg)
{
    char key[300];
    struct hf_sip_flow to[HF_SIP_RESOLVED_MAX];
    r->c.asked++;
    if (!good_host(what->host)) {
        r->c.refused++;
        fn(arg, cookie, NULL, 0);
        return;
    }
    int n = snprintf(key, sizeof(key), "%u %u %d %.*s", what->transport, what->port, what->sips,
                     HF_SLICE_FMT(what->host));
    for (int i = 0; i < n; i++) {
        key[i] = (char)tolower((unsigned char)key[i]);
    }
    struct entry *e = hf_map_get(&r->entries, hf_slice(key, (size_t)n));
    if (e && !e->running && e->until <= hf_now()) {
        destroy(e);
        e = NULL;
    }
    if (e && !e->running) {
        r->c.cached++;
        hf_list_unlink(&e->node);
        hf_list_insert(&r->done, &e->node);
        n = (int)draw(r, e, to);
        fn(arg, cookie, to, (size_t)n);
        return;
    }
    bool fresh = !e;
    e = e ? e : new_entry(r, what, hf_slice(key, (size_t)n));
    if (!e || !add_waiter(e, cookie, fn, arg)) {
        r->c.refused++;
        if (e && fresh) {
            destroy(e);
        }
        fn(arg, cookie, NULL, 0);
        return;
    }
    if (fresh) {
        e->running = true;
        r->n_running++;
        hf_list_insert(&r->running, &e->node);
        start(e);
        arm(r);
    }
}

/* ---- life ---- */

static int set_servers(struct hf_sip_resolver *r, struct hf_err *err)
{
    char list[2048] = "", text[HF_ADDR_STR_LEN];
    size_t n = 0;
    for (size_t i = 0; i < r->conf.n_servers; i++) {
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? "," : "",
                              hf_addr_str(&r->conf.server[i], text));
        if (n >= sizeof(list)) {
            return hf_err_set(err, -HF_ECONFIG, "too many name servers");
        }
    }
    int rc = n ? ares_set_servers_ports_csv(r->channel, list) : ARES_SUCCESS;
    return rc == ARES_SUCCESS
               ? 0
               : hf_err_set(err, -HF_ECONFIG, "name servers %s: %s", list, ares_strerror(rc));
}

int hf_sip_resolver_create(struct hf_loop *loop, const struct hf_sip_resolver_conf *conf,
                           struct hf_err *err, struct hf_sip_resolver **ret_resolver)
{
    struct hf_sip_resolver *r = hf_alloc(sizeof(*r));
    if (!r) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    r->loop = loop;
    r->conf = *conf;
    hf_list_init(&r->running);
    hf_list_init(&r->done);
    hf_map_init(&r->entries, conf->seed);
    hf_prng_init(&r->prng, conf->seed);
    struct ares_options o = {
        .flags = ARES_FLAG_NOSEARCH, /* names in URIs are whole */
        .timeout = conf->timeout_ms ? conf->timeout_ms : TIMEOUT_MS,
        .tries = TRIES,
        .sock_state_cb = on_state,
        .sock_state_cb_data = r,
    };
    int rc = ares_library_init(ARES_LIB_INIT_ALL);
    rc = rc ? rc
            : ares_init_options(&r->channel, &o,
                                ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                    ARES_OPT_SOCK_STATE_CB);
    r->open = rc == ARES_SUCCESS;
    rc = rc ? hf_err_set(err, -HF_ECONFIG, "cannot resolve names: %s", ares_strerror(rc))
            : hf_timer_create(loop, on_timer, r, &r->timer);
    rc = rc ? rc : set_servers(r, err);
    if (rc) {
        hf_sip_resolver_destroy(r);
        return rc;
    }
    *ret_resolver = r;
    return 0;
}

void hf_sip_resolver_destroy(struct hf_sip_resolver *r)
{
    if (!r) {
        return;
    }
    r->ending = true;
    if (r->open) {
        ares_destroy(r->channel);
    }
    HF_LIST_FOREACH (a, &r->running) {
        destroy(HF_CONTAINER_OF(a, struct entry, node));
    }
    HF_LIST_FOREACH (b, &r->done) {
        destroy(HF_CONTAINER_OF(b, struct entry, node));
    }
    for (size_t i = 0; i < SOCKETS_MAX; i++) {
        hf_io_destroy(r->watched[i].io);
    }
    hf_timer_destroy(r->timer);
    hf_map_fini(&r->entries);
    ares_library_cleanup();
    hf_free(r);
}

const struct hf_sip_resolver_counters *hf_sip_resolver_counters(const struct hf_sip_resolver *r)
{
    return &r->c;
}
