/* A toy PostgreSQL backend: protocol 3 after the login, on a toy database. */
#pragma once

#include "base/attr.h"
#include "base/buf.h"
#include "base/prng.h"
#include "sim/pg/db.h"
#include "sim/pg/sql.h"

#define PGS_SETTINGS_MAX 40
#define PGS_SAVEPOINTS_MAX 6
#define PGS_CHANNELS_MAX 8
#define PGS_VALUE_MAX 128
#define PGS_COLUMNS_MAX 16

struct pgs_backend;

/* All backends of one database, and what they share. */
struct pgs_server {
    struct pgs_db db;
    struct hf_prng prng;
    struct pgs_backend **backend; /* owned list, owned */
    size_t n, room;
    uint32_t next_pid;
    uint64_t now; /* microseconds: now() and pg_sleep() */
    int64_t set;  /* by which its clock was set, in all */
};

struct pgs_setting {
    char name[48], value[PGS_VALUE_MAX];
    char reset[PGS_VALUE_MAX]; /* RESET */
    char outer[PGS_VALUE_MAX]; /* after a SET LOCAL ends */
    char told[PGS_VALUE_MAX];  /* ParameterStatus */
    bool local, reported, set; /* set: source is the session */
};

struct pgs_settings {
    struct pgs_setting s[PGS_SETTINGS_MAX];
    size_t n;
};

/* As xact.c's TBLOCK_*. */
enum pgs_block { PGS_DEFAULT, PGS_STARTED, PGS_IMPLICIT, PGS_BLOCK, PGS_FAILED };

struct pgs_savepoint {
    char name[64];
    size_t n_changes;
    bool xid; /* its own was assigned */
    struct pgs_settings settings;
};

struct pgs_column {
    char name[64];
    uint32_t type;
};

/* What a statement gives. */
struct pgs_result {
    struct pgs_column column[PGS_COLUMNS_MAX];
    size_t n_columns;
    char **cell; /* owned, owned; NULL is NULL */
    size_t n_cells, room;
    char tag[64];
};

struct pgs_prepared {
    struct pgs_prepared *next;
    char name[64];
    bool sql;              /* by PREPARE */
    char text[512];        /* ... whole */
    struct pgs_stmt *stmt; /* owned; NULL: empty */
    uint32_t type[PGS_ARGS_MAX * 4];
    size_t n_params;
};

struct pgs_portal {
    struct pgs_portal *next;
    char name[64];
    struct pgs_prepared *statement; /* owned copy */
    char *param[PGS_ARGS_MAX * 4];  /* owned */
    uint8_t format[PGS_COLUMNS_MAX];
    size_t n_formats;
    struct pgs_result result;
    size_t at; /* rows delivered */
    bool ran, done, failed;
};

enum pgs_wait { PGS_AWAKE, PGS_WAIT_LOCK, PGS_WAIT_SYNC, PGS_WAIT_SLEEP, PGS_WAIT_COPY };

struct pgs_notice { /* NOTIFY */
    char channel[64], payload[128];
    uint32_t pid;
};

struct pgs_backend {
    struct pgs_server *server;
    uint32_t pid;
    int64_t started;  /* microseconds, by its clock */
    uint16_t port;    /* of its client */
    bool alive;       /* the process */
    bool eof;         /* the client's side of the connection is gone */
    struct hf_buf in; /* not read yet */
    struct hf_buf out;
    size_t flushed; /* of out: the rest stays here until a flush */
    bool closed;    /* this side has closed the connection; after `out` */

    enum pgs_block block;
    struct pgs_xact xact;
    bool end_asked, end_commit, end_chain; /* by the statement that runs */
    bool read_only;
    uint64_t began; /* now() */
    struct pgs_savepoint savepoint[PGS_SAVEPOINTS_MAX];
    size_t n_savepoints;
    struct pgs_settings settings, at_begin;
    struct pgs_prepared *prepared;
    struct pgs_portal *portals;
    bool skip; /* until Sync */

    char listens[PGS_CHANNELS_MAX][64];
    size_t n_listens;
    struct { /* LISTEN and UNLISTEN of the transaction */
        char channel[64];
        bool on, all;
    } relisten[PGS_CHANNELS_MAX];
    size_t n_relistens;
    struct pgs_notice notify[PGS_CHANNELS_MAX];
    size_t n_notify;
    struct pgs_notice inbox[64];
    size_t n_inbox;

    /* the message under way */
    enum pgs_wait wait;
    const struct pgs_xact *waits_for; /* LOCK */
    uint64_t sleep_until, wait_end;   /* SLEEP; wait_end: of pg_terminate_backend() */
    bool cancelled, terminated, worker_ended;
    char message;          /* its type; 0: none */
    struct pgs_stmt *stmt; /* Query; owned */
    int n_stmts, stmt_at;
    enum { PGS_RUN, PGS_END, PGS_TAG } phase;
    struct pgs_result result;  /* Query */
    struct pgs_portal *portal; /* Execute */
    uint32_t rows_max;
    char *const *params; /* of the statement that runs; borrowed */
    struct hf_buf copy;  /* COPY FROM STDIN: lines so far */
    bool copy_over;
    uint64_t n_copied;
    bool has_temp;
    /* error of the statement that runs */
    char sqlstate[6], error[256], detail[256];
};

/** Copy a string, cut to the room that there is; they may be the same. */
static inline void pgs_copy(char *to, size_t room, const char *from)
{
    size_t n = strlen(from);
    n = n < room ? n : room - 1;
    memmove(to, from, n);
    to[n] = 0;
}

/** A result of running something. */
enum pgs_run { PGS_DONE, PGS_WAITS, PGS_ERROR };

void pgs_server_init(struct pgs_server *s, uint64_t seed);
void pgs_server_fini(struct pgs_server *s);

/** A new, logged-in, idle backend. Owned by the server until it is reaped after its end. */
struct pgs_backend *pgs_backend_start(struct pgs_server *s, const char *user);
/** The process is gone, at once (kill -9, power): nothing is written, nothing is told. */
void pgs_backend_kill(struct pgs_backend *b);
/** Free a dead one. */
void pgs_backend_free(struct pgs_backend *b);
/** ParameterStatus as name NUL value NUL ... */
void pgs_backend_params(struct pgs_backend *b, struct hf_buf *out);

/** Bytes from the client. */
void pgs_backend_input(struct pgs_backend *b, struct hf_slice bytes);
/** Go on by one message or less. false: there is nothing that it could do now. */
bool pgs_backend_step(struct pgs_backend *b);
/** What may be sent; take it out with pgs_backend_sent(). */
struct hf_slice pgs_backend_output(const struct pgs_backend *b);
void pgs_backend_sent(struct pgs_backend *b, size_t n);

void pgs_cancel(struct pgs_backend *b);
/** X6: its client has that port, or it is as old as that, in seconds of the server's clock. */
bool pgs_backend_is(const struct pgs_backend *b, uint32_t port, double age);
/** pg_terminate_backend(). */
void pgs_terminate(struct pgs_backend *b);
/** Its parallel worker is ended, if what it does now may have one. */
void pgs_end_worker(struct pgs_backend *b);
struct pgs_backend *pgs_backend_find(struct pgs_server *s, uint32_t pid);

/** The server ends, with all its backends; it begins again with the first `keep` log records. */
void pgs_server_crash(struct pgs_server *s, size_t keep, bool promotion);

/* --- exec.c: statements --- */
void pgs_settings_init(struct pgs_settings *s, const char *user);
enum pgs_run pgs_execute(struct pgs_backend *b, struct pgs_stmt *st, struct pgs_result *r);
/** Columns of its result: how many; parameter types. -1: it can't be described (an error is set).
 */
int pgs_describe(struct pgs_backend *b, struct pgs_stmt *st, struct pgs_result *r, uint32_t *types,
                 size_t *ret_n_params);
void pgs_result_clear(struct pgs_result *r);
/** Set the error; returns PGS_ERROR. */
enum pgs_run pgs_fail(struct pgs_backend *b, const char *sqlstate, const char *fmt, ...)
    HF_PRINTF(3, 4);
void pgs_notice(struct pgs_backend *b, const char *severity, const char *sqlstate,
                const char *text);
/** May it run in a failed transaction? */
bool pgs_is_exit(const struct pgs_stmt *st);
bool pgs_is_xact(const struct pgs_stmt *st);
/** CALL of a built-in function by its OID: text arguments, NULL for NULL. */
enum pgs_run pgs_call(struct pgs_backend *b, uint32_t oid, char *const *args, size_t n,
                      char **ret_value, uint32_t *ret_type);
struct pgs_prepared *pgs_prepared_find(struct pgs_backend *b, const char *name);
void pgs_prepared_drop(struct pgs_backend *b, const char *name); /* NULL: all but the unnamed */
struct pgs_prepared *pgs_prepared_add(struct pgs_backend *b, const char *name, struct pgs_stmt *st);
/** Take what came for COPY FROM STDIN, line by line. */
enum pgs_run pgs_copy_lines(struct pgs_backend *b);
/** End of transaction: 0, WAITS or ERROR. */
enum pgs_run pgs_finish(struct pgs_backend *b);
void pgs_abort_all(struct pgs_backend *b);
/** CopyInResponse, CopyOutResponse: what exec.c sends itself. */
void pgs_send(struct pgs_backend *b, uint8_t type, const void *body, size_t n);
