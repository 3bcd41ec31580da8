/* An epoll set beside the event loop's, for connections of which there are many and whose cost
 * counts: no timer, no allocation and no epoll_ctl per message. */
#pragma once

#include "base/attr.h"
#include "base/hftime.h"
#include "base/list.h"
#include "os/loop.h"

/*
 * Level-triggered unless HF_POLL_EDGE; up to HF_POLL_BATCH events a turn; time is read once per
 * turn. The set is nested in libevent's: while something comes at least every HF_POLL_LINGER the
 * set keeps the thread (for HF_POLL_SLICE at a time), and libevent with its slow things (signals,
 * HTTP) has its turn between slices. So a busy turn costs one epoll_wait and not two.
 */
#define HF_POLL_BATCH 128
#define HF_POLL_LINGER HF_MS(10)
#define HF_POLL_SLICE HF_MS(10)

#define HF_POLL_READ 1u
#define HF_POLL_WRITE 2u
#define HF_POLL_HUP 4u /* told always: both directions are closed, or an error */
/* For hf_poll_add(): READ and WRITE are told once and then when something new happens, which spares
 * the kernel to look again after each message. For stream sockets whose fn reads until less came
 * than it had room for, or asks with hf_poll_again(). The end is told after the last bytes. */
#define HF_POLL_EDGE 8u

struct hf_poll;

/** A watched fd; embedded in its owner, who keeps the fd. */
struct hf_poll_io {
    int fd; /* -1: not watched */
    unsigned want;
    bool edge;
    bool out; /* told HUP while nothing was wanted: not in the set until something is */
    void (*fn)(struct hf_poll_io *io, unsigned ready);
};

/** A one-shot timer; embedded in its owner; zeroed: unset. */
struct hf_poll_timer {
    hf_time at;
    size_t pos; /* in the heap, from 1; 0: unset */
    void (*fn)(struct hf_poll_timer *t, hf_time now);
};

/** Something to be done at the end of the turn; embedded; hf_list_init(&task.node) first. */
struct hf_poll_task {
    struct hf_list node;
    void (*fn)(struct hf_poll_task *t);
};

/** after(arg) runs after each batch of events or timers, before tasks. Returns 0, -ENOMEM or
 * -errno. */
HF_MUST int hf_poll_create(struct hf_loop *loop, void (*after)(void *arg), void *arg,
                           struct hf_poll **ret_poll);
/** Nothing may be watched any more. */
void hf_poll_destroy(struct hf_poll *p);

/** Turns begin at least `pace` after the one before (0, as at first: at once): what comes in
 * between is done in one turn, and costs one wake-up. At most a few ms. Within a turn. */
void hf_poll_pace(struct hf_poll *p, hf_time pace);

/** The time of this turn. */
hf_time hf_poll_now(const struct hf_poll *p);

HF_MUST int hf_poll_add(struct hf_poll *p, struct hf_poll_io *io, int fd, unsigned want,
                        void (*fn)(struct hf_poll_io *io, unsigned ready));
/** Change what is wanted; a system call only if that is new. 0: nothing but HUP, told once. */
void hf_poll_want(struct hf_poll *p, struct hf_poll_io *io, unsigned want);
/** HF_POLL_EDGE: what is still there is told once more. */
void hf_poll_again(struct hf_poll *p, struct hf_poll_io *io);
/** Watch no more: fn is not called again, also for events that came in the same batch. Before
 * close(2). */
void hf_poll_remove(struct hf_poll *p, struct hf_poll_io *io);

/** Due at `at`; HF_NEVER unsets. Memory is there beforehand for hf_poll_reserve()d timers. */
void hf_poll_timer_set(struct hf_poll *p, struct hf_poll_timer *t, hf_time at);
/** Make room for n more timers than there are users of; each user gives it back with -1. */
HF_MUST int hf_poll_reserve(struct hf_poll *p, int n);

/** Run t->fn at the end of this turn, once. */
void hf_poll_task_add(struct hf_poll *p, struct hf_poll_task *t);

/** After timers were set from outside a turn (a signal, HTTP): look at them. */
void hf_poll_kick(struct hf_poll *p);
