/* auth.query: not asked yet. */
#include "pg/secrets.h"

bool hf_pg_secrets_ask(struct hf_pg_client *c)
{
    (void)c;
    return false;
}

void hf_pg_secrets_forget(struct hf_pg_client *c)
{
    c->asking = false;
}
