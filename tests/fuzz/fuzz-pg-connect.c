/* A server's bytes during a login: total and bounded, the same however they are cut; the password
 * never in the clear where that is not allowed. */
#include <assert.h>

#include "base/err.h"
#include "core/pg/connect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define SECRET "correct horse battery staple"

struct run {
    enum hf_pg_connect_act act;
    struct hf_buf sent;
};

static void run(uint8_t flags, struct hf_slice s, size_t piece, struct run *ret)
{
    static const char *const secrets[] = {
        SECRET, "md5b2f1d9a1d5c2d8c6c0e6c7f1e2d3a4b5",
        ("SCRAM-SHA-256$4096:c2FsdA==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
         "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=")};
    struct hf_pg_secret secret;
    int rc = hf_pg_secret_parse(hf_slice_str(secrets[(flags >> 3) % 3]), &secret);
    assert(rc == 0);
    if (secret.kind == HF_PG_SECRET_VERIFIER) {
        secret.kind = HF_PG_SECRET_CLIENT_KEY;
    }
    const struct hf_pg_connect_args args = {.sslmode = (enum hf_pg_sslmode)(flags % 6),
                                            .version = flags & 64 ? HF_PG_VERSION_3_2 : 0,
                                            .user = hf_slice_str("u"),
                                            .secret = &secret,
                                            .nonce = "abcdefghijklmnopq",
                                            .deadline = HF_NEVER};
    struct hf_pg_connect *c;
    struct hf_pg_connect_out out;
    rc = hf_pg_connect_create(&args, &c);
    assert(rc == 0);
    hf_buf_init(&ret->sent, 1 << 20);
    struct hf_pg_connect_in in = {.kind = HF_PG_CONNECT_IN_OPEN};
    size_t used = 0, seen = 0;
    bool offered;
    do {
        offered = in.kind == HF_PG_CONNECT_IN_BYTES; /* after anything else: once more */
        if (offered) {
            seen = s.n - seen < piece ? s.n : seen + piece;
        }
        in.bytes = hf_slice(s.p + used, seen - used);
        hf_pg_connect_step(c, &in, 0, &out);
        used += out.consumed;
        assert(used <= seen);
        hf_buf_add(&ret->sent, out.send);
        in.kind =
            out.act == HF_PG_CONNECT_START_TLS ? HF_PG_CONNECT_IN_TLS : HF_PG_CONNECT_IN_BYTES;
        in.certificate_hash = hf_slice_str("hash");
    } while (out.act < HF_PG_CONNECT_DONE &&
             (seen < s.n || !offered || in.kind != HF_PG_CONNECT_IN_BYTES));
    ret->act = out.act;
    const struct hf_pg_connect_error *e = hf_pg_connect_error(c);
    if (out.act == HF_PG_CONNECT_FAILED) {
        assert(e->code < 0 && strlen(e->sqlstate) == 5 && e->message[0]);
    } else {
        assert(e->code == 0);
    }
    assert(hf_pg_connect_result(c)->tls || ret->sent.n == 0 ||
           !memmem(ret->sent.p, ret->sent.n, SECRET, sizeof(SECRET) - 1));
    hf_pg_connect_destroy(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0 || memmem(data, n, ",i=", 3)) { /* with a password, a second of work for nothing */
        if (n == 0 || (data[0] >> 3) % 3 == 0) {
            return 0;
        }
    }
    struct run whole, pieces;
    struct hf_slice s = hf_slice(data + 1, n - 1);
    run(data[0], s, s.n, &whole);
    run(data[0], s, 1 + data[0] / 64, &pieces);
    if (data[0] % 6 == HF_PG_SSLMODE_DISABLE) { /* as for clients */
        assert(whole.act == pieces.act);
        assert(hf_slice_eq(hf_buf_slice(&whole.sent), hf_buf_slice(&pieces.sent)));
    }
    hf_buf_fini(&whole.sent);
    hf_buf_fini(&pieces.sent);
    return 0;
}
