/* What users publish of their presence (RFC 3903), how long, and the document that watchers get. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "base/slice.h"

/*
 * The event state compositor's memory: publications by AoR, each with an entity tag, which changes
 * with every one that is taken (RFC 3903 6). It makes no messages:
 *
 *   PUBLISH     without entity tag: a new one; with: refreshed (no body), modified (body),
 *               removed (Expires: 0). A tag that is not the present one: 412
 *   composed    nothing published: open while there are bindings, else closed; one: as it was
 *               published; several: see pidf.h
 *
 * Call a function for what happened, then hf_sip_presence_next() until it is false; sleep until
 * hf_sip_presence_deadline(). KEEP and DROP are to be stored, under AoR and key; CHANGED: watchers
 * want to know.
 *
 * The answer does not wait for KEEP: a server that dies in that moment loses the publication, and
 * its agent hears 412 at the next refresh and publishes anew (RFC 3903 4.3).
 *
 * What is stored: version 1, count of the entity tag, the document (big-endian, 32 bits of length).
 */
#define HF_SIP_ETAG_MAX 32 /* 16 hex digits, '.', a number, NUL */

struct hf_sip_publish {
    struct hf_slice aor; /* canonical */
    struct hf_slice
        transaction;      /* names the request; the same: a retransmission, the same answer */
    struct hf_slice etag; /* SIP-If-Match; empty: none */
    bool has_expires;
    uint32_t expires_s;
    struct hf_slice body; /* a document; empty: none */
};
struct hf_sip_published {
    unsigned status;            /* 200; 400, 412, 423, 503 */
    uint32_t expires_s;         /* 200: granted; 423: Min-Expires */
    char etag[HF_SIP_ETAG_MAX]; /* 200 */
    uint32_t stores;            /* 200: this KEEP follows, which the answer is to wait for; or 0 */
};

#define HF_SIP_PRESENCE_OUT_LIST(X)                                                                \
    X(KEEP, "keep")                                                                                \
    X(DROP, "drop")                                                                                \
    X(CHANGED, "changed")
enum hf_sip_presence_out_kind {
#define HF_SIP_PRESENCE_OUT_ENUM(id, name) HF_SIP_PRESENCE_##id,
    HF_SIP_PRESENCE_OUT_LIST(HF_SIP_PRESENCE_OUT_ENUM)
#undef HF_SIP_PRESENCE_OUT_ENUM
};
/** Something to be done; slices are borrowed until the next call of anything. */
struct hf_sip_presence_out {
    enum hf_sip_presence_out_kind kind;
    struct hf_slice aor;
    uint32_t number;           /* KEEP: for hf_sip_presence_stored() */
    struct hf_slice key, data; /* KEEP; DROP: key */
    uint32_t left_s;           /* KEEP */
};

#define HF_SIP_PRESENCE_COUNTER_LIST(X)                                                            \
    X(published, "publications begun")                                                             \
    X(refreshed, "publications refreshed")                                                         \
    X(modified, "publications modified")                                                           \
    X(removed, "publications removed by their agent")                                              \
    X(expired, "publications that were not refreshed")                                             \
    X(replaced, "publications of users who had too many")                                          \
    X(mismatched, "PUBLISHs with an entity tag of the past")                                       \
    X(refused, "PUBLISHs refused for anything else")                                               \
    X(loaded, "publications loaded")                                                               \
    X(malformed, "stored publications that could not be read")                                     \
    X(unstored, "publications that could not be stored in time")
struct hf_sip_presence_counters {
#define HF_SIP_PRESENCE_COUNTER_FIELD(name, text) uint64_t name;
    HF_SIP_PRESENCE_COUNTER_LIST(HF_SIP_PRESENCE_COUNTER_FIELD)
#undef HF_SIP_PRESENCE_COUNTER_FIELD
};

/** 0 is the default in brackets. */
struct hf_sip_presence_conf {
    uint32_t publications_max; /* [1000000] then 503 */
    uint32_t per_aor_max;      /* [16] then the one that was published first goes */
    uint32_t expires_min_s;    /* [60] */
    uint32_t expires_max_s;    /* [3600]; at most an hour (RFC 3903 4.1's default) */
    uint64_t seed;             /* entity tags, hash tables: secret */
};

struct hf_sip_presence;
/** -ENOMEM. */
HF_MUST int hf_sip_presence_create(const struct hf_sip_presence_conf *conf, hf_time now,
                                   struct hf_sip_presence **ret_presence);
void hf_sip_presence_destroy(struct hf_sip_presence *p);

/** A PUBLISH of the user himself. */
void hf_sip_presence_publish(struct hf_sip_presence *p, const struct hf_sip_publish *in,
                             hf_time now, struct hf_sip_published *ret_answer);
/** A publication as stored. One that is here already stays. 0; -HF_EMALF and the like: not one;
 * -HF_EFULL; -ENOMEM. */
HF_MUST int hf_sip_presence_load(struct hf_sip_presence *p, struct hf_slice aor,
                                 struct hf_slice key, struct hf_slice data, uint32_t left_s,
                                 hf_time now);
/** The AoR is another server's now: its publications are forgotten, and stay stored. */
void hf_sip_presence_forget(struct hf_sip_presence *p, struct hf_slice aor);
/** Its user is no more: they are dropped. */
void hf_sip_presence_gone(struct hf_sip_presence *p, struct hf_slice aor);
/** KEEP was done; not ok: once more, after 10 s. */
void hf_sip_presence_stored(struct hf_sip_presence *p, struct hf_slice aor, uint32_t number,
                            bool ok, hf_time now);
/** KEEP was done in vain, and is to be done once more at once. false: it is no more. */
bool hf_sip_presence_store(struct hf_sip_presence *p, struct hf_slice aor, uint32_t number);

/** Append what watchers of this AoR get. reachable: it has bindings. b->err: no room for it. */
void hf_sip_presence_write(const struct hf_sip_presence *p, struct hf_slice aor, bool reachable,
                           struct hf_buf *b);
/** How many publications this AoR has. */
size_t hf_sip_presence_of(const struct hf_sip_presence *p, struct hf_slice aor);

/** The next thing to be done; false: nothing more now. */
bool hf_sip_presence_next(struct hf_sip_presence *p, hf_time now,
                          struct hf_sip_presence_out *ret_out);
hf_time hf_sip_presence_deadline(const struct hf_sip_presence *p);
size_t hf_sip_presence_count(const struct hf_sip_presence *p);
const struct hf_sip_presence_counters *hf_sip_presence_counters(const struct hf_sip_presence *p);
