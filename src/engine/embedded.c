/* The embedded engine's driver: sockets, locks and generations around the two protocol cores. */
#include "engine/embedded.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/name.h"
#include "engine/member.h"
#include "engine/sequencer.h"

#define SNDBUF (512 << 10)
#define GENERATION_MAX (1u << 23)
#define TAG_LISTENER UINT32_MAX
#define TAG_CONN (UINT32_MAX - 1)
#define TAG_KICK (UINT32_MAX - 2)

struct embedded {
    struct hf_engine engine;
    char *run_dir; /* owned; NULL: in process */
    hf_time silence;
    struct hf_member member;
    struct hf_sequencer *seq; /* owned; NULL: another process is the sequencer */
    int local;                /* the member's own link to seq, or -1 */
    int ep, kick;             /* kick is readable when there is something to deliver */
    int listener, lock;       /* with seq and a run_dir */
    int conn;                 /* to another process's sequencer, or -1 */
    int link_fd[HF_SEQUENCER_LINKS_MAX];
    uint64_t generation; /* that we are attached to */
    uint64_t passed;     /* generations up to this one are over */
    bool stopped;        /* the one passed last was silent, not dead */
    hf_time retry_at, last;
    uint8_t buf[HF_ENGINE_V1_FRAME_MAX];
};

static struct embedded *of(struct hf_engine *e)
{
    return HF_CONTAINER_OF(e, struct embedded, engine);
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static int watch(struct embedded *e, int fd, uint32_t tag)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = tag};
    return epoll_ctl(e->ep, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static void kick(struct embedded *e)
{
    if (hf_member_ready(&e->member)) {
        ssize_t n = write(e->kick, &(uint64_t){1}, sizeof(uint64_t));
        (void)n; /* can only fail when it is readable already */
    }
}

static int send_fd(int fd, struct hf_slice s)
{
    return send(fd, s.p, s.n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int member_send(void *arg, struct hf_slice s)
{
    struct embedded *e = arg;
    if (e->seq && e->local >= 0) {
        hf_sequencer_input(e->seq, (unsigned)e->local, s, e->last);
        return 0;
    }
    return e->conn >= 0 ? send_fd(e->conn, s) : -ENOTCONN;
}

static int sequencer_send(void *arg, unsigned link, struct hf_slice s)
{
    struct embedded *e = arg;
    if ((int)link == e->local) {
        return hf_member_input(&e->member, s, e->last);
    }
    return send_fd(e->link_fd[link], s);
}

static void sequencer_close(void *arg, unsigned link)
{
    struct embedded *e = arg;
    if ((int)link == e->local) {
        e->local = -1;
    } else {
        close_fd(&e->link_fd[link]);
    }
}

/* Give up the link to the sequencer, and the sequencer if it is ours. */
static void detach(struct embedded *e, hf_time retry_at)
{
    if (e->seq) {
        hf_sequencer_fini(e->seq);
        hf_free(e->seq);
        e->seq = NULL;
    }
    e->local = -1;
    for (size_t i = 0; i < HF_ARRAY_LEN(e->link_fd); i++) {
        close_fd(&e->link_fd[i]);
    }
    close_fd(&e->listener);
    close_fd(&e->conn);
    close_fd(&e->lock);
    hf_member_detach(&e->member);
    e->retry_at = retry_at;
}

static void lock_path(const struct embedded *e, uint64_t gen, char *to, size_t n)
{
    snprintf(to, n, "%s/g%" PRIu64 ".lock", e->run_dir, gen);
}

static void sock_addr(const struct embedded *e, uint64_t gen, struct sockaddr_un *to)
{
    *to = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(to->sun_path, sizeof(to->sun_path), "%s/g%" PRIu64 ".sock", e->run_dir, gen);
}

/* The highest generation that has a lock file (0: none); files of generations below `drop` go. */
static int scan(const struct embedded *e, uint64_t drop, uint64_t *ret_highest)
{
    DIR *d = opendir(e->run_dir);
    if (!d) {
        return -errno;
    }
    uint64_t highest = 0;
    for (const struct dirent *de; (de = readdir(d)) != NULL;) {
        uint64_t gen;
        char kind[5], name[32];
        if (sscanf(de->d_name, "g%" SCNu64 ".%4s", &gen, kind) != 2 || gen > GENERATION_MAX) {
            continue;
        }
        snprintf(name, sizeof(name), "g%" PRIu64 ".%s", gen, kind);
        if (strcmp(name, de->d_name) != 0) {
            continue;
        }
        if (gen < drop) {
            (void)unlinkat(dirfd(d), name, 0);
        } else if (strcmp(kind, "lock") == 0 && gen > highest) {
            highest = gen;
        }
    }
    closedir(d);
    *ret_highest = highest;
    return 0;
}

/* Lock a generation's file; with create, make it. The lock, or -errno (-EWOULDBLOCK: held). */
static int lock_generation(const struct embedded *e, uint64_t gen, bool create)
{
    char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 32];
    lock_path(e, gen, path, sizeof(path));
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int rc = -errno;
        close_fd(&fd);
        return rc;
    }
    return fd;
}

/* Has a later generation begun? Its maker first makes its lock file, then removes the older ones.
 */
static bool superseded(const struct embedded *e)
{
    char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 32];
    lock_path(e, e->generation, path, sizeof(path));
    if (access(path, F_OK) < 0) {
        return true;
    }
    lock_path(e, e->generation + 1, path, sizeof(path));
    return access(path, F_OK) == 0;
}

static int listen_on(struct embedded *e, uint64_t gen)
{
    struct sockaddr_un sa;
    sock_addr(e, gen, &sa);
    (void)unlink(sa.sun_path);
    e->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (e->listener < 0 || bind(e->listener, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        listen(e->listener, HF_SEQUENCER_LINKS_MAX) < 0) {
        return -errno;
    }
    return watch(e, e->listener, TAG_LISTENER);
}

/* Become the sequencer of a generation whose lock we hold (or of the only one, in process). */
static int start_sequencer(struct embedded *e, uint64_t gen, bool collect, hf_time now)
{
    struct hf_sequencer_opt opt = {.generation = gen,
                                   .node_id = e->member.opt.node_id,
                                   .silence = e->silence,
                                   .collect = collect,
                                   .stopped = e->stopped,
                                   .send = sequencer_send,
                                   .close = sequencer_close,
                                   .arg = e};
    unsigned local;
    e->seq = hf_alloc(sizeof(*e->seq));
    if (!e->seq) {
        return -ENOMEM;
    }
    hf_sequencer_init(e->seq, &opt, now);
    int rc = hf_sequencer_open(e->seq, now, &local);
    if (rc) {
        return rc;
    }
    e->local = (int)local;
    e->generation = gen;
    hf_tracef(HF_TRACE_ENGINE, e->member.opt.host, "sequencer of generation %" PRIu64, gen);
    return hf_member_attach(&e->member, now);
}

/* Take generation gen, if nobody was faster. */
static int take(struct embedded *e, uint64_t gen, bool collect, hf_time now)
{
    uint64_t highest = 0;
    if (gen > GENERATION_MAX) {
        return -HF_EFULL;
    }
    e->lock = lock_generation(e, gen, true);
    if (e->lock < 0) {
        return e->lock;
    }
    /* Later generations remove older files: without this check the file may be a second one. */
    int rc = scan(e, 0, &highest);
    if (rc || highest != gen) {
        return rc ? rc : -EAGAIN;
    }
    rc = listen_on(e, gen);
    if (rc == 0) {
        rc = scan(e, gen, &highest);
    }
    return rc ? rc : start_sequencer(e, gen, collect, now);
}

static int connect_to(struct embedded *e, uint64_t gen)
{
    struct sockaddr_un sa;
    sock_addr(e, gen, &sa);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        int rc = -errno;
        close_fd(&fd);
        return rc;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){SNDBUF}, sizeof(int));
    int rc = watch(e, fd, TAG_CONN);
    if (rc) {
        close(fd);
        return rc;
    }
    e->conn = fd;
    e->generation = gen;
    return 0;
}

/* Find the sequencer, or become it. */
static int attach(struct embedded *e, hf_time now)
{
    uint64_t highest = 0;
    if (!e->run_dir) {
        return start_sequencer(e, ++e->generation, false, now);
    }
    int rc = scan(e, 0, &highest);
    if (rc) {
        return rc;
    }
    if (highest > e->passed) {
        rc = connect_to(e, highest);
        if (rc == 0) {
            /* A refusal may end the link before all is sent: it is read like everything else. */
            rc = hf_member_attach(&e->member, now);
            return rc == -EPIPE || rc == -ECONNRESET ? 0 : rc;
        }
        int lock = lock_generation(e, highest, false);
        if (lock < 0) {
            return rc; /* its owner lives, and will listen soon */
        }
        close(lock);
        e->passed = highest;
        e->stopped = false;
    }
    return take(e, (highest > e->passed ? highest : e->passed) + 1, e->passed > 0, now);
}

static void accept_links(struct embedded *e, hf_time now)
{
    for (;;) {
        int fd = accept4(e->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            return;
        }
        struct ucred uc;
        socklen_t n = sizeof(uc);
        unsigned link;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &uc, &n) < 0 ||
            (uc.uid != geteuid() && uc.uid != 0) || hf_sequencer_open(e->seq, now, &link) != 0) {
            close(fd);
            continue;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){SNDBUF}, sizeof(int));
        e->link_fd[link] = fd;
        if (watch(e, fd, link) != 0) {
            close_fd(&e->link_fd[link]);
            hf_sequencer_closed(e->seq, link, now);
        }
    }
}

/*
 * The next frame from fd into e->buf: its length, 0 at the end, or -EAGAIN. A peer that closes
 * without having read everything makes one ECONNRESET, ahead of what it sent before: that is still
 * to be read.
 */
static ssize_t receive(struct embedded *e, int fd)
{
    for (;;) {
        ssize_t n = recv(fd, e->buf, sizeof(e->buf), MSG_DONTWAIT);
        if (n >= 0 || (errno != EINTR && errno != ECONNRESET)) {
            return n >= 0 ? n : errno == EAGAIN ? -EAGAIN : 0;
        }
    }
}

static void read_link(struct embedded *e, unsigned link, hf_time now)
{
    while (e->seq && e->link_fd[link] >= 0) {
        ssize_t n = receive(e, e->link_fd[link]);
        if (n < 0) {
            return;
        }
        if (n == 0) {
            hf_sequencer_closed(e->seq, link, now);
            return;
        }
        hf_sequencer_input(e->seq, link, hf_slice(e->buf, (size_t)n), now);
    }
}

static void read_conn(struct embedded *e, hf_time now)
{
    while (e->conn >= 0) {
        ssize_t n = receive(e, e->conn);
        if (n < 0) {
            return;
        }
        int rc =
            n == 0 ? -HF_ECLOSED : hf_member_input(&e->member, hf_slice(e->buf, (size_t)n), now);
        if (rc) { /* who left us behind, or died, is asked (or replaced) at once; others later */
            bool soon = rc == -HF_ELEFT || (rc == -HF_ECLOSED && e->member.state == HF_MEMBER_UP);
            detach(e, soon ? now : now + e->silence / 8);
        }
    }
}

static void read_all(struct embedded *e, hf_time now)
{
    struct epoll_event ev[HF_SEQUENCER_LINKS_MAX];
    int n = epoll_wait(e->ep, ev, HF_ARRAY_LEN(ev), 0);
    for (int i = 0; i < n; i++) {
        uint64_t count;
        if (ev[i].data.u32 == TAG_KICK) {
            ssize_t got = read(e->kick, &count, sizeof(count));
            (void)got;
        } else if (ev[i].data.u32 == TAG_CONN) {
            read_conn(e, now);
        } else if (ev[i].data.u32 == TAG_LISTENER) {
            if (e->seq) {
                accept_links(e, now);
            }
        } else {
            read_link(e, ev[i].data.u32, now);
        }
    }
}

static bool attached(const struct embedded *e)
{
    return e->conn >= 0 || (e->seq && e->local >= 0);
}

/* The member's own link was ended by its own sequencer: greet it again. */
static void relink(struct embedded *e, hf_time now)
{
    unsigned link;
    hf_member_detach(&e->member);
    if (hf_sequencer_open(e->seq, now, &link) == 0) {
        e->local = (int)link;
        if (hf_member_attach(&e->member, now) != 0) {
            detach(e, now + e->silence / 4);
        }
    }
}

static void step(struct embedded *e, hf_time now)
{
    if (hf_member_pump(&e->member) != 0) {
        if (e->conn >= 0) {
            detach(e, now);
        } else if (e->local >= 0) {
            hf_sequencer_closed(e->seq, (unsigned)e->local, now);
        }
    }
    if (e->seq && e->local < 0) {
        relink(e, now);
    } else if (!attached(e) && now >= e->retry_at && !e->member.lost) {
        int rc = attach(e, now);
        if (rc) {
            hf_tracef(HF_TRACE_ENGINE, e->member.opt.host, "no sequencer yet (%s), asking again",
                      hf_strerror(rc));
            detach(e, now + hf_time_min(HF_MS(5), e->silence / 8));
        }
    }
}

static int ee_dispatch(struct hf_engine *engine, hf_time now, hf_time *ret_next)
{
    struct embedded *e = of(engine);
    bool gap = e->silence && now - e->last > e->silence && e->last;
    e->last = now;
    if (gap) {
        hf_member_gap(&e->member, now);
        if (e->seq) {
            hf_sequencer_gap(e->seq, now);
        }
    }
    if (e->run_dir && attached(e) && superseded(e)) {
        e->passed = e->generation;
        e->stopped = false;
        detach(e, now);
    }
    read_all(e, now);
    if (e->seq) {
        hf_sequencer_tick(e->seq, now);
    }
    if (hf_member_tick(&e->member, now) == -HF_ETIMEOUT) {
        e->passed = e->generation;
        e->stopped = true;
        detach(e, now);
    }
    for (int i = 0; i < 4; i++) {
        step(e, now);
    }
    kick(e);
    hf_time next = hf_member_deadline(&e->member);
    if (e->seq) {
        next = hf_time_min(next, hf_sequencer_deadline(e->seq));
    }
    *ret_next = attached(e) ? next : hf_time_min(next, e->retry_at);
    return 0;
}

static int ee_join(struct hf_engine *e, const char *group)
{
    int rc = hf_member_join(&of(e)->member, group);
    kick(of(e));
    return rc;
}

static int ee_leave(struct hf_engine *e, const char *group)
{
    int rc = hf_member_leave(&of(e)->member, group);
    kick(of(e));
    return rc;
}

static int ee_multicast(struct hf_engine *e, const char *group, struct hf_slice msg)
{
    int rc = hf_member_multicast(&of(e)->member, group, msg);
    kick(of(e));
    return rc;
}

static int ee_fd(struct hf_engine *e)
{
    return of(e)->ep;
}

static void ee_destroy(struct hf_engine *engine)
{
    if (!engine) {
        return;
    }
    struct embedded *e = of(engine);
    detach(e, HF_NEVER);
    hf_member_fini(&e->member);
    close_fd(&e->kick);
    close_fd(&e->ep);
    hf_free(e->run_dir);
    hf_free(e);
}

/* A lock on a network file system, or a directory that others may write, is worth nothing. */
static int check_run_dir(const char *path, struct hf_err *err)
{
    static const uint32_t network[] = {
        NFS_SUPER_MAGIC,
        SMB_SUPER_MAGIC,
        CIFS_SUPER_MAGIC,
        SMB2_SUPER_MAGIC,
        V9FS_MAGIC,
        AFS_SUPER_MAGIC,
        AFS_FS_MAGIC,
        CODA_SUPER_MAGIC,
        CEPH_SUPER_MAGIC,
        FUSE_SUPER_MAGIC,
        OCFS2_SUPER_MAGIC,
        0x01161970 /* GFS2 */,
        0x0bd00bd0 /* Lustre */,
    };
    struct statfs fs;
    struct stat sb;
    if (strlen(path) > sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("/g12345678.sock")) {
        return hf_err_set(err, -ENAMETOOLONG, "%s: too long for a socket's path", path);
    }
    if (stat(path, &sb) < 0 || statfs(path, &fs) < 0) {
        int rc = -errno;
        return hf_err_set(err, rc, "%s: %s", path, hf_strerror(rc));
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(network); i++) {
        if ((uint32_t)fs.f_type == network[i]) {
            return hf_err_set(err, -HF_ECONFIG, "%s: on a network file system, locks don't hold",
                              path);
        }
    }
    if (!S_ISDIR(sb.st_mode) || sb.st_uid != geteuid() || sb.st_mode & 022) {
        return hf_err_set(err, -HF_ECONFIG,
                          "%s: must be a directory of ours that nobody else can write", path);
    }
    return 0;
}

static int setup(struct embedded *e, const struct hf_engine_embedded_opt *opt)
{
    struct hf_member_opt mo = {.node_id = opt->node_id,
                               .expected_votes = opt->expected_votes,
                               .silence = e->silence,
                               .cb = opt->callbacks,
                               .cb_arg = opt->arg,
                               .send = member_send,
                               .io_arg = e};
    memcpy(mo.host, opt->host, strlen(opt->host) + 1);
    hf_member_init(&e->member, &mo);
    if (opt->run_dir) {
        e->run_dir = hf_alloc(strlen(opt->run_dir) + 1);
        if (!e->run_dir) {
            return -ENOMEM;
        }
        memcpy(e->run_dir, opt->run_dir, strlen(opt->run_dir));
    }
    e->ep = epoll_create1(EPOLL_CLOEXEC);
    e->kick = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK); /* readable: the first dispatch() is due */
    if (e->ep < 0 || e->kick < 0) {
        return -errno;
    }
    return watch(e, e->kick, TAG_KICK);
}

int hf_engine_embedded_create(const struct hf_engine_embedded_opt *opt, struct hf_err *err,
                              struct hf_engine **ret_engine)
{
    static const struct hf_engine_ops ops = {.join = ee_join,
                                             .leave = ee_leave,
                                             .multicast = ee_multicast,
                                             .fd = ee_fd,
                                             .dispatch = ee_dispatch,
                                             .destroy = ee_destroy};
    if (opt->node_id == 0 || !opt->host || !hf_word_ok(hf_slice_str(opt->host), HF_HOST_NAME_MAX) ||
        opt->silence < 0) {
        return hf_err_set(err, -HF_EVALUE, "engine: node id, host name or silence is not valid");
    }
    int rc = opt->run_dir ? check_run_dir(opt->run_dir, err) : 0;
    if (rc) {
        return rc;
    }
    struct embedded *e = hf_alloc(sizeof(*e));
    if (!e) {
        return hf_err_set(err, -ENOMEM, "engine: %s", hf_strerror(-ENOMEM));
    }
    e->engine.ops = &ops;
    e->silence = !opt->run_dir ? 0 : opt->silence ? opt->silence : HF_S(1);
    e->local = e->ep = e->kick = e->listener = e->lock = e->conn = -1;
    memset(e->link_fd, 0xff, sizeof(e->link_fd));
    rc = setup(e, opt);
    if (rc) {
        ee_destroy(&e->engine);
        return hf_err_set(err, rc, "engine: %s", hf_strerror(rc));
    }
    *ret_engine = &e->engine;
    return 0;
}
