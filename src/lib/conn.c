#include "lib/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "holdfast/holdfast.h"

/* Bytes asked of the socket at once; with a whole frame unread the buffer still has room. */
#define READ_SIZE (64u << 10)

const char *hf_conn_path(const char *path)
{
    const char *env = secure_getenv("HOLDFAST_SOCKET");
    return path ? path : env && *env ? env : HOLDFAST_SOCKET_DEFAULT;
}

int hf_conn_dial(const char *path, int *ret_fd)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n >= sizeof(un.sun_path)) {
        return -ENAMETOOLONG;
    }
    memcpy(un.sun_path, path, n);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (struct sockaddr *)&un, sizeof(un))) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

void hf_conn_init(struct hf_conn *c, int fd)
{
    c->fd = fd;
    hf_buf_init(&c->in, HF_CTL_FRAME_MAX + 4 + READ_SIZE);
    hf_buf_init(&c->out, HF_CTL_BACKLOG_MAX);
    c->in_used = c->out_used = 0;
}

void hf_conn_fini(struct hf_conn *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    c->fd = -1;
    hf_buf_fini(&c->in);
    hf_buf_fini(&c->out);
    c->in_used = c->out_used = 0;
}

int hf_conn_send(struct hf_conn *c, const struct hf_ctl_msg *m)
{
    size_t n = hf_ctl_room(m);
    if (c->out_used) {
        hf_buf_consume(&c->out, c->out_used);
        c->out_used = 0;
    }
    uint8_t *p = hf_buf_reserve(&c->out, n);
    if (!p) {
        int rc = c->out.err;
        c->out.err = 0;
        return rc;
    }
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, p, n);
    hf_ctl_encode(&w, m);
    int rc = hf_wr_end(&w, &s);
    if (rc == 0) {
        hf_buf_commit(&c->out, s.n);
    }
    return rc;
}

int hf_conn_flush(struct hf_conn *c)
{
    while (hf_conn_unsent(c)) {
        ssize_t n = send(c->fd, c->out.p + c->out_used, c->out.n - c->out_used, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == EAGAIN ? 0 : -errno;
        }
        c->out_used += (size_t)n;
    }
    hf_buf_clear(&c->out);
    c->out_used = 0;
    return 0;
}

int hf_conn_fill(struct hf_conn *c)
{
    hf_buf_consume(&c->in, c->in_used);
    c->in_used = 0;
    uint8_t *p = hf_buf_reserve(&c->in, READ_SIZE);
    if (!p) {
        return c->in.err;
    }
    ssize_t n = recv(c->fd, p, READ_SIZE, 0);
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    hf_buf_commit(&c->in, (size_t)n);
    return n ? 0 : -HF_ECLOSED;
}

int hf_conn_next(struct hf_conn *c, struct hf_ctl_msg *ret_msg)
{
    int n = hf_ctl_decode(hf_slice(c->in.p + c->in_used, c->in.n - c->in_used), ret_msg);
    if (n > 0) {
        c->in_used += (size_t)n;
        return 1;
    }
    return n;
}
