/* The steering program: load it. */
#include "sip/steer.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

#include "os/bpf.h"
#include "steer_image.h" /* made from src/bpf/steer.c */

/* The program's only constant. */
static int set_workers(struct bpf_object *o, uint32_t n)
{
    struct bpf_map *constants = bpf_object__find_map_by_name(o, ".rodata");
    return constants ? bpf_map__set_initial_value(constants, &n, sizeof(n)) : -EINVAL;
}

int hf_sip_steer_load(unsigned n, struct hf_err *err, int *ret_program)
{
    struct bpf_object *o;
    int rc = hf_bpf_open("hf_steer", steer_image, sizeof(steer_image), &o), fd = -1;
    rc = rc ? rc : set_workers(o, n);
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
