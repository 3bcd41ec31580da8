/* Server processes that nobody needs any more are ended, a few at a time. */
#include "pg/behind.h"

#include <errno.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/route.h"

#define FIRST HF_MS(300) /* clients go on first */
#define PAUSE HF_MS(20)
#define AT_ONCE 20
#define TEXT_MAX 4096
#define AGAIN HF_S(1)
#define TRIES_MAX 5

struct process {
    uint32_t pid;
    hf_time since;
};

struct hf_pg_behind {
    struct hf_pg *pg;
    struct hf_poll_timer timer;
    struct hf_buf list; /* struct process */
    size_t n_asked;     /* of the list, by what was asked last */
    unsigned n_tries;
};

static hf_time now_of(const struct hf_pg_behind *b)
{
    return hf_pg_now(b->pg);
}

static void set_timer(struct hf_pg_behind *b, hf_time in)
{
    hf_poll_timer_set(b->pg->wire->poll, &b->timer, now_of(b) + in);
    hf_poll_kick(b->pg->wire->poll);
}

static void on_done(void *arg, const char *why)
{
    struct hf_pg_behind *b = arg;
    if (!why) {
        b->n_tries = 0;
        hf_buf_consume(&b->list, b->n_asked * sizeof(struct process));
    } else if (++b->n_tries == TRIES_MAX) {
        hf_log_warn("",
                    "%zu server processes of the former host's sessions are left to the server: %s",
                    b->list.n / sizeof(struct process), why);
        b->n_tries = 0;
        hf_buf_clear(&b->list);
    }
    if (b->list.n) {
        set_timer(b, why ? AGAIN : PAUSE);
    }
}

static void ask(struct hf_pg_behind *b)
{
    struct hf_buf sql;
    size_t n = b->list.n / sizeof(struct process);
    b->n_asked = n < AT_ONCE ? n : AT_ONCE;
    hf_buf_init(&sql, TEXT_MAX);
    hf_buf_str(&sql, "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM (VALUES ");
    for (size_t i = 0; i < b->n_asked; i++) {
        struct process p;
        memcpy(&p, b->list.p + i * sizeof(p), sizeof(p));
        hf_time age = now_of(b) - p.since;
        hf_buf_printf(&sql, "%s(%u,%lld.%03lld)", i ? "," : "", p.pid,
                      (long long)(age / HF_NS_PER_S), (long long)(age / HF_NS_PER_MS % 1000));
    }
    hf_buf_str(&sql, ") v(pid, age), LATERAL pg_catalog.pg_stat_get_activity(v.pid) a WHERE "
                     "pg_catalog.abs(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - "
                     "a.backend_start) - v.age) < 10");
    int rc = sql.err ? sql.err : hf_pg_route_errand(b->pg->route, hf_buf_slice(&sql), on_done, b);
    hf_buf_fini(&sql);
    if (rc) {
        on_done(b, hf_strerror(rc));
    }
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    ask(HF_CONTAINER_OF(t, struct hf_pg_behind, timer));
}

void hf_pg_behind_add(struct hf_pg_behind *b, uint32_t pid, hf_time age)
{
    if (!b) {
        return;
    }
    const struct process p = {.pid = pid, .since = now_of(b) - age};
    bool first = b->list.n == 0;
    hf_buf_add(&b->list, hf_slice((const uint8_t *)&p, sizeof(p)));
    if (first && b->list.n) {
        set_timer(b, FIRST);
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
    hf_buf_init(&b->list, SIZE_MAX / 2);
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
    hf_buf_fini(&b->list);
    hf_free(b);
}
