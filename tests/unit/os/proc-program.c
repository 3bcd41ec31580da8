/* os/proc, os/program and os/daemon: output, ends, floods, hangs, grandchildren; crash reports,
 * privileges; command lines, a daemon's life. */
#include <errno.h>
#include <getopt.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "os/daemon.h"
#include "os/file.h"
#include "os/proc.h"
#include "os/program.h"
#include "support/test.h"

static struct hf_loop *loop;

struct seen {
    int calls;
    struct hf_proc_result res;
    char out[2048], err[256];
};

static int create(void **state)
{
    (void)state;
    return hf_loop_create(&loop);
}

static int destroy(void **state)
{
    (void)state;
    hf_loop_destroy(loop);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing left behind */
    assert_int_equal(errno, ECHILD);
    return 0;
}

static void on_done(void *arg, const struct hf_proc_result *res)
{
    struct seen *s = arg;
    s->calls++;
    s->res = *res;
    snprintf(s->out, sizeof(s->out), "%.*s", HF_SLICE_FMT(res->out));
    snprintf(s->err, sizeof(s->err), "%.*s", HF_SLICE_FMT(res->err));
    hf_loop_stop(loop);
}

static struct seen run(const char *script, size_t output_max, hf_time timeout)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    const char *env[] = {"A=b", "PATH=/usr/bin:/bin", NULL};
    struct hf_proc_opt o = {.argv = argv, .env = env, .output_max = output_max, .timeout = timeout};
    struct seen s = {0};
    struct hf_proc *p;
    assert_int_equal(hf_proc_start(loop, &o, on_done, &s, &p), 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(s.calls, 1);
    return s;
}

static void ends(void **state)
{
    (void)state;
    struct seen s = run("echo $A; echo oops >&2; exit 7", 100, 0);
    assert_int_equal(s.res.status, 7);
    assert_int_equal(s.res.signo, 0);
    assert_false(s.res.timed_out);
    assert_string_equal(s.out, "b\n");
    assert_string_equal(s.err, "oops\n");
    s = run("kill -9 $$", 100, 0);
    assert_int_equal(s.res.status, -1);
    assert_int_equal(s.res.signo, SIGKILL);
    s = run("ls /proc/self/fd | wc -l; read x || echo eof", 100, 0);
    assert_string_equal(s.out, "4\neof\n"); /* 0, 1, 2 and that of the directory */
}

static void feeds(void **state)
{
    (void)state;
    static char text[100000];
    memset(text, 'x', sizeof(text)); /* more than a pipe takes at once */
    const char *argv[] = {"/bin/sh", "-c", "wc -c; sleep 0; read x || echo eof", NULL};
    const char *env[] = {"PATH=/usr/bin:/bin", NULL};
    struct hf_proc_opt o = {
        .argv = argv, .env = env, .output_max = 100, .input = hf_slice(text, sizeof(text))};
    struct seen s = {0};
    struct hf_proc *p;
    assert_int_equal(hf_proc_start(loop, &o, on_done, &s, &p), 0);
    memset(text, 0, sizeof(text));
    assert_int_equal(hf_loop_run(loop), 0);
    assert_string_equal(s.out, "100000\neof\n");
}

struct talk {
    struct seen seen; /* first: hf_proc_done gets it */
    struct hf_proc *p;
    char told[256];
    bool kill;
};

static void on_line(void *arg, struct hf_slice line)
{
    struct talk *t = arg;
    size_t n = strlen(t->told);
    snprintf(t->told + n, sizeof(t->told) - n, "%.*s;", HF_SLICE_FMT(line));
    if (t->kill) {
        hf_proc_kill(t->p);
        hf_loop_stop(loop);
    } else if (hf_slice_eq(line, hf_slice_str("ready"))) {
        assert_int_equal(hf_proc_say(t->p, hf_slice_str("one\ntwo\n"), HF_S(60)), 0);
    } else if (hf_slice_eq(line, hf_slice_str("two"))) {
        hf_proc_limit(t->p, 0);
        hf_proc_hush(t->p);
        assert_int_equal(hf_proc_say(t->p, hf_slice_str("x"), 0), -EPIPE);
    }
}

static void talks(void **state)
{
    (void)state;
    const char *argv[] = {"/bin/sh", "-c",
                          "echo ready; while read -r l; do echo $l; done; printf 'the end'; exit 3",
                          NULL};
    const char *env[] = {"PATH=/usr/bin:/bin", NULL};
    struct hf_proc_opt o = {.argv = argv, .env = env, .output_max = 100, .line = on_line};
    struct talk t = {.kill = false};
    assert_int_equal(hf_proc_start(loop, &o, on_done, &t, &t.p), 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_string_equal(t.told, "ready;one;two;");
    assert_string_equal(t.seen.out, "the end");
    assert_int_equal(t.seen.res.status, 3);
    struct talk k = {.kill = true}; /* from the line's own call */
    assert_int_equal(hf_proc_start(loop, &o, on_done, &k, &k.p), 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_string_equal(k.told, "ready;");
    assert_int_equal(k.seen.calls, 0);
}

static void on_watched(void *arg)
{
    ++*(int *)arg;
    hf_loop_stop(loop);
}

static void watches(void **state)
{
    (void)state;
    struct hf_proc_watch *w, *other;
    int n = 0;
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    assert_int_equal(hf_proc_watch_create(loop, pid, on_watched, &n, &w), 0);
    assert_int_equal(hf_proc_watch_create(loop, pid, on_watched, &n, &other), 0);
    hf_proc_watch_destroy(other);
    hf_proc_watch_destroy(NULL);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(n, 1);
    hf_proc_watch_destroy(w);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(hf_proc_watch_create(loop, pid, on_watched, &n, &w), -ESRCH);
}

static void flood(void **state)
{
    (void)state;
    struct seen s = run("head -c 1000000 /dev/zero | tr '\\0' x", 1000, 0);
    assert_int_equal(s.res.status, 0);
    assert_int_equal(s.res.out.n, 1000);
    assert_int_equal(s.res.dropped, 999000);
    s = run("yes | head -c 1000000 >&2; echo end >&2", 5, 0); /* of stderr the end is kept */
    assert_string_equal(s.err, "\nend\n");
    assert_int_equal(s.res.dropped, 1000004 - 5);
}

static void hangs(void **state)
{
    (void)state;
    struct seen s = run("sleep 1000", 100, HF_MS(50));
    assert_true(s.res.timed_out);
    assert_int_equal(s.res.signo, SIGTERM);
    s = run("trap '' TERM; while :; do sleep 1000; done", 100, HF_MS(50)); /* SIGKILL it takes */
    assert_true(s.res.timed_out);
    assert_int_equal(s.res.signo, SIGKILL);
}

static void grandchild_holds_the_pipe(void **state)
{
    (void)state;
    struct seen s = run("sleep 1000 & echo $!", 100, 0);
    assert_int_equal(s.res.status, 0);
    pid_t grandchild = atoi(s.out);
    assert_true(grandchild > 1);
    char path[64], stat[200] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", grandchild);
    for (;;) { /* dead, or a zombie that its new parent has not yet looked at */
        FILE *f = fopen(path, "r");
        if (!f || !fgets(stat, sizeof(stat), f) || strstr(stat, ") Z")) {
            if (f) {
                fclose(f);
            }
            break;
        }
        fclose(f);
        usleep(1000);
    }
}

static void lines(void **state)
{
    (void)state;
    struct hf_slice text = hf_slice_str("a: 1\na: 2 \nb: 3\na:  \n\n");
    hf_assert_slice_str(hf_proc_last_line(text, "a:"), "2");
    hf_assert_slice_str(hf_proc_last_line(text, ""), "a:");
    hf_assert_slice_str(hf_proc_last_line(text, "c"), "");
    hf_assert_slice_str(hf_proc_last_line(hf_slice_str("no newline"), ""), "no newline");
    hf_assert_slice_str(hf_proc_last_line(hf_slice(NULL, 0), ""), "");
    char small[8] = "ab";
    hf_proc_add_printable(small, sizeof(small), hf_slice_str("c\td\xc3\xa4\xc3\xa4"));
    assert_string_equal(small, "abc?d\xc3\xa4"); /* whole characters only */
}

static void not_found(void **state)
{
    (void)state;
    const char *argv[] = {"/nosuch/program", NULL}, *env[] = {NULL};
    struct hf_proc_opt o = {.argv = argv, .env = env, .output_max = 10};
    struct hf_proc *p = NULL;
    assert_int_equal(hf_proc_start(loop, &o, on_done, NULL, &p), -ENOENT);
    assert_null(p);
    argv[0] = "/etc/passwd";
    assert_int_equal(hf_proc_start(loop, &o, on_done, NULL, &p), -EACCES);
}

static void killed(void **state)
{
    (void)state;
    const char *argv[] = {"/bin/sleep", "1000", NULL}, *env[] = {NULL};
    struct hf_proc_opt o = {.argv = argv, .env = env, .output_max = 10};
    struct hf_proc *p = NULL;
    assert_int_equal(hf_proc_start(loop, &o, on_done, NULL, &p), 0);
    hf_proc_kill(p);
    hf_proc_kill(NULL);
}

/* ---- program ---- */

/* Run fn in a child with stderr in the file; returns its wait status. */
static int in_child(void (*fn)(const char *dir), const char *dir)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char path[128];
        snprintf(path, sizeof(path), "%s/stderr", dir);
        if (!freopen(path, "w", stderr)) {
            _exit(99);
        }
        fn(dir);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void crash(const char *dir)
{
    struct rlimit none = {0};
    setrlimit(RLIMIT_CORE, &none);
    unsetenv("JOURNAL_STREAM");
    hf_program_log_open("tester", HF_LOG_INFO);
    hf_program_harden("tester", dir);
    hf_log_info("peer beta", "line\none");
    hf_log_debug("", "only recorded");
    abort();
}

static void content(const char *dir, const char *name, struct hf_buf *b)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    hf_buf_init(b, 1 << 20);
    assert_int_equal(hf_file_read(path, b), 0);
    hf_buf_add(b, hf_slice("", 1));
    unlink(path);
}

static void crash_report(void **state)
{
    (void)state;
    char dir[] = "/tmp/hf-crash-XXXXXX";
    assert_non_null(mkdtemp(dir));
    int status = in_child(crash, dir);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    struct hf_buf b;
    content(dir, "tester.crash", &b);
    assert_non_null(strstr((char *)b.p, "tester: killed by SIGABRT"));
    assert_non_null(strstr((char *)b.p, "only recorded"));
    hf_buf_fini(&b);
    content(dir, "stderr", &b);
    assert_non_null(strstr((char *)b.p, " info  peer beta: line?one\n"));
    assert_non_null(strstr((char *)b.p, "only recorded")); /* the recorder */
    hf_buf_fini(&b);
    assert_int_equal(rmdir(dir), 0);
}

/* Lines of this thread's status that tell of capabilities and say just that. */
static int capability_lines(const char *hex)
{
    FILE *f = fopen("/proc/thread-self/status", "r");
    char line[256], text[32];
    int n = 0;
    snprintf(text, sizeof(text), ":\t%s", hex);
    while (f && fgets(line, sizeof(line), f)) {
        n += strncmp(line, "Cap", 3) == 0 && strstr(line, text) != NULL;
    }
    return n;
}

/* Some are kept: all five sets have these, so programs that are run have them, too. */
static void drop_most(const char *dir)
{
    (void)dir;
    struct hf_err err;
    if (geteuid() == 0) {
        uint64_t raw = 1ull << CAP_NET_RAW, high = 1ull << CAP_BPF;
        int rc = hf_program_drop("nobody", 1ull << CAP_NET_ADMIN, &err);
        bool lacks = hf_program_lacks(1ull << CAP_NET_ADMIN | raw | high) == (raw | high);
        if (rc || geteuid() == 0 || !lacks || capability_lines("0000000000001000") != 5) {
            _exit(4);
        }
        rc = hf_program_keep(raw); /* which it does not have */
        _exit(rc == 0 && hf_program_lacks(1ull << CAP_NET_ADMIN) ? 0 : 5);
    }
}

static void drop(const char *dir)
{
    (void)dir;
    struct hf_err err;
    bool root = geteuid() == 0;
    int rc = hf_program_drop("nobody", 0, &err);
    if (root ? rc != 0 || geteuid() == 0 || setuid(0) == 0 : rc != -EPERM) {
        _exit(1);
    }
    if (hf_program_drop("", 0, &err) != 0 ||
        hf_program_drop("no such user", 0, &err) != -HF_ECONFIG) {
        _exit(2);
    }
    if (root) { /* gone for good */
        _exit(capability_lines("0000000000000000") == 5 ? 0 : 3);
    }
}

static void privileges(void **state)
{
    (void)state;
    char dir[] = "/tmp/hf-drop-XXXXXX";
    assert_non_null(mkdtemp(dir));
    int status[] = {in_child(drop, dir), in_child(drop_most, dir)};
    struct hf_buf b;
    content(dir, "stderr", &b);
    hf_buf_fini(&b);
    assert_int_equal(rmdir(dir), 0);
    for (size_t i = 0; i < HF_ARRAY_LEN(status); i++) {
        assert_true(WIFEXITED(status[i]));
        assert_int_equal(WEXITSTATUS(status[i]), 0);
    }
}

/* ---- service manager ---- */

static int manager_fd;

static void on_notify(void *arg, unsigned events)
{
    (void)events;
    struct seen *s = arg;
    ssize_t n = recv(manager_fd, s->out, sizeof(s->out) - 1, 0);
    s->out[n > 0 ? n : 0] = '\0';
    s->calls++;
    hf_loop_stop(loop);
}

static void tells_the_service_manager(void **state)
{
    (void)state;
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct seen s = {0};
    struct hf_io *io;
    hf_program_notify("READY=1"); /* nobody to tell */
    assert_int_equal(hf_program_watchdog(loop), 0);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "@hf-notify-%d", getpid());
    setenv("NOTIFY_SOCKET", sa.sun_path, 1);
    setenv("WATCHDOG_USEC", "2000", 1);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(sa.sun_path));
    sa.sun_path[0] = '\0'; /* abstract: no file to leave behind */
    manager_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(manager_fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(hf_io_create(loop, manager_fd, HF_IO_READ, on_notify, &s, &io), 0);
    hf_program_notify("READY=1");
    assert_int_equal(hf_loop_run(loop), 0);
    assert_string_equal(s.out, "READY=1");
    assert_int_equal(hf_program_watchdog(loop), 0);
    for (int i = 0; i < 3; i++) { /* again and again */
        assert_int_equal(hf_loop_run(loop), 0);
        assert_string_equal(s.out, "WATCHDOG=1");
    }
    assert_int_equal(s.calls, 4);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    hf_io_destroy(io);
    close(manager_fd);
}

static char lived[64];

static int life_open(void *arg, struct hf_err *err)
{
    strcat(lived, " open");
    return *(bool *)arg ? hf_err_set(err, -EBUSY, "another one") : 0;
}

static void life_close(void *arg)
{
    (void)arg;
    strcat(lived, " close");
}

static void life_signal(void *arg, int signo)
{
    (void)arg;
    strcat(lived, signo == SIGTERM ? " SIGTERM" : " SIGHUP");
    if (signo == SIGTERM) {
        hf_loop_stop(loop);
    } else {
        kill(getpid(), SIGTERM);
    }
}

static void hang_up(void *arg)
{
    (void)arg;
    kill(getpid(), SIGHUP);
}

static const struct hf_daemon life = {.name = "tester",
                                      .config = "/etc/tester.conf",
                                      .open = life_open,
                                      .close = life_close,
                                      .on_signal = life_signal};

static void lives(void **state)
{
    (void)state;
    bool fails = false;
    struct hf_timer *t;
    *lived = '\0';
    assert_int_equal(hf_timer_create(loop, hang_up, NULL, &t), 0);
    hf_timer_set(t, hf_now());
    assert_int_equal(hf_daemon_run(&life, loop, &fails), 0);
    assert_string_equal(lived, " open SIGHUP SIGTERM close");
    hf_timer_destroy(t);
    fails = true;
    *lived = '\0';
    assert_int_equal(hf_daemon_run(&life, loop, &fails), -EBUSY);
    assert_string_equal(lived, " open close"); /* half of it may be open */
}

/* Go on, and with what? Otherwise the code that the program ends with. */
static int parse(const char *task, const char *a, const char *b, struct hf_daemon_args *args)
{
    struct hf_daemon d = life;
    static char words[3][32];
    char *argv[] = {words[0], words[1], words[2], NULL};
    snprintf(words[0], sizeof(words[0]), "tester");
    snprintf(words[1], sizeof(words[1]), "%s", a ? a : "");
    snprintf(words[2], sizeof(words[2]), "%s", b ? b : "");
    argv[1] = a ? words[1] : NULL;
    argv[2] = b ? words[2] : NULL;
    int code = -1;
    d.task = task;
    d.task_help = "do it";
    optind = 0; /* getopt(3): begin anew */
    return hf_daemon_args(&d, a ? b ? 3 : 2 : 1, argv, args, &code) ? -1 : code;
}

static void command_lines(const char *dir)
{
    struct hf_daemon_args args;
    int step = 0;
    bool ok = freopen("/dev/null", "w", stdout) != NULL;
    (void)dir;
    ok = ok && ++step && parse(NULL, NULL, NULL, &args) == -1 && args.what == HF_DAEMON_RUN &&
         strcmp(args.config, "/etc/tester.conf") == 0;
    ok = ok && ++step && parse(NULL, "-c", "x", &args) == -1 && strcmp(args.config, "x") == 0;
    ok = ok && ++step && parse(NULL, "--check", NULL, &args) == -1 && args.what == HF_DAEMON_CHECK;
    ok = ok && ++step && parse("init", "--init", NULL, &args) == -1 && args.what == HF_DAEMON_TASK;
    ok = ok && ++step && parse(NULL, "--init", NULL, &args) == 2;
    ok = ok && ++step && parse(NULL, "--version", NULL, &args) == 0;
    ok = ok && ++step && parse(NULL, "--help", NULL, &args) == 0;
    ok = ok && ++step && parse(NULL, "--chek", NULL, &args) == 2;
    ok = ok && ++step && parse(NULL, "--check", "more", &args) == 2;
    fflush(stderr); /* reopened, it may be buffered */
    _exit(ok ? 0 : step);
}

static void reads_the_command_line(void **state)
{
    (void)state;
    char dir[] = "/tmp/hf-args-XXXXXX";
    struct hf_buf b;
    assert_non_null(mkdtemp(dir));
    int status = in_child(command_lines, dir);
    content(dir, "stderr", &b);
    rmdir(dir);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0); /* else: which line of command_lines() */
    assert_non_null(strstr((char *)b.p, "usage: tester [-c FILE] [--check | --version]\n"));
    assert_non_null(strstr((char *)b.p, "tester: unexpected argument more\n"));
    hf_buf_fini(&b);
}

static void files_child(const char *dir)
{
    struct rlimit r;
    (void)dir;
    unsetenv("JOURNAL_STREAM");
    hf_program_log_open("tester", HF_LOG_INFO);
    getrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = 64;
    r.rlim_max = 128;
    setrlimit(RLIMIT_NOFILE, &r);
    hf_daemon_files(100, "limits.few");
    bool ok = getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur == 100;
    struct hf_err err;
    if (geteuid() == 0 && hf_program_drop("nobody", 0, &err)) {
        _exit(2);
    }
    hf_daemon_files(1000, "limits.many");
    _exit(ok && getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur == 128 ? 0 : 1);
}

static void raises_its_descriptors(void **state)
{
    (void)state;
    char dir[] = "/tmp/hf-files-XXXXXX";
    struct hf_buf b;
    assert_non_null(mkdtemp(dir));
    int status = in_child(files_child, dir);
    content(dir, "stderr", &b);
    rmdir(dir);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_null(strstr((char *)b.p, "limits.few"));
    assert_non_null(strstr((char *)b.p, "128 descriptors are fewer than limits.many may need"));
    hf_buf_fini(&b);
}

#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(ends),
        LOOP_TEST(feeds),
        LOOP_TEST(talks),
        LOOP_TEST(watches),
        LOOP_TEST(flood),
        LOOP_TEST(hangs),
        LOOP_TEST(grandchild_holds_the_pipe),
        HF_TEST(lines),
        LOOP_TEST(not_found),
        LOOP_TEST(killed),
        HF_TEST(crash_report),
        HF_TEST(privileges),
        LOOP_TEST(tells_the_service_manager),
        LOOP_TEST(lives),
        HF_TEST(reads_the_command_line),
        HF_TEST(raises_its_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
