/* What every program does once: log output, crash reports, privileges, service manager. */
#include "os/program.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

#include "base/attr.h"

/* A program's own things, of which there is one each; a crash handler can't be given an argument.
 */
static struct {
    char name[64];
    char crash_path[PATH_MAX]; /* "": none */
    struct hf_timer *watchdog; /* owned, until the end of the program */
    hf_time watchdog_period;
} prog;

static _Alignas(16) char crash_stack[65536];

static void set_name(const char *name)
{
    snprintf(prog.name, sizeof(prog.name), "%s", name);
}

/* ---- log ---- */

/* Is stderr the stream that the service manager connected to the journal? See systemd.exec(5). */
static bool stderr_is_journal(void)
{
    const char *env = getenv("JOURNAL_STREAM");
    struct stat st;
    char mine[64];
    if (!env || fstat(STDERR_FILENO, &st) < 0) {
        return false;
    }
    snprintf(mine, sizeof(mine), "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    return strcmp(env, mine) == 0;
}

static void to_journal(void *arg, enum hf_log_level level, const char *prefix, const char *text)
{
    (void)arg;
    sd_journal_send("MESSAGE=%s%s%s", prefix, *prefix ? ": " : "", text, "PRIORITY=%d", (int)level,
                    "SYSLOG_IDENTIFIER=%s", prog.name, "HOLDFAST_PREFIX=%s", prefix, NULL);
}

static const char *level_name(enum hf_log_level level)
{
    return level == HF_LOG_ERR    ? "error"
           : level == HF_LOG_WARN ? "warn "
           : level == HF_LOG_INFO ? "info "
                                  : "debug";
}

static void to_stderr(void *arg, enum hf_log_level level, const char *prefix, const char *text)
{
    (void)arg;
    hf_time now = hf_wall_now();
    time_t s = (time_t)(now / HF_NS_PER_S);
    struct tm tm;
    char when[32] = "", line[1400];
    strftime(when, sizeof(when), "%F %T", localtime_r(&s, &tm));
    int n = snprintf(line, sizeof(line) - 1, "%s.%03d %s %s%s%s", when,
                     (int)(now % HF_NS_PER_S / HF_NS_PER_MS), level_name(level), prefix,
                     *prefix ? ": " : "", text);
    n = n < (int)sizeof(line) - 1 ? n : (int)sizeof(line) - 2;
    for (int i = 0; i < n; i++) { /* foreign text must not steer a terminal or fake a line */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n) < 0) {
        return; /* nowhere to tell it */
    }
}

void hf_program_log_open(const char *name, enum hf_log_level level)
{
    set_name(name);
    hf_log_setup(stderr_is_journal() ? to_journal : to_stderr, NULL, hf_now, level);
}

/* ---- crash ---- */

static void put_fd(int fd, const char *s)
{
    for (size_t n = strlen(s); n;) {
        ssize_t w = write(fd, s, n);
        if (w <= 0) {
            return;
        }
        s += w;
        n -= (size_t)w;
    }
}

static void put_line(void *arg, const char *line)
{
    const int *fd = arg;
    put_fd(*fd, line);
    put_fd(*fd, "\n");
}

static void report(int fd, const char *signal_name)
{
    put_fd(fd, prog.name);
    put_fd(fd, ": killed by SIG");
    put_fd(fd, signal_name);
    put_fd(fd, "; the last lines of its flight recorder:\n");
    hf_log_recorder_dump(put_line, &fd);
}

/* Only async-signal-safe functions: see signal-safety(7). */
static void on_crash(int signo)
{
    const char *name = sigabbrev_np(signo);
    name = name ? name : "?";
    int fd = *prog.crash_path ? open(prog.crash_path,
                                     O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)
                              : -1;
    if (fd >= 0) {
        report(fd, name);
        fsync(fd);
        close(fd);
    }
    report(STDERR_FILENO, name);
    raise(signo); /* blocked until we return, then its default action (SA_RESETHAND) */
}

void hf_program_harden(const char *name, const char *dir)
{
    set_name(name);
    prog.crash_path[0] = '\0';
    if (dir && snprintf(prog.crash_path, sizeof(prog.crash_path), "%s/%s.crash", dir, name) >=
                   (int)sizeof(prog.crash_path)) {
        prog.crash_path[0] = '\0';
    }
    stack_t ss = {.ss_sp = crash_stack, .ss_size = sizeof(crash_stack)};
    sigaltstack(&ss, NULL);
    struct sigaction sa = {.sa_handler = on_crash, .sa_flags = (int)(SA_ONSTACK | SA_RESETHAND)};
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < HF_ARRAY_LEN(signals); i++) {
        sigaction(signals[i], &sa, NULL);
    }
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* ---- privileges ---- */

int hf_program_keep(uint64_t keep)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capget, &head, data) < 0) {
        return -errno;
    }
    for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        data[i].permitted &= (uint32_t)(keep >> (32 * i));
        data[i].effective = data[i].inheritable = data[i].permitted;
    }
    if (syscall(SYS_capset, &head, data) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return -errno;
    }
    for (unsigned long cap = 0; cap < 64; cap++) {
        if (data[cap / 32].permitted & 1u << (cap % 32)) {
            (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
        }
    }
    return 0;
}

static int become(const struct passwd *pw, uint64_t keep)
{
    if (geteuid() != 0) { /* started as this user already: check() saw to it */
        return 0;
    }
    for (unsigned long cap = 0; cap < 64; cap++) {
        if (!(keep & 1ull << cap)) {
            (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
        }
    }
    if (keep && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) {
        return -errno;
    }
    if (initgroups(pw->pw_name, pw->pw_gid) < 0 ||
        setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
        setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0) {
        return -errno;
    }
    return 0;
}

int hf_program_drop(const char *user, uint64_t keep, struct hf_err *err)
{
    if (!*user) {
        return 0;
    }
    errno = 0;
    const struct passwd *pw = getpwnam(user);
    if (!pw) {
        int rc = errno ? -errno : -HF_ECONFIG;
        return hf_err_set(err, rc, "cannot run as user '%s': %s", user,
                          rc == -HF_ECONFIG ? "there is none; create it with useradd --system"
                                            : hf_strerror(rc));
    }
    if (geteuid() != 0 && geteuid() != pw->pw_uid) {
        return hf_err_set(err, -EPERM, "cannot run as user '%s': only root can change the user",
                          user);
    }
    int rc = become(pw, keep);
    rc = rc ? rc : hf_program_keep(keep);
    if (rc == 0 && pw->pw_uid != 0 && (setuid(0) == 0 || geteuid() != pw->pw_uid)) {
        rc = -EPERM; /* it did not hold */
    }
    if (rc) {
        return hf_err_set(err, rc, "cannot run as user '%s': %s", user, hf_strerror(rc));
    }
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* changing ids sets it anew */
    return 0;
}

uint64_t hf_program_lacks(uint64_t need)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &head, data) < 0) {
        return need;
    }
    return need & ~(data[0].effective | (uint64_t)data[1].effective << 32);
}

/* ---- service manager ---- */

void hf_program_notify(const char *state)
{
    sd_notify(0, state);
}

static void on_watchdog(void *arg)
{
    (void)arg;
    sd_notify(0, "WATCHDOG=1");
    hf_timer_set(prog.watchdog, hf_now() + prog.watchdog_period);
}

int hf_program_watchdog(struct hf_loop *loop)
{
    uint64_t us = 0;
    int rc = sd_watchdog_enabled(0, &us);
    if (rc <= 0) {
        return rc;
    }
    rc = hf_timer_create(loop, on_watchdog, NULL, &prog.watchdog);
    if (rc == 0) {
        prog.watchdog_period = (hf_time)(us * 1000 / 2);
        hf_timer_set(prog.watchdog, hf_now());
    }
    return rc;
}
