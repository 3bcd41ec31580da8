#include "hostd/tree.h"

#include <assert.h>
#include <errno.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/name.h"

/* ---- snapshot: a heap of owners by the name that each stands at ---- */

struct cursor {
    struct hf_part *part; /* owned (ref) */
    struct hf_part_pos pos;
    struct hf_entry *entry; /* it stands there */
    char owner[HF_HOST_NAME_MAX + 1];
};

struct hf_tree_walk {
    char prefix[HF_SERVICE_NAME_MAX + 1];
    size_t prefix_len;
    bool begun; /* the opening bracket is written */
    uint32_t n; /* cursors on the heap */
    uint32_t n_all;
    uint32_t *heap; /* indexes of cursors */
    struct cursor *cursor;
};

static bool below(const struct hf_tree_walk *w, uint32_t a, uint32_t b)
{
    const struct cursor *ca = &w->cursor[w->heap[a]], *cb = &w->cursor[w->heap[b]];
    int c = hf_slice_cmp(hf_entry_name(ca->entry), hf_entry_name(cb->entry));
    return c < 0 || (c == 0 && strcmp(ca->owner, cb->owner) < 0);
}

static void sift_down(struct hf_tree_walk *w, uint32_t i)
{
    for (;;) {
        uint32_t least = i;
        for (uint32_t k = 2 * i + 1; k <= 2 * i + 2; k++) {
            least = k < w->n && below(w, k, least) ? k : least;
        }
        if (least == i) {
            return;
        }
        uint32_t t = w->heap[i];
        w->heap[i] = w->heap[least];
        w->heap[least] = t;
        i = least;
    }
}

/* Step on to the next entry under the prefix; false: this owner has no more. */
static bool cursor_next(const struct hf_tree_walk *w, struct cursor *c)
{
    struct hf_slice prefix = hf_slice(w->prefix, w->prefix_len);
    while ((c->entry = hf_part_next(c->part, &c->pos))) {
        if (hf_service_under(hf_entry_name(c->entry), prefix)) {
            return true;
        }
        if (!hf_slice_starts(hf_entry_name(c->entry), prefix)) {
            return false; /* "/pg-x" may stand before "/pg/x", but all begin alike */
        }
    }
    return false;
}

struct hf_tree_walk *hf_tree_walk_create(const struct hf_dir *dir, struct hf_dir_store *store,
                                         struct hf_slice prefix)
{
    struct hf_tree_walk *w = hf_alloc(sizeof(*w));
    if (!w) {
        return NULL;
    }
    while (prefix.n > 0 && prefix.p[prefix.n - 1] == '/') {
        prefix.n--;
    }
    w->prefix_len = prefix.n < sizeof(w->prefix) ? prefix.n : sizeof(w->prefix) - 1;
    if (w->prefix_len) {
        memcpy(w->prefix, prefix.p, w->prefix_len);
    }
    w->cursor = hf_alloc_array(store->n_owners, sizeof(*w->cursor));
    w->heap = hf_alloc_array(store->n_owners, sizeof(*w->heap));
    if (!w->cursor || !w->heap) {
        hf_tree_walk_destroy(w);
        return NULL;
    }
    for (uint32_t id = 0; id < store->n_owners; id++) {
        struct hf_part *part = hf_dir_part(dir, id);
        if (!part) {
            continue;
        }
        struct cursor *c = &w->cursor[w->n_all++];
        c->part = hf_part_ref(part);
        c->pos = hf_part_seek(part, hf_slice(w->prefix, w->prefix_len));
        memcpy(c->owner, store->owner[id].name, sizeof(c->owner));
        if (cursor_next(w, c)) {
            w->heap[w->n++] = (uint32_t)(c - w->cursor);
        }
    }
    for (uint32_t i = w->n; i-- > 0;) {
        sift_down(w, i);
    }
    return w;
}

void hf_tree_walk_destroy(struct hf_tree_walk *w)
{
    if (w) {
        for (uint32_t i = 0; w->cursor && i < w->n_all; i++) {
            hf_part_unref(w->cursor[i].part);
        }
        hf_free(w->cursor);
        hf_free(w->heap);
        hf_free(w);
    }
}

bool hf_tree_walk_next(struct hf_tree_walk *w, struct hf_slice *ret_owner,
                       struct hf_entry **ret_entry)
{
    if (w->n == 0) {
        return false;
    }
    struct cursor *c = &w->cursor[w->heap[0]];
    *ret_owner = hf_slice_str(c->owner);
    *ret_entry = c->entry;
    if (!cursor_next(w, c)) {
        w->heap[0] = w->heap[--w->n];
    }
    sift_down(w, 0);
    return true;
}

bool hf_tree_walk_json(struct hf_tree_walk *w, struct hf_buf *buf, size_t enough)
{
    struct hf_slice owner;
    struct hf_entry *e;
    while (buf->n <= enough && !buf->err) {
        bool first = !w->begun;
        if (!hf_tree_walk_next(w, &owner, &e)) {
            hf_buf_str(buf, first ? "[]\n" : "\n]\n");
            return false;
        }
        hf_buf_str(buf, first ? "[\n{\"name\":" : ",\n{\"name\":");
        w->begun = true;
        hf_buf_json_str(buf, hf_entry_name(e));
        hf_buf_str(buf, ",\"owner\":");
        hf_buf_json_str(buf, owner);
        hf_buf_str(buf, ",\"value\":");
        hf_buf_add(buf, hf_entry_value(e)); /* checked JSON since it was decoded or published */
        hf_buf_str(buf, "}");
    }
    return true;
}

/* ---- follower ---- */

struct told {
    struct hf_part *part; /* owned (ref); what the reader knows of this owner */
    struct hf_part *next; /* owned (ref); what it is being told, from `it` on */
    struct hf_part_diff it;
    bool telling, dirty;
};

struct hf_follow {
    struct hf_list node;
    struct hf_follows *all;
    char prefix[HF_SERVICE_NAME_MAX + 1];
    size_t prefix_len;
    void (*wake)(void *arg);
    void *arg;
    bool synced;
    uint32_t n_told;
    struct told *told; /* owned; by owner id */
    uint32_t n_dirty;  /* entries of told that are dirty */
    uint32_t at;       /* where telling goes on */
};

struct hf_follows {
    struct hf_list list;
    const struct hf_dir *dir;
    struct hf_dir_store *store;
};

int hf_follows_create(const struct hf_dir *dir, struct hf_dir_store *store,
                      struct hf_follows **ret_follows)
{
    struct hf_follows *all = hf_alloc(sizeof(*all));
    if (!all) {
        return -ENOMEM;
    }
    hf_list_init(&all->list);
    all->dir = dir;
    all->store = store;
    *ret_follows = all;
    return 0;
}

void hf_follows_destroy(struct hf_follows *all)
{
    if (all) {
        HF_LIST_FOREACH (node, &all->list) {
            hf_list_unlink(node); /* its reader destroys it */
        }
        hf_free(all);
    }
}

/* Room for owner ids as the store has them by now. */
static int grow(struct hf_follow *f)
{
    uint32_t n = f->all->store->n_owners;
    if (n <= f->n_told) {
        return 0;
    }
    struct told *t = hf_realloc(f->told, n * sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    memset(t + f->n_told, 0, (n - f->n_told) * sizeof(*t));
    f->told = t;
    f->n_told = n;
    return 0;
}

static void mark(struct hf_follow *f, uint32_t owner)
{
    if (grow(f) == 0 && !f->told[owner].dirty) {
        f->told[owner].dirty = true;
        f->n_dirty++;
    }
}

struct hf_follow *hf_follow_create(struct hf_follows *all, struct hf_slice prefix,
                                   void (*wake)(void *arg), void *arg)
{
    struct hf_follow *f = hf_alloc(sizeof(*f));
    if (!f) {
        return NULL;
    }
    f->all = all;
    f->wake = wake;
    f->arg = arg;
    f->prefix_len = prefix.n < sizeof(f->prefix) ? prefix.n : sizeof(f->prefix) - 1;
    if (f->prefix_len) {
        memcpy(f->prefix, prefix.p, f->prefix_len);
    }
    hf_list_init(&f->node);
    if (grow(f)) {
        hf_free(f);
        return NULL;
    }
    hf_list_insert(&all->list, &f->node);
    for (uint32_t id = 0; id < all->store->n_owners; id++) {
        if (hf_dir_part(all->dir, id)) {
            mark(f, id);
        }
    }
    return f;
}

void hf_follow_destroy(struct hf_follow *f)
{
    if (!f) {
        return;
    }
    for (uint32_t id = 0; id < f->n_told; id++) {
        struct told *t = &f->told[id];
        if (t->part || t->telling) {
            f->all->store->owner[id].users--;
        }
        hf_part_unref(t->part);
        hf_part_unref(t->next);
    }
    hf_list_unlink(&f->node);
    hf_free(f->told);
    hf_free(f);
}

void hf_follows_changed(struct hf_follows *all, uint32_t owner)
{
    HF_LIST_FOREACH (node, &all->list) {
        struct hf_follow *f = HF_CONTAINER_OF(node, struct hf_follow, node);
        mark(f, owner);
        f->wake(f->arg);
    }
}

/* Begin to tell an owner's present part. Its id must keep its meaning while something is told. */
static void begin(struct hf_follow *f, uint32_t owner)
{
    struct told *t = &f->told[owner];
    struct hf_part *now = hf_dir_part(f->all->dir, owner);
    if (!t->part) {
        f->all->store->owner[owner].users++;
    }
    t->next = now ? hf_part_ref(now) : NULL;
    t->it = (struct hf_part_diff){0};
    t->telling = true;
    t->dirty = false;
    f->n_dirty--;
}

static void end(struct hf_follow *f, uint32_t owner)
{
    struct told *t = &f->told[owner];
    hf_part_unref(t->part);
    t->part = t->next;
    t->next = NULL;
    t->telling = false;
    if (!t->part) {
        f->all->store->owner[owner].users--;
    }
}

/* Tell of one owner; returns how many events of `most` are left. */
static uint32_t tell_owner(struct hf_follow *f, uint32_t owner, uint32_t most, hf_follow_fn *fn,
                           void *arg)
{
    struct told *t = &f->told[owner];
    struct hf_slice prefix = hf_slice(f->prefix, f->prefix_len);
    struct hf_entry *before, *after;
    while (most > 0) {
        if (!hf_part_diff_next(t->part, t->next, &t->it, &before, &after)) {
            end(f, owner);
            return most;
        }
        enum hf_follow_event event = after ? HF_FOLLOW_ADDED : HF_FOLLOW_REMOVED;
        if (before && after) {
            event = HF_FOLLOW_CHANGED;
        }
        struct hf_entry *e = after ? after : before;
        assert(e); /* a name that differs is in one of the two */
        if (hf_service_under(hf_entry_name(e), prefix)) {
            fn(arg, event, hf_dir_store_name(f->all->store, owner), e);
            most--;
        }
    }
    return 0;
}

bool hf_follow_tell(struct hf_follow *f, uint32_t most, hf_follow_fn *fn, void *arg)
{
    for (uint32_t seen = 0; seen <= f->n_told && most > 0; seen++) {
        if (f->at >= f->n_told) {
            f->at = 0;
        }
        if (f->n_told > 0 && !f->told[f->at].telling && f->told[f->at].dirty) {
            begin(f, f->at);
        }
        if (f->n_told > 0 && f->told[f->at].telling) {
            most = tell_owner(f, f->at, most, fn, arg);
            seen = 0;
            if (f->told[f->at].telling || f->told[f->at].dirty) {
                continue;
            }
        }
        if (f->n_dirty == 0) {
            break;
        }
        f->at++;
    }
    bool more = f->n_dirty > 0 || (f->at < f->n_told && f->told[f->at].telling);
    /* before we run, the tree is what we had time to hear of: that is not "all there was" */
    bool sync = !more && !f->synced && hf_dir_state(f->all->dir) >= HF_DIR_RUN;
    if (sync && most > 0) {
        f->synced = true;
        fn(arg, HF_FOLLOW_SYNCED, hf_slice(NULL, 0), NULL);
    }
    return more || (sync && most == 0);
}
