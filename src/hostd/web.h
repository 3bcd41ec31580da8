/* The public, read-only HTTP port: tree, members, events, service discovery, metrics, health. */
#pragma once

#include "hostd/hostd.h"

/**
 * Open http.listen of the configuration (none: *ret_web is NULL and 0).
 *   /v1/tree?prefix=     [{"name","owner","value"}], by name, then owner
 *   /v1/members          as hf_report_members()
 *   /v1/events?prefix=   Server-Sent Events: added, changed, removed {"name","owner","value"};
 * synced /v1/sd?prefix=       Prometheus HTTP service discovery: entries whose value has a "port"
 *   /metrics  /healthz
 */
HF_MUST int hf_web_open(struct hf_hostd *h, struct hf_err *err, struct hf_web **ret_web);
void hf_web_close(struct hf_web *w);
/** The port bound to (http.listen may have said 0). */
uint16_t hf_web_port(const struct hf_web *w);
