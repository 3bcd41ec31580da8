/* INSERT ... VALUES ... RETURNING, and the same with the values that a sequence gave (X8). */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/slice.h"

/** Is this node, an InsertStmt, one that can be given its values? Then append what struct
 * hf_pg_statement keeps of it. */
void hf_pg_insert_look(const json_t *insert, struct hf_buf *out);

/**
 * Write sql to out (with a NUL) with values for a column that its n rows leave to its default: the
 * column is put first, or stands in for the DEFAULTs that are there. What comes out is proved to be
 * what went in, but for that column. 0; -HF_EVALUE: it is not that kind of INSERT, it gives the
 * column itself, or has not n rows; -ENOMEM.
 */
HF_MUST int hf_pg_insert_with_ids(struct hf_slice sql, struct hf_slice column, const int64_t *ids,
                                  size_t n, struct hf_buf *out);
