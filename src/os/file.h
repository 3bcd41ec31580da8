/* Small files: read bounded, replace atomically and durably, lock. */
#pragma once

#include <stdbool.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"

struct hf_buf;

/** Append the file's content to buf (its n_max is the limit). -errno or -HF_EFULL. */
HF_MUST int hf_file_read(const char *path, struct hf_buf *buf);

/**
 * Replace path by data: temporary file in the same directory, fsync, rename, fsync of the
 * directory. After a power cut there is the old content or the new one. -errno with a text in err.
 */
HF_MUST int hf_file_replace(const char *path, struct hf_slice data, unsigned mode,
                            struct hf_err *err);

/** Create a directory and its parents, if they are not there. */
HF_MUST int hf_file_make_dir(const char *path, unsigned mode, struct hf_err *err);

/** The directory that path is to be in, likewise; path: with a '/', otherwise nothing is done. */
HF_MUST int hf_file_make_dir_of(const char *path, unsigned mode, struct hf_err *err);

struct sockaddr_un;
/** Is this a socket at which nobody listens, left behind by who did? Then it may be removed. */
bool hf_file_is_stale_socket(const struct sockaddr_un *un);
