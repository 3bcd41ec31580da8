/* An epoll set nested in libevent's, with its own timers (a binary heap) and tasks. */
#include "os/pollset.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

struct hf_poll {
    int fd;
    struct hf_io *io;       /* owned: the set in the loop's */
    struct hf_timer *timer; /* owned: the first of the heap, while libevent has the thread */
    hf_time timer_at;
    hf_time now, pace;
    struct hf_poll_timer **heap; /* from 1 */
    size_t n, room, n_users;
    struct hf_list tasks;
    void (*after)(void *arg);
    void *arg;
    struct epoll_event ev[HF_POLL_BATCH];
    int n_ev, i_ev; /* of the batch under way */
};

/* ---- timers ---- */

static void heap_put(struct hf_poll *p, size_t i, struct hf_poll_timer *t)
{
    p->heap[i] = t;
    t->pos = i;
}

static void heap_up(struct hf_poll *p, size_t i, struct hf_poll_timer *t)
{
    while (i > 1 && p->heap[i / 2]->at > t->at) {
        heap_put(p, i, p->heap[i / 2]);
        i /= 2;
    }
    heap_put(p, i, t);
}

static void heap_down(struct hf_poll *p, size_t i, struct hf_poll_timer *t)
{
    for (size_t child; (child = 2 * i) <= p->n; i = child) {
        child += child < p->n && p->heap[child + 1]->at < p->heap[child]->at;
        if (p->heap[child]->at >= t->at) {
            break;
        }
        heap_put(p, i, p->heap[child]);
    }
    heap_put(p, i, t);
}

static void heap_remove(struct hf_poll *p, struct hf_poll_timer *t)
{
    size_t i = t->pos;
    struct hf_poll_timer *last = p->heap[p->n--];
    t->pos = 0;
    if (last != t) {
        last->at < t->at ? heap_up(p, i, last) : heap_down(p, i, last);
    }
}

void hf_poll_timer_set(struct hf_poll *p, struct hf_poll_timer *t, hf_time at)
{
    if (t->pos && t->at == at) {
        return;
    }
    if (t->pos) {
        heap_remove(p, t);
    }
    t->at = at;
    if (at != HF_NEVER) {
        assert(p->n < p->room);
        heap_up(p, ++p->n, t);
    }
}

int hf_poll_reserve(struct hf_poll *p, int n)
{
    p->n_users = (size_t)((int64_t)p->n_users + n);
    if (p->n_users <= p->room) {
        return 0;
    }
    size_t room = p->room ? p->room * 2 : 64;
    room = room < p->n_users ? p->n_users : room;
    void *more = hf_realloc(p->heap, (room + 1) * sizeof(p->heap[0]));
    if (!more) {
        p->n_users = (size_t)((int64_t)p->n_users - n);
        return -ENOMEM;
    }
    p->heap = more;
    p->room = room;
    return 0;
}

static void run_timers(struct hf_poll *p)
{
    /* those set anew by their functions wait for the next turn: no endless turn */
    for (size_t n = p->n; n > 0 && p->n > 0 && p->heap[1]->at <= p->now; n--) {
        struct hf_poll_timer *t = p->heap[1];
        heap_remove(p, t);
        t->fn(t, p->now);
    }
}

/* ---- tasks ---- */

void hf_poll_task_add(struct hf_poll *p, struct hf_poll_task *t)
{
    if (hf_list_empty(&t->node)) {
        hf_list_insert(&p->tasks, &t->node);
        hf_poll_kick(p);
    }
}

void hf_poll_kick(struct hf_poll *p)
{
    if (p->i_ev < 0) { /* not in a turn: make one */
        hf_timer_set(p->timer, 0);
        p->timer_at = 0;
    }
}

static void finish(struct hf_poll *p)
{
    p->after(p->arg);
    while (!hf_list_empty(&p->tasks)) {
        struct hf_poll_task *t = HF_CONTAINER_OF(p->tasks.next, struct hf_poll_task, node);
        hf_list_unlink(&t->node);
        t->fn(t);
        p->after(p->arg);
    }
}

/* ---- events ---- */

static uint32_t epoll_bits(const struct hf_poll_io *io)
{
    uint32_t in = io->edge ? (uint32_t)EPOLLIN | (uint32_t)EPOLLRDHUP : (uint32_t)EPOLLIN;
    return (io->want & HF_POLL_READ ? in : 0) |
           (io->want & HF_POLL_WRITE ? (uint32_t)EPOLLOUT : 0) | (io->edge ? (uint32_t)EPOLLET : 0);
}

static int control(struct hf_poll *p, int op, struct hf_poll_io *io)
{
    struct epoll_event ev = {.events = epoll_bits(io), .data.ptr = io};
    return epoll_ctl(p->fd, op, io->fd, &ev) < 0 ? -errno : 0;
}

static void dispatch(struct hf_poll *p)
{
    for (p->i_ev = 0; p->i_ev < p->n_ev; p->i_ev++) {
        struct hf_poll_io *io = p->ev[p->i_ev].data.ptr;
        uint32_t e = p->ev[p->i_ev].events;
        if (!io) { /* removed by an earlier one of the batch */
            continue;
        }
        unsigned ready = (e & EPOLLIN ? HF_POLL_READ : 0) | (e & EPOLLOUT ? HF_POLL_WRITE : 0) |
                         (e & (EPOLLHUP | EPOLLERR) ? HF_POLL_HUP : 0);
        if (io->want == 0) { /* it would be told again and again */
            control(p, EPOLL_CTL_DEL, io);
            io->out = true;
        } else if (e & EPOLLRDHUP) { /* bytes and the end were one edge: the end is still to come */
            hf_poll_again(p, io);
        }
        io->fn(io, ready);
    }
}

/* More may come until the next turn is due; if the last one could not take all, it is. */
static void gather(const struct hf_poll *p)
{
    hf_time at = p->now + p->pace;
    if (p->pace && p->n_ev < HF_POLL_BATCH && at > hf_now()) {
        struct timespec ts = {.tv_sec = at / HF_NS_PER_S, .tv_nsec = at % HF_NS_PER_S};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL); /* a signal: a little early */
    }
}

/* One turn: 0: nothing came. */
static int turn(struct hf_poll *p, int wait_ms)
{
    gather(p);
    int n = epoll_wait(p->fd, p->ev, HF_POLL_BATCH, wait_ms);
    p->now = hf_now();
    p->n_ev = n > 0 ? n : 0;
    p->i_ev = 0;
    dispatch(p);
    run_timers(p);
    finish(p);
    p->i_ev = -1;
    return p->n_ev;
}

static void arm(struct hf_poll *p)
{
    hf_time at = p->n ? p->heap[1]->at : HF_NEVER;
    if (at != p->timer_at) {
        hf_timer_set(p->timer, at);
        p->timer_at = at;
    }
}

static void on_ready(void *arg, unsigned events)
{
    (void)events;
    struct hf_poll *p = arg;
    int n = turn(p, 0);
    hf_time end = p->now + HF_POLL_SLICE;
    while (n > 0 && p->now < end) {
        n = turn(p, (int)(HF_POLL_LINGER / HF_NS_PER_MS));
    }
    arm(p);
}

static void on_timer(void *arg)
{
    struct hf_poll *p = arg;
    p->timer_at = HF_NEVER;
    turn(p, 0);
    arm(p);
}

int hf_poll_create(struct hf_loop *loop, void (*after)(void *arg), void *arg,
                   struct hf_poll **ret_poll)
{
    struct hf_poll *p = hf_alloc(sizeof(*p));
    if (!p) {
        return -ENOMEM;
    }
    p->after = after;
    p->arg = arg;
    p->i_ev = -1;
    p->now = hf_now();
    p->timer_at = HF_NEVER;
    hf_list_init(&p->tasks);
    p->fd = epoll_create1(EPOLL_CLOEXEC);
    int rc = p->fd < 0 ? -errno : hf_timer_create(loop, on_timer, p, &p->timer);
    rc = rc ? rc : hf_io_create(loop, p->fd, HF_IO_READ, on_ready, p, &p->io);
    if (rc) {
        hf_poll_destroy(p);
        return rc;
    }
    *ret_poll = p;
    return 0;
}

void hf_poll_destroy(struct hf_poll *p)
{
    if (!p) {
        return;
    }
    hf_io_destroy(p->io);
    hf_timer_destroy(p->timer);
    if (p->fd >= 0) {
        close(p->fd);
    }
    hf_free(p->heap);
    hf_free(p);
}

void hf_poll_pace(struct hf_poll *p, hf_time pace)
{
    p->pace = pace;
}

hf_time hf_poll_now(const struct hf_poll *p)
{
    return p->i_ev < 0 ? hf_now() : p->now;
}

int hf_poll_add(struct hf_poll *p, struct hf_poll_io *io, int fd, unsigned want,
                void (*fn)(struct hf_poll_io *io, unsigned ready))
{
    *io = (struct hf_poll_io){
        .fd = fd, .want = want & ~HF_POLL_EDGE, .edge = want & HF_POLL_EDGE, .fn = fn};
    int rc = control(p, EPOLL_CTL_ADD, io);
    if (rc) {
        io->fd = -1;
    }
    return rc;
}

void hf_poll_want(struct hf_poll *p, struct hf_poll_io *io, unsigned want)
{
    if (io->fd < 0 || io->want == want) {
        return;
    }
    io->want = want;
    /* can fail only for want of kernel memory when it goes back in: then its deadline ends it */
    if (!io->out) {
        control(p, EPOLL_CTL_MOD, io);
    } else if (want) {
        io->out = control(p, EPOLL_CTL_ADD, io) != 0;
    }
}

void hf_poll_again(struct hf_poll *p, struct hf_poll_io *io)
{
    if (io->fd >= 0 && !io->out) {
        control(p, EPOLL_CTL_MOD, io);
    }
}

void hf_poll_remove(struct hf_poll *p, struct hf_poll_io *io)
{
    if (io->fd < 0) {
        return;
    }
    if (!io->out) {
        control(p, EPOLL_CTL_DEL, io);
    }
    io->fd = -1;
    for (int i = p->i_ev < 0 ? p->n_ev : p->i_ev; i < p->n_ev; i++) {
        if (p->ev[i].data.ptr == io) {
            p->ev[i].data.ptr = NULL;
        }
    }
}
