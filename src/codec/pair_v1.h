/* Pair protocol, version 1: frames between a primary manager and its backup (doc/wire/pair.md). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/limits.h"
#include "base/rd.h"
#include "base/slice.h"
#include "base/wr.h"

/*
 * A stream of frames, each a head of HF_PAIR_V1_HEAD_LEN bytes (u32 length of the rest, u8 type, u8
 * flags, u16 magic, u64 epoch) and its fields. Head, HELLO, WELCOME and BYE stay as they are in all
 * versions. The link authenticates the hosts (I8); what comes over it is still not trusted to be
 * right.
 */
#define HF_PAIR_V1_VERSION 1
#define HF_PAIR_V1_HEAD_LEN 16
#define HF_PAIR_V1_FRAME_MAX (64u << 10) /* bytes of a frame, its head included */
#define HF_PAIR_V1_MAGIC 0x4850u         /* "HP" */

/* name, number, fields; P>B: from the primary, B>P: from the backup */
#define HF_PAIR_V1_LIST(X)                                                                         \
    X(HELLO, 1, "P>B: version_min, version, incarnation")                                          \
    X(WELCOME, 2, "B>P: version, incarnation, number (its store has), complete")                   \
    X(SYNC, 3, "P>B: a snapshot begins; number (of its first batch)")                              \
    X(BATCH, 4,                                                                                    \
      "P>B: number, operations; flags: MORE frames of it follow; COMPLETE: the snapshot is")       \
    X(CONFIRM, 5, "B>P: number, complete: everything up to it is in the store")                    \
    X(BEAT, 6, "clock, echo (the last clock heard, 0: none)")                                      \
    X(BYE, 7, "code; the connection ends")

enum hf_pair_v1_type {
#define HF_PAIR_V1_ENUM(name, num, text) HF_PAIR_V1_##name = (num),
    HF_PAIR_V1_LIST(HF_PAIR_V1_ENUM)
#undef HF_PAIR_V1_ENUM
};

/** Name of a frame type ("HELLO"), or NULL. */
const char *hf_pair_v1_type_name(int type);

/* One frame; fields that its type does not carry are zero. Slices are borrowed from the input. */
struct hf_pair_v1_frame {
    uint8_t type;         /* enum hf_pair_v1_type */
    bool more;            /* BATCH: it goes on in the next frame */
    uint64_t epoch;       /* of the address group's reign */
    uint8_t version_min;  /* HELLO: the oldest that the primary speaks */
    uint8_t version;      /* HELLO: the newest; WELCOME: the one that is spoken from now on */
    bool complete;        /* WELCOME, CONFIRM: the store has all sessions; BATCH: with it it has */
    uint64_t incarnation; /* of the primary whose batches are numbered; WELCOME: 0: none */
    uint64_t number;      /* of a batch */
    uint64_t clock, echo; /* ns of the sender's monotonic clock; ns of the receiver's */
    int32_t code;         /* BYE: 0 or -HF_E* */
    struct hf_slice ops;  /* BATCH: operations, checked */
};

/** Append f with its head. */
void hf_pair_v1_encode(struct hf_wr *w, const struct hf_pair_v1_frame *f);

/**
 * How long is the frame that `in` begins with? *ret_n = 0: its head is not whole yet. -HF_EMALF: no
 * frame begins so.
 */
HF_MUST int hf_pair_v1_frame_len(struct hf_slice in, size_t *ret_n);

/** Decode one whole frame, operations too: 0 or -HF_EMALF, -HF_ETRUNC, -HF_ETRAIL. */
HF_MUST int hf_pair_v1_decode(struct hf_slice in, struct hf_pair_v1_frame *ret_frame);

/* Operations on the replicated store. name, number, meaning */
#define HF_PAIR_OP_LIST(X)                                                                         \
    X(PUT, 1, "replace the bytes of a section")                                                    \
    X(APPEND, 2, "add bytes to a section")                                                         \
    X(CUT, 3, "drop n bytes from the front of a section")                                          \
    X(CLEAR, 4, "drop a section: its bytes and its items")                                         \
    X(SET, 5, "replace the bytes of a section's item `name`")                                      \
    X(EXTEND, 6, "add bytes to an item")                                                           \
    X(UNSET, 7, "drop an item")                                                                    \
    X(END, 8, "drop the session")

enum hf_pair_op_kind {
#define HF_PAIR_OP_ENUM(name, num, text) HF_PAIR_##name = (num),
    HF_PAIR_OP_LIST(HF_PAIR_OP_ENUM)
#undef HF_PAIR_OP_ENUM
};

struct hf_pair_op {
    uint8_t kind;          /* enum hf_pair_op_kind */
    uint8_t section;       /* < HF_PAIR_SECTIONS_MAX; END: 0 */
    uint64_t session;      /* not 0 */
    struct hf_slice name;  /* SET, EXTEND, UNSET: 0 ... HF_PAIR_NAME_MAX bytes */
    uint32_t n;            /* CUT: bytes */
    struct hf_slice bytes; /* PUT, APPEND, SET, EXTEND */
};
#define HF_PAIR_OP_HEAD_MAX (1 + 1 + 8 + 1 + HF_PAIR_NAME_MAX + 4)

/** Append an operation without its bytes, which follow it on the wire: they may come from elsewhere
 * (writev). op->bytes.n must be right. */
void hf_pair_op_encode_head(struct hf_wr *w, const struct hf_pair_op *op);

/** Read the next operation; failures are r's sticky error. */
void hf_pair_op_decode(struct hf_rd *r, struct hf_pair_op *ret_op);
