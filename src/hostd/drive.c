/* The core and the network: datagrams in and out, pulls asked and answered, the core's clock. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/name.h"
#include "hostd/group.h"
#include "hostd/hostd.h"
#include "hostd/timeline.h"
#include "os/file.h"

#define PULL_TIME HF_S(30) /* much of it for TCP where many packets are lost */
#define CONFLICT_SHOWN HF_S(60)

struct pull {
    struct hf_hostd *h;
    uint32_t owner; /* HF_OWNER_NONE: free */
    bool state;     /* GET /v1/state, not /v1/adverts */
    struct hf_http_get *get;
};

struct hf_hostd_pulls {
    struct pull pull[HF_PULLS_MAX + 1]; /* one more for the state */
    int *last_error;                    /* owned; by owner id */
};

static const char *owner_name(const struct hf_hostd *h, uint32_t owner)
{
    return h->store->owner[owner].name;
}

int hf_drive_pull_error(const struct hf_hostd *h, uint32_t owner)
{
    return h->pulls->last_error[owner];
}

/* ---- sending ---- */

static void send_sealed(struct hf_hostd *h, enum hf_datagram_kind kind, const struct hf_addr *to)
{
    uint8_t buf[HF_ADVERT_LEN_MAX];
    struct hf_slice body =
        kind == HF_DATAGRAM_ADVERT ? hf_slice(h->out->body, h->out->body_len) : hf_slice(NULL, 0);
    struct hf_slice datagram;
    int rc = hf_seal(h->sealer, kind, body, buf, &datagram);
    if (rc) {
        hf_log_warn("", "cannot seal a datagram: %s; the next heartbeat repeats it",
                    hf_strerror(rc));
        return;
    }
    bool unicast = h->config->directory.transport == HF_HOSTD_UNICAST;
    if (to || !unicast) {
        rc = hf_udp_send(h->udp, to, datagram); /* failures are counted there: heartbeats repeat */
        hf_tracef(HF_TRACE_NET, "", "sent %zu bytes: %s", datagram.n, hf_strerror(rc));
        return;
    }
    const struct hf_conf_addrs *peers = &h->config->directory.peers;
    for (size_t i = 0; i < peers->n; i++) {
        rc = hf_udp_send(h->udp, &peers->addr[i], datagram);
        hf_tracef(HF_TRACE_NET, "", "sent %zu bytes: %s", datagram.n, hf_strerror(rc));
    }
}

static void send_to(struct hf_hostd *h, enum hf_datagram_kind kind, const struct hf_endpoint *e)
{
    struct hf_addr to = hf_addr_from_endpoint(e);
    if (to.len > 0) {
        send_sealed(h, kind, &to);
    }
}

/* ---- receiving ---- */

static void count_refused(struct hf_hostd *h, int rc)
{
    switch (-rc) {
    case HF_EVERSION:
        h->count.datagrams_future++;
        break;
    case HF_EKEY:
        h->count.datagrams_other_cluster++;
        break;
    case HF_EAUTH:
        h->count.datagrams_forged++;
        break;
    default:
        h->count.datagrams_malformed++;
    }
}

static void note_conflict(struct hf_hostd *h, const struct hf_addr *from)
{
    if (h->conflict_at == 0 || hf_now() - h->conflict_at > CONFLICT_SHOWN) {
        hf_addr_str(from, h->conflict_from);
        hf_log_err("", "another host at %s uses our name %s: give one of them another host.name",
                   h->conflict_from, h->config->host.name);
    }
    h->conflict_at = hf_now();
}

static void on_datagram(void *arg, const struct hf_addr *from, struct hf_slice data)
{
    struct hf_hostd *h = arg;
    uint8_t buf[HF_ADVERT_LEN_MAX];
    struct hf_datagram_head head;
    struct hf_slice body;
    int rc = hf_open(h->opener, data, buf, &head, &body);
    if (rc) {
        char text[HF_ADDR_STR_LEN];
        count_refused(h, rc);
        hf_tracef(HF_TRACE_NET, "", "datagram of %s refused: %s", hf_addr_str(from, text),
                  hf_strerror(rc));
        return;
    }
    struct hf_advert advert;
    struct hf_dir_in in = {.kind = HF_DIR_IN_PROBE};
    if (head.kind == HF_DATAGRAM_ADVERT) {
        in.kind = HF_DIR_IN_ADVERT;
        rc = hf_advert_decode(body, &advert);
        if (rc) {
            h->count.bodies_malformed++;
            return;
        }
    }
    in.owner = hf_dir_store_owner(h->store, head.host);
    in.head = &head;
    in.advert = &advert;
    in.from = hf_addr_to_endpoint(from);
    uint64_t conflicts = hf_dir_counters(h->dir)->conflicts;
    hf_drive_step(h, &in);
    if (hf_dir_counters(h->dir)->conflicts > conflicts) {
        note_conflict(h, from);
    }
}

/* ---- pulls that we ask for ---- */

static void pull_failed(struct pull *p, int rc)
{
    struct hf_hostd *h = p->h;
    uint32_t owner = p->owner;
    p->owner = HF_OWNER_NONE;
    p->get = NULL;
    if (h->pulls->last_error[owner] != rc) {
        hf_log_info(owner_name(h, owner), "cannot pull its services: %s; trying again",
                    hf_strerror(rc));
    }
    h->pulls->last_error[owner] = rc;
    struct hf_dir_in in = {
        .kind = p->state ? HF_DIR_IN_STATE_END : HF_DIR_IN_PULL_FAILED, .owner = owner, .rc = rc};
    hf_drive_step(h, &in);
}

static void take_pull(struct pull *p, struct hf_slice body)
{
    struct hf_hostd *h = p->h;
    struct hf_pull pull;
    int rc = hf_pull_decode(body, &pull);
    if (rc) {
        h->count.bodies_malformed++;
        pull_failed(p, rc);
        return;
    }
    struct hf_dir_in in = {.kind = HF_DIR_IN_PULLED, .owner = p->owner};
    in.pull = &pull;
    h->pulls->last_error[p->owner] = 0;
    p->owner = HF_OWNER_NONE;
    p->get = NULL;
    hf_drive_step(h, &in);
}

static void take_state(struct pull *p, struct hf_slice body)
{
    struct hf_hostd *h = p->h;
    struct hf_state state;
    int rc = hf_state_decode(body, &state);
    if (rc) {
        h->count.bodies_malformed++;
        pull_failed(p, rc);
        return;
    }
    p->owner = HF_OWNER_NONE;
    p->get = NULL;
    struct hf_dir_in end = {.kind = HF_DIR_IN_STATE_END};
    end.your_incarnation = state.your_incarnation;
    struct hf_state_member member;
    while (hf_state_next(&state, &member)) {
        struct hf_dir_in in = {.kind = HF_DIR_IN_STATE_MEMBER};
        in.member = &member;
        hf_drive_step(h, &in);
    }
    hf_drive_step(h, &end);
}

static void on_pulled(void *arg, int rc, int status, struct hf_slice body)
{
    struct pull *p = arg;
    p->h->count.pull_bytes_received += body.n;
    hf_tracef(HF_TRACE_DIR, owner_name(p->h, p->owner), "pulled: %s, status %d, %zu bytes",
              hf_strerror(rc), status, body.n);
    if (rc || status != 200) {
        pull_failed(p, rc ? rc : status == 503 ? -HF_ENOTREADY : -HF_EHTTP);
    } else if (p->state) {
        take_state(p, body);
    } else {
        take_pull(p, body);
    }
}

/* Starts asking; on failure *ret_pull is NULL and the core hears of it after this step. */
static void start_pull(struct hf_hostd *h, const struct hf_dir_act *a, bool state,
                       struct pull **ret_failed, int *ret_rc)
{
    struct pull *p = h->pulls->pull;
    while (p->owner != HF_OWNER_NONE) {
        p++; /* the core asks for no more than there are */
        assert(p < h->pulls->pull + HF_ARRAY_LEN(h->pulls->pull));
    }
    p->owner = a->owner;
    p->state = state;
    struct hf_buf target;
    char number[24];
    hf_buf_init(&target, 1024);
    hf_buf_str(&target, state ? "/v1/state" : "/v1/adverts");
    if (state) {
        hf_http_query_add(&target, "parts", hf_slice_str(a->parts ? "1" : "0"));
    } else {
        hf_http_query_add(&target, "owner", hf_slice_str(owner_name(h, a->owner)));
        snprintf(number, sizeof(number), "%llu", (unsigned long long)a->incarnation);
        hf_http_query_add(&target, "incarnation", hf_slice_str(number));
        snprintf(number, sizeof(number), "%llu", (unsigned long long)a->since);
        hf_http_query_add(&target, "since", hf_slice_str(number));
    }
    hf_buf_add(&target, hf_slice("", 1));
    struct hf_http_get_opt opt = {.to = hf_addr_from_endpoint(&a->to),
                                  .tls = h->tls,
                                  .server = owner_name(h, a->owner),
                                  .target = (const char *)target.p,
                                  .body_max = state ? HF_STATE_BODY_MAX : HF_PULL_BODY_MAX,
                                  .deadline = hf_now() + PULL_TIME};
    int rc = target.err        ? target.err
             : opt.to.len == 0 ? -EADDRNOTAVAIL
                               : hf_http_get_start(h->loop, &opt, on_pulled, p, &p->get);
    hf_buf_fini(&target);
    if (rc) {
        *ret_failed = p;
        *ret_rc = rc;
    }
}

/* ---- pulls that others ask for ---- */

static uint64_t query_u64(const struct hf_http_req *r, const char *name)
{
    const char *s = hf_http_req_query(r, name);
    return s ? strtoull(s, NULL, 10) : 0;
}

static void on_pull_request(void *arg, struct hf_http_req *r)
{
    struct hf_hostd *h = arg;
    struct hf_slice peer = hf_slice_str(hf_http_req_peer(r));
    const char *path = hf_http_req_path(r), *owner = hf_http_req_query(r, "owner");
    struct hf_buf body;
    hf_buf_init(&body, HF_STATE_BODY_MAX);
    int rc = -HF_ENOTFOUND;
    if (strcmp(path, "/v1/adverts") == 0) {
        bool ours = owner && strcmp(owner, h->config->host.name) == 0;
        rc = !ours ? -HF_EOWNER
                   : hf_dir_encode_pull(h->dir, peer, query_u64(r, "incarnation"),
                                        query_u64(r, "since"),
                                        h->sealer ? hf_sealer_counter(h->sealer) : 0, &body);
    } else if (strcmp(path, "/v1/state") == 0) {
        rc = hf_dir_encode_state(h->dir, peer, query_u64(r, "parts") == 1, hf_now(), &body);
    } else if (strcmp(path, "/v1/view") == 0) {
        hf_report_view(h, &body);
        rc = body.err;
    } else if (strncmp(path, "/v1/group/", strlen("/v1/group/")) == 0) {
        rc = hf_groups_config(h->groups, path, &body);
    }
    hf_tracef(HF_TRACE_DIR, hf_http_req_peer(r), "asked for %s: %s, %zu bytes", path,
              hf_strerror(rc), body.n);
    if (rc == 0) {
        h->count.pull_bytes_served += body.n;
        hf_http_reply(r, 200, "application/octet-stream", hf_buf_slice(&body));
    } else {
        h->count.pulls_refused++;
        int status = rc == -HF_ENOTREADY                       ? 503
                     : rc == -HF_ENOTFOUND || rc == -HF_EOWNER ? 404
                                                               : 500;
        hf_http_reply_error(r, status, "%s", hf_strerror(rc));
    }
    hf_buf_fini(&body);
}

/* ---- persistence ---- */

static void incarnation_path(const struct hf_hostd *h, char *path, size_t n)
{
    snprintf(path, n, "%s/incarnation", h->config->state.dir);
}

/* The incarnation of our next life: the one on disk + 1; 1 on a new disk. */
static int load_incarnation(const struct hf_hostd *h, struct hf_err *err, uint64_t *ret_next)
{
    char path[512], *end = NULL;
    struct hf_buf buf;
    incarnation_path(h, path, sizeof(path));
    hf_buf_init(&buf, 64);
    int rc = hf_file_read(path, &buf);
    hf_buf_add(&buf, hf_slice("", 1));
    if (rc == -ENOENT) {
        *ret_next = 1;
        rc = 0;
    } else if (rc) {
        hf_err_set(err, rc, "%s: cannot read: %s", path, hf_strerror(rc));
    } else {
        uint64_t last = buf.err ? 0 : strtoull((const char *)buf.p, &end, 10);
        rc = last == 0 || last == UINT64_MAX || *end != '\n' ? -HF_EMALF : 0;
        if (rc) {
            hf_err_set(err, rc,
                       "%s: not a number of an incarnation: remove the file; peers report the last "
                       "one that they know",
                       path);
        } else {
            *ret_next = last + 1;
        }
    }
    hf_buf_fini(&buf);
    return rc;
}

static int persist(struct hf_hostd *h, uint64_t incarnation)
{
    char path[512], text[24];
    struct hf_err err;
    incarnation_path(h, path, sizeof(path));
    snprintf(text, sizeof(text), "%llu\n", (unsigned long long)incarnation);
    int rc = hf_file_replace(path, hf_slice_str(text), 0644, &err);
    if (rc) {
        if (rc != h->persist_rc) {
            hf_log_err("", "%s; not advertising until this is mended", err.text);
        }
        h->persist_rc = rc;
        return rc;
    }
    h->persist_rc = 0;
    hf_sealer_destroy(h->sealer);
    h->sealer = NULL;
    return hf_sealer_create(&h->key, h->config->host.name, incarnation, &h->sealer);
}

/* ---- steps ---- */

static void tell_state(struct hf_hostd *h, enum hf_dir_state s)
{
    hf_log_info("", "directory: %s", hf_dir_state_name(s));
    if (s == HF_DIR_RUN) {
        hf_timeline_note(h->timeline, HF_ABOUT_HOST, h->config->host.name, 0,
                         "takes part in the cluster");
    }
    if (s == HF_DIR_PERSIST) {
        h->count.sync_ms = (uint64_t)((hf_now() - h->started_at) / HF_NS_PER_MS);
    }
}

/* Remember who fell silent until it is back; the oldest is forgotten for a new one. */
static void note_lost(struct hf_hostd *h, const struct hf_dir_act *a)
{
    struct hf_hostd_lost *oldest = &h->lost[0];
    for (size_t i = 0; i < HF_HOSTD_LOST_MAX; i++) {
        struct hf_hostd_lost *l = &h->lost[i];
        if (strcmp(l->host, owner_name(h, a->owner)) == 0) {
            *l = (struct hf_hostd_lost){0};
        }
        oldest = l->at < oldest->at ? l : oldest;
    }
    if (!a->up && strcmp(a->reason, "silent") == 0) {
        oldest->at = hf_now();
        snprintf(oldest->host, sizeof(oldest->host), "%s", owner_name(h, a->owner));
    }
}

static void tell_member(struct hf_hostd *h, const struct hf_dir_act *a)
{
    const struct hf_part *part = hf_dir_part(h->dir, a->owner);
    note_lost(h, a);
    if (hf_dir_state(h->dir) == HF_DIR_RUN) { /* until then we only get to know who is there */
        hf_timeline_note(h->timeline, HF_ABOUT_HOST, owner_name(h, a->owner), 0, "%s%s",
                         a->up ? "alive" : a->reason, a->up ? "" : ": its services leave the tree");
    }
    if (a->up) {
        hf_log_info(owner_name(h, a->owner), "alive, incarnation %llu, %u services",
                    part ? (unsigned long long)part->key.incarnation : 0,
                    part ? part->n_entries : 0);
    } else {
        hf_log_info(owner_name(h, a->owner), "%s: its services leave the tree", a->reason);
    }
}

void hf_drive_step(struct hf_hostd *h, const struct hf_dir_in *in)
{
    struct hf_dir_in persisted = {.kind = HF_DIR_IN_TIMER};
    struct pull *failed[HF_PULLS_MAX + 1];
    int failed_rc[HF_PULLS_MAX + 1];
    size_t n_failed = 0;
    hf_dir_step(h->dir, in, hf_now(), h->out);
    for (uint32_t i = 0; i < h->out->n; i++) {
        const struct hf_dir_act *a = &h->out->act[i];
        struct pull *bad = NULL;
        switch (a->kind) {
        case HF_DIR_ACT_MULTICAST:
            send_sealed(h, HF_DATAGRAM_ADVERT, NULL);
            break;
        case HF_DIR_ACT_ANSWER:
            send_to(h, HF_DATAGRAM_ADVERT, &a->to);
            break;
        case HF_DIR_ACT_PROBE:
            send_to(h, HF_DATAGRAM_PROBE, &a->to);
            break;
        case HF_DIR_ACT_PULL:
        case HF_DIR_ACT_PULL_STATE:
            start_pull(h, a, a->kind == HF_DIR_ACT_PULL_STATE, &bad, &failed_rc[n_failed]);
            if (bad) {
                failed[n_failed++] = bad;
            }
            break;
        case HF_DIR_ACT_PERSIST:
            persisted.kind = HF_DIR_IN_PERSISTED;
            persisted.rc = persist(h, a->incarnation);
            if (persisted.rc == 0) {
                memcpy(persisted.salt, hf_sealer_salt(h->sealer), HF_SALT_LEN);
            }
            break;
        case HF_DIR_ACT_STATE:
            tell_state(h, a->state);
            break;
        case HF_DIR_ACT_MEMBER:
            tell_member(h, a);
            break;
        case HF_DIR_ACT_PART:
            hf_follows_changed(h->follows, a->owner);
            break;
        case HF_DIR_ACT_RESULT:
            break; /* hf_drive_local() reads it */
        }
    }
    hf_timer_set(h->timer, hf_dir_deadline(h->dir));
    if (persisted.kind == HF_DIR_IN_PERSISTED) {
        hf_drive_step(h, &persisted);
    }
    for (size_t i = 0; i < n_failed; i++) {
        pull_failed(failed[i], failed_rc[i]);
    }
}

int hf_drive_local(struct hf_hostd *h, const struct hf_dir_in *in)
{
    hf_drive_step(h, in);
    for (uint32_t i = 0; i < h->out->n; i++) {
        if (h->out->act[i].kind == HF_DIR_ACT_RESULT) {
            return h->out->act[i].rc;
        }
    }
    return -HF_ENOTREADY; /* the core has left */
}

static void on_timer(void *arg)
{
    hf_drive_step(arg, &(struct hf_dir_in){.kind = HF_DIR_IN_TIMER});
}

/* ---- life ---- */

static int open_core(struct hf_hostd *h, struct hf_err *err)
{
    const struct hf_hostd_config *c = h->config;
    struct hf_dir_conf conf = {.host = hf_slice_str(c->host.name),
                               .endpoint = hf_addr_to_endpoint(&c->host.address),
                               .heartbeat_ms = (uint32_t)c->directory.heartbeat_ms,
                               .listen_ms = (uint32_t)c->directory.listen_wait_ms,
                               .sync_ms = (uint32_t)c->directory.sync_wait_ms,
                               .dump = c->directory.sync == HF_HOSTD_SYNC_DUMP};
    int rc = hf_file_make_dir(c->state.dir, 0755, err);
    if (rc == 0) {
        rc = load_incarnation(h, err, &conf.incarnation);
    }
    if (rc) {
        return rc;
    }
    if (getrandom(&conf.seed, sizeof(conf.seed), 0) != sizeof(conf.seed)) {
        return hf_err_set(err, -EIO, "no random numbers from the kernel");
    }
    rc = hf_dir_store_create(HF_HOSTS_MAX, conf.seed, &h->store);
    rc = rc ? rc : hf_dir_create(&conf, h->store, hf_now(), &h->dir);
    rc = rc ? rc : hf_follows_create(h->dir, h->store, &h->follows);
    rc = rc ? rc : hf_timer_create(h->loop, on_timer, h, &h->timer);
    h->out = hf_alloc(sizeof(*h->out));
    h->pulls = hf_alloc(sizeof(*h->pulls));
    if (h->pulls) {
        h->pulls->last_error = hf_alloc_array(HF_HOSTS_MAX, sizeof(int));
    }
    if (rc || !h->out || !h->pulls || !h->pulls->last_error) {
        return hf_err_set(err, rc ? rc : -ENOMEM, "cannot start the directory: %s",
                          hf_strerror(rc ? rc : -ENOMEM));
    }
    hf_dir_out_init(h->out);
    for (size_t i = 0; i < HF_ARRAY_LEN(h->pulls->pull); i++) {
        h->pulls->pull[i] = (struct pull){.h = h, .owner = HF_OWNER_NONE};
    }
    return 0;
}

static int open_network(struct hf_hostd *h, struct hf_err *err)
{
    const struct hf_hostd_config *c = h->config;
    int rc = hf_tls_create(&h->key, c->host.name, "pull", &h->tls);
    rc = rc ? rc : hf_opener_create(&h->key, HF_SENDERS_MAX, &h->opener);
    if (rc) {
        return hf_err_set(err, rc, "cannot prepare keys: %s", hf_strerror(rc));
    }
    struct hf_http_server_opt http = {.bind = c->directory.listen,
                                      .tls = h->tls,
                                      .clients_max = HF_HTTP_CLIENTS_MAX,
                                      .idle_timeout_s = 15,
                                      .backlog_max = HF_STATE_BODY_MAX};
    rc = hf_http_server_open(h->loop, &http, on_pull_request, h, err, &h->pull_server);
    if (rc) {
        return rc;
    }
    struct hf_udp_opt udp = {.bind = c->directory.listen, .ttl = (int)c->directory.ttl};
    snprintf(udp.interface, sizeof(udp.interface), "%s", c->directory.interface);
    if (c->directory.transport == HF_HOSTD_MULTICAST) {
        udp.group = c->directory.group;
    }
    return hf_udp_open(h->loop, &udp, on_datagram, h, err, &h->udp);
}

int hf_drive_open(struct hf_hostd *h, struct hf_err *err)
{
    int rc = hf_key_load(h->config->cluster.key_file, err, &h->key);
    rc = rc ? rc : open_core(h, err);
    rc = rc ? rc : open_network(h, err);
    if (rc == 0) {
        hf_timer_set(h->timer, hf_dir_deadline(h->dir));
    }
    return rc;
}

void hf_drive_close(struct hf_hostd *h)
{
    if (h->dir && h->udp) {
        hf_drive_step(h, &(struct hf_dir_in){.kind = HF_DIR_IN_STOP});
    }
    for (size_t i = 0; h->pulls && i < HF_ARRAY_LEN(h->pulls->pull); i++) {
        if (h->pulls->pull[i].get) {
            hf_http_get_cancel(h->pulls->pull[i].get);
        }
    }
    hf_http_server_close(h->pull_server);
    hf_udp_close(h->udp);
    hf_timer_destroy(h->timer);
    hf_tls_destroy(h->tls);
    hf_opener_destroy(h->opener);
    hf_sealer_destroy(h->sealer);
    if (h->out) {
        hf_dir_out_fini(h->out);
    }
    hf_follows_destroy(h->follows);
    hf_dir_destroy(h->dir);
    hf_dir_store_destroy(h->store);
    if (h->pulls) {
        hf_free(h->pulls->last_error);
    }
    hf_free(h->pulls);
    hf_free(h->out);
    hf_key_wipe(&h->key);
}
