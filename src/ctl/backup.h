/* `holdfast backup` and `holdfast restore`: what of Holdfast itself is on this host, as a tar file.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/err.h"

struct hf_buf;

/*
 * A tar file compressed by gzip. Its first entry is the manifest, a JSON object, its last one the
 * SHA-256 of all other files, as sha256sum(1) writes them: a backup that was cut off or damaged has
 * none, or others. Between them are definitions of the groups for `holdfast group create`, and
 * the host's files by their paths without the first '/'.
 *
 * A group's record is never in it (G3 to G5): it is this host's word on what it has promised to the
 * others. An old one would let the host vote, and count as there, with promises that it has
 * meanwhile replaced; a removed member would be one again. Without a record the group takes the
 * host for one that has forgotten: it gets the state from the others, and counts once it has it.
 */
#define HF_BACKUP_FORMAT 1
#define HF_BACKUP_DIR "holdfast-backup/"
#define HF_BACKUP_MANIFEST HF_BACKUP_DIR "manifest.json"
#define HF_BACKUP_DEFINITIONS HF_BACKUP_DIR "definitions/"
#define HF_BACKUP_SUMS HF_BACKUP_DIR "SHA256SUMS"

#define HF_BACKUP_ETC "/etc/holdfast"
#define HF_BACKUP_HASH_LEN 65 /* hexadecimal digits and NUL */

struct hf_backup_opt {
    const char *root; /* stands before each path on disk; "": as in production */
    const char *file; /* to be written, or replaced */
    bool no_secrets;  /* without files that not everybody may read */
    char *const *more;
    size_t n_more; /* absolute paths of further files and directories */
};

/** Write the backup of this host, also while its programs run. What is in it, and what is not, is
 * appended to said, for people. -errno or -HF_E*, err tells; a file that was there then stays. */
HF_MUST int hf_backup(const struct hf_backup_opt *opt, struct hf_buf *said, struct hf_err *err);

struct hf_restore_opt {
    const char *root, *file;
    const char *host; /* whose backup it is to be; NULL: this host's */
    bool overwrite;   /* files that are there with other content */
    bool check;       /* write nothing, only say what would be done */
};

/**
 * Put back what a backup has: all of it, or (an error) nothing. Refuses a damaged backup, one of
 * another host or cluster, one of a newer format, and all while holdfastd runs. What was done, and
 * what is to be done next, is appended to said. -errno or -HF_E*, err tells.
 */
HF_MUST int hf_restore(const struct hf_restore_opt *opt, struct hf_buf *said, struct hf_err *err);

/* ---- shared by both ---- */

/** root and path as one. -ENAMETOOLONG, err tells. */
HF_MUST int hf_backup_path(const char *root, const char *path, char ret_path[static PATH_MAX],
                           struct hf_err *err);
/** At most n bytes into p; 0: there are no more; or negative, an error. */
typedef ssize_t hf_backup_get(void *arg, void *p, size_t n);
/** SHA-256 of all that get() gives, or its error. */
HF_MUST int hf_backup_hash(hf_backup_get *get, void *arg, char ret_hex[static HF_BACKUP_HASH_LEN]);

/* The next `left` bytes of a file. */
struct hf_backup_file {
    int fd;
    size_t left;
};
/** Of one: -HF_ETRUNC: it has fewer. */
ssize_t hf_backup_get_file(void *file, void *p, size_t n);
