/* Cancel connections: opened for one request, closed when the server has closed it. */
#include "pg/cancel.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/rules.h"

#define CANCEL_TIME HF_S(10)

struct cancel {
    struct hf_list node; /* of pg->cancelling */
    struct hf_pg *pg;
    struct hf_pg_client *client; /* NULL: it is gone */
    struct hf_pg_link link;
    struct hf_poll_timer timer;
    struct hf_poll_task task;
    struct hf_pg_target *target;
    bool tls, asked;
    uint32_t pid;
    uint8_t n_key;
    uint8_t key[HF_PG_CANCEL_KEY_MAX];
};

/* ---- keys ---- */

static void id_of(uint32_t pid, uint8_t *buf)
{
    buf[0] = (uint8_t)(pid >> 24);
    buf[1] = (uint8_t)(pid >> 16);
    buf[2] = (uint8_t)(pid >> 8);
    buf[3] = (uint8_t)pid;
}

void hf_pg_cancel_remember(struct hf_pg_client *c, uint32_t pid)
{
    id_of(pid, c->cancel_id);
    memcpy(c->cancel_id + 4, c->cancel_key, c->n_cancel_key);
    size_t n = 4u + c->n_cancel_key;
    if (!hf_map_get(&c->pg->cancels, hf_slice(c->cancel_id, n)) &&
        hf_map_put(&c->pg->cancels, hf_slice(c->cancel_id, n), c) == 0) {
        c->n_cancel_id = (uint8_t)n;
    }
}

void hf_pg_cancel_forget(struct hf_pg_client *c)
{
    if (c->n_cancel_id) {
        hf_map_remove(&c->pg->cancels, hf_slice(c->cancel_id, c->n_cancel_id));
        c->n_cancel_id = 0;
    }
    HF_LIST_FOREACH (node, &c->pg->cancelling) {
        struct cancel *k = HF_CONTAINER_OF(node, struct cancel, node);
        k->client = k->client == c ? NULL : k->client;
    }
}

/* ---- the connection ---- */

static void destroy(struct cancel *k)
{
    struct hf_poll *poll = k->pg->wire->poll;
    hf_poll_timer_set(poll, &k->timer, HF_NEVER);
    (void)!hf_poll_reserve(poll, -1);
    hf_list_unlink(&k->task.node);
    hf_list_unlink(&k->node);
    hf_pg_link_fini(&k->link);
    hf_pg_target_unref(k->target);
    hf_free(k);
}

/* Closed by the server: the signal is on its way to the backend. */
static void over(struct cancel *k)
{
    struct hf_pg_client *c = k->client;
    k->client = NULL;
    if (c && c->session && !c->ended) {
        hf_pg_session_cancelled(c->session, hf_pg_now(k->pg));
        hf_pg_client_touched(c, false);
    }
}

static void on_task(struct hf_poll_task *t)
{
    struct cancel *k = HF_CONTAINER_OF(t, struct cancel, task);
    over(k);
    destroy(k);
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    struct cancel *k = HF_CONTAINER_OF(t, struct cancel, timer);
    over(k);
    destroy(k);
}

static void send_request(struct cancel *k)
{
    struct hf_buf b;
    hf_buf_init(&b, 1024);
    hf_pg_put_cancel(&b, k->pid, hf_slice(k->key, k->n_key));
    hf_pg_link_send(&k->link, hf_buf_slice(&b));
    hf_pg_wire_flush(k->pg->wire);
    hf_buf_fini(&b);
    k->pg->counters.cancels_forwarded++;
}

static void link_opened(struct hf_pg_link *l, int rc)
{
    struct cancel *k = HF_CONTAINER_OF(l, struct cancel, link);
    if (rc) {
        hf_pg_link_break(l, "cannot connect");
    } else if (k->tls) {
        static const uint8_t request[] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f};
        hf_pg_link_send(l, hf_slice(request, sizeof(request)));
        hf_pg_wire_flush(k->pg->wire);
    } else {
        send_request(k);
    }
}

static size_t link_bytes(struct hf_pg_link *l, struct hf_slice bytes)
{
    struct cancel *k = HF_CONTAINER_OF(l, struct cancel, link);
    if (!k->tls || k->asked) {
        return bytes.n; /* nothing is expected */
    }
    k->asked = true;
    const char *name = *k->target->host == '/' ? NULL : k->target->host;
    if (bytes.n != 1 || bytes.p[0] != 'S' ||
        hf_pg_link_start_tls(l, k->pg->rules->server_tls, name, (struct hf_slice){0})) {
        hf_pg_link_break(l, "no TLS for the cancel request"); /* the key does not go in the clear */
    }
    return bytes.n;
}

static void link_tls(struct hf_pg_link *l, int rc, const char *why)
{
    (void)why;
    struct cancel *k = HF_CONTAINER_OF(l, struct cancel, link);
    if (rc) {
        hf_pg_link_break(l, "TLS failed");
    } else {
        send_request(k);
    }
}

static void link_room(struct hf_pg_link *l)
{
    (void)l;
}

static void link_gone(struct hf_pg_link *l, const char *why)
{
    (void)why;
    struct cancel *k = HF_CONTAINER_OF(l, struct cancel, link);
    over(k);
    destroy(k);
}

static const struct hf_pg_link_ops link_ops = {
    .bytes = link_bytes,
    .opened = link_opened,
    .tls = link_tls,
    .room = link_room,
    .gone = link_gone,
};

static void forward(struct hf_pg_client *c, struct hf_pg_sconn *conn)
{
    struct hf_pg *pg = c->pg;
    struct cancel *k = hf_alloc(sizeof(*k));
    if (!k || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(k);
        hf_pg_session_cancelled(c->session, hf_pg_now(pg));
        hf_pg_client_touched(c, false);
        return;
    }
    k->pg = pg;
    k->client = c;
    k->target = hf_pg_target_ref(conn->target);
    k->tls = conn->tls && pg->rules->server_tls;
    k->pid = conn->pid;
    k->n_key = conn->n_key;
    memcpy(k->key, conn->key, conn->n_key);
    k->timer.fn = on_timer;
    k->task.fn = on_task;
    hf_list_init(&k->task.node);
    hf_list_insert(&pg->cancelling, &k->node);
    int fd = hf_pg_target_connect(k->target, pg->config->pg.tcp_user_timeout_ms);
    int rc = fd < 0 ? fd : hf_pg_link_init(&k->link, pg->wire, fd, true, &link_ops);
    if (rc) {
        hf_poll_task_add(pg->wire->poll, &k->task);
    } else {
        hf_poll_timer_set(pg->wire->poll, &k->timer, hf_pg_now(pg) + CANCEL_TIME);
    }
}

void hf_pg_cancel_request(struct hf_pg *pg, uint32_t pid, struct hf_slice key)
{
    uint8_t id[4 + HF_PG_CANCEL_KEY_MAX];
    pg->counters.cancels++;
    if (key.n > HF_PG_CANCEL_KEY_MAX) {
        return;
    }
    id_of(pid, id);
    memcpy(id + 4, key.p, key.n);
    struct hf_pg_client *c = hf_map_get(&pg->cancels, hf_slice(id, 4 + key.n));
    if (!c || !c->session || c->ended || !hf_pg_session_cancel(c->session, hf_pg_now(pg))) {
        return;
    }
    struct hf_pg_sconn *conn = c->seat[c->seat[0].side == HF_PG_SERVER ? 0 : 1].conn;
    if (conn && conn->n_key) {
        forward(c, conn);
    } else {
        hf_pg_session_cancelled(c->session, hf_pg_now(pg));
        hf_pg_client_touched(c, false);
    }
}

void hf_pg_cancel_close_all(struct hf_pg *pg)
{
    HF_LIST_FOREACH (node, &pg->cancelling) {
        destroy(HF_CONTAINER_OF(node, struct cancel, node));
    }
}
