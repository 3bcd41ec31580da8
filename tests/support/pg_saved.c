/* Sessions as a peer has them: saved by the core, encoded, in a real store. */
#include "support/pg_saved.h"

#include <assert.h>

#include "base/buf.h"
#include "base/wr.h"

#define BATCH_MAX (32u << 20)

struct batch {
    uint64_t id;
    struct hf_buf bytes;
};

static void add(void *arg, struct hf_pair_op op)
{
    struct batch *b = arg;
    uint8_t room[HF_PAIR_OP_HEAD_MAX];
    struct hf_wr w;
    struct hf_slice head = {0};
    op.session = b->id;
    hf_wr_init(&w, room, sizeof(room));
    hf_pair_op_encode_head(&w, &op);
    int rc = hf_wr_end(&w, &head);
    assert(rc == 0);
    (void)rc;
    hf_buf_add(&b->bytes, head);
    hf_buf_add(&b->bytes, op.bytes);
}

static void put(void *arg, uint8_t section, struct hf_slice bytes)
{
    add(arg, (struct hf_pair_op){.kind = HF_PAIR_PUT, .section = section, .bytes = bytes});
}

static void append(void *arg, uint8_t section, struct hf_slice bytes)
{
    add(arg, (struct hf_pair_op){.kind = HF_PAIR_APPEND, .section = section, .bytes = bytes});
}

static void cut(void *arg, uint8_t section, size_t n)
{
    add(arg, (struct hf_pair_op){.kind = HF_PAIR_CUT, .section = section, .n = (uint32_t)n});
}

static void set(void *arg, uint8_t section, struct hf_slice name, struct hf_slice bytes)
{
    add(arg,
        (struct hf_pair_op){.kind = HF_PAIR_SET, .section = section, .name = name, .bytes = bytes});
}

static void unset(void *arg, uint8_t section, struct hf_slice name)
{
    add(arg, (struct hf_pair_op){.kind = HF_PAIR_UNSET, .section = section, .name = name});
}

static const struct hf_pg_save_ops save_ops = {
    .put = put,
    .append = append,
    .cut = cut,
    .set = set,
    .unset = unset,
};

static int apply(struct pg_saved *p, struct batch *b)
{
    int rc = b->bytes.err ? b->bytes.err : hf_pair_store_apply(p->store, hf_buf_slice(&b->bytes));
    hf_buf_fini(&b->bytes);
    return rc;
}

int pg_saved_save(struct pg_saved *p, struct hf_pg_session *s)
{
    struct batch b = {.id = p->id};
    hf_buf_init(&b.bytes, BATCH_MAX);
    hf_pg_session_save(s, &save_ops, &b);
    return apply(p, &b);
}

void pg_saved_end(struct pg_saved *p)
{
    struct batch b = {.id = p->id};
    if (!hf_pair_store_find(p->store, p->id)) {
        return;
    }
    hf_buf_init(&b.bytes, BATCH_MAX);
    add(&b, (struct hf_pair_op){.kind = HF_PAIR_END});
    int rc = apply(p, &b);
    assert(rc == 0);
    (void)rc;
}

static struct hf_slice section(void *arg, uint8_t n)
{
    const struct pg_saved *p = arg;
    return hf_pair_session_section(hf_pair_store_find(p->store, p->id), n);
}

static bool item(void *arg, uint8_t n, const void **pos, struct hf_slice *ret_name,
                 struct hf_slice *ret_bytes)
{
    const struct pg_saved *p = arg;
    struct hf_pair_item i;
    if (!hf_pair_session_item(hf_pair_store_find(p->store, p->id), n, pos, &i)) {
        return false;
    }
    *ret_name = i.name;
    *ret_bytes = i.bytes;
    return true;
}

struct hf_pg_saved pg_saved_load(struct pg_saved *p)
{
    return (struct hf_pg_saved){.section = section, .item = item, .arg = p};
}
