/* Fence agents (fence-agents): run one action of one, or fence a host by levels of devices. */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/slice.h"
#include "os/loop.h"

#define HF_FENCE_PATH "/usr/sbin" /* where Debian's fence-agents are */

/** What a device is asked to do: id, name. */
#define HF_FENCE_ACTION_LIST(X)                                                                    \
    X(OFF, "off")                                                                                  \
    X(ON, "on")                                                                                    \
    X(REBOOT, "reboot")                                                                            \
    X(STATUS, "status")                                                                            \
    X(MONITOR, "monitor")                                                                          \
    X(LIST, "list")

enum hf_fence_action {
#define HF_FENCE_ACTION_ENUM(id, name) HF_FENCE_##id,
    HF_FENCE_ACTION_LIST(HF_FENCE_ACTION_ENUM)
#undef HF_FENCE_ACTION_ENUM
};

/** "off"; static. */
const char *hf_fence_action_name(enum hf_fence_action action);

/**
 * Find the agent `name` ("fence_ipmilan", or an absolute path) in the first directory of the path
 * list `dirs` (NULL or "": HF_FENCE_PATH) that has it as an executable file. A name is 1 to 63
 * letters, digits, '-', '_' and '.', not beginning with '.'. -HF_ENAME, -HF_ENOTFOUND, -EACCES,
 * -ENAMETOOLONG; err tells.
 */
HF_MUST int hf_fence_find(const char *dirs, const char *name, char ret_path[static PATH_MAX],
                          struct hf_err *err);

/* ---- one agent ---- */

struct hf_fence_run;

/* An option of an agent; a value is one line. */
struct hf_fence_pair {
    const char *name, *value;
};

/* One action; borrowed until hf_fence_start() returns. Options go to the agent's stdin only: not
 * into its arguments, its environment or our logs. */
struct hf_fence_opt {
    const char *path; /* of the agent */
    enum hf_fence_action action;
    const char *plug; /* which outlet, blade, virtual machine: option `plug`; NULL: none */
    const struct hf_fence_pair *options; /* `ip`, `username`, ...; not `action` nor `plug` */
    size_t n_options;
    hf_time timeout; /* then SIGTERM, and SIGKILL 2 s later; 0: none */
};

enum hf_fence_power { HF_FENCE_POWER_UNKNOWN, HF_FENCE_POWER_ON, HF_FENCE_POWER_OFF };

/* How it ended; all of it borrowed for the call. */
struct hf_fence_result {
    int rc;     /* 0: done; -HF_ETIMEOUT; -errno: cannot be started; -HF_EPROTO: said it failed */
    int status; /* its exit code; -1: none */
    enum hf_fence_power power; /* answer of `status`, for which off (exit 2) is rc 0, too */
    struct hf_slice out;       /* stdout: of `list`, lines `PLUG,ALIAS` */
    /* What a person reads of a failure, one printable line: "timed out after 20 s", the agent's
     * last line of stderr (or stdout), ...; "" if done. Values of options whose name tells of a
     * secret (passw, secret, token, key) are replaced by "***". */
    const char *text;
    hf_time duration;
};

/** Called once, from the loop, never from within the start. */
typedef void hf_fence_done(void *arg, const struct hf_fence_result *res);

/** Start an action. -HF_EVALUE: an option with a newline in it, or over HF_FENCE_INPUT_MAX in all;
 * -ENOMEM; err (may be NULL) tells. */
HF_MUST int hf_fence_start(struct hf_loop *loop, const struct hf_fence_opt *opt, hf_fence_done *fn,
                           void *arg, struct hf_err *err, struct hf_fence_run **ret_run);
/** Kill it now; fn is not called. NULL is fine; not from fn or after it. */
void hf_fence_kill(struct hf_fence_run *run);

/* ---- a host, by levels ---- */

struct hf_fence_host_run;

/* That a device can fence a host: as an entry of Pacemaker's topology and of pcmk_host_map. */
struct hf_fence_target {
    const char *host; /* "*": every host */
    const char *plug; /* what the device calls it; NULL: the host's name */
    unsigned level;   /* the lowest is tried first */
};

struct hf_fence_device {
    const char *name; /* for people */
    const char *path; /* of its agent */
    const struct hf_fence_pair *options;
    size_t n_options;
    const struct hf_fence_target *targets;
    size_t n_targets;
    hf_time timeout; /* of one action of it; 0: the sequence's device_timeout */
};

/* A sequence; borrowed until hf_fence_host() returns: what it needs it copies. */
struct hf_fence_host_opt {
    const struct hf_fence_device *devices;
    size_t n_devices;
    const char *host;
    enum hf_fence_action action; /* OFF, ON or REBOOT */
    hf_time device_timeout;      /* of each device that has none of its own; 0: none */
    hf_time total_timeout;       /* of it all; 0: none */
};

/* How it ended; borrowed for the call. */
struct hf_fence_host_result {
    int rc; /* 0: fenced; -HF_ENOTFOUND: no device can; -HF_ETIMEOUT: the total time is over;
               -HF_EPROTO: a device of each level failed */
    unsigned level; /* rc 0: the level that did it */
    /* "off by pdu (level 2); failed: level 1: ipmi1: timed out after 20 s", or of a failure the
     * devices in order: "level 1: ipmi1: timed out after 20 s; level 2: pdu: Unable to connect". */
    const char *text;
    hf_time duration;
};

typedef void hf_fence_host_done(void *arg, const struct hf_fence_host_result *res);

/**
 * Fence a host: the levels in ascending order; the devices of one level one after another in the
 * order of the array, all of which must succeed; the first that fails ends its level. A level with
 * several devices reboots by `off` of all and then `on` of all, as in Pacemaker: once all are off
 * the host is fenced, and an `on` that fails is told in the text only. An entry for the host itself
 * replaces the same device's entries for "*". Nothing is verified by `status`: fence agents do so
 * themselves. -HF_EVALUE as in hf_fence_start(), or another action; -ENOMEM; err tells.
 */
HF_MUST int hf_fence_host(struct hf_loop *loop, const struct hf_fence_host_opt *opt,
                          hf_fence_host_done *fn, void *arg, struct hf_err *err,
                          struct hf_fence_host_run **ret_run);
/** Stop it: the agent that runs is killed, fn is not called. NULL is fine; not from fn or after it.
 */
void hf_fence_host_kill(struct hf_fence_host_run *run);
