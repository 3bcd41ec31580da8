/* Our own part: local publishers, leases, versions, and the adverts that tell of it (A1, A7, A-r3).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/name.h"
#include "core/directory/internal.h"

static struct local *local_of(struct hf_list *node)
{
    return HF_CONTAINER_OF(node, struct local, node);
}

static void result(struct hf_dir *d, struct hf_dir_out *out, int rc)
{
    hf_dir_act(out, HF_DIR_ACT_RESULT, d->self)->rc = rc;
}

/* ---- publishers ---- */

static struct hf_slice publisher_key(const uint32_t *id)
{
    return hf_slice(id, sizeof(*id));
}

static struct publisher *publisher_of(struct hf_dir *d, uint32_t id)
{
    struct publisher *p = hf_map_get(&d->publishers, publisher_key(&id));
    if (p || d->publishers.n >= HF_PUBLISHERS_MAX) {
        return p;
    }
    p = hf_alloc(sizeof(*p));
    if (p) {
        p->id = id;
        if (hf_map_put(&d->publishers, publisher_key(&p->id), p)) {
            hf_free(p);
            p = NULL;
        }
    }
    return p;
}

/* May this publisher make one more change now? */
static int allow(struct hf_dir *d, uint32_t id, hf_time now)
{
    struct publisher *p = publisher_of(d, id);
    if (!p) {
        bool full = d->publishers.n >= HF_PUBLISHERS_MAX;
        d->count.refused_full += full;
        d->count.no_memory += !full;
        return full ? -HF_EFULL : -ENOMEM;
    }
    const hf_time each = HF_NS_PER_S / HF_PUBLISH_PER_S;
    hf_time whole_at = (p->whole_at > now ? p->whole_at : now) + each;
    if (whole_at - now > HF_PUBLISH_BURST * each) {
        d->count.refused_rate++;
        return -HF_ERATE;
    }
    p->whole_at = whole_at;
    return 0;
}

/* ---- changes of our part ---- */

static void advert_soon(struct hf_dir *d, hf_time now)
{
    if (d->state == HF_DIR_RUN && d->advert_at == HF_NEVER) {
        hf_time earliest = d->sent_at + ADVERT_GAP;
        d->advert_at = earliest > now ? earliest : now;
    }
}

static void local_free(struct hf_dir *d, struct local *l)
{
    hf_map_remove(&d->locals, hf_entry_name(l->entry));
    hf_list_unlink(&l->node);
    hf_entry_unref(l->entry);
    hf_free(l);
}

/* Withdrawn names are remembered for deltas, but not without bound. */
static void trim_removed(struct hf_dir *d)
{
    HF_LIST_FOREACH (node, &d->changes) {
        if (d->n_removed <= HF_HISTORY_MAX) {
            return;
        }
        struct local *l = local_of(node);
        if (l->removed) {
            d->floor = l->version;
            d->n_removed--;
            local_free(d, l);
        }
    }
}

/*
 * Before another change: do those not told yet still fit one advert with it? A burst is told as it
 * goes, so that who loses nothing need not pull.
 */
static void tell_burst(struct hf_dir *d, const struct local *l, hf_time now, struct hf_dir_out *out)
{
    size_t size = HF_CHANGE_OVERHEAD + (size_t)l->entry->name_len + l->entry->value_len;
    if (d->unsent + size > HF_ADVERT_BODY_MAX - ADVERT_HEAD_MAX && d->unsent > 0 &&
        d->state == HF_DIR_RUN && out->body_len == 0) {
        hf_dir_own_advert(d, 0, now, out);
    }
    d->unsent += size;
}

/* Make `next` (unsealed, taken) our part, as the version in which `l` changed. */
static void advance_own(struct hf_dir *d, struct hf_part *next, struct local *l, hf_time now,
                        struct hf_dir_out *out)
{
    tell_burst(d, l, now, out);
    struct hf_part *before = d->own;
    d->own = hf_part_seal(next, before->key.version + 1, d->store);
    l->version = d->own->key.version;
    hf_list_unlink(&l->node);
    hf_list_insert(&d->changes, &l->node);
    if (d->state == HF_DIR_RUN) {
        hf_dir_act_part(out, d->self, before, d->own);
    }
    hf_part_unref(before);
    d->count.published++;
    advert_soon(d, now);
}

static int withdraw(struct hf_dir *d, struct local *l, hf_time now, struct hf_dir_out *out)
{
    struct hf_part *next = hf_part_fork(d->own);
    int rc = next ? hf_part_remove(next, hf_entry_name(l->entry)) : -ENOMEM;
    if (rc) {
        assert(rc == -ENOMEM);
        d->count.no_memory++;
        hf_part_unref(next);
        return rc;
    }
    struct publisher *p = hf_map_get(&d->publishers, publisher_key(&l->publisher));
    if (p) {
        p->n_held--;
    }
    l->removed = true;
    l->publisher = 0;
    l->expires = HF_NEVER;
    d->n_removed++;
    advance_own(d, next, l, now, out);
    return 0;
}

/* A record of the name, new or that of an earlier life. */
static struct local *local_for(struct hf_dir *d, struct hf_entry *e)
{
    struct local *l = hf_map_get(&d->locals, hf_entry_name(e));
    if (l) {
        return l;
    }
    l = hf_alloc(sizeof(*l));
    if (l) {
        hf_list_init(&l->node);
        l->entry = hf_entry_ref(e);
        l->removed = true;
        d->n_removed++;
        if (hf_map_put(&d->locals, hf_entry_name(l->entry), l)) {
            d->n_removed--;
            hf_entry_unref(l->entry);
            hf_free(l);
            l = NULL;
        }
    }
    return l;
}

/* Store e (the value changed) under its name for the publisher. */
static int store(struct hf_dir *d, struct hf_entry *e, hf_time now, struct hf_dir_out *out,
                 struct local **ret_local)
{
    struct local *l = local_for(d, e);
    struct hf_part *next = l ? hf_part_fork(d->own) : NULL;
    int rc = next ? hf_part_put(next, e) : -ENOMEM;
    if (rc == 0 && l->entry != e) { /* the map's key moves to the new entry's bytes */
        rc = hf_map_put(&d->locals, hf_entry_name(e), l);
    }
    if (rc) {
        hf_part_unref(next);
        if (l && l->version == 0) { /* made just now */
            d->n_removed--;
            local_free(d, l);
        }
        return rc;
    }
    if (l->entry != e) {
        hf_entry_unref(l->entry);
        l->entry = hf_entry_ref(e);
    }
    d->n_removed -= l->removed;
    l->removed = false;
    advance_own(d, next, l, now, out);
    *ret_local = l;
    return 0;
}

static int check_publish(struct hf_dir *d, const struct hf_dir_in *in, hf_time now)
{
    int rc = allow(d, in->publisher, now);
    if (rc == 0 && !hf_service_name_ok(in->name)) {
        rc = -HF_ENAME;
    }
    if (rc == 0 && (in->value.n > HF_VALUE_LEN_MAX || !hf_json_object_ok(in->value))) {
        rc = -HF_EVALUE;
    }
    const struct local *l = rc ? NULL : hf_map_get(&d->locals, in->name);
    if (l && l->publisher != 0 && l->publisher != in->publisher) {
        rc = -HF_EHELD;
    }
    if (rc == -HF_ENAME || rc == -HF_EVALUE || rc == -HF_EHELD) {
        d->count.refused_publish++;
    }
    return rc;
}

static void hold_local(struct hf_dir *d, struct local *l, const struct hf_dir_in *in, hf_time now)
{
    struct publisher *p = hf_map_get(&d->publishers, publisher_key(&in->publisher));
    bool held = in->lease_ms == 0;
    if (p) {
        p->n_held += held && l->publisher != in->publisher;
        p->n_held -= !held && l->publisher == in->publisher;
    }
    l->publisher = held ? in->publisher : 0;
    l->expires = held ? HF_NEVER : now + HF_MS(in->lease_ms);
    d->lease_at = hf_time_min(d->lease_at, l->expires);
}

void hf_dir_own_publish(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                        struct hf_dir_out *out)
{
    int rc = check_publish(d, in, now);
    struct local *l = rc ? NULL : hf_map_get(&d->locals, in->name);
    if (rc == 0 && (!l || l->removed || !hf_slice_eq(hf_entry_value(l->entry), in->value))) {
        struct hf_entry *e = hf_entry_create(in->name, in->value);
        rc = e ? store(d, e, now, out, &l) : -ENOMEM;
        hf_entry_unref(e);
        d->count.refused_full += rc == -HF_EFULL;
        d->count.no_memory += rc == -ENOMEM;
    }
    if (rc == 0) {
        hold_local(d, l, in, now);
    }
    result(d, out, rc);
}

void hf_dir_own_withdraw(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                         struct hf_dir_out *out)
{
    int rc = allow(d, in->publisher, now);
    struct local *l = rc ? NULL : hf_map_get(&d->locals, in->name);
    if (rc == 0 && (!l || l->removed)) {
        rc = -HF_ENOTFOUND;
    } else if (rc == 0 && l->publisher != 0 && l->publisher != in->publisher) {
        rc = -HF_EHELD;
        d->count.refused_publish++;
    }
    result(d, out, rc ? rc : withdraw(d, l, now, out));
    trim_removed(d);
}

/*
 * Withdraw all for which `which` holds, as far as one step's acts go. Returns whether some are
 * left, for the next turn of the timer.
 */
static bool withdraw_all(struct hf_dir *d, bool (*which)(const struct local *, hf_time, uint32_t),
                         hf_time at, uint32_t publisher, hf_time now, struct hf_dir_out *out)
{
    struct hf_list *node = d->changes.next, *end = d->changes.prev;
    bool last = hf_list_empty(&d->changes), more = false;
    while (!last && !more) {
        struct local *l = local_of(node);
        last = node == end; /* what is withdrawn moves behind the end */
        node = node->next;
        if (!l->removed && which(l, at, publisher)) {
            more = out->n > HF_DIR_ACTS_MAX - HF_PULLS_MAX - 8 || withdraw(d, l, now, out);
        }
    }
    trim_removed(d); /* not before: it frees records that the walk may stand on */
    return more;
}

static bool is_expired(const struct local *l, hf_time at, uint32_t publisher)
{
    (void)publisher;
    return l->expires <= at;
}

static bool is_held_by(const struct local *l, hf_time at, uint32_t publisher)
{
    (void)at;
    return l->publisher == publisher;
}

void hf_dir_own_leases(struct hf_dir *d, hf_time now, struct hf_dir_out *out)
{
    uint64_t before = d->count.published;
    bool more = withdraw_all(d, is_expired, now, 0, now, out);
    d->count.leases_expired += d->count.published - before;
    d->lease_at = more ? now + HF_MS(1) : HF_NEVER;
    HF_LIST_FOREACH (node, &d->changes) {
        d->lease_at = more ? d->lease_at : hf_time_min(d->lease_at, local_of(node)->expires);
    }
}

/* Its entries become leases that have run out: the timer withdraws what this step can't. */
void hf_dir_own_gone(struct hf_dir *d, uint32_t publisher, hf_time now, struct hf_dir_out *out)
{
    struct publisher *p = hf_map_remove(&d->publishers, publisher_key(&publisher));
    bool holds = p && p->n_held > 0;
    hf_free(p);
    if (!holds || publisher == 0) {
        return;
    }
    if (withdraw_all(d, is_held_by, now, publisher, now, out)) {
        HF_LIST_FOREACH (node, &d->changes) {
            struct local *l = local_of(node);
            if (l->publisher == publisher) {
                l->publisher = 0;
                l->expires = now;
            }
        }
        d->lease_at = now;
    }
}

bool hf_dir_local_info(const struct hf_dir *d, struct hf_slice name,
                       struct hf_dir_local_info *ret_info)
{
    const struct local *l = hf_map_get(&d->locals, name);
    if (!l || l->removed) {
        return false;
    }
    *ret_info = (struct hf_dir_local_info){.publisher = l->publisher, .expires = l->expires};
    return true;
}

/* ---- telling ---- */

/* The incarnation is on disk and its sealer made: the part as others will know it. */
int hf_dir_own_begin(struct hf_dir *d, const uint8_t salt[HF_SALT_LEN])
{
    struct hf_part *p = hf_part_fork(d->own);
    if (!p) {
        return -ENOMEM;
    }
    memcpy(d->salt, salt, HF_SALT_LEN);
    memcpy(p->salt, salt, HF_SALT_LEN);
    p->key.incarnation = d->incarnation;
    uint64_t version = d->own->key.version;
    hf_part_unref(d->own);
    d->own = hf_part_seal(p, version, d->store);
    return 0;
}

/*
 * An advert of our part as it stands, with the latest changes again, newest first, as far as they
 * fit and were not repeated by REPEAT_HEARTBEATS heartbeats already (A-r3).
 */
void hf_dir_own_advert(struct hf_dir *d, uint8_t flags, hf_time now, struct hf_dir_out *out)
{
    uint32_t period_ms = hf_dir_period_ms(d);
    uint64_t repeated = d->beat_version[d->beat % REPEAT_HEARTBEATS];
    uint64_t low = repeated > d->floor ? repeated : d->floor;
    struct hf_advert a = {.flags = flags,
                          .period_ms = period_ms,
                          .version = d->own->key.version,
                          .hash = d->own->key.hash,
                          .endpoint = d->endpoint};
    struct hf_wr w;
    size_t mark;
    uint16_t n = 0;
    hf_wr_init(&w, out->body, sizeof(out->body));
    hf_advert_encode(&w, &a, &mark);
    for (struct hf_list *node = d->changes.prev; node != &d->changes; node = node->prev) {
        const struct local *l = local_of(node);
        if (l->version <= low) {
            break;
        }
        size_t undo = hf_wr_len(&w);
        hf_change_encode(&w, &(struct hf_change){.removed = l->removed,
                                                 .name = hf_entry_name(l->entry),
                                                 .value = hf_entry_value(l->entry)});
        if (w.err) {
            hf_wr_back(&w, undo);
            low = l->version;
            break;
        }
        n++;
    }
    hf_advert_encode_end(&w, mark, low, n);
    assert(!w.err);
    out->body_len = hf_wr_len(&w);
    hf_dir_act(out, HF_DIR_ACT_MULTICAST, d->self);
    d->count.adverts_sent++;
    if (now >= d->heartbeat_at || d->heartbeat_at == HF_NEVER) {
        d->beat_version[d->beat++ % REPEAT_HEARTBEATS] = a.version;
        /* never later than promised: the jitter only shortens */
        uint64_t jitter = hf_prng_below(&d->prng, (uint64_t)HF_MS(period_ms) / 16);
        d->heartbeat_at = now + HF_MS(period_ms) - (hf_time)jitter;
    }
    d->sent_at = now;
    d->advert_at = HF_NEVER;
    d->unsent = 0;
}

/* What changed since `since`, ascending by name; NULL with *ret_n = 0 when there is nothing. */
static int collect(const struct hf_dir *d, uint64_t since, const struct local ***ret_list,
                   uint32_t *ret_n)
{
    uint32_t n = 0;
    for (struct hf_list *node = d->changes.prev;
         node != &d->changes && local_of(node)->version > since; node = node->prev) {
        n++;
    }
    const struct local **list = hf_alloc_array(n + 1, sizeof(*list));
    if (!list) {
        return -ENOMEM;
    }
    n = 0;
    for (struct hf_list *node = d->changes.prev;
         node != &d->changes && local_of(node)->version > since; node = node->prev) {
        list[n++] = local_of(node);
    }
    *ret_list = list;
    *ret_n = n;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct local *const *la = a, *const *lb = b;
    return hf_slice_cmp(hf_entry_name((*la)->entry), hf_entry_name((*lb)->entry));
}

static struct hf_owner_head own_head(const struct hf_dir *d, uint64_t counter)
{
    struct hf_owner_head h = {.owner = hf_dir_store_name(d->store, d->self),
                              .incarnation = d->incarnation,
                              .counter = counter,
                              .version = d->own->key.version,
                              .hash = d->own->key.hash,
                              .period_ms = hf_dir_period_ms(d),
                              .endpoint = d->endpoint};
    memcpy(h.salt, d->salt, HF_SALT_LEN);
    return h;
}

/* A writer on room for n bytes at buf's end; hf_buf_commit() what was written. */
static int wr_on(struct hf_buf *buf, size_t n, struct hf_wr *w)
{
    uint8_t *p = hf_buf_reserve(buf, n);
    if (!p) {
        return buf->err;
    }
    hf_wr_init(w, p, n);
    return 0;
}

static void encode_part(struct hf_wr *w, const struct hf_part *p)
{
    struct hf_part_pos pos = {0};
    const struct hf_entry *e;
    while ((e = hf_part_next(p, &pos))) {
        hf_change_encode(w,
                         &(struct hf_change){.name = hf_entry_name(e), .value = hf_entry_value(e)});
    }
}

static uint64_t known_incarnation(const struct hf_dir *d, struct hf_slice host)
{
    uint32_t id = hf_dir_store_find_owner(d->store, host);
    return id != HF_OWNER_NONE && d->peer[id].part ? d->peer[id].part->key.incarnation : 0;
}

static int encode_delta(const struct hf_dir *d, struct hf_pull *pull, uint64_t since,
                        struct hf_buf *buf)
{
    const struct local **list;
    uint32_t n;
    int rc = collect(d, since, &list, &n);
    if (rc) {
        return rc;
    }
    qsort(list, n, sizeof(*list), by_name);
    size_t room = HF_PULL_HEAD_MAX;
    for (uint32_t i = 0; i < n; i++) {
        room += HF_CHANGE_OVERHEAD + hf_entry_name(list[i]->entry).n + list[i]->entry->value_len;
    }
    struct hf_wr w;
    rc = wr_on(buf, room, &w);
    if (rc == 0) {
        pull->from = since;
        hf_pull_encode(&w, pull, n);
        for (uint32_t i = 0; i < n; i++) {
            hf_change_encode(&w, &(struct hf_change){.removed = list[i]->removed,
                                                     .name = hf_entry_name(list[i]->entry),
                                                     .value = hf_entry_value(list[i]->entry)});
        }
        hf_buf_commit(buf, hf_wr_len(&w));
    }
    hf_free(list);
    return rc;
}

int hf_dir_encode_pull(struct hf_dir *d, struct hf_slice requester, uint64_t incarnation,
                       uint64_t since, uint64_t counter, struct hf_buf *buf)
{
    if (d->state != HF_DIR_RUN) {
        return -HF_ENOTREADY;
    }
    struct hf_pull pull = {.head = own_head(d, counter),
                           .your_incarnation = known_incarnation(d, requester)};
    d->count.pulls_served++;
    if (incarnation == d->incarnation && since > 0 && since >= d->floor &&
        since <= d->own->key.version && d->own->key.version - since <= HF_HISTORY_MAX) {
        return encode_delta(d, &pull, since, buf);
    }
    struct hf_wr w;
    int rc = wr_on(
        buf, HF_PULL_HEAD_MAX + d->own->bytes + (size_t)d->own->n_entries * HF_CHANGE_OVERHEAD, &w);
    if (rc == 0) {
        pull.full = true;
        hf_pull_encode(&w, &pull, d->own->n_entries);
        encode_part(&w, d->own);
        hf_buf_commit(buf, hf_wr_len(&w));
    }
    return rc;
}

static int encode_member(const struct hf_dir *d, uint32_t owner, bool parts, hf_time now,
                         struct hf_buf *buf)
{
    const struct hf_dir_peer *p = &d->peer[owner];
    size_t part_room = p->part->bytes + (size_t)p->part->n_entries * HF_CHANGE_OVERHEAD;
    bool has_part = parts && buf->n + part_room + HF_PULL_HEAD_MAX < HF_STATE_BODY_MAX;
    struct hf_state_member m = {.head = {.owner = hf_dir_store_name(d->store, owner),
                                         .incarnation = p->part->key.incarnation,
                                         .counter = p->counter,
                                         .version = p->part->key.version,
                                         .hash = p->part->key.hash,
                                         .period_ms = (uint32_t)p->period_cs * 10,
                                         .endpoint = d->store->owner[owner].endpoint},
                                .age_ms = ms_since(p->heard_ms, to_ms(now)),
                                .has_part = has_part};
    memcpy(m.head.salt, p->part->salt, HF_SALT_LEN);
    struct hf_wr w;
    int rc = wr_on(buf, HF_PULL_HEAD_MAX + (has_part ? part_room : 0), &w);
    if (rc == 0) {
        hf_state_member_encode(&w, &m, p->part->n_entries);
        if (has_part) {
            encode_part(&w, p->part);
        }
        hf_buf_commit(buf, hf_wr_len(&w));
    }
    return rc;
}

int hf_dir_encode_state(struct hf_dir *d, struct hf_slice requester, bool parts, hf_time now,
                        struct hf_buf *buf)
{
    if (d->state != HF_DIR_RUN) {
        return -HF_ENOTREADY;
    }
    d->count.states_served++;
    uint32_t n = 0, skip = hf_dir_store_find_owner(d->store, requester);
    for (uint32_t id = 0; id < d->store->n_owners; id++) {
        n += d->peer[id].part && id != skip;
    }
    struct hf_state s = {.from = hf_dir_store_name(d->store, d->self),
                         .your_incarnation = known_incarnation(d, requester),
                         .n_members = n};
    struct hf_wr w;
    int rc = wr_on(buf, HF_PULL_HEAD_MAX, &w);
    if (rc == 0) {
        hf_state_encode(&w, &s);
        hf_buf_commit(buf, hf_wr_len(&w));
    }
    for (uint32_t id = 0; rc == 0 && id < d->store->n_owners; id++) {
        if (d->peer[id].part && id != skip) {
            rc = encode_member(d, id, parts, now, buf);
        }
    }
    return rc;
}

void hf_dir_own_fini(struct hf_dir *d)
{
    HF_LIST_FOREACH (node, &d->changes) {
        local_free(d, local_of(node));
    }
    size_t pos = 0;
    for (struct publisher *p; (p = hf_map_next(&d->publishers, &pos));) {
        hf_free(p);
    }
    hf_map_fini(&d->locals);
    hf_map_fini(&d->publishers);
    hf_part_unref(d->own);
}
