/* What of a group is on this host's disk: state.dir/groups/NAME with record, config/RESOURCE,
 * history. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/slice.h"

struct hf_buf;

struct hf_group_store {
    char dir[PATH_MAX - 256]; /* room for what is in it */
};

typedef char hf_group_name[HF_GROUP_NAME_MAX + 1];

/** Names of the groups that have a record; others are what is left of a join that was not finished.
 * -errno, -HF_EFULL: more than HF_GROUPS_MAX; err tells. No directory: none. */
HF_MUST int hf_group_store_list(const char *state_dir, struct hf_err *err,
                                hf_group_name ret_name[static HF_GROUPS_MAX], size_t *ret_n);

/** That of one group; touches nothing. -ENAMETOOLONG, err tells. */
HF_MUST int hf_group_store_init(struct hf_group_store *s, const char *state_dir, const char *group,
                                struct hf_err *err);
/** Make its directories. */
HF_MUST int hf_group_store_make(const struct hf_group_store *s, struct hf_err *err);
/** Forget the group: the record first, so that what a crash leaves is none. */
HF_MUST int hf_group_store_remove(const struct hf_group_store *s, struct hf_err *err);

/** -ENOENT: there is none. */
HF_MUST int hf_group_store_read_record(const struct hf_group_store *s, struct hf_buf *buf);
/** Durable when it returns 0. */
HF_MUST int hf_group_store_write_record(const struct hf_group_store *s, struct hf_slice record,
                                        struct hf_err *err);

/** The configuration of a resource: canonical text, secrets and all. -ENOENT: there is none. */
HF_MUST int hf_group_store_read_config(const struct hf_group_store *s, const char *resource,
                                       struct hf_buf *buf);
HF_MUST int hf_group_store_write_config(const struct hf_group_store *s, const char *resource,
                                        struct hf_slice text, struct hf_err *err);

/** Add to the history; the oldest is dropped in time. Not synced: it is for people. -errno. */
HF_MUST int hf_group_store_note(const struct hf_group_store *s, int64_t at_ms, uint64_t epoch,
                                const char *text);
/** A JSON array of the history, oldest first. */
HF_MUST int hf_group_store_history(const struct hf_group_store *s, struct hf_buf *out);
