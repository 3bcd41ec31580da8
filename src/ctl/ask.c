#include "ctl/ask.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

enum hf_exit hf_ask_exit(int rc)
{
    switch (-rc) {
    case 0:
        return HF_EXIT_OK;
    case ENOENT:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EAGAIN:
    case HF_ETIMEOUT:
    case HF_ECLOSED:
        return HF_EXIT_NO_ANSWER;
    default:
        return HF_EXIT_FAILED;
    }
}

void hf_ask_explain(int rc, const char *path, int timeout_ms, struct hf_err *err)
{
    switch (-rc) {
    case ENOENT:
        hf_err_set(err, rc,
                   "no socket at %s: holdfastd is not running, or has another control.socket; try: "
                   "systemctl status holdfastd, or -s SOCKET",
                   path);
        break;
    case EACCES:
    case EPERM:
        hf_err_set(err, rc,
                   "permission denied for %s: become root, or a member of control.group in "
                   "holdfast.conf(5)",
                   path);
        break;
    case ECONNREFUSED:
        hf_err_set(err, rc,
                   "nobody listens on %s: holdfastd has ended without removing it; try: "
                   "systemctl restart holdfastd",
                   path);
        break;
    case HF_EVERSION:
        hf_err_set(err, rc,
                   "holdfastd on %s speaks another version of the control protocol than this "
                   "command (versions %d to %d): use the command that was installed with it, or "
                   "restart it if it was updated (systemctl restart holdfastd)",
                   path, HF_CTL_VERSION_MIN, HF_CTL_VERSION);
        break;
    case EAGAIN:
    case HF_ETIMEOUT:
        hf_err_set(err, rc,
                   "no answer from holdfastd on %s within %g s: is it running? try: systemctl "
                   "status holdfastd",
                   path, timeout_ms / 1000.0);
        break;
    case HF_ECLOSED:
    case ECONNRESET:
    case EPIPE:
        hf_err_set(err, rc, "holdfastd on %s closed the connection; try: journalctl -u holdfastd",
                   path);
        break;
    default:
        hf_err_set(err, rc, "%s: %s", path, hf_strerror(rc));
    }
}

static int fail(struct hf_ask *a, int rc, struct hf_err *err)
{
    hf_ask_explain(rc, a->path, a->timeout_ms, err);
    return rc;
}

int hf_ask_open(struct hf_ask *a, const char *path, int timeout_ms, struct hf_err *err)
{
    int fd;
    *a = (struct hf_ask){.path = hf_conn_path(path), .timeout_ms = timeout_ms};
    hf_conn_init(&a->conn, -1);
    int rc = hf_conn_dial(a->path, &fd);
    if (rc) {
        return fail(a, rc, err);
    }
    hf_conn_init(&a->conn, fd);
    struct hf_ctl_msg hello = {
        .type = HF_CTL_HELLO, .version = HF_CTL_VERSION, .text = hf_slice_str("holdfast")};
    struct hf_ctl_msg m;
    rc = hf_conn_send(&a->conn, &hello);
    rc = rc ? fail(a, rc, err) : hf_ask_receive(a, timeout_ms, &m, err);
    if (rc == 0 && (m.type != HF_CTL_HELLO || !hf_ctl_speaks(m.version))) {
        rc = fail(a, m.type == HF_CTL_HELLO ? -HF_EVERSION : -HF_EPROTO, err);
    }
    if (rc) {
        hf_ask_close(a);
    }
    return rc;
}

void hf_ask_close(struct hf_ask *a)
{
    hf_conn_fini(&a->conn);
}

/* Send m (its seq is set). 0 or an error with its sentence. */
static int ask_send(struct hf_ask *a, struct hf_ctl_msg *m, struct hf_err *err)
{
    m->seq = ++a->seq;
    int rc = hf_conn_send(&a->conn, m);
    return rc ? fail(a, rc, err) : 0;
}

int hf_ask_receive(struct hf_ask *a, int timeout_ms, struct hf_ctl_msg *ret_msg, struct hf_err *err)
{
    int64_t end = now_ms() + timeout_ms;
    for (;;) {
        int rc = hf_conn_next(&a->conn, ret_msg);
        if (rc) {
            return rc > 0 ? 0 : fail(a, rc, err);
        }
        int64_t left = timeout_ms < 0 ? -1 : end - now_ms();
        if (timeout_ms >= 0 && left <= 0) {
            return fail(a, -HF_ETIMEOUT, err);
        }
        short out = hf_conn_unsent(&a->conn) ? POLLOUT : 0;
        struct pollfd p = {.fd = a->conn.fd, .events = (short)(POLLIN | out)};
        if (poll(&p, 1, (int)left) < 0) {
            return fail(a, -errno, err);
        }
        rc = p.revents & POLLOUT ? hf_conn_flush(&a->conn) : 0;
        if (rc == 0 && p.revents & ~POLLOUT) {
            rc = hf_conn_fill(&a->conn);
        }
        if (rc) {
            return fail(a, rc, err);
        }
    }
}

int hf_ask(struct hf_ask *a, struct hf_ctl_msg *m, struct hf_buf *text, struct hf_err *err)
{
    int64_t end = now_ms() + a->timeout_ms;
    int rc = ask_send(a, m, err);
    while (rc == 0) {
        int64_t left = end - now_ms();
        struct hf_ctl_msg in;
        rc = hf_ask_receive(a, left > 0 ? (int)left : 0, &in, err);
        if (rc || in.seq != m->seq) {
            continue;
        }
        if (in.type == HF_CTL_RESULT) {
            return hf_err_set(err, in.code, "%.*s", HF_SLICE_FMT(in.text));
        }
        if (in.type == HF_CTL_TEXT && text) {
            hf_buf_add(text, in.value);
            rc = text->err ? hf_err_set(err, text->err, "the answer is too long") : 0;
        }
    }
    return rc;
}

int hf_ask_query(struct hf_ask *a, const char *what, const char *argument, struct hf_buf *text,
                 struct hf_err *err)
{
    struct hf_ctl_msg m = {
        .type = HF_CTL_QUERY, .name = hf_slice_str(what), .value = hf_slice_str(argument)};
    return hf_ask(a, &m, text, err);
}
