/* Fence agents (fence-agents): run one action of one, or fence a host by levels of devices. */
#include "os/fence.h"

#include <errno.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/names.h"
#include "os/proc.h"

HF_NAMES(hf_fence_action_name, enum hf_fence_action, HF_FENCE_ACTION_LIST)

int hf_fence_find(const char *dirs, const char *name, char ret_path[static PATH_MAX],
                  struct hf_err *err)
{
    int rc;
    if (name[0] == '/') {
        rc = hf_proc_find("/", name + 1, ret_path);
        return rc ? hf_err_set(err, rc, "%.200s %s", name,
                               rc == -EACCES ? "is not executable" : "is not a program")
                  : 0;
    }
    if (!hf_proc_name_ok(hf_slice_str(name))) {
        return hf_err_set(err, -HF_ENAME, "'%.100s' is not the name of a fence agent", name);
    }
    dirs = dirs && *dirs ? dirs : HF_FENCE_PATH;
    rc = hf_proc_find(dirs, name, ret_path);
    return rc ? hf_err_set(err, rc, "%s %s %s", name,
                           rc == -EACCES ? "is not executable in" : "is not in", dirs)
              : 0;
}

/* ---- one agent ---- */

struct hf_fence_run {
    struct hf_proc *proc;   /* NULL: could not be started */
    struct hf_timer *timer; /* owned; to tell that from the loop */
    int error;              /* of the start */
    enum hf_fence_action action;
    struct hf_buf input; /* what it read: with the secrets that may not get out */
    hf_time begin, timeout;
    hf_fence_done *fn;
    void *arg;
    char path[PATH_MAX];
};

static void add_option(struct hf_buf *b, const char *name, const char *value)
{
    hf_buf_str(b, name);
    hf_buf_str(b, "=");
    hf_buf_str(b, value);
    hf_buf_str(b, "\n");
}

/* The agent's stdin, into b (initialised). */
static int build_input(enum hf_fence_action action, const char *plug,
                       const struct hf_fence_pair *options, size_t n_options, struct hf_buf *b,
                       struct hf_err *err)
{
    add_option(b, "action", hf_fence_action_name(action));
    if (plug) {
        add_option(b, "plug", plug);
    }
    for (size_t i = 0; i < n_options; i++) {
        const char *name = options[i].name;
        if (!*name || name[strcspn(name, "= \t\n#")] || strchr(options[i].value, '\n')) {
            return hf_err_set(err, -HF_EVALUE, "'%.64s' is not an option of one line", name);
        }
        add_option(b, name, options[i].value);
    }
    if (plug && strchr(plug, '\n')) {
        return hf_err_set(err, -HF_EVALUE, "a plug with a newline");
    }
    int rc = b->err == -HF_EFULL ? -HF_EVALUE : b->err;
    return rc ? hf_err_set(err, rc, "the options of a fence device are %s",
                           rc == -HF_EVALUE ? "too long" : hf_strerror(rc))
              : 0;
}

static bool is_secret(struct hf_slice name)
{
    static const char *const words[] = {"passw", "secret", "token", "key"};
    for (size_t i = 0; i < HF_ARRAY_LEN(words); i++) {
        if (memmem(name.p, name.n, words[i], strlen(words[i]))) {
            return true;
        }
    }
    return false;
}

/* Replace each `secret` in text (room: n), also one of which the end was cut off. */
static void hide(char *text, size_t n, struct hf_slice secret)
{
    char *at = text;
    while ((at = memmem(at, strlen(at), secret.p, secret.n)) != NULL) {
        char rest[HF_FENCE_TEXT_MAX];
        snprintf(rest, sizeof(rest), "%s", at + secret.n);
        snprintf(at, n - (size_t)(at - text), "***%s", rest);
        at += strnlen(at, 3);
    }
    size_t len = strlen(text);
    bool cut = len + 4 >= n; /* a character that did not fit may leave 3 bytes */
    for (size_t k = cut ? secret.n - 1 : 0; k > 0; k--) {
        if (k <= len && memcmp(text + len - k, secret.p, k) == 0) {
            text[len - k] = '\0';
            break;
        }
    }
}

static void hide_secrets(char *text, size_t n, struct hf_slice input)
{
    while (input.n) {
        const uint8_t *end = memchr(input.p, '\n', input.n);
        struct hf_slice line = hf_slice(input.p, (size_t)(end - input.p));
        const uint8_t *eq = memchr(line.p, '=', line.n);
        size_t name = (size_t)(eq - line.p), value = line.n - name - 1;
        if (value && is_secret(hf_slice(line.p, name))) {
            hide(text, n, hf_slice(eq + 1, value));
        }
        input = hf_slice(end + 1, input.n - line.n - 1);
    }
}

static void run_destroy(struct hf_fence_run *r)
{
    hf_timer_destroy(r->timer);
    hf_buf_fini(&r->input);
    hf_free(r);
}

static void tell(struct hf_fence_run *r, struct hf_fence_result *res, char *text, size_t n)
{
    hide_secrets(text, n, hf_buf_slice(&r->input));
    res->text = text;
    res->duration = hf_now() - r->begin;
    hf_tracef(HF_TRACE_PROC, r->path, "%s %s after %lld ms: %s", hf_fence_action_name(r->action),
              res->rc ? "failed" : "done", (long long)(res->duration / HF_NS_PER_MS), text);
    r->fn(r->arg, res);
    run_destroy(r);
}

/* What the agent said of its failure: the library's "Failed: ...", which usage hints may follow. */
static struct hf_slice words_of(const struct hf_proc_result *proc)
{
    static const char failed[] = "Failed: ";
    struct hf_slice rest = proc->err, found = {0};
    const uint8_t *at;
    while (rest.n && (at = memmem(rest.p, rest.n, failed, strlen(failed))) != NULL) {
        at += strlen(failed);
        rest = hf_slice(at, (size_t)(rest.p + rest.n - at));
        const uint8_t *end = rest.n ? memchr(rest.p, '\n', rest.n) : NULL;
        found = hf_slice(at, end ? (size_t)(end - at) : rest.n);
    }
    found = found.n ? found : hf_proc_last_line(proc->err, "");
    return found.n ? found : hf_proc_last_line(proc->out, "");
}

static void on_done(void *arg, const struct hf_proc_result *proc)
{
    struct hf_fence_run *r = arg;
    char text[HF_FENCE_TEXT_MAX] = "";
    struct hf_fence_result res = {
        .status = proc->timed_out ? -1 : proc->status,
        .out = proc->out,
    };
    if (r->action == HF_FENCE_STATUS && (res.status == 0 || res.status == 2)) {
        res.power = res.status ? HF_FENCE_POWER_OFF : HF_FENCE_POWER_ON;
    } else if (res.status != 0) {
        struct hf_slice words = words_of(proc);
        res.rc = proc->timed_out ? -HF_ETIMEOUT : -HF_EPROTO;
        if (res.status < 0 || words.n == 0) {
            hf_proc_end_text(proc, r->timeout, text, sizeof(text));
            hf_proc_add_printable(text, sizeof(text), hf_slice_str(words.n ? ": " : ""));
        }
        hf_proc_add_printable(text, sizeof(text), words);
    }
    tell(r, &res, text, sizeof(text));
}

static void on_not_started(void *arg)
{
    struct hf_fence_run *r = arg;
    char text[HF_FENCE_TEXT_MAX];
    snprintf(text, sizeof(text), "cannot start %.300s: %s", r->path, hf_strerror(r->error));
    struct hf_fence_result res = {.rc = r->error, .status = -1};
    tell(r, &res, text, sizeof(text));
}

/* Input is taken over, also on failure. */
static int run(struct hf_loop *loop, const char *path, enum hf_fence_action action,
               struct hf_buf *input, hf_time timeout, hf_fence_done *fn, void *arg,
               struct hf_fence_run **ret_run)
{
    static const char *const env[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL};
    struct hf_fence_run *r = hf_alloc(sizeof(*r));
    if (!r) {
        hf_buf_fini(input);
        return -ENOMEM;
    }
    r->input = *input;
    r->action = action;
    r->timeout = timeout;
    r->fn = fn;
    r->arg = arg;
    r->begin = hf_now();
    snprintf(r->path, sizeof(r->path), "%s", path);
    const char *argv[] = {r->path, NULL};
    struct hf_proc_opt o = {
        .argv = argv,
        .env = env,
        .input = hf_buf_slice(&r->input),
        .output_max = HF_FENCE_OUTPUT_MAX,
        .timeout = timeout,
    };
    hf_tracef(HF_TRACE_PROC, r->path, "%s", hf_fence_action_name(action));
    r->error = hf_proc_start(loop, &o, on_done, r, &r->proc);
    if (r->error) {
        int rc = hf_timer_create(loop, on_not_started, r, &r->timer);
        if (rc) {
            run_destroy(r);
            return rc;
        }
        hf_timer_set(r->timer, r->begin);
    }
    *ret_run = r;
    return 0;
}

int hf_fence_start(struct hf_loop *loop, const struct hf_fence_opt *opt, hf_fence_done *fn,
                   void *arg, struct hf_err *err, struct hf_fence_run **ret_run)
{
    struct hf_buf input;
    hf_buf_init(&input, HF_FENCE_INPUT_MAX);
    int rc = build_input(opt->action, opt->plug, opt->options, opt->n_options, &input, err);
    if (rc) {
        hf_buf_fini(&input);
        return rc;
    }
    rc = run(loop, opt->path, opt->action, &input, opt->timeout, fn, arg, ret_run);
    return rc ? hf_err_set(err, rc, "cannot run %.200s: %s", opt->path, hf_strerror(rc)) : 0;
}

void hf_fence_kill(struct hf_fence_run *r)
{
    if (r) {
        hf_proc_kill(r->proc);
        run_destroy(r);
    }
}

/* ---- a host, by levels ---- */

/* One action of one device, with all that it needs: nothing is borrowed from the caller. */
struct step {
    unsigned level;
    enum hf_fence_action action;
    bool after; /* `on` after `off` of all: may fail */
    hf_time timeout;
    char *name, *path;   /* owned */
    struct hf_buf input; /* owned, until it runs */
};

struct hf_fence_host_run {
    struct hf_loop *loop;
    struct hf_timer *timer;       /* owned: the beginning, and what cannot run */
    struct hf_fence_run *running; /* owned; NULL: none */
    struct step steps[HF_FENCE_STEPS_MAX];
    size_t n_steps, at;
    hf_time begin, deadline;
    enum hf_fence_action action;
    char host[256];
    struct hf_buf names, failures; /* of the level's devices that did it; of those that did not */
    hf_fence_host_done *fn;
    void *arg;
};

/* A device's entry that is used for this host. */
struct use {
    const struct hf_fence_device *device;
    const struct hf_fence_target *target;
};

static void host_destroy(struct hf_fence_host_run *r)
{
    if (!r) {
        return;
    }
    for (size_t i = 0; i < r->n_steps; i++) {
        hf_free(r->steps[i].name);
        hf_free(r->steps[i].path);
        hf_buf_fini(&r->steps[i].input);
    }
    hf_buf_fini(&r->names);
    hf_buf_fini(&r->failures);
    hf_timer_destroy(r->timer);
    hf_free(r);
}

/* Insert by level, behind those of the same level. */
static int add_use(struct use *uses, size_t *n, struct use u)
{
    if (*n == HF_FENCE_STEPS_MAX / 2) { /* each may become `off` and `on` */
        return -HF_EVALUE;
    }
    size_t i = (*n)++;
    for (; i > 0 && uses[i - 1].target->level > u.target->level; i--) {
        uses[i] = uses[i - 1];
    }
    uses[i] = u;
    return 0;
}

static int find_uses(const struct hf_fence_host_opt *o, struct use *uses, size_t *ret_n)
{
    int rc = 0;
    size_t n = 0;
    for (const struct hf_fence_device *d = o->devices; d < o->devices + o->n_devices; d++) {
        const char *host = "*";
        for (size_t i = 0; i < d->n_targets; i++) {
            host = strcmp(d->targets[i].host, o->host) == 0 ? o->host : host;
        }
        for (size_t i = 0; i < d->n_targets && rc == 0; i++) {
            if (strcmp(d->targets[i].host, host) == 0) {
                rc = add_use(uses, &n, (struct use){d, &d->targets[i]});
            }
        }
    }
    *ret_n = n;
    return rc;
}

static char *copy(const char *s)
{
    size_t n = strlen(s) + 1;
    char *t = hf_alloc(n);
    return t ? memcpy(t, s, n) : NULL;
}

static int add_step(struct hf_fence_host_run *r, const struct hf_fence_host_opt *o,
                    const struct use *u, enum hf_fence_action action, bool after,
                    struct hf_err *err)
{
    const struct hf_fence_device *d = u->device;
    struct step *s = &r->steps[r->n_steps++];
    *s = (struct step){
        .level = u->target->level,
        .action = action,
        .after = after,
        .timeout = d->timeout ? d->timeout : o->device_timeout,
        .name = copy(d->name),
        .path = copy(d->path),
    };
    hf_buf_init(&s->input, HF_FENCE_INPUT_MAX);
    if (!s->name || !s->path) {
        return hf_err_set(err, -ENOMEM, "no memory");
    }
    struct hf_err cause = {0};
    const char *plug = u->target->plug ? u->target->plug : o->host;
    int rc = build_input(action, plug, d->options, d->n_options, &s->input, &cause);
    return rc ? hf_err_set(err, rc, "fence device %.63s: %s", d->name, cause.text) : 0;
}

/* Levels in order; a level of several devices reboots by off, off, ..., on, on, ... */
static int plan(struct hf_fence_host_run *r, const struct hf_fence_host_opt *o, struct hf_err *err)
{
    struct use uses[HF_FENCE_STEPS_MAX / 2];
    size_t n;
    int rc = find_uses(o, uses, &n);
    if (rc) {
        return hf_err_set(err, rc, "more than %d fence devices for host %.63s",
                          HF_FENCE_STEPS_MAX / 2, o->host);
    }
    for (size_t i = 0, end; i < n && rc == 0; i = end) {
        for (end = i; end < n && uses[end].target->level == uses[i].target->level; end++) {
        }
        bool split = o->action == HF_FENCE_REBOOT && end - i > 1;
        for (size_t k = i; k < end && rc == 0; k++) {
            rc = add_step(r, o, &uses[k], split ? HF_FENCE_OFF : o->action, false, err);
        }
        for (size_t k = i; k < end && split && rc == 0; k++) {
            rc = add_step(r, o, &uses[k], HF_FENCE_ON, true, err);
        }
    }
    return rc;
}

static void finish(struct hf_fence_host_run *r, int rc, unsigned level)
{
    char text[HF_FENCE_TEXT_MAX];
    struct hf_slice failures = hf_buf_slice(&r->failures);
    const char *and = failures.n ? "; " : "";
    if (rc == 0) {
        snprintf(text, sizeof(text), "%s by %.*s (level %u)%s%.*s", hf_fence_action_name(r->action),
                 HF_SLICE_FMT(hf_buf_slice(&r->names)), level, failures.n ? "; failed: " : "",
                 HF_SLICE_FMT(failures));
    } else if (rc == -HF_ENOTFOUND) {
        snprintf(text, sizeof(text), "no fence device for host %s", r->host);
    } else {
        snprintf(text, sizeof(text), "%s%s%.*s", rc == -HF_ETIMEOUT ? "out of time" : "",
                 rc == -HF_ETIMEOUT ? and : "", HF_SLICE_FMT(failures));
    }
    struct hf_fence_host_result res = {
        .rc = rc, .level = level, .text = text, .duration = hf_now() - r->begin};
    r->fn(r->arg, &res);
    host_destroy(r);
}

/* Take note of how the step at r->at ended and go on to the next that is to be done; true: the
 * level is complete, the host is fenced. */
static bool note(struct hf_fence_host_run *r, int rc, const char *text)
{
    const struct step *s = &r->steps[r->at++];
    if (rc) {
        hf_buf_printf(&r->failures, "%slevel %u: %s%s: %s", r->failures.n ? "; " : "", s->level,
                      s->after ? "on by " : "", s->name, text);
    } else if (!s->after) {
        hf_buf_printf(&r->names, "%s%s", r->names.n ? ", " : "", s->name);
    }
    if (rc && !s->after) {
        hf_buf_clear(&r->names);
        while (r->at < r->n_steps && r->steps[r->at].level == s->level) {
            r->at++;
        }
        return false;
    }
    return r->at == r->n_steps || r->steps[r->at].level != s->level;
}

static void on_step(void *arg, const struct hf_fence_result *res);

/* Start the step at r->at; that it can't be started is its failure. */
static void go_on(struct hf_fence_host_run *r)
{
    for (;;) {
        hf_time now = hf_now();
        bool late = now >= r->deadline;
        if (r->at == r->n_steps) {
            finish(r, r->n_steps == 0 ? -HF_ENOTFOUND : late ? -HF_ETIMEOUT : -HF_EPROTO, 0);
            return;
        }
        struct step *s = &r->steps[r->at];
        if (late) {
            finish(r, s->after ? 0 : -HF_ETIMEOUT, s->after ? s->level : 0);
            return;
        }
        hf_time timeout = s->timeout;
        if (r->deadline != HF_NEVER && (timeout == 0 || timeout > r->deadline - now)) {
            timeout = r->deadline - now;
        }
        int rc = run(r->loop, s->path, s->action, &s->input, timeout, on_step, r, &r->running);
        hf_buf_init(&s->input, 0); /* taken over */
        if (rc == 0) {
            return;
        }
        if (note(r, rc, hf_strerror(rc))) {
            finish(r, 0, s->level);
            return;
        }
    }
}

static void on_step(void *arg, const struct hf_fence_result *res)
{
    struct hf_fence_host_run *r = arg;
    unsigned level = r->steps[r->at].level;
    r->running = NULL;
    if (note(r, res->rc, res->text)) {
        finish(r, 0, level);
    } else {
        go_on(r);
    }
}

static void on_begin(void *arg)
{
    go_on(arg);
}

int hf_fence_host(struct hf_loop *loop, const struct hf_fence_host_opt *opt, hf_fence_host_done *fn,
                  void *arg, struct hf_err *err, struct hf_fence_host_run **ret_run)
{
    if (opt->action != HF_FENCE_OFF && opt->action != HF_FENCE_ON &&
        opt->action != HF_FENCE_REBOOT) {
        return hf_err_set(err, -HF_EVALUE, "a host is fenced by off, on or reboot");
    }
    struct hf_fence_host_run *r = hf_alloc(sizeof(*r));
    if (!r) {
        return hf_err_set(err, -ENOMEM, "cannot fence host %.63s: no memory", opt->host);
    }
    r->loop = loop;
    r->action = opt->action;
    r->fn = fn;
    r->arg = arg;
    r->begin = hf_now();
    r->deadline = opt->total_timeout ? r->begin + opt->total_timeout : HF_NEVER;
    snprintf(r->host, sizeof(r->host), "%s", opt->host);
    hf_buf_init(&r->names, HF_FENCE_TEXT_MAX);
    hf_buf_init(&r->failures, HF_FENCE_TEXT_MAX);
    int rc = plan(r, opt, err);
    if (rc == 0) {
        rc = hf_timer_create(loop, on_begin, r, &r->timer);
        if (rc) {
            hf_err_set(err, rc, "cannot fence host %.63s: %s", opt->host, hf_strerror(rc));
        }
    }
    if (rc) {
        host_destroy(r);
        return rc;
    }
    hf_timer_set(r->timer, r->begin);
    *ret_run = r;
    return 0;
}

void hf_fence_host_kill(struct hf_fence_host_run *r)
{
    if (r) {
        hf_fence_kill(r->running);
        host_destroy(r);
    }
}
