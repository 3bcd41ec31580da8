/* What the renderers share: JSON members with a default, text without control bytes, tables. */
#pragma once

#include <jansson.h>

#include "base/attr.h"
#include "base/buf.h"

#define HF_RED "\033[31m"
#define HF_YELLOW "\033[33m"
#define HF_GREEN "\033[32m"
#define HF_BOLD "\033[1m"
#define HF_PLAIN "\033[0m"

#define HF_RENDER_COLUMNS 100 /* where wrapped text ends */

/** A member of o; "" or 0 if it is not there, or of another type. */
const char *hf_json_text(const json_t *o, const char *key);
int64_t hf_json_number(const json_t *o, const char *key);

/** hf_render_safe() of a string. */
void hf_render_text(struct hf_buf *out, const char *s);

/** What a terminal shows of s: one column for each character. */
size_t hf_render_width(const char *s);

/** s word by word, beginning in column `at`; further lines begin at `indent`. */
void hf_render_wrap(struct hf_buf *out, const char *s, size_t at, size_t indent);

#define HF_TABLE_COLUMNS_MAX 12

/* All cells in one run of text, each ended by NUL; widths are known once all are there. */
struct hf_table {
    struct hf_buf cells;
    size_t n_columns, n;
    size_t indent; /* of each row */
    bool wrap;     /* the last column, at HF_RENDER_COLUMNS */
    size_t width[HF_TABLE_COLUMNS_MAX];
};

void hf_table_init(struct hf_table *t, size_t n_columns);

/** The next cell, row by row. */
void hf_table_cell(struct hf_table *t, const char *s);
void hf_table_number(struct hf_table *t, int64_t v);
void hf_table_span(struct hf_table *t, int64_t ms);
/** A cell that was appended to t->cells, where it begins. */
void hf_table_end(struct hf_table *t, size_t from);

/** Print and free; colour(cell, row, column) is an escape sequence before the cell, or NULL. */
HF_MUST int hf_table_print(struct hf_table *t, struct hf_buf *out,
                           const char *(*colour)(const char *cell, size_t row, size_t column));
