/* Assignments as CSV (RFC 4180), for import and export: errors name line and field. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/slice.h"

/*
 * The first line names the fields, in any order: aor and home are needed; current (as home if
 * empty), epoch (empty: 0, the database's own + 1) and pinned (yes or no; no if empty) are not.
 * Fields are as RFC 4180 has them, with lines ended by LF or CRLF; none holds a line break, no AoR
 * does. A blank line is passed over.
 *
 *   aor,home,current,epoch,pinned
 *   sip:ann@example.org,alpha,beta,3,no
 */
#define HF_SIP_CSV_FIELD_LIST(X)                                                                   \
    X(AOR, "aor")                                                                                  \
    X(HOME, "home")                                                                                \
    X(CURRENT, "current")                                                                          \
    X(EPOCH, "epoch")                                                                              \
    X(PINNED, "pinned")
enum hf_sip_csv_field {
#define HF_SIP_CSV_FIELD_ENUM(id, name) HF_SIP_CSV_##id,
    HF_SIP_CSV_FIELD_LIST(HF_SIP_CSV_FIELD_ENUM)
#undef HF_SIP_CSV_FIELD_ENUM
        HF_SIP_CSV_FIELD_COUNT_
};

/** One line. Servers go by name here: those of another cluster have no numbers yet. */
struct hf_sip_csv_row {
    char aor[HF_SIP_AOR_MAX + 1];
    char home[HF_HOST_NAME_MAX + 1], current[HF_HOST_NAME_MAX + 1];
    uint64_t epoch;
    bool pinned;
};

/** A reader in the middle of a file. Zeroed: at its beginning. */
struct hf_sip_csv {
    uint64_t n_lines;
    bool named;       /* the first line was read */
    uint8_t n_fields; /* in the first line */
    uint8_t field[8]; /* by place: enum hf_sip_csv_field */
};

/**
 * Read the next line (without its LF). 1: ret_row is set; 0: the line had no row (the first one, a
 * blank one); -HF_EMALF, -HF_ENAME, -HF_EVALUE, -HF_EFULL: err tells line, field and what is wrong;
 * the next line can be read all the same, unless it was the first one that failed.
 */
HF_MUST int hf_sip_csv_read(struct hf_sip_csv *c, struct hf_slice line,
                            struct hf_sip_csv_row *ret_row, struct hf_err *err);

/** Append the first line, or a row's, with its LF (b->err if there is no room). */
void hf_sip_csv_write_head(struct hf_buf *b);
void hf_sip_csv_write(struct hf_buf *b, const struct hf_sip_csv_row *row);
