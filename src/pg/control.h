/* The control socket: what the OCF agent `holdfast:pg` asks of a running holdfast-pg. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/hftime.h"
#include "os/addr.h"

/* clang-format off */
/*
 * A Unix stream socket, mode 0600. One request per connection, in lines:
 *
 *     ACTION             start, stop, monitor, promote, open, demote, mirror-source, mirror-target,
 *                        mirror-state, prepare-promote, prepare-demote: OCF's and agents.md's
 *     epoch NUMBER       HOLDFAST_EPOCH
 *     mirrors TEXT       HOLDFAST_MIRRORS
 *     source TEXT        HOLDFAST_SOURCE
 *     resource TEXT      HOLDFAST_RESOURCE
 *     group TEXT         HOLDFAST_GROUP
 *     silent yes         HOLDFAST_SILENT
 *     fence none         HOLDFAST_FENCE; those that are set, in any order, others are ignored
 *     (an empty line)
 *
 * and the answer: lines for the agent's stdout, none of which begins with "=", then
 * "= CODE REASON" (an OCF exit code), and the connection is closed. A request may be answered late;
 * its connection may close before, then nobody wants the answer. At most HF_PG_CONTROL_MAX bytes
 * and HF_PG_CONTROLS_MAX connections, HF_PG_CONTROL_TIME to send the request. What is no request is
 * answered with code 2, and one too many with 1. To connect and say nothing is the action "access".
 */
/* clang-format on */
#define HF_PG_CONTROL_PATH "/run/holdfast-pg/control"
#define HF_PG_CONTROL_MAX 8192
#define HF_PG_CONTROLS_MAX 16
#define HF_PG_CONTROL_TIME HF_S(5)

struct hf_pg;
struct hf_pg_control;
struct hf_pg_controls;

/** A request; texts are "" when they were not given, and good until hf_pg_control_done(). */
struct hf_pg_control_ask {
    const char *action;
    uint64_t epoch;
    const char *mirrors, *source, *resource, *group;
    bool silent;
    bool unfenced; /* fence none */
};

/** fn: a request came; it answers, now or later, by hf_pg_control_done(). closed: the agent went
 * away before; the request is not valid any more (not called after done). A stale socket file is
 * replaced, one with a listener is an error. The path's directory is made if it is missing. */
HF_MUST int hf_pg_controls_open(struct hf_pg *pg, const char *path,
                                void (*fn)(void *arg, struct hf_pg_control *c,
                                           const struct hf_pg_control_ask *ask),
                                void (*closed)(void *arg, struct hf_pg_control *c), void *arg,
                                struct hf_err *err, struct hf_pg_controls **ret_controls);
/** All its connections are closed unanswered, nothing is called. Not from within fn or closed. NULL
 * is fine. */
void hf_pg_controls_close(struct hf_pg_controls *all);

/** A line for the agent's stdout; sent at once. An agent that does not read is closed(). */
void hf_pg_control_line(struct hf_pg_control *c, const char *fmt, ...) HF_PRINTF(2, 3);
/** The answer; c is not valid any more. code: OCF's; reason: "" or one line. */
void hf_pg_control_done(struct hf_pg_control *c, int code, const char *reason);
/* prepare-*: the agent's next line of stdin is sent on ("promote", "open", "demote"). When it comes
 * fn is called again with the same c and ask->action = that line, ask->epoch etc. as before. */

/** Note beside the socket that the address is here; interface NULL: it is not any more. So `stop`
 * can take it away where no process is left to do it. 0 or -errno. */
HF_MUST int hf_pg_control_note(const char *path, const char *interface,
                               const struct hf_addr *address);

/** `holdfast-pg-agent ACTION`: the other side. Sends the action and the environment's variables
 * to the socket at path, copies answer lines to stdout as they come and, for prepare-*, stdin's
 * lines to it, `ocf-exit-reason:` to stderr. Returns the exit code; if there is nobody at the
 * socket, or no longer: 7 (not running) for monitor and mirror-state, 1 otherwise; 0 for stop,
 * after what hf_pg_control_note() tells of was taken away. `access` only looks whether somebody is
 * there.
 */
int hf_pg_control_agent(const char *path, const char *action);
