/* Documented moments of take-overs as short readable stories, compared with their golden traces. */
#include <inttypes.h>
#include <string.h>

#include "sim/takeover/chaos.h"
#include "sim/takeover/world.h"

#define SEED 7
#define PATIENCE HF_S(60)

enum { A, B, C };

static struct tw_world world;

struct story {
    struct tw_world *w;
    FILE *out;
};

/* ---- what is given, and what happens ---- */

static void tell(struct tw_world *w, bool on, FILE *out)
{
    w->g.story = on ? out : NULL;
    w->p.trace = on ? out : NULL;
}

/* The first n hosts are members of the group, A is the primary, two clients have had an answer. */
static void given(struct story *s, uint32_t n, bool fenced)
{
    struct tw_world *w = s->w;
    tw_init(w, SEED, 2, fenced, fenced ? 0 : HF_MS(200), true);
    fprintf(s->out, "%s\n\n", fenced ? "fenced" : "fence = none, a lease of 200 ms");
    tell(w, false, s->out);
    w->p.story = true;
    for (uint32_t i = 0; i < PW_CLIENTS; i++) {
        w->p.client[i].asks_max = i < 2;
    }
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        tw_power_on(w, i);
    }
    tw_settle(w, HF_MS(500));
    (void)gs_create(&w->g, A);
    for (uint32_t i = 0; i < n; i++) {
        tw_settle(w, HF_S(3));
        gs_join(&w->g, i, -1);
    }
    tw_settle(w, HF_S(5));
    const struct gs_host *h = &w->g.host[A];
    w->g.told = *hf_group_state(h->g);
    w->g.told_version = w->g.told.version;
    w->g.began = w->g.net.now;
    tell(w, true, s->out);
}

static void passes(struct story *s, int ms)
{
    tw_settle(s->w, HF_MS(ms));
}

static void asks(struct story *s, uint32_t client)
{
    pw_tell(&s->w->p, "client %u asks", client);
    s->w->p.client[client].asks_max++;
}

static void waits(struct story *s, uint32_t client)
{
    const struct pw_client *c = &s->w->p.client[client];
    pw_tell(&s->w->p, "client %u %s", client,
            c->got == c->asks_max * 8 ? "has its answer" : "waits");
}

/* The rest is told only from a distance. */
static void comes_to_rest(struct story *s)
{
    struct tw_world *w = s->w;
    hf_time began = w->g.net.now, end = began + PATIENCE;
    while (!tw_protected(w, false) && w->g.net.now < end) {
        tw_settle(w, HF_MS(50));
    }
    pw_tell(&w->p,
            tw_protected(w, false) ? "all are protected again" : "FAILED: nobody is protected");
}

static void cluster_cut(struct story *s, uint32_t i, bool cut)
{
    struct gs_world *g = &s->w->g;
    GS_TELL(g, "-- %s is %s the cluster", g->host[i].name, cut ? "cut from" : "back in");
    g->side[i] = cut;
    gs_sides(g);
}

/* ---- the stories ---- */

static void joins(struct story *s)
{
    given(s, 1, false);
    asks(s, 0);
    passes(s, 20);
    gs_join(&s->w->g, B, -1);
    passes(s, 3000);
    asks(s, 1);
    passes(s, 20);
}

static void power_off(struct story *s)
{
    given(s, 3, false);
    gs_power_off(&s->w->g, A);
    asks(s, 0);
    passes(s, 200);
    waits(s, 0);
    passes(s, 2500);
    waits(s, 0);
    comes_to_rest(s);
}

static void power_off_fenced(struct story *s)
{
    given(s, 3, true);
    gs_power_off(&s->w->g, A);
    asks(s, 0);
    comes_to_rest(s);
    waits(s, 0);
    tw_power_on(s->w, A);
    passes(s, 5000);
    asks(s, 0);
    passes(s, 50);
}

static void process_dies(struct story *s)
{
    given(s, 3, false);
    tw_kill(s->w, A, HF_MS(300));
    asks(s, 0);
    comes_to_rest(s);
    waits(s, 0);
}

static void backup_dies(struct story *s)
{
    given(s, 3, false);
    tw_kill(s->w, B, HF_S(2));
    asks(s, 0);
    passes(s, 10);
    waits(s, 0);
    comes_to_rest(s);
    waits(s, 0);
}

static void two_failures(struct story *s)
{
    given(s, 3, false);
    gs_power_off(&s->w->g, B);
    passes(s, 20);
    asks(s, 0);
    tw_kill(s->w, A, HF_MS(300));
    asks(s, 1);
    comes_to_rest(s);
    passes(s, 50);
    waits(s, 1);
}

static void pair_cut(struct story *s)
{
    given(s, 3, false);
    tw_cut(s->w, A, B, true);
    asks(s, 0);
    passes(s, 10);
    waits(s, 0);
    passes(s, 300);
    waits(s, 0);
    tw_cut(s->w, A, B, false);
    comes_to_rest(s);
}

static void primary_cut(struct story *s)
{
    given(s, 3, false);
    pw_tell(&s->w->p, "-- A reaches its clients, nobody else");
    tw_cut(s->w, A, B, true);
    tw_cut(s->w, A, C, true);
    cluster_cut(s, A, true);
    gs_pause(&s->w->g, A, GS_HOLD); /* and its daemon does not notice */
    asks(s, 0);
    passes(s, 200);
    waits(s, 0);
    passes(s, 2000);
    waits(s, 0);
    tw_cut(s->w, A, B, false);
    tw_cut(s->w, A, C, false);
    gs_resume(&s->w->g, A);
    cluster_cut(s, A, false);
    comes_to_rest(s);
}

static void frozen(struct story *s)
{
    given(s, 3, false);
    tw_freeze(s->w, A, true);
    asks(s, 0);
    passes(s, 5000);
    waits(s, 0);
    asks(s, 0);
    tw_freeze(s->w, A, false);
    passes(s, 50);
    waits(s, 0);
    comes_to_rest(s);
}

static void frozen_taking(struct story *s)
{
    given(s, 3, false);
    gs_power_off(&s->w->g, A);
    while (!s->w->p.host[B].primary) {
        passes(s, 1);
    }
    tw_freeze(s->w, B, true);
    tw_power_on(s->w, A);
    asks(s, 0);
    passes(s, 3000);
    waits(s, 0);
    tw_freeze(s->w, B, false);
    passes(s, 50);
    comes_to_rest(s);
}

static void same_again(struct story *s)
{
    given(s, 3, false);
    gs_power_off(&s->w->g, A);
    gs_power_off(&s->w->g, B);
    passes(s, 20);
    tw_power_on(s->w, A);
    tw_power_on(s->w, B);
    asks(s, 0);
    comes_to_rest(s);
    waits(s, 0);
}

static void switchover(struct story *s)
{
    given(s, 3, false);
    asks(s, 0);
    gs_request(&s->w->g, C, HF_GREQUEST_SWITCH, NULL, "copy2");
    passes(s, 2000);
    waits(s, 0);
    asks(s, 1);
    passes(s, 20);
    waits(s, 1);
}

static void switchover_broken_off(struct story *s)
{
    given(s, 3, false);
    asks(s, 0);
    gs_request(&s->w->g, C, HF_GREQUEST_SWITCH, NULL, "copy2");
    while (s->w->p.host[A].primary) {
        passes(s, 1);
    }
    gs_power_off(&s->w->g, B);
    asks(s, 1);
    passes(s, 2000);
    waits(s, 0);
    waits(s, 1);
    tw_power_on(s->w, B);
    comes_to_rest(s);
}

static const struct {
    const char *name, *title;
    void (*tell)(struct story *s);
} stories[] = {
    {"joins", "A second host joins: it becomes the backup while there is traffic.", joins},
    {"power-off", "The primary's host loses power: the backup goes on with its clients.",
     power_off},
    {"power-off-fenced", "The same with fencing; then the old primary comes back (C11).",
     power_off_fenced},
    {"process-dies", "The primary's process dies, its host does not.", process_dies},
    {"backup-dies", "The backup's process dies: clients wait until S is without it (I4).",
     backup_dies},
    {"two-failures", "The backup dies, then the primary: nobody has the sessions any more (I5).",
     two_failures},
    {"pair-cut", "The managers are cut from each other, not from the cluster.", pair_cut},
    {"primary-cut", "The primary is cut off, and its daemon stands still: the lease (G2).",
     primary_cut},
    {"frozen", "The primary's host is frozen for 5 s, and goes on (I10).", frozen},
    {"frozen-taking", "The new primary is frozen before it has opened (I10, I1).", frozen_taking},
    {"same-again",
     "All but one lose power: the primary is promoted once more, and S still has its mirror (X5).",
     same_again},
    {"switchover", "A planned switch.", switchover},
    {"switchover-broken-off",
     "The new primary dies before it has opened: the former one has its sessions (X5).",
     switchover_broken_off},
};

size_t twx_n_stories(void)
{
    return HF_ARRAY_LEN(stories);
}

struct sim_story twx_story(size_t i)
{
    return (struct sim_story){stories[i].name, stories[i].title};
}

void twx_tell(size_t i, FILE *out)
{
    struct story s = {.w = &world, .out = out};
    jmp_buf fail;
    world.fail = &fail;
    if (setjmp(fail) == 0) {
        stories[i].tell(&s);
    }
    world.g.story = NULL;
    world.p.trace = NULL;
    tw_fini(&world);
}
