/* DNS: any datagram gets no answer or a well-bounded one, and the name asked for is clean text. */
#include <assert.h>

#include "os/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* One record of each type, so that they are encoded, too. */
static void handler(void *arg, const char *name, uint16_t type, struct hf_dns_reply *reply)
{
    (void)arg;
    assert(strlen(name) <= HF_DNS_NAME_MAX);
    for (const char *p = name; *p; p++) {
        assert(*p > ' ' && *p < 0x7f);
    }
    struct hf_dns_record r = {
        .type = type, .at = {.family = type == HF_DNS_AAAA ? HF_AF_INET6 : HF_AF_INET}, .port = 1};
    strcpy(r.target, "alpha.host.holdfast.internal");
    strcpy(r.service, type == HF_DNS_NAPTR ? "SIP+D2U" : "");
    if (type == HF_DNS_A || type == HF_DNS_AAAA || type == HF_DNS_SRV || type == HF_DNS_NAPTR) {
        for (uint16_t i = 0; i < HF_DNS_RECORDS_MAX + 1; i++) {
            r.at.addr[3] = (uint8_t)i;
            r.port = r.priority = i;
            (void)hf_dns_reply_add(reply, &r);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t buf[HF_DNS_PACKET_MAX], again[HF_DNS_PACKET_MAX];
    size_t len = hf_dns_respond(hf_slice(data, n), handler, NULL, buf);
    assert(len <= sizeof(buf));
    if (len > 0) { /* an answer gets no answer */
        assert(hf_dns_respond(hf_slice(buf, len), handler, NULL, again) == 0);
    }
    return 0;
}
