/* One SIP element whose messages and store operations lie open: text in, text out. */
#pragma once

#include "base/attr.h"
#include "core/sip/element.h"

#define RIG_SENT 64
#define RIG_OPS 300

struct rig_sent {
    struct hf_sip_flow to;
    size_t n;
    char text[8192]; /* with a NUL */
};
struct rig_op {
    struct hf_sip_op op; /* its slices: in text */
    char text[1024];
    struct hf_sip_bind bind[HF_SIP_BINDS_MAX]; /* keys, URIs and paths: in text */
};
struct rig {
    struct hf_sip_element *e;
    hf_time now;
    uint32_t wall_s;
    struct rig_sent sent[RIG_SENT];
    size_t n_sent;
    struct rig_op op[RIG_OPS];
    size_t n_ops;
    uint64_t resolve; /* the last cookie that a name was asked with; 0: none */
    char name[256];
    char traced[1024]; /* what trace was told */
    char rules[512];   /* of that, the decisions since the last message, with their reasons */
    struct hf_sip_flow from;
    bool gone;       /* service addresses are not here, if the element asks */
    uint64_t breaks; /* sending over this connection finds that it is closed */
};

/** alpha at 10.0.0.1 (UDP and TCP 5060, TLS 5061), a home server of example.com with beta at
 * 10.0.0.2 and gamma at 10.0.0.3; conf may change what it likes before rig_open(). */
struct hf_sip_element_conf rig_conf(void);
void rig_open(struct rig *r, const struct hf_sip_element_conf *conf);
void rig_close(struct rig *r);
/** A peer's state is told. */
void rig_peer(struct rig *r, const char *name, enum hf_sip_server_state state, bool busy);
uint16_t rig_number(struct rig *r, const char *name);

/** From now on messages come from there: 192.0.2.LAST:5060, by this transport and connection. */
void rig_from(struct rig *r, uint8_t last, unsigned transport, uint64_t conn);
/** A message comes; what was sent and asked before is forgotten. LF is CRLF. */
void rig_in(struct rig *r, const char *text);
void rig_in_n(struct rig *r, const char *text, size_t n);
/** Who got the last message, a request, answers it. */
void rig_reply(struct rig *r, unsigned status);
/** Time passes. */
void rig_pass(struct rig *r, hf_time t);
/** The i-th message that went out since, or "". */
const char *rig_out(const struct rig *r, size_t i);
/** Status of the i-th, 0: it is a request or not there. */
unsigned rig_status(const struct rig *r, size_t i);
/** The last op, which must be of this kind. */
const struct hf_sip_op *rig_asked(const struct rig *r, enum hf_sip_op_kind kind);
/** Answers the last op: with this row (home NULL: none). */
void rig_answer(struct rig *r, enum hf_sip_done done, const char *home, uint64_t epoch);
/** ... a LOAD: no bindings, and this kept (NULL: nothing). */
void rig_loaded(struct rig *r, const struct hf_sip_kept *kept);
/** ... a SECRET: user's password, AoR; NULL: unknown. */
void rig_answer_secret(struct rig *r, const char *user, const char *password, const char *aor);
/** The feed has this row. */
void rig_row(struct rig *r, const char *aor, const char *home, uint64_t epoch);
void rig_feed(struct rig *r, bool there, uint64_t change);

/** A request of ann's; more: further lines. method REGISTER, INVITE, ... */
void rig_request(char *buf, size_t room, const char *method, const char *uri, const char *to,
                 const char *more, unsigned cseq);
/** The line of a peer's mark for the request that rig_request() makes with these. */
void rig_mark(char *buf, size_t room, const char *method, unsigned cseq, unsigned hop,
              uint64_t epoch, bool offer);
/** Authorization's line for a challenge (401 or 407) as an answer to it. */
void rig_credentials(char *buf, size_t room, const char *challenge, const char *user,
                     const char *password, const char *method, const char *uri, unsigned nc);
