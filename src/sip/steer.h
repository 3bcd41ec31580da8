/* The program by which the kernel brings datagrams to their workers. */
#pragma once

#include "base/attr.h"
#include "base/err.h"

/** Load it, for n workers (src/bpf/steer.c); ret_program is the caller's to close. It is for
 * SO_ATTACH_REUSEPORT_EBPF, after all sockets of an address were bound. -errno with text: the
 * kernel is too old (before 5.6), or we lack CAP_BPF. */
HF_MUST int hf_sip_steer_load(unsigned n, struct hf_err *err, int *ret_program);
