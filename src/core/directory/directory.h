/* Directory core: every host's copy of the naming tree, kept by adverts and repaired by pulls
 * (A1-A13). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/endpoint.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "codec/advert_v1.h"
#include "core/directory/part.h"

/*
 * Oneself:                                          A peer (another owner):
 *
 *   LISTEN --first advert--> SYNC                      ABSENT --advert--> WANTED --pulled--> ALIVE
 *      |  (A4)                |  all pulled once,        ^                  |  ^               |  ^
 *      | nobody heard         |  or sync_wait over       |   4 periods      |  | new           |  |
 * any v                      v                          +------------------+  | incarnation   v  |
 * packet PERSIST <-----------------+                          |                     +------------
 * PROBING | incarnation is on disk (A-r2)                   +--- BYE, or 4 periods of silence ----+
 *      v
 *     RUN --STOP--> LEFT                               Silence of 3 periods makes PROBING (A-r3).
 */
#define HF_DIR_STATE_LIST(X)                                                                       \
    X(LISTEN, "listen")                                                                            \
    X(SYNC, "sync")                                                                                \
    X(PERSIST, "persist")                                                                          \
    X(RUN, "run")                                                                                  \
    X(LEFT, "left")

enum hf_dir_state {
#define HF_DIR_STATE_ENUM(id, name) HF_DIR_##id,
    HF_DIR_STATE_LIST(HF_DIR_STATE_ENUM)
#undef HF_DIR_STATE_ENUM
        HF_DIR_STATE_COUNT_
};
const char *hf_dir_state_name(enum hf_dir_state s);

#define HF_DIR_PEER_LIST(X)                                                                        \
    X(ABSENT, "absent")                                                                            \
    X(WANTED, "syncing")                                                                           \
    X(ALIVE, "alive")                                                                              \
    X(PROBING, "probing")

enum hf_dir_peer_state {
#define HF_DIR_PEER_ENUM(id, name) HF_DIR_PEER_##id,
    HF_DIR_PEER_LIST(HF_DIR_PEER_ENUM)
#undef HF_DIR_PEER_ENUM
        HF_DIR_PEER_STATE_COUNT_
};
const char *hf_dir_peer_state_name(enum hf_dir_peer_state s);

/* name, what it counts (A12): `holdfast status` and /metrics, with its HELP lines, are made of it.
 */
#define HF_DIR_COUNTER_LIST(X)                                                                     \
    X(adverts_sent, "adverts sent, heartbeats and answers to probes included")                     \
    X(adverts_received, "authentic adverts of others received")                                    \
    X(adverts_ignored, "adverts that told nothing new")                                            \
    X(adverts_applied, "adverts whose changes were applied")                                       \
    X(adverts_held, "adverts kept until a pull was done")                                          \
    X(gaps, "adverts that showed that earlier ones were missed")                                   \
    X(probes_sent, "silent hosts asked for an advert")                                             \
    X(probes_received, "probes answered")                                                          \
    X(pulls_started, "pulls from an owner started")                                                \
    X(pulls_delta, "pulls that brought what had changed")                                          \
    X(pulls_full, "pulls that brought an owner's whole part")                                      \
    X(pulls_failed, "pulls that failed and are tried again")                                       \
    X(pulls_served, "pulls of others answered")                                                    \
    X(states_pulled, "states of the cluster pulled at start")                                      \
    X(states_served, "states of the cluster given to newcomers")                                   \
    X(members_up, "hosts that became alive")                                                       \
    X(members_down, "hosts that left, fell silent or restarted")                                   \
    X(published, "changes of local services")                                                      \
    X(leases_expired, "local services withdrawn because their lease ran out")                      \
    X(refused_replay, "datagrams refused: counter or incarnation not rising")                      \
    X(refused_salt, "datagrams refused: another process of the same host and incarnation")         \
    X(refused_owner, "answers refused: about another owner than asked")                            \
    X(refused_stale, "answers refused: older than what is known")                                  \
    X(refused_hash, "adverts and answers whose content does not have the hash they claim")         \
    X(refused_full, "refused because a limit was reached")                                         \
    X(refused_rate, "changes refused because a publisher made too many")                           \
    X(refused_publish, "changes refused: bad name or value, or held by another")                   \
    X(conflicts, "datagrams of another host that uses our name")                                   \
    X(no_memory, "steps that could not be done for want of memory")

struct hf_dir_counters {
#define HF_DIR_COUNTER_FIELD(name, text) uint64_t name;
    HF_DIR_COUNTER_LIST(HF_DIR_COUNTER_FIELD)
#undef HF_DIR_COUNTER_FIELD
};

struct hf_dir_conf {
    struct hf_slice host;        /* our name; copied */
    struct hf_endpoint endpoint; /* where others pull from us; family 0: the source they see */
    uint32_t heartbeat_ms;       /* of a small cluster; grows with it (HF_HEARTBEATS_PER_S_MAX) */
    uint32_t listen_ms;          /* wait for a first advert; 0: two heartbeats */
    uint32_t sync_ms;            /* longest wait for the first sync (A11) */
    bool dump;                   /* newcomer takes one state dump (A5), not a pull from each (A4) */
    uint64_t incarnation;        /* the one on disk + 1 */
    uint64_t seed;
};

/* ---- what goes in ---- */

enum hf_dir_in_kind {
    HF_DIR_IN_TIMER,        /* hf_dir_deadline() has come (harmless at any other time) */
    HF_DIR_IN_ADVERT,       /* an authentic datagram with an advert */
    HF_DIR_IN_PROBE,        /* an authentic probe */
    HF_DIR_IN_PULLED,       /* the answer to HF_DIR_ACT_PULL */
    HF_DIR_IN_PULL_FAILED,  /* there will be none */
    HF_DIR_IN_STATE_MEMBER, /* a member in the answer to HF_DIR_ACT_PULL_STATE, one step for each */
    HF_DIR_IN_STATE_END,    /* that answer is complete, or (rc) there is none */
    HF_DIR_IN_PERSISTED,    /* HF_DIR_ACT_PERSIST is on disk, or (rc) can't be */
    HF_DIR_IN_PUBLISH,
    HF_DIR_IN_WITHDRAW,
    HF_DIR_IN_PUBLISHER_GONE,
    HF_DIR_IN_STOP, /* say bye; afterwards nothing but reading */
};

/* Everything is borrowed for the call. */
struct hf_dir_in {
    enum hf_dir_in_kind kind;
    uint32_t owner; /* ADVERT, PROBE, PULL*: who (hf_dir_store_owner()); may be HF_OWNER_NONE */
    int rc;         /* PULL_FAILED, STATE_END, PERSISTED: 0 or what went wrong */
    union {
        struct { /* ADVERT, PROBE */
            const struct hf_datagram_head *head;
            const struct hf_advert *advert;
            struct hf_endpoint from; /* the datagram's source */
        };
        const struct hf_pull *pull;           /* PULLED */
        const struct hf_state_member *member; /* STATE_MEMBER */
        uint64_t your_incarnation;            /* STATE_END */
        uint8_t salt[HF_SALT_LEN];            /* PERSISTED: of the sealer for that incarnation */
        struct {                              /* PUBLISH, WITHDRAW, PUBLISHER_GONE */
            uint32_t publisher;               /* chosen by the driver, not 0; one per connection */
            uint32_t lease_ms;                /* PUBLISH; 0: until the publisher is gone */
            struct hf_slice name, value;
        };
    };
};

/* ---- what comes out ---- */

enum hf_dir_act_kind {
    HF_DIR_ACT_MULTICAST,  /* seal out->body as an advert and send it to all */
    HF_DIR_ACT_ANSWER,     /* the same, to `to` only */
    HF_DIR_ACT_PROBE,      /* send a probe to `owner` at `to` */
    HF_DIR_ACT_PULL,       /* GET /v1/adverts from `owner` at `to`: incarnation, since (0: all) */
    HF_DIR_ACT_PULL_STATE, /* GET /v1/state from `owner` at `to`; `parts`: with the parts */
    HF_DIR_ACT_PERSIST,    /* write `incarnation` durably, make a sealer for it, then PERSISTED */
    HF_DIR_ACT_STATE,      /* our own state changed to `state` */
    HF_DIR_ACT_MEMBER,     /* `owner` is now alive (up) or not; `reason` for a person */
    HF_DIR_ACT_PART,   /* `owner`'s part changed from `before` to `after` (either may be NULL) */
    HF_DIR_ACT_RESULT, /* of PUBLISH and WITHDRAW: rc */
};

struct hf_dir_act {
    enum hf_dir_act_kind kind;
    uint32_t owner;
    union {
        struct hf_endpoint to;
        struct {
            struct hf_part *before, *after; /* borrowed until the next step; ref to keep */
        };
        struct {
            bool up;
            const char *reason;
        };
        enum hf_dir_state state;
        int rc;
    };
    uint64_t incarnation, since;
    bool parts;
};

/* Enough for any one step: what a step could do more often, it does in the next. */
#define HF_DIR_ACTS_MAX 64

/* The caller's, reused from step to step: acts in order, valid until the next step. */
struct hf_dir_out {
    uint32_t n;
    struct hf_dir_act act[HF_DIR_ACTS_MAX];
    uint32_t n_kept;
    struct hf_part *kept[2 * HF_DIR_ACTS_MAX]; /* references given back by the next step */
    size_t body_len;
    uint8_t body[HF_ADVERT_BODY_MAX];
};

struct hf_dir;

/**
 * A core on `store` (borrowed while it lives; several cores may share it). Starts in LISTEN at
 * `now`. 0, -ENOMEM, -HF_ENAME, or -HF_EFULL when the store has no room for our own name.
 */
HF_MUST int hf_dir_create(const struct hf_dir_conf *conf, struct hf_dir_store *store, hf_time now,
                          struct hf_dir **ret_dir);
void hf_dir_destroy(struct hf_dir *d);

void hf_dir_out_init(struct hf_dir_out *out);
/** Gives back the references that out still keeps. */
void hf_dir_out_fini(struct hf_dir_out *out);

/** One step: takes `in` in, leaves what is to be done in `out`. */
void hf_dir_step(struct hf_dir *d, const struct hf_dir_in *in, hf_time now, struct hf_dir_out *out);
/** When the next HF_DIR_IN_TIMER is due; HF_NEVER: none. */
hf_time hf_dir_deadline(const struct hf_dir *d);

/**
 * The answer to GET /v1/adverts by `requester` who has `since` of `incarnation` (A3, A8). `counter`
 * is the sealer's. Appends to buf (its error: -ENOMEM, -HF_EFULL). -HF_ENOTREADY before RUN.
 */
struct hf_buf;
HF_MUST int hf_dir_encode_pull(struct hf_dir *d, struct hf_slice requester, uint64_t incarnation,
                               uint64_t since, uint64_t counter, struct hf_buf *buf);

/**
 * The answer to GET /v1/state: hints of all living members, with their parts if `parts` (A5) as far
 * as they fit HF_STATE_BODY_MAX. Our own part is not in it: it is pulled. -HF_ENOTREADY before RUN.
 */
HF_MUST int hf_dir_encode_state(struct hf_dir *d, struct hf_slice requester, bool parts,
                                hf_time now, struct hf_buf *buf);

/* ---- reading ---- */

enum hf_dir_state hf_dir_state(const struct hf_dir *d);
uint64_t hf_dir_incarnation(const struct hf_dir *d);
uint32_t hf_dir_self(const struct hf_dir *d);
/** Our heartbeats' period now, ms. */
uint32_t hf_dir_period_ms(const struct hf_dir *d);
/** Hosts in the tree, we included once we run. */
uint32_t hf_dir_members(const struct hf_dir *d);
const struct hf_dir_counters *hf_dir_counters(const struct hf_dir *d);

/** The part of an owner (borrowed until the next step), or NULL: not in the tree. */
struct hf_part *hf_dir_part(const struct hf_dir *d, uint32_t owner);

struct hf_dir_peer_info {
    enum hf_dir_peer_state state;
    uint32_t heard_ms; /* since it was last heard of */
    uint32_t period_ms;
    uint8_t failures; /* pulls failed in a row */
    bool behind;      /* known to have more than we have */
    bool pulling;
};
/** What is known of a peer; state ABSENT for unknown ones and for ourselves. */
struct hf_dir_peer_info hf_dir_peer_info(const struct hf_dir *d, uint32_t owner, hf_time now);

/* One local service, as `holdfast status` wants it. */
struct hf_dir_local_info {
    uint32_t publisher; /* 0: nobody holds it, its lease runs */
    hf_time expires;    /* HF_NEVER: held */
};
/** False if no such local service. */
bool hf_dir_local_info(const struct hf_dir *d, struct hf_slice name,
                       struct hf_dir_local_info *ret_info);

/** Tests and the simulator: bytes of state per (core, owner). A-r4 wants at most 32. */
size_t hf_dir_peer_size(void);
