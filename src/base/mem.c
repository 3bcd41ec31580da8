#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>

static int64_t fail_after = -1; /* tests only; < 0: never */

void hf_mem_fail_after(int64_t n)
{
    fail_after = n;
}

static int refused(void)
{
    if (fail_after < 0) {
        return 0;
    }
    if (fail_after == 0) {
        return 1;
    }
    fail_after--;
    return 0;
}

void *hf_alloc(size_t n)
{
    return refused() ? NULL : calloc(1, n ? n : 1);
}

void *hf_alloc_array(size_t n, size_t size)
{
    if (size != 0 && n > SIZE_MAX / size) {
        return NULL;
    }
    return hf_alloc(n * size);
}

void *hf_realloc(void *p, size_t n)
{
    return refused() ? NULL : realloc(p, n ? n : 1);
}

void hf_free(void *p)
{
    free(p);
}
