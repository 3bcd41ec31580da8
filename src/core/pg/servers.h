/* PostgreSQL servers: health, roles and fences, who may log in where and when, who moves. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/slice.h"
#include "core/pg/session.h"

/*
 * All servers that one holdfast-pg knows, and all seats: a seat is one server connection of a
 * session, wanted or had; the driver embeds it in what it has for that connection.
 *
 * A server, as its monitor connection sees it:
 *
 *   UNKNOWN --+--> DOWN       no answer in health_timeout, refused, unreachable
 *     (start) +--> STARTING   57P03
 *             +--> CLOSED     answers, is not in recovery, but is not the primary (yet): the group
 *             |               says another one, has no fence of this reign or is not open; an older
 *             |               timeline, another system identifier, two of them
 *             +--> PRIMARY    the one writable server; its incarnation and fence are known
 *             +--> STANDBY    in recovery
 *
 * Any state may follow any other, as servers do what they like; each change is told as an event.
 * DRAINING is a flag beside it, by the operator.
 *
 * An *incarnation* (X3) is one start or promotion of one server. A session that lost its connection
 * asks: is it the same one now (then its old backend may live, X6), and if not, where is the fence.
 * Same start means: same system identifier, timeline, recovery, postmaster start, and at least one
 * of the auxiliary processes is still there (a crash restart in place replaces them all and keeps
 * pg_postmaster_start_time()). A connection belongs to the incarnation that a probe begun after its
 * login still found, and is attached only then. All primaries that were opened since stand between
 * the old incarnation and the new one: only if each of them has a fence, the smallest one is the
 * fence, and only if the old one was opened here, too: else some may be missing.
 *
 * Numbers of incarnations are our own. A session that goes to another manager takes the *identity*
 * of its server's start along, which is what "same start" compares, and gets the number that the
 * other one has for it, or HF_PG_INCARNATION_UNKNOWN if that has not seen it: then a commit in
 * doubt is answered 08007.
 *
 * Where fences are from:
 *   group      the fence text of the reign (agents.md): a server becomes PRIMARY only when it is
 *              the group's, has the system identifier and timeline of that text, and this host is
 *              quorate. Only if the epoch is the next one after the last that was opened here, or
 *              the text says that those between were not opened
 *   exclusive  pg_snapshot_xmax() of the first statement begun after the server was seen out of
 *              recovery, or, if it is smaller, the next transaction id of the checkpoint that ended
 *              its recovery. Only if the primary before it was seen since this manager is the
 *              only one that writes
 *   else       none: a commit in doubt is answered 08007
 *
 * The gate: seats wait in order (FIFO) for hold_timeout. A seat that lost another one is served
 * only after a probe begun after the loss was answered (X6), and before those that did not. While
 * such seats recover on a new incarnation nobody else is let in (X8, the window, at most `window`).
 * At most logins_max log in at once.
 *
 * Planned switchover (X15):
 *
 *   NONE --switchover--> FREEZING --all at rest--> FROZEN --new primary--> ATTACHING --all--> NONE
 *                           |                        |                        |
 *                           +------------------------+---- limit: given up ---+--> NONE
 *
 * The new primary is whoever becomes it: by an operator, by a group, or, in a list that is
 * `exclusive`, the target: when everybody is at rest and it has replayed what the primary had
 * written then, it is told to promote itself; from that moment on the old one is not the primary
 * any more, whatever comes of it, and its connections go. What ends the old server is not here.
 * A group that begins to switch (clearing, while its primary is fine) is reason enough to begin:
 * its agents wait a moment until no client has anything under way.
 *
 * How the driver uses it: call a function for what happened, then hf_pg_servers_next() until it is
 * false, doing what it says (from there any function may be called again); sleep until
 * hf_pg_servers_deadline(), then call hf_pg_servers_step() and next() again.
 *
 *   need(side) of a session  hf_pg_servers_need(seat of that connection)
 *   LOGIN seat               connect and log in to seat->server, then hf_pg_servers_seated(); or
 *                            hf_pg_servers_login_failed() if the server could not be reached,
 *                            which asks again later; or hf_pg_servers_leave() and
 *                            hf_pg_session_refuse() if the error is the client's (28P01, 3D000)
 *   ATTACH seat              hf_pg_session_attach() with what hf_pg_servers_backend() says. Comes
 *                            after seated(), when it is sure that the server was not started anew
 *                            meanwhile. Until then leave its bytes in the socket
 *   REFUSE seat              hf_pg_session_refuse(57P03), or no_spare(); it does not wait any more
 *   connection broke         lost = hf_pg_servers_leave(seat), then hf_pg_session_server_gone();
 *                            `lost` is for need() when the session asks for another one
 *   GONE seat                the same, though the socket is still open: close it. In LOGIN or
 *                            CHECK: break it off, and hf_pg_servers_login_failed()
 *   drop(side), end          hf_pg_servers_leave(seat)
 *   MOVE seat                hf_pg_session_move(); at MOVED or MOVE_FAILED
 *                            hf_pg_servers_move_done(the session's seat)
 *   RECOVERED                hf_pg_servers_recovered(seat); also if it had nothing to recover
 *   FREEZE, THAW             hf_pg_session_freeze(), thaw() of each read-write session, also of
 *                            those that begin meanwhile; tell hf_pg_servers_at_rest()
 *   PROBE server             its monitor sends hf_pg_servers_query(), connecting and logging in
 *                            first if it has no connection; answers by exactly one of
 *                            hf_pg_servers_answered(), hf_pg_servers_failed()
 *   PROMOTE server           its monitor sends HF_PG_PROMOTE_QUERY, after what it has sent; if that
 *                            fails hf_pg_servers_promote_failed()
 *   RESET server             its monitor gives up probe and connection; nothing to answer
 */
#define HF_PG_SERVER_STATE_LIST(X)                                                                 \
    X(UNKNOWN, "unknown")                                                                          \
    X(DOWN, "down")                                                                                \
    X(STARTING, "starting")                                                                        \
    X(CLOSED, "closed")                                                                            \
    X(PRIMARY, "primary")                                                                          \
    X(STANDBY, "standby")
enum hf_pg_server_state {
#define HF_PG_SERVER_STATE_ENUM(id, name) HF_PG_SERVER_##id,
    HF_PG_SERVER_STATE_LIST(HF_PG_SERVER_STATE_ENUM)
#undef HF_PG_SERVER_STATE_ENUM
        HF_PG_SERVER_STATE_COUNT_
};
const char *hf_pg_server_state_name(enum hf_pg_server_state s);

#define HF_PG_SWITCH_STATE_LIST(X)                                                                 \
    X(NONE, "none")                                                                                \
    X(FREEZING, "freezing")                                                                        \
    X(FROZEN, "frozen")                                                                            \
    X(ATTACHING, "attaching")
enum hf_pg_switch_state {
#define HF_PG_SWITCH_STATE_ENUM(id, name) HF_PG_SWITCH_##id,
    HF_PG_SWITCH_STATE_LIST(HF_PG_SWITCH_STATE_ENUM)
#undef HF_PG_SWITCH_STATE_ENUM
        HF_PG_SWITCH_STATE_COUNT_
};
const char *hf_pg_switch_state_name(enum hf_pg_switch_state s);

#define HF_PG_SERVERS_COUNTER_LIST(X)                                                              \
    X(probes, "probes of servers")                                                                 \
    X(probes_failed, "probes that failed")                                                         \
    X(incarnations, "starts and promotions of primaries seen")                                     \
    X(incarnations_unfenced, "those without a fence")                                              \
    X(conflicts, "times that two servers were writable at once")                                   \
    X(held, "connections that had to wait for a server")                                           \
    X(hold_timeouts, "those that waited in vain")                                                  \
    X(logins_failed, "logins that were tried again")                                               \
    X(moves_asked, "planned moves asked of sessions")                                              \
    X(moves_failed, "those given up")                                                              \
    X(switchovers, "planned switchovers")                                                          \
    X(switchovers_failed, "those given up")
struct hf_pg_servers_counters {
#define HF_PG_SERVERS_COUNTER_FIELD(name, text) uint64_t name;
    HF_PG_SERVERS_COUNTER_LIST(HF_PG_SERVERS_COUNTER_FIELD)
#undef HF_PG_SERVERS_COUNTER_FIELD
};

/** Options; 0 is the default in brackets. Copied. */
struct hf_pg_servers_conf {
    bool group;                 /* the primary is whom hf_pg_servers_group() names */
    bool exclusive;             /* only this holdfast-pg writes: it may take fences itself. False
                                 * for a backup until it has taken over */
    bool balance;               /* between servers of the read-only endpoint */
    bool no_primary_reads;      /* read-only sessions never go to the primary */
    hf_time health_interval;    /* [1 s] */
    hf_time health_timeout;     /* [3 s] */
    hf_time hold_timeout;       /* [30 s] */
    hf_time window;             /* [5 s] */
    hf_time balance_tick;       /* [30 s] also the shortest time between two roundings */
    unsigned balance_dead_zone; /* [15] percent around the mean in which nothing is moved */
    unsigned balance_rate;      /* [50] percent of the excess that is moved per tick */
    unsigned logins_max;        /* [64] at once */
    unsigned moves_max;         /* [64] at once */
    uint64_t lag_max;           /* bytes: a standby further behind gets no sessions; 0: any */
};

/** A server of the list. Strings are copied. */
struct hf_pg_server_conf {
    const char *name;
    const char *address; /* as the group names its members' addresses; "" in a static list */
    uint16_t weight;     /* 0: 1 */
};

#define HF_PG_SERVERS_MAX 64
#define HF_PG_SERVER_NONE UINT32_MAX
#define HF_PG_AUX_MAX 16

/** What a monitor reads in one statement. */
struct hf_pg_server_facts {
    bool in_recovery;
    bool autovacuum;
    uint64_t sysid;
    uint32_t timeline;
    int64_t started;   /* pg_postmaster_start_time() in us of the Unix epoch */
    uint64_t xmax;     /* pg_snapshot_xmax(pg_current_snapshot()), or the smaller fence */
    uint64_t lsn;      /* written (primary), replayed (standby) */
    uint64_t received; /* standby: received */
    uint8_t n_aux;     /* pids of its auxiliary processes */
    uint32_t aux[HF_PG_AUX_MAX];
};

/** The monitor's one statement: one row of one text column, for hf_pg_server_facts_parse(). */
const char *hf_pg_servers_query(void);
/** What makes a standby promote itself, for who may execute it; it does not wait. */
#define HF_PG_PROMOTE_QUERY "SELECT pg_catalog.pg_promote(false)"
/** 0 or -HF_EMALF. */
HF_MUST int hf_pg_server_facts_parse(struct hf_slice text, struct hf_pg_server_facts *ret_facts);

/** What a group says of itself (struct holdfast_group). Strings are borrowed for the call. */
struct hf_pg_group_view {
    bool member, quorate;
    uint8_t phase; /* enum holdfast_phase: 0 none, 1 clearing, 2 promoting, 3 opening, 4 running */
    uint64_t epoch;
    const char *address;    /* of the primary's host; "" none */
    const char *fence_text; /* of this reign; "" none */
};

/** Numbers of a fence text (agents.md): sysid, timeline, xmax, after. 0 or -HF_EMALF. */
struct hf_pg_fence {
    uint64_t sysid, xmax;
    uint64_t after; /* the reign before it that was opened, if any was; 0: not said */
    uint32_t timeline;
};
HF_MUST int hf_pg_fence_parse(const char *text, struct hf_pg_fence *ret_fence);

enum hf_pg_endpoint { HF_PG_READ_WRITE, HF_PG_READ_ONLY };

/** "Lost", but nobody knows on which start of the server: a commit in doubt can't be resolved. */
#define HF_PG_INCARNATION_UNKNOWN UINT64_MAX
/** Bytes of the identity of a start. */
#define HF_PG_IDENTITY_MAX (1 + 8 + 4 + 1 + 8 + 1 + 4 * HF_PG_AUX_MAX)

enum hf_pg_seat_state {
    HF_PG_SEAT_NONE,    /* not here */
    HF_PG_SEAT_WAITING, /* in the gate's queue */
    HF_PG_SEAT_LOGIN,   /* the driver logs in at `server` */
    HF_PG_SEAT_CHECK,   /* logged in; ATTACH is about to come */
    HF_PG_SEAT_TAKEN,   /* has a connection to `server` */
};

/** One server connection of a session. The driver reads state, server and incarnation, and may set
 * `reasons` at any time; the rest is private. */
struct hf_pg_seat {
    struct hf_list node;
    enum hf_pg_seat_state state;
    enum hf_pg_endpoint endpoint;
    bool spare;           /* of a planned move: given up quickly, and never in the window */
    bool recovering;      /* lost another one, and has not said recovered() */
    bool moving, gone;    /* MOVE or GONE was told */
    uint32_t server;      /* number; LOGIN, TAKEN */
    uint64_t incarnation; /* of the server, LOGIN, TAKEN */
    uint64_t lost;        /* incarnation of the connection that this one replaces; 0: the first */
    uint32_t reasons;     /* HF_PG_REASON_*: why its session can't be moved */
    uint64_t order;       /* its place in the queue */
    uint64_t at;          /* logged in, in the order of events */
    hf_time since;        /* waiting; then logged in */
    hf_time asked;        /* of the last MOVE */
    hf_time not_before;   /* the next login after one that failed */
};

enum hf_pg_servers_out_kind {
    HF_PG_SERVERS_LOGIN,
    HF_PG_SERVERS_ATTACH,
    HF_PG_SERVERS_REFUSE,
    HF_PG_SERVERS_GONE,
    HF_PG_SERVERS_MOVE,
    HF_PG_SERVERS_FREEZE,
    HF_PG_SERVERS_THAW,
    HF_PG_SERVERS_PROBE,
    HF_PG_SERVERS_RESET,
    HF_PG_SERVERS_PROMOTE,
    HF_PG_SERVERS_EVENT, /* text: for log and events; server may be HF_PG_SERVER_NONE */
};

struct hf_pg_servers_out {
    enum hf_pg_servers_out_kind kind;
    struct hf_pg_seat *seat; /* LOGIN, ATTACH, REFUSE, GONE, MOVE */
    uint32_t server;
    bool warn;
    const char *text; /* REFUSE, GONE, MOVE, EVENT: until the next call */
};

struct hf_pg_servers;

/** 0 or -ENOMEM. Servers are given by hf_pg_servers_set(). */
HF_MUST int hf_pg_servers_create(const struct hf_pg_servers_conf *conf, hf_time now,
                                 struct hf_pg_servers **ret_servers);
/** Seats that are still there must not be used any more. */
void hf_pg_servers_destroy(struct hf_pg_servers *s);
void hf_pg_servers_reconf(struct hf_pg_servers *s, const struct hf_pg_servers_conf *conf,
                          hf_time now);

/**
 * The list is this one now: who has the name (and address) of one before stays what it is; others
 * go, and their seats are told GONE. A server's number stays the same while it is in the list.
 * 0 or -HF_EFULL (then nothing changed).
 */
HF_MUST int hf_pg_servers_set(struct hf_pg_servers *s, const struct hf_pg_server_conf *list,
                              size_t n, hf_time now);
/** Number of the server of this name; HF_PG_SERVER_NONE: none. */
uint32_t hf_pg_servers_find(const struct hf_pg_servers *s, const char *name);

/** The group is so now. */
void hf_pg_servers_group(struct hf_pg_servers *s, const struct hf_pg_group_view *view, hf_time now);

/** A probe was answered. */
void hf_pg_servers_answered(struct hf_pg_servers *s, uint32_t server,
                            const struct hf_pg_server_facts *facts, hf_time now);
/** A probe failed, or the monitor's connection broke without one. sqlstate: of an error of the
 * server, else "". text: why, for people. */
void hf_pg_servers_failed(struct hf_pg_servers *s, uint32_t server, const char *sqlstate,
                          const char *text, hf_time now);

/**
 * A server connection is wanted. seat: in state NONE (zeroed at first). lost: incarnation of the
 * connection that was lost, 0 if there was none; spare: for a planned move.
 */
void hf_pg_servers_need(struct hf_pg_servers *s, struct hf_pg_seat *seat,
                        enum hf_pg_endpoint endpoint, bool spare, uint64_t lost, hf_time now);
/** Logged in; wait for ATTACH. */
void hf_pg_servers_seated(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now);
/** The same with a connection that had logged in before need(), at a start that was known by then,
 * seat->incarnation. A probe begun since need() is enough. */
void hf_pg_servers_seated_before(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now);
/** The login failed for the server's reasons: the seat goes back to its place in the queue. */
void hf_pg_servers_login_failed(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now);
/** What hf_pg_session_attach() is told of the seat's server (all but pid and params). lost: as in
 * need(); for a spare, 0. */
void hf_pg_servers_backend(const struct hf_pg_servers *s, const struct hf_pg_seat *seat,
                           struct hf_pg_backend *ret_backend);
/** The session of this seat has recovered from its loss (or never had one): the window waits for it
 * no more. */
void hf_pg_servers_recovered(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now);
/** The seat is given up, in whichever state; it may be used again with need(). Returns what to call
 * its incarnation in need(), should its session go on elsewhere. */
uint64_t hf_pg_servers_leave(struct hf_pg_servers *s, struct hf_pg_seat *seat, hf_time now);
/** A move that MOVE asked for has ended; seat: that of MOVE, or, moved, the one it has now. */
void hf_pg_servers_move_done(struct hf_pg_servers *s, struct hf_pg_seat *seat, bool moved,
                             hf_time now);

/** Move all sessions away (on), or take sessions again. What can't be moved stays; see info. */
void hf_pg_servers_drain(struct hf_pg_servers *s, uint32_t server, bool on, hf_time now);

/** Begin a planned switchover to the target, or (HF_PG_SERVER_NONE) to whom others promote; given
 * up after `limit`. 0; -EBUSY: one is under way; -EPERM: a target, in a group or a list that is not
 * exclusive; -HF_ENOTREADY: there is no primary, or the target is no standby. */
HF_MUST int hf_pg_servers_switchover(struct hf_pg_servers *s, uint32_t target, hf_time limit,
                                     hf_time now);
/** PROMOTE was refused, for certain: the old primary goes on. */
void hf_pg_servers_promote_failed(struct hf_pg_servers *s, uint32_t server, const char *why,
                                  hf_time now);
/** FREEZE was told: so many read-write sessions have something under way still. 0: all at rest. */
void hf_pg_servers_at_rest(struct hf_pg_servers *s, size_t n_busy, hf_time now);
/** Give it up, if one is under way. */
void hf_pg_servers_switchover_cancel(struct hf_pg_servers *s, hf_time now);
enum hf_pg_switch_state hf_pg_servers_switch_state(const struct hf_pg_servers *s);

/** Deadlines have passed, or may have. */
void hf_pg_servers_step(struct hf_pg_servers *s, hf_time now);
hf_time hf_pg_servers_deadline(const struct hf_pg_servers *s);
/** The next thing to be done; false: nothing more. */
bool hf_pg_servers_next(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *ret_out);

/** What another manager knows this start by: bytes written to buf (HF_PG_IDENTITY_MAX), which stay
 * right as long as the start lasts; 0: too old, or none of ours. */
size_t hf_pg_servers_identity(const struct hf_pg_servers *s, uint64_t incarnation, uint8_t *buf);
/** Our number of the start with this identity: of a server as it is, or of one of the last
 * primaries that were opened; else, and if it is malformed, HF_PG_INCARNATION_UNKNOWN. */
uint64_t hf_pg_servers_known(const struct hf_pg_servers *s, struct hf_slice identity);

/** For consoles, metrics and tests. Strings are borrowed until the next call. */
struct hf_pg_server_info {
    const char *name, *address;
    enum hf_pg_server_state state;
    bool draining;
    const char *why; /* why it is not PRIMARY or STANDBY, or what went wrong last; "" */
    uint16_t weight;
    uint64_t incarnation; /* 0: none seen yet */
    bool fenced;
    uint64_t fence;
    uint64_t sysid;
    uint32_t timeline;
    uint64_t lsn, lag; /* lag: bytes behind the primary, as far as known */
    hf_time since;     /* of the state */
    hf_time answered;  /* the last good answer; 0: never */
    hf_time rtt;       /* of the last probe */
    uint32_t n_sessions, n_logins;
    uint32_t n_stuck; /* draining: sessions that can't be moved */
    uint32_t stuck;   /* ... and why: their HF_PG_REASON_* together */
};
/** Walk: start with *pos = 0; false at the end. ret_server: its number. */
bool hf_pg_servers_info(const struct hf_pg_servers *s, uint32_t *pos, uint32_t *ret_server,
                        struct hf_pg_server_info *ret_info);
uint32_t hf_pg_servers_primary(const struct hf_pg_servers *s); /* or HF_PG_SERVER_NONE */
/** Seats in the queue, and since when the first of them waits (HF_NEVER: none). */
size_t hf_pg_servers_waiting(const struct hf_pg_servers *s, hf_time *ret_since);
/** Why nobody is let in to the read-write endpoint, or "". */
const char *hf_pg_servers_why(const struct hf_pg_servers *s);
const struct hf_pg_servers_counters *hf_pg_servers_counters(const struct hf_pg_servers *s);
