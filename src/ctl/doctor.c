/* `holdfast doctor`: gather, judge, show. */
#include "ctl/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "ctl/commands.h"
#include "hostd/config.h"

#define ANSWER_MAX (512u << 20)
#define REPORT_MAX (4u << 20)

/* ---- files ---- */

static void find_file(struct hf_doctor_file *file)
{
    file->state = access(file->path, F_OK) == 0         ? HF_DOCTOR_FILE_THERE
                  : errno == ENOENT || errno == ENOTDIR ? HF_DOCTOR_FILE_ABSENT
                                                        : HF_DOCTOR_FILE_UNKNOWN;
    if (file->state == HF_DOCTOR_FILE_UNKNOWN) {
        snprintf(file->check.text, sizeof(file->check.text), "%s", hf_strerror(-errno));
    }
}

/* holdfastd's file, and those of the other programs beside it. NULL: not valid. */
static struct hf_hostd_config *load(struct hf_doctor_facts *f, const char *path)
{
    struct hf_hostd_config *config = NULL;
    struct hf_err err = {0};
    const char *slash = strrchr(path, '/');
    int n = slash ? (int)(slash - path) + 1 : 0;
    snprintf(f->hostd.path, sizeof(f->hostd.path), "%s", path);
    snprintf(f->pg.path, sizeof(f->pg.path), "%.*sholdfast-pg.conf", n, path);
    snprintf(f->sip.path, sizeof(f->sip.path), "%.*sholdfast-sip.conf", n, path);
    find_file(&f->hostd);
    find_file(&f->pg);
    find_file(&f->sip);
    if (f->hostd.state != HF_DOCTOR_FILE_THERE) {
        return NULL;
    }
    f->hostd.check.tried = true;
    f->hostd.check.rc = hf_hostd_config_load(path, &err, &config);
    snprintf(f->hostd.check.text, sizeof(f->hostd.check.text), "%s", err.text);
    return f->hostd.check.rc ? NULL : config;
}

/* ---- holdfastd ---- */

static json_t *query(struct hf_ask *a, const char *what, struct hf_err *err)
{
    struct hf_buf text;
    json_error_t bad;
    json_t *json = NULL;
    hf_buf_init(&text, ANSWER_MAX);
    int rc = hf_ask_query(a, what, "", &text, err);
    if (rc == 0) {
        json = json_loadb((const char *)text.p, text.n, 0, &bad);
        if (!json) {
            hf_err_set(err, -HF_EPROTO, "holdfastd's answer is not JSON: %s", bad.text);
        }
    }
    hf_buf_fini(&text);
    return json;
}

static void ask_daemon(const struct hf_cmd_opt *opt, const struct hf_hostd_config *config,
                       struct hf_doctor_facts *f)
{
    struct hf_ask a;
    struct hf_err err = {0};
    bool own = !opt->socket && !getenv("HOLDFAST_SOCKET") && config;
    f->daemon.tried = true;
    f->daemon.rc =
        hf_ask_open(&a, own ? config->control.socket : opt->socket, opt->timeout_ms, &err);
    if (f->daemon.rc == 0) {
        f->status = query(&a, "status", &err);
        f->members = f->status ? query(&a, "members", &err) : NULL;
        hf_ask_close(&a);
    }
    snprintf(f->daemon.text, sizeof(f->daemon.text), "%s", err.text);
}

/* ---- the report ---- */

static int show(const struct hf_cmd_opt *opt, const struct hf_doctor_facts *f, json_t *findings)
{
    struct hf_buf out;
    hf_buf_init(&out, REPORT_MAX);
    int rc = 0;
    if (opt->json) {
        json_t *all = json_pack("{s:s, s:O}", "host", f->host, "findings", findings);
        char *dump = all ? json_dumps(all, JSON_INDENT(2)) : NULL;
        hf_buf_str(&out, dump ? dump : "");
        hf_buf_str(&out, "\n");
        rc = dump ? out.err : -ENOMEM;
        free(dump);
        json_decref(all);
    } else {
        rc = hf_doctor_render(&out, f->host, findings, hf_cmd_colours());
    }
    int code = rc ? hf_cmd_fail(HF_EXIT_FAILED, "cannot show what was found: %s", hf_strerror(rc))
                  : hf_cmd_put(hf_buf_slice(&out));
    hf_buf_fini(&out);
    return code ? code : hf_doctor_count(findings, "fault") ? HF_EXIT_FAILED : HF_EXIT_OK;
}

int hf_cmd_doctor(const struct hf_cmd_opt *opt, int n, char **arg)
{
    struct hf_doctor_facts *f = hf_alloc(sizeof(*f));
    if (!f) {
        return hf_cmd_fail(HF_EXIT_FAILED, "%s", hf_strerror(-ENOMEM));
    }
    struct hf_hostd_config *config = load(f, n ? arg[0] : HF_HOSTD_CONFIG_FILE);
    hf_doctor_look(f, config);
    ask_daemon(opt, config, f);
    int code, rc = hf_doctor_ask(f, config);
    json_t *findings = rc ? NULL : hf_doctor_judge(f);
    if (findings) {
        code = show(opt, f, findings);
    } else {
        code = hf_cmd_fail(HF_EXIT_FAILED, "%s", hf_strerror(rc ? rc : -ENOMEM));
    }
    json_decref(findings);
    hf_hostd_config_destroy(config);
    hf_doctor_fini(f);
    hf_free(f);
    return code;
}
