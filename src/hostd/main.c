/* holdfastd: start, run, reload, stop. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/mem.h"
#include "hostd/control.h"
#include "hostd/dns.h"
#include "hostd/group.h"
#include "hostd/group_tree.h"
#include "hostd/hostd.h"
#include "hostd/timeline.h"
#include "hostd/web.h"
#include "os/daemon.h"
#include "os/file.h"
#include "os/program.h"

#define GROUPS_STOP_TIME HF_S(80) /* less than service managers wait */

static int check(const char *path)
{
    struct hf_err err;
    struct hf_hostd_config *config;
    struct hf_key key;
    int rc = hf_hostd_config_load(path, &err, &config);
    if (rc == 0) {
        rc = hf_key_load(config->cluster.key_file, &err, &key);
        hf_key_wipe(&key);
        hf_hostd_config_destroy(config);
    }
    if (rc) {
        fprintf(stderr, "holdfastd: %s\n", err.text);
        return 1;
    }
    printf("%s is valid\n", path);
    return 0;
}

static void on_groups_stopped(void *arg)
{
    struct hf_hostd *h = arg;
    hf_loop_stop(h->loop);
}

static void on_signal(void *arg, int signo)
{
    struct hf_hostd *h = arg;
    struct hf_err err;
    if (signo == SIGHUP) {
        (void)!hf_hostd_reload(h, &err); /* logged there */
        return;
    }
    if (h->stopping) {
        hf_log_info("", "signal %d again: ending at once", signo);
        hf_loop_stop(h->loop);
        return;
    }
    hf_log_info("", "signal %d: leaving", signo);
    hf_program_notify("STOPPING=1");
    h->stopping = true;
    hf_groups_stop(h->groups, GROUPS_STOP_TIME, on_groups_stopped, h);
}

/* The directory of the control socket, usually in /run. */
static int make_run_dir(const struct hf_hostd_config *c, struct hf_err *err)
{
    char dir[256];
    snprintf(dir, sizeof(dir), "%s", c->control.socket);
    char *slash = strrchr(dir, '/');
    if (slash && slash != dir) {
        *slash = '\0';
        return hf_file_make_dir(dir, 0755, err);
    }
    return 0;
}

static int open_all(void *arg, struct hf_err *err)
{
    struct hf_hostd *h = arg;
    int rc = make_run_dir(h->config, err);
    rc = rc ? rc : hf_control_open(h, err, &h->control); /* first: is another one running? */
    rc = rc ? rc : hf_drive_open(h, err);
    rc = rc ? rc : hf_groups_open(h, err, &h->groups); /* what runs here has missed us */
    if (rc == 0 && h->groups) {
        rc = hf_group_tree_open(h, err, &h->group_tree);
    }
    rc = rc ? rc : hf_timeline_open(h, err, &h->timeline);
    rc = rc ? rc : hf_web_open(h, err, &h->web);
    rc = rc ? rc : hf_dns_open(h, err, &h->dns);
    rc = rc ? rc : hf_program_drop(h->config->user, 0, err);
    return rc;
}

static void close_all(void *arg)
{
    struct hf_hostd *h = arg;
    hf_dns_close(h->dns);
    hf_web_close(h->web);
    hf_control_close(h->control);
    h->control = NULL;
    hf_timeline_close(h->timeline);
    h->timeline = NULL;
    hf_group_tree_close(h->group_tree);
    hf_groups_close(h->groups);
    h->groups = NULL;
    hf_drive_close(h);
}

static const struct hf_daemon daemon_ops = {.name = "holdfastd",
                                            .config = HF_HOSTD_CONFIG_FILE,
                                            .open = open_all,
                                            .close = close_all,
                                            .on_signal = on_signal};

int main(int argc, char **argv)
{
    struct hf_daemon_args args;
    int code;
    if (!hf_daemon_args(&daemon_ops, argc, argv, &args, &code)) {
        return code;
    }
    if (args.what == HF_DAEMON_CHECK) {
        return check(args.config);
    }
    struct hf_hostd *h = hf_alloc(sizeof(*h));
    struct hf_err err;
    if (!h || hf_hostd_config_load(args.config, &err, &h->config)) {
        fprintf(stderr, "holdfastd: %s\n", h ? err.text : hf_strerror(-ENOMEM));
        hf_free(h);
        return 1;
    }
    h->config_path = args.config;
    h->started_at = hf_now();
    hf_program_log_open("holdfastd", hf_hostd_config_level(h->config));
    hf_program_harden("holdfastd", h->config->state.dir);
    hf_trace_set_mask(h->config->log.trace);
    int rc = hf_loop_create(&h->loop);
    rc = rc ? rc : hf_daemon_run(&daemon_ops, h->loop, h);
    hf_loop_destroy(h->loop);
    hf_hostd_config_destroy(h->config);
    hf_free(h);
    return rc ? 1 : 0;
}
