/* Open an embedded image by libbpf, which speaks to our log. */
#include "os/bpf.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

static int to_debug_log(enum libbpf_print_level level, const char *format, va_list args)
{
    char text[512];
    if (level != LIBBPF_DEBUG) {
        vsnprintf(text, sizeof(text), format, args);
        text[strcspn(text, "\n")] = '\0';
        hf_log_debug("bpf: ", "%s", text);
    }
    return 0;
}

int hf_bpf_open(const char *name, const void *image, size_t n, struct bpf_object **ret_object)
{
    LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = name);
    libbpf_set_print(to_debug_log);
    *ret_object = bpf_object__open_mem(image, n, &opts);
    return *ret_object ? 0 : -errno;
}
