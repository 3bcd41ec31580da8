/* A PostgreSQL client's bytes until it is logged in: codec and login core. Cut differently they
 * have the same effect, and who is not known does not get in. */
#include <assert.h>

#include "base/err.h"
#include "core/pg/login.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct hf_pg_secret secret_of(unsigned kind)
{
    static const char *const texts[] = {
        "pw", "md5b2f1d9a1d5c2d8c6c0e6c7f1e2d3a4b5",
        ("SCRAM-SHA-256$1:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
         "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=")};
    struct hf_pg_secret s;
    int rc = hf_pg_secret_parse(hf_slice_str(texts[kind % 3]), &s);
    assert(rc == 0);
    return s;
}

struct run {
    enum hf_pg_login_act act;
    struct hf_buf sent;
};

/* All of s in pieces of `piece` bytes. */
static void run(uint8_t flags, struct hf_slice s, size_t piece, struct run *ret)
{
    static const struct hf_pg_hba_net own = {.address = {.family = HF_AF_INET}, .prefix = 8};
    struct hf_pg_login_conf conf = {
        .tls = flags & 8 ? HF_PG_LOGIN_TLS_OFFERED : HF_PG_LOGIN_TLS_NO, .own = &own, .n_own = 1};
    struct hf_pg_hba *hba;
    struct hf_pg_login *l;
    struct hf_pg_login_out out;
    int rc = hf_pg_hba_create((enum hf_pg_auth)(flags % 7), &hba);
    assert(rc == 0);
    conf.hba = hba;
    struct hf_pg_login_args args = {.conf = &conf,
                                    .local = flags % 7 == HF_PG_AUTH_PEER,
                                    .peer_user = "u",
                                    .deadline = HF_NEVER};
    rc = hf_pg_login_create(&args, &l);
    assert(rc == 0);
    bool known = (flags >> 4) % 4 != 3;
    struct hf_pg_secret secret = secret_of(flags >> 4);
    hf_buf_init(&ret->sent, 1 << 20);
    struct hf_pg_login_in in = {.kind = HF_PG_LOGIN_IN_BYTES};
    size_t used = 0, seen = 0;
    bool offered;
    do {
        offered = in.kind == HF_PG_LOGIN_IN_BYTES; /* after anything else: once more */
        seen = in.kind != HF_PG_LOGIN_IN_BYTES ? seen : s.n - seen < piece ? s.n : seen + piece;
        in.bytes = hf_slice(s.p + used, seen - used);
        hf_pg_login_step(l, &in, 0, &out);
        assert(out.consumed <= in.bytes.n || in.kind != HF_PG_LOGIN_IN_BYTES);
        used += out.consumed;
        hf_buf_add(&ret->sent, out.send);
        in.kind = out.act == HF_PG_LOGIN_NEED_SECRET ? HF_PG_LOGIN_IN_SECRET
                  : out.act == HF_PG_LOGIN_START_TLS ? HF_PG_LOGIN_IN_TLS
                                                     : HF_PG_LOGIN_IN_BYTES;
        in.secret = known ? &secret : NULL;
        in.cn = hf_slice_str("u");
        in.certificate_hash = hf_slice_str("hash");
    } while (out.act < HF_PG_LOGIN_CANCEL &&
             (seen < s.n || !offered || in.kind != HF_PG_LOGIN_IN_BYTES));
    ret->act = out.act;
    if (out.act == HF_PG_LOGIN_DONE) {
        const struct hf_pg_login_result *r = hf_pg_login_result(l);
        struct hf_slice left = r->params, name, value;
        while (hf_pg_param_next(&left, &name, &value)) {
            assert(!hf_slice_starts(name, hf_slice_str("_pq_.")));
        }
        assert(left.n == 0 && r->user.n > 0);
        bool free_entry = r->method == HF_PG_AUTH_TRUST || r->method == HF_PG_AUTH_CERT ||
                          r->method == HF_PG_AUTH_PEER;
        assert(r->method != HF_PG_AUTH_REJECT && (known || free_entry));
    }
    hf_pg_login_destroy(l);
    hf_pg_hba_destroy(hba);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0) {
        return 0;
    }
    struct run whole, pieces;
    struct hf_slice s = hf_slice(data + 1, n - 1);
    run(data[0], s, s.n, &whole);
    run(data[0], s, 1 + data[0] / 64, &pieces);
    if (!(data[0] & 8)) { /* behind an SSLRequest the cut makes a difference: that is meant so */
        assert(whole.act == pieces.act);
        assert(hf_slice_eq(hf_buf_slice(&whole.sent), hf_buf_slice(&pieces.sent)));
    }
    hf_buf_fini(&whole.sent);
    hf_buf_fini(&pieces.sent);
    return 0;
}
