/* The workers of holdfast-sip: threads, handing over, load. */
#include "sip/worker.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "os/loop.h"
#include "os/pollset.h"
#include "sip/steer.h"

#define MAILBOX_MAX (32u << 20)
#define BATCH_MAX (8u << 20) /* bytes of a turn for one other worker */
#define PACE HF_MS(2)        /* between the beginnings of turns of a busy worker ... */
#define BUSY 250u            /* ... to which so many messages came between two looks */
#define LOOK HF_MS(250)      /* between looks at the load */
#define LOOKS_PER_S 4

enum { MAIL_MESSAGE = 1, MAIL_SEND, MAIL_KEEP, MAIL_CLOSED, MAIL_STOP };

/* What goes with a message; its text is behind it. */
struct handed {
    struct hf_sip_flow flow;
    uint32_t fault;
    uint32_t pad;
};

struct hf_sip_worker {
    struct hf_sip_workers *all;
    unsigned i;
    struct hf_loop *loop;
    struct hf_poll *poll;
    struct hf_sip_wire *wire;
    struct hf_mailbox *mailbox;
    struct hf_poll_io io; /* of the mailbox */
    struct hf_poll_timer tick, look;
    bool reserved;
    struct hf_mail_batch *batch; /* for each worker; owned */
    struct hf_sip_handler handler;
    void *ctx;
    pthread_t thread;
    bool started;
    struct hf_sip_msg msg;
    /* load */
    hf_time looked_at, cpu_then;
    unsigned n_looks;
    uint64_t came_then;
    struct hf_sip_overload overload;
    struct hf_sip_worker_figures now;
    pthread_mutex_t lock;
    struct hf_sip_worker_figures shown; /* under the lock */
};

struct hf_sip_workers {
    unsigned n;
    struct hf_sip_worker *worker; /* owned */
};

static uint32_t wall_s(void)
{
    return (uint32_t)(hf_wall_now() / HF_NS_PER_S);
}

/* ---- messages ---- */

static void handle(struct hf_sip_worker *w, const struct hf_sip_flow *from)
{
    w->handler.message(w->ctx, &w->msg, from, hf_poll_now(w->poll), wall_s());
}

static void parse(struct hf_sip_worker *w, struct hf_slice text, enum hf_sip_fault fault,
                  const struct hf_sip_flow *from)
{
    (void)!hf_sip_parse(text, from->transport != HF_SIP_TRANSPORT_UDP, &w->msg);
    if (fault != HF_SIP_OK) {
        w->msg.fault = fault;
    }
}

static bool on_message(void *arg, struct hf_slice text, enum hf_sip_fault fault,
                       const struct hf_sip_flow *from)
{
    struct hf_sip_worker *w = arg;
    parse(w, text, fault, from);
    bool certain = w->msg.fault != HF_SIP_FAULT_CONTROL; /* of where it ends: message.h */
    unsigned owner = w->handler.owner ? w->handler.owner(w->ctx, &w->msg) : w->i;
    if (owner == w->i || owner >= w->all->n) {
        handle(w, from);
        return certain;
    }
    struct handed h = {.flow = *from, .fault = fault};
    struct hf_slice part[] = {hf_slice(&h, sizeof(h)), text};
    w->now.handed_over++;
    hf_sip_worker_mail(w, owner, MAIL_MESSAGE, part, 2);
    return certain;
}

static void take_over(struct hf_sip_worker *w, struct hf_slice data)
{
    struct handed h;
    memcpy(&h, data.p, sizeof(h));
    w->now.taken_over++;
    parse(w, hf_slice(data.p + sizeof(h), data.n - sizeof(h)), (enum hf_sip_fault)h.fault, &h.flow);
    handle(w, &h.flow);
}

static void on_closed(void *arg, const struct hf_sip_flow *flow)
{
    struct hf_sip_worker *w = arg;
    struct hf_slice part = hf_slice(flow, sizeof(*flow));
    if (w->handler.unreachable) {
        w->handler.unreachable(w->ctx, flow, hf_poll_now(w->poll));
    }
    for (unsigned i = 0; flow->conn && i < w->all->n; i++) { /* their state may refer to it */
        if (i != w->i) {
            hf_sip_worker_mail(w, i, MAIL_CLOSED, &part, 1);
        }
    }
}

static const char *server_name(void *arg, const struct hf_endpoint *peer)
{
    struct hf_sip_worker *w = arg;
    return w->handler.server_name ? w->handler.server_name(w->ctx, peer) : "";
}

void hf_sip_worker_send(struct hf_sip_worker *w, const struct hf_sip_flow *to,
                        struct hf_slice message)
{
    unsigned owner = hf_sip_conn_worker(to->conn);
    if (to->conn == 0 || owner == w->i || owner >= w->all->n) {
        hf_sip_wire_send(w->wire, to, message);
        return;
    }
    struct hf_slice part[] = {hf_slice(to, sizeof(*to)), message};
    hf_sip_worker_mail(w, owner, MAIL_SEND, part, 2);
}

void hf_sip_worker_keep(struct hf_sip_worker *w, uint64_t conn)
{
    unsigned owner = hf_sip_conn_worker(conn);
    struct hf_slice part = hf_slice(&conn, sizeof(conn));
    if (owner == w->i || owner >= w->all->n) {
        hf_sip_wire_keep(w->wire, conn);
    } else {
        hf_sip_worker_mail(w, owner, MAIL_KEEP, &part, 1);
    }
}

void hf_sip_worker_tls(struct hf_sip_worker *w, struct hf_tls_context *server,
                       struct hf_tls_context *client)
{
    hf_sip_wire_tls(w->wire, server, client);
}

/* ---- mails ---- */

void hf_sip_worker_mail(struct hf_sip_worker *w, unsigned to, uint32_t kind,
                        const struct hf_slice *part, size_t n_parts)
{
    assert(to < w->all->n);
    w->now.lost += hf_mail_batch_add(&w->batch[to], kind, part, n_parts) != 0;
}

int hf_sip_worker_post(struct hf_sip_worker *w, uint32_t kind, const struct hf_slice *part,
                       size_t n_parts)
{
    return hf_mailbox_send(w->mailbox, kind, part, n_parts);
}

static void take_mail(struct hf_sip_worker *w, const struct hf_mail *mail)
{
    struct hf_sip_flow flow;
    uint64_t conn;
    switch (mail->kind) {
    case MAIL_MESSAGE:
        take_over(w, mail->data);
        break;
    case MAIL_SEND:
        memcpy(&flow, mail->data.p, sizeof(flow));
        hf_sip_wire_send(w->wire, &flow,
                         hf_slice(mail->data.p + sizeof(flow), mail->data.n - sizeof(flow)));
        break;
    case MAIL_KEEP:
        memcpy(&conn, mail->data.p, sizeof(conn));
        hf_sip_wire_keep(w->wire, conn);
        break;
    case MAIL_CLOSED:
        memcpy(&flow, mail->data.p, sizeof(flow));
        if (w->handler.unreachable) {
            w->handler.unreachable(w->ctx, &flow, hf_poll_now(w->poll));
        }
        break;
    case MAIL_STOP:
        hf_loop_stop(w->loop);
        break;
    default:
        if (w->handler.mail) {
            w->handler.mail(w->ctx, mail, hf_poll_now(w->poll));
        }
    }
}

static void on_mailbox(struct hf_poll_io *io, unsigned ready)
{
    struct hf_sip_worker *w = HF_CONTAINER_OF(io, struct hf_sip_worker, io);
    struct hf_slice mails = hf_mailbox_take(w->mailbox);
    struct hf_mail mail;
    (void)ready;
    while (hf_mail_next(&mails, &mail)) {
        take_mail(w, &mail);
    }
}

/* ---- turns ---- */

static void put_batches(struct hf_sip_worker *w)
{
    for (unsigned i = 0; i < w->all->n; i++) {
        if (w->batch[i].buf.n && hf_mailbox_put(w->all->worker[i].mailbox, &w->batch[i])) {
            w->now.lost++;
        }
    }
}

static void after(void *arg)
{
    struct hf_sip_worker *w = arg;
    if (!w->wire) {
        return;
    }
    hf_sip_wire_flush(w->wire);
    put_batches(w);
    if (w->handler.deadline) {
        hf_poll_timer_set(w->poll, &w->tick, w->handler.deadline(w->ctx));
    }
}

static void on_tick(struct hf_poll_timer *t, hf_time now)
{
    struct hf_sip_worker *w = HF_CONTAINER_OF(t, struct hf_sip_worker, tick);
    w->handler.tick(w->ctx, now, wall_s());
}

/* ---- load ---- */

static hf_time cpu_time(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (hf_time)ts.tv_sec * HF_NS_PER_S + ts.tv_nsec;
}

static void show(struct hf_sip_worker *w, hf_time now)
{
    uint64_t came = w->now.wire.udp_in + w->now.wire.stream_in;
    w->now.messages_s = (uint32_t)(came - w->came_then);
    w->came_then = came;
    pthread_mutex_lock(&w->lock);
    w->shown = w->now;
    pthread_mutex_unlock(&w->lock);
    if (w->handler.second) {
        w->handler.second(w->ctx, now);
    }
}

static void on_look(struct hf_poll_timer *t, hf_time now)
{
    struct hf_sip_worker *w = HF_CONTAINER_OF(t, struct hf_sip_worker, look);
    hf_time cpu = cpu_time(), passed = now - w->looked_at;
    enum hf_sip_shed before = w->overload.level;
    if (w->looked_at && passed > 0) {
        w->now.cpu = (unsigned)((cpu - w->cpu_then) * 1000 / passed);
    }
    w->looked_at = now;
    w->cpu_then = cpu;
    w->now.queue = hf_sip_wire_queue(w->wire);
    uint64_t came = w->now.wire.udp_in + w->now.wire.stream_in;
    w->now.shed = hf_sip_overload_step(&w->overload, w->now.cpu, w->now.queue, now);
    w->now.wire = *hf_sip_wire_counters(w->wire);
    came = w->now.wire.udp_in + w->now.wire.stream_in - came;
    hf_poll_pace(w->poll, came < BUSY ? 0 : PACE);
    if (w->now.shed != before && w->handler.shed) {
        w->handler.shed(w->ctx, w->now.shed);
    }
    if (++w->n_looks % LOOKS_PER_S == 0) {
        show(w, now);
    }
    hf_poll_timer_set(w->poll, t, now + LOOK);
}

void hf_sip_worker_figures(struct hf_sip_worker *w, struct hf_sip_worker_figures *ret_figures)
{
    pthread_mutex_lock(&w->lock);
    *ret_figures = w->shown;
    pthread_mutex_unlock(&w->lock);
}

/* ---- threads ---- */

static void *run(void *arg)
{
    struct hf_sip_worker *w = arg;
    int rc = hf_loop_run(w->loop);
    if (rc) {
        hf_log_err("", "worker %u ended: %s", w->i, hf_strerror(rc));
    }
    return NULL;
}

int hf_sip_thread_start(pthread_t *ret_thread, const char *name, void *(*fn)(void *), void *arg)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = -pthread_create(ret_thread, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) {
        pthread_setname_np(*ret_thread, name);
    }
    return rc;
}

static int start(struct hf_sip_worker *w)
{
    char name[16];
    snprintf(name, sizeof(name), "sip-%u", w->i);
    int rc = hf_sip_thread_start(&w->thread, name, run, w);
    w->started = rc == 0;
    return rc;
}

int hf_sip_workers_start(struct hf_sip_workers *ws, struct hf_err *err)
{
    for (unsigned i = 0; i < ws->n; i++) {
        struct hf_sip_worker *w = &ws->worker[i];
        if (w->handler.deadline) {
            hf_poll_timer_set(w->poll, &w->tick, w->handler.deadline(w->ctx));
        }
        hf_poll_timer_set(w->poll, &w->look, hf_now() + LOOK);
        hf_poll_kick(w->poll);
        int rc = start(w);
        if (rc) {
            hf_sip_workers_stop(ws);
            return hf_err_set(err, rc, "cannot start a worker: %s", hf_strerror(rc));
        }
    }
    return 0;
}

void hf_sip_workers_stop(struct hf_sip_workers *ws)
{
    for (unsigned i = 0; i < ws->n; i++) {
        if (ws->worker[i].started && hf_mailbox_send(ws->worker[i].mailbox, MAIL_STOP, NULL, 0)) {
            abort(); /* there is no memory for 8 bytes: it would never end */
        }
    }
    for (unsigned i = 0; i < ws->n; i++) {
        if (ws->worker[i].started) {
            pthread_join(ws->worker[i].thread, NULL);
            ws->worker[i].started = false;
        }
    }
}

/* ---- life ---- */

static int open_worker(struct hf_sip_workers *ws, unsigned i,
                       const struct hf_sip_workers_conf *conf, struct hf_sip_wire_conf *wire,
                       struct hf_err *err)
{
    static const struct hf_sip_wire_events events = {
        .message = on_message, .closed = on_closed, .server_name = server_name};
    struct hf_sip_worker *w = &ws->worker[i];
    size_t max = conf->mailbox_max ? conf->mailbox_max : MAILBOX_MAX;
    w->all = ws;
    w->i = i;
    w->io.fd = -1;
    w->tick.fn = on_tick;
    w->look.fn = on_look;
    pthread_mutex_init(&w->lock, NULL);
    int rc = hf_loop_create(&w->loop);
    rc = rc ? rc : hf_poll_create(w->loop, after, w, &w->poll);
    rc = rc ? rc : hf_poll_reserve(w->poll, 2);
    w->reserved = rc == 0;
    rc = rc ? rc : hf_mailbox_create(max, &w->mailbox);
    rc =
        rc ? rc : hf_poll_add(w->poll, &w->io, hf_mailbox_fd(w->mailbox), HF_POLL_READ, on_mailbox);
    w->batch = hf_alloc_array(ws->n, sizeof(w->batch[0]));
    rc = rc || w->batch ? rc : -ENOMEM;
    if (rc) {
        return hf_err_set(err, rc, "cannot make a worker: %s", hf_strerror(rc));
    }
    for (unsigned k = 0; k < ws->n; k++) {
        hf_mail_batch_init(&w->batch[k], BATCH_MAX);
    }
    wire->worker = (uint8_t)i;
    return hf_sip_wire_open(w->poll, wire, &events, w, err, &w->wire);
}

/* Without it they hand messages over to each other: slower, and nothing else. */
static void steer(struct hf_sip_workers *ws)
{
    struct hf_err err;
    int program = -1, rc = hf_sip_steer_load(ws->n, &err, &program);
    if (rc == 0) {
        rc = hf_sip_wire_steer(ws->worker[0].wire, program, &err);
        close(program);
    }
    if (rc) {
        hf_log_info("", "%s; workers hand each other's messages over", err.text);
    }
}

int hf_sip_workers_open(const struct hf_sip_workers_conf *conf, struct hf_err *err,
                        struct hf_sip_workers **ret_workers)
{
    assert(conf->n >= 1 && conf->n <= HF_SIP_WORKERS_MAX);
    struct hf_sip_workers *ws = hf_alloc(sizeof(*ws));
    struct hf_sip_place *bind = hf_alloc_array(conf->wire.n_binds, sizeof(*bind));
    struct hf_sip_wire_conf wire = conf->wire;
    int rc = ws && bind ? 0 : -ENOMEM;
    if (rc == 0) {
        ws->n = conf->n;
        ws->worker = hf_alloc_array(conf->n, sizeof(ws->worker[0]));
        memcpy(bind, conf->wire.bind, conf->wire.n_binds * sizeof(*bind));
        wire.bind = bind;
    }
    if (rc || !ws->worker) {
        hf_sip_workers_close(ws);
        hf_free(bind);
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    for (unsigned i = 0; rc == 0 && i < ws->n; i++) {
        rc = open_worker(ws, i, conf, &wire, err);
        for (size_t k = 0; rc == 0 && k < wire.n_binds; k++) {
            bind[k].at.port = hf_sip_wire_at(ws->worker[i].wire, k).port;
        }
    }
    hf_free(bind);
    if (rc) {
        hf_sip_workers_close(ws);
        return rc;
    }
    if (conf->steer && ws->n > 1) {
        steer(ws);
    }
    *ret_workers = ws;
    return 0;
}

static void close_worker(struct hf_sip_worker *w)
{
    if (!w->all) {
        return;
    }
    hf_sip_wire_close(w->wire);
    if (w->poll) {
        hf_poll_timer_set(w->poll, &w->tick, HF_NEVER);
        hf_poll_timer_set(w->poll, &w->look, HF_NEVER);
        hf_poll_remove(w->poll, &w->io);
        (void)!hf_poll_reserve(w->poll, w->reserved ? -2 : 0);
        hf_poll_destroy(w->poll);
    }
    hf_mailbox_destroy(w->mailbox);
    for (unsigned k = 0; w->batch && k < w->all->n; k++) {
        hf_mail_batch_fini(&w->batch[k]);
    }
    hf_free(w->batch);
    hf_loop_destroy(w->loop);
    pthread_mutex_destroy(&w->lock);
}

void hf_sip_workers_close(struct hf_sip_workers *ws)
{
    if (!ws) {
        return;
    }
    for (unsigned i = 0; ws->worker && i < ws->n; i++) {
        close_worker(&ws->worker[i]);
    }
    hf_free(ws->worker);
    hf_free(ws);
}

struct hf_sip_worker *hf_sip_worker(struct hf_sip_workers *ws, unsigned i)
{
    assert(i < ws->n);
    return &ws->worker[i];
}

unsigned hf_sip_workers_n(const struct hf_sip_workers *ws)
{
    return ws->n;
}

struct hf_endpoint hf_sip_workers_at(const struct hf_sip_workers *ws, size_t i)
{
    return hf_sip_wire_at(ws->worker[0].wire, i);
}

void hf_sip_worker_handle(struct hf_sip_worker *w, const struct hf_sip_handler *handler, void *ctx)
{
    w->handler = *handler;
    w->ctx = ctx;
}
