/* DNS for the tree: A, AAAA and SRV under a configured domain (D1). */
#pragma once

#include "hostd/hostd.h"

/** Open dns.listen of the configuration (none: *ret_dns is NULL and 0). UDP; what is too long is
 * cut. */
HF_MUST int hf_dns_open(struct hf_hostd *h, struct hf_err *err, struct hf_dns **ret_dns);
void hf_dns_close(struct hf_dns *d);
