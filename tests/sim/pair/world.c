/* Hosts, their clocks and connections, and the cores in them. */
#include "sim/pair/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define LINK_MAX (8u << 20)
#define BUF_MAX (1u << 20)

void pw_tell(struct pw_world *w, const char *fmt, ...)
{
    if (!w->trace) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    if (!w->story) {
        fprintf(w->trace, "%8.3f ", (double)w->now / 1e6);
    }
    vfprintf(w->trace, fmt, ap);
    fputc('\n', w->trace);
    va_end(ap);
}

void pw_failed(struct pw_world *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->why, sizeof(w->why), fmt, ap);
    va_end(ap);
    pw_tell(w, "FAILED: %s", w->why);
    longjmp(*w->fail, 1);
}

uint64_t pw_below(struct pw_world *w, uint64_t n)
{
    return hf_prng_below(&w->prng, n);
}

hf_time pw_local(const struct pw_host *h)
{
    return h->w->now + h->offset;
}

bool pw_runs(const struct pw_host *h)
{
    return h->up && !h->frozen;
}

char pw_name(uint32_t host)
{
    return (char)('A' + host);
}

/* ---- links ---- */

static void free_link(struct pw_link *l)
{
    if (!l->a_open && !l->b_open && !l->b_pending) {
        hf_buf_fini(&l->ab);
        hf_buf_fini(&l->ba);
        *l = (struct pw_link){0};
    }
}

static void close_a(struct pw_host *h)
{
    if (h->plink >= 0) {
        struct pw_link *l = &h->w->link[h->plink];
        l->a_open = false;
        h->plink = -1;
        free_link(l);
    }
}

static void close_b(struct pw_host *h)
{
    if (h->blink >= 0) {
        struct pw_link *l = &h->w->link[h->blink];
        l->b_open = false;
        h->blink = -1;
        free_link(l);
    }
}

static struct pw_link *new_link(struct pw_world *w, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < PW_LINKS; i++) {
        struct pw_link *l = &w->link[i];
        if (!l->used) {
            *l = (struct pw_link){.used = true, .a = a, .b = b, .a_open = true, .b_pending = true};
            hf_buf_init(&l->ab, LINK_MAX);
            hf_buf_init(&l->ba, LINK_MAX);
            w->host[a].plink = (int)i;
            return l;
        }
    }
    return NULL;
}

/* What the backup has to say, and whether it has had enough. */
static void pump_backup(struct pw_host *h)
{
    if (!h->backup) {
        return;
    }
    struct hf_slice s = hf_pair_backup_tosend(h->backup);
    if (s.n && h->blink >= 0) {
        struct hf_buf *to = &h->w->link[h->blink].ba;
        size_t n = to->n < h->w->link_room ? h->w->link_room - to->n : 0;
        n = n < s.n ? n : s.n;
        hf_buf_add(to, hf_slice(s.p, n));
        hf_pair_backup_sent(h->backup, n);
    }
    if (hf_pair_backup_closes(h->backup)) {
        pw_tell(h->w, "%c closes the connection of its primary", pw_name(h->i));
        close_b(h);
    }
    pw_check_store(h);
}

static void pump_primary(struct pw_host *h)
{
    for (;;) {
        struct hf_slice s = hf_pair_primary_tosend(h->primary);
        if (s.n == 0 || h->plink < 0) {
            break;
        }
        struct hf_buf *to = &h->w->link[h->plink].ab;
        size_t n = to->n < h->w->link_room ? h->w->link_room - to->n : 0;
        n = n < s.n ? n : s.n;
        if (n == 0) {
            break;
        }
        hf_buf_add(to, hf_slice(s.p, n));
        hf_pair_primary_sent(h->primary, n);
    }
}

/* A listening socket accepts also for a frozen process; the process sees it when it runs. */
static bool accept_link(struct pw_world *w, struct pw_link *l)
{
    struct pw_host *b = &w->host[l->b];
    if (!l->b_pending || !pw_runs(b)) {
        return false;
    }
    l->b_pending = false;
    if (!b->backup) {
        free_link(l);
        return true;
    }
    l->b_open = true;
    close_b(b);
    b->blink = (int)(l - w->link);
    hf_pair_backup_connected(b->backup, pw_local(b));
    return true;
}

bool pw_connects(struct pw_host *h)
{
    if (!h->connecting || !pw_runs(h) || !h->primary) {
        return false;
    }
    uint32_t to = pw_place(h, h->connecting) - 1;
    h->connecting = 0;
    struct pw_world *w = h->w;
    if (to >= PW_HOSTS || !pw_linked(w, h->i, to) || !w->host[to].up || !w->host[to].backup ||
        !new_link(w, h->i, to)) {
        hf_pair_primary_disconnected(h->primary, pw_local(h));
        return true;
    }
    pw_tell(w, "%c is connected to %c", pw_name(h->i), pw_name(to));
    hf_pair_primary_connected(h->primary, pw_local(h));
    return true;
}

bool pw_link_ab(struct pw_world *w, uint32_t link, size_t n)
{
    struct pw_link *l = &w->link[link];
    if (!l->used) {
        return false;
    }
    if (l->b_pending) {
        return !l->dead && accept_link(w, l);
    }
    struct pw_host *b = &w->host[l->b];
    if (!l->b_open || !pw_runs(b) || !b->backup || l->ab.n == 0 || l->dead) {
        return false;
    }
    n = n < l->ab.n ? n : l->ab.n;
    uint8_t *exact = malloc(n); /* exact size: the sanitizer sees any step beyond */
    memcpy(exact, l->ab.p, n);
    hf_buf_consume(&l->ab, n);
    b->heard = w->now;
    hf_pair_backup_received(b->backup, hf_slice(exact, n), pw_local(b));
    free(exact);
    pump_backup(b);
    return true;
}

bool pw_link_ba(struct pw_world *w, uint32_t link, size_t n)
{
    struct pw_link *l = &w->link[link];
    struct pw_host *a = &w->host[l->a];
    if (!l->used || !l->a_open || !pw_runs(a) || !a->primary || l->ba.n == 0 || l->dead) {
        return false;
    }
    n = n < l->ba.n ? n : l->ba.n;
    uint8_t *exact = malloc(n);
    memcpy(exact, l->ba.p, n);
    hf_buf_consume(&l->ba, n);
    hf_pair_primary_received(a->primary, hf_slice(exact, n), pw_local(a));
    free(exact);
    return true;
}

/* One end finds out that the other one is gone, when what came before is read. */
bool pw_notice(struct pw_world *w, uint32_t link, bool a)
{
    struct pw_link *l = &w->link[link];
    if (!l->used) {
        return false;
    }
    if (a) {
        struct pw_host *h = &w->host[l->a];
        bool gone = l->dead || (!l->b_open && !l->b_pending && l->ba.n == 0);
        if (!l->a_open || !gone || !pw_runs(h)) {
            return false;
        }
        close_a(h);
        if (h->primary) {
            pw_tell(w, "%c sees its connection broken", pw_name(h->i));
            hf_pair_primary_disconnected(h->primary, pw_local(h));
        }
        return true;
    }
    struct pw_host *h = &w->host[l->b];
    bool gone = l->dead || (!l->a_open && l->ab.n == 0);
    if (l->b_pending && gone) {
        l->b_pending = false;
        free_link(l);
        return true;
    }
    if (!l->b_open || !gone || !pw_runs(h)) {
        return false;
    }
    close_b(h);
    if (h->backup) {
        pw_tell(w, "%c sees the connection of its primary broken", pw_name(h->i));
        hf_pair_backup_disconnected(h->backup, pw_local(h));
        pump_backup(h);
    }
    return true;
}

void pw_break(struct pw_world *w, uint32_t link, size_t ab, size_t ba)
{
    struct pw_link *l = &w->link[link];
    if (!l->used || l->dead) {
        return;
    }
    pw_tell(w, "-- the connection %c - %c breaks", pw_name(l->a), pw_name(l->b));
    (void)pw_link_ab(w, link, ab); /* what had come already */
    if (l->used) {
        (void)pw_link_ba(w, link, ba);
    }
    l->dead = l->used;
}

/* ---- a host's turn ---- */

static void do_out(struct pw_host *h, const struct hf_pair_out *o)
{
    struct pw_world *w = h->w;
    if (!w->story || (o->kind != HF_PAIR_OUT_CONFIRMED && o->kind != HF_PAIR_OUT_CONNECT)) {
        pw_tell(w, "  %c: %s", pw_name(h->i), hf_pair_out_name(o->kind));
    }
    switch (o->kind) {
    case HF_PAIR_OUT_CLOSE:
        close_a(h);
        h->connecting = 0;
        break;
    case HF_PAIR_OUT_CONNECT:
        h->connecting = o->host;
        break;
    case HF_PAIR_OUT_CLOSE_GATE:
        h->gate_open = false;
        h->gated_due = true;
        break;
    case HF_PAIR_OUT_OPEN_GATE:
        h->gate_open = true;
        h->gated_due = false;
        break;
    case HF_PAIR_OUT_ASK_SOLO:
    case HF_PAIR_OUT_ASK_RECORD:
        pw_asked(h, o);
        break;
    case HF_PAIR_OUT_CONFIRMED:
        if (o->number <= h->confirmed || !hf_pair_primary_may(h->primary, o->number, pw_local(h))) {
            pw_failed(w, "CONFIRMED %" PRIu64 " after %" PRIu64, o->number, h->confirmed);
        }
        h->confirmed = o->number;
        break;
    case HF_PAIR_OUT_SNAPSHOT:
        pw_snapshot(h, o->session);
        break;
    case HF_PAIR_OUT_COUNT_:
        break;
    }
}

static void tell_state(struct pw_host *h)
{
    struct hf_pair_primary_info info;
    hf_pair_primary_info(h->primary, pw_local(h), &info);
    if (hf_pair_primary_counters(h->primary)->malformed) {
        pw_failed(h->w, "%c got what makes no sense", pw_name(h->i));
    }
    if (info.state != h->told) {
        h->told = info.state;
        pw_tell(h->w, "%c: %s", pw_name(h->i), hf_pair_state_name(info.state));
    }
}

bool pw_turn(struct pw_host *h)
{
    if (!pw_runs(h)) {
        return false;
    }
    if (h->backup) {
        pump_backup(h);
    }
    if (!h->primary) {
        return false;
    }
    struct hf_pair_out o;
    pw_note_sealed(h);
    bool did = false;
    tell_state(h);
    do {
        pw_lease(h);
        while (hf_pair_primary_next(h->primary, pw_local(h), &o)) {
            do_out(h, &o);
            did = true;
        }
    } while (pw_answered(h));
    pw_note_sealed(h);
    pump_primary(h);
    tell_state(h);
    return did;
}

/* ---- reigns ---- */

void pw_retire(struct pw_host *h)
{
    close_a(h);
    pw_forget(h);
    if (h->primary) {
        const struct hf_pair_primary_counters *c = hf_pair_primary_counters(h->primary);
        h->w->n_syncs += c->syncs;
        h->w->n_resumes += c->resumes;
    }
    hf_pair_primary_destroy(h->primary);
    h->primary = NULL;
    h->connecting = 0;
}

/* What the backup has learnt of its primary's clock never gives a time that is too early. */
static void check_clock(const struct pw_host *h, const struct hf_pair_backup_info *info)
{
    for (uint32_t i = 0; i < h->w->n_reigns; i++) {
        const struct pw_reign *r = &h->w->reign[i];
        hf_time d = h->offset - h->w->host[r->host].offset;
        if (r->incarnation == info->incarnation && info->clocked && info->clock_offset < d) {
            pw_failed(h->w, "%c takes its primary's clock for an earlier one", pw_name(h->i));
        }
    }
}

struct hf_pair_store *pw_reign(struct pw_host *h, uint64_t epoch, uint32_t owed)
{
    struct pw_world *w = h->w;
    struct hf_pair_store *st = NULL;
    pw_retire(h);
    if (h->backup) {
        struct hf_pair_backup_info info;
        hf_pair_backup_info(h->backup, &info);
        check_clock(h, &info);
        st = hf_pair_backup_take(h->backup);
        close_b(h);
        hf_pair_backup_destroy(h->backup);
        h->backup = NULL;
    }
    struct hf_pair_primary_conf conf = w->conf;
    conf.epoch = h->epoch = epoch;
    conf.owed = owed;
    conf.incarnation = h->incarnation = hf_prng_u64(&w->prng) | 1;
    w->reign[w->n_reigns].host = h->i;
    w->reign[w->n_reigns++].incarnation = h->incarnation;
    if (hf_pair_primary_create(&conf, pw_local(h), &h->primary) != 0) {
        abort();
    }
    h->gate_open = true;
    h->gated_due = false;
    h->confirmed = h->recorded = h->released = 0;
    h->told = HF_PAIR_STATE_NO_BACKUP;
    return st;
}

void pw_lead(struct pw_host *h, const struct pw_msg *m)
{
    struct pw_world *w = h->w;
    if (m->epoch <= h->epoch || w->n_reigns == PW_REIGNS) {
        return;
    }
    bool usable = h->backup && hf_pair_backup_usable(h->backup, m->epoch - 1);
    if (m->done && !usable) {
        pw_failed(w, "%c was promoted for a store that it does not have", pw_name(h->i));
    }
    struct hf_pair_store *st = pw_reign(h, m->epoch, 0);
    h->lease = m->at;
    h->lease_asked = 0;
    h->listens = true;
    hf_pair_primary_lease(h->primary, m->at == HF_NEVER ? m->at : m->at + h->offset, pw_local(h));
    pw_tell(w, "%c leads epoch %" PRIu64 "%s", pw_name(h->i), h->epoch,
            m->done ? " with what it has" : "");
    pw_restore(h, m->done ? st : NULL);
    hf_pair_store_destroy(st);
}

void pw_follow(struct pw_host *h, uint64_t epoch)
{
    if (epoch < h->epoch || (epoch == h->epoch && (h->primary || h->backup))) {
        return;
    }
    pw_retire(h);
    h->epoch = epoch;
    if (h->backup) {
        hf_pair_backup_epoch(h->backup, epoch, pw_local(h));
        pump_backup(h);
        return;
    }
    struct hf_pair_backup_conf conf = {
        .epoch = epoch, .seed = epoch, .silence = h->w->conf.silence};
    if (hf_pair_backup_create(&conf, pw_local(h), &h->backup) != 0) {
        abort();
    }
}

void pw_unfollow(struct pw_host *h)
{
    close_b(h);
    hf_pair_backup_destroy(h->backup);
    h->backup = NULL;
    h->epoch = 0;
}

/* ---- time ---- */

static hf_time deadline(const struct pw_host *h)
{
    hf_time t = HF_NEVER;
    if (!pw_runs(h)) {
        return t;
    }
    if (h->primary) {
        t = hf_pair_primary_deadline(h->primary);
    }
    if (h->backup) {
        t = hf_time_min(t, hf_pair_backup_deadline(h->backup));
    }
    return t == HF_NEVER ? t : t - h->offset;
}

hf_time pw_deadline(const struct pw_world *w)
{
    hf_time t = HF_NEVER;
    for (uint32_t i = 0; i < PW_HOSTS; i++) {
        t = hf_time_min(t, deadline(&w->host[i]));
    }
    return t;
}

void pw_time(struct pw_world *w, hf_time most)
{
    hf_time t = hf_time_min(w->now + most, pw_deadline(w));
    pw_tick(w, t > w->now ? t : w->now + 1000);
}

void pw_tick(struct pw_world *w, hf_time now)
{
    w->now = now;
    for (uint32_t i = 0; i < PW_HOSTS; i++) {
        struct pw_host *h = &w->host[i];
        if (pw_runs(h) && h->primary) {
            hf_pair_primary_step(h->primary, pw_local(h));
        }
        if (pw_runs(h) && h->backup) {
            hf_pair_backup_step(h->backup, pw_local(h));
            pump_backup(h);
        }
    }
}

void pw_settle(struct pw_world *w)
{
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < PW_HOSTS; i++) {
            struct pw_host *h = &w->host[i];
            more |= pw_group_looks(w, i) | pw_group_hears(w, i) | pw_group_acts(w) |
                    pw_host_hears(h) | pw_connects(h) | pw_gated(h) | pw_turn(h);
            for (uint32_t c = 0; c < w->n_clients; c++) {
                more |= pw_accept(h, c) | pw_read(h, c, SIZE_MAX) | pw_parse(h, c) |
                        pw_release(h, c) | pw_write(h, c, SIZE_MAX) | pw_acked(h, c);
                more |= pw_asks(w, c, SIZE_MAX);
            }
        }
        for (uint32_t l = 0; l < PW_LINKS; l++) {
            more |= pw_link_ab(w, l, SIZE_MAX) | pw_link_ba(w, l, SIZE_MAX) |
                    pw_notice(w, l, true) | pw_notice(w, l, false);
        }
        more |= pw_db_commit(w) | pw_db_answer(w);
    }
}

/* ---- life and death ---- */

void pw_crash(struct pw_host *h, bool silently)
{
    if (!h->up) {
        return;
    }
    struct pw_world *w = h->w;
    pw_tell(w, "-- %c loses power", pw_name(h->i));
    w->n_crashes++;
    for (uint32_t i = 0; i < PW_LINKS; i++) {
        struct pw_link *l = &w->link[i];
        if (l->used && (l->a == h->i || l->b == h->i)) {
            l->dead = l->dead || silently;
            l->b_pending = l->b_pending && l->b != h->i;
        }
    }
    pw_retire(h);
    pw_unfollow(h);
    h->to.n = h->from.n = 0;
    h->up = h->frozen = false;
    for (uint32_t i = 0; i < PW_LINKS; i++) {
        if (w->link[i].used) {
            free_link(&w->link[i]);
        }
    }
}

void pw_boot(struct pw_host *h)
{
    if (!h->up) {
        pw_tell(h->w, "-- %c boots", pw_name(h->i));
        h->up = true;
        h->to.n = 0;
        h->boots++;
    }
}

void pw_init(struct pw_world *w, uint64_t seed, uint32_t n_clients, bool fences)
{
    jmp_buf *fail = w->fail;
    FILE *trace = w->trace;
    memset(w, 0, sizeof(*w));
    w->fail = fail;
    w->trace = trace;
    hf_prng_init(&w->prng, seed);
    w->now = HF_S(1000);
    w->n_clients = n_clients;
    w->link_room = LINK_MAX;
    w->lease = HF_MS(60);
    w->g.fences = fences;
    w->g.primary = 0;
    w->conf = (struct hf_pair_primary_conf){0};
    for (uint32_t i = 0; i < PW_HOSTS; i++) {
        struct pw_host *h = &w->host[i];
        h->w = w;
        h->i = i;
        h->plink = h->blink = -1;
        h->offset = HF_MS(100) * (hf_time)i * (i & 1 ? 1 : -1);
        h->up = true;
        h->boots = 1;
        for (uint32_t k = 0; k < PW_CLIENTS; k++) {
            hf_buf_init(&h->session[k].rx, BUF_MAX);
            hf_buf_init(&h->session[k].tx, BUF_MAX);
            hf_buf_init(&h->session[k].log, BUF_MAX);
        }
    }
    for (uint32_t i = 0; i < n_clients; i++) {
        w->client[i].asks_max = 1000000;
    }
}

void pw_fini(struct pw_world *w)
{
    FILE *trace = w->trace;
    w->trace = NULL;
    for (uint32_t i = 0; i < PW_HOSTS; i++) {
        struct pw_host *h = &w->host[i];
        pw_crash(h, true);
        for (uint32_t k = 0; k < PW_CLIENTS; k++) {
            hf_buf_fini(&h->session[k].rx);
            hf_buf_fini(&h->session[k].tx);
            hf_buf_fini(&h->session[k].log);
        }
    }
    w->trace = trace;
}
