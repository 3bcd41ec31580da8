/* The steering program: load it. */
#include "sip/steer.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "steer_image.h" /* made from src/bpf/steer.c */

static int to_debug_log(enum libbpf_print_level level, const char *format, va_list args)
{
    char text[512];
    if (level != LIBBPF_DEBUG) {
        vsnprintf(text, sizeof(text), format, args);
        text[strcspn(text, "\n")] = '\0';
        hf_log_debug("steer: ", "%s", text);
    }
    return 0;
}

/* The program's only constant. */
static int set_workers(struct bpf_object *o, uint32_t n)
{
    struct bpf_map *constants = bpf_object__find_map_by_name(o, ".rodata");
    return constants ? bpf_map__set_initial_value(constants, &n, sizeof(n)) : -EINVAL;
}

int hf_sip_steer_load(unsigned n, struct hf_err *err, int *ret_program)
{
    LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "hf_steer");
    libbpf_set_print(to_debug_log);
    struct bpf_object *o = bpf_object__open_mem(steer_image, sizeof(steer_image), &opts);
    int rc = o ? set_workers(o, n) : -errno, fd = -1;
    rc = rc ? rc : bpf_object__load(o);
    if (rc == 0) {
        const struct bpf_program *p = bpf_object__find_program_by_name(o, "hf_steer_datagram");
        fd = fcntl(bpf_program__fd(p), F_DUPFD_CLOEXEC, 0);
        rc = fd < 0 ? -errno : 0;
    }
    bpf_object__close(o);
    if (rc) {
        return hf_err_set(err, rc, "the kernel does not take the steering program: %s%s",
                          hf_strerror(rc), rc == -EPERM ? " (needs CAP_BPF)" : "");
    }
    *ret_program = fd;
    return 0;
}
