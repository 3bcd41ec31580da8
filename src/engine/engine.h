/* Engine: ordered messages, views and quorum for groups, in six calls (architecture 5). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "base/slice.h"

/* The largest message; only deltas of group state go through the engine, bulk goes over HTTP. */
#define HF_ENGINE_MSG_MAX 1024
#define HF_ENGINE_GROUP_NAME_MAX 63
#define HF_ENGINE_MEMBERS_MAX 64

/* Why a member is not in the view any more, as the engine knows it. */
enum hf_engine_left {
    HF_ENGINE_LEFT = 1, /* it called leave */
    HF_ENGINE_PROCDOWN, /* its process ended, its host lives */
    HF_ENGINE_NODEDOWN, /* its host is not heard of any more */
};

struct hf_engine_member {
    char host[HF_HOST_NAME_MAX + 1];
    uint32_t node_id; /* unique in the cluster, never 0 */
    uint8_t left;     /* in `left` lists: enum hf_engine_left */
};

/* A view: who receives what follows, in the same order. Borrowed for the call. */
struct hf_engine_view {
    uint64_t ring; /* grows from view to view; equal for all members of one view */
    const struct hf_engine_member *member; /* by node_id, ascending; so is left */
    size_t n_members;
    const struct hf_engine_member *left; /* gone since the last view */
    size_t n_left;
};

/*
 * Callbacks run only inside dispatch(). For one group all members see views and messages in the
 * same order (agreed order); a message is delivered to its sender, too. There is no SAFE delivery:
 * that the sender got its message does not mean that others did. The quorum callback and the view
 * callback of one change come in either order.
 */
struct hf_engine_callbacks {
    void (*message)(void *arg, const char *group, uint32_t from, struct hf_slice msg);
    void (*view)(void *arg, const char *group, const struct hf_engine_view *v);
    void (*quorum)(void *arg, bool quorate, uint64_t ring);
    /* The engine is lost (its daemon died, we were paused too long): all membership is gone. */
    void (*lost)(void *arg, int rc);
};

struct hf_engine;

/* The six calls. Every engine (embedded, corosync, the simulator's) fills one of these. */
struct hf_engine_ops {
    /** Become a member; the first view that contains us comes through dispatch(). */
    int (*join)(struct hf_engine *e, const char *group);
    /** Stop being a member; others get a view with HF_ENGINE_LEFT. */
    int (*leave)(struct hf_engine *e, const char *group);
    /** Send to all members, us too. -HF_EFULL: flow control, try again later. */
    int (*multicast)(struct hf_engine *e, const char *group, struct hf_slice msg);
    /** A descriptor that is readable when dispatch() has something to do. */
    int (*fd)(struct hf_engine *e);
    /** Deliver what is there; *ret_next: call again by then even if fd is silent (HF_NEVER: no
     * need). */
    int (*dispatch)(struct hf_engine *e, hf_time now, hf_time *ret_next);
    void (*destroy)(struct hf_engine *e);
};

struct hf_engine {
    const struct hf_engine_ops *ops;
};
