/* The control socket: what `holdfast sip` asks of a running holdfast-sip, one JSON object a line.
 */
#pragma once

#include "sip/server.h"

/*
 * {"command": NAME, ...} -> {"ok": true, ...} or {"ok": false, "error": TEXT}
 *
 *   status                          this server, its workers, who leads
 *   servers                         all servers as the tree has them
 *   show      aor                   where it belongs, its bindings and subscriptions
 *   trace     aor                   then a line for each message, until the connection is closed
 *   drain, undrain                  this server is to be emptied, or takes clients again
 *   plan                            what the leader would move, and why
 *   rebalance                       the leader is to do so now
 *   assign    aor, server           change its home; pin, unpin: aor
 *   import    csv; export
 *   user-add  user, password[, aor]; user-delete: user
 *
 * The socket has mode 0600; who connects is root or the user that the program runs as.
 */
/** Owned by s->control. Errors with text. */
HF_MUST int hf_sip_control_open(struct hf_sip *s, struct hf_err *err);
/** NULL is fine. The socket's file goes, if it is still this one's. */
void hf_sip_control_close(struct hf_sip_control *c);

/** A line of a trace: a JSON object with its newline. */
void hf_sip_control_trace(struct hf_sip_control *c, struct hf_slice line);
/** An answer of a worker (JSON), and of the leader's thread. */
void hf_sip_control_shown(struct hf_sip_control *c, uint64_t id, struct hf_slice json);
struct hf_sip_lead_answer;
void hf_sip_control_answer(struct hf_sip_control *c, const struct hf_sip_lead_answer *answer,
                           struct hf_slice text);
