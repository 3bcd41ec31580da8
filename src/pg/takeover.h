/* Take over the sessions of another host: address, sockets, sessions (doc/design/takeover.md). */
#pragma once

#include "core/pair/store.h"
#include "pg/protect.h"

struct hf_pg_takeover;

struct hf_pg_takeover_options {
    struct hf_addr address;
    const char *interface; /* borrowed */
    unsigned prefix_length;
    struct hf_pair_store *store; /* taken; NULL: there are no sessions */
    hf_time clock_offset;        /* this host's clock minus that of who stored */
    hf_time not_before;          /* the former host may speak until then */
    enum hf_pg_takeover_kind kind;
};

/** Nothing happens before hf_pg_takeover_go(). fn: the sockets are settled, the listener may be
 * opened; 0, or -errno with a text in err. Not from within. A reign of ours has begun
 * (hf_pg_protect_lead()). */
HF_MUST int hf_pg_takeover_start(struct hf_pg *pg, const struct hf_pg_takeover_options *options,
                                 void (*fn)(void *arg, int rc, const struct hf_err *err), void *arg,
                                 struct hf_pg_takeover **ret_takeover);
/** The group has this host alone in S on its disks: nobody else can be promoted, so clients may
 * hear of this one (I1), once the former lease is over. */
void hf_pg_takeover_go(struct hf_pg_takeover *t);
/** The listener is there. */
void hf_pg_takeover_listening(struct hf_pg_takeover *t);
/** What is to be taken over, owned by the caller, and the offset of its clock, if nothing of it was
 * begun with: nobody was told to go, or the former lease is not over. Otherwise NULL. */
struct hf_pair_store *hf_pg_takeover_give_back(struct hf_pg_takeover *t, hf_time *ret_clock_offset);
/** The address stays. NULL is fine. */
void hf_pg_takeover_destroy(struct hf_pg_takeover *t);
