/* Child processes: start, feed, collect bounded output, time out, kill with all they started. */
#pragma once

#include <stdbool.h>

#include "base/slice.h"
#include "os/loop.h"

struct hf_proc;

struct hf_proc_opt {
    const char *const *argv; /* NULL-terminated; argv[0] is a path, no shell and no search */
    const char *const *env;  /* NULL-terminated "NAME=value", the whole environment */
    size_t output_max; /* bytes kept of stdout and of stderr; what is over is dropped, counted */
    hf_time timeout; /* from start; then SIGTERM to its process group, SIGKILL 2 s later; 0: none */
};

struct hf_proc_result {
    int status; /* exit code, or -1 if ended by a signal */
    int signo;  /* that signal, or 0 */
    bool timed_out;
    struct hf_slice out, err; /* borrowed for the call */
    uint64_t dropped;         /* bytes of output over the limit */
};

/** Called once when the child has ended and its output is closed (or 200 ms after it ended). */
typedef void hf_proc_done(void *arg, const struct hf_proc_result *res);

/** Start; the child gets its own process group, no descriptors of ours, PR_SET_PDEATHSIG SIGKILL.
 */
HF_MUST int hf_proc_start(struct hf_loop *loop, const struct hf_proc_opt *opt, hf_proc_done *fn,
                          void *arg, struct hf_proc **ret_proc);
/** Kill its group now; fn is not called. */
void hf_proc_kill(struct hf_proc *p);
