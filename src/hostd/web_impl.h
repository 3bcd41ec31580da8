/* Inside the public HTTP port: its streams, and what the files of web*.c share. */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "hostd/group_events.h"
#include "hostd/web.h"

#define HF_WEB_PIECE_LEN (64u << 10)    /* of a stream; one entry more may be in it */
#define HF_WEB_PIECE_LEN_MAX (2u << 20) /* an overview is one entry */
#define HF_WEB_KEEP_ALIVE HF_S(15)
#define HF_WEB_STALL HF_S(60) /* a piece that has not left by then ends the stream */

/*
 * An answer that leaves in pieces, each made when the one before has left. On web->streams until
 * its end or its client's.
 *
 *   tree, sd:          fill() makes pieces from `walk` until it returns false
 *   events, overview:  tell() appends what is new. Without anything the stream sleeps until
 *                      `timer`, which a change or the next keep-alive sets
 *
 * While a piece is `unsent` the timer is for a reader that has stopped reading.
 */
struct hf_web_stream {
    struct hf_list node;
    struct hf_web *web;      /* borrowed */
    struct hf_http_req *req; /* borrowed while the stream lives */
    struct hf_timer *timer;  /* owned */
    struct hf_buf buf;
    bool unsent; /* a piece is on its way */
    bool (*fill)(struct hf_web_stream *s);
    struct hf_tree_walk *walk; /* owned; tree, sd */
    bool begun;                /* sd: the opening bracket and a first element are written */
    void (*tell)(struct hf_web_stream *s);
    hf_time keep_at;               /* when silence has lasted too long */
    struct hf_follow *follow;      /* owned; events */
    struct hf_group_teller groups; /* events */
    uint64_t note, sample, told;   /* overview: the next of the timeline; its version */
};

struct hf_web {
    struct hf_hostd *h; /* borrowed */
    struct hf_http_server *server;
    struct hf_list streams;
    unsigned n_followers; /* streams with tell() */
    struct hf_group_events *groups;
    struct hf_web_overview *overview; /* owned */
};

/* ---- web.c ---- */

/** A stream of Server-Sent Events. NULL: out of memory, or there are enough: answered. */
HF_MUST struct hf_web_stream *hf_web_follower_create(struct hf_web *web, struct hf_http_req *req,
                                                     void (*tell)(struct hf_web_stream *s));
/** It is complete: begin the answer, and tell. s may be gone afterwards. */
void hf_web_follower_begin(struct hf_web_stream *s);
/** There is something to tell; also from within steps. */
void hf_web_follower_wake(void *stream);

/** Append text on one line: between JSON's tokens a line's end is a space, and within them it
 * can't be. */
void hf_web_add_line(struct hf_buf *buf, struct hf_slice text);

/* ---- web_overview.c ---- */

HF_MUST int hf_web_overview_open(struct hf_web *web);
/** Streams are gone. */
void hf_web_overview_close(struct hf_web *web);
/** Something has changed: whoever looks on is told soon. Also from within steps. */
void hf_web_overview_touch(struct hf_web *web);
/** /v1/overview/events. */
void hf_web_overview_follow(struct hf_web *web, struct hf_http_req *req);

/* ---- web_files.c ---- */

/** Answer with a file of the dashboard; false: there is none of this path. */
bool hf_web_file_get(struct hf_http_req *req, const char *path);
