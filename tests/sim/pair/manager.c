/* Toy sessions on a primary manager, their clients and their database. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rd.h"
#include "base/wr.h"
#include "core/pair/copy.h"
#include "sim/pair/world.h"

#define PIPELINED_MAX 32u /* bytes of requests that are not answered */
#define FACTS_LEN 32u

/* ---- what a session is ---- */

static uint64_t rcv(const struct pw_session *s)
{
    return s->consumed + s->rx.n;
}

static uint64_t tx_end(const struct pw_session *s)
{
    return s->tx_base + s->tx.n;
}

static struct hf_slice facts(const struct pw_session *s, uint8_t buf[FACTS_LEN])
{
    struct hf_wr w;
    hf_wr_init(&w, buf, FACTS_LEN);
    hf_wr_u64(&w, s->consumed);
    hf_wr_u64(&w, s->tx_base);
    hf_wr_u64(&w, s->n_done);
    hf_wr_u64(&w, s->token);
    return hf_slice(buf, FACTS_LEN);
}

static void put_facts(struct pw_host *h, struct pw_session *s)
{
    uint8_t buf[FACTS_LEN];
    hf_pair_primary_put(h->primary, s->id, PW_FACTS, facts(s, buf));
    s->dirty = true;
}

static struct hf_slice item_name(uint32_t k)
{
    static const char *const names[PW_ITEMS] = {"", "a", "statement_2", "c"};
    return hf_slice_str(names[k]);
}

static void put_item(struct pw_host *h, struct pw_session *s, uint32_t k)
{
    uint8_t bytes[5];
    memset(bytes, s->item[k], sizeof(bytes));
    if (s->item[k]) {
        hf_pair_primary_set(h->primary, s->id, PW_PREPARED, item_name(k),
                            hf_slice(bytes, sizeof(bytes)));
    } else {
        hf_pair_primary_unset(h->primary, s->id, PW_PREPARED, item_name(k));
    }
}

void pw_snapshot(struct pw_host *h, uint64_t id)
{
    for (uint32_t i = 0; i < PW_CLIENTS; i++) {
        struct pw_session *s = &h->session[i];
        if (s->used && s->id == id) {
            uint8_t buf[FACTS_LEN];
            hf_pair_primary_put(h->primary, id, PW_RX, hf_buf_slice(&s->rx));
            hf_pair_primary_put(h->primary, id, PW_TX, hf_buf_slice(&s->tx));
            hf_pair_primary_put(h->primary, id, PW_LOG, hf_buf_slice(&s->log));
            hf_pair_primary_put(h->primary, id, PW_FACTS, facts(s, buf));
            for (uint32_t k = 0; k < PW_ITEMS; k++) {
                if (s->item[k]) {
                    put_item(h, s, k);
                }
            }
            return;
        }
    }
    pw_failed(h->w, "asked for a session that is not there");
}

/* ---- digests: of the primary's sessions, and of what a store has ---- */

static uint64_t mix(uint64_t id, uint64_t section, struct hf_slice name, struct hf_slice bytes)
{
    return hf_hash(bytes, hf_hash(name, id * 31 + section + 1));
}

static struct hf_slice none(void)
{
    return hf_slice("", 0);
}

uint64_t pw_digest(const struct pw_host *h)
{
    uint64_t d = 0;
    for (uint32_t i = 0; i < PW_CLIENTS; i++) {
        const struct pw_session *s = &h->session[i];
        if (!s->used) {
            continue;
        }
        uint8_t buf[FACTS_LEN];
        d += mix(s->id, PW_RX, none(), hf_buf_slice(&s->rx));
        d += mix(s->id, PW_TX, none(), hf_buf_slice(&s->tx));
        d += mix(s->id, PW_LOG, none(), hf_buf_slice(&s->log));
        d += mix(s->id, PW_FACTS, none(), facts(s, buf));
        for (uint32_t k = 0; k < PW_ITEMS; k++) {
            uint8_t bytes[5];
            memset(bytes, s->item[k], sizeof(bytes));
            d += s->item[k] ? mix(s->id, PW_PREPARED, item_name(k), hf_slice(bytes, 5)) : 0;
        }
    }
    return d;
}

uint64_t pw_digest_store(const struct hf_pair_store *st)
{
    uint64_t d = 0;
    for (const struct hf_pair_session *s = NULL; (s = hf_pair_store_next(st, s));) {
        uint64_t id = hf_pair_session_id(s);
        for (uint8_t i = PW_RX; i <= PW_LOG; i++) {
            d += mix(id, i, none(), hf_pair_session_section(s, i));
        }
        struct hf_pair_item it;
        for (const void *pos = NULL; hf_pair_session_item(s, PW_PREPARED, &pos, &it);) {
            d += mix(id, PW_PREPARED, it.name, it.bytes);
        }
    }
    return d;
}

/* ---- batches and what waits for them ---- */

void pw_note_sealed(struct pw_host *h)
{
    struct pw_world *w = h->w;
    uint64_t n = hf_pair_primary_seal(h->primary, pw_local(h));
    for (uint32_t i = 0; i < PW_CLIENTS; i++) {
        struct pw_session *s = &h->session[i];
        if (s->used && s->dirty) {
            s->mark[s->n_marks++] = (struct pw_mark){
                .number = n,
                .rcv = rcv(s),
                .tx = tx_end(s),
                .token = s->wants_commit ? s->token : 0,
            };
            s->dirty = s->wants_commit = false;
        }
    }
    struct pw_reign *r = NULL;
    for (uint32_t i = 0; i < w->n_reigns; i++) {
        r = w->reign[i].incarnation == h->incarnation ? &w->reign[i] : r;
    }
    if (n > h->recorded) {
        uint64_t d = pw_digest(h);
        for (uint64_t i = h->recorded + 1; i <= n && i < PW_NUMBERS; i++) {
            r->digest[i] = d;
        }
        h->recorded = n;
    }
}

/* The session of a client on a host where sessions live; NULL: there is none, or it is swamped. */
static struct pw_session *session(struct pw_host *h, uint32_t client)
{
    struct pw_session *s = &h->session[client];
    return pw_runs(h) && h->primary && s->used && s->n_marks < PW_MARKS - 2 ? s : NULL;
}

static bool current(const struct pw_host *h, const struct pw_session *s)
{
    return h->w->client[s->client].id == s->id;
}

bool pw_release(struct pw_host *h, uint32_t client)
{
    struct pw_session *s = &h->session[client];
    struct pw_world *w = h->w;
    if (!pw_runs(h) || !h->primary || !s->used || !s->n_marks || w->db.n_commits == 64) {
        return false;
    }
    struct pw_mark m = s->mark[0];
    if (!hf_pair_primary_may(h->primary, m.number, pw_local(h))) {
        return false;
    }
    pw_check_output(h, "lets something out");
    pw_check_released(h, m.number, "lets something out");
    memmove(s->mark, s->mark + 1, --s->n_marks * sizeof(m));
    h->released = m.number > h->released ? m.number : h->released;
    if (m.token && m.token == s->token) {
        w->db.commit[w->db.n_commits++] = (struct pw_commit){h->i, h->epoch, m.token};
    }
    s->may_tx = m.tx > s->may_tx ? m.tx : s->may_tx;
    struct pw_client *c = &w->client[client];
    if (current(h, s)) {
        if (!c->connected) {
            c->connected = true; /* the SYN-ACK went out */
        }
        c->acked = m.rcv > c->acked ? m.rcv : c->acked;
    }
    return true;
}

/* What was acknowledged already. */
static void drain(struct pw_host *h)
{
    for (uint32_t i = 0; i < PW_CLIENTS; i++) {
        struct pw_session *s = &h->session[i];
        while (s->used && rcv(s) < s->kernel) { /* SIOCINQ */
            uint64_t before = rcv(s);
            if (!pw_read(h, i, s->kernel - rcv(s)) || rcv(s) == before) {
                break;
            }
        }
    }
}

struct copying {
    struct pw_host *host;
    uint32_t next;
};

static bool tell_next(void *arg, struct hf_pair_primary *to)
{
    struct copying *c = arg;
    while (c->next < PW_CLIENTS && !c->host->session[c->next].used) {
        c->next++;
    }
    if (c->next == PW_CLIENTS) {
        return false;
    }
    uint64_t id = c->host->session[c->next++].id;
    if (hf_pair_primary_begin(to, id)) {
        abort();
    }
    c->host->primary = to;
    pw_snapshot(c->host, id);
    return true;
}

struct hf_pair_store *pw_copy(struct pw_host *h)
{
    struct copying c = {.host = h};
    struct hf_pair_primary *reign = h->primary;
    struct hf_pair_store *st;
    pw_note_sealed(h);
    drain(h);
    if (hf_pair_copy(tell_next, &c, h->epoch, pw_local(h), &st)) {
        abort();
    }
    h->primary = reign;
    return st;
}

bool pw_gated(struct pw_host *h)
{
    if (!pw_runs(h) || !h->primary || !h->gated_due) {
        return false;
    }
    h->gated_due = false;
    drain(h);
    hf_pair_primary_gated(h->primary, pw_local(h));
    pw_note_sealed(h);
    return true;
}

/* ---- the client's connection ---- */

bool pw_client_done(const struct pw_client *c)
{
    return c->connected && c->sent == c->asks_max * 8 && c->got == c->sent;
}

bool pw_asks(struct pw_world *w, uint32_t client, size_t n)
{
    struct pw_client *c = &w->client[client];
    uint64_t room = c->asks_max * 8 - c->sent, window = c->got + PIPELINED_MAX - c->sent;
    n = n < room ? n : room;
    n = n < window ? n : window;
    c->sent += c->connected ? n : 0;
    return c->connected && n;
}

bool pw_accept(struct pw_host *h, uint32_t client)
{
    struct pw_world *w = h->w;
    struct pw_client *c = &w->client[client];
    struct pw_session *s = &h->session[client];
    if (!pw_runs(h) || !h->primary || !h->listens || s->used || c->connected ||
        w->g.primary != h->i || w->g.epoch != h->epoch || w->g.stood_down ||
        hf_pair_primary_full(h->primary)) {
        return false;
    }
    uint64_t id = ++w->next_id;
    if (hf_pair_primary_begin(h->primary, id) != 0) {
        abort();
    }
    hf_buf_clear(&s->rx);
    hf_buf_clear(&s->tx);
    hf_buf_clear(&s->log);
    *s = (struct pw_session){
        .used = true, .id = id, .client = client, .rx = s->rx, .tx = s->tx, .log = s->log};
    put_facts(h, s);
    c->id = id;
    c->base = w->db.value[client];
    c->sent = c->acked = c->got = 0;
    return true;
}

bool pw_read(struct pw_host *h, uint32_t client, size_t n)
{
    struct pw_session *s = session(h, client);
    if (!s || !current(h, s) || (hf_pair_primary_full(h->primary) && rcv(s) >= s->kernel)) {
        return false;
    }
    uint64_t there = h->w->client[client].sent - rcv(s);
    n = n < there ? n : there;
    if (n == 0) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t place = rcv(s), ask = place / 8 + 1;
        uint8_t b = (uint8_t)(ask >> (56 - 8 * (place % 8)));
        hf_buf_add(&s->rx, hf_slice(&b, 1));
    }
    hf_pair_primary_append(h->primary, s->id, PW_RX, hf_slice(s->rx.p + s->rx.n - n, n));
    s->dirty = true;
    return true;
}

/* While the gate is open, the kernel acknowledges what is not read yet. */
bool pw_kernel(struct pw_host *h, uint32_t client)
{
    struct pw_session *s = session(h, client);
    struct pw_client *c = &h->w->client[client];
    if (!s || !current(h, s) || !c->connected || !h->gate_open || c->acked >= c->sent ||
        !hf_pair_primary_may(h->primary, 0, pw_local(h))) {
        return false;
    }
    pw_check_output(h, "acknowledges");
    pw_check_released(h, UINT64_MAX, "acknowledges");
    s->kernel = c->acked = c->sent;
    return true;
}

static uint64_t new_token(struct pw_host *h, struct pw_session *s)
{
    struct pw_db *db = &h->w->db;
    if (db->n_txns + 1 == PW_TXNS) {
        return 0;
    }
    db->txn[++db->n_txns] =
        (struct pw_txn){.client = s->client, .epoch = h->epoch, .state = PW_OPEN};
    return db->n_txns;
}

bool pw_parse(struct pw_host *h, uint32_t client)
{
    struct pw_session *s = session(h, client);
    struct pw_world *w = h->w;
    if (!s || s->token || s->rx.n < 8) {
        return false;
    }
    struct hf_rd r;
    hf_rd_init(&r, hf_buf_slice(&s->rx));
    if (hf_rd_u64(&r) != s->n_done + 1) {
        pw_failed(w, "client %u: request %" PRIu64 " has the wrong bytes", client, s->n_done + 1);
    }
    s->token = new_token(h, s);
    if (!s->token) {
        return false;
    }
    s->wants_commit = true;
    hf_buf_consume(&s->rx, 8);
    s->consumed += 8;
    hf_pair_primary_cut(h->primary, s->id, PW_RX, 8);
    size_t n = pw_below(w, 200) == 0 ? 100000 + pw_below(w, 100000) : 16;
    uint8_t *p = hf_buf_reserve(&s->log, n);
    memset(p, (int)pw_below(w, 256), n);
    hf_buf_commit(&s->log, n);
    hf_pair_primary_append(h->primary, s->id, PW_LOG, hf_slice(p, n));
    uint32_t k = (uint32_t)pw_below(w, PW_ITEMS);
    s->item[k] = (uint8_t)(pw_below(w, 3) ? 1 + pw_below(w, 255) : 0);
    put_item(h, s, k);
    put_facts(h, s);
    return true;
}

bool pw_write(struct pw_host *h, uint32_t client, size_t n)
{
    struct pw_session *s = &h->session[client];
    struct pw_world *w = h->w;
    struct pw_client *c = &w->client[client];
    if (!pw_runs(h) || !h->primary || !s->used || !current(h, s) || s->may_tx <= c->got ||
        !hf_pair_primary_may(h->primary, 0, pw_local(h))) {
        return false;
    }
    pw_check_output(h, "writes");
    if (c->got < s->tx_base) {
        pw_failed(w, "client %u: bytes to be sent are gone", client);
    }
    for (; n && c->got < s->may_tx; n--, c->got++) {
        c->part[c->got % 8] = s->tx.p[c->got - s->tx_base];
        if (c->got % 8 == 7) {
            struct hf_rd r;
            hf_rd_init(&r, hf_slice(c->part, 8));
            uint64_t value = hf_rd_u64(&r), want = c->base + c->got / 8 + 1;
            if (value != want) {
                pw_failed(w, "client %u counts %" PRIu64 ", the database %" PRIu64, client, want,
                          value);
            }
            c->n_answers++;
            if (w->story) {
                pw_tell(w, "client %u: %" PRIu64, client, value);
            }
            w->n_answers++;
        }
    }
    return true;
}

bool pw_acked(struct pw_host *h, uint32_t client)
{
    struct pw_session *s = session(h, client);
    if (!s || !current(h, s) || h->w->client[client].got <= s->tx_base) {
        return false;
    }
    uint64_t n = h->w->client[client].got - s->tx_base;
    if (n > s->tx.n) {
        return false; /* another one goes on with it */
    }
    hf_buf_consume(&s->tx, n);
    s->tx_base += n;
    hf_pair_primary_cut(h->primary, s->id, PW_TX, (uint32_t)n);
    put_facts(h, s);
    return true;
}

bool pw_leaves(struct pw_host *h, uint32_t client)
{
    struct pw_session *s = session(h, client);
    struct pw_client *c = &h->w->client[client];
    if (!s || (current(h, s) && !pw_client_done(c)) || h->w->g.primary != h->i ||
        h->w->g.epoch != h->epoch) {
        return false;
    }
    if (current(h, s)) {
        c->connected = false;
        c->id = 0;
    }
    hf_pair_primary_end(h->primary, s->id);
    s->used = false;
    return true;
}

/* ---- the database ---- */

bool pw_db_commit(struct pw_world *w)
{
    struct pw_db *db = &w->db;
    if (db->n_commits == 0 || db->n_answers == 64) {
        return false;
    }
    struct pw_commit c = db->commit[0];
    memmove(db->commit, db->commit + 1, --db->n_commits * sizeof(c));
    struct pw_txn *t = &db->txn[c.token];
    if (c.epoch < db->min_epoch || t->state != PW_OPEN) {
        return true; /* its backend is gone */
    }
    t->state = PW_COMMITTED;
    t->value = ++db->value[t->client];
    db->answer[db->n_answers++] = c;
    return true;
}

static void answer(struct pw_host *h, struct pw_session *s, uint64_t value)
{
    uint8_t bytes[8];
    struct hf_wr w;
    hf_wr_init(&w, bytes, sizeof(bytes));
    hf_wr_u64(&w, value);
    hf_buf_add(&s->tx, hf_slice(bytes, 8));
    hf_pair_primary_append(h->primary, s->id, PW_TX, hf_slice(bytes, 8));
    hf_buf_clear(&s->log);
    hf_pair_primary_clear(h->primary, s->id, PW_LOG);
    s->n_done++;
    s->token = 0;
    s->wants_commit = false;
    put_facts(h, s);
}

bool pw_db_answer(struct pw_world *w)
{
    struct pw_db *db = &w->db;
    for (uint32_t i = 0; i < db->n_answers; i++) {
        struct pw_commit a = db->answer[i];
        struct pw_host *h = &w->host[a.host];
        struct pw_session *s = &h->session[db->txn[a.token].client];
        bool there = h->up && h->primary && h->epoch == a.epoch && s->used && s->token == a.token;
        if (there && (h->frozen || s->n_marks >= PW_MARKS - 2)) {
            continue;
        }
        memmove(db->answer + i, db->answer + i + 1, (--db->n_answers - i) * sizeof(a));
        if (there) {
            answer(h, s, db->txn[a.token].value);
        }
        return true;
    }
    return false;
}

/* ---- take-over ---- */

static void restore_one(struct pw_host *h, const struct hf_pair_session *from)
{
    struct pw_world *w = h->w;
    uint64_t id = hf_pair_session_id(from);
    uint32_t client = 0;
    while (client < PW_CLIENTS && w->client[client].id != id) {
        client++;
    }
    if (client == PW_CLIENTS) {
        return; /* nobody is there any more */
    }
    struct pw_session *s = &h->session[client];
    const struct pw_client *c = &w->client[client];
    *s = (struct pw_session){
        .used = true, .id = id, .client = client, .rx = s->rx, .tx = s->tx, .log = s->log};
    hf_buf_add(&s->rx, hf_pair_session_section(from, PW_RX));
    hf_buf_add(&s->tx, hf_pair_session_section(from, PW_TX));
    hf_buf_add(&s->log, hf_pair_session_section(from, PW_LOG));
    struct hf_rd r;
    hf_rd_init(&r, hf_pair_session_section(from, PW_FACTS));
    s->consumed = hf_rd_u64(&r);
    s->tx_base = hf_rd_u64(&r);
    s->n_done = hf_rd_u64(&r);
    s->token = hf_rd_u64(&r);
    struct hf_pair_item it;
    for (const void *pos = NULL; hf_pair_session_item(from, PW_PREPARED, &pos, &it);) {
        for (uint32_t k = 0; k < PW_ITEMS; k++) {
            s->item[k] = hf_slice_eq(it.name, item_name(k)) ? it.bytes.p[0] : s->item[k];
        }
    }
    if (hf_rd_end(&r) || rcv(s) < c->acked || s->tx_base > c->got || tx_end(s) < c->got) {
        pw_failed(w,
                  "client %u: acknowledged up to %" PRIu64 ", got %" PRIu64
                  "; taken over at %" PRIu64 ", %" PRIu64 " to %" PRIu64,
                  client, c->acked, c->got, rcv(s), s->tx_base, tx_end(s));
    }
    s->kernel = rcv(s);
    if (hf_pair_primary_begin(h->primary, id) != 0) {
        abort();
    }
    s->dirty = true;
    struct pw_txn *t = &w->db.txn[s->token];
    if (s->token && t->state == PW_COMMITTED) { /* X4 */
        answer(h, s, t->value);
    } else if (s->token) {
        t->state = PW_ABORTED;
        s->token = new_token(h, s);
        s->wants_commit = s->token != 0;
        put_facts(h, s);
    }
}

void pw_restore(struct pw_host *h, const struct hf_pair_store *st)
{
    struct pw_world *w = h->w;
    pw_forget(h);
    if (w->g.epoch != h->epoch) {
        return; /* too late: the database lets it in no more (X6) */
    }
    w->db.min_epoch = h->epoch;
    for (const struct hf_pair_session *s = NULL; st && (s = hf_pair_store_next(st, s));) {
        restore_one(h, s);
    }
    for (uint32_t i = 0; i < w->n_clients; i++) {
        struct pw_client *c = &w->client[i];
        if (!c->connected || h->session[i].used) {
            continue;
        }
        if (st) {
            pw_failed(w, "client %u: its session was not taken over", i);
        }
        pw_tell(w, "client %u: its connection is reset", i);
        c->connected = false;
        c->id = 0;
        c->n_resets++;
        w->n_resets++;
    }
}

void pw_forget(struct pw_host *h)
{
    for (uint32_t i = 0; i < PW_CLIENTS; i++) {
        struct pw_session *s = &h->session[i];
        hf_buf_clear(&s->rx);
        hf_buf_clear(&s->tx);
        hf_buf_clear(&s->log);
        s->used = false;
    }
}
