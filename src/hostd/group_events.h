/* Groups for readers of /v1/events: how each is, and what happened, for people. */
#pragma once

#include "base/attr.h"
#include "base/limits.h"
#include "hostd/group_report.h"

struct hf_hostd;
struct hf_buf;
struct hf_group_events;

/* What a reader was told. */
struct hf_group_teller {
    char prefix[HF_SERVICE_NAME_MAX + 1];
    uint64_t next; /* note of the timeline to look at */
    size_t n;
    struct hf_group_summary told[HF_GROUPS_MAX];
};

/** wake(arg) is called, from within steps, when there is something to tell. h->timeline is open
 * whenever a reader begins or is told. -ENOMEM. */
HF_MUST int hf_group_events_create(struct hf_hostd *h, void (*wake)(void *arg), void *arg,
                                   struct hf_group_events **ret_events);
/** NULL is fine. */
void hf_group_events_destroy(struct hf_group_events *e);

/** A reader of what is at or below prefix begins. */
void hf_group_teller_init(struct hf_group_events *e, struct hf_slice prefix,
                          struct hf_group_teller *t);
/** Append Server-Sent Events: all there are to tell, or until buf holds more than `enough` bytes.
 */
void hf_group_events_tell(struct hf_group_events *e, struct hf_group_teller *t, struct hf_buf *buf,
                          size_t enough);
