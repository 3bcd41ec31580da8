/* The function that names an enum's values, from the X-macro list that the enum is made of. */
#pragma once

#include "base/attr.h"

#define HF_NAMES_OF(id, name, ...) name,

/** Defines `const char *fn(type value)`: the name of a value of `list`, X(id, name, ...), whose ids
 * count from 0; "?" for what is none. */
#define HF_NAMES(fn, type, list)                                                                   \
    const char *fn(type value)                                                                     \
    {                                                                                              \
        static const char *const names[] = {list(HF_NAMES_OF)};                                    \
        return (size_t)value < HF_ARRAY_LEN(names) ? names[value] : "?";                           \
    }
