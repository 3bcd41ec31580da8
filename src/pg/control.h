/* The control socket: what the OCF agent `holdfast:pg` asks of a running holdfast-pg. */
#pragma once

#include <stdbool.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"

/*
 * A Unix stream socket, mode 0600. One request per connection, in lines:
 *
 *     ACTION                          start, stop, monitor, promote, open, demote, mirror-source,
 * mirror-target, epoch NUMBER                    mirror-state, prepare-promote, prepare-demote:
 * OCF's and agents.md's mirrors TEXT                    HOLDFAST_EPOCH, HOLDFAST_MIRRORS,
 * HOLDFAST_SOURCE, HOLDFAST_RESOURCE; those that are set source TEXT resource TEXT (an empty line)
 *
 * and the answer: lines for the agent's stdout, then "= CODE REASON" (an OCF exit code). A request
 * may be answered late; its connection may close before, then nobody wants the answer. At most
 * HF_PG_CONTROL_MAX bytes and HF_PG_CONTROLS_MAX connections, HF_PG_CONTROL_TIME to send the
 * request.
 */
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
    const char *mirrors, *source, *resource;
};

/** fn: a request came; it answers, now or later, by hf_pg_control_done(). closed: the agent went
 * away before; the request is not valid any more (not called after done). A stale socket file is
 * replaced, one with a listener is an error. */
HF_MUST int hf_pg_controls_open(struct hf_pg *pg, const char *path,
                                void (*fn)(void *arg, struct hf_pg_control *c,
                                           const struct hf_pg_control_ask *ask),
                                void (*closed)(void *arg, struct hf_pg_control *c), void *arg,
                                struct hf_err *err, struct hf_pg_controls **ret_controls);
void hf_pg_controls_close(struct hf_pg_controls *all);

/** A line for the agent's stdout; sent at once. */
void hf_pg_control_line(struct hf_pg_control *c, const char *fmt, ...) HF_PRINTF(2, 3);
/** The answer; c is not valid any more. code: OCF's; reason: "" or one line. */
void hf_pg_control_done(struct hf_pg_control *c, int code, const char *reason);
/** prepare-*: the agent's next line of stdin was sent on ("promote", "open", "demote"). NULL until
 * it comes: then fn is called again with the same c and ask->action = that line, ask->epoch etc. as
 * before. */

/** `holdfast-pg --agent ACTION`: the other side. Sends the action and the environment's variables
 * to the socket at path, copies answer lines to stdout as they come and stdin's lines to it,
 * `ocf-exit-reason:` to stderr. Returns the exit code; 7 (not running) for monitor and stop (0 for
 * stop), 1 otherwise, if there is nobody at the socket. */
int hf_pg_control_agent(const char *path, const char *action);
