/* The sequencer of an embedded engine: pure protocol logic that gives all events one order. */
#pragma once

#include <stdbool.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "engine/order.h"

#define HF_SEQUENCER_LINKS_MAX (HF_ENGINE_V1_NODES_MAX + 16)

struct hf_sequencer_opt {
    uint64_t generation; /* > 0, grows from sequencer to sequencer */
    uint32_t node_id;    /* of the process that runs it */
    hf_time silence;     /* a node silent for so long is gone; 0: never (in process) */
    bool collect;        /* an earlier generation may have left survivors: wait for them */
    bool stopped;        /* its sequencer was passed over for silence (not dead) */
    /* Give a frame to a link; non-zero: the link is broken and will be closed. Must not call the
     * sequencer. */
    int (*send)(void *arg, unsigned link, struct hf_slice frame);
    /* The sequencer has ended a link, and forgotten it. Must not call the sequencer. */
    void (*close)(void *arg, unsigned link);
    void *arg; /* borrowed */
};

/*
 * A link:   NEW --HELLO--> GREETED --READY--> WAIT --formed--> UP
 * The sequencer collects survivors first (until all that the most advanced of them knows are there,
 * or silence / 2 has passed), then forms its ring, and orders from there on.
 */
enum hf_sequencer_link { HF_LINK_FREE, HF_LINK_NEW, HF_LINK_GREETED, HF_LINK_WAIT, HF_LINK_UP };

struct hf_sequencer {
    struct hf_sequencer_opt opt;
    struct hf_engine_v1_state st;
    bool formed;
    hf_time collect_end, beat_at;
    struct hf_sequencer_past *best; /* owned: of the most advanced survivor; NULL: none */
    struct hf_list pending;         /* items to be ordered */
    struct hf_link {
        enum hf_sequencer_link state;
        bool broken, silent;
        uint32_t node;
        uint64_t since, ack, seq; /* seq: of the last SEND taken */
        unsigned n_pending;
        hf_time heard;
        char host[HF_HOST_NAME_MAX + 1];
        struct hf_sequencer_past *past; /* owned: what a survivor is telling */
    } link[HF_SEQUENCER_LINKS_MAX];
    uint8_t buf[HF_ENGINE_V1_FRAME_MAX];
};

void hf_sequencer_init(struct hf_sequencer *s, const struct hf_sequencer_opt *opt, hf_time now);
/** Forget everything; links are not closed. */
void hf_sequencer_fini(struct hf_sequencer *s);

/** A connection came in. 0 and its link, or -HF_EFULL. */
HF_MUST int hf_sequencer_open(struct hf_sequencer *s, hf_time now, unsigned *ret_link);

/** The other side closed the link: its process is gone. */
void hf_sequencer_closed(struct hf_sequencer *s, unsigned link, hf_time now);

/** A frame from a link. One that breaks the protocol ends the link. */
void hf_sequencer_input(struct hf_sequencer *s, unsigned link, struct hf_slice in, hf_time now);

/** Time passed: beats, silent nodes, the end of collecting. */
void hf_sequencer_tick(struct hf_sequencer *s, hf_time now);
/** When the next tick is due, or HF_NEVER. */
hf_time hf_sequencer_deadline(const struct hf_sequencer *s);

/** We did not run for longer than silence: that the others seem silent says nothing. */
void hf_sequencer_gap(struct hf_sequencer *s, hf_time now);
