/* What PostgreSQL's parser finds in a text: what it does as far as names tell, and the names. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

/** One allocation, shared (ref). Does not depend on any catalog. */
struct hf_pg_statement {
    uint32_t n_refs;
    uint32_t does; /* HF_PG_DOES_* without what a catalog says */
    uint16_t n_statements;
    uint8_t n_ends;
    bool wrappable, first_is_begin, last_is_end;
    bool literals_matter; /* not told by the normal form */
    bool too_many;        /* names: not all are here */
    struct hf_slice name;
    const char *const *settings;
    uint16_t n_settings;
    struct hf_pg_statement *inner; /* of a PREPARE; owned ref, or NULL */
    struct hf_slice names;         /* see hf_pg_statement_name() */
    struct hf_slice insert; /* of one INSERT whose values can be given again (core/pg/insert.h): its
                             * schema, its table, and the columns of RETURNING, each with a NUL;
                             * *: all, nothing: an expression */
    size_t size;            /* bytes, inner included */
};

/**
 * Parse a NUL-terminated text. exact: literals are the client's own, not those of
 * hf_pg_normal_expand(). Returns 0, -ENOMEM, or -HF_EVALUE if the parser refuses the text.
 */
HF_MUST int hf_pg_statement_parse(const char *sql, bool exact, struct hf_pg_statement **ret_facts);
struct hf_pg_statement *hf_pg_statement_ref(struct hf_pg_statement *f);
void hf_pg_statement_unref(struct hf_pg_statement *f);

/**
 * Walk the names: start with *pos = 0; false at the end. Kinds are those of hf_pg_catalog_row():
 * 'f' called, 'o' operator, 't' type, 'r' relation, 'a' selected from a row (a column, or a
 * function).
 */
bool hf_pg_statement_name(const struct hf_pg_statement *f, size_t *pos, char *ret_kind,
                          struct hf_slice *ret_name);
