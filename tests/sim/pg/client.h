/* Clients for the simulator: they make up transactions, check the protocol, and keep a book. */
#pragma once

#include "base/buf.h"
#include "base/prng.h"
#include "sim/pg/db.h"

#define PGC_TOKENS_MAX 12
#define PGC_SEEN_MAX 12
#define PGC_EXPECT_MAX 128
#define PGC_ROUNDS_MAX 24
#define PGC_NAMES_MAX 4

/* What became of a transaction, as its client knows. */
enum pgc_outcome { PGC_OPEN, PGC_ACKED, PGC_ABORTED, PGC_UNKNOWN };

/* One change that it asked for; the value is never used again by anybody. */
struct pgc_token {
    enum pgs_change_kind kind;
    int64_t key, value;
    bool undone; /* by ROLLBACK TO */
};

enum pgc_see { PGC_SEE_NOTHING, PGC_SEE_ID, PGC_SEE_AFTER, PGC_SEE_N, PGC_SEE_COUNT, PGC_SEE_TEXT };
struct pgc_seen {
    enum pgc_see see;
    int64_t key, value;
};

struct pgc_txn {
    enum pgc_outcome outcome;
    struct pgc_token token[PGC_TOKENS_MAX];
    size_t n_tokens;
    struct pgc_seen seen[PGC_SEEN_MAX];
    size_t n_seen;
    bool begun;     /* something of it was sent */
    bool ends_sent; /* its commit point, too */
    bool chained;   /* it began with the end of the one before */
    bool alone;     /* nothing else was under way when it began */
    bool failed;    /* an error came for it */
    bool pipelined; /* more of it may have been on its way then */
    bool reads, sequence, volatile_, unprotected, weak; /* weak: synchronous_commit below on */
    bool sets;                                          /* by a function */
    bool given;                                         /* ids that it saw can be given again */
    uint64_t losses;                                    /* of the session, when it began */
    uint64_t commits;                                   /* of the database, then */
    uint64_t seq_lost;
    char application[48]; /* before a function that sets it: its loss undoes that */
    char why[64];         /* what it is, for people */
};

/* What one statement must be answered with. */
struct pgc_want {
    const char *columns; /* names with a space between; NULL: no rows */
    const char *tag;     /* beginning of it */
    enum pgc_see see;
    int64_t key;
    const char *fails; /* SQLSTATE; it is meant to fail */
    char text[64];     /* TEXT: the value */
};

/* One message that is answered. */
struct pgc_expect {
    char type;
    uint32_t txn;
    struct pgc_want want[4]; /* Query: of its statements */
    uint8_t n, at;
    bool begins, commits, copy; /* commits: when it is answered without an error */
    bool told_columns;
    char status;      /* of ReadyForQuery when all went well */
    const char *does; /* LISTEN etc.: for the session's model; NULL */
};

struct pgc_round {
    struct hf_buf bytes; /* owned */
    uint32_t txn;
    uint32_t n_expects;
    bool waits;  /* until everything before it is answered */
    bool copies; /* it is COPY's data: waits for CopyInResponse */
    bool commits;
};

struct pgc_client {
    uint32_t id;
    struct hf_prng prng;
    uint64_t next_token;
    /* what it is allowed to do */
    bool by_hand; /* it does what a story says */
    bool simple_only, no_copy, no_volatile, no_sequence, no_state, no_weak;
    struct pgc_txn *txn; /* owned; the book */
    uint32_t n_txns, txns_room, txns_max;

    /* connection */
    bool connected, ready, greeted;
    struct hf_buf in;
    struct hf_buf out; /* to be sent */
    struct pgc_expect expect[PGC_EXPECT_MAX];
    uint32_t head, n_expects;
    uint32_t outstanding; /* of these, of what was sent */
    struct pgc_round round[PGC_ROUNDS_MAX];
    uint32_t n_rounds, round_at;
    bool skip;   /* an error came: nothing until Sync is answered */
    bool failed; /* an error came in this round: the rest isn't sent */
    bool fatal;
    bool copying; /* CopyInResponse came */
    char status;
    char sqlstate[6], message[200], detail[200];
    /* the session's state, as it should be */
    char application[48];
    bool tuned; /* it has called the function */
    bool listening;
    char prepared[PGC_NAMES_MAX]; /* 1: there */
    uint32_t names;

    char wrong[300]; /* what broke the protocol, "" if nothing did */
    uint64_t n_errors, n_40001, n_08007, n_57p01, n_acked;
    void (*on_begin)(void *arg, struct pgc_txn *t);
    void (*on_error)(void *arg, struct pgc_client *c, struct pgc_txn *t);
    void *arg;
};

void pgc_init(struct pgc_client *c, uint32_t id, uint64_t seed, uint32_t txns_max);
void pgc_fini(struct pgc_client *c);
/** Connected again, to a session of its own. */
void pgc_connect(struct pgc_client *c);
/** The connection is gone: what is open is unknown, or aborted. */
void pgc_disconnect(struct pgc_client *c);
/** Bytes from the server. false: c->wrong tells. */
bool pgc_input(struct pgc_client *c, struct hf_slice bytes);
/** Put what it says next into c->out. false: nothing now. */
bool pgc_step(struct pgc_client *c);
/** Nothing under way, and nothing left to do. */
bool pgc_done(const struct pgc_client *c);
bool pgc_idle(const struct pgc_client *c);

/* --- by hand, for stories --- */
/** A transaction of which pgc_query() makes the requests; pgc_step() sends them. */
uint32_t pgc_begin(struct pgc_client *c, const char *why);
struct pgc_expect *pgc_query(struct pgc_client *c, char status, const char *sql);
/** A statement of the expectation: its columns and its tag's beginning. */
void pgc_want(struct pgc_expect *e, const char *columns, const char *tag);
