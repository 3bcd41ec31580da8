/* SipHash-2-4-128: a short secret tag of short bytes, which only who knows the key can make. */
#pragma once

#include <stdint.h>

#include "base/slice.h"

#define HF_SIPHASH_KEY_LEN 16
#define HF_SIPHASH_LEN 16

/** Aumasson and Bernstein, 2012; with 128 bits as in its reference implementation. A tenth of what
 * HMAC-SHA-256 costs; for what is forged only by guessing online, not for what is kept for years.
 */
void hf_siphash(const uint8_t key[HF_SIPHASH_KEY_LEN], struct hf_slice s,
                uint8_t ret_tag[HF_SIPHASH_LEN]);
