/* A connection between two managers: TLS 1.3 with the cluster's key, bytes in and out. */
#pragma once

#include "base/attr.h"
#include "base/err.h"
#include "os/addr.h"
#include "os/key.h"
#include "os/pollset.h"

/*
 * For the pair protocol (doc/wire/pair.md, I8): purpose "pair". On hf_poll, with OpenSSL on the
 * socket itself: no copies but its own, TCP_NODELAY, and quick: what is given to send leaves in the
 * same call. No heartbeats, no reconnecting: that is the core's.
 *
 * A connection has 2 s to be opened. At most 8 are accepted; further ones push out those that have
 * not authenticated yet. Each host has one that was accepted: a newer one ends the older, of which
 * closed() is told before opened() of the newer. Any function may be called in any callback, also
 * what closes that connection or all.
 */
struct hf_pg_peers;
struct hf_pg_peer;

struct hf_pg_peer_ops {
    /* The handshake is done: we are connected to, or from, the host `name`, as authenticated. name:
     * as long as p. */
    void (*opened)(void *arg, struct hf_pg_peer *p, const char *name);
    void (*bytes)(void *arg, struct hf_pg_peer *p, struct hf_slice bytes);
    /* What waited to be sent is gone: there is room again. */
    void (*room)(void *arg, struct hf_pg_peer *p);
    /* It could not be made, or is lost; p is not valid after it. Of accepted ones only those that
     * were opened; who can't prove its name is logged here. why: for the log, until the return. */
    void (*closed)(void *arg, struct hf_pg_peer *p, const char *why);
};

/** host: our own name. key: copied. ops for accepted connections. listen: NULL: none. */
struct hf_pg_peers_options {
    struct hf_poll *poll;
    const struct hf_key *key;
    const char *host;
    const struct hf_addr *listen;
    const struct hf_pg_peer_ops *ops;
    void *arg;
};
/** 0 or -errno, -HF_ENAME (host), with a text in err. */
HF_MUST int hf_pg_peers_open(const struct hf_pg_peers_options *options, struct hf_err *err,
                             struct hf_pg_peers **ret_peers);
/** All its connections are closed, nothing is called. NULL is fine. */
void hf_pg_peers_close(struct hf_pg_peers *all);
/** Where it listens; 0: it does not. */
uint16_t hf_pg_peers_port(const struct hf_pg_peers *all);
/** Connect to the host of this name; opened() or closed() follow, not from within. -errno or
 * -HF_ENAME (our own, too) if that is known at once. */
HF_MUST int hf_pg_peer_connect(struct hf_pg_peers *all, const char *name, const struct hf_addr *to,
                               struct hf_pg_peer **ret_peer);
/** Send what can be sent: how much was taken (0 .. n; the rest after room()), or 0 before opened()
 * and on a lost connection (closed() follows). The more at once the better: a record has 16 KiB. */
size_t hf_pg_peer_send(struct hf_pg_peer *p, struct hf_slice bytes);
/** Close; closed() is not called. `flush`: what was taken still goes out, and the other side may
 * read it all, for at most 1 s. */
void hf_pg_peer_close(struct hf_pg_peer *p, bool flush);
/** false: an accepted connection. */
bool hf_pg_peer_is_ours(const struct hf_pg_peer *p);
