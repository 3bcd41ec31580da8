/* A small file that is replaced in place: one write and one fdatasync(2), where hf_file_replace()
 * waits for the file system's journal twice. */
#pragma once

#include <stddef.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"

struct hf_buf;

/*
 * Two slots of one size, written in turn; the valid one with the higher generation is the content:
 *
 *   "HFSLOTS1"  generation  length  hash of (generation, length, bytes)  bytes ... zeros
 *
 * all numbers big-endian, 64 bits. A write that a power cut tears leaves its slot invalid, and the
 * other one as it was. `room`: most bytes of content, the same for all calls of a file.
 */

/** Append the content to buf. -errno; -HF_EMALF: neither slot is valid; -HF_EFULL by buf. */
HF_MUST int hf_slots_read(const char *path, size_t room, struct hf_buf *buf);

/** Replace the content, durably; the file is made if there is none that can be written in place.
 * 0, or -errno, -HF_EFULL (more than room) with a text in err: the old content stays. */
HF_MUST int hf_slots_write(const char *path, size_t room, struct hf_slice data, unsigned mode,
                           struct hf_err *err);
