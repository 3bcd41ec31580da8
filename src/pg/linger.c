/* The process that holds server connections a second time, and its messages. */
#include "pg/linger.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "os/forward.h"
#include "os/netaddr.h"
#include "os/program.h"

#define NAME "hf-pg-linger"
#define EVENTS 64
#define FDS_MAX (1u << 20)
#define HIGH 65536 /* clients' descriptors are below, mostly */

/* One byte, and of KEEP and GUARD a descriptor. */
enum message { PROTECTED = 'p', ALONE = 'a', KEEP = 'k', GUARD = 'g' };
enum { CONTROL = 3, ANNOUNCER = 4, FIRST = 5 }; /* descriptors of the second process */

struct hf_pg_linger {
    int fd; /* -1: it is gone */
    pid_t pid;
    bool is_protected;
};

/* ---- the second process ---- */

struct life {
    const struct hf_pg_config *config;
    int epoll, guard;
    bool *held; /* by descriptor */
    size_t n_fds, n_held, next;
    bool is_protected;
    hf_time died_at; /* 0: it lives */
    hf_time close_at, every;
    struct hf_forward *forward;
};

static int watch(const struct life *l, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};
    return epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static void let_go(struct life *l, int fd)
{
    l->held[fd] = false;
    l->n_held--;
    close(fd);
}

static void hold(struct life *l, int fd)
{
    if ((size_t)fd >= l->n_fds || watch(l, fd, EPOLLRDHUP)) {
        close(fd); /* it ends with its owner */
        return;
    }
    l->held[fd] = true;
    l->n_held++;
}

/* False: the first process has no more to say. */
static bool hear(struct life *l)
{
    char what = 0;
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec io = {.iov_base = &what, .iov_len = 1};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(CONTROL, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n <= 0) {
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    }
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
        int fd;
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
        if (what == GUARD) {
            if (l->guard >= 0) {
                close(l->guard);
            }
            l->guard = fd;
        } else {
            hold(l, fd);
        }
    } else if (what == PROTECTED || what == ALONE) {
        l->is_protected = what == PROTECTED;
    }
    return true;
}

static void bury(struct life *l)
{
    struct hf_err err;
    struct hf_endpoint address = hf_addr_to_endpoint(&l->config->service.address);
    l->close_at = l->died_at + HF_PG_PART_AFTER;
    l->every = hf_pg_part_every(l->n_held);
    if (hf_forward_open(l->config->service.interface, &address, &err, &l->forward) ||
        watch(l, hf_forward_fd(l->forward), EPOLLIN)) {
        hf_forward_close(l->forward); /* clients send it again */
        l->forward = NULL;
    }
}

/* What is due, after the death. False: nothing is left to do. */
static bool rest(struct life *l)
{
    hf_time now = hf_now();
    while (l->n_held && now >= l->close_at) {
        while (!l->held[l->next]) {
            l->next++;
        }
        let_go(l, (int)l->next);
        l->close_at += l->every;
    }
    if (l->forward && now >= l->died_at + HF_FORWARD_TIME) {
        hf_forward_close(l->forward);
        l->forward = NULL;
    }
    return l->n_held || l->forward;
}

static int patience(const struct life *l)
{
    if (!l->died_at) {
        return -1;
    }
    hf_time at = l->forward ? l->died_at + HF_FORWARD_TIME : HF_NEVER;
    at = l->n_held ? hf_time_min(at, l->close_at) : at;
    hf_time left = at - hf_now();
    return left > 0 ? (int)(left / HF_NS_PER_MS) + 1 : 0;
}

static void turn(struct life *l)
{
    struct epoll_event e[EVENTS];
    int n = epoll_wait(l->epoll, e, EVENTS, patience(l));
    for (int i = 0; i < n; i++) {
        int fd = e[i].data.fd;
        if (fd == CONTROL && !l->died_at && !hear(l)) {
            epoll_ctl(l->epoll, EPOLL_CTL_DEL, CONTROL, NULL);
            l->died_at = hf_now();
            if (l->is_protected) {
                bury(l);
            }
        } else if (l->forward && fd == hf_forward_fd(l->forward)) {
            hf_forward_dispatch(l->forward);
        } else if (fd != CONTROL && l->held[fd]) {
            let_go(l, fd);
        }
    }
}

/* Only what it needs of what the first one has open. */
static int live(struct life *l, int control)
{
    struct rlimit files;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    control = fcntl(control, F_DUPFD, FIRST); /* out of the way */
    int announcer = fcntl(hf_netaddr_slow_fd(), F_DUPFD, FIRST);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(control, CONTROL) < 0 ||
        dup2(announcer >= 0 ? announcer : null, ANNOUNCER) < 0 || /* held only, as the guard's */
        close_range(FIRST, ~0u, 0) < 0 || getrlimit(RLIMIT_NOFILE, &files) < 0) {
        return -errno;
    }
    signal(SIGTERM, SIG_IGN); /* a service manager's, for all: the first one's end is what counts */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    prctl(PR_SET_NAME, NAME);
    l->n_fds = files.rlim_cur < FDS_MAX ? (size_t)files.rlim_cur : FDS_MAX;
    l->held = hf_alloc_array(l->n_fds, sizeof(l->held[0]));
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!l->held || l->epoll < 0) {
        return -ENOMEM;
    }
    int rc = hf_program_keep(1ull << CAP_NET_RAW); /* for what it forwards */
    rc = rc ? rc : watch(l, CONTROL, EPOLLIN);
    while (rc == 0 && (!l->died_at || (l->is_protected && rest(l)))) {
        turn(l);
    }
    return rc;
}

/* ---- the first ---- */

/* The kernel closes what a dead process had open from the highest descriptor down, some 0.1 ms for
 * each client: this one is to be among the first. */
static void raise_fd(int *fd)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        rlim_t most = files.rlim_cur < HIGH ? files.rlim_cur : HIGH;
        int high = fcntl(*fd, F_DUPFD_CLOEXEC, (int)most - 1);
        if (high >= 0) {
            close(*fd);
            *fd = high;
        }
    }
}

int hf_pg_linger_open(const struct hf_pg_config *config, struct hf_err *err,
                      struct hf_pg_linger **ret_linger)
{
    *ret_linger = NULL;
    if (!config->service.address.len) {
        return 0;
    }
    int pair[2];
    struct hf_pg_linger *l = hf_alloc(sizeof(*l));
    if (!l || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        int rc = l ? -errno : -ENOMEM;
        hf_free(l);
        return hf_err_set(err, rc, "cannot start " NAME ": %s", hf_strerror(rc));
    }
    (void)hf_netaddr_slow_fd(); /* before the fork, so that it is the same */
    l->pid = fork();
    if (l->pid == 0) {
        struct life life = {.config = config, .epoll = -1, .guard = -1};
        _exit(live(&life, pair[1]) ? 1 : 0);
    }
    close(pair[1]);
    raise_fd(&pair[0]);
    if (l->pid < 0) {
        int rc = -errno;
        close(pair[0]);
        hf_free(l);
        return hf_err_set(err, rc, "cannot start " NAME ": %s", hf_strerror(rc));
    }
    l->fd = pair[0];
    *ret_linger = l;
    return 0;
}

/* It waits for nobody: what does not fit is not held. */
static void say(struct hf_pg_linger *l, char what, int fd)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct iovec io = {.iov_base = &what, .iov_len = 1};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    if (l->fd >= 0 && sendmsg(l->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN) {
        hf_log_warn("", NAME " is gone: if this process dies, its clients wait longer for the "
                             "backup, until it is started again");
        close(l->fd);
        l->fd = -1;
    }
}

void hf_pg_linger_guard(struct hf_pg_linger *l, int fd)
{
    if (l && l->fd >= 0 && fd >= 0) {
        say(l, GUARD, fd);
    }
}

void hf_pg_linger_keep(struct hf_pg_linger *l, struct hf_pg_sconn *conn)
{
    if (l && l->fd >= 0 && !conn->link.twice && conn->link.fd >= 0) {
        conn->link.twice = true;
        say(l, KEEP, conn->link.fd);
    }
}

void hf_pg_linger_protected(struct hf_pg_linger *l, bool on)
{
    if (l && l->is_protected != on) {
        l->is_protected = on;
        say(l, on ? PROTECTED : ALONE, -1);
    }
}

void hf_pg_linger_close(struct hf_pg_linger *l)
{
    if (!l) {
        return;
    }
    hf_pg_linger_protected(l, false);
    if (l->fd >= 0) {
        close(l->fd);
    }
    (void)waitpid(l->pid, NULL, 0);
    hf_free(l);
}
