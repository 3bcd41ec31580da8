/* base/log, base/err: sinks, levels, traces, the recorder; texts of codes. */
#include "base/log.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "support/test.h"

struct lines {
    int n;
    char last[512];
};

static void sink(void *arg, enum hf_log_level level, const char *prefix, const char *text)
{
    struct lines *l = arg;
    l->n++;
    snprintf(l->last, sizeof(l->last), "%d|%s|%s", (int)level, prefix, text);
}

static void put(void *arg, const char *line)
{
    struct lines *l = arg;
    l->n++;
    snprintf(l->last, sizeof(l->last), "%s", line);
}

static hf_time clock_of_test(void)
{
    return HF_S(5) + 1500;
}

static void levels_and_tap(void **state)
{
    (void)state;
    struct lines out = {0}, tapped = {0};
    hf_log_setup(sink, &out, clock_of_test, HF_LOG_INFO);
    hf_log_info("peer beta", "came %d", 1);
    assert_string_equal(out.last, "6|peer beta|came 1");
    hf_log_debug("", "not wanted");
    assert_int_equal(out.n, 1);
    hf_log_set_tap(sink, &tapped);
    hf_log_debug("", "wanted by the tap");
    assert_int_equal(out.n, 1);
    assert_string_equal(tapped.last, "7||wanted by the tap");
    hf_log_set_tap(NULL, NULL);
    struct lines recorded = {0};
    hf_log_recorder_dump(put, &recorded);
    assert_int_equal(recorded.n, 3);
    assert_string_equal(recorded.last, "5.000001 D wanted by the tap");
    hf_log_setup(NULL, NULL, NULL, HF_LOG_INFO);
    hf_log_err("", "nobody listens");
}

static int evaluated;

static int costly(void)
{
    return ++evaluated;
}

static void traces(void **state)
{
    (void)state;
    struct lines out = {0};
    hf_log_setup(sink, &out, NULL, HF_LOG_ERR);
    hf_tracef(HF_TRACE_DIR, "", "%d", costly());
    assert_int_equal(evaluated, 0);
    hf_trace_set_mask(UINT32_MAX);
    assert_int_equal(hf_trace_mask(), (1u << HF_TRACE_COUNT_) - 1);
    hf_tracef(HF_TRACE_DIR, "x", "%d", costly());
    assert_string_equal(out.last, "7|x|[dir] 1");
    hf_trace_line(HF_TRACE_NET, "", "straight");
    assert_string_equal(out.last, "7||[net] straight");
    hf_trace_set_mask(0);
    assert_string_equal(hf_trace_name(HF_TRACE_DIR), "dir");
    assert_non_null(hf_trace_text(HF_TRACE_DIR));
    assert_null(hf_trace_name(HF_TRACE_COUNT_));
    assert_null(hf_trace_text(HF_TRACE_COUNT_));
    hf_log(HF_LOG_ERR, "", "%s", "last");
    assert_int_equal(out.n, 3);
    hf_log_setup(NULL, NULL, NULL, HF_LOG_INFO);
}

static void recorder_wraps(void **state)
{
    (void)state;
    for (int i = 0; i < 5000; i++) {
        hf_log_debug("", "line %d", i);
    }
    struct lines recorded = {0};
    hf_log_recorder_dump(put, &recorded);
    assert_int_equal(recorded.n, 2048);
    assert_string_equal(recorded.last, "0.000000 D line 4999");
}

static void codes(void **state)
{
    (void)state;
    assert_string_equal(hf_strerror(0), "success");
    assert_string_equal(hf_strerror(-ENOENT), "No such file or directory");
    assert_string_equal(hf_strerror(-HF_EAUTH), "not authenticated by the cluster key");
    assert_string_equal(hf_strerror(-999999), "unknown error");
    assert_string_equal(hf_errname(-HF_EFULL), "HF_EFULL");
    assert_null(hf_errname(-ENOENT));
    struct hf_err e;
    assert_int_equal(hf_err_set(&e, -HF_ENAME, "%s is wrong", "x"), -HF_ENAME);
    assert_string_equal(e.text, "x is wrong");
    assert_int_equal(hf_err_set(NULL, -5, "nobody reads"), -5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(levels_and_tap),
        HF_TEST(traces),
        HF_TEST(recorder_wraps),
        HF_TEST(codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
