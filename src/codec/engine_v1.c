/* Sequencer protocol, version 1: encoder and decoder. */
#include "codec/engine_v1.h"

#include <stdbool.h>

#include "base/err.h"
#include "base/rd.h"

const char *hf_engine_v1_type_name(int type)
{
    switch (type) {
#define HF_ENGINE_V1_NAME(name, num, text)                                                         \
    case num:                                                                                      \
        return #name;
        HF_ENGINE_V1_LIST(HF_ENGINE_V1_NAME)
#undef HF_ENGINE_V1_NAME
    default:
        return NULL;
    }
}

static void encode_what(struct hf_wr *w, const struct hf_engine_v1_frame *f)
{
    hf_wr_u8(w, f->kind);
    switch ((enum hf_engine_v1_kind)f->kind) {
    case HF_ENGINE_V1_MSG:
    case HF_ENGINE_V1_JOIN:
    case HF_ENGINE_V1_LEAVE:
        hf_wr_u64(w, f->seq);
        hf_wr_str8(w, f->group);
        if (f->kind == HF_ENGINE_V1_MSG) {
            hf_wr_str16(w, f->data);
        }
        break;
    case HF_ENGINE_V1_UP:
        hf_wr_str8(w, f->host);
        break;
    case HF_ENGINE_V1_RING:
        hf_wr_u64(w, f->gone);
        hf_wr_u64(w, f->silent);
        break;
    }
}

void hf_engine_v1_encode(struct hf_wr *w, const struct hf_engine_v1_frame *f)
{
    hf_wr_u8(w, f->type);
    switch ((enum hf_engine_v1_type)f->type) {
    case HF_ENGINE_V1_HELLO:
        hf_wr_u8(w, f->version);
        hf_wr_u32(w, f->node);
        hf_wr_u64(w, f->since);
        hf_wr_u64(w, f->ord);
        hf_wr_str8(w, f->host);
        break;
    case HF_ENGINE_V1_STATE:
        hf_wr_bytes(w, f->data);
        break;
    case HF_ENGINE_V1_EVENT:
        hf_wr_u64(w, f->ord);
        hf_wr_u64(w, f->stable);
        hf_wr_u32(w, f->node);
        encode_what(w, f);
        break;
    case HF_ENGINE_V1_READY:
        hf_wr_u64(w, f->ord);
        break;
    case HF_ENGINE_V1_SEND:
        hf_wr_u64(w, f->ord);
        encode_what(w, f);
        break;
    case HF_ENGINE_V1_BEAT:
        hf_wr_u64(w, f->ord);
        hf_wr_u64(w, f->seq);
        break;
    case HF_ENGINE_V1_REFUSE:
        hf_wr_u32(w, (uint32_t)f->code);
        break;
    }
}

static void decode_what(struct hf_rd *r, struct hf_engine_v1_frame *f)
{
    f->kind = hf_rd_u8(r);
    switch ((enum hf_engine_v1_kind)f->kind) {
    case HF_ENGINE_V1_MSG:
    case HF_ENGINE_V1_JOIN:
    case HF_ENGINE_V1_LEAVE:
        f->seq = hf_rd_u64(r);
        f->group = hf_rd_word(r, HF_ENGINE_V1_GROUP_NAME_MAX);
        if (f->kind == HF_ENGINE_V1_MSG) {
            f->data = hf_rd_str16(r, HF_ENGINE_V1_DATA_MAX);
        }
        break;
    case HF_ENGINE_V1_UP:
        f->host = hf_rd_word(r, HF_HOST_NAME_MAX);
        break;
    case HF_ENGINE_V1_RING:
        f->gone = hf_rd_u64(r);
        f->silent = hf_rd_u64(r);
        if (f->silent & ~f->gone) {
            hf_rd_fail(r, -HF_EMALF);
        }
        break;
    default:
        hf_rd_fail(r, -HF_EMALF);
    }
}

static void decode_hello(struct hf_rd *r, struct hf_engine_v1_frame *f)
{
    f->version = hf_rd_u8(r);
    if (!r->err && f->version != HF_ENGINE_V1_VERSION) {
        hf_rd_fail(r, -HF_EVERSION);
    }
    f->node = hf_rd_u32(r);
    f->since = hf_rd_u64(r);
    f->ord = hf_rd_u64(r);
    f->host = hf_rd_word(r, HF_HOST_NAME_MAX);
    if (f->node == 0 || f->since > f->ord) {
        hf_rd_fail(r, -HF_EMALF);
    }
}

int hf_engine_v1_decode(struct hf_slice in, struct hf_engine_v1_frame *ret_frame)
{
    struct hf_rd r;
    struct hf_engine_v1_frame f = {0};
    hf_rd_init(&r, in);
    f.type = hf_rd_u8(&r);
    switch ((enum hf_engine_v1_type)f.type) {
    case HF_ENGINE_V1_HELLO:
        decode_hello(&r, &f);
        break;
    case HF_ENGINE_V1_STATE:
        f.data = hf_rd_bytes(&r, hf_rd_left(&r));
        break;
    case HF_ENGINE_V1_EVENT:
        f.ord = hf_rd_u64(&r);
        f.stable = hf_rd_u64(&r);
        f.node = hf_rd_u32(&r);
        if (f.node == 0 || f.ord == 0) {
            hf_rd_fail(&r, -HF_EMALF);
        }
        decode_what(&r, &f);
        break;
    case HF_ENGINE_V1_READY:
        f.ord = hf_rd_u64(&r);
        break;
    case HF_ENGINE_V1_SEND:
        f.ord = hf_rd_u64(&r);
        decode_what(&r, &f);
        if (f.kind > HF_ENGINE_V1_LEAVE) {
            hf_rd_fail(&r, -HF_EMALF);
        }
        break;
    case HF_ENGINE_V1_BEAT:
        f.ord = hf_rd_u64(&r);
        f.seq = hf_rd_u64(&r);
        break;
    case HF_ENGINE_V1_REFUSE:
        f.code = (int32_t)hf_rd_u32(&r);
        break;
    default:
        hf_rd_fail(&r, -HF_EMALF);
    }
    int rc = hf_rd_end(&r);
    if (rc) {
        return rc;
    }
    *ret_frame = f;
    return 0;
}

void hf_engine_v1_state_encode(struct hf_wr *w, const struct hf_engine_v1_state *st)
{
    hf_wr_u64(w, st->ord);
    hf_wr_u32(w, st->node);
    size_t at = hf_wr_len(w);
    hf_wr_u16(w, 0);
    uint16_t n = 0;
    for (unsigned i = 0; i < HF_ENGINE_V1_NODES_MAX; i++) {
        if (st->slot[i].id) {
            hf_wr_u8(w, (uint8_t)i);
            hf_wr_u32(w, st->slot[i].id);
            hf_wr_u64(w, st->slot[i].since);
            hf_wr_u64(w, st->slot[i].seq);
            hf_wr_str8(w, hf_slice_str(st->slot[i].host));
            n++;
        }
    }
    hf_wr_patch_u16(w, at, n);
    hf_wr_u8(w, st->n_groups);
    for (unsigned i = 0; i < st->n_groups; i++) {
        hf_wr_str8(w, hf_slice_str(st->group[i].name));
        hf_wr_u64(w, st->group[i].members);
    }
}

/* Read the slots (ascending, so that there is one encoding); returns the mask of those in use. */
static uint64_t decode_slots(struct hf_rd *r, struct hf_engine_v1_state *st)
{
    uint64_t used = 0;
    uint16_t n = hf_rd_u16(r);
    for (unsigned i = 0; i < n && !r->err; i++) {
        unsigned at = hf_rd_u8(r);
        if (at >= HF_ENGINE_V1_NODES_MAX || used >> at) {
            hf_rd_fail(r, -HF_EMALF);
            break;
        }
        struct hf_engine_v1_node *node = &st->slot[at];
        node->id = hf_rd_u32(r);
        node->since = hf_rd_u64(r);
        node->seq = hf_rd_u64(r);
        struct hf_slice host = hf_rd_word(r, HF_HOST_NAME_MAX);
        memcpy(node->host, host.n ? host.p : (const uint8_t *)"", host.n);
        for (unsigned k = 0; k < HF_ENGINE_V1_NODES_MAX; k++) {
            if (node->id == 0 || (k != at && st->slot[k].id == node->id)) {
                hf_rd_fail(r, -HF_EMALF);
            }
        }
        if (node->since == 0 || node->since > st->ord) {
            hf_rd_fail(r, -HF_EMALF);
        }
        used |= 1ULL << at;
    }
    return used;
}

int hf_engine_v1_state_decode(struct hf_slice in, struct hf_engine_v1_state *ret_state)
{
    struct hf_rd r;
    struct hf_engine_v1_state st = {0};
    hf_rd_init(&r, in);
    st.ord = hf_rd_u64(&r);
    st.node = hf_rd_u32(&r);
    uint64_t used = decode_slots(&r, &st);
    st.n_groups = hf_rd_u8(&r);
    if (st.n_groups > HF_ENGINE_V1_GROUPS_MAX) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    for (unsigned i = 0; i < st.n_groups && !r.err; i++) {
        struct hf_slice name = hf_rd_word(&r, HF_ENGINE_V1_GROUP_NAME_MAX);
        memcpy(st.group[i].name, name.n ? name.p : (const uint8_t *)"", name.n);
        st.group[i].members = hf_rd_u64(&r);
        if (st.group[i].members == 0 || st.group[i].members & ~used) {
            hf_rd_fail(&r, -HF_EMALF);
        }
        for (unsigned k = 0; k < i; k++) {
            if (strcmp(st.group[k].name, st.group[i].name) == 0) {
                hf_rd_fail(&r, -HF_EMALF);
            }
        }
    }
    int rc = hf_rd_end(&r);
    if (rc) {
        return rc;
    }
    *ret_state = st;
    return 0;
}
