/* The manager's host in simulations of sessions: what a peer has of them, and its death. */
#include "sim/pg/world.h"
#include "support/pg_saved.h"

static struct pg_saved saved_of(const struct pgw_session *s)
{
    return (struct pg_saved){.store = s->w->store, .id = s->i + 1};
}

/* ---- saving: one atomic batch for all that a session did since the last one ---- */

static void let_out(struct pgw_session *s)
{
    static const uint8_t terminate[] = {'X', 0, 0, 0, 4};
    hf_buf_add(&s->down, hf_buf_slice(&s->down_held));
    hf_buf_clear(&s->down_held);
    for (int side = HF_PG_SERVER; side <= HF_PG_SPARE; side++) {
        struct pgw_conn *c = &s->conn[side];
        if (c->b && !c->cut) {
            hf_buf_add(&c->to, hf_buf_slice(&c->held));
        }
        hf_buf_clear(&c->held);
    }
    for (size_t i = 0; i < s->n_dropped; i++) {
        struct pgw_dropped *d = &s->dropped[i];
        pgs_backend_input(d->b, hf_buf_slice(&d->last));
        pgs_backend_input(d->b, hf_slice(terminate, sizeof(terminate)));
        d->b->eof = true;
        hf_buf_fini(&d->last);
    }
    s->n_dropped = 0;
}

bool pgw_save(struct pgw_session *s)
{
    if (!s->w->saves || !s->unsaved) {
        return false;
    }
    if (!s->ended) {
        struct pg_saved p = saved_of(s);
        if (hf_prng_below(&s->w->save_prng, 50) == 0) { /* another peer, which has nothing */
            pg_saved_end(&p);
            hf_pg_session_save_all(s->core);
        }
        if (pg_saved_save(&p, s->core)) {
            pgw_failed(s->w, "the peer does not take what session %u saved", s->i);
        }
        hf_buf_clear(&s->in_saved);
        hf_buf_add(&s->in_saved, hf_buf_slice(&s->in));
        s->pid_saved = s->conn[HF_PG_SERVER].b ? s->conn[HF_PG_SERVER].b->pid : 0;
        s->incarnation_saved = s->incarnation;
        s->attached_saved = s->attached_once;
        struct hf_pg_session_info info;
        hf_pg_session_info(s->core, &info);
        s->reasons_saved = info.reasons;
    }
    s->unsaved = false;
    let_out(s);
    return true;
}

/* What need not wait for the peer does not. */
void pgw_ahead(struct pgw_session *s)
{
    struct pgw_conn *c = &s->conn[HF_PG_SERVER];
    bool asked;
    if (s->w->saves && !s->ended && c->held.n && c->b && !c->cut && c->b->pid == s->pid_saved &&
        hf_pg_session_ahead(s->core, &asked)) {
        hf_buf_add(&c->to, hf_buf_slice(&c->held));
        hf_buf_clear(&c->held);
        s->w->n_ahead++;
    }
}

void pgw_forget(struct pgw_session *s)
{
    struct pg_saved p = saved_of(s);
    pg_saved_end(&p);
}

/* ---- the death of the host ---- */

static void connections_die(struct pgw_session *s)
{
    for (size_t i = 0; i < s->n_dropped; i++) {
        s->dropped[i].b->eof = true;
        hf_buf_fini(&s->dropped[i].last);
    }
    s->n_dropped = 0;
    for (int side = HF_PG_SERVER; side <= HF_PG_SPARE; side++) {
        pgw_break(s, (enum hf_pg_side)side, hf_prng_below(&s->w->prng, 400), 0);
        pgw_conn_clear(&s->conn[side]);
        s->need[side] = false;
    }
    hf_buf_clear(&s->down_held);
}

/* What a manager does beside: the processes of those that it took over are ended. */
static void end_former(struct pgw_world *w, const struct pgw_session *s)
{
    struct hf_pg_backend former;
    struct pgs_backend *b;
    if (hf_pg_session_former(s->core, &former) && (b = pgs_backend_find(&w->server, former.pid)) &&
        pgs_backend_is(b, former.port, (double)(w->now - former.since) / HF_NS_PER_S)) {
        pgs_terminate(b);
    }
}

static void load(struct pgw_session *s)
{
    struct pgw_world *w = s->w;
    struct pg_saved p = saved_of(s);
    if (!hf_pair_store_find(w->store, p.id) ||
        s->clean) { /* the client had not heard of anything, or is gone */
        s->ended = s->clean = true;
        return;
    }
    struct hf_pg_session_args args = pgw_args(w);
    struct hf_pg_saved from = pg_saved_load(&p);
    hf_buf_clear(&s->in);
    hf_buf_add(&s->in, hf_buf_slice(&s->in_saved));
    s->incarnation = s->incarnation_saved;
    s->attached_once = s->attached_saved;
    s->pid_saved = 0;
    s->core = NULL;
    int rc = hf_pg_session_load(&args, &pgw_ops, s, &from, w->now, &s->core);
    if (rc) {
        pgw_failed(w, "what session %u saved can't be loaded: %d", s->i, rc);
    } else if (args.seed & 2) {
        end_former(w, s);
    }
    s->unsaved = true;
    pgw_forget(s); /* the next peer begins with nothing */
}

void pgw_host_dies(struct pgw_world *w)
{
    if (!w->saves) {
        return;
    }
    pgw_tell(w, "-- the manager's host dies");
    for (uint32_t i = 0; i < w->n; i++) {
        struct pgw_session *s = &w->session[i];
        if (s->ended) {
            continue;
        }
        pgw_loss_noted(s);
        s->reasons |= s->reasons_saved; /* an answer not let out: it runs still */
        connections_die(s);
        hf_pg_session_destroy(s->core);
        s->core = NULL;
        load(s);
        pgw_after(s);
    }
    w->n_hosts++;
}

void pgw_saves(struct pgw_world *w)
{
    w->saves = true;
    if (hf_pair_store_create(256u << 20, 1, &w->store)) {
        pgw_failed(w, "no memory");
    }
}

void pgw_saves_fini(struct pgw_world *w)
{
    for (uint32_t i = 0; i < PGW_SESSIONS_MAX; i++) {
        for (size_t k = 0; k < w->session[i].n_dropped; k++) {
            hf_buf_fini(&w->session[i].dropped[k].last);
        }
        hf_buf_fini(&w->session[i].in_saved);
        hf_buf_fini(&w->session[i].down_held);
    }
    if (w->store) {
        hf_pair_store_destroy(w->store);
    }
}
