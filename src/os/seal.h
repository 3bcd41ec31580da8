/* Datagrams between hosts, sealed with AES-256-GCM under keys of one process's life (A-r1, I8). */
#pragma once

#include "codec/advert_v1.h"
#include "os/key.h"

struct hf_sealer;
struct hf_opener;

/** For sending: draws the salt (getrandom), derives the key; the counter starts at 1. */
HF_MUST int hf_sealer_create(const struct hf_key *key, const char *host, uint64_t incarnation,
                             struct hf_sealer **ret_sealer);
void hf_sealer_destroy(struct hf_sealer *s);
/** The 16 bytes of salt, for pull replies. */
const uint8_t *hf_sealer_salt(const struct hf_sealer *s);
/** The counter of the last datagram sealed; 0: none yet. */
uint64_t hf_sealer_counter(const struct hf_sealer *s);

/** Seal body as a datagram of the given kind into buf (room HF_ADVERT_LEN_MAX). */
HF_MUST int hf_seal(struct hf_sealer *s, enum hf_datagram_kind kind, struct hf_slice body,
                    uint8_t buf[HF_ADVERT_LEN_MAX], struct hf_slice *ret_datagram);

/**
 * For receiving. Remembers the derived key of up to senders_max (host, incarnation, salt); only
 * what authenticated is remembered, and the least recently used makes room.
 */
HF_MUST int hf_opener_create(const struct hf_key *key, size_t senders_max,
                             struct hf_opener **ret_opener);
void hf_opener_destroy(struct hf_opener *o);

/**
 * Open a datagram into buf. 0: *ret_head (its name borrowed from datagram) and *ret_body (in buf)
 * are authentic. -HF_EMALF, -HF_ETRUNC, -HF_EVERSION (a future version), -HF_EKEY (another
 * cluster's), -HF_EAUTH. Replays are the directory core's business.
 */
HF_MUST int hf_open(struct hf_opener *o, struct hf_slice datagram, uint8_t buf[HF_ADVERT_LEN_MAX],
                    struct hf_datagram_head *ret_head, struct hf_slice *ret_body);
