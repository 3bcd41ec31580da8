/* The event loop: libevent's base, with timers on the monotonic clock that the cores are stepped
 * by. */
#pragma once

#include "base/attr.h"
#include "base/hftime.h"

struct event_base;
struct hf_loop;
struct hf_timer;
struct hf_io;
struct hf_signal;

/** Monotonic now (CLOCK_MONOTONIC): the only clock that cores get. */
hf_time hf_now(void);
/** Wall clock, ns since 1970: for people and for HTTP only. */
hf_time hf_wall_now(void);

/** A loop of its own; one per program, which ignores SIGPIPE from then on. Returns 0 or -ENOMEM. */
HF_MUST int hf_loop_create(struct hf_loop **ret_loop);
void hf_loop_destroy(struct hf_loop *loop);
/** libevent's base, for the siblings in src/os and for evhttp/evdns users; borrowed. */
struct event_base *hf_loop_base(struct hf_loop *loop);
/** Run until hf_loop_stop(); returns 0 or -errno. */
HF_MUST int hf_loop_run(struct hf_loop *loop);
void hf_loop_stop(struct hf_loop *loop);

/** A one-shot timer, unset at first; fn runs in the loop. Destroy before the loop. */
HF_MUST int hf_timer_create(struct hf_loop *loop, void (*fn)(void *arg), void *arg,
                            struct hf_timer **ret_timer);
/** Due at the monotonic time `at` (in the past: at the next turn); HF_NEVER unsets. */
void hf_timer_set(struct hf_timer *t, hf_time at);
void hf_timer_destroy(struct hf_timer *t);

#define HF_IO_READ 1u
#define HF_IO_WRITE 2u
/** Watch fd (stays the caller's) for events (HF_IO_*); fn gets what happened. */
HF_MUST int hf_io_create(struct hf_loop *loop, int fd, unsigned events,
                         void (*fn)(void *arg, unsigned events), void *arg, struct hf_io **ret_io);
/** Change what is watched; 0 pauses. */
void hf_io_set(struct hf_io *io, unsigned events);
void hf_io_destroy(struct hf_io *io);

/** Run fn in the loop whenever the signal arrives. */
HF_MUST int hf_signal_create(struct hf_loop *loop, int signo, void (*fn)(void *arg, int signo),
                             void *arg, struct hf_signal **ret_signal);
void hf_signal_destroy(struct hf_signal *s);
