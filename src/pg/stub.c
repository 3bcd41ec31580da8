/* Until the real ones are there: logins by trust, statements that nobody understands. */
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "core/pg/connect.h"
#include "core/pg/login.h"

/* login */
struct hf_pg_login {
    struct hf_pg_login_args args;
    struct hf_pg_login_result r;
    uint8_t *text;
    struct hf_buf b;
};
int hf_pg_login_create(const struct hf_pg_login_args *args, struct hf_pg_login **ret)
{
    *ret = hf_alloc(sizeof(**ret));
    (*ret)->args = *args;
    hf_buf_init(&(*ret)->b, 4096);
    return 0;
}
void hf_pg_login_destroy(struct hf_pg_login *l)
{
    if (l) {
        hf_free(l->text);
        hf_buf_fini(&l->b);
        hf_free(l);
    }
}
const struct hf_pg_login_result *hf_pg_login_result(const struct hf_pg_login *l)
{
    return &l->r;
}
void hf_pg_login_step(struct hf_pg_login *l, const struct hf_pg_login_in *in, hf_time now,
                      struct hf_pg_login_out *out)
{
    (void)now;
    struct hf_pg_startup s;
    *out = (struct hf_pg_login_out){0};
    hf_buf_clear(&l->b);
    if (in->kind != HF_PG_LOGIN_IN_BYTES) {
        return;
    }
    int n = hf_pg_startup_read(in->bytes, &s);
    if (n < 0) {
        out->act = HF_PG_LOGIN_REFUSED;
        out->text = "bad start-up packet";
        return;
    }
    if (n == 0) {
        return;
    }
    out->consumed = (size_t)n;
    if (s.kind == HF_PG_START_TLS || s.kind == HF_PG_START_GSS) {
        bool tls = s.kind == HF_PG_START_TLS && l->args.conf->tls != HF_PG_LOGIN_TLS_NO;
        hf_buf_str(&l->b, tls ? "S" : "N");
        out->act = tls ? HF_PG_LOGIN_START_TLS : HF_PG_LOGIN_WAIT;
    } else if (s.kind == HF_PG_START_CANCEL) {
        out->act = HF_PG_LOGIN_CANCEL;
        out->pid = s.pid;
        out->key = s.key;
    } else {
        l->text = hf_alloc(s.params.n * 2 + 2);
        memcpy(l->text, s.params.p, s.params.n);
        struct hf_slice all = hf_slice(l->text, s.params.n), k, v;
        l->r.user = hf_pg_param_get(all, "user");
        l->r.database = hf_pg_param_get(all, "database");
        uint8_t *p = l->text + s.params.n, *start = p;
        while (hf_pg_param_next(&all, &k, &v)) {
            if (!hf_slice_eq(k, hf_slice_str("user")) &&
                !hf_slice_eq(k, hf_slice_str("database"))) {
                memcpy(p, k.p, k.n + 1);
                p += k.n + 1;
                memcpy(p, v.p, v.n + 1);
                p += v.n + 1;
            }
        }
        l->r.params = hf_slice(start, (size_t)(p - start));
        l->r.version = s.version;
        size_t m = hf_pg_put_begin(&l->b, 'R');
        hf_pg_put_u32(&l->b, 0);
        hf_pg_put_end(&l->b, m);
        out->act = HF_PG_LOGIN_DONE;
    }
    out->send = hf_buf_slice(&l->b);
}

/* connect */
struct hf_pg_connect {
    struct hf_pg_connect_args args;
    struct hf_pg_connect_result r;
    struct hf_pg_connect_error e;
    struct hf_buf b, params, key;
};
int hf_pg_connect_create(const struct hf_pg_connect_args *args, struct hf_pg_connect **ret)
{
    struct hf_pg_connect *c = *ret = hf_alloc(sizeof(**ret));
    c->args = *args;
    hf_buf_init(&c->b, 4096);
    hf_buf_init(&c->params, 40960);
    hf_buf_init(&c->key, 4096);
    return 0;
}
void hf_pg_connect_destroy(struct hf_pg_connect *c)
{
    if (c) {
        hf_buf_fini(&c->b);
        hf_buf_fini(&c->params);
        hf_buf_fini(&c->key);
        hf_free(c);
    }
}
const struct hf_pg_connect_result *hf_pg_connect_result(const struct hf_pg_connect *c)
{
    return &c->r;
}
const struct hf_pg_connect_error *hf_pg_connect_error(const struct hf_pg_connect *c)
{
    return &c->e;
}
void hf_pg_connect_step(struct hf_pg_connect *c, const struct hf_pg_connect_in *in, hf_time now,
                        struct hf_pg_connect_out *out)
{
    (void)now;
    *out = (struct hf_pg_connect_out){0};
    hf_buf_clear(&c->b);
    if (in->kind == HF_PG_CONNECT_IN_OPEN) {
        struct hf_slice all = c->args.params, k, v;
        size_t m = hf_pg_put_begin(&c->b, 0);
        hf_pg_put_u32(&c->b, HF_PG_VERSION_3_0);
        hf_pg_put_cstr(&c->b, hf_slice_str("user"));
        hf_pg_put_cstr(&c->b, c->args.user);
        hf_pg_put_cstr(&c->b, hf_slice_str("database"));
        hf_pg_put_cstr(&c->b, c->args.database);
        while (hf_pg_param_next(&all, &k, &v)) {
            hf_pg_put_cstr(&c->b, k);
            hf_pg_put_cstr(&c->b, v);
        }
        hf_pg_put_u8(&c->b, 0);
        hf_pg_put_end(&c->b, m);
        out->send = hf_buf_slice(&c->b);
        return;
    }
    if (in->kind != HF_PG_CONNECT_IN_BYTES) {
        out->act = HF_PG_CONNECT_FAILED;
        strcpy(c->e.sqlstate, "08006");
        strcpy(c->e.message, "connection failed");
        c->e.code = -HF_ECLOSED;
        return;
    }
    struct hf_slice s = in->bytes;
    struct hf_pg_head h;
    while (hf_pg_head_read(s, &h) == 0 && s.n >= 5 + (size_t)h.body_len) {
        struct hf_slice body = hf_slice(s.p + 5, h.body_len), k, v;
        s = hf_slice(s.p + 5 + h.body_len, s.n - 5 - h.body_len);
        out->consumed = in->bytes.n - s.n;
        if (h.type == 'S' && hf_pg_status_read(body, &k, &v) == 0) {
            hf_pg_put_cstr(&c->params, k);
            hf_pg_put_cstr(&c->params, v);
        } else if (h.type == 'K' && hf_pg_key_read(body, &c->r.pid, &k) == 0) {
            hf_buf_add(&c->key, k);
        } else if (h.type == 'Z') {
            c->r.params = hf_buf_slice(&c->params);
            c->r.key = hf_buf_slice(&c->key);
            out->act = HF_PG_CONNECT_DONE;
            return;
        } else if (h.type == 'E') {
            struct hf_slice m = hf_pg_error_field(body, 'M'), code = hf_pg_error_field(body, 'C');
            memcpy(c->e.message, m.p, m.n < 255 ? m.n : 255);
            memcpy(c->e.sqlstate, code.p, 5);
            c->e.code = -HF_EAUTH;
            c->e.from_server = true;
            out->act = HF_PG_CONNECT_FAILED;
            return;
        }
    }
}

/* hba and secrets */
int hf_pg_hba_create(enum hf_pg_auth method, struct hf_pg_hba **ret)
{
    (void)method;
    *ret = NULL;
    return 0;
}
int hf_pg_hba_parse(struct hf_slice text, const char *file, const struct hf_pg_hba_files *files,
                    struct hf_err *err, struct hf_pg_hba **ret)
{
    (void)text, (void)files;
    *ret = NULL;
    return hf_err_set(err, -HF_ECONFIG, "%s: not yet", file);
}
int hf_pg_hba_add_ident(struct hf_pg_hba *hba, struct hf_slice text, const char *file,
                        struct hf_err *err)
{
    (void)hba, (void)text;
    return hf_err_set(err, -HF_ECONFIG, "%s: not yet", file);
}
const struct hf_pg_hba_line *hf_pg_hba_missing_map(const struct hf_pg_hba *hba)
{
    (void)hba;
    return NULL;
}
void hf_pg_hba_destroy(struct hf_pg_hba *hba)
{
    (void)hba;
}
int hf_pg_userlist_parse(struct hf_slice text, const char *file, struct hf_err *err,
                         struct hf_pg_userlist **ret)
{
    (void)text, (void)ret;
    return hf_err_set(err, -HF_ECONFIG, "%s: not yet", file);
}
void hf_pg_userlist_destroy(struct hf_pg_userlist *l)
{
    (void)l;
}
const struct hf_pg_secret *hf_pg_userlist_get(struct hf_pg_userlist *l, struct hf_slice user,
                                              const uint8_t key[HF_PG_KEY_LEN])
{
    (void)l, (void)user, (void)key;
    return NULL;
}
int hf_pg_secret_parse(struct hf_slice text, struct hf_pg_secret *ret)
{
    (void)text, (void)ret;
    return -HF_EVALUE;
}
void hf_pg_secret_wipe(struct hf_pg_secret *s)
{
    explicit_bzero(s, sizeof(*s));
}
