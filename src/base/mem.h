/* The only way to heap memory below src/os, so that tests can make the nth allocation fail. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

/** n zeroed bytes, owned by the caller; NULL when memory (or the test's patience) is out. */
HF_MUST void *hf_alloc(size_t n);

/** n elements of size bytes each, zeroed; NULL also on overflow. */
HF_MUST void *hf_alloc_array(size_t n, size_t size);

/** Grow or shrink p (owned; may be NULL) to n bytes; on NULL p stays as it was. New bytes are not
 * zeroed. */
HF_MUST void *hf_realloc(void *p, size_t n);

/** Give back what the calls above gave; NULL is fine. */
void hf_free(void *p);

/** Tests: the nth allocation from now (0: the next) and all after it fail; negative: none fails. */
void hf_mem_fail_after(int64_t n);
