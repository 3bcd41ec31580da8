/* Where a SIP message came from, or is to go: transport, addresses, and for streams the connection.
 */
#pragma once

#include <stdint.h>

#include "base/endpoint.h"
#include "core/sip/via.h"

/*
 * The core names a stream by a number that the transport gave (conn: worker in the upper 8 bits,
 * then a count that is never used again while the program runs). 0 in a destination: the transport
 * finds or opens a connection to `peer` from `local`.
 */
struct hf_sip_flow {
    uint8_t transport; /* enum hf_sip_transport: UDP, TCP, TLS */
    struct hf_endpoint local, peer;
    uint64_t conn; /* 0: UDP, or (destinations) whichever */
};
