/* A buffered connection, plain or TLS: bytes in, bytes out, pressure; to a client or to a server.
 */
#pragma once

#include <stdbool.h>
#include <sys/uio.h>

#include "base/attr.h"
#include "base/buf.h"
#include "core/pg/session.h"
#include "os/addr.h"
#include "os/pgtls.h"
#include "os/pollset.h"

/*
 * What comes is received into one buffer for all (struct hf_pg_wire) and handed on at once; only
 * what is not consumed is kept, in a buffer that goes when it is empty. What is sent during that
 * call is gathered, as pointers into what came where it comes from there, and leaves with one
 * system call per connection at its end; only what the kernel does not take is kept.
 */
#define HF_PG_WIRE_RECV (64u << 10)
#define HF_PG_PRESSURE (64u << 10) /* bytes waiting to be sent, from which the peer is not read */
#define HF_PG_GATHERS 4
#define HF_PG_GATHER_PIECES 32
#define HF_PG_GATHER_COPIES (16u << 10)

struct hf_pg_link;

/* What is to be sent to one connection at the end of the step. */
struct hf_pg_gather {
    struct hf_pg_link *link; /* NULL: free */
    unsigned n;
    size_t n_copies;
    struct iovec piece[HF_PG_GATHER_PIECES];
    uint8_t copies[HF_PG_GATHER_COPIES];
};

/** What all connections share. */
struct hf_pg_wire {
    struct hf_poll *poll;        /* owned */
    struct hf_pg_memory *memory; /* borrowed: buffers are counted there */
    struct hf_slice stable;      /* pieces in here stay where they are until the gathers leave */
    uint64_t n_recv, n_send, n_recv_bytes, n_send_bytes;
    struct hf_pg_gather gather[HF_PG_GATHERS];
    uint8_t recv[HF_PG_WIRE_RECV];
    uint8_t plain[HF_PG_WIRE_RECV]; /* deciphered, or to be enciphered */
    uint8_t cipher[HF_PG_WIRE_RECV + 4096];
    size_t n_cipher;
};

HF_MUST int hf_pg_wire_create(struct hf_loop *loop, struct hf_pg_memory *memory,
                              struct hf_pg_wire **ret_wire);
void hf_pg_wire_destroy(struct hf_pg_wire *w);
/** Send what was gathered. Done at the end of each step by itself. */
void hf_pg_wire_flush(struct hf_pg_wire *w);

/* Only gone() may destroy the link (it runs at the end of a turn); the others leave that to a task.
 */
struct hf_pg_link_ops {
    /* All that came and was not consumed; returns how much is consumed now. */
    size_t (*bytes)(struct hf_pg_link *l, struct hf_slice bytes);
    /* After each step with bytes(). May be NULL. */
    void (*after)(struct hf_pg_link *l);
    /* connect(2) is done: 0 or -errno. */
    void (*opened)(struct hf_pg_link *l, int rc);
    /* The handshake is done: 0 (hf_pg_link_tls() tells more) or -HF_E*, why. */
    void (*tls)(struct hf_pg_link *l, int rc, const char *why);
    /* What waited to be sent has left, or is below HF_PG_PRESSURE again. */
    void (*room)(struct hf_pg_link *l);
    /* Closed or broken by the other side; nothing comes any more. Once. */
    void (*gone)(struct hf_pg_link *l, const char *why);
};

struct hf_pg_link {
    struct hf_poll_io io;
    int fd;                   /* owned */
    struct hf_poll_task task; /* tells gone */
    struct hf_pg_wire *wire;  /* borrowed */
    const struct hf_pg_link_ops *ops;
    struct hf_tls_stream *tls;   /* owned; NULL: plain */
    struct hf_pg_gather *gather; /* of the step under way */
    struct hf_buf in;            /* came, not consumed */
    uint8_t *out;                /* not sent: from out_off, n_out bytes */
    size_t out_off, n_out, out_room;
    size_t n_held, n_sealed;     /* of n_out, at its end: may not go yet; of these: have a batch */
    uint64_t n_received, n_sent; /* bytes, as they came, and as the kernel took them */
    bool connecting, handshake, paused, full, broken, told;
    bool hold;       /* what is sent waits for hf_pg_link_let() */
    bool twice;      /* another process holds the socket, too (linger.h) */
    bool patient;    /* the owner's: closed while paused, it is not gone before it was read */
    const char *why; /* broken: static */
};

/** Take over a connected socket, or one that connects. */
HF_MUST int hf_pg_link_init(struct hf_pg_link *l, struct hf_pg_wire *w, int fd, bool connecting,
                            const struct hf_pg_link_ops *ops);
/** Close and free; what was not sent is lost. Fine for a zeroed link. */
void hf_pg_link_fini(struct hf_pg_link *l);

/** Begin TLS. `input`: what came of it already (direct TLS). ops->tls() follows. */
HF_MUST int hf_pg_link_start_tls(struct hf_pg_link *l, struct hf_tls_context *context,
                                 const char *server_name, struct hf_slice input);

/** Send; copied unless it is within what bytes() was given. */
void hf_pg_link_send(struct hf_pg_link *l, struct hf_slice bytes);
/** Bytes that the kernel has not taken. */
static inline size_t hf_pg_link_waiting(const struct hf_pg_link *l)
{
    return l->n_out;
}
/**
 * Output commit (protect.h): from now on what is sent waits until it is let out. What was sent and
 * is not in a batch yet: hf_pg_link_unsealed(), borrowed until the next call; hf_pg_link_seal()
 * says how many bytes that are, and that they are in one. hf_pg_link_let(): so many bytes may go.
 */
void hf_pg_link_hold(struct hf_pg_link *l);
struct hf_slice hf_pg_link_unsealed(const struct hf_pg_link *l);
size_t hf_pg_link_seal(struct hf_pg_link *l);
void hf_pg_link_let(struct hf_pg_link *l, size_t n);
/** No more: all that waits may go. */
void hf_pg_link_release(struct hf_pg_link *l);
/** Bytes that may go and that the kernel has not taken. */
static inline size_t hf_pg_link_may_go(const struct hf_pg_link *l)
{
    return l->n_out - l->n_held;
}
/** Take what the kernel has received already into the link; it is offered in this turn, by a task.
 * Not from within bytes(). */
void hf_pg_link_drain(struct hf_pg_link *l);
/** Bytes that came before the link was: to be offered as if they came now (not counted). Bytes for
 * the socket that may go. */
void hf_pg_link_preload(struct hf_pg_link *l, struct hf_slice in, struct hf_slice out);
/** Do not read (the other side is slow), or do again. */
void hf_pg_link_pause(struct hf_pg_link *l, bool paused);
/** Offer what was not consumed once more. */
void hf_pg_link_again(struct hf_pg_link *l);
/** Tell gone() at the end of this turn, unless told. `why` is static. */
void hf_pg_link_break(struct hf_pg_link *l, const char *why);
/** Most bytes to hold that were not consumed; more is left in the socket. */
#define HF_PG_LINK_IN_MAX (HF_PG_WHOLE_MAX + HF_PG_WIRE_RECV)

/** Options of a TCP socket: no delay, keepalive, TCP_USER_TIMEOUT (0: the kernel's). */
void hf_pg_socket_options(int fd, int64_t user_timeout_ms);
