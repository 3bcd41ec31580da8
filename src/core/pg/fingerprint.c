/* One pass over an SQL text, as PostgreSQL's scan.l reads it, to its normal form. */
#include "core/pg/fingerprint.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/mem.h"
#include "core/pg/classify.h"

/* Parser and tree walkers recurse at most once per token between two semicolons: 10000 levels of
 * libpg_query 15 are less than 2 MiB of stack. */
#define TOKENS_MAX 10000
#define LEVELS_MAX 200 /* of () and [] */

enum {
    WORD = 1,      /* goes on an identifier */
    START = 2,     /* begins an identifier */
    DIGIT = 4,     /* of a number */
    OP = 8,        /* of an operator */
    DOT = 16,      /* . and :, which join with themselves and with = */
    SPACE = 32,    /* white space of PostgreSQL 13 to 17 */
    TAIL = 64,     /* the last byte of what a word may not follow without a space */
    LITERAL = 128, /* may begin a literal, also NULL and the like, with a sign */
};

/* Literals in the normal form: of one kind, and, LIST more, a list of them. These bytes are no part
 * of SQL outside quotes. */
enum kind {
    NONE = 0,
    NUMBER = 0x10,
    STRING,
    BITS,
    PARAM,
    MIXED, /* only as a list */
    LIST = 5,
};

#define LETTER (WORD | START | TAIL)
static const uint8_t class_of[256] = {
    [NUMBER... MIXED + LIST] = TAIL,
    ['\t'] = SPACE,
    ['\n'] = SPACE,
    ['\f'] = SPACE,
    ['\r'] = SPACE,
    [' '] = SPACE,
    ['A'] = LETTER,
    ['B'] = LETTER | LITERAL,
    ['C'] = LETTER,
    ['D' ... 'F'] = LETTER | LITERAL,
    ['G' ... 'M'] = LETTER,
    ['N'] = LETTER | LITERAL,
    ['O' ... 'S'] = LETTER,
    ['T' ... 'U'] = LETTER | LITERAL,
    ['V' ... 'W'] = LETTER,
    ['X'] = LETTER | LITERAL,
    ['Y' ... 'Z'] = LETTER,
    ['a'] = LETTER,
    ['b'] = LETTER | LITERAL,
    ['c'] = LETTER,
    ['d' ... 'f'] = LETTER | LITERAL,
    ['g' ... 'm'] = LETTER,
    ['n'] = LETTER | LITERAL,
    ['o' ... 's'] = LETTER,
    ['t' ... 'u'] = LETTER | LITERAL,
    ['v' ... 'w'] = LETTER,
    ['x'] = LETTER | LITERAL,
    ['y' ... 'z'] = LETTER,
    ['_'] = LETTER,
    [128 ... 255] = LETTER,
    ['0' ... '9'] = WORD | DIGIT | TAIL | LITERAL,
    ['$'] = WORD | TAIL | LITERAL,
    ['\''] = LITERAL,
    ['"'] = TAIL,
    ['~'] = OP,
    ['!'] = OP,
    ['@'] = OP,
    ['#'] = OP,
    ['^'] = OP,
    ['&'] = OP,
    ['|'] = OP,
    ['`'] = OP,
    ['?'] = OP,
    ['+'] = OP,
    ['-'] = OP | LITERAL,
    ['*'] = OP,
    ['/'] = OP,
    ['%'] = OP,
    ['<'] = OP,
    ['>'] = OP,
    ['='] = OP,
    ['.'] = DOT | LITERAL,
    [':'] = DOT,
};

/* Where the groups of one level are in the output. */
struct level {
    size_t open;       /* of the group that is open */
    size_t prev, to;   /* the group closed last in the same parent; prev == to: none */
    uint32_t n_tokens; /* before the group that is open */
};

struct scan {
    const uint8_t *p; /* the text */
    size_t n, at;
    uint8_t *out;
    size_t n_out;
    uint32_t n_tokens, level;
    bool bad, exact;
    struct level levels[LEVELS_MAX + 1];
};

static uint8_t byte_at(const struct scan *s, size_t at)
{
    return at < s->n ? s->p[at] : 0;
}

static bool is(const struct scan *s, size_t at, uint8_t class)
{
    return at < s->n && class_of[s->p[at]] & class;
}

static size_t skip_line(const struct scan *s, size_t at)
{
    while (at < s->n && s->p[at] != '\n' && s->p[at] != '\r') {
        at++;
    }
    return at;
}

/* Past a comment with those nested in it. */
static size_t skip_comment(struct scan *s, size_t at)
{
    int depth = 0;
    for (; at + 1 < s->n; at++) {
        if (s->p[at] == '/' && s->p[at + 1] == '*') {
            depth++;
            at++;
        } else if (s->p[at] == '*' && s->p[at + 1] == '/') {
            at++;
            if (--depth == 0) {
                return at + 1;
            }
        }
    }
    s->bad = true;
    return s->n;
}

static bool is_comment(const struct scan *s, size_t at)
{
    return (byte_at(s, at) == '-' && byte_at(s, at + 1) == '-') ||
           (byte_at(s, at) == '/' && byte_at(s, at + 1) == '*');
}

static size_t skip_space(struct scan *s, size_t at)
{
    for (;;) {
        if (is(s, at, SPACE)) {
            at++;
        } else if (!is_comment(s, at)) {
            return at;
        } else {
            at = s->p[at] == '-' ? skip_line(s, at) : skip_comment(s, at);
        }
    }
}

/* Where a literal goes on after white space with a newline ('a' NEWLINE 'b'), or 0. */
static size_t continued(const struct scan *s, size_t at)
{
    bool newline = false;
    for (;;) {
        if (is(s, at, SPACE)) {
            newline |= s->p[at] == '\n' || s->p[at] == '\r';
            at++;
        } else if (byte_at(s, at) == '-' && byte_at(s, at + 1) == '-') {
            at = skip_line(s, at);
        } else {
            return newline && byte_at(s, at) == '\'' ? at + 1 : 0;
        }
    }
}

/* Does the run of backslashes before `at` (not before `from`) escape what is there? */
static bool escaped(const struct scan *s, size_t from, size_t at)
{
    size_t n = 0;
    while (at - n > from && s->p[at - n - 1] == '\\') {
        n++;
    }
    return n & 1;
}

/*
 * Past a literal, from behind its first quote. prefix: e, b, x, u, or 0 for a plain one. With
 * standard_conforming_strings = off, a backslash in a plain literal escapes: that makes a
 * difference to where it ends only before a quote, and such a text is refused.
 */
static size_t skip_string(struct scan *s, size_t at, uint8_t prefix)
{
    for (size_t from = at; at < s->n;) {
        const uint8_t *quote = memchr(s->p + at, '\'', s->n - at);
        if (!quote) {
            break;
        }
        size_t q = (size_t)(quote - s->p);
        at = q + 1;
        bool odd = (prefix == 'e' || !prefix) && escaped(s, from, q);
        if (odd && prefix) {
            continue;
        }
        s->bad |= odd;
        if (byte_at(s, at) == '\'' && prefix != 'b' && prefix != 'x') {
            from = ++at; /* doubled */
            continue;
        }
        size_t more = continued(s, at);
        if (!more) {
            return at;
        }
        at = from = more;
    }
    s->bad = true;
    return s->n;
}

static size_t skip_digits(const struct scan *s, size_t at)
{
    while (is(s, at, DIGIT)) {
        at++;
    }
    return at;
}

/* Past a number; what joins it without a space is read differently by each major version. */
static size_t skip_number(struct scan *s, size_t at)
{
    at = skip_digits(s, at);
    if (byte_at(s, at) == '.' && byte_at(s, at + 1) != '.') {
        at = skip_digits(s, at + 1);
    }
    if ((byte_at(s, at) | 0x20) == 'e') {
        size_t sign = byte_at(s, at + 1) == '+' || byte_at(s, at + 1) == '-';
        if (is(s, at + 1 + sign, DIGIT)) {
            at = skip_digits(s, at + 1 + sign);
        }
    }
    s->bad |= is(s, at, START);
    return at;
}

/* Past $1 or $tag$...$tag$. */
static size_t skip_dollar(struct scan *s, size_t at, enum kind *kind)
{
    size_t end = skip_digits(s, at + 1);
    if (end > at + 1) {
        *kind = PARAM;
        s->bad |= is(s, end, START);
        return end;
    }
    if (is(s, end, START)) {
        while (is(s, end, WORD) && s->p[end] != '$') {
            end++;
        }
    }
    if (byte_at(s, end) == '$') {
        end++;
        const uint8_t *last = memmem(s->p + end, s->n - end, s->p + at, end - at);
        if (last) {
            *kind = STRING;
            return (size_t)(last - s->p) + end - at;
        }
    }
    s->bad = true;
    return s->n;
}

/* If a literal begins at `at`: past it, and its kind; else NONE. */
static size_t skip_literal(struct scan *s, size_t at, enum kind *kind)
{
    static const uint8_t prefixes[] = {'e', 'b', 'x', 'n'};
    uint8_t c = byte_at(s, at), prefix = c | 0x20;
    *kind = NONE;
    if (c == '\'') {
        *kind = STRING;
        return skip_string(s, at + 1, 0);
    }
    if (c == '$') {
        return skip_dollar(s, at, kind);
    }
    if (is(s, at, DIGIT) || (c == '.' && is(s, at + 1, DIGIT))) {
        *kind = NUMBER;
        return skip_number(s, at);
    }
    if (!is(s, at, START) || (byte_at(s, at + 1) != '\'' && byte_at(s, at + 1) != '&')) {
        return at;
    }
    if (prefix == 'u' && byte_at(s, at + 1) == '&') {
        if (byte_at(s, at + 2) == '\'') {
            s->exact = true;
            *kind = STRING;
            return skip_string(s, at + 3, 'u');
        }
        s->exact |= byte_at(s, at + 2) == '"';
        return at;
    }
    if (byte_at(s, at + 1) == '\'' && memchr(prefixes, prefix, sizeof(prefixes))) {
        s->exact |= prefix == 'n'; /* is cast to bpchar */
        *kind = prefix == 'b' || prefix == 'x' ? BITS : STRING;
        return skip_string(s, at + 2, prefix == 'n' ? 0 : prefix);
    }
    return at;
}

static void put(struct scan *s, const uint8_t *p, size_t n)
{
    if (n > HF_PG_NORMAL_MAX - s->n_out) {
        s->bad = true;
        return;
    }
    memcpy(s->out + s->n_out, p, n);
    s->n_out += n;
}

static uint8_t last_class(const struct scan *s)
{
    return s->n_out ? class_of[s->out[s->n_out - 1]] : 0;
}

static void put_word(struct scan *s, const uint8_t *p, size_t n)
{
    if (last_class(s) & TAIL) {
        put(s, (const uint8_t *)" ", 1);
    }
    put(s, p, n);
}

static void put_kind(struct scan *s, uint8_t kind)
{
    put_word(s, &kind, 1);
}

static bool is_keyword_literal(const struct scan *s, size_t at, size_t n)
{
    static const char *const words[] = {"null", "true", "false", "default"};
    for (size_t i = 0; i < HF_ARRAY_LEN(words); i++) {
        if (n == strlen(words[i]) && strncasecmp((const char *)s->p + at, words[i], n) == 0) {
            return true;
        }
    }
    return false;
}

/* Past an element of a list that is only a literal; its kind, or NONE. */
static size_t skip_element(struct scan *s, size_t at, enum kind *kind)
{
    static const uint8_t words[] = {'n', 't', 'f', 'd'}; /* null, true, false, default */
    size_t from = at;
    uint8_t c = byte_at(s, at);
    if (c == '-' && !is_comment(s, at)) { /* the parser takes it into the number, but not + */
        from = skip_space(s, at + 1);
        at = skip_literal(s, from, kind);
        *kind = *kind == NUMBER ? NUMBER : NONE;
        return at;
    }
    at = skip_literal(s, from, kind);
    if (*kind == NONE && memchr(words, c | 0x20, sizeof(words))) {
        while (is(s, at, WORD)) {
            at++;
        }
        *kind = is_keyword_literal(s, from, at - from) ? MIXED : NONE;
    }
    return at;
}

/* After ( [ or ,: two or more literals in a row become one list. */
static void skip_elements(struct scan *s)
{
    size_t n = 0, end = s->at, at = s->at;
    enum kind all = NONE, kind;
    bool bad = s->bad, exact = s->exact;
    for (;; at++) {
        at = skip_space(s, at);
        if (!is(s, at, LITERAL)) {
            break;
        }
        at = skip_element(s, at, &kind);
        size_t next = skip_space(s, at);
        uint8_t c = byte_at(s, next);
        if (kind == NONE || s->bad || s->exact != exact || (c != ',' && c != ')' && c != ']')) {
            break;
        }
        all = n == 0 || all == kind ? kind : MIXED;
        n++;
        end = at;
        at = next;
        if (c != ',') {
            break;
        }
    }
    s->bad = bad; /* what was looked at and not taken comes again */
    s->exact = exact;
    if (n >= 2) {
        put_kind(s, (uint8_t)(all + LIST));
        s->at = end;
    }
}

static void open_group(struct scan *s)
{
    if (s->level == LEVELS_MAX) {
        s->bad = true;
        return;
    }
    s->levels[s->level].n_tokens = s->n_tokens - 1;
    s->levels[s->level++].open = s->n_out - 1;
    s->levels[s->level].prev = s->levels[s->level].to = 0;
}

/* A group that is the same as the one before the comma before it goes. */
static void close_group(struct scan *s)
{
    if (s->level == 0) {
        s->bad = true;
        return;
    }
    struct level *l = &s->levels[--s->level];
    size_t n = s->n_out - l->open;
    if (l->to > l->prev && l->to - l->prev == n && l->open == l->to + 1 && s->out[l->to] == ',' &&
        memcmp(s->out + l->prev, s->out + l->open, n) == 0) {
        s->n_out = l->to;
        s->n_tokens = l->n_tokens;
        return;
    }
    l->prev = l->open;
    l->to = s->n_out;
}

static void scan_quoted(struct scan *s)
{
    size_t at = s->at + 1;
    for (; at < s->n; at++) {
        if (s->p[at] == '"') {
            if (byte_at(s, at + 1) != '"') {
                break;
            }
            at++;
        } else if (s->p[at] < ' ') {
            s->exact = true; /* would be taken for a literal */
        }
    }
    s->bad |= at >= s->n;
    at += at < s->n;
    put_word(s, s->p + s->at, at - s->at);
    s->at = at;
}

static void scan_operator(struct scan *s, bool gap)
{
    size_t at = s->at + 1;
    if (!is(s, s->at, DOT)) {
        while (is(s, at, OP) && !is_comment(s, at)) {
            at++;
        }
    }
    if (gap && last_class(s) & (OP | DOT)) {
        put(s, (const uint8_t *)" ", 1);
    }
    put(s, s->p + s->at, at - s->at);
    s->at = at;
}

static void scan_punctuation(struct scan *s, uint8_t c)
{
    put(s, &c, 1);
    s->at++;
    switch (c) {
    case '(':
    case '[':
        open_group(s);
        skip_elements(s);
        break;
    case ')':
    case ']':
        close_group(s);
        break;
    case ',':
        s->n_tokens--; /* lists are flat in the tree */
        skip_elements(s);
        break;
    case ';':
        s->n_tokens = s->level == 0 ? 0 : s->n_tokens;
        break;
    default:
        s->bad = true;
    }
}

static void scan_token(struct scan *s, bool gap)
{
    uint8_t c = s->p[s->at];
    enum kind kind;
    size_t end;
    s->bad |= ++s->n_tokens > TOKENS_MAX;
    if (class_of[c] & START && byte_at(s, s->at + 1) != '\'' && byte_at(s, s->at + 1) != '&') {
        for (end = s->at + 1; is(s, end, WORD);) {
            end++;
        }
        put_word(s, s->p + s->at, end - s->at);
        s->at = end;
        return;
    }
    if (class_of[c] & OP) {
        scan_operator(s, gap);
        return;
    }
    if (c == '"') {
        scan_quoted(s);
        return;
    }
    end = skip_literal(s, s->at, &kind);
    if (kind != NONE) {
        put_kind(s, (uint8_t)kind);
        s->at = end;
    } else if (class_of[c] & START) {
        put_word(s, &c, 1);
        s->at++;
    } else if (class_of[c] & DOT) {
        scan_operator(s, gap);
    } else {
        scan_punctuation(s, c);
    }
}

enum hf_pg_normal hf_pg_normalize(struct hf_slice sql, uint8_t *out, size_t *ret_n)
{
    struct scan s; /* levels are set when they are entered */
    s.p = sql.p;
    s.n = sql.n;
    s.at = s.n_out = 0;
    s.out = out;
    s.n_tokens = s.level = 0;
    s.bad = s.exact = false;
    s.levels[0].prev = s.levels[0].to = 0;
    for (;;) {
        size_t at = skip_space(&s, s.at);
        bool gap = at > s.at;
        s.at = at;
        if (s.bad || s.at >= s.n) {
            break;
        }
        scan_token(&s, gap);
    }
    *ret_n = s.n_out;
    return s.bad ? HF_PG_NORMAL_BAD : s.exact ? HF_PG_NORMAL_EXACT : HF_PG_NORMAL_OK;
}

void hf_pg_normal_expand(struct hf_slice normal, char *out)
{
    static const char *const literal[MIXED + LIST + 1] = {
        [NUMBER] = " 1 ",
        [STRING] = " '' ",
        [BITS] = " B'0' ",
        [PARAM] = " $1 ",
        [NUMBER + LIST] = " 1,1 ",
        [STRING + LIST] = " '','' ",
        [BITS + LIST] = " B'0',B'0' ",
        [PARAM + LIST] = " $1,$1 ",
        [MIXED + LIST] = " 1,1 ",
    };
    size_t n = 0;
    for (size_t i = 0; i < normal.n; i++) {
        const char *text = normal.p[i] < HF_ARRAY_LEN(literal) ? literal[normal.p[i]] : NULL;
        if (text) {
            memcpy(out + n, text, strlen(text));
            n += strlen(text);
        } else {
            out[n++] = (char)normal.p[i];
        }
    }
    out[n] = '\0';
}

bool hf_pg_fingerprint(struct hf_slice sql, uint64_t seed, uint64_t ret_hash[2])
{
    uint8_t *out = hf_alloc(HF_PG_NORMAL_MAX);
    size_t n;
    bool ok = out && hf_pg_normalize(sql, out, &n) == HF_PG_NORMAL_OK;
    if (ok) {
        struct hf_hash_stream h;
        hf_hash_stream_init(&h, seed);
        hf_hash_stream_add(&h, hf_slice(out, n));
        hf_hash_stream_get(&h, ret_hash);
    }
    hf_free(out);
    return ok;
}
