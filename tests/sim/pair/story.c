/* The documented moments of pairs as short readable stories, compared with their golden traces. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sim/pair/chaos.h"
#include "sim/pair/world.h"

#define SEED 7

static struct pw_world world;

enum { A, B, C };

/* ---- what is given, and what happens ---- */

/* Time goes on, and everything happens in time. */
static void passes(struct pw_world *w, hf_time t)
{
    pw_settle(w);
    for (hf_time end = w->now + t; w->now < end;) {
        pw_time(w, end - w->now);
        pw_settle(w);
    }
}

/* A leads, with n clients; so many hosts are up. */
static void given(struct pw_world *w, uint32_t n, uint32_t hosts, bool fences)
{
    bool patient = w->conf.solo_after != 0;
    FILE *trace = w->trace;
    w->trace = NULL;
    pw_init(w, SEED, n, fences);
    w->story = true;
    w->conf.solo_after = patient ? HF_S(1) : 0;
    for (uint32_t i = 0; i < PW_CLIENTS; i++) {
        w->client[i].asks_max = 0;
    }
    for (uint32_t i = hosts; i < PW_HOSTS; i++) {
        w->host[i].up = false;
    }
    passes(w, HF_MS(50));
    for (uint32_t i = 0; i < n; i++) {
        w->client[i].asks_max = 1;
    }
    passes(w, HF_MS(50));
    w->trace = trace;
    fputc('\n', trace);
}

/* A client sends one more request; nothing else happens yet. */
static void asks(struct pw_world *w, uint32_t client)
{
    pw_tell(w, "client %u asks", client);
    w->client[client].asks_max++;
    (void)pw_asks(w, client, 8);
}

/* The manager reads it, and has it in a batch. */
static void reads(struct pw_world *w, uint32_t host, uint32_t client)
{
    (void)pw_read(&w->host[host], client, 8);
    (void)pw_parse(&w->host[host], client);
    (void)pw_turn(&w->host[host]);
}

static void to_backup(struct pw_world *w)
{
    for (uint32_t l = 0; l < PW_LINKS; l++) {
        while (pw_link_ab(w, l, SIZE_MAX)) {
        }
    }
}

static void from_backup(struct pw_world *w)
{
    for (uint32_t l = 0; l < PW_LINKS; l++) {
        while (pw_link_ba(w, l, SIZE_MAX)) {
        }
    }
}

static void releases(struct pw_world *w, uint32_t host)
{
    (void)pw_turn(&w->host[host]);
    for (uint32_t c = 0; c < w->n_clients; c++) {
        while (pw_release(&w->host[host], c)) {
        }
    }
}

static void waits(struct pw_world *w, uint32_t client)
{
    const struct pw_client *c = &w->client[client];
    pw_tell(w, "client %u %s", client, c->got == c->asks_max * 8 ? "has its answer" : "waits");
}

static void freeze(struct pw_world *w, uint32_t host, bool to)
{
    w->host[host].frozen = to;
    pw_tell(w, "-- %c %s", pw_name(host), to ? "freezes" : "wakes up");
}

/* ---- the stories ---- */

static void joins(struct pw_world *w)
{
    given(w, 2, 1, false);
    asks(w, 0);
    pw_settle(w);
    pw_boot(&w->host[B]);
    passes(w, HF_MS(5));
    asks(w, 1);
    passes(w, HF_MS(5));
}

static void unconfirmed(struct pw_world *w)
{
    given(w, 1, 2, true);
    asks(w, 0);
    reads(w, A, 0);
    releases(w, A);
    pw_tell(w, "-- B has not got it: nothing is acknowledged, nothing committed");
    pw_crash(&w->host[A], true);
    pw_tell(w, "-- the client's TCP sends it again, to B");
    passes(w, HF_MS(20));
}

static void not_committed(struct pw_world *w)
{
    given(w, 1, 2, true);
    asks(w, 0);
    reads(w, A, 0);
    to_backup(w);
    pw_tell(w, "-- B has it; A did not hear so, and has committed nothing");
    pw_crash(&w->host[A], true);
    passes(w, HF_MS(20));
}

static void committed(struct pw_world *w)
{
    given(w, 1, 2, true);
    asks(w, 0);
    reads(w, A, 0);
    to_backup(w);
    from_backup(w);
    releases(w, A);
    (void)pw_db_commit(w);
    pw_tell(w, "-- it is committed; the answer did not get to A");
    pw_crash(&w->host[A], true);
    passes(w, HF_MS(20));
}

static void backup_dies(struct pw_world *w)
{
    given(w, 1, 2, true);
    pw_crash(&w->host[B], true);
    asks(w, 0);
    reads(w, A, 0);
    releases(w, A);
    waits(w, 0);
    passes(w, HF_MS(50));
    waits(w, 0);
    pw_boot(&w->host[C]);
    passes(w, HF_MS(100));
    asks(w, 0);
    pw_settle(w);
    waits(w, 0);
}

static void breaks(struct pw_world *w)
{
    w->conf.solo_after = HF_S(1); /* the group is not asked at once */
    given(w, 1, 2, true);
    asks(w, 0);
    reads(w, A, 0);
    for (uint32_t l = 0; l < PW_LINKS; l++) {
        pw_break(w, l, 10, 0);
    }
    passes(w, HF_MS(10));
    waits(w, 0);
    passes(w, HF_MS(100));
    waits(w, 0);
}

static void frozen(struct pw_world *w)
{
    given(w, 1, 2, false);
    asks(w, 0);
    reads(w, A, 0);
    to_backup(w);
    freeze(w, A, true);
    passes(w, HF_MS(100));
    waits(w, 0);
    asks(w, 0);
    freeze(w, A, false);
    pw_tell(w, "-- it reads B's confirm, and the client's request");
    from_backup(w);
    reads(w, A, 0);
    releases(w, A);
    pw_tell(w, "-- nothing gets out");
    passes(w, HF_MS(200));
    waits(w, 0);
}

static void cut_from_group(struct pw_world *w)
{
    given(w, 1, 2, false);
    w->host[A].cut = true;
    pw_tell(w, "-- A is cut from the group, not from B");
    asks(w, 0);
    passes(w, HF_MS(30));
    waits(w, 0);
    passes(w, HF_MS(100));
    asks(w, 0);
    passes(w, HF_MS(20));
    waits(w, 0);
    w->host[A].cut = false;
    pw_tell(w, "-- A is back");
    passes(w, HF_MS(200));
}

static void link_cut(struct pw_world *w)
{
    given(w, 1, 2, false);
    w->pair_cut = true;
    for (uint32_t l = 0; l < PW_LINKS; l++) {
        pw_break(w, l, 0, 0);
    }
    asks(w, 0);
    pw_settle(w);
    waits(w, 0);
    passes(w, HF_MS(30));
    waits(w, 0);
    w->pair_cut = false;
    pw_tell(w, "-- the cable is in again");
    passes(w, HF_MS(200));
}

static void comes_back_empty(struct pw_world *w)
{
    given(w, 2, 2, true);
    pw_crash(&w->host[B], false);
    pw_boot(&w->host[B]);
    asks(w, 0);
    passes(w, HF_MS(200));
    waits(w, 0);
}

static void switchover(struct pw_world *w)
{
    given(w, 1, 2, false);
    (void)pw_group_switches(w);
    pw_settle(w);
    asks(w, 0);
    passes(w, HF_MS(50));
    waits(w, 0);
}

static void both_die(struct pw_world *w)
{
    given(w, 1, 2, true);
    pw_crash(&w->host[B], true);
    passes(w, HF_MS(200));
    pw_tell(w, "-- unprotected, as the operator could see");
    pw_crash(&w->host[A], true);
    pw_boot(&w->host[B]);
    passes(w, HF_MS(20));
}

static const struct {
    const char *name, *title;
    void (*tell)(struct pw_world *w);
} stories[] = {
    {"joins", "A backup joins while there is traffic: nobody waits for the snapshot (h).", joins},
    {"unconfirmed", "The primary dies before the backup has the request (b).", unconfirmed},
    {"not-committed", "The primary dies before it has the confirm (c, X1).", not_committed},
    {"committed", "The primary dies before it has the database's answer (X1, X4).", committed},
    {"backup-dies", "The backup dies: clients wait until the group has decided (I4).", backup_dies},
    {"breaks", "The connection breaks: what was not confirmed is sent again.", breaks},
    {"frozen", "A frozen primary wakes up: its lease is over (I10, G2).", frozen},
    {"cut-from-group", "The primary is cut from the group, not from its backup.", cut_from_group},
    {"link-cut", "The managers are cut from each other, not from the group.", link_cut},
    {"comes-back-empty", "The backup's process is restarted: it is filled anew.", comes_back_empty},
    {"switchover", "A planned switch.", switchover},
    {"both-die", "Primary and backup die: there is nothing to take over.", both_die},
};

size_t pwx_n_stories(void)
{
    return HF_ARRAY_LEN(stories);
}

struct sim_story pwx_story(size_t i)
{
    return (struct sim_story){stories[i].name, stories[i].title};
}

void pwx_tell(size_t i, FILE *out)
{
    struct pw_world *w = &world;
    jmp_buf fail;
    w->trace = out;
    w->fail = &fail;
    w->conf = (struct hf_pair_primary_conf){0};
    if (setjmp(fail) == 0) {
        stories[i].tell(w);
    }
    pw_fini(w);
}
