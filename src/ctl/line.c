#include "ctl/line.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX (256u << 20)

int hf_line_open(struct hf_line *l, const struct hf_cmd_opt *opt, const struct hf_line_place *place)
{
    const char *env = getenv(place->env);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = opt->timeout_ms / 1000,
                            .tv_usec = opt->timeout_ms % 1000 * 1000L};
    *l = (struct hf_line){.fd = -1,
                          .program = place->program,
                          .path = opt->socket ? opt->socket
                                  : env       ? env
                                              : place->path};
    hf_buf_init(&l->in, ANSWER_MAX);
    if (snprintf(a.sun_path, sizeof(a.sun_path), "%s", l->path) >= (int)sizeof(a.sun_path)) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%s: %s", l->path, hf_strerror(-ENAMETOOLONG));
    }
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (l->fd < 0 || setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
        setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
        connect(l->fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        return hf_cmd_fail(HF_EXIT_NO_ANSWER,
                           "cannot reach %s at %s: %s; give its socket (%s) with -s", l->program,
                           l->path, hf_strerror(-errno), place->option);
    }
    return HF_EXIT_OK;
}

void hf_line_close(struct hf_line *l)
{
    if (l->fd >= 0) {
        close(l->fd);
    }
    hf_buf_fini(&l->in);
}

static int fail(const struct hf_line *l, int rc)
{
    rc = rc == -EAGAIN ? -HF_ETIMEOUT : rc;
    return hf_cmd_fail(HF_EXIT_NO_ANSWER, "%s at %s: %s", l->program, l->path, hf_strerror(rc));
}

int hf_line_send(struct hf_line *l, struct hf_slice s)
{
    while (s.n > 0) {
        ssize_t n = send(l->fd, s.p, s.n, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fail(l, -errno);
        }
        s = hf_slice(s.p + n, s.n - (size_t)n);
    }
    return HF_EXIT_OK;
}

int hf_line_receive(struct hf_line *l)
{
    uint8_t bytes[65536];
    ssize_t n;
    do {
        n = recv(l->fd, bytes, sizeof(bytes), 0);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        return fail(l, n == 0 ? -HF_ECLOSED : -errno);
    }
    hf_buf_add(&l->in, hf_slice(bytes, (size_t)n));
    return l->in.err ? hf_cmd_fail(HF_EXIT_FAILED, "the answer is too long") : HF_EXIT_OK;
}

/* ---- answers ---- */

static void cell(struct hf_table *t, const json_t *v, bool last)
{
    const char *text = json_string_value(v);
    if (json_is_integer(v)) {
        hf_table_number(t, json_integer_value(v));
    } else if (json_is_boolean(v)) {
        hf_table_cell(t, json_is_true(v) ? "yes" : "no");
    } else {
        text = text ? text : "";
        hf_table_cell(t, *text || last ? text : "-");
    }
}

int hf_line_print(const json_t *rows, const char *const *key, const char *const *head)
{
    struct hf_table t;
    struct hf_buf out;
    size_t n = 0, i;
    const json_t *row;
    while (head[n]) {
        n++;
    }
    hf_table_init(&t, n);
    hf_buf_init(&out, ANSWER_MAX);
    for (i = 0; i < n; i++) {
        hf_table_cell(&t, head[i]);
    }
    json_array_foreach(rows, i, row)
    {
        for (size_t k = 0; k < n; k++) {
            cell(&t, json_object_get(row, key[k]), k + 1 == n);
        }
    }
    int rc = hf_table_print(&t, &out, NULL);
    fwrite(out.p, 1, out.n, stdout);
    hf_buf_fini(&out);
    return rc ? hf_cmd_fail(HF_EXIT_FAILED, "%s", hf_strerror(rc)) : HF_EXIT_OK;
}

int hf_line_print_json(const json_t *v)
{
    json_dumpf(v, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    putchar('\n');
    return HF_EXIT_OK;
}
