/* Compiler attributes and the two macros that everything uses. */
#pragma once

#include <stddef.h>

/** The caller must look at the result. */
#define HF_MUST __attribute__((warn_unused_result))
/** printf-like: format is argument f, its values begin at argument a. */
#define HF_PRINTF(f, a) __attribute__((format(printf, f, a)))
/** Number of elements of an array (not of a pointer). */
#define HF_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
/** The object of `type` in which `ptr` points to `member`. */
#define HF_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
