/* Fuzz: the Corosync engine's messages, and its views stepped with whatever CPG could tell. */
#include <assert.h>
#include <string.h>

#include "base/hash.h"
#include "base/rd.h"
#include "engine/cpg_view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A head that is right for the body, so that the decoder looks at it. */
static struct hf_slice frame_of(uint8_t kind, struct hf_slice body, uint8_t *buf, size_t n)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, n);
    hf_wr_u16(&w, HF_CPG_V1_MAGIC);
    hf_wr_u8(&w, HF_CPG_V1_VERSION);
    hf_wr_u8(&w, kind);
    hf_wr_u64(&w, hf_hash(body, HF_CPG_V1_SEED(kind)));
    hf_wr_bytes(&w, body);
    int rc = hf_wr_end(&w, &s);
    assert(rc == 0);
    return s;
}

static void round_trip(struct hf_slice in)
{
    uint8_t buf[HF_CPG_V1_FRAME_MAX];
    struct hf_cpg_v1_frame f;
    struct hf_wr w;
    struct hf_slice out;
    if (hf_cpg_v1_decode(in, &f) == 0) {
        hf_wr_init(&w, buf, sizeof(buf));
        hf_cpg_v1_encode(&w, &f);
        int rc = hf_wr_end(&w, &out);
        assert(rc == 0 && hf_slice_eq(in, out));
    }
}

static int on_send(void *arg, struct hf_slice frame)
{
    struct hf_cpg_v1_frame f;
    int rc = hf_cpg_v1_decode(frame, &f);
    (void)arg;
    assert(rc == 0);
    return 0;
}

static void on_view(void *arg, const struct hf_engine_view *v, uint64_t ring)
{
    uint64_t *last = arg;
    (void)ring;
    assert(v->ring > *last && v->n_members <= HF_ENGINE_MEMBERS_MAX);
    *last = v->ring;
}

static void on_message(void *arg, uint32_t from, struct hf_slice msg)
{
    (void)arg;
    (void)from;
    assert(msg.n <= HF_CPG_V1_DATA_MAX);
}

static size_t rd_addrs(struct hf_rd *r, struct hf_cpg_addr *to, size_t n_max)
{
    size_t n = hf_rd_u8(r) % (n_max + 1);
    for (size_t i = 0; i < n; i++) {
        to[i].node = hf_rd_u8(r);
        to[i].pid = hf_rd_u8(r);
        to[i].reason = hf_rd_u8(r);
    }
    return n;
}

/* Input: u8 what, then its fields: a configuration change, a ring, a message, or a pause. */
static void step(struct hf_cpg_view *v, struct hf_rd *r, hf_time now)
{
    struct hf_cpg_addr member[8], left[8];
    uint32_t nodes[8];
    uint8_t buf[HF_CPG_V1_FRAME_MAX], what = hf_rd_u8(r);
    struct hf_cpg_event e = {.member = member, .left = left, .nodes = nodes};
    switch (what & 3u) {
    case 0:
        e.what = HF_CPG_CONFCHG;
        e.n_members = rd_addrs(r, member, HF_ARRAY_LEN(member));
        e.n_left = rd_addrs(r, left, HF_ARRAY_LEN(left));
        break;
    case 1:
        e.what = HF_CPG_TOTEM;
        e.rep = hf_rd_u8(r);
        e.ring = hf_rd_u8(r);
        e.n_nodes = hf_rd_u8(r) % (HF_ARRAY_LEN(nodes) + 1);
        for (size_t i = 0; i < e.n_nodes; i++) {
            nodes[i] = hf_rd_u8(r);
        }
        break;
    case 2:
        e.what = HF_CPG_MESSAGE;
        e.node = hf_rd_u8(r);
        e.pid = hf_rd_u8(r);
        e.msg = frame_of(what >> 2, hf_rd_str16(r, HF_CPG_V1_FRAME_MAX - HF_CPG_V1_HEAD), buf,
                         sizeof(buf));
        round_trip(e.msg);
        break;
    default:
        hf_cpg_view_doubt(v);
        return;
    }
    if (!r->err) {
        hf_cpg_view_step(v, &e, now);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hf_cpg_view v;
    uint64_t last = 0;
    struct hf_cpg_view_opt opt = {.node = 1,
                                  .pid = 1,
                                  .host = "a",
                                  .patience = HF_MS(250),
                                  .send = on_send,
                                  .view = on_view,
                                  .message = on_message,
                                  .arg = &last};
    struct hf_rd r;
    hf_time now = HF_S(1);
    round_trip(hf_slice(data, size));
    hf_cpg_view_init(&v, &opt);
    hf_rd_init(&r, hf_slice(data, size));
    while (hf_rd_left(&r)) {
        step(&v, &r, now);
        now += HF_MS(100);
        hf_cpg_view_flush(&v, now);
        (void)hf_cpg_view_deadline(&v);
    }
    hf_cpg_view_fini(&v);
    return 0;
}
