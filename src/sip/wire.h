/* SIP's sockets of one worker: UDP in batches, TCP and TLS connections. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "core/sip/flow.h"
#include "core/sip/message.h"
#include "os/pgtls.h"
#include "os/pollset.h"

/*
 * Each worker has a loop in a thread of its own, with a socket for each listening address
 * (SO_REUSEPORT): recvmmsg() of up to 64 datagrams, their answers collected and sent by sendmmsg()
 * at the end of the turn. Streams: framed by core/sip/frame.h; double-CRLF keep-alives answered
 * (RFC 5626 4.4.1), STUN not; what is written in a turn goes out by one call.
 *
 *   opened:   CONNECTING --> (TLS: HANDSHAKE -->) OPEN --> CLOSING (when all is written) --> ended
 *   accepted:                (TLS: HANDSHAKE -->) OPEN --> ...
 *
 * A connection is found by its number, or by (transport, peer): the latter those that we opened,
 * and those of TLS whose client has shown a certificate that we trust (RFC 5923). It is opened when
 * there is none. It is closed
 *   - when nothing whole has come for `hello` after the accept,
 *   - when nothing has come for `idle`, or, with a binding's flow (hf_sip_wire_keep()),
 *     `idle_kept`,
 *   - when its output stands for `stall`, not read or not acknowledged, or has more than
 *     out_max bytes,
 *   - after a fault that leaves its framing in doubt,
 *   - to make room for another one: who has said nothing yet goes first, then who is idle longest;
 *     who has a binding's flow never does.
 */
struct hf_sip_wire;

/** Where to listen. */
struct hf_sip_place {
    uint8_t transport; /* enum hf_sip_transport: UDP, TCP, TLS */
    struct hf_endpoint at;
    bool elsewhere; /* the address may be on another host now (a service address) */
};

/** Options; 0 is the default in brackets. Copied; the TLS contexts are borrowed. */
struct hf_sip_wire_conf {
    const struct hf_sip_place *bind;
    size_t n_binds;
    uint8_t worker;
    struct hf_tls_context *tls_server, *tls_client; /* NULL: none */
    size_t conns_max;                               /* [20000] of this worker */
    size_t out_max;                                 /* [262144] bytes that one may leave unread */
    hf_time connect, hello, idle, idle_kept, stall; /* [10 s, 10 s, 15 min, 2 h 5 min, 30 s] */
    size_t receive_buffer;                          /* [4 MiB] of a UDP socket */
};

/** All called within a turn of the poll set. */
struct hf_sip_wire_events {
    /** A message; a datagram, or one cut off a stream. fault: what the framing found (a stream
     * only); text has no body then. Borrowed for the call. false: close the stream after what is
     * to be sent. */
    bool (*message)(void *arg, struct hf_slice text, enum hf_sip_fault fault,
                    const struct hf_sip_flow *from);
    /** A connection ended, or could not be made; conn is its number. Or a datagram could not be
     * sent (conn 0). Also for a stream's number that is not known. */
    void (*closed)(void *arg, const struct hf_sip_flow *flow);
    /** The name that a TLS server at this address is to have in its certificate; "": its address.
     * Borrowed until the next call. NULL: always the address. */
    const char *(*server_name)(void *arg, const struct hf_endpoint *peer);
};

/** Binds. -errno with a text that names the address. */
HF_MUST int hf_sip_wire_open(struct hf_poll *poll, const struct hf_sip_wire_conf *conf,
                             const struct hf_sip_wire_events *events, void *arg, struct hf_err *err,
                             struct hf_sip_wire **ret_wire);
/** closed() is not called. */
void hf_sip_wire_close(struct hf_sip_wire *t);

/** The address of the i-th of conf->bind, with its port. */
struct hf_endpoint hf_sip_wire_at(const struct hf_sip_wire *t, size_t i);

/** Send: collected until hf_sip_wire_flush(). UDP from the socket of to->local; streams over
 * to->conn (which must be this worker's, or 0: one to to->peer, opened if need be). What can't be
 * sent is told by closed(), not from within. */
void hf_sip_wire_send(struct hf_sip_wire *t, const struct hf_sip_flow *to, struct hf_slice message);
/** Which worker's a connection is. */
static inline unsigned hf_sip_conn_worker(uint64_t conn)
{
    return (unsigned)(conn >> 56);
}
/** A binding was registered over this connection: it is kept for longer. */
void hf_sip_wire_keep(struct hf_sip_wire *t, uint64_t conn);
/** Connections that begin from now on are made with these (borrowed; NULL: none); others go on as
 * they are. */
void hf_sip_wire_tls(struct hf_sip_wire *t, struct hf_tls_context *server,
                     struct hf_tls_context *client);
/** Write what was collected. At the end of each turn: from the `after` of the poll set. */
void hf_sip_wire_flush(struct hf_sip_wire *t);
/** Which worker's socket a datagram comes to is told by this program (steer.h) from now on: for all
 * workers, whose sockets are bound in the order of their numbers. -errno with text. */
HF_MUST int hf_sip_wire_steer(struct hf_sip_wire *t, int program, struct hf_err *err);
/** How full the receive buffers are, at most: 1/1000. */
unsigned hf_sip_wire_queue(struct hf_sip_wire *t);

#define HF_SIP_WIRE_COUNTER_LIST(X)                                                                \
    X(udp_in, "datagrams received")                                                                \
    X(udp_out, "datagrams sent")                                                                   \
    X(udp_batches, "batches received")                                                             \
    X(udp_keepalives, "datagrams that are no messages: keep-alives, STUN")                         \
    X(udp_dropped, "datagrams not sent for want of room")                                          \
    X(udp_unreachable, "datagrams that the kernel could not send")                                 \
    X(stream_in, "messages received over connections")                                             \
    X(stream_out, "messages sent over connections")                                                \
    X(pings, "keep-alives answered")                                                               \
    X(accepted, "connections accepted")                                                            \
    X(opened, "connections opened")                                                                \
    X(connect_failed, "connections that could not be opened")                                      \
    X(tls_failed, "TLS handshakes that failed")                                                    \
    X(closed, "connections closed")                                                                \
    X(closed_idle, "... because nothing came")                                                     \
    X(closed_slow, "... because their output stood or was too much")                               \
    X(closed_fault, "... after a fault of their framing")                                          \
    X(closed_room, "... to make room")                                                             \
    X(refused_room, "connections refused for want of room")
struct hf_sip_wire_counters {
#define HF_SIP_WIRE_COUNTER_FIELD(name, text) uint64_t name;
    HF_SIP_WIRE_COUNTER_LIST(HF_SIP_WIRE_COUNTER_FIELD)
#undef HF_SIP_WIRE_COUNTER_FIELD
    uint64_t connections, kept; /* now */
};
const struct hf_sip_wire_counters *hf_sip_wire_counters(const struct hf_sip_wire *t);
