/* From holdfastd's JSON to what a person reads; no input or output, so that tests can look. */
#pragma once

#include <jansson.h>

#include "base/attr.h"
#include "base/buf.h"

/** Append s with bytes that would control a terminal, except newline and tab, replaced by "?". */
void hf_render_safe(struct hf_buf *out, struct hf_slice s);

/** A span of time in two units at most: "350 ms", "2.5 s", "3 m 20 s", "4 d 2 h". */
void hf_render_span(struct hf_buf *out, int64_t ms);

/** The answer to the query "status", problems first to be seen; colours for a terminal. */
HF_MUST int hf_render_status(struct hf_buf *out, const json_t *status, bool colour);

/** The answer to "members" as a table. */
HF_MUST int hf_render_members(struct hf_buf *out, const json_t *members, bool colour);

/** The answer to "tree" as a table. */
HF_MUST int hf_render_tree(struct hf_buf *out, const json_t *tree);

/** The answer to "groups": hosts, resources, and for what is wrong what to do. */
HF_MUST int hf_render_groups(struct hf_buf *out, const json_t *groups, bool colour);

/** The answer to "group-history" as a table, in local time. */
HF_MUST int hf_render_history(struct hf_buf *out, const json_t *history);

/**
 * Put into a "status" what the managers of service addresses tell (the answer to "tree"
 * "/manager", or NULL): a member "managers", and a problem for each address whose sessions nobody
 * protects. now_s: seconds since 1970.
 */
void hf_managers_add(json_t *status, const json_t *tree, int64_t now_s);

/** The member "managers" of a status: each address at a glance, and its managers as a table. */
HF_MUST int hf_render_managers(struct hf_buf *out, const json_t *managers, int64_t now_s,
                               bool colour);
