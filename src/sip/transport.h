/* SIP's sockets of one worker: UDP in batches, TCP and TLS connections, handing over to other
 * workers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "core/sip/element.h"
#include "os/loop.h"

/*
 * Each worker has a loop in a thread of its own, with a socket for each listening address
 * (SO_REUSEPORT): recvmmsg() of up to 64 datagrams, their answers collected and sent by sendmmsg()
 * at the end of the batch. Streams: framed by core/sip/frame.h; double-CRLF keep-alives answered
 * (RFC 5626 4.4.1), STUN not; connections found by (transport, peer) for reuse (RFC 5923 for those
 * that we opened or that authenticated), opened when there is none, closed when idle, when a fault
 * says so, when their output stands for too long, or to make room (the longest idle one without a
 * binding's flow goes first). TLS: OpenSSL, 1.2 at least; server, client, mutual between servers
 * (names checked against the tree's); sessions resumed.
 *
 * What belongs to another worker (hf_sip_element_owner()) is copied to its mailbox: one lock and,
 * if it sleeps, one eventfd write for a whole batch.
 */
struct hf_sip_transport;
