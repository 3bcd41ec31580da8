/* Several engines and what they told. */
#include "support/engine_rig.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SILENCE HF_MS(400)

static hf_time clock_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return HF_S(ts.tv_sec) + ts.tv_nsec;
}

static void tell(struct rig_member *m, const char *line)
{
    assert(m->n < RIG_LINES_MAX);
    m->line[m->n++] = strdup(line);
}

static void on_message(void *arg, const char *group, uint32_t from, struct hf_slice msg)
{
    char line[1200];
    snprintf(line, sizeof(line), "%s m %u %.*s", group, from, HF_SLICE_FMT(msg));
    tell(arg, line);
}

static void on_view(void *arg, const char *group, const struct hf_engine_view *v)
{
    static const char *const why[] = {"?", "left", "proc", "node"};
    struct rig_member *m = arg;
    char line[256];
    size_t n = (size_t)snprintf(line, sizeof(line), "%s v ", group);
    for (size_t i = 0; i < v->n_members; i++) {
        n += (size_t)snprintf(line + n, sizeof(line) - n, "%s%u", i ? "," : "",
                              v->member[i].node_id);
    }
    for (size_t i = 0; i < v->n_left; i++) {
        n += (size_t)snprintf(line + n, sizeof(line) - n, " -%u:%s", v->left[i].node_id,
                              why[v->left[i].left % 4]);
    }
    assert(v->ring > 0 && v->ring >= m->view_ring);
    m->view_ring = v->ring;
    tell(m, line);
}

static void on_quorum(void *arg, bool quorate, uint64_t ring)
{
    struct rig_member *m = arg;
    m->quorate = quorate;
    m->quorum_ring = ring;
    tell(m, quorate ? "q 1" : "q 0");
}

static void on_lost(void *arg, int rc)
{
    struct rig_member *m = arg;
    assert(rc < 0);
    m->lost = true;
    m->view_ring = 0;
    tell(m, "lost");
}

const struct hf_engine_callbacks rig_callbacks = {
    .message = on_message, .view = on_view, .quorum = on_quorum, .lost = on_lost};

void rig_init(struct rig *r, enum rig_kind kind, unsigned votes)
{
    memset(r, 0, sizeof(*r));
    r->kind = kind;
    r->votes = votes;
    if (kind == RIG_SIM) {
        r->sim = sim_create(&(struct sim_opt){.seed = 1, .n = votes});
        assert(r->sim);
    } else if (kind == RIG_SOCKETS) {
        snprintf(r->dir, sizeof(r->dir), "/tmp/hf-engine-XXXXXX");
        char *made = mkdtemp(r->dir);
        assert(made);
    }
}

void rig_fini(struct rig *r)
{
    for (unsigned i = 0; i < RIG_MAX; i++) {
        rig_stop(r, i);
        for (unsigned k = 0; k < r->m[i].n; k++) {
            free(r->m[i].line[k]);
        }
    }
    sim_destroy(r->sim);
    DIR *d = r->dir[0] ? opendir(r->dir) : NULL;
    for (const struct dirent *de; d && (de = readdir(d)) != NULL;) {
        (void)unlinkat(dirfd(d), de->d_name, 0);
    }
    if (d) {
        closedir(d);
        rmdir(r->dir);
    }
}

void rig_start(struct rig *r, unsigned i)
{
    struct rig_member *m = &r->m[i];
    m->deaf = false;
    if (r->kind == RIG_SIM) {
        m->e = sim_start(r->sim, i, &rig_callbacks, m);
        return;
    }
    char host[8];
    snprintf(host, sizeof(host), "n%u", i + 1);
    struct hf_engine_embedded_opt opt = {.node_id = i + 1,
                                         .host = host,
                                         .run_dir = r->dir[0] ? r->dir : NULL,
                                         .expected_votes = r->votes,
                                         .silence = SILENCE,
                                         .callbacks = rig_callbacks,
                                         .arg = m};
    struct hf_err err = {0};
    int rc = hf_engine_embedded_create(&opt, &err, &m->e);
    if (rc) {
        fprintf(stderr, "create: %s\n", err.text);
    }
    assert(rc == 0);
}

void rig_stop(struct rig *r, unsigned i)
{
    if (r->m[i].e) {
        r->m[i].e->ops->destroy(r->m[i].e);
        r->m[i].e = NULL;
    }
}

/* Dispatch all once; wait for the first descriptor or deadline, at most 20 ms. */
static void turn(struct rig *r)
{
    struct pollfd p[RIG_MAX];
    nfds_t n = 0;
    hf_time now = clock_now(), next = now + HF_MS(20);
    if (r->kind == RIG_SIM) {
        sim_run(r->sim, sim_now(r->sim) + HF_MS(1));
        return;
    }
    for (unsigned i = 0; i < RIG_MAX; i++) {
        if (r->m[i].e && !r->m[i].deaf) {
            hf_time at;
            int rc = r->m[i].e->ops->dispatch(r->m[i].e, clock_now(), &at);
            assert(rc == 0);
            next = hf_time_min(next, at);
            p[n++] = (struct pollfd){.fd = r->m[i].e->ops->fd(r->m[i].e), .events = POLLIN};
        }
    }
    now = clock_now();
    poll(p, n, next > now ? (int)((next - now + HF_MS(1) - 1) / HF_MS(1)) : 0);
}

static hf_time rig_now(const struct rig *r)
{
    return r->kind == RIG_SIM ? sim_now(r->sim) : clock_now();
}

unsigned rig_count(const struct rig *r, unsigned i, const char *line)
{
    unsigned n = 0;
    for (unsigned k = 0; k < r->m[i].n; k++) {
        n += strcmp(r->m[i].line[k], line) == 0;
    }
    return n;
}

int rig_find(const struct rig *r, unsigned i, const char *line)
{
    for (unsigned k = 0; k < r->m[i].n; k++) {
        if (strcmp(r->m[i].line[k], line) == 0) {
            return (int)k;
        }
    }
    return -1;
}

bool rig_wait(struct rig *r, unsigned i, const char *line, unsigned times)
{
    hf_time end = rig_now(r) + HF_S(20);
    while (rig_count(r, i, line) < times) {
        if (rig_now(r) > end) {
            fprintf(stderr, "member %u never heard \"%s\" %u times, but:\n", i + 1, line, times);
            for (unsigned k = 0; k < r->m[i].n; k++) {
                fprintf(stderr, "  %s\n", r->m[i].line[k]);
            }
            return false;
        }
        turn(r);
    }
    return true;
}

void rig_run(struct rig *r, int ms)
{
    hf_time end = rig_now(r) + HF_MS(ms);
    while (rig_now(r) < end) {
        turn(r);
    }
}
