/* The cluster key: its file, and the keys derived from it (A-r1). */
#include "os/key.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hex.h"

#define HEX_LEN (2 * (size_t)HF_KEY_LEN)

/* 64 hex digits and at most one newline. */
static bool decode(const char *text, size_t n, struct hf_key *key)
{
    if (n == HEX_LEN + 1 && text[HEX_LEN] == '\n') {
        n--;
    }
    return hf_hex_get(hf_slice(text, n), HF_KEY_LEN, key->b);
}

/* What fstat(2) says against using this file as a key, or NULL. */
static const char *objection(const struct stat *st)
{
    if (!S_ISREG(st->st_mode)) {
        return "it is not a regular file";
    }
    if (st->st_uid != 0 && st->st_uid != geteuid()) {
        return "it belongs to another user; chown it to root or to the user that runs this";
    }
    if (st->st_mode & 077) {
        return "group or others may access it; chmod 600 it, and make a new key if anyone "
               "could have read this one";
    }
    return NULL;
}

int hf_key_load(const char *path, struct hf_err *err, struct hf_key *ret_key)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int e = errno;
        return hf_err_set(err, -e, "cannot open the cluster key %s: %s%s", path, hf_strerror(-e),
                          e == ENOENT ? "; copy it from another host, or make the first one with "
                                        "'holdfast keygen'"
                                      : "");
    }
    char text[HEX_LEN + 2];
    struct stat st;
    struct hf_key key;
    int rc = 0;
    ssize_t n = 0;
    if (fstat(fd, &st) < 0) {
        rc = -errno;
    } else {
        const char *why = objection(&st);
        if (why) {
            close(fd);
            return hf_err_set(err, -HF_EKEY, "the cluster key %s is not used: %s", path, why);
        }
        n = read(fd, text, sizeof(text));
        rc = n < 0 ? -errno : 0;
    }
    close(fd);
    if (rc) {
        return hf_err_set(err, rc, "cannot read the cluster key %s: %s", path, hf_strerror(rc));
    }
    if (decode(text, (size_t)n, &key)) {
        *ret_key = key;
    } else {
        rc = hf_err_set(err, -HF_EKEY,
                        "the cluster key %s is not one line of 64 hex digits; copy it again, or "
                        "make one with 'holdfast keygen'",
                        path);
    }
    explicit_bzero(text, sizeof(text));
    hf_key_wipe(&key);
    return rc;
}

int hf_key_generate(const char *path, struct hf_err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        int e = errno;
        return hf_err_set(err, -e, "cannot create %s: %s%s", path, hf_strerror(-e),
                          e == EEXIST ? "; a key is never overwritten" : "");
    }
    struct hf_key key;
    char text[HEX_LEN + 1];
    int rc = getrandom(key.b, sizeof(key.b), 0) == (ssize_t)sizeof(key.b) ? 0 : -EIO;
    hf_hex_put(key.b, HF_KEY_LEN, text);
    text[HEX_LEN] = '\n';
    if (rc == 0 && write(fd, text, sizeof(text)) != (ssize_t)sizeof(text)) {
        rc = errno ? -errno : -EIO;
    }
    if (rc == 0 && fsync(fd) < 0) {
        rc = -errno;
    }
    close(fd);
    explicit_bzero(text, sizeof(text));
    hf_key_wipe(&key);
    if (rc) {
        unlink(path);
        return hf_err_set(err, rc, "cannot write %s: %s", path, hf_strerror(rc));
    }
    return 0;
}

int hf_key_derive(const struct hf_key *key, struct hf_slice info, uint8_t *out, size_t out_len)
{
    assert(out_len <= 64);
    struct hf_key ikm = *key; /* the parameter type wants it writable */
    uint8_t info_copy[512];
    char digest[] = "SHA256";
    if (info.n > sizeof(info_copy)) {
        return -EINVAL;
    }
    memcpy(info_copy, info.n ? info.p : (const uint8_t *)"", info.n);
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, ikm.b, sizeof(ikm.b)),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info_copy, info.n),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    int rc = ctx && EVP_KDF_derive(ctx, out, out_len, params) == 1 ? 0 : -ENOMEM;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    hf_key_wipe(&ikm);
    return rc;
}

uint32_t hf_key_id(const struct hf_key *key)
{
    uint8_t b[4];
    if (hf_key_derive(key, hf_slice_str("key-id"), b, sizeof(b)) != 0) {
        return 0; /* matches nobody: refused, never taken for another cluster's */
    }
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

void hf_key_wipe(struct hf_key *key)
{
    explicit_bzero(key, sizeof(*key));
}
