/* Servers, the store, and the network between them and their clients. */
#include "sim/sip/elements.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/slice.h"
#include "core/sip/digest.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define CLIENT_HOST EW_SERVERS /* hosts of events: servers, then clients */

enum {
    EV_MESSAGE,    /* at a server or a client */
    EV_STORE,      /* an op is done */
    EV_TIMER,      /* a client's */
    EV_RETRANSMIT, /* likewise */
    EV_WATCH,      /* likewise */
    EV_BROKEN,     /* a server hears that a connection is no more */
    EV_TICK,       /* a server's */
    EV_FEED,
    EV_TREE,
    EV_LEAD,
};

struct packet {
    struct hf_sip_flow flow; /* as the receiver sees it */
    size_t n;
    uint8_t text[];
};
struct op {
    struct hf_sip_op op;
    struct hf_sip_bind bind[HF_SIP_BINDS_MAX];
    size_t n;
    uint8_t text[30000];
};

static const uint8_t key[HF_SIP_NONCE_KEY_LEN] = "the key of the cluster";
static struct hf_sip_msg msg;

uint64_t ew_below(struct ew_world *w, uint64_t n)
{
    return hf_prng_below(&w->net.prng, n);
}

void ew_tell(struct ew_world *w, const char *fmt, ...)
{
    if (w->trace == NULL) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    vfprintf(w->trace, fmt, ap);
    va_end(ap);
    fputc('\n', w->trace);
}

void ew_failed(struct ew_world *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->why, sizeof(w->why), fmt, ap);
    va_end(ap);
    ew_tell(w, "FAILED: %s", w->why);
    longjmp(*w->fail, 1);
}

static uint32_t wall(const struct ew_world *w)
{
    return EW_WALL + (uint32_t)(w->net.now / HF_NS_PER_S);
}

/* --- addresses: servers 10.0.0.i+1, an edge's outside 10.1.0.i+1, clients 192.0.2.i+1 --- */

static struct hf_endpoint at(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
    return (struct hf_endpoint){.family = HF_AF_INET, .addr = {a, b, c, d}, .port = 5060};
}

static uint32_t host_of(const struct ew_world *w, const struct hf_endpoint *e)
{
    if (e->addr[0] == 10 && e->addr[3] >= 1 && e->addr[3] <= w->n_servers) {
        return e->addr[3] - 1u;
    }
    if (e->addr[0] == 192 && e->addr[3] >= 1 && e->addr[3] <= w->n_clients) {
        return CLIENT_HOST + e->addr[3] - 1u;
    }
    return UINT32_MAX;
}

static const char *host_name(uint32_t host)
{
    return host < CLIENT_HOST ? cast_server((uint16_t)host) : cast_client(host - CLIENT_HOST);
}

/* --- the network --- */

static void tell_message(struct ew_world *w, uint32_t from, uint32_t to,
                         const struct hf_sip_flow *flow, struct hf_slice s)
{
    if (w->trace == NULL) {
        return;
    }
    fprintf(w->trace, "%s > %s%s\n", host_name(from), host_name(to),
            flow->transport == HF_SIP_TRANSPORT_TCP ? " (TCP)" : "");
    bool begins = true;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\r' || (begins && s.p[i] == '\n' && i + 1 == s.n)) {
            continue;
        }
        if (begins && s.p[i] != '\n') {
            fputs("    ", w->trace);
        }
        fputc(s.p[i], w->trace);
        begins = s.p[i] == '\n';
    }
    if (!begins) {
        fputc('\n', w->trace);
    }
}

static void put(struct ew_world *w, uint32_t from, uint32_t to, const struct hf_sip_flow *flow,
                struct hf_slice s, uint32_t boot)
{
    bool stream = flow->transport == HF_SIP_TRANSPORT_TCP;
    w->n_messages++;
    tell_message(w, from, to, flow, s);
    for (int i = 0; i < (!stream && sim_net_chance(&w->net, w->net.weather.dup) ? 2 : 1); i++) {
        if (!stream && sim_net_chance(&w->net, w->net.weather.loss)) {
            ew_tell(w, "    (lost)");
            continue;
        }
        struct packet *p = sim_alloc(sizeof(*p) + s.n);
        p->flow = *flow;
        p->n = s.n;
        memcpy(p->text, s.p, s.n);
        sim_net_at(&w->net, w->net.now + sim_net_latency(&w->net), EV_MESSAGE, to, boot, p);
    }
}

/* A client's connection to a server: a number by the server's life. */
static uint64_t conn_of(const struct ew_world *w, uint16_t server, uint32_t client)
{
    return (uint64_t)w->server[server].boot << 16 | (client + 1u);
}

/* --- what servers do --- */

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    struct ew_world *w = ctx;
    uint32_t from = host_of(w, &to->local);
    uint32_t host = host_of(w, &to->peer);
    assert(from < w->n_servers && message.n > 0);
    if (to->conn) {
        uint32_t client = (uint32_t)(to->conn & 0xffff) - 1;
        if (client >= w->n_clients || to->conn >> 16 != w->server[from].boot) {
            ew_tell(w, "%s has no such connection", cast_server((uint16_t)from));
            struct packet *p = sim_alloc(sizeof(*p));
            p->flow = *to;
            sim_net_at(&w->net, w->net.now, EV_BROKEN, from, w->server[from].boot, p);
            return;
        }
        host = CLIENT_HOST + client;
    }
    if (host == UINT32_MAX) {
        return;
    }
    struct hf_sip_flow there = {.transport = to->transport, .local = to->peer, .peer = to->local};
    put(w, from, host, &there, message, 0);
}

static struct hf_slice keep(struct op *o, struct hf_slice s)
{
    assert(o->n + s.n <= sizeof(o->text));
    struct hf_slice kept = hf_slice(o->text + o->n, s.n);
    if (s.n) {
        memcpy(o->text + o->n, s.p, s.n);
    }
    o->n += s.n;
    return kept;
}

/* Which server's element has given it: the one that is called now. */
static uint16_t acting;

static void on_store(void *ctx, const struct hf_sip_op *op)
{
    struct ew_world *w = ctx;
    struct ew_server *s = &w->server[acting];
    struct op *o = sim_alloc(sizeof(*o));
    o->n = 0;
    o->op = *op;
    o->op.aor = keep(o, op->aor);
    o->op.row.aor = o->op.aor;
    o->op.user = keep(o, op->user);
    o->op.realm = keep(o, op->realm);
    o->op.kept.key = keep(o, op->kept.key);
    o->op.kept.data = keep(o, op->kept.data);
    for (size_t i = 0; i < op->n_binds; i++) {
        o->bind[i] = op->bind[i];
        o->bind[i].key = keep(o, op->bind[i].key);
        o->bind[i].b.uri = keep(o, op->bind[i].b.uri);
        o->bind[i].b.params = keep(o, op->bind[i].b.params);
        o->bind[i].b.call_id = keep(o, op->bind[i].b.call_id);
        o->bind[i].b.path = keep(o, op->bind[i].b.path);
    }
    o->op.bind = o->bind;
    hf_time t = w->net.now + HF_MS(1) + (hf_time)ew_below(w, w->by_hand ? 1 : HF_MS(15));
    s->store_at = t > s->store_at ? t : s->store_at + 1;
    sim_net_at(&w->net, s->store_at, EV_STORE, acting, s->boot, o);
}

static void on_resolve(void *ctx, uint64_t cookie, const struct hf_sip_uri *uri)
{
    (void)ctx;
    (void)cookie;
    (void)uri; /* no names here */
}

static void on_trace(void *ctx, struct hf_slice aor, const char *what,
                     const struct hf_sip_flow *flow, struct hf_slice text)
{
    struct ew_world *w = ctx;
    (void)flow;
    if (strcmp(what, "recv") != 0 && strcmp(what, "send") != 0) {
        ew_tell(w, "  %s: %.*s: %s: %.*s", cast_server(acting), HF_SLICE_FMT(aor), what,
                HF_SLICE_FMT(text));
    }
}

static const struct hf_sip_element_ops ops = {
    .send = on_send, .store = on_store, .resolve = on_resolve, .trace = on_trace};

/* --- the store --- */

static bool reaches(const struct ew_world *w, uint16_t server)
{
    return w->db_there && !w->server[server].cut;
}

static void put_aor(char *buf, size_t room, uint32_t client)
{
    snprintf(buf, room, "sip:%s@example.com", cast_client(client));
}

static uint32_t client_of(struct hf_slice aor)
{
    char name[64];
    for (uint32_t i = 0; i < EW_CLIENTS; i++) {
        put_aor(name, sizeof(name), i);
        if (hf_slice_eq(aor, hf_slice_str(name))) {
            return i;
        }
    }
    return UINT32_MAX;
}

static char aors[EW_CLIENTS][40];

/* An element's fleet has itself first; the world numbers servers by their names: rows are turned on
 * the way, as the store does it. */
static uint16_t number_at(uint16_t server, uint16_t of)
{
    return of == server ? 0 : of < server ? (uint16_t)(of + 1) : of;
}

static uint16_t number_from(uint16_t server, uint16_t number)
{
    return number == 0 ? server : number <= server ? (uint16_t)(number - 1) : number;
}

static struct hf_sip_row row_of(const struct ew_world *w, uint16_t server, uint32_t client)
{
    const struct ew_row *r = &w->row[client];
    put_aor(aors[client], sizeof(aors[client]), client);
    return (struct hf_sip_row){.aor = hf_slice_str(aors[client]),
                               .home = number_at(server, r->home),
                               .current = number_at(server, r->current),
                               .epoch = r->epoch,
                               .agent = r->agent,
                               .agent_id = r->agent_id};
}

static void write_binding(struct ew_world *w, struct ew_row *r, const struct hf_sip_bind *b)
{
    struct ew_stored *to = NULL;
    char name[300];
    snprintf(name, sizeof(name), "%.*s", HF_SLICE_FMT(b->key));
    for (size_t i = 0; i < EW_BINDINGS; i++) {
        struct ew_stored *s = &r->binding[i];
        s->used = s->used && s->until > w->net.now;
        if (s->used && strcmp(s->key, name) == 0) {
            to = s;
        }
    }
    if (b->erase) {
        if (to) {
            to->used = false;
        }
        return;
    }
    for (size_t i = 0; !to && i < EW_BINDINGS; i++) {
        to = r->binding[i].used ? NULL : &r->binding[i];
    }
    if (!to) {
        return;
    }
    to->used = true;
    snprintf(to->key, sizeof(to->key), "%s", name);
    snprintf(to->uri, sizeof(to->uri), "%.*s", HF_SLICE_FMT(b->b.uri));
    snprintf(to->params, sizeof(to->params), "%.*s", HF_SLICE_FMT(b->b.params));
    snprintf(to->call_id, sizeof(to->call_id), "%.*s", HF_SLICE_FMT(b->b.call_id));
    snprintf(to->path, sizeof(to->path), "%.*s", HF_SLICE_FMT(b->b.path));
    to->cseq = b->b.cseq;
    to->life_s = b->b.life_s;
    to->until = w->net.now + HF_S((hf_time)b->b.left_s);
    to->outbound = b->b.outbound;
}

static void do_bind(struct ew_world *w, uint16_t server, const struct hf_sip_op *op, uint32_t c,
                    struct hf_sip_result *res)
{
    struct ew_row *r = &w->row[c];
    if (!r->used || r->epoch != op->epoch || r->current != server) {
        res->done = HF_SIP_OP_STALE;
        res->have_row = r->used;
        return;
    }
    for (size_t i = 0; i < op->n_binds; i++) {
        write_binding(w, r, &op->bind[i]);
    }
}

static size_t do_load(struct ew_world *w, uint32_t c, struct hf_sip_stored_binding *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < EW_BINDINGS; i++) {
        const struct ew_stored *s = &w->row[c].binding[i];
        if (s->used && s->until > w->net.now) {
            ret[n++] = (struct hf_sip_stored_binding){
                .aor = hf_slice_str(aors[c]),
                .uri = hf_slice_str(s->uri),
                .params = hf_slice_str(s->params),
                .call_id = hf_slice_str(s->call_id),
                .path = hf_slice_str(s->path),
                .cseq = s->cseq,
                .life_s = s->life_s,
                .left_s = (uint32_t)((s->until - w->net.now + HF_NS_PER_S - 1) / HF_NS_PER_S),
                .outbound = s->outbound};
        }
    }
    return n;
}

static void do_keep(struct ew_world *w, uint16_t server, const struct hf_sip_op *op, uint32_t c,
                    struct hf_sip_result *res)
{
    struct ew_row *r = &w->row[c];
    struct ew_kept *to = NULL;
    char name[200];
    snprintf(name, sizeof(name), "%.*s", HF_SLICE_FMT(op->kept.key));
    for (size_t i = 0; i < EW_KEPT; i++) {
        struct ew_kept *k = &r->kept[i];
        k->used = k->used && k->until > w->net.now;
        to = k->used && strcmp(k->key, name) == 0 ? k : to;
    }
    if (op->kind == HF_SIP_OP_DROP) {
        if (to) {
            to->used = false;
        }
        return;
    }
    if (!r->used || r->epoch != op->epoch || r->current != server) {
        res->done = HF_SIP_OP_STALE;
        res->have_row = r->used;
        return;
    }
    for (size_t i = 0; !to && i < EW_KEPT; i++) {
        to = r->kept[i].used ? NULL : &r->kept[i];
    }
    if (!to || op->kept.data.n > sizeof(to->data)) {
        ew_failed(w, "the world has no room for a subscription");
    }
    to->used = true;
    to->n = op->kept.data.n;
    to->until = w->net.now + HF_S((hf_time)op->kept.left_s);
    snprintf(to->key, sizeof(to->key), "%s", name);
    memcpy(to->data, op->kept.data.p, to->n);
}

bool ew_is_kept(const struct ew_world *w, uint32_t whom, const char *tag)
{
    bool kept = false;
    for (size_t i = 0; i < EW_KEPT; i++) {
        const struct ew_kept *k = &w->row[whom].kept[i];
        kept = kept || (k->used && strcmp(k->key, tag) == 0);
    }
    return kept;
}

static size_t load_kept(const struct ew_world *w, uint32_t c, struct hf_sip_kept *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < EW_KEPT; i++) {
        const struct ew_kept *k = &w->row[c].kept[i];
        if (k->used && k->until > w->net.now) {
            ret[n++] =
                (struct hf_sip_kept){.what = 's',
                                     .key = hf_slice_str(k->key),
                                     .data = hf_slice(k->data, k->n),
                                     .left_s = (uint32_t)((k->until - w->net.now) / HF_NS_PER_S)};
        }
    }
    return n;
}

static void do_secret(const struct hf_sip_op *op, struct hf_sip_result *res)
{
    char text[64], password[40];
    struct hf_slice user = op->user;
    snprintf(text, sizeof(text), "sip:%.*s@example.com", HF_SLICE_FMT(user));
    uint32_t c = client_of(hf_slice_str(text));
    if (c == UINT32_MAX) {
        res->done = HF_SIP_OP_NONE;
        return;
    }
    snprintf(password, sizeof(password), "pw-%s", cast_client(c));
    put_aor(aors[c], sizeof(aors[c]), c);
    res->aor = hf_slice_str(aors[c]);
    res->algorithms = 1u << HF_SIP_SHA256;
    if (hf_sip_secret(HF_SIP_SHA256, user, op->realm, hf_slice_str(password),
                      res->secret[HF_SIP_SHA256])) {
        exit(2);
    }
}

static void assign_row(struct ew_world *w, uint16_t server, const struct hf_sip_op *op, uint32_t c)
{
    struct ew_row *r = &w->row[c];
    bool raise = op->kind == HF_SIP_OP_ASSERT && r->used && op->row.epoch > r->epoch;
    if (!r->used || raise) {
        r->used = true;
        r->home = number_from(server, op->row.home);
        r->current = number_from(server, op->row.current);
        r->epoch = op->row.epoch;
        r->agent = op->row.agent;
        r->agent_id = op->row.agent_id;
        r->change = r->current == server ? r->change : ++w->change; /* given: that one is told */
        ew_tell(w, "table: %s is %s's, epoch %" PRIu64, cast_client(c), cast_server(r->current),
                r->epoch);
    }
}

static void do_op(struct ew_world *w, uint16_t server, struct op *o)
{
    static struct hf_sip_result res;
    struct hf_sip_stored_binding binding[EW_BINDINGS];
    struct hf_sip_kept kept[EW_KEPT];
    const struct hf_sip_op *op = &o->op;
    uint32_t c = client_of(op->aor);
    memset(&res, 0, sizeof(res));
    res.kind = op->kind;
    res.cookie = op->cookie;
    res.aor = op->aor;
    res.done = reaches(w, server) ? HF_SIP_OP_DONE : HF_SIP_OP_AWAY;
    if (res.done == HF_SIP_OP_AWAY) {
        res.bind = op->bind;
        res.n_binds = op->n_binds;
    } else if (op->kind == HF_SIP_OP_SECRET) {
        do_secret(op, &res);
    } else if (c == UINT32_MAX) {
        res.done = HF_SIP_OP_NONE;
    } else {
        struct ew_row *r = &w->row[c];
        switch ((enum hf_sip_op_kind)op->kind) {
        case HF_SIP_OP_ASSIGN:
        case HF_SIP_OP_ASSERT:
            assign_row(w, server, op, c);
            res.have_row = true;
            break;
        case HF_SIP_OP_READ:
            res.have_row = r->used;
            res.user_known = true;
            res.done = r->used ? HF_SIP_OP_DONE : HF_SIP_OP_NONE;
            break;
        case HF_SIP_OP_LEARN:
            if (r->used && r->current == server) {
                r->agent = op->row.agent;
                r->agent_id = op->row.agent_id;
                r->change = r->change ? ++w->change : r->change; /* told to all */
            }
            break;
        case HF_SIP_OP_BIND:
            do_bind(w, server, op, c, &res);
            break;
        case HF_SIP_OP_LOAD:
            put_aor(aors[c], sizeof(aors[c]), c);
            res.n_bindings = do_load(w, c, binding);
            res.binding = binding;
            res.n_kept = load_kept(w, c, kept);
            res.kept = kept;
            break;
        case HF_SIP_OP_KEEP:
        case HF_SIP_OP_DROP:
            do_keep(w, server, op, c, &res);
            break;
        case HF_SIP_OP_SECRET:
        case HF_SIP_OP_COUNT_:
            break;
        }
        if (res.have_row) {
            res.row = row_of(w, server, c);
        }
    }
    if (op->cookie || op->kind == HF_SIP_OP_KEEP || op->kind == HF_SIP_OP_DROP) {
        hf_sip_element_done(w->server[server].e, &res, w->net.now);
    }
}

/* --- servers --- */

static void set_tick(struct ew_world *w, uint16_t i)
{
    hf_time t = hf_sip_element_deadline(w->server[i].e);
    if (t < HF_NEVER) {
        sim_net_at(&w->net, t > w->net.now ? t : w->net.now + 1, EV_TICK, i, w->server[i].boot,
                   NULL);
    }
}

void ew_look(struct ew_world *w, uint16_t server)
{
    acting = server;
    for (uint16_t i = 0; i < w->n_servers; i++) {
        const struct ew_server *o = &w->server[i];
        char host[16];
        uint16_t no;
        snprintf(host, sizeof(host), "10.0.0.%u", i + 1u);
        struct hf_sip_peer p = {
            .name = hf_slice_str(cast_server(i)),
            .host = hf_slice_str(host),
            .now = {.state = o->up ? HF_SIP_SERVER_LIVE : HF_SIP_SERVER_DEAD,
                    .homes = o->role == HF_SIP_ROLE_HOME,
                    .weight = 10},
            .boot = o->boot,
            .at = {at(10, 0, 0, (uint8_t)(i + 1)), at(10, 0, 0, (uint8_t)(i + 1))}};
        if (hf_sip_element_peer(w->server[server].e, &p, &no)) {
            exit(2);
        }
    }
}

void ew_know(struct ew_world *w, uint16_t server, uint32_t client)
{
    struct hf_sip_result res = {.kind = HF_SIP_OP_ASSERT,
                                .done = HF_SIP_OP_DONE,
                                .have_row = true,
                                .row = row_of(w, server, client),
                                .cookie = 1};
    acting = server;
    hf_sip_element_done(w->server[server].e, &res, w->net.now);
}

static void be_up(struct ew_world *w, uint16_t i)
{
    struct ew_server *s = &w->server[i];
    char hosts[2][16];
    struct hf_slice domain = S("example.com");
    struct hf_sip_listen listen[4];
    size_t n = 0;
    s->up = true;
    s->away = false;
    s->boot++;
    s->change = 0;
    for (uint8_t side = 0; side < (s->role == HF_SIP_ROLE_EDGE ? 2 : 1); side++) {
        snprintf(hosts[side], sizeof(hosts[side]), "10.%u.0.%u", side, i + 1u);
        for (uint8_t t = 0; t < 2; t++) {
            listen[n++] =
                (struct hf_sip_listen){.transport = t ? HF_SIP_TRANSPORT_TCP : HF_SIP_TRANSPORT_UDP,
                                       .at = at(10, side, 0, (uint8_t)(i + 1)),
                                       .host = hf_slice_str(hosts[side]),
                                       .policy = (uint8_t)w->policy,
                                       .external = side == 1};
        }
    }
    /* numbers are the same everywhere: all are known by name before anything else */
    struct hf_sip_element_conf c = {.role = (uint8_t)s->role,
                                    .name = hf_slice_str(cast_server(i)),
                                    .realm = domain,
                                    .domain = &domain,
                                    .n_domains = 1,
                                    .listen = listen,
                                    .n_listen = n,
                                    .must_authenticate = w->must_authenticate,
                                    .key = key,
                                    .seed = ew_below(w, UINT64_MAX),
                                    .boot = s->boot,
                                    .expires_default_s = 120,
                                    .expires_min_s = 30,
                                    .bindings_max = 1000,
                                    .transactions_max = 1000,
                                    .requests_max = 100,
                                    .cache_max = 1 << 22,
                                    .source_rate = 10000};
    acting = i;
    if (hf_sip_element_create(&c, &ops, w, w->net.now, wall(w), &s->e)) {
        exit(2);
    }
}

static void be_down(struct ew_world *w, uint16_t i)
{
    struct ew_server *s = &w->server[i];
    (void)w;
    s->up = false;
    s->boot++;
    hf_sip_element_destroy(s->e);
    s->e = NULL;
}

static void tree_changed(struct ew_world *w)
{
    for (uint16_t i = 0; i < w->n_servers && !w->by_hand; i++) {
        sim_net_at(&w->net, w->net.now + (hf_time)ew_below(w, HF_MS(500)), EV_TREE, i, 0, NULL);
    }
}

void ew_crash(struct ew_world *w, uint16_t server)
{
    if (w->server[server].up) {
        ew_tell(w, "-- %s loses power", cast_server(server));
        be_down(w, server);
        tree_changed(w);
    }
}

void ew_boot(struct ew_world *w, uint16_t server)
{
    if (!w->server[server].up) {
        ew_tell(w, "-- %s boots", cast_server(server));
        be_up(w, server);
        ew_look(w, server);
        ew_feed(w, server);
        tree_changed(w);
        if (!w->by_hand) {
            sim_net_at(&w->net, w->net.now + w->feed_every, EV_FEED, server, w->server[server].boot,
                       NULL);
        }
    }
}

void ew_database(struct ew_world *w, bool there)
{
    if (w->db_there != there) {
        ew_tell(w, "-- the database is %s", there ? "back" : "away");
        w->db_there = there;
    }
}

void ew_assign(struct ew_world *w, uint32_t client, uint16_t to)
{
    struct ew_row *r = &w->row[client];
    r->used = true;
    r->home = r->current = to;
    r->epoch++;
    r->change = ++w->change;
    ew_tell(w, "table: %s is %s's, epoch %" PRIu64, cast_client(client), cast_server(to), r->epoch);
}

void ew_feed(struct ew_world *w, uint16_t server)
{
    struct ew_server *s = &w->server[server];
    struct hf_sip_row row[EW_CLIENTS];
    struct hf_sip_feed f = {.there = reaches(w, server), .row = row, .change = w->change + 1};
    acting = server;
    if (!f.there) {
        hf_sip_element_feed(s->e, &f, w->net.now);
        return;
    }
    for (uint32_t i = 0; i < w->n_clients; i++) {
        if (w->row[i].used &&
            (w->row[i].change > s->change || (s->change == 0 && w->row[i].current == server))) {
            row[f.n++] = row_of(w, server, i);
        }
    }
    s->change = w->change;
    hf_sip_element_feed(s->e, &f, w->net.now);
    set_tick(w, server);
}

/* Who is at a server that is gone goes to one that lives; sometimes one comes back. */
void ew_lead(struct ew_world *w)
{
    for (uint32_t i = 0; i < w->n_clients && w->db_there; i++) {
        struct ew_row *r = &w->row[i];
        if (!r->used ||
            (w->server[r->current].up && w->server[r->current].role == HF_SIP_ROLE_HOME)) {
            continue;
        }
        for (unsigned k = 0; k < 20; k++) {
            uint16_t to = (uint16_t)ew_below(w, w->n_servers);
            if (w->server[to].up && w->server[to].role == HF_SIP_ROLE_HOME) {
                ew_assign(w, i, to);
                w->n_moves++;
                break;
            }
        }
    }
}

/* --- what happens --- */

/* How many servers have seen this request, with this one: those before its redirects, and those
 * whose Via it has. */
static void check_hops(struct ew_world *w, uint16_t server)
{
    struct hf_sip_walk walk;
    struct hf_sip_via via;
    uint32_t n = 1;
    if (!msg.request || msg.fault || msg.method != HF_SIP_REGISTER) {
        return;
    }
    uint32_t client = client_of(msg.to.uri.text);
    if (client >= w->n_clients) {
        return;
    }
    struct ew_client *c = &w->client[client];
    hf_sip_walk_begin(&walk, &msg, HF_SIP_H_VIA);
    while (hf_sip_walk_via(&walk, &via) == 1) {
        n += via.sent_by.kind == HF_SIP_HOST_IPV4 && via.sent_by.addr[0] == 10;
    }
    uint32_t hops = c->hops + n;
    if (msg.cseq == c->cseq) {
        c->last = hops > c->seen ? server : c->last;
        c->seen = hops > c->seen ? hops : c->seen;
    } else {
        return; /* an older one, late */
    }
    uint32_t most = c->habit == EW_STRIPS ? w->n_servers + 2u : 3;
    uint64_t *max = c->habit == EW_STRIPS ? &w->strip_hops_max : &w->hops_max;
    *max = hops > *max ? hops : *max;
    if (hops > most) {
        ew_failed(w, "I7: %s's request is at its %uth server, %s", cast_client(client), hops,
                  cast_server(server));
    }
}

static void arrive(struct ew_world *w, struct sim_event *ev)
{
    struct packet *p = ev->data;
    struct hf_slice s = hf_slice(p->text, p->n);
    if (ev->host >= CLIENT_HOST) {
        ew_client_hears(w, ev->host - CLIENT_HOST, &p->flow, s);
        return;
    }
    uint16_t i = (uint16_t)ev->host;
    if (!w->server[i].up || (p->flow.conn && p->flow.conn >> 16 != w->server[i].boot)) {
        return;
    }
    (void)!hf_sip_parse(s, p->flow.transport != HF_SIP_TRANSPORT_UDP, &msg);
    if (msg.fault) {
        ew_failed(w, "%s gets what is malformed (%s): %.*s", cast_server(i),
                  hf_sip_fault_text(msg.fault), HF_SLICE_FMT(s));
    }
    check_hops(w, i);
    hf_sip_element_message(w->server[i].e, &msg, &p->flow, w->net.now, wall(w));
    set_tick(w, i);
}

static void happen(struct ew_world *w, struct sim_event *ev)
{
    uint16_t i = (uint16_t)ev->host;
    acting = i;
    if (ev->kind == EV_MESSAGE) {
        arrive(w, ev);
        return;
    }
    if (ev->kind == EV_TIMER) {
        ew_client_timer(w, ev->host, ev->boot);
        return;
    }
    if (ev->kind == EV_RETRANSMIT) {
        ew_client_retransmits(w, ev->host, ev->boot);
        return;
    }
    if (ev->kind == EV_WATCH) {
        ew_watch_timer(w, ev->host, ev->boot);
        return;
    }
    if (ev->kind == EV_LEAD) {
        ew_lead(w);
        sim_net_at(&w->net, w->net.now + w->lead_every, EV_LEAD, 0, 0, NULL);
        return;
    }
    if (!w->server[i].up || (ev->kind != EV_TREE && ev->boot != w->server[i].boot)) {
        return;
    }
    switch (ev->kind) {
    case EV_STORE:
        do_op(w, i, ev->data);
        set_tick(w, i);
        break;
    case EV_BROKEN:
        hf_sip_element_unreachable(w->server[i].e, &((struct packet *)ev->data)->flow, w->net.now);
        set_tick(w, i);
        break;
    case EV_TICK:
        if (hf_sip_element_deadline(w->server[i].e) <= w->net.now) {
            hf_sip_element_tick(w->server[i].e, w->net.now, wall(w));
            set_tick(w, i);
        }
        break;
    case EV_FEED:
        ew_feed(w, i);
        sim_net_at(&w->net, w->net.now + w->feed_every, EV_FEED, i, ev->boot, NULL);
        break;
    case EV_TREE:
        ew_look(w, i);
        break;
    default:
        assert(false);
    }
}

void ew_pass(struct ew_world *w, hf_time t)
{
    hf_time until = w->net.now + t;
    struct sim_event ev;
    while (sim_net_next(&w->net, until, &ev)) {
        happen(w, &ev);
        free(ev.data);
    }
    w->net.now = until;
}

void ew_client_sends(struct ew_world *w, uint32_t client, uint16_t server, struct hf_slice text)
{
    struct ew_client *c = &w->client[client];
    bool outside = w->server[server].role == HF_SIP_ROLE_EDGE;
    struct hf_sip_flow flow = {.transport = c->tcp ? HF_SIP_TRANSPORT_TCP : HF_SIP_TRANSPORT_UDP,
                               .local = at(10, outside, 0, (uint8_t)(server + 1)),
                               .peer = at(192, 0, 2, (uint8_t)(client + 1)),
                               .conn = c->tcp ? conn_of(w, server, client) : 0};
    put(w, CLIENT_HOST + client, server, &flow, text, 0);
}

void ew_set_timer(struct ew_world *w, uint32_t client, hf_time in, bool retransmit)
{
    sim_net_at(&w->net, w->net.now + in, retransmit ? EV_RETRANSMIT : EV_TIMER, client,
               w->client[client].request, NULL);
}

void ew_set_watch_timer(struct ew_world *w, uint32_t client, hf_time in)
{
    sim_net_at(&w->net, w->net.now + in, EV_WATCH, client, ++w->client[client].watch.timer, NULL);
}

void ew_init(struct ew_world *w, uint64_t seed, uint16_t n_servers, uint16_t n_clients,
             uint16_t n_edges)
{
    sim_net_init(&w->net, EW_SERVERS + EW_CLIENTS, false, seed);
    w->net.weather = (struct sim_weather){.latency = HF_MS(1), .spread = 1};

    w->n_servers = n_servers;
    w->n_clients = n_clients;
    w->db_there = true;
    w->change = 1;
    w->feed_every = w->feed_every ? w->feed_every : HF_MS(50);
    w->lead_every = HF_MS(500);
    for (uint16_t i = 0; i < n_servers; i++) {
        w->server[i].role = i >= n_servers - n_edges ? HF_SIP_ROLE_EDGE : w->server[i].role;
        w->server[i].up = true;
    }
    for (uint16_t i = 0; i < n_servers; i++) {
        be_up(w, i);
    }
    for (uint16_t i = 0; i < n_servers; i++) {
        ew_look(w, i);
        ew_feed(w, i);
        if (!w->by_hand) {
            sim_net_at(&w->net, w->net.now + 1 + (hf_time)ew_below(w, (uint64_t)w->feed_every),
                       EV_FEED, i, w->server[i].boot, NULL);
        }
    }
    if (!w->by_hand) {
        sim_net_at(&w->net, w->net.now + w->lead_every, EV_LEAD, 0, 0, NULL);
    }
}

void ew_fini(struct ew_world *w)
{
    struct sim_event ev;
    while (sim_net_next(&w->net, HF_NEVER, &ev)) {
        free(ev.data);
    }
    for (uint16_t i = 0; i < w->n_servers; i++) {
        if (w->server[i].up) {
            be_down(w, i);
        }
    }
    sim_net_fini(&w->net);
}
