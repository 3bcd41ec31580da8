/* SUBSCRIBE, NOTIFY and PUBLISH at a home: the messages around watch.h's subscriptions and
 * presence.h's publications (D9-D11). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/hftime.h"
#include "base/slice.h"
#include "core/sip/flow.h"
#include "core/sip/message.h"
#include "core/sip/ops.h"
#include "core/sip/presence.h"
#include "core/sip/registrar.h"
#include "core/sip/watch.h"

/*
 * One for each element (element.h), which routes to it what is decided to be served here: SUBSCRIBE
 * outside and inside dialogs of ours, PUBLISH; and which tells it what happened to registrations
 * and assignments. Packages: reg (RFC 3680), presence (RFC 3856; documents: presence.h). The user
 * himself may watch both, others whom `may_watch` allows; only he may publish.
 *
 * What is granted is stored: the 200 to a SUBSCRIBE or PUBLISH waits for its KEEP (ops->hold).
 *
 * A SUBSCRIBE outside a dialog gets a To tag made from its transaction: the same one again, as its
 * answer was lost, finds the subscription and gets the same answer. So does a PUBLISH.
 *
 * NOTIFY goes along the dialog's route set to its target (12.2.1.1), through the element's proxy
 * (hf_sip_proxy_own()), which tells what came of it. It has a body only if the watcher may see the
 * state: not while PENDING, nor after REJECTED or NORESOURCE. When the watcher is told to subscribe
 * again as the AoR has moved, contacts are `deactivated` in reg documents (RFC 3680 5.3: register
 * again, at once); what had been published is shown for the last time. This is composed when
 * left() is called, as by the time the NOTIFY's turn comes the bindings are another server's.
 *
 * What is kept under (what, AoR, key), all big-endian:
 *   's'  key: our tag of the dialog, then "-" and a hash of the event's id if it has one; data:
 *        hf_sip_watch_dump()
 *   'p'  key: the part of the entity tag that stays; data: see presence.h
 */
struct hf_sip_notifier;

/** None of them may be NULL. They are called from within any function below; from within them the
 * notifier may be called, too: what that brings about follows afterwards. */
struct hf_sip_notifier_ops {
    /** Send this response. */
    void (*reply)(void *ctx, const struct hf_sip_flow *to, struct hf_slice message);
    /** ... when the next KEEP of this key (HF_SIP_KEEP_KEY() of its cookie) is stored, or can't be.
     * fresh: nobody knows of it before, so STALE may take all of it back (hf_sip_notifier_unask()),
     * and the request to who has the AoR now. */
    void (*hold)(void *ctx, uint64_t key, bool fresh, const struct hf_sip_flow *to,
                 struct hf_slice message);
    /** Send this NOTIFY: request as it is, but for transport, sent_by and branch, which are the
     * element's to fill; then more_fields (whole lines); then type and body (both empty: none).
     * next_hop: a URI. Its end goes to hf_sip_notifier_answered(), with this cookie. */
    void (*notify)(void *ctx, uint64_t cookie, struct hf_slice next_hop,
                   const struct hf_sip_request *request, struct hf_slice more_fields,
                   struct hf_slice type, struct hf_slice body);
    /** KEEP, DROP, as element.h. Results of KEEP go to hf_sip_notifier_stored(); its cookies are
     * the notifier's own: keep them apart from others by the op's kind. */
    void (*store)(void *ctx, const struct hf_sip_op *op);
    /** The bindings of an AoR of ours, for bodies; NULL: none. */
    const struct hf_sip_binding *(*bindings)(void *ctx, struct hf_slice aor);
    /** The epoch of an AoR's row as it is known now; 0: not known. */
    uint64_t (*epoch)(void *ctx, struct hf_slice aor);
    /** May this user (canonical AoR, authenticated if we do that; empty: nobody knows) watch that
     * other one? 1, 0; -1: not decided yet (PENDING until hf_sip_notifier_decided()). */
    int (*may_watch)(void *ctx, struct hf_slice watcher, enum hf_sip_package p,
                     struct hf_slice aor);
};
struct hf_sip_notifier_conf { /* copied */
    struct hf_sip_watch_conf watch;
    struct hf_slice contact;               /* "<sip:host:port>": of our dialogs */
    uint32_t publications_max;             /* 0: 1000000 */
    uint32_t publish_min_s, publish_max_s; /* 0: 60, 3600 */
    size_t body_max;                       /* 0: 16384: larger PUBLISH bodies get 413 */
    uint64_t seed;                         /* of tags, entity tags and tables: secret */
};
/** -ENOMEM. */
HF_MUST int hf_sip_notifier_create(const struct hf_sip_notifier_conf *conf,
                                   const struct hf_sip_notifier_ops *ops, void *ctx, hf_time now,
                                   struct hf_sip_notifier **ret_notifier);
void hf_sip_notifier_destroy(struct hf_sip_notifier *n);

/**
 * A SUBSCRIBE or PUBLISH without faults, for an AoR of ours (canonical; in a dialog of ours that
 * of the subscription counts), by an authenticated user (canonical AoR; empty: we do not
 * authenticate, From is believed). It is answered through ops->reply: SUBSCRIBE 200, 400, 403, 406,
 * 415, 420, 423, 481, 489, 500, 503; PUBLISH 200, 400, 403, 412, 413, 415, 420, 423, 489, 503
 * (RFC 6665 4.2.1, RFC 3903 6).
 */
void hf_sip_notifier_request(struct hf_sip_notifier *n, const struct hf_sip_msg *m,
                             const struct hf_sip_flow *from, struct hf_slice aor,
                             struct hf_slice user, hf_time now);
/** Is this request in a dialog of ours? Its SUBSCRIBE goes to request(), whoever's the AoR is. */
bool hf_sip_notifier_has_dialog(const struct hf_sip_notifier *n, const struct hf_sip_msg *m);
/** What came of a NOTIFY: a final status (408: nothing; 503: it could not be sent) and the response
 * or NULL. */
void hf_sip_notifier_answered(struct hf_sip_notifier *n, uint64_t cookie, uint16_t status,
                              const struct hf_sip_msg *response, hf_time now);
/** Bindings have changed: as the registrar says it. */
void hf_sip_notifier_changed(struct hf_sip_notifier *n, struct hf_slice aor,
                             const struct hf_sip_change *change, size_t n_changes, hf_time now);
/** may_watch has an answer now for those who want to watch this AoR. */
void hf_sip_notifier_decided(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now);
/** The AoR is another server's now; in reg documents its contacts are `deactivated` (D10). To be
 * called before its bindings are forgotten. What is stored of its publications stays; what is of
 * its subscriptions is dropped with the answer to each last NOTIFY. */
void hf_sip_notifier_left(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now);
/** Its user is no more. */
void hf_sip_notifier_gone(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now);

/** Whose was it before? */
enum hf_sip_former {
    HF_SIP_FORMER_SELF, /* ours, before we were started anew: its subscriptions go on */
    HF_SIP_FORMER_DEAD, /* a dead server's: its watchers are told in its stead (S2, D11) */
    /* a server's that lives: it tells its watchers; only publications are taken. If it dies before
     * it has told all, LOAD once more, as DEAD: those that are still stored are told then (see
     * element_untold.c) */
    HF_SIP_FORMER_ALIVE,
};
/** What LOAD found, after its bindings have been loaded. */
void hf_sip_notifier_load(struct hf_sip_notifier *n, struct hf_slice aor,
                          const struct hf_sip_kept *kept, size_t n_kept, enum hf_sip_former former,
                          hf_time now);
/** Which subscription or publication a KEEP's cookie is about; the rest tells its KEEPs apart. */
#define HF_SIP_KEEP_KEY(cookie) ((cookie) & (1ULL << 63 | UINT32_MAX))
/** KEEP or DROP was done (result's cookie is as in the op). What could not be stored is given once
 * more after 10 s; true: at once, as the row was STALE and is known anew. */
bool hf_sip_notifier_stored(struct hf_sip_notifier *n, const struct hf_sip_result *r, hf_time now);
/** What was asked for and never answered: a subscription is no more; a publication goes with the
 * AoR. */
void hf_sip_notifier_unask(struct hf_sip_notifier *n, uint64_t key);
void hf_sip_notifier_tick(struct hf_sip_notifier *n, hf_time now);
hf_time hf_sip_notifier_deadline(const struct hf_sip_notifier *n);
/** Subscriptions; publications. */
size_t hf_sip_notifier_count(const struct hf_sip_notifier *n);
size_t hf_sip_notifier_publications(const struct hf_sip_notifier *n);
const struct hf_sip_watch_counters *hf_sip_notifier_counters(const struct hf_sip_notifier *n);
const struct hf_sip_presence_counters *hf_sip_notifier_presence_counters(
    const struct hf_sip_notifier *n);
