/* The moments of failure as short readable stories, compared with their golden traces. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sim/pg/chaos.h"
#include "sim/pg/world.h"

#define SEED 7

static struct pgw_world world;

struct story {
    struct pgw_world *w;
    FILE *out;
};

/* ---- what is given ---- */

static void given(struct story *s, uint32_t n)
{
    struct pgw_world *w = s->w;
    w->trace = NULL;
    pgw_init(w, n, SEED);
    for (uint32_t i = 0; i < n; i++) {
        pgw_connect(w, i, 0);
        w->session[i].client.by_hand = true;
    }
    pgw_settle(w);
    fprintf(s->out, "\n");
    w->trace = s->out;
    w->story = true;
}

/* A request, put on its way to the core and from there to the server; nothing runs yet. */
static void asks(struct story *s, uint32_t i, const char *sql, char status, const char *columns,
                 const char *tag)
{
    struct pgw_session *p = &s->w->session[i];
    (void)pgc_begin(&p->client, "story");
    pgc_want(pgc_query(&p->client, status, sql), columns, tag);
    while (pgw_client(p) || pgw_up(p, SIZE_MAX) || pgw_to(p, HF_PG_SERVER, SIZE_MAX)) {
    }
}

/* The backends run; nothing of what they say gets out. Commits wait. */
static void runs(struct story *s)
{
    bool more = true;
    while (more) {
        more = false;
        for (size_t i = s->w->server.n; i-- > 0;) {
            more |= pgw_backend(s->w, i);
        }
    }
}

/* Messages go to and fro until nothing is on its way; commits wait for their flush. */
static void talk(struct story *s)
{
    struct pgw_world *w = s->w;
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < w->n; i++) {
            struct pgw_session *p = &w->session[i];
            more |= pgw_client(p) | pgw_up(p, SIZE_MAX) | pgw_to(p, HF_PG_SERVER, SIZE_MAX) |
                    pgw_to(p, HF_PG_SPARE, SIZE_MAX) | pgw_from(p, HF_PG_SERVER, SIZE_MAX) |
                    pgw_from(p, HF_PG_SPARE, SIZE_MAX) | pgw_down(p, SIZE_MAX);
        }
        for (size_t i = w->server.n; i-- > 0;) {
            more |= pgw_backend(w, i);
        }
    }
}

static void asks_and_gets(struct story *s, uint32_t i, const char *sql, char status,
                          const char *columns, const char *tag)
{
    asks(s, i, sql, status, columns, tag);
    pgw_settle(s->w);
}

/* BEGIN and an UPDATE. */
static void block(struct story *s, uint32_t i)
{
    asks_and_gets(s, i, "BEGIN", 'T', NULL, "BEGIN");
    asks_and_gets(s, i,
                  i ? "UPDATE accounts SET n = n + 200 WHERE id = 2"
                    : "UPDATE accounts SET n = n + 100 WHERE id = 1",
                  'T', NULL, "UPDATE 1");
}

static void lose(struct story *s, bool promotion, size_t keep)
{
    pgw_crash(s->w, promotion, keep);
    for (uint32_t i = 0; i < s->w->n; i++) {
        while (pgw_from(&s->w->session[i], HF_PG_SERVER, SIZE_MAX)) {
        }
    }
}

static void starts(struct story *s)
{
    pgw_start(s->w);
    pgw_settle(s->w);
    for (int i = 0; i < 20; i++) {
        pgw_time(s->w, HF_MS(50));
        pgw_settle(s->w);
    }
}

static void accounts(struct story *s)
{
    fprintf(s->out, "-- accounts:");
    for (int64_t id = 1; id <= 2; id++) {
        fprintf(s->out, " %" PRId64, s->w->server.db.account[id]);
    }
    fprintf(s->out, "\n");
}

/* ---- the moments ---- */

static void idle(struct story *s)
{
    given(s, 1);
    asks_and_gets(s, 0, "SET application_name = 'web'", 'I', NULL, "SET");
    lose(s, true, s->w->server.db.n_wal);
    starts(s);
    asks_and_gets(s, 0, "SHOW application_name", 'I', "application_name", "SHOW");
}

static void mid_request(struct story *s)
{
    given(s, 1);
    asks(s, 0, "UPDATE accounts SET n = n + 100 WHERE id = 1", 'I', NULL, "UPDATE 1");
    lose(s, false, s->w->server.db.n_wal);
    starts(s);
    accounts(s);
}

static void executed(struct story *s)
{
    given(s, 1);
    block(s, 0);
    asks(s, 0, "UPDATE accounts SET n = n + 10 WHERE id = 2 RETURNING n", 'T', "n", "UPDATE 1");
    runs(s);
    lose(s, false, s->w->server.db.flushed);
    starts(s);
    asks_and_gets(s, 0, "COMMIT", 'I', NULL, "COMMIT");
    accounts(s);
}

static void partly(struct story *s)
{
    given(s, 1);
    block(s, 0);
    asks(s, 0, "SELECT id, n FROM accounts ORDER BY id", 'T', "id n", "SELECT 6");
    runs(s);
    (void)pgw_from(&s->w->session[0], HF_PG_SERVER, 90);
    (void)pgw_down(&s->w->session[0], SIZE_MAX);
    pgw_break(&s->w->session[0], HF_PG_SERVER, 0, 0);
    (void)pgw_from(&s->w->session[0], HF_PG_SERVER, 0);
    starts(s);
    asks_and_gets(s, 0, "COMMIT", 'I', NULL, "COMMIT");
    accounts(s);
}

/* COMMIT is on the server's disk, and on the standby's if so; its answer is not under way yet. */
static void commit_sent(struct story *s, bool replicated)
{
    block(s, 0);
    asks(s, 0, "COMMIT", 'I', NULL, "COMMIT");
    talk(s);
    pgs_flush(&s->w->server.db, SIZE_MAX);
    if (replicated) {
        pgs_replicate(&s->w->server.db, SIZE_MAX);
    }
}

static void committed(struct story *s)
{
    given(s, 1);
    commit_sent(s, true);
    lose(s, true, s->w->server.db.n_wal);
    starts(s);
    accounts(s);
}

static void not_committed(struct story *s)
{
    given(s, 1);
    block(s, 0);
    asks(s, 0, "COMMIT", 'I', NULL, "COMMIT");
    talk(s);
    lose(s, false, s->w->server.db.n_wal - 1);
    starts(s);
    accounts(s);
}

static void copy(struct story *s)
{
    given(s, 1);
    asks(s, 0, "COPY log (v) FROM STDIN", 'I', NULL, "COPY ");
    s->w->session[0].client.expect[s->w->session[0].client.head].copy = true;
    talk(s);
    lose(s, false, s->w->server.db.n_wal);
    starts(s);
}

static void during_replay(struct story *s)
{
    given(s, 1);
    block(s, 0);
    lose(s, false, s->w->server.db.flushed);
    pgw_start(s->w);
    (void)pgw_attach(&s->w->session[0], HF_PG_SERVER);
    lose(s, false, s->w->server.db.n_wal);
    starts(s);
    asks_and_gets(s, 0, "COMMIT", 'I', NULL, "COMMIT");
    accounts(s);
}

static void during_move(struct story *s)
{
    given(s, 1);
    asks_and_gets(s, 0, "SET application_name = 'web'", 'I', NULL, "SET");
    pgw_tell(s->w, "-- a move is asked for");
    hf_pg_session_move(s->w->session[0].core, s->w->now);
    talk(s);
    (void)pgw_attach(&s->w->session[0], HF_PG_SPARE);
    lose(s, false, s->w->server.db.n_wal);
    starts(s);
    asks_and_gets(s, 0, "SHOW application_name", 'I', "application_name", "SHOW");
}

static void move(struct story *s)
{
    given(s, 1);
    asks_and_gets(s, 0, "SET application_name = 'web'", 'I', NULL, "SET");
    asks_and_gets(s, 0, "LISTEN news", 'I', NULL, "LISTEN");
    s->w->session[0].client.listening = true;
    pgw_tell(s->w, "-- a move is asked for");
    hf_pg_session_move(s->w->session[0].core, s->w->now);
    pgw_settle(s->w);
    asks_and_gets(s, 0, "SHOW application_name", 'I', "application_name", "SHOW");
    asks_and_gets(s, 0, "NOTIFY news, 'hello'", 'I', NULL, "NOTIFY");
}

static void standby_lacks(struct story *s)
{
    given(s, 1);
    commit_sent(s, false);
    lose(s, true, s->w->server.db.replicated);
    starts(s);
    accounts(s);
}

/* Session 0's commit is lost; session 1's gets the same transaction id before it is resolved. */
static void reused(struct story *s, bool promotion)
{
    struct pgw_session *a = &s->w->session[0], *b = &s->w->session[1];
    given(s, 2);
    block(s, 0);
    asks(s, 0, "COMMIT", 'I', NULL, "COMMIT");
    talk(s);
    size_t keep = s->w->server.db.n_wal - 2;
    lose(s, promotion, keep);
    pgw_start(s->w);
    a->need[HF_PG_SERVER] = false; /* later */
    (void)pgw_attach(b, HF_PG_SERVER);
    pgw_settle(s->w);
    block(s, 1);
    asks_and_gets(s, 1, "COMMIT", 'I', NULL, "COMMIT");
    a->need[HF_PG_SERVER] = true;
    starts(s);
    accounts(s);
}

static void reused_promotion(struct story *s)
{
    reused(s, true);
}

static void reused_crash(struct story *s)
{
    reused(s, false);
}

static void cancel_waiting(struct story *s)
{
    given(s, 1);
    commit_sent(s, false);
    pgw_tell(s->w, "-- the client asks to cancel");
    pgw_cancel(&s->w->session[0]);
    pgw_tell(s->w, "-- an administrator cancels the wait for the standby");
    pgs_cancel(s->w->session[0].conn[HF_PG_SERVER].b);
    talk(s);
    pgw_tell(s->w, "-- the standby has it");
    pgw_settle(s->w);
    accounts(s);
}

static void terminate_waiting(struct story *s)
{
    given(s, 1);
    commit_sent(s, false);
    pgw_break(&s->w->session[0], HF_PG_SERVER, 0, 0);
    (void)pgw_from(&s->w->session[0], HF_PG_SERVER, 0);
    (void)pgw_attach(&s->w->session[0], HF_PG_SERVER);
    talk(s);
    pgw_time(s->w, HF_MS(20));
    talk(s);
    pgw_tell(s->w, "-- the standby has it");
    starts(s);
    accounts(s);
}

static void resent(struct story *s)
{
    given(s, 1);
    asks(s, 0, "UPDATE accounts SET n = n + 100 WHERE id = 1", 'I', NULL, "UPDATE 1");
    talk(s);
    pgs_flush(&s->w->server.db, SIZE_MAX);
    pgs_replicate(&s->w->server.db, SIZE_MAX);
    runs(s);
    pgw_break(&s->w->session[0], HF_PG_SERVER, 0, 0);
    (void)pgw_from(&s->w->session[0], HF_PG_SERVER, 0);
    starts(s);
    accounts(s);
}

static void old_backend_from(struct story *s, int64_t clock)
{
    given(s, 1);
    block(s, 0);
    s->w->server.set += clock;
    pgw_break(&s->w->session[0], HF_PG_SERVER, 0, 0);
    s->w->session[0].conn[HF_PG_SERVER].b->eof = false; /* it notices nothing */
    (void)pgw_from(&s->w->session[0], HF_PG_SERVER, 0);
    starts(s);
    asks_and_gets(s, 0, "COMMIT", 'I', NULL, "COMMIT");
    accounts(s);
}

static void old_backend(struct story *s)
{
    old_backend_from(s, 0);
}

static void old_backend_clock(struct story *s)
{
    old_backend_from(s, -32000000);
}

static void sequence(struct story *s)
{
    given(s, 1);
    asks_and_gets(s, 0, "INSERT INTO log (v) VALUES (1) RETURNING id", 'I', "id", "INSERT 0 1");
    asks_and_gets(s, 0, "BEGIN", 'T', NULL, "BEGIN");
    asks_and_gets(s, 0, "INSERT INTO log (v) VALUES (2) RETURNING id", 'T', "id", "INSERT 0 1");
    lose(s, false, s->w->server.db.n_wal);
    starts(s);
    lose(s, false, s->w->server.db.n_wal);
    starts(s);
    asks_and_gets(s, 0, "COMMIT", 'I', NULL, "COMMIT");
    asks_and_gets(s, 0, "SELECT id, v FROM log ORDER BY id", 'I', "id v", "SELECT 2");
}

static const struct {
    const char *name, *title;
    void (*tell)(struct story *s);
} stories[] = {
    {"idle", "The server is lost while the session is idle: its settings come along.", idle},
    {"mid-request", "The server is lost before it has run what it was sent.", mid_request},
    {"executed", "A statement was executed and not answered.", executed},
    {"partly", "A result was delivered in part: the rest follows, nothing twice.", partly},
    {"committed", "COMMIT was sent, and done: it is not done again (C9).", committed},
    {"not-committed", "COMMIT was sent, and not done: the transaction is replayed.", not_committed},
    {"copy", "During COPY FROM STDIN outside a transaction: named as unprotected.", copy},
    {"during-replay", "The server is lost again during the replay.", during_replay},
    {"move", "A planned move of a session that listens (X12).", move},
    {"during-move", "The server is lost during a planned move.", during_move},
    {"standby-lacks", "The standby that is promoted lacks the last commit (X3).", standby_lacks},
    {"xid-reused-promotion", "The transaction id was used again after a promotion (X3).",
     reused_promotion},
    {"xid-reused-crash", "The transaction id was used again after a restart in place (X3).",
     reused_crash},
    {"cancel-waiting", "COMMIT waits for the standby, and the wait is cancelled (X4).",
     cancel_waiting},
    {"terminate-waiting", "The connection breaks while COMMIT waits for the standby (X4, X6).",
     terminate_waiting},
    {"resent", "The connection breaks after an autocommit write was done (X1).", resent},
    {"old-backend", "The connection breaks, the old backend lives on (X6).", old_backend},
    {"old-backend-clock", "Likewise, and the server's clock is set.", old_backend_clock},
    {"sequence", "Ids that were shown are given again, and the server is lost a second time (X8).",
     sequence},
};

size_t pgx_n_stories(void)
{
    return HF_ARRAY_LEN(stories);
}

struct sim_story pgx_story(size_t i)
{
    return (struct sim_story){stories[i].name, stories[i].title};
}

void pgx_tell(size_t i, FILE *out)
{
    struct story s = {.w = &world, .out = out};
    jmp_buf fail;
    world.fail = &fail;
    if (setjmp(fail) == 0) {
        stories[i].tell(&s);
        pgw_check(&world, true);
    }
    pgw_fini(&world);
}
