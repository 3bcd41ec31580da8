/* What a host and a service may be called. */
#pragma once

#include <stdbool.h>

#include "base/slice.h"

/** 1 to n_max bytes of printable ASCII without space: what other programs call their groups and
 * hosts. */
bool hf_word_ok(struct hf_slice s, size_t n_max);

/** A host name: one DNS label of a-z, 0-9 and inner hyphens, at most HF_HOST_NAME_MAX (RFC
 * 1123 2.1). */
bool hf_host_name_ok(struct hf_slice s);

/**
 * A service name: "/label/label...", at most HF_SERVICE_NAME_MAX bytes and HF_SERVICE_DEPTH_MAX
 * labels of 1 to 63 letters, digits, '-', '_' or '.' (a label with '.' has no DNS name).
 */
bool hf_service_name_ok(struct hf_slice s);

/**
 * Is name at or below prefix? "/" and "" are above everything; "/pg" is above "/pg" and "/pg/x",
 * not above "/pgx". A trailing "/" of the prefix is ignored.
 */
bool hf_service_under(struct hf_slice name, struct hf_slice prefix);
