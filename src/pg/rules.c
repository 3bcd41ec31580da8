/* HBA, secrets and TLS contexts, from the files that the configuration names. */
#include "pg/rules.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "os/file.h"

#define FILE_MAX (16u << 20)

static int read_file(const char *path, struct hf_buf *b, struct hf_err *err)
{
    int rc = hf_file_read(path, b);
    return rc ? hf_err_set(err, rc == -ENOMEM ? rc : -HF_ECONFIG, "%s: %s", path, hf_strerror(rc))
              : 0;
}

/* "@FILE" of a pg_hba.conf, beside it. */
static int read_list(void *arg, const char *path, struct hf_buf *b, struct hf_err *err)
{
    char full[4400];
    if (*path == '/') {
        return read_file(path, b, err);
    }
    char dir[4100];
    snprintf(dir, sizeof(dir), "%s", (const char *)arg);
    snprintf(full, sizeof(full), "%s/%s", dirname(dir), path);
    return read_file(full, b, err);
}

static int load_hba(const struct hf_pg_config *c, struct hf_pg_rules *r, struct hf_err *err)
{
    struct hf_buf b;
    hf_buf_init(&b, FILE_MAX);
    int rc;
    if (*c->auth.hba_file) {
        const struct hf_pg_hba_files files = {.read = read_list, .arg = c->auth.hba_file};
        rc = read_file(c->auth.hba_file, &b, err);
        rc = rc ? rc : hf_pg_hba_parse(hf_buf_slice(&b), c->auth.hba_file, &files, err, &r->hba);
    } else {
        rc = hf_pg_hba_create((enum hf_pg_auth)c->auth.type, &r->hba);
        rc = rc ? hf_err_set(err, rc, "out of memory") : 0;
    }
    hf_buf_clear(&b);
    if (rc == 0 && *c->auth.ident_file) {
        rc = read_file(c->auth.ident_file, &b, err);
        rc = rc ? rc : hf_pg_hba_add_ident(r->hba, hf_buf_slice(&b), c->auth.ident_file, err);
    }
    hf_buf_fini(&b);
    const struct hf_pg_hba_line *line = rc == 0 ? hf_pg_hba_missing_map(r->hba) : NULL;
    if (line) {
        rc = hf_err_set(err, -HF_ECONFIG, "%s:%u: no map \"%s\"; define it in auth.ident_file",
                        c->auth.hba_file, line->line, line->map);
    }
    return rc;
}

static int load_users(const struct hf_pg_config *c, struct hf_pg_rules *r, struct hf_err *err)
{
    int rc = 0;
    if (*c->auth.file) {
        struct hf_buf b;
        hf_buf_init(&b, FILE_MAX);
        rc = read_file(c->auth.file, &b, err);
        rc = rc ? rc : hf_pg_userlist_parse(hf_buf_slice(&b), c->auth.file, err, &r->users);
        if (b.p) {
            explicit_bzero(b.p, b.room);
        }
        hf_buf_fini(&b);
    }
    if (rc == 0 && *c->auth.password) {
        rc = hf_pg_secret_parse(hf_slice_str(c->auth.password), &r->manager);
        rc = rc ? hf_err_set(err, -HF_ECONFIG, "auth.password: cannot be used as a password") : 0;
    }
    return rc;
}

static int make_tls(const struct hf_pg_tls_config *t, bool server, enum hf_tls_verify verify,
                    struct hf_err *err, struct hf_tls_context **ret_context)
{
    struct hf_tls_context_opt o = {.server = server,
                                   .verify = verify,
                                   .cert_file = t->cert_file,
                                   .key_file = t->key_file,
                                   .ca_file = t->ca_file,
                                   .crl_file = t->crl_file,
                                   .ciphers = t->ciphers,
                                   .tls13 = t->min_protocol == 1,
                                   .alpn = HF_TLS_ALPN_PG};
    return t->sslmode == HF_PG_SSLMODE_DISABLE ? 0 : hf_tls_context_create(&o, err, ret_context);
}

static int load_tls(const struct hf_pg_config *c, struct hf_pg_rules *r, struct hf_err *err)
{
    const struct hf_pg_tls_config *t = &c->client_tls;
    int rc = make_tls(t, true,
                      t->sslmode >= HF_PG_SSLMODE_VERIFY_CA ? HF_TLS_VERIFY_CA
                      : *t->ca_file                         ? HF_TLS_VERIFY_IF_GIVEN
                                                            : HF_TLS_VERIFY_NOT,
                      err, &r->client_tls);
    t = &c->server_tls; /* as libpq: with a ca_file "require" verifies, too */
    bool ca = t->sslmode == HF_PG_SSLMODE_VERIFY_CA ||
              (t->sslmode == HF_PG_SSLMODE_REQUIRE && *t->ca_file);
    return rc ? rc
              : make_tls(t, false,
                         t->sslmode == HF_PG_SSLMODE_VERIFY_FULL ? HF_TLS_VERIFY_FULL
                         : ca                                    ? HF_TLS_VERIFY_CA
                                                                 : HF_TLS_VERIFY_NOT,
                         err, &r->server_tls);
}

int hf_pg_rules_load(const struct hf_pg_config *c, const uint8_t key[HF_PG_KEY_LEN],
                     struct hf_err *err, struct hf_pg_rules **ret_rules)
{
    struct hf_pg_rules *r = hf_alloc(sizeof(*r));
    if (!r) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    r->n_refs = 1;
    int rc = load_hba(c, r, err);
    rc = rc ? rc : load_users(c, r, err);
    rc = rc ? rc : load_tls(c, r, err);
    if (rc) {
        hf_pg_rules_unref(r);
        return rc;
    }
    r->server_sslmode = (enum hf_pg_sslmode)c->server_tls.sslmode;
    r->login.hba = r->hba;
    memcpy(r->login.key, key, HF_PG_KEY_LEN);
    r->login.tls = !r->client_tls                                   ? HF_PG_LOGIN_TLS_NO
                   : c->client_tls.sslmode >= HF_PG_SSLMODE_REQUIRE ? HF_PG_LOGIN_TLS_REQUIRED
                                                                    : HF_PG_LOGIN_TLS_OFFERED;
    if (r->manager.kind == HF_PG_SECRET_NONE && *c->auth.user && r->users) {
        const struct hf_pg_secret *s =
            hf_pg_userlist_get(r->users, hf_slice_str(c->auth.user), key);
        r->manager = s ? *s : r->manager;
    }
    *ret_rules = r;
    return 0;
}

struct hf_pg_rules *hf_pg_rules_ref(struct hf_pg_rules *r)
{
    r->n_refs++;
    return r;
}

void hf_pg_rules_unref(struct hf_pg_rules *r)
{
    if (!r || --r->n_refs > 0) {
        return;
    }
    hf_pg_hba_destroy(r->hba);
    hf_pg_userlist_destroy(r->users);
    hf_tls_context_destroy(r->client_tls);
    hf_tls_context_destroy(r->server_tls);
    hf_pg_secret_wipe(&r->manager);
    explicit_bzero(&r->login, sizeof(r->login));
    hf_free(r);
}
