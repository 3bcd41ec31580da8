/* The kernel's watchdog: reboots this host unless it is petted in time. */
#include "os/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

struct hf_watchdog {
    int fd;
    bool real;  /* a character device that knows the watchdog's calls */
    bool magic; /* 'V' disarms it */
    hf_time timeout;
    char path[256];
};

static int put(const struct hf_watchdog *w, char c, const char *what, struct hf_err *err)
{
    ssize_t n;
    while ((n = write(w->fd, &c, 1)) < 0 && errno == EINTR) {
    }
    int rc = n == 1 ? 0 : n < 0 ? -errno : -EIO;
    return rc ? hf_err_set(err, rc, "cannot %s the watchdog %s: %s", what, w->path, hf_strerror(rc))
              : 0;
}

static int call(const struct hf_watchdog *w, unsigned long request, void *value,
                const char *why_not, struct hf_err *err)
{
    int rc = ioctl(w->fd, request, value) < 0 ? -errno : 0;
    return rc ? hf_err_set(err, rc, "%s %s: %s", w->path, why_not, hf_strerror(rc)) : 0;
}

/* Set the time, and read what the driver made of it. */
static int set_timeout(struct hf_watchdog *w, int seconds, struct hf_err *err)
{
    struct watchdog_info info = {0};
    int now = seconds, rc = call(w, WDIOC_GETSUPPORT, &info, "is not a watchdog", err);
    w->magic = info.options & WDIOF_MAGICCLOSE;
    if (rc == 0 && info.options & WDIOF_SETTIMEOUT) {
        char why_not[32];
        snprintf(why_not, sizeof(why_not), "refuses a time of %d s", seconds);
        rc = call(w, WDIOC_SETTIMEOUT, &now, why_not, err);
    }
    rc = rc ? rc : call(w, WDIOC_GETTIMEOUT, &now, "does not tell its time", err);
    if (rc == 0 && now > seconds) {
        rc = hf_err_set(err, -HF_EVALUE, "%s does not fire before %d s, %d s are asked for",
                        w->path, now, seconds);
    }
    w->timeout = HF_S(now);
    return rc;
}

/* Of no use to us: so that it does not reboot the host, if that can be helped. */
static void give_back(struct hf_watchdog *w)
{
    if (put(w, 'V', "disarm", NULL) < 0) {
        hf_log_debug("", "cannot disarm the watchdog %s", w->path);
    }
    hf_watchdog_abandon(w);
}

int hf_watchdog_open(const char *path, hf_time timeout, struct hf_err *err,
                     struct hf_watchdog **ret_watchdog)
{
    int seconds = timeout > HF_S(1) ? (int)((timeout + HF_S(1) - 1) / HF_S(1)) : 1;
    struct hf_watchdog *w = hf_alloc(sizeof(*w));
    if (!w) {
        return hf_err_set(err, -ENOMEM, "cannot open the watchdog: no memory");
    }
    snprintf(w->path, sizeof(w->path), "%s", path);
    w->timeout = HF_S(seconds);
    struct stat st;
    w->fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (w->fd < 0 || fstat(w->fd, &st) < 0) {
        int e = errno;
        hf_watchdog_abandon(w);
        return hf_err_set(err, -e, "cannot open the watchdog %.150s: %s", path,
                          e == EBUSY   ? "another program has it"
                          : e == ENXIO ? "nobody reads this fifo, or no such device"
                                       : hf_strerror(-e));
    }
    w->real = S_ISCHR(st.st_mode);
    int rc = w->real ? set_timeout(w, seconds, err) : 0;
    if (rc) { /* it has been running since open(2): stop it, if that can be */
        give_back(w);
        return rc;
    }
    *ret_watchdog = w;
    return 0;
}

hf_time hf_watchdog_timeout(const struct hf_watchdog *w)
{
    return w->timeout;
}

bool hf_watchdog_real(const struct hf_watchdog *w)
{
    return w->real;
}

int hf_watchdog_pet(struct hf_watchdog *w, struct hf_err *err)
{
    return put(w, '.', "pet", err);
}

int hf_watchdog_disarm(struct hf_watchdog *w, struct hf_err *err)
{
    int rc = 0;
    if (w) {
        rc = put(w, 'V', "disarm", err);
        if (rc == 0 && w->real && !w->magic) {
            rc =
                hf_err_set(err, -HF_EVALUE,
                           "the watchdog %s cannot be disarmed: it will reboot this host", w->path);
        }
        hf_watchdog_abandon(w);
    }
    return rc;
}

void hf_watchdog_abandon(struct hf_watchdog *w)
{
    if (w) {
        if (w->fd >= 0) {
            close(w->fd);
        }
        hf_free(w);
    }
}
