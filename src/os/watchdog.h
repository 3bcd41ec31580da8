/* The kernel's watchdog: reboots this host unless it is petted in time. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/hftime.h"

struct hf_watchdog;

/**
 * Open the device at path ("/dev/watchdog") and set its time: from now on the host is rebooted when
 * hf_watchdog_pet() is not called in time, also when this program dies. timeout is rounded up to
 * whole seconds, at least 1. Others count on the host being gone by then: a device that would fire
 * later is refused (-HF_EVALUE), one that fires earlier is used, see hf_watchdog_timeout(). A plain
 * file, or a fifo that somebody reads, is taken as a device without a time of its own: for tests
 * and the lab. Errors: -errno (-EBUSY: another program has it), err tells.
 */
HF_MUST int hf_watchdog_open(const char *path, hf_time timeout, struct hf_err *err,
                             struct hf_watchdog **ret_watchdog);

/** The time that is in force; pet at least twice as often. */
hf_time hf_watchdog_timeout(const struct hf_watchdog *w);
/** Is it a real device (not a file or fifo)? */
bool hf_watchdog_real(const struct hf_watchdog *w);

/** Start its time anew: one write of one byte, never 'V'. -errno. Does not block on a fifo. */
HF_MUST int hf_watchdog_pet(struct hf_watchdog *w, struct hf_err *err);

/**
 * Disarm by the magic close 'V', close and free: nothing is rebooted. -errno if 'V' could not be
 * written, -HF_EVALUE if this device has no magic close: w is freed all the same, but the host will
 * be rebooted; err tells. A kernel with nowayout reboots it in any case. NULL is fine: 0.
 */
HF_MUST int hf_watchdog_disarm(struct hf_watchdog *w, struct hf_err *err);
/** Close without 'V', and free: the device fires after its time. NULL is fine. */
void hf_watchdog_abandon(struct hf_watchdog *w);
