/* What a SIP server wants of its store, and what comes of it: plain data between the core and SQL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/slice.h"
#include "core/sip/assign.h"
#include "core/sip/digest.h"
#include "core/sip/registrar.h"

/*
 * Servers are named in the store; the core's numbers (fleet.h) are turned into names on the way.
 * Every op has one result, in any order; ops of one AoR are done in the order they were given.
 *
 *   READ     the row of an AoR, and whether it is a user's
 *   ASSIGN   insert the row (epoch 1) unless there is one; the row as it is then
 *   ASSERT   insert the row, or raise the stored one to its epoch; the row as it is then
 *   LEARN    agent and agent_id of an AoR of ours
 *   SECRET   a user's secrets, by user name and realm, and the AoR that is his
 *   BIND     write changes of bindings, if the row's epoch is still this one (S3): DONE or STALE
 *            with the row. Committed in groups, within 10 ms
 *   LOAD     everything stored of an AoR: bindings, subscriptions, publications
 *   KEEP     store a subscription or publication, under its key
 *   DROP     delete one
 */
#define HF_SIP_OP_LIST(X)                                                                          \
    X(READ, "read")                                                                                \
    X(ASSIGN, "assign")                                                                            \
    X(ASSERT, "assert")                                                                            \
    X(LEARN, "learn")                                                                              \
    X(SECRET, "secret")                                                                            \
    X(BIND, "bind")                                                                                \
    X(LOAD, "load")                                                                                \
    X(KEEP, "keep")                                                                                \
    X(DROP, "drop")
enum hf_sip_op_kind {
#define HF_SIP_OP_ENUM(id, name) HF_SIP_OP_##id,
    HF_SIP_OP_LIST(HF_SIP_OP_ENUM)
#undef HF_SIP_OP_ENUM
        HF_SIP_OP_COUNT_
};

/** A binding to write, or to delete. */
struct hf_sip_bind {
    bool erase;          /* by key; b is not looked at */
    struct hf_slice key; /* within the AoR: the contact, or its instance and reg-id */
    struct hf_sip_stored_binding b;
};
#define HF_SIP_BINDS_MAX (2UL * HF_SIP_CONTACTS_MAX)

/** Something else that is kept of an AoR. */
struct hf_sip_kept {
    uint8_t what;         /* 's': subscription, 'p': publication */
    struct hf_slice key;  /* within (what, AoR) */
    struct hf_slice data; /* opaque */
    uint32_t left_s;      /* before it expires */
};

/** An op; all slices are copied by who takes it. */
struct hf_sip_op {
    uint8_t kind;          /* enum hf_sip_op_kind */
    bool wait;             /* BIND: somebody waits for it; others may go later, and be merged */
    uint64_t cookie;       /* comes back; 0: no result is wanted */
    struct hf_slice aor;   /* all but SECRET */
    uint64_t epoch;        /* BIND, KEEP: of the row by which this was decided */
    struct hf_sip_row row; /* ASSIGN, ASSERT, LEARN */
    struct hf_slice user, realm;    /* SECRET */
    const struct hf_sip_bind *bind; /* BIND */
    size_t n_binds;
    struct hf_sip_kept kept; /* KEEP; DROP: what and key */
};

#define HF_SIP_DONE_LIST(X)                                                                        \
    X(DONE, "done")                                                                                \
    X(NONE, "none")   /* no such row, no such user */                                              \
    X(STALE, "stale") /* the row has another epoch: it is here, nothing was written */             \
    X(AWAY, "away")   /* the database is, or became so: whether it was written is not known */
enum hf_sip_done {
#define HF_SIP_DONE_ENUM(id, name) HF_SIP_OP_##id,
    HF_SIP_DONE_LIST(HF_SIP_DONE_ENUM)
#undef HF_SIP_DONE_ENUM
};

/** What came of an op; all borrowed for the call that tells it. */
struct hf_sip_result {
    uint8_t kind, done; /* enum hf_sip_op_kind, enum hf_sip_done */
    uint64_t cookie;
    struct hf_slice aor;
    bool have_row;
    struct hf_sip_row row;
    bool user_known; /* READ */
    /* SECRET, DONE: bits of enum hf_sip_algorithm that there are, and each H(user:realm:password)
     */
    unsigned algorithms;
    uint8_t secret[HF_SIP_ALGORITHM_COUNT_][HF_SIP_HASH_MAX];
    const struct hf_sip_bind *bind; /* BIND, AWAY: as they came; those to be deleted at least */
    size_t n_binds;
    const struct hf_sip_stored_binding *binding; /* LOAD */
    size_t n_bindings;
    const struct hf_sip_kept *kept;
    size_t n_kept;
};

/** The change feed, in pieces. */
struct hf_sip_feed {
    bool there;                   /* the database is; false: away, and nothing else counts */
    const struct hf_sip_row *row; /* changed; borrowed */
    size_t n;
    const struct hf_slice *deleted; /* AoRs whose user is gone */
    size_t n_deleted;
    uint64_t change; /* read up to here; 0: more comes */
};
