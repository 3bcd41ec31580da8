/* SCRAM messages of clients and of servers, verifiers: nobody gets in without the key. Messages are
 * lines of the input. */
#include <assert.h>

#include "base/err.h"
#include "core/pg/scram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct hf_slice line(struct hf_slice *s)
{
    const uint8_t *nl = s->n ? memchr(s->p, '\n', s->n) : NULL;
    struct hf_slice l = hf_slice(s->p, nl ? (size_t)(nl - s->p) : s->n);
    size_t used = l.n + (nl ? 1 : 0);
    *s = hf_slice(s->n > used ? s->p + used : NULL, s->n - used);
    return l;
}

static const uint8_t nonce[HF_PG_NONCE_LEN] = "abcdefghijklmnopqr";

static void server(struct hf_slice s, struct hf_slice hash)
{
    static const uint8_t key[HF_PG_KEY_LEN] = {1};
    struct hf_pg_verifier v;
    hf_pg_verifier_mock(key, hf_slice_str("u"), &v);
    struct hf_pg_scram x;
    struct hf_buf b;
    const char *why = NULL;
    hf_buf_init(&b, 65536);
    hf_pg_scram_serve(&x, &v, hash, nonce);
    struct hf_slice mechanism = line(&s);
    int rc = hf_pg_scram_first(&x, mechanism, line(&s), &b, &why);
    if (rc == 0) {
        uint8_t got[HF_PG_KEY_LEN];
        assert(b.err == 0 && b.n <= HF_PG_SCRAM_MESSAGE_MAX);
        rc = hf_pg_scram_final(&x, line(&s), &b, got, &why);
        assert(rc != 0); /* its StoredKey is the hash of nothing that is known */
    }
    assert(why);
    hf_pg_scram_fini(&x);
    hf_buf_fini(&b);
}

static void client(struct hf_slice s, bool plus, struct hf_slice hash)
{
    struct hf_pg_secret k = {.kind = HF_PG_SECRET_CLIENT_KEY,
                             .verifier = {.iterations = 4096, .n_salt = 4, .salt = "salt"}};
    struct hf_pg_scram x;
    struct hf_buf b;
    const char *why = NULL;
    hf_buf_init(&b, 65536);
    hf_pg_scram_begin(&x, &k, plus, hash, nonce);
    hf_pg_scram_hello(&x, &b);
    if (hf_pg_scram_prove(&x, line(&s), &b, &why) == 0) {
        int rc = hf_pg_scram_check(&x, line(&s), &why);
        (void)rc;
    }
    hf_pg_scram_fini(&x);
    hf_buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0) {
        return 0;
    }
    struct hf_slice s = hf_slice(data + 1, n - 1);
    struct hf_slice hash = data[0] & 2 ? hf_slice_str("hash") : hf_slice(NULL, 0);
    struct hf_pg_secret secret;
    if (data[0] & 1) {
        server(s, hash);
    } else {
        client(s, data[0] & 4, hash);
    }
    if (hf_pg_secret_parse(s, &secret) == 0) {
        assert(secret.kind != HF_PG_SECRET_VERIFIER || secret.verifier.iterations > 0);
        assert(memchr(secret.password, 0, sizeof(secret.password)));
    }
    return 0;
}
