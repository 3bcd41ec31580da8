/* Inside the rebalancer: what it knows of each server, and its working copy of one step. */
#pragma once

#include "core/sip/rebalance.h"

#define HF_SIP_MOVES_MAX 8192  /* of one step; the rest is for the next one */
#define HF_SIP_COST_ONE 1000u  /* units of an average client */
#define HF_SIP_ALLOWANCE 1000u /* one client */
#define HF_SIP_FULL_STRENGTH 1000u

/* What a server is to the plan. */
enum hf_sip_part {
    HF_SIP_PART_NONE,  /* nothing: homes nobody, has nobody */
    HF_SIP_PART_TAKES, /* has a share */
    HF_SIP_PART_KEEPS, /* is left alone: has no weight, or came only just now */
    HF_SIP_PART_GOES,  /* all its clients are to go, paced */
    HF_SIP_PART_DEAD,  /* ... at once */
};

struct hf_sip_seen {
    struct hf_sip_load load;
    bool alive;        /* at the last look */
    bool buried;       /* dead, and counted as such */
    hf_time since;     /* alive; INT64_MIN: since before we looked */
    hf_time moved;     /* the last move to or from it */
    bool known;        /* what its clients do was measured, or reckoned: */
    uint64_t requests; /* requests/s of one client, and ... */
    uint64_t work;     /* ... its CPU, 1/1000 of weight 1; both with RATE_BITS after the point */
    uint32_t cost;     /* units per client, by these, against all servers' */
    uint32_t strength; /* 1/1000 of its weight */
    hf_time strength_at;
    uint64_t allowance; /* 1/1000 clients that may be sent there now */

    /* of this step */
    enum hf_sip_part part;
    uint32_t n, pinned;
    uint64_t units, share, before; /* before: units at the step's beginning, for reasons */
    uint64_t weight;               /* times strength */
    uint64_t give, get;            /* units */
};

struct hf_sip_rebalance {
    struct hf_sip_rebalance_conf conf;
    const struct hf_sip_fleet *fleet; /* borrowed */
    enum hf_sip_balance state;
    hf_time begun, outside_since, stepped;
    uint64_t allowance; /* as above, in all */
    bool looked;        /* at least once */
    bool wanted;        /* balance, by the operator: until all are at rest */
    bool limited;       /* this step keeps to the rates, and changes what is remembered */
    bool moving;        /* this step balances */
    bool held;          /* ... but the rates kept it from some of it */
    uint16_t n;         /* servers */
    uint32_t cost_max;  /* units of the dearest client that may be moved */
    struct hf_sip_seen server[HF_SIP_SERVERS_MAX];
    const struct hf_sip_astray *astray; /* borrowed */
    size_t n_astray;
    struct hf_sip_move *move; /* owned; HF_SIP_MOVES_MAX */
    size_t n_moves;
    struct hf_sip_rebalance_counters count;
};

/** Fill r->move from the working copy in r->server. */
void hf_sip_plan_make(struct hf_sip_rebalance *r);
/** Is a server outside its share by more than so many percent, and more than a client? */
bool hf_sip_plan_outside(const struct hf_sip_rebalance *r, const struct hf_sip_seen *s,
                         unsigned zone);
