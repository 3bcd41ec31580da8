/* pg_hba.conf, pg_ident.conf and the auth file: any text is read or refused, with a line number. */
#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "core/pg/hba.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct hf_slice list;

static int read_list(void *arg, const char *path, struct hf_buf *b, struct hf_err *err)
{
    (void)arg;
    (void)path;
    (void)err;
    hf_buf_add(b, list);
    return b->err;
}

static void match(const struct hf_pg_hba *h)
{
    static const struct hf_pg_hba_net own = {.address = {.family = HF_AF_INET6}, .prefix = 64};
    for (unsigned i = 0; i < 16; i++) {
        struct hf_pg_hba_ask ask = {
            .local = i & 1,
            .tls = i & 2,
            .replication = i & 4,
            .peer = {.family = i & 8 ? HF_AF_INET6 : HF_AF_INET, .addr = {10, 1, 2, 3}},
            .database = hf_slice_str("d"),
            .user = hf_slice_str("u"),
            .own = &own,
            .n_own = 1};
        const struct hf_pg_hba_line *l = hf_pg_hba_match(h, &ask);
        assert(!l || l->line > 0);
        assert(!l || l->method != HF_PG_AUTH_CERT || ask.tls);
        assert(!l || l->method != HF_PG_AUTH_PEER || ask.local);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct hf_pg_hba_files files = {read_list, NULL};
    static const uint8_t key[HF_PG_KEY_LEN] = {0};
    if (n == 0) {
        return 0;
    }
    struct hf_err err = {0};
    struct hf_slice s = hf_slice(data + 1, n - 1);
    list = hf_slice(s.p, s.n / 2);
    struct hf_pg_hba *h = NULL;
    struct hf_pg_userlist *l = NULL;
    int rc;
    if (data[0] == 'u') {
        rc = hf_pg_userlist_parse(s, "f", &err, &l);
        if (rc == 0) {
            (void)hf_pg_userlist_get(l, hf_slice_str("u"), key);
        }
        hf_pg_userlist_destroy(l);
    } else if (data[0] == 'i') {
        rc = hf_pg_hba_create(HF_PG_AUTH_TRUST, &h);
        assert(rc == 0);
        rc = hf_pg_hba_add_ident(h, s, "f", &err);
        (void)hf_pg_hba_may_be(h, "m", hf_slice_str("a"), hf_slice_str("b"));
        hf_pg_hba_destroy(h);
    } else {
        rc = hf_pg_hba_parse(s, "f", data[0] == 'n' ? NULL : &files, &err, &h);
        if (rc == 0) {
            match(h);
            (void)hf_pg_hba_missing_map(h);
            hf_pg_hba_destroy(h);
        }
    }
    assert(rc == 0 || err.text[0]);
    return 0;
}
