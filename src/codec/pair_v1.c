/* Pair protocol, version 1: encoder and decoder. */
#include "codec/pair_v1.h"

#include "base/err.h"

#define FLAG_MORE 1u
#define FLAG_COMPLETE 2u

const char *hf_pair_v1_type_name(int type)
{
    switch (type) {
#define HF_PAIR_V1_NAME(name, num, text)                                                           \
    case num:                                                                                      \
        return #name;
        HF_PAIR_V1_LIST(HF_PAIR_V1_NAME)
#undef HF_PAIR_V1_NAME
    default:
        return NULL;
    }
}

void hf_pair_v1_encode(struct hf_wr *w, const struct hf_pair_v1_frame *f)
{
    size_t at = hf_wr_len(w);
    bool batch = f->type == HF_PAIR_V1_BATCH;
    hf_wr_u32(w, 0);
    hf_wr_u8(w, f->type);
    hf_wr_u8(w,
             (uint8_t)(batch ? (f->more ? FLAG_MORE : 0) | (f->complete ? FLAG_COMPLETE : 0) : 0));
    hf_wr_u16(w, HF_PAIR_V1_MAGIC);
    hf_wr_u64(w, f->epoch);
    switch ((enum hf_pair_v1_type)f->type) {
    case HF_PAIR_V1_HELLO:
        hf_wr_u8(w, f->version_min);
        hf_wr_u8(w, f->version);
        hf_wr_u64(w, f->incarnation);
        break;
    case HF_PAIR_V1_WELCOME:
        hf_wr_u8(w, f->version);
        hf_wr_u8(w, f->complete);
        hf_wr_u64(w, f->incarnation);
        hf_wr_u64(w, f->number);
        break;
    case HF_PAIR_V1_SYNC:
        hf_wr_u64(w, f->number);
        break;
    case HF_PAIR_V1_BATCH:
        hf_wr_u64(w, f->number);
        hf_wr_bytes(w, f->ops);
        break;
    case HF_PAIR_V1_CONFIRM:
        hf_wr_u64(w, f->number);
        hf_wr_u8(w, f->complete);
        break;
    case HF_PAIR_V1_BEAT:
        hf_wr_u64(w, f->clock);
        hf_wr_u64(w, f->echo);
        break;
    case HF_PAIR_V1_BYE:
        hf_wr_u32(w, (uint32_t)f->code);
        break;
    }
    if (!w->err) {
        hf_wr_patch_u32(w, at, (uint32_t)(hf_wr_len(w) - at - 4));
    }
}

int hf_pair_v1_frame_len(struct hf_slice in, size_t *ret_n)
{
    struct hf_rd r;
    hf_rd_init(&r, in);
    size_t n = (size_t)hf_rd_u32(&r) + 4;
    if (in.n < HF_PAIR_V1_HEAD_LEN) {
        *ret_n = 0; /* what begins wrongly is seen a little later */
        return 0;
    }
    hf_rd_u16(&r);
    if (hf_rd_u16(&r) != HF_PAIR_V1_MAGIC || n < HF_PAIR_V1_HEAD_LEN || n > HF_PAIR_V1_FRAME_MAX) {
        return -HF_EMALF;
    }
    *ret_n = n;
    return 0;
}

/* A number, an incarnation that is there. */
static uint64_t decode_u64_not_0(struct hf_rd *r)
{
    uint64_t v = hf_rd_u64(r);
    if (v == 0) {
        hf_rd_fail(r, -HF_EMALF);
    }
    return v;
}

static struct hf_slice decode_ops(struct hf_rd *r)
{
    struct hf_slice ops = hf_rd_bytes(r, hf_rd_left(r));
    struct hf_rd in;
    struct hf_pair_op op;
    hf_rd_init(&in, ops);
    while (hf_rd_left(&in)) {
        hf_pair_op_decode(&in, &op);
    }
    if (in.err) {
        hf_rd_fail(r, in.err);
    }
    return ops;
}

static void decode_fields(struct hf_rd *r, struct hf_pair_v1_frame *f)
{
    switch ((enum hf_pair_v1_type)f->type) {
    case HF_PAIR_V1_HELLO:
        f->version_min = hf_rd_u8(r);
        f->version = hf_rd_u8(r);
        f->incarnation = decode_u64_not_0(r);
        if (f->version_min == 0 || f->version_min > f->version) {
            hf_rd_fail(r, -HF_EMALF);
        }
        break;
    case HF_PAIR_V1_WELCOME:
        f->version = hf_rd_u8(r);
        f->complete = hf_rd_bool(r);
        f->incarnation = hf_rd_u64(r);
        f->number = hf_rd_u64(r);
        break;
    case HF_PAIR_V1_SYNC:
        f->number = decode_u64_not_0(r);
        break;
    case HF_PAIR_V1_BATCH:
        f->number = decode_u64_not_0(r);
        f->ops = decode_ops(r);
        break;
    case HF_PAIR_V1_CONFIRM:
        f->number = hf_rd_u64(r);
        f->complete = hf_rd_bool(r);
        break;
    case HF_PAIR_V1_BEAT:
        f->clock = hf_rd_u64(r);
        f->echo = hf_rd_u64(r);
        break;
    case HF_PAIR_V1_BYE:
        f->code = (int32_t)hf_rd_u32(r);
        break;
    default:
        hf_rd_fail(r, -HF_EMALF);
    }
}

int hf_pair_v1_decode(struct hf_slice in, struct hf_pair_v1_frame *ret_frame)
{
    struct hf_rd r;
    struct hf_pair_v1_frame f = {0};
    hf_rd_init(&r, in);
    size_t n = hf_rd_u32(&r);
    f.type = hf_rd_u8(&r);
    uint8_t flags = hf_rd_u8(&r);
    uint16_t magic = hf_rd_u16(&r);
    f.epoch = hf_rd_u64(&r);
    if (!r.err && (magic != HF_PAIR_V1_MAGIC || n + 4 > HF_PAIR_V1_FRAME_MAX ||
                   flags & ~(f.type == HF_PAIR_V1_BATCH ? FLAG_MORE | FLAG_COMPLETE : 0u) ||
                   flags == (FLAG_MORE | FLAG_COMPLETE))) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    if (!r.err && n + 4 > in.n) {
        hf_rd_fail(&r, -HF_ETRUNC);
    }
    f.more = flags & FLAG_MORE;
    if (!r.err && n + 4 < in.n) {
        hf_rd_fail(&r, -HF_ETRAIL);
    }
    decode_fields(&r, &f);
    if (f.type == HF_PAIR_V1_BATCH) {
        f.complete = flags & FLAG_COMPLETE;
    }
    int rc = hf_rd_end(&r);
    if (rc) {
        return rc;
    }
    *ret_frame = f;
    return 0;
}

void hf_pair_op_encode_head(struct hf_wr *w, const struct hf_pair_op *op)
{
    hf_wr_u8(w, op->kind);
    hf_wr_u8(w, op->section);
    hf_wr_u64(w, op->session);
    switch ((enum hf_pair_op_kind)op->kind) {
    case HF_PAIR_SET:
    case HF_PAIR_EXTEND:
        hf_wr_str8(w, op->name);
        hf_wr_u32(w, (uint32_t)op->bytes.n);
        break;
    case HF_PAIR_UNSET:
        hf_wr_str8(w, op->name);
        break;
    case HF_PAIR_PUT:
    case HF_PAIR_APPEND:
        hf_wr_u32(w, (uint32_t)op->bytes.n);
        break;
    case HF_PAIR_CUT:
        hf_wr_u32(w, op->n);
        break;
    case HF_PAIR_CLEAR:
    case HF_PAIR_END:
        break;
    }
}

void hf_pair_op_decode(struct hf_rd *r, struct hf_pair_op *ret_op)
{
    struct hf_pair_op op = {0};
    op.kind = hf_rd_u8(r);
    op.section = hf_rd_u8(r);
    op.session = decode_u64_not_0(r);
    if (op.section >= HF_PAIR_SECTIONS_MAX || (op.kind == HF_PAIR_END && op.section)) {
        hf_rd_fail(r, -HF_EMALF);
    }
    switch ((enum hf_pair_op_kind)op.kind) {
    case HF_PAIR_SET:
    case HF_PAIR_EXTEND:
        op.name = hf_rd_str8(r, HF_PAIR_NAME_MAX);
        op.bytes = hf_rd_str32(r, HF_PAIR_V1_FRAME_MAX);
        break;
    case HF_PAIR_UNSET:
        op.name = hf_rd_str8(r, HF_PAIR_NAME_MAX);
        break;
    case HF_PAIR_PUT:
    case HF_PAIR_APPEND:
        op.bytes = hf_rd_str32(r, HF_PAIR_V1_FRAME_MAX);
        break;
    case HF_PAIR_CUT:
        op.n = hf_rd_u32(r);
        break;
    case HF_PAIR_CLEAR:
    case HF_PAIR_END:
        break;
    default:
        hf_rd_fail(r, -HF_EMALF);
    }
    *ret_op = op;
}
