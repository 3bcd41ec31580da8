#include "codec/advert_v1.h"

#include <assert.h>

#include "base/err.h"
#include "base/json.h"
#include "base/name.h"

#define DATAGRAM_MAGIC 0x4846u  /* "HF" */
#define PULL_MAGIC 0x48465031u  /* "HFP1" */
#define STATE_MAGIC 0x48465331u /* "HFS1" */
#define CHANGE_PUT 1
#define CHANGE_REMOVE 2

/* ---- endpoint ---- */

static void encode_endpoint(struct hf_wr *w, const struct hf_endpoint *e)
{
    hf_wr_u8(w, e->family);
    if (e->family != HF_AF_NONE) {
        hf_wr_bytes(w, hf_slice(e->addr, e->family == HF_AF_INET ? 4 : 16));
        hf_wr_u16(w, e->port);
    }
}

static void decode_endpoint(struct hf_rd *r, struct hf_endpoint *e)
{
    *e = (struct hf_endpoint){.family = hf_rd_u8(r)};
    switch (e->family) {
    case HF_AF_NONE:
        return;
    case HF_AF_INET:
        hf_rd_copy(r, e->addr, 4);
        break;
    case HF_AF_INET6:
        hf_rd_copy(r, e->addr, 16);
        break;
    default:
        hf_rd_fail(r, -HF_EMALF);
    }
    e->port = hf_rd_u16(r);
    if (e->port == 0) {
        hf_rd_fail(r, -HF_EMALF);
    }
}

static struct hf_slice decode_host(struct hf_rd *r)
{
    struct hf_slice s = hf_rd_str8(r, HF_HOST_NAME_MAX);
    if (!r->err && !hf_host_name_ok(s)) {
        hf_rd_fail(r, -HF_ENAME);
    }
    return s;
}

/* ---- datagram head ---- */

void hf_datagram_head_encode(struct hf_wr *w, const struct hf_datagram_head *h)
{
    hf_wr_u16(w, DATAGRAM_MAGIC);
    hf_wr_u8(w, HF_ADVERT_VERSION);
    hf_wr_u8(w, h->kind);
    hf_wr_u32(w, h->key_id);
    hf_wr_u64(w, h->incarnation);
    hf_wr_bytes(w, hf_slice(h->salt, HF_SALT_LEN));
    hf_wr_u64(w, h->counter);
    hf_wr_str8(w, h->host);
}

int hf_datagram_head_decode(struct hf_slice datagram, struct hf_datagram_head *ret_head,
                            size_t *ret_head_len)
{
    struct hf_rd r;
    hf_rd_init(&r, datagram);
    if (hf_rd_u16(&r) != DATAGRAM_MAGIC) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    uint8_t version = hf_rd_u8(&r);
    if (version != HF_ADVERT_VERSION) {
        hf_rd_fail(&r, version > HF_ADVERT_VERSION ? -HF_EVERSION : -HF_EMALF);
    }
    struct hf_datagram_head h = {.kind = hf_rd_u8(&r)};
    if (h.kind != HF_DATAGRAM_ADVERT && h.kind != HF_DATAGRAM_PROBE) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    h.key_id = hf_rd_u32(&r);
    h.incarnation = hf_rd_u64(&r);
    hf_rd_copy(&r, h.salt, HF_SALT_LEN);
    h.counter = hf_rd_u64(&r);
    h.host = decode_host(&r);
    if (h.incarnation == 0 || h.counter == 0) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    if (r.err) {
        return r.err;
    }
    *ret_head_len = datagram.n - hf_rd_left(&r);
    *ret_head = h;
    return 0;
}

/* ---- changes ---- */

void hf_change_encode(struct hf_wr *w, const struct hf_change *c)
{
    hf_wr_u8(w, c->removed ? CHANGE_REMOVE : CHANGE_PUT);
    hf_wr_str8(w, c->name);
    if (!c->removed) {
        hf_wr_str16(w, c->value);
    }
}

/* Names and values are checked here once, so that nothing else has to. */
static void decode_change(struct hf_rd *r, struct hf_change *c)
{
    uint8_t kind = hf_rd_u8(r);
    *c = (struct hf_change){.removed = kind == CHANGE_REMOVE};
    c->name = hf_rd_str8(r, HF_SERVICE_NAME_MAX);
    if (kind == CHANGE_PUT) {
        c->value = hf_rd_str16(r, HF_VALUE_LEN_MAX);
        if (!r->err && !hf_json_object_ok(c->value)) {
            hf_rd_fail(r, -HF_EVALUE);
        }
    } else if (kind != CHANGE_REMOVE) {
        hf_rd_fail(r, -HF_EMALF);
    }
    if (!r->err && !hf_service_name_ok(c->name)) {
        hf_rd_fail(r, -HF_ENAME);
    }
}

bool hf_changes_next(struct hf_changes *c, struct hf_change *ret_change)
{
    if (c->n == 0) {
        return false;
    }
    /* checked when it was decoded: only the lengths are read again */
    c->n--;
    ret_change->removed = hf_rd_u8(&c->r) == CHANGE_REMOVE;
    ret_change->name = hf_rd_str8(&c->r, HF_SERVICE_NAME_MAX);
    ret_change->value =
        ret_change->removed ? hf_slice(NULL, 0) : hf_rd_str16(&c->r, HF_VALUE_LEN_MAX);
    assert(!c->r.err);
    return true;
}

/*
 * Check n changes and step over them; *ret_changes reads them again. `sorted`: names strictly
 * ascending; `puts_only`: no removals.
 */
static void decode_changes(struct hf_rd *r, uint32_t n, bool sorted, bool puts_only,
                           struct hf_changes *ret_changes)
{
    struct hf_changes changes = {.r = *r, .n = n};
    struct hf_slice last = {0};
    for (uint32_t i = 0; i < n && !r->err; i++) {
        struct hf_change c;
        decode_change(r, &c);
        if (!r->err &&
            ((sorted && i > 0 && hf_slice_cmp(last, c.name) >= 0) || (puts_only && c.removed))) {
            hf_rd_fail(r, -HF_EMALF);
        }
        last = c.name;
    }
    changes.r.end = r->p;
    *ret_changes = changes;
}

/* ---- advert ---- */

void hf_advert_encode(struct hf_wr *w, const struct hf_advert *a, size_t *ret_n_mark)
{
    hf_wr_u8(w, a->flags);
    hf_wr_u32(w, a->period_ms);
    hf_wr_u64(w, a->version);
    hf_wr_u64(w, a->hash);
    encode_endpoint(w, &a->endpoint);
    *ret_n_mark = hf_wr_len(w);
    hf_wr_u64(w, a->from);
    hf_wr_u16(w, 0);
}

void hf_advert_encode_end(struct hf_wr *w, size_t n_mark, uint64_t from, uint16_t n)
{
    hf_wr_patch_u64(w, n_mark, from);
    hf_wr_patch_u16(w, n_mark + 8, n);
}

int hf_advert_decode(struct hf_slice body, struct hf_advert *ret_advert)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    struct hf_advert a = {.flags = hf_rd_u8(&r)};
    a.period_ms = hf_rd_u32(&r);
    a.version = hf_rd_u64(&r);
    a.hash = hf_rd_u64(&r);
    decode_endpoint(&r, &a.endpoint);
    a.from = hf_rd_u64(&r);
    uint16_t n = hf_rd_u16(&r);
    if ((a.flags & ~HF_ADVERT_BYE) || a.period_ms < HF_ADVERT_PERIOD_MS_MIN ||
        a.period_ms > HF_ADVERT_PERIOD_MS_MAX || a.from > a.version) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    decode_changes(&r, n, false, false, &a.changes);
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        *ret_advert = a;
    }
    return rc;
}

/* ---- pull ---- */

static void encode_owner_head(struct hf_wr *w, const struct hf_owner_head *h)
{
    hf_wr_str8(w, h->owner);
    hf_wr_u64(w, h->incarnation);
    hf_wr_bytes(w, hf_slice(h->salt, HF_SALT_LEN));
    hf_wr_u64(w, h->counter);
    hf_wr_u64(w, h->version);
    hf_wr_u64(w, h->hash);
    hf_wr_u32(w, h->period_ms);
    encode_endpoint(w, &h->endpoint);
}

static void decode_owner_head(struct hf_rd *r, struct hf_owner_head *h)
{
    h->owner = decode_host(r);
    h->incarnation = hf_rd_u64(r);
    hf_rd_copy(r, h->salt, HF_SALT_LEN);
    h->counter = hf_rd_u64(r);
    h->version = hf_rd_u64(r);
    h->hash = hf_rd_u64(r);
    h->period_ms = hf_rd_u32(r);
    decode_endpoint(r, &h->endpoint);
    if (h->incarnation == 0 || h->period_ms < HF_ADVERT_PERIOD_MS_MIN ||
        h->period_ms > HF_ADVERT_PERIOD_MS_MAX) {
        hf_rd_fail(r, -HF_EMALF);
    }
}

static uint8_t decode_bool(struct hf_rd *r)
{
    uint8_t v = hf_rd_u8(r);
    if (v > 1) {
        hf_rd_fail(r, -HF_EMALF);
    }
    return v;
}

/* A count of changes; more than a host may have is refused before any is read. */
static uint32_t decode_count(struct hf_rd *r, uint32_t n_max)
{
    uint32_t n = hf_rd_u32(r);
    if (n > n_max) {
        hf_rd_fail(r, -HF_EFULL);
        return 0;
    }
    return n;
}

void hf_pull_encode(struct hf_wr *w, const struct hf_pull *p, uint32_t n_changes)
{
    hf_wr_u32(w, PULL_MAGIC);
    encode_owner_head(w, &p->head);
    hf_wr_u64(w, p->your_incarnation);
    hf_wr_u8(w, p->full);
    hf_wr_u64(w, p->from);
    hf_wr_u32(w, n_changes);
}

int hf_pull_decode(struct hf_slice body, struct hf_pull *ret_pull)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    if (hf_rd_u32(&r) != PULL_MAGIC) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    struct hf_pull p = {0};
    decode_owner_head(&r, &p.head);
    p.your_incarnation = hf_rd_u64(&r);
    p.full = decode_bool(&r);
    p.from = hf_rd_u64(&r);
    if (p.from > p.head.version || (p.full && p.from != 0)) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    uint32_t n = decode_count(&r, HF_ENTRIES_PER_HOST_MAX + (p.full ? 0 : HF_HISTORY_MAX));
    decode_changes(&r, n, true, p.full, &p.changes);
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        *ret_pull = p;
    }
    return rc;
}

/* ---- state ---- */

void hf_state_encode(struct hf_wr *w, const struct hf_state *s)
{
    hf_wr_u32(w, STATE_MAGIC);
    hf_wr_str8(w, s->from);
    hf_wr_u64(w, s->your_incarnation);
    hf_wr_u32(w, s->n_members);
}

void hf_state_member_encode(struct hf_wr *w, const struct hf_state_member *m, uint32_t n_changes)
{
    encode_owner_head(w, &m->head);
    hf_wr_u32(w, m->age_ms);
    hf_wr_u8(w, m->has_part);
    if (m->has_part) {
        hf_wr_u32(w, n_changes);
    }
}

static void decode_member(struct hf_rd *r, struct hf_state_member *m)
{
    *m = (struct hf_state_member){0};
    decode_owner_head(r, &m->head);
    m->age_ms = hf_rd_u32(r);
    m->has_part = decode_bool(r);
    if (m->has_part) {
        uint32_t n = decode_count(r, HF_ENTRIES_PER_HOST_MAX);
        decode_changes(r, n, true, true, &m->changes);
    }
}

int hf_state_decode(struct hf_slice body, struct hf_state *ret_state)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    if (hf_rd_u32(&r) != STATE_MAGIC) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    struct hf_state s = {.from = decode_host(&r)};
    s.your_incarnation = hf_rd_u64(&r);
    s.n_members = decode_count(&r, HF_HOSTS_MAX);
    s.r = r;
    for (uint32_t i = 0; i < s.n_members && !r.err; i++) {
        struct hf_state_member m;
        decode_member(&r, &m);
    }
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        *ret_state = s;
    }
    return rc;
}

bool hf_state_next(struct hf_state *s, struct hf_state_member *ret_member)
{
    if (s->n_members == 0) {
        return false;
    }
    s->n_members--;
    decode_member(&s->r, ret_member);
    assert(!s->r.err);
    return true;
}
