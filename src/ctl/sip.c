/* `holdfast sip ...`: what an operator asks of the local holdfast-sip. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "ctl/line.h"
#include "ctl/render.h"
#include "os/file.h"

#define CSV_MAX (60u << 20)
#define PASSWORD_MAX 1024

static const struct hf_line_place place = {.program = "holdfast-sip",
                                           .env = "HOLDFAST_SIP_SOCKET",
                                           .path = "/run/holdfast-sip/control.sock",
                                           .option = "sip.control"};

/* ---- asking ---- */

/* The next line, as JSON; NULL and *rc: there is none. */
static json_t *receive(struct hf_line *l, int *rc)
{
    const uint8_t *end;
    while (!l->in.n || !(end = memchr(l->in.p, '\n', l->in.n))) {
        *rc = hf_line_receive(l);
        if (*rc) {
            return NULL;
        }
    }
    size_t n = (size_t)(end - l->in.p);
    json_t *v = json_loadb((const char *)l->in.p, n, 0, NULL);
    hf_buf_consume(&l->in, n + 1);
    if (!v) {
        *rc =
            hf_cmd_fail(HF_EXIT_FAILED, "holdfast-sip at %s: %s", l->path, hf_strerror(-HF_EPROTO));
    }
    return v;
}

/* Takes q. The answer, if it is a good one; the line stays open. */
static int ask_on(struct hf_line *l, json_t *q, json_t **ret_answer)
{
    char *text = json_dumps(q, JSON_COMPACT);
    json_decref(q);
    int rc =
        text ? hf_line_send(l, hf_slice_str(text)) : hf_cmd_fail(HF_EXIT_FAILED, "out of memory");
    rc = rc ? rc : hf_line_send(l, hf_slice_str("\n"));
    if (text) {
        explicit_bzero(text, strlen(text)); /* maybe a password */
    }
    free(text);
    json_t *v = rc ? NULL : receive(l, &rc);
    if (v && !json_is_true(json_object_get(v, "ok"))) {
        rc = hf_cmd_fail(HF_EXIT_FAILED, "%s", hf_json_text(v, "error"));
        json_decref(v);
        v = NULL;
    }
    *ret_answer = v;
    return rc;
}

static int ask(const struct hf_cmd_opt *opt, json_t *q, json_t **ret_answer)
{
    struct hf_line l;
    *ret_answer = NULL;
    int rc = hf_line_open(&l, opt, &place);
    if (rc) {
        json_decref(q);
    } else {
        rc = ask_on(&l, q, ret_answer);
    }
    hf_line_close(&l);
    return rc;
}

static json_t *command(const char *name, const char *key, const char *value)
{
    json_t *q = json_object();
    json_object_set_new(q, "command", json_string(name));
    if (key) {
        json_object_set_new(q, key, json_string(value));
    }
    return q;
}

/* A command whose answer is no more than that it was done. */
static int do_it(const struct hf_cmd_opt *opt, json_t *q)
{
    json_t *v;
    int rc = ask(opt, q, &v);
    json_decref(v);
    return rc;
}

static int sip_status(const struct hf_cmd_opt *opt)
{
    static const char *const key[] = {"worker",       "rows",    "bindings",    "subscriptions",
                                      "transactions", "waiting", "connections", "messages_s",
                                      "cpu",          "queue",   "sheds",       "table"};
    static const char *const head[] = {"WORKER",  "ROWS",  "BINDINGS", "SUBS", "TRANSACTIONS",
                                       "WAITING", "CONNS", "MSG/S",    "CPU",  "QUEUE",
                                       "SHEDS",   "TABLE", NULL};
    json_t *v;
    int rc = ask(opt, command("status", NULL, NULL), &v);
    if (rc || opt->json) {
        rc = rc ? rc : hf_line_print_json(v);
        json_decref(v);
        return rc;
    }
    const json_t *server = json_object_get(v, "server"), *leader = json_object_get(v, "leader");
    printf("%s: %s, %s, weight %lld, up %lld s%s\n", hf_json_text(v, "name"),
           hf_json_text(server, "role"), hf_json_text(server, "state"),
           (long long)json_integer_value(json_object_get(server, "weight")),
           (long long)json_integer_value(json_object_get(v, "uptime_s")),
           json_is_true(json_object_get(server, "busy")) ? ", overloaded" : "");
    if (json_is_true(json_object_get(leader, "leads"))) {
        printf("leads (reign %lld): %s, %lld clients moved\n",
               (long long)json_integer_value(json_object_get(leader, "reign")),
               hf_json_text(leader, "state"),
               (long long)json_integer_value(json_object_get(leader, "moved")));
    }
    rc = hf_line_print(json_object_get(v, "workers"), key, head);
    json_decref(v);
    return rc;
}

static int sip_servers(const struct hf_cmd_opt *opt)
{
    static const char *const key[] = {"name",       "state", "role", "weight", "rows", "bindings",
                                      "requests_s", "cpu",   "busy", "leads",  "host"};
    static const char *const head[] = {"SERVER", "STATE", "ROLE", "WEIGHT", "ROWS", "BINDINGS",
                                       "REQ/S",  "CPU",   "BUSY", "LEADS",  "HOST", NULL};
    json_t *v;
    int rc = ask(opt, command("servers", NULL, NULL), &v);
    if (rc == HF_EXIT_OK) {
        rc = opt->json ? hf_line_print_json(v)
                       : hf_line_print(json_object_get(v, "servers"), key, head);
    }
    json_decref(v);
    return rc;
}

static int sip_show(const struct hf_cmd_opt *opt, char **arg)
{
    json_t *v;
    int rc = ask(opt, command("show", "aor", arg[0]), &v);
    if (rc == HF_EXIT_OK) {
        hf_line_print_json(json_object_get(v, "known"));
    }
    json_decref(v);
    return rc;
}

/* ---- the leader's ---- */

/* Text as it came. */
static int sip_text(const struct hf_cmd_opt *opt, const char *name)
{
    json_t *v;
    int rc = ask(opt, command(name, NULL, NULL), &v);
    if (rc == HF_EXIT_OK) {
        fputs(hf_json_text(v, "text"), stdout);
    }
    json_decref(v);
    return rc;
}

static int sip_assign(const struct hf_cmd_opt *opt, char **arg)
{
    json_t *q = command("assign", "aor", arg[0]);
    json_object_set_new(q, "server", json_string(arg[1]));
    return do_it(opt, q);
}

static int sip_import(const struct hf_cmd_opt *opt, char **arg)
{
    struct hf_buf csv;
    hf_buf_init(&csv, CSV_MAX);
    int rc = hf_file_read(strcmp(arg[0], "-") == 0 ? "/dev/stdin" : arg[0], &csv);
    if (rc) {
        hf_buf_fini(&csv);
        return hf_cmd_fail(HF_EXIT_FAILED, "%s: %s", arg[0], hf_strerror(rc));
    }
    json_t *q = command("import", NULL, NULL), *v;
    json_object_set_new(q, "csv", json_stringn((const char *)csv.p, csv.n));
    hf_buf_fini(&csv);
    rc = ask(opt, q, &v);
    if (rc == HF_EXIT_OK) {
        printf("%lld rows\n", (long long)json_integer_value(json_object_get(v, "rows")));
    }
    json_decref(v);
    return rc;
}

/* ---- users ---- */

/* A line of stdin, which is not shown. */
static int read_password(char *buf, size_t room)
{
    struct termios before, silent;
    bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
    if (terminal) {
        silent = before;
        silent.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
        fputs("password: ", stderr);
    }
    char *got = fgets(buf, (int)room, stdin);
    if (terminal) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        fputc('\n', stderr);
    }
    if (got) {
        buf[strcspn(buf, "\n")] = '\0';
    }
    return got && *buf ? HF_EXIT_OK : hf_cmd_fail(HF_EXIT_FAILED, "no password on stdin");
}

static int sip_user(const struct hf_cmd_opt *opt, char **arg)
{
    char password[PASSWORD_MAX];
    if (strcmp(arg[0], "delete") == 0) {
        return do_it(opt, command("user-delete", "user", arg[1]));
    }
    if (strcmp(arg[0], "add") != 0) {
        return hf_cmd_fail(HF_EXIT_USAGE, "sip user: got %s, expected add or delete", arg[0]);
    }
    int rc = read_password(password, sizeof(password));
    if (rc == HF_EXIT_OK) {
        json_t *q = command("user-add", "user", arg[1]);
        json_object_set_new(q, "password", json_string(password));
        rc = do_it(opt, q);
    }
    explicit_bzero(password, sizeof(password));
    return rc;
}

/* ---- traces ---- */

/* One message of the ladder: the peer's side on the left, this server's on the right. */
static void print_step(const json_t *v)
{
    const char *what = hf_json_text(v, "what"), *text = hf_json_text(v, "text");
    double at = json_number_value(json_object_get(v, "time"));
    time_t s = (time_t)at;
    struct tm tm;
    char when[32];
    strftime(when, sizeof(when), "%T", localtime_r(&s, &tm));
    printf("%s.%03d  ", when, (int)((at - floor(at)) * 1000));
    if (strcmp(what, "recv") == 0 || strcmp(what, "send") == 0) {
        printf("%-28.28s %-3.3s %s %.*s\n", hf_json_text(v, "peer"), hf_json_text(v, "transport"),
               *what == 'r' ? "--->" : "<---", (int)strcspn(text, "\r\n"), text);
    } else {
        printf("%-32s   *  %s: %.*s\n", "", what, (int)strcspn(text, "\r\n"), text);
    }
    fflush(stdout);
}

static int sip_trace(const struct hf_cmd_opt *opt, char **arg)
{
    struct timeval none = {0};
    struct hf_line l;
    json_t *v = NULL;
    int rc = hf_line_open(&l, opt, &place);
    rc = rc ? rc : ask_on(&l, command("trace", "aor", arg[0]), &v);
    json_decref(v);
    if (rc == HF_EXIT_OK && !opt->json) {
        printf("messages of %s; Ctrl-C ends\n", arg[0]);
        fflush(stdout);
    }
    if (rc == HF_EXIT_OK) {
        setsockopt(l.fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
    }
    while (rc == HF_EXIT_OK && (v = receive(&l, &rc))) {
        if (opt->json) {
            json_dumpf(v, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
            putchar('\n');
            fflush(stdout);
        } else {
            print_step(v);
        }
        json_decref(v);
    }
    hf_line_close(&l);
    return rc;
}

/* ---- the table ---- */

int hf_cmd_sip_status(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return sip_status(opt);
}

int hf_cmd_sip_servers(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return sip_servers(opt);
}

int hf_cmd_sip_show(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    return sip_show(opt, arg);
}

int hf_cmd_sip_trace(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    return sip_trace(opt, arg);
}

int hf_cmd_sip_plan(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return sip_text(opt, "plan");
}

int hf_cmd_sip_export(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return sip_text(opt, "export");
}

int hf_cmd_sip_import(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    return sip_import(opt, arg);
}

int hf_cmd_sip_assign(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    return sip_assign(opt, arg);
}

int hf_cmd_sip_pin(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    return do_it(opt, command("pin", "aor", arg[0]));
}

int hf_cmd_sip_unpin(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    return do_it(opt, command("unpin", "aor", arg[0]));
}

int hf_cmd_sip_drain(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return do_it(opt, command("drain", NULL, NULL));
}

int hf_cmd_sip_rebalance(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return do_it(opt, command("rebalance", NULL, NULL));
}

int hf_cmd_sip_undrain(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return do_it(opt, command("undrain", NULL, NULL));
}

int hf_cmd_sip_user(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    return sip_user(opt, arg);
}
