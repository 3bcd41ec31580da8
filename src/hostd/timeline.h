/* What happened, and figures of late, for those who look later: two rings in memory. */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/hftime.h"
#include "base/limits.h"

struct hf_hostd;
struct hf_buf;
struct hf_timeline;

/* What a note or a sample is about. */
#define HF_ABOUT_LIST(X)                                                                           \
    X(HOST, "host")                                                                                \
    X(GROUP, "group")                                                                              \
    X(MANAGER, "manager") /* a holdfast-pg; named by its group */                                  \
    X(SIP, "sip")         /* a SIP server */

enum hf_about {
#define HF_ABOUT_ENUM(id, name) HF_ABOUT_##id,
    HF_ABOUT_LIST(HF_ABOUT_ENUM)
#undef HF_ABOUT_ENUM
        HF_ABOUT_COUNT_
};

struct hf_note {
    enum hf_about about;
    char name[HF_HOST_NAME_MAX + 1];
    int64_t at_ms;  /* since 1970 */
    uint64_t epoch; /* of a group; otherwise 0 */
    char text[2 * HF_GROUP_TEXT_MAX];
};

/* The figures of a sample; each kind has its own. */
#define HF_SAMPLE_FIGURES 5
struct hf_sample {
    enum hf_about about; /* MANAGER, of who serves, or SIP */
    char name[HF_HOST_NAME_MAX + 1], owner[HF_HOST_NAME_MAX + 1];
    int64_t at_ms;
    double figure[HF_SAMPLE_FIGURES]; /* negative: not known */
};

/**
 * Listen to groups, and follow what programs tell in the tree. The directory is open, and groups,
 * if there are any. Errors have a text.
 */
HF_MUST int hf_timeline_open(struct hf_hostd *h, struct hf_err *err,
                             struct hf_timeline **ret_timeline);
/** Before groups and directory are closed. NULL is fine. */
void hf_timeline_close(struct hf_timeline *t);

/** fn(arg) whenever there is something new, also from within steps; NULL: nobody listens. */
void hf_timeline_listen(struct hf_timeline *t, void (*fn)(void *arg), void *arg);

/** Add a note of now. t: NULL is fine. */
void hf_timeline_note(struct hf_timeline *t, enum hf_about about, const char *name, uint64_t epoch,
                      const char *fmt, ...) HF_PRINTF(5, 6);

/** How many notes there have ever been: they are numbered from 0, the last HF_NOTES_MAX are there.
 */
uint64_t hf_timeline_notes(const struct hf_timeline *t);
/** The note of this number, or the next one that is there, *number moved to it; NULL: none. */
const struct hf_note *hf_timeline_note_at(const struct hf_timeline *t, uint64_t *number);
/** Append it as a JSON object. */
void hf_note_json(const struct hf_note *n, struct hf_buf *out);

/** Samples likewise, the last HF_SAMPLES_MAX. */
uint64_t hf_timeline_samples(const struct hf_timeline *t);
const struct hf_sample *hf_timeline_sample_at(const struct hf_timeline *t, uint64_t *number);
void hf_sample_json(const struct hf_sample *s, struct hf_buf *out);
