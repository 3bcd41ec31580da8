/* Move established TCP connections between hosts: read them, probe the peers, restore (TCP_REPAIR).
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "codec/tcp_facts.h"
#include "os/addr.h"

/*
 * The socket half of a take-over (doc/design/takeover.md). Everything here needs CAP_NET_ADMIN
 * (TCP_REPAIR, forced buffers) and, from hf_tcpmove_open() on, CAP_NET_RAW; nothing else.
 *
 * Order on the host that takes over; the guard against RST is there since long before:
 *
 *     hf_tcpmove_open()            from now on packets of the peers are recorded
 *     the address, and word of it  (the owner: netlink, gratuitous ARP)
 *     the egress program knows each connection: rx_total and tx_total are its limits
 *     hf_tcpmove_add()             each connection, the most recently active first
 *     hf_tcpmove_step() ...        until hf_tcpmove_settled(): probe, restore, replay
 *     the listener
 *     hf_tcpmove_listening()       what was recorded of new connections goes to it
 *     hf_tcpmove_step() ...        until hf_tcpmove_left() is 0: peers slow to answer
 *     hf_tcpmove_close()
 *
 * A connection in a batch:
 *
 *     ADDED --> PROBING --> READY --> done: restored, gone, or failed
 *        \________________/`-> no answer in time: restored without knowing where the peer stands
 *         nothing unacknowledged
 *
 * Not thread-safe; no clock is read but `now` is that of hf_loop_now().
 */

/* --- the host that has the connection --- */

/**
 * Facts of a live socket; EOF, CLOSING and EMBRYO are the owner's to add. rx_total and tx_total:
 * bytes that the program has read from it and written to it so far; from them follow the initial
 * sequence numbers. The socket is in repair mode for some microseconds: nothing may be unsent then,
 * or the kernel would take for sent what was not: -EAGAIN when it has unsent bytes (SIOCOUTQNSD).
 * The right moment is accept(). Where SYN and SYN-ACK are seen (egress program)
 * hf_tcp_facts_handshake() needs no repair mode at all. Other errors: -EPERM, -ENOTCONN.
 */
HF_MUST int hf_tcpmove_read(int fd, uint64_t rx_total, uint64_t tx_total, hf_time now,
                            struct hf_err *err, struct hf_tcp_facts *ret_f);

/**
 * Without repair mode and any time: (tsval, now) and windows of f anew, and how much of tx_total
 * (written to the socket) is acknowledged. -errno, -ENOTCONN on a dead socket.
 */
HF_MUST int hf_tcpmove_refresh(int fd, uint64_t tx_total, hf_time now, struct hf_tcp_facts *f,
                               uint64_t *ret_tx_una);

/**
 * Planned move: stop the socket for good. From now on it sends nothing new, and
 * hf_tcpmove_discard(), which should follow soon, closes it without a packet. Before: no packet
 * reaches it any more (address or cable gone), and all that it received was read; -EBUSY if there
 * is more to read. f and *ret_tx_una are as after a refresh.
 */
HF_MUST int hf_tcpmove_freeze(int fd, uint64_t rx_total, uint64_t tx_total, hf_time now,
                              struct hf_tcp_facts *f, uint64_t *ret_tx_una, struct hf_err *err);

/** Close fd without sending anything, whatever its state: its connection lives elsewhere, or both
 * sides have ended it (FIN_WAIT2 after the peer's FIN was taken over). */
void hf_tcpmove_discard(int fd);

/* --- the host that takes it over --- */

struct hf_tcpmove;

struct hf_tcpmove_opt {
    struct hf_addr local; /* the service address and its port */
    hf_time clock_offset; /* this host's monotonic clock minus that of the facts; too small is
                             harmless, too large makes peers drop what we send (PAWS) */
    hf_time patience;     /* for the answer to a probe; 0: HF_TCPMOVE_PATIENCE */
    uint32_t mark;        /* SO_MARK of all raw packets, to tell the egress program; 0: none */
    unsigned per_step;    /* connections that one step probes, and restores; 0: 32 */
};
/* A socket that was restored without an answer waits for the kernel's first retransmission, 3 s; so
 * it pays to wait for the answer of a slow network, or of a peer that has no CPU time just now. */
#define HF_TCPMOVE_PATIENCE HF_S(5)
/* Then the listener waits no longer for those that do not answer. */
#define HF_TCPMOVE_SETTLE HF_MS(15)

/* One connection. Slices are borrowed until it is done. */
struct hf_tcpmove_job {
    struct hf_tcp_facts facts; /* local: the address of the batch */
    uint64_t rx_total;       /* bytes of the peer that we have, read or not: none is given again */
    uint64_t tx_una;         /* bytes that the peer is known to have; the truth may be higher */
    struct hf_slice tx;      /* all bytes from tx_una on that may have been sent, and more */
    struct hf_slice syn_ack; /* EMBRYO: our SYN-ACK, as IP packet */
    void *arg;
};

/* What became of it. */
struct hf_tcpmove_result {
    int rc; /* 0; -HF_ECLOSED: the peer has no such connection any more, or both sides had ended it
               and know it; else -errno or -HF_E*: could not be restored */
    int fd; /* rc 0: the socket, owned by the callee: non-blocking, close-on-exec, SO_REUSEADDR;
               otherwise -1. Of a peer that may have more of tx than it said mv has it a second
               time until the connection is done: take it out of an epoll set before it is closed */
    uint64_t tx_una;     /* the peer has the bytes up to here */
    uint64_t tx_written; /* the kernel has them up to here; write the rest. tx_total + 1: our FIN is
                            acknowledged, too: only read */
    uint32_t snd_wnd;    /* the peer's window */
    bool exact;          /* tx_una is where the peer stands; false: it may have more, and the
                            kernel has all of tx as sent */
    const char *what;    /* rc < 0: the call that failed, static; else NULL */
};

/** Called from hf_tcpmove_step() once for each connection; may add others, may not close mv. With
 * EOF among the facts the socket reports no end of file again: the callee knows it. With CLOSING it
 * has to be shut down again once all is written. */
typedef void hf_tcpmove_done(void *arg, void *job_arg, const struct hf_tcpmove_result *res);

#define HF_TCPMOVE_COUNTER_LIST(X)                                                                 \
    X(added, "connections given")                                                                  \
    X(probes, "probes sent, repeated ones counted")                                                \
    X(answered, "connections whose peer told where it stands")                                     \
    X(inexact, "of these, without D-SACK, so that more may have been under way")                   \
    X(lowered, "acknowledgements of what their new sockets had not sent yet, made ones of less")   \
    X(tried,                                                                                       \
      "connections whose peer, without D-SACK, took what comes next where it said it stood")       \
    X(unanswered, "connections restored without an answer")                                        \
    X(gone, "connections that the peer has no more")                                               \
    X(restored, "sockets restored")                                                                \
    X(failed, "connections that could not be restored")                                            \
    X(recorded, "packets that came before there was a socket")                                     \
    X(replayed, "of these, given to this host's TCP")                                              \
    X(record_full, "packets not recorded: HF_TCPMOVE_RECORD_MAX")                                  \
    X(malformed, "packets that could not be read")                                                 \
    X(send_errors, "raw packets that could not be sent")

struct hf_tcpmove_counters {
#define HF_TCPMOVE_COUNTER_FIELD(name, text) uint64_t name;
    HF_TCPMOVE_COUNTER_LIST(HF_TCPMOVE_COUNTER_FIELD)
#undef HF_TCPMOVE_COUNTER_FIELD
};

/**
 * Open the raw sockets and begin to record what comes for the address, whether or not this host has
 * it yet. Errors have a text with the remedy: -EPERM names the capability that is missing.
 */
HF_MUST int hf_tcpmove_open(const struct hf_tcpmove_opt *opt, hf_tcpmove_done *fn, void *arg,
                            struct hf_err *err, struct hf_tcpmove **ret_mv);

/** Drop everything; connections not done are not reported. NULL is fine. */
void hf_tcpmove_close(struct hf_tcpmove *mv);

/** Add one; -HF_EVALUE: facts of another address, or an EMBRYO without SYN-ACK; -EEXIST: that peer
 * is there already; -ENOMEM. */
HF_MUST int hf_tcpmove_add(struct hf_tcpmove *mv, const struct hf_tcpmove_job *job);

/** A connection that is not to be restored: its peer is provoked to say where it stands, which this
 * host's TCP answers with a RST, as far as the guard lets it. May be lost on the way: say it again.
 */
void hf_tcpmove_challenge(struct hf_tcpmove *mv, const struct hf_tcp_facts *f, hf_time now);

/** Readable when there is something to step for. */
int hf_tcpmove_fd(const struct hf_tcpmove *mv);

/** Go on: receive, probe, restore, each at most per_step connections. */
void hf_tcpmove_step(struct hf_tcpmove *mv, hf_time now);

/** When to step again at the latest, also if the descriptor is quiet; 0: at once. */
hf_time hf_tcpmove_deadline(const struct hf_tcpmove *mv);

/** Connections not done yet, or not yet seen to go on where the peer has no D-SACK (0.25 s). */
unsigned hf_tcpmove_left(const struct hf_tcpmove *mv);

/** Is every connection done, or was asked HF_TCPMOVE_SETTLE ago and did not answer? Then the
 * listener may be made: what it would answer to packets of those is a RST, which the guard drops.
 */
bool hf_tcpmove_settled(const struct hf_tcpmove *mv, hf_time now);

/** The listener is there: what was recorded of no connection of the batch (SYNs) goes to this
 * host's TCP, and is no longer recorded. */
void hf_tcpmove_listening(struct hf_tcpmove *mv);

const struct hf_tcpmove_counters *hf_tcpmove_counters(const struct hf_tcpmove *mv);
