/* A member of one group over Corosync that prints what it is told, for system tests.
 *
 * engine-probe HOST GROUP. Standard input: "say TEXT", "flood N" (N messages), "leave", "join",
 * "pause MS" (does not dispatch). Its end ends the program. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/corosync.h"

static struct hf_engine *engine;
static const char *group;
static bool wanted = true, joined, lines_end;
static unsigned flood;
static char say[HF_ENGINE_MSG_MAX + 1];

static hf_time clock_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return HF_S(ts.tv_sec) + ts.tv_nsec;
}

static void on_message(void *arg, const char *name, uint32_t from, struct hf_slice msg)
{
    (void)arg;
    (void)name;
    printf("msg %u %.*s\n", from, HF_SLICE_FMT(msg));
}

static void on_view(void *arg, const char *name, const struct hf_engine_view *v)
{
    static const char *const why[] = {"?", "left", "proc", "node"};
    (void)arg;
    (void)name;
    printf("view %llu ", (unsigned long long)v->ring);
    for (size_t i = 0; i < v->n_members; i++) {
        printf("%s%s", i ? "," : "", v->member[i].host);
    }
    for (size_t i = 0; i < v->n_left; i++) {
        printf(" -%s:%s", v->left[i].host, why[v->left[i].left % 4]);
    }
    printf("\n");
    if (v->n_members == 0 || !wanted) {
        joined = joined && wanted;
    }
}

static void on_quorum(void *arg, bool quorate, uint64_t ring)
{
    (void)arg;
    printf("quorum %d %llu\n", quorate, (unsigned long long)ring);
}

static void on_lost(void *arg, int rc)
{
    (void)arg;
    printf("lost %s\n", hf_errname(rc) ? hf_errname(rc) : hf_strerror(rc));
    joined = false;
}

static void try_join(void)
{
    static int last = 1;
    int rc = engine->ops->join(engine, group);
    joined = rc == 0 || rc == -EALREADY;
    if (rc != last) {
        printf("join %s\n", rc == 0 ? "ok" : hf_errname(rc) ? hf_errname(rc) : hf_strerror(rc));
    }
    last = rc;
}

static void try_say(void)
{
    while (say[0]) {
        int rc = engine->ops->multicast(engine, group, hf_slice_str(say));
        if (rc == -HF_EFULL || rc == -HF_ELEFT) {
            return;
        }
        say[0] = 0;
        if (flood) {
            snprintf(say, sizeof(say), "flood%u", flood--);
        }
    }
}

static void command(char *line)
{
    line[strcspn(line, "\n")] = 0;
    if (strncmp(line, "say ", 4) == 0) {
        snprintf(say, sizeof(say), "%.*s", HF_ENGINE_MSG_MAX, line + 4);
    } else if (strncmp(line, "flood ", 6) == 0) {
        flood = (unsigned)atoi(line + 6);
        snprintf(say, sizeof(say), "flood%u", flood--);
    } else if (strncmp(line, "pause ", 6) == 0) {
        usleep((useconds_t)atoi(line + 6) * 1000);
    } else if (strcmp(line, "leave") == 0) {
        wanted = joined = false;
        printf("leave %d\n", engine->ops->leave(engine, group));
    } else if (strcmp(line, "join") == 0) {
        wanted = true;
    }
}

static void read_commands(void)
{
    static char buf[4096];
    static size_t n;
    ssize_t got = read(STDIN_FILENO, buf + n, sizeof(buf) - 1 - n);
    if (got <= 0) {
        lines_end = true;
        return;
    }
    n += (size_t)got;
    buf[n] = 0;
    for (char *end; (end = strchr(buf, '\n'));) {
        *end = 0;
        command(buf);
        n -= (size_t)(end + 1 - buf);
        memmove(buf, end + 1, n + 1);
    }
}

int main(int argc, char **argv)
{
    struct hf_err err;
    struct hf_engine_corosync_opt opt = {
        .callbacks = {
            .message = on_message, .view = on_view, .quorum = on_quorum, .lost = on_lost}};
    if (argc != 3) {
        fprintf(stderr, "usage: engine-probe HOST GROUP\n");
        return 2;
    }
    opt.host = argv[1];
    group = argv[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (hf_engine_corosync_create(&opt, &err, &engine) != 0) {
        fprintf(stderr, "engine-probe: %s\n", err.text);
        return 1;
    }
    while (!lines_end) {
        hf_time next = HF_NEVER, now = clock_now();
        if (wanted && !joined) {
            try_join();
        }
        (void)engine->ops->dispatch(engine, now, &next);
        try_say();
        next = hf_time_min(next, now + (!joined || say[0] ? HF_MS(20) : HF_S(10)));
        struct pollfd p[2] = {{.fd = engine->ops->fd(engine), .events = POLLIN},
                              {.fd = STDIN_FILENO, .events = POLLIN}};
        int64_t ms = next > now ? (next - now) / HF_NS_PER_MS + 1 : 0;
        (void)poll(p, 2, (int)ms);
        if (p[1].revents) {
            read_commands();
        }
    }
    engine->ops->destroy(engine);
    return 0;
}
