/* Watchers: subscriptions to what a home knows of its clients (RFC 6665), and when who is told. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "base/slice.h"
#include "base/wr.h"

/*
 * One object for all subscriptions that a server has. It makes no messages and has no bodies: it
 * says which NOTIFY is due, with which numbers; the driver writes it from the dialog and from the
 * state as it is then, always the full one.
 *
 *   SUBSCRIBE --> PENDING --authorise()--> ACTIVE --+--expired, unsubscribed------> ENDING --> gone
 *                    |                              +--left(): deactivated--------->   (NOTIFY
 *                    +-------- rejected ------------+--gone(): noresource---------->  terminated)
 *
 *   A NOTIFY that is refused (but for 503 and 500 with Retry-After) or not answered ends it without
 *   a word (RFC 6665 4.2.2); so does the answer to the one that says terminated.
 *
 * Numbers (S2). CSeq and the version of reg event bodies go up together, version = CSeq - 1.
 * Blocks of 128 are reserved in what is stored, before they are used; who goes on with a stored
 * subscription, after a crash or in a dead server's stead, goes on after the block. So a watcher
 * sees a gap at most, and takes the full state.
 *
 * Whose turn it is. One NOTIFY per subscription is under way at a time; what changes meanwhile, or
 * within the package's least interval (5 s, RFC 3680 4.10), is told in one afterwards. What answers
 * a SUBSCRIBE goes at once; all others are paced by `rate` together, in order, so that nobody is
 * stampeded (D10).
 *
 * How the driver uses it: call a function for what happened, then hf_sip_watch_next() until it is
 * false; sleep until hf_sip_watch_deadline().
 *
 *   NOTIFY   send it; hf_sip_watch_answered() with what came of it (408 if nothing did), or
 *            hf_sip_watch_unsent()
 *   STORE    write hf_sip_watch_dump(), under Call-ID, tags and event id, and when it expires;
 *            hf_sip_watch_stored() then. The answer to a SUBSCRIBE waits for that: what is granted
 *            is stored. With the database away say so at once: the watcher is told all the same,
 *            and is not protected until it has been stored, which is tried again after 10 s
 *   ERASE    delete what is stored of it
 */
#define HF_SIP_PACKAGE_LIST(X)                                                                     \
    X(REG, "reg", 3761)           /* RFC 3680 4.4 */                                               \
    X(PRESENCE, "presence", 3600) /* RFC 3856 6.4 */
enum hf_sip_package {
#define HF_SIP_PACKAGE_ENUM(id, name, expires_s) HF_SIP_PACKAGE_##id,
    HF_SIP_PACKAGE_LIST(HF_SIP_PACKAGE_ENUM)
#undef HF_SIP_PACKAGE_ENUM
        HF_SIP_PACKAGE_COUNT_
};
const char *hf_sip_package_name(enum hf_sip_package p);
/** The package of this name (case matters, RFC 6665 8.4), or HF_SIP_PACKAGE_COUNT_: 489. */
enum hf_sip_package hf_sip_package_of(struct hf_slice name);

#define HF_SIP_SUB_STATE_LIST(X)                                                                   \
    X(PENDING, "pending")                                                                          \
    X(ACTIVE, "active")                                                                            \
    X(ENDING, "terminated")
enum hf_sip_sub_state {
#define HF_SIP_SUB_STATE_ENUM(id, name) HF_SIP_SUB_##id,
    HF_SIP_SUB_STATE_LIST(HF_SIP_SUB_STATE_ENUM)
#undef HF_SIP_SUB_STATE_ENUM
        HF_SIP_SUB_STATE_COUNT_
};
/** As it stands in Subscription-State. */
const char *hf_sip_sub_state_name(enum hf_sip_sub_state s);

/* Reasons of "terminated" (RFC 6665 4.1.3). */
#define HF_SIP_SUB_REASON_LIST(X)                                                                  \
    X(NONE, "")                                                                                    \
    X(DEACTIVATED, "deactivated") /* subscribe again, at once: it has moved (D9) */                \
    X(TIMEOUT, "timeout")                                                                          \
    X(REJECTED, "rejected")                                                                        \
    X(NORESOURCE, "noresource")
enum hf_sip_sub_reason {
#define HF_SIP_SUB_REASON_ENUM(id, name) HF_SIP_SUB_REASON_##id,
    HF_SIP_SUB_REASON_LIST(HF_SIP_SUB_REASON_ENUM)
#undef HF_SIP_SUB_REASON_ENUM
        HF_SIP_SUB_REASON_COUNT_
};
const char *hf_sip_sub_reason_name(enum hf_sip_sub_reason r);

/** A dialog as the notifier has it (RFC 3261 12.1.1). All borrowed; copied where it is kept. */
struct hf_sip_dialog {
    struct hf_slice call_id, local_tag, remote_tag;
    struct hf_slice local_uri, remote_uri; /* of To and From of the SUBSCRIBE */
    struct hf_slice target;                /* its Contact */
    struct hf_slice route;                 /* its Record-Route values, in order, as one field */
    struct hf_slice event_id;              /* of its Event; may be empty */
    struct hf_slice watcher;               /* canonical AoR of who sent it; may be empty */
};

/** A SUBSCRIBE. */
struct hf_sip_subscribe {
    enum hf_sip_package package;
    struct hf_slice aor;         /* whom it watches, canonical */
    struct hf_sip_dialog dialog; /* local_tag: ours, made by the driver if it had no To tag */
    bool in_dialog;              /* it had a To tag: a refresh */
    uint32_t cseq;
    bool has_expires;
    uint32_t expires_s;
    bool authorised; /* else PENDING until authorise() */
};

/** What to answer. */
struct hf_sip_subscribed {
    unsigned status;    /* 200; 423, 481, 489, 500, 503 */
    uint32_t expires_s; /* 200: granted; 423: Min-Expires */
    uint32_t sub;       /* 200: its number, never 0 */
    bool stores;        /* 200: STORE follows, which the answer is to wait for */
};

#define HF_SIP_WATCH_OUT_LIST(X)                                                                   \
    X(NOTIFY, "notify")                                                                            \
    X(STORE, "store")                                                                              \
    X(ERASE, "erase")
enum hf_sip_watch_out_kind {
#define HF_SIP_WATCH_OUT_ENUM(id, name) HF_SIP_WATCH_##id,
    HF_SIP_WATCH_OUT_LIST(HF_SIP_WATCH_OUT_ENUM)
#undef HF_SIP_WATCH_OUT_ENUM
        HF_SIP_WATCH_OUT_COUNT_
};
const char *hf_sip_watch_out_name(enum hf_sip_watch_out_kind k);

/** Something to be done, or a subscription as it is; slices are borrowed until the next call of
 * anything that changes one. */
struct hf_sip_watch_out {
    enum hf_sip_watch_out_kind kind;
    uint32_t sub;
    enum hf_sip_package package;
    struct hf_slice aor;
    struct hf_sip_dialog dialog;
    enum hf_sip_sub_state state;
    enum hf_sip_sub_reason reason;
    bool shown;         /* it is, or was, ACTIVE: the watcher may see the state */
    uint32_t expires_s; /* left; 0 in the last NOTIFY */
    /* NOTIFY */
    uint32_t cseq, version;
};

#define HF_SIP_WATCH_COUNTER_LIST(X)                                                               \
    X(subscriptions, "subscriptions begun")                                                        \
    X(refreshed, "subscriptions refreshed")                                                        \
    X(refused, "SUBSCRIBEs refused")                                                               \
    X(full, "SUBSCRIBEs refused for a limit")                                                      \
    X(notified, "NOTIFYs sent")                                                                    \
    X(merged, "changes told together with another one")                                            \
    X(unsent, "NOTIFYs that could not be sent, and are tried again")                               \
    X(failed, "subscriptions ended as their NOTIFY was refused or not answered")                   \
    X(expired, "subscriptions that were not refreshed")                                            \
    X(deactivated, "watchers told to subscribe again")                                             \
    X(in_stead, "... for a server that is dead")                                                   \
    X(repeated, "... who had been told already")                                                   \
    X(loaded, "subscriptions loaded")                                                              \
    X(malformed, "stored subscriptions that could not be read")                                    \
    X(unstored, "subscriptions that could not be stored in time")
struct hf_sip_watch_counters {
#define HF_SIP_WATCH_COUNTER_FIELD(name, text) uint64_t name;
    HF_SIP_WATCH_COUNTER_LIST(HF_SIP_WATCH_COUNTER_FIELD)
#undef HF_SIP_WATCH_COUNTER_FIELD
};

/** Options; 0 is the default in brackets. Copied. */
struct hf_sip_watch_conf {
    uint64_t seed;
    uint32_t subs_max;      /* [1000000] */
    uint32_t per_aor_max;   /* [256] */
    uint32_t expires_min_s; /* [60] */
    uint32_t expires_max_s; /* [7200] */
    uint32_t rate;          /* [1000] NOTIFYs per second that nobody waits for */
    hf_time interval;       /* [5 s] between two for a change */
};

struct hf_sip_watch;
HF_MUST int hf_sip_watch_create(const struct hf_sip_watch_conf *conf, hf_time now,
                                struct hf_sip_watch **ret_watch);
void hf_sip_watch_destroy(struct hf_sip_watch *w);

/** A SUBSCRIBE for one of ours. The first NOTIFY (or the last, if it asks for 0) follows at once.
 */
void hf_sip_watch_subscribe(struct hf_sip_watch *w, const struct hf_sip_subscribe *in, hf_time now,
                            struct hf_sip_subscribed *ret_answer);
/** The owner has decided on a PENDING one. */
void hf_sip_watch_authorise(struct hf_sip_watch *w, uint32_t sub, bool yes, hf_time now);
/** What is known of the AoR has changed. */
void hf_sip_watch_changed(struct hf_sip_watch *w, enum hf_sip_package package, struct hf_slice aor,
                          hf_time now);
/** The AoR is another server's now (the table says so already): deactivated. */
void hf_sip_watch_left(struct hf_sip_watch *w, struct hf_slice aor, hf_time now);
/** The AoR is nobody's any more: noresource. */
void hf_sip_watch_gone(struct hf_sip_watch *w, struct hf_slice aor, hf_time now);
/** The NOTIFY with this CSeq could not be sent, as our address had just moved on, or the watcher's
 * connection is broken: again after 2 s, from where it can be sent then, for as long as an answer
 * would be waited for. The watcher has missed nothing yet. */
void hf_sip_watch_unsent(struct hf_sip_watch *w, uint32_t sub, uint32_t cseq, hf_time now);
/** What came of the NOTIFY with this CSeq. retry_after: seconds, 0 if there was none. */
void hf_sip_watch_answered(struct hf_sip_watch *w, uint32_t sub, uint32_t cseq, unsigned status,
                           uint32_t retry_after, hf_time now);
/** STORE was done; ok: it is stored. */
void hf_sip_watch_stored(struct hf_sip_watch *w, uint32_t sub, bool ok, hf_time now);
/** STORE was done in vain, and is to be done once more at once. false: it is ending, or no more. */
bool hf_sip_watch_store(struct hf_sip_watch *w, uint32_t sub);
/** One whose SUBSCRIBE was never answered: it is no more, and its watcher hears nothing. */
void hf_sip_watch_forget(struct hf_sip_watch *w, uint32_t sub);

/** What is to be stored of it; false: there is no such subscription. w->err if there is no room. */
bool hf_sip_watch_dump(const struct hf_sip_watch *w, uint32_t sub, struct hf_wr *wr);
/**
 * A stored subscription, `left` before it expires. in_stead: of a dead server, whose AoR is ours
 * now: its watcher is told to subscribe again (D11, S2); else it goes on, with a NOTIFY of the full
 * state. 0; -HF_EMALF and the like: not one; -HF_EFULL, -ENOMEM; -EEXIST: it is here already.
 */
HF_MUST int hf_sip_watch_load(struct hf_sip_watch *w, struct hf_slice dump, hf_time left,
                              bool in_stead, hf_time now);

/** The next thing to be done; false: nothing more now. */
bool hf_sip_watch_next(struct hf_sip_watch *w, hf_time now, struct hf_sip_watch_out *ret_out);
/** A subscription by its number (kind, cseq and version mean nothing). false: there is none. */
bool hf_sip_watch_get(const struct hf_sip_watch *w, uint32_t sub, hf_time now,
                      struct hf_sip_watch_out *ret_sub);
/** The number of the subscription of this dialog: Call-ID, tags, event id. 0: there is none. */
uint32_t hf_sip_watch_find(const struct hf_sip_watch *w, const struct hf_sip_dialog *dialog);
/** How many watch this AoR, of any package and state; the numbers of the first `room` of them. */
size_t hf_sip_watch_subs(const struct hf_sip_watch *w, struct hf_slice aor, uint32_t *ret_sub,
                         size_t room);
hf_time hf_sip_watch_deadline(const struct hf_sip_watch *w);
uint32_t hf_sip_watch_count(const struct hf_sip_watch *w);
const struct hf_sip_watch_counters *hf_sip_watch_counters(const struct hf_sip_watch *w);
