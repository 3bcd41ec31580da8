/* The workers of holdfast-sip: each a thread with a loop, its sockets, its mailbox and a handler.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "os/mailbox.h"
#include "sip/overload.h"
#include "sip/wire.h"

/*
 * Workers share nothing but their mailboxes. The kernel brings most datagrams to their worker
 * (steer.h). A message is parsed where it comes; if it is another
 * worker's (handler.owner()), it is copied into that one's mailbox: one lock, and if that one
 * sleeps one wake, for all that a turn brings. What is to go over a connection of another worker
 * goes to that one likewise.
 *
 *   sockets --wire--> parse --owner?--+-- here ---------------> handler.message()
 *                                     +-- mailbox of that one --> parse --> handler.message()
 *   other threads (store, main) --hf_sip_worker_post()--> mailbox --> handler.mail()
 */
struct hf_sip_workers;
struct hf_sip_worker;

#define HF_SIP_WORKERS_MAX 64

/** What a worker's thread calls; ctx is of that worker. Members but `message` may be NULL. */
struct hf_sip_handler {
    /** Which worker a message belongs to. NULL, or a number that none has: whoever received it. */
    unsigned (*owner)(void *ctx, const struct hf_sip_msg *msg);
    void (*message)(void *ctx, const struct hf_sip_msg *msg, const struct hf_sip_flow *from,
                    hf_time now, uint32_t wall_s);
    /** A connection of any worker ended or could not be made; a datagram could not be sent. */
    void (*unreachable)(void *ctx, const struct hf_sip_flow *to, hf_time now);
    /** A mail of hf_sip_worker_post() or hf_sip_worker_mail(), kind from HF_SIP_MAIL_USER on. */
    void (*mail)(void *ctx, const struct hf_mail *mail, hf_time now);
    /** Due at deadline(), which is asked after each turn. */
    void (*tick)(void *ctx, hf_time now, uint32_t wall_s);
    hf_time (*deadline)(void *ctx);
    void (*shed)(void *ctx, enum hf_sip_shed level);
    /** Once a second: a good time to show figures to others. */
    void (*second)(void *ctx, hf_time now);
    const char *(*server_name)(void *ctx, const struct hf_endpoint *peer);
};
#define HF_SIP_MAIL_USER 16u

/** wire.worker and a port of 0 are filled in: all workers listen at the same. */
struct hf_sip_workers_conf {
    unsigned n; /* at most HF_SIP_WORKERS_MAX */
    struct hf_sip_wire_conf wire;
    size_t mailbox_max; /* bytes; 0: 32 MiB */
    bool steer;         /* datagrams to their workers, by the AoR, as far as the kernel lets us */
};

/** Bind all sockets, in the calling thread; no threads yet. Errors with text. */
HF_MUST int hf_sip_workers_open(const struct hf_sip_workers_conf *conf, struct hf_err *err,
                                struct hf_sip_workers **ret_workers);
struct hf_sip_worker *hf_sip_worker(struct hf_sip_workers *ws, unsigned i);
unsigned hf_sip_workers_n(const struct hf_sip_workers *ws);
/** The address of the i-th of conf->wire.bind, with its port. */
struct hf_endpoint hf_sip_workers_at(const struct hf_sip_workers *ws, size_t i);
/** Before the start. */
void hf_sip_worker_handle(struct hf_sip_worker *w, const struct hf_sip_handler *handler, void *ctx);
/** -errno with text. */
HF_MUST int hf_sip_workers_start(struct hf_sip_workers *ws, struct hf_err *err);
/** What has come is handled, what is to be sent is sent; then the threads end, and handlers are not
 * called any more. */
void hf_sip_workers_stop(struct hf_sip_workers *ws);
/** Stopped, or never started. NULL is fine. */
void hf_sip_workers_close(struct hf_sip_workers *ws);

/** A thread that gets no signals, for this and others of the program. -errno. */
HF_MUST int hf_sip_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *),
                                void *arg);

/** Any thread: a mail for handler.mail(), not bounded: see hf_mailbox_send(). */
HF_MUST int hf_sip_worker_post(struct hf_sip_worker *w, uint32_t kind, const struct hf_slice *part,
                               size_t n_parts);

/* --- in the worker's thread --- */

/** Send a message: by this worker's sockets, or by those of the connection's worker. */
void hf_sip_worker_send(struct hf_sip_worker *w, const struct hf_sip_flow *to,
                        struct hf_slice message);
/** A binding was registered over this connection, of whichever worker. */
void hf_sip_worker_keep(struct hf_sip_worker *w, uint64_t conn);
/** As hf_sip_wire_tls(). */
void hf_sip_worker_tls(struct hf_sip_worker *w, struct hf_tls_context *server,
                       struct hf_tls_context *client);
/** A mail for another worker (or this one), with the others of this turn; dropped and counted when
 * that one's mailbox is full. */
void hf_sip_worker_mail(struct hf_sip_worker *w, unsigned to, uint32_t kind,
                        const struct hf_slice *part, size_t n_parts);

#define HF_SIP_WORKER_COUNTER_LIST(X)                                                              \
    X(handed_over, "messages handed over to another worker")                                       \
    X(taken_over, "messages taken over from another worker")                                       \
    X(lost, "mails for another worker that was too slow")
/** As of the last second; any thread. */
struct hf_sip_worker_figures {
#define HF_SIP_WORKER_COUNTER_FIELD(name, text) uint64_t name;
    HF_SIP_WORKER_COUNTER_LIST(HF_SIP_WORKER_COUNTER_FIELD)
#undef HF_SIP_WORKER_COUNTER_FIELD
    struct hf_sip_wire_counters wire;
    unsigned cpu, queue; /* 1/1000 */
    uint32_t messages_s; /* that came, per second */
    enum hf_sip_shed shed;
};
void hf_sip_worker_figures(struct hf_sip_worker *w, struct hf_sip_worker_figures *ret_figures);
