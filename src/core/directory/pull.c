/* Pulls: whom to ask, one at a time for each owner, and what their answers are worth (A3-A5, A8,
 * A10). */
#include <errno.h>

#include "core/directory/internal.h"

struct pull_slot *hf_dir_slot(struct hf_dir *d, uint32_t owner)
{
    for (size_t i = 0; i < HF_PULLS_MAX; i++) {
        if (d->slot[i].owner == owner) {
            return &d->slot[i];
        }
    }
    return NULL;
}

/* ---- the shelf ---- */

static struct hf_part *shelf_find(const struct hf_dir *d, uint32_t owner)
{
    for (size_t i = 0; i < SHELF_MAX; i++) {
        if (d->shelf[i] && d->shelf[i]->key.owner == owner) {
            return d->shelf[i];
        }
    }
    return NULL;
}

static void shelf_clear(struct hf_dir *d, struct hf_part **place)
{
    if (*place) {
        d->store->owner[(*place)->key.owner].users--;
        hf_part_unref(*place);
        *place = NULL;
    }
}

void hf_dir_shelf_drop(struct hf_dir *d, uint32_t owner)
{
    for (size_t i = 0; i < SHELF_MAX; i++) {
        if (d->shelf[i] && d->shelf[i]->key.owner == owner) {
            shelf_clear(d, &d->shelf[i]);
        }
    }
}

void hf_dir_shelf_put(struct hf_dir *d, struct hf_part *part)
{
    if (part->bytes < SHELF_BYTES_MIN) {
        return;
    }
    hf_dir_shelf_drop(d, part->key.owner);
    struct hf_part **place = &d->shelf[d->shelf_next++ % SHELF_MAX]; /* the oldest makes room */
    shelf_clear(d, place);
    d->store->owner[part->key.owner].users++;
    *place = hf_part_ref(part);
}

/* ---- asking ---- */

void hf_dir_pull_queue(struct hf_dir *d, uint32_t owner)
{
    struct hf_dir_peer *p = &d->peer[owner];
    if (p->busy || d->n_queued == HF_PULL_QUEUE_MAX || hf_dir_slot(d, owner)) {
        return; /* under way already, or the next scan tries again */
    }
    p->busy = 1;
    d->queue[(d->queue_head + d->n_queued++) % HF_PULL_QUEUE_MAX] = owner;
}

void hf_dir_pull_start(struct hf_dir *d, struct hf_dir_out *out)
{
    if (d->state_asked && d->dump) {
        return; /* A5: the dump comes first, the owners repair what it had stale */
    }
    while (d->n_queued > 0 && d->n_pulling < HF_PULLS_MAX) {
        uint32_t owner = d->queue[d->queue_head];
        d->queue_head = (d->queue_head + 1) % HF_PULL_QUEUE_MAX;
        d->n_queued--;
        struct hf_dir_peer *p = &d->peer[owner];
        if (!p->busy || hf_dir_slot(d, owner)) {
            continue; /* forgotten meanwhile */
        }
        if (p->state != HF_DIR_PEER_WANTED && !p->behind) {
            p->busy = 0; /* an advert brought what was missing */
            continue;
        }
        struct pull_slot *s = hf_dir_slot(d, HF_OWNER_NONE);
        s->owner = owner;
        s->held = s->outdated = false;
        d->store->owner[owner].users++;
        d->n_pulling++;
        d->count.pulls_started++;
        struct hf_dir_act *a = hf_dir_act(out, HF_DIR_ACT_PULL, owner);
        a->to = d->store->owner[owner].endpoint;
        const struct hf_part *have = p->part ? p->part : shelf_find(d, owner);
        a->incarnation = have ? have->key.incarnation : 0;
        a->since = have && !p->full ? have->key.version : 0;
    }
}

/* Peers know a life of ours that our disk does not: begin above it (A-r2). */
static void note_incarnation(struct hf_dir *d, uint64_t reported)
{
    if (d->state != HF_DIR_RUN && d->state != HF_DIR_PERSIST && reported >= d->incarnation) {
        d->incarnation = reported + 1;
    }
}

/* The part that an answer tells, found or made from `from` (NULL: from nothing). */
static int part_of(struct hf_dir *d, uint32_t owner, const struct hf_owner_head *h,
                   const struct hf_part *from, struct hf_changes changes, struct hf_part **ret_part)
{
    struct hf_part_key key = {
        .owner = owner, .incarnation = h->incarnation, .version = h->version, .hash = h->hash};
    return hf_part_lead(d->store, &key, h->salt, from, changes, ret_part);
}

/* Take an owner's answer in. 0, or why it is refused. */
static int take_answer(struct hf_dir *d, uint32_t owner, const struct hf_pull *a, hf_time now,
                       struct hf_dir_out *out)
{
    struct hf_dir_peer *p = &d->peer[owner];
    const struct hf_part *mine = p->part, *base = mine ? mine : shelf_find(d, owner);
    if (!hf_slice_eq(a->head.owner, hf_dir_store_name(d->store, owner))) {
        d->count.refused_owner++;
        return -HF_EOWNER;
    }
    bool same_life = mine && mine->key.incarnation == a->head.incarnation;
    if (mine && (a->head.incarnation < mine->key.incarnation ||
                 (same_life && a->head.version < mine->key.version))) {
        d->count.refused_stale++;
        return -HF_EREPLAY;
    }
    bool usable = a->full || (base && base->key.incarnation == a->head.incarnation &&
                              a->from <= base->key.version &&
                              memcmp(base->salt, a->head.salt, HF_SALT_LEN) == 0);
    if (!usable) {
        p->full = 1;
        return -HF_EPROTO;
    }
    struct hf_part *part = NULL;
    int rc = part_of(d, owner, &a->head, a->full ? NULL : base, a->changes, &part);
    if (rc) {
        d->count.refused_hash += rc == -HF_EMALF;
        d->count.refused_full += rc == -HF_EFULL;
        d->count.no_memory += rc == -ENOMEM;
        p->full = 1;
        return rc;
    }
    d->count.pulls_full += a->full;
    d->count.pulls_delta += !a->full;
    p->behind = 0;
    p->full = 0;
    p->fails = 0;
    hf_dir_shelf_drop(d, owner);
    hf_dir_peer_alive(d, owner, part, &a->head, now, out);
    return 0;
}

/* A10: what we have stays; ask the same owner again, later each time. */
static void back_off(struct hf_dir *d, uint32_t owner, hf_time now)
{
    struct hf_dir_peer *p = &d->peer[owner];
    d->count.pulls_failed++;
    d->n_fresh -= p->fresh;
    p->fresh = 0;
    uint32_t ms = BACKOFF_MS << p->fails;
    ms = p->fails > 8 || ms > BACKOFF_MS_MAX ? BACKOFF_MS_MAX : ms;
    ms = ms / 2 + (uint32_t)hf_prng_below(&d->prng, ms);
    p->fails = p->fails < 15 ? (p->fails + 1) & 15 : 15;
    p->due_ms = to_ms(now) + ms;
    hf_dir_scan_by(d, now + HF_MS(ms));
}

/* The advert that came during the pull, if it tells more than the answer did. */
static void apply_held(struct hf_dir *d, const struct pull_slot *s, uint32_t owner, hf_time now,
                       struct hf_dir_out *out)
{
    struct hf_dir_peer *p = &d->peer[owner];
    if (s->held && p->part && s->head.incarnation == p->part->key.incarnation &&
        memcmp(s->head.salt, p->part->salt, HF_SALT_LEN) == 0 &&
        s->advert.version > p->part->key.version) {
        if (s->head.counter > p->counter) {
            p->counter = s->head.counter;
        }
        hf_dir_apply_advert(d, owner, &s->advert, now, out);
    }
}

void hf_dir_on_pull(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                    struct hf_dir_out *out)
{
    struct pull_slot *s = in->owner == HF_OWNER_NONE ? NULL : hf_dir_slot(d, in->owner);
    if (!s) {
        return;
    }
    uint32_t owner = s->owner;
    struct hf_dir_peer *p = &d->peer[owner];
    s->owner = HF_OWNER_NONE;
    d->n_pulling--;
    p->busy = 0;
    if (s->outdated && p->state == HF_DIR_PEER_WANTED) {
        hf_dir_pull_queue(d, owner); /* left, and was heard of again: the answer is history */
    } else if (!s->outdated) {
        assert(p->state != HF_DIR_PEER_ABSENT);
        int rc = in->kind == HF_DIR_IN_PULLED ? take_answer(d, owner, in->pull, now, out) : in->rc;
        if (rc) {
            back_off(d, owner, now);
        } else {
            note_incarnation(d, in->pull->your_incarnation);
            apply_held(d, s, owner, now, out);
        }
    }
    d->store->owner[owner].users--;
}

/* ---- the state of the cluster, for a newcomer ---- */

void hf_dir_ask_state(struct hf_dir *d, uint32_t owner, struct hf_dir_out *out)
{
    d->state_asked = true;
    d->state_from = owner;
    struct hf_dir_act *a = hf_dir_act(out, HF_DIR_ACT_PULL_STATE, owner);
    a->to = d->store->owner[owner].endpoint;
    a->parts = d->dump;
}

void hf_dir_on_state_member(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                            struct hf_dir_out *out)
{
    const struct hf_state_member *m = in->member;
    uint32_t owner = d->state_asked ? hf_dir_store_owner(d->store, m->head.owner) : HF_OWNER_NONE;
    if (owner == HF_OWNER_NONE) {
        d->count.refused_full += d->state_asked;
        return;
    }
    if (owner == d->self) {
        note_incarnation(d, m->head.incarnation);
        return;
    }
    struct hf_dir_peer *p = &d->peer[owner];
    if (p->part || m->age_ms >= GONE_PERIODS * m->head.period_ms) {
        return; /* the owner itself told us more, or it is gone */
    }
    if (m->head.endpoint.family != HF_AF_NONE && p->state == HF_DIR_PEER_ABSENT) {
        d->store->owner[owner].endpoint = m->head.endpoint;
    }
    hf_time heard = now - HF_MS(m->age_ms);
    struct hf_part *part = NULL;
    int rc = m->has_part ? part_of(d, owner, &m->head, NULL, m->changes, &part) : -HF_ENOTFOUND;
    if (rc) {
        d->count.refused_hash += rc == -HF_EMALF;
        hf_dir_peer_want(d, owner, m->head.period_ms, heard, now);
        return;
    }
    hf_dir_peer_alive(d, owner, part, &m->head, heard, out);
}

void hf_dir_on_state_end(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                         struct hf_dir_out *out)
{
    (void)now;
    (void)out;
    if (!d->state_asked) {
        return;
    }
    d->state_asked = false;
    if (in->rc == 0) {
        d->state_done = true;
        d->count.states_pulled++;
        note_incarnation(d, in->your_incarnation);
    }
}
