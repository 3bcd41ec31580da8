/* What service.c and its neighbours share: the state of the service address. */
#pragma once

#include "base/buf.h"
#include "core/pair/lists.h"
#include "core/pair/store.h"
#include "os/key.h"
#include "pg/peer.h"
#include "pg/service.h"

struct hf_pg_control;
struct hf_pg_control_ask;

struct hf_pg_service {
    struct hf_pg *pg;
    enum hf_pg_role role;
    uint64_t epoch;
    char host[HF_HOST_NAME_MAX + 1];
    struct hf_key key;
    struct hf_pg_controls *controls;
    struct hf_pg_peers *peers;
    struct hf_poll_timer timer;

    /* backup */
    struct hf_pair_backup *backup;
    struct hf_pg_peer *source; /* accepted: the primary's connection */
    char source_name[HF_HOST_NAME_MAX + 1];
    hf_time heard; /* of the primary, last; 0: never */
    /* Owned: what the sessions were when this host was demoted, until another primary has opened:
     * before that the group may promote it again. */
    struct hf_pair_store *own;
    hf_time own_offset; /* of the clock of whom it was, if this host never opened with it */
    struct hf_pg_warm *warm;
    hf_time warm_at;                 /* when it is looked for whom next; 0: at once */
    hf_time alarm_at;                /* a take-over has been likely since then; 0: it is not */
    bool suspected;                  /* it was silent when last looked at */
    struct hf_pg_control *prepared;  /* prepare-*: waits for a word */
    bool armed;                      /* ... and said so */
    hf_time leave_until, leave_look; /* a demotion waits for what is under way; 0: none */
    struct hf_forward *forward;      /* moved: what still comes goes on, until then */
    struct hf_poll_io forward_io;
    hf_time forward_until;

    /* primary */
    struct hf_pair_primary *primary;
    struct hf_pg_peer *target; /* to the backup */
    bool target_open;
    struct hf_pair_lists lists; /* of mirrors, as the group puts them in force */
    hf_time lease_until;
    struct hf_pg_takeover *takeover;
    hf_time restore_until; /* the take-over has sessions, and no backup is filled before; 0: none */
    struct hf_pg_listeners *listeners;
    struct hf_pg_control *opening, *growing; /* to be answered */
    hf_time grow_until;
    struct hf_pg_control *watching; /* mirror-state: answered when it changes */
    hf_time watch_until;
    struct hf_buf state_told; /* the last answer */
};

static inline hf_time hf_pg_service_now(const struct hf_pg_service *s)
{
    return hf_pg_now(s->pg);
}

/** The backup's host, or "": nobody is. */
static inline const char *hf_pg_service_peer(const struct hf_pg_service *s)
{
    const struct hf_pair_mirror *m;
    return hf_pair_lists_backup(&s->lists, &m) ? m->host : "";
}

/* service.c */

/** To the agent: last: its process has no more to do. */
void hf_pg_service_answer(struct hf_pg_service *s, struct hf_pg_control *c, int code,
                          const char *why, bool last);

/* service_role.c */

/** STOPPED to BACKUP. 0 or -errno with a text; nothing is changed then. */
HF_MUST int hf_pg_service_start(struct hf_pg_service *s, struct hf_err *err);
/** BACKUP to TAKING: a reign begins, and nothing is let out yet. There is a backup core. silent:
 * the former primary is known to be; otherwise its lease is waited for (G2). mirrors: those in S,
 * if the group has kept it. */
HF_MUST int hf_pg_service_promote(struct hf_pg_service *s, uint64_t epoch, bool silent,
                                  const char *mirrors, struct hf_err *err);
/** TAKING to PRIMARY: address, sessions, listener; c is answered then. */
void hf_pg_service_serve(struct hf_pg_service *s, struct hf_pg_control *c);
/** TAKING or PRIMARY to BACKUP, others stay: silent from now on. */
void hf_pg_service_demote(struct hf_pg_service *s);
/** The same when it was prepared: first what is under way may end, for a moment. s->prepared is
 * answered then. */
void hf_pg_service_leave(struct hf_pg_service *s);
/** The moment may be over. */
void hf_pg_service_left(struct hf_pg_service *s);
/** What was kept of this host's own reign is of the past. */
void hf_pg_service_disown(struct hf_pg_service *s);
/** To STOPPED. */
void hf_pg_service_stop(struct hf_pg_service *s);
/** Clients of the address are not ours any more: no word to them. */
void hf_pg_service_let_go(struct hf_pg_service *s);

/* service_pair.c */

extern const struct hf_pg_peer_ops hf_pg_service_peer_ops;
void hf_pg_service_on_timer(struct hf_poll_timer *t, hf_time now);
void hf_pg_service_rearm(struct hf_pg_service *s);
/** After anything that the primary's core was told; arg: the service. */
void hf_pg_service_pump(void *arg);
/** ... the backup's core. */
void hf_pg_service_send_backup(struct hf_pg_service *s);
/** Nothing leaves later than so long after the heartbeat that the backup answered last. */
void hf_pg_service_renew_lease(struct hf_pg_service *s);
/** The same with a BYE: the next primary knows that the service was handed over, not lost. */
void hf_pg_service_hand_over(struct hf_pg_service *s);
/** What consoles and metrics tell of this reign: after anything that may change it. */
void hf_pg_service_note_reign(struct hf_pg_service *s);

/* service_forward.c */

/** This host gives the address to another one: what comes from now on is kept, and sent there when
 * it is known. For a second. */
void hf_pg_service_forward(struct hf_pg_service *s);
void hf_pg_service_forward_end(struct hf_pg_service *s);

/* service_warm.c */

/** A backup looks whether it may soon have to take over, and has server connections logged in
 * accordingly. Called when something of that changed, and at hf_pg_service_warm_deadline(). */
void hf_pg_service_warm(struct hf_pg_service *s);
hf_time hf_pg_service_warm_deadline(const struct hf_pg_service *s);
/** hf_pg_warm's: all that was wanted is there. */
void hf_pg_service_warmed(void *arg);

/* service_mirror.c */

/** The lists that the group puts in force are its answers to the core; true: there was one. */
bool hf_pg_service_answer_asks(struct hf_pg_service *s);
/** mirror-source that made the backup grow: everything is there, or will not be. */
void hf_pg_service_answer_grow(struct hf_pg_service *s);
/** mirror-state is asked again and again: it is answered when there is something new. */
void hf_pg_service_answer_state(struct hf_pg_service *s);
/* The agent's actions, answered now or later. */
void hf_pg_service_mirror_source(struct hf_pg_service *s, struct hf_pg_control *c,
                                 const char *mirrors);
void hf_pg_service_mirror_state(struct hf_pg_service *s, struct hf_pg_control *c,
                                const struct hf_pg_control_ask *ask);
