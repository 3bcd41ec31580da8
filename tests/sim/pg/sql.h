/* The toy SQL: tokens, and patterns that statements are matched with. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pgs_token_kind {
    PGS_T_WORD,   /* folded to lower case; may have dots */
    PGS_T_QUOTED, /* "as it is" */
    PGS_T_NUMBER,
    PGS_T_STRING,
    PGS_T_PARAM, /* $n */
    PGS_T_OP,    /* one character, or :: */
};

struct pgs_token {
    enum pgs_token_kind kind;
    char *text;     /* owned by the statement: folded, unquoted */
    size_t at, end; /* in the statement's text */
};

/* One statement of a text. */
struct pgs_stmt {
    char *text;              /* owned: without its semicolon */
    struct pgs_token *token; /* owned */
    size_t n;
};

/** Cut a text into statements: how many, or -1 if a literal has no end. The caller frees each, and
 * the array. Empty statements are left out. */
int pgs_parse(const char *text, size_t n, struct pgs_stmt **ret_stmts);
void pgs_stmt_fini(struct pgs_stmt *s);

#define PGS_ARGS_MAX 8
struct pgs_args {
    size_t at[PGS_ARGS_MAX];   /* number of the token */
    int8_t bits[PGS_ARGS_MAX]; /* 8 or 4: bytes of an integer; 0: text; -1: not a value */
    size_t n;
};
/**
 * Does a statement, from token `from` on, have this form? Words and signs stand for themselves (in
 * lower case), #8 and #4 for an integer or parameter, ' for a string or parameter, @ for an
 * identifier, | between words for either, [ ] around what may be missing, ... for any rest.
 */
bool pgs_match(const struct pgs_stmt *s, size_t from, const char *pattern,
               struct pgs_args *ret_args);
