/* Runs of simulators: each from one seed, many in processes of their own. */
#include "sim/runner.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/sim_net.h"

#define FAILURES_MAX 256
#define JOBS_MAX 64
#define LINES_SHOWN 60
#define KIND_SHOWN 8 /* failures of one kind that are told one by one */

struct options {
    uint64_t seed, runs;
    uint32_t seconds, jobs; /* seconds of real time; 0: as many as `runs` */
    bool trace, keep_going, write;
    const char *seeds, *golden;
};

struct failure {
    uint64_t seed;
    char kind[16], why[160];
};

struct shared {
    uint64_t next, done, n_failures;
    uint64_t now[JOBS_MAX]; /* seed under way + 1, by worker; 0: none */
    uint64_t figure[SIM_FIGURES_MAX];
    struct failure failure[FAILURES_MAX];
    bool stop;
};

/* ---- one run ---- */

/* In a process of its own, so that an assert of the core ends only that. */
static void run_apart(const struct sim_runner *r, uint64_t seed, FILE *trace)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct sim_run run = {0};
        setvbuf(trace, NULL, _IOLBF, 0);
        r->run(seed, trace, &run);
        fflush(NULL);
        _exit(0);
    }
    (void)waitpid(pid, NULL, 0);
}

static int traced(const struct sim_runner *r, const struct options *o)
{
    struct sim_run run = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    r->run(o->seed, stdout, &run);
    printf("%s%s%s\n", run.kind, run.kind[0] ? ": " : "", run.why[0] ? run.why : "all held");
    return run.why[0] != 0;
}

/* The last lines of a run that failed. */
static void show(const struct sim_runner *r, const struct failure *f)
{
    FILE *trace = tmpfile();
    char line[400];
    long n = 0, k = 0;
    fprintf(stderr, "seed %" PRIu64 " failed, %s: %s\n", f->seed, f->kind, f->why);
    if (!trace) {
        return;
    }
    run_apart(r, f->seed, trace);
    rewind(trace);
    while (fgets(line, sizeof(line), trace)) {
        n++;
    }
    rewind(trace);
    while (fgets(line, sizeof(line), trace)) {
        if (k++ >= n - LINES_SHOWN) {
            fputs(line, stderr);
        }
    }
    fclose(trace);
    fprintf(stderr, "again, with all of it: %s --seed %" PRIu64 " --runs 1 --trace\n", r->program,
            f->seed);
}

/* ---- many ---- */

static void note(struct shared *sh, uint64_t seed, const char *kind, const char *why)
{
    uint64_t k = __atomic_fetch_add(&sh->n_failures, 1, __ATOMIC_SEQ_CST);
    if (k < FAILURES_MAX) {
        struct failure *f = &sh->failure[k];
        f->seed = seed;
        snprintf(f->kind, sizeof(f->kind), "%s", kind[0] ? kind : "it");
        snprintf(f->why, sizeof(f->why), "%.159s", why);
    }
}

static size_t names(const char *const *name)
{
    size_t n = 0;
    while (name && name[n]) {
        n++;
    }
    return n;
}

static void add_figures(const struct sim_runner *r, struct shared *sh, const struct sim_run *run)
{
    size_t n_sums = names(r->figures), n = n_sums + names(r->highest);
    for (size_t i = 0; i < n; i++) {
        uint64_t was = __atomic_load_n(&sh->figure[i], __ATOMIC_SEQ_CST), is;
        do {
            is = run->figure[i];
            is = i < n_sums ? was + is : was > is ? was : is;
        } while (!__atomic_compare_exchange_n(&sh->figure[i], &was, is, false, __ATOMIC_SEQ_CST,
                                              __ATOMIC_SEQ_CST));
    }
}

static void work(const struct sim_runner *r, const struct options *o, struct shared *sh,
                 uint32_t worker, time_t end)
{
    for (;;) {
        uint64_t k = __atomic_fetch_add(&sh->next, 1, __ATOMIC_SEQ_CST);
        if ((o->seconds ? time(NULL) >= end : k >= o->runs) || sh->stop) {
            return;
        }
        struct sim_run run = {0};
        sh->now[worker] = o->seed + k + 1;
        r->run(o->seed + k, NULL, &run);
        sh->now[worker] = 0;
        __atomic_fetch_add(&sh->done, 1, __ATOMIC_SEQ_CST);
        add_figures(r, sh, &run);
        if (run.why[0]) {
            note(sh, o->seed + k, run.kind, run.why);
            sh->stop = !o->keep_going;
        }
    }
}

static pid_t start_worker(const struct sim_runner *r, const struct options *o, struct shared *sh,
                          uint32_t i, time_t end)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        work(r, o, sh, i, end);
        fflush(NULL);
        _exit(0);
    }
    return pid;
}

/* Until all have ended; one that died of an assert is replaced. */
static void workers(const struct sim_runner *r, const struct options *o, struct shared *sh)
{
    time_t end = time(NULL) + (time_t)o->seconds;
    pid_t pid[JOBS_MAX] = {0};
    for (uint32_t i = 0; i < o->jobs; i++) {
        pid[i] = start_worker(r, o, sh, i, end);
    }
    for (uint32_t running = o->jobs; running > 0;) {
        int status = 0;
        pid_t ended = wait(&status);
        uint32_t i = 0;
        while (i < o->jobs && pid[i] != ended) {
            i++;
        }
        if (i == o->jobs) {
            continue;
        }
        running--;
        if (sh->now[i]) {
            char why[60];
            snprintf(why, sizeof(why), "the process died (signal %d)", WTERMSIG(status));
            note(sh, sh->now[i] - 1, "assert", why);
            sh->now[i] = 0;
            sh->stop = sh->stop || !o->keep_going;
            if (!sh->stop) {
                pid[i] = start_worker(r, o, sh, i, end);
                running++;
            }
        }
    }
}

static struct shared *shared_new(void)
{
    struct shared *sh =
        mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sh == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return sh;
}

/* Seeds that failed once: how many do so now. */
static int kept(const struct sim_runner *r, const struct options *o)
{
    FILE *f = o->seeds ? fopen(o->seeds, "r") : NULL;
    char line[200];
    int failed = 0;
    while (f && fgets(line, sizeof(line), f)) {
        char *end;
        uint64_t seed = strtoull(line, &end, 10);
        if (end == line) {
            continue;
        }
        struct options one = {.seed = seed, .runs = 1, .jobs = 1};
        struct shared *sh = shared_new();
        workers(r, &one, sh);
        if (sh->n_failures) {
            show(r, &sh->failure[0]);
            failed++;
        }
        munmap(sh, sizeof(*sh));
    }
    if (f) {
        fclose(f);
    } else if (o->seeds) {
        perror(o->seeds);
        failed++;
    }
    return failed;
}

/* By kind, the first of each. */
static void summary(const struct shared *sh)
{
    uint64_t n = sh->n_failures < FAILURES_MAX ? sh->n_failures : FAILURES_MAX;
    for (uint64_t i = 0; i < n; i++) {
        const char *kind = sh->failure[i].kind;
        uint64_t before = 0, count = 0;
        for (uint64_t k = 0; k < n; k++) {
            bool same = strcmp(sh->failure[k].kind, kind) == 0;
            before += same && k < i;
            count += same;
        }
        if (before < KIND_SHOWN) {
            fprintf(stderr, "%-7s seed %" PRIu64 ": %s\n", kind, sh->failure[i].seed,
                    sh->failure[i].why);
        }
        if (before == 0) {
            fprintf(stderr, "%-7s %" PRIu64 " in all\n", kind, count);
        }
    }
}

static int many(const struct sim_runner *r, const struct options *o)
{
    int failed_again = kept(r, o);
    if (failed_again && !o->keep_going) {
        return 1;
    }
    struct shared *sh = shared_new();
    workers(r, o, sh);
    if (sh->n_failures && o->keep_going) {
        summary(sh);
    } else if (sh->n_failures) {
        show(r, &sh->failure[0]);
    }
    printf("%" PRIu64 " schedules (from seed %" PRIu64 ")", sh->done, o->seed);
    for (size_t i = 0; r->figures[i]; i++) {
        printf(", %" PRIu64 " %s", sh->figure[i], r->figures[i]);
    }
    for (size_t i = 0, n = names(r->figures); i < names(r->highest); i++) {
        printf(", at most %" PRIu64 " %s", sh->figure[n + i], r->highest[i]);
    }
    printf("; %" PRIu64 " schedules failed\n", sh->n_failures);
    return failed_again || sh->n_failures;
}

/* ---- stories ---- */

static char *trace_of(const struct sim_runner *r, size_t i)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    fprintf(out, "%s\n", r->story(i).title);
    r->tell(i, out);
    fclose(out);
    return text;
}

static int stories(const struct sim_runner *r, const struct options *o)
{
    int failed = 0;
    printf("1..%zu\n", r->n_stories);
    for (size_t i = 0; i < r->n_stories; i++) {
        char path[512], *trace = trace_of(r, i);
        snprintf(path, sizeof(path), "%s/%s-%s.txt", o->golden, r->prefix, r->story(i).name);
        bool same = sim_golden(path, trace, o->write) && !strstr(trace, "\nFAILED: ");
        printf("%sok %zu - %s\n", same ? "" : "not ", i + 1, r->story(i).name);
        if (!same) {
            fprintf(stderr, "%s is now told so:\n%s", r->story(i).name, trace);
            failed = 1;
        }
        free(trace);
    }
    return failed;
}

/* ---- options ---- */

static const struct option long_options[] = {
    {"seed", required_argument, NULL, 's'},
    {"runs", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 't'},
    {"jobs", required_argument, NULL, 'j'},
    {"seeds", required_argument, NULL, 'k'},
    {"trace", no_argument, NULL, 'T'},
    {"keep-going", no_argument, NULL, 'K'},
    {"golden", required_argument, NULL, 'g'},
    {"write", no_argument, NULL, 'w'},
    {"bench", no_argument, NULL, 'b'},
    {0},
};

static void usage(const struct sim_runner *r)
{
    const char *p = r->program;
    fprintf(stderr,
            "%s [--seed N] [--runs N | --seconds N] [--jobs N] [--seeds FILE] [--keep-going]\n"
            "    %s; first the seeds of FILE\n"
            "%s --seed N --runs 1 --trace\n"
            "    one of them, told line by line\n"
            "%s --golden DIRECTORY [--write]\n"
            "    documented moments, compared with (or written as) golden traces\n",
            p, r->what, p, p);
    if (r->bench) {
        fprintf(stderr, "%s --bench\n    %s\n", p, r->measure);
    }
    fputs(r->more ? r->more : "", stderr);
    exit(2);
}

static uint64_t number(const struct sim_runner *r, uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(optarg, &end, 10);
    if (errno || end == optarg || *end || n > max) {
        usage(r);
    }
    return n;
}

int sim_main(int argc, char **argv, const struct sim_runner *r)
{
    struct options o = {.seed = 1, .runs = r->runs, .jobs = 1};
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (c) {
        case 's':
            o.seed = number(r, UINT64_MAX / 4);
            break;
        case 'r':
            o.runs = number(r, UINT32_MAX);
            break;
        case 't':
            o.seconds = (uint32_t)number(r, 1000000);
            break;
        case 'j':
            o.jobs = (uint32_t)number(r, JOBS_MAX);
            break;
        case 'k':
            o.seeds = optarg;
            break;
        case 'T':
            o.trace = true;
            break;
        case 'K':
            o.keep_going = true;
            break;
        case 'g':
            o.golden = optarg;
            break;
        case 'w':
            o.write = true;
            break;
        case 'b':
            if (r->bench) {
                return r->bench();
            }
            usage(r);
            break;
        default:
            usage(r);
        }
    }
    if (optind != argc || o.jobs == 0) {
        usage(r);
    }
    return o.golden ? stories(r, &o) : o.trace ? traced(r, &o) : many(r, &o);
}
