/* What holdfast-pg and holdfast-sip tell of themselves in the tree, and what is wrong with it. */
#pragma once

#include <jansson.h>

#include "hostd/hostd.h"

#define HF_PROGRAMS_MANAGERS "/manager"
#define HF_PROGRAMS_SIP "/sip/servers"

/**
 * The managers of service addresses as a new array, by group, then host: {"name", "owner",
 * "serves", "unprotected_ms", "value"} each. `serves`: of all of one name it has the address; of
 * two that believe so the one of the higher epoch. `unprotected_ms`, only there and only then: for
 * so long its sessions have had no backup. At most HF_PROGRAMS_SHOWN_MAX and
 * HF_PROGRAMS_BYTES_MAX. NULL: out of memory.
 */
HF_MUST json_t *hf_programs_managers(const struct hf_hostd *h);

/** The SIP servers, likewise: {"name", "owner", "value"} each, `name` without its path. */
HF_MUST json_t *hf_programs_sip(const struct hf_hostd *h);

/** Tell fn what is wrong with either (arrays as above, or NULL), and what to do. */
void hf_programs_problems(const json_t *managers, const json_t *sip,
                          void (*fn)(void *arg, const char *severity, const char *what,
                                     const char *remedy),
                          void *arg);

/** Append an array as JSON on one line, and take it; NULL: out->err is set. */
void hf_programs_put(json_t *array, struct hf_buf *out);
