/* Certificates and keys of holdfast-sip, as its workers share them. */
#pragma once

#include <stdatomic.h>

#include "os/pgtls.h"
#include "sip/config.h"

/** Shared (ref): by the main thread and each worker, until it has another one. Never changed. */
struct hf_sip_tls {
    atomic_uint refs;
    struct hf_tls_context *server, *client;
};

/** Reads the files of section tls; *ret_tls is NULL if there are none. Errors with text. */
HF_MUST int hf_sip_tls_load(const struct hf_sip_config *c, struct hf_err *err,
                            struct hf_sip_tls **ret_tls);
/** NULL is fine; any thread. */
struct hf_sip_tls *hf_sip_tls_ref(struct hf_sip_tls *t);
void hf_sip_tls_unref(struct hf_sip_tls *t);
