#include "base/wr.h"

#include <assert.h>

#include "base/err.h"

void hf_wr_init(struct hf_wr *w, void *buf, size_t n)
{
    *w = (struct hf_wr){.base = buf, .p = buf, .end = (uint8_t *)buf + n, .err = 0};
}

static uint8_t *room(struct hf_wr *w, size_t n)
{
    if (w->err) {
        return NULL;
    }
    if (n > (size_t)(w->end - w->p)) {
        w->err = -HF_EFULL;
        return NULL;
    }
    uint8_t *p = w->p;
    w->p += n;
    return p;
}

static void put_be(uint8_t *p, uint64_t v, size_t n)
{
    for (size_t i = n; i-- > 0; v >>= 8) {
        p[i] = (uint8_t)v;
    }
}

static void be(struct hf_wr *w, uint64_t v, size_t n)
{
    uint8_t *p = room(w, n);
    if (p) {
        put_be(p, v, n);
    }
}

void hf_wr_u8(struct hf_wr *w, uint8_t v)
{
    be(w, v, 1);
}

void hf_wr_u16(struct hf_wr *w, uint16_t v)
{
    be(w, v, 2);
}

void hf_wr_u32(struct hf_wr *w, uint32_t v)
{
    be(w, v, 4);
}

void hf_wr_u64(struct hf_wr *w, uint64_t v)
{
    be(w, v, 8);
}

void hf_wr_bytes(struct hf_wr *w, struct hf_slice s)
{
    uint8_t *p = room(w, s.n);
    if (p && s.n) {
        memcpy(p, s.p, s.n);
    }
}

static void str(struct hf_wr *w, struct hf_slice s, size_t len_bytes)
{
    if (!w->err && len_bytes < 8 && s.n >> (8 * len_bytes)) {
        w->err = -HF_EFULL;
    }
    be(w, s.n, len_bytes);
    hf_wr_bytes(w, s);
}

void hf_wr_str8(struct hf_wr *w, struct hf_slice s)
{
    str(w, s, 1);
}

void hf_wr_str16(struct hf_wr *w, struct hf_slice s)
{
    str(w, s, 2);
}

void hf_wr_str32(struct hf_wr *w, struct hf_slice s)
{
    str(w, s, 4);
}

size_t hf_wr_len(const struct hf_wr *w)
{
    return (size_t)(w->p - w->base);
}

void hf_wr_back(struct hf_wr *w, size_t mark)
{
    assert(mark <= hf_wr_len(w));
    w->p = w->base + mark;
    w->err = 0;
}

static void patch(struct hf_wr *w, size_t mark, uint64_t v, size_t n)
{
    if (!w->err) {
        assert(mark <= hf_wr_len(w) && n <= hf_wr_len(w) - mark);
        put_be(w->base + mark, v, n);
    }
}

void hf_wr_patch_u16(struct hf_wr *w, size_t mark, uint16_t v)
{
    patch(w, mark, v, 2);
}

void hf_wr_patch_u32(struct hf_wr *w, size_t mark, uint32_t v)
{
    patch(w, mark, v, 4);
}

void hf_wr_patch_u64(struct hf_wr *w, size_t mark, uint64_t v)
{
    patch(w, mark, v, 8);
}

int hf_wr_end(const struct hf_wr *w, struct hf_slice *ret_s)
{
    if (w->err) {
        return w->err;
    }
    *ret_s = hf_slice(w->base, hf_wr_len(w));
    return 0;
}
