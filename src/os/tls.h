/* TLS 1.3 between hosts with a pre-shared key derived per (client, server, purpose) (A-r1). */
#pragma once

#include "base/limits.h"
#include "os/key.h"

struct hf_tls;
struct ssl_st;

/**
 * A context for both roles. PSK = HKDF(cluster key, "tls-psk", client, server, purpose), PSK
 * identity "hf1 CLIENT SERVER PURPOSE"; psk_dhe_ke only, TLS 1.3 only, no tickets, no early data.
 * Our own name as the peer is refused. `purpose` is for example "pull".
 */
HF_MUST int hf_tls_create(const struct hf_key *key, const char *host, const char *purpose,
                          struct hf_tls **ret_tls);
void hf_tls_destroy(struct hf_tls *t);

/** A connection object towards `server`, or for accepting when server is NULL; owned by the caller.
 */
HF_MUST int hf_tls_new(struct hf_tls *t, const char *server, struct ssl_st **ret_ssl);

/** After the handshake: the authenticated name of the other side, "" if there is none. */
const char *hf_tls_peer(const struct ssl_st *ssl, char buf[HF_HOST_NAME_MAX + 1]);
