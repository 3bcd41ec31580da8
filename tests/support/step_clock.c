/* A host's own wall clock, for tests: preloaded (/etc/ld.so.preload) it adds to CLOCK_REALTIME the
 * nanoseconds that the file CLOCK says, eight bytes, which may change at any time. Clocks that
 * nobody can set, CLOCK_MONOTONIC for one, are as they are. What waits until a time of the wall
 * clock waits as long as it would have; timers of the kernel (timer_create, timerfd) are not looked
 * after. */
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define CLOCK "/var/lib/step-clock"
#define S 1000000000
#define EXPORT __attribute__((visibility("default")))

static const volatile int64_t *step;

__attribute__((constructor)) static void begin(void)
{
    int fd = open(CLOCK, O_RDONLY | O_CLOEXEC);
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*step), PROT_READ, MAP_SHARED, fd, 0);
    step = at == MAP_FAILED ? NULL : at;
    if (fd >= 0) {
        close(fd);
    }
}

static struct timespec plus(struct timespec t, int64_t ns)
{
    int64_t sum = t.tv_nsec + ns % S;
    t.tv_sec += ns / S + (sum >= S) - (sum < 0);
    t.tv_nsec = sum >= S ? sum - S : sum < 0 ? sum + S : sum;
    return t;
}

/* As the kernel has it; maybe of CLOCK_MONOTONIC, which is not so far yet. */
static struct timespec real_time(const struct timespec *t)
{
    return step && t->tv_sec > S ? plus(*t, -*step) : *t;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, t);
    if (rc == 0 && step && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        *t = plus(*t, *step);
    }
    return rc;
}

EXPORT int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec t;
    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    *tv = (struct timeval){.tv_sec = t.tv_sec, .tv_usec = t.tv_nsec / 1000};
    return 0;
}

EXPORT time_t time(time_t *ret)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &t);
    if (ret) {
        *ret = t.tv_sec;
    }
    return t.tv_sec;
}

EXPORT int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until)
{
    struct timespec t = real_time(until);
    return sem_clockwait(sem, CLOCK_REALTIME, &t);
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                                  const struct timespec *restrict until)
{
    struct timespec t = real_time(until);
    return pthread_cond_clockwait(cond, mutex, t.tv_sec > S ? CLOCK_REALTIME : CLOCK_MONOTONIC, &t);
}
