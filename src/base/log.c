#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define RECORDER_LINES 2048
#define RECORDER_LINE_LEN 240

/* The one process-wide state of base: a program has one log. Several threads may log; the sinks
 * are set before there are any. */
static struct {
    hf_log_sink *sink, *tap;
    void *arg, *tap_arg;
    hf_log_clock *clock;
    _Atomic(enum hf_log_level) level;
    _Atomic uint32_t mask;
    _Atomic uint64_t n; /* lines ever recorded */
    char line[RECORDER_LINES][RECORDER_LINE_LEN];
} lg = {.level = HF_LOG_INFO};

static const struct {
    const char *name, *text;
} traces[] = {
#define HF_TRACE_ROW(id, name, text) {name, text},
    HF_TRACE_LIST(HF_TRACE_ROW)
#undef HF_TRACE_ROW
};

const char *hf_trace_name(unsigned t)
{
    return t < HF_TRACE_COUNT_ ? traces[t].name : NULL;
}

const char *hf_trace_text(unsigned t)
{
    return t < HF_TRACE_COUNT_ ? traces[t].text : NULL;
}

void hf_log_setup(hf_log_sink *sink, void *arg, hf_log_clock *clock, enum hf_log_level level)
{
    lg.sink = sink;
    lg.arg = arg;
    lg.clock = clock;
    lg.level = level;
}

void hf_log_set_tap(hf_log_sink *tap, void *arg)
{
    lg.tap = tap;
    lg.tap_arg = arg;
}

/* To the sink if the level wants it, to the tap anyway. */
static void give(enum hf_log_level level, bool wanted, const char *prefix, const char *text)
{
    if (lg.sink && wanted) {
        lg.sink(lg.arg, level, prefix, text);
    }
    if (lg.tap) {
        lg.tap(lg.tap_arg, level, prefix, text);
    }
}

void hf_trace_set_mask(uint32_t mask)
{
    lg.mask = mask & ((1u << HF_TRACE_COUNT_) - 1);
}

uint32_t hf_trace_mask(void)
{
    return lg.mask;
}

static char level_letter(enum hf_log_level level)
{
    return level == HF_LOG_ERR    ? 'E'
           : level == HF_LOG_WARN ? 'W'
           : level == HF_LOG_INFO ? 'I'
                                  : 'D';
}

static void record(char letter, const char *prefix, const char *text)
{
    hf_time t = lg.clock ? lg.clock() : 0;
    snprintf(lg.line[lg.n++ % RECORDER_LINES], RECORDER_LINE_LEN, "%lld.%06lld %c %s%s%s",
             (long long)(t / HF_NS_PER_S), (long long)(t % HF_NS_PER_S / 1000), letter, prefix,
             *prefix ? ": " : "", text);
}

void hf_log(enum hf_log_level level, const char *prefix, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    record(level_letter(level), prefix, text);
    give(level, level <= lg.level, prefix, text);
}

void hf_trace_line(enum hf_trace t, const char *prefix, const char *fmt, ...)
{
    char text[1024];
    int n = snprintf(text, sizeof(text), "[%s] ", traces[t].name);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
    va_end(ap);
    record('T', prefix, text);
    give(HF_LOG_DEBUG, true, prefix, text);
}

void hf_log_recorder_dump(void (*put)(void *arg, const char *line), void *arg)
{
    uint64_t n = lg.n, from = n > RECORDER_LINES ? n - RECORDER_LINES : 0;
    for (uint64_t i = from; i < n; i++) {
        put(arg, lg.line[i % RECORDER_LINES]);
    }
}
