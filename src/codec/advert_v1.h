/* Directory protocol, version 1: datagrams, pull bodies, state bodies (doc/wire/advert.md). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/endpoint.h"
#include "base/limits.h"
#include "base/rd.h"
#include "base/slice.h"
#include "base/wr.h"

#define HF_ADVERT_VERSION 1
#define HF_SALT_LEN 16
#define HF_SEAL_TAG_LEN 16

/* ---- the clear head of a datagram (authenticated as associated data, A-r1) ---- */

enum hf_datagram_kind {
    HF_DATAGRAM_ADVERT = 1, /* body: struct hf_advert */
    HF_DATAGRAM_PROBE = 2,  /* body empty; asks the receiver for an advert, by unicast (A-r3) */
};

/* u16 "HF", u8 version, u8 kind, u32 key id, u64 incarnation, salt, u64 counter, str8 host */
struct hf_datagram_head {
    uint8_t kind; /* enum hf_datagram_kind */
    uint32_t key_id;
    uint64_t incarnation;
    uint8_t salt[HF_SALT_LEN];
    uint64_t counter;     /* >= 1, grows by one per datagram; the low part of the nonce */
    struct hf_slice host; /* borrowed from the datagram */
};

#define HF_DATAGRAM_HEAD_LEN_MAX (2 + 1 + 1 + 4 + 8 + HF_SALT_LEN + 8 + 1 + HF_HOST_NAME_MAX)

void hf_datagram_head_encode(struct hf_wr *w, const struct hf_datagram_head *h);

/**
 * Read the head; *ret_head_len is its length, so that [0, head_len) is the associated data and the
 * rest is sealed. -HF_EMALF, -HF_ETRUNC, or -HF_EVERSION for a version above ours.
 */
HF_MUST int hf_datagram_head_decode(struct hf_slice datagram, struct hf_datagram_head *ret_head,
                                    size_t *ret_head_len);

/* ---- changes: what happened to names ---- */

struct hf_change {
    bool removed;
    struct hf_slice name;  /* a valid service name */
    struct hf_slice value; /* a JSON object; empty when removed */
};

/* Changes yet to be read; what decoders hand out has been checked to its end. */
struct hf_changes {
    struct hf_rd r;
    uint32_t n;
};

/** The next change (borrowed from the input), or false at the end. */
bool hf_changes_next(struct hf_changes *c, struct hf_change *ret_change);

/** Append one change; at most HF_CHANGE_OVERHEAD bytes more than name and value. */
void hf_change_encode(struct hf_wr *w, const struct hf_change *c);
#define HF_CHANGE_OVERHEAD 6

/* ---- the body of an advert ---- */

#define HF_ADVERT_BYE 0x01u /* the owner leaves: its services go at once */

/*
 * An owner's part of the tree as it stands: `changes` lead from any version >= from to `version`,
 * and `hash` is that of the whole part (see hf_part). A heartbeat is an advert; so is the answer to
 * a probe.
 */
struct hf_advert {
    uint8_t flags;
    uint32_t period_ms; /* of the sender's heartbeats */
    uint64_t version;
    uint64_t from;
    uint64_t hash;
    struct hf_endpoint endpoint; /* where pulls go; family 0: the datagram's source */
    struct hf_changes changes;
};

#define HF_ADVERT_PERIOD_MS_MIN 10u
#define HF_ADVERT_PERIOD_MS_MAX 600000u
/* bytes of a body that still fit a datagram */
#define HF_ADVERT_BODY_MAX (HF_ADVERT_LEN_MAX - HF_DATAGRAM_HEAD_LEN_MAX - HF_SEAL_TAG_LEN)

/** Begin a body; the changes (n of them, of any owner's size) follow by hf_change_encode(). */
void hf_advert_encode(struct hf_wr *w, const struct hf_advert *a, size_t *ret_n_mark);
/** Set the number of changes at the mark given by hf_advert_encode(). */
void hf_advert_encode_end(struct hf_wr *w, size_t n_mark, uint64_t from, uint16_t n);

HF_MUST int hf_advert_decode(struct hf_slice body, struct hf_advert *ret_advert);

/* ---- pull and state bodies, over TLS ---- */

/* Who an owner is and where its part stands. */
struct hf_owner_head {
    struct hf_slice owner;
    uint64_t incarnation;
    uint8_t salt[HF_SALT_LEN];
    uint64_t counter; /* of its last datagram: only higher ones count from here on (A-r2) */
    uint64_t version;
    uint64_t hash;
    uint32_t period_ms;
    struct hf_endpoint endpoint;
};

/* The answer of an owner to GET /v1/adverts. */
struct hf_pull {
    struct hf_owner_head head;
    uint64_t your_incarnation; /* the asking host's, as the owner knows it; 0: unknown (A-r2) */
    bool full;                 /* all entries; otherwise what changed since `from` */
    uint64_t from;
    struct hf_changes changes; /* names strictly ascending */
};

/* Longest head of a pull body, before its changes. */
#define HF_PULL_HEAD_MAX 256

void hf_pull_encode(struct hf_wr *w, const struct hf_pull *p, uint32_t n_changes);
HF_MUST int hf_pull_decode(struct hf_slice body, struct hf_pull *ret_pull);

/* One member in the answer to GET /v1/state: a hint (A4), or with its part (A5). */
struct hf_state_member {
    struct hf_owner_head head;
    uint32_t age_ms; /* since the answering host last heard of it */
    bool has_part;
    struct hf_changes changes; /* the whole part; names strictly ascending */
};

struct hf_state {
    struct hf_slice from;      /* who answers */
    uint64_t your_incarnation; /* as in struct hf_pull */
    uint32_t n_members;
    struct hf_rd r; /* members yet to be read */
};

void hf_state_encode(struct hf_wr *w, const struct hf_state *s);
void hf_state_member_encode(struct hf_wr *w, const struct hf_state_member *m, uint32_t n_changes);
/** Checks the whole body. */
HF_MUST int hf_state_decode(struct hf_slice body, struct hf_state *ret_state);
/** The next member, or false at the end. */
bool hf_state_next(struct hf_state *s, struct hf_state_member *ret_member);
