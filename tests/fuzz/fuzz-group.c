/* Fuzz: the group protocol's decoders. Input: u8 what (0: a message, 1: a state as it is, otherwise
 * a state whose checksum is put right first), then its bytes. */
#include <assert.h>

#include "base/hash.h"
#include "base/rd.h"
#include "base/wr.h"
#include "codec/group_v1.h"

#define GSTATE_MAGIC 0x48464731u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void message(struct hf_slice in)
{
    struct hf_gmsg m;
    if (hf_gmsg_decode(in, &m) != 0) {
        return;
    }
    uint8_t buf[HF_GMSG_LEN_MAX];
    struct hf_wr w;
    struct hf_slice out;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_gmsg_encode(&w, &m);
    int rc = hf_wr_end(&w, &out);
    assert(rc == 0 && hf_slice_eq(in, out));
    assert(hf_gmsg_name(m.kind)[0] != '?');
}

static void state(struct hf_slice in)
{
    static struct hf_gstate s, again;
    if (hf_gstate_decode(in, &s) != 0) {
        return;
    }
    static uint8_t buf[HF_GSTATE_LEN_MAX];
    struct hf_slice out;
    int rc = hf_gstate_encode(&s, buf, sizeof(buf), &out);
    assert(rc == 0 && hf_slice_eq(in, out));
    rc = hf_gstate_decode(out, &again);
    assert(rc == 0 && memcmp(&s, &again, sizeof(s)) == 0);
}

static void resealed_state(struct hf_slice in)
{
    static uint8_t buf[2 * HF_GSTATE_LEN_MAX];
    struct hf_wr w;
    struct hf_slice out;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_wr_bytes(&w, in);
    hf_wr_u64(&w, hf_hash(in, GSTATE_MAGIC));
    if (hf_wr_end(&w, &out) == 0) {
        state(out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_rd r;
    hf_rd_init(&r, hf_slice(data, size));
    uint8_t what = hf_rd_u8(&r);
    struct hf_slice in = hf_rd_bytes(&r, hf_rd_left(&r));
    if (what == 0) {
        message(in);
    } else if (what == 1) {
        state(in);
    } else {
        resealed_state(in);
    }
    return 0;
}
