/* The public, read-only HTTP port: dashboard, tree, members, events, service discovery, metrics. */
#pragma once

#include "hostd/hostd.h"

/**
 * Open http.listen of the configuration (none: *ret_web is NULL and 0). Paths: doc/wire/http.md.
 * Errors have a text.
 */
HF_MUST int hf_web_open(struct hf_hostd *h, struct hf_err *err, struct hf_web **ret_web);
void hf_web_close(struct hf_web *w);
/** The port bound to (http.listen may have said 0). */
uint16_t hf_web_port(const struct hf_web *w);
