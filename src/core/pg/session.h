/* A client's session: forwards, captures, wraps, moves and replays. Sees bytes, never a socket. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/slice.h"
#include "core/pg/classify.h"

/*
 * One client session on one server connection (C1, C3, C5-C10; X1-X4, X6, X9-X12, X14).
 *
 *                    attach                      server lost, protected
 *        STARTING ----------> RUNNING ------------------------------------> LOST
 *                              |   ^                                          | attach
 *              move asked, at  |   | swapped, or given up                     v
 *              a safe point    v   |                              CLEARING (old backend gone, X6)
 *                             MOVING                                          v
 *               (observe here, restore on the spare)               RESOLVING (commit in doubt, C9)
 *                                                                             v
 *        ENDED <--- unrestorable, killed, client gone             RESTORING (settings, LISTEN,
 * PREPARE)
 *                                                                             v
 *                              RUNNING <------------------------- REPLAYING (the log, hashes
 * compared)
 *
 * What is asked of the server beside the client's own messages is *hidden*: its answers never reach
 * the client. Hidden statements use fast-path calls or simple Queries between the client's units,
 * and the unnamed statement inside an extended unit, which is parsed again for the client
 * afterwards.
 *
 * The log has the client's messages since the transaction began (or since the first unanswered
 * unit, outside one) and a running hash over what was delivered for them. Replaying is feeding the
 * log to the same machine again with delivery suppressed until as many bytes were produced as had
 * been delivered; there the hashes must agree.
 */

/** Why a session, a transaction or a statement is not protected. SESSION reasons are sticky. */
#define HF_PG_REASON_LIST(X)                                                                       \
    X(TEMP, 0, "temporary objects")                                                                \
    X(HOLD_CURSOR, 1, "cursor WITH HOLD")                                                          \
    X(LOAD, 2, "LOAD")                                                                             \
    X(LOCK, 3, "session advisory lock")                                                            \
    X(SEQUENCE_STATE, 4, "currval() or lastval() in use")                                          \
    X(SETSEED, 5, "setseed() in use")                                                              \
    X(LOGIN, 6, "cannot log in again")                                                             \
    X(REPLICATION, 7, "replication connection")                                                    \
    X(UNSEEN, 8, "statement too large or too new to be understood")                                \
    X(SETTINGS, 9, "settings not known")                                                           \
    X(PREPARED, 10, "too many or too large prepared statements")                                   \
    /* of the transaction, or of the statement that runs */                                        \
    X(UTILITY, 16, "utility statement outside a transaction")                                      \
    X(COPY_IN, 17, "COPY FROM STDIN")                                                              \
    X(OUTSIDE, 18, "effects outside the database")                                                 \
    X(LOG_FULL, 19, "transaction_log_max exceeded")                                                \
    X(MEMORY, 20, "max_memory exceeded")                                                           \
    X(MULTIPLE, 21, "several commit points in one Query")                                          \
    X(SYNC_COMMIT, 22, "synchronous_commit below on")                                              \
    X(DISABLED, 23, "protect_writes is off")                                                       \
    X(SELF, 24, "statement looks at itself")                                                       \
    X(FUNCTION_CALL, 25, "fast-path function call outside a transaction")                          \
    X(FAILED, 26, "the transaction has failed")
enum hf_pg_reason {
#define HF_PG_REASON_ENUM(name, bit, text) HF_PG_REASON_##name = (int)(1u << (bit)),
    HF_PG_REASON_LIST(HF_PG_REASON_ENUM)
#undef HF_PG_REASON_ENUM
};
#define HF_PG_REASONS_STICKY 0x0000ffffu
/** Text of one reason bit; static. */
const char *hf_pg_reason_text(uint32_t bit);

enum hf_pg_state {
    HF_PG_STARTING,
    HF_PG_RUNNING,
    HF_PG_MOVING,
    HF_PG_LOST,
    HF_PG_CLEARING,
    HF_PG_RESOLVING,
    HF_PG_RESTORING,
    HF_PG_REPLAYING,
    HF_PG_ENDED,
};
const char *hf_pg_state_name(enum hf_pg_state s);

enum hf_pg_side {
    HF_PG_CLIENT = 0,
    HF_PG_SERVER = 1,
    HF_PG_SPARE = 2, /* a planned move's new connection, until it is the server */
};

/** What is told once when it happens: for counters, events and logs. */
#define HF_PG_NOTE_LIST(X)                                                                         \
    X(REQUEST, "a request was answered; a: ns it took")                                            \
    X(TRANSACTION, "a transaction ended; a: ns it took, b: 1 it committed writes")                 \
    X(MOVED, "planned move done; a: ns that the client could have waited")                         \
    X(MOVE_FAILED, "planned move given up; text: why")                                             \
    X(RECOVERED, "on another server connection after a loss; a: ns since the loss")                \
    X(REPLAYED, "an open transaction was replayed; a: units, b: bytes compared")                   \
    X(REPLAY_FAILED, "40001; text: why")                                                           \
    X(IN_DOUBT, "a commit was interrupted; a: xid")                                                \
    X(COMMITTED, "... and had been committed; a: xid")                                             \
    X(ABORTED, "... and had not been; it is replayed; a: xid")                                     \
    X(UNRESOLVED, "... and its outcome can't be known: 08007; a: xid")                             \
    X(LOST_UNPROTECTED, "ended by 57P01, or the statement by 08007; text: why")                    \
    X(GAP, "notifications may have been missed; a: channels")                                      \
    X(UNPROTECTED, "protection changed; a: reasons (HF_PG_REASON_*)")                              \
    X(ENDED, "text: why")
enum hf_pg_note {
#define HF_PG_NOTE_ENUM(name, text) HF_PG_NOTE_##name,
    HF_PG_NOTE_LIST(HF_PG_NOTE_ENUM)
#undef HF_PG_NOTE_ENUM
};

struct hf_pg_session_ops {
    /* Send bytes (borrowed for the call); slices of the input of the running call need no copy if
     * the driver sends before it returns to the input's owner. Order per side is kept. */
    void (*send)(void *arg, enum hf_pg_side to, struct hf_slice bytes);
    /* A logged-in server connection is wanted: HF_PG_SERVER after a loss (verified by a round trip
     * begun after it, X6), HF_PG_SPARE for a planned move; the driver calls hf_pg_session_attach()
     * or, for the spare, hf_pg_session_no_spare(). Asked once, until attached or dropped. */
    void (*need)(void *arg, enum hf_pg_side side);
    /* This server connection is not used any more: send Terminate after what was sent, close. A
     * pending need of that side is off. */
    void (*drop)(void *arg, enum hf_pg_side side);
    /* The spare is the server now; the old one has been dropped before. */
    void (*swap)(void *arg);
    /* The session is over: close the client after what was sent to it. Last call. */
    void (*end)(void *arg);
    void (*note)(void *arg, enum hf_pg_note note, uint64_t a, uint64_t b, const char *text);
};

struct hf_pg_session_conf { /* shared by all sessions, replaced whole at reload */
    bool protect_writes;
    bool listen_close;       /* listen_gap = close */
    uint32_t rehearse_moves; /* 0: never */
    size_t log_max;          /* bytes of a transaction's log */
    size_t prepared_max;     /* bytes of a session's prepared statements */
    hf_time hold_timeout, replay_timeout, move_timeout;
};

/** Memory of all sessions together, counted by them (logs, held bytes, prepared statements). */
struct hf_pg_memory {
    size_t used, max;
};

struct hf_pg_session_args {
    const struct hf_pg_session_conf *conf; /* borrowed; what changes there is in force */
    struct hf_pg_memory *memory;           /* borrowed */
    struct hf_pg_classifier *classifier;   /* borrowed: of the session's database */
    struct hf_slice user;                  /* as authenticated; copied */
    bool replication;                      /* passed through, unprotected */
    bool login_again;                      /* false: sticky reason LOGIN */
    bool leave_idle; /* loaded: an old server process that had nothing to do is not ended first */
    uint32_t cancel_pid;        /* 0: the first backend's own (R12) */
    struct hf_slice cancel_key; /* what the client gets in BackendKeyData; copied */
    uint64_t seed;              /* hashes, jitter */
};

/** A server connection that has logged in and is idle. */
struct hf_pg_backend {
    uint64_t incarnation; /* of the server: another number after each start and promotion */
    /* Its process can be told from a later one by our end of the connection (client_port in
     * pg_stat_activity; 0: not known), or, if something between the two translates it, by when its
     * login was done (0: now), as far as the server's clock goes on meanwhile. */
    uint32_t pid;
    uint16_t port;
    hf_time since;
    struct hf_slice params; /* ParameterStatus as name NUL value NUL ...; borrowed for the call */
    /* What is known of the server that was lost, against this one (X3): */
    bool same;   /* the same incarnation: its backends may still be there */
    bool fenced; /* another one, and fence is the first transaction id that was not assigned
                  * when it took over */
    uint64_t fence;
    bool exclusive; /* sequences may be rewound now: nobody else writes (X8) */
};

struct hf_pg_session;

/** 0 or -ENOMEM. The ops' arg is borrowed. The first thing asked is need(HF_PG_SERVER). */
HF_MUST int hf_pg_session_create(const struct hf_pg_session_args *args,
                                 const struct hf_pg_session_ops *ops, void *arg, hf_time now,
                                 struct hf_pg_session **ret_session);
/** Free; nothing is called back. */
void hf_pg_session_destroy(struct hf_pg_session *s);

/**
 * Bytes from the client: all that came and was not consumed, at least one message's head to be of
 * use. Returns how many bytes were consumed; the rest is offered again, with more behind it, when
 * more has come or after any other call if hf_pg_session_wants_client(). A message is waited for
 * whole up to HF_PG_WHOLE_MAX; data messages (CopyData) stream.
 */
size_t hf_pg_session_from_client(struct hf_pg_session *s, struct hf_slice bytes, hf_time now);
/** Does it take client bytes now? If not, leave them in the socket (after HF_PG_WHOLE_MAX). */
bool hf_pg_session_wants_client(const struct hf_pg_session *s);
/** Bytes from the server connection or the spare; consumed likewise, but what is left is offered
 * again at once until nothing of it is consumed: a move ends in the middle of the spare's, and what
 * is behind that is the server's. */
size_t hf_pg_session_from_server(struct hf_pg_session *s, enum hf_pg_side side,
                                 struct hf_slice bytes, hf_time now);
#define HF_PG_WHOLE_MAX ((size_t)1 << 20)

/** The client closed or broke its connection: the session ends (open transaction rolled back by
 * dropping the server connection); with end() a little later if an autocommit write of its must be
 * committed first, as the server would have done. */
void hf_pg_session_client_gone(struct hf_pg_session *s, hf_time now);
/** The connection of that side was lost, or its server is known to be dead. */
void hf_pg_session_server_gone(struct hf_pg_session *s, enum hf_pg_side side, const char *why,
                               hf_time now);
/** Answers need(). */
void hf_pg_session_attach(struct hf_pg_session *s, enum hf_pg_side side,
                          const struct hf_pg_backend *backend, hf_time now);
/** The spare can't be had now. */
void hf_pg_session_no_spare(struct hf_pg_session *s, const char *why, hf_time now);
/** No server can be had, or the login was refused with this error: the client gets it as FATAL. */
void hf_pg_session_refuse(struct hf_pg_session *s, const char *sqlstate, const char *message,
                          const char *detail, hf_time now);

/** Move to another server connection at the next safe point; given up after move_timeout. */
void hf_pg_session_move(struct hf_pg_session *s, hf_time now);
/** X15: from now on no new transaction begins (held), until hf_pg_session_thaw(). true: at rest
 * already, that is, nothing is under way on the server. */
bool hf_pg_session_freeze(struct hf_pg_session *s, hf_time now);
void hf_pg_session_thaw(struct hf_pg_session *s, hf_time now);
/** End it: FATAL with this SQLSTATE. Never replayed. */
void hf_pg_session_kill(struct hf_pg_session *s, const char *sqlstate, const char *message,
                        hf_time now);

/**
 * A CancelRequest for this session. true: forward it now to the server connection, and call
 * hf_pg_session_cancelled() when the server has closed the cancel connection (until then nothing
 * new goes to the server, X14). false: there is nothing to cancel, or a commit is outstanding (X4).
 */
bool hf_pg_session_cancel(struct hf_pg_session *s, hf_time now);
void hf_pg_session_cancelled(struct hf_pg_session *s, hf_time now);

/** Deadlines have passed, or may have: call at hf_pg_session_deadline(). */
void hf_pg_session_step(struct hf_pg_session *s, hf_time now);
hf_time hf_pg_session_deadline(const struct hf_pg_session *s);

/**
 * What another process, or host, needs to go on with the session (C5, X1): sections and items as
 * core/pair/store.h keeps them. hf_pg_session_save() tells what has changed since the last time,
 * all the first time; call it before what the core sent is let out. hf_pg_session_load() there
 * makes a session that has lost its server connection just now. Formats are of one version of this
 * program.
 */
enum hf_pg_section {
    HF_PG_SECTION_STATE,    /* small things */
    HF_PG_SECTION_LOG,      /* grows at the end, is cut at the front */
    HF_PG_SECTION_PREPARED, /* items by number: protocol-level statements */
    HF_PG_SECTION_OPS,      /* what is special in the requests under way */
    HF_PG_SECTION_IDS,      /* values of sequences that were shown */
    HF_PG_SECTION_GIVEN,    /* ... before the loss */
    HF_PG_SECTION_TEXTS,    /* the first of the buffers: session_save.c */
    HF_PG_SECTION_PORTS = 19,
    HF_PG_SECTION_MAX
};
struct hf_pg_save_ops {
    void (*put)(void *arg, uint8_t section, struct hf_slice bytes);
    void (*append)(void *arg, uint8_t section, struct hf_slice bytes);
    void (*cut)(void *arg, uint8_t section, size_t n);
    void (*set)(void *arg, uint8_t section, struct hf_slice name, struct hf_slice bytes);
    void (*unset)(void *arg, uint8_t section, struct hf_slice name);
};
void hf_pg_session_save(struct hf_pg_session *s, const struct hf_pg_save_ops *ops, void *arg);
/** The next save tells everything: for a peer that has nothing. */
void hf_pg_session_save_all(struct hf_pg_session *s);
/**
 * May all that was sent to the server and is not answered be let out before a peer has it (X1)? It
 * is what a loss would make the session do again anyway: repeatable, or in a transaction whose end
 * was not sent. The peer must know of the server connection (the server's backend ends by that,
 * X6), and what it has must be offered again by the client: so it isn't acknowledged. *ret_asked:
 * the client has sent whole requests and waits for their answers.
 */
bool hf_pg_session_ahead(const struct hf_pg_session *s, bool *ret_asked);

/** What was saved. item: the next one after *pos, which begins as NULL; false: no more. */
struct hf_pg_saved {
    struct hf_slice (*section)(void *arg, uint8_t section);
    bool (*item)(void *arg, uint8_t section, const void **pos, struct hf_slice *ret_name,
                 struct hf_slice *ret_bytes);
    void *arg;
    hf_time clock_offset; /* this clock minus that of who saved */
};
/** 0, -ENOMEM, or -HF_E* for bytes that no session gave. args: as at creation, but for seed,
 * cancel_pid and replication, which were saved. As there, need(HF_PG_SERVER) is asked; or the
 * session ends at once, as a loss can end it. */
HF_MUST int hf_pg_session_load(const struct hf_pg_session_args *args,
                               const struct hf_pg_session_ops *ops, void *arg,
                               const struct hf_pg_saved *saved, hf_time now,
                               struct hf_pg_session **ret_session);
/** Just loaded: the server process that it had, at the start that it was on: pid, port and since
 * (on our clock) of *ret_backend, the others are 0. false: none. */
bool hf_pg_session_former(const struct hf_pg_session *s, struct hf_pg_backend *ret_backend);

/** For consoles and tests. */
struct hf_pg_session_info {
    enum hf_pg_state state;
    char tx;          /* as in ReadyForQuery: I, T, E */
    bool active;      /* a request is under way */
    bool at_rest;     /* could be moved now */
    uint32_t reasons; /* HF_PG_REASON_* in force */
    uint64_t n_requests, n_transactions, n_moves, n_recoveries, n_replays;
    size_t log_bytes;
    uint32_t n_prepared, n_listens, n_settings;
    uint64_t xid;  /* of the open transaction, when known */
    hf_time since; /* of the state, or of the request under way */
};
void hf_pg_session_info(const struct hf_pg_session *s, struct hf_pg_session_info *ret_info);
