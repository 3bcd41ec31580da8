/* Server processes that nobody needs any more are ended, a few at a time. */
#include "pg/behind.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/protect.h"
#include "pg/route.h"

#define FIRST HF_MS(300) /* clients go on first */
#define PAUSE HF_MS(20)
#define AT_ONCE_MAX 20
#define ROUNDS 50 /* for all, if there are fewer than these times AT_ONCE_MAX */
#define TEXT_MAX 4096
#define AGAIN HF_MS(200)
#define MARGIN HF_S(10) /* of clocks, and of what is between a connection and its process */
#define TRIES_MAX 5

struct process {
    struct hf_pg_backend_told told; /* on our clock */
    uint64_t incarnation;
};

struct hf_pg_behind {
    struct hf_pg *pg;
    struct hf_poll_timer timer;
    struct hf_buf list[2]; /* struct process; [0]: who may hold locks */
    struct hf_buf *asked;  /* one of these: its first n_asked are being ended */
    size_t n_asked;        /* 0: none are */
    size_t most;           /* that list[1] had since it was empty */
    unsigned n_tries;
};

static hf_time now_of(const struct hf_pg_behind *b)
{
    return hf_pg_now(b->pg);
}

static size_t count(const struct hf_buf *list)
{
    return list->n / sizeof(struct process);
}

static void set_timer(struct hf_pg_behind *b, hf_time in)
{
    hf_poll_timer_set(b->pg->wire->poll, &b->timer, now_of(b) + in);
    hf_poll_kick(b->pg->wire->poll);
}

static void on_done(void *arg, const char *why)
{
    struct hf_pg_behind *b = arg;
    size_t n = b->n_asked;
    b->n_asked = 0;
    if (!why) {
        b->n_tries = 0;
        hf_buf_consume(b->asked, n * sizeof(struct process));
    } else if (++b->n_tries == TRIES_MAX) {
        hf_log_warn("",
                    "%zu server processes of the former host's sessions are left to the server: %s",
                    count(&b->list[0]) + count(&b->list[1]), why);
        b->n_tries = 0;
        hf_buf_clear(&b->list[0]);
        hf_buf_clear(&b->list[1]);
    }
    if (b->list[0].n || b->list[1].n) {
        set_timer(b, why ? AGAIN : PAUSE);
    }
}

/* Who may hold locks goes at once, the others in a second: their end is CPU time of the server. */
static size_t at_once(struct hf_pg_behind *b, const struct hf_buf *list)
{
    size_t n = count(list);
    if (list == &b->list[1]) {
        b->most = n > b->most ? n : b->most;
        n = n > b->most / ROUNDS + 1 ? b->most / ROUNDS + 1 : n;
    }
    return n < AT_ONCE_MAX ? n : AT_ONCE_MAX;
}

/* Processes of other starts than this one are no more, or out of reach. */
static void keep(struct hf_buf *list, uint64_t incarnation)
{
    size_t kept = 0;
    for (size_t at = 0; at < list->n; at += sizeof(struct process)) {
        struct process p;
        memcpy(&p, list->p + at, sizeof(p));
        if (p.incarnation == incarnation) {
            memmove(list->p + kept, list->p + at, sizeof(p));
            kept += sizeof(p);
        }
    }
    list->n = kept;
}

static void ask(struct hf_pg_behind *b)
{
    uint64_t incarnation;
    if (b->n_asked || !hf_pg_route_primary(b->pg->route, &incarnation)) {
        set_timer(b, AGAIN); /* the last ones are still under way, or no primary is known yet */
        return;
    }
    keep(&b->list[0], incarnation);
    keep(&b->list[1], incarnation);
    struct hf_buf sql, *list = &b->list[b->list[0].n ? 0 : 1];
    size_t n = at_once(b, list);
    hf_time now = now_of(b);
    if (n == 0) {
        return;
    }
    hf_buf_init(&sql, TEXT_MAX);
    hf_buf_str(&sql, "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM (VALUES ");
    for (size_t i = 0; i < n; i++) {
        struct process p;
        memcpy(&p, list->p + i * sizeof(p), sizeof(p));
        hf_buf_printf(&sql, "%s(%u,%u,%lld,%lld)", i ? "," : "", p.told.pid, p.told.port,
                      (long long)((now - p.told.to - MARGIN) / HF_NS_PER_MS),
                      (long long)((now - p.told.from + MARGIN) / HF_NS_PER_MS));
    }
    hf_buf_str(&sql, ") v(pid, port, least, most), LATERAL "
                     "pg_catalog.pg_stat_get_activity(v.pid) a "
                     "WHERE a.client_port = v.port OR 1000 * pg_catalog.date_part('epoch', "
                     "pg_catalog.clock_timestamp() - "
                     "a.backend_start) BETWEEN v.least AND v.most");
    int rc = sql.err ? sql.err : hf_pg_route_errand(b->pg->route, hf_buf_slice(&sql), on_done, b);
    hf_buf_fini(&sql);
    if (rc == 0) {
        b->asked = list;
        b->n_asked = n;
    } else if (rc == -HF_ENOTREADY) {
        set_timer(b, AGAIN);
    } else {
        on_done(b, hf_strerror(rc));
    }
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    ask(HF_CONTAINER_OF(t, struct hf_pg_behind, timer));
}

void hf_pg_behind_add(struct hf_pg_behind *b, const struct hf_pg_backend_told *told,
                      uint64_t incarnation, bool soon)
{
    const struct process p = {.told = *told, .incarnation = incarnation};
    if (!b) {
        return;
    }
    struct hf_buf *list = &b->list[soon ? 0 : 1];
    bool first = list->n == 0 && (soon || b->list[0].n == 0);
    b->most = b->list[1].n ? b->most : 0;
    hf_buf_add(list, hf_slice((const uint8_t *)&p, sizeof(p)));
    if (first && list->n) {
        set_timer(b, soon ? 0 : FIRST);
    }
}

int hf_pg_behind_create(struct hf_pg *pg, struct hf_pg_behind **ret_behind)
{
    struct hf_pg_behind *b = hf_alloc(sizeof(*b));
    if (!b || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(b);
        return -ENOMEM;
    }
    b->pg = pg;
    b->timer.fn = on_timer;
    hf_buf_init(&b->list[0], SIZE_MAX / 2);
    hf_buf_init(&b->list[1], SIZE_MAX / 2);
    *ret_behind = b;
    return 0;
}

void hf_pg_behind_destroy(struct hf_pg_behind *b)
{
    if (!b) {
        return;
    }
    hf_pg_route_errand_forget(b->pg->route, b);
    hf_poll_timer_set(b->pg->wire->poll, &b->timer, HF_NEVER);
    (void)!hf_poll_reserve(b->pg->wire->poll, -1);
    hf_buf_fini(&b->list[0]);
    hf_buf_fini(&b->list[1]);
    hf_free(b);
}
