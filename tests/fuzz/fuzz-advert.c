/* Fuzz: a datagram's head and an advert's body; what is accepted comes back as it went. */
#include <assert.h>
#include <stdlib.h>

#include "codec/advert_v1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void body(struct hf_slice in)
{
    struct hf_advert a;
    if (hf_advert_decode(in, &a)) {
        return;
    }
    uint8_t *room = malloc(in.n);
    struct hf_wr w;
    struct hf_change c;
    size_t mark;
    uint16_t n = (uint16_t)a.changes.n;
    hf_wr_init(&w, room, in.n);
    hf_advert_encode(&w, &a, &mark);
    while (hf_changes_next(&a.changes, &c)) {
        hf_change_encode(&w, &c);
    }
    hf_advert_encode_end(&w, mark, a.from, n);
    struct hf_slice out = {0};
    int rc = hf_wr_end(&w, &out);
    assert(rc == 0 && hf_slice_eq(in, out));
    free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_slice in = hf_slice(data, size);
    struct hf_datagram_head h;
    size_t len;
    if (hf_datagram_head_decode(in, &h, &len)) {
        body(in);
        return 0;
    }
    uint8_t room[HF_DATAGRAM_HEAD_LEN_MAX];
    struct hf_wr w;
    struct hf_slice out = {0};
    hf_wr_init(&w, room, sizeof(room));
    hf_datagram_head_encode(&w, &h);
    int rc = hf_wr_end(&w, &out);
    assert(rc == 0 && hf_slice_eq(out, hf_slice(data, len)));
    body(hf_slice(data + len, size - len));
    return 0;
}
