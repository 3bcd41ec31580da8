/* What the files of the groups' driver share. Not for others. */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "hostd/group.h"
#include "hostd/group_def.h"
#include "hostd/group_store.h"
#include "os/fence.h"
#include "os/ocf.h"
#include "os/proc.h"
#include "os/watchdog.h"

#define HF_GROUP_LISTENERS_MAX 8

/* ---- agents and their meta-data, for all groups ---- */

struct hf_group_agent {
    struct hf_list node;
    struct hf_groups *gs;
    char name[HF_GROUP_AGENT_MAX + 1];
    struct hf_ocf_agent at;
    struct hf_ocf_run *run;   /* owned; its meta-data is being read */
    struct hf_ocf_meta *meta; /* owned; NULL: not there, and then rc tells */
    int rc;
    struct hf_err err;
    hf_time tried_at;
};

/** The agent of that name; starts reading its meta-data. NULL: no memory. While ->run it is not
 * known yet; the loop's turn after that settles all groups. */
struct hf_group_agent *hf_group_agent_get(struct hf_groups *gs, const char *name);
void hf_group_agents_fini(struct hf_groups *gs);

/* ---- one resource here ---- */

enum hf_group_run_what {
    HF_RUN_NONE,
    HF_RUN_ACT, /* what the core asked for; the others recur */
    HF_RUN_MONITOR,
    HF_RUN_MIRROR_STATE,
    HF_RUN_ACCESS,
};

/* One action at a time. What the core asks for ends a recurring one that is under way. */
struct hf_group_run {
    struct hf_hgroup *g;
    uint8_t i;
    char name[HF_GROUP_RESOURCE_NAME_MAX + 1]; /* of the resource; another one: all starts anew */
    enum hf_group_run_what what;
    struct hf_ocf_run *proc;       /* owned; NULL with what != NONE: ended, see rc and text */
    struct hf_group_agent_act act; /* ACT */
    /* A process that has prepared an action and waits for the word: owned; NULL: none. While it
     * does what was asked for it is `proc`, too. */
    struct hf_ocf_run *armed;
    struct hf_proc_watch *watch; /* owned; the process that the agent told us of */
    long watched;                /* its pid */
    uint8_t
        armed_for; /* enum hf_op: what it does next; NONE: it still prepares, or is at its end */
    int rc;
    char text[HF_GROUP_TEXT_MAX + 1];
    char access_text[HF_GROUP_TEXT_MAX + 1]; /* why it was not reached, as logged */
    bool asked; /* `next` waits for its turn, or for the agent's meta-data */
    struct hf_group_agent_act next;
    uint8_t role; /* for which the times are */
    hf_time monitor_at, access_at;
    hf_time state_since; /* of the last look at mirrors; HF_NEVER: none are to be looked at */
    bool leads;          /* a resource without agent: started */
    /* its configuration, as far as it is here */
    struct hf_group_def *def; /* owned */
    uint64_t def_hash, looked_hash;
    bool told;               /* the core knows that it is here */
    struct hf_http_get *get; /* owned; being fetched */
    bool get_ended;
    int get_rc;
};

/* ---- a group of this host ---- */

struct hf_group_unsent {
    struct hf_list node;
    size_t n;
    uint8_t bytes[];
};

struct hf_hgroup {
    struct hf_groups *gs;
    char name[HF_GROUP_NAME_MAX + 1];
    struct hf_group *core; /* owned; NULL: the record is not readable */
    struct hf_group_info info;
    struct hf_group_store store;
    struct hf_group_run run[HF_GROUP_RESOURCES_MAX];
    struct hf_list unsent; /* struct hf_group_unsent, oldest first */
    bool joined;           /* the engine knows */
    hf_time join_at;       /* if not: when to try (again) */
    int join_rc;           /* of the last try */
    bool rejoin, left, stopped, dirty;
    struct hf_buf record; /* to be written, as `record_version` */
    bool record_due;
    uint64_t record_version;
    int record_rc;         /* of the last write */
    hf_time quorumless_at; /* since when without quorum with something that needs fencing; 0 */
};

struct hf_groups {
    struct hf_hostd *h;
    struct hf_engine *engine; /* owned; NULL: not needed yet */
    struct hf_io *io;
    struct hf_timer *timer;
    hf_time engine_at; /* its next dispatch */
    hf_time seen_at;   /* when the loop last came here */
    unsigned depth;    /* callbacks of ours on the stack */
    bool again;        /* what was told of an outcome wants more */
    bool quorum_known, quorate;
    uint64_t ring; /* of the quorum */
    uint64_t incarnation;
    uint32_t last_request;
    char address[HF_GROUP_ADDRESS_MAX + 1]; /* ours; "": not configured */
    struct hf_hgroup *group[HF_GROUPS_MAX];
    size_t n_groups;
    struct hf_list agents, commands, fences;
    struct {
        hf_group_changed *fn;
        void *arg;
    } listener[HF_GROUP_LISTENERS_MAX];
    struct hf_watchdog *watchdog; /* owned; armed */
    hf_time pet_at;
    bool watchdog_failed; /* said so already */
    bool stopping;
    hf_time stop_at; /* the latest end */
    void (*stop_fn)(void *arg);
    void *stop_arg;
    struct hf_group_out out; /* of the last step */
};

/* Each callback of the loop begins and ends so: pauses are noticed before anything else, and what
 * was left to do is done afterwards. They nest. */
void hf_groups_enter(struct hf_groups *gs);
void hf_groups_leave(struct hf_groups *gs);

/** One step of the core. */
void hf_hgroup_in(struct hf_hgroup *g, const struct hf_group_in *in);
/** Tell people: log, history, listeners. */
struct hf_hgroup *hf_groups_get(const struct hf_groups *gs, const char *name);

/** A new group of this host, not in the engine yet. record: NULL: none. */
HF_MUST int hf_hgroup_create(struct hf_groups *gs, const char *name, struct hf_err *err,
                             struct hf_hgroup **ret_g);
/** Join the engine's group now; opens the engine if need be. */
HF_MUST int hf_hgroup_join(struct hf_hgroup *g, struct hf_err *err);
/** Can groups run here at all? */
HF_MUST int hf_groups_allowed(const struct hf_groups *gs, struct hf_err *err);

/* ---- group_run.c ---- */

void hf_hgroup_runs_init(struct hf_hgroup *g);
void hf_hgroup_runs_fini(struct hf_hgroup *g);
/** The core wants it. */
void hf_hgroup_act(struct hf_hgroup *g, const struct hf_group_agent_act *act);
/** Start what is due; true: the core got something. */
bool hf_hgroup_runs_tick(struct hf_hgroup *g, hf_time now);
hf_time hf_hgroup_runs_deadline(const struct hf_hgroup *g, hf_time now);

/* ---- group_config.c ---- */

/** What the resource is made of, if this host has it as the group means it; NULL. */
const struct hf_group_def_resource *hf_group_run_def(struct hf_group_run *r);
/** Tell the core of configurations that are here; true: it got something. */
bool hf_hgroup_configs_tell(struct hf_hgroup *g);
/** Get one from another member. */
void hf_hgroup_config_get(struct hf_hgroup *g, uint8_t i, const char *host, const char *address);
void hf_group_run_forget_config(struct hf_group_run *r);

/* ---- group_fence.c ---- */

void hf_groups_fence(struct hf_hgroup *g, const char *host);
/** Tell the cores of what failed at once; true: one got something. */
bool hf_groups_fences_tell(struct hf_groups *gs);
/** The group is not interested any more. */
void hf_groups_fences_forget(struct hf_hgroup *g);
void hf_groups_fences_fini(struct hf_groups *gs);
/** Arm, pet or disarm the watchdog; when to come again. */
hf_time hf_groups_watchdog(struct hf_groups *gs, hf_time now);
void hf_groups_watchdog_close(struct hf_groups *gs);

/* ---- group_command.c ---- */

/** Begin what had to wait for agents' meta-data. */
void hf_groups_commands_tick(struct hf_groups *gs);
/** The outcome of a request. */
void hf_groups_commands_result(struct hf_groups *gs, struct hf_hgroup *g, uint32_t request, int rc,
                               const char *text);
/** Call who waits. */
void hf_groups_commands_tell(struct hf_groups *gs);
/** The group is gone. */
void hf_groups_commands_gone(struct hf_groups *gs, const char *name);
void hf_groups_commands_fini(struct hf_groups *gs);
