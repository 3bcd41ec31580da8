/* Groups of this host: the group cores, connected to engine, agents, fencing, disk and operators.
 */
#pragma once

#include "core/group/group.h"
#include "hostd/hostd.h"

struct hf_groups;
struct hf_buf;

/**
 * Open the engine and take part in all groups that have a record in state.dir/groups. Works without
 * any group, then without touching the engine. Errors have a text with the remedy.
 */
HF_MUST int hf_groups_open(struct hf_hostd *h, struct hf_err *err, struct hf_groups **ret_groups);
/** Ends at once; what runs goes on running (G6: restart in place). */
void hf_groups_close(struct hf_groups *gs);
/** End in order: give primaries away, stop all, say bye; paused groups are left running. fn when
 * done, at the latest after time_max. */
void hf_groups_stop(struct hf_groups *gs, hf_time time_max, void (*fn)(void *arg), void *arg);

/* ---- operators ---- */

enum hf_group_command_kind {
    HF_GROUP_CREATE,
    HF_GROUP_JOIN,
    HF_GROUP_REQUEST, /* enum hf_grequest */
};

struct hf_group_command {
    enum hf_group_command_kind kind;
    const char *group;
    uint8_t request;            /* REQUEST */
    const char *host;           /* REQUEST: to, or of; NULL: none */
    const char *resource;       /* REQUEST; NULL: none */
    struct hf_slice definition; /* CREATE: of the group; JOIN: of a copy that is brought, or empty.
                                   Text of libconfuse, doc/man/holdfast-group.5 */
};

/** rc 0 or negative, text for a person (borrowed for the call). Called once. */
typedef void hf_group_done(void *arg, int rc, const char *text);

/** Start what the operator wants; fn when it is done or refused, perhaps before this returns. */
void hf_groups_command(struct hf_groups *gs, const struct hf_group_command *cmd, hf_group_done *fn,
                       void *arg);
/** Nobody waits for the outcome any more. */
void hf_groups_forget(struct hf_groups *gs, void *arg);

/* ---- reading ---- */

/* How a copy's mirroring is seen: by its own host, or by the primary host. */
struct hf_group_mirror_info {
    uint8_t seen;    /* enum hf_mirror_seen */
    uint8_t percent; /* SYNCING; 255: not known */
    char reason[HF_GROUP_TEXT_MAX + 1];
};

struct hf_group_info {
    const char *name;
    /* Borrowed until the next turn of the loop; NULL: this host cannot take part (`problem`). */
    const struct hf_group *core;
    char problem[256]; /* what keeps this host from taking part and what to do, or "" */
    struct hf_group_mirror_info mirror[HF_GROUP_RESOURCES_MAX];
    char error[HF_GROUP_RESOURCES_MAX][HF_GROUP_TEXT_MAX + 1]; /* last failure of an agent here */
};

/** The i-th group of this host, or NULL. */
const struct hf_group_info *hf_groups_info(const struct hf_groups *gs, size_t i);
const struct hf_group_info *hf_groups_find(const struct hf_groups *gs, const char *name);

/** What happened to the group, oldest first: JSON objects {"at": unix ms, "epoch", "text"} in an
 * array. -HF_ENOTFOUND. */
HF_MUST int hf_groups_history(const struct hf_groups *gs, const char *name, struct hf_buf *out);

/** For other hosts of the cluster: what is at /v1/group/NAME/config/RESOURCE. -HF_ENOTFOUND,
 * -errno. gs may be NULL: no groups. */
HF_MUST int hf_groups_config(const struct hf_groups *gs, const char *path, struct hf_buf *out);

/* Something of a group has changed (text: an event for people, or NULL). One listener per use:
 * tree, control, web. */
typedef void hf_group_changed(void *arg, const struct hf_group_info *info, const char *text);
HF_MUST int hf_groups_listen(struct hf_groups *gs, hf_group_changed *fn, void *arg);
void hf_groups_unlisten(struct hf_groups *gs, void *arg);
