/* What both ends of the control socket know. */
#pragma once

#include <stdbool.h>
#include <string.h>

#define ACTION_LEN_MAX 32

static inline bool hf_pg_control_is_action(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz-");
    return n > 0 && n <= ACTION_LEN_MAX && s[n] == '\0';
}

static inline bool hf_pg_control_is_prepare(const char *action)
{
    return strncmp(action, "prepare-", 8) == 0;
}
