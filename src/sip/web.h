/* /metrics for Prometheus, /status and /servers as JSON. */
#pragma once

#include "sip/server.h"

/** Open sip.metrics_listen, if there is one; owned by s->web. Errors with text. */
HF_MUST int hf_sip_web_open(struct hf_sip *s, struct hf_err *err);
/** NULL is fine. */
void hf_sip_web_close(struct hf_sip_web *w);
