/* Log lines, the run-time trace mask and the flight recorder; writing them out is src/os's work. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"

/* Levels as in syslog(3). A line tells what happened, to whom, and what the program does next. */
enum hf_log_level {
    HF_LOG_ERR = 3,
    HF_LOG_WARN = 4,
    HF_LOG_INFO = 6,
    HF_LOG_DEBUG = 7,
};

/* Subsystems that `holdfast trace` can switch on: name, description. */
#define HF_TRACE_LIST(X)                                                                           \
    X(DIR, "dir", "directory: adverts, pulls, peers")                                              \
    X(NET, "net", "datagrams and connections")                                                     \
    X(HTTP, "http", "HTTP requests and answers")                                                   \
    X(CTL, "ctl", "control socket")                                                                \
    X(DNS, "dns", "DNS queries")                                                                   \
    X(ENGINE, "engine", "ordered messages, views, quorum")                                         \
    X(PROC, "proc", "child processes")

enum hf_trace {
#define HF_TRACE_ENUM(id, name, text) HF_TRACE_##id,
    HF_TRACE_LIST(HF_TRACE_ENUM)
#undef HF_TRACE_ENUM
        HF_TRACE_COUNT_
};

/** Name of a subsystem ("dir"), or NULL past the last. */
const char *hf_trace_name(unsigned t);
/** What a subsystem's trace shows, or NULL past the last. */
const char *hf_trace_text(unsigned t);

/** Where lines go: level, the object's prefix (may be ""), the text without newline. */
typedef void hf_log_sink(void *arg, enum hf_log_level level, const char *prefix, const char *text);
/** A clock for the recorder's time stamps. */
typedef hf_time hf_log_clock(void);

/** Set the sink (NULL: lines go to the recorder only), the clock (may be NULL) and the level. */
void hf_log_setup(hf_log_sink *sink, void *arg, hf_log_clock *clock, enum hf_log_level level);

/** A second sink for every line, also those below the level (NULL: none): `holdfast trace`. */
void hf_log_set_tap(hf_log_sink *tap, void *arg);

/** Switch traces: bit 1 << enum hf_trace. */
void hf_trace_set_mask(uint32_t mask);
uint32_t hf_trace_mask(void);
static inline bool hf_trace_on(enum hf_trace t)
{
    return hf_trace_mask() >> t & 1;
}

/** Log a line; prefix names the object ("peer beta") or is "". */
void hf_log(enum hf_log_level level, const char *prefix, const char *fmt, ...) HF_PRINTF(3, 4);

#define hf_log_err(prefix, ...) hf_log(HF_LOG_ERR, prefix, __VA_ARGS__)
#define hf_log_warn(prefix, ...) hf_log(HF_LOG_WARN, prefix, __VA_ARGS__)
#define hf_log_info(prefix, ...) hf_log(HF_LOG_INFO, prefix, __VA_ARGS__)
#define hf_log_debug(prefix, ...) hf_log(HF_LOG_DEBUG, prefix, __VA_ARGS__)

/** A trace line of subsystem t (HF_TRACE_*), if that is switched on; arguments are not evaluated
 * otherwise. */
#define hf_tracef(t, prefix, ...)                                                                  \
    do {                                                                                           \
        if (hf_trace_on(t)) {                                                                      \
            hf_trace_line(t, prefix, __VA_ARGS__);                                                 \
        }                                                                                          \
    } while (0)
void hf_trace_line(enum hf_trace t, const char *prefix, const char *fmt, ...) HF_PRINTF(3, 4);

/**
 * The flight recorder keeps the last lines of every level, also those below the sink's level.
 * Call put(arg, line) for each, oldest first. Async-signal-safe as far as put is.
 */
void hf_log_recorder_dump(void (*put)(void *arg, const char *line), void *arg);
