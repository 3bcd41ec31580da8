/* The Corosync engine: groups of several machines, over CPG and the quorum service
 * (doc/design/engine.md). */
#pragma once

#include "base/attr.h"
#include "base/err.h"
#include "engine/engine.h"

#define HF_ENGINE_COROSYNC_GROUPS_MAX 32

/* Everything is copied by create. */
struct hf_engine_corosync_opt {
    const char *host; /* our name in views, unique in the cluster, printable ASCII */
    /* ns; a dispatch() later than this is a pause (I10), and who is to answer a newcomer or to
     * speak for others and does not in a quarter of it is stood in for; 0: 1 s */
    hf_time silence;
    struct hf_engine_callbacks callbacks; /* each may be NULL */
    void *arg; /* given to the callbacks; borrowed for the engine's life */
};

/**
 * Make an engine. It connects to corosync at the first join() and needs dispatch() to be called in
 * time (ret_next). Node ids are Corosync's; one process of a node may be in a group.
 *
 * join(): besides 0, -HF_ENAME, -EALREADY and -HF_EFULL (groups): -HF_ENOTREADY (corosync does not
 * run, or not yet: try again later), -HF_EHELD (another process of this node is in the group, or
 * was and its end is not noticed yet: try again later), -EACCES (corosync does not let us in:
 * uidgid in corosync.conf), -HF_ECONFIG (corosync.conf has no quorum provider), -EIO.
 * multicast(): besides 0, -HF_ELEFT, -EMSGSIZE: -HF_EFULL (flow control; also before the first
 * view and while a pause is being looked at), -HF_ECLOSED (the lost callback is due).
 * lost: also with -HF_EHELD (a second process of this node came in at the same time) and -HF_ELEFT
 * (a newcomer found us silent and went on). All is finalized then; join() connects again.
 * leave() before the first view: there is none at all.
 *
 * No callback may call dispatch() or destroy(). Not thread-safe. Calls into corosync wait for its
 * answer: a stopped corosync stops its callers.
 * Returns 0, -HF_EVALUE (an option) or -errno, with a text.
 */
HF_MUST int hf_engine_corosync_create(const struct hf_engine_corosync_opt *opt, struct hf_err *err,
                                      struct hf_engine **ret_engine);
