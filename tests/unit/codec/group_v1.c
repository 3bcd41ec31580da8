/* codec/group_v1: every message and the largest state there and back, cut at each length, damaged,
 * and what no group can be. */
#include "codec/group_v1.h"

#include <assert.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/wr.h"
#include "engine/engine.h"
#include "support/test.h"

static_assert(HF_GMSG_LEN_MAX <= HF_ENGINE_MSG_MAX, "an engine carries every message");

/* Decode from exactly n bytes: the sanitizer sees any step beyond. *ret_copy keeps what slices of
 * the message point to. */
static int decode_msg(const uint8_t *p, size_t n, struct hf_gmsg *ret_msg, uint8_t **ret_copy)
{
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, p, n);
    int rc = hf_gmsg_decode(hf_slice(exact, n), ret_msg);
    if (rc == 0 && ret_copy) {
        *ret_copy = exact;
    } else {
        free(exact);
    }
    return rc;
}

static int decode_state(const uint8_t *p, size_t n, struct hf_gstate *ret_state)
{
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, p, n);
    int rc = hf_gstate_decode(hf_slice(exact, n), ret_state);
    free(exact);
    return rc;
}

static int encode_msg(uint8_t *buf, size_t n, const struct hf_gmsg *m, size_t *ret_n)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    hf_gmsg_encode(&w, m);
    int rc = hf_wr_end(&w, &s);
    *ret_n = rc == 0 ? s.n : 0;
    return rc;
}

/* ---- states ---- */

static void fill(char *s, size_t n, char c)
{
    memset(s, c, n);
    s[n] = 0;
}

static void resource_max(struct hf_gresource *r, unsigned i)
{
    fill(r->name, HF_GROUP_RESOURCE_NAME_MAX, (char)('a' + i));
    fill(r->agent, HF_GROUP_AGENT_MAX, 'x');
    memcpy(r->agent, "ocf:p:", 6);
    fill(r->probe, HF_GROUP_PROBE_MAX, '~');
    r->kind = i < HF_GROUP_COPIES_MAX ? HF_RESOURCE_COPY : HF_RESOURCE_ATTACHED;
    r->flags = 15;
    r->config_hash = UINT64_MAX - i;
}

/* Everything as large as it can be. */
static void state_max(struct hf_gstate *s)
{
    memset(s, 0, sizeof(*s));
    fill(s->name, HF_GROUP_NAME_MAX, 'g');
    s->id = s->epoch = UINT64_MAX;
    s->version = HF_GSTATE_VERSION_MAX - 1;
    s->phase = HF_PHASE_RUNNING;
    s->primary = s->last_primary = HF_GROUP_COPIES_MAX - 1;
    s->primary_host = HF_GROUP_MEMBERS_MAX - 1;
    s->cold = HF_COLD_BACKUPS;
    s->init = s->paused = s->degraded_refuse = s->restart_always = true;
    s->next = s->next_host = 1;
    s->in_sync = 0xff;
    fill(s->fence_text, HF_GROUP_FENCE_TEXT_MAX, 'f');
    s->join.step = 2;
    fill(s->join.host, HF_HOST_NAME_MAX, 'j');
    fill(s->join.address, HF_GROUP_ADDRESS_MAX, ':');
    s->join.request = UINT32_MAX;
    s->join.access = 0xff;
    s->join.subgroup = HF_GROUP_NONE;
    s->join.brings = true;
    resource_max(&s->join.brought, 0);
    fill(s->join.brought.name, HF_GROUP_RESOURCE_NAME_MAX, 'z');
    s->join.brought.host = HF_GROUP_NONE;
    s->join.brought.mirror = HF_MIRROR_COUNT_ - 1;
    s->join.brought.restarts = UINT8_MAX;
    s->join.brought.epoch = UINT64_MAX;
    s->n_members = HF_GROUP_MEMBERS_MAX;
    s->n_resources = HF_GROUP_RESOURCES_MAX;
    for (unsigned i = 0; i < s->n_members; i++) {
        struct hf_gmember *m = &s->member[i];
        fill(m->host, HF_HOST_NAME_MAX, (char)('a' + i));
        fill(m->address, HF_GROUP_ADDRESS_MAX, '1');
        m->access = 0xff;
        m->subgroup = HF_GROUP_COPIES_MAX - 1;
        m->leaving = m->fenced = m->was_primary = true;
        m->dirty = 0xffff;
    }
    for (unsigned i = 0; i < s->n_resources; i++) {
        struct hf_gresource *r = &s->resource[i];
        resource_max(r, i);
        r->host = HF_GROUP_MEMBERS_MAX - 1;
        r->mirror = HF_MIRROR_COUNT_ - 1;
        r->restarts = UINT8_MAX;
        r->failed_on = 0xffff;
        r->epoch = UINT64_MAX;
    }
}

/* An ordinary one: two hosts, a copy each, an address. */
static void state_small(struct hf_gstate *s)
{
    memset(s, 0, sizeof(*s));
    strcpy(s->name, "orders");
    s->id = 77;
    s->version = 5ULL << 32 | 3;
    s->epoch = 4;
    s->phase = HF_PHASE_RUNNING;
    s->primary_host = 1;
    s->next = s->next_host = HF_GROUP_NONE;
    s->in_sync = 3;
    strcpy(s->fence_text, "xid 4711");
    s->n_members = 2;
    s->n_resources = 3;
    for (unsigned i = 0; i < 2; i++) {
        s->member[i] = (struct hf_gmember){.access = (uint16_t)(1u << i), .subgroup = (uint8_t)i};
        strcpy(s->member[i].host, i ? "beta" : "alpha");
        strcpy(s->member[i].address, i ? "fe80::2%eth0" : "10.0.0.1");
    }
    for (unsigned i = 0; i < 3; i++) {
        struct hf_gresource *r = &s->resource[i];
        *r = (struct hf_gresource){.kind = HF_RESOURCE_COPY, .host = (uint8_t)(i & 1), .epoch = 4};
        strcpy(r->name, i == 0 ? "copy1" : i == 1 ? "copy2" : "address");
        strcpy(r->agent, i < 2 ? "ocf:holdfast:postgresql" : "ocf:heartbeat:IPaddr2");
    }
    strcpy(s->resource[0].probe, "pgdata=/srv/pg port=5432");
    s->resource[2].kind = HF_RESOURCE_ATTACHED;
    s->resource[2].host = HF_GROUP_NONE;
}

static size_t encode_state(const struct hf_gstate *s, uint8_t buf[HF_GSTATE_LEN_MAX])
{
    struct hf_slice out;
    assert_int_equal(hf_gstate_encode(s, buf, HF_GSTATE_LEN_MAX, &out), 0);
    return out.n;
}

static void states_there_and_back(const struct hf_gstate *s)
{
    static uint8_t a[HF_GSTATE_LEN_MAX + 1], b[HF_GSTATE_LEN_MAX];
    static struct hf_gstate got;
    size_t n = encode_state(s, a);
    memset(&got, 0xa5, sizeof(got));
    assert_int_equal(decode_state(a, n, &got), 0);
    assert_memory_equal(&got, s, sizeof(*s));
    assert_int_equal(encode_state(&got, b), n);
    assert_memory_equal(a, b, n);
    for (size_t k = 0; k < n; k++) {
        int rc = decode_state(a, k, &got);
        assert_int_equal(rc, k < 13 ? -HF_ETRUNC : -HF_EMALF);
        struct hf_slice out;
        assert_int_equal(hf_gstate_encode(s, b, k, &out), -HF_EFULL);
    }
    a[n] = 0;
    assert_int_equal(decode_state(a, n + 1, &got), -HF_EMALF);
}

static void states(void **state)
{
    (void)state;
    static struct hf_gstate s;
    state_max(&s);
    states_there_and_back(&s);
    state_small(&s);
    states_there_and_back(&s);
    s.resource[1].kind = HF_RESOURCE_ATTACHED; /* the copy behind it was brought later */
    s.resource[2].kind = HF_RESOURCE_COPY;
    s.member[1].access = s.in_sync = 5;
    s.member[1].subgroup = 2;
    states_there_and_back(&s);
    s.n_members = s.n_resources = 0;
    memset(s.member, 0, sizeof(s.member));
    memset(s.resource, 0, sizeof(s.resource));
    s.phase = HF_PHASE_NONE;
    s.primary = s.primary_host = s.last_primary = s.next = s.next_host = HF_GROUP_NONE;
    s.in_sync = 0;
    states_there_and_back(&s);
}

/* What nobody uses is not encoded, and zero afterwards. */
static void unused_is_zero(void **state)
{
    (void)state;
    static struct hf_gstate s, want, got;
    static uint8_t a[HF_GSTATE_LEN_MAX], b[HF_GSTATE_LEN_MAX];
    state_small(&want);
    memset(&s, 0x5a, sizeof(s)); /* padding, tails and behind the counts */
    memcpy(s.name, want.name, strlen(want.name) + 1);
    s.id = want.id;
    s.version = want.version;
    s.epoch = want.epoch;
    s.phase = want.phase;
    s.primary = want.primary;
    s.primary_host = want.primary_host;
    s.last_primary = want.last_primary;
    s.cold = HF_COLD_NO;
    s.init = s.paused = s.degraded_refuse = s.restart_always = false;
    s.next = want.next;
    s.next_host = want.next_host;
    s.in_sync = want.in_sync;
    memcpy(s.fence_text, want.fence_text, strlen(want.fence_text) + 1);
    s.join.step = 0;
    s.n_members = want.n_members;
    s.n_resources = want.n_resources;
    memcpy(s.member, want.member, 2 * sizeof(s.member[0]));
    memcpy(s.resource, want.resource, 3 * sizeof(s.resource[0]));
    size_t n = encode_state(&want, a);
    assert_int_equal(encode_state(&s, b), n);
    assert_memory_equal(a, b, n);
    assert_int_equal(decode_state(b, n, &got), 0);
    assert_memory_equal(&got, &want, sizeof(got));
}

/* Each bit of it turned: never taken, not even for a newer version. */
static void damaged(void **state)
{
    (void)state;
    static struct hf_gstate s, got;
    static uint8_t a[HF_GSTATE_LEN_MAX];
    state_small(&s);
    size_t n = encode_state(&s, a);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        a[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(decode_state(a, n, &got), -HF_EMALF);
        a[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t i = 0; i + 512 < n; i += 512) { /* a sector that was never written */
        uint8_t torn[HF_GSTATE_LEN_MAX];
        memcpy(torn, a, n);
        memset(torn + i, 0, 512);
        assert_int_equal(decode_state(torn, n, &got), -HF_EMALF);
    }
    assert_int_equal(decode_state(a, n, &got), 0);
}

/* The checksum put right, as a hostile member would. */
static int decode_resealed(uint8_t *a, size_t n, struct hf_gstate *ret_state)
{
    uint64_t sum = hf_hash(hf_slice(a, n - 8), 0x48464731u);
    for (unsigned i = 0; i < 8; i++) {
        a[n - 8 + i] = (uint8_t)(sum >> (56 - 8 * i));
    }
    return decode_state(a, n, ret_state);
}

static void resealed(void **state)
{
    (void)state;
    static struct hf_gstate s, got;
    static uint8_t a[HF_GSTATE_LEN_MAX], b[HF_GSTATE_LEN_MAX];
    state_small(&s);
    size_t n = encode_state(&s, a);
    memcpy(b, a, n);
    b[4] = HF_GROUP_VERSION + 1;
    assert_int_equal(decode_resealed(b, n, &got), -HF_EVERSION);
    b[4] = 0;
    assert_int_equal(decode_resealed(b, n, &got), -HF_EMALF);
    for (size_t k = 13; k < n; k++) {
        memcpy(b, a, k);
        assert_int_not_equal(decode_resealed(b, k, &got), 0);
    }
    memcpy(b, a, n);
    assert_int_equal(decode_resealed(b, n + 1, &got), -HF_ETRAIL);
    for (size_t i = 5; i < n - 8; i++) { /* whatever is taken is the only encoding of it */
        memcpy(b, a, n);
        b[i] = 0xff;
        if (decode_resealed(b, n, &got) == 0) {
            static uint8_t c[HF_GSTATE_LEN_MAX];
            assert_int_equal(encode_state(&got, c), n);
            assert_memory_equal(b, c, n);
        }
    }
}

/* A change that makes the small state one that must be refused. */
struct bad_state {
    const char *what;
    void (*spoil)(struct hf_gstate *s);
};

#define BAD(name, change)                                                                          \
    static void bad_##name(struct hf_gstate *s)                                                    \
    {                                                                                              \
        change;                                                                                    \
    }
#define BAD_LIST(X)                                                                                \
    X(name_empty, s->name[0] = 0)                                                                  \
    X(name_upper, s->name[0] = 'O')                                                                \
    X(name_dot, s->name[1] = '.')                                                                  \
    X(id_none, s->id = 0)                                                                          \
    X(phase, s->phase = HF_PHASE_COUNT_)                                                           \
    X(primary_attached, s->primary = 2)                                                            \
    X(primary_beyond, s->primary = 3)                                                              \
    X(primary_missing, s->primary = HF_GROUP_NONE)                                                 \
    X(primary_host_beyond, s->primary_host = 2)                                                    \
    X(primary_host_missing, s->primary_host = HF_GROUP_NONE)                                       \
    X(last_primary_attached, s->last_primary = 2)                                                  \
    X(in_sync_attached, s->in_sync = 4)                                                            \
    X(fence_text, strcpy(s->fence_text, "a\nb"))                                                   \
    X(join_step, (s->join.step = 3, strcpy(s->join.host, "gamma")))                                \
    X(join_host, s->join.step = 1)                                                                 \
    X(join_subgroup, (s->join.step = 1, strcpy(s->join.host, "gamma"), s->join.subgroup = 2))      \
    X(join_access, (s->join.step = 1, strcpy(s->join.host, "gamma"), s->join.access = 4))          \
    X(join_brought, (s->join.step = 1, strcpy(s->join.host, "gamma"), s->join.brings = true))      \
    X(join_brought_attached, (s->join.step = 1, strcpy(s->join.host, "gamma"),                     \
                              s->join.brings = true, s->join.brought = s->resource[2]))            \
    X(host_twice, strcpy(s->member[1].host, "alpha"))                                              \
    X(host_empty, s->member[1].host[0] = 0)                                                        \
    X(host_hyphen, strcpy(s->member[1].host, "beta-"))                                             \
    X(address_space, strcpy(s->member[0].address, "10.0.0.1 x"))                                   \
    X(address_equals, strcpy(s->member[0].address, "10.0.0.1=sync"))                               \
    X(access_attached, s->member[0].access = 4)                                                    \
    X(subgroup_attached, s->member[0].subgroup = 2)                                                \
    X(dirty_beyond, s->member[0].dirty = 8)                                                        \
    X(resource_twice, strcpy(s->resource[2].name, "copy1"))                                        \
    X(resource_empty, s->resource[2].name[0] = 0)                                                  \
    X(resource_slash, strcpy(s->resource[2].name, "a/b"))                                          \
    X(agent_class, strcpy(s->resource[0].agent, "lsb:x"))                                          \
    X(agent_no_type, strcpy(s->resource[0].agent, "ocf:heartbeat"))                                \
    X(agent_empty_type, strcpy(s->resource[0].agent, "ocf:heartbeat:"))                            \
    X(agent_empty_provider, strcpy(s->resource[0].agent, "ocf::x"))                                \
    X(agent_empty, strcpy(s->resource[0].agent, "ocf:"))                                           \
    X(agent_more, strcpy(s->resource[0].agent, "ocf:a:b:c"))                                       \
    X(agent_up, strcpy(s->resource[0].agent, "ocf:..:x"))                                          \
    X(agent_path, strcpy(s->resource[0].agent, "ocf:a:b/c"))                                       \
    X(probe_line, strcpy(s->resource[0].probe, "a=b\nc=d"))                                        \
    X(kind_none, s->resource[2].kind = 0)                                                          \
    X(kind_beyond, s->resource[2].kind = 3)                                                        \
    X(flags, s->resource[0].flags = 16)                                                            \
    X(host_beyond, s->resource[0].host = 2)                                                        \
    X(mirror, s->resource[0].mirror = HF_MIRROR_COUNT_)                                            \
    X(failed_on, s->resource[0].failed_on = 4)
BAD_LIST(BAD)

static void bad_states(void **state)
{
    (void)state;
    static const struct bad_state bad[] = {
#define BAD_ROW(name, change) {#name, bad_##name},
        BAD_LIST(BAD_ROW)
#undef BAD_ROW
    };
    static struct hf_gstate s, got, before;
    static uint8_t a[HF_GSTATE_LEN_MAX];
    memset(&before, 0x33, sizeof(before));
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        state_small(&s);
        bad[i].spoil(&s);
        size_t n = encode_state(&s, a);
        got = before;
        int rc = decode_state(a, n, &got);
        if (rc != -HF_EMALF) {
            fail_msg("%s: %d", bad[i].what, rc);
        }
        assert_memory_equal(&got, &before, sizeof(got)); /* untouched */
    }
}

static void too_many_copies(void **state)
{
    (void)state;
    static struct hf_gstate s, got;
    static uint8_t a[HF_GSTATE_LEN_MAX];
    state_max(&s);
    s.resource[HF_GROUP_COPIES_MAX].kind = HF_RESOURCE_COPY;
    size_t n = encode_state(&s, a);
    assert_int_equal(decode_state(a, n, &got), -HF_EMALF);
    /* counts beyond the arrays: made by hand, the encoder would read behind them */
    state_small(&s);
    n = encode_state(&s, a);
    size_t counts = 5 + 7 + 24 + 11 + 2 + 9 + 1;
    assert_int_equal(a[counts], 2);
    assert_int_equal(a[counts + 1], 3);
    a[counts] = HF_GROUP_MEMBERS_MAX + 1;
    assert_int_equal(decode_resealed(a, n, &got), -HF_EMALF);
    a[counts] = 2;
    a[counts + 1] = HF_GROUP_RESOURCES_MAX + 1;
    assert_int_equal(decode_resealed(a, n, &got), -HF_EMALF);
}

/* Agents' characters and limits that are allowed. */
static void good_states(void **state)
{
    (void)state;
    static struct hf_gstate s, got;
    static uint8_t a[HF_GSTATE_LEN_MAX];
    state_small(&s);
    s.resource[0].agent[0] = 0; /* leadership */
    strcpy(s.resource[1].agent, "ocf:my_corp-2.x:a.b-c_D");
    s.member[0].address[0] = 0;
    strcpy(s.member[1].address, "[fe80::1%eth0]:5432");
    strcpy(s.resource[0].probe, "dir=/srv/m\xc3\xbcll");
    s.phase = HF_PHASE_NONE;
    s.primary = HF_GROUP_NONE;
    size_t n = encode_state(&s, a);
    assert_int_equal(decode_state(a, n, &got), 0);
    /* a copy that came later, behind what is attached */
    state_small(&s);
    s.resource[1].kind = HF_RESOURCE_ATTACHED;
    s.resource[2].kind = HF_RESOURCE_COPY;
    s.in_sync = 5;
    s.member[1].subgroup = 2;
    s.member[1].access = 4;
    n = encode_state(&s, a);
    assert_int_equal(decode_state(a, n, &got), 0);
    s.member[1].subgroup = 1;
    n = encode_state(&s, a);
    assert_int_equal(decode_state(a, n, &got), -HF_EMALF);
}

/* ---- messages ---- */

#define TEXT_MAX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char text_max[] =
    TEXT_MAX TEXT_MAX "0123456789abcdef0123456789abcdef"; /* HF_GROUP_TEXT_MAX bytes */
static_assert(sizeof(text_max) == HF_GROUP_TEXT_MAX + 1, "the longest text");

/* One of each kind, as large as it can be. */
static void msg_max(struct hf_gmsg *m, uint8_t kind)
{
    static const uint8_t piece[HF_GROUP_PIECE_MAX] = {1, 2, 3};
    struct hf_slice text = hf_slice_str(text_max);
    memset(m, 0, sizeof(*m));
    m->kind = kind;
    m->ring = 0x1122334455667788;
    m->group_id = UINT64_MAX;
    switch ((enum hf_gmsg_kind)kind) {
    case HF_GMSG_HELLO:
        m->hello.incarnation = m->hello.epoch = m->hello.hash = UINT64_MAX;
        m->hello.version = HF_GSTATE_VERSION_MAX - 1;
        m->hello.persisted = 12;
        m->hello.quorate = m->hello.current = true;
        fill(m->hello.host, HF_HOST_NAME_MAX, 'h');
        fill(m->hello.address, HF_GROUP_ADDRESS_MAX, 'a');
        m->hello.access = m->hello.procdown = 0x8001;
        m->hello.config = 0x7ffe;
        m->hello.resigned = HF_RESIGNED_DISK;
        m->hello.sync = 3;
        m->hello.async = 0x55aa;
        m->hello.n_roles = HF_GROUP_RESOURCES_MAX;
        memset(m->hello.role, HF_ROLE_COUNT_ - 1, HF_GROUP_RESOURCES_MAX);
        m->hello.n_ghosts = HF_GROUP_GHOSTS_MAX;
        for (unsigned i = 0; i < HF_GROUP_GHOSTS_MAX; i++) {
            m->hello.ghost[i] = UINT32_MAX - i;
        }
        break;
    case HF_GMSG_STATE:
        m->state.version = 7;
        m->state.total = HF_GSTATE_LEN_MAX;
        m->state.offset = HF_GSTATE_LEN_MAX - HF_GROUP_PIECE_MAX;
        m->state.piece = hf_slice(piece, sizeof(piece));
        break;
    case HF_GMSG_ACK:
        m->ack.version = 9;
        break;
    case HF_GMSG_EXCLUDE:
        m->exclude.node_id = 0xdeadbeef;
        m->exclude.version = UINT64_MAX;
        break;
    case HF_GMSG_QUORUM:
        m->quorum.quorate = true;
        break;
    case HF_GMSG_ROLE:
        m->role.resource = 15;
        m->role.role = HF_ROLE_COUNT_ - 1;
        m->role.op = HF_GROUP_OPS - 1;
        m->role.rc = 190;
        m->role.epoch = 4;
        m->role.text = text;
        break;
    case HF_GMSG_ABLE:
        m->able.access = 0xff;
        m->able.config = 0xffff;
        m->able.resigned = HF_RESIGNED_DISK;
        break;
    case HF_GMSG_MIRRORED:
        m->mirrored.epoch = 8;
        m->mirrored.sync = 0xf0;
        m->mirrored.async = 0x0f;
        break;
    case HF_GMSG_MIRROR:
        m->mirror.epoch = 8;
        m->mirror.resource = 7;
        m->mirror.seen = HF_SEEN_COUNT_ - 1;
        break;
    case HF_GMSG_FENCED:
        m->fenced.member = 15;
        m->fenced.ok = true;
        m->fenced.text = text;
        break;
    case HF_GMSG_TIMEOUT:
        m->timeout.what = HF_GTIMEOUT_COUNT_ - 1;
        m->timeout.member = HF_GROUP_NONE;
        m->timeout.version = 6;
        break;
    case HF_GMSG_REQUEST:
        m->request.what = HF_GREQUEST_COUNT_ - 1;
        m->request.member = 15;
        m->request.resource = HF_GROUP_NONE;
        m->request.request = 99;
        break;
    case HF_GMSG_JOIN:
        m->join.request = 5;
        fill(m->join.host, HF_HOST_NAME_MAX, 'h');
        fill(m->join.address, HF_GROUP_ADDRESS_MAX, 'a');
        m->join.brings = true;
        resource_max(&m->join.brought, 1);
        m->join.brought.host = HF_GROUP_NONE;
        break;
    case HF_GMSG_JOIN_PROBED:
        m->joining.request = 5;
        m->joining.access = 0xff;
        break;
    case HF_GMSG_JOIN_READY:
        m->joining.request = 5;
        break;
    case HF_GMSG_JOIN_FAILED:
        m->joining.request = 5;
        m->joining.text = text;
        break;
    case HF_GMSG_PING:
        m->ping.nonce = UINT64_MAX;
        break;
    case HF_GMSG_BYE:
        break;
    case HF_GMSG_NONE_:
    case HF_GMSG_COUNT_:
        fail();
    }
}

/* The text of a message, or the piece: where its slice is. */
static struct hf_slice *slice_of(struct hf_gmsg *m)
{
    return m->kind == HF_GMSG_STATE         ? &m->state.piece
           : m->kind == HF_GMSG_ROLE        ? &m->role.text
           : m->kind == HF_GMSG_FENCED      ? &m->fenced.text
           : m->kind == HF_GMSG_JOIN_FAILED ? &m->joining.text
                                            : NULL;
}

static void messages(void **state)
{
    (void)state;
    for (uint8_t kind = 1; kind < HF_GMSG_COUNT_; kind++) {
        uint8_t a[HF_GMSG_LEN_MAX + 1], b[HF_GMSG_LEN_MAX], *copy = NULL;
        static struct hf_gmsg m, got;
        size_t n, n2;
        msg_max(&m, kind);
        assert_int_equal(encode_msg(a, HF_GMSG_LEN_MAX, &m, &n), 0);
        memset(&got, 0xa5, sizeof(got));
        assert_int_equal(decode_msg(a, n, &got, &copy), 0);
        assert_int_equal(encode_msg(b, sizeof(b), &got, &n2), 0);
        assert_int_equal(n2, n);
        assert_memory_equal(a, b, n);
        if (slice_of(&m)) {
            assert_true(hf_slice_eq(*slice_of(&m), *slice_of(&got)));
            *slice_of(&got) = *slice_of(&m);
        }
        assert_memory_equal(&got, &m, sizeof(m)); /* what is not of its kind is zero */
        free(copy);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(decode_msg(a, k, &got, NULL), -HF_ETRUNC);
            assert_int_equal(encode_msg(b, k, &m, &n2), -HF_EFULL);
        }
        a[n] = 0;
        assert_int_equal(decode_msg(a, n + 1, &got, NULL), -HF_ETRAIL);
        a[2] = HF_GROUP_VERSION + 1;
        assert_int_equal(decode_msg(a, n, &got, NULL), -HF_EVERSION);
        a[2] = 0;
        assert_int_equal(decode_msg(a, n, &got, NULL), -HF_EMALF);
    }
}

static void bad_msg(const struct hf_gmsg *m)
{
    uint8_t a[HF_GMSG_LEN_MAX];
    struct hf_gmsg got;
    size_t n;
    assert_int_equal(encode_msg(a, sizeof(a), m, &n), 0);
    assert_int_equal(decode_msg(a, n, &got, NULL), -HF_EMALF);
}

#define BAD_MSG(kind_, change)                                                                     \
    do {                                                                                           \
        msg_max(&m, HF_GMSG_##kind_);                                                              \
        change;                                                                                    \
        bad_msg(&m);                                                                               \
    } while (0)

static void bad_messages(void **state)
{
    (void)state;
    struct hf_gmsg m;
    BAD_MSG(HELLO, m.hello.incarnation = 0);
    BAD_MSG(HELLO, m.hello.host[0] = 0);
    BAD_MSG(HELLO, m.hello.host[3] = '_');
    BAD_MSG(HELLO, m.hello.address[0] = ' ');
    BAD_MSG(HELLO, m.hello.role[15] = HF_ROLE_COUNT_);
    BAD_MSG(STATE, m.state.piece.n = 0);
    BAD_MSG(STATE, m.state.offset++);
    BAD_MSG(STATE, m.state.offset = UINT16_MAX);
    BAD_MSG(STATE, m.state.total = HF_GSTATE_LEN_MAX + 1);
    BAD_MSG(ROLE, m.role.resource = 16);
    BAD_MSG(ROLE, m.role.role = HF_ROLE_COUNT_);
    BAD_MSG(ROLE, m.role.op = HF_GROUP_OPS);
    BAD_MSG(MIRROR, m.mirror.resource = 254);
    BAD_MSG(MIRROR, m.mirror.seen = HF_SEEN_COUNT_);
    BAD_MSG(FENCED, m.fenced.member = 16);
    BAD_MSG(TIMEOUT, m.timeout.what = 0);
    BAD_MSG(TIMEOUT, m.timeout.what = HF_GTIMEOUT_COUNT_);
    BAD_MSG(TIMEOUT, m.timeout.member = 16);
    BAD_MSG(REQUEST, m.request.what = 0);
    BAD_MSG(REQUEST, m.request.what = HF_GREQUEST_COUNT_);
    BAD_MSG(REQUEST, m.request.member = 16);
    BAD_MSG(REQUEST, m.request.resource = 16);
    BAD_MSG(JOIN, m.join.host[0] = 0);
    BAD_MSG(JOIN, m.join.address[1] = '=');
    BAD_MSG(JOIN, m.join.brought.kind = HF_RESOURCE_ATTACHED);
    BAD_MSG(JOIN, m.join.brought.flags = 16);
    BAD_MSG(JOIN, m.join.brought.name[0] = '-');
    BAD_MSG(JOIN, m.join.brought.agent[0] = 'x');
    BAD_MSG(JOIN, m.join.brought.probe[0] = '\n');
}

/* Bytes that no encoder makes: counts beyond arrays, a bool of 2, a text with a NUL. */
static void bad_bytes(void **state)
{
    (void)state;
    struct hf_gmsg m, got;
    uint8_t a[HF_GMSG_LEN_MAX];
    size_t n;
    msg_max(&m, HF_GMSG_HELLO);
    assert_int_equal(encode_msg(a, sizeof(a), &m, &n), 0);
    size_t n_roles = 20 + 42 + 64 + 64 + 11, n_ghosts = n_roles + 1 + HF_GROUP_RESOURCES_MAX;
    assert_int_equal(a[n_roles], HF_GROUP_RESOURCES_MAX);
    assert_int_equal(a[n_ghosts], HF_GROUP_GHOSTS_MAX);
    a[n_ghosts]++;
    assert_int_equal(decode_msg(a, n, &got, NULL), -HF_EMALF);
    a[n_ghosts]--;
    a[n_roles]++;
    assert_int_equal(decode_msg(a, n, &got, NULL), -HF_EMALF);
    a[n_roles]--;
    a[60] = 2; /* quorate */
    assert_int_equal(decode_msg(a, n, &got, NULL), -HF_EMALF);
    msg_max(&m, HF_GMSG_FENCED);
    assert_int_equal(encode_msg(a, sizeof(a), &m, &n), 0);
    a[n - 1] = 0;
    assert_int_equal(decode_msg(a, n, &got, NULL), -HF_EMALF);
    msg_max(&m, HF_GMSG_BYE);
    assert_int_equal(encode_msg(a, sizeof(a), &m, &n), 0);
    for (unsigned kind = 0; kind < 256; kind++) {
        a[3] = (uint8_t)kind;
        int rc = decode_msg(a, n, &got, NULL);
        assert_int_equal(rc, kind == HF_GMSG_BYE                 ? 0
                             : kind > 0 && kind < HF_GMSG_COUNT_ ? -HF_ETRUNC
                                                                 : -HF_EMALF);
    }
    a[0] ^= 1;
    assert_int_equal(decode_msg(a, n, &got, NULL), -HF_EMALF);
}

/* No message is lost because an agent said something strange. */
static void texts(void **state)
{
    (void)state;
    struct hf_gmsg m, got;
    uint8_t a[HF_GMSG_LEN_MAX], *copy;
    char text[HF_GROUP_TEXT_MAX + 40];
    size_t n;
    memset(text, 'x', sizeof(text));
    memcpy(text, "no\n\x7f\0such \xc3\xa9", 12);
    msg_max(&m, HF_GMSG_ROLE);
    m.role.text = hf_slice(text, sizeof(text));
    assert_int_equal(encode_msg(a, sizeof(a), &m, &n), 0);
    assert_int_equal(decode_msg(a, n, &got, &copy), 0);
    assert_int_equal(got.role.text.n, HF_GROUP_TEXT_MAX);
    assert_memory_equal(got.role.text.p, "no   such \xc3\xa9xxx", 15);
    free(copy);
    m.role.text = hf_slice(NULL, 0);
    assert_int_equal(encode_msg(a, sizeof(a), &m, &n), 0);
    assert_int_equal(decode_msg(a, n, &got, NULL), 0);
    assert_int_equal(got.role.text.n, 0);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(hf_mirror_name(HF_MIRROR_IN_SYNC), "in-sync");
    assert_string_equal(hf_phase_name(HF_PHASE_CLEARING), "clearing");
    assert_string_equal(hf_gmsg_name(HF_GMSG_HELLO), "hello");
    assert_string_equal(hf_gmsg_name(HF_GMSG_JOIN_READY), "ready");
    assert_string_equal(hf_gmsg_name(HF_GMSG_BYE), "bye");
    assert_string_equal(hf_role_name(HF_ROLE_STUCK), "stuck");
    assert_string_equal(hf_gmsg_name(HF_GMSG_NONE_), "?");
    for (unsigned i = 0; i < 256; i++) {
        assert_int_equal(strcmp(hf_mirror_name((uint8_t)i), "?") != 0, i < HF_MIRROR_COUNT_);
        assert_int_equal(strcmp(hf_phase_name((uint8_t)i), "?") != 0, i < HF_PHASE_COUNT_);
        assert_int_equal(strcmp(hf_gmsg_name((uint8_t)i), "?") != 0, i && i < HF_GMSG_COUNT_);
        assert_int_equal(strcmp(hf_role_name((uint8_t)i), "?") != 0, i < HF_ROLE_COUNT_);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(states),       HF_TEST(unused_is_zero),  HF_TEST(damaged),     HF_TEST(resealed),
        HF_TEST(bad_states),   HF_TEST(too_many_copies), HF_TEST(good_states), HF_TEST(messages),
        HF_TEST(bad_messages), HF_TEST(bad_bytes),       HF_TEST(texts),       HF_TEST(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
