#include "core/directory/directory.h"

#include <errno.h>

#include "base/name.h"
#include "base/names.h"
#include "core/directory/internal.h"

HF_NAMES(hf_dir_state_name, enum hf_dir_state, HF_DIR_STATE_LIST)
HF_NAMES(hf_dir_peer_state_name, enum hf_dir_peer_state, HF_DIR_PEER_LIST)

/* ---- outputs ---- */

void hf_dir_out_init(struct hf_dir_out *out)
{
    out->n = 0;
    out->n_kept = 0;
    out->body_len = 0;
}

void hf_dir_out_fini(struct hf_dir_out *out)
{
    for (uint32_t i = 0; i < out->n_kept; i++) {
        hf_part_unref(out->kept[i]);
    }
    hf_dir_out_init(out);
}

struct hf_dir_act *hf_dir_act(struct hf_dir_out *out, enum hf_dir_act_kind kind, uint32_t owner)
{
    assert(out->n < HF_DIR_ACTS_MAX);
    struct hf_dir_act *a = &out->act[out->n++];
    *a = (struct hf_dir_act){.kind = kind, .owner = owner};
    return a;
}

void hf_dir_act_part(struct hf_dir_out *out, uint32_t owner, struct hf_part *before,
                     struct hf_part *after)
{
    struct hf_dir_act *a = hf_dir_act(out, HF_DIR_ACT_PART, owner);
    a->before = before;
    a->after = after;
    if (before) {
        out->kept[out->n_kept++] = hf_part_ref(before);
    }
    if (after) {
        out->kept[out->n_kept++] = hf_part_ref(after);
    }
}

/* ---- our own state ---- */

/* allowed next states, as bits; the figure is in directory.h */
static const uint8_t next_states[HF_DIR_STATE_COUNT_] = {
    [HF_DIR_LISTEN] = 1 << HF_DIR_SYNC | 1 << HF_DIR_PERSIST | 1 << HF_DIR_LEFT,
    [HF_DIR_SYNC] = 1 << HF_DIR_PERSIST | 1 << HF_DIR_LEFT,
    [HF_DIR_PERSIST] = 1 << HF_DIR_RUN | 1 << HF_DIR_LEFT,
    [HF_DIR_RUN] = 1 << HF_DIR_LEFT,
};

void hf_dir_enter_state(struct hf_dir *d, enum hf_dir_state s, struct hf_dir_out *out)
{
    assert(next_states[d->state] >> s & 1);
    d->state = s;
    hf_dir_act(out, HF_DIR_ACT_STATE, d->self)->state = s;
}

static void persist(struct hf_dir *d, struct hf_dir_out *out)
{
    d->persist_at = HF_NEVER;
    hf_dir_act(out, HF_DIR_ACT_PERSIST, d->self)->incarnation = d->incarnation;
}

/*
 * A11: listen, sync (bounded wait), only then advertise oneself. The sync is over when everybody
 * heard of, or named by the one asked for the state, has been pulled once, well or not.
 */
static void sync_check(struct hf_dir *d, hf_time now, struct hf_dir_out *out)
{
    if (d->state != HF_DIR_LISTEN && d->state != HF_DIR_SYNC) {
        return;
    }
    bool asked_all = d->n_fresh == 0 && d->n_pulling == 0 && d->n_queued == 0 && !d->state_asked;
    bool over =
        d->state == HF_DIR_LISTEN
            ? now >= d->listen_until
            : now >= d->sync_until || (asked_all && (d->state_done || now >= d->listen_until));
    if (over) {
        hf_dir_enter_state(d, HF_DIR_PERSIST, out);
        persist(d, out);
    }
}

static void on_persisted(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                         struct hf_dir_out *out)
{
    if (d->state != HF_DIR_PERSIST) {
        return;
    }
    int rc = in->rc ? in->rc : hf_dir_own_begin(d, in->salt);
    if (rc) { /* a full disk, say: try again, unseen by others until it works */
        d->count.no_memory += rc == -ENOMEM;
        d->persist_at = now + HF_S(1);
        return;
    }
    hf_dir_enter_state(d, HF_DIR_RUN, out);
    hf_dir_act_part(out, d->self, NULL, d->own);
    hf_dir_own_advert(d, 0, now, out);
}

static void on_stop(struct hf_dir *d, hf_time now, struct hf_dir_out *out)
{
    if (d->state == HF_DIR_LEFT) {
        return;
    }
    if (d->state == HF_DIR_RUN) {
        hf_dir_own_advert(d, HF_ADVERT_BYE, now, out);
    }
    hf_dir_enter_state(d, HF_DIR_LEFT, out);
    d->heartbeat_at = d->advert_at = d->scan_at = d->lease_at = d->persist_at = HF_NEVER;
}

static void on_timer(struct hf_dir *d, hf_time now, struct hf_dir_out *out)
{
    if (now >= d->persist_at) {
        persist(d, out);
    }
    if (now >= d->lease_at) {
        hf_dir_own_leases(d, now, out);
    }
    if (now >= d->heartbeat_at || now >= d->advert_at) {
        hf_dir_own_advert(d, 0, now, out);
    }
    if (now >= d->scan_at) {
        hf_dir_scan(d, now, out);
    }
}

/* ---- life ---- */

int hf_dir_create(const struct hf_dir_conf *conf, struct hf_dir_store *store, hf_time now,
                  struct hf_dir **ret_dir)
{
    if (!hf_host_name_ok(conf->host)) {
        return -HF_ENAME;
    }
    struct hf_dir *d = hf_alloc(sizeof(*d));
    if (!d) {
        return -ENOMEM;
    }
    hf_map_init(&d->locals, conf->seed);
    hf_map_init(&d->publishers, conf->seed + 1);
    hf_list_init(&d->changes);
    hf_prng_init(&d->prng, conf->seed);
    d->store = store;
    d->peer = hf_alloc_array(store->owners_max, sizeof(*d->peer));
    d->self = hf_dir_store_owner(store, conf->host);
    int rc = !d->peer ? -ENOMEM : d->self == HF_OWNER_NONE ? -HF_EFULL : 0;
    static const uint8_t no_salt[HF_SALT_LEN];
    struct hf_part *own = rc ? NULL : hf_part_create(d->self, conf->incarnation, no_salt);
    if (rc || !own) {
        hf_free(d->peer);
        hf_free(d);
        return rc ? rc : -ENOMEM;
    }
    d->own = hf_part_seal(own, 0, store);
    store->owner[d->self].users++;
    d->heartbeat_ms = conf->heartbeat_ms;
    d->listen_ms = conf->listen_ms ? conf->listen_ms : 2 * conf->heartbeat_ms;
    d->sync_ms = conf->sync_ms;
    d->dump = conf->dump;
    d->endpoint = conf->endpoint;
    d->incarnation = conf->incarnation ? conf->incarnation : 1;
    d->state = HF_DIR_LISTEN;
    d->state_from = HF_OWNER_NONE;
    for (size_t i = 0; i < HF_PULLS_MAX; i++) {
        d->slot[i].owner = HF_OWNER_NONE;
    }
    /* hosts that start together do not all stop listening together */
    hf_time jitter = (hf_time)hf_prng_below(&d->prng, (uint64_t)HF_MS(d->listen_ms) / 4);
    d->listen_until = now + HF_MS(d->listen_ms) + jitter;
    d->sync_until = HF_NEVER;
    d->heartbeat_at = d->advert_at = d->scan_at = d->lease_at = d->persist_at = HF_NEVER;
    d->sent_at = now - ADVERT_GAP;
    *ret_dir = d;
    return 0;
}

void hf_dir_destroy(struct hf_dir *d)
{
    if (!d) {
        return;
    }
    for (uint32_t id = 0; id < d->store->n_owners; id++) {
        hf_part_unref(d->peer[id].part);
        d->store->owner[id].users -= d->peer[id].state != HF_DIR_PEER_ABSENT;
    }
    for (size_t i = 0; i < HF_PULLS_MAX; i++) {
        if (d->slot[i].owner != HF_OWNER_NONE) {
            d->store->owner[d->slot[i].owner].users--;
        }
    }
    for (uint32_t id = 0; id < d->store->n_owners; id++) {
        hf_dir_shelf_drop(d, id);
    }
    d->store->owner[d->self].users--;
    hf_dir_own_fini(d);
    hf_free(d->peer);
    hf_free(d);
}

/* ---- step ---- */

void hf_dir_step(struct hf_dir *d, const struct hf_dir_in *in, hf_time now, struct hf_dir_out *out)
{
    hf_dir_out_fini(out);
    if (d->state == HF_DIR_LEFT) {
        return;
    }
    switch (in->kind) {
    case HF_DIR_IN_TIMER:
        on_timer(d, now, out);
        break;
    case HF_DIR_IN_ADVERT:
        hf_dir_on_advert(d, in, now, out);
        break;
    case HF_DIR_IN_PROBE:
        hf_dir_on_probe(d, in, now, out);
        break;
    case HF_DIR_IN_PULLED:
    case HF_DIR_IN_PULL_FAILED:
        hf_dir_on_pull(d, in, now, out);
        break;
    case HF_DIR_IN_STATE_MEMBER:
        hf_dir_on_state_member(d, in, now, out);
        break;
    case HF_DIR_IN_STATE_END:
        hf_dir_on_state_end(d, in, now, out);
        break;
    case HF_DIR_IN_PERSISTED:
        on_persisted(d, in, now, out);
        break;
    case HF_DIR_IN_PUBLISH:
        hf_dir_own_publish(d, in, now, out);
        break;
    case HF_DIR_IN_WITHDRAW:
        hf_dir_own_withdraw(d, in, now, out);
        break;
    case HF_DIR_IN_PUBLISHER_GONE:
        hf_dir_own_gone(d, in->publisher, now, out);
        break;
    case HF_DIR_IN_STOP:
        on_stop(d, now, out);
        return;
    }
    hf_dir_pull_start(d, out);
    sync_check(d, now, out);
}

hf_time hf_dir_deadline(const struct hf_dir *d)
{
    hf_time t = hf_time_min(d->heartbeat_at, d->advert_at);
    t = hf_time_min(t, d->scan_at);
    t = hf_time_min(t, d->lease_at);
    t = hf_time_min(t, d->persist_at);
    if (d->state == HF_DIR_LISTEN) {
        t = hf_time_min(t, d->listen_until);
    } else if (d->state == HF_DIR_SYNC) {
        t = hf_time_min(t, d->sync_until);
        bool may_end = !d->state_done && !d->state_asked && d->n_fresh == 0 && d->n_pulling == 0 &&
                       d->n_queued == 0;
        t = may_end ? hf_time_min(t, d->listen_until) : t;
    }
    return t;
}

/* ---- reading ---- */

enum hf_dir_state hf_dir_state(const struct hf_dir *d)
{
    return d->state;
}

uint64_t hf_dir_incarnation(const struct hf_dir *d)
{
    return d->incarnation;
}

uint32_t hf_dir_self(const struct hf_dir *d)
{
    return d->self;
}

uint32_t hf_dir_period_ms(const struct hf_dir *d)
{
    /* n hosts, each every period: n / period <= HF_HEARTBEATS_PER_S_MAX */
    uint32_t least = (d->n_alive + 1) * 1000 / HF_HEARTBEATS_PER_S_MAX;
    return d->heartbeat_ms > least ? d->heartbeat_ms : least;
}

uint32_t hf_dir_members(const struct hf_dir *d)
{
    return d->n_alive + (d->state == HF_DIR_RUN);
}

const struct hf_dir_counters *hf_dir_counters(const struct hf_dir *d)
{
    return &d->count;
}

struct hf_part *hf_dir_part(const struct hf_dir *d, uint32_t owner)
{
    if (owner == d->self) {
        return d->state == HF_DIR_RUN ? d->own : NULL;
    }
    return owner < d->store->n_owners ? d->peer[owner].part : NULL;
}

struct hf_dir_peer_info hf_dir_peer_info(const struct hf_dir *d, uint32_t owner, hf_time now)
{
    if (owner == d->self || owner >= d->store->n_owners) {
        return (struct hf_dir_peer_info){.state = HF_DIR_PEER_ABSENT};
    }
    const struct hf_dir_peer *p = &d->peer[owner];
    bool pulling = false;
    for (size_t i = 0; i < HF_PULLS_MAX; i++) {
        pulling = pulling || d->slot[i].owner == owner;
    }
    return (struct hf_dir_peer_info){
        .state = (enum hf_dir_peer_state)p->state,
        .heard_ms = ms_since(p->heard_ms, to_ms(now)),
        .period_ms = period_of(p),
        .failures = p->fails,
        .behind = p->behind,
        .pulling = pulling,
    };
}

size_t hf_dir_peer_size(void)
{
    return sizeof(struct hf_dir_peer);
}
