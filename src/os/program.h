/* What every program does once: log output, crash reports, privileges, talk to the service manager.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "os/loop.h"

/**
 * Log to the journal (when stderr is connected to it) with fields HOLDFAST_PREFIX, PRIORITY;
 * otherwise to stderr with local time. Sets the log's clock.
 */
void hf_program_log_open(const char *name, enum hf_log_level level);

/**
 * On SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL: write the flight recorder to stderr and to
 * <dir>/<name>.crash (if dir is not NULL), then die of the signal. Secrets never get into core
 * files: PR_SET_DUMPABLE 0.
 */
void hf_program_harden(const char *name, const char *dir);

/** Switch to user (and its groups), keeping no capability but those of this set (1 << CAP_*), as
 * far as it has them; programs it runs have them, too. "" does nothing. */
HF_MUST int hf_program_drop(const char *user, uint64_t keep, struct hf_err *err);

/** Of the capabilities that this process has only these from now on (bits, 1 << CAP_...); programs
 * that it runs get them, too, and no others by their files. 0 or -errno. */
HF_MUST int hf_program_keep(uint64_t keep);

/** Which of these capabilities (1 << CAP_*) are not in effect for this process; all of them if that
 * can't be known. */
uint64_t hf_program_lacks(uint64_t need);

/** sd_notify(3): "READY=1", "STATUS=...", "STOPPING=1", "RELOADING=1"; nothing without a manager.
 */
void hf_program_notify(const char *state);

/** If WATCHDOG_USEC is set: pet the service manager's watchdog from this loop. */
HF_MUST int hf_program_watchdog(struct hf_loop *loop);
