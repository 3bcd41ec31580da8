#include "ctl/table.h"

#include "base/mem.h"
#include "ctl/render.h"

const char *hf_json_text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

int64_t hf_json_number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

void hf_render_text(struct hf_buf *out, const char *s)
{
    hf_render_safe(out, hf_slice_str(s));
}

void hf_render_wrap(struct hf_buf *out, const char *s, size_t at, size_t indent)
{
    bool begun = false;
    while (*s) {
        char word[512]; /* longer ones are cut in two */
        size_t n = strcspn(s, " ");
        n = n < sizeof(word) ? n : sizeof(word) - 1;
        memcpy(word, s, n);
        word[n] = '\0';
        size_t w = hf_render_width(word);
        if (begun && at + 1 + w > HF_RENDER_COLUMNS) {
            hf_buf_printf(out, "\n%*s", (int)indent, "");
            at = indent;
        } else if (begun) {
            hf_buf_str(out, " ");
            at++;
        }
        hf_render_text(out, word);
        begun = true;
        at += w;
        s += n + strspn(s + n, " ");
    }
}

void hf_table_init(struct hf_table *t, size_t n_columns)
{
    *t = (struct hf_table){.n_columns = n_columns};
    hf_buf_init(&t->cells, 512u << 20);
}

size_t hf_render_width(const char *s)
{
    size_t n = 0;
    for (; *s; s++) {
        n += (*s & 0xc0) != 0x80;
    }
    return n;
}

void hf_table_end(struct hf_table *t, size_t from)
{
    hf_buf_add(&t->cells, hf_slice("", 1));
    if (!t->cells.err) {
        size_t w = hf_render_width((const char *)t->cells.p + from);
        size_t *max = &t->width[t->n++ % t->n_columns];
        *max = w > *max ? w : *max;
    }
}

void hf_table_cell(struct hf_table *t, const char *s)
{
    size_t from = t->cells.n;
    hf_render_text(&t->cells, s);
    hf_table_end(t, from);
}

void hf_table_number(struct hf_table *t, int64_t v)
{
    size_t from = t->cells.n;
    hf_buf_printf(&t->cells, "%lld", (long long)v);
    hf_table_end(t, from);
}

void hf_table_span(struct hf_table *t, int64_t ms)
{
    size_t from = t->cells.n;
    hf_buf_span(&t->cells, ms);
    hf_table_end(t, from);
}

int hf_table_print(struct hf_table *t, struct hf_buf *out,
                   const char *(*colour)(const char *cell, size_t row, size_t column))
{
    const char *s = (const char *)t->cells.p;
    size_t last_at = t->indent;
    for (size_t i = 0; i + 1 < t->n_columns; i++) {
        last_at += t->width[i] + 2;
    }
    for (size_t i = 0; i < t->n && !t->cells.err; i++) {
        size_t column = i % t->n_columns;
        bool last = column + 1 == t->n_columns;
        hf_buf_printf(out, "%*s", column ? 0 : (int)t->indent, "");
        const char *c = colour ? colour(s, i / t->n_columns, column) : NULL;
        hf_buf_str(out, c ? c : "");
        if (last && t->wrap) {
            hf_render_wrap(out, s, last_at, last_at);
        } else {
            hf_buf_str(out, s);
        }
        hf_buf_str(out, c ? HF_PLAIN : "");
        if (!last && s + strlen(s) + 1 < (const char *)t->cells.p + t->cells.n) {
            hf_buf_printf(out, "%*s", (int)(t->width[column] - hf_render_width(s) + 2), "");
        }
        hf_buf_str(out, last ? "\n" : "");
        s += strlen(s) + 1;
    }
    int rc = t->cells.err ? t->cells.err : out->err;
    hf_buf_fini(&t->cells);
    return rc;
}
