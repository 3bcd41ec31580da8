/* What the files of the directory core share: its state, and the calls between them. */
#pragma once

#include <assert.h>

#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/prng.h"
#include "core/directory/directory.h"

#define REPEAT_HEARTBEATS 8   /* a change is repeated by so many heartbeats (A-r3) */
#define ADVERT_GAP HF_MS(2)   /* changes closer together share an advert, as far as they fit */
#define ADVERT_HEAD_MAX 50    /* bytes of an advert's body before its changes */
#define SILENT_PERIODS 3      /* then probes ... */
#define GONE_PERIODS 4        /* ... and then it is gone (I6) */
#define PROBES_MAX 5          /* within the one period between */
#define BACKOFF_MS 100u       /* after a first failed pull; doubles ... */
#define BACKOFF_MS_MAX 30000u /* ... up to this */
#define EXACT_SCAN_HOSTS 64   /* up to here peers are looked at when due, above in steps */

#define SHELF_MAX 8           /* parts of silent peers that are kept for their return ... */
#define SHELF_BYTES_MIN 16384 /* ... if they are longer than this to pull again */

/* What one core knows of one owner. A-r4: at most 32 bytes. */
struct hf_dir_peer {
    struct hf_part *part; /* shared (ref); NULL unless ALIVE or PROBING */
    uint64_t counter;     /* of the last datagram that counted */
    uint32_t heard_ms;    /* when it was last heard of; ms, wraps */
    uint32_t due_ms;      /* not before then the next pull; ms, wraps */
    uint16_t period_cs;   /* its heartbeats, in 10 ms */
    uint8_t state : 2;    /* enum hf_dir_peer_state */
    uint8_t behind : 1;   /* it has more than we have */
    uint8_t full : 1;     /* ask for all: what we have is wrong */
    uint8_t busy : 1;     /* in the queue, or a pull is under way */
    uint8_t fresh : 1;    /* WANTED, and no pull of it has ended yet */
    uint8_t fails : 4;    /* pulls failed in a row, up to 15 */
    uint8_t probes : 4;
};
_Static_assert(sizeof(struct hf_dir_peer) <= 32, "A-r4");

/* A pull under way, with the newest advert that came meanwhile (A8). */
struct pull_slot {
    uint32_t owner; /* HF_OWNER_NONE: free */
    bool outdated;  /* the owner was forgotten meanwhile: the answer is of no use */
    bool held;
    struct hf_datagram_head head; /* of the held advert; host unset */
    struct hf_advert advert;      /* its changes read from `bytes` */
    uint8_t bytes[HF_ADVERT_BODY_MAX];
};

/* A local service, or the memory of a withdrawn one; on `changes` in the order of versions. */
struct local {
    struct hf_list node;
    uint64_t version;       /* in which it changed last */
    struct hf_entry *entry; /* owned (ref); of a withdrawn one only the name counts */
    bool removed;
    uint32_t publisher; /* 0: nobody holds it, the lease runs */
    hf_time expires;    /* HF_NEVER: held */
};

/* A local program's allowance (GCRA: the time at which its allowance will be whole again). */
struct publisher {
    uint32_t id;
    uint32_t n_held;
    hf_time whole_at;
};

struct hf_dir {
    struct hf_dir_store *store; /* borrowed */
    struct hf_dir_peer *peer;   /* owned; by owner id */
    uint32_t self;
    uint32_t heartbeat_ms, listen_ms, sync_ms;
    bool dump;
    struct hf_endpoint endpoint;
    struct hf_prng prng;

    enum hf_dir_state state;
    uint64_t incarnation;
    uint8_t salt[HF_SALT_LEN];
    uint32_t n_alive; /* peers with a part */
    uint32_t n_fresh; /* peers with `fresh` */

    /* deadlines; HF_NEVER: none */
    hf_time heartbeat_at, advert_at, scan_at, lease_at, listen_until, sync_until, persist_at;
    hf_time sent_at;      /* last advert */
    hf_time scanned_at;   /* last scan */
    uint32_t scan_from;   /* where a scan of several steps goes on; 0: none is under way */
    hf_time scan_rest;    /* what the steps done so far want next */
    uint32_t scan_probes; /* that this scan may still send */

    /* our own part */
    struct hf_part *own;  /* shared (ref), sealed */
    struct hf_map locals; /* name -> struct local, owned */
    struct hf_list changes;
    size_t unsent;      /* bytes of changes that no advert has told yet */
    uint32_t n_removed; /* withdrawn ones on `changes` */
    uint64_t floor;     /* changes up to this version are partly forgotten: no delta from below */
    uint64_t beat_version[REPEAT_HEARTBEATS];
    uint32_t beat;
    struct hf_map publishers;

    /* pulls */
    struct pull_slot slot[HF_PULLS_MAX];
    uint32_t n_pulling;
    uint32_t queue[HF_PULL_QUEUE_MAX];
    uint32_t queue_head, n_queued;
    struct hf_part *shelf[SHELF_MAX]; /* shared (ref); not in the tree, see shelf_find() */
    uint32_t shelf_next;
    uint32_t state_from; /* who was asked for the cluster's state last */
    bool state_asked, state_done;

    struct hf_dir_counters count;
};

static inline uint32_t to_ms(hf_time t)
{
    return (uint32_t)(t / HF_NS_PER_MS);
}

/* Milliseconds from `since` to `now`, both wrapping; 0 if `since` is ahead. */
static inline uint32_t ms_since(uint32_t since, uint32_t now)
{
    int32_t d = (int32_t)(now - since);
    return d > 0 ? (uint32_t)d : 0;
}

static inline uint32_t period_of(const struct hf_dir_peer *p)
{
    return p->period_cs * 10u;
}

/* directory.c */
struct hf_dir_act *hf_dir_act(struct hf_dir_out *out, enum hf_dir_act_kind kind, uint32_t owner);
void hf_dir_act_part(struct hf_dir_out *out, uint32_t owner, struct hf_part *before,
                     struct hf_part *after);
void hf_dir_enter_state(struct hf_dir *d, enum hf_dir_state s, struct hf_dir_out *out);

/* peer.c: what adverts and silence tell */
void hf_dir_on_advert(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                      struct hf_dir_out *out);
void hf_dir_on_probe(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                     struct hf_dir_out *out);
void hf_dir_apply_advert(struct hf_dir *d, uint32_t owner, const struct hf_advert *a, hf_time now,
                         struct hf_dir_out *out);
void hf_dir_peer_alive(struct hf_dir *d, uint32_t owner, struct hf_part *part,
                       const struct hf_owner_head *h, hf_time heard, struct hf_dir_out *out);
void hf_dir_peer_want(struct hf_dir *d, uint32_t owner, uint32_t period_ms, hf_time heard,
                      hf_time now);
/* Look at all peers at t, or as soon after as the cluster's size allows. */
void hf_dir_scan_by(struct hf_dir *d, hf_time t);
void hf_dir_scan(struct hf_dir *d, hf_time now, struct hf_dir_out *out);

/* pull.c: what is asked of owners, and their answers */
void hf_dir_pull_queue(struct hf_dir *d, uint32_t owner);
void hf_dir_pull_start(struct hf_dir *d, struct hf_dir_out *out);
void hf_dir_ask_state(struct hf_dir *d, uint32_t owner, struct hf_dir_out *out);
void hf_dir_on_pull(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                    struct hf_dir_out *out);
void hf_dir_on_state_member(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                            struct hf_dir_out *out);
void hf_dir_on_state_end(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                         struct hf_dir_out *out);
struct pull_slot *hf_dir_slot(struct hf_dir *d, uint32_t owner);

/* A silent peer's part is kept aside: if the same process returns, what changed is all to be
 * pulled. */
void hf_dir_shelf_put(struct hf_dir *d, struct hf_part *part);
void hf_dir_shelf_drop(struct hf_dir *d, uint32_t owner);

/* own.c: our own part */
void hf_dir_own_publish(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                        struct hf_dir_out *out);
void hf_dir_own_withdraw(struct hf_dir *d, const struct hf_dir_in *in, hf_time now,
                         struct hf_dir_out *out);
void hf_dir_own_gone(struct hf_dir *d, uint32_t publisher, hf_time now, struct hf_dir_out *out);
void hf_dir_own_leases(struct hf_dir *d, hf_time now, struct hf_dir_out *out);
HF_MUST int hf_dir_own_begin(struct hf_dir *d, const uint8_t salt[HF_SALT_LEN]);
void hf_dir_own_advert(struct hf_dir *d, uint8_t flags, hf_time now, struct hf_dir_out *out);
void hf_dir_own_fini(struct hf_dir *d);
