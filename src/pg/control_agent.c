/* The agent's side of the control socket: pass on, answer, clean up after a dead process. */
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "os/file.h"
#include "os/netaddr.h"
#include "os/ocf.h"
#include "pg/control.h"
#include "pg/control_impl.h"

#define ANSWER_MAX (64u << 10) /* without a line's end */

static int fail(int code, const char *fmt, ...) HF_PRINTF(2, 3);
static int fail(int code, const char *fmt, ...)
{
    va_list ap;
    fputs("ocf-exit-reason:", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return code;
}

/* ---- what a dead process leaves behind ---- */

#define NOTE_MAX (IFNAMSIZ + HF_ADDR_STR_LEN + 2)

static void note_path(const char *path, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s.address", path);
}

int hf_pg_control_note(const char *path, const char *interface, const struct hf_addr *address)
{
    char name[PATH_MAX], text[NOTE_MAX], at[HF_ADDR_STR_LEN];
    struct hf_err err;
    note_path(path, name);
    if (!interface || !address) {
        return unlink(name) < 0 && errno != ENOENT ? -errno : 0;
    }
    int n = snprintf(text, sizeof(text), "%s %s", interface, hf_addr_str(address, at));
    return hf_file_replace(name, hf_slice((const uint8_t *)text, (size_t)n), 0600, &err);
}

static int remove_noted(char *text, struct hf_err *err)
{
    struct hf_addr address;
    char *at = strchr(text, ' ');
    if (!at) {
        return hf_err_set(err, -HF_EMALF, "its note is none");
    }
    *at++ = '\0';
    int rc = hf_addr_parse(at, 0, err, &address);
    if (rc) {
        return rc;
    }
    const struct hf_endpoint e = hf_addr_to_endpoint(&address);
    return hf_netaddr_remove(text, &e, err);
}

/* Its address: the kernel would go on answering for it. */
static int clean_up(const char *path)
{
    char name[PATH_MAX];
    struct hf_buf b;
    struct hf_err err = {0};
    note_path(path, name);
    hf_buf_init(&b, NOTE_MAX);
    int rc = hf_file_read(name, &b);
    hf_buf_add(&b, hf_slice((const uint8_t *)"", 1));
    if (rc == 0 && !b.err) {
        rc = remove_noted((char *)b.p, &err);
        rc = rc ? rc : hf_pg_control_note(path, NULL, NULL);
    }
    hf_buf_fini(&b);
    return rc && rc != -ENOENT ? fail(HF_OCF_ERR_GENERIC, "the address stays here: %s", err.text)
                               : HF_OCF_SUCCESS;
}

static int nobody(const char *path, const char *action, int rc)
{
    if (strcmp(action, "stop") == 0) {
        return clean_up(path);
    }
    if (strcmp(action, "monitor") == 0 || strcmp(action, "mirror-state") == 0) {
        return HF_OCF_NOT_RUNNING;
    }
    return fail(
        HF_OCF_ERR_GENERIC,
        "no holdfast-pg answers at %s: %s; run it there (systemctl start holdfast-pg), with "
        "service.address in its configuration",
        path, hf_strerror(rc));
}

/* A descriptor, or < 0: *ret_code is what it means. */
static int connect_to(const char *path, const char *action, int *ret_code)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (snprintf(un.sun_path, sizeof(un.sun_path), "%s", path) >= (int)sizeof(un.sun_path)) {
        *ret_code = fail(HF_OCF_ERR_CONFIGURED, "control: the path is too long: %s", path);
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&un, sizeof(un)) == 0) {
        return fd;
    }
    int rc = -errno;
    bool gone = rc == -ENOENT || rc == -ENOTDIR || rc == -ECONNREFUSED;
    *ret_code = gone ? nobody(path, action, rc)
                     : fail(rc == -EACCES ? HF_OCF_ERR_PERM : HF_OCF_ERR_GENERIC,
                            "cannot reach holdfast-pg at %s: %s", path, hf_strerror(rc));
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

static int send_request(int fd, const char *action)
{
    static const char *const fields[][2] = {
        {"epoch", "HOLDFAST_EPOCH"},   {"mirrors", "HOLDFAST_MIRRORS"},
        {"source", "HOLDFAST_SOURCE"}, {"resource", "HOLDFAST_RESOURCE"},
        {"group", "HOLDFAST_GROUP"},   {"silent", "HOLDFAST_SILENT"},
        {"fence", "HOLDFAST_FENCE"}};
    struct hf_buf b;
    hf_buf_init(&b, HF_PG_CONTROL_MAX);
    hf_buf_printf(&b, "%s\n", action);
    for (size_t i = 0; i < HF_ARRAY_LEN(fields); i++) {
        const char *value = getenv(fields[i][1]);
        if (value && strchr(value, '\n')) {
            hf_buf_fini(&b);
            return fail(HF_OCF_ERR_ARGS, "%s has several lines", fields[i][1]);
        }
        if (value && *value) {
            hf_buf_printf(&b, "%s %s\n", fields[i][0], value);
        }
    }
    hf_buf_str(&b, "\n");
    int rc = b.err ? fail(HF_OCF_ERR_ARGS, "the environment's variables are too long") : 0;
    if (rc == 0) {
        /* it fails if we are refused: then the answer tells why */
        (void)!send(fd, b.p, b.n, MSG_NOSIGNAL);
    }
    hf_buf_fini(&b);
    return rc;
}

/* "= CODE REASON" */
static int conclude(char *line)
{
    char *reason;
    long code = strtol(line + 1, &reason, 10);
    if (reason == line + 1 || code < 0 || code > 255) {
        return fail(HF_OCF_ERR_GENERIC, "holdfast-pg's answer is none: %s", line);
    }
    reason += strspn(reason, " ");
    return *reason ? fail((int)code, "%s", reason) : (int)code;
}

/* Whole lines of the answer: >= 0: the exit code. */
static int take_answer(struct hf_buf *in)
{
    uint8_t *stop;
    while (in->n && (stop = memchr(in->p, '\n', in->n))) {
        *stop = '\0';
        char *line = (char *)in->p;
        if (*line == '=') {
            return conclude(line);
        }
        puts(line);
        fflush(stdout);
        hf_buf_consume(in, (size_t)(stop - in->p) + 1);
    }
    return -1;
}

/* stdin's words go on to it. false: stdin has ended. */
static bool pass_on(int fd)
{
    char buf[256];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
    if (n > 0) {
        (void)!send(fd, buf, (size_t)n, MSG_NOSIGNAL);
    }
    return n > 0 || (n < 0 && errno == EINTR);
}

static int talk(int fd, const char *path, const char *action, struct hf_buf *in)
{
    struct pollfd p[] = {
        {.fd = fd, .events = POLLIN},
        {.fd = hf_pg_control_is_prepare(action) ? STDIN_FILENO : -1, .events = POLLIN}};
    bool said = false;
    for (;;) {
        if (poll(p, 2, -1) < 0) {
            continue; /* EINTR */
        }
        if (p[0].revents) {
            uint8_t *room = hf_buf_reserve(in, 4096);
            ssize_t n = room ? recv(fd, room, 4096, 0) : 0;
            if (n <= 0) {
                return !room ? fail(HF_OCF_ERR_GENERIC, "holdfast-pg's answer is too long")
                             : nobody(path, action, n < 0 ? -errno : -HF_ECLOSED);
            }
            hf_buf_commit(in, (size_t)n);
            int code = take_answer(in);
            if (code >= 0) {
                return code;
            }
        }
        if (p[1].revents) {
            if (pass_on(fd)) {
                said = true;
            } else if (!said) {
                return HF_OCF_SUCCESS; /* without a word it is of no effect */
            } else {
                p[1].fd = -1;
            }
        }
    }
}

int hf_pg_control_agent(const char *path, const char *action)
{
    struct hf_buf in;
    int code;
    if (!hf_pg_control_is_action(action)) {
        return fail(HF_OCF_ERR_UNIMPLEMENTED, "'%.100s' is not an action", action);
    }
    int fd = connect_to(path, action, &code);
    if (fd < 0) {
        return code;
    }
    hf_buf_init(&in, ANSWER_MAX);
    code = strcmp(action, "access") == 0 ? HF_OCF_SUCCESS : send_request(fd, action);
    if (code == 0 && strcmp(action, "access") != 0) {
        code = talk(fd, path, action, &in);
    }
    hf_buf_fini(&in);
    close(fd);
    return code;
}
