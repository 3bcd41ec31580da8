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
 * same turn. No heartbeats, no reconnecting: that is the core's.
 */
struct hf_pg_peers;
struct hf_pg_peer;

struct hf_pg_peer_ops {
    /* The handshake is done: we are connected to, or from, the host `name`, as authenticated. */
    void (*opened)(void *arg, struct hf_pg_peer *p, const char *name);
    void (*bytes)(void *arg, struct hf_pg_peer *p, struct hf_slice bytes);
    /* What waited to be sent is gone, or there is room again. */
    void (*room)(void *arg, struct hf_pg_peer *p);
    /* It could not be made, or is lost; p is not valid any more. why: for the log, static or until
     * the return. */
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
HF_MUST int hf_pg_peers_open(const struct hf_pg_peers_options *options, struct hf_err *err,
                             struct hf_pg_peers **ret_peers);
/** All its connections are closed, nothing is called. NULL is fine. */
void hf_pg_peers_close(struct hf_pg_peers *all);
/** Connect to the host of this name; opened() or closed() follow, not from within. -errno if that
 * is known at once. */
HF_MUST int hf_pg_peer_connect(struct hf_pg_peers *all, const char *name, const struct hf_addr *to,
                               struct hf_pg_peer **ret_peer);
/** Send what can be sent: how much was taken (0 .. n; the rest after room()), or 0 on a lost
 * connection (closed() follows). */
size_t hf_pg_peer_send(struct hf_pg_peer *p, struct hf_slice bytes);
/** Close; closed() is not called. `flush`: first what was taken and not sent yet, for at most 1 s.
 */
void hf_pg_peer_close(struct hf_pg_peer *p, bool flush);
/** false: an accepted connection. */
bool hf_pg_peer_is_ours(const struct hf_pg_peer *p);
