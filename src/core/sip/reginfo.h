/* Bodies of the reg event package (RFC 3680): application/reginfo+xml. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/slice.h"

/* What happened to a contact last (RFC 3680 5.3): its name there, and whether it is still active.
 */
#define HF_SIP_REG_EVENT_LIST(X)                                                                   \
    X(REGISTERED, "registered", true)                                                              \
    X(CREATED, "created", true)                                                                    \
    X(REFRESHED, "refreshed", true)                                                                \
    X(SHORTENED, "shortened", true)                                                                \
    X(EXPIRED, "expired", false)                                                                   \
    X(DEACTIVATED, "deactivated", false) /* register again, at once: it has another home (D9) */   \
    X(PROBATION, "probation", false)                                                               \
    X(UNREGISTERED, "unregistered", false)                                                         \
    X(REJECTED, "rejected", false)
enum hf_sip_reg_event {
#define HF_SIP_REG_EVENT_ENUM(id, name, active) HF_SIP_REG_##id,
    HF_SIP_REG_EVENT_LIST(HF_SIP_REG_EVENT_ENUM)
#undef HF_SIP_REG_EVENT_ENUM
        HF_SIP_REG_EVENT_COUNT_
};
const char *hf_sip_reg_event_name(enum hf_sip_reg_event e);

struct hf_sip_reg_contact {
    struct hf_slice id;  /* of this binding: stays the same as long as it lives */
    struct hf_slice uri; /* as registered */
    enum hf_sip_reg_event event;
    uint32_t expires_s; /* left, of an active one */
    uint16_t q;         /* in 1/1000; over 1000: none was given */
    struct hf_slice call_id;
    uint32_t cseq;
};

/**
 * Append a document with the full state of one AoR. version: of the NOTIFY. The registration is
 * "init" without contacts, "active" if one of them is, else "terminated". What is not XML's is
 * escaped, what is not UTF-8 or not allowed in XML becomes '?'. b->err if there is no room.
 */
void hf_sip_reginfo_write(struct hf_buf *b, uint32_t version, struct hf_slice aor,
                          const struct hf_sip_reg_contact *contact, size_t n);
