/* OCF resource agents (OCF 1.1): find one, read its meta-data, run one action of it. */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/slice.h"
#include "os/loop.h"

#define HF_OCF_ROOT                                                                                \
    "/usr/lib/ocf" /* where Debian's resource-agents are, and their shell library                  \
                    */

/* What an action can end with: name, number, what a person reads. */
#define HF_OCF_RC_LIST(X)                                                                          \
    X(OCF_SUCCESS, 0, "done, or running")                                                          \
    X(OCF_ERR_GENERIC, 1, "failed")                                                                \
    X(OCF_ERR_ARGS, 2, "the parameters are not valid on this host")                                \
    X(OCF_ERR_UNIMPLEMENTED, 3, "the agent does not know the action")                              \
    X(OCF_ERR_PERM, 4, "no permission")                                                            \
    X(OCF_ERR_INSTALLED, 5, "what it needs is not installed on this host")                         \
    X(OCF_ERR_CONFIGURED, 6, "the parameters are not valid on any host")                           \
    X(OCF_NOT_RUNNING, 7, "not running")                                                           \
    X(OCF_RUNNING_PROMOTED, 8, "running as promoted")                                              \
    X(OCF_FAILED_PROMOTED, 9, "failed as promoted")                                                \
    X(OCF_DEGRADED, 190, "running, but likely to fail soon")                                       \
    X(OCF_DEGRADED_PROMOTED, 191, "running as promoted, but likely to fail soon")

enum hf_ocf_rc {
#define HF_OCF_RC_ENUM(name, num, text) HF_##name = (num),
    HF_OCF_RC_LIST(HF_OCF_RC_ENUM)
#undef HF_OCF_RC_ENUM
};

/** "OCF_NOT_RUNNING"; static; NULL if OCF has no such number. */
const char *hf_ocf_rc_name(int rc);
/** "not running"; static; NULL if OCF has no such number. */
const char *hf_ocf_rc_text(int rc);

/* ---- agents ---- */

/* Where an agent is; a plain value, free to copy. */
struct hf_ocf_agent {
    char provider[64], type[64]; /* "heartbeat", "IPaddr2" */
    char path[PATH_MAX];         /* its program */
    char root[PATH_MAX];         /* OCF_ROOT for it: see hf_ocf_find() */
};

/**
 * Find the agent `name`, "ocf:PROVIDER:TYPE", as ROOT/resource.d/PROVIDER/TYPE, in the first of
 * `roots` that has it as an executable file. `roots` is a path list ("DIR:DIR"); NULL or "" is
 * HF_OCF_ROOT. PROVIDER and TYPE are 1 to 63 letters, digits, '-', '_' and '.', not beginning with
 * '.'. The agent gets the root where it was found as OCF_ROOT if the agents' shell library is
 * there, too, otherwise HF_OCF_ROOT: so agents in a build tree work. Does no more than stat(2).
 * -HF_ENAME: not such a name. -HF_ENOTFOUND, -EACCES: not in any root, or not executable. Text in
 * err.
 */
HF_MUST int hf_ocf_find(const char *roots, const char *name, struct hf_ocf_agent *ret_agent,
                        struct hf_err *err);

/* ---- meta-data ---- */

/* What an agent can do: flags of struct hf_ocf_meta. The optional actions are those of
 * doc/design/agents.md. */
#define HF_OCF_PROMOTABLE 1u    /* promote and demote */
#define HF_OCF_MIRRORS 2u       /* mirror-source and mirror-target: "mirror-capable" */
#define HF_OCF_MIRROR_STATE 4u  /* mirror-state */
#define HF_OCF_ACCESS 8u        /* access */
#define HF_OCF_OPEN 16u         /* open */
#define HF_OCF_NOTIFY 32u       /* notify */
#define HF_OCF_VALIDATE_ALL 64u /* validate-all */
#define HF_OCF_PREPARE 128u     /* prepare-promote and prepare-demote */
#define HF_OCF_LEASE 256u /* <special tag="holdfast-lease"/>: what is cut off is silent (G2) */

struct hf_ocf_action {
    char *name;       /* owned by the meta-data, as all below */
    char *role;       /* "Promoted", "Unpromoted" (also for their old words); "": any */
    hf_time timeout;  /* advised; 0: none */
    hf_time interval; /* advised; 0: none */
    unsigned depth;   /* OCF_CHECK_LEVEL */
};

struct hf_ocf_param {
    char *name;
    char *dflt; /* default; NULL: none */
    bool required;
};

struct hf_ocf_meta {
    char *name, *version; /* of the agent; "" if it does not say */
    struct hf_ocf_action *actions;
    size_t n_actions;
    struct hf_ocf_param *params;
    size_t n_params;
    unsigned flags; /* HF_OCF_* */
};

/**
 * Parse an agent's meta-data; at most HF_OCF_META_MAX bytes, and no entities but XML's own five.
 * *ret_meta is owned by the caller. -ENOMEM, -HF_EFULL or -HF_EMALF, with a text (line, cause).
 */
HF_MUST int hf_ocf_meta_parse(struct hf_slice xml, struct hf_err *err,
                              struct hf_ocf_meta **ret_meta);
void hf_ocf_meta_destroy(struct hf_ocf_meta *m);

/** The action of that name that is meant for role ("" or NULL: the first of that name); borrowed
 * from m; NULL: not declared. One that is declared for no role is meant for each. */
const struct hf_ocf_action *hf_ocf_meta_action(const struct hf_ocf_meta *m, const char *name,
                                               const char *role);
/** The parameter of that name; borrowed from m; NULL: not declared. */
const struct hf_ocf_param *hf_ocf_meta_param(const struct hf_ocf_meta *m, const char *name);

/* ---- actions ---- */

struct hf_ocf_run;

struct hf_ocf_pair {
    const char *name, *value;
};

/* One action; borrowed until hf_ocf_start() returns. */
struct hf_ocf_opt {
    const struct hf_ocf_agent *agent;
    const char *instance;             /* OCF_RESOURCE_INSTANCE: the resource's name */
    const char *action;               /* "monitor": a-z, 0-9, '-' and '_' */
    const struct hf_ocf_pair *params; /* OCF_RESKEY_*; names of letters, digits and '_' */
    size_t n_params;
    const struct hf_ocf_pair *env; /* further variables, whole names: HOLDFAST_GROUP, PATH, ...;
                                      they win over ours */
    size_t n_env;
    hf_time timeout;      /* then SIGTERM to all that it started, SIGKILL 2 s later; 0: none */
    hf_time interval;     /* OCF_RESKEY_CRM_meta_interval only: who recurs is the caller; 0: once */
    const char *on_node;  /* OCF_RESKEY_CRM_meta_on_node: this host; NULL: not set */
    unsigned check_level; /* OCF_CHECK_LEVEL */
    bool promotable;      /* run as one of several copies of which one may be promoted:
                             OCF_RESKEY_CRM_meta_promoted_max and the like, which agents test */
    size_t output_max;    /* bytes kept of stdout and of stderr; 0: HF_OCF_OUTPUT_MAX */
    /* NULL: none. Otherwise the action is talked with: it reads its stdin, and each whole line of
     * its stdout is told; the action may be killed from there. */
    void (*line)(void *arg, struct hf_slice line);
};

enum hf_ocf_end {
    HF_OCF_EXITED,      /* rc is what the agent said */
    HF_OCF_TIMED_OUT,   /* and was killed: rc is HF_OCF_ERR_GENERIC */
    HF_OCF_KILLED,      /* by a signal that is not ours: rc is HF_OCF_ERR_GENERIC */
    HF_OCF_NOT_STARTED, /* rc: HF_OCF_ERR_INSTALLED, HF_OCF_ERR_PERM or HF_OCF_ERR_GENERIC */
};

/* How an action ended; all of it borrowed for the call. */
struct hf_ocf_result {
    int rc; /* enum hf_ocf_rc, always one of it: any other exit code is HF_OCF_ERR_GENERIC */
    enum hf_ocf_end end;
    int status;          /* HF_OCF_EXITED: the exit code as it was */
    int signo;           /* HF_OCF_KILLED: that signal */
    int error;           /* HF_OCF_NOT_STARTED: -errno */
    struct hf_slice out; /* stdout, as much as was kept */
    uint64_t dropped;    /* bytes of stdout and stderr over the limit */
    /* One line for people, printable, never NULL. From the agent: the last `ocf-exit-reason:`, else
     * the last line of stderr, else "". From us: "timed out after 20 s", "killed by SIGSEGV",
     * "cannot start PATH: ...", each followed by the agent's words, if any. */
    const char *reason;
    hf_time duration; /* start to end */
};

/** Called once, from the loop, never from within hf_ocf_start(). */
typedef void hf_ocf_done(void *arg, const struct hf_ocf_result *res);

/**
 * Start an action. What the agent starts and leaves running (a database) outlives the action, this
 * program and its death, if the action ended in time; of an action that timed out all is killed
 * that is still in its process group. The end of the action is the end of the agent's own process
 * (and at most 200 ms, if something that it started holds its output). An agent that cannot be
 * started is a result, not an error here. -HF_EVALUE: action, instance, or a name is not valid, a
 * value holds too much (HF_OCF_ENV_MAX); -ENOMEM; err (may be NULL) tells.
 */
HF_MUST int hf_ocf_start(struct hf_loop *loop, const struct hf_ocf_opt *opt, hf_ocf_done *fn,
                         void *arg, struct hf_err *err, struct hf_ocf_run **ret_run);
/** To the stdin of an action that has `line`: text, with the line's end. It has this time from now
 * on, 0: any. -EPIPE: it does not read any more. */
HF_MUST int hf_ocf_say(struct hf_ocf_run *run, const char *text, hf_time timeout);
/** It has this time from now on; 0: any. */
void hf_ocf_limit(struct hf_ocf_run *run, hf_time timeout);
/** Kill it now, with all in its process group; fn is not called. NULL is fine; not
 * from fn or after it. */
void hf_ocf_kill(struct hf_ocf_run *run);

/** rc is 0 and m the agent's meta-data, owned by who is called; or rc tells why not, and err->text:
 * -HF_ETIMEOUT, -HF_EPROTO (the action failed), -errno (cannot be started), or what
 * hf_ocf_meta_parse() found. */
typedef void hf_ocf_meta_done(void *arg, int rc, const struct hf_err *err, struct hf_ocf_meta *m);

/** Run the agent's `meta-data` and parse it. -ENOMEM. End it early with hf_ocf_kill(). */
HF_MUST int hf_ocf_meta_start(struct hf_loop *loop, const struct hf_ocf_agent *agent,
                              hf_time timeout, hf_ocf_meta_done *fn, void *arg,
                              struct hf_ocf_run **ret_run);
