/* From holdfastd's JSON to what a person reads; no input or output, so that tests can look. */
#pragma once

#include <jansson.h>

#include "base/attr.h"
#include "base/buf.h"

/** Append s with bytes that would control a terminal, except newline and tab, replaced by "?". */
void hf_render_safe(struct hf_buf *out, struct hf_slice s);

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

/** The member "managers" of a status: each address at a glance, and its managers as a table. */
HF_MUST int hf_render_managers(struct hf_buf *out, const json_t *managers, bool colour);

/* What `holdfast top` shows, and where. */
struct hf_top_view {
    size_t columns, rows; /* rows 0: as many as there are */
    bool colour, utf8;
    const char *lost; /* borrowed; why the overview is old; NULL: it is not */
};

/**
 * The answer to "overview" (NULL: there has been none) in lines that are no longer than the
 * terminal is wide, and no more than it has rows. What does not fit is counted.
 */
HF_MUST int hf_render_top(struct hf_buf *out, const json_t *overview,
                          const struct hf_top_view *view);
