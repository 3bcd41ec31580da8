/* Commands that ask once and end. */
#include "ctl/commands.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/backup.h"
#include "ctl/render.h"
#include "hostd/config.h"
#include "os/key.h"

#define ANSWER_MAX (512u << 20)
#define REDRAW_MS 1000
#define KEY_FILE "/etc/holdfast/cluster.key"

int hf_cmd_fail(int code, const char *fmt, ...)
{
    char text[512];
    struct hf_buf safe;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    hf_buf_init(&safe, 4 * sizeof(text));
    hf_render_safe(&safe, hf_slice_str(text)); /* parts of it come from elsewhere */
    fprintf(stderr, "holdfast: %.*s\n", HF_SLICE_FMT(hf_buf_slice(&safe)));
    hf_buf_fini(&safe);
    return code;
}

bool hf_cmd_colours(void)
{
    const char *no = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && !(no && *no);
}

int hf_cmd_signals(const int *signos, size_t n)
{
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < n; i++) {
        sigaddset(&set, signos[i]);
    }
    if (sigprocmask(SIG_BLOCK, &set, NULL)) {
        return -errno;
    }
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int hf_cmd_put(struct hf_slice s)
{
    if (fwrite(s.p ? s.p : (const uint8_t *)"", 1, s.n, stdout) != s.n || fflush(stdout)) {
        return hf_cmd_fail(HF_EXIT_FAILED, "cannot write: %s", hf_strerror(-errno));
    }
    return HF_EXIT_OK;
}

/* The whole answer to a query into text, or the reason on stderr. */
static int ask(const struct hf_cmd_opt *opt, const char *what, const char *argument,
               struct hf_buf *text)
{
    struct hf_ask a;
    struct hf_err err = {0};
    int rc = hf_ask_open(&a, opt->socket, opt->timeout_ms, &err);
    if (rc) {
        return hf_cmd_fail(hf_ask_exit(rc), "%s", err.text);
    }
    rc = hf_ask_query(&a, what, argument, text, &err);
    hf_ask_close(&a);
    if (rc) {
        return hf_cmd_fail(hf_ask_exit(rc), "%s", *err.text ? err.text : hf_strerror(rc));
    }
    return HF_EXIT_OK;
}

/* Ask, and print the answer as it is. */
static int ask_plain(const struct hf_cmd_opt *opt, const char *what)
{
    struct hf_buf text, safe;
    hf_buf_init(&text, ANSWER_MAX);
    hf_buf_init(&safe, ANSWER_MAX);
    int code = ask(opt, what, "", &text);
    if (code == HF_EXIT_OK) {
        hf_render_safe(&safe, hf_buf_slice(&text));
        code = hf_cmd_put(hf_buf_slice(&safe));
    }
    hf_buf_fini(&text);
    hf_buf_fini(&safe);
    return code;
}

/* Ask; *ret_json is the caller's, NULL after an error. */
static int ask_json(const struct hf_cmd_opt *opt, const char *what, const char *argument,
                    json_t **ret_json)
{
    struct hf_buf text;
    json_error_t bad;
    *ret_json = NULL;
    hf_buf_init(&text, ANSWER_MAX);
    int code = ask(opt, what, argument, &text);
    if (code == HF_EXIT_OK) {
        *ret_json = json_loadb((const char *)text.p, text.n, 0, &bad);
        if (!*ret_json) {
            code = hf_cmd_fail(HF_EXIT_FAILED, "holdfastd's answer is not JSON: %s", bad.text);
        }
    }
    hf_buf_fini(&text);
    return code;
}

static int put_json(const struct hf_cmd_opt *opt, const json_t *json,
                    int (*render)(struct hf_buf *out, const json_t *answer), bool compact)
{
    struct hf_buf out;
    int rc = 0;
    hf_buf_init(&out, ANSWER_MAX);
    if (opt->json) {
        char *dump = json_dumps(json, compact ? JSON_COMPACT : JSON_INDENT(2));
        hf_buf_str(&out, dump ? dump : "");
        hf_buf_str(&out, "\n");
        free(dump);
    } else {
        rc = render(&out, json);
    }
    int code = rc ? hf_cmd_fail(HF_EXIT_FAILED, "cannot show the answer: %s", hf_strerror(rc))
                  : hf_cmd_put(hf_buf_slice(&out));
    hf_buf_fini(&out);
    return code;
}

int hf_cmd_ask_json(const struct hf_cmd_opt *opt, const char *what, const char *argument,
                    int (*render)(struct hf_buf *out, const json_t *answer), bool compact)
{
    json_t *json;
    int code = ask_json(opt, what, argument, &json);
    code = code ? code : put_json(opt, json, render, compact);
    json_decref(json);
    return code;
}

static int render_status(struct hf_buf *out, const json_t *answer)
{
    bool colour = hf_cmd_colours();
    int rc = hf_render_status(out, answer, colour);
    return rc ? rc : hf_render_managers(out, json_object_get(answer, "managers"), colour);
}

static int render_members(struct hf_buf *out, const json_t *answer)
{
    return hf_render_members(out, answer, hf_cmd_colours());
}

int hf_cmd_status(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    if (!opt->watch) {
        return hf_cmd_ask_json(opt, "status", "", render_status, false);
    }
    for (;;) { /* until a signal; a restart of holdfastd is one of the things to be watched */
        if (isatty(STDOUT_FILENO) && !opt->json) {
            fputs("\033[H\033[J", stdout);
        }
        int code = hf_cmd_ask_json(opt, "status", "", render_status, true);
        if (code == HF_EXIT_OK && !opt->json && hf_cmd_put(hf_slice_str("\n"))) {
            return HF_EXIT_FAILED;
        }
        if (ferror(stdout)) {
            return HF_EXIT_FAILED;
        }
        usleep(REDRAW_MS * 1000);
    }
}

int hf_cmd_members(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return hf_cmd_ask_json(opt, "members", "", render_members, false);
}

int hf_cmd_tree(const struct hf_cmd_opt *opt, int n, char **arg)
{
    return hf_cmd_ask_json(opt, "tree", n ? arg[0] : "", hf_render_tree, false);
}

int hf_cmd_recorder(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return ask_plain(opt, "recorder");
}

int hf_cmd_metrics(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    return ask_plain(opt, "metrics");
}

/* A request without an answer but its result. */
static int request(const struct hf_cmd_opt *opt, struct hf_ctl_msg *m, const char *done)
{
    struct hf_ask a;
    struct hf_err err = {0};
    int rc = hf_ask_open(&a, opt->socket, opt->timeout_ms, &err);
    if (rc == 0) {
        rc = hf_ask(&a, m, NULL, &err);
        hf_ask_close(&a);
    }
    if (rc) {
        return hf_cmd_fail(hf_ask_exit(rc), "%s", *err.text ? err.text : hf_strerror(rc));
    }
    puts(done);
    return HF_EXIT_OK;
}

int hf_cmd_withdraw(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    char done[HF_SERVICE_NAME_MAX + 16];
    struct hf_ctl_msg m = {.type = HF_CTL_WITHDRAW, .name = hf_slice_str(arg[0])};
    if (m.name.n > HF_SERVICE_NAME_MAX) {
        return hf_cmd_fail(HF_EXIT_FAILED, "a name has at most %d bytes", HF_SERVICE_NAME_MAX);
    }
    snprintf(done, sizeof(done), "withdrawn %s", arg[0]);
    return request(opt, &m, done);
}

int hf_cmd_reload(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    struct hf_ctl_msg m = {.type = HF_CTL_RELOAD};
    return request(opt, &m, "holdfastd has read its configuration again");
}

int hf_cmd_keygen(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)opt;
    const char *path = n ? arg[0] : KEY_FILE;
    struct hf_err err = {0};
    int rc = hf_key_generate(path, &err);
    if (rc == -EEXIST) {
        return hf_cmd_fail(HF_EXIT_FAILED,
                           "%s is there already and is not overwritten: other hosts may have it; "
                           "move it away to make a new one",
                           path);
    }
    if (rc) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%s", *err.text ? err.text : hf_strerror(rc));
    }
    printf("wrote %s: copy it, secretly, to all hosts of the cluster\n", path);
    return HF_EXIT_OK;
}

int hf_cmd_config(const struct hf_cmd_opt *opt, int n, char **arg)
{
    if (n == 0 && !opt->check) {
        return ask_plain(opt, "config");
    }
    const char *path = n ? arg[0] : HF_HOSTD_CONFIG_FILE;
    struct hf_err err = {0};
    struct hf_hostd_config *c;
    int code;
    if (hf_hostd_config_load(path, &err, &c)) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%s", err.text);
    }
    if (opt->check) {
        printf("%s is valid\n", path);
        code = HF_EXIT_OK;
    } else {
        struct hf_buf out;
        hf_buf_init(&out, HF_CONF_FILE_MAX);
        hf_hostd_config_print(c, &out);
        code = hf_cmd_put(hf_buf_slice(&out));
        hf_buf_fini(&out);
    }
    hf_hostd_config_destroy(c);
    return code;
}

/* What was said comes first, also of what failed. */
static int say(struct hf_buf *said, int rc, const struct hf_err *err)
{
    struct hf_buf safe;
    hf_buf_init(&safe, ANSWER_MAX);
    hf_render_safe(&safe, hf_buf_slice(said));
    int code = hf_cmd_put(hf_buf_slice(&safe));
    hf_buf_fini(&safe);
    hf_buf_fini(said);
    return rc ? hf_cmd_fail(HF_EXIT_FAILED, "%s", err->text) : code;
}

int hf_cmd_backup(const struct hf_cmd_opt *opt, int n, char **arg)
{
    struct hf_buf said;
    struct hf_err err;
    struct hf_backup_opt b = {.root = "",
                              .file = arg[0],
                              .no_secrets = opt->no_secrets,
                              .more = arg + 1,
                              .n_more = (size_t)n - 1};
    hf_buf_init(&said, ANSWER_MAX);
    int rc = hf_backup(&b, &said, &err);
    return say(&said, rc, &err);
}

int hf_cmd_restore(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    struct hf_buf said;
    struct hf_err err;
    struct hf_restore_opt r = {
        .root = "", .file = arg[0], .host = opt->host, .overwrite = opt->yes, .check = opt->check};
    hf_buf_init(&said, ANSWER_MAX);
    int rc = hf_restore(&r, &said, &err);
    return say(&said, rc, &err);
}

int hf_cmd_version(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)opt;
    (void)n;
    (void)arg;
    puts("holdfast " HF_VERSION);
    return HF_EXIT_OK;
}
