/* One connection to holdfastd's control socket: bytes in, frames out, and the reverse; no policy.
 */
#pragma once

#include "base/attr.h"
#include "base/buf.h"
#include "codec/ctl_v1.h"

struct hf_conn {
    int fd;            /* owned, non-blocking; -1: none */
    struct hf_buf in;  /* read, from in_used on not yet decoded */
    struct hf_buf out; /* from out_used on not yet written */
    size_t in_used, out_used;
};

/** The socket to use: path, or if NULL $HOLDFAST_SOCKET, or the default. Static or borrowed. */
const char *hf_conn_path(const char *path);

/**
 * Connect to the Unix socket at path. 0 or -errno: -ENOENT (no socket), -EACCES, -ECONNREFUSED
 * (nobody listens), -EAGAIN (its queue is full), -ENAMETOOLONG.
 */
HF_MUST int hf_conn_dial(const char *path, int *ret_fd);

/** Take over fd (connected, non-blocking), with empty buffers. */
void hf_conn_init(struct hf_conn *c, int fd);
/** Close and free; c is without a connection. */
void hf_conn_fini(struct hf_conn *c);

/** Append a message to what is to be written. 0, -HF_EFULL (too much is unsent) or -ENOMEM. */
HF_MUST int hf_conn_send(struct hf_conn *c, const struct hf_ctl_msg *m);

/** Is there something to write? */
static inline bool hf_conn_unsent(const struct hf_conn *c)
{
    return c->out_used < c->out.n;
}

/** Write what the socket takes. 0 or -errno. */
HF_MUST int hf_conn_flush(struct hf_conn *c);

/** Read once what is there. 0 (also if nothing is), -HF_ECLOSED, -ENOMEM or -errno. Slices of
 * earlier messages are gone. */
HF_MUST int hf_conn_fill(struct hf_conn *c);

/** The next whole message, its slices borrowed until the next fill: 1, 0 if there is none, or
 * what hf_ctl_decode() says. */
HF_MUST int hf_conn_next(struct hf_conn *c, struct hf_ctl_msg *ret_msg);
