/* Sections of a session: LOGIN: who the client is, and how it logs in again at a server; SEED: what
 * a login that is under way can be done again with. */
#include <string.h>

#include "base/wr.h"
#include "pg/protect_impl.h"

#define LOGIN_MAX 16384

static void put_secret(struct hf_wr *w, const struct hf_pg_secret *s)
{
    const struct hf_pg_verifier *v = &s->verifier;
    hf_wr_u8(w, (uint8_t)s->kind);
    hf_wr_u8(w, s->derived);
    hf_wr_str16(w, hf_slice_str(s->password));
    hf_wr_u32(w, v->iterations);
    hf_wr_str8(w, hf_slice(v->salt, v->n_salt));
    hf_wr_bytes(w, hf_slice(v->stored_key, sizeof(v->stored_key)));
    hf_wr_bytes(w, hf_slice(v->server_key, sizeof(v->server_key)));
    hf_wr_bytes(w, hf_slice(s->client_key, sizeof(s->client_key)));
}

void hf_pg_shield_login_save(struct hf_pg_shield *s,
                             void (*put)(void *arg, uint8_t section, struct hf_slice bytes))
{
    const struct hf_pg_client *c = s->client;
    uint8_t room[LOGIN_MAX];
    struct hf_wr w;
    struct hf_slice bytes = {0};
    hf_wr_init(&w, room, sizeof(room));
    hf_wr_str16(&w, hf_slice_str(c->user->name));
    hf_wr_str16(&w, hf_slice_str(c->database->name));
    hf_wr_str16(&w, hf_slice(c->params, c->n_params));
    hf_wr_u32(&w, c->version);
    hf_wr_u8(&w, (uint8_t)c->replication);
    hf_wr_u8(&w, c->read_only);
    hf_wr_str8(&w, hf_slice(c->cancel_key, c->n_cancel_key));
    hf_wr_str8(&w, hf_slice(c->cancel_id, c->n_cancel_id ? 4 : 0));
    hf_wr_u8(&w, c->secret != NULL);
    if (c->secret) {
        put_secret(&w, c->secret);
    }
    if (hf_wr_end(&w, &bytes) == 0) {
        put(s, HF_PG_SECTION_LOGIN, bytes);
    }
    explicit_bzero(room, sizeof(room));
}

void hf_pg_shield_seed_save(struct hf_pg_shield *s,
                            void (*put)(void *arg, uint8_t section, struct hf_slice bytes))
{
    const struct hf_pg_seed *seed = &s->client->seed;
    uint8_t room[sizeof(*seed) + 1];
    struct hf_wr w;
    struct hf_slice bytes = {0};
    hf_wr_init(&w, room, sizeof(room));
    hf_wr_u8(&w, s->client->read_only);
    hf_wr_bytes(&w, hf_slice(seed->nonce, sizeof(seed->nonce)));
    hf_wr_bytes(&w, hf_slice(seed->salt, sizeof(seed->salt)));
    if (hf_wr_end(&w, &bytes) == 0) {
        put(s, HF_PG_SECTION_SEED, bytes);
    }
}

int hf_pg_shield_seed_read(struct hf_slice in, struct hf_pg_seed *ret_seed, bool *ret_read_only)
{
    struct hf_rd r;
    hf_rd_init(&r, in);
    uint8_t read_only = hf_rd_u8(&r);
    hf_rd_copy(&r, ret_seed->nonce, sizeof(ret_seed->nonce));
    hf_rd_copy(&r, ret_seed->salt, sizeof(ret_seed->salt));
    if (read_only > 1) {
        hf_rd_fail(&r, -HF_EVALUE);
    }
    *ret_read_only = read_only;
    return hf_rd_end(&r);
}

static void read_secret(struct hf_rd *r, struct hf_pg_secret *s)
{
    struct hf_pg_verifier *v = &s->verifier;
    uint8_t kind = hf_rd_u8(r), derived = hf_rd_u8(r);
    if (kind > HF_PG_SECRET_CLIENT_KEY || derived > 1) {
        hf_rd_fail(r, -HF_EVALUE);
        return;
    }
    s->kind = (enum hf_pg_secret_kind)kind;
    s->derived = derived;
    struct hf_slice password = hf_rd_str16(r, sizeof(s->password) - 1);
    memcpy(s->password, password.n ? password.p : (const uint8_t *)"", password.n);
    v->iterations = hf_rd_u32(r);
    struct hf_slice salt = hf_rd_str8(r, sizeof(v->salt));
    memcpy(v->salt, salt.n ? salt.p : (const uint8_t *)"", salt.n);
    v->n_salt = (uint8_t)salt.n;
    hf_rd_copy(r, v->stored_key, sizeof(v->stored_key));
    hf_rd_copy(r, v->server_key, sizeof(v->server_key));
    hf_rd_copy(r, s->client_key, sizeof(s->client_key));
}

int hf_pg_shield_login_read(struct hf_slice in, struct hf_pg_shield_login *ret_login)
{
    struct hf_rd r;
    *ret_login = (struct hf_pg_shield_login){0};
    hf_rd_init(&r, in);
    ret_login->user = hf_rd_str16(&r, LOGIN_MAX);
    ret_login->database = hf_rd_str16(&r, LOGIN_MAX);
    ret_login->params = hf_rd_str16(&r, LOGIN_MAX);
    ret_login->version = hf_rd_u32(&r);
    uint8_t replication = hf_rd_u8(&r), read_only = hf_rd_u8(&r);
    ret_login->cancel_key = hf_rd_str8(&r, 32);
    struct hf_slice pid = hf_rd_str8(&r, 4);
    for (size_t i = 0; i < pid.n; i++) {
        ret_login->cancel_pid = ret_login->cancel_pid << 8 | pid.p[i];
    }
    ret_login->has_secret = hf_rd_u8(&r) != 0;
    if (ret_login->has_secret) {
        read_secret(&r, &ret_login->secret);
    }
    if (replication != HF_PG_REPLICATION_NO || read_only > 1) {
        hf_rd_fail(&r, -HF_EVALUE);
    }
    ret_login->read_only = read_only;
    return hf_rd_end(&r);
}
