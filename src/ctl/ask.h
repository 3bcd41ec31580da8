/* Questions to holdfastd with a time limit, and the words for what may go wrong. */
#pragma once

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "lib/conn.h"

/* Exit codes of the command (holdfast(1)). */
enum hf_exit {
    HF_EXIT_OK = 0,
    HF_EXIT_FAILED = 1,
    HF_EXIT_USAGE = 2,
    HF_EXIT_NO_ANSWER = 3,
};

struct hf_ask {
    const char *path; /* borrowed: the socket */
    int timeout_ms;   /* for one call */
    struct hf_conn conn;
    uint32_t seq;
};

/** The exit code for a result of the functions below. */
enum hf_exit hf_ask_exit(int rc);

/** Say in err what rc (of a connection) means for the socket at path, and what to do. */
void hf_ask_explain(int rc, const char *path, int timeout_ms, struct hf_err *err);

/**
 * Connect and exchange HELLO. path as hf_conn_path(), borrowed while a is in use. On failure err
 * has a sentence with the remedy, and nothing is left to close.
 */
HF_MUST int hf_ask_open(struct hf_ask *a, const char *path, int timeout_ms, struct hf_err *err);
void hf_ask_close(struct hf_ask *a);

/** Wait for a message, at most timeout_ms (-1: for ever, or until a signal: -EINTR). */
HF_MUST int hf_ask_receive(struct hf_ask *a, int timeout_ms, struct hf_ctl_msg *ret_msg,
                           struct hf_err *err);

/**
 * A request and all of its answer within the time limit: TEXT is appended to text (may be NULL),
 * RESULT's code is returned, its text is in err.
 */
HF_MUST int hf_ask(struct hf_ask *a, struct hf_ctl_msg *m, struct hf_buf *text, struct hf_err *err);

/** hf_ask() with QUERY what(argument). */
HF_MUST int hf_ask_query(struct hf_ask *a, const char *what, const char *argument,
                         struct hf_buf *text, struct hf_err *err);
