/* CancelRequest: which session, which backend, and a connection to tell it (X14). */
#pragma once

#include "pg/client.h"

/** The session's key is valid from now on; pid: of its first backend. */
void hf_pg_cancel_remember(struct hf_pg_client *c, uint32_t pid);
void hf_pg_cancel_forget(struct hf_pg_client *c);
/** A request. Whether the key was one is told to nobody. */
void hf_pg_cancel_request(struct hf_pg *pg, uint32_t pid, struct hf_slice key);
/** End of the program. */
void hf_pg_cancel_close_all(struct hf_pg *pg);
