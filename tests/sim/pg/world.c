/* The simulated world of sessions: links, driver, faults. */
#include "sim/pg/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "codec/pg_v3.h"
#include "support/sim_net.h"

#define ROOM (16u << 20)
#define STEP_NS 1000 /* each thing that happens takes so long */

void pgw_tell(struct pgw_world *w, const char *fmt, ...)
{
    va_list ap;
    if (!w->trace) {
        return;
    }
    va_start(ap, fmt);
    vfprintf(w->trace, fmt, ap);
    va_end(ap);
    fputc('\n', w->trace);
}

void pgw_failed(struct pgw_world *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->why, sizeof(w->why), fmt, ap);
    va_end(ap);
    pgw_tell(w, "FAILED: %s", w->why);
    longjmp(*w->fail, 1);
}

/* ---- telling ---- */

/* A message's text, as a story has it. */
static void tell_message(struct pgw_session *s, const char *who, bool front, uint8_t type,
                         struct hf_slice body)
{
    char text[160] = "";
    struct hf_slice a, b;
    struct hf_rd r;
    struct hf_pg_parse p;
    hf_rd_init(&r, body);
    if (front && type == 'Q') {
        snprintf(text, sizeof(text), " \"%.*s\"", (int)body.n - 1, (const char *)body.p);
    } else if (front && type == 'P' && hf_pg_parse_read(body, &p) == 0) {
        snprintf(text, sizeof(text), " \"%.*s\"", HF_SLICE_FMT(p.sql));
    } else if (front && type == 'F') {
        snprintf(text, sizeof(text), " function %u", hf_rd_u32(&r));
    } else if (!front && (type == 'E' || type == 'N')) {
        a = hf_pg_error_field(body, 'C');
        b = hf_pg_error_field(body, 'M');
        snprintf(text, sizeof(text), " %.*s %.*s", HF_SLICE_FMT(a), HF_SLICE_FMT(b));
    } else if (!front && type == 'C') {
        snprintf(text, sizeof(text), " %.*s", (int)body.n - 1, (const char *)body.p);
    } else if (!front && type == 'Z') {
        snprintf(text, sizeof(text), " %c", body.n ? body.p[0] : '?');
    } else if (!front && type == 'D') {
        uint16_t n;
        size_t k = 0;
        if (hf_pg_values_begin(body, &r, &n) == 0) {
            while (n-- > 0 && k < 60 && hf_pg_value_next(&r, &a) == 0) {
                k += (size_t)snprintf(text + k, sizeof(text) - k, " %.*s",
                                      a.p ? (a.n < 40 ? (int)a.n : 40) : 4,
                                      a.p ? (const char *)a.p : "NULL");
            }
        }
    } else if (!front && type == 'A') {
        (void)hf_rd_u32(&r);
        a = hf_pg_rd_cstr(&r);
        b = hf_pg_rd_cstr(&r);
        snprintf(text, sizeof(text), " %.*s \"%.*s\"", HF_SLICE_FMT(a), HF_SLICE_FMT(b));
    }
    if (s->w->n == 1) {
        pgw_tell(s->w, "%s %c%s", who, type, text);
    } else {
        pgw_tell(s->w, "%u: %s %c%s", s->i, who, type, text);
    }
}

/* Whole messages that begin in bytes; a run cut within one is told as far as it goes. */
static size_t tell_bytes(struct pgw_session *s, const char *who, bool front, struct hf_slice bytes)
{
    struct hf_pg_head h;
    size_t told = 0;
    while (s->w->trace && hf_pg_head_read(bytes, &h) == 0 &&
           bytes.n >= HF_PG_HEAD_LEN + (size_t)h.body_len) {
        tell_message(s, who, front, h.type, hf_slice(bytes.p + HF_PG_HEAD_LEN, h.body_len));
        size_t n = HF_PG_HEAD_LEN + (size_t)h.body_len;
        bytes = hf_slice(bytes.p + n, bytes.n - n);
        told += n;
    }
    return told;
}

/* ---- what the core asks for ---- */

static void op_send(void *arg, enum hf_pg_side to, struct hf_slice bytes)
{
    struct pgw_session *s = arg;
    if (s->ended) {
        return;
    }
    s->unsaved = true;
    if (to == HF_PG_CLIENT) {
        hf_buf_add(s->w->saves ? &s->down_held : &s->down, bytes);
        return;
    }
    if (s->w->trace) { /* it may come in pieces */
        struct hf_buf *t = &s->conn[to].told;
        hf_buf_add(t, bytes);
        hf_buf_consume(t, tell_bytes(s, to == HF_PG_SERVER ? "  server <-" : "  spare <-", true,
                                     hf_buf_slice(t)));
    }
    if (s->conn[to].b && !s->conn[to].cut) {
        hf_buf_add(s->w->saves ? &s->conn[to].held : &s->conn[to].to, bytes);
    }
}

static void op_need(void *arg, enum hf_pg_side side)
{
    struct pgw_session *s = arg;
    if (s->need[side]) {
        pgw_failed(s->w, "session %u asks twice for side %d", s->i, side);
    }
    s->need[side] = true;
}

void pgw_conn_clear(struct pgw_conn *c)
{
    c->b = NULL;
    c->cut = false;
    hf_buf_clear(&c->to);
    hf_buf_clear(&c->from);
    hf_buf_clear(&c->in);
    hf_buf_clear(&c->told);
    hf_buf_clear(&c->held);
}

/* What was sent arrives, then Terminate, then the end. */
static void op_drop(void *arg, enum hf_pg_side side)
{
    struct pgw_session *s = arg;
    struct pgw_conn *c = &s->conn[side];
    static const uint8_t terminate[] = {'X', 0, 0, 0, 4};
    s->need[side] = false;
    if (c->b && !c->cut) {
        pgs_backend_input(c->b, hf_buf_slice(&c->to));
        if (s->w->saves) {
            if (s->n_dropped == HF_ARRAY_LEN(s->dropped)) {
                pgw_failed(s->w, "session %u drops many connections", s->i);
            }
            s->dropped[s->n_dropped++] = (struct pgw_dropped){.b = c->b, .last = c->held};
            hf_buf_init(&c->held, ROOM);
        } else {
            pgs_backend_input(c->b, hf_slice(terminate, sizeof(terminate)));
            c->b->eof = true;
        }
    }
    pgw_conn_clear(c);
}

static void op_swap(void *arg)
{
    struct pgw_session *s = arg;
    struct pgw_conn old = s->conn[HF_PG_SERVER];
    s->conn[HF_PG_SERVER] = s->conn[HF_PG_SPARE];
    s->conn[HF_PG_SPARE] = old;
    pgw_conn_clear(&s->conn[HF_PG_SPARE]);
    s->incarnation = s->conn[HF_PG_SERVER].incarnation;
}

static void op_end(void *arg)
{
    struct pgw_session *s = arg;
    s->ended = true;
}

static void op_note(void *arg, enum hf_pg_note note, uint64_t a, uint64_t b, const char *text)
{
    static const char *const name[] = {
#define NAME(n, t) #n,
        HF_PG_NOTE_LIST(NAME)
#undef NAME
    };
    struct pgw_session *s = arg;
    s->n_moved += note == HF_PG_NOTE_MOVED;
    s->n_replayed += note == HF_PG_NOTE_REPLAYED;
    s->n_committed += note == HF_PG_NOTE_COMMITTED;
    s->n_aborted += note == HF_PG_NOTE_ABORTED;
    s->n_unresolved += note == HF_PG_NOTE_UNRESOLVED;
    if (note == HF_PG_NOTE_UNPROTECTED) {
        s->told = (uint32_t)a;
    }
    if (!s->w->trace || note == HF_PG_NOTE_REQUEST || note == HF_PG_NOTE_TRANSACTION) {
        return;
    }
    if (note == HF_PG_NOTE_REPLAYED) {
        pgw_tell(s->w, "  replay %" PRIu64 " units, %" PRIu64 " bytes equal", a, b);
    } else if (note == HF_PG_NOTE_IN_DOUBT) {
        pgw_tell(s->w, "  in doubt: xid %" PRIu64, a);
    } else if (note == HF_PG_NOTE_COMMITTED) {
        pgw_tell(s->w, "  resolving xid %" PRIu64 ": committed", a);
    } else if (note == HF_PG_NOTE_ABORTED) {
        pgw_tell(s->w, "  resolving xid %" PRIu64 ": not committed (fence %" PRIu64 ")", a,
                 s->w->server.db.fence);
    } else if (note == HF_PG_NOTE_UNPROTECTED) {
        pgw_tell(s->w, "  unprotected: %s",
                 a ? hf_pg_reason_text((uint32_t)(a & -a)) : "not any more");
    } else {
        pgw_tell(s->w, "  note %s%s%s", name[note], *text ? ": " : "", text);
    }
}

const struct hf_pg_session_ops pgw_ops = {
    .send = op_send,
    .need = op_need,
    .drop = op_drop,
    .swap = op_swap,
    .end = op_end,
    .note = op_note,
};

/* ---- after each call into the core ---- */

void pgw_after(struct pgw_session *s)
{
    s->unsaved = true;
    while (!s->ended && s->in.n && hf_pg_session_wants_client(s->core)) {
        size_t n = hf_pg_session_from_client(s->core, hf_buf_slice(&s->in), s->w->now);
        if (n > s->in.n) {
            pgw_failed(s->w, "session %u consumed more than there is", s->i);
        }
        if (n == 0) {
            break;
        }
        hf_buf_consume(&s->in, n);
    }
    if (s->w->memory.used > s->w->memory.max) {
        pgw_failed(s->w, "%zu bytes of memory in use", s->w->memory.used);
    }
    pgw_ahead(s);
    if (s->w->saves && (s->ended || hf_prng_below(&s->w->save_prng, 3))) {
        pgw_save(s);
    }
}

/* Where a connection is now: the core may have dropped it, or made the spare the server. */
static struct pgw_conn *conn_of(struct pgw_session *s, const struct pgs_backend *b)
{
    for (int side = HF_PG_SERVER; side <= HF_PG_SPARE; side++) {
        if (s->conn[side].b == b) {
            return &s->conn[side];
        }
    }
    return NULL;
}

static void feed_server(struct pgw_session *s, enum hf_pg_side side)
{
    struct pgw_conn *c = &s->conn[side];
    const struct pgs_backend *b = c->b;
    struct hf_pg_head head;
    while (!s->ended && c && c->in.n) {
        size_t had = c->in.n;
        side = c == &s->conn[HF_PG_SPARE] ? HF_PG_SPARE : HF_PG_SERVER;
        size_t n = hf_pg_session_from_server(s->core, side, hf_buf_slice(&c->in), s->w->now);
        if (n > had) {
            pgw_failed(s->w, "session %u consumed more than there is", s->i);
        }
        c = conn_of(s, b);
        if (n == 0 || !c) {
            break;
        }
        hf_buf_consume(&c->in, n);
    }
    if (!s->ended && c && hf_pg_head_read(hf_buf_slice(&c->in), &head) == 0 &&
        c->in.n >= HF_PG_HEAD_LEN + head.body_len) {
        pgw_failed(s->w, "session %u leaves a message of its server's lie", s->i);
    }
    pgw_after(s);
}

/* ---- things that happen ---- */

static void tick(struct pgw_world *w)
{
    w->now += STEP_NS;
    w->server.now = (uint64_t)w->now / 1000;
    w->n_steps++;
}

bool pgw_client(struct pgw_session *s)
{
    if (!pgc_step(&s->client)) {
        return false;
    }
    (void)tell_bytes(s, "client ->", true, hf_buf_slice(&s->client.out));
    hf_buf_add(&s->up, hf_buf_slice(&s->client.out));
    hf_buf_clear(&s->client.out);
    tick(s->w);
    return true;
}

static size_t chunk(const struct hf_buf *b, size_t n)
{
    return n < b->n ? n : b->n;
}

bool pgw_up(struct pgw_session *s, size_t n)
{
    if (!s->up.n || s->ended) {
        return false;
    }
    n = chunk(&s->up, n);
    hf_buf_add(&s->in, hf_slice(s->up.p, n));
    if (s->w->saves) {
        hf_buf_add(&s->in_saved, hf_slice(s->up.p, n));
    }
    hf_buf_consume(&s->up, n);
    tick(s->w);
    pgw_after(s);
    return true;
}

bool pgw_down(struct pgw_session *s, size_t n)
{
    if (!s->down.n) {
        return false;
    }
    n = chunk(&s->down, n);
    if (s->client.connected) {
        if (s->w->trace) { /* whole messages, as they become complete */
            struct hf_buf all;
            hf_buf_init(&all, ROOM);
            hf_buf_add(&all, hf_buf_slice(&s->client.in));
            hf_buf_add(&all, hf_slice(s->down.p, n));
            (void)tell_bytes(s, "client <-", false, hf_buf_slice(&all));
            hf_buf_fini(&all);
        }
        if (!pgc_input(&s->client, hf_slice(s->down.p, n))) {
            pgw_failed(s->w, "%s", s->client.wrong);
        }
    }
    hf_buf_consume(&s->down, n);
    tick(s->w);
    return true;
}

bool pgw_to(struct pgw_session *s, enum hf_pg_side side, size_t n)
{
    struct pgw_conn *c = &s->conn[side];
    if (!c->b || c->cut || !c->to.n) {
        return false;
    }
    n = chunk(&c->to, n);
    pgs_backend_input(c->b, hf_slice(c->to.p, n));
    hf_buf_consume(&c->to, n);
    tick(s->w);
    return true;
}

void pgw_loss_noted(struct pgw_session *s)
{
    struct hf_pg_session_info info;
    hf_pg_session_info(s->core, &info);
    s->losses++;
    s->reasons |= s->told | info.reasons;
}

/* The loss is told; the connection is nobody's any more. */
static void lost(struct pgw_session *s, enum hf_pg_side side)
{
    pgw_conn_clear(&s->conn[side]);
    if (side == HF_PG_SERVER) {
        pgw_loss_noted(s);
    }
    pgw_tell(s->w, "%s lost", side == HF_PG_SERVER ? "server" : "spare");
    hf_pg_session_server_gone(s->core, side, "connection lost", s->w->now);
    pgw_after(s);
}

bool pgw_from(struct pgw_session *s, enum hf_pg_side side, size_t n)
{
    struct pgw_conn *c = &s->conn[side];
    if (!c->b || s->ended) {
        return false;
    }
    if (!c->cut) {
        struct hf_slice out = pgs_backend_output(c->b);
        hf_buf_add(&c->from, out);
        pgs_backend_sent(c->b, out.n);
    }
    if (c->from.n) {
        n = chunk(&c->from, n);
        hf_buf_add(&c->in, hf_slice(c->from.p, n));
        hf_buf_consume(&c->from, n);
        tick(s->w);
        feed_server(s, side);
        return true;
    }
    if (c->cut || c->b->closed) {
        tick(s->w);
        lost(s, side);
        return true;
    }
    return false;
}

bool pgw_backend(struct pgw_world *w, size_t i)
{
    if (i >= w->server.n) {
        return false;
    }
    struct pgs_backend *b = w->server.backend[i];
    if (b->terminated && b->wait == PGS_WAIT_SYNC) {
        w->unreplicated = true;
    }
    if (b->cancelled && b->wait == PGS_WAIT_SYNC) {
        w->unreplicated = true;
    }
    if (pgs_backend_step(b)) {
        tick(w);
        return true;
    }
    if (!b->alive) { /* to be forgotten, when nobody is connected to it any more */
        for (uint32_t k = 0; k < w->n; k++) {
            const struct pgw_session *s = &w->session[k];
            bool dropped = false;
            for (size_t d = 0; d < s->n_dropped; d++) {
                dropped |= s->dropped[d].b == b;
            }
            if (s->conn[HF_PG_SERVER].b == b || s->conn[HF_PG_SPARE].b == b || dropped) {
                return false;
            }
        }
        pgs_backend_free(b);
    }
    return false;
}

bool pgw_attach(struct pgw_session *s, enum hf_pg_side side)
{
    struct pgw_world *w = s->w;
    if (!s->need[side] || !w->up || s->ended) {
        return false;
    }
    struct pgw_conn *c = &s->conn[side];
    struct pgs_backend *b = pgs_backend_start(&w->server, "app");
    struct hf_buf params;
    struct hf_pg_backend info = {.incarnation = w->server.db.incarnation,
                                 .pid = b->pid,
                                 .port = w->translated ? 0 : b->port};
    pgw_conn_clear(c);
    c->b = b;
    c->incarnation = info.incarnation;
    hf_buf_init(&params, 65536);
    pgs_backend_params(b, &params);
    info.params = hf_buf_slice(&params);
    info.same = s->attached_once && s->incarnation == info.incarnation;
    info.fenced = s->attached_once && !info.same && w->fenced;
    info.fence = UINT64_MAX;
    for (uint64_t i = s->incarnation + 1; i <= info.incarnation; i++) {
        uint64_t f = w->fence[i % PGW_INCARNATIONS_MAX];
        info.fence = f < info.fence ? f : info.fence;
    }
    s->need[side] = false;
    if (side == HF_PG_SERVER) {
        s->incarnation = info.incarnation;
        s->attached_once = true;
    }
    tick(w);
    pgw_tell(w, "%s attached%s", side == HF_PG_SERVER ? "server" : "spare",
             info.same     ? ", the same incarnation"
             : info.fenced ? ", fenced"
                           : "");
    hf_pg_session_attach(s->core, side, &info, w->now);
    hf_buf_fini(&params);
    pgw_after(s);
    return true;
}

bool pgw_cancel_arrives(struct pgw_session *s)
{
    if (!s->cancel_pending) {
        return false;
    }
    struct pgs_backend *b = pgs_backend_find(&s->w->server, s->cancel_pid);
    s->cancel_pending = false;
    if (b) {
        pgs_cancel(b);
        s->cancels++;
    }
    tick(s->w);
    if (!s->ended) {
        hf_pg_session_cancelled(s->core, s->w->now);
        pgw_after(s);
    }
    return true;
}

/* Nothing ends silently; only in the middle of a message nothing can be said. */
void pgw_word(struct pgw_session *s)
{
    if (!s->client.fatal && !s->clean && !s->client.in.n) {
        pgw_failed(s->w, "session %u ended without a word", s->i);
    }
}

/* The client's side, when the core has ended the session. */
static bool ended(struct pgw_session *s)
{
    if (!s->ended || s->down.n || !s->client.connected) {
        return false;
    }
    pgw_word(s);
    pgc_disconnect(&s->client);
    return true;
}

static bool session_goes_on(struct pgw_session *s)
{
    return pgw_save(s) | pgw_client(s) | pgw_up(s, SIZE_MAX) | pgw_to(s, HF_PG_SERVER, SIZE_MAX) |
           pgw_to(s, HF_PG_SPARE, SIZE_MAX) | pgw_from(s, HF_PG_SERVER, SIZE_MAX) |
           pgw_from(s, HF_PG_SPARE, SIZE_MAX) | pgw_down(s, SIZE_MAX) |
           pgw_attach(s, HF_PG_SERVER) | pgw_attach(s, HF_PG_SPARE) | pgw_cancel_arrives(s) |
           ended(s);
}

void pgw_settle(struct pgw_world *w)
{
    bool more = true;
    for (uint32_t rounds = 0; more; rounds++) {
        more = false;
        for (uint32_t i = 0; i < w->n; i++) {
            more |= session_goes_on(&w->session[i]);
        }
        for (size_t i = w->server.n; i-- > 0;) {
            more |= pgw_backend(w, i);
        }
        const struct pgs_db *db = &w->server.db;
        if (w->up && (db->flushed < db->n_wal || db->replicated < db->flushed)) {
            pgs_flush(&w->server.db, SIZE_MAX);
            pgs_replicate(&w->server.db, SIZE_MAX);
            more = true;
        }
        if (rounds > 20000) {
            pgw_failed(w, "it never comes to rest");
        }
    }
}

void pgw_time(struct pgw_world *w, hf_time most)
{
    hf_time to = w->now + most;
    for (uint32_t i = 0; i < w->n; i++) {
        if (!w->session[i].ended) {
            to = hf_time_min(to, hf_pg_session_deadline(w->session[i].core));
        }
    }
    for (size_t i = 0; i < w->server.n; i++) {
        const struct pgs_backend *b = w->server.backend[i];
        if (b->alive && b->wait == PGS_WAIT_SLEEP) {
            to = hf_time_min(to, (hf_time)b->sleep_until * 1000);
        }
    }
    w->now = to > w->now ? to : w->now + STEP_NS;
    w->server.now = (uint64_t)w->now / 1000;
    for (uint32_t i = 0; i < w->n; i++) {
        struct pgw_session *s = &w->session[i];
        if (!s->ended && w->now >= hf_pg_session_deadline(s->core)) {
            hf_pg_session_step(s->core, w->now);
            pgw_after(s);
        }
    }
}

/* ---- faults ---- */

void pgw_crash(struct pgw_world *w, bool promotion, size_t keep)
{
    if (!w->up) {
        return;
    }
    pgw_tell(w, "-- the server %s", promotion ? "dies, its standby is promoted" : "crashes");
    for (uint32_t i = 0; i < w->n; i++) {
        for (int side = HF_PG_SERVER; side <= HF_PG_SPARE; side++) {
            struct pgw_conn *c = &w->session[i].conn[side];
            if (!c->b || c->cut) {
                continue;
            }
            struct hf_slice out = pgs_backend_output(c->b);
            hf_buf_add(&c->from, out);
            c->from.n = (size_t)hf_prng_below(&w->prng, c->from.n + 1);
            c->cut = true;
        }
    }
    pgs_server_crash(&w->server, keep, promotion);
    w->up = false;
    w->n_crashes++;
    w->fence[w->server.db.incarnation % PGW_INCARNATIONS_MAX] = w->server.db.fence;
    w->unreplicated = false;
    pgw_check(w, false);
}

void pgw_start(struct pgw_world *w)
{
    if (!w->up) { /* X4: a marker before it opens */
        pgs_flush(&w->server.db, SIZE_MAX);
        pgs_replicate(&w->server.db, SIZE_MAX);
        w->up = true;
        pgw_tell(w, "-- the server is open: timeline %u, fence %" PRIu64, w->server.db.timeline,
                 w->server.db.fence);
    }
}

void pgw_break(struct pgw_session *s, enum hf_pg_side side, size_t to, size_t from)
{
    struct pgw_conn *c = &s->conn[side];
    if (!c->b || c->cut) {
        return;
    }
    pgw_tell(s->w, "-- the connection breaks, the backend lives on");
    struct hf_slice out = pgs_backend_output(c->b);
    hf_buf_add(&c->from, out);
    pgs_backend_sent(c->b, out.n);
    c->from.n = chunk(&c->from, from);
    pgs_backend_input(c->b, hf_slice(c->to.p, chunk(&c->to, to)));
    c->b->eof = true;
    c->cut = true;
}

void pgw_cancel(struct pgw_session *s)
{
    if (s->ended || s->cancel_pending) {
        return;
    }
    if (hf_pg_session_cancel(s->core, s->w->now)) {
        pgw_tell(s->w, "-- a CancelRequest is forwarded");
        s->cancel_pending = true;
        s->cancel_pid = s->conn[HF_PG_SERVER].b ? s->conn[HF_PG_SERVER].b->pid : 0;
    }
    pgw_after(s);
}

void pgw_client_goes(struct pgw_session *s)
{
    if (s->ended) {
        return;
    }
    pgw_tell(s->w, "-- the client goes");
    s->clean = true;
    pgc_disconnect(&s->client);
    hf_pg_session_client_gone(s->core, s->w->now);
    s->unsaved = true;
    pgw_save(s);
    hf_buf_clear(&s->up);
    hf_buf_clear(&s->down);
}

/* ---- life ---- */

static void begun(void *arg, struct pgc_txn *t)
{
    struct pgw_session *s = arg;
    t->losses = t->chained ? t[-1].losses : s->losses;
    s->reasons = t->alone && !t->chained ? 0 : s->reasons;
    t->commits = s->w->server.db.n_commits;
    t->seq_lost = s->w->server.db.n_seq_lost;
}

struct hf_pg_session_args pgw_args(struct pgw_world *w)
{
    uint64_t seed = hf_prng_u64(&w->prng);
    return (struct hf_pg_session_args){.conf = &w->conf,
                                       .memory = &w->memory,
                                       .classifier = w->classifier,
                                       .user = hf_slice_str("app"),
                                       .login_again = true,
                                       .leave_idle = (seed & 1) != 0,
                                       .cancel_key = hf_slice_str("key!"),
                                       .seed = seed};
}

void pgw_connect(struct pgw_world *w, uint32_t i, uint32_t txns_max)
{
    struct pgw_session *s = &w->session[i];
    bool first = s->core == NULL;
    hf_pg_session_destroy(s->core);
    s->core = NULL;
    if (w->saves) {
        pgw_forget(s);
        s->unsaved = false;
        hf_buf_clear(&s->in_saved);
        hf_buf_clear(&s->down_held);
    }
    hf_buf_clear(&s->up);
    hf_buf_clear(&s->down);
    hf_buf_clear(&s->in);
    for (int k = 0; k < 3; k++) {
        pgw_conn_clear(&s->conn[k]);
        s->need[k] = false;
    }
    s->ended = s->clean = s->attached_once = s->cancel_pending = s->terminated = false;
    s->workers = 0;
    s->told = s->reasons = s->reasons_saved = 0;
    s->incarnation = 0;
    if (first) {
        pgc_init(&s->client, i, hf_prng_u64(&w->prng), txns_max);
        s->client.on_begin = begun;
        s->client.on_error = pgw_error;
        s->client.arg = s;
    }
    struct hf_pg_session_args args = pgw_args(w);
    if (hf_pg_session_create(&args, &pgw_ops, s, w->now, &s->core)) {
        pgw_failed(w, "no memory");
    }
    pgc_connect(&s->client);
}

/* The catalog, as PostgreSQL would tell it. */
static void catalog(struct pgw_world *w)
{
    static const struct {
        char kind;
        const char *name;
    } rows[] = {{'r', "accounts"}, {'r', "log"},       {'r', "once"}, {'f', "count"},
                {'f', "now"},      {'o', "+"},         {'o', "="},    {'o', "/"},
                {'t', "int4"},     {'t', "int8"},      {'t', "text"}, {'f', "current_setting"},
                {'F', "random"},   {'s', "log\nid\n1"}};
    hf_pg_catalog_begin(w->classifier);
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        if (hf_pg_catalog_row(w->classifier, rows[i].kind, hf_slice_str(rows[i].name))) {
            pgw_failed(w, "no memory");
        }
    }
    hf_pg_catalog_end(w->classifier);
}

void pgw_init(struct pgw_world *w, uint32_t n, uint64_t seed)
{
    jmp_buf *fail = w->fail;
    FILE *trace = w->trace;
    memset(w, 0, sizeof(*w));
    w->fail = fail;
    w->trace = trace;
    hf_prng_init(&w->prng, seed);
    hf_prng_init(&w->save_prng, seed);
    pgs_server_init(&w->server, hf_prng_u64(&w->prng));
    w->now = HF_S(1000);
    w->server.now = (uint64_t)w->now / 1000;
    w->conf = (struct hf_pg_session_conf){.protect_writes = true,
                                          .log_max = 1u << 20,
                                          .prepared_max = 1u << 20,
                                          .hold_timeout = HF_S(30),
                                          .replay_timeout = HF_S(30),
                                          .move_timeout = HF_S(60)};
    w->memory.max = 64u << 20;
    w->up = w->fenced = true;
    w->server.db.standby = true;
    w->n = n;
    for (uint32_t i = 0; i < PGW_SESSIONS_MAX; i++) {
        struct pgw_session *s = &w->session[i];
        s->w = w;
        s->i = i;
        hf_buf_init(&s->up, ROOM);
        hf_buf_init(&s->down, ROOM);
        hf_buf_init(&s->in, ROOM);
        hf_buf_init(&s->in_saved, ROOM);
        hf_buf_init(&s->down_held, ROOM);
        for (int k = 0; k < 3; k++) {
            hf_buf_init(&s->conn[k].to, ROOM);
            hf_buf_init(&s->conn[k].from, ROOM);
            hf_buf_init(&s->conn[k].in, ROOM);
            hf_buf_init(&s->conn[k].told, ROOM);
            hf_buf_init(&s->conn[k].held, ROOM);
        }
    }
    if (hf_pg_classifier_create(256, seed, &w->classifier)) {
        pgw_failed(w, "no memory");
    }
    catalog(w);
}

void pgw_fini(struct pgw_world *w)
{
    for (uint32_t i = 0; i < PGW_SESSIONS_MAX; i++) {
        struct pgw_session *s = &w->session[i];
        hf_pg_session_destroy(s->core);
        pgc_fini(&s->client);
        hf_buf_fini(&s->up);
        hf_buf_fini(&s->down);
        hf_buf_fini(&s->in);
        for (int k = 0; k < 3; k++) {
            hf_buf_fini(&s->conn[k].to);
            hf_buf_fini(&s->conn[k].from);
            hf_buf_fini(&s->conn[k].in);
            hf_buf_fini(&s->conn[k].told);
            hf_buf_fini(&s->conn[k].held);
        }
    }
    pgw_saves_fini(w);
    hf_pg_classifier_destroy(w->classifier);
    pgs_server_fini(&w->server);
}
