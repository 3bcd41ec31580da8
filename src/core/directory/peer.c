/* Peers: what their adverts tell, what their silence means (A2, A7, A9, A-r2, A-r3). */
#include <errno.h>

#include "core/directory/internal.h"

/* Between two scans of a large cluster. */
static uint32_t scan_step_ms(const struct hf_dir *d)
{
    return d->n_alive > EXACT_SCAN_HOSTS ? hf_dir_period_ms(d) / 20 : 0;
}

void hf_dir_scan_by(struct hf_dir *d, hf_time t)
{
    hf_time earliest = d->scanned_at + HF_MS(scan_step_ms(d));
    t = t > earliest ? t : earliest;
    d->scan_at = hf_time_min(d->scan_at, t);
    d->scan_rest = hf_time_min(d->scan_rest, t);
}

/* The peer's entries leave the tree; its record stays. */
static void drop_part(struct hf_dir *d, uint32_t owner, const char *reason, struct hf_dir_out *out)
{
    struct hf_dir_peer *p = &d->peer[owner];
    hf_dir_act_part(out, owner, p->part, NULL);
    struct hf_dir_act *a = hf_dir_act(out, HF_DIR_ACT_MEMBER, owner);
    a->up = false;
    a->reason = reason;
    hf_part_unref(p->part);
    p->part = NULL;
    d->n_alive--;
    d->count.members_down++;
}

/*
 * Nothing is known of it any more. What a pull under way brings may be older than that (an earlier
 * life, a lower counter): it is not taken in, even if the owner is wanted again by then.
 */
static void forget(struct hf_dir *d, uint32_t owner)
{
    struct hf_dir_peer *p = &d->peer[owner];
    assert(!p->part && p->state != HF_DIR_PEER_ABSENT);
    struct pull_slot *s = hf_dir_slot(d, owner);
    if (s) {
        s->outdated = true;
    }
    d->n_fresh -= p->fresh;
    *p = (struct hf_dir_peer){.state = HF_DIR_PEER_ABSENT};
    d->store->owner[owner].users--;
}

static void set_period(struct hf_dir_peer *p, uint32_t period_ms)
{
    p->period_cs = (uint16_t)((period_ms + 9) / 10);
}

/*
 * An absent owner was heard of: it becomes alive only by a pull (A-r2). In a large cluster pulls of
 * a newcomer are spread over as long as one round of heartbeats takes.
 */
void hf_dir_peer_want(struct hf_dir *d, uint32_t owner, uint32_t period_ms, hf_time heard,
                      hf_time now)
{
    struct hf_dir_peer *p = &d->peer[owner];
    if (p->state == HF_DIR_PEER_WANTED) {
        p->heard_ms = to_ms(heard);
        return;
    }
    if (p->state == HF_DIR_PEER_ABSENT) {
        d->store->owner[owner].users++;
        *p = (struct hf_dir_peer){0};
    }
    assert(!p->part);
    p->state = HF_DIR_PEER_WANTED;
    p->fresh = 1;
    p->fails = 0;
    p->probes = 0;
    d->n_fresh++;
    p->heard_ms = to_ms(heard);
    set_period(p, period_ms);
    uint64_t spread = 0;
    if (d->n_alive > EXACT_SCAN_HOSTS && d->state == HF_DIR_RUN) {
        spread = hf_prng_below(&d->prng, d->n_alive * 1000 / HF_HEARTBEATS_PER_S_MAX);
    }
    p->due_ms = to_ms(now) + (uint32_t)spread;
    if (spread == 0) {
        hf_dir_pull_queue(d, owner);
    }
    hf_dir_scan_by(d, p->busy ? heard + GONE_PERIODS * HF_MS(period_ms) : now + HF_MS(spread + 1));
}

/* A pull or a state dump made it alive, or brought it up to date. Takes the reference of part. */
void hf_dir_peer_alive(struct hf_dir *d, uint32_t owner, struct hf_part *part,
                       const struct hf_owner_head *h, hf_time heard, struct hf_dir_out *out)
{
    struct hf_dir_peer *p = &d->peer[owner];
    struct hf_part *before = p->part;
    if (p->state == HF_DIR_PEER_ABSENT) {
        d->store->owner[owner].users++;
    }
    d->n_fresh -= p->fresh;
    p->fresh = 0;
    p->state = HF_DIR_PEER_ALIVE;
    p->probes = 0;
    p->part = part;
    if (!before || before->key.incarnation != h->incarnation || p->counter < h->counter) {
        p->counter = h->counter;
    }
    p->heard_ms = to_ms(heard);
    set_period(p, h->period_ms);
    if (h->endpoint.family != HF_AF_NONE) {
        d->store->owner[owner].endpoint = h->endpoint;
    }
    if (before != part) {
        hf_dir_act_part(out, owner, before, part);
    }
    hf_part_unref(before);
    if (!before) {
        d->n_alive++;
        d->count.members_up++;
        hf_dir_act(out, HF_DIR_ACT_MEMBER, owner)->up = true;
    }
    hf_dir_scan_by(d, heard + SILENT_PERIODS * HF_MS(period_of(p)));
}

static void need_pull(struct hf_dir *d, uint32_t owner, hf_time now)
{
    struct hf_dir_peer *p = &d->peer[owner];
    p->behind = 1;
    if (p->fails == 0 || (int32_t)(p->due_ms - to_ms(now)) <= 0) {
        hf_dir_pull_queue(d, owner);
    }
    if (!p->busy) {
        hf_dir_scan_by(d, now + HF_MS(1));
    }
}

/* An advert of a living peer's present incarnation: ignore, apply, or see the gap (A2, A3). */
void hf_dir_apply_advert(struct hf_dir *d, uint32_t owner, const struct hf_advert *a, hf_time now,
                         struct hf_dir_out *out)
{
    struct hf_dir_peer *p = &d->peer[owner];
    uint64_t mine = p->part->key.version;
    if (a->version < mine || (a->version == mine && a->hash == p->part->key.hash)) {
        d->count.adverts_ignored++;
        return;
    }
    int rc = -HF_EMALF;
    if (a->version > mine && a->from > mine) {
        d->count.gaps++;
        need_pull(d, owner, now);
        return;
    }
    struct hf_part *part = NULL;
    if (a->version > mine) {
        struct hf_part_key key = p->part->key;
        key.version = a->version;
        key.hash = a->hash;
        rc = hf_part_lead(d->store, &key, p->part->salt, p->part, a->changes, &part);
    }
    if (!part) { /* ours is not what the owner has: ask for all of it */
        d->count.refused_hash += rc == -HF_EMALF;
        d->count.refused_full += rc == -HF_EFULL;
        d->count.no_memory += rc == -ENOMEM;
        p->full = 1;
        need_pull(d, owner, now);
        return;
    }
    d->count.adverts_applied++;
    hf_dir_act_part(out, owner, p->part, part);
    hf_part_unref(p->part);
    p->part = part;
    p->behind = 0;
}

/* Keep the newest advert that comes during a pull (A8). */
static bool hold(struct hf_dir *d, uint32_t owner, const struct hf_dir_in *in)
{
    struct pull_slot *s = hf_dir_slot(d, owner);
    size_t n = (size_t)(in->advert->changes.r.end - in->advert->changes.r.p);
    if (!s || n > sizeof(s->bytes) || (in->advert->flags & HF_ADVERT_BYE)) {
        return false;
    }
    s->held = true;
    s->head = *in->head;
    s->head.host = (struct hf_slice){0};
    s->advert = *in->advert;
    memcpy(s->bytes, in->advert->changes.r.p, n);
    hf_rd_init(&s->advert.changes.r, hf_slice(s->bytes, n));
    d->count.adverts_held++;
    return true;
}

/* Is it a datagram of the peer's living process that we have not seen? */
static bool counts(struct hf_dir *d, const struct hf_dir_peer *p, const struct hf_datagram_head *h)
{
    if (memcmp(h->salt, p->part->salt, HF_SALT_LEN) != 0) {
        d->count.refused_salt++;
        return false;
    }
    if (h->counter <= p->counter) {
        d->count.refused_replay++;
        return false;
    }
    return true;
}

static void on_own_name(struct hf_dir *d, const struct hf_datagram_head *h)
{
    /* our own datagrams come back by multicast; so may those of our last life */
    if (memcmp(h->salt, d->salt, HF_SALT_LEN) != 0 && h->incarnation >= d->incarnation) {
        d->count.conflicts++;
    }
}

/* A first advert while listening or syncing: from now on we know whom to ask (A4, A5). */
static void maybe_ask_state(struct hf_dir *d, uint32_t owner, hf_time now, struct hf_dir_out *out)
{
    if (d->state == HF_DIR_LISTEN) {
        hf_dir_enter_state(d, HF_DIR_SYNC, out);
        d->sync_until = now + HF_MS(d->sync_ms);
    }
    if (d->state == HF_DIR_SYNC && !d->state_done && !d->state_asked && owner != d->state_from) {
        hf_dir_ask_state(d, owner, out);
    }
}

/* Take in what every authentic datagram tells, whatever it is. False: it does not count. */
static bool heard(struct hf_dir *d, const struct hf_dir_in *in, hf_time now)
{
    struct hf_dir_peer *p = &d->peer[in->owner];
    if (p->part) {
        if (in->head->incarnation == p->part->key.incarnation && !counts(d, p, in->head)) {
            return false;
        }
        if (in->head->incarnation < p->part->key.incarnation) {
            d->count.refused_replay++;
            return false;
        }
        p->counter = in->head->counter;
        p->heard_ms = to_ms(now);
        p->state = HF_DIR_PEER_ALIVE;
        p->probes = 0;
    }
    return true;
}

static void note_endpoint(struct hf_dir *d, uint32_t owner, const struct hf_endpoint *said,
                          const struct hf_endpoint *from)
{
    const struct hf_endpoint *e = said->family != HF_AF_NONE ? said : from;
    if (e->family != HF_AF_NONE) {
        d->store->owner[owner].endpoint = *e;
    }
}

void hf_dir_on_advert(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                      struct hf_dir_out *out)
{
    uint32_t owner = in->owner;
    if (owner == HF_OWNER_NONE) {
        d->count.refused_full++;
        return;
    }
    if (owner == d->self) {
        on_own_name(d, in->head);
        return;
    }
    d->count.adverts_received++;
    if (!heard(d, in, now)) {
        return;
    }
    const struct hf_advert *a = in->advert;
    struct hf_dir_peer *p = &d->peer[owner];
    note_endpoint(d, owner, &a->endpoint, &in->from);
    bool bye = a->flags & HF_ADVERT_BYE;
    if (p->part && (bye || in->head->incarnation > p->part->key.incarnation)) { /* A9 */
        drop_part(d, owner, bye ? "left" : "restarted", out);
        forget(d, owner);
    }
    if (bye) {
        if (p->state != HF_DIR_PEER_ABSENT) {
            forget(d, owner);
        }
        return;
    }
    if (p->part) {
        set_period(p, a->period_ms);
        if (a->from <= p->part->key.version || !hold(d, owner, in)) {
            hf_dir_apply_advert(d, owner, a, now, out);
        }
        return;
    }
    hf_dir_peer_want(d, owner, a->period_ms, now, now);
    (void)hold(d, owner, in);
    maybe_ask_state(d, owner, now, out);
}

void hf_dir_on_probe(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                     struct hf_dir_out *out)
{
    if (in->owner == HF_OWNER_NONE || in->owner == d->self) {
        d->count.refused_full += in->owner == HF_OWNER_NONE;
        return;
    }
    if (!heard(d, in, now) || d->state != HF_DIR_RUN) {
        return;
    }
    d->count.probes_received++;
    /* an answer to one is not what all others wait for: that stays due */
    hf_time heartbeat_at = d->heartbeat_at, advert_at = d->advert_at, sent_at = d->sent_at;
    d->heartbeat_at = now + 1;
    hf_dir_own_advert(d, 0, now, out);
    d->heartbeat_at = heartbeat_at;
    d->advert_at = advert_at;
    d->sent_at = sent_at;
    assert(out->act[out->n - 1].kind == HF_DIR_ACT_MULTICAST);
    out->act[out->n - 1].kind = HF_DIR_ACT_ANSWER;
    out->act[out->n - 1].owner = in->owner;
    out->act[out->n - 1].to = in->from;
}

/* ---- silence ---- */

/* Looks at one living peer; returns ms until it wants to be looked at again. */
static uint32_t watch_alive(struct hf_dir *d, uint32_t owner, uint32_t slack_ms, hf_time now,
                            struct hf_dir_out *out)
{
    struct hf_dir_peer *p = &d->peer[owner];
    uint32_t idle = ms_since(p->heard_ms, to_ms(now)), period = period_of(p);
    uint32_t gone = GONE_PERIODS * period;
    gone = gone > slack_ms ? gone - slack_ms : gone;
    if (idle >= gone) {
        hf_dir_shelf_put(d, p->part);
        drop_part(d, owner, "silent", out);
        forget(d, owner);
        return UINT32_MAX;
    }
    if (idle < SILENT_PERIODS * period) {
        return SILENT_PERIODS * period - idle;
    }
    p->state = HF_DIR_PEER_PROBING;
    if (d->state != HF_DIR_RUN) {
        return gone - idle; /* no key of our own yet to ask it with */
    }
    uint32_t next = SILENT_PERIODS * period + p->probes * period / PROBES_MAX;
    if (idle >= next && p->probes < PROBES_MAX && d->scan_probes > 0) {
        d->scan_probes--;
        hf_dir_act(out, HF_DIR_ACT_PROBE, owner)->to = d->store->owner[owner].endpoint;
        d->count.probes_sent++;
        p->probes++;
        next += period / PROBES_MAX;
    }
    next = p->probes < PROBES_MAX && next < gone ? next : gone;
    return next > idle ? next - idle : 1;
}

/* Looks at one that is to be pulled (WANTED, or behind); ms until it wants that again. */
static uint32_t watch_pull(struct hf_dir *d, uint32_t owner, hf_time now)
{
    struct hf_dir_peer *p = &d->peer[owner];
    if (p->busy || hf_dir_slot(d, owner)) { /* its end, well or not, tells what is next */
        return UINT32_MAX;
    }
    int32_t wait = (int32_t)(p->due_ms - to_ms(now));
    if (wait > 0) {
        return (uint32_t)wait;
    }
    hf_dir_pull_queue(d, owner);
    return p->busy ? UINT32_MAX : 20; /* the queue is full: soon again */
}

static uint32_t watch(struct hf_dir *d, uint32_t owner, uint32_t slack_ms, hf_time now,
                      struct hf_dir_out *out)
{
    struct hf_dir_peer *p = &d->peer[owner];
    uint32_t life;
    if (p->state == HF_DIR_PEER_WANTED) {
        uint32_t idle = ms_since(p->heard_ms, to_ms(now)), gone = GONE_PERIODS * period_of(p);
        if (idle >= gone) { /* it never answered, and is not heard of any more */
            forget(d, owner);
            return UINT32_MAX;
        }
        life = gone - idle;
    } else {
        life = watch_alive(d, owner, slack_ms, now, out);
    }
    if (p->state == HF_DIR_PEER_WANTED || p->behind) {
        uint32_t pull = watch_pull(d, owner, now);
        life = pull < life ? pull : life;
    }
    return life;
}

/*
 * Look at all peers. In a small cluster exactly when one is due; in a large one at most every
 * twentieth of a period, for which `slack` makes up, so that nobody stays longer than GONE_PERIODS
 * (I6). When half a large cluster falls silent, probes are sent no faster than heartbeats come.
 */
void hf_dir_scan(struct hf_dir *d, hf_time now, struct hf_dir_out *out)
{
    uint32_t step_ms = scan_step_ms(d);
    if (d->scan_from == 0) {
        d->scan_rest = HF_NEVER;
        d->scanned_at = now;
        d->scan_probes = step_ms ? 1 + step_ms * HF_HEARTBEATS_PER_S_MAX / 1000 : UINT32_MAX;
    }
    d->scan_at = HF_NEVER;
    for (uint32_t id = d->scan_from; id < d->store->n_owners; id++) {
        if (d->peer[id].state == HF_DIR_PEER_ABSENT) {
            continue;
        }
        /* a peer needs at most 2 acts, what follows in this step at most HF_PULLS_MAX + 4 */
        if (out->n > HF_DIR_ACTS_MAX - HF_PULLS_MAX - 8) {
            d->scan_from = id;
            d->scan_at = now; /* the rest in the next step */
            return;
        }
        uint32_t ms = watch(d, id, step_ms, now, out);
        if (ms != UINT32_MAX) {
            d->scan_rest = hf_time_min(d->scan_rest, now + HF_MS(ms > step_ms ? ms : step_ms));
        }
    }
    d->scan_from = 0;
    d->scan_at = d->scan_rest;
}
