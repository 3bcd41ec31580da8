#include "base/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

void hf_buf_init(struct hf_buf *b, size_t n_max)
{
    *b = (struct hf_buf){.n_max = n_max};
}

void hf_buf_fini(struct hf_buf *b)
{
    hf_free(b->p);
    hf_buf_init(b, b->n_max);
}

void hf_buf_clear(struct hf_buf *b)
{
    b->n = 0;
    b->err = 0;
}

uint8_t *hf_buf_reserve(struct hf_buf *b, size_t n)
{
    if (b->err) {
        return NULL;
    }
    if (n > b->n_max - b->n) {
        b->err = -HF_EFULL;
        return NULL;
    }
    if (n > b->room - b->n) {
        size_t want = b->room ? b->room : 64;
        while (want < b->n + n) {
            want = want > b->n_max / 2 ? b->n_max : want * 2;
        }
        uint8_t *p = hf_realloc(b->p, want);
        if (!p) {
            b->err = -ENOMEM;
            return NULL;
        }
        b->p = p;
        b->room = want;
    }
    return b->p + b->n;
}

void hf_buf_commit(struct hf_buf *b, size_t n)
{
    assert(n <= b->room - b->n);
    b->n += n;
}

void hf_buf_add(struct hf_buf *b, struct hf_slice s)
{
    uint8_t *p = s.n ? hf_buf_reserve(b, s.n) : NULL;
    if (p) {
        memcpy(p, s.p, s.n);
        b->n += s.n;
    }
}

void hf_buf_str(struct hf_buf *b, const char *s)
{
    hf_buf_add(b, hf_slice_str(s));
}

void hf_buf_printf(struct hf_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char small[256];
    int n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    assert(n >= 0);
    if ((size_t)n < sizeof(small)) {
        hf_buf_add(b, hf_slice(small, (size_t)n));
        return;
    }
    uint8_t *p = hf_buf_reserve(b, (size_t)n + 1);
    if (p) {
        va_start(ap, fmt);
        vsnprintf((char *)p, (size_t)n + 1, fmt, ap);
        va_end(ap);
        b->n += (size_t)n;
    }
}

void hf_buf_json_str(struct hf_buf *b, struct hf_slice s)
{
    hf_buf_str(b, "\"");
    size_t i = 0;
    while (i < s.n) {
        size_t len = hf_utf8_len(s.p + i, s.n - i);
        uint8_t c = s.p[i];
        if (len == 0) {
            hf_buf_str(b, "\xef\xbf\xbd");
            i++;
            continue;
        }
        if (c == '"' || c == '\\') {
            hf_buf_printf(b, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            hf_buf_printf(b, "\\u%04x", c);
        } else {
            hf_buf_add(b, hf_slice(s.p + i, len));
        }
        i += len;
    }
    hf_buf_str(b, "\"");
}

void hf_buf_span(struct hf_buf *b, int64_t ms)
{
    int64_t s = ms / 1000;
    if (ms < 1000) {
        hf_buf_printf(b, "%lld ms", (long long)ms);
    } else if (s < 60) {
        hf_buf_printf(b, ms % 1000 / 100 ? "%lld.%lld s" : "%lld s", (long long)s,
                      (long long)(ms % 1000 / 100));
    } else if (s < 3600) {
        hf_buf_printf(b, "%lld m %lld s", (long long)(s / 60), (long long)(s % 60));
    } else if (s < 86400) {
        hf_buf_printf(b, "%lld h %lld m", (long long)(s / 3600), (long long)(s % 3600 / 60));
    } else {
        hf_buf_printf(b, "%lld d %lld h", (long long)(s / 86400), (long long)(s % 86400 / 3600));
    }
}

/* XML 1.0 2.2 and 2.4. */
void hf_buf_xml(struct hf_buf *b, struct hf_slice s)
{
    for (size_t i = 0; i < s.n;) {
        size_t len = hf_utf8_len(s.p + i, s.n - i);
        uint8_t c = s.p[i];
        bool noncharacter = len == 3 && c == 0xef && s.p[i + 1] == 0xbf && s.p[i + 2] >= 0xbe;
        if (len == 0 || noncharacter || (c < ' ' && c != '\t') || c == 0x7f) {
            hf_buf_str(b, "?");
            i += len > 0 ? len : 1;
            continue;
        }
        switch (c) {
        case '&':
            hf_buf_str(b, "&amp;");
            break;
        case '<':
            hf_buf_str(b, "&lt;");
            break;
        case '>':
            hf_buf_str(b, "&gt;");
            break;
        case '"':
            hf_buf_str(b, "&quot;");
            break;
        default:
            hf_buf_add(b, hf_slice(s.p + i, len));
            break;
        }
        i += len;
    }
}

void hf_buf_consume(struct hf_buf *b, size_t n)
{
    assert(n <= b->n);
    if (n < b->n) {
        memmove(b->p, b->p + n, b->n - n);
    }
    b->n -= n;
}
