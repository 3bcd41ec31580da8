#include "base/json.h"

#include "base/utf8.h"

/* A cursor over the text; every function advances it only over what it accepts. */
struct cur {
    const uint8_t *p;
    size_t n, i;
};

static int peek(const struct cur *c)
{
    return c->i < c->n ? c->p[c->i] : -1;
}

static bool eat(struct cur *c, int ch)
{
    if (peek(c) != ch) {
        return false;
    }
    c->i++;
    return true;
}

static void space(struct cur *c)
{
    int ch = peek(c);
    while (ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r') {
        c->i++;
        ch = peek(c);
    }
}

static bool digits(struct cur *c)
{
    size_t from = c->i;
    while (peek(c) >= '0' && peek(c) <= '9') {
        c->i++;
    }
    return c->i > from;
}

/* RFC 8259 section 6: number = [ minus ] int [ frac ] [ exp ] */
static bool number(struct cur *c)
{
    (void)eat(c, '-');
    if (!eat(c, '0') && !digits(c)) {
        return false;
    }
    if (eat(c, '.') && !digits(c)) {
        return false;
    }
    if (eat(c, 'e') || eat(c, 'E')) {
        if (!eat(c, '+')) {
            (void)eat(c, '-');
        }
        return digits(c);
    }
    return true;
}

static bool is_hex(int ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
}

static bool escape(struct cur *c)
{
    int ch = peek(c);
    if (ch < 0 || !strchr("\"\\/bfnrtu", ch) || ch == 0) {
        return false;
    }
    c->i++;
    for (int k = 0; ch == 'u' && k < 4; k++) {
        if (!is_hex(peek(c))) {
            return false;
        }
        c->i++;
    }
    return true;
}

static bool string(struct cur *c)
{
    if (!eat(c, '"')) {
        return false;
    }
    while (c->i < c->n && !eat(c, '"')) {
        if (c->p[c->i] < 0x20) {
            return false;
        }
        if (eat(c, '\\')) {
            if (!escape(c)) {
                return false;
            }
            continue;
        }
        size_t len = hf_utf8_len(c->p + c->i, c->n - c->i);
        if (len == 0) {
            return false;
        }
        c->i += len;
    }
    return c->i > 0 && c->p[c->i - 1] == '"' && c->i <= c->n;
}

static bool literal(struct cur *c, const char *word)
{
    size_t n = strlen(word);
    if (c->n - c->i < n || memcmp(c->p + c->i, word, n) != 0) {
        return false;
    }
    c->i += n;
    return true;
}

static bool scalar(struct cur *c)
{
    switch (peek(c)) {
    case '"':
        return string(c);
    case 't':
        return literal(c, "true");
    case 'f':
        return literal(c, "false");
    case 'n':
        return literal(c, "null");
    default:
        return number(c);
    }
}

/* After '{' or ',': the name and colon of an object's member. */
static bool member_name(struct cur *c)
{
    space(c);
    if (!string(c)) {
        return false;
    }
    space(c);
    if (!eat(c, ':')) {
        return false;
    }
    space(c);
    return true;
}

/*
 * One object, iteratively: `open` holds the closing bracket of each level. A value is read, then
 * brackets are closed until a comma asks for the next one.
 */
bool hf_json_object_ok(struct hf_slice s)
{
    struct cur c = {.p = s.p, .n = s.n, .i = 0};
    uint8_t open[HF_JSON_DEPTH_MAX];
    size_t depth = 0;

    space(&c);
    if (peek(&c) != '{') {
        return false;
    }
    do {
        bool value_done = true;
        if (peek(&c) == '{' || peek(&c) == '[') {
            if (depth == HF_JSON_DEPTH_MAX) {
                return false;
            }
            open[depth++] = c.p[c.i++] == '{' ? '}' : ']';
            space(&c);
            if (peek(&c) != open[depth - 1]) { /* not empty: go on with its first value */
                if (open[depth - 1] == '}' && !member_name(&c)) {
                    return false;
                }
                value_done = false;
            }
        } else if (!scalar(&c)) {
            return false;
        }
        while (value_done && depth > 0) {
            space(&c);
            if (eat(&c, open[depth - 1])) {
                depth--;
                continue;
            }
            if (!eat(&c, ',')) {
                return false;
            }
            if (open[depth - 1] == '}') {
                if (!member_name(&c)) {
                    return false;
                }
            } else {
                space(&c);
            }
            value_done = false;
        }
    } while (depth > 0);
    space(&c);
    return c.i == c.n;
}
