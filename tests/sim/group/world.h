/* Simulated hosts of one group: real cores, with engine, disk, agents, fences and copies simulated.
 */
#pragma once

#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>

#include "core/group/group.h"
#include "support/sim_engine.h"
#include "support/sim_net.h"

#define GS_HOSTS_MAX 5
#define GS_RES_MAX 8
#define GS_COPIES_MAX 5
#define GS_LINES_MAX 1024 /* timelines of one run */
#define GS_JOBS_MAX 48    /* of a host: agents, fences, configurations */
#define GS_SENDS_MAX 128
#define GS_VERSIONS 128
#define GS_DEFER_MAX 256
#define GS_GROUP "g"
#define GS_TICK HF_MS(50) /* of the copies' data */

/* ---- copies: what is really on them ---- */

/* A history. A copy is (line, pos): it has its line up to pos, and before `fork` its parent's. */
struct gs_line {
    uint16_t parent;
    uint32_t fork;
    uint32_t acked; /* up to here writes were acknowledged to clients */
};

struct gs_copy {
    bool empty;   /* never initialised, or its disk is new */
    bool invalid; /* being overwritten, or that was broken off */
    uint16_t line;
    uint32_t pos;
    int8_t follows;     /* copy that it is configured to follow; -1: none */
    hf_time copy_until; /* being overwritten until then */
    int8_t copy_from;
};

/* ---- hosts ---- */

/* What really runs. */
enum gs_truth { GS_STOPPED, GS_UNPROMOTED, GS_PROMOTED, GS_OPEN };

struct gs_res {
    enum gs_truth truth;
    bool broken; /* runs, or not, but its monitor fails */
    /* in force at a primary */
    uint16_t sync, async;
    uint32_t confirmed[GS_RES_MAX]; /* by mirror: position on our line that it has told */
    uint8_t told_seen[GS_RES_MAX];
    uint8_t sick_rc; /* its agent fails so ... */
    hf_time sick_until;
};

enum gs_job_kind { GS_AGENT, GS_FENCE, GS_CONFIG };

struct gs_job {
    bool used, effect_done, hang;
    enum gs_job_kind kind;
    uint32_t id;
    uint8_t resource; /* definition's number */
    uint8_t index;    /* the state's number of it when it was asked for */
    uint8_t host;     /* FENCE, CONFIG */
    struct hf_group_agent_act act;
    uint16_t sync, async, grow; /* definitions */
    int8_t source;
    hf_time began, deadline;
    int rc;
    bool lie, apply_anyway;
};

struct gs_event {
    uint32_t kind, data;
};

struct gs_world;
struct gs_host;
struct gs_job;

/* What resources do, in place of the copies with data of copies.c: another simulation's. */
struct gs_agent {
    /** The action takes effect: an OCF code; -1: not yet, asked again until its deadline. */
    int (*effect)(struct gs_world *w, struct gs_host *h, struct gs_job *j);
    /** What a monitor says now; -1: it does not answer. */
    int (*monitor)(struct gs_world *w, struct gs_host *h, uint32_t def);
    /** The host has lost power. */
    void (*off)(struct gs_world *w, struct gs_host *h);
};

struct gs_host {
    uint32_t i;
    char name[16], address[16];
    bool power, daemon;
    bool held;   /* its daemon is stopped, the engine goes on */
    bool paused; /* daemon and engine are stopped */
    bool frozen; /* all of it is: the agents' work and the resources, too */
    hf_time paused_at;
    bool stopping; /* IN_STOP */
    bool wanted;   /* the operator wants it in the group */
    bool left;     /* the operator wanted it out */
    uint32_t boot; /* lives of the daemon */
    struct hf_engine *engine;
    bool in_engine;
    struct hf_group *g;
    hf_time timer_at;
    bool quorate; /* as the engine told */
    uint64_t quorum_ring;
    uint64_t ring;  /* of the last view that it was told */
    uint32_t asked; /* its operator's request under way; 0: none */
    bool asked_join;
    int last_rc;
    bool leave_engine, tell_configs; /* after this step */
    uint8_t told_resources; /* of which the core knows whether their configuration is here */

    /* disk */
    bool has_record, damaged;
    uint64_t record_version;
    size_t record_n;
    uint8_t record[HF_GSTATE_LEN_MAX];
    bool writing, waiting;
    uint64_t write_version, wait_version;
    size_t write_n, wait_n;
    uint8_t write[HF_GSTATE_LEN_MAX], wait[HF_GSTATE_LEN_MAX];
    hf_time disk_bad_until;
    uint16_t config; /* definitions of which it has the configuration */

    uint16_t reach; /* copies that it really reaches */
    uint16_t told_reach;
    struct gs_res res[GS_RES_MAX];
    struct gs_job job[GS_JOBS_MAX];

    uint32_t n_sends, first_send;
    struct {
        uint16_t n;
        uint8_t bytes[HF_ENGINE_MSG_MAX];
    } send[GS_SENDS_MAX];

    uint32_t n_deferred;
    struct gs_event deferred[GS_DEFER_MAX];

    uint64_t checked; /* version whose equality was looked at last ... */
    uint64_t checked_ring;
};

enum gs_event_kind {
    GS_EV_TIMER,
    GS_EV_WRITTEN,
    GS_EV_EFFECT, /* of a job: data is its slot and id */
    GS_EV_DONE,
    GS_EV_POLL,
    GS_EV_SEND,
    GS_EV_DATA,
    GS_EV_USER, /* the schedule's begin here */
};

/* Chances are out of 1,000. */
struct gs_faults {
    uint32_t agent_fails, agent_hangs, agent_lies, fence_fails, config_fails, disk_fails, slow;
};

struct gs_world {
    struct sim_net net; /* clock and queue */
    struct sim *sim;
    uint64_t seed;
    bool steady;         /* nothing is random: what takes time takes the mean of it */
    uint32_t n, witness; /* hosts; 1: another node that only votes */
    struct gs_host host[GS_HOSTS_MAX];
    const char *name[SIM_NODES_MAX];
    struct gs_world *self[SIM_NODES_MAX]; /* arguments of the engine's callbacks */

    struct hf_gresource def[GS_RES_MAX];
    uint32_t n_defs, n_created; /* created: of the group's creation, others are brought */
    bool degraded_refuse, restart_always;
    struct hf_group_conf conf;
    struct gs_faults faults;
    bool fence_broken[GS_HOSTS_MAX];
    uint8_t side[SIM_NODES_MAX];
    uint32_t job_id, request;
    bool persist_torn;

    struct gs_line line[GS_LINES_MAX];
    uint32_t n_lines;
    struct gs_copy copy[GS_RES_MAX];
    uint16_t shared;        /* copies that several hosts reach */
    uint32_t forced;        /* forced promotions asked for so far */
    uint16_t forced_res;    /* ... of these */
    bool knowledge_lost;    /* the newest state was on no disk any more: anything goes */
    uint64_t group_created; /* how often */

    /* checks */
    struct {
        uint64_t ring, version, hash;
        uint32_t host;
    } seen[GS_VERSIONS];
    uint32_t n_seen;
    uint64_t told_version; /* of the state whose changes were told */
    uint64_t lost_ring;    /* of the view whose lost hosts were told ... */
    uint32_t lost;         /* ... these */
    struct hf_gstate told;
    char told_event[8][120];
    hf_time told_event_at[8];
    uint32_t n_told_event;

    uint64_t n_steps, n_events;
    FILE *story, *trace; /* state-level lines; all lines; NULL: none */
    hf_time began;
    jmp_buf *fail;
    char failed[16], why[400]; /* the invariant, and how */
    void (*user)(struct gs_world *w, const struct sim_event *e);
    const struct gs_agent *agent; /* NULL: copies.c */
    uint32_t agent_ms;            /* of its actions, mostly; 0: 200 */

    struct hf_group_out out;
};

/* ---- telling ---- */

/** A line of the story, also in the trace. */
#define GS_TELL(w, ...)                                                                            \
    do {                                                                                           \
        if ((w)->story || (w)->trace) {                                                            \
            gs_line(w, true, __VA_ARGS__);                                                         \
        }                                                                                          \
    } while (0)
/** Only in the trace. */
#define GS_TRACE(w, ...)                                                                           \
    do {                                                                                           \
        if ((w)->trace) {                                                                          \
            gs_line(w, false, __VA_ARGS__);                                                        \
        }                                                                                          \
    } while (0)
void gs_line(struct gs_world *w, bool story, const char *fmt, ...) HF_PRINTF(3, 4);
/** An invariant does not hold: ends the run. */
_Noreturn void gs_fail(struct gs_world *w, const char *invariant, const char *fmt, ...)
    HF_PRINTF(3, 4);

/* ---- world.c ---- */

/** n hosts, all off; definitions, reach, conf and faults are then the caller's to fill in. */
void gs_world_init(struct gs_world *w, uint32_t n, bool witness, uint64_t seed, bool steady);
void gs_world_fini(struct gs_world *w);
/** Definition number n_defs, a copy or an attached resource. */
uint32_t gs_define(struct gs_world *w, const char *name, uint8_t kind, uint8_t flags);
void gs_run(struct gs_world *w, hf_time until);
/** A step of h's core, as its driver takes it. */
void gs_step(struct gs_world *w, struct gs_host *h, const struct hf_group_in *in);
uint64_t gs_below(struct gs_world *w, uint64_t n);
bool gs_chance(struct gs_world *w, uint32_t per_mille);

void gs_power_on(struct gs_world *w, uint32_t i);
void gs_power_off(struct gs_world *w, uint32_t i);
void gs_daemon_start(struct gs_world *w, uint32_t i);
void gs_daemon_kill(struct gs_world *w, uint32_t i);
void gs_daemon_stop(struct gs_world *w, uint32_t i);
/** Its disk is new: no record, no configuration, and its own copies are empty. The host is off. */
void gs_disk_lose(struct gs_world *w, uint32_t i, bool copies);
/** Would a majority still have its records without this one? */
bool gs_may_lose(const struct gs_world *w, const struct gs_host *h);
enum gs_pause { GS_HOLD, GS_PAUSE, GS_FREEZE };
void gs_pause(struct gs_world *w, uint32_t i, enum gs_pause how);
void gs_resume(struct gs_world *w, uint32_t i);
void gs_sides(struct gs_world *w);
void gs_break_resource(struct gs_world *w, uint32_t i, uint32_t resource);

/** What a monitor would say. */
int gs_monitor(const struct gs_world *w, const struct gs_host *h, uint32_t def);
/** The agent's action takes effect now. */
void gs_effect(struct gs_world *w, struct gs_host *h, struct gs_job *j);

int gs_create(struct gs_world *w, uint32_t i);
void gs_join(struct gs_world *w, uint32_t i, int brings);
/** The operator writes the configuration of a resource anew: its last copy went with a disk. */
void gs_give_config(struct gs_world *w, uint32_t i, uint32_t def);
/** An operator's request at host i. */
void gs_request(struct gs_world *w, uint32_t i, uint8_t what, const char *host, const char *of);

bool gs_linked(const struct gs_world *w, uint32_t a, uint32_t b);
int gs_host_of(const struct gs_world *w, const char *name);
int gs_def_of(const struct gs_world *w, const char *name);
/** The definition of a resource of host i's state, or -1. */
int gs_def_at(const struct gs_world *w, const struct gs_host *h, uint8_t index);
bool gs_runs(const struct gs_host *h); /* its daemon is there and is not stopped */

/* ---- copies.c ---- */

bool gs_mirrors(const struct gs_world *w, uint32_t def);
/** Does its content matter? Mirrored ones do, and one that is the only one. */
bool gs_has_data(const struct gs_world *w, uint32_t def);
/** Is a's content the beginning of b's? */
bool gs_is_prefix(const struct gs_world *w, const struct gs_copy *a, const struct gs_copy *b);
/** Everything acknowledged is on it. */
bool gs_has_acked(const struct gs_world *w, const struct gs_copy *c);
void gs_data_tick(struct gs_world *w);
/** Promote: a new line. 0 or an OCF code. */
int gs_data_promote(struct gs_world *w, struct gs_host *h, uint32_t def, const struct gs_job *j);
int gs_data_source(struct gs_world *w, struct gs_host *h, struct gs_job *j);
int gs_data_target(struct gs_world *w, struct gs_host *h, struct gs_job *j);
uint8_t gs_data_seen(struct gs_world *w, struct gs_host *h, uint32_t def, uint32_t mirror);
/** A host that stops copying leaves a copy that is not one. */
void gs_data_interrupt(struct gs_world *w, uint32_t def);
/** The operator has let go of what this copy does not have. */
void gs_data_forgive(struct gs_world *w, const struct gs_copy *c);

/* ---- check.c ---- */

/** I1, G1: at one instant. */
void gs_check_instant(struct gs_world *w);
/** After a step of h: members of one view with one version have one state. */
void gs_check_state(struct gs_world *w, struct gs_host *h);
/** After a step of h: whom it takes for dead. */
void gs_check_lost(struct gs_world *w, const struct gs_host *h);
/** An action begins: I2. */
void gs_check_act(struct gs_world *w, struct gs_host *h, const struct gs_job *j);
/** Is all as it should be after everything was mended? NULL, or what is not. */
const char *gs_check_settled(struct gs_world *w, char *buf, size_t n);
/** Tell what is new in the state. */
void gs_tell_state(struct gs_world *w, const struct gs_host *h);
/** Tell what everybody thinks now. */
void gs_tell_all(struct gs_world *w);
