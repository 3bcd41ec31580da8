/* A SIP registrar's bindings: what a REGISTER does to them, when they end, what is stored of them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"
#include "base/limits.h"
#include "base/slice.h"
#include "core/sip/write.h"

/*
 * RFC 3261 10.3, RFC 3327 (Path), RFC 3608 (Service-Route), RFC 5626 (flows: bindings by instance
 * and reg-id). Authentication, and whether this server is the home of the address of record, are
 * the caller's to settle before.
 *
 * A request is applied whole or not at all. What it changes is told as a list; changes with `store`
 * are to be written to the database, and when `wait` is set the response may go out only after that
 * (S3): it can be written at once and held. Pure refreshes do not wait, and are stored only when
 * the stored expiry has fallen behind by a quarter of the binding's life.
 *
 * A request with the Call-ID and CSeq of a binding is a retransmission: 200, and nothing changes
 * (S4), also at a server that loaded the binding from the database.
 *
 * Memory: one allocation per address of record, one per binding; under 600 bytes in all for a usual
 * one. Endings are on a wheel of seconds: nothing is sorted.
 */
struct hf_sip_registrar;

struct hf_sip_registrar_limits {
    size_t bindings_max;           /* in all: then 503 */
    uint32_t expires_default_s;    /* where nobody says (3600) */
    uint32_t expires_min_s;        /* shorter ones get 423; RFC 3261: at most 3600 */
    uint32_t expires_max_s;        /* longer ones are cut to it */
    struct hf_slice service_route; /* value for the 200 (RFC 3608); empty: none; borrowed */
    uint64_t seed;
};

/** One binding; owned by the registrar. The text it has: see the functions below. */
struct hf_sip_binding {
    struct hf_sip_binding *next; /* of the same AoR: by falling q, then the latest first */
    hf_time expires;
    hf_time stored_until; /* when it ends as told to be stored */
    uint32_t life_s;      /* as granted when it was last registered */
    uint32_t cseq;
    uint32_t reg_id; /* 0: none (RFC 5626) */
    uint16_t q;      /* thousandths */
    bool outbound;   /* registered as a flow: reg_id and instance are its key */
};
/** The contact's URI; its other parameters (";q=0.5;+sip.instance=..." without expires); the
 * Call-ID it was registered with; its Path values with commas; its instance with quotes; its AoR.
 * Empty: none. Borrowed until the registrar is called again. */
struct hf_slice hf_sip_binding_uri(const struct hf_sip_binding *b);
struct hf_slice hf_sip_binding_params(const struct hf_sip_binding *b);
struct hf_slice hf_sip_binding_call_id(const struct hf_sip_binding *b);
struct hf_slice hf_sip_binding_path(const struct hf_sip_binding *b);
struct hf_slice hf_sip_binding_instance(const struct hf_sip_binding *b);
struct hf_slice hf_sip_binding_aor(const struct hf_sip_binding *b);
/** Whole seconds until it ends, rounded up; 0 if it is over. */
uint32_t hf_sip_binding_left_s(const struct hf_sip_binding *b, hf_time now);

/** -ENOMEM. */
HF_MUST int hf_sip_registrar_create(const struct hf_sip_registrar_limits *limits, hf_time now,
                                    struct hf_sip_registrar **ret_registrar);
void hf_sip_registrar_destroy(struct hf_sip_registrar *r);

/* RFC 3680 5.1's words, as watchers are told */
#define HF_SIP_CHANGE_LIST(X)                                                                      \
    X(REGISTERED, "registered")     /* new */                                                      \
    X(CHANGED, "registered")        /* the contact, its path or parameters are new */              \
    X(REFRESHED, "refreshed")       /* only its end, CSeq or Call-ID */                            \
    X(UNREGISTERED, "unregistered") /* by request */                                               \
    X(EXPIRED, "expired")                                                                          \
    X(FAILED, "deactivated") /* its flow is broken: register again */
enum hf_sip_change_kind {
#define HF_SIP_CHANGE_ENUM(id, event) HF_SIP_CHANGE_##id,
    HF_SIP_CHANGE_LIST(HF_SIP_CHANGE_ENUM)
#undef HF_SIP_CHANGE_ENUM
};
/** The event attribute of RFC 3680. */
const char *hf_sip_change_event(enum hf_sip_change_kind kind);
/** Is the binding no more? */
bool hf_sip_change_ends(enum hf_sip_change_kind kind);

struct hf_sip_change {
    enum hf_sip_change_kind kind;
    bool store; /* write it, or delete it (hf_sip_change_ends()) */
    /* both borrowed until the registrar is called again: */
    const struct hf_sip_binding *binding;
    const struct hf_sip_binding *replaced; /* what it was before; NULL: new, or the same object */
};
struct hf_sip_registered {
    uint16_t status;                    /* of the response */
    const char *reason;                 /* static; NULL: the usual one */
    bool wait;                          /* the response waits for the store */
    bool outbound;                      /* RFC 5626 was applied: Require: outbound in the 200 */
    struct hf_slice unsupported;        /* of 420; borrowed from the request */
    const struct hf_sip_binding *first; /* of 200: all bindings of the AoR; borrowed likewise */
    size_t n_changes;
    struct hf_sip_change change[2 * HF_SIP_CONTACTS_MAX];
};

/**
 * A REGISTER without fault. aor: canonical (hf_sip_aor() of To), borrowed for the call. cap_s: no
 * binding is granted more (60 while the database is away, S3), nor keeps more by a retransmission;
 * 0: no such cap. Statuses: 200; 400;
 * 403 (more than HF_SIP_CONTACTS_MAX, and none of this Call-ID to make room: else those with the
 * lowest CSeq end); 420; 423; 439; 500 (CSeq is not above the binding's, or no
 * memory); 503 (bindings_max).
 */
void hf_sip_registrar_register(struct hf_sip_registrar *r, const struct hf_sip_msg *m,
                               struct hf_slice aor, uint32_t cap_s, hf_time now,
                               struct hf_sip_registered *ret_registered);
/** The fields of its response, between hf_sip_begin_response() and hf_sip_end(). */
void hf_sip_registrar_put(const struct hf_sip_registrar *r,
                          const struct hf_sip_registered *registered, const struct hf_sip_msg *m,
                          hf_time now, struct hf_wr *w);

/** The bindings of an AoR, by falling q; NULL: none. Some may be over and not yet be gone:
 * hf_sip_binding_left_s(). */
const struct hf_sip_binding *hf_sip_registrar_find(const struct hf_sip_registrar *r,
                                                   struct hf_slice aor);

/** End what is over, at most HF_SIP_EXPIRED_AT_ONCE_MAX of them, into changes of ret. true: there
 * may be more, call again. */
bool hf_sip_registrar_tick(struct hf_sip_registrar *r, hf_time now,
                           struct hf_sip_change ret_change[HF_SIP_EXPIRED_AT_ONCE_MAX],
                           size_t *ret_n);
/** End this one (of hf_sip_registrar_find()), as its flow is broken (RFC 5626). */
void hf_sip_registrar_fail(struct hf_sip_registrar *r, const struct hf_sip_binding *b,
                           struct hf_sip_change *ret_change);
/** When to call it next; HF_NEVER: there are no bindings. */
hf_time hf_sip_registrar_deadline(const struct hf_sip_registrar *r);

/** A binding as the database has it; all borrowed for the call. */
struct hf_sip_stored_binding {
    struct hf_slice aor, uri, params, call_id, path;
    uint32_t cseq, life_s, left_s;
    bool outbound;
};
/** As stored, to be loaded at another home. */
void hf_sip_binding_dump(const struct hf_sip_binding *b, hf_time now,
                         struct hf_sip_stored_binding *ret_stored);
/** Take over a stored binding (S3). One that is here already stays, unless the stored one is newer
 * (same Call-ID and higher CSeq). 0; -HF_EVALUE: not a binding; -HF_EFULL, -ENOMEM. */
HF_MUST int hf_sip_registrar_load(struct hf_sip_registrar *r, const struct hf_sip_stored_binding *s,
                                  hf_time now);
/** The AoR has another home now: forget its bindings, without changes. Returns how many. */
size_t hf_sip_registrar_forget(struct hf_sip_registrar *r, struct hf_slice aor);

/** Walk all AoRs: start with *pos = 0; the first binding of the next one, NULL at the end. */
const struct hf_sip_binding *hf_sip_registrar_next(const struct hf_sip_registrar *r, size_t *pos);
/** Bindings; addresses of record; bytes of all (without what the allocator adds). */
size_t hf_sip_registrar_bindings(const struct hf_sip_registrar *r);
size_t hf_sip_registrar_aors(const struct hf_sip_registrar *r);
size_t hf_sip_registrar_bytes(const struct hf_sip_registrar *r);
