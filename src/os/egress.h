/* Output commit: a hook on this host's output lets nothing out that the backup has not confirmed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/endpoint.h"
#include "base/err.h"
#include "base/hftime.h"
#include "base/slice.h"
#include "core/tcp/egress_rules.h"

/*
 * doc/design/egress.md tells the whole. A *guard* is a tc egress filter (or an NFQUEUE rule) on
 * some interfaces, for some service addresses. Of what leaves from (address, port):
 *   - a segment of a connection without a slot is dropped: so is the RST of a host, or of a
 * process, that does not know the connection (yet, or any more);
 *   - RST and FIN go only when the slot is marked closing;
 *   - data goes up to tx_conf, acknowledgements up to rx_conf; what is higher is held or lowered;
 *   - a SYN-ACK is held until the connection has a slot that names it;
 *   - after the address's lease *nothing* leaves from it: no IP, no ARP, no neighbour discovery
 * (G2). The guard outlives this process, whatever ends it; then everything but other ports is
 * dropped. The next hf_egress_open() takes it over without a gap. Only hf_egress_remove() ends it.
 *
 * Not thread-safe: one thread has it.
 */
struct hf_egress;

/* How it is done, best last. */
#define HF_EGRESS_HOW_LIST(X)                                                                      \
    X(HF_EGRESS_NONE, "none")                                                                      \
    X(HF_EGRESS_NFQUEUE, "nfqueue")                                                                \
    X(HF_EGRESS_BPF, "bpf")

enum hf_egress_how {
#define HF_EGRESS_HOW_ENUM(name, text) name,
    HF_EGRESS_HOW_LIST(HF_EGRESS_HOW_ENUM)
#undef HF_EGRESS_HOW_ENUM
};

/** "none", "nfqueue", "bpf"; static. */
const char *hf_egress_how_name(enum hf_egress_how how);

/**
 * The best that this host and this process's capabilities allow. why (may be NULL) says in one
 * sentence what is missing for something better, for the log at start; empty for bpf.
 */
enum hf_egress_how hf_egress_probe(struct hf_err *why);

struct hf_egress_options {
    /* every interface over which the addresses' packets leave; names, borrowed for the call */
    const char *const *interfaces;
    unsigned interfaces_len; /* 1 .. HF_EGRESS_INTERFACES_MAX */
    /* service addresses with their port, each address once; a number in this list names it below.
     * The first one names the guard (hf_egress_number()) */
    const struct hf_endpoint *addresses;
    unsigned addresses_len; /* 1 .. HF_EGRESS_ADDRESSES_MAX */
    uint32_t slots_max;     /* connections at once, embryonic ones included */
    enum hf_egress_how how; /* BPF or NFQUEUE */
};

/**
 * The number of a guard, made of its first address: of an IPv4 address it is the address. What a
 * dead process left is known by it, and so several guards of one host, each of another process
 * with other addresses, do not replace each other. With NFQUEUE 16 bits of it are the number of
 * the queue: if others have that, it is refused.
 */
uint32_t hf_egress_number(const struct hf_endpoint *address);

/**
 * Install the guard, or take over the one that a dead process left there. At once all is dropped:
 * leases are over, there are no slots. Errors: -EPERM, -ENODEV (no such interface), -HF_EVALUE (not
 * Ethernet-like), -ENOMEM, other -errno; err (may be NULL) tells.
 */
HF_MUST int hf_egress_open(const struct hf_egress_options *options, struct hf_err *err,
                           struct hf_egress **ret_egress);

/** Its descriptor whose last close takes an RCU grace period (some 15 ms): who holds it, too, lets
 * this process die sooner. Borrowed; -1: there is none. */
int hf_egress_slow_fd(const struct hf_egress *e);

/** Let go of the guard, which stays in force as if the process had died. NULL is fine. */
void hf_egress_close(struct hf_egress *e);

/** Take the guard off these interfaces, whoever left it, in either way. 0 also when there was none;
 * -errno. */
HF_MUST int hf_egress_remove(const struct hf_egress_options *options, struct hf_err *err);

/* ---- addresses ---- */

/**
 * Output of address number `address` is allowed until this time (CLOCK_BOOTTIME, ns, see
 * hf_egress_now()); HF_NEVER: no lease in use. May also be lowered; 0 silences at once.
 */
void hf_egress_set_lease(struct hf_egress *e, unsigned address, hf_time until);
/**
 * May others count on that lease (G2)? NFQUEUE does not see ARP: then the address's host must be
 * fenced before another may take it.
 */
bool hf_egress_lease_counts(const struct hf_egress *e);
/** CLOCK_BOOTTIME, the clock of leases: goes on in suspend. */
hf_time hf_egress_now(void);

/**
 * Flags of an address (HF_EGRESS_SOLO, HF_EGRESS_RESETS): see core/tcp/egress_rules.h. At open: 0.
 * Solo is cleared *before* the snapshot for a new backup is taken.
 */
void hf_egress_set_flags(struct hf_egress *e, unsigned address, uint32_t flags);

/* ---- slots ---- */

struct hf_egress_conn {
    unsigned address;        /* its number */
    struct hf_endpoint peer; /* the client */
    uint32_t rx_conf;        /* acknowledgements up to this sequence number may go */
    uint32_t tx_conf;        /* data before this sequence number may go */
    uint8_t wscale;          /* our window scale, 0 without window scaling */
    uint32_t state;          /* HF_EGRESS_SLOT_SOLO, _CLOSING, _SYN_ACK or 0 */
    uint32_t syn_seq;        /* with _SYN_ACK: our initial sequence number ... */
    uint32_t syn_ack;        /* ... and the acknowledgement of the SYN-ACK that may go */
};

/**
 * From now on what the connection may send is judged by this slot. Register all before their
 * sockets or probes send. Errors: -EEXIST, -HF_EFULL, -errno; *ret_slot stays valid until
 * unregistered.
 */
HF_MUST int hf_egress_register(struct hf_egress *e, const struct hf_egress_conn *conn,
                               uint32_t *ret_slot);
/** Nothing more of it leaves. The slot must be registered. */
void hf_egress_unregister(struct hf_egress *e, uint32_t slot);

/**
 * The backup has it: raise both limits (plain stores and one fence; no system call). They never go
 * back: a lower number is ignored. Also to be called while solo: numbers more than 2 GiB apart
 * can't be compared. True: an acknowledgement is being held that may go now. Write to the socket
 * first (the response carries the acknowledgement), then call hf_egress_flush().
 */
bool hf_egress_confirm(struct hf_egress *e, uint32_t slot, uint32_t rx_conf, uint32_t tx_conf);
/**
 * Send the acknowledgement that is held, as far as it is confirmed, unless one as high has gone
 * meanwhile. 0 (also if there was nothing to send), or -errno: still held, try again later (the
 * client's retransmission would bring it about, too).
 */
HF_MUST int hf_egress_flush(struct hf_egress *e, uint32_t slot);

/** Set and clear HF_EGRESS_SLOT_SOLO or _CLOSING (RST and FIN may go: this end closes). */
void hf_egress_set_state(struct hf_egress *e, uint32_t slot, uint32_t set, uint32_t clear);

/* ---- handshakes ---- */

/**
 * A SYN that has come in (to learn the client's options), or a SYN-ACK that is being held. The
 * kernel repeats both: the same handshake may be told several times.
 */
struct hf_egress_event {
    bool syn_ack;
    unsigned address;
    struct hf_endpoint peer;
    struct hf_slice packet; /* from the IP header on, TCP options included; borrowed for the call */
    const struct hf_egress_saved *saved; /* to be copied for hf_egress_send_syn_ack(); likewise */
};
typedef void hf_egress_event_fn(void *arg, const struct hf_egress_event *event);

/** Readable when hf_egress_dispatch() has something to do. */
int hf_egress_fd(const struct hf_egress *e);
/** Call fn for what has happened, without blocking; it may register. 0 or -errno. */
HF_MUST int hf_egress_dispatch(struct hf_egress *e, hf_egress_event_fn *fn, void *arg);
/** Send a SYN-ACK that was held; register its connection with _SYN_ACK before. -errno. */
HF_MUST int hf_egress_send_syn_ack(struct hf_egress *e, const struct hf_egress_saved *saved);

/* ---- counters ---- */

/** Counters of an address since open, one per HF_EGRESS_COUNTER_LIST. */
void hf_egress_counters(const struct hf_egress *e, unsigned address,
                        uint64_t ret_counters[HF_EGRESS_COUNTERS]);
