/* The event loop: a thin layer over libevent that speaks hf_time. */
#include "os/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>

#include "base/mem.h"

/* Longest time libevent is asked to wait; a timer further away is looked at again then. */
#define WAIT_MAX HF_S(86400)

struct hf_loop {
    struct event_base *base; /* owned */
    bool stop;
};

struct hf_timer {
    struct event *ev; /* owned */
    hf_time at;       /* HF_NEVER: unset */
    void (*fn)(void *arg);
    void *arg;
};

struct hf_io {
    struct event_base *base; /* borrowed */
    struct event *ev;        /* owned */
    int fd;
    unsigned events; /* watched now */
    void (*fn)(void *arg, unsigned events);
    void *arg;
};

struct hf_signal {
    struct event *ev; /* owned */
    int signo;
    void (*fn)(void *arg, int signo);
    void *arg;
};

static hf_time clock_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (hf_time)ts.tv_sec * HF_NS_PER_S + ts.tv_nsec;
}

hf_time hf_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

hf_time hf_wall_now(void)
{
    return clock_ns(CLOCK_REALTIME);
}

int hf_loop_create(struct hf_loop **ret_loop)
{
    struct hf_loop *loop = hf_alloc(sizeof(*loop));
    struct event_config *cfg = event_config_new();
    if (loop && cfg) {
        /* microseconds, and relative to now instead of to the time of the last wake-up */
        event_config_set_flag(cfg, EVENT_BASE_FLAG_PRECISE_TIMER);
        event_config_set_flag(cfg, EVENT_BASE_FLAG_NO_CACHE_TIME);
        loop->base = event_base_new_with_config(cfg);
    }
    if (cfg) {
        event_config_free(cfg);
    }
    if (!loop || !loop->base) {
        hf_loop_destroy(loop);
        return -ENOMEM;
    }
    signal(SIGPIPE, SIG_IGN); /* a peer that is gone is an error code, not our end */
    *ret_loop = loop;
    return 0;
}

void hf_loop_destroy(struct hf_loop *loop)
{
    if (!loop) {
        return;
    }
    if (loop->base) {
        event_base_free(loop->base);
    }
    hf_free(loop);
}

struct event_base *hf_loop_base(struct hf_loop *loop)
{
    return loop->base;
}

int hf_loop_run(struct hf_loop *loop)
{
    int rc = 0;
    while (!loop->stop && rc == 0) {
        errno = 0;
        if (event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0) {
            rc = errno ? -errno : -EIO;
        }
    }
    loop->stop = false;
    return rc;
}

void hf_loop_stop(struct hf_loop *loop)
{
    loop->stop = true;
    event_base_loopbreak(loop->base);
}

static void timer_arm(struct hf_timer *t)
{
    hf_time d = t->at - hf_now();
    d = d > WAIT_MAX ? WAIT_MAX : d;
    struct timeval tv = {0};
    if (d > 0) {
        d += 2000; /* libevent counts in us from a time rounded down: never be early */
        tv.tv_sec = (time_t)(d / HF_NS_PER_S);
        tv.tv_usec = (suseconds_t)(d % HF_NS_PER_S / 1000);
    }
    event_add(t->ev, &tv);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct hf_timer *t = arg;
    if (t->at > hf_now()) { /* it was further away than WAIT_MAX */
        timer_arm(t);
        return;
    }
    t->at = HF_NEVER;
    t->fn(t->arg); /* may destroy t */
}

int hf_timer_create(struct hf_loop *loop, void (*fn)(void *arg), void *arg,
                    struct hf_timer **ret_timer)
{
    struct hf_timer *t = hf_alloc(sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    *t = (struct hf_timer){.fn = fn, .arg = arg, .at = HF_NEVER};
    t->ev = evtimer_new(loop->base, on_timer, t);
    if (!t->ev) {
        hf_timer_destroy(t);
        return -ENOMEM;
    }
    *ret_timer = t;
    return 0;
}

void hf_timer_set(struct hf_timer *t, hf_time at)
{
    if (at == t->at) {
        return;
    }
    t->at = at;
    if (at == HF_NEVER) {
        event_del(t->ev);
    } else {
        timer_arm(t);
    }
}

void hf_timer_destroy(struct hf_timer *t)
{
    if (!t) {
        return;
    }
    if (t->ev) {
        event_free(t->ev);
    }
    hf_free(t);
}

static void on_io(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct hf_io *io = arg;
    io->fn(io->arg, (what & EV_READ ? HF_IO_READ : 0) | (what & EV_WRITE ? HF_IO_WRITE : 0));
}

int hf_io_create(struct hf_loop *loop, int fd, unsigned events,
                 void (*fn)(void *arg, unsigned events), void *arg, struct hf_io **ret_io)
{
    struct hf_io *io = hf_alloc(sizeof(*io));
    if (!io) {
        return -ENOMEM;
    }
    *io = (struct hf_io){.base = loop->base, .fd = fd, .fn = fn, .arg = arg};
    io->ev = event_new(loop->base, fd, EV_PERSIST, on_io, io);
    if (!io->ev) {
        hf_io_destroy(io);
        return -ENOMEM;
    }
    hf_io_set(io, events);
    *ret_io = io;
    return 0;
}

void hf_io_set(struct hf_io *io, unsigned events)
{
    if (events == io->events) {
        return;
    }
    io->events = events;
    event_del(io->ev);
    if (events) {
        int what = EV_PERSIST | (events & HF_IO_READ ? EV_READ : 0) |
                   (events & HF_IO_WRITE ? EV_WRITE : 0);
        event_assign(io->ev, io->base, io->fd, (short)what, on_io, io);
        event_add(io->ev, NULL);
    }
}

void hf_io_destroy(struct hf_io *io)
{
    if (!io) {
        return;
    }
    if (io->ev) {
        event_free(io->ev);
    }
    hf_free(io);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct hf_signal *s = arg;
    s->fn(s->arg, s->signo);
}

int hf_signal_create(struct hf_loop *loop, int signo, void (*fn)(void *arg, int signo), void *arg,
                     struct hf_signal **ret_signal)
{
    struct hf_signal *s = hf_alloc(sizeof(*s));
    if (!s) {
        return -ENOMEM;
    }
    *s = (struct hf_signal){.signo = signo, .fn = fn, .arg = arg};
    s->ev = evsignal_new(loop->base, signo, on_signal, s);
    if (!s->ev || event_add(s->ev, NULL) < 0) {
        hf_signal_destroy(s);
        return -ENOMEM;
    }
    *ret_signal = s;
    return 0;
}

void hf_signal_destroy(struct hf_signal *s)
{
    if (!s) {
        return;
    }
    if (s->ev) {
        event_free(s->ev);
    }
    hf_free(s);
}
