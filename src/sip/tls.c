/* Certificates and keys of holdfast-sip: read at the start, and again by SIGHUP. */
#include "sip/tls.h"

#include <errno.h>

#include "base/log.h"
#include "base/mem.h"

int hf_sip_tls_load(const struct hf_sip_config *c, struct hf_err *err, struct hf_sip_tls **ret_tls)
{
    bool verify = c->tls.verify_servers && *c->tls.ca_file;
    struct hf_tls_context_opt o = {.server = true,
                                   .verify = c->tls.clients    ? HF_TLS_VERIFY_CA
                                             : *c->tls.ca_file ? HF_TLS_VERIFY_IF_GIVEN
                                                               : HF_TLS_VERIFY_NOT,
                                   .cert_file = c->tls.cert_file,
                                   .key_file = c->tls.key_file,
                                   .ca_file = c->tls.ca_file,
                                   .crl_file = c->tls.crl_file,
                                   .ciphers = c->tls.ciphers,
                                   .resume = true};
    if (!*c->tls.cert_file) {
        *ret_tls = NULL;
        return 0;
    }
    struct hf_sip_tls *t = hf_alloc(sizeof(*t));
    if (!t) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    atomic_init(&t->refs, 1);
    int rc = hf_tls_context_create(&o, err, &t->server);
    o.server = o.resume = false;
    o.verify = verify ? HF_TLS_VERIFY_FULL : HF_TLS_VERIFY_NOT;
    if (rc == 0 && !verify) {
        hf_log_warn("", "certificates of servers that are connected to are not verified: set "
                        "tls.ca_file");
    }
    rc = rc ? rc : hf_tls_context_create(&o, err, &t->client);
    if (rc) {
        hf_sip_tls_unref(t);
        return rc;
    }
    *ret_tls = t;
    return 0;
}

struct hf_sip_tls *hf_sip_tls_ref(struct hf_sip_tls *t)
{
    if (t) {
        atomic_fetch_add(&t->refs, 1);
    }
    return t;
}

void hf_sip_tls_unref(struct hf_sip_tls *t)
{
    if (t && atomic_fetch_sub(&t->refs, 1) == 1) {
        hf_tls_context_destroy(t->server);
        hf_tls_context_destroy(t->client);
        hf_free(t);
    }
}
