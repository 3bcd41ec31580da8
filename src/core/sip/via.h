/* One value of Via: transport, sent-by, and the parameters that responses follow. */
#pragma once

#include "core/sip/lex.h"
#include "core/sip/uri.h"

#define HF_SIP_COOKIE "z9hG4bK" /* with which a branch of RFC 3261 begins */

#define HF_SIP_TRANSPORT_LIST(X)                                                                   \
    X(UDP, "UDP", 5060)                                                                            \
    X(TCP, "TCP", 5060)                                                                            \
    X(TLS, "TLS", 5061)                                                                            \
    X(SCTP, "SCTP", 5060)                                                                          \
    X(WS, "WS", 80)                                                                                \
    X(WSS, "WSS", 443)
enum hf_sip_transport {
#define HF_SIP_TRANSPORT_ENUM(id, name, port) HF_SIP_TRANSPORT_##id,
    HF_SIP_TRANSPORT_LIST(HF_SIP_TRANSPORT_ENUM)
#undef HF_SIP_TRANSPORT_ENUM
        HF_SIP_TRANSPORT_OTHER /* unknown, kept as text */
};
/** In capitals, as in Via; OTHER: "?". */
const char *hf_sip_transport_name(enum hf_sip_transport t);
/** Where one listens when no port is given. */
uint16_t hf_sip_transport_port(enum hf_sip_transport t);
/** In any case: "udp" is UDP. */
enum hf_sip_transport hf_sip_transport_parse(struct hf_slice name);

struct hf_sip_via {
    struct hf_slice text; /* the whole value */
    enum hf_sip_transport transport;
    struct hf_slice transport_text;
    struct hf_sip_host sent_by;
    struct hf_slice params;   /* ";branch=...;rport" or empty */
    struct hf_slice branch;   /* empty: none (RFC 2543) */
    struct hf_slice received; /* text of an address, without brackets; empty: none */
    struct hf_slice maddr;    /* empty: none */
    uint16_t rport;           /* 0: no port there */
    bool has_rport;           /* ";rport", with or without port (RFC 3581) */
};

/** Parse one value at c, up to a ',' or the end. RFC 3261 20.42, RFC 3581. -HF_EMALF;
 * then ret_via has what could be read (transport and sent-by, or nothing) and no text. */
HF_MUST int hf_sip_via_parse(struct hf_sip_cur *c, struct hf_sip_via *ret_via);

/** The branch is RFC 3261's: it begins with the cookie and has something behind it. Others need
 * 17.2.3's matching by all fields. */
bool hf_sip_via_is_3261(const struct hf_sip_via *v);
