/* The life of a daemon: its command line, then open, run until told to end, close. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "os/loop.h"

/** What differs from daemon to daemon. */
struct hf_daemon {
    const char *name;      /* "holdfast-pg"; also of its manual page in section 8 */
    const char *config;    /* the configuration file unless -c names another one */
    const char *task;      /* an option without "--": do that, and end; NULL: there is none */
    const char *task_help; /* for the usage, without "and end" */
    bool ready_later; /* open() is not all: it says itself when it is ready, to log and manager */

    /** Opens all that it needs, privileges given up. 0 or -errno, with err. */
    int (*open)(void *arg, struct hf_err *err);

    /** Closes what open() opened, also if that failed half-way. */
    void (*close)(void *arg);

    /** SIGHUP, SIGINT or SIGTERM came, from open() until close() has returned. */
    void (*on_signal)(void *arg, int signo);
};

enum hf_daemon_what { HF_DAEMON_RUN, HF_DAEMON_CHECK, HF_DAEMON_TASK };

struct hf_daemon_args {
    const char *config;
    enum hf_daemon_what what;
};

/**
 * Reads the command line: -c FILE, --check, the task if it has one, --version, --help. True: args
 * says what to do. False: what there was to say is said, and the program ends with *ret_code (2 for
 * wrong usage).
 */
HF_MUST bool hf_daemon_args(const struct hf_daemon *d, int argc, char **argv,
                            struct hf_daemon_args *args, int *ret_code);

/**
 * Opens, with arg, tells the service manager, runs the loop until that is stopped, and closes. Why
 * it could not start is logged. 0 or -errno.
 */
HF_MUST int hf_daemon_run(const struct hf_daemon *d, struct hf_loop *loop, void *arg);

/** As many file descriptors as want, as far as that is allowed; if it is not, a warning that names
 * the option which asks for them. */
void hf_daemon_files(uint64_t want, const char *option);
