/* What the files of the group core share. Not for others. */
#pragma once

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "base/prng.h"
#include "base/wr.h"
#include "core/group/group.h"

#define HF_GROUP_PEERS_MAX 32 /* nodes of a view that count: members, joiners, ghosts */
#define HF_GROUP_ACTS_KEPT 40 /* of HF_GROUP_ACTS_MAX kept free of events */

#define BIT(i) ((uint16_t)(1u << (i)))
#define HAS(mask, i) (((mask) >> (i)&1) != 0)

static inline bool hf_group_is_primary_role(uint8_t role)
{
    return role == HF_ROLE_PROMOTED || role == HF_ROLE_OPEN;
}

/* A node of the view, as its own messages in this view tell: the same for all members. */
struct hf_gpeer {
    uint32_t node_id;
    bool hello, excluded, gone; /* said hello; did not answer; said bye */
    bool foreign;               /* of another group with our name */
    uint8_t member;             /* its number in the state; HF_GROUP_NONE: not a member */
    bool quorate, current;
    uint8_t resigned; /* enum hf_resigned */
    uint64_t version, epoch, hash, group_id;
    uint64_t acked;   /* version on its disk */
    uint64_t removed; /* version in which it stopped being a member; 0: it has not */
    uint16_t access, config, procdown, sync, async;
    char host[HF_HOST_NAME_MAX + 1];
    char address[HF_GROUP_ADDRESS_MAX + 1];
    uint8_t role[HF_GROUP_RESOURCES_MAX];
};

/* What we run of a resource, and what others have been told of it. */
struct hf_glocal {
    uint8_t role;        /* enum hf_role */
    uint64_t role_epoch; /* PROMOTED, OPEN: the reign for which it was promoted */
    uint8_t told;        /* role in our last HELLO or ROLE */
    bool tell;           /* an action has ended that others have not been told of */
    uint8_t unseen;      /* our ROLEs on their way: nobody has decided on them yet */
    uint8_t op;          /* action under way: enum hf_op */
    uint32_t serial;     /* of it */
    uint64_t op_epoch;
    uint16_t op_sync, op_async;
    bool alone;  /* PROMOTED: told to wait for no mirror */
    bool probed; /* its access, by this process */
    uint8_t last_op, last_rc;
    uint64_t last_epoch;
    hf_time again_at; /* a failed action is not tried again before; 0: at once */
    bool have_config;
    uint64_t config_hash;
    bool config_asked;
    hf_time config_at; /* ask for it again */
    uint8_t told_seen; /* primary host: how a mirror was seen when others were last told */
    char text[HF_GROUP_TEXT_MAX + 1];
};

/* A request of our own operator that is not decided yet. */
struct hf_gpending {
    uint32_t request; /* 0: none */
    uint8_t what, member, resource;
    bool sent, applied;
    uint64_t ring; /* in which it was sent */
    hf_time until; /* not even applied by then: refused */
    char host[HF_HOST_NAME_MAX + 1];
};

struct hf_group {
    char name[HF_GROUP_NAME_MAX + 1];
    char host[HF_HOST_NAME_MAX + 1];
    char address[HF_GROUP_ADDRESS_MAX + 1];
    uint64_t incarnation;
    hf_time answer, restart, boot, retry, stable, join_time;
    struct hf_prng prng;

    /* during a step */
    hf_time now;
    struct hf_group_out *out;

    /* the state, and how far it is on our disk */
    bool have_state;
    struct hf_gstate s;
    bool was_member;
    uint64_t persisted;  /* version */
    uint64_t persisting; /* version being written; 0: none */
    hf_time persist_at;  /* try again then; 0: now */
    bool disk_bad;

    /* the engine */
    enum hf_group_standing standing;
    bool quorate;
    uint64_t quorum_ring;
    uint64_t ring;
    hf_time since;     /* of the standing */
    hf_time adrift_at; /* out of all views from then on: cut off; a new process has time (G6) */
    uint8_t n_peers;
    struct hf_gpeer peer[HF_GROUP_PEERS_MAX];
    uint32_t self_node; /* our node id in this view */
    bool told_quorate;
    bool hello_sent;
    uint8_t hello_roles; /* as many as our hello told */
    bool current;
    uint16_t procdown; /* members whose process went while their host was there */
    hf_time procdown_at[HF_GROUP_MEMBERS_MAX];
    uint8_t n_ghosts;
    uint32_t ghost[HF_GROUP_GHOSTS_MAX];
    bool suspect; /* we may have been left behind (I10) until our own ping comes back */
    uint64_t ping_nonce;
    hf_time ping_at; /* give up then */

    /* SYNC: the newest state in pieces */
    uint32_t source; /* node id of who sends it */
    uint64_t source_version;
    uint16_t taken;
    uint8_t piece[HF_GSTATE_LEN_MAX];
    uint64_t term_next;

    /* of the view, the same for all: see establish() */
    uint16_t present;     /* members that said hello, are not excluded and did not say bye */
    bool decides;         /* this view may change the state: quorate, and a majority of members */
    bool overruled;       /* by the operator's force: no record has to be there */
    uint64_t unsettled;   /* version of a change of members that not all have on disk; 0: none */
    uint16_t prepared;    /* members that have prepared the planned switch */
    uint64_t granted;     /* version in which the state was granted in this view; 0: it is not */
    bool half;            /* exactly half of them: nothing before the others are fenced */
    uint16_t sync, async; /* mirrors in force at the primary host */
    uint64_t mirrored_epoch;
    bool mirrored_sent;                   /* our MIRRORED is on its way */
    uint8_t seen[HF_GROUP_RESOURCES_MAX]; /* by the primary host: enum hf_mirror_seen */
    uint8_t fence_tries[HF_GROUP_MEMBERS_MAX];
    hf_time fence_at[HF_GROUP_MEMBERS_MAX]; /* not before */
    char fence_why[HF_GROUP_TEXT_MAX + 1];
    char fail_why[HF_GROUP_TEXT_MAX + 1];

    /* patience, by our own clock */
    hf_time version_at; /* when the version changed */
    uint64_t timed_version;
    hf_time cold_at, failed_at, running_at, join_at; /* 0: not the case */
    uint8_t retries;                                 /* RETRYs since everything was well */
    uint64_t timeouts_sent[HF_GTIMEOUT_COUNT_];      /* version for which one was sent, by kind */
    uint64_t procdown_sent[HF_GROUP_MEMBERS_MAX];

    /* what we do */
    struct hf_glocal local[HF_GROUP_RESOURCES_MAX];
    uint32_t serial;
    uint16_t access; /* copies that we reach */
    uint16_t told_access, told_config;
    uint8_t told_resigned;
    uint8_t resigned; /* enum hf_resigned: nothing is to run here */
    bool stopping, stopped, bye_sent;
    bool left_told;
    bool prepare_done;             /* told, or being told, in this view */
    uint16_t fencing;              /* fencing under way here */
    uint16_t fence_done, fence_ok; /* outcome not told yet */
    uint16_t fence_told;           /* told, and on its way */
    char fence_text[HF_GROUP_TEXT_MAX + 1];
    uint32_t create_request;
    hf_time create_at; /* of the request */

    /* joining */
    uint32_t join_request; /* of our operator; 0: we do not want to join */
    uint32_t join_number;  /* of this try */
    bool join_brings;
    struct hf_gresource join_brought;
    uint8_t join_step; /* 0 not asked, 1 asked, 2 probing, 3 probed, 4 getting configuration, 5
                          ready */
    uint16_t join_probed, join_access;
    hf_time join_again;
    uint64_t join_ring; /* in which we said the last */

    struct hf_gpending pending;
    char why[512];
    char resource_why[512];
    struct hf_group_counters count;
};

/* group.c */
struct hf_group_act *hf_group_out_act(struct hf_group *g, enum hf_group_act_kind kind);
void hf_group_event(struct hf_group *g, bool warn, const char *fmt, ...) HF_PRINTF(3, 4);
void hf_group_result(struct hf_group *g, uint32_t request, int rc, const char *fmt, ...)
    HF_PRINTF(4, 5);
/** Fill ring and group id in, encode, and ask for it to be sent. */
void hf_group_send(struct hf_group *g, struct hf_gmsg *m);
void hf_group_text(char dst[HF_GROUP_TEXT_MAX + 1], struct hf_slice src);
void hf_group_enter(struct hf_group *g, enum hf_group_standing s);
uint8_t hf_group_member_of(const struct hf_gstate *s, const char *host);
uint8_t hf_group_resource_of(const struct hf_gstate *s, const char *name);
const struct hf_gpeer *hf_group_peer(const struct hf_group *g, uint8_t member);
/** The node of the view with this id, or NULL. */
struct hf_gpeer *hf_group_node(struct hf_group *g, uint32_t node_id);
/** The state has changed: a new version. */
void hf_group_changed(struct hf_group *g);
/** May what can't be undone begin here now? (G3, I10) */
bool hf_group_may_act(const struct hf_group *g);
/** The same for a promotion, of which all that others must know may be on their disks already. */
bool hf_group_may_promote(const struct hf_group *g);

/** Has everybody else who may have been primary let go, or been fenced? Then it has no effect any
 * more, and there is no lease to wait for (G2). */
bool hf_group_silent(const struct hf_group *g);

/** Ask oneself, through the group, whether one is still of it (I10). */
void hf_group_ping(struct hf_group *g);

/* round.c: views */
void hf_group_view(struct hf_group *g, const struct hf_engine_view *v);
void hf_group_say_hello(struct hf_group *g);
void hf_group_on_hello(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m);
void hf_group_on_state(struct hf_group *g, const struct hf_gpeer *p, const struct hf_gmsg *m);
void hf_group_exclude(struct hf_group *g, uint32_t node_id);
/** Who counts has changed within a view: do we still decide, or again? */
void hf_group_rejudge(struct hf_group *g);
/** Is the last change of members on all disks? */
void hf_group_settle(struct hf_group *g);
void hf_group_recount(struct hf_group *g);

/* plan.c: what the group decides, from the common state only */
void hf_group_plan(struct hf_group *g);
uint16_t hf_group_fence_targets(const struct hf_group *g);
uint16_t hf_group_absent(const struct hf_group *g);
/** Another host of a resource: the old one may still be starting it. */
void hf_group_set_host(struct hf_group *g, uint8_t resource, uint8_t m);
/** The primary host is another one from now on, or none. */
void hf_group_doubt_primary(struct hf_group *g);
/** What is in force at the primary host is not what is wanted any more: it puts it in force anew.
 */
void hf_group_unmirrored(struct hf_group *g);
/** The primary host is to tell again how it sees this mirror. */
void hf_group_forget_seen(struct hf_group *g, uint8_t resource);
bool hf_group_able_at(const struct hf_group *g, uint8_t member, uint8_t resource);
uint16_t hf_group_copies(const struct hf_gstate *s);
uint16_t hf_group_mirrored_copies(const struct hf_gstate *s);
/** Is this a copy that may be promoted without force (I2)? */
bool hf_group_promotable(const struct hf_gstate *s, uint8_t resource);
void hf_group_primary_failed(struct hf_group *g, uint8_t resource, uint8_t rc, bool restart);
void hf_group_promoted(struct hf_group *g);
/** A planned switch begins: both hosts prepare it, if there is something to prepare. */
void hf_group_switch(struct hf_group *g, uint8_t resource, uint8_t member);
/** A planned switch that is being prepared is off. */
void hf_group_forget_switch(struct hf_group *g);
/** What was granted is not for who is to be promoted now. */
void hf_group_revoke(struct hf_group *g);
/** May this copy be promoted at this member now (I2)? */
bool hf_group_promotable_at(const struct hf_group *g, uint8_t member, uint8_t resource);

/* message.c: what a message does to the state */
void hf_group_on_message(struct hf_group *g, uint32_t from, struct hf_slice msg);

/* join.c */
void hf_group_on_join(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m);
void hf_group_on_joining(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m);
void hf_group_join_undo(struct hf_group *g, const char *why);
void hf_group_join_act(struct hf_group *g);
void hf_group_join_done(struct hf_group *g, uint8_t op, uint8_t resource, int rc);

/* request.c */
void hf_group_request(struct hf_group *g, const struct hf_group_in *in);
void hf_group_on_request(struct hf_group *g, struct hf_gpeer *p, const struct hf_gmsg *m);
void hf_group_request_act(struct hf_group *g);
void hf_group_remove_member(struct hf_group *g, uint8_t m);

/* act.c: what we do ourselves */
void hf_group_act(struct hf_group *g);
void hf_group_done(struct hf_group *g, const struct hf_group_in *in);
void hf_group_tell(struct hf_group *g);
void hf_group_told_all(struct hf_group *g);
uint8_t hf_group_sure_role(const struct hf_group *g, uint8_t i);
/** True if the configuration is there, or asked for; false: nobody has it. */
bool hf_group_ask_config(struct hf_group *g, uint8_t resource);
uint16_t hf_group_config_mask(const struct hf_group *g);
hf_time hf_group_act_deadline(const struct hf_group *g);
