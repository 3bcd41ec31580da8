/* The embedded engine: one process alone, or several processes of one machine
 * (doc/design/engine.md). */
#pragma once

#include "base/attr.h"
#include "base/err.h"
#include "engine/engine.h"

/* Everything is copied by create. */
struct hf_engine_embedded_opt {
    uint32_t node_id; /* unique among the processes that share run_dir, never 0 */
    const char *host; /* our name in views, 1 ... HF_HOST_NAME_MAX printable ASCII bytes */
    /* Directory that the processes share: local file system, ours, writable by nobody else, short
     * (a socket's path has 107 bytes). NULL: in process only. */
    const char *run_dir;
    unsigned expected_votes; /* quorum is a majority of them; 0 or 1: always quorate */
    hf_time silence;         /* ns; who is not heard of for so long is passed over; 0: 1 s */
    struct hf_engine_callbacks callbacks; /* each may be NULL */
    void *arg; /* given to the callbacks; borrowed for the engine's life */
};

/**
 * Make an engine. It does nothing before the first dispatch(), and needs that to be called in time
 * (ret_next); a dispatch() later than `silence` counts as a pause (I10). After the lost callback
 * all groups are left; the engine finds its way back by itself, and join() may be called again. No
 * callback may call dispatch() or destroy(). Not thread-safe.
 * Returns 0, -HF_EVALUE (an option), -HF_ECONFIG (run_dir is not usable) or -errno, with a text.
 */
HF_MUST int hf_engine_embedded_create(const struct hf_engine_embedded_opt *opt, struct hf_err *err,
                                      struct hf_engine **ret_engine);
