/* Applying ordered events, and keeping them in lists. */
#include "engine/order.h"

#include <errno.h>

#include "base/err.h"
#include "base/mem.h"

struct hf_order_item *hf_order_keep(const struct hf_engine_v1_frame *f)
{
    size_t n = f->host.n + f->group.n + f->data.n;
    struct hf_order_item *it = hf_alloc(sizeof(*it) + n);
    if (!it) {
        return NULL;
    }
    hf_list_init(&it->node);
    it->n = n;
    it->f = *f;
    uint8_t *p = it->bytes;
    struct hf_slice *s[] = {&it->f.host, &it->f.group, &it->f.data};
    for (size_t i = 0; i < HF_ARRAY_LEN(s); i++) {
        if (s[i]->n) {
            memcpy(p, s[i]->p, s[i]->n);
        }
        s[i]->p = p;
        p += s[i]->n;
    }
    return it;
}

void hf_order_drop(struct hf_list *items)
{
    HF_LIST_FOREACH (l, items) {
        hf_list_unlink(l);
        hf_free(HF_CONTAINER_OF(l, struct hf_order_item, node));
    }
}

int hf_order_slot(const struct hf_engine_v1_state *st, uint32_t id)
{
    for (int i = 0; i < HF_ENGINE_V1_NODES_MAX; i++) {
        if (id && st->slot[i].id == id) {
            return i;
        }
    }
    return -1;
}

uint64_t hf_order_nodes(const struct hf_engine_v1_state *st)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < HF_ENGINE_V1_NODES_MAX; i++) {
        mask |= (uint64_t)(st->slot[i].id != 0) << i;
    }
    return mask;
}

static int find_group(const struct hf_engine_v1_state *st, struct hf_slice name)
{
    for (int i = 0; i < st->n_groups; i++) {
        if (hf_slice_eq(hf_slice_str(st->group[i].name), name)) {
            return i;
        }
    }
    return -1;
}

const struct hf_engine_v1_group *hf_order_group(const struct hf_engine_v1_state *st,
                                                struct hf_slice name)
{
    int i = find_group(st, name);
    return i < 0 ? NULL : &st->group[i];
}

bool hf_order_is_member(const struct hf_engine_v1_state *st, int slot, struct hf_slice group)
{
    const struct hf_engine_v1_group *g = hf_order_group(st, group);
    return slot >= 0 && g && g->members >> slot & 1;
}

static void copy_name(char *dst, struct hf_slice s)
{
    memcpy(dst, s.p, s.n);
    dst[s.n] = '\0';
}

static void join(struct hf_engine_v1_state *st, int slot, struct hf_slice name)
{
    int i = find_group(st, name);
    if (i < 0) {
        if (st->n_groups == HF_ENGINE_V1_GROUPS_MAX) {
            return;
        }
        i = st->n_groups++;
        st->group[i].members = 0;
        copy_name(st->group[i].name, name);
    }
    st->group[i].members |= 1ULL << slot;
}

/* Take the slots in mask out of group i; an empty group ends. */
static void part(struct hf_engine_v1_state *st, int i, uint64_t mask)
{
    st->group[i].members &= ~mask;
    if (st->group[i].members == 0) {
        st->n_groups--;
        memmove(&st->group[i], &st->group[i + 1],
                (size_t)(st->n_groups - i) * sizeof(st->group[0]));
        memset(&st->group[st->n_groups], 0, sizeof(st->group[0]));
    }
}

static int apply_up(struct hf_engine_v1_state *st, const struct hf_engine_v1_frame *ev)
{
    uint64_t free_slots = ~hf_order_nodes(st);
    if (free_slots == 0 || hf_order_slot(st, ev->node) >= 0) {
        return -HF_EPROTO;
    }
    struct hf_engine_v1_node *node = &st->slot[__builtin_ctzll(free_slots)];
    node->id = ev->node;
    node->since = ev->ord;
    node->seq = 0;
    copy_name(node->host, ev->host);
    return 0;
}

static int apply_ring(struct hf_engine_v1_state *st, const struct hf_engine_v1_frame *ev)
{
    if (ev->gone & ~hf_order_nodes(st)) {
        return -HF_EPROTO;
    }
    for (int i = st->n_groups - 1; i >= 0; i--) {
        part(st, i, ev->gone);
    }
    for (unsigned i = 0; i < HF_ENGINE_V1_NODES_MAX; i++) {
        if (ev->gone >> i & 1) {
            memset(&st->slot[i], 0, sizeof(st->slot[i]));
        }
    }
    st->node = ev->node;
    return 0;
}

static int apply_sent(struct hf_engine_v1_state *st, const struct hf_engine_v1_frame *ev)
{
    int slot = hf_order_slot(st, ev->node);
    if (slot < 0 || ev->seq <= st->slot[slot].seq) {
        return -HF_EPROTO;
    }
    st->slot[slot].seq = ev->seq;
    if (ev->kind == HF_ENGINE_V1_JOIN) {
        join(st, slot, ev->group);
    } else if (ev->kind == HF_ENGINE_V1_LEAVE && hf_order_is_member(st, slot, ev->group)) {
        part(st, find_group(st, ev->group), 1ULL << slot);
    }
    return 0;
}

int hf_order_apply(struct hf_engine_v1_state *st, const struct hf_engine_v1_frame *ev)
{
    int rc = -HF_EPROTO;
    if (ev->ord <= st->ord) {
        return rc;
    }
    switch ((enum hf_engine_v1_kind)ev->kind) {
    case HF_ENGINE_V1_MSG:
    case HF_ENGINE_V1_JOIN:
    case HF_ENGINE_V1_LEAVE:
        rc = apply_sent(st, ev);
        break;
    case HF_ENGINE_V1_UP:
        rc = apply_up(st, ev);
        break;
    case HF_ENGINE_V1_RING:
        rc = apply_ring(st, ev);
        break;
    }
    if (rc == 0) {
        st->ord = ev->ord;
    }
    return rc;
}
