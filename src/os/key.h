/* The cluster key: its file, and the keys derived from it (A-r1). */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/slice.h"

#define HF_KEY_LEN 32

/* Secret: never logged, wiped by hf_key_wipe(). */
struct hf_key {
    uint8_t b[HF_KEY_LEN];
};

/**
 * Read a key file: one line of 64 hex digits ("holdfast keygen" writes it). Refuses a file that
 * group or others may read or write. -HF_EKEY or -errno, with file and remedy in err.
 */
HF_MUST int hf_key_load(const char *path, struct hf_err *err, struct hf_key *ret_key);

/** A new random key into a new file, mode 0600; -EEXIST if there is one (never overwritten). */
HF_MUST int hf_key_generate(const char *path, struct hf_err *err);

/** HKDF-SHA256 (RFC 5869) of key with info; out_len <= 64. */
HF_MUST int hf_key_derive(const struct hf_key *key, struct hf_slice info, uint8_t *out,
                          size_t out_len);

/** First 4 bytes of a derived key, sent in the clear to tell clusters apart. */
uint32_t hf_key_id(const struct hf_key *key);

void hf_key_wipe(struct hf_key *key);
