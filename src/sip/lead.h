/* The leader's work: who is moved where (D8); and what operators ask of the database. */
#pragma once

#include "core/sip/rebalance.h"
#include "sip/server.h"

/*
 * A thread of its own, as all of it waits for the database. Leading: once a second the loads of all
 * servers, who is not at home and who of dead ones is left go to core/sip/rebalance.h, and what it
 * wants moved is moved. A reign is begun first: it is the group's epoch, or, without a group, one
 * above the last; a later leader's reign ends this one. Who stops leading for less than a second
 * and has the same reign then goes on with what he knew.
 */
/** Owned by s->lead. Errors with text. */
HF_MUST int hf_sip_lead_start(struct hf_sip *s, struct hf_err *err);
/** NULL is fine. */
void hf_sip_lead_stop(struct hf_sip_lead_thread *l);

/** This server leads from now on, in this reign (0: one above the last), or does not. primary: the
 * host of the group's primary, if it is another one, for those who ask here; "": nobody's. */
void hf_sip_lead_set(struct hf_sip_lead_thread *l, bool leads, uint64_t reign, const char *primary);
/** A server as the tree has it. */
void hf_sip_lead_peer(struct hf_sip_lead_thread *l, struct hf_slice name,
                      const struct hf_sip_server *now, const struct hf_sip_load *load);
/** The feed has told this change; any thread. */
void hf_sip_lead_change(struct hf_sip_lead_thread *l, uint64_t change);

/* What operators ask. */
#define HF_SIP_LEAD_COMMAND_LIST(X)                                                                \
    X(PLAN, "plan")                                                                                \
    X(REBALANCE, "rebalance")                                                                      \
    X(ASSIGN, "assign")                                                                            \
    X(PIN, "pin")                                                                                  \
    X(UNPIN, "unpin")                                                                              \
    X(IMPORT, "import")                                                                            \
    X(EXPORT, "export")                                                                            \
    X(USER_ADD, "user-add")                                                                        \
    X(USER_DELETE, "user-delete")
enum hf_sip_lead_command {
#define HF_SIP_LEAD_COMMAND_ENUM(id, name) HF_SIP_LEAD_##id,
    HF_SIP_LEAD_COMMAND_LIST(HF_SIP_LEAD_COMMAND_ENUM)
#undef HF_SIP_LEAD_COMMAND_ENUM
        HF_SIP_LEAD_COMMAND_COUNT_
};
const char *hf_sip_lead_command_name(enum hf_sip_lead_command c);

struct hf_sip_lead_ask {
    enum hf_sip_lead_command command;
    uint64_t id;
    struct hf_slice aor;         /* ASSIGN, PIN, UNPIN, USER_ADD */
    const char *server;          /* ASSIGN */
    const char *user, *password; /* USER_ADD, USER_DELETE */
    struct hf_slice csv;         /* IMPORT */
};
/** Copied. The answer is a mail to the main thread: HF_SIP_TOLD_ANSWER, hf_sip_lead_answer, text.
 * -ENOMEM, -HF_EFULL: too many wait. */
HF_MUST int hf_sip_lead_ask(struct hf_sip_lead_thread *l, const struct hf_sip_lead_ask *ask);
struct hf_sip_lead_answer {
    uint64_t id;
    int32_t rc;
    uint32_t pad;
    uint64_t n; /* rows */
};

/** For metrics and status; any thread. */
struct hf_sip_lead_figures {
    bool leads;
    uint64_t reign;
    enum hf_sip_balance state;
    struct hf_sip_rebalance_counters counters;
    uint64_t moved, failed, reigns; /* reigns: begun by this server */
};
void hf_sip_lead_figures(struct hf_sip_lead_thread *l, struct hf_sip_lead_figures *ret_figures);
