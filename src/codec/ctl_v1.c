#include "codec/ctl_v1.h"

#include "base/err.h"
#include "base/rd.h"
#include "codec/group_v1.h"

#define TEXT_LEN_MAX 1024

const char *hf_ctl_type_name(int type)
{
    switch (type) {
#define HF_CTL_NAME(name, num, text)                                                               \
    case num:                                                                                      \
        return #name;
        HF_CTL_LIST(HF_CTL_NAME)
#undef HF_CTL_NAME
    default:
        return NULL;
    }
}

const char *hf_ctl_group_name(int action)
{
    switch (action) {
#define HF_CTL_GROUP_NAME(name, num, text)                                                         \
    case num:                                                                                      \
        return text;
        HF_CTL_GROUP_LIST(HF_CTL_GROUP_NAME)
#undef HF_CTL_GROUP_NAME
    default:
        return NULL;
    }
}

size_t hf_ctl_room(const struct hf_ctl_msg *m)
{
    return 64 /* lengths and numbers */ + m->owner.n + m->name.n + m->value.n + m->text.n +
           m->resource.n + m->address.n + m->fence_text.n + m->lost.n;
}

void hf_ctl_encode(struct hf_wr *w, const struct hf_ctl_msg *m)
{
    size_t at = hf_wr_len(w);
    hf_wr_u32(w, 0);
    hf_wr_u8(w, m->type);
    if (m->type == HF_CTL_HELLO) {
        hf_wr_u8(w, m->version);
        hf_wr_str16(w, m->text);
    } else {
        hf_wr_u32(w, m->seq);
    }
    switch ((enum hf_ctl_type)m->type) {
    case HF_CTL_HELLO:
    case HF_CTL_RELOAD:
        break;
    case HF_CTL_PUBLISH:
        hf_wr_u32(w, m->lease_ms);
        hf_wr_str8(w, m->name);
        hf_wr_str32(w, m->value);
        break;
    case HF_CTL_WITHDRAW:
    case HF_CTL_WATCH:
        hf_wr_str8(w, m->name);
        break;
    case HF_CTL_UNWATCH:
        hf_wr_u32(w, m->watch);
        break;
    case HF_CTL_QUERY:
        hf_wr_str8(w, m->name);
        hf_wr_str32(w, m->value);
        break;
    case HF_CTL_TRACE:
        hf_wr_u32(w, m->mask);
        break;
    case HF_CTL_RESULT:
        hf_wr_u32(w, (uint32_t)m->code);
        hf_wr_str16(w, m->text);
        break;
    case HF_CTL_TEXT:
        hf_wr_str32(w, m->value);
        break;
    case HF_CTL_EVENT:
        hf_wr_u8(w, m->event);
        hf_wr_str8(w, m->owner);
        hf_wr_str8(w, m->name);
        hf_wr_str32(w, m->value);
        break;
    case HF_CTL_LINE:
        hf_wr_str16(w, m->text);
        break;
    case HF_CTL_GROUP:
        hf_wr_u8(w, m->action);
        hf_wr_u32(w, m->wait_ms);
        hf_wr_str8(w, m->name);
        hf_wr_str8(w, m->owner);
        hf_wr_str8(w, m->resource);
        hf_wr_str32(w, m->value);
        break;
    case HF_CTL_FOLLOW:
        hf_wr_str8(w, m->name);
        break;
    case HF_CTL_GROUP_STATE:
        hf_wr_u8(w, m->flags);
        hf_wr_u8(w, m->phase);
        hf_wr_u64(w, m->epoch);
        hf_wr_str8(w, m->resource);
        hf_wr_str8(w, m->owner);
        hf_wr_str8(w, m->address);
        hf_wr_str8(w, m->fence_text);
        hf_wr_str16(w, m->lost);
        break;
    }
    hf_wr_patch_u32(w, at, (uint32_t)(hf_wr_len(w) - at - 4));
}

static void decode_group(struct hf_rd *r, struct hf_ctl_msg *m)
{
    m->action = hf_rd_u8(r);
    m->wait_ms = hf_rd_u32(r);
    m->name = hf_rd_str8(r, HF_GROUP_NAME_MAX);
    m->owner = hf_rd_str8(r, HF_HOST_NAME_MAX);
    m->resource = hf_rd_str8(r, HF_GROUP_RESOURCE_NAME_MAX);
    m->value = hf_rd_str32(r, HF_GROUP_DEFINITION_MAX);
    if (m->action < HF_CTL_GROUP_CREATE || m->action >= HF_CTL_GROUP_END_) {
        hf_rd_fail(r, -HF_EMALF);
    }
}

static void decode_group_state(struct hf_rd *r, struct hf_ctl_msg *m)
{
    m->flags = hf_rd_u8(r);
    m->phase = hf_rd_u8(r);
    m->epoch = hf_rd_u64(r);
    m->resource = hf_rd_str8(r, HF_GROUP_RESOURCE_NAME_MAX);
    m->owner = hf_rd_str8(r, HF_HOST_NAME_MAX);
    m->address = hf_rd_str8(r, HF_GROUP_ADDRESS_MAX);
    m->fence_text = hf_rd_str8(r, HF_GROUP_FENCE_TEXT_MAX);
    m->lost = hf_rd_str16(r, HF_GROUP_LOST_MAX);
    if (m->flags & ~HF_CTL_GROUP_FLAGS_ALL_ || m->phase >= HF_PHASE_COUNT_) {
        hf_rd_fail(r, -HF_EMALF);
    }
}

static void decode_fields(struct hf_rd *r, struct hf_ctl_msg *m)
{
    m->type = hf_rd_u8(r);
    if (m->type == HF_CTL_HELLO) {
        m->version = hf_rd_u8(r);
        m->text = hf_rd_str16(r, TEXT_LEN_MAX);
        if (!r->err && m->version != HF_CTL_VERSION) {
            hf_rd_fail(r, -HF_EVERSION);
        }
        return;
    }
    m->seq = hf_rd_u32(r);
    switch ((enum hf_ctl_type)m->type) {
    case HF_CTL_HELLO:
    case HF_CTL_RELOAD:
        break;
    case HF_CTL_PUBLISH:
        m->lease_ms = hf_rd_u32(r);
        m->name = hf_rd_str8(r, HF_SERVICE_NAME_MAX);
        m->value = hf_rd_str32(r, HF_VALUE_LEN_MAX);
        break;
    case HF_CTL_WITHDRAW:
    case HF_CTL_WATCH:
        m->name = hf_rd_str8(r, HF_SERVICE_NAME_MAX);
        break;
    case HF_CTL_UNWATCH:
        m->watch = hf_rd_u32(r);
        break;
    case HF_CTL_QUERY:
        m->name = hf_rd_str8(r, HF_SERVICE_NAME_MAX);
        m->value = hf_rd_str32(r, HF_CTL_FRAME_MAX);
        break;
    case HF_CTL_TRACE:
        m->mask = hf_rd_u32(r);
        break;
    case HF_CTL_RESULT:
        m->code = (int32_t)hf_rd_u32(r);
        m->text = hf_rd_str16(r, TEXT_LEN_MAX);
        break;
    case HF_CTL_TEXT:
        m->value = hf_rd_str32(r, HF_CTL_FRAME_MAX);
        break;
    case HF_CTL_EVENT:
        m->event = hf_rd_u8(r);
        m->owner = hf_rd_str8(r, HF_HOST_NAME_MAX);
        m->name = hf_rd_str8(r, HF_SERVICE_NAME_MAX);
        m->value = hf_rd_str32(r, HF_VALUE_LEN_MAX);
        if (m->event < HF_CTL_ADDED || m->event > HF_CTL_SYNCED) {
            hf_rd_fail(r, -HF_EMALF);
        }
        break;
    case HF_CTL_LINE:
        m->text = hf_rd_str16(r, TEXT_LEN_MAX);
        break;
    case HF_CTL_GROUP:
        decode_group(r, m);
        break;
    case HF_CTL_FOLLOW:
        m->name = hf_rd_str8(r, HF_GROUP_NAME_MAX);
        break;
    case HF_CTL_GROUP_STATE:
        decode_group_state(r, m);
        break;
    default:
        hf_rd_fail(r, -HF_EMALF);
    }
}

int hf_ctl_decode(struct hf_slice in, struct hf_ctl_msg *ret_msg)
{
    struct hf_rd r;
    if (in.n < 4) {
        return 0;
    }
    hf_rd_init(&r, in);
    uint32_t len = hf_rd_u32(&r);
    if (len == 0 || len > HF_CTL_FRAME_MAX) {
        return -HF_EMALF;
    }
    if (in.n - 4 < len) {
        return 0;
    }
    hf_rd_init(&r, hf_rd_bytes(&r, len));
    struct hf_ctl_msg m = {0};
    decode_fields(&r, &m);
    int rc = hf_rd_end(&r);
    if (rc) {
        return rc;
    }
    *ret_msg = m;
    return (int)(4 + len);
}
