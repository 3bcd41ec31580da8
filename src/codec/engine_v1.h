/* Sequencer protocol, version 1: frames of the embedded engine on its socket (doc/wire/engine.md).
 */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/limits.h"
#include "base/slice.h"
#include "base/wr.h"

/*
 * One frame is one SOCK_SEQPACKET message. Both ends run as the same user on the same machine, and
 * still treat each other as untrusted (I9).
 */
#define HF_ENGINE_V1_VERSION 1
#define HF_ENGINE_V1_FRAME_MAX 16384
#define HF_ENGINE_V1_NODES_MAX 64 /* bits of the masks below */
#define HF_ENGINE_V1_GROUPS_MAX 32
#define HF_ENGINE_V1_GROUP_NAME_MAX 63
#define HF_ENGINE_V1_DATA_MAX 1024

/* name, number, fields; M>S: from a member, S>M: from the sequencer */
#define HF_ENGINE_V1_LIST(X)                                                                       \
    X(HELLO, 1, "M>S: version, node, since, ord (last applied; 0: fresh), host")                   \
    X(STATE, 2, "state at its ord. M>S: a survivor's; S>M: what a newcomer starts from")           \
    X(EVENT, 3, "ord, stable, kind and its fields. S>M: in order; M>S: a survivor's history")      \
    X(READY, 4, "M>S: HELLO is complete; S>M: you are a member of generation ord")                 \
    X(SEND, 5, "M>S: ord (ack), seq, kind (MSG, JOIN, LEAVE), group, data")                        \
    X(BEAT, 6, "alive. ord (M>S: ack, S>M: stable), seq (a probe, which the answer repeats)")      \
    X(REFUSE, 7, "S>M: code; the connection ends")

enum hf_engine_v1_type {
#define HF_ENGINE_V1_ENUM(name, num, text) HF_ENGINE_V1_##name = (num),
    HF_ENGINE_V1_LIST(HF_ENGINE_V1_ENUM)
#undef HF_ENGINE_V1_ENUM
};

/** Name of a frame type ("HELLO"), or NULL. */
const char *hf_engine_v1_type_name(int type);

/* What an EVENT (or a SEND: the first three) is. */
enum hf_engine_v1_kind {
    HF_ENGINE_V1_MSG = 1, /* node, seq, group, data */
    HF_ENGINE_V1_JOIN,    /* node, seq, group */
    HF_ENGINE_V1_LEAVE,   /* node, seq, group */
    HF_ENGINE_V1_UP,      /* node, host: connected; lives in the lowest free slot */
    HF_ENGINE_V1_RING,    /* node (the sequencer), gone, silent: slots that are free now */
};

/* One frame; fields that its type does not carry are zero. Slices are borrowed from the input. */
struct hf_engine_v1_frame {
    uint8_t type; /* enum hf_engine_v1_type */
    uint8_t version;
    uint8_t kind; /* enum hf_engine_v1_kind */
    uint32_t node;
    int32_t code;          /* REFUSE: -HF_E* */
    uint64_t since;        /* ord of the UP event that made us a node; 0: none */
    uint64_t ord;          /* place in the order, see hf_engine_v1_state */
    uint64_t stable;       /* every node has applied what is up to here */
    uint64_t seq;          /* the sender's own count of its SENDs, from 1 */
    uint64_t gone, silent; /* masks of slots; silent (not heard of) is part of gone */
    struct hf_slice host;  /* 1 ... HF_HOST_NAME_MAX, printable ASCII */
    struct hf_slice group; /* 1 ... HF_ENGINE_V1_GROUP_NAME_MAX, printable ASCII */
    struct hf_slice data;  /* MSG: <= HF_ENGINE_V1_DATA_MAX; STATE: an encoded state */
};

/* Who is connected and who is in which group: equal at all nodes that have applied up to ord. */
struct hf_engine_v1_state {
    uint64_t ord;  /* generation << HF_ENGINE_V1_GEN_SHIFT | count within it; 0: nothing yet */
    uint32_t node; /* id of the generation's sequencer */
    uint8_t n_groups;
    struct hf_engine_v1_node {
        uint32_t id; /* 0: the slot is free */
        uint64_t since, seq;
        char host[HF_HOST_NAME_MAX + 1];
    } slot[HF_ENGINE_V1_NODES_MAX];
    struct hf_engine_v1_group {
        char name[HF_ENGINE_V1_GROUP_NAME_MAX + 1];
        uint64_t members; /* mask of slots, never empty */
    } group[HF_ENGINE_V1_GROUPS_MAX];
};
#define HF_ENGINE_V1_GEN_SHIFT 40

/** Encode f into w; -HF_EFULL is w's sticky error. */
void hf_engine_v1_encode(struct hf_wr *w, const struct hf_engine_v1_frame *f);

/** Decode one whole message. 0 or -HF_EMALF, -HF_ETRUNC, -HF_ETRAIL, -HF_EVERSION. */
HF_MUST int hf_engine_v1_decode(struct hf_slice in, struct hf_engine_v1_frame *ret_frame);

/** Encode the data of a STATE frame. */
void hf_engine_v1_state_encode(struct hf_wr *w, const struct hf_engine_v1_state *st);

/** Decode it; -HF_EMALF also for what no state can be (an id twice, members in free slots). */
HF_MUST int hf_engine_v1_state_decode(struct hf_slice in, struct hf_engine_v1_state *ret_state);
