/* Secrets of users who are not in auth.file: auth.query. */
#pragma once

#include "pg/client.h"

/** Ask for the secret of who logs in: hf_pg_client_secret() follows, not from within. false: it
 * can't be asked. */
bool hf_pg_secrets_ask(struct hf_pg_client *c);
/** The client is gone. */
void hf_pg_secrets_forget(struct hf_pg_client *c);
