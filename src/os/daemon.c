/* The life of a daemon: its command line, then open, run until told to end, close. */
#include "os/daemon.h"

#include <getopt.h>
#include <stdio.h>
#include <sys/resource.h>

#include "base/attr.h"
#include "base/log.h"
#include "os/program.h"

static void put_usage(const struct hf_daemon *d, FILE *to)
{
    fprintf(to, "usage: %s [-c FILE] [--check", d->name);
    if (d->task) {
        fprintf(to, " | --%s", d->task);
    }
    fprintf(to,
            " | --version]\n"
            "  -c FILE    configuration (default %s)\n"
            "  --check    say whether the configuration is valid, and end\n",
            d->config);
    if (d->task) {
        fprintf(to, "  --%-9s%s, and end\n", d->task, d->task_help);
    }
    fprintf(to,
            "  --version  say the version, and end\n"
            "Runs in the foreground; see %s(8).\n",
            d->name);
}

bool hf_daemon_args(const struct hf_daemon *d, int argc, char **argv, struct hf_daemon_args *args,
                    int *ret_code)
{
    const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
        {"version", no_argument, NULL, 'V'},      {"help", no_argument, NULL, 'h'},
        {d->task, no_argument, NULL, 't'},        {NULL, 0, NULL, 0}};
    int c;
    *args = (struct hf_daemon_args){.config = d->config};
    *ret_code = 0;
    while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (c == 'c') {
            args->config = optarg;
        } else if (c == 'k') {
            args->what = HF_DAEMON_CHECK;
        } else if (c == 't') {
            args->what = HF_DAEMON_TASK;
        } else if (c == 'V') {
            printf("%s " HF_VERSION "\n", d->name);
            return false;
        } else if (c == 'h') {
            put_usage(d, stdout);
            return false;
        } else {
            put_usage(d, stderr);
            *ret_code = 2;
            return false;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument %s\n", d->name, argv[optind]);
        put_usage(d, stderr);
        *ret_code = 2;
    }
    return optind == argc;
}

int hf_daemon_run(const struct hf_daemon *d, struct hf_loop *loop, void *arg)
{
    static const int signos[] = {SIGHUP, SIGINT, SIGTERM};
    struct hf_signal *sig[HF_ARRAY_LEN(signos)] = {NULL};
    struct hf_err err = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < HF_ARRAY_LEN(signos); i++) {
        rc = hf_signal_create(loop, signos[i], d->on_signal, arg, &sig[i]);
    }
    rc = rc ? rc : hf_program_watchdog(loop);
    rc = rc ? hf_err_set(&err, rc, "cannot start: %s", hf_strerror(rc)) : d->open(arg, &err);
    if (rc) {
        hf_log_err("", "%s", err.text);
    } else {
        if (!d->ready_later) {
            hf_log_info("", "%s %s started", d->name, HF_VERSION);
            hf_program_notify("READY=1");
        }
        rc = hf_loop_run(loop);
    }
    d->close(arg);
    for (size_t i = 0; i < HF_ARRAY_LEN(signos); i++) {
        hf_signal_destroy(sig[i]);
    }
    hf_log_info("", "ended");
    return rc;
}

void hf_daemon_files(uint64_t want, const char *option)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= want) {
        return;
    }
    rlim_t max = r.rlim_max;
    r.rlim_max = max < want ? want : max;
    r.rlim_cur = want;
    if (setrlimit(RLIMIT_NOFILE, &r) < 0) { /* only root may have more than its limit */
        r.rlim_cur = r.rlim_max = max;
        (void)!setrlimit(RLIMIT_NOFILE, &r);
        hf_log_warn("", "%llu descriptors are fewer than %s may need (%llu)",
                    (unsigned long long)max, option, (unsigned long long)want);
    }
}
