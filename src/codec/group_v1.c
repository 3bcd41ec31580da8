/* Group protocol, version 1: encoder and decoder of states and messages. */
#include "codec/group_v1.h"

#include <assert.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/name.h"
#include "base/names.h"
#include "base/rd.h"
#include "base/wr.h"

#define GSTATE_MAGIC 0x48464731u /* "HFG1" */
#define GMSG_MAGIC 0x4847u       /* "HG" */
#define CHECKSUM_LEN 8

/* The longest encodings, so that limits that do not fit each other do not compile. */
#define STR8(n_max) (1 + (n_max))
#define DECLARED_LEN                                                                               \
    (STR8(HF_GROUP_RESOURCE_NAME_MAX) + STR8(HF_GROUP_AGENT_MAX) + STR8(HF_GROUP_PROBE_MAX) + 10)
#define RESOURCE_LEN (DECLARED_LEN + 13)
#define MEMBER_LEN (STR8(HF_HOST_NAME_MAX) + STR8(HF_GROUP_ADDRESS_MAX) + 8)
#define GJOIN_LEN (STR8(HF_HOST_NAME_MAX) + STR8(HF_GROUP_ADDRESS_MAX) + 9 + RESOURCE_LEN)
#define GSTATE_LEN                                                                                 \
    (5 + STR8(HF_GROUP_NAME_MAX) + 38 + STR8(HF_GROUP_FENCE_TEXT_MAX) + GJOIN_LEN + 2 +            \
     HF_GROUP_MEMBERS_MAX * MEMBER_LEN + HF_GROUP_RESOURCES_MAX * RESOURCE_LEN + CHECKSUM_LEN)
#define GMSG_HEAD_LEN 20
#define HELLO_LEN                                                                                  \
    (42 + STR8(HF_HOST_NAME_MAX) + STR8(HF_GROUP_ADDRESS_MAX) + 11 + 1 + HF_GROUP_RESOURCES_MAX +  \
     1 + 4 * HF_GROUP_GHOSTS_MAX)
#define JOIN_LEN (5 + STR8(HF_HOST_NAME_MAX) + STR8(HF_GROUP_ADDRESS_MAX) + DECLARED_LEN)

static_assert(GSTATE_LEN <= HF_GSTATE_LEN_MAX, "a full state fits");
static_assert(HF_GSTATE_LEN_MAX <= UINT16_MAX, "offsets of pieces have 16 bits");
static_assert(GMSG_HEAD_LEN + HELLO_LEN <= HF_GMSG_LEN_MAX, "the longest hello fits");
static_assert(GMSG_HEAD_LEN + JOIN_LEN <= HF_GMSG_LEN_MAX, "the longest join fits");
static_assert(GMSG_HEAD_LEN + 14 + HF_GROUP_PIECE_MAX <= HF_GMSG_LEN_MAX, "a piece fits");
static_assert(HF_GROUP_TEXT_MAX <= UINT8_MAX && HF_GROUP_FENCE_TEXT_MAX <= HF_GROUP_TEXT_MAX,
              "a fence text comes as text of a message");
static_assert(HF_GROUP_MEMBERS_MAX <= 16 && HF_GROUP_RESOURCES_MAX <= 16, "masks have 16 bits");

/* ---- names ---- */

#define GMSG_FROM_0(X) X(NONE_, "?") HF_GMSG_LIST(X)
HF_NAMES(hf_mirror_name, uint8_t, HF_MIRROR_LIST)
HF_NAMES(hf_phase_name, uint8_t, HF_PHASE_LIST)
HF_NAMES(hf_gmsg_name, uint8_t, GMSG_FROM_0)
HF_NAMES(hf_role_name, uint8_t, HF_ROLE_LIST)

/* ---- what strings may be ---- */

static bool alnum(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z');
}

/* An IP address or host name, with port or zone perhaps: agents get it inside their environment's
 * `id=host@address=mode`. "" where a group needs none. */
static bool address_ok(struct hf_slice s)
{
    static const uint8_t others[] = {'.', ':', '-', '_', '[', ']', '%'};
    for (size_t i = 0; i < s.n; i++) {
        if (!alnum(s.p[i]) && !memchr(others, s.p[i], sizeof(others))) {
            return false;
        }
    }
    return true;
}

/* "" or ocf:PROVIDER:TYPE. Both become parts of a path: no '/', no leading '.'. */
static bool agent_ok(struct hf_slice s)
{
    if (s.n == 0) {
        return true;
    }
    if (!hf_slice_starts(s, hf_slice("ocf:", 4))) {
        return false;
    }
    unsigned parts = 1;
    for (size_t i = 4; i < s.n; i++) {
        uint8_t c = s.p[i];
        bool first = s.p[i - 1] == ':';
        if (c == ':' && !first) {
            parts++;
        } else if (!alnum(c) && c != '_' && (first || (c != '-' && c != '.'))) {
            return false;
        }
    }
    return parts == 2 && s.p[s.n - 1] != ':';
}

/* For people, logs and agents: no control characters. */
static bool text_ok(struct hf_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < ' ' || s.p[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* A valid string into dst, which has room for n_max bytes and its NUL and is all zero. */
static void decode_str(struct hf_rd *r, char *dst, size_t n_max, bool (*ok)(struct hf_slice))
{
    struct hf_slice s = hf_rd_str8(r, n_max);
    if (r->err || !ok(s)) {
        hf_rd_fail(r, -HF_EMALF);
    } else if (s.n) {
        memcpy(dst, s.p, s.n);
    }
}

static void encode_str(struct hf_wr *w, const char *s)
{
    hf_wr_str8(w, hf_slice_str(s));
}

static struct hf_slice decode_text(struct hf_rd *r)
{
    struct hf_slice s = hf_rd_str8(r, HF_GROUP_TEXT_MAX);
    if (!text_ok(s)) {
        hf_rd_fail(r, -HF_EMALF);
    }
    return s;
}

/* Agents say what they like: made valid here, so that no message is lost for its text. */
static void encode_text(struct hf_wr *w, struct hf_slice s)
{
    uint8_t text[HF_GROUP_TEXT_MAX];
    size_t n = s.n < sizeof(text) ? s.n : sizeof(text);
    for (size_t i = 0; i < n; i++) {
        text[i] = s.p[i] < ' ' || s.p[i] == 0x7f ? ' ' : s.p[i];
    }
    hf_wr_str8(w, hf_slice(text, n));
}

static uint8_t decode_resigned(struct hf_rd *r)
{
    uint8_t v = hf_rd_u8(r);
    if (v >= HF_RESIGNED_COUNT_) {
        hf_rd_fail(r, -HF_EMALF);
    }
    return v;
}

/* min ... max - 1 */
static uint8_t decode_u8_in(struct hf_rd *r, uint8_t min, unsigned max)
{
    uint8_t v = hf_rd_u8(r);
    if (v < min || v >= max) {
        hf_rd_fail(r, -HF_EMALF);
        return min;
    }
    return v;
}

/* A number below n, or HF_GROUP_NONE. */
static bool index_ok(uint8_t i, unsigned n)
{
    return i < n || i == HF_GROUP_NONE;
}

static uint8_t decode_index(struct hf_rd *r)
{
    uint8_t i = hf_rd_u8(r);
    if (!index_ok(i, 16)) {
        hf_rd_fail(r, -HF_EMALF);
    }
    return i;
}

/* Are only the lowest n bits set? */
static bool mask_ok(uint16_t mask, unsigned n)
{
    return mask >> n == 0;
}

/* ---- parts of the state ---- */

/* What somebody declares of a resource. The rest of it is the group's. */
static void encode_declared(struct hf_wr *w, const struct hf_gresource *res)
{
    encode_str(w, res->name);
    encode_str(w, res->agent);
    encode_str(w, res->probe);
    hf_wr_u8(w, res->kind);
    hf_wr_u8(w, res->flags);
    hf_wr_u64(w, res->config_hash);
}

static void decode_declared(struct hf_rd *r, struct hf_gresource *res)
{
    decode_str(r, res->name, HF_GROUP_RESOURCE_NAME_MAX, hf_host_name_ok);
    decode_str(r, res->agent, HF_GROUP_AGENT_MAX, agent_ok);
    decode_str(r, res->probe, HF_GROUP_PROBE_MAX, text_ok);
    res->kind = decode_u8_in(r, HF_RESOURCE_COPY, HF_RESOURCE_ATTACHED + 1);
    res->flags = decode_u8_in(r, 0, 2 * HF_RESOURCE_FENCE_NONE);
    res->config_hash = hf_rd_u64(r);
}

static void encode_resource(struct hf_wr *w, const struct hf_gresource *res)
{
    encode_declared(w, res);
    hf_wr_u8(w, res->host);
    hf_wr_u8(w, res->mirror);
    hf_wr_u8(w, res->restarts);
    hf_wr_u16(w, res->failed_on);
    hf_wr_u64(w, res->epoch);
}

static void decode_resource(struct hf_rd *r, unsigned n_members, struct hf_gresource *res)
{
    decode_declared(r, res);
    res->host = hf_rd_u8(r);
    res->mirror = decode_u8_in(r, 0, HF_MIRROR_COUNT_);
    res->restarts = hf_rd_u8(r);
    res->failed_on = hf_rd_u16(r);
    res->epoch = hf_rd_u64(r);
    if (!index_ok(res->host, n_members) || !mask_ok(res->failed_on, n_members)) {
        hf_rd_fail(r, -HF_EMALF);
    }
}

static void encode_member(struct hf_wr *w, const struct hf_gmember *m)
{
    encode_str(w, m->host);
    encode_str(w, m->address);
    hf_wr_u16(w, m->access);
    hf_wr_u8(w, m->subgroup);
    hf_wr_u8(w, m->leaving);
    hf_wr_u8(w, m->fenced);
    hf_wr_u16(w, m->dirty);
    hf_wr_u8(w, m->was_primary);
}

static void decode_member(struct hf_rd *r, struct hf_gmember *m)
{
    decode_str(r, m->host, HF_HOST_NAME_MAX, hf_host_name_ok);
    decode_str(r, m->address, HF_GROUP_ADDRESS_MAX, address_ok);
    m->access = hf_rd_u16(r);
    m->subgroup = hf_rd_u8(r);
    m->leaving = hf_rd_bool(r);
    m->fenced = hf_rd_bool(r);
    m->dirty = hf_rd_u16(r);
    m->was_primary = hf_rd_bool(r);
}

static void encode_join(struct hf_wr *w, const struct hf_gjoin *j)
{
    hf_wr_u8(w, j->step);
    if (j->step == 0) {
        return;
    }
    encode_str(w, j->host);
    encode_str(w, j->address);
    hf_wr_u32(w, j->request);
    hf_wr_u16(w, j->access);
    hf_wr_u8(w, j->subgroup);
    hf_wr_u8(w, j->brings);
    if (j->brings) {
        encode_resource(w, &j->brought);
    }
}

static void decode_join(struct hf_rd *r, struct hf_gjoin *j)
{
    j->step = decode_u8_in(r, 0, 3);
    if (j->step == 0) {
        return;
    }
    decode_str(r, j->host, HF_HOST_NAME_MAX, hf_host_name_ok);
    decode_str(r, j->address, HF_GROUP_ADDRESS_MAX, address_ok);
    j->request = hf_rd_u32(r);
    j->access = hf_rd_u16(r);
    j->subgroup = hf_rd_u8(r);
    j->brings = hf_rd_bool(r);
    if (j->brings) { /* not on any member yet */
        decode_resource(r, 0, &j->brought);
        if (j->brought.kind != HF_RESOURCE_COPY) {
            hf_rd_fail(r, -HF_EMALF);
        }
    }
}

/* ---- state ---- */

int hf_gstate_encode(const struct hf_gstate *s, void *buf, size_t buf_n, struct hf_slice *ret_s)
{
    struct hf_wr w;
    hf_wr_init(&w, buf, buf_n);
    hf_wr_u32(&w, GSTATE_MAGIC);
    hf_wr_u8(&w, HF_GROUP_VERSION);
    encode_str(&w, s->name);
    hf_wr_u64(&w, s->id);
    hf_wr_u64(&w, s->version);
    hf_wr_u64(&w, s->epoch);
    hf_wr_u8(&w, s->phase);
    hf_wr_u8(&w, s->primary);
    hf_wr_u8(&w, s->primary_host);
    hf_wr_u8(&w, s->last_primary);
    hf_wr_u8(&w, s->cold);
    hf_wr_u8(&w, s->init);
    hf_wr_u8(&w, s->paused);
    hf_wr_u8(&w, s->degraded_refuse);
    hf_wr_u8(&w, s->restart_always);
    hf_wr_u8(&w, s->next);
    hf_wr_u8(&w, s->next_host);
    hf_wr_u8(&w, s->granted);
    hf_wr_u16(&w, s->in_sync);
    encode_str(&w, s->fence_text);
    encode_join(&w, &s->join);
    hf_wr_u8(&w, s->n_members);
    hf_wr_u8(&w, s->n_resources);
    for (unsigned i = 0; i < s->n_members; i++) {
        encode_member(&w, &s->member[i]);
    }
    for (unsigned i = 0; i < s->n_resources; i++) {
        encode_resource(&w, &s->resource[i]);
    }
    struct hf_slice all;
    int rc = hf_wr_end(&w, &all);
    if (rc != 0) {
        return rc;
    }
    hf_wr_u64(&w, hf_hash(all, GSTATE_MAGIC));
    return hf_wr_end(&w, ret_s);
}

/* HF_GROUP_NONE, or one of those in the mask. */
static bool one_of(uint8_t i, uint16_t mask)
{
    return i == HF_GROUP_NONE || (i < 16 && (mask >> i & 1));
}

static bool names_unique(const struct hf_gstate *s)
{
    for (unsigned i = 0; i < s->n_resources; i++) {
        for (unsigned k = 0; k < i; k++) {
            if (strcmp(s->resource[i].name, s->resource[k].name) == 0) {
                return false;
            }
        }
    }
    for (unsigned i = 0; i < s->n_members; i++) {
        for (unsigned k = 0; k < i; k++) {
            if (strcmp(s->member[i].host, s->member[k].host) == 0) {
                return false;
            }
        }
    }
    return true;
}

/* What one part of the state says of another. */
static bool whole_ok(const struct hf_gstate *s)
{
    uint16_t copies = 0;
    unsigned n_copies = 0;
    for (unsigned i = 0; i < s->n_resources; i++) {
        if (s->resource[i].kind == HF_RESOURCE_COPY) {
            copies |= (uint16_t)(1u << i);
            n_copies++;
        }
    }
    for (unsigned i = 0; i < s->n_members; i++) {
        const struct hf_gmember *m = &s->member[i];
        if ((m->access & ~copies) || !one_of(m->subgroup, copies) ||
            !mask_ok(m->dirty, s->n_resources)) {
            return false;
        }
    }
    bool chosen = s->primary != HF_GROUP_NONE && s->primary_host != HF_GROUP_NONE;
    return n_copies <= HF_GROUP_COPIES_MAX && (s->in_sync & ~copies) == 0 &&
           one_of(s->primary, copies) && index_ok(s->primary_host, s->n_members) &&
           one_of(s->last_primary, copies) && one_of(s->next, copies) &&
           index_ok(s->next_host, s->n_members) &&
           (s->next == HF_GROUP_NONE) == (s->next_host == HF_GROUP_NONE) &&
           (chosen || s->phase == HF_PHASE_NONE) && (s->join.access & ~copies) == 0 &&
           (s->join.step == 0 || one_of(s->join.subgroup, copies)) && s->id != 0 && names_unique(s);
}

/* Magic, checksum and version, in this order in all versions: damage is not taken for a newer
 * version. */
static int open_state(struct hf_slice s, struct hf_rd *r)
{
    hf_rd_init(r, s);
    size_t n = hf_rd_left(r);
    if (n < 5 + CHECKSUM_LEN) {
        return -HF_ETRUNC;
    }
    hf_rd_init(r, hf_slice(s.p, n - CHECKSUM_LEN));
    struct hf_rd sum;
    hf_rd_init(&sum, s);
    hf_rd_bytes(&sum, n - CHECKSUM_LEN);
    if (hf_rd_u32(r) != GSTATE_MAGIC ||
        hf_rd_u64(&sum) != hf_hash(hf_slice(s.p, n - CHECKSUM_LEN), GSTATE_MAGIC)) {
        return -HF_EMALF;
    }
    uint8_t version = hf_rd_u8(r);
    return version == HF_GROUP_VERSION ? 0 : version > HF_GROUP_VERSION ? -HF_EVERSION : -HF_EMALF;
}

int hf_gstate_decode(struct hf_slice s, struct hf_gstate *ret_state)
{
    struct hf_rd r;
    int rc = open_state(s, &r);
    if (rc != 0) {
        return rc;
    }
    struct hf_gstate st;
    memset(&st, 0, sizeof(st)); /* padding, too: equal states are equal bytes */
    decode_str(&r, st.name, HF_GROUP_NAME_MAX, hf_host_name_ok);
    st.id = hf_rd_u64(&r);
    st.version = hf_rd_u64(&r);
    if (st.version >= HF_GSTATE_VERSION_MAX) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    st.epoch = hf_rd_u64(&r);
    st.phase = decode_u8_in(&r, 0, HF_PHASE_COUNT_);
    st.primary = hf_rd_u8(&r);
    st.primary_host = hf_rd_u8(&r);
    st.last_primary = hf_rd_u8(&r);
    st.cold = decode_u8_in(&r, 0, HF_COLD_COUNT_);
    st.init = hf_rd_bool(&r);
    st.paused = hf_rd_bool(&r);
    st.degraded_refuse = hf_rd_bool(&r);
    st.restart_always = hf_rd_bool(&r);
    st.next = hf_rd_u8(&r);
    st.next_host = hf_rd_u8(&r);
    st.granted = hf_rd_bool(&r);
    st.in_sync = hf_rd_u16(&r);
    decode_str(&r, st.fence_text, HF_GROUP_FENCE_TEXT_MAX, text_ok);
    decode_join(&r, &st.join);
    st.n_members = decode_u8_in(&r, 0, HF_GROUP_MEMBERS_MAX + 1);
    st.n_resources = decode_u8_in(&r, 0, HF_GROUP_RESOURCES_MAX + 1);
    for (unsigned i = 0; i < st.n_members && !r.err; i++) {
        decode_member(&r, &st.member[i]);
    }
    for (unsigned i = 0; i < st.n_resources && !r.err; i++) {
        decode_resource(&r, st.n_members, &st.resource[i]);
    }
    rc = hf_rd_end(&r);
    if (rc != 0) {
        return rc;
    }
    if (!whole_ok(&st)) {
        return -HF_EMALF;
    }
    memcpy(ret_state, &st, sizeof(st));
    return 0;
}

/* ---- messages ---- */

static void encode_hello(struct hf_wr *w, const struct hf_gmsg *m)
{
    hf_wr_u64(w, m->hello.incarnation);
    hf_wr_u64(w, m->hello.version);
    hf_wr_u64(w, m->hello.epoch);
    hf_wr_u64(w, m->hello.hash);
    hf_wr_u64(w, m->hello.persisted);
    hf_wr_u8(w, m->hello.quorate);
    hf_wr_u8(w, m->hello.current);
    encode_str(w, m->hello.host);
    encode_str(w, m->hello.address);
    hf_wr_u16(w, m->hello.access);
    hf_wr_u16(w, m->hello.config);
    hf_wr_u8(w, m->hello.resigned);
    hf_wr_u16(w, m->hello.procdown);
    hf_wr_u16(w, m->hello.sync);
    hf_wr_u16(w, m->hello.async);
    hf_wr_str8(w, hf_slice(m->hello.role, m->hello.n_roles));
    hf_wr_u8(w, m->hello.n_ghosts);
    for (unsigned i = 0; i < m->hello.n_ghosts; i++) {
        hf_wr_u32(w, m->hello.ghost[i]);
    }
}

static void decode_hello(struct hf_rd *r, struct hf_gmsg *m)
{
    m->hello.incarnation = hf_rd_u64(r);
    m->hello.version = hf_rd_u64(r);
    if (m->hello.version >= HF_GSTATE_VERSION_MAX) {
        hf_rd_fail(r, -HF_EMALF);
    }
    m->hello.epoch = hf_rd_u64(r);
    m->hello.hash = hf_rd_u64(r);
    m->hello.persisted = hf_rd_u64(r);
    m->hello.quorate = hf_rd_bool(r);
    m->hello.current = hf_rd_bool(r);
    decode_str(r, m->hello.host, HF_HOST_NAME_MAX, hf_host_name_ok);
    decode_str(r, m->hello.address, HF_GROUP_ADDRESS_MAX, address_ok);
    m->hello.access = hf_rd_u16(r);
    m->hello.config = hf_rd_u16(r);
    m->hello.resigned = decode_resigned(r);
    m->hello.procdown = hf_rd_u16(r);
    m->hello.sync = hf_rd_u16(r);
    m->hello.async = hf_rd_u16(r);
    m->hello.n_roles = decode_u8_in(r, 0, HF_GROUP_RESOURCES_MAX + 1);
    for (unsigned i = 0; i < m->hello.n_roles; i++) {
        m->hello.role[i] = decode_u8_in(r, 0, HF_ROLE_COUNT_);
    }
    m->hello.n_ghosts = decode_u8_in(r, 0, HF_GROUP_GHOSTS_MAX + 1);
    for (unsigned i = 0; i < m->hello.n_ghosts; i++) {
        m->hello.ghost[i] = hf_rd_u32(r);
    }
    if (m->hello.incarnation == 0) {
        hf_rd_fail(r, -HF_EMALF);
    }
}

static void decode_state(struct hf_rd *r, struct hf_gmsg *m)
{
    m->state.version = hf_rd_u64(r);
    m->state.offset = hf_rd_u16(r);
    m->state.total = hf_rd_u16(r);
    m->state.piece = hf_rd_str16(r, HF_GROUP_PIECE_MAX);
    if (m->state.piece.n == 0 || m->state.total > HF_GSTATE_LEN_MAX ||
        m->state.offset + m->state.piece.n > m->state.total) {
        hf_rd_fail(r, -HF_EMALF);
    }
}

static void encode_gjoin(struct hf_wr *w, const struct hf_gmsg *m)
{
    hf_wr_u32(w, m->join.request);
    encode_str(w, m->join.host);
    encode_str(w, m->join.address);
    hf_wr_u8(w, m->join.brings);
    if (m->join.brings) {
        encode_declared(w, &m->join.brought);
    }
}

static void decode_gjoin(struct hf_rd *r, struct hf_gmsg *m)
{
    m->join.request = hf_rd_u32(r);
    decode_str(r, m->join.host, HF_HOST_NAME_MAX, hf_host_name_ok);
    decode_str(r, m->join.address, HF_GROUP_ADDRESS_MAX, address_ok);
    m->join.brings = hf_rd_bool(r);
    if (m->join.brings) {
        decode_declared(r, &m->join.brought);
        m->join.brought.host = HF_GROUP_NONE;
        if (m->join.brought.kind != HF_RESOURCE_COPY) {
            hf_rd_fail(r, -HF_EMALF);
        }
    }
}

static void encode_body(struct hf_wr *w, const struct hf_gmsg *m)
{
    switch ((enum hf_gmsg_kind)m->kind) {
    case HF_GMSG_HELLO:
        encode_hello(w, m);
        break;
    case HF_GMSG_STATE:
        hf_wr_u64(w, m->state.version);
        hf_wr_u16(w, m->state.offset);
        hf_wr_u16(w, m->state.total);
        hf_wr_str16(w, m->state.piece);
        break;
    case HF_GMSG_ACK:
        hf_wr_u64(w, m->ack.version);
        break;
    case HF_GMSG_EXCLUDE:
        hf_wr_u32(w, m->exclude.node_id);
        hf_wr_u64(w, m->exclude.version);
        break;
    case HF_GMSG_QUORUM:
        hf_wr_u8(w, m->quorum.quorate);
        break;
    case HF_GMSG_ROLE:
        hf_wr_u8(w, m->role.resource);
        hf_wr_u8(w, m->role.role);
        hf_wr_u8(w, m->role.op);
        hf_wr_u8(w, m->role.rc);
        hf_wr_u64(w, m->role.epoch);
        encode_text(w, m->role.text);
        break;
    case HF_GMSG_ABLE:
        hf_wr_u16(w, m->able.access);
        hf_wr_u16(w, m->able.config);
        hf_wr_u8(w, m->able.resigned);
        break;
    case HF_GMSG_MIRRORED:
        hf_wr_u64(w, m->mirrored.epoch);
        hf_wr_u16(w, m->mirrored.sync);
        hf_wr_u16(w, m->mirrored.async);
        break;
    case HF_GMSG_MIRROR:
        hf_wr_u64(w, m->mirror.epoch);
        hf_wr_u8(w, m->mirror.resource);
        hf_wr_u8(w, m->mirror.seen);
        break;
    case HF_GMSG_FENCED:
        hf_wr_u8(w, m->fenced.member);
        hf_wr_u8(w, m->fenced.ok);
        encode_text(w, m->fenced.text);
        break;
    case HF_GMSG_TIMEOUT:
        hf_wr_u8(w, m->timeout.what);
        hf_wr_u8(w, m->timeout.member);
        hf_wr_u64(w, m->timeout.version);
        break;
    case HF_GMSG_REQUEST:
        hf_wr_u8(w, m->request.what);
        hf_wr_u8(w, m->request.member);
        hf_wr_u8(w, m->request.resource);
        hf_wr_u32(w, m->request.request);
        break;
    case HF_GMSG_JOIN:
        encode_gjoin(w, m);
        break;
    case HF_GMSG_JOIN_PROBED:
        hf_wr_u32(w, m->joining.request);
        hf_wr_u16(w, m->joining.access);
        break;
    case HF_GMSG_JOIN_READY:
        hf_wr_u32(w, m->joining.request);
        break;
    case HF_GMSG_JOIN_FAILED:
        hf_wr_u32(w, m->joining.request);
        encode_text(w, m->joining.text);
        break;
    case HF_GMSG_PING:
        hf_wr_u64(w, m->ping.nonce);
        break;
    case HF_GMSG_BYE:
        break;
    case HF_GMSG_NONE_:
    case HF_GMSG_COUNT_:
    default:
        assert(!"a message of no kind");
    }
}

void hf_gmsg_encode(struct hf_wr *w, const struct hf_gmsg *m)
{
    hf_wr_u16(w, GMSG_MAGIC);
    hf_wr_u8(w, HF_GROUP_VERSION);
    hf_wr_u8(w, m->kind);
    hf_wr_u64(w, m->ring);
    hf_wr_u64(w, m->group_id);
    encode_body(w, m);
}

static void decode_body(struct hf_rd *r, struct hf_gmsg *m)
{
    switch ((enum hf_gmsg_kind)m->kind) {
    case HF_GMSG_HELLO:
        decode_hello(r, m);
        break;
    case HF_GMSG_STATE:
        decode_state(r, m);
        break;
    case HF_GMSG_ACK:
        m->ack.version = hf_rd_u64(r);
        break;
    case HF_GMSG_EXCLUDE:
        m->exclude.node_id = hf_rd_u32(r);
        m->exclude.version = hf_rd_u64(r);
        break;
    case HF_GMSG_QUORUM:
        m->quorum.quorate = hf_rd_bool(r);
        break;
    case HF_GMSG_ROLE:
        m->role.resource = decode_index(r);
        m->role.role = decode_u8_in(r, 0, HF_ROLE_COUNT_);
        m->role.op = decode_u8_in(r, 0, HF_GROUP_OPS);
        m->role.rc = hf_rd_u8(r);
        m->role.epoch = hf_rd_u64(r);
        m->role.text = decode_text(r);
        break;
    case HF_GMSG_ABLE:
        m->able.access = hf_rd_u16(r);
        m->able.config = hf_rd_u16(r);
        m->able.resigned = decode_resigned(r);
        break;
    case HF_GMSG_MIRRORED:
        m->mirrored.epoch = hf_rd_u64(r);
        m->mirrored.sync = hf_rd_u16(r);
        m->mirrored.async = hf_rd_u16(r);
        break;
    case HF_GMSG_MIRROR:
        m->mirror.epoch = hf_rd_u64(r);
        m->mirror.resource = decode_index(r);
        m->mirror.seen = decode_u8_in(r, 0, HF_SEEN_COUNT_);
        break;
    case HF_GMSG_FENCED:
        m->fenced.member = decode_index(r);
        m->fenced.ok = hf_rd_bool(r);
        m->fenced.text = decode_text(r);
        break;
    case HF_GMSG_TIMEOUT:
        m->timeout.what = decode_u8_in(r, 1, HF_GTIMEOUT_COUNT_);
        m->timeout.member = decode_index(r);
        m->timeout.version = hf_rd_u64(r);
        break;
    case HF_GMSG_REQUEST:
        m->request.what = decode_u8_in(r, 1, HF_GREQUEST_COUNT_);
        m->request.member = decode_index(r);
        m->request.resource = decode_index(r);
        m->request.request = hf_rd_u32(r);
        break;
    case HF_GMSG_JOIN:
        decode_gjoin(r, m);
        break;
    case HF_GMSG_JOIN_PROBED:
        m->joining.request = hf_rd_u32(r);
        m->joining.access = hf_rd_u16(r);
        break;
    case HF_GMSG_JOIN_READY:
        m->joining.request = hf_rd_u32(r);
        break;
    case HF_GMSG_JOIN_FAILED:
        m->joining.request = hf_rd_u32(r);
        m->joining.text = decode_text(r);
        break;
    case HF_GMSG_PING:
        m->ping.nonce = hf_rd_u64(r);
        break;
    case HF_GMSG_BYE:
        break;
    case HF_GMSG_NONE_:
    case HF_GMSG_COUNT_:
    default:
        hf_rd_fail(r, -HF_EMALF);
    }
}

int hf_gmsg_decode(struct hf_slice s, struct hf_gmsg *ret_msg)
{
    struct hf_rd r;
    struct hf_gmsg m;
    memset(&m, 0, sizeof(m));
    hf_rd_init(&r, s);
    if (hf_rd_u16(&r) != GMSG_MAGIC) {
        hf_rd_fail(&r, -HF_EMALF);
    }
    uint8_t version = hf_rd_u8(&r);
    if (version != HF_GROUP_VERSION) {
        hf_rd_fail(&r, version > HF_GROUP_VERSION ? -HF_EVERSION : -HF_EMALF);
    }
    m.kind = hf_rd_u8(&r);
    m.ring = hf_rd_u64(&r);
    m.group_id = hf_rd_u64(&r);
    decode_body(&r, &m);
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        memcpy(ret_msg, &m, sizeof(m));
    }
    return rc;
}
