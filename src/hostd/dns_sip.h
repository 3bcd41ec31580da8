/* Where SIP's servers are, for DNS: NAPTR and SRV as clients look for them (RFC 3263; D1). */
#pragma once

#include "hostd/dns.h"

/**
 * Answers who asks for SIP's servers, which holdfast-sip publishes below /sip/servers: NAPTR of
 * sip.DOMAIN and of DOMAIN, and SRV of _sip._udp, _sip._tcp and _sips._tcp below these. Those are
 * told of that are live, home and distribution servers: with the weight that is given to them times
 * what is idle of their CPU, and those that shed load behind the others. As many as fit, by chance,
 * the heavier the likelier. name: as parsed. false: it is no such question, or there is no such
 * server; nothing was added then.
 */
bool hf_dns_sip_answer(const struct hf_hostd *h, struct hf_prng *prng,
                       const struct hf_dns_name *name, uint16_t type, struct hf_dns_reply *reply);
