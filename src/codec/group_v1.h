/* Group protocol, version 1: the state of a group, and the messages that change it
 * (doc/wire/group.md). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/limits.h"
#include "base/slice.h"

#define HF_GROUP_VERSION 1
#define HF_GROUP_NONE 0xff     /* no member, no resource */
#define HF_GMSG_LEN_MAX 1024   /* bytes of a message: what an engine carries */
#define HF_GROUP_PIECE_MAX 900 /* bytes of the state in one message */
#define HF_GROUP_OPS 11        /* numbers of enum hf_op (core/group) */

/* Versions above this one are nobody's: at one view a second it takes 68 years to get there. */
#define HF_GSTATE_VERSION_MAX ((uint64_t)1 << 63)

/* ---- the state: equal on all members, kept on the disk of each ---- */

/* What the group thinks of a copy. Only copies in S (in_sync) are promoted (I2). */
#define HF_MIRROR_LIST(X)                                                                          \
    X(NONE, "none")         /* not mirrored to */                                                  \
    X(AIMED, "aimed")       /* the primary host is to take it in, its host to follow */            \
    X(SYNCING, "syncing")   /* follows, not in sync yet */                                         \
    X(GROWING, "growing")   /* caught up: the primary host is to wait for it at each commit */     \
    X(IN_SYNC, "in-sync")   /* member of S, or the primary copy itself */                          \
    X(FAILED, "failed")     /* its agent failed on it; tried again later */                        \
    X(DIVERGED, "diverged") /* has data that the primary lacks: the operator decides (B18) */

enum hf_mirror {
#define HF_MIRROR_ENUM(id, name) HF_MIRROR_##id,
    HF_MIRROR_LIST(HF_MIRROR_ENUM)
#undef HF_MIRROR_ENUM
        HF_MIRROR_COUNT_
};
const char *hf_mirror_name(uint8_t m);

/*
 *                    +-------------- no candidate --------------+
 *                    v                                          |
 *   NONE --candidate--> CLEARING --all others stopped--> PROMOTING --fence text--> OPENING -->
 * RUNNING ^                   ^  ^         or fenced           |         kept by all      | | | |
 * +---------- failed -----------+--------------------------+          |
 *    +--- no candidate --+------- primary host or resource failed, switch, force ---------------+
 */
#define HF_PHASE_LIST(X)                                                                           \
    X(NONE, "none")           /* no primary, and none can be chosen now */                         \
    X(CLEARING, "clearing")   /* others stop, or are fenced, before the chosen one starts */       \
    X(PROMOTING, "promoting") /* the primary host starts and promotes its copy, closed */          \
    X(OPENING, "opening")     /* opens it, starts what is attached */                              \
    X(RUNNING, "running")

enum hf_phase {
#define HF_PHASE_ENUM(id, name) HF_PHASE_##id,
    HF_PHASE_LIST(HF_PHASE_ENUM)
#undef HF_PHASE_ENUM
        HF_PHASE_COUNT_
};
const char *hf_phase_name(uint8_t p);

/* A host of the group. Its index in the list is its number in masks. */
struct hf_gmember {
    char host[HF_HOST_NAME_MAX + 1];
    char address[HF_GROUP_ADDRESS_MAX + 1]; /* where others reach it: mirrors, configuration */
    uint16_t access;                        /* copies that it reaches (B6) */
    uint8_t subgroup;                       /* the copy whose subgroup it is in; NONE: ineligible */
    bool leaving;                           /* is to be removed once it has stopped everything */
    bool fenced;                            /* confirmed off since it was last heard */
    uint16_t dirty;   /* resources that it may be running: absent, it is fenced before others do */
    bool was_primary; /* and may still believe so */
};

enum hf_resource_kind { HF_RESOURCE_COPY = 1, HF_RESOURCE_ATTACHED = 2 };

/* What an agent can, from its meta-data, and what the operator declared. */
enum hf_resource_flags {
    HF_RESOURCE_PROMOTABLE = 1,
    HF_RESOURCE_MIRROR = 2,     /* mirror-capable: its copies have states */
    HF_RESOURCE_OPEN = 4,       /* has the action `open` */
    HF_RESOURCE_FENCE_NONE = 8, /* declared safe: may run twice for a moment (never a copy with
                                   data, G1) */
};

struct hf_gresource {
    char name[HF_GROUP_RESOURCE_NAME_MAX + 1];
    char agent[HF_GROUP_AGENT_MAX + 1]; /* "ocf:holdfast:postgresql"; "" leadership, no agent */
    char probe[HF_GROUP_PROBE_MAX + 1]; /* parameters that the access probe needs, "a=b c=d" */
    uint8_t kind;
    uint8_t flags;
    uint64_t config_hash; /* of its whole configuration, which only its subgroup has (B4) */
    uint8_t host;         /* who controls it (B3) */
    uint8_t mirror;       /* copies: enum hf_mirror */
    uint8_t restarts;     /* in place, since it last was stable */
    uint16_t failed_on;   /* members where it could not be run */
    uint64_t epoch;       /* copies: the last reign at whose side it was in S */
};

/* Who is joining now; nothing else of the state changes before it is admitted (B10). */
struct hf_gjoin {
    uint8_t step; /* 0: nobody; 1: probing; 2: getting its configuration */
    char host[HF_HOST_NAME_MAX + 1];
    char address[HF_GROUP_ADDRESS_MAX + 1];
    uint32_t request; /* the joiner's own number of this try */
    uint16_t access;
    uint8_t subgroup;
    bool brings;                 /* a copy of its own (B9) */
    struct hf_gresource brought; /* if so */
};

/* After a time in which nobody was there without a break, others may still be booting. */
enum hf_cold {
    HF_COLD_NO,
    HF_COLD_PRIMARY, /* the former primary host is waited for */
    HF_COLD_BACKUPS, /* there is a primary; hosts of backup copies are not fenced yet */
    HF_COLD_COUNT_,
};

struct hf_gstate {
    char name[HF_GROUP_NAME_MAX + 1];
    uint64_t id; /* of the group's creation */
    /* Version: term << 32 | seq. The term grows at each quorate view, seq with each change in it;
     * the highest one on any disk is the state (G4, G5). */
    uint64_t version;
    uint64_t epoch; /* grows each time that a primary is promoted */
    uint8_t phase;
    uint8_t primary;      /* the primary resource */
    uint8_t primary_host; /* who hosts it, or is to */
    uint8_t last_primary; /* the copy that was promoted last: the newest data is in it */
    uint8_t cold;         /* enum hf_cold */
    bool init;            /* the first copy has never been started: it may be made (create) */
    bool paused;          /* by the operator: nothing is done by itself */
    bool degraded_refuse; /* S never shrinks to the primary alone (X5) */
    bool
        restart_always; /* a primary that fails is restarted in place though a mirror could go on */
    /* A planned switch that both hosts still prepare while the primary runs: NONE, or where to. */
    uint8_t next, next_host;
    uint16_t in_sync;                             /* S: the copies that may be promoted (X5) */
    char fence_text[HF_GROUP_FENCE_TEXT_MAX + 1]; /* of the agent's promote (X3) */
    struct hf_gjoin join;
    uint8_t n_members, n_resources;
    struct hf_gmember member[HF_GROUP_MEMBERS_MAX];
    /* Copies by priority; attached ones by order. Numbers never change: a copy that is brought
     * later comes behind what is attached. */
    struct hf_gresource resource[HF_GROUP_RESOURCES_MAX];
};

/** Encode for disk, wire and hash. -HF_EFULL if buf_n < HF_GSTATE_LEN_MAX was too little. The state
 * has to be one that can be decoded; who joins is left out in step 0. */
HF_MUST int hf_gstate_encode(const struct hf_gstate *s, void *buf, size_t buf_n,
                             struct hf_slice *ret_s);
/** Total: every index and mask in it is in range afterwards, and what is unused is zero, so that
 * equal states compare equal with memcmp(). -HF_EMALF (also: damaged), -HF_ETRUNC, -HF_ETRAIL,
 * -HF_EVERSION. */
HF_MUST int hf_gstate_decode(struct hf_slice s, struct hf_gstate *ret_state);

/* ---- messages ---- */

#define HF_GMSG_LIST(X)                                                                            \
    X(HELLO, "hello")        /* first in each view: what the sender has and runs */                \
    X(STATE, "state")        /* a piece of the newest state, by who has it */                      \
    X(ACK, "ack")            /* the sender has this version on disk */                             \
    X(EXCLUDE, "exclude")    /* a member did not answer in time (G3) */                            \
    X(QUORUM, "quorum")      /* the sender's quorum changed within a view */                       \
    X(ROLE, "role")          /* what became of a resource at the sender */                         \
    X(ABLE, "able")          /* what the sender reaches and has the configuration of */            \
    X(MIRRORED, "mirrored")  /* mirrors that the primary host has put in force */                  \
    X(MIRROR, "mirror")      /* how the primary host sees one mirror */                            \
    X(FENCED, "fenced")      /* outcome of fencing a host */                                       \
    X(TIMEOUT, "timeout")    /* somebody's patience is at its end */                               \
    X(REQUEST, "request")    /* an operator's */                                                   \
    X(JOIN, "join")          /* a host wants to become a member */                                 \
    X(JOIN_PROBED, "probed") /* which copies the joiner reaches */                                 \
    X(JOIN_READY, "ready")   /* it has what it needs */                                            \
    X(JOIN_FAILED, "failed") /* it does not get further */                                         \
    X(PING, "ping")          /* of a member that may have been paused, to itself (I10) */          \
    X(BYE, "bye")            /* the sender stops in order, nothing runs there */

enum hf_gmsg_kind {
    HF_GMSG_NONE_,
#define HF_GMSG_ENUM(id, name) HF_GMSG_##id,
    HF_GMSG_LIST(HF_GMSG_ENUM)
#undef HF_GMSG_ENUM
        HF_GMSG_COUNT_
};
const char *hf_gmsg_name(uint8_t kind);

/* What runs at a member. */
#define HF_ROLE_LIST(X)                                                                            \
    X(UNKNOWN, "unknown")                                                                          \
    X(STOPPED, "stopped")                                                                          \
    X(UNPROMOTED, "unpromoted") /* a backup; of an attached or plain one: never */                 \
    X(PROMOTED, "promoted")     /* primary, closed; a plain one: started */                        \
    X(OPEN, "open")             /* primary, and open to clients */                                 \
    X(FAILED, "failed")         /* runs, or not, but not as it should */                           \
    X(STUCK, "stuck")           /* could not be stopped: only fencing helps */

enum hf_role {
#define HF_ROLE_ENUM(id, name) HF_ROLE_##id,
    HF_ROLE_LIST(HF_ROLE_ENUM)
#undef HF_ROLE_ENUM
        HF_ROLE_COUNT_
};
const char *hf_role_name(uint8_t r);

/* Does a member want to host something? */
enum hf_resigned {
    HF_RESIGNED_NO,
    HF_RESIGNED_STOPS, /* no: it stops in order */
    HF_RESIGNED_DISK,  /* no, and what it knows is not on its disk: it does not count as there */
    HF_RESIGNED_COUNT_
};

enum hf_gtimeout {
    HF_GTIMEOUT_PROCDOWN = 1, /* a daemon did not come back (member) */
    HF_GTIMEOUT_BOOT,         /* enough waiting for the former primary at a cold start */
    HF_GTIMEOUT_RETRY,        /* forget failures and try again */
    HF_GTIMEOUT_STABLE,       /* the primary has run long enough to forget its restarts */
    HF_GTIMEOUT_JOIN,         /* the joiner takes too long */
    HF_GTIMEOUT_COUNT_
};

enum hf_grequest {
    HF_GREQUEST_SWITCH = 1, /* to member and/or resource, or NONE: any */
    HF_GREQUEST_FORCE,      /* promote this resource, whatever its state (B16) */
    HF_GREQUEST_LEAVE,      /* remove a member */
    HF_GREQUEST_PAUSE,
    HF_GREQUEST_RESUME,  /* and forget failures; resource: also let it be overwritten */
    HF_GREQUEST_CONFIRM, /* the operator knows that this member is off */
    HF_GREQUEST_COUNT_
};

enum hf_mirror_seen { /* of the action mirror-state (doc/design/agents.md) */
                      HF_SEEN_NOTHING,
                      HF_SEEN_SYNCING,
                      HF_SEEN_CAUGHT_UP,
                      HF_SEEN_IN_SYNC,
                      HF_SEEN_SUSPENDED,
                      HF_SEEN_FAILED,
                      HF_SEEN_COUNT_
};

struct hf_gmsg {
    uint8_t kind;
    uint64_t ring;     /* view in which it was sent; in another one it is nothing */
    uint64_t group_id; /* 0: the sender has no state */
    union {
        struct {
            uint64_t incarnation; /* of the sender's process */
            uint64_t version, epoch, hash;
            uint64_t persisted; /* version on disk */
            bool quorate;
            bool current; /* this state is from a quorate view that it was in without a break */
            char host[HF_HOST_NAME_MAX + 1];
            char address[HF_GROUP_ADDRESS_MAX + 1];
            uint16_t access, config; /* as in ABLE */
            uint8_t resigned;        /* as in ABLE */
            uint16_t procdown;       /* members whose process, not host, is known to be down */
            uint16_t sync, async;    /* as in MIRRORED */
            uint8_t n_roles;
            uint8_t role[HF_GROUP_RESOURCES_MAX];
            uint8_t n_ghosts;
            uint32_t ghost[HF_GROUP_GHOSTS_MAX]; /* node ids that never answered */
        } hello;
        struct {
            uint64_t version;
            uint16_t offset, total;
            struct hf_slice piece; /* borrowed */
        } state;
        struct {
            uint64_t version;
        } ack;
        struct {
            uint32_t node_id;
            uint64_t version; /* that it did not acknowledge; 0: it said no hello, sent no state */
        } exclude;
        struct {
            bool quorate;
        } quorum;
        struct {
            uint8_t resource, role;
            uint8_t op;           /* enum hf_op that led to it, 0: a monitor */
            uint8_t rc;           /* its OCF exit code */
            uint64_t epoch;       /* reign for which it was done */
            struct hf_slice text; /* why, or the fence text */
        } role;
        struct {
            uint16_t access, config; /* copies that it reaches; resources whose configuration it
                                        has */
            uint8_t resigned;        /* enum hf_resigned */
        } able;
        struct {
            uint64_t epoch;
            uint16_t sync, async; /* copies */
        } mirrored;
        struct {
            uint64_t epoch;
            uint8_t resource, seen;
        } mirror;
        struct {
            uint8_t member;
            bool ok;
            struct hf_slice text;
        } fenced;
        struct {
            uint8_t what, member;
            uint64_t version; /* of the state whose patience it is */
        } timeout;
        struct {
            uint8_t what, member, resource;
            uint32_t request;
        } request;
        struct {
            uint32_t request;
            char host[HF_HOST_NAME_MAX + 1];
            char address[HF_GROUP_ADDRESS_MAX + 1];
            bool brings;
            struct hf_gresource brought; /* name to config_hash; the rest is the group's */
        } join;
        struct {
            uint32_t request;
            uint16_t access;      /* JOIN_PROBED */
            struct hf_slice text; /* JOIN_FAILED */
        } joining;
        struct {
            uint64_t nonce;
        } ping;
    };
};

/** Append a message. The sticky error of the writer tells when it did not fit. Of a text, what is
 * over HF_GROUP_TEXT_MAX is cut and control characters become spaces. */
struct hf_wr;
void hf_gmsg_encode(struct hf_wr *w, const struct hf_gmsg *m);
/** Total; strings are terminated and valid, enums and counts in range, a piece within its state. A
 * brought copy has host HF_GROUP_NONE. Indices of members and resources are only < 16 or NONE:
 * whether they exist depends on the state. */
HF_MUST int hf_gmsg_decode(struct hf_slice s, struct hf_gmsg *ret_msg);
