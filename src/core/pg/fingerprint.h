/* The normal form of an SQL text: literals, comments and repetitions out, all else kept. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

/** Texts whose normal form is longer are not classified. */
#define HF_PG_NORMAL_MAX (128u << 10)

/*
 * The normal form is what is remembered, and what is parsed: so texts with the same normal form are
 * of the same class by construction. It is the text with
 *   - each literal and parameter replaced by one byte that says its kind,
 *   - lists of nothing but literals, NULL, TRUE, FALSE, DEFAULT in () or [] cut to two of them,
 *   - a (...) or [...] that repeats the one before it, after a comma, left out,
 *   - white space and comments left out where they separate nothing, else one space.
 * Identifiers, key words and operators stay as they were written.
 */
enum hf_pg_normal {
    HF_PG_NORMAL_OK,
    HF_PG_NORMAL_EXACT, /* U&"..." and the like: must be parsed as it is, and not remembered */
    HF_PG_NORMAL_BAD,   /* not SQL, too long, too deep, or depends on standard_conforming_strings */
};

/** Write the normal form of sql to out (room for HF_PG_NORMAL_MAX bytes); its length to *ret_n, if
 * the result is HF_PG_NORMAL_OK. */
enum hf_pg_normal hf_pg_normalize(struct hf_slice sql, uint8_t *out, size_t *ret_n);

/** At most so many bytes come out of hf_pg_normal_expand() for each byte of a normal form. */
#define HF_PG_EXPAND_MAX 16

/** Make SQL again of a normal form, with some literal of its kind for each: to out, with a NUL. */
void hf_pg_normal_expand(struct hf_slice normal, char *out);
