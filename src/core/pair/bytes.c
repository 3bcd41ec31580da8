/* Runs of bytes that lose their front, and frames out of a stream. */
#include <assert.h>
#include <errno.h>

#include "base/err.h"
#include "base/mem.h"
#include "core/pair/pair_impl.h"

#define KEEP_ROOM 4096u

uint8_t *hf_pair_bytes_reserve(struct hf_pair_bytes *b, size_t n)
{
    if (b->room - b->head - b->n >= n) {
        return b->p + b->head + b->n;
    }
    if (n > SIZE_MAX / 4 || b->n > SIZE_MAX / 4) {
        return NULL;
    }
    /* moving what is there is worth it when it frees as much again as it moves */
    if (b->head >= b->n && b->room - b->n >= n) {
        memmove(b->p, b->p + b->head, b->n);
        b->head = 0;
        return b->p + b->n;
    }
    size_t room = b->n + n + (b->n + n) / 2;
    room = room < 64 ? 64 : room;
    uint8_t *p = hf_alloc(room);
    if (!p) {
        return NULL;
    }
    if (b->n) {
        memcpy(p, b->p + b->head, b->n);
    }
    hf_free(b->p);
    b->p = p;
    b->head = 0;
    b->room = room;
    return p + b->n;
}

int hf_pair_bytes_add(struct hf_pair_bytes *b, struct hf_slice s)
{
    if (s.n == 0) {
        return 0;
    }
    uint8_t *p = hf_pair_bytes_reserve(b, s.n);
    if (!p) {
        return -ENOMEM;
    }
    memcpy(p, s.p, s.n);
    b->n += s.n;
    return 0;
}

void hf_pair_bytes_cut(struct hf_pair_bytes *b, size_t n)
{
    assert(n <= b->n);
    b->head += n;
    b->n -= n;
    if (b->n == 0) {
        hf_pair_bytes_clear(b);
    }
}

void hf_pair_bytes_clear(struct hf_pair_bytes *b)
{
    if (b->room > (b->keep ? b->keep : KEEP_ROOM)) {
        hf_free(b->p);
        b->p = NULL;
        b->room = 0;
    }
    b->head = b->n = 0;
}

void hf_pair_bytes_fini(struct hf_pair_bytes *b)
{
    hf_free(b->p);
    *b = (struct hf_pair_bytes){0};
}

int hf_pair_bytes_frame(struct hf_pair_bytes *b, const struct hf_pair_v1_frame *f)
{
    uint8_t buf[128]; /* of all frames only a batch has bytes of its own: it is built in place */
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, buf, sizeof(buf));
    hf_pair_v1_encode(&w, f);
    int rc = hf_wr_end(&w, &s);
    assert(rc == 0);
    return hf_pair_bytes_add(b, s);
}

void hf_pair_reader_fini(struct hf_pair_reader *r)
{
    hf_pair_bytes_fini(&r->held);
    *r = (struct hf_pair_reader){0};
}

void hf_pair_reader_clear(struct hf_pair_reader *r)
{
    hf_pair_bytes_clear(&r->held);
    r->left = hf_slice(NULL, 0);
    r->taken = 0;
}

void hf_pair_reader_feed(struct hf_pair_reader *r, struct hf_slice bytes)
{
    r->left = bytes;
}

/* Move bytes to what is held until it has n; false: there are not so many. */
static int hold(struct hf_pair_reader *r, size_t n)
{
    size_t more = r->held.n < n ? n - r->held.n : 0;
    more = more < r->left.n ? more : r->left.n;
    int rc = hf_pair_bytes_add(&r->held, hf_slice(r->left.p, more));
    if (rc == 0) {
        r->left = hf_slice(more ? r->left.p + more : r->left.p, r->left.n - more);
    }
    return rc;
}

int hf_pair_reader_next(struct hf_pair_reader *r, struct hf_pair_v1_frame *ret_frame)
{
    size_t n;
    hf_pair_bytes_cut(&r->held, r->taken);
    r->taken = 0;
    if (r->held.n == 0) { /* as a rule: whole frames in what came */
        int rc = hf_pair_v1_frame_len(r->left, &n);
        if (rc) {
            return rc;
        }
        if (n && n <= r->left.n) {
            struct hf_slice frame = hf_slice(r->left.p, n);
            r->left = hf_slice(r->left.p + n, r->left.n - n);
            rc = hf_pair_v1_decode(frame, ret_frame);
            return rc ? rc : 1;
        }
    }
    int rc = hold(r, HF_PAIR_V1_HEAD_LEN);
    rc = rc ? rc : hf_pair_v1_frame_len(hf_pair_bytes_slice(&r->held), &n);
    rc = rc || n == 0 ? rc : hold(r, n);
    if (rc || n == 0 || r->held.n < n) {
        return rc;
    }
    r->taken = n;
    rc = hf_pair_v1_decode(hf_pair_bytes_slice(&r->held), ret_frame);
    return rc ? rc : 1;
}
