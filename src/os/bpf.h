/* Programs for the kernel: what all that load one have in common. */
#pragma once

#include <stddef.h>

#include "base/attr.h"

struct bpf_object;

/** Open an image that is embedded in this program (src/bpf/meson.build); what libbpf says goes to
 * the debug log. name: in the kernel's lists. To be loaded, and closed, by the caller. 0 or -errno.
 */
HF_MUST int hf_bpf_open(const char *name, const void *image, size_t n,
                        struct bpf_object **ret_object);
