/* What happened, as lines "ms what", to be compared with what was wanted. */
#pragma once

#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "support/test.h"

struct told {
    char text[16384];
    size_t n;
};

/** One line more. */
static inline void told_add(struct told *t, hf_time now, const char *fmt, ...) HF_PRINTF(3, 4);
static inline void told_add(struct told *t, hf_time now, const char *fmt, ...)
{
    va_list ap;
    t->n += (size_t)snprintf(t->text + t->n, sizeof(t->text) - t->n, "%lld ",
                             (long long)(now / HF_NS_PER_MS));
    va_start(ap, fmt);
    t->n += (size_t)vsnprintf(t->text + t->n, sizeof(t->text) - t->n, fmt, ap);
    va_end(ap);
    assert_true(t->n + 1 < sizeof(t->text));
    t->text[t->n++] = '\n';
    t->text[t->n] = 0;
}

static inline void told_clear(struct told *t)
{
    t->n = 0;
    t->text[0] = 0;
}

/** Fails unless it is this; then nothing was told yet. */
static inline void told_is(struct told *t, const char *want)
{
    if (strcmp(t->text, want) != 0) {
        fail_msg("told:\n%swanted:\n%s", t->text, want);
    }
    told_clear(t);
}
