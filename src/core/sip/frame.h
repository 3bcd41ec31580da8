/* Where a message ends in a stream (TCP, TLS): Content-Length, and the keep-alives of RFC 5626. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/slice.h"
#include "core/sip/message.h"

enum hf_sip_frame_kind {
    HF_SIP_FRAME_MORE,    /* not yet whole */
    HF_SIP_FRAME_MESSAGE, /* n bytes are one message */
    HF_SIP_FRAME_PING,    /* n bytes are CRLF CRLF: answer CRLF (RFC 5626 3.5.1) */
    HF_SIP_FRAME_PONG,    /* n bytes are CRLF, at the side that pings */
    HF_SIP_FRAME_SKIP,    /* n bytes mean nothing: CRLF before a message (RFC 3261 7.5) */
    HF_SIP_FRAME_REFUSED, /* the end can't be known, or is too far: `fault` says why. With n > 0
                           * these are the header, to be parsed and answered (its body does not
                           * count); then the connection is to be closed */
};
/** Of one connection; begins as zero. */
struct hf_sip_framer {
    size_t seen;    /* bytes in which no end of the header is */
    size_t whole;   /* the message's length once it is known; 0: not yet */
    bool pings;     /* set by the owner: this side sends the pings */
    size_t len_max; /* set by the owner: bytes of a message; 0: HF_SIP_MESSAGE_MAX */
};
struct hf_sip_frame {
    enum hf_sip_frame_kind kind;
    size_t n; /* bytes to take off the stream */
    enum hf_sip_fault fault;
};
/** What the stream's bytes, all that have come and were not taken, begin with. The work over a
 * whole message is linear in its length, however it is cut. */
void hf_sip_frame(struct hf_sip_framer *f, struct hf_slice s, struct hf_sip_frame *ret_frame);
