/* HTTP/1.1 over libevent's evhttp: a small server and a bounded client, plain or over our TLS. */
#pragma once

#include <stdbool.h>

#include "base/slice.h"
#include "os/addr.h"
#include "os/loop.h"
#include "os/tls.h"

/* ---- server ---- */
struct hf_http_server;
struct hf_http_req; /* a request being answered; owned by the server */

struct hf_http_server_opt {
    struct hf_addr bind;
    struct hf_tls *tls; /* borrowed while the server lives; NULL: plain */
    int clients_max;    /* connections; more are closed at once and counted */
    int idle_timeout_s; /* of a connection, also of one that never sends a request */
    size_t backlog_max; /* bytes a slow reader of a stream may leave unsent before it is closed */
    const char *fields; /* static; header lines of every answer, each with its CRLF; NULL: none */
};

/** Called for every GET and HEAD; other methods get 405. Must reply now or later, exactly once. */
typedef void hf_http_handler(void *arg, struct hf_http_req *req);

HF_MUST int hf_http_server_open(struct hf_loop *loop, const struct hf_http_server_opt *opt,
                                hf_http_handler *fn, void *arg, struct hf_err *err,
                                struct hf_http_server **ret_server);
/** Ends open requests, too: on_close of streams is called, no r is valid afterwards. */
void hf_http_server_close(struct hf_http_server *s);
uint16_t hf_http_server_port(const struct hf_http_server *s);

struct hf_http_server_counters {
    uint64_t requests, refused_connections, bad_requests, slow_readers_closed, bytes_sent;
    uint64_t tls_failures; /* handshakes that did not authenticate */
    uint64_t connections;  /* open now */
};
const struct hf_http_server_counters *hf_http_server_counters(const struct hf_http_server *s);

/** Path, percent-decoded, of the request ("/v1/tree"). Borrowed until replied. */
const char *hf_http_req_path(const struct hf_http_req *r);
/** Value of a query parameter, percent-decoded, or NULL. Borrowed until replied. */
const char *hf_http_req_query(const struct hf_http_req *r, const char *name);
/** Authenticated host name of a TLS peer, or "". */
const char *hf_http_req_peer(const struct hf_http_req *r);
/** The other side's address, for logs. */
const char *hf_http_req_from(const struct hf_http_req *r);

/** Answer whole. `type` is a media type; content is copied. */
void hf_http_reply(struct hf_http_req *r, int status, const char *type, struct hf_slice body);
/** Answer with {"error": text} and the status. */
void hf_http_reply_error(struct hf_http_req *r, int status, const char *fmt, ...) HF_PRINTF(3, 4);

/**
 * Answer as a stream (chunked). on_room(arg) is called whenever what was sent has left and there is
 * room for more; on_close(arg) once when the client is gone or too slow: r is then invalid. Either
 * may be NULL.
 */
void hf_http_stream_begin(struct hf_http_req *r, int status, const char *type,
                          void (*on_room)(void *arg), void (*on_close)(void *arg), void *arg);
/** Send a piece (copied). 0, or -HF_EFULL: too slow, the stream is being closed (on_close follows).
 */
HF_MUST int hf_http_stream_send(struct hf_http_req *r, struct hf_slice piece);
/** End well; r is invalid afterwards, on_close is not called. */
void hf_http_stream_end(struct hf_http_req *r);

/* ---- client ---- */
struct hf_http_get;

struct hf_http_get_opt {
    struct hf_addr to;
    struct hf_tls *tls; /* borrowed; NULL: plain */
    const char *server; /* host name to authenticate as (tls) and for the Host header */
    const char *target; /* path and query, already encoded */
    size_t body_max;    /* a longer answer is refused: -HF_EFULL */
    hf_time deadline;   /* monotonic; the whole exchange: -HF_ETIMEOUT */
};

/**
 * rc 0: complete answer with `status` and body (borrowed for the call). Otherwise -HF_ETIMEOUT,
 * -HF_EFULL, -HF_EAUTH (the peer does not have the key, or is not `server`), -HF_EHTTP (not HTTP,
 * wrong length), -errno (not reached). Called exactly once, never from within hf_http_get_start(),
 * and not after hf_http_get_cancel().
 */
typedef void hf_http_done(void *arg, int rc, int status, struct hf_slice body);

/** 0; -HF_ENAME (not a name, or our own), -EINVAL (target), -errno: then fn is never called. */
HF_MUST int hf_http_get_start(struct hf_loop *loop, const struct hf_http_get_opt *opt,
                              hf_http_done *fn, void *arg, struct hf_http_get **ret_get);
/** Stop; fn is not called. The handle is gone also after fn was called. */
void hf_http_get_cancel(struct hf_http_get *g);

/** Append name=value, percent-encoded, to a target being built in buf ('?' or '&' as needed). */
struct hf_buf;
void hf_http_query_add(struct hf_buf *b, const char *name, struct hf_slice value);
