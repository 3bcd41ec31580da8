/* Group core: which host runs what; join, failover, switchover and rejoin as one state machine
 * (B1-B20, G1-G6). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "codec/group_v1.h"
#include "engine/engine.h"

/*
 * All members of a view get the same messages in the same order, and make the same decisions from
 * them (plan.c): nobody leads. What one member does itself (agents, fencing) follows from the
 * common state (act.c) and begins only when all members of the view have that state on their disks
 * (G3).
 *
 * A member in a view:
 *
 *   OUT --view--> HELLO --all have said hello--> SYNC --newest state here--> IN
 *    ^              ^  (or were excluded)         |      (at once if so)      |
 *    |              +------------- next view -----+---------------------------+
 *    +--- engine lost, left, or excluded: stop everything, join again
 */
#define HF_GROUP_STATE_LIST(X)                                                                     \
    X(OUT, "out")                                                                                  \
    X(HELLO, "hello")                                                                              \
    X(SYNC, "sync")                                                                                \
    X(IN, "in")

enum hf_group_standing {
#define HF_GROUP_STATE_ENUM(id, name) HF_GROUP_##id,
    HF_GROUP_STATE_LIST(HF_GROUP_STATE_ENUM)
#undef HF_GROUP_STATE_ENUM
        HF_GROUP_STATE_COUNT_
};
const char *hf_group_standing_name(enum hf_group_standing s);

/* What a resource agent is asked to do here. */
#define HF_OP_LIST(X)                                                                              \
    X(MONITOR, "monitor")                                                                          \
    X(START, "start")                                                                              \
    X(PROMOTE, "promote")                                                                          \
    X(OPEN, "open")                                                                                \
    X(DEMOTE, "demote")                                                                            \
    X(STOP, "stop")                                                                                \
    X(MIRROR_SOURCE, "mirror-source")                                                              \
    X(MIRROR_TARGET, "mirror-target")                                                              \
    X(ACCESS, "access")                                                                            \
    X(PREPARE, "prepare") /* all that can be done before a planned switch while clients work */

enum hf_op {
    HF_OP_NONE,
#define HF_OP_ENUM(id, name) HF_OP_##id,
    HF_OP_LIST(HF_OP_ENUM)
#undef HF_OP_ENUM
        HF_OP_COUNT_
};
const char *hf_op_name(uint8_t op);

/* name, what it counts: status and /metrics are made of it. */
#define HF_GROUP_COUNTER_LIST(X)                                                                   \
    X(views, "views of the group")                                                                 \
    X(messages, "messages of the group received")                                                  \
    X(sent, "messages sent")                                                                       \
    X(refused_malformed, "messages refused: malformed")                                            \
    X(refused_version, "messages refused: of a newer protocol version")                            \
    X(refused_group, "messages refused: of another group with the same name")                      \
    X(refused_sender, "messages refused: what they say is not the sender's to say")                \
    X(stale, "messages of an earlier view, ignored")                                               \
    X(states_taken, "states taken over from another member")                                       \
    X(persists, "versions of the state written to disk")                                           \
    X(persist_errors, "writes of the state that failed")                                           \
    X(excluded, "members that did not answer in time")                                             \
    X(fenced, "hosts fenced")                                                                      \
    X(fence_errors, "fencing that failed")                                                         \
    X(promotions, "reigns begun")                                                                  \
    X(restarts, "primaries restarted in place")                                                    \
    X(agent_errors, "actions of agents that failed here")                                          \
    X(gaps, "pauses of this process noticed")                                                      \
    X(joins, "hosts admitted")                                                                     \
    X(joins_undone, "joins undone")

struct hf_group_counters {
#define HF_GROUP_COUNTER_FIELD(name, text) uint64_t name;
    HF_GROUP_COUNTER_LIST(HF_GROUP_COUNTER_FIELD)
#undef HF_GROUP_COUNTER_FIELD
};

/* Times in ms; 0: the default. */
struct hf_group_conf {
    const char *name;     /* of the group; copied */
    const char *host;     /* ours; copied */
    const char *address;  /* ours, for mirrors and configuration; copied */
    uint64_t incarnation; /* of this process: random, not 0 */
    uint64_t seed;
    uint32_t answer_ms;  /* patience with a member's hello or acknowledgement: 2000 */
    uint32_t restart_ms; /* a daemon may take this long to come back (G6): 5000 */
    uint32_t boot_ms;    /* cold start: wait for the former primary host this long: 20000 */
    uint32_t retry_ms;   /* try again what failed: 10000 */
    uint32_t stable_ms;  /* a primary that ran so long has its restarts forgotten: 600000 */
    uint32_t join_ms;    /* the longest join: 60000 */
    /* Of what is here of each resource of the record, by its number (0: nothing), borrowed for the
     * call; NULL: nothing at all. Where there is nothing, nothing can be running. */
    const uint64_t *config_hash;
};

/* ---- what goes in ---- */

enum hf_group_in_kind {
    HF_GROUP_IN_TIMER,     /* hf_group_deadline() has come (harmless at any other time) */
    HF_GROUP_IN_VIEW,      /* the engine's callback */
    HF_GROUP_IN_QUORUM,    /* the engine's callback */
    HF_GROUP_IN_MESSAGE,   /* the engine's callback */
    HF_GROUP_IN_LOST,      /* the engine is lost; the driver joins again */
    HF_GROUP_IN_PERSISTED, /* the state of HF_GROUP_ACT_PERSIST is on disk, or (rc) is not */
    HF_GROUP_IN_DONE,      /* HF_GROUP_ACT_AGENT has ended; also each recurring monitor's result */
    HF_GROUP_IN_MIRROR,  /* mirror-state says this of a copy: on the primary host of a mirror, on a
                            backup host of its own */
    HF_GROUP_IN_CONFIG,  /* the configuration of a resource is here (rc 0), or can't be had */
    HF_GROUP_IN_FENCED,  /* HF_GROUP_ACT_FENCE has ended */
    HF_GROUP_IN_REQUEST, /* an operator's; outcome by HF_GROUP_ACT_RESULT */
    HF_GROUP_IN_CREATE,  /* make the group: we are its first member */
    HF_GROUP_IN_JOIN,    /* become a member, and say so until it is done or failed */
    HF_GROUP_IN_GAP,     /* this process did not run for a while (I10) */
    HF_GROUP_IN_STOP,    /* end in order: give the primary away, stop all, say bye */
};

/* Everything is borrowed for the call. */
struct hf_group_in {
    enum hf_group_in_kind kind;
    int rc; /* PERSISTED, CONFIG, FENCED: 0 or -errno, -HF_E*; DONE: OCF exit code */
    union {
        const struct hf_engine_view *view;
        struct {
            bool quorate;
            uint64_t ring;
        };
        struct {
            uint32_t from;
            struct hf_slice msg;
        };
        uint64_t version; /* PERSISTED */
        struct {          /* DONE, MIRROR, CONFIG, FENCED */
            uint8_t resource;
            uint8_t op;           /* DONE: enum hf_op */
            uint8_t seen;         /* MIRROR: enum hf_mirror_seen */
            uint32_t serial;      /* DONE: of the act; 0: a recurring monitor */
            struct hf_slice text; /* DONE: reason, or after PROMOTE the fence text; FENCED */
            uint64_t config_hash; /* CONFIG: of what is here */
            const char *host;     /* FENCED */
        };
        struct {                 /* REQUEST */
            uint8_t what;        /* enum hf_grequest */
            const char *to_host; /* NULL: none given */
            const char *of;      /* resource; NULL: none given */
            uint32_t request;    /* the driver's number, not 0, for RESULT */
        };
        struct {                                  /* CREATE, JOIN */
            const struct hf_gresource *resources; /* CREATE: all, names, agents, flags, hashes */
            uint8_t n_resources;
            bool degraded_refuse, restart_always;
            uint64_t group_id;                  /* CREATE: random, not 0 */
            const struct hf_gresource *brought; /* JOIN: a copy of our own (B9), or NULL */
            uint32_t join_request;              /* for RESULT */
        };
    };
};

/* ---- what comes out ---- */

enum hf_group_act_kind {
    HF_GROUP_ACT_SEND,    /* multicast `bytes`; on -HF_EFULL keep and send later, in order */
    HF_GROUP_ACT_PERSIST, /* write `bytes` (version) durably, then IN_PERSISTED. A newer one
                             replaces one that is waiting to be written */
    HF_GROUP_ACT_AGENT,   /* run `op` of `resource`, then IN_DONE with `serial` */
    HF_GROUP_ACT_FENCE,   /* make sure that `host` is off, then IN_FENCED */
    HF_GROUP_ACT_CONFIG,  /* get the configuration of `resource` from `address`, then IN_CONFIG */
    HF_GROUP_ACT_REJOIN,  /* leave and join the engine's group */
    HF_GROUP_ACT_RESULT,  /* of REQUEST, CREATE or JOIN number `request`: rc, text */
    HF_GROUP_ACT_EVENT,   /* something to tell people: `text`; one per member that sees it */
    HF_GROUP_ACT_LEFT,    /* we are not a member any more: forget the record, leave the engine */
    HF_GROUP_ACT_STOPPED, /* IN_STOP is done */
};

/* Of HF_GROUP_ACT_AGENT: what the agent's environment says (doc/design/agents.md). */
struct hf_group_agent_act {
    uint8_t resource, op;
    uint32_t serial;
    uint64_t epoch;
    bool init;            /* HOLDFAST_INIT */
    bool overwrite;       /* HOLDFAST_OVERWRITE */
    bool silent;          /* PROMOTE: HOLDFAST_SILENT */
    uint16_t sync, async; /* MIRROR_SOURCE, START, PROMOTE: copies; their hosts are in the state */
    uint16_t grow;        /* MIRROR_SOURCE: of sync, those that must have everything first */
    uint8_t source;       /* MIRROR_TARGET: the copy to follow; its host is in the state */
};

struct hf_group_act {
    enum hf_group_act_kind kind;
    union {
        struct {
            struct hf_slice bytes; /* SEND, PERSIST: valid until the next step */
            uint64_t version;
        };
        struct hf_group_agent_act agent;
        struct {
            uint8_t resource; /* CONFIG */
            const char *host; /* FENCE, CONFIG: until the next step */
            const char *address;
        };
        struct {
            uint32_t request;
            int rc;
            const char *text; /* RESULT, EVENT: until the next step */
            bool warn;        /* EVENT */
        };
    };
};

#define HF_GROUP_ACTS_MAX 96
#define HF_GROUP_OUT_BYTES (4 * HF_GSTATE_LEN_MAX)

struct hf_group_out {
    uint32_t n;
    struct hf_group_act act[HF_GROUP_ACTS_MAX];
    size_t used;
    uint8_t bytes[HF_GROUP_OUT_BYTES];
};

struct hf_group;

/**
 * A member of the group, not in any view yet. record: what its disk says (the last PERSIST), or
 * empty: none. 0, -ENOMEM, -HF_ENAME, or the error of a record that can't be read: the host must
 * then join anew (never guess: I2).
 */
HF_MUST int hf_group_create(const struct hf_group_conf *conf, struct hf_slice record, hf_time now,
                            struct hf_group **ret_group);
void hf_group_destroy(struct hf_group *g);

/** One step: takes `in` in, leaves what is to be done in `out` (emptied first). */
void hf_group_step(struct hf_group *g, const struct hf_group_in *in, hf_time now,
                   struct hf_group_out *out);
/** When the next HF_GROUP_IN_TIMER is due; HF_NEVER: none. */
hf_time hf_group_deadline(const struct hf_group *g);

/* ---- reading ---- */

enum hf_group_standing hf_group_standing(const struct hf_group *g);
/** The state, as far as it is known here; NULL: none yet. Borrowed until the next step. */
const struct hf_gstate *hf_group_state(const struct hf_group *g);
/** Our number in it; HF_GROUP_NONE: not a member. */
uint8_t hf_group_self(const struct hf_group *g);
/** Members that are in the view and have said hello. */
uint16_t hf_group_present(const struct hf_group *g);
/** Do we act now: in a quorate view, not after a pause? */
bool hf_group_quorate(const struct hf_group *g);
/** Members whose hosts are taken for dead while we act: not present, and neither saying goodbye nor
 * only without their daemon (G6); half of the group says it only of those that are fenced. Whoever
 * is cut off, or was paused, says it of nobody. */
uint16_t hf_group_lost(const struct hf_group *g);
/** What runs at a member, as far as it is known (enum hf_role). */
uint8_t hf_group_role(const struct hf_group *g, uint8_t member, uint8_t resource);
/** Members able to host a copy: they reach it and have its configuration. */
uint16_t hf_group_able(const struct hf_group *g, uint8_t copy);
/** Mirrors in force at the primary host. */
void hf_group_mirrored(const struct hf_group *g, uint16_t *ret_sync, uint16_t *ret_async);
/** Why there is no running primary, or "" if there is one: a sentence that says what to do. */
const char *hf_group_why(const struct hf_group *g);
/** Why a resource is not as it should be, or "". */
const char *hf_group_resource_why(const struct hf_group *g, uint8_t resource);
const struct hf_group_counters *hf_group_counters(const struct hf_group *g);
