/* Fuzz: the bodies of pulls and of the cluster's state; what is accepted comes back as it went. */
#include <assert.h>
#include <stdlib.h>

#include "codec/advert_v1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode_changes(struct hf_wr *w, struct hf_changes changes)
{
    struct hf_change c;
    while (hf_changes_next(&changes, &c)) {
        hf_change_encode(w, &c);
    }
}

static void check(struct hf_slice in, const struct hf_wr *w)
{
    struct hf_slice out = {0};
    int rc = hf_wr_end(w, &out);
    assert(rc == 0 && hf_slice_eq(in, out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_slice in = hf_slice(data, size);
    struct hf_pull pull;
    struct hf_state state;
    struct hf_state_member m;
    struct hf_wr w;
    uint8_t *room = malloc(size + 1);
    hf_wr_init(&w, room, size);
    if (hf_pull_decode(in, &pull) == 0) {
        hf_pull_encode(&w, &pull, pull.changes.n);
        encode_changes(&w, pull.changes);
        check(in, &w);
    }
    hf_wr_init(&w, room, size);
    if (hf_state_decode(in, &state) == 0) {
        hf_state_encode(&w, &state);
        while (hf_state_next(&state, &m)) {
            hf_state_member_encode(&w, &m, m.changes.n);
            encode_changes(&w, m.changes);
        }
        check(in, &w);
    }
    free(room);
    return 0;
}
