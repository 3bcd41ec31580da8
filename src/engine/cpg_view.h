/* Numbered views out of one CPG group's events: pure logic of the Corosync engine
 * (doc/design/engine.md). */
#pragma once

#include <stdbool.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/list.h"
#include "codec/cpg_v1.h"
#include "engine/engine.h"

#define HF_CPG_PEERS_MAX 128 /* CPG_MEMBERS_MAX */
#define HF_CPG_NODES_MAX 512 /* of a totem ring */

/*
 * view.ring is a totem ring's sequence number << 24 plus the number of changes: those of the ring's
 * union (below APART), or, APART, of what is left of the view that we had in the last ring.
 * Whatever quorum was told for a ring is below its APART.
 */
#define HF_CPG_COUNT_SHIFT 24
#define HF_CPG_NUMBER_APART (1u << 23)

/* Why somebody came or went, with CPG's numbers. */
enum hf_cpg_reason {
    HF_CPG_JOIN = 1,
    HF_CPG_LEAVE,
    HF_CPG_NODEDOWN,
    HF_CPG_NODEUP,
    HF_CPG_PROCDOWN,
};

struct hf_cpg_addr {
    uint32_t node, pid, reason;
};

/* What CPG tells, in its order. Borrowed for the call. */
struct hf_cpg_event {
    enum hf_cpg_what { HF_CPG_CONFCHG = 1, HF_CPG_TOTEM, HF_CPG_MESSAGE } what;
    const struct hf_cpg_addr *member, *left; /* CONFCHG */
    size_t n_members, n_left;
    uint32_t rep; /* TOTEM: the ring's representative, sequence number and nodes */
    uint64_t ring;
    const uint32_t *nodes;
    size_t n_nodes;
    uint32_t node, pid; /* MESSAGE: from whom */
    struct hf_slice msg;
};

struct hf_cpg_view_opt {
    uint32_t node, pid;
    char host[HF_HOST_NAME_MAX + 1];
    hf_time patience; /* who does not do its part for so long is stood in for by the next */
    /* Multicast to the group: 0, -HF_EFULL (asked again by hf_cpg_view_flush()), or an error. */
    int (*send)(void *arg, struct hf_slice frame);
    /* ring: of totem, in which this view is. */
    void (*view)(void *arg, const struct hf_engine_view *v, uint64_t ring);
    void (*message)(void *arg, uint32_t from, struct hf_slice msg);
    void *arg; /* borrowed */
};

/*
 *   OUT --own CONFCHG--> FRESH --WELCOME, nobody else, TAKE--> IN --TOTEM--> APART
 *                          |                                    ^              |
 *                          +--TOTEM--> APART                    +---STATE------+
 *   any --own leave, or failed--> GONE
 *
 * A ring begins with no member in its union. Those who came into it together (from one view) are
 * APART from the others until one of them has multicast their STATE, which puts them into the
 * union, at the same place for all. Who joins CPG within a ring did not see what happened since
 * its beginning: a member of the union answers its HELLO with a WELCOME, which is void if
 * anything that may change the union was ordered between the two. Whoever else waits for one then
 * says HELLO again, so that the new member knows of it, too.
 */
enum hf_cpg_state { HF_CPG_OUT, HF_CPG_FRESH, HF_CPG_APART, HF_CPG_IN, HF_CPG_GONE };

struct hf_cpg_peer {
    uint32_t node, pid;
    char host[HF_HOST_NAME_MAX + 1]; /* empty: not told yet */
    bool here;                       /* its node is in the ring; false: a ghost */
    bool view;                       /* a member of our view */
    bool joint;                      /* in the ring's union */
    bool elder;                      /* FRESH: it may know the union */
    bool awaited;                    /* came into the ring with us: it, or who speaks for it, will
                                        make it joint */
    bool asked;                      /* its HELLO waits for a WELCOME */
    uint64_t hello, at;              /* that HELLO's nonce, and the count of events then */
    hf_time since;                   /* when that was, or when a WELCOME was void */
};

struct hf_cpg_view {
    struct hf_cpg_view_opt opt;
    enum hf_cpg_state state;
    struct hf_cpg_peer peer[HF_CPG_PEERS_MAX]; /* all that CPG lists, by node and pid */
    unsigned n_peers;
    struct hf_engine_member left[HF_CPG_PEERS_MAX]; /* since the last view */
    unsigned n_left;
    bool changed; /* our view is not what was told last */
    bool turning; /* a ring change is under way: its TOTEM is still to come */
    bool has_ring;
    uint32_t rep;
    uint64_t ring;
    uint32_t nodes[HF_CPG_NODES_MAX];
    unsigned n_nodes;
    uint64_t count;      /* changes of the union in this ring */
    uint64_t number;     /* of our last view; 0: none yet */
    uint64_t base;       /* the last ring in which we were IN */
    uint64_t apart;      /* views since then */
    uint64_t events;     /* in this ring, that may change the union: leavers, STATEs, WELCOMEs */
    bool announced;      /* our HELLO or STATE of this ring was sent */
    bool taking;         /* our TAKE of this ring was sent */
    bool answering;      /* our WELCOME is under way */
    hf_time since;       /* when this ring, or our part in it, began */
    bool doubt;          /* we were paused: events are held until our PROBEs came back (I10) */
    bool probing;        /* the current PROBE was sent */
    unsigned rounds;     /* PROBEs still to come back */
    uint64_t nonce;      /* of our last PROBE or HELLO */
    struct hf_list held; /* events not looked at yet */
    size_t held_bytes;
    int failed;         /* GONE with this error: the engine is lost */
    uint64_t malformed; /* messages dropped */
};

/** Begin, not a member. opt is copied. */
void hf_cpg_view_init(struct hf_cpg_view *v, const struct hf_cpg_view_opt *opt);
void hf_cpg_view_fini(struct hf_cpg_view *v);

/** Something happened; makes callbacks. */
void hf_cpg_view_step(struct hf_cpg_view *v, const struct hf_cpg_event *e, hf_time now);

/** Send what is to be sent by now. */
void hf_cpg_view_flush(struct hf_cpg_view *v, hf_time now);

/** When the next flush is due (the past: now), or HF_NEVER. */
hf_time hf_cpg_view_deadline(const struct hf_cpg_view *v);

/** Is there somebody in the ring whose view will soon be one with ours? Who acts on a view and
 * quorum before that may act alone beside others. */
bool hf_cpg_view_is_merging(const struct hf_cpg_view *v, hf_time now);

/** We did not run for a while: deliver nothing before our own messages have come back. */
void hf_cpg_view_doubt(struct hf_cpg_view *v);

/** Multicast an application's message. 0, -HF_ELEFT (not a member), -EMSGSIZE, -HF_EFULL (flow
 * control, or no view yet), or what send returned. */
HF_MUST int hf_cpg_view_multicast(struct hf_cpg_view *v, struct hf_slice msg);
