/* One space of error codes: negative errno for the system, -HF_E* (<= -1000) for our own. */
#pragma once

#include "base/attr.h"

/* Name, number and what a person reads. The text completes "cannot ...: ". */
#define HF_ERR_LIST(X)                                                                             \
    X(HF_EMALF, 1000, "malformed message")                                                         \
    X(HF_ETRUNC, 1001, "message ends too early")                                                   \
    X(HF_ETRAIL, 1002, "message has bytes left over")                                              \
    X(HF_EVERSION, 1003, "of a version that is not understood here")                               \
    X(HF_EAUTH, 1004, "not authenticated by the cluster key")                                      \
    X(HF_EREPLAY, 1005, "replayed or out of date")                                                 \
    X(HF_EOWNER, 1006, "belongs to another owner")                                                 \
    X(HF_EFULL, 1007, "a limit is reached")                                                        \
    X(HF_ERATE, 1008, "too many requests in a short time")                                         \
    X(HF_ENAME, 1009, "not a valid name")                                                          \
    X(HF_EVALUE, 1010, "not a valid value")                                                        \
    X(HF_EHELD, 1011, "held by another publisher")                                                 \
    X(HF_ENOTFOUND, 1012, "no such thing")                                                         \
    X(HF_ETIMEOUT, 1013, "no answer in time")                                                      \
    X(HF_ECLOSED, 1014, "the other side closed the connection")                                    \
    X(HF_ENOTREADY, 1015, "not ready yet")                                                         \
    X(HF_ECONFIG, 1016, "the configuration is not valid")                                          \
    X(HF_EKEY, 1017, "the cluster key is not usable")                                              \
    X(HF_EHTTP, 1018, "the peer's answer was refused")                                             \
    X(HF_EPROTO, 1019, "the peer does not follow the protocol")                                    \
    X(HF_EQUORUM, 1020, "no quorum")                                                               \
    X(HF_ELEFT, 1021, "not, or no longer, a member")

enum hf_error {
#define HF_ERR_ENUM(name, num, text) name = (num),
    HF_ERR_LIST(HF_ERR_ENUM)
#undef HF_ERR_ENUM
};

/** Text of a code (0, negative errno or -HF_E*); static, never NULL. */
const char *hf_strerror(int code);

/** Name of one of our codes ("HF_EMALF"), or NULL if it is none of ours. */
const char *hf_errname(int code);

/** An error with context, where a person reads it: configuration, start-up, control. */
struct hf_err {
    int code;
    char text[256];
};

/** Fill e (may be NULL) with code and text; returns code, so that one can return it. */
int hf_err_set(struct hf_err *e, int code, const char *fmt, ...) HF_PRINTF(3, 4);
