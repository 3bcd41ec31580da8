/* Child processes: start, feed, collect bounded output, time out, kill with all they started. */
#include "os/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#define KILL_AFTER HF_S(2)      /* SIGTERM to SIGKILL */
#define OUTPUT_GRACE HF_MS(200) /* end of the child to end of its output, which others may hold */
#define KILL_WAIT_MS 100        /* hf_proc_kill() waits this long at most */
#define READ_CHUNK ((size_t)65536)
#define NAME_LEN_MAX 63
#define CHILD_STACK ((size_t)32768) /* of a child before exec */

struct output {
    struct hf_proc *p; /* borrowed: the process it belongs to */
    int fd;            /* -1: closed */
    struct hf_io *io;  /* owned */
    struct hf_buf buf;
};

struct hf_proc {
    pid_t pid; /* also its process group; not reaped before the end, so never another's */
    int pidfd;
    struct hf_io *end_io;   /* owned; NULL once the child has ended */
    struct hf_timer *timer; /* owned */
    struct output out, err;
    bool term_sent, ended, leave_group;
    int in;              /* -1: nobody writes to it */
    hf_proc_line *line;  /* NULL: stdout is kept */
    bool *ret_destroyed; /* set by who must know; NULL: nobody */
    struct hf_proc_result res;
    hf_proc_done *fn; /* NULL after hf_proc_kill() */
    void *arg;
};

static void output_close(struct output *o)
{
    hf_io_destroy(o->io);
    o->io = NULL;
    if (o->fd >= 0) {
        close(o->fd);
    }
    o->fd = -1;
}

static void proc_destroy(struct hf_proc *p)
{
    if (p->ret_destroyed) {
        *p->ret_destroyed = true;
    }
    hf_proc_hush(p);
    output_close(&p->out);
    output_close(&p->err);
    hf_buf_fini(&p->out.buf);
    hf_buf_fini(&p->err.buf);
    hf_io_destroy(p->end_io);
    hf_timer_destroy(p->timer);
    if (p->pidfd >= 0) {
        close(p->pidfd);
    }
    hf_free(p);
}

/* The child has ended: kill what it left, unless that is to stay; reap it, tell. */
static void finish(struct hf_proc *p)
{
    if (!p->leave_group || p->res.timed_out) {
        kill(-p->pid, SIGKILL);
    }
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    if (p->fn) {
        p->res.out = hf_buf_slice(&p->out.buf);
        p->res.err = hf_buf_slice(&p->err.buf);
        p->fn(p->arg, &p->res);
    }
    proc_destroy(p);
}

static void finish_if_done(struct hf_proc *p)
{
    if (p->ended && p->out.fd < 0 && p->err.fd < 0) {
        finish(p);
    }
}

/* Append what fits; returns how many bytes did not. Out of memory is the same. */
static size_t keep_first(struct hf_buf *b, struct hf_slice s)
{
    size_t room = b->n_max - b->n, before = b->n;
    hf_buf_add(b, hf_slice(s.p, s.n < room ? s.n : room));
    return s.n - (b->n - before);
}

/* Append and keep the end: it tells how things went wrong. */
static size_t keep_last(struct hf_buf *b, struct hf_slice s)
{
    size_t n = s.n < b->n_max ? s.n : b->n_max, room = b->n_max - b->n;
    size_t dropped = s.n - n;
    if (n > room) {
        dropped += n - room;
        hf_buf_consume(b, n - room);
    }
    return dropped + keep_first(b, hf_slice(s.p + s.n - n, n));
}

/* Whole lines; what is told of one may be the end of the process. False: it was. */
static bool tell_lines(struct hf_proc *p)
{
    struct hf_buf *b = &p->out.buf;
    bool destroyed = false;
    p->ret_destroyed = &destroyed; // cppcheck-suppress autoVariables // NULL again at the end
    while (!destroyed && p->fn) {
        static uint8_t line[READ_CHUNK];
        const uint8_t *end = b->n ? memchr(b->p, '\n', b->n) : NULL;
        if (!end) {
            break;
        }
        size_t n = (size_t)(end - b->p);
        size_t told = n < sizeof(line) ? n : sizeof(line);
        memcpy(line, b->p, told);
        hf_buf_consume(b, n + 1);
        p->line(p->arg, hf_slice(line, told));
    }
    if (!destroyed) {
        p->ret_destroyed = NULL;
    }
    return !destroyed;
}

static void on_output(void *arg, unsigned events)
{
    (void)events;
    struct output *o = arg;
    static uint8_t chunk[READ_CHUNK];
    ssize_t n = read(o->fd, chunk, sizeof(chunk));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        output_close(o);
        finish_if_done(o->p);
        return;
    }
    o->p->res.dropped += o == &o->p->err ? keep_last(&o->buf, hf_slice(chunk, (size_t)n))
                                         : keep_first(&o->buf, hf_slice(chunk, (size_t)n));
    if (o == &o->p->out && o->p->line) {
        (void)tell_lines(o->p);
    }
}

static void on_end(void *arg, unsigned events)
{
    (void)events;
    struct hf_proc *p = arg;
    siginfo_t si = {0};
    if (waitid(P_PID, (id_t)p->pid, &si, WEXITED | WNOWAIT | WNOHANG) == 0 && si.si_pid == 0) {
        return;
    }
    p->ended = true;
    p->res.status = si.si_code == CLD_EXITED ? si.si_status : -1;
    p->res.signo = si.si_code == CLD_EXITED ? 0 : si.si_status;
    hf_io_destroy(p->end_io);
    p->end_io = NULL;
    hf_timer_set(p->timer, hf_now() + OUTPUT_GRACE);
    finish_if_done(p);
}

static void on_time(void *arg)
{
    struct hf_proc *p = arg;
    if (p->ended) {
        finish(p);
    } else if (p->term_sent) {
        kill(-p->pid, SIGKILL);
    } else {
        p->term_sent = p->res.timed_out = true;
        kill(-p->pid, SIGTERM);
        hf_timer_set(p->timer, hf_now() + KILL_AFTER);
    }
}

struct child {
    const struct hf_proc_opt *opt;
    pid_t parent;
    int in, out, err;
    int rc; /* answer: why there was no exec */
};

/* In the child, which shares our memory until exec: async-signal-safe calls only.
 * What the sanitizer noted of its frame would stay noted of our stack. */
__attribute__((no_sanitize("address"))) static int run_child(void *arg)
{
    struct child *c = arg;
    /* out of the way of 0 ... 2 first */
    int in = fcntl(c->in, F_DUPFD, 10);
    int out = fcntl(c->out, F_DUPFD, 10);
    int err = fcntl(c->err, F_DUPFD, 10);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 || close_range(3, ~0u, 0) < 0 ||
        setpgid(0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        c->rc = -errno;
        return 127;
    }
    if (getppid() != c->parent) { /* it died before PR_SET_PDEATHSIG */
        return 127;
    }
    for (int s = 1; s < NSIG; s++) {
        signal(s, SIG_DFL);
    }
    umask(022); /* ours may be tighter; agents count on the usual one */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    union {
        const char *const *in;
        char *const *out;
    } argv = {.in = c->opt->argv}, env = {.in = c->opt->env}; /* execve(2) changes neither */
    execve(c->opt->argv[0], argv.out, env.out);
    c->rc = -errno;
    return 127;
}

/* Returns when exec has happened (0) or failed (-errno, reaped). As vfork(2), but on a stack of its
 * own: a copy of the address space would cost 30 ms per GB of ours. */
static int spawn(const struct hf_proc_opt *opt, int in, int out, int err, pid_t *ret_pid)
{
    _Alignas(16) uint8_t stack[CHILD_STACK];
    struct child c = {.opt = opt, .parent = getpid(), .in = in, .out = out, .err = err};
    sigset_t all, old; /* no handler of ours may run in the child */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    pid_t pid = clone(run_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, &c);
    int rc = pid < 0 ? -errno : c.rc;
    sigprocmask(SIG_SETMASK, &old, NULL);
    if (rc == 0) {
        *ret_pid = pid;
    } else if (pid > 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    return rc;
}

static int output_init(struct hf_loop *loop, struct hf_proc *p, struct output *o, int fd)
{
    o->fd = fd;
    o->p = p;
    return hf_io_create(loop, fd, HF_IO_READ, on_output, o, &o->io);
}

/* What the child reads as its stdin: a descriptor, or -errno. A memory file takes all of it at
 * once.
 */
static int open_input(struct hf_slice input)
{
    if (input.n == 0) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
    }
    int fd = memfd_create("stdin", MFD_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : write(fd, input.p, input.n);
    int rc = n == (ssize_t)input.n && lseek(fd, 0, SEEK_SET) == 0 ? fd : n < 0 ? -errno : -ENOSPC;
    if (rc < 0 && fd >= 0) {
        close(fd);
    }
    return rc;
}

/* The same, or a pipe whose other end stays here. */
static int open_stdin(const struct hf_proc_opt *opt, struct hf_proc *p)
{
    int end[2];
    if (!opt->line) {
        return open_input(opt->input);
    }
    if (pipe2(end, O_CLOEXEC) < 0) {
        return -errno;
    }
    fcntl(end[1], F_SETFL, O_NONBLOCK);
    p->in = end[1];
    return end[0];
}

static int start_child(const struct hf_proc_opt *opt, struct hf_proc *p, int out, int err,
                       pid_t *ret_pid)
{
    int in = open_stdin(opt, p);
    int rc = in < 0 ? in : spawn(opt, in, out, err, ret_pid);
    if (in >= 0) {
        close(in);
    }
    return rc;
}

/* Pipes, child, pidfd, watches. */
static int start(struct hf_loop *loop, const struct hf_proc_opt *opt, struct hf_proc *p)
{
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) < 0) {
        return -errno;
    }
    if (pipe2(err, O_CLOEXEC) < 0) {
        int rc = -errno;
        close(out[0]);
        close(out[1]);
        return rc;
    }
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    int rc = hf_timer_create(loop, on_time, p, &p->timer);
    int rc2 = output_init(loop, p, &p->out, out[0]);
    int rc3 = output_init(loop, p, &p->err, err[0]);
    rc = rc ? rc : rc2 ? rc2 : rc3;
    rc = rc ? rc : start_child(opt, p, out[1], err[1], &p->pid);
    close(out[1]);
    close(err[1]);
    if (rc) {
        return rc;
    }
    p->pidfd = pidfd_open(p->pid, 0);
    rc = p->pidfd < 0 ? -errno : hf_io_create(loop, p->pidfd, HF_IO_READ, on_end, p, &p->end_io);
    if (rc) { /* can't be watched */
        kill(-p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
        return rc;
    }
    if (opt->timeout) {
        hf_timer_set(p->timer, hf_now() + opt->timeout);
    }
    return 0;
}

int hf_proc_start(struct hf_loop *loop, const struct hf_proc_opt *opt, hf_proc_done *fn, void *arg,
                  struct hf_proc **ret_proc)
{
    struct hf_proc *p = hf_alloc(sizeof(*p));
    if (!p) {
        return -ENOMEM;
    }
    p->fn = fn;
    p->arg = arg;
    p->leave_group = opt->leave_group;
    p->line = opt->line;
    p->pidfd = p->out.fd = p->err.fd = p->in = -1;
    hf_buf_init(&p->out.buf, opt->output_max);
    hf_buf_init(&p->err.buf, opt->output_max);
    int rc = start(loop, opt, p);
    if (rc) {
        proc_destroy(p);
        return rc;
    }
    *ret_proc = p;
    return 0;
}

int hf_proc_say(struct hf_proc *p, struct hf_slice text, hf_time timeout)
{
    if (p->in < 0 || p->ended) {
        return -EPIPE;
    }
    ssize_t n = write(p->in, text.p, text.n); /* less than PIPE_BUF: all or nothing */
    if (n != (ssize_t)text.n) {
        return n < 0 ? -errno : -EAGAIN;
    }
    hf_proc_limit(p, timeout);
    return 0;
}

void hf_proc_hush(struct hf_proc *p)
{
    if (p->in >= 0) {
        close(p->in);
    }
    p->in = -1;
}

void hf_proc_limit(struct hf_proc *p, hf_time timeout)
{
    if (!p->ended && !p->term_sent) {
        hf_timer_set(p->timer, timeout ? hf_now() + timeout : HF_NEVER);
    }
}

void hf_proc_kill(struct hf_proc *p)
{
    if (!p) {
        return;
    }
    if (!p->ended || !p->leave_group) {
        kill(-p->pid, SIGKILL);
    }
    p->fn = NULL;
    output_close(&p->out);
    output_close(&p->err);
    struct pollfd end = {.fd = p->pidfd, .events = POLLIN};
    if (p->ended || poll(&end, 1, KILL_WAIT_MS) == 1) {
        finish(p);
    } /* else it sleeps in the kernel: on_end() finishes it when that lets go */
}

struct hf_proc_watch {
    int fd;
    struct hf_io *io;
    void (*fn)(void *arg);
    void *arg;
};

static void on_watched(void *arg, unsigned events)
{
    struct hf_proc_watch *w = arg;
    (void)events;
    hf_io_destroy(w->io);
    w->io = NULL;
    w->fn(w->arg);
}

int hf_proc_watch_create(struct hf_loop *loop, long pid, void (*fn)(void *arg), void *arg,
                         struct hf_proc_watch **ret_watch)
{
    struct hf_proc_watch *w = hf_alloc(sizeof(*w));
    if (!w) {
        return -ENOMEM;
    }
    w->fn = fn;
    w->arg = arg;
    w->fd = pidfd_open((pid_t)pid, 0);
    int rc = w->fd < 0 ? -errno : hf_io_create(loop, w->fd, HF_IO_READ, on_watched, w, &w->io);
    if (rc) {
        hf_proc_watch_destroy(w);
        return rc;
    }
    *ret_watch = w;
    return 0;
}

void hf_proc_watch_destroy(struct hf_proc_watch *w)
{
    if (w) {
        hf_io_destroy(w->io);
        if (w->fd >= 0) {
            close(w->fd);
        }
        hf_free(w);
    }
}

bool hf_proc_name_ok(struct hf_slice name)
{
    for (size_t i = 0; i < name.n; i++) {
        uint8_t c = name.p[i];
        if ((c | 32) >= 'a' && (c | 32) <= 'z') {
            continue;
        }
        if (!(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.') {
            return false;
        }
    }
    return name.n > 0 && name.n <= NAME_LEN_MAX && name.p[0] != '.';
}

int hf_proc_find(const char *dirs, const char *rest, char ret_path[static PATH_MAX])
{
    int rc = -HF_ENOTFOUND;
    char path[PATH_MAX];
    for (const char *dir = dirs; dir; dir = strchr(dir, ':') ? strchr(dir, ':') + 1 : NULL) {
        size_t n = strcspn(dir, ":");
        struct stat st;
        int len = snprintf(path, sizeof(path), "%.*s/%s", (int)n, dir, rest);
        if (n == 0 || len >= (int)sizeof(path) || stat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
            continue;
        }
        if (access(path, X_OK) < 0) {
            rc = -EACCES;
            continue;
        }
        memcpy(ret_path, path, (size_t)len + 1);
        return 0;
    }
    return rc;
}

void hf_proc_end_text(const struct hf_proc_result *res, hf_time timeout, char *ret_text, size_t n)
{
    const char *sig = sigabbrev_np(res->signo);
    if (res->timed_out && timeout % HF_NS_PER_S == 0) {
        snprintf(ret_text, n, "timed out after %lld s", (long long)(timeout / HF_NS_PER_S));
    } else if (res->timed_out) {
        snprintf(ret_text, n, "timed out after %lld ms", (long long)(timeout / HF_NS_PER_MS));
    } else if (res->signo && sig) {
        snprintf(ret_text, n, "killed by SIG%s", sig);
    } else if (res->signo) {
        snprintf(ret_text, n, "killed by signal %d", res->signo);
    } else {
        snprintf(ret_text, n, "exit code %d", res->status);
    }
}

static struct hf_slice trim(struct hf_slice s)
{
    while (s.n && s.p[0] <= ' ') {
        s = hf_slice(s.p + 1, s.n - 1);
    }
    while (s.n && s.p[s.n - 1] <= ' ') {
        s.n--;
    }
    return s;
}

struct hf_slice hf_proc_last_line(struct hf_slice text, const char *prefix)
{
    struct hf_slice pre = hf_slice_str(prefix);
    while (text.n) {
        size_t begin = text.n;
        while (begin > 0 && text.p[begin - 1] != '\n') {
            begin--;
        }
        struct hf_slice line = hf_slice(text.p + begin, text.n - begin);
        if (hf_slice_starts(line, pre)) {
            struct hf_slice rest = trim(hf_slice(line.p + pre.n, line.n - pre.n));
            if (rest.n) {
                return rest;
            }
        }
        text.n = begin ? begin - 1 : 0;
    }
    return hf_slice(NULL, 0);
}

void hf_proc_add_printable(char *text, size_t n, struct hf_slice s)
{
    size_t at = strlen(text);
    for (size_t i = 0, len; i < s.n; i += len) {
        size_t good = hf_utf8_len(s.p + i, s.n - i);
        len = good ? good : 1;
        bool plain = good && s.p[i] >= ' ' && s.p[i] != 0x7f;
        if (at + len >= n) {
            break;
        }
        if (plain) {
            memcpy(text + at, s.p + i, len);
        } else {
            text[at] = '?';
        }
        at += len;
    }
    text[at] = '\0';
}
