/* The notifier's parts among themselves: messages (notifier.c), bodies (notifier_body.c). */
#pragma once

#include "base/map.h"
#include "base/prng.h"
#include "core/sip/notifier.h"
#include "core/sip/write.h"

struct hf_sip_notifier {
    struct hf_sip_notifier_conf conf;
    struct hf_sip_notifier_ops ops;
    void *ctx;
    struct hf_sip_watch *watch;
    struct hf_sip_presence *presence;
    struct hf_map past; /* by AoR */
    struct hf_prng prng;
    char *contact; /* owned */
    bool running;
    uint32_t n_keeps;
    struct hf_buf body;
    uint8_t dump[HF_SIP_MESSAGE_MAX + 1024];
    uint8_t text[HF_SIP_MESSAGE_MAX]; /* values of what is written */
    uint8_t out[HF_SIP_MESSAGE_MAX];  /* a response */
};

/** Compose n->body: what the watcher of o may see. Its type; empty: no body. */
struct hf_slice hf_sip_notifier_body(struct hf_sip_notifier *n, const struct hf_sip_watch_out *o,
                                     hf_time now);
/** A change of a binding: contacts that end are shown a while. */
void hf_sip_notifier_note_ended(struct hf_sip_notifier *n, struct hf_slice aor,
                                const struct hf_sip_change *c, hf_time now);
/** The AoR leaves: how it is at last. Without memory its watchers are told all the same. */
void hf_sip_notifier_remember(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now);
/** It is served here: what it was like when it left counts no more. */
void hf_sip_notifier_is_ours(struct hf_sip_notifier *n, struct hf_slice aor);
/** Nobody watches it any more. */
void hf_sip_notifier_past_drop(struct hf_sip_notifier *n, struct hf_slice aor);
void hf_sip_notifier_past_fini(struct hf_sip_notifier *n);
