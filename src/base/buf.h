/* A growable run of bytes with a hard limit: text and frames whose size is not known beforehand. */
#pragma once

#include <stdarg.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

struct hf_buf {
    uint8_t *p;   /* owned */
    size_t n;     /* bytes used */
    size_t room;  /* bytes allocated */
    size_t n_max; /* never more than this */
    int err;      /* sticky: 0, -ENOMEM or -HF_EFULL */
};

/** Empty, to grow to at most n_max bytes. */
void hf_buf_init(struct hf_buf *b, size_t n_max);

/** Free the bytes; b is empty and usable again. */
void hf_buf_fini(struct hf_buf *b);

/** Forget the content and the error, keep the room. */
void hf_buf_clear(struct hf_buf *b);

/** Append; on failure nothing is appended and b->err is set. */
void hf_buf_add(struct hf_buf *b, struct hf_slice s);
void hf_buf_str(struct hf_buf *b, const char *s);
void hf_buf_printf(struct hf_buf *b, const char *fmt, ...) HF_PRINTF(2, 3);

/** Append s as a JSON string with its quotes; what is not UTF-8 becomes U+FFFD. */
void hf_buf_json_str(struct hf_buf *b, struct hf_slice s);

/** Append s as XML text, in an element or between double quotes; what is not UTF-8 or not allowed
 * in XML becomes '?'. */
void hf_buf_xml(struct hf_buf *b, struct hf_slice s);

/** Append a span of time in two units at most: "350 ms", "2.5 s", "3 m 20 s", "4 d 2 h". */
void hf_buf_span(struct hf_buf *b, int64_t ms);

/** Make room for n more bytes and return where they begin, or NULL; hf_buf_commit() counts them in.
 */
HF_MUST uint8_t *hf_buf_reserve(struct hf_buf *b, size_t n);
void hf_buf_commit(struct hf_buf *b, size_t n);

/** Drop the first n bytes. */
void hf_buf_consume(struct hf_buf *b, size_t n);

/** The content; borrowed until b changes. */
static inline struct hf_slice hf_buf_slice(const struct hf_buf *b)
{
    return hf_slice(b->p, b->n);
}
