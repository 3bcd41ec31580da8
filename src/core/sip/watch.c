/* Subscriptions: their states, their numbers, and whose NOTIFY is due. */
#include "core/sip/watch.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/names.h"
#include "base/rd.h"

#define BLOCK 128u /* numbers reserved at a time (S2) */
#define AHEAD 32u  /* the next block is asked for when so many are left */
#define DUMP_VERSION 1
#define RETRY_MAX 300u /* seconds of a Retry-After that are believed */
#define UNSENT_MAX 16u /* times in a row, that far apart: as long as a transaction */
#define UNSENT_AGAIN HF_S(2)
#define STORE_AGAIN_S 10 /* what could not be stored is tried again after so long */
#define STATE_UNSHOWN HF_SIP_SUB_STATE_COUNT_ /* as stored: it ended without ever being ACTIVE */

enum { N_TEXTS = 8 }; /* of a dialog, beside its target */

/* In which queue it stands. */
enum queue { QUEUE_NONE, QUEUE_URGENT, QUEUE_PACED, N_QUEUES };

struct aor {
    struct hf_list subs;
    uint32_t n_subs;
    uint32_t n_refs; /* of them, and of those that are to be erased */
    uint16_t n;
    uint8_t text[];
};

struct sub {
    struct hf_list in_aor; /* of its AoR */
    struct hf_list queue;  /* waits for its turn */
    struct hf_list store;  /* STORE is to be said */
    struct aor *aor;
    uint32_t number;
    uint32_t heap; /* its place, + 1 */
    hf_time wake, expires, allowed;
    hf_time store_again;                /* HF_NEVER: it is stored, or about to be */
    uint32_t cseq;                      /* used last */
    uint32_t reserved, storing, stored; /* asked for, on its way, and there: may be used */
    uint32_t remote_cseq, granted_s;
    uint8_t package, state, reason, in;
    uint8_t unsent;  /* how many times in a row its NOTIFY could not be sent */
    bool dirty;      /* there is something to tell */
    bool urgent;     /* ... and somebody waits for it */
    bool under_way;  /* a NOTIFY is not answered yet */
    bool kept;       /* something of it is stored, or about to be */
    bool shown;      /* it is, or was, ACTIVE */
    bool in_stead;   /* ended for a server that is dead */
    uint8_t *target; /* owned; a SUBSCRIBE may change it (RFC 3261 12.2.2) */
    uint16_t n_target;
    uint16_t n[N_TEXTS]; /* lengths */
    uint8_t text[];      /* each with a NUL after it, so that none begins where another ends */
};

struct hf_sip_watch {
    struct hf_sip_watch_conf conf;
    struct hf_map by_dialog, by_aor;
    struct sub **slot; /* owned; by number & mask */
    uint32_t n_slots, n_subs, last_number;
    struct sub **heap; /* by wake */
    uint32_t n_heap, heap_room;
    struct hf_list queue[N_QUEUES];
    struct hf_list to_store, to_erase; /* to_erase: subs, by their in_aor */
    struct sub *told_last;             /* erased, and told: to be freed */
    uint64_t allowance;                /* 1/1000 NOTIFYs */
    hf_time refilled;
    struct hf_sip_watch_counters count;
};

/* ---- names ---- */

HF_NAMES(hf_sip_package_name, enum hf_sip_package, HF_SIP_PACKAGE_LIST)

enum hf_sip_package hf_sip_package_of(struct hf_slice name)
{
    int p = 0;
    while (p < HF_SIP_PACKAGE_COUNT_ &&
           !hf_slice_eq(name, hf_slice_str(hf_sip_package_name((enum hf_sip_package)p)))) {
        p++;
    }
    return (enum hf_sip_package)p;
}

static uint32_t default_expires(enum hf_sip_package p)
{
    static const uint32_t s[] = {
#define EXPIRES(id, name, expires_s) expires_s,
        HF_SIP_PACKAGE_LIST(EXPIRES)
#undef EXPIRES
    };
    return s[p];
}

HF_NAMES(hf_sip_sub_state_name, enum hf_sip_sub_state, HF_SIP_SUB_STATE_LIST)
HF_NAMES(hf_sip_sub_reason_name, enum hf_sip_sub_reason, HF_SIP_SUB_REASON_LIST)
HF_NAMES(hf_sip_watch_out_name, enum hf_sip_watch_out_kind, HF_SIP_WATCH_OUT_LIST)

/* ---- its texts ---- */

/* The dialog's slices in the order in which they are kept. */
static void slices(const struct hf_sip_dialog *d, struct hf_slice ret[N_TEXTS])
{
    const struct hf_slice s[N_TEXTS] = {d->call_id,   d->local_tag,  d->remote_tag, d->event_id,
                                        d->local_uri, d->remote_uri, d->route,      d->watcher};
    memcpy(ret, s, sizeof(s));
}

static struct hf_sip_dialog dialog_of(const struct sub *s)
{
    struct hf_slice t[N_TEXTS];
    const uint8_t *p = s->text;
    for (unsigned i = 0; i < N_TEXTS; i++) {
        t[i] = hf_slice(p, s->n[i]);
        p += s->n[i] + 1;
    }
    return (struct hf_sip_dialog){.call_id = t[0],
                                  .local_tag = t[1],
                                  .remote_tag = t[2],
                                  .event_id = t[3],
                                  .local_uri = t[4],
                                  .remote_uri = t[5],
                                  .route = t[6],
                                  .watcher = t[7],
                                  .target = hf_slice(s->target, s->n_target)};
}

/* What a subscription is known by: Call-ID, both tags, and the id of its Event (RFC 6665 4.5.2). */
static struct hf_slice key_of(const struct sub *s)
{
    return hf_slice(s->text, (size_t)s->n[0] + s->n[1] + s->n[2] + s->n[3] + 4);
}

static bool set_target(struct sub *s, struct hf_slice target)
{
    uint8_t *p = target.n <= UINT16_MAX ? hf_alloc(target.n + 1) : NULL;
    if (p == NULL) {
        return false;
    }
    if (target.n > 0) {
        memcpy(p, target.p, target.n);
    }
    hf_free(s->target);
    s->target = p;
    s->n_target = (uint16_t)target.n;
    return true;
}

static void sub_free(struct sub *s)
{
    if (s != NULL) {
        hf_free(s->target);
        hf_free(s);
    }
}

/* One that was in an AoR's list: the last one takes that with it. */
static void sub_drop(struct sub *s)
{
    if (s != NULL) {
        if (--s->aor->n_refs == 0) {
            hf_free(s->aor);
        }
        sub_free(s);
    }
}

/* ---- the heap of times ---- */

static void heap_set(struct hf_sip_watch *w, uint32_t i, struct sub *s)
{
    w->heap[i] = s;
    s->heap = i + 1;
}

static void heap_up(struct hf_sip_watch *w, uint32_t i)
{
    struct sub *s = w->heap[i];
    for (; i > 0 && w->heap[(i - 1) / 2]->wake > s->wake; i = (i - 1) / 2) {
        heap_set(w, i, w->heap[(i - 1) / 2]);
    }
    heap_set(w, i, s);
}

static void heap_down(struct hf_sip_watch *w, uint32_t i)
{
    struct sub *s = w->heap[i];
    for (;;) {
        uint32_t k = 2 * i + 1;
        if (k + 1 < w->n_heap && w->heap[k + 1]->wake < w->heap[k]->wake) {
            k++;
        }
        if (k >= w->n_heap || w->heap[k]->wake >= s->wake) {
            break;
        }
        heap_set(w, i, w->heap[k]);
        i = k;
    }
    heap_set(w, i, s);
}

static void wake_at(struct hf_sip_watch *w, struct sub *s, hf_time t)
{
    s->wake = t;
    heap_up(w, s->heap - 1);
    heap_down(w, s->heap - 1);
}

static void heap_remove(struct hf_sip_watch *w, struct sub *s)
{
    uint32_t i = s->heap - 1;
    struct sub *last = w->heap[--w->n_heap];
    s->heap = 0;
    if (last != s) {
        heap_set(w, i, last);
        heap_up(w, i);
        heap_down(w, last->heap - 1);
    }
}

/* ---- which are there ---- */

static struct sub *sub_of(const struct hf_sip_watch *w, uint32_t number)
{
    struct sub *s = w->n_slots > 0 ? w->slot[number & (w->n_slots - 1)] : NULL;
    return s != NULL && s->number == number ? s : NULL;
}

/* Slots by number, at most half full, so that a free number is found soon. */
static bool slots_grow(struct hf_sip_watch *w)
{
    if ((w->n_subs + 1) * 2 <= w->n_slots) {
        return true;
    }
    uint32_t n = w->n_slots == 0 ? 64 : w->n_slots * 2;
    struct sub **slot = hf_alloc_array(n, sizeof(*slot));
    if (slot == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < w->n_slots; i++) {
        if (w->slot[i] != NULL) {
            slot[w->slot[i]->number & (n - 1)] = w->slot[i];
        }
    }
    hf_free(w->slot);
    w->slot = slot;
    w->n_slots = n;
    return true;
}

static bool heap_grows(struct hf_sip_watch *w)
{
    if (w->n_heap < w->heap_room) {
        return true;
    }
    uint32_t room = w->heap_room == 0 ? 64 : w->heap_room * 2;
    struct sub **heap = hf_realloc(w->heap, room * sizeof(*heap));
    if (heap == NULL) {
        return false;
    }
    w->heap = heap;
    w->heap_room = room;
    return true;
}

static struct aor *aor_for(struct hf_sip_watch *w, struct hf_slice text)
{
    struct aor *a = hf_map_get(&w->by_aor, text);
    if (a != NULL) {
        return a;
    }
    a = hf_alloc(sizeof(*a) + text.n);
    if (a == NULL) {
        return NULL;
    }
    hf_list_init(&a->subs);
    a->n = (uint16_t)text.n;
    memcpy(a->text, text.p, text.n);
    if (hf_map_put(&w->by_aor, hf_slice(a->text, a->n), a) < 0) {
        hf_free(a);
        return NULL;
    }
    return a;
}

/* Nobody watches it any more; those that are to be erased may still have its name. */
static void aor_unlist(struct hf_sip_watch *w, struct aor *a)
{
    if (a->n_subs == 0) {
        hf_map_remove(&w->by_aor, hf_slice(a->text, a->n));
    }
}

static struct sub *sub_alloc(const struct hf_sip_dialog *d)
{
    struct hf_slice t[N_TEXTS];
    size_t n = N_TEXTS;
    slices(d, t);
    for (unsigned i = 0; i < N_TEXTS; i++) {
        if (t[i].n > UINT16_MAX) {
            return NULL;
        }
        n += t[i].n;
    }
    struct sub *s = hf_alloc(sizeof(*s) + n);
    if (s == NULL || !set_target(s, d->target)) {
        sub_free(s);
        return NULL;
    }
    uint8_t *p = s->text;
    for (unsigned i = 0; i < N_TEXTS; i++) {
        s->n[i] = (uint16_t)t[i].n;
        if (t[i].n > 0) {
            memcpy(p, t[i].p, t[i].n);
        }
        p += t[i].n + 1;
    }
    hf_list_init(&s->in_aor);
    hf_list_init(&s->queue);
    hf_list_init(&s->store);
    s->expires = s->wake = s->store_again = HF_NEVER;
    return s;
}

/* A new one of this dialog; NULL: memory is out. */
static struct sub *add(struct hf_sip_watch *w, struct hf_slice aor, const struct hf_sip_dialog *d)
{
    if (!slots_grow(w) || !heap_grows(w)) {
        return NULL;
    }
    struct sub *s = sub_alloc(d);
    struct aor *a = s != NULL ? aor_for(w, aor) : NULL;
    if (a == NULL || hf_map_put(&w->by_dialog, key_of(s), s) < 0) {
        if (a != NULL && a->n_subs == 0) {
            aor_unlist(w, a);
            hf_free(a);
        }
        sub_free(s);
        return NULL;
    }
    do {
        s->number = ++w->last_number;
    } while (s->number == 0 || w->slot[s->number & (w->n_slots - 1)] != NULL);
    w->slot[s->number & (w->n_slots - 1)] = s;
    s->aor = a;
    hf_list_insert(&a->subs, &s->in_aor);
    a->n_subs++;
    a->n_refs++;
    w->n_subs++;
    heap_set(w, w->n_heap, s);
    w->n_heap++;
    heap_up(w, w->n_heap - 1);
    return s;
}

/* It is no more; what is stored of it is to be erased. */
static void forget(struct hf_sip_watch *w, struct sub *s)
{
    struct aor *a = s->aor;
    hf_map_remove(&w->by_dialog, key_of(s));
    w->slot[s->number & (w->n_slots - 1)] = NULL;
    heap_remove(w, s);
    hf_list_unlink(&s->queue);
    hf_list_unlink(&s->store);
    hf_list_unlink(&s->in_aor);
    w->n_subs--;
    a->n_subs--;
    aor_unlist(w, a);
    if (s->kept) {
        hf_list_insert(&w->to_erase, &s->in_aor);
    } else {
        sub_drop(s);
    }
}

/* ---- what is due ---- */

static void want_store(struct hf_sip_watch *w, struct sub *s)
{
    s->kept = true;
    s->store_again = HF_NEVER;
    hf_list_unlink(&s->store);
    hf_list_insert(&w->to_store, &s->store);
}

static bool may_notify(const struct sub *s)
{
    return s->dirty && !s->under_way && s->cseq < s->stored;
}

/* Put it where it belongs: into a queue, or to sleep. */
static void arrange(struct hf_sip_watch *w, struct sub *s, hf_time now)
{
    enum queue q = QUEUE_NONE;
    hf_time t = s->state == HF_SIP_SUB_ENDING ? HF_NEVER : hf_time_min(s->expires, s->store_again);
    if (may_notify(s)) {
        if (s->urgent || now >= s->allowed) {
            q = s->urgent ? QUEUE_URGENT : QUEUE_PACED;
        } else {
            t = hf_time_min(t, s->allowed);
        }
    }
    if (q != s->in) {
        hf_list_unlink(&s->queue);
        if (q != QUEUE_NONE) {
            hf_list_insert(&w->queue[q], &s->queue);
        }
        s->in = (uint8_t)q;
    }
    wake_at(w, s, t);
}

static void tell(struct hf_sip_watch *w, struct sub *s, bool urgent, hf_time now)
{
    w->count.merged += s->dirty && !urgent;
    s->dirty = true;
    s->urgent |= urgent;
    arrange(w, s, now);
}

static void enter_state(struct hf_sip_watch *w, struct sub *s, enum hf_sip_sub_state to,
                        enum hf_sip_sub_reason reason, bool urgent, hf_time now)
{
    /* PENDING -> ACTIVE, ENDING; ACTIVE -> ENDING */
    assert(s->state < to);
    s->state = (uint8_t)to;
    s->shown |= to == HF_SIP_SUB_ACTIVE;
    s->reason = (uint8_t)reason;
    if (to == HF_SIP_SUB_ENDING) {
        s->allowed = now; /* the last word waits for no interval */
    }
    tell(w, s, urgent, now);
}

static void end(struct hf_sip_watch *w, struct sub *s, enum hf_sip_sub_reason reason, bool urgent,
                hf_time now)
{
    if (s->state != HF_SIP_SUB_ENDING) {
        w->count.deactivated += reason == HF_SIP_SUB_REASON_DEACTIVATED;
        w->count.expired += reason == HF_SIP_SUB_REASON_TIMEOUT && !urgent;
        enter_state(w, s, HF_SIP_SUB_ENDING, reason, urgent, now);
    }
}

/* ---- what happens ---- */

static void refuse(struct hf_sip_watch *w, struct hf_sip_subscribed *ret, unsigned status)
{
    w->count.refused++;
    *ret = (struct hf_sip_subscribed){.status = status};
}

/* The subscription of this dialog, or NULL; false: no memory to look. */
static bool find(const struct hf_sip_watch *w, const struct hf_sip_dialog *d, struct sub **ret_sub)
{
    struct sub *key = sub_alloc(d);
    if (key != NULL) {
        *ret_sub = hf_map_get(&w->by_dialog, key_of(key));
        sub_free(key);
    }
    return key != NULL;
}

static uint32_t granted(const struct hf_sip_watch *w, const struct hf_sip_subscribe *in)
{
    uint32_t e = in->has_expires ? in->expires_s : default_expires(in->package);
    return e < w->conf.expires_max_s ? e : w->conf.expires_max_s;
}

static void accept(struct hf_sip_watch *w, struct sub *s, const struct hf_sip_subscribe *in,
                   hf_time now, struct hf_sip_subscribed *ret)
{
    s->remote_cseq = in->cseq;
    s->granted_s = granted(w, in);
    s->expires = now + HF_S(s->granted_s);
    *ret = (struct hf_sip_subscribed){.status = 200, .expires_s = s->granted_s, .sub = s->number};
    if (s->granted_s == 0) { /* RFC 6665 4.4.3: a fetch, or the end */
        end(w, s, HF_SIP_SUB_REASON_TIMEOUT, true, now);
    } else {
        ret->stores = true;
        want_store(w, s);
        tell(w, s, true, now); /* 4.2.1.2: each SUBSCRIBE is followed by a NOTIFY */
    }
}

static void refresh(struct hf_sip_watch *w, const struct hf_sip_subscribe *in, hf_time now,
                    struct hf_sip_subscribed *ret)
{
    struct sub *s;
    if (!find(w, &in->dialog, &s)) {
        refuse(w, ret, 503);
    } else if (s == NULL || s->package != in->package) {
        refuse(w, ret, 481);
    } else if (in->cseq == s->remote_cseq) { /* a retransmission, also of the one that ended it */
        hf_time left = s->expires > now ? s->expires - now : 0;
        *ret = (struct hf_sip_subscribed){
            .status = 200, .expires_s = (uint32_t)(left / HF_NS_PER_S), .sub = s->number};
    } else if (s->state == HF_SIP_SUB_ENDING) {
        refuse(w, ret, 481);
    } else if (in->cseq < s->remote_cseq) {
        refuse(w, ret, 500); /* RFC 3261 12.2.2 */
    } else if (!hf_slice_eq(in->dialog.target, hf_slice(s->target, s->n_target)) &&
               !set_target(s, in->dialog.target)) {
        refuse(w, ret, 503);
    } else {
        w->count.refreshed++;
        accept(w, s, in, now, ret);
    }
}

void hf_sip_watch_subscribe(struct hf_sip_watch *w, const struct hf_sip_subscribe *in, hf_time now,
                            struct hf_sip_subscribed *ret_answer)
{
    if ((unsigned)in->package >= HF_SIP_PACKAGE_COUNT_) {
        refuse(w, ret_answer, 489);
        return;
    }
    uint32_t e = granted(w, in);
    if (e > 0 && e < w->conf.expires_min_s) {
        refuse(w, ret_answer, 423);
        ret_answer->expires_s = w->conf.expires_min_s;
        return;
    }
    if (in->in_dialog) {
        refresh(w, in, now, ret_answer);
        return;
    }
    const struct aor *a = hf_map_get(&w->by_aor, in->aor);
    struct sub *s = NULL, *other;
    bool room = w->n_subs < w->conf.subs_max && (a == NULL || a->n_subs < w->conf.per_aor_max);
    if (room && in->aor.n > 0 && in->aor.n <= HF_SIP_AOR_MAX && find(w, &in->dialog, &other) &&
        other == NULL) {
        s = add(w, in->aor, &in->dialog);
    }
    if (s == NULL) {
        w->count.full++;
        refuse(w, ret_answer, 503);
        return;
    }
    w->count.subscriptions++;
    s->package = (uint8_t)in->package;
    s->state = in->authorised ? HF_SIP_SUB_ACTIVE : HF_SIP_SUB_PENDING;
    s->shown = in->authorised;
    s->reserved = BLOCK;
    if (e == 0) {
        s->stored = BLOCK; /* nothing is kept of a fetch */
    }
    accept(w, s, in, now, ret_answer);
}

void hf_sip_watch_authorise(struct hf_sip_watch *w, uint32_t sub, bool yes, hf_time now)
{
    struct sub *s = sub_of(w, sub);
    if (s == NULL || s->state != HF_SIP_SUB_PENDING) {
        return;
    }
    if (yes) {
        enter_state(w, s, HF_SIP_SUB_ACTIVE, HF_SIP_SUB_REASON_NONE, false, now);
        want_store(w, s);
    } else {
        end(w, s, HF_SIP_SUB_REASON_REJECTED, false, now);
    }
}

void hf_sip_watch_changed(struct hf_sip_watch *w, enum hf_sip_package package, struct hf_slice aor,
                          hf_time now)
{
    struct aor *a = hf_map_get(&w->by_aor, aor);
    if (a == NULL) {
        return;
    }
    HF_LIST_FOREACH (n, &a->subs) {
        struct sub *s = HF_CONTAINER_OF(n, struct sub, in_aor);
        if (s->package == package && s->state == HF_SIP_SUB_ACTIVE) {
            tell(w, s, false, now);
        }
    }
}

static void end_all(struct hf_sip_watch *w, struct hf_slice aor, enum hf_sip_sub_reason reason,
                    hf_time now)
{
    struct aor *a = hf_map_get(&w->by_aor, aor);
    if (a == NULL) {
        return;
    }
    HF_LIST_FOREACH (n, &a->subs) {
        end(w, HF_CONTAINER_OF(n, struct sub, in_aor), reason, false, now);
    }
}

void hf_sip_watch_left(struct hf_sip_watch *w, struct hf_slice aor, hf_time now)
{
    end_all(w, aor, HF_SIP_SUB_REASON_DEACTIVATED, now);
}

void hf_sip_watch_gone(struct hf_sip_watch *w, struct hf_slice aor, hf_time now)
{
    end_all(w, aor, HF_SIP_SUB_REASON_NORESOURCE, now);
}

void hf_sip_watch_answered(struct hf_sip_watch *w, uint32_t sub, uint32_t cseq, unsigned status,
                           uint32_t retry_after, hf_time now)
{
    struct sub *s = sub_of(w, sub);
    if (s == NULL || !s->under_way || cseq != s->cseq || status < 200) {
        return;
    }
    s->under_way = false;
    s->unsent = 0;
    bool again = (status == 503 || status == 500) && retry_after > 0;
    if (again) {
        uint32_t wait = retry_after < RETRY_MAX ? retry_after : RETRY_MAX;
        s->allowed = now + HF_S(wait);
        s->dirty = true;
        s->urgent = false;
        arrange(w, s, now);
    } else if (status >= 300 || (s->state == HF_SIP_SUB_ENDING && !s->dirty)) {
        bool knew = status == 481 && s->in_stead; /* for the watcher it was over */
        w->count.repeated += knew;
        w->count.failed += status >= 300 && !knew;
        forget(w, s);
    } else {
        arrange(w, s, now);
    }
}

void hf_sip_watch_unsent(struct hf_sip_watch *w, uint32_t sub, uint32_t cseq, hf_time now)
{
    struct sub *s = sub_of(w, sub);
    if (s == NULL || !s->under_way || cseq != s->cseq) {
        return;
    }
    if (s->unsent == UNSENT_MAX) {
        hf_sip_watch_answered(w, sub, cseq, 408, 0, now);
        return;
    }
    w->count.unsent++;
    s->unsent++;
    s->under_way = false;
    s->allowed = now + UNSENT_AGAIN;
    s->dirty = true;
    s->urgent = false;
    arrange(w, s, now);
}

void hf_sip_watch_stored(struct hf_sip_watch *w, uint32_t sub, bool ok, hf_time now)
{
    struct sub *s = sub_of(w, sub);
    if (s != NULL) {
        w->count.unstored += !ok;
        s->stored = s->storing;
        if (!ok && s->state != HF_SIP_SUB_ENDING && hf_list_empty(&s->store)) {
            s->store_again = now + HF_S(STORE_AGAIN_S);
        }
        arrange(w, s, now);
    }
}

bool hf_sip_watch_store(struct hf_sip_watch *w, uint32_t sub)
{
    struct sub *s = sub_of(w, sub);
    if (s == NULL || s->state == HF_SIP_SUB_ENDING) {
        return false;
    }
    want_store(w, s);
    return true;
}

void hf_sip_watch_forget(struct hf_sip_watch *w, uint32_t sub)
{
    struct sub *s = sub_of(w, sub);
    if (s != NULL) {
        forget(w, s);
    }
}

/* ---- what is stored ---- */

bool hf_sip_watch_dump(const struct hf_sip_watch *w, uint32_t sub, struct hf_wr *wr)
{
    const struct sub *s = sub_of(w, sub);
    if (s == NULL) {
        return false;
    }
    struct hf_sip_dialog d = dialog_of(s);
    struct hf_slice t[N_TEXTS];
    slices(&d, t);
    hf_wr_u8(wr, DUMP_VERSION);
    hf_wr_u8(wr, s->package);
    hf_wr_u8(wr, s->state == HF_SIP_SUB_ENDING && !s->shown ? STATE_UNSHOWN : s->state);
    hf_wr_u32(wr, s->reserved);
    hf_wr_u32(wr, s->remote_cseq);
    hf_wr_str16(wr, hf_slice(s->aor->text, s->aor->n));
    for (unsigned i = 0; i < N_TEXTS; i++) {
        hf_wr_str16(wr, t[i]);
    }
    hf_wr_str16(wr, d.target);
    return true;
}

struct stored {
    uint8_t package, state;
    uint32_t reserved, remote_cseq;
    struct hf_slice aor;
    struct hf_sip_dialog dialog;
};

static int decode(struct hf_slice dump, struct stored *ret)
{
    struct hf_rd r;
    struct stored x = {.package = 0};
    hf_rd_init(&r, dump);
    uint8_t version = hf_rd_u8(&r);
    x.package = hf_rd_u8(&r);
    x.state = hf_rd_u8(&r);
    x.reserved = hf_rd_u32(&r);
    x.remote_cseq = hf_rd_u32(&r);
    x.aor = hf_rd_str16(&r, HF_SIP_AOR_MAX);
    struct hf_slice *const t[] = {&x.dialog.call_id,  &x.dialog.local_tag, &x.dialog.remote_tag,
                                  &x.dialog.event_id, &x.dialog.local_uri, &x.dialog.remote_uri,
                                  &x.dialog.route,    &x.dialog.watcher,   &x.dialog.target};
    for (unsigned i = 0; i < HF_ARRAY_LEN(t); i++) {
        *t[i] = hf_rd_str16(&r, UINT16_MAX);
    }
    int rc = hf_rd_end(&r);
    if (rc < 0) {
        return rc;
    }
    if (version != DUMP_VERSION) {
        return -HF_EVERSION;
    }
    if (x.package >= HF_SIP_PACKAGE_COUNT_ || x.state > STATE_UNSHOWN || x.reserved > INT32_MAX ||
        x.aor.n == 0 || x.dialog.call_id.n == 0) {
        return -HF_EMALF; /* a CSeq is less than 2^31 (RFC 3261 8.1.1.5) */
    }
    *ret = x;
    return 0;
}

int hf_sip_watch_load(struct hf_sip_watch *w, struct hf_slice dump, hf_time left, bool in_stead,
                      hf_time now)
{
    struct stored x;
    int rc = decode(dump, &x);
    if (rc < 0) {
        w->count.malformed++;
        return rc;
    }
    struct sub *s = NULL;
    if (!find(w, &x.dialog, &s)) {
        return -ENOMEM;
    }
    if (s != NULL) {
        return -EEXIST;
    }
    if (w->n_subs >= w->conf.subs_max) {
        w->count.full++;
        return -HF_EFULL;
    }
    s = add(w, x.aor, &x.dialog);
    if (s == NULL) {
        return -ENOMEM;
    }
    w->count.loaded++;
    s->package = x.package;
    s->state = x.state == HF_SIP_SUB_ACTIVE || x.state == HF_SIP_SUB_ENDING ? HF_SIP_SUB_ACTIVE
                                                                            : HF_SIP_SUB_PENDING;
    s->shown = s->state == HF_SIP_SUB_ACTIVE;
    s->remote_cseq = x.remote_cseq;
    s->cseq = x.reserved; /* whatever of the block was used */
    s->reserved = x.reserved + BLOCK;
    s->stored = x.reserved;
    s->expires = now + (left > 0 ? left : 0);
    want_store(w, s);
    if (in_stead) {
        w->count.in_stead++;
        s->in_stead = true;
        end(w, s, HF_SIP_SUB_REASON_DEACTIVATED, false, now);
    } else if (left <= 0 || x.state >= HF_SIP_SUB_ENDING) {
        end(w, s, HF_SIP_SUB_REASON_TIMEOUT, false, now);
    } else {
        tell(w, s, false, now);
    }
    return 0;
}

/* ---- what is to be done ---- */

static void fill(const struct sub *s, enum hf_sip_watch_out_kind kind, hf_time now,
                 struct hf_sip_watch_out *out)
{
    *out = (struct hf_sip_watch_out){
        .kind = kind,
        .sub = s->number,
        .package = (enum hf_sip_package)s->package,
        .aor = hf_slice(s->aor->text, s->aor->n),
        .dialog = dialog_of(s),
        .state = (enum hf_sip_sub_state)s->state,
        .reason = (enum hf_sip_sub_reason)s->reason,
        .shown = s->shown,
    };
    if (s->expires > now) {
        out->expires_s = (uint32_t)((s->expires - now + HF_NS_PER_S - 1) / HF_NS_PER_S);
    }
}

static void notify(struct hf_sip_watch *w, struct sub *s, hf_time now, struct hf_sip_watch_out *out)
{
    s->cseq++;
    s->dirty = s->urgent = false;
    s->under_way = true;
    s->allowed = now + w->conf.interval;
    if (s->cseq + AHEAD > s->reserved && s->state != HF_SIP_SUB_ENDING) {
        s->reserved += BLOCK;
        want_store(w, s);
    }
    arrange(w, s, now);
    w->count.notified++;
    fill(s, HF_SIP_WATCH_NOTIFY, now, out);
    out->cseq = s->cseq;
    out->version = s->cseq - 1;
    if (s->state == HF_SIP_SUB_ENDING) {
        out->expires_s = 0;
    }
}

/* A tenth of a second's at once, but one at least. */
static uint64_t allowance_max(const struct hf_sip_watch *w)
{
    return w->conf.rate > 10 ? (uint64_t)w->conf.rate * 100 : 1000;
}

static void refill(struct hf_sip_watch *w, hf_time now)
{
    uint64_t max = allowance_max(w);
    uint64_t us = (uint64_t)((now - w->refilled) / 1000);
    uint64_t more = us < 1000000000u ? us * w->conf.rate / 1000 : max;
    if (more > 0) { /* else the time goes on adding up */
        w->allowance = w->allowance + more < max ? w->allowance + more : max;
        w->refilled = now;
    }
}

static void wake_up(struct hf_sip_watch *w, hf_time now)
{
    while (w->n_heap > 0 && w->heap[0]->wake <= now) {
        struct sub *s = w->heap[0];
        if (s->state != HF_SIP_SUB_ENDING && s->expires <= now) {
            end(w, s, HF_SIP_SUB_REASON_TIMEOUT, false, now);
        } else {
            if (s->store_again <= now) {
                want_store(w, s);
            }
            arrange(w, s, now);
        }
    }
}

bool hf_sip_watch_next(struct hf_sip_watch *w, hf_time now, struct hf_sip_watch_out *ret_out)
{
    sub_drop(w->told_last);
    w->told_last = NULL;
    wake_up(w, now);
    if (!hf_list_empty(&w->to_store)) {
        struct sub *s = HF_CONTAINER_OF(w->to_store.next, struct sub, store);
        hf_list_unlink(&s->store);
        s->storing = s->reserved;
        fill(s, HF_SIP_WATCH_STORE, now, ret_out);
        return true;
    }
    if (!hf_list_empty(&w->to_erase)) {
        struct sub *s = HF_CONTAINER_OF(w->to_erase.next, struct sub, in_aor);
        hf_list_unlink(&s->in_aor);
        w->told_last = s;
        fill(s, HF_SIP_WATCH_ERASE, now, ret_out);
        return true;
    }
    if (!hf_list_empty(&w->queue[QUEUE_URGENT])) {
        notify(w, HF_CONTAINER_OF(w->queue[QUEUE_URGENT].next, struct sub, queue), now, ret_out);
        return true;
    }
    if (!hf_list_empty(&w->queue[QUEUE_PACED])) {
        refill(w, now);
        if (w->allowance >= 1000) {
            w->allowance -= 1000;
            notify(w, HF_CONTAINER_OF(w->queue[QUEUE_PACED].next, struct sub, queue), now, ret_out);
            return true;
        }
    }
    return false;
}

hf_time hf_sip_watch_deadline(const struct hf_sip_watch *w)
{
    hf_time t = w->n_heap > 0 ? w->heap[0]->wake : HF_NEVER;
    if (!hf_list_empty(&w->to_store) || !hf_list_empty(&w->to_erase) ||
        !hf_list_empty(&w->queue[QUEUE_URGENT])) {
        return INT64_MIN; /* now */
    }
    if (!hf_list_empty(&w->queue[QUEUE_PACED])) {
        uint64_t lacks = w->allowance < 1000 ? 1000 - w->allowance : 0;
        t = hf_time_min(t, w->refilled + (hf_time)(lacks * 1000000 / w->conf.rate) + 1000);
    }
    return t;
}

bool hf_sip_watch_get(const struct hf_sip_watch *w, uint32_t sub, hf_time now,
                      struct hf_sip_watch_out *ret_sub)
{
    const struct sub *s = sub_of(w, sub);
    if (s != NULL) {
        fill(s, HF_SIP_WATCH_STORE, now, ret_sub);
    }
    return s != NULL;
}

uint32_t hf_sip_watch_find(const struct hf_sip_watch *w, const struct hf_sip_dialog *dialog)
{
    struct sub *s = NULL;
    return find(w, dialog, &s) && s != NULL ? s->number : 0;
}

size_t hf_sip_watch_subs(const struct hf_sip_watch *w, struct hf_slice aor, uint32_t *ret_sub,
                         size_t room)
{
    struct aor *a = hf_map_get(&w->by_aor, aor);
    size_t n = 0;
    if (a == NULL) {
        return 0;
    }
    for (struct hf_list *l = a->subs.next; l != &a->subs && n < room; l = l->next) {
        ret_sub[n++] = HF_CONTAINER_OF(l, struct sub, in_aor)->number;
    }
    return a->n_subs;
}

uint32_t hf_sip_watch_count(const struct hf_sip_watch *w)
{
    return w->n_subs;
}

const struct hf_sip_watch_counters *hf_sip_watch_counters(const struct hf_sip_watch *w)
{
    return &w->count;
}

/* ---- its life ---- */

int hf_sip_watch_create(const struct hf_sip_watch_conf *conf, hf_time now,
                        struct hf_sip_watch **ret_watch)
{
    struct hf_sip_watch *w = hf_alloc(sizeof(*w));
    if (w == NULL) {
        return -ENOMEM;
    }
    struct hf_sip_watch_conf *c = &w->conf;
    *c = *conf;
    c->subs_max = c->subs_max != 0 ? c->subs_max : 1000000;
    c->per_aor_max = c->per_aor_max != 0 ? c->per_aor_max : 256;
    c->expires_min_s = c->expires_min_s != 0 ? c->expires_min_s : 60;
    c->expires_max_s = c->expires_max_s != 0 ? c->expires_max_s : 7200;
    c->rate = c->rate != 0 ? c->rate : 1000;
    c->interval = c->interval != 0 ? c->interval : HF_S(5);
    hf_map_init(&w->by_dialog, c->seed);
    hf_map_init(&w->by_aor, c->seed + 1);
    for (unsigned i = 0; i < N_QUEUES; i++) {
        hf_list_init(&w->queue[i]);
    }
    hf_list_init(&w->to_store);
    hf_list_init(&w->to_erase);
    w->refilled = now;
    w->allowance = allowance_max(w);
    *ret_watch = w;
    return 0;
}

void hf_sip_watch_destroy(struct hf_sip_watch *w)
{
    if (w == NULL) {
        return;
    }
    HF_LIST_FOREACH (n, &w->to_erase) {
        sub_drop(HF_CONTAINER_OF(n, struct sub, in_aor));
    }
    for (uint32_t i = 0; i < w->n_heap; i++) {
        sub_drop(w->heap[i]);
    }
    sub_drop(w->told_last);
    hf_map_fini(&w->by_dialog);
    hf_map_fini(&w->by_aor);
    hf_free(w->slot);
    hf_free(w->heap);
    hf_free(w);
}
