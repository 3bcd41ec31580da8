/* SUBSCRIBE, NOTIFY and PUBLISH at a home: the messages around watch.h's subscriptions (D9-D11). */
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
#include "core/sip/registrar.h"
#include "core/sip/watch.h"

/*
 * One for each element (element.h), which routes to it what is decided to be served here: SUBSCRIBE
 * outside and inside dialogs of ours, PUBLISH; and which tells it what happened to registrations
 * and assignments. Packages: reg (RFC 3680; authorised: the user himself, and whom `may_watch`
 * allows), presence (RFC 3856, PIDF RFC 3863; publications RFC 3903: entity tags, refresh, modify,
 * remove, 412, expiry; the document of the latest publication is sent, several are merged as
 * tuples; without publication: "open" as long as there are bindings).
 *
 * NOTIFY goes along the dialog's route set to its target (12.2.1.1), through the element's proxy
 * (hf_sip_proxy_own()), which tells what came of it.
 */
struct hf_sip_notifier;

struct hf_sip_notifier_ops {
    /** Send this response. */
    void (*reply)(void *ctx, const struct hf_sip_flow *to, struct hf_slice message);
    /** Send this NOTIFY: `write` it with the branch that the element makes; next hop: the first
     * Route of route, or target. Its end goes to hf_sip_notifier_answered(). */
    void (*notify)(void *ctx, uint64_t cookie, struct hf_slice next_hop_uri,
                   const struct hf_sip_request *request, struct hf_slice more_fields,
                   struct hf_slice content_type, struct hf_slice body);
    void (*store)(void *ctx, const struct hf_sip_op *op); /* KEEP, DROP, as element.h */
    /** The bindings of an AoR of ours, for bodies; NULL: none. */
    const struct hf_sip_binding *(*bindings)(void *ctx, struct hf_slice aor);
    /** May this user (canonical AoR, authenticated) watch that one? 1, 0; -1: not decided yet
     * (PENDING). */
    int (*may_watch)(void *ctx, struct hf_slice watcher, enum hf_sip_package p,
                     struct hf_slice aor);
};
struct hf_sip_notifier_conf { /* copied */
    struct hf_sip_watch_conf watch;
    struct hf_slice contact;               /* "<sip:host:port>": of our dialogs */
    uint32_t publications_max;             /* 0: 1000000 */
    uint32_t publish_min_s, publish_max_s; /* 0: 60, 3600 */
    size_t body_max;                       /* 0: 16384: larger PUBLISH bodies get 413 */
    uint64_t seed;
};
HF_MUST int hf_sip_notifier_create(const struct hf_sip_notifier_conf *conf,
                                   const struct hf_sip_notifier_ops *ops, void *ctx, hf_time now,
                                   struct hf_sip_notifier **ret_notifier);
void hf_sip_notifier_destroy(struct hf_sip_notifier *n);

/** A SUBSCRIBE or PUBLISH for an AoR of ours, without faults, by an authenticated user (empty: not
 * authenticated). epoch: of the row. It is answered through ops->reply. */
void hf_sip_notifier_request(struct hf_sip_notifier *n, const struct hf_sip_msg *m,
                             const struct hf_sip_flow *from, struct hf_slice aor, uint64_t epoch,
                             struct hf_slice user, hf_time now);
/** Is a dialog with this To tag ours? Its SUBSCRIBE goes to request(), whoever's the AoR is. */
bool hf_sip_notifier_has_dialog(const struct hf_sip_notifier *n, const struct hf_sip_msg *m);
void hf_sip_notifier_answered(struct hf_sip_notifier *n, uint64_t cookie, uint16_t status,
                              const struct hf_sip_msg *response, hf_time now);
/** Bindings have changed: as the registrar says it. */
void hf_sip_notifier_changed(struct hf_sip_notifier *n, struct hf_slice aor,
                             const struct hf_sip_change *change, size_t n_changes, hf_time now);
/** The AoR is another server's now; in reg documents its contacts are `deactivated` (D10). To be
 * called before its bindings are forgotten. */
void hf_sip_notifier_left(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now);
/** Its user is no more. */
void hf_sip_notifier_gone(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now);
/** What LOAD found: of a server that is dead (in_stead), or of our own former life. */
void hf_sip_notifier_load(struct hf_sip_notifier *n, struct hf_slice aor,
                          const struct hf_sip_kept *kept, size_t n_kept, bool in_stead,
                          hf_time now);
/** KEEP or DROP was done (result's cookie is as in the op). */
void hf_sip_notifier_stored(struct hf_sip_notifier *n, const struct hf_sip_result *r, hf_time now);
void hf_sip_notifier_tick(struct hf_sip_notifier *n, hf_time now);
hf_time hf_sip_notifier_deadline(const struct hf_sip_notifier *n);
size_t hf_sip_notifier_count(const struct hf_sip_notifier *n);
const struct hf_sip_watch_counters *hf_sip_notifier_counters(const struct hf_sip_notifier *n);
