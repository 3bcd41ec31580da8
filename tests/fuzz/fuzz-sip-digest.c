/* Credentials: whatever is said, nobody gets in without the secret, and no nonce is ours but ours.
 */
#include <assert.h>

#include "base/err.h"
#include "core/sip/digest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const uint8_t key[HF_SIP_NONCE_KEY_LEN] = {1};
    static const uint8_t secret[HF_SIP_HASH_MAX] = {2};
    struct hf_sip_credentials c;
    struct hf_slice user;
    char buf[HF_SIP_USERNAME_MAX], hex[2 * HF_SIP_HASH_MAX];
    if (hf_sip_credentials_parse(hf_slice(data, n), &c)) {
        return 0;
    }
    int rc = hf_sip_credentials_user(&c, buf, sizeof(buf), &user);
    assert(rc == 0 && user.n <= c.username.n);
    rc = hf_sip_digest_check(&c, hf_slice_str("REGISTER"), secret);
    assert(rc); /* or a preimage was found */
    rc = hf_sip_nonce_check(key, c.realm, c.nonce, 1000, UINT32_MAX);
    assert(rc == -HF_EAUTH);
    rc = hf_sip_digest_response(&c, hf_slice_str("REGISTER"), secret, hex);
    if (rc == 0) {
        c.response = hf_slice(hex, 2 * hf_sip_algorithm_len(c.algorithm));
        rc = hf_sip_digest_check(&c, hf_slice_str("REGISTER"), secret);
        assert(rc == 0);
    }
    return 0;
}
