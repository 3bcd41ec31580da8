#include "base/name.h"

#include "base/limits.h"

static bool is_lower(uint8_t c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

bool hf_word_ok(struct hf_slice s, size_t n_max)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= ' ' || s.p[i] > '~') {
            return false;
        }
    }
    return s.n > 0 && s.n <= n_max;
}

bool hf_host_name_ok(struct hf_slice s)
{
    if (s.n == 0 || s.n > HF_HOST_NAME_MAX || s.p[0] == '-' || s.p[s.n - 1] == '-') {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (!is_lower(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '-') {
            return false;
        }
    }
    return true;
}

bool hf_service_name_ok(struct hf_slice s)
{
    if (s.n < 2 || s.n > HF_SERVICE_NAME_MAX || s.p[0] != '/') {
        return false;
    }
    size_t label = 0, depth = 1;
    for (size_t i = 1; i < s.n; i++) {
        uint8_t c = s.p[i];
        if (c == '/') {
            if (label == 0 || ++depth > HF_SERVICE_DEPTH_MAX) {
                return false;
            }
            label = 0;
            continue;
        }
        bool ok = is_lower(c) || is_digit(c) || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
                  c == '.';
        if (!ok || ++label > 63) {
            return false;
        }
    }
    return label > 0;
}

bool hf_service_under(struct hf_slice name, struct hf_slice prefix)
{
    if (prefix.n > 0 && prefix.p[prefix.n - 1] == '/') {
        prefix.n--;
    }
    return hf_slice_starts(name, prefix) && (name.n == prefix.n || name.p[prefix.n] == '/');
}
