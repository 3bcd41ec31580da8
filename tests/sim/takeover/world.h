/* Simulated take-overs: the real group cores and the real pair cores, and between them a model of
 * what src/pg/service.c does. */
#pragma once

#include "core/pair/lists.h"
#include "sim/group/world.h"
#include "sim/pair/world.h"

#define TW_HOSTS PW_HOSTS

/* A holdfast-pg as the agent's actions see it; the cores and sessions are in struct pw_host. */
enum tw_role { TW_STOPPED, TW_BACKUP, TW_PROMOTED, TW_TAKING, TW_PRIMARY };

struct tw_manager {
    enum tw_role role;
    struct hf_pair_lists lists;
    struct hf_pair_store *taken; /* owned; TAKING: what is to be restored */
    bool had_store;              /* there was one */
    struct hf_pair_store *own;   /* owned; of the last reign here, as it ended */
    hf_time not_before;          /* the world's clock */
    uint32_t opening, growing;   /* jobs that wait; 0: none */
    hf_time grow_until, lease_until;
    bool stopped; /* SIGSTOP */
    hf_time stopped_at, back_at;

    /* mirror-state, as the daemon asks it again and again: what was answered is on its way */
    char asked[GS_RES_MAX * 100]; /* the list that came with the question */
    bool asks;
    uint8_t told[GS_RES_MAX], answer[GS_RES_MAX];
    hf_time answer_at, again_at;
    hf_time watch_at; /* the end of the process is noticed; 0: nothing to notice */
};

struct tw_world {
    struct gs_world g;
    struct pw_world p;
    struct tw_manager m[TW_HOSTS];
    hf_time lease;                /* service.lease; 0: none, hosts are fenced */
    bool cut[TW_HOSTS][TW_HOSTS]; /* managers of these don't reach each other */
    bool story;
    uint64_t incarnation; /* of the newest reign whose host took the address */
    uint64_t seen_version;
    uint16_t seen_set;
    uint64_t n_taken, n_kept, n_lost;
    uint64_t n_needless; /* sessions given up that another host had */
    jmp_buf *fail;
    char why[400];
};

/** Three hosts, all off; n clients. fenced: a primary that is gone is fenced, else its lease is
 * waited for. steady: nothing is random. */
void tw_init(struct tw_world *w, uint64_t seed, uint32_t n_clients, bool fenced, hf_time lease,
             bool steady);
void tw_fini(struct tw_world *w);
/** Time passes; what is due in it happens, but nothing that the pair's world has to be asked for.
 */
void tw_run(struct tw_world *w, hf_time span);
/** The same, and all that can happen does. */
void tw_settle(struct tw_world *w, hf_time span);
/** Cut or mend what managers say to each other; what was connected is dead. */
void tw_cut(struct tw_world *w, uint32_t a, uint32_t b, bool cut);

void tw_power_on(struct tw_world *w, uint32_t i);
/** The manager's process dies, and comes back by itself after `away`. */
void tw_kill(struct tw_world *w, uint32_t i, hf_time away);
/** It is stopped (SIGSTOP), or goes on. */
void tw_stop(struct tw_world *w, uint32_t i, bool stopped);
/** The whole host stands still, or goes on. */
void tw_freeze(struct tw_world *w, uint32_t i, bool frozen);
/** The host whose manager clients talk to now, and is the group's primary; or -1. */
int tw_primary(const struct tw_world *w);
/** Would its clients survive the loss of any one host now? all: and is everybody there? */
bool tw_protected(const struct tw_world *w, bool all);

/* --- service.c: what service.c does --- */
extern const struct gs_agent tw_agent;
/** The process ends; silently: nobody is told (its host lost power). */
void tw_end(struct tw_world *w, uint32_t i, bool silently);
/** What is due in managers: a take-over that is over, a mirror that has grown, answers. */
void tw_managers(struct tw_world *w);
hf_time tw_managers_deadline(const struct tw_world *w);

/* --- check.c --- */
/** The host of this copy may be promoted: some majority's disks say so, or who decides now. */
bool tw_in_set(const struct tw_world *w, uint32_t host);
/** A host is about to take the address. */
void tw_check_taking(struct tw_world *w, uint32_t host);
/** After anything. */
void tw_check(struct tw_world *w);

struct tw_world *tw_of_group(struct gs_world *g);
struct tw_world *tw_of_pair(const struct pw_world *p);
