#include "core/directory/part.h"

#include <assert.h>
#include <errno.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"

/* ---- entries ---- */

struct hf_entry *hf_entry_create(struct hf_slice name, struct hf_slice value)
{
    assert(name.n <= HF_SERVICE_NAME_MAX && value.n <= HF_VALUE_LEN_MAX);
    struct hf_entry *e = hf_alloc(sizeof(*e) + name.n + value.n);
    if (!e) {
        return NULL;
    }
    e->refs = 1;
    e->name_len = (uint8_t)name.n;
    e->value_len = (uint16_t)value.n;
    memcpy(e->bytes, name.p, name.n);
    if (value.n) {
        memcpy(e->bytes + name.n, value.p, value.n);
    }
    e->hash = hf_hash(hf_slice(e->bytes, name.n + value.n), name.n);
    return e;
}

struct hf_entry *hf_entry_ref(struct hf_entry *e)
{
    e->refs++;
    return e;
}

void hf_entry_unref(struct hf_entry *e)
{
    if (e && --e->refs == 0) {
        hf_free(e);
    }
}

/* ---- chunks ---- */

static struct hf_chunk *chunk_create(uint32_t room)
{
    uint32_t r = 4;
    while (r < room) {
        r *= 2;
    }
    struct hf_chunk *c = hf_alloc(sizeof(*c) + r * sizeof(c->entry[0]));
    if (c) {
        c->refs = 1;
        c->room = (uint16_t)r;
    }
    return c;
}

static void chunk_unref(struct hf_chunk *c)
{
    if (--c->refs == 0) {
        for (uint32_t i = 0; i < c->n; i++) {
            hf_entry_unref(c->entry[i]);
        }
        hf_free(c);
    }
}

/* First index whose name is not below `name`. */
static uint32_t chunk_seek(const struct hf_chunk *c, struct hf_slice name)
{
    uint32_t lo = 0, hi = c->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (hf_slice_cmp(hf_entry_name(c->entry[mid]), name) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* ---- parts ---- */

struct hf_part *hf_part_create(uint32_t owner, uint64_t incarnation,
                               const uint8_t salt[HF_SALT_LEN])
{
    struct hf_part *p = hf_alloc(sizeof(*p));
    if (p) {
        p->key = (struct hf_part_key){.owner = owner, .incarnation = incarnation};
        p->refs = 1;
        memcpy(p->salt, salt, HF_SALT_LEN);
    }
    return p;
}

struct hf_part *hf_part_fork(const struct hf_part *p)
{
    struct hf_part *f = hf_part_create(p->key.owner, p->key.incarnation, p->salt);
    if (!f) {
        return NULL;
    }
    f->chunk = hf_alloc_array(p->n_chunks + 1, sizeof(struct hf_chunk *));
    if (!f->chunk) {
        hf_free(f);
        return NULL;
    }
    f->chunks_room = p->n_chunks + 1;
    f->key = p->key;
    f->n_entries = p->n_entries;
    f->bytes = p->bytes;
    f->n_chunks = p->n_chunks;
    for (uint32_t i = 0; i < p->n_chunks; i++) {
        f->chunk[i] = p->chunk[i];
        f->chunk[i]->refs++;
    }
    return f;
}

struct hf_part *hf_part_ref(struct hf_part *p)
{
    p->refs++;
    return p;
}

static struct hf_slice key_slice(const struct hf_part *p)
{
    return hf_slice(&p->key, sizeof(p->key));
}

void hf_part_unref(struct hf_part *p)
{
    if (!p || --p->refs > 0) {
        return;
    }
    if (p->store && hf_map_get(&p->store->parts, key_slice(p)) == p) {
        hf_map_remove(&p->store->parts, key_slice(p));
    }
    for (uint32_t i = 0; i < p->n_chunks; i++) {
        chunk_unref(p->chunk[i]);
    }
    hf_free(p->chunk);
    hf_free(p);
}

struct hf_part_pos hf_part_seek(const struct hf_part *p, struct hf_slice name)
{
    uint32_t lo = 0, hi = p->n_chunks; /* first chunk whose last name is not below `name` */
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        const struct hf_chunk *c = p->chunk[mid];
        if (hf_slice_cmp(hf_entry_name(c->entry[c->n - 1]), name) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return (struct hf_part_pos){.chunk = lo,
                                .i = lo < p->n_chunks ? chunk_seek(p->chunk[lo], name) : 0};
}

struct hf_entry *hf_part_next(const struct hf_part *p, struct hf_part_pos *pos)
{
    while (pos->chunk < p->n_chunks) {
        const struct hf_chunk *c = p->chunk[pos->chunk];
        if (pos->i < c->n) {
            return c->entry[pos->i++];
        }
        pos->chunk++;
        pos->i = 0;
    }
    return NULL;
}

struct hf_entry *hf_part_find(const struct hf_part *p, struct hf_slice name)
{
    struct hf_part_pos pos = hf_part_seek(p, name);
    struct hf_entry *e = hf_part_next(p, &pos);
    return e && hf_slice_eq(hf_entry_name(e), name) ? e : NULL;
}

/* Room for one more chunk in the list. */
static int grow_list(struct hf_part *p)
{
    if (p->n_chunks < p->chunks_room) {
        return 0;
    }
    uint32_t room = p->chunks_room ? p->chunks_room * 2 : 4;
    struct hf_chunk **list = hf_realloc(p->chunk, room * sizeof(struct hf_chunk *));
    if (!list) {
        return -ENOMEM;
    }
    p->chunk = list;
    p->chunks_room = room;
    return 0;
}

static void list_insert(struct hf_part *p, uint32_t at, struct hf_chunk *c)
{
    memmove(p->chunk + at + 1, p->chunk + at, (p->n_chunks - at) * sizeof(struct hf_chunk *));
    p->chunk[at] = c;
    p->n_chunks++;
}

/* Make chunk `at` ours alone, with room for n entries. */
static int own_chunk(struct hf_part *p, uint32_t at, uint32_t n)
{
    struct hf_chunk *old = p->chunk[at];
    if (old->refs == 1 && old->room >= n) {
        return 0;
    }
    struct hf_chunk *c = chunk_create(n > old->n ? n : old->n);
    if (!c) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < old->n; i++) {
        c->entry[i] = hf_entry_ref(old->entry[i]);
    }
    c->n = old->n;
    p->chunk[at] = c;
    chunk_unref(old);
    return 0;
}

/* Split the full chunk `at`: appending leaves it full, otherwise in halves. */
static int split_chunk(struct hf_part *p, uint32_t at, bool append)
{
    uint32_t keep = append ? HF_CHUNK_MAX : HF_CHUNK_MAX / 2;
    int rc = grow_list(p);
    if (rc == 0) {
        rc = own_chunk(p, at, HF_CHUNK_MAX);
    }
    struct hf_chunk *right = rc ? NULL : chunk_create(HF_CHUNK_MAX);
    if (!right) {
        return -ENOMEM;
    }
    struct hf_chunk *left = p->chunk[at];
    right->n = (uint16_t)(left->n - keep);
    memcpy(right->entry, left->entry + keep, right->n * sizeof(struct hf_entry *));
    left->n = (uint16_t)keep;
    list_insert(p, at + 1, right);
    return 0;
}

static void account(struct hf_part *p, const struct hf_entry *e, bool add)
{
    uint32_t bytes = (uint32_t)e->name_len + e->value_len;
    p->bytes = add ? p->bytes + bytes : p->bytes - bytes;
    p->n_entries = add ? p->n_entries + 1 : p->n_entries - 1;
    p->key.hash = add ? p->key.hash + e->hash : p->key.hash - e->hash;
}

static int insert(struct hf_part *p, struct hf_part_pos pos, struct hf_entry *e)
{
    int rc = 0;
    if (p->n_chunks == 0) {
        struct hf_chunk *c = grow_list(p) ? NULL : chunk_create(1);
        if (!c) {
            return -ENOMEM;
        }
        list_insert(p, 0, c);
    } else if (pos.chunk == p->n_chunks) { /* behind everything: at the end of the last chunk */
        pos.chunk--;
        pos.i = p->chunk[pos.chunk]->n;
    }
    if (p->chunk[pos.chunk]->n == HF_CHUNK_MAX) {
        bool append = pos.chunk == p->n_chunks - 1 && pos.i == HF_CHUNK_MAX;
        rc = split_chunk(p, pos.chunk, append);
        if (rc == 0 && pos.i > p->chunk[pos.chunk]->n) {
            pos.i -= p->chunk[pos.chunk]->n;
            pos.chunk++;
        } else if (rc == 0 && append) {
            pos = (struct hf_part_pos){.chunk = pos.chunk + 1, .i = 0};
        }
    }
    if (rc == 0) {
        rc = own_chunk(p, pos.chunk, p->chunk[pos.chunk]->n + 1u);
    }
    if (rc) {
        return rc;
    }
    struct hf_chunk *c = p->chunk[pos.chunk];
    memmove(c->entry + pos.i + 1, c->entry + pos.i, (c->n - pos.i) * sizeof(struct hf_entry *));
    c->entry[pos.i] = hf_entry_ref(e);
    c->n++;
    account(p, e, true);
    return 0;
}

int hf_part_put(struct hf_part *p, struct hf_entry *e)
{
    assert(!p->sealed);
    struct hf_part_pos pos = hf_part_seek(p, hf_entry_name(e));
    struct hf_part_pos look = pos;
    struct hf_entry *old = hf_part_next(p, &look);
    if (old && !hf_slice_eq(hf_entry_name(old), hf_entry_name(e))) {
        old = NULL;
    }
    size_t bytes = p->bytes + (size_t)e->name_len + e->value_len;
    if (old) {
        bytes -= (size_t)old->name_len + old->value_len;
    }
    if (bytes > HF_PART_BYTES_MAX || (!old && p->n_entries >= HF_ENTRIES_PER_HOST_MAX)) {
        return -HF_EFULL;
    }
    if (!old) {
        return insert(p, pos, e);
    }
    int rc = own_chunk(p, pos.chunk, p->chunk[pos.chunk]->n);
    if (rc == 0) {
        account(p, old, false);
        account(p, e, true);
        p->chunk[pos.chunk]->entry[pos.i] = hf_entry_ref(e);
        hf_entry_unref(old);
    }
    return rc;
}

int hf_part_put_value(struct hf_part *p, struct hf_slice name, struct hf_slice value)
{
    struct hf_entry *old = hf_part_find(p, name);
    if (old && hf_slice_eq(hf_entry_value(old), value)) {
        return 0;
    }
    struct hf_entry *e = hf_entry_create(name, value);
    int rc = e ? hf_part_put(p, e) : -ENOMEM;
    hf_entry_unref(e);
    return rc;
}

int hf_part_remove(struct hf_part *p, struct hf_slice name)
{
    assert(!p->sealed);
    struct hf_part_pos pos = hf_part_seek(p, name), look = pos;
    struct hf_entry *e = hf_part_next(p, &look);
    if (!e || !hf_slice_eq(hf_entry_name(e), name)) {
        return -HF_ENOTFOUND;
    }
    int rc = own_chunk(p, pos.chunk, p->chunk[pos.chunk]->n);
    if (rc) {
        return rc;
    }
    struct hf_chunk *c = p->chunk[pos.chunk];
    c->n--;
    memmove(c->entry + pos.i, c->entry + pos.i + 1, (c->n - pos.i) * sizeof(struct hf_entry *));
    account(p, e, false);
    hf_entry_unref(e);
    if (c->n == 0) {
        chunk_unref(c);
        p->n_chunks--;
        memmove(p->chunk + pos.chunk, p->chunk + pos.chunk + 1,
                (p->n_chunks - pos.chunk) * sizeof(struct hf_chunk *));
    }
    return 0;
}

/* Both stand at the beginning of the same chunk: nothing in it differs. */
static bool skip_shared(const struct hf_part *a, struct hf_part_pos *pa, const struct hf_part *b,
                        struct hf_part_pos *pb)
{
    if (pa->i == 0 && pb->i == 0 && pa->chunk < a->n_chunks && pb->chunk < b->n_chunks &&
        a->chunk[pa->chunk] == b->chunk[pb->chunk]) {
        pa->chunk++;
        pb->chunk++;
        return true;
    }
    return false;
}

/* The entry at *pos, normalising a position at a chunk's end to the next one's beginning. */
static struct hf_entry *look(const struct hf_part *p, struct hf_part_pos *pos)
{
    if (pos->chunk < p->n_chunks && pos->i >= p->chunk[pos->chunk]->n) {
        pos->chunk++;
        pos->i = 0;
    }
    return pos->chunk < p->n_chunks ? p->chunk[pos->chunk]->entry[pos->i] : NULL;
}

bool hf_part_diff_next(const struct hf_part *before, const struct hf_part *after,
                       struct hf_part_diff *it, struct hf_entry **ret_before,
                       struct hf_entry **ret_after)
{
    static const struct hf_part nothing;
    const struct hf_part *a = before ? before : &nothing, *b = after ? after : &nothing;
    for (;;) {
        struct hf_entry *ea = look(a, &it->before), *eb = look(b, &it->after);
        if (!ea && !eb) {
            return false;
        }
        if (skip_shared(a, &it->before, b, &it->after)) {
            continue;
        }
        int c = !ea ? 1 : !eb ? -1 : hf_slice_cmp(hf_entry_name(ea), hf_entry_name(eb));
        it->before.i += c <= 0;
        it->after.i += c >= 0;
        if (c == 0 && (ea == eb || hf_slice_eq(hf_entry_value(ea), hf_entry_value(eb)))) {
            continue;
        }
        *ret_before = c <= 0 ? ea : NULL;
        *ret_after = c >= 0 ? eb : NULL;
        return true;
    }
}

/* ---- store ---- */

int hf_dir_store_create(uint32_t owners_max, uint64_t seed, struct hf_dir_store **ret_store)
{
    struct hf_dir_store *s = hf_alloc(sizeof(*s));
    if (!s) {
        return -ENOMEM;
    }
    s->owner = hf_alloc_array(owners_max, sizeof(*s->owner));
    if (!s->owner) {
        hf_free(s);
        return -ENOMEM;
    }
    s->owners_max = owners_max;
    hf_map_init(&s->owners, seed);
    hf_map_init(&s->parts, seed + 1);
    *ret_store = s;
    return 0;
}

void hf_dir_store_destroy(struct hf_dir_store *s)
{
    if (s) {
        assert(s->parts.n == 0); /* a part outlived its store: somebody kept a reference */
        hf_map_fini(&s->owners);
        hf_map_fini(&s->parts);
        hf_free(s->owner);
        hf_free(s);
    }
}

struct hf_slice hf_dir_store_name(const struct hf_dir_store *s, uint32_t owner)
{
    assert(owner < s->n_owners);
    return hf_slice(s->owner[owner].name, s->owner[owner].name_len);
}

uint32_t hf_dir_store_find_owner(const struct hf_dir_store *s, struct hf_slice name)
{
    struct hf_dir_owner *o = hf_map_get(&s->owners, name);
    return o ? (uint32_t)(o - s->owner) : HF_OWNER_NONE;
}

/* A slot that no core uses: the next fresh one, or at the limit any old one. */
static struct hf_dir_owner *free_slot(struct hf_dir_store *s)
{
    if (s->n_owners < s->owners_max) {
        return &s->owner[s->n_owners++];
    }
    for (uint32_t i = 0; i < s->n_owners; i++) {
        if (s->owner[i].users == 0) {
            hf_map_remove(&s->owners, hf_dir_store_name(s, i));
            return &s->owner[i];
        }
    }
    return NULL;
}

uint32_t hf_dir_store_owner(struct hf_dir_store *s, struct hf_slice name)
{
    assert(name.n <= HF_HOST_NAME_MAX);
    struct hf_dir_owner *o = hf_map_get(&s->owners, name);
    if (!o) {
        o = free_slot(s);
        if (!o) {
            return HF_OWNER_NONE;
        }
        *o = (struct hf_dir_owner){.name_len = (uint8_t)name.n};
        memcpy(o->name, name.p, name.n);
        if (hf_map_put(&s->owners, hf_slice(o->name, name.n), o)) {
            *o = (struct hf_dir_owner){0}; /* nameless and unused until it is taken anew */
            return HF_OWNER_NONE;
        }
    }
    return (uint32_t)(o - s->owner);
}

struct hf_part *hf_dir_store_part(struct hf_dir_store *s, const struct hf_part_key *key,
                                  const uint8_t salt[HF_SALT_LEN])
{
    struct hf_part *p = hf_map_get(&s->parts, hf_slice(key, sizeof(*key)));
    return p && memcmp(p->salt, salt, HF_SALT_LEN) == 0 ? hf_part_ref(p) : NULL;
}

struct hf_part *hf_part_seal(struct hf_part *p, uint64_t version, struct hf_dir_store *s)
{
    assert(!p->sealed);
    p->key.version = version;
    struct hf_part *same = hf_dir_store_part(s, &p->key, p->salt);
    if (same) {
        hf_part_unref(p);
        return same;
    }
    p->sealed = true;
    if (hf_map_put(&s->parts, key_slice(p), p) == 0) {
        p->store = s;
    }
    return p;
}

int hf_part_lead(struct hf_dir_store *s, const struct hf_part_key *key,
                 const uint8_t salt[HF_SALT_LEN], const struct hf_part *from,
                 struct hf_changes changes, struct hf_part **ret_part)
{
    struct hf_part *part = hf_dir_store_part(s, key, salt);
    if (part) {
        *ret_part = part;
        return 0;
    }
    part = from ? hf_part_fork(from) : hf_part_create(key->owner, key->incarnation, salt);
    int rc = part ? 0 : -ENOMEM;
    struct hf_change c;
    while (rc == 0 && hf_changes_next(&changes, &c)) {
        rc = c.removed ? hf_part_remove(part, c.name) : hf_part_put_value(part, c.name, c.value);
        rc = rc == -HF_ENOTFOUND ? 0 : rc;
    }
    if (rc == 0 && part->key.hash != key->hash) {
        rc = -HF_EMALF;
    }
    if (rc) {
        hf_part_unref(part);
        return rc;
    }
    *ret_part = hf_part_seal(part, key->version, s);
    return 0;
}
