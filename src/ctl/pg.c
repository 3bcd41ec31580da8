/* `holdfast clients`, `drain`, `undrain`: what an operator asks of the local holdfast-pg's console.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/pg/connect.h"
#include "ctl/line.h"
#include "os/loop.h"

static const struct hf_line_place place = {.program = "holdfast-pg",
                                           .env = "HOLDFAST_PG_SOCKET",
                                           .path = "/run/holdfast-pg/.s.PGSQL.6432",
                                           .option = "pg.unix_socket_dir"};

static int login(struct hf_line *c, struct hf_pg_connect *login)
{
    struct hf_pg_connect_in in = {.kind = HF_PG_CONNECT_IN_OPEN};
    struct hf_pg_connect_out out;
    for (;;) {
        hf_pg_connect_step(login, &in, hf_now(), &out);
        hf_buf_consume(&c->in, out.consumed);
        int rc = hf_line_send(c, out.send);
        if (rc || out.act == HF_PG_CONNECT_DONE) {
            return rc;
        }
        if (out.act != HF_PG_CONNECT_WAIT) {
            return hf_cmd_fail(HF_EXIT_FAILED, "holdfast-pg at %s: %s", c->path,
                               hf_pg_connect_error(login)->message);
        }
        rc = hf_line_receive(c);
        if (rc) {
            return rc;
        }
        in = (struct hf_pg_connect_in){.kind = HF_PG_CONNECT_IN_BYTES,
                                       .bytes = hf_buf_slice(&c->in)};
    }
}

/* As $PGUSER, or the user who runs this; $PGPASSWORD where one is asked for. */
static int log_in(struct hf_line *c)
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

static int open_console(struct hf_line *c, const struct hf_cmd_opt *opt)
{
    int rc = hf_line_open(c, opt, &place);
    return rc ? rc : log_in(c);
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
static int ask(struct hf_line *c, const char *sql, json_t **ret_rows)
{
    char message[512];
    size_t n = strlen(sql) + 1;
    if (n + 5 > sizeof(message)) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%s: %s", sql, hf_strerror(-HF_ENAME));
    }
    const char head[] = {'Q', 0, 0, (char)((n + 4) >> 8), (char)(n + 4)};
    memcpy(message, head, sizeof(head));
    memcpy(message + sizeof(head), sql, n);
    int rc = hf_line_send(c, hf_slice(message, n + 5));
    json_t *names = json_array(), *rows = json_array();
    for (bool done = false; rc == HF_EXIT_OK && !done;) {
        struct hf_pg_head h;
        struct hf_slice in = hf_buf_slice(&c->in);
        int got = hf_pg_head_read(in, &h);
        if (got == -HF_ETRUNC || (got == 0 && in.n < HF_PG_HEAD_LEN + h.body_len)) {
            rc = hf_line_receive(c);
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

static int show(const struct hf_cmd_opt *opt, const char *before, const char *sql,
                const char *const *column, const char *const *head)
{
    struct hf_line c;
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
        rc = opt->json ? hf_line_print_json(rows) : hf_line_print(rows, column, head);
    }
    json_decref(rows);
    hf_line_close(&c);
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
