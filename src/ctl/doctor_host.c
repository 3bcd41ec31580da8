/* holdfast doctor: what this host's files and kernel tell, without asking anybody. */
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "ctl/doctor.h"
#include "hostd/config.h"
#include "os/egress.h"
#include "os/file.h"
#include "os/key.h"
#include "os/loop.h"

#define NAPS 200
#define NAP_NS 2000000
#define PROC_FILE_MAX (64u << 10)

static const char *const programs[HF_DOCTOR_PROGRAMS] = {[HF_DOCTOR_HOSTD] = "holdfastd",
                                                         [HF_DOCTOR_PG] = "holdfast-pg",
                                                         [HF_DOCTOR_SIP] = "holdfast-sip",
                                                         [HF_DOCTOR_COROSYNC] = "corosync"};

static void end(struct hf_doctor_try *t, int rc, const char *text)
{
    t->tried = true;
    t->rc = rc;
    snprintf(t->text, sizeof(t->text), "%s", text);
}

/* A small file with NUL at its end; false: it cannot be read. */
static bool slurp(const char *path, struct hf_buf *buf)
{
    hf_buf_init(buf, PROC_FILE_MAX);
    int rc = hf_file_read(path, buf);
    hf_buf_add(buf, hf_slice("", 1));
    return rc == 0 && buf->err == 0;
}

/* ---- key, watchdog ---- */

static void look_at_key(struct hf_doctor_facts *f, const struct hf_hostd_config *c)
{
    struct hf_key key;
    struct hf_err err = {0};
    snprintf(f->key.path, sizeof(f->key.path), "%s", c->cluster.key_file);
    int rc = hf_key_load(c->cluster.key_file, &err, &key);
    end(&f->key.load, rc, err.text);
    if (rc == 0) {
        f->key.id = hf_key_id(&key);
        hf_key_wipe(&key);
    }
}

/* Never opened: that would arm it. */
static void look_at_watchdog(struct hf_doctor_facts *f, const struct hf_hostd_config *c)
{
    struct stat st;
    char text[HF_DOCTOR_TEXT];
    f->watchdog.configured = *c->watchdog.device != '\0';
    snprintf(f->watchdog.path, sizeof(f->watchdog.path), "%s", c->watchdog.device);
    if (!f->watchdog.configured) {
        return;
    }
    if (stat(c->watchdog.device, &st) < 0) {
        int rc = -errno;
        snprintf(text, sizeof(text), "cannot be found: %s", hf_strerror(rc));
        end(&f->watchdog.look, rc, text);
    } else if (S_ISCHR(st.st_mode)) {
        end(&f->watchdog.look, 0, "a device; it is not opened here, which would arm it");
    } else {
        end(&f->watchdog.look, -ENODEV, "not a device: it resets nothing");
    }
}

/* ---- kernel ---- */

static void look_at_clock(struct hf_doctor_facts *f)
{
    struct timex t = {.modes = 0};
    int state = adjtimex(&t);
    f->clock.known = state >= 0;
    f->clock.synchronised = state != TIME_ERROR && !(t.status & STA_UNSYNC);
}

static void look_at_egress(struct hf_doctor_facts *f)
{
    struct hf_err why = {0};
    enum hf_egress_how how = hf_egress_probe(&why);
    if (!f->root && how != HF_EGRESS_BPF) {
        snprintf(f->egress.text, sizeof(f->egress.text), "only root can try: %s", why.text);
        return;
    }
    end(&f->egress,
        how == HF_EGRESS_BPF       ? 0
        : how == HF_EGRESS_NFQUEUE ? 1
                                   : -HF_ENOTFOUND,
        why.text);
}

static void look_at_repair(struct hf_doctor_facts *f)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0 ? -errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (rc && !f->root) {
        snprintf(f->repair.text, sizeof(f->repair.text), "only root can try: %s", hf_strerror(rc));
        return;
    }
    end(&f->repair, rc, rc ? hf_strerror(rc) : "");
}

static void look_at_sysctls(struct hf_doctor_facts *f)
{
    static const char *const names[] = {
#define NAME(name, least, why) name,
        HF_DOCTOR_SYSCTL_LIST(NAME)
#undef NAME
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(names); i++) {
        char path[256];
        struct hf_buf text;
        snprintf(path, sizeof(path), "/proc/sys/%s", names[i]);
        for (char *c = path + strlen("/proc/sys/"); *c; c++) {
            *c = *c == '.' ? '/' : *c;
        }
        f->sysctl[i] = slurp(path, &text) ? strtoll((const char *)text.p, NULL, 10) : -1;
        hf_buf_fini(&text);
    }
}

/* How late a process gets to run that wants to: the longest of some naps. */
static int64_t lateness_us(void)
{
    hf_time most = 0;
    for (int i = 0; i < NAPS; i++) {
        hf_time before = hf_now();
        (void)nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
        hf_time late = hf_now() - before - NAP_NS;
        most = late > most ? late : most;
    }
    return most / 1000;
}

/* ---- processes ---- */

/* The number after `key` in /proc/PID/FILE; false: not there. */
static bool proc_number(long pid, const char *file, const char *key, int base, uint64_t *ret_v)
{
    char path[64];
    struct hf_buf text;
    snprintf(path, sizeof(path), "/proc/%ld/%s", pid, file);
    const char *at = slurp(path, &text) ? strstr((const char *)text.p, key) : NULL;
    char *after = NULL;
    if (at) {
        at += strlen(key);
        *ret_v = strncmp(at + strspn(at, " "), "unlimited", 9) == 0 ? INT64_MAX
                                                                    : strtoull(at, &after, base);
    }
    hf_buf_fini(&text);
    return at != NULL && after != at;
}

static void look_at_process(struct hf_doctor_process *p, long pid)
{
    uint64_t v;
    p->pid = pid;
    p->files_max =
        proc_number(pid, "limits", "Max open files", 10, &v) && v <= INT64_MAX ? (int64_t)v : -1;
    p->caps_known = proc_number(pid, "status", "CapEff:", 16, &p->caps);
    p->policy = sched_getscheduler((pid_t)pid) & ~SCHED_RESET_ON_FORK;
}

static void look_at_processes(struct hf_doctor_facts *f)
{
    for (size_t i = 0; i < HF_DOCTOR_PROGRAMS; i++) {
        f->process[i] =
            (struct hf_doctor_process){.program = programs[i], .files_max = -1, .policy = -1};
    }
    DIR *d = opendir("/proc");
    for (const struct dirent *e; d && (e = readdir(d)) != NULL;) {
        char path[300], *after;
        struct hf_buf name;
        long pid = strtol(e->d_name, &after, 10);
        if (pid <= 0 || *after) {
            continue;
        }
        snprintf(path, sizeof(path), "/proc/%s/comm", e->d_name);
        bool read = slurp(path, &name);
        for (size_t i = 0; read && i < HF_DOCTOR_PROGRAMS; i++) {
            size_t n = strlen(programs[i]);
            if (name.n == n + 2 && memcmp(name.p, programs[i], n) == 0 && !f->process[i].pid) {
                look_at_process(&f->process[i], pid);
            }
        }
        hf_buf_fini(&name);
    }
    if (d) {
        closedir(d);
    }
}

void hf_doctor_look(struct hf_doctor_facts *f, const struct hf_hostd_config *config)
{
    f->root = geteuid() == 0;
    if (config) {
        f->configured = true;
        f->corosync_engine = config->engine.type == HF_HOSTD_ENGINE_COROSYNC;
        snprintf(f->host, sizeof(f->host), "%s", config->host.name);
        look_at_key(f, config);
        look_at_watchdog(f, config);
    } else {
        snprintf(f->key.load.text, sizeof(f->key.load.text),
                 "which file it is is not known without a valid configuration");
    }
    look_at_clock(f);
    look_at_egress(f);
    look_at_repair(f);
    look_at_sysctls(f);
    look_at_processes(f);
    f->late_us = lateness_us();
}
