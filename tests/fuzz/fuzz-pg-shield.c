/* Fuzz: what a peer gave of a session's login and position. */
#include <assert.h>

#include "pg/protect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_pg_shield_login login;
    struct hf_pg_backend_told told;
    uint64_t rx, una;
    if (hf_pg_shield_login_read(hf_slice(data, size), &login) == 0) {
        assert(login.cancel_key.n <= 32 && login.replication == HF_PG_REPLICATION_NO);
        assert(login.secret.verifier.n_salt <= sizeof(login.secret.verifier.salt));
    }
    if (hf_pg_shield_position_read(hf_slice(data, size), &rx, &una) == 0) {
        assert(size == 16);
    }
    size_t n = size < 20 ? size : 20;
    if (hf_pg_backend_told_read(hf_slice(data, n), hf_slice(data + n, size - n), &told) == 0) {
        assert(size == 20 || size == 22);
    }
    return 0;
}
