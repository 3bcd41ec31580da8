/* What a backup manager has: sessions, most recently active first, with sections and items. */
#include "core/pair/store.h"

#include <assert.h>
#include <errno.h>

#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "core/pair/pair_impl.h"

struct item {
    struct hf_list node; /* in the session's order of coming */
    struct hf_pair_bytes bytes;
    uint8_t section;
    size_t key_len;
    uint8_t key[]; /* the section, then the name */
};

struct hf_pair_session {
    struct hf_list node; /* in store->sessions */
    uint64_t id;
    struct hf_map items; /* of struct item, by section and name */
    struct hf_list item_list;
    struct hf_pair_bytes section[HF_PAIR_SECTIONS_MAX];
};

struct hf_pair_store {
    struct hf_map map; /* of sessions, by id */
    struct hf_list sessions;
    struct hf_pair_session *last; /* that an operation named, or NULL */
    size_t bytes, bytes_max;
    uint64_t seed;
};

static struct hf_slice id_key(const uint64_t *id)
{
    return hf_slice(id, sizeof(*id));
}

int hf_pair_store_create(size_t bytes_max, uint64_t seed, struct hf_pair_store **ret_store)
{
    struct hf_pair_store *st = hf_alloc(sizeof(*st));
    if (!st) {
        return -ENOMEM;
    }
    hf_map_init(&st->map, seed);
    hf_list_init(&st->sessions);
    st->bytes_max = bytes_max;
    st->seed = seed;
    *ret_store = st;
    return 0;
}

static void item_destroy(struct hf_pair_store *st, struct hf_pair_session *s, struct item *it)
{
    st->bytes -= it->bytes.n + it->key_len + sizeof(*it);
    hf_map_remove(&s->items, hf_slice(it->key, it->key_len));
    hf_list_unlink(&it->node);
    hf_pair_bytes_fini(&it->bytes);
    hf_free(it);
}

static void session_destroy(struct hf_pair_store *st, struct hf_pair_session *s)
{
    HF_LIST_FOREACH (n, &s->item_list) {
        item_destroy(st, s, HF_CONTAINER_OF(n, struct item, node));
    }
    hf_map_fini(&s->items);
    for (unsigned i = 0; i < HF_PAIR_SECTIONS_MAX; i++) {
        st->bytes -= s->section[i].n;
        hf_pair_bytes_fini(&s->section[i]);
    }
    hf_map_remove(&st->map, id_key(&s->id));
    hf_list_unlink(&s->node);
    st->last = st->last == s ? NULL : st->last;
    hf_free(s);
}

void hf_pair_store_destroy(struct hf_pair_store *st)
{
    if (!st) {
        return;
    }
    HF_LIST_FOREACH (n, &st->sessions) {
        session_destroy(st, HF_CONTAINER_OF(n, struct hf_pair_session, node));
    }
    assert(st->bytes == 0);
    hf_map_fini(&st->map);
    hf_free(st);
}

static struct hf_pair_session *lookup(const struct hf_pair_store *st, uint64_t id)
{
    return st->last && st->last->id == id ? st->last : hf_map_get(&st->map, id_key(&id));
}

/* The session of an operation, which makes it the most recently active; made if it is not there. */
static int touch(struct hf_pair_store *st, uint64_t id, struct hf_pair_session **ret_s)
{
    struct hf_pair_session *s = lookup(st, id);
    if (!s) {
        if (st->map.n >= HF_PAIR_SESSIONS_MAX) {
            return -HF_EFULL;
        }
        s = hf_alloc(sizeof(*s));
        if (!s) {
            return -ENOMEM;
        }
        s->id = id;
        hf_map_init(&s->items, st->seed);
        hf_list_init(&s->item_list);
        hf_list_init(&s->node);
        if (hf_map_put(&st->map, id_key(&s->id), s) != 0) {
            hf_free(s);
            return -ENOMEM;
        }
    }
    if (s != st->last) {
        hf_list_unlink(&s->node);
        hf_list_insert(st->sessions.next, &s->node);
        st->last = s;
    }
    *ret_s = s;
    return 0;
}

static int add(struct hf_pair_store *st, struct hf_pair_bytes *b, struct hf_slice bytes)
{
    if (bytes.n > st->bytes_max - st->bytes) {
        return -HF_EFULL;
    }
    int rc = hf_pair_bytes_add(b, bytes);
    st->bytes += rc == 0 ? bytes.n : 0;
    return rc;
}

static void forget(struct hf_pair_store *st, struct hf_pair_bytes *b)
{
    st->bytes -= b->n;
    hf_pair_bytes_clear(b);
}

/* Section and name, as items are found. */
struct key {
    uint8_t p[1 + HF_PAIR_NAME_MAX];
    size_t n;
};

static struct hf_slice item_key(struct key *k, const struct hf_pair_op *op)
{
    k->p[0] = op->section;
    if (op->name.n) {
        memcpy(k->p + 1, op->name.p, op->name.n);
    }
    k->n = 1 + op->name.n;
    return hf_slice(k->p, k->n);
}

/* A new, empty item, which goes to the end of the order. */
static int item_create(struct hf_pair_store *st, struct hf_pair_session *s, struct hf_slice key,
                       struct item **ret_item)
{
    struct item *it;
    if (key.n + sizeof(*it) > st->bytes_max - st->bytes) {
        return -HF_EFULL;
    }
    it = hf_alloc(sizeof(*it) + key.n);
    if (!it) {
        return -ENOMEM;
    }
    it->section = key.p[0];
    it->key_len = key.n;
    memcpy(it->key, key.p, key.n);
    if (hf_map_put(&s->items, hf_slice(it->key, it->key_len), it) != 0) {
        hf_free(it);
        return -ENOMEM;
    }
    hf_list_insert(&s->item_list, &it->node);
    st->bytes += key.n + sizeof(*it);
    *ret_item = it;
    return 0;
}

static int apply_item(struct hf_pair_store *st, struct hf_pair_session *s,
                      const struct hf_pair_op *op)
{
    struct key k;
    struct hf_slice key = item_key(&k, op);
    struct item *it = hf_map_get(&s->items, key);
    if (op->kind == HF_PAIR_EXTEND) {
        return it ? add(st, &it->bytes, op->bytes) : -HF_EPROTO;
    }
    if (it) {
        item_destroy(st, s, it);
    }
    if (op->kind == HF_PAIR_UNSET) {
        return 0;
    }
    int rc = item_create(st, s, key, &it);
    return rc ? rc : add(st, &it->bytes, op->bytes);
}

static void clear(struct hf_pair_store *st, struct hf_pair_session *s, uint8_t section)
{
    forget(st, &s->section[section]);
    HF_LIST_FOREACH (n, &s->item_list) {
        struct item *it = HF_CONTAINER_OF(n, struct item, node);
        if (it->section == section) {
            item_destroy(st, s, it);
        }
    }
}

static int apply(struct hf_pair_store *st, const struct hf_pair_op *op)
{
    struct hf_pair_session *s;
    if (op->kind == HF_PAIR_END) {
        s = lookup(st, op->session);
        if (s) {
            session_destroy(st, s);
        }
        return 0;
    }
    int rc = touch(st, op->session, &s);
    if (rc) {
        return rc;
    }
    struct hf_pair_bytes *b = &s->section[op->section];
    switch ((enum hf_pair_op_kind)op->kind) {
    case HF_PAIR_PUT:
        forget(st, b);
        return add(st, b, op->bytes);
    case HF_PAIR_APPEND:
        return add(st, b, op->bytes);
    case HF_PAIR_CUT:
        if (op->n > b->n) {
            return -HF_EPROTO;
        }
        st->bytes -= op->n;
        hf_pair_bytes_cut(b, op->n);
        return 0;
    case HF_PAIR_CLEAR:
        clear(st, s, op->section);
        return 0;
    case HF_PAIR_SET:
    case HF_PAIR_EXTEND:
    case HF_PAIR_UNSET:
        return apply_item(st, s, op);
    case HF_PAIR_END:
        break;
    }
    return 0;
}

int hf_pair_store_apply(struct hf_pair_store *st, struct hf_slice ops)
{
    struct hf_rd r;
    struct hf_pair_op op;
    hf_rd_init(&r, ops);
    while (hf_rd_left(&r)) {
        hf_pair_op_decode(&r, &op);
        assert(!r.err);
        int rc = apply(st, &op);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

const struct hf_pair_session *hf_pair_store_next(const struct hf_pair_store *st,
                                                 const struct hf_pair_session *after)
{
    struct hf_list *n = after ? after->node.next : st->sessions.next;
    return n == &st->sessions ? NULL : HF_CONTAINER_OF(n, struct hf_pair_session, node);
}

const struct hf_pair_session *hf_pair_store_find(const struct hf_pair_store *st, uint64_t id)
{
    return lookup(st, id);
}

size_t hf_pair_store_sessions(const struct hf_pair_store *st)
{
    return st->map.n;
}

size_t hf_pair_store_bytes(const struct hf_pair_store *st)
{
    return st->bytes;
}

uint64_t hf_pair_session_id(const struct hf_pair_session *s)
{
    return s->id;
}

struct hf_slice hf_pair_session_section(const struct hf_pair_session *s, uint8_t section)
{
    return section < HF_PAIR_SECTIONS_MAX ? hf_pair_bytes_slice(&s->section[section])
                                          : hf_slice(NULL, 0);
}

bool hf_pair_session_item(const struct hf_pair_session *s, uint8_t section, const void **pos,
                          struct hf_pair_item *ret_item)
{
    const struct item *at = *pos;
    struct hf_list *n = at ? at->node.next : s->item_list.next;
    for (; n != &s->item_list; n = n->next) {
        const struct item *it = HF_CONTAINER_OF(n, struct item, node);
        if (it->section == section) {
            *pos = it;
            *ret_item = (struct hf_pair_item){
                .name = hf_slice(it->key + 1, it->key_len - 1),
                .bytes = hf_pair_bytes_slice(&it->bytes),
            };
            return true;
        }
    }
    return false;
}
