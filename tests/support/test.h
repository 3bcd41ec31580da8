/* cmocka with the headers that it wants before it. One group per program; never skip(). */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/attr.h"
#include "base/slice.h"

/** A test's row in its program's table. */
#define HF_TEST(fn) cmocka_unit_test(fn)

/** Fails unless the slice is exactly the string. */
#define hf_assert_slice_str(s, str)                                                                \
    do {                                                                                           \
        struct hf_slice hf_s_ = (s);                                                               \
        assert_int_equal(hf_s_.n, strlen(str));                                                    \
        assert_memory_equal(hf_s_.n ? hf_s_.p : (const uint8_t *)"", str, hf_s_.n);                \
    } while (0)
