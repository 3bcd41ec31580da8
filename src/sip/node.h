/* One worker's element, wired to its sockets, the store and the main thread. */
#pragma once

#include "sip/server.h"

/** Makes the element and sets it as the worker's handler; before the start. Errors with text. */
HF_MUST int hf_sip_node_create(struct hf_sip *s, unsigned worker, struct hf_err *err,
                               struct hf_sip_node **ret_node);
/** The worker has stopped. NULL is fine. */
void hf_sip_node_destroy(struct hf_sip_node *n);

/** What the store calls, in its thread: arg is the struct hf_sip. */
extern const struct hf_sip_store_events hf_sip_node_events;

/** From the main thread: trace this AoR ("": none) in all workers. */
void hf_sip_nodes_trace(struct hf_sip *s, struct hf_slice aor);
/** ... what is known of it; the answer is a mail HF_SIP_TOLD_SHOW with this id. false: no memory.
 */
HF_MUST bool hf_sip_nodes_show(struct hf_sip *s, struct hf_slice aor, uint64_t id);
/** ... there are other certificates: s->tls. */
void hf_sip_nodes_tls(struct hf_sip *s);
/** ... the answer to HF_SIP_ASK_RESOLVE. */
void hf_sip_nodes_resolved(struct hf_sip *s, unsigned worker, uint64_t cookie, struct hf_slice host,
                           const struct hf_sip_flow *to, size_t n);

/** As of the last second; any thread. */
struct hf_sip_node_figures {
    struct hf_sip_element_counters counters;
    struct hf_sip_element_info info;
};
void hf_sip_node_figures(struct hf_sip_node *n, struct hf_sip_node_figures *ret_figures);
