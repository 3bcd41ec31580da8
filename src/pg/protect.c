/* Shields: save what was touched, seal, let out what was confirmed. */
#include "pg/protect.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/mem.h"
#include "core/pair/copy.h"
#include "os/tcpmove.h"
#include "pg/linger.h"
#include "pg/protect_impl.h"
#include "pg/protection.h"
#include "pg/route.h"

#define TX_KEEP (16u << 10) /* more than so much unacknowledged: look whether it still is */
#define SEATS HF_ARRAY_LEN(((struct hf_pg_client *)0)->seat)
#define LATER HF_MS(10) /* a request that may is told with its answer, if that comes by then */

static void on_guard(struct hf_poll_io *io, unsigned ready)
{
    (void)ready;
    struct hf_pg_protect *p = HF_CONTAINER_OF(io, struct hf_pg_protect, io);
    (void)!hf_egress_dispatch(p->egress, hf_pg_slot_handshake, p);
}

/* ---- what waits ---- */

static void wait_add(struct waits *w, uint64_t number, size_t n, uint64_t rx, hf_time now)
{
    if (w->n == WAITS_MAX) { /* later than need be, never earlier */
        struct wait *last = &w->at[(w->first + w->n - 1) % WAITS_MAX];
        last->number = number;
        last->n += n;
        last->rx = rx;
        return;
    }
    w->at[(w->first + w->n++) % WAITS_MAX] =
        (struct wait){.number = number, .n = n, .rx = rx, .at = now};
}

/* What may go up to that number: bytes; *ret_rx: what was received by then (unchanged: nothing). */
static size_t wait_take(struct hf_pg_protect *p, struct waits *w, uint64_t number, uint64_t *ret_rx)
{
    size_t n = 0;
    while (w->n && w->at[w->first].number <= number) {
        if (!p->open) { /* somebody was waited for */
            hf_pg_histogram_add(&p->pg->confirm_lag,
                                (uint64_t)(hf_pg_now(p->pg) - w->at[w->first].at));
        }
        n += w->at[w->first].n;
        *ret_rx = w->at[w->first].rx;
        w->first = (w->first + 1) % WAITS_MAX;
        w->n--;
    }
    return n;
}

/* The backup has what was received and sent up to here. */
static void let_out(struct hf_pg_shield *s, uint64_t number)
{
    struct hf_pg_protect *p = s->protect;
    struct hf_pg_client *c = s->client;
    uint64_t ignored = 0;
    if (s->wait.n) {
        s->tx_let += wait_take(p, &s->wait, number, &s->rx_conf);
        bool held = s->entry->registered && hf_egress_confirm(p->egress, s->entry->slot,
                                                              hf_tcp_rcv_nxt(&s->facts, s->rx_conf),
                                                              hf_tcp_snd_seq(&s->facts, s->tx_let));
        size_t n = (size_t)(s->tx_let - s->tx_given);
        s->tx_given = s->tx_let;
        hf_pg_link_let(&c->link, n);
        if (held && s->entry->registered) {
            (void)!hf_egress_flush(p->egress, s->entry->slot);
        }
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(c->seat); i++) {
        if (s->seat_wait[i].n) {
            size_t n = wait_take(p, &s->seat_wait[i], number, &ignored);
            if (c->seat[i].conn && s->seat_conn[i] == c->seat[i].conn->id) {
                hf_pg_link_let(&c->seat[i].conn->link, n);
            }
        }
    }
}

static bool waits(const struct hf_pg_shield *s)
{
    return s->wait.n || s->seat_wait[0].n || s->seat_wait[1].n;
}

bool hf_pg_protect_full(struct hf_pg_protect *p)
{
    bool full = p && p->primary && hf_pair_primary_full(p->primary);
    if (full) {
        p->was_full = true;
    }
    return full;
}

/* Who was not read because of it is read again. */
static void look_full(struct hf_pg_protect *p)
{
    if (!p->was_full || hf_pg_protect_full(p)) {
        return;
    }
    p->was_full = false;
    HF_LIST_FOREACH (node, &p->all) {
        hf_pg_client_touched(HF_CONTAINER_OF(node, struct hf_pg_shield, node)->client, false);
    }
}

void hf_pg_protect_confirmed(struct hf_pg_protect *p, uint64_t number)
{
    HF_LIST_FOREACH (node, &p->waiting) {
        struct hf_pg_shield *s = HF_CONTAINER_OF(node, struct hf_pg_shield, waiting);
        let_out(s, number);
        if (!waits(s)) {
            hf_list_unlink(&s->waiting);
        }
    }
    HF_LIST_FOREACH (node, &p->dropped) {
        struct hf_pg_sconn *conn = HF_CONTAINER_OF(node, struct hf_pg_sconn, held_node);
        if (conn->held_until && conn->held_until <= number) {
            hf_list_unlink(&conn->held_node);
            hf_pg_link_let(&conn->link, conn->link.n_sealed);
            hf_poll_task_add(p->pg->wire->poll, &conn->task); /* destroys it */
        }
    }
    hf_pg_slots_confirmed(p, number);
    look_full(p);
}

bool hf_pg_protect_defer(struct hf_pg_sconn *conn)
{
    struct hf_pg_protect *p = conn->pg->protect;
    if (!p || !p->primary || !conn->link.wire || conn->link.broken || !conn->link.n_held) {
        return false;
    }
    conn->held_until = 0; /* the next batch */
    hf_list_insert(&p->dropped, &conn->held_node);
    hf_poll_task_add(p->pg->wire->poll, &p->task);
    return true;
}

/* ---- saving ---- */

static void put(void *arg, uint8_t section, struct hf_slice bytes)
{
    struct hf_pg_shield *s = arg;
    hf_pair_primary_put(s->protect->primary, s->id, section, bytes);
}

static void append(void *arg, uint8_t section, struct hf_slice bytes)
{
    struct hf_pg_shield *s = arg;
    hf_pair_primary_append(s->protect->primary, s->id, section, bytes);
}

static void cut(void *arg, uint8_t section, size_t n)
{
    struct hf_pg_shield *s = arg;
    hf_pair_primary_cut(s->protect->primary, s->id, section, (uint32_t)n);
}

static void set(void *arg, uint8_t section, struct hf_slice name, struct hf_slice bytes)
{
    struct hf_pg_shield *s = arg;
    hf_pair_primary_set(s->protect->primary, s->id, section, name, bytes);
}

static void unset(void *arg, uint8_t section, struct hf_slice name)
{
    struct hf_pg_shield *s = arg;
    hf_pair_primary_unset(s->protect->primary, s->id, section, name);
}

static const struct hf_pg_save_ops save_ops = {put, append, cut, set, unset};

/* What came and was not consumed: a window on the stream, which mostly is empty. */
static void save_rx(struct hf_pg_shield *s)
{
    struct hf_slice in = hf_buf_slice(&s->client->link.in);
    uint64_t at = s->rx_total - in.n;
    if (s->rx_whole) {
        put(s, HF_PG_SECTION_RX, hf_buf_slice(&s->said)); /* of a login, from its first byte on */
        append(s, HF_PG_SECTION_RX, in);
        s->rx_whole = s->logging_in;
        s->rx_at = at;
        s->rx_n = in.n;
        return;
    }
    if (s->rx_n == 0 && in.n == 0) {
        s->rx_at = at;
        return;
    }
    if (at < s->rx_at || at > s->rx_at + s->rx_n) {
        put(s, HF_PG_SECTION_RX, in);
    } else {
        if (at > s->rx_at) {
            cut(s, HF_PG_SECTION_RX, (size_t)(at - s->rx_at));
        }
        size_t had = (size_t)(s->rx_at + s->rx_n - at);
        if (in.n > had) {
            append(s, HF_PG_SECTION_RX, hf_slice(in.p + had, in.n - had));
        }
    }
    s->rx_at = at;
    s->rx_n = in.n;
}

/* Forget what the client has acknowledged. */
static void trim_tx(struct hf_pg_shield *s)
{
    uint64_t una = s->tx_una;
    uint64_t given = s->tx_given - hf_pg_link_may_go(&s->client->link);
    if (hf_tcpmove_refresh(s->client->link.fd, given, hf_pg_now(s->protect->pg), &s->facts, &una) ||
        una <= s->tx_una) {
        return;
    }
    size_t n = (size_t)(una - s->tx_una);
    n = n < s->tx.n ? n : s->tx.n;
    hf_buf_consume(&s->tx, n);
    s->tx_una += n;
    cut(s, HF_PG_SECTION_TX, n);
    s->facts_told = false;
}

/* What the link was given to send since the last time. */
static struct hf_slice tx_more(struct hf_pg_shield *s)
{
    struct hf_slice all = hf_pg_link_unsealed(&s->client->link);
    size_t had = s->tx_saved;
    s->tx_saved = all.n;
    return all.n > had ? hf_slice(all.p + had, all.n - had) : hf_slice(NULL, 0);
}

static void save_tx(struct hf_pg_shield *s)
{
    struct hf_slice more = tx_more(s);
    if (more.n) {
        hf_buf_add(&s->tx, more);
        append(s, HF_PG_SECTION_TX, more);
    }
    if (s->tx.n > s->tx_look) {
        trim_tx(s);
        s->tx_look = s->tx.n + TX_KEEP;
    }
}

static void save_position(struct hf_pg_shield *s)
{
    if (s->rx_told != s->rx_total || s->una_told != s->tx_una || !s->position_told) {
        hf_pg_slot_save_position(s->protect, s->entry, s->rx_total, s->tx_una);
    }
    s->position_told = true;
    s->rx_told = s->rx_total;
    s->una_told = s->tx_una;
}

static void save_facts(struct hf_pg_shield *s)
{
    s->entry->facts = s->facts;
    hf_pg_slot_save_facts(s->protect, s->entry);
    s->facts_told = true;
}

static void save_place(struct hf_pg_shield *s)
{
    const struct hf_pg_client *c = s->client;
    const struct hf_pg_seating *seat = &c->seat[c->seat[0].side == HF_PG_SERVER ? 0 : 1];
    if (!seat->attached || !seat->conn || seat->conn->id == s->place_told) {
        return;
    }
    s->place_told = seat->conn->id;
    hf_pg_slot_save_place(s->protect, s->entry, seat);
}

/* The peer has nothing of it yet, or is to forget what it has. */
static void tell_all(struct hf_pg_shield *s)
{
    if (s->client->session) {
        hf_pg_session_save_all(s->client->session);
    }
    s->place_told = s->place_sealed = 0;
    s->facts_told = s->login_told = s->position_told = s->seed_told = false;
    s->rx_at = s->rx_n = 0;
}

static void save(struct hf_pg_shield *s)
{
    struct hf_pg_client *c = s->client;
    hf_list_unlink(&s->later);
    s->due = false;
    s->rx_total = s->rx_before + c->link.n_received;
    save_tx(s);
    save_rx(s);
    save_position(s);
    if (!s->facts_told) {
        save_facts(s);
    }
    if (s->logging_in && !s->seed_told) {
        s->seed_told = true;
        hf_pg_shield_seed_save(s, put);
    }
    bool named = c->n_cancel_id != 0; /* its key is known with its first server connection */
    if (c->session && (!s->login_told || named != s->key_told)) {
        s->login_told = true;
        s->key_told = named;
        hf_pg_shield_login_save(s, put);
    }
    save_place(s);
    if (c->session && !c->ended) {
        hf_pg_session_save(c->session, &save_ops, s);
    }
}

/* Nobody to tell it to: only what a later backup needs is kept. */
static void keep(struct hf_pg_shield *s)
{
    struct hf_slice more = tx_more(s);
    s->rx_total = s->rx_before + s->client->link.n_received;
    hf_buf_add(&s->tx, more);
    if (s->tx.n > s->tx_look) {
        trim_tx(s);
        s->tx_look = s->tx.n + TX_KEEP;
    }
}

void hf_pg_protect_snapshot(struct hf_pg_protect *p, uint64_t session)
{
    struct hf_pg_slot *e = hf_map_get(&p->records, hf_slice(&session, sizeof(session)));
    struct hf_pg_shield *s = e && e->client ? e->client->shield : NULL;
    if (e && !s) {
        hf_pg_slot_save(p, e);
        hf_poll_task_add(p->pg->wire->poll, &p->task);
    }
    if (!s) {
        return;
    }
    tell_all(s);
    put(s, HF_PG_SECTION_TX, hf_buf_slice(&s->tx)); /* what is unsealed is appended to it */
    save(s);
    hf_pg_protect_touch(s->client); /* ... and sealed with this batch */
}

/* ---- what need not wait (X1) ---- */

/* The seat of the server connection, if the backup knows of it; SEATS: it does not, or there is
 * none. */
static size_t known_seat(const struct hf_pg_shield *s)
{
    const struct hf_pg_client *c = s->client;
    size_t i = c->seat[0].side == HF_PG_SERVER ? 0 : 1;
    const struct hf_pg_sconn *conn = c->seat[i].conn;
    bool known = c->session && !c->ended && conn && conn->link.wire && c->seat[i].attached &&
                 conn->id == s->place_sealed &&
                 hf_pair_primary_may(s->protect->primary, s->place_number, hf_pg_now(c->pg));
    return known ? i : SEATS;
}

/* May what there is for the server be sent before the backup has it? *ret_asked: the client waits
 * for the answer. */
static bool ahead(const struct hf_pg_shield *s, size_t seat, bool *ret_asked)
{
    return seat < SEATS && s->seat_wait[seat].n == 0 &&
           hf_pg_session_ahead(s->client->session, ret_asked);
}

static bool says_nothing(const struct hf_pg_sconn *conn)
{
    return !conn || !conn->link.wire || hf_pg_link_unsealed(&conn->link).n == 0;
}

/* Nothing is to be let out, but for requests that go to the server at once: it is told with what
 * comes next, mostly their answer, or after a while. What it has received since it was told last
 * the client still has, unacknowledged. */
static bool told_later(struct hf_pg_shield *s)
{
    struct hf_pg_protect *p = s->protect;
    const struct hf_pg_client *c = s->client;
    size_t i = known_seat(s);
    bool asked;
    if (i == SEATS || s->due || p->open || p->closing_gate || !s->facts_told || !s->login_told ||
        hf_pg_link_unsealed(&c->link).n || !says_nothing(c->seat[1 - i].conn)) {
        return false;
    }
    struct hf_pg_link *server = &c->seat[i].conn->link;
    bool quiet = s->rx_told == s->rx_before + c->link.n_received && says_nothing(c->seat[i].conn);
    if (!quiet && (c->link.in.n || !ahead(s, i, &asked) || !asked)) {
        return false;
    }
    hf_pg_link_let(server, hf_pg_link_seal(server));
    if (hf_list_empty(&s->later)) {
        s->later_until = hf_pg_now(p->pg) + LATER;
        if (hf_list_empty(&p->later)) {
            hf_poll_timer_set(p->pg->wire->poll, &p->later_timer, s->later_until);
        }
        hf_list_insert(&p->later, &s->later);
    }
    return true;
}

static void on_later(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg_protect *p = HF_CONTAINER_OF(t, struct hf_pg_protect, later_timer);
    HF_LIST_FOREACH (node, &p->later) { /* in order of time */
        struct hf_pg_shield *s = HF_CONTAINER_OF(node, struct hf_pg_shield, later);
        if (s->later_until > now) {
            hf_poll_timer_set(p->pg->wire->poll, t, s->later_until);
            break;
        }
        hf_list_unlink(node);
        s->due = true;
        hf_pg_protect_touch(s->client);
    }
}

bool hf_pg_protect_settled(struct hf_pg_protect *p)
{
    HF_LIST_FOREACH (node, &p->later) {
        struct hf_pg_shield *s = HF_CONTAINER_OF(node, struct hf_pg_shield, later);
        hf_list_unlink(node);
        s->due = true;
        hf_pg_protect_touch(s->client);
    }
    return hf_list_empty(&p->touched) && hf_list_empty(&p->waiting);
}

/* ---- the end of a turn ---- */

static bool heard_by_nobody(const struct hf_pg_protect *p)
{
    struct hf_pair_primary_info info;
    hf_pair_primary_info(p->primary, hf_pg_now(p->pg), &info);
    return info.gate_open &&
           (info.state == HF_PAIR_STATE_NO_BACKUP || info.state == HF_PAIR_STATE_CONNECTING);
}

static void sealed(struct hf_pg_shield *s, uint64_t number)
{
    struct hf_pg_client *c = s->client;
    hf_time now = hf_pg_now(c->pg);
    bool asked;
    size_t seat = known_seat(s);
    bool at_once = ahead(s, seat, &asked);
    wait_add(&s->wait, number, hf_pg_link_seal(&c->link), s->rx_total, now);
    s->tx_saved = 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(c->seat); i++) {
        struct hf_pg_sconn *conn = c->seat[i].conn;
        if (conn && conn->id != s->seat_conn[i]) {
            s->seat_conn[i] = conn->id;
            s->seat_wait[i] = (struct waits){0};
        }
        size_t n = conn && conn->link.wire ? hf_pg_link_seal(&conn->link) : 0;
        if (n && at_once && i == seat) {
            hf_pg_link_let(&conn->link, n);
        } else if (n) {
            wait_add(&s->seat_wait[i], number, n, 0, now);
        }
    }
    if (s->place_sealed != s->place_told) {
        s->place_sealed = s->place_told;
        s->place_number = number;
    }
    if (hf_list_empty(&s->waiting)) {
        hf_list_insert(&s->protect->waiting, &s->waiting);
    }
}

/* A session is told of only with all that was acknowledged before the guard minded it: what is
 * still in the socket touches it again when it is read. */
static bool starts(struct hf_pg_shield *s)
{
    int n = 0;
    if (s->starting && ioctl(s->client->link.fd, SIOCINQ, &n) == 0 && n > 0) {
        return false;
    }
    s->starting = false;
    return true;
}

static void on_task(struct hf_poll_task *t)
{
    struct hf_pg_protect *p = HF_CONTAINER_OF(t, struct hf_pg_protect, task);
    struct hf_list done;
    if (!p->primary) {
        return;
    }
    bool nobody = heard_by_nobody(p);
    hf_list_init(&done);
    HF_LIST_FOREACH (node, &p->touched) {
        struct hf_pg_shield *s = HF_CONTAINER_OF(node, struct hf_pg_shield, touched);
        hf_list_unlink(node);
        if (!starts(s) || told_later(s)) {
            continue;
        }
        nobody ? keep(s) : save(s);
        hf_list_insert(&done, node);
    }
    if (p->closing_gate) {
        p->closing_gate = false;
        hf_pair_primary_gated(p->primary, hf_pg_now(p->pg));
    }
    uint64_t number = hf_pair_primary_seal(p->primary, hf_pg_now(p->pg));
    HF_LIST_FOREACH (node, &done) {
        hf_list_unlink(node);
        sealed(HF_CONTAINER_OF(node, struct hf_pg_shield, touched), number);
    }
    hf_pg_slots_sealed(p, number);
    HF_LIST_FOREACH (node, &p->dropped) {
        struct hf_pg_sconn *conn = HF_CONTAINER_OF(node, struct hf_pg_sconn, held_node);
        if (conn->held_until == 0) {
            (void)hf_pg_link_seal(&conn->link);
            conn->held_until = number;
        }
    }
    /* no batch is told twice: this may be one that had been confirmed before */
    if (hf_pair_primary_may(p->primary, number, hf_pg_now(p->pg))) {
        hf_pg_protect_confirmed(p, number);
    }
    p->pump(p->pump_arg);
}

void hf_pg_protect_touch(struct hf_pg_client *c)
{
    struct hf_pg_shield *s = c->shield;
    if (s && hf_list_empty(&s->touched)) {
        hf_list_insert(&s->protect->touched, &s->touched);
        hf_poll_task_add(c->pg->wire->poll, &s->protect->task);
    }
}

/* ---- the gate ---- */

static void set_flags(struct hf_pg_protect *p)
{
    hf_egress_set_flags(p->egress, 0,
                        (p->open ? HF_EGRESS_SOLO : 0) | (p->serves ? HF_EGRESS_RESETS : 0));
}

void hf_pg_protect_serves(struct hf_pg_protect *p)
{
    p->serves = true;
    set_flags(p);
}

void hf_pg_protect_gate(struct hf_pg_protect *p, bool open)
{
    p->open = open;
    set_flags(p);
    p->closing_gate = !open;
    if (open) {
        look_full(p);
        return;
    }
    HF_LIST_FOREACH (node, &p->all) {
        struct hf_pg_shield *s = HF_CONTAINER_OF(node, struct hf_pg_shield, node);
        hf_pg_link_drain(&s->client->link); /* what was acknowledged already */
        hf_pg_client_touched(s->client, false);
    }
    hf_poll_task_add(p->pg->wire->poll, &p->task);
}

/* ---- clients ---- */

/* When the process dies its sockets are to be gone at once, so that this host can have the same
 * connections back from its backup: by a RST, which the guard drops. The FIN of an orderly close
 * would be repeated for minutes, by a socket that nobody can reach. */
static void die_with_process(const struct hf_pg_client *c, bool on)
{
    const struct linger at_once = {.l_onoff = on};
    (void)setsockopt(c->link.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

static struct hf_pg_shield *shield_new(struct hf_pg_client *c, const struct hf_tcp_facts *facts)
{
    struct hf_pg_protect *p = c->pg->protect;
    struct hf_pg_shield *s = c->slot->id ? hf_alloc(sizeof(*s)) : NULL;
    if (!s) {
        return NULL;
    }
    s->protect = p;
    s->client = c;
    s->id = c->slot->id;
    s->facts = *facts;
    s->entry = c->slot;
    s->tx_look = TX_KEEP;
    s->logging_in = s->rx_whole = c->phase == HF_PG_PHASE_LOGIN;
    hf_buf_init(&s->tx, SIZE_MAX / 2);
    hf_buf_init(&s->said, HF_PG_LINK_IN_MAX);
    hf_list_init(&s->touched);
    hf_list_init(&s->waiting);
    hf_list_init(&s->later);
    hf_list_insert(&p->all, &s->node);
    c->shield = s;
    c->slot->client = c;
    die_with_process(c, true);
    return s;
}

/* From now on the guard minds it, and what is sent waits. */
static void shield_begin(struct hf_pg_client *c, const struct hf_tcp_facts *facts, uint64_t sent)
{
    struct hf_pg_protect *p = c->pg->protect;
    struct hf_pg_shield *s = shield_new(c, facts);
    if (!s) {
        return;
    }
    s->rx_total = c->link.n_received;
    s->tx_una = s->tx_given = s->tx_let = sent;
    (void)hf_egress_confirm(p->egress, s->entry->slot, hf_tcp_rcv_nxt(facts, s->rx_total),
                            hf_tcp_snd_seq(facts, sent));
    hf_egress_set_state(p->egress, s->entry->slot, 0, HF_EGRESS_SLOT_SOLO);
    hf_pg_link_hold(&c->link);
    s->starting = true;
    hf_pg_protect_touch(c);
}

bool hf_pg_protect_accepted(struct hf_pg_client *c)
{
    struct hf_pg_protect *p = c->pg->protect;
    struct hf_err err = {0};
    struct hf_tcp_facts facts;
    int rc = hf_tcpmove_read(c->link.fd, 0, 0, hf_pg_now(c->pg), &err, &facts);
    if (rc) {
        hf_log_warn("", "%s: not taken: %s", c->from, err.text);
        return false;
    }
    struct hf_pg_slot *e = hf_pg_slot_find(p, &facts.peer);
    bool held = e && e->embryo && e->registered;
    if (!e || !e->embryo) { /* while nobody waits, handshakes are not held, nor told */
        e = hf_pg_slot_of_facts(p, &facts, 0, 0);
        if (!e) {
            hf_log_warn("", "%s: not taken: the guard has no room for it", c->from);
            return false;
        }
        hf_egress_set_state(p->egress, e->slot, HF_EGRESS_SLOT_SOLO, 0);
    }
    hf_list_unlink(&e->node);
    e->embryo = false;
    e->client = c;
    e->facts = facts;
    c->slot = e;
    c->facts = facts;
    if (held && p->primary) {
        shield_begin(c, &facts, 0);
    }
    return true;
}

void hf_pg_protect_said(struct hf_pg_client *c, struct hf_slice bytes)
{
    if (c->shield) {
        hf_buf_add(&c->shield->said, bytes);
    }
}

/* The login is over: what was said for it is of no use any more. */
static void forget_said(struct hf_pg_shield *s)
{
    s->logging_in = false;
    if (s->said.n) {
        explicit_bzero(s->said.p, s->said.n); /* maybe a password */
    }
    hf_buf_fini(&s->said);
}

void hf_pg_protect_begin(struct hf_pg_client *c)
{
    struct hf_pg_protect *p = c->pg->protect;
    struct hf_tcp_facts facts = c->facts;
    uint64_t una = 0, sent = c->link.n_sent;
    if (c->shield) {
        forget_said(c->shield);
        return;
    }
    if (!c->slot || !c->slot->registered || c->link.tls || !p->primary) {
        return; /* its slot lets out everything */
    }
    /* what the login said before its last words must have arrived: nobody kept it */
    if (hf_pg_link_waiting(&c->link) ||
        hf_tcpmove_refresh(c->link.fd, sent, hf_pg_now(c->pg), &facts, &una) || una != sent) {
        return;
    }
    shield_begin(c, &facts, sent);
}

int hf_pg_protect_resume(struct hf_pg_client *c, const struct hf_tcp_facts *facts,
                         uint64_t rx_total, uint64_t tx_una, struct hf_slice tx)
{
    struct hf_pg_shield *s = shield_new(c, facts);
    if (!s) {
        return -ENOMEM;
    }
    hf_buf_add(&s->tx, tx);
    s->rx_before = s->rx_total = s->rx_conf = rx_total;
    s->tx_una = tx_una;
    s->tx_given = s->tx_let = tx_una + tx.n;
    hf_pg_link_hold(&c->link);
    hf_pg_protect_touch(c);
    return s->tx.err;
}

void hf_pg_protect_attached(struct hf_pg_client *c, const struct hf_pg_seating *seat)
{
    struct hf_pg_protect *p = c->pg->protect;
    if (c->slot && c->slot->id && !c->shield) { /* a shield tells it itself */
        hf_pg_slot_save_place(p, c->slot, seat);
        hf_poll_task_add(p->pg->wire->poll, &p->task);
    }
}

static void shield_free(struct hf_pg_shield *s)
{
    forget_said(s);
    hf_list_unlink(&s->node);
    hf_list_unlink(&s->touched);
    hf_list_unlink(&s->waiting);
    hf_list_unlink(&s->later);
    s->client->shield = NULL;
    hf_free(s);
}

/* What was sent and is not acknowledged goes with the slot. */
static void shield_end(struct hf_pg_shield *s)
{
    struct hf_pg_slot *e = s->entry;
    e->shielded = true;
    e->facts = s->facts;
    e->rx_total = s->rx_before + s->client->link.n_received;
    e->tx_una = s->tx_una;
    e->tx_written = s->tx_given - hf_pg_link_may_go(&s->client->link);
    e->tx = s->tx;
    shield_free(s);
}

void hf_pg_protect_leave(struct hf_pg_client *c)
{
    static const uint8_t sections[] = {HF_PG_SECTION_SEED, HF_PG_SECTION_RX, HF_PG_SECTION_TX};
    struct hf_pg_shield *s = c->shield;
    if (!s) {
        return;
    }
    struct hf_pg_protect *p = s->protect;
    for (size_t i = 0; p->primary && i < HF_ARRAY_LEN(sections); i++) {
        hf_pair_primary_clear(p->primary, s->id, sections[i]);
    }
    hf_poll_task_add(p->pg->wire->poll, &p->task);
    if (s->entry->registered) {
        hf_egress_set_state(p->egress, s->entry->slot, HF_EGRESS_SLOT_SOLO, 0);
    }
    die_with_process(c, false);
    hf_buf_fini(&s->tx);
    shield_free(s);
    hf_pg_link_release(&c->link);
}

void hf_pg_protect_end(struct hf_pg_client *c)
{
    struct hf_pg_protect *p = c->pg->protect;
    struct hf_pg_slot *e = c->slot;
    struct hf_pg_link *l = &c->link;
    if (!e) {
        return;
    }
    if (c->shield) {
        shield_end(c->shield);
    }
    c->slot = NULL;
    e->client = NULL;
    if (p->primary && e->id && e->registered && l->fd >= 0 && !l->broken &&
        hf_pg_link_waiting(l) == 0) {
        hf_poll_remove(p->pg->wire->poll, &l->io);
        hf_pg_slot_close(p, e, l->fd);
        l->fd = -1;
        return;
    }
    if (e->shielded && l->fd >= 0) {
        die_with_process(c, false);
    }
    hf_buf_fini(&e->tx);
    if (e->registered) {
        hf_egress_set_state(p->egress, e->slot, HF_EGRESS_SLOT_CLOSING | HF_EGRESS_SLOT_SOLO, 0);
    }
    hf_pg_slot_leave(p, e, hf_pg_now(c->pg));
}

const char *hf_pg_protect_why(const struct hf_pg_client *c)
{
    if (!c->slot) {
        return "not a client of the service address";
    }
    if (!c->shield) {
        return c->link.tls ? "TLS" : "logs in";
    }
    struct hf_pair_primary_info info;
    hf_pair_primary_info(c->pg->protect->primary, hf_pg_now(c->pg), &info);
    return hf_pg_protection_state_why(info.state, info.code);
}

void hf_pg_protect_lag(const struct hf_pg_client *c, struct hf_pg_lag *ret_lag)
{
    const struct hf_pg_shield *s = c->shield;
    *ret_lag = (struct hf_pg_lag){0};
    if (!s || !waits(s)) {
        return;
    }
    struct hf_pair_primary_info info;
    hf_time now = hf_pg_now(c->pg), first = now;
    uint64_t last = 0;
    const struct waits *all[] = {&s->wait, &s->seat_wait[0], &s->seat_wait[1]};
    for (size_t i = 0; i < HF_ARRAY_LEN(all); i++) {
        const struct waits *w = all[i];
        if (w->n) {
            const struct wait *newest = &w->at[(w->first + w->n - 1) % WAITS_MAX];
            first = hf_time_min(first, w->at[w->first].at);
            last = newest->number > last ? newest->number : last;
        }
        for (unsigned j = 0; j < w->n; j++) {
            ret_lag->held += w->at[(w->first + j) % WAITS_MAX].n;
        }
    }
    hf_pair_primary_info(c->pg->protect->primary, now, &info);
    ret_lag->bytes = ret_lag->held + (s->wait.n ? s->rx_total - s->rx_conf : 0);
    ret_lag->batches = last > info.confirmed ? last - info.confirmed : 0;
    ret_lag->age = now - first;
}

/* ---- life ---- */

int hf_pg_protect_create(struct hf_pg *pg, const struct hf_endpoint *address, const char *interface,
                         struct hf_err *err, struct hf_pg_protect **ret_protect)
{
    struct hf_pg_protect *p = hf_alloc(sizeof(*p));
    if (!p) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    p->pg = pg;
    p->task.fn = on_task;
    hf_list_init(&p->task.node);
    hf_list_init(&p->all);
    hf_list_init(&p->touched);
    hf_list_init(&p->waiting);
    hf_list_init(&p->dropped);
    hf_list_init(&p->expiring);
    hf_list_init(&p->later);
    p->later_timer.fn = on_later;
    hf_list_init(&p->handshakes);
    hf_list_init(&p->closing);
    hf_map_init(&p->records, pg->seed);
    hf_map_init(&p->peers, pg->seed);
    struct hf_err why = {0};
    enum hf_egress_how how = hf_egress_probe(&why);
    if (how == HF_EGRESS_NONE) {
        int rc = hf_err_set(err, -EPERM, "this host can't guard %s: %s", interface, why.text);
        hf_free(p);
        return rc;
    }
    uint64_t slots = 2 * (uint64_t)pg->config->pg.max_clients + 1024;
    const struct hf_egress_options options = {
        .interfaces = &interface,
        .interfaces_len = 1,
        .addresses = address,
        .addresses_len = 1,
        .slots_max = (uint32_t)(slots < HF_EGRESS_SLOTS_MAX ? slots : HF_EGRESS_SLOTS_MAX),
        .how = how,
    };
    int rc = hf_egress_open(&options, err, &p->egress);
    if (rc) {
        hf_free(p);
        return rc;
    }
    rc = hf_poll_reserve(pg->wire->poll, 1);
    if (rc == 0) {
        rc = hf_poll_add(pg->wire->poll, &p->io, hf_egress_fd(p->egress), HF_POLL_READ, on_guard);
        (void)!hf_poll_reserve(pg->wire->poll, rc ? -1 : 0);
    }
    if (rc) {
        hf_egress_close(p->egress);
        hf_free(p);
        return hf_err_set(err, rc, "cannot watch the guard: %s", hf_strerror(rc));
    }
    hf_pg_linger_guard(pg->linger, hf_egress_slow_fd(p->egress));
    hf_pg_left_open(p, pg->config->service.control, options.slots_max);
    hf_log_info("", "guard of the service address: %s%s%s", hf_egress_how_name(how),
                why.text[0] ? "; " : "", why.text);
    *ret_protect = p;
    return 0;
}

void hf_pg_protect_lead(struct hf_pg_protect *p, struct hf_pair_primary *primary,
                        void (*pump)(void *arg), void *arg)
{
    p->primary = NULL; /* what follows is of no reign */
    hf_pg_slots_discard(p);
    hf_pg_slots_forget(p);
    p->primary = primary;
    p->pump = pump;
    p->pump_arg = arg;
    p->closing_gate = false;
    p->open = primary != NULL;
    p->serves = false;
    HF_LIST_FOREACH (node, &p->dropped) { /* what they held is not said any more */
        struct hf_pg_sconn *conn = HF_CONTAINER_OF(node, struct hf_pg_sconn, held_node);
        hf_list_unlink(&conn->held_node);
        hf_poll_task_add(p->pg->wire->poll, &conn->task);
    }
    set_flags(p);
}

struct copying {
    struct hf_pg_protect *protect;
    size_t pos; /* of records */
};

static bool tell_next(void *arg, struct hf_pair_primary *to)
{
    struct copying *c = arg;
    struct hf_pg_slot *e = hf_map_next(&c->protect->records, &c->pos);
    if (e && hf_pair_primary_begin(to, e->id) == 0) {
        c->protect->primary = to;
        hf_pg_protect_snapshot(c->protect, e->id);
    }
    return e != NULL;
}

int hf_pg_protect_copy(struct hf_pg_protect *p, struct hf_pair_store **ret_store)
{
    struct copying c = {.protect = p};
    struct hf_pair_primary *reign = p->primary;
    HF_LIST_FOREACH (node, &p->all) { /* what was acknowledged already */
        hf_pg_link_drain(&HF_CONTAINER_OF(node, struct hf_pg_shield, node)->client->link);
    }
    int rc = hf_pair_copy(tell_next, &c, p->pg->seed, hf_pg_now(p->pg), ret_store);
    p->primary = reign;
    return rc;
}

struct hf_egress *hf_pg_protect_egress(struct hf_pg_protect *p)
{
    return p->egress;
}

void hf_pg_protect_destroy(struct hf_pg_protect *p)
{
    if (!p) {
        return;
    }
    hf_pg_slots_discard(p);
    hf_pg_slots_forget(p);
    hf_list_unlink(&p->task.node);
    hf_poll_timer_set(p->pg->wire->poll, &p->later_timer, HF_NEVER);
    (void)!hf_poll_reserve(p->pg->wire->poll, -1);
    hf_poll_remove(p->pg->wire->poll, &p->io);
    hf_pg_left_close(p);
    hf_map_fini(&p->peers);
    hf_map_fini(&p->records);
    hf_egress_close(p->egress);
    hf_free(p);
}
