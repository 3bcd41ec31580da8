/* What is under way: units, the special messages in them, prepared statements and portals. */
#include <assert.h>
#include <errno.h>

#include "base/mem.h"
#include "core/pg/session_impl.h"

struct unit *hf_pg_unit_at(struct hf_pg_session *s, uint32_t i)
{
    assert(i < s->n_units);
    return &s->unit[(s->unit_head + i) % UNITS_MAX];
}

struct unit *hf_pg_unit_head(struct hf_pg_session *s)
{
    return s->n_units ? hf_pg_unit_at(s, 0) : NULL;
}

struct unit *hf_pg_unit_last(struct hf_pg_session *s)
{
    return s->n_units ? hf_pg_unit_at(s, s->n_units - 1) : NULL;
}

struct unit *hf_pg_unit_push(struct hf_pg_session *s, enum unit_kind kind)
{
    assert(s->n_units < UNITS_MAX);
    s->n_units++;
    struct unit *u = hf_pg_unit_last(s);
    *u = (struct unit){.kind = kind, .repeatable = true, .tickets = s->tickets, .since = s->now};
    return u;
}

struct unit *hf_pg_unit_push_front(struct hf_pg_session *s)
{
    assert(s->n_units < UNITS_MAX);
    s->unit_head = (s->unit_head + UNITS_MAX - 1) % UNITS_MAX;
    s->n_units++;
    s->unit_no--;
    struct unit *u = hf_pg_unit_at(s, 0);
    *u = (struct unit){.kind = UNIT_HIDDEN, .ended = true, .since = s->now};
    return u;
}

void hf_pg_unit_pop(struct hf_pg_session *s)
{
    assert(s->n_units);
    hf_pg_ops_revert(s, s->unit_no);
    s->n_units--;
    s->unit_no++;
    s->unit_head = s->n_units ? (s->unit_head + 1) % UNITS_MAX : 0; /* mostly the same memory */
}

int hf_pg_op_push(struct hf_pg_session *s, enum op_kind kind, struct prepared *p)
{
    if (s->op_head && s->op_head == s->n_ops)
        s->op_head = s->n_ops = 0;
    if (s->n_ops == s->ops_room) {
        size_t room = s->ops_room ? s->ops_room * 2 : 8;
        struct op *op = hf_realloc(s->op, room * sizeof(*op));
        if (!op)
            return -ENOMEM;
        s->op = op;
        s->ops_room = room;
    }
    struct unit *u = hf_pg_unit_last(s);
    s->saved.prepared_changed |= kind == OP_CLOSE;
    s->op[s->n_ops++] = (struct op){
        .kind = kind, .unit = s->unit_no + s->n_units - 1, .ordinal = u->n_sent, .p = p};
    return 0;
}

struct op *hf_pg_op_at(struct hf_pg_session *s, uint32_t ordinal)
{
    if (s->op_head == s->n_ops)
        return NULL;
    struct op *op = &s->op[s->op_head];
    return op->unit == s->unit_no && op->ordinal == ordinal ? op : NULL;
}

void hf_pg_op_pop(struct hf_pg_session *s)
{
    s->op_head++;
    if (s->op_head == s->n_ops)
        s->op_head = s->n_ops = 0;
}

/* A Parse that did not happen: what its unnamed statement took the place of is there still, unless
 * it was this Parse that failed, which destroys it; a later Parse may have taken its place, too. */
static void revert_parse(struct hf_pg_session *s, struct op *op, const struct unit *u)
{
    bool destroys = u->failed && op->ordinal == u->n_done + 1;
    struct prepared *before = destroys ? NULL : op->before;
    struct op *heir = NULL;
    for (size_t i = s->op_head; i < s->n_ops && op->p; i++)
        heir = s->op[i].before == op->p ? &s->op[i] : heir;
    if (destroys)
        hf_pg_prepared_destroy(op->before);
    op->before = NULL;
    if (heir) {
        heir->before = before;
        heir->before_lost = op->before_lost;
    }
    if (op->p)
        hf_pg_prepared_remove(s, op->p);
    if (heir)
        return;
    s->saved.prepared_changed = true;
    if (before && !s->unnamed) {
        s->unnamed = before;
        s->unnamed_lost = op->before_lost;
    } else {
        hf_pg_prepared_destroy(before);
    }
}

static void revert(struct hf_pg_session *s, struct op *op, const struct unit *u)
{
    struct prepared *p = op->p;
    switch (op->kind) {
    case OP_PARSE: /* it is not there after all */
        revert_parse(s, op, u);
        break;
    case OP_CLOSE: /* it is there still */
        if (!p)
            break;
        s->saved.prepared_changed = true;
        if (hf_map_put(&s->prepared, p->name, p) == 0) {
            hf_list_insert(&s->prepared_list, &p->link);
            s->prepared_bytes += p->body_len;
        } else {
            hf_pg_prepared_destroy(p);
            s->sticky |= HF_PG_REASON_PREPARED;
        }
        break;
    case OP_REPARSE:
    case OP_DESCRIBE:
    case OP_COMMIT:
    case OP_INSERT:
        break;
    }
}

void hf_pg_ops_revert(struct hf_pg_session *s, uint32_t unit)
{
    size_t end = s->op_head;
    while (end < s->n_ops && s->op[end].unit == unit)
        end++;
    for (size_t i = end; i > s->op_head; i--)
        revert(s, &s->op[i - 1], hf_pg_unit_at(s, unit - s->unit_no));
    s->op_head = end;
    if (s->op_head == s->n_ops)
        s->op_head = s->n_ops = 0;
}

/* --- prepared statements --- */

struct prepared *hf_pg_prepared_create(struct hf_pg_session *s, struct hf_slice body,
                                       struct hf_slice name, const struct hf_pg_class *class)
{
    struct prepared *p = hf_alloc(sizeof(*p));
    uint8_t *copy = p ? hf_alloc(body.n) : NULL;
    if (!copy) {
        hf_free(p);
        return NULL;
    }
    memcpy(copy, body.p, body.n);
    hf_list_init(&p->link);
    p->body = copy;
    p->body_len = body.n;
    p->name = hf_slice(copy, name.n); /* the name comes first */
    p->class = hf_pg_class_ref(class);
    p->unit = s->unit_no + (s->n_units ? s->n_units - 1 : 0);
    p->saved = &s->saved;
    s->saved.prepared_changed = true;
    return p;
}

void hf_pg_prepared_destroy(struct prepared *p)
{
    if (!p)
        return;
    hf_list_unlink(&p->link);
    hf_pg_class_unref(p->class);
    if (p->id)
        hf_buf_add(&p->saved->gone, hf_slice(&p->id, sizeof(p->id)));
    hf_free(p->body);
    hf_free(p);
}

struct prepared *hf_pg_prepared_find(struct hf_pg_session *s, struct hf_slice name)
{
    return name.n ? hf_map_get(&s->prepared, name) : s->unnamed;
}

void hf_pg_prepared_remove(struct hf_pg_session *s, struct prepared *p)
{
    for (size_t i = s->op_head; i < s->n_ops; i++) {
        if (s->op[i].p == p)
            s->op[i].p = NULL;
    }
    if (p == s->unnamed) {
        s->unnamed = NULL;
    } else if (hf_map_get(&s->prepared, p->name) == p) {
        hf_map_remove(&s->prepared, p->name);
        s->prepared_bytes -= p->body_len;
    }
    hf_pg_prepared_destroy(p);
}

static bool in_log(const struct hf_pg_session *s, const struct prepared *p)
{
    return (int32_t)(p->unit - s->log_unit) >= 0;
}

void hf_pg_prepared_close(struct hf_pg_session *s, struct prepared *p)
{
    if (hf_map_get(&s->prepared, p->name) == p) {
        hf_map_remove(&s->prepared, p->name);
        s->prepared_bytes -= p->body_len;
    }
    s->saved.prepared_changed = true;
    hf_list_unlink(&p->link);
    if (in_log(s, p))
        hf_pg_prepared_destroy(p);
    else
        hf_list_insert(&s->closed_list, &p->link);
}

void hf_pg_closed_forget(struct hf_pg_session *s)
{
    HF_LIST_FOREACH (l, &s->closed_list) {
        hf_pg_prepared_destroy(HF_CONTAINER_OF(l, struct prepared, link));
    }
}

void hf_pg_prepared_rewind(struct hf_pg_session *s)
{
    HF_LIST_FOREACH (l, &s->prepared_list) {
        struct prepared *p = HF_CONTAINER_OF(l, struct prepared, link);
        if (in_log(s, p))
            hf_pg_prepared_remove(s, p);
    }
    if (s->unnamed && in_log(s, s->unnamed))
        hf_pg_prepared_remove(s, s->unnamed);
    s->saved.prepared_changed = true;
    HF_LIST_FOREACH (l, &s->closed_list) {
        struct prepared *p = HF_CONTAINER_OF(l, struct prepared, link);
        hf_list_unlink(&p->link);
        if (hf_map_put(&s->prepared, p->name, p)) {
            hf_pg_prepared_destroy(p);
            s->sticky |= HF_PG_REASON_PREPARED;
            continue;
        }
        hf_list_insert(&s->prepared_list, &p->link);
        s->prepared_bytes += p->body_len;
    }
}

void hf_pg_prepared_forget_all(struct hf_pg_session *s)
{
    HF_LIST_FOREACH (l, &s->prepared_list) {
        hf_pg_prepared_close(s, HF_CONTAINER_OF(l, struct prepared, link));
    }
    size_t pos = 0;
    for (struct prepared *p; (p = hf_map_next(&s->sql_prepared, &pos));) {
        hf_map_remove(&s->sql_prepared, p->name);
        hf_pg_prepared_destroy(p);
    }
}

void hf_pg_sql_prepared_set(struct hf_pg_session *s, struct hf_slice name,
                            const struct hf_pg_class *class)
{
    struct prepared *old = hf_map_remove(&s->sql_prepared, name);
    hf_pg_prepared_destroy(old);
    if (!class || s->sql_prepared.n >= OPS_MAX)
        return;
    struct prepared *p = hf_pg_prepared_create(s, name, name, class);
    if (p && hf_map_put(&s->sql_prepared, p->name, p) != 0)
        hf_pg_prepared_destroy(p);
}

/* --- portals --- */

static struct portal *portal_find(struct hf_pg_session *s, struct hf_slice name)
{
    HF_LIST_FOREACH (l, &s->portals) {
        struct portal *p = HF_CONTAINER_OF(l, struct portal, link);
        if (hf_slice_eq(hf_slice(p->name, p->name_len), name))
            return p;
    }
    return NULL;
}

const struct hf_pg_class *hf_pg_portal_class(struct hf_pg_session *s, struct hf_slice name)
{
    if (name.n == 0)
        return s->portal_class;
    struct portal *p = portal_find(s, name);
    return p ? p->class : NULL;
}

void hf_pg_portal_bind(struct hf_pg_session *s, struct hf_slice name,
                       const struct hf_pg_class *class)
{
    if (name.n == 0) {
        if (s->portal_class == class)
            return;
        hf_pg_class_unref(s->portal_class);
        s->portal_class = class ? hf_pg_class_ref(class) : NULL;
        return;
    }
    struct portal *p = portal_find(s, name);
    if (!p) {
        if (!class || s->n_portals >= PORTALS_MAX)
            return; /* executing it will be taken as unknown */
        p = hf_alloc(sizeof(*p) + name.n);
        if (!p)
            return;
        memcpy(p->name, name.p, name.n);
        p->name_len = name.n;
        hf_list_init(&p->link);
        hf_list_insert(&s->portals, &p->link);
        s->n_portals++;
    }
    hf_pg_class_unref(p->class);
    p->class = class ? hf_pg_class_ref(class) : NULL;
}

void hf_pg_portals_forget(struct hf_pg_session *s)
{
    HF_LIST_FOREACH (l, &s->portals) {
        struct portal *p = HF_CONTAINER_OF(l, struct portal, link);
        hf_list_unlink(&p->link);
        hf_pg_class_unref(p->class);
        hf_free(p);
    }
    s->n_portals = 0;
}
