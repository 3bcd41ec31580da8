/* Server connections: the socket, TLS and the login core, up to ReadyForQuery. */
#include "pg/sconn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "pg/protect.h"
#include "pg/rules.h"

/* ---- targets ---- */

int hf_pg_target_create(const char *name, const char *host, uint16_t port, uint16_t weight,
                        struct hf_pg_target **ret_target)
{
    struct hf_pg_target *t = hf_alloc(sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    *t = (struct hf_pg_target){.n_refs = 1, .port = port, .weight = weight};
    if (hf_conf_set_string(&t->name, name) || hf_conf_set_string(&t->host, host)) {
        hf_pg_target_unref(t);
        return -ENOMEM;
    }
    *ret_target = t;
    return 0;
}

struct hf_pg_target *hf_pg_target_ref(struct hf_pg_target *t)
{
    t->n_refs++;
    return t;
}

void hf_pg_target_unref(struct hf_pg_target *t)
{
    if (t && --t->n_refs == 0) {
        hf_free(t->name);
        hf_free(t->host);
        hf_free(t);
    }
}

static int target_addr(const struct hf_pg_target *t, struct hf_addr *a)
{
    if (*t->host != '/') {
        return hf_addr_parse(t->host, t->port, NULL, a);
    }
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int n = snprintf(un.sun_path, sizeof(un.sun_path), "%s/.s.PGSQL.%u", t->host, t->port);
    if (n >= (int)sizeof(un.sun_path)) {
        return -ENAMETOOLONG;
    }
    memset(a, 0, sizeof(*a));
    memcpy(&a->ss, &un, a->len = sizeof(un));
    return 0;
}

int hf_pg_target_connect(const struct hf_pg_target *t, int64_t user_timeout_ms)
{
    struct hf_addr a;
    int rc = target_addr(t, &a);
    if (rc) {
        return rc;
    }
    int fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (a.ss.ss_family != AF_UNIX) {
        hf_pg_socket_options(fd, user_timeout_ms);
    }
    if (connect(fd, (struct sockaddr *)&a.ss, a.len) < 0 && errno != EINPROGRESS) {
        rc = -errno; /* Unix: also EAGAIN, its backlog is full */
        close(fd);
        return rc;
    }
    return fd;
}

/* ---- life ---- */

static void destroy(struct hf_pg_sconn *c)
{
    hf_poll_timer_set(c->pg->wire->poll, &c->timer, HF_NEVER);
    (void)!hf_poll_reserve(c->pg->wire->poll, -1);
    hf_list_unlink(&c->task.node);
    hf_list_unlink(&c->held_node);
    hf_list_unlink(&c->node);
    c->pg->n_sconns--;
    hf_pg_link_fini(&c->link);
    hf_pg_connect_destroy(c->connect);
    hf_pg_rules_unref(c->rules);
    hf_pg_target_unref(c->target);
    hf_free(c->key);
    hf_free(c);
}

static void on_task(struct hf_poll_task *t)
{
    destroy(HF_CONTAINER_OF(t, struct hf_pg_sconn, task));
}

void hf_pg_sconn_close(struct hf_pg_sconn *c)
{
    if (!c || c->closed) {
        return;
    }
    c->closed = true;
    if (c->logged_in && c->link.wire && !c->link.broken) {
        static const uint8_t terminate[] = {'X', 0, 0, 0, 4};
        hf_pg_link_send(&c->link, hf_slice(terminate, sizeof(terminate)));
        hf_pg_wire_flush(c->pg->wire);
    }
    if (c->link.wire && !c->link.broken) {
        c->link.told = true;
        hf_pg_link_pause(&c->link, true);
    }
    if (!hf_pg_protect_defer(c)) {
        hf_poll_task_add(c->pg->wire->poll, &c->task);
    }
}

static void fail(struct hf_pg_sconn *c, const char *why)
{
    if (!c->closed) {
        c->pg->counters.server_logins_failed++;
        c->ops->failed(c, why);
        hf_pg_sconn_close(c);
    }
}

/* ---- login ---- */

static int open_link(struct hf_pg_sconn *c);

static void on_done(struct hf_pg_sconn *c)
{
    const struct hf_pg_connect_result *r = hf_pg_connect_result(c->connect);
    c->pg->counters.server_logins++;
    c->logged_in = true;
    c->ready_at = hf_pg_now(c->pg);
    c->tls = r->tls;
    c->pid = r->pid;
    c->port = hf_addr_port_of(c->link.io.fd);
    c->key = hf_alloc(r->key.n + 1);
    if (c->key && r->key.n && r->key.n <= UINT8_MAX) {
        memcpy(c->key, r->key.p, r->key.n);
        c->n_key = (uint8_t)r->key.n;
    }
    hf_poll_timer_set(c->pg->wire->poll, &c->timer, HF_NEVER);
    c->ops->ready(c);
}

static void on_failed(struct hf_pg_sconn *c, bool again)
{
    if (again && !c->args.second) {
        c->args.second = true;
        hf_pg_link_fini(&c->link);
        hf_pg_connect_destroy(c->connect);
        c->connect = NULL;
        int rc = hf_pg_connect_create(&c->args, &c->connect);
        rc = rc ? rc : open_link(c);
        if (rc) {
            fail(c, hf_strerror(rc));
        }
        return;
    }
    const struct hf_pg_connect_error *e = hf_pg_connect_error(c->connect);
    fail(c, e->message);
}

/* Failures close the link, which may not be done from within its bytes(). */
static void login_over(struct hf_pg_sconn *c, const struct hf_pg_connect_out *out)
{
    bool again = out->again;
    if (out->act == HF_PG_CONNECT_DONE) {
        on_done(c);
    } else if (again) {
        c->retry = true; /* on_timer() does */
        hf_poll_timer_set(c->pg->wire->poll, &c->timer, hf_pg_now(c->pg));
    } else {
        on_failed(c, false);
    }
}

static size_t step(struct hf_pg_sconn *c, const struct hf_pg_connect_in *in)
{
    struct hf_pg_connect_out out;
    hf_pg_connect_step(c->connect, in, hf_pg_now(c->pg), &out);
    if (out.send.n) {
        hf_pg_link_send(&c->link, out.send);
    }
    if (out.act == HF_PG_CONNECT_START_TLS) {
        const char *name = *c->target->host == '/' ? NULL : c->target->host;
        int rc =
            in->kind == HF_PG_CONNECT_IN_BYTES && out.consumed < in->bytes.n
                ? -HF_EPROTO /* CVE-2021-23222: something was slipped in before TLS */
                : hf_pg_link_start_tls(&c->link, c->rules->server_tls, name, (struct hf_slice){0});
        if (rc) {
            hf_pg_link_break(&c->link, "server sent unencrypted data after agreeing to TLS");
        }
    } else if (out.act != HF_PG_CONNECT_WAIT) {
        size_t consumed = out.consumed;
        login_over(c, &out);
        return consumed;
    }
    return out.consumed;
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    struct hf_pg_sconn *c = HF_CONTAINER_OF(t, struct hf_pg_sconn, timer);
    if (c->retry && !c->closed) {
        c->retry = false;
        hf_poll_timer_set(c->pg->wire->poll, &c->timer, c->args.deadline);
        on_failed(c, true);
    } else if (c->parted) {
        hf_pg_sconn_close(c);
    } else if (!c->logged_in && !c->closed) {
        step(c, &(struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_TIMER});
    }
}

static void link_opened(struct hf_pg_link *l, int rc)
{
    struct hf_pg_sconn *c = HF_CONTAINER_OF(l, struct hf_pg_sconn, link);
    if (c->closed) {
        return;
    }
    if (rc) {
        hf_pg_link_break(l, hf_strerror(rc));
    } else {
        step(c, &(struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_OPEN});
        hf_pg_wire_flush(c->pg->wire);
    }
}

static size_t link_bytes(struct hf_pg_link *l, struct hf_slice bytes)
{
    struct hf_pg_sconn *c = HF_CONTAINER_OF(l, struct hf_pg_sconn, link);
    if (c->closed) {
        return bytes.n;
    }
    if (c->logged_in) {
        return c->settled ? c->ops->bytes(c, bytes) : 0;
    }
    return c->retry ? bytes.n
                    : step(c, &(struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_BYTES,
                                                         .bytes = bytes});
}

static void link_after(struct hf_pg_link *l)
{
    struct hf_pg_sconn *c = HF_CONTAINER_OF(l, struct hf_pg_sconn, link);
    if (c->settled && !c->closed && c->ops->after) {
        c->ops->after(c);
    }
}

static void link_tls(struct hf_pg_link *l, int rc, const char *why)
{
    struct hf_pg_sconn *c = HF_CONTAINER_OF(l, struct hf_pg_sconn, link);
    uint8_t hash[64];
    rc ? c->pg->counters.tls_failures++ : c->pg->counters.tls_handshakes++;
    if (c->closed) {
        return;
    }
    struct hf_pg_connect_in in = {.kind = rc ? HF_PG_CONNECT_IN_TLS_FAILED : HF_PG_CONNECT_IN_TLS,
                                  .why = why};
    if (rc == 0) {
        in.certificate_hash = hf_slice(hash, hf_tls_stream_binding(l->tls, hash));
    }
    step(c, &in);
    hf_pg_wire_flush(c->pg->wire);
}

static void link_room(struct hf_pg_link *l)
{
    struct hf_pg_sconn *c = HF_CONTAINER_OF(l, struct hf_pg_sconn, link);
    if (c->settled && !c->closed && c->ops->room) {
        c->ops->room(c);
    }
}

static void link_gone(struct hf_pg_link *l, const char *why)
{
    struct hf_pg_sconn *c = HF_CONTAINER_OF(l, struct hf_pg_sconn, link);
    if (c->closed) {
        return;
    }
    if (!c->logged_in) {
        if (!c->retry) {
            step(c, &(struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_CLOSED, .why = why});
        }
        return;
    }
    c->pg->counters.server_losses++;
    c->ops->gone(c, why);
    hf_pg_sconn_close(c);
}

static const struct hf_pg_link_ops link_ops = {
    .bytes = link_bytes,
    .after = link_after,
    .opened = link_opened,
    .tls = link_tls,
    .room = link_room,
    .gone = link_gone,
};

static size_t parted_bytes(struct hf_pg_sconn *c, struct hf_slice bytes)
{
    (void)c;
    return bytes.n;
}

static void parted_gone(struct hf_pg_sconn *c, const char *why)
{
    (void)c;
    (void)why;
}

void hf_pg_sconn_part(struct hf_pg_sconn *c, hf_time at)
{
    static const struct hf_pg_sconn_ops parted = {.bytes = parted_bytes, .gone = parted_gone};
    c->parted = true;
    c->ops = &parted;
    c->owner = NULL;
    hf_poll_timer_set(c->pg->wire->poll, &c->timer, at);
}

static int open_link(struct hf_pg_sconn *c)
{
    c->pg->counters.server_connects++;
    int fd = hf_pg_target_connect(c->target, c->pg->config->pg.tcp_user_timeout_ms);
    if (fd < 0) {
        return fd;
    }
    int rc = hf_pg_link_init(&c->link, c->pg->wire, fd, true, &link_ops);
    c->link.patient = true;
    if (rc) {
        hf_pg_link_fini(&c->link);
    }
    return rc;
}

int hf_pg_sconn_open(struct hf_pg *pg, struct hf_pg_target *target,
                     const struct hf_pg_connect_args *args, const struct hf_pg_sconn_ops *ops,
                     void *owner, struct hf_pg_sconn **ret_sconn)
{
    struct hf_pg_sconn *c = hf_alloc(sizeof(*c));
    if (!c || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(c);
        return -ENOMEM;
    }
    c->pg = pg;
    c->ops = ops;
    c->owner = owner;
    c->id = ++pg->last_id;
    c->opened_at = hf_pg_now(pg);
    c->target = hf_pg_target_ref(target);
    c->rules = hf_pg_rules_ref(pg->rules);
    c->args = *args;
    c->args.sslmode = *target->host == '/' ? HF_PG_SSLMODE_DISABLE : pg->rules->server_sslmode;
    c->timer.fn = on_timer;
    c->task.fn = on_task;
    hf_list_init(&c->task.node);
    hf_list_init(&c->held_node);
    hf_list_insert(&pg->sconns, &c->node);
    pg->n_sconns++;
    int rc = getrandom(c->args.nonce, sizeof(c->args.nonce), 0) < 0 ? -errno : 0;
    rc = rc ? rc : hf_pg_connect_create(&c->args, &c->connect);
    rc = rc ? rc : open_link(c);
    if (rc) {
        destroy(c);
        return rc;
    }
    hf_poll_timer_set(pg->wire->poll, &c->timer, args->deadline);
    *ret_sconn = c;
    return 0;
}

void hf_pg_sconn_settle(struct hf_pg_sconn *c)
{
    hf_pg_connect_destroy(c->connect);
    c->connect = NULL;
    hf_pg_rules_unref(c->rules);
    c->rules = NULL;
    memset(&c->args, 0, sizeof(c->args));
    c->settled = true;
    hf_pg_link_again(&c->link);
}

void hf_pg_sconn_close_all(struct hf_pg *pg)
{
    HF_LIST_FOREACH (node, &pg->sconns) {
        destroy(HF_CONTAINER_OF(node, struct hf_pg_sconn, node));
    }
}
