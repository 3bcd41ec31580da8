/* SIP's sockets of one worker, inside: what datagrams and streams share. */
#pragma once

#include <sys/socket.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "core/sip/frame.h"
#include "os/addr.h"
#include "sip/wire.h"

#define HF_SIP_BATCH 64 /* datagrams of a system call */
#define HF_SIP_FAILED_MAX 256

union hf_sip_pktinfo {
    uint8_t bytes[64];
    size_t align; /* of struct cmsghdr */
};

/* A listening socket. */
struct hf_sip_sock {
    struct hf_sip_wire *t;
    struct hf_poll_io io;
    uint8_t transport;
    struct hf_endpoint at;
    bool any; /* bound to all addresses: each datagram says at which it came */
    /* UDP: what is to be sent */
    unsigned n_out;
    struct mmsghdr *out; /* HF_SIP_BATCH of each; owned */
    struct iovec *iov;
    struct hf_addr *to;
    union hf_sip_pktinfo *info;
};

/* What is received at once, whichever the socket. */
struct hf_sip_udp_in {
    struct mmsghdr msg[HF_SIP_BATCH];
    struct iovec iov[HF_SIP_BATCH];
    struct hf_addr from[HF_SIP_BATCH];
    union hf_sip_pktinfo info[HF_SIP_BATCH];
    /* not a power of two: the beginnings would share their lines of the CPU's cache */
    uint8_t data[HF_SIP_BATCH][65536 + 576];
};

#define HF_SIP_CONN_STATE_LIST(X)                                                                  \
    X(CONNECTING, "connecting")                                                                    \
    X(HANDSHAKE, "handshake")                                                                      \
    X(OPEN, "open")                                                                                \
    X(CLOSING, "closing")                                                                          \
    X(ENDED, "ended")
enum hf_sip_conn_state {
#define HF_SIP_CONN_STATE_ENUM(id, name) HF_SIP_CONN_##id,
    HF_SIP_CONN_STATE_LIST(HF_SIP_CONN_STATE_ENUM)
#undef HF_SIP_CONN_STATE_ENUM
};

/* Connections by how long they may be silent; within a list in the order of their last word. */
enum hf_sip_idle {
    HF_SIP_IDLE_MAKING, /* connecting, or in the handshake that we began */
    HF_SIP_IDLE_NEW,    /* nothing whole has come over it */
    HF_SIP_IDLE_USED,
    HF_SIP_IDLE_KEPT, /* a binding's flow */
    HF_SIP_IDLE_N
};

/* By which connections are found for reuse; no padding in between is left as it was. */
struct hf_sip_peer_key {
    uint8_t addr[16];
    uint32_t scope;
    uint16_t port;
    uint8_t family, transport;
};

struct hf_sip_conn {
    struct hf_sip_wire *t;
    struct hf_poll_io io;
    struct hf_list idle;  /* on one of t->idle */
    struct hf_list dirty; /* there is something to be written, or it has ended */
    struct hf_list stalled;
    struct hf_sip_flow flow;
    struct hf_sip_peer_key key; /* in t->by_peer if by_peer */
    bool by_peer, opened, shut; /* shut: nothing more can come */
    uint8_t state, kind;        /* enum hf_sip_conn_state, enum hf_sip_idle */
    hf_time active, stalled_at;
    struct hf_tls_stream *tls; /* owned; NULL: TCP */
    struct hf_sip_framer framer;
    struct hf_buf in;   /* the beginning of a message */
    struct hf_buf wait; /* messages until the handshake is done (TLS) */
    struct hf_buf out;  /* bytes for the socket */
};

struct hf_sip_wire {
    struct hf_poll *poll;
    struct hf_sip_wire_conf conf;
    struct hf_sip_wire_events events;
    void *arg;
    struct hf_sip_sock *sock; /* owned; as conf.bind, in its order */
    size_t n_socks;
    struct hf_sip_udp_in *in; /* owned */
    uint8_t *arena;           /* owned: what datagrams are made of until they are sent */
    size_t arena_n;
    struct hf_map by_conn, by_peer;
    struct hf_list idle[HF_SIP_IDLE_N], dirty, stalled;
    uint64_t n_conns, last_conn;
    struct hf_poll_timer sweep;
    bool paused; /* nothing is accepted until the next sweep */
    uint8_t *raw, *plain;
    struct hf_sip_flow failed[HF_SIP_FAILED_MAX]; /* to be told */
    size_t n_failed;
    struct hf_sip_wire_counters c;
};

/* wire.c */
void hf_sip_tell_failed(struct hf_sip_wire *t, const struct hf_sip_flow *flow);

/* wire_stream.c */
HF_MUST int hf_sip_streams_init(struct hf_sip_wire *t);
void hf_sip_streams_fini(struct hf_sip_wire *t);
void hf_sip_stream_accept(struct hf_poll_io *io, unsigned ready);
void hf_sip_stream_send(struct hf_sip_wire *t, const struct hf_sip_flow *to,
                        struct hf_slice message);
/* false: there was nothing to do. */
bool hf_sip_streams_flush(struct hf_sip_wire *t);
