/* Who may log in, by which secret, over which TLS: read from files, never changed, shared. */
#pragma once

#include "core/pg/connect.h"
#include "core/pg/login.h"
#include "os/pgtls.h"
#include "pg/config.h"

struct hf_pg_rules {
    unsigned n_refs;
    struct hf_pg_login_conf login; /* borrows hba */
    struct hf_pg_hba *hba;
    struct hf_pg_userlist *users;      /* NULL: none */
    struct hf_tls_context *client_tls; /* NULL: no TLS */
    struct hf_tls_context *server_tls;
    enum hf_pg_sslmode server_sslmode;
    struct hf_pg_secret manager; /* NONE: no login of our own */
};

/** Read what the configuration names. Errors tell file, line and remedy. key: kept between reloads,
 * HF_PG_KEY_LEN random bytes, or derived from the cluster's key where there is a service address.
 */
HF_MUST int hf_pg_rules_load(const struct hf_pg_config *c, const uint8_t key[HF_PG_KEY_LEN],
                             struct hf_err *err, struct hf_pg_rules **ret_rules);
struct hf_pg_rules *hf_pg_rules_ref(struct hf_pg_rules *r);
void hf_pg_rules_unref(struct hf_pg_rules *r);
