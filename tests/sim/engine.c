/* Random schedules for the engines: sim-engine [--seed N] [--runs N] prints the seed that fails. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/prng.h"
#include "engine/embedded.h"
#include "support/sim_engine.h"

/*
 * Both the simulator's engine and the embedded one (its real sockets, stepped on a simulated clock)
 * go through starts, crashes, pauses, cuts (simulator only; every second seed also one-way cuts,
 * lost engines and stopped processes), joins, leaves and messages. Checked at every callback:
 *  - agreed order: in one view the deliveries of any two members are prefixes of one sequence;
 *  - no duplicates, each sender's messages in its order;
 *  - members that go from one view to the same next one have delivered the same messages before;
 *  - a view has the same members wherever it is seen; ring numbers grow;
 * and at the end, with everything healed: all are in one view, all agree on quorum, and who stayed
 * has got all that it sent; before that, in every quiet moment: quorum on at most one side.
 */
#define NODES 5
#define RINGS_MAX 4096
#define SILENCE HF_MS(100)

struct ring {
    uint64_t number;
    uint32_t members;
    uint32_t *msg; /* owned: what was delivered in this view */
    size_t n;
    uint64_t from[NODES]; /* views that members came from ... */
    size_t had[NODES];    /* ... and how much they had delivered there */
    unsigned n_from;
};

struct world;
struct peer {
    struct world *w;
    unsigned i;
    struct hf_engine *e; /* NULL: not running */
    bool paused, held, joined, lost, quorate, stayed;
    uint64_t ring, last_ring;
    size_t pos;
    uint32_t heard[NODES]; /* last message of each sender */
    uint32_t accepted;     /* last of ours that multicast() took */
};

struct world {
    uint64_t seed;
    struct hf_prng prng;
    struct sim *sim; /* NULL: embedded over sockets in dir */
    char dir[64];
    hf_time now;
    uint8_t side[NODES];
    struct peer peer[NODES];
    struct ring ring[RINGS_MAX];
    size_t n_rings;
    uint32_t n_sent;
};

#define CHECK(w, cond)                                                                             \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "seed %llu (%s): not true: %s (line %d)\n",                            \
                    (unsigned long long)(w)->seed, (w)->sim ? "simulator" : "embedded", #cond,     \
                    __LINE__);                                                                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct ring *ring_of(struct world *w, uint64_t number)
{
    for (size_t i = w->n_rings; i > 0; i--) {
        if (w->ring[i - 1].number == number) {
            return &w->ring[i - 1];
        }
    }
    return NULL;
}

static void on_message(void *arg, const char *group, uint32_t from, struct hf_slice msg)
{
    struct peer *p = arg;
    struct world *w = p->w;
    struct ring *r = ring_of(w, p->ring);
    uint32_t id;
    (void)group;
    CHECK(w, r && p->joined && msg.n == sizeof(id));
    CHECK(w, from >= 1 && from <= NODES && r->members >> (from - 1) & 1);
    memcpy(&id, msg.p, sizeof(id));
    CHECK(w, id > p->heard[from - 1]);
    p->heard[from - 1] = id;
    if (p->pos == r->n) {
        r->msg = realloc(r->msg, (r->n + 1) * sizeof(*r->msg));
        CHECK(w, r->msg);
        r->msg[r->n++] = id;
    }
    CHECK(w, r->msg[p->pos] == id);
    p->pos++;
}

/* p goes to view r: whoever came the same way has delivered as much. */
static void arrive(struct peer *p, struct ring *r)
{
    for (unsigned i = 0; i < r->n_from; i++) {
        CHECK(p->w, r->from[i] != p->ring || r->had[i] == p->pos);
    }
    if (p->ring) {
        r->from[r->n_from] = p->ring;
        r->had[r->n_from++] = p->pos;
    }
}

static void on_view(void *arg, const char *group, const struct hf_engine_view *v)
{
    struct peer *p = arg;
    struct world *w = p->w;
    uint32_t members = 0;
    (void)group;
    for (size_t i = 0; i < v->n_members; i++) {
        members |= 1u << (v->member[i].node_id - 1);
    }
    CHECK(w, v->ring > p->last_ring);
    p->last_ring = v->ring;
    if (!(members >> p->i & 1)) { /* our own leave */
        p->ring = p->pos = 0;
        return;
    }
    struct ring *r = ring_of(w, v->ring);
    if (!r) {
        CHECK(w, w->n_rings < RINGS_MAX);
        r = &w->ring[w->n_rings++];
        *r = (struct ring){.number = v->ring, .members = members};
    }
    CHECK(w, r->members == members);
    arrive(p, r);
    p->ring = v->ring;
    p->pos = 0;
}

static void on_quorum(void *arg, bool quorate, uint64_t ring)
{
    struct peer *p = arg;
    CHECK(p->w, ring > 0);
    p->quorate = quorate;
}

static void on_lost(void *arg, int rc)
{
    struct peer *p = arg;
    CHECK(p->w, rc < 0);
    p->lost = true;
    p->quorate = p->joined = p->stayed = false;
    p->ring = p->last_ring = p->pos = 0;
}

static const struct hf_engine_callbacks callbacks = {
    .message = on_message, .view = on_view, .quorum = on_quorum, .lost = on_lost};

static void start(struct world *w, unsigned i)
{
    struct peer *p = &w->peer[i];
    uint32_t accepted = p->accepted;
    *p = (struct peer){.w = w, .i = i, .stayed = true, .accepted = accepted};
    if (w->sim) {
        p->e = sim_start(w->sim, i, &callbacks, p);
    } else {
        char host[8];
        snprintf(host, sizeof(host), "n%u", i + 1);
        struct hf_engine_embedded_opt opt = {.node_id = i + 1,
                                             .host = host,
                                             .run_dir = w->dir,
                                             .expected_votes = NODES,
                                             .silence = SILENCE,
                                             .callbacks = callbacks,
                                             .arg = p};
        int rc = hf_engine_embedded_create(&opt, NULL, &p->e);
        CHECK(w, rc == 0);
    }
    p->accepted = 0;
}

static void crash(struct world *w, unsigned i)
{
    if (w->sim) {
        sim_crash(w->sim, i, hf_prng_below(&w->prng, 2) == 0);
    } else {
        w->peer[i].e->ops->destroy(w->peer[i].e);
    }
    w->peer[i].e = NULL;
    w->peer[i].paused = w->peer[i].held = w->peer[i].joined = false;
}

static void set_paused(struct world *w, unsigned i, bool paused)
{
    if (w->sim && paused) {
        sim_pause(w->sim, i);
    } else if (w->sim) {
        sim_resume(w->sim, i);
    }
    w->peer[i].paused = paused;
    w->peer[i].stayed = false;
}

/* Let time pass in small steps; the embedded engines are dispatched in random order. */
static void run(struct world *w, hf_time span)
{
    hf_time end = w->now + span;
    while (w->now < end) {
        w->now += HF_MS(1);
        if (w->sim) {
            sim_run(w->sim, w->now);
            continue;
        }
        for (unsigned k = 0; k < NODES; k++) {
            struct peer *p = &w->peer[hf_prng_below(&w->prng, NODES)];
            hf_time next;
            if (p->e && !p->paused) {
                int rc = p->e->ops->dispatch(p->e, w->now, &next);
                CHECK(w, rc == 0);
            }
        }
    }
}

static void talk(struct world *w, struct peer *p)
{
    uint32_t id = w->n_sent + 1;
    int rc = p->e->ops->multicast(p->e, "g", hf_slice(&id, sizeof(id)));
    bool lost = w->sim && sim_lost(w->sim, p->i); /* and not told yet */
    CHECK(w, rc == 0 || (rc == -HF_EFULL && !p->lost) || (rc == -HF_ELEFT && (!p->joined || lost)));
    if (rc == 0) {
        p->accepted = ++w->n_sent;
    }
}

static void cut(struct world *w, bool heal)
{
    for (unsigned i = 0; i < NODES; i++) {
        w->side[i] = heal ? 0 : (uint8_t)hf_prng_below(&w->prng, 2);
    }
    sim_partition(w->sim, w->side);
}

/* What only the simulator's engine can do. */
static void strange(struct world *w, struct peer *p)
{
    switch (hf_prng_below(&w->prng, 6)) {
    case 0:
        sim_one_way(w->sim, p->i, hf_prng_below(&w->prng, 2) ? SIM_MUTE : SIM_DEAF);
        break;
    case 1:
        if (p->joined) {
            sim_lose(w->sim, p->i);
            p->stayed = false;
        }
        break;
    case 2:
        p->held = p->e != NULL;
        sim_hold(w->sim, p->i, p->held);
        break;
    default:
        sim_one_way(w->sim, p->i, SIM_BOTH_WAYS);
        sim_regain(w->sim, p->i);
        sim_hold(w->sim, p->i, p->held = false);
        break;
    }
}

static void act(struct world *w)
{
    unsigned i = (unsigned)hf_prng_below(&w->prng, NODES), what;
    if (w->sim && w->seed % 2 && hf_prng_below(&w->prng, 25) == 0) {
        strange(w, &w->peer[i]);
        return;
    }
    struct peer *p = &w->peer[i];
    what = (unsigned)hf_prng_below(&w->prng, 100);
    if (w->sim && what < 3) {
        cut(w, hf_prng_below(&w->prng, 2) == 0);
    } else if (!p->e) {
        if (what < 40) {
            start(w, i);
        }
    } else if (p->paused || p->held) {
        if (what < 20 && p->paused) {
            set_paused(w, i, false);
        }
    } else if (what < 5) {
        set_paused(w, i, true);
    } else if (what < 8) {
        crash(w, i);
    } else if (!p->joined) {
        p->lost = false;
        p->joined = p->e->ops->join(p->e, "g") == 0;
        CHECK(w, p->joined);
    } else if (what < 10) {
        if (p->e->ops->leave(p->e, "g") == 0) {
            run(w, HF_S(1)); /* so that nothing of ours is on its way */
            p->joined = p->stayed = false;
        }
    } else {
        talk(w, p);
    }
}

/* In a quiet moment quorum is on one side, and not with less than a majority. */
static void check_quorum(struct world *w)
{
    int side = -1;
    for (unsigned i = 0; i < NODES; i++) {
        const struct peer *p = &w->peer[i];
        if (p->e && !p->paused && !p->held && p->quorate) {
            CHECK(w, side < 0 || side == w->side[i]);
            side = w->side[i];
        }
    }
    unsigned n = 0;
    for (unsigned i = 0; i < NODES; i++) {
        n += w->peer[i].e && !w->peer[i].paused && w->side[i] == side;
    }
    CHECK(w, side < 0 || n >= NODES / 2 + 1);
}

static void finish(struct world *w)
{
    if (w->sim) {
        cut(w, true);
    }
    for (unsigned i = 0; i < NODES; i++) {
        if (w->sim) {
            sim_one_way(w->sim, i, SIM_BOTH_WAYS);
            sim_regain(w->sim, i);
            sim_hold(w->sim, i, w->peer[i].held = false);
        }
        if (w->peer[i].e && w->peer[i].paused) {
            set_paused(w, i, false);
        } else if (!w->peer[i].e) {
            start(w, i);
        }
    }
    run(w, HF_S(2));
    for (unsigned i = 0; i < NODES; i++) {
        struct peer *p = &w->peer[i];
        if (!p->joined) {
            CHECK(w, p->e->ops->join(p->e, "g") == 0);
            p->joined = true;
        }
    }
    run(w, HF_S(2));
    for (unsigned i = 0; i < NODES; i++) {
        const struct peer *p = &w->peer[i];
        CHECK(w, p->quorate && p->ring == w->peer[0].ring && p->pos == w->peer[0].pos);
        CHECK(w, !p->stayed || p->heard[i] >= p->accepted);
    }
    CHECK(w, ring_of(w, w->peer[0].ring)->members == (1u << NODES) - 1);
}

static void clean(struct world *w)
{
    for (unsigned i = 0; i < NODES; i++) {
        if (w->peer[i].e) {
            crash(w, i);
        }
    }
    sim_destroy(w->sim);
    for (size_t i = 0; i < w->n_rings; i++) {
        free(w->ring[i].msg);
    }
    DIR *d = w->dir[0] ? opendir(w->dir) : NULL;
    for (const struct dirent *de; d && (de = readdir(d)) != NULL;) {
        (void)unlinkat(dirfd(d), de->d_name, 0);
    }
    if (d) {
        closedir(d);
        rmdir(w->dir);
    }
}

static void run_seed(uint64_t seed, bool sockets)
{
    struct world *w = calloc(1, sizeof(*w));
    assert(w);
    w->seed = seed;
    w->now = HF_S(1);
    hf_prng_init(&w->prng, seed);
    if (sockets) {
        snprintf(w->dir, sizeof(w->dir), "/tmp/hf-sim-XXXXXX");
        const char *made = mkdtemp(w->dir);
        CHECK(w, made);
    } else {
        w->sim = sim_create(&(struct sim_opt){.seed = seed, .n = NODES});
        CHECK(w, w->sim);
        sim_run(w->sim, w->now);
    }
    for (unsigned n = 0; n < 200; n++) {
        act(w);
        if (hf_prng_below(&w->prng, 20) == 0) {
            run(w, HF_MS(600));
            check_quorum(w);
        } else {
            run(w, HF_MS(hf_prng_below(&w->prng, 4)));
        }
    }
    finish(w);
    clean(w);
    free(w);
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 500;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t *to = strcmp(argv[i], "--seed") == 0   ? &seed
                       : strcmp(argv[i], "--runs") == 0 ? &runs
                                                        : NULL;
        if (!to) {
            fprintf(stderr, "usage: sim-engine [--seed N] [--runs N]\n");
            return 2;
        }
        *to = strtoull(argv[i + 1], NULL, 0);
    }
    for (uint64_t n = 0; n < runs; n++) {
        run_seed(seed + n, false);
        if (n % 20 == 0) { /* real sockets cost more */
            run_seed(seed + n, true);
        }
    }
    printf("%llu schedules from seed %llu: all invariants held\n", (unsigned long long)runs,
           (unsigned long long)seed);
    return 0;
}
