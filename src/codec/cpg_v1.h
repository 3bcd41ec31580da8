/* What the Corosync engine multicasts in a CPG group, version 1 (doc/wire/corosync.md). */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/limits.h"
#include "base/slice.h"
#include "base/wr.h"

#define HF_CPG_V1_VERSION 1
#define HF_CPG_V1_FRAME_MAX 4800
/* Head: magic, version, kind, and the XXH3-64 of the body under a seed of these three. Corosync
 * lost and mixed up recovered messages before 3.1.6 (corosync#660): no byte is trusted. */
#define HF_CPG_V1_MAGIC 0x4843u /* "HC" */
#define HF_CPG_V1_HEAD 12u
#define HF_CPG_V1_SEED(kind) (HF_CPG_V1_MAGIC << 16 | HF_CPG_V1_VERSION << 8 | (kind))
#define HF_CPG_V1_MEMBERS_MAX 64
#define HF_CPG_V1_DATA_MAX 1024

/* name, number, fields; rep and ring: the totem ring that the sender was in */
#define HF_CPG_V1_LIST(X)                                                                          \
    X(MSG, 1, "data: an application's message")                                                    \
    X(HELLO, 2, "rep, ring, nonce, host: I joined within this ring, tell me where you are")        \
    X(STATE, 3, "rep, ring, members: we came into this ring together")                             \
    X(WELCOME, 4, "rep, ring, node, pid, nonce, delta, count, members: answer to a HELLO")         \
    X(TAKE, 5, "rep, ring: nobody answered my HELLO, I begin anew")                                \
    X(PROBE, 6, "nonce: was I left behind?")

enum hf_cpg_v1_kind {
#define HF_CPG_V1_ENUM(name, num, text) HF_CPG_V1_##name = (num),
    HF_CPG_V1_LIST(HF_CPG_V1_ENUM)
#undef HF_CPG_V1_ENUM
};

/** Name of a kind ("HELLO"), or NULL. */
const char *hf_cpg_v1_kind_name(int kind);

struct hf_cpg_v1_member {
    uint32_t node, pid;
    struct hf_slice host; /* 1 ... HF_HOST_NAME_MAX, printable ASCII */
};

/* One message; fields that its kind does not carry are zero. Slices are borrowed from the input. */
struct hf_cpg_v1_frame {
    uint8_t kind;         /* enum hf_cpg_v1_kind */
    uint8_t n;            /* members: 1 ... HF_CPG_V1_MEMBERS_MAX, by node, ascending */
    uint32_t rep;         /* totem's representative of the ring */
    uint64_t ring;        /* totem's sequence number of the ring */
    uint32_t node, pid;   /* WELCOME: who is meant */
    uint32_t delta;       /* WELCOME: events between that HELLO and this, as its sender saw them */
    uint64_t count;       /* WELCOME: changes of membership in this ring so far */
    uint64_t nonce;       /* PROBE, HELLO; WELCOME: of the HELLO that it answers */
    struct hf_slice host; /* HELLO: 1 ... HF_HOST_NAME_MAX, printable ASCII */
    struct hf_slice data; /* MSG: <= HF_CPG_V1_DATA_MAX */
    struct hf_cpg_v1_member member[HF_CPG_V1_MEMBERS_MAX];
};

/** Encode f into w; -HF_EFULL is w's sticky error. */
void hf_cpg_v1_encode(struct hf_wr *w, const struct hf_cpg_v1_frame *f);

/** Decode one whole message. 0 or -HF_EMALF (its hash, too), -HF_ETRUNC, -HF_ETRAIL, -HF_EVERSION.
 */
HF_MUST int hf_cpg_v1_decode(struct hf_slice in, struct hf_cpg_v1_frame *ret_frame);
