/* Publications: their entity tags, their endings, and what is to be stored of them. */
#include "core/sip/presence.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/prng.h"
#include "base/rd.h"
#include "base/wr.h"
#include "core/sip/pidf.h"

#define WHEEL 4096u /* seconds: more than any publication lasts */
#define KEY_N 16
#define TRANSACTION_MAX 16
#define DATA_VERSION 1
#define DATA_HEAD 9 /* bytes before the document */
#define STORE_AGAIN_S 10

/* All of one AoR; goes when nothing points to it any more. */
struct user {
    struct hf_list pubs;    /* the one published or modified last first */
    struct hf_list changed; /* CHANGED is to be said */
    uint32_t n_pubs;
    uint32_t n_refs; /* of publications, also those to be dropped */
    uint16_t n;
    uint8_t text[];
};

struct pub {
    struct hf_list in_user; /* or in to_drop */
    struct hf_list in_wheel;
    struct hf_list store; /* in to_store, or in again */
    struct user *user;
    hf_time expires, store_at;
    uint32_t number;
    uint32_t count; /* of its entity tags */
    char key[KEY_N];
    uint8_t transaction[TRANSACTION_MAX];
    uint8_t n_transaction;
    uint8_t *data; /* owned; as stored: head and document */
    uint32_t n_data;
};

struct hf_sip_presence {
    struct hf_sip_presence_conf conf;
    struct hf_map by_aor;
    struct hf_prng prng;
    struct hf_list wheel[WHEEL];
    int64_t tick_s; /* all that ended until then is dealt with */
    struct hf_list to_store, to_drop, changed;
    struct hf_list again; /* to be stored once more; the first in time first */
    struct pub *told_drop;
    struct user *told_changed;
    size_t n;
    uint32_t last_number;
    struct hf_sip_presence_counters count;
};

/* ---- users and publications ---- */

static void user_settle(struct hf_sip_presence *p, struct user *u)
{
    if (u->n_pubs == 0 && hf_map_get(&p->by_aor, hf_slice(u->text, u->n)) == u) {
        hf_map_remove(&p->by_aor, hf_slice(u->text, u->n));
    }
    if (u->n_refs == 0 && hf_list_empty(&u->changed) && p->told_changed != u) {
        hf_free(u);
    }
}

static struct user *user_for(struct hf_sip_presence *p, struct hf_slice aor)
{
    struct user *u = hf_map_get(&p->by_aor, aor);
    if (u != NULL) {
        return u;
    }
    u = hf_alloc(sizeof(*u) + aor.n);
    if (u == NULL) {
        return NULL;
    }
    hf_list_init(&u->pubs);
    hf_list_init(&u->changed);
    u->n = (uint16_t)aor.n;
    memcpy(u->text, aor.p, aor.n);
    if (hf_map_put(&p->by_aor, hf_slice(u->text, u->n), u) < 0) {
        hf_free(u);
        return NULL;
    }
    return u;
}

static void pub_free(struct hf_sip_presence *p, struct pub *x)
{
    if (x != NULL) {
        x->user->n_refs--;
        user_settle(p, x->user);
        hf_free(x->data);
        hf_free(x);
    }
}

static void say_changed(struct hf_sip_presence *p, struct user *u)
{
    if (hf_list_empty(&u->changed)) {
        hf_list_insert(&p->changed, &u->changed);
    }
}

static void want_store(struct hf_sip_presence *p, struct pub *x)
{
    hf_list_unlink(&x->store);
    hf_list_insert(&p->to_store, &x->store);
}

/* Out of all lists; drop: what is stored of it, too. */
static void take_out(struct hf_sip_presence *p, struct pub *x, bool drop)
{
    hf_list_unlink(&x->in_user);
    hf_list_unlink(&x->in_wheel);
    hf_list_unlink(&x->store);
    x->user->n_pubs--;
    p->n--;
    if (drop) {
        hf_list_insert(&p->to_drop, &x->in_user);
        user_settle(p, x->user);
    } else {
        pub_free(p, x);
    }
}

static void set_expires(struct hf_sip_presence *p, struct pub *x, hf_time expires)
{
    x->expires = expires;
    int64_t s = (expires + HF_NS_PER_S - 1) / HF_NS_PER_S;
    s = s > p->tick_s ? s : p->tick_s + 1;
    hf_list_unlink(&x->in_wheel);
    hf_list_insert(&p->wheel[(uint64_t)s % WHEEL], &x->in_wheel);
}

static struct hf_slice document(const struct pub *x)
{
    return hf_slice(x->data + DATA_HEAD, x->n_data - DATA_HEAD);
}

static void set_count(struct pub *x, uint32_t count)
{
    struct hf_wr w;
    x->count = count;
    hf_wr_init(&w, x->data, DATA_HEAD);
    hf_wr_u8(&w, DATA_VERSION);
    hf_wr_u32(&w, count);
    hf_wr_u32(&w, x->n_data - DATA_HEAD);
}

/* Its document is a copy of doc from now on. */
static bool set_document(struct pub *x, struct hf_slice doc)
{
    uint8_t *data = doc.n <= UINT32_MAX - DATA_HEAD ? hf_alloc(DATA_HEAD + doc.n) : NULL;
    if (data == NULL) {
        return false;
    }
    memcpy(data + DATA_HEAD, doc.p, doc.n);
    hf_free(x->data);
    x->data = data;
    x->n_data = (uint32_t)(DATA_HEAD + doc.n);
    return true;
}

static struct pub *add(struct hf_sip_presence *p, struct hf_slice aor, struct hf_slice doc)
{
    struct pub *x = hf_alloc(sizeof(*x));
    struct user *u = x != NULL && set_document(x, doc) ? user_for(p, aor) : NULL;
    if (u == NULL) {
        if (x != NULL) {
            hf_free(x->data);
        }
        hf_free(x);
        return NULL;
    }
    hf_list_init(&x->in_wheel);
    hf_list_init(&x->store);
    x->user = u;
    x->number = ++p->last_number;
    hf_list_insert(u->pubs.next, &x->in_user);
    u->n_pubs++;
    u->n_refs++;
    p->n++;
    return x;
}

static struct pub *pub_of(struct hf_list *l)
{
    return HF_CONTAINER_OF(l, struct pub, in_user);
}

/* ---- PUBLISH ---- */

static void put_etag(const struct pub *x, char ret_etag[HF_SIP_ETAG_MAX])
{
    snprintf(ret_etag, HF_SIP_ETAG_MAX, "%.*s.%" PRIu32, KEY_N, x->key, x->count);
}

/* Of this user by its tag; by the request that it was published with. */
static struct pub *by_etag(struct user *u, struct hf_slice etag)
{
    char text[HF_SIP_ETAG_MAX];
    HF_LIST_FOREACH (l, &u->pubs) {
        put_etag(pub_of(l), text);
        if (hf_slice_eq(etag, hf_slice_str(text))) {
            return pub_of(l);
        }
    }
    return NULL;
}

static struct pub *by_transaction(struct user *u, struct hf_slice transaction)
{
    HF_LIST_FOREACH (l, &u->pubs) {
        struct pub *x = pub_of(l);
        if (x->n_transaction > 0 &&
            hf_slice_eq(transaction, hf_slice(x->transaction, x->n_transaction))) {
            return x;
        }
    }
    return NULL;
}

static void answer(const struct pub *x, hf_time now, struct hf_sip_published *ret)
{
    hf_time left = x->expires > now ? x->expires - now : 0;
    ret->status = 200;
    ret->expires_s = (uint32_t)((left + HF_NS_PER_S - 1) / HF_NS_PER_S);
    put_etag(x, ret->etag);
}

/* What was asked for has been done to it. */
static void accept(struct hf_sip_presence *p, struct pub *x, const struct hf_sip_publish *in,
                   uint32_t expires_s, hf_time now, struct hf_sip_published *ret)
{
    size_t n = in->transaction.n < TRANSACTION_MAX ? in->transaction.n : TRANSACTION_MAX;
    if (n > 0) {
        memcpy(x->transaction, in->transaction.p, n);
    }
    x->n_transaction = (uint8_t)n;
    set_count(x, x->count + 1);
    set_expires(p, x, now + HF_S(expires_s));
    want_store(p, x);
    ret->stores = x->number;
    answer(x, now, ret);
}

static void refuse(struct hf_sip_presence *p, unsigned status, struct hf_sip_published *ret)
{
    p->count.refused += status != 412;
    p->count.mismatched += status == 412;
    ret->status = status;
}

static void make_key(struct hf_sip_presence *p, char ret_key[KEY_N])
{
    hf_hex_put_u64(hf_prng_u64(&p->prng), KEY_N, ret_key);
}

/* RFC 3903 6: a new one. */
static void begin(struct hf_sip_presence *p, const struct hf_sip_publish *in, uint32_t expires_s,
                  hf_time now, struct hf_sip_published *ret)
{
    if (in->body.n == 0) {
        refuse(p, 400, ret);
        return;
    }
    if (expires_s == 0) { /* it was there for a moment */
        struct pub never = {.count = 1};
        make_key(p, never.key);
        answer(&never, now, ret);
        return;
    }
    struct pub *x = p->n < p->conf.publications_max ? add(p, in->aor, in->body) : NULL;
    if (x == NULL) {
        refuse(p, 503, ret);
        return;
    }
    make_key(p, x->key);
    p->count.published++;
    accept(p, x, in, expires_s, now, ret);
    say_changed(p, x->user);
    if (x->user->n_pubs > p->conf.per_aor_max) {
        p->count.replaced++;
        take_out(p, pub_of(x->user->pubs.prev), true);
    }
}

static void end(struct hf_sip_presence *p, struct pub *x)
{
    struct user *u = x->user;
    say_changed(p, u);
    take_out(p, x, true);
}

/* One that is there is refreshed, modified or removed. */
static void go_on(struct hf_sip_presence *p, struct pub *x, const struct hf_sip_publish *in,
                  uint32_t expires_s, hf_time now, struct hf_sip_published *ret)
{
    if (expires_s == 0) {
        p->count.removed++;
        set_expires(p, x, now);
        answer(x, now, ret);
        end(p, x);
        return;
    }
    if (in->body.n > 0) {
        if (!set_document(x, in->body)) {
            refuse(p, 503, ret);
            return;
        }
        hf_list_unlink(&x->in_user);
        hf_list_insert(x->user->pubs.next, &x->in_user);
        say_changed(p, x->user);
        p->count.modified++;
    } else {
        p->count.refreshed++;
    }
    accept(p, x, in, expires_s, now, ret);
}

void hf_sip_presence_publish(struct hf_sip_presence *p, const struct hf_sip_publish *in,
                             hf_time now, struct hf_sip_published *ret_answer)
{
    struct hf_sip_published *ret = ret_answer;
    *ret = (struct hf_sip_published){.status = 0};
    uint32_t e = in->has_expires ? in->expires_s : p->conf.expires_max_s;
    e = e < p->conf.expires_max_s ? e : p->conf.expires_max_s;
    struct user *u = hf_map_get(&p->by_aor, in->aor);
    struct pub *same = u != NULL ? by_transaction(u, in->transaction) : NULL;
    if (same != NULL) {
        answer(same, now, ret);
        return;
    }
    if (in->aor.n == 0 || in->aor.n > HF_SIP_AOR_MAX) {
        refuse(p, 400, ret);
        return;
    }
    struct pub *x = u != NULL && in->etag.n > 0 ? by_etag(u, in->etag) : NULL;
    if (in->etag.n > 0 && (x == NULL || x->expires <= now)) { /* step 4 */
        refuse(p, 412, ret);
        return;
    }
    if (e > 0 && e < p->conf.expires_min_s) {
        refuse(p, 423, ret);
        ret->expires_s = p->conf.expires_min_s;
        return;
    }
    int rc = in->body.n > 0 ? hf_sip_pidf_check(in->body, p->conf.seed) : 0;
    if (rc < 0) {
        refuse(p, rc == -ENOMEM ? 503 : 400, ret);
    } else if (x != NULL) {
        go_on(p, x, in, e, now, ret);
    } else {
        begin(p, in, e, now, ret);
    }
}

/* ---- what is stored ---- */

static int decode(struct hf_slice data, uint32_t *ret_count, struct hf_slice *ret_doc)
{
    struct hf_rd r;
    hf_rd_init(&r, data);
    uint8_t version = hf_rd_u8(&r);
    uint32_t count = hf_rd_u32(&r);
    struct hf_slice doc = hf_rd_str32(&r, UINT32_MAX - DATA_HEAD);
    int rc = hf_rd_end(&r);
    if (rc < 0) {
        return rc;
    }
    if (version != DATA_VERSION) {
        return -HF_EVERSION;
    }
    *ret_count = count;
    *ret_doc = doc;
    return count < UINT32_MAX && doc.n > 0 ? 0 : -HF_EMALF;
}

static int load(struct hf_sip_presence *p, struct hf_slice aor, struct hf_slice key,
                struct hf_slice data, uint32_t left_s, hf_time now)
{
    uint32_t count = 0;
    struct hf_slice doc;
    int rc = decode(data, &count, &doc);
    if (rc < 0) {
        return rc;
    }
    if (aor.n == 0 || aor.n > HF_SIP_AOR_MAX || key.n != KEY_N || left_s >= WHEEL) {
        return -HF_EMALF;
    }
    rc = hf_sip_pidf_check(doc, p->conf.seed);
    if (rc < 0) {
        return rc;
    }
    struct user *u = hf_map_get(&p->by_aor, aor);
    for (struct hf_list *l = u != NULL ? u->pubs.next : NULL; l != NULL && l != &u->pubs;
         l = l->next) {
        if (hf_slice_eq(key, hf_slice(pub_of(l)->key, KEY_N))) {
            return 0;
        }
    }
    if (p->n >= p->conf.publications_max || (u != NULL && u->n_pubs >= p->conf.per_aor_max)) {
        return -HF_EFULL;
    }
    struct pub *x = add(p, aor, doc);
    if (x == NULL) {
        return -ENOMEM;
    }
    memcpy(x->key, key.p, KEY_N);
    set_count(x, count);
    set_expires(p, x, now + HF_S(left_s));
    say_changed(p, x->user);
    p->count.loaded++;
    return 0;
}

int hf_sip_presence_load(struct hf_sip_presence *p, struct hf_slice aor, struct hf_slice key,
                         struct hf_slice data, uint32_t left_s, hf_time now)
{
    int rc = load(p, aor, key, data, left_s, now);
    p->count.malformed += rc < 0 && rc != -ENOMEM && rc != -HF_EFULL;
    return rc;
}

static void all_out(struct hf_sip_presence *p, struct hf_slice aor, bool drop)
{
    struct user *u = hf_map_get(&p->by_aor, aor);
    for (uint32_t n = u != NULL ? u->n_pubs : 0; n > 0; n--) { /* u may go with its last */
        take_out(p, pub_of(u->pubs.next), drop);
    }
}

void hf_sip_presence_forget(struct hf_sip_presence *p, struct hf_slice aor)
{
    all_out(p, aor, false);
}

void hf_sip_presence_gone(struct hf_sip_presence *p, struct hf_slice aor)
{
    all_out(p, aor, true);
}

static struct pub *by_number(struct hf_sip_presence *p, struct hf_slice aor, uint32_t number)
{
    struct user *u = hf_map_get(&p->by_aor, aor);
    for (struct hf_list *l = u != NULL ? u->pubs.next : NULL; l != NULL && l != &u->pubs;
         l = l->next) {
        if (pub_of(l)->number == number) {
            return pub_of(l);
        }
    }
    return NULL;
}

void hf_sip_presence_stored(struct hf_sip_presence *p, struct hf_slice aor, uint32_t number,
                            bool ok, hf_time now)
{
    struct pub *x = ok ? NULL : by_number(p, aor, number);
    if (x != NULL && hf_list_empty(&x->store)) {
        p->count.unstored++;
        x->store_at = now + HF_S(STORE_AGAIN_S);
        hf_list_insert(&p->again, &x->store);
    }
}

bool hf_sip_presence_store(struct hf_sip_presence *p, struct hf_slice aor, uint32_t number)
{
    struct pub *x = by_number(p, aor, number);
    if (x != NULL) {
        want_store(p, x);
    }
    return x != NULL;
}

/* ---- what watchers get ---- */

void hf_sip_presence_write(const struct hf_sip_presence *p, struct hf_slice aor, bool reachable,
                           struct hf_buf *b)
{
    struct hf_slice doc[64];
    size_t n = 0;
    struct user *u = hf_map_get(&p->by_aor, aor);
    for (struct hf_list *l = u != NULL ? u->pubs.next : NULL;
         l != NULL && l != &u->pubs && n < HF_ARRAY_LEN(doc); l = l->next) {
        doc[n++] = document(pub_of(l));
    }
    if (n == 0) {
        hf_sip_pidf_basic(b, aor, reachable);
    } else if (n == 1) {
        hf_buf_add(b, doc[0]);
    } else {
        hf_sip_pidf_merge(b, aor, doc, n, p->conf.seed);
    }
}

size_t hf_sip_presence_of(const struct hf_sip_presence *p, struct hf_slice aor)
{
    const struct user *u = hf_map_get(&p->by_aor, aor);
    return u != NULL ? u->n_pubs : 0;
}

/* ---- what is to be done ---- */

static void tick(struct hf_sip_presence *p, hf_time now)
{
    int64_t s = now / HF_NS_PER_S;
    if (p->n == 0 || s - p->tick_s > (int64_t)WHEEL) { /* a turn is enough */
        p->tick_s = p->n == 0 ? s : s - (int64_t)WHEEL;
    }
    while (p->tick_s < s) {
        p->tick_s++;
        HF_LIST_FOREACH (l, &p->wheel[(uint64_t)p->tick_s % WHEEL]) {
            struct pub *x = HF_CONTAINER_OF(l, struct pub, in_wheel);
            if (x->expires <= now) {
                p->count.expired++;
                end(p, x);
            }
        }
    }
    while (!hf_list_empty(&p->again)) {
        struct pub *x = HF_CONTAINER_OF(p->again.next, struct pub, store);
        if (x->store_at > now) {
            break;
        }
        want_store(p, x);
    }
}

/* What was told last is done with. */
static void told(struct hf_sip_presence *p)
{
    struct user *u = p->told_changed;
    struct pub *x = p->told_drop;
    p->told_changed = NULL;
    p->told_drop = NULL;
    pub_free(p, x);
    if (u != NULL) {
        user_settle(p, u);
    }
}

bool hf_sip_presence_next(struct hf_sip_presence *p, hf_time now,
                          struct hf_sip_presence_out *ret_out)
{
    told(p);
    tick(p, now);
    struct hf_sip_presence_out o = {.kind = HF_SIP_PRESENCE_CHANGED};
    const struct user *u;
    if (!hf_list_empty(&p->to_store)) {
        struct pub *x = HF_CONTAINER_OF(p->to_store.next, struct pub, store);
        hf_list_unlink(&x->store);
        hf_time left = x->expires - now;
        o.kind = HF_SIP_PRESENCE_KEEP;
        o.number = x->number;
        o.key = hf_slice(x->key, KEY_N);
        o.data = hf_slice(x->data, x->n_data);
        o.left_s = left > 0 ? (uint32_t)((left + HF_NS_PER_S - 1) / HF_NS_PER_S) : 0;
        u = x->user;
    } else if (!hf_list_empty(&p->to_drop)) {
        p->told_drop = pub_of(p->to_drop.next);
        hf_list_unlink(&p->told_drop->in_user);
        o.kind = HF_SIP_PRESENCE_DROP;
        o.key = hf_slice(p->told_drop->key, KEY_N);
        u = p->told_drop->user;
    } else if (!hf_list_empty(&p->changed)) {
        p->told_changed = HF_CONTAINER_OF(p->changed.next, struct user, changed);
        hf_list_unlink(&p->told_changed->changed);
        u = p->told_changed;
    } else {
        return false;
    }
    o.aor = hf_slice(u->text, u->n);
    *ret_out = o;
    return true;
}

hf_time hf_sip_presence_deadline(const struct hf_sip_presence *p)
{
    if (!hf_list_empty(&p->to_store) || !hf_list_empty(&p->to_drop) ||
        !hf_list_empty(&p->changed)) {
        return INT64_MIN; /* now */
    }
    return p->n > 0 ? HF_S(p->tick_s + 1) : HF_NEVER; /* again waits for full seconds, too */
}

size_t hf_sip_presence_count(const struct hf_sip_presence *p)
{
    return p->n;
}

const struct hf_sip_presence_counters *hf_sip_presence_counters(const struct hf_sip_presence *p)
{
    return &p->count;
}

/* ---- its life ---- */

int hf_sip_presence_create(const struct hf_sip_presence_conf *conf, hf_time now,
                           struct hf_sip_presence **ret_presence)
{
    struct hf_sip_presence *p = hf_alloc(sizeof(*p));
    if (p == NULL) {
        return -ENOMEM;
    }
    struct hf_sip_presence_conf *c = &p->conf;
    *c = *conf;
    c->publications_max = c->publications_max != 0 ? c->publications_max : 1000000;
    c->per_aor_max = c->per_aor_max != 0 ? c->per_aor_max : 16;
    c->expires_min_s = c->expires_min_s != 0 ? c->expires_min_s : 60;
    c->expires_max_s = c->expires_max_s != 0 ? c->expires_max_s : 3600;
    assert(c->expires_max_s < WHEEL && c->expires_min_s <= c->expires_max_s);
    hf_prng_init(&p->prng, c->seed + 1);
    hf_map_init(&p->by_aor, c->seed);
    for (unsigned i = 0; i < WHEEL; i++) {
        hf_list_init(&p->wheel[i]);
    }
    hf_list_init(&p->to_store);
    hf_list_init(&p->to_drop);
    hf_list_init(&p->changed);
    hf_list_init(&p->again);
    p->tick_s = now / HF_NS_PER_S;
    *ret_presence = p;
    return 0;
}

void hf_sip_presence_destroy(struct hf_sip_presence *p)
{
    if (p == NULL) {
        return;
    }
    told(p);
    HF_LIST_FOREACH (l, &p->changed) {
        hf_list_unlink(l);
        user_settle(p, HF_CONTAINER_OF(l, struct user, changed));
    }
    HF_LIST_FOREACH (l, &p->to_drop) {
        hf_list_unlink(l);
        pub_free(p, pub_of(l));
    }
    size_t pos = 0;
    for (struct user *u; (u = hf_map_next(&p->by_aor, &pos)) != NULL;) {
        for (uint32_t n = u->n_pubs; n > 0; n--) {
            take_out(p, pub_of(u->pubs.next), false);
        }
    }
    hf_map_fini(&p->by_aor);
    hf_free(p);
}
