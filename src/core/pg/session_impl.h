/* Inside of the session core: its state, and what its files do for each other. */
#pragma once

#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "base/wr.h"
#include "codec/pg_v3.h"
#include "core/pg/session.h"

/* What may be run once more without harm when it was not answered: it only sets the session's
 * own state, which is then as it would have been. A READ besides needs the catalog. */
#define DOES_AGAIN                                                                                 \
    (HF_PG_DOES_READ | HF_PG_DOES_SET | HF_PG_DOES_LISTEN | HF_PG_DOES_PREPARE |                   \
     HF_PG_DOES_ISOLATION | HF_PG_DOES_BEGIN | HF_PG_DOES_ROLLBACK | HF_PG_DOES_SYNC_COMMIT)
/* After these the settings are looked at ... */
#define DOES_LOOK                                                                                  \
    (HF_PG_DOES_SET | HF_PG_DOES_LISTEN | HF_PG_DOES_PREPARE | HF_PG_DOES_DISCARD |                \
     HF_PG_DOES_HOLD | HF_PG_DOES_TEMP | HF_PG_DOES_FUNCTION | HF_PG_DOES_UNKNOWN |                \
     HF_PG_DOES_LOCK)
/* ... and with these they have changed, be it for a transaction. */
#define DOES_CHANGE                                                                                \
    (HF_PG_DOES_SET | HF_PG_DOES_LISTEN | HF_PG_DOES_PREPARE | HF_PG_DOES_DISCARD |                \
     HF_PG_DOES_ISOLATION)

#define UNITS_MAX 32   /* requests under way; more wait in the socket */
#define OPS_MAX 4096   /* Parse, Close, Describe under way */
#define PORTALS_MAX 64 /* named portals whose class is remembered */
#define PARAMS_MAX 4096
#define ANSWER_MAX (1u << 20) /* of a hidden query */
#define IDS_MAX (256u << 10)  /* of a transaction: 16384 values of sequences */

/* What is under way on the server: ended by its ReadyForQuery, but for an extended one that has no
 * Sync yet. */
enum unit_kind { UNIT_QUERY = 1, UNIT_EXTENDED, UNIT_CALL, UNIT_HIDDEN };

/* What a hidden unit is for. */
enum hidden {
    HID_NONE,
    HID_XID,         /* fast path: transaction id of the open block */
    HID_SYNC_COMMIT, /* fast path: synchronous_commit */
    HID_PEEK,        /* before the COMMIT of a block: token and settings */
    HID_COMMIT,      /* of a wrapped Query */
    HID_ROLLBACK,    /* of a wrapped Query that failed */
    HID_OBSERVE,     /* settings, LISTENs, ... as the server has them */
    HID_MARKER,      /* X4: waits until all mirrors have what was committed before */
    HID_STEP,        /* a step of recovery, see session_recover.c */
};

struct unit {
    enum unit_kind kind;
    enum hidden hidden;
    bool ended;      /* Query, FunctionCall or Sync was sent */
    bool failed;     /* an ErrorResponse came */
    bool wrapped;    /* BEGIN;...; was put around it ... */
    bool split;      /* ... no, it has its own, and its COMMIT was taken off */
    bool repeatable; /* running it once more has no effect but the one */
    bool held;       /* its last CommandComplete waits for ReadyForQuery (commit points) */
    bool bare_again; /* it can't run in a block after all: once more, without */
    bool flushed;    /* a Flush of ours asked for what is there */
    bool committed;  /* something in it was committed: it must not be run again */
    uint8_t tail;    /* answers of the hidden token query that was put before its Sync */
    uint32_t does;
    uint32_t reasons;  /* why it isn't protected while it runs */
    uint32_t n_sent;   /* extended: messages that get an answer ... */
    uint32_t n_done;   /* ... and how many did; Query: CommandCompletes */
    uint32_t n_client; /* of these, up to here the client's; then hidden ones */
    uint32_t ticket;   /* Query: of its INSERT, see session_ids.c; 0: none */
    uint32_t tickets;  /* given before it */
    size_t log_len;    /* its bytes of the log */
    hf_time since;
};

/* What a peer has of the session: session_save.c. */
struct saved {
    uint64_t hash[HF_PG_SECTION_MAX]; /* of sections */
    size_t log, log_cut;              /* bytes of the log that it has; that it is to drop */
    uint64_t refeeds;                 /* collected so far: what is in refeed does not change */
    bool prepared_changed;            /* look which items are to be set */
    uint32_t last_id;
    struct hf_buf gone; /* ids of items that are to go */
};

/* A prepared statement of the protocol. */
struct prepared {
    struct hf_list link; /* in order of Parse; unlinked: being closed, or unnamed */
    uint8_t *body;       /* owned: as in Parse: name NUL text NUL types */
    size_t body_len;
    struct hf_slice name;            /* in body */
    const struct hf_pg_class *class; /* ref */
    bool described;                  /* shape is what the client was told */
    uint64_t shape[2];
    uint32_t unit;       /* number of the unit that parsed it */
    uint32_t id;         /* of the item that a peer has; 0: none */
    uint64_t told;       /* hash of what it was told besides the body */
    struct saved *saved; /* of its session */
};

/* Something special about the n-th message of an extended unit, until it is answered. */
enum op_kind { OP_PARSE = 1, OP_CLOSE, OP_REPARSE, OP_DESCRIBE, OP_COMMIT, OP_INSERT };
struct op {
    enum op_kind kind;
    uint32_t unit;    /* number of the unit */
    uint32_t ordinal; /* from 1 */
    uint32_t ticket;  /* OP_INSERT */
    struct prepared *p;
    struct prepared *before; /* OP_PARSE: the unnamed statement that it takes the place of; owned */
    bool before_lost;
};

/* An INSERT ... RETURNING that was sent, and what is in its rows; by its ticket. */
struct id_source {
    const struct hf_pg_class *class; /* ref */
    uint16_t index, format;
};
struct id_seen {
    uint32_t ticket;
    int64_t value;
};
/* Values of sequences that the client was shown in this transaction (X8). */
struct ids {
    struct hf_buf sources, seen; /* struct id_source of the tickets from 1 on, struct id_seen */
};

struct portal {
    struct hf_list link;
    const struct hf_pg_class *class; /* ref */
    size_t name_len;
    uint8_t name[];
};

enum commit_phase {
    COMMIT_NONE,
    COMMIT_ASKED, /* token asked for; the client's message waits in its buffer */
    COMMIT_KNOWN, /* token known; the message may go */
    COMMIT_SENT,  /* in doubt until answered */
};
enum commit_kind { COMMIT_WRAP = 1, COMMIT_SYNC, COMMIT_QUERY, COMMIT_EXECUTE };

/* May a block of transaction be open where the next message comes in? */
enum block { BLOCK_NO, BLOCK_YES, BLOCK_UNSURE };

/* Steps of recovery and of a move, in order. */
enum step {
    STEP_NONE,
    STEP_CLEAR,    /* terminate the old backend */
    STEP_RESOLVE,  /* ask for the transaction's status */
    STEP_MARK,     /* X4: committed, now is it replicated? */
    STEP_SETTINGS, /* restore: settings, LISTEN, SQL PREPARE */
    STEP_SINCE,    /* restore: what came after the last look at them */
    STEP_PREPARE,  /* restore: protocol-level statements */
    STEP_IDS,      /* sequences: beyond what is given again */
    STEP_LISTEN,   /* move: marker on the old connection */
    STEP_MARKER,   /* move: marker sent by the spare */
    STEP_UNLISTEN, /* move: marker seen on both */
    STEP_BLOCK,    /* a failed transaction: BEGIN */
    STEP_FAIL,     /* ... and an error in it */
};

/* Answer of a hidden unit. */
struct answer {
    struct hf_buf rows; /* DataRow bodies, each after its length (4 bytes) */
    char sqlstate[6];   /* "": no error */
    char message[160];
    uint64_t value;     /* FunctionCall: int8 result; 0: NULL */
    struct hf_buf text; /* ... or text result */
};

/* An error that the client gets instead of its answers. */
struct verdict {
    bool set;
    char sqlstate[6];
    char message[160];
    char detail[200];
};

struct hf_pg_session {
    const struct hf_pg_session_conf *conf;
    struct hf_pg_memory *memory;
    struct hf_pg_classifier *classifier;
    struct hf_pg_session_ops ops;
    void *arg;
    char *user;
    uint8_t *cancel_key;
    size_t cancel_key_len;
    uint32_t cancel_pid;
    uint64_t seed;
    hf_time now;

    enum hf_pg_state state;
    hf_time since;
    hf_time deadline; /* of the state */
    hf_time again;    /* next try of a step that polls */
    uint32_t sticky;  /* HF_PG_REASON_*: of the session */
    uint32_t passing; /* ... of the transaction */
    uint32_t told;    /* last reasons noted */

    /* client side */
    char tx;           /* ReadyForQuery as the client knows it */
    enum block block;  /* where the next message goes */
    bool orphan;       /* the client has gone; what it had begun outside a block ends as it would */
    bool copy_wait;    /* COPY FROM STDIN was sent: whether it begins decides what follows */
    uint32_t told_pid; /* as the client knows it from BackendKeyData */
    bool copying;      /* between CopyInResponse and its end */
    bool skipping;     /* extended error of our own: discard until Sync */
    bool cancelling, frozen, replication, login_again, started;
    bool leave_idle;      /* until it has recovered from what was loaded */
    size_t client_stream; /* bytes of a message still to be passed on unseen */
    bool client_stream_drop;
    struct hf_slice forward; /* run of client bytes to pass on */

    /* under way */
    struct unit unit[UNITS_MAX];
    uint32_t unit_head, n_units, unit_no; /* unit_no: of the head */
    struct op *op;                        /* owned */
    size_t op_head, n_ops, ops_room;

    /* transaction */
    struct hf_buf log;
    size_t log_block; /* of the log: units of the open block that are done */
    bool log_full;
    bool writes; /* something in it was not repeatable */
    bool xid_asked, savepoints;
    uint64_t xid; /* 0: not known, or none */
    hf_time tx_since;
    struct hf_hash_stream hash; /* over what was delivered for the log: hf_pg_hash_get() */
    struct hf_slice unhashed;   /* ... delivered since the last flush, not in it yet */
    size_t log_counted;         /* in memory->used */

    struct ids ids;                   /* this run's */
    uint32_t tickets, tickets_before; /* given in all, and before the transaction */
    uint32_t portal_ticket;           /* of the unnamed portal */
    bool ids_off;                     /* names in it may mean what they don't outside it */

    /* commit point */
    enum commit_phase commit;
    enum commit_kind commit_kind;
    uint64_t commit_xid;
    bool commit_more;     /* COMMIT was not alone in its Query */
    bool commit_chain;    /* ... AND CHAIN */
    bool commit_prepare;  /* it is PREPARE TRANSACTION */
    bool commit_deferred; /* waits for a cancel that is under way */
    bool unreplicated;    /* X4: completed with a warning */
    struct hf_buf held;   /* CommandComplete that waits */
    char held_status;     /* ReadyForQuery that waits for the marker, or the look */

    /* server side */
    size_t server_stream; /* bytes of a message still to be passed on, and how */
    bool server_stream_hide;
    struct hf_slice ready;   /* ReadyForQuery being looked at: it ends a run of bytes */
    struct hf_slice deliver; /* run of server bytes to pass on */
    uint64_t incarnation;
    uint32_t pid;
    uint16_t port;
    hf_time attached_at;
    bool worker_lost;    /* the request under way is repeated because of a parallel worker's end */
    struct hf_buf fatal; /* a FATAL ErrorResponse, until it is known what it means */
    char fatal_state[6];

    /* replay */
    struct hf_buf refeed;
    size_t refeed_at;
    uint64_t replay_left; /* bytes that were delivered before and must come again the same */
    uint64_t replay_total, replay_hash[2];
    uint64_t replay_units;
    struct ids given; /* what the lost run's INSERTs gave */
    bool given_due;   /* another incarnation came since: its sequences may be behind that */
    bool failing;     /* the replay gave something else: nothing goes on until it is dealt with */
    bool doubt;       /* a commit point was sent */
    bool committed;   /* ... and it had been committed */
    bool chain_block; /* ... AND CHAIN: the next transaction has failed before it began */
    bool rolled_back; /* a ROLLBACK was under way: no need to replay what it undoes */
    bool gap_due, aside_due; /* to be told when the message that was cut is whole */
    bool error_told;         /* the request under way has had its ErrorResponse */
    bool rolled_told;        /* ... and its CommandComplete was delivered */
    bool commit_waiting;     /* what the client waits for is the end of its block */
    bool mid_message;        /* the client had part of a message when the server was lost */
    bool impatient;          /* it has sent something meanwhile */
    char tx_before;          /* as the client knows it, while tx is the replay's */
    uint32_t lost_pid;
    uint16_t lost_port;
    hf_time lost_attached_at;
    hf_time lost_at;
    struct verdict verdict;
    uint32_t n_waiting; /* requests of the client that are not answered */
    bool n_open;        /* it has sent part of an extended one */

    /* recovery and moves */
    enum step step;
    enum hf_pg_side step_side;
    struct answer answer;
    struct prepared *step_prepared; /* next to be answered */
    struct hf_hash_stream step_shape;
    size_t since_at;          /* in prepares, then in since_snapshot */
    struct hf_buf new_status; /* ParameterStatus of the connection being made ready */
    struct hf_buf early;      /* notifications that the spare got before the change */
    bool spare_idle;
    hf_time spare_at;
    struct hf_pg_backend backend; /* that was attached last; params not valid */
    bool move_asked, move_looking, needed[3];
    bool marker_old, marker_new;
    hf_time move_deadline, move_began;
    uint32_t since_move; /* requests, for rehearse_moves */
    bool spare_attached;

    /* captured state */
    struct hf_buf snapshot;       /* SQL that makes a new connection like this one */
    struct hf_buf prepares;       /* ... SQL PREPAREs, each a Query of its own: NUL-terminated */
    struct hf_buf since_snapshot; /* texts, NUL-terminated, executed after it */
    struct hf_buf block_since;    /* texts of the open block that will follow it */
    bool block_hard;              /* ... or it did what can't be run again */
    struct hf_buf custom;         /* names of custom settings, NUL-terminated */
    struct hf_buf listens;        /* channels, NUL-terminated */
    struct hf_buf status;         /* ParameterStatus as the client knows it: name NUL value NUL */
    bool unreadable;              /* ... its client_encoding: what texts say can't be told */
    bool look;                    /* at the settings, at the next chance */
    bool block_look;              /* ... when the open block has ended */
    bool look_hard;               /* what changed them can't be run again */
    bool settling;                /* the request is done; its ReadyForQuery waits for a look */
    bool peeking, peeked;         /* the token query looks, too; and all was as before */
    bool block_change;            /* the open block had DOES_CHANGE */
    bool seen_known;
    uint64_t seen[2]; /* hash of what the last look saw */
    bool looking, looking_hard;
    size_t since_mark;   /* of since_snapshot: what the look under way has seen */
    uint8_t sync_commit; /* 0 unknown, 1 on or better, 2 below */
    uint32_t n_settings, n_listens;
    bool locks;

    struct hf_map prepared; /* by name */
    struct hf_list prepared_list;
    struct hf_list closed_list; /* closed by the open transaction: it would need them again */
    uint32_t log_unit;          /* number of the first unit in the log */
    size_t prepared_bytes;
    struct hf_map sql_prepared;             /* struct prepared, body = name */
    struct prepared *unnamed;               /* owned */
    bool unnamed_lost;                      /* clobbered by a hidden query */
    const struct hf_pg_class *portal_class; /* of the unnamed portal; ref */
    struct hf_list portals;
    uint32_t n_portals;

    uint64_t n_requests, n_transactions, n_moves, n_recoveries, n_replays;

    struct saved saved;
};

/* --- session.c --- */
void hf_pg_enter_state(struct hf_pg_session *s, enum hf_pg_state to);
void hf_pg_note(struct hf_pg_session *s, enum hf_pg_note note, uint64_t a, uint64_t b,
                const char *text);
/* Tell the change of reasons, if there is one. */
void hf_pg_tell_reasons(struct hf_pg_session *s);
/* The transaction is over: what it did to the session stands, or is undone. */
void hf_pg_settle_block(struct hf_pg_session *s, bool committed);
/* Feed the log, or tell the driver that client bytes are welcome again. */
void hf_pg_pump(struct hf_pg_session *s);
void hf_pg_end(struct hf_pg_session *s, const char *why);
/* FATAL to the client, then the end. */
void hf_pg_fatal(struct hf_pg_session *s, const char *sqlstate, const char *message,
                 const char *detail);
bool hf_pg_at_rest(const struct hf_pg_session *s);
/* The client has gone: end, or first let the server commit what was wrapped, as it would have. */
void hf_pg_leave(struct hf_pg_session *s, const char *why);

/* --- units and operations: session_unit.c --- */
struct unit *hf_pg_unit_push(struct hf_pg_session *s, enum unit_kind kind);
struct unit *hf_pg_unit_head(struct hf_pg_session *s);
struct unit *hf_pg_unit_last(struct hf_pg_session *s);
struct unit *hf_pg_unit_at(struct hf_pg_session *s, uint32_t i);
/* Before the head: its answer comes first. */
struct unit *hf_pg_unit_push_front(struct hf_pg_session *s);
void hf_pg_unit_pop(struct hf_pg_session *s);
HF_MUST int hf_pg_op_push(struct hf_pg_session *s, enum op_kind kind, struct prepared *p);
/* The op of the head unit's n-th message, or NULL. */
struct op *hf_pg_op_at(struct hf_pg_session *s, uint32_t ordinal);
void hf_pg_op_pop(struct hf_pg_session *s);
/* The unit failed or is gone: undo what its messages would have done. unit: its number. */
void hf_pg_ops_revert(struct hf_pg_session *s, uint32_t unit);

struct prepared *hf_pg_prepared_create(struct hf_pg_session *s, struct hf_slice body,
                                       struct hf_slice name, const struct hf_pg_class *class);
void hf_pg_prepared_destroy(struct prepared *p);
struct prepared *hf_pg_prepared_find(struct hf_pg_session *s, struct hf_slice name);
void hf_pg_prepared_forget_all(struct hf_pg_session *s);
/* Closed: gone when the transaction is over. */
void hf_pg_prepared_close(struct hf_pg_session *s, struct prepared *p);
void hf_pg_closed_forget(struct hf_pg_session *s);
/* As it was when the log began. */
void hf_pg_prepared_rewind(struct hf_pg_session *s);
void hf_pg_prepared_remove(struct hf_pg_session *s, struct prepared *p);
void hf_pg_sql_prepared_set(struct hf_pg_session *s, struct hf_slice name,
                            const struct hf_pg_class *class);
const struct hf_pg_class *hf_pg_portal_class(struct hf_pg_session *s, struct hf_slice name);
void hf_pg_portal_bind(struct hf_pg_session *s, struct hf_slice name,
                       const struct hf_pg_class *class);
void hf_pg_portals_forget(struct hf_pg_session *s);

/* --- to client and server: session_flow.c --- */
void hf_pg_forward(struct hf_pg_session *s, struct hf_slice bytes); /* client -> server, a run */
void hf_pg_forward_flush(struct hf_pg_session *s);
void hf_pg_inject(struct hf_pg_session *s, struct hf_slice bytes);  /* ours -> server */
void hf_pg_deliver(struct hf_pg_session *s, struct hf_slice bytes); /* server -> client, hashed */
void hf_pg_deliver_aside(struct hf_pg_session *s, struct hf_slice bytes); /* not hashed */
void hf_pg_deliver_error(struct hf_pg_session *s, struct hf_slice message);
void hf_pg_deliver_ready(struct hf_pg_session *s, char status);
/* ReadyForQuery of our own: with the status that the client knows, not hashed. */
void hf_pg_tell_ready(struct hf_pg_session *s);
void hf_pg_deliver_flush(struct hf_pg_session *s);
/* Has the client (once all is flushed) part of a message, so that it can't be told anything? */
bool hf_pg_mid_message(const struct hf_pg_session *s);
/* Of what was delivered for the log; returns how many bytes that is. */
uint64_t hf_pg_hash_get(struct hf_pg_session *s, uint64_t ret_hash[2]);
void hf_pg_hash_reset(struct hf_pg_session *s);
/* Log a client message as part of the last unit. */
void hf_pg_log(struct hf_pg_session *s, struct hf_slice message);
/* The transaction ended and its ReadyForQuery was delivered: forget n bytes of the log. */
void hf_pg_log_trim(struct hf_pg_session *s, size_t n);
void hf_pg_log_drop(struct hf_pg_session *s, uint32_t reason);

/* --- the client's messages: session_front.c --- */
size_t hf_pg_front(struct hf_pg_session *s, struct hf_slice in);
bool hf_pg_front_held(const struct hf_pg_session *s);
/* The transaction ended as the client sees it. */
void hf_pg_transaction_over(struct hf_pg_session *s, bool committed);
/* COMMIT or ROLLBACK of a wrapped Query, unless a cancel is under way. */
void hf_pg_end_wrapped(struct hf_pg_session *s);
/* The wrapped Query at the head has been rolled back: once more as the client sent it. */
void hf_pg_run_bare(struct hf_pg_session *s);
/* BEGIN; before a wrapped Query: positions in errors are that many characters too high. */
#define BEGIN_LEN 6

/* --- the server's messages: session_back.c --- */
size_t hf_pg_back(struct hf_pg_session *s, struct hf_slice in);

/* --- hidden requests: session_hidden.c --- */
/* Classify a text of the client's; owned as hf_pg_classify()'s. */
const struct hf_pg_class *hf_pg_text_class(struct hf_pg_session *s, struct hf_slice sql);
void hf_pg_ask_xid(struct hf_pg_session *s, bool assign);
void hf_pg_ask_sync_commit(struct hf_pg_session *s);
void hf_pg_ask_query(struct hf_pg_session *s, enum hidden purpose, struct hf_slice sql);
/* apart: in a portal of its own, since the client's unnamed one is needed. How many answers. */
uint8_t hf_pg_ask_token_tail(struct hf_pg_session *s, bool assign, bool apart);
void hf_pg_look(struct hf_pg_session *s);
/* Is the token query of a transaction whose last request does this to look at the settings, too?
 * Then nothing needs to be looked at after its commit if they are as they were. */
bool hf_pg_peek_begin(struct hf_pg_session *s, uint32_t does);
/* The SELECT of the token, with or without the look, without a NUL; room: for the text. assign: the
 * transaction is to get an id. */
struct hf_slice hf_pg_token_sql(struct hf_pg_session *s, bool assign, struct hf_buf *room);
/* Its answer; 0: the transaction has no id. */
uint64_t hf_pg_token_answer(struct hf_pg_session *s);
void hf_pg_observed(struct hf_pg_session *s);
void hf_pg_answer_reset(struct hf_pg_session *s);
/* First value of the first row; p == NULL if there is none. */
struct hf_slice hf_pg_answer_value(const struct hf_pg_session *s);
void hf_pg_put_literal(struct hf_buf *b, struct hf_slice s); /* E'...' */
void hf_pg_put_ident(struct hf_buf *b, struct hf_slice s);
void hf_pg_status_set(struct hf_pg_session *s, struct hf_slice name, struct hf_slice value);
/* Tell the client the parameters that differ from what it knows. params: as in struct
 * hf_pg_backend. */
void hf_pg_status_compare(struct hf_pg_session *s, struct hf_slice params);

/* --- values of sequences: session_ids.c --- */
/* An INSERT goes out: its ticket, or 0 if it isn't one that is remembered. bind: the body of the
 * Bind whose result formats count; empty: text. */
uint32_t hf_pg_ids_ticket(struct hf_pg_session *s, const struct hf_pg_class *class,
                          struct hf_slice bind);
/* The ticket that rows which come now belong to, or 0. */
uint32_t hf_pg_ids_now(struct hf_pg_session *s, const struct unit *u);
void hf_pg_ids_row(struct hf_pg_session *s, uint32_t ticket, struct hf_slice body);
/* Is it to be repeated with the values that were shown? Then its text so (with a NUL). */
bool hf_pg_ids_again(struct hf_pg_session *s, uint32_t ticket, struct hf_slice sql,
                     struct hf_buf *out);
/* The transaction is over. */
void hf_pg_ids_over(struct hf_pg_session *s, uint32_t tickets_before);
/* The server is lost: what was shown will be given again. */
void hf_pg_ids_lost(struct hf_pg_session *s);
/* SQL that takes the sequences beyond what will be given; false: there is nothing to give. */
bool hf_pg_ids_sql(struct hf_pg_session *s, struct hf_buf *out);
void hf_pg_ids_forget(struct ids *ids);
void hf_pg_ids_save(struct hf_pg_session *s, const struct ids *ids, struct hf_buf *out);
HF_MUST int hf_pg_ids_load(struct hf_pg_session *s, struct ids *ids, struct hf_slice in);

/* --- what a peer has: session_save.c --- */
/* n bytes will be cut from the front of the log. */
void hf_pg_saved_log_cut(struct hf_pg_session *s, size_t n);
/* Everything but connections and clock as a new session has it. */
int hf_pg_session_alloc(const struct hf_pg_session_args *args, const struct hf_pg_session_ops *ops,
                        void *arg, hf_time now, struct hf_pg_session **ret_session);
/* SQL PREPARE, DEALLOCATE and DISCARD in a text that ends with its NUL: known at once, for EXECUTE;
 * the look brings the rest. */
void hf_pg_settle_sql_prepared(struct hf_pg_session *s, struct hf_slice text);

/* --- loss, recovery, moves: session_recover.c, session_move.c --- */
void hf_pg_lost(struct hf_pg_session *s, const char *why);
/* A parallel worker of the client's request has ended, first sign of the server's end. true: taken
 * for it, the connection is given up; false: the session, or the request, could not be had again,
 * or has been: the error is the client's. */
bool hf_pg_worker_lost(struct hf_pg_session *s);
void hf_pg_recover_attach(struct hf_pg_session *s);
/* Ask once more: is the old backend gone, is the transaction over? */
void hf_pg_recover_again(struct hf_pg_session *s);
/* The step's answer is complete. */
void hf_pg_step_done(struct hf_pg_session *s, char status);
/* After a ReadyForQuery: what could not be told in the middle of a message. */
void hf_pg_tell_due(struct hf_pg_session *s);
void hf_pg_replay_check(struct hf_pg_session *s);
void hf_pg_replay_failed(struct hf_pg_session *s, const char *why);
/* What the client gets instead of an answer; the first one counts. */
void hf_pg_verdict_set(struct hf_pg_session *s, const char *sqlstate, const char *message,
                       const char *why);
/* Answer everything that is under way with the verdict. */
void hf_pg_restore(struct hf_pg_session *s, enum hf_pg_side side);
size_t hf_pg_spare_bytes(struct hf_pg_session *s, struct hf_slice in);
void hf_pg_move_try(struct hf_pg_session *s);
void hf_pg_move_failed(struct hf_pg_session *s, const char *why);
void hf_pg_move_observed(struct hf_pg_session *s);
void hf_pg_move_step(struct hf_pg_session *s, char status);
/* Is it the notification that moves of this session make? */
bool hf_pg_is_marker(const struct hf_pg_session *s, struct hf_slice body);
/* A notification on the old connection while moving: true: it is the marker. */
bool hf_pg_move_marker(struct hf_pg_session *s, enum hf_pg_side side, struct hf_slice body);
/* A message of a step's answer, other than ReadyForQuery. */
void hf_pg_step_message(struct hf_pg_session *s, uint8_t type, struct hf_slice body);
void hf_pg_describe_part(struct hf_pg_session *s, uint8_t type, struct hf_slice body);
void hf_pg_param_set(struct hf_buf *all, struct hf_slice name, struct hf_slice value);
void hf_pg_tell_error(struct hf_pg_session *s, const char *sqlstate, const char *message,
                      const char *detail);
void hf_pg_step_ask(struct hf_pg_session *s, enum step step, struct hf_slice sql);
