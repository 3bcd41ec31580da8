/* The control socket of a running holdfast-pg. */
#include "pg/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "os/file.h"
#include "os/ocf.h"
#include "pg/control_impl.h"
#include "pg/pg.h"

#define BACKLOG 64
#define LINE_MAX_LEN 1024
#define HIGH_MAX 65536
#define HIGH_ROOM 64
#define PAUSE HF_MS(100) /* when no descriptor is left */

struct hf_pg_controls {
    struct hf_pg *pg;
    int fd;
    struct hf_poll_io io;
    struct hf_poll_timer timer; /* nothing is accepted until then */
    struct sockaddr_un un;
    ino_t inode; /* of the socket's file; 0: not ours */
    void (*fn)(void *arg, struct hf_pg_control *c, const struct hf_pg_control_ask *ask);
    void (*closed)(void *arg, struct hf_pg_control *c);
    void *arg;
    struct hf_list list; /* also those that ended in this turn */
    unsigned n;          /* without these */
};

struct hf_pg_control {
    struct hf_list node;
    struct hf_pg_controls *all;
    struct hf_poll_io io;
    struct hf_poll_timer timer; /* the request is there by then */
    struct hf_poll_task task;   /* frees it */
    int fd;
    bool asked; /* fn was called */
    bool ended; /* fd is closed; freed at the end of this turn */
    struct hf_pg_control_ask ask;
    size_t n, used; /* bytes in buf; of these what fn was told */
    char buf[HF_PG_CONTROL_MAX];
};

static struct hf_poll *poll_of(const struct hf_pg_controls *all)
{
    return all->pg->wire->poll;
}

/* ---- the end of a connection ---- */

static void destroy(struct hf_pg_control *c)
{
    hf_list_unlink(&c->node);
    hf_list_unlink(&c->task.node);
    hf_free(c);
}

static void on_task(struct hf_poll_task *t)
{
    destroy(HF_CONTAINER_OF(t, struct hf_pg_control, task));
}

static void end(struct hf_pg_control *c)
{
    struct hf_poll *poll = poll_of(c->all);
    hf_poll_timer_set(poll, &c->timer, HF_NEVER);
    hf_poll_remove(poll, &c->io);
    close(c->fd);
    c->ended = true;
    c->all->n--;
    hf_poll_task_add(poll, &c->task);
}

/* The agent went away, or broke the rules. */
static void drop(struct hf_pg_control *c)
{
    end(c);
    if (c->asked) {
        hf_tracef(HF_TRACE_CTL, c->ask.action, "the agent went away");
        c->all->closed(c->all->arg, c);
    }
}

/* ---- answers ---- */

/* One line: what is no character for a line becomes a space. */
static void clean(char *text)
{
    for (; *text; text++) {
        *text = (unsigned char)*text < ' ' || *text == 0x7f ? ' ' : *text;
    }
}

static bool send_line(int fd, char *line)
{
    clean(line);
    size_t n = strlen(line);
    line[n] = '\n'; /* in place of the NUL */
    return send(fd, line, n + 1, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)(n + 1);
}

static void send_answer(int fd, int code, const char *reason)
{
    char line[LINE_MAX_LEN];
    snprintf(line, sizeof(line), "= %d %s", code, reason);
    (void)!send_line(fd, line); /* closed next, anyway */
}

void hf_pg_control_line(struct hf_pg_control *c, const char *fmt, ...)
{
    char line[LINE_MAX_LEN];
    va_list ap;
    if (c->ended) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    line[0] = line[0] == '=' ? ' ' : line[0]; /* it would be the answer */
    if (!send_line(c->fd, line)) {
        shutdown(c->fd, SHUT_RDWR); /* told as a hang-up */
    }
}

void hf_pg_control_done(struct hf_pg_control *c, int code, const char *reason)
{
    if (c->ended) {
        return;
    }
    hf_tracef(HF_TRACE_CTL, c->ask.action, "%d %s", code, reason);
    send_answer(c->fd, code, reason);
    end(c);
}

static void refuse(struct hf_pg_control *c, const char *why)
{
    hf_log_warn("control", "refused a request: %s", why);
    send_answer(c->fd, HF_OCF_ERR_ARGS, why);
    drop(c);
}

/* ---- requests ---- */

static bool is_clean(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (((unsigned char)s[i] < ' ' && s[i] != '\n') || s[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool parse_epoch(const char *s, uint64_t *ret_epoch)
{
    size_t n = strspn(s, "0123456789");
    errno = 0;
    unsigned long long epoch = strtoull(s, NULL, 10);
    if (n == 0 || s[n] || errno) {
        return false;
    }
    *ret_epoch = epoch;
    return true;
}

/* "KEY TEXT" */
static bool parse_field(char *line, struct hf_pg_control_ask *ask)
{
    char *text = strchr(line, ' ');
    if (!text || text == line) {
        return false;
    }
    *text++ = '\0';
    if (strcmp(line, "epoch") == 0) {
        return parse_epoch(text, &ask->epoch);
    }
    if (strcmp(line, "mirrors") == 0) {
        ask->mirrors = text;
    } else if (strcmp(line, "source") == 0) {
        ask->source = text;
    } else if (strcmp(line, "resource") == 0) {
        ask->resource = text;
    } else if (strcmp(line, "group") == 0) {
        ask->group = text;
    } else if (strcmp(line, "silent") == 0) {
        ask->silent = strcmp(text, "yes") == 0;
    } else if (strcmp(line, "fence") == 0) {
        ask->unfenced = strcmp(text, "none") == 0;
    }
    return true;
}

/* Of all lines before the empty one; NULL, or what is wrong. */
static const char *parse(char *text, struct hf_pg_control_ask *ask)
{
    char *rest = text;
    *ask = (struct hf_pg_control_ask){
        .action = strsep(&rest, "\n"), .mirrors = "", .source = "", .resource = "", .group = ""};
    if (!hf_pg_control_is_action(ask->action)) {
        return "it does not begin with an action";
    }
    while (rest) {
        if (!parse_field(strsep(&rest, "\n"), ask)) {
            return "a line is not a name that is known with its value";
        }
    }
    return NULL;
}

static void tell(struct hf_pg_control *c)
{
    hf_tracef(HF_TRACE_CTL, c->ask.action, "epoch %llu mirrors '%s' source '%s' resource '%s'",
              (unsigned long long)c->ask.epoch, c->ask.mirrors, c->ask.source, c->ask.resource);
    c->all->fn(c->all->arg, c, &c->ask);
}

static void take_request(struct hf_pg_control *c)
{
    char *stop = memmem(c->buf, c->n, "\n\n", 2);
    if (!stop) {
        return;
    }
    *stop = '\0';
    c->used = (size_t)(stop - c->buf) + 2;
    const char *wrong = parse(c->buf, &c->ask);
    if (wrong) {
        refuse(c, wrong);
        return;
    }
    hf_poll_timer_set(poll_of(c->all), &c->timer, HF_NEVER);
    if (!hf_pg_control_is_prepare(c->ask.action)) {
        hf_poll_want(poll_of(c->all), &c->io, 0); /* no more is awaited but its end */
        c->used = c->n;
    }
    c->asked = true;
    tell(c);
}

/* What follows a prepare-*. */
static void take_lines(struct hf_pg_control *c)
{
    char *stop;
    while (!c->ended && (stop = memchr(c->buf + c->used, '\n', c->n - c->used))) {
        *stop = '\0';
        c->ask.action = c->buf + c->used;
        c->used = (size_t)(stop - c->buf) + 1;
        if (!hf_pg_control_is_action(c->ask.action)) {
            refuse(c, "a line is not an action");
            return;
        }
        tell(c);
    }
}

static void receive(struct hf_pg_control *c)
{
    ssize_t n = recv(c->fd, c->buf + c->n, sizeof(c->buf) - c->n, 0);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            drop(c);
        }
        return;
    }
    if (n == 0) {
        if (c->asked) {
            hf_poll_want(poll_of(c->all), &c->io, 0); /* it may still read */
        } else if (c->n) {
            refuse(c, "it ends too early");
        } else {
            drop(c); /* "access": it saw that we are here */
        }
        return;
    }
    if (!is_clean(c->buf + c->n, (size_t)n)) {
        refuse(c, "it has control characters");
        return;
    }
    c->n += (size_t)n;
    if (!c->asked) {
        take_request(c);
    }
    if (c->asked) {
        take_lines(c);
    }
    if (!c->ended && c->n == sizeof(c->buf) && c->io.want) {
        refuse(c, "it is too long");
    }
}

static void on_io(struct hf_poll_io *io, unsigned ready)
{
    struct hf_pg_control *c = HF_CONTAINER_OF(io, struct hf_pg_control, io);
    if (ready & HF_POLL_HUP) { /* whatever it asked: nobody wants the answer */
        drop(c);
    } else {
        receive(c);
    }
}

static void on_late(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    refuse(HF_CONTAINER_OF(t, struct hf_pg_control, timer), "it did not come in time");
}

/* ---- the socket ---- */

/* The kernel closes the highest descriptors of a killed process first: with those the agents know
 * of its end at once, and not after those of thousands of clients. */
static int lift(int fd)
{
    struct rlimit limit;
    if (fd < 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return fd;
    }
    rlim_t top = limit.rlim_cur < HIGH_MAX ? limit.rlim_cur : HIGH_MAX;
    int high = top > HIGH_ROOM ? fcntl(fd, F_DUPFD_CLOEXEC, (int)(top - HIGH_ROOM)) : -1;
    if (high < 0) {
        return fd;
    }
    close(fd);
    return high;
}

static void accept_one(struct hf_pg_controls *all, int fd)
{
    struct hf_pg_control *c = all->n < HF_PG_CONTROLS_MAX ? hf_alloc(sizeof(*c)) : NULL;
    if (!c || hf_poll_add(poll_of(all), &c->io, fd, HF_POLL_READ, on_io)) {
        hf_log_warn("control", "refused a request: too many at once");
        send_answer(fd, HF_OCF_ERR_GENERIC, "holdfast-pg has too many requests");
        close(fd);
        hf_free(c);
        return;
    }
    c->all = all;
    c->fd = fd;
    c->timer.fn = on_late;
    c->task.fn = on_task;
    hf_list_init(&c->task.node);
    hf_list_insert(&all->list, &c->node);
    all->n++;
    hf_poll_timer_set(poll_of(all), &c->timer, hf_pg_now(all->pg) + HF_PG_CONTROL_TIME);
}

static void on_accept(struct hf_poll_io *io, unsigned ready)
{
    struct hf_pg_controls *all = HF_CONTAINER_OF(io, struct hf_pg_controls, io);
    (void)ready;
    for (int i = 0; i < BACKLOG; i++) {
        int fd = accept4(all->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            accept_one(all, lift(fd));
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            hf_log_warn("control", "cannot accept an agent: %s; trying again in 100 ms",
                        hf_strerror(-errno));
            hf_poll_want(poll_of(all), &all->io, 0);
            hf_poll_timer_set(poll_of(all), &all->timer, hf_pg_now(all->pg) + PAUSE);
            return;
        } else if (errno == EAGAIN) {
            return;
        } /* others: that one is gone */
    }
}

static void on_pause_over(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg_controls *all = HF_CONTAINER_OF(t, struct hf_pg_controls, timer);
    (void)now;
    hf_poll_want(poll_of(all), &all->io, HF_POLL_READ);
}

static int listen_at(struct hf_pg_controls *all, const char *path, struct hf_err *err)
{
    struct stat st;
    const struct sockaddr *sa = (const struct sockaddr *)&all->un;
    all->un.sun_family = AF_UNIX;
    if (snprintf(all->un.sun_path, sizeof(all->un.sun_path), "%s", path) >=
        (int)sizeof(all->un.sun_path)) {
        return hf_err_set(err, -ENAMETOOLONG, "cannot listen at %.100s...: the path is too long",
                          path);
    }
    int rc = hf_file_make_dir_of(path, 0755, err);
    if (rc) {
        return rc;
    }
    if (hf_file_is_stale_socket(&all->un)) {
        unlink(path);
    }
    all->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* the file gets the socket's mode: nobody else can connect in between */
    if (all->fd < 0 || fchmod(all->fd, 0600) < 0 || bind(all->fd, sa, sizeof(all->un)) < 0) {
        rc = -errno;
        return hf_err_set(err, rc, "cannot listen at %s: %s%s", path, hf_strerror(rc),
                          rc == -EADDRINUSE ? "; end what is there, or give one of both another "
                                              "service.control"
                                            : "");
    }
    all->inode = stat(path, &st) == 0 ? st.st_ino : 0;
    all->fd = lift(all->fd);
    if (listen(all->fd, BACKLOG) < 0) {
        return hf_err_set(err, -errno, "cannot listen at %s: %s", path, hf_strerror(-errno));
    }
    return 0;
}

int hf_pg_controls_open(struct hf_pg *pg, const char *path,
                        void (*fn)(void *arg, struct hf_pg_control *c,
                                   const struct hf_pg_control_ask *ask),
                        void (*closed)(void *arg, struct hf_pg_control *c), void *arg,
                        struct hf_err *err, struct hf_pg_controls **ret_controls)
{
    struct hf_pg_controls *all = hf_alloc(sizeof(*all));
    if (!all || hf_poll_reserve(pg->wire->poll, HF_PG_CONTROLS_MAX + 1)) {
        hf_free(all);
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    *all = (struct hf_pg_controls){.pg = pg, .fd = -1, .fn = fn, .closed = closed, .arg = arg};
    all->io.fd = -1;
    all->timer.fn = on_pause_over;
    hf_list_init(&all->list);
    int rc = listen_at(all, path, err);
    if (rc == 0) {
        rc = hf_poll_add(pg->wire->poll, &all->io, all->fd, HF_POLL_READ, on_accept);
        rc = rc ? hf_err_set(err, rc, "cannot listen at %s: %s", path, hf_strerror(rc)) : 0;
    }
    if (rc) {
        hf_pg_controls_close(all);
        return rc;
    }
    *ret_controls = all;
    return 0;
}

void hf_pg_controls_close(struct hf_pg_controls *all)
{
    if (!all) {
        return;
    }
    struct stat st;
    struct hf_poll *poll = poll_of(all);
    HF_LIST_FOREACH (node, &all->list) {
        struct hf_pg_control *c = HF_CONTAINER_OF(node, struct hf_pg_control, node);
        if (!c->ended) {
            end(c);
        }
        destroy(c);
    }
    hf_poll_timer_set(poll, &all->timer, HF_NEVER);
    hf_poll_remove(poll, &all->io);
    (void)!hf_poll_reserve(poll, -(HF_PG_CONTROLS_MAX + 1));
    if (all->inode && stat(all->un.sun_path, &st) == 0 && st.st_ino == all->inode) {
        unlink(all->un.sun_path); /* ours, and not that of one that came after us */
    }
    if (all->fd >= 0) {
        close(all->fd);
    }
    hf_free(all);
}
