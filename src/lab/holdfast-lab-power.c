/* holdfast-lab-power: a lab's power switch. Ends and boots hosts when fence agents in other hosts
 * ask for it; holdfast-lab(8) starts it and says what it is for.
 *
 *     holdfast-lab-power STATE_DIR LAB_PROGRAM LAB_NAME [CGROUP]
 *
 * It runs outside of the hosts, in the network namespace where their cables end, and listens on
 * STATE_DIR/power/power.sock, which all hosts see. One request per connection, a line:
 *     off HOST, on HOST, reboot HOST, status HOST, list
 * The answer is a line "ok ..." or "error ...", after "list" also a line "NAME on|off" per host.
 * "ok off" means that no process of the host is left.
 *
 * Each request has a process of its own: one that hangs, hangs alone. STATE_DIR/hosts/HOST/lock
 * keeps it and holdfast-lab from switching a host at the same time. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUEST_MAX 128
#define DEATH_WAIT_MS 15000 /* for the last process of a host to end */

static const char *state_dir, *lab_program, *lab_name, *cgroup;

__attribute__((format(printf, 2, 3))) static void answer(int fd, const char *fmt, ...)
{
    char line[REQUEST_MAX * 2];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (n > 0) { /* a caller that has gone, perhaps by its own request, misses nothing */
        send(fd, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1, MSG_NOSIGNAL);
    }
}

/* Path of something in the state directory of a host. Static: used at once. */
static const char *host_path(const char *host, const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/hosts/%s/%s", state_dir, host, name);
    return path;
}

/* First bytes of a file as text; "" if it can't be read. */
static void read_text(const char *path, char *ret_text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, ret_text, size - 1) : 0;
    ret_text[n > 0 ? n : 0] = '\0';
    if (fd >= 0) {
        close(fd);
    }
}

/* Start time of a living process, or 0. */
static unsigned long long start_time(pid_t pid)
{
    char path[64], text[1024], state;
    unsigned long long t;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    read_text(path, text, sizeof(text));
    const char *p = strrchr(text, ')');
    if (!p ||
        sscanf(p + 1,
               " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &state, &t) != 2 ||
        state == 'Z' || state == 'X') {
        return 0;
    }
    return t;
}

/* A pidfd of the host's first process; -1: it is off. A process that got a dead one's number is
 * never taken for it. */
static int init_open(const char *host)
{
    char text[64];
    int pid;
    unsigned long long t;
    read_text(host_path(host, "init"), text, sizeof(text));
    if (sscanf(text, "%d %llu", &pid, &t) != 2) {
        return -1;
    }
    int fd = pidfd_open(pid, 0);
    if (fd >= 0 && start_time(pid) != t) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool is_on(const char *host)
{
    int fd = init_open(host);
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

/* The lab's end of the host's cable. With it down nothing of the host gets out any more, the last
 * words of dying sockets neither. (Removing it whole takes the kernel some ten ms longer.) */
static void cable_down(const char *host)
{
    struct ifreq ifr = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", host);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &ifr) < 0) {
        ifr.ifr_flags = 0; /* no such cable */
    }
    if (ifr.ifr_flags & IFF_UP) {
        ifr.ifr_flags &= (short)~IFF_UP;
        if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0) {
            perror("holdfast-lab-power: cable down");
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* It reaps its process, for which the init of some machines takes seconds; and ends by itself. */
static bool is_nsenter(int pid)
{
    char path[40], text[32];
    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    read_text(path, text, sizeof(text));
    return strcmp(text, "nsenter\n") == 0;
}

/* A frozen process of cgroup version 1 dies only when it is thawed, and the first process takes the
 * others along only then: a frozen host is killed one by one, so that none runs a step further. */
static void kill_frozen(const char *host)
{
    char path[600], text[32];
    bool v2 = false;
    snprintf(path, sizeof(path), "%s/%s/freezer.state", cgroup, host);
    if (access(path, F_OK) < 0) {
        snprintf(path, sizeof(path), "%s/%s/cgroup.freeze", cgroup, host);
        v2 = true;
    }
    read_text(path, text, sizeof(text));
    if (!*text || !strcmp(text, v2 ? "0\n" : "THAWED\n")) {
        return;
    }
    char procs[600];
    snprintf(procs, sizeof(procs), "%s/%s/cgroup.procs", cgroup, host);
    FILE *f = fopen(procs, "re");
    int pid;
    while (f && fscanf(f, "%d", &pid) == 1) {
        if (pid > 0 && !is_nsenter(pid)) { /* 0: just being reaped */
            kill(pid, SIGKILL);
        }
    }
    if (f) {
        fclose(f);
    }
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    const char *thaw = v2 ? "0" : "THAWED";
    if (fd < 0 || write(fd, thaw, strlen(thaw)) < 0) {
        perror("holdfast-lab-power: thaw");
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* 0: no process of the host is left. The end of its first process comes after that of all others
 * in its pid namespace. */
static int power_off(const char *host)
{
    int pidfd = init_open(host);
    if (pidfd < 0) {
        return 0;
    }
    cable_down(host);
    int rc = pidfd_send_signal(pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH ? -errno : 0;
    if (rc == 0) {
        if (*cgroup) {
            kill_frozen(host);
        }
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        rc = poll(&p, 1, DEATH_WAIT_MS) == 1 ? 0 : -ETIMEDOUT;
    }
    close(pidfd);
    return rc;
}

/* Start "holdfast-lab boot HOST", which takes the host's lock itself. */
static pid_t boot(const char *host)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, 0);
        setsid();
        execl(lab_program, lab_program, "--name", lab_name, "boot", host, (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* -1: no such host. */
static int lock_host(const char *host)
{
    int fd = open(host_path(host, "lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        while (flock(fd, LOCK_EX) < 0 && errno == EINTR) {
        }
    }
    return fd;
}

static void switch_off(int fd, const char *host, bool then_boot)
{
    int lock = lock_host(host);
    int rc = power_off(host);
    if (lock >= 0) {
        close(lock);
    }
    if (rc) {
        answer(fd, "error %s does not end: %s\n", host, strerror(-rc));
    } else {
        answer(fd, "ok off\n");
        if (then_boot && boot(host) < 0) {
            perror("holdfast-lab-power: boot");
        }
    }
}

static void switch_on(int fd, const char *host)
{
    int status = -1;
    if (!is_on(host)) {
        pid_t pid = boot(host);
        if (pid < 0 || waitpid(pid, &status, 0) < 0) {
            answer(fd, "error %s can't be booted: %s\n", host, strerror(errno));
            return;
        }
    }
    if (is_on(host)) {
        answer(fd, "ok on\n");
    } else {
        answer(fd, "error %s does not boot (status %d)\n", host, status);
    }
}

static void list(int fd)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/hosts", state_dir);
    answer(fd, "ok\n");
    DIR *d = opendir(path);
    for (const struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] != '.') {
            answer(fd, "%.64s %s\n", e->d_name, is_on(e->d_name) ? "on" : "off");
        }
    }
    if (d) {
        closedir(d);
    }
}

/* holdfast-lab's "fence-break": the switch is broken for this host. True if that was the answer. */
static bool broken(int fd, const char *host)
{
    char how[16];
    read_text(host_path(host, "fence-broken"), how, sizeof(how));
    if (!strcmp(how, "hang\n")) {
        struct pollfd p = {.fd = fd, .events = POLLRDHUP};
        poll(&p, 1, -1);
        return true;
    }
    if (*how) {
        answer(fd, "error the switch does not reach %s\n", host);
    }
    return *how != '\0';
}

static bool is_host(const char *name)
{
    for (const char *p = name; *p; p++) {
        if (!isalnum((unsigned char)*p)) {
            return false;
        }
    }
    return *name && access(host_path(name, "."), F_OK) == 0;
}

static void serve(int fd)
{
    char line[REQUEST_MAX] = "", verb[16], host[64] = "";
    struct timeval patience = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    for (size_t n = 0; n < sizeof(line) - 1 && !strchr(line, '\n');) {
        ssize_t got = recv(fd, line + n, sizeof(line) - 1 - n, 0);
        if (got <= 0) {
            return;
        }
        n += (size_t)got;
        line[n] = '\0';
    }
    int words = sscanf(line, "%15s %63s", verb, host);
    if (words == 1 && !strcmp(verb, "list")) {
        list(fd);
    } else if (words != 2) {
        answer(fd, "error expected off, on, reboot or status with a host, or list\n");
    } else if (!is_host(host)) {
        answer(fd, "error there is no host \"%s\"\n", host);
    } else if (broken(fd, host)) {
    } else if (!strcmp(verb, "off") || !strcmp(verb, "reboot")) {
        switch_off(fd, host, *verb == 'r');
    } else if (!strcmp(verb, "on")) {
        switch_on(fd, host);
    } else if (!strcmp(verb, "status")) {
        answer(fd, "ok %s\n", is_on(host) ? "on" : "off");
    } else {
        answer(fd, "error unknown request \"%s\"\n", verb);
    }
}

static int listen_on_socket(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int n = snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/power/power.sock", state_dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (n < 0 || (size_t)n >= sizeof(sa.sun_path) || fd < 0 ||
        bind(fd, (struct sockaddr *)(void *)&sa, sizeof(sa)) < 0 || listen(fd, 32) < 0) {
        perror("holdfast-lab-power: socket");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 5) {
        fputs("usage: holdfast-lab-power STATE_DIR LAB_PROGRAM LAB_NAME [CGROUP]\n", stderr);
        return 2;
    }
    state_dir = argv[1];
    lab_program = argv[2];
    lab_name = argv[3];
    cgroup = argc > 4 ? argv[4] : "";
    int fd = listen_on_socket();
    signal(SIGCHLD, SIG_IGN); /* nobody waits for the processes of the requests */
    for (;;) {
        int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (conn < 0) {
            if (errno != EINTR && errno != ECONNABORTED) {
                perror("holdfast-lab-power: accept");
                usleep(100000); /* out of descriptors: ends by itself */
            }
            continue;
        }
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            signal(SIGCHLD, SIG_DFL);
            serve(conn);
            _exit(0);
        }
        close(conn);
    }
}
