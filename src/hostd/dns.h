/* DNS for the tree: A, AAAA, SRV and NAPTR under a configured domain (D1). */
#pragma once

#include "base/prng.h"
#include "hostd/hostd.h"
#include "os/dns.h"

/** Open dns.listen of the configuration (none: *ret_dns is NULL and 0). UDP; what is too long is
 * cut. */
HF_MUST int hf_dns_open(struct hf_hostd *h, struct hf_err *err, struct hf_dns **ret_dns);
void hf_dns_close(struct hf_dns *d);
/** The port bound to (dns.listen may have said 0). */
uint16_t hf_dns_port(const struct hf_dns *d);

/* ---- what names mean, without sockets (doc/wire/dns.md) ---- */

enum hf_dns_name_kind {
    HF_DNS_NAME_FOREIGN, /* not under the domain */
    HF_DNS_NAME_BAD,     /* under it, but nothing can have this name */
    HF_DNS_NAME_INNER,   /* the domain itself, and "host" in it */
    HF_DNS_NAME_HOST,    /* OWNER.host.DOMAIN */
    HF_DNS_NAME_SERVICE, /* c.b.a.DOMAIN */
    HF_DNS_NAME_AT,      /* OWNER._at.c.b.a.DOMAIN: a service of one owner */
};

struct hf_dns_name {
    enum hf_dns_name_kind kind;
    char owner[HF_HOST_NAME_MAX + 1];   /* HOST, AT */
    char path[HF_SERVICE_NAME_MAX + 1]; /* SERVICE, AT: "/a/b/c" */
    char name[HF_DNS_NAME_MAX + 1];     /* the DNS name of that path, in lower case */
    char proto[64];                     /* of names that begin with _service._proto; "": do not */
};

/** What a name means. SERVICE: `drop` leaves out two labels _service._proto at its beginning. */
void hf_dns_name_parse(const char *name, const char *domain, bool drop,
                       struct hf_dns_name *ret_name);

/** The reply (initialised) to a question: answers shuffled, as many as fit. NAPTR: only of SIP's
 * servers (dns_sip.h). */
void hf_dns_answer(const struct hf_hostd *h, struct hf_prng *prng, const char *name, uint16_t type,
                   struct hf_dns_reply *reply);
