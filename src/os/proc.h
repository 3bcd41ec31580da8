/* Child processes: start, feed, collect bounded output, time out, kill with all they started. */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "base/slice.h"
#include "os/loop.h"

struct hf_proc;

/** One whole line of its stdout, without the line's end; borrowed for the call, from which the
 * process may be killed. */
typedef void hf_proc_line(void *arg, struct hf_slice line);

struct hf_proc_opt {
    const char *const *argv; /* NULL-terminated; argv[0] is a path, no shell and no search */
    const char *const *env;  /* NULL-terminated "NAME=value", the whole environment */
    struct hf_slice input; /* its stdin, borrowed until hf_proc_start() returns; empty: /dev/null */
    size_t output_max; /* bytes kept: the first of stdout, the last of stderr; others are counted */
    hf_time timeout; /* from start; then SIGTERM to its process group, SIGKILL 2 s later; 0: none */
    bool leave_group; /* what it leaves running when it ends in time is not killed: a daemon */
    /* NULL: none. Otherwise its stdin is a pipe, see hf_proc_say(), and its stdout is told line by
     * line; the result has what came after the last line's end. */
    hf_proc_line *line;
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

/**
 * Start. The child gets its own process group, no descriptors of ours, umask 022, default signals,
 * and SIGKILL if this program dies (PR_SET_PDEATHSIG: the child itself, not what it starts).
 */
HF_MUST int hf_proc_start(struct hf_loop *loop, const struct hf_proc_opt *opt, hf_proc_done *fn,
                          void *arg, struct hf_proc **ret_proc);
/** Write to the stdin of one that has `line`: all of it, or -EPIPE, -EAGAIN (it does not read).
 * From now on it has this time (0: any). */
HF_MUST int hf_proc_say(struct hf_proc *p, struct hf_slice text, hf_time timeout);
/** Close the stdin of one that has `line`. */
void hf_proc_hush(struct hf_proc *p);
/** From now on it has this time; 0: any. */
void hf_proc_limit(struct hf_proc *p, hf_time timeout);
/** Kill its group now (not what an ended child left, with leave_group); fn is not called. */
void hf_proc_kill(struct hf_proc *p);

/* ---- processes of others ---- */

struct hf_proc_watch;

/** Tell once when that process, of whoever started it, has ended. -errno: there is none (-ESRCH).
 */
HF_MUST int hf_proc_watch_create(struct hf_loop *loop, long pid, void (*fn)(void *arg), void *arg,
                                 struct hf_proc_watch **ret_watch);
/** NULL is fine; also from fn. */
void hf_proc_watch_destroy(struct hf_proc_watch *w);

/** May a program, or an agent, be called so: 1 to 63 letters, digits, '-', '_', '.', not '.' first?
 */
bool hf_proc_name_ok(struct hf_slice name);
/** Find DIR/rest in the first directory of the path list `dirs` that has it as an executable file.
 * -HF_ENOTFOUND, or -EACCES: there, but not executable. */
HF_MUST int hf_proc_find(const char *dirs, const char *rest, char ret_path[static PATH_MAX]);

/** How it ended, for people: "timed out after 20 s", "killed by SIGSEGV", "exit code 1". */
void hf_proc_end_text(const struct hf_proc_result *res, hf_time timeout, char *ret_text, size_t n);
/** The last line of text that begins with prefix and has something other than blanks after it,
 * without the prefix; borrowed from text; empty: none. */
struct hf_slice hf_proc_last_line(struct hf_slice text, const char *prefix);
/** Append s to the string in text (room: n): control characters and what is not UTF-8 as '?'. */
void hf_proc_add_printable(char *text, size_t n, struct hf_slice s);
