#include "sim/world.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"

enum {
    EV_TIMER,
    EV_DATAGRAM,  /* data: packet, to one host */
    EV_MULTICAST, /* data: packet, to all others (large networks) */
    EV_PULL,      /* data: pull, at its target */
    EV_PULLED,    /* data: pull, back at the asker */
    EV_PERSISTED, /* data: incarnation as a pointer-sized number; 0: the disk failed */
    EV_OFF,
};

bool sim_is_up(const struct sim_host *h)
{
    return h->on && !h->leaving;
}

/* ---- packets ---- */

struct sim_packet *sim_packet_ref(struct sim_packet *p)
{
    p->refs++;
    return p;
}

void sim_packet_unref(struct sim_packet *p)
{
    if (p && --p->refs == 0) {
        free(p);
    }
}

static void pull_free(struct sim_world *w, struct sim_pull *p)
{
    hf_buf_fini(&w->spare);
    w->spare = p->body;
    free(p);
}

static struct hf_endpoint endpoint_of(uint32_t host)
{
    return (struct hf_endpoint){
        .family = HF_AF_INET, .addr = {10, 0, (uint8_t)(host >> 8), (uint8_t)host}, .port = 7400};
}

/* The host at an endpoint, or n: none. */
static uint32_t host_at(const struct sim_world *w, const struct hf_endpoint *e)
{
    uint32_t host = (uint32_t)e->addr[2] << 8 | e->addr[3];
    return e->family == HF_AF_INET && e->addr[0] == 10 && host < w->n ? host : w->n;
}

static struct sim_packet *seal(struct sim_host *h, uint8_t kind, struct hf_slice body)
{
    struct sim_packet *p = sim_alloc(sizeof(*p));
    struct hf_datagram_head head = {.kind = kind,
                                    .key_id = 1,
                                    .incarnation = h->incarnation,
                                    .counter = ++h->counter,
                                    .host = hf_slice(h->name, h->name_len)};
    memcpy(head.salt, h->salt, HF_SALT_LEN);
    struct hf_wr w;
    hf_wr_init(&w, p->bytes, sizeof(p->bytes));
    hf_datagram_head_encode(&w, &head);
    p->head_len = (uint32_t)hf_wr_len(&w);
    hf_wr_bytes(&w, body);
    assert(!w.err);
    assert(hf_wr_len(&w) + HF_SEAL_TAG_LEN <= HF_ADVERT_LEN_MAX);
    p->len = (uint32_t)hf_wr_len(&w);
    p->from = h->index;
    p->refs = 1;
    return p;
}

static void count(struct sim_world *w, enum sim_channel c, uint64_t packets, uint64_t bytes)
{
    w->traffic[c].packets += packets;
    w->traffic[c].bytes += bytes;
}

static void send_one(struct sim_world *w, struct sim_packet *p, uint32_t to)
{
    struct sim_net *net = &w->net;
    for (int copies = 1 + sim_net_chance(net, net->weather.dup); copies > 0; copies--) {
        if (sim_net_open(net, p->from, to) && !sim_net_chance(net, net->weather.loss)) {
            sim_net_at(net, net->now + sim_net_latency(net), EV_DATAGRAM, to, 0, sim_packet_ref(p));
        }
    }
}

static void sent(struct sim_world *w, struct sim_host *h, struct sim_packet *p)
{
    count(w, SIM_SENT, 1, p->len + SIM_UDP_COST);
    if (w->hooks.sent) {
        w->hooks.sent(w->hooks.arg, h, p);
    }
}

static void unicast(struct sim_world *w, struct sim_host *h, uint8_t kind, struct hf_slice body,
                    const struct hf_endpoint *to)
{
    uint32_t target = host_at(w, to);
    if (!h->sealing || target == w->n) {
        w->n_unsealed_probes += !h->sealing;
        return;
    }
    if (w->shared && !sim_net_open(&w->net, h->index, target)) { /* thousands when it splits */
        h->counter++;
        count(w, SIM_SENT, 1,
              HF_DATAGRAM_HEAD_LEN_MAX - HF_HOST_NAME_MAX + h->name_len + body.n + SIM_UDP_COST);
        return;
    }
    struct sim_packet *p = seal(h, kind, body);
    sent(w, h, p);
    send_one(w, p, target);
    sim_packet_unref(p);
}

static void multicast(struct sim_world *w, struct sim_host *h, struct hf_slice body)
{
    assert(h->sealing);
    struct sim_packet *p = seal(h, HF_DATAGRAM_ADVERT, body);
    sent(w, h, p);
    if (w->shared) {
        sim_net_at(&w->net, w->net.now + sim_net_latency(&w->net), EV_MULTICAST, h->index, 0, p);
        return;
    }
    for (uint32_t to = 0; to < w->n; to++) {
        if (to != h->index || w->echo) {
            send_one(w, p, to);
        }
    }
    sim_packet_unref(p);
}

/* ---- what comes out of a core ---- */

static void ask(struct sim_world *w, struct sim_host *h, const struct hf_dir_act *a)
{
    struct sim_net *net = &w->net;
    struct sim_pull *p = sim_alloc(sizeof(*p));
    *p = (struct sim_pull){.asker = h->index,
                           .asker_boot = h->boot,
                           .owner = a->owner,
                           .target = host_at(w, &a->to),
                           .state = a->kind == HF_DIR_ACT_PULL_STATE,
                           .parts = a->parts,
                           .incarnation = a->incarnation,
                           .since = a->since,
                           .deadline = net->now + w->pull_deadline};
    w->n_pulls++;
    if (w->hooks.asked) {
        w->hooks.asked(w->hooks.arg, h, p);
    }
    if (p->target == w->n) {
        p->rc = -EHOSTUNREACH;
        sim_net_at(net, net->now, EV_PULLED, p->asker, p->asker_boot, p);
        return;
    }
    hf_time handshakes = 3 * sim_net_latency(net); /* TCP and TLS, and the request itself */
    if (w->shared) {
        struct sim_host *t = &w->host[p->target];
        hf_time from = net->now + handshakes;
        t->busy_until = (t->busy_until > from ? t->busy_until : from) + w->serve;
        p->direct = true;
        sim_net_at(net, t->busy_until, EV_PULLED, p->asker, p->asker_boot, p);
        return;
    }
    sim_net_at(net, net->now + handshakes, EV_PULL, p->target, 0, p);
}

static void act(struct sim_world *w, struct sim_host *h, const struct hf_dir_act *a)
{
    struct hf_slice body = hf_slice(h->out->body, h->out->body_len);
    switch (a->kind) {
    case HF_DIR_ACT_MULTICAST:
        multicast(w, h, body);
        break;
    case HF_DIR_ACT_ANSWER:
        unicast(w, h, HF_DATAGRAM_ADVERT, body, &a->to);
        break;
    case HF_DIR_ACT_PROBE:
        unicast(w, h, HF_DATAGRAM_PROBE, hf_slice(NULL, 0), &a->to);
        break;
    case HF_DIR_ACT_PULL:
    case HF_DIR_ACT_PULL_STATE:
        ask(w, h, a);
        break;
    case HF_DIR_ACT_PERSIST: {
        bool fails = sim_net_chance(&w->net, w->faults.disk_fails);
        sim_net_at(&w->net, w->net.now + HF_MS(2), EV_PERSISTED, h->index, h->boot,
                   fails ? NULL : (void *)(uintptr_t)a->incarnation);
        break;
    }
    case HF_DIR_ACT_STATE:
    case HF_DIR_ACT_MEMBER:
    case HF_DIR_ACT_PART:
    case HF_DIR_ACT_RESULT:
        break;
    }
}

static void arm(struct sim_world *w, struct sim_host *h)
{
    hf_time t = hf_dir_deadline(h->dir);
    if (t < h->timer_at) {
        h->timer_at = t > w->net.now ? t : w->net.now;
        sim_net_at(&w->net, t, EV_TIMER, h->index, h->boot, NULL);
    }
}

void sim_step(struct sim_world *w, struct sim_host *h, const struct hf_dir_in *in,
              const struct sim_packet *packet)
{
    if (w->hooks.before) {
        w->hooks.before(w->hooks.arg, h, in, packet);
    }
    w->n_steps++;
    if (sim_net_chance(&w->net, w->faults.no_memory)) {
        hf_mem_fail_after((int64_t)hf_prng_below(&w->net.prng, 6));
    }
    hf_dir_step(h->dir, in, w->net.now, h->out);
    hf_mem_fail_after(-1);
    if (h->out->n > 0) {
        assert(h->out->n <= HF_DIR_ACTS_MAX);
        for (uint32_t i = 0; i < h->out->n; i++) {
            act(w, h, &h->out->act[i]);
        }
    }
    if (w->hooks.after) {
        w->hooks.after(w->hooks.arg, h, in, packet);
    }
    arm(w, h);
}

/* ---- life ---- */

void sim_host_rename(struct sim_host *h, const char *name)
{
    h->name_len = (uint8_t)snprintf(h->name, sizeof(h->name), "%s", name);
}

void sim_world_init(struct sim_world *w, uint32_t n, bool shared, uint64_t seed)
{
    *w = (struct sim_world){.n = n,
                            .seed = seed,
                            .heartbeat_ms = 1000,
                            .sync_ms = 10000,
                            .serve = HF_MS(1) / 4,
                            .pull_deadline = HF_S(5)};
    sim_net_init(&w->net, n, !shared, seed);
    w->net.weather = (struct sim_weather){.latency = HF_MS(1) / 5, .spread = HF_MS(1) / 5};
    w->host = sim_alloc(n * sizeof(*w->host));
    if (shared) {
        int rc = hf_dir_store_create(n, seed, &w->shared);
        assert(rc == 0);
        w->out = sim_alloc(sizeof(*w->out));
        hf_dir_out_init(w->out);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct sim_host *h = &w->host[i];
        char name[16];
        h->index = i;
        snprintf(name, sizeof(name), "h%u", i);
        sim_host_rename(h, name);
    }
}

static void create(struct sim_world *w, struct sim_host *h)
{
    struct hf_dir_conf conf = {.host = hf_slice(h->name, h->name_len),
                               .heartbeat_ms = w->heartbeat_ms,
                               .sync_ms = w->sync_ms,
                               .dump = h->dump,
                               .incarnation = h->disk + 1,
                               .seed = hf_prng_u64(&w->net.prng)};
    if (!h->anonymous) {
        conf.endpoint = endpoint_of(h->index);
    }
    h->store = w->shared;
    h->out = w->out;
    if (!w->shared) {
        int rc = hf_dir_store_create(w->n + 4, conf.seed, &h->store);
        assert(rc == 0);
        h->out = sim_alloc(sizeof(*h->out));
        hf_dir_out_init(h->out);
    }
    int rc = hf_dir_create(&conf, h->store, w->net.now, &h->dir);
    assert(rc == 0);
}

void sim_boot(struct sim_world *w, uint32_t host)
{
    struct sim_host *h = &w->host[host];
    assert(!h->on);
    create(w, h);
    h->on = true;
    h->leaving = h->paused = h->sealing = false;
    h->timer_at = HF_NEVER;
    h->boot++;
    h->resumed_at = w->net.now;
    arm(w, h);
}

/* What a paused or dead host had not taken in yet. */
static void drop_event(struct sim_world *w, struct sim_event *e)
{
    if (e->kind == EV_DATAGRAM || e->kind == EV_MULTICAST) {
        sim_packet_unref(e->data);
    } else if (e->kind == EV_PULL) {
        struct sim_pull *p = e->data;
        p->rc = -HF_ETIMEOUT;
        sim_net_at(&w->net, p->deadline, EV_PULLED, p->asker, p->asker_boot, p);
    } else if (e->kind == EV_PULLED) {
        pull_free(w, e->data);
    }
}

static void off(struct sim_world *w, struct sim_host *h)
{
    for (uint32_t i = 0; i < h->n_inbox; i++) {
        drop_event(w, &h->inbox[i]);
    }
    free(h->inbox);
    h->inbox = NULL;
    h->n_inbox = 0;
    hf_dir_out_fini(h->out);
    hf_dir_destroy(h->dir);
    h->dir = NULL;
    if (!w->shared) {
        free(h->out);
        hf_dir_store_destroy(h->store);
    }
    h->on = h->sealing = h->paused = false;
    h->boot++;
}

void sim_crash(struct sim_world *w, uint32_t host, bool lose_disk)
{
    struct sim_host *h = &w->host[host];
    if (h->on) {
        off(w, h);
    }
    h->disk = lose_disk ? 0 : h->disk;
}

void sim_stop(struct sim_world *w, uint32_t host)
{
    struct sim_host *h = &w->host[host];
    assert(sim_is_up(h) && !h->paused);
    h->leaving = true;
    sim_step(w, h, &(struct hf_dir_in){.kind = HF_DIR_IN_STOP}, NULL);
    sim_net_at(&w->net, w->net.now + HF_MS(50), EV_OFF, host, h->boot, NULL);
}

void sim_pause(struct sim_world *w, uint32_t host)
{
    (void)w;
    w->host[host].paused = w->host[host].on;
}

void sim_resume(struct sim_world *w, uint32_t host)
{
    struct sim_host *h = &w->host[host];
    if (!h->paused) {
        return;
    }
    h->paused = false;
    h->resumed_at = w->net.now;
    for (uint32_t i = 0; i < h->n_inbox; i++) { /* what waited in the sockets, in its order */
        struct sim_event *e = &h->inbox[i];
        sim_net_at(&w->net, w->net.now, e->kind, e->host, e->boot, e->data);
    }
    free(h->inbox);
    h->inbox = NULL;
    h->n_inbox = 0;
}

void sim_world_fini(struct sim_world *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        sim_crash(w, i, false);
    }
    for (size_t i = 0; i < w->net.n_events; i++) {
        struct sim_event *e = &w->net.heap[i];
        if (e->kind == EV_PULL) {
            pull_free(w, e->data);
        } else {
            drop_event(w, e);
        }
    }
    if (w->shared) {
        hf_dir_store_destroy(w->shared);
        free(w->out);
    }
    free(w->host);
    hf_buf_fini(&w->spare);
    sim_net_fini(&w->net);
}

/* ---- local programs ---- */

static int result(const struct sim_host *h)
{
    for (uint32_t i = h->out->n; i > 0; i--) {
        if (h->out->act[i - 1].kind == HF_DIR_ACT_RESULT) {
            return h->out->act[i - 1].rc;
        }
    }
    abort(); /* every PUBLISH and WITHDRAW has a result */
}

int sim_publish(struct sim_world *w, uint32_t host, const char *name, const char *value,
                uint32_t publisher, uint32_t lease_ms)
{
    struct hf_dir_in in = {.kind = HF_DIR_IN_PUBLISH};
    in.publisher = publisher;
    in.lease_ms = lease_ms;
    in.name = hf_slice_str(name);
    in.value = hf_slice_str(value);
    sim_step(w, &w->host[host], &in, NULL);
    return result(&w->host[host]);
}

int sim_withdraw(struct sim_world *w, uint32_t host, const char *name, uint32_t publisher)
{
    struct hf_dir_in in = {.kind = HF_DIR_IN_WITHDRAW};
    in.publisher = publisher;
    in.name = hf_slice_str(name);
    sim_step(w, &w->host[host], &in, NULL);
    return result(&w->host[host]);
}

/* ---- datagrams ---- */

void sim_replay(struct sim_world *w, struct sim_packet *p, uint32_t to, hf_time delay)
{
    struct sim_packet *copy = sim_alloc(sizeof(*copy));
    *copy = *p;
    copy->refs = 1;
    copy->replayed = true;
    sim_net_at(&w->net, w->net.now + delay, EV_DATAGRAM, to, 0, copy);
}

/* The input that a datagram is; advert and head live in the caller's. */
static void open_packet(struct sim_world *w, const struct sim_packet *p,
                        struct hf_datagram_head *head, struct hf_advert *advert,
                        struct hf_dir_in *in)
{
    size_t head_len;
    struct hf_slice s = hf_slice(p->bytes, p->len);
    int rc = hf_datagram_head_decode(s, head, &head_len);
    assert(rc == 0);
    *in = (struct hf_dir_in){.kind = HF_DIR_IN_PROBE};
    in->head = head;
    in->from = endpoint_of(p->from);
    if (head->kind == HF_DATAGRAM_ADVERT) {
        rc = hf_advert_decode(hf_slice(p->bytes + head_len, p->len - head_len), advert);
        assert(rc == 0);
        in->kind = HF_DIR_IN_ADVERT;
        in->advert = advert;
    }
    (void)w;
}

static void on_datagram(struct sim_world *w, struct sim_host *h, struct sim_packet *p)
{
    struct hf_datagram_head head;
    struct hf_advert advert;
    struct hf_dir_in in;
    open_packet(w, p, &head, &advert, &in);
    in.owner = hf_dir_store_owner(h->store, head.host);
    count(w, SIM_RECEIVED, 1, p->len + SIM_UDP_COST);
    sim_step(w, h, &in, p);
}

/* One datagram to everybody: decoded once. */
static void on_multicast(struct sim_world *w, struct sim_packet *p)
{
    struct hf_datagram_head head;
    struct hf_advert advert;
    struct hf_dir_in in;
    open_packet(w, p, &head, &advert, &in);
    in.owner = hf_dir_store_owner(w->shared, head.host);
    uint32_t loss = w->net.weather.loss;
    uint64_t n = 0;
    for (uint32_t to = 0; to < w->n; to++) {
        struct sim_host *h = &w->host[to];
        if (!h->on || to == p->from || !sim_net_open(&w->net, p->from, to) ||
            sim_net_chance(&w->net, loss)) {
            continue;
        }
        n++;
        sim_step(w, h, &in, p);
    }
    count(w, SIM_RECEIVED, n, n * (p->len + SIM_UDP_COST));
}

/* ---- pulls ---- */

/* A lying owner: another's name, a wrong hash, a part cut off or changed, or it never ends. */
static void lie(struct sim_world *w, struct sim_pull *p)
{
    struct hf_pull pull;
    uint64_t how = hf_prng_below(&w->net.prng, 5);
    struct hf_slice body = hf_buf_slice(&p->body);
    if (p->state || how == 0 || hf_pull_decode(body, &pull)) {
        p->body.n = (size_t)hf_prng_below(&w->net.prng, p->body.n); /* truncated */
        return;
    }
    if (how == 1) {
        p->rc = -HF_ETIMEOUT; /* endless: the driver gives up */
        return;
    }
    if (how == 2 && pull.changes.n > 0) {
        size_t n = (size_t)(pull.changes.r.end - pull.changes.r.p);
        p->body.p[p->body.n - 1 - hf_prng_below(&w->net.prng, n)] ^= 1;
        return;
    }
    uint8_t *copy = sim_alloc(p->body.n + 64);
    struct hf_wr wr;
    hf_wr_init(&wr, copy, p->body.n + 64);
    if (how == 3) {
        pull.head.owner = hf_slice_str("mallory");
    } else {
        pull.head.hash ^= 1;
    }
    hf_pull_encode(&wr, &pull, pull.changes.n);
    hf_wr_bytes(&wr, hf_slice(pull.changes.r.p, (size_t)(pull.changes.r.end - pull.changes.r.p)));
    assert(!wr.err);
    hf_buf_clear(&p->body);
    hf_buf_add(&p->body, hf_slice(copy, hf_wr_len(&wr)));
    free(copy);
}

static void answer(struct sim_world *w, struct sim_host *h, struct sim_pull *p)
{
    const struct sim_host *asker = &w->host[p->asker];
    struct hf_slice name = hf_slice(asker->name, asker->name_len);
    p->body = w->spare;
    w->spare = (struct hf_buf){0};
    hf_buf_clear(&p->body);
    p->body.n_max = (p->state ? HF_STATE_BODY_MAX : HF_PULL_BODY_MAX) + (1u << 20);
    p->rc = p->state
                ? hf_dir_encode_state(h->dir, name, p->parts, w->net.now, &p->body)
                : hf_dir_encode_pull(h->dir, name, p->incarnation, p->since, h->counter, &p->body);
    if (p->rc == 0 && sim_net_chance(&w->net, w->faults.pull_lies)) {
        lie(w, p);
    }
}

static void count_pull(struct sim_world *w, const struct sim_pull *p)
{
    uint64_t content = SIM_HTTP_COST + SIM_TLS_COST + (p->rc ? 0 : p->body.n);
    uint64_t segments =
        9 + (content / SIM_TCP_SEGMENT + 1) * 3 / 2; /* and their acknowledgements */
    count(w, p->state ? SIM_STATES : SIM_PULLS, segments, content + segments * SIM_TCP_COST);
}

/* A request reaches its target, or does not. */
static void on_pull(struct sim_world *w, struct sim_host *h, struct sim_pull *p)
{
    struct sim_net *net = &w->net;
    bool open = sim_net_open(net, p->asker, p->target) && sim_net_open(net, p->target, p->asker);
    hf_time done = net->now + sim_net_latency(net);
    if (!h->on || !open || net->now > p->deadline || sim_net_chance(net, w->faults.pull_fails)) {
        bool refused = open && !h->on && hf_prng_below(&net->prng, 2);
        p->rc = refused ? -ECONNREFUSED : -HF_ETIMEOUT;
        done = refused ? done : p->deadline;
    } else {
        h->busy_until = (h->busy_until > net->now ? h->busy_until : net->now) + w->serve;
        done += h->busy_until - net->now;
        answer(w, h, p);
        if (sim_net_chance(net, w->faults.pull_slow)) {
            done += (hf_time)hf_prng_below(&net->prng, (uint64_t)w->pull_deadline);
        }
        if (p->rc == -HF_ETIMEOUT || done > p->deadline) {
            p->rc = -HF_ETIMEOUT;
            done = p->deadline;
        }
    }
    count_pull(w, p);
    sim_net_at(net, done, EV_PULLED, p->asker, p->asker_boot, p);
}

/* The same in one event. False: nobody answered, the failure comes later. */
static bool fetch(struct sim_world *w, struct sim_pull *p)
{
    struct sim_host *t = &w->host[p->target];
    p->direct = false;
    if (t->on && sim_net_open(&w->net, p->asker, p->target) && w->net.now <= p->deadline) {
        answer(w, t, p);
        count_pull(w, p);
        return true;
    }
    p->rc = -HF_ETIMEOUT;
    count_pull(w, p);
    sim_net_at(&w->net, p->deadline, EV_PULLED, p->asker, p->asker_boot, p);
    return false;
}

static void on_state(struct sim_world *w, struct sim_host *h, struct sim_pull *p)
{
    struct hf_state state = {0};
    struct hf_state_member m;
    int rc = p->rc ? p->rc : hf_state_decode(hf_buf_slice(&p->body), &state);
    while (rc == 0 && hf_state_next(&state, &m)) {
        struct hf_dir_in in = {.kind = HF_DIR_IN_STATE_MEMBER, .owner = p->owner};
        in.member = &m;
        sim_step(w, h, &in, NULL);
    }
    struct hf_dir_in in = {.kind = HF_DIR_IN_STATE_END, .owner = p->owner, .rc = rc};
    in.your_incarnation = state.your_incarnation;
    sim_step(w, h, &in, NULL);
}

static void on_pulled(struct sim_world *w, struct sim_host *h, struct sim_pull *p)
{
    if (p->state) {
        on_state(w, h, p);
        return;
    }
    struct hf_pull pull;
    struct hf_dir_in in = {.kind = HF_DIR_IN_PULLED, .owner = p->owner};
    in.rc = p->rc ? p->rc : hf_pull_decode(hf_buf_slice(&p->body), &pull);
    if (in.rc) {
        in.kind = HF_DIR_IN_PULL_FAILED;
    } else {
        in.pull = &pull;
    }
    sim_step(w, h, &in, NULL);
}

static void on_persisted(struct sim_world *w, struct sim_host *h, uint64_t incarnation)
{
    struct hf_dir_in in = {.kind = HF_DIR_IN_PERSISTED, .rc = incarnation ? 0 : -ENOSPC};
    if (incarnation) {
        h->disk = h->incarnation = incarnation;
        h->counter = 0;
        h->sealing = true;
        for (size_t i = 0; i < 8; i++) {
            h->salt[i] = (uint8_t)hf_prng_u64(&w->net.prng);
        }
        if (w->hooks.started) {
            w->hooks.started(w->hooks.arg, h);
        }
        memcpy(h->salt + 8, &h->process, sizeof(h->process));
        memcpy(in.salt, h->salt, HF_SALT_LEN);
    }
    sim_step(w, h, &in, NULL);
}

/* ---- the loop ---- */

static void to_inbox(struct sim_world *w, struct sim_host *h, struct sim_event *e)
{
    if (h->n_inbox == SIM_INBOX_MAX) {
        drop_event(w, e); /* the socket's buffer is full */
        return;
    }
    if ((h->n_inbox & (h->n_inbox - 1)) == 0) {
        size_t room = h->n_inbox ? h->n_inbox * 2 : 1;
        h->inbox = sim_realloc(h->inbox, room * sizeof(*h->inbox));
    }
    h->inbox[h->n_inbox++] = *e;
}

static void on_timer(struct sim_world *w, struct sim_host *h)
{
    h->timer_at = HF_NEVER;
    if (hf_dir_deadline(h->dir) <= w->net.now) {
        sim_step(w, h, &(struct hf_dir_in){.kind = HF_DIR_IN_TIMER}, NULL);
    } else {
        arm(w, h);
    }
}

static void on_event(struct sim_world *w, struct sim_event *e)
{
    struct sim_host *h = &w->host[e->host];
    if (e->kind >= SIM_EVENT_USER) {
        w->hooks.event(w->hooks.arg, e);
        return;
    }
    if (e->kind == EV_MULTICAST) {
        on_multicast(w, e->data);
        sim_packet_unref(e->data);
        return;
    }
    bool mine = e->kind == EV_DATAGRAM || e->kind == EV_PULL || e->boot == h->boot;
    if (h->paused && mine) {
        to_inbox(w, h, e);
        return;
    }
    if (e->kind == EV_PULL) {
        on_pull(w, h, e->data);
        return;
    }
    if (h->on && mine) {
        if (e->kind == EV_TIMER) {
            on_timer(w, h);
        } else if (e->kind == EV_DATAGRAM) {
            on_datagram(w, h, e->data);
        } else if (e->kind == EV_PULLED) {
            struct sim_pull *p = e->data;
            if (p->direct && !fetch(w, p)) {
                return;
            }
            on_pulled(w, h, p);
        } else if (e->kind == EV_PERSISTED) {
            on_persisted(w, h, (uintptr_t)e->data);
        } else {
            off(w, h);
        }
    }
    if (e->kind == EV_DATAGRAM) {
        sim_packet_unref(e->data);
    } else if (e->kind == EV_PULLED) {
        pull_free(w, e->data);
    }
}

void sim_run(struct sim_world *w, hf_time until)
{
    struct sim_event e;
    while (sim_net_next(&w->net, until, &e)) {
        on_event(w, &e);
    }
}
