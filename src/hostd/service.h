/* What a service's value says of where it is reached, and where its owner is. */
#pragma once

#include <jansson.h>

#include "hostd/hostd.h"

/** The members of a value; NULL if jansson refuses it (as numbers beyond 64 bits). Owned. */
HF_MUST json_t *hf_service_load(struct hf_slice value);

/** An integer member from 0 to max, or `missing`. */
uint16_t hf_service_int(const json_t *value, const char *key, uint16_t max, uint16_t missing);

/** "port", 1 to 65535, or 0. */
uint16_t hf_service_port(const json_t *value);

/**
 * Where the owner is reached, without a port; family HF_AF_NONE: not known. For ourselves
 * host.address, else http.listen unless that is a wildcard, else 127.0.0.1.
 */
struct hf_endpoint hf_service_owner_endpoint(const struct hf_hostd *h, uint32_t owner);

enum hf_service_at {
    HF_SERVICE_AT_OWNER,   /* the value has no "address" */
    HF_SERVICE_AT_LITERAL, /* it is an IP address */
    HF_SERVICE_AT_NAME,    /* it is a host's name */
    HF_SERVICE_AT_NOWHERE, /* it is neither */
};

/**
 * What the value's "address" is. *ret_at is set for LITERAL, and for OWNER to where that is;
 * *ret_name for NAME (borrowed from value).
 */
enum hf_service_at hf_service_address(const struct hf_hostd *h, const json_t *value, uint32_t owner,
                                      struct hf_endpoint *ret_at, const char **ret_name);
