#include "base/rd.h"

#include "base/name.h"

void hf_rd_copy(struct hf_rd *r, void *dst, size_t n)
{
    const uint8_t *p = hf_rd_take(r, n);
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

struct hf_slice hf_rd_word(struct hf_rd *r, size_t n_max)
{
    struct hf_slice s = hf_rd_str8(r, n_max);
    if (!hf_word_ok(s, n_max)) {
        hf_rd_fail(r, -HF_EMALF);
    }
    return s;
}

bool hf_rd_bool(struct hf_rd *r)
{
    uint8_t v = hf_rd_u8(r);
    if (v > 1) {
        hf_rd_fail(r, -HF_EMALF);
    }
    return v == 1;
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
