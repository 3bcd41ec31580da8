/* Random schedules of sessions: many small worlds, one seed each. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sim/pg/chaos.h"
#include "sim/pg/world.h"

#define STEPS_MAX 40000
#define QUIET_MAX 3000 /* rounds without anything but time */

/* What a schedule does; chances are out of 10,000 per step. */
struct chaos {
    struct pgw_world w;
    uint32_t crash, promote, cut, move, cancel, goes, terminate, host, kill;
    struct hf_prng kills, clocks, workers;
    uint32_t clock, worker;
    bool bytewise;
    uint32_t quiet;
};

static struct chaos x;

static uint64_t below(uint64_t n)
{
    return hf_prng_below(&x.w.prng, n);
}

static bool chance(uint32_t c)
{
    return below(10000) < c;
}

static void begin(uint64_t seed)
{
    struct pgw_world *w = &x.w;
    struct hf_prng g;
    hf_prng_init(&g, seed ^ 0x9a7d);
    uint32_t n = hf_prng_below(&g, 3) ? 1 + (uint32_t)hf_prng_below(&g, 4) : 1;
    pgw_init(w, n, seed);
    bool saves = hf_prng_below(&w->save_prng, 3) == 0;
    x.host = saves ? (uint32_t)hf_prng_below(&w->save_prng, 30) : 0;
    if (saves) {
        pgw_saves(w);
    }
    hf_prng_init(&x.kills, seed ^ 0x6b1e); /* of its own: the kept seeds mean what they meant */
    x.kill = hf_prng_below(&x.kills, 6) == 0 ? (uint32_t)hf_prng_below(&x.kills, 20) : 0;
    hf_prng_init(&x.clocks, seed ^ 0xc10c);
    x.clock = hf_prng_below(&x.clocks, 4) == 0 ? (uint32_t)hf_prng_below(&x.clocks, 60) : 0;
    w->translated = !x.clock && hf_prng_below(&x.clocks, 3) == 0;
    hf_prng_init(&x.workers, seed ^ 0x3a11);
    x.worker = hf_prng_below(&x.workers, 4) == 0 ? (uint32_t)hf_prng_below(&x.workers, 3000) : 0;
    bool calm = below(8) == 0;
    x.crash = calm ? 0 : (uint32_t)below(30);
    x.promote = calm ? 0 : (uint32_t)below(20);
    x.cut = calm ? 0 : (uint32_t)below(40);
    x.move = below(3) ? (uint32_t)below(100) : 0;
    x.cancel = below(3) == 0 ? (uint32_t)below(60) : 0;
    x.goes = below(4) == 0 ? (uint32_t)below(20) : 0;
    x.terminate = below(6) == 0 ? (uint32_t)below(10) : 0;
    x.bytewise = below(2);
    x.quiet = 0;
    w->fenced = below(6) != 0;
    w->server.db.standby = below(5) != 0;
    w->conf.rehearse_moves = below(6) == 0 ? 1 + (uint32_t)below(5) : 0;
    w->conf.protect_writes = below(10) != 0;
    uint64_t kinds = below(4);
    for (uint32_t i = 0; i < n; i++) {
        pgw_connect(w, i, 4 + (uint32_t)below(16));
        struct pgc_client *c = &w->session[i].client;
        c->simple_only = below(4) == 0;
        c->no_copy = kinds != 0;
        c->no_volatile = kinds > 1;
        c->no_sequence = kinds > 1;
        c->no_state = kinds == 3;
        c->no_weak = kinds != 0;
    }
}

static size_t some(void)
{
    return x.bytewise ? 1 + below(12) : 1 + below(2000);
}

/* One thing, by chance. */
static bool anything(void)
{
    struct pgw_world *w = &x.w;
    struct pgw_session *s = &w->session[below(w->n)];
    switch (below(12)) {
    case 0:
        return pgw_client(s);
    case 1:
    case 2:
        return pgw_up(s, some());
    case 3:
        return pgw_to(s, HF_PG_SERVER, some()) || pgw_to(s, HF_PG_SPARE, some());
    case 4:
    case 5:
        return pgw_from(s, HF_PG_SERVER, some());
    case 6:
        return pgw_from(s, HF_PG_SPARE, some());
    case 7:
        return pgw_down(s, some());
    case 8:
        return pgw_backend(w, below(w->server.n + 1));
    case 9:
        if (w->up && w->server.db.flushed < w->server.db.n_wal) {
            pgs_flush(&w->server.db, w->server.db.flushed + 1 + below(3));
            return true;
        }
        return false;
    case 10:
        if (w->up && w->server.db.standby && w->server.db.replicated < w->server.db.flushed) {
            pgs_replicate(&w->server.db, w->server.db.replicated + 1 + below(3));
            return true;
        }
        return false;
    default:
        return pgw_attach(s, HF_PG_SERVER) || pgw_attach(s, HF_PG_SPARE) || pgw_cancel_arrives(s);
    }
}

/* Somebody ends its parallel worker, or that is how a fast shutdown begins. */
static void end_worker(struct pgw_session *s)
{
    struct pgw_world *w = &x.w;
    struct pgs_backend *b = s->conn[HF_PG_SERVER].b;
    if (!b || !b->alive || (b->wait != PGS_WAIT_LOCK && b->wait != PGS_WAIT_SLEEP)) {
        return;
    }
    pgw_tell(w, "-- a parallel worker ends");
    s->workers++;
    pgw_loss_noted(s); /* it is taken for one */
    pgs_end_worker(b);
    if (hf_prng_below(&x.workers, 2)) {
        (void)pgs_backend_step(b);
        pgw_crash(w, false, w->server.db.n_wal);
    }
}

static void fault(void)
{
    struct pgw_world *w = &x.w;
    struct pgs_db *db = &w->server.db;
    struct pgw_session *s = &w->session[below(w->n)];
    if (w->up && chance(x.crash)) {
        pgw_crash(w, false, db->flushed + below(db->n_wal - db->flushed + 1));
    }
    if (w->up && db->standby && chance(x.promote)) {
        pgw_crash(w, true, db->replicated + below(db->flushed - db->replicated + 1));
    }
    if (!w->up && chance(500)) {
        pgw_start(w);
    }
    if (w->up && !db->standby && chance(20)) { /* a new standby has caught up */
        pgs_flush(db, SIZE_MAX);
        db->replicated = db->flushed;
        db->standby = true;
    }
    if (w->saves) {
        if (hf_prng_below(&w->save_prng, 3) == 0) {
            (void)pgw_save(s);
        }
        if (hf_prng_below(&w->save_prng, 10000) < x.host) {
            pgw_host_dies(w);
        }
    }
    if (chance(x.cut)) {
        pgw_break(s, below(4) ? HF_PG_SERVER : HF_PG_SPARE, below(400), below(400));
    }
    if (chance(x.move) && !s->ended) {
        pgw_tell(w, "-- a move is asked for");
        hf_pg_session_move(s->core, w->now);
    }
    if (chance(x.cancel)) {
        pgw_cancel(s);
    }
    if (chance(x.goes)) {
        pgw_client_goes(s);
    }
    if (chance(x.terminate) && s->conn[HF_PG_SERVER].b) {
        pgw_tell(w, "-- an administrator terminates the backend");
        s->terminated = true;
        pgs_terminate(s->conn[HF_PG_SERVER].b);
    }
    if (hf_prng_below(&x.workers, 10000) < x.worker) {
        end_worker(s);
    }
    if (hf_prng_below(&x.clocks, 10000) < x.clock) {
        w->server.set += (int64_t)hf_prng_below(&x.clocks, 120000000) - 60000000;
    }
    if (hf_prng_below(&x.kills, 10000) < x.kill && !s->ended) {
        pgw_tell(w, "-- an administrator ends the session");
        s->terminated = true;
        hf_pg_session_kill(s->core, "57P01", "it is to end", w->now);
        pgw_after(s);
    }
}

/* Sessions that ended: their clients connect again. */
static void reconnect(void)
{
    struct pgw_world *w = &x.w;
    for (uint32_t i = 0; i < w->n; i++) {
        struct pgw_session *s = &w->session[i];
        if (s->ended && !s->down.n && !s->cancel_pending) {
            pgw_word(s);
            pgc_disconnect(&s->client);
            pgw_tell(w, "-- client %u connects again", i);
            pgw_connect(w, i, 0);
        }
    }
}

static bool all_done(void)
{
    for (uint32_t i = 0; i < x.w.n; i++) {
        const struct pgw_session *s = &x.w.session[i];
        if (s->ended || !pgc_done(&s->client)) {
            return false;
        }
    }
    return true;
}

static void run(void)
{
    struct pgw_world *w = &x.w;
    uint64_t misses = 0;
    while (w->n_steps < STEPS_MAX / 2 && !all_done()) {
        misses = anything() ? 0 : misses + 1;
        fault();
        reconnect();
        if (misses > 60 || chance(3)) {
            pgw_time(w, HF_MS(5 + (hf_time)below(200)));
            misses = 0;
            x.quiet++;
        }
        if (x.quiet > QUIET_MAX) {
            break;
        }
    }
    /* no faults from now on: everybody gets to the end */
    pgw_start(w);
    for (uint32_t i = 0; i < 4000 && !all_done(); i++) {
        pgw_settle(w);
        reconnect();
        pgw_settle(w);
        pgw_time(w, HF_MS(200));
    }
    for (uint32_t i = 0; i < w->n; i++) {
        const struct pgw_session *s = &w->session[i];
        if (!s->ended && !pgc_done(&s->client)) {
            struct hf_pg_session_info info;
            hf_pg_session_info(s->core, &info);
            pgw_failed(w, "session %u does not come to an end: %s, tx %c, client waits for %u", i,
                       hf_pg_state_name(info.state), info.tx, s->client.outstanding);
        }
    }
    pgw_check(w, true);
}

const char *const pgx_figures[] = {"steps",
                                   "crashes",
                                   "deaths of the manager's host",
                                   "transactions acknowledged",
                                   "errors",
                                   "moves",
                                   "replays",
                                   "in doubt and committed",
                                   "and not",
                                   "and unknown",
                                   NULL};

void pgx_run(uint64_t seed, FILE *trace, struct sim_run *ret)
{
    jmp_buf fail;
    struct pgw_world *w = &x.w;
    w->fail = &fail;
    w->trace = trace;
    if (setjmp(fail) == 0) {
        begin(seed);
        run();
    }
    *ret = (struct sim_run){.figure = {w->n_steps, w->n_crashes, w->n_hosts}};
    snprintf(ret->why, sizeof(ret->why), "%s", w->why);
    for (uint32_t i = 0; i < w->n; i++) {
        const struct pgw_session *s = &w->session[i];
        const uint64_t n[] = {s->client.n_acked, s->client.n_errors, s->n_moved,     s->n_replayed,
                              s->n_committed,    s->n_aborted,       s->n_unresolved};
        for (size_t k = 0; k < HF_ARRAY_LEN(n); k++) {
            ret->figure[3 + k] += n[k];
        }
    }
    pgw_fini(w);
}
