/* os/watchdog: a file and a fifo in place of a device, and a device whose ioctl(2) the test plays.
 */
#include "os/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "support/test.h"

static char dir[64], path[96];

/* What the device answers; /dev/null takes the writes. */
static struct {
    bool is_one;
    uint32_t options;
    int timeout, timeout_min, timeout_max, error;
} device;

int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
    (void)fd;
    int *seconds = arg;
    errno = !device.is_one ? ENOTTY : device.error;
    if (errno) {
        return -1;
    }
    switch (request) {
    case WDIOC_GETSUPPORT:
        *(struct watchdog_info *)arg = (struct watchdog_info){.options = device.options};
        return 0;
    case WDIOC_SETTIMEOUT:
        if (*seconds > device.timeout_max) {
            errno = EINVAL;
            return -1;
        }
        device.timeout = *seconds < device.timeout_min ? device.timeout_min : *seconds;
        return 0;
    case WDIOC_GETTIMEOUT:
        *seconds = device.timeout;
        return 0;
    default:
        fail();
        return -1;
    }
}

static int create(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/hf-watchdog-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/watchdog", dir);
    memset(&device, 0, sizeof(device));
    return 0;
}

static int destroy(void **state)
{
    (void)state;
    unlink(path);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

static struct hf_watchdog *open_ok(const char *p, hf_time timeout)
{
    struct hf_watchdog *w;
    struct hf_err err;
    if (hf_watchdog_open(p, timeout, &err, &w)) {
        fail_msg("%s", err.text);
    }
    return w;
}

static void file(void **state)
{
    (void)state;
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    struct hf_watchdog *w = open_ok(path, HF_MS(1500));
    assert_false(hf_watchdog_real(w));
    assert_int_equal(hf_watchdog_timeout(w), HF_S(2));
    assert_int_equal(hf_watchdog_pet(w, NULL), 0);
    assert_int_equal(hf_watchdog_pet(w, NULL), 0);
    assert_int_equal(hf_watchdog_disarm(w, NULL), 0);
    char text[8] = "";
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof(text), f));
    fclose(f);
    assert_string_equal(text, "..V");
    w = open_ok(path, 0);
    assert_int_equal(hf_watchdog_timeout(w), HF_S(1));
    hf_watchdog_abandon(w);
    hf_watchdog_abandon(NULL);
    assert_int_equal(hf_watchdog_disarm(NULL, NULL), 0);
}

static void fifo(void **state)
{
    (void)state;
    struct hf_watchdog *w;
    struct hf_err err;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(hf_watchdog_open(path, HF_S(1), &err, &w), -ENXIO);
    assert_non_null(strstr(err.text, "nobody reads this fifo"));
    int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    char got[8] = "";
    w = open_ok(path, HF_S(1));
    assert_int_equal(hf_watchdog_pet(w, &err), 0);
    assert_int_equal(read(reader, got, sizeof(got)), 1);
    assert_int_not_equal(got[0], 'V');
    int rc;
    while ((rc = hf_watchdog_pet(w, &err)) == 0) { /* full: refused, not blocked */
    }
    assert_int_equal(rc, -EAGAIN);
    close(reader);
    void (*before)(int) = signal(SIGPIPE, SIG_IGN); /* as the loop does */
    assert_int_equal(hf_watchdog_pet(w, &err), -EPIPE);
    assert_non_null(strstr(err.text, "cannot pet the watchdog "));
    assert_int_equal(hf_watchdog_disarm(w, &err), -EPIPE);
    signal(SIGPIPE, before);
}

static void not_there(void **state)
{
    (void)state;
    struct hf_watchdog *w;
    struct hf_err err;
    char text[160];
    assert_int_equal(hf_watchdog_open(path, HF_S(1), &err, &w), -ENOENT);
    snprintf(text, sizeof(text), "cannot open the watchdog %s: No such file or directory", path);
    assert_string_equal(err.text, text);
    assert_int_equal(hf_watchdog_open("/dev/null", HF_S(1), &err, &w), -ENOTTY);
    assert_non_null(strstr(err.text, "/dev/null is not a watchdog"));
    hf_mem_fail_after(0);
    assert_int_equal(hf_watchdog_open(path, HF_S(1), &err, &w), -ENOMEM);
    hf_mem_fail_after(-1);
}

static void real(void **state)
{
    (void)state;
    struct hf_watchdog *w;
    struct hf_err err;
    device.is_one = true;
    device.options = WDIOF_SETTIMEOUT | WDIOF_MAGICCLOSE;
    device.timeout_min = 4;
    device.timeout_max = 60;
    w = open_ok("/dev/null", HF_S(10));
    assert_true(hf_watchdog_real(w));
    assert_int_equal(hf_watchdog_timeout(w), HF_S(10));
    assert_int_equal(device.timeout, 10);
    assert_int_equal(hf_watchdog_pet(w, NULL), 0);
    assert_int_equal(hf_watchdog_disarm(w, NULL), 0);
    assert_int_equal(hf_watchdog_open("/dev/null", HF_S(3), &err, &w), -HF_EVALUE);
    assert_string_equal(err.text, "/dev/null does not fire before 4 s, 3 s are asked for");
    assert_int_equal(hf_watchdog_open("/dev/null", HF_S(61), &err, &w), -EINVAL);
    assert_non_null(strstr(err.text, "/dev/null refuses a time of 61 s"));
    device.options = 0; /* a fixed time, no magic close */
    device.timeout = 30;
    assert_int_equal(hf_watchdog_open("/dev/null", HF_S(29), &err, &w), -HF_EVALUE);
    w = open_ok("/dev/null", HF_S(60));
    assert_int_equal(hf_watchdog_timeout(w), HF_S(30));
    assert_int_equal(hf_watchdog_disarm(w, &err), -HF_EVALUE);
    assert_non_null(strstr(err.text, "cannot be disarmed"));
    device.error = EIO;
    assert_int_equal(hf_watchdog_open("/dev/null", HF_S(20), &err, &w), -EIO);
}

#define WATCHDOG_TEST(fn) cmocka_unit_test_setup_teardown(fn, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WATCHDOG_TEST(file),
        WATCHDOG_TEST(fifo),
        WATCHDOG_TEST(not_there),
        WATCHDOG_TEST(real),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
