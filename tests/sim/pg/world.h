/* Simulated sessions: real session cores between made-up clients and the toy server. */
#pragma once

#include <setjmp.h>
#include <stdio.h>

#include "core/pg/session.h"
#include "sim/pg/backend.h"
#include "sim/pg/client.h"

#define PGW_SESSIONS_MAX 6
#define PGW_INCARNATIONS_MAX 64

/* A server connection: bytes on their way, both directions. */
struct pgw_conn {
    struct pgs_backend *b; /* borrowed; NULL: none */
    uint64_t incarnation;
    struct hf_buf to, from; /* in flight */
    struct hf_buf in;       /* came, and not consumed by the core */
    struct hf_buf told;     /* sent, and not a whole message yet */
    struct hf_buf held;     /* sent, and not let out yet: pgw_saves() */
    bool cut;               /* nothing more will come; the core is told after `from` */
};

/* A server connection that the core dropped; its end is not let out yet. */
struct pgw_dropped {
    struct pgs_backend *b;
    struct hf_buf last;
};

struct pgw_session {
    struct pgw_world *w;
    uint32_t i;
    struct hf_pg_session *core; /* owned */
    struct pgc_client client;
    struct hf_buf up, down; /* client to core, core to client: in flight */
    struct hf_buf in;       /* came from the client, not consumed */
    struct pgw_conn conn[3];
    bool need[3];
    bool ended, clean;    /* the core said end(); clean: the client went first */
    uint64_t incarnation; /* of the server that it was attached to last */
    bool attached_once;
    uint64_t losses;        /* of its server connection */
    uint32_t reasons;       /* that could be seen, before the last loss */
    uint32_t told;          /* reasons, as noted now */
    uint32_t reasons_saved; /* of what the peer has */
    bool cancel_pending;    /* a CancelRequest is on its way to the server */
    uint32_t cancel_pid;
    uint64_t cancels; /* that may have hit */
    uint64_t workers; /* of its backend that ended */
    bool moves;       /* a move was asked for */
    bool terminated;  /* an administrator ended its backend */
    uint64_t n_moved, n_replayed, n_committed, n_aborted, n_unresolved;
    /* --- host.c --- */
    bool unsaved;            /* it did something that the peer does not have */
    struct hf_buf in_saved;  /* what came since, and before it was not consumed */
    struct hf_buf down_held; /* to the client, not let out yet */
    struct pgw_dropped dropped[8];
    size_t n_dropped;
    uint32_t pid_saved; /* of the backend that the peer knows of */
    uint64_t incarnation_saved;
    bool attached_saved;
};

struct hf_pair_store;

struct pgw_world {
    struct pgs_server server;
    struct hf_prng prng;
    hf_time now;
    struct hf_pg_session_conf conf;
    struct hf_pg_memory memory;
    struct hf_pg_classifier *classifier;
    struct pgw_session session[PGW_SESSIONS_MAX];
    uint32_t n;
    bool up;
    bool fenced; /* starts are fenced */
    uint64_t fence[PGW_INCARNATIONS_MAX];
    bool unreplicated; /* a commit became visible that the standby may lack */
    uint64_t n_crashes, n_steps, n_hosts, n_ahead;
    bool translated; /* the server sees other ports than its clients have */
    bool saves;      /* a peer has what the sessions did before it is let out */
    struct hf_prng save_prng;
    struct hf_pair_store *store; /* owned */
    FILE *trace;                 /* or NULL */
    bool story;                  /* only what a reader wants to know */
    jmp_buf *fail;
    char why[400];
};

void pgw_init(struct pgw_world *w, uint32_t n, uint64_t seed);
void pgw_fini(struct pgw_world *w);
void pgw_failed(struct pgw_world *w, const char *fmt, ...) HF_PRINTF(2, 3);
void pgw_tell(struct pgw_world *w, const char *fmt, ...) HF_PRINTF(2, 3);

/** A new session for a client. */
void pgw_connect(struct pgw_world *w, uint32_t i, uint32_t txns_max);

/* One thing that can happen next; false: it can't now. n: at most so many bytes. */
bool pgw_client(struct pgw_session *s);
bool pgw_up(struct pgw_session *s, size_t n);
bool pgw_down(struct pgw_session *s, size_t n);
bool pgw_to(struct pgw_session *s, enum hf_pg_side side, size_t n);
bool pgw_from(struct pgw_session *s, enum hf_pg_side side, size_t n);
bool pgw_backend(struct pgw_world *w, size_t i);
bool pgw_attach(struct pgw_session *s, enum hf_pg_side side);
bool pgw_cancel_arrives(struct pgw_session *s);
/** The session has ended: was the client told? */
void pgw_word(struct pgw_session *s);
/** Everything that can happen without faults and time, until nothing can. */
void pgw_settle(struct pgw_world *w);
/** Time goes on to the next deadline of anybody, at most `most` from now. */
void pgw_time(struct pgw_world *w, hf_time most);

/* Faults. */
void pgw_crash(struct pgw_world *w, bool promotion, size_t keep);
void pgw_start(struct pgw_world *w);
/** Only the connection breaks: the backend lives on. to: so many bytes still get to it. */
void pgw_break(struct pgw_session *s, enum hf_pg_side side, size_t to, size_t from);
void pgw_cancel(struct pgw_session *s);
void pgw_client_goes(struct pgw_session *s);

/* --- host.c --- */
/** From now on sessions are saved; before they connect. */
void pgw_saves(struct pgw_world *w);
/** Let the peer have what the session did, and then let it out; false: there is nothing. */
bool pgw_save(struct pgw_session *s);
void pgw_ahead(struct pgw_session *s);
/** The session has ended, the peer knows. */
void pgw_forget(struct pgw_session *s);
/** All sessions go on at the peer, with what it has. */
void pgw_host_dies(struct pgw_world *w);
void pgw_saves_fini(struct pgw_world *w);
/* For it: */
extern const struct hf_pg_session_ops pgw_ops;
struct hf_pg_session_args pgw_args(struct pgw_world *w);
void pgw_conn_clear(struct pgw_conn *c);
void pgw_after(struct pgw_session *s);
/** Its server connection is lost: what a client may see of that. */
void pgw_loss_noted(struct pgw_session *s);

/* --- check.c --- */
/** Acknowledged transactions are there once, others not or once, as they were shown. */
void pgw_check(struct pgw_world *w, bool end);
void pgw_error(void *arg, struct pgc_client *c, struct pgc_txn *t);
