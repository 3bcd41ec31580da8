/* HTTP/1.x request lines, split and decoded in place. */
#include "codec/http_request.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"

/* Percent-decode a string in place; it becomes shorter, if anything. No NUL may come of it, nor,
 * in a path, another control character. */
static bool decode(char *s, bool path)
{
    char *to = s;
    for (; *s; s++, to++) {
        if (*s == '%') {
            int high = hf_hex_value(s[1]), low = high < 0 ? -1 : hf_hex_value(s[2]);
            if (low < 0) {
                return false;
            }
            *to = (char)(high << 4 | low);
            s += 2;
        } else {
            *to = *s == '+' && !path ? ' ' : *s;
        }
        if (*to == '\0' || (path && ((unsigned char)*to < 0x20 || *to == 0x7f))) {
            return false;
        }
    }
    *to = '\0';
    return true;
}

/* "a=b&c=d" becomes a NUL b NUL c NUL d NUL, each behind the other. */
static bool split_query(char *s, struct hf_http_request *r)
{
    char *to = s;
    r->query = s;
    while (s && *s) {
        char *name = s, *value = strchr(s, '=');
        char *end = strchr(s, '&');
        if (!value || value == name || (end && end < value)) {
            return false;
        }
        *value++ = '\0';
        s = end ? end + 1 : NULL;
        if (end) {
            *end = '\0';
        }
        if (!decode(name, false) || !decode(value, false)) {
            return false;
        }
        size_t n_name = strlen(name) + 1, n_value = strlen(value) + 1;
        memmove(to, name, n_name);
        memmove(to + n_name, value, n_value);
        to += n_name + n_value;
    }
    r->query_end = to;
    return true;
}

static bool parse_target(char *target, struct hf_http_request *r)
{
    for (const char *p = target; *p; p++) {
        if (*p <= 0x20 || *p >= 0x7f) {
            return false;
        }
    }
    char *query = strchr(target, '?');
    if (query) {
        *query++ = '\0';
    }
    if (*target != '/' || !decode(target, true) || !split_query(query, r)) {
        return false;
    }
    r->path = target;
    return true;
}

int hf_http_request_parse(char *line, size_t n, struct hf_http_request *ret_request)
{
    *ret_request = (struct hf_http_request){0};
    char *target = strchr(line, ' ');
    char *version = target ? strchr(target + 1, ' ') : NULL;
    if (strlen(line) != n || !version ||
        (strcmp(version, " HTTP/1.1") != 0 && strcmp(version, " HTTP/1.0") != 0)) {
        return -HF_EPROTO;
    }
    ret_request->chunked = version[8] == '1';
    *target++ = *version = '\0';
    ret_request->head = strcmp(line, "HEAD") == 0;
    if (!ret_request->head && strcmp(line, "GET") != 0) {
        return -ENOTSUP;
    }
    return parse_target(target, ret_request) ? 0 : -HF_EVALUE;
}

const char *hf_http_request_query(const struct hf_http_request *r, const char *name)
{
    for (const char *p = r->query; p < r->query_end;) {
        const char *value = p + strlen(p) + 1;
        if (strcmp(p, name) == 0) {
            return value;
        }
        p = value + strlen(value) + 1;
    }
    return NULL;
}
