/* os/fence: one agent's action, and a host by levels of devices; fence_dummy of fence-agents. */
#include "os/fence.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "os/file.h"
#include "support/test.h"

static struct hf_loop *loop;
static char dir[64];
static char agent[96]; /* dir/fence_test: `case $plug in ...` decides */

/* Reads its options as a fence agent does; DIR/log gets one line per call. */
static const char prologue[] =
    "#!/bin/sh\n"
    "while IFS='=' read -r name value; do eval \"$name=\\$value\"; done\n"
    "echo $action $plug $ip >>${0%/*}/log\n";

static void write_agent(const char *script)
{
    char text[2048];
    snprintf(text, sizeof(text), "%s%s\n", prologue, script);
    assert_int_equal(hf_file_replace(agent, hf_slice_str(text), 0755, NULL), 0);
}

static int create(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/hf-fence-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(agent, sizeof(agent), "%s/fence_test", dir);
    return hf_loop_create(&loop);
}

static int destroy(void **state)
{
    (void)state;
    char command[128];
    hf_loop_destroy(loop);
    snprintf(command, sizeof(command), "exec rm -r %s", dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing left behind */
    assert_int_equal(errno, ECHILD);
    return 0;
}

static void assert_log(const char *want)
{
    char path[128];
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    snprintf(path, sizeof(path), "%s/log", dir);
    int rc = hf_file_read(path, &b);
    assert_true(rc == 0 || (rc == -ENOENT && !*want));
    hf_assert_slice_str(hf_buf_slice(&b), want);
    hf_buf_fini(&b);
    unlink(path);
}

struct seen {
    int calls, rc, status;
    enum hf_fence_power power;
    unsigned level;
    char out[4096], text[HF_FENCE_TEXT_MAX];
};

static void on_done(void *arg, const struct hf_fence_result *res)
{
    struct seen *s = arg;
    s->calls++;
    s->rc = res->rc;
    s->status = res->status;
    s->power = res->power;
    snprintf(s->out, sizeof(s->out), "%.*s", HF_SLICE_FMT(res->out));
    snprintf(s->text, sizeof(s->text), "%s", res->text);
    hf_loop_stop(loop);
}

static struct seen run_opt(const struct hf_fence_opt *o)
{
    struct seen s = {0};
    struct hf_fence_run *r;
    assert_int_equal(hf_fence_start(loop, o, on_done, &s, NULL, &r), 0);
    assert_int_equal(s.calls, 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(s.calls, 1);
    return s;
}

static struct seen run(enum hf_fence_action action, hf_time timeout)
{
    struct hf_fence_opt o = {.path = agent, .action = action, .timeout = timeout};
    return run_opt(&o);
}

/* ---- one agent ---- */

static void finds(void **state)
{
    (void)state;
    char path[PATH_MAX], dirs[160];
    struct hf_err err;
    write_agent("");
    assert_int_equal(hf_fence_find(dir, "fence_test", path, &err), 0);
    assert_string_equal(path, agent);
    assert_int_equal(hf_fence_find(NULL, agent, path, &err), 0);
    snprintf(dirs, sizeof(dirs), "/nosuch:%s:/usr/sbin", dir);
    assert_int_equal(hf_fence_find(dirs, "fence_dummy", path, &err), 0);
    assert_string_equal(path, "/usr/sbin/fence_dummy");
    assert_int_equal(hf_fence_find("", "fence_dummy", path, &err), 0);
    assert_int_equal(hf_fence_find(dir, "fence_dummy", path, &err), -HF_ENOTFOUND);
    assert_int_equal(hf_fence_find(dir, "../fence_test", path, &err), -HF_ENAME);
    assert_int_equal(hf_fence_find(dir, "", path, &err), -HF_ENAME);
    assert_int_equal(hf_fence_find(dir, "/nosuch", path, &err), -HF_ENOTFOUND);
    assert_int_equal(hf_fence_find(NULL, "/etc/passwd", path, &err), -EACCES);
    assert_string_equal(err.text, "/etc/passwd is not executable");
}

static void actions(void **state)
{
    (void)state;
    assert_string_equal(hf_fence_action_name(HF_FENCE_OFF), "off");
}

static void options_on_stdin(void **state)
{
    (void)state;
    static const struct hf_fence_pair options[] = {{"ip", "10.0.0.9"}, {"password", "top s=ecret"}};
    write_agent("echo \"$# $plug $action $ip $password\"; env | grep -c -e ecret");
    struct hf_fence_opt o = {
        .path = agent, .action = HF_FENCE_LIST, .plug = "7", .options = options, .n_options = 2};
    struct seen s = run_opt(&o);
    assert_string_equal(s.out, "0 7 list 10.0.0.9 top s=ecret\n0\n");
    assert_int_equal(s.rc, -HF_EPROTO); /* of grep */
    assert_int_equal(s.status, 1);
    assert_log("list 7 10.0.0.9\n");
}

static void not_valid(void **state)
{
    (void)state;
    struct hf_fence_run *r;
    struct hf_err err;
    struct hf_fence_pair p = {"ip", "a\naction=on"};
    struct hf_fence_opt o = {.path = agent, .action = HF_FENCE_OFF, .options = &p, .n_options = 1};
    assert_int_equal(hf_fence_start(loop, &o, on_done, NULL, &err, &r), -HF_EVALUE);
    assert_string_equal(err.text, "'ip' is not an option of one line");
    p = (struct hf_fence_pair){"i p", "a"};
    assert_int_equal(hf_fence_start(loop, &o, on_done, NULL, &err, &r), -HF_EVALUE);
    p = (struct hf_fence_pair){"", "a"};
    assert_int_equal(hf_fence_start(loop, &o, on_done, NULL, &err, &r), -HF_EVALUE);
    char *big = hf_alloc(HF_FENCE_INPUT_MAX);
    memset(big, 'x', HF_FENCE_INPUT_MAX - 1);
    p = (struct hf_fence_pair){"ip", big};
    assert_int_equal(hf_fence_start(loop, &o, on_done, NULL, &err, &r), -HF_EVALUE);
    assert_string_equal(err.text, "the options of a fence device are too long");
    hf_free(big);
    o.n_options = 0;
    o.plug = "a\nb";
    assert_int_equal(hf_fence_start(loop, &o, on_done, NULL, &err, &r), -HF_EVALUE);
    o.plug = "a";
    for (int64_t i = 0; i < 3; i++) {
        hf_mem_fail_after(i);
        assert_int_equal(hf_fence_start(loop, &o, on_done, NULL, &err, &r), -ENOMEM);
    }
    hf_mem_fail_after(-1);
}

static void status(void **state)
{
    (void)state;
    write_agent("exit 0");
    struct seen s = run(HF_FENCE_STATUS, 0);
    assert_int_equal(s.rc, 0);
    assert_int_equal(s.power, HF_FENCE_POWER_ON);
    write_agent("exit 2");
    s = run(HF_FENCE_STATUS, 0);
    assert_int_equal(s.rc, 0);
    assert_int_equal(s.power, HF_FENCE_POWER_OFF);
    assert_string_equal(s.text, "");
    s = run(HF_FENCE_OFF, 0); /* there 2 is a failure */
    assert_int_equal(s.rc, -HF_EPROTO);
    assert_int_equal(s.power, HF_FENCE_POWER_UNKNOWN);
    assert_string_equal(s.text, "exit code 2");
    write_agent("exit 1");
    s = run(HF_FENCE_STATUS, 0);
    assert_int_equal(s.rc, -HF_EPROTO);
    assert_int_equal(s.power, HF_FENCE_POWER_UNKNOWN);
}

static void failures(void **state)
{
    (void)state;
    write_agent("echo 'ERROR: Failed: Unable to connect' >&2; echo 'ERROR: use -h' >&2; exit 1");
    struct seen s = run(HF_FENCE_OFF, 0);
    assert_int_equal(s.rc, -HF_EPROTO);
    assert_string_equal(s.text, "Unable to connect");
    write_agent("echo 'no such plug'; exit 1");
    s = run(HF_FENCE_OFF, 0);
    assert_string_equal(s.text, "no such plug");
    write_agent("echo 'Failed: a'; echo 'logging in' >&2; kill -KILL $$");
    s = run(HF_FENCE_OFF, 0);
    assert_int_equal(s.rc, -HF_EPROTO);
    assert_int_equal(s.status, -1);
    assert_string_equal(s.text, "killed by SIGKILL: logging in");
    write_agent("sleep 1000");
    s = run(HF_FENCE_OFF, HF_MS(50));
    assert_int_equal(s.rc, -HF_ETIMEOUT);
    assert_int_equal(s.status, -1);
    assert_string_equal(s.text, "timed out after 50 ms");
    unlink(agent);
    s = run(HF_FENCE_OFF, 0);
    assert_int_equal(s.rc, -ENOENT);
    char text[256];
    snprintf(text, sizeof(text), "cannot start %s: No such file or directory", agent);
    assert_string_equal(s.text, text);
}

static void late_success_is_none(void **state)
{
    (void)state;
    write_agent("trap 'exit 0' TERM; while :; do sleep 0.01; done");
    struct seen s = run(HF_FENCE_OFF, HF_MS(100));
    assert_int_equal(s.rc, -HF_ETIMEOUT);
    s = run(HF_FENCE_STATUS, HF_MS(100));
    assert_int_equal(s.rc, -HF_ETIMEOUT);
    assert_int_equal(s.power, HF_FENCE_POWER_UNKNOWN);
}

static char logged[65536];

static void sink(void *arg, enum hf_log_level level, const char *prefix, const char *text)
{
    (void)arg, (void)level;
    size_t n = strlen(logged);
    snprintf(logged + n, sizeof(logged) - n, "%s: %s\n", prefix, text);
}

static void secrets_stay_secret(void **state)
{
    (void)state;
    static const struct hf_fence_pair options[] = {
        {"password", "hunter2"}, {"api_token", "abc"}, {"username", "admin"}, {"passwd", ""}};
    struct hf_fence_opt o = {
        .path = agent, .action = HF_FENCE_OFF, .options = options, .n_options = 4};
    hf_log_setup(sink, NULL, hf_now, HF_LOG_DEBUG);
    hf_trace_set_mask(~0u);
    write_agent("echo \"ipmitool -U $username -P $password$password -T $api_token\" >&2; exit 1");
    struct seen s = run_opt(&o);
    assert_string_equal(s.text, "ipmitool -U admin -P ****** -T ***");
    write_agent("printf '%01000d a long line, %s, %s' 0 $password $password >&2; exit 1");
    s = run_opt(&o); /* cut off in its middle */
    assert_int_equal(strlen(s.text), 1000 + strlen(" a long line, ***, "));
    assert_null(strstr(s.text, "hunt"));
    write_agent("printf '%01000d long line for %s' 0 $password >&2; exit 1");
    s = run_opt(&o);
    assert_null(strstr(s.text, "hunt"));
    hf_trace_set_mask(0);
    hf_log_setup(NULL, NULL, NULL, HF_LOG_INFO);
    assert_non_null(strstr(logged, "off failed after "));
    assert_null(strstr(logged, "hunt"));
    assert_null(strstr(logged, "abc"));
}

static void kill_it(void **state)
{
    (void)state;
    write_agent("sleep 1000");
    struct hf_fence_opt o = {.path = agent, .action = HF_FENCE_OFF};
    struct hf_fence_run *r;
    assert_int_equal(hf_fence_start(loop, &o, on_done, NULL, NULL, &r), 0);
    hf_fence_kill(r);
    hf_fence_kill(NULL);
}

static void dummy(void **state)
{
    (void)state;
    char file[128];
    snprintf(file, sizeof(file), "%s/status", dir);
    const struct hf_fence_pair options[] = {{"status_file", file}};
    struct hf_fence_opt o = {
        .path = "/usr/sbin/fence_dummy", .options = options, .n_options = 1, .timeout = HF_S(60)};
    static const struct {
        enum hf_fence_action action;
        enum hf_fence_power power;
    } rows[] = {
        {HF_FENCE_MONITOR, HF_FENCE_POWER_UNKNOWN}, {HF_FENCE_ON, HF_FENCE_POWER_UNKNOWN},
        {HF_FENCE_STATUS, HF_FENCE_POWER_ON},       {HF_FENCE_OFF, HF_FENCE_POWER_UNKNOWN},
        {HF_FENCE_STATUS, HF_FENCE_POWER_OFF},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        o.action = rows[i].action;
        struct seen s = run_opt(&o);
        if (s.rc != 0 || s.power != rows[i].power) {
            fail_msg("%s: %d, %s", hf_fence_action_name(o.action), s.rc, s.text);
        }
    }
    o.action = HF_FENCE_LIST; /* which it does not have */
    struct seen s = run_opt(&o);
    assert_int_equal(s.rc, -HF_EPROTO);
    assert_string_equal(s.text, "Unrecognised action 'list'");
}

/* ---- a host, by levels ---- */

static void on_host(void *arg, const struct hf_fence_host_result *res)
{
    struct seen *s = arg;
    s->calls++;
    s->rc = res->rc;
    s->level = res->level;
    snprintf(s->text, sizeof(s->text), "%s", res->text);
    hf_loop_stop(loop);
}

static const struct hf_fence_target ipmi1[] = {{"alpha", NULL, 1}};
static const struct hf_fence_target ipmi2[] = {{"alpha", "a2", 1}, {"beta", NULL, 1}};
static const struct hf_fence_target pdu[] = {{"*", NULL, 2}, {"beta", "b-pdu", 3}};
static struct hf_fence_pair ip1[] = {{"ip", "i1"}}, ip2[] = {{"ip", "i2"}}, ip3[] = {{"ip", "p"}};
static struct hf_fence_device devices[] = {
    {.name = "pdu", .path = agent, .options = ip3, .n_options = 1, .targets = pdu, .n_targets = 2},
    {.name = "ipmi1",
     .path = agent,
     .options = ip1,
     .n_options = 1,
     .targets = ipmi1,
     .n_targets = 1},
    {.name = "ipmi2",
     .path = agent,
     .options = ip2,
     .n_options = 1,
     .targets = ipmi2,
     .n_targets = 2},
};

static struct seen fence_opt(const struct hf_fence_host_opt *o)
{
    struct seen s = {0};
    struct hf_fence_host_run *r;
    assert_int_equal(hf_fence_host(loop, o, on_host, &s, NULL, &r), 0);
    assert_int_equal(s.calls, 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(s.calls, 1);
    return s;
}

static struct seen fence(const char *host, enum hf_fence_action action)
{
    struct hf_fence_host_opt o = {.devices = devices,
                                  .n_devices = HF_ARRAY_LEN(devices),
                                  .host = host,
                                  .action = action,
                                  .device_timeout = HF_S(60),
                                  .total_timeout = HF_S(120)};
    return fence_opt(&o);
}

static void all_of_the_first_level(void **state)
{
    (void)state;
    write_agent("exit 0");
    struct seen s = fence("alpha", HF_FENCE_OFF);
    assert_int_equal(s.rc, 0);
    assert_int_equal(s.level, 1);
    assert_string_equal(s.text, "off by ipmi1, ipmi2 (level 1)");
    assert_log("off alpha i1\noff a2 i2\n");
    s = fence("gamma", HF_FENCE_REBOOT);
    assert_string_equal(s.text, "reboot by pdu (level 2)");
    assert_log("reboot gamma p\n");
}

static void next_level(void **state)
{
    (void)state;
    write_agent("[ $ip = p ] || { echo no answer >&2; exit 1; }");
    struct seen s = fence("alpha", HF_FENCE_OFF);
    assert_int_equal(s.rc, 0);
    assert_int_equal(s.level, 2);
    assert_string_equal(s.text, "off by pdu (level 2); failed: level 1: ipmi1: no answer");
    assert_log("off alpha i1\noff alpha p\n");
    write_agent("[ $ip != i2 ] || exit 1"); /* the second of the level */
    s = fence("alpha", HF_FENCE_OFF);
    assert_string_equal(s.text, "off by pdu (level 2); failed: level 1: ipmi2: exit code 1");
    assert_log("off alpha i1\noff a2 i2\noff alpha p\n");
    s = fence("beta", HF_FENCE_OFF); /* an entry of its own in place of that for all */
    assert_int_equal(s.level, 3);
    assert_log("off beta i2\noff b-pdu p\n");
}

static void no_level(void **state)
{
    (void)state;
    write_agent("echo \"$ip is broken\" >&2; exit 1");
    struct seen s = fence("alpha", HF_FENCE_OFF);
    assert_int_equal(s.rc, -HF_EPROTO);
    assert_string_equal(s.text, "level 1: ipmi1: i1 is broken; level 2: pdu: p is broken");
    unlink(agent);
    s = fence("gamma", HF_FENCE_ON);
    assert_int_equal(s.rc, -HF_EPROTO);
    assert_non_null(strstr(s.text, "level 2: pdu: cannot start "));
    struct hf_fence_host_opt o = {.devices = devices + 1, .n_devices = 2, .host = "gamma"};
    s = fence_opt(&o);
    assert_int_equal(s.rc, -HF_ENOTFOUND);
    assert_string_equal(s.text, "no fence device for host gamma");
}

static void reboot_by_several(void **state)
{
    (void)state;
    write_agent("exit 0");
    struct seen s = fence("alpha", HF_FENCE_REBOOT);
    assert_string_equal(s.text, "reboot by ipmi1, ipmi2 (level 1)");
    assert_log("off alpha i1\noff a2 i2\non alpha i1\non a2 i2\n");
    write_agent("[ $action$ip != oni1 ]"); /* it is off: fenced, whatever follows */
    s = fence("alpha", HF_FENCE_REBOOT);
    assert_int_equal(s.rc, 0);
    assert_int_equal(s.level, 1);
    assert_string_equal(s.text, "reboot by ipmi1, ipmi2 (level 1); failed: level 1: on by ipmi1: "
                                "exit code 1");
    assert_log("off alpha i1\noff a2 i2\non alpha i1\non a2 i2\n");
    write_agent("[ $ip = p ]");
    s = fence("alpha", HF_FENCE_REBOOT);
    assert_int_equal(s.level, 2);
    assert_log("off alpha i1\nreboot alpha p\n");
}

static void times(void **state)
{
    (void)state;
    write_agent("[ $ip = p ] || sleep 1000");
    devices[0].timeout = HF_S(60);
    struct hf_fence_host_opt o = {.devices = devices,
                                  .n_devices = HF_ARRAY_LEN(devices),
                                  .host = "alpha",
                                  .device_timeout = HF_MS(60),
                                  .total_timeout = HF_S(60)};
    struct seen s = fence_opt(&o);
    assert_int_equal(s.rc, 0);
    assert_string_equal(s.text,
                        "off by pdu (level 2); failed: level 1: ipmi1: timed out after 60 ms");
    assert_log("off alpha i1\noff alpha p\n");
    o.device_timeout = 0;
    devices[1].timeout = HF_MS(70);
    s = fence_opt(&o);
    devices[1].timeout = 0;
    assert_string_equal(s.text,
                        "off by pdu (level 2); failed: level 1: ipmi1: timed out after 70 ms");
    o.total_timeout = HF_MS(80);
    s = fence_opt(&o);
    assert_int_equal(s.rc, -HF_ETIMEOUT);
    assert_non_null(strstr(s.text, "out of time; level 1: ipmi1: timed out after "));
    devices[0].timeout = 0;
}

static void host_not_valid(void **state)
{
    (void)state;
    struct hf_fence_host_run *r;
    struct hf_err err;
    struct hf_fence_host_opt o = {.devices = devices,
                                  .n_devices = HF_ARRAY_LEN(devices),
                                  .host = "alpha",
                                  .action = HF_FENCE_STATUS};
    assert_int_equal(hf_fence_host(loop, &o, on_host, NULL, &err, &r), -HF_EVALUE);
    o.action = HF_FENCE_REBOOT;
    ip1[0].value = "a\nb";
    assert_int_equal(hf_fence_host(loop, &o, on_host, NULL, &err, &r), -HF_EVALUE);
    assert_string_equal(err.text, "fence device ipmi1: 'ip' is not an option of one line");
    ip1[0].value = "i1";
    struct hf_fence_target many[HF_FENCE_STEPS_MAX / 2 + 1];
    for (unsigned i = 0; i < HF_ARRAY_LEN(many); i++) {
        many[i] = (struct hf_fence_target){"alpha", NULL, i};
    }
    struct hf_fence_device d = {
        .name = "d", .path = agent, .targets = many, .n_targets = HF_ARRAY_LEN(many)};
    struct hf_fence_host_opt o2 = {.devices = &d, .n_devices = 1, .host = "alpha"};
    assert_int_equal(hf_fence_host(loop, &o2, on_host, NULL, &err, &r), -HF_EVALUE);
    assert_string_equal(err.text, "more than 32 fence devices for host alpha");
    int rc = -ENOMEM;
    for (int64_t i = 0; rc; i++) {
        hf_mem_fail_after(i);
        rc = hf_fence_host(loop, &o, on_host, NULL, &err, &r);
        assert_true(rc == 0 || rc == -ENOMEM);
    }
    hf_mem_fail_after(-1);
    hf_fence_host_kill(r); /* before it began */
    hf_fence_host_kill(NULL);
}

static void on_wait(void *arg)
{
    struct hf_timer *t = *(struct hf_timer **)arg;
    char path[128];
    snprintf(path, sizeof(path), "%s/log", dir);
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > 0) {
        hf_loop_stop(loop);
    } else {
        hf_timer_set(t, hf_now() + HF_MS(1));
    }
}

static void host_kill(void **state)
{
    (void)state;
    write_agent("sleep 1000");
    struct hf_fence_host_opt o = {
        .devices = devices, .n_devices = HF_ARRAY_LEN(devices), .host = "alpha"};
    struct hf_fence_host_run *r;
    struct hf_timer *t;
    assert_int_equal(hf_fence_host(loop, &o, on_host, NULL, NULL, &r), 0);
    assert_int_equal(hf_timer_create(loop, on_wait, &t, &t), 0);
    hf_timer_set(t, hf_now());
    assert_int_equal(hf_loop_run(loop), 0); /* until the agent runs */
    hf_fence_host_kill(r);
    hf_timer_destroy(t);
    assert_log("off alpha i1\n");
}

#define FENCE_TEST(fn) cmocka_unit_test_setup_teardown(fn, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FENCE_TEST(finds),
        FENCE_TEST(actions),
        FENCE_TEST(options_on_stdin),
        FENCE_TEST(not_valid),
        FENCE_TEST(status),
        FENCE_TEST(failures),
        FENCE_TEST(late_success_is_none),
        FENCE_TEST(secrets_stay_secret),
        FENCE_TEST(kill_it),
        FENCE_TEST(dummy),
        FENCE_TEST(all_of_the_first_level),
        FENCE_TEST(next_level),
        FENCE_TEST(no_level),
        FENCE_TEST(reboot_by_several),
        FENCE_TEST(times),
        FENCE_TEST(host_not_valid),
        FENCE_TEST(host_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
