/* What the SIP store costs: BINDs/s, their CPU and latency, LOAD of 10,000 AoRs. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/mem.h"
#include "os/loop.h"
#include "sip/store.h"
#include "sip/store_sql.h"

#define AORS 10000

static atomic_ulong results, failures;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t news = PTHREAD_COND_INITIALIZER;
static bool caught_up;

static void told_result(void *arg, unsigned worker, const struct hf_sip_result *r)
{
    (void)arg;
    (void)worker;
    atomic_fetch_add(&failures, r->done != HF_SIP_OP_DONE);
    atomic_fetch_add(&results, 1);
    pthread_mutex_lock(&lock);
    pthread_cond_signal(&news);
    pthread_mutex_unlock(&lock);
}

static void told_feed(void *arg, const struct hf_sip_feed *f)
{
    (void)arg;
    pthread_mutex_lock(&lock);
    caught_up |= f->change != 0;
    pthread_cond_signal(&news);
    pthread_mutex_unlock(&lock);
}

static uint16_t number_of(void *arg, struct hf_slice name)
{
    (void)arg;
    (void)name;
    return 0;
}

static void name_of(void *arg, uint16_t server, char *buf, size_t room)
{
    (void)arg;
    snprintf(buf, room, "s%u", server);
}

static void told_log(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "%s\n", text);
}

/* Until there are so many results. */
static void wait_for(unsigned long n)
{
    pthread_mutex_lock(&lock);
    while (atomic_load(&results) < n || !caught_up) {
        pthread_cond_wait(&news, &lock);
    }
    pthread_mutex_unlock(&lock);
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Of PostgreSQL's processes for us, if they are on this machine. */
static int add_cpu(void *arg, const struct hf_slice *column, size_t n)
{
    char path[64], line[1024];
    unsigned long utime, stime;
    (void)n;
    snprintf(path, sizeof(path), "/proc/%.*s/stat", HF_SLICE_FMT(column[0]));
    FILE *f = fopen(path, "re");
    if (f && fgets(line, sizeof(line), f) && strrchr(line, ')') &&
        sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
               &utime, &stime) == 2) {
        *(double *)arg += (double)(utime + stime) / (double)sysconf(_SC_CLK_TCK);
    }
    if (f) {
        fclose(f);
    }
    return 0;
}

static double server_cpu_s(struct hf_sip_sql *q)
{
    double s = 0;
    if (hf_sip_sql_is_pg(q) &&
        hf_sip_sql_run(q,
                       "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                       " AND (application_name = 'holdfast-sip' OR backend_type = 'walwriter')",
                       NULL, 0, add_cpu, &s, NULL) < 0) {
        return 0;
    }
    return s;
}

static void aor_of(unsigned i, char aor[32])
{
    snprintf(aor, 32, "sip:user%06u@example.org", i % 1000000);
}

static void submit(struct hf_sip_store *s, uint8_t kind, unsigned i, uint32_t cseq)
{
    char aor[32];
    aor_of(i, aor);
    struct hf_sip_bind b = {
        .key = hf_slice_str("<urn:uuid:00000000-0000-1000-8000-000A95A0E128>;1"),
        .b = {.uri = hf_slice_str("sip:user@192.0.2.17:5060;transport=tcp"),
              .params = hf_slice_str(";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-"
                                     "000A95A0E128>\";reg-id=1"),
              .call_id = hf_slice_str("a84b4c76e66710@pc33.example.org"),
              .path = hf_slice_str("<sip:edge1.example.org;lr;ob>"),
              .cseq = cseq,
              .life_s = 3600,
              .left_s = 3600}};
    struct hf_sip_op op = {.kind = kind,
                           .wait = true,
                           .cookie = 1,
                           .aor = hf_slice_str(aor),
                           .epoch = 1,
                           .row = {.epoch = 1},
                           .bind = &b,
                           .n_binds = kind == HF_SIP_OP_BIND ? 1 : 0};
    hf_sip_store_submit(s, 0, &op);
}

static void report(const char *what, unsigned long n, hf_time t, double cpu, double server)
{
    printf("%-28s %8.0f /s %8.2f us CPU, %8.2f us PostgreSQL's\n", what,
           (double)n / ((double)t / 1e9), cpu * 1e6 / (double)n, server * 1e6 / (double)n);
}

/* n ops over all AoRs, so many at a time. */
static void many(struct hf_sip_store *s, struct hf_sip_sql *q, const char *what, uint8_t kind,
                 unsigned n, unsigned at_once)
{
    unsigned long base = atomic_load(&results);
    double server = server_cpu_s(q), cpu = cpu_s();
    hf_time t = hf_now();
    for (unsigned i = 0; i < n; i++) {
        submit(s, kind, i % AORS, i);
        if (i >= at_once) {
            wait_for(base + i - at_once + 1);
        }
    }
    wait_for(base + n);
    t = hf_now() - t;
    cpu = cpu_s() - cpu;
    report(what, n, t, cpu, server_cpu_s(q) - server);
}

static int by_time(const void *a, const void *b)
{
    const hf_time *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* One alone, after a pause. */
static void lone(struct hf_sip_store *s, const char *what, uint8_t kind)
{
    hf_time t[100];
    for (unsigned i = 0; i < HF_ARRAY_LEN(t); i++) {
        usleep(20000);
        unsigned long base = atomic_load(&results);
        hf_time start = hf_now();
        submit(s, kind, i, i);
        wait_for(base + 1);
        t[i] = hf_now() - start;
    }
    qsort(t, HF_ARRAY_LEN(t), sizeof(t[0]), by_time);
    printf("%-28s %8.0f us median, %8.0f us p95\n", what, (double)t[50] / 1e3, (double)t[95] / 1e3);
}

int main(int argc, char **argv)
{
    static const struct hf_sip_store_events events = {.result = told_result,
                                                      .feed = told_feed,
                                                      .server = number_of,
                                                      .server_name = name_of,
                                                      .log = told_log};
    struct hf_err err;
    struct hf_sip_store *s;
    struct hf_sip_sql *q;
    if (argc != 2) {
        fprintf(stderr, "usage: sip-store sqlite:/PATH | POSTGRESQL-URI (an empty database)\n");
        return 2;
    }
    struct hf_sip_store_conf conf = {.uri = argv[1], .self = "s0"};
    if (hf_sip_store_init(argv[1], &err) || hf_sip_sql_open(argv[1], &err, &q) ||
        hf_sip_store_open(&conf, &events, NULL, &err, &s)) {
        fprintf(stderr, "sip-store: %s\n", err.text);
        return 1;
    }
    wait_for(0);
    many(s, q, "ASSIGN, 1000 at once", HF_SIP_OP_ASSIGN, AORS, 1000);
    many(s, q, "BIND new, 1000 at once", HF_SIP_OP_BIND, AORS, 1000);
    many(s, q, "BIND changed, 1000 at once", HF_SIP_OP_BIND, 5 * AORS, 1000);
    many(s, q, "BIND changed, 100 at once", HF_SIP_OP_BIND, 2 * AORS, 100);
    many(s, q, "READ, 1000 at once", HF_SIP_OP_READ, 5 * AORS, 1000);
    many(s, q, "LOAD of 10,000", HF_SIP_OP_LOAD, AORS, AORS);
    lone(s, "BIND alone", HF_SIP_OP_BIND);
    lone(s, "READ alone", HF_SIP_OP_READ);
    hf_sip_store_close(s);
    hf_sip_sql_close(q);
    if (atomic_load(&failures)) {
        fprintf(stderr, "sip-store: %lu ops were not done\n", atomic_load(&failures));
        return 1;
    }
    return 0;
}
