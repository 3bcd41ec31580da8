/* The list of what is safe to repeat in a database: kinds and names, read by
 * hf_pg_catalog_query(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/map.h"
#include "base/slice.h"

struct hf_pg_catalog_chunk;

struct hf_pg_catalog {
    struct hf_map map;
    struct hf_pg_catalog_chunk *chunks; /* owned: the names */
    uint64_t sum[2];                    /* the same for the same list, in whatever order */
    bool foreign_attributes;            /* some 'a' is not ASCII */
};

void hf_pg_catalog_init(struct hf_pg_catalog *l, uint64_t seed);
void hf_pg_catalog_fini(struct hf_pg_catalog *l);
/** 0, -ENOMEM, or -HF_EVALUE (an unknown kind, or no name). */
HF_MUST int hf_pg_catalog_add(struct hf_pg_catalog *l, char kind, struct hf_slice name);

/** The serial column of tables of this name: false if there is none that all of them have. index:
 * where it is in a row of all columns. */
bool hf_pg_catalog_serial(const struct hf_pg_catalog *l, struct hf_slice table,
                          struct hf_slice *ret_column, uint16_t *ret_index);

/** Is a name of a statement, of a kind of struct hf_pg_statement, safe to repeat? */
bool hf_pg_catalog_safe(const struct hf_pg_catalog *l, char kind, struct hf_slice name);
/** Are the operators safe that statements use without naming them (IN, BETWEEN, USING, ...)? */
bool hf_pg_catalog_complete(const struct hf_pg_catalog *l);
