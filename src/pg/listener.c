/* Listening sockets. */
#include "pg/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/client.h"

#define BACKLOG 1024
#define ACCEPTS_MAX 64   /* per turn and listener */
#define PAUSE HF_MS(100) /* when no descriptor is left */

struct listener {
    struct hf_poll_io io;
    struct hf_pg_listeners *all;
    int fd;
    bool read_only, service;
};

struct hf_pg_listeners {
    struct hf_pg *pg;
    struct listener *one; /* owned */
    size_t n;
    bool service;
    struct hf_poll_timer timer; /* paused until then */
    struct sockaddr_un un;      /* to unlink; path "": none */
    ino_t inode;
};

static void pause_all(struct hf_pg_listeners *l, bool paused)
{
    for (size_t i = 0; i < l->n; i++) {
        hf_poll_want(l->pg->wire->poll, &l->one[i].io, paused ? 0 : HF_POLL_READ);
    }
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    (void)now;
    pause_all(HF_CONTAINER_OF(t, struct hf_pg_listeners, timer), false);
}

static void on_accept(struct hf_poll_io *io, unsigned ready)
{
    (void)ready;
    struct listener *one = HF_CONTAINER_OF(io, struct listener, io);
    struct hf_pg *pg = one->all->pg;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        struct hf_addr a = {.len = sizeof(a.ss)};
        int fd = accept4(one->fd, (struct sockaddr *)&a.ss, &a.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            a.len = a.ss.ss_family == AF_UNIX ? 0 : a.len;
            hf_pg_client_accept(pg, fd, one->read_only, one->service, &a);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            hf_log_warn("", "cannot accept a client: %s; trying again in 100 ms",
                        hf_strerror(-errno));
            pause_all(one->all, true);
            hf_poll_timer_set(pg->wire->poll, &one->all->timer, hf_pg_now(pg) + PAUSE);
            return;
        } /* others: that client is gone */
    }
}

static int add(struct hf_pg_listeners *l, int fd, bool read_only)
{
    struct listener *one = &l->one[l->n];
    *one = (struct listener){.all = l, .fd = fd, .read_only = read_only, .service = l->service};
    if (listen(fd, BACKLOG) < 0) {
        return -errno;
    }
    int rc = hf_poll_add(l->pg->wire->poll, &one->io, fd, HF_POLL_READ, on_accept);
    l->n += rc == 0;
    return rc;
}

static int open_tcp(struct hf_pg_listeners *l, const struct hf_addr *a, bool read_only,
                    struct hf_err *err)
{
    int on = 1;
    char text[HF_ADDR_STR_LEN];
    int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = fd < 0 ? -errno : 0;
    if (rc == 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
        if (a->ss.ss_family == AF_INET6) {
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
        }
        rc = bind(fd, (const struct sockaddr *)&a->ss, a->len) < 0 ? -errno : add(l, fd, read_only);
    }
    if (rc == 0) {
        hf_log_info("", "listening on %s%s", hf_addr_str(a, text), read_only ? " (read-only)" : "");
        return 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (rc == -EAFNOSUPPORT || (rc == -EADDRNOTAVAIL && a->ss.ss_family == AF_INET6)) {
        hf_log_warn("", "not listening on %s: %s", hf_addr_str(a, text), hf_strerror(rc));
        return 0; /* a machine without IPv6 */
    }
    return hf_err_set(err, rc, "cannot listen on %s: %s; change pg.listen or end who listens there",
                      hf_addr_str(a, text), hf_strerror(rc));
}

/* Nobody accepts there: it was left behind. */
static bool is_stale(const struct sockaddr_un *un)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool stale = fd >= 0 && connect(fd, (const struct sockaddr *)un, sizeof(*un)) < 0 &&
                 errno == ECONNREFUSED;
    if (fd >= 0) {
        close(fd);
    }
    return stale;
}

static unsigned first_port(const struct hf_pg_config *c)
{
    const struct hf_conf_addrs *a = c->pg.listen.n ? &c->pg.listen : &c->pg.listen_read_only;
    return hf_addr_to_endpoint(&a->addr[0]).port;
}

static int open_unix(struct hf_pg_listeners *l, struct hf_err *err)
{
    const struct hf_pg_config *c = l->pg->config;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct stat st;
    if (snprintf(un.sun_path, sizeof(un.sun_path), "%s/.s.PGSQL.%u", c->pg.unix_socket_dir,
                 first_port(c)) >= (int)sizeof(un.sun_path)) {
        return hf_err_set(err, -HF_ECONFIG, "pg.unix_socket_dir %s: too long",
                          c->pg.unix_socket_dir);
    }
    if (is_stale(&un)) {
        unlink(un.sun_path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = fd < 0 || bind(fd, (const struct sockaddr *)&un, sizeof(un)) < 0 ||
                     chmod(un.sun_path, hf_pg_config_socket_mode(c)) < 0
                 ? -errno
                 : add(l, fd, c->pg.listen.n == 0);
    if (rc) {
        if (fd >= 0) {
            close(fd);
        }
        return hf_err_set(err, rc, "cannot listen on %s: %s", un.sun_path, hf_strerror(rc));
    }
    l->un = un;
    l->inode = stat(un.sun_path, &st) == 0 ? st.st_ino : 0;
    hf_log_info("", "listening on %s", un.sun_path);
    return 0;
}

static struct hf_pg_listeners *create(struct hf_pg *pg, size_t n)
{
    struct hf_pg_listeners *l = hf_alloc(sizeof(*l));
    if (!l) {
        return NULL;
    }
    l->pg = pg;
    l->timer.fn = on_timer;
    l->one = hf_alloc_array(n, sizeof(l->one[0]));
    if (!l->one || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(l->one);
        hf_free(l);
        return NULL;
    }
    return l;
}

int hf_pg_listeners_service(struct hf_pg *pg, const struct hf_addr *address, struct hf_err *err,
                            struct hf_pg_listeners **ret_listeners)
{
    struct hf_pg_listeners *l = create(pg, 1);
    if (!l) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    l->service = true;
    int rc = open_tcp(l, address, false, err);
    if (rc == 0 && l->n == 0) {
        rc = hf_err_set(err, -EADDRNOTAVAIL, "the service address is not on this host");
    }
    if (rc) {
        hf_pg_listeners_close(l);
        return rc;
    }
    *ret_listeners = l;
    return 0;
}

int hf_pg_listeners_open(struct hf_pg *pg, struct hf_err *err,
                         struct hf_pg_listeners **ret_listeners)
{
    const struct hf_pg_config *c = pg->config;
    struct hf_pg_listeners *l = create(pg, c->pg.listen.n + c->pg.listen_read_only.n + 1);
    if (!l) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->pg.listen.n; i++) {
        rc = open_tcp(l, &c->pg.listen.addr[i], false, err);
    }
    for (size_t i = 0; rc == 0 && i < c->pg.listen_read_only.n; i++) {
        rc = open_tcp(l, &c->pg.listen_read_only.addr[i], true, err);
    }
    if (rc == 0 && *c->pg.unix_socket_dir) {
        rc = open_unix(l, err);
    }
    if (rc == 0 && l->n == 0) {
        rc = hf_err_set(err, -EADDRNOTAVAIL, "nowhere to listen: see pg.listen");
    }
    if (rc) {
        hf_pg_listeners_close(l);
        return rc;
    }
    *ret_listeners = l;
    return 0;
}

void hf_pg_listeners_close(struct hf_pg_listeners *l)
{
    if (!l) {
        return;
    }
    struct stat st;
    hf_poll_timer_set(l->pg->wire->poll, &l->timer, HF_NEVER);
    (void)!hf_poll_reserve(l->pg->wire->poll, -1);
    for (size_t i = 0; i < l->n; i++) {
        hf_poll_remove(l->pg->wire->poll, &l->one[i].io);
        close(l->one[i].fd);
    }
    if (*l->un.sun_path && stat(l->un.sun_path, &st) == 0 && st.st_ino == l->inode) {
        unlink(l->un.sun_path); /* ours, and not that of one that came after us */
    }
    hf_free(l->one);
    hf_free(l);
}
