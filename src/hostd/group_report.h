/* Groups as people and programs see them: JSON, problems, metrics, and the short form that
 * followers are told. */
#pragma once

#include "base/err.h"
#include "base/slice.h"
#include "hostd/group.h"

/* What followers care about. */
struct hf_group_summary {
    char group[HF_GROUP_NAME_MAX + 1];
    uint8_t flags; /* enum hf_ctl_group_flags */
    uint8_t phase; /* enum hf_phase */
    uint64_t epoch;
    char resource[HF_GROUP_RESOURCE_NAME_MAX + 1]; /* the primary one; "": none */
    char host[HF_HOST_NAME_MAX + 1];               /* its host, and where that is reached */
    char address[HF_GROUP_ADDRESS_MAX + 1];
    char fence_text[HF_GROUP_FENCE_TEXT_MAX + 1]; /* of this epoch's promotion; "": none */
    char lost[HF_GROUP_LOST_MAX + 1]; /* hosts taken for dead, with spaces between; "": none */
};

/** The summary of a group by its name; of one that is not here all but the name is empty. */
void hf_group_summarize(const struct hf_groups *gs, const char *name,
                        struct hf_group_summary *ret_summary);

bool hf_group_summary_eq(const struct hf_group_summary *a, const struct hf_group_summary *b);

/** Append it as a JSON object. */
void hf_group_summary_json(const struct hf_group_summary *s, struct hf_buf *out);

/** A JSON array of the groups of this host, or of the one named; -HF_ENOTFOUND with a text. */
HF_MUST int hf_report_groups(struct hf_hostd *h, struct hf_slice name, struct hf_buf *out,
                             struct hf_err *err);

/** Tell fn what is wrong with groups, and what to do. */
void hf_report_group_problems(const struct hf_hostd *h,
                              void (*fn)(void *arg, const char *severity, const char *what,
                                         const char *remedy),
                              void *arg);

/** Gauges and counters in Prometheus' text format; nothing without groups. */
void hf_report_group_metrics(const struct hf_hostd *h, struct hf_buf *out);
