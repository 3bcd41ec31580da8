/* What the Corosync engine multicasts, version 1: encoder and decoder. */
#include "codec/cpg_v1.h"

#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/rd.h"

#define HASH_AT 4u

const char *hf_cpg_v1_kind_name(int kind)
{
    switch (kind) {
#define HF_CPG_V1_NAME(name, num, text)                                                            \
    case num:                                                                                      \
        return #name;
        HF_CPG_V1_LIST(HF_CPG_V1_NAME)
#undef HF_CPG_V1_NAME
    default:
        return NULL;
    }
}

static void encode_members(struct hf_wr *w, const struct hf_cpg_v1_frame *f)
{
    hf_wr_u8(w, f->n);
    for (unsigned i = 0; i < f->n; i++) {
        hf_wr_u32(w, f->member[i].node);
        hf_wr_u32(w, f->member[i].pid);
        hf_wr_str8(w, f->member[i].host);
    }
}

static void decode_members(struct hf_rd *r, struct hf_cpg_v1_frame *f)
{
    uint32_t last = 0;
    f->n = hf_rd_u8(r);
    if (f->n == 0 || f->n > HF_CPG_V1_MEMBERS_MAX) {
        hf_rd_fail(r, -HF_EMALF);
        f->n = 0;
    }
    for (unsigned i = 0; i < f->n && !r->err; i++) {
        f->member[i].node = hf_rd_u32(r);
        f->member[i].pid = hf_rd_u32(r);
        f->member[i].host = hf_rd_word(r, HF_HOST_NAME_MAX);
        if (f->member[i].node <= last) {
            hf_rd_fail(r, -HF_EMALF);
        }
        last = f->member[i].node;
    }
}

static void encode_body(struct hf_wr *w, const struct hf_cpg_v1_frame *f)
{
    switch ((enum hf_cpg_v1_kind)f->kind) {
    case HF_CPG_V1_MSG:
        hf_wr_str16(w, f->data);
        return;
    case HF_CPG_V1_PROBE:
        hf_wr_u64(w, f->nonce);
        return;
    case HF_CPG_V1_HELLO:
    case HF_CPG_V1_STATE:
    case HF_CPG_V1_WELCOME:
    case HF_CPG_V1_TAKE:
        hf_wr_u32(w, f->rep);
        hf_wr_u64(w, f->ring);
        break;
    }
    if (f->kind == HF_CPG_V1_HELLO) {
        hf_wr_u64(w, f->nonce);
        hf_wr_str8(w, f->host);
    } else if (f->kind == HF_CPG_V1_STATE) {
        encode_members(w, f);
    } else if (f->kind == HF_CPG_V1_WELCOME) {
        hf_wr_u32(w, f->node);
        hf_wr_u32(w, f->pid);
        hf_wr_u64(w, f->nonce);
        hf_wr_u32(w, f->delta);
        hf_wr_u64(w, f->count);
        encode_members(w, f);
    }
}

void hf_cpg_v1_encode(struct hf_wr *w, const struct hf_cpg_v1_frame *f)
{
    struct hf_slice s;
    size_t start = hf_wr_len(w);
    hf_wr_u16(w, HF_CPG_V1_MAGIC);
    hf_wr_u8(w, HF_CPG_V1_VERSION);
    hf_wr_u8(w, f->kind);
    hf_wr_u64(w, 0);
    encode_body(w, f);
    if (hf_wr_end(w, &s) == 0) {
        size_t at = start + HF_CPG_V1_HEAD;
        struct hf_slice body = hf_slice(w->base + at, hf_wr_len(w) - at);
        hf_wr_patch_u64(w, start + HASH_AT, hf_hash(body, HF_CPG_V1_SEED(f->kind)));
    }
}

static void decode_body(struct hf_rd *r, struct hf_cpg_v1_frame *f)
{
    switch ((enum hf_cpg_v1_kind)f->kind) {
    case HF_CPG_V1_MSG:
        f->data = hf_rd_str16(r, HF_CPG_V1_DATA_MAX);
        return;
    case HF_CPG_V1_PROBE:
        f->nonce = hf_rd_u64(r);
        return;
    case HF_CPG_V1_HELLO:
    case HF_CPG_V1_STATE:
    case HF_CPG_V1_WELCOME:
    case HF_CPG_V1_TAKE:
        f->rep = hf_rd_u32(r);
        f->ring = hf_rd_u64(r);
        break;
    default:
        hf_rd_fail(r, -HF_EMALF);
    }
    if (f->kind == HF_CPG_V1_HELLO) {
        f->nonce = hf_rd_u64(r);
        f->host = hf_rd_word(r, HF_HOST_NAME_MAX);
    } else if (f->kind == HF_CPG_V1_STATE) {
        decode_members(r, f);
    } else if (f->kind == HF_CPG_V1_WELCOME) {
        f->node = hf_rd_u32(r);
        f->pid = hf_rd_u32(r);
        f->nonce = hf_rd_u64(r);
        f->delta = hf_rd_u32(r);
        f->count = hf_rd_u64(r);
        decode_members(r, f);
    }
}

int hf_cpg_v1_decode(struct hf_slice in, struct hf_cpg_v1_frame *ret_frame)
{
    struct hf_rd r;
    struct hf_cpg_v1_frame f;
    memset(&f, 0, sizeof(f));
    hf_rd_init(&r, in);
    if (hf_rd_u16(&r) != HF_CPG_V1_MAGIC) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    if (hf_rd_u8(&r) != HF_CPG_V1_VERSION) {
        hf_rd_fail(&r, -HF_EVERSION);
    }
    f.kind = hf_rd_u8(&r);
    uint64_t hash = hf_rd_u64(&r);
    if (!r.err && hash != hf_hash(hf_slice(r.p, hf_rd_left(&r)), HF_CPG_V1_SEED(f.kind))) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    decode_body(&r, &f);
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        *ret_frame = f;
    }
    return rc;
}
