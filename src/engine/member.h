/* A member of the embedded engine: pure protocol logic between an application and a sequencer. */
#pragma once

#include <stdbool.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "engine/engine.h"
#include "engine/order.h"

/* What the core needs from outside; borrowed by the member for its life. */
struct hf_member_opt {
    uint32_t node_id;
    char host[HF_HOST_NAME_MAX + 1];
    unsigned expected_votes; /* quorum is a majority of them; 0 or 1: always quorate */
    hf_time silence; /* a sequencer silent for so long is taken over; 0: never (in process) */
    struct hf_engine_callbacks cb;
    void *cb_arg; /* borrowed */
    /* Give a frame to the sequencer: 0, or -EAGAIN (try later), or another error (the link ends,
     * which hf_member_detach() will tell). Never calls back into the member but hf_member_input().
     */
    int (*send)(void *io_arg, struct hf_slice frame);
    void *io_arg; /* borrowed */
};

/*
 *   DOWN --attach--> GREETED --READY--> UP        detach: any -> DOWN; what was applied stays, and
 *                                                 HELLO tells the next sequencer how far that is
 */
enum hf_member_state { HF_MEMBER_DOWN, HF_MEMBER_GREETED, HF_MEMBER_UP };

struct hf_member {
    struct hf_member_opt opt;
    enum hf_member_state state;
    struct hf_engine_v1_state st; /* as of the last applied event; ord 0: fresh */
    struct hf_engine_v1_state before;
    uint64_t since;         /* ord of our UP event */
    uint64_t seq;           /* of the last item of pend ever */
    uint64_t got, stable;   /* last event received; what all nodes have applied */
    struct hf_list inbox;   /* items received, not applied */
    struct hf_list history; /* items applied that a node may lack */
    struct hf_list pend;    /* items we asked for that did not come back in order */
    struct hf_list *unsent; /* first of pend not given to this sequencer; &pend: none */
    unsigned n_inbox, n_pend, n_unacked;
    char group[HF_ENGINE_V1_GROUPS_MAX]
              [HF_ENGINE_GROUP_NAME_MAX + 1]; /* joined by the application */
    unsigned n_groups;
    uint64_t probe; /* number of the last question whether we are still a member */
    bool doubt;     /* we were paused: nothing is delivered until probe is answered (I10) */
    bool announce;  /* the first quorum callback is due */
    int lost;       /* the lost callback is due with this code */
    hf_time heard, beat_at;
    uint8_t buf[HF_ENGINE_V1_FRAME_MAX];
};

/** Begin, fresh and without a link. opt is copied. */
void hf_member_init(struct hf_member *m, const struct hf_member_opt *opt);
void hf_member_fini(struct hf_member *m);

/** A link to a sequencer is there: greet it. 0, or send's error: then detach. */
HF_MUST int hf_member_attach(struct hf_member *m, hf_time now);

/** The link is gone. What is in the inbox is still delivered by hf_member_pump(), unless in doubt.
 */
void hf_member_detach(struct hf_member *m);

/** A frame from the sequencer. 0, or -HF_E* or -ENOMEM: end the link. */
HF_MUST int hf_member_input(struct hf_member *m, struct hf_slice in, hf_time now);

/** Deliver callbacks and send what can be sent. Negative: end the link. */
HF_MUST int hf_member_pump(struct hf_member *m);

/** Has hf_member_pump() something to deliver? */
bool hf_member_ready(const struct hf_member *m);

/** Time passed: beats. -HF_ETIMEOUT: the sequencer is silent, end the link and pass it over. */
HF_MUST int hf_member_tick(struct hf_member *m, hf_time now);

/** When the next tick is due, or HF_NEVER. */
hf_time hf_member_deadline(const struct hf_member *m);

/** We did not run for longer than silence: deliver nothing before the sequencer has answered. */
void hf_member_gap(struct hf_member *m, hf_time now);

/** As in engine.h: 0, -HF_ENAME, -EALREADY (joined), -HF_ELEFT (not joined), -EMSGSIZE, -HF_EFULL
 * (flow control), -ENOMEM. */
HF_MUST int hf_member_join(struct hf_member *m, const char *group);
HF_MUST int hf_member_leave(struct hf_member *m, const char *group);
HF_MUST int hf_member_multicast(struct hf_member *m, const char *group, struct hf_slice msg);
