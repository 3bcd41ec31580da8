/* Commands that run until a signal: publish, watch, trace. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/commands.h"
#include "ctl/render.h"
#include "holdfast/holdfast.h"

/* Shared by the callbacks of publish and watch. */
struct follow {
    const struct hf_cmd_opt *opt;
    const char *name;
    struct holdfast *h;
    bool answered, failed; /* publish: the first answer; a refusal */
    int signals;           /* a descriptor: SIGINT, SIGTERM, SIGHUP end the wait */
};

/* Connect, after a question that finds out what is wrong if something is. */
static int begin(struct follow *f, const struct hf_cmd_opt *opt)
{
    struct hf_ask a;
    struct hf_err err = {0};
    f->opt = opt;
    int rc = hf_ask_open(&a, opt->socket, opt->timeout_ms, &err);
    if (rc) {
        return hf_cmd_fail(hf_ask_exit(rc), "%s", err.text);
    }
    hf_ask_close(&a);
    f->signals = hf_cmd_signals((const int[]){SIGINT, SIGTERM, SIGHUP}, 3);
    rc = f->signals < 0 ? f->signals : holdfast_create(opt->socket, "holdfast", &f->h);
    rc = rc ? rc : holdfast_connect(f->h, opt->timeout_ms);
    if (rc) {
        hf_ask_explain(rc, hf_conn_path(opt->socket), opt->timeout_ms, &err);
        return hf_cmd_fail(hf_ask_exit(rc), "%s", err.text);
    }
    return HF_EXIT_OK;
}

static void end(struct follow *f)
{
    holdfast_destroy(f->h);
    if (f->signals >= 0) {
        close(f->signals);
    }
}

static void on_status(void *arg, int code)
{
    (void)arg;
    if (code) {
        (void)hf_cmd_fail(0, "the connection to holdfastd is lost (%s); waiting for it to return",
                          holdfast_strerror(code));
    } else {
        (void)hf_cmd_fail(0, "holdfastd is back");
    }
}

/* Until a signal (0), a failure (1), or, if timeout_ms is not negative, silence (3). */
static int run(struct follow *f, int timeout_ms)
{
    while (!f->failed) {
        struct pollfd p[2] = {{.fd = holdfast_fd(f->h), .events = POLLIN},
                              {.fd = f->signals, .events = POLLIN}};
        int n = poll(p, 2, f->answered ? -1 : timeout_ms);
        if (n == 0) {
            struct hf_err err = {0};
            hf_ask_explain(-HF_ETIMEOUT, hf_conn_path(f->opt->socket), timeout_ms, &err);
            return hf_cmd_fail(HF_EXIT_NO_ANSWER, "%s", err.text);
        }
        if (p[1].revents) {
            return HF_EXIT_OK;
        }
        int rc = holdfast_dispatch(f->h, 0);
        if (rc && rc != -EINTR) {
            return hf_cmd_fail(HF_EXIT_FAILED, "%s", holdfast_strerror(rc));
        }
    }
    return HF_EXIT_FAILED;
}

/* ---- publish ---- */

static void on_published(void *arg, int code, const char *text)
{
    struct follow *f = arg;
    f->answered = true;
    if (code) {
        f->failed = true;
        (void)hf_cmd_fail(0, "%s: %s", f->name, text);
    } else {
        printf("published %s\n", f->name);
        fflush(stdout);
    }
}

static int publish_detached(struct follow *f, const char *json)
{
    const struct hf_cmd_opt *opt = f->opt;
    int rc = holdfast_publish_wait(f->h, f->name, json, opt->detach_ms, opt->timeout_ms);
    if (rc) {
        return hf_cmd_fail(hf_ask_exit(rc), "%s", holdfast_error(f->h));
    }
    printf("published %s for %g s\n", f->name, opt->detach_ms / 1000.0);
    return HF_EXIT_OK;
}

int hf_cmd_publish(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    struct follow f = {.name = arg[0], .signals = -1};
    int code = begin(&f, opt);
    if (code == HF_EXIT_OK && opt->detach_ms) {
        code = publish_detached(&f, arg[1]);
    } else if (code == HF_EXIT_OK) {
        holdfast_on_status(f.h, on_status, &f);
        int rc = holdfast_publish(f.h, f.name, arg[1], 0, on_published, &f);
        code =
            rc ? hf_cmd_fail(HF_EXIT_FAILED, "%s", holdfast_error(f.h)) : run(&f, opt->timeout_ms);
    }
    end(&f);
    return code;
}

/* ---- watch ---- */

static void on_event(void *arg, enum holdfast_event event, const char *owner, const char *name,
                     const char *value)
{
    static const char *const words[] = {"?", "added", "changed", "removed", "synced"};
    struct follow *f = arg;
    struct hf_buf out;
    hf_buf_init(&out, (size_t)8 * HF_VALUE_LEN_MAX);
    json_t *json = json_loads(value, 0, NULL); /* again as text: on one line */
    char *line = json ? json_dumps(json, JSON_COMPACT) : NULL;
    if (f->opt->json && event == HOLDFAST_SYNCED) {
        hf_buf_str(&out, "{\"event\":\"synced\"}");
    } else if (f->opt->json) { /* libholdfast has checked the names: nothing needs escapes */
        hf_buf_printf(&out, "{\"event\":\"%s\",\"name\":\"%s\",\"owner\":\"%s\"%s%s}", words[event],
                      name, owner, line ? ",\"value\":" : "", line ? line : "");
    } else if (event == HOLDFAST_SYNCED) {
        hf_buf_str(&out, "synced");
    } else {
        hf_buf_printf(&out, "%-7s  %s  %s", words[event], name, owner);
        hf_buf_str(&out, line ? "  " : "");
        hf_render_safe(&out, hf_slice_str(line ? line : ""));
    }
    printf("%.*s\n", HF_SLICE_FMT(hf_buf_slice(&out)));
    f->failed = fflush(stdout) != 0;
    hf_buf_fini(&out);
    free(line);
    json_decref(json);
}

int hf_cmd_watch(const struct hf_cmd_opt *opt, int n, char **arg)
{
    struct follow f = {.signals = -1};
    uint32_t watch;
    int code = begin(&f, opt);
    if (code == HF_EXIT_OK) {
        holdfast_on_status(f.h, on_status, &f);
        int rc = holdfast_watch(f.h, n ? arg[0] : "", on_event, &f, &watch);
        code = rc ? hf_cmd_fail(HF_EXIT_FAILED, "%s", holdfast_error(f.h)) : run(&f, -1);
    }
    end(&f);
    return code;
}

/* ---- trace ---- */

/* The mask of the subsystems named, all if none is; 0: off. */
static int parse_mask(int n, char **arg, uint32_t *ret_mask)
{
    uint32_t mask = n ? 0 : (1u << HF_TRACE_COUNT_) - 1;
    for (int i = 0; i < n; i++) {
        unsigned t = 0;
        while (t < HF_TRACE_COUNT_ && strcmp(hf_trace_name(t), arg[i]) != 0) {
            t++;
        }
        if (t == HF_TRACE_COUNT_ && (n > 1 || strcmp(arg[i], "off") != 0)) {
            fprintf(stderr, "holdfast: no subsystem \"%s\"; there are:\n", arg[i]);
            for (t = 0; t < HF_TRACE_COUNT_; t++) {
                fprintf(stderr, "  %-8s %s\n", hf_trace_name(t), hf_trace_text(t));
            }
            return HF_EXIT_USAGE;
        }
        mask |= t < HF_TRACE_COUNT_ ? 1u << t : 0;
    }
    *ret_mask = mask;
    return HF_EXIT_OK;
}

/* Print lines until the connection ends; a signal ends us, and with us the tracing. */
static int print_lines(struct hf_ask *a, struct hf_err *err)
{
    for (;;) {
        struct hf_ctl_msg m;
        int rc = hf_ask_receive(a, -1, &m, err);
        if (rc) {
            return rc;
        }
        if (m.type == HF_CTL_LINE) {
            struct hf_buf out;
            hf_buf_init(&out, 4096);
            hf_render_safe(&out, m.text);
            printf("%.*s\n", HF_SLICE_FMT(hf_buf_slice(&out)));
            hf_buf_fini(&out);
            if (fflush(stdout)) {
                return hf_err_set(err, -errno, "cannot write: %s", hf_strerror(-errno));
            }
        }
    }
}

int hf_cmd_trace(const struct hf_cmd_opt *opt, int n, char **arg)
{
    struct hf_ctl_msg m = {.type = HF_CTL_TRACE};
    int code = parse_mask(n, arg, &m.mask);
    if (code) {
        return code;
    }
    struct hf_ask a;
    struct hf_err err = {0};
    int rc = hf_ask_open(&a, opt->socket, opt->timeout_ms, &err);
    if (rc == 0) {
        rc = hf_ask(&a, &m, NULL, &err);
        rc = rc || m.mask == 0 ? rc : print_lines(&a, &err);
        hf_ask_close(&a);
    }
    return rc ? hf_cmd_fail(hf_ask_exit(rc), "%s", *err.text ? err.text : hf_strerror(rc))
              : HF_EXIT_OK;
}
