/* `holdfast group ...`: what an operator wants of a group, and how it is. */
#include <stdio.h>

#include "ctl/commands.h"
#include "ctl/render.h"
#include "os/file.h"

#define CONNECT_MS_MAX 5000
#define ANSWER_LATE_MS 2000 /* holdfastd gives up first, and can say what it waited for */

static int render_groups(struct hf_buf *out, const json_t *answer)
{
    return hf_render_groups(out, answer, hf_cmd_colours());
}

int hf_cmd_group_show(const struct hf_cmd_opt *opt, int n, char **arg)
{
    return hf_cmd_ask_json(opt, "groups", n ? arg[0] : "", render_groups, false);
}

int hf_cmd_group_history(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    return hf_cmd_ask_json(opt, "group-history", arg[0], hf_render_history, false);
}

/* ---- what changes something ---- */

static int check_length(const char *what, struct hf_slice s, size_t max)
{
    return s.n <= max
               ? HF_EXIT_OK
               : hf_cmd_fail(HF_EXIT_FAILED, "the name of a %s has at most %zu bytes", what, max);
}

/* Print why it failed; holdfastd does not know the name of the file with the definition. */
static int failed(int rc, const struct hf_err *err, const char *path)
{
    static const char definition[] = "definition:";
    const char *text = *err->text ? err->text : hf_strerror(rc);
    if (path && strncmp(text, definition, sizeof(definition) - 1) == 0) {
        return hf_cmd_fail(hf_ask_exit(rc), "%s:%s", path, text + sizeof(definition) - 1);
    }
    return hf_cmd_fail(hf_ask_exit(rc), "%s", text);
}

/* Send it, and wait until it is done or refused. path: of its definition, or NULL. */
static int request_file(const struct hf_cmd_opt *opt, struct hf_ctl_msg *m, const char *path)
{
    struct hf_ask a;
    struct hf_err err = {0};
    int code = check_length("group", m->name, HF_GROUP_NAME_MAX);
    code = code ? code : check_length("host", m->owner, HF_HOST_NAME_MAX);
    code = code ? code : check_length("resource", m->resource, HF_GROUP_RESOURCE_NAME_MAX);
    if (code) {
        return code;
    }
    m->type = HF_CTL_GROUP;
    m->wait_ms = (uint32_t)opt->timeout_ms;
    int rc = hf_ask_open(&a, opt->socket,
                         opt->timeout_ms < CONNECT_MS_MAX ? opt->timeout_ms : CONNECT_MS_MAX, &err);
    if (rc == 0) {
        a.timeout_ms = opt->timeout_ms + ANSWER_LATE_MS;
        rc = hf_ask(&a, m, NULL, &err);
        hf_ask_close(&a);
    }
    if (rc) {
        return failed(rc, &err, path);
    }
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    hf_render_safe(&out, hf_slice_str(*err.text ? err.text : "done"));
    printf("%.*s\n", HF_SLICE_FMT(hf_buf_slice(&out)));
    hf_buf_fini(&out);
    return HF_EXIT_OK;
}

static int request(const struct hf_cmd_opt *opt, struct hf_ctl_msg *m)
{
    return request_file(opt, m, NULL);
}

static int request_with(const struct hf_cmd_opt *opt, struct hf_ctl_msg *m, const char *path)
{
    struct hf_buf text;
    hf_buf_init(&text, HF_GROUP_DEFINITION_MAX);
    int rc = hf_file_read(path, &text);
    m->value = hf_buf_slice(&text);
    int code = rc == -HF_EFULL
                   ? hf_cmd_fail(HF_EXIT_FAILED, "%s: a definition has at most %d bytes", path,
                                 HF_GROUP_DEFINITION_MAX)
               : rc ? hf_cmd_fail(HF_EXIT_FAILED, "cannot read %s: %s", path, hf_strerror(rc))
               : text.n == 0 ? hf_cmd_fail(HF_EXIT_FAILED, "%s is empty", path)
                             : request_file(opt, m, path);
    hf_buf_fini(&text);
    return code;
}

static struct hf_slice str(const char *s)
{
    return s ? hf_slice_str(s) : hf_slice(NULL, 0);
}

int hf_cmd_group_create(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    struct hf_ctl_msg m = {.action = HF_CTL_GROUP_CREATE, .name = str(arg[0])};
    return request_with(opt, &m, arg[1]);
}

int hf_cmd_group_join(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    struct hf_ctl_msg m = {.action = HF_CTL_GROUP_JOIN, .name = str(arg[0])};
    return opt->bring ? request_with(opt, &m, opt->bring) : request(opt, &m);
}

int hf_cmd_group_leave(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    struct hf_ctl_msg m = {
        .action = HF_CTL_GROUP_LEAVE, .name = str(arg[0]), .owner = str(opt->host)};
    return request(opt, &m);
}

int hf_cmd_group_switch(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    struct hf_ctl_msg m = {
        .action = HF_CTL_GROUP_SWITCH, .name = str(arg[0]), .owner = str(opt->to)};
    return request(opt, &m);
}

int hf_cmd_group_force(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    struct hf_ctl_msg m = {
        .action = HF_CTL_GROUP_FORCE, .name = str(arg[0]), .resource = str(arg[1])};
    if (!opt->yes) {
        return hf_cmd_fail(HF_EXIT_USAGE,
                           "force makes %s the primary of %s whatever its state: what it lacks of "
                           "the last primary's data is lost, commits that were acknowledged "
                           "included, and copies that have it will be overwritten. Nothing was "
                           "done; to do it, add --yes",
                           arg[1], arg[0]);
    }
    return request(opt, &m);
}

int hf_cmd_group_pause(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    struct hf_ctl_msg m = {.action = HF_CTL_GROUP_PAUSE, .name = str(arg[0])};
    return request(opt, &m);
}

int hf_cmd_group_resume(const struct hf_cmd_opt *opt, int n, char **arg)
{
    struct hf_ctl_msg m = {
        .action = HF_CTL_GROUP_RESUME, .name = str(arg[0]), .resource = str(n > 1 ? arg[1] : NULL)};
    return request(opt, &m);
}

int hf_cmd_group_confirm(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    struct hf_ctl_msg m = {
        .action = HF_CTL_GROUP_CONFIRM, .name = str(arg[0]), .owner = str(arg[1])};
    return request(opt, &m);
}
