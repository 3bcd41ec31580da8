/* All of the cluster that one host knows, in one JSON object: for the dashboard and holdfast top.
 */
#pragma once

#include "hostd/hostd.h"

/** Append it (doc/wire/http.md, /v1/overview), without what the timeline has. */
void hf_overview_json(struct hf_hostd *h, struct hf_buf *out);

/** The same with the members "events" and "samples": all that the timeline has. */
void hf_overview_json_all(struct hf_hostd *h, struct hf_buf *out);
