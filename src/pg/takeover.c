/* Take-over: wait for the lease, record, address, probe, restore, load, listen. */
#include "pg/takeover.h"

#include <errno.h>

#include "base/log.h"
#include "base/mem.h"
#include "os/netaddr.h"
#include "os/tcpmove.h"
#include "pg/behind.h"
#include "pg/protect_impl.h"
#include "pg/route.h"

#define ANNOUNCEMENTS 5
#define ANNOUNCE_EVERY HF_MS(200)
/* Offsets are upper bounds, by the delay of a heartbeat; what is too low is harmless. */
#define CLOCK_MARGIN HF_MS(20)
#define READY_TIME HF_S(1) /* for the address to be of use: then without */

/* A session that is being restored. */
struct job {
    const struct hf_pair_session *session; /* NULL: only its peer is known */
    struct hf_tcp_facts facts;
    uint64_t rx_total, tx_una;
    struct hf_slice tx;
    struct hf_pg_slot *slot;
    bool lost; /* not restored: its client is told so, with each announcement once more */
};

struct hf_pg_takeover {
    struct hf_pg *pg;
    struct hf_pg_takeover_options opt;
    struct hf_endpoint endpoint;
    void (*fn)(void *arg, int rc, const struct hf_err *err);
    void *arg;
    struct hf_tcpmove *move; /* owned; NULL: not begun, or all done */
    struct hf_poll_io io;
    struct hf_poll_timer timer;
    struct job *job; /* owned */
    size_t n_jobs, n_lost;
    bool going, begun, ready, told, listening;
    unsigned announced;
    hf_time started, announce_at, ready_by;
    struct {
        unsigned sessions, restored, gone, failed, unprotected, left;
    } figures; /* for the log; hf_pg_takeover_stats has those of all take-overs */
};

static void challenge(struct hf_pg_takeover *t, struct job *j)
{
    if (!j->session) { /* numbers unknown: four far apart, which are not all within its window */
        j->facts.snd_isn += 1u << 30;
    }
    hf_tcpmove_challenge(t->move, &j->facts, hf_pg_now(t->pg));
}

static hf_time now_of(const struct hf_pg_takeover *t)
{
    return hf_pg_now(t->pg);
}

static void failed(struct hf_pg_takeover *t, const char *why)
{
    t->figures.failed++;
    hf_pg_takeover_lost(&t->pg->takeovers, why);
}

/* ---- one session ---- */

static struct hf_slice saved_section(void *arg, uint8_t section)
{
    const struct job *j = arg;
    return hf_pair_session_section(j->session, section);
}

static bool saved_item(void *arg, uint8_t section, const void **pos, struct hf_slice *ret_name,
                       struct hf_slice *ret_bytes)
{
    const struct job *j = arg;
    struct hf_pair_item item;
    if (!hf_pair_session_item(j->session, section, pos, &item)) {
        return false;
    }
    *ret_name = item.name;
    *ret_bytes = item.bytes;
    return true;
}

/* The server start that its connection was on, by our number. */
static uint64_t start_of(const struct hf_pg_takeover *t, const struct job *j)
{
    return hf_pg_route_known(t->pg->route,
                             hf_pair_session_section(j->session, HF_PG_SECTION_PLACE));
}

/* Its server process has nobody any more. */
static void end_backend(struct hf_pg_takeover *t, const struct job *j)
{
    struct hf_pg_backend_told told;
    if (j->session &&
        hf_pg_backend_told_read(hf_pair_session_section(j->session, HF_PG_SECTION_BACKEND),
                                hf_pair_session_section(j->session, HF_PG_SECTION_BACKEND_PORT),
                                &told) == 0) {
        told.from += t->opt.clock_offset;
        told.to += t->opt.clock_offset;
        hf_pg_behind_add(t->pg->behind, &told, start_of(t, j), true);
    }
}

/* The client learns at once that it is over, also if it only waits: it is provoked to say
 * something, and the kernel, which knows no such connection, answers with a RST. */
static void give_up(struct hf_pg_takeover *t, struct job *j)
{
    end_backend(t, j);
    if (j->slot) {
        hf_pg_slot_abandon(t->pg->protect, j->slot, now_of(t));
        j->slot = NULL;
    }
    j->lost = true;
    t->n_lost++;
    challenge(t, j);
}

/* The client was done with: only what it misses of the end is to be said. */
static void finish_closing(struct hf_pg_takeover *t, struct job *j,
                           const struct hf_tcpmove_result *res)
{
    struct hf_tcp_facts facts = j->facts;
    end_backend(t, j);
    uint64_t total = j->tx_una + j->tx.n;
    uint64_t una = res->tx_una < total ? res->tx_una : total;
    uint64_t written = res->tx_written < una ? una : res->tx_written;
    struct hf_pg_slot *slot = j->slot;
    j->slot = NULL;
    hf_pg_protect_close(t->pg->protect, slot, res->fd, &facts, j->rx_total, una,
                        written < total ? written : total,
                        hf_slice(j->tx.p + (una - j->tx_una), (size_t)(total - una)));
}

/* Of a session that was logged in: its client; NULL: *ret_rc says why, the socket is closed. */
static struct hf_pg_client *client_of(struct hf_pg_takeover *t, const struct job *j, int fd,
                                      int *ret_rc)
{
    struct hf_pg_shield_login login;
    struct hf_addr from = hf_addr_from_endpoint(&j->facts.peer);
    *ret_rc =
        hf_pg_shield_login_read(hf_pair_session_section(j->session, HF_PG_SECTION_LOGIN), &login);
    if (*ret_rc) {
        hf_tcpmove_discard(fd);
        return NULL;
    }
    struct hf_pg_client *c = hf_pg_client_restore(t->pg, fd, &from, &login);
    hf_pg_secret_wipe(&login.secret);
    *ret_rc = c ? 0 : -ENOMEM;
    return c;
}

/* Of a login, which begins anew: all that was said to it is in TX. */
static struct hf_pg_client *login_of(struct hf_pg_takeover *t, const struct job *j, int fd,
                                     int *ret_rc)
{
    struct hf_pg_seed seed;
    bool read_only;
    struct hf_addr from = hf_addr_from_endpoint(&j->facts.peer);
    *ret_rc = hf_pg_shield_seed_read(hf_pair_session_section(j->session, HF_PG_SECTION_SEED), &seed,
                                     &read_only);
    *ret_rc = *ret_rc == 0 && j->tx_una ? -HF_EVALUE : *ret_rc;
    if (*ret_rc) {
        hf_tcpmove_discard(fd);
        return NULL;
    }
    struct hf_pg_client *c = hf_pg_client_restore_login(t->pg, fd, read_only, &from, &seed, j->tx);
    *ret_rc = c ? 0 : -ENOMEM;
    return c;
}

static bool logs_in(const struct job *j)
{
    return hf_pair_session_section(j->session, HF_PG_SECTION_LOGIN).n == 0;
}

/* Its client, on the socket that was restored. 0, or why not; the socket is closed then. */
static int revive(struct hf_pg_takeover *t, struct job *j, const struct hf_tcpmove_result *res)
{
    int rc;
    struct hf_pg_client *c =
        logs_in(j) ? login_of(t, j, res->fd, &rc) : client_of(t, j, res->fd, &rc);
    if (!c) {
        return rc;
    }
    size_t acked = (size_t)(res->tx_una - j->tx_una),
           written = (size_t)(res->tx_written - j->tx_una);
    acked = acked < j->tx.n ? acked : j->tx.n;
    written = written < j->tx.n ? written : j->tx.n;
    c->slot = j->slot;
    j->slot = NULL;
    hf_pg_link_preload(&c->link, hf_pair_session_section(j->session, HF_PG_SECTION_RX),
                       hf_slice(j->tx.p + written, j->tx.n - written));
    rc = hf_pg_protect_resume(c, &j->facts, j->rx_total, j->tx_una + acked,
                              hf_slice(j->tx.p + acked, j->tx.n - acked));
    if (logs_in(j)) {
        hf_pg_client_relogin(c);
        return rc;
    }
    struct hf_pg_saved saved = {.section = saved_section,
                                .item = saved_item,
                                .arg = j,
                                .clock_offset = t->opt.clock_offset};
    rc = rc ? rc : hf_pg_client_load(c, &saved, start_of(t, j));
    if (rc) {
        hf_pg_client_fatal(c, "57P01", "terminating connection because its host was lost");
    }
    return rc;
}

static void on_done(void *arg, void *job_arg, const struct hf_tcpmove_result *res)
{
    struct hf_pg_takeover *t = arg;
    struct job *j = job_arg;
    char text[HF_ADDR_STR_LEN];
    struct hf_addr from = hf_addr_from_endpoint(&j->facts.peer);
    if (res->rc == -HF_ECLOSED) {
        t->figures.gone++;
        t->pg->takeovers.gone++;
        end_backend(t, j);
    } else if (res->rc == 0 && (j->facts.flags & HF_TCP_FACT_CLOSING)) {
        t->figures.gone++;
        t->pg->takeovers.gone++;
        finish_closing(t, j, res);
    } else if (res->rc) {
        failed(t, hf_strerror(res->rc));
        hf_log_warn("", "connection of %s can't be taken over: %s: %s", hf_addr_str(&from, text),
                    res->what ? res->what : "its peer", hf_strerror(res->rc));
        give_up(t, j);
    } else {
        int rc = revive(t, j, res);
        if (rc == 0) {
            t->figures.restored++;
            t->pg->takeovers.restored++;
        } else {
            failed(t, hf_strerror(rc));
            hf_log_warn("", "session of %s can't be taken over: %s", hf_addr_str(&from, text),
                        hf_strerror(rc));
            j->slot ? give_up(t, j) : end_backend(t, j); /* it may have been told why */
        }
    }
    if (j->slot) {
        hf_pg_slot_leave(t->pg->protect, j->slot, now_of(t));
        j->slot = NULL;
    }
}

/* ---- all of them ---- */

/* Not protected: only what it takes to end it is known. */
static bool is_unprotected(const struct job *j)
{
    return logs_in(j) && hf_pair_session_section(j->session, HF_PG_SECTION_SEED).n == 0;
}

static void read_job(struct hf_pg_takeover *t, const struct hf_pair_session *s)
{
    struct job *j = &t->job[t->n_jobs];
    struct hf_rd r;
    j->session = s;
    hf_rd_init(&r, hf_pair_session_section(s, HF_PG_SECTION_FACTS));
    hf_tcp_facts_decode(&r, &j->facts);
    if (hf_rd_end(&r) ||
        (!is_unprotected(j) &&
         hf_pg_shield_position_read(hf_pair_session_section(s, HF_PG_SECTION_POSITION),
                                    &j->rx_total, &j->tx_una))) {
        failed(t, "no connection facts");
        hf_log_warn("", "a session without connection facts is lost");
        return;
    }
    j->tx = hf_pair_session_section(s, HF_PG_SECTION_TX);
    t->n_jobs++;
}

static void add_job(struct hf_pg_takeover *t, struct job *j)
{
    j->slot = hf_pg_slot_of_facts(t->pg->protect, &j->facts, j->rx_total, j->tx_una + j->tx.n);
    if (is_unprotected(j)) {
        t->figures.unprotected++;
        give_up(t, j);
        return;
    }
    int rc = j->slot ? hf_tcpmove_add(t->move, &(struct hf_tcpmove_job){.facts = j->facts,
                                                                        .rx_total = j->rx_total,
                                                                        .tx_una = j->tx_una,
                                                                        .tx = j->tx,
                                                                        .arg = j})
                     : -ENOMEM;
    if (rc) {
        on_done(t, j, &(struct hf_tcpmove_result){.rc = rc, .fd = -1, .what = "add"});
    }
}

/* Who was connected when this host's last process died. A challenge does no harm to a connection
 * that is well, elsewhere or here. */
static void add_left(struct hf_pg_takeover *t)
{
    struct hf_pg_protect *p = t->pg->protect;
    for (size_t i = 0; i < p->n_left; i++) {
        struct job *j = &t->job[t->n_jobs];
        if (hf_pg_slot_find(p, &p->left[i])) {
            continue;
        }
        *j = (struct job){.facts = {.local = t->endpoint,
                                    .peer = p->left[i],
                                    .mss = HF_TCP_MSS_DEFAULT,
                                    .rcv_wnd = UINT16_MAX,
                                    .snd_wnd = UINT16_MAX}};
        t->n_jobs++;
        j->slot = hf_pg_slot_of_facts(p, &j->facts, 0, 0);
        t->figures.left++;
        give_up(t, j);
    }
    hf_pg_left_forget(p);
}

/* Slots before probes; jobs in the order of activity, as the store has them. */
static int add_jobs(struct hf_pg_takeover *t)
{
    size_t n = t->opt.store ? hf_pair_store_sessions(t->opt.store) : 0;
    t->figures.sessions = (unsigned)n;
    n += t->pg->protect->n_left;
    if (n == 0) {
        return 0;
    }
    t->job = hf_alloc_array(n, sizeof(t->job[0]));
    if (!t->job) {
        return -ENOMEM;
    }
    for (const struct hf_pair_session *s = NULL;
         t->opt.store && (s = hf_pair_store_next(t->opt.store, s));) {
        read_job(t, s);
    }
    for (size_t i = 0; i < t->n_jobs; i++) {
        add_job(t, &t->job[i]);
    }
    add_left(t);
    return 0;
}

static void tell(struct hf_pg_takeover *t, int rc, const struct hf_err *err)
{
    t->told = true;
    t->fn(t->arg, rc, err);
}

static void announce(struct hf_pg_takeover *t)
{
    struct hf_err err;
    if (hf_netaddr_announce(t->opt.interface, &t->endpoint, &err) && t->announced == 0) {
        hf_log_warn("", "the service address can't be announced: %s", err.text);
    }
    for (size_t i = 0; i < t->n_jobs && t->n_lost && t->move; i++) {
        if (t->job[i].lost) {
            challenge(t, &t->job[i]);
        }
    }
    t->announced++;
    t->announce_at = now_of(t) + ANNOUNCE_EVERY;
}

static void on_io(struct hf_poll_io *io, unsigned ready);

static int begin(struct hf_pg_takeover *t, struct hf_err *err)
{
    const struct hf_tcpmove_opt opt = {.local = t->opt.address,
                                       .clock_offset = t->opt.clock_offset};
    t->begun = true;
    int rc = hf_tcpmove_open(&opt, on_done, t, err, &t->move);
    if (rc) {
        return rc;
    }
    rc = hf_poll_add(t->pg->wire->poll, &t->io, hf_tcpmove_fd(t->move), HF_POLL_READ, on_io);
    rc = rc ? hf_err_set(err, rc, "cannot watch raw sockets: %s", hf_strerror(rc))
            : hf_netaddr_add(t->opt.interface, &t->endpoint, t->opt.prefix_length, err);
    t->ready_by = now_of(t) + READY_TIME;
    return rc;
}

/* Pitfall 22: probes that are sent from it earlier wait a second for the peers' addresses. */
static int go_on(struct hf_pg_takeover *t, struct hf_err *err)
{
    t->ready = true;
    announce(t);
    int rc = add_jobs(t);
    return rc ? hf_err_set(err, rc, "out of memory") : 0;
}

static void end_move(struct hf_pg_takeover *t)
{
    for (size_t i = 0; i < t->n_jobs; i++) {
        if (t->job[i].lost) {
            hf_pg_slot_told(t->pg->protect, &t->job[i].facts.peer);
        }
    }
    hf_poll_remove(t->pg->wire->poll, &t->io);
    hf_tcpmove_close(t->move);
    t->move = NULL;
    hf_time took = now_of(t) - t->started;
    hf_pg_histogram_add(&t->pg->takeovers.time[t->opt.kind], (uint64_t)took);
    t->pg->takeovers.last.epoch = t->pg->reign.epoch;
    t->pg->takeovers.last.kind = t->opt.kind;
    t->pg->takeovers.last.took = took;
    t->pg->takeovers.last.sessions = t->figures.sessions;
    t->pg->takeovers.last.restored = t->figures.restored;
    hf_log_info(
        "",
        "took over (%s): %u sessions, %u restored, %u whose client was gone, %u lost, %u that were "
        "not protected, %u of a process before this one, in %lld ms",
        hf_pg_takeover_kind_name(t->opt.kind), t->figures.sessions, t->figures.restored,
        t->figures.gone, t->figures.failed, t->figures.unprotected, t->figures.left,
        (long long)(took / HF_NS_PER_MS));
}

static void step(struct hf_pg_takeover *t)
{
    hf_time now = now_of(t);
    struct hf_err err = {0};
    if (!t->begun) {
        if (!t->going || now < t->opt.not_before) {
            hf_poll_timer_set(t->pg->wire->poll, &t->timer,
                              t->going ? t->opt.not_before : HF_NEVER);
            return;
        }
        int rc = begin(t, &err);
        if (rc) {
            tell(t, rc, &err);
            return;
        }
    }
    if (!t->ready && t->told) {
        return; /* it failed */
    }
    if (!t->ready) {
        if (!hf_netaddr_is_ready(&t->endpoint) && now_of(t) < t->ready_by) {
            hf_poll_timer_set(t->pg->wire->poll, &t->timer, now_of(t) + HF_MS(1));
            return;
        }
        int rc = go_on(t, &err);
        if (rc) {
            tell(t, rc, &err);
            return;
        }
    }
    if (t->move) {
        hf_tcpmove_step(t->move, now);
        if (!t->told && hf_tcpmove_settled(t->move, now)) {
            tell(t, 0, NULL);
        }
        bool said = t->n_lost == 0 || t->announced >= ANNOUNCEMENTS;
        if (t->listening && said && hf_tcpmove_left(t->move) == 0) {
            end_move(t);
        }
    }
    if (t->announced < ANNOUNCEMENTS && now >= t->announce_at) {
        announce(t);
    }
    hf_time next = t->announced < ANNOUNCEMENTS ? t->announce_at : HF_NEVER;
    hf_time left = t->move ? hf_tcpmove_deadline(t->move) : HF_NEVER;
    if (t->move && !t->told) {
        left = hf_time_min(left, now + HF_MS(1)); /* until it is settled */
    }
    hf_poll_timer_set(t->pg->wire->poll, &t->timer, hf_time_min(next, left));
    hf_pg_wire_flush(t->pg->wire);
}

static void on_io(struct hf_poll_io *io, unsigned ready)
{
    (void)ready;
    step(HF_CONTAINER_OF(io, struct hf_pg_takeover, io));
}

static void on_timer(struct hf_poll_timer *timer, hf_time now)
{
    (void)now;
    step(HF_CONTAINER_OF(timer, struct hf_pg_takeover, timer));
}

int hf_pg_takeover_start(struct hf_pg *pg, const struct hf_pg_takeover_options *options,
                         void (*fn)(void *arg, int rc, const struct hf_err *err), void *arg,
                         struct hf_pg_takeover **ret_takeover)
{
    struct hf_pg_takeover *t = hf_alloc(sizeof(*t));
    if (!t || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(t);
        hf_pair_store_destroy(options->store);
        return -ENOMEM;
    }
    t->pg = pg;
    t->opt = *options;
    t->opt.clock_offset -= CLOCK_MARGIN;
    t->endpoint = hf_addr_to_endpoint(&options->address);
    t->fn = fn;
    t->arg = arg;
    t->timer.fn = on_timer;
    t->io.fd = -1;
    *ret_takeover = t;
    return 0;
}

void hf_pg_takeover_go(struct hf_pg_takeover *t)
{
    if (!t->going) {
        t->going = true;
        t->started = now_of(t);
        hf_poll_timer_set(t->pg->wire->poll, &t->timer, t->started);
        hf_poll_kick(t->pg->wire->poll);
    }
}

void hf_pg_takeover_listening(struct hf_pg_takeover *t)
{
    t->listening = true;
    if (t->move) {
        hf_tcpmove_listening(t->move);
        hf_poll_timer_set(t->pg->wire->poll, &t->timer, now_of(t));
        hf_poll_kick(t->pg->wire->poll);
    }
}

struct hf_pair_store *hf_pg_takeover_give_back(struct hf_pg_takeover *t, hf_time *ret_clock_offset)
{
    struct hf_pair_store *store = t->begun ? NULL : t->opt.store;
    *ret_clock_offset = t->opt.clock_offset + CLOCK_MARGIN;
    t->opt.store = t->begun ? t->opt.store : NULL;
    return store;
}

void hf_pg_takeover_destroy(struct hf_pg_takeover *t)
{
    if (!t) {
        return;
    }
    if (t->io.fd >= 0) {
        hf_poll_remove(t->pg->wire->poll, &t->io);
    }
    hf_tcpmove_close(t->move);
    hf_poll_timer_set(t->pg->wire->poll, &t->timer, HF_NEVER);
    (void)!hf_poll_reserve(t->pg->wire->poll, -1);
    for (size_t i = 0; i < t->n_jobs; i++) {
        if (t->job[i].slot) {
            hf_pg_slot_leave(t->pg->protect, t->job[i].slot, now_of(t));
        }
    }
    hf_free(t->job);
    hf_pair_store_destroy(t->opt.store);
    hf_free(t);
}
