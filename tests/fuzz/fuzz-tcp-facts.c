/* Fuzz: facts of connections, packets from raw sockets, and what they mean after a probe. */
#include <assert.h>
#include <string.h>

#include "codec/tcp_facts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool read_facts(struct hf_rd *r, struct hf_tcp_facts *ret_f)
{
    uint8_t buf[HF_TCP_FACTS_LEN_MAX];
    const uint8_t *start = r->p;
    struct hf_slice s;
    struct hf_wr w;
    memset(ret_f, 0, sizeof(*ret_f));
    hf_tcp_facts_decode(r, ret_f);
    if (r->err) {
        return false;
    }
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_facts_encode(&w, ret_f);
    int rc = hf_wr_end(&w, &s);
    assert(rc == 0 && hf_slice_eq(s, hf_slice(start, (size_t)(r->p - start))));
    return true;
}

/* What was built is read as the same. */
static void round_trip(struct hf_slice packet, const struct hf_tcp_segment *seg)
{
    static uint8_t buf[HF_TCP_PACKET_MAX];
    struct hf_tcp_segment again;
    struct hf_slice s;
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_segment_build(&w, seg);
    if (hf_wr_end(&w, &s) == 0) {
        int rc = hf_tcp_segment_parse(s, &again);
        assert(rc == 0 && hf_tcp_checksums_ok(s));
        assert(again.seq == seg->seq && again.ack == seg->ack && again.flags == seg->flags);
        assert(again.has_ts == seg->has_ts && again.tsval == seg->tsval);
        assert(again.has_mss == seg->has_mss && again.wscale == seg->wscale);
        assert(again.n_sack <= seg->n_sack && hf_slice_eq(again.payload, seg->payload));
    }
    hf_wr_init(&w, buf, sizeof(buf));
    hf_tcp_wrap(&w, &seg->src, &seg->dst, hf_tcp_of_packet(packet));
    int rc = hf_wr_end(&w, &s);
    assert(rc != 0 || hf_tcp_checksums_ok(s)); /* too long with an IP header of our own */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_tcp_facts f, g;
    struct hf_tcp_segment seg, last = {0};
    struct hf_rd r;
    hf_rd_init(&r, hf_slice(data, size));
    bool have = read_facts(&r, &f);
    if (!have) {
        hf_rd_init(&r, hf_slice(data, size));
    }
    uint64_t una = hf_rd_u32(&r), total = una + hf_rd_u16(&r), rx = hf_rd_u32(&r), tx = 0;
    while (hf_rd_left(&r)) {
        struct hf_slice packet = hf_rd_str16(&r, UINT16_MAX);
        uint32_t wnd;
        if (r.err || hf_tcp_segment_parse(packet, &seg)) {
            continue;
        }
        round_trip(packet, &seg);
        if (hf_tcp_facts_handshake(&last, &seg, 0, &g) == 0) {
            assert(g.snd_wscale <= HF_TCP_WSCALE_MAX && g.rcv_wscale <= HF_TCP_WSCALE_MAX);
        }
        if (have &&
            hf_tcp_read_answer(&f, &seg, una, total, rx, &tx, &wnd) == HF_TCP_ANSWER_EXACT) {
            assert(tx >= una && tx <= total + 1);
        }
        last = seg;
    }
    return 0;
}
