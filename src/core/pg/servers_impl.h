/* What the files of the servers core share. Not for others. */
#pragma once

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "core/pg/servers.h"

#define HF_PG_HISTORY_MAX 64
#define HF_PG_EVENTS_MAX 16
#define HF_PG_WHY_MAX 192

/* A start or promotion of a primary that was opened (X3). */
struct hf_pg_reign {
    uint64_t incarnation;
    bool fenced;
    uint64_t fence;
    struct hf_pg_server_facts facts; /* as last seen */
    uint64_t verified;               /* begin of the last probe that found it the primary */
};

struct hf_pg_server {
    bool used, draining, removed, keep;
    char name[HF_HOST_NAME_MAX + 1];
    char address[HF_GROUP_ADDRESS_MAX + 1];
    uint16_t weight;
    enum hf_pg_server_state state;
    hf_time since;
    char why[HF_PG_WHY_MAX];

    /* its monitor */
    bool probing, want_reset;
    bool up;                   /* its last word was an answer */
    bool doubt;                /* nobody is let in until a probe begun after `wanted` is answered */
    uint32_t n_failed;         /* in a row */
    uint64_t wanted;           /* events are numbered: a probe begun after this one is wanted */
    uint64_t begun, verified;  /* begin of the probe under way, of the last that was answered */
    hf_time begun_at, done_at; /* of the probe under way, end of the last one */
    hf_time next_probe;        /* HF_NEVER while one is under way */
    hf_time answered, rtt;
    hf_time awaited_since; /* probed fast; HF_NEVER: not awaited */

    /* what it is */
    bool known; /* facts are there, of the incarnation */
    struct hf_pg_server_facts facts;
    uint64_t incarnation;
    uint64_t epoch;     /* of the reign in which it was opened */
    bool writable_seen; /* this incarnation answered "not in recovery" to an earlier probe */
    bool have_fence;
    uint64_t fence;
    bool opened;

    /* who is on it */
    struct hf_list seats;    /* LOGIN and TAKEN */
    struct hf_list checking; /* CHECK */
    uint32_t n_sessions, n_logins;
    bool sweep;        /* seats may have to be told GONE */
    bool given_up;     /* ... for it has been down for hold_timeout */
    uint32_t to_move;  /* by the balance */
    hf_time next_move; /* look again for seats to move; HF_NEVER: there are none */
};

struct hf_pg_servers {
    struct hf_pg_servers_conf conf;
    struct hf_pg_server server[HF_PG_SERVERS_MAX];
    uint32_t primary; /* opened, or HF_PG_SERVER_NONE */
    uint64_t last_incarnation;
    uint64_t sysid;    /* of the database; 0: not known yet */
    uint32_t timeline; /* of the newest primary that was opened */
    bool conflict;
    struct hf_pg_reign reign[HF_PG_HISTORY_MAX]; /* a ring */
    uint64_t n_reigns;
    uint64_t alone_from; /* exclusive since this event */

    /* the group */
    bool group_known, group_acts; /* told of; member and quorate */
    uint8_t phase;
    uint64_t epoch, opened_epoch;
    char address[HF_GROUP_ADDRESS_MAX + 1];
    char fence_text[HF_GROUP_FENCE_TEXT_MAX + 1];

    /* the gate: [endpoint][0: recovering, 1: others] */
    struct hf_list queue[2][2];
    uint32_t n_waiting, n_logins, n_moving;
    uint64_t last_event; /* numbers what happens, to know what came first */
    bool window;         /* open for those who recover only */
    hf_time window_end;
    uint32_t n_recovering;
    hf_time next_gate; /* a failed login is tried again */
    hf_time next_balance;

    /* planned switchover */
    enum hf_pg_switch_state switching;
    bool want_freeze, want_thaw;
    hf_time switch_end;
    uint64_t switch_from;   /* incarnation */
    uint32_t switch_target; /* or HF_PG_SERVER_NONE */
    uint32_t switch_old;    /* the primary when it began */
    uint64_t rested;        /* event number when all were at rest */
    bool promoting;         /* PROMOTE was told */
    bool switch_by_group;   /* nobody asked us: it ends with the group's switch */

    struct {
        uint32_t server;
        bool warn;
        char text[HF_PG_WHY_MAX + 64];
    } event[HF_PG_EVENTS_MAX];
    uint32_t n_events, first_event;
    char text[HF_PG_WHY_MAX + 64]; /* of the last out */
    struct hf_pg_servers_counters count;
};

/** Are these two answers of one start of a server? */
bool hf_pg_server_same_start(const struct hf_pg_server_facts *a,
                             const struct hf_pg_server_facts *b);
/** 0: no; else how many auxiliary processes both answers have. */
unsigned hf_pg_server_likeness(const struct hf_pg_server_facts *a,
                               const struct hf_pg_server_facts *b);
/** What hf_pg_server_same_start() compares, for a peer. buf: HF_PG_IDENTITY_MAX. */
size_t hf_pg_identity_encode(const struct hf_pg_server_facts *f, uint8_t *buf);
/** 0 or -HF_E*. */
HF_MUST int hf_pg_identity_decode(struct hf_slice in, struct hf_pg_server_facts *ret_facts);

/** servers.c: an event; the oldest goes when nobody fetches them. */
void hf_pg_servers_event(struct hf_pg_servers *s, uint32_t server, bool warn, const char *fmt, ...)
    HF_PRINTF(4, 5);
/** A probe of it now; no answer to an earlier one will do, and (doubt) nobody is let in before. */
void hf_pg_servers_verify(struct hf_pg_servers *s, uint32_t server, bool doubt, hf_time now);
/** Who waits makes probing faster: think about each server's next probe again. */
void hf_pg_servers_schedule(struct hf_pg_servers *s, hf_time now);

/** Bytes that a standby is behind the primary, as far as known. */
uint64_t hf_pg_server_lag(const struct hf_pg_servers *s, const struct hf_pg_server *v);

/** servers.c: after anything that may have changed what the servers are. */
void hf_pg_servers_judge(struct hf_pg_servers *s, hf_time now);

/** servers_gate.c */
/** The group switches to another server: hold who is between transactions (X15). */
void hf_pg_gate_hold(struct hf_pg_servers *s, hf_time now);
/** The group's primary is again the one that it was before it began to switch. */
void hf_pg_gate_release(struct hf_pg_servers *s, hf_time now);
void hf_pg_gate_init(struct hf_pg_servers *s, hf_time now);
/** There is a primary (again); fresh: another incarnation, so who was on another one goes. */
void hf_pg_gate_opened(struct hf_pg_servers *s, bool fresh, hf_time now);
void hf_pg_gate_step(struct hf_pg_servers *s, hf_time now);
hf_time hf_pg_gate_deadline(const struct hf_pg_servers *s);
bool hf_pg_gate_next(struct hf_pg_servers *s, hf_time now, struct hf_pg_servers_out *ret_out);
/** May anybody be let in to the read-write endpoint? */
bool hf_pg_gate_is_open(const struct hf_pg_servers *s);

#define HF_PG_SERVERS_EACH(s, i)                                                                   \
    for (uint32_t i = 0; i < HF_PG_SERVERS_MAX; i++)                                               \
        if ((s)->server[i].used)
