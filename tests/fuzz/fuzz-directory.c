/* Fuzz: the directory core, its input read as a schedule of steps. Honest owners and liars. */
#include <assert.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/rd.h"
#include "core/directory/directory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OWNERS 4
#define NAMES 8
#define STEPS_MAX 200

static const char *const host[OWNERS] = {"a", "b", "c", "me"};
static const char *const name[NAMES] = {"/a", "/a/b", "/b", "/c", "/d/e/f", "/g", "/h.i", "/j"};
static const char *const value[2] = {"{}", "{\"v\":[1,{\"w\":null}]}"};

/* What an honest owner has: bit n: name n is there; bit NAMES + n: with which value. */
struct truth {
    uint64_t incarnation, version, counter;
    uint16_t has;
};

struct fuzz {
    struct hf_dir *d;
    struct hf_dir_store *store;
    struct hf_dir_out out;
    struct truth truth[OWNERS];
    struct hf_rd r;
    hf_time now;
    uint64_t persist; /* incarnation asked to be made durable; 0: none */
};

static void check(struct fuzz *f)
{
    uint32_t members = hf_dir_state(f->d) == HF_DIR_RUN;
    assert(f->out.n <= HF_DIR_ACTS_MAX);
    for (uint32_t id = 0; id < f->store->n_owners; id++) {
        struct hf_part *p = hf_dir_part(f->d, id);
        if (!p) {
            continue;
        }
        struct hf_part_pos pos = {0};
        uint64_t hash = 0;
        uint32_t n = 0;
        for (struct hf_entry *e; (e = hf_part_next(p, &pos)); n++) {
            hash += e->hash;
        }
        assert(p->sealed && p->refs > 0 && p->key.owner == id);
        assert(n == p->n_entries && hash == p->key.hash);
        members += id != hf_dir_self(f->d);
    }
    assert(members == hf_dir_members(f->d));
}

static void step(struct fuzz *f, const struct hf_dir_in *in)
{
    hf_dir_step(f->d, in, f->now, &f->out);
    for (uint32_t i = 0; i < f->out.n; i++) {
        const struct hf_dir_act *a = &f->out.act[i];
        struct hf_advert advert;
        if (a->kind == HF_DIR_ACT_PERSIST) {
            f->persist = a->incarnation;
        } else if (a->kind == HF_DIR_ACT_MULTICAST || a->kind == HF_DIR_ACT_ANSWER) {
            int rc = hf_advert_decode(hf_slice(f->out.body, f->out.body_len), &advert);
            assert(rc == 0);
        }
    }
    check(f);
}

static void pass(struct fuzz *f, hf_time t)
{
    hf_time end = f->now + t;
    int turns = 0;
    while (hf_dir_deadline(f->d) <= end) {
        hf_time at = hf_dir_deadline(f->d);
        turns = at > f->now ? 0 : turns + 1;
        assert(turns < 1000); /* a deadline that never passes */
        f->now = at > f->now ? at : f->now;
        step(f, &(struct hf_dir_in){.kind = HF_DIR_IN_TIMER});
    }
    f->now = end;
}

/* ---- honest owners ---- */

static struct hf_changes changes_of(const struct truth *t, uint16_t which, bool removals,
                                    uint8_t *room, size_t n)
{
    struct hf_wr w;
    struct hf_changes c = {0};
    hf_wr_init(&w, room, n);
    for (uint32_t i = 0; i < NAMES; i++) {
        bool has = t->has >> i & 1;
        if (!(which >> i & 1) || (!has && !removals)) {
            continue;
        }
        struct hf_change one = {.removed = !has, .name = hf_slice_str(name[i])};
        if (has) {
            one.value = hf_slice_str(value[t->has >> (NAMES + i) & 1]);
        }
        hf_change_encode(&w, &one);
        c.n++;
    }
    hf_rd_init(&c.r, hf_slice(room, hf_wr_len(&w)));
    return c;
}

static uint64_t hash_of(const struct truth *t)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < NAMES; i++) {
        if (t->has >> i & 1) {
            struct hf_entry *e = hf_entry_create(hf_slice_str(name[i]),
                                                 hf_slice_str(value[t->has >> (NAMES + i) & 1]));
            hash += e->hash;
            hf_entry_unref(e);
        }
    }
    return hash;
}

static struct hf_owner_head owner_head(const struct truth *t, uint32_t k)
{
    struct hf_owner_head h = {.owner = hf_slice_str(host[k]),
                              .incarnation = t->incarnation,
                              .counter = t->counter,
                              .version = t->version,
                              .hash = hash_of(t),
                              .period_ms = 1000};
    h.salt[0] = (uint8_t)t->incarnation;
    return h;
}

static void change_truth(struct fuzz *f, struct truth *t)
{
    uint8_t how = hf_rd_u8(&f->r);
    if (how == 0xff) {
        *t = (struct truth){.incarnation = t->incarnation + 1};
    } else {
        t->has ^= (uint16_t)(1u << (how % (2 * NAMES)));
        t->version++;
    }
}

static void advert(struct fuzz *f, uint32_t k, bool honest)
{
    static uint8_t room[1024];
    struct truth *t = &f->truth[k];
    uint8_t back = hf_rd_u8(&f->r);
    struct hf_datagram_head head = {.kind = HF_DATAGRAM_ADVERT,
                                    .incarnation = t->incarnation,
                                    .counter = ++t->counter,
                                    .host = hf_slice_str(host[k])};
    head.salt[0] = (uint8_t)t->incarnation;
    struct hf_advert a = {.period_ms = 1000, .version = t->version, .hash = hash_of(t)};
    struct hf_slice body = {0};
    if (honest) {
        a.from = t->version > back ? t->version - back : 0;
        a.flags = back == 0xfe ? HF_ADVERT_BYE : 0;
        a.changes = changes_of(t, UINT16_MAX, true, room, sizeof(room));
    } else {
        head.counter = back;
        head.incarnation = 1 + hf_rd_u8(&f->r) % 4u;
        head.salt[0] = hf_rd_u8(&f->r) % 4u;
        body = hf_rd_str16(&f->r, HF_ADVERT_BODY_MAX);
        if (head.counter == 0 || hf_advert_decode(body, &a)) {
            return;
        }
    }
    struct hf_dir_in in = {.kind = HF_DIR_IN_ADVERT};
    in.owner = hf_dir_store_owner(f->store, head.host);
    in.head = &head;
    in.advert = &a;
    in.from = (struct hf_endpoint){.family = HF_AF_INET, .addr = {10, 0, 0, (uint8_t)k}, .port = 1};
    step(f, &in);
}

static void probe(struct fuzz *f, uint32_t k)
{
    struct truth *t = &f->truth[k];
    struct hf_datagram_head head = {.kind = HF_DATAGRAM_PROBE,
                                    .incarnation = t->incarnation,
                                    .counter = ++t->counter,
                                    .host = hf_slice_str(host[k])};
    head.salt[0] = (uint8_t)t->incarnation;
    struct hf_dir_in in = {.kind = HF_DIR_IN_PROBE};
    in.owner = hf_dir_store_owner(f->store, head.host);
    in.head = &head;
    step(f, &in);
}

static void pulled(struct fuzz *f, uint32_t k, bool honest)
{
    static uint8_t room[1024];
    const struct truth *t = &f->truth[k];
    struct hf_dir_in in = {.kind = HF_DIR_IN_PULLED};
    struct hf_pull p = {.head = owner_head(t, k), .full = true};
    in.owner = hf_dir_store_owner(f->store, hf_slice_str(host[k]));
    in.pull = &p;
    if (honest) {
        p.your_incarnation = hf_rd_u8(&f->r);
        p.full = !(p.your_incarnation & 1);
        p.from = p.full || t->version < 3 ? 0 : t->version - 3;
        p.changes = changes_of(t, UINT16_MAX, !p.full, room, sizeof(room));
    } else {
        struct hf_slice body = hf_rd_str16(&f->r, UINT16_MAX);
        in.rc = hf_pull_decode(body, &p);
        in.kind = in.rc ? HF_DIR_IN_PULL_FAILED : in.kind;
    }
    step(f, &in);
}

static void state(struct fuzz *f, uint32_t k, bool honest)
{
    static uint8_t room[1024];
    struct hf_dir_in in = {.kind = HF_DIR_IN_STATE_MEMBER};
    struct hf_state_member m = {.head = owner_head(&f->truth[k], k)};
    in.member = &m;
    if (honest) {
        m.age_ms = hf_rd_u16(&f->r);
        m.has_part = m.age_ms & 1;
        if (m.has_part) {
            m.changes = changes_of(&f->truth[k], UINT16_MAX, false, room, sizeof(room));
        }
        step(f, &in);
        return;
    }
    struct hf_state s;
    int rc = hf_state_decode(hf_rd_str16(&f->r, UINT16_MAX), &s);
    while (rc == 0 && hf_state_next(&s, &m)) {
        step(f, &in);
    }
    in = (struct hf_dir_in){.kind = HF_DIR_IN_STATE_END, .rc = rc};
    step(f, &in);
}

/* ---- ourselves ---- */

static void local(struct fuzz *f, enum hf_dir_in_kind kind)
{
    uint8_t which = hf_rd_u8(&f->r);
    struct hf_dir_in in = {.kind = kind};
    in.publisher = 1 + which / NAMES % 3u;
    in.name = hf_slice_str(name[which % NAMES]);
    in.value = hf_slice_str(value[which >> 7]);
    if (kind == HF_DIR_IN_PUBLISH) {
        in.lease_ms = hf_rd_u16(&f->r);
        if (in.lease_ms == 7) { /* now and then a name and a value that nobody checked */
            in.name = hf_rd_str8(&f->r, UINT8_MAX);
            in.value = hf_rd_str16(&f->r, UINT16_MAX);
        }
    }
    step(f, &in);
}

static void persisted(struct fuzz *f)
{
    if (f->persist) {
        struct hf_dir_in in = {.kind = HF_DIR_IN_PERSISTED, .rc = hf_rd_u8(&f->r) == 1 ? -28 : 0};
        in.salt[0] = 9;
        f->persist = 0;
        step(f, &in);
    }
}

static void serve(struct fuzz *f, uint32_t k)
{
    struct hf_pull p;
    struct hf_state s;
    struct hf_buf buf;
    hf_buf_init(&buf, HF_STATE_BODY_MAX);
    uint64_t since = hf_rd_u8(&f->r);
    int rc =
        hf_dir_encode_pull(f->d, hf_slice_str(host[k]), hf_dir_incarnation(f->d), since, 1, &buf);
    assert((rc == 0) == (hf_dir_state(f->d) == HF_DIR_RUN));
    if (rc == 0) {
        rc = hf_pull_decode(hf_buf_slice(&buf), &p);
        assert(rc == 0);
        hf_buf_clear(&buf);
        rc = hf_dir_encode_state(f->d, hf_slice_str(host[k]), since & 1, f->now, &buf);
        assert(rc == 0);
        rc = hf_state_decode(hf_buf_slice(&buf), &s);
        assert(rc == 0);
    }
    hf_buf_fini(&buf);
}

/* u8: what (high half), owner (two bits), honest or raw (bit 2), a small lapse of time (bit 3) */
static void turn(struct fuzz *f)
{
    uint8_t op = hf_rd_u8(&f->r);
    uint32_t k = op & 3;
    bool honest = !(op & 4) && k < 3;
    if (op & 8) {
        pass(f, HF_MS(1 + (hf_time)hf_rd_u8(&f->r)));
    }
    switch (op >> 4) {
    case 0:
        pass(f, HF_MS((hf_time)hf_rd_u16(&f->r) % 10000));
        break;
    case 1:
    case 2:
        advert(f, k, honest);
        break;
    case 3:
    case 4:
        change_truth(f, &f->truth[k]);
        advert(f, k, true);
        break;
    case 5:
        change_truth(f, &f->truth[k]);
        break;
    case 6:
        probe(f, k);
        break;
    case 7:
    case 8:
        pulled(f, k, honest);
        break;
    case 9:
        state(f, k, honest);
        break;
    case 10:
        step(f, &(struct hf_dir_in){.kind = HF_DIR_IN_STATE_END, .rc = honest ? 0 : -1});
        break;
    case 11:
        persisted(f);
        break;
    case 12:
        local(f, HF_DIR_IN_PUBLISH);
        break;
    case 13:
        local(f, HF_DIR_IN_WITHDRAW);
        break;
    case 14:
        local(f, HF_DIR_IN_PUBLISHER_GONE);
        break;
    default:
        serve(f, k);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz f = {.now = HF_S(1000)};
    int rc = hf_dir_store_create(6, 1, &f.store);
    assert(rc == 0);
    hf_rd_init(&f.r, hf_slice(data, size));
    struct hf_dir_conf conf = {.host = hf_slice_str("me"),
                               .heartbeat_ms = 1000,
                               .sync_ms = 5000,
                               .dump = hf_rd_u8(&f.r) & 1,
                               .incarnation = 1,
                               .seed = 1};
    rc = hf_dir_create(&conf, f.store, f.now, &f.d);
    assert(rc == 0);
    hf_dir_out_init(&f.out);
    for (uint32_t k = 0; k < OWNERS; k++) {
        f.truth[k].incarnation = 1;
    }
    for (int n = 0; hf_rd_left(&f.r) > 0 && n < STEPS_MAX; n++) {
        turn(&f);
    }
    step(&f, &(struct hf_dir_in){.kind = HF_DIR_IN_STOP});
    hf_dir_out_fini(&f.out);
    hf_dir_destroy(f.d);
    hf_dir_store_destroy(f.store);
    return 0;
}
