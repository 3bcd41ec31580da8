/* `holdfast clients`, `drain`, `undrain`: what an operator asks of the local holdfast-pg's console.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/pg/connect.h"
#include "ctl/commands.h"
#include "ctl/table.h"
#include "os/loop.h"

#define PG_SOCKET_DEFAULT "/run/holdfast-pg/.s.PGSQL.6432"
#define ANSWER_MAX (64u << 20)

struct console {
    int fd;
    const char *path; /* borrowed */
    struct hf_buf in;
};

static int receive(struct console *c)
{
    uint8_t bytes[8192];
    ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);
    if (n <= 0) {
        int rc = n == 0 ? -HF_ECLOSED : errno == EAGAIN ? -HF_ETIMEOUT : -errno;
        return hf_cmd_fail(HF_EXIT_NO_ANSWER, "holdfast-pg at %s: %s", c->path, hf_strerror(rc));
    }
    hf_buf_add(&c->in, hf_slice(bytes, (size_t)n));
    return c->in.err ? hf_cmd_fail(HF_EXIT_FAILED, "the answer is too long") : HF_EXIT_OK;
}

static int transmit(struct console *c, struct hf_slice s)
{
    ssize_t n = s.n > 0 ? send(c->fd, s.p, s.n, MSG_NOSIGNAL) : 0;
    return n == (ssize_t)s.n ? HF_EXIT_OK
                             : hf_cmd_fail(HF_EXIT_NO_ANSWER, "holdfast-pg at %s: %s", c->path,
                                           hf_strerror(n < 0 ? -errno : -EAGAIN));
}

static int login(struct console *c, struct hf_pg_connect *login)
{
    struct hf_pg_connect_in in = {.kind = HF_PG_CONNECT_IN_OPEN};
    struct hf_pg_connect_out out;
    for (;;) {
        hf_pg_connect_step(login, &in, hf_now(), &out);
        hf_buf_consume(&c->in, out.consumed);
        int rc = transmit(c, out.send);
        if (rc || out.act == HF_PG_CONNECT_DONE) {
            return rc;
        }
        if (out.act != HF_PG_CONNECT_WAIT) {
            return hf_cmd_fail(HF_EXIT_FAILED, "holdfast-pg at %s: %s", c->path,
                               hf_pg_connect_error(login)->message);
        }
        rc = receive(c);
        if (rc) {
            return rc;
        }
        in = (struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_BYTES,
                                       .bytes = hf_buf_slice(&c->in)};
    }
}

/* As $PGUSER, or the user who runs this; $PGPASSWORD where one is asked for. */
static int log_in(struct console *c)
{
    const char *user = getenv("PGUSER"), *password = getenv("PGPASSWORD");
    const struct passwd *pw = getpwuid(geteuid());
    struct hf_pg_secret secret = {0};
    struct hf_pg_connect *connect = NULL;
    struct hf_pg_connect_args args = {
        .user = hf_slice_str(user ? user
                             : pw ? pw->pw_name
                                  : "root"),
        .database = hf_slice_str("holdfast"),
        .cleartext = true,
        .deadline = HF_NEVER,
    };
    if (password && hf_pg_secret_parse(hf_slice_str(password), &secret) == 0) {
        args.secret = &secret;
    }
    int rc = getrandom(args.nonce, sizeof(args.nonce), 0) < 0
                 ? -errno
                 : hf_pg_connect_create(&args, &connect);
    hf_pg_secret_wipe(&secret);
    if (rc) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%s", hf_strerror(rc));
    }
    rc = login(c, connect);
    hf_pg_connect_destroy(connect);
    return rc;
}

static int open_console(struct console *c, const struct hf_cmd_opt *opt)
{
    const char *from_env = getenv("HOLDFAST_PG_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = opt->timeout_ms / 1000,
                            .tv_usec = opt->timeout_ms % 1000 * 1000L};
    *c = (struct console){.fd = -1,
                          .path = opt->socket ? opt->socket
                                  : from_env  ? from_env
                                              : PG_SOCKET_DEFAULT};
    hf_buf_init(&c->in, ANSWER_MAX);
    if (snprintf(a.sun_path, sizeof(a.sun_path), "%s", c->path) >= (int)sizeof(a.sun_path)) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%s: %s", c->path, hf_strerror(-ENAMETOOLONG));
    }
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
        connect(c->fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        return hf_cmd_fail(
            HF_EXIT_NO_ANSWER,
            "cannot reach holdfast-pg at %s: %s; give its socket (pg.unix_socket_dir) "
            "with -s",
            c->path, hf_strerror(-errno));
    }
    return log_in(c);
}

static void close_console(struct console *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    hf_buf_fini(&c->in);
}

/* ---- answers ---- */

static int take_columns(struct hf_slice body, json_t *names)
{
    struct hf_rd r;
    struct hf_pg_column column;
    uint16_t n;
    int rc = hf_pg_columns_begin(body, &r, &n);
    for (uint16_t i = 0; rc == 0 && i < n; i++) {
        rc = hf_pg_column_next(&r, &column);
        if (rc == 0) {
            json_array_append_new(names, json_stringn((const char *)column.name.p, column.name.n));
        }
    }
    return rc;
}

static int take_row(struct hf_slice body, const json_t *names, json_t *rows)
{
    struct hf_rd r;
    struct hf_slice v;
    uint16_t n;
    json_t *row = json_object();
    int rc = hf_pg_values_begin(body, &r, &n);
    for (uint16_t i = 0; rc == 0 && i < n; i++) {
        rc = hf_pg_value_next(&r, &v);
        const char *name = json_string_value(json_array_get(names, i));
        if (rc == 0 && name) {
            json_object_set_new(row, name,
                                v.p ? json_stringn((const char *)v.p, v.n) : json_null());
        }
    }
    json_array_append_new(rows, row);
    return rc;
}

/* One message; *done at ReadyForQuery. */
static int take(uint8_t type, struct hf_slice body, json_t *names, json_t *rows, bool *done)
{
    if (type == HF_PG_ERROR) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%.*s", HF_SLICE_FMT(hf_pg_error_field(body, 'M')));
    }
    int rc = type == HF_PG_ROW_DESCRIPTION ? take_columns(body, names)
             : type == HF_PG_DATA_ROW      ? take_row(body, names, rows)
                                           : 0;
    *done = type == HF_PG_READY;
    return rc ? hf_cmd_fail(HF_EXIT_FAILED, "%s", hf_strerror(-HF_EPROTO)) : HF_EXIT_OK;
}

/* Ask the console; rows (owned by the caller, may be NULL at an error) become objects of texts. */
static int ask(struct console *c, const char *sql, json_t **ret_rows)
{
    char message[512];
    size_t n = strlen(sql) + 1;
    if (n + 5 > sizeof(message)) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%s: %s", sql, hf_strerror(-HF_ENAME));
    }
    const char head[] = {'Q', 0, 0, (char)((n + 4) >> 8), (char)(n + 4)};
    memcpy(message, head, sizeof(head));
    memcpy(message + sizeof(head), sql, n);
    int rc = transmit(c, hf_slice(message, n + 5));
    json_t *names = json_array(), *rows = json_array();
    for (bool done = false; rc == HF_EXIT_OK && !done;) {
        struct hf_pg_head h;
        struct hf_slice in = hf_buf_slice(&c->in);
        int got = hf_pg_head_read(in, &h);
        if (got == -HF_ETRUNC || (got == 0 && in.n < HF_PG_HEAD_LEN + h.body_len)) {
            rc = receive(c);
            continue;
        }
        rc = got ? hf_cmd_fail(HF_EXIT_FAILED, "%s", hf_strerror(got))
                 : take(h.type, hf_slice(in.p + HF_PG_HEAD_LEN, h.body_len), names, rows, &done);
        if (rc == HF_EXIT_OK) {
            hf_buf_consume(&c->in, HF_PG_HEAD_LEN + h.body_len);
        }
    }
    json_decref(names);
    *ret_rows = rows;
    return rc;
}

static int print(const json_t *rows, const char *const *column, const char *const *head, bool json)
{
    if (json) {
        json_dumpf(rows, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        putchar('\n');
        return HF_EXIT_OK;
    }
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
            const char *text = hf_json_text(row, column[k]);
            hf_table_cell(&t, *text || k + 1 == n ? text : "-");
        }
    }
    int rc = hf_table_print(&t, &out, NULL);
    fwrite(out.p, 1, out.n, stdout);
    hf_buf_fini(&out);
    return rc ? hf_cmd_fail(HF_EXIT_FAILED, "%s", hf_strerror(rc)) : HF_EXIT_OK;
}

static int show(const struct hf_cmd_opt *opt, const char *before, const char *sql,
                const char *const *column, const char *const *head)
{
    struct console c;
    json_t *rows = NULL;
    int rc = open_console(&c, opt);
    if (rc == HF_EXIT_OK && before) {
        rc = ask(&c, before, &rows);
        json_decref(rows);
        rows = NULL;
    }
    if (rc == HF_EXIT_OK) {
        rc = ask(&c, sql, &rows);
    }
    if (rc == HF_EXIT_OK) {
        rc = print(rows, column, head, opt->json);
    }
    json_decref(rows);
    close_console(&c);
    return rc;
}

/* ---- commands ---- */

int hf_cmd_clients(const struct hf_cmd_opt *opt, int n, char **arg)
{
    static const char *const column[] = {"id",     "user",   "database",    "addr",
                                         "server", "state",  "transaction", "protected",
                                         "backup", "lag_ms", "why_not"};
    static const char *const head[] = {"ID", "USER",      "DATABASE", "FROM",   "SERVER",  "STATE",
                                       "TX", "PROTECTED", "BACKUP",   "LAG MS", "WHY NOT", NULL};
    (void)n;
    (void)arg;
    return show(opt, NULL, "SHOW CLIENTS", column, head);
}

static int show_servers(const struct hf_cmd_opt *opt, const char *command, const char *server)
{
    static const char *const column[] = {"name",  "state",     "sessions", "draining",
                                         "stuck", "lag_bytes", "why"};
    static const char *const head[] = {"SERVER", "STATE", "SESSIONS", "DRAINING",
                                       "STUCK",  "LAG",   "WHY",      NULL};
    char before[256];
    if (server && (strpbrk(server, " \t\r\n;\"") || strlen(server) > 128)) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%s is not the name of a server", server);
    }
    (void)snprintf(before, sizeof(before), "%s %s", command, server ? server : "");
    return show(opt, server ? before : NULL, "SHOW SERVERS", column, head);
}

int hf_cmd_drain(const struct hf_cmd_opt *opt, int n, char **arg)
{
    return show_servers(opt, "DRAIN", n ? arg[0] : NULL);
}

int hf_cmd_undrain(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    return show_servers(opt, "UNDRAIN", arg[0]);
}
