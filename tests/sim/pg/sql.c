/* The toy SQL's tokens and patterns. */
#include "sim/pg/sql.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "support/sim_net.h"

#define PATTERN_MAX 64 /* parts */

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '$';
}

/* The end of what is quoted from i on; 0: it has none. */
static size_t quoted_end(const char *s, size_t n, size_t i)
{
    for (char q = s[i++]; i < n; i++) {
        if (s[i] == q) {
            if (i + 1 < n && s[i + 1] == q) {
                i++;
            } else {
                return i + 1;
            }
        }
    }
    return 0;
}

static size_t skip_space(const char *s, size_t n, size_t i)
{
    for (;;) {
        if (i < n && isspace((unsigned char)s[i])) {
            i++;
        } else if (i + 1 < n && s[i] == '-' && s[i + 1] == '-') {
            while (i < n && s[i] != '\n') {
                i++;
            }
        } else if (i + 1 < n && s[i] == '/' && s[i + 1] == '*') {
            const char *end = i + 2 < n ? strstr(s + i + 2, "*/") : NULL;
            i = end ? (size_t)(end - s) + 2 : n;
        } else {
            return i;
        }
    }
}

static enum pgs_token_kind kind_at(const char *s, size_t n, size_t i)
{
    if (s[i] == '\'') {
        return PGS_T_STRING;
    }
    if (s[i] == '"') {
        return PGS_T_QUOTED;
    }
    if (s[i] == '$' && i + 1 < n && isdigit((unsigned char)s[i + 1])) {
        return PGS_T_PARAM;
    }
    if (isdigit((unsigned char)s[i])) {
        return PGS_T_NUMBER;
    }
    return isalpha((unsigned char)s[i]) || s[i] == '_' ? PGS_T_WORD : PGS_T_OP;
}

static size_t token_end(const char *s, size_t n, size_t i, enum pgs_token_kind kind)
{
    size_t e = i + 1;
    switch (kind) {
    case PGS_T_STRING:
    case PGS_T_QUOTED:
        return quoted_end(s, n, i);
    case PGS_T_OP:
        return s[i] == ':' && e < n && s[e] == ':' ? e + 1 : e;
    case PGS_T_WORD:
    case PGS_T_NUMBER:
    case PGS_T_PARAM:
    default:
        while (e < n && is_word(s[e])) {
            e++;
        }
        return e;
    }
}

/* Its text: unquoted, or folded. */
static char *token_text(const char *s, size_t at, size_t end, enum pgs_token_kind kind)
{
    bool quoted = kind == PGS_T_STRING || kind == PGS_T_QUOTED;
    char *t = sim_alloc(end - at + 1);
    size_t k = 0;
    for (size_t i = at + quoted; i < end - quoted; i++) {
        t[k++] = kind == PGS_T_WORD ? (char)tolower((unsigned char)s[i]) : s[i];
        i += quoted && s[i] == s[at]; /* doubled */
    }
    t[k] = 0;
    return t;
}

void pgs_stmt_fini(struct pgs_stmt *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->token[i].text);
    }
    free(s->token);
    free(s->text);
    memset(s, 0, sizeof(*s));
}

/* One statement from *i on, up to its semicolon. */
static bool parse_one(const char *s, size_t n, size_t *i, struct pgs_stmt *st)
{
    size_t room = 0, begin = *i = skip_space(s, n, *i);
    memset(st, 0, sizeof(*st));
    while (*i < n && s[*i] != ';') {
        enum pgs_token_kind kind = kind_at(s, n, *i);
        size_t end = token_end(s, n, *i, kind);
        if (end == 0) {
            return false;
        }
        if (st->n == room) {
            room = room ? 2 * room : 16;
            st->token = sim_realloc(st->token, room * sizeof(*st->token));
        }
        st->token[st->n++] = (struct pgs_token){
            .kind = kind,
            .text = token_text(s, *i, end, kind),
            .at = *i - begin,
            .end = end - begin,
        };
        *i = skip_space(s, n, end);
    }
    size_t len = st->n ? st->token[st->n - 1].end : 0;
    st->text = sim_alloc(len + 1);
    memcpy(st->text, s + begin, len);
    st->text[len] = 0;
    *i += *i < n;
    return true;
}

int pgs_parse(const char *text, size_t n, struct pgs_stmt **ret_stmts)
{
    char *s = sim_alloc(n + 1); /* with its NUL, for strstr() */
    memcpy(s, text, n);
    s[n] = 0;
    struct pgs_stmt *stmts = NULL;
    int count = 0;
    for (size_t i = 0; i < n;) {
        stmts = sim_realloc(stmts, ((size_t)count + 1) * sizeof(*stmts));
        bool fine = parse_one(s, n, &i, &stmts[count]);
        if (!fine || stmts[count].n == 0) {
            pgs_stmt_fini(&stmts[count]);
        } else {
            count++;
        }
        if (!fine) {
            while (count > 0) {
                pgs_stmt_fini(&stmts[--count]);
            }
            count = -1;
            break;
        }
    }
    free(s);
    if (count <= 0) {
        free(stmts);
        stmts = NULL;
    }
    *ret_stmts = stmts;
    return count;
}

/* ---- patterns ---- */

static bool word_is(const char *p, size_t n, const char *word)
{
    size_t w = strlen(word);
    for (size_t i = 0; i < n;) { /* alternatives */
        size_t k = i;
        while (k < n && p[k] != '|') {
            k++;
        }
        if (k - i == w && memcmp(p + i, word, w) == 0) {
            return true;
        }
        i = k + 1;
    }
    return false;
}

/* Does the token fit this part of a pattern? */
static bool fits(const struct pgs_token *t, const char *p, size_t n, struct pgs_args *a, size_t at)
{
    int8_t bits = -1;
    bool value = false, fine;
    if (p[0] == '#') {
        fine = t->kind == PGS_T_NUMBER || t->kind == PGS_T_PARAM;
        bits = (int8_t)(p[1] - '0');
        value = true;
    } else if (p[0] == '\'') {
        fine = t->kind == PGS_T_STRING || t->kind == PGS_T_PARAM;
        bits = 0;
        value = true;
    } else if (p[0] == '@') {
        fine = t->kind == PGS_T_WORD || t->kind == PGS_T_QUOTED;
        value = true;
    } else {
        fine = (t->kind == PGS_T_WORD || t->kind == PGS_T_OP) && word_is(p, n, t->text);
    }
    if (fine && value && a->n < PGS_ARGS_MAX) {
        a->at[a->n] = at;
        a->bits[a->n++] = bits;
    }
    return fine;
}

struct part {
    const char *p;
    size_t n;
};

/* Parts from k on against tokens from i on. */
static bool match(const struct pgs_stmt *s, size_t i, const struct part *part, size_t n, size_t k,
                  struct pgs_args *a)
{
    for (; k < n; k++) {
        const struct part *q = &part[k];
        if (q->n == 3 && memcmp(q->p, "...", 3) == 0) {
            return true;
        }
        if (q->p[0] == '[') {
            struct pgs_args with = *a;
            if (match(s, i, part, n, k + 1, &with)) { /* with it: its ] is nothing */
                *a = with;
                return true;
            }
            while (part[k].p[0] != ']') {
                k++;
            }
            continue;
        }
        if (q->p[0] == ']') {
            continue;
        }
        if (i >= s->n || !fits(&s->token[i], q->p, q->n, a, i)) {
            return false;
        }
        i++;
    }
    return i == s->n;
}

bool pgs_match(const struct pgs_stmt *s, size_t from, const char *pattern,
               struct pgs_args *ret_args)
{
    struct part part[PATTERN_MAX];
    size_t n = 0;
    for (const char *p = pattern; *p && n < PATTERN_MAX;) {
        size_t len = strcspn(p, " ");
        part[n++] = (struct part){p, len};
        p += len;
        p += strspn(p, " ");
    }
    struct pgs_args a = {0};
    if (!match(s, from, part, n, 0, &a)) {
        return false;
    }
    *ret_args = a;
    return true;
}
