/* Who should be whose home instead (D8): the fewest moves that bring all servers near their share.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "core/sip/fleet.h"

/*
 * Runs on the leader. Once a tick the driver tells what each server has and does, asks for moves,
 * and carries them out as SQL statements; clients and watchers hear of it afterwards (D10).
 *
 * Load: clients as they weigh. All servers' clients, requests/s and CPU seconds/s are brought to
 * the same sum, added as conf says, and expressed in clients: 1000 units are one average client.
 * Where servers do less than 100 requests/s, or 10 % CPU, on the average, what is missing is taken
 * as done for each client alike: who is idle is judged by number.
 * A server's share is the mean by weight. After moves its load is reckoned, not measured, for
 * load_lag, as measures come late.
 *
 * Who takes: LIVE home servers with a weight that have been so for `settle`. All others' clients
 * are to go: of dead ones at once, in one statement (S7); of draining ones paced.
 *
 * Balance, with hysteresis:
 *
 *   AT_REST --somebody is outside share +- dead_zone for `patience`--> MOVING
 *      ^                                                                  |
 *      +-------------- all are inside share +- target_zone ---------------+
 *
 * An operator who wants balance now gets it from the target zone on, not only from the dead zone.
 *
 * How much: M = max(what is above the upper edges, what is missing below the lower ones). Every
 * move takes from one and gives to one, so fewer can't do. Who is highest gives down to one level,
 * who is lowest is filled up to one level, such that both make M; neither level is beyond the mean,
 * so nobody ends outside. Never "the next in the list". Clients are whole: within two of its share
 * nobody is outside, and one moves only if that makes the sum of squared deviations smaller.
 *
 * Which: who belongs there first (`home`), then any; pinned ones only back to their home, or away
 * from a server that is dead or drained. A server whose CPU is above cpu_max counts for less from
 * then on, such that its share would bring it down to cpu_target; that is given back in steps
 * while its CPU is well below.
 *
 * Rates: at most `rate` clients/s in all, and `rate_to` to one server, since the step before (10 s
 * at most): nothing is saved up while nobody moves. Dead servers' clients are not bound by either.
 */
#define HF_SIP_BALANCE_LIST(X)                                                                     \
    X(AT_REST, "at rest")                                                                          \
    X(WAITING, "waiting") /* outside the dead zone, but not for long enough */                     \
    X(MOVING, "moving")
enum hf_sip_balance {
#define HF_SIP_BALANCE_ENUM(id, name) HF_SIP_BALANCE_##id,
    HF_SIP_BALANCE_LIST(HF_SIP_BALANCE_ENUM)
#undef HF_SIP_BALANCE_ENUM
        HF_SIP_BALANCE_COUNT_
};
const char *hf_sip_balance_name(enum hf_sip_balance s);

#define HF_SIP_MOVE_LIST(X)                                                                        \
    X(DEAD, "dead")                                                                                \
    X(DRAIN, "drain")                                                                              \
    X(OVERLOAD, "overload")                                                                        \
    X(PINNED, "pinned")                                                                            \
    X(BALANCE, "balance")
enum hf_sip_move_reason {
#define HF_SIP_MOVE_ENUM(id, name) HF_SIP_MOVE_##id,
    HF_SIP_MOVE_LIST(HF_SIP_MOVE_ENUM)
#undef HF_SIP_MOVE_ENUM
        HF_SIP_MOVE_COUNT_
};
const char *hf_sip_move_reason_name(enum hf_sip_move_reason r);

/** Options; 0 is the default in brackets. Copied. Percent unless it says otherwise. */
struct hf_sip_rebalance_conf {
    unsigned dead_zone;                             /* [10] */
    unsigned target_zone;                           /* [7] less than dead_zone */
    unsigned part_clients, part_requests, part_cpu; /* [60, 20, 20] of the load, if all are 0 */
    unsigned cpu_max, cpu_target;                   /* [90, 75] */
    uint32_t rate;                                  /* [2000] clients/s */
    uint32_t rate_to;                               /* [200] clients/s to one server */
    hf_time patience;                               /* [30 s] */
    hf_time settle;                                 /* [60 s] */
    hf_time load_lag;                               /* [30 s] */
};

/** What a server has and does; all numbers as of now. */
struct hf_sip_load {
    uint32_t clients;    /* rows whose `current` it is */
    uint32_t pinned;     /* those of them that are pinned to it */
    uint32_t requests_s; /* requests per second */
    uint32_t cpu;        /* 1/1000 of its machine */
};

/** So many clients of one server for whom another one is `home`. */
struct hf_sip_astray {
    uint16_t current, home;
    uint32_t clients; /* not pinned */
    uint32_t pinned;
};

/* Whom a move takes of those whose current is `from`. */
#define HF_SIP_WHO_LIST(X)                                                                         \
    X(ALL, "all")       /* of the buckets given */                                                 \
    X(ANY, "any")       /* pinned or not */                                                        \
    X(LOOSE, "loose")   /* not pinned */                                                           \
    X(HOMING, "homing") /* not pinned, and `to` is their home */                                   \
    X(PINNED, "pinned") /* pinned, and `to` is their home */
enum hf_sip_who {
#define HF_SIP_WHO_ENUM(id, name) HF_SIP_WHO_##id,
    HF_SIP_WHO_LIST(HF_SIP_WHO_ENUM)
#undef HF_SIP_WHO_ENUM
        HF_SIP_WHO_COUNT_
};
const char *hf_sip_who_name(enum hf_sip_who w);

/** One statement; `current` becomes `to`. BALANCE of LOOSE makes `to` their home, too: they are to
 * stay there. In all others `home` stays as it is, so that they can come back. */
struct hf_sip_move {
    uint16_t from, to;
    uint8_t reason;        /* enum hf_sip_move_reason */
    uint8_t who;           /* enum hf_sip_who */
    uint32_t n;            /* so many; ALL: so many are expected */
    uint16_t bucket_first; /* ALL: those of these buckets (hf_sip_bucket()) */
    uint16_t bucket_last;
};

struct hf_sip_rebalance;

/** A leader's first thought: the fleet is borrowed as long as it lives. 0 or -ENOMEM. */
HF_MUST int hf_sip_rebalance_create(const struct hf_sip_rebalance_conf *conf,
                                    const struct hf_sip_fleet *fleet, hf_time now,
                                    struct hf_sip_rebalance **ret_rebalance);
void hf_sip_rebalance_destroy(struct hf_sip_rebalance *r);

/** What a server has and does now, also one that is dead: its rows are counted in SQL. It counts
 * until something else is told. */
void hf_sip_rebalance_load(struct hf_sip_rebalance *r, uint16_t server,
                           const struct hf_sip_load *load);
/** All who are not at home, replacing what was told before; borrowed until replaced. Each pair
 * once. */
void hf_sip_rebalance_astray(struct hf_sip_rebalance *r, const struct hf_sip_astray *astray,
                             size_t n);

/** The operator wants balance: at the next step, without patience, and who lives has settled. */
void hf_sip_rebalance_now(struct hf_sip_rebalance *r);

/** Think: what is to be done now, within the rates. ret_moves is borrowed until the next call of
 * anything. Returns how many. What could not be moved in SQL simply shows in the next load. */
size_t hf_sip_rebalance_step(struct hf_sip_rebalance *r, hf_time now,
                             const struct hf_sip_move **ret_moves);
/** Moves that would be made in all if nothing changed, as after step(); for `holdfast sip plan`. */
size_t hf_sip_rebalance_plan(struct hf_sip_rebalance *r, hf_time now,
                             const struct hf_sip_move **ret_moves);
/** Why one of the moves is made; text of at most n bytes with its NUL. */
void hf_sip_rebalance_why(const struct hf_sip_rebalance *r, const struct hf_sip_move *m, char *buf,
                          size_t n);
/** The plan for a reader: state, servers with their load against their share, moves and why. */
void hf_sip_rebalance_text(struct hf_sip_rebalance *r, hf_time now, struct hf_buf *b);

/** A server as it is seen here. */
struct hf_sip_standing {
    bool takes;     /* may be given clients */
    uint64_t load;  /* units: 1000 are an average client */
    uint64_t share; /* the mean by weight; 0 if it does not take */
    uint32_t clients;
};
void hf_sip_rebalance_standing(const struct hf_sip_rebalance *r, uint16_t server,
                               struct hf_sip_standing *ret_standing);
enum hf_sip_balance hf_sip_rebalance_state(const struct hf_sip_rebalance *r);

#define HF_SIP_REBALANCE_COUNTER_LIST(X)                                                           \
    X(steps, "looks at the servers' loads")                                                        \
    X(dead_servers, "servers whose clients were given to others because they died")                \
    X(moved_dead, "clients moved because their server died")                                       \
    X(moved_drain, "clients moved off a server that is drained")                                   \
    X(moved_overload, "clients moved off an overloaded server")                                    \
    X(moved_pinned, "clients moved back to where they are pinned")                                 \
    X(moved_balance, "clients moved for balance")                                                  \
    X(balances, "times that balance was set about")                                                \
    X(stuck, "looks at which nobody could take what had to go")
struct hf_sip_rebalance_counters {
#define HF_SIP_REBALANCE_COUNTER_FIELD(name, text) uint64_t name;
    HF_SIP_REBALANCE_COUNTER_LIST(HF_SIP_REBALANCE_COUNTER_FIELD)
#undef HF_SIP_REBALANCE_COUNTER_FIELD
};
const struct hf_sip_rebalance_counters *hf_sip_rebalance_counters(const struct hf_sip_rebalance *r);
