/* OCF resource agents (OCF 1.1): find one, run one action of it. */
#include "os/ocf.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "os/proc.h"

#define REASON_PREFIX "ocf-exit-reason:"
#define SHELL_LIBRARY "lib/heartbeat/ocf-shellfuncs"

const char *hf_ocf_rc_name(int rc)
{
    switch (rc) {
#define NAME_CASE(name, num, text)                                                                 \
    case num:                                                                                      \
        return #name;
        HF_OCF_RC_LIST(NAME_CASE)
#undef NAME_CASE
    default:
        return NULL;
    }
}

const char *hf_ocf_rc_text(int rc)
{
    switch (rc) {
#define TEXT_CASE(name, num, text)                                                                 \
    case num:                                                                                      \
        return text;
        HF_OCF_RC_LIST(TEXT_CASE)
#undef TEXT_CASE
    default:
        return NULL;
    }
}

/* ---- find ---- */

/* "ocf:PROVIDER:TYPE" */
static int parse_name(const char *name, struct hf_ocf_agent *a)
{
    struct hf_slice s = hf_slice_str(name), scheme = hf_slice_str("ocf:");
    if (!hf_slice_starts(s, scheme)) {
        return -HF_ENAME;
    }
    s = hf_slice(s.p + scheme.n, s.n - scheme.n);
    const uint8_t *colon = memchr(s.p, ':', s.n);
    struct hf_slice provider = hf_slice(s.p, colon ? (size_t)(colon - s.p) : s.n);
    struct hf_slice type = colon ? hf_slice(colon + 1, s.n - provider.n - 1) : hf_slice(NULL, 0);
    if (!hf_proc_name_ok(provider) || !hf_proc_name_ok(type)) {
        return -HF_ENAME;
    }
    snprintf(a->provider, sizeof(a->provider), "%.*s", HF_SLICE_FMT(provider));
    snprintf(a->type, sizeof(a->type), "%.*s", HF_SLICE_FMT(type));
    return 0;
}

int hf_ocf_find(const char *roots, const char *name, struct hf_ocf_agent *ret_agent,
                struct hf_err *err)
{
    struct hf_ocf_agent a = {0};
    if (parse_name(name, &a)) {
        return hf_err_set(err, -HF_ENAME, "'%.100s' is not an agent: ocf:PROVIDER:TYPE is expected",
                          name);
    }
    roots = roots && *roots ? roots : HF_OCF_ROOT;
    char rest[160], library[PATH_MAX + 64];
    snprintf(rest, sizeof(rest), "resource.d/%s/%s", a.provider, a.type);
    int rc = hf_proc_find(roots, rest, a.path);
    if (rc) {
        return hf_err_set(err, rc, "%s %s %s", name,
                          rc == -EACCES ? "is not executable in" : "is not in", roots);
    }
    snprintf(a.root, sizeof(a.root), "%.*s", (int)(strlen(a.path) - strlen(rest) - 1), a.path);
    snprintf(library, sizeof(library), "%s/" SHELL_LIBRARY, a.root);
    if (access(library, R_OK) < 0) {
        snprintf(a.root, sizeof(a.root), "%s", HF_OCF_ROOT);
    }
    *ret_agent = a;
    return 0;
}

/* ---- environment ---- */

/* "NAME=value" strings, one after another, each with its NUL. */
struct env {
    struct hf_buf text;
    size_t n;
    const struct hf_ocf_opt *opt;
};

static void put(struct env *e, const char *prefix, const char *name, const char *value)
{
    hf_buf_str(&e->text, prefix);
    hf_buf_str(&e->text, name);
    hf_buf_str(&e->text, "=");
    hf_buf_str(&e->text, value);
    hf_buf_add(&e->text, hf_slice("", 1));
    e->n++;
}

/* One of ours, unless the caller has his own. */
static void set(struct env *e, const char *name, const char *value)
{
    for (size_t i = 0; i < e->opt->n_env; i++) {
        if (strcmp(e->opt->env[i].name, name) == 0) {
            return;
        }
    }
    put(e, "", name, value);
}

static void set_number(struct env *e, const char *name, long long n)
{
    char text[24];
    snprintf(text, sizeof(text), "%lld", n);
    set(e, name, text);
}

/* What OCF 1.1 asks for and what the resource-agents' shell library tests. Agents log to stderr, of
 * which the end is kept: who logs is the program. */
static void set_ocf(struct env *e)
{
    const struct hf_ocf_opt *o = e->opt;
    set(e, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    set(e, "LC_ALL", "C");
    set(e, "OCF_RA_VERSION_MAJOR", "1");
    set(e, "OCF_RA_VERSION_MINOR", "1");
    set(e, "OCF_ROOT", o->agent->root);
    set(e, "OCF_RESOURCE_INSTANCE", o->instance);
    set(e, "OCF_RESOURCE_TYPE", o->agent->type);
    set(e, "OCF_RESOURCE_PROVIDER", o->agent->provider);
    set(e, "OCF_EXIT_REASON_PREFIX", REASON_PREFIX);
    set_number(e, "OCF_CHECK_LEVEL", o->check_level);
    set(e, "HA_LOGFACILITY", "none");
    set(e, "HA_LOGD", "no");
    set(e, "HA_debug", "0");
    set(e, "OCF_RESKEY_crm_feature_set", "3.16.2"); /* Pacemaker 2.1.5: the words below */
    set_number(e, "OCF_RESKEY_CRM_meta_interval", o->interval / HF_NS_PER_MS);
    if (o->timeout) {
        set_number(e, "OCF_RESKEY_CRM_meta_timeout", o->timeout / HF_NS_PER_MS);
    }
    if (o->on_node) {
        set(e, "OCF_RESKEY_CRM_meta_on_node", o->on_node);
    }
    static const char *const promotable[][2] = {
        {"promotable", "true"},       {"promoted_max", "1"},    {"master_max", "1"},
        {"promoted_node_max", "1"},   {"master_node_max", "1"}, {"clone_node_max", "1"},
        {"globally_unique", "false"},
    };
    for (size_t i = 0; o->promotable && i < HF_ARRAY_LEN(promotable); i++) {
        char name[64];
        snprintf(name, sizeof(name), "OCF_RESKEY_CRM_meta_%s", promotable[i][0]);
        set(e, name, promotable[i][1]);
    }
}

static bool variable_ok(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
    return n > 0 && s[n] == '\0';
}

static int check(const struct hf_ocf_opt *o, struct hf_err *err)
{
    size_t n = strspn(o->action, "abcdefghijklmnopqrstuvwxyz0123456789-_");
    if (n == 0 || o->action[n] || o->action[0] == '-') {
        return hf_err_set(err, -HF_EVALUE, "'%.100s' is not an action", o->action);
    }
    if (!*o->instance) {
        return hf_err_set(err, -HF_EVALUE, "the resource has no name");
    }
    for (size_t i = 0; i < o->n_params + o->n_env; i++) {
        const char *name = i < o->n_params ? o->params[i].name : o->env[i - o->n_params].name;
        if (!variable_ok(name)) {
            return hf_err_set(err, -HF_EVALUE, "'%.100s' is not a parameter's name", name);
        }
    }
    return 0;
}

/* Fill the environment; *ret_env points into e, owned by the caller. */
static int build_env(struct env *e, const char ***ret_env)
{
    const struct hf_ocf_opt *o = e->opt;
    set_ocf(e);
    for (size_t i = 0; i < o->n_params; i++) {
        put(e, "OCF_RESKEY_", o->params[i].name, o->params[i].value);
    }
    for (size_t i = 0; i < o->n_env; i++) {
        put(e, "", o->env[i].name, o->env[i].value);
    }
    const char **env = e->text.err ? NULL : hf_alloc_array(e->n + 1, sizeof(*env));
    if (!env) {
        return e->text.err ? e->text.err : -ENOMEM;
    }
    const char *s = (const char *)e->text.p;
    for (size_t i = 0; i < e->n; i++, s += strlen(s) + 1) {
        env[i] = s;
    }
    *ret_env = env;
    return 0;
}

/* ---- run ---- */

struct hf_ocf_run {
    struct hf_proc *proc;   /* NULL: could not be started */
    struct hf_timer *timer; /* owned; to tell that from the loop */
    int error;              /* of the start */
    hf_time begin, timeout;
    hf_ocf_done *fn;
    void (*line)(void *arg, struct hf_slice line);
    void *arg;
    hf_ocf_meta_done *meta_fn; /* in place of fn: hf_ocf_meta_start() */
    char path[PATH_MAX];
};

static void run_destroy(struct hf_ocf_run *r)
{
    hf_timer_destroy(r->timer);
    hf_free(r);
}

static void tell_meta(hf_ocf_meta_done *fn, void *arg, const char *path,
                      const struct hf_ocf_result *res);

static void tell(struct hf_ocf_run *r, struct hf_ocf_result *res)
{
    res->duration = hf_now() - r->begin;
    hf_tracef(HF_TRACE_PROC, r->path, "%s after %lld ms: %s", hf_ocf_rc_name(res->rc),
              (long long)(res->duration / HF_NS_PER_MS), res->reason);
    if (r->meta_fn) {
        tell_meta(r->meta_fn, r->arg, r->path, res);
    } else {
        r->fn(r->arg, res);
    }
    run_destroy(r);
}

static void on_done(void *arg, const struct hf_proc_result *proc)
{
    struct hf_ocf_run *r = arg;
    struct hf_ocf_result res = {
        .rc = HF_OCF_ERR_GENERIC,
        .end = proc->timed_out      ? HF_OCF_TIMED_OUT
               : proc->status == -1 ? HF_OCF_KILLED
                                    : HF_OCF_EXITED,
        .out = proc->out,
        .dropped = proc->dropped,
    };
    struct hf_slice words = hf_proc_last_line(proc->err, REASON_PREFIX);
    words = words.n ? words : hf_proc_last_line(proc->err, "");
    char reason[HF_OCF_REASON_MAX] = "";
    if (res.end == HF_OCF_EXITED) {
        res.status = proc->status;
        res.rc = hf_ocf_rc_name(proc->status) ? proc->status : HF_OCF_ERR_GENERIC;
    } else {
        res.signo = proc->signo;
        hf_proc_end_text(proc, r->timeout, reason, sizeof(reason));
        hf_proc_add_printable(reason, sizeof(reason), hf_slice_str(words.n ? ": " : ""));
    }
    hf_proc_add_printable(reason, sizeof(reason), words);
    res.reason = reason;
    tell(r, &res);
}

static void on_not_started(void *arg)
{
    struct hf_ocf_run *r = arg;
    int e = r->error;
    char reason[HF_OCF_REASON_MAX];
    snprintf(reason, sizeof(reason), "cannot start %.300s: %s", r->path, hf_strerror(e));
    struct hf_ocf_result res = {
        .rc = e == -ENOENT || e == -ENOTDIR || e == -ENOEXEC ? HF_OCF_ERR_INSTALLED
              : e == -EACCES || e == -EPERM                  ? HF_OCF_ERR_PERM
                                                             : HF_OCF_ERR_GENERIC,
        .end = HF_OCF_NOT_STARTED,
        .error = e,
        .reason = reason,
    };
    tell(r, &res);
}

static void on_line(void *arg, struct hf_slice line)
{
    struct hf_ocf_run *r = arg;
    r->line(r->arg, line);
}

static int run(struct hf_loop *loop, const struct hf_ocf_opt *opt, const char *const *env,
               struct hf_ocf_run *r)
{
    const char *argv[] = {opt->agent->path, opt->action, NULL};
    struct hf_proc_opt o = {
        .argv = argv,
        .env = env,
        .output_max = opt->output_max ? opt->output_max : HF_OCF_OUTPUT_MAX,
        .timeout = opt->timeout,
        .leave_group = true,
        .line = opt->line ? on_line : NULL,
    };
    r->line = opt->line;
    snprintf(r->path, sizeof(r->path), "%s", opt->agent->path);
    r->timeout = opt->timeout;
    r->begin = hf_now();
    hf_tracef(HF_TRACE_PROC, r->path, "%s of %s", opt->action, opt->instance);
    r->error = hf_proc_start(loop, &o, on_done, r, &r->proc);
    if (r->error) {
        int rc = hf_timer_create(loop, on_not_started, r, &r->timer);
        if (rc) {
            return rc;
        }
        hf_timer_set(r->timer, r->begin);
    }
    return 0;
}

int hf_ocf_start(struct hf_loop *loop, const struct hf_ocf_opt *opt, hf_ocf_done *fn, void *arg,
                 struct hf_err *err, struct hf_ocf_run **ret_run)
{
    int rc = check(opt, err);
    if (rc) {
        return rc;
    }
    struct env e = {.opt = opt};
    const char **env = NULL;
    hf_buf_init(&e.text, HF_OCF_ENV_MAX);
    struct hf_ocf_run *r = hf_alloc(sizeof(*r));
    rc = r ? build_env(&e, &env) : -ENOMEM;
    if (rc == 0) {
        r->fn = fn;
        r->arg = arg;
        rc = run(loop, opt, env, r);
    }
    hf_free(env);
    hf_buf_fini(&e.text);
    if (rc) {
        hf_free(r);
        rc = rc == -HF_EFULL ? -HF_EVALUE : rc;
        hf_err_set(err, rc, "cannot run %s of %.100s: %s", opt->action, opt->instance,
                   rc == -HF_EVALUE ? "its parameters are too long" : hf_strerror(rc));
        return rc;
    }
    *ret_run = r;
    return 0;
}

int hf_ocf_say(struct hf_ocf_run *r, const char *text, hf_time timeout)
{
    r->timeout = timeout;
    return r->proc ? hf_proc_say(r->proc, hf_slice_str(text), timeout) : -EPIPE;
}

void hf_ocf_limit(struct hf_ocf_run *r, hf_time timeout)
{
    r->timeout = timeout;
    if (r->proc) {
        hf_proc_limit(r->proc, timeout);
    }
}

void hf_ocf_kill(struct hf_ocf_run *r)
{
    if (r) {
        hf_proc_kill(r->proc);
        run_destroy(r);
    }
}

/* ---- meta-data ---- */

/* Its result, as the caller of hf_ocf_meta_start() wants it. */
static void tell_meta(hf_ocf_meta_done *fn, void *arg, const char *path,
                      const struct hf_ocf_result *res)
{
    struct hf_err err = {0};
    struct hf_ocf_meta *m = NULL;
    int rc = res->end == HF_OCF_TIMED_OUT     ? -HF_ETIMEOUT
             : res->end == HF_OCF_NOT_STARTED ? res->error
             : res->rc != HF_OCF_SUCCESS      ? -HF_EPROTO
                                              : 0;
    if (rc) {
        hf_err_set(&err, rc, "no meta-data of %.100s: %s", path,
                   *res->reason ? res->reason : hf_ocf_rc_text(res->rc));
    } else if (res->out.n == HF_OCF_META_MAX) { /* there may have been more */
        rc = hf_err_set(&err, -HF_EFULL, "the meta-data of %.100s is too long", path);
    } else {
        struct hf_err cause = {0};
        rc = hf_ocf_meta_parse(res->out, &cause, &m);
        if (rc) {
            hf_err_set(&err, rc, "%.100s: %s", path, cause.text);
        }
    }
    fn(arg, rc, &err, m);
}

int hf_ocf_meta_start(struct hf_loop *loop, const struct hf_ocf_agent *agent, hf_time timeout,
                      hf_ocf_meta_done *fn, void *arg, struct hf_ocf_run **ret_run)
{
    struct hf_ocf_opt o = {
        .agent = agent,
        .instance = agent->type,
        .action = "meta-data",
        .timeout = timeout,
        .output_max = HF_OCF_META_MAX,
    };
    struct hf_ocf_run *r;
    int rc = hf_ocf_start(loop, &o, NULL, arg, NULL, &r);
    if (rc == 0) {
        r->meta_fn = fn;
        *ret_run = r;
    }
    return rc;
}
