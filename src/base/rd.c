#include "base/rd.h"

#include "base/err.h"

void hf_rd_init(struct hf_rd *r, struct hf_slice s)
{
    static const uint8_t nothing[1];
    const uint8_t *p = s.p ? s.p : nothing;
    *r = (struct hf_rd){.p = p, .end = p + (s.p ? s.n : 0), .err = 0};
}

/* n bytes, or NULL and the sticky error. */
static const uint8_t *take(struct hf_rd *r, size_t n)
{
    if (r->err) {
        return NULL;
    }
    if (n > (size_t)(r->end - r->p)) {
        r->err = -HF_ETRUNC;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    return p;
}

static uint64_t be(struct hf_rd *r, size_t n)
{
    const uint8_t *p = take(r, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

uint8_t hf_rd_u8(struct hf_rd *r)
{
    return (uint8_t)be(r, 1);
}

uint16_t hf_rd_u16(struct hf_rd *r)
{
    return (uint16_t)be(r, 2);
}

uint32_t hf_rd_u32(struct hf_rd *r)
{
    return (uint32_t)be(r, 4);
}

uint64_t hf_rd_u64(struct hf_rd *r)
{
    return be(r, 8);
}

struct hf_slice hf_rd_bytes(struct hf_rd *r, size_t n)
{
    const uint8_t *p = take(r, n);
    return p ? hf_slice(p, n) : hf_slice(NULL, 0);
}

void hf_rd_copy(struct hf_rd *r, void *dst, size_t n)
{
    const uint8_t *p = take(r, n);
    if (n == 0) {
        return;
    }
    if (p) {
        memcpy(dst, p, n);
    } else {
        memset(dst, 0, n);
    }
}

static struct hf_slice str(struct hf_rd *r, size_t n, size_t n_max)
{
    if (n > n_max) {
        hf_rd_fail(r, -HF_EMALF);
    }
    return hf_rd_bytes(r, n);
}

struct hf_slice hf_rd_str8(struct hf_rd *r, size_t n_max)
{
    return str(r, hf_rd_u8(r), n_max);
}

struct hf_slice hf_rd_str16(struct hf_rd *r, size_t n_max)
{
    return str(r, hf_rd_u16(r), n_max);
}

struct hf_slice hf_rd_str32(struct hf_rd *r, size_t n_max)
{
    return str(r, hf_rd_u32(r), n_max);
}

size_t hf_rd_left(const struct hf_rd *r)
{
    return r->err ? 0 : (size_t)(r->end - r->p);
}

void hf_rd_fail(struct hf_rd *r, int code)
{
    if (!r->err) {
        r->err = code;
    }
}

int hf_rd_end(const struct hf_rd *r)
{
    if (r->err) {
        return r->err;
    }
    return r->p == r->end ? 0 : -HF_ETRAIL;
}
