/* Fuzz: the sequencer protocol's decoders, and both cores stepped with frames from outside. */
#include <assert.h>
#include <stdlib.h>

#include "base/rd.h"
#include "engine/member.h"
#include "engine/sequencer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(struct hf_slice in)
{
    static struct hf_engine_v1_state st;
    static uint8_t buf[HF_ENGINE_V1_FRAME_MAX];
    struct hf_engine_v1_frame f;
    struct hf_wr w;
    struct hf_slice out;
    if (in.n > sizeof(buf)) {
        return;
    }
    if (hf_engine_v1_decode(in, &f) == 0) {
        hf_wr_init(&w, buf, sizeof(buf));
        hf_engine_v1_encode(&w, &f);
        int rc = hf_wr_end(&w, &out);
        assert(rc == 0 && hf_slice_eq(in, out));
    }
    if (hf_engine_v1_state_decode(in, &st) == 0) {
        hf_wr_init(&w, buf, sizeof(buf));
        hf_engine_v1_state_encode(&w, &st);
        int rc = hf_wr_end(&w, &out);
        assert(rc == 0 && hf_slice_eq(in, out));
    }
}

static int send_nowhere(void *arg, struct hf_slice frame)
{
    (void)arg;
    (void)frame;
    return 0;
}

static int send_link(void *arg, unsigned link, struct hf_slice frame)
{
    (void)arg;
    (void)link;
    (void)frame;
    return 0;
}

static void close_link(void *arg, unsigned link)
{
    (void)arg;
    (void)link;
}

/* Input: u8 what (bits 0-2 link, bit 3 to the member, bit 4 time passes), frame with a 16-bit
 * length. */
static void step(struct hf_sequencer *s, struct hf_member *m, struct hf_slice in)
{
    struct hf_rd r;
    hf_time now = HF_S(1);
    hf_rd_init(&r, in);
    while (hf_rd_left(&r)) {
        uint8_t what = hf_rd_u8(&r);
        struct hf_slice frame = hf_rd_str16(&r, HF_ENGINE_V1_FRAME_MAX);
        unsigned link = what & 7u;
        if (r.err) {
            return;
        }
        now += what & 16 ? HF_MS(300) : 1;
        if (what & 8) {
            if (m->state == HF_MEMBER_DOWN && hf_member_attach(m, now) != 0) {
                return;
            }
            int rc = hf_member_input(m, frame, now);
            rc = hf_member_pump(m) || rc || hf_member_tick(m, now);
            if (rc) {
                hf_member_detach(m);
            }
        } else if (s->link[link].state != HF_LINK_FREE) {
            hf_sequencer_input(s, link, frame, now);
        } else if (hf_sequencer_open(s, now, &link) != 0) {
            return;
        }
        hf_sequencer_tick(s, now);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hf_sequencer s;
    static struct hf_member m;
    struct hf_slice in = hf_slice(data, size);
    struct hf_member_opt mo = {.node_id = 1, .host = "a", .silence = HF_S(1), .send = send_nowhere};
    struct hf_sequencer_opt so = {.generation = 3,
                                  .node_id = 1,
                                  .silence = HF_S(1),
                                  .collect = true,
                                  .send = send_link,
                                  .close = close_link};
    round_trip(in);
    hf_member_init(&m, &mo);
    hf_sequencer_init(&s, &so, HF_S(1));
    step(&s, &m, in);
    hf_sequencer_fini(&s);
    hf_member_fini(&m);
    return 0;
}
