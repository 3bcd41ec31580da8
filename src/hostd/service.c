/* What a service's value says of where it is reached, and where its owner is. */
#include "hostd/service.h"

#define DNS_NAME_MAX 253

json_t *hf_service_load(struct hf_slice value)
{
    json_t *v = json_loadb((const char *)value.p, value.n, 0, NULL);
    if (!json_is_object(v)) {
        json_decref(v);
        return NULL;
    }
    return v;
}

uint16_t hf_service_int(const json_t *value, const char *key, uint16_t max, uint16_t missing)
{
    const json_t *n = json_object_get(value, key);
    json_int_t i = json_is_integer(n) ? json_integer_value(n) : -1;
    return i >= 0 && i <= max ? (uint16_t)i : missing;
}

uint16_t hf_service_port(const json_t *value)
{
    return hf_service_int(value, "port", UINT16_MAX, 0);
}

static bool is_wildcard(const struct hf_endpoint *e)
{
    static const uint8_t zero[sizeof(e->addr)];
    return memcmp(e->addr, zero, sizeof(zero)) == 0;
}

struct hf_endpoint hf_service_owner_endpoint(const struct hf_hostd *h, uint32_t owner)
{
    struct hf_endpoint e;
    if (owner != hf_dir_self(h->dir)) {
        e = h->store->owner[owner].endpoint;
    } else if (h->config->host.address.len) {
        e = hf_addr_to_endpoint(&h->config->host.address);
    } else {
        e = hf_addr_to_endpoint(&h->config->http.listen);
        if (e.family == HF_AF_NONE || is_wildcard(&e)) {
            e = (struct hf_endpoint){.family = HF_AF_INET, .addr = {127, 0, 0, 1}};
        }
    }
    e.port = 0;
    e.scope = 0; /* means something on one host only */
    return e;
}

static bool is_literal(const char *text, struct hf_endpoint *ret_at)
{
    struct hf_addr a;
    if (text[strspn(text, "0123456789abcdefABCDEF.:")] || hf_addr_parse(text, 0, NULL, &a)) {
        return false;
    }
    *ret_at = hf_addr_to_endpoint(&a);
    return ret_at->port == 0;
}

enum hf_service_at hf_service_address(const struct hf_hostd *h, const json_t *value, uint32_t owner,
                                      struct hf_endpoint *ret_at, const char **ret_name)
{
    const json_t *address = json_object_get(value, "address");
    if (!address) {
        *ret_at = hf_service_owner_endpoint(h, owner);
        return HF_SERVICE_AT_OWNER;
    }
    const char *text = json_string_value(address);
    if (!text) {
        return HF_SERVICE_AT_NOWHERE;
    }
    if (is_literal(text, ret_at)) {
        return HF_SERVICE_AT_LITERAL;
    }
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    if (n == 0 || n > DNS_NAME_MAX || text[n]) {
        return HF_SERVICE_AT_NOWHERE;
    }
    *ret_name = text;
    return HF_SERVICE_AT_NAME;
}
