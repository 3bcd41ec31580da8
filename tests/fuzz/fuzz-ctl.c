/* The control protocol: decoding is total, and encode(decode(x)) == x, but for what a newer HELLO
 * has that is not known here. */
#include <assert.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/ctl_v1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t again[HF_CTL_FRAME_MAX + 4];
    struct hf_slice in = hf_slice(data, n);
    struct hf_ctl_msg m;
    for (int used; (used = hf_ctl_decode(in, &m)) > 0;) {
        struct hf_wr w;
        struct hf_slice out;
        hf_wr_init(&w, again, sizeof(again));
        hf_ctl_encode(&w, &m);
        assert(hf_wr_end(&w, &out) == 0);
        assert(hf_slice_eq(out, hf_slice(in.p, (size_t)used)) ||
               (m.type == HF_CTL_HELLO && m.version > HF_CTL_VERSION && out.n < (size_t)used));
        in = hf_slice(in.p + used, in.n - (size_t)used);
    }
    return 0;
}
